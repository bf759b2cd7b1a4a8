"""The prose checker finds what breaks a rule, and leaves alone what only looks like it."""

from __future__ import annotations

from pathlib import Path

import prose
import pytest
from prose_reader import read

LONG = "word " * 40 + "end."  # 41 words
FITTING = "word " * 39 + "end."  # 40 words
WIDE = "x" * 60 + " " + "y" * 60
WIDE_LINK = "see https://example.org/" + "x" * 100
MANY = "A sentence.\n" * 20


def found(tmp_path: Path, text: str, name: str = "page.md") -> list[str]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return [line.removeprefix("page:") for line in prose.findings("page", read(path))]


def docstring(text: str) -> str:
    lines = "\n".join(f"    {line}" if line else "" for line in text.split("\n"))
    return f'def f():\n    r"""Summary.\n\n{lines}\n    """\n'


TOO_LONG = ["1: a sentence of 41 words"]
SHORT = "word " * 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LONG, TOO_LONG),
        (f"# Title\n\nShort one. {LONG}", ["3: a sentence of 41 words"]),
        (f"Short\none. Then\n{LONG}", ["2: a sentence of 42 words"]),
        (f"**Bold.** {LONG}", TOO_LONG),
        (f"* item\n* {LONG}", ["2: a sentence of 41 words"]),
        (f"* {SHORT}\n  {SHORT}", ["1: a sentence of 60 words"]),
        (f"1. item\n\n   {LONG}", ["3: a sentence of 41 words"]),
        (f"| a | {LONG} |", TOO_LONG),
        ("| " + "word " * 20 + r"`a \| b` " + "word " * 20 + "|", TOO_LONG),
        (f"```\ncode\n```\n{LONG}", ["4: a sentence of 41 words"]),
        (f"    code\n\n{LONG}", ["3: a sentence of 41 words"]),
        ("word " * 39 + "`code` [link text](u).", ["1: a sentence of 42 words"]),
        ("word " * 20 + "(e.g. " + "word " * 20, TOO_LONG),
        ("E.g. " + LONG[5:], TOO_LONG),
        ("word " * 20 + "... " + "word " * 21, TOO_LONG),
        ("word " * 20 + "0.5 % " + "word " * 20, TOO_LONG),
        (f"(`a; b`\nc). {LONG}", ["2: a sentence of 41 words"]),
    ],
)
def test_a_long_sentence_of_a_page_is_found(tmp_path: Path, text: str, expected: list[str]) -> None:
    without_width = [one for one in found(tmp_path, text) if "columns" not in one]
    assert without_width == expected


@pytest.mark.parametrize(
    "text",
    [
        FITTING,
        f"{SHORT}. {SHORT}",
        f"{SHORT}! {SHORT}",
        f'"{SHORT}." {SHORT}',
        f"{SHORT}.)* {SHORT}",
        f"{SHORT}\n\n{SHORT}",
        f"* {SHORT}\n* {SHORT}",
        f"1. {SHORT}\n2. {SHORT}",
        f"{SHORT}:\n* {SHORT}",
        f"# {SHORT}\n{SHORT}",
        f"| {SHORT} | {SHORT} |",
        f"```\n{LONG}\n```",
        f"~~~text\n{LONG}\n\n{LONG}\n~~~",
        f"Code:\n\n    {LONG}\n\n    {LONG}",
        f"* item\n\n      {LONG}",
        f"* item\n\nText.\n\n    {LONG}",
        "`" + LONG + "`",
        "word " * 39 + "`some code; of many words`.",
        "word " * 39 + "[link](a/very long.target)",
    ],
)
def test_what_only_looks_like_a_long_sentence_is_left_alone(tmp_path: Path, text: str) -> None:
    assert [one for one in found(tmp_path, text) if "columns" not in one] == []


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (f'"""{LONG}"""', 1),
        (f'class C:\n    """{LONG}"""', 2),
        (f'async def f():\n    """Summary.\n\n    {LONG}\n    """', 4),
        (f'x: int\n"""{LONG}"""', 2),
        (docstring(f"Raises:\n    One: short\n    Two: {LONG[5:]}"), 6),
        (docstring(f"Raises:\n    One: {SHORT}\n        {SHORT[:50]}"), 5),
        (docstring(f"Raises:\n    One: short\n\n{LONG}"), 7),
        (docstring(f">>> 1\n1\n\n{LONG}"), 7),
        (docstring(f"\\b\nname  text\n\n{LONG}"), 7),
        (f"# {LONG}", 1),
        (f"x = 1  # {LONG}", 1),
        (f"# {SHORT}\n# {SHORT}", 1),
        (f"x = 1  # {SHORT}\n       # {SHORT}", 1),
        (f"if x:\n    pass\n# noqa: E501\n# {LONG}", 4),
        (f'@option("--x", help="{LONG}")\ndef f(): ...', 1),
    ],
)
def test_a_long_sentence_in_python_is_found(tmp_path: Path, source: str, line: int) -> None:
    kinds = [
        one.split(" words")[0][:-3] for one in found(tmp_path, source, "page.py") if "words" in one
    ]
    assert kinds == [f"{line}: a sentence of"]


@pytest.mark.parametrize(
    "source",
    [
        f'x = """{LONG}"""',
        f'def f(): return "{LONG}"',
        f'raise Error("{LONG}")',
        docstring(f"Raises:\n    One: {SHORT}\n    Two: {SHORT}"),
        docstring(f"Args:\n    one: {SHORT}\n\n    two: {SHORT}"),
        docstring(f"Raises:\n    One: short\n\nText.\n\n    {LONG}"),
        docstring(f">>> {LONG}\n{LONG}"),
        docstring(f"\\b\n{LONG}"),
        docstring(f"    {SHORT}\n    {SHORT}"),
        f"# {SHORT}\n\n# {SHORT}",
        f"# {SHORT}\n#\n# {SHORT}",
        f"x = 1  # {SHORT}\ny = 2  # {SHORT}",
        f"# {SHORT}\nx = 1  # {SHORT}",
        f"# {SHORT}\n# fmt: skip\n# {SHORT}",
        f"#!/usr/bin/env {LONG}",
        f"# type: ignore {LONG}",
    ],
)
def test_what_only_looks_like_one_in_python_is_left_alone(tmp_path: Path, source: str) -> None:
    assert [one for one in found(tmp_path, source, "page.py") if "words" in one] == []


def test_sql_comments_are_read_and_statements_are_not(tmp_path: Path) -> None:
    statement = f"-- name: {SHORT}\n-- {SHORT}\nselect {', '.join(['a'] * 41)};  -- {SHORT}\n"
    text = f"{statement}-- {LONG}"
    long = [one for one in found(tmp_path, text, "page.sql") if "words" in one]
    assert long == ["4: a sentence of 41 words"]


def test_findings_are_in_the_order_of_lines(tmp_path: Path) -> None:
    lines = [one.split(":")[0] for one in found(tmp_path, f"{'x' * 101}.\n{LONG}\n{'x' * 101}.")]
    assert lines == ["1", "2", "2", "3"]


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("page.md", f"{MANY}One; two.", "21"),
        ("page.md", f'{MANY}One;\ntwo ("three;" four).', "21, 22"),
        ("page.md", f"{MANY}`one\ntwo` three; four.", "22"),
        ("page.md", f"{MANY}* one;\n* two.", "21"),
        ("page.md", f"{MANY}| a | one two three; four five |", "21"),
        ("page.py", f'"""{MANY}One; two."""', "21"),
        ("page.py", f'"""{MANY}"""\n@option(help="One; two.")\ndef f(): ...', "22"),
    ],
)
def test_semicolons_are_counted(tmp_path: Path, name: str, text: str, lines: str) -> None:
    (one,) = found(tmp_path, text, name)
    assert one.split(":")[0] == lines.split(",", maxsplit=1)[0]
    assert one.endswith(f"semicolons per 100 sentences: {lines}")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "One; two. " + "A sentence.\n" * 18),
        ("page.md", "One; two.\n" + "A sentence.\n" * 49),
        ("page.md", f"{MANY}`one; two` and TL;DR and\n\n    a; b;\n\n```\nc;\n```"),
        ("page.py", f'"""{MANY}"""\nx = 1; y = "a; b; c"  # one; two'),
        ("page.sql", "-- One; two.\nselect 1;\n" * 30),
    ],
)
def test_semicolons_that_are_few_or_no_prose_are_left_alone(
    tmp_path: Path, name: str, text: str
) -> None:
    assert found(tmp_path, text, name) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "x" * 101),
        ("page.md", f"```\n{WIDE}\n```"),
        ("page.md", f"{WIDE} https://example.org"),
        ("page.py", f'"""{WIDE}"""'),
        ("page.py", f"# {WIDE}"),
        ("page.py", f"x = 1  # {WIDE}  # noqa: E501"),
        ("page.py", f"x = 1  # noqa: E501  # {WIDE}"),
        ("page.sql", f"select '{WIDE}'"),
    ],
)
def test_a_wide_line_is_found(tmp_path: Path, name: str, text: str) -> None:
    (one,) = found(tmp_path, text, name)
    assert one.endswith("columns")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.md", "x" * 100),
        ("page.md", f"| {WIDE} |"),
        ("page.md", WIDE_LINK),
        ("page.py", f"# {WIDE_LINK}"),
        ("page.py", f"x = '{WIDE}'"),
        ("page.py", "x = 1  # " + "y" * 80 + "  # noqa: E501, S608"),
    ],
)
def test_a_line_that_may_be_wide_is_left_alone(tmp_path: Path, name: str, text: str) -> None:
    assert found(tmp_path, text, name) == []


def test_the_rate_of_all_files_counts_small_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(10):
        (tmp_path / f"{number}.md").write_text("One; two. Three.\n", encoding="utf-8")
    assert prose.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out == "all: 50.0 semicolons per 100 sentences\n"
    (tmp_path / "0.md").unlink()
    assert prose.main([str(tmp_path)]) == 0


def test_clean_files_end_with_0_and_the_table_has_every_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.md").write_text("One. Two.\n", encoding="utf-8")
    (tmp_path / "inner" / "b.py").write_text("# Three.\n", encoding="utf-8")
    (tmp_path / "inner" / "c.json").write_text("{}", encoding="utf-8")
    assert prose.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
    assert prose.main(["--count", str(tmp_path)]) == 0
    rows = [line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["2", "0", "0.0", "0"], ["1", "0", "0.0", "0"], ["3", "0", "0.0", "0"]]


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        prose.main([str(tmp_path / "dcos")])
    assert ended.value.code == 2


def test_the_checked_set_is_found_and_holds_no_transcripts() -> None:
    names = {
        path.relative_to(prose.ROOT).as_posix()
        for path in prose.files(prose.ROOT / place for place in prose.CODE + prose.PAGES)
    }
    assert {
        "README.md",
        "docs/design.md",
        "schema.sql",
        "tools/prose.py",
        "tests/tools/test_prose.py",
    } <= names
    assert not any(name.startswith("tests/sample") for name in names)

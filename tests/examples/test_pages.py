"""The pages of docs/ do what they say: each program and command is run, its output compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support import pages

pytestmark = pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 shell here")


@pytest.mark.parametrize("page", pages.RUN, ids=lambda page: page.stem)
def test_the_examples_of_a_page_do_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "--redact" in page.read_text(encoding="utf-8"):
        pytest.importorskip("re2", reason="the extra `redact` is not installed")
    monkeypatch.chdir(tmp_path)
    pages.run(page, tmp_path)


@pytest.mark.parametrize("page", pages.RUN, ids=lambda page: page.stem)
def test_every_program_of_a_page_is_run_and_prints_something(page: Path) -> None:
    outputs = dict(typed for block in pages.blocks(page, "console") for typed in pages.typed(block))
    for program in pages.blocks(page, "python"):
        shown = {
            command: said for command, said in outputs.items() if f"{program.title}" in command
        }
        assert shown, f"{page}: nothing runs {program.title}\n{program.text}"
        assert any(said.strip() or "exits with" in command for command, said in shown.items())


@pytest.mark.parametrize(
    ("example", "complaint"),
    [
        (
            '```python title="a.py"\nprint(6 * 7)\n```\n```console\n$ python a.py\n43\n```\n',
            "wanted:",
        ),
        ("```console\n$ sessiondb status none.db\n```\n", "ended with 4"),
        ("```console\n$ true | false\n```\n", "ended with 1"),
        ("```console\n$ echo hello there | cat\nhello ... again\n```\n", "said:\nhello there"),
    ],
)
def test_an_example_that_differs_is_noticed(
    example: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, folder = tmp_path / "page.md", tmp_path / "here"
    page.write_text(example)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(AssertionError, match=complaint):
        pages.run(page, folder)

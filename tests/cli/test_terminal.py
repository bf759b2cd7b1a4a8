"""Output: escapes, cells, tables and numbers."""

from __future__ import annotations

import json

import pytest

from sessiondb.cli.terminal import (
    Column,
    cells,
    cut,
    duration,
    escape,
    escape_json,
    escape_lines,
    size,
    table_lines,
    wrap,
)


def test_escapes_show_what_would_drive_a_terminal() -> None:
    assert escape("a\nb\t\x1b[0m\u202e\x9b") == "a\\nb\\t\\x1b[0m\\u202e\\x9b"
    assert escape_lines("a\r\nb\rc\x08") == "a\nb\\rc\\x08"
    assert json.loads(escape_json(json.dumps({"a": "\x9b\u202e"}, ensure_ascii=False))) == {
        "a": "\x9b\u202e"
    }
    assert escape("日本語 ünï 😀") == "日本語 ünï 😀"


def test_text_is_cut_and_wrapped_by_the_cells_it_takes() -> None:
    assert cells("日本") == 4
    assert cells("e\u0301") == 1
    assert cut("agent:main:discord:channel:1", 13, "middle") == "agent:…nnel:1"
    for where in ("end", "middle", "prefix"):
        for width in range(1, 20):
            assert cells(cut("日本語のとても長いテキスト", width, where)) <= width  # type: ignore[arg-type]
    for width in (5, 10, 33):
        assert all(
            cells(line) <= width
            for line in wrap(
                "a few words, and anextremelylongwordthatfitsnowhere 日本語日本語日本語", width
            )
        )
    assert "".join("".join(wrap("  indented text of words", 12)).split()) == "indentedtextofwords"
    assert list(wrap("a\n\nb", 10)) == ["a", "", "b"]


def test_a_table_fits_its_terminal_and_is_whole_elsewhere() -> None:
    columns = [
        Column("id", cut="prefix"),
        Column("key", cut="middle", width_min=12),
        Column("count", "right"),
        Column("owner", cut="end", spare=2),
        Column("note", spare=1),
    ]
    rows = [
        [
            "0123456789" * 3,
            "agent:main:discord:channel:12345678",
            "1,000",
            "pid 1234 on a host",
            "n" * 30,
        ],
        ["日本語" * 9, "k", "1", None, ""],
    ]
    whole = list(table_lines(columns, rows, None))
    assert "0123456789" * 3 in whole[2]
    assert "n" * 30 in whole[2]
    for width in (200, 80, 60, 50, 40):
        lines = list(table_lines(columns, rows, width))
        assert max(map(cells, lines)) <= width
        assert lines[2].startswith("01234567")
    assert list(table_lines(columns, rows, 200)) == whole
    assert "owner" not in next(iter(table_lines(columns, rows, 60)))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (340, "340 ms"),
        (1_000, "1 s"),
        (61_000, "1 min 1 s"),
        (3_600_000, "1 h"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_lengths_of_time_are_short(ms: int, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (16 * 1024 * 1024, "16.0 MiB")],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size(count) == text

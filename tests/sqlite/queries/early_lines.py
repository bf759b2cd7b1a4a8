"""Cases of queries/early_lines.sql.

The world's files have no early lines. Each case gives them some: those of its own file, and the
same of another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sessiondb.errors import StoreDamaged
from tests.support.statement_cases import Change, Page, Read, run
from tests.support.world import Recorder, World

ODD, CLEAN = "main/odd.jsonl", "main/clean.jsonl"
LIVE = "session live"
ROWS: dict[int, dict[str, Any]] = {
    # that wait: for one that is missing, for one another, for one that waits
    9001: {"entry_id": "a", "waits_for": "gone"},
    9002: {"entry_id": "b", "waits_for": "c"},
    9003: {"entry_id": "c", "waits_for": "b"},
    9004: {"entry_id": "d", "waits_for": "a"},
    # whose parents are entries, and what follows them
    9005: {"entry_id": "e", "waits_for": "x", "parent_seq": 1},
    9006: {"entry_id": "f", "waits_for": "e"},
    9007: {"entry_id": "g", "waits_for": "y", "parent_seq": 2},
    # that are entries: behind their parents, as roots, and as one whose parent came late
    9008: {"entry_seq": 1, "content": b""},
    9009: {"entry_seq": 2, "waits_for": "gone"},
    9010: {"entry_seq": 3, "waits_for": "came", "parent_seq": 4},
    # that is placed once more
    -1: {"entry_id": "h", "waits_for": "z", "parent_seq": 0, "content": b""},
}


def early(w: World, _tx: Recorder) -> None:
    """Give two files the same early lines."""
    for name in (ODD, CLEAN):
        for byte_offset, row in ROWS.items():
            columns = {
                "import_file_no": w.no(f"import_file {name}"),
                "line": 9,
                "byte_offset": byte_offset,
                "after_seq": 4,
                "reason": "early",
                "severity": "early",
                "content": b"c",
                **row,
            }
            names, marks = ", ".join(columns), ", ".join("?" * len(columns))
            w.connection.execute(
                f"INSERT INTO quarantine ({names}) VALUES ({marks})", tuple(columns.values())
            )


def another_files(w: World, tx: Recorder) -> None:
    """Leave the early lines to another file. Both have their head at one place."""
    early(w, tx)
    w.connection.execute(
        "DELETE FROM quarantine WHERE import_file_no = ?", (w.no(f"import_file {ODD}"),)
    )
    w.connection.execute("UPDATE import_file SET head_byte = 9002")


def with_early(statement: str, **params: Any) -> Callable[[World, Recorder], object]:
    def rule(w: World, tx: Recorder) -> object:
        early(w, tx)
        return run(statement, import_file_no=f"import_file {ODD}", **params)(w, tx)

    return rule


def found_beside_another(w: World, tx: Recorder) -> None:
    def at_line(line: int) -> None:
        w.connection.execute(
            "UPDATE quarantine SET line = ? WHERE byte_offset = 9001 AND import_file_no = ?",
            (line, w.no(f"import_file {CLEAN}")),
        )

    early(w, tx)
    at_line(10)
    of = {"import_file_no": f"import_file {ODD}"}
    run("early_lines.found", **of, entry_id="a", line=9, seq=7)(w, tx)
    at_line(9)


def refused(statement: str, **params: Any) -> Callable[[World, Recorder], object]:
    """Return a statement that must change one row, and finds none."""

    def rule(w: World, tx: Recorder) -> None:
        with pytest.raises(StoreDamaged):
            with_early(statement, **params)(w, tx)

    return rule


def changed(changes: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return all early lines as they are new in the world, some of them with other columns."""
    found: dict[str, Any] = {}
    for name in (ODD, CLEAN):
        for byte_offset, row in ROWS.items():
            plain = {
                "line": 9,
                "after_seq": 4,
                "reason": "early",
                "severity": "early",
                "content": b"c",
            }
            columns = plain | row | (changes.get(byte_offset, {}) if name == ODD else {})
            found[f"+quarantine {name}@{byte_offset}"] = {
                column: value for column, value in columns.items() if value is not None
            }
    return found


def of_odd(w: World) -> dict[str, Any]:
    return {"import_file_no": w.no(f"import_file {ODD}")}


CHANGES = [
    Change(
        "early_lines.found",
        "lines that wait for it, and roots without it",
        with_early("early_lines.found", entry_id="gone", line=9, seq=7),
        changed({9001: {"parent_seq": 7}, 9009: {"parent_seq": 7}}),
    ),
    Change(
        "early_lines.found",
        "of lines with one id those of the last one",
        with_early("early_lines.found", entry_id="a", line=9, seq=7),
        changed({9004: {"parent_seq": 7}}),
    ),
    Change(
        "early_lines.found",
        "not while a later line of its id waits",
        with_early("early_lines.found", entry_id="a", line=8, seq=7),
        changed({}),
    ),
    Change(
        "early_lines.found",
        "while a later line of its id waits in another file",
        found_beside_another,
        changed({9004: {"parent_seq": 7}}),
    ),
    Change(
        "early_lines.found",
        "not those that have found it",
        with_early("early_lines.found", entry_id="x", line=9, seq=7),
        changed({}),
    ),
    Change(
        "early_lines.wait_for_another",
        "lines that wait for it, and roots without it",
        with_early("early_lines.wait_for_another", entry_id="gone", parent_id="p"),
        changed({9001: {"waits_for": "p"}, 9009: {"waits_for": "p"}}),
    ),
    Change(
        "early_lines.wait_for_another",
        "not those that have found it",
        with_early("early_lines.wait_for_another", entry_id="x", parent_id="p"),
        changed({}),
    ),
    Change(
        "early_lines.placed",
        "a line with the bytes of its entry",
        with_early("early_lines.placed", byte_offset=9005, seq=7, reason="early"),
        changed(
            {
                9005: {
                    "entry_seq": 7,
                    "entry_id": None,
                    "waits_for": None,
                    "parent_seq": None,
                    "content": b"",
                }
            }
        ),
    ),
    Change(
        "early_lines.placed",
        "a line with bytes of its own",
        with_early("early_lines.placed", byte_offset=9007, seq=7, reason="other"),
        changed({9007: {"entry_seq": 7, "entry_id": None, "waits_for": None, "parent_seq": None}}),
    ),
    Change(
        "early_lines.become_roots",
        "lines that wait, of one file",
        with_early("early_lines.become_roots", byte_offsets="[9001, 9008]", parent_seq=-1),
        changed({9001: {"parent_seq": -1}}),
    ),
    Change(
        "early_lines.repeat",
        "a new one",
        run(
            "early_lines.repeat",
            import_file_no=f"import_file {ODD}",
            seq=5,
            reason="r",
            entry_id="i",
            waits_for="p",
            parent_seq=4,
        ),
        {
            f"+quarantine {ODD}@-5": {
                "line": 0,
                "after_seq": 5,
                "reason": "r",
                "severity": "early",
                "content": b"",
                "entry_id": "i",
                "waits_for": "p",
                "parent_seq": 4,
            }
        },
    ),
    Change(
        "early_lines.repeat",
        "one that was repeated",
        with_early(
            "early_lines.repeat", seq=1, reason="r", entry_id="i", waits_for="p", parent_seq=4
        ),
        changed({}),
    ),
    Change(
        "early_lines.not_missing",
        "a line that is an entry",
        with_early("early_lines.not_missing", byte_offset=9010),
        changed({9010: {"waits_for": None, "parent_seq": None}}),
    ),
    Change(
        "early_lines.not_missing",
        "no line that waits to become an entry",
        refused("early_lines.not_missing", byte_offset=9005),
        changed({}),
    ),
    Change(
        "early_lines.placed",
        "no line that is an entry",
        refused("early_lines.placed", byte_offset=9008, seq=7, reason="other"),
        changed({}),
    ),
    Change(
        "early_lines.set_head",
        "of one file",
        run(
            "early_lines.set_head",
            import_file_no=f"import_file {ODD}",
            head_seq=3,
            head_byte=4,
        ),
        {f"import_file {ODD}": {"head_seq": 3, "head_byte": 4}},
    ),
    Change(
        "early_lines.set_cursor",
        "of one file",
        run("early_lines.set_cursor", import_file_no=f"import_file {ODD}", cursor_id="side"),
        {f"import_file {ODD}": {"cursor_id": "side"}},
    ),
    Change(
        "early_lines.advance",
        "of one file",
        run(
            "early_lines.advance",
            import_file_no=f"import_file {ODD}",
            entries=77,
            state="reading",
            note="n",
        ),
        {f"import_file {ODD}": {"entries": 77, "state": "reading", "note": "n"}},
    ),
]

PAGES = [
    Page(
        "early_lines.branches",
        lambda w: {"session_no": w.no(LIVE), "after_no": 0},
        lambda row: {"after_no": row.branch_no},
        "branch_no",
        lambda w: sorted(
            (
                label.removeprefix("branch ")
                for label, row in w.rows("branch")
                if row["session_no"] == w.no(LIVE)
            ),
            key=lambda label: w.no(f"branch {label}"),
        ),
    ),
    Page(
        "early_lines.entries",
        lambda w: {"low_no": w.no("entry live/1"), "high_no": w.no("entry live/4")},
        lambda row: {"low_no": row.entry_no + 1},
        ("entry_no", "parent_id"),
        lambda w: [
            (f"live/{seq}", w.row(f"entry live/{seq - 1}")["entry_id"] if seq > 1 else None)
            for seq in range(1, 5)
        ],
    ),
    Page(
        "early_lines.without_parent",
        lambda w: of_odd(w) | {"after_offset": -2},
        lambda row: {"after_offset": row.byte_offset},
        "byte_offset",
        [9001, 9006, 9011],
        given=lambda w, tx: (early(w, tx), early_more(w)),
    ),
]


def early_more(w: World) -> None:
    w.connection.execute(
        "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity,"
        " content, entry_id, waits_for) VALUES (?, 9, 9011, 4, 'early', 'early', x'', 'k', 'no')",
        (w.no(f"import_file {ODD}"),),
    )


READS = [
    Read(
        "early_lines.of_file",
        "with early lines",
        of_odd,
        [{"head_seq": None, "head_id": None, "waiting": 1, "missing": 1, "ready": 1}],
        early,
    ),
    Read(
        "early_lines.of_file",
        "without",
        of_odd,
        [{"head_seq": None, "head_id": None, "waiting": 0, "missing": 0, "ready": 0}],
    ),
    Read(
        "early_lines.of_file",
        "whose head waits",
        of_odd,
        [{"head_byte": 9002, "head_id": "b"}],
        lambda w, tx: (
            early(w, tx),
            w.connection.execute("UPDATE import_file SET head_byte = 9002"),
        ),
    ),
    Read(
        "early_lines.waiting",
        "by its id",
        lambda w: of_odd(w) | {"entry_id": "c"},
        [{"byte_offset": 9003}],
        early,
    ),
    Read(
        "early_lines.waiting",
        "of another id",
        lambda w: of_odd(w) | {"entry_id": "gone"},
        [],
        early,
    ),
    Read(
        "early_lines.next",
        "each behind its parent, the newest parent first",
        lambda w: of_odd(w) | {"session_no": w.no(LIVE), "limit": 9},
        lambda w: [
            {"byte_offset": 9007, "entry_id": "g", "parent_seq": 2, "content": b"c"},
            {"byte_offset": 9005, "entry_id": "e", "parent_seq": 1, "content": b"c"},
            {"byte_offset": 9006, "entry_id": "f", "parent_seq": None, "content": b"c"},
            {
                "byte_offset": -1,
                "entry_id": "h",
                "parent_seq": 0,
                "content": w.row("entry live/1")["payload"].encode(),
            },
        ],
        early,
    ),
    Read(
        "early_lines.next",
        "not what follows a later line of the same id",
        lambda w: of_odd(w) | {"session_no": w.no(LIVE), "limit": 9},
        [{"byte_offset": 9007}, {"byte_offset": 9005}, {"byte_offset": -1}],
        lambda w, tx: (
            early(w, tx),
            w.connection.execute(
                "UPDATE quarantine SET entry_id = 'e', line = 10 WHERE byte_offset = 9002"
            ),
        ),
    ),
    Read(
        "early_lines.in_a_circle",
        "the first that waits",
        lambda w: of_odd(w) | {"after_offset": 9001},
        [{"byte_offset": 9002, "waits_for": "c"}],
        early,
    ),
    *(
        Read(f"early_lines.{statement}", "none of another file", params, rows, another_files)
        for statement, params, rows in (
            ("in_a_circle", lambda w: of_odd(w) | {"after_offset": 9000}, []),
            ("found_late", of_odd, []),
            ("waiting", lambda w: of_odd(w) | {"entry_id": "c"}, []),
            ("of_file", of_odd, [{"head_byte": 9002, "head_id": None, "waiting": 0}]),
        )
    ),
    Read(
        "early_lines.without_parent",
        "whose parent waits in another file only",
        lambda w: of_odd(w) | {"after_offset": 9001, "limit": 1},
        [{"byte_offset": 9002, "waits_for": "c"}],
        lambda w, tx: (
            early(w, tx),
            w.connection.execute(
                "DELETE FROM quarantine WHERE byte_offset = 9003 AND import_file_no = ?",
                (w.no(f"import_file {ODD}"),),
            ),
        ),
    ),
    Read(
        "early_lines.found_late",
        "a root whose parent came",
        of_odd,
        [{"byte_offset": 9010, "entry_seq": 3, "parent_seq": 4, "waits_for": "came"}],
        early,
    ),
]

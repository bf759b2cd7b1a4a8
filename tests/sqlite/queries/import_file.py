"""Cases of queries/import_file.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sessiondb.limits import INDEX_RANGE_BYTES
from sessiondb.models import BYTES_OF_ENTRY
from tests.support.statement_cases import (
    Change,
    Given,
    Guard,
    Page,
    Read,
    nothing,
    run,
    set_columns,
)
from tests.support.world import Recorder, World
from tests.support.world_build import NOW

ODD, CLEAN, GROWING = "main/odd.jsonl", "west/clean.jsonl", "west/growing.jsonl"


NEW_FILE = {
    "path": "/imports/new",
    "name": "new",
    "kind": "live",
    "agent_id": "west",
    "inode": "7:7",
    "note": "n",
}

REST = "import_file west/rest.jsonl.reset.1"
RANGE = INDEX_RANGE_BYTES
MAIN, WEST = "import_file main/sessions.json", "import_file west/sessions.json"
# The three in the middle are those that count.
PIECES = (-3 * RANGE, -2 * RANGE, -2 * RANGE + 2, -RANGE - 1, -RANGE)


def in_pieces(w: World, _: Recorder) -> None:
    """Put both indexes into pieces."""
    for agent in ("main", "west"):
        index = f"import_file {agent}/sessions.json"
        set_columns(index, content=None, head_byte=-2 * RANGE)(w, _)
        for byte_offset in PIECES:
            w.connection.execute(
                "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason,"
                " severity, content) VALUES (?, 0, ?, -1, 'x', 'blank', CAST(? AS BLOB))",
                (w.no(index), byte_offset, f"{agent}{byte_offset}"),
            )


def only_that_count(w: World, recorder: Recorder) -> None:
    """Put both indexes into pieces, all of which count."""
    in_pieces(w, recorder)
    w.connection.execute("DELETE FROM quarantine WHERE byte_offset IN (?, ?)", (-3 * RANGE, -RANGE))


def both_begun_again(w: World, recorder: Recorder) -> None:
    for agent in ("main", "west"):
        set_columns(f"import_file {agent}/sessions.json", state="reading")(w, recorder)


def dropping_a_piece(
    what: str, dropped: int | None, *before: int, head_byte: int | None = -2 * RANGE
) -> Change:
    """Return the case that a piece of one of two indexes is dropped, after those `before`."""

    def rule(w: World, tx: Recorder) -> None:
        in_pieces(w, tx)
        set_columns(WEST, head_byte=head_byte)(w, tx)
        for byte_offset in before:
            w.connection.execute(
                "DELETE FROM quarantine WHERE import_file_no = ? AND byte_offset = ?",
                (w.no(WEST), byte_offset),
            )
        run("import_file.drop_piece", path="/imports/west/sessions.json")(w, tx)

    def rows(w: World) -> dict[str, Any]:
        left = {
            f"+quarantine {agent}/sessions.json@{at}": {
                "line": 0,
                "after_seq": -1,
                "reason": "x",
                "severity": "blank",
                "content": f"{agent}{at}".encode(),
            }
            for agent in ("main", "west")
            for at in PIECES
            if agent == "main" or at not in (dropped, *before)
        }
        receipts = {WEST: {"content": None}, MAIN: {"content": None, "head_byte": -2 * RANGE}}
        if head_byte is not None:
            receipts[WEST]["head_byte"] = head_byte
        return left | receipts

    return Change("import_file.drop_piece", what, rule, rows)


def damaged_in_west(w: World, _: Recorder) -> None:
    """Give more files damaged lines: one in two pieces, two lines, and one beside the folder."""
    set_columns(f"import_file {ODD}", path="/imports0")(w, _)
    for name, line, byte_offset, severity in (
        (CLEAN, 1, 9001, "damaged"),
        (CLEAN, 1, 9002, "damaged"),
        (CLEAN, 2, 9003, "blank"),
        (GROWING, 1, 9001, "damaged"),
        (GROWING, 2, 9002, "damaged"),
    ):
        w.connection.execute(
            "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason,"
            " severity, content) VALUES (?, ?, ?, 0, 'x', ?, x'78')",
            (w.no(f"import_file {name}"), line, byte_offset, severity),
        )


def linked_again(
    what: str,
    columns: dict[str, Any] | Callable[[World], dict[str, Any]],
    changed: Callable[[World], dict[str, Any]],
) -> Change:
    """Return the case that a known name is one of another file by now, with these columns."""

    def of_rest(w: World) -> dict[str, Any]:
        return columns(w) if callable(columns) else columns

    def rule(w: World, tx: Recorder) -> None:
        set_columns(REST, **of_rest(w))(w, tx)
        run(
            "import_file.link",
            **NEW_FILE | {"path": f"/imports/{CLEAN}.link"},
            first_path="/imports/west/rest.jsonl.reset.1",
            now_ms=NOW,
        )(w, tx)

    def rows(w: World) -> dict[str, Any]:
        shown = {
            name: str(value).removeprefix("session ") if name == "session_no" else value
            for name, value in of_rest(w).items()
        }
        again = {"inode": "7:7", "imported_at_ms": NOW, "note": "n"}
        return {REST: shown, f"import_file {CLEAN}.link": changed(w) | again}

    return Change("import_file.link", what, rule, rows)


CHANGES = [
    Change(
        "import_file.insert",
        "one new receipt",
        lambda w, tx: tx.one("import_file.insert", **NEW_FILE, now_ms=NOW, sha256="s"),
        {
            "+import_file new": NEW_FILE
            | {"sha256": "s", "imported_at_ms": NOW, "state": "reading"},
        },
    ),
    Change(
        "import_file.advance",
        "every column of one receipt",
        run(
            "import_file.advance",
            import_file_no=f"import_file {GROWING}",
            session_no="session twin",
            bytes=1,
            lines=2,
            entries=5,
            quarantined=4,
            sha256="s",
            final_newline=0,
            inode="7:7",
            now_ms=NOW,
            state="done",
            note="n",
        ),
        {
            f"import_file {GROWING}": {
                "session_no": "twin",
                "bytes": 1,
                "lines": 2,
                "entries": 5,
                "quarantined": 4,
                "sha256": "s",
                "final_newline": 0,
                "inode": "7:7",
                "imported_at_ms": NOW,
                "state": "done",
                "note": "n",
            }
        },
    ),
    Change(
        "import_file.mark_changed",
        "one file of two",
        run("import_file.mark_changed", path=f"/imports/{CLEAN}", note="n"),
        {f"import_file {CLEAN}": {"state": "changed", "note": "n"}},
    ),
    Change(
        "import_file.mark_done",
        "one changed file of two",
        run("import_file.mark_done", path=f"/imports/{ODD}", note="n"),
        {f"import_file {ODD}": {"state": "done", "note": "n"}},
    ),
    Change(
        "import_file.set_aside",
        "one file of two",
        run(
            "import_file.set_aside",
            import_file_no=f"import_file {ODD}",
            path="/p",
            name="n",
            note="was replaced",
        ),
        {
            f"import_file {ODD}": {
                "path": "/p",
                "name": "n",
                "kind": "bak",
                "state": "done",
                "note": "was replaced",
            }
        },
    ),
    Change(
        "import_file.note_compared",
        "one file of two",
        lambda w, tx: tx.run(
            "import_file.note_compared",
            path=f"/imports/{CLEAN}",
            sha256=w.row(f"import_file {CLEAN}")["sha256"],
        ),
        lambda w: {
            f"import_file {CLEAN}": {"compared_sha256": w.row(f"import_file {CLEAN}")["sha256"]}
        },
    ),
    Change(
        "import_file.note_compared",
        "nothing: more was imported since",
        run("import_file.note_compared", path=f"/imports/{CLEAN}", sha256="older"),
        {},
    ),
    Change(
        "import_file.move",
        "one file of two",
        run(
            "import_file.move",
            import_file_no=f"import_file {ODD}",
            path="/p",
            name="n",
            kind="bak",
            agent_id="a",
        ),
        {f"import_file {ODD}": {"path": "/p", "name": "n", "kind": "bak", "agent_id": "a"}},
    ),
    Change(
        "import_file.link",
        "a further name of one file",
        run("import_file.link", **NEW_FILE, first_path=f"/imports/{CLEAN}", now_ms=NOW),
        lambda w: {
            "+import_file new": {
                **NEW_FILE,
                "session_no": "import-work",
                "bytes": w.row(f"import_file {CLEAN}")["bytes"],
                "lines": 3,
                "entries": 2,
                "sha256": w.row(f"import_file {CLEAN}")["sha256"],
                "imported_at_ms": NOW,
                "state": "done",
            }
        },
    ),
    Change(
        "import_file.link",
        "not of a file that is being read",
        run("import_file.link", **NEW_FILE, first_path=f"/imports/{GROWING}", now_ms=NOW),
        {},
    ),
    Change(
        "import_file.link",
        "known, and the same",
        run(
            "import_file.link",
            **NEW_FILE | {"path": f"/imports/{CLEAN}.link"},
            first_path=f"/imports/{CLEAN}",
            now_ms=NOW,
        ),
        {},
    ),
    linked_again(
        "known, of another file by now",
        {"lines": 7, "entries": 8, "final_newline": 0},
        lambda w: {
            "session_no": "rest",
            "bytes": w.row(REST)["bytes"],
            "sha256": w.row(REST)["sha256"],
            "lines": 7,
            "entries": 8,
            "final_newline": 0,
        },
    ),
    linked_again(
        "known, of the same session with other content",
        {"session_no": "session import-work"},
        lambda w: {"bytes": w.row(REST)["bytes"], "sha256": w.row(REST)["sha256"]},
    ),
    linked_again(
        "known, of the same content in another session",
        lambda w: {"sha256": w.row(f"import_file {CLEAN}")["sha256"]},
        lambda w: {"session_no": "rest", "bytes": w.row(REST)["bytes"]},
    ),
    Change(
        "import_file.keep",
        "one piece",
        run(
            "import_file.keep",
            import_file_no=f"import_file {CLEAN}",
            line=1,
            byte_offset=2,
            after_seq=3,
            reason="r",
            severity="blank",
            content=b"c",
            entry_id="e",
            waits_for="w",
        ),
        {
            f"+quarantine {CLEAN}@2": {
                "line": 1,
                "after_seq": 3,
                "reason": "r",
                "severity": "blank",
                "content": b"c",
                "entry_id": "e",
                "waits_for": "w",
            }
        },
    ),
    Change(
        "import_file.drop_tail",
        "from an offset on, of one file",
        lambda w, tx: run(
            "import_file.drop_tail",
            import_file_no=f"import_file {ODD}",
            byte_offset=sorted(
                row["byte_offset"] for label, row in w.rows("quarantine") if ODD in label
            )[1],
        )(w, tx),
        lambda w: {
            f"-{label}": {}
            for label in sorted(label for label, _ in w.rows("quarantine") if ODD in label)[1:]
        },
    ),
    Change(
        "import_file.date_session",
        "one session",
        run(
            "import_file.date_session",
            session_no="session twin",
            created_at_ms=1,
            updated_at_ms=2,
        ),
        {"session twin": {"created_at_ms": 1, "updated_at_ms": 2}},
    ),
    Change(
        "import_file.date_session",
        "without the date of its beginning",
        run(
            "import_file.date_session",
            session_no="session twin",
            created_at_ms=None,
            updated_at_ms=2,
        ),
        {"session twin": {"updated_at_ms": 2}},
    ),
    Change(
        "import_file.save_index",
        "a new one",
        run(
            "import_file.save_index",
            path="/new",
            name="new",
            agent_id="a",
            bytes=1,
            lines=2,
            entries=3,
            sha256="s",
            inode="7:7",
            now_ms=NOW,
            note="n",
            content=None,
            head_byte=-9,
        ),
        {
            "+import_file new": {
                "path": "/new",
                "name": "new",
                "kind": "index",
                "agent_id": "a",
                "bytes": 1,
                "lines": 2,
                "entries": 3,
                "sha256": "s",
                "inode": "7:7",
                "imported_at_ms": NOW,
                "state": "done",
                "note": "n",
                "head_byte": -9,
            }
        },
    ),
    Change(
        "import_file.save_index",
        "one of two again",
        run(
            "import_file.save_index",
            path="/imports/west/sessions.json",
            name="not used",
            agent_id="not used",
            bytes=1,
            lines=2,
            entries=3,
            sha256="s",
            inode="7:7",
            now_ms=NOW,
            note="n",
            content=None,
            head_byte=-9,
        ),
        {
            "import_file west/sessions.json": {
                "bytes": 1,
                "lines": 2,
                "entries": 3,
                "sha256": "s",
                "inode": "7:7",
                "imported_at_ms": NOW,
                "note": "n",
                "content": None,
                "head_byte": -9,
            }
        },
    ),
    Change(
        "import_file.save_index",
        "one that was begun",
        lambda w, tx: (
            set_columns(WEST, state="reading", content=None, bytes=0)(w, tx),
            run(
                "import_file.save_index",
                path="/imports/west/sessions.json",
                name="not used",
                agent_id="not used",
                bytes=w.row(WEST)["bytes"],
                lines=w.row(WEST)["lines"],
                entries=w.row(WEST)["entries"],
                sha256=w.row(WEST)["sha256"],
                inode=w.row(WEST)["inode"],
                now_ms=NOW,
                note=None,
                content=b"c",
                head_byte=None,
            )(w, tx),
        ),
        {WEST: {"imported_at_ms": NOW, "content": b"c"}},
    ),
    Change(
        "import_file.begin_index",
        "a new one",
        lambda w, tx: tx.one(
            "import_file.begin_index",
            path="/new",
            name="new",
            agent_id="a",
            inode="7:7",
            now_ms=NOW,
        ),
        {
            "+import_file new": {
                "path": "/new",
                "name": "new",
                "kind": "index",
                "agent_id": "a",
                "inode": "7:7",
                "imported_at_ms": NOW,
                "state": "reading",
            }
        },
    ),
    Change(
        "import_file.begin_index",
        "one of two again",
        lambda w, tx: tx.one(
            "import_file.begin_index",
            path="/imports/west/sessions.json",
            name="not used",
            agent_id="not used",
            inode="7:7",
            now_ms=NOW,
        ),
        {"import_file west/sessions.json": {"imported_at_ms": NOW, "state": "reading"}},
    ),
    Change(
        "import_file.end_index",
        "one of two that were begun again",
        lambda w, tx: (
            both_begun_again(w, tx),
            run("import_file.end_index", path="/imports/west/sessions.json")(w, tx),
        ),
        {"import_file main/sessions.json": {"state": "reading"}},
    ),
    Change(
        "import_file.end_index",
        "one in pieces",
        lambda w, tx: (
            set_columns(WEST, state="reading", content=None, head_byte=-RANGE)(w, tx),
            run("import_file.end_index", path="/imports/west/sessions.json")(w, tx),
        ),
        {WEST: {"content": None, "head_byte": -RANGE}},
    ),
    Change(
        "import_file.end_index",
        "no transcript",
        lambda w, tx: (
            set_columns(f"import_file {GROWING}", head_byte=1)(w, tx),
            run("import_file.end_index", path=f"/imports/{GROWING}")(w, tx),
        ),
        {f"import_file {GROWING}": {"head_byte": 1}},
    ),
    Change(
        "import_file.end_index",
        "not one whose first import has not come to its end",
        lambda w, tx: (
            set_columns(WEST, state="reading", content=None)(w, tx),
            run("import_file.end_index", path="/imports/west/sessions.json")(w, tx),
        ),
        {WEST: {"content": None, "state": "reading"}},
    ),
    dropping_a_piece("the first of one index that do not count", -3 * RANGE),
    dropping_a_piece("one behind those that count", -RANGE, -3 * RANGE),
    dropping_a_piece("none of those that count", None, -3 * RANGE, -RANGE),
    dropping_a_piece("of an index that is not in pieces any more", -3 * RANGE, head_byte=None),
]
GUARDS = [
    Guard(
        "import_file.mark_done",
        "import_file",
        lambda row: {"path": row["path"], "note": "n"},
        lambda row: row["state"] == "changed",
    )
]


def of_file(name: str, **more: Any) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"import_file_no": w.no(f"import_file {name}"), **more}


def span(w: World) -> dict[str, int]:
    low_no = w.no("session live") << 32
    return {"low_no": low_no | 4, "high_no": low_no | 15}


def forward(row: Any) -> dict[str, int]:
    return {"low_no": row.entry_no + 1}


def without_file(w: World) -> list[str]:
    imported = {row["session_no"] for _, row in w.rows("import_file")}
    rows = [row for _, row in w.rows("session") if row["session_no"] not in imported]
    return [
        row["session_id"]
        for row in rows
        if not row["session_id"].startswith(("deleted", "dropped"))
    ]


def offsets(w: World) -> list[int]:
    return sorted(row["byte_offset"] for label, row in w.rows("quarantine") if ODD in label)


def keys_of_work(w: World) -> list[str]:
    return sorted(row["session_key"] for _, row in w.rows("binding") if row["agent_id"] == "west")


PAGES = [
    Page(
        "import_file.files",
        {"after_no": 0, "session_no": None},
        lambda row: {"after_no": row.import_file_no},
        "name",
        [
            *("main/clean.jsonl", "main/odd.jsonl", "main/blank.jsonl", "west/clean.jsonl"),
            *("west/odd.jsonl", "west/growing.jsonl", "west/rest.jsonl.reset.1"),
            *("main/clean.jsonl.link", "west/clean.jsonl.link"),
        ],
    ),
    Page(
        "import_file.damaged_lines",
        {"folder": "/imports", "after_path": "/imports/"},
        lambda row: {"after_path": row.path},
        ("path", "lines"),
        [
            (f"/imports/{CLEAN}", 1),
            (f"/imports/{GROWING}", 2),
            ("/imports/west/odd.jsonl", 2),
        ],
        given=damaged_in_west,
    ),
    Page(
        "import_file.sessions_without_file",
        {"after_no": 0, "session_no": None},
        lambda row: {"after_no": row.session_no},
        "session_id",
        without_file,
    ),
    Page(
        "import_file.bindings_of_agent",
        {"agent_id": "west", "after_key": ""},
        lambda row: {"after_key": row.session_key},
        "session_key",
        keys_of_work,
    ),
    Page(
        "import_file.entry_sizes",
        span,
        forward,
        "entry_no",
        [f"live/{seq}" for seq in range(4, 16)],
    ),
    Page(
        "import_file.payloads",
        lambda w: span(w) | {"import_file_no": None},
        forward,
        "entry_no",
        [f"live/{seq}" for seq in range(4, 16)],
    ),
    Page(
        "import_file.shared_entries",
        lambda w: span(w) | {"branch_no": w.no("branch live/1")},
        forward,
        "entry_no",
        [f"live/{seq}" for seq in (*range(4, 14), 15)],
    ),
    Page(
        "import_file.kept",
        of_file(ODD, after_offset=-1),
        lambda row: {"after_offset": row.byte_offset},
        "byte_offset",
        offsets,
    ),
    Page(
        "import_file.index_pieces",
        lambda w: {
            "import_file_no": w.no("import_file west/sessions.json"),
            "after_offset": -2 * RANGE - 1,
            "end_offset": -RANGE,
        },
        lambda row: {"after_offset": row.byte_offset},
        ("byte_offset", "content"),
        [(at, f"west{at}".encode()) for at in PIECES[1:4]],
        given=in_pieces,
    ),
]


def known(name: str, **columns: Any) -> list[Read]:
    """Return reads of one receipt, among several paths and by its own."""
    row = {"import_file_no": name, **columns}
    return [
        Read(
            "import_file.known",
            name,
            {"paths": json.dumps([f"/imports/{name}", "/nowhere"])},
            [row],
        ),
        Read(
            "import_file.by_path",
            name,
            {"path": f"/imports/{name}"},
            [
                {
                    name: value
                    for name, value in row.items()
                    if not name.startswith("tail") and name != "ends_in_bytes"
                }
            ],
        ),
    ]


def tail(name: str, what: str = "tail", given: Given = nothing) -> Read:
    def rows(w: World) -> list[dict[str, Any]]:
        row = max(
            (row for label, row in w.rows("quarantine") if name in label),
            key=lambda row: row["byte_offset"],
        )
        return [{"tail_at": row["byte_offset"], "tail_reason": row["reason"]}]

    return Read(
        "import_file.known",
        f"{what} of {name}",
        {"paths": json.dumps([f"/imports/{name}"])},
        rows,
        given,
    )


def beside_a_tail(w: World, _tx: Recorder) -> None:
    """Give files pieces that are like the tail of a third one, but for one condition each."""
    row = max(
        (row for label, row in w.rows("quarantine") if ODD in label),
        key=lambda row: row["byte_offset"],
    )
    odd, other = w.no(f"import_file {ODD}"), w.no(f"import_file {CLEAN}")
    for file, line, after_seq, byte_offset, reason in (
        (odd, row["line"] - 1, row["after_seq"], 1, "a"),
        (odd, row["line"], -1, 2, "a"),
        (odd, row["line"], row["after_seq"], row["byte_offset"] + 1, "z"),
        (other, row["line"], row["after_seq"], 1, "a"),
    ):
        w.connection.execute(
            "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason,"
            " severity, content) VALUES (?, ?, ?, ?, ?, 'damaged', x'00')",
            (file, line, byte_offset, after_seq, reason),
        )
    w.connection.execute(
        "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity,"
        " content) VALUES (?, ?, 3, ?, 'a', 'early', x'00')",
        (odd, row["line"], row["after_seq"]),
    )


def an_early_line(w: World, _tx: Recorder) -> None:
    """Let an entry have the bytes of an early line, and another one bytes of its own."""
    for byte_offset, content, seq in ((9_001, b"", 1), (9_002, b"own", 3)):
        w.connection.execute(
            "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason,"
            " severity, content, entry_seq) VALUES (?, 9, ?, 4, 'r', 'early', ?, ?)",
            (w.no(f"import_file {ODD}"), byte_offset, content, seq),
        )


def bytes_behind_an_entry(w: World, _tx: Recorder) -> None:
    """Let the last line of a file be an entry whose bytes are kept."""
    w.connection.execute(
        "UPDATE quarantine SET reason = ? WHERE import_file_no = ? AND byte_offset = ?",
        (f"{BYTES_OF_ENTRY} (why)", w.no(f"import_file {ODD}"), offsets(w)[-1]),
    )


def without_entries(w: World, tx: Recorder) -> None:
    """Let a file have no entry so far, and its last line a piece before the first one."""
    tail = offsets(w)[-1]
    w.connection.execute(
        "UPDATE import_file SET session_no = NULL WHERE import_file_no = ?",
        (w.no(f"import_file {ODD}"),),
    )
    w.connection.execute("UPDATE quarantine SET after_seq = -1 WHERE byte_offset = ?", (tail,))


def forget_archives(w: World, tx: Recorder) -> None:
    """Give a session that was deleted without an archive a file of its own."""
    w.connection.execute(
        "UPDATE import_file SET session_no = ? WHERE name = 'west/rest.jsonl.reset.1'",
        (w.no("session deleted"),),
    )


READS = [
    *known(ODD, session_no="import-odd", lines=6, entries=2, quarantined=3, session_last_seq=3),
    *known(
        "west/clean.jsonl.link",
        session_no="import-work",
        entries=2,
        session_last_seq=2,
        state="done",
    ),
    *known("main/sessions.json", session_no=None, session_id=None, session_last_seq=0),
    tail(ODD),
    tail("west/odd.jsonl"),
    Read(
        "import_file.known",
        "no tail of an entry whose bytes are kept",
        {"paths": json.dumps([f"/imports/{name}" for name in (ODD, "west/odd.jsonl")])},
        [
            {"import_file_no": ODD, "tail_at": None, "ends_in_bytes": 1},
            {"import_file_no": "west/odd.jsonl", "tail_at": 425, "ends_in_bytes": 0},
        ],
        bytes_behind_an_entry,
    ),
    Read(
        "import_file.known",
        "a line before the last one has bytes of its own",
        {"paths": json.dumps([f"/imports/{ODD}"])},
        [{"import_file_no": ODD, "ends_in_bytes": 0}],
        lambda w, _: w.connection.execute(
            "UPDATE quarantine SET reason = ? WHERE byte_offset = ?",
            (f"{BYTES_OF_ENTRY} (why)", offsets(w)[0]),
        ),
    ),
    tail(ODD, "tail, and no other piece", beside_a_tail),
    tail(ODD, "tail before the first entry", without_entries),
    *(
        Read(
            f"import_file.{statement}",
            "the first name of a session, and of a file without one",
            params,
            lambda w, name=name, first=first: [
                {"import_file_no": name, "first_import_file_no": w.no(f"import_file {first}")}
            ],
        )
        for name, first in ((f"{CLEAN}.link", CLEAN), ("west/sessions.json", "west/sessions.json"))
        for statement, params in (
            ("known", {"paths": json.dumps([f"/imports/{name}"])}),
            ("by_path", {"path": f"/imports/{name}"}),
        )
    ),
    Read(
        "import_file.files",
        "the first name of a session, and of a file without one",
        lambda w: {"after_no": w.no(f"import_file {GROWING}") - 1, "limit": 4, "session_no": None},
        lambda w: [
            {
                "name": name,
                "session_id": session_id,
                "first_import_file_no": w.no(f"import_file {first}"),
            }
            for name, session_id, first in (
                (GROWING, None, GROWING),
                ("west/rest.jsonl.reset.1", "rest", "west/rest.jsonl.reset.1"),
                ("main/clean.jsonl.link", "import-clean", "main/clean.jsonl"),
                (f"{CLEAN}.link", "import-work", CLEAN),
            )
        ],
        set_columns(f"import_file {GROWING}", session_no=None),
    ),
    Read(
        "import_file.files",
        "of one that has an archive",
        lambda w: {"after_no": w.no(f"import_file {GROWING}"), "limit": 1, "session_no": None},
        [{"name": "west/rest.jsonl.reset.1", "session_id": "old"}],
        set_columns(REST, session_no="session old"),
    ),
    Read(
        "import_file.in_folder",
        "the other folder, and no file beside it",
        {"folder": "/imports/west"},
        [
            {"path": f"/imports/west/{name}"}
            for name in ("clean.jsonl", "clean.jsonl.link", "odd.jsonl", "rest.jsonl.reset.1")
        ],
        set_columns(f"import_file {GROWING}", path="/imports/west0"),
    ),
    Read(
        "import_file.foreign_parents",
        "from its first entry on",
        lambda w: {
            "low_no": w.no("entry twin-fork/1"),
            "high_no": w.no("entry twin-fork/1"),
            "session_no": w.no("session twin-fork"),
        },
        [{"parent_no": "twin/18"}],
    ),
    Read(
        "import_file.foreign_parents",
        "of a session that stands alone",
        lambda w: {
            "low_no": w.no("entry twin/1"),
            "high_no": w.no("entry twin/18"),
            "session_no": w.no("session twin"),
        },
        [],
    ),
    Read(
        "import_file.shared_entries",
        "the first of a branch, that has no parent",
        lambda w: {
            "low_no": w.no("entry twin/1"),
            "high_no": w.no("entry twin/2"),
            "branch_no": w.no("branch twin/1"),
            "limit": 9,
        },
        lambda w: [
            {"entry_no": "twin/1", "parent_id": None},
            {"entry_no": "twin/2", "parent_id": w.row("entry twin/1")["entry_id"]},
        ],
    ),
    Read(
        "import_file.known",
        "a file without a tail, beside one with a tail",
        {"paths": json.dumps(["/imports/main/blank.jsonl"])},
        [{"import_file_no": "main/blank.jsonl", "tail_at": None, "tail_reason": None}],
    ),
    Read(
        "import_file.known",
        "the first name of a session",
        {"paths": json.dumps(["/imports/west/clean.jsonl.link"])},
        lambda w: [{"first_import_file_no": w.no(f"import_file {CLEAN}")}],
    ),
    Read(
        "import_file.by_inode",
        "of two names, and of no index",
        {"inodes": json.dumps([f"1:{CLEAN}", "9:west", "8:8"])},
        [
            {"import_file_no": CLEAN, "path": f"/imports/{CLEAN}"},
            {"import_file_no": f"{CLEAN}.link", "path": f"/imports/{CLEAN}.link"},
        ],
    ),
    Read(
        "import_file.index_content",
        "one index of two",
        {"path": "/imports/west/sessions.json"},
        lambda w: [{"content": w.row("import_file west/sessions.json")["content"]}],
    ),
    Read(
        "import_file.index",
        "one of two in pieces, and it has others",
        {"path": "/imports/west/sessions.json"},
        lambda w: [
            {
                "import_file_no": "west/sessions.json",
                "sha256": w.row("import_file west/sessions.json")["sha256"],
                "state": "done",
                "note": None,
                "head_byte": -2 * RANGE,
                "has_leftovers": 1,
            }
        ],
        in_pieces,
    ),
    Read(
        "import_file.index",
        "whose pieces all count",
        {"path": "/imports/west/sessions.json"},
        [{"has_leftovers": 0}],
        only_that_count,
    ),
    Read(
        "import_file.index",
        "one that is not in pieces any more",
        {"path": "/imports/west/sessions.json"},
        [{"has_leftovers": 1}],
        lambda w, recorder: (
            only_that_count(w, recorder),
            set_columns("import_file west/sessions.json", head_byte=None)(w, recorder),
        ),
    ),
    Read(
        "import_file.index",
        "with bytes that are no piece of it",
        {"path": "/imports/west/sessions.json"},
        [{"has_leftovers": 0}],
        lambda w, _: w.connection.execute(
            "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason,"
            " severity, content) VALUES (?, 0, 5, -1, 'x', 'blank', x'')",
            (w.no(WEST),),
        ),
    ),
    Read(
        "import_file.indexes",
        "not one whose first import has not come to its end",
        {},
        [{"name": "main/sessions.json"}],
        set_columns(WEST, state="reading", content=None),
    ),
    Read("import_file.index", "no transcript", {"path": f"/imports/{CLEAN}"}, []),
    Read(
        "import_file.index_pieces",
        "those that count of one index",
        lambda w: {
            "import_file_no": w.no("import_file west/sessions.json"),
            "after_offset": -2 * RANGE - 1,
            "end_offset": -RANGE,
            "limit": 9,
        },
        [{"byte_offset": at, "content": f"west{at}".encode()} for at in PIECES[1:4]],
        in_pieces,
    ),
    Read(
        "import_file.count_pieces",
        "those that count of one index",
        lambda w: {
            "import_file_no": w.no("import_file west/sessions.json"),
            "first_offset": -2 * RANGE,
            "end_offset": -RANGE,
        },
        [{"pieces": 3}],
        in_pieces,
    ),
    Read(
        "import_file.of_name",
        "what begins alike in one folder, and no index",
        {
            "names": json.dumps(
                [
                    "/imports/west/clean.jsonl",
                    "/imports/west/rest.jsonl",
                    "/imports/west/sessions.json",
                ]
            )
        },
        [
            {"path": "/imports/west/clean.jsonl"},
            {"path": "/imports/west/clean.jsonl.link"},
            {"path": "/imports/west/rest.jsonl.reset.1"},
        ],
    ),
    Read("import_file.index_content", "no transcript", {"path": f"/imports/{CLEAN}"}, []),
    Read(
        "import_file.in_folder",
        "one folder of two",
        {"folder": "/imports/main"},
        [
            {"path": f"/imports/main/{name}", "session_id": session_id}
            for name, session_id in (
                ("blank.jsonl", "import-blank"),
                ("clean.jsonl", "import-clean"),
                ("clean.jsonl.link", "import-clean"),
                ("odd.jsonl", "import-odd"),
            )
        ],
    ),
    Read(
        "import_file.files",
        "of one session",
        lambda w: {"after_no": 0, "limit": 9, "session_no": w.no("session import-work")},
        [
            {"name": CLEAN, "session_id": "import-work"},
            {"name": f"{CLEAN}.link", "session_id": "import-work"},
        ],
    ),
    Read(
        "import_file.files",
        "of all, without one that was deleted",
        lambda w: {
            "after_no": w.no(f"import_file {GROWING}"),
            "limit": 1,
            "session_no": None,
        },
        [{"name": "main/clean.jsonl.link"}],
        forget_archives,
    ),
    Read(
        "import_file.files",
        "of one that was deleted",
        lambda w: {"after_no": 0, "limit": 9, "session_no": w.no("session deleted")},
        [{"name": "west/rest.jsonl.reset.1"}],
        forget_archives,
    ),
    Read(
        "import_file.indexes",
        "both",
        {},
        [
            {"name": "main/sessions.json", "agent_id": "main"},
            {"name": "west/sessions.json", "agent_id": "west"},
        ],
    ),
    *(
        Read(
            "import_file.sessions_without_file",
            name,
            lambda w, name=name: {"after_no": 0, "limit": 9, "session_no": w.no(f"session {name}")},
            [{"session_id": name, "forked_from_no": parent}] if parent != "imported" else [],
        )
        for name, parent in (
            ("twin-fork", "twin"),
            ("import-odd", "imported"),
            ("deleted", None),
        )
    ),
    Read("import_file.agents", "each once", {}, [{"agent_id": "main"}, {"agent_id": "west"}]),
    Read(
        "import_file.payloads",
        "both ends of a range",
        lambda w: {
            "low_no": w.no("entry twin/3"),
            "high_no": w.no("entry twin/4"),
            "import_file_no": w.no(f"import_file {ODD}"),
            "limit": 9,
        },
        lambda w: [
            {"entry_no": entry, "content": w.row(f"entry {entry}")["payload"].encode()}
            for entry in ("twin/3", "twin/4")
        ],
    ),
    Read(
        "import_file.payloads",
        "without an early line",
        lambda w: {
            "low_no": w.no("entry twin/3"),
            "high_no": w.no("entry twin/4"),
            "import_file_no": w.no(f"import_file {ODD}"),
            "limit": 9,
        },
        [{"entry_no": "twin/4"}],
        an_early_line,
    ),
    Read(
        "import_file.kept",
        "an early line with the bytes of its entry",
        lambda w: of_file(ODD, after_offset=9_000, limit=9)(w),
        lambda w: [
            {"byte_offset": 9_001, "content": w.row("entry import-odd/1")["payload"].encode()},
            {"byte_offset": 9_002, "content": b"own"},
        ],
        an_early_line,
    ),
    Read(
        "import_file.entry_sizes",
        "in bytes",
        lambda w: span(w) | {"limit": 1},
        lambda w: [{"bytes": len(w.row("entry live/4")["payload"].encode())}],
    ),
    Read(
        "import_file.kept",
        "behind an offset",
        lambda w: of_file(ODD, after_offset=offsets(w)[0], limit=9)(w),
        lambda w: [
            {name: row[name] for name in ("byte_offset", "after_seq", "content", "reason")}
            for label, row in sorted(w.rows("quarantine"))
            if ODD in label and row["byte_offset"] > offsets(w)[0]
        ],
    ),
    Read(
        "import_file.foreign_parents",
        "of a fork",
        lambda w: {
            "low_no": w.no("entry twin-fork/0"),
            "high_no": w.no("entry twin-fork/1"),
            "session_no": w.no("session twin-fork"),
        },
        [{"parent_no": "twin/18"}],
    ),
    Read(
        "import_file.shared_entries",
        "of one branch, with their parents",
        lambda w: {
            "low_no": w.no("entry twin/10"),
            "high_no": w.no("entry twin/15"),
            "branch_no": w.no("branch twin/1"),
            "limit": 9,
        },
        lambda w: [
            {
                "entry_no": f"twin/{seq}",
                "parent_id": w.row(f"entry twin/{parent}")["entry_id"],
                "first_kept_id": w.row("entry twin/9")["entry_id"] if seq == 10 else None,
            }
            for seq, parent in ((10, 9), (11, 10), (12, 11), (13, 12), (15, 13))
        ],
    ),
    Read(
        "import_file.details",
        "of one key",
        {"session_key": "agent:main:imported:import-odd"},
        [{"details": '{"sessionId": "x"}'}],
    ),
    Read(
        "import_file.undone",
        "of its session",
        lambda w: {"session_no": w.no("session twin-undone")},
        [{"epoch": 2}],
    ),
    Read("import_file.undone", "of no other", lambda w: {"session_no": w.no("session twin")}, []),
]

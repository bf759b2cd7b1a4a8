"""Cases of queries/redact.sql."""

from __future__ import annotations

from unittest.mock import ANY

from sessiondb.transcript import redact
from tests.support.statement_cases import Change, Guard, Page, Read, set_columns
from tests.support.world import Recorder, World


def redacted(w: World, tx: Recorder) -> None:
    """Redact the first message of a session of two that are alike."""
    session_no = w.no("session twin")
    redact.apply(tx, redact.plan(tx, session_no, w.row("entry twin/3")["entry_id"]))


def receipts(w: World) -> list[tuple[str, int]]:
    """Return the receipts of one session's file, each with its entries."""
    owner = next(row["session_no"] for _, row in w.rows("import_file") if row["entries"] > 1)
    return [
        (label, row["entries"])
        for label, row in w.rows("import_file")
        if row["session_no"] == owner
    ]


def mark(w: World, tx: Recorder) -> None:
    label, entries = receipts(w)[0]
    session_no = w.row(label)["session_no"]
    for seq in (entries + 1, entries, entries):
        tx.run("redact.mark_receipts", session_no=session_no, seq=seq, mark="redacted at import")


def put_bytes(w: World, tx: Recorder) -> None:
    """Ask for a damaged line and a torn one, and for none: another reason, place, session."""
    session_no = w.row("import_file main/odd.jsonl")["session_no"]
    for session, seq, reason in (
        (session_no, 1, "not JSON*"),
        (session_no, 1, "not UTF-8*"),
        (session_no, 2, "not JSON*"),
        (session_no, 2, "torn*"),
        (w.row("import_file main/blank.jsonl")["session_no"], 1, "not JSON*"),
    ):
        tx.run(
            "redact.put_bytes",
            session_no=session,
            seq=seq,
            reason=reason,
            content=b"gone",
            line=b"gone\n",
        )


def early_line_of_entry(w: World, tx: Recorder) -> None:
    file = w.row("import_file main/odd.jsonl")
    w.connection.execute(
        "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity,"
        " content, entry_seq) VALUES (?, 9, 9001, 4, 'early', 'early', x'00', 1)",
        (file["import_file_no"],),
    )
    values = {"session_no": file["session_no"], "seq": 1, "reason": "none", "line": b"l"}
    assert tx.run("redact.put_bytes", content=b"c", **values) == 1


def forget_order(w: World, tx: Recorder) -> None:
    tx.run("redact.forget_order", session_no=w.no("session twin"))


def name_that_came_again(w: World, tx: Recorder) -> None:
    row = w.row("entry twin/12")
    columns = {name: row[name] for name in ("type", "role", "entry_id", "payload")}
    set_columns("entry twin/15", **columns)(w, tx)


CHANGES = [
    Change(
        "redact.put_entry",
        "one entry of two sessions that are alike",
        redacted,
        {"entry twin/3": {"payload": ANY, "body_at": ANY, "body_bytes": ANY}},
    ),
    Change(
        "redact.put_bytes",
        "pieces of one session's file, with the line ends that they had",
        put_bytes,
        {
            "quarantine main/odd.jsonl@261": {"content": b"gone\n"},
            "quarantine main/odd.jsonl@424": {"content": b"gone"},
        },
    ),
    Change(
        "redact.put_bytes",
        "of an early line those of its entry count",
        early_line_of_entry,
        {
            "+quarantine main/odd.jsonl@9001": {
                "line": 9,
                "after_seq": 4,
                "reason": "early",
                "severity": "early",
                "content": b"",
                "entry_seq": 1,
            }
        },
    ),
    Change(
        "redact.name_session",
        "one session",
        lambda w, tx: tx.run(
            "redact.name_session", session_no=w.no("session twin"), name="[redacted]"
        ),
        {"session twin": {"name": "[redacted]"}},
    ),
    Change(
        "redact.mark_receipts",
        "those that an entry came from, once",
        mark,
        lambda w: {
            label: {"note": ANY}
            for label, entries in receipts(w)
            if entries >= receipts(w)[0][1]
            and not (w.row(label)["note"] or "").startswith("redacted at import")
        },
    ),
    Change(
        "redact.mark_receipts",
        "one that is marked stays",
        lambda w, tx: [
            set_columns(receipts(w)[0][0], note="redacted at import (why)")(w, tx),
            mark(w, tx),
        ],
        lambda w: {
            receipts(w)[0][0]: {"note": "redacted at import (why)"},
            **{label: {"note": ANY} for label, _ in receipts(w)[1:]},
        },
    ),
    Change(
        "redact.forget_order",
        "a session and its forks",
        forget_order,
        lambda w: {
            label: {"ordered_from_no": None}
            for label, row in w.rows("session")
            if row["ordered_from_no"] is not None and label in family(w)
        },
    ),
]


def family(w: World) -> set[str]:
    """Return the labels of a session and of all that were forked from it."""
    found = {w.no("session twin")}
    for _, row in sorted(w.rows("session"), key=lambda one: int(one[1]["session_no"])):
        if row["forked_from_no"] in found:
            found.add(row["session_no"])
    return {label for label, row in w.rows("session") if row["session_no"] in found}


GUARDS: list[Guard] = []
PAGES: list[Page] = []


def line_that_came_again(w: World, _: Recorder) -> None:
    """Give two entries the id and the text of a third, one the id only, and one the text only.

    And one of another session both.
    """
    text, entry_id = (w.row("entry twin/3")[column] for column in ("payload", "entry_id"))
    for label, columns in {
        "twin/1": {"entry_id": entry_id, "payload": text},
        "twin/5": {"entry_id": entry_id, "payload": text},
        "twin/6": {"entry_id": entry_id},
        "twin/7": {"payload": text},
        "live/3": {"entry_id": entry_id, "payload": text},
    }.items():
        set_columns(f"entry {label}", **columns)(w, _)


READS = [
    Read(
        "redact.copies",
        "of one line in its session, each with whether the session is named later",
        lambda w: {"entry_no": w.no("entry twin/3")},
        [{"entry_no": "twin/1", "named_later": 1}, {"entry_no": "twin/5", "named_later": 1}],
        line_that_came_again,
    ),
    Read(
        "redact.copies",
        "of the name that the session has last",
        lambda w: {"entry_no": w.no("entry twin/12")},
        [{"entry_no": "twin/15", "named_later": 0}],
        name_that_came_again,
    ),
    Read(
        "redact.copies",
        "of one line, where the last entry of all is the name",
        lambda w: {"entry_no": w.no("entry twin/3")},
        [{"entry_no": "twin/1", "named_later": 1}, {"entry_no": "twin/5", "named_later": 1}],
        lambda w, tx: [
            line_that_came_again(w, tx),
            set_columns("entry twin/12", entry_no=w.no("session twin") << 32 | 0xFFFFFFFF)(w, tx),
        ],
    ),
    *(
        Read(
            "redact.entry",
            f"of a session that is named {'later' if later else 'no more'}",
            lambda w, seq=seq: {"entry_no": w.row(f"entry twin/{seq}")["entry_no"]},  # type: ignore[misc]
            [{"named_later": later}],
        )
        for seq, later in ((1, 1), (17, 0))
    ),
]

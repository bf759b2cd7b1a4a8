"""Cases of queries/salvage.sql.

A salvage runs in a database of its own, whose foreign keys are off until its end. So the
statements run by themselves here, and foreign keys wait for an end that never comes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

from sessiondb.backend import AnyStatement
from tests.support import statement_cases
from tests.support.statement_cases import (
    Change,
    Given,
    Guard,
    Page,
    Read,
    lost,
    nothing,
    set_columns,
    without,
)
from tests.support.world import FRESH, Changes, Recorder, World
from tests.support.world_build import NOW


def run(statement: str, **params: Any) -> Callable[[World, Recorder], object]:
    rule = statement_cases.run(f"salvage.{statement}", **params)

    def alone(w: World, tx: Recorder) -> None:
        w.connection.execute("PRAGMA defer_foreign_keys = on")
        rule(w, tx)

    return alone


def change(statement: str, what: str, rows: Any, **params: Any) -> Change:
    return Change(f"salvage.{statement}", what, run(statement, **params), rows)


# -- whole rows ----------------------------------------------------------------------------


def first_row(w: World, table: str) -> tuple[str, dict[str, Any]]:
    label, row = next(iter(w.rows(table)))
    return label, dict(row)


def copy_of(w: World, table: str) -> dict[str, Any]:
    """Return a row like the first one, under a key of its own."""
    row = first_row(w, table)[1] | FRESH[table]
    if table == "archive":
        row["state"] = "restored"
    return row


def put(w: World, tx: Recorder, table: str, row: dict[str, Any]) -> None:
    w.connection.execute("PRAGMA defer_foreign_keys = on")
    tx.run(AnyStatement(f"salvage.put_{table}"), **row)


def put_new(table: str) -> Change:
    """Return the case that every column of a row is stored."""

    def stored(w: World, tx: Recorder) -> None:
        row = copy_of(w, table)
        put(w, tx, table, row)
        key = {name: row[name] for name in FRESH[table]}
        where = " AND ".join(f"{name} IS :{name}" for name in key)
        # Its values are compared here, because labels of two like rows are alike.
        cursor = w.connection.execute(f"SELECT * FROM {table} WHERE {where}", key)
        names = [column[0] for column in cursor.get_description()]
        [values] = cursor.fetchall()
        assert dict(zip(names, values, strict=True)) == row
        w.connection.execute(f"DELETE FROM {table} WHERE {where}", key)

    return Change(f"salvage.put_{table}", "every column of a new row", stored, {})


def put_again(table: str) -> Change:
    """Return the case that the first row of a key stays."""

    def again(w: World, tx: Recorder) -> None:
        put(w, tx, table, first_row(w, table)[1])

    return Change(f"salvage.put_{table}", "a row that exists stays", again, {})


EVENT = "compaction_started/operator/1"
# Of an index for a search nothing is put: it is built anew.
NOT_PUT = ("lane", "wal_link", "search_state", "search_session")
PUT = [table for table in FRESH if table not in NOT_PUT]


def gone(*labels: str) -> Changes:
    return {f"-{label}": {} for label in labels}


def rows_of(table: str, name: str) -> Callable[[World], list[str]]:
    return lambda w: [label for label, _ in w.rows(table) if label.startswith(f"{table} {name}/")]


def back(w: World, tx: Recorder) -> None:
    """Set a session's jobs aside, and put one of them back."""
    run("set_aside_compactions", session_no="session job-tired")(w, tx)
    run(
        "put_job_back",
        compaction_no="compaction tired-failed",
        epoch=0,
        cut_no="entry job-tired/1",
    )(w, tx)


def forget_aside(w: World, tx: Recorder) -> None:
    bounds = {"low_no": "entry deleting/3", "high_no": "entry deleting/5"}
    run("set_aside_entries", **bounds)(w, tx)
    low, high = -w.no(bounds["high_no"]), -w.no(bounds["low_no"])
    tx.run("salvage.forget_aside", low_no=low, high_no=high)


def cap(w: World, tx: Recorder) -> None:
    """Put one cursor ahead of every event. Another is behind the last, and stays."""
    last_no = max(row["event_no"] for _, row in w.rows("event"))
    w.connection.execute("UPDATE event_cursor SET event_no = 100000 WHERE consumer = 'web'")
    w.connection.execute("INSERT INTO event_cursor VALUES ('slow', ?)", (last_no - 1,))
    tx.run("salvage.cap_cursors")


def cap_without_events(w: World, tx: Recorder) -> None:
    w.connection.execute("DELETE FROM sqlite_sequence WHERE name = 'event'")
    tx.run("salvage.cap_cursors")


def put_old(table: str, given: dict[str, Any], column: str, stored: Any) -> Change:
    """Return the case of a column that older files do not have: another one tells it."""

    def rule(w: World, tx: Recorder) -> None:
        row = copy_of(w, table) | given
        put(w, tx, table, row)
        key = {f"{table}_no": row[f"{table}_no"]}
        where = f"WHERE {table}_no = :{table}_no"
        assert w.connection.execute(f"SELECT {column} FROM {table} {where}", key).fetchall() == [
            (stored,)
        ]
        w.connection.execute(f"DELETE FROM {table} {where}", key)

    return Change(f"salvage.put_{table}", f"with {column} {given[column]}", rule, {})


JOB = {
    "compaction_id": "new",
    "trigger": "t",
    "begun_at_ms": 2,
    "deadline_ms": 3,
    "deadline_max_ms": 4,
    "finished_at_ms": 5,
    "reason": "r",
}


def name_second_job(w: World, tx: Recorder) -> None:
    """Give the job behind an entry its name, where a job before it is of the same session."""
    set_columns("compaction live-first", session_no="session twin")(w, tx)
    of = {"session_no": "session twin", "entry_no": "entry twin/10"}
    run("name_job", **of, **JOB, instance_no="instance other")(w, tx)


HELD = '{"role":"user","content":"held"}'

CHANGES = [
    *(put_new(table) for table in (*PUT, "lane")),
    *(put_again(table) for table in PUT),
    change(
        "put_lane",
        "the last row of a key wins",
        {
            "lane main": {
                "concurrency": 7,
                "priority": 8,
                "people": 0,
                "paused_at_ms": 5,
                "settings": "{}",
                "dropped_at_ms": 6,
            }
        },
        lane="main",
        concurrency=7,
        priority=8,
        people=0,
        paused_at_ms=5,
        settings="{}",
        dropped_at_ms=6,
    ),
    Change(
        "salvage.cap_cursors",
        "one of two",
        cap,
        lambda w: {
            "event_cursor web": {"event_no": max(row["event_no"] for _, row in w.rows("event"))},
            "+event_cursor slow": {
                "event_no": max(row["event_no"] for _, row in w.rows("event")) - 1
            },
        },
    ),
    Change(
        "salvage.cap_cursors",
        "of a file that had no event",
        cap_without_events,
        lambda w: {label: {"event_no": 0} for label, _ in w.rows("event_cursor")},
    ),
    put_old("outbox", {"target": "telegram:1", "channel": None}, "channel", "telegram"),
    put_old("outbox", {"target": "telegram:1", "channel": "another"}, "channel", "another"),
    put_old("inbox", {"available_at_ms": 7, "queued_at_ms": None}, "queued_at_ms", 7),
    put_old("inbox", {"available_at_ms": 7, "queued_at_ms": 5}, "queued_at_ms", 5),
    *(put_old("inbox", {"restored": given}, "restored", given or 0) for given in (None, 1)),
    put_old("inbox", {"heard": None}, "heard", 0),
    *(
        put_old("inbox", {"entry_no": None, "payload": given}, "payload", given or "")
        for given in (None, '"own"')
    ),
    *(
        put_old("session", {"last_seq": 0, "search_behind": given}, "search_behind", stored)
        for given, stored in ((None, 1), (0, 0), (1, 1))
    ),
    put_old("session", {"search_behind": 0}, "search_behind", 1),
    *(put_old("session", {"formats": given}, "formats", given or 15) for given in (None, 2)),
    *(
        put_old(table, {"waits": waits}, "waits", waits or 0)
        for table in ("inbox", "outbox")
        for waits in (None, 1)
    ),
    change(
        "lose_parent",
        "one fork of two",
        {
            "session twin-fork": {
                "forked_from_no": None,
                "forked_at_no": None,
                "forked_epoch": None,
            }
        },
        session_no="session twin-fork",
    ),
    change(
        "set_origin",
        "one session",
        {"session twin": {"forked_from_no": "live", "origin": "fork"}},
        session_no="session twin",
        forked_from_no="session live",
    ),
    change(
        "set_aside_entries",
        "both ends of a range",
        {
            **gone(*(f"entry deleting/{seq}" for seq in (3, 4, 5))),
            **{f"+entry -deleting/{seq}": ANY for seq in (3, 4, 5)},
        },
        low_no="entry deleting/3",
        high_no="entry deleting/5",
    ),
    Change(
        "salvage.forget_aside",
        "a range",
        forget_aside,
        gone(*(f"entry deleting/{seq}" for seq in (3, 4, 5))),
    ),
    change(
        "set_aside_compactions",
        "of one session",
        {
            f"compaction {name}": {"session_no": "-job-tired"}
            for name in ("tired-failed", *(f"tired-rejected-{count}" for count in range(3)))
        },
        session_no="session job-tired",
    ),
    Change(
        "salvage.put_job_back",
        "one job",
        back,
        {
            "compaction tired-failed": {"cut_no": "job-tired/1"},
            **{
                f"compaction tired-rejected-{count}": {"session_no": "-job-tired"}
                for count in range(3)
            },
        },
    ),
    change(
        "put_job_back",
        "at most in the session's epoch",
        {"compaction twin-recorded": {"session_no": "-twin-reset", "base_epoch": 0}},
        compaction_no="compaction twin-recorded",
        epoch=0,
        cut_no=None,
    ),
    change(
        "name_job",
        "the job behind an entry",
        {"compaction twin-first": {**JOB, "instance_no": "other"}},
        session_no="session twin",
        entry_no="entry twin/10",
        instance_no="instance other",
        **JOB,
    ),
    Change(
        "salvage.name_job",
        "the job behind an entry, and no job before it",
        name_second_job,
        {
            "compaction live-first": {"session_no": "twin"},
            "compaction twin-first": {**JOB, "instance_no": "other"},
        },
    ),
    change(
        "forget_job",
        "one job of a session",
        gone("compaction tired-failed"),
        compaction_no="compaction tired-failed",
    ),
    change(
        "drop_compactions",
        "of one session",
        gone(
            "compaction tired-failed",
            *(f"compaction tired-rejected-{count}" for count in range(3)),
        ),
        session_no="session job-tired",
    ),
    change(
        "drop_branches",
        "of one session",
        lambda w: gone(*rows_of("branch", "deleting")(w)),
        session_no="session deleting",
    ),
    change(
        "drop_epochs",
        "of one session",
        lambda w: gone(*rows_of("epoch", "deleting")(w)),
        session_no="session deleting",
    ),
    change(
        "drop_entries",
        "both ends of a range",
        gone(*(f"entry deleting/{seq}" for seq in (3, 4, 5))),
        low_no="entry deleting/3",
        high_no="entry deleting/5",
    ),
    change(
        "restart",
        "of a fork that stays one",
        {
            "session twin-fork": {
                "last_seq": 0,
                "head_no": "twin/3",
                "branch_no": None,
                "boundary_no": "twin/1",
                "first_kept_no": "twin/2",
                "context_tokens": 0,
                "tokens_fresh": 0,
                "forked_at_no": "twin/3",
                "heard_at_ms": None,
                "ordered_from_no": None,
                "open_marks": None,
                "asked_no": None,
            }
        },
        session_no="session twin-fork",
        head_no="entry twin/3",
        boundary_no="entry twin/1",
        first_kept_no="entry twin/2",
    ),
    change(
        "restart",
        "of a session that stands alone",
        {
            "session child": {
                "last_seq": 0,
                "head_no": None,
                "branch_no": None,
                "context_tokens": 0,
                "name": None,
                "archived_at_ms": None,
                "forked_from_no": None,
                "forked_at_no": None,
                "heard_at_ms": None,
                "asked_no": 0,
            }
        },
        session_no="session child",
        head_no=None,
        boundary_no=None,
        first_kept_no=None,
    ),
    change(
        "restart",
        "of a session with everything",
        {
            "session twin": {
                "last_seq": 0,
                "epoch": 0,
                "head_no": None,
                "branch_no": None,
                "boundary_no": None,
                "first_kept_no": None,
                "context_tokens": 0,
                "tokens_fresh": 0,
                "name": None,
                "heard_at_ms": None,
            }
        },
        session_no="session twin",
        head_no=None,
        boundary_no=None,
        first_kept_no=None,
    ),
    change(
        "set_tokens",
        "one session",
        {"session twin": {"context_tokens": 7}},
        session_no="session twin",
        context_tokens=7,
    ),
    change(
        "set_updated",
        "one session",
        {"session twin": {"updated_at_ms": 7}},
        session_no="session twin",
        updated_at_ms=7,
    ),
    change(
        "drop_binding",
        "one key of several",
        gone("binding agent:west:web:twin"),
        session_key="agent:west:web:twin",
    ),
    change(
        "drop_details",
        "those of one session",
        gone("session_details twin"),
        session_no="session twin",
    ),
    change(
        "drop_foreign_id",
        "that of one session",
        gone("foreign_id app/Thread 1"),
        session_no="session twin",
    ),
    change(
        "set_compaction",
        "one job of a process",
        {"compaction twin-first": {"instance_no": None}},
        compaction_no="compaction twin-first",
    ),
    change(
        "interrupt_turn",
        "one turn",
        lambda w: {
            "turn held#1": {
                "state": "interrupted",
                "finished_at_ms": w.row("turn held#1")["started_at_ms"],
                "reason": "r",
            }
        },
        turn_no="turn held#1",
        reason="r",
    ),
    Change(
        "salvage.set_turn_lease",
        "one lease, at most to its deadline",
        lambda w, tx: [
            w.connection.execute("UPDATE turn SET expires_at_ms = deadline_ms + 1"),
            run("set_turn_lease", turn_no="turn held#1")(w, tx),
            w.connection.execute(
                "UPDATE turn SET expires_at_ms = 9 WHERE expires_at_ms > deadline_ms"
            ),
        ],
        lambda w: {
            label: {
                "expires_at_ms": row["deadline_ms"] if label == "turn held#1" else 9,
            }
            for label, row in w.rows("turn")
        },
    ),
    change(
        "forget_message",
        "one turn",
        {"turn done#1": {"inbox_no": "no 0"}},
        turn_no="turn done#1",
    ),
    change("drop_turn", "one turn", gone("turn done#1"), turn_no="turn done#1"),
    change(
        "move_inbox",
        "one message",
        {"inbox held": {"session_no": "live", "entry_no": None, "payload": HELD}},
        number="inbox held",
        session_no="session live",
    ),
    Change(
        "salvage.move_inbox",
        "one whose entry is lost, and one with a text of its own",
        lambda w, tx: [
            set_columns("inbox held", entry_no=5)(w, tx),
            set_columns("inbox held-too", payload='"own"')(w, tx),
            *(
                tx.run(
                    "salvage.move_inbox",
                    number=w.no(f"inbox {name}"),
                    session_no=w.no("session live"),
                )
                for name in ("held", "held-too")
            ),
        ],
        {
            "inbox held": {"session_no": "live", "entry_no": None, "payload": ""},
            "inbox held-too": {"session_no": "live", "entry_no": None, "payload": '"own"'},
        },
    ),
    Change(
        "salvage.move_inbox",
        "one whose entry is no message",
        lambda w, tx: [
            w.connection.execute("UPDATE entry SET type = 'custom' WHERE role = 'user'"),
            tx.run(
                "salvage.move_inbox", number=w.no("inbox held"), session_no=w.no("session live")
            ),
            w.connection.execute("UPDATE entry SET type = 'message' WHERE role = 'user'"),
        ],
        {"inbox held": {"session_no": "live", "entry_no": None, "payload": ""}},
    ),
    change(
        "return_inbox",
        "one message",
        {"inbox held": {"session_no": "live"}},
        inbox_no="inbox held",
        session_no="session live",
    ),
    change(
        "move_outbox",
        "one reply",
        {"outbox web:sent": {"session_no": "live", "turn_no": None}},
        number="outbox web:sent",
        session_no="session live",
    ),
    change(
        "set_inbox",
        "one message",
        {"inbox held": {"state": "queued", "turn_no": None, "entry_no": "live/3", "reason": "r"}},
        inbox_no="inbox held",
        state="queued",
        turn_no=None,
        entry_no="entry live/3",
        reason="r",
    ),
    change(
        "set_inbox",
        "without its entry, it has what that says",
        {"inbox held": {"state": "queued", "turn_no": None, "entry_no": None, "payload": HELD}},
        inbox_no="inbox held",
        state="queued",
        turn_no=None,
        entry_no=None,
        reason=None,
    ),
    *(
        Change(
            "salvage.set_inbox",
            what,
            lambda w, tx, given=given, seq=seq: [
                set_columns("inbox held", **given)(w, tx),
                tx.run(
                    "salvage.set_inbox",
                    inbox_no=w.no("inbox held"),
                    state="interrupted",
                    turn_no=w.no("turn held#1"),
                    entry_no=seq and w.no("session held") << 32 | seq,
                    reason=None,
                ),
            ],
            {"inbox held": {"state": "interrupted", **after}},
        )
        for what, given, seq, after in (
            ("an entry that is there has the text", {"payload": '"own"'}, 1, {}),
            (
                "beside one in an archive it stays",
                {"payload": '"own"'},
                2,
                {"payload": '"own"', "entry_no": ANY},
            ),
            (
                "a text of its own stays without an entry",
                {"payload": '"own"'},
                None,
                {"payload": '"own"', "entry_no": None},
            ),
            ("nothing is left of it", {"entry_no": 5}, None, {"payload": "", "entry_no": None}),
        )
    ),
    Change(
        "salvage.set_inbox",
        "an entry that is no message says nothing",
        lambda w, tx: [
            w.connection.execute("UPDATE entry SET type = 'custom' WHERE role = 'user'"),
            tx.run(
                "salvage.set_inbox",
                inbox_no=w.no("inbox held"),
                state="queued",
                turn_no=None,
                entry_no=None,
                reason=None,
            ),
            w.connection.execute("UPDATE entry SET type = 'message' WHERE role = 'user'"),
        ],
        {"inbox held": {"state": "queued", "turn_no": None, "entry_no": None, "payload": ""}},
    ),
    change(
        "set_inbox",
        "without a reason, the one that it has stays",
        {"inbox dead": {"state": "done"}},
        inbox_no="inbox dead",
        state="done",
        turn_no="turn dead#1",
        entry_no="entry dead/1",
        reason=None,
    ),
    change(
        "set_end",
        "one message",
        {"inbox dead": {"told_no": EVENT, "superseded_by": "told"}},
        inbox_no="inbox dead",
        told_no=f"event {EVENT}",
        superseded_by="inbox told",
    ),
    change(
        "set_outbox",
        "without a reason, the one that it has stays",
        {"outbox web:failed": {"state": "sent", "finished_at_ms": 7}},
        outbox_no="outbox web:failed",
        state="sent",
        turn_no="turn m-failed#1",
        instance_no="instance gateway",
        finished_at_ms=7,
        reason=None,
    ),
    change(
        "set_outbox",
        "one reply",
        {
            "outbox web:sending": {
                "state": "unknown",
                "turn_no": None,
                "instance_no": None,
                "finished_at_ms": 7,
                "reason": "r",
            }
        },
        outbox_no="outbox web:sending",
        state="unknown",
        turn_no=None,
        instance_no=None,
        finished_at_ms=7,
        reason="r",
    ),
    Change(
        "salvage.set_event",
        "one event",
        lambda w, tx: tx.run("salvage.set_event", event_no=1),
        {f"event {EVENT}": {"session_no": None}},
    ),
    change(
        "set_import_file",
        "one receipt",
        {
            "import_file main/odd.jsonl": {
                "session_no": None,
                "lines": 1,
                "entries": 5,
                "quarantined": 4,
                "note": "n",
            }
        },
        import_file_no="import_file main/odd.jsonl",
        session_no=None,
        lines=1,
        entries=5,
        quarantined=4,
        note="n",
    ),
    change(
        "forget_hash",
        "a receipt, and that of another session",
        {
            name: {"sha256": None, "note": "n"}
            for name in (
                "import_file main/odd.jsonl",
                "import_file west/clean.jsonl",
                "import_file west/clean.jsonl.link",
            )
        },
        import_file_no="import_file main/odd.jsonl",
        session_no="session import-work",
        note="n",
    ),
    change(
        "drop_quarantine",
        "of one file",
        lambda w: gone(*(label for label, _ in w.rows("quarantine") if "main/odd.jsonl" in label)),
        import_file_no="import_file main/odd.jsonl",
    ),
    change(
        "drop_chunks",
        "of one archive",
        gone(*(f"archive_chunk old/3/{chunk}" for chunk in range(5))),
        archive_no="archive old/3",
    ),
    change("drop_archive", "one of a session", gone("archive old/1"), archive_no="archive old/1"),
    change(
        "unarchive",
        "one session",
        {"session old": {"archived_at_ms": None}},
        session_no="session old",
    ),
    change(
        "make_instance",
        "one stand-in",
        {
            "+instance lost": {
                "host": "h",
                "boot_id": "",
                "pid": 0,
                "pid_started": 0,
                "program": "lost",
                "opened_at_ms": NOW,
                "database_file": "lost",
            }
        },
        instance_no=77,
        host="h",
        now_ms=NOW,
    ),
    change("make_instance", "no second", {}, instance_no="instance other", host="h", now_ms=NOW),
    change(
        "make_session",
        "one stand-in",
        {
            "+session new": {
                "session_id": "new",
                "origin": "native",
                "version": 3,
                "created_at_ms": NOW,
                "updated_at_ms": NOW,
                "formats": 2,
            }
        },
        session_no=9_000,
        session_id="new",
        version=3,
        at_ms=NOW,
        formats=2,
    ),
    change(
        "make_lane",
        "one stand-in",
        {"+lane new": {"concurrency": 1, "priority": 10}},
        lane="new",
    ),
    change("make_lane", "no second", {}, lane="main"),
]
GUARDS = [
    Guard(
        "salvage.interrupt_turn",
        "turn",
        lambda row: {"turn_no": row["turn_no"], "reason": "r"},
        lambda row: row["state"] == "running",
    )
]


# -- walks of whole tables -----------------------------------------------------------------


def walk(statement: str, table: str, joins: dict[str, str], cursor: str = "after") -> Page:
    """Return a walk of a table by its key, with columns that stand for rows of other tables.

    `joins` gives the column that points there for each column that is found there.
    """
    key = f"{table}_no" if table != "binding" else "session_key"

    def rows(w: World) -> list[Any]:
        found = []
        for _, row in w.rows(table):
            values = [w.before.shown(key, row[key])]
            values += [w.before.shown(column, row[column]) for column in joins.values()]
            found.append(tuple(values))
        return found

    return Page(
        f"salvage.{statement}",
        {cursor: "" if table == "binding" else 0},
        lambda row: {cursor: getattr(row, key)},
        (key, *joins),
        rows,
    )


def numbers(w: World) -> dict[str, int]:
    low_no = w.no("session live") << 32
    return {"low_no": low_no | 3, "high_no": low_no | 9}


def aside(w: World, tx: Recorder) -> None:
    """Set the entries of two like sessions aside. The sessions have one entry id in common."""
    w.connection.execute(
        "UPDATE entry SET entry_id = 'common' WHERE entry_no IN (?, ?)",
        (w.no("entry live/13"), w.no("entry twin/13")),
    )
    for name in ("live", "twin"):
        low_no = w.no(f"session {name}") << 32
        tx.run("salvage.set_aside_entries", low_no=low_no, high_no=low_no | 0xFFFFFFFF)


WALKS = [
    walk("bindings", "binding", {"session_no": "session_no"}),
    Page(
        "salvage.details",
        {"after": 0},
        lambda row: {"after": row.session_no},
        "session_no",
        ["live", "live-fork", "live-ended", "twin"],
    ),
    Page(
        "salvage.foreign_ids",
        {"after": 0},
        lambda row: {"after": row.session_no},
        ("session_no", "external_id"),
        [
            ("live", "thread 1"),
            ("live-fork", "thread 1"),
            ("live-ended", "thread 1 "),
            ("twin", "Thread 1"),
        ],
    ),
    walk("branches", "branch", {"session_no": "session_no"}),
    walk("compactions", "compaction", {"instance_no": "instance_no"}),
    walk("turns", "turn", {"lane": "lane", "instance_no": "instance_no"}),
    walk("inbox", "inbox", {"turn_no": "turn_no", "entry_no": "entry_no"}),
    walk("outbox", "outbox", {"turn_no": "turn_no", "instance_no": "instance_no"}),
    walk("events", "event", {"session_no": "session_no"}),
    walk("import_files", "import_file", {"session_no": "session_no"}),
    walk("archives", "archive", {"session_no": "session_no"}),
]
WALK = {page.statement.partition(".")[2]: page for page in WALKS}
PAGES = [
    walk("sessions", "session", {"session_id": "session_id"}, cursor="after_no"),
    *WALKS,
    # What a row points at is lost. The row is found all the same: salvage puts it right.
    *(lost(page, "session", "found_session_no") for page in WALKS),
    lost(WALK["compactions"], "instance", "found_instance_no"),
    lost(WALK["turns"], "lane", "found_lane"),
    lost(WALK["turns"], "instance", "found_instance_no"),
    lost(WALK["turns"], "inbox", "found_inbox_no"),
    lost(WALK["inbox"], "lane", "found_lane"),
    lost(WALK["inbox"], "lane", "found_lane_before"),
    lost(WALK["inbox"], "turn", "found_turn_no"),
    lost(WALK["inbox"], "entry", "found_entry_no"),
    lost(WALK["outbox"], "turn", "turn_state"),
    lost(WALK["outbox"], "instance", "found_instance_no"),
    lost(WALK["import_files"], "quarantine", "last_line"),
    Page(
        "salvage.aside",
        lambda w: {"low_no": -w.no("entry twin/18"), "high_no": -w.no("entry twin/10")},
        lambda row: {"high_no": -row.entry_no - 1},
        "entry_no",
        [f"twin/{seq}" for seq in range(10, 19)],
        given=aside,
    ),
    Page(
        "salvage.numbers",
        numbers,
        lambda row: {"low_no": row.entry_no + 1},
        "entry_no",
        [f"live/{seq}" for seq in range(3, 10)],
    ),
]


def of_session(name: str, **more: Any) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"session_no": w.no(f"session {name}"), **more}


def joined(statement: str, label: str, **columns: Any) -> Read:
    """Return a read of one row of a walk, with what it finds in other tables."""
    table = label.partition(" ")[0]

    def params(w: World) -> dict[str, Any]:
        return {"after": w.no(label) - 1, "limit": 1}

    return Read(
        f"salvage.{statement}", label, params, [{f"{table}_no": label.partition(" ")[2], **columns}]
    )


def next_owner(statement: str, key: str, after: str, name: str) -> list[Read]:
    """Return a search for the next owner of rows, and the same when every owner is lost."""
    table = key.removesuffix("_no")

    def read(what: str, found: Callable[[World], int | None], given: Given) -> Read:
        return Read(
            f"salvage.{statement}",
            f"behind {after}{what}",
            lambda w: {"after": w.no(after)},
            lambda w: [{key: name, f"found_{key}": found(w)}],
            given,
        )

    return [
        read("", lambda w: int(w.no(f"{table} {name}")), nothing),
        read(", which is lost", lambda _: None, without(table)),
    ]


ODD_FILE = "import_file main/odd.jsonl"


def aside_child(low: int, high: int, parent: int, found: int | None) -> Read:
    """Return a search for what follows an entry of `twin`, among those from `low` to `high`."""
    return Read(
        "salvage.aside_child",
        f"of {parent} from {low} to {high}",
        lambda w: {
            "low_no": -w.no(f"entry twin/{high}"),
            "high_no": -w.no(f"entry twin/{low}"),
            "parent_no": w.no(f"entry twin/{parent}"),
        },
        lambda w: [] if found is None else [{"payload": w.row(f"entry twin/{found}")["payload"]}],
        aside,
    )


def aside_by_id(name: str, entry_id: str, found: str | None) -> Read:
    def params(w: World) -> dict[str, Any]:
        return {"aside_no": -w.no("entry " + name) >> 32, "entry_id": entry_id}

    return Read(
        "salvage.aside_by_id",
        f"{entry_id} of {name}",
        params,
        [] if found is None else [{"entry_no": f"-{found}"}],
        aside,
    )


def counted(name: str, *found: dict[str, int]) -> Read:
    """Return the case of a receipt that counts one entry more than its session has."""
    return Read(
        "salvage.counted_header",
        f"one file of two: {name}",
        of_session(name),
        found,
        set_columns("import_file west/clean.jsonl", entries=3),
    )


def branch_again(w: World, _tx: Recorder) -> None:
    """Let a fork leave its parent a second time, at an earlier entry."""
    w.connection.execute(
        "INSERT INTO branch VALUES (?, ?, ?, ?, ?)",
        (
            9_000,
            w.no("session twin-fork"),
            w.no("branch twin/1"),
            w.no("entry twin/3"),
            w.no("session twin-fork") << 32 | 2,
        ),
    )


def undo_again(w: World, _tx: Recorder) -> None:
    """Let a compaction be undone a second time, at the last entry."""
    w.connection.execute(
        "UPDATE epoch SET closed_head_no = ?, closed_at_ms = 1 WHERE session_no = ? AND epoch = 2",
        (w.no("entry twin-undone/6"), w.no("session twin-undone")),
    )
    w.connection.execute(
        "INSERT INTO epoch (session_no, epoch, reason, opened_at_ms) VALUES (?, 3, 'undo', 1)",
        (w.no("session twin-undone"),),
    )


READS = [
    counted("import-work", {"found": 1}),
    counted("import-clean"),
    Read(
        "salvage.fork_point",
        "of a fork that left its parent twice",
        lambda w: of_session("twin-fork", low_no=w.no("session twin-fork") << 32)(w),
        [{"fork_no": "twin/18"}],
        branch_again,
    ),
    Read(
        "salvage.undone_at",
        "two, in their order",
        of_session("twin-undone"),
        [{"closed_head_no": f"twin-undone/{seq}"} for seq in (5, 6)],
        undo_again,
    ),
    Read(
        "salvage.jobs_aside",
        "of one session, in their order",
        of_session("job-tired"),
        [
            {"compaction_id": name}
            for name in ("tired-failed", *(f"tired-rejected-{count}" for count in range(3)))
        ],
        lambda w, tx: [
            run("set_aside_compactions", session_no=f"session {name}")(w, tx)
            for name in ("job-tired", "job-tired-too")
        ],
    ),
    # Entries 14 and 15 follow entry 13, and 12, 16 and 17 follow 11.
    aside_child(12, 18, 13, 14),
    aside_child(15, 18, 13, 15),
    aside_child(12, 15, 11, 12),
    aside_child(17, 17, 11, 17),
    aside_child(13, 15, 11, None),
    aside_by_id("twin/1", "common", "twin/13"),
    aside_by_id("live/1", "common", "live/13"),
    aside_by_id("live/1", "another", None),
    joined(
        "turns",
        "turn held-too#1",
        found_lane="slow",
        inbox_state="claimed",
        session_no="held-too",
    ),
    joined(
        "inbox",
        "inbox held-too",
        turn_state="running",
        found_type="message",
        is_own=1,
        has_text=0,
        is_json=0,
    ),
    joined("inbox", "inbox told", found_type=None, is_own=None, has_text=1, is_json=1),
    *(
        Read(
            "salvage.inbox",
            f"with {key}",
            lambda w: {"after": w.no("inbox held-too") - 1, "limit": 1},
            [{"inbox_no": "held-too", "is_own": is_own}],
            lambda w, tx, key=key: set_columns(
                "entry held-too/1", idempotency_key=key.format(w.no("inbox held-too"))
            )(w, tx),
        )
        for key, is_own in (("inbox:{}:7", 1), ("inbox:{}7", 0), ("inbox:7{}", 0), ("of:{}", 0))
    ),
    *(
        Read(
            "salvage.inbox",
            f"that came from the lane {before}",
            lambda w: {"after": w.no("inbox held-too") - 1, "limit": 1},
            [{"inbox_no": "held-too", "lane_before": before, "found_lane_before": found}],
            set_columns("inbox held-too", lane="resume", lane_before=before),
        )
        for before, found in (("slow", "slow"), ("no lane", None))
    ),
    joined("outbox", "outbox web:sent", turn_state="completed", session_no="sent"),
    joined("import_files", "import_file main/odd.jsonl", found_quarantined=3, last_line=6),
    joined("import_files", "import_file main/clean.jsonl", found_quarantined=0, last_line=None),
    *(
        Read(
            "salvage.import_files",
            f"the first of the session of {name}",
            lambda w, name=name: {"after": w.no(f"import_file {name}") - 1, "limit": 1},
            lambda w, first=first: [{"first_import_file_no": w.no(f"import_file {first}")}],
        )
        for name, first in (
            ("west/clean.jsonl.link", "west/clean.jsonl"),
            ("west/sessions.json", "west/sessions.json"),
        )
    ),
    Read(
        "salvage.session",
        "one",
        of_session("twin-fork"),
        [{"session_no": "twin-fork", "session_id": "twin-fork", "forked_from_no": "twin"}],
    ),
    Read(
        "salvage.header",
        "the first line",
        lambda w: {"entry_no": w.no("entry twin/0")},
        lambda w: [{"payload": w.row("entry twin/0")["payload"]}],
    ),
    Read("salvage.header", "no other", lambda w: {"entry_no": w.no("entry twin/1")}, []),
    Read("salvage.taken", "an id", {"session_id": "twin"}, [{"session_no": "twin"}]),
    Read("salvage.taken", "none", {"session_id": "new"}, []),
    Read(
        "salvage.fork_epoch",
        "of a fork",
        of_session("twin-fork"),
        [{"boundary_no": "twin/10", "first_kept_no": "twin/9"}],
    ),
    Read("salvage.fork_epoch", "of no other", of_session("twin"), []),
    Read(
        "salvage.fork_point",
        "of a fork",
        lambda w: of_session("twin-fork", low_no=w.no("session twin-fork") << 32)(w),
        [{"fork_no": "twin/18"}],
    ),
    Read(
        "salvage.fork_point",
        "of no other",
        lambda w: of_session("twin", low_no=w.no("session twin") << 32)(w),
        [],
    ),
    Read(
        "salvage.undone_at",
        "the head before",
        of_session("twin-undone"),
        [{"closed_head_no": "twin-undone/5"}],
    ),
    Read("salvage.undone_at", "none", of_session("twin"), []),
    Read(
        "salvage.message",
        "one message",
        lambda w: {"inbox_no": w.no("inbox told")},
        [{"inbox_no": "told"}],
    ),
    Read(
        "salvage.archive_of",
        "the one that is not restored",
        of_session("old"),
        [{"archive_no": "old/3", "state": "archived"}],
    ),
    Read(
        "salvage.chunk",
        "the next of its archive",
        lambda w: {"archive_no": w.no("archive old-too/4"), "after": 1},
        lambda w: [{"chunk_no": 2, "content": w.row("archive_chunk old-too/4/2")["content"]}],
    ),
    *next_owner("next_chunk_owner", "archive_no", "archive old/3", "old-too/4"),
    *next_owner("next_epoch_owner", "session_no", "session live", "live-fork"),
    *next_owner("next_quarantined", "import_file_no", ODD_FILE, "main/blank.jsonl"),
    *next_owner(
        "next_quarantined", "import_file_no", "import_file main/blank.jsonl", "west/odd.jsonl"
    ),
    Read("salvage.counted_header", "no file counts its header", of_session("import-work"), []),
]

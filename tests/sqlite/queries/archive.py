"""Cases of queries/archive.sql.

A rule that archives or restores takes many transactions. It is run whole where all of its
rows can be named, and else its statements are run by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import ANY

import anyio

from sessiondb.backend import AnyStatement
from sessiondb.maintenance import archive
from tests.support.statement_cases import Change, Guard, Page, Read, set_columns
from tests.support.world import Changes, Recorder, World
from tests.support.world_build import NOW, Direct

CHILDREN = ("branch", "epoch", "entry")
SEVERAL = ("twin-reset", "job-tired")


async def put_away(backend: Direct, session_no: int, *, keep: bool = True) -> None:
    archive_no, _ = await archive.begin(backend, session_no, "it is old", keep_archive=keep)
    assert archive_no is not None
    await archive.advance(backend, archive_no)


def steps(
    *fns: Callable[[Direct, int], Awaitable[object]], name: str
) -> Callable[[World, Recorder], object]:
    """Return a rule that does one thing after another with a session."""

    def rule(w: World, _tx: Recorder) -> None:
        async def run() -> None:
            for fn in fns:
                await fn(w.direct(), w.no(f"session {name}"))

        anyio.run(run)

    return rule


async def delete(backend: Direct, session_no: int) -> None:
    await put_away(backend, session_no, keep=False)


async def advance_all(backend: Direct, session_no: int) -> None:
    row = backend.tx().first("archive.of_session", session_no=session_no)
    assert row is not None
    await archive.advance(backend, row.archive_no)


async def drop(backend: Direct, session_no: int) -> None:
    tx = backend.tx()
    row = tx.first("archive.of_session", session_no=session_no)
    assert row is not None
    needed_by = await archive.drop(backend, tx.one("archive.get", archive_no=row.archive_no))
    assert needed_by is None


def rows_of(w: World, name: str, tables: tuple[str, ...] = CHILDREN) -> list[str]:
    """Return the labels of a session's own rows."""
    return [
        label
        for table in tables
        for label, _ in w.rows(table)
        if label.startswith(f"{table} {name}/")
    ]


def of_several(statement: str, **more: Any) -> Callable[[World, Recorder], object]:
    """Return a statement that is run for `SEVERAL`."""
    return lambda w, tx: tx.run(AnyStatement(statement), **of_sessions(*SEVERAL)(w), **more)


def several_gone(statement: str) -> Callable[[World], Changes]:
    """Return that a statement deletes the rows of `SEVERAL`, which are some."""

    def gone(w: World) -> Changes:
        labels = several_of(w, statement)
        assert len(labels) >= len(SEVERAL)
        return {f"-{label}": {} for label in labels}

    return gone


def archived(name: str, key: str, *, bindings: int = 1) -> Callable[[World], Changes]:
    def rows(w: World) -> Changes:
        gone = rows_of(w, name)
        count = len(gone) + 1 + bindings
        number = max(row["archive_no"] for _, row in w.rows("archive")) + 1
        return {
            f"session {name}": {"ended_at_ms": NOW, "archived_at_ms": NOW},
            "+event session_ended/operator": ANY,
            f"-binding {key}": {},
            **{f"-{label}": {} for label in gone},
            f"+archive {name}/{number}": {
                "session_no": name,
                "state": "archived",
                "reason": "it is old",
                "encoding": archive.best_encoding(),
                "begun_at_ms": NOW,
                "finished_at_ms": NOW,
                "rows": count,
                "bytes": ANY,
                "bytes_stored": ANY,
                "session_keys": json.dumps([key]),
            },
            **{f"+archive_chunk {name}/{number}/{chunk}": ANY for chunk in range(5)},
        }

    return rows


def twice(w: World) -> Changes:
    """Return what an archive, a restore and both again leave: no row is another one."""
    number = max(row["archive_no"] for _, row in w.rows("archive")) + 1
    return {
        f"+archive twin-reset/{number}": ANY,
        f"+archive twin-reset/{number + 1}": ANY,
        "+event session_ended/operator": ANY,
        "+event session_restored/operator": ANY,
        "+event session_ended/operator 2": ANY,
        "+event session_restored/operator 2": ANY,
    }


def deleted(w: World) -> Changes:
    number = max(row["archive_no"] for _, row in w.rows("archive")) + 1
    return {
        "search_state 1": {"purging": 1},  # its words go from the bytes of the index, too
        "session job-tired": {"ended_at_ms": NOW, "archived_at_ms": NOW},
        "+event session_ended/operator": ANY,
        "-binding agent:west:job:tired": {},
        **{f"-{label}": {} for label in rows_of(w, "job-tired")},
        **{f"-compaction tired-rejected-{count}": {} for count in range(3)},
        "-compaction tired-failed": {},
        f"+archive job-tired/{number}": {
            "session_no": "job-tired",
            "state": "deleted",
            "reason": "it is old",
            "encoding": "none",
            "begun_at_ms": NOW,
            "finished_at_ms": NOW,
            "session_keys": '["agent:west:job:tired"]',
        },
    }


def restored(name: str, number: int) -> Changes:
    """Return what a restore of an archived session changes."""
    return {
        f"session {name}": {"ended_at_ms": None, "archived_at_ms": None},
        f"+binding agent:main:old:{name}": {
            "session_no": name,
            "agent_id": "main",
            "bound_at_ms": ANY,
        },
        **{f"+entry {name}/{seq}": ANY for seq in range(8)},
        **{f"+epoch {name}/{epoch}": ANY for epoch in range(3)},
        f"+branch {name}/1": {"session_no": name, "first_no": f"{name}/1"},
        f"+branch {name}/7": {
            "session_no": name,
            "parent_branch_no": f"{name}/1",
            "fork_no": f"{name}/1",
            "first_no": f"{name}/7",
        },
        f"archive {name}/{number}": {
            "state": "restored",
            "finished_at_ms": NOW,
            "bytes_stored": 0,
        },
        **{f"-archive_chunk {name}/{number}/{chunk}": {} for chunk in range(5)},
        "+event session_restored/operator": ANY,
    }


def run(statement: str, **params: Any) -> Callable[[World, Recorder], object]:
    """Run a statement by itself. A text with a space is the label of a row."""

    def value(w: World, given: Any) -> Any:
        return w.no(given) if isinstance(given, str) and given in w.before.by_label else given

    return lambda w, tx: tx.run(
        AnyStatement(f"archive.{statement}"),
        **{name: value(w, given) for name, given in params.items()},
    )


def again(w: World, tx: Recorder) -> None:
    """Put rows back that exist, with other values: those that exist stay."""
    branch, epoch, entry = (
        dict(w.row(label)) for label in ("branch twin/17", "epoch twin/0", "entry twin/3")
    )
    tx.run("archive.put_branch", **branch | {"first_no": 1})
    tx.run("archive.put_epoch", **epoch | {"reason": "undo"})
    tx.run("archive.put_entry", **entry | {"payload": "{}"})
    binding = w.row("binding agent:west:web:twin")
    tx.run("archive.rebind", **binding | {"session_no": w.no("session live")})


CHANGES = [
    *(
        Change(
            f"archive.{statement}",
            "archive one session of two that are alike",
            steps(put_away, name="twin-reset"),
            archived("twin-reset", "agent:main:web:twin-reset"),
        )
        for statement in (
            *("insert", "put_chunk", "count_chunk", "move", "finish"),
            *("unbind", "hide_session", "delete_entries", "delete_branches", "delete_epochs"),
        )
    ),
    *(
        Change(
            f"archive.{statement}",
            "restore one session of several",
            steps(archive.restore, name="old"),
            restored("old", 3),
        )
        for statement in (
            *("put_branch", "put_epoch", "put_entry", "rebind", "reopen_session"),
            *("drop_chunk", "empty"),
        )
    ),
    Change(
        "archive.put_entry",
        "archive, restore and both again: every row is as it was",
        steps(put_away, archive.restore, put_away, archive.restore, name="twin-reset"),
        twice,
    ),
    Change(
        "archive.delete_compactions",
        "delete one session of two that are alike",
        steps(delete, name="job-tired"),
        deleted,
    ),
    Change(
        "archive.forget_name",
        "drop one archive of several",
        steps(drop, name="child"),
        {
            "session child": {"name": None},
            "archive child/5": {"state": "deleted", "finished_at_ms": NOW, "bytes_stored": 0},
            **{f"-archive_chunk child/5/{chunk}": {} for chunk in range(5)},
        },
    ),
    Change(
        "archive.move",
        "go on with one archive that another process left",
        steps(advance_all, name="complete"),
        lambda w: {
            "session complete": {"archived_at_ms": NOW},
            **{f"-{label}": {} for label in rows_of(w, "complete")},
            "archive complete/10": {"state": "archived", "finished_at_ms": NOW},
        },
    ),
    Change("archive.put_branch", "rows that exist stay", again, {}),
    Change(
        "archive.add_key",
        "to the archive that is not restored",
        run("add_key", session_no="session old", session_key="agent:main:new"),
        {"archive old/3": {"session_keys": '["agent:main:old:old","agent:main:new"]'}},
    ),
    Change(
        "archive.add_key",
        "once",
        run("add_key", session_no="session old", session_key="agent:main:old:old"),
        {},
    ),
    Change(
        "archive.count_chunk",
        "of one archive",
        run("count_chunk", archive_no="archive writing/9", rows=1, bytes=2, bytes_stored=3),
        lambda w: {
            "archive writing/9": {
                name: w.row("archive writing/9")[name] + by
                for name, by in (("rows", 1), ("bytes", 2), ("bytes_stored", 3))
            }
        },
    ),
    Change(
        "archive.put_chunk",
        "every column",
        run(
            "put_chunk",
            archive_no="archive writing/9",
            chunk_no=7,
            what="entry",
            rows=3,
            sha256="s",
            content=b"c",
        ),
        {
            "+archive_chunk writing/9/7": {
                "what": "entry",
                "rows": 3,
                "sha256": "s",
                "content": b"c",
            }
        },
    ),
    Change(
        "archive.drop_chunk",
        "the last one of one archive",
        run("drop_chunk", archive_no="archive writing/9"),
        {"-archive_chunk writing/9/1": {}},
    ),
    Change(
        "archive.empty",
        "one archive",
        run("empty", archive_no="archive writing/9"),
        {"archive writing/9": {"bytes_stored": 0}},
    ),
    Change(
        "archive.reopen_session",
        "as it was before",
        run("reopen_session", session_no="session deleting", ended_at_ms=5),
        {"session deleting": {"ended_at_ms": 5, "archived_at_ms": None}},
    ),
    Change(
        "archive.delete_entries",
        "both ends of a range, and nothing beside them",
        lambda w, tx: tx.run(
            "archive.delete_entries",
            low_no=w.no("entry deleting/3"),
            high_no=w.no("entry deleting/5"),
        ),
        {f"-entry deleting/{seq}": {} for seq in (3, 4, 5)},
    ),
    Change(
        "archive.insert_whole",
        "in its last state",
        run(
            "insert_whole",
            session_no="session twin-ended",
            reason="it is old",
            encoding="zlib",
            now_ms=NOW,
            rows=1,
            bytes=2,
            bytes_stored=3,
            session_keys="[]",
        ),
        lambda w: {
            f"+archive twin-ended/{max(row['archive_no'] for _, row in w.rows('archive')) + 1}": {
                "session_no": "twin-ended",
                "state": "archived",
                "reason": "it is old",
                "encoding": "zlib",
                "begun_at_ms": NOW,
                "finished_at_ms": NOW,
                "rows": 1,
                "bytes": 2,
                "bytes_stored": 3,
                "session_keys": "[]",
            }
        },
    ),
    Change(
        "archive.hide_sessions",
        "one that had ended, and one that had not",
        lambda w, tx: tx.run(
            "archive.hide_sessions", **of_sessions("twin-ended", "job-tired")(w), now_ms=NOW
        ),
        {
            "session twin-ended": {"archived_at_ms": NOW},
            "session job-tired": {"ended_at_ms": NOW, "archived_at_ms": NOW},
        },
    ),
    *(
        Change(
            statement,
            "of two sessions, and no others",
            of_several(statement),
            several_gone(reading),
        )
        for statement, reading in (
            ("archive.unbind_all", "bindings_of"),
            ("archive.delete_entries_of", "entries_of"),
            ("archive.delete_branches_of", "branches_of"),
            ("archive.delete_epochs_of", "epochs_of"),
        )
    ),
    Change(
        "archive.delete_entries_of",
        "up to the last number of a session",
        lambda w, tx: [
            set_columns("entry job-tired/4", entry_no=w.no("session job-tired") << 32 | 0xFFFFFFFF)(
                w, tx
            ),
            tx.run("archive.delete_entries_of", **of_sessions("job-tired")(w)),
        ],
        lambda w: {
            f"-{label}": {} for label, _ in w.rows("entry") if label.startswith("entry job-tired/")
        },
    ),
    Change(
        "archive.delete_branches",
        "children first",
        run("delete_branches", session_no="session deleting", limit=1),
        {"-branch deleting/7": {}},
    ),
    Change(
        "archive.delete_epochs",
        "the first",
        run("delete_epochs", session_no="session deleting", limit=2),
        {"-epoch deleting/0": {}, "-epoch deleting/1": {}},
    ),
]


def moved(state: str, *, once: bool) -> Guard:
    """Return a guard of a change of state. With `once` it is the last one."""
    to_state = "deleted"
    if once:
        return Guard(
            "archive.finish",
            "archive",
            lambda row: {
                "archive_no": row["archive_no"],
                "from_state": state,
                "to_state": to_state,
                "now_ms": NOW,
            },
            lambda row: row["state"] == state and row["finished_at_ms"] is None,
        )
    return Guard(
        "archive.move",
        "archive",
        lambda row: {
            "archive_no": row["archive_no"],
            "from_state": state,
            "to_state": to_state,
        },
        lambda row: row["state"] == state,
    )


def unfinish(w: World, tx: Recorder) -> None:
    """Continue the work of a finished archive: it is not finished any more."""
    tx.run(
        "archive.move",
        archive_no=w.no("archive old/3"),
        from_state="archived",
        to_state="restoring",
    )
    # Once: the state is another one by now.
    tx.run(
        "archive.move",
        archive_no=w.no("archive old/3"),
        from_state="archived",
        to_state="deleted",
    )


CHANGES += [
    Change(
        "archive.move",
        "once",
        unfinish,
        {"archive old/3": {"state": "restoring", "finished_at_ms": None}},
    ),
    Change(
        "archive.finish",
        "not a finished one",
        run(
            "finish",
            archive_no="archive old/3",
            from_state="archived",
            to_state="deleted",
            now_ms=NOW,
        ),
        {},
    ),
]
GUARDS = [moved("writing", once=False), moved("deleting", once=True)]


def of_session(name: str, **more: Any) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"session_no": w.no(f"session {name}"), **more}


def of_sessions(*names: str) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"session_nos": json.dumps([w.no(f"session {name}") for name in names])}


def after_archive(row: Any) -> dict[str, int]:
    return {"after_no": row.archive_no}


PAGES = [
    Page(
        "archive.branches",
        of_session("live", after_no=0),
        lambda row: {"after_no": row.branch_no},
        "first_no",
        ["live/1", "live/14", "live/17"],
    ),
    Page(
        "archive.epochs",
        of_session("live", after_no=-1),
        lambda row: {"after_no": row.epoch},
        "reason",
        ["start", "compaction", "branch"],
    ),
    Page(
        "archive.unfinished",
        {"after_no": 0},
        after_archive,
        "archive_no",
        [
            *("leaf/8", "writing/9", "complete/10", "deleting/11", "restoring/12"),
            *("writing-too/15", "complete-too/16", "deleting-too/17", "restoring-too/18"),
        ],
    ),
    Page(
        "archive.kept",
        {"after_no": 0},
        after_archive,
        "session_id",
        ["old", "old-too", "child", "parent", "kept"],
    ),
]

NOTHING = {
    "pinned": 0,
    "turn_running": 0,
    "compaction_running": 0,
    "inbox_open": 0,
    "inbox_dead": 0,
    "outbox_open": 0,
    "outbox_unknown": 0,
    "importing": 0,
    "fork_id": None,
    "restorable_id": None,
}


def protected(name: str, **reasons: Any) -> Read:
    return Read(
        "archive.protection",
        name,
        of_sessions(name),
        [{"session_no": name, **NOTHING, **reasons}],
    )


def numbered(label: str) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"archive_no": w.no(f"archive {label}")}


def whole(statement: str, *labels: str) -> Read:
    """Return the case of a statement that returns the rows of `SEVERAL`, whole."""
    return Read(
        AnyStatement(statement),
        "of two sessions, and no others",
        of_sessions(*SEVERAL),
        lambda w: [
            {
                name: w.before.shown(name, value)
                for name, value in w.row(label).items()
                if name != "search_behind"
            }
            for label in labels or several_of(w, statement)
        ],
    )


def several_of(w: World, statement: str) -> list[str]:
    """Return the labels of the rows that a statement returns for `SEVERAL`, in its order."""
    kind = statement.removeprefix("archive.").removesuffix("_of")
    if kind == "bindings":
        owned = {w.no(f"session {name}") for name in SEVERAL}
        return sorted(label for label, row in w.rows("binding") if row["session_no"] in owned)
    table = {"branches": "branch", "epochs": "epoch", "entries": "entry"}[kind]
    return [label for name in SEVERAL for label in rows_of(w, name, (table,))]


READS = [
    whole("archive.sessions", *(f"session {name}" for name in SEVERAL)),
    whole("archive.bindings_of"),
    whole("archive.branches_of"),
    whole("archive.epochs_of"),
    whole("archive.entries_of"),
    Read(
        "archive.weights",
        "of two sessions",
        of_sessions(*SEVERAL),
        lambda w: [
            {
                "session_no": name,
                "rows": len(rows_of(w, name)) + 2,  # and its row, and a key
                "bytes": sum(
                    len(w.row(label)["payload"].encode()) for label in rows_of(w, name, ("entry",))
                ),
            }
            for name in SEVERAL
        ],
    ),
    Read(
        "archive.open_of",
        "that are not restored",
        of_sessions("old", "live", "dropped"),
        [
            {"session_no": "old", "state": "archived"},
            {"session_no": "dropped", "state": "deleted"},
        ],
    ),
    protected("twin-ended"),
    protected("done"),
    protected("dead-too", inbox_dead=1),
    protected("sent"),
    protected("sent-too"),
    protected("failed"),
    protected("job-tired"),
    protected("import-clean"),
    protected("twin-undone", pinned=1),
    protected("held-too", turn_running=1, inbox_open=1),
    protected("job-held-too", compaction_running=1),
    protected("told", inbox_open=1),
    protected("cut-too", inbox_open=1),
    protected("done-old-too", outbox_open=1),
    protected("reply-late-too", outbox_open=1),
    protected("unknown-too", outbox_unknown=1),
    protected("growing", importing=1),
    protected("twin", fork_id="twin-fork"),
    protected("parent", restorable_id="child"),
    # The fork's archive is finished, and is not.
    protected("base", restorable_id="kept"),
    protected("root", fork_id="leaf"),
    Read(
        "archive.session",
        "whole",
        of_session("twin-undone"),
        lambda w: [
            {
                name: w.before.shown(name, value)
                for name, value in w.row("session twin-undone").items()
                if name != "search_behind"
            }
        ],
    ),
    Read(
        "archive.bindings",
        "by key",
        of_session("twin"),
        [
            {"session_key": key, "session_no": "twin"}
            for key in (
                "agent:main:web:twin",
                "agent:west:telegram:twin",
                "agent:west:web:twin",
            )
        ],
    ),
    Read(
        "archive.entries",
        "both ends of a range, whole",
        lambda w: {"low_no": w.no("entry twin/3"), "high_no": w.no("entry twin/5")},
        lambda w: [
            {
                name: w.before.shown(name, value)
                for name, value in w.row(f"entry twin/{seq}").items()
            }
            for seq in (3, 4, 5)
        ],
    ),
    Read(
        "archive.get",
        "one",
        numbered("child/5"),
        [
            {
                "archive_no": "child/5",
                "session_no": "child",
                "session_id": "child",
                "forked_from_no": "parent",
                "state": "archived",
                "reason": "child is old",
                "session_keys": '["agent:main:old:child"]',
            }
        ],
    ),
    *(
        Read(
            "archive.of_session",
            name,
            of_session(name),
            [{"archive_no": label, "state": state}] if label else [],
        )
        for name, label, state in (
            ("old", "old/3", "archived"),
            ("dropped", "dropped/14", "deleted"),
            ("live", None, None),
        )
    ),
    Read("archive.next_chunk", "of five", numbered("old/3"), [{"chunk_no": 5}]),
    Read("archive.next_chunk", "of two", numbered("writing/9"), [{"chunk_no": 2}]),
    Read("archive.next_chunk", "of none", numbered("dropped/14"), [{"chunk_no": 0}]),
    Read(
        "archive.chunk",
        "of its archive",
        lambda w: {"archive_no": w.no("archive child/5"), "chunk_no": 3},
        lambda w: [
            {
                name: w.row("archive_chunk child/5/3")[name]
                for name in ("chunk_no", "what", "rows", "sha256", "content")
            }
        ],
    ),
    Read(
        "archive.branch",
        "that exists",
        lambda w: {"branch_no": w.no("branch twin/17")},
        [{"branch_no": "twin/17"}],
    ),
    Read("archive.branch", "that does not", {"branch_no": 10_000}, []),
]

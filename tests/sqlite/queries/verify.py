"""Cases of queries/verify.sql."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
from tests.support.world import ENTRIES, Recorder, World

CHANGES: list[Change] = []
GUARDS: list[Guard] = []


def of_session(name: str, **more: Any) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"session_no": w.no(f"session {name}"), **more}


def span(name: str, low: int = 0, high: int = 2**31, **more: Any) -> Callable[[World], Any]:
    def params(w: World) -> dict[str, Any]:
        no = w.no(f"session {name}")
        return {"low_no": no << 32 | low, "high_no": no << 32 | high, **more}

    return params


def walk(table: str, *columns: str) -> Page:
    """Return a walk of a whole table by its number."""
    key = f"{table}_no"
    names = {"turn": "turns", "import_file": "import_files", "archive": "archives"}
    return Page(
        f"verify.{names.get(table, table)}",
        {"after_no": 0},
        lambda row: {"after_no": getattr(row, key)},
        (key, *columns),
        lambda w: [
            tuple(w.before.shown(name, row[name]) for name in (key, *columns))
            for _, row in w.rows(table)
        ],
    )


INBOX = walk("inbox", "session_no", "turn_no", "entry_no", "state")
TURNS = walk("turn", "state", "inbox_no")
OUTBOX = walk("outbox", "session_no", "turn_no", "instance_no", "state")
IMPORT_FILES = walk("import_file", "path", "lines", "quarantined")
TEXTS_OF_PATH = Page(
    "verify.path_payloads",
    lambda w: {
        **span("twin", 2, 13)(w),
        "branch_no": w.row("entry twin/4")["branch_no"],
    },
    lambda row: {"low_no": row.entry_no + 1},
    "entry_no",
    [f"twin/{seq}" for seq in range(2, 14)],
)
BRANCHES = Page(
    "verify.branches",
    of_session("twin", after_no=0),
    lambda row: {"after_no": row.branch_no},
    ("branch_no", "first_no", "first_parent_no", "found_fork_no", "found_parent_branch_no"),
    lambda w: [
        (
            branch,
            branch,
            w.row(f"entry {parent}")["entry_no"] if parent else None,
            w.row(f"entry {parent}")["entry_no"] if parent else None,
            w.no("branch twin/1") if parent else None,
        )
        for branch, parent in (
            ("twin/1", None),
            ("twin/14", "twin/13"),
            ("twin/17", "twin/11"),
        )
    ],
)
ENTRIES_OF = Page(
    "verify.entries",
    span("twin", 10, 18),
    lambda row: {"low_no": row.entry_no + 1},
    ("entry_no", "branch_no", "parent_no"),
    lambda w: [
        tuple(
            w.before.shown(name, w.row(f"entry twin/{seq}")[name])
            for name in ("entry_no", "branch_no", "parent_no")
        )
        for seq in range(10, 19)
    ],
)
EPOCHS = Page(
    "verify.epochs",
    of_session("twin", low_epoch=0, high_epoch=2),
    lambda row: {"low_epoch": row.epoch + 1},
    ("reason", "boundary_no", "closed_head_no", "boundary_type"),
    [
        ("start", None, "twin/9", None),
        ("compaction", "twin/10", "twin/15", "compaction"),
        ("branch", "twin/10", None, "compaction"),
    ],
)
COMPACTIONS = Page(
    "verify.compactions",
    of_session("job-tired", after_no=0),
    lambda row: {"after_no": row.compaction_no},
    "compaction_id",
    ["tired-failed", *(f"tired-rejected-{count}" for count in range(3))],
)
BINDINGS = Page(
    "verify.bindings",
    {"after_key": ""},
    lambda row: {"after_key": row.session_key},
    ("session_key", "session_no"),
    lambda w: sorted(
        (row["session_key"], w.before.shown("session_no", row["session_no"]))
        for _, row in w.rows("binding")
    ),
)
FOREIGN_IDS = Page(
    "verify.foreign_ids",
    {"after_no": -(2**63)},
    lambda row: {"after_no": row.session_no},
    ("session_no", "namespace", "external_id", "session_id", "is_deleted"),
    [
        ("live", "app", "thread 1", "live", 0),
        ("live-fork", "other app", "thread 1", "live-fork", 0),
        ("live-ended", "app", "thread 1 ", "live-ended", 0),
        ("twin", "app", "Thread 1", "twin", 0),
    ],
)


def name_the_deleted(w: World, _tx: Recorder) -> None:
    """Leave foreign ids of a deleted session, of one in an archive and of one that came back."""
    w.connection.execute("DELETE FROM foreign_id")
    w.connection.executemany(
        "INSERT INTO foreign_id (namespace, external_id, session_no, named_at_ms)"
        " VALUES ('app', ?, ?, 1)",
        [(name, w.no(f"session {name}")) for name in ("old", "restoring", "deleted")],
    )


ARCHIVES = walk("archive", "state", "bytes_stored")
EVENTS = Page(
    "verify.events",
    {"after_no": 0},
    lambda row: {"after_no": row.event_no},
    ("event_no", "is_json"),
    lambda w: [(w.before.shown("event_no", row["event_no"]), 1) for _, row in w.rows("event")],
)


def cut_into_pieces(w: World, _tx: Recorder) -> None:
    """Set three pieces of one file aside, and a piece of another file."""
    w.connection.execute("DELETE FROM quarantine")
    first, other = sorted(row["import_file_no"] for _, row in w.rows("import_file"))[:2]
    w.connection.executemany(
        "INSERT INTO quarantine (import_file_no, byte_offset, line, after_seq, reason, severity,"
        " content) VALUES (?, ?, ?, 0, 'not JSON', 'damaged', x'78')",
        [(first, 0, 1), (first, 7, 2), (first, 70, 9), (other, 8, 3)],
    )


PIECES = Page(
    "verify.pieces",
    lambda w: {
        "import_file_no": min(row["import_file_no"] for _, row in w.rows("import_file")),
        "after_offset": -1,
    },
    lambda row: {"after_offset": row.byte_offset},
    ("byte_offset", "line"),
    [(0, 1), (7, 2), (70, 9)],
    given=cut_into_pieces,
)
PAGES = [
    INBOX,
    TURNS,
    OUTBOX,
    IMPORT_FILES,
    TEXTS_OF_PATH,
    BRANCHES,
    ENTRIES_OF,
    EPOCHS,
    COMPACTIONS,
    BINDINGS,
    FOREIGN_IDS,
    replace(
        FOREIGN_IDS,
        column=("session_no", "is_deleted"),
        rows=[("old", 0), ("restoring", 0), ("deleted", 1)],
        key="of archived sessions",
        given=name_the_deleted,
    ),
    ARCHIVES,
    EVENTS,
    PIECES,
    # What a row points at is lost. The row is found all the same, or nobody would hear of it.
    *(lost(page, "session", "session_id") for page in (INBOX, TURNS, OUTBOX, IMPORT_FILES)),
    lost(INBOX, "turn", "turn_state"),
    lost(INBOX, "entry", "found_type"),
    lost(INBOX, "event", "told_kind"),
    lost(TURNS, "inbox", "inbox_state"),
    lost(OUTBOX, "turn", "turn_state"),
    lost(IMPORT_FILES, "quarantine", "last_line"),
    lost(BINDINGS, "session", "found_session_no"),
    lost(FOREIGN_IDS, "session", "found_session_no"),
    lost(ARCHIVES, "session", "session_id"),
    lost(BRANCHES, "entry", "found_fork_no"),
    lost(ENTRIES_OF, "branch", "found_branch_no"),
    lost(EPOCHS, "entry", "found_head_no"),
    lost(EPOCHS, "entry", "found_boundary_no"),
    lost(COMPACTIONS, "entry", "found_entry_no"),
    lost(COMPACTIONS, "entry", "cut_branch_no"),
    lost(COMPACTIONS, "epoch", "epoch_reason"),
]


def lose(w: World, _tx: Recorder) -> None:
    """Bind three keys to sessions that do not exist."""
    w.connection.execute("PRAGMA defer_foreign_keys = on")
    w.connection.execute(
        "UPDATE binding SET session_no = 777 WHERE session_key GLOB 'agent:main:fork:*'"
    )


def last_event(w: World) -> int:
    return max(row["event_no"] for _, row in w.rows("event"))


def at_the_last_event(w: World, _tx: Recorder) -> None:
    w.connection.execute("UPDATE event_cursor SET event_no = ?", (last_event(w),))


def move_cursor(w: World, _tx: Recorder) -> None:
    w.connection.execute("UPDATE event_cursor SET event_no = 100000 WHERE consumer = 'web'")


def entry(label: str, **columns: Any) -> Read:
    """Return a read of one entry with its parent, its branch and the entry before it."""

    def params(w: World) -> dict[str, int]:
        return {"low_no": w.no(f"entry {label}"), "high_no": w.no(f"entry {label}"), "limit": 1}

    def rows(w: World) -> list[dict[str, Any]]:
        def number(value: Any) -> Any:
            text = str(value)
            return w.no(f"entry {text}") if f"entry {text}" in w.before.by_label else value

        # A column that every statement has is shown as a label.
        return [
            {name: value if name in ENTRIES else number(value) for name, value in columns.items()}
        ]

    return Read("verify.entries", label, params, rows)


def marked(table: str, name: str, *, in_vain: bool, what: str, given: Given = nothing) -> Read:
    """Return the read of a row that is marked, and may wait for nothing."""
    label = f"{table} {name}"

    def place(w: World, tx: Recorder) -> None:
        set_columns(label, waits=1)(w, tx)
        given(w, tx)

    return Read(
        f"verify.{table}",
        f"{name}, marked, {what}",
        lambda w: {"after_no": w.no(label) - 1, "limit": 1},
        [{f"{table}_no": name, "waits_in_vain": int(in_vain)}],
        place,
    )


def told_in(session_id: str, **columns: Any) -> Given:
    return set_columns("inbox told", session_no=f"session {session_id}", **columns)


def in_lane(event_id: str, lane: str) -> Given:
    return set_columns(f"inbox {event_id}", lane=lane)


def behind_a_resume(w: World, tx: Recorder) -> None:
    """Leave a message alone behind a resume, whose lane goes before its own."""
    set_columns("inbox resumed-next", session_no="session live")(w, tx)
    set_columns("inbox slow-next", session_no="session resumed")(w, tx)
    w.connection.execute("UPDATE lane SET priority = 30 WHERE lane = 'slow'")


MARKED = [
    *(
        marked("inbox", name, in_vain=in_vain, what=what, given=given)
        for name, in_vain, what, given in (
            ("told", True, "alone", nothing),
            ("told", False, "not any more", set_columns("inbox told", waits=0)),
            ("told", False, "interrupted", set_columns("inbox told", state="interrupted")),
            ("told", False, "beside a turn of a later lane", told_in("running-too")),
            ("told", True, "beside a turn that has ended", told_in("done")),
            ("told", False, "behind an older one", told_in("cut")),
            ("cut-next", True, "before a newer one", told_in("cut")),
            ("told", True, "behind an interrupted one", told_in("cut-too")),
            ("told", True, "behind one of a later lane", told_in("cron-session")),
            (
                *("told", False, "behind one of a lane with its priority"),
                told_in("slow-session", lane="slower"),
            ),
            ("slow-next", True, "behind a resume", behind_a_resume),
            ("resumed", False, "before a newer one of its lane", nothing),
            ("resumed", True, "before one of a later lane", in_lane("resumed-next", "cron")),
        )
    ),
    *(
        marked("outbox", name, in_vain=in_vain, what=what, given=given)
        for name, in_vain, what, given in (
            ("web:ahead", True, "alone", nothing),
            ("web:ahead", False, "not any more", set_columns("outbox web:ahead", waits=0)),
            ("web:failed", False, "failed", nothing),
            ("web:pending", True, "behind one that is sent, before another one", nothing),
            ("web:behind", False, "behind one that is being sent", nothing),
            ("web:retried-behind", False, "behind one that waits for its retry", nothing),
            (
                *("telegram:ahead", True, "behind one to another channel"),
                set_columns("outbox telegram:ahead", session_no="session done-old"),
            ),
        )
    ),
]


def chunks(w: World, archive: str) -> list[Any]:
    """Return the chunks of an archive."""
    number = w.no(f"archive {archive}")
    return [row for _, row in w.rows("archive_chunk") if row["archive_no"] == number]


NUMBERED = ("branch", "turn", "inbox", "outbox", "event")


def numbers(w: World, **other: int) -> list[dict[str, Any]]:
    """Return the last number of each table, and its counter. Of one table it is `other`."""
    counters = dict(w.connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    return [
        {
            "name": table,
            "last_no": max(int(row[f"{table}_no"]) for _, row in w.rows(table)),
            "seq": counters[table],
        }
        | (other if table == "event" else {})
        for table in NUMBERED
    ]


def sql(*statements: str) -> Given:
    """Return changes by plain SQL, of rows that no rule makes."""

    def change(w: World, _tx: Recorder) -> None:
        w.connection.execute("PRAGMA defer_foreign_keys = on")
        for statement in statements:
            w.connection.execute(statement).fetchall()

    return change


def comes_from(name: str, origin: str, *, found: bool, given: Given = nothing) -> Read:
    """Return the search of one session among those that another one comes from."""
    return Read(
        "verify.comes_from",
        f"{name} {'comes' if found else 'does not come'} from {origin}",
        lambda w: of_session(name, origin_no=w.no(f"session {origin}"))(w),
        [{"session_no": origin}] if found else [],
        given,
    )


def named(
    name: str, entry_: str, before: str, *, found: str | None, what: str, given: Given = nothing
) -> Read:
    """Return the search of the entry that had another one's id, when a later one came."""

    def params(w: World) -> dict[str, Any]:
        entry_id = w.row(f"entry {entry_}")["entry_id"]
        return of_session(name, entry_id=entry_id, before_no=w.no(f"entry {before}"))(w)

    return Read("verify.named_before", what, params, [{"entry_no": found}] if found else [], given)


def as_id_of(entry_: str, *others: str) -> Given:
    """Return the change that gives other entries the id of one."""

    def change(w: World, tx: Recorder) -> None:
        for other in others:
            set_columns(f"entry {other}", entry_id=w.row(f"entry {entry_}")["entry_id"])(w, tx)

    return change


def after_epoch(name: str, epoch: int, head: str, *, what: str, next_: str | None) -> Read:
    """Return the read of what follows the end of an epoch, no later than a head."""
    ends = {("twin", 0): "twin/9", ("twin", 1): "twin/15", ("twin-reset", 1): "twin-reset/5"}
    return Read(
        "verify.after_epoch",
        what,
        lambda w: of_session(name, epoch=epoch, head_no=w.no(f"entry {head}"))(w),
        lambda w: [
            {
                "closed_head_no": ends[name, epoch],
                "branch_no": f"{name}/1",
                "next_no": w.no(f"entry {next_}") if next_ else None,
            }
        ],
    )


def of_entry(
    statement: str, name: str, place: str, *rows: dict[str, Any], given: Any = None
) -> Read:
    """Return the read of the job that wrote an entry of a session."""

    def expected(w: World) -> list[dict[str, Any]]:
        def value(column: str, one: Any) -> Any:
            if column == "before_kept_tokens_total":
                return w.row(f"entry {one}")["tokens_total"]
            return w.no(f"entry {one}") if column in ("found_kept_no", "before_kept_no") else one

        return [{column: one and value(column, one) for column, one in row.items()} for row in rows]

    return Read(
        statement,
        f"{name}, entry {place}" + (" of a damaged file" if given else ""),
        lambda w: of_session(name, entry_no=w.no(f"entry {place}"))(w),
        expected,
        given or nothing,
    )


def receipt(name: str, session: str | None) -> Callable[[World], dict[str, Any]]:
    return lambda w: {
        "import_file_no": w.no(f"import_file {name}"),
        "session_no": w.no(f"session {session}") if session else None,
    }


ODD = sql(
    "UPDATE instance SET unclean = 2 WHERE program = 'gateway'",
    "UPDATE instance SET unclean = 1 WHERE program = 'other'",
)
ODD_PAUSES = sql(
    "UPDATE channel_pause SET pauses = 0 WHERE channel = 'irc'",
    "UPDATE channel_pause SET refused_since_ms = begun_at_ms, pauses = 1 WHERE channel = 'matrix'",
    "UPDATE channel_pause SET refused_since_ms = begun_at_ms + 1 WHERE channel = 'sms'",
)
KEY = {"idempotency_key": "twin three"}


def early_lines_of_odd(w: World, _tx: Recorder) -> None:
    """Give a file early lines: two that are entries, one that waits, and one placed once more."""
    for byte_offset, entry_seq, entry_id in (
        *((0, 1, None), (9001, 2, None), (9002, None, "a")),
        (-5, None, "b"),
    ):
        w.connection.execute(
            "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason,"
            " severity, content, entry_seq, entry_id, waits_for)"
            " VALUES (?, 9, ?, 4, 'early', 'early', x'', ?, ?, 'z')",
            (w.no("import_file main/odd.jsonl"), byte_offset, entry_seq, entry_id),
        )


WALKS = [
    *(
        Read(
            "verify.import_files",
            f"the first of the session of {name}",
            lambda w, name=name: {"after_no": w.no(f"import_file {name}") - 1, "limit": 1},
            lambda w, first=first: [{"first_import_file_no": w.no(f"import_file {first}")}],
        )
        for name, first in (
            ("west/clean.jsonl.link", "west/clean.jsonl"),
            ("west/sessions.json", "west/sessions.json"),
        )
    ),
    *(
        Read(
            "verify.bindings",
            f"of {key}, {'while it is' if restoring else 'and not'} restored",
            {"after_key": f"agent:main:old:{key}"[:-1], "limit": 1},
            [{"session_key": f"agent:main:old:{key}", "restoring": restoring}],
            sql(
                "INSERT INTO binding (session_key, session_no, agent_id, bound_at_ms)"
                f" SELECT 'agent:main:old:{key}', session_no, 'main', 1 FROM session"
                f" WHERE session_id = '{key}'"
            ),
        )
        for key, restoring in (("restoring-too", 1), ("parent", 0))
    ),
    Read(
        "verify.archives",
        "with its chunks, of several",
        lambda w: {"after_no": w.no("archive old/3") - 1, "limit": 1},
        lambda w: [
            {
                "archive_no": "old/3",
                "found_chunks": len(chunks(w, "old/3")),
                "found_bytes": sum(len(row["content"]) for row in chunks(w, "old/3")),
            }
        ],
    ),
    *(
        Read(
            "verify.session",
            f"whose header {what}",
            lambda w: {**span("twin")(w), **of_session("twin")(w)},
            [{"header_version": version}],
            set_columns("entry twin/0", payload=payload),
        )
        for what, payload, version in (
            ("has a version", '{"version": 7}', 7),
            ("has a text for it", '{"version": "7"}', None),
            ("has none", "{}", None),
            ("is not JSON", "{torn", None),
        )
    ),
    *(
        Read(
            "verify.session",
            what,
            lambda w, name=name: {**span(name)(w), **of_session(name)(w)},
            [{"origin_epoch": epoch}],
        )
        for what, name, epoch in (("a fork of two", "twin-fork", 2), ("no fork", "twin", None))
    ),
    comes_from("twin-fork", "twin", found=True),
    comes_from("twin", "twin", found=True),
    comes_from("twin", "twin-fork", found=False),
    comes_from("twin-fork", "live", found=False),
    comes_from(
        "child",
        "live",
        found=True,
        given=set_columns("session parent", forked_from_no="session live"),
    ),
    # No session is forked from a later one.
    comes_from(
        "live",
        "parent",
        found=False,
        given=set_columns("session live", forked_from_no="session parent"),
    ),
    *(
        Read("verify.first_head", what, of_session(name), rows)
        for what, name, rows in (
            ("where it ended", "twin", [{"head_no": "twin/9", "branch_no": "twin/1"}]),
            ("where it is", "job-busy", [{"head_no": "job-busy/4", "branch_no": "job-busy/1"}]),
            ("nowhere yet", "twin-ended", [{"head_no": None, "branch_no": None}]),
        )
    ),
    Read("verify.numbers", "of each table", {}, numbers),
    Read(
        "verify.numbers",
        "of a table that is empty, with a counter that is there twice",
        {},
        lambda w: numbers(w, last_no=0, seq=99_999),
        sql(
            "DELETE FROM event", "INSERT INTO sqlite_sequence VALUES ('event', 99999), ('event', 5)"
        ),
    ),
    Read(
        "verify.numbers",
        "without a counter",
        {},
        lambda w: numbers(w, seq=0),
        sql("DELETE FROM sqlite_sequence WHERE name = 'event'"),
    ),
    *(
        Read(
            "verify.numbers",
            f"without any {table}",
            {},
            lambda w, table=table: [
                row | ({"last_no": 0} if row["name"] == table else {}) for row in numbers(w)
            ],
            without(table),
        )
        for table in NUMBERED
    ),
    Read("verify.wal_link", "one", {}, [{}]),
    Read(
        "verify.lanes", "of a new file", {}, [{"lane": name} for name in ("cron", "main", "resume")]
    ),
    Read("verify.odd_instances", "none", {"limit": 9}, []),
    *(
        Read(
            "verify.odd_instances",
            f"{limit} of two",
            {"limit": limit},
            [{"instance_no": "gateway", "unclean": 2}, {"instance_no": "other", "unclean": 1}][
                :limit
            ],
            ODD,
        )
        for limit in (9, 1)
    ),
    Read("verify.odd_pauses", "none", {"limit": 9}, []),
    *(
        Read(
            "verify.odd_pauses",
            f"{limit} of two",
            {"limit": limit},
            [{"channel": "irc", "pauses": 0}, {"channel": "sms", "pauses": 3}][:limit],
            ODD_PAUSES,
        )
        for limit in (9, 1)
    ),
    *(
        Read(
            "verify.key_owner",
            f"of {name}, before entry {seq}",
            lambda w, name=name, seq=seq: of_session(
                name, before_no=w.no(f"entry twin/{seq}"), **KEY
            )(w),
            rows,
        )
        for name, seq, rows in (
            ("twin", 9, [{"entry_no": "twin/8"}]),
            ("twin", 8, []),
            ("live", 9, []),
        )
    ),
    named("twin", "twin/3", "twin/8", found="twin/3", what="one of two that are alike"),
    named("twin-fork", "twin/3", "twin-fork/1", found="twin/3", what="of the origin"),
    named("live", "twin/3", "twin-fork/1", found=None, what="not of another session"),
    named("twin", "twin/3", "twin/3", found=None, what="not itself"),
    named(
        *("twin", "twin/3", "twin/11"),
        found="twin/8",
        what="the newest, before a later one",
        given=as_id_of("twin/3", "twin/8", "twin/11"),
    ),
    named(
        *("twin-fork", "twin/3", "twin-undone/0"),
        found="twin-fork/1",
        what="its own first",
        given=as_id_of("twin/3", "twin-fork/1"),
    ),
    named(
        *("child", "twin/3", "done/1"),
        found="twin/3",
        what="of a nearer origin first",
        given=lambda w, tx: [
            as_id_of("twin/3", "live/3")(w, tx),
            set_columns("session child", forked_from_no="session twin-fork")(w, tx),
            set_columns("session twin", forked_from_no="session live")(w, tx),
        ],
    ),
    named(
        *("live", "twin/3", "twin-fork/1"),
        found=None,
        what="not of a later session, whose fork it says it is",
        given=set_columns("session live", forked_from_no="session twin"),
    ),
    named(
        *("live", "twin/3", "twin-fork/1"),
        found=None,
        what="of a session whose fork is itself: the search ends",
        given=set_columns("session live", forked_from_no="session live"),
    ),
    of_entry(
        *("verify.job_of_entry", "twin", "twin/10"),
        {
            "compaction_id": "twin-first",
            "found_kept_no": "twin/9",
            "before_kept_no": "twin/8",
            "before_kept_tokens_total": "twin/8",
        },
    ),
    of_entry("verify.job_of_entry", "live", "twin/10"),
    of_entry("verify.job_of_entry", "twin", "twin/9"),
    of_entry(
        *("verify.job_of_entry", "twin", "twin/10"),
        {"compaction_id": "twin-first", "found_kept_no": None, "before_kept_no": None},
        given=without("entry"),
    ),
    of_entry(
        *("verify.before_compaction", "twin-reset", "twin-reset/6"),
        {"boundary_no": "twin-reset/4", "first_kept_no": "twin-reset/2"},
    ),
    of_entry("verify.before_compaction", "live-reset", "twin-reset/6"),
    of_entry("verify.before_compaction", "twin-reset", "twin-reset/5"),
    after_epoch("twin", 0, "twin/18", what="the first of several", next_="twin/10"),
    after_epoch("twin", 0, "twin/10", what="that is the head", next_="twin/10"),
    after_epoch("twin", 0, "twin/9", what="none behind the head", next_=None),
    after_epoch("twin", 1, "twin/18", what="none of another branch", next_=None),
    after_epoch("twin-reset", 1, "twin-reset/7", what="of a reset", next_="twin-reset/6"),
    Read(
        "verify.after_epoch",
        "of no switch of branches",
        lambda w: of_session("twin", epoch=2, head_no=w.no("entry twin/18"))(w),
        [],
        lambda w, _tx: w.connection.execute(
            "UPDATE epoch SET closed_head_no = ? WHERE session_no = ? AND epoch = 2",
            (w.no("entry twin/17"), w.no("session twin")),
        ),
    ),
    Read(
        "verify.first_receipt",
        "of two",
        of_session("import-work"),
        [{"import_file_no": "west/clean.jsonl", "session_id": "import-work"}],
    ),
    Read(
        "verify.first_receipt",
        "with the last entry that an early line became",
        of_session("import-odd"),
        [{"import_file_no": "main/odd.jsonl", "placed_seq": 2}],
        early_lines_of_odd,
    ),
    Read(
        "verify.receipts",
        "with the last entry that an early line became",
        receipt("main/odd.jsonl", "import-odd"),
        [{"import_file_no": "main/odd.jsonl", "placed_seq": 2}],
        early_lines_of_odd,
    ),
    Read(
        "verify.first_receipt",
        "without early lines, beside a file with some",
        of_session("import-torn"),
        [{"import_file_no": "west/odd.jsonl", "placed_seq": 0}],
        early_lines_of_odd,
    ),
    Read(
        "verify.import_files",
        "whose early line is placed once more",
        lambda w: {"after_no": w.no("import_file main/odd.jsonl") - 1, "limit": 1},
        [{"session_id": "import-odd", "found_quarantined": 6}],
        early_lines_of_odd,
    ),
    Read(
        "verify.receipts",
        "one, and the other of its session",
        receipt("west/clean.jsonl.link", "import-work"),
        [
            {"import_file_no": "west/clean.jsonl", "archived_at_ms": 5},
            {"import_file_no": "west/clean.jsonl.link", "archived_at_ms": 5},
        ],
        set_columns("session import-work", archived_at_ms=5),
    ),
    Read(
        "verify.receipts",
        "of an index",
        receipt("main/sessions.json", None),
        [{"import_file_no": "main/sessions.json", "archived_at_ms": None}],
    ),
    Read(
        "verify.index",
        "one of two",
        lambda w: {"import_file_no": w.no("import_file west/sessions.json")},
        lambda w: [
            {
                "path": "/imports/west/sessions.json",
                "state": "done",
                "head_byte": None,
                "size": w.row("import_file west/sessions.json")["bytes"],
                "content": w.row("import_file west/sessions.json")["content"],
            }
        ],
    ),
    Read(
        "verify.index",
        "no transcript",
        lambda w: {"import_file_no": w.no("import_file west/clean.jsonl")},
        [],
    ),
]
READS = [
    *MARKED,
    *WALKS,
    Read("verify.cursors", "none", {"limit": 9}, []),
    Read(
        "verify.cursors",
        "one of two",
        {"limit": 9},
        lambda w: [{"consumer": "web", "event_no": 100_000, "last_no": last_event(w)}],
        move_cursor,
    ),
    Read("verify.cursors", "at the last event", {"limit": 9}, [], at_the_last_event),
    Read(
        "verify.cursors",
        "of a file that had no event",
        {"limit": 1},
        [{"last_no": 0}],
        lambda w, _tx: w.connection.execute("DELETE FROM sqlite_sequence WHERE name = 'event'"),
    ),
    Read("verify.foreign_keys", "none", {"limit": 9}, []),
    Read(
        "verify.foreign_keys",
        "two of many",
        {"limit": 9},
        [{"table_name": "binding", "parent_name": "session"}] * 2,
        lose,
    ),
    Read(
        "verify.foreign_keys",
        "at most one",
        {"limit": 1},
        [{"table_name": "binding"}],
        lose,
    ),
    Read(
        "verify.last_session",
        "the newest",
        {},
        lambda w: [
            {
                "session_no": max(w.rows("session"), key=lambda x: x[1]["session_no"])[1][
                    "session_id"
                ]
            }
        ],
    ),
    Read(
        "verify.next_session",
        "behind one",
        lambda w: {"after_no": w.no("session live")},
        [{"session_no": "live-fork"}],
    ),
    Read(
        "verify.last_owner",
        "of the highest entry",
        {},
        lambda w: [{"owner_no": max(row["entry_no"] for _, row in w.rows("entry")) >> 32}],
    ),
    Read(
        "verify.next_owner",
        "behind one",
        lambda w: {"after_entry_no": w.no("entry live/18")},
        lambda w: [{"owner_no": w.no("session live-fork")}],
    ),
    Read(
        "verify.exists",
        "an archived one",
        of_session("old"),
        lambda w: [{"archived_at_ms": w.row("session old")["archived_at_ms"]}],
    ),
    Read(
        "verify.archive",
        "that is not restored, with its rows",
        of_session("old"),
        lambda w: [
            {
                "archive_no": "old/3",
                "state": "archived",
                "found_rows": w.row("archive old/3")["rows"],
            }
        ],
    ),
    Read("verify.archive", "of no other", of_session("live"), []),
    Read("verify.archive_of_parent", "a fork's", of_session("child"), [{"archive_no": "parent/6"}]),
    Read(
        "verify.archive_of_parent",
        "that is not restored",
        of_session("child"),
        [{"archive_no": "old/3"}],
        set_columns("session child", forked_from_no="session old"),
    ),
    Read("verify.last_session", "of none", {}, [{"session_no": "no 0"}], without("session")),
    Read("verify.last_owner", "of none", {}, [{"owner_no": 0}], without("entry")),
    Read("verify.archive_of_parent", "none", of_session("twin-fork"), []),
    Read(
        "verify.session",
        "one of two that are alike",
        lambda w: {**span("twin")(w), **of_session("twin")(w)},
        lambda w: [
            {
                "session_no": "twin",
                "header_type": "session",
                "last_no": w.no("entry twin/18"),
                "found_head_no": w.no("entry twin/18"),
                "head_branch_no": w.no("branch twin/17"),
                "head_tokens_total": w.row("entry twin/18")["tokens_total"],
                "head_boundary_no": w.no("entry twin/10"),
                "after_head_no": None,
                "found_boundary_no": w.no("entry twin/10"),
                "boundary_type": "compaction",
                "boundary_branch_no": w.no("branch twin/1"),
                "boundary_tokens": w.row("entry twin/10")["tokens"],
                "boundary_tokens_total": w.row("entry twin/10")["tokens_total"],
                "found_kept_no": w.no("entry twin/9"),
                "before_kept_tokens_total": w.row("entry twin/8")["tokens_total"],
                "last_epoch": 2,
                "open_epoch": 2,
                "open_closed_at_ms": None,
                "open_boundary_no": w.no("entry twin/10"),
                "open_first_kept_no": w.no("entry twin/9"),
                "running": 0,
            }
        ],
    ),
    Read(
        "verify.session",
        "with a running job",
        lambda w: {**span("job-busy")(w), **of_session("job-busy")(w)},
        [{"session_no": "job-busy", "running": 1, "boundary_type": None}],
    ),
    Read(
        "verify.session",
        "both ends of its numbers",
        lambda w: {**span("twin", 0, 18)(w), **of_session("twin")(w)},
        lambda w: [{"last_no": w.no("entry twin/18"), "after_head_no": w.no("entry twin/18")}],
        set_columns("session twin", head_no="entry twin/17"),
    ),
    Read(
        "verify.session",
        "that has a header only",
        lambda w: {**span("twin-ended")(w), **of_session("twin-ended")(w)},
        lambda w: [{"last_no": w.no("entry twin-ended/0"), "last_epoch": 0}],
    ),
    *(
        Read(
            "verify.session",
            f"whose head is entry {head}, before others of its branch",
            lambda w: {**span("twin")(w), **of_session("twin")(w)},
            lambda w, after=after: [{"after_head_no": w.no(f"entry twin/{after}")}],
            set_columns("session twin", head_no=f"entry twin/{head}", branch_no="branch twin/1"),
        )
        for head, after in ((10, 11), (13, 15))
    ),
    *(
        Read(
            "verify.session",
            f"without any {table}",
            lambda w: {**span("twin")(w), **of_session("twin")(w)},
            [{"session_no": "twin", **dict.fromkeys(columns)}],
            without(table),
        )
        for table, columns in (
            ("entry", ("header_type", "last_no", "found_head_no", "boundary_type")),
            ("epoch", ("last_epoch", "open_epoch")),
        )
    ),
    Read(
        "verify.successor",
        "of a context that kept entries",
        lambda w: {"inbox_no": w.no("inbox held-too")},
        lambda w: [
            {
                "session_no": "held-too",
                "state": "claimed",
                "turn_no": "held-too#1",
                "entry_no": "held-too/1",
                "turn_state": "running",
                "boundary_no": "twin/10",
                "first_kept_no": "twin/9",
            }
        ],
        set_columns("entry held-too/1", boundary_no="entry twin/10"),
    ),
    Read(
        "verify.successor",
        "that waits",
        lambda w: {"inbox_no": w.no("inbox told")},
        [{"session_no": "told", "turn_no": None, "turn_state": None, "branch_no": None}],
    ),
    entry(
        "twin/15",
        found_parent_no="twin/13",
        previous_no="twin/13",
        parent_position=13,
    ),
    entry("twin/14", previous_no=None, parent_position=13),
    entry("twin/1", found_parent_no=None, previous_no=None, first_no="twin/1"),
    entry("twin/17", found_parent_no="twin/11", previous_no=None, first_no="twin/17"),
    entry("twin/18", found_parent_no="twin/17", previous_no="twin/17", first_no="twin/17"),
    entry("twin-fork/1", found_parent_no="twin/18", previous_no=None),
    Read(
        "verify.payloads",
        "both ends of a range",
        span("twin", 3, 4),
        lambda w: [
            {"entry_no": f"twin/{seq}", "payload": w.row(f"entry twin/{seq}")["payload"].encode()}
            for seq in (3, 4)
        ],
    ),
    Read(
        "verify.path_payloads",
        "of one branch, both ends",
        lambda w: {
            **span("twin", 3, 17, limit=9)(w),
            "branch_no": w.row("entry twin/17")["branch_no"],
        },
        lambda w: [
            {"entry_no": "twin/17", "payload": w.row("entry twin/17")["payload"].encode()},
        ],
    ),
    Read(
        "verify.place",
        "one entry",
        lambda w: {"entry_no": w.no("entry twin/17")},
        [{"entry_no": "twin/17", "branch_no": "twin/17"}],
    ),
    Read(
        "verify.control_record",
        "of its session",
        lambda w: of_session("twin", entry_id=w.row("entry twin/16")["entry_id"])(w),
        [{"entry_no": "twin/16"}],
    ),
    Read(
        "verify.control_record",
        "no entry of the tree",
        lambda w: of_session("twin", entry_id=w.row("entry twin/15")["entry_id"])(w),
        [],
    ),
    Read(
        "verify.control_record",
        "of no other session",
        lambda w: of_session("live", entry_id=w.row("entry twin/16")["entry_id"])(w),
        [],
    ),
    Read(
        "verify.reopened_at",
        "not at the head of another session's epoch",
        of_session("twin-undone", boundary_no=None, head_no=None),
        [],
        lambda w, _tx: w.connection.execute(
            "UPDATE epoch SET closed_head_no = NULL WHERE session_no = ? AND epoch = 1",
            (w.no("session live-undone"),),
        ),
    ),
    *(
        Read(
            "verify.reopened_at",
            what,
            lambda w, name=name, boundary=boundary, head=head: of_session(
                name,
                boundary_no=w.no(f"entry {boundary}") if boundary else None,
                head_no=w.no(f"entry {head}") if head else None,
            )(w),
            [{"epoch": epoch}] if epoch is not None else [],
        )
        for what, name, boundary, head, epoch in (
            ("an undo", "twin-undone", None, "twin-undone/5", 2),
            ("an undo at another head", "twin-undone", None, "twin-undone/4", None),
            ("an undo before any entry", "twin-undone", None, None, None),
            ("a fork", "twin-fork", "twin/10", "twin/18", 0),
            ("a fork to another boundary", "twin-fork", None, "twin/18", None),
            ("a switch of branches", "twin", "twin/10", "twin/15", 2),
            ("neither", "twin", "twin/9", "twin/15", None),
        )
    ),
    *(
        Read(
            "verify.last_usage",
            f"of {branch} from {low} to {high} since {boundary}",
            lambda w, branch=branch, low=low, high=high, boundary=boundary: {
                **span("twin", low, high)(w),
                "branch_no": w.no(f"branch {branch}"),
                "boundary_no": w.no(f"entry {boundary}") if boundary else None,
            },
            [{"entry_no": found}] if found else [],
        )
        for branch, low, high, boundary, found in (
            ("twin/1", 1, 18, "twin/10", "twin/15"),
            ("twin/1", 1, 18, None, "twin/9"),
            ("twin/1", 15, 15, "twin/10", "twin/15"),
            ("twin/1", 1, 8, None, "twin/4"),
            ("twin/1", 1, 3, None, None),
            ("twin/17", 1, 18, "twin/10", "twin/18"),
        )
    ),
    Read(
        "verify.compactions",
        "with what it committed",
        of_session("twin", after_no=0, limit=9),
        lambda w: [
            {
                "compaction_id": "twin-first",
                "session_epoch": 2,
                "found_entry_no": w.no("entry twin/10"),
                "entry_type": "compaction",
                "cut_branch_no": w.no("branch twin/1"),
                "epoch_reason": "compaction",
                "epoch_boundary_no": w.no("entry twin/10"),
            }
        ],
    ),
    Read(
        "verify.inbox",
        "with its turn and its entry",
        lambda w: {"after_no": w.no("inbox held-too") - 1, "limit": 1},
        lambda w: [
            {
                "inbox_no": "held-too",
                "session_id": "held-too",
                "turn_state": "running",
                "turn_inbox_no": w.no("inbox held-too"),
                "has_text": 0,
                "is_json": 0,
                "found_type": "message",
            }
        ],
    ),
    Read(
        "verify.inbox",
        "that waits",
        lambda w: {"after_no": w.no("inbox told") - 1, "limit": 1},
        [
            {
                "inbox_no": "told",
                "session_id": "told",
                "turn_state": None,
                "found_type": None,
                "has_text": 1,
                "is_json": 1,
            }
        ],
    ),
    Read(
        "verify.inbox",
        "whose sender was told of its end",
        lambda w: {"after_no": w.no("inbox dead-too") - 1, "limit": 1},
        lambda w: [
            {
                "inbox_no": "dead-too",
                "told_kind": "message_dead",
                "told_audience": "user",
                "told_session_no": w.no("session dead-too"),
                "told_inbox_no": w.no("inbox dead-too"),
            }
        ],
    ),
    Read(
        "verify.turns",
        "that runs, behind another of its session",
        lambda w: {"after_no": w.no("turn resuming#2") - 1, "limit": 1},
        [{"turn_no": "resuming#2", "running": 1}],
    ),
    Read(
        "verify.turns",
        "that runs",
        lambda w: {"after_no": w.no("turn held-too#1") - 1, "limit": 1},
        [
            {
                "turn_no": "held-too#1",
                "session_id": "held-too",
                "inbox_state": "claimed",
                "running": 1,
            }
        ],
    ),
    Read(
        "verify.turns",
        "that ended",
        lambda w: {"after_no": w.no("turn done#1") - 1, "limit": 1},
        [{"turn_no": "done#1", "inbox_state": "done", "running": 0}],
    ),
    Read(
        "verify.outbox",
        "with its turn",
        lambda w: {"after_no": w.no("outbox telegram:sent") - 1, "limit": 1},
        [{"outbox_no": "telegram:sent", "session_id": "sent-too", "turn_state": "completed"}],
    ),
    Read(
        "verify.import_files",
        "without a quarantined line, beside others",
        lambda w: {"after_no": w.no("import_file main/clean.jsonl") - 1, "limit": 1},
        [{"session_id": "import-clean", "found_quarantined": 0, "last_line": None}],
    ),
    *(
        Read(
            "verify.inbox",
            f"whose event says {data}, which names no message",
            lambda w: {"after_no": w.no("inbox dead-too") - 1, "limit": 1},
            [{"inbox_no": "dead-too", "told_kind": "message_dead", "told_inbox_no": 0}],
            lambda w, _tx, data=data: w.connection.execute(
                "PRAGMA ignore_check_constraints = on;"
                " UPDATE event SET data = ? WHERE event_no = ?;"
                " PRAGMA ignore_check_constraints = off",
                (data, w.row("inbox dead-too")["told_no"]),
            ).fetchall(),
        )
        for data in ("{}", "{torn")
    ),
    Read(
        "verify.import_files",
        "with its quarantined lines",
        lambda w: {"after_no": w.no("import_file main/odd.jsonl") - 1, "limit": 1},
        [{"session_id": "import-odd", "found_quarantined": 3, "last_line": 6}],
    ),
]

"""Cases of queries/search.sql.

The tables of FTS5 are no rows of the world. `tests/transcript/test_search.py` asks what is in them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tests.support.statement_cases import (
    Change,
    Given,
    Guard,
    Page,
    Read,
    nothing,
    set_columns,
)
from tests.support.world import Changes, Recorder, Row, World
from tests.support.world_build import NOW

FIRST = "session twin"
BEGUN = ("twin", "live")
"""The sessions that the index knows. None of their entries is there yet."""


def begin(_world: World, tx: Recorder) -> None:
    """Build an index anew, which is empty."""
    tx.run("search.end")
    tx.run("search.forget_sessions")
    tx.run("search.begin", now_ms=NOW + 1)


def built(world: World, tx: Recorder) -> None:
    """Put everything there."""
    begin(world, tx)
    for row in tx.all("search.behind", limit=500):
        low_no, last_no = row.session_no << 32, row.session_no << 32 | row.last_seq
        tx.run("search.put", after_no=low_no, last_no=last_no)
        tx.run("search.advance", session_no=row.session_no, after_no=low_no, indexed_no=last_no)
        tx.run("search.mark_whole", session_no=row.session_no, indexed_no=last_no)


def with_entries(world: World) -> list[tuple[str, Row]]:
    """Return the sessions that can be searched and have entries, newest first."""
    found = [
        (label, row)
        for label, row in world.rows("session")
        if row["archived_at_ms"] is None and row["last_seq"] > 0
    ]
    return sorted(found, key=lambda one: -one[1]["session_no"])


def progress(world: World, label: str, after: int = 0, back: int = 0) -> Row:
    """Return the row that says how far a session is in the index."""
    row = world.row(label)
    low_no = row["session_no"] << 32
    return {"after_no": low_no + after, "indexed_no": low_no + row["last_seq"] - back}


def all_progress(world: World) -> Changes:
    found: Changes = {}
    for label, _ in with_entries(world):
        name = label.partition(" ")[2]
        row = progress(world, label)
        if name in BEGUN:
            found[f"search_session {name}"] = {"indexed_no": row["indexed_no"]}
        else:
            found[f"+search_session {name}"] = row
    return found


def whole(world: World) -> Changes:
    return {label: {"search_behind": 0} for label, _ in with_entries(world)}


def then(statement: str, *, full: bool = True, **values: Any) -> Any:
    """Return a rule that builds the index, and runs a statement for one session."""

    def rule(world: World, tx: Recorder) -> None:
        (built if full else begin)(world, tx)
        number = world.no(FIRST)
        params = {"session_no": number} if "session_no" in values else {}
        numbers = {
            name: number << 32 | value for name, value in values.items() if name.endswith("_no")
        } | params
        others = {name: value for name, value in values.items() if not name.endswith("_no")}
        tx.run(statement, **numbers, **others)

    return rule


STATE: Changes = {"search_state 1": {"built_at_ms": NOW + 1}}
HERE = "search_session twin"
EMPTY: Changes = {**STATE, **{f"-search_session {name}": {} for name in BEGUN}}


def with_state(world: World) -> Changes:
    return {**all_progress(world), **whole(world), **STATE}


def without_first(world: World) -> Changes:
    return {name: row for name, row in with_state(world).items() if name != HERE} | {f"-{HERE}": {}}


def after_first(world: World) -> Changes:
    return {**with_state(world), HERE: progress(world, FIRST, after=1)}


def less_far(world: World) -> Changes:
    far = progress(world, FIRST, back=1)["indexed_no"]
    return {**with_state(world), HERE: {"indexed_no": far}}


def advance_less(world: World, tx: Recorder) -> None:
    built(world, tx)
    number = world.no(FIRST)
    last_no = (number << 32) + world.row(FIRST)["last_seq"] - 1
    tx.run("search.advance", session_no=number, after_no=7, indexed_no=last_no)


def ended(world: World) -> Changes:
    return {**all_progress(world), **whole(world), "-search_state 1": {}}


def one_behind(world: World) -> Changes:
    return {label: row for label, row in with_state(world).items() if label != FIRST}


def mark_two(world: World, tx: Recorder) -> None:
    begin(world, tx)
    for name, back in (("twin", 1), ("live", 0)):
        row = world.row(f"session {name}")
        number = row["session_no"]
        tx.run(
            "search.mark_whole",
            session_no=number,
            indexed_no=(number << 32) + row["last_seq"] - back,
        )


def purge_twice(world: World, tx: Recorder) -> None:
    begin(world, tx)
    tx.run("search.ask_purge")
    tx.run("search.end_purge")


CHANGES = [
    Change("search.begin", "once", begin, EMPTY),
    Change("search.put", "everything that can be searched", built, with_state),
    Change("search.advance", "in the place of another number", advance_less, less_far),
    Change("search.merge_by_hand", "no row", then("search.merge_by_hand", full=False), EMPTY),
    Change("search.merge", "no row", then("search.merge", pages=9), with_state),
    Change("search.merge_all", "no row", then("search.merge_all", pages=9), with_state),
    Change("search.empty", "no row", then("search.empty"), with_state),
    Change(
        "search.forget_sessions",
        "of all",
        then("search.forget_sessions"),
        lambda w: {**EMPTY, **whole(w)},
    ),
    Change("search.mark_behind", "of one", then("search.mark_behind", session_no=0), one_behind),
    Change(
        "search.mark_all_behind",
        "of all that have entries",
        then("search.mark_all_behind"),
        lambda w: {**all_progress(w), **STATE},
    ),
    Change(
        "search.mark_whole",
        "where the last entry is there",
        mark_two,
        {**EMPTY, "session live": {"search_behind": 0}},
    ),
    Change("search.end", "the state", then("search.end"), ended),
    Change(
        "search.forget_session",
        "of one",
        then("search.forget_session", session_no=0),
        without_first,
    ),
    Change(
        "search.retreat",
        "of one",
        then("search.retreat", session_no=0, after_no=1),
        after_first,
    ),
    Change("search.take_out", "no row", then("search.take_out", after_no=0, last_no=1), with_state),
    Change(
        "search.ask_purge",
        "the state",
        then("search.ask_purge", full=False),
        {**EMPTY, "search_state 1": {"built_at_ms": NOW + 1, "purging": 1}},
    ),
    Change("search.end_purge", "the state", purge_twice, EMPTY),
]
GUARDS: list[Guard] = []


def cursors(world: World) -> list[Any]:
    return by_number(world.rows("session"))


def by_number(rows: Iterable[tuple[str, Row]]) -> list[Any]:
    found = [(label.partition(" ")[2], row["session_no"]) for label, row in rows]
    return [name for name, _ in sorted(found, key=lambda one: one[1])]


PAGES = [
    Page(
        "search.cursors",
        {"after_session_no": 0},
        lambda row: {"after_session_no": row.session_no},
        "session_no",
        cursors,
        given=built,
    ),
]

# What a search for `WORDS` finds: two sessions of two agents say the same.
WORDS = "name OR one"
HITS = ("twin/12", "twin/3", "live/12", "live/3")


def snippet(place: str) -> bytes:
    session_id, _, seq = place.partition("/")
    if seq == "12":
        return f"\2name\3 of {session_id}".encode()
    return f"{session_id} one".ljust(200).replace("one", "\2one\3").encode()


def imported(w: World, tx: Recorder) -> None:
    for name in ("live", "twin"):
        set_columns(f"session {name}", origin="import")(w, tx)


def with_files(kind: str) -> Given:
    """Let both sessions be of files. That of `live` is of a kind."""

    def give(w: World, tx: Recorder) -> None:
        imported(w, tx)
        for label, columns in (
            ("import_file main/clean.jsonl", {"session_no": "session live", "kind": kind}),
            ("import_file west/clean.jsonl", {"session_no": "session twin"}),
        ):
            set_columns(label, **columns)(w, tx)

    return give


def alike(place: str, *columns: str) -> Given:
    """Let an entry that is found have columns of the message `live/3`."""

    def give(w: World, tx: Recorder) -> None:
        imported(w, tx)
        row = w.row("entry live/3")
        kind = {"type": "message", "role": "user"} if "payload" in columns else {}
        values = kind | {column: row[column] for column in columns}
        set_columns(f"entry {place}", **values)(w, tx)

    return give


def filtered(
    what: str,
    found: Iterable[str],
    filters: Callable[[World], Row] = lambda _w: {},
    given: Given = nothing,
    shown: Mapping[str, bytes] = MappingProxyType({}),
) -> list[Read]:
    """Return both reads of what has the words and is asked for: in the index, and by number."""

    def params(w: World, **more: Any) -> Row:
        asked: Row = dict.fromkeys(("branch_no", "agent_id", "role"))
        return asked | {"since_ms": 0, "checkpoints": 0} | more | filters(w)

    def in_index(w: World) -> Row:
        return params(w, words=WORDS, low_no=0, high_no=2**62, limit=9)

    def by_number(w: World) -> Row:
        return params(w, numbers=json.dumps([w.no(f"entry {place}") for place in HITS]))

    def put(w: World, tx: Recorder) -> None:
        given(w, tx)
        built(w, tx)

    wanted = tuple(found)
    rows = [
        {
            "entry_no": place,
            "content": shown.get(place, snippet(place)) if place in wanted else None,
        }
        for place in HITS
    ]
    return [
        Read("search.matches", what, in_index, rows, put),
        Read("search.described", what, by_number, [{"entry_no": one} for one in wanted], given),
    ]


COPY = {"live/12": snippet("live/3")}
COPY_ELSEWHERE = {"twin/3": snippet("live/3")}
FOUND = [
    *filtered("all", HITS),
    *filtered("of a branch", HITS[:2], lambda w: {"branch_no": w.no("branch twin/1")}),
    *filtered("of an agent", HITS[2:], lambda _w: {"agent_id": "main"}),
    *filtered("of a role", HITS[1::2], lambda _w: {"role": "user"}),
    *filtered("of a type", HITS[::2], lambda _w: {"role": "session_info"}),
    *filtered(
        "since a time",
        HITS[:2],
        lambda w: {"since_ms": w.row("entry twin/3")["appended_at_ms"]},
    ),
    *filtered("no checkpoint", HITS[:2], given=with_files("checkpoint")),
    *filtered("and a checkpoint", HITS, lambda _w: {"checkpoints": 1}, with_files("checkpoint")),
    *filtered("of files", HITS, given=with_files("live")),
    *filtered(
        "a line that is two entries",
        HITS[:3],
        given=alike("live/12", "entry_id", "payload"),
        shown=COPY,
    ),
    *filtered("two of one id", HITS, given=alike("live/12", "entry_id")),
    *filtered("two that say the same", HITS, given=alike("live/12", "payload"), shown=COPY),
    *filtered(
        "the same in another session",
        HITS,
        given=alike("twin/3", "entry_id", "payload"),
        shown=COPY_ELSEWHERE,
    ),
    Read(
        "search.described",
        "of no session in an archive",
        lambda w: {
            **dict.fromkeys(("branch_no", "agent_id", "role")),
            "since_ms": 0,
            "checkpoints": 0,
            "numbers": json.dumps([w.no(f"entry {place}") for place in HITS]),
        },
        [{"entry_no": place} for place in HITS[2:]],
        set_columns("session twin", archived_at_ms=5),
    ),
]


def archives(what: str, holds: Callable[[World, Row], bool], **filters: Any) -> Read:
    """Return a read of archives. One of their sessions is another agent's."""

    def params(w: World) -> Row:
        values = {"last_no": 2**62, "session_no": None, "agent_id": None, "limit": 99} | filters
        return {
            name: w.no(value) if value in w.before.by_label else value
            for name, value in values.items()
        }

    def rows(w: World) -> list[Row]:
        found = [
            row for _, row in w.rows("archive") if row["state"] == "archived" and holds(w, row)
        ]
        found.sort(key=lambda row: -row["session_no"])
        return [{"session_no": w.before.shown("session_no", row["session_no"])} for row in found]

    given = set_columns("session parent", agent_id="north")
    return Read("search.archives", what, params, rows, given)


def of(name: str) -> Callable[[World, Row], bool]:
    return lambda w, row: row["session_no"] == w.no(f"session {name}")


def documents(world: World) -> list[Row]:
    """Return the entries of a session that have words."""
    low_no = world.no(FIRST) << 32
    rows = world.connection.execute(
        "SELECT entry_no FROM search_text WHERE entry_no > ? AND entry_no < ? AND text <> ''",
        (low_no, low_no + 19),
    ).fetchall()
    assert 5 < len(rows) < 18  # some have none
    return [{"document_no": number, "entry_no": world.before.entry(number)} for (number,) in rows]


READS = [
    *FOUND,
    archives("all", lambda _w, _row: True),
    archives("of one session", of("child"), session_no="session child"),
    archives("of one agent", of("parent"), agent_id="north"),
    archives(
        "up to a session",
        lambda w, row: row["session_no"] <= w.no("session child"),
        last_no="session child",
    ),
    Read(
        "search.documents",
        "of entries that have words",
        lambda w: {"after_no": w.no(FIRST) << 32, "limit": len(documents(w))},
        documents,
        built,
    ),
    Read(
        "search.documents",
        "behind an entry, and up to one",
        {"after_no": 0, "limit": 9},
        [{"entry_no": "twin/12"}],
        lambda w, tx: [
            begin(w, tx),
            tx.run("search.put", after_no=w.no("entry twin/11"), last_no=w.no("entry twin/12")),
        ],
    ),
    Read(
        "search.missing",
        "first ones first",
        lambda w: {"after_no": w.no("entry twin/3"), "last_no": w.no("entry twin/8"), "limit": 2},
        [{"entry_no": "twin/4"}, {"entry_no": "twin/5"}],
        begin,
    ),
    Read("search.any_match", "nothing, whatever has the words", {"words": WORDS}, [], built),
    Read("search.state", "its row", {}, [{"built_at_ms": NOW, "purging": 0}]),
    Read("search.state", "no index", {}, [], given=lambda _w, tx: tx.run("search.end")),
    Read("search.parts", "none", {}, [{"parts": 0}]),
    Read("search.parts", "more than one", {}, [{"parts": 2}], given=built),
    Read(
        "search.count_behind",
        "everything",
        {},
        lambda w: [{"behind": total(w)}],
    ),
    Read(
        "search.count_behind",
        "nothing",
        {},
        [{"behind": 0}],
        given=built,
    ),
    Read("search.count_entries", "everything", {}, lambda w: [{"entries": total(w)}], given=built),
    Read(
        "search.behind",
        "the newest first",
        {"limit": 3},
        lambda w: [{"session_no": name} for name in by_number(with_entries(w))[:-4:-1]],
    ),
    Read(
        "search.behind",
        "one that is marked",
        {"limit": 3},
        [{"session_no": "twin"}],
        given=then("search.mark_behind", session_no=0),
    ),
    Read("search.behind", "none", {"limit": 3}, [], given=built),
]


def total(world: World) -> int:
    return sum(row["last_seq"] for _, row in with_entries(world))

"""Cases of queries/registry.sql."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

from sessiondb.transcript import registry
from sessiondb.transcript.keys import parse_key
from tests.support.statement_cases import Change, Guard, Read
from tests.support.world import Recorder, World
from tests.support.world_build import NOW


def on_session(rule: Callable[..., object], name: str) -> Callable[[World, Recorder], object]:
    return lambda w, tx: rule(tx, w.no(f"session {name}"))


def fork(w: World, tx: Recorder) -> None:
    registry.fork(
        tx,
        w.no("session twin"),
        session_id="new",
        entry=None,
        epoch=1,
        key=parse_key("agent:main:new"),
        cwd=None,
    )


def bind(key: str, name: str, details: str | None = None) -> Callable[[World, Recorder], object]:
    return lambda w, tx: registry.bind_imported(
        tx, parse_key(key), w.no(f"session {name}"), details
    )


CHANGES = [
    Change(
        "registry.set_formats",
        "of one session",
        lambda w, tx: tx.run("registry.set_formats", session_no=w.no("session twin"), formats=4),
        {"session twin": {"formats": 4}},
    ),
    Change(
        "registry.insert",
        "a session, its epoch and its header",
        lambda w, tx: registry.create(tx, "new", agent_id="west"),
        {
            "+session new": {
                "session_id": "new",
                "agent_id": "west",
                "origin": "native",
                "version": 3,
                "created_at_ms": NOW,
                "updated_at_ms": NOW,
                "ordered_from_no": 0,
                "open_marks": "",
                "asked_no": 0,
                "search_behind": 0,
            },
            "+epoch new/0": {"reason": "start", "opened_at_ms": NOW},
            "+entry new/0": ANY,
        },
    ),
    Change(
        "registry.insert",
        "a fork, with its key. Its origin stays as it is",
        fork,
        {
            "+session new": {
                "session_id": "new",
                "agent_id": "main",
                "origin": "fork",
                "version": 3,
                "created_at_ms": NOW,
                "updated_at_ms": NOW,
                "head_no": "twin/15",
                "boundary_no": "twin/10",
                "first_kept_no": "twin/9",
                "context_tokens": 701,
                "tokens_fresh": 1,
                "forked_from_no": "twin",
                "forked_at_no": "twin/15",
                "forked_epoch": 1,
                "formats": 1,
                "search_behind": 0,
            },
            "+epoch new/0": {
                "reason": "fork",
                "opened_at_ms": NOW,
                "boundary_no": "twin/10",
                "first_kept_no": "twin/9",
            },
            "+entry new/0": ANY,
            "+binding agent:main:new": {
                "session_no": "new",
                "agent_id": "main",
                "bound_at_ms": NOW,
            },
        },
    ),
    Change(
        "registry.end",
        "one session",
        on_session(registry.end, "twin"),
        {"session twin": {"ended_at_ms": NOW}, "+event session_ended/operator": ANY},
    ),
    Change(
        "registry.end_imported",
        "one session, with its last entry",
        on_session(registry.end_imported, "twin"),
        {"session twin": {"ended_at_ms": NOW - 863_929_000}},
    ),
    Change(
        "registry.reopen_imported",
        "one session that had ended",
        on_session(registry.reopen_imported, "rest"),
        {"session rest": {"ended_at_ms": None}},
    ),
    Change(
        "registry.bind",
        "one key, which moves. What an index recorded stays",
        bind("agent:main:imported:import-odd", "twin"),
        {
            "binding agent:main:imported:import-odd": {
                "session_no": "twin",
                "bound_at_ms": NOW,
            }
        },
    ),
    Change(
        "registry.bind",
        "with what another index records, and of another agent",
        lambda w, tx: tx.run(
            "registry.bind",
            session_key="agent:main:imported:import-odd",
            session_no=w.no("session import-odd"),
            agent_id="west",
            now_ms=NOW,
            details='{"a": 1}',
        ),
        {
            "binding agent:main:imported:import-odd": {
                "agent_id": "west",
                "bound_at_ms": NOW,
                "details": '{"a": 1}',
            }
        },
    ),
    Change(
        "registry.spell",
        "one key of two",
        lambda w, tx: tx.run(
            "registry.spell",
            session_key="agent:main:telegram:LIVE",
            lowered="agent:main:telegram:live",
        ),
        lambda w: {
            "-binding agent:main:telegram:live": {},
            "+binding agent:main:telegram:LIVE": {
                "session_no": "live",
                "agent_id": "main",
                "bound_at_ms": w.row("binding agent:main:telegram:live")["bound_at_ms"],
            },
        },
    ),
    Change(
        "registry.unbind",
        "one key of two",
        lambda w, tx: registry.unbind(tx, parse_key("agent:main:telegram:live")),
        {"-binding agent:main:telegram:live": {}},
    ),
    Change(
        "registry.pin",
        "one session",
        on_session(registry.pin, "twin"),
        {"session twin": {"pinned_at_ms": NOW}},
    ),
    Change("registry.pin", "once", on_session(registry.pin, "twin-undone"), {}),
    Change(
        "registry.unpin",
        "one of two pinned sessions",
        on_session(registry.unpin, "live-undone"),
        {"session live-undone": {"pinned_at_ms": None}},
    ),
]
GUARDS = [
    Guard(
        "registry.reopen_imported",
        "session",
        lambda row: {"session_no": row["session_no"]},
        lambda row: row["ended_at_ms"] is not None and row["archived_at_ms"] is None,
    ),
    Guard(
        "registry.end_imported",
        "session",
        lambda row: {"session_no": row["session_no"]},
        lambda row: row["ended_at_ms"] is None,
    ),
    Guard(
        "registry.end",
        "session",
        lambda row: {"session_no": row["session_no"], "now_ms": NOW},
        lambda row: row["ended_at_ms"] is None,
    ),
]


def info(name: str, **columns: Any) -> list[Read]:
    """Return the read of one session, by its number."""
    row = {"session_no": name, "session_id": name, **columns}
    return [Read("registry.info", name, lambda w: {"session_no": w.no(f"session {name}")}, [row])]


def began(name: str, epoch: str, boundary_no: str | None) -> Read:
    return Read(
        "registry.began",
        name,
        lambda w: {"session_no": w.no(f"session {name}")},
        lambda w: [
            {"opened_at_ms": w.row(f"epoch {epoch}")["opened_at_ms"], "boundary_no": boundary_no}
        ],
    )


READS = [
    Read("registry.by_id", "exactly", {"session_id": "live"}, [{"session_no": "live"}]),
    Read("registry.by_id", "no prefix", {"session_id": "liv"}, []),
    Read(
        "registry.by_key",
        "a bound one",
        {"session_key": "agent:west:web:twin-ended"},
        [
            {
                "session_no": "twin-ended",
                "session_id": "twin-ended",
                "session_key": "agent:west:web:twin-ended",
                "details": None,
            }
        ],
    ),
    Read(
        "registry.by_key",
        "an imported one, with the row of its index",
        {"session_key": "agent:main:imported:import-odd"},
        [{"session_no": "import-odd", "details": '{"sessionId": "x"}'}],
    ),
    Read("registry.by_key", "an unknown one", {"session_key": "agent:main:web:new"}, []),
    *info(
        "live",
        compactions=1,
        keys=json.dumps(["agent:main:telegram:live", "agent:main:web:live"]).replace(", ", ","),
        forked_from=None,
        namespace="app",
        external_id="thread 1",
    ),
    *info("live-fork", compactions=0, keys='["agent:main:fork:live"]', forked_from="live"),
    *info("job-tired", compactions=0, keys='["agent:west:job:tired"]', forked_from=None),
    *info("live-undone", compactions=1, keys="[]", forked_from=None, namespace=None),
    began("live", "live/0", None),
    began("live-reset", "live-reset/1", "live-reset/4"),
    began("live-fork", "live-fork/0", "live/10"),
]

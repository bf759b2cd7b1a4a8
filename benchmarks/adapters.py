"""An adapter beside the framework's own store on disk, in one run.

    make adapters ARGS=--bench

It runs in the environment of each framework that has such a store. A round is a block of the
framework's store, then one of sessiondb. The ratio is the median of the rounds' ratios: below 1
sessiondb is faster. Both write durably: every call that returned is on disk.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import sessiondb
import sessiondb.sync

ROUNDS = 11
CALLS = 20
CALLERS = 16
HISTORY = 500
TEXT = "x" * 1_000

Call = Callable[[], Awaitable[Any]]


async def in_turn(call: Call) -> float:
    """Return the seconds of one call, of many in turn."""
    began = perf_counter()
    for _ in range(CALLS):
        await call()
    return (perf_counter() - began) / CALLS


async def at_once(calls: list[Call]) -> float:
    """Return the seconds of one call, of many callers at once, each with a session of its own."""

    async def several(call: Call) -> None:
        for _ in range(CALLS // 4):
            await call()

    began = perf_counter()
    await asyncio.gather(*(several(call) for call in calls))
    return (perf_counter() - began) / (len(calls) * (CALLS // 4))


async def compare(what: str, own: Callable[[], Any], ours: Callable[[], Any]) -> None:
    """Measure both, interleaved, and print the medians and the ratio."""
    await own(), await ours()  # so that neither pays for the first call
    pairs = [(await own(), await ours()) for _ in range(ROUNDS)]
    theirs = statistics.median(pair[0] for pair in pairs) * 1e6
    mine = statistics.median(pair[1] for pair in pairs) * 1e6
    ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
    print(f"| {what} | {theirs:,.0f} us | {mine:,.0f} us | {ratio:.2f} |")


async def openai_agents(folder: str, db: sessiondb.SessionDB) -> None:
    from agents import SQLiteSession

    from sessiondb.adapters.openai_agents import SessionDBSession

    item: Any = {"role": "user", "content": TEXT}

    def made(make: Callable[[str], Any]) -> tuple[Any, list[Any], Any]:
        return make("one"), [make(str(number)) for number in range(CALLERS)], make("long")

    own = made(lambda name: SQLiteSession(name, f"{folder}/own.db"))
    ours = made(lambda name: SessionDBSession(name, db))
    for sessions in (own, ours):
        await sessions[2].add_items([item] * HISTORY)
    name = "openai-agents, SQLiteSession:"
    await compare(
        f"{name} append, one caller",
        *(
            lambda one=sessions[0]: in_turn(lambda: one.add_items([item]))
            for sessions in (own, ours)
        ),
    )
    await compare(
        f"{name} append, {CALLERS} callers",
        *(
            lambda many=sessions[1]: at_once(
                [lambda each=each: each.add_items([item]) for each in many]
            )
            for sessions in (own, ours)
        ),
    )
    await compare(
        f"{name} read {HISTORY} items",
        *(lambda long=sessions[2]: in_turn(long.get_items) for sessions in (own, ours)),
    )
    for session in (own[0], *own[1], own[2]):
        session.close()


async def google_adk(folder: str, db: sessiondb.SessionDB) -> None:
    from google.adk.events.event import Event
    from google.adk.sessions.sqlite_session_service import SqliteSessionService
    from google.genai import types

    from sessiondb.adapters.google_adk import SessionDBSessionService

    def event() -> Event:
        content = types.Content(role="user", parts=[types.Part(text=TEXT)])
        return Event(author="user", invocation_id="i", content=content)

    measured = []
    for service in (SqliteSessionService(f"{folder}/own.db"), SessionDBSessionService(db)):
        names = ["one", "long"]
        made = [
            await service.create_session(app_name="a", user_id="u", session_id=name)
            for name in names
        ]
        for _ in range(HISTORY):
            await service.append_event(made[-1], event())
        measured.append((service, made))
    name = "google-adk, SqliteSessionService:"
    await compare(
        f"{name} append, one caller",
        *(
            lambda service=service, made=made: in_turn(
                lambda: service.append_event(made[0], event())
            )
            for service, made in measured
        ),
    )
    # Not many callers at once: ADK's service fails then, with "database is locked".
    await compare(
        f"{name} read {HISTORY} events",
        *(
            lambda service=service: in_turn(
                lambda: service.get_session(app_name="a", user_id="u", session_id="long")
            )
            for service, _ in measured
        ),
    )


async def nanobot(folder: str, db: sessiondb.SessionDB) -> None:
    from nanobot.session.manager import JsonlSessionStore, Session

    from sessiondb.adapters.nanobot import SessionDBStore

    with sessiondb.sync.open(f"{folder}/nanobot.db") as blocking:
        stores = (
            JsonlSessionStore(Path(folder) / "workspace", sessions_root=Path(folder) / "sessions"),
            SessionDBStore(blocking),
        )
        for count in (20, HISTORY, 4 * HISTORY):
            kept = [(store, Session(f"cli:{count}")) for store in stores]
            for store, session in kept:
                for _ in range(count):
                    session.add_message("user", TEXT)
                store.save(session, fsync=True)
            for what, call in (("save", _save_one_more), ("load", _load)):
                await compare(
                    f"nanobot, JSONL files: {what} a session of {count} messages",
                    *(lambda one=one, call=call: in_turn(lambda: call(*one)) for one in kept),
                )


async def _save_one_more(store: Any, session: Any) -> None:
    session.add_message("user", TEXT)
    store.save(session, fsync=True)


async def _load(store: Any, session: Any) -> None:
    store.load(session.key)


MEASURES = {"openai-agents": openai_agents, "google-adk": google_adk, "nanobot": nanobot}


async def main(framework: str) -> None:
    """Compare one framework's store with its adapter."""
    with tempfile.TemporaryDirectory() as folder:
        async with sessiondb.open(f"{folder}/ours.db") as db:
            await MEASURES[framework](folder, db)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

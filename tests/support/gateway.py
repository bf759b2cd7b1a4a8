"""What the gateway's tests share: turns step by step, loops until a condition, raw rows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb import events
from sessiondb.backend import Tx
from sessiondb.clock import stamp_ms
from sessiondb.gateway import claims, heard, turns
from sessiondb.gateway.running_turn import Answer, Turn
from sessiondb.sqlite import transaction, writer
from sessiondb.sqlite.transaction import Prepared
from sessiondb.transcript.entries import prepare
from tests.support.core import reply, user
from tests.support.engine import PATIENCE_S

KEY = "agent:main:web:1"
LEASE_MS, TIMEOUT_MS = 30_000, 600_000

LOOK = {
    "look.inbox": """
        SELECT inbox_no, event_id, lane, lane_before, state, attempts, turn_no, entry_no,
               available_at_ms, queued_at_ms, waits, delayed, timeout_ms, superseded_by, told_no,
               reason
        FROM inbox ORDER BY inbox_no""",
    "look.turns": """
        SELECT turn_no, session_no, lane, kind, state, inbox_no, attempt, operation, instance_no,
               started_at_ms, expires_at_ms, deadline_ms, incomplete, reason
        FROM turn ORDER BY turn_no""",
    "look.outbox": """
        SELECT outbox_no, session_no, target, state, attempts, receipt, reason, payload,
               available_at_ms, waits
        FROM outbox ORDER BY outbox_no""",
    "look.pauses": "SELECT channel, pauses, until_ms FROM channel_pause ORDER BY channel",
    "look.reply": "SELECT attempts FROM outbox WHERE outbox_no = :outbox_no",
    # Without those of work that goes as it should, which are many. `look.facts` has all.
    "look.events": """
        SELECT event_no, kind, audience, session_no, text, data FROM event
        WHERE kind NOT IN ('turn_started', 'turn_completed', 'reply_sent', 'session_reset',
                           'session_ended', 'lane_changed')
        ORDER BY event_no""",
    "look.facts": """
        SELECT event_no, kind, audience, session_no, text, data FROM event ORDER BY event_no""",
    "look.cursors": "SELECT consumer, event_no FROM event_cursor ORDER BY consumer",
    "look.user_entries": """
        SELECT entry_no >> 32 AS session_no, idempotency_key, payload
        FROM entry WHERE role = 'user' ORDER BY entry_no""",
    "look.dead_process": """
        INSERT INTO instance
            (host, boot_id, pid, pid_started, program, opened_at_ms, closed_at_ms, unclean)
        VALUES (:host, :boot_id, 1, 1, 'gone', :now_ms, :closed_at_ms, :unclean)
        RETURNING instance_no""",
    "look.rename_processes": "UPDATE instance SET program = :program WHERE unclean = 1",
    "look.hurry": """
        UPDATE inbox SET available_at_ms = 0, queued_at_ms = 0 WHERE state = 'queued'""",
    "look.hurry_replies": "UPDATE outbox SET available_at_ms = 0 WHERE state = 'pending'",
    "look.requeue": "UPDATE inbox SET state = 'queued'",
    "look.requeue_interrupted": "UPDATE inbox SET state = 'queued' WHERE state = 'interrupted'",
    "look.move_turn": "UPDATE turn SET instance_no = :instance_no WHERE turn_no = :turn_no",
    "look.move_reply": "UPDATE outbox SET instance_no = :instance_no WHERE outbox_no = :outbox_no",
    "look.move_compaction": """
        UPDATE compaction SET instance_no = :instance_no WHERE state = 'running'""",
}
transaction.statements().update({name: Prepared(name, sql) for name, sql in LOOK.items()})


def put_statement(patch: pytest.MonkeyPatch, name: str, sql: str) -> None:
    """Put another text in the place of a named statement. Its callers stay as they are."""
    known = transaction.statements()
    replaced = Prepared(name, sql, known[name].changes)
    replaced.parameters = known[name].parameters
    patch.setitem(known, name, replaced)


def change_statement(patch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """Change a part of a named statement."""
    sql = transaction.statements()[name].sql
    assert sql.count(old) == 1, f"{name} has no {old!r}, or several"
    put_statement(patch, name, sql.replace(old, new))


async def look(db: sessiondb.SessionDB, table: str) -> list[Any]:
    """Read a whole small table."""
    return await db.read("look", lambda tx: tx.all(f"look.{table}"))


async def inbox_states(db: sessiondb.SessionDB) -> dict[str, str]:
    """Return the state of each message by its event id."""
    return {row.event_id: row.state for row in await look(db, "inbox")}


async def kinds(db: sessiondb.SessionDB, audience: str | None = None) -> list[str]:
    """Return the kinds of events, oldest first: of those that `look.events` has."""
    return [row.kind for row in await look(db, "events") if audience in (None, row.audience)]


async def read_as(db: sessiondb.SessionDB, *consumers: str) -> None:
    """Make readers of events known, as `db.events` does."""
    for consumer in consumers:
        await db.write("read", partial(events.move_cursor, consumer=consumer, event_no=0))


async def say(
    db: sessiondb.SessionDB,
    event_id: str,
    key: str = KEY,
    *,
    lane: str = "main",
    text: str | None = None,
) -> sessiondb.Accepted:
    """Accept a message."""
    return await db.accept(key, user(text or event_id), channel="web", event_id=event_id, lane=lane)


async def claim(
    db: sessiondb.SessionDB,
    lane: str = "main",
    *,
    lease_ms: int = LEASE_MS,
    timeout_ms: int = TIMEOUT_MS,
) -> claims.Started | None:
    """Claim the next message of a lane, if there is one that may run."""
    candidate = await db.read("peek", lambda tx: claims.peek(tx, lane, writer._now_ms()))
    if candidate is None:
        return None
    draft = await prepare(candidate.payload, now_ms=stamp_ms())
    in_front = await heard.prepare_all(candidate.heard, now_ms=stamp_ms())
    return await db.write(
        "claim",
        lambda tx: claims.claim(
            tx, lane, candidate, draft, in_front, lease_ms=lease_ms, timeout_ms=timeout_ms
        ),
    )


async def claimed(db: sessiondb.SessionDB, lane: str = "main", **options: int) -> claims.Started:
    """Claim the next message of a lane. There is one."""
    started = await claim(db, lane, **options)
    assert started is not None
    return started


async def complete(
    db: sessiondb.SessionDB,
    turn_no: int,
    *texts: str,
    replies: list[tuple[str, str]] | None = None,
    incomplete: str | None = None,
) -> None:
    """End a turn with assistant messages and replies."""
    drafts = [await prepare(reply(text), now_ms=stamp_ms()) for text in texts]
    encoded = [(target, json.dumps(payload)) for target, payload in replies or []]
    await db.write(
        "complete",
        lambda tx: turns.complete(
            tx, turn_no, drafts, encoded, incomplete=incomplete is not None, reason=incomplete
        ),
    )


async def fail(
    db: sessiondb.SessionDB, turn_no: int, reason: str = "no luck", *, retry: bool = True
) -> None:
    """End a turn that went wrong."""
    await db.write("fail", lambda tx: turns.fail(tx, turn_no, reason, retry=retry))


async def interrupt(
    db: sessiondb.SessionDB, turn_no: int, reason: str = "its process died", **options: bool
) -> bool:
    """Take a turn away."""
    return await db.write("interrupt", lambda tx: turns.interrupt(tx, turn_no, reason, **options))


async def held_message(db: sessiondb.SessionDB, event_id: str, key: str = KEY) -> int:
    """Accept a message, claim it, and interrupt its turn: it waits for the resume plan."""
    accepted = await say(db, event_id, key)
    await interrupt(db, (await claimed(db)).turn_no)
    return accepted.inbox_no


async def said(db: sessiondb.SessionDB, key: str) -> list[str]:
    """Return what users said in the context of a session, oldest first."""
    context = await (await db.session(key)).context()
    return [message["content"] for message in context.messages if message["role"] == "user"]


async def reset_context(db: sessiondb.SessionDB, key: str) -> None:
    """Begin a new context."""
    await (await db.session(key)).reset("new")


async def switch_branch(db: sessiondb.SessionDB, key: str) -> None:
    """Go on from the first entry of a session."""
    session = await db.session(key)
    [first] = await session.entries(limit=1)
    await session.branch(first.entry_id)


async def append_another(db: sessiondb.SessionDB, key: str) -> None:
    """Bury what a context has under a later message."""
    await (await db.session(key)).append(user("another"))


async def compact(db: sessiondb.SessionDB, key: str) -> None:
    """Compact a long talk."""
    session = await db.session(key)
    await session.append(reply("long talk " * 4_000))
    async with session.compact(keep_recent_tokens=1) as job:
        await job.commit("they talked")


async def hand_over(db: sessiondb.SessionDB, **fields: Any) -> None:
    """Make another process the holder of everything that runs. It died before a reboot.

    With this boot's id nobody can tell whether it lives: the row names no lock file.
    """
    where = {
        "host": "h",
        "boot_id": "another boot",
        "now_ms": 0,
        "closed_at_ms": None,
        "unclean": 0,
        **fields,
    }

    def body(tx: Tx) -> None:
        row = tx.one("look.dead_process", **where)
        for turn in tx.all("look.turns"):
            tx.run("look.move_turn", turn_no=turn.turn_no, instance_no=row.instance_no)
        for sending in tx.all("look.outbox"):
            tx.run("look.move_reply", outbox_no=sending.outbox_no, instance_no=row.instance_no)
        tx.run("look.move_compaction", instance_no=row.instance_no)

    await db.write("hand over", body)


async def nothing_open(db: sessiondb.SessionDB) -> bool:
    """Tell whether every message is done or dead."""
    return set((await inbox_states(db)).values()) <= {"done", "dead"}


async def was_notified(db: sessiondb.SessionDB, inbox_no: int) -> bool:
    """Tell whether there is an event about a message."""
    return any(json.loads(event.data)["inbox_no"] == inbox_no for event in await look(db, "events"))


def answer(turn: Turn) -> Answer:
    """Answer a message, with an entry and a reply."""
    message = f"re {turn.message['content']}"
    return Answer(entries=[reply(message)], replies=[("web:1", {"text": message})])


async def eventually(
    condition: Callable[[], Awaitable[bool]], *, within_s: float = PATIENCE_S
) -> None:
    """Wait for a state that the loops bring about, and that stays."""
    with anyio.fail_after(within_s):
        while not await condition():  # noqa: ASYNC110  # it is read from the database
            await anyio.sleep(0.005)


@asynccontextmanager
async def running(*loops: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run loops for the length of the block."""
    async with anyio.create_task_group() as group:
        for loop in loops:
            group.start_soon(loop)
        try:
            yield
        finally:
            group.cancel_scope.cancel()


class Clock:
    """The writer's clock, and the loops'. A test moves it."""

    def __init__(self, at_ms: int = 1_800_000_000_000) -> None:
        self.at_ms = at_ms

    def __call__(self) -> int:
        return self.at_ms

    def pass_ms(self, ms: int) -> None:
        self.at_ms += ms

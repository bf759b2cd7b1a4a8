"""What a gateway of the soak does to itself: handlers, senders and operators that give trouble.

Each trouble that comes is said on the pipe (`met`), after it is certain that it was one.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from sessiondb.backend import Tx
from sessiondb.clock import iso_from_ms
from sessiondb.gateway import dead_letters, inbox
from sessiondb.sqlite import transaction
from sessiondb.sqlite.transaction import Prepared
from sessiondb.transcript import registry
from sessiondb.waiter import running_trio
from tests.gateway.test_stray import of_a_group, of_a_scope, of_a_task, of_oneself

from .troubles import BRANCH, REQUEUE, RESET

STATEMENTS = {
    "soak.interrupted": """
        SELECT i.inbox_no, i.session_no, i.entry_no FROM inbox AS i
        WHERE i.state = 'interrupted' OR (i.state = 'queued' AND i.lane = 'resume')
        ORDER BY i.inbox_no""",
    "soak.before": """
        SELECT entry_id FROM entry
        WHERE entry_no > :session_no << 32 AND entry_no < :entry_no AND branch_no IS NOT NULL
        ORDER BY entry_no DESC LIMIT 1 OFFSET :back""",
    "soak.dead_of": "SELECT inbox_no FROM inbox WHERE session_no = :session_no AND state = 'dead'",
}
transaction.statements().update({name: Prepared(name, sql) for name, sql in STATEMENTS.items()})

# As asyncio makes it: a few more than processors, and 32 at most.
DEFAULT_EXECUTOR_THREADS = 32
# Nothing that does not wait for the pool takes so long, however busy the machine is.
POOL_S_MAX = 60.0

NO_ANSWERS: tuple[Callable[[], Any], ...] = (lambda: "an answer", lambda: None, object, dict)
NO_RECEIPTS: tuple[Callable[[], Any], ...] = (lambda: 17, lambda: b"a receipt", object, dict)


async def stray(chance: random.Random) -> None:
    """Let a cancellation out that nobody asked for."""
    ways = [of_a_scope, of_a_group]
    if running_trio() is None:
        ways += [of_a_task, of_oneself]
    await chance.choice(ways)()


async def fill_pool(seconds: float, use: Callable[[], Awaitable[None]]) -> bool:
    """Occupy all threads that are the application's, and use the library meanwhile.

    False if that waits for one of them. Under asyncio both pools are taken: anyio's, and that
    of `asyncio.to_thread`.
    """
    release = threading.Event()
    limiter = anyio.to_thread.current_default_thread_limiter()
    async with anyio.create_task_group() as group:
        for _ in range(int(limiter.total_tokens)):
            group.start_soon(anyio.to_thread.run_sync, release.wait)
        if running_trio() is None:
            for _ in range(DEFAULT_EXECUTOR_THREADS):
                group.start_soon(asyncio.to_thread, release.wait)
        try:
            while limiter.available_tokens:
                await anyio.lowlevel.checkpoint()
            with anyio.move_on_after(POOL_S_MAX) as scope:
                await use()
            await anyio.sleep(seconds)
        finally:
            release.set()
    return not scope.cancelled_caught


def disturb(tx: Tx, seed: int, shares: dict[str, float]) -> tuple[int, list[str]]:
    """Come between interrupted messages and their resumes, as people and operators do.

    Return to how many, and what was done. It is one transaction, so each message was
    interrupted when it was done.
    """
    chance, done = random.Random(seed), []
    interrupted = tx.all("soak.interrupted")
    for row in interrupted:
        for name, do in ((RESET, _reset), (BRANCH, _branch), (REQUEUE, _requeue)):
            if chance.random() < shares.get(name, 0.0):
                do(tx, row, chance)
                done.append(name)
                break
    return len(interrupted), done


def _reset(tx: Tx, row: Any, chance: random.Random) -> None:
    registry.reset(
        tx, row.session_no, reason="new", keep_from=None, timestamp=iso_from_ms(tx.now_ms)
    )


def _branch(tx: Tx, row: Any, chance: random.Random) -> None:
    before = tx.first(
        "soak.before",
        session_no=row.session_no,
        entry_no=row.entry_no,
        back=chance.choice((0, 0, 3)),
    )
    to = before.entry_id if before is not None else None
    registry.branch(tx, row.session_no, to, iso_from_ms(tx.now_ms))


def _requeue(tx: Tx, row: Any, chance: random.Random) -> None:
    """Requeue a dead letter of the session. Or give up the message itself, and requeue it."""
    dead = tx.first("soak.dead_of", session_no=row.session_no)
    if dead is None:
        dead_letters.dead_letter(tx, row.inbox_no, row.session_no, "given up by the soak")
    inbox.requeue(tx, dead.inbox_no if dead is not None else row.inbox_no)

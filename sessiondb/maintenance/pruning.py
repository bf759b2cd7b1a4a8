"""Delete old rows of finished work: sent replies, done messages, ended turns, events.

The conversation stays in the transcripts: these rows only record how it got there.
Unfinished work is never pruned, whatever its age: a waiting message, a dead letter, an
unknown or failed reply. The age is the operator's choice, because two things end with the
rows. A channel that delivers a message again after that time has it accepted again, and a
consumer of events that stays away for that time misses some.

Numbers are never reused and only grow. So each table is walked by number, from its oldest
row until a page has only younger rows. A row dated in the future is none of those: the clock
was ahead for a while, and rows of any age follow. Deletions are steps of background work, and
each checks again whether a row is finished. After a kill, deleted rows stay deleted and the
next run continues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sessiondb.backend import AnyStatement, Backend, ReadTx, Tx
from sessiondb.batching import BatchSize
from sessiondb.json_text import dumps

if TYPE_CHECKING:
    from sessiondb import statements

# The statements that walk a table and delete from it. Messages come before turns, because a
# turn is deleted only when its message is. The walks of all four return the same columns.
TABLES: Final = {
    "outbox": ("pruning.outbox", "pruning.delete_outbox"),
    "inbox": ("pruning.inbox", "pruning.delete_inbox"),
    "turn": ("pruning.turn", "pruning.delete_turn"),
    "event": ("pruning.event", "pruning.delete_event"),
}

_PAGE: Final = 1_000


async def prune(backend: Backend, *, before_ms: int, now_ms: int, dry_run: bool) -> dict[str, int]:
    """Delete finished rows from before a time, and return their number by table.

    Durable, step by step, and may be repeated. A dry run counts the rows, except turns
    whose messages would be deleted first.
    """
    return {
        table: await _prune_table(backend, *statements, (before_ms, now_ms), dry_run=dry_run)
        for table, statements in TABLES.items()
    }


async def _prune_table(
    backend: Backend, walk: str, delete: str, young: tuple[int, int], *, dry_run: bool
) -> int:
    pruned = after_no = 0
    while page := await backend.read(_page(walk, after_no, *young), op="prune.look"):
        numbers = [row.no for row in page if row.prunable]
        pruned += len(numbers) if dry_run else await _delete(backend, delete, numbers)
        if all(row.young for row in page):
            break
        after_no = page[-1].no
    return pruned


async def _delete(backend: Backend, delete: str, numbers: list[int]) -> int:
    deleted, at, batch_size = 0, 0, BatchSize()
    while at < len(numbers):
        step = await backend.step(_deleting(delete, numbers[at : at + batch_size.rows]), op="prune")
        deleted, at = deleted + step.value, at + batch_size.rows
        batch_size.learn(step.held_ms)
    return deleted


def _page(
    walk: str, after_no: int, before_ms: int, now_ms: int
) -> Callable[[ReadTx], list[statements.PruningOutbox]]:
    return lambda tx: tx.all(
        AnyStatement(walk), after_no=after_no, before_ms=before_ms, now_ms=now_ms, limit=_PAGE
    )


def _deleting(delete: str, numbers: list[int]) -> Callable[[Tx], int]:
    listed = dumps(numbers)
    return lambda tx: tx.run(AnyStatement(delete), numbers=listed)

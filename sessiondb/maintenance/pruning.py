"""Rows of finished work, deleted when they are old: sent replies, done messages, ended turns, events.

What was said stays in the transcripts; these rows only tell how it got there. What is not finished is never pruned,
whatever its age: a message that waits, a dead letter, a reply that is unknown or failed. Two things end with the rows, so
their age is the operator's choice: a channel that delivers a message again after so long has it accepted again, and a
consumer of events that stays away for so long has missed some.

Numbers are given out once and only grow, so each table is walked by number, from its oldest row until one page has only
younger rows. Deletions are steps of background work; each asks again whether a row is finished. Killed at any point,
what is deleted is deleted and the next run goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sessiondb.backend import Backend, ReadTx, Row, Tx
from sessiondb.batching import BatchSize
from sessiondb.json_text import dumps

# The statements that walk a table and delete from it. Messages before turns: a turn goes only when its message has gone.
TABLES: Final = {
    "outbox": ("pruning.outbox", "pruning.delete_outbox"),
    "inbox": ("pruning.inbox", "pruning.delete_inbox"),
    "turn": ("pruning.turn", "pruning.delete_turn"),
    "event": ("pruning.event", "pruning.delete_event"),
}

_PAGE: Final = 1_000


async def prune(backend: Backend, *, before_ms: int, dry_run: bool) -> dict[str, int]:
    """Delete finished rows from before a time; return how many of each table. May be repeated.

    A dry run counts them, except turns whose messages would have gone first.
    """
    return {
        table: await _prune_table(backend, *statements, before_ms, dry_run=dry_run)
        for table, statements in TABLES.items()
    }


async def _prune_table(
    backend: Backend, walk: str, delete: str, before_ms: int, *, dry_run: bool
) -> int:
    pruned = after_no = 0
    while page := await backend.read(_page(walk, after_no, before_ms), op="prune.look"):
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


def _page(walk: str, after_no: int, before_ms: int) -> Callable[[ReadTx], list[Row]]:
    return lambda tx: tx.all(walk, after_no=after_no, before_ms=before_ms, limit=_PAGE)


def _deleting(delete: str, numbers: list[int]) -> Callable[[Tx], int]:
    listed = dumps(numbers)
    return lambda tx: tx.run(delete, numbers=listed)

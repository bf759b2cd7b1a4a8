"""The OpenAI Agents SDK's `Session`, on sessiondb.

    async with sessiondb.open("gateway.db") as db:
        session = SessionDBSession("user:42", db)
        result = await Runner.run(agent, "hello", session=session)

Items are stored as they are, in a session of the format `openai-responses`, and come back as they
were added. `add_items` is one durable transaction. What `pop_item` and `clear_session` take away
stays in the database, on a branch and in an earlier epoch. `db.delete` deletes.

A compaction is either sessiondb's (`compact`), or OpenAI's: wrap the session in their
`OpenAIResponsesCompactionSession`. Neither blocks an append. What was appended while the summary
was written follows it. Only their manual `run_compaction` reads the session before the summary and
replaces all that is stored after it, so use `compact` instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sessiondb import (
    CompactionResult,
    Entry,
    HeadMoved,
    Item,
    NotFound,
    Session,
    SessionBusy,
    SessionDB,
)

from . import Needs
from ._shared import PAGE, summarised, walk

with Needs("openai-agents"):
    from agents.items import TResponseInputItem
    from agents.memory.session import _CompactionSnapshot
    from agents.memory.session_settings import (
        SessionSettings,
        coerce_session_settings,
        resolve_session_limit,
    )

__all__ = ["NAMESPACE", "SessionDBSession"]

NAMESPACE = "openai-agents"
"""Under which `db.session_for` finds a session by the SDK's id."""

_SEALED = "sessiondb_sealed"
"""The type of an item that has neither a type nor a role: what `EncryptedSession` stores."""
_BOUNDARIES = ("compaction", "reset")


class SessionDBSession:
    """A session of the OpenAI Agents SDK, in a database that is open."""

    session_settings: SessionSettings | None = None
    _ignore_ids_for_matching = False

    def __init__(
        self,
        session_id: str,
        db: SessionDB,
        *,
        namespace: str = NAMESPACE,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        session: Session | None = None,
    ) -> None:
        """Name a session. It is made when it is first used, if it is new.

        `session` is its handle, where a program has one: `turn.session`, in a gateway's handler.
        """
        self.session_id = session_id
        self.db = db
        self.namespace = namespace
        self.session_settings = coerce_session_settings(session_settings or SessionSettings())
        self._session = session

    async def stored(self) -> Session:
        """Return the handle of the session in the database. Create it if it is new. Durable."""
        if self._session is None:
            self._session = await self.db.session_for(
                self.namespace, self.session_id, format="openai-responses"
            )
        return self._session

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the items of the context, oldest first: all, or the last `limit`.

        With a limit of None that of `session_settings` counts. A compaction's summary is the first
        item.
        """
        limit = resolve_session_limit(limit, self.session_settings)
        if limit == 0:
            return []
        last = limit if limit is not None and 0 < limit <= PAGE else None
        context = await (await self.stored()).context(raw=True, last=last)
        items = [_item(message) for message in context.messages]
        return items[-limit:] if limit is not None and limit > 0 else items

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append items in one transaction, 1,000 at most. Durable. Waits for no compaction."""
        if items:
            await (await self.stored()).append_many([_entry(item) for item in items])

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item off the conversation, and return it. None: there is none. Durable."""
        popped = await (await self.stored()).pop()
        return _item(popped[0].message) if popped else None

    async def clear_session(self) -> None:
        """Begin the conversation anew. Durable. Its items stay in an earlier epoch."""
        await (await self.stored()).reset()

    async def compact(
        self,
        summarize: Callable[[list[TResponseInputItem]], Awaitable[str]],
        **options: Any,
    ) -> CompactionResult:
        """Replace the older items by a summary of them. Items are appended meanwhile.

        `options` and errors are those of `sessiondb.Session.compact`.
        """
        return await summarised(await self.stored(), summarize, _item, options)

    # -- what OpenAIResponsesCompactionSession asks of a store -------------------------------------

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: object = None
    ) -> _CompactionSnapshot:
        """Return the last items, and how to replace the end of them by a compacted form.

        `prune_prefix` tells `EncryptedSession`'s expired items. They need no deletion: it hides
        them from its reads.
        """
        del prune_prefix
        before, tail, complete = await _tail(await self.stored(), limit)

        async def replace_suffix(start: int, output: list[TResponseInputItem]) -> bool:
            if start >= len(tail):
                return False
            after = tail[start - 1] if start else before
            return await self._replace(after, tail[-1], output)

        return _CompactionSnapshot(
            [_item(entry.message) for entry in tail], complete, replace_suffix
        )

    async def _replace(
        self, after: Entry | None, last: Entry, output: list[TResponseInputItem]
    ) -> bool:
        """Put items in the place of all behind `after` up to `last`. What follows it, stays.

        False: the conversation went elsewhere meanwhile, or a turn of a gateway runs in it.
        """
        session = await self.stored()
        while True:
            try:
                later = [entry async for entry in walk(session, after=last)]
                if any(entry.type in _BOUNDARIES for entry in later):
                    return False
                kept = [
                    Item({"type": "message", "message": entry.message}, at_ms=entry.appended_at_ms)
                    for entry in later
                    if entry.type == "message"
                ]
                await session.replace_tail(
                    [*(_entry(item) for item in output), *kept],
                    after=after,
                    expect_head=later[-1] if later else last,
                )
            except HeadMoved:
                continue  # something was appended between the read and the write
            except (NotFound, SessionBusy):
                return False
            return True


def _entry(item: TResponseInputItem) -> dict[str, Any]:
    """Return an item as an entry. An item whose type is one of an entry's stays an item so."""
    is_known = item.get("type") is not None or item.get("role") is not None
    return {"type": "message", "message": item if is_known else {"type": _SEALED, "item": item}}


def _item(message: Any) -> TResponseInputItem:
    """Return an item of a stored message: the opposite of `_entry`."""
    return message["item"] if message.get("type") == _SEALED else message


async def _tail(session: Session, limit: int) -> tuple[Entry | None, list[Entry], bool]:
    """Read the last items since the last boundary, `limit` at most, oldest first.

    Return the entry before them, them, and whether they are the whole conversation.
    """
    tail: list[Entry] = []
    async for entry in walk(session, newest_first=True, page=100):
        if entry.type in _BOUNDARIES or (entry.type == "message" and len(tail) == limit):
            return entry, tail[::-1], entry.type == "reset"
        if entry.type == "message":
            tail.append(entry)
    return None, tail[::-1], True

"""Pydantic AI's `ConversationStore`, on sessiondb.

    async with sessiondb.open("gateway.db") as db:
        store = SessionDBConversationStore(db)
        conversation = await store.load("user:42") or Conversation(conversation_id="user:42")
        result = await agent.run("hello", conversation=conversation)
        await store.save(result)

A conversation is a session, and a fork of one is a fork of the session, which shares its entries.
The record is kept as details of the conversation's id. A save is one transaction: messages, head
and record, or a `ConversationConflict` and nothing. `delete` deletes for good, but for what a fork
shares.

The framework's log only grows. sessiondb's compaction (`compact`) leaves it whole, too, and
`load_compacted` returns the summary beside the messages that are not in it. Saves go on meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sessiondb import CompactionResult, DetailsChanged, Entry, NotFound, Session, SessionDB

from . import Needs
from ._shared import PAGE, summarised, text, tool_result, tool_use, walk

with Needs("pydantic-ai"):
    from pydantic import TypeAdapter
    from pydantic_ai.conversation import Conversation
    from pydantic_ai.conversation_store import (
        ConversationConflict,
        ConversationEntry,
        ConversationRecord,
        ConversationStore,
    )
    from pydantic_ai.messages import ModelMessagesTypeAdapter

__all__ = ["NAMESPACE", "SessionDBConversationStore"]

NAMESPACE = "pydantic-ai"
"""Under which `db.details` finds a record by the conversation's id."""

_FIELD = "pydanticAI"
_records = TypeAdapter(ConversationRecord)


class _EntryId(str):
    """An entry's id that knows its session: the framework reads histories by ids alone."""

    __slots__ = ("session_id",)
    session_id: str

    @classmethod
    def of(cls, entry_id: str, session_id: str) -> _EntryId:
        known = cls(entry_id)
        known.session_id = session_id
        return known


class SessionDBConversationStore(ConversationStore):
    """The conversations of Pydantic AI, in a database that is open."""

    def __init__(self, db: SessionDB, *, namespace: str = NAMESPACE) -> None:
        self.db = db
        self.namespace = namespace

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return a conversation's record, or None."""
        return _record((await self.db.details(self.namespace, conversation_id)).document)

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """Return the records, last saved first. Reads all of the namespace."""
        found = [
            record
            async for kept in self.db.list_details(self.namespace)
            if (record := _record(kept.document)) and (scope is None or record.scope == scope)
        ]
        return sorted(found, key=lambda record: record.updated_at, reverse=True)[:limit]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and its new messages in one transaction, 1,000 at most. Durable."""
        kept = await self.db.details(self.namespace, record.conversation_id)
        had = _record(kept.document)
        if (had.revision if had else None) != expected_revision:
            raise ConversationConflict(record.conversation_id)
        parent_id = new_entries[0].parent_id if new_entries else record.head_id
        try:
            session = await self._session(kept.document, parent_id)
            document = {"session": session.id, "record": _records.dump_python(record, mode="json")}
            async with self.db.batch() as batch:
                batch.set_details(
                    self.namespace, record.conversation_id, document, expect=kept.revision
                )
                # Behind a compaction the head is its entry, so it is left where it is.
                if had is not None and parent_id != had.head_id:
                    batch.branch(session, parent_id)
                if new_entries:
                    batch.append_many(session, [_stored(entry) for entry in new_entries])
        except (DetailsChanged, NotFound) as changed:
            raise ConversationConflict(record.conversation_id) from changed

    async def _session(self, document: dict[str, Any], parent_id: str | None) -> Session:
        """Return a conversation's session: a new one, or a fork of the one that has its parent."""
        if document:
            return await self.db.session_by_id(document["session"])
        if parent_id is None:
            return await self.db.create_session(format="anthropic")
        if not isinstance(parent_id, _EntryId):
            raise NotFound(f"no stored conversation has entry {parent_id}; load it first")
        origin = await self.db.session_by_id(parent_id.session_id)
        return await origin.fork(entry=str(parent_id))

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation for good. Entries that a fork shares stay as long as the fork."""
        kept = await self.db.details(self.namespace, conversation_id)
        had = _record(kept.document)
        if had is None or had.revision != expected_revision:
            raise ConversationConflict(conversation_id)
        try:
            await self.db.delete_details(self.namespace, conversation_id, expect=kept.revision)
        except DetailsChanged as changed:
            raise ConversationConflict(conversation_id) from changed
        await self.db.delete(await self.db.session_by_id(kept.document["session"]))

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return one entry, by an id that this store has returned."""
        session_id = getattr(entry_id, "session_id", None)
        if session_id is None:
            raise LookupError(f"entry {entry_id} is not known; take the id from load_entries")
        try:
            session = await self.db.session_by_id(session_id)
            return _entry(await session.entry(str(entry_id)), session.id)
        except NotFound as gone:
            raise LookupError(str(gone)) from gone

    async def read_history(
        self, head_id: str | None, *, limit: int | None = None
    ) -> list[ConversationEntry]:
        """Return the entries up to one, oldest first. In pages, if it ends the conversation."""
        if not isinstance(head_id, _EntryId) or limit == 0:
            return await super().read_history(head_id, limit=limit)
        found: list[Entry] = []
        page = min(limit or PAGE, PAGE)
        try:
            session = await self.db.session_by_id(head_id.session_id)
            async for entry in walk(session, newest_first=True, types="message", page=page):
                if not found and entry.entry_id != head_id:
                    return await super().read_history(head_id, limit=limit)
                found.append(entry)
                if len(found) == limit:
                    break
        except NotFound as gone:
            raise LookupError(str(gone)) from gone
        return [_entry(entry, session.id) for entry in found[::-1]]

    async def compact(
        self,
        conversation_id: str,
        summarize: Callable[[list[dict[str, Any]]], Awaitable[str]],
        **options: Any,
    ) -> CompactionResult:
        """Summarise the older messages, which are given in Anthropic's format. Saves go on.

        `options` and errors are those of `sessiondb.Session.compact`.
        """
        kept = await self.db.details(self.namespace, conversation_id)
        session = await self._session(kept.document, None)
        return await summarised(session, summarize, lambda message: message, options)

    async def load_compacted(
        self, conversation_id: str, *, scope: str | None = None
    ) -> tuple[str | None, Conversation | None]:
        """Load the messages since the last compaction, and its summary. It is saved as usual."""
        kept = await self.db.details(self.namespace, conversation_id)
        if not kept.document:
            return None, None
        session = await self._session(kept.document, None)
        messages = (await session.context(raw=True)).messages
        recent = sum(_FIELD in message for message in messages)
        conversation = await self.load(conversation_id, limit=recent, scope=scope)
        summaries = [_text(message["content"]) for message in messages if _FIELD not in message]
        return (summaries[0] if summaries else None), conversation


def _record(document: dict[str, Any]) -> ConversationRecord | None:
    """Return a stored record. Its ids of entries know their session."""
    if not document:
        return None
    record = _records.validate_python(document["record"])
    if record.head_id is not None:
        record.head_id = _EntryId.of(record.head_id, document["session"])
    record.branches = [_EntryId.of(entry_id, document["session"]) for entry_id in record.branches]
    return record


def _stored(entry: ConversationEntry) -> dict[str, Any]:
    """Return an entry with its message in Anthropic's format, and the original."""
    [original] = ModelMessagesTypeAdapter.dump_python([entry.message], mode="json")
    role = "assistant" if original["kind"] == "response" else "user"
    content = [block for part in original["parts"] if (block := _block(part))]
    kept = {"parent": entry.parent_id, "message": original}
    message = {"role": role, "content": content, _FIELD: kept}
    return {"type": "message", "id": str(entry.id), "message": message}


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    match part["part_kind"]:
        case "tool-call":
            arguments = part["args"] if isinstance(part["args"], dict) else {}
            return tool_use(part["tool_call_id"], part["tool_name"], arguments)
        case "tool-return" | "retry-prompt" if part["tool_name"] is not None:
            return tool_result(part["tool_call_id"], _text(part["content"]))
        case "thinking":
            return None  # it is signed, and stands in the original
        case _:
            return text(_text(part.get("content")))


def _text(content: object) -> str:
    return content if isinstance(content, str) else json.dumps(content)


def _entry(entry: Entry, session_id: str) -> ConversationEntry:
    """Return an entry of the framework, with ids that know their session."""
    kept = (entry.message or {})[_FIELD]
    [message] = ModelMessagesTypeAdapter.validate_python([kept["message"]])
    parent = None if kept["parent"] is None else _EntryId.of(kept["parent"], session_id)
    return ConversationEntry(
        id=_EntryId.of(entry.entry_id, session_id), parent_id=parent, message=message
    )

"""The Claude Agent SDK's `SessionStore`, on sessiondb.

    async with sessiondb.open("gateway.db") as db:
        options = ClaudeAgentOptions(session_store=SessionDBStore(db), resume=session_id)

The SDK mirrors the lines of its own transcripts here, and resumes from them. A line is opaque: it
is stored as it is, as an entry of pi's type `custom`, which no context contains. Its `uuid` is its
idempotency key. `append` writes up to 1,000 lines and the session's summary in one transaction.

The SDK compacts its transcripts itself, and what it writes about that are lines as well. No line
waits for that.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from sessiondb import DetailsChanged, Item, NotFound, Session, SessionDB, SessionInfo

from . import Needs
from ._shared import PAGE, walk

with Needs("claude-agent-sdk"):
    from claude_agent_sdk import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
        fold_session_summary,
    )

__all__ = ["NAMESPACE", "SessionDBStore"]

NAMESPACE = "claude-agent-sdk"
"""What the namespaces of the sessions begin with (`db.session_for`)."""

_NAMESPACE_BYTES = 255


class SessionDBStore:
    """A session store of the Claude Agent SDK, in a database that is open.

    The transcripts of a project are in a namespace of its own: `claude-agent-sdk/PROJECT`. Those
    of a session's subagents are in `claude-agent-sdk/PROJECT/SESSION`.
    """

    def __init__(self, db: SessionDB, *, namespace: str = NAMESPACE) -> None:
        self.db = db
        self.namespace = namespace

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """Append lines. Durable. A line whose `uuid` is stored is not stored again."""
        if entries:
            session = await self.db.session_for(*self._name(key))
            for start in range(0, len(entries), PAGE):
                await _append(session, key, entries[start : start + PAGE])

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Return all lines of a transcript, in the order of their appends. None: there is none."""
        session = await self.db.find(self._name(key))
        if session is None:
            return None
        return [json.loads(entry.payload)["data"] async for entry in walk(session, types="custom")]

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        """Return the sessions of a project, last changed first."""
        return [
            {"session_id": str(info.external_id), "mtime": info.updated_at_ms}
            for info in await self._infos(project_key)
        ]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        """Return the summaries that the SDK made of the sessions of a project."""
        return [
            {
                "session_id": str(info.external_id),
                "mtime": info.updated_at_ms,
                "data": info.details["summary"],
            }
            for info in await self._infos(project_key)
            if "summary" in info.details
        ]

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        """Return the subpaths of a session's subagents."""
        infos = await self._infos(key["project_key"], key["session_id"])
        return [str(info.external_id) for info in infos]

    async def delete(self, key: SessionKey) -> None:
        """Delete a transcript for good, and with a session those of its subagents."""
        if key.get("subpath") is None:
            try:
                subagents = self._namespace(key["project_key"], key["session_id"])
                await self.db.delete(namespace=subagents)
            except NotFound:
                pass  # it has none
        session = await self.db.find(self._name(key))
        if session is not None:
            await self.db.delete(session)

    async def _infos(self, *parts: str) -> list[SessionInfo]:
        found = self.db.sessions(namespace=self._namespace(*parts), with_ended=True)
        return [info async for info in found]

    def _name(self, key: SessionKey) -> tuple[str, str]:
        """Return the namespace and the id of a transcript."""
        subpath = key.get("subpath")
        if subpath is None:
            return self._namespace(key["project_key"]), key["session_id"]
        return self._namespace(key["project_key"], key["session_id"]), subpath

    def _namespace(self, *parts: str) -> str:
        name = "/".join([self.namespace, *(quote(part, safe="") for part in parts)])
        if len(name.encode()) <= _NAMESPACE_BYTES:
            return name
        return f"{self.namespace}/{hashlib.sha256(name.encode()).hexdigest()}"


async def _append(session: Session, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
    """Append lines, and what the SDK's summary of the session is with them."""
    items = [
        Item({"type": "custom", "customType": NAMESPACE, "data": entry}, key=entry.get("uuid"))
        for entry in entries
    ]
    if key.get("subpath") is not None:
        await session.append_many(items)
        return
    while True:
        had = await session.details()
        folded = fold_session_summary(_summary(key, had.document), key, entries)
        details = {**had.document, "summary": folded["data"]}
        try:
            await session.append_many(items, details=details, expect_details=had.revision)
        except DetailsChanged:
            continue  # another process has appended meanwhile: the summary goes on from its lines
        return


def _summary(key: SessionKey, details: dict[str, Any]) -> SessionSummaryEntry | None:
    if "summary" not in details:
        return None
    return {"session_id": key["session_id"], "mtime": 0, "data": details["summary"]}

"""nanobot's `SessionStore`, on sessiondb.

    with sessiondb.sync.open("gateway.db") as db:
        sessions = SessionManager(workspace, store=SessionDBStore(db))
        agent = AgentLoop(bus=bus, provider=provider, workspace=workspace, session_manager=sessions)

nanobot saves a whole session each time. Only what has changed since the last save is written: new
messages are appended, and where an earlier one is another, the session goes on from the one before
it. What was there stays on a branch. A save is one durable transaction, whatever `fsync` says, with
the metadata. More than 1,000 new messages are written in steps before it.

nanobot's compaction is a message that it inserts, and a mark how far the summary goes. Both are
stored as they are, and turns are saved while the summary is written. A save of a process leaves the
messages that another process has appended meanwhile.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from copy import deepcopy
from datetime import datetime
from itertools import takewhile
from typing import Any

from sessiondb import DetailsChanged, NotFound, sync

from . import Needs
from ._shared import PAGE

with Needs("nanobot"):
    from nanobot.providers.base import ProviderConversationState
    from nanobot.session.manager import (
        SESSION_CACHE_MAX_SIZE,
        Session,
        SessionInfo,
        SessionMetadataPayload,
        SessionPayload,
        _message_preview_text,
        _metadata_title,
    )

__all__ = ["NAMESPACE", "SessionDBStore"]

NAMESPACE = "nanobot"
"""Under which `db.session_for` finds a session by nanobot's key."""

_REST = "nanobot.rest"
_RECORD = "nanobot.record"
_DETAILS_BYTES = 64 * 1024  # of `set_details`
_PREVIEW_MESSAGES = 200  # as nanobot's own list
_LISTED = ("created_at", "updated_at", "title", "preview")
_Known = list[tuple[str, dict[str, Any]]]
"""The messages that were stored or loaded last, with the ids of their entries."""


class SessionDBStore:
    """The sessions of nanobot, in a database that is open. Give each workspace a namespace."""

    def __init__(self, db: sync.SessionDB, *, namespace: str = NAMESPACE) -> None:
        self.db = db
        self.namespace = namespace
        self._known: OrderedDict[str, tuple[str, _Known]] = OrderedDict()
        self._lock = threading.RLock()

    def load(self, key: str) -> Session | None:
        """Return a session with all its messages. None: there is none."""
        with self._lock:
            stored, kept = self._find(key)
            if stored is None:
                return None
            known = self._remember(key, stored, _messages(stored))
            rest = _rest(stored, kept)
            return Session(
                key=key,
                messages=[deepcopy(message) for _, message in known],
                created_at=datetime.fromisoformat(kept["created_at"]),
                updated_at=datetime.fromisoformat(kept["updated_at"]),
                metadata=rest["metadata"],
                last_consolidated=_count(known, *kept["archived"]),
                provider_state=ProviderConversationState.from_private_record(rest["provider"]),
            )

    def save(self, session: Session, *, fsync: bool = False) -> None:
        """Store what has changed of a session. Durable."""
        with self._lock:
            stored = self.db.session_for(self.namespace, session.key, format="openai-chat")
            session_id, known = self._known.pop(session.key, ("", []))
            if session_id != stored.id:  # not known, or somebody else has deleted it
                known = _messages(stored)
            same = _common(known, session.messages)
            saved, added = known[:same], deepcopy(session.messages[same:])
            listed = {
                "created_at": session.created_at.isoformat(),
                "updated_at": session.updated_at.isoformat(),
                "preview": _preview(session.messages),
                "archived": _place(saved, session.last_consolidated),
            }
            provider = session.provider_state and session.provider_state.to_private_record()
            details, rest = _kept(listed, {"metadata": session.metadata, "provider": provider})
            items = [*map(_entry, added), *rest]
            chunks = [items[at : at + PAGE] for at in range(0, len(items), PAGE)] or [[]]
            ids: list[str] = []
            for chunk in chunks:
                with self.db.batch() as batch:
                    if chunk is chunks[0] and same < len(known):
                        batch.branch(stored, saved[-1][0] if saved else None)
                    last = details if chunk is chunks[-1] else None
                    receipts = batch.append_many(stored, chunk, details=last)
                ids += [receipt.entry_id for receipt in receipts.value]
            self._remember(session.key, stored, [*saved, *zip(ids, added, strict=False)])

    def delete(self, key: str) -> bool:
        """Delete a session for good. False: there is none."""
        with self._lock:
            self._known.pop(key, None)
            stored = self.db.find((self.namespace, key))
            if stored is not None:
                self.db.delete(stored)
            return stored is not None

    def read(self, key: str) -> SessionPayload | None:
        """Return what is stored of a session, as JSON has it."""
        stored, _ = self._find(key)
        described = self.read_metadata(key)
        if stored is None or described is None:
            return None
        return {**described, "messages": [message for _, message in _messages(stored)]}

    def read_metadata(self, key: str) -> SessionMetadataPayload | None:
        """Return the metadata of a session. Reads no message."""
        stored, kept = self._find(key)
        if stored is None:
            return None
        times = {name: kept[name] for name in ("created_at", "updated_at")}
        return {"key": key, **times, "metadata": _rest(stored, kept)["metadata"]}

    def update_metadata(self, key: str, updates: dict[str, Any], *, fsync: bool = False) -> bool:
        """Change some of the metadata of a session. Durable. False: there is none."""
        while (stored := self.db.find((self.namespace, key))) is not None:
            had = stored.details()
            if had.revision == 0:
                return False
            rest = _rest(stored, had.document)
            changed = {**rest, "metadata": {**rest["metadata"], **updates}}
            details, items = _kept(had.document, changed)
            try:
                stored.append_many(items, details=details, expect_details=had.revision)
            except DetailsChanged:
                continue  # somebody else changed it meanwhile: change what is there now
            return True
        return False

    def list_sessions(self) -> list[SessionInfo]:
        """Return the sessions, last changed first."""
        found = [
            {"key": str(info.external_id), "path": str(self.db.path)}
            | {name: info.details[name] for name in _LISTED}
            for info in self.db.sessions(namespace=self.namespace, with_ended=True)
            if info.details
        ]
        return sorted(found, key=lambda info: info["updated_at"], reverse=True)

    def _find(self, key: str) -> tuple[sync.Session | None, dict[str, Any]]:
        stored = self.db.find((self.namespace, key))
        kept = stored.details().document if stored is not None else {}
        return (stored if kept else None), kept  # without details its first save was cut short

    def _remember(self, key: str, stored: sync.Session, known: _Known) -> _Known:
        self._known[key] = (stored.id, known)
        self._known.move_to_end(key)
        while len(self._known) > SESSION_CACHE_MAX_SIZE:
            self._known.popitem(last=False)
        return known


def _messages(stored: sync.Session) -> _Known:
    known: _Known = []
    last = None
    while page := stored.entries(after=last, types=("message", "custom"), limit=PAGE):
        for entry in page:
            record = json.loads(entry.payload)
            if entry.type == "message":
                known.append((entry.entry_id, record["message"]))
            elif record["customType"] == _RECORD:
                known.append((entry.entry_id, record["data"]))
        last = page[-1]
    return known


def _entry(message: dict[str, Any]) -> dict[str, Any]:
    if isinstance(message.get("role"), str):
        return {"type": "message", "message": message}
    return {"type": "custom", "customType": _RECORD, "data": message}


def _place(stored: _Known, count: int) -> tuple[str | None, int]:
    """Return after which entry the first `count` messages end, and how many follow it."""
    at = min(count, len(stored))
    return (stored[at - 1][0] if at else None), count - at


def _count(stored: _Known, entry_id: str | None, more: int) -> int:
    """Return how many messages there are up to a place: the opposite of `_place`."""
    at = [None, *(each for each, _ in stored)]
    return at.index(entry_id) + more if entry_id in at else 0


def _common(known: _Known, messages: list[dict[str, Any]]) -> int:
    """Return how many messages are stored as they are, from the first on."""
    pairs = zip(known, messages, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0][1] == pair[1], pairs))


def _kept(
    listed: dict[str, Any], rest: dict[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a session's details. What is too large for them is an entry beside them."""
    kept = {**listed, "title": _metadata_title(rest["metadata"]), "rest": rest}
    if len(json.dumps(kept)) <= _DETAILS_BYTES:
        return kept, []
    return {**kept, "rest": None}, [{"type": "custom", "customType": _REST, "data": rest}]


def _rest(stored: sync.Session, kept: dict[str, Any]) -> dict[str, Any]:
    last, found = None, kept["rest"]
    while found is None:  # it is the newest entry of its kind
        page = stored.entries(before=last, types="custom", newest_first=True)
        if not page:
            raise NotFound(f"session {stored.id} was changed while it was read; read it again")
        records = [json.loads(entry.payload) for entry in page]
        found = next((each["data"] for each in records if each["customType"] == _REST), None)
        last = page[-1]
    return found


def _preview(messages: list[dict[str, Any]]) -> str:
    """Return the first text of the user for a list, or else the first of the agent."""
    for wanted in ("user", "assistant"):
        for message in messages[:_PREVIEW_MESSAGES]:
            if message.get("role") == wanted and (text := _message_preview_text(message)):
                return text
    return ""

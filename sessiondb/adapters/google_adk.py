"""Google ADK's `BaseSessionService`, on sessiondb.

    async with sessiondb.open("gateway.db") as db:
        service = SessionDBSessionService(db)
        runner = Runner(app=app, session_service=service)

An event is an entry, and comes back as it was. `append_event` is one durable transaction with the
state that it changes: of the session, of the user, of the app. No handle is ever stale: an event
that somebody else has appended meanwhile stays, and so does this one.

ADK's compaction is an event, too (`EventCompaction`), so it is appended when its summary is there,
whatever was appended meanwhile. ADK leaves the events out that it covers, and all stay stored.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, unquote

from sessiondb import DetailsChanged, Item, SessionDB
from sessiondb import Session as Stored

from . import Needs
from ._shared import text, tool_result, tool_use, walk

with Needs("google-adk"):
    from google.adk.errors.already_exists_error import AlreadyExistsError
    from google.adk.errors.session_not_found_error import SessionNotFoundError
    from google.adk.events.event import Event
    from google.adk.platform import time as platform_time
    from google.adk.platform import uuid as platform_uuid
    from google.adk.sessions import Session, State
    from google.adk.sessions.base_session_service import (
        BaseSessionService,
        GetSessionConfig,
        ListSessionsResponse,
    )
    from pydantic_core import to_jsonable_python

__all__ = ["NAMESPACE", "SessionDBSessionService"]

NAMESPACE = "google-adk"
"""What the namespaces of the sessions begin with. The states are details of this namespace."""

_FIELD = "googleADK"
_PREFIXES = (State.APP_PREFIX, State.USER_PREFIX, State.TEMP_PREFIX)
_Json = dict[str, Any]


class SessionDBSessionService(BaseSessionService):
    """The sessions of ADK's apps, in a database that is open.

    Those of an app are in a namespace of its own, `google-adk/APP`, as `USER/SESSION`.
    """

    def __init__(self, db: SessionDB, *, namespace: str = NAMESPACE) -> None:
        self.db = db
        self.namespace = namespace

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a session with a state. Durable."""
        chosen = (session_id or "").strip() or platform_uuid.new_uuid()
        stored = await self.db.session_for(
            *self._name(app_name, user_id, chosen), format="anthropic"
        )
        now = platform_time.get_time()
        await self._store(stored, app_name, user_id, state or {}, [], updated=now, is_new=chosen)
        created = await self.get_session(app_name=app_name, user_id=user_id, session_id=chosen)
        if created is None:
            raise SessionNotFoundError(f"Session {chosen} was deleted while it was created.")
        return created

    async def get_session(
        self,
        *,
        app_name: str,
        user_id: str,
        session_id: str,
        config: GetSessionConfig | None = None,
    ) -> Session | None:
        """Return a session with its events, or the last of them, in the order of their appends."""
        stored = await self.db.find(self._name(app_name, user_id, session_id.strip()))
        kept = await stored.details() if stored is not None else None
        if stored is None or kept is None or kept.revision == 0:
            return None
        limit = config.num_recent_events if config is not None else None
        since = (config.after_timestamp if config is not None else None) or 0
        events: list[Event] = []
        async for entry in walk(stored, newest_first=True, types="message"):
            if limit is not None and len(events) >= limit:
                break
            event = Event.model_validate((entry.message or {})[_FIELD])
            if event.timestamp >= since:
                events.append(event)
        session = await self._session(app_name, user_id, session_id.strip(), kept.document, {})
        session.events = events[::-1]
        return session

    async def list_sessions(
        self, *, app_name: str, user_id: str | None = None
    ) -> ListSessionsResponse:
        """Return the sessions of an app, or of one of its users, last changed last."""
        states: dict[str, _Json] = {}
        found = []
        async for info in self.db.sessions(namespace=self._namespace(app_name), with_ended=True):
            user, _, session_id = map(unquote, str(info.external_id).partition("/"))
            if user_id in (None, user) and info.details_revision:
                found.append(await self._session(app_name, user, session_id, info.details, states))
        found.sort(key=lambda session: (session.last_update_time, session.user_id, session.id))
        return ListSessionsResponse(sessions=found)

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete a session for good. The states of its user and of its app stay."""
        stored = await self.db.find(self._name(app_name, user_id, session_id.strip()))
        if stored is not None:
            await self.db.delete(stored)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """Return the state of a user of an app."""
        return (await self.db.details(self.namespace, _path(app_name, user_id))).document

    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event, with the state that it changes. Durable. Waits for no compaction."""
        if event.partial:
            return event
        stored = await self.db.find(self._name(session.app_name, session.user_id, session.id))
        if stored is None:
            raise SessionNotFoundError(f"Session {session.id} not found.")
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        delta = event.actions.state_delta if event.actions else {}
        items = [Item(_stored(event), key=event.id)]
        names = session.app_name, session.user_id
        await self._store(stored, *names, delta, items, updated=event.timestamp)
        session.last_update_time = event.timestamp
        return self._commit_event_to_session(session, event)

    async def _store(
        self,
        stored: Stored,
        app_name: str,
        user_id: str,
        delta: dict[str, Any],
        items: list[Item],
        *,
        updated: float,
        is_new: str | None = None,
    ) -> None:
        """Append items and change the three states, in one transaction. `is_new` is a new id."""
        changes = to_jsonable_python(delta, fallback=str)
        own = {key: value for key, value in changes.items() if not key.startswith(_PREFIXES)}
        while True:
            had = await stored.details()
            if is_new is not None and had.revision:
                raise AlreadyExistsError(f"Session with id {is_new} already exists.")
            details = {"state": {**had.document.get("state", {}), **own}, "updated": updated}
            try:
                async with self.db.batch() as batch:
                    batch.append_many(stored, items, details=details, expect_details=had.revision)
                    for prefix, name in _wider(app_name, user_id):
                        if part := _part(changes, prefix):
                            kept = await self.db.details(self.namespace, name)
                            state = {**kept.document, **part}
                            batch.set_details(self.namespace, name, state, expect=kept.revision)
            except DetailsChanged:
                continue  # somebody else changed a state meanwhile: change what is there now
            return

    async def _session(
        self, app_name: str, user_id: str, session_id: str, kept: _Json, states: dict[str, _Json]
    ) -> Session:
        """Return a session without events. `states` keeps what was read for the ones before it."""
        merged = dict(kept["state"])
        for prefix, name in _wider(app_name, user_id):
            if name not in states:
                states[name] = (await self.db.details(self.namespace, name)).document
            merged |= {prefix + key: value for key, value in states[name].items()}
        names = {"app_name": app_name, "user_id": user_id, "id": session_id}
        return Session(**names, state=merged, last_update_time=kept["updated"])

    def _namespace(self, app_name: str) -> str:
        return f"{self.namespace}/{_path(app_name)}"

    def _name(self, app_name: str, user_id: str, session_id: str) -> tuple[str, str]:
        return self._namespace(app_name), _path(user_id, session_id)


def _path(*names: str) -> str:
    return "/".join(quote(name, safe="") for name in names)


def _wider(app_name: str, user_id: str) -> list[tuple[str, str]]:
    """Return the prefixes of the states that sessions share, and where each is kept."""
    return [(State.APP_PREFIX, _path(app_name)), (State.USER_PREFIX, _path(app_name, user_id))]


def _part(delta: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        key.removeprefix(prefix): value for key, value in delta.items() if key.startswith(prefix)
    }


def _stored(event: Event) -> dict[str, Any]:
    """Return an event's content in Anthropic's format, and the event beside it.

    So a list, a search and an export show what was said.
    """
    original = event.model_dump(mode="json", exclude_none=True)
    content = original.get("content") or {}
    role = "assistant" if content.get("role") == "model" else "user"
    blocks = [block for part in content.get("parts") or [] if (block := _block(part))]
    return {"role": role, "content": blocks, _FIELD: original}


def _block(part: dict[str, Any]) -> dict[str, Any] | None:
    call, response = part.get("function_call"), part.get("function_response")
    if call is not None and call.get("id"):
        return tool_use(call["id"], call["name"], call.get("args") or {})
    if response is not None and response.get("id"):
        return tool_result(response["id"], json.dumps(response.get("response")))
    return text(part["text"]) if part.get("text") else None

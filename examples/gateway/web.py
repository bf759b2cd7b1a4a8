"""HTTP and WebSocket: what pages and adapters talk to.

    POST /messages                 202 and a receipt once the message is on disk.
                                   429 or 503 with Retry-After when it was not accepted
    WS   /ws/{conversation}        its events: accepted, thinking, writing, compacting,
                                   compacted, failed, stopped, reset, notice, reply
    GET  /conversations            those of the page's users, last changed first
    GET  /conversations/{name}     the transcript, what waits, and its user's notices
    GET  /status  /held  /health   for operators
    GET  /  /operator.html         the pages, in the folder page/

A client chooses an `event_id` for each message. It may send the same message again,
with the same id, any number of times.

There are no accounts: every client that reaches the port may read and write. So the
server listens on this machine only, unless `--host` says otherwise. It also refuses
requests that another site makes a browser on this machine send. Those are requests
under a host name that is not ours (a foreign name that resolves to 127.0.0.1 would make
a foreign page one of ours), and requests that a foreign page sends. Text of people and
models reaches the page as text, never as HTML. The page may run the scripts of this
server only, and load nothing from elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import uuid
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from sessiondb import (
    DeadLetter,
    InvalidInput,
    NotExecuted,
    NotFound,
    Reply,
    Session,
    SessionDBError,
    SessionEnded,
    StoreBusy,
)

from .channels import Notice, session_key
from .gateway import AGENTS, RESETS, Gateway, notice_of
from .model import text_of

TEXT_CHARS_MAX = 100_000
# A text of that length, each character escaped as two halves of six bytes, and the rest
# of the message.
BODY_BYTES_MAX = 12 * TEXT_CHARS_MAX + 64 * 1024
# A page says nothing over its socket. What it says is ignored.
SOCKET_MESSAGE_BYTES_MAX = 4 * 1024
CONNECTIONS_MAX = 1_000
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HISTORY_MAX = 1_000
ENTRY_NO_MAX = 2**63 - 1
NOTICES_MAX = 20
OPEN_MAX = 200
# Dead letters and unknown replies that operators are shown. All of them: `sessiondb
# dead`, `sessiondb outbox`.
SHOWN_MAX = 20
# Conversations of each agent that a page lists.
LISTED_MAX = 50
PAGE = Path(__file__).parent / "page"
POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    # An answer in JSON is not taken for a script, whatever somebody wrote into it.
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# 1012, "service restart": the page connects again, and reads what it missed.
COME_AGAIN = 1012


def make_app(
    gateway: Gateway, close: asyncio.Event, hosts: Collection[str] = LOOPBACK
) -> Starlette:
    """Return the application of a gateway that has been started.

    `hosts` are the names that it may be called by.
    """
    web = Web(gateway, close)
    return Starlette(
        routes=[
            Route("/messages", web.messages, methods=["POST"]),
            Route("/conversations", web.conversations),
            # A name may hold a slash. The server has undone its percent sign by then.
            Route("/conversations/{conversation:path}", web.conversation),
            Route("/status", web.status),
            Route("/held", web.held),
            Route("/health", web.health),
            WebSocketRoute("/ws/{conversation:path}", web.socket),
            Mount("/", StaticFiles(directory=PAGE, html=True)),
        ],
        exception_handlers={
            SessionDBError: refuse,
            InvalidInput: reject,
            SessionEnded: reject,
            ClientDisconnect: reject,  # nobody reads it, and nothing has failed
        },
        middleware=[Middleware(Harmless), Middleware(OnlyOurHosts, hosts=frozenset(hosts))],
    )


class Harmless:
    """Tells the browser, with every answer, what the page may do: run what lies beside it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(POLICY)
            await send(message)

        await self.app(scope, receive, with_policy)


class OnlyOurHosts:
    """Refuses what was sent under another host name than ours, HTTP or WebSocket."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        status, error = (
            421,
            "this gateway does not go by that host name; start it with --allow-host",
        )
        try:
            host = urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname
        except ValueError as bad:
            host, status, error = None, 400, f"the header Host is not the name of a host: {bad}"
        if host in self.hosts:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocket(scope, receive, send).close(1008)
        else:
            await JSONResponse({"error": error}, status_code=status)(scope, receive, send)


async def refuse(request: Request, error: Exception) -> Response:
    """Say that a message was not taken, who holds its session, and when to come again.

    Its sender still has it.

    429: too much is waiting. 503: the disk is full, or what became of it is not known.
    The same event may be sent again.
    """
    del request
    assert isinstance(error, SessionDBError)
    if not error.retry:
        raise error
    retry_ms, holder = 1_000, None
    if isinstance(error, StoreBusy):
        retry_ms, holder = error.retry_after_ms, error.holder
    answer = {"error": str(error), "retry_after_ms": retry_ms, "holder": holder}
    status = 429 if isinstance(error, StoreBusy | NotExecuted) else 503
    return JSONResponse(
        answer, status_code=status, headers={"Retry-After": str(math.ceil(retry_ms / 1000))}
    )


async def reject(request: Request, error: Exception) -> Response:
    """Say what is wrong with a request: sent again it would be no better."""
    del request
    return JSONResponse({"error": str(error) or "the client hung up"}, status_code=400)


class Web:
    """The endpoints."""

    def __init__(self, gateway: Gateway, close: asyncio.Event) -> None:
        self.gateway, self.db = gateway, gateway.db
        self.close = close
        self.started_at_ms = round(time() * 1000)

    async def messages(self, request: Request) -> Response:
        if is_foreign(request):
            return JSONResponse(
                {"error": "a page of another site may not write here"}, status_code=403
            )
        message = await self._read(request)
        session_of = (message["channel"], message["agent"], message["conversation"])
        word = message["text"].split(maxsplit=1)[0]
        if word.startswith("/") and word not in RESETS:
            reply = await self.gateway.command(await self._session(*session_of), message["text"])
            if reply is not None:
                return JSONResponse({"command": word, "text": reply})
        accepted = await self.gateway.receive(*session_of, message["event_id"], message["text"])
        # The message is on disk. This line is what everything else is for: it must not move up.
        return JSONResponse({**asdict(accepted), "event_id": message["event_id"]}, status_code=202)

    async def _read(self, request: Request) -> dict[str, str]:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > BODY_BYTES_MAX:
                raise InvalidInput(f"a message has at most {BODY_BYTES_MAX:,} bytes")
        try:
            message = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"the body is not JSON: {error}") from error
        if not isinstance(message, dict):
            raise InvalidInput(
                "the body is a JSON object with a text, a conversation, and an event_id"
            )
        fields = {
            "channel": "web",
            "agent": "main",
            "conversation": "lobby",
            "event_id": str(uuid.uuid4()),
            "text": "",
            **message,
        }
        for name in ("channel", "agent", "conversation", "event_id", "text"):
            if not isinstance(fields[name], str) or not fields[name].strip():
                raise InvalidInput(f"{name} must be a text that is not empty")
            if any(
                "\ud800" <= char <= "\udfff" for char in fields[name]
            ):  # half of a surrogate pair: no page could be sent it
                raise InvalidInput(f"{name} is not valid Unicode")
        if len(fields["text"]) > TEXT_CHARS_MAX:
            raise InvalidInput(
                f"a text has at most {TEXT_CHARS_MAX:,} characters, not {len(fields['text']):,}"
            )
        if fields["agent"] not in AGENTS:
            raise InvalidInput(
                f"there is no agent {fields['agent']!r}; there are {', '.join(AGENTS)}"
            )
        return fields

    async def _session(self, channel: str, agent: str, conversation: str) -> Session:
        return await self.db.session(session_key(channel, agent, conversation))

    async def conversations(self, request: Request) -> Response:
        del request
        found = []
        for agent in AGENTS:
            prefix = session_key("web", agent, "")
            async for info in self.db.sessions(key_prefix=prefix, limit=LISTED_MAX):
                found += [
                    {
                        "agent": agent,
                        "conversation": key.removeprefix(prefix),
                        "name": info.name,
                        "changed_at_ms": info.updated_at_ms,
                        "working": info.session_id in self.gateway.working,
                    }
                    for key in info.keys
                    if key.startswith(prefix)
                ]
        return JSONResponse(sorted(found, key=lambda one: -one["changed_at_ms"]))

    async def conversation(self, request: Request) -> Response:
        query = request.query_params
        limit = number(query, "limit", default=200, most=HISTORY_MAX)
        before = number(query, "before", default=0, most=ENTRY_NO_MAX) or None
        key, gateway = key_of(request), self.gateway
        about = {
            "agents": list(AGENTS),
            "help": gateway.help(),
            "threshold_tokens": gateway.settings.threshold_tokens,
        }
        try:
            session = await self.db.session(key, create=False)
        except NotFound:  # looking makes nothing
            nothing = {
                "session_id": None,
                "epoch": 0,
                "context_tokens": 0,
                "said": [],
                "open": [],
                "notices": [],
                "before": None,
            }
            return JSONResponse({**about, **nothing})
        # Before the transcript: what is answered meanwhile is in both, and not in neither.
        waiting = [
            {
                "event_id": message.event_id,
                "inbox_no": message.inbox_no,
                "state": message.state,
                "text": text_of(message.message),
                "at_ms": message.accepted_at_ms,
            }
            async for message in self.db.inbox(session=session, limit=OPEN_MAX)
        ]
        try:
            newest = await session.entries(limit=limit, before=before, newest_first=True)
        except NotFound as error:  # of another conversation, or of before a /new
            raise InvalidInput(f"before={before}: {error}") from error
        text = []
        for entry in reversed(newest):
            message, said = entry.message or {}, entry.text
            if entry.type in ("compaction", "reset") or (
                entry.role in ("user", "assistant") and said
            ):
                text.append(
                    {
                        "what": entry.role or entry.type,
                        "text": said,
                        "at_ms": entry.appended_at_ms,
                        "event_id": message.get("event_id"),
                        "answers": message.get("answers"),
                        "entry_id": entry.entry_id,
                    }
                )
        info = await session.info()
        known = {
            "session_id": session.id,
            "epoch": info.epoch,
            "context_tokens": info.context_tokens,
            "open": waiting,
        }
        # For a page that was not open when they were told, here or on another process.
        notices = [notice_of(event) for event in await session.events(limit=NOTICES_MAX)]
        # The page before this one is asked for with what it says here.
        # (Large entries make it short. The first one of all has no entry before it.)
        before_no = newest[-1].entry_no if newest and newest[-1].parent_no is not None else None
        return JSONResponse(
            {**about, **known, "said": text, "notices": notices, "before": before_no}
        )

    async def status(self, request: Request) -> Response:
        del request
        gateway, database = self.gateway, await self.db.status()
        # The counts are above. Here are the newest of those that wait for a person.
        letters = [
            without_payload(letter) async for letter in self.db.dead_letters(limit=SHOWN_MAX)
        ]
        unknown = [
            without_payload(reply) async for reply in self.db.replies("unknown", limit=SHOWN_MAX)
        ]
        return JSONResponse(
            {
                "pid": os.getpid(),
                "started_at_ms": self.started_at_ms,
                "model": gateway.model.name,
                "threshold_tokens": gateway.settings.threshold_tokens,
                "agents": list(AGENTS),
                "working": len(gateway.working),
                "compacting": len(gateway.compacting),
                "dead_letters": letters,
                "unknown_replies": unknown,
                "recovered": asdict(gateway.recovered),
                "decisions": [asdict(decision) for decision in gateway.decisions],
                "verdict": database.verdict,
                "database": asdict(database),
            }
        )

    async def held(self, request: Request) -> Response:
        del request
        return JSONResponse([asdict(holding) for holding in await self.db.held()])

    async def health(self, request: Request) -> Response:
        del request
        return JSONResponse({"ok": True, "pid": os.getpid()})

    async def socket(self, socket: WebSocket) -> None:
        if is_foreign(socket):
            await socket.close(1008)  # "policy violation". Before it is accepted, that is a 403
            return
        try:
            session = await self.db.session(key_of(socket))
        except InvalidInput as error:
            await socket.close(1008, str(error))
            return
        await socket.accept()
        page = self.gateway.pages.watch(session.id)
        tasks = [
            asyncio.ensure_future(work)
            for work in (self._tell(socket, session, page), _until_gone(socket), self.close.wait())
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except WebSocketDisconnect:
            return
        finally:
            self.gateway.pages.unwatch(session.id, page)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await socket.close(COME_AGAIN)

    async def _tell(
        self, socket: WebSocket, session: Session, page: asyncio.Queue[Notice | None]
    ) -> None:
        turn = self.gateway.working.get(session.id)
        await socket.send_json(
            {
                "type": "hello",
                "session_id": session.id,
                "thinking": turn.inbox_no if turn is not None else None,
                "compacting": session.id in self.gateway.compacting,
                "written": self.gateway.written.get(session.id, ""),
            }
        )
        while (notice := await page.get()) is not None:
            await socket.send_json(notice)


def is_foreign(connection: HTTPConnection) -> bool:
    """Return whether a browser speaks for another site's page.

    There are no accounts here that would keep it out.
    """
    origin = connection.headers.get("origin")
    return origin is not None and origin not in {
        f"{scheme}://{connection.headers.get('host')}" for scheme in ("http", "https")
    }


def key_of(connection: HTTPConnection) -> str:
    """Return the key of the conversation that an address names.

    Raises:
        InvalidInput: there is no such agent.
    """
    query = connection.query_params
    agent = query.get("agent", "main")
    if agent not in AGENTS:
        raise InvalidInput(f"there is no agent {agent!r}; there are {', '.join(AGENTS)}")
    conversation = connection.path_params["conversation"]
    return session_key(query.get("channel", "web"), agent, conversation)


def without_payload(row: DeadLetter | Reply) -> dict[str, Any]:
    """Return what is known of a message or a reply, but not what it says."""
    return {name: value for name, value in asdict(row).items() if name != "payload"}


def number(query: QueryParams, name: str, *, default: int, most: int) -> int:
    """Return a number of a query.

    Raises:
        InvalidInput: it is none from 1 to `most`.
    """
    text = query.get(name)
    if text is None:
        return default
    digits = len(str(most))
    if not re.fullmatch(rf"[0-9]{{1,{digits}}}", text) or not 1 <= int(text) <= most:
        raise InvalidInput(f"{name} is a whole number from 1 to {most:,}, not {text[:40]!r}")
    return int(text)


async def _until_gone(socket: WebSocket) -> None:
    """Read, and ignore, until the page is closed: messages come by POST, which has an answer."""
    while True:
        await socket.receive_text()

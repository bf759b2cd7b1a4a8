"""What one client may take: a slow, a large or a vanished one holds nothing for long."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.types import Message

import sessiondb
from sessiondb.server.application import LOCAL, Application
from sessiondb.server.protocol import BoundedProtocol, bounded
from sessiondb.server.routes import TABLE
from sessiondb.server.state import Bounds, State
from tests.support.serving import Serving

SMALL = Bounds(body_bytes=1_000, bodies_bytes=1_500, body_s=0.05)
BODY = b'{"key": "agent:main:web:1"}'


class Exchange:
    """One request to an application, without a socket: what arrives when is the test's."""

    def __init__(self, *arriving: Message, headers: dict[str, str] | None = None) -> None:
        self.arriving = list(arriving)
        self.sent: list[Message] = []
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/v1/sessions",
            "raw_path": b"/v1/sessions",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
            LOCAL: True,
        }

    async def receive(self) -> Message:
        if self.arriving:
            return self.arriving.pop(0)
        await anyio.sleep_forever()
        raise AssertionError("never")

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sent[1]["body"])
        return found


def piece(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def ask(app: Application, *arriving: Message, **extra: Any) -> Exchange:
    exchange = Exchange(*arriving, **extra)
    await app(exchange.scope, exchange.receive, exchange.send)
    return exchange


@pytest.mark.anyio
async def test_a_body_is_counted_as_it_arrives(tmp_db: Path) -> None:
    state = State(SMALL)
    async with sessiondb.open(tmp_db) as db:
        app = Application(db, state, TABLE)
        whole = await ask(app, piece(BODY[:5], more=True), piece(BODY[5:]))
        assert whole.status == 200
        for arriving, headers in (
            ([piece(b" " * 600, more=True), piece(b" " * 600, more=True)], {}),
            ([], {"content-length": "1001"}),
            ([], {"content-length": "9" * 30}),
        ):
            large = await ask(app, *arriving, headers=headers)
            assert (large.status, large.told["type"]) == (413, "BodyTooLarge")
            assert (b"connection", b"close") in large.sent[0]["headers"]
        slow = await ask(app, piece(BODY[:5], more=True))
        assert (slow.status, slow.told["type"]) == (408, "BodyTooSlow")
        assert state.body_bytes == 0
        state.body_bytes = 1_490  # of other connections
        busy = await ask(app, piece(BODY))
        assert (busy.status, busy.told["type"]) == (503, "ServerBusy")
        assert state.body_bytes == 1_490
        gone = await ask(app, piece(BODY[:5], more=True), {"type": "http.disconnect"})
        assert gone.sent == []
        assert state.body_bytes == 1_490
        state.stop(db)
        stopping = await ask(app, piece(BODY))
        assert (stopping.status, stopping.told["type"]) == (503, "ServerBusy")
        assert [info.keys async for info in db.sessions()] == [("agent:main:web:1",)]


def test_a_client_that_is_slow_with_its_head_or_reads_nothing_is_overdue() -> None:
    kind = bounded(Bounds(head_s=10, stalled_s=30))
    connection = kind.__new__(kind)
    connection._head_since, connection._stalled_since = 100.0, None
    assert not connection.is_overdue(109)
    assert connection.is_overdue(111)
    connection._head_since, connection._stalled_since = None, 100.0
    assert not connection.is_overdue(129)
    assert connection.is_overdue(131)
    connection._stalled_since = None
    assert not connection.is_overdue(10_000)
    assert BoundedProtocol.bounds == Bounds(), "another server's bounds are its own"


def talk(server: Serving, *pieces: bytes) -> bytes:
    """Send pieces over a connection of their own. Return what is answered until it is closed."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.socket))
        for each in pieces:
            try:
                client.sendall(each)
            except (BrokenPipeError, ConnectionResetError):
                break
        found = b""
        try:
            while part := client.recv(65_536):
                found += part
        except ConnectionResetError:
            pass
        return found


def test_a_head_has_a_bound_and_the_next_client_is_served(serving: Serving) -> None:
    line = b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
    assert talk(serving, line, b"\r\n").startswith(b"HTTP/1.1 200 ")
    endless = talk(serving, line, b"x: " + b"y" * 40_000, b"y" * 40_000)
    assert endless.startswith(b"HTTP/1.1 431 ")
    assert b"HeadTooLarge" in endless
    assert talk(serving, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert talk(serving, line, b"\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_large_answer_leaves_its_connection_to_the_next_request(client: httpx.Client) -> None:
    """The server stops writing while the client reads, and goes on."""
    asked = {"key": "agent:main:web:large"}
    session = client.post("/v1/sessions", json=asked).raise_for_status().json()["session_id"]
    text = "x" * 3_000_000
    sent = {"item": {"role": "user", "content": text}}
    client.post(f"/v1/sessions/{session}/entries", json=sent).raise_for_status()
    for _ in range(2):
        page = client.get(f"/v1/sessions/{session}/entries", timeout=10).raise_for_status()
        assert text in page.text


def test_connections_beyond_the_bound_are_told_to_come_again(serving: Serving) -> None:
    opened = []
    try:
        for _ in range(Bounds().connections):
            client = socket.socket(socket.AF_UNIX)
            opened.append(client)
            client.connect(str(serving.socket))
        told = talk(serving)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in told
    finally:
        for client in opened:
            client.close()
    line = b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    while not talk(serving, line).startswith(b"HTTP/1.1 200 "):
        pass  # until the server has seen that the others are gone

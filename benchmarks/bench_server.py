"""Latency of `sessiondb serve` beside the same calls in the gateway's own process.

One client, one call after another, over a unix socket that is kept open, as the client for Node
does it. Both databases lie on the same disk, at the same durability.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from measure import USER_MESSAGE, Bench, latencies, percentile, size

import sessiondb
from sessiondb import Answer

CALLS = size(200, 3)
KEY = "agent:main:bench:one"
MESSAGES = 200
ANSWER = {"role": "assistant", "content": "noted"}


class Connection(http.client.HTTPConnection):
    """A connection to a unix socket, with JSON in and out."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))

    def call(self, method: str, target: str, body: Any = None) -> Any:
        """Make a call that must succeed. Return its answer."""
        text = None if body is None else json.dumps(body)
        self.request(method, target, text, {"content-type": "application/json"})
        answer = self.getresponse()
        found = answer.read()
        assert answer.status < 300, found
        return json.loads(found) if found else None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Connection]:
    """Start a server, and connect to it."""
    folder = Path(tempfile.mkdtemp(prefix="sdb-"))  # a socket's path is short
    path = folder / "http.sock"
    arguments = ("serve", str(tmp_path / "served.db"), "--json", "--socket", str(path))
    with subprocess.Popen(
        [sys.executable, "-m", "sessiondb", *arguments], stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        connection = Connection(path)
        yield connection
        connection.close()
        server.terminate()
    shutil.rmtree(folder)


def timed(call: Callable[[], object]) -> list[float]:
    """Return how long calls took, one after another, in microseconds."""
    samples = []
    for _ in range(CALLS):
        began = perf_counter()
        call()
        samples.append((perf_counter() - began) * 1e6)
    return samples


def say(bench: Bench, what: str, pairs: list[tuple[list[float], list[float]]]) -> None:
    medians = [(percentile(floor, 0.5), percentile(ours, 0.5)) for floor, ours in pairs]
    bench.say(f"{what}, served beside in process", medians, unit="us")


def test_an_append_over_the_socket(
    bench: Bench, db: sessiondb.SessionDB, served: Connection
) -> None:
    session = bench.run(db.session(KEY))
    served.call("POST", "/v1/sessions", {"key": KEY})
    body = {"item": USER_MESSAGE}

    async def floor() -> list[float]:
        return await latencies(lambda: session.append(USER_MESSAGE), CALLS)

    async def ours() -> list[float]:
        return timed(lambda: served.call("POST", f"/v1/sessions/{KEY}/entries", body))

    say(bench, "append", bench.rounds(floor, ours, 10))


def test_a_context_over_the_socket(
    bench: Bench, db: sessiondb.SessionDB, served: Connection
) -> None:
    """As JSON text: nobody decodes it on either side."""
    session = bench.run(db.session(KEY))
    served.call("POST", "/v1/sessions", {"key": KEY})
    items = [USER_MESSAGE, ANSWER] * (MESSAGES // 2)
    bench.run(session.append_many(items))
    batch = {"items": [{"item": item} for item in items]}

    async def as_json() -> bytes:
        return (await session.context(decode=False)).as_json()

    served.call("POST", f"/v1/sessions/{KEY}/entries/batch", batch)

    async def floor() -> list[float]:
        return await latencies(as_json, CALLS)

    def as_text() -> None:
        served.request("GET", f"/v1/sessions/{KEY}/context")
        served.getresponse().read()

    async def ours() -> list[float]:
        return timed(as_text)

    say(bench, f"context of {MESSAGES} messages as JSON", bench.rounds(floor, ours, 10))


def test_a_turn_over_the_socket(bench: Bench, db: sessiondb.SessionDB, served: Connection) -> None:
    """Accept a message, claim its turn, complete it: three calls."""
    events = count(1)

    async def in_process() -> None:
        await db.accept(KEY, USER_MESSAGE, channel="bench", event_id=str(next(events)))
        turn = await db.claim_turn("main")
        assert turn is not None
        await db.complete_turn(turn.turn_no, Answer(entries=[ANSWER]))

    def over_the_socket() -> None:
        message = {"key": KEY, "message": USER_MESSAGE, "channel": "bench"}
        served.call("POST", "/v1/messages", {**message, "event_id": str(next(events))})
        turn = served.call("POST", "/v1/lanes/main/claim", {})
        answer = {"entries": [{"item": ANSWER}]}
        served.call("POST", f"/v1/turns/{turn['turn_no']}/complete", answer)

    async def floor() -> list[float]:
        return await latencies(in_process, CALLS)

    async def ours() -> list[float]:
        return timed(over_the_socket)

    say(bench, "accept, claim and complete", bench.rounds(floor, ours, 10))

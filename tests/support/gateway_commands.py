"""What the tests of a gateway's commands share: a gateway in a process, and what it works on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sessiondb import events, sync
from tests import ROOT
from tests.support.command_line import TIMEOUT_S, ok

KEY = "agent:main:web:direct:1"

# A gateway that obeys its messages: `hang` holds its turn, `stick` its reply. Any other
# message is answered, and the answer is sent.
GATEWAY = """
import sys, anyio, sessiondb
from sessiondb.gateway.running_turn import Answer

async def main():
    async with sessiondb.open(sys.argv[1], program="test gateway") as db:
        async def handler(turn):
            text = turn.message["content"]
            if text == "hang":
                await turn.renew("thinking about " + turn.session.id)
                print("hanging", flush=True)
                await anyio.sleep_forever()
            entry = {"role": "assistant", "content": "re " + text}
            return Answer(entries=[entry], replies=[("web:1", {"text": text})])

        async def sender(reply):
            if "stick" in reply.payload:
                print("sticking", flush=True)
                await anyio.sleep_forever()
            print("sent", flush=True)
            return "ok"

        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "main", handler)
            group.start_soon(db.run_outbox, sender)

anyio.run(main)
"""


def found(*args: object) -> Any:
    """Return what a command prints as JSON."""
    return json.loads(ok(*args, "--json"))


def lines(*args: object) -> list[dict[str, Any]]:
    """Return the objects of a command that prints one per line."""
    return [json.loads(line) for line in ok(*args, "--json").splitlines()]


def accept(db: Path, *message: str, key: str = KEY, lane: str = "main") -> list[int]:
    """Accept messages. Return their numbers."""
    with sync.open(db) as opened:
        return [
            opened.accept(
                "web", f"{key} {text}", key, {"role": "user", "content": text}, lane=lane
            ).inbox_no
            for text in message
        ]


def emit(db: Path, *texts: str, audience: events.Audience = "operator") -> None:
    """Emit events."""
    with sync.open(db) as opened:
        for text in texts:
            opened.write(
                "test.emit", lambda tx, text=text: events.emit(tx, "recovery_done", audience, text)
            )


def says(process: subprocess.Popen[str], *words: str) -> None:
    """Wait until a gateway has printed each of these words, in any order."""
    assert process.stdout is not None
    assert sorted(process.stdout.readline().strip() for _ in words) == sorted(words)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a gateway."""
    process.send_signal(signal.SIGKILL)
    process.wait(TIMEOUT_S)


GatewayStart = Callable[[], subprocess.Popen[str]]


@contextmanager
def gateways(db: Path) -> Iterator[GatewayStart]:
    """Start gateways on a database. Those that still run are killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, str(db)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.communicate(timeout=TIMEOUT_S)

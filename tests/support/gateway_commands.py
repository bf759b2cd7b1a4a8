"""What the tests of a gateway's commands share: a gateway in a process, and what it works on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sessiondb import events, sync
from sessiondb.gateway import claims, dead_letters, turns
from sessiondb.transcript.entries import draft_entry
from sessiondb.words import (
    Audience,
)
from tests import ROOT
from tests.support import warm
from tests.support.command_line import TIMEOUT_S, ok

EVIL = "\x1b[2Jred\u202e"
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
                key,
                {"role": "user", "content": text},
                channel="web",
                event_id=f"{key} {text}",
                lane=lane,
            ).inbox_no
            for text in message
        ]


def dead_letter(db: Path, inbox_no: int, reason: str) -> None:
    """Give a message of the session `KEY` up."""
    with sync.open(db) as opened:
        session_no = opened.session(KEY).ref.session_no
        opened.write(
            "test.dead_letter",
            lambda tx: dead_letters.dead_letter(tx, inbox_no, session_no, reason),
        )


def hold(db: Path, text: str, *, failing: bool = False) -> None:
    """Leave an interrupted message, of a session whose previous turn failed if `failing`."""
    key = f"agent:main:web:direct:{text}"
    for number in range(1 + failing):
        accept(db, f"{text} {number}", key=key)
        with sync.open(db) as opened:
            turn_no = claim(opened).turn_no
            if number < failing:
                opened.write(
                    "test.fail", partial(turns.fail, turn_no=turn_no, reason="no luck", retry=False)
                )
            else:
                opened.write(
                    "test.interrupt",
                    partial(turns.interrupt, turn_no=turn_no, reason="by the test"),
                )


def claim(opened: sync.SessionDB) -> claims.Started:
    """Begin a turn with the next message of the lane `main`."""
    candidate = opened.read(
        "test.peek", lambda tx: claims.peek(tx, "main", time.time_ns() // 1_000_000)
    )
    assert candidate is not None
    draft = draft_entry(candidate.payload, now_ms=0)
    started = opened.write(
        "test.claim",
        lambda tx: claims.claim(tx, "main", candidate, draft, lease_ms=30_000, timeout_ms=60_000),
    )
    assert started is not None
    return started


def emit(db: Path, *texts: str, audience: Audience = "operator") -> None:
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
        process = warm.Popen(
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

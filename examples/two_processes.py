"""A gateway of two processes on one file, one of which is replaced while messages come.

    python -m examples.two_processes

Shown: any process accepts and any runs, a deploy that interrupts nothing (SIGTERM, `drain`), and
one answer to each message.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio

import sessiondb
from sessiondb import Answer, Reply, SessionDB, Turn

MESSAGES = 40
CONVERSATIONS = 5


# -- a process of the gateway ---------------------------------------------------------------


async def answer(turn: Turn) -> Answer:
    await anyio.sleep(0.01)  # a model's work
    text = f"to {turn.text}"
    return Answer(
        entries=[{"role": "assistant", "content": [{"type": "text", "text": text}]}],
        replies=[("web:7", text)],
    )


async def send(reply: Reply) -> str:
    return f"message {reply.outbox_no}"  # a channel would be called here


async def gateway(path: str) -> None:
    async with sessiondb.open(path, program="gateway") as db, anyio.create_task_group() as group:
        group.start_soon(db.run_recovery)
        for lane in ("main", "resume"):
            group.start_soon(db.run_lane, lane, answer)
        group.start_soon(db.run_outbox, send)
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            print("ready", flush=True)
            async for _ in signals:
                left = await db.drain()
                print(f"interrupted: {len(left.held)}", flush=True)
                group.cancel_scope.cancel()
                break


# -- who starts them, and an adapter --------------------------------------------------------


def start(path: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.two_processes", path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def stop(process: subprocess.Popen[str]) -> str:
    """Stop a process as a deploy does. Return what it said last."""
    process.terminate()
    said, _ = process.communicate(timeout=120)
    return f"{said.strip()}, exit code {process.returncode}"


async def accept_all(db: SessionDB, first: int, last: int) -> None:
    for number in range(first, last):
        key = f"agent:main:web:direct:{number % CONVERSATIONS}"
        message = {"role": "user", "content": f"message {number}"}
        await db.accept(key, message, channel="web", event_id=str(number))


async def all_sent(db: SessionDB) -> list[str]:
    """Wait until every message has its reply."""
    sent = 0
    async for event in db.events("adapter", audience="operator", from_start=True):
        sent += event.kind == "reply_sent"
        if sent == MESSAGES:
            break
    return [reply.message async for reply in db.replies("sent")]


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "gateway.db")
        async with sessiondb.open(path, program="adapter") as db:
            processes = [start(path), start(path)]
            try:
                await accept_all(db, 0, MESSAGES // 2)
                print(await anyio.to_thread.run_sync(stop, processes[0]))
                processes[0] = start(path)
                await accept_all(db, MESSAGES // 2, MESSAGES)
                sent = await all_sent(db)
            finally:
                ends = [stop(process) for process in processes]
            print(*ends, sep="\n")
            print(f"{len(sent)} replies to {len(set(sent))} messages")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        anyio.run(gateway, sys.argv[1])
    else:
        anyio.run(main)

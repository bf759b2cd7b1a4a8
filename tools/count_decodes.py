"""Count how often a gateway decodes the JSON of one message, from `accept` to the end of its turn.

    PYTHONPATH=CHECKOUT python tools/count_decodes.py NEW_DATABASE

Prints one JSON object: the decodes until the handler has read the message, and all of them. Every
call of Python's decoder counts whose text holds the message. A call inside a call does not count.
Arguments are passed by position, because their names differ between versions.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import anyio

import sessiondb

MARK = "a message whose decodes are counted"
KEY = "agent:main:web:1"

calls: list[str] = []
inside = threading.local()


def counted(decode: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a method of the decoder that also records outermost calls with the message's text."""

    def wrapper(self: json.JSONDecoder, text: str, *args: Any, **kwargs: Any) -> Any:
        if getattr(inside, "call", False):
            return decode(self, text, *args, **kwargs)
        if MARK in text:
            calls.append(name)
        inside.call = True
        try:
            return decode(self, text, *args, **kwargs)
        finally:
            inside.call = False

    return wrapper


async def gateway(path: str) -> dict[str, int]:
    """Accept a message and handle it. Count until a second one of its session is handled."""
    until_handler = 0

    async def handler(turn: Any) -> Any:
        nonlocal until_handler
        if turn.message["content"] == MARK:
            until_handler = len(calls)
        else:
            done.set()  # a session has one turn at a time, so the first turn has ended
        answer = {"role": "assistant", "content": [{"type": "text", "text": "an answer"}]}
        return sessiondb.Answer(entries=[answer])

    done = anyio.Event()
    async with sessiondb.open(path) as db, anyio.create_task_group() as tasks:
        tasks.start_soon(db.run_lane, "main", handler)
        await db.accept(KEY, {"role": "user", "content": MARK}, channel="web", event_id="1")
        await db.accept(KEY, {"role": "user", "content": "the next"}, channel="web", event_id="2")
        await done.wait()
        in_all = len(calls)
        tasks.cancel_scope.cancel()
    return {"until_handler": until_handler, "in_all": in_all}


if __name__ == "__main__":
    for method in ("decode", "raw_decode"):
        original = getattr(json.JSONDecoder, method)
        setattr(json.JSONDecoder, method, counted(original, method))
    print(json.dumps(anyio.run(gateway, sys.argv[1])))

"""Open pages and simulated channels.

The only thing of sessiondb here is the key of a conversation.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio.to_thread

from sessiondb import RefusedBySender

Notice = dict[str, Any]

# A page that does not read its notices is closed. It connects again and reads the
# conversation.
NOTICES_WAITING_MAX = 500


def session_key(channel: str, agent: str, conversation: str) -> str:
    """Return the key of a conversation."""
    return f"agent:{agent}:{channel}:direct:{conversation}"


def target_of(key: str) -> str | None:
    """Return the address that a conversation's replies go to: its channel, and its name there.

    None: it is no conversation of this gateway's, for example an imported `agent:main:main`.
    """
    parts = key.split(":", 4)
    return f"{parts[2]}:{parts[4]}" if len(parts) == 5 else None


class Pages:
    """The pages that are open on this process."""

    def __init__(self) -> None:
        self._open: defaultdict[str, set[asyncio.Queue[Notice | None]]] = defaultdict(set)

    def watch(self, session_id: str) -> asyncio.Queue[Notice | None]:
        """Return a queue that gets a session's notices from now on. None in it: come again."""
        page: asyncio.Queue[Notice | None] = asyncio.Queue(NOTICES_WAITING_MAX)
        self._open[session_id].add(page)
        return page

    def unwatch(self, session_id: str, page: asyncio.Queue[Notice | None]) -> None:
        """Forget a page."""
        self._open[session_id].discard(page)
        if not self._open[session_id]:
            del self._open[session_id]

    def tell(self, session_id: str, kind: str, /, **details: Any) -> int:
        """Tell every open page of a session. Return how many there are. Never waits."""
        report = 0
        for page in list(self._open.get(session_id, ())):
            if page.qsize() < NOTICES_WAITING_MAX - 1:
                page.put_nowait({"at_ms": round(time.time() * 1000), **details, "type": kind})
                report += 1
            elif not page.full():
                page.put_nowait(None)
        return report


class SimulatedChannel:
    """A simulated channel that does as its messages say.

    It notes in a file what it was sent. The file is its users' memory and outlives the
    gateway.
    """

    def __init__(self, log: Path | None, delay_s: float) -> None:
        self.log, self.delay_s = log, delay_s
        self._limited_until: dict[str, float] = {}

    async def send(self, line: dict[str, Any]) -> None:
        """Send. Or refuse (`!refuse`), or hang up after it was sent (`!vanish`).

        The first `!limit` is refused, and so is all of its channel for a second: 429.
        """
        self._check_rate(line["target"].partition(":")[0], is_over="!limit" in line["text"])
        if "!refuse" in line["text"]:
            raise RefusedBySender("the simulated channel does not take this message", retry=False)
        await asyncio.sleep(self.delay_s)
        if self.log is not None:
            await anyio.to_thread.run_sync(append_line, self.log, line)
        if "!vanish" in line["text"]:
            raise ConnectionError("the simulated channel hung up before it answered")

    def _check_rate(self, channel: str, *, is_over: bool) -> None:
        now = time.monotonic()
        if is_over:
            self._limited_until.setdefault(channel, now + 1)
        left_s = self._limited_until.get(channel, now) - now
        if left_s > 0:
            raise RefusedBySender("the simulated channel is over its rate", retry_after_s=left_s)


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append a line of JSON in one write, so that a kill leaves all of it or nothing."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line, ensure_ascii=False).encode() + b"\n")
    finally:
        os.close(file)


def in_words(outcome: str, before: int, after: int | None, *, late: bool) -> Notice:
    """Say how a compaction ended."""
    match outcome:
        case "committed":
            text = (
                f"Earlier messages were summarised{', late' if late else ''}: what the model is "
                f"shown went from about {before:,} to {after or 0:,} tokens."
            )
        case "superseded":
            text = "The conversation had moved on. The summary was not needed."
        case _:
            text = "Not summarised: the summary would have been no shorter."
    return {"outcome": outcome, "late": late, "text": text}

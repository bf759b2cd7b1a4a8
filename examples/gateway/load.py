"""Simulated channels whose users remember every acknowledgement.

    python -m examples.gateway.load http://127.0.0.1:8765 --seconds 20 --ledger ledger.jsonl

A message is in the ledger when its 202 has arrived. From then on the gateway owes an
answer, whatever happens to it. A message that was refused (429, 503), or whose gateway
was away, is sent again with the same event id, after the time that the refusal named.
At the end every acknowledged message must be in its transcript, once and in order, with
its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import httpx

from .channels import append_line
from .gateway import AGENTS

CHANNELS = ("discord", "telegram", "feishu")
WORDS = (
    "deploy",
    "failed",
    "again",
    "lunch",
    "please",
    "look",
    "log",
    "whether",
    "lock",
    "held",
    "slow",
    "queue",
    "merge",
    "test",
)
RETRY_MS_MAX = 5_000
ANSWERS_WAIT_S = 60.0


@dataclass
class Ledger:
    """What was acknowledged, in order, and how long that took."""

    path: Path | None = None
    acknowledged: list[dict[str, Any]] = field(default_factory=list)
    accept_ms: list[float] = field(default_factory=list)
    refused: int = 0
    away: int = 0

    def note(self, message: dict[str, Any], receipt: dict[str, Any]) -> None:
        """Remember an acknowledgement."""
        line = {**message, "inbox_no": receipt["inbox_no"], "duplicate": receipt["duplicate"]}
        self.acknowledged.append(line)
        if self.path is not None:
            append_line(self.path, line)


@dataclass(frozen=True)
class Found:
    """What became of the acknowledged messages."""

    acknowledged: int
    lost: int
    twice: int
    out_of_order: int
    unanswered: int
    joined: int
    """Interrupted, and answered together with a later message of their conversation,
    which went on from there.
    """

    @property
    def ok(self) -> bool:
        """True when every acknowledged message is there once, in order, and answered."""
        return self.lost == self.twice == self.out_of_order == self.unanswered == 0


class Load:
    """Conversations that go on until they are told to stop.

    `url` is asked for each time: a gateway may come back elsewhere.
    """

    def __init__(
        self,
        url: Callable[[], str],
        *,
        conversations: int = 12,
        pause_s: float = 0.2,
        ledger: Path | None = None,
        seed: int = 1,
    ) -> None:
        self.url, self.pause_s, self.ledger = url, pause_s, Ledger(ledger)
        self.random = random.Random(seed)
        agents = list(AGENTS)
        self.conversations = [
            {
                "channel": CHANNELS[number % len(CHANNELS)],
                "agent": agents[number % len(agents)],
                "conversation": f"load-{seed}-{number}",
            }
            for number in range(conversations)
        ]

    async def run(self, seconds: float) -> Ledger:
        """Talk for a while. Return what was acknowledged."""
        until = monotonic() + seconds
        async with httpx.AsyncClient(timeout=30.0) as http, asyncio.TaskGroup() as people:
            for where in self.conversations:
                people.create_task(self._talk(http, where, until))
        return self.ledger

    async def _talk(self, http: httpx.AsyncClient, where: dict[str, str], until: float) -> None:
        number = 0
        while monotonic() < until:
            number += 1
            event_id = f"{where['conversation']}-{number}"
            message = {
                **where,
                "event_id": event_id,
                "text": f"<{event_id}> {' '.join(self.random.choices(WORDS, k=20))}",
            }
            await self._say(http, message)
            await asyncio.sleep(self.random.uniform(0, 2 * self.pause_s))

    async def _say(self, http: httpx.AsyncClient, message: dict[str, str]) -> None:
        """Send a message until it is acknowledged.

        It is always the same event, so it is accepted once.
        """
        while True:
            began, wait_ms = perf_counter(), 200.0
            try:
                response = await http.post(self.url() + "/messages", json=message)
            except httpx.TransportError:
                self.ledger.away += 1
            else:
                if response.status_code == 202:
                    self.ledger.accept_ms.append((perf_counter() - began) * 1000)
                    self.ledger.note(message, response.json())
                    return
                if response.status_code not in (429, 503):
                    response.raise_for_status()
                self.ledger.refused += 1
                wait_ms = min(response.json()["retry_after_ms"], RETRY_MS_MAX)
            await asyncio.sleep(wait_ms / 1000)

    async def check(self, *, wait_s: float = ANSWERS_WAIT_S) -> Found:
        """Wait until everything is answered, or for so long.

        Then count what is not as it was promised.

        Raises:
            httpx.TransportError: the gateway is away, and did not come back in that time.
        """
        give_up = monotonic() + wait_s
        async with httpx.AsyncClient(timeout=30.0) as http:
            while True:
                try:
                    found = await self._look(http)
                    if found.unanswered == 0 or monotonic() > give_up:
                        return found
                except httpx.TransportError:
                    if monotonic() > give_up:
                        raise
                await asyncio.sleep(0.2)

    async def _look(self, http: httpx.AsyncClient) -> Found:
        lost = twice = out_of_order = unanswered = joined = 0
        for where in self.conversations:
            promised = [
                line["event_id"]
                for line in self.ledger.acknowledged
                if line["conversation"] == where["conversation"]
            ]
            message = await read(http, f"{self.url()}/conversations/{where['conversation']}", where)
            stored = [item["event_id"] for item in message if item["event_id"] is not None]
            answered = {item["answers"] for item in message}
            lost += len(set(promised) - set(stored))
            twice += len(stored) - len(set(stored))
            out_of_order += [
                event_id for event_id in stored if event_id in set(promised)
            ] != promised
            last = max(
                (index for index, event_id in enumerate(promised, 1) if event_id in answered),
                default=0,
            )
            unanswered += len(promised) - last
            joined += len(set(promised[:last]) - answered)
        return Found(len(self.ledger.acknowledged), lost, twice, out_of_order, unanswered, joined)


async def read(http: httpx.AsyncClient, url: str, where: dict[str, str]) -> list[dict[str, Any]]:
    """Read a whole conversation, from its end."""
    message: list[dict[str, Any]] = []
    page = {"limit": "1000"}
    while True:
        response = await http.get(url, params={**where, **page})
        response.raise_for_status()
        got = response.json()
        message[:0] = got["said"]
        if got["before"] is None:
            return message
        page["before"] = str(got["before"])


async def main(options: argparse.Namespace) -> int:
    """Talk, check, report. 1 if a promise was broken."""
    load = Load(
        lambda: options.url.rstrip("/"),
        conversations=options.conversations,
        pause_s=options.pause,
        ledger=options.ledger,
    )
    ledger = await load.run(options.seconds)
    try:
        found = await load.check()
    except httpx.TransportError as error:
        print(
            f"the gateway at {options.url} is away, so nothing can be checked: {error}",
            file=sys.stderr,
        )
        return 1
    took = sorted(ledger.accept_ms)
    print(
        f"acknowledged   {found.acknowledged:,}  (refused {ledger.refused:,}, away "
        f"{ledger.away:,}; all of those were sent again)"
    )
    if took:
        print(
            f"accept p50/p99 {took[len(took) // 2]:.1f} / {took[int(len(took) * 0.99)]:.1f} ms, "
            "with HTTP"
        )
    for what in ("lost", "twice", "out_of_order", "unanswered", "joined"):
        print(f"{what.replace('_', ' '):<14} {getattr(found, what):,}")
    return 0 if found.ok else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.gateway.load",
        description="Talk to a gateway, and check what it promised.",
    )
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--conversations", type=int, default=12)
    parser.add_argument(
        "--pause",
        type=float,
        default=0.2,
        help="seconds between two messages of a conversation, on average",
    )
    parser.add_argument(
        "--ledger", type=Path, default=None, help="also write what was acknowledged to this file"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse(sys.argv[1:]))))

"""People who talk, and remember what was acknowledged.

A message is repeated, always under the same id, until it is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from .audit import Ledger, text_of
from .plan import Plan
from .processes import Line, Member
from .troubles import ATTIC_LANE

AGENTS = ("main", "coder", "writer")
# How often a message carries a word for the model.
CONTROLS = {"": 89, "!flaky": 4, "!slow": 4, "!empty": 2, "!large": 1}
# A person who hears nothing says it again. One who is not answered goes on after a
# while, but not for ever: so many messages without an answer, and the person waits.
# Otherwise a machine that is too slow for the load would have a queue that only grows.
ACK_S = 20.0
IMPATIENT_S = (0.5, 6.0)
UNANSWERED_MAX = 3
GIVE_UP_S = 30.0
REFUSED_PAUSE_S = 0.5


class People:
    """All conversations of a soak."""

    def __init__(self, plan: Plan, members: Callable[[], list[Member]]) -> None:
        self.plan, self.members = plan, members
        self.chance = random.Random(plan.seed)
        self.ledger = Ledger(plan.text_chars)
        self.talks: list[tuple[str, str]] = []  # name, agent
        self.said: dict[str, int] = {}
        self.programs_said: Counter[str] = Counter()
        self.left: list[str] = []
        """What was sent into a lane that nobody will ever run."""
        self.in_use: set[str] = set()
        self.over = asyncio.Event()
        self.accept_ms: list[float] = []
        self.counted: Counter[str] = Counter()
        self._acks: dict[str, asyncio.Future[Line]] = {}
        self._turns: dict[str, asyncio.Future[Line]] = {}

    async def run(self) -> None:
        """Talk until it is over. Everything that was begun is acknowledged on return."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.plan.people):
                group.create_task(self._person())

    async def _person(self) -> None:
        while not self.over.is_set():
            talk, agent = self._choose()
            self.in_use.add(talk)
            unanswered: set[asyncio.Future[Line]] = set()
            for _ in range(self.chance.randint(*self.plan.messages)):
                if self.over.is_set():
                    break
                unanswered.add(await self._say(talk, agent))
                unanswered = {turn for turn in unanswered if not turn.done()}
                if len(unanswered) >= UNANSWERED_MAX:
                    answered, _ = await asyncio.wait(
                        unanswered, timeout=GIVE_UP_S, return_when="FIRST_COMPLETED"
                    )
                    unanswered = unanswered - answered if answered else set()
                await self._wait(self.chance.uniform(*self.plan.pause_s))
            self.in_use.discard(talk)

    def _choose(self) -> tuple[str, str]:
        """Begin a conversation, or go back to an old one, which may have been archived."""
        old = [talk for talk in self.talks if talk[0] not in self.in_use]
        if old and self.chance.random() < 0.15:
            return self.chance.choice(old)
        self.talks.append((f"t{len(self.talks)}", self.chance.choice(AGENTS)))
        return self.talks[-1]

    async def _say(self, talk: str, agent: str) -> asyncio.Future[Line]:
        """Say the next thing.

        Return, once it is acknowledged and answered or the person impatient, what its
        turn will set.
        """
        self.said[talk] = self.said.get(talk, 0) + 1
        event_id = f"{talk}:{self.said[talk]}"
        control = self.chance.choices(list(CONTROLS), list(CONTROLS.values()))[0]
        self.ledger.sent[event_id] = control
        message = {
            "id": event_id,
            "talk": talk,
            "agent": agent,
            "text": text_of(event_id, self.plan.text_chars, control),
            "lane": "cron" if self.chance.random() < 0.05 else "main",
        }
        turn = self._turns[event_id] = asyncio.get_running_loop().create_future()
        if message["lane"] != "main":
            self.ledger.lanes[event_id] = str(message["lane"])
        await self._until_acknowledged(event_id, message)
        await asyncio.wait([turn], timeout=self.chance.uniform(*IMPATIENT_S))
        return turn

    async def program_says(self, lane: str, times: int = 1) -> int:
        """Have a program send messages into a lane of one conversation. Return how many."""
        in_use = [talk for talk in self.talks if talk[0] in self.in_use]
        if not in_use:
            return 0
        talk, agent = self.chance.choice(in_use)
        for _ in range(times):
            self.programs_said[talk] += 1
            event_id = f"{talk}:{lane}{self.programs_said[talk]}"
            self.ledger.sent[event_id] = ""
            self.ledger.lanes[event_id] = lane
            text = text_of(event_id, self.plan.text_chars)
            message = {"id": event_id, "talk": talk, "agent": agent, "text": text, "lane": lane}
            await self._until_acknowledged(event_id, message)
            if lane == ATTIC_LANE:
                self.left.append(event_id)
        return times

    async def _until_acknowledged(self, event_id: str, message: dict[str, Any]) -> None:
        while True:
            began = time.perf_counter()
            self._acks[event_id] = asyncio.get_running_loop().create_future()
            ready = [member for member in self.members() if member.is_ready]
            if ready and self.chance.choice(ready).send("accept", **message):
                await asyncio.wait([self._acks[event_id]], timeout=ACK_S)
            ack = self._acks.pop(event_id)
            if ack.done() and ack.result()["saw"] == "accepted":
                self.accept_ms.append((time.perf_counter() - began) * 1000)
                self.ledger.acknowledged.setdefault(ack.result()["session"], []).append(event_id)
                self.counted["acknowledged"] += 1
                self.counted["acknowledged, the second time"] += ack.result()["duplicate"]
                return
            self.counted[
                f"refused: {ack.result()['reason']}" if ack.done() else "unheard, said again"
            ] += 1
            await asyncio.sleep(REFUSED_PAUSE_S if ready else 0.05)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)

    def hear(self, line: Line) -> None:
        """Take note of what a gateway said about a message."""
        if line["saw"] == "turn":
            waiting = self._turns.pop(line["id"], None)
        else:
            waiting = self._acks.get(line["id"])
        if waiting is not None and not waiting.done():
            waiting.set_result(line)

    def unheard(self) -> None:
        """Let people repeat what a dead gateway did not acknowledge.

        They use a gateway that runs.
        """
        for event_id, waiting in self._acks.items():
            if not waiting.done():
                waiting.set_result({"saw": "refused", "reason": "the gateway died", "id": event_id})

    def remembered(self) -> dict[str, list[str]]:
        """Return a copy of what was acknowledged by now."""
        return copy.deepcopy(self.ledger.acknowledged)

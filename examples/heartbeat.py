"""A heartbeat and a sub-agent beside a chat.

    python -m examples.heartbeat

Shown: lanes, of which people's goes first, a turn that hands work to another agent, the result
that comes back as a message of its own, and ticks that no crash repeats.
"""

from __future__ import annotations

from typing import Any

import anyio

import sessiondb
from sessiondb import Answer, Reply, SessionDB, Turn

CHAT = "agent:main:web:direct:7"
SENT: list[str] = []


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


class Agents:
    """The handlers of the three lanes."""

    def __init__(self, db: SessionDB) -> None:
        self._db = db
        self.done = anyio.Event()

    async def chat(self, turn: Turn) -> Answer:
        text = str(turn.message["content"])
        if text.startswith("research "):
            await self._begin(turn, text.removeprefix("research "))
            reply = "I have somebody look into it."
        elif turn.channel == "subagent":
            reply = f"It is found: {text}"
        else:
            reply = f"You said: {text}"
        return Answer(entries=[says(reply)], replies=[("web:7", reply)])

    async def _begin(self, turn: Turn, subject: str) -> None:
        """Give a sub-agent its work. A turn that is tried again gives it once."""
        await self._db.accept(
            f"agent:researcher:subagent:{turn.inbox_no}",
            {"role": "user", "content": subject},
            channel="main",
            event_id=f"research:{turn.inbox_no}",
            lane="subagent",
            details={"parent": turn.key},
        )

    async def research(self, turn: Turn) -> Answer:
        """Work, and give the result to the conversation that asked. Twice is once here, too."""
        result = f"all about {turn.message['content']}"
        await self._db.accept(
            turn.details["parent"],
            {"role": "user", "content": result},
            channel="subagent",
            event_id=str(turn.inbox_no),
            by_person=False,
        )
        return Answer(entries=[says(result)])

    async def beat(self, turn: Turn) -> Answer:
        """Look whether there is something to say. Mostly there is not."""
        tick = turn.details["tick"]
        if tick == 3:
            return Answer(entries=[says("ping")], replies=[("web:7", "Are you still there?")])
        return Answer(entries=[says("HEARTBEAT_OK")])

    async def send(self, reply: Reply) -> None:
        SENT.append(reply.message)
        if len(SENT) == 4:
            self.done.set()


async def tick(db: SessionDB, number: int) -> None:
    """Accept a heartbeat. A scheduler calls this, after a crash perhaps twice."""
    await db.accept(
        "agent:main:heartbeat",
        {"role": "user", "content": "Is anything due?"},
        channel="heartbeat",
        event_id=str(number),
        lane="heartbeat",
        details={"tick": number},
    )


async def main() -> None:
    async with sessiondb.temporary(program="heartbeat") as db:
        agents = Agents(db)
        await db.set_lane("subagent", concurrency=2, priority=20)
        await db.set_lane("heartbeat", concurrency=1, priority=90)
        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "main", agents.chat)
            group.start_soon(db.run_lane, "subagent", agents.research)
            group.start_soon(db.run_lane, "heartbeat", agents.beat)
            group.start_soon(db.run_outbox, agents.send)
            for number, text in enumerate(["hello", "research bees"]):
                message = {"role": "user", "content": text}
                await db.accept(CHAT, message, channel="web", event_id=str(number))
            for number in (1, 2, 2, 3):
                await tick(db, number)
            await agents.done.wait()
            await db.drain()
        print(*sorted(SENT), sep="\n")
        beats = await (await db.session("agent:main:heartbeat")).info()
        print(f"{beats.entries} entries of heartbeats")


if __name__ == "__main__":
    anyio.run(main)

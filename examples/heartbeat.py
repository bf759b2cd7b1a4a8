"""A heartbeat and a sub-agent beside a chat.

    python -m examples.heartbeat

Shown: lanes, of which people's goes first, a turn that hands work to another agent, the result
that comes back as a message of its own, and ticks that no crash repeats.
"""

from __future__ import annotations

from typing import Any

import anyio

import sessiondb
from sessiondb import Answer, Ask, Reply, SessionDB, Turn

CHAT = "agent:main:web:direct:7"
SENT: list[str] = []


def says(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


class Agents:
    """The handlers of the three lanes."""

    def __init__(self) -> None:
        self.done = anyio.Event()

    async def chat(self, turn: Turn) -> Answer:
        text = turn.text
        work = []
        if turn.channel == "agent":
            reply = f"It is found: {text}"
        elif text.startswith("research "):
            reply = "I have somebody look into it."
            key = f"agent:researcher:subagent:{turn.inbox_no}"
            task = says("user", text.removeprefix("research "))
            work = [Ask(key, task, lane="subagent", details={"parent": turn.key})]
        else:
            reply = f"You said: {text}"
        return Answer(entries=[says("assistant", reply)], replies=[("web:7", reply)], accept=work)

    async def research(self, turn: Turn) -> Answer:
        """Work, and give the result to the conversation that asked."""
        result = f"all about {turn.text}"
        return Answer(
            entries=[says("assistant", result)],
            accept=[(turn.details["parent"], says("user", result))],
        )

    async def beat(self, turn: Turn) -> Answer:
        """Look whether there is something to say. Mostly there is not."""
        tick = turn.details["tick"]
        if tick == 3:
            return Answer(
                entries=[says("assistant", "ping")], replies=[("web:7", "Are you still there?")]
            )
        return Answer(entries=[says("assistant", "HEARTBEAT_OK")])

    async def send(self, reply: Reply) -> None:
        SENT.append(reply.message)
        if len(SENT) == 4:
            self.done.set()


async def tick(db: SessionDB, number: int) -> None:
    """Accept a heartbeat. A scheduler calls this, after a crash perhaps twice."""
    await db.accept(
        "agent:main:heartbeat",
        says("user", "Is anything due?"),
        channel="heartbeat",
        event_id=str(number),
        lane="heartbeat",
        details={"tick": number},
    )


async def main() -> None:
    async with sessiondb.temporary(program="heartbeat") as db:
        agents = Agents()
        await db.set_lane("subagent", concurrency=2, priority=20)
        await db.set_lane("heartbeat", concurrency=1, priority=90)
        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "main", agents.chat)
            group.start_soon(db.run_lane, "subagent", agents.research)
            group.start_soon(db.run_lane, "heartbeat", agents.beat)
            group.start_soon(db.run_outbox, agents.send)
            for number, text in enumerate(["hello", "research bees"]):
                message = says("user", text)
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

"""An agent of the OpenAI Agents SDK answers while its session is compacted.

    python -m examples.adapters.openai_agents 10

Shown: a session of the SDK in sessiondb, and turns that are answered and stored during a
compaction, which the SDK's own compaction would make wait.
"""

from __future__ import annotations

import asyncio
import sys

from agents import Agent, RunConfig, Runner
from agents.testing import ScriptedModel, assistant_message

import sessiondb
from sessiondb.adapters.openai_agents import SessionDBSession

from . import SlowSummary, beside

EARLIER = 10


async def main(seconds: float) -> None:
    """Fill a session, compact it, and answer meanwhile."""
    answers = [[assistant_message("It is noted. " + "Well. " * 50)] for _ in range(1_000)]
    agent = Agent(name="Clerk", model=ScriptedModel(answers))

    async with sessiondb.temporary(program="openai-agents") as db:
        session = SessionDBSession("user:42", db)

        async def turn(text: str) -> None:
            config = RunConfig(tracing_disabled=True)
            await Runner.run(agent, text, session=session, run_config=config)

        for number in range(EARLIER):
            await turn(f"earlier question {number}")

        summary = SlowSummary(seconds)
        job = asyncio.create_task(session.compact(summary, keep_recent_tokens=200))
        answered = await beside(summary, job, lambda number: turn(f"question {number}"))

        items = await session.get_items()
        texts = [str(item.get("content")) for item in items]
        kept = sum(f"question {number}" in texts for number in range(answered))
        print(f"turns answered while the summary was written: {answered}")
        print(f"of their questions in the context behind it: {kept}")
        print(f"the context begins with: {texts[0][-45:]}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10))

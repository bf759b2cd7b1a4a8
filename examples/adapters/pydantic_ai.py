"""An agent of Pydantic AI answers while its conversation is compacted.

    python -m examples.adapters.pydantic_ai 10

Shown: a conversation in sessiondb, and turns that are answered and saved during a compaction.
"""

from __future__ import annotations

import asyncio
import sys

from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.models.test import TestModel

import sessiondb
from sessiondb.adapters.pydantic_ai import SessionDBConversationStore

from . import SlowSummary, beside

EARLIER = 10
NAME = "user:42"


async def main(seconds: float) -> None:
    """Fill a conversation, compact it, and answer meanwhile."""
    agent = Agent(TestModel(custom_output_text="It is noted. " + "Well. " * 50))
    async with sessiondb.temporary(program="pydantic-ai") as db:
        store = SessionDBConversationStore(db)

        async def turn(text: str) -> None:
            _, conversation = await store.load_compacted(NAME)
            conversation = conversation or Conversation(conversation_id=NAME)
            await store.save(await agent.run(text, conversation=conversation))

        for number in range(EARLIER):
            await turn(f"earlier question {number}")

        summary = SlowSummary(seconds)
        job = asyncio.create_task(store.compact(NAME, summary, keep_recent_tokens=200))
        answered = await beside(summary, job, lambda number: turn(f"question {number}"))

        text, conversation = await store.load_compacted(NAME)
        messages = conversation.messages if conversation else []
        asked = [part.content for message in messages for part in message.parts]
        kept = sum(f"question {number}" in asked for number in range(answered))
        print(f"turns answered while the summary was written: {answered}")
        print(f"of their questions in the context behind it: {kept}")
        print(f"the context begins with: {' '.join(str(text).split())[-45:]}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10))

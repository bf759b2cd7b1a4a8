"""An agent of the Microsoft Agent Framework answers while its history is compacted.

    python -m examples.adapters.agent_framework 10

Shown: the history of a session in sessiondb, and turns that are answered and stored during a
compaction.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agent_framework import Agent, BaseChatClient, ChatResponse, Message

import sessiondb
from sessiondb.adapters.agent_framework import SessionDBHistoryProvider

from . import SlowSummary, beside

EARLIER = 10
SESSION = "user:42"


class ScriptedClient(BaseChatClient[Any]):
    """A model that always says the same."""

    async def _inner_get_response(
        self,
        *,
        messages: Sequence[Message],
        stream: bool,
        options: Mapping[str, Any],
        **kwargs: Any,
    ) -> ChatResponse:
        return ChatResponse(messages=[Message("assistant", ["It is noted. " + "Well. " * 50])])


async def main(seconds: float) -> None:
    """Fill a session, compact it, and answer meanwhile."""
    async with sessiondb.temporary(program="agent-framework") as db:
        history = SessionDBHistoryProvider(db)
        agent = Agent(client=ScriptedClient(), context_providers=[history])
        session = agent.create_session(session_id=SESSION)

        for number in range(EARLIER):
            await agent.run(f"earlier question {number}", session=session)

        summary = SlowSummary(seconds)
        job = asyncio.create_task(history.compact(SESSION, summary, keep_recent_tokens=200))
        answered = await beside(
            summary, job, lambda number: agent.run(f"question {number}", session=session)
        )

        texts = [message.text for message in await history.get_messages(SESSION)]
        kept = sum(f"question {number}" in texts for number in range(answered))
        print(f"turns answered while the summary was written: {answered}")
        print(f"of their questions in the context behind it: {kept}")
        print(f"the context begins with: {' '.join(texts[0].split())[-45:]}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10))

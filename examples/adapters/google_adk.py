"""An agent of Google's ADK answers while its session is compacted.

    python -m examples.adapters.google_adk 10

Shown: sessions of ADK in sessiondb, and turns that are answered and stored while ADK's own
compaction waits for its summary. ADK's own services discard that summary as stale.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

from google.adk.agents import LlmAgent
from google.adk.apps.app import App, EventsCompactionConfig
from google.adk.apps.base_events_summarizer import BaseEventsSummarizer
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.models import BaseLlm, LlmRequest, LlmResponse
from google.adk.runners import Runner
from google.genai import types

import sessiondb
from sessiondb.adapters.google_adk import SessionDBSessionService

from . import SlowSummary, beside

EARLIER = 4
APP, USER, SESSION = "clerk", "42", "one"


def says(role: str, text: str) -> types.Content:
    return types.Content(role=role, parts=[types.Part(text=text)])


class ScriptedModel(BaseLlm):
    """A model that always says the same."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        """Answer."""
        yield LlmResponse(content=says("model", "It is noted."))


class Summarizer(BaseEventsSummarizer):
    """ADK's summarizer, with a slow model."""

    def __init__(self, summary: SlowSummary) -> None:
        self.summary = summary

    async def maybe_summarize_events(self, *, events: list[Event]) -> Event | None:
        """Summarise, at most once."""
        if self.summary.began.is_set():
            return None
        compaction = EventCompaction(
            start_timestamp=events[0].timestamp,
            end_timestamp=events[-1].timestamp,
            compacted_content=says("model", await self.summary(list(events))),
        )
        return Event(author="user", actions=EventActions(compaction=compaction))


async def main(seconds: float) -> None:
    """Let a turn begin a compaction, and answer meanwhile."""
    summary = SlowSummary(seconds)
    config = EventsCompactionConfig(
        summarizer=Summarizer(summary), compaction_interval=EARLIER, overlap_size=0
    )
    agent = LlmAgent(name=APP, model=ScriptedModel(model="scripted"))
    app = App(name=APP, root_agent=agent, events_compaction_config=config)

    async with sessiondb.temporary(program="google-adk") as db:
        service = SessionDBSessionService(db)
        runner = Runner(app=app, session_service=service)
        await service.create_session(app_name=APP, user_id=USER, session_id=SESSION)

        async def turn(text: str) -> None:
            message = says("user", text)
            async for _ in runner.run_async(user_id=USER, session_id=SESSION, new_message=message):
                pass

        for number in range(EARLIER - 1):
            await turn(f"earlier question {number}")

        # ADK compacts at the end of a turn, so this turn takes as long as the summary.
        job = asyncio.create_task(turn("the question that begins a compaction"))
        answered = await beside(summary, job, lambda number: turn(f"question {number}"))

        session = await service.get_session(app_name=APP, user_id=USER, session_id=SESSION)
        events = session.events if session is not None else []
        texts = [part.text for event in events if event.content for part in event.content.parts]
        kept = sum(f"question {number}" in texts for number in range(answered))
        print(f"turns answered while the summary was written: {answered}")
        print(f"of their questions in the session behind it: {kept}")
        compactions = [event for event in events if event.actions.compaction]
        print(f"ADK's compaction covers {summary.asked} events, {len(compactions)} is stored")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10))

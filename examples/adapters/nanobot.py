"""An agent of nanobot answers while its session is compacted.

    python -m examples.adapters.nanobot 10

Shown: sessions of nanobot in sessiondb, and turns that are answered and stored while nanobot's own
compaction of the session waits for its summary. `nanobot_gateway` is the whole gateway.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from loguru import logger
from nanobot.agent.loop import AgentLoop
from nanobot.bus.queue import MessageBus
from nanobot.config.loader import load_config, set_config_path
from nanobot.providers.base import LLMProvider, LLMResponse
from nanobot.session.manager import SessionManager

import sessiondb.sync
from sessiondb.adapters.nanobot import SessionDBStore

from . import SlowSummary, beside

EARLIER = 10
KEY = "cli:42"
writes_summary: ContextVar[SlowSummary | None] = ContextVar("writes_summary", default=None)
"""Set in the task of the compaction: nanobot asks the same model for a summary."""


class ScriptedModel(LLMProvider):
    """A model that always says the same. A summary takes its time."""

    async def chat(self, messages: list[dict[str, Any]], *args: Any, **kwargs: Any) -> LLMResponse:
        """Answer, or summarise."""
        summary = writes_summary.get()
        return LLMResponse(await summary(list(messages)) if summary else "It is noted.")

    def get_default_model(self) -> str:
        """Return its name."""
        return "scripted"


async def main(seconds: float, folder: Path, db: sessiondb.sync.SessionDB) -> None:
    """Fill a session, let nanobot compact it as it does with an idle one, and answer meanwhile."""
    sessions = SessionManager(folder / "workspace", store=SessionDBStore(db))
    model = ScriptedModel(provider_name="scripted")
    agent = AgentLoop(
        bus=MessageBus(),
        provider=model,
        workspace=sessions.workspace,
        tools_config=load_config().tools,
        session_manager=sessions,
    )

    async def turn(text: str) -> None:
        await agent.process_direct(text, session_key=KEY, channel="cli", chat_id="42")

    async def compact(summary: SlowSummary) -> None:
        writes_summary.set(summary)
        runtime = agent.runtime_for_session(sessions.get_or_create(KEY))
        await agent.consolidator.compact_idle_session(KEY, runtime=runtime)

    for number in range(EARLIER):
        await turn(f"earlier question {number}")

    summary = SlowSummary(seconds)
    job = asyncio.create_task(compact(summary))
    answered = await beside(summary, job, lambda number: turn(f"question {number}"))

    # As after a restart: nothing is in memory.
    restarted = SessionManager(sessions.workspace, store=SessionDBStore(db)).get_or_create(KEY)
    shown = restarted.get_history(include_runtime_context=False)
    asked = [message["content"] for message in shown if message["role"] == "user"]
    kept = sum(f"question {number}" in asked for number in range(answered))
    stored = sum(message["role"] == "user" for message in restarted.messages)
    print(f"turns answered while the summary was written: {answered}")
    print(f"of their questions in the context behind it: {kept}")
    print(f"the summary: {restarted.metadata['_last_summary']['text']}, of {stored} questions")


if __name__ == "__main__":
    logger.remove()
    with tempfile.TemporaryDirectory() as name, sessiondb.sync.temporary(program="nanobot") as db:
        set_config_path(Path(name) / "config.json")
        asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10, Path(name), db))

"""An agent of the Claude Agent SDK answers while a session of its project is compacted.

    python -m examples.adapters.claude_agent_sdk 10

Shown: transcripts that the SDK mirrors into sessiondb. The CLI compacts a transcript itself, and
the lines of other sessions, and of its subagent, are stored meanwhile. The CLI is scripted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from claude_agent_sdk import (
    ClaudeAgentOptions,
    Transport,
    get_session_messages_from_store,
    project_key_for_directory,
    query,
)

import sessiondb
from sessiondb.adapters.claude_agent_sdk import SessionDBStore

from . import SlowSummary, beside

CONFIG = Path("/scripted")
PROJECT = project_key_for_directory(".")
COMPACTED, TALKED, SUBAGENT = str(uuid.uuid4()), str(uuid.uuid4()), "subagents/agent-1"


class ScriptedCLI(Transport):
    """Speaks as the CLI does: it mirrors the lines that it would write to its file, and answers."""

    def __init__(self, session: str, parent: str | None, summary: SlowSummary | None) -> None:
        self.session, self.parent, self.summary = session, parent, summary
        self.send, self.receive = anyio.create_memory_object_stream[dict[str, Any]](100)

    async def connect(self) -> None:
        """Do nothing: there is no process."""

    async def write(self, data: str) -> None:
        """Take a request of the SDK, or a user's message."""
        asked = json.loads(data)
        if asked["type"] == "control_request":
            done = {"subtype": "success", "request_id": asked["request_id"], "response": {}}
            await self.send.send({"type": "control_response", "response": done})
        elif asked["type"] == "user":
            await self._turn(asked["message"]["content"])

    async def _turn(self, text: str) -> None:
        await self._mirror("user", text)
        if self.summary is not None:
            await self._mirror("assistant", await self.summary([text]))
        else:
            await self._mirror("assistant", "It is noted.")
            await self._mirror("assistant", "A thought.", f"{self.session}/{SUBAGENT}")
        result = {"subtype": "success", "is_error": False, "num_turns": 1, "duration_ms": 1}
        await self.send.send(
            {"type": "result", "duration_api_ms": 1, "session_id": self.session, **result}
        )
        self.send.close()

    async def _mirror(self, role: str, text: str, path: str = "") -> None:
        line = {
            "type": role,
            "uuid": str(uuid.uuid4()),
            "parentUuid": self.parent if not path else None,
            "sessionId": self.session,
            "timestamp": "2026-01-01T00:00:00.000Z",
            "message": {"role": role, "content": [{"type": "text", "text": text}]},
        }
        if not path:
            self.parent = line["uuid"]
        file = CONFIG / "projects" / PROJECT / f"{path or self.session}.jsonl"
        await self.send.send(
            {"type": "transcript_mirror", "filePath": str(file), "entries": [line]}
        )

    def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Return what the CLI says."""
        return self.receive

    async def close(self) -> None:
        """End."""
        self.send.close()
        self.receive.close()

    def is_ready(self) -> bool:
        """Say yes."""
        return True

    async def end_input(self) -> None:
        """Do nothing."""


async def main(seconds: float) -> None:
    """Compact one session, and answer in another one meanwhile."""
    async with sessiondb.temporary(program="claude-agent-sdk") as db:
        store = SessionDBStore(db)
        options = ClaudeAgentOptions(
            session_store=store, env={"CLAUDE_CONFIG_DIR": str(CONFIG)}, session_store_flush="eager"
        )
        last: dict[str, str | None] = {COMPACTED: None, TALKED: None}

        async def turn(session: str, text: str, summary: SlowSummary | None = None) -> None:
            cli = ScriptedCLI(session, last[session], summary)
            async for _ in query(prompt=text, options=options, transport=cli):
                pass
            last[session] = cli.parent

        await turn(COMPACTED, "an earlier question")
        summary = SlowSummary(seconds)
        job = asyncio.create_task(turn(COMPACTED, "/compact", summary))
        answered = await beside(summary, job, lambda number: turn(TALKED, f"question {number}"))

        talked = await get_session_messages_from_store(store, TALKED)
        compacted = await get_session_messages_from_store(store, COMPACTED)
        subagent = await store.load(
            {"project_key": PROJECT, "session_id": TALKED, "subpath": SUBAGENT}
        )
        print(f"turns answered while the summary was written: {answered}")
        print(f"of their lines in the store: {len(talked)}, of subagents: {len(subagent or [])}")
        print(f"the compacted session ends with: {compacted[-1].message['content'][0]['text']}")


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10))

"""Microsoft Agent Framework's `HistoryProvider`, on sessiondb.

    async with sessiondb.open("gateway.db") as db:
        agent = Agent(client=client, context_providers=[SessionDBHistoryProvider(db)])
        await agent.run("hello", session=agent.create_session(session_id="user:42"))

Messages are stored as the framework writes them (`Message.to_dict`), and come back so.
`save_messages` is one durable transaction. A new process goes on with the session's id.

A compaction is sessiondb's (`compact`): messages are saved and read while the summary is written.
The framework's own `CompactionProvider` changes lists in memory, and so is of no use here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from sessiondb import CompactionResult, Session, SessionDB

from . import Needs
from ._shared import summarised, text, tool_result, tool_use

with Needs("agent-framework"):
    from agent_framework import Content, HistoryProvider, Message

__all__ = ["NAMESPACE", "SessionDBHistoryProvider"]

NAMESPACE = "agent-framework"
"""Under which `db.session_for` finds a session by the framework's id."""

_FIELD = "agentFramework"


class SessionDBHistoryProvider(HistoryProvider):
    """The history of each session of an agent, in a database that is open."""

    DEFAULT_SOURCE_ID: ClassVar[str] = "sessiondb"

    def __init__(
        self,
        db: SessionDB,
        source_id: str | None = None,
        *,
        namespace: str = NAMESPACE,
        **flags: Any,
    ) -> None:
        """Provide the histories of a database. `flags` are those of `HistoryProvider`."""
        super().__init__(source_id or self.DEFAULT_SOURCE_ID, **flags)
        self.db = db
        self.namespace = namespace

    async def stored(self, session_id: str) -> Session:
        """Return the handle of a session in the database. Create it if it is new. Durable."""
        return await self.db.session_for(self.namespace, session_id, format="anthropic")

    async def get_messages(
        self, session_id: str | None, *, state: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Message]:
        """Return the messages of the context, oldest first. A compaction's summary is the first."""
        if session_id is None:
            return []
        session = await self.db.find((self.namespace, session_id))
        if session is None:
            return []
        return [_message(stored) for stored in (await session.context(raw=True)).messages]

    async def save_messages(
        self,
        session_id: str | None,
        messages: Sequence[Message],
        *,
        state: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append messages in one transaction, 1,000 at most. Durable. Waits for no compaction."""
        if session_id is not None and messages:
            session = await self.stored(session_id)
            await session.append_many([_stored(message) for message in messages])

    async def compact(
        self,
        session_id: str,
        summarize: Callable[[list[Message]], Awaitable[str]],
        **options: Any,
    ) -> CompactionResult:
        """Replace the older messages by a summary of them. Messages are saved meanwhile.

        `options` and errors are those of `sessiondb.Session.compact`.
        """
        return await summarised(await self.stored(session_id), summarize, _message, options)


def _stored(message: Message) -> dict[str, Any]:
    """Return a message of Anthropic's format, with the original."""
    role = message.role if message.role in ("assistant", "system") else "user"
    content = [_block(each) for each in message.contents]
    return {"role": role, "content": content, _FIELD: message.to_dict()}


def _block(content: Content) -> dict[str, Any]:
    match content.type:
        case "function_call":
            return tool_use(content.call_id, content.name, content.parse_arguments() or {})
        case "function_result":
            return tool_result(content.call_id, str(content.result or ""))
        case _:
            return text(str(content.text or ""))


def _message(stored: dict[str, Any]) -> Message:
    """Return the framework's message. A summary, and what is summarised, is made of its blocks."""
    if _FIELD in stored:
        return Message.from_dict(stored[_FIELD])
    content = stored["content"]
    blocks = [text(content)] if isinstance(content, str) else content
    return Message(stored["role"], [_content(block) for block in blocks])


def _content(block: dict[str, Any]) -> Content:
    match block["type"]:
        case "tool_use":
            return Content.from_function_call(block["id"], block["name"], arguments=block["input"])
        case "tool_result":
            return Content.from_function_result(block["tool_use_id"], result=block["content"])
        case _:
            return Content.from_text(block["text"])

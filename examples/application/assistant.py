"""A shop's assistant: what an application writes of its own, apart from channels and models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sessiondb import Answer, RefusedBySender, Reply, ResetPolicy, SessionDB, Turn

Model = Callable[[list[dict[str, Any]]], Awaitable[str]]
Channel = Callable[[str, str], Awaitable[None]]


class ChannelAway(Exception):
    """Raised by a channel that took nothing."""


class Assistant:
    """Answers people of a shop's web page."""

    def __init__(self, db: SessionDB, model: Model, channel: Channel) -> None:
        self._db, self._model, self._channel = db, model, channel

    async def hear(self, visitor: str, event_id: str, text: str) -> None:
        """Take a visitor's message. A conversation begins anew each day."""
        key = f"agent:shop:web:direct:{visitor}"
        await self._db.reset_if_due(key, ResetPolicy(mode="daily"))
        await self._db.accept(
            key,
            {"role": "user", "content": text},
            channel="web",
            event_id=event_id,
            details={"visitor": visitor},
        )

    async def answer(self, turn: Turn) -> Answer:
        context = await turn.session.context()
        text = await self._model(context.messages)
        return Answer(
            entries=[{"role": "assistant", "content": [{"type": "text", "text": text}]}],
            replies=[("web", {"text": text})],
        )

    async def send(self, reply: Reply) -> None:
        try:
            await self._channel(reply.details["visitor"], reply.message["text"])
        except ChannelAway as away:
            raise RefusedBySender(str(away)) from away

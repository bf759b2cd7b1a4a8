"""One program a framework: a compaction in flight while messages are appended and answered.

    python -m examples.adapters.openai_agents 10

Each has a scripted model and reaches no network. The number is the seconds that the summary takes.
`docs/adapters.md` says what to install.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

TURNS = 3  # that are answered while the summary is written, at least


class SlowSummary:
    """A model that takes its time. It ends no earlier than some turns that ran beside it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.asked = 0
        """Messages that it was asked to summarise."""

    async def __call__(self, messages: list[object]) -> str:
        """Summarise."""
        self.asked = len(messages)
        self.began.set()
        await asyncio.sleep(self.seconds)
        await self.may_end.wait()
        return f"A summary of {len(messages)} messages."


async def beside(
    summary: SlowSummary, compaction: asyncio.Task[object], turn: Callable[[int], Awaitable[object]]
) -> int:
    """Run turns from the beginning of a compaction to its end. Return how many were answered."""
    began = asyncio.ensure_future(summary.began.wait())
    await asyncio.wait([began, compaction], return_when=asyncio.FIRST_COMPLETED)
    began.cancel()
    answered = 0
    while not compaction.done():
        await turn(answered)
        answered += 1
        if answered == TURNS:
            summary.may_end.set()
        if answered >= TURNS:
            await asyncio.wait([compaction], timeout=summary.seconds / 10)
    await compaction
    return answered

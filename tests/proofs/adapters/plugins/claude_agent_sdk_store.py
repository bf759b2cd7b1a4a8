"""A plugin of pytest: the SDK's store in memory is sessiondb's store in each of its tests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import claude_agent_sdk
import claude_agent_sdk._internal.session_store

import sessiondb
from sessiondb.adapters.claude_agent_sdk import SessionDBStore


class InMemorySessionStore(SessionDBStore):
    """sessiondb's store, made as the SDK's own one is."""

    def __init__(self) -> None:
        super().__init__(sessiondb.temporary().open_now())

    def get_entries(self, key: Any) -> list[Any]:
        """Return the lines of a transcript, as the SDK's own store does for its tests."""
        return elsewhere(self.load, key) or []

    @property
    def size(self) -> int:
        """Return the number of main transcripts, likewise."""

        async def count() -> int:
            names = [str(info.namespace) async for info in self.db.sessions()]
            return sum(name.count("/") == 1 for name in names)

        return elsewhere(count)


def elsewhere(call: Any, *arguments: Any) -> Any:
    """Run a coroutine function on an event loop of another thread, from inside of a loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, call, *arguments).result()


for module in (claude_agent_sdk, claude_agent_sdk._internal.session_store):
    module.InMemorySessionStore = InMemorySessionStore

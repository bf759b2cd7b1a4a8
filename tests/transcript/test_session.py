"""The handle of a session: large items and pages stay off the event loop."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.messages import UserMessage
from sessiondb.transcript import entries
from sessiondb.transcript import session as session_module


@pytest.mark.anyio
async def test_large_messages_and_pages_stay_off_the_event_loop(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[int]] = {"encode": set(), "page": set()}
    encode, page = entries.message_json, session_module._entries

    def noted(what: str, call: Any) -> Any:
        def run(*args: Any) -> Any:
            threads[what].add(threading.get_ident())
            return call(*args)

        return run

    monkeypatch.setattr(entries, "message_json", noted("encode", encode))
    monkeypatch.setattr(session_module, "_entries", noted("page", page))
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        await session.append(UserMessage(content="x" * 100_000))
        await session.append_many([UserMessage(content="x")] * 30)
        assert len(await session.entries()) == len(await session.all_entries()) - 1 == 31
    for found in threads.values():
        assert found
        assert threading.get_ident() not in found

"""The session store of the Claude Agent SDK. `make adapters` runs these beside its suite."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import sessiondb

from .programs import Program

pytest.importorskip("claude_agent_sdk", reason="the Claude Agent SDK is missing: make adapters")

from sessiondb.adapters.claude_agent_sdk import SessionDBStore

ONE: Any = {"project_key": "p", "session_id": "one"}
OTHER: Any = {"project_key": "p/one", "session_id": "one"}


def lines(*names: str) -> list[Any]:
    return [{"type": "user", "uuid": name, "n": [None, 1.5]} for name in names]


def test_a_batch_that_is_sent_again_is_stored_once() -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            store = SessionDBStore(db)
            await store.append(OTHER, lines("a"))
            await store.append(ONE, lines("a", "b"))
            await store.append(ONE, [*lines("a", "b", "c"), {"type": "title"}])
            assert await store.load(ONE) == [*lines("a", "b", "c"), {"type": "title"}]
            assert await store.load(OTHER) == lines("a")

    asyncio.run(run())


def test_two_processes_that_append_at_once_lose_neither_line_nor_summary() -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            first, second = SessionDBStore(db), SessionDBStore(db)
            await asyncio.gather(
                *(
                    store.append(ONE, lines(f"{number}{store is first}"))
                    for number in range(20)
                    for store in (first, second)
                )
            )
            assert len(await first.load(ONE) or []) == 40
            [summary] = await second.list_session_summaries("p")
            [listed] = await second.list_sessions("p")
            assert summary["mtime"] >= listed["mtime"]
            assert await second.list_session_summaries("p/one") == []

    asyncio.run(run())


def test_a_project_of_any_length_has_a_namespace_of_its_own() -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            store = SessionDBStore(db)
            keys: list[Any] = [
                {"project_key": name, "session_id": "s", "subpath": "subagents/a"}
                for name in ("x" * 300, "x" * 301, "a/b", "a%2Fb")
            ]
            for number, key in enumerate(keys):
                await store.append(key, lines(str(number)))
            loaded = [await store.load(key) for key in keys]
            assert loaded == [lines(str(number)) for number in range(4)]

    asyncio.run(run())


def test_the_program_answers_while_a_session_is_compacted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program("claude_agent_sdk", capsys, monkeypatch)
    answered = program.answered
    assert (
        program.second == f"of their lines in the store: {2 * answered}, of subagents: {answered}"
    )
    assert program.third == "the compacted session ends with: A summary of 1 messages."

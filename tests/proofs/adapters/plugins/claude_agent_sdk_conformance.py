"""The SDK's conformance suite, which it ships for stores of others: a new store each contract."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest
from claude_agent_sdk.testing import run_session_store_conformance

import sessiondb
from sessiondb.adapters.claude_agent_sdk import SessionDBStore


@pytest.fixture
def databases() -> Iterator[list[sessiondb.SessionDB]]:
    opened: list[sessiondb.SessionDB] = []
    yield opened
    for db in opened:
        db.close_now()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_store_keeps_every_contract(databases: list[sessiondb.SessionDB], backend: str) -> None:
    def new_store() -> SessionDBStore:
        databases.append(sessiondb.temporary().open_now())
        return SessionDBStore(databases[-1])

    anyio.run(run_session_store_conformance, new_store, backend=backend)
    assert len(databases) > 14  # each of the contracts has asked for one

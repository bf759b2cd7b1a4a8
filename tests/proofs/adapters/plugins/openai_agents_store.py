"""A plugin of pytest: the SDK's `SQLiteSession` is sessiondb's session in each of its tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import agents
import agents.memory
import agents.memory.sqlite_session

import sessiondb
from sessiondb.adapters.openai_agents import SessionDBSession


class SQLiteSession(SessionDBSession):
    """sessiondb's session, made as the SDK's own one is."""

    def __init__(
        self,
        session_id: str,
        db_path: str | Path = ":memory:",
        *_tables: str,
        session_settings: Any = None,
        **_names: str,
    ) -> None:
        in_memory = str(db_path) == ":memory:"
        db = sessiondb.temporary() if in_memory else sessiondb.shared(db_path)
        super().__init__(session_id, db.open_now(), session_settings=session_settings)
        self.db_path = db_path

    def close(self) -> None:
        """Close the database, as the SDK's own session does."""
        self.db.close_now()


for module in (agents, agents.memory, agents.memory.sqlite_session):
    module.SQLiteSession = SQLiteSession

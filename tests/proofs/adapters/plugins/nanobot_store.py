"""A plugin of pytest: a `SessionManager` that is given no store has sessiondb's in each test."""

from __future__ import annotations

from typing import Any

from nanobot.session.manager import SessionManager

import sessiondb.sync
from sessiondb.adapters.nanobot import SessionDBStore

_make = SessionManager.__init__


def _with_sessiondb(self: SessionManager, *args: Any, **kwargs: Any) -> None:
    _make(self, *args, **kwargs)
    if self._store is self._jsonl_store:  # made by the manager itself
        db = sessiondb.sync.shared(self.sessions_dir / "sessions.db")
        db.__enter__()
        self._store = SessionDBStore(db)


SessionManager.__init__ = _with_sessiondb

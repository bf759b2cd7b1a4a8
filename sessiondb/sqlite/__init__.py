"""The SQLite engine: one file in WAL mode, one writer thread, a few reader threads.

Nothing else imports apsw.
"""

from .engine import SqliteBackend

__all__ = ["SqliteBackend"]

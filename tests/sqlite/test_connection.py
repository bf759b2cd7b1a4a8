"""The SQLite library that a connection may use."""

from __future__ import annotations

import pytest

from sessiondb.errors import UnsafeSQLite
from sessiondb.sqlite.connection import refuse_unsafe_library


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.7.0", False),
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.45.1", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.0", False),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.53.0", True),
        ("3.54.1", True),
        ("4.0.0", True),
    ],
)
def test_sqlite_with_the_wal_reset_bug_is_refused(version: str, safe: bool) -> None:
    if safe:
        refuse_unsafe_library(version)
    else:
        with pytest.raises(UnsafeSQLite, match=rf"SQLite {version} has the WAL-reset bug"):
            refuse_unsafe_library(version)

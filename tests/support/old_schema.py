"""A database as the first release made it.

It has that release's schema, and today's rows under their old names.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from sessiondb.sqlite.connection import drain
from sessiondb.sqlite.schema import migrations

# What had another name in schema 1: tables, and columns of tables by their names of then.
TABLES = {"source": "import_file"}
COLUMNS = {
    ("session", "entries"): "last_seq",
    ("source", "source_no"): "import_file_no",
    ("quarantine", "source_no"): "import_file_no",
}
SETTINGS = "PRAGMA page_size = 4096; PRAGMA auto_vacuum = incremental; PRAGMA journal_mode = wal"


def as_first_release(newer: Path, path: Path) -> None:
    """Write what a database of today holds into a new file of schema 1."""
    with closing(apsw.Connection(str(path))) as connection:
        drain(connection, SETTINGS)
        drain(connection, migrations()[0][1])
        connection.execute("ATTACH ? AS newer", (str(newer),)).fetchall()
        tables = drain(
            connection,
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
        )
        with connection:
            for (table,) in tables:
                info = drain(connection, f"PRAGMA main.table_info({table})")
                old = [name for _, name, *_ in info]
                new = [COLUMNS.get((table, name), name) for name in old]
                drain(
                    connection,
                    f"INSERT INTO main.{table} ({', '.join(old)}) "
                    f"SELECT {', '.join(new)} FROM newer.{TABLES.get(table, table)}",
                )
        assert connection.pragma("user_version") == 1

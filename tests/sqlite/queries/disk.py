"""Cases of queries/disk.sql."""

from __future__ import annotations

from tests.support.statement_cases import Change, Guard, Page, Read, without
from tests.support.world import Row, World

CHANGES: list[Change] = []
GUARDS: list[Guard] = []
PAGES: list[Page] = []


def objects(world: World) -> list[Row]:
    rows = world.connection.execute(
        "SELECT name, tbl_name FROM sqlite_schema WHERE type IN ('table', 'index')"
        " AND name <> 'search' ORDER BY name"
    ).fetchall()
    return [{"name": name, "table_name": table} for name, table in rows]


def archived(world: World) -> list[Row]:
    return [{"bytes": sum(row["bytes_stored"] for _, row in world.rows("archive"))}]


READS = [
    Read("disk.can_measure", "apsw brings it", {}, [{"can": 1}]),
    Read("disk.objects", "all that have pages", {}, objects),
    Read("disk.pages", "one table", {"name": "wal_link"}, [{"bytes": 4096}]),
    Read("disk.pages", "none", {"name": "nothing"}, [{"bytes": 0}]),
    Read("disk.archived", "all", {}, archived),
    Read("disk.archived", "none", {}, [{"bytes": 0}], without("archive")),
]

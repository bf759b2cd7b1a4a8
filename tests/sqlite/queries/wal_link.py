"""Cases of queries/wal_link.sql."""

from __future__ import annotations

from tests.support.statement_cases import Change, Guard, Page, Read

NAME = "0123456789abcdef" * 2

CHANGES = [
    Change(
        "wal_link.renew",
        "its one row",
        lambda _w, tx: tx.run("wal_link.renew", current=NAME),
        lambda w: {"wal_link 1": {"previous": w.row("wal_link 1")["current"], "current": NAME}},
    ),
]
GUARDS: list[Guard] = []
PAGES: list[Page] = []
READS = [
    Read(
        "wal_link.current",
        "its one row",
        {},
        lambda w: [{"current": w.row("wal_link 1")["current"]}],
    ),
]

"""What the attacks of tests/security/ share.

Each attack runs against a real file. Afterwards the file and its folder are compared with what
they were: a refusal with a changed byte is a success of the attack. For each wall, a test takes
it down and shows that the harness then reports the attack. `SESSIONDB_ATTACKS` raises the number
of random statements (`make fuzz`).

Not modelled: another process of the same user (it may do all that this one may), and timing.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
from click.testing import CliRunner

import sessiondb
import sessiondb.sync
from sessiondb.cli.program import program

ATTACKS = int(os.environ.get("SESSIONDB_ATTACKS", "200"))
IS_LONG = ATTACKS > 1_000
SEED = int(os.environ.get("SESSIONDB_ATTACKS_SEED", "20261120"))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(
        program, [str(argument) for argument in arguments], prog_name="sessiondb"
    )


def fill(path: Path) -> None:
    """Make a small database with something in most tables."""
    with sessiondb.sync.open(path, program="test") as db:
        session = db.session("agent:main:web:direct:jo")
        session.append_many([{"role": "user", "content": f"word {number}"} for number in range(5)])
        session.fork()
        db.accept(
            "agent:main:web:direct:jo",
            {"role": "user", "content": "hi"},
            channel="web",
            event_id="e1",
        )


def content_of(path: Path) -> dict[str, list[Any]]:
    """Return the schema and every row of a database, but for those that opening it changes."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as opened:
        names = [
            name
            for (name,) in opened.execute(
                # An index for a search shows the texts of the entries.
                "select name from sqlite_schema"
                " where type = 'table' and name <> 'search' order by name"
            )
        ]
        rows = {name: sorted(opened.execute(f'select * from "{name}"'), key=repr) for name in names}
        rows["schema"] = list(
            opened.execute("select type, name, tbl_name, sql from sqlite_schema order by 1, 2")
        )
    return {
        name: found
        for name, found in rows.items()
        if name not in ("instance", "wal_link", "sqlite_sequence", "event_cursor", "lane")
    }


ENDLESS = "with recursive c(n) as (select 1 union all select n + 1 from c) "

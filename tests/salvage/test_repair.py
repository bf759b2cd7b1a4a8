"""Numbers that were assigned are not assigned again, whatever is lost."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw

from sessiondb import sync
from tests.support.core import user
from tests.support.damage import (
    Truth,
    pages_of,
    salvaged,
    zero_pages,
)


def test_messages_line_up_behind_what_was_salvaged(sound: Truth, broken: Path, new: Path) -> None:
    """The message, or the turn, that others waited for may be lost."""
    zero_pages(broken, *pages_of(sound, "turn"))
    with closing(apsw.Connection(str(broken))) as db:
        db.execute("UPDATE inbox SET waits = 1 - waits WHERE state = 'queued'").fetchall()
    salvaged(broken, new)
    with sync.open(new) as opened:
        assert opened.write("test", lambda tx: tx.run("inbox.line_up_all")) == 0
        assert "queue" not in {finding.check for finding in opened.verify().findings}


def test_assigned_numbers_are_not_assigned_again(sound: Truth, broken: Path, new: Path) -> None:
    zero_pages(broken, *pages_of(sound, "inbox") | pages_of(sound, "sqlite_sequence"))
    with closing(apsw.Connection(str(sound.path))) as db:
        [(last,)] = db.execute(
            "SELECT max(CAST(substr(idempotency_key, 7) AS INTEGER)) FROM entry"
            " WHERE idempotency_key GLOB 'inbox:*'"
        )
    salvaged(broken, new)
    with sync.open(new) as db:
        taken = db.accept("web", "later", "agent:main:more:0", user("later"))
    assert taken.inbox_no > last  # a number of before would find the entry that has its key

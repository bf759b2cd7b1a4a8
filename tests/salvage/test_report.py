"""What a salvage reports: the names of rows and of pages, in words."""

from __future__ import annotations

import pytest

from sessiondb.salvage.rebuild import MARK
from sessiondb.salvage.report import name_row


@pytest.mark.parametrize(
    ("table", "values", "name"),
    [
        ("inbox", {"inbox_no": 7, "channel": "discord", "event_id": "e1"}, "message 7, discord e1"),
        ("inbox", {"inbox_no": 7, "channel": None, "event_id": "e1"}, "7"),
        ("entry", {"entry_no": 3 << 32 | 5}, "session number 3, seq 5"),
        ("binding", {"session_key": "agent:main:main"}, "agent:main:main"),
        ("event_cursor", {"consumer": "c" * 100}, "c" * 80),
        ("lane", {"lane": None}, "unknown"),
    ],
)
def test_a_row_is_named_as_a_person_knows_it(
    table: str, values: dict[str, object], name: str
) -> None:
    assert name_row(table, values) == name


def test_the_mark_keeps_the_name_that_stored_entries_have() -> None:
    assert MARK == "sessiondb.salvage"

"""Every input has a bound and a typed error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
import sessiondb.sync
from sessiondb import limits
from sessiondb.errors import InvalidInput
from sessiondb.transcript import compaction, entries


def test_an_entry_is_bounded_in_bytes_whatever_its_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entries, "ENTRY_BYTES_MAX", 1_000)
    entries.draft_entry({"role": "user", "content": "x" * 900}, now_ms=0)
    for content in ("x" * 1_000, "漢" * 330):
        with pytest.raises(InvalidInput, match="at most 1,000 fit in one"):
            entries.draft_entry({"role": "user", "content": content}, now_ms=0)


def test_a_summary_is_bounded_as_the_entry_that_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ENTRY_BYTES_MAX", 1_000)
    compaction.Summary.of("漢" * 300)
    for arguments in (("漢" * 334,), ("short", {"x": "y" * 1_000})):
        with pytest.raises(InvalidInput, match="at most 1,000 fit in one entry"):
            compaction.Summary.of(*arguments)


@pytest.mark.anyio
async def test_every_input_has_a_bound_and_a_typed_error(tmp_path: Path) -> None:
    key, one = "agent:main:web:direct:jo", {"role": "user", "content": "x"}
    async with sessiondb.open(tmp_path / "g.db") as db:
        session = await db.session(key)
        too_much: dict[str, Callable[[], Any]] = {
            "entries of one call": lambda: session.append_many(
                [one] * (limits.APPEND_ENTRIES_MAX + 1)
            ),
            "session key": lambda: db.session("agent:main:" + "x" * limits.SESSION_KEY_CHARS_MAX),
            "session id": lambda: db.create_session("x" * (limits.SESSION_ID_CHARS_MAX + 1)),
            "idempotency key": lambda: session.append(
                one, idempotency_key="x" * (limits.IDEMPOTENCY_KEY_CHARS_MAX + 1)
            ),
            "source": lambda: db.accept(
                key, one, channel="x" * (limits.SESSION_KEY_CHARS_MAX + 1), event_id="e"
            ),
            "event id": lambda: db.accept(
                key, one, channel="web", event_id="x" * (limits.SESSION_KEY_CHARS_MAX + 1)
            ),
            "consumer of events": lambda: anext(db.events("x" * (limits.CONSUMER_CHARS_MAX + 1))),
            "consumer without a name": lambda: anext(db.events("")),
            "nesting": lambda: session.append(
                '{"role":"user","content":' + "[" * 600 + "]" * 600 + "}"
            ),
        }
        for name, call in too_much.items():
            with pytest.raises(InvalidInput):
                await call()
            assert name
        assert (await session.info()).entries == 0

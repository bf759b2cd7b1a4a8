"""What messages and replies say, and how old they are: for the lists of a gateway's queue."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from sessiondb import clock

from .terminal import as_record, duration, to_json

if TYPE_CHECKING:
    from sessiondb import sync
    from sessiondb.backend import ReadTx
    from sessiondb.gateway.recovery import Decision
    from sessiondb.models import OpenMessage

TEXT_CHARS = 200
"""Of a text so much is kept for a table. `--json` and `show` have more."""
# Texts of one snapshot: a text may be as large as an entry.
PAGE = 20


def text_of(payload: str) -> str:
    """Return the beginning of what a message or a reply says to a person."""
    try:
        return _said(json.loads(payload))[:TEXT_CHARS]
    except (ValueError, RecursionError):
        return payload[:TEXT_CHARS]  # it is damaged: what is there


def _said(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(filter(None, map(_said, value)))
    if isinstance(value, dict):
        for name in ("content", "text"):
            if value.get(name):
                return _said(value[name])
        kind = value.get("type")
        return f"[{kind}]" if isinstance(kind, str) else json.dumps(value, ensure_ascii=False)
    return ""


def texts_of(opened: sync.SessionDB, inbox_nos: Iterable[int]) -> dict[int, str]:
    """Return what messages of the inbox say, by number. A message that went meanwhile has none."""
    numbers, found = list(inbox_nos), dict[int, str]()

    def read(tx: ReadTx, page: list[int]) -> dict[int, str]:
        rows = ((number, tx.first("inbox.payload", inbox_no=number)) for number in page)
        return {number: text_of(row.payload) for number, row in rows if row is not None}

    for start in range(0, len(numbers), PAGE):
        page = numbers[start : start + PAGE]
        found |= opened.read("inbox.texts", partial(read, page=page))
    return found


def with_text(record: Decision | OpenMessage, text: str | None) -> str:
    """Return the JSON of a message, or of a decision about one, with what the message says."""
    return to_json({**as_record(record), "text": text})


def age(since_ms: int | None) -> str:
    """Show how long ago that was."""
    return duration(max(0, clock.now_ms() - since_ms)) if since_ms is not None else ""

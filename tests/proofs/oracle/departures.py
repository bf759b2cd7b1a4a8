"""Where an import departs from a real reader on purpose, each with its reason and an example.

The examples are run, so this list cannot outlive what it says: an example on which both agree is
an error (`test_oracle.py`). A generated transcript has none of these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sessiondb.limits import ENTRY_BYTES_MAX, ENTRY_VALUES_MAX

from .transcripts import Transcript


@dataclass(frozen=True)
class Departure:
    """One kind of file that the import reads otherwise than the reader of its program."""

    name: str
    by: str
    reason: str
    lines: tuple[Any, ...]
    """Objects, bytes as they are, or functions that make a large object."""

    @property
    def transcript(self) -> Transcript:
        """The example as a file."""
        made = [line() if callable(line) else line for line in self.lines]
        lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in made]
        content = b"".join(line + b"\n" for line in lines)
        return Transcript(f"{self.name}.jsonl", self.by, content, frozenset())


def _header(version: Any = 3) -> dict[str, Any]:
    fields = {"type": "session", "id": "s-departure", "timestamp": _TIME, "cwd": "/home/ana"}
    return fields if version is None else {**fields, "version": version}


def _message(entry_id: str, parent_id: str | None, **message: Any) -> dict[str, Any]:
    said = {"role": "user", "content": [{"type": "text", "text": entry_id}], "timestamp": 1}
    return {
        "type": "message",
        "id": entry_id,
        "parentId": parent_id,
        "timestamp": _TIME,
        "message": said | message,
    }


def _entry(entry_type: str, entry_id: str, parent_id: str | None, **fields: Any) -> dict[str, Any]:
    entry = {"type": entry_type, "id": entry_id, "parentId": parent_id, "timestamp": _TIME}
    return entry | fields


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _holding(value: Any) -> dict[str, Any]:
    return _message("b", "a", content=[{"type": "x", "x": value}])


_TIME: Final = "2026-09-01T10:00:00.000Z"
_FIRST: Final = _message("a", None)
_REPLAY: Final = {"type": "anthropic-compaction", "data": "x"}

DEPARTURES: Final = (
    Departure(
        "an-id-twice",
        "pi",
        "a child follows the last line of an id before it, for which no entry is placed again",
        (
            _header(),
            _FIRST,
            _message("b", "a"),
            _message("a", None, content=[{"type": "text", "text": "again"}]),
            _message("c", "b"),
        ),
    ),
    Departure(
        "no-header",
        "pi",
        "pi refuses the whole file. What is good in it is kept",
        (_FIRST, _message("b", "a")),
    ),
    Departure(
        "byte-order-mark",
        "pi",
        "pi refuses the whole file. OpenClaw reads it",
        (b"\xef\xbb\xbf" + json.dumps(_header()).encode(), _FIRST),
    ),
    Departure(
        "edit-in-version-1",
        "pi",
        "pi gives the lines of version 1 other ids, so an edit in them names nobody, and what was "
        "deleted goes to the model again. The edit names a line, and is kept",
        (_header(None), _FIRST, _entry("context_edit", "e", "a", targetId="a", replacement=None)),
    ),
    Departure(
        "no-parent",
        "pi",
        "pi writes a parent always, and reads an entry without one as a new beginning. OpenClaw "
        "wrote such entries, and continues",
        (_header(), _FIRST, _without(_message("b", "a"), "parentId")),
    ),
    Departure(
        "last-line-without-id",
        "pi",
        "pi takes the last line for the end of the conversation, whatever it is. A line that has "
        "no type and names nothing does not end it",
        (_header(), _FIRST, {}),
    ),
    Departure(
        "last-line-without-type",
        "pi",
        "likewise of a last line that names a parent, but has no type. OpenClaw's head stays, too",
        (_header(), _FIRST, _message("b", "a"), _entry("", "c", "a")),
    ),
    Departure(
        "text-for-a-list",
        "pi",
        "pi hands a text on as it is, and OpenClaw puts it into a block. Both send the same",
        (_header(), _message("a", None, role="assistant", content="plain text")),
    ),
    Departure(
        "null-for-a-content",
        "openclaw",
        "OpenClaw hands null on as it is, and pi puts an empty list there",
        (_header(), _message("a", None, content=None)),
    ),
    Departure(
        "deferred-reply",
        "pi",
        "The SDK leaves a reply out that its provider gives later. pi's own files have none",
        (_header(), _FIRST, _message("b", "a", role="assistant", stopReason="deferred")),
    ),
    Departure(
        "no-message",
        "pi",
        "pi's reader ends with a TypeError",
        (_header(), _FIRST, _entry("message", "b", "a")),
    ),
    Departure(
        "too-deep",
        "pi",
        "An entry has at most 500 levels. A deeper one is kept as damaged, and named",
        (_header(), _FIRST, _message("b", "a", content=[{"type": "x", "x": _nested(600)}])),
    ),
    Departure(
        "too-many-values",
        "pi",
        "An entry has at most a million values. One of more is kept as damaged, and named",
        (_header(), _FIRST, lambda: _holding([0] * ENTRY_VALUES_MAX), _message("c", "b")),
    ),
    Departure(
        "too-long",
        "openclaw",
        "An entry has at most 64 MiB. A longer one is kept as damaged, and named",
        (_header(), _FIRST, lambda: _holding("x" * ENTRY_BYTES_MAX), _message("c", "b")),
    ),
    Departure(
        "behind-its-own-child",
        "openclaw",
        "A line that names no parent follows the one before it. If that is its own child, the two "
        "are a circle, and the child begins anew. OpenClaw goes round once",
        (
            _header(),
            _message("c", "b"),
            _without(_message("b", "a"), "parentId"),
            _message("d", "c"),
        ),
    ),
    Departure(
        "compaction-without-time",
        "openclaw",
        "OpenClaw's reader ends with an error",
        (
            _header(),
            _FIRST,
            _entry("compaction", "c", "a", summary="s", timestamp="never", tokensBefore=1),
        ),
    ),
    Departure(
        "unknown-type-on-a-branch",
        "openclaw",
        "OpenClaw does not let the head follow a line of an unknown type, and pi does. Neither "
        "writes one that is not at the head",
        (_header(), _FIRST, _message("b", "a"), _entry("unheard_of", "x", "a")),
    ),
    Departure(
        "kept-line-of-an-unknown-type",
        "openclaw",
        "OpenClaw keeps the entry before it, too. pi begins with what follows it",
        (
            _header(),
            _FIRST,
            _message("b", "a"),
            _entry("unheard_of", "x", "b"),
            _entry("compaction", "c", "x", summary="s", firstKeptEntryId="x", tokensBefore=1),
        ),
    ),
    Departure(
        "unknown-type-behind-a-torn-line",
        "openclaw",
        "OpenClaw lets what names the line before it continue the conversation, if that line is of "
        "a type that it does not know. pi begins anew",
        (
            _header(),
            _FIRST,
            b'{"type":"message","id":"t","parentId":"a","mess',
            _entry("unheard_of", "x", "t"),
            _message("b", "x"),
        ),
    ),
    Departure(
        "lines-of-version-1",
        "pi",
        "A compaction of version 1 names a line by its number, and damaged lines count there, in "
        "pi and OpenClaw each in its own way. An import counts entries",
        (
            _header(None),
            {"type": ""},
            _FIRST,
            _message("b", "a"),
            _entry("compaction", "c", "b", summary="s", firstKeptEntryIndex=3, tokensBefore=1),
        ),
    ),
    Departure(
        "entry-without-id",
        "openclaw",
        "OpenClaw ignores an entry without an id. pi reads it",
        (_header(), _FIRST, _without(_message("b", "a"), "id")),
    ),
    Departure(
        "reset",
        "openclaw",
        "OpenClaw knows resets since 2026.8. Its contexts are compared with the corpus of 2026.9.6",
        (_header(), _FIRST, _entry("reset", "r", "a", reason="new"), _message("b", "r")),
    ),
    Departure(
        "replay-of-another-prefix",
        "openclaw",
        "A provider's replay state holds for one prefix. OpenClaw drops it from what a compaction "
        "keeps since 2026.8",
        (
            _header(),
            _message("a", None, role="assistant", providerReplay=_REPLAY),
            _entry("compaction", "c", "a", summary="s", firstKeptEntryId="a", tokensBefore=1),
        ),
    ),
)

IN_THE_CORPUS: Final = {
    "pi-0.74.2/sessions/damaged-no-header.jsonl": "no-header",
}
"""Files of the corpus that show a departure."""

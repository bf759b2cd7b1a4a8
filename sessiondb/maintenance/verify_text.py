"""Verify the text of an entry: its JSON must say the same as its columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from sessiondb.backend import ReadTx
from sessiondb.json_text import has_more_values, int_or_float, storable
from sessiondb.limits import ENTRY_VALUES_MAX

from .verify_steps import SessionFindings, at

if TYPE_CHECKING:
    from sessiondb import statements

# Texts are decoded a slice at a time: a step then holds a reader, and in C code the GIL,
# for 1 to 2 ms.
SLICE_BYTES: Final = 256 * 1024


class TextCheck:
    """The check of a session's texts, entry by entry."""

    def __init__(self, session_no: int, findings: SessionFindings) -> None:
        self._session_no = session_no
        self._findings = findings
        self.name: str | None = None
        """The session's name by the last `session_info` entry so far."""

    def check(self, tx: ReadTx, row: statements.VerifyEntries, payload: bytes) -> None:
        """Check the text of one entry."""
        try:
            fields = _decode(payload)
        except RecursionError as error:
            self._findings.unfinished(
                "payload",
                f"the text of entry {at(row.entry_no)} is nested too deeply to be checked here",
                error,
            )
            return
        except ValueError as error:
            self._findings.add(
                "payload", f"the text of entry {at(row.entry_no)} is not JSON: {error}"
            )
            return
        if not isinstance(fields, dict):
            self._findings.add("payload", f"the text of entry {at(row.entry_no)} is not an object")
            return
        self._columns(tx, row, fields)
        if row.type == "session_info":
            self.name = _as_stored(fields.get("name"))
        if row.branch_no is not None:
            self._body(row, fields, payload)
            self._side(row, fields)

    def _columns(self, tx: ReadTx, row: statements.VerifyEntries, fields: dict[str, Any]) -> None:
        entry_type, entry_id, parent_id = (
            _as_stored(fields.get("type")),
            _as_stored(fields.get("id")),
            _as_stored(fields.get("parentId")),
        )
        if entry_type != row.type:
            self._findings.of(
                row, "payload", f"is stored as {row.type!r}, but its text says {entry_type!r}"
            )
        if entry_id and entry_id != row.entry_id:
            self._findings.of(
                row,
                "payload",
                f"is stored with id {row.entry_id!r}, but its text says {entry_id!r}",
            )
        if row.parent_id is None or row.branch_no is None or parent_id in (None, "", row.parent_id):
            return
        if (
            tx.first("verify.control_record", session_no=self._session_no, entry_id=parent_id)
            is None
        ):
            self._findings.of(
                row, "parent", f"follows {row.parent_id!r}, but its text says {parent_id!r}"
            )

    def _body(self, row: statements.VerifyEntries, fields: dict[str, Any], payload: bytes) -> None:
        message = fields.get("message")
        if row.type != "message" or not isinstance(message, dict):
            if row.projection in (1, 2, 4):
                self._findings.of(
                    row, "projection", "is part of contexts with its message, but has none"
                )
        else:
            self._message(row, message)
        if not row.body_bytes:
            return  # only a projected entry must mark its message: SessionWalk._sums checks that
        body = payload[row.body_at : row.body_at + row.body_bytes]
        try:
            agrees = isinstance(message, dict) and _decode(body) == message
        except ValueError:
            agrees = False
        if not agrees:
            span = f"{row.body_at} to {row.body_at + row.body_bytes}"
            self._findings.add(
                "body", f"bytes {span} of entry {at(row.entry_no)} are not its message"
            )

    def _message(self, row: statements.VerifyEntries, message: dict[str, Any]) -> None:
        text = _as_stored(message.get("role"))
        renamed = row.role == "custom" and text == "hookMessage"
        if not renamed and row.role != text:
            self._findings.of(
                row, "payload", f"is stored with role {row.role!r}, but its text says {text!r}"
            )
        excluded = message.get("excludeFromContext") is True
        allowed = (2,) if excluded else (3,) if renamed else (1, 4)
        if row.projection not in allowed:
            self._findings.of(
                row, "projection", f"has projection {row.projection} instead of {allowed[0]}"
            )
        if row.role == "assistant":
            content = message.get("content")
            blocks = content if isinstance(content, list) and not excluded else []
            check_open_calls(
                self._findings,
                row,
                sum(
                    1
                    for block in blocks
                    if isinstance(block, dict) and block.get("type") == "toolCall"
                ),
            )

    def _side(self, row: statements.VerifyEntries, fields: dict[str, Any]) -> None:
        if row.type not in ("compaction", "reset"):
            return
        begins = fields.get("appendMode") != "side"
        if begins != (row.boundary_no == row.entry_no):
            self._findings.of(
                row,
                "boundary",
                f"is a {row.type} but begins no context"
                if begins
                else "is a side append but begins a context",
            )


def check_open_calls(
    findings: SessionFindings, row: statements.VerifyEntries, expected: int
) -> None:
    """Compare an entry's count of open tool calls."""
    if row.open_calls != expected:
        findings.of(
            row, "open_calls", f"leaves {row.open_calls} tool calls open instead of {expected}"
        )


def slices(rows: list[statements.VerifyEntries]) -> Iterator[list[statements.VerifyEntries]]:
    """Cut a page into runs whose texts together stay small. A large text is a run of its own."""
    run: list[statements.VerifyEntries] = []
    size = 0
    for row in rows:
        if run and size + row.bytes > SLICE_BYTES:
            yield run
            run, size = [], 0
        run.append(row)
        size += row.bytes
    if run:
        yield run


def _as_stored(value: Any) -> str | None:
    """Return a field as its column stores it, or None if it is no text."""
    return storable(value) if isinstance(value, str) else None


def _decode(text: bytes) -> Any:
    """Decode JSON as strictly as the format demands.

    NaN is an error. An integer past the interpreter's limit of digits becomes a float.
    """
    message = text.decode()
    if has_more_values(message, ENTRY_VALUES_MAX):
        raise ValueError(f"it is made of too many values: more than {ENTRY_VALUES_MAX:,}")
    try:
        return json.loads(message, parse_constant=_no_constant)
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise
    return json.loads(message, parse_constant=_no_constant, parse_int=int_or_float)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")

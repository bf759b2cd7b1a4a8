"""Read: put rows into the new database as they are, and note the lost ones that indexes name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from sessiondb.backend import AnyStatement, Tx
from sessiondb.errors import ConstraintFailed, InvalidInput, InvalidKey
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.transcript.keys import parse_key

from .report import describe_spot, name_row
from .workspace import FIRST_NUMBER, FRAGMENT_CHARS, NUMBERED, Workspace, batches

# The readable parts of all lost entries' texts that are kept for their marks.
FRAGMENTS_CHARS: Final = 16 * 1024 * 1024

_INBOX_KEY: Final = re.compile(r"inbox:(\d{1,18})(?::\d{1,18})?")


def read_source(work: Workspace) -> None:
    """Put every readable row into the new database, then compare it with the indexes."""
    for batch in batches(work.source.rows()):
        work.write(_put_all, work, batch)
    for batch in batches(work.source.evidence()):
        work.write(_compare_all, work, batch)
    for spot in work.source.spots:
        work.note_unreadable(spot.page, spot.table, describe_spot(spot))
    work.report.more += work.source.spots_more


def _put_all(tx: Tx, work: Workspace, batch: list[Any]) -> None:
    for row in batch:
        _put(tx, work, row)


def _put(tx: Tx, work: Workspace, row: Any) -> None:
    if hasattr(row, "reason"):
        _note_broken(work, row)
        return
    values = row.values
    if row.table == "sqlite_sequence":
        work.note_number(values["name"], values["seq"])
        work.sequences.add(values["name"])
        return
    if row.table == "wal_link":
        # The new database has a name of its own: no -wal of the damaged one continues it, and
        # no -wal of its own continues the damaged one.
        work.table(row.table).found += 1
        return
    number = NUMBERED.get(row.table)
    first = next(iter(values.values()))
    # A row with the last number that SQLite can count to would leave none to assign.
    if isinstance(first, int) and (
        first < FIRST_NUMBER or (number is not None and first >= -FIRST_NUMBER)
    ):
        _leave_out(work, row, "its number was never assigned")
        return
    if row.table == "inbox":
        values = _with_end(values)
    try:
        added = tx.run(AnyStatement(f"salvage.put_{row.table}"), **values)
    except (ConstraintFailed, InvalidInput) as error:
        if not row.stray:
            _leave_out(work, row, str(error))
        return
    if not added:
        if not row.stray:
            _leave_out(work, row, "another row has the same key")
        return
    work.table(row.table).found += 1
    if number is not None:
        work.note_number(row.table, values[number])
    if row.table == "entry" and (match := _INBOX_KEY.fullmatch(values["idempotency_key"] or "")):
        work.note_number("inbox", int(match[1]))
    if row.table == "inbox":
        work.note_number("turn", values["turn_no"])


def _with_end(values: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose end is recorded, if only as not known, so that it can be stored."""
    ended = values["state"] == "dead" or values["superseded_by"] is not None
    return values | {"told_no": 0} if ended and values["told_no"] is None else values


def _leave_out(work: Workspace, row: Any, reason: str) -> None:
    work.table(row.table).left_out += 1
    name = name_row(row.table, row.values)
    work.note_loss(f"a row of {row.table} ({name}) was left out: {reason}")


def _note_broken(work: Workspace, row: Any) -> None:
    work.table(row.table).broken += 1
    name = name_row(row.table, {**row.values, **({} if row.key is None else {"": row.key})})
    if row.table == "entry" and row.key is not None:
        name = f"session number {row.key >> SEQ_BITS}, seq {row.key & SEQ_MAX}"
        _keep_fragment(work, row)
    work.note_unreadable(row.page, row.table, f"{name}: {row.reason}")


def _keep_fragment(work: Workspace, row: Any) -> None:
    text = row.values.get("payload")
    text = (
        text.decode("utf-8", "replace")
        if isinstance(text, bytes)
        else text
        if isinstance(text, str)
        else ""
    )
    text = text[:FRAGMENT_CHARS]
    if work.fragment_chars + len(text) > FRAGMENTS_CHARS:
        return
    work.fragment_chars += len(text) + 64
    entry_id = row.values.get("entry_id")
    work.fragments[row.key] = {
        "reason": row.reason,
        "id": entry_id if isinstance(entry_id, str) else None,
        "text": text,
    }


def _compare_all(tx: Tx, work: Workspace, batch: list[Any]) -> None:
    for known in batch:
        _COMPARE[known.table](tx, work, **known.values)


def _compare_session(tx: Tx, work: Workspace, session_id: Any, session_no: Any) -> None:
    if (
        isinstance(session_id, str)
        and isinstance(session_no, int)
        and tx.first("salvage.session", session_no=session_no) is None
    ):
        work.lost_sessions[session_no] = session_id


def _compare_entry(tx: Tx, work: Workspace, session_no: Any, entry_id: Any, entry_no: Any) -> None:
    sound = (
        isinstance(entry_id, str)
        and isinstance(entry_no, int)
        and entry_no >> SEQ_BITS == session_no
    )
    if sound and tx.first("verify.place", entry_no=entry_no) is None:
        work.lost_entries.setdefault(session_no, {})[entry_no & SEQ_MAX] = entry_id


def _compare_inbox(tx: Tx, work: Workspace, channel: Any, event_id: Any, inbox_no: Any) -> None:
    if not isinstance(inbox_no, int) or tx.first("salvage.message", inbox_no=inbox_no) is not None:
        return
    work.note_number("inbox", inbox_no)
    work.note_loss(
        f"message {inbox_no} was accepted from {channel} as {event_id}, and its text is lost: "
        "have it sent again"
    )


def _compare_binding(tx: Tx, work: Workspace, session_no: Any, session_key: Any) -> None:
    if not isinstance(session_no, int) or not isinstance(session_key, str):
        return
    if tx.first("registry.by_key", session_key=session_key) is not None:
        return
    try:
        agent_id = parse_key(session_key).agent_id
    except InvalidKey:
        return
    added = tx.run(
        "salvage.put_binding",
        session_key=session_key,
        session_no=session_no,
        agent_id=agent_id,
        bound_at_ms=work.now_ms,
        details=None,
    )
    if added:
        work.table("binding").created += 1
        work.note_loss(
            f"the row of key {session_key} is lost. "
            f"It is bound again to session number {session_no}, as the index says"
        )


_COMPARE: Final[dict[str, Callable[..., None]]] = {
    "session": _compare_session,
    "entry": _compare_entry,
    "inbox": _compare_inbox,
    "binding": _compare_binding,
}

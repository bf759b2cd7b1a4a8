"""Redact an entry: its texts go for good, and everything that others are built on stays.

Entries are immutable, with this one exception, which a person asks for. What an entry is stays: its
ids, its place, its type and role, the calls that it makes and answers, the provider's counts, and
its weight in tokens (`REDACTED_FIELD`), because the sums along every path rest on that. What it
says goes: texts, arguments, images, reasoning. A conversation with it is still a prompt that its
provider takes, and `verify` finds nothing to complain of.

The new text is made from the old one in a read, and put in its place by one transaction, together
with the mark in the receipts of its imported file. The inbox has no text of a message that is an
entry. A redaction may be repeated: the second one changes nothing.

An imported line whose parent came late is two entries of its session. Both are redacted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import InvalidInput, StoreBusy
from sessiondb.json_text import dumps, loads, stored_text
from sessiondb.limits import RETRY_PAUSE_MS
from sessiondb.models import BY_HAND, BYTES_OF_ENTRY, REDACTED, EntryRef, Redacted

from . import search_index
from .append import require_named
from .entries import REDACTED_FIELD, Draft, parse_line
from .formats import OPENAI_RESPONSES, spoken
from .paths import require_entries, require_readable, seq_of, session_of
from .state import State, load_state

if TYPE_CHECKING:
    from sessiondb import statements

TEXT: Final = "[redacted]"

# A receipt with the mark of a redaction is not compared with the bytes of its file
# (`transfer/redaction.py`, `Mark`).
_MARK: Final = f"{REDACTED} from byte 0: {BY_HAND} 1"

_ENVELOPE: Final = frozenset(
    {"type", "id", "parentId", "timestamp", "appendMode", "customType", "display", "fromHook"}
    | {"firstKeptEntryId", "firstKeptEntryIndex", "tokensBefore", "fromId", "targetId"}
)
"""Fields of an entry that say what it is and where it stands."""
_KEPT: Final = frozenset(
    {"role", "type", "id", "name", "status", "phase", "model", "provider", "api", "usage"}
    | {"toolCallId", "tool_call_id", "tool_use_id", "call_id", "toolName", "isError", "is_error"}
    | {"stopReason", "stop_reason", "finish_reason", "stop_sequence", "customType", "display"}
    | {"timestamp", "idempotencyKey", "excludeFromContext", "exitCode", "cancelled", "truncated"}
)
"""Fields of a message, and of its blocks, that say what it is and which call it belongs to."""
_SAID: Final = frozenset({"text", "command", "refusal"})
_TEXT_BLOCKS: Final = frozenset({"text", "input_text", "output_text"})
_TIED: Final = frozenset({"toolCallId", "tool_call_id", "tool_use_id", "call_id"})
_REDACTABLE: Final = frozenset(
    {"message", "custom_message", "custom", "compaction", "branch_summary", "session_info"}
    | {"context_edit"}
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a redaction puts in the place of an entry."""

    entry_no: int
    entry_id: str
    session_no: int
    payload: str
    draft: Draft
    names_session: bool
    """The session has its name from it."""
    order_changes: bool
    """What is noted about the order of contexts may not be so any more."""
    already: bool
    copies: tuple[Plan, ...] = ()
    """Likewise for the other entries of the session that are the same line of a file."""


def plan(tx: ReadTx, session_no: int, named: EntryRef) -> Plan:
    """Read an entry, and make what is to stand in its place.

    Raises:
        NotFound: no such entry.
        InvalidInput: it is an entry of another session, or says nothing that could be redacted.
        SessionArchived: its entries are in an archive.
    """
    state = load_state(tx, session_no)
    require_entries(state.session_id, state.archived_at_ms)
    found = require_named(tx, state, named)
    if session_of(found.entry_no) != session_no:
        raise InvalidInput(
            f"entry {found.entry_id} is one of the session that {state.session_id} was forked "
            "from; redact it there. Nothing was changed"
        )
    row = tx.one("redact.entry", entry_no=found.entry_no)
    if found.type not in _REDACTABLE:
        raise InvalidInput(
            f"entry {found.entry_id} is a {found.type}, which says nothing that could be "
            "redacted. Nothing was changed"
        )
    copies = tx.all("redact.copies", entry_no=found.entry_no)
    return replace(_plan(state, row), copies=tuple(_plan(state, copy) for copy in copies))


@stored_text()
def _plan(state: State, row: statements.RedactEntry | statements.RedactCopies) -> Plan:
    fields = loads(row.payload)
    already = isinstance(fields.get(REDACTED_FIELD), dict)
    before = parse_line(row.payload, state.version, state.formats)
    name = spoken(before.formats & state.formats).name
    payload = row.payload if already else dumps(_entry(fields, row.tokens, name))
    after = parse_line(payload, state.version, state.formats)
    if _shape(before) != _shape(after):
        raise InvalidInput(
            f"entry {row.entry_id} of session {state.session_id} has a message that cannot be "
            "redacted without becoming another kind of message. Nothing was changed; delete the "
            "session, or report the kind of message"
        )
    return Plan(
        entry_no=row.entry_no,
        entry_id=row.entry_id,
        session_no=state.session_no,
        payload=payload,
        draft=after,
        names_session=row.type == "session_info" and not row.named_later,
        order_changes=before.ties != after.ties,
        already=already,
    )


def _shape(draft: Draft) -> tuple[object, ...]:
    """Return what other rows are built on: it must stay."""
    ties = draft.ties
    return (
        *(draft.type, draft.role, draft.projection, draft.calls, draft.results),
        *(draft.usage_tokens, draft.side, draft.first_kept_id, draft.first_kept_seq),
        *(draft.idempotency_key, draft.tokens_before),
        *((ties.called, ties.answered) if ties is not None else ()),
    )


def apply(tx: Tx, planned: Plan) -> Redacted:
    """Put the new text in the place of the old one. One transaction.

    Raises:
        SessionArchived: its entries went into an archive meanwhile.
        StoreBusy: they are about to.
    """
    require_readable(tx, planned.session_no)
    if tx.first("archive.of_session", session_no=planned.session_no) is not None:
        raise StoreBusy(
            f"entry {planned.entry_id} is being archived with its session. Nothing was changed; "
            f"retry in {RETRY_PAUSE_MS} ms, or restore the session first",
            holder="an archive of it",
            retry_after_ms=RETRY_PAUSE_MS,
        )
    for one in (planned, *planned.copies):
        _put(tx, one)
    return Redacted(planned.entry_no, planned.entry_id, planned.already, _LEFT)


def _put(tx: Tx, planned: Plan) -> None:
    if not planned.already:
        indexed = search_index.take_out(tx, planned.entry_no)
        tx.run(
            "redact.put_entry",
            entry_no=planned.entry_no,
            payload=planned.payload,
            body_at=planned.draft.body_at if planned.draft.body_bytes else 0,
            body_bytes=planned.draft.body_bytes,
        )
        if indexed:
            search_index.put_back(tx, planned.entry_no)
        tx.run(
            "redact.mark_receipts",
            session_no=planned.session_no,
            seq=seq_of(planned.entry_no),
            mark=_MARK,
        )
        tx.run(
            "redact.put_bytes",
            session_no=planned.session_no,
            seq=seq_of(planned.entry_no),
            reason=f"{BYTES_OF_ENTRY}*",
            content=planned.payload.encode(),
            line=planned.payload.encode() + b"\n",
        )
    if planned.names_session:
        tx.run("redact.name_session", session_no=planned.session_no, name=TEXT)
    if planned.order_changes:
        tx.run("redact.forget_order", session_no=planned.session_no)


_LEFT: Final = (
    "The WAL file holds the older page until it is written over.",
    "Free pages of the file may hold a long text. `gc` returns those to the file system.",
    "Backups, copies and exports from before hold the text, and so does an imported file.",
    "Other entries that repeat it are as they were: a summary, or an answer that quotes it.",
    "Replies of the outbox, and the logs of your channels, are as they were.",
)


# -- what stays of an entry ------------------------------------------------------------


def _entry(fields: Mapping[str, Any], tokens: int, format_name: str) -> dict[str, Any]:
    kept = {name: value for name, value in fields.items() if name in _ENVELOPE}
    kept[REDACTED_FIELD] = {"tokens": tokens}
    match fields["type"]:
        case "message":
            if isinstance(fields.get("message"), dict):
                kept["message"] = _message(fields["message"], format_name)
        case "custom_message":
            kept["content"] = TEXT
        case "custom":
            kept["data"] = {}
        case "compaction" | "branch_summary":
            kept["summary"] = TEXT if fields.get("summary") else fields.get("summary")
        case "session_info":
            kept["name"] = TEXT
        case "context_edit":
            leaves_out = fields.get("replacement") is None
            kept["replacement"] = None if leaves_out else {"content": TEXT}
    return kept


def _message(message: Mapping[str, Any], format_name: str) -> dict[str, Any]:
    by_model = message.get("role") == "assistant"
    block = "text"
    if format_name == OPENAI_RESPONSES.name:
        block = "output_text" if by_model else "input_text"
    return _cleaned(message, block)


def _cleaned(item: Mapping[str, Any], block: str) -> dict[str, Any]:
    """Return what stays of a message, or of a block that makes a call or answers one."""
    kept: dict[str, Any] = {}
    for name, value in item.items():
        if name in _KEPT:
            kept[name] = value
        elif name == "content":
            kept[name] = _content(value, block)
        elif name in _SAID or name in ("output", "summary", "thinking"):
            kept[name] = TEXT if isinstance(value, str) else [] if name == "summary" else TEXT
        elif name in ("arguments", "input"):
            kept[name] = {} if isinstance(value, dict) else _written(name)
        elif name in ("function", "custom") and isinstance(value, dict):
            kept[name] = _cleaned(value, block)
        elif name == "tool_calls" and isinstance(value, list):
            kept[name] = [_cleaned(call, block) for call in value if isinstance(call, dict)]
    return kept


def _written(name: str) -> str:
    """Return what stands for arguments that are a text. Those of a function are JSON."""
    return "{}" if name == "arguments" else TEXT


def _content(content: Any, block: str) -> Any:
    if content is None:
        return None
    if not isinstance(content, list):
        return TEXT
    tied = [
        _cleaned(part, "text")
        for part in content
        if isinstance(part, dict) and part.get("type") not in _TEXT_BLOCKS and _is_tied(part)
    ]
    says = any(not (isinstance(part, dict) and _is_tied(part)) for part in content)
    return [*([{"type": block, "text": TEXT}] if says else []), *tied]


def _is_tied(part: Mapping[str, Any]) -> bool:
    """Tell whether a block makes a call of a tool, or holds the result of one."""
    return not _TIED.isdisjoint(part) or ("id" in part and "name" in part)

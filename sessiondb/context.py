"""Assemble what the model is sent: at the head, or at the end of any past epoch.

A context is a summary (if it begins at a compaction), the entries that the boundary kept, and everything on
the path after it. Its pointers are columns, so reading one costs its own rows and nothing of the history
before it. Messages are cut out of the stored text by byte span; only the few that the format derives from
an entry (summaries, custom messages) are decoded and made.

The rules are those of the programs that wrote the transcript. Sources: pi `buildSessionContext` and
`core/messages.ts`; openclaw `packages/agent-core/src/harness/session/session.ts`. Where they differ:

* an entry marked `excludeFromContext` is not part of `messages`; pi's reader hands it on and leaves it to a
  later step, so `pi_json` contains it;
* a reset keeps only user, assistant and answered tool messages, and re-admits excluded ones (OpenClaw).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .backend import ReadTx
from .entries import Projection, dumps, loads, ms_from_iso
from .errors import InvalidInput, NotFound
from .tokens import message_tokens
from .transcript import Segment, segments

# Decoding in slices lets the interpreter switch threads between them: one long C call would hold the GIL, and
# with it the event loop, for as long as it takes (measured: 84 ms).
DECODE_SLICE_BYTES = 64 * 1024
# As a plain name: looking a member up on its enum, once a row, would be a quarter of the time that a context takes.
_BODY = int(Projection.BODY)


@dataclass(frozen=True)
class Context:
    """What the model is sent: its messages, each as JSON text, and the state at its head."""

    session_id: str
    epoch: int
    head_id: str | None
    tokens: int
    tokens_fresh: bool
    """True: `tokens` rests on the provider's own count since the boundary. False: an estimate."""
    model: dict[str, Any] | None
    thinking_level: str
    parts: tuple[bytes, ...]
    excluded: frozenset[int]
    """Indexes into `parts` of messages that their author excluded from the context."""

    @property
    def included(self) -> Sequence[bytes]:
        """The messages of the context, each as JSON."""
        if not self.excluded:
            return self.parts
        return [part for index, part in enumerate(self.parts) if index not in self.excluded]

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        """The messages, decoded (on a reader thread, unless `context(decode=False)` left it to the first use)."""
        return decode_messages(self.included)

    def as_json(self) -> bytes:
        """Return the messages as one JSON array, cut out of the stored text without decoding it."""
        return b"[" + b",".join(self.included) + b"]"

    def as_pi_json(self) -> bytes:
        """Return what pi's own reader computes: an object with messages, thinkingLevel and model."""
        state = f',"thinkingLevel":{dumps(self.thinking_level)},"model":{dumps(self.model)}}}'
        return b'{"messages":[' + b",".join(self.parts) + b"]" + state.encode()


def read_context(tx: ReadTx, session_no: int, epoch: int | None = None) -> Context:
    """Read the current context or, with `epoch`, the one at the end of that epoch.

    Raises:
        NotFound: no such session or epoch.
    """
    now = tx.one("context.pointers", session_no=session_no)
    if now is None:
        raise NotFound(f"there is no session number {session_no}")
    head_no, boundary_no, first_kept_no = now.head_no, now.boundary_no, now.first_kept_no
    tokens, fresh = now.context_tokens, bool(now.tokens_fresh)
    if epoch is not None and epoch != now.epoch:
        past = tx.one("transcript.epoch", session_no=session_no, epoch=epoch)
        if past is None:
            raise NotFound(
                f"session {now.session_id} has no epoch {epoch}; its current epoch is {now.epoch}", session_id=now.session_id, epoch=epoch
            )
        head_no, boundary_no, first_kept_no = past.closed_head_no, past.boundary_no, past.first_kept_no
        tokens, fresh = -1, False
    parts, excluded = read_messages(tx, head_no, boundary_no, first_kept_no)
    head = tx.one("context.head", entry_no=head_no) if head_no is not None else None
    return Context(
        session_id=now.session_id,
        epoch=now.epoch if epoch is None else epoch,
        head_id=head.entry_id if head is not None else None,
        tokens=tokens if tokens >= 0 else _estimate(parts, excluded),
        tokens_fresh=fresh,
        model=_model(head.model_type, head.model_payload) if head is not None else None,
        thinking_level=_thinking_level(head.thinking_payload) if head is not None else "off",
        parts=tuple(parts),
        excluded=excluded,
    )


def read_messages(
    tx: ReadTx, head_no: int | None, boundary_no: int | None, first_kept_no: int | None
) -> tuple[list[bytes], frozenset[int]]:
    """Read the messages between a boundary and a head, which may be any entry of the path."""
    parts: list[bytes] = []
    excluded: set[int] = set()
    boundary = tx.one("context.boundary", entry_no=boundary_no) if boundary_no is not None else None
    if boundary is not None and boundary.type == "compaction":
        parts.append(_written(_summary_message(loads(boundary.payload))))
    start_no = first_kept_no if first_kept_no is not None else boundary_no
    # What the boundary kept lies before it, and numbers grow along a path.
    kept_before_no = boundary_no if boundary_no is not None and first_kept_no is not None else 0
    kept_by_reset: list[tuple[int, bytes]] = []
    for segment in segments(tx, head_no, stop_no=start_no):
        rows = _span(tx, segment)
        kept = bisect_left(rows, (kept_before_no,))
        if boundary is not None and boundary.type == "reset":
            kept_by_reset += [(projection, content) for _, projection, content in rows[:kept]]
        else:
            _add(parts, excluded, rows[:kept], retained=True)
        if kept < len(rows):
            parts += _kept_by_reset(kept_by_reset)
            kept_by_reset = []
            _add(parts, excluded, rows[kept:], retained=False)
    parts += _kept_by_reset(kept_by_reset)
    return parts, frozenset(excluded)


def _add(parts: list[bytes], excluded: set[int], rows: list[tuple[int, int, bytes]], *, retained: bool) -> None:
    """Add what rows contribute. Almost all are messages as they stand, so those take the short way."""
    for _, projection, content in rows:
        if projection == _BODY:
            parts.append(content)
            continue
        if projection == Projection.EXCLUDED:
            excluded.add(len(parts))
        parts.append(_message(projection, content, retained=retained))


def _span(tx: ReadTx, segment: Segment) -> list[tuple[int, int, bytes]]:
    rows: list[tuple[int, int, bytes]] = tx.tuples(
        "context.span", branch_no=segment.branch_no, low_no=segment.low_no, high_no=segment.high_no
    )
    return rows


def _message(projection: int, content: bytes, *, retained: bool) -> bytes:
    if projection == Projection.MADE:
        return _written(_made_message(loads(content)))
    if projection == Projection.CHECKPOINT and retained:
        message = loads(content)
        del message["providerReplay"]
        return _written(message)
    return content


def _written(message: dict[str, Any]) -> bytes:
    """Encode a message that was decoded. A number too large for a float has become infinite: null, as JavaScript writes it."""
    try:
        return dumps(message).encode()
    except InvalidInput:
        return dumps(_without_infinity(message)).encode()


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_infinity(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_infinity(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _made_message(entry: dict[str, Any]) -> dict[str, Any]:
    """Make the message that an entry stands for."""
    if entry["type"] == "custom_message":
        message = {"role": "custom", "customType": entry.get("customType"), "content": entry.get("content")}
        for optional in ("display", "details"):
            if optional in entry:
                message[optional] = entry[optional]
        return {**message, "timestamp": ms_from_iso(entry.get("timestamp"))}
    if entry["type"] == "branch_summary":
        return {
            "role": "branchSummary",
            "summary": entry["summary"],
            "fromId": entry.get("fromId"),
            "timestamp": ms_from_iso(entry.get("timestamp")),
        }
    return {**entry["message"], "role": "custom"}  # a version 1 or 2 hookMessage


def _summary_message(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "role": "compactionSummary",
        "summary": entry.get("summary"),
        "tokensBefore": entry.get("tokensBefore"),
        "timestamp": ms_from_iso(entry.get("timestamp")),
    }


def _kept_by_reset(rows: Sequence[tuple[int, bytes]]) -> Iterator[bytes]:
    """Choose what a reset keeps: user and assistant messages, and results whose call is kept too."""
    waiting: dict[Any, int] = {}
    for projection, content in rows:
        if projection == Projection.MADE:
            continue
        message = loads(content)
        role = message.get("role")
        if role == "assistant":
            for block in message.get("content") or ():
                if isinstance(block, dict) and block.get("type") == "toolCall":
                    waiting[block.get("id")] = waiting.get(block.get("id"), 0) + 1
        elif role == "toolResult":
            call = message.get("toolCallId")
            if not waiting.get(call):
                continue
            waiting[call] -= 1
        elif role != "user":
            continue
        yield _message(projection, content, retained=True)


def _model(entry_type: str | None, payload: str | None) -> dict[str, Any] | None:
    if payload is None:
        return None
    entry = loads(payload)
    if entry_type == "model_change":
        return {"provider": entry.get("provider"), "modelId": entry.get("modelId")}
    return {"provider": entry["message"].get("provider"), "modelId": entry["message"].get("model")}


def _thinking_level(payload: str | None) -> str:
    return "off" if payload is None else str(loads(payload).get("thinkingLevel"))


def _estimate(parts: Sequence[bytes], excluded: frozenset[int]) -> int:
    return sum(message_tokens(loads(part)) for index, part in enumerate(parts) if index not in excluded)


def decode_messages(parts: Sequence[bytes]) -> list[dict[str, Any]]:
    """Decode messages, in slices that let other threads run in between."""
    found: list[dict[str, Any]] = []
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= DECODE_SLICE_BYTES:
            found += loads(b"[" + b",".join(waiting) + b"]")
            waiting, size = [], 0
    found += loads(b"[" + b",".join(waiting) + b"]")
    return found

"""Assemble the context that is sent to the model: at the head, or at the end of any past epoch.

A context is a summary (if it begins at a compaction), the entries that the boundary kept, and
everything on the path after it. Its pointers are columns, so reading one costs its own rows and
nothing of the history before it. Messages are cut out of the stored text by byte span. Only the
few that the format derives from an entry (summaries, custom messages) are decoded and made.

The rules are those of the programs that wrote the transcript. Sources: pi `buildSessionContext`
and `core/messages.ts`, and openclaw `packages/agent-core/src/harness/session/session.ts`. Where
they differ:

* An entry marked `excludeFromContext` is not part of `messages`. pi's reader passes it to a later
  step, so `as_pi_json` contains it.
* A reset keeps only user, assistant and answered tool messages, and re-admits excluded ones
  (OpenClaw).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

from sessiondb.backend import ReadTx
from sessiondb.clock import ms_from_iso
from sessiondb.errors import NotFound
from sessiondb.json_text import dumps_again, loads, stored_text
from sessiondb.limits import CONTEXT_BACK_ROWS, CONTEXT_CALLS_BACK_MAX
from sessiondb.words import MessageFormat

from .entries import Projection, id_or_none, is_checkpoint
from .formats import PI, CallId, Format, known, spoken
from .formats.base import ASSISTANT, RESULT, USER
from .formats.pi import SYSTEM, mended, message_of, present
from .formats.prompt import PROMPTS
from .pairing import Part, in_order, open_at_head
from .paths import Segment, context_start, on_path, require_entries, segments
from .state import State, no_session

if TYPE_CHECKING:
    from sessiondb import statements

    from .paths import TreeEntry

# Between slices the interpreter can switch threads. One long C call would hold the GIL, and with it
# the event loop, until its end (measured: 84 ms).
DECODE_SLICE_BYTES = 64 * 1024
# A plain name: looking up a member on its enum once a row would take 25 % of a context's time.
_BODY = int(Projection.BODY)
_ALL_ENTRIES = (1 << 63) - 1
_EDIT = 5  # what `context.span` says of an edit, which is no message itself


@dataclass(frozen=True)
class Context:
    """The context of the model: its messages, each as JSON text, and the state at its head."""

    session_id: str
    epoch: int
    head_id: str | None
    tokens: int
    tokens_fresh: bool
    """True: `tokens` rests on the provider's own count since the boundary. False: an estimate."""
    parts: tuple[bytes, ...]
    """The messages as they are stored, with those that their author excluded."""
    excluded: frozenset[int]
    """Indexes into `parts` of messages that their author excluded from the context."""
    model_entry: str | None
    """The entry that last set the model, as JSON: a model change or a reply."""
    thinking_entry: str | None
    """The entry that last set the thinking level, as JSON."""
    prompt: tuple[bytes, ...] | None = None
    """The messages in the order that the provider takes. None: they are in it as stored."""
    format: MessageFormat | None = "pi"
    """The message format of `messages`. None: they may have several, and look alike in each."""
    summary_entry: str | None = None
    """The compaction entry at which the context begins, as JSON. None: it begins at none."""
    is_whole: bool = True
    """False: it has only the last messages (`last=`), and `tokens` is an estimate of these."""

    @cached_property
    @stored_text()
    def details(self) -> Any:
        """The `details` that were given to `commit` with the summary. None: there are none."""
        return None if self.summary_entry is None else loads(self.summary_entry).get("details")

    @cached_property
    @stored_text()
    def model(self) -> dict[str, Any] | None:
        """The model in force: its provider and modelId, as far as it names them.

        None before the first was set.
        """
        return None if self.model_entry is None else _model(loads(self.model_entry))

    @cached_property
    @stored_text()
    def thinking_level(self) -> str | None:
        """The thinking level in force. "off" before the first was set. None: it names none."""
        level = _thinking(self.thinking_entry).get("thinkingLevel")
        return level if level is None else str(level)

    @property
    def included(self) -> Sequence[bytes]:
        """The messages of the context, each as JSON: a prompt that its provider takes.

        With `raw=True` they are as they were stored.
        """
        if self.prompt is not None:
            return self.prompt
        if not self.excluded:
            return self.parts
        return [part for index, part in enumerate(self.parts) if index not in self.excluded]

    @cached_property
    def messages(self) -> list[dict[str, Any]]:
        """The messages, decoded: on a reader thread, or with `decode=False` at the first use."""
        return decode_messages(self.included)

    def as_json(self) -> bytes:
        """Return `included` as one JSON array, cut out of the stored text without decoding.

        Only a context that has to be put in order was decoded.
        """
        return b"[" + b",".join(self.included) + b"]"

    def as_pi_json(self) -> bytes:
        """Return the result of pi's reader: an object with messages, thinkingLevel and model.

        The messages are as they were stored. pi puts them in order when it sends them.
        """
        with stored_text():
            state = {**_thinking(self.thinking_entry), "model": self.model}
        return b'{"messages":[' + b",".join(self.parts) + b"]," + dumps_again(state)[1:].encode()


def read_context(
    tx: ReadTx,
    session_no: int,
    epoch: int | None = None,
    *,
    raw: bool = False,
    last: int | None = None,
) -> Context:
    """Read the current context or, with `epoch`, the one at the end of that epoch.

    Its messages are put in order (`pairing.py`), unless it is to be `raw`. With `last` it has only
    its last messages, so many at least.

    Raises:
        NotFound: no such session or epoch.
        SessionArchived: its entries are in an archive.
    """
    now = tx.first("context.now", session_no=session_no)
    if now is None:
        raise no_session(session_no)
    require_entries(now.session_id, now.archived_at_ms)
    at: statements.ContextNow | statements.ContextThen = now
    is_ordered = _is_ordered(now)
    if epoch is not None and epoch != now.epoch:
        then = tx.first("context.then", session_no=session_no, epoch=epoch)
        if then is None:
            raise NotFound(
                f"session {now.session_id} has no epoch {epoch}; its current epoch is {now.epoch}",
                session_id=now.session_id,
                epoch=epoch,
            )
        at, is_ordered = then, False
    path, boundary = _path(tx, at), _boundary(tx, at.boundary_no)
    read = None
    if last is not None:
        read = _read_last(tx, at.formats, path, boundary, at.first_kept_no, last)
    is_whole = read is None
    if read is None:
        read = _read_parts(tx, at.formats, path, boundary, at.first_kept_no)
    is_counted = is_whole and at.context_tokens is not None
    return Context(
        session_id=at.session_id,
        epoch=at.epoch,
        head_id=at.head_id,
        tokens=at.context_tokens or 0 if is_counted else _estimate(read),
        tokens_fresh=is_counted and bool(at.tokens_fresh),
        parts=tuple(read.parts),
        excluded=read.excluded,
        model_entry=at.model_entry,
        thinking_entry=at.thinking_entry,
        prompt=None if raw else _prompt(tx, session_no, read, is_ordered and is_whole),
        format=known(at.formats),
        summary_entry=read.summary.payload if read.summary is not None else None,
        is_whole=is_whole,
    )


def _read_last(
    tx: ReadTx,
    formats: int,
    path: Sequence[Segment],
    boundary: statements.ContextBoundary | None,
    first_kept_no: int | None,
    last: int,
) -> _Messages | None:
    """Read the last messages of a context: at least so many. None: that is all of them.

    What a boundary says stands at the beginning of a whole context, and of no part. An edit
    comes after its entry, so a part has the edits of its messages.
    """
    wanted = last
    while True:
        start_no = _start_of_last(tx, spoken(formats), path, wanted)
        if start_no is None:
            return None
        part = [
            replace(segment, low_no=max(segment.low_no, start_no))
            for segment in path
            if segment.high_no >= start_no
        ]
        read = _read_parts(tx, formats, part, boundary, first_kept_no, opened=False)
        if sum(1 for _ in read.numbered()) >= last:
            return read
        wanted *= 2  # a reset or an edit has taken some of them out


@stored_text()
def _start_of_last(
    tx: ReadTx, message_format: Format, path: Sequence[Segment], last: int
) -> int | None:
    """Return the entry at which the last messages begin, or None if all of them are needed.

    It lies before the calls of their results. It lies before what leads to their first item of the
    model, too, which is the last one of the model before. Both are looked for so far and no
    further: a prompt leaves out a result without its call.
    """
    rules = PROMPTS[message_format.name]
    count, looked_further, start_no = 0, 0, None
    candidate_no: int | None = None
    open_results: set[CallId] = set()
    for row in _back(tx, path):
        message = loads(_message(row.projection, row.content, retained=False))
        if count >= last and not open_results and candidate_no is None:
            candidate_no = start_no
        if count >= last:
            is_known = candidate_no is not None and rules.by_model(message)
            if looked_further >= CONTEXT_CALLS_BACK_MAX or (is_known and not rules.leads(message)):
                return candidate_no if candidate_no is not None else start_no
            looked_further += 1
        if rules.leads(message):
            candidate_no = None
        if row.projection != Projection.EXCLUDED and rules.taken(message) is not None:
            count += 1
        open_results.difference_update(call.key for call in rules.calls(message))
        open_results.update(key for key, _ in rules.results(message))
        start_no = row.entry_no
    return candidate_no


def _back(tx: ReadTx, path: Sequence[Segment]) -> Iterator[statements.ContextSpanBackward]:
    """Yield the messages of a path as they are stored, newest first."""
    for segment in reversed(path):
        high_no, more = segment.high_no, True
        while more:
            rows, more = tx.page(
                "context.span_backward",
                branch_no=segment.branch_no,
                low_no=segment.low_no,
                high_no=high_no,
                limit=CONTEXT_BACK_ROWS,
            )
            yield from rows
            if rows:
                high_no = rows[-1].entry_no - 1


def _prompt(
    tx: ReadTx, session_no: int, read: _Messages, is_ordered: bool
) -> tuple[bytes, ...] | None:
    """Put a context in order. None: it is, and nothing was decoded to know that."""
    as_appended = not read.kept_by_reset and not read.is_edited
    if is_ordered and as_appended and not _begins_with_reply(read):
        return None
    working = tx.first("context.working_from", session_no=session_no)
    return tuple(put_in_order(read, working.entry_no if working is not None else None))


def _is_ordered(now: statements.ContextNow) -> bool:
    """Tell whether the present context is in order for sure. Its appends have noted that."""
    start_no = context_start(now.boundary_no, now.first_kept_no) or 0
    return (
        now.ordered_from_no is not None
        and start_no >= now.ordered_from_no
        and not open_at_head(now.formats, now.head_no, now.open_marks, now.open_calls).is_open
    )


def contains(tx: ReadTx, session_no: int, entry: TreeEntry) -> bool:
    """Tell whether an entry is part of a session's current context.

    An entry that a summary replaced is not.
    """
    now = tx.one("context.pointers", session_no=session_no)
    start_no = context_start(now.boundary_no, now.first_kept_no)
    return (
        now.head_no is not None
        and (start_no is None or entry.entry_no >= start_no)
        and on_path(tx, entry, now.head_no)
    )


def preceded(tx: ReadTx, entry: TreeEntry, later_no: int, boundary_no: int | None) -> bool:
    """Tell whether an entry was in the context to which a later one was appended.

    `boundary_no` is the boundary at which that context began.
    """
    kept_no = (
        tx.one("transcript.by_no", entry_no=boundary_no).first_kept_no
        if boundary_no is not None
        else None
    )
    start_no = context_start(boundary_no, kept_no)
    return (start_no is None or entry.entry_no >= start_no) and on_path(tx, entry, later_no)


def is_last_user_message(tx: ReadTx, session_no: int, entry_no: int) -> bool:
    """Tell whether an entry is in the current context, and no user message follows it there."""
    entry = tx.first("transcript.by_no", entry_no=entry_no)
    if entry is None or not contains(tx, session_no, entry):
        return False
    head_no = tx.one("context.pointers", session_no=session_no).head_no
    for segment in reversed(segments(tx, head_no, stop_no=entry_no)):
        last = tx.first(
            "context.last_user_message",
            branch_no=segment.branch_no,
            low_no=segment.low_no,
            high_no=segment.high_no,
        )
        if last is not None:
            return last.entry_no == entry_no
    return True  # it is no user message itself, or is excluded from the context


def _path(tx: ReadTx, at: statements.ContextNow | statements.ContextThen) -> list[Segment]:
    """Return the ranges of a context, without a lookup when it lies within its head's branch."""
    start_no = context_start(at.boundary_no, at.first_kept_no)
    if at.first_no is not None and start_no is None and at.parent_branch_no is None:
        start_no = at.first_no
    if at.first_no is not None and start_no is not None and start_no >= at.first_no:
        assert at.branch_no is not None, "first_no is a column of this branch"
        assert at.head_no is not None, "the head is in this branch"
        return [Segment(at.branch_no, start_no, at.head_no)]
    return segments(tx, at.head_no, stop_no=start_no)


def read_messages(
    tx: ReadTx,
    formats: int,
    end_no: int | None,
    head_no: int | None,
    boundary_no: int | None,
    first_kept_no: int | None,
    *,
    raw: bool = False,
) -> list[bytes]:
    """Read the messages of a context up to an entry of it, for a summary.

    They are put in order, as those of a context, and edited as up to its head. In pi's format
    without system messages: a compaction carries these on as they are.
    """
    start_no = context_start(boundary_no, first_kept_no)
    path = segments(tx, end_no, stop_no=start_no)
    later = [] if end_no == head_no else segments(tx, head_no, stop_no=end_no)
    read = _read_parts(
        tx,
        formats,
        path,
        _boundary(tx, boundary_no),
        first_kept_no,
        for_summary=True,
        edits=[edit for segment in later for edit in _edits_of(tx, segment)],
    )
    return [text for _, text in read.numbered()] if raw else put_in_order(read)


@dataclass(slots=True)
class _Messages:
    """The messages of a context as they are stored."""

    format: Format
    parts: list[bytes] = field(default_factory=list)
    excluded: frozenset[int] = frozenset()
    summary: statements.ContextBoundary | None = None
    """The boundary with whose summary the parts begin."""
    openings: int = 0
    """How many of the parts are the boundary's."""
    edits: list[bytes] = field(default_factory=list)
    """The `context_edit` entries of the path, as JSON."""
    is_edited: bool = False
    rows: list[Sequence[tuple[Any, ...]]] = field(default_factory=list)
    """The rows of the other parts. Each begins with the entry's number."""
    kept_by_reset: bool = False
    """Some were kept by a reset: without what stood between them, and with excluded ones."""

    def numbers(self) -> list[int]:
        """Return the number of the entry of each part."""
        opening = [] if self.summary is None else [self.summary.entry_no] * self.openings
        return opening + [row[0] for rows in self.rows for row in rows]

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """Return what its authors did not exclude, with the numbers of the entries."""
        for index, found in enumerate(zip(self.numbers(), self.parts, strict=True)):
            if index not in self.excluded:
                yield found


@stored_text()
def put_in_order(read: _Messages, working_from_no: int | None = None) -> list[bytes]:
    """Return messages as the provider takes them. This decodes them all."""
    numbered = list(read.numbered())
    decoded = decode_messages([text for _, text in numbered])
    parts = []
    for message, (entry_no, text) in zip(decoded, numbered, strict=True):
        sent = read.format.sendable(message)
        parts.append(Part(sent, entry_no, text if sent is message else None))
    rules = PROMPTS[read.format.name]
    return [
        part.text if part.text is not None else _written(part.message)
        for part in in_order(rules, parts, working_from_no)
    ]


_KNOWN_BEGINNINGS = (b'{"role":"user"', b'{"role":"compactionSummary"')


@stored_text()
def _begins_with_reply(read: _Messages) -> bool:
    """Tell whether the first message is the model's, where its provider wants a user's first."""
    first = next(
        (part for index, part in enumerate(read.parts) if index not in read.excluded), None
    )
    rules = PROMPTS[read.format.name]
    if first is None or not rules.user_first or first.startswith(_KNOWN_BEGINNINGS):
        return False
    return rules.by_model(loads(first))


def _boundary(tx: ReadTx, boundary_no: int | None) -> statements.ContextBoundary | None:
    return tx.first("context.boundary", entry_no=boundary_no) if boundary_no is not None else None


def _is_summary(
    boundary: statements.ContextBoundary | None,
) -> TypeGuard[statements.ContextBoundary]:
    return boundary is not None and boundary.type == "compaction"


@stored_text()
def _read_parts(
    tx: ReadTx,
    formats: int,
    path: Sequence[Segment],
    boundary: statements.ContextBoundary | None,
    first_kept_no: int | None,
    *,
    for_summary: bool = False,
    edits: Sequence[bytes] = (),
    opened: bool = True,
) -> _Messages:
    message_format = spoken(formats)
    read = _Messages(message_format)
    excluded: set[int] = set()
    system_after_no = 0
    if formats == PI.bit and for_summary:
        system_after_no = _ALL_ENTRIES
    elif formats == PI.bit and _is_summary(boundary):
        system_after_no = boundary.entry_no
    if opened and _is_summary(boundary):
        entry = loads(boundary.payload)
        opening = message_format.opening(entry)
        if for_summary:
            opening = [item for item in opening if item["role"] != SYSTEM]
        read.parts += map(_written, opening)
        read.summary, read.openings = boundary, len(opening)
    # The entries that the boundary kept lie before it, and numbers grow along a path.
    kept_before_no = boundary.entry_no if boundary is not None and first_kept_no is not None else 0
    kept_by_reset: list[tuple[int, int, bytes]] = []
    for segment in path:
        rows = _span(tx, segment, system_after_no)
        kept = bisect_left(rows, (kept_before_no,))
        if boundary is not None and boundary.type == "reset":
            kept_by_reset += rows[:kept]
        else:
            _add(read, excluded, rows[:kept], retained=True)
        if kept < len(rows):
            _add_kept_by_reset(read, kept_by_reset)
            kept_by_reset = []
            _add(read, excluded, rows[kept:], retained=False)
    _add_kept_by_reset(read, kept_by_reset)
    read.excluded = frozenset(excluded)
    read.edits += edits
    return _edited(tx, read, path) if read.edits else read


def _edited(tx: ReadTx, read: _Messages, path: Sequence[Segment]) -> _Messages:
    """Replace what was edited, and leave out what was taken out. The last edit counts.

    An edit names its entry by its id, and reaches only entries of the context.
    """
    edits = {}
    for edit in map(loads, read.edits):
        edits[id_or_none(edit.get("targetId"))] = edit.get("replacement", {})
    ids = {
        row.entry_no: row.entry_id
        for segment in path
        for row in tx.all(
            "context.ids",
            branch_no=segment.branch_no,
            low_no=segment.low_no,
            high_no=segment.high_no,
        )
    }
    if read.summary is not None:
        ids[read.summary.entry_no] = read.summary.entry_id
    edited = _Messages(read.format, summary=read.summary, is_edited=True)
    excluded = set()
    rows: list[tuple[Any, ...]] = []
    for index, (entry_no, part) in enumerate(zip(read.numbers(), read.parts, strict=True)):
        edit = edits.get(ids.get(entry_no), {})
        if edit is None:
            continue
        if isinstance(edit, dict) and "content" in edit:
            part = _written(read.format.edited(loads(part), edit["content"]))
        if index in read.excluded:
            excluded.add(len(edited.parts))
        if index < read.openings:
            edited.openings += 1
        else:
            rows.append((entry_no,))
        edited.parts.append(part)
    edited.rows, edited.excluded = [rows], frozenset(excluded)
    edited.kept_by_reset = read.kept_by_reset
    return edited


@stored_text()
def system_message(tx: ReadTx, state: State, timestamp: str) -> dict[str, Any] | None:
    """Return what the system messages of a session's context say together. None: there are none.

    A compaction has it in its entry, so that the instructions outlive the history that they were
    in. Only in pi's format, whose reader does the same. Reads those messages by their index.
    """
    if state.formats != PI.bit:
        return None
    boundary = _boundary(tx, state.boundary_no)
    start_no = state.boundary_no  # what a compaction keeps of before has no system messages
    said: list[tuple[str, dict[str, Any]]] = []
    if _is_summary(boundary):
        opening = PI.opening(loads(boundary.payload))
        said += [(boundary.entry_id, item) for item in opening if item["role"] == SYSTEM]
    edits: dict[str | None, Any] = {}
    for segment in segments(tx, state.head_no, stop_no=start_no):
        for row in _instructions(tx, segment):
            entry = loads(row.payload)
            if row.type == "context_edit":
                edits[id_or_none(entry.get("targetId"))] = entry.get("replacement", {})
            else:
                said.append((row.entry_id, mended(entry["message"])))
    found = PI.instructions(
        [message for entry_id, message in said if edits.get(entry_id, {}) is not None]
    )
    return found if found is None else {**found, "timestamp": ms_from_iso(timestamp)}


def _edits_of(tx: ReadTx, segment: Segment) -> list[bytes]:
    """Return the edits in one branch's range, by the index."""
    rows = _instructions(tx, segment)
    return [row.payload.encode() for row in rows if row.type == "context_edit"]


def _instructions(tx: ReadTx, segment: Segment) -> list[statements.ContextInstructions]:
    return tx.all(
        "context.instructions",
        branch_no=segment.branch_no,
        low_no=segment.low_no,
        high_no=segment.high_no,
    )


def _add(
    read: _Messages, excluded: set[int], rows: list[tuple[int, int, bytes]], *, retained: bool
) -> None:
    """Add the messages of rows. Almost all are sent as stored, and take the short way."""
    as_they_stand = [content for _, projection, content in rows if projection == _BODY]
    if len(as_they_stand) == len(rows):
        read.rows.append(rows)
        read.parts += as_they_stand
        return
    read.rows.append(_without_edits(read, rows))
    for _, projection, content in read.rows[-1]:
        if projection == Projection.EXCLUDED:
            excluded.add(len(read.parts))
        read.parts.append(_message(projection, content, retained=retained))


def _without_edits(
    read: _Messages, rows: Sequence[tuple[int, int, bytes]]
) -> list[tuple[int, int, bytes]]:
    """Set the edits among rows aside, and return the other rows."""
    read.edits += [content for _, projection, content in rows if projection == _EDIT]
    return [row for row in rows if row[1] != _EDIT]


def _add_kept_by_reset(read: _Messages, rows: Sequence[tuple[int, int, bytes]]) -> None:
    kept = list(_kept_by_reset(read.format, _without_edits(read, rows)))
    read.rows.append(kept)
    read.parts += [content for _, content in kept]
    read.kept_by_reset |= bool(kept)


def _span(tx: ReadTx, segment: Segment, system_after_no: int) -> list[tuple[int, int, bytes]]:
    rows: list[tuple[int, int, bytes]] = tx.tuples(
        "context.span",
        branch_no=segment.branch_no,
        low_no=segment.low_no,
        high_no=segment.high_no,
        system_after_no=system_after_no,
    )
    return rows


def _message(projection: int, content: bytes, *, retained: bool) -> bytes:
    if projection == Projection.MADE:
        message = message_of(loads(content))
        if not retained or not is_checkpoint(message.get("providerReplay")):
            return _written(message)
    elif projection == Projection.CHECKPOINT and retained:
        message = loads(content)
    else:
        return content
    del message["providerReplay"]
    return _written(message)


def _written(message: dict[str, Any]) -> bytes:
    return dumps_again(message).encode()


def _kept_by_reset(
    message_format: Format, rows: Sequence[tuple[int, int, bytes]]
) -> Iterator[tuple[int, bytes]]:
    """Yield what a reset keeps: user and assistant messages, and results of kept calls."""
    waiting: dict[CallId, int] = {}
    for entry_no, projection, content in rows:
        message = loads(content)
        if projection == Projection.MADE:
            if message["type"] != "message":
                continue
            message = message_of(message)
        role = message_format.role(message)
        results = [call for call in message_format.closes(message) if waiting.get(call)]
        if role == RESULT and not results:
            continue
        if message_format.reset_drops and role not in (USER, ASSISTANT, RESULT):
            continue
        for call in results:
            waiting[call] -= 1
        for call in message_format.opens(message):
            waiting[call] = waiting.get(call, 0) + 1
        yield entry_no, _message(projection, content, retained=True)


def _model(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["type"] == "model_change":
        return present(entry, "provider", "modelId")
    named = present(entry["message"], "provider", "model")
    return {"modelId" if name == "model" else name: value for name, value in named.items()}


def _thinking(entry: str | None) -> dict[str, Any]:
    """Return the field of an entry that sets the thinking level, if it has that field."""
    return {"thinkingLevel": "off"} if entry is None else present(loads(entry), "thinkingLevel")


@stored_text()
def _estimate(read: _Messages) -> int:
    return sum(read.format.tokens(loads(part)) for _, part in read.numbered())


@stored_text()
def decode_messages(parts: Sequence[bytes]) -> list[dict[str, Any]]:
    """Decode messages in slices, between which other threads can run."""
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

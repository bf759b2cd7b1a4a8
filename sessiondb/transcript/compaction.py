"""Compaction: a job that holds nothing while it thinks.

    begin --> running --> committed                        (the summary entry and epoch + 1, one transaction)
                 |------> rejected                         (empty, or no shorter than what it replaces)
                 |------> superseded                       (the context moved on; the summary stays on the job's row)
                 `------> failed | cancelled | expired | abandoned
                               `--> committed (late) | superseded | rejected: a commit is always reconciled

`begin` and `commit` are two short write transactions. Between them there is a row with a deadline, not a
lock: appends, resets, forks and even other compactions proceed, and whatever becomes of the caller, the next
append and the next turn are not affected.

What makes that safe is that a summary covers entries *up to a cut* and everything after the cut stays in the
context by definition: a message that arrives meanwhile is neither in the summary nor lost. Rebuilding starts
at the previous boundary's first kept entry; starting after its compaction entry would drop the tail that it
had kept (pi's reader has that gap; OpenClaw's current one does not).

`commit` is the only completion path, for a result in time, late, repeated or out of order. It decides by the
epochs since the job began:

    none                                      committed (late if the job had been given up)
    only compactions, all with a lower cut    committed, late: the cut only moves forward
    a compaction that covers as much          superseded
    a reset, branch switch or undo            superseded

Source of the cut rule: pi `core/compaction/compaction.ts` and OpenClaw's extension of it; the stricter parts
(tool calls, unprocessed messages) are sessiondb's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sessiondb import events, process
from sessiondb.backend import ReadTx, Row, Tx
from sessiondb.errors import (
    CompactionCoolDown,
    CompactionRefused,
    CompactionRunning,
    InvalidInput,
    NotFound,
    NothingToCompact,
    NothingToUndo,
    SessionEnded,
)
from sessiondb.json_text import dumps
from sessiondb.limits import (
    COMPACTION_RENEWAL_FACTOR,
    COOL_DOWN_AFTER_REJECTIONS,
    COOL_DOWN_MS,
    CUT_SCAN_ROWS,
    CUT_SCAN_ROWS_FIRST,
    ENTRY_BYTES_MAX,
    MANUAL_SUMMARY_TOKENS_FLOOR,
)
from sessiondb.models import CompactionInfo, CompactionOutcome, CompactionResult

from .append import (
    State,
    advance_epoch,
    estimate_context,
    load_state,
    place,
    require_live,
    save_state,
)
from .context import read_messages
from .entries import CUT_ROLES, CUT_TYPES, Draft, new_id
from .paths import Segment, context_start, require_entries, segments, walk_back
from .tokens import text_tokens

MANUAL = "manual"
GivenUp = Literal["failed", "cancelled", "expired", "abandoned"]

# What a person who asked for a compaction by hand is told when it has ended: whatever became of it, once.
_TOLD = {
    "committed": "The conversation has been compacted.",
    "superseded": "The conversation moved on while it was being compacted, so nothing was changed. You can go on.",
    "rejected": "Compacting would not have made the conversation any shorter, so nothing was changed. You can go on.",
    "cancelled": "Compacting the conversation was stopped. Nothing is lost, and you can go on.",
    "failed": "The conversation could not be compacted. Nothing is lost, and you can go on.",
    "expired": "The conversation could not be compacted in time. Nothing is lost, and you can go on.",
    "abandoned": "The conversation could not be compacted. Nothing is lost, and you can go on.",
    "late": "The conversation has been compacted after all.",
}


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a summary ends: it covers everything on the path up to cut_no; first_kept_no is the next that is a message."""

    cut_no: int | None
    first_kept_no: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """A running compaction, as its owner holds it."""

    compaction_id: str
    session_no: int
    session_id: str
    trigger: str
    base_epoch: int
    cut_no: int | None
    head_no: int | None
    tokens_before: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a summariser made, encoded before the transaction."""

    text: str
    text_json: str
    tokens: int
    extra_json: str
    """Further fields of the entry, each preceded by a comma: details, fromHook."""

    @classmethod
    def of(cls, text: str, details: object = None, *, from_hook: bool | None = None) -> Summary:
        """Encode a summary. Raises InvalidInput if `details` has no JSON form, or if the entry would be too large."""
        extra = f',"details":{dumps(details)}' if details is not None else ""
        extra += f',"fromHook":{dumps(from_hook)}' if from_hook is not None else ""
        text_json = dumps(text)
        size = len(text_json.encode()) + len(extra.encode())
        if size > ENTRY_BYTES_MAX:
            raise InvalidInput(
                f"the summary and its details have {size:,} bytes; at most {ENTRY_BYTES_MAX:,} fit in one entry"
            )
        return cls(text=text, text_json=text_json, tokens=text_tokens(text), extra_json=extra)


# -- begin --------------------------------------------------------------------------------------------------


def begin(
    tx: Tx, session_no: int, *, trigger: str, keep_recent_tokens: int, timeout_ms: int
) -> Job:
    """Start a job: choose the cut and write its row.

    Raises:
        SessionEnded: the session has ended; fork it to go on.
        CompactionRunning: a live job exists; the fields name its owner, age and deadline.
        CompactionCoolDown: the last ones made no progress.
        NothingToCompact: no entry lies before what must be kept.
    """
    state = load_state(tx, session_no)
    require_entries(state.session_id, state.archived_at_ms)
    if state.ended_at_ms is not None:
        raise SessionEnded(
            f"session {state.session_id} has ended; there is no context to compact",
            session_id=state.session_id,
        )
    _refuse_second_job(tx, state)
    _refuse_in_cool_down(tx, state)
    cut = choose_cut(tx, state, keep_recent_tokens, manual=trigger == MANUAL)
    job = Job(
        compaction_id=new_id(),
        session_no=session_no,
        session_id=state.session_id,
        trigger=trigger,
        base_epoch=state.epoch,
        cut_no=cut.cut_no,
        head_no=state.head_no,
        tokens_before=state.context_tokens,
        deadline_ms=tx.now_ms + timeout_ms,
    )
    tx.run(
        "compaction.begin",
        compaction_id=job.compaction_id,
        session_no=session_no,
        trigger=trigger,
        base_epoch=job.base_epoch,
        cut_no=cut.cut_no,
        first_kept_no=cut.first_kept_no,
        tokens_before=job.tokens_before,
        instance_no=tx.instance_no,
        now_ms=tx.now_ms,
        deadline_ms=job.deadline_ms,
        deadline_max_ms=tx.now_ms + timeout_ms * COMPACTION_RENEWAL_FACTOR,
    )
    _tell(
        tx,
        _require(tx, job.compaction_id),
        "compaction_started",
        f"of about {job.tokens_before:,} tokens began ({trigger})",
    )
    return job


def _refuse_second_job(tx: Tx, state: State) -> None:
    running = tx.first("compaction.running", session_no=state.session_no)
    if running is None:
        return
    if running.deadline_ms <= tx.now_ms:
        give_up(tx, running.compaction_id, "expired", "its deadline passed")
        return
    age_s, left_s = (
        (tx.now_ms - running.begun_at_ms) / 1000,
        (running.deadline_ms - tx.now_ms) / 1000,
    )
    raise CompactionRunning(
        f"session {state.session_id}: compaction {running.compaction_id} ({running.trigger}) has been running for {age_s:.0f} s "
        f"in {running.program}, pid {running.pid} on {running.host}; its deadline is in {left_s:.0f} s",
        session_id=state.session_id,
        compaction_id=running.compaction_id,
        # Plain values: the error may be pickled, and outlives this snapshot.
        owner=None
        if running.host is None
        else process.Identity(running.host, running.boot_id, running.pid, running.pid_started),
        retry_after_ms=running.deadline_ms - tx.now_ms,
    )


def _refuse_in_cool_down(tx: Tx, state: State) -> None:
    """Refuse while the last jobs of this epoch were all rejected. Derived from their rows: it cannot get stuck."""
    recent = tx.all(
        "compaction.recent", session_no=state.session_no, limit=COOL_DOWN_AFTER_REJECTIONS
    )
    if len(recent) < COOL_DOWN_AFTER_REJECTIONS or any(
        row.state != "rejected" or row.base_epoch != state.epoch for row in recent
    ):
        return
    until_ms = max(row.finished_at_ms for row in recent) + COOL_DOWN_MS
    # Further ahead than it is long: the clock has been set back since, and nobody waits until it has come round again.
    if tx.now_ms < until_ms <= tx.now_ms + COOL_DOWN_MS:
        raise CompactionCoolDown(
            f"session {state.session_id}: the last {len(recent)} compactions made its context no smaller; "
            f"the next may begin in {(until_ms - tx.now_ms) / 1000:.0f} s",
            session_id=state.session_id,
            until_ms=until_ms,
            retry_after_ms=until_ms - tx.now_ms,
        )


def choose_cut(tx: ReadTx, state: State, keep_recent_tokens: int, *, manual: bool) -> Cut:
    """Choose where the summary ends.

    Walks back from the head until `keep_recent_tokens` are kept, then to a place where a context may begin:
    never between a tool call and its result, never past a user message that nobody has answered yet. Reads the
    small columns of what is kept, nothing of the history before it.

    A person who asks by hand gets a compaction even when everything would fit: then only unanswered messages
    are kept, and if there is nothing else, all is.

    Raises:
        NothingToCompact: the cut would not move forward.
    """
    cut, oldest_no = _search(tx, state, keep_recent_tokens)
    if cut is None and manual:
        cut, oldest_no = _search(tx, state, 0)
        if cut is None and oldest_no is not None:
            cut = Cut(None, oldest_no)
    if cut is None:
        raise NothingToCompact(
            f"session {state.session_id}: its context (about {state.context_tokens:,} tokens) holds nothing to summarise before the "
            f"{keep_recent_tokens:,} tokens that are to be kept",
            session_id=state.session_id,
        )
    return cut


def _search(tx: ReadTx, state: State, keep_tokens: int) -> tuple[Cut | None, int | None]:
    """Return the cut (None: it would not move forward) and the oldest entry of the context.

    A place between two entries is a candidate when a context may begin there and every unanswered message lies
    after it. The chosen one is the first that keeps enough or, where the entry that reaches the budget is a tool
    result, the last one after it (pi's rule: the budget is not overrun by a long result).
    """
    start_no = context_start(state.boundary_no, state.first_kept_no)
    kept_tokens, answered, waiting = 0, False, False
    candidate: Cut | None = None
    chosen: Cut | None = None
    newer: Row | None = None
    oldest_no: int | None = None
    for row in _context_rows(tx, state.head_no, start_no):
        if row.role == "assistant" and not answered:
            answered = True
            if not waiting and state.open_calls == 0:
                candidate = Cut(state.head_no, None)
        waiting = waiting or row.role == "user"
        if newer is not None and answered and _may_begin(newer) and row.open_calls == 0:
            candidate = Cut(row.entry_no, newer.entry_no)
        if chosen is None and candidate is not None and kept_tokens >= keep_tokens:
            chosen = candidate
        if row.projection:
            oldest_no = row.entry_no
            if chosen is not None and chosen.cut_no is not None and row.entry_no <= chosen.cut_no:
                return chosen, oldest_no  # there is something before the cut
            kept_tokens += row.tokens
        if (
            chosen is None
            and candidate is not None
            and kept_tokens >= keep_tokens
            and not _may_begin(row)
        ):
            chosen = candidate
        if row.projection:
            newer = (
                row  # a boundary or a setting in between is nothing that a context could begin with
            )
    return None, oldest_no


def _may_begin(row: Row) -> bool:
    return row.role in CUT_ROLES or row.type in CUT_TYPES


def _context_rows(tx: ReadTx, head_no: int | None, start_no: int | None) -> Iterator[Row]:
    # What is kept is usually short, and reading ahead would happen inside the write transaction: so each page is twice
    # the one before.
    limit = CUT_SCAN_ROWS_FIRST

    def page(segment: Segment, high_no: int) -> list[Row]:
        nonlocal limit
        rows = tx.all(
            "compaction.cut_page",
            branch_no=segment.branch_no,
            low_no=segment.low_no,
            high_no=high_no,
            limit=limit,
        )
        limit = min(2 * limit, CUT_SCAN_ROWS)
        return rows

    return walk_back(tx, head_no, start_no, page)


def read_span(tx: ReadTx, job: Job) -> list[bytes]:
    """Read what a job has to summarise, as JSON messages: the previous summary, then everything up to the cut.

    Without a cut every entry is kept, and only the previous summary is left to be written anew. May be repeated at
    any time: the job's base epoch and cut do not move.
    """
    epoch = tx.one("transcript.epoch", session_no=job.session_no, epoch=job.base_epoch)
    parts, excluded = read_messages(tx, job.cut_no, epoch.boundary_no, epoch.first_kept_no)
    return [part for index, part in enumerate(parts) if index not in excluded]


def read_kept(tx: ReadTx, job: Job) -> list[bytes]:
    """Read the whole context that a job without a cut began with. All of it stays; it is there to be read."""
    epoch = tx.one("transcript.epoch", session_no=job.session_no, epoch=job.base_epoch)
    parts, excluded = read_messages(tx, job.head_no, epoch.boundary_no, epoch.first_kept_no)
    return [part for index, part in enumerate(parts) if index not in excluded]


# -- while it runs ------------------------------------------------------------------------------------------


def renew(tx: Tx, compaction_id: str, timeout_ms: int) -> int:
    """Move a running job's deadline to `timeout_ms` from now, at most to its bound; return the new deadline.

    Raises:
        CompactionRefused: the job is no longer running.
    """
    row = tx.first(
        "compaction.renew", compaction_id=compaction_id, deadline_ms=tx.now_ms + timeout_ms
    )
    if row is None:
        job = _require(tx, compaction_id)
        raise CompactionRefused(
            f"compaction {compaction_id} of session {job.session_id} is {job.state}, not running",
            compaction_id=compaction_id,
            state=job.state,
        )
    return int(row.deadline_ms)


def give_up(tx: Tx, compaction_id: str, state: GivenUp, reason: str) -> bool:
    """End a running job without a result; False if it was no longer running. A later commit is still reconciled."""
    if (
        tx.run(
            "compaction.finish",
            compaction_id=compaction_id,
            state=state,
            reason=reason,
            now_ms=tx.now_ms,
        )
        == 0
    ):
        return False
    job = _require(tx, compaction_id)
    _tell(tx, job, "compaction_failed", f"was given up as {state}: {reason}")
    _tell_person(tx, job, "compaction_failed", _TOLD[state])
    return True


# -- commit -------------------------------------------------------------------------------------------------


def commit(tx: Tx, compaction_id: str, summary: Summary, timestamp: str) -> CompactionResult:
    """Complete a job: decide the outcome and, if it is `committed`, begin the next epoch. O(1) rows.

    May be repeated, in any order with other signals: a job that has an outcome keeps it.

    Raises:
        NotFound: no such compaction.
    """
    job = _require(tx, compaction_id)
    if job.state in ("committed", "superseded", "rejected"):
        return _result(tx, job)
    state = load_state(tx, job.session_no)
    if not summary.text.strip():
        return _settle(tx, job, "rejected", "the summary is empty", summary)
    overtaken = _overtaken_by(tx, job, state)
    if overtaken is not None:
        return _settle(tx, job, "superseded", overtaken, summary)
    first_kept_no = _first_after(tx, state, job)
    no_reduction = _no_reduction(tx, state, job, summary)
    if no_reduction is not None:
        return _settle(tx, job, "rejected", no_reduction, summary)
    return _commit(tx, job, state, first_kept_no, summary, timestamp)


def _overtaken_by(tx: ReadTx, job: Row, state: State) -> str | None:
    """Say what makes a summary obsolete, or None."""
    if state.ended_at_ms is not None:
        return "the session has ended"
    if state.epoch == job.base_epoch:
        return None
    moved = tx.first(
        "transcript.first_epoch_not_compaction", session_no=state.session_no, epoch=job.base_epoch
    )
    if moved is not None:
        return f"{moved.reason} began epoch {moved.epoch}"
    # Numbers grow along a path, so the context's first entry tells what the newer compactions cover.
    starts_no = context_start(state.boundary_no, state.first_kept_no)
    if job.cut_no is None or starts_no is None or starts_no > job.cut_no:
        return f"a compaction that covers as much began epoch {state.epoch}"
    return None


def _first_after(tx: ReadTx, state: State, job: Row) -> int | None:
    """Return the first entry after the cut on today's path: what was there at begin, or the first to arrive since."""
    if job.first_kept_no is not None or job.cut_no is None:
        first_kept_no: int | None = job.first_kept_no
        return first_kept_no
    for segment in segments(tx, state.head_no, stop_no=job.cut_no):
        low_no = segment.low_no + (segment.low_no == job.cut_no)
        row = tx.first(
            "transcript.first_in_span",
            branch_no=segment.branch_no,
            low_no=low_no,
            high_no=segment.high_no,
        )
        if row is not None:
            return int(row.entry_no)
    return None


def _no_reduction(tx: ReadTx, state: State, job: Row, summary: Summary) -> str | None:
    if job.cut_no is not None:
        tail = state.tokens_total - tx.one("transcript.by_no", entry_no=job.cut_no).tokens_total
        replaced = estimate_context(tx, state) - tail
    else:  # every entry is kept, so only the previous summary is replaced
        replaced = (
            tx.one("transcript.by_no", entry_no=state.boundary_no).tokens
            if state.boundary_no is not None
            else 0
        )
    allowed = max(replaced, MANUAL_SUMMARY_TOKENS_FLOOR) if job.trigger == MANUAL else replaced
    if summary.tokens < allowed:
        return None
    return f"the summary has about {summary.tokens:,} tokens and would replace {max(replaced, 0):,}"


def _commit(
    tx: Tx, job: Row, state: State, first_kept_no: int | None, summary: Summary, timestamp: str
) -> CompactionResult:
    entry_id = new_id()
    kept_id = (
        tx.one("transcript.by_no", entry_no=first_kept_no).entry_id
        if first_kept_no is not None
        else entry_id
    )
    draft = Draft(
        type="compaction",
        # An entry that keeps nothing names itself: every reader then finds nothing before it to keep.
        before=f'{{"type":"compaction","id":"{entry_id}","parentId":',
        after=f',"timestamp":"{timestamp}","summary":{summary.text_json},"firstKeptEntryId":{dumps(kept_id)},'
        f'"tokensBefore":{job.tokens_before}{summary.extra_json}}}',
        fills_parent=True,
        entry_id=entry_id,
        tokens=summary.tokens,
        first_kept_no=first_kept_no,
        by_job=True,
    )
    receipt = place(tx, state, draft)
    save_state(tx, state)
    late = job.state != "running" or state.epoch != job.base_epoch + 1
    settled = tx.run(
        "compaction.settle",
        compaction_id=job.compaction_id,
        state="committed",
        now_ms=tx.now_ms,
        late=int(late),
        epoch=state.epoch,
        entry_no=receipt.entry_no,
        tokens_after=state.context_tokens,
        reason=job.reason if late else None,
        summary=None,
    )
    assert settled == 1, f"compaction {job.compaction_id} was settled twice"
    sizes = f"began epoch {state.epoch}: about {job.tokens_before:,} tokens before, {state.context_tokens:,} after"
    if late:
        _tell(tx, job, "compaction_late", f"came late and {sizes}", epoch=state.epoch)
        _tell_person(tx, job, "compaction_late", _TOLD["late"])
    else:
        _tell(tx, job, "compaction_committed", sizes, epoch=state.epoch)
        _tell_person(tx, job, "compaction_committed", _TOLD["committed"])
    return _result(tx, _require(tx, job.compaction_id))


def _settle(
    tx: Tx, job: Row, outcome: CompactionOutcome, reason: str, summary: Summary
) -> CompactionResult:
    """Record an outcome that changes nothing but the job's own row; the summary is kept there."""
    tx.run(
        "compaction.settle",
        compaction_id=job.compaction_id,
        state=outcome,
        now_ms=tx.now_ms,
        late=0,
        epoch=None,
        entry_no=None,
        tokens_after=None,
        reason=reason,
        summary=summary.text,
    )
    _tell(tx, job, f"compaction_{outcome}", f"changed nothing: {reason}")
    if job.state == "running":  # else they were told when it was given up, and that has not changed
        _tell_person(tx, job, f"compaction_{outcome}", _TOLD[outcome])
    return _result(tx, _require(tx, job.compaction_id))


def _tell(tx: Tx, job: Row, kind: str, what: str, **data: object) -> None:
    """Tell operators what became of a job, in the transaction in which it did."""
    text = f"Compaction {job.compaction_id} of session {job.session_id} {what}"
    events.emit(
        tx,
        kind,
        "operator",
        text,
        session_no=job.session_no,
        compaction_id=job.compaction_id,
        trigger=job.trigger,
        **data,
    )


def _tell_person(tx: Tx, job: Row, kind: str, text: str) -> None:
    """Tell the person who asked for a compaction by hand, and waits. Nobody waits for an automatic one: it holds nothing up."""
    if job.trigger == MANUAL:
        events.emit(
            tx, kind, "user", text, session_no=job.session_no, compaction_id=job.compaction_id
        )


def _result(tx: ReadTx, job: Row) -> CompactionResult:
    current = tx.one("context.pointers", session_no=job.session_no)
    return CompactionResult(
        compaction_id=job.compaction_id,
        session_id=job.session_id,
        outcome=job.state,
        epoch=job.epoch if job.epoch is not None else current.epoch,
        late=bool(job.late),
        tokens_before=job.tokens_before,
        tokens_after=job.tokens_after,
        entry_id=job.entry_id,
        reason=job.reason,
    )


def _require(tx: ReadTx, compaction_id: str) -> Row:
    job = tx.first("compaction.by_id", compaction_id=compaction_id)
    if job is None:
        raise NotFound(
            f"there is no compaction {compaction_id!r}; list them with `sessiondb compactions DB`",
            compaction_id=compaction_id,
        )
    return job


# -- undo ---------------------------------------------------------------------------------------------------


def undo(tx: Tx, session_no: int) -> int:
    """Return to the pointers that the context had before its last compaction, as a new epoch; return that epoch.

    Entries that arrived since stay. The summary entry stays too, but no context begins at it any more.

    Raises:
        NothingToUndo: the context does not begin at a compaction.
        SessionEnded: the session has ended; fork it to go on.
    """
    state = load_state(tx, session_no)
    require_live(state)
    job = (
        tx.first("compaction.by_entry", session_no=session_no, entry_no=state.boundary_no)
        if state.boundary_no is not None
        else None
    )
    if job is None:
        raise NothingToUndo(
            f"session {state.session_id}: its context does not begin at a compaction of its own; there is nothing to undo",
            session_id=state.session_id,
        )
    before = tx.one("transcript.epoch", session_no=session_no, epoch=job.epoch - 1)
    advance_epoch(tx, state, "undo", before.boundary_no, before.first_kept_no)
    state.context_tokens, state.tokens_fresh = estimate_context(tx, state), 0
    save_state(tx, state)
    return state.epoch


# -- listing ------------------------------------------------------------------------------------------------


def page(
    tx: ReadTx, before_no: int | None, limit: int, *, session_no: int | None
) -> tuple[list[CompactionInfo], int | None]:
    """List jobs, newest first, of one session or of all; also return the next page's cursor, None at the end."""
    before_no = 2**62 if before_no is None else before_no
    if session_no is None:
        rows = tx.all("compaction.list", before_no=before_no, limit=limit)
    else:
        rows = tx.all(
            "compaction.list_of_session", session_no=session_no, before_no=before_no, limit=limit
        )
    more = rows[-1].compaction_no if len(rows) == limit else None
    return [_info(row) for row in rows], more


def _info(row: Row) -> CompactionInfo:
    return CompactionInfo(
        compaction_id=row.compaction_id,
        session_id=row.session_id,
        state=row.state,
        trigger=row.trigger,
        base_epoch=row.base_epoch,
        epoch=row.epoch,
        late=bool(row.late),
        tokens_before=row.tokens_before,
        tokens_after=row.tokens_after,
        owner=row.owner,
        begun_at_ms=row.begun_at_ms,
        deadline_ms=row.deadline_ms,
        finished_at_ms=row.finished_at_ms,
        reason=row.reason,
    )

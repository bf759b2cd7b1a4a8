"""Compaction: a job that holds nothing while it thinks.

    running --> committed       the summary entry and epoch + 1, in one transaction
    running --> rejected        empty, or no shorter than what it replaces
    running --> superseded      the context moved on. The job's row keeps the summary
    running --> failed | cancelled | expired | abandoned
    failed | cancelled | expired | abandoned --> committed | superseded | rejected   late

`begin` and `commit` are two short write transactions. Between them there is a row with a
deadline, and no lock. Appends, resets, forks and even other compactions proceed. Whatever
becomes of the caller, the next append and the next turn are not affected.

This is safe because a summary covers entries *up to a cut* (`cut.py`), and everything after the
cut stays in the context by definition. A message that arrives meanwhile is not in the summary,
and is not lost. Rebuilding starts at the previous boundary's first kept entry. Starting after its
compaction entry would drop the tail that it had kept: pi's reader has that gap, and OpenClaw's
current one does not.

`commit` is the only completion path, for a result in time, late, repeated or out of order. It
decides by the epochs since the job began:

    none                                      committed (late if the job had been given up)
    only compactions, all with a lower cut    committed, late: the cut only moves forward
    a compaction that covers as much          superseded
    a reset, branch switch or undo            superseded
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from sessiondb import events, process
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import (
    CompactionCoolDown,
    CompactionRefused,
    CompactionRunning,
    InvalidInput,
    NotFound,
    NothingToCompact,
    NothingToUndo,
    SessionEnded,
    StoreDamaged,
)
from sessiondb.json_text import dumps, dumps_again
from sessiondb.limits import (
    COMPACTION_RENEWAL_FACTOR,
    COOL_DOWN_AFTER,
    COOL_DOWN_MS,
    ENTRY_BYTES_MAX,
    MANUAL_SUMMARY_TOKENS_FLOOR,
    SAVED_SHARE_MIN,
)
from sessiondb.models import (
    CompactionInfo,
    CompactionResult,
)
from sessiondb.words import (
    CompactionOutcome,
    EventKind,
)

from .append import (
    advance_epoch,
    attach,
    count_context,
    estimate_context,
)
from .context import read_messages, system_message
from .cut import Cut, calls_follow, choose_cut
from .entries import Draft, new_id
from .formats import PI, spoken
from .paths import context_start, require_entries, segments
from .state import State, load_state, require_live, save_state
from .tokens import text_tokens

if TYPE_CHECKING:
    from sessiondb import statements

MANUAL = "manual"
_OUTCOMES: dict[str, CompactionOutcome] = {state: state for state in get_args(CompactionOutcome)}
"""The states in which a commit left a job."""
_SETTLED: dict[CompactionOutcome, EventKind] = {
    "committed": "compaction_committed",
    "superseded": "compaction_superseded",
    "rejected": "compaction_rejected",
}
GivenUp = Literal["failed", "cancelled", "expired", "abandoned"]
"""How a compaction ends that is given up."""

# The one message to the person who asked for a manual compaction, by how it ended.
_MESSAGES = {
    "committed": "The conversation has been compacted.",
    "kept": "The conversation was summarised, but it is no shorter: everything in it still waits "
    "for an answer.",
    "superseded": "The conversation moved on while it was being compacted, "
    "so nothing was changed. You can go on.",
    "rejected": "Compacting would not have made the conversation any shorter, "
    "so nothing was changed. You can go on.",
    "cancelled": "Compacting the conversation was stopped. Nothing is lost, and you can go on.",
    "failed": "The conversation could not be compacted. Nothing is lost, and you can go on.",
    "expired": "The conversation could not be compacted in time. "
    "Nothing is lost, and you can go on.",
    "abandoned": "The conversation could not be compacted. Nothing is lost, and you can go on.",
    "late": "The conversation has been compacted after all.",
}


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
    """A summariser's result, encoded before the transaction."""

    text: str
    text_json: str
    tokens: int
    extra_json: str
    """Further fields of the entry, each preceded by a comma: details, fromHook."""

    @classmethod
    def of(cls, text: str, details: object = None, *, from_hook: bool | None = None) -> Summary:
        """Encode a summary.

        Raises:
            InvalidInput: `details` has no JSON form, or the entry would be too large.
        """
        extra = f',"details":{dumps(details)}' if details is not None else ""
        extra += f',"fromHook":{dumps(from_hook)}' if from_hook is not None else ""
        text_json = dumps(text)
        size = len(text_json.encode()) + len(extra.encode())
        if size > ENTRY_BYTES_MAX:
            raise InvalidInput(
                f"the summary and its details have {size:,} bytes; "
                f"at most {ENTRY_BYTES_MAX:,} fit in one entry"
            )
        return cls(text=text, text_json=text_json, tokens=text_tokens(text), extra_json=extra)


@dataclass(frozen=True, slots=True)
class Choice:
    """A cut that was chosen in a read, and what it was chosen for."""

    session_no: int
    trigger: str
    keep_recent_tokens: int
    epoch: int
    head_no: int | None
    model_no: int | None
    """The newest reply, or what else set the model."""
    cut: Cut | None
    """None: there is nothing to summarise."""


# -- begin -----------------------------------------------------------------------------


def choose(tx: ReadTx, session_no: int, *, trigger: str, keep_recent_tokens: int) -> Choice:
    """Choose the cut of a job, in a read: it looks into messages. `begin` checks it.

    Raises:
        SessionArchived: its entries are in an archive.
    """
    state = load_state(tx, session_no)
    require_entries(state.session_id, state.archived_at_ms)
    return Choice(
        session_no=session_no,
        trigger=trigger,
        keep_recent_tokens=keep_recent_tokens,
        epoch=state.epoch,
        head_no=state.head_no,
        model_no=state.model_no,
        cut=choose_cut(tx, state, keep_recent_tokens, manual=trigger == MANUAL),
    )


def begin(
    tx: Tx, choice: Choice, *, timeout_ms: int, threshold_tokens: int | None = None
) -> Job | None:
    """Start a job with a chosen cut: write its row. None: choose again, the context has changed.

    With `threshold_tokens` a job that leaves a larger context counts for the cool-down.

    Costs a few lookups, however long the context is.

    Raises:
        SessionEnded: the session has ended. Fork it to continue.
        CompactionRunning: a live job exists. The fields name its owner, age and deadline.
        CompactionCoolDown: the last ones made no progress.
        NothingToCompact: no entry lies before what must be kept.
    """
    session_no, trigger, cut = choice.session_no, choice.trigger, choice.cut
    state = load_state(tx, session_no)
    require_entries(state.session_id, state.archived_at_ms)
    if state.ended_at_ms is not None:
        raise SessionEnded(
            f"session {state.session_id} has ended; there is no context to compact",
            session_id=state.session_id,
        )
    _refuse_second_job(tx, state)
    _refuse_in_cool_down(tx, state)
    if not _still_holds(tx, choice, state):
        return None
    if cut is None:
        raise NothingToCompact(
            f"session {state.session_id}: its context (about {state.context_tokens:,} tokens) "
            f"holds nothing to summarise before the {choice.keep_recent_tokens:,} tokens that "
            "are to be kept",
            session_id=state.session_id,
        )
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
        threshold_tokens=threshold_tokens,
    )
    _notify_operators(
        tx,
        _require(tx, job.compaction_id),
        "compaction_started",
        f"of about {job.tokens_before:,} tokens began ({trigger})",
    )
    return job


def _still_holds(tx: Tx, choice: Choice, state: State) -> bool:
    """Tell whether a cut that was chosen in a read may be made now.

    In one epoch a path only grows, and what was added lies after the cut. But a result may be
    that of a call before it. A working turn writes one after the other, whose calls lie after it.
    """
    if choice.epoch != state.epoch:
        return False
    if choice.head_no == state.head_no or choice.cut is None or choice.cut.cut_no is None:
        return True
    assert choice.head_no is not None, "there is no cut without a head"
    ends_there = choice.cut.first_kept_no is None
    if ends_there and spoken(state.formats).reply_in_parts and state.model_no != choice.model_no:
        return False  # what arrived may be a part of the reply that the cut lies behind
    return calls_follow(tx, state, since_no=choice.head_no, cut_no=choice.cut.cut_no)


def _refuse_second_job(tx: Tx, state: State) -> None:
    running = tx.first("compaction.running", session_no=state.session_no)
    if running is None:
        return
    if running.deadline_ms <= tx.now_ms:
        give_up(tx, running.compaction_id, "expired", "its deadline passed")
        return
    age_s = (tx.now_ms - running.begun_at_ms) / 1000
    left_s = (running.deadline_ms - tx.now_ms) / 1000
    raise CompactionRunning(
        f"session {state.session_id}: compaction {running.compaction_id} ({running.trigger}) "
        f"has been running for {age_s:.0f} s in {running.program}, pid {running.pid} "
        f"on {running.host}; its deadline is in {left_s:.0f} s",
        session_id=state.session_id,
        compaction_id=running.compaction_id,
        # Plain values: the error may be pickled, and outlives this snapshot.
        owner=process.owner(running),
        retry_after_ms=running.deadline_ms - tx.now_ms,
    )


def _refuse_in_cool_down(tx: Tx, state: State) -> None:
    """Refuse while the last jobs were all in vain, and only they moved the context.

    The cool-down is derived from their rows, so it cannot get stuck.
    """
    recent = tx.all("compaction.recent", session_no=state.session_no, limit=COOL_DOWN_AFTER)
    if len(recent) < COOL_DOWN_AFTER or not all(row.in_vain for row in recent):
        return
    committed = sum(row.state == "committed" for row in recent)
    if min(row.base_epoch for row in recent) + committed != state.epoch:
        return
    # Every job that is not running has its end (`compaction_finished_when_not_running`).
    ends_ms = [row.finished_at_ms for row in recent if row.finished_at_ms is not None]
    until_ms = max(ends_ms) + COOL_DOWN_MS
    # An end further ahead than COOL_DOWN_MS means that the clock has been set back: no refusal.
    if tx.now_ms < until_ms <= tx.now_ms + COOL_DOWN_MS:
        raise CompactionCoolDown(
            f"session {state.session_id}: the last {len(recent)} compactions made its context "
            f"hardly smaller; the next may begin in {(until_ms - tx.now_ms) / 1000:.0f} s",
            session_id=state.session_id,
            until_ms=until_ms,
            retry_after_ms=until_ms - tx.now_ms,
        )


def read_span(tx: ReadTx, job: Job, *, raw: bool = False) -> list[bytes]:
    """Read the messages that a job summarises, as JSON: the previous summary, then up to the cut.

    Without a cut every entry is kept, and only the previous summary remains to be written anew.
    In order, as a model takes them, unless they are to be `raw`. May be repeated at any time: the
    job's base epoch and cut do not move.
    """
    return _read_up_to(tx, job, job.cut_no, raw=raw)


def read_kept(tx: ReadTx, job: Job) -> list[bytes]:
    """Read the whole context that a job without a cut began with. All of it stays."""
    return _read_up_to(tx, job, job.head_no)


def _read_up_to(tx: ReadTx, job: Job, entry_no: int | None, *, raw: bool = False) -> list[bytes]:
    formats = tx.one("context.pointers", session_no=job.session_no).formats
    epoch = tx.one("transcript.epoch", session_no=job.session_no, epoch=job.base_epoch)
    return read_messages(
        tx, formats, entry_no, job.head_no, epoch.boundary_no, epoch.first_kept_no, raw=raw
    )


# -- while it runs ---------------------------------------------------------------------


def renew(tx: Tx, compaction_id: str, timeout_ms: int) -> int:
    """Move a running job's deadline to `timeout_ms` from now. Return the new deadline.

    At most to the bound that was set when the job began.

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
    """End a running job without a result. False if it was no longer running.

    A later commit is still reconciled.
    """
    ended = tx.run(
        "compaction.finish",
        compaction_id=compaction_id,
        state=state,
        reason=reason,
        now_ms=tx.now_ms,
    )
    if ended == 0:
        return False
    job = _require(tx, compaction_id)
    _notify_operators(tx, job, "compaction_failed", f"was given up as {state}: {reason}")
    _notify_user(tx, job, "compaction_failed", _MESSAGES[state])
    return True


# -- commit ----------------------------------------------------------------------------


def commit(tx: Tx, compaction_id: str, summary: Summary, timestamp: str) -> CompactionResult:
    """Complete a job: decide the outcome and, if it is `committed`, begin the next epoch.

    Touches O(1) rows. May be repeated, in any order with other signals: a job that has an outcome
    keeps it.

    Raises:
        NotFound: no such compaction.
    """
    job = _require(tx, compaction_id)
    if job.state in _OUTCOMES:
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


def _overtaken_by(tx: ReadTx, job: statements.CompactionById, state: State) -> str | None:
    """Return the reason why a summary is obsolete, or None."""
    if state.ended_at_ms is not None:
        return "the session has ended"
    if state.epoch == job.base_epoch:
        return None
    moved = tx.first(
        "transcript.first_epoch_not_compaction", session_no=state.session_no, epoch=job.base_epoch
    )
    if moved is not None:
        return f"{moved.reason} began epoch {moved.epoch}"
    # Numbers grow along a path, so the context's first entry shows how far newer compactions cover.
    starts_no = context_start(state.boundary_no, state.first_kept_no)
    if job.cut_no is None or starts_no is None or starts_no > job.cut_no:
        return f"a compaction that covers as much began epoch {state.epoch}"
    return None


def _first_after(tx: ReadTx, state: State, job: statements.CompactionById) -> int | None:
    """Return the first entry after the cut on the present path.

    It was there when the job began, or it is the first that has arrived since.
    """
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


def _no_reduction(
    tx: ReadTx, state: State, job: statements.CompactionById, summary: Summary
) -> str | None:
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


def _in_vain(job: statements.CompactionById, tokens_then: int, tokens_after: int) -> bool:
    """Tell whether a committed compaction should have been left out.

    It made the context hardly smaller, or leaves one that its caller will compact again at once.
    What a person asks for is never in vain.
    """
    if job.trigger == MANUAL:
        return False
    if job.threshold_tokens is not None and tokens_after > job.threshold_tokens:
        return True
    return tokens_then - tokens_after < SAVED_SHARE_MIN * tokens_then


def _commit(
    tx: Tx,
    job: statements.CompactionById,
    state: State,
    first_kept_no: int | None,
    summary: Summary,
    timestamp: str,
) -> CompactionResult:
    entry_id = new_id()
    system = system_message(tx, state, timestamp)
    extra = summary.extra_json
    if system is not None:
        extra += f',"systemMessage":{dumps_again(system)}'
    kept_id = (
        tx.one("transcript.by_no", entry_no=first_kept_no).entry_id
        if first_kept_no is not None
        else entry_id
    )
    draft = Draft(
        type="compaction",
        # An entry that keeps nothing names itself: then no reader finds anything before it to keep.
        before=f'{{"type":"compaction","id":"{entry_id}","parentId":',
        after=f',"timestamp":"{timestamp}","summary":{summary.text_json},'
        f'"firstKeptEntryId":{dumps(kept_id)},'
        f'"tokensBefore":{job.tokens_before}{extra}}}',
        follows_head=True,
        entry_id=entry_id,
        tokens=summary.tokens + (PI.tokens(system) if system is not None else 0),
    )
    tokens_then = estimate_context(tx, state)  # messages may have arrived since the job began
    receipt = attach(tx, state, draft, begins_context=True, first_kept_no=first_kept_no)
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
        in_vain=int(_in_vain(job, tokens_then, state.context_tokens)),
    )
    if settled != 1:
        raise StoreDamaged(
            f"compaction {job.compaction_id} of session {state.session_id} has ended, and its row "
            "says otherwise. Nothing was changed. Run `sessiondb verify DB`."
        )
    sizes = (
        f"began epoch {state.epoch}: "
        f"about {job.tokens_before:,} tokens before, {state.context_tokens:,} after"
    )
    if late:
        _notify_operators(tx, job, "compaction_late", f"came late and {sizes}", epoch=state.epoch)
        _notify_user(tx, job, "compaction_late", _MESSAGES["late"])
    else:
        _notify_operators(tx, job, "compaction_committed", sizes, epoch=state.epoch)
        shorter = state.context_tokens < job.tokens_before or job.cut_no is not None
        _notify_user(tx, job, "compaction_committed", _MESSAGES["committed" if shorter else "kept"])
    return _result(tx, _require(tx, job.compaction_id))


def _settle(
    tx: Tx,
    job: statements.CompactionById,
    outcome: CompactionOutcome,
    reason: str,
    summary: Summary,
) -> CompactionResult:
    """Record an outcome that changes nothing but the job's own row, which keeps the summary."""
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
        in_vain=int(outcome == "rejected"),
    )
    _notify_operators(tx, job, _SETTLED[outcome], f"changed nothing: {reason}")
    if job.state == "running":  # one that was given up has notified the user already
        _notify_user(tx, job, _SETTLED[outcome], _MESSAGES[outcome])
    return _result(tx, _require(tx, job.compaction_id))


def _notify_operators(
    tx: Tx, job: statements.CompactionById, kind: EventKind, change: str, **data: object
) -> None:
    """Write an event for operators, in the transaction of the change."""
    text = f"Compaction {job.compaction_id} of session {job.session_id} {change}"
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


def _notify_user(tx: Tx, job: statements.CompactionById, kind: EventKind, text: str) -> None:
    """Write an event for the person who asked for a manual compaction, and waits for it.

    Nobody waits for an automatic one: it holds nothing up.
    """
    if job.trigger == MANUAL:
        events.emit(
            tx, kind, "user", text, session_no=job.session_no, compaction_id=job.compaction_id
        )


def _result(tx: ReadTx, job: statements.CompactionById) -> CompactionResult:
    current = tx.one("context.pointers", session_no=job.session_no)
    return CompactionResult(
        compaction_id=job.compaction_id,
        session_id=job.session_id,
        outcome=_OUTCOMES[job.state],
        epoch=job.epoch if job.epoch is not None else current.epoch,
        late=bool(job.late),
        tokens_before=job.tokens_before,
        tokens_after=job.tokens_after,
        entry_id=job.entry_id,
        reason=job.reason,
    )


def _require(tx: ReadTx, compaction_id: str) -> statements.CompactionById:
    job = tx.first("compaction.by_id", compaction_id=compaction_id)
    if job is None:
        raise NotFound(
            f"there is no compaction {compaction_id!r}; list them with `sessiondb compactions DB`",
            compaction_id=compaction_id,
        )
    return job


# -- undo ------------------------------------------------------------------------------


def undo(tx: Tx, session_no: int) -> int:
    """Undo the last compaction: begin an epoch with the pointers before it. Return the epoch.

    Entries that arrived since stay. The summary entry stays too, but no context begins at it.

    Raises:
        NothingToUndo: the context does not begin at a compaction.
        SessionEnded: the session has ended. Fork it to continue.
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
            f"session {state.session_id}: its context does not begin at a compaction of its own; "
            "there is nothing to undo",
            session_id=state.session_id,
        )
    assert job.epoch is not None, "a job with an entry is committed, and has begun an epoch"
    before = tx.one("transcript.epoch", session_no=session_no, epoch=job.epoch - 1)
    advance_epoch(tx, state, "undo", before.boundary_no, before.first_kept_no)
    state.context_tokens, state.tokens_fresh = count_context(tx, state)
    save_state(tx, state)
    return state.epoch


# -- listing -----------------------------------------------------------------------------------


def page(
    tx: ReadTx, before_no: int | None, limit: int, *, session_no: int | None
) -> tuple[list[CompactionInfo], int | None]:
    """List jobs, newest first, of one session or of all. Also return the next page's cursor."""
    before_no = 2**62 if before_no is None else before_no
    if session_no is None:
        rows, more = tx.page("compaction.list", before_no=before_no, limit=limit)
    else:
        rows, more = tx.page(
            "compaction.list_of_session", session_no=session_no, before_no=before_no, limit=limit
        )
    return [_info(row) for row in rows], rows[-1].compaction_no if more else None


def _info(row: statements.CompactionList) -> CompactionInfo:
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

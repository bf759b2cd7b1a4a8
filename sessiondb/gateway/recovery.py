"""Start-up: release what dead processes held, then decide which interrupted messages to resume.

`recover` is bounded and resumable. It reads the processes that never closed the database, a
page at a time, and asks the kernel whether they live, outside of any transaction. For the dead
ones it interrupts their turns, abandons their compactions, and makes the replies that they
were sending `unknown`, in transactions of bounded size. Then it closes their registrations,
whichever host, container or boot they came from, so that the next call does not read them.
A process of which nothing can be known keeps what it holds until its leases end. A
compaction past its deadline is ended whichever process runs it: its owner may hang, or have
closed the file without ending it. `recover` reads no transcript and no finished row: 100,000
sessions cost nothing.

`plan` then decides about each interrupted message, newest first, with a reason:

    resume      queued in lane `resume`, below every lane that users wait in
    later       over the budget of this start (and of an hour, after it), or of what may run
                at once
    paused      the lane that accepted it is paused
    skip        too old, idle too long, session ended, failed or damaged, attempts used up:
                dead, and the user is notified
    breaker     too many unclean ends in a short time: nothing is resumed, and the operator
                is notified
    ask         it was open in a backup that was restored: a person decides (restored.py)

An unclean end is a process that was opened within the window, died without closing, and
has the name (`program`) of the process that plans. A crash loop is one program that
starts and dies again and again. Three killed commands do not stop a gateway from
resuming. The command line resumes on behalf of a gateway: it counts for each name but
its own, and goes by the worst.

A message that arrives for a session whose resume is queued goes first, and takes its place.
Source of the settings' names: openclaw docs, "restart recovery" and `session.maintenance`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from sessiondb import events, process, threads
from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.clock import Clock
from sessiondb.errors import SessionDBError
from sessiondb.limits import (
    INTERRUPTED_ATTEMPTS_MAX,
    LEASE_GRACE_MS,
    RESUME_BUDGET_S,
    SEARCH_STEPS_OF_UPKEEP,
    duration_ms,
)
from sessiondb.timers import SYSTEM
from sessiondb.transcript import compaction, search_index

from . import (
    cancellation,
    damage,
    dead_letters,
    dispatcher,
    lanes,
    outbox,
    retry,
    turns,
    worker,
)
from .draining import Loops, Stage, pause

logger = logging.getLogger("sessiondb")

ResumeAction = Literal["resume", "later", "paused", "skip", "breaker", "ask"]
"""What is done with an interrupted message."""
SkipState = Literal["failed", "damaged"]
"""A state of a conversation that a policy may leave alone."""

if TYPE_CHECKING:
    from sessiondb import statements

    Interrupted = statements.InboxInterrupted | statements.InboxInterruptedBy

UNKNOWN_REASON = "the reason is not recorded"

RECOVER_AT_ONCE = 50
PLAN_AT_ONCE = 200


class ResumePolicy(BaseModel):
    """What may be resumed after a restart. Zero hours mean no limit of that kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_concurrent_resumes: int = Field(default=1, ge=0)
    """Resumes queued or running at once. 0 resumes nothing."""
    budget_per_start: int = Field(default=20, ge=0)
    """Resumes that one start may queue, and that it may queue in an hour after that."""
    max_age_hours: float = Field(default=24.0, ge=0)
    """Since the message was accepted."""
    idle_hours: float = Field(default=0.0, ge=0)
    """Since the session last moved."""
    skip_states: frozenset[SkipState] = frozenset({"failed", "damaged"})
    """Sessions that are left alone: the turn before failed, or the import had damaged lines."""
    attempts_max: int = Field(default=INTERRUPTED_ATTEMPTS_MAX, ge=1)
    deadline_s: float = Field(default=60.0, gt=0)
    """A resume that made no progress for so long (`turn.append`, `turn.renew`) is cut off.

    Its next attempt gets twice as long. The `timeout_s` of its lane bounds each."""
    breaker_unclean_starts: int = Field(default=3, ge=1)
    breaker_window_s: float = Field(default=300.0, gt=0)
    """This many unclean ends of the same program within the window stop all resuming."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan for one interrupted message, and its reason."""

    inbox_no: int
    session_id: str
    action: ResumeAction
    reason: str
    accepted_at_ms: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was released."""

    instances: int = 0
    turns: int = 0
    compactions: int = 0
    replies: int = 0

    def plus(self, other: Recovered) -> Recovered:
        """Return the sum of two reports."""
        return Recovered(
            self.instances + other.instances,
            self.turns + other.turns,
            self.compactions + other.compactions,
            self.replies + other.replies,
        )


# -- recovering -------------------------------------------------------------------------------


async def recover(db: Database) -> Recovered:
    """Release what dead processes held, and end overdue compactions. See `SessionDB.recover`."""
    dead, unknown = await _not_alive(db)
    released = await _release_all(db, dead)
    expired = await _expire_all(db)
    await _forget_idle(db, unknown)
    return released.plus(expired)


async def release_expired(db: Database) -> Recovered:
    """Take over every turn and give up every reply whose lease ran out. See `SessionDB`."""
    total = Recovered()
    while taken := await worker.take_over(db, lambda: "[]"):
        total = total.plus(Recovered(turns=taken))
    while given_up := await dispatcher.give_up_overdue(db):
        total = total.plus(Recovered(replies=given_up))
    return total


async def dead_processes(db: Database) -> list[statements.RecoveryOpenInstances]:
    """Return the processes that never closed the database and, says the kernel, are dead."""
    dead, _ = await _not_alive(db)
    return dead


async def _not_alive(
    db: Database,
) -> tuple[list[statements.RecoveryOpenInstances], list[statements.RecoveryOpenInstances]]:
    """Return the registrations of the dead, and those about which nothing can be known."""
    dead: list[statements.RecoveryOpenInstances] = []
    unknown: list[statements.RecoveryOpenInstances] = []
    after_no = 0
    while True:
        page = await db.read("recover.look", partial(open_instances, after_no=after_no))
        lives = await threads.run(db.backend.liveness, page)
        dead += [row for row, alive in zip(page, lives, strict=True) if alive is False]
        unknown += [row for row, alive in zip(page, lives, strict=True) if alive is None]
        if len(page) < RECOVER_AT_ONCE:
            return dead, unknown
        after_no = page[-1].instance_no


async def _release_all(db: Database, dead: Sequence[statements.RecoveryOpenInstances]) -> Recovered:
    total, so_far, at = Recovered(), Recovered(), 0
    while at < len(dead):
        step = partial(release_next, dead=dead[at : at + RECOVER_AT_ONCE], so_far=so_far)
        try:
            part, done, so_far = await db.write("recover", step)
        except damage.OF_ONE_SESSION:
            # It is something that one of them held. They are released one at a time.
            row = dead[at]
            part = await _release_one(db, row.instance_no, process_name(row), so_far)
            done, so_far = 1, Recovered()
        total, at = total.plus(part), at + done
    return total


async def _release_one(db: Database, instance_no: int, holder: str, so_far: Recovered) -> Recovered:
    total, done = Recovered(), False
    while not done:
        step = partial(release, instance_no=instance_no, holder=holder, so_far=so_far.plus(total))
        try:
            part, done = await db.write("recover", step)
        except damage.OF_ONE_SESSION as error:
            # What can be released is, one by one, and the rest does not hold up the start.
            part = await _release_each(db, instance_no, _death_of(holder))
            if part == Recovered():
                logger.error(  # noqa: TRY400 -- the error says it all
                    "%s: something it held cannot be released: %s", holder, error
                )
                return total
        total = total.plus(part)
    return total


async def _release_each(db: Database, instance_no: int, reason: str) -> Recovered:
    """Release what a dead process held, each in a transaction of its own. `release` is for all."""
    held, jobs, sending = await db.read("recover.held", partial(_held_by, instance_no=instance_no))
    released = [0, 0, 0]
    for turn in held:
        end = partial(turns.interrupt, turn_no=turn.turn_no, reason=reason)
        released[0] += await damage.end_turn(db, turn.turn_no, turn.inbox_no, end, reason)
    for job in jobs:
        give_up = partial(
            compaction.give_up, compaction_id=job.compaction_id, state="abandoned", reason=reason
        )
        try:
            released[1] += await db.write("recover", give_up)
        except damage.OF_ONE_SESSION as error:
            logger.error(  # noqa: TRY400 -- the error says it all
                "compaction %s cannot be given up: %s", job.compaction_id, error
            )
    for reply in sending:
        released[2] += await damage.lose_reply(
            db, reply.outbox_no, reply.session_no, reply.attempts, reason
        )
    return Recovered(0, *released)


def _held_by(
    tx: ReadTx, instance_no: int
) -> tuple[
    list[statements.TurnsOfInstance],
    list[statements.RecoveryRunningCompactions],
    list[statements.OutboxOfInstance],
]:
    """Read a bounded part of the turns, compactions and replies that a process holds."""
    return (
        tx.all("turns.of_instance", instance_no=instance_no, limit=RECOVER_AT_ONCE),
        tx.all("recovery.running_compactions", instance_no=instance_no, limit=RECOVER_AT_ONCE),
        tx.all("outbox.of_instance", instance_no=instance_no, limit=RECOVER_AT_ONCE),
    )


async def _forget_idle(db: Database, unknown: Sequence[statements.RecoveryOpenInstances]) -> None:
    """Close the registrations of which nothing can be known, once they hold nothing.

    Otherwise a lock file that is deleted at each start leaves one more each time. A process
    that lives after all opens its registration again before it claims anything.
    """
    for start in range(0, len(unknown), RECOVER_AT_ONCE):
        numbers = json.dumps([row.instance_no for row in unknown[start : start + RECOVER_AT_ONCE]])
        if await db.read("recover.idle", partial(_idle, numbers=numbers)):
            await db.write("recover.idle", partial(_close_idle, numbers=numbers))


def _idle(tx: ReadTx, *, numbers: str) -> list[int]:
    return [row.instance_no for row in tx.all("recovery.idle", instances=numbers)]


def _close_idle(tx: Tx, *, numbers: str) -> None:
    for instance_no in _idle(tx, numbers=numbers):
        tx.run("recovery.close_idle", instance_no=instance_no, now_ms=tx.now_ms)


async def _expire_all(db: Database) -> Recovered:
    total = Recovered()
    while await db.read("recover.overdue", lambda tx: overdue_compactions(tx, db.clock.now_ms())):
        part = await db.write("recover.overdue", expire_compactions)
        if not part.compactions:  # another process was faster, or the clock was set back meanwhile
            break
        total = total.plus(part)
    return total


def open_instances(tx: ReadTx, *, after_no: int) -> list[statements.RecoveryOpenInstances]:
    """Read a page of processes that have not closed the database, this one among them."""
    return tx.all("recovery.open_instances", after_no=after_no, limit=RECOVER_AT_ONCE)


def process_name(row: statements.RecoveryOpenInstances) -> str:
    """Return a process's name, for a reason or an event."""
    return f"{row.program}, pid {row.pid}"


def _death_of(holder: str) -> str:
    return f"its process ({holder}) died"


def release_next(
    tx: Tx, *, dead: Sequence[statements.RecoveryOpenInstances], so_far: Recovered
) -> tuple[Recovered, int, Recovered]:
    """Release a bounded part of what these dead processes held.

    Return that part, how many of them are done, and what was released so far of the next
    one. `so_far` is the same of the first one, from the step before.
    """
    total = Recovered()
    for number, row in enumerate(dead):
        part, done = release(tx, row.instance_no, process_name(row), so_far)
        total = total.plus(part)
        if not done:
            return total, number, so_far.plus(part)
        so_far = Recovered()
        if total.turns + total.compactions + total.replies >= RECOVER_AT_ONCE:
            return total, number + 1, so_far
    return total, len(dead), so_far


def release(
    tx: Tx, instance_no: int, holder: str, so_far: Recovered | None = None
) -> tuple[Recovered, bool]:
    """Release a bounded part of what a dead process held. Also return whether that was all.

    `holder` names the process. `so_far` is what earlier steps of this recovery released.
    The event has the total of this recovery. A recovery that was itself killed half-way is
    not counted again: its part is in the events of each turn, compaction and reply.
    """
    if tx.first("recovery.is_open", instance_no=instance_no) is None:
        # It was closed in good order after it was read, or another process was faster.
        return Recovered(), True
    reason = _death_of(holder)
    held, jobs, sending = _held_by(tx, instance_no)
    for turn in held:
        turns.interrupt(tx, turn.turn_no, reason)
    for job in jobs:
        compaction.give_up(tx, job.compaction_id, "abandoned", reason)
    for reply in sending:
        outbox.lose_track(tx, reply.outbox_no, reply.session_no, reason, attempt=reply.attempts)
    done = max(len(held), len(jobs), len(sending)) < RECOVER_AT_ONCE
    part = Recovered(int(done), len(held), len(jobs), len(sending))
    if done:
        tx.run("recovery.close_dead_instance", instance_no=instance_no, now_ms=tx.now_ms)
        total = part.plus(so_far or Recovered())
        counts = {"turns": total.turns, "compactions": total.compactions, "replies": total.replies}
        listed = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        message = f"{holder} died; this recovery released {listed}"
        events.emit(tx, "recovery_done", "operator", message, instance_no=instance_no, **counts)
    return part, done


def overdue_compactions(tx: ReadTx, now_ms: int) -> list[statements.RecoveryOverdueCompactions]:
    """Read a bounded number of running jobs whose deadline has passed by `LEASE_GRACE_MS`.

    Until then their owners can end them themselves.
    """
    return tx.all(
        "recovery.overdue_compactions", before_ms=now_ms - LEASE_GRACE_MS, limit=RECOVER_AT_ONCE
    )


def expire_compactions(tx: Tx) -> Recovered:
    """End a bounded number of overdue jobs of any process. A late commit is still reconciled."""
    overdue = overdue_compactions(tx, tx.now_ms)
    return Recovered(
        compactions=sum(
            compaction.give_up(tx, row.compaction_id, "expired", "its deadline passed")
            for row in overdue
        )
    )


# -- resuming ---------------------------------------------------------------------------------


class ResumeMemory:
    """How many resumes this process queued of late, and whether it announced the breaker.

    It is not stored: the next start has a budget of its own.
    """

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._queued: list[tuple[float, int]] = []  # when (monotonic clock), and how many
        self.breaker_announced = False

    def add(self, resumes: int) -> None:
        """Count resumes that were queued now."""
        if resumes:
            self._queued.append((self._clock.monotonic(), resumes))

    def spent(self) -> int:
        """Return how many resumes were queued in the last hour. Forget those before."""
        since = self._clock.monotonic() - RESUME_BUDGET_S
        self._queued = [(at, resumes) for at, resumes in self._queued if at > since]
        return sum(resumes for _, resumes in self._queued)


async def plan_resumes(db: Database, policy: ResumePolicy, memory: ResumeMemory) -> list[Decision]:
    """Decide about every interrupted message. Changes nothing. See `SessionDB.plan_resumes`."""
    at_ms, dead = db.clock.now_ms(), await dead_processes(db)
    instance_no = db.backend.stats()["instance_no"]
    decisions: list[Decision] = []
    before_no = 2**62
    while True:
        step = partial(
            plan,
            policy=policy,
            now_ms=at_ms,
            spent=memory.spent(),
            ahead=sum(1 for decision in decisions if decision.action == "resume"),
            before_no=before_no,
            instance_no=instance_no,
            dead=dead,
        )
        page = await db.read("recovery.plan", step)
        decisions += page
        if len(page) < PLAN_AT_ONCE:
            return decisions
        before_no = page[-1].inbox_no


async def resume(db: Database, policy: ResumePolicy, memory: ResumeMemory) -> list[Decision]:
    """Plan, and carry out the plan, a page per transaction. See `SessionDB.resume`."""
    decisions: list[Decision] = []
    before_no, stopped, full = 2**62, False, False
    while True:
        step = partial(
            _resume_page,
            policy=policy,
            spent=memory.spent(),
            before_no=before_no,
            full=full,
            announce_breaker=not memory.breaker_announced,
        )
        page, resumed = await db.write("resume", step)
        memory.add(resumed)
        decisions += page
        full = full or any(decision.action == "later" for decision in page)
        stopped = stopped or any(decision.action == "breaker" for decision in page)
        memory.breaker_announced = memory.breaker_announced or stopped
        if len(page) < PLAN_AT_ONCE:
            memory.breaker_announced = stopped
            return decisions
        before_no = page[-1].inbox_no


def _resume_page(
    tx: Tx, *, policy: ResumePolicy, spent: int, before_no: int, full: bool, announce_breaker: bool
) -> tuple[list[Decision], int]:
    decisions = plan(
        tx,
        policy,
        tx.now_ms,
        spent=spent,
        before_no=before_no,
        full=full,
        instance_no=tx.instance_no,
    )
    return decisions, apply(tx, decisions, policy, announce_breaker=announce_breaker)


async def run_recovery(
    db: Database, policy: ResumePolicy, memory: ResumeMemory, *, every_s: float, loops: Loops
) -> None:
    """Recover and resume until it is cancelled, or its process drains.

    See `SessionDB.run_recovery`.
    """
    name = "recovery"
    backoff = retry.Backoff(name)
    with loops.entered(db, Stage.TURNS, name), cancellation.strays_raise(name):
        while not loops.ends(Stage.TURNS):
            sleep_s = every_s
            try:
                await recover(db)
                decisions = await plan_resumes(db, policy, memory)
                if any(decision.action not in ("later", "paused", "ask") for decision in decisions):
                    await resume(db, policy, memory)
                if not await search_index.fill(db.backend, steps_max=SEARCH_STEPS_OF_UPKEEP):
                    sleep_s = 0.0
                backoff.reset()
            except SessionDBError as error:
                sleep_s = min(every_s, backoff.next_delay(error))
            await pause(db, loops, Stage.TURNS, sleep_s)


def plan(
    tx: ReadTx,
    policy: ResumePolicy,
    now_ms: int,
    *,
    spent: int = 0,
    ahead: int = 0,
    before_no: int = 2**62,
    full: bool = False,
    instance_no: int | None = None,
    dead: Sequence[statements.RecoveryOpenInstances] = (),
) -> list[Decision]:
    """Decide about a page of interrupted messages, newest first. Changes nothing.

    `spent` is how many resumes this process queued lately, `ahead` how many the pages before
    this one want to queue. `full`: a page before this one decided `later`, so nothing older
    goes first, whatever has ended since. `instance_no` is the process that plans, None for a
    reader. `dead` are processes whose turns count as interrupted although they have not been
    released yet.
    """
    holders = {row.instance_no: process_name(row) for row in dead}
    numbers = json.dumps(list(holders))
    held: list[Interrupted] = [
        *tx.all("inbox.interrupted", before_no=before_no, limit=PLAN_AT_ONCE)
    ]
    if holders:
        held += tx.all(
            "inbox.interrupted_by", instances=numbers, before_no=before_no, limit=PLAN_AT_ONCE
        )
        held = sorted(held, key=lambda row: -row.inbox_no)[:PLAN_AT_ONCE]
    unclean = tx.one(
        "recovery.unclean_starts",
        since_ms=now_ms - duration_ms(policy.breaker_window_s),
        now_ms=now_ms,
        instance_no=instance_no,
        dead=numbers,
        command_line=process.COMMAND_LINE,
    ).starts
    room = (
        policy.max_concurrent_resumes
        - tx.one("inbox.running_resumes", dead=numbers).resumes
        - ahead
    )
    room = min(room, 0) if full else room
    budget = policy.budget_per_start - spent - ahead
    decisions = []
    for row in held:
        why = (
            _death_of(holders[row.holder_no])
            if row.holder_no is not None
            else row.reason or UNKNOWN_REASON
        )
        action, reason = _decide(
            row, policy, now_ms, why, unclean=unclean, room=room, budget=budget
        )
        if action == "resume":
            room, budget = room - 1, budget - 1
        decisions.append(
            Decision(row.inbox_no, row.session_id, action, reason, row.accepted_at_ms, row.attempts)
        )
    return decisions


def _decide(
    row: Interrupted,
    policy: ResumePolicy,
    now_ms: int,
    why: str,
    *,
    unclean: int,
    room: int,
    budget: int,
) -> tuple[ResumeAction, str]:
    # If this was the message's last attempt, `recover` gives it up, whatever the policy.
    attempts_max = (
        min(policy.attempts_max, INTERRUPTED_ATTEMPTS_MAX)
        if row.holder_no is not None
        else policy.attempts_max
    )
    age_h, idle_h = (
        (now_ms - row.accepted_at_ms) / 3_600_000,
        (now_ms - row.updated_at_ms) / 3_600_000,
    )
    if row.restored:
        return "ask", f"{why}. --requeue or --give-up of `sessiondb inbox DB` decides about it"
    if row.ended_at_ms is not None:
        return "skip", "its session has ended"
    if row.strikes >= attempts_max:
        return "skip", f"{row.strikes} attempts, the most that are made"
    if policy.max_age_hours and age_h > policy.max_age_hours:
        return "skip", f"accepted {age_h:.1f} h ago, more than {policy.max_age_hours:g} h"
    if policy.idle_hours and idle_h > policy.idle_hours:
        return "skip", f"idle for {idle_h:.1f} h, more than {policy.idle_hours:g} h"
    if "failed" in policy.skip_states and row.state_before == "failed":
        return "skip", "its session's turn before this one failed"
    if "damaged" in policy.skip_states and row.damaged:
        return "skip", "its session was imported with damaged lines"
    if unclean >= policy.breaker_unclean_starts:
        return (
            "breaker",
            f"{unclean} unclean ends within {policy.breaker_window_s:g} s; resume by hand, or wait",
        )
    if row.paused_lane is not None:  # it takes no place of those that may go
        return "paused", f"its lane {row.paused_lane} is paused: db.resume_lane() lets it go on"
    if budget <= 0:
        return (
            "later",
            f"the budget of {policy.budget_per_start} a start, and an hour after it, is spent",
        )
    if room <= 0:
        return "later", f"{policy.max_concurrent_resumes} at once are queued or running"
    return "resume", f"interrupted {age_h:.1f} h ago: {why}"


def apply(
    tx: Tx, decisions: list[Decision], policy: ResumePolicy, *, announce_breaker: bool = True
) -> int:
    """Carry out decisions, in the transaction that made them. Return the number of resumes.

    With `announce_breaker` the operator is notified when the breaker stops all resuming.
    """
    resumed = 0
    if any(decision.action == "resume" for decision in decisions):
        # The policy says how many run at once. The lane only has to have room for them.
        lanes.make_room(tx, lanes.RESUME_LANE, policy.max_concurrent_resumes)
    for decision in decisions:
        if decision.action == "resume":
            resumed += tx.run(
                "inbox.resume",
                inbox_no=decision.inbox_no,
                now_ms=tx.now_ms,
                timeout_ms=duration_ms(policy.deadline_s),
            )
        elif decision.action == "skip":
            session = tx.one("registry.by_id", session_id=decision.session_id)
            dead_letters.dead_letter(
                tx, decision.inbox_no, session.session_no, f"not resumed: {decision.reason}"
            )
    stopped = [decision.reason for decision in decisions if decision.action == "breaker"]
    if stopped and announce_breaker:
        events.emit(
            tx, "crash_loop", "operator", f"Nothing is resumed: {stopped[0]}", messages=len(stopped)
        )
    return resumed

"""For the tests of an application: a clock that a test moves, and a gateway that runs until idle.

    clock = ManualClock()
    async with sessiondb.open(path, clock=clock) as db:
        await db.accept(key, message, channel="telegram", event_id="1")
        sent = await run_until_idle(db, handler)
        assert [reply.payload for reply in sent] == [...]

The clock stands still until it is moved. Leases, deadlines, retry pauses, pauses of channels,
notices of delay, cool-downs, ages of retention and the times of transcripts go by it. A move wakes
every loop that waits. What concerns the machine stays real: a busy disk, a lock, a read.

pytest finds the fixtures by itself (`pytest_plugin.py`): `sessiondb_clock`, `sessiondb_path` and
`sessiondb_db`, which any plugin for asynchronous tests can use.
"""

from __future__ import annotations

import heapq
import itertools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import anyio

from .backend import ReadTx
from .clock import Clock, ms_from_iso
from .database import SessionDB
from .errors import InvalidInput, NotFound
from .gateway import channels, claims, dispatcher, draining, outbox, retry, worker
from .gateway.dispatcher import Sender
from .gateway.running_turn import Handler, LaneSettings
from .limits import REPLY_PAUSES_S
from .models import Reply
from .timers import Timer
from .waiter import Deadline

__all__ = ["ManualClock", "run_until_idle"]

START = "2026-01-01T00:00:00Z"


class ManualClock:
    """A clock that stands still until a test moves it. For `sessiondb.open(path, clock=)`.

    Several databases may have one clock: two processes of a gateway, in one test. Any thread may
    move it. `start` is its first time, by default the same in every run.

    To move it far is what a machine that sleeps for so long does: all that was due meanwhile is due
    at once. A turn that this process runs stays its own.
    """

    def __init__(self, start: str | datetime = START) -> None:
        text = start.isoformat() if isinstance(start, datetime) else start
        start_ms = ms_from_iso(text)
        if start_ms is None:
            raise InvalidInput(f"a clock starts at a datetime or an ISO text, not {start!r:.80}")
        self._start_ms = start_ms
        self._passed_ms = 0
        self._numbers = itertools.count()
        self._timers: list[Timer] = []  # a heap. Their times are milliseconds since the start
        self._watchers: dict[int, Callable[[], object]] = {}
        # Guards all of the above, for a few instructions. Nothing is called inside.
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ManualClock({datetime.fromtimestamp(self.now_ms() / 1000, UTC).isoformat()!r})"

    def move(self, seconds: float) -> None:
        """Let so many seconds pass, at once. Rounded to a millisecond.

        Raises:
            InvalidInput: less than none, or no number of seconds.
        """
        if not 0 <= seconds < math.inf:
            raise InvalidInput(f"a clock is moved by seconds, 0 or more, not by {seconds!r:.80}")
        with self._lock:
            self._passed_ms += round(seconds * 1000)
            due = []
            while self._timers and self._timers[0].at <= self._passed_ms:
                due.append(heapq.heappop(self._timers))
            watchers = [*self._watchers.values()]
        for timer in due:
            timer.fire()
        for call in watchers:
            call()

    def monotonic(self) -> float:
        """Return the seconds that have passed since the start."""
        return self._passed_ms / 1000

    def now_ms(self) -> int:
        """Return the time: milliseconds since 1970."""
        return self._start_ms + self._passed_ms

    def stamp_ms(self) -> int:
        """Return the time: milliseconds since 1970. Transcripts have it."""
        return self.now_ms()

    def start(self, seconds: float, call: Callable[[], object]) -> Timer:
        """Make a call when so many seconds have passed. See `clock.Clock`."""
        with self._lock:
            # Rounded up: at its time no fraction of a millisecond may be left.
            wait_ms = math.ceil(round(seconds * 1000, 3)) if seconds < math.inf else math.inf
            timer = Timer(self._passed_ms + wait_ms, next(self._numbers), call)
            if wait_ms > 0:
                if wait_ms < math.inf:
                    heapq.heappush(self._timers, timer)
                return timer
        timer.fire()
        return timer

    def on_move(self, call: Callable[[], object]) -> Callable[[], None]:
        """Make a call whenever the clock has been moved. Return what ends that."""
        with self._lock:
            number = next(self._numbers)
            self._watchers[number] = call

        def end() -> None:
            with self._lock:
                self._watchers.pop(number, None)

        return end


async def run_until_idle(
    db: SessionDB,
    handler: Handler | Mapping[str, Handler],
    sender: Sender | None = None,
    *,
    settings: LaneSettings | None = None,
    retry_pauses_s: tuple[float, ...] = REPLY_PAUSES_S,
    timeout_s: float = 60.0,
) -> list[Reply]:
    """Run a gateway until nothing is left to do. Return the replies that were sent, in order.

    That is: no message waits, no turn runs, and no reply is to be sent. Dead letters, interrupted
    messages, what waits in a paused lane, and replies that failed or became `unknown` stay as they
    are. First what dead processes held is released (`recover`). Call `db.resume()` before, to have
    interrupted messages resumed.

    `handler` runs every lane, or is a dict with the handler of each lane that is to run. Without a
    `sender` every reply is taken. With one, those are returned that it has taken.

    With a `ManualClock` nothing waits for a time. Whenever all that is left waits for one, such
    as a retry, the clock is moved to it. It is not moved while a turn runs.

    Raises:
        TimeoutError: it took more than `timeout_s` real seconds. It says what was left.
        NotFound: there is no such lane.
    """
    sent: list[Reply] = []

    async def send(reply: Reply) -> str | None:
        receipt = await sender(reply) if sender is not None else None
        sent.append(reply)
        return receipt

    with Deadline(timeout_s) as deadline:
        await db.recover()
        handlers = await _handlers(db, handler)
        look = partial(_look, clock=db.clock, lanes=frozenset(handlers))
        work = await db.read("testing.look", look)
        while not work.is_idle:
            await _run(db, handlers, send, settings or LaneSettings(), retry_pauses_s, look)
            work = await db.read("testing.look", look)
    if deadline.cancelled_caught:
        raise TimeoutError(
            f"{db.path} was not idle after {timeout_s:g} s: {await db.read('testing.look', look)}. "
            "If a handler or a sender waits for something, let the test do it, or raise timeout_s."
        )
    return sent


async def _handlers(
    db: SessionDB, handler: Handler | Mapping[str, Handler]
) -> Mapping[str, Handler]:
    """Return the handler of each lane that is to run."""
    lanes = [lane.lane for lane in await db.lanes()]
    if not isinstance(handler, Mapping):
        return dict.fromkeys(lanes, handler)
    unknown = sorted(set(handler) - set(lanes))
    if unknown:
        raise NotFound(f"there is no lane {unknown[0]!r}; make it with db.set_lane()")
    return handler


async def _run(
    db: SessionDB,
    handlers: Mapping[str, Handler],
    send: Sender,
    settings: LaneSettings,
    retry_pauses_s: tuple[float, ...],
    look: Callable[[ReadTx], _Work],
) -> None:
    """Run loops of their own until nothing is left, and let them return.

    They end as those of a drain do. What somebody accepts meanwhile is not interrupted.
    """
    loops = draining.Loops()
    try:
        async with anyio.create_task_group() as group:
            for lane, handler in handlers.items():
                group.start_soon(worker.run_lane, db, lane, handler, settings, loops)
            group.start_soon(
                partial(
                    dispatcher.run_outbox,
                    db,
                    send,
                    lease_s=30.0,
                    at_once=1,  # in order
                    at_once_per_channel=1,
                    pauses_s=retry_pauses_s,
                    loops=loops,
                )
            )
            await _wait_until_idle(db, look)
            loops.reach(db, draining.Stage.REPLIES)
    except ExceptionGroup as group_error:
        raise retry.unwrap_group(group_error) from group_error


async def _wait_until_idle(db: SessionDB, look: Callable[[ReadTx], _Work]) -> None:
    while True:
        seen = db.backend.change_count
        work = await db.read("testing.look", look)
        if work.is_idle:
            return
        if work.waits_for_a_time and isinstance(db.clock, ManualClock):
            db.clock.move(work.wait_s)
        else:
            await db.backend.wait_change(seen, min(work.wait_s, retry.SLEEP_S_MAX))


@dataclass(frozen=True, slots=True)
class _Work:
    """What is left to do, in one snapshot."""

    waiting: int
    running: int
    pending: bool
    sending: bool
    may_go: bool
    """A message may be claimed now, or a reply sent."""
    wait_s: float
    """Until something may be done without a commit before it, if that is known."""

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.running or self.pending or self.sending)

    @property
    def waits_for_a_time(self) -> bool:
        """All that is left waits for one. Somebody else's turn ends by itself."""
        return not (self.is_idle or self.running or self.sending or self.may_go)

    def __str__(self) -> str:
        replies = "are being sent" if self.sending else "wait" if self.pending else "do not wait"
        return f"{self.running} turns run, {self.waiting} messages wait, replies {replies}"


def _look(tx: ReadTx, *, clock: Clock, lanes: frozenset[str]) -> _Work:
    now_ms = clock.now_ms()
    rows = [row for row in tx.all("status.lanes") if row.lane in lanes]
    pauses = channels.in_force(tx, now_ms)
    closed = channels.closed(pauses, ())
    due_ms = [
        *(tx.one("inbox.due", lane=row.lane, now_ms=now_ms).at_ms for row in rows),
        tx.one("outbox.due", now_ms=now_ms, full=closed).at_ms,
        *(row.until_ms for row in pauses),
    ]
    return _Work(
        waiting=sum(row.waiting for row in rows if row.paused_at_ms is None),
        running=sum(row.running for row in rows),
        pending=bool(outbox.replies(tx, None, 1, state="pending")[0]),
        sending=bool(outbox.replies(tx, None, 1, state="sending")[0]),
        may_go=outbox.next_no(tx, now_ms, closed) is not None
        or any(_may_claim(tx, row.lane, now_ms) for row in rows),
        # A message that lanes before its own hold back waits for no known time.
        wait_s=min(
            ((at_ms - now_ms) / 1000 for at_ms in due_ms if at_ms is not None),
            default=retry.SLEEP_S_MAX,
        ),
    )


def _may_claim(tx: ReadTx, lane: str, now_ms: int) -> bool:
    try:
        return claims.peek(tx, lane, now_ms) is not None
    except claims.CannotBegin:
        return True  # the lane sets it aside

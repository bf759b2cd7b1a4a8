"""Figures of a database for a monitor: what `status` and `stats` know, with names that stay.

Nothing here knows a monitoring system. `sessiondb.monitors` has those, each behind an extra.

A figure is a gauge, how much there is now, or a counter, which only grows, so a monitor takes
its rate. Counters of messages, turns, replies and events are the highest numbers that were given
out: they survive restarts and pruning, and cost nothing. Those of this process's writer begin at
0 when the database is opened, and a process that only reads has none.

A label is a word of the schema, or a name that an operator gave to a lane or a channel. Nothing
that a person wrote is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from sessiondb.backend import ReadTx
from sessiondb.words import TurnState

from .disk import Part
from .status import DatabaseStatus, condition

MetricKind = Literal["gauge", "counter"]
"""What a figure is: how much there is now, or how much there ever was."""
RECENT_MS: Final = 3_600_000
"""Turns are counted by outcome over the last hour: an index finds them."""
_VERDICTS: Final = {"green": 0, "yellow": 1, "red": 2}


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure, or one for each of some labels."""

    name: str
    """As Prometheus writes it, with its unit last. Of a counter: without `_total`."""
    kind: MetricKind
    help: str
    samples: tuple[tuple[tuple[str, ...], float], ...]
    """Each value, with those of its labels."""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a status does not count."""

    messages: int
    """The highest number of a message, and likewise of the others."""
    turns: int
    replies: int
    events: int
    recent_turns: Mapping[str, int]
    """Turns that began in the last hour, by state."""
    compactions: Mapping[str, int]
    search_built: bool
    search_behind: int
    """Entries that are not in the search index yet. 0: there is none."""


def read_numbers(tx: ReadTx, now_ms: int) -> Numbers:
    """Read what a status does not count, in one short snapshot."""
    highest = tx.one("status.numbers")
    recent = tx.all("status.recent_turns", since_ms=now_ms - RECENT_MS)
    built = tx.first("search.state") is not None
    return Numbers(
        highest.messages,
        highest.turns,
        highest.replies,
        highest.events,
        {row.state: row.turns for row in recent},
        {row.state: row.jobs for row in tx.all("status.compactions")},
        built,
        tx.one("search.count_behind").behind if built else 0,
    )


def measure(
    status: DatabaseStatus, numbers: Numbers, stats: Mapping[str, Any]
) -> tuple[Metric, ...]:
    """Return every figure of a database, and those of this process's use of it."""
    return (
        *_condition(status),
        *_space(status),
        *_lanes(status),
        *_work(status, numbers),
        *_search(numbers),
        *_process(stats),
    )


def of_parts(parts: Iterable[Part]) -> Metric:
    """Return what takes the space (`disk.py`) as a figure. Counting it reads the file."""
    return _by(
        "disk_bytes",
        "Bytes on the database's disk, by what takes them",
        ("part",),
        [((part.what,), part.bytes) for part in parts],
    )


def _gauge(name: str, value: float, help: str) -> Metric:  # noqa: A002  # Prometheus's word
    return Metric(name, "gauge", help, (((), float(value)),))


def _counter(name: str, value: float, help: str) -> Metric:  # noqa: A002
    return Metric(name, "counter", help, (((), float(value)),))


def _by(
    name: str,
    help: str,  # noqa: A002
    labels: tuple[str, ...],
    samples: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    return Metric(name, "gauge", help, tuple((key, float(value)) for key, value in samples), labels)


def _condition(status: DatabaseStatus) -> Iterable[Metric]:
    yield _gauge("verdict", _VERDICTS[status.verdict], "0: green, 1: yellow, 2: red")
    alarms = Counter((alarm.level, alarm.rule) for alarm in status.alarms)
    yield _by(
        "alarms",
        "What is not as it should be, by the rule that says so",
        ("level", "rule"),
        alarms.items(),
    )
    stuck = Counter((one.what, one.problem) for one in status.stuck)
    yield _by("stuck", "What does not go on by itself", ("what", "problem"), stuck.items())
    processes = Counter((condition(one),) for one in status.processes)
    every = [(word,) for word in ("running", "draining", "died", "unknown")]
    yield _by(
        "processes",
        "Processes that opened the database for writing and have not closed it",
        ("condition",),
        [(word, processes[word]) for word in every],  # type: ignore[index]
    )


def _space(status: DatabaseStatus) -> Iterable[Metric]:
    yield _gauge("file_bytes", status.file_bytes, "Size of the database file")
    yield _gauge("free_bytes", status.free_bytes, "Free pages inside the file")
    yield _gauge("wal_bytes", status.wal_bytes, "Size of the WAL")
    yield _gauge("wal_limit_bytes", status.wal_bytes_max, "Above this, the writer resets the WAL")
    if status.disk_free_bytes is not None:
        yield _gauge("disk_free_bytes", status.disk_free_bytes, "Room on the database's disk")
    yield _gauge("sessions", status.sessions, "Sessions, archived ones included")


def _lanes(status: DatabaseStatus) -> Iterable[Metric]:
    lanes, now_ms = status.lanes, status.at_ms
    for name, help_text, values in (
        ("lane_waiting", "Messages that wait", [lane.waiting for lane in lanes]),
        ("lane_running", "Turns that run", [lane.running for lane in lanes]),
        ("lane_concurrency", "Turns that may run at once", [lane.concurrency for lane in lanes]),
        ("lane_interrupted", "Messages to be resumed", [lane.interrupted for lane in lanes]),
        ("lane_dead", "Dead letters", [lane.dead for lane in lanes]),
        ("lane_paused", "1: an operator paused it", [bool(lane.paused_at_ms) for lane in lanes]),
        (
            "lane_oldest_waiting_seconds",
            "Age of the message that has waited longest. 0: none waits",
            [
                max(0, now_ms - lane.oldest_waiting_ms) / 1000 if lane.oldest_waiting_ms else 0
                for lane in lanes
            ],
        ),
    ):
        yield _by(
            name,
            f"{help_text}, by lane",
            ("lane",),
            [((lane.lane,), value) for lane, value in zip(lanes, values, strict=True)],
        )


def _work(status: DatabaseStatus, numbers: Numbers) -> Iterable[Metric]:
    work = status.gateway
    yield _by(
        "messages",
        "Accepted messages that are not done, by state",
        ("state",),
        [
            (("queued",), work.messages_waiting),
            (("interrupted",), work.messages_interrupted),
            (("dead",), work.messages_dead),
        ],
    )
    yield _by(
        "replies",
        "Replies that are not sent, by state",
        ("state",),
        [
            (("pending",), work.replies_pending),
            (("sending",), work.replies_sending),
            (("unknown",), work.replies_unknown),
            (("failed",), work.replies_failed),
        ],
    )
    yield _by(
        "channel_replies_waiting",
        "Replies that wait, by channel",
        ("channel",),
        [((channel.channel,), channel.replies_waiting) for channel in status.channels],
    )
    yield _gauge("turns_running", work.turns_running, "Turns that run")
    yield _gauge("turns_overdue", work.turns_overdue, "Running turns past their lease")
    yield _by(
        "turns_recent",
        "Turns that began in the last hour, by state",
        ("state",),
        [((state,), numbers.recent_turns.get(state, 0)) for state in get_args(TurnState)],
    )
    yield _by(
        "compactions",
        "Compactions, by state",
        ("state",),
        [
            ((state,), numbers.compactions.get(state, 0))
            for state in sorted({"committed", "failed", "running", *numbers.compactions})
        ],
    )
    oldest_ms = max((job.age_ms for job in status.running), default=0)
    yield _gauge(
        "compaction_oldest_seconds", oldest_ms / 1000, "Age of the compaction that runs longest"
    )
    for name, value in (
        ("messages_accepted", numbers.messages),
        ("turns", numbers.turns),
        ("replies_queued", numbers.replies),
        ("events", numbers.events),
    ):
        yield _counter(name, value, f"{name.replace('_', ' ').capitalize()}, ever")


def _search(numbers: Numbers) -> Iterable[Metric]:
    yield _gauge("search_built", numbers.search_built, "1: there is a search index")
    yield _gauge("search_behind_entries", numbers.search_behind, "Entries not in it yet")


def _process(stats: Mapping[str, Any]) -> Iterable[Metric]:
    readers, writer = stats["readers"], stats["writer"]
    yield _counter("reads", readers["reads"], "Reads of this process")
    yield _counter("reads_refused", readers["requests_refused"], "Reads refused: too many waited")
    yield _counter("reads_interrupted", readers["interrupted"], "Reads that took too long")
    yield _counter("reads_slow", readers["slow"], "Reads over the threshold of the slow log")
    yield _counter(
        "reads_wait_seconds", readers["wait_ms_total"] / 1000, "Time that reads waited for a reader"
    )
    yield _counter("reads_seconds", readers["read_ms_total"] / 1000, "Time that reads took")
    yield _gauge(
        "reads_seconds_longest",
        readers["snapshot_ms_longest"] / 1000,
        "The longest read since the database was opened",
    )
    yield _counter(
        "guard_violations", stats["guard_violations"], "Writes found outside of the library"
    )
    if writer is None:
        return
    for name, key, help_text in (
        ("writer_commits", "commits", "Transactions that this process committed"),
        ("writer_requests", "requests", "Writes of this process"),
        ("writer_requests_failed", "requests_failed", "... that failed"),
        ("writer_requests_refused", "requests_refused", "... refused because the queue was full"),
        ("writer_requests_expired", "requests_expired", "... that waited for too long"),
        ("writer_outcomes_unknown", "outcomes_unknown", "... that may have been stored or not"),
        ("writer_busy_waits", "busy_waits", "Waits for another process's write lock"),
        ("writer_busy_timeouts", "busy_timeouts", "... that were given up"),
        ("writer_reopened", "reopened", "Connections opened again after an I/O error"),
        ("writer_slow", "slow", "Transactions over the threshold of the slow-operation log"),
    ):
        yield _counter(name, writer[key], help_text)
    for name, key, help_text in (
        ("writer_wait_seconds", "wait_ms_total", "Time that writes waited for the writer"),
        ("writer_held_seconds", "transaction_ms_total", "Time that transactions held the writer"),
    ):
        yield _counter(name, writer[key] / 1000, help_text)
    for name, key, help_text in (
        ("writer_queue_items", "queue_items", "Writes that wait now"),
        ("writer_queue_bytes", "queue_bytes", "... and their bytes"),
        ("writer_connected", "connected", "0: the write connection failed and is not open again"),
    ):
        yield _gauge(name, writer[key], help_text)
    yield _gauge(
        "writer_held_seconds_longest",
        writer["transaction_ms_longest"] / 1000,
        "The longest transaction since the database was opened",
    )

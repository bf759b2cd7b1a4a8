"""The verdict on a database: green, yellow or red, and each rule that says so.

Red: something that a person waits for does not go on, or soon cannot. Yellow: a person should
look today. Green: neither. A rule looks at a status that was read already, so it costs nothing.

A rule has a name that stays, for a monitor, and says what to do next. What is stuck is judged by
its kind, and counted: a hundred replies whose outcome is unknown are one line.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import groupby

from sessiondb.limits import MIB

from .status import Alarm, DatabaseStatus, Level, Stuck

BACKLOG_S_YELLOW, BACKLOG_S_RED = 300, 1_800
"""A person looks at a bot that is silent for five minutes, and has gone after thirty."""
WAL_FACTOR_RED = 4
"""Over its limit, the WAL waits for a reader. At so many times the limit, that does not end."""
DISK_FACTOR_RED = 4
"""A WAL of so many times its limit must fit: it grows to that while a reader is slow."""
DISK_SHARE_YELLOW, DISK_BYTES_YELLOW = 10, 1024 * MIB
"""A tenth of the file, or a gigabyte, is a few weeks of growth."""

# What stops the work of people. The rest waits for a decision, or ends by itself.
_RED = frozenset(
    {
        ("turn", "past its lease"),
        ("turn", "left by a dead process"),
        ("reply", "past its lease"),
        ("reply", "left by a dead process"),
        ("lane", "not run"),
        ("channel", "nothing is sent"),
        ("channel", "refuses everything"),
        ("message", "interrupted, and not resumed"),
        ("process", "died"),
    }
)
_PLURAL = {"reply": "replies", "process": "processes"}
_ORDER: tuple[Level, ...] = ("red", "yellow", "green")


def judge(status: DatabaseStatus) -> tuple[Alarm, ...]:
    """Return what is not as it should be, the worst first. Nothing: all is well."""
    alarms = [
        *_stuck(status),
        *_full_channels(status),
        *_backlog(status),
        *_wal(status),
        *_disk(status),
        *(Alarm("yellow", "access", concern, None) for concern in status.concerns),
    ]
    return tuple(sorted(alarms, key=lambda alarm: _ORDER.index(alarm.level)))


def _command(status: DatabaseStatus, name: str) -> str:
    return f"sessiondb {name} {shlex.quote(status.path)}"


def _stuck(status: DatabaseStatus) -> Iterator[Alarm]:
    def kind(one: Stuck) -> tuple[str, str]:
        return one.what, one.problem

    for (what, problem), group in groupby(sorted(status.stuck, key=kind), kind):
        rows = list(group)
        first = min(rows, key=lambda one: one.since)
        number = max(len(rows), _known_number(status, what, problem))
        text, next_step = f"{first.headline}, since {first.since}", first.next_step
        if number > 1:
            things = _PLURAL.get(what, f"{what}s")
            text = f"{number:,} {things}: {problem}, the first since {first.since}"
            next_step = _command(status, "stuck")
        level: Level = "red" if (what, problem) in _RED else "yellow"
        yield Alarm(level, f"{what}: {problem}", text, next_step)


def _known_number(status: DatabaseStatus, what: str, problem: str) -> int:
    """Return how many there are, where that is counted. The list of what is stuck is cut."""
    work = status.gateway
    return {
        ("message", "dead"): work.messages_dead,
        ("reply", "unknown"): work.replies_unknown,
        ("reply", "failed"): work.replies_failed,
    }.get((what, problem), 0)


def _full_channels(status: DatabaseStatus) -> Iterator[Alarm]:
    for channel in status.channels:
        if channel.full:
            yield Alarm(
                "red",
                "channel: full",
                f"channel {channel.channel}: {channel.replies_waiting:,} replies wait, and its "
                "messages are refused until some are sent",
                f"{_command(status, 'outbox')} --state pending",
            )


def _backlog(status: DatabaseStatus) -> Iterator[Alarm]:
    for lane in status.lanes:
        if lane.oldest_waiting_ms is None:
            continue
        waited_s = (status.at_ms - lane.oldest_waiting_ms) // 1000
        if waited_s <= BACKLOG_S_YELLOW:
            continue
        level: Level = "red" if lane.people and waited_s > BACKLOG_S_RED else "yellow"
        yield Alarm(
            level,
            "lane: backlog",
            f"lane {lane.lane}: {lane.waiting:,} wait, the oldest for {waited_s // 60:,} min. "
            f"{lane.running:,} of {lane.concurrency:,} places are taken",
            _command(status, "held" if lane.running else "lanes"),
        )


def _wal(status: DatabaseStatus) -> Iterator[Alarm]:
    if status.wal_bytes > status.wal_bytes_max:
        is_red = status.wal_bytes > WAL_FACTOR_RED * status.wal_bytes_max
        yield Alarm(
            "red" if is_red else "yellow",
            "wal: over its limit",
            f"the WAL has {_mib(status.wal_bytes)}, its limit is {_mib(status.wal_bytes_max)}. A "
            "reader that stays, a long backup for example, keeps it from being reset",
            _command(status, "held"),
        )


def _disk(status: DatabaseStatus) -> Iterator[Alarm]:
    free = status.disk_free_bytes
    if free is None:
        return
    least = DISK_FACTOR_RED * status.wal_bytes_max
    enough = max(DISK_BYTES_YELLOW, status.file_bytes // DISK_SHARE_YELLOW)
    if free < enough:
        yield Alarm(
            "red" if free < least else "yellow",
            "disk: little room",
            f"{_mib(free)} are free on the disk of the database. "
            f"At less than {_mib(least)} a commit may fail",
            f"{_command(status, 'gc')} --dry-run --max-age 30d",
        )


def _mib(count: int) -> str:
    return f"{count / MIB:,.1f} MiB"

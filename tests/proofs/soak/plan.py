"""How much of what, and how often: one plan for an hour, one for a few seconds.

Both run the same code.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from .troubles import (
    BACKLOG,
    BRANCH,
    CLOCK_BACK,
    CLOCK_FORWARD,
    CONTAINER,
    DEAD_CHANNEL,
    FULL_POOL,
    ORDERLY_STOP,
    PARKED,
    REQUEUE,
    RESET,
    STRAY_HANDLER,
    STRAY_SENDER,
    TRIO,
    UNPARKED,
    WRONG_ANSWER,
    WRONG_RECEIPT,
)

MIB = 1024 * 1024

# What a test may break, and so must find. See `gateway.py` for how.
BREAKABLE = (
    "descriptors",
    "threads",
    "memory",
    "checkpoints",
    "acknowledgement",
    "reply",
    "loop",
    "transaction",
    "silence",
)

Span = tuple[float, float]

# Of each kind of call the part that gives trouble.
SHARES = {
    STRAY_HANDLER: 0.01,
    WRONG_ANSWER: 0.01,
    STRAY_SENDER: 0.005,
    WRONG_RECEIPT: 0.01,
    RESET: 0.25,
    BRANCH: 0.25,
    REQUEUE: 0.25,
    CONTAINER: 0.5,
    TRIO: 0.5,
}
# Seconds between two troubles that come from outside.
SPANS: dict[str, Span] = {
    ORDERLY_STOP: (30.0, 90.0),
    BACKLOG: (40.0, 100.0),
    PARKED: (3.0, 9.0),
    UNPARKED: (20.0, 60.0),
    DEAD_CHANNEL: (20.0, 60.0),
    FULL_POOL: (10.0, 30.0),
    CLOCK_FORWARD: (15.0, 45.0),
    CLOCK_BACK: (15.0, 45.0),
}


@dataclass(frozen=True)
class Plan:
    """An hour by default. Times in seconds. A span is (least, most)."""

    folder: Path
    seconds: float = 3600.0
    seed: int = 20261120
    idle_s: float = 8.0  # before anybody speaks: what the event loop's lag is on this machine, now
    people: int = 24
    pause_s: Span = (0.3, 2.5)  # between two messages of one person
    messages: tuple[int, int] = (
        10,
        50,
    )  # of one conversation. Then the person begins another, or goes back to an old one
    text_chars: int = 400
    model_s: Span = (0.02, 0.4)
    slow_s: Span = (2.0, 6.0)  # what a message with !slow takes
    summary_s: Span = (0.2, 1.5)
    compact_at_tokens: int = 1_500
    kill_s: Span = (10.0, 50.0)
    retention_s: float = 20.0  # in each gateway
    max_age_s: float = 60.0  # a conversation that was left is archived after this
    idle_age_s: float = 30.0
    prune_age_s: float = 240.0  # rows of finished work are deleted after this
    restore_s: Span = (10.0, 30.0)
    backup_s: float = 200.0
    import_s: Span = (20.0, 50.0)
    grown_files: int = 30  # at most so many files of our own that grow
    command_s: Span = (3.0, 9.0)
    follow_s: Span = (20.0, 60.0)  # the life of a process that follows events
    reader_s: Span = (15.0, 45.0)  # between two readers that hold a snapshot
    reader_holds_s: Span = (2.0, 9.0)
    sample_s: float = 1.0
    rows_s: float = 10.0
    messages_min: int = 0  # the load goes on until so much has happened, however long it takes
    kills_min: int = 1
    backups_min: int = 0
    imports_min: int = 0
    settle_s: float = 180.0  # no end takes this long unless it fails
    wal_bytes_max: int = 4 * MIB
    wal_bytes_per_s: int = (
        8 * MIB
    )  # what a reader that holds its snapshot may cost per second of its age
    wal_grace_s: float = (
        15.0  # ... and for how long after its end: the reset is tried again each second
    )
    rss_growth_max: int = 16 * MIB  # from the second quarter of the run to the last
    descriptor_growth_max: int = 3
    thread_growth_max: int = 3
    free_bytes_max: int = 32 * MIB
    # A callback that became due at any moment of the load waited this long at the 99th
    # percentile, or so many times as long as in an idle process beside it. Then the
    # loop does something that it should not. On an idle machine it is a few
    # milliseconds.
    lag_ms_max: float = 250.0
    lag_factor_max: float = 10.0
    # The longest transaction, from the write lock to COMMIT, whose sync is the disk's
    # affair. A batch takes no further request after 25 ms. What held up the idle
    # process for so long may have held up the writer, and whoever had the interpreter,
    # too: twice that.
    transaction_ms_max: float = 500.0
    heartbeats: int = 60  # of a backlog
    parked_priority: int = 30  # behind all lanes that people wait in. 5: before cron
    unparked_s: Span = (3.0, 8.0)  # for so long somebody runs the lane that nobody ran
    dead_channel_s: Span = (5.0, 20.0)
    pool_s: Span = (1.0, 5.0)
    clock_step_s: Span = (0.5, 8.0)
    clock_within_s: float = 20.0  # of the machine's
    broken: tuple[str, ...] = ()
    shares: dict[str, float] = field(default_factory=lambda: dict(SHARES))
    spans: dict[str, Span] = field(default_factory=lambda: dict(SPANS))

    @property
    def database(self) -> Path:
        return self.folder / "soak.db"

    @property
    def clock(self) -> Path:
        return self.folder / "clock"

    @property
    def channel(self) -> Path:
        return self.folder / "channel.jsonl"


def short(folder: Path, **changes: object) -> Plan:
    """Return the plan of a few seconds.

    All intervals are smaller, so that everything happens at least once.
    """
    plan = Plan(
        folder,
        seconds=2.0,
        idle_s=0.3,
        people=8,
        pause_s=(0.0, 0.1),
        messages=(3, 8),
        model_s=(0.0, 0.02),
        slow_s=(0.3, 0.6),
        summary_s=(0.02, 0.1),
        compact_at_tokens=400,
        kill_s=(1.0, 1.4),
        retention_s=0.5,
        max_age_s=0.8,
        idle_age_s=0.4,
        prune_age_s=3.0,
        restore_s=(0.5, 1.0),
        backup_s=0.8,
        import_s=(0.5, 0.9),
        grown_files=3,
        command_s=(0.6, 0.9),
        follow_s=(1.5, 2.0),
        reader_s=(0.5, 0.8),
        reader_holds_s=(0.3, 0.6),
        sample_s=0.1,
        rows_s=0.5,
        # Worker threads live for ten idle seconds, which is longer than this run: what
        # a later quarter began, it still has.
        descriptor_growth_max=6,
        thread_growth_max=6,
        # In two seconds a single hiccup of the machine is the 99th percentile.
        lag_ms_max=1_200.0,
        transaction_ms_max=1_200.0,
        shares={name: min(0.4, 4 * share) for name, share in SHARES.items()},
        spans={
            ORDERLY_STOP: (1.5, 2.5),
            BACKLOG: (0.8, 1.2),
            PARKED: (0.3, 0.6),
            UNPARKED: (0.6, 1.0),
            DEAD_CHANNEL: (0.5, 0.8),
            FULL_POOL: (0.5, 1.0),
            CLOCK_FORWARD: (0.4, 0.8),
            CLOCK_BACK: (0.4, 0.8),
        },
        heartbeats=15,
        unparked_s=(0.5, 1.0),
        dead_channel_s=(0.3, 0.6),
        pool_s=(0.1, 0.3),
        clock_step_s=(0.5, 3.0),
        messages_min=40,
        backups_min=1,
        imports_min=1,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]

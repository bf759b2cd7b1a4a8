"""The condition of a database: counts, jobs, processes, space. One short snapshot of derived facts.

It costs the same however many sessions there are: numbers are the highest that were assigned,
counts of partial indexes, or figures that SQLite keeps in the file's header. What has to be
counted row by row is counted when `counts` asks for it, and entries never. The kernel is asked
which processes are alive, outside the snapshot. Nothing is changed: a job past its deadline is
reported as overdue, and the next `recover` or the next compaction of its session ends it.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sessiondb import process
from sessiondb.backend import Backend, ReadTx
from sessiondb.clock import iso_from_ms
from sessiondb.json_text import loads
from sessiondb.limits import OUTBOX_WAITING_MAX, Limits
from sessiondb.models import Holding, Lane

if TYPE_CHECKING:
    from sessiondb import statements

Level = Literal["green", "yellow", "red"]
"""How a database is: as it should be, to be looked at today, or somebody waits in vain."""

# As many jobs, processes and holdings as a person reads. The counts beside them are complete.
LISTED_MAX = 100


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """A process that opened the database for writing and has not closed it."""

    instance_no: int
    program: str
    pid: int
    host: str
    opened_at_ms: int
    draining_since_ms: int | None
    """It claims no more turns since then, and ends (`SessionDB.drain`). None: it works."""
    alive: bool | None
    """None: unknown, because the file with its lock was moved or deleted."""


@dataclass(frozen=True, slots=True)
class CompactionStatus:
    """A compaction that has begun and not ended."""

    compaction_id: str
    session_id: str
    trigger: str
    owner: str | None
    owner_alive: bool | None
    begun_at_ms: int
    deadline_ms: int
    age_ms: int
    overdue: bool


@dataclass(frozen=True, slots=True)
class Stuck:
    """Something that does not go on by itself: a row of the view `stuck`, or of a dead process."""

    what: str
    """turn, reply, message, compaction, lane, channel, consumer, import, archive or process."""
    name: str
    """Its number, or what it is called: a compaction's id, a lane, a channel, a path."""
    problem: str
    session_id: str | None
    place: str | None
    """The lane of a turn or message, a reply's target, or which of several is the first."""
    since: str
    until: str | None
    """It ends by itself then."""
    owner: str | None
    owner_alive: bool | None
    why: str
    next_step: str
    """The command that goes on. For what no command can start, what to start."""

    @property
    def headline(self) -> str:
        """Return what is stuck, and how."""
        return f"{self.what} {self.name}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that is not as it should be, by a rule of `health.py`."""

    level: Level
    """yellow: a person should look today. red: what a person waits for does not go on."""
    rule: str
    """The rule's name. It stays, so that a monitor can know it."""
    text: str
    next_step: str | None
    """The command that shows more, or goes on. None: the text says what to do."""


@dataclass(frozen=True, slots=True)
class WorkStatus:
    """A gateway's waiting, running and unfinished work: counts of rows."""

    messages_waiting: int
    messages_interrupted: int
    """The resume plan decides about these."""
    messages_dead: int
    turns_running: int
    turns_overdue: int
    """Running turns whose lease ran out. The lane's loop takes them over."""
    replies_pending: int
    replies_sending: int
    replies_unknown: int
    """It is unknown whether they were sent. A person decides."""
    replies_failed: int
    events: int
    """The number of the newest event."""


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """A channel for which replies wait."""

    channel: str
    replies_waiting: int
    waits_until_ms: int | None
    """It said so, and none of its replies is sent before. None: it did not."""
    reason: str | None
    """Why it said so."""

    @property
    def full(self) -> bool:
        """True when so many replies wait that no message of this channel is accepted."""
        return self.replies_waiting >= OUTBOX_WAITING_MAX


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """The condition of a database. Sizes in bytes, times in milliseconds since 1970 UTC."""

    path: str
    at_ms: int
    """When it was read."""
    schema_version: int
    file_bytes: int
    free_bytes: int
    wal_bytes: int
    wal_bytes_max: int
    """The limit of the process that asks. A gateway may have another."""
    sessions: int
    """The highest number of one: sessions stay, archived or not."""
    sessions_ended: int | None
    """This and the next three: None if they were not asked for with `counts`."""
    keys: int | None
    entries: int | None
    compactions: dict[str, int] | None
    """The number of jobs in each state."""
    running: tuple[CompactionStatus, ...]
    stuck: tuple[Stuck, ...]
    """What does not go on by itself, `LISTED_MAX` at most."""
    import_files: int
    lines_damaged: int | None
    """This and the next: None if they were not asked for with `counts`."""
    lines_blank: int | None
    processes: tuple[ProcessStatus, ...]
    processes_open: int
    """Registrations that were never closed. `processes` lists the newest."""
    gateway: WorkStatus
    lanes: tuple[Lane, ...]
    """Those that go first first."""
    channels: tuple[ChannelStatus, ...]
    """Those for which replies wait, most replies first."""
    disk_free_bytes: int | None = None
    """What the disk of the database has room for. None: it cannot be asked."""
    held: tuple[Holding, ...] = ()
    """Turns, compactions and replies in progress with their holders, longest first.

    From the same snapshot as the counts.
    """
    concerns: tuple[str, ...] = ()
    """Permissions that let users other than the owner read or change the files."""
    alarms: tuple[Alarm, ...] = ()
    """What is not as it should be, the worst first."""

    @property
    def verdict(self) -> Level:
        """Return the level of the worst alarm. green: there is none."""
        return self.alarms[0].level if self.alarms else "green"

    @property
    def needs_attention(self) -> bool:
        """True when an operator must look.

        Something is overdue, in cool-down, owned by a dead process, or waits for a decision.
        Also true when the outbox of a channel is full: its messages are refused.
        """
        return bool(self.stuck) or any(channel.full for channel in self.channels)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The facts of one snapshot, and the rows of the processes about which the kernel is asked."""

    status: DatabaseStatus
    processes: list[statements.StatusProcesses]
    running: list[statements.StatusRunning]
    held: list[statements.RecoveryHeld]
    stuck: list[statements.StatusStuck]


def read_status(
    tx: ReadTx, *, path: str, wal_bytes: int, limits: Limits, now_ms: int, counts: bool
) -> Snapshot:
    """Read everything except the liveness of processes."""
    file, totals = tx.one("status.file"), tx.one("status.totals")
    counted = tx.one("status.counts") if counts else None
    jobs = tx.page("status.running", limit=LISTED_MAX).rows
    open_rows = tx.page("status.processes", limit=LISTED_MAX).rows
    status = DatabaseStatus(
        path=path,
        at_ms=now_ms,
        schema_version=file.schema_version,
        file_bytes=file.pages * file.page_bytes,
        free_bytes=file.pages_free * file.page_bytes,
        wal_bytes=wal_bytes,
        wal_bytes_max=limits.wal_bytes_max,
        sessions=totals.sessions,
        sessions_ended=counted.sessions_ended if counted is not None else None,
        keys=counted.keys if counted is not None else None,
        entries=counted.entries if counted is not None else None,
        compactions={row.state: row.jobs for row in tx.all("status.compactions")}
        if counts
        else None,
        running=tuple(
            CompactionStatus(
                compaction_id=row.compaction_id,
                session_id=row.session_id,
                trigger=row.trigger,
                owner=_owner_name(owner.program, owner.pid, owner.host)
                if (owner := process.owner(row))
                else None,
                owner_alive=None,
                begun_at_ms=row.begun_at_ms,
                deadline_ms=row.deadline_ms,
                age_ms=now_ms - row.begun_at_ms,
                overdue=row.deadline_ms < now_ms,
            )
            for row in jobs
        ),
        stuck=(),
        import_files=totals.import_files,
        lines_damaged=counted.lines_damaged if counted is not None else None,
        lines_blank=counted.lines_blank if counted is not None else None,
        processes=tuple(
            ProcessStatus(
                row.instance_no,
                row.program,
                row.pid,
                row.host,
                row.opened_at_ms,
                row.draining_at_ms,
                None,
            )
            for row in open_rows
        ),
        processes_open=totals.processes_open,
        gateway=WorkStatus(*tx.one("status.work", now_ms=now_ms)),
        lanes=tuple(read_lanes(tx)),
        channels=tuple(
            ChannelStatus(*row)
            for row in tx.page("status.channels", now_ms=now_ms, limit=LISTED_MAX).rows
        ),
    )
    return Snapshot(
        status,
        open_rows,
        jobs,
        tx.all("recovery.held")[:LISTED_MAX],
        tx.page("status.stuck", limit=LISTED_MAX).rows,
    )


def read_lanes(tx: ReadTx) -> list[Lane]:
    """Return the lanes with their limits, and how much runs and waits in each."""
    return [
        Lane(
            **{
                **row._asdict(),
                "people": bool(row.people),
                "settings": loads(row.settings) if row.settings is not None else None,
            }
        )
        for row in tx.all("status.lanes")
    ]


def holdings(rows: Sequence[statements.RecoveryHeld], backend: Backend) -> list[Holding]:
    """Return the holdings, with the liveness of their processes. Asks the kernel: use a thread."""
    return [
        Holding(
            row.what,
            row.session_id,
            row.turn_no,
            row.compaction_id,
            row.outbox_no,
            row.operation,
            row.since_ms,
            row.until_ms,
            row.host,
            row.pid,
            row.program,
            alive,
            row.draining_at_ms,
        )
        for row, alive in zip(rows, backend.liveness(rows), strict=True)
    ]


def with_liveness(snapshot: Snapshot, backend: Backend) -> DatabaseStatus:
    """Return the status, with the liveness of the processes. Asks the kernel: use a thread."""
    status = snapshot.status
    owned = {row.compaction_id: owner for row in snapshot.running if (owner := process.owner(row))}
    owners = dict(zip(owned, backend.liveness(list(owned.values())), strict=True))
    running = tuple(
        replace(job, owner_alive=owners.get(job.compaction_id)) for job in status.running
    )
    lives = backend.liveness(snapshot.processes)
    processes = tuple(
        replace(listed, alive=alive) for listed, alive in zip(status.processes, lives, strict=True)
    )
    held = tuple(holdings(snapshot.held, backend))
    return replace(
        status,
        running=running,
        processes=processes,
        held=held,
        disk_free_bytes=_disk_free_bytes(status.path),
        stuck=tuple(_stuck(snapshot, running, held, processes, backend)[:LISTED_MAX]),
    )


def _disk_free_bytes(path: str) -> int | None:
    try:
        return shutil.disk_usage(Path(path).absolute().parent).free
    except OSError:
        return None  # the folder may be gone: the next call of the database says so


def _stuck(
    snapshot: Snapshot,
    running: Sequence[CompactionStatus],
    held: Sequence[Holding],
    processes: Sequence[ProcessStatus],
    backend: Backend,
) -> list[Stuck]:
    """Return what dead processes left, and then the rows of the view, with their processes.

    The view goes by times. What a dead process holds is known to be stuck before its lease
    has ended.
    """
    path = shlex.quote(snapshot.status.path)
    owners = [process.owner(row) for row in snapshot.stuck]
    lives = iter(backend.liveness([owner for owner in owners if owner is not None]))
    rows = [
        Stuck(
            row.what,
            row.name,
            row.problem,
            row.session_id,
            row.place,
            row.since,
            row.until,
            _owner_name(owner.program, owner.pid, owner.host) if owner is not None else None,
            next(lives) if owner is not None else None,
            row.why,
            row.next_step.replace(" DB", f" {path}", 1),
        )
        for row, owner in zip(snapshot.stuck, owners, strict=True)
    ]
    known = {(row.what, row.name) for row in rows if row.owner is not None}
    left = _left_by_the_dead(path, running, held)
    return [
        *(one for one in left if (one.what, one.name) not in known),
        *_dead_processes(path, processes),
        *rows,
    ]


def _left_by_the_dead(
    path: str, running: Sequence[CompactionStatus], held: Sequence[Holding]
) -> list[Stuck]:
    return [
        Stuck(
            holding.what,
            holding.name,
            "left by a dead process",
            holding.session_id,
            holding.operation,
            iso_from_ms(holding.since_ms),
            None,
            _owner_name(holding.program, holding.pid, holding.host),
            False,
            "its process died, and no loop of a gateway has released it",
            f"sessiondb resume {path} --run",
        )
        for holding in held
        if holding.alive is False and holding.what != "compaction"
    ] + [
        Stuck(
            "compaction",
            job.compaction_id,
            "left by a dead process",
            job.session_id,
            f"trigger {job.trigger}",
            iso_from_ms(job.begun_at_ms),
            None,
            job.owner,
            False,
            "its process died, and no loop of a gateway has released it",
            f"sessiondb resume {path} --run",
        )
        for job in running
        if job.owner_alive is False
    ]


def _dead_processes(path: str, processes: Sequence[ProcessStatus]) -> list[Stuck]:
    return [
        Stuck(
            "process",
            str(one.instance_no),
            "died",
            None,
            None,
            iso_from_ms(one.opened_at_ms),
            None,
            _owner_name(one.program, one.pid, one.host),
            False,
            "it opened the database then, never closed it, and no start has recovered it",
            f"sessiondb resume {path} --run",
        )
        for one in processes
        if one.alive is False
    ]


def _owner_name(program: str, pid: int, host: str) -> str:
    return f"{program}, pid {pid} on {host}"


def condition(process: ProcessStatus) -> Literal["running", "draining", "died", "unknown"]:
    """Return the condition of a process as a word."""
    if process.alive is None:
        return "unknown"
    if not process.alive:
        return "died"
    return "running" if process.draining_since_ms is None else "draining"

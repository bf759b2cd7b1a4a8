"""Commands that show a database as a whole: context, compactions, verify, status."""

from __future__ import annotations

import sys
from itertools import groupby

import click

from sessiondb.maintenance.status import (
    ChannelStatus,
    CompactionStatus,
    DatabaseStatus,
    ProcessStatus,
    WorkStatus,
    condition,
)
from sessiondb.models import CompactionInfo, VerifyReport

from .findings import print_findings
from .program import (
    OK,
    PROBLEMS,
    UNFINISHED,
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    session_argument,
)
from .session_ids import session_column, session_named, shown_id
from .terminal import (
    Column,
    as_record,
    at,
    counted,
    duration,
    escape,
    escape_json,
    print_bytes,
    print_json,
    print_json_array,
    print_line,
    print_table,
    size,
    to_json,
)

# So that a status is a screen. `--json`, `stuck` and `compactions` have the rest.
ALARMS_SHOWN, JOBS_SHOWN, PROCESSES_SHOWN = 4, 2, 4


@command(
    examples=(
        "sessiondb context gateway.db agent:main:discord:channel:1",
        "sessiondb context gateway.db agent:main:discord:channel:1 --epoch 0",
        "sessiondb context gateway.db agent:main:discord:channel:1 --raw",
    ),
)
@database_argument
@session_argument
@click.option(
    "--epoch",
    type=click.IntRange(min=0),
    help="Show it as of the end of this epoch.  [default: now]",
)
@click.option(
    "--format",
    "shape",
    type=click.Choice(["messages", "pi"]),
    default="messages",
    show_default=True,
    help="messages: a JSON array. pi: an object with messages, thinkingLevel and model, "
    "as pi's own reader computes it.",
)
@click.option(
    "--raw",
    is_flag=True,
    help="Print the messages as they are stored, where a call may lack its result. "
    "With --format pi they always are.",
)
@json_option("The default: a context is JSON.")
@debug_option
def context(
    db: str,
    session: str,
    epoch: int | None,
    shape: str,
    raw: bool,
    as_json: bool,  # noqa: ARG001  # a context is JSON in any case
) -> None:
    """Print the context that is sent to the model."""
    with look_into(db) as opened:
        found = session_named(opened, session).context(epoch=epoch, decode=False, raw=raw)
    content = found.as_pi_json() if shape == "pi" else found.as_json()
    if sys.stdout.isatty():
        click.echo(escape_json(content.decode()))
    else:
        print_bytes(content + b"\n")


@command(
    short_help="List compactions and their outcomes.",
    examples=(
        "sessiondb compactions gateway.db",
        "sessiondb compactions gateway.db --session agent:main:discord:channel:1",
    ),
    watch_without=(),
)
@database_argument
@click.option("--session", metavar="SESSION", help="Only compactions of this session.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="At most this many.")
@json_option("Print a JSON array.")
@debug_option
def compactions(db: str, session: str | None, limit: int | None, as_json: bool) -> None:
    """List compactions, newest first, with their outcomes."""
    with look_into(db) as opened:
        chosen = session_named(opened, session) if session is not None else None
        found = opened.compactions(chosen)
        if limit is not None:
            found = (info for info, _ in zip(found, range(limit), strict=False))
        if as_json:
            print_json_array(to_json(info) for info in found)
            return
        rows = [_compaction_row(info) for info in found]
        sessions = session_column(opened, (str(row[1]) for row in rows))
    columns = [
        Column("id"),  # whole: those of one minute begin alike
        sessions,
        Column("state"),
        Column("trigger", cut="end", spare=2),
        Column("epoch", "right"),
        Column("tokens", "right"),
        Column("begun (UTC)"),
        Column("took", "right", spare=3),
        Column("owner", cut="end", width_min=5, spare=4),
        Column("reason", cut="end", width_min=6, spare=1),
    ]
    print_table(columns, rows, empty="no compactions")


def _compaction_row(info: CompactionInfo) -> list[object]:
    after = f" > {info.tokens_after:,}" if info.tokens_after is not None else ""
    return [
        info.compaction_id,
        info.session_id,
        info.state + (" late" if info.late else ""),
        info.trigger,
        f"{info.base_epoch} > {info.epoch}" if info.epoch is not None else info.base_epoch,
        f"{info.tokens_before:,}{after}",
        at(info.begun_at_ms)[:16],
        duration(info.finished_at_ms - info.begun_at_ms) if info.finished_at_ms is not None else "",
        info.owner,
        info.reason,
    ]


@command(
    short_help="Check every invariant of a database.",
    examples=(
        "sessiondb verify gateway.db",
        "sessiondb verify gateway.db --quick",
    ),
)
@database_argument
@click.option(
    "--session", metavar="SESSION", help="Only this session.  [default: all, and the file itself]"
)
@click.option("--quick", is_flag=True, help="Skip the checks that decode every entry.")
@click.option(
    "--read-s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="How long one read may take. The check of the whole file is one read.  [default: 10]",
)
@json_option()
@debug_option
def verify(db: str, session: str | None, quick: bool, read_s: float | None, as_json: bool) -> int:
    """Check every invariant of a database. Exit with 1 when one is broken.

    Exit with 6 when none is, as far as is known, and a check could not be finished. Each such
    check is named, with the reason and what to do.

    Reads in pages and holds no snapshot between them, so a gateway may run meanwhile. While a
    long read goes on, the WAL grows with each write.
    """
    with look_into(db, read_s=read_s) as opened:
        chosen = session_named(opened, session) if session is not None else None
        report = opened.verify(chosen, deep=not quick)
    if as_json:
        print_json({**as_record(report), "ok": report.ok, "finished": not report.unfinished})
        return _exit_code(report)
    print_findings(report.findings, db)
    checked = (
        f"{counted(report.sessions, 'session')}, {counted(report.entries, 'entry', 'entries')}"
    )
    click.echo(f"{checked}: {_verdict(report)}")
    return _exit_code(report)


def _verdict(report: VerifyReport) -> str:
    if not report.findings:
        return "all good"
    errors, unfinished = len(report.errors), len(report.unfinished)
    warnings = len(report.findings) - errors - unfinished
    left = f", {counted(unfinished, 'check')} not finished" if unfinished else ""
    return f"{counted(errors, 'error')}, {counted(warnings, 'warning')}{left}"


def _exit_code(report: VerifyReport) -> int:
    return PROBLEMS if report.errors else UNFINISHED if report.unfinished else OK


@command(
    short_help="Show whether all is well, what waits, and space.",
    examples=(
        "sessiondb status gateway.db",
        "sessiondb status gateway.db --check",
        "sessiondb status gateway.db --json",
    ),
    watch_without=(),
)
@database_argument
@click.option(
    "--check",
    is_flag=True,
    help="For a monitor: print the verdict on a line. Exit with 0 for green, 1 for yellow, 2 "
    "for red.",
)
@click.option(
    "--counts", is_flag=True, help="Count entries, keys and compactions, too: reads every session."
)
@json_option()
@debug_option
def status(db: str, check: bool, counts: bool, as_json: bool) -> int:
    """Show whether all is well and why not, what runs and waits in each lane, and space.

    The verdict is green, yellow (a person should look today) or red (what a person waits for
    does not go on). Each line below it is a rule that says so, with what to do.

    It takes the same time however many sessions there are. --counts adds what has to be counted
    row by row.
    """
    with look_into(db) as opened:
        found = opened.status(counts=counts)
        names = {job.session_id: shown_id(opened, job.session_id) for job in found.running}
    if as_json:
        print_json({**as_record(found), "verdict": found.verdict})
    elif check:
        print_line(escape(_check_line(found)))
    else:
        for name, value in status_lines(found, names):
            print_line(f"{name + ':' if name else '':<14}{escape(value)}")
    return CHECKED[found.verdict] if check else OK


CHECKED = {"green": 0, "yellow": 1, "red": 2}
"""What a monitor expects: fine, a warning, critical."""


def _check_line(found: DatabaseStatus) -> str:
    texts = [f"{alarm.level}: {alarm.text}" for alarm in found.alarms]
    return "; ".join([found.verdict.upper(), *texts])


def status_lines(found: DatabaseStatus, names: dict[str, str]) -> list[tuple[str, str]]:
    """Return what `status` shows, as names and values. `names` are ids as a terminal has them."""
    free = found.disk_free_bytes
    return [
        *_verdict_lines(found),
        *_lane_lines(found),
        *_work_lines(found.gateway),
        *(line for channel in found.channels for line in _channel_lines(channel)),
        ("compacting", counted(len(found.running), "job") if found.running else "none"),
        *(line for job in found.running[:JOBS_SHOWN] for line in _job_lines(job, names)),
        ("database", found.path),
        ("schema", f"version {found.schema_version}"),
        ("file", f"{size(found.file_bytes)} ({size(found.free_bytes)} of it in free pages)"),
        ("WAL", f"{size(found.wal_bytes)} (limit by default {size(found.wal_bytes_max)})"),
        ("disk", f"{size(free)} free" if free is not None else "cannot be asked"),
        *_count_lines(found),
        *(("access", concern) for concern in found.concerns),
        (
            "processes",
            f"{found.processes_open:,} with the file open for writing, or ended without closing it",
        ),
        *(("", _process(process)) for process in found.processes[:PROCESSES_SHOWN]),
        *_more_processes(found),
    ]


def _verdict_lines(found: DatabaseStatus) -> list[tuple[str, str]]:
    verdict: str = found.verdict if found.alarms else "green: nothing needs a person"
    lines = [("verdict", verdict)]
    shown = found.alarms[:ALARMS_SHOWN]
    for step, alarms in groupby(shown, lambda alarm: alarm.next_step):
        lines += [("", f"{alarm.level}: {alarm.text}") for alarm in alarms]
        lines += [("", f"  {step}")] if step is not None else []
    more = len(found.alarms) - ALARMS_SHOWN
    return [*lines, ("", f"{more:,} more: --check names them all")] if more > 0 else lines


def _lane_lines(found: DatabaseStatus) -> list[tuple[str, str]]:
    """Return the lanes that are paused, or in which something runs or waits.

    One line, if they are all idle.
    """
    busy = [lane for lane in found.lanes if lane.running or lane.waiting or lane.paused_at_ms]
    lines = [
        f"{lane.lane}: {lane.running:,} of {lane.concurrency:,} running, {lane.waiting:,} waiting"
        + (
            f", the oldest for {duration(found.at_ms - lane.oldest_waiting_ms)}"
            if lane.oldest_waiting_ms is not None
            else ""
        )
        + (
            f", paused for {duration(found.at_ms - lane.paused_at_ms)}"
            if lane.paused_at_ms is not None
            else ""
        )
        for lane in busy
    ] or [f"{counted(len(found.lanes), 'lane')}, nothing runs or waits"]
    return [("lanes" if number == 0 else "", line) for number, line in enumerate(lines)]


def _more_processes(found: DatabaseStatus) -> list[tuple[str, str]]:
    more = max(len(found.processes), found.processes_open) - PROCESSES_SHOWN
    return [("", f"{more:,} more: --json lists them")] if more > 0 else []


def _count_lines(found: DatabaseStatus) -> list[tuple[str, str]]:
    sessions, files = f"{found.sessions:,}", counted(found.import_files, "file")
    if found.compactions is None:
        return [("sessions", f"{sessions} (--counts counts the rest)"), ("imported", files)]
    ended, keys = found.sessions_ended or 0, counted(found.keys or 0, "key")
    entries = counted(found.entries or 0, "entry", "entries")
    quarantine = f"{found.lines_damaged or 0:,} damaged and {found.lines_blank or 0:,} blank"
    jobs = ", ".join(f"{count:,} {state}" for state, count in found.compactions.items())
    return [
        ("sessions", f"{sessions} ({ended:,} ended), {keys}, {entries}"),
        ("imported", f"{files}; quarantine: {quarantine}"),
        ("compactions", jobs or "none"),
    ]


def _job_lines(job: CompactionStatus, names: dict[str, str]) -> list[tuple[str, str]]:
    when = f"{'overdue since' if job.overdue else 'deadline'} {at(job.deadline_ms)}"
    died = "; its process died" if job.owner_alive is False else ""
    running = f"{job.trigger} of {names[job.session_id]}, running for {duration(job.age_ms)}"
    return [
        ("", f"{running}, {when}"),
        ("", f"  owner: {job.owner or 'unknown'}{died}; id {job.compaction_id}"),
    ]


def _work_lines(work: WorkStatus) -> list[tuple[str, str]]:
    waiting = f"{work.messages_waiting:,} waiting, {work.messages_interrupted:,} interrupted"
    overdue = f" ({work.turns_overdue:,} past their lease)" if work.turns_overdue else ""
    unsent = f"{work.replies_pending + work.replies_sending:,} to send"
    unsettled = f"{work.replies_unknown:,} unknown, {work.replies_failed:,} failed"
    return [
        ("messages", f"{waiting}, {work.messages_dead:,} dead"),
        ("turns", f"{work.turns_running:,} running{overdue}"),
        ("replies", f"{unsent}, {unsettled}"),
    ]


def _channel_lines(found: ChannelStatus) -> list[tuple[str, str]]:
    """Return what is unusual about a channel."""
    lines = []
    if found.full:
        waiting = f"{counted(found.replies_waiting, 'reply', 'replies')} to send"
        lines.append(f"{waiting} (full: its messages are refused until some are sent)")
    if found.waits_until_ms is not None:
        lines.append(f"waits until {at(found.waits_until_ms)}, because it said so: {found.reason}")
    return [("", f"channel {found.channel}: {line}") for line in lines]


def _process(process: ProcessStatus) -> str:
    name = f"{process.program}, pid {process.pid} on {process.host}"
    return f"{name}, since {at(process.opened_at_ms)}: {condition(process)}"

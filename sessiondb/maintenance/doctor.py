"""What is wrong with a database, what that means, and what to do: for a person at night.

It finds nothing by itself. The rules of `health.py` and the checks of `verify` do, and this adds
what each means for people, and whether `--fix` can put it right.

A fix is only what any start of a gateway does by itself (`recover`, `release_expired`): a turn, a
compaction or a reply that nobody works on any more is released. Each is a transaction of its
rule, with its event. What needs a decision (a dead letter, a reply that may have arrived) is
never decided here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from sessiondb.models import VerifyReport

from .status import DatabaseStatus

Severity = Literal["error", "warning"]

CONSEQUENCES: Final[dict[str, str]] = {
    "turn: past its lease": "Its sender gets no answer, and its session takes no other message.",
    "turn: left by a dead process": (
        "Its sender gets no answer, and its session takes no other message until a start."
    ),
    "reply: past its lease": "It is unknown whether it was sent, and nobody decides so far.",
    "reply: left by a dead process": "It is unknown whether it was sent. Nobody decides so far.",
    "compaction: past its deadline": "Its session is not compacted until it is ended.",
    "compaction: left by a dead process": "Its session is not compacted until it is ended.",
    "compaction: in cool-down": "Its context is not compacted meanwhile. It ends by itself.",
    "process: died": "What it held is not released, and a start may count it as a crash.",
    "lane: not run": "Messages of this lane are accepted, and nobody answers them.",
    "lane: paused": "Messages of this lane wait until somebody resumes it.",
    "lane: backlog": "People wait for long, and at the lane's limit messages are refused.",
    "channel: nothing is sent": "Answers are ready, and nobody gets them.",
    "channel: refuses everything": "Answers are ready, and the channel takes none.",
    "channel: waits": "Answers are ready, and are sent when the channel's pause ends.",
    "channel: full": "Messages of this channel are refused.",
    "message: interrupted, and not resumed": "Its sender gets no answer until it is resumed.",
    "message: from a restored backup": "It may have been answered after the backup was made.",
    "message: dead": "Its sender got no answer, and was told so.",
    "reply: unknown": "It may have arrived or not. Sent again, it may arrive twice.",
    "reply: failed": "It has not arrived, and is not sent again by itself.",
    "consumer: behind": "Its events wait, and retention keeps them.",
    "import: not finished": "The rest of the file is not here.",
    "archive: writing": "Its session stays as it is, and takes its space.",
    "archive: complete": "Its session stays as it is, and takes its space.",
    "archive: deleting": "Its session cannot be read, and its space is not free yet.",
    "archive: restoring": "Its session cannot be read until the restore is finished.",
    "wal: over its limit": "The disk fills up, and reads become slower.",
    "disk: little room": "When the disk is full, every write is refused.",
    "access": "Other users of the machine can read or change conversations.",
}
"""What each rule means for people, by its name."""

FIXABLE: Final = frozenset(
    {
        "turn: past its lease",
        "turn: left by a dead process",
        "reply: past its lease",
        "reply: left by a dead process",
        "compaction: past its deadline",
        "compaction: left by a dead process",
        "process: died",
    }
)
"""Rules whose work any start of a gateway releases by itself."""

BROKEN: Final = "A rule of what is stored is broken, so what is read may be wrong."
UNFINISHED: Final = "This check did not end, so it is not known whether that is in order."


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that is wrong."""

    severity: Severity
    rule: str
    """Its name stays, as that of an alarm does. Of a check of `verify`: `verify: <check>`."""
    evidence: str
    consequence: str
    command: str | None
    """What shows more, or goes on. None: the evidence says what to do."""
    fixable: bool
    """`doctor --fix` puts it right."""


def diagnose(status: DatabaseStatus, report: VerifyReport) -> tuple[Diagnosis, ...]:
    """Return what is wrong, errors first."""
    found = [*_broken(status, report), *_alarms(status)]
    return tuple(sorted(found, key=lambda one: one.severity))  # error comes before warning


def _alarms(status: DatabaseStatus) -> Iterator[Diagnosis]:
    for alarm in status.alarms:
        yield Diagnosis(
            "error" if alarm.level == "red" else "warning",
            alarm.rule,
            alarm.text,
            CONSEQUENCES.get(alarm.rule, "It does not go on by itself."),
            alarm.next_step,
            alarm.rule in FIXABLE,
        )


def _broken(status: DatabaseStatus, report: VerifyReport) -> Iterator[Diagnosis]:
    path = shlex.quote(status.path)
    for finding in report.findings:
        unfinished = finding.severity == "unfinished"
        yield Diagnosis(
            "error" if finding.severity == "error" else "warning",
            f"verify: {finding.check}",
            finding.message,
            UNFINISHED if unfinished else BROKEN,
            f"sessiondb verify {path}{' --quick --read-s 600' if unfinished else ''}",
            fixable=False,
        )

"""Compare a database that nobody has open with what people remember.

    python -m tests.proofs.soak.audit COPY LEDGER REPORT

`COPY` is a backup, or a copy of the file at the end. It is changed: every archive in it
is restored first, so that a conversation is looked for in one place, and every archive
is shown to be whole. Then, per session:

* every acknowledged message is in the transcript, or is waiting in the inbox, exactly
  once, in the order in which people sent it.
* the text is the text that was sent.
* `verify` finds that each message is open or answered, or that its sender was told.
* nothing is there that nobody sent.

Conversations whose archive was deleted, as the policy said, are listed, so that the
caller can tell whether an earlier audit has seen all of them.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio

import sessiondb
from sessiondb.errors import SessionDBError
from tests.support.core import query

WORDS = (
    "deploy",
    "failed",
    "again",
    "lunch",
    "please",
    "look",
    "log",
    "whether",
    "lock",
    "held",
    "slow",
    "queue",
    "merge",
    "test",
)

LARGE = 50


def text_of(event_id: str, chars: int, control: str = "") -> str:
    """Return the text of a message by its id.

    The id, a word for the model, and words that depend on the id alone.

    Of !large many.
    """
    chance = random.Random(event_id)
    words = " ".join(
        chance.choice(WORDS) for _ in range(chars // 5 * (LARGE if control == "!large" else 1))
    )
    return f"{event_id} {control + ' ' if control else ''}{words}"


@dataclass
class Ledger:
    """What people remember.

    Per session, the ids of acknowledged messages in the order in which they were sent.
    """

    chars: int
    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    """Every message that was ever sent, acknowledged or not, with its word for the model."""
    lanes: dict[str, str] = field(default_factory=dict)
    """The lane of each message that was sent into another than `main`."""

    def text(self, event_id: str) -> str:
        return text_of(event_id, self.chars, self.sent[event_id])


@dataclass
class Findings:
    """What an audit found."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    unrestored: list[str] = field(default_factory=list)
    """Archives that could not be restored, and why."""
    problems: list[str] = field(default_factory=list)
    """What verify says, after everything was restored."""
    deleted: list[str] = field(default_factory=list)
    """Sessions without entries, because their archive was deleted."""
    whole: dict[str, int] = field(default_factory=dict)
    """Per session, how many acknowledged messages were found."""
    restored: int = 0


async def restore_everything(path: Path, found: Findings) -> None:
    """Bring back every archive, finished or on its way, and check the whole file again."""
    archived = """SELECT DISTINCT s.session_id FROM archive AS a
                  JOIN session AS s ON s.session_no = a.session_no
                  WHERE a.state NOT IN ('restored', 'deleted') ORDER BY a.archive_no"""
    async with sessiondb.open(path, program="soak audit") as db:
        for session_id in query(path, archived):
            try:
                await db.unarchive(session_id)
                found.restored += 1
            except SessionDBError as error:
                found.unrestored.append(f"{session_id}: {error}")
        report = await db.verify()
        found.problems += [
            str(finding) for finding in report.findings if finding.severity == "error"
        ]


def compare(path: Path, ledger: Ledger) -> Findings:
    """Compare transcripts and waiting messages with the ledger. Everything is restored already."""
    found = Findings()
    deleted = set(
        query(
            path,
            (
                "SELECT s.session_id FROM archive AS a JOIN session AS s ON s.session_no = "
                "a.session_no WHERE a.state = 'deleted'"
            ),
        )
    )
    known = dict(query(path, "SELECT session_id, session_no FROM session"))
    for session_id, acknowledged in ledger.acknowledged.items():
        if session_id in deleted:
            found.deleted.append(session_id)
        elif session_id not in known:
            found.lost += [
                f"{event_id} (there is no session {session_id})" for event_id in acknowledged
            ]
        else:
            _compare_session(found, ledger, acknowledged, _said(path, known[session_id]))
            found.whole[session_id] = len(acknowledged)
    return found


def _said(path: Path, session_no: int) -> list[str]:
    """Return what people said in a session: in its transcript, then waiting.

    A message that was buried when its turn began anew was appended again, under its turn's
    key. That is not said twice.
    """
    message = query(
        path,
        """SELECT json_extract(payload, '$.message.content') FROM entry
           WHERE entry_no BETWEEN ?1 << 32 AND (?1 << 32) + 0xffffffff AND role = 'user'
             AND ifnull(idempotency_key, '') NOT GLOB 'inbox:*:*' ORDER BY entry_no""",
        session_no,
    )
    waiting = query(
        path,
        """SELECT json_extract(payload, '$.content') FROM inbox
           WHERE session_no = ? AND entry_no IS NULL AND state IN ('queued', 'interrupted', 'dead')
             ORDER BY inbox_no""",
        session_no,
    )
    return [*message, *waiting]


def _compare_session(
    found: Findings, ledger: Ledger, acknowledged: list[str], message: list[str]
) -> None:
    ids = [text.split(maxsplit=1)[0] for text in message]
    times = Counter(ids)
    found.doubled += [event_id for event_id, count in times.items() if count > 1]
    found.lost += [event_id for event_id in acknowledged if event_id not in times]
    found.invented += [event_id for event_id in times if event_id not in ledger.sent]
    report = {
        event_id: text
        for event_id, text in zip(ids, message, strict=True)
        if event_id in ledger.sent
    }
    found.changed += [
        event_id for event_id, text in report.items() if ledger.text(event_id) != text
    ]
    remembered = set(acknowledged)

    # Each lane has its own order: a person does not wait for a heartbeat that came before. Nor do
    # a person and a program that speak at once have an order: either may be acknowledged first.
    def stream(event_id: str) -> tuple[str | None, str]:
        return ledger.lanes.get(event_id), event_id.rpartition(":")[2].rstrip("0123456789")

    for one in {stream(event_id) for event_id in acknowledged}:
        sent = [at for at in acknowledged if at in times and stream(at) == one]
        there = [at for at in ids if at in remembered and stream(at) == one]
        if list(dict.fromkeys(there)) != sent:
            found.out_of_order.append(f"{ids} instead of {acknowledged}")


def audit(path: Path, ledger: Ledger) -> Findings:
    """Restore everything, verify, compare."""
    before = Findings()
    anyio.run(restore_everything, path, before)
    found = compare(path, ledger)
    found.unrestored, found.problems, found.restored = (
        before.unrestored,
        before.problems,
        before.restored,
    )
    return found


def main(arguments: list[str]) -> None:
    path, ledger_path, report_path = map(Path, arguments)
    known: dict[str, Any] = json.loads(ledger_path.read_text("utf-8"))
    report_path.write_text(json.dumps(asdict(audit(path, Ledger(**known)))), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

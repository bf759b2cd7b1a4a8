"""The database of openclaw#44687's gateway at its restart.

Many sessions, most of them old, many of them cut off.

Two conversations are held through the API. Everything else is copies of their rows
under other numbers, made in SQL in a closed file, so that 100,000 sessions take
seconds. All of it belonged to a process that is dead.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import apsw

import sessiondb
from sessiondb.gateway.running_turn import Answer, Turn
from sessiondb.models import Reply

AGENTS = ("main", "coder", "writer")
HOUR_MS = 3_600_000
SEQ = 1 << 32
# What an interrupted message says. All of one length, because the copies' byte spans
# are the original's.
GO_ON, HANG = "go on please", "!hang please"


@dataclass(frozen=True)
class Storm:
    """How much of what. The interrupted sessions come first (numbers from 3), newest last."""

    sessions: int = 56
    bindings: int = 66
    recent: int = 8  # cut off within the last hours: candidates for a resume
    hanging: int = 1  # ... of those, the newest: their model never answers
    old: int = 6  # cut off more than five days ago
    used_up: int = 2  # cut off for the third time
    ended: int = 2  # an operator ended the session since
    failed: int = 2  # the turn before had failed already
    damaged: int = 2  # imported from a file with damaged lines
    waiting: int = 5  # users' messages, accepted and not yet looked at when the process died

    @property
    def interrupted(self) -> int:
        return self.recent + self.old + self.used_up + self.ended + self.failed + self.damaged


def build(path: Path, storm: Storm) -> None:
    """Make the database."""
    anyio.run(partial(_hold_two_conversations, path))
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute("PRAGMA synchronous = off; PRAGMA foreign_keys = off").fetchall()
        with connection:
            _copy(connection, storm)


async def _hold_two_conversations(path: Path) -> None:
    cut_off = anyio.Event()

    async def handler(turn: Turn) -> Answer:
        if turn.message["content"] == GO_ON:
            cut_off.set()
            await anyio.sleep_forever()
        text = {
            "role": "assistant",
            "content": [{"type": "text", "text": "Good morning."}],
            "provider": "p",
            "model": "m",
        }
        return Answer([text], [("sim:template", {"text": "Good morning."})])

    async def sender(reply: Reply) -> str:
        return "sent"

    async with sessiondb.open(path, program="storm") as db, anyio.create_task_group() as group:
        group.start_soon(db.run_lane, "main", handler)
        group.start_soon(db.run_outbox, sender)
        for talk in ("idle", "busy"):
            await db.accept(
                f"agent:main:sim:direct:{talk}",
                _message("Good morning!", talk),
                channel="sim",
                event_id=f"{talk}-1",
                details={"target": f"sim:{talk}"},
            )
        for _ in range(2):
            await _answered(db)
        await db.accept(
            "agent:main:sim:direct:busy",
            _message(GO_ON, "busy"),
            channel="sim",
            event_id="busy-2",
            details={"target": "sim:busy"},
        )
        await cut_off.wait()
        group.cancel_scope.cancel()


async def _answered(db: sessiondb.SessionDB) -> None:
    """Wait until both first messages are done."""
    while True:
        seen = db.backend.change_count
        if [reply async for reply in db.replies("sent")][1:]:
            return
        await db.backend.wait_change(seen, 1.0)


def _message(text: str, talk: str) -> dict[str, Any]:
    return {"role": "user", "content": text, "event_id": talk}


def _copy(connection: apsw.Connection, storm: Storm) -> None:
    now_ms = time.time_ns() // 1_000_000
    idle, busy = (
        row[0]
        for row in connection.execute(
            "SELECT session_no FROM binding ORDER BY session_key DESC"
        ).fetchall()
    )
    first, last = 3, storm.sessions
    cut_last = first + storm.interrupted - 1

    def several(table: str, template: int, low: int, high: int, **changes: str) -> None:
        """Copy a session's rows of a table to the sessions low..high (`n.i`)."""
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})").fetchall()]
        values = ", ".join(changes.get(column, f"o.{column}") for column in columns)
        which = "o.entry_no >> 32" if table == "entry" else "o.session_no"
        connection.execute(
            f"""WITH RECURSIVE n (i) AS (VALUES (?) UNION ALL SELECT i + 1 FROM n WHERE i < ?)
                INSERT INTO {table} ({", ".join(columns)})
                SELECT {values} FROM n CROSS JOIN {table} AS o WHERE {which} = ?""",
            (low, high, template),
        ).fetchall()

    def moved(column: str) -> str:
        return f"n.i * {SEQ} + (o.{column} & {SEQ - 1})"

    numbers = {name: moved(name) for name in ("head_no", "boundary_no", "first_kept_no")}
    parts = {
        name: moved(name)
        for name in (
            "entry_no",
            "parent_no",
            "boundary_no",
            "first_kept_no",
            "model_no",
            "thinking_no",
        )
    }
    agent = f"json_extract('{json.dumps(AGENTS)}', '$[' || (n.i % 3) || ']')"
    # The idle ones: from a week ago until an hour ago. The busy ones below get their own times.
    moment = f"{now_ms} - {7 * 24 * HOUR_MS} + (n.i * 37 % 997) * {6 * 24 * HOUR_MS // 997}"
    for template, low, high in ((busy, first, cut_last), (idle, cut_last + 1, last)):
        several(
            "session",
            template,
            low,
            high,
            session_no="n.i",
            session_id="'storm-' || n.i",
            agent_id=agent,
            updated_at_ms=moment,
            branch_no="1000000 + n.i",
            **numbers,
        )
        several(
            "branch",
            template,
            low,
            high,
            branch_no="1000000 + n.i",
            session_no="n.i",
            first_no=moved("first_no"),
        )
        several("epoch", template, low, high, session_no="n.i")
        key = (
            "CASE WHEN o.idempotency_key = 'inbox:3' THEN 'inbox:' || (n.i + 1000) ELSE "
            f"'copy:' || (o.entry_no & {SEQ - 1}) END"
        )
        several(
            "entry",
            template,
            low,
            high,
            branch_no="CASE WHEN o.branch_no IS NOT NULL THEN 1000000 + n.i END",
            idempotency_key=f"CASE WHEN o.idempotency_key IS NOT NULL THEN {key} END",
            **parts,
        )
        address = f"'agent:' || {agent} || ':sim:direct:' || n.i"
        several(
            "binding", template, low, high, session_key=address, session_no="n.i", agent_id=agent
        )
    for extra in range(storm.bindings - storm.sessions):
        connection.execute(
            (
                "INSERT INTO binding (session_key, session_no, agent_id, bound_at_ms) VALUES (?, "
                "?, 'main', ?)"
            ),
            (f"agent:main:sim:group:{extra}", last - extra, now_ms),
        )
    _interrupt(connection, storm, busy, first, now_ms)


def _interrupt(
    connection: apsw.Connection, storm: Storm, busy: int, first: int, now_ms: int
) -> None:
    """Give each busy session a message in work, claimed by a dead process.

    And some users wait.
    """
    (instance,) = connection.execute(
        """INSERT INTO instance (host, boot_id, pid, pid_started, program, opened_at_ms)
           VALUES ('a container that has gone', 'the start before', 1, 1, 'storm', ?)
           RETURNING instance_no""",
        (now_ms - 24 * HOUR_MS,),
    ).fetchone()
    kinds = (
        ["old"] * storm.old
        + ["used up"] * storm.used_up
        + ["ended"] * storm.ended
        + ["failed"] * storm.failed
    )
    kinds += (
        ["damaged"] * storm.damaged
        + ["recent"] * (storm.recent - storm.hanging)
        + ["hanging"] * storm.hanging
    )
    for session_no, kind in enumerate(kinds, first):
        inbox_no, attempt = session_no + 1000, 3 if kind == "used up" else 1
        at_ms = (
            now_ms - (5 * 24 + 1) * HOUR_MS - session_no
            if kind == "old"
            else now_ms - HOUR_MS + session_no * 1000
        )
        text = HANG if kind == "hanging" else GO_ON
        if kind == "failed":
            connection.execute(
                """INSERT INTO turn (session_no, lane, kind, state, inbox_no, attempt, operation,
                                     instance_no, started_at_ms, renewed_at_ms,
                                     expires_at_ms, deadline_ms, finished_at_ms, reason)
                   VALUES (?, 'main', 'message', 'failed', ?, 3, 'storm', ?, ?5, ?5, ?5, ?5, ?5,
                   'the model was down')""",
                (session_no, session_no + 500, instance, at_ms, at_ms),
            )
        connection.execute(
            """INSERT INTO turn (session_no, lane, kind, state, inbox_no, attempt, operation,
                                 instance_no, started_at_ms, renewed_at_ms,
                                 expires_at_ms, deadline_ms)
               VALUES (?, 'main', 'message', 'running', ?, ?, 'storm', ?, ?, ?, ?, ?)""",
            (
                session_no,
                inbox_no,
                attempt,
                instance,
                at_ms,
                at_ms,
                at_ms + 30_000,
                at_ms + 600_000,
            ),
        )
        turn_no = connection.last_insert_rowid()
        connection.execute(
            """INSERT INTO inbox (inbox_no, channel, event_id, session_no, lane, state,
                                  accepted_at_ms, available_at_ms, attempts, turn_no,
                                  entry_no, details)
               SELECT ?, 'sim', ?, ?, 'main', 'claimed', ?, ?, ?, ?,
                 ? * 4294967296 + (entry_no & 4294967295), details
               FROM inbox WHERE session_no = ? AND state = 'interrupted'""",
            (
                inbox_no,
                f"{kind} {session_no}",
                session_no,
                at_ms,
                at_ms,
                attempt,
                turn_no,
                session_no,
                busy,
            ),
        )
        connection.execute(
            "UPDATE session SET updated_at_ms = ? WHERE session_no = ?", (at_ms, session_no)
        )
        connection.execute(
            (
                "UPDATE entry SET payload = replace(payload, ?, ?) WHERE entry_no >> 32 = ? AND "
                "idempotency_key = ?"
            ),
            (GO_ON, text, session_no, f"inbox:{inbox_no}"),
        )
        if kind == "ended":
            connection.execute(
                "UPDATE session SET ended_at_ms = ? WHERE session_no = ?", (now_ms, session_no)
            )
        if kind == "damaged":
            connection.execute(
                """INSERT INTO import_file (import_file_no, path, name, kind, session_no, bytes,
                   lines, quarantined, imported_at_ms, state)
                   VALUES (?1, '/storm/' || ?1, ?1, 'live', ?1, 9, 1, 1, 0, 'done')""",
                (session_no,),
            )
            connection.execute(
                "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason,"
                " severity, content) VALUES (?, 1, 0, -1, 'torn', 'damaged', ?)",
                (session_no, b'{"type":\n'),
            )
    # The templates' own interrupted message is of no interest any more.
    connection.execute("UPDATE inbox SET state = 'done', told_no = 0 WHERE session_no = ?", (busy,))
    for number in range(storm.waiting):
        session_no = storm.sessions - number
        connection.execute(
            """INSERT INTO inbox (channel, event_id, session_no, lane, state, accepted_at_ms,
               available_at_ms, details, payload)
               VALUES ('sim', ?, ?, 'main', 'queued', ?, ?, ?, ?)""",
            (
                f"waiting {number}",
                session_no,
                now_ms,
                now_ms,
                json.dumps({"target": f"sim:{session_no}"}),
                json.dumps(_message(f"Is anybody there? ({number})", str(session_no))),
            ),
        )

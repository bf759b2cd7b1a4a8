"""The costs of operations, in pages, rows, preparations and decodes.

They are the reasons behind the times in benchmarks/.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
from sessiondb import events
from sessiondb.backend import Row
from sessiondb.errors import NothingToCompact
from sessiondb.gateway import claims, inbox, lanes, outbox, recovery, turns
from sessiondb.limits import CUT_SCAN_ROWS_FIRST, OUTBOX_WAITING_MAX, Limits
from sessiondb.maintenance import status
from sessiondb.sqlite import transaction
from sessiondb.sqlite.connection import connect_reader, connect_visitor, connect_writer
from sessiondb.sqlite.schema import schema_text
from sessiondb.transcript import compaction, registry
from sessiondb.transcript.entries import LARGE_ITEM_CHARS, draft_entry
from sessiondb.transcript.keys import parse_key
from tests.support.compaction import begin_in

PAGE_BYTES = 4096
QUESTION = {"role": "user", "content": "a question of ordinary length " * 10}
ANSWER = {"role": "assistant", "content": "an answer of ordinary length " * 10}


@pytest.mark.anyio
@pytest.mark.parametrize(("item", "most"), [(QUESTION, 6), (ANSWER, 7)], ids=["asked", "said"])
async def test_an_append_writes_a_few_pages_on_average(
    tmp_db: Path, item: dict[str, Any], most: int
) -> None:
    """Entry, its index by id, the session's row and its index by update. A reply has a time, too.

    Now and then also a new page, and the page that names it.
    """
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:costs:1")
        await session.append(item)
        before = (await db.stats())["writer"]["wal_bytes"]
        for _ in range(100):
            await session.append(item)
        pages = ((await db.stats())["writer"]["wal_bytes"] - before) / PAGE_BYTES / 100
    assert 3 < pages <= most


class CountingTx:
    """A transaction that counts the rows each statement returned."""

    def __init__(self, tx: Any) -> None:
        self._tx = tx
        self.rows: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    def all(self, statement: str, /, **params: Any) -> list[Row]:
        found: list[Row] = self._tx.all(statement, **params)
        self.rows[statement] = self.rows.get(statement, 0) + len(found)
        return found


@pytest.mark.anyio
async def test_beginning_a_compaction_reads_little_more_than_it_keeps(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:costs:1")
        await session.append_many([QUESTION, ANSWER] * 300)

        def begin(tx: Any) -> int:
            counting = CountingTx(tx)
            begin_in(
                counting,
                session.ref.session_no,
                trigger="threshold",
                keep_recent_tokens=500,
                timeout_ms=60_000,
            )
            return counting.rows["compaction.cut_page"]

        assert await db.write("begin", begin) == CUT_SCAN_ROWS_FIRST


@pytest.mark.anyio
@pytest.mark.parametrize("answered", [0, 2], ids=["nobody answered", "some answers before"])
async def test_beginning_a_compaction_costs_the_same_however_many_messages_wait(
    tmp_db: Path, answered: int
) -> None:
    """A group that the agent only listens to: neither the choice nor the write reads it."""
    read: list[int] = []
    async with sessiondb.open(tmp_db, durability="normal") as db:
        for waiting in (300, 3_000):
            session = await db.create_session()
            await session.append_many([QUESTION, ANSWER] * answered)
            for _ in range(waiting // 300):
                await session.append_many([QUESTION] * 300)
            session_no = session.ref.session_no

            def begin(tx: Any, session_no: int = session_no) -> int:
                counting = CountingTx(tx)
                with nullcontext() if answered else pytest.raises(NothingToCompact):
                    begin_in(
                        counting,
                        session_no,
                        trigger="threshold",
                        keep_recent_tokens=500,
                        timeout_ms=60_000,
                    )
                return sum(counting.rows.values())

            read.append(await db.write("begin", begin))
    assert read[0] == read[1] <= 2 * CUT_SCAN_ROWS_FIRST


CALL = {
    "role": "assistant",
    "content": [{"type": "toolCall", "id": "c1", "name": "read", "arguments": {}}],
    "stopReason": "toolUse",
}
RESULT = {"role": "toolResult", "toolCallId": "c1", "toolName": "read", "content": "x"}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "last", [[], [CALL], [CALL, RESULT], [QUESTION, CALL, RESULT, QUESTION]], ids=len
)
async def test_choosing_a_cut_takes_as_many_steps_however_many_messages_wait(
    tmp_db: Path, last: list[dict[str, Any]]
) -> None:
    """Also with answers before them, and while a turn is at work behind them."""
    took: list[tuple[int, int]] = []
    async with sessiondb.open(tmp_db, durability="normal") as db:
        for waiting in (300, 3_000):
            session = await db.create_session()
            await session.append_many([QUESTION, ANSWER] * 3)
            for _ in range(waiting // 300):
                await session.append_many([QUESTION] * 300)
            await session.append_many(last)

            def both(tx: Any, session_no: int = session.ref.session_no) -> tuple[int, int]:
                choose = partial(
                    compaction.choose,
                    tx,
                    session_no,
                    trigger="threshold",
                    keep_recent_tokens=500,
                )
                choose()  # prepared
                choosing, choice = counted(tx._connection, choose)
                begin = partial(compaction.begin, tx, choice, timeout_ms=60_000)
                beginning, job = counted(tx._connection, begin)
                assert job is not None
                return choosing, beginning

            took.append(await db.write("begin", both))
    (choose_few, begin_few), (choose_many, begin_many) = took
    assert 0 < choose_many <= choose_few + 20, f"{choose_few:,} and {choose_many:,} instructions"
    assert 0 < begin_many <= begin_few + 20, f"{begin_few:,} and {begin_many:,} instructions"


@pytest.mark.anyio
async def test_the_write_that_begins_a_compaction_reads_no_message(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session("agent:main:costs:1")
        await session.append_many([QUESTION, ANSWER] * 300)
        session_no = session.ref.session_no
        choice = await db.read(
            "choose",
            lambda tx: compaction.choose(
                tx, session_no, trigger="threshold", keep_recent_tokens=500
            ),
        )
        await session.append_many([QUESTION, ANSWER])  # the choice still holds

        def begin(tx: Any) -> dict[str, int]:
            counting = CountingTx(tx)
            job = compaction.begin(counting, choice, timeout_ms=60_000)
            assert job is not None
            return counting.rows

        assert await db.write("begin", begin) == {"compaction.recent": 0}


@pytest.mark.anyio
async def test_no_connection_prepares_a_statement_for_a_new_parameter(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db):
        connections = [
            connect_writer(str(tmp_db), "full", 1.0, is_new=lambda _: False, create=lambda _: None),
            connect_reader(str(tmp_db)),
            connect_visitor(str(tmp_db)),
        ]
        stable = [
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) for connection in connections
        ]
        for connection in connections:
            connection.close()
    assert stable == [1, 1, 1]


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    script = """if True:
        import os
        from sessiondb.transcript.entries import new_id
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.write(writer, new_id().encode())
            os._exit(0)
        os.wait()
        print(os.read(reader, 16).decode(), new_id())
    """
    child, parent = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(child) == len(parent) == 16
    assert child != parent


@pytest.mark.parametrize(
    "content", ["plain text", 'it says "message" and {"message": {"role": "user"}}', '"message":{']
)
def test_a_message_that_speaks_of_messages_is_still_a_message(content: str) -> None:
    """A text that could be an entry is decoded as one. That must not change what it is."""
    draft = draft_entry({"role": "user", "content": content}, now_ms=0)
    assert (draft.type, draft.role) == ("message", "user")


@pytest.mark.anyio
@pytest.mark.parametrize("encode", [dict, json.dumps], ids=["dict", "text"])
@pytest.mark.parametrize("chars", [20, 2 * LARGE_ITEM_CHARS], ids=["small", "large"])
async def test_a_handled_message_has_been_decoded_twice(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, encode: Callable[[Any], Any], chars: int
) -> None:
    """Once when it is accepted, once when it is claimed: under every name, and on every thread."""
    content = "counted " * (chars // 8)
    decoded: list[str] = []
    raw_decode = json.JSONDecoder.raw_decode

    def counting(self: json.JSONDecoder, s: str, idx: int = 0) -> Any:
        if content in s:
            decoded.append(s)
        return raw_decode(self, s, idx)

    handled: list[dict[str, Any]] = []

    async def handler(turn: sessiondb.Turn) -> None:
        handled.append(turn.message)
        group.cancel_scope.cancel()

    async with sessiondb.open(tmp_db) as db:
        monkeypatch.setattr(json.JSONDecoder, "raw_decode", counting)
        message = {"role": "user", "content": content}
        await db.accept("agent:main:costs:1", encode(message), channel="web", event_id="1")
        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "main", handler)
    assert handled == [message]
    assert len(decoded) == 2


# -- constant costs ----------------------------------------------------------------

NOW_MS = 1_800_000_000_000
ROWS = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < :rows) "
INSERT_SESSIONS = "INSERT INTO session (session_id, origin, version, created_at_ms, updated_at_ms) "
SESSIONS = ROWS + INSERT_SESSIONS + "SELECT 's' || i, 'native', 3, i, i FROM n"
INSERT_MESSAGES = (
    "INSERT INTO inbox (channel, event_id, session_no, lane, state, accepted_at_ms, "
    "available_at_ms, attempts, payload) "
)
# One message of each session has failed and waits for its retry.
MESSAGES_IN_RETRY = (
    ROWS
    + INSERT_MESSAGES
    + "SELECT 's', i, i, 'main', 'queued', :now_ms, :now_ms + 1 + i % 60000, 1, '{}' FROM n"
)
# Every message could run.
MESSAGES_READY = (
    ROWS
    + INSERT_MESSAGES
    + "SELECT 's', i, i, 'main', 'queued', :now_ms, :now_ms - i, 0, '{}' FROM n"
)
INSERT_REPLIES = (
    "INSERT INTO outbox (session_no, target, channel, state, attempts, created_at_ms, "
    "available_at_ms, payload) "
)
REPLIES_IN_RETRY = (
    ROWS
    + INSERT_REPLIES
    + "SELECT i, 't', 't', 'pending', 1, :now_ms, :now_ms + 1 + i % 60000, '{}' FROM n"
)
REPLIES_READY = (
    ROWS + INSERT_REPLIES + "SELECT i, 't', 't', 'pending', 1, :now_ms, :now_ms - i, '{}' FROM n"
)
# Sent long ago, and one that waits.
REPLIES_SENT = (
    ROWS
    + INSERT_REPLIES
    + "SELECT i, 't', 't', iif(i = 1, 'pending', 'sent'), 1, :now_ms, :now_ms - i, '{}' FROM n"
)
EVENTS = (
    ROWS
    + "INSERT INTO event (kind, audience, at_ms, text, data) "
    + "SELECT 'k', iif(i = 1, 'user', 'operator'), i, 'x', '{}' FROM n"
)
INSERT_FILES = "INSERT INTO import_file (path, name, kind, inode, imported_at_ms, state) "
FILES = ROWS + INSERT_FILES + "SELECT 'p' || i, 'n', 'live', '1:' || i, i, 'done' FROM n"


class Queue:
    """Messages that came by the rules, so their rows are what the rules make of them."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.number = 0
        connection.execute(
            "INSERT INTO instance (instance_no, host, boot_id, pid, pid_started, program, "
            "opened_at_ms) VALUES (1, 'h', 'b', 1, 1, 'p', 1)"
        ).fetchall()
        self.tx = transaction.WriteTransaction(connection, NOW_MS, 1)
        for lane, priority in (("new", -1), ("main", 0), ("wide", 5), ("cron", 10)):
            lanes.set_lane(self.tx, lane, 10**6, priority)

    def accept(self, session: object, lane: str = "main") -> None:
        self.number += 1
        key = parse_key(f"agent:main:web:{session}")
        text = '{"role": "user", "content": "x"}'
        inbox.accept(
            self.tx,
            inbox.Incoming("web", str(self.number), key, lane, text, "d", f"s-{session}"),
        )

    def claim(self, lane: str = "main") -> claims.Started:
        candidate = claims.peek(self.tx, lane, NOW_MS)
        assert candidate is not None
        draft = draft_entry({"role": "user", "content": "x"}, now_ms=NOW_MS)
        started = claims.claim(self.tx, lane, candidate, draft, lease_ms=9_000, timeout_ms=99_000)
        assert started is not None
        return started

    def reply(self, session: object, target: str) -> None:
        self.tx.run(
            "outbox.add",
            session_no=registry.open_by_key(
                self.tx, parse_key(f"agent:main:web:{session}"), session_id=f"s-{session}", cwd=None
            ).session_no,
            turn_no=None,
            target=target,
            now_ms=NOW_MS,
            reason=None,
            payload="{}",
        )

    def answer(self, turn: claims.Started) -> None:
        turns.complete(self.tx, turn.turn_no, [], [], incomplete=False, reason=None)


def waiting_behind_turns(queue: Queue, rows: int) -> None:
    """Let the sessions' turns run. In each, people, hooks and cron wait."""
    for number in range(rows):
        for lane in ("main", "main", "wide", "cron"):
            queue.accept(number, lane)
        queue.claim()


def waiting_for_retries(queue: Queue, rows: int) -> None:
    """Let the first message of each session wait for its retry, and the others for it."""
    waiting_behind_turns(queue, rows)
    for row in queue.tx.all("inbox.open", after_no=0, limit=10 * rows):
        if row.state == "claimed":
            turns.fail(queue.tx, row.turn_no, "no luck", retry=True)


def waiting_behind_a_lane(queue: Queue, rows: int) -> None:
    """Let cron wait for people in each session, because lane main has no room."""
    for number in range(rows):
        for lane in ("main", "cron", "wide"):
            queue.accept(number, lane)
    lanes.set_lane(queue.tx, "main", 1, 0)
    queue.claim()


def waiting_in_one_session(queue: Queue, rows: int) -> None:
    """Let one session have all messages, however many: the limit is not this test's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inbox, "SESSION_WAITING_MAX", 10**6)
        for _ in range(rows):
            for lane in ("main", "wide", "cron"):
                queue.accept("one", lane)
    queue.claim()


def after_interruptions(queue: Queue, rows: int) -> None:
    """Interrupt all turns: those behind may run, one of each session."""
    waiting_behind_turns(queue, rows)
    for row in queue.tx.all("inbox.open", after_no=0, limit=10 * rows):
        if row.state == "claimed":
            turns.interrupt(queue.tx, row.turn_no, "it died")


BLOCKED = [
    waiting_behind_turns,
    waiting_for_retries,
    waiting_behind_a_lane,
    waiting_in_one_session,
    after_interruptions,
]


def counted(connection: apsw.Connection, body: Callable[[], Any]) -> tuple[int, Any]:
    """Return how many instructions of SQLite's machine something takes, and what it returns."""
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    connection.set_progress_handler(count, 1)
    value = body()
    connection.set_progress_handler(None)
    return steps, value


def steps_beside(rows: int, block: Callable[[Queue, int], None]) -> dict[str, int]:
    """Return the instructions of a look, a claim and an end, beside messages that wait."""
    found: dict[str, int] = {}

    def measure(what: str, body: Callable[[], Any]) -> Any:
        found[what], value = counted(queue.connection, body)
        return value

    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(schema_text()).fetchall()
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        queue = Queue(connection)
        block(queue, rows)
        for _ in range(2):  # the first time prepares the statements
            measure("look", lambda: [claims.peek(queue.tx, lane, NOW_MS) for lane in LOOKED_AT])
            measure("accept", partial(queue.accept, "new", "new"))
            turn = measure("claim", partial(queue.claim, "new"))
            measure("end", partial(queue.answer, turn))
    return found


LOOKED_AT = ("main", "wide", "cron", "resume")


# An interrupted message of a session whose import had blank lines, and no damaged one.
BLANK_LINES = (
    INSERT_FILES
    + "VALUES ('p', 'n', 'live', '1:1', 1, 'done');"
    + "UPDATE import_file SET session_no = 1;"
    + ROWS
    + "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity, "
    + "content) SELECT 1, i, i, 0, 'blank', 'blank', zeroblob(100) FROM n;"
    + "INSERT INTO inbox (channel, event_id, session_no, lane, state, accepted_at_ms, "
    + "available_at_ms, attempts, payload) "
    + "VALUES ('s', 1, 1, 'main', 'interrupted', :now_ms, :now_ms, 1, '{}')"
)


def plan_of_resumes(tx: Any) -> object:
    [decision] = recovery.plan(tx, recovery.ResumePolicy(), NOW_MS)
    return decision


def look_of_lane(tx: Any) -> object:
    return (
        tx.one("inbox.due", lane="main", now_ms=NOW_MS),
        claims.peek(tx, "main", NOW_MS),
        claims.peek(tx, "resume", NOW_MS),
    )


def look_of_outbox(tx: Any, full: str = "[]") -> object:
    return tx.one("outbox.due", now_ms=NOW_MS, full=full), outbox.next_no(tx, NOW_MS, full)


def look_beside_a_full_channel(tx: Any) -> object:
    return look_of_outbox(tx, full='["t"]')


def steps_of(body: Callable[[Any], object], rows: int, *histories: str) -> int:
    """Return how many instructions of SQLite's machine rules take over a database of `rows`."""
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(schema_text()).fetchall()
        # As the engine's connections: the plan depends on no value.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        for history in (SESSIONS, *histories):
            connection.execute(
                history, {"rows": rows, "now_ms": NOW_MS}, can_cache=False
            ).fetchall()
        tx = transaction.Snapshot(connection)
        body(tx)  # prepared, and the schema is known
        connection.set_progress_handler(count, 1)
        body(tx)
        connection.set_progress_handler(None)
    return steps


# What a long life leaves: compactions, most of them long ago in vain, and imported files.
JOBS = (
    ROWS
    + "INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch, "
    + "tokens_before, begun_at_ms, deadline_ms, deadline_max_ms, finished_at_ms, in_vain) "
    + "SELECT 'c' || i, i, 'rejected', 't', 0, 1, 1, 1, 1, i, i % 2 FROM n;"
    + FILES
)
KEYS = (
    ROWS
    + "INSERT INTO binding (session_key, session_no, agent_id, bound_at_ms) "
    + "SELECT 'agent:main:web:' || i, i, 'main', 1 FROM n"
)


def status_of(tx: Any, *, counts: bool = False) -> object:
    return status.read_status(
        tx, path="p", wal_bytes=0, limits=Limits(), now_ms=NOW_MS, counts=counts
    )


ASKED: dict[str, tuple[Callable[[Any], object], str]] = {
    "status, sessions and keys": (status_of, KEYS),
    "status, compactions and files": (status_of, JOBS),
    "status, events": (status_of, EVENTS),
    "lane, in retry": (look_of_lane, MESSAGES_IN_RETRY),
    "lane, ready": (look_of_lane, MESSAGES_READY),
    "outbox, in retry": (look_of_outbox, REPLIES_IN_RETRY),
    "outbox, ready": (look_of_outbox, REPLIES_READY),
    "outbox, of a full channel": (look_beside_a_full_channel, REPLIES_READY),
    "outbox, sent": (look_of_outbox, REPLIES_SENT),
    "claim, replies sent": (lambda tx: claims.peek(tx, "main", NOW_MS), REPLIES_SENT),
    "events": (lambda tx: events.after(tx, event_no=1, audience="user"), EVENTS),
    "last events": (lambda tx: events.before_last(tx, count=1, audience="user"), EVENTS),
    "resumes, blank lines": (plan_of_resumes, BLANK_LINES),
    "files": (lambda tx: tx.all("import_file.by_inode", inodes='["1:7"]'), FILES),
}


@pytest.mark.parametrize("what", ASKED)
def test_the_queries_of_loops_cost_the_same_with_more_rows(
    what: str,
) -> None:
    body, history = ASKED[what]
    few, many = steps_of(body, 300, history), steps_of(body, 3_000, history)
    assert 0 < many <= few + 20, f"{few:,} instructions with 300 rows, {many:,} with 3,000"


def test_what_a_status_counts_only_when_asked_is_what_costs() -> None:
    """The test above would not fail if the counts were not there at all."""
    few, many = (steps_of(partial(status_of, counts=True), rows, KEYS) for rows in (300, 3_000))
    assert many > 5 * few / 2


def waiting_for_one_reply(queue: Queue, rows: int) -> None:
    """Let one session have all replies to a channel. The first is being sent."""
    for _ in range(rows):
        queue.reply("broadcast", "mail:1")
    assert outbox.begin_sending(queue.tx, lease_ms=9_000) is not None


def waiting_for_a_dead_channel(queue: Queue, rows: int) -> None:
    """Let each session have replies to a channel that refuses the first of them."""
    for number in range(rows):
        for _ in range(3):
            queue.reply(number, "mail:1")
        taken = outbox.begin_sending(queue.tx, lease_ms=9_000)
        assert taken is not None
        outbox.refused(queue.tx, taken, "down", retry=True)


def waiting_behind_lost_replies(queue: Queue, rows: int) -> None:
    """Let each session have replies whose first is unknown: the next may be sent."""
    for number in range(rows):
        for _ in range(3):
            queue.reply(number, "mail:1")
    for _ in range(rows):
        taken = outbox.begin_sending(queue.tx, lease_ms=9_000)
        assert taken is not None
        outbox.lost(queue.tx, taken, "no answer")


def steps_of_sending(rows: int, block: Callable[[Queue, int], None]) -> dict[str, int]:
    """Return the instructions of a look, a begin and an end, beside replies that wait."""
    found: dict[str, int] = {}
    with closing(apsw.Connection(":memory:")) as connection:
        connection.execute(schema_text()).fetchall()
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        queue = Queue(connection)
        block(queue, rows)
        for _ in range(2):  # the first time prepares the statements
            body = partial(outbox.peek, queue.tx, NOW_MS, '["mail"]')
            found["look"], _seen = counted(connection, body)
            found["add"], _ = counted(connection, partial(queue.reply, "live", "web:1"))
            body = partial(outbox.begin_sending, queue.tx, lease_ms=9_000, full=["mail"])
            found["begin"], taken = counted(connection, body)
            found["end"], _ = counted(connection, partial(outbox.sent, queue.tx, taken, None))
    return found


@pytest.mark.parametrize(
    "block", [waiting_for_one_reply, waiting_for_a_dead_channel, waiting_behind_lost_replies]
)
def test_replies_that_wait_for_others_cost_a_look_and_a_call_nothing(
    block: Callable[[Queue, int], None],
) -> None:
    few, many = steps_of_sending(10, block), steps_of_sending(400, block)
    for what in few:
        assert 0 < many[what] <= few[what] + 40, f"{what}: {few[what]:,}, then {many[what]:,}"


@pytest.mark.parametrize("block", BLOCKED)
def test_messages_that_wait_for_others_cost_a_look_and_a_claim_nothing(
    block: Callable[[Queue, int], None],
) -> None:
    few, many = steps_beside(10, block), steps_beside(80, block)
    assert few.keys() == many.keys()
    for what in few:
        # A look counts the turns that its lane runs: some steps for each.
        turns_more = 3 * 70 if what == "look" and block is waiting_behind_turns else 0
        assert 0 < many[what] <= few[what] + 40 + turns_more, (
            f"{what}: {few[what]:,}, then {many[what]:,}"
        )


@pytest.mark.parametrize("waiting", [REPLIES_IN_RETRY, REPLIES_READY], ids=["retry", "ready"])
def test_a_full_channel_is_recognised_by_reading_its_limit_only(waiting: str) -> None:
    def full(tx: Any) -> object:
        return tx.first("channels.full", channel="t", fewer=OUTBOX_WAITING_MAX // 100)

    assert steps_of(full, 3_000, waiting) == steps_of(full, 300, waiting)


def test_a_channel_that_is_not_full_does_not_pay_for_one_that_is() -> None:
    def full(tx: Any) -> object:
        return tx.first("channels.full", channel="other", fewer=OUTBOX_WAITING_MAX - 1)

    assert steps_of(full, 3_000, REPLIES_READY) == steps_of(full, 300, REPLIES_READY)

"""A gateway's work: accepting, claiming, completing, and a start.

Messages are settled between blocks, outside the measured time, so that every block
finds a lane of the same length.
"""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from floor import Raw
from measure import (
    ASSISTANT_MESSAGE,
    ENTRY_PAYLOAD,
    USER_MESSAGE,
    Bench,
    latencies,
    percentile,
    running,
    size,
)

import sessiondb
from sessiondb import SessionDB
from sessiondb.backend import Tx
from sessiondb.clock import now_ms, stamp_ms
from sessiondb.gateway import claims, outbox, turns
from sessiondb.maintenance.retention import RetentionPolicy
from sessiondb.transcript import append, registry
from sessiondb.transcript.entries import prepare

CONVERSATIONS = 64
# A conversation takes at most 100 messages that wait, a lane 10,000.
MESSAGES = size(200, 20)
SUMMARISER_S = 0.5
LOAD_S = 10.0
NEWS = [USER_MESSAGE, {"role": "assistant", "content": "noted"}] * 10
REPLY = json.dumps({"text": "noted"})

_events = count(1)


def test_accepting_beside_a_raw_transaction(bench: Bench, raw: Raw, db: SessionDB) -> None:
    """The floor is one row in one durable transaction.

    An accept looks for a duplicate, counts what waits, and inserts.
    """

    async def ours() -> list[float]:
        accept = _accepting(db)
        samples = await latencies(accept, MESSAGES)
        await _settle(db)
        return samples

    bench.run(_open_conversations(db))
    pairs = bench.rounds(lambda: latencies(lambda: raw.append(ENTRY_PAYLOAD), MESSAGES), ours, 20)
    bench.say("accept, one caller, p50", _at(pairs, 0.5), unit="us")
    bench.say("accept, one caller, p99", _at(pairs, 0.99), unit="us")


def test_accepting_into_a_long_lane(bench: Bench, db: SessionDB) -> None:
    """The floor is the same in an empty lane: the limit of a lane is counted at every accept."""
    waiting = size(5_000, 40)

    async def ours() -> list[float]:
        accept = _accepting(db)
        for _ in range(waiting):
            await accept()
        samples = await latencies(accept, MESSAGES)
        await _settle(db)
        return samples

    async def floor() -> list[float]:
        samples = await latencies(_accepting(db), MESSAGES)
        await _settle(db)
        return samples

    bench.run(_open_conversations(db))
    bench.say(
        f"accept with {waiting:,} waiting to none, p50",
        _at(bench.rounds(floor, ours, 3), 0.5),
        unit="us",
    )


def test_claiming_and_completing_beside_a_raw_transaction(
    bench: Bench, raw: Raw, db: SessionDB
) -> None:
    """A claim appends the message and begins the turn.

    Completing appends the answer, a reply and the turn's end.
    """
    took: dict[str, list[float]] = {}

    async def ours() -> dict[str, list[float]]:
        accept = _accepting(db)
        for _ in range(MESSAGES):
            await accept()
        took.update(claim=[], complete=[])
        for _ in range(MESSAGES):
            began = perf_counter()
            turn = await _claim(db)
            claimed = perf_counter()
            await _complete(db, turn)
            took["claim"].append((claimed - began) * 1e6)
            took["complete"].append((perf_counter() - claimed) * 1e6)
        return dict(took)

    bench.run(_open_conversations(db))
    pairs = bench.rounds(lambda: latencies(lambda: raw.append(ENTRY_PAYLOAD), MESSAGES), ours, 15)
    for what in ("claim", "complete"):
        bench.say(
            f"{what}, one caller, p50",
            [(percentile(floor, 0.5), percentile(done[what], 0.5)) for floor, done in pairs],
            unit="us",
        )


@pytest.mark.parametrize("kind", ["a hundred a session", "behind turns", "behind a lane"])
def test_messages_that_wait_for_others_cost_a_look_and_a_claim_nothing(
    bench: Bench, db: SessionDB, tmp_path: Path, kind: str
) -> None:
    """The floor is the same beside an empty queue, in a database of its own.

    A look of each lane, as each loop makes one after every commit, and a claim with its end.
    """
    waiting = size(10_000, 40)
    path = tmp_path / "waiting.db"

    async def measured(of: SessionDB) -> dict[str, list[float]]:
        took: dict[str, list[float]] = {"look": [], "claim": []}
        for number in range(size(200, 5)):
            began = perf_counter()
            for lane in ("main", "cron", "resume"):
                await of.read("bench.look", partial(claims.peek, lane=lane, now_ms=now_ms()))
            took["look"].append((perf_counter() - began) * 1e6)
            await of.accept(
                _key(number),
                USER_MESSAGE,
                channel="bench",
                event_id=f"new {next(_events)}",
                lane="new",
            )
            began = perf_counter()
            turn = await _claim(of, "new")
            took["claim"].append((perf_counter() - began) * 1e6)
            await _complete(of, turn)
            await of.write("bench.sent", _send_all)
        return took

    async def fill() -> None:
        for of in (db, full):
            await of.set_lane("new", concurrency=4, priority=-1)
            await of.set_lane("wide", concurrency=20_000, priority=1)
        await _fill(full, kind, waiting)

    full = bench.run(_opened(path))
    bench.run(fill())
    pairs = bench.rounds(lambda: measured(db), lambda: measured(full), 10)
    bench.run(full.close())
    for what in ("look", "claim"):
        bench.say(
            f"{what}, {waiting:,} waiting {kind} to none, p50",
            [(percentile(a[what], 0.5), percentile(b[what], 0.5)) for a, b in pairs],
            unit="us",
            target="<= 1.5",
        )


def test_replies_that_wait_for_others_cost_a_look_nothing(
    bench: Bench, db: SessionDB, tmp_path: Path
) -> None:
    """A channel that hangs has 9,000 replies of one session. Another one is looked at."""
    waiting = size(9_000, 40)

    async def looks(of: SessionDB) -> list[float]:
        look = partial(outbox.peek, now_ms=now_ms(), closed='["mail"]')
        return await latencies(lambda: of.read("bench.look", look), size(500, 20))

    async def fill() -> None:
        session = await full.session(_key(0))
        for start in range(0, waiting, 500):
            add = partial(
                _reply_to, session_no=session.ref.session_no, count=min(500, waiting - start)
            )
            await full.write("bench.fill", add)
        await full.write("bench.begin", partial(outbox.begin_sending, lease_ms=600_000))

    full = bench.run(_opened(tmp_path / "replies.db"))
    bench.run(fill())
    pairs = bench.rounds(lambda: looks(db), lambda: looks(full), 10)
    bench.run(full.close())
    bench.say(
        f"look for replies, {waiting:,} waiting to none, p50",
        _at(pairs, 0.5),
        unit="us",
        target="<= 1.5",
    )


def test_a_running_compaction_does_not_slow_accepting(bench: Bench, db: SessionDB) -> None:
    """Measure the floor: the same messages accepted, without a compaction.

    The same events arrive in the other session.
    """
    other = bench.run(db.session("agent:main:bench:compacts"))
    accepts = size(2_000, 30)

    async def feed() -> None:
        while True:
            await other.append_many(NEWS)
            await asyncio.sleep(SUMMARISER_S)

    async def feed_and_compact() -> None:
        while True:
            await other.append_many(NEWS)
            async with other.compact(trigger="threshold", keep_recent_tokens=500) as job:
                await asyncio.sleep(SUMMARISER_S)
                await job.commit("A short summary of what was said so far.")

    async def beside(work: Callable[[], Coroutine[Any, Any, None]]) -> list[float]:
        async with running(work()):
            samples = await latencies(_accepting(db), accepts)
        await _settle(db)
        return samples

    bench.run(_open_conversations(db))
    pairs = bench.rounds(lambda: beside(feed), lambda: beside(feed_and_compact), 8)
    bench.say("accept p99 while a session compacts", _at(pairs, 0.99), unit="us", target="<= 1.5")


def test_an_import_does_not_slow_accepting(
    bench: Bench, db: SessionDB, folders: Iterator[Path]
) -> None:
    """Measure the floor: the same messages accepted, without a compaction.

    The same events arrive in the other session.
    """

    async def ours() -> list[float]:
        samples = await _accept_during(db, db.import_path(next(folders)))
        await _settle(db)
        return samples

    bench.run(_open_conversations(db))
    pairs = bench.rounds(lambda: _idle(db), ours, 3)
    bench.say("accept p99 during an import", _at(pairs, 0.99), unit="us", target="<= 1.5")
    bench.say("accept p50 during an import", _at(pairs, 0.5), unit="us")


def test_a_backup_does_not_slow_accepting(bench: Bench, tmp_path: Path) -> None:
    """Measure the floor: the same messages accepted, without a compaction.

    The same events arrive in the other session.

    Callers come and go as they do beside retention.
    """
    entries = size(100_000, 300)
    rounds = count(1)
    path = tmp_path / "backup.db"

    async def build() -> None:
        async with sessiondb.open(path, durability="normal") as db:
            await _build_session(await db.session("agent:main:bench:long"), entries)
            await _open_conversations(db)

    async def ours() -> tuple[list[float], list[float]]:
        copy = tmp_path / f"copy-{next(rounds)}.db"
        async with sessiondb.open(path) as db:
            idle = await _idle(db)
            samples = await _accept_during(db, db.backup(copy), load_s=LOAD_S)
        copy.unlink()
        return idle, samples

    bench.run(build())
    both = [ours for _, ours in bench.rounds(_nothing, ours, 3)]
    bench.say(
        f"accept p99 during a backup of {entries:,} entries",
        _at(both, 0.99),
        unit="us",
        target="<= 1.5",
    )


def test_retention_does_not_slow_accepting(bench: Bench, tmp_path: Path) -> None:
    """Measure the floor: the same messages accepted, without a compaction.

    The same events arrive in the other session.

    One long session is archived: written, compared, deleted.

    Callers come for LOAD_S without a gap, then leave it alone for as long: its steps
    are paced beside them, and each phase of it meets them. Without the gaps a million
    entries would take a quarter of an hour.
    """
    entries = size(1_000_000, 300)
    everything = RetentionPolicy(max_age_days=0, idle_days=0)
    rounds = count(1)
    longest: list[float] = []

    async def ours() -> tuple[list[float], list[float]]:
        path = tmp_path / f"retention-{next(rounds)}.db"
        async with sessiondb.open(path, durability="normal") as db:
            await _build_session(await db.session("agent:main:bench:long"), entries)
        async with sessiondb.open(path) as db:
            await _open_conversations(db)
            idle = await _idle(db)
            samples = await _accept_during(db, db.gc(everything), load_s=LOAD_S)
            longest.append((await db.stats())["writer"]["step_ms_longest"])
            assert (await db.status(counts=True)).entries == entries, (
                "the session's own row stays, and says how many it had"
            )
        path.unlink()
        return idle, samples

    both = [ours for _, ours in bench.rounds(_nothing, ours, 1)]
    bench.say(
        f"accept p99 during retention of {entries:,} entries",
        _at(both, 0.99),
        unit="us",
        target="<= 1.5",
    )
    bench.say(f"accept p50 during retention of {entries:,} entries", _at(both, 0.5), unit="us")
    bench.say(
        "retention's longest transaction, to its bound",
        [(25.0, milliseconds) for milliseconds in longest],
        unit="ms",
        target="<= 1",
    )


def test_a_start_costs_the_same_whatever_the_number_of_entries(
    bench: Bench, tmp_path: Path
) -> None:
    """Open, recover and plan beside 100,000 sessions of five entries.

    As many sessions have no entries. Some messages were interrupted.
    """
    many, interrupted = size(100_000, 50), size(100, 10)
    paths = {entries: tmp_path / f"start-{entries}.db" for entries in (0, 5)}
    for entries, path in paths.items():
        bench.run(_build_start(path, many, entries, interrupted))

    async def start(entries: int) -> float:
        began = perf_counter()
        async with sessiondb.open(paths[entries]) as db:
            await db.recover()
            plan = await db.plan_resumes()
            took_ms = (perf_counter() - began) * 1000
        assert len(plan) == interrupted
        return took_ms

    pairs = bench.rounds(lambda: start(0), lambda: start(5), 10)
    bench.say(
        f"open, recover, plan: {many:,} sessions, with entries to without",
        pairs,
        unit="ms",
        target="<= 1.5",
    )


def test_recovering_costs_the_same_however_many_processes_have_died(
    bench: Bench, tmp_path: Path
) -> None:
    """Recover and plan, as `run_recovery` does every few seconds, beside 10,000 dead processes.

    Each was a container under a host name of its own. The first recovery has closed their
    registrations, and is not measured.
    """
    died = size(10_000, 100)
    paths = {dead: tmp_path / f"died-{dead}.db" for dead in (1, died)}
    for dead, path in paths.items():
        bench.run(_build_died(path, dead))

    async def tick(dead: int) -> float:
        async with sessiondb.open(paths[dead]) as db:
            began = perf_counter()
            recovered = await db.recover()
            await db.plan_resumes()
            took_ms = (perf_counter() - began) * 1000
        assert recovered == sessiondb.Recovered()
        return took_ms

    pairs = bench.rounds(lambda: tick(1), lambda: tick(died), 15)
    bench.say(
        f"recover and plan: {died:,} dead processes to one", pairs, unit="ms", target="<= 1.5"
    )


# -- what is measured ------------------------------------------------------------------


def _key(number: int) -> str:
    return f"agent:main:bench:{number % CONVERSATIONS}"


def _at(pairs: list[tuple[list[float], list[float]]], share: float) -> list[tuple[float, float]]:
    return [(percentile(floor, share), percentile(ours, share)) for floor, ours in pairs]


def _accepting(db: SessionDB) -> Callable[[], Coroutine[Any, Any, Any]]:
    """Return what accepts one message more, of the next conversation."""

    def accept() -> Coroutine[Any, Any, Any]:
        number = next(_events)
        return db.accept(_key(number), USER_MESSAGE, channel="bench", event_id=str(number))

    return accept


async def _build_died(path: Path, dead: int) -> None:
    """Make a database with the registrations of dead processes, and recover."""
    async with sessiondb.open(path) as db:

        def die(tx: Tx) -> None:
            for number in range(dead):
                tx.one(
                    "instance.insert",
                    host=f"pod-{number}",
                    boot_id="the start before",
                    pid=1,
                    pid_started=number,
                    program="gateway",
                    opened_at_ms=1,
                )

        await db.write("die", die)
        assert (await db.recover()).instances == dead


async def _nothing() -> None:
    """The floor of a benchmark whose blocks bring their own."""


async def _idle(db: SessionDB) -> list[float]:
    """Accept messages while nothing else is done.

    They are settled as `_accept_during` settles them, because that fills the WAL, too.
    """
    accept, samples = _accepting(db), list[float]()
    while len(samples) < size(4_000, 20):
        samples += await latencies(accept, size(100, 20))
        await _settle(db)
    return samples


async def _accept_during(
    db: SessionDB, work: Awaitable[Any], *, load_s: float = math.inf
) -> list[float]:
    """Accept messages for as long as something runs, or for `load_s` of every two.

    Settle them, so that the lane stays short.
    """
    task, accept, samples = asyncio.ensure_future(work), _accepting(db), list[float]()
    while not task.done():
        until = perf_counter() + load_s
        while not task.done() and perf_counter() < until:
            samples += await latencies(accept, 100)
            await _settle(db)
        await asyncio.wait([task], timeout=load_s if load_s < math.inf else 0)
    await task
    return samples


async def _settle(db: SessionDB) -> None:
    """Give up everything that waits, in transactions of a few rows."""

    def settle(tx: Tx) -> int:
        rows = tx.all("inbox.open", after_no=0, limit=200)
        for row in rows:
            tx.run("inbox.dead_letter", inbox_no=row.inbox_no, reason="settled", told_no=0)
            tx.run("inbox.drop", inbox_no=row.inbox_no)
        return len(rows)

    while await db.write("bench.settle", settle):
        pass


async def _opened(path: Path) -> SessionDB:
    return await sessiondb.open(path).__aenter__()


async def _fill(db: SessionDB, kind: str, waiting: int) -> None:
    """Accept messages that wait for others. A session has at most 100 of a lane."""
    lanes = {
        "a hundred a session": ("wide",) * 100 + ("cron",) * 100,
        "behind turns": ("wide",) * 5,
        "behind a lane": ("wide",) + ("cron",) * 4,
    }[kind]
    for start in range(0, waiting, len(lanes)):
        for place, lane in enumerate(lanes):
            key = f"agent:main:bench:waits:{start}"
            await db.accept(
                key, USER_MESSAGE, channel="bench", event_id=f"w{start + place}", lane=lane
            )
        if kind != "behind a lane":
            await _claim(db, "wide")
    if kind == "behind a lane":
        await db.set_lane("wide", concurrency=1, priority=1)
        await _claim(db, "wide")


def _reply_to(tx: Tx, *, session_no: int, count: int) -> None:
    for _ in range(count):
        tx.run(
            "outbox.add",
            session_no=session_no,
            turn_no=None,
            target="mail:1",
            now_ms=tx.now_ms,
            reason=None,
            payload=REPLY,
        )


def _send_all(tx: Tx) -> None:
    while (reply := outbox.begin_sending(tx, lease_ms=30_000)) is not None:
        outbox.sent(tx, reply, None)


async def _claim(db: SessionDB, lane: str = "main") -> int:
    """Claim the next message as `run_lane` does. Return the turn."""
    candidate = await db.read("bench.peek", lambda tx: claims.peek(tx, lane, 2**62))
    assert candidate is not None
    draft = await prepare(candidate.payload, now_ms=stamp_ms())
    started = await db.write(
        "bench.claim",
        lambda tx: claims.claim(tx, lane, candidate, draft, lease_ms=30_000, timeout_ms=600_000),
    )
    assert started is not None
    return started.turn_no


async def _complete(db: SessionDB, turn_no: int) -> None:
    draft = await prepare(ASSISTANT_MESSAGE, now_ms=stamp_ms())
    replies = [("bench", REPLY)]
    await db.write(
        "bench.complete",
        lambda tx: turns.complete(tx, turn_no, [draft], replies, incomplete=False, reason=None),
    )


# -- what it is measured on ------------------------------------------------------------


async def _open_conversations(db: SessionDB) -> None:
    for number in range(CONVERSATIONS):
        await (await db.session(_key(number))).pin()  # whatever retention does beside them


async def _build_session(session: sessiondb.Session, entries: int) -> None:
    for start in range(0, entries, 500):
        await session.append_many(
            [
                USER_MESSAGE if number % 2 == 0 else ASSISTANT_MESSAGE
                for number in range(min(500, entries - start))
            ]
        )


async def _build_start(path: Path, many: int, entries: int, interrupted: int) -> None:
    """Make sessions with some entries each, and interrupted messages in a few of them."""
    per_transaction = 100

    def create(drafts: list[list[Any]], first: int, tx: Tx) -> None:
        for number, own in enumerate(drafts, first):
            ref = registry.create(tx, f"session-{number}")
            if own:
                append.append(tx, ref.session_no, own)

    async with sessiondb.open(path, durability="normal") as db:
        for first in range(0, many, per_transaction):
            drafts = [
                [await prepare(NEWS[entry % 2], now_ms=stamp_ms()) for entry in range(entries)]
                for _ in range(min(per_transaction, many - first))
            ]
            await db.write("bench.create", partial(create, drafts, first))
        await db.set_lane("main", concurrency=interrupted, priority=0)
        for number in range(interrupted):
            await db.accept(
                f"agent:main:start:{number}",
                USER_MESSAGE,
                channel="bench",
                event_id=f"start-{number}",
            )
            turn_no = await _claim(db)
            await db.write("bench.interrupt", partial(_interrupt, turn_no))


def _interrupt(turn_no: int, tx: Tx) -> None:
    turns.interrupt(tx, turn_no, "its process died")


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """Folders of transcripts to import, each with others in it, made when they are asked for."""

    def make() -> Iterator[Path]:
        for folder in count():
            created = tmp_path / f"transcripts-{folder}"
            created.mkdir()
            for number in range(2):
                _write_transcript(
                    created, f"{folder:08d}-0000-4000-8000-{number:012d}", size(1_000, 20)
                )
            yield created
            shutil.rmtree(created)

    return make()


def _write_transcript(folder: Path, session_id: str, entries: int) -> None:
    header = {
        "type": "session",
        "version": 3,
        "id": session_id,
        "timestamp": "2026-01-01T00:00:00.000Z",
        "cwd": "/work",
    }
    lines: list[dict[str, Any]] = [header]
    for number in range(entries):
        parent = f"{number - 1:08x}" if number else None
        entry = {
            "type": "message",
            "id": f"{number:08x}",
            "parentId": parent,
            "timestamp": "2026-01-01T00:00:01.000Z",
        }
        lines.append({**entry, "message": USER_MESSAGE if number % 2 == 0 else ASSISTANT_MESSAGE})
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (folder / f"2026-01-01T00-00-00-000Z_{session_id}.jsonl").write_text(text, encoding="utf-8")

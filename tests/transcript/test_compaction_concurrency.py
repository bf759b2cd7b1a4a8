"""Appends, compactions and processes at once: no wait for a summariser, no loss, no repetition.

A summariser "sleeps" on an event, never on a clock. The outcome is compared: every message that
was accepted is in the span of a committed summary or in the context, once, and in order.
"""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb.errors import CompactionRunning, NothingToCompact, StoreBusy
from sessiondb.limits import CUT_CHOICES_MAX
from tests.support.core import reply, texts, user
from tests.support.engine import PATIENCE_S, other_process

pytestmark = pytest.mark.anyio

PAD = 60


async def say(session: sessiondb.Session, *numbers: int) -> None:
    """Append a question and its answer for each number."""
    for number in numbers:
        await session.append(user(f"q{number}".ljust(PAD)))
        await session.append(reply(f"a{number}".ljust(PAD)))


async def seen(session: sessiondb.Session) -> list[str]:
    return [text.strip() for text in texts(await session.context())]


def said(*numbers: int) -> list[str]:
    return [f"{who}{number}" for number in numbers for who in "qa"]


async def test_appends_proceed_while_a_summariser_sleeps(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.create_session()
        await say(session, *range(10))
        asleep, awake = anyio.Event(), anyio.Event()

        async def compact() -> None:
            async with session.compact(trigger="threshold", keep_recent_tokens=30) as job:
                asleep.set()
                await awake.wait()
                assert (await job.commit("S")).outcome == "committed"

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(compact)
                await asleep.wait()
                await say(session, *range(10, 60))  # returns although nobody wakes the summariser
                assert await seen(session) == said(*range(60))
                assert [job.state async for job in db.compactions(session)] == ["running"]
                awake.set()
        assert await seen(session) == ["<S>", *said(*range(9, 60))]
        assert (await db.verify()).findings == ()


async def test_sessions_that_compact_at_once_do_not_wait(tmp_db: Path) -> None:
    """Every summariser sleeps until all do. If one held what another needs, this would not end."""
    many = 40
    async with sessiondb.open(tmp_db, guard=False) as db:
        sessions = [await db.session(f"agent:main:test:channel:{number}") for number in range(many)]
        asleep, awake = 0, anyio.Event()

        async def live(session: sessiondb.Session) -> None:
            nonlocal asleep
            await say(session, 0, 1, 2)
            async with session.compact(trigger="threshold", keep_recent_tokens=30) as job:
                asleep += 1
                if asleep == many:
                    awake.set()
                await awake.wait()
                await say(session, 3)
                assert (await job.commit("S")).outcome == "committed"
            await say(session, 4)

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for session in sessions:
                    tasks.start_soon(live, session)
        for session in sessions:
            assert await seen(session) == ["<S>", *said(2, 3, 4)]
        assert (await db.verify()).findings == ()


async def test_of_many_that_begin_at_once_exactly_one_runs(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.create_session()
        await say(session, *range(4))
        refused: list[str] = []
        committed: list[str] = []
        done = anyio.Event()

        async def compact() -> None:
            try:
                async with session.compact(trigger="threshold", keep_recent_tokens=30) as job:
                    await done.wait()
                    committed.append((await job.commit("S")).compaction_id)
            except CompactionRunning as running:
                refused.append(running.compaction_id)
                if len(refused) == 19:
                    done.set()

        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(compact)
        assert len(committed) == 1
        assert set(refused) == set(committed), "everyone was told who runs"
        assert [job.state async for job in db.compactions(session)] == ["committed"]


async def test_one_id_committed_by_many_at_once_has_one_result(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.create_session()
        await say(session, *range(4))
        results: list[sessiondb.CompactionResult] = []
        async with session.compact(trigger="threshold", keep_recent_tokens=30) as job:

            async def commit(number: int) -> None:
                results.append(await db.commit_compaction(job.id, f"S{number}"))

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(commit, number)
        assert len(set(results)) == 1
        assert results[0].outcome == "committed"
        info = await session.info()
        assert (info.epoch, info.compactions, info.entries) == (1, 1, 9)
        assert [job.state async for job in db.compactions(session)] == ["committed"], (
            "the block saw that it was committed elsewhere"
        )


# -- interleavings ---------------------------------------------------------------------


class Ledger:
    """What was accepted, and what committed summaries cover, by epoch."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.spans: dict[int, list[str]] = {}
        self.outcomes: Counter[str] = Counter()


async def _yield(steps: int) -> None:
    for _ in range(steps):
        await anyio.lowlevel.checkpoint()


async def _appender(
    session: sessiondb.Session, who: int, pauses: list[int], ledger: Ledger
) -> None:
    for number, pause in enumerate(pauses):
        await _yield(pause)
        text = f"{who}.{number}"
        role = user if number % 2 == 0 else reply
        receipt = await session.append(role(text.ljust(PAD)), idempotency_key=text)
        again = await session.append(role(text.ljust(PAD)), idempotency_key=text)
        assert again.duplicate
        assert again.entry_no == receipt.entry_no
        ledger.accepted.append(text)


async def _compactor(
    session: sessiondb.Session, plan: list[tuple[int, int, str]], ledger: Ledger
) -> None:
    for pause, keep, fate in plan:
        await _yield(pause)
        job = session.compact(trigger="manual", keep_recent_tokens=keep)
        try:
            async with job:
                span = _span(job)
                await _yield(pause)
                if fate == "in time":
                    await job.commit("S")
        except (CompactionRunning, NothingToCompact):
            continue
        if fate == "late":
            await _yield(pause * 2)
        if fate != "never":
            result = await session.db.commit_compaction(job.id, "S")  # the second time, or late
            ledger.outcomes[f"{result.outcome}{' late' if result.late else ''}"] += 1
            if result.outcome == "committed":
                ledger.spans[result.epoch] = span


def _span(job: sessiondb.CompactionJob) -> list[str]:
    """Return the messages that a job summarises, a previous summary left out."""
    if job.keeps_all:
        return []  # they are shown to the summariser, and all of them stay
    found = []
    for item in job.messages:
        if item["role"] != "compactionSummary":
            content = item["content"]
            found.append((content if isinstance(content, str) else content[0]["text"]).strip())
    return found


async def _interleave(path: Path, seed: int, appenders: int, compactors: int) -> Ledger:
    chance, ledger = random.Random(seed), Ledger()
    async with sessiondb.open(path, durability="normal", guard=False) as db:
        session = await db.create_session()
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as tasks:
                for who in range(appenders):
                    tasks.start_soon(
                        _appender, session, who, [chance.randrange(6) for _ in range(12)], ledger
                    )
                for _ in range(compactors):
                    plan = [
                        (
                            chance.randrange(1, 30),
                            chance.choice([0, 20, 40, 90]),
                            chance.choice(["in time", "in time", "late", "never"]),
                        )
                        for _ in range(8)
                    ]
                    tasks.start_soon(_compactor, session, plan, ledger)
        assert (await db.verify()).findings == ()
        arrivals = [
            entry for entry in await session.all_entries(limit=1000) if entry.type == "message"
        ]
        in_order = [entry.idempotency_key for entry in arrivals]
        assert sorted(str(key) for key in in_order) == sorted(ledger.accepted), (
            "accepted and stored, each once"
        )
        for who in range(appenders):
            assert [key for key in in_order if str(key).startswith(f"{who}.")] == [
                f"{who}.{number}" for number in range(12)
            ]
        # A summary covers the span of the one before it and then its own. The two may overlap: an
        # overtaken job had read from further back. All it covers is a prefix of the messages.
        covered: list[Any] = []
        for epoch in sorted(ledger.spans):
            span = ledger.spans[epoch]
            covered = (
                in_order[: max(len(covered), in_order.index(span[-1]) + 1)] if span else covered
            )
            assert (
                not span or span == in_order[in_order.index(span[0]) : in_order.index(span[-1]) + 1]
            ), "a span has no gap"
        context = await seen(session)
        present = [text for text in context if text != "<S>"]
        assert covered + present == in_order, "summarised or present, once, and in order"
        info = await session.info()
        assert info.epoch == info.compactions == len(ledger.spans)
        assert [job.state async for job in db.compactions(session) if job.state == "running"] == []
    return ledger


@pytest.mark.slow
def test_any_interleaving_loses_and_repeats_nothing(
    anyio_backend_name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outcomes: Counter[str] = Counter()

    @settings(max_examples=25)
    @given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 4))
    def check(seed: int, appenders: int, compactors: int) -> None:
        path = tmp_path_factory.mktemp("interleave") / "gateway.db"
        outcomes.update(
            anyio.run(
                _interleave, path, seed, appenders, compactors, backend=anyio_backend_name
            ).outcomes
        )

    check()
    assert outcomes["committed"] > 20, outcomes
    assert outcomes["committed late"] > 0, outcomes


# -- two processes ---------------------------------------------------------------------

CHILD = """
import sys, anyio, sessiondb
from sessiondb.errors import CompactionRunning, NothingToCompact

path, session_id, who, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
story = {"committed": 0, "superseded": 0, "rejected": 0, "refused": 0}

async def append(session):
    for number in range(count):
        role = "user" if number % 2 == 0 else "assistant"
        text = f"{who}.{number}"
        content = text.ljust(60)
        if role == "assistant":
            content = [{"type": "text", "text": content}]
        await session.append({"role": role, "content": content}, idempotency_key=text)

async def compact(session):
    for _ in range(count):
        try:
            async with session.compact(trigger="threshold", keep_recent_tokens=60) as job:
                await anyio.sleep(0)
                result = await job.commit("S")
            story[result.outcome] += 1
        except (CompactionRunning, NothingToCompact):
            story["refused"] += 1

async def main():
    async with sessiondb.open(path, guard=False, program=who) as db:
        session = await db.session_by_id(session_id)
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(append, session)
            tasks.start_soon(compact, session)
    print(story["committed"], story["superseded"], story["rejected"], flush=True)

anyio.run(main, backend=sys.argv[5])
"""


@pytest.mark.slow
async def test_two_processes_append_and_compact_one_session_and_agree(
    tmp_db: Path, anyio_backend_name: str
) -> None:
    count = 40
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.create_session()
        with ExitStack() as stack:
            arguments = (tmp_db, session.id)
            children = [
                stack.enter_context(
                    other_process(CHILD, *arguments, who, count, anyio_backend_name)
                )
                for who in ("left", "right")
            ]
            stories = await anyio.to_thread.run_sync(_let_them_run, children)
        assert [child.returncode for child in children] == [0, 0]
        committed, superseded, rejected = (sum(column) for column in zip(*stories, strict=True))
        assert committed > 0
        states = Counter([job.state async for job in db.compactions(session)])
        assert states == Counter(
            {"committed": committed, "superseded": superseded, "rejected": rejected}
        )
        info = await session.info()
        assert info.epoch == info.compactions == committed
        arrivals = [
            str(entry.idempotency_key)
            for entry in await session.all_entries(limit=1000)
            if entry.type == "message"
        ]
        for who in ("left", "right"):
            assert [key for key in arrivals if key.startswith(who)] == [
                f"{who}.{number}" for number in range(count)
            ]
        present = [text for text in await seen(session) if text != "<S>"]
        assert present == arrivals[-len(present) :], "what is kept is the end of what arrived"
        assert (await db.verify()).findings == ()


def _let_them_run(children: list[subprocess.Popen[str]]) -> list[list[int]]:
    """Start both at once and return what each counted: committed, superseded, rejected."""
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    stories = []
    for child in children:
        assert child.stdout is not None
        stories.append([int(word) for word in child.stdout.readline().split()])
        child.wait(PATIENCE_S)
    return stories


HOLDER = """
import sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1], guard=False, program="holder") as db:
        session = await db.session_by_id(sys.argv[2])
        async with session.compact(trigger="threshold", keep_recent_tokens=30) as job:
            print(job.id, flush=True)
            await anyio.to_thread.run_sync(sys.stdin.readline)
            print((await job.commit("theirs")).outcome, flush=True)
anyio.run(main)
"""


async def test_a_job_in_another_process_blocks_no_append(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, guard=False) as db:
        session = await db.create_session()
        await say(session, *range(4))
        with other_process(HOLDER, tmp_db, session.id) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            compaction_id = child.stdout.readline().strip()
            with pytest.raises(CompactionRunning, match=f"holder, pid {child.pid} ") as refused:
                async with session.compact(trigger="threshold", keep_recent_tokens=30):
                    pytest.fail("two jobs run")
            assert refused.value.compaction_id == compaction_id
            await say(session, 4, 5)
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == "committed\n"
        assert await seen(session) == ["<theirs>", *said(3, 4, 5)]


# -- the context changes between the choice of a cut and its write ---------------------------------

Change = Callable[[sessiondb.Session], Awaitable[object]]


def between(patch: pytest.MonkeyPatch, session: sessiondb.Session, change: Change) -> list[str]:
    """Make a change after each choice of a cut, before the write that begins. Return both."""
    steps: list[str] = []
    read, write = session.db.read, session.db.write

    async def noted_read(op: str, fn: Any) -> Any:
        value = await read(op, fn)
        if op == "compaction.choose":
            steps.append("choose")
            await change(session)
        return value

    async def noted_write(op: str, fn: Any, **options: Any) -> Any:
        if op == "compaction.begin":
            steps.append("begin")
        return await write(op, fn, **options)

    patch.setattr(session.db, "read", noted_read)
    patch.setattr(session.db, "write", noted_write)
    return steps


def call_of(*ids: str) -> dict[str, Any]:
    blocks = [{"type": "toolCall", "id": one, "name": "read", "arguments": {}} for one in ids]
    return {"role": "assistant", "content": blocks, "stopReason": "toolUse"}


def result_of(call_id: str) -> dict[str, Any]:
    return {"role": "toolResult", "toolCallId": call_id, "toolName": "read", "content": "x" * PAD}


async def test_a_session_of_constant_results_is_compacted_at_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The calls of a working turn lie behind the cut, so its results do not move it."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        await say(session, *range(10))
        await session.append(user("q10"))
        await session.append(call_of("c0", "d0"))
        number = 0

        async def work(session: sessiondb.Session) -> None:
            nonlocal number
            await session.append(result_of(f"c{number}"))
            await session.append(result_of(f"d{number}"))
            number += 1
            await session.append(call_of(f"c{number}", f"d{number}"))

        with monkeypatch.context() as patch:
            steps = between(patch, session, work)
            async with session.compact(trigger="threshold", keep_recent_tokens=30) as job:
                assert (await job.commit("S")).outcome == "committed"
        assert steps == ["choose", "begin"]
        assert {"<S>", "q10"} <= set(await seen(session))
        assert (await db.verify()).findings == ()


@pytest.mark.parametrize("again", ["c0", "c1"])
async def test_a_result_of_a_call_before_the_cut_has_it_chosen_again(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """Also when its id is used again, after the result or in another reply."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()
        await say(session, 0)
        await session.append(call_of("c0"))
        await say(session, *range(1, 10))
        arrived = False

        async def late(session: sessiondb.Session) -> None:
            nonlocal arrived
            if not arrived:
                arrived = True
                await session.append(result_of("c0"))
                await session.append(call_of(again))

        with monkeypatch.context() as patch:
            steps = between(patch, session, late)
            async with session.compact(trigger="threshold", keep_recent_tokens=30) as job:
                spanned = [item["role"] for item in job.messages]
                assert (await job.commit("S")).outcome == "committed"
        assert steps == ["choose", "begin"] * 2
        assert spanned.count("toolResult") == 1, "the call is summarised with its result"
        assert spanned[2] == "assistant"


async def test_a_context_that_always_changes_is_an_error_and_begins_nothing(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session()

        async def begin_anew(session: sessiondb.Session) -> None:
            await session.reset("reset")
            await say(session, *range(10))

        await begin_anew(session)
        with monkeypatch.context() as patch:
            steps = between(patch, session, begin_anew)
            with pytest.raises(StoreBusy, match="changed each of 10 times") as caught:
                async with session.compact(trigger="threshold", keep_recent_tokens=30):
                    pass
        assert steps == ["choose", "begin"] * CUT_CHOICES_MAX
        assert caught.value.retry_after_ms > 0
        assert [job async for job in db.compactions(session)] == []
        async with session.compact(trigger="threshold", keep_recent_tokens=30) as job:
            assert (await job.commit("S")).outcome == "committed"


async def test_a_part_of_the_last_reply_that_arrives_has_the_cut_chosen_again(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a format in which a reply may be several items: a text, and then its call."""
    call = {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"}
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session(format="openai-responses")
        for number in range(3):
            await session.append(
                {"type": "message", "role": "user", "content": f"q{number}".ljust(PAD)}
            )
            text = {"type": "output_text", "text": f"a{number}".ljust(PAD)}
            await session.append({"type": "message", "role": "assistant", "content": [text]})
        arrived = False

        async def go_on(session: sessiondb.Session) -> None:
            nonlocal arrived
            if not arrived:
                arrived = True
                await session.append(call)

        with monkeypatch.context() as patch:
            steps = between(patch, session, go_on)
            async with session.compact(trigger="manual", keep_recent_tokens=0) as job:
                assert (await job.commit("S")).outcome == "committed"
        assert steps == ["choose", "begin"] * 2
        kept = (await session.context(raw=True)).messages
    assert [item.get("type") for item in kept][-2:] == ["message", "function_call"]

"""What handlers and senders must not do ends their turn or reply, and nothing else.

A cancellation that nobody asked for, and a value that is no answer: the loops go on. A loop
that does end says so with an error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb.errors import StrayCancellation
from sessiondb.gateway.running_turn import Answer, LaneSettings, Turn
from tests.support.gateway import (
    answer,
    claimed,
    complete,
    eventually,
    inbox_states,
    kinds,
    look,
    nothing_open,
    running,
    say,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quick_retries")]

Stray = Callable[[], Awaitable[None]]


async def of_a_scope() -> None:
    """Raise a cancellation that a scope, left long ago, had asked for. Under asyncio and trio."""
    caught: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class() as cancelled:
            caught.append(cancelled)
            raise
    await anyio.lowlevel.checkpoint()
    raise caught[0]


async def of_a_group() -> None:
    """Raise one in a group with another error, as code that gathers errors does."""
    try:
        await of_a_scope()
    except anyio.get_cancelled_exc_class() as cancelled:
        raise BaseExceptionGroup("both", [cancelled, ValueError("no")]) from None


async def of_a_task() -> None:
    """Await a task that somebody else cancelled. asyncio only."""
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def of_oneself() -> None:
    """Have the handler's own task cancelled by code that has no business to. asyncio only."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(60)


@pytest.fixture(params=[of_a_scope, of_a_group, of_a_task, of_oneself])
def stray(request: pytest.FixtureRequest, anyio_backend_name: str) -> Stray:
    """Return a function that raises a cancellation nobody asked for."""
    if anyio_backend_name == "trio" and request.param in (of_a_task, of_oneself):
        pytest.skip("trio's tasks are cancelled by scopes only")
    found: Stray = request.param
    return found


async def test_a_stray_cancellation_fails_its_turn_and_no_other(tmp_db: Path, stray: Stray) -> None:
    release = anyio.Event()

    async def handler(turn: Turn) -> Answer:
        if turn.message["content"] == "bad":
            await stray()
        if turn.message["content"] == "slow":
            await release.wait()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "slow", "agent:main:web:1")
        await say(db, "bad", "agent:main:web:2")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(_are, db, bad="dead"))
            await say(db, "behind", "agent:main:web:2")
            await say(db, "other", "agent:main:web:3")
            await eventually(partial(_are, db, behind="done", other="done"))
            release.set()
            await eventually(partial(nothing_open, db))
        assert (await inbox_states(db))["slow"] == "done"
        failed = [row for row in await look(db, "turns") if row.state != "completed"]
        assert [row.state for row in failed] == ["failed"] * 5
        assert all("a cancellation that nobody asked for" in row.reason for row in failed)
        assert await kinds(db, "user") == ["message_dead"]
        assert (await db.verify()).ok


async def _are(db: sessiondb.SessionDB, **wanted: str) -> bool:
    found = await inbox_states(db)
    return all(found[event_id] == state for event_id, state in wanted.items())


async def _settled(db: sessiondb.SessionDB) -> bool:
    return {row.state for row in await look(db, "outbox")} <= {"sent", "unknown", "failed"}


async def reply_waits(db: sessiondb.SessionDB, *texts: str) -> None:
    for text in texts:
        await say(db, text, f"agent:main:web:{text}")
        await complete(db, (await claimed(db)).turn_no, replies=[(f"web:{text}", text)])


async def test_a_stray_cancellation_of_a_sender_leaves_its_reply_unknown(
    tmp_db: Path, stray: Stray
) -> None:
    sent: list[str] = []

    async def sender(out: sessiondb.Reply) -> str:
        if (text := json.loads(out.payload)) == "bad":
            await stray()
        sent.append(text)
        return "receipt"

    async with sessiondb.open(tmp_db) as db:
        await reply_waits(db, "bad", "one")
        async with running(partial(db.run_outbox, sender, at_once=1)):
            await eventually(partial(_settled, db))
            await reply_waits(db, "two")
            await eventually(partial(_settled, db))
        assert sent == ["one", "two"]
        first, *others = await look(db, "outbox")
        assert [row.state for row in others] == ["sent", "sent"]
        assert (first.state, "a cancellation that nobody asked for" in first.reason) == (
            "unknown",
            True,
        )
        assert await kinds(db) == ["reply_unknown"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("ending", [False, True])
async def test_the_task_of_one_turn_is_cancelled_and_its_lane_goes_on(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, ending: bool
) -> None:
    """By a program that cancels tasks that are not its own. Also while the end is written."""
    tasks: list[asyncio.Task[Any]] = []

    async def handler(turn: Turn) -> Answer:
        task = asyncio.current_task()
        assert task is not None
        if turn.message["content"] == "bad" and turn.attempt == 1:
            tasks.append(task)
            if not ending:
                await anyio.sleep_forever()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        real_write = db.write

        async def write(op: str, *args: Any, **options: Any) -> Any:
            if op == "turn.end" and tasks and tasks[0] is asyncio.current_task():
                task = tasks.pop()
                asyncio.get_running_loop().call_soon(task.cancel)
            return await real_write(op, *args, **options)

        if ending:
            monkeypatch.setattr(db, "write", write)
        await say(db, "bad")
        async with running(partial(db.run_lane, "main", handler)):
            if not ending:
                await eventually(partial(_holds, tasks))
                tasks.pop().cancel()
            await eventually(partial(_are, db, bad="done"))
            await say(db, "good")
            await eventually(partial(nothing_open, db))
        ends = [row.state for row in await look(db, "turns")]
        assert ends == [*([] if ending else ["failed"]), "completed", "completed"]


async def _holds(found: list[Any]) -> bool:
    return bool(found)


async def test_a_loop_never_returns_without_having_been_cancelled(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the loop itself awaits may raise one, too. Then the loop raises an error."""

    async def handler(turn: Turn) -> Answer:
        return answer(turn)

    async def sender(out: sessiondb.Reply) -> None:
        pass

    async with sessiondb.open(tmp_db) as db:

        async def read(op: str, *args: Any, **options: Any) -> Any:
            await of_a_scope()

        async def follow() -> None:
            async for _ in db.events("reader"):
                pass

        monkeypatch.setattr(db, "read", read)
        for loop in (
            partial(db.run_lane, "main", handler),
            partial(db.run_outbox, sender),
            db.run_recovery,
            follow,
        ):
            with anyio.fail_after(30), pytest.raises(StrayCancellation, match="Start it again"):
                await loop()


async def test_a_loop_that_is_cancelled_ends_in_silence(tmp_db: Path) -> None:
    async def handler(turn: Turn) -> Answer:
        await anyio.sleep_forever()
        return answer(turn)

    async def sender(out: sessiondb.Reply) -> None:
        await anyio.sleep_forever()

    async with sessiondb.open(tmp_db) as db:

        async def follow() -> None:
            async for _ in db.events("reader"):
                pass

        await reply_waits(db, "one")
        await say(db, "e1")
        for loop in (
            partial(db.run_lane, "main", handler),
            partial(db.run_outbox, sender),
            db.run_recovery,
            follow,
        ):
            with anyio.move_on_after(0.05) as scope:
                await loop()
            assert scope.cancelled_caught


NO_ANSWERS = [
    "just a text",
    None,
    object(),
    {"entries": []},
    Answer(entries=5),  # type: ignore[arg-type]
    Answer(replies=[5]),  # type: ignore[list-item]
    Answer(replies=[(["web", 1], "x")]),  # type: ignore[list-item]
    Answer(replies=[(b"web:1", "x")]),  # type: ignore[list-item]
    Answer(replies=[(5, "x")]),  # type: ignore[list-item]
    Answer(incomplete=5),  # type: ignore[arg-type]
    Answer(incomplete={}),  # type: ignore[arg-type]
    Answer(incomplete="\ud800"),
    Answer,
]


@pytest.mark.parametrize("bad", NO_ANSWERS, ids=range(len(NO_ANSWERS)))
async def test_what_is_no_answer_fails_its_turn_and_no_other(tmp_db: Path, bad: Any) -> None:
    release = anyio.Event()

    async def handler(turn: Turn) -> Any:
        if turn.message["content"] == "bad":
            return bad
        await release.wait()
        return answer(turn)

    async with sessiondb.open(tmp_db) as db:
        await say(db, "slow", "agent:main:web:1")
        await say(db, "bad", "agent:main:web:2")
        async with running(partial(db.run_lane, "main", handler)):
            await eventually(partial(_are, db, bad="dead"))
            release.set()
            await eventually(partial(nothing_open, db))
        assert await inbox_states(db) == {"bad": "dead", "slow": "done"}
        [failed] = [row for row in await look(db, "turns") if row.state == "failed"]
        assert "its answer cannot be stored" in failed.reason
        if not isinstance(bad, Answer):
            assert "must return a sessiondb.Answer" in failed.reason
        assert await kinds(db, "user") == ["message_dead"]


class Unprintable(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "error",
    [OSError("no such file: \udcff"), Unprintable(), ValueError("x" * 10_000_000)],
    ids=["no Unicode", "no text", "long"],
)
async def test_any_error_of_a_handler_or_a_sender_is_recorded(
    tmp_db: Path, error: Exception
) -> None:
    async def handler(turn: Turn) -> Answer:
        raise error

    async def sender(out: sessiondb.Reply) -> None:
        raise error

    async with sessiondb.open(tmp_db) as db:
        await reply_waits(db, "one")
        await say(db, "e1", "agent:main:web:e1")
        async with running(
            partial(db.run_lane, "main", handler, settings=LaneSettings(attempts_max=2)),
            partial(db.run_outbox, sender),
        ):
            await eventually(partial(nothing_open, db))
            await eventually(partial(_settled, db))
        reasons = [row.reason for row in (await look(db, "turns"))[1:]]
        reasons += [row.reason for row in await look(db, "outbox")]
        assert len(reasons) == 3
        for reason in reasons:
            assert reason.startswith(type(error).__name__)
            assert len(reason) < 10_000


@pytest.mark.parametrize("bad", [{"id": 4711}, 5, b"id", object(), ("id",)], ids=range(5))
async def test_what_is_no_receipt_leaves_its_reply_unknown(tmp_db: Path, bad: Any) -> None:
    """The channel has been called, so nobody knows whether a person has read it."""

    async def sender(out: sessiondb.Reply) -> Any:
        return bad if json.loads(out.payload) == "bad" else None

    async with sessiondb.open(tmp_db) as db:
        await reply_waits(db, "bad", "one", "two")
        async with running(partial(db.run_outbox, sender)):
            await eventually(partial(_settled, db))
        first, *others = await look(db, "outbox")
        assert [row.state for row in others] == ["sent", "sent"]
        assert first.state == "unknown"
        assert f"the sender returned {type(bad).__name__}, and must return" in first.reason
        assert await kinds(db) == ["reply_unknown"]


async def test_a_receipt_that_is_no_unicode_is_kept_in_a_readable_form(tmp_db: Path) -> None:
    async def sender(out: sessiondb.Reply) -> str:
        return "id \ud800"

    async with sessiondb.open(tmp_db) as db:
        await reply_waits(db, "one")
        async with running(partial(db.run_outbox, sender)):
            await eventually(partial(_settled, db))
        [row] = await look(db, "outbox")
        assert (row.state, row.receipt) == ("sent", "id \\ud800")

"""What does not go on by itself is shown, with the command that goes on. Nothing else is."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import sessiondb
from sessiondb.backend import Tx
from sessiondb.clock import iso_from_ms, now_ms
from sessiondb.events import emit, move_cursor
from sessiondb.gateway import channels, outbox
from sessiondb.maintenance import archive
from tests.support.command_line import on_terminal, run
from tests.support.compaction import begin_in
from tests.support.core import change, reply, user
from tests.support.engine import other_process
from tests.support.gateway import (
    claimed,
    complete,
    eventually,
    fail,
    interrupt,
    running,
    say,
)
from tests.support.maintenance import Dying, Killed
from tests.support.transfer import transcript, write

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
AGO_MS = time.time_ns() // 1_000_000 - HOUR_MS
MESSAGES = [user("a question"), reply("an answer")] * 6
PAUSE: Any = {"retry_after_ms": 50_000, "reason": "429"}
DB = sessiondb.SessionDB


@pytest.fixture
def anyio_backend() -> str:
    """What is stuck is one snapshot. The loops that wait for nothing are tested elsewhere."""
    return "asyncio"


@pytest.fixture
async def db(tmp_db: Path) -> AsyncIterator[DB]:
    """A gateway that lives, and does its work."""
    async with sessiondb.open(tmp_db, program="gateway") as opened:
        await healthy(opened)
        yield opened


def key(name: str) -> str:
    return f"agent:main:web:direct:{name}"


async def begin(db: DB, name: str, lane: str = "main", **options: int) -> int:
    """Begin a turn. Return its number."""
    await say(db, f"{lane} {name}", key(name), lane=lane)
    return (await claimed(db, lane, **options)).turn_no


async def sending(db: DB, target: str, lease_ms: int = HOUR_MS) -> int:
    """Begin to send a reply to a channel. Return its number."""
    await replying(db, target)
    others = {"slow", "moody", "new", "rated"} - {target.partition(":")[0]}
    begin = partial(outbox.begin_sending, lease_ms=lease_ms, full=sorted(others))
    taken = await db.write("begin", begin)
    assert taken is not None
    assert taken.target == target
    return taken.outbox_no


async def replying(db: DB, target: str) -> None:
    """Leave a reply of its own session in the outbox."""
    turn_no = await begin(db, f"of {target}", "replies")
    await complete(db, turn_no, "done", replies=[(target, "x")])


async def talked(db: DB, name: str) -> sessiondb.Session:
    session = await db.session(key(name))
    for message in MESSAGES:
        await session.append(message)
    return session


async def compacting(db: DB, name: str, *, timeout_ms: int) -> str:
    """Begin a compaction. Return its id."""
    begin_compaction = partial(
        begin_in,
        session_no=(await talked(db, name)).ref.session_no,
        trigger="threshold",
        keep_recent_tokens=1,
        timeout_ms=timeout_ms,
    )
    return (await db.write("compact", begin_compaction)).compaction_id


async def healthy(db: DB) -> None:
    """Do everything that waits, as long as it may. The work is an hour old where that is normal."""
    for lane, concurrency in (("replies", 9), ("full", 1), ("below", 1)):
        await db.set_lane(lane, concurrency=concurrency, priority=5)
    path = Path(db.path)
    # A long turn. Older messages wait behind it, in its session and for its lane's room.
    await begin(db, "long", "full")
    for number in range(2):
        await say(db, f"behind {number}", key("long"))
        await say(db, f"no room {number}", key(f"no room {number}"), lane="full")
    # A lane whose turn has just ended, and a session whose turn has.
    await complete(db, await begin(db, "answered", "replies"))
    await say(db, "between two turns", key("between"), lane="replies")
    await say(db, "freed", key("answered"), lane="below")
    change(path, f"UPDATE inbox SET queued_at_ms = {AGO_MS} WHERE state = 'queued'")
    # A slow channel: one is being sent, and another waits for it.
    await sending(db, "slow:1")
    await replying(db, "slow:2")
    change(path, f"UPDATE outbox SET created_at_ms = {AGO_MS} WHERE target = 'slow:2'")
    # A channel that refuses some and takes others, and a reply that is tried again.
    await sending(db, "moody:1")
    await replying(db, "moody:2")
    change(
        path,
        f"UPDATE outbox SET state = 'sent', finished_at_ms = {now_ms()} WHERE target = 'moody:1'",
        f"UPDATE outbox SET attempts = 9, created_at_ms = {AGO_MS} WHERE target = 'moody:2'",
    )
    # A channel that said when to try again.
    await replying(db, "rated:1")
    change(path, f"UPDATE outbox SET created_at_ms = {AGO_MS} WHERE target = 'rated:1'")
    await db.write("pause", partial(channels.pause, channel="rated", **PAUSE))
    # What has just come, and a message that was interrupted just now.
    await replying(db, "new:1")
    await say(db, "just come", key("just come"), lane="below")
    await interrupt(db, await begin(db, "just interrupted"))
    # Files and compactions under way.
    folder = path.parent / "healthy"
    write(folder, {"now.jsonl": transcript(session_id="now")})
    await db.import_path(folder)
    change(path, "UPDATE import_file SET state = 'reading'")
    await compacting(db, "compacts", timeout_ms=HOUR_MS)
    # A reader of the events for users, who leaves those for operators, and one who is through.
    await db.write("quiet", lambda tx: emit(tx, "note", "operator", "old"))
    await db.write("quiet", lambda tx: emit(tx, "note", "operator", "old"))
    newest = await db.write("quiet", lambda tx: emit(tx, "note", "operator", "old"))
    for consumer, event_no in (("users", newest - 2), ("all", newest)):
        await db.write("quiet", partial(_reads, consumer=consumer, event_no=event_no))
    change(path, f"UPDATE event SET at_ms = {AGO_MS}")


def _reads(tx: Tx, *, consumer: str, event_no: int) -> None:
    move_cursor(tx, consumer=consumer, event_no=event_no)


# -- what is shown, and what goes on


async def stuck(db: DB) -> list[dict[str, Any]]:
    """Return what the command shows."""
    done = await anyio.to_thread.run_sync(run, "stuck", db.path, "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.exit_code == bool(found)
    assert (await db.status()).needs_attention is bool(found)
    return found


async def shown(db: DB) -> list[tuple[str, str, str]]:
    return [(one["what"], one["name"], one["problem"]) for one in await stuck(db)]


async def follow_the_steps(db: DB) -> list[str]:
    """Run the command that the first line names, until nothing is stuck. Return the commands."""
    ran: list[str] = []
    while found := await stuck(db):
        step = found[0]["next_step"]
        program, *arguments = shlex.split(step)
        assert program == "sessiondb", step
        assert step not in ran, f"it changed nothing: {found[0]}"
        done = await anyio.to_thread.run_sync(run, *arguments)
        assert done.exit_code == 0, done.output
        ran.append(step)
    return ran


async def test_a_healthy_busy_database_shows_nothing(db: DB) -> None:
    assert await stuck(db) == []
    done = await anyio.to_thread.run_sync(run, "stuck", db.path)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "nothing is stuck\n")


# -- each kind: two of it, beside those that are healthy. Each returns what is shown

Made = list[tuple[str, str, str]]


async def silent_turns(db: DB) -> Made:
    numbers = [await begin(db, f"silent {number}", lease_ms=-9_000) for number in range(2)]
    return [("turn", str(number), "past its lease") for number in numbers]


async def turns_whose_time_is_up(db: DB) -> Made:
    numbers = [await begin(db, f"endless {number}", timeout_ms=-9_000) for number in range(2)]
    return [("turn", str(number), "past its lease") for number in numbers]


async def silent_senders(db: DB) -> Made:
    numbers = [await sending(db, f"silent:{number}", lease_ms=-9_000) for number in range(2)]
    return [("reply", str(number), "past its lease") for number in numbers]


async def overdue_compactions(db: DB) -> Made:
    ids = [await compacting(db, f"overdue {number}", timeout_ms=-9_000) for number in range(2)]
    return [("compaction", compaction_id, "past its deadline") for compaction_id in ids]


async def interrupted_messages(db: DB) -> Made:
    made = []
    for number in range(2):
        turn_no = await begin(db, f"interrupted {number}")
        await interrupt(db, turn_no)
        change(
            Path(db.path), f"UPDATE turn SET finished_at_ms = {AGO_MS} WHERE turn_no = {turn_no}"
        )
        inbox_no = (await row(db, f"main interrupted {number}"))["inbox_no"]
        made.append(("message", str(inbox_no), "interrupted, and not resumed"))
    return made


async def row(db: DB, event_id: str) -> dict[str, Any]:
    found = await db.read(
        "row", lambda tx: tx.first("inbox.by_event", channel="web", event_id=event_id)
    )
    assert found is not None
    return found._asdict()


async def dead_letters(db: DB) -> Made:
    made = []
    for number in range(2):
        await fail(db, await begin(db, f"dead {number}"), "no luck", retry=False)
        made.append(("message", str((await row(db, f"main dead {number}"))["inbox_no"]), "dead"))
    return made


async def unknown_replies(db: DB) -> Made:
    made = []
    for number, state in enumerate(("unknown", "failed")):
        outbox_no = await sending(db, f"lost:{number}")
        change(
            Path(db.path),
            f"UPDATE outbox SET state = '{state}', finished_at_ms = {AGO_MS}, reason = 'why not' "
            f"WHERE outbox_no = {outbox_no}",
        )
        made.append(("reply", str(outbox_no), state))
    return made


async def consumers_behind(db: DB) -> Made:
    """One of both audiences, one of so many events that every audience misses some."""
    numbers = [
        await db.write("emit", lambda tx: emit(tx, "note", "operator", "n")) for _ in range(450)
    ]
    told = await db.write("emit", lambda tx: emit(tx, "note", "user", "n"))
    for consumer, event_no in (("it's one", numbers[-1] - 1), ("other", numbers[0])):
        await db.write("behind", partial(_reads, consumer=consumer, event_no=event_no))
    for consumer in ("users", "all"):
        await db.write("behind", partial(_reads, consumer=consumer, event_no=told))
    change(Path(db.path), f"UPDATE event SET at_ms = {AGO_MS}")
    return [("consumer", "it's one", "behind"), ("consumer", "other", "behind")]


async def left_imports(db: DB) -> Made:
    folder = Path(db.path).parent / "it's here"
    write(
        folder,
        {f"left-{number}.jsonl": transcript(session_id=f"left-{number}") for number in range(2)},
    )
    await db.import_path(folder)
    change(
        Path(db.path),
        f"UPDATE import_file SET state = 'reading', imported_at_ms = {AGO_MS} "
        "WHERE path LIKE '%left-%'",
    )
    return [
        ("import", str((folder / f"left-{number}.jsonl").resolve()), "not finished")
        for number in range(2)
    ]


async def left_archives(db: DB) -> Made:
    """One that was being restored, and one that was being written. A third has just begun."""
    backend: Any = db.backend
    numbers = []
    for name in ("restored", "written", "begun"):
        session = await talked(db, f"to be {name}")
        await session.end()
        archive_no, _ = await archive.begin(backend, session.ref.session_no, "for the test")
        assert archive_no is not None
        if name == "restored":
            await archive.advance(backend, archive_no)
        writes, step = {
            "restored": (2, partial(archive.restore, session_no=session.ref.session_no)),
            "written": (1, partial(archive.advance, archive_no=archive_no)),
            "begun": (1, partial(archive.advance, archive_no=archive_no)),
        }[name]
        with pytest.raises(Killed):
            await step(Dying(backend, writes))
        numbers.append(archive_no)
    change(
        Path(db.path),
        f"UPDATE archive SET begun_at_ms = {AGO_MS - HOUR_MS} WHERE archive_no < {numbers[2]}",
    )
    return [
        ("archive", str(numbers[0]), "restoring"),
        ("archive", str(numbers[1]), "writing"),
    ]


KINDS: list[Callable[[DB], Awaitable[Made]]] = [
    silent_turns,
    turns_whose_time_is_up,
    silent_senders,
    overdue_compactions,
    interrupted_messages,
    dead_letters,
    unknown_replies,
    consumers_behind,
    left_imports,
    left_archives,
]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
async def test_each_kind_is_shown_and_its_command_goes_on(
    db: DB, make: Callable[[DB], Awaitable[Made]]
) -> None:
    made = await make(db)
    assert sorted(await shown(db)) == sorted(made)
    assert all(one["since"] <= iso_from_ms(now_ms()) and one["why"] for one in await stuck(db))
    ran = await follow_the_steps(db)
    assert ran
    assert all(shlex.quote(db.path) in step for step in ran)


# -- what no command can start: the step is to start it


async def test_lanes_that_nobody_runs_are_shown_until_somebody_does(db: DB) -> None:
    """Neither the place in another lane nor an older message of one's own hides them."""
    path = Path(db.path)
    for lane in ("nobody's", "nobody's too", "new"):
        await db.set_lane(lane, concurrency=1, priority=30)
        for number in range(2):
            await say(db, f"{lane} {number}", key(f"of {lane}"), lane=lane)
    change(path, f"UPDATE inbox SET queued_at_ms = {AGO_MS} WHERE lane LIKE 'nobody%'")
    found = await stuck(db)
    assert [(one["what"], one["name"], one["problem"]) for one in found] == [
        ("lane", "nobody's", "not run"),
        ("lane", "nobody's too", "not run"),
    ]
    for one in found:
        assert one["why"].startswith("2 waiting, and there is room. No process runs the lane")
        assert one["since"] == iso_from_ms(AGO_MS)
        assert one["next_step"] == f"start a process with db.run_lane() for lane {one['name']}"

    async def is_answered(name: str) -> bool:
        return {(await row(db, f"{name} {number}"))["state"] for number in range(2)} == {"done"}

    for left in (1, 0):
        name = (await stuck(db))[0]["name"]
        async with running(partial(db.run_lane, name, answering)):
            await eventually(partial(is_answered, name))
        assert len(await stuck(db)) == left


async def answering(turn: sessiondb.Turn) -> sessiondb.Answer:
    return sessiondb.Answer()


async def test_channels_that_nobody_sends_to_are_shown_until_somebody_does(db: DB) -> None:
    path = Path(db.path)
    for target in ("left:1", "left:2", "left too:1", "fresh:1"):
        await replying(db, target)
    change(path, f"UPDATE outbox SET created_at_ms = {AGO_MS} WHERE target LIKE 'left%'")
    assert await shown(db) == [
        ("channel", "left", "nothing is sent"),
        ("channel", "left too", "nothing is sent"),
    ]
    assert {one["next_step"] for one in await stuck(db)} == {"start a process with db.run_outbox()"}
    async with running(partial(db.run_outbox, sent)):
        await eventually(partial(_nothing_pending, db))
    assert await stuck(db) == []


async def test_channels_that_refuse_for_minutes_are_shown_with_the_reason(db: DB) -> None:
    path = Path(db.path)
    for target in ("down:1", "down too:1"):
        await replying(db, target)
        change(
            path,
            f"UPDATE outbox SET attempts = 9, reason = 'not connected', created_at_ms = {AGO_MS}, "
            f"available_at_ms = {now_ms() + 1} WHERE target = '{target}'",
        )
    assert await shown(db) == [
        ("channel", "down", "refuses everything"),
        ("channel", "down too", "refuses everything"),
    ]
    assert "9 attempts, the last: not connected" in (await stuck(db))[0]["why"]
    async with running(partial(db.run_outbox, sent)):
        await eventually(partial(_nothing_pending, db))
    assert await stuck(db) == []


async def sent(_reply: sessiondb.Reply) -> None:
    """A channel that takes everything."""


async def _nothing_pending(db: DB) -> bool:
    """Tell whether all was sent but what the file began with: none is in the middle, either."""
    pending = {one.target async for one in db.replies("pending")}
    return pending == {"rated:1"} and [one.target async for one in db.replies("sending")] == [
        "slow:1"
    ]


async def test_channels_that_wait_for_long_are_shown_with_the_end_of_it(db: DB) -> None:
    for channel in ("banned", "banned too"):
        await replying(db, f"{channel}:1")
        pause = partial(channels.pause, channel=channel, retry_after_ms=HOUR_MS, reason="429")
        await db.write("pause", pause)
    found = await stuck(db)
    assert [(one["name"], one["problem"]) for one in found] == [
        ("banned", "waits"),
        ("banned too", "waits"),
    ]
    assert all(one["until"] > iso_from_ms(now_ms()) for one in found)
    text = (await anyio.to_thread.run_sync(run, "stuck", db.path)).stdout
    assert text.count("channel banned: waits, since ") == text.count("channel banned too: ") == 1


# -- what dead processes left, at once

CHILD = """
import sys, anyio, sessiondb
async def sender(reply):
    print("sending", flush=True)
    await anyio.sleep_forever()
async def handler(turn):
    if turn.message["content"] == "answer":
        return sessiondb.Answer(replies=[("gone:1", "x")])
    print("working", flush=True)
    await anyio.sleep_forever()
async def compact(db):
    session = await db.session("agent:main:web:direct:of the dead")
    for _ in range(9):
        await session.append({"role": "user", "content": "a " * 500})
        await session.append({"role": "assistant", "content": [{"type": "text", "text": "b"}]})
    async with session.compact(trigger="threshold", keep_recent_tokens=1):
        print("compacting", flush=True)
        await anyio.sleep_forever()
async def main():
    async with sessiondb.open(sys.argv[1], program="the old gateway") as db:
        await db.set_lane("gone", concurrency=4, priority=0)
        for text in ("answer", "hang"):
            message = {"role": "user", "content": text}
            key = f"agent:main:web:direct:{text}"
            await db.accept(key, message, channel="gone", event_id=text, lane="gone")
        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "gone", handler)
            group.start_soon(db.run_outbox, sender)
            group.start_soon(compact, db)
anyio.run(main)
"""


async def test_what_a_dead_process_held_is_shown_before_its_leases_end(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, program="gateway") as db:
        with other_process(CHILD, tmp_db) as child:
            assert child.stdout is not None
            for _ in range(3):
                await anyio.to_thread.run_sync(child.stdout.readline)
            assert await stuck(db) == [], "it lives"
            child.kill()
            child.wait()
        found = await stuck(db)
        assert sorted((one["what"], one["problem"]) for one in found) == [
            ("compaction", "left by a dead process"),
            ("process", "died"),
            ("reply", "left by a dead process"),
            ("turn", "left by a dead process"),
        ]
        assert {one["owner_alive"] for one in found} == {False}
        assert all(
            one["owner"].startswith(f"the old gateway, pid {child.pid} on ") for one in found
        )
        await follow_the_steps(db)


# -- on a terminal


async def test_it_is_read_on_80_columns_and_its_commands_are_whole(db: DB) -> None:
    await silent_turns(db)
    await unknown_replies(db)
    await interrupted_messages(db)
    text, code = await anyio.to_thread.run_sync(partial(on_terminal, "stuck", db.path, columns=80))
    lines = text.splitlines()
    assert code == 1
    steps = [one["next_step"] for one in await stuck(db)]
    assert [line.removeprefix("    > ") for line in lines if line.startswith("    > ")] == steps
    assert max(len(line) for line in lines if not line.startswith("    > ")) <= 80
    assert sum(line.startswith("turn ") for line in lines) == 2
    assert "gateway, pid " in text
    assert "lives" in text


async def test_status_counts_what_is_stuck_by_its_kind(db: DB) -> None:
    for make in (silent_turns, unknown_replies, dead_letters, left_imports):
        await make(db)
    text = (await anyio.to_thread.run_sync(run, "status", db.path)).stdout
    assert "red: 2 turns: past its lease, the first since " in text
    assert "sessiondb stuck" in text


async def test_a_consumer_that_nobody_uses_any_more_is_forgotten(db: DB) -> None:
    await consumers_behind(db)
    forget = ["events", db.path, "--consumer", "it's one", "--forget"]
    assert (await anyio.to_thread.run_sync(run, *forget)).exit_code == 0
    assert await shown(db) == [("consumer", "other", "behind")]
    again = await anyio.to_thread.run_sync(run, *forget)
    assert (again.exit_code, "there is no consumer" in again.stderr) == (3, True)
    no_name = await anyio.to_thread.run_sync(run, "events", db.path, "--forget")
    assert no_name.exit_code == 2

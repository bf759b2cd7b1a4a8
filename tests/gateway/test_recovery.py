"""Start-up: what dead processes held is released, in bounded steps, with events."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import process
from sessiondb.gateway import recovery
from sessiondb.sqlite import writer
from tests.support.compaction import begin_in
from tests.support.core import reply, user
from tests.support.engine import other_process
from tests.support.gateway import (
    Clock,
    claimed,
    hand_over,
    inbox_states,
    interrupt,
    kinds,
    look,
    say,
)
from tests.support.world import make_world

CHILD = """
import os, signal, sys, anyio, sessiondb
async def sender(reply):
    print("sending", flush=True)
    await anyio.sleep_forever()
async def handler(turn):
    if turn.message["content"] == "first":
        return sessiondb.Answer(replies=[("web:1", "x")])
    print("working", flush=True)
    await anyio.sleep_forever()
async def compact(db):
    session = await db.session("agent:main:web:3")
    for number in range(2):
        await session.append({"role": "user", "content": "a " * 500})
        await session.append({"role": "assistant", "content": [{"type": "text", "text": "b"}]})
    async with session.compact(trigger="manual", keep_recent_tokens=1):
        print("compacting", flush=True)
        await anyio.sleep_forever()
async def main():
    async with sessiondb.open(sys.argv[1], program="the old gateway") as db:
        for number, text in enumerate(("first", "second"), 1):
            message = {"role": "user", "content": text}
            await db.accept(f"agent:main:web:{number}", message, channel="web", event_id=text)
        async with anyio.create_task_group() as group:
            group.start_soon(db.run_lane, "main", handler)
            group.start_soon(db.run_outbox, sender)
            group.start_soon(compact, db)
anyio.run(main, backend=sys.argv[2])
"""


@pytest.mark.anyio
async def test_what_a_killed_process_held_is_released_with_events(
    tmp_db: Path, anyio_backend: str
) -> None:
    with other_process(CHILD, tmp_db, anyio_backend) as child:
        assert child.stdout is not None
        assert sorted(child.stdout.readline() for _ in range(3)) == [
            "compacting\n",
            "sending\n",
            "working\n",
        ]
        async with sessiondb.open(tmp_db) as db:
            assert sorted((held.what, held.alive) for held in await db.held()) == [
                ("compaction", True),
                ("reply", True),
                ("turn", True),
            ]
            assert await db.recover() == sessiondb.Recovered(), "it lives: nothing is taken from it"
        child.kill()
        child.wait()
    async with sessiondb.open(tmp_db) as db:
        assert {held.alive for held in await db.held()} == {False}
        assert await db.recover() == sessiondb.Recovered(
            instances=1, turns=1, compactions=1, replies=1
        )
        assert await db.held() == []
        assert await inbox_states(db) == {"first": "done", "second": "interrupted"}
        wanted = [
            "compaction_started",
            "turn_interrupted",
            "compaction_failed",
            "reply_unknown",
            "recovery_done",
        ]
        assert await kinds(db, "operator") == wanted
        assert await kinds(db, "user") == ["turn_interrupted", "compaction_failed"], (
            "a person asked for it, and waits"
        )
        assert "the old gateway" in (await look(db, "events"))[-1].text
        assert await db.recover() == sessiondb.Recovered()
        assert (await db.verify()).ok


@pytest.mark.anyio
async def test_nothing_is_taken_from_a_process_of_which_nothing_is_known(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await claimed(db)
        await hand_over(db, boot_id=process.boot_id())
        assert await db.recover() == sessiondb.Recovered()
        assert [held.alive for held in await db.held()] == [None]
        assert (await db.status()).processes_open == 2, "it is open for as long as it holds a turn"
        await interrupt(db, 1, "its lease ran out")
        assert await db.recover() == sessiondb.Recovered()
        assert (await db.status()).processes_open == 1
        assert await kinds(db, "operator") == ["turn_interrupted"], "nobody says that it died"


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["h", "a container of its own"])
async def test_a_host_name_keeps_nothing_from_its_successor(tmp_db: Path, host: str) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await claimed(db)
        await hand_over(db, host=host)
        assert await db.recover() == sessiondb.Recovered(instances=1, turns=1)


@pytest.mark.anyio
async def test_a_process_that_signed_off_after_it_was_read_has_not_died(tmp_db: Path) -> None:
    """Its byte is free and its row was open when it was read. It is closed in good order now."""
    async with sessiondb.open(tmp_db) as db:
        async with sessiondb.open(tmp_db):
            page = await db.read("look", lambda tx: recovery.open_instances(tx, after_no=0))
        assert db.backend.liveness(page) == [True, False]
        step = partial(recovery.release_next, dead=page[1:], so_far=sessiondb.Recovered())
        assert await db.write("release", lambda tx: step(tx)) == (
            sessiondb.Recovered(),
            1,
            sessiondb.Recovered(),
        )
        assert await kinds(db) == []


@pytest.mark.anyio
async def test_recovery_reads_a_dead_process_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their hosts: a container has a new name at each start."""
    monkeypatch.setattr(recovery, "RECOVER_AT_ONCE", 4)
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        await claimed(db)
        for number in range(10):
            await hand_over(db, host=f"pod-{number}")
        probed: list[int] = []
        liveness = db.backend.liveness

        def counted(rows: Sequence[Any]) -> list[bool | None]:
            probed.append(len(rows))
            return liveness(rows)

        monkeypatch.setattr(db.backend, "liveness", counted)
        requests = (await db.stats())["writer"]["requests"]
        assert await db.recover() == sessiondb.Recovered(instances=10, turns=1)
        assert sum(probed) == 11, "each of the dead, and this process"
        assert (await db.stats())["writer"]["requests"] == requests + 3, "four in a transaction"
        assert (await db.status()).processes_open == 1
        probed.clear()
        assert await db.recover() == sessiondb.Recovered()
        await db.plan_resumes()
        assert probed == [1, 1], "this process"


@pytest.mark.anyio
async def test_recovery_goes_in_bounded_steps_and_can_be_cut_short(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RECOVER_AT_ONCE", 4)
    async with sessiondb.open(tmp_db) as db:
        await db.set_lane("main", concurrency=100, priority=0)
        for number in range(10):
            await say(db, f"e{number}", f"agent:main:web:{number}")
            await claimed(db)
        await hand_over(db)
        part, done = await db.write("part", lambda tx: recovery.release(tx, 2, "it"))
        assert (part, done) == (sessiondb.Recovered(turns=4), False)
        steps: list[int] = []
        release = recovery.release

        def counted(*args: Any, **options: Any) -> Any:
            found = release(*args, **options)
            steps.append(found[0].turns)
            return found

        monkeypatch.setattr(recovery, "release", counted)
        assert await db.recover() == sessiondb.Recovered(instances=1, turns=6)
        assert steps == [4, 2]
        assert set((await inbox_states(db)).values()) == {"interrupted"}
        [done] = [event for event in await look(db, "events") if event.kind == "recovery_done"]
        assert (
            done.text
            == "gone, pid 1 died; this recovery released 6 turns, 0 compactions, 0 replies"
        ), "of all its steps, and its own"
        assert json.loads(done.data) == {
            "instance_no": 2,
            "turns": 6,
            "compactions": 0,
            "replies": 0,
        }
        assert (await kinds(db, "operator")).count("turn_interrupted") == 10, (
            "each turn of the recovery before has its own event"
        )


async def running_compaction(db: sessiondb.SessionDB, number: int) -> None:
    session = await db.session(f"agent:main:web:{number}")
    await session.append_many([user("a " * 500), reply("b"), user("a " * 500), reply("b")])
    begin = partial(begin_in, trigger="threshold", keep_recent_tokens=1, timeout_ms=180_000)
    await db.write("begin", lambda tx: begin(tx, session.ref.session_no))


@pytest.mark.anyio
@pytest.mark.parametrize("owner", ["unknown", "closed", "here"])
async def test_an_overdue_compaction_of_any_process_is_ended(
    tmp_db: Path, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer, "_now_ms", clock)
    monkeypatch.setattr("sessiondb.clock.now_ms", clock)
    monkeypatch.setattr(recovery, "RECOVER_AT_ONCE", 2)
    async with sessiondb.open(tmp_db) as db:
        for number in range(3):
            await running_compaction(db, number)
        if owner == "unknown":
            await hand_over(db, boot_id=process.boot_id())
        elif owner == "closed":
            await hand_over(db, closed_at_ms=1)
        clock.pass_ms(181_000)
        assert await db.recover() == sessiondb.Recovered(), (
            "a live owner has a moment to end it itself"
        )
        clock.pass_ms(1_000)
        assert await db.recover() == sessiondb.Recovered(compactions=3), "in steps of two"
        assert await db.held() == []
        assert [job.state async for job in db.compactions()] == ["expired"] * 3
        assert (await kinds(db)).count("compaction_failed") == 3
        requests = (await db.stats())["writer"]["requests"]
        assert await db.recover() == sessiondb.Recovered()
        assert (await db.stats())["writer"]["requests"] == requests, (
            "it writes only when there is something to end"
        )


@pytest.mark.anyio
async def test_a_status_and_its_holdings_are_of_one_snapshot(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await say(db, "e1")
        turn = await claimed(db)
        await running_compaction(db, 2)
        found = await db.status()
        assert list(found.held) == await db.held()
        [working, *compacting] = found.held
        assert (working.what, working.turn_no, working.name) == (
            "turn",
            turn.turn_no,
            str(turn.turn_no),
        )
        jobs = [job.compaction_id async for job in db.compactions() if job.state == "running"]
        assert [(job.what, job.compaction_id, job.name) for job in compacting] == [
            ("compaction", job_id, job_id) for job_id in reversed(jobs)
        ]
        assert [(one.turn_no, one.outbox_no) for one in compacting] == [(None, None)]
        assert (found.gateway.turns_running, len(found.running)) == (1, 1)
        looked: list[str] = []
        read = db.read

        async def noted(op: str, *args: Any) -> Any:
            looked.append(op)
            return await read(op, *args)

        db.read = noted  # type: ignore[method-assign]
        await db.status()
        assert looked == ["status"]


@pytest.mark.anyio
async def test_the_kernel_is_asked_on_another_thread(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[int] = set()
    async with sessiondb.open(tmp_db) as db:
        liveness = db.backend.liveness

        def noted(rows: Sequence[Any]) -> list[bool | None]:
            asked.add(threading.get_ident())
            return liveness(rows)

        monkeypatch.setattr(db.backend, "liveness", noted)
        await say(db, "e1")
        await claimed(db)
        for call in (db.held, db.recover, db.plan_resumes, db.status):
            asked.clear()
            await call()
            assert asked, f"{call} asks"
            assert threading.get_ident() not in asked


@pytest.mark.anyio
@pytest.mark.parametrize("at_once", [1, 2, 3])
async def test_the_pages_of_a_recovery_make_no_difference(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two died, holding several of each kind. Others live, or nothing is known of them."""
    world = make_world()
    monkeypatch.setattr("sessiondb.clock.now_ms", lambda: world.now_ms)

    def judged(rows: Sequence[Any]) -> list[bool | None]:
        known = {"dying": False, "dying-too": False, "remote": None}
        return [known.get(row.program, True) for row in rows]

    async def recovered() -> list[Any]:
        direct = world.direct()
        monkeypatch.setattr(direct, "liveness", judged, raising=False)
        with world.undone():
            for table, state in (("turn", "running"), ("compaction", "running")):
                world.connection.execute(
                    f"UPDATE {table} SET instance_no = ? WHERE state = ? AND instance_no = ?",
                    (world.no("instance dying"), state, world.no("instance other")),
                )
            world.connection.execute(
                "UPDATE outbox SET state = 'sending', instance_no = ?, expires_at_ms = ?,"
                " finished_at_ms = NULL WHERE state = 'unknown'",
                (world.no("instance dying"), world.now_ms),
            )
            first = await recovery.recover(direct), world.changed()
            # Another process dies later. What was released stays as it is.
            known_before = world.changed()
            assert await recovery.recover(direct) == sessiondb.Recovered()
            assert world.changed() == known_before
            monkeypatch.setattr(direct, "liveness", lambda rows: [False] * len(rows))
            return [*first, await recovery.recover(direct), world.changed()]

    whole = await recovered()
    assert whole[0] == sessiondb.Recovered(instances=2, turns=5, compactions=5, replies=5)
    monkeypatch.setattr(recovery, "RECOVER_AT_ONCE", at_once)
    assert await recovered() == whole

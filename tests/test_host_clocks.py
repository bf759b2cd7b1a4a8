"""A host program that stops the clock while its tests run, seeds `random`, or replaces `uuid4`.

Two packages stop the clock. freezegun puts its own functions in the place of those of the module
`time`, in every module that has imported them, and of `time.monotonic` as well: an event loop's
timers stand still, or fire at once. time-machine replaces the wall clock in C, and leaves the
monotonic one alone. What holds whichever it is, and whenever the library is imported:

* The times of a transcript are those of the stopped clock.
* Leases are renewed, deadlines pass, locks are waited for and retries come in real time.
* No id comes twice, in two processes neither.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sessiondb
import sessiondb.sync
from tests import ROOT
from tests.support.core import query
from tests.support.engine import PATIENCE_S, locked_by_another_process

FREEZE = {
    "freezegun": """
import freezegun
stop = freezegun.freeze_time("2020-01-01T00:00:00Z")
begin, end = stop.start, stop.stop
""",
    "time-machine": """
import datetime, time_machine
stop = time_machine.travel(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), tick=False)
begin, end = stop.start, stop.stop
""",
}
FROZEN_MS = 1_577_836_800_000
FROZEN = "2020-01-01T00:00:00.000Z"
KEY = "agent:main:web:1"

IMPORT = """
import logging, sys, threading
logging.disable(logging.WARNING)  # a turn that is to fail
from functools import partial
import anyio
import sessiondb, sessiondb.sync
from sessiondb import Answer, LaneSettings
path, backend, times_longer = sys.argv[1], sys.argv[2], float(sys.argv[3])
"""

# A turn outlives three leases, one is cut off, one is tried again, and a compaction expires.
GATEWAY = """
def really_wait(seconds):
    threading.Event().wait(seconds)

async def works(turn):
    if turn.message["content"] == "fails once" and turn.attempt == 1:
        raise ValueError("the first attempt")
    if turn.message["content"] == "never ends":
        await anyio.sleep_forever()
    if turn.message["content"] == "slow":
        in_the_middle()
        await anyio.to_thread.run_sync(really_wait, 1.5 * times_longer)
        found = await turn._db.release_expired()
        assert found == sessiondb.Recovered(), found
    return Answer(entries=[{"role": "assistant", "content": [{"type": "text", "text": "done"}]}])

async def gateway():
    settings = LaneSettings(lease_s=0.6 * times_longer, timeout_s=20.0 * times_longer)
    short = LaneSettings(timeout_s=0.3, attempts_max=1)
    limits = sessiondb.Limits(busy_timeout_s=0.2)
    async with sessiondb.open(path, limits=limits) as db:
        await db.set_lane("short", concurrency=1, priority=5)
        session = await db.session("agent:main:web:talk")
        for number in range(8):
            await session.append({"role": "user", "content": f"{number} " * 200})
            await session.append(
                {"role": "assistant", "content": [{"type": "text", "text": f"{number} " * 200}]}
            )
        async with anyio.create_task_group() as group:
            group.start_soon(partial(db.run_lane, "main", works, settings=settings))
            group.start_soon(partial(db.run_lane, "short", works, settings=short))
            for number, text in enumerate(("slow", "fails once")):
                key = f"agent:main:web:{number}"
                message = {"role": "user", "content": text}
                await db.accept(key, message, channel="web", event_id=text)
            message = {"role": "user", "content": "never ends"}
            await db.accept("agent:main:web:9", message, channel="web", event_id="never ends",
                            lane="short")
            try:
                async with session.compact(keep_recent_tokens=10, timeout_s=0.3):
                    await anyio.sleep_forever()
            except sessiondb.CompactionTimeout:
                print("expired")
            while [row async for row in db.dead_letters()] == [] or await open_work(db):
                await db.backend.wait_change(db.backend.change_count, 0.1)
            group.cancel_scope.cancel()

async def open_work(db):
    return (await db.status()).gateway.messages_waiting + len(await db.held())

def in_the_middle():
    pass
"""

RUN = "anyio.run(gateway, backend=backend)\n"
# `{freeze}` makes `begin` and `end` known.
ORDERS = {
    "imported before": IMPORT + GATEWAY + "{freeze}begin()\n" + RUN,
    "imported under": "{freeze}begin()\n" + IMPORT + GATEWAY + RUN,
    "imported after": "{freeze}begin()\nend()\n" + IMPORT + GATEWAY + "{freeze}begin()\n" + RUN,
    "imported under, used after": "{freeze}begin()\n" + IMPORT + GATEWAY + "end()\n" + RUN,
    "stopped in the middle": IMPORT + GATEWAY + "{freeze}in_the_middle = begin\n" + RUN,
    "goes on in the middle": IMPORT + GATEWAY + "{freeze}in_the_middle = end\nbegin()\n" + RUN,
}


def child(code: str, *arguments: object, timeout_s: float = PATIENCE_S * 2) -> str:
    """Run a program to its end. Return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-3_000:]
    return done.stdout


# A machine that is busy enough keeps a process from renewing a short lease. Where the renewal is
# at fault, a lease of any length is lost.
TIMES_LONGER = (1, 5, 20)


# time-machine leaves the clock alone by which an event loop's timers go, whichever it is. What the
# order changes is the same under both loops.
@pytest.mark.parametrize(
    ("tool", "backend", "order"),
    [
        *(("freezegun", "asyncio", order) for order in ORDERS),
        ("freezegun", "trio", "imported under"),
        ("freezegun", "trio", "stopped in the middle"),
        ("time-machine", "trio", "imported under"),
        ("time-machine", "trio", "stopped in the middle"),
    ],
)
def test_a_gateway_works_on_while_the_clock_stands(
    tmp_db: Path, tool: str, order: str, backend: str
) -> None:
    code = ORDERS[order].replace("{freeze}", FREEZE[tool])
    for times_longer in TIMES_LONGER:
        path = tmp_db.with_name(f"{times_longer}.db")
        try:
            _works_on(code, path, backend, times_longer)
        except AssertionError:
            if times_longer == TIMES_LONGER[-1]:
                raise
        else:
            break


def _works_on(code: str, tmp_db: Path, backend: str, times_longer: int) -> None:
    assert child(code, tmp_db, backend, times_longer) == "expired\n"
    turns = query(
        tmp_db,
        "SELECT i.event_id, t.state, t.reason FROM turn AS t JOIN inbox AS i USING (inbox_no)"
        " ORDER BY t.turn_no",
    )
    ends: dict[str, list[Any]] = {}
    for event_id, *end in turns:
        ends.setdefault(event_id, []).append(tuple(end))
    assert ends["slow"] == [("completed", None)], "its lease was renewed, and nobody took it over"
    assert [state for state, _ in ends["fails once"]] == ["failed", "completed"]
    assert ends["never ends"] == [("failed", "cut off at its deadline of 0.3 s")]


@pytest.mark.parametrize("tool", FREEZE)
def test_a_transcript_has_the_times_of_the_application(tmp_db: Path, tool: str) -> None:
    """Of an append in the task of the caller, and of one that is encoded in a thread."""
    code = (
        FREEZE[tool]
        + """
import json, sys
import sessiondb.sync
begin()
with sessiondb.sync.open(sys.argv[1]) as db:
    session = db.session(sys.argv[2])
    session.append({"role": "user", "content": "short"})
    session.append({"role": "user", "content": "long " * 50_000})
    session.append_many([{"role": "user", "content": str(number)} for number in range(200)])
    session.reset()
    info = session.info()
    print({json.loads(entry.payload)["timestamp"] for entry in session.entries(limit=500)})
    print({info.created_at_ms, info.updated_at_ms})
"""
    )
    assert child(code, tmp_db, KEY) == f"{{'{FROZEN}'}}\n{{{FROZEN_MS}}}\n"
    assert query(tmp_db, "SELECT DISTINCT appended_at_ms FROM entry") == [FROZEN_MS]
    assert query(tmp_db, "SELECT opened_at_ms > 1.7e12 FROM instance") == [1], "that is real"


@pytest.mark.parametrize("tool", FREEZE)
def test_a_test_moves_the_clock_to_see_an_idle_reset(tmp_db: Path, tool: str) -> None:
    move = {
        "freezegun": "frozen.tick(3 * 3600)",
        "time-machine": "frozen.shift(3 * 3600)",
    }[tool]
    code = (
        FREEZE[tool]
        + f"""
import sys
import sessiondb.sync
from sessiondb import ResetPolicy
frozen = begin()
policy = ResetPolicy(mode="idle", idle_minutes=60)
with sessiondb.sync.open(sys.argv[1]) as db:
    db.session(sys.argv[2]).append({{"role": "user", "content": "hello"}})
    print(db.reset_if_due(sys.argv[2], policy))
    {move}
    print(db.reset_if_due(sys.argv[2], policy))
"""
    )
    assert child(code, tmp_db, KEY) == "None\nidle\n"


@pytest.mark.parametrize("tool", FREEZE)
def test_a_lock_is_waited_for_in_real_time(tmp_db: Path, tool: str) -> None:
    code = (
        FREEZE[tool]
        + """
import sys
import sessiondb.sync
from sessiondb import Limits
begin()
with sessiondb.sync.open(sys.argv[1], limits=Limits(busy_timeout_s=0.1)) as db:
    print("opened", flush=True)
    sys.stdin.readline()
    try:
        db.session(sys.argv[2])
    except sessiondb.StoreBusy:
        print("busy", flush=True)
    sys.stdin.readline()
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_db), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        with locked_by_another_process(tmp_db) as unlock:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "busy\n"
            unlock()
        process.stdin.write("\n")
    assert process.returncode == 0


@pytest.mark.parametrize("tool", FREEZE)
@pytest.mark.parametrize("imported", ["before", "under"])
def test_two_processes_that_stop_at_one_instant_make_different_ids(
    tmp_db: Path, tool: str, imported: str
) -> None:
    """Both have one seed, and a `uuid4` that is a constant. Both were forked from nothing."""
    patch = """
import random, uuid
random.seed(0)
uuid.uuid4 = lambda: uuid.UUID(int=7)
begin()
"""
    work = """
import json, sys
with sync.open(sys.argv[1]) as db:
    sessions = [db.create_session() for _ in range(3)]
    for session in sessions:
        session.append_many([{"role": "user", "content": "x"} for _ in range(60)])
        with session.compact(trigger="manual", keep_recent_tokens=5) as job:
            job.commit("they talked")
    print(json.dumps([session.id for session in sessions]))
"""
    order = ["from sessiondb import sync\n", patch]
    code = FREEZE[tool] + "".join(order if imported == "before" else reversed(order)) + work
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_db)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE_S * 2)[0] for process in processes]
    ids = [session_id for one in said for session_id in json.loads(one)]
    assert len(set(ids)) == 6
    entries = query(tmp_db, "SELECT entry_id FROM entry WHERE type <> 'session'")
    assert len(entries) == len(set(entries)) == 6 * 61
    jobs = query(tmp_db, "SELECT compaction_id FROM compaction")
    assert len(jobs) == len(set(jobs)) == 6


def test_the_generator_of_the_application_is_left_alone(tmp_db: Path) -> None:
    """A test that seeds it gets the same numbers with the library as without."""
    code = """
import random, sys
from sessiondb import sync
random.seed(0)
with sync.open(sys.argv[1]) as db:
    db.session(sys.argv[2]).append({"role": "user", "content": "hello"})
found = random.random()
random.seed(0)
print(found == random.random())
"""
    assert child(code, tmp_db, KEY) == "True\n"


@pytest.mark.parametrize("name", ["sleep", "time", "monotonic"])
def test_a_function_of_time_that_is_replaced_by_nothing_holds_nothing_up(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(f"time.{name}", lambda *_: 0.0)
    with sessiondb.sync.open(tmp_db) as db:
        assert db.session(KEY).append({"role": "user", "content": "hello"}).seq == 1

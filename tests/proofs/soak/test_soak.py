"""A short soak, and the faults that a soak must find (`make soak` runs these first).

Leaks, lost messages, doubled replies, a WAL without bound.

`make soak` runs the same program for 20 minutes (`SOAK_MINUTES`).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio.lowlevel
import anyio.to_thread
import pytest

import sessiondb
from tests.proofs.soak.__main__ import main, run
from tests.proofs.soak.audit import Ledger, audit, compare, text_of
from tests.proofs.soak.clock import SharedClock
from tests.proofs.soak.finish import check_channel, check_rows
from tests.proofs.soak.gateway import BLOCKS_S
from tests.proofs.soak.judge import (
    Broken,
    Reader,
    as_felt,
    growth,
    judge_alive,
    judge_lag,
    judge_processes,
    judge_space,
    judge_transactions,
    judge_troubles,
    judge_wal,
    only_grows,
    percentile,
)
from tests.proofs.soak.lag import LAG_STEP_S
from tests.proofs.soak.load import Soak
from tests.proofs.soak.plan import BREAKABLE, MIB, SPANS, Plan, short
from tests.proofs.soak.processes import environment
from tests.proofs.soak.report import WIDTH, record, table
from tests.proofs.soak.trouble_makers import disturb, fill_pool
from tests.proofs.soak.troubles import (
    BACKLOG,
    BRANCH,
    CONTAINER,
    OF,
    REQUEUE,
    RESET,
    STARTS,
    TRIO,
    WRONG_ANSWER,
    Met,
)
from tests.proofs.soak.watch import Series
from tests.support.core import change
from tests.support.gateway import KEY, claimed, complete, held_message, said
from tests.support.gateway_process import Gateway, Settings

pytestmark = pytest.mark.slow


# Bounds of times. A few seconds on a busy machine may break them, so only a long soak is
# judged by them, and here the bounds themselves.
TIMED = {"lag", "transaction"}


NO_SHARES = dict.fromkeys(OF, 0.0)


def bounds_broken(soak: Soak) -> set[str]:
    return {broken.bound for broken in soak.broken}


# A short soak, and eleven that are spoilt: they show what a long one is worth, and run before it.
only_before_a_soak = pytest.mark.skipif(
    "SOAK_TEETH" not in os.environ, reason="a short soak; `make soak` runs it (SOAK_TEETH=1)"
)


@pytest.mark.slow
@only_before_a_soak
def test_a_few_seconds_of_everything_break_no_bound(tmp_path: Path) -> None:
    soak = asyncio.run(run(short(tmp_path / "soak")))
    soak.broken = [broken for broken in soak.broken if broken.bound not in TIMED]
    drawn = table(soak)
    print(drawn)
    assert soak.broken == [], drawn
    assert soak.people.counted["acknowledged"] == sum(
        map(len, soak.people.ledger.acknowledged.values())
    )
    assert soak.counted["kills"] >= 3  # one under load, both at the end
    assert soak.counted["backups audited"] >= 1
    assert (
        soak.counted["sessions archived by gateways"] + soak.counted["archives restored by audits"]
        >= 1
    )
    assert soak.counted["sessions audited at the end"] + soak.counted[
        "sessions deleted, audited before"
    ] == len(soak.people.ledger.acknowledged)
    # The second of the mortal gateway's lives is in a container, if there are any, under trio.
    assert soak.met.times[TRIO] >= 1
    assert CONTAINER in soak.met.not_here or soak.met.times[CONTAINER] >= 1
    assert "ok: every bound held" in drawn
    assert json.loads(json.dumps(record(soak), default=str))["series"].keys() >= {
        "wal_bytes",
        "elder rss",
        "rows entry",
        "waiting",
    }


# What each injected fault must be called. A doubled reply and a lost message are found
# at the end, the rest while it runs.
NAMES = {
    "descriptors": "descriptors",
    "threads": "threads",
    "memory": "memory",
    "checkpoints": "wal",
    "acknowledgement": "lost",
    "reply": "reply sent twice",
    "loop": "lag",
    "transaction": "transaction",
    "silence": "verify",
}


def without_company(folder: Path, *broken: str, messages_min: int = 80) -> Plan:
    """Return a plan of conversations, wrong answers and a kill.

    Nothing in it resets the WAL from outside.
    """
    never = (1e6, 1e6)
    return short(
        folder,
        broken=broken,
        seconds=1.5,
        messages_min=messages_min,
        wal_bytes_max=2 * MIB,
        text_chars=4_000,
        backups_min=0,
        imports_min=0,
        backup_s=1e6,
        import_s=never,
        command_s=never,
        restore_s=never,
        reader_s=never,
        shares={**NO_SHARES, WRONG_ANSWER: 0.2},
        spans=dict.fromkeys(SPANS, never),
    )


@only_before_a_soak
def test_a_gateway_that_leaks_loses_and_doubles_is_reported(tmp_path: Path) -> None:
    """Seven faults at once. Each is found by what is counted, so on any machine."""
    assert set(NAMES) == set(BREAKABLE)
    faults = [fault for fault in BREAKABLE if NAMES[fault] not in TIMED]
    soak = asyncio.run(run(without_company(tmp_path / "soak", *faults, messages_min=160)))
    drawn = table(soak)
    assert bounds_broken(soak) - TIMED == {NAMES[fault] for fault in faults}, drawn
    assert all(f"BROKEN {NAMES[fault]} at" in drawn for fault in faults)


@only_before_a_soak
def test_a_gateway_that_blocks_loop_or_writer_is_measured(tmp_path: Path) -> None:
    """How long they are blocked has a lower bound on any machine.

    An idle process beside them is late, too, on a busy one. So they are judged here as
    beside one that never is.
    """
    soak = asyncio.run(run(without_company(tmp_path / "soak", "loop", "transaction")))
    op, held_ms = soak.held
    assert (op, held_ms >= 1_000 * BLOCKS_S) == ("dawdle", True), soak.held
    assert max(soak.lags["load"]) >= 10_000 * (BLOCKS_S - LAG_STEP_S)
    assert judge_transactions(soak.plan, soak.held, {}, 0.0)
    assert judge_lag(soak.plan, soak.lags["load"], {}, 0.0)
    assert bounds_broken(soak) <= TIMED, table(soak)


@only_before_a_soak
@pytest.mark.parametrize("broken", BREAKABLE)
def test_each_fault_alone_is_called_by_its_name_only(tmp_path: Path, broken: str) -> None:
    soak = asyncio.run(run(without_company(tmp_path / "soak", broken)))
    assert bounds_broken(soak) == {NAMES[broken]}, table(soak)


def test_a_broken_soak_ends_with_exit_code_1_a_whole_one_with_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[list[Broken]] = [[], [Broken("wal", 17.0, "too large")]]

    async def pretend(plan: Plan) -> Soak:
        plan.folder.mkdir(exist_ok=True)
        soak = Soak(plan)
        soak.broken = ended.pop(0)
        return soak

    monkeypatch.setattr("tests.proofs.soak.__main__.run", pretend)
    assert main(["--folder", str(tmp_path / "a")]) == 0
    assert main(["--folder", str(tmp_path / "b")]) == 1
    assert "BROKEN wal at 17.0 s: too large" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "b" / "soak.json").read_text("utf-8"))["broken"][0]["bound"] == "wal"
    )


# -- the bounds themselves -------------------------------------------------------------


def series(**values: list[float]) -> Series:
    """Return series over a hundred seconds, each value held for an equal part of them."""
    created = Series()
    for name, steps in values.items():
        for at in range(100):
            created.add(name.replace("_", " ", 1), float(at), steps[at * len(steps) // 100])
    return created


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(tmp_path)


@pytest.mark.parametrize(
    ("what", "steps", "broken"),
    [
        ("elder_descriptors", [20, 20, 20, 20], []),
        ("elder_descriptors", [5, 20, 20, 23], []),
        ("elder_descriptors", [20, 20, 22, 24], ["descriptors"]),
        ("elder_descriptors", [20, 20, 20, 99, 20, 20, 20, 20], []),  # came, and went
        ("elder_threads", [8, 8, 12, 12], ["threads"]),
        ("elder_threads", [8, 8, 40, 8, 8, 8, 40, 8], []),
        ("elder_rss", [30 * MIB, 50 * MIB, 55 * MIB, 60 * MIB], []),
        ("elder_rss", [30 * MIB, 50 * MIB, 60 * MIB, 70 * MIB], ["memory"]),
        ("mortal_rss", [30 * MIB, 50 * MIB, 60 * MIB, 70 * MIB], []),
    ],
)
def test_what_a_gateway_holds_may_vary_and_not_grow(
    plan: Plan, what: str, steps: list[float], broken: list[str]
) -> None:
    assert [
        found.bound for found in judge_processes(plan, series(**{what: steps}), 0.0, 100.0)
    ] == broken


@pytest.mark.parametrize(
    ("values", "broken"),
    [
        ({"rows_entry": [100, 10_000, 12_000, 11_000]}, []),
        ({"rows_entry": [100, 10_000, 15_000, 20_000]}, ["rows"]),
        (
            {"rows_session": [100, 10_000, 15_000, 20_000]},
            [],
        ),  # reported, not judged: tombstones stay
        ({"waiting": [5, 10, 12, 20]}, []),
        ({"waiting": [5, 10, 100, 200]}, ["queue"]),
        ({"free_bytes": [0, 100 * MIB, 100 * MIB, 100 * MIB, 1 * MIB]}, []),
        ({"free_bytes": [0, 100 * MIB, 100 * MIB, 100 * MIB]}, ["free pages"]),
    ],
)
def test_a_table_a_queue_or_a_file_that_only_grows_is_told(
    plan: Plan, values: dict[str, list[float]], broken: list[str]
) -> None:
    plan = replace(plan, prune_age_s=25.0)
    created = series(**values)
    created.values = {
        name if name.startswith("rows") else name.replace(" ", "_"): found
        for name, found in created.values.items()
    }
    assert [found.bound for found in judge_space(plan, created, 0.0, 100.0)] == broken


@pytest.mark.parametrize(
    ("size", "held", "broken"),
    [
        (8 * MIB, [], False),
        (8 * MIB + 1, [], True),
        (40 * MIB, [(45.0, 60.0)], False),  # five seconds old at 50: 48 MiB and one second's grace
        (70 * MIB, [(45.0, 60.0)], True),
        (40 * MIB, [(30.0, 48.0)], False),  # ended two seconds ago
        (40 * MIB, [(10.0, 20.0)], True),  # ended long ago
        (40 * MIB, [(51.0, 60.0)], True),  # not begun
    ],
)
def test_a_wal_is_judged_by_its_limit_and_by_open_snapshots(
    plan: Plan, size: int, held: list[tuple[float, float]], broken: bool
) -> None:
    created = Series({"wal_bytes": [(1.0, MIB), (50.0, size)]})
    found = judge_wal(plan, created, [Reader(*span, "test") for span in held])
    assert [(one.bound, one.when_s) for one in found] == ([("wal", 50.0)] if broken else [])


# Tenths of a millisecond, and how often: an hour of sleeps of 10 ms, of which a few took longer.
@pytest.mark.parametrize(
    ("load", "idle", "broken"),
    [
        ({10: 360_000}, {5: 360_000}, False),
        (
            {10: 350_000, 1_500: 5_000},
            {5: 360_000},
            False,
        ),  # 150 ms, again and again: a busy machine
        ({10: 350_000, 4_000: 50}, {5: 360_000}, False),  # 400 ms, now and then
        (
            {10: 300_000, 10_000: 100},
            {5: 360_000},
            True,
        ),  # blocked for a second, 100 times: 0.03 % of all sleeps, and 3 % of the time
        ({10: 300_000, 4_000: 5_000}, {5: 360_000}, True),
        (
            {10: 300_000, 4_000: 5_000},
            {5: 300_000, 600: 5_000},
            False,
        ),  # an idle process is late as well
        ({}, {}, False),
    ],
)
def test_an_event_loop_is_judged_beside_an_idle_one(
    plan: Plan, load: dict[int, int], idle: dict[int, int], broken: bool
) -> None:
    assert [found.bound for found in judge_lag(plan, load, idle, 100.0)] == (
        ["lag"] if broken else []
    )


def test_callbacks_due_while_a_loop_is_blocked_count_as_late() -> None:
    assert as_felt({5: 10, 350: 2}) == {5: 10, 350: 2, 250: 2, 150: 2, 50: 2}
    assert percentile(as_felt({0: 100, 10_000: 1}), 0.99) > 9_000
    assert percentile({0: 100, 10_000: 1}, 0.99) == 0  # which is why


@pytest.mark.parametrize(
    ("took_ms", "idle", "broken"),
    [
        (60.0, {5: 100}, False),
        (501.0, {5: 100}, False),
        (502.0, {5: 100}, True),
        (1_200.0, {5: 100, 4_000: 1}, False),
        (1_300.5, {5: 100, 4_000: 1}, True),
    ],
)
def test_a_transaction_is_judged_beside_an_idle_process(
    plan: Plan, took_ms: float, idle: dict[int, int], broken: bool
) -> None:
    found = judge_transactions(plan, ("append", took_ms), idle, 100.0)
    assert [one.bound for one in found] == (["transaction"] if broken else [])


@pytest.mark.parametrize(
    ("seconds", "times", "not_here", "broken"),
    [
        (3_600.0, 1, "", []),
        (3_600.0, 0, "", ["never met"]),
        (3_600.0, 0, "skipped: namespaces are not allowed here", []),
        (60.0, 0, "", []),  # too short to tell
    ],
)
@pytest.mark.parametrize("trouble", [CONTAINER, BACKLOG])
def test_a_trouble_that_a_long_course_never_met_is_told(
    plan: Plan, seconds: float, times: int, not_here: str, broken: list[str], trouble: str
) -> None:
    plan = replace(
        plan, seconds=seconds, shares={**NO_SHARES, CONTAINER: 0.5}, spans={BACKLOG: (60, 60)}
    )
    met = Met(Counter({CONTAINER: 9, BACKLOG: 9, trouble: times}))
    met.calls[STARTS] = round(seconds / 100)
    if not_here:
        met.not_here[trouble] = not_here
    assert [found.bound for found in judge_troubles(plan, met, seconds)] == broken


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "lane"), [(RESET, "resume"), (BRANCH, "resume"), (REQUEUE, "main")]
)
async def test_what_comes_between_a_message_and_its_resume_is_what_it_is_called(
    tmp_db: Path, name: str, lane: str
) -> None:
    async with sessiondb.open(tmp_db) as db:
        await held_message(db, "e1")
        found = await db.write("disturb", lambda tx: disturb(tx, 1, {name: 1.0}))
        assert found == (1, [name])
        assert await said(db, KEY) == ([] if name in (RESET, BRANCH) else ["e1"])
        await db.resume()
        started = await claimed(db, lane)
        assert await said(db, KEY) == ["e1"]
        await complete(db, started.turn_no, "yes")
        assert (await db.verify()).ok


@pytest.mark.anyio
async def test_a_call_that_waits_for_the_applications_threads_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def waits() -> None:
        await anyio.to_thread.run_sync(str, abandon_on_cancel=True)

    assert await fill_pool(0.0, anyio.lowlevel.checkpoint)
    monkeypatch.setattr("tests.proofs.soak.trouble_makers.POOL_S_MAX", 0.05)
    assert not await fill_pool(0.0, waits)


@pytest.mark.parametrize(("found_dead", "broken"), [(4, []), (5, []), (6, ["alive"])])
def test_no_more_processes_are_found_dead_than_have_ended(
    plan: Plan, found_dead: int, broken: list[str]
) -> None:
    soak = Soak(plan)
    soak.counted["kills"] = 2
    soak.counted["stops that were not signed off"] = 1
    soak.commands.codes.update({"gc killed": 1, "gc 5": 1, "gc 0": 9})
    found = judge_alive(found_dead, soak.ended_unsigned(), 1.0)
    assert [one.bound for one in found] == broken


def test_all_processes_of_a_soak_have_one_clock(tmp_path: Path) -> None:
    clock = SharedClock(tmp_path / "clock")
    assert [clock.step(seconds, within_s=20.0) for seconds in (-5.0, 100.0)] == [-5.0, 25.0]
    before_s = time.time()
    script = (
        "import time; from sessiondb import clock; "
        "print(time.time(), time.time_ns() / 1e9, clock.now_ms() / 1e3)"
    )
    there = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(Plan(tmp_path)),
        capture_output=True,
        check=True,
    )
    found = [float(time_s) for time_s in there.stdout.split()]
    for now_s in found:
        assert now_s <= clock.now_s()
        assert now_s > before_s + 19.0


def test_a_table_that_grew_in_every_quarter_is_marked() -> None:
    created = Series()
    for at in range(101):
        created.add("rows turn", float(at), at * 10.0)
        created.add("rows entry", float(at), 500.0)
    assert growth(created, "turn", 0.0, 100.0) == (250.0, 500.0, 750.0, 1000.0)
    assert only_grows(growth(created, "turn", 0.0, 100.0))
    assert not only_grows(growth(created, "entry", 0.0, 100.0))


# -- what is checked at the end --------------------------------------------------------


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a gateway that answered four messages.

    It has the database and the channel.
    """
    folder = tmp_path_factory.mktemp("settled")
    gateway = Gateway(
        folder / "soak.db", Settings(str(folder / "channel.jsonl"), refuse=0.0, compact=False)
    )
    for number in range(4):
        gateway.accept(f"t{number % 2}:{number}", f"t{number % 2}", f"message {number}")
        gateway.until("accepted")
    gateway.send("settle")
    gateway.until("settled")
    gateway.stop()
    return folder


@pytest.mark.parametrize(
    ("broken", "how", "bound"),
    [
        ("nothing", (), None),
        (
            "a turn that is still running",
            ("UPDATE turn SET state = 'running', finished_at_ms = NULL WHERE turn_no = 4",),
            "held",
        ),
        ("a process that never ended", ("UPDATE instance SET closed_at_ms = NULL",), "held"),
        (
            "a message that waits",
            ("UPDATE inbox SET state = 'interrupted' WHERE inbox_no = 2",),
            "settled",
        ),
        ("a message that was answered twice", ("UPDATE turn SET inbox_no = 3",), "completed twice"),
        ("a reply that came twice", "twice", "reply sent twice"),
        ("a reply that never came", "never", "reply lost"),
    ],
)
def test_the_end_of_a_soak_notices_what_is_left(
    settled: Path, tmp_path: Path, broken: str, how: tuple[str, ...] | str, bound: str | None
) -> None:
    soak = Soak(short(tmp_path / "soak"))
    shutil.copy(settled / "soak.db", soak.plan.database)
    lines = (settled / "channel.jsonl").read_bytes().splitlines(keepends=True)
    if how == "twice":
        lines.append(lines[0])
    elif how == "never":
        del lines[0]
    else:
        change(soak.plan.database, *how)
    soak.plan.channel.write_bytes(b"".join(lines))
    check_rows(soak)
    check_channel(soak)
    assert bounds_broken(soak) == ({bound} if bound is not None else set()), broken


# -- the audit itself ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "statement", "says"),
    [
        ("nothing", None, None),
        (
            "an end without an answer",
            "UPDATE turn SET state = 'failed' WHERE turn_no = 2",
            "item 2 is done, but its turn 2 is failed, and no event told its sender",
        ),
        (
            "an end that only the operator sees",
            """INSERT INTO event (event_no, kind, audience, session_no, at_ms, text, data)
            VALUES (999, 'message_dead', 'operator', 1, 1, '', '{"inbox_no": 3}');
            UPDATE inbox SET state = 'dead', told_no = 999 WHERE inbox_no = 3""",
            "event 999, which is to have told its sender, is message_dead for operator",
        ),
        (
            "a question that another turn is said to answer",
            """INSERT INTO event (event_no, kind, audience, session_no, at_ms, text, data)
            SELECT 999, 'message_superseded', 'user', session_no, 1, '', '{"inbox_no": 1}'
            FROM inbox WHERE inbox_no = 1;
            UPDATE inbox SET superseded_by = 2, told_no = 999 WHERE inbox_no = 1""",
            "item 2, which superseded it, is no later one of its session",
        ),
    ],
)
def test_the_audit_finds_a_sender_who_waits_in_vain(
    settled: Path, tmp_path: Path, broken: str, statement: str | None, says: str | None
) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(settled / "soak.db", copy)
    if statement is not None:
        change(copy, statement)
    problems = audit(copy, Ledger(60)).problems
    if says is None:
        assert problems == [], broken
    else:
        assert any(says in problem for problem in problems), (broken, problems)


IDS = ["t0:1", "t0:2", "t0:3"]


@pytest.mark.parametrize(
    ("stored", "waiting", "found"),
    [
        (IDS, [], {}),
        (IDS[:2], IDS[2:], {}),
        ([*IDS, "t0:4"], [], {}),  # sent, and not acknowledged
        (IDS[:2], [], {"lost": ["t0:3"]}),
        ([*IDS, "t0:2"], [], {"doubled": ["t0:2"]}),
        (IDS, ["t0:3"], {"doubled": ["t0:3"]}),
        (
            ["t0:2", "t0:1", "t0:3"],
            [],
            {"out_of_order": ["['t0:2', 't0:1', 't0:3'] instead of ['t0:1', 't0:2', 't0:3']"]},
        ),
        ([*IDS, "t9:9"], [], {"invented": ["t9:9"]}),
        (["t0:1", "t0:2!", "t0:3"], [], {"changed": ["t0:2"]}),
    ],
)
def test_the_audit_finds_what_is_lost_doubled_or_changed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: list[str],
    waiting: list[str],
    found: dict[str, Any],
) -> None:
    ledger = Ledger(60, {"s-1": IDS}, dict.fromkeys([*IDS, "t0:4"], ""))

    def text(event_id: str) -> str:
        known = event_id.rstrip("!")
        return text_of(known, 60) + ("!" if event_id != known else "")

    monkeypatch.setattr(
        "tests.proofs.soak.audit._said",
        lambda path, number: [text(event_id) for event_id in [*stored, *waiting]],
    )
    monkeypatch.setattr(
        "tests.proofs.soak.audit.query",
        lambda path, sql, *values: [("s-1", 1)] if "session_id, session_no" in sql else [],
    )
    findings = compare(tmp_path, ledger)
    assert findings.whole == {"s-1": 3}
    for name in ("lost", "doubled", "out_of_order", "invented", "changed"):
        assert getattr(findings, name) == found.get(name, []), name


@pytest.mark.parametrize(
    ("stored", "is_found"),
    [
        (["t0:cron1", "t0:1", "t0:cron2"], False),  # a person and a program spoke at once
        (["t0:1", "t0:cron2", "t0:cron1"], True),
    ],
)
def test_the_audit_knows_an_order_for_each_lane_and_who_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: list[str], is_found: bool
) -> None:
    heard = ["t0:1", "t0:cron1", "t0:cron2"]
    ledger = Ledger(60, {"s-1": heard}, dict.fromkeys(heard, ""), dict.fromkeys(heard, "cron"))
    monkeypatch.setattr(
        "tests.proofs.soak.audit._said", lambda path, number: [text_of(one, 60) for one in stored]
    )
    monkeypatch.setattr(
        "tests.proofs.soak.audit.query",
        lambda path, sql, *values: [("s-1", 1)] if "session_id, session_no" in sql else [],
    )
    assert bool(compare(tmp_path, ledger).out_of_order) is is_found


def test_an_acknowledged_message_without_its_session_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.proofs.soak.audit.query", lambda path, sql, *values: [])
    assert compare(tmp_path, Ledger(60, {"s-1": ["t0:1"]}, {"t0:1": ""})).lost == [
        "t0:1 (there is no session s-1)"
    ]


def test_the_table_fits_eighty_columns(tmp_path: Path) -> None:
    soak = Soak(short(tmp_path / "soak"))
    soak.counted[
        "a very long name of something that happened, which goes on and on and on and on"
    ] = 1_000_000
    for line in table(soak).splitlines():
        assert len(line) <= WIDTH, line

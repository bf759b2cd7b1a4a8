"""Kill -9 at named steps, at random steps and at random moments loses nothing.

Every step has a name (`proofs/crash/steps.py`). There are steps around each transaction
and behind each of its statements. Others are before and in the middle of each write and
sync of the main file, the WAL and a backup. The rest are around checkpoints, in
creating and migrating, and in closing. A child kills itself at a step. Then the
database is opened anew and compared with the ledger of the child's acknowledgements.
`verify` finds nothing, and the dead hold nothing. The scenario is then run again, to its
end, after which everything must be there once and in order.

The named steps are few and always the same. The others are drawn by a seeded generator
from a list of all steps of a scenario. A long run (`make crash`, `SESSIONDB_CRASHES`)
kills at thousands of places, up to four times in a row: a crash in the repair of a
crash. Of two processes at work, one is killed or frozen. Not modelled: power cuts
(written bytes are in the page cache), and kills inside one system call.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import apsw
import pytest

from tests.proofs.crash.harness import Death, Templates, World, Zygote, zygote

# In a short run a few. A long one is run by `make crash`.
CRASHES = int(os.environ.get("SESSIONDB_CRASHES", "4"))
LONG = CRASHES >= 100
SEED = int(os.environ.get("SESSIONDB_CRASHES_SEED", "20261120"))

pytestmark = pytest.mark.slow

NAMES = ("create", "migrate", "talk", "gateway", "recover", "maintain")

# In the order in which a scenario arrives at them: each life gets further than the one
# before. (step, arrival)
NAMED: dict[str, list[tuple[str, int]]] = {
    "create": [
        ("file made", 1),
        ("torn main", 30),
        ("schema statement", 40),
        ("torn wal", 2),
        ("statement instance.insert", 1),
        ("after last checkpoint", 1),
    ],
    "migrate": [("schema statement", 15), ("write wal", 20), ("after schema", 1)],
    "recover": [
        ("statement turns.finish", 2),
        ("statement outbox.lose_track", 1),
        ("before COMMIT of recover", 1),
        ("after COMMIT of resume", 1),
    ],
    "talk": [
        ("begun", 2),
        ("ran append", 2),
        ("before COMMIT of append", 2),
        ("torn wal", 20),
        ("sync wal", 6),
        ("after COMMIT of append", 2),
        ("before checkpoint", 1),
        ("torn main", 3),
        ("after checkpoint", 1),
        ("compacting", 1),
        ("before COMMIT of compaction.commit", 1),
        ("after COMMIT of reset", 1),
        ("truncate wal", 1),
    ],
    "gateway": [
        ("after COMMIT of inbox.accept", 1),
        ("statement turns.start", 1),
        ("after COMMIT of lane.claim", 1),
        ("handler began", 1),
        ("statement inbox.resume", 1),
        ("handler ends", 1),
        ("before COMMIT of turn.end", 1),
        ("after COMMIT of turn.end", 1),
        ("before the channel", 1),
        ("after the channel", 1),
        ("statement instance.close", 1),
    ],
    "maintain": [
        ("after COMMIT of import", 2),
        ("ran archive.delete", 1),
        ("torn copy", 40),
        ("before link", 1),
        ("before link", 3),
        ("after link", 2),
        ("after COMMIT of archive.begin", 1),
        ("after COMMIT of archive.chunk", 2),
        ("before COMMIT of archive.complete", 1),
        ("after COMMIT of archive.release", 1),
        ("ran archive.delete", 2),
        ("before COMMIT of archive.small", 1),
        ("after COMMIT of archive.small", 1),
        ("vacuum step", 1),
        ("after COMMIT of restore.begin", 1),
        ("ran restore.rows", 2),
        ("before COMMIT of restore.finish", 1),
        ("after COMMIT of archive.forget", 1),
    ],
}
# Each life at random steps may have a wall clock of its own, a day before or ahead of
# the one before.
DAY_S = 86_400.0
CLOCKS_S = (0.0, 0.0, -DAY_S, DAY_S)
# What these do is done by the next opening, so each of their steps needs a database of its own.
ONE_EACH = ("create", "migrate", "recover")
# What two processes do at once in one database. These make or migrate it, too.
PAIRED = ("talk", "gateway", "migrate", "gateway", "talk", "create")


@pytest.fixture(name="zygote")
def first_zygote() -> Zygote:
    return zygote()


@pytest.fixture
def second_zygote() -> Zygote:
    return zygote(1)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Templates:
    return Templates(tmp_path_factory.mktemp("templates"))


def finish(world: World, zygote: Zygote) -> Counter[str]:
    """Run the scenario to its end, and check that everything is there.

    The runs before it may have ended anywhere.
    """
    death = world.hear(zygote.live(world.order()))
    assert death.code == 0, death
    if world.scenario == "recover":  # what was given back is worked on by an ordinary gateway
        assert world.hear(zygote.live(world.order(scenario="gateway"))).code == 0
    return world.check_end()


def kill(
    world: World, zygote: Zygote, step: str, nth: int, *, clock_s: float = 0.0, check: bool = True
) -> Death:
    """Live a life that ends at a step, if it gets there, and check what is left of it."""
    death = world.hear(zygote.live(world.order(step, nth, options={"clock_s": clock_s})))
    if not check:
        return death
    try:
        world.check()
    except AssertionError as error:
        error.add_note(
            f"{world.scenario}, life {world.lives}, ended at {step!r}, arrival {nth}, clock "
            f"{clock_s:+g} s; seed {SEED}"
        )
        raise
    return death


@pytest.mark.parametrize("name", NAMES)
def test_a_process_that_dies_at_any_named_step_loses_nothing(
    name: str, templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    worlds = (templates.world(name, tmp_path / f"world-{number}") for number in itertools.count())
    world = next(worlds)
    for step, nth in NAMED[name]:
        death = kill(world, zygote, step, nth)
        if not death.killed:  # what that step does had been done: begin anew
            world.check_end()
            world = next(worlds)
            death = kill(world, zygote, step, nth)
        assert death.killed, f"it never arrives at {step!r}, {nth}: {sorted(death.counts.items())}"
        if name in ONE_EACH:
            finish(world, zygote)
            world = next(worlds)
    finish(world, zygote)


def drawn(chance: random.Random, counts: dict[str, int]) -> tuple[str, int]:
    """Draw a step and an arrival.

    Each step is as likely as any other, so that those that come once are not rare.
    """
    step = chance.choice(sorted(counts))
    return step, chance.randint(1, counts[step])


def test_a_process_that_dies_at_random_steps_loses_nothing(
    templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    """Up to four lives in a row.

    In between nobody looks, or somebody does, whose opening has repaired what was
    broken off.
    """
    chance = random.Random(SEED)
    names = itertools.cycle(NAMES if LONG else ("talk", "maintain", "gateway"))
    steps: dict[str, dict[str, int]] = {}
    kills: Counter[str] = Counter()
    killed_at: set[tuple[str, str, int]] = set()
    in_a_row: Counter[int] = Counter()
    missed = 0
    while kills.total() < CRASHES:
        name = next(names)
        world = templates.world(name, folder := tmp_path / f"world-{in_a_row.total()}")
        if name not in steps:  # once without a kill: what it goes through
            steps[name] = world.hear(zygote.live(world.order())).counts
            world = templates.world(name, folder := tmp_path / f"world-{name}")
        lives = 1 if name in ONE_EACH else chance.randint(1, 4)
        died = 0
        for life in range(lives):
            clock_s = chance.choice(CLOCKS_S)
            seen = life == lives - 1 or chance.random() < 0.5
            death = kill(world, zygote, *drawn(chance, steps[name]), clock_s=clock_s, check=seen)
            if not death.killed:
                missed += 1
                break
            died += 1
            killed_at.add((name, death.order.step, death.order.nth))
        kills[name] += died
        in_a_row[died] += 1
        finish(world, zygote)
        shutil.rmtree(folder)
    known = sum(len(counts) for counts in steps.values())
    at = len({(name, step) for name, step, _ in killed_at})
    print(
        f"\n{kills.total()} kills at random steps, seed {SEED}: {dict(kills)}; {len(killed_at)} "
        f"different arrivals at {at} of "
        f"{known} steps; so many times so many in a row: {dict(sorted(in_a_row.items()))}; "
        f"{missed} lives did not get there"
    )
    if LONG:
        assert missed < kills.total()
        assert in_a_row[3] > 0


def test_of_two_processes_one_dies_and_the_other_continues(
    templates: Templates, zygote: Zygote, second_zygote: Zygote, tmp_path: Path
) -> None:
    """Both append, compact and checkpoint in one file.

    Or share lanes and an outbox. The survivor never fails.
    """
    chance = random.Random(SEED + 1)
    steps: dict[str, dict[str, int]] = {}
    kills = Counter[str]()
    wanted = max(2, CRASHES // 8)
    for number in itertools.count():
        name = PAIRED[number % len(PAIRED)]
        world = templates.world(name, folder := tmp_path / f"world-{number}")
        world.prefixes = ("a", "b")
        if name not in steps:
            steps[name] = zygote.live(
                templates.world(name, tmp_path / f"steps-{name}").order()
            ).counts
        step, nth = drawn(chance, steps[name]) if chance.random() < 0.7 else ("", 1)
        zygote.start(world.order(step, nth, prefix="a"))
        second_zygote.start(world.order(prefix="b"))
        if not step:  # at a random moment: after so many of its lines, and then a little while
            for _ in range(chance.randint(1, 30)):
                if zygote.next()["saw"] == "ended":
                    break
            # The random moment itself: nothing waits for anything here.
            time.sleep(chance.uniform(0, 0.01))
            zygote.signal(signal.SIGKILL)
        death = world.hear(zygote.end().require())
        kills[name] += death.killed
        world.hear(second_zygote.end().require())
        try:
            world.check()
            if name == "talk" or death.killed:
                world.hear(zygote.live(world.order(prefix="a")))
            world.check_end()
        except AssertionError as error:
            error.add_note(
                f"{name}, one of two killed at {step!r}, arrival {nth}; seed {SEED + 1}, round "
                f"{number}"
            )
            raise
        shutil.rmtree(folder)
        if kills.total() >= wanted:
            break
    print(
        f"\n{kills.total()} kills of one of two, seed {SEED + 1}: {dict(kills)}; {number + 1} "
        "rounds"
    )


def test_of_two_processes_one_freezes_and_both_finish(
    templates: Templates, zygote: Zygote, second_zygote: Zygote, tmp_path: Path
) -> None:
    """It freezes in a transaction, in a checkpoint, while it opens or closes.

    The other waits, or works on. No call fails.
    """
    chance = random.Random(SEED + 2)
    steps: dict[str, dict[str, int]] = {}
    frozen = Counter[str]()
    for number in itertools.count():
        name = PAIRED[number % len(PAIRED)]
        world = templates.world(name, folder := tmp_path / f"world-{number}")
        world.prefixes = ("a", "b")
        if name not in steps:
            steps[name] = zygote.live(
                templates.world(name, tmp_path / f"steps-{name}").order()
            ).counts
        step, nth = drawn(
            chance,
            {step: count for step, count in steps[name].items() if not step.startswith("torn")},
        )
        zygote.start(world.order(step, nth, prefix="a", how="SIGSTOP"))
        second_zygote.start(world.order(prefix="b"))
        while (line := zygote.next())["saw"] not in ("stopped", "ended"):
            continue
        if line["saw"] == "stopped":
            frozen[name] += 1
            time.sleep(chance.uniform(0, 0.2))  # for how long: nothing waits for anything here
            zygote.signal(signal.SIGCONT)
        world.hear(zygote.end().require())
        world.hear(second_zygote.end().require())
        try:
            world.check_end()
        except AssertionError as error:
            error.add_note(
                f"{name}, one of two frozen at {step!r}, arrival {nth}; seed {SEED + 2}, round "
                f"{number}"
            )
            raise
        shutil.rmtree(folder)
        if frozen.total() >= max(1, CRASHES // 12):
            break
    print(
        f"\n{frozen.total()} times one of two froze, seed {SEED + 2}: {dict(frozen)}; "
        f"{number + 1} rounds"
    )


# -- would it be noticed? --------------------------------------------------------------


def test_a_build_that_acknowledges_before_it_commits_is_caught(
    templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    world = templates.world("talk", tmp_path / "world")
    death = world.hear(
        zygote.live(world.order("before COMMIT of append", 2, broken="acknowledges_before_commit"))
    )
    assert death.killed
    with pytest.raises(AssertionError, match="acknowledged and not there"):
        world.check()


def test_verify_catches_a_build_that_counts_an_append_twice(
    templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    world = templates.world("talk", tmp_path / "world")
    death = world.hear(
        zygote.live(world.order("after COMMIT of append", 2, broken="counts_an_append_twice"))
    )
    assert death.killed
    with pytest.raises(
        AssertionError, match=r"verify: .*the session's last seq is \d+, but its last entry has \d+"
    ):
        world.check()


def test_a_build_that_migrates_without_a_transaction_is_caught(
    templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    world = templates.world("migrate", tmp_path / "world")
    death = world.hear(
        zygote.live(world.order("schema statement", 12, broken="migrates_without_a_transaction"))
    )
    assert death.killed
    with pytest.raises(apsw.SQLError, match="already exists"):
        world.check()


def test_a_build_that_leaves_claims_with_the_dead_is_caught(
    templates: Templates, zygote: Zygote, tmp_path: Path
) -> None:
    world = templates.world("recover", tmp_path / "world")
    broken_recovery = zygote.live(
        world.order(broken="buries_the_dead_without_releasing_their_claims")
    )
    assert broken_recovery.code == 0
    with pytest.raises(AssertionError, match="still held after recover"):
        world.check()

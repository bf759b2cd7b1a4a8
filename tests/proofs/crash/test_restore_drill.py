"""A gateway is killed under load, and somebody parts its three files. Nothing is lost in silence.

After each kill one thing is done that people do. A backup is put in the place of the
database. The database is moved away, or copied without its -wal. The -wal or the -shm is
removed, also below a gateway that still runs. Then the database is opened. Every message
that was acknowledged is there, or the refusal names the file that is in the way. What it
says is then done, and every message is there.

`make drill` runs 200 rounds. `SESSIONDB_DRILLS` and `SESSIONDB_DRILLS_SEED` choose another
number and another course.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import sessiondb.sync
from sessiondb import SessionDBError
from sessiondb.sqlite import transaction
from sessiondb.sqlite.transaction import Prepared
from tests.support.gateway_process import Gateway, Line, Settings

DRILLS = int(os.environ.get("SESSIONDB_DRILLS", "9"))
SEED = int(os.environ.get("SESSIONDB_DRILLS_SEED", "20261130"))

pytestmark = pytest.mark.slow

TALKS = [f"c{number}" for number in range(6)]
BESIDE = ("-wal", "-shm")
# A person speaks on before the answer, but not a hundred times.
WAITING_MAX = 10
POLICY = {"breaker_unclean_starts": 1_000_000, "budget_per_start": 1_000}

transaction.statements()["drill.messages"] = Prepared(
    "drill.messages", "SELECT event_id FROM inbox"
)


@dataclass
class Drill:
    """A database, a gateway that works on it, and what was acknowledged."""

    folder: Path
    chance: random.Random
    said: Counter[str] = field(default_factory=Counter)
    acknowledged: set[str] = field(default_factory=set)
    waiting: Counter[str] = field(default_factory=Counter)
    """Messages of each conversation that are acknowledged, and whose turn has not begun."""
    full: set[str] = field(default_factory=set)
    """Conversations that were full. They go on when a turn has made room."""
    at_start: set[str] = field(default_factory=set)
    """What had been acknowledged when the gateway at hand was started."""

    @property
    def path(self) -> Path:
        return self.folder / "gateway.db"

    def start(self) -> Gateway:
        self.at_start = set(self.acknowledged)
        # A kill loses what it was about to say, so some of these turns had begun, and after a
        # hundred kills nobody would speak any more.
        self.waiting.clear()
        self.full.clear()
        channel = str(self.folder / "channel.jsonl")
        seed = self.chance.getrandbits(32)
        gateway = Gateway(self.path, Settings(channel, seed=seed, refuse=0.0, policy=POLICY))
        gateway.until("ready")
        for talk in TALKS:
            self.say(gateway, talk)
        return gateway

    def say(self, gateway: Gateway, talk: str) -> None:
        """Say the next thing, or what was not acknowledged again."""
        number = self.said[talk]
        if number == 0 or f"{talk}:{number}" in self.acknowledged:
            number = self.said[talk] = number + 1
        gateway.accept(f"{talk}:{number}", talk, f"message {number} of {talk}, a few words long")

    def hear(self, gateway: Gateway, line: Line, *, goes_on: bool = True) -> None:
        if line["saw"] == "accepted":
            self.acknowledged.add(line["id"])
            self.waiting[line["talk"]] += 1
        elif line["saw"] == "turn":
            talk = line["text"].split(" of ")[1].split(",")[0]
            self.waiting[talk] = max(0, self.waiting[talk] - 1)
            if talk in self.full and goes_on:
                self.full.remove(talk)
                self.say(gateway, talk)
        elif line["saw"] == "full":
            self.full.add(line["talk"])
        else:
            return
        for talk in TALKS if goes_on else []:
            spoke = f"{talk}:{self.said[talk]}" in self.acknowledged
            if spoke and self.waiting[talk] < WAITING_MAX:
                self.say(gateway, talk)

    def load(self, gateway: Gateway, lines: int, *, may_stop: bool = False) -> None:
        while lines:
            line = gateway.next()
            if line is None:
                assert may_stop, gateway.errors.decode()
                return
            lines -= 1
            self.hear(gateway, line)

    def kill(self, gateway: Gateway) -> None:
        """Kill it at a moment that nothing waits for."""
        time.sleep(self.chance.uniform(0.0, 0.03))
        heard = len(gateway.lines)
        gateway.kill()
        for line in gateway.lines[heard:]:
            self.hear(gateway, line, goes_on=False)


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def messages(path: Path, *, readonly: bool = True) -> set[str] | str:
    """Return the messages in a database that is sound. Or what verify or the refusal says."""
    try:
        with sessiondb.sync.open(path, readonly=readonly) as db:
            report = db.verify()
            if not report.ok:
                return f"{path}: {report.findings}"
            return {
                event_id for (event_id,) in db.read("drill", lambda tx: tx.tuples("drill.messages"))
            }
    except SessionDBError as error:
        return str(error)  # the caller asks which file it names


def whole(drill: Drill, path: Path) -> None:
    """Check that everything that was acknowledged is in a database."""
    found = messages(path)
    assert not isinstance(found, str), found
    assert drill.acknowledged <= found, sorted(drill.acknowledged - found)


# -- what people do ----------------------------------------------------------------------


def restore(drill: Drill) -> str:
    """A backup is put in the place of the database, beside the -wal of the killed gateway."""
    gateway = drill.start()
    drill.load(gateway, drill.chance.randint(5, 60))
    backup, old = drill.folder / "backup.db", drill.folder / "old.db"
    before = set(drill.acknowledged)
    with sessiondb.sync.open(drill.path) as db:
        db.backup(backup)
    drill.load(gateway, drill.chance.randint(1, 60))
    drill.kill(gateway)
    if drill.chance.random() < 0.5:
        shutil.copy(drill.path, old)
        shutil.copy(backup, drill.path)
    else:
        drill.path.rename(old)
        shutil.copy(backup, drill.path)
    found = messages(drill.path, readonly=drill.chance.random() < 0.5)
    outcome = "opened"
    if isinstance(found, str):
        assert f"{drill.path.name}-wal: this WAL does not belong to" in found, found
        for suffix in BESIDE:
            beside(drill.path, suffix).rename(beside(old, suffix))
        found = messages(drill.path)
        outcome = "refused"
    # The backup as it was made, whatever came later.
    assert before <= found, sorted(before - set(found))
    assert found == messages(backup)
    whole(drill, old)
    backup.unlink()
    for suffix in ("", *BESIDE):
        beside(drill.path, suffix).unlink(missing_ok=True)
        if beside(old, suffix).exists():
            beside(old, suffix).rename(beside(drill.path, suffix))
    return outcome


def move_aside(drill: Drill) -> str:
    """The database is moved away without its -wal, and a gateway is started."""
    gateway = drill.start()
    drill.load(gateway, drill.chance.randint(5, 100))
    drill.kill(gateway)
    aside = drill.path.rename(drill.folder / "aside.db")
    wal = beside(drill.path, "-wal").read_bytes()
    if drill.chance.random() < 0.5:
        drill.path.touch()
    refused = messages(drill.path, readonly=False)
    assert isinstance(refused, str), "a new database was made beside the -wal of another one"
    assert f"{drill.path.name}-wal has" in refused, refused
    assert beside(drill.path, "-wal").read_bytes() == wal
    aside.replace(drill.path)
    return "refused"


def copy_without_wal(drill: Drill) -> str:
    """The one file is copied, after the kill or before it."""
    gateway = drill.start()
    drill.load(gateway, drill.chance.randint(5, 100))
    copy = drill.folder / "copy.db"
    drill.kill(gateway)
    shutil.copy(drill.path, copy)
    found = messages(copy, readonly=drill.chance.random() < 0.5)
    for suffix in ("", *BESIDE):
        beside(copy, suffix).unlink(missing_ok=True)
    if isinstance(found, str):
        assert copy.name in found, found
        return "refused"
    # What was there when the gateway started has been folded. Of the rest there is a part.
    assert drill.at_start <= found, sorted(drill.at_start - found)
    return "opened"


def remove_wal(drill: Drill) -> str:
    """The -wal of a killed gateway is removed."""
    gateway = drill.start()
    drill.load(gateway, drill.chance.randint(5, 100))
    drill.kill(gateway)
    kept = beside(drill.path, "-wal").rename(drill.folder / "kept")
    found = messages(drill.path, readonly=drill.chance.random() < 0.5)
    if isinstance(found, str):
        assert f"{drill.path.name}-wal is missing" in found, found
        kept.rename(beside(drill.path, "-wal"))
        return "refused"
    assert drill.acknowledged <= found, sorted(drill.acknowledged - found)
    kept.unlink()
    return "opened"


def remove_shm(drill: Drill) -> str:
    """The -shm of a killed gateway is removed."""
    gateway = drill.start()
    drill.load(gateway, drill.chance.randint(5, 100))
    drill.kill(gateway)
    beside(drill.path, "-shm").unlink()
    return "opened"


def remove_below_a_live_gateway(drill: Drill, suffixes: tuple[str, ...]) -> str:
    """It goes on being spoken to, until it stops by itself or has spoken for a while."""
    gateway = drill.start()
    drill.load(gateway, drill.chance.randint(5, 100))
    for suffix in suffixes:
        beside(drill.path, suffix).unlink()
    for talk in TALKS:
        drill.say(gateway, talk)
    drill.load(gateway, drill.chance.randint(1, 60), may_stop=True)
    drill.kill(gateway)
    assert b"was moved, deleted or replaced while it was open" in gateway.errors or (
        b"Traceback" not in gateway.errors
    ), gateway.errors.decode()
    return "opened"


def remove_wal_live(drill: Drill) -> str:
    return remove_below_a_live_gateway(drill, ("-wal",))


def remove_shm_live(drill: Drill) -> str:
    return remove_below_a_live_gateway(drill, ("-shm",))


def remove_both_live(drill: Drill) -> str:
    return remove_below_a_live_gateway(drill, ("-wal", "-shm"))


PARTINGS: list[Callable[[Drill], str]] = [
    restore,
    move_aside,
    copy_without_wal,
    remove_wal,
    remove_shm,
    remove_wal_live,
    remove_shm_live,
    remove_both_live,
]


def test_no_acknowledged_message_is_lost_in_silence_when_files_are_parted(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    drill = Drill(tmp_path / "0", chance)
    drill.folder.mkdir()
    outcomes: Counter[str] = Counter()
    course = [PARTINGS[number % len(PARTINGS)] for number in range(DRILLS)]
    chance.shuffle(course)
    for number, part in enumerate(course):
        outcome = part(drill)
        outcomes[f"{part.__name__}: {outcome}"] += 1
        found = messages(drill.path)
        if isinstance(found, str):
            # A gateway that was killed before it noticed that its -wal is gone. Nobody has it. Or
            # while it folded that -wal, or any: what is copied in part nothing can make whole.
            assert part in (remove_wal_live, remove_both_live), f"{part.__name__}: {found}"
            assert drill.path.name in found, found
            assert "-wal is missing" in found or "salvage" in found, found
            outcomes[f"{part.__name__}: lost, and said so"] += 1
            drill = Drill(tmp_path / str(number + 1), chance)
            drill.folder.mkdir()
            continue
        lost = drill.acknowledged - found
        assert not lost, f"round {number}, {part.__name__}, seed {SEED}: {sorted(lost)}"
    print(f"\n{DRILLS} drills, seed {SEED}: {dict(sorted(outcomes.items()))}")
    assert len({name.split(":")[0] for name in outcomes}) == min(DRILLS, len(PARTINGS))
    assert outcomes["restore: refused"] + outcomes["restore: opened"] > 0

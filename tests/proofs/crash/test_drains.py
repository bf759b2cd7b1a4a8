"""Draining one of two gateways under load interrupts no turn, and pays for none twice.

People talk in several conversations at once, without a pause. Two gateways on one file
answer them. Again and again one of the two drains, ends, and is started anew, while the
other one goes on. In the end each message has had one turn and one answer, in order, each
reply was sent once, and no turn was interrupted.

`make drains` drains 100 times. `SESSIONDB_DRAINS` and `SESSIONDB_DRAINS_SEED` choose
another number and another course.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

import sessiondb
import sessiondb.sync
from tests.support.core import query, user
from tests.support.gateway_process import PATIENCE_S, Gateway, Settings, check_promises

DRAINS = int(os.environ.get("SESSIONDB_DRAINS", "4"))
SEED = int(os.environ.get("SESSIONDB_DRAINS_SEED", "20261130"))
LONG_S = 2 * PATIENCE_S
TALKS = [f"c{number}" for number in range(8)]
AHEAD_MAX = 3
"""Messages of a conversation that wait when its person has nothing more to say."""

pytestmark = pytest.mark.slow


class People(threading.Thread):
    """People who always have something to say. They talk to the database, in a third process."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.sent: dict[str, list[str]] = {talk: [] for talk in TALKS}
        self.acknowledged: set[str] = set()
        self.over = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with sessiondb.sync.open(self.path) as db:
                while not self.over.wait(0.01):
                    for talk in TALKS:
                        self._say(db, talk)
        except BaseException as error:  # noqa: BLE001  # raised again by the test
            self.error = error

    def _say(self, db: sessiondb.sync.SessionDB, talk: str) -> None:
        texts = self.sent[talk]
        event_id, text = f"{talk}:{len(texts) + 1}", f"message {len(texts) + 1} of {talk}"
        key = f"agent:main:fake:channel:{talk}"
        session = db.session(key)
        waiting = db.read(
            "people",
            lambda tx: (
                tx.one(
                    "inbox.waiting_in_session",
                    session_no=session.ref.session_no,
                    lane="main",
                    limit=AHEAD_MAX,
                ).waiting
            ),
        )
        if waiting < AHEAD_MAX:
            texts.append(text)
            db.accept(key, user(text), channel="fake", event_id=event_id)
            self.acknowledged.add(event_id)

    def end(self) -> None:
        self.over.set()
        self.join(PATIENCE_S)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


def run_course(tmp_path: Path, stops: int, *, drains: bool) -> tuple[Counter[str], Counter[int]]:
    """Stop one of two gateways again and again. Return what happened, and turns by message."""
    path, channel = tmp_path / "gateway.db", tmp_path / "channel.jsonl"
    chance = random.Random(SEED)
    people = People(path)
    paid: Counter[int] = Counter()

    def start() -> Gateway:
        # The lease lasts, whatever the machine is busy with.
        settings = Settings(
            str(channel), seed=chance.getrandbits(32), model_s=(0.0, 0.1), lease_s=1_000.0
        )
        return Gateway(path, settings)

    def end(gateway: Gateway) -> None:
        gateway.stop()
        paid.update(line["inbox_no"] for line in gateway.saw("turn"))
        assert gateway.errors.count(b"Traceback") == 0, gateway.errors.decode()

    gateways = [start(), start()]
    for gateway in gateways:
        gateway.until("ready")
    people.start()
    for _ in range(stops):
        which = chance.randrange(2)
        for _ in range(chance.randint(1, 10)):
            gateways[which].until("turn")
        if drains:
            gateways[which].send("drain", timeout_s=LONG_S)
            drained = gateways[which].until("drained")
            assert (drained["held"], drained["loops"]) == ([], [])
        end(gateways[which])
        gateways[which] = start()
    people.end()
    gateways[0].send("settle")
    gateways[0].until("settled")
    for gateway in gateways:
        end(gateway)
    assert all(people.sent.values())
    return check_promises(path, channel, people.sent, people.acknowledged), paid


def test_drains_under_load_interrupt_no_turn_and_pay_for_none_twice(tmp_path: Path) -> None:
    counted, paid = run_course(tmp_path, DRAINS, drains=True)
    print(f"\n{DRAINS} drains, seed {SEED}\n{dict(counted)}")
    assert set(paid.values()) == {1}, "a message had no turn, or several"
    assert len(paid) == counted["messages"] == counted["turns completed"]
    states = query(tmp_path / "gateway.db", "SELECT DISTINCT state FROM turn")
    assert states == ["completed"], states
    assert counted["replies sent"] == counted["messages"]
    with sessiondb.sync.open(tmp_path / "gateway.db", readonly=True) as db:
        report = db.verify()
    assert report.ok, report


def test_stops_without_a_drain_do_interrupt_turns(tmp_path: Path) -> None:
    """What the test above is for: it would notice."""
    counted, paid = run_course(tmp_path, 4, drains=False)
    assert counted["turns interrupted"] > 0
    assert paid.total() > counted["turns completed"], "models were asked for nothing"


def test_a_kill_in_the_middle_of_a_drain_is_a_kill_as_any_other(tmp_path: Path) -> None:
    path, channel = tmp_path / "gateway.db", tmp_path / "channel.jsonl"
    policy = {"skip_states": []}
    first = Gateway(path, Settings(str(channel), lease_s=1_000.0))
    first.until("ready")
    first.accept("c0:1", "c0", "hang once")
    first.until("turn")
    first.accept("c1:1", "c1", "hang once, too")
    first.until("turn")
    first.send("drain", timeout_s=LONG_S)
    with sessiondb.sync.open(path) as db:
        while not any(one.draining_since_ms for one in db.held()):
            db.stats()  # it is a commit of another process, and this one is read until it is there
    first.kill()
    with sessiondb.sync.open(path, readonly=True) as db:
        drained = [one for one in db.status().processes if one.draining_since_ms is not None]
        assert [one.alive for one in drained] == [False]

    second = Gateway(path, Settings(str(channel), lease_s=1_000.0, policy=policy))
    assert second.until("recovered")["turns"] == 2
    second.send("settle")
    second.until("settled")
    second.stop()
    sent = {"c0": ["hang once"], "c1": ["hang once, too"]}
    counted = check_promises(path, channel, sent, {"c0:1", "c1:1"})
    assert (counted["turns interrupted"], counted["turns completed"]) == (2, 2)

"""Kill -9 at random moments, under load, loses and doubles no acknowledged message.

A client talks in several conversations at once and remembers every acknowledgement. The
gateway is killed again and again: while it opens, recovers, resumes, accepts, thinks,
compacts, sends. The client repeats messages without an acknowledgement under the same
event id, as channels do. The channel is a file outside the process, so it knows what it
received. In the end each acknowledged message is in its transcript once, in order, and
nothing stays held.

One test has a gateway that is as small as one can be (`support/gateway_child.py`: its
channel refuses, its answers come in parts). The other one has the reference gateway,
over HTTP. It is killed as often in a long run, and three times in a short one.

`make kills` runs 200 kills. `SESSIONDB_KILLS` and `SESSIONDB_KILLS_SEED` choose another
number and another course.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

import sessiondb.sync
from tests.support.core import change, query
from tests.support.gateway_process import Gateway, Line, Settings, check_leases, check_promises
from tests.support.reference_gateway import GatewayProcess

KILLS = int(os.environ.get("SESSIONDB_KILLS", "8"))
SEED = int(os.environ.get("SESSIONDB_KILLS_SEED", "20261120"))

pytestmark = pytest.mark.slow


@dataclass
class Client:
    """A client of several conversations that remembers acknowledgements.

    It sends one message at a time in each.
    """

    talks: list[str]
    chance: random.Random
    sent: dict[str, list[str]] = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    begun: set[str] = field(default_factory=set)
    repeated: int = 0

    def resume(self, gateway: Gateway, talks: list[str], *, go_on: bool) -> None:
        """Say again what was not acknowledged, or go on."""
        for talk in talks:
            texts = self.sent.setdefault(talk, [])
            if texts and f"{talk}:{len(texts)}" not in self.acknowledged:
                self.repeated += 1
                gateway.accept(f"{talk}:{len(texts)}", talk, texts[-1])
            elif go_on:
                self.say_next(gateway, talk)

    def say_next(self, gateway: Gateway, talk: str) -> None:
        texts = self.sent[talk]
        texts.append(
            f"message {len(texts) + 1} of conversation {talk}, which goes on for a while so that "
            "contexts grow"
        )
        gateway.accept(f"{talk}:{len(texts)}", talk, texts[-1])

    def hear(self, gateway: Gateway, line: Line | None, *, go_on: bool) -> None:
        """Remember an acknowledgement.

        Say the next thing once the last one is being answered, and sometimes sooner.

        Its turn may begin before the acknowledgement is heard. Whoever waited for a
        turn that is over would wait for ever.
        """
        if line is not None and line["saw"] == "turn":
            self.begun.add(line["text"])
        if line is not None and line["saw"] == "accepted":
            self.acknowledged.add(line["id"])
            texts = self.sent[line["talk"]]
            if (
                go_on
                and line["id"] == f"{line['talk']}:{len(texts)}"
                and (self.impatient() or texts[-1] in self.begun)
            ):
                self.say_next(gateway, line["talk"])
        elif line is not None and line["saw"] == "turn" and go_on:
            talk = line["text"].split("conversation ")[1].split(",")[0]
            if (
                line["text"] == self.sent[talk][-1]
                and f"{talk}:{len(self.sent[talk])}" in self.acknowledged
            ):
                self.say_next(gateway, talk)

    def impatient(self) -> bool:
        return self.chance.random() < 0.3


def still_held_by_the_dead(path: Path, pid: int) -> list[object]:
    return query(
        path, "SELECT what, number, owner FROM held WHERE owner NOT LIKE ? || '@%'", str(pid)
    )


def test_kills_of_a_gateway_lose_and_double_no_message(
    tmp_path: Path,
) -> None:
    path, channel = tmp_path / "gateway.db", tmp_path / "channel.jsonl"
    chance = random.Random(SEED)
    client = Client([f"c{number}" for number in range(6)], chance)
    died: Counter[str] = Counter()
    policy = {
        "breaker_unclean_starts": 1_000_000,
        "budget_per_start": 1_000,
        "max_concurrent_resumes": 2,
    }

    for life in range(KILLS):
        gateway = Gateway(path, Settings(str(channel), seed=chance.getrandbits(32), policy=policy))
        # The moment: after so many lines (a few of them fall before it is ready) and
        # then a little while.
        lines_left = chance.choice(
            [chance.randint(1, 4), chance.randint(4, 40), chance.randint(20, 200)]
        )
        while lines_left and (line := gateway.next()) is not None:
            lines_left -= 1
            if line["saw"] == "ready":
                assert still_held_by_the_dead(path, gateway.pid) == [], (
                    f"life {life}: recovered, and yet"
                )
                # Not all of them at once: where nobody goes on speaking, what was cut
                # off is resumed.
                client.resume(
                    gateway, chance.sample(client.talks, chance.choice([1, 2, 5, 6])), go_on=True
                )
            client.hear(gateway, line, go_on=True)
        # The random moment itself: nothing waits for anything here.
        time.sleep(chance.uniform(0.0, 0.03))
        heard = len(gateway.lines)
        gateway.kill()
        for line in gateway.lines[heard:]:
            client.hear(gateway, line, go_on=False)
        died[str(gateway.lines[-1]["saw"]) if gateway.lines else "nothing"] += 1
        assert gateway.errors.count(b"Traceback") == 0, gateway.errors.decode()

    gateway = Gateway(path, Settings(str(channel), policy=policy))
    gateway.until("ready")
    assert still_held_by_the_dead(path, gateway.pid) == []
    client.resume(gateway, client.talks, go_on=False)
    # A conversation of which no life drew one to say has nothing to wait for.
    said = {f"{talk}:{len(texts)}" for talk, texts in client.sent.items() if texts}
    pending = said - client.acknowledged
    while pending - client.acknowledged:
        client.hear(gateway, gateway.next(), go_on=False)
    gateway.send("settle")
    gateway.until("settled")
    gateway.stop()

    counted = check_promises(path, channel, client.sent, client.acknowledged)
    assert client.acknowledged == {
        f"{talk}:{number}"
        for talk, texts in client.sent.items()
        for number in range(1, len(texts) + 1)
    }
    assert query(path, "SELECT count(*) FROM instance WHERE closed_at_ms IS NULL") == [0]
    with sessiondb.sync.open(path, readonly=True) as db:
        report = db.verify()
    assert report.ok, report
    print(
        f"\n{KILLS} kills, seed {SEED}; said again after a kill: {client.repeated}; last seen "
        f"before each: {dict(died)}\n{dict(counted)}"
    )
    # The kills did hit: turns were cut off and went on, whatever the number of kills.
    assert counted["turns interrupted"] > 0
    if KILLS >= 100:
        assert {"resumes", "replies unknown", "compactions abandoned", "compactions committed"} <= (
            +counted
        ).keys()


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a gateway that answered two messages in each of two talks.

    It has the database and the channel.
    """
    folder = tmp_path_factory.mktemp("settled")
    channel = str(folder / "channel.jsonl")
    settings = Settings(channel, refuse=0.0, compact=False, in_parts=0.0)
    gateway = Gateway(folder / "gateway.db", settings)
    for number in (1, 2):
        for talk in ("c0", "c1"):
            gateway.accept(f"{talk}:{number}", talk, f"message {number}")
            gateway.until("accepted")
    gateway.send("settle")
    gateway.until("settled")
    gateway.stop()
    return folder


OF_TURN_3 = "SELECT t.inbox_no FROM turn AS t WHERE t.turn_no = 3"
LAST_USER_ENTRY = "(SELECT max(entry_no) FROM entry WHERE role = 'user')"


@pytest.mark.parametrize(
    ("broken", "how", "noticed"),
    [
        ("nothing", "", ""),
        ("lost", f"DELETE FROM entry WHERE entry_no = {LAST_USER_ENTRY}", "the transcript has"),
        (
            "doubled",
            f"""INSERT INTO entry (entry_no, position, type, role, projection, appended_at_ms,
                entry_id, payload)
                SELECT entry_no + 100, position, type, role, projection, appended_at_ms, 'twin',
                  payload FROM entry
                WHERE entry_no = {LAST_USER_ENTRY}""",
            "the transcript has",
        ),
        (
            "never accepted",
            "DELETE FROM inbox WHERE inbox_no = 4",
            "acknowledged and not in the inbox",
        ),
        ("forgotten", "UPDATE inbox SET state = 'interrupted' WHERE inbox_no = 4", "not settled"),
        (
            "still held",
            "UPDATE turn SET state = 'running', finished_at_ms = NULL WHERE turn_no = 4",
            "still held",
        ),
        (
            "held too long",
            "UPDATE turn SET expires_at_ms = finished_at_ms - 60000 WHERE turn_no = 4",
            "after their leases had run out",
        ),
        (
            "answered twice",
            f"UPDATE turn SET inbox_no = ({OF_TURN_3}) WHERE turn_no = 4",
            "completed twice",
        ),
        (
            "two at once",
            "UPDATE turn SET started_at_ms = 0, session_no = 1",
            "turns of one session overlap",
        ),
        (
            "answered in no transcript",
            (
                "DELETE FROM entry WHERE entry_no = ("
                "SELECT max(entry_no) FROM entry WHERE role = 'assistant')"
            ),
            "without its entry",
        ),
        (
            "answered to nobody",
            "DELETE FROM outbox WHERE outbox_no = 4",
            "without its entry or its reply",
        ),
        ("every answer is dropped", "DELETE FROM outbox", "without its entry or its reply"),
        (
            "not sent",
            "UPDATE outbox SET state = 'pending' WHERE outbox_no = 4",
            "a reply is not settled",
        ),
        ("sent twice", "twice", "delivered twice"),
        ("sent to nobody", "not at all", "the channel has not got them"),
    ],
)
def test_the_check_itself_notices_what_is(
    settled: Path, tmp_path: Path, broken: str, how: str, noticed: str
) -> None:
    path, channel = tmp_path / "gateway.db", tmp_path / "channel.jsonl"
    shutil.copy(settled / "gateway.db", path)
    lines = (settled / "channel.jsonl").read_bytes().splitlines(keepends=True)
    if how in ("twice", "not at all"):
        lines = [*lines, lines[-1]] if how == "twice" else lines[:-1]
    elif how:
        change(path, how)
    channel.write_bytes(b"".join(lines))
    sent = {talk: ["message 1", "message 2"] for talk in ("c0", "c1")}
    acknowledged = {f"{talk}:{number}" for talk in sent for number in (1, 2)}
    if not noticed:
        assert check_promises(path, channel, sent, acknowledged)["turns completed"] == 4, broken
        check_leases(path)
        return
    with pytest.raises(AssertionError, match=noticed):  # noqa: PT012  # whichever of the two it is
        check_promises(path, channel, sent, acknowledged)
        check_leases(path)


# What the reference gateway does before it serves.
STARTING = ["open", "recover", "resume", "serve"]


class Talker(threading.Thread):
    """A person who sends each message until it is acknowledged."""

    def __init__(self, gateway: GatewayProcess, name: str, over: threading.Event) -> None:
        super().__init__(name=name)
        self.gateway, self.over = gateway, over
        self.sent: list[str] = []
        self.acknowledged: set[str] = set()
        self.repeated = 0

    def run(self) -> None:
        with httpx.Client(timeout=60.0) as http:
            while not self.over.wait(0.03):  # what a person takes to type
                self.sent.append(
                    f"message {len(self.sent) + 1} from {self.name}, who goes on for a while so "
                    "that contexts grow"
                )
                self._say(http, f"{self.name}:{len(self.sent)}", self.sent[-1])

    def _say(self, http: httpx.Client, event_id: str, text: str) -> None:
        message = {"text": text, "event_id": event_id, "channel": "sim", "conversation": self.name}
        while True:
            try:
                response = http.post(self.gateway.url + "/messages", json=message)
            except httpx.TransportError:
                self.repeated += 1
                self.over.wait(
                    0.02
                )  # it is dead, or not back yet. The message is said again under the same id
                continue
            assert response.status_code in (202, 429), response.text
            if response.status_code == 202:
                self.acknowledged.add(event_id)
                return
            self.over.wait(0.1)


def test_kills_of_the_reference_gateway_lose_no_message(
    tmp_path: Path,
) -> None:
    chance = random.Random(SEED)
    over = threading.Event()
    path = tmp_path / "gateway.db"
    options = {
        "model_delay": 0.02,
        "summary_delay": 0.3,
        "threshold": 300,
        "keep": 100,
        "breaker": 1_000_000,
        "resume_budget": 1_000,
    }
    kills = KILLS if KILLS >= 100 else 3
    started: Counter[str] = Counter()
    with GatewayProcess(path, send_delay=0.005, care_every=0.1, **options) as gateway:
        talkers = [Talker(gateway, f"talker{number}", over) for number in range(4)]
        for talker in talkers:
            talker.start()
        try:
            life = 0
            # A slow machine may work on no message at the moments of so few kills.
            while life < kills or (
                life < 20
                and query(path, "SELECT count(*) FROM turn WHERE state = 'interrupted'") == [0]
            ):
                # The random moment itself: nothing waits for anything here.
                time.sleep(chance.choice([chance.uniform(0.0, 0.2), chance.uniform(0.2, 1.0)]))
                gateway.kill()
                # And while it starts: it opens, recovers, resumes, and may have begun to serve.
                for step in (
                    chance.sample(STARTING, chance.choice([0, 1, 1, 2])) if life else STARTING
                ):
                    started[step] += gateway.kill_at_start(step)
                gateway.start()
                # It answers: what the dead one held has been given back.
                assert still_held_by_the_dead(path, gateway.pid) == [], (
                    f"life {life}: recovered, and yet"
                )
                life += 1
        finally:
            over.set()
            for talker in talkers:
                talker.join()
        unsettled = """SELECT (SELECT count(*) FROM inbox WHERE state NOT IN ('done', 'dead'))
                            + (SELECT count(*) FROM outbox WHERE state IN ('pending', 'sending'))
                            + (SELECT count(*) FROM held)"""
        gateway.wait_for(lambda: query(path, unsettled) == [0])
        gateway.stop()

    sent = {talker.name: talker.sent for talker in talkers}
    acknowledged = set().union(*(talker.acknowledged for talker in talkers))
    counted = check_promises(
        path, gateway.channel_log, sent, acknowledged, key="agent:main:sim:direct:{}"
    )
    assert len(acknowledged) == counted["messages"] == sum(len(texts) for texts in sent.values())
    with sessiondb.sync.open(path, readonly=True) as db:
        report = db.verify()
    assert report.ok, report
    repeated = sum(talker.repeated for talker in talkers)
    print(
        f"\nreference gateway: {life} kills, seed {SEED}; said again: {repeated} "
        f"times\n{dict(counted)}\nat start: {dict(started)}"
    )
    assert set(STARTING) == (+started).keys(), "it was killed in each step of its start"
    assert counted["turns interrupted"] > 0

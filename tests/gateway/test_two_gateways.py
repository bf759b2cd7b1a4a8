"""Two gateway processes on one database: nothing is claimed twice, the lanes' limits hold in sum, and one takes over from the other.

Both run the same lanes and send from the same outbox; they know of each other only through the database.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.gateway.worker import Answer, Turn
from tests.support.core import query
from tests.support.gateway_process import (
    PATIENCE_S,
    Gateway,
    Settings,
    check_leases,
    check_promises,
    delivered,
)
from tests.support.reference_gateway import GatewayProcess

pytestmark = pytest.mark.slow

POLICY = {"breaker_unclean_starts": 1_000, "budget_per_start": 1_000, "max_concurrent_resumes": 1}
TALKS = [f"c{number}" for number in range(8)]


def text_of(talk: str, number: int) -> str:
    return f"message {number} of conversation {talk}, which goes on for a while"


def ledger_of(gateways: list[Gateway]) -> set[str]:
    return {line["id"] for gateway in gateways for line in gateway.saw("accepted")}


def test_two_processes_share_the_work_and_no_message_is_claimed_twice(tmp_path: Path) -> None:
    path, channel = tmp_path / "gateway.db", tmp_path / "channel.jsonl"
    settings = Settings(str(channel), model_s=(0.0, 0.02), concurrency=2, policy=POLICY)
    gateways = [Gateway(path, settings), Gateway(path, settings)]
    for gateway in gateways:
        gateway.until("ready")
    rounds = 0
    sent: dict[str, list[str]] = {talk: [] for talk in TALKS}
    # Nobody promises that they share evenly: a commit wakes its own process first. So go on until both have had a turn.
    while rounds < 6 or (rounds < 60 and not all(gateway.saw("turn") for gateway in gateways)):
        rounds += 1
        number = rounds
        for at, talk in enumerate(TALKS):
            # One conversation's messages come in through either process, in turn.
            gateway = gateways[(at + number) % 2]
            sent[talk].append(text_of(talk, number))
            gateway.accept(f"{talk}:{number}", talk, sent[talk][-1])
        for gateway in gateways:
            for _ in range(len(TALKS) // 2):
                gateway.until("accepted")
    for gateway in gateways:
        gateway.send("settle")
        gateway.until("settled")
    for gateway in gateways:
        gateway.stop()

    turns = [
        (line["inbox_no"], line["attempt"]) for gateway in gateways for line in gateway.saw("turn")
    ]
    assert len(turns) == len(set(turns)) == rounds * len(TALKS), (
        "each message was claimed once, by one of them"
    )
    assert all(gateway.saw("turn") for gateway in gateways), "both took part"
    # Each handler counted the running turns of its lane, itself among them, in one snapshot of the database.
    assert max(line["running"] for gateway in gateways for line in gateway.saw("turn")) == 2
    replies = Counter(line["outbox_no"] for line in delivered(channel))
    assert len(replies) == rounds * len(TALKS)
    assert set(replies.values()) == {1}
    counted = check_promises(path, channel, sent, ledger_of(gateways))
    assert counted["turns completed"] == rounds * len(TALKS)


def test_when_one_is_killed_the_other_takes_over_what_it_held(tmp_path: Path) -> None:
    path, channel = tmp_path / "gateway.db", tmp_path / "channel.jsonl"
    first = Gateway(path, Settings(str(channel), lease_s=3.0, concurrency=3, policy=POLICY))
    first.until("ready")
    sent = {talk: [f"hang once: {text_of(talk, 1)}"] for talk in TALKS[:3]}
    for talk, texts in sent.items():
        first.accept(f"{talk}:1", talk, texts[0])
        first.until("turn")
    # The lane is full with three turns that hang; a fourth conversation has to wait.
    sent["waits"] = [text_of("waits", 1)]
    first.accept("waits:1", "waits", sent["waits"][0])
    first.until("accepted", lambda line: line["id"] == "waits:1")
    second = Gateway(
        path, Settings(str(channel), lease_s=3.0, concurrency=3, recover=False, policy=POLICY)
    )
    second.until("ready")
    assert second.saw("turn") == []

    first.kill()
    # No recover() here: what the dead one held comes back because its leases are not renewed.
    second.until("turn", lambda line: line["inbox_no"] == 4)
    second.send("settle")
    second.until("settled")
    second.stop()

    acknowledged = ledger_of([first, second])
    assert acknowledged == {"c0:1", "c1:1", "c2:1", "waits:1"}
    counted = check_promises(path, channel, sent, acknowledged)
    assert counted["turns interrupted"] == 3
    assert counted["resumes"] == 3
    assert max(line["running"] for line in second.saw("turn") if line["kind"] == "resume") == 1, (
        "one resume at a time"
    )
    assert {line["re"] for line in delivered(channel)} == {1, 2, 3, 4}, (
        "everybody was answered, by the second"
    )
    late = query(
        path,
        "SELECT turn_no FROM turn WHERE state = 'interrupted' AND finished_at_ms < expires_at_ms",
    )
    assert late == [], "taken over before the lease had run out"
    check_leases(path)


def test_a_process_that_was_given_up_cannot_write_when_it_wakes(tmp_path: Path) -> None:
    """Stopped, not killed (a laptop lid, a debugger): it comes back after its lease ran out and somebody else has answered."""
    path, channel = tmp_path / "gateway.db", tmp_path / "channel.jsonl"
    sleeper = Gateway(
        path, Settings(str(channel), lease_s=3.0, model_s=(0.3, 0.3), compact=False, policy=POLICY)
    )
    sleeper.until("ready")
    text = text_of("c0", 1)
    sleeper.accept("c0:1", "c0", text)
    sleeper.until("turn")
    sleeper.suspend()
    second = Gateway(path, Settings(str(channel), lease_s=3.0, compact=False, policy=POLICY))
    second.until("turn", lambda line: line["kind"] == "resume")
    second.until("delivered")
    sleeper.resume()
    sleeper.send("settle")
    sleeper.until("settled")
    sleeper.stop()
    second.stop()

    counted = check_promises(path, channel, {"c0": [text]}, {"c0:1"})
    check_leases(path)
    assert (counted["turns interrupted"], counted["turns completed"], counted["resumes"]) == (
        1,
        1,
        1,
    )
    assert b"is interrupted (its lease ran out); it can write no more" in sleeper.errors
    with sessiondb.sync.open(path, readonly=True) as db:
        assert db.verify().ok


@pytest.mark.anyio
async def test_a_message_behind_one_of_its_session_in_a_lower_lane_does_not_block_both(
    tmp_path: Path,
) -> None:
    """The lower lane must not wait for a message that cannot run before its own has."""
    order: list[str] = []

    async def handler(turn: Turn) -> Answer:
        order.append(turn.message["content"])
        if len(order) == 2:
            group.cancel_scope.cancel()
        return Answer(entries=[{"role": "assistant", "content": [{"type": "text", "text": "yes"}]}])

    async with sessiondb.open(tmp_path / "gateway.db") as db:
        for lane in ("cron", "main"):
            await db.accept(
                "fake",
                lane,
                "agent:main:fake:channel:c0",
                {"role": "user", "content": lane},
                lane=lane,
            )
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                for lane in ("main", "cron"):
                    group.start_soon(db.run_lane, lane, handler)
    assert order == ["cron", "main"]


def test_two_reference_gateways_share_the_work_and_one_takes_over_when_the_other_is_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.db"
    options = {"model_delay": 0.05, "care_every": 0.1, "threshold": 1_000_000}
    with GatewayProcess(path, **options) as first, GatewayProcess(path, **options) as second:
        asked = [
            (first, second)[number % 2].say(
                f"message {number}", channel="sim", conversation=f"c{number % 5}"
            )["event_id"]
            for number in range(20)
        ]
        first.wait_for(
            lambda: len(first.delivered()) == len(asked)
        )  # the channels' ledger: both write to it

        cut_off = first.say("!slow 2 this one takes longer", channel="sim", conversation="c0")
        holder = first.wait_for(lambda: [held for held in first.held() if held["what"] == "turn"])[
            0
        ]
        # Whichever took it dies; its turn is given back by the other one, which looks for that while it runs.
        dies, stays = (first, second) if holder["pid"] == first.pid else (second, first)
        dies.kill()
        stays.wait_for(lambda: stays.answer_to(cut_off["event_id"], "c0", channel="sim"))
        stays.wait_for(lambda: len(stays.delivered()) == len(asked) + 1)
        assert stays.held() == []
        stays.stop()

    asked.append(cut_off["event_id"])
    assert Counter(line["event_id"] for line in stays.delivered()) == Counter(asked)
    check_leases(path)
    sent = {
        f"c{talk}": [f"message {number}" for number in range(20) if number % 5 == talk]
        for talk in range(5)
    }
    sent["c0"].append("!slow 2 this one takes longer")
    counted = check_promises(
        path, first.channel_log, sent, set(asked), key="agent:main:sim:direct:{}"
    )
    assert (counted["turns interrupted"], counted["resumes"], counted["turns completed"]) == (
        1,
        1,
        21,
    )
    assert len(query(path, "SELECT DISTINCT instance_no FROM turn")) == 2, "both took part"


def test_two_reference_gateways_send_each_notice_once_show_it_on_the_pages_of_both_and_lose_none_with_one_of_them(
    tmp_path: Path,
) -> None:
    options = {"model_delay": 0.02, "care_every": 0.1}
    with (
        GatewayProcess(tmp_path / "gateway.db", **options) as first,
        GatewayProcess(tmp_path / "gateway.db", **options) as second,
    ):
        where = {"channel": "sim", "conversation": "alice"}
        with (
            first.page("alice", channel="sim") as here,
            second.page("alice", channel="sim") as there,
        ):
            first.say("!empty", **where)
            assert here.next("notice")["event_no"] == there.next("notice")["event_no"]
        for number in range(10):
            (first, second)[number % 2].say(
                f"!empty {number}", channel="sim", conversation=f"c{number}"
            )
        second.kill()  # some of them are its own, and some notices it has read and not passed on
        first.wait_for(
            lambda: (
                first.held() == []
                and first.status()["database"]["gateway"]["messages_waiting"] == 0
            )
        )
        first.wait_for(
            lambda: (
                query(
                    first.database,
                    "SELECT count(*) FROM outbox WHERE state IN ('pending', 'sending')",
                )
                == [0]
            )
        )
        incomplete = query(
            first.database,
            "SELECT event_no FROM event WHERE kind = 'turn_incomplete' ORDER BY event_no",
        )
        first.wait_for(
            lambda: (
                query(
                    first.database, "SELECT event_no FROM event_cursor WHERE consumer = 'notices'"
                )[0]
                >= incomplete[-1]
            )
        )
        first.wait_for(
            lambda: (
                query(
                    first.database,
                    "SELECT count(*) FROM outbox WHERE state IN ('pending', 'sending')",
                )
                == [0]
            )
        )
    passed_on = query(
        first.database, "SELECT payload ->> 'event_no' FROM outbox WHERE turn_no IS NULL"
    )
    users = query(first.database, "SELECT event_no FROM event WHERE audience = 'user'")
    assert sorted(passed_on) == sorted(users), "each once"
    assert len(incomplete) == 11
    sent = Counter(line["event_no"] for line in first.noticed())
    assert set(sent.values()) == {1}
    unknown = set(
        query(
            first.database,
            "SELECT payload ->> 'event_no' FROM outbox WHERE turn_no IS NULL AND state = 'unknown'",
        )
    )
    assert set(users) - set(sent) <= unknown, (
        "what was not sent may only be one that was being sent when its process died"
    )

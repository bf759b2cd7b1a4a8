"""Two gateway processes on one database.

Nothing is claimed twice, the limits of lanes hold in sum, and one process takes over from the
other. Both run the same lanes and send from the same outbox. They know of each other only
through the database.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.gateway.running_turn import Answer, Turn
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
# Long enough to be killed in, on a machine that is busy.
SLOW = "!slow 5"
HOLDER_OF_LAST_TURN = (
    "SELECT pid FROM turn JOIN instance USING (instance_no) WHERE inbox_no = ? ORDER BY turn_no"
)


def text_of(talk: str, number: int) -> str:
    return f"message {number} of conversation {talk}, which goes on for a while"


def ledger_of(gateways: list[Gateway]) -> set[str]:
    return {line["id"] for gateway in gateways for line in gateway.saw("accepted")}


def test_two_processes_share_the_work_without_a_double_claim(tmp_path: Path) -> None:
    path, channel = tmp_path / "gateway.db", tmp_path / "channel.jsonl"
    settings = Settings(str(channel), model_s=(0.0, 0.02), concurrency=2, policy=POLICY)
    gateways = [Gateway(path, settings), Gateway(path, settings)]
    for gateway in gateways:
        gateway.until("ready")
    rounds = 0
    sent: dict[str, list[str]] = {talk: [] for talk in TALKS}
    # Nothing promises an even share: a commit wakes its own process first. So this continues until
    # both have had a turn.
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
    # Each handler counted the running turns of its lane, with its own, in one snapshot.
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
    # No recover() here: the turns of the dead one come back because nothing renews their leases.
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
        "every message was answered, by the second process"
    )
    late = query(
        path,
        "SELECT turn_no FROM turn WHERE state = 'interrupted' AND finished_at_ms < expires_at_ms",
    )
    assert late == [], "taken over before the lease had run out"
    check_leases(path)


def test_a_process_that_was_given_up_cannot_write_when_it_wakes(tmp_path: Path) -> None:
    """Stopped, not killed (a laptop lid, a debugger).

    It comes back after its lease ran out and another process has answered.
    """
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
    # Its lane stops the handler, or the fence refuses its write: whichever comes first.
    refused = b"is interrupted (its lease ran out); it can write no more"
    assert sleeper.errors == b"" or refused in sleeper.errors
    with sessiondb.sync.open(path, readonly=True) as db:
        assert db.verify().ok


@pytest.mark.anyio
@pytest.mark.parametrize("accepted", [("cron", "main"), ("main", "cron")])
async def test_messages_of_two_lanes_run_in_the_order_of_the_lanes(
    tmp_path: Path, accepted: tuple[str, str]
) -> None:
    """Neither blocks the other for ever, whichever came first and whichever loop looks first."""
    order: list[str] = []

    async def handler(turn: Turn) -> Answer:
        order.append(turn.message["content"])
        if len(order) == 2:
            group.cancel_scope.cancel()
        return Answer(entries=[{"role": "assistant", "content": [{"type": "text", "text": "yes"}]}])

    async with sessiondb.open(tmp_path / "gateway.db") as db:
        for lane in accepted:
            await db.accept(
                "agent:main:fake:channel:c0",
                {"role": "user", "content": lane},
                channel="fake",
                event_id=lane,
                lane=lane,
            )
        with anyio.fail_after(PATIENCE_S):
            async with anyio.create_task_group() as group:
                for lane in ("cron", "main"):
                    group.start_soon(db.run_lane, lane, handler)
    assert order == ["main", "cron"]


def test_a_reference_gateway_takes_over_from_a_killed_one(
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
        # Both write to the ledger of the channels.
        first.wait_for(lambda: len(first.delivered()) == len(asked))

        cut_off = first.say(f"{SLOW} this one takes longer", channel="sim", conversation="c0")
        # The turn's row stays, so a slow machine cannot miss it. The process that claimed it dies,
        # and the other one, which looks for that while it runs, releases the turn.
        [holder] = first.wait_for(lambda: query(path, HOLDER_OF_LAST_TURN, len(asked) + 1))
        dies, stays = (first, second) if holder == first.pid else (second, first)
        dies.kill()
        stays.wait_for(lambda: stays.answer_to(cut_off["event_id"], "c0", channel="sim"))
        stays.wait_for(lambda: len(stays.delivered()) == len(asked) + 1)
        stays.wait_for(lambda: stays.held() == [])  # the reply is settled after its delivery
        stays.stop()

    asked.append(cut_off["event_id"])
    assert Counter(line["event_id"] for line in stays.delivered()) == Counter(asked)
    check_leases(path)
    sent = {
        f"c{talk}": [f"message {number}" for number in range(20) if number % 5 == talk]
        for talk in range(5)
    }
    sent["c0"].append(f"{SLOW} this one takes longer")
    counted = check_promises(
        path, first.channel_log, sent, set(asked), key="agent:main:sim:direct:{}"
    )
    assert (counted["turns interrupted"], counted["resumes"], counted["turns completed"]) == (
        1,
        1,
        21,
    )
    assert len(query(path, "SELECT DISTINCT instance_no FROM turn")) == 2, "both took part"


def test_two_reference_gateways_send_and_show_each_notice_once(
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
        # It holds some of them, and has read some notices that it has not forwarded.
        second.kill()
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
    forwarded = query(
        first.database, "SELECT payload ->> 'event_no' FROM outbox WHERE turn_no IS NULL"
    )
    users = query(first.database, "SELECT event_no FROM event WHERE audience = 'user'")
    assert sorted(forwarded) == sorted(users), "each once"
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
        "only a notice that was being sent when its process died may be missing"
    )

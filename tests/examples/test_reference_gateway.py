"""The reference gateway over HTTP, as a real process.

What sessiondb promises is proved elsewhere. Here it is that the gateway hands those
promises on.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from tests import ROOT
from tests.support import warm

pytest.importorskip(
    "starlette", reason="starlette is not installed; it is part of the gateway extra"
)

from starlette.requests import Request
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import sessiondb
import sessiondb.sync
from sessiondb.limits import SESSION_WAITING_MAX
from tests.support.core import change, query
from tests.support.engine import locked_by_another_process
from tests.support.reference_gateway import PATIENCE_S, GatewayProcess, Start, fill, until

# -- messages --------------------------------------------------------------------------


def test_a_message_is_acknowledged_with_a_receipt_and_answered(gateway: GatewayProcess) -> None:
    with gateway.page() as page:
        receipt = gateway.say("hello")
        assert (receipt["state"], receipt["ahead"], receipt["duplicate"]) == ("queued", 0, False)
        reply = page.next("reply", event_id=receipt["event_id"])
        assert reply["text"].startswith("You said: hello")
        written = [notice for notice in page.notices if notice["type"] == "writing"]
        assert "".join(notice["text"] for notice in written) == reply["text"]
        assert [notice["begins_at"] for notice in written] == [
            sum(len(before["text"]) for before in written[:number])
            for number in range(len(written))
        ]
        assert [notice["type"] for notice in page.notices if notice not in written] == [
            "hello",
            "accepted",
            "thinking",
            "reply",
        ]


def test_a_repeated_event_gets_the_same_receipt_and_one_answer(gateway: GatewayProcess) -> None:
    first = gateway.say("once", event_id="e1")
    gateway.wait_for(lambda: gateway.answer_to("e1"))
    again = gateway.say("once", event_id="e1")
    assert (again["inbox_no"], again["duplicate"], again["state"]) == (
        first["inbox_no"],
        True,
        "done",
    )
    gateway.ask("and on")
    assert [item["what"] for item in gateway.said()] == ["user", "assistant"] * 2


def test_messages_of_a_conversation_are_answered_in_order(gateway: GatewayProcess) -> None:
    sent = [gateway.say(f"m{number}")["event_id"] for number in range(6)]
    gateway.wait_for(lambda: gateway.answer_to(sent[-1]))
    assert [item["answers"] for item in gateway.said() if item["what"] == "assistant"] == sent


def test_a_full_session_refuses_with_retry_after_and_holder(
    gateway_process: Start,
) -> None:
    gateway = gateway_process(model_delay=0.02)
    gateway.say("!hang")
    gateway.wait_for(gateway.held)
    with ThreadPoolExecutor(8) as senders:
        responses = list(
            senders.map(gateway.post, [f"m{number}" for number in range(SESSION_WAITING_MAX + 10)])
        )
    refused = next(response for response in responses if response.status_code != 202)
    assert [response.status_code for response in responses].count(
        202
    ) == SESSION_WAITING_MAX - 1  # one is being worked on
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert "turn" in refused.json()["holder"]
    assert gateway.ask("elsewhere nobody waits", "other").startswith("You said")


def test_what_cannot_be_a_message_is_refused_with_a_reason(gateway: GatewayProcess) -> None:
    before = gateway.status()["database"]["sessions"]
    refused: list[tuple[object, str]] = [
        ({"text": "x", "agent": "nobody"}, "there is no agent 'nobody'"),
        ({"text": "   "}, "text must be a text that is not empty"),
        ({"text": 7}, "text must be a text"),
        ({"text": "x" * 100_001}, "at most 100,000 characters"),
        ({"text": "x", "conversation": "a\nb"}, "control character"),
        ({"text": "x", "event_id": "e" * 2_000}, "event_id is a text of 1 to"),
        ({"text": "half of a pair: \ud83d"}, "text is not valid Unicode"),
        (["x"], "JSON object"),
        ("{", "not JSON"),
    ]
    for body, says in refused:
        content = body if isinstance(body, str) else json.dumps(body)
        response = gateway.http.post(gateway.url + "/messages", content=content)
        assert (response.status_code, says in response.json()["error"]) == (400, True), (
            response.text
        )
    assert gateway.status()["database"]["sessions"] == before


def test_a_message_for_an_ended_session_is_refused_for_good(gateway: GatewayProcess) -> None:
    session_id = gateway.say("hello")["session_id"]
    with sessiondb.sync.open(gateway.database) as db:
        session = db.session_by_id(session_id)
        [key] = session.info().keys
        session.end()
        refused = gateway.post("and on")
        assert (refused.status_code, "unbind the key" in refused.json()["error"]) == (400, True)
        db.unbind(key)
    assert gateway.say("and on")["session_id"] != session_id


def test_a_full_disk_may_be_retried_a_closed_database_not() -> None:
    from examples.gateway.web import refuse

    request = Request({"type": "http"})
    response = anyio.run(refuse, request, sessiondb.StoreFull())
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    with pytest.raises(sessiondb.StoreClosed):
        anyio.run(refuse, request, sessiondb.StoreClosed())


def test_a_page_of_another_site_may_neither_write_nor_listen(gateway: GatewayProcess) -> None:
    for origin, status in (("http://elsewhere.example", 403), ("null", 403), (gateway.url, 202)):
        response = gateway.http.post(
            gateway.url + "/messages", json={"text": "x"}, headers={"Origin": origin}
        )
        assert response.status_code == status, origin
    with (
        pytest.raises(InvalidStatus, match="403"),
        connect(gateway.url.replace("http", "ws") + "/ws/lobby", origin="http://elsewhere.example"),
    ):
        pass


def test_looking_at_a_conversation_makes_none(gateway: GatewayProcess) -> None:
    before = gateway.status()["database"]["sessions"]
    assert gateway.said() == []
    assert gateway.status()["database"]["sessions"] == before
    url = f"{gateway.url}/conversations/{gateway.lobby}"
    assert gateway.http.get(url, params={"limit": "-1"}).status_code == 400


def test_agents_and_channels_have_conversations_of_their_own(gateway: GatewayProcess) -> None:
    for agent in gateway.status()["agents"]:
        assert "shown 1 message." in gateway.ask("hello", agent=agent)
    receipt = gateway.say("hello", channel="discord")
    delivered = gateway.wait_for(gateway.delivered)
    assert [(line["target"], line["event_id"]) for line in delivered] == [
        (f"discord:{gateway.lobby}", receipt["event_id"])
    ]


# -- what goes wrong -------------------------------------------------------------------


def test_a_model_that_fails_once_is_asked_again(gateway: GatewayProcess) -> None:
    with gateway.page() as page:
        event_id = gateway.say("!flaky")["event_id"]
        assert "!flaky" in page.next("failed", attempt=1)["reason"]
        assert page.next("thinking")["attempt"] == 2
        page.next("reply", event_id=event_id)
    assert [item["what"] for item in gateway.said()] == ["user", "assistant"]


def test_a_turn_without_an_answer_is_reported_as_incomplete(
    gateway: GatewayProcess,
) -> None:
    with gateway.page() as page:
        gateway.say("!empty")
        assert page.next("notice", event="turn_incomplete")["text"]
    assert gateway.ask("and on").startswith("You said: and on")


def test_a_hanging_turn_is_cut_off_and_its_users_are_notified(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02, turn_timeout=0.3, delayed_after=0.2, attempts=2)
    for text in ("!hang", "behind it"):
        gateway.say(text, channel="discord", conversation="alice")
    with gateway.page() as page:
        gateway.say("!hang")
        event_id = gateway.say("behind it")["event_id"]
        page.next("notice", event="message_delayed")
        assert page.next("notice", event="message_dead")["text"]
        page.next("reply", event_id=event_id)

    def noticed() -> set[str]:
        return {notice["event"] for notice in gateway.noticed()}

    gateway.wait_for(lambda: {"message_delayed", "message_dead"} <= noticed())
    assert {notice["target"] for notice in gateway.noticed()} == {"discord:alice"}


def test_a_reply_that_may_have_been_sent_is_not_sent_again(
    gateway_process: Start,
) -> None:
    gateway = gateway_process(model_delay=0.02)
    gateway.say("!vanish", channel="discord", conversation="alice")
    unknown = gateway.wait_for(lambda: gateway.status()["unknown_replies"])
    assert [reply["target"] for reply in unknown] == ["discord:alice"]
    gateway.stop()
    gateway.start()
    gateway.say("next", channel="discord", conversation="alice")
    gateway.wait_for(lambda: len(gateway.delivered()) == 2)
    assert [line["attempt"] for line in gateway.delivered()] == [1, 1]


def test_a_channel_over_its_rate_is_called_again_when_it_said(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02)
    gateway.say("!limit", channel="discord", conversation="alice")
    gateway.say("hello", channel="slack", conversation="bob")
    gateway.wait_for(lambda: len(gateway.delivered()) == 2)
    by_target = {line["target"]: line["attempt"] for line in gateway.delivered()}
    assert by_target == {"discord:alice": 2, "slack:bob": 1}


def test_stop_ends_a_turn_and_the_next_message_is_answered(gateway: GatewayProcess) -> None:
    assert gateway.command("/stop") == "Nothing is running."
    with gateway.page() as page:
        gateway.say("!hang")
        page.next("thinking")
        behind = gateway.say("behind it")["event_id"]
        assert gateway.command("/stop") == "Stopped."
        page.next("stopped")
        page.next("reply", event_id=behind)
    assert [notice["type"] for notice in page.notices].count("thinking") == 2
    assert "failed" not in [notice["type"] for notice in page.notices]
    gateway.wait_for(lambda: gateway.held() == [])


# -- notices ---------------------------------------------------------------------------


def test_a_notice_reaches_channel_and_page_once_across_a_kill(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02)
    gateway.say("!empty", channel="discord", conversation="alice")
    gateway.say("!empty")
    (notice,) = gateway.wait_for(gateway.noticed)
    assert (notice["target"], notice["event"]) == ("discord:alice", "turn_incomplete")
    assert "ask again" in notice["text"]
    gateway.wait_for(lambda: gateway.get("/conversations/lobby")["notices"])
    gateway.kill()
    gateway.start()
    # A page that opens later reads what its user was told meanwhile.
    (shown,) = gateway.get("/conversations/lobby")["notices"]
    assert (shown["event"], "ask again" in shown["text"]) == ("turn_incomplete", True)
    assert gateway.get("/conversations/other")["notices"] == []
    # Replies of a conversation keep their order: a second notice would be before this one.
    gateway.ask("and on", "alice", channel="discord")
    gateway.wait_for(gateway.delivered)
    assert len(gateway.noticed()) == 1


# -- OpenClaw's settings ---------------------------------------------------------------


def openclaw(tmp_path: Path, **session: object) -> Path:
    path = tmp_path / "openclaw.json"
    path.write_text(json.dumps({"session": session}))
    return path


def test_an_idle_conversation_is_reset_by_the_next_message(
    gateway_process: Start, tmp_path: Path
) -> None:
    idle = openclaw(
        tmp_path,
        reset={"mode": "none"},
        resetByChannel={"web": {"mode": "idle", "idleMinutes": 0.002}},
    )
    gateway = gateway_process(model_delay=0.0, openclaw=idle)
    with gateway.page() as page:
        gateway.ask("before")
        time.sleep(0.15)  # so long it is idle
        assert "shown 1 message." in gateway.ask("after")
        assert page.next("reset")["reason"] == "idle"
    assert [item["what"] for item in gateway.said()] == [
        "user",
        "assistant",
        "reset",
        "user",
        "assistant",
    ]
    gateway.ask("elsewhere", "alice", channel="discord")
    time.sleep(0.15)
    assert "shown 3 messages" in gateway.ask(
        "no policy of this channel", "alice", channel="discord"
    )


def test_an_archived_conversation_is_answered_again(gateway_process: Start, tmp_path: Path) -> None:
    keep = openclaw(
        tmp_path, maintenance={"mode": "enforce", "maxEntries": 1, "preserveRecent": "0d"}
    )
    gateway = gateway_process(model_delay=0.0, openclaw=keep, gc_every=0.1)
    for name in ("alice", "bob", "carol"):
        gateway.ask("hello", name)
    gateway.wait_for(
        lambda: (
            query(gateway.database, "SELECT count(*) FROM archive WHERE state = 'archived'")[0] >= 2
        )
    )
    assert "You said: back again" in gateway.ask("back again", "alice")
    gateway.wait_for(lambda: "retention: " in gateway.wrote())


def test_settings_that_cannot_be_meant_are_refused_in_one_line(tmp_path: Path) -> None:
    for text, says in (
        ('{"session": {"reset": {"mode": "sometimes"}}}', "session.reset.mode"),
        ("{", "not an object in JSON"),
    ):
        (tmp_path / "openclaw.json").write_text(text)
        command = [
            sys.executable,
            "-m",
            "examples.gateway",
            str(tmp_path / "x.db"),
            "--port=0",
            f"--openclaw={tmp_path / 'openclaw.json'}",
        ]
        ended = warm.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert (ended.returncode, says in ended.stderr, "Traceback" in ended.stderr) == (
            1,
            True,
            False,
        ), ended.stderr


def test_operators_see_the_newest_dead_letters_without_text(
    gateway_process: Start,
) -> None:
    gateway = gateway_process(model_delay=0.02)
    for number in range(25):
        gateway.say(f"!hang {number}")
    gateway.stop()
    change(gateway.database, "UPDATE inbox SET state = 'dead', reason = 'a test'")
    gateway.start()
    status = gateway.status()
    assert [letter["inbox_no"] for letter in status["dead_letters"]] == list(range(25, 5, -1))
    assert "!hang" not in json.dumps(status)
    assert status["database"]["gateway"]["messages_dead"] == 25


# -- stopping, killing, starting -------------------------------------------------------


def test_sigterm_lets_a_turn_end_and_sends_its_reply(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02)
    for conversation in ("one", "two"):
        gateway.say("!slow 2 hello", channel="sim", conversation=conversation)
    gateway.wait_for(lambda: len(gateway.held()) == 2)
    assert "stopped in good order" in gateway.stop()
    assert "Traceback" not in gateway.wrote()
    assert sorted(line["target"] for line in gateway.delivered()) == ["sim:one", "sim:two"]
    assert query(gateway.database, "SELECT DISTINCT state FROM turn") == ["completed"]
    assert query(gateway.database, "SELECT DISTINCT state FROM outbox") == ["sent"]
    anyio.run(nothing_is_held, gateway.database)


def test_a_second_signal_ends_the_wait(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02, drain=10_000)
    gateway.say("!stall")
    gateway.wait_for(lambda: len(gateway.held()) == 1)
    gateway.signal()
    gateway.wait_for(lambda: query(gateway.database, DRAINING) == [1])
    assert "stopped in good order" in gateway.stop()
    assert query(gateway.database, "SELECT state FROM turn") == ["interrupted"]


DRAINING = "SELECT count(*) FROM instance WHERE draining_at_ms IS NOT NULL"


def test_sigterm_releases_what_goes_on_and_the_next_start_resumes(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02, drain=0.1)
    fill(gateway, "other", times=2)
    with gateway.page() as page:
        event_id = gateway.say("!stall")["event_id"]
        page.next("thinking")
        gateway.command("/compact !hang", conversation="other")
        gateway.wait_for(lambda: len(gateway.held()) == 2)
        assert "stopped in good order" in gateway.stop()
    assert "Traceback" not in gateway.wrote()
    anyio.run(nothing_is_held, gateway.database)
    gateway.start()
    assert [decision["action"] for decision in gateway.status()["decisions"]] == ["resume"]
    assert gateway.wait_for(lambda: gateway.answer_to(event_id))
    assert [item["what"] for item in gateway.said()] == ["user", "assistant"]


def test_a_stop_that_cannot_sign_off_says_so(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02, lease=1, drain=0)
    with gateway.page() as page:
        gateway.say("!stall")
        page.next("thinking")
        with locked_by_another_process(gateway.database):
            said = gateway.stop()
    assert "could not sign off" in said
    assert "turn 1 of session" in said
    assert "good order" not in said


async def nothing_is_held(path: Path) -> None:
    async with sessiondb.open(path, readonly=True) as db:
        assert await db.held() == []
        assert (await db.verify()).ok


def test_after_kill_9_acknowledged_messages_are_answered(
    gateway_process: Start,
) -> None:
    gateway = gateway_process(model_delay=0.02)
    with gateway.page() as page:
        interrupted = gateway.say("!stall")["event_id"]
        page.next("thinking")
        waiting = gateway.say("behind it")["event_id"]
        gateway.kill()
    gateway.start()
    assert gateway.status()["recovered"]["turns"] == 1
    assert gateway.wait_for(lambda: gateway.answer_to(waiting))
    # Both are in the transcript once. The newer one was answered knowing the
    # interrupted one, or after it.
    assert [item["event_id"] for item in gateway.said() if item["what"] == "user"] == [
        interrupted,
        waiting,
    ]
    gateway.stop()
    anyio.run(nothing_is_held, gateway.database)


@pytest.mark.slow
def test_the_load_generator_finds_every_message_after_a_kill(
    gateway_process: Start, tmp_path: Path
) -> None:
    from examples.gateway.load import Load

    # A resumed message waits for its turn among the resumes, and the summarisers are
    # slower than the conversations.
    gateway = gateway_process(
        model_delay=0.03,
        summary_delay=0.5,
        threshold=400,
        keep=100,
        resumes=4,
        care_every=0.2,
        breaker=9,
    )
    port = gateway.url.rpartition(":")[2]
    load = Load(lambda: gateway.url, conversations=9, pause_s=0.1, ledger=tmp_path / "ledger.jsonl")

    async def acknowledged(more: int) -> None:
        least = len(load.ledger.acknowledged) + more
        await until(lambda: len(load.ledger.acknowledged) >= least)

    async def talk() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run, 10 * PATIENCE_S)  # it is cancelled long before
            await acknowledged(30)
            await anyio.to_thread.run_sync(gateway.kill)
            await until(lambda: load.ledger.away)
            await anyio.to_thread.run_sync(lambda: gateway.start(port=port))
            await acknowledged(30)
            tasks.cancel_scope.cancel()

    anyio.run(talk)
    found = anyio.run(load.check)
    assert found.ok, found
    assert found.joined <= len(load.conversations)  # at most one of each was interrupted
    assert found.acknowledged == len((tmp_path / "ledger.jsonl").read_text().splitlines()) >= 60


def test_a_used_port_and_a_foreign_file_are_refused_in_one_line(
    gateway_process: Start, tmp_path: Path
) -> None:
    first = gateway_process()
    other = tmp_path / "other.db"
    other.write_text("a letter, not a database" * 100)
    for arguments, says in (
        ([str(tmp_path / "second.db"), f"--port={first.url.rpartition(':')[2]}"], "in use"),
        ([str(other), "--port=0"], "not a"),
    ):
        command = [sys.executable, "-m", "examples.gateway", *arguments]
        ended = warm.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert ended.returncode == 1
        assert ended.stderr.startswith("gateway: ")
        assert says in ended.stderr
        assert "Traceback" not in ended.stderr


# -- how it is made --------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples" / "gateway").glob("*.py")), ids=lambda path: path.stem
)
def test_it_uses_the_public_api_only(path: Path) -> None:
    allowed = {
        "sessiondb": sessiondb.__all__,
        "sessiondb.openclaw_settings": ["reset_policy", "resume_policy", "retention_policy"],
    }
    tree = ast.parse(path.read_text("utf-8"))
    imported = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and not node.level
        and (node.module or "").split(".")[0] == "sessiondb"
        for alias in node.names
    ]
    assert all(name in allowed.get(str(module), ()) for module, name in imported), imported
    assert (
        re.findall(r"\bdb\.(?:backend|read|write)\b|\bapsw\b|\bsqlite3\b", path.read_text("utf-8"))
        == []
    )


def test_the_part_that_shows_how_is_short_enough_to_be_read() -> None:
    text = (ROOT / "examples" / "gateway" / "gateway.py").read_text("utf-8")
    prose = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = [
        line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in prose
    ]
    assert len([line for line in lines if line and not line.startswith("#")]) < 400

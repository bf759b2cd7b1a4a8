"""The reference gateway over HTTP, as a real process.

What sessiondb promises is proved elsewhere. Here it is that the gateway hands those
promises on.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import anyio
import pytest

from tests import ROOT

pytest.importorskip(
    "starlette", reason="starlette is not installed; it is part of the gateway extra"
)

from starlette.requests import Request
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import sessiondb
import sessiondb.sync
from examples.gateway.model import ScriptedModel, assistant, tool_call
from examples.gateway.tools import use_tool, with_results
from sessiondb.limits import SESSION_WAITING_MAX
from tests.support.chat_endpoint import ChatEndpoint
from tests.support.core import change, query
from tests.support.engine import locked_by_another_process
from tests.support.reference_gateway import PATIENCE_S, GatewayProcess

Start = Callable[..., GatewayProcess]

LONG = (
    "something long enough to fill the context with, so that it has to be compacted before "
    "it can go on "
)


@pytest.fixture(scope="module")
def module_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("shared")
    with GatewayProcess(folder / "gateway.db", model_delay=0.02, summary_delay=0.05) as started:
        yield started


@pytest.fixture
def gateway(module_gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """Return a gateway that tests share, at rest, with a conversation of the test's own."""
    module_gateway.lobby = f"lobby-{uuid.uuid4().hex[:8]}"
    yield module_gateway
    module_gateway.command("/stop")
    module_gateway.wait_for(lambda: module_gateway.held() == [])


def fill(gateway: GatewayProcess, conversation: str | None = None, *, times: int = 4) -> None:
    for number in range(times):
        gateway.ask(f"{LONG} {number}", conversation)


# -- messages --------------------------------------------------------------------------


def test_a_message_is_acknowledged_with_a_receipt_and_answered(gateway: GatewayProcess) -> None:
    with gateway.page() as page:
        receipt = gateway.say("hello")
        assert (receipt["state"], receipt["ahead"], receipt["duplicate"]) == ("queued", 0, False)
        reply = page.next("reply", event_id=receipt["event_id"])
        assert reply["text"].startswith("You said: hello")
        assert [notice["type"] for notice in page.notices] == [
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


# -- compaction ------------------------------------------------------------------------


def test_a_large_context_is_compacted_while_turns_run(
    gateway_process: Start,
) -> None:
    gateway = gateway_process(model_delay=0.02, summary_delay=0.5, threshold=60, keep=10)
    with gateway.page() as page:
        fill(gateway)
        page.next("compacting", trigger="threshold")
        assert gateway.ask("meanwhile").startswith("You said: meanwhile")
        compacted = page.next("compacted")
    assert (compacted["outcome"], compacted["late"]) == ("committed", False)
    kinds = [notice["type"] for notice in page.notices]
    assert "reply" in kinds[kinds.index("compacting") : kinds.index("compacted")]
    assert "with a summary of earlier ones" in gateway.ask("do you remember?")


def test_compact_and_status_are_answered_while_a_turn_runs(
    gateway: GatewayProcess,
) -> None:
    fill(gateway, times=2)
    with gateway.page() as page:
        gateway.say("!hang")
        page.next("thinking")
        assert "message from web" in gateway.command("/status")
        assert gateway.command("/compact the lock").startswith("Compacting")
        assert page.next("compacted", trigger="manual")["outcome"] == "committed"
    assert re.search(r"Compactions: 1 · epoch 1", gateway.command("/status"))
    assert "/compact" in gateway.command("/help")


def lose_a_summary(gateway: GatewayProcess, script: str, outcome: str) -> None:
    fill(gateway, times=2)
    with gateway.page() as page:
        gateway.command(f"/compact {script}")
        page.next("compacting")
        assert gateway.ask("meanwhile").startswith("You said: meanwhile")
        assert page.next("compacted")["outcome"] == outcome
        gateway.command("/compact")
        page.next("compacted", outcome="committed")


@pytest.mark.parametrize(
    ("script", "outcome"), [("!fail", "failed"), ("!empty", "rejected")], ids=["raises", "empty"]
)
def test_a_summary_that_goes_wrong_costs_nothing_but_itself(
    gateway: GatewayProcess, script: str, outcome: str
) -> None:
    lose_a_summary(gateway, script, outcome)


def test_a_summary_that_hangs_costs_nothing_but_itself(gateway_process: Start) -> None:
    options = {"compaction_timeout": 1, "late": 1}
    gateway = gateway_process(model_delay=0.02, summary_delay=0.02, **options)
    lose_a_summary(gateway, "!hang", "expired")


def test_a_summary_that_outlasts_its_block_is_committed_late(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02, compaction_timeout=0.2)
    fill(gateway, times=2)
    with gateway.page() as page:
        gateway.command("/compact !slow 0.6")
        assert page.next("compacted")["outcome"] == "expired"
        gateway.ask("said in between")
        late = page.next("compacted")
    assert (late["trigger"], late["outcome"], late["late"]) == ("late", "committed", True)
    assert "with a summary of earlier ones" in gateway.ask("do you remember?")


def test_stop_cancels_a_compaction(gateway: GatewayProcess) -> None:
    fill(gateway, times=2)
    with gateway.page() as page:
        gateway.command("/compact !hang")
        page.next("compacting")
        gateway.wait_for(lambda: [held["what"] for held in gateway.held()] == ["compaction"])
        assert gateway.command("/stop") == "Stopped."
        assert page.next("compacted")["outcome"] == "cancelled"
    gateway.wait_for(lambda: gateway.held() == [])


@pytest.mark.parametrize("word", ["/new", "/reset"])
def test_new_waits_for_earlier_messages_and_starts_empty(
    gateway: GatewayProcess, word: str
) -> None:
    before = gateway.say("before")["event_id"]
    gateway.say(word)
    after = gateway.ask("after")
    assert "shown 1 message." in after
    assert gateway.answer_to(before)
    assert [item["what"] for item in gateway.said()] == [
        "user",
        "assistant",
        "user",
        "reset",
        "user",
        "assistant",
    ]


class Summariser(ScriptedModel):
    """Takes its time, and counts how many of it are at work."""

    working = most = begun = 0

    async def summarise(self, messages: list[dict[str, Any]], focus: str) -> str:
        self.working, self.begun = self.working + 1, self.begun + 1
        self.most = max(self.most, self.working)
        try:
            return await super().summarise(messages, focus)
        finally:
            self.working -= 1


async def gateway_with_conversations(
    db: sessiondb.SessionDB, model: ScriptedModel, tasks: Any, **settings: Any
) -> tuple[Any, list[Any]]:
    """Start a gateway in this process beside three conversations that are worth compacting."""
    from examples.gateway.gateway import Gateway, Settings

    gateway = Gateway(db, model, Settings(keep_tokens=10, **settings))
    await gateway.start(tasks)
    sessions = [
        await db.session(f"agent:main:web:direct:{name}") for name in ("alice", "bob", "carol")
    ]
    for session in sessions:
        for number in range(4):
            await session.append({"role": "user", "content": f"{LONG} {number}"})
            await session.append(assistant(f"{LONG} {number}"))
    return gateway, sessions


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what it looks at has no event
            await anyio.sleep(0.01)


def test_an_abandoned_summariser_counts_against_the_limit(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        model = Summariser(0.0, 0.2)
        async with (
            sessiondb.open(tmp_path / "gateway.db") as db,
            anyio.create_task_group() as tasks,
        ):
            gateway, sessions = await gateway_with_conversations(
                db, model, tasks, compaction_timeout_s=0.02, summaries_max=1
            )
            assert all(gateway.compact_soon(session, "manual") for session in sessions)
            await until(lambda: model.begun == 3 and not model.working)
            assert model.most == 1, (
                "the limit holds, though each block was left long before its summary came"
            )
            tasks.cancel_scope.cancel()

    anyio.run(run)


def test_a_summariser_that_fails_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async def run() -> None:
        model = Summariser(0.0, 0.0, summary_script="!fail")
        async with (
            sessiondb.open(tmp_path / "gateway.db") as db,
            anyio.create_task_group() as tasks,
        ):
            gateway, (alice, bob, _) = await gateway_with_conversations(
                db, model, tasks, compaction_pause_s=3_600.0
            )
            assert gateway.compact_soon(alice, "threshold")
            await until(lambda: not gateway.compacting)
            assert not gateway.compact_soon(alice, "threshold"), "not on every message"
            assert gateway.compact_soon(bob, "threshold"), "another conversation is another matter"
            await until(lambda: not gateway.compacting)
            assert gateway.compact_soon(alice, "manual"), "a person may try"
            await until(lambda: not gateway.compacting)
            assert model.begun == 3
            gateway.settings = replace(gateway.settings, compaction_pause_s=0.0)
            assert gateway.compact_soon(bob, "manual")
            await until(lambda: not gateway.compacting)
            assert gateway.compact_soon(bob, "threshold"), "when the pause is over"
            tasks.cancel_scope.cancel()

    anyio.run(run)


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
        ended = subprocess.run(
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


# -- a model of somebody else's --------------------------------------------------------


def test_any_openai_compatible_endpoint_answers_and_summarises(
    gateway_process: Start, endpoint: ChatEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_API_KEY", "a-key")
    asked = endpoint.asked
    gateway = gateway_process(endpoint=endpoint.url, model="small")
    assert gateway.ask("first", agent="coder") == "it is about first"
    path, key, body = asked[0]
    assert (path, key, body["model"]) == ("/v1/chat/completions", "Bearer a-key", "small")
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "programmer" in body["messages"][0]["content"]
    assert "Context: 77/" in gateway.command("/status", agent="coder"), (
        "what the provider counted is what the context weighs"
    )
    with gateway.page(agent="coder") as page:
        gateway.command("/compact the names", agent="coder")
        assert page.next("compacted")["outcome"] == "committed"
        assert "the names" in asked[-1][2]["messages"][-1]["content"]
        gateway.say("fail", agent="coder")
        assert "answered 500: overloaded" in page.next("failed")["reason"]
    gateway.ask("second", "other")
    assert (
        "summary"
        in next(body for _, _, body in asked if body["messages"][-1]["content"] == "fail")[
            "messages"
        ][1]["content"]
    )


def test_an_external_model_is_offered_tools_and_their_results(
    gateway_process: Start, endpoint: ChatEndpoint
) -> None:
    asked = endpoint.asked
    gateway = gateway_process(endpoint=endpoint.url, model="small")
    assert re.fullmatch(
        r"it is about \d{4}-\d\d-\d\dT[0-9:]+\+00:00", gateway.ask("what time is it")
    )
    assert {tool["function"]["name"] for tool in asked[0][2]["tools"]} == {"clock", "wait"}
    assert [message["role"] for message in asked[1][2]["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]
    assert [message.get("tool_call_id") for message in asked[1][2]["messages"]][-1] == "call-1"


# -- tools -----------------------------------------------------------------------------


def test_what_a_tool_did_is_in_the_transcript_before_the_answer(gateway: GatewayProcess) -> None:
    assert gateway.ask("!tool 0.01 please") == "The tool said: waited for 0.01 s"
    session_id = gateway.get(f"/conversations/{gateway.lobby}")["session_id"]
    roles = query(
        gateway.database,
        """SELECT e.role FROM entry AS e JOIN session AS s ON s.session_no = e.entry_no >> 32
           WHERE s.session_id = ? AND e.role IS NOT NULL ORDER BY e.entry_no""",
        session_id,
    )
    assert roles == ["user", "assistant", "toolResult", "assistant"]
    assert [item["what"] for item in gateway.said()] == ["user", "assistant"], (
        "a page shows what was said"
    )


def test_a_tool_that_was_cut_off_is_reported_and_not_repeated(
    gateway_process: Start,
) -> None:
    gateway = gateway_process(model_delay=0.02)
    event_id = gateway.say("!tool 60")["event_id"]
    gateway.wait_for(lambda: [held for held in gateway.held() if held["operation"] == "tool wait"])
    gateway.kill()
    gateway.start()
    answer = gateway.wait_for(lambda: gateway.answer_to(event_id))
    assert answer.startswith("The tool said: This was cut off")
    assert query(
        gateway.database, "SELECT role FROM entry WHERE role IS NOT NULL ORDER BY entry_no"
    ) == ["user", "assistant", "assistant"]


def test_every_call_of_a_context_has_a_result() -> None:
    call = tool_call("wait", {"seconds": 1}, "a")
    done = {"role": "toolResult", "toolCallId": "a", "content": []}
    assert with_results([assistant("", [call]), done]) == [
        assistant("", [call]) | {"timestamp": ANY},
        done,
    ]
    asked, report, later = with_results(
        [assistant("", [call]), {"role": "user", "content": "and?"}]
    )
    assert (
        asked["role"],
        report["role"],
        report["toolCallId"],
        report["isError"],
        later["role"],
    ) == (
        "assistant",
        "toolResult",
        "a",
        True,
        "user",
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (tool_call("fly", {}), "there is no tool 'fly'"),
        (tool_call("wait", {"seconds": "long"}), "wait cannot do that"),
    ],
)
def test_a_tool_that_fails_says_so_to_the_model(call: dict[str, Any], message: str) -> None:
    result = anyio.run(use_tool, call)
    assert result["isError"]
    assert message in result["content"][0]["text"]


# -- stopping, killing, starting -------------------------------------------------------


def test_sigterm_releases_everything_and_the_next_start_resumes(gateway_process: Start) -> None:
    gateway = gateway_process(model_delay=0.02)
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
    gateway = gateway_process(model_delay=0.02, lease=1)
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
        ended = subprocess.run(
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

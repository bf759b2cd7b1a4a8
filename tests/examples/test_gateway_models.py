"""Models of the reference gateway: of any maker, with tools whose results are kept."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

pytest.importorskip(
    "starlette", reason="starlette is not installed; it is part of the gateway extra"
)


from examples.gateway.model import ChatEndpoint as ChatModel
from examples.gateway.model import ModelError, text_of, tool_call
from examples.gateway.tools import calls_of, use_tool
from tests.support.chat_endpoint import ChatEndpoint
from tests.support.core import query
from tests.support.reference_gateway import GatewayProcess, Start

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
    assert "shown 77 tokens" in gateway.command("/status", agent="coder"), (
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


def test_an_answer_that_comes_in_pieces_is_put_together(endpoint: ChatEndpoint) -> None:
    async def answers() -> list[tuple[dict[str, Any], list[str]]]:
        model, came = ChatModel.at(endpoint.url, "small"), []
        for text in ("first", "what time is it"):
            for endpoint.streams in (True, False):
                pieces: list[str] = []
                messages = [{"role": "user", "content": text}]
                message = await model.answer("", messages, attempt=1, write=pieces.append)
                came.append((message, pieces))
        endpoint.streams = endpoint.breaks_off = True
        with pytest.raises(ModelError, match="overloaded"):
            await model.answer("", messages, attempt=1, write=pieces.append)
        assert await model.summarise(messages, "") != "", "a summary is asked for as a whole"
        await model.close()
        return came

    (first, pieces), (whole, none), (call, _), (whole_call, _) = anyio.run(answers)
    assert (pieces, none) == (["it ", "is ", "about ", "first "], [])
    assert text_of(first).strip() == text_of(whole) == "it is about first"
    assert first["usage"] == whole["usage"]
    assert calls_of(call) == calls_of(whole_call)
    assert [asked["name"] for asked in calls_of(call)] == ["clock"]


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
    assert answer.startswith("The tool said: There is no result of this call of the tool wait.")
    assert query(
        gateway.database, "SELECT role FROM entry WHERE role IS NOT NULL ORDER BY entry_no"
    ) == ["user", "assistant", "assistant"]


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

"""A session has one message format: chosen, or decided by its items. Others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseReasoningItem,
)

import sessiondb
from sessiondb import InvalidInput, Session, SessionDB
from sessiondb.messages import UserMessage
from sessiondb.transcript.formats.base import SUMMARY_INTRODUCTION
from sessiondb.words import (
    MessageFormat,
)
from tests.support.core import query, reply, user
from tests.support.prompts import Checker, check_anthropic, check_chat, check_responses
from tests.support.talks import SPEAKERS, Item, random_talk

pytestmark = pytest.mark.one_loop

KEY = "agent:main:web:1"
CALL = {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "the file"}
TOOL_USE: Item = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "t1", "name": "read", "input": {}}],
}
TOOL_RESULT: Item = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "the file"}],
}
CHAT_CALL: Item = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "read", "arguments": "{}"}}
    ],
}
CHAT_RESULT: Item = {"role": "tool", "tool_call_id": "c1", "content": "the file"}
UNMISTAKABLE: dict[MessageFormat, Item] = {
    "pi": reply("hm", calls=["c1"]),
    "openai-chat": CHAT_CALL,
    "openai-responses": CALL,
    "anthropic": TOOL_USE,
}

every_format = pytest.mark.parametrize("message_format", SPEAKERS)


async def format_of(session: Session) -> str | None:
    return (await session.info()).format


async def compact(session: Session, summary: str, **options: Any) -> None:
    async with session.compact(trigger="threshold", keep_recent_tokens=0) as job:
        await job.commit(summary, **options)


# -- deciding --------------------------------------------------------------------------


@every_format
async def test_the_first_unmistakable_item_decides(
    db: SessionDB, tmp_db: Path, message_format: MessageFormat
) -> None:
    session, other = await db.create_session(), await db.create_session()
    await session.append(user("hello"))
    await other.append(user("hello"))
    assert await format_of(session) is None
    await session.append(UNMISTAKABLE[message_format])
    assert await format_of(session) == message_format
    assert await format_of(other) is None
    rows = query(tmp_db, "SELECT session_id, format FROM session_overview")
    assert dict(rows) == {session.id: message_format, other.id: None}


@every_format
async def test_a_format_is_chosen_when_a_session_is_created(
    db: SessionDB, message_format: MessageFormat
) -> None:
    created = await db.create_session(format=message_format)
    by_key = await db.session(KEY, format=message_format)
    assert [await format_of(created), await format_of(by_key)] == [message_format] * 2
    assert (await db.session(KEY)).id == by_key.id
    assert (await db.session(KEY, format=message_format)).id == by_key.id
    other: MessageFormat = "pi" if message_format != "pi" else "anthropic"
    with pytest.raises(InvalidInput, match=f"{by_key.id} holds .* {message_format}"):
        await db.session(KEY, format=other)


async def test_a_session_that_is_not_decided_takes_the_format_that_is_asked_for(
    db: SessionDB,
) -> None:
    session = await db.session(KEY)
    await session.append(user("hello"))
    assert (await db.session(KEY, format="anthropic")).id == session.id
    assert await format_of(session) == "anthropic"


async def test_an_unknown_format_is_refused(db: SessionDB) -> None:
    unknown: Any = "xml"
    for call in (db.create_session(format=unknown), db.session(KEY, format=unknown)):
        with pytest.raises(InvalidInput, match="format is 'xml', and must be one of 'pi'"):
            await call
    assert [info async for info in db.sessions()] == []


async def test_items_narrow_the_formats_one_by_one(db: SessionDB) -> None:
    session = await db.create_session()
    await session.append({"role": "user", "content": [{"type": "text", "text": "hello"}]})
    with pytest.raises(InvalidInput, match=r"pi or openai-chat or anthropic.*openai-responses"):
        await session.append(CALL)
    await session.append({"role": "developer", "content": "be brief"})
    assert await format_of(session) == "openai-chat"


# -- refusing --------------------------------------------------------------------------


@every_format
async def test_an_item_of_another_format_is_refused_and_changes_nothing(
    db: SessionDB, message_format: MessageFormat
) -> None:
    session = await db.create_session(format=message_format)
    await session.append_many([user("hello"), UNMISTAKABLE[message_format]])
    before = await session.context()
    for other, item in UNMISTAKABLE.items():
        if other == message_format:
            continue
        with pytest.raises(InvalidInput) as refused:
            await session.append_many([user("more"), item])
        for said in (session.id, message_format, other, "create_session(format="):
            assert said in str(refused.value)
        assert refused.value.format == message_format
    assert (await session.context()).as_json() == before.as_json()


async def test_an_item_with_marks_of_two_formats_is_refused(db: SessionDB) -> None:
    session = await db.create_session()
    mixed = {
        "role": "assistant",
        "content": [*TOOL_USE["content"], *reply("", calls="c")["content"]],
    }
    with pytest.raises(InvalidInput, match="marks of formats that no provider mixes"):
        await session.append(mixed)
    assert (await session.info()).entries == 0


async def test_settings_and_notes_of_a_program_fit_every_format(db: SessionDB) -> None:
    session = await db.create_session(format="openai-responses")
    await session.append({"type": "custom", "customType": "state", "data": {"n": 1}})
    await session.append({"type": "session_info", "name": "the name"})
    with pytest.raises(InvalidInput, match="custom_message item is of pi"):
        await session.append({"type": "custom_message", "content": "x"})
    assert (await session.info()).name == "the name"
    assert (await session.context()).messages == []


async def test_an_item_of_a_newer_type_is_an_item_only_in_its_own_format(db: SessionDB) -> None:
    item = {"type": "telepathy_call", "id": "x1", "thought": "t" * 400}
    session, other = await db.create_session(format="openai-responses"), await db.create_session()
    await session.append_many([user("go"), item])
    await other.append_many([user("go"), item])
    assert (await session.context()).messages == [user("go"), item]
    assert (await session.info()).context_tokens > 100
    assert (await other.context()).messages == [user("go")]


async def test_accept_refuses_a_message_of_another_format(db: SessionDB) -> None:
    session = await db.session(KEY, format="openai-responses")
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    await db.accept(KEY, said, channel="web", event_id="1")
    await db.accept(KEY, user("hi"), channel="web", event_id="2")
    with pytest.raises(InvalidInput, match=f"{session.id} holds .* this message is of anthropic"):
        await db.accept(KEY, TOOL_RESULT, channel="web", event_id="3")
    with pytest.raises(InvalidInput, match='a message has a "role"'):
        await db.accept(KEY, OUTPUT, channel="web", event_id="4")


async def test_an_accepted_message_decides(db: SessionDB) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    await db.accept(KEY, {"role": "user", "content": [image]}, channel="web", event_id="1")
    assert await format_of(await db.session(KEY)) == "openai-chat"


async def test_an_edit_of_another_format_is_refused(db: SessionDB) -> None:
    await db.session(KEY, format="anthropic")
    await db.accept(KEY, user("hi"), channel="web", event_id="1")
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(InvalidInput, match="this edit is of openai-chat"):
        await db.edit(
            KEY, {"role": "user", "content": [image]}, channel="web", event_id="1", version=1
        )
    assert (
        await db.edit(KEY, user("ho"), channel="web", event_id="1", version=1)
    ).outcome == "replaced"


async def test_typed_messages_are_pis(db: SessionDB) -> None:
    session = await db.create_session()
    await session.append(UserMessage(content="hello"))
    assert await format_of(session) == "pi"
    await db.accept(KEY, UserMessage(content="hello"), channel="web", event_id="1")
    assert await format_of(await db.session(KEY)) == "pi"


async def test_an_sdks_own_objects_are_appended_as_they_are(db: SessionDB) -> None:
    call = ResponseFunctionToolCall(
        type="function_call", call_id="c1", name="read", arguments="{}", id="fc_1"
    )
    session = await db.create_session()
    await session.append(call)
    assert await format_of(session) == "openai-responses"
    assert (await session.context(raw=True)).messages == [{**CALL, "id": "fc_1"}]


# -- contexts --------------------------------------------------------------------------


async def test_the_items_of_openai_responses_come_back_as_they_were(db: SessionDB) -> None:
    session = await db.create_session()
    items = [user("read it"), CALL, OUTPUT]
    await session.append_many(items)
    assert (await session.context()).messages == items
    weighs = [entry.tokens for entry in await session.entries()]
    assert all(weighs)
    assert (await session.info()).context_tokens == sum(weighs)


async def test_a_message_weighs_the_same_whenever_it_is_read(db: SessionDB, tmp_path: Path) -> None:
    weighs = {}
    for message_format, item in UNMISTAKABLE.items():
        for chosen in (message_format, None):
            session = await db.create_session(format=chosen)
            for role in ("user", "assistant"):
                await session.append({"role": role, "content": ""})
                await session.append({"role": role, "content": "hello", "latency": 1_585})
            await session.append(item)
            weighs[session.id] = [entry.tokens for entry in await session.entries()]
    assert not (await db.verify()).findings
    await db.export(tmp_path / "exported")
    async with sessiondb.temporary() as other:
        await other.import_path(tmp_path / "exported")
        for session_id, tokens in weighs.items():
            session = await other.session_by_id(session_id)
            assert [entry.tokens for entry in await session.entries()] == tokens


SUMMARY = f"{SUMMARY_INTRODUCTION}\n\n<summary>\nTHE SUMMARY\n</summary>"


@pytest.mark.parametrize(
    ("message_format", "shape"),
    [
        ("openai-chat", {"role": "user", "content": SUMMARY}),
        ("anthropic", {"role": "user", "content": SUMMARY}),
        (
            "openai-responses",
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": SUMMARY}],
            },
        ),
    ],
)
async def test_a_summary_has_the_shape_of_its_format(
    db: SessionDB, message_format: MessageFormat, shape: Item
) -> None:
    session = await db.create_session(format=message_format)
    await session.append_many([user("q" * 400), {"role": "assistant", "content": "a" * 400}])
    await compact(session, "THE SUMMARY", details={"files": ["a"]})
    await session.append(user("next"))
    context = await session.context()
    assert context.messages == [shape, user("next")]
    assert context.details == {"files": ["a"]}
    assert context.format == message_format
    async with session.compact(trigger="manual", keep_recent_tokens=0) as job:
        assert job.messages[0] == shape, "the summariser reads it in the same shape"


async def test_a_summary_of_pi_is_pis_own_message(db: SessionDB) -> None:
    session = await db.create_session()
    await session.append_many([user("q" * 400), reply("a" * 400)])
    await compact(session, "THE SUMMARY", details=[1])
    context = await session.context()
    assert context.messages[0]["role"] == "compactionSummary"
    assert context.details == [1]
    assert (await session.context(epoch=0)).details is None


async def test_a_reset_keeps_results_of_kept_calls_only(db: SessionDB) -> None:
    session = await db.create_session(format="anthropic")
    first = await session.append_many([user("q"), TOOL_USE, TOOL_RESULT, user("more")])
    await session.reset(keep_from=first[2].entry_id)
    assert (await session.context()).messages == [user("more")]
    fork = await session.fork(entry=first[3].entry_id)
    await fork.reset(keep_from=first[1].entry_id)
    kept = [TOOL_USE, TOOL_RESULT, user("more")]
    assert (await fork.context(raw=True)).messages == kept


async def test_the_providers_count_is_the_contexts(db: SessionDB) -> None:
    session = await db.create_session(format="anthropic")
    usage = {"input_tokens": 500, "output_tokens": 20, "cache_read_input_tokens": 80}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "hi"}], "usage": usage}
    await session.append_many([user("hello"), answer])
    info = await session.info()
    assert (info.context_tokens, info.tokens_fresh) == (600, True)


async def test_what_an_sdk_returned_is_sent_back_without_what_its_provider_refuses(
    db: SessionDB,
) -> None:
    chat = ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": "hi", "refusal": None, "annotations": [], "audio": None}
    )
    reasoning = ResponseReasoningItem.model_validate(
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "status": None}
    )
    message = ResponseOutputMessage.model_validate(
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "hi", "annotations": []}],
        }
    )
    reply_of_anthropic = Message.model_validate(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude",
            "content": [{"type": "text", "text": "hi", "citations": None}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 1, "output_tokens": 2},
        }
    )
    returned: list[tuple[MessageFormat, list[Any], Checker]] = [
        ("openai-chat", [chat], check_chat),
        ("openai-responses", [reasoning, message], check_responses),
        ("anthropic", [reply_of_anthropic], check_anthropic),
    ]
    for message_format, items, check in returned:
        session = await db.create_session()
        await session.append_many([user("hello"), *items, user("more")])
        context = await session.context()
        assert context.format == message_format
        assert len(context.messages) == len(items) + 2
        check(context.messages)


# -- the cut ---------------------------------------------------------------------------


async def test_a_result_beside_text_begins_no_context(db: SessionDB) -> None:
    """Anthropic: whatever is kept, no context begins with a result whose call was summarised."""
    session = await db.create_session()
    for at in range(6):
        await session.append(user(f"q{at} " + "x" * 400))
        call = {"type": "tool_use", "id": f"t{at}", "name": "read", "input": {"p": "p" * 4000}}
        await session.append({"role": "assistant", "content": [call]})
        result = {"type": "tool_result", "tool_use_id": f"t{at}", "content": "r" * 4000}
        reminder = {"type": "text", "text": "reminder: be brief " * 20}
        await session.append({"role": "user", "content": [result, reminder]})
        answer = [{"type": "text", "text": "answer " + "y" * 400}]
        await session.append({"role": "assistant", "content": answer})
    assert await format_of(session) == "anthropic"
    seen = 0
    for keep in range(0, 6_000, 250):
        fork = await session.fork()
        async with fork.compact(trigger="manual", keep_recent_tokens=keep) as job:
            await job.commit("S")
        kept = (await fork.context()).messages[1:]
        assert "tool_result" not in json.dumps(kept[:1])
        seen += 1
    assert seen


async def test_a_compaction_between_call_and_result_keeps_both(db: SessionDB) -> None:
    """OpenAI chat: the compaction runs beside the turn whose tool is at work."""
    session = await db.create_session()
    for at in range(6):
        answer = {"role": "assistant", "content": "a" * 4000}
        await session.append_many([user(f"q{at} " + "x" * 4000), answer])
    await session.append_many([user("read the file"), CHAT_CALL])
    await compact(session, "S")
    await session.append(CHAT_RESULT)
    assert (await session.context()).messages[1:] == [user("read the file"), CHAT_CALL, CHAT_RESULT]


async def test_reasoning_stays_with_the_item_that_follows_it(db: SessionDB) -> None:
    session = await db.create_session(format="openai-responses")
    reasoning = {"type": "reasoning", "id": "r", "summary": []}
    message = {"type": "message", "role": "assistant", "content": "a" * 40}
    await session.append_many([user("q" * 40), reasoning, message, user("next")])
    await session.append({**reasoning, "id": "r2"})
    for keep in range(0, 60, 5):
        fork = await session.fork()
        async with fork.compact(trigger="manual", keep_recent_tokens=keep) as job:
            await job.commit("S")
        kept = (await fork.context()).messages[1:]
        assert kept[0] in (user("q" * 40), reasoning, user("next")), keep


async def test_a_commentary_before_a_call_is_no_answer(db: SessionDB) -> None:
    session = await db.create_session(format="openai-responses")
    commentary = {"type": "message", "role": "assistant", "content": "Let me look."}
    answered = [user("q" * 400), {**commentary, "content": "a" * 400}]
    await session.append_many([*answered, user("read it"), commentary, CALL])
    await compact(session, "S")
    assert (await session.context(raw=True)).messages[1:] == [user("read it"), commentary, CALL]


# -- elsewhere -------------------------------------------------------------------------


@every_format
async def test_a_fork_inherits_the_format(db: SessionDB, message_format: MessageFormat) -> None:
    session = await db.create_session(format=message_format)
    receipt = await session.append(user("hello"))
    await session.append(UNMISTAKABLE[message_format])
    for fork in (await session.fork(), await session.fork(entry=receipt.entry_id)):
        assert await format_of(fork) == message_format


@every_format
@pytest.mark.parametrize("chosen", [True, False])
async def test_an_export_says_the_format_and_an_import_reads_it(
    db: SessionDB, tmp_path: Path, message_format: MessageFormat, chosen: bool
) -> None:
    items = [user("hello"), *random_talk(message_format, 7).items, UNMISTAKABLE[message_format]]
    session = await db.create_session("one", format=message_format if chosen else None)
    await session.append_many(items)
    other = await db.create_session("two")
    await other.append(user("hello"))
    await db.export(tmp_path / "out")
    header = json.loads((tmp_path / "out" / "one.jsonl").read_text().splitlines()[0])
    assert header.get("sessiondbFormat", "pi") == message_format
    assert "sessiondbFormat" not in (tmp_path / "out" / "two.jsonl").read_text()
    async with sessiondb.open(tmp_path / "new.db", guard=False) as new:
        await new.import_path(tmp_path / "out" / "one.jsonl")
        imported = await new.session_by_id("one")
        assert await format_of(imported) == message_format
        assert (await imported.context()).messages == (await session.context()).messages
        before, after = await session.entries(), await imported.entries()
        assert [(e.role, e.tokens) for e in before] == [(e.role, e.tokens) for e in after]
        assert (await new.verify()).ok


async def test_a_transcript_of_another_program_is_pis(db: SessionDB, tmp_path: Path) -> None:
    header = {"type": "session", "version": 3, "id": "s", "timestamp": "2026-01-01T00:00:00.000Z"}
    message = {"type": "message", "id": "a", "parentId": None, "message": user("hello")}
    file = tmp_path / "s.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in (header, message)))
    await db.import_path(file)
    assert await format_of(await db.session_by_id("s")) == "pi"

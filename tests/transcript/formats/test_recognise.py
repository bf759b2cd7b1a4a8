"""Which formats an item may have. What fits several says the same in each."""

from __future__ import annotations

from typing import Any

import pytest

from sessiondb.transcript.formats import ANY, FORMATS, is_item, known, named, recognise
from tests.support.talks import SPEAKERS, Item, random_talk

TEXT = {"type": "text", "text": "hello"}
PI_CALL = {"type": "toolCall", "id": "c", "name": "n", "arguments": {}}


def reply(*blocks: Item, **fields: Any) -> Item:
    return {"role": "assistant", "content": list(blocks), **fields}


@pytest.mark.parametrize(
    ("item", "formats"),
    [
        ({"role": "user", "content": "hello"}, "all"),
        ({"role": "assistant", "content": "hello"}, "all"),
        ({"role": "system", "content": "be brief"}, "all"),
        ({"role": "user", "content": [TEXT]}, "pi or openai-chat or anthropic"),
        ({"role": "user", "content": [{"type": "new"}]}, "all"),
        ({"role": "developer", "content": "x"}, "openai-chat or openai-responses"),
        # pi
        (reply(PI_CALL), "pi"),
        (reply(TEXT, stopReason="stop"), "pi"),
        (reply(TEXT, usage={"input": 1, "output": 2}), "pi"),
        ({"role": "toolResult", "toolCallId": "c", "content": [TEXT]}, "pi"),
        ({"role": "bashExecution", "command": "ls"}, "pi"),
        ({"role": "custom-of-a-program", "content": "x"}, "pi"),
        ({"role": "user", "content": [{"type": "image", "data": "", "mimeType": "i"}]}, "pi"),
        (reply({"type": "thinking", "thinking": "hm", "thinkingSignature": "s"}), "pi"),
        # OpenAI chat
        ({"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}, "openai-chat"),
        ({"role": "tool", "tool_call_id": "c", "content": "x"}, "openai-chat"),
        ({"role": "assistant", "content": "x", "refusal": None}, "openai-chat"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "openai-chat"),
        ({"role": "assistant", "content": "x", "usage": {"prompt_tokens": 1}}, "openai-chat"),
        # OpenAI Responses
        ({"type": "function_call", "call_id": "c", "name": "n"}, "openai-responses"),
        ({"type": "message", "role": "user", "content": "x"}, "openai-responses"),
        ({"role": "user", "content": [{"type": "input_text", "text": "x"}]}, "openai-responses"),
        ({"type": "reasoning", "id": "r", "summary": []}, "openai-responses"),
        ({"type": "compaction", "encrypted_content": "x"}, "openai-responses"),
        # Anthropic
        (reply({"type": "tool_use", "id": "t", "name": "n", "input": {}}), "anthropic"),
        ({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}, "anthropic"),
        (reply(TEXT, type="message", model="claude", stop_reason="end_turn"), "anthropic"),
        (reply({**TEXT, "citations": None}), "anthropic"),
        ({"role": "user", "content": [{"type": "image", "source": {}}]}, "anthropic"),
        (reply({"type": "thinking", "thinking": "hm", "signature": "s"}), "anthropic"),
        (reply(TEXT, usage={"input_tokens": 1, "cache_read_input_tokens": 1}), "anthropic"),
        # none
        (reply(PI_CALL, {"type": "tool_use", "id": "t"}), ""),
    ],
)
def test_the_formats_that_an_item_may_have(item: Item, formats: str) -> None:
    assert is_item(item)
    assert named(recognise(item)) == (named(ANY) if formats == "all" else formats)


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "message", "message": {"role": "user", "content": "x"}},
        {"type": "compaction", "summary": "S", "firstKeptEntryId": "x"},
        {"type": "custom", "data": {}},
        {"type": "session_info", "name": "n"},
        {"type": "of-a-newer-program"},
        {"content": "x"},
        {"role": 5},
    ],
)
def test_entries_of_a_transcript_are_no_items(entry: Item) -> None:
    assert not is_item(entry)


@pytest.mark.parametrize("message_format", SPEAKERS)
def test_what_fits_several_formats_says_the_same_in_each(message_format: Any) -> None:
    shared = 0
    for seed in range(300):
        for item in random_talk(message_format, seed).items:
            bits = recognise(item)
            may_be = [each for each in FORMATS if bits & each.bit]
            assert message_format in {each.name for each in may_be}
            if item.get("content") == "":
                continue  # pi says that nothing weighs nothing
            said = {
                (
                    each.role(item),
                    tuple(each.opens(item)),
                    tuple(each.closes(item)),
                    each.tokens(item),
                    each.usage(item),
                )
                for each in may_be
            }
            assert len(said) == 1, (item, said)
            shared += len(may_be) > 1
    assert shared > 300


def test_a_session_has_a_format_when_one_is_left() -> None:
    assert [known(bits) for bits in (1, 2, 4, 8)] == [each.name for each in FORMATS]
    assert known(3) is None
    assert known(ANY) is None

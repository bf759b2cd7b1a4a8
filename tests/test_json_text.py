"""JSON text in and out: as its program wrote it, with the place of its message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sessiondb.json_text import (
    NESTING_MAX,
    DamagedLine,
    decode_object,
    dumps,
    dumps_again,
    has_more_values,
    storable,
)

EMOJI = "\U0001f642"
HALF = "\ud83d"
INFINITE = float("inf")


@pytest.mark.parametrize(
    ("text", "stored"),
    [("plain", "plain"), (f"é {EMOJI}", f"é {EMOJI}"), (f"cut {HALF}", "cut \\ud83d")],
)
def test_a_text_is_stored_as_it_is_and_half_an_emoji_spelled_out(text: str, stored: str) -> None:
    assert storable(text) == stored
    storable(text).encode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, "é"]}, '{"a":[1,"é"]}'),
        ({"a": HALF}, '{"a":"\\ud83d"}'),
        ({"a": [INFINITE, 2]}, '{"a":[null,2]}'),
    ],
)
def test_what_was_decoded_is_encoded_again(value: Any, text: str) -> None:
    assert dumps_again(value) == text


# A value before it and one after it, in every place where a program may put spaces.
LAYOUTS = [
    '{"id":"a","message":%s}',
    '{"id":"a", "message" : %s }',
    '{ "message": %s, "id": "a" }',
    '{"message":%s,"id":"a"}',
    '{"data":{"message":1},"message":%s ,\t"id":"a"}',
    '{"id": [1, {"message": {}}],\n "message":\n%s\n,\r\n"more": {} }',
    '{"message":{"role":"first"},"message":%s}',
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("message", ['{"role":"user","content":"a, {b} [c]"}', "{}"])
def test_the_place_of_a_message_is_found_in_every_layout(layout: str, message: str) -> None:
    text = layout % message
    fields, span = decode_object(text)
    assert fields == json.loads(text)
    assert span is not None
    assert text[slice(*span)] == message


@pytest.mark.parametrize("text", ["{}", '{"message":"text"}', '{"data":{"message":{}}}'])
def test_without_a_message_that_is_an_object_there_is_no_place(text: str) -> None:
    assert decode_object(text) == (json.loads(text), None)


def nested(depth: int) -> str:
    """Return an object that is nested so deeply."""
    return '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)


def test_many_brackets_are_not_deep_and_deep_ones_are_refused() -> None:
    wide = dumps({"list": [[] for _ in range(NESTING_MAX * 2)], "text": "[" * NESTING_MAX * 2})
    assert decode_object(wide)[0] == json.loads(wide)
    assert decode_object(nested(NESTING_MAX))[0]
    with pytest.raises(DamagedLine, match="nested too deeply"):
        decode_object(nested(NESTING_MAX + 1))


@pytest.mark.parametrize(
    ("text", "values"),
    [("[1,2,3]", 3), ('{"a":[],"b":{}}', 4), ('["a,b","[[",4]', 3), ('"a\\",["', 0)],
)
def test_values_are_counted_outside_of_texts(text: str, values: int) -> None:
    assert not has_more_values(text, values)
    assert not has_more_values(text + " " * 20, values)
    if values:
        assert has_more_values(text, values - 1)

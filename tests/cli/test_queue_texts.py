"""What a message or a reply says to a person."""

from __future__ import annotations

import pytest

from sessiondb.cli.queue_texts import text_of


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ('{"role":"user","content":"plain"}', "plain"),
        ('{"role":"user","content":[{"type":"text","text":"a"},{"type":"image"}]}', "a [image]"),
        ('{"text":"of a reply"}', "of a reply"),
        ('"bare"', "bare"),
        ('{"blocks":1}', '{"blocks": 1}'),
        ("{torn", "{torn"),
        ("7", ""),
    ],
)
def test_the_text_of_a_message_is_what_it_says_to_a_person(payload: str, text: str) -> None:
    assert text_of(payload) == text

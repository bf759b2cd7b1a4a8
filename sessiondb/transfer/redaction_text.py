r"""What redaction looks at: a text as it is, and the same text with its escapes decoded.

A secret may stand right behind an escape: `\nsk-ant-...` in JSON that is a string of JSON, a
colour of a terminal, `%3D` in a URL. To a rule the last character of the escape would be the one
before the secret, and part of a longer word. So each escape becomes one character first: the one
that it means, or a space.

The decoded text is made in one pass. Where a match of it is in the text as it is is found in a
second pass, because few texts have a match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from .redaction_rules import compiled

# A run of backslashes is read from its beginning only, so each character is read once.
_ESCAPE: Final = re.compile(
    rb"(?:\x1b|(?<!\\)\\++(?:u001[bB]|x1[bB]|033|e))\[[0-?]*+[ -/]*+[@-~]"  # a colour
    rb"|(?<!\\)\\++(?:(?P<letter>[\"'/bfnrt])|u(?P<unit>[0-9a-fA-F]{4})|x(?P<byte>[0-9a-fA-F]{2}))"
    rb"|%(?:25)*(?P<percent>[0-9a-fA-F]{2})"
)
_ONE_LEVEL: Final = re.compile(rb"\\(?:u(?P<unit>[0-9a-fA-F]{4})|(?P<letter>.))", re.DOTALL)
_LETTERS: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b" ", b"f": b" "}
_SPACE: Final = b" "
_PLAIN: Final = [
    (b"\\" + letter, _LETTERS.get(letter, letter))
    for letter in (b"n", b'"', b"t", b"r", b"/", b"b", b"f")
]

_LONG: Final = 4  # shorter words are in most texts

Span = tuple[int, int]


def decoded(text: bytes) -> bytes:
    """Return a text in which each escape is one character. The same object, if there is none."""
    if b"\\" not in text and b"%" not in text and b"\x1b" not in text:
        return text
    found = _ESCAPE.sub(_meant, text)
    return text if found == text else found


def decoded_once(text: bytes) -> bytes:
    """Return a line of JSON with the escapes of its own strings decoded, and no others."""
    if b"\\" not in text:
        return text
    if b"\\\\" in text or b"\\u" in text:
        return _ONE_LEVEL.sub(_meant, text)
    for letter, meant in _PLAIN:  # no backslash is one itself, so each begins an escape
        text = text.replace(letter, meant)
    return text


def _meant(escape: re.Match[bytes]) -> bytes:
    groups = escape.groupdict()
    if (letter := groups["letter"]) is not None:
        return _LETTERS.get(letter, letter)
    digits = groups["unit"] or groups.get("byte") or groups.get("percent")
    code = int(digits, 16) if digits is not None else 0x80
    # A letter that is not ASCII is of no secret.
    return bytes([code]) if code < 0x80 else _SPACE


def spans_in_text(text: bytes, spans: Sequence[Span]) -> Iterator[Span]:
    """Yield where spans of the decoded text are in the text itself. They come from left to right.

    An escape is in a span as a whole or not at all.
    """
    ends = [place for span in spans for place in span]
    places = _places_in_text(text, ends)
    return zip(places, places, strict=True)


def _places_in_text(text: bytes, places: Iterable[int]) -> Iterator[int]:
    escapes = _ESCAPE.finditer(text)
    escape = next(escapes, None)
    shorter = 0  # by so much the decoded text is, up to the escape
    for place in places:
        while escape is not None and escape.start() - shorter < place:
            shorter += len(escape[0]) - 1
            escape = next(escapes, None)
        yield place + shorter


class Words:
    """Finds which of many words a text has, without a search for each of them.

    A search for all of one part says no for most texts. Else what it is made of is searched.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._short = [word.encode() for word in words if len(word) < _LONG or len(words) == 1]
        long = [word for word in words if word.encode() not in self._short]
        self._pattern = "|".join(re.escape(word) for word in long)
        size = max(1, -(-len(long) // 8))
        self._parts = [Words(long[at : at + size]) for at in range(0, len(long), size)]

    def within(self, text: bytes) -> Iterator[str]:
        """Yield the words that a text of small letters has."""
        for word in self._short:
            if word in text:
                yield word.decode()
        pattern: Any = compiled(self._pattern) if self._parts else None
        if pattern is not None and pattern.search(text) is not None:
            for part in self._parts:
                yield from part.within(text)

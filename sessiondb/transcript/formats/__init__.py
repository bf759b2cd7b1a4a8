"""Message formats: what the rules of a transcript must know of an item, for each format.

A module for each format, `base.py` with what all of them say, and `recognise.py`, which tells
them apart. A session's formats are a number: a bit for each that all of its items may have.
With one bit left, the session has that format.
"""

from __future__ import annotations

from typing import Final

from sessiondb.errors import InvalidInput
from sessiondb.words import (
    MessageFormat,
)

from .anthropic import ANTHROPIC
from .base import CallId, Format
from .openai_chat import OPENAI_CHAT
from .openai_responses import OPENAI_RESPONSES
from .pi import PI
from .recognise import ANY, is_item, recognise

__all__ = [
    "ANTHROPIC",
    "ANY",
    "FORMATS",
    "OPENAI_CHAT",
    "OPENAI_RESPONSES",
    "PI",
    "CallId",
    "Format",
    "bits_of",
    "is_item",
    "known",
    "named",
    "recognise",
    "spoken",
]

FORMATS: Final[tuple[Format, ...]] = (PI, OPENAI_CHAT, OPENAI_RESPONSES, ANTHROPIC)
_BY_NAME: Final[dict[str, Format]] = {each.name: each for each in FORMATS}
_SPOKEN: Final = tuple(
    next((each for each in FORMATS if bits & each.bit), PI) for bits in range(ANY + 1)
)


def spoken(bits: int) -> Format:
    """Return the format by which the rules read a session, or an item, of these formats.

    The first that it may have. As long as there are several, all of them say the same.
    """
    return _SPOKEN[bits]


def known(bits: int) -> MessageFormat | None:
    """Return the name of a session's format. None: its items may have several so far."""
    return _SPOKEN[bits].name if bits & (bits - 1) == 0 else None


def named(bits: int) -> str:
    """Return the names of formats, for a person."""
    return " or ".join(each.name for each in FORMATS if bits & each.bit)


def bits_of(name: object) -> int:
    """Return the bits of a format by its name. None is any format.

    Raises:
        InvalidInput: there is no such format.
    """
    if name is None:
        return ANY
    found = _BY_NAME.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidInput(
            f"{name!r:.80} is not a message format; one of {', '.join(_BY_NAME)}, or None: "
            "then the first items that are unmistakable decide"
        )
    return found.bit

"""JSON text in and out, verbatim: transcripts are read and kept as their programs wrote them.

Encoding follows JavaScript: compact, text as itself, no NaN. Decoding is bounded in depth and
in values before anything is built. It finds the byte span of an object's `message`, so that a
context can be cut out of stored text without decoding it again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

from .errors import InvalidInput, StoreDamaged
from .limits import ENTRY_VALUES_MAX

# -- out --------------------------------------------------------------------------------------

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dumps(value: Any) -> str:
    """Encode as the transcript programs do: compact, and text as itself rather than escaped.

    Raises:
        InvalidInput: not JSON: a type without a JSON form, NaN, or an infinity.
    """
    try:
        text = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the entry cannot be written as JSON: {error}") from error
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8 form; its escape does
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text


def dumps_again(value: Any) -> str:
    """Encode what was decoded.

    A number too large for a float has become infinite. It becomes null, as in JavaScript.
    """
    try:
        return dumps(value)
    except InvalidInput:
        return dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


def storable(text: str) -> str:
    """Return a text as a column can hold it.

    Half an emoji (a lone surrogate, from a cut name) has no UTF-8 form.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# -- in ---------------------------------------------------------------------------------------


class DamagedLine(ValueError):
    """A line that is not an entry. Its message is the reason."""


def _refuse_constant(name: str) -> Any:
    raise DamagedLine(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)


def int_or_float(digits: str) -> int | float:
    """Convert an integer. To a float past the interpreter's digit limit, which JSON has not."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


_lenient_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=int_or_float)
JSON_SPACE = " \t\r"

# What is accepted must be readable later, by a thread that is deeper in its own calls.
# Half of the interpreter's limit.
NESTING_MAX: Final = 500
# A message has one level more as the line of a transcript. So it is read there as well.
LINE_NESTING_MAX: Final = NESTING_MAX + 1
# Possessive, and an unterminated string goes to the end of the text. So a torn line is
# scanned once, and not in every way that it could be cut into pieces (which took for
# ever at 60 characters).
_structure = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_beginnings = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)
_key_value = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")

# The layout that every known program writes: scalar fields, then "message", then the
# closing brace. With it the message is decoded in its place, which gives its span for
# free.
_SCALAR_FIELDS: Final = (
    r'[ \t\r]*\{(?P<fields>(?:[ \t\r]*"\w+"[ \t\r]*:[ \t\r]*'
    r'(?:"[^"\\\x00-\x1f]*"|null|true|false|-?\d{1,18})[ \t\r]*,)*+)'
)
_scalar_fields = re.compile(_SCALAR_FIELDS)
_usual_layout = re.compile(_SCALAR_FIELDS + r'[ \t\r]*"message"[ \t\r]*:[ \t\r]*(?=\{)')


def decode_object(
    text: str, *, values_max: int = ENTRY_VALUES_MAX, levels_max: int = NESTING_MAX
) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """Decode one object. Return its fields and the character span of its `message` value.

    Raises:
        DamagedLine: the text is not one JSON object, or too much of one.
    """
    brackets = text.count("[") + text.count("{")
    if brackets > levels_max and _has_more_levels(text, levels_max):
        raise DamagedLine(f"nested too deeply: more than {levels_max} levels")
    if has_more_values(text, values_max):
        raise DamagedLine(f"made of too many values: more than {values_max:,}")
    for decoder in (_decoder, _lenient_decoder):
        try:
            return _decode(text, decoder)
        except DamagedLine:
            raise
        except RecursionError:
            raise DamagedLine("nested too deeply") from None
        except ValueError as error:
            if "integer string conversion" not in str(error):
                raise DamagedLine(f"not JSON: {error}") from None
    raise AssertionError("the lenient decoder refuses no number")


_REPAIR = "Run `sessiondb verify DB`; then `sessiondb salvage DB NEW`."


@contextmanager
def stored_text() -> Iterator[None]:
    """Wrap code that assumes well-formed stored JSON. A violation means a damaged file.

    Raises:
        StoreDamaged: in place of the error that the code raised.
    """
    try:
        yield
    except (TypeError, AttributeError, KeyError, IndexError, ValueError, RecursionError) as error:
        raise StoreDamaged(
            "a stored entry is damaged: it is not what its type says "
            f"({type(error).__name__}: {str(error)[:200]}). {_REPAIR}"
        ) from error


def loads(text: str | bytes) -> Any:
    """Decode stored JSON. An integer that the interpreter refuses to convert becomes a float.

    Raises:
        StoreDamaged: it is not JSON any more. Only JSON is ever stored.
    """
    # Twice the bound: several stored texts may come as one (`context.decode_messages`),
    # of which only the last can be large.
    most = 2 * ENTRY_VALUES_MAX
    if len(text) > most and has_more_values(
        text if isinstance(text, str) else text.decode("utf-8", "replace"), most
    ):
        raise StoreDamaged(
            f"a stored text is damaged: it is made of more than {ENTRY_VALUES_MAX:,} values. "
            "Run `sessiondb verify DB`."
        )
    try:
        return json.loads(text)
    except RecursionError as error:
        raise StoreDamaged(
            f"a stored text is damaged: it is nested too deeply. {_REPAIR}"
        ) from error
    except ValueError as error:
        if "integer string conversion" not in str(error):
            raise StoreDamaged(
                f"a stored text is damaged: it is not JSON ({error}). {_REPAIR}"
            ) from error
    return json.loads(text, parse_int=int_or_float)


def _has_more_levels(text: str, levels_max: int) -> bool:
    depth = 0
    for token in _structure.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth > levels_max:
                return True
        elif token[0] in "]}":
            depth -= 1
    return False


def has_more_values(text: str, values_max: int) -> bool:
    """Tell whether a text holds more than `values_max` values, without decoding it.

    Each value follows a bracket or a comma.
    """
    if len(text) <= values_max or text.count("[") + text.count("{") + text.count(",") <= values_max:
        return False
    found = (token for token in _beginnings.finditer(text) if token[0][0] != '"')
    return next(islice(found, values_max, None), None) is not None


def _decode(text: str, decoder: json.JSONDecoder) -> tuple[dict[str, Any], tuple[int, int] | None]:
    # Without the cheap test first, a long message that is appended bare is scanned twice.
    usual = _usual_layout.match(text) if '"message"' in text else None
    if usual:
        message, end = decoder.raw_decode(text, usual.end())
        if text[end:].strip(JSON_SPACE) == "}":
            fields = _decode_scalars(usual, decoder)
            fields["message"] = message
            return fields, (usual.end(), end)
    value = decoder.decode(text)
    if not isinstance(value, dict):
        raise DamagedLine(f"a JSON {type(value).__name__}, not an object")
    return value, _span_of_message(text, decoder) if isinstance(
        value.get("message"), dict
    ) else None


def _decode_scalars(found: re.Match[str], decoder: json.JSONDecoder) -> dict[str, Any]:
    fields: dict[str, Any]
    fields, _ = decoder.raw_decode("{" + found["fields"].rstrip(", \t\r") + "}")
    return fields


def leading_fields(text: str) -> dict[str, Any]:
    """Return the scalar fields with which the text of an object begins, whatever follows them."""
    found = _scalar_fields.match(text)
    return _decode_scalars(found, _decoder) if found is not None else {}


def _span_of_message(text: str, decoder: json.JSONDecoder) -> tuple[int, int] | None:
    """Walk the top level of a valid object. The last `message` wins, as in every parser."""
    span = None
    at = text.index("{") + 1
    while (at := _skip_space(text, at)) < len(text) and text[at] != "}":
        key, at = decoder.raw_decode(text, at)
        separator = _key_value.match(text, at)
        assert separator is not None, "a valid object has a colon after each key"
        start = separator.end()
        _, at = decoder.raw_decode(text, start)
        if key == "message":
            span = (start, at)
        at = _skip_space(text, at)
        if at < len(text) and text[at] == ",":
            at += 1
    return span


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in JSON_SPACE + "\n":
        at += 1
    return at

"""The grammar of a transcript entry: one JSON object, read once, stored verbatim.

Everything that a transaction needs to know about an entry is worked out here, before the transaction: its
type, role and ids, how it reaches the model, what it weighs, and the byte span of its message inside the
text, so that a context can be cut out of stored rows without decoding them. The text itself is never
rewritten: a signature must come back byte for byte.

The format is pi's session file, versions 1 to 3, and OpenClaw's additions (`reset`, `leaf`, side appends,
version 4). Sources: pi `docs/session.md` and `core/session-manager.ts`; openclaw
`packages/agent-core/src/harness/session`.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from itertools import islice
from typing import Any, Final

from .errors import InvalidInput, StoreDamaged
from .limits import ENTRY_BYTES_MAX, ENTRY_VALUES_MAX, IDEMPOTENCY_KEY_CHARS_MAX, SEQ_MAX
from .tokens import message_tokens, text_tokens, usage_tokens

NATIVE_VERSION: Final = 3
"""The format that new sessions are written in: the newest that both pi and every OpenClaw read."""

# Encoding and checking this much takes about a millisecond: longer ones are prepared on a worker thread.
LARGE_ITEM_CHARS: Final = 64 * 1024
# So does preparing this many values, or this many short messages.
LARGE_ITEM_VALUES: Final = 1_000
LARGE_ITEMS: Final = 20

BOUNDARY_TYPES: Final = frozenset({"compaction", "reset"})
OFF_TREE_TYPES: Final = frozenset({"session", "leaf"})
CUT_ROLES: Final = frozenset({"user", "assistant", "custom", "bashExecution", "branchSummary", "compactionSummary"})
CUT_TYPES: Final = frozenset({"branch_summary", "custom_message"})

# Replay state that a provider bound to the exact prefix of a reply. Once a compaction replaces that prefix the
# state is wrong, and OpenClaw's reader drops it from the replies that are kept.
_CHECKPOINT_TYPES: Final = frozenset(
    {"anthropic-compaction", "openai-responses-compaction", "openai-responses-retained-compaction"}
)


class Projection(IntEnum):
    """How an entry reaches the model (the column `entry.projection`)."""

    NONE = 0
    BODY = 1
    EXCLUDED = 2
    MADE = 3
    CHECKPOINT = 4

    @property
    def counts(self) -> bool:
        """Whether its tokens are part of the context's: the model is sent it, and its author did not exclude it."""
        return self in (Projection.BODY, Projection.MADE, Projection.CHECKPOINT)


@dataclass(slots=True)
class Draft:
    """An entry that is ready to be stored, except for what only the transaction knows: its parent.

    The stored payload is `before + parent id as JSON + after` when `fills_parent`, else `before` alone.
    `body_at` counts bytes from the start of `after`, or of `before` when no parent is filled in.
    """

    type: str
    before: str
    after: str = ""
    fills_parent: bool = False
    entry_id: str = ""
    parent_id: str | None = None
    role: str | None = None
    projection: Projection = Projection.NONE
    tokens: int = 0
    usage_tokens: int | None = None
    calls: int = 0  # tool calls that an assistant message makes
    body_at: int = 0
    body_bytes: int = 0
    side: bool = False
    linear: bool = False  # version 1: the parent is whatever came before
    name: str | None = None  # of a session_info entry
    target_id: str | None = None  # of a leaf record
    first_kept_id: str | None = None
    first_kept_seq: int | None = None  # version 1 counts lines instead
    first_kept_no: int | None = None  # of a compaction that sessiondb itself commits
    by_job: bool = False  # ... and that has a row of its own
    tokens_before: int = 0
    idempotency_key: str | None = None
    wide: int = 0  # bytes of the payload beyond one a character, where they were counted: of what is appended, not of what is imported

    @property
    def size(self) -> int:
        """Bytes of the payload; of an imported one characters: close enough for a queue's limit."""
        return len(self.before) + len(self.after) + self.wide


# Ids must differ, not be secret. Asking the kernel for each would let go of the GIL inside every append, and a busy
# writer thread then keeps it (measured: 44 us an append with 64 callers). So they are counted, from a number that the kernel
# chose; from another one after a fork.
ID_COUNT_BITS = 20
_ids = itertools.count(secrets.randbits(ID_COUNT_BITS))


def _count_anew() -> None:
    global _ids  # one counter per process
    _ids = itertools.count(secrets.randbits(ID_COUNT_BITS))


os.register_at_fork(after_in_child=_count_anew)


def new_id() -> str:
    """Return an id for an entry: the time in milliseconds, then a count.

    Ids of one process differ, so two sessions' entries can share a fork's path; those of two processes differ unless both
    made one in the same millisecond and their counts, begun at random, agree: one chance in a million.
    Nothing is ordered by them. That later ones are larger keeps a session's newest ids, and those that retention deletes together,
    on the same few pages of their index (measured: a tenth of the pages of random ids).
    """
    return f"{time.time_ns() // 1_000_000 << ID_COUNT_BITS | next(_ids) & (1 << ID_COUNT_BITS) - 1:016x}"


def iso_from_ms(ms: int) -> str:
    """Return the ISO text that transcripts use: UTC, milliseconds, `Z`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ms_from_iso(text: Any) -> int | None:
    """Return milliseconds since 1970 for an ISO text, or None if it is not one."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


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
    """Encode what was decoded. A number too large for a float has become infinite: null, as JavaScript writes it."""
    try:
        return dumps(value)
    except InvalidInput:
        return dumps(json.loads(json.dumps(value), parse_constant=lambda _: None))


# -- reading ------------------------------------------------------------------------------------------------


class DamagedLine(ValueError):
    """A line that is not an entry; its message is the reason."""


def _no_constant(name: str) -> Any:
    raise DamagedLine(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


def int_or_float(digits: str) -> int | float:
    """Integers past the interpreter's digit limit are legal JSON; as floats they are at least readable."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


_lenient_decoder = json.JSONDecoder(parse_constant=_no_constant, parse_int=int_or_float)
_SPACE = " \t\r"

# What was accepted must be readable later, by a thread that is deeper in its own calls. Half of the interpreter's limit.
NESTING_MAX: Final = 500
# Possessive, and a string that nothing ends goes to the end of the text: a torn line is looked at once, not in every
# way that it could be cut into pieces (which took for ever at sixty characters).
_structure = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_beginnings = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{,]', re.DOTALL)
_key_value = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")

# The layout that every known program writes: scalar fields, then "message", then the closing brace. Matching it
# lets the message be decoded where it stands, which gives its span for free.
_usual_layout = re.compile(
    r'[ \t\r]*\{(?P<fields>(?:[ \t\r]*"\w+"[ \t\r]*:[ \t\r]*(?:"[^"\\\x00-\x1f]*"|null|true|false|-?\d{1,18})[ \t\r]*,)*+)'
    r'[ \t\r]*"message"[ \t\r]*:[ \t\r]*(?=\{)'
)


def decode_object(text: str, *, values_max: int = ENTRY_VALUES_MAX) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """Decode one line; return its fields and the character span of its `message` value.

    Raises:
        DamagedLine: the text is not one JSON object, or too much of one.
    """
    brackets = text.count("[") + text.count("{")
    if brackets > NESTING_MAX and _nesting(text) > NESTING_MAX:
        raise DamagedLine(f"nested too deeply: more than {NESTING_MAX} levels")
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


@contextmanager
def stored_text() -> Iterator[None]:
    """Around code that takes stored JSON for what only a sound entry is: what a stranger stored instead is damage, not a bug of ours.

    Raises:
        StoreDamaged: in place of whatever that raised.
    """
    try:
        yield
    except (TypeError, AttributeError, KeyError, IndexError, ValueError, RecursionError) as error:
        message = f"a stored entry is damaged: it is not what its type says ({type(error).__name__}: {str(error)[:200]})"
        raise StoreDamaged(f"{message}. Run `sessiondb verify DB`; then `sessiondb salvage DB NEW`.") from error


def loads(text: str | bytes) -> Any:
    """Decode JSON that is stored. An integer that the interpreter refuses to convert comes as a float.

    Raises:
        StoreDamaged: it is not JSON any more; only JSON is ever stored.
    """
    # Twice the bound: several stored texts may come as one (`context.decode_messages`), of which only the last can be large.
    most = 2 * ENTRY_VALUES_MAX
    if len(text) > most and has_more_values(text if isinstance(text, str) else text.decode("utf-8", "replace"), most):
        raise StoreDamaged(f"a stored text is damaged: it is made of more than {ENTRY_VALUES_MAX:,} values. Run `sessiondb verify DB`.")
    try:
        return json.loads(text)
    except RecursionError as error:
        message = "a stored text is damaged: it is nested too deeply. Run `sessiondb verify DB`; then `sessiondb salvage DB NEW`."
        raise StoreDamaged(message) from error
    except ValueError as error:
        if "integer string conversion" not in str(error):
            message = f"a stored text is damaged: it is not JSON ({error}). Run `sessiondb verify DB`; then `sessiondb salvage DB NEW`."
            raise StoreDamaged(message) from error
    return json.loads(text, parse_int=int_or_float)


def _nesting(text: str) -> int:
    depth = deepest = 0
    for token in _structure.finditer(text):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def has_more_values(text: str, values_max: int) -> bool:
    """Tell whether a text holds more values than a number, without decoding it: each follows a bracket or a comma."""
    if len(text) <= values_max or text.count("[") + text.count("{") + text.count(",") <= values_max:
        return False
    found = (token for token in _beginnings.finditer(text) if token[0][0] != '"')
    return next(islice(found, values_max, None), None) is not None


def _decode(text: str, decoder: json.JSONDecoder) -> tuple[dict[str, Any], tuple[int, int] | None]:
    # Without the cheap test first, a long message that is appended bare is scanned twice.
    usual = _usual_layout.match(text) if '"message"' in text else None
    if usual:
        message, end = decoder.raw_decode(text, usual.end())
        if text[end:].strip(_SPACE) == "}":
            fields = decoder.decode("{" + usual["fields"].rstrip(", \t\r") + "}")
            fields["message"] = message
            return fields, (usual.end(), end)
    value = decoder.decode(text)
    if not isinstance(value, dict):
        raise DamagedLine(f"a JSON {type(value).__name__}, not an object")
    return value, _span_of_message(text, decoder) if isinstance(value.get("message"), dict) else None


def _span_of_message(text: str, decoder: json.JSONDecoder) -> tuple[int, int] | None:
    """Walk the top level of an object that is known to be valid; the last `message` wins, as in every parser."""
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
    while at < len(text) and text[at] in _SPACE + "\n":
        at += 1
    return at


def parse_line(text: str, version: int) -> Draft:
    """Read one line of a transcript of the given format version. The line is kept exactly as it is.

    Raises:
        DamagedLine: not an entry; the reason is the message.
    """
    fields, span = decode_object(text)
    entry_type = fields.get("type")
    if not isinstance(entry_type, str) or not entry_type:
        raise DamagedLine("no entry type")
    draft = _describe(fields, span, text, version)
    entry_id, parent_id = fields.get("id"), fields.get("parentId")
    draft.entry_id = _text_or_none(entry_id) or new_id()
    draft.parent_id = _text_or_none(parent_id) or None
    draft.linear = version < 2 and "parentId" not in fields
    return draft


def _describe(fields: dict[str, Any], span: tuple[int, int] | None, text: str, version: int) -> Draft:
    """Work out everything about an entry except where it goes."""
    draft = Draft(type=storable(fields["type"]), before=text)
    if span is not None:
        draft.body_at, draft.body_bytes = _byte_span(text, span)
    match draft.type:
        case "message":
            message = fields.get("message")
            if isinstance(message, dict):
                _describe_message(draft, message, version)
        case "custom_message":
            draft.projection = Projection.MADE
            draft.tokens = message_tokens({"role": "custom", "content": fields.get("content")})
        case "branch_summary":
            if fields.get("summary"):
                draft.projection = Projection.MADE
                draft.tokens = text_tokens(str(fields["summary"]))
        case "compaction":
            draft.tokens = text_tokens(str(fields.get("summary") or ""))
            draft.tokens_before = _int_or_zero(fields.get("tokensBefore"))
            draft.first_kept_id = _text_or_none(fields.get("firstKeptEntryId"))
            index = fields.get("firstKeptEntryIndex")
            # Version 1 points at a line of the file, the header being line 0, which can be kept by nobody.
            draft.first_kept_seq = index if isinstance(index, int) and not isinstance(index, bool) and 0 < index <= SEQ_MAX else None
        case "reset":
            draft.first_kept_id = _text_or_none(fields.get("firstKeptEntryId"))
        case "leaf":
            draft.target_id = _text_or_none(fields.get("targetId"))
        case "session_info":
            draft.name = _text_or_none(fields.get("name"))
    draft.side = fields.get("appendMode") == "side"
    return draft


def _describe_message(draft: Draft, message: dict[str, Any], version: int) -> None:
    role = message.get("role")
    if version < 3 and role == "hookMessage":  # renamed in version 3
        role, draft.projection = "custom", Projection.MADE
    else:
        draft.projection = Projection.BODY
    draft.role = _text_or_none(role)
    draft.tokens = message_tokens({**message, "role": role})
    if message.get("excludeFromContext") is True:
        draft.projection, draft.tokens = Projection.EXCLUDED, 0
    elif role == "assistant":
        draft.usage_tokens = usage_tokens(message)
        content = message.get("content")
        if isinstance(content, list):
            draft.calls = sum(1 for block in content if isinstance(block, dict) and block.get("type") == "toolCall")
        replay = message.get("providerReplay")
        if isinstance(replay, dict) and isinstance(replay.get("type"), str) and replay["type"] in _CHECKPOINT_TYPES:
            draft.projection = Projection.CHECKPOINT
    key = message.get("idempotencyKey")
    draft.idempotency_key = _text_or_none(key) or None


def _byte_span(text: str, span: tuple[int, int]) -> tuple[int, int]:
    start, end = span
    if text.isascii():
        return start, end - start
    return len(text[:start].encode()), len(text[start:end].encode())


def _text_or_none(value: Any) -> str | None:
    return storable(value) if isinstance(value, str) else None


def storable(text: str) -> str:
    """Return a text as a column can hold it: half an emoji (a lone surrogate, from a cut name) has no UTF-8 form."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _int_or_zero(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53 else 0


# -- writing ------------------------------------------------------------------------------------------------


def draft_entry(item: dict[str, Any] | str | bytes, *, now_ms: int, idempotency_key: str | None = None) -> Draft:
    """Prepare what a caller appends: a message, a typed entry, or the JSON text of either.

    A dict (or text) with a `role` is a message; one with a `type` is an entry. Missing `id`, `parentId` and
    `timestamp` are added in front; what was given as text is otherwise kept character for character.

    Raises:
        InvalidInput: not JSON, neither a message nor an entry, too large, a header, or an idempotency key (given, or the message's own)
            that is too long or reserved.
    """
    text = dumps(item) if isinstance(item, dict) else _as_text(item)
    size = len(text) if text.isascii() or len(text) > ENTRY_BYTES_MAX else len(text.encode())
    wide = size - len(text)
    if size > ENTRY_BYTES_MAX:
        raise InvalidInput(f"the entry has {size:,} bytes; at most {ENTRY_BYTES_MAX:,} fit in one")
    try:
        fields, _ = decode_object(text)
    except DamagedLine as error:
        raise InvalidInput(f"the entry is {error}") from error
    text = text.strip(_SPACE + "\n")
    if "\n" in text:
        raise InvalidInput("an entry's JSON must be on one line: transcripts hold one entry a line")
    if "type" not in fields and isinstance(fields.get("role"), str):
        draft = _draft_message(text, fields, now_ms)
    else:
        draft = _draft_typed(text, fields, now_ms)
    if idempotency_key is not None:
        draft.idempotency_key = idempotency_key
    draft.wide = wide
    trouble = key_trouble(draft.idempotency_key)
    if trouble is not None:
        raise InvalidInput(f"{trouble}; choose another")
    return draft


_RESERVED_KEY = re.compile(r"inbox:[0-9]+")


def key_trouble(key: str | None) -> str | None:
    """Say why a text cannot be the idempotency key of what somebody else than sessiondb appends; None if it can, or is none.

    `inbox:<number>` is under what a claim appends an accepted message: given to something else, that message would pass for appended.
    """
    if key is None:
        return None
    if not 0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX:
        return f"an idempotency key has 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters, not {len(key):,}"
    return f"the idempotency key {key!r} is reserved for the messages of the inbox" if _RESERVED_KEY.fullmatch(key) else None


def is_large(item: object) -> bool:
    """Tell whether encoding an item takes long enough to be kept off the event loop.

    Adds up the lengths of its texts, of a typed message too, and looks no further than that takes to be a lot.
    """
    chars, values = LARGE_ITEM_CHARS, LARGE_ITEM_VALUES
    stack = [item]
    while stack:
        value = stack.pop()
        inside: Any = ()
        if isinstance(value, str | bytes):
            chars -= len(value)
        elif isinstance(value, dict):
            inside = value.values()
        elif isinstance(value, list | tuple):
            inside = value
        elif hasattr(value, "__dict__"):
            inside = (*vars(value).values(), getattr(value, "__pydantic_extra__", None))
        values -= len(inside)
        if chars < 0 or values < 0:
            return True
        stack.extend(inside)
    return False


def _as_text(item: str | bytes) -> str:
    if isinstance(item, str):
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"the entry is not valid Unicode: {error}") from error
        return item
    try:
        return bytes(item).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the entry is not UTF-8: {error}") from error


def _draft_message(body: str, message: dict[str, Any], now_ms: int) -> Draft:
    entry_id = new_id()
    between = f',"timestamp":"{iso_from_ms(now_ms)}","message":'
    draft = Draft(
        type="message",
        before=f'{{"type":"message","id":"{entry_id}","parentId":',
        after=f"{between}{body}}}",
        fills_parent=True,
        entry_id=entry_id,
        body_at=len(between),
        body_bytes=len(body) if body.isascii() else len(body.encode()),
    )
    _describe_message(draft, message, NATIVE_VERSION)
    return draft


def _draft_typed(text: str, fields: dict[str, Any], now_ms: int) -> Draft:
    entry_type = fields.get("type")
    if not isinstance(entry_type, str) or not entry_type:
        raise InvalidInput('an entry needs a "type" (or, for a message, a "role")')
    for name in ("id", "parentId", "timestamp"):
        if name in fields and not (isinstance(fields[name], str) or (name == "parentId" and fields[name] is None)):
            raise InvalidInput(f"an entry's {name!r} must be a string, not {fields[name]!r}")
        if isinstance(fields.get(name), str) and (not fields[name] or storable(fields[name]) != fields[name]):
            raise InvalidInput(f"an entry's {name!r} cannot be {fields[name]!r}: it is empty or not valid Unicode")
    if entry_type in OFF_TREE_TYPES:
        raise InvalidInput(f"a {entry_type!r} record is written by sessiondb itself; to move the head use session.branch()")
    added = []
    if "timestamp" not in fields:
        added.append(f'"timestamp":"{iso_from_ms(now_ms)}",')
    entry_id = fields.get("id") or new_id()
    if "id" not in fields:
        added.append(f'"id":"{entry_id}",')
    prefix = "{" + "".join(added)
    fills_parent = "parentId" not in fields
    shown = text[1:]  # the object without its brace: goes behind what is added
    whole = prefix + ('"parentId":' if fills_parent else shown)
    draft = _describe(fields, None, whole, NATIVE_VERSION)
    draft.entry_id, draft.parent_id, draft.fills_parent = storable(entry_id), _text_or_none(fields.get("parentId")), fills_parent
    draft.after = f",{shown}" if fills_parent else ""
    if draft.type == "message":
        _, span = decode_object("{" + shown)
        if span is None:
            raise InvalidInput('an entry of type "message" needs a "message" object')
        body_at, draft.body_bytes = _byte_span("{" + shown, span)
        # `shown` lost its brace; in front of it stands a comma (parent filled in) or the added fields.
        draft.body_at = body_at if fills_parent else body_at - 1 + len(prefix)
    return draft

"""The grammar of a transcript entry: one JSON object, read once, stored verbatim.

Everything that a transaction must know about an entry is worked out here, before the transaction:
its type, role and ids, how it reaches the model, its tokens, and the byte span of its message
inside the text. A context is cut out of stored rows by these spans, without decoding them. The
text itself is never rewritten: a signature must come back byte for byte.

An item of any message format (`formats/`) is stored as an entry of type `message`, whatever type
it has itself. The format of the entries is pi's session file, versions 1 to 3, and OpenClaw's
additions (`reset`, `leaf`, side appends, version 4). Sources: pi `docs/session.md` and
`core/session-manager.ts`, and openclaw `packages/agent-core/src/harness/session`.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from enum import IntEnum
from functools import partial
from typing import Any, Final, TypedDict, TypeVar

from pydantic import BaseModel

from sessiondb import clock, threads
from sessiondb.clock import iso_from_ms
from sessiondb.errors import InvalidInput, before_the_write
from sessiondb.json_text import (
    JSON_SPACE,
    LINE_NESTING_MAX,
    DamagedLine,
    decode_object,
    dumps,
    storable,
)
from sessiondb.limits import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    ENTRY_BYTES_MAX,
    IDEMPOTENCY_KEY_CHARS_MAX,
    SEQ_MAX,
    TIME_MS_MAX,
)
from sessiondb.messages import is_typed, message_json

from .formats import ANY, OPENAI_RESPONSES, PI, Format, is_item, recognise, spoken
from .formats.pi import SUMMARY, entry_ms, message_of, needs_mending
from .pairing import Ties, ties_of
from .pi_sdk import RECORD_TYPE, as_pi
from .tokens import content_chars, text_tokens, tokens_of

T = TypeVar("T")
MessageLike = dict[str, Any] | BaseModel | str | bytes
"""A message or an entry as a dict, a typed message (`sessiondb.messages`), or their JSON text."""


@dataclass(frozen=True, slots=True)
class Item:
    """A message or an entry to append, with what is said of it."""

    message: MessageLike
    _: KW_ONLY
    key: str | None = None
    """Its idempotency key: appended again with it, it is not stored a second time."""
    at_ms: int | None = None
    """When it was said, if that was not now: the `timestamp` in its entry.

    `Entry.appended_at_ms` stays the time of the append, and a person counts as heard then."""


Appendable = Item | MessageLike
"""What is appended: a message or an entry, or an `Item` of one."""

NATIVE_VERSION: Final = 3
"""The format that new sessions are written in: the newest that both pi and every OpenClaw read."""

# Encoding and checking so many characters takes about a millisecond. Larger items are prepared on
# a worker thread.
LARGE_ITEM_CHARS: Final = 64 * 1024
# Preparing this many values, or this many short messages, takes as long.
LARGE_ITEM_VALUES: Final = 1_000
LARGE_ITEMS: Final = 20

REDACTED_FIELD: Final = "sessiondbRedacted"
"""The field of an entry that was redacted. It has the tokens that the entry counted before."""

BOUNDARY_TYPES: Final = frozenset({"compaction", "reset"})
OFF_TREE_TYPES: Final = frozenset({"session", "leaf", RECORD_TYPE})
CUT_ROLES: Final = frozenset(
    {"user", "assistant", "custom", "bashExecution", "branchSummary", "compactionSummary"}
)
CUT_TYPES: Final = frozenset({"branch_summary", "custom_message"})

# Types that pi and OpenClaw write. An item of a newer type is told from these.
_KNOWN_TYPES: Final = (
    BOUNDARY_TYPES
    | OFF_TREE_TYPES
    | CUT_TYPES
    | {
        "message",
        "custom",
        "label",
        "model_change",
        "session_info",
        "thinking_level_change",
        "context_edit",
    }
)

# Replay state that a provider bound to the exact prefix of a reply. Once a compaction replaces that
# prefix, the state is wrong, and OpenClaw's reader drops it from the replies that are kept.
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
        """Whether its tokens count: it is sent to the model, and its author did not exclude it."""
        return self in _COUNTED


# Apart from the class: each look at a member of an enum takes as long as the comparison.
_COUNTED: Final = (Projection.BODY, Projection.MADE, Projection.CHECKPOINT)


class EntryRow(TypedDict):
    """Every column of table `entry`, in the order of `schema.sql`.

    The one list of them in Python: the archive's format derives its own from it, and a test
    compares it with the schema and with each statement that writes or copies whole rows.
    """

    entry_no: int
    branch_no: int | None
    parent_no: int | None
    position: int
    type: str
    role: str | None
    projection: int
    tokens: int
    tokens_total: int
    usage_tokens: int | None
    open_calls: int
    boundary_no: int | None
    first_kept_no: int | None
    model_no: int | None
    thinking_no: int | None
    body_at: int
    body_bytes: int
    appended_at_ms: int
    entry_id: str
    idempotency_key: str | None
    payload: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Damaged lines, of which one is named, between an entry and the next one on its path."""

    after_id: str | None
    """The entry before them. None: the root."""
    ids: frozenset[str]
    """The line that is named, and those that follow it. The next entry names one of them."""


@dataclass(slots=True)
class Draft:
    """An entry that is ready to be stored, but for its parent, which only the transaction knows.

    The stored payload is `before + parent id as JSON + after` or, without an `after`, `before`.
    `body_at` counts bytes from the start of `after` or, without one, of `before`.
    """

    type: str
    before: str
    after: str = ""
    follows_head: bool = False
    """The text names no parent: the head becomes the parent."""
    entry_id: str = ""
    parent_id: str | None = None
    role: str | None = None
    projection: Projection = Projection.NONE
    tokens: int = 0
    usage_tokens: int | None = None
    asked_epoch: int | None = None
    """Of a reply: the epoch of the context that its model was sent. None: not known."""
    by_program: bool = False
    """Of a user message: no person wrote it."""
    calls: int = 0
    """Tool calls that an assistant message makes."""
    results: int = 0
    """Tool calls whose results a message holds."""
    answers: bool = False
    """Of a reply: it is usable, and calls no tool."""
    goes_on: bool = False
    """Of a reply: it is a part that the model's next item follows."""
    formats: int = ANY
    """The message formats in which it may be read. Most entries that are no messages: any."""
    as_item: Draft | None = None
    """Of a typed entry that sessiondb does not know: the same as an item of OpenAI's Responses.

    In a session of that format it is an item, whose type is newer than this release."""
    ties: Ties | None = None
    """What ties it to its neighbours in a prompt. None: it is in no prompt."""
    body_at: int = 0
    body_bytes: int = 0
    side: bool = False
    """The entry says `appendMode: "side"`: it does not become the head."""
    name: str | None = None
    """Of a session_info entry."""
    target_id: str | None = None
    append_parent_id: str | None = None
    """Of a leaf record: the head from now on, and the id that the next entry may name for it."""
    first_kept_id: str | None = None
    first_kept_seq: int | None = None
    """Version 1 counts lines instead."""
    first_kept_gap: Gap | None = None
    """The line that it names is damaged: the next entry is the first."""
    tokens_before: int = 0
    at_ms: int | None = None
    """Of a line of a transcript: its own time. None: it names none."""
    idempotency_key: str | None = None
    wide: int = 0
    """Bytes of the payload beyond one a character. Counted for appends, 0 for imports."""

    def in_session_of(self, formats: int) -> Draft:
        """Return the draft as it is read in a session of these formats."""
        item = self.as_item
        if item is None or formats != item.formats:
            return self
        return replace(
            item,
            by_program=self.by_program,
            asked_epoch=self.asked_epoch,
            idempotency_key=self.idempotency_key,
        )

    @property
    def size(self) -> int:
        """Bytes of the payload. For an import, characters: close enough for a queue's limit."""
        return len(self.before) + len(self.after) + self.wide


# Ids must differ, and need not be secret. Asking the kernel for each would release the GIL inside
# every append, and a busy writer thread then keeps it (measured: 44 us an append with 64 callers).
# So ids are counted, from a number that the kernel chose, and from another one after a fork.
ID_COUNT_BITS = 20
_ids = itertools.count(clock.random_bits(ID_COUNT_BITS))


def _restart_count() -> None:
    global _ids  # one counter per process
    _ids = itertools.count(clock.random_bits(ID_COUNT_BITS))


os.register_at_fork(after_in_child=_restart_count)


def new_id() -> str:
    """Return an id for an entry: the time in milliseconds, then a count.

    The time is real, also while a test has stopped the clock: or every id of the test would have
    the same one. Ids of one process differ, so two sessions' entries can share a fork's path. Ids
    of two processes differ unless both made one in the same millisecond and their counts, begun at
    random, agree: one chance in a million. Nothing is ordered by ids. Later ids are larger, which
    keeps a session's newest ids, and those that retention deletes together, on the same few pages
    of their index (measured: 10 % of the pages of random ids).
    """
    count = next(_ids) & (1 << ID_COUNT_BITS) - 1
    return f"{clock.now_ms() << ID_COUNT_BITS | count:016x}"


# -- reading ---------------------------------------------------------------------------


def parse_line(text: str, version: int, formats: int = PI.bit, *, is_dated: bool = True) -> Draft:
    """Read one line of a transcript of the given format version. The line is kept as it is.

    `formats` are the message formats that its header names: those of pi, unless it says so. Where
    nobody asks for the line's own time, `is_dated` is False: that is 10 % of the work.

    Raises:
        DamagedLine: not an entry. The reason is the message.
    """
    fields, span = decode_object(text, levels_max=LINE_NESTING_MAX)
    fields = as_pi(fields)
    entry_type = fields.get("type")
    if not isinstance(entry_type, str) or not entry_type:
        raise DamagedLine("no entry type")
    draft = _describe(fields, span, text, version, formats)
    entry_id, parent_id = fields.get("id"), fields.get("parentId")
    draft.entry_id = id_or_none(entry_id) or new_id()
    draft.parent_id = id_or_none(parent_id)
    if is_dated:
        draft.at_ms = _own_time(fields)
    # Version 1 has no ids: an entry follows the one before it. Where its lines have some, pi's
    # reader gives them others. A later one that names no parent was written by an old OpenClaw,
    # and continues where its conversation stood (`parseParentlessCanonicalEntry`).
    draft.follows_head = version < 2 or "parentId" not in fields
    if draft.follows_head:
        draft.parent_id = None
    return draft


def _own_time(fields: dict[str, Any]) -> int | None:
    """Return when an entry says that it was written, or its message."""
    message = fields.get("message")
    for stamped in (fields, message if isinstance(message, dict) else {}):
        at_ms = entry_ms(stamped)
        if at_ms is not None and 0 < at_ms <= TIME_MS_MAX:
            return at_ms
    return None


def _line_or_none(value: object, version: int) -> int | None:
    """Return the line of the file at which version 1 lets the kept entries begin.

    Line 0 is the header, which cannot be kept. Later versions name an id.
    """
    if version > 1 or not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return int(value) if 0 < value <= SEQ_MAX and value == int(value) else None


def id_or_none(value: object) -> str | None:
    """Return the id that a text gives an entry. Some programs count their entries."""
    if isinstance(value, str):
        return storable(value) or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _describe(
    fields: dict[str, Any],
    span: tuple[int, int] | None,
    text: str,
    version: int,
    formats: int,
) -> Draft:
    """Work out everything about an entry except where it goes.

    Its message is read in the one of `formats` that it has. If that is only one, in that.
    """
    draft = Draft(type=storable(fields["type"]), before=text)
    if span is not None:
        draft.body_at, draft.body_bytes = _byte_span(text, span)
    match draft.type:
        case "message":
            message = fields.get("message")
            if isinstance(message, dict):
                if formats & (formats - 1):
                    draft.formats = formats & recognise(message)
                _describe_message(draft, message, version, draft.formats & formats)
        case "custom_message":
            draft.projection, draft.formats = Projection.MADE, PI.bit
            draft.tokens = tokens_of(content_chars(fields.get("content")))
            draft.ties = ties_of(PI.bit, {"role": "custom", "content": fields.get("content")})
        case "branch_summary":
            draft.formats = PI.bit
            if fields.get("summary"):
                draft.projection = Projection.MADE
                draft.tokens = text_tokens(str(fields["summary"]))
                draft.ties = ties_of(PI.bit, {"role": "branchSummary"})
        case "compaction":
            draft.tokens = text_tokens(str(fields.get("summary") or ""))
            others = (item for item in PI.opening(fields) if item["role"] != SUMMARY)
            draft.tokens += sum(map(PI.tokens, others))
            draft.tokens_before = _int_or_zero(fields.get("tokensBefore"))
            draft.first_kept_id = id_or_none(fields.get("firstKeptEntryId"))
            draft.first_kept_seq = _line_or_none(fields.get("firstKeptEntryIndex"), version)
        case "reset":
            draft.first_kept_id = id_or_none(fields.get("firstKeptEntryId"))
        case "leaf":
            draft.target_id = _text_or_none(fields.get("targetId"))
            draft.append_parent_id = _text_or_none(fields.get("appendParentId"))
        case "session_info":
            draft.name = _text_or_none(fields.get("name"))
    if draft.type == RECORD_TYPE:
        draft.name = _text_or_none(fields.get("name"))
    # A leaf record moves the head, whatever its mode: what is appended there is said beside it.
    draft.side = draft.type != "leaf" and fields.get("appendMode") == "side"
    redacted = fields.get(REDACTED_FIELD)
    if isinstance(redacted, dict):
        draft.tokens = _int_or_zero(redacted.get("tokens"))
    return draft


def _weigher(message: dict[str, Any], may_be: int) -> Format:
    """Return the format that weighs a message: the first that it may have by its shape.

    Its session may know more, and formats weigh fields differently that none of them names. An
    append is weighed before its session is known, so a later reading must not know more either.
    """
    found = recognise(message) if may_be != PI.bit else may_be
    return spoken(found if found & may_be else may_be)


def _describe_message(draft: Draft, message: dict[str, Any], version: int, may_be: int) -> None:
    message_format = spoken(may_be)
    role = message_format.role(message)
    renamed = version < 3 and role == "hookMessage"  # in version 3
    if renamed:
        role = "custom"
    is_made = renamed or (may_be == PI.bit and needs_mending(message))
    draft.projection = Projection.MADE if is_made else Projection.BODY
    if is_made:
        message = message_of({"type": "message", "message": message})
    draft.role = _text_or_none(role)
    draft.tokens = _weigher(message, may_be).tokens(message)
    draft.results = len(message_format.closes(message))
    if message.get("excludeFromContext") is True:
        draft.projection, draft.tokens = Projection.EXCLUDED, 0
    elif may_be == PI.bit and message.get("stopReason") == "deferred":
        draft.projection, draft.tokens = Projection.NONE, 0  # its provider answers later
    else:
        draft.ties = ties_of(may_be, message)
    if draft.projection is not Projection.EXCLUDED and role == "assistant":
        draft.usage_tokens = message_format.usage(message)
        draft.calls = len(message_format.opens(message))
        draft.answers = draft.calls == 0 and message_format.is_usable(message)
        draft.goes_on = message_format.reply_in_parts and message_format.goes_on(message)
        replay = message.get("providerReplay")
        if not is_made and is_checkpoint(replay):
            draft.projection = Projection.CHECKPOINT
    key = message.get("idempotencyKey")
    draft.idempotency_key = _text_or_none(key) or None


def is_checkpoint(replay: object) -> bool:
    """Tell whether a reply's `providerReplay` holds for the exact prefix of that reply only."""
    kind = replay.get("type") if isinstance(replay, dict) else None
    return isinstance(kind, str) and kind in _CHECKPOINT_TYPES


def _byte_span(text: str, span: tuple[int, int]) -> tuple[int, int]:
    start, end = span
    if text.isascii():
        return start, end - start
    return len(text[:start].encode()), len(text[start:end].encode())


def _text_or_none(value: Any) -> str | None:
    return storable(value) if isinstance(value, str) else None


def _int_or_zero(value: Any) -> int:
    return (
        int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
        else 0
    )


# -- writing ---------------------------------------------------------------------------


def draft_entry(
    item: dict[str, Any] | str | bytes, *, now_ms: int, idempotency_key: str | None = None
) -> Draft:
    """Prepare an item to append: a message, a typed entry, or the JSON text of either.

    An item of a message format becomes an entry of type `message`. Any other dict (or text) with a
    `type` is an entry. Missing `id`, `parentId` and `timestamp` are added in front. A text is
    otherwise kept character for character.

    Raises:
        InvalidInput: not JSON, neither a message nor an entry, too large, a header, or an
            idempotency key (given, or the message's own) that is too long or reserved.
    """
    return draft_decoded(item, now_ms=now_ms, idempotency_key=idempotency_key)[0]


def draft_decoded(
    item: dict[str, Any] | str | bytes,
    *,
    now_ms: int,
    idempotency_key: str | None = None,
    formats: int = ANY,
) -> tuple[Draft, dict[str, Any]]:
    """As `draft_entry`. Also return the decoded item, so that its text is decoded once.

    `formats` are the message formats of an item, if its caller knows.
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
    text = text.strip(JSON_SPACE + "\n")
    if "\n" in text:
        raise InvalidInput("an entry's JSON must be on one line: transcripts hold one entry a line")
    if is_item(fields):
        may_be = recognise(fields) if formats == ANY else formats
        draft = _draft_message(text, fields, now_ms, may_be)
    else:
        draft = _draft_typed(text, fields, now_ms)
    if idempotency_key is not None:
        draft.idempotency_key = idempotency_key
    draft.wide = wide
    trouble = key_trouble(draft.idempotency_key)
    if trouble is not None:
        raise InvalidInput(f"{trouble}; choose another")
    return draft, fields


_RESERVED_KEY = re.compile(r"inbox:[0-9]+(:[0-9]+)?")


def key_trouble(key: str | None) -> str | None:
    """Return why a caller's append cannot have this idempotency key. None if it can.

    A claim appends an accepted message under `inbox:<number>`, and again under
    `inbox:<number>:<turn>`. If another entry had that key, the message would pass for appended.
    """
    if key is None:
        return None
    if not 0 < len(key) <= IDEMPOTENCY_KEY_CHARS_MAX:
        return (
            f"an idempotency key has 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters, not {len(key):,}"
        )
    return (
        f"the idempotency key {key!r} is reserved for the messages of the inbox"
        if _RESERVED_KEY.fullmatch(key)
        else None
    )


def is_large(item: object) -> bool:
    """Tell whether encoding an item takes so long that it must happen off the event loop.

    Adds up the lengths of its texts, also of a typed message, and stops once they are large.
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
        elif isinstance(value, Item):
            inside = (value.message,)
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


def _draft_message(body: str, message: dict[str, Any], now_ms: int, formats: int) -> Draft:
    entry_id = new_id()
    between = f',"timestamp":"{iso_from_ms(now_ms)}","message":'
    draft = Draft(
        type="message",
        before=f'{{"type":"message","id":"{entry_id}","parentId":',
        after=f"{between}{body}}}",
        follows_head=True,
        entry_id=entry_id,
        body_at=len(between),
        body_bytes=len(body) if body.isascii() else len(body.encode()),
    )
    draft.formats = formats
    _describe_message(draft, message, NATIVE_VERSION, formats)
    return draft


def _draft_typed(text: str, fields: dict[str, Any], now_ms: int) -> Draft:
    entry_type = fields.get("type")
    if not isinstance(entry_type, str) or not entry_type:
        raise InvalidInput('an entry needs a "type" (or, for a message, a "role")')
    for name in ("id", "parentId", "timestamp"):
        if name in fields and not (
            isinstance(fields[name], str) or (name == "parentId" and fields[name] is None)
        ):
            raise InvalidInput(f"an entry's {name!r} must be a string, not {fields[name]!r}")
        if isinstance(fields.get(name), str) and (
            not fields[name] or storable(fields[name]) != fields[name]
        ):
            raise InvalidInput(
                f"an entry's {name!r} cannot be {fields[name]!r}: it is empty or not valid Unicode"
            )
    if entry_type in OFF_TREE_TYPES:
        raise InvalidInput(
            f"a {entry_type!r} record is written by sessiondb itself; "
            "to move the head use session.branch()"
        )
    added = []
    if "timestamp" not in fields:
        added.append(f'"timestamp":"{iso_from_ms(now_ms)}",')
    entry_id = fields.get("id") or new_id()
    if "id" not in fields:
        added.append(f'"id":"{entry_id}",')
    prefix = "{" + "".join(added)
    follows_head = "parentId" not in fields
    rest = text[1:]  # the object without its brace: follows the added fields
    whole = prefix + ('"parentId":' if follows_head else rest)
    draft = _describe(fields, None, whole, NATIVE_VERSION, ANY)
    draft.entry_id = storable(entry_id)
    draft.parent_id = _text_or_none(fields.get("parentId"))
    draft.follows_head = follows_head
    draft.after = f",{rest}" if follows_head else ""
    if draft.type == "message":
        _, span = decode_object("{" + rest)
        if span is None:
            raise InvalidInput('an entry of type "message" needs a "message" object')
        body_at, draft.body_bytes = _byte_span("{" + rest, span)
        # `rest` lost its brace. A comma (parent filled in) or the added fields precede it.
        draft.body_at = body_at if follows_head else body_at - 1 + len(prefix)
    elif entry_type not in _KNOWN_TYPES:
        draft.as_item = _draft_message(text, fields, now_ms, OPENAI_RESPONSES.bit)
    return draft


# -- preparing -------------------------------------------------------------------------


async def prepare(item: Appendable, idempotency_key: str | None = None, *, now_ms: int) -> Draft:
    """Encode an item to append, off the event loop when it is large. `now_ms` is its time.

    Raises:
        InvalidInput: it cannot be stored, or the idempotency key is too long.
    """
    draft, _ = await prepare_decoded(item, idempotency_key, now_ms=now_ms)
    return draft


async def prepare_decoded(
    item: Appendable, idempotency_key: str | None = None, *, now_ms: int
) -> tuple[Draft, dict[str, Any]]:
    """As `prepare`. Also return the decoded item, so that its text is decoded once."""
    _check_key(idempotency_key)
    prepare = partial(_prepare, item, idempotency_key, now_ms)
    return await off_loop(prepare) if is_large(item) else prepare()


async def off_loop(encode: Callable[[], T]) -> T:
    """Encode what is to be written on a worker thread. Cancelled, the write was not executed."""
    with before_the_write():
        return await threads.run(encode)


def _check_key(key: object) -> None:
    if key is not None and not isinstance(key, str):
        raise InvalidInput(f"an idempotency key is a text, not {type(key).__name__}")


def _prepare(
    item: Appendable, idempotency_key: str | None, now_ms: int
) -> tuple[Draft, dict[str, Any]]:
    if isinstance(item, Item):
        return _prepare_item(item, idempotency_key, now_ms)
    formats = formats_of(item)
    if isinstance(item, BaseModel):
        item = message_json(item)
    if not isinstance(item, dict | str | bytes):
        raise InvalidInput(
            "an entry is a dict, a typed message, the JSON text of either, or an Item of one, "
            f"not {type(item).__name__}"
        )
    return draft_decoded(
        item,
        now_ms=now_ms,
        idempotency_key=idempotency_key,
        formats=formats,
    )


def _prepare_item(
    item: Item, idempotency_key: str | None, now_ms: int
) -> tuple[Draft, dict[str, Any]]:
    if item.key is not None and idempotency_key is not None:
        raise InvalidInput(
            "an Item with a key needs no idempotency_key beside it; give one of both"
        )
    _check_key(item.key)
    if isinstance(item.message, Item):
        raise InvalidInput("an Item holds a message or an entry, not another Item")
    if item.at_ms is not None and not _is_time_ms(item.at_ms):
        raise InvalidInput(
            "an Item's at_ms is in milliseconds since 1970, up to the year 9999, "
            f"not {item.at_ms!r}"
        )
    said_at_ms = item.at_ms if item.at_ms is not None else now_ms
    return _prepare(item.message, item.key or idempotency_key, said_at_ms)


def _is_time_ms(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= TIME_MS_MAX


def formats_of(item: object) -> int:
    """Return the formats that an item may have by its class: a typed message is pi's."""
    return PI.bit if is_typed(item) else ANY


async def prepare_all(items: Sequence[Appendable], *, now_ms: int) -> list[Draft]:
    """Encode items to append together, off the event loop when they are many or large.

    Raises:
        InvalidInput: one of them cannot be stored. Its index is in the message.
    """
    prepare = partial(_prepare_all, items, now_ms)
    return (
        await off_loop(prepare)
        if len(items) > LARGE_ITEMS or any(map(is_large, items))
        else prepare()
    )


def _prepare_all(items: Sequence[Appendable], now_ms: int) -> list[Draft]:
    return [prepare_now(item, now_ms, index) for index, item in enumerate(items)]


def prepare_now(item: Appendable, now_ms: int, index: int) -> Draft:
    """Encode one of several items, on this thread.

    Raises:
        InvalidInput: it cannot be stored. Its index is in the message.
    """
    try:
        return _prepare(item, None, now_ms)[0]
    except InvalidInput as error:
        raise InvalidInput(f"item {index}: {error}") from error


def check_append(count: int, size: int) -> None:
    """Refuse an append, or a turn's answer, that is too much for one transaction.

    Raises:
        InvalidInput: too many, or too many bytes.
    """
    if count > APPEND_ENTRIES_MAX:
        raise InvalidInput(
            f"{count:,} entries in one append; "
            f"at most {APPEND_ENTRIES_MAX:,}, replies included, share a transaction"
        )
    if size > APPEND_BYTES_MAX:
        raise InvalidInput(
            f"{size:,} bytes in one append; "
            f"at most {APPEND_BYTES_MAX:,}, replies included, share a transaction"
        )

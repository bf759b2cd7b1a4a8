"""Session keys: the addresses of conversations, in OpenClaw's grammar.

A key is `agent:<agentId>:<rest>`: at least 3 non-empty parts, the first of them `agent`. The rest
names the conversation: `main`, `<channel>:direct:<peer>`, `<channel>:<account>:direct:<peer>`,
`<channel>:group:<id>`, `<channel>:channel:<id>`, `direct:<peer>`, `cron:<job>`, `subagent:<id>`,
..., each perhaps followed by `:thread:<id>`. An id may hold colons. Old stores also hold keys
without the `agent:` part. These belong to the agent in whose folder they were found.

Two spellings are one key when they differ in the case of these parts only:

* the words of the grammar, the agent's id and the channel's name: a configuration gives them,
* every part of a key of a channel in `_CASELESS`: its ids have no case, or the channel itself
  takes both cases for one address, and may report either.

Everything else keeps its case. In most channels an id is base64 or the like, where case is
part of it. Two people whose ids differ in case only must not share a conversation: that shows
one what the other wrote (openclaw#102313). An id that is kept, and need not be, costs less: its
conversation begins anew when the channel spells it in another way.

OpenClaw lower-cases more (`src/sessions/session-key-utils.ts`): all but the group ids of Signal and
the room ids of Matrix. So an imported key may have lost the case of its id. Such a key is taken
over by the first conversation whose key it is in lower case, unless the index has an address that
is spelled otherwise (`registry.find`, `may_name`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sessiondb.errors import InvalidKey
from sessiondb.json_text import loads
from sessiondb.limits import SESSION_KEY_CHARS_MAX

_UNSCOPED = re.compile(
    r"(?:main|global|unknown|(?:cron|hook|subagent|acp):.+|[^:]+:(?:group|channel|direct):.+)",
    re.IGNORECASE,
)

_PEERS = frozenset({"direct", "dm", "group", "channel", "room"})
_MARKS = frozenset({"thread", "topic", "sender", "run", "heartbeat"})
"""Words behind an id."""
_LONE = frozenset({"main", "global", "unknown"})
"""Conversations without an id."""
_CASELESS = frozenset(
    {
        # Digits, telephone numbers, and names that the network compares without case.
        *("discord", "telegram", "whatsapp", "zalo", "zalouser", "sms", "irc", "twitch"),
        *("imessage", "bluebubbles"),  # telephone numbers and e-mail addresses
        "signal",  # telephone numbers and UUIDs, but for its groups: base64
        "slack",  # ids in capitals only
        "line",  # one capital that says what it is, and hexadecimal digits
        "nostr",  # hexadecimal digits, or bech32, which has one case only
    }
)
"""Channels whose ids have no case that matters."""
_ADDRESSES = frozenset(
    {"to", "from", "lastTo", "nativeChannelId", "nativeDirectUserId", "threadId", "lastThreadId"}
)
"""Fields of an index's row in which OpenClaw keeps the case of an id."""


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A key in its canonical form, with the parts that rules need."""

    text: str
    agent_id: str
    rest: str
    ids: tuple[str, ...] = ()
    """The parts whose case was kept: of whom it is, then of the thread."""

    @property
    def lowered(self) -> str:
        """The key as OpenClaw writes it where it loses the case of an id."""
        return self.text.lower()

    @property
    def kind(self) -> str:
        """The kind of conversation: main, direct, group, channel, thread, cron, ... or other."""
        parts = self.rest.split(":")
        if "thread" in parts[1:-1]:  # the last part is an id
            return "thread"
        if parts[0] in ("main", "cron", "subagent", "acp", "hook", "explicit", "global"):
            return parts[0]
        return next(
            (part for part in parts[1:3] if part in ("direct", "group", "channel", "room")), "other"
        )


def parse_key(text: str, *, agent_id: str | None = None) -> SessionKey:
    """Return the canonical form of a key.

    With `agent_id`, a key of an old store (no `agent:` part) is accepted too.

    Raises:
        InvalidKey: outside the grammar.
    """
    if not isinstance(text, str):
        raise InvalidKey(f"a session key is a text, not {type(text).__name__}")
    if len(text) > SESSION_KEY_CHARS_MAX:
        raise InvalidKey(
            f"a session key of {len(text):,} characters; "
            f"at most {SESSION_KEY_CHARS_MAX:,} are allowed",
            key=text[:80],
        )
    if any(ord(char) < 0x20 for char in text):
        raise InvalidKey(f"the session key {text!r} contains a control character", key=text)
    parts = text.strip().split(":")
    if parts[0].lower() == "agent" and len(parts) >= 3 and parts[1] and parts[2]:
        return _key(parts[1], parts[2:])
    if agent_id is not None and _UNSCOPED.fullmatch(text.strip()):
        return _key(agent_id, parts)
    raise InvalidKey(
        f"{text!r} is not a session key; expected agent:<agentId>:<rest>, "
        "such as agent:main:discord:channel:1",
        key=text,
    )


def looks_like_key(text: str) -> bool:
    """Tell a session key from a session id: ids contain no colon."""
    return ":" in text


def may_name(row: str, key: SessionKey) -> bool:
    """Tell whether a row of an index, whose key is in lower case, may be that of `key`.

    OpenClaw notes the address that it replies to, in its real case. A row that has it in another
    case only is somebody else's. A row without an address may be anybody's.
    """
    addresses = list(_addresses(loads(row)))
    for kept in key.ids:
        pattern = re.compile(re.escape(kept), re.IGNORECASE)
        spellings = {found for address in addresses for found in pattern.findall(address)}
        if spellings and kept not in spellings:
            return False
    return True


def _addresses(row: Any, depth: int = 3) -> Iterator[str]:
    """Yield the addresses in a row: they stand in it, and in objects within it."""
    if not isinstance(row, dict) or not depth:
        return
    for name, value in row.items():
        if name in _ADDRESSES and isinstance(value, str):
            yield value
        else:
            yield from _addresses(value, depth - 1)


def _key(agent_id: str, parts: list[str]) -> SessionKey:
    owner = agent_id.lower()
    canonical, ids = _canonical(parts)
    rest = ":".join(canonical)
    text = f"agent:{owner}:{rest}"
    if len(text) > SESSION_KEY_CHARS_MAX:  # some capitals have more characters in lower case
        raise InvalidKey(
            f"a session key of {len(text):,} characters; "
            f"at most {SESSION_KEY_CHARS_MAX:,} are allowed",
            key=text[:80],
        )
    return SessionKey(text, owner, rest, tuple(":".join(one) for one in ids))


def _canonical(parts: list[str]) -> tuple[list[str], list[list[str]]]:
    """Return the parts with the words of the grammar in lower case, and the ids among them."""
    words = [part.lower() for part in parts]
    id_at = _id_at(words)
    if words[0] in _CASELESS and (words[0] != "signal" or "group" not in words[1:id_at]):
        return words, []
    # A word before the word of the peer, behind the channel, is an account's name.
    canonical = [words[0], *parts[1 : id_at - 1], *words[max(1, id_at - 1) : id_at]][:id_at]
    ids: list[list[str]] = [[]]
    for at in range(id_at, len(parts)):
        if _is_mark(words, at, id_at):
            canonical.append(words[at])
            ids.append([])
        else:
            canonical.append(parts[at])
            ids[-1].append(parts[at])
    return canonical, [one for one in ids if one]


def _id_at(words: list[str]) -> int:
    """Return where an id begins: behind the word of its kind, else behind the first word."""
    if len(words) == 1:
        return int(words[0] in _LONE)
    if words[0] in _LONE or words[0] in _PEERS:
        return 1
    return next((at + 1 for at in (1, 2) if words[at : at + 1] and words[at] in _PEERS), 1)


def _is_mark(words: list[str], at: int, id_at: int) -> bool:
    """Tell whether a part is a word behind an id. It has an id of its own, but for a heartbeat."""
    is_first = at == id_at and words[0] not in _LONE
    is_last = at == len(words) - 1
    return not is_first and words[at] in _MARKS and is_last == (words[at] == "heartbeat")

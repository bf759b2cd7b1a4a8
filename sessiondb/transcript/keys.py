"""Session keys: the addresses of conversations, in OpenClaw's grammar.

A key is `agent:<agentId>:<rest>`: at least 3 non-empty parts, the first of them `agent`. The rest
names the conversation: `main`, `<channel>:direct:<peer>`, `<channel>:group:<id>`,
`<channel>:channel:<id>`, `cron:<job>`, `subagent:<id>`, ..., each perhaps followed by
`:thread:<id>`. Old stores also hold keys without the `agent:` part. These belong to the agent in
whose folder they were found.

Keys are lower-cased, because channels report the same address in different cases. There are two
exceptions, where case is part of an id: the group id of Signal (one part) and the room id of
Matrix (everything after `matrix:channel:` or `matrix:group:`, except the word `thread`).
Source: openclaw `src/sessions/session-key-utils.ts`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sessiondb.errors import InvalidKey
from sessiondb.limits import SESSION_KEY_CHARS_MAX

_UNSCOPED = re.compile(
    r"(?:main|global|unknown|(?:cron|hook|subagent|acp):.+|[^:]+:(?:group|channel|direct):.+)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SessionKey:
    """A key in its canonical form, with the parts that rules need."""

    text: str
    agent_id: str
    rest: str

    @property
    def kind(self) -> str:
        """The kind of conversation: main, direct, group, channel, thread, cron, ... or other."""
        parts = self.rest.split(":")
        if "thread" in parts[1:]:
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
        owner, rest = parts[1].lower(), _canonical_rest(parts[2:])
        return SessionKey(f"agent:{owner}:{rest}", owner, rest)
    if agent_id is not None and _UNSCOPED.fullmatch(text.strip()):
        owner, rest = agent_id.lower(), _canonical_rest(parts)
        return SessionKey(f"agent:{owner}:{rest}", owner, rest)
    raise InvalidKey(
        f"{text!r} is not a session key; expected agent:<agentId>:<rest>, "
        "such as agent:main:discord:channel:1",
        key=text,
    )


def looks_like_key(text: str) -> bool:
    """Tell a session key from a session id: ids contain no colon."""
    return ":" in text


def _canonical_rest(parts: list[str]) -> str:
    lowered = [part.lower() for part in parts]
    for index in range(len(parts) - 2):
        channel, kind = lowered[index], lowered[index + 1]
        if channel == "signal" and kind == "group":
            return ":".join([*lowered[: index + 2], parts[index + 2], *lowered[index + 3 :]])
        if channel == "matrix" and kind in ("channel", "group"):
            tail = [
                part.lower() if part.lower() == "thread" else part for part in parts[index + 2 :]
            ]
            return ":".join([*lowered[: index + 2], *tail])
    return ":".join(lowered)

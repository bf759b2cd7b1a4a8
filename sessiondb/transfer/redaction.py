"""Secrets removed from transcripts on import and on export: the option `--redact`. Off by default.

What it promises. A secret that has the shape of one of the rules (`redaction_rules`) is replaced by
`[redacted:<rule>]`. Receipts count the secrets per rule, and nothing ever shows a secret. A line of
JSON stays a line of JSON of the same shape: only string values that hold a secret change. Names,
numbers, spaces, ids and signatures are the same bytes as before. A line that is not JSON is treated
as plain text. A secret is found right behind an escape of JSON, of a terminal or of a URL, too
(`redaction_text`). A mark is never a part of a secret.

What it is not. It knows shapes, not meanings. These secrets stay: a password that looks like a
word, a secret that is cut in two, that is the name of a field, or that is encoded (base64, an
image). Of a line longer than `ENTRY_BYTES_MAX` each piece is searched by itself. An import stores
the redacted text, so an export returns that. The table `import_file` still counts and hashes the
bytes of the file, so that a file that has grown is recognised. Entries that a program appends are
stored as they come: only the program knows what may be changed.

Cost. No input makes a rule slow, because RE2 reads each character once. Most lines have no match
of any rule as a whole, and then none of their strings is looked at.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from sessiondb.json_text import DamagedLine, decode_object, dumps, loads
from sessiondb.limits import ENTRY_BYTES_MAX, ENTRY_VALUES_MAX
from sessiondb.models import BY_HAND, REDACTED

from .redaction_rules import (
    EMAIL,
    RULES,
    RedactionRule,
    compiled,
    gitleaks_rules,
    read_rules,
    require_engine,
)
from .redaction_text import Words, decoded, decoded_once, spans_in_text

LineShape = Literal["entry", "index"]
"""What a line is: an entry of a transcript, or an index of sessions."""

_Secret = tuple[int, int, str]
"""Where it is, and the name of its rule."""

_REPLACED: Final = re.compile(rb"(\[redacted:[a-z0-9_-]+\])")

# Fields that redaction never changes, by their path in an entry (without list indexes): strings
# that link entries, and texts that a provider gets back byte for byte. Deeper down, in a tool's
# arguments, the same names mean nothing.
_KEPT_IN_ENTRY: Final = {
    (): frozenset(
        {
            "type",
            "id",
            "parentId",
            "timestamp",
            "firstKeptEntryId",
            "targetId",
            "fromId",
            "customType",
            "idempotencyKey",
        }
    ),
    ("message",): frozenset(
        {
            "role",
            "toolCallId",
            "toolName",
            "idempotencyKey",
            "provider",
            "model",
            "api",
            "stopReason",
            # of other message formats
            "call_id",
            "tool_call_id",
            "approval_request_id",
            "encrypted_content",
        }
    ),
    ("message", "content"): frozenset(
        {
            "type",
            "id",
            "name",
            "mimeType",
            "textSignature",
            "thinkingSignature",
            "thoughtSignature",
            "tool_use_id",
            "signature",
        }
    ),
    ("message", "tool_calls"): frozenset({"type", "id"}),
}
_KEPT_IN_INDEX: Final = frozenset({"sessionId", "sessionFile"})

# For JSON that is known to be valid. The quantifiers are possessive: each character is read once.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}:,]', re.DOTALL)


class Redactor:
    """Rules, ready for use. Immutable, and safe in any thread.

    `emails` adds e-mail addresses, which are not secrets but may be private. `rules` adds a
    user's own.

    Raises:
        InvalidInput: the extra `redact` is not installed.
    """

    def __init__(self, *, emails: bool = False, rules: Iterable[RedactionRule] = ()) -> None:
        require_engine()
        own = tuple(rules)
        self.rules = (*RULES, *((EMAIL,) if emails else ()), *gitleaks_rules(), *own)
        self._always = [at for at, rule in enumerate(self.rules) if not rule.hints]
        self._hinted: dict[str, list[int]] = {}
        for at, rule in enumerate(self.rules):
            for hint in rule.hints:
                self._hinted.setdefault(hint, []).append(at)
        # Short ones are in most texts, so they go together.
        self._hints = Words(sorted(self._hinted, key=lambda hint: (len(hint), hint)))

    @property
    def fingerprint(self) -> str:
        """What the rules are, in a few characters: the same for the same rules."""
        return hashlib.sha256(repr(self.rules).encode()).hexdigest()[:12]

    def text(self, text: str, counts: Counter[str]) -> str:
        """Return a text without its secrets. Count them per rule."""
        as_bytes = text.encode("utf-8", "surrogatepass")
        redacted = _redacted(as_bytes, self._may_match(as_bytes, decoded(as_bytes)), counts)
        return redacted.decode("utf-8", "surrogatepass") if redacted != as_bytes else text

    def line(self, raw: bytes, counts: Counter[str], *, shape: LineShape = "entry") -> bytes:
        """Return a line, or a whole index, without its secrets. Count them per rule.

        The line end stays.
        """
        once = decoded_once(raw)
        rules = self._may_match(once, decoded(once))
        is_whole = raw.rstrip().endswith(b"}")
        if not rules and is_whole:
            return raw
        text = raw.decode("utf-8", "surrogateescape")
        try:
            if not is_whole:
                raise DamagedLine("it is torn")
            decode_object(
                text, values_max=ENTRY_BYTES_MAX if shape == "index" else ENTRY_VALUES_MAX
            )
        except DamagedLine:
            redacted = self.text(text, counts)
        else:
            redacted = _redacted_object(text, rules, counts, shape)
        return raw if redacted == text else redacted.encode("utf-8", "surrogateescape")

    def _may_match(self, *texts: bytes) -> list[RedactionRule]:
        """Return the rules that match in one of the texts, in their order, and a few others.

        What matches in a string of a line of JSON matches in the line: quotes end a secret, too.
        Only a rule without hints may be a user's that wants to be the whole string.
        """
        possible = set(self._always)
        for text in dict.fromkeys(texts):
            found = {at for hint in self._hints.within(text.lower()) for at in self._hinted[hint]}
            possible.update(
                at
                for at in found - possible
                if compiled(self.rules[at].pattern).search(text) is not None
            )
        return [self.rules[at] for at in sorted(possible)]


def redactor_from(*, emails: bool = False, rules_file: str | Path | None = None) -> Redactor:
    """Return a redactor with the built-in rules and the rules of a file (`read_rules`)."""
    return Redactor(emails=emails, rules=read_rules(rules_file) if rules_file is not None else ())


def _redacted(text: bytes, rules: Sequence[RedactionRule], counts: Counter[str]) -> bytes:
    """Return a text without the secrets of some rules. What was replaced before parts the rest."""
    # An address is no secret: it is looked for in what the secrets leave.
    secrets = [rule for rule in rules if rule is not EMAIL]
    for some in (secrets, [EMAIL] if EMAIL in rules else []):
        parts = _REPLACED.split(text) if some else [text]  # every second one is a mark
        text = b"".join(
            part if at % 2 else _without_secrets(part, some, counts)
            for at, part in enumerate(parts)
        )
    return text


def _without_secrets(text: bytes, rules: Sequence[RedactionRule], counts: Counter[str]) -> bytes:
    parts, at = [], 0
    for start, end, name in _apart(_secrets(text, decoded(text), rules)):
        parts += [text[at:start], f"[redacted:{name}]".encode()]
        at = end
        counts[name] += 1
    return b"".join([*parts, text[at:]]) if parts else text


def _secrets(text: bytes, meant: bytes, rules: Iterable[RedactionRule]) -> list[_Secret]:
    """Return the secrets of each rule: those in the text as it is, and those behind its escapes."""
    found: list[_Secret] = []
    for rule in rules:
        spans = list(rule.spans(text))
        if meant is not text:
            spans += spans_in_text(text, list(rule.spans(meant)))
        found += [(start, end, rule.name) for start, end in spans]
    return found


def _apart(secrets: list[_Secret]) -> list[_Secret]:
    """Return secrets from left to right. Those that overlap are one, with the longest one's name.

    Of several as long it is the one of the first rule.
    """
    found: list[_Secret] = []
    longest = 0
    for start, end, name in sorted(secrets, key=lambda secret: secret[0]):
        if found and start < found[-1][1]:
            first, last, before = found[-1]
            found[-1] = (first, max(last, end), before if end - start <= longest else name)
            longest = max(longest, end - start)
        else:
            found.append((start, end, name))
            longest = end - start
    return found


def _redacted_object(
    text: str, rules: list[RedactionRule], counts: Counter[str], shape: LineShape
) -> str:
    """Replace string values of a valid JSON object in place."""
    parts: list[str] = []
    at = 0
    for start, end, path, key in _values(text):
        if _is_kept(shape, path, key):
            continue
        token = text[start:end]
        value = (loads(token) if "\\" in token else token[1:-1]).encode("utf-8", "surrogatepass")
        redacted = _redacted(value, rules, counts)
        if redacted != value:
            parts += [text[at:start], dumps(redacted.decode("utf-8", "surrogatepass"))]
            at = end
    return "".join([*parts, text[at:]]) if parts else text


def _values(text: str) -> Iterator[tuple[int, int, tuple[str, ...], str]]:
    """Yield each string value of a valid object: start, end, path, field name ("" in a list)."""
    # Names of the open containers. One in a list goes by the list's name, so its own is None.
    path: list[str | None] = []
    kinds: list[str] = []
    key, is_key = "", False
    for token in _TOKEN.finditer(text):
        match token[0][0]:
            case '"' if is_key:
                key = loads(token[0]) if "\\" in token[0] else token[0][1:-1]
            case '"':
                yield (
                    token.start(),
                    token.end(),
                    tuple(name for name in path[1:] if name is not None),
                    key,
                )
            case ":":
                is_key = False
            case "{" | "[" as kind:
                path.append(None if kinds and kinds[-1] == "[" else key)
                kinds.append(kind)
                key, is_key = "", kind == "{"
            case "," if kinds[-1] == "{":
                is_key = True
            case "}" | "]":
                kinds.pop()
                path.pop()
                key = ""


def _is_kept(shape: LineShape, path: tuple[str, ...], key: str) -> bool:
    if shape == "index":
        return len(path) == 1 and key in _KEPT_IN_INDEX
    if key == "data" and path == ("message", "content"):
        return True  # an image
    return key in _KEPT_IN_ENTRY.get(path, ())


# -- the mark in the record of a file --------------------------------------------------------------

_MARK: Final = re.compile(
    rf"{REDACTED} from byte (?P<at>\d+)(?: \(rules (?P<rules>[0-9a-f]{{12}})\))?: "
    r"(?P<counts>nothing|[a-z0-9_-]+ \d+(?:, [a-z0-9_-]+ \d+)*)(?:; |\Z)"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """The part of a record's note about redaction: where it began, and what was replaced."""

    from_byte: int
    counts: Counter[str]
    rules: str | None = None
    """Which rules they were (`Redactor.fingerprint`), if they were the same all the time."""

    @property
    def is_by_hand(self) -> bool:
        """Whether the file was imported as it is, and a person had some of its entries redacted."""
        return self.counts.keys() == {BY_HAND}

    def __str__(self) -> str:
        found = (
            ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())) or "nothing"
        )
        rules = f" (rules {self.rules})" if self.rules is not None else ""
        return f"{REDACTED} from byte {self.from_byte}{rules}: {found}"


def mark_in(note: str | None) -> Mark | None:
    """Return the mark in a record's note, or None if the file was imported without a redactor."""
    match = _MARK.match(note or "")
    if match is None:
        return None
    counts: Counter[str] = Counter()
    for part in match["counts"].split(", ") if match["counts"] != "nothing" else ():
        name, _, count = part.rpartition(" ")
        counts[name] = int(count)
    return Mark(int(match["at"]), counts, match["rules"])


def without_mark(note: str | None) -> str:
    """Return a record's note without its mark."""
    return _MARK.sub("", note or "", count=1)


def counted(counts: Counter[str]) -> dict[str, int]:
    """Return counts per rule, in the order of their names, as a receipt shows them."""
    return dict(sorted(counts.items()))

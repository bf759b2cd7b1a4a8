r"""Secrets removed from transcripts on import and on export: the option `--redact`. Off by default.

What it promises. A secret that has one of the shapes below is replaced by `[redacted:<rule>]`.
Receipts count the secrets per rule, and nothing ever shows a secret. A line of JSON stays a line
of JSON of the same shape: only string values that hold a secret change. Names, numbers, spaces,
ids and signatures are the same bytes as before. A line that is not JSON is treated as plain text.
Redacting a redacted text changes nothing.

What it is not. It knows shapes, not meanings. These secrets stay: a password that looks like a
word, a secret that is cut in two, that is the name of a field, or that is encoded (base64, an
image). Of a line longer than `ENTRY_BYTES_MAX` each piece is searched by itself. An import stores
the redacted text, so an export returns that. The table `import_file` still counts and hashes the
bytes of the file, so that a file that has grown is recognised. Entries that a program appends are
stored as they come: only the program knows what may be changed.

Cost. No input makes a rule slow. A built-in rule starts at a fixed text or behind a character
that cannot be in the secret, and repeats nothing without a bound, so each character is read a
bounded number of times. A user's own rule that could do otherwise is refused when it is read
(`redaction_rules`). A fixed text that every match contains (`hints`) is searched first, which
spares nearly all lines the rest.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from sessiondb.json_text import DamagedLine, decode_object, dumps, loads
from sessiondb.limits import ENTRY_BYTES_MAX, ENTRY_VALUES_MAX
from sessiondb.models import BY_HAND, REDACTED

KEY_BLOCK_CHARS_MAX: Final = 64 * 1024

LineShape = Literal["entry", "index"]
"""What a line is: an entry of a transcript, or an index of sessions."""


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """The shape of a kind of secret. The group `secret` is replaced, else the whole match."""

    name: str
    pattern: re.Pattern[str]
    hints: tuple[str, ...] = ()
    """Every match contains one of these. None given: the pattern is tried on every string."""
    ends_with: re.Pattern[str] | None = None
    """The secret goes from the pattern to this one, or for `KEY_BLOCK_CHARS_MAX` without it."""

    def may_match(self, text: str) -> bool:
        """Return False if a text certainly holds no match. Quick."""
        return not self.hints or any(hint in text for hint in self.hints)

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where the secrets are, from left to right."""
        if self.ends_with is not None:
            yield from self._blocks(text, self.ends_with)
            return
        group: str | int = "secret" if "secret" in self.pattern.groupindex else 0
        for match in self.pattern.finditer(text):
            start, end = match.span(group)
            if end > start:  # a group that took no part in the match is at -1
                yield start, end

    def _blocks(self, text: str, ends_with: re.Pattern[str]) -> Iterator[tuple[int, int]]:
        at = 0
        while (begin := self.pattern.search(text, at)) is not None:
            limit = min(len(text), begin.end() + KEY_BLOCK_CHARS_MAX)
            end = ends_with.search(text, begin.end(), limit)
            at = end.end() if end is not None else limit
            yield begin.start(), at


def _rule(name: str, pattern: str, *hints: str) -> RedactionRule:
    # ASCII: a letter of another script is not a part of a token.
    return RedactionRule(name, re.compile(pattern, re.ASCII), hints)


_KEY_KIND = r"(?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"

# Ordered: the more specific rule comes first. Each begins at a text of its own, behind a character
# that is not of the secret's alphabet. So no character starts two attempts, and a long run of such
# characters is read once.
RULES: Final[tuple[RedactionRule, ...]] = (
    RedactionRule(
        "private-key",
        re.compile(rf"-----BEGIN {_KEY_KIND}"),
        ("-----BEGIN ",),
        re.compile(rf"-----END {_KEY_KIND}"),
    ),
    _rule("anthropic-key", r"(?<![\w-])sk-ant-[\w-]{16,300}", "sk-ant-"),
    _rule(
        "stripe-key",
        r"(?<![\w-])(?:(?:sk|rk)_(?:live|test)|whsec)_[A-Za-z0-9]{16,255}",
        "k_live_",
        "k_test_",
        "whsec_",
    ),
    # OpenAI, and the many services that copied its form. A digit is required, because `sk-` also
    # begins ordinary names.
    _rule("sk-key", r"(?<![\w-])sk-(?=[A-Za-z_-]{0,80}[0-9])[\w-]{20,300}", "sk-"),
    _rule(
        "aws-access-key",
        r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])",
        "AKIA",
        "ASIA",
        "ABIA",
        "ACCA",
    ),
    _rule(
        "aws-secret-key",
        r"(?i:secret_?access_?key|aws_?secret_?key)[\"'\\]{0,3}\s{0,3}[:=]\s{0,3}[\"'\\]{0,3}"
        r"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        "ecret",
        "ECRET",
    ),
    _rule(
        "github-token",
        r"(?<!\w)(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})",
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    _rule(
        "gitlab-token",
        r"(?<![\w-])gl(?:pat|dt|rt|ft|cbt)-[\w.-]{20,255}",
        "glpat-",
        "gldt-",
        "glrt-",
        "glft-",
        "glcbt-",
    ),
    _rule("slack-token", r"(?<![\w-])(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,255}", "xox", "xapp-"),
    _rule(
        "slack-webhook",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<secret>[\w/-]{20,255})",
        "hooks.slack.com/",
    ),
    # The first part is a number in base64, which begins in one of nine ways.
    _rule(
        "discord-token",
        r"(?<![\w-])(?:M[Tjz]|N[DTjz]|O[DT])[\w-]{22,26}\.[\w-]{6}\.[\w-]{27,45}(?![\w-])",
        *("MT", "Mj", "Mz", "ND", "NT", "Nj", "Nz", "OD", "OT"),
    ),
    _rule(
        "discord-webhook",
        r"discord(?:app)?\.com/api/webhooks/\d{15,25}/(?P<secret>[\w-]{30,120})",
        "/api/webhooks/",
    ),
    _rule(
        "telegram-token",
        r"(?<![A-Za-z0-9])(?:bot)?(?P<secret>[0-9]{8,12}:AA[\w-]{33})(?![\w-])",
        ":AA",
    ),
    _rule("google-key", r"(?<![\w-])AIza[\w-]{35}(?![\w-])", "AIza"),
    _rule(
        "google-token",
        r"(?<![\w-])(?:ya29\.[\w-]{20,2000}|GOCSPX-[\w-]{20,60})",
        "ya29.",
        "GOCSPX-",
    ),
    _rule("huggingface-token", r"(?<!\w)hf_[A-Za-z0-9]{30,60}(?!\w)", "hf_"),
    _rule(
        "model-key",
        r"(?<![\w-])(?:gsk_[A-Za-z0-9]{40,60}|xai-[A-Za-z0-9]{60,100}"
        r"|pplx-[A-Za-z0-9]{40,60}|r8_[A-Za-z0-9]{37,40})(?![\w-])",
        *("gsk_", "xai-", "pplx-", "r8_"),
    ),
    _rule("npm-token", r"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)", "npm_"),
    _rule("pypi-token", r"(?<![\w-])pypi-AgE[\w-]{50,500}", "pypi-AgE"),
    _rule("sendgrid-key", r"(?<![\w.-])SG\.[\w-]{16,32}\.[\w-]{16,64}", "SG."),
    _rule("jwt", r"(?<![\w-])eyJ[\w-]{8,8000}\.eyJ[\w-]{8,16000}\.[\w-]{0,4000}", "eyJ"),
    _rule(
        "authorization",
        r"(?<![A-Za-z])(?:[Bb]earer|BEARER|[Bb]asic|BASIC)[ \t]{1,3}"
        r"(?=[A-Za-z._~+/=-]{0,80}[0-9])(?P<secret>[\w.~+/=-]{16,4000})",
        *("earer ", "EARER ", "asic ", "ASIC ", "earer\t", "EARER\t", "asic\t", "ASIC\t"),
    ),
    _rule(
        "url-password",
        r"://[^\s/?#:@\"'<>\[\]]{0,100}:(?!\[redacted:)(?P<secret>[^\s/?#@\"'<>]{1,200})@",
        "://",
    ),
)
EMAIL: Final = _rule(
    "email",
    r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])",
    "@",
)

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
    """

    def __init__(self, *, emails: bool = False, rules: Iterable[RedactionRule] = ()) -> None:
        self.rules = (*RULES, *((EMAIL,) if emails else ()), *rules)
        self._hints = (
            None
            if any(not rule.hints for rule in self.rules)
            else sorted({hint for rule in self.rules for hint in rule.hints})
        )

    def text(self, text: str, counts: Counter[str]) -> str:
        """Return a text without its secrets. Count them per rule."""
        for rule in self.rules:
            if not rule.may_match(text):
                continue
            parts, at = [], 0
            for start, end in rule.spans(text):
                parts += [text[at:start], f"[redacted:{rule.name}]"]
                at = end
                counts[rule.name] += 1
            if parts:
                text = "".join([*parts, text[at:]])
        return text

    def line(self, raw: bytes, counts: Counter[str], *, shape: LineShape = "entry") -> bytes:
        """Return a line, or a whole index, without its secrets. Count them per rule.

        The line end stays.
        """
        text = raw.decode("utf-8", "surrogateescape")
        if self._holds_none(text):
            return raw
        try:
            decode_object(
                text, values_max=ENTRY_BYTES_MAX if shape == "index" else ENTRY_VALUES_MAX
            )
        except DamagedLine:
            redacted = self.text(text, counts)
        else:
            redacted = self._object(text, counts, shape)
        return raw if redacted == text else redacted.encode("utf-8", "surrogateescape")

    def _holds_none(self, text: str) -> bool:
        """Return True if a line certainly holds no secret. Quick.

        It holds no hint, and no escape of an ASCII character that might hide one.
        """
        return (
            self._hints is not None
            and "\\u00" not in text
            and "\\/" not in text
            and not any(hint in text for hint in self._hints)
        )

    def _object(self, text: str, counts: Counter[str], shape: LineShape) -> str:
        """Replace string values of a valid JSON object in place."""
        parts: list[str] = []
        at = 0
        for start, end, path, key in _values(text):
            if _is_kept(shape, path, key):
                continue
            token = text[start:end]
            value: str = loads(token) if "\\" in token else token[1:-1]
            redacted = self.text(value, counts)
            if redacted != value:
                parts += [text[at:start], dumps(redacted)]
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
    rf"{REDACTED} from byte (?P<at>\d+): "
    r"(?P<counts>nothing|[a-z0-9_-]+ \d+(?:, [a-z0-9_-]+ \d+)*)(?:; |\Z)"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """The part of a record's note about redaction: where it began, and what was replaced."""

    from_byte: int
    counts: Counter[str]

    @property
    def is_by_hand(self) -> bool:
        """Whether the file was imported as it is, and a person had some of its entries redacted."""
        return self.counts.keys() == {BY_HAND}

    def __str__(self) -> str:
        found = (
            ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())) or "nothing"
        )
        return f"{REDACTED} from byte {self.from_byte}: {found}"


def mark_in(note: str | None) -> Mark | None:
    """Return the mark in a record's note, or None if the file was imported without a redactor."""
    match = _MARK.match(note or "")
    if match is None:
        return None
    counts: Counter[str] = Counter()
    for part in match["counts"].split(", ") if match["counts"] != "nothing" else ():
        name, _, count = part.rpartition(" ")
        counts[name] = int(count)
    return Mark(int(match["at"]), counts)


def without_mark(note: str | None) -> str:
    """Return a record's note without its mark."""
    return _MARK.sub("", note or "", count=1)


def counted(counts: Counter[str]) -> dict[str, int]:
    """Return counts per rule, in the order of their names, as a receipt shows them."""
    return dict(sorted(counts.items()))

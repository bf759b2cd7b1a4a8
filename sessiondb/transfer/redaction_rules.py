"""The rules of redaction: what a secret looks like, where the rules come from, how they match.

There are three kinds: the rules here, those of gitleaks, and a user's own. Those of gitleaks are
its file as it is (`gitleaks/gitleaks.toml`, MIT, commit b58d3f1 of July 2026). To renew them, put
a newer file in its place. The rules here come first. They cover what gitleaks leaves out, such as
a password in any URL, and are wider than it where a gateway has the token of a channel.

Patterns are RE2's, and RE2 matches them in a time that is linear in the text, whatever the pattern
is. So no rule needs an analysis, a user's neither. RE2 comes with the extra `redact`. Without it
there is no redaction, and no other engine stands in: it would know fewer rules, and a person who
asked for redaction would find out from a leak.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from sessiondb.errors import InvalidInput

KEY_BLOCK_BYTES_MAX: Final = 64 * 1024
RULES_MAX: Final = 100
RULES_FILE_BYTES_MAX: Final = 64 * 1024
PATTERN_CHARS_MAX: Final = 500

_LINE_BYTES_MAX: Final = 1_000  # that are looked at beside a match

FIRST_GROUP: Final = -1

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


# -- the engine ------------------------------------------------------------------------


def require_engine() -> Any:
    """Return RE2.

    Raises:
        InvalidInput: the extra `redact` is not installed.
    """
    try:
        import re2
    except ImportError as error:
        raise InvalidInput(
            "redaction matches its rules with RE2, which is not installed. Nothing was read or "
            "written. Install the extra: pip install 'sessiondb[redact]'"
        ) from error
    return re2


@cache
def compiled(pattern: str) -> Any:
    """Return a pattern, ready for use on bytes. Each is compiled once in a process.

    Raises:
        InvalidInput: it is no pattern of RE2's, or the extra `redact` is not installed.
    """
    re2 = require_engine()
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        why = error.args[0] if error.args else error
        why = why.decode(errors="replace") if isinstance(why, bytes) else why
        raise InvalidInput(f"{pattern!r} is not a regular expression of RE2: {why}") from error


# -- rules -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AllowedMatch:
    """Matches of a rule that are no secrets. Any pattern or word is enough."""

    patterns: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    """In the secret, in capitals or not."""
    of: Literal["secret", "match", "line"] = "secret"
    """What the patterns are searched in."""
    both: bool = False
    """A pattern and a word are needed."""

    def holds(self, secret: bytes, match: bytes, line: bytes) -> bool:
        """Tell whether a match is one of these."""
        looked_at = {"secret": secret, "match": match, "line": line}[self.of]
        by_pattern = any(compiled(one).search(looked_at) is not None for one in self.patterns)
        if by_pattern and not self.both:
            return True
        by_word = bool(self.words) and _any_of(self.words).search(secret.lower()) is not None
        return by_word and (by_pattern or not self.both)


@dataclass(frozen=True, slots=True)
class RedactionRule:
    """The shape of a kind of secret. The group `secret` is replaced, else the whole match."""

    name: str
    pattern: str
    """A regular expression of RE2. It sees the text as UTF-8."""
    hints: tuple[str, ...] = ()
    """Every match contains one of these small texts, in capitals or not.

    None given: the pattern is tried on every string."""
    ends_with: str | None = None
    """The secret goes from the pattern to this one, or for `KEY_BLOCK_BYTES_MAX` without it."""
    group: int | None = None
    """The group that is the secret, by number. -1: the first group that took part."""
    has_digit: bool = False
    """A secret without a digit is none."""
    entropy_min: float = 0.0
    """A secret has more bits of entropy per character than this."""
    allowed: tuple[AllowedMatch, ...] = ()

    def spans(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Yield where the secrets are, from left to right."""
        pattern = compiled(self.pattern)
        named = pattern.groupindex.get(b"secret", 0)
        at = 0
        while (match := pattern.search(text, at)) is not None:
            start, end = match.span(self._group_of(match, named))
            if self.ends_with is not None:
                limit = min(len(text), end + KEY_BLOCK_BYTES_MAX)
                last = compiled(self.ends_with).search(text, end, limit)
                end = last.end() if last is not None else _whole_character(text, limit)
            if end > start and self._is_secret(text, match, start, end):
                yield start, end
            # From the secret on: what ended it may be what the next one begins with.
            at = max(end, at + 1)

    def _group_of(self, match: Any, named: int) -> int:
        if self.group is None:
            return named
        if self.group != FIRST_GROUP:
            return self.group
        taking_part = (
            at for at in range(1, match.re.groups + 1) if match.end(at) > match.start(at)
        )
        return next(taking_part, 0)

    def _is_secret(self, text: bytes, match: Any, start: int, end: int) -> bool:
        secret = text[start:end]
        if self.has_digit and not any(48 <= byte <= 57 for byte in secret):
            return False
        if self.entropy_min and _entropy(secret) <= self.entropy_min:
            return False
        if not self.allowed:
            return True
        line = _line_around(text, match.start(), end)
        return not any(one.holds(secret, match.group(), line) for one in self.allowed)


def _line_around(text: bytes, start: int, end: int) -> bytes:
    """Return the line that a match is in, as much of it as is near."""
    low, high = max(0, start - _LINE_BYTES_MAX), end + _LINE_BYTES_MAX
    first, last = text.rfind(b"\n", low, start), text.find(b"\n", end, high)
    return text[low if first < 0 else first + 1 : high if last < 0 else last]


def _whole_character(text: bytes, at: int) -> int:
    """Return the place of the first character that begins there or behind."""
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return at


def _entropy(secret: bytes) -> float:
    """Return the bits of entropy per byte, by the frequencies in the secret itself."""
    shares = [count / len(secret) for count in Counter(secret).values()]
    return -sum(share * math.log2(share) for share in shares)


@cache
def _any_of(words: tuple[str, ...]) -> Any:
    return compiled("|".join(re.escape(word.lower()) for word in words))


# -- the rules here --------------------------------------------------------------------

_KEY_KIND = r"(?:[A-Z0-9]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----"
# What stands around a secret: no character that could be of the secret itself.
_BEHIND = r"(?:^|[^\w-])"
_BEFORE = r"(?:[^\w-]|$)"


def _rule(
    name: str, secret: str, *hints: str, before: str = "", has_digit: bool = False
) -> RedactionRule:
    """Return the rule of a token that begins like no other text."""
    return RedactionRule(name, f"{_BEHIND}(?P<secret>{secret}){before}", hints, has_digit=has_digit)


# Ordered: the more specific rule comes first.
RULES: Final[tuple[RedactionRule, ...]] = (
    RedactionRule(
        "private-key",
        rf"-----BEGIN {_KEY_KIND}",
        ("-----begin ",),
        ends_with=rf"-----END {_KEY_KIND}",
    ),
    _rule("anthropic-key", r"sk-ant-[\w-]{16,}", "sk-ant-"),
    _rule(
        "stripe-key",
        r"(?:(?:sk|rk)_(?:live|test)|whsec)_[A-Za-z0-9]{16,}",
        *("k_live_", "k_test_", "whsec_"),
    ),
    # OpenAI, and the many services that copied its form. A digit is required, because `sk-` also
    # begins ordinary names.
    _rule("sk-key", r"sk-[\w-]{20,}", "sk-", has_digit=True),
    RedactionRule(
        "aws-access-key",
        r"(?:^|[^A-Za-z0-9])(?P<secret>(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16})(?:[^A-Za-z0-9]|$)",
        ("akia", "asia", "abia", "acca"),
    ),
    RedactionRule(
        "aws-secret-key",
        r"(?i:secret_?access_?key|aws_?secret_?key)[\"'\\]{0,3}\s{0,3}[:=]\s{0,3}[\"'\\]{0,3}"
        r"(?P<secret>[A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)",
        ("secret",),
    ),
    RedactionRule(
        "github-token",
        r"(?:^|\W)(?P<secret>gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,})",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    _rule(
        "gitlab-token",
        r"gl(?:pat|dt|rt|ft|cbt)-[\w.-]{20,}",
        *("glpat-", "gldt-", "glrt-", "glft-", "glcbt-"),
    ),
    _rule("slack-token", r"(?:xox[abeoprs]|xapp)-[A-Za-z0-9-]{10,}", "xox", "xapp-"),
    RedactionRule(
        "slack-webhook",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<secret>[\w/-]{20,})",
        ("hooks.slack.com/",),
    ),
    # The first part is a number in base64, which begins in one of nine ways.
    _rule(
        "discord-token",
        r"(?:M[Tjz]|N[DTjz]|O[DT])[\w-]{22,26}\.[\w-]{6}\.[\w-]{27,45}",
        ".",
        before=_BEFORE,
    ),
    RedactionRule(
        "discord-webhook",
        r"discord(?:app)?\.com/api/webhooks/\d{15,25}/(?P<secret>[\w-]{30,})",
        ("/api/webhooks/",),
    ),
    RedactionRule(
        "telegram-token",
        rf"(?:^|[^A-Za-z0-9])(?:bot)?(?P<secret>[0-9]{{8,12}}:AA[\w-]{{33}}){_BEFORE}",
        (":aa",),
    ),
    _rule("google-key", r"AIza[\w-]{35}", "aiza", before=_BEFORE),
    _rule("google-token", r"ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}", "ya29.", "gocspx-"),
    RedactionRule(
        "huggingface-token", r"(?:^|\W)(?P<secret>hf_[A-Za-z0-9]{30,60})(?:\W|$)", ("hf_",)
    ),
    _rule(
        "model-key",
        r"gsk_[A-Za-z0-9]{40,}|xai-[A-Za-z0-9]{60,}|pplx-[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{37,}",
        *("gsk_", "xai-", "pplx-", "r8_"),
    ),
    RedactionRule("npm-token", r"(?:^|\W)(?P<secret>npm_[A-Za-z0-9]{36})(?:\W|$)", ("npm_",)),
    _rule("pypi-token", r"pypi-AgE[\w-]{50,}", "pypi-age"),
    RedactionRule(
        "sendgrid-key",
        r"(?:^|[^\w.-])(?P<secret>SG\.[\w-]{16,32}\.[\w-]{16,64})",
        ("sg.",),
    ),
    _rule("jwt", r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*", "eyj"),
    RedactionRule(
        "authorization",
        r"(?:^|[^A-Za-z])(?i:bearer|basic)[ \t]{1,3}(?P<secret>[\w.~+/=-]{16,})",
        ("bearer ", "bearer\t", "basic ", "basic\t"),
        has_digit=True,
    ),
    # Up to the last @ of the authority, because what was percent-encoded may be one itself.
    RedactionRule(
        "url-password",
        r"://[^\s/?#:@\"'<>\[\]]{0,100}:(?P<secret>[^\s/?#\"'<>]{1,200})@",
        ("://",),
    ),
)
EMAIL: Final = RedactionRule(
    "email",
    r"(?:^|[^\w.%+-])(?P<secret>[\w.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})"
    rf"{_BEFORE}",
    ("@",),
)


# -- the rules of gitleaks -------------------------------------------------------------

# gitleaks reads source code. In a transcript a secret also ends at the next part of a URL, at a
# bracket, and at a letter that is not ASCII.
_END_IN_CODE: Final = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
_END_IN_TEXT: Final = r"""(?:[\x60'"\s;,&<>)\]}|\\]|[^\x00-\x7f]|$)"""
# Of several commands in one line gitleaks names the last password, which is enough for a report.
_CURL: Final = (
    r"\bcurl\b(?:.*|.*(?:[\r\n]{1,2}.*){1,5})",
    r"\bcurl\b(?:.*?|.*?(?:[\r\n]{1,2}.*?){1,5})",
)
# Their groups are a part of the secret.
_WHOLE: Final = frozenset({"jwt-base64", "microsoft-teams-webhook"})


@cache
def gitleaks_rules() -> tuple[RedactionRule, ...]:
    """Return the rules of gitleaks, in the order of its file.

    A transcript has no path, so a rule for files of one kind is tried on every text.
    """
    text = resources.files(__package__).joinpath("gitleaks", "gitleaks.toml").read_text("utf-8")
    config = tomllib.loads(text)
    everywhere = _allowed(config["allowlist"])
    return tuple(
        RedactionRule(
            rule["id"],
            rule["regex"].replace(_END_IN_CODE, _END_IN_TEXT).replace(*_CURL),
            tuple(rule["keywords"]),
            group=0 if rule["id"] in _WHOLE else rule.get("secretGroup", FIRST_GROUP),
            entropy_min=rule.get("entropy", 0.0),
            allowed=(
                *everywhere,
                *(found for one in rule.get("allowlists", ()) for found in _allowed(one)),
            ),
        )
        for rule in config["rules"]
        if "regex" in rule  # one only names files
    )


def _allowed(listed: dict[str, Any]) -> tuple[AllowedMatch, ...]:
    both = listed.get("condition") == "AND"
    patterns, words = tuple(listed.get("regexes", ())), tuple(listed.get("stopwords", ()))
    needs_path = both and "paths" in listed
    if needs_path or not (patterns or words):
        return ()
    target = listed.get("regexTarget", "secret")
    return (AllowedMatch(patterns, words, target, both and bool(patterns and words)),)


# -- a user's own ----------------------------------------------------------------------


def read_rules(path: str | Path) -> tuple[RedactionRule, ...]:
    """Read rules from a file, one a line: `name = regular expression`.

    Empty lines and lines that begin with # are ignored.

    Raises:
        InvalidInput: the file cannot be read, or a line is not a rule. Names the line.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(RULES_FILE_BYTES_MAX + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path}: the rules cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if len(content) > RULES_FILE_BYTES_MAX:
        raise InvalidInput(f"{path}: more than {RULES_FILE_BYTES_MAX:,} bytes of rules")
    taken = {rule.name for rule in (*RULES, EMAIL, *gitleaks_rules())}
    rules: dict[str, RedactionRule] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, separator, pattern = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if not separator:
                raise InvalidInput("a rule is `name = regular expression`")
            if name in rules or name in taken:
                raise InvalidInput(f"there is a rule {name} already; give this one another name")
            rules[name] = rule_from(name, pattern)
        except InvalidInput as error:
            raise InvalidInput(
                f"{path}, line {number}: {error}", path=str(path), line=number
            ) from error
    if len(rules) > RULES_MAX:
        raise InvalidInput(f"{path}: {len(rules)} rules; at most {RULES_MAX} are read")
    return tuple(rules.values())


def rule_from(name: str, pattern: str) -> RedactionRule:
    """Return a rule made from a regular expression of RE2.

    Raises:
        InvalidInput: the name or the expression is invalid, or the extra `redact` is missing.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name[:60]!r} is not a name for a rule: up to 40 small letters, digits, - and _"
        )
    if not pattern or len(pattern) > PATTERN_CHARS_MAX:
        raise InvalidInput(
            f"rule {name}: its expression has {len(pattern):,} characters; "
            f"1 to {PATTERN_CHARS_MAX} are allowed"
        )
    try:
        matches_nothing = compiled(pattern).search(b"") is not None
    except InvalidInput as error:
        raise InvalidInput(
            f"rule {name}: {error}. RE2 has no references to groups, and looks neither ahead nor "
            "behind; name the part that is the secret instead: (?P<secret>...)"
        ) from error
    if matches_nothing:
        raise InvalidInput(f"rule {name}: {pattern!r} matches the empty text, and so everywhere")
    return RedactionRule(name, pattern)

"""A user's own rules for redaction: read from a file, and refused if some text could make one slow.

A rule repeats nothing without a bound, and no group that can itself match in several ways. So
each character of a text costs a bounded number of steps. The check is stricter than it need be,
so that it is simple: what it does not understand is refused.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sessiondb.errors import InvalidInput

from .redaction import EMAIL, RULES, RedactionRule, Redactor

RULES_MAX: Final = 100
RULES_FILE_BYTES_MAX: Final = 64 * 1024
PATTERN_CHARS_MAX: Final = 500
# Of a user's rule: how often one part may repeat, how long a match may be, and in how many ways
# a match may be divided among the parts.
REPEATS_MAX: Final = 1_000
WIDTH_MAX: Final = 10_000
WAYS_MAX: Final = 10_000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


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
    rules: dict[str, RedactionRule] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, separator, pattern = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if not separator:
                raise InvalidInput("a rule is `name = regular expression`")
            if name in rules or any(name == rule.name for rule in (*RULES, EMAIL)):
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
    """Return a rule made from a regular expression, if no text can make it slow.

    Raises:
        InvalidInput: the name or the expression is invalid, or some text could make it slow.
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
        with warnings.catch_warnings():
            # An expression whose meaning will change one day is a mistake today.
            warnings.simplefilter("error")
            compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError, FutureWarning, DeprecationWarning) as error:
        raise InvalidInput(
            f"rule {name}: {pattern!r} is not a regular expression: {error}"
        ) from error
    if compiled.search("") is not None:
        raise InvalidInput(f"rule {name}: {pattern!r} matches the empty text, and so everywhere")
    if (reason := why_slow(pattern)) is not None:
        raise InvalidInput(f"rule {name}: {reason}; a long line could keep it busy for hours")
    return RedactionRule(name, compiled)


@dataclass(slots=True)
class _Group:
    """A group of an expression that is being read."""

    width: int = 0
    """How long its match may be."""
    varies: bool = False
    """Whether it can match one text in several ways."""


_QUANTIFIER = re.compile(r"(?:(?P<sign>[*+?])|\{(?P<low>\d*)(?:(?P<comma>,)(?P<high>\d*))?\})[?+]?")
_OPENING = re.compile(r"\((?:\?(?:[:=!]|<[=!]|P<\w+>|[aimsu]+[:)]))?")
_ESCAPE = re.compile(r"\\(?:[^\d\nNgk]|0)", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)


def why_slow(pattern: str) -> str | None:
    """Return why a valid expression might be slow on some text, or None if it is never slow."""
    groups, last, at, ways = [_Group()], _Group(), 0, 1
    while at < len(pattern):
        repeat = _QUANTIFIER.match(pattern, at)
        if repeat is not None and (repeat["sign"] or repeat["low"] or repeat["high"]):
            low, high = _bounds(repeat)
            if high is None:
                return f"`{repeat[0]}` repeats without an end; give it one, such as {{1,200}}"
            if high > REPEATS_MAX:
                return f"`{repeat[0]}` repeats more than {REPEATS_MAX:,} times"
            if high > 1 and last.varies:
                return (
                    f"`{repeat[0]}` repeats a group that can itself match in several ways; "
                    "repeat a class of characters instead"
                )
            groups[-1].width += last.width * (max(high, 1) - 1)
            groups[-1].varies |= low != high
            ways *= high - low + 1
            at = repeat.end()
        elif pattern[at] == ")":
            last = groups.pop()
            groups[-1].width += last.width
            groups[-1].varies |= last.varies
            at += 1
        elif pattern[at] == "(":
            opening = _OPENING.match(pattern, at)
            if opening is None or pattern.startswith("(?", at) == (opening[0] == "("):
                return f"{pattern[at : at + 4]!r} is not allowed here"
            if not opening[0].endswith(")"):
                groups.append(_Group())
            at = opening.end()
        elif pattern[at] == "|":
            groups[-1].varies = True
            ways *= 2
            at += 1
        else:
            unit = _CLASS.match(pattern, at) or _ESCAPE.match(pattern, at)
            if unit is None and pattern[at] in "\\[":
                return f"{pattern[at : at + 3]!r} is not allowed here"
            last = _Group(width=1)
            groups[-1].width += 1
            at = unit.end() if unit is not None else at + 1
        if groups[-1].width > WIDTH_MAX or ways > WAYS_MAX:
            return "its repetitions multiply to too much; give them smaller bounds"
    return None


def _bounds(repeat: re.Match[str]) -> tuple[int, int | None]:
    """Return how often a quantifier repeats, at least and at most (None: without an end)."""
    if repeat["sign"] is not None:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[repeat["sign"]]
    low = int(repeat["low"] or 0)
    if repeat["comma"] is None:
        return low, low
    return low, int(repeat["high"]) if repeat["high"] else None


def redactor_from(*, emails: bool = False, rules_file: str | Path | None = None) -> Redactor:
    """Return a redactor with the built-in rules and the rules of a file (`read_rules`)."""
    return Redactor(emails=emails, rules=read_rules(rules_file) if rules_file is not None else ())

"""A user's own rule is accepted if no text can make it slow, and refused with a reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessiondb.errors import InvalidInput
from sessiondb.transfer import redaction, redaction_rules
from sessiondb.transfer.redaction import EMAIL, RULES, Redactor
from sessiondb.transfer.redaction_rules import (
    read_rules,
    redactor_from,
    rule_from,
    why_slow,
)
from tests.support.redaction import (
    EXAMPLES_MAX,
    redacted,
)


@pytest.mark.parametrize("rule", [*RULES, EMAIL], ids=lambda rule: rule.name)
def test_no_built_in_rule_repeats_without_a_bound(
    rule: redaction.Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These limits are for rules that nobody has measured.
    for limit in ("REPEATS_MAX", "WIDTH_MAX", "WAYS_MAX"):
        monkeypatch.setattr(redaction_rules, limit, 10**12)
    reason = why_slow(rule.pattern.pattern)
    # Two rules repeat a group that ends in a character which the rest of it cannot be. So there is
    # one way to match a text, which the check does not see.
    repeats = {"email": "`{1,8}` repeats a group", "private-key": "`{0,4}` repeats a group"}
    assert reason is None or reason.startswith(repeats.get(rule.name, "nothing"))


@pytest.mark.parametrize(
    "pattern",
    [
        r"corp-[0-9]{6}",
        r"(?i)ticket[ #]{0,2}(?P<secret>\d{4,10})",
        r"\b(?:[0-9a-f]{2}:){15}[0-9a-f]{2}\b",
        r"(?<![A-Z])[A-Z]{2}\d{2}[ ]?(?:\d{4} ){3}\d{4}",
        r"[]x]{1,3}\]\[\{a{b",
        r"a{,3}b{2}c++"[:-2] + "d",
        r"(?:red|green|blue)-key-\w{10}",
        r"\x41\u00e9é[\d\-]{3}",
    ],
)
def test_a_rule_that_is_bounded_is_accepted(pattern: str) -> None:
    assert rule_from("mine", pattern).pattern.pattern == pattern


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(a+)+$", "without an end"),
        (r"\w+@corp", "without an end"),
        (r"a{3,}", "without an end"),
        (r"a*+b", "without an end"),
        (r"(?:a{1,9}){1,9}b", "several ways"),
        (r"(?:a|ab){2,9}c", "several ways"),
        (r"(?:(?:a?){9})b", "several ways"),
        (r"a{1,5000}", "more than 1,000 times"),
        (r"a{1,900}b{1,900}c", "multiply"),
        (r"(?:(?:a{900}){900}){900}", "multiply"),
        (r"(a)\1", "not allowed"),
        (r"(?P<x>a)(?P=x)", "not allowed"),
        (r"(a)?(?(1)b|c)", "not allowed"),
        (r"(?x) a b # c", "not allowed"),
        (r"(?#no+te)a", "not allowed"),
        (r"\N{DIGIT ONE}+", "not allowed"),
        (r"(", "not a regular expression"),
        (r"a{0,3}", "matches the empty text"),
        (r"", "0 characters"),
        ("a" * 501, "501 characters"),
    ],
)
def test_a_rule_that_could_be_slow_is_refused_with_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(reason)):
        rule_from("mine", pattern)


@pytest.mark.parametrize(
    ("at_most", "above"),
    [
        (r"a{1000}", r"a{1001}"),
        # How long a match may be: 10,000 characters.
        (r"(?:a{1000}){10}", r"(?:a{1000}){10}b"),
        (r"(?:a{999}b){10}", r"(?:a{999}bc){10}"),
        (r"(?:(?:a{10}){10}){100}", r"(?:(?:a{10}){10}){101}"),
        (r"(?:a{998}[bc]\.){10}", r"(?:a{999}[bc]\.){10}"),
        # In how many ways it may be divided: 10,000.
        (r"a{1,100}b{1,100}", r"a{1,100}b{1,101}"),
        (r"a{1,100}b{1,50}(?:c|d)", r"a{1,100}b{1,50}(?:c|d|e)"),
        (r"a{1,1000}b{1,5}c?d", r"a{1,1000}b{1,5}c?d?e"),
        (r"a{,99}b{1,100}c", r"a{,100}b{1,100}c"),
    ],
)
def test_a_rule_may_be_as_large_as_its_bounds_and_no_larger(at_most: str, above: str) -> None:
    assert why_slow(at_most) is None
    assert why_slow(above) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?:(?:a|b)c){2}",
        r"(?:x(?:a?b)){2}",
        r"(?:(?:ab){1,2}c){3}",
        r"(?:(?:(?:a|b))){2}",
    ],
)
def test_a_group_varies_if_one_within_it_does(pattern: str) -> None:
    assert "in several ways" in str(why_slow(pattern))


def test_the_rules_are_the_built_in_ones_unless_more_are_asked_for(tmp_path: Path) -> None:
    text = "me@example.org knows STAFF-1"
    file = tmp_path / "rules"
    file.write_text("staff = STAFF-[0-9]", encoding="utf-8")
    assert redacted(text, redactor_from()) == (text, {})
    assert redacted(text, redactor_from(emails=True)) == (
        "[redacted:email] knows STAFF-1",
        {"email": 1},
    )
    assert redacted(text, redactor_from(rules_file=file)) == (
        "me@example.org knows [redacted:staff]",
        {"staff": 1},
    )


@settings(max_examples=EXAMPLES_MAX)
@given(st.text(alphabet="ab(|)[]{},0123456789*+?\\^$.:=!<>Pd-", max_size=24))
def test_an_accepted_expression_ends_on_a_hostile_text(
    pattern: str,
) -> None:
    try:
        rule = rule_from("mine", pattern)
    except InvalidInput:
        return
    for text in ("a" * 300, "ab" * 150, "0,0" * 100):
        list(rule.spans(text))


def test_rules_are_read_from_a_file_and_mistakes_named(tmp_path: Path) -> None:
    file = tmp_path / "rules"
    file.write_text(
        "# ours\n\nstaff-id = STAFF-[0-9]{6}\nticket=T(?P<secret>[0-9]{4})\n", encoding="utf-8"
    )
    rules = read_rules(file)
    assert [rule.name for rule in rules] == ["staff-id", "ticket"]
    assert redacted("STAFF-123456 T1234", Redactor(rules=rules)) == (
        "[redacted:staff-id] T[redacted:ticket]",
        {"staff-id": 1, "ticket": 1},
    )
    for content, reason in {
        "fine = abc\nno rule at all\n": "line 2: a rule is `name = regular expression`",
        "Loud = abc": "line 1: 'Loud' is not a name for a rule",
        "one = abc\none = def": "line 2: there is a rule one already",
        "jwt = abc": "line 1: there is a rule jwt already",
        "slow = (a+)+": "line 1: rule slow: `+` repeats without an end",
        "\n".join(f"r{number} = abc" for number in range(101)): "101 rules; at most 100",
        "#" * 70_000: "more than 65,536 bytes",
    }.items():
        file.write_text(content, encoding="utf-8")
        with pytest.raises(InvalidInput, match=re.escape(reason)):
            read_rules(file)
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_rules(file)

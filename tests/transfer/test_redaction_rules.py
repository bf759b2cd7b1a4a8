"""Rules are those here, those of gitleaks and a user's own, which RE2 matches."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("re2", reason="the extra `redact` is not installed")

from sessiondb.cli.program import program
from sessiondb.errors import InvalidInput
from sessiondb.transfer import redaction_rules
from sessiondb.transfer.redaction import Redactor, redactor_from
from sessiondb.transfer.redaction_rules import gitleaks_rules, read_rules, rule_from
from tests.support.redaction import made, redacted


@pytest.mark.parametrize(
    "pattern",
    [
        r"corp-[0-9]{6}",
        r"(?i)ticket[ #]{0,2}(?P<secret>\d{4,10})",
        r"\b(?:[0-9a-f]{2}:){15}[0-9a-f]{2}\b",
        r"(?:red|green|blue)-key-\w{10}",
        # An engine that goes back would read a long text for hours with these.
        r"(a+)+$",
        r"(?:a|aa)+b",
        r"\w+@corp",
    ],
)
def test_a_rule_may_be_any_expression_of_re2(pattern: str) -> None:
    rule = rule_from("mine", pattern)
    assert rule.pattern == pattern
    list(rule.spans(b"a" * 100_000))


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"(a)\1", "RE2 has no references to groups"),
        (r"(?<!x)a", "looks neither ahead nor behind"),
        (r"a(?=b)", "(?P<secret>...)"),
        (r"(", "is not a regular expression of RE2: missing )"),
        (r"a{0,3}", "matches the empty text"),
        (r"", "0 characters"),
        ("a" * 501, "501 characters"),
        (r"(?:(?:a{900}){900}){900}", "invalid repetition size"),
        ("\udc80", "is not a regular expression of RE2"),
    ],
)
def test_another_expression_is_refused_with_a_reason(pattern: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(reason)):
        rule_from("mine", pattern)


# -- gitleaks --------------------------------------------------------------------------------------


def test_every_rule_of_gitleaks_that_has_a_pattern_is_used() -> None:
    folder = Path(redaction_rules.__file__).parent / "gitleaks"
    config = tomllib.loads((folder / "gitleaks.toml").read_text("utf-8"))
    rules = gitleaks_rules()
    assert [rule.name for rule in rules] == [
        rule["id"] for rule in config["rules"] if "regex" in rule
    ]
    assert len(rules) > 200
    for rule in rules:
        redaction_rules.compiled(rule.pattern)
        assert rule.hints
        assert all(hint == hint.lower() for hint in rule.hints)
        for allowed in rule.allowed:
            assert not allowed.holds(b"\x00", b"\x00", b"\x00"), rule.name
    assert "MIT License" in (folder / "LICENSE").read_text("utf-8")


def test_what_gitleaks_allows_is_no_secret() -> None:
    made_up = made("x", 16)
    for text, found in {
        f'api_key = "{made_up}"': {"generic-api-key": 1},
        'api_key = "aaaaaaaaaaaaaaaa"': {},  # too little entropy
        'api_key = "readTheSecretHere"': {},  # a word
        f'primary_key = "{made_up}"': {},  # by what stands before it
        f"RUN --mount=type=secret,id=token token={made_up}": {},  # by its line
        f"RUN ls\ntoken={made_up}\n--mount=type=secret,": {"generic-api-key": 1},
    }.items():
        assert redacted(text, Redactor())[1] == found, text


def test_a_match_in_a_line_without_end_is_looked_at_nearby() -> None:
    made_up = made("x", 16)
    far = "--mount=type=secret," + " " * 5_000 + f"token={made_up}"
    assert redacted(far, Redactor())[1] == {"generic-api-key": 1}


# -- without the engine ----------------------------------------------------------------------------


def test_without_re2_nothing_is_redacted_and_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(InvalidInput, match=re.escape("pip install 'sessiondb[redact]'")):
        Redactor()
    (tmp_path / "in.jsonl").write_bytes(b"{}\n")
    for command in (
        ("import", tmp_path / "g.db", tmp_path / "in.jsonl", "--redact"),
        ("export", tmp_path / "g.db", tmp_path / "out", "--redact"),
    ):
        result = CliRunner().invoke(program, [str(one) for one in command], prog_name="sessiondb")
        assert (result.exit_code, "sessiondb[redact]" in result.output) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# -- rules from a file -----------------------------------------------------------------------------


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
        "github-pat = abc": "line 1: there is a rule github-pat already",
        "ahead = a(?=b)": "line 1: rule ahead: 'a(?=b)' is not a regular expression",
        "\n".join(f"r{number} = abc" for number in range(101)): "101 rules; at most 100",
        "#" * 70_000: "more than 65,536 bytes",
    }.items():
        file.write_text(content, encoding="utf-8")
        with pytest.raises(InvalidInput, match=re.escape(reason)):
            read_rules(file)
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_rules(file)

"""Redaction: what is taken out, what is never touched, what no text can do to it, and that nothing of it stays behind.

No secret in this file is one: they are made up when the tests run, so that no scanner of repositories stumbles over them.
`leaks` looks for them in every byte of a database's files, free pages and WAL included.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb.cli.program import program
from sessiondb.errors import InvalidInput
from sessiondb.transfer import import_packs, importer, jsonl_reader, redaction, redaction_rules
from sessiondb.transfer.redaction import (
    EMAIL,
    RULES,
    Mark,
    Redactor,
    mark_in,
    without_mark,
)
from sessiondb.transfer.redaction_rules import read_rules, rule_from, why_slow
from tests.support.transfer import by_name, header, message, write

# The long run (`make fuzz`) sets this in the environment.
EXAMPLES_MAX = int(os.environ.get("SESSIONDB_REDACTION_EXAMPLES", "40"))

_random = random.Random(20261120)
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789"


def made(prefix: str, count: int, alphabet: str = ALPHABET) -> str:
    """Return something with the shape of a secret: a prefix, and random characters with a digit among them."""
    return prefix + "".join(_random.choices(alphabet, k=count - 1)) + "7"


def key_block(kind: str = "RSA PRIVATE KEY") -> str:
    return f"-----BEGIN {kind}-----\n{made('MIIE', 60)}\n{made('', 64)}\n-----END {kind}-----"


JWT = ".".join([made("eyJ", 30), made("eyJ", 60), made("", 43)])
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
SECRETS: dict[str, list[str]] = {
    "private-key": [
        key_block(),
        key_block("PRIVATE KEY"),
        key_block("OPENSSH PRIVATE KEY"),
        key_block("PGP PRIVATE KEY BLOCK"),
    ],
    "anthropic-key": [made("sk-ant-api03-", 90)],
    "stripe-key": [made("sk_live_", 24), made("rk_test_", 40), made("whsec_", 32)],
    "sk-key": [made("sk-", 48), made("sk-proj-", 120), made("sk-or-v1-", 64)],
    "aws-access-key": [made("AKIA", 16, CAPITALS), made("ASIA", 16, CAPITALS)],
    "github-token": [made("ghp_", 36), made("gho_", 36), made("github_pat_", 82)],
    "gitlab-token": [made("glpat-", 20)],
    "slack-token": [made("xoxb-", 50), made("xapp-", 60)],
    "discord-token": [
        f"{made('MT', 24)}.{made('', 6)}.{made('', 38)}",
        f"{made('OD', 22)}.{made('', 6)}.{made('', 27)}",
    ],
    "google-key": [made("AIza", 35)],
    "google-token": [made("ya29.", 120), made("GOCSPX-", 28)],
    "huggingface-token": [made("hf_", 34)],
    "model-key": [made("gsk_", 52), made("xai-", 80), made("pplx-", 48), made("r8_", 37)],
    "npm-token": [made("npm_", 36)],
    "pypi-token": [made("pypi-AgEIcHlwaS5vcmc", 120)],
    "sendgrid-key": [f"{made('SG.', 22)}.{made('', 43)}"],
    "jwt": [JWT],
    "email": ["jo.doe+x@mail.example.com"],
}
# Where only a part is the secret: before it, the secret, behind it.
PARTS: dict[str, list[tuple[str, str, str]]] = {
    "aws-secret-key": [
        ("aws_secret_access_key = ", made("", 40), "\n"),
        ('"SecretAccessKey": "', made("", 40), '"'),
    ],
    "authorization": [
        ("Authorization: Bearer ", made("", 40), "\r\n"),
        ("-u 'Basic ", made("", 30) + "==", "'"),
    ],
    "url-password": [
        ("postgres://app:", "p%40ss-w0rd", "@db.example:5432/x"),
        ("redis://:", "hunter2", "@cache/0"),
    ],
    "telegram-token": [
        ("https://api.telegram.org/bot", f"123456789:{made('AA', 33)}", "/sendMessage"),
        ("", f"98765432:{made('AA', 33)}", ""),
    ],
    "slack-webhook": [("https://hooks.slack.com/services/", made("T0123/B0456/", 24), "")],
    "discord-webhook": [
        ("https://discord.com/api/webhooks/123456789012345678/", made("", 68), "?wait=true")
    ],
}
INNOCENT = [
    "the sk-learn-based-circle-of-delayed-animations is a name",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "a bearer of good and long-awaited-tidings-from-afar",
    "AKIA is a prefix, AKIATOOSHORT7 is too short, and XAKIAABCDEFGHIJKLMNOP is a part of something",
    "https://example.com:8080/path?at=12:30@home",
    "git@github.com is an address, eyJ is not a token, and neither is eyJabc.eyJdef",
    "0123456789abcdef0123456789abcdef01234567",
    "ghp_short, hf_model, npm_config_registry, gsk_kernel",
    "12:AA and 10:30:AAA",
]
WHOLE = Redactor(emails=True)


def redacted(text: str, redactor: Redactor = WHOLE) -> tuple[str, dict[str, int]]:
    counts: Counter[str] = Counter()
    return redactor.text(text, counts), dict(counts)


# -- rules ----------------------------------------------------------------------------------------------------------


def test_every_rule_has_an_example_here() -> None:
    assert {rule.name for rule in (*RULES, EMAIL)} == SECRETS.keys() | PARTS.keys()


@pytest.mark.parametrize(
    ("name", "secret"), [(name, secret) for name, some in SECRETS.items() for secret in some]
)
@pytest.mark.parametrize(
    "around",
    [
        ("", ""),
        ("x = ", ";"),
        ('"', '"'),
        ("密钥", "。"),
        ("\n", "\r\n"),
        ("(", ")"),
        ("KEY=", "\n"),
    ],
)
def test_a_secret_is_replaced_whole_and_what_is_around_it_stays(
    name: str, secret: str, around: tuple[str, str]
) -> None:
    before, behind = around
    assert redacted(f"{before}{secret}{behind}") == (
        f"{before}[redacted:{name}]{behind}",
        {name: 1},
    )


@pytest.mark.parametrize(
    ("name", "parts"), [(name, parts) for name, some in PARTS.items() for parts in some]
)
def test_where_a_secret_is_a_part_of_something_only_that_part_goes(
    name: str, parts: tuple[str, str, str]
) -> None:
    before, _, behind = parts
    assert redacted("".join(parts)) == (f"{before}[redacted:{name}]{behind}", {name: 1})


@pytest.mark.parametrize("text", INNOCENT)
def test_what_only_looks_alike_is_left_alone(text: str) -> None:
    assert redacted(text, Redactor()) == (text, {})


def test_addresses_are_left_alone_unless_they_are_asked_for() -> None:
    assert redacted("jo@example.com", Redactor()) == ("jo@example.com", {})


def test_a_key_block_that_is_cut_off_is_replaced_to_the_end_and_a_far_end_takes_no_more_than_the_longest_key() -> (
    None
):
    assert (
        redacted("it is -----BEGIN EC PRIVATE KEY-----\nMHcC")[0] == "it is [redacted:private-key]"
    )
    far = (
        "-----BEGIN PRIVATE KEY-----"
        + "x " * redaction.KEY_BLOCK_CHARS_MAX
        + "-----END PRIVATE KEY-----"
    )
    text, counts = redacted(far)
    assert counts == {"private-key": 1}
    assert text.endswith("-----END PRIVATE KEY-----")


def test_several_secrets_of_several_kinds_are_counted_by_rule() -> None:
    one, two = SECRETS["github-token"][0], SECRETS["aws-access-key"][0]
    assert redacted(f"{one} {two} {one}")[1] == {"github-token": 2, "aws-access-key": 1}


EXAMPLES = [secret for some in SECRETS.values() for secret in some] + [
    "".join(parts) for some in PARTS.values() for parts in some
]


@settings(max_examples=EXAMPLES_MAX)
@given(st.lists(st.sampled_from([*EXAMPLES, *INNOCENT])))
def test_what_was_redacted_once_is_not_redacted_again(texts: list[str]) -> None:
    once, _ = redacted(" ".join(texts))
    assert redacted(once) == (once, {})


# -- no text is slow ------------------------------------------------------------------------------------------------

# Texts that begin a match over and over, or nearly match for as long as they last.
HOSTILE = [
    *(
        "a",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "-----END ",
        "A ",
        "sk-",
        "sk-ant-",
        "AKIA",
        "eyJ",
        "eyJaaaaaaaaa.",
        ".eyJ",
    ),
    *(
        "://",
        "://a:",
        "://:",
        "Bearer ",
        "Bearer a",
        "Basic a/",
        "MT",
        "MTaaaaaaaaaaaaaaaaaaaaaaaa.",
        "a@",
        "a.",
        "a@a.",
        "@",
        "@a.",
    ),
    *(
        "hooks.slack.com/services/",
        ":AA",
        "1:AA",
        "1",
        "secret_access_key=",
        "secretaccesskey ",
        "ghp_",
        "glpat-",
        "xoxb-",
        "AIza",
    ),
    *("SG.", "/api/webhooks/1", "pypi-AgE", "\\", "hf_", "github_pat_", "_", "-", "\\u0041", '\\"'),
]


def cpu_ratio(run: Callable[[int], object], small: int, factor: int) -> float:
    """Return how many times as much CPU a text takes that is `factor` times as long; the best of several tries."""

    def cost(size: int) -> float:
        begun = time.thread_time()
        run(size)
        return time.thread_time() - begun

    return min(cost(small * factor) / max(cost(small), 1e-4) for _ in range(3))


@pytest.mark.parametrize("unit", HOSTILE)
def test_the_cost_of_a_hostile_text_grows_with_its_length_and_not_faster(unit: str) -> None:
    def run(size: int) -> str:
        return redacted(unit * (size // len(unit)))[0]

    # Eight times the text: linear is 8, quadratic 64.
    assert cpu_ratio(run, 6_000, 8) < 30


def test_a_rule_that_is_not_linear_would_be_noticed_by_that_measure() -> None:
    slow = re.compile(r"a+b")
    assert cpu_ratio(lambda size: slow.search("a" * size), 1_000, 8) > 30


@pytest.mark.parametrize("rule", [*RULES, EMAIL], ids=lambda rule: rule.name)
def test_no_built_in_rule_repeats_without_a_bound(
    rule: redaction.Rule, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in (
        "REPEATS_MAX",
        "WIDTH_MAX",
        "WAYS_MAX",
    ):  # these are for those who did not measure
        monkeypatch.setattr(redaction_rules, limit, 10**12)
    assert why_slow(rule.pattern.pattern) in (None, reason_of_a_group_with_separator(rule.name))


def reason_of_a_group_with_separator(name: str) -> str | None:
    """Two rules repeat a group that ends in a character which the rest of it cannot be: there is one way to match those."""
    return {
        "email": "`{1,8}` repeats a group that can itself match in several ways; repeat a class of characters instead",
        "private-key": "`{0,4}` repeats a group that can itself match in several ways; repeat a class of characters instead",
    }.get(name)


# -- a user's own rules ---------------------------------------------------------------------------------------------


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
def test_a_rule_that_some_text_could_make_slow_is_refused_with_its_reason(
    pattern: str, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(reason)):
        rule_from("mine", pattern)


@settings(max_examples=EXAMPLES_MAX)
@given(st.text(alphabet="ab(|)[]{},0123456789*+?\\^$.:=!<>Pd-", max_size=24))
def test_whatever_the_expression_it_is_accepted_or_refused_and_an_accepted_one_ends_on_a_hostile_text(
    pattern: str,
) -> None:
    try:
        rule = rule_from("mine", pattern)
    except InvalidInput:
        return
    for text in ("a" * 300, "ab" * 150, "0,0" * 100):
        list(rule.spans(text))


def test_rules_are_read_from_a_file_and_mistakes_are_named_with_their_line(tmp_path: Path) -> None:
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


# -- lines ----------------------------------------------------------------------------------------------------------

KEY = SECRETS["anthropic-key"][0]


def line(value: Any, redactor: Redactor = WHOLE, **dump: Any) -> Any:
    """Redact a value as a line; return it decoded."""
    return json.loads(redactor.line(json.dumps(value, **dump).encode(), Counter()))


def test_ids_types_and_signatures_are_never_changed_and_in_a_tools_arguments_the_same_names_mean_nothing() -> (
    None
):
    arguments = {"id": KEY, "type": KEY, "list": [KEY, {"name": KEY}]}
    block = {
        "type": "toolCall",
        "id": KEY,
        "name": KEY,
        "thoughtSignature": KEY,
        "arguments": arguments,
    }
    entry = {
        "type": "message",
        "id": KEY,
        "parentId": KEY,
        "timestamp": KEY,
        "cwd": KEY,
        "message": {
            "role": "assistant",
            "model": KEY,
            "content": [block, KEY, {"type": "image", "data": KEY}],
            "id": KEY,
            "error": KEY,
        },
    }
    found = line(entry)
    mark = "[redacted:anthropic-key]"
    changed = {"type": "toolCall", "id": KEY, "name": KEY, "thoughtSignature": KEY}
    changed |= {"arguments": {"id": mark, "type": mark, "list": [mark, {"name": mark}]}}
    assert found == {
        **{name: entry[name] for name in ("type", "id", "parentId", "timestamp")},
        "cwd": mark,
        "message": {
            "role": "assistant",
            "model": KEY,
            "content": [changed, mark, {"type": "image", "data": KEY}],
            "id": mark,
            "error": mark,
        },
    }


def test_in_an_index_only_session_ids_and_files_are_kept() -> None:
    index = {
        "agent:main:main": {
            "sessionId": KEY,
            "sessionFile": KEY,
            "token": KEY,
            "deep": {"sessionId": KEY},
        }
    }
    found = json.loads(WHOLE.line(json.dumps(index, indent=2).encode(), Counter(), shape="index"))
    row = found["agent:main:main"]
    assert (row["sessionId"], row["sessionFile"]) == (KEY, KEY)
    assert KEY not in (row["token"], row["deep"]["sessionId"])


def test_a_secret_that_json_escapes_is_found_and_the_line_keeps_its_form() -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in KEY)
    raw = f'{{ "a" : "x \\ud83d {escaped} \\"q\\"" , "n": 1.50, "a": 12345678901234567890 }}\r\n'.encode()
    counts: Counter[str] = Counter()
    assert (
        WHOLE.line(raw, counts)
        == b'{ "a" : "x \\ud83d [redacted:anthropic-key] \\"q\\"" , "n": 1.50, "a": 12345678901234567890 }\r\n'
    )
    assert counts == {"anthropic-key": 1}
    block = json.dumps({"text": key_block()}).encode()
    assert json.loads(WHOLE.line(block, Counter())) == {"text": "[redacted:private-key]"}
    slashes = b'{"u":"redis:\\/\\/:hunter2@cache"}'
    assert json.loads(WHOLE.line(slashes, Counter())) == {
        "u": "redis://:[redacted:url-password]@cache"
    }


def test_json_in_a_text_of_json_is_looked_into() -> None:
    inner = json.dumps({"key": KEY, "block": key_block()})
    found = line({"result": json.dumps({"deep": inner})})
    assert json.loads(json.loads(found["result"])["deep"]) == {
        "key": "[redacted:anthropic-key]",
        "block": "[redacted:private-key]",
    }


@pytest.mark.parametrize(
    "raw",
    [
        b'{"torn": "' + KEY.encode(),
        b"\xff\xfe " + KEY.encode() + b" \xc3\n",
        b"[" * 2_000 + KEY.encode(),
    ],
)
def test_what_is_no_json_is_redacted_as_text_and_its_other_bytes_stay(raw: bytes) -> None:
    assert WHOLE.line(raw, Counter()) == raw.replace(KEY.encode(), b"[redacted:anthropic-key]")


names = st.text(max_size=8) | st.sampled_from(["message", "content", "id", "type"])
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text() | st.sampled_from([KEY, JWT, f"é {KEY}\n"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """Return a value with its strings left out: what redaction may not change."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return (
        [shape(inner) for inner in value]
        if isinstance(value, list)
        else None
        if isinstance(value, str)
        else (type(value), value)
    )


@settings(max_examples=EXAMPLES_MAX)
@given(st.dictionaries(names, json_values, max_size=4), st.booleans())
def test_any_object_keeps_its_shape_and_what_holds_no_secret_keeps_its_bytes(
    value: dict[str, Any], ascii_only: bool
) -> None:
    raw = (
        json.dumps(value, ensure_ascii=ascii_only)
        .encode("utf-8", "surrogatepass")
        .decode("utf-8", "ignore")
        .encode()
    )
    counts: Counter[str] = Counter()
    found = Redactor().line(raw, counts)
    assert shape(json.loads(found)) == shape(json.loads(raw))
    assert (found == raw) == (not counts)
    assert Redactor().line(found, Counter()) == found


def test_a_mark_says_from_where_and_what_and_is_read_back() -> None:
    for counts in (Counter[str](), Counter({"jwt": 2, "anthropic-key": 1})):
        note = f"{Mark(7, counts)}; something else; redacted at import from byte 1: nothing"
        assert mark_in(note) == Mark(7, counts)
        assert without_mark(note) == "something else; redacted at import from byte 1: nothing"
    assert mark_in("it was redacted at import from byte 7: nothing") is None
    assert mark_in(None) is None


# -- import ---------------------------------------------------------------------------------------------------------

PLANTED = [
    SECRETS["github-token"][0],
    SECRETS["sk-key"][0],
    SECRETS["aws-access-key"][0],
    JWT,
    SECRETS["slack-token"][0],
]


def transcript(count: int = 6) -> bytes:
    """Return a transcript with a secret in an entry, in its header, in a damaged line, and in a last line that is torn."""
    lines = [header("s-1", title=f"about {PLANTED[0]}")]
    lines += [
        message(
            f"m{at}",
            f"m{at - 1}" if at else None,
            f"say {PLANTED[at % 3]} é" if at % 2 else "nothing",
        )
        for at in range(count)
    ]
    lines[3:3] = ["", '{"damaged": "' + PLANTED[3], ""]
    return (
        "\n".join(lines) + "\n"
    ).encode() + f'{{"type":"message","id":"last","parentId":"m1","x":"{PLANTED[4]}'.encode()


def index_of() -> bytes:
    return json.dumps(
        {"agent:main:main": {"sessionId": "s-1", "origin": {"label": PLANTED[1]}}}, indent=2
    ).encode()


def state_folder(folder: Path) -> Path:
    return write(
        folder,
        {
            "agents/main/sessions/s-1.jsonl": transcript(),
            "agents/main/sessions/sessions.json": index_of(),
        },
    )


def leaks(*folders: Path) -> list[str]:
    """Return which planted secrets stand anywhere in the files of some folders."""
    files = [
        path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()
    ]
    return [secret for secret in PLANTED if any(secret.encode() in content for content in files)]


def redacted_file(content: bytes) -> bytes:
    """Redact a file the simple way: line by line."""
    return b"\n".join(WHOLE.line(one, Counter()) for one in content.split(b"\n"))


@pytest.mark.anyio
async def test_an_import_with_a_redactor_leaves_no_secret_in_the_database_and_says_how_many_there_were(
    tmp_path: Path,
) -> None:
    source, home = state_folder(tmp_path / "in"), tmp_path / "db"
    name = "agents/main/sessions/s-1.jsonl"
    async with sessiondb.open(home / "g.db") as db:
        report = await db.import_path(source, redactor=Redactor(), verify=True)
        file = by_name(report)[name]
        assert (file.status, file.verified, file.damaged, file.entries) == ("imported", True, 2, 6)
        assert file.redacted == {
            "aws-access-key": 1,
            "github-token": 2,
            "jwt": 1,
            "sk-key": 1,
            "slack-token": 1,
        }
        assert by_name(report)["agents/main/sessions/sessions.json"].redacted == {"sk-key": 1}
        assert (file.bytes, file.sha256) == (
            len(transcript()),
            hashlib.sha256(transcript()).hexdigest(),
        )
        again = await db.import_path(source, redactor=Redactor())
        assert {one.status for one in again.files} == {"unchanged"}
        assert (await db.verify()).findings == ()
        assert (await db.export(tmp_path / "out")).ok
        assert leaks(home) == []  # the WAL too, while the database is open
    assert leaks(home, tmp_path / "out") == []
    assert (tmp_path / "out" / name).read_bytes() == redacted_file(transcript())
    assert leaks(source) == PLANTED


@pytest.mark.anyio
async def test_a_redactor_that_lets_damaged_lines_pass_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = jsonl_reader._Reader._kept
    monkeypatch.setattr(
        jsonl_reader._Reader,
        "_kept",
        lambda self, raw, *rest, stored=None: kept(self, raw, *rest, stored=raw),
    )
    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        await db.import_path(state_folder(tmp_path / "in"), redactor=Redactor())
    assert leaks(tmp_path / "db") == [PLANTED[3], PLANTED[4]]


@pytest.mark.anyio
async def test_without_a_redactor_the_search_finds_every_secret_and_the_export_is_the_file(
    tmp_path: Path,
) -> None:
    source = state_folder(tmp_path / "in")
    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        assert all(not file.redacted for file in (await db.import_path(source)).files)
        await db.export(tmp_path / "out")
    assert leaks(tmp_path / "db") == PLANTED
    assert (tmp_path / "out/agents/main/sessions/s-1.jsonl").read_bytes() == transcript()


@pytest.mark.anyio
async def test_a_file_that_grows_is_redacted_on_and_its_torn_line_is_read_again(
    tmp_path: Path,
) -> None:
    source = write(tmp_path / "in", {"a.jsonl": transcript()})
    whole = (
        transcript()
        + b'"}\n'
        + message("m7", "m5", f"and {PLANTED[0]}").encode()
        + b" behind "
        + PLANTED[1].encode()
        + b"\n\n"
    )
    whole += message("m8", "m5", PLANTED[2]).encode()
    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        for end in (
            10,
            len(transcript()) - 20,
            len(transcript()),
            len(transcript()) + 3,
            len(whole) - 30,
            len(whole),
        ):
            (source / "a.jsonl").write_bytes(whole[:end])
            report = await db.import_path(source, redactor=Redactor(), verify=True)
            assert report.ok, report
        assert (await db.export(tmp_path / "out")).ok
        assert (await db.verify()).findings == ()
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == redacted_file(whole)
    assert leaks(tmp_path / "db", tmp_path / "out") == []


@pytest.mark.anyio
async def test_what_arrives_behind_an_entry_without_its_line_end_comes_out_there_although_lengths_have_changed(
    tmp_path: Path,
) -> None:
    whole = header("s-1").encode() + b"\n" + message("m0", None, PLANTED[0]).encode()
    source = write(tmp_path / "in", {"a.jsonl": whole})
    async with sessiondb.open(tmp_path / "g.db") as db:
        for more in (
            b"",
            b" and " + PLANTED[1].encode(),
            b" more",
            b"\n",
            b"\n\n" + message("m1", "m0", "hi").encode() + b"\n",
        ):
            whole += more
            (source / "a.jsonl").write_bytes(whole)
            assert (await db.import_path(source, redactor=Redactor())).ok
        await db.export(tmp_path / "out")
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == redacted_file(whole)


@pytest.mark.anyio
@pytest.mark.parametrize("extra", range(-3, 4))
async def test_a_blank_line_behind_a_redacted_entry_stays_a_line_whatever_the_lengths(
    tmp_path: Path, extra: int
) -> None:
    """The mark is longer or shorter than the secret by any small number: no sum of lengths may be taken for a place."""
    rule = rule_from("r", f"X[0-9]{{{len('[redacted:r]') - 1 + extra}}}")
    secret = "X" + "1" * (len("[redacted:r]") - 1 + extra)
    content = "\n".join(
        [
            header("s-1"),
            message("m0", None, secret),
            "",
            " ",
            message("m1", "m0", secret),
            "torn {",
            "",
            "",
        ]
    ).encode()
    source = write(tmp_path / "in", {"a.jsonl": content})
    async with sessiondb.open(tmp_path / "g.db") as db:
        assert (await db.import_path(source, redactor=Redactor(rules=[rule]), verify=True)).ok
        await db.export(tmp_path / "out")
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == content.replace(
        secret.encode(), b"[redacted:r]"
    )


@pytest.mark.anyio
async def test_an_import_without_the_redactor_does_not_let_secrets_into_a_file_that_had_been_redacted(
    tmp_path: Path,
) -> None:
    source, home = state_folder(tmp_path / "in"), tmp_path / "db"
    file, index = "agents/main/sessions/s-1.jsonl", "agents/main/sessions/sessions.json"
    async with sessiondb.open(home / "g.db") as db:
        await db.import_path(source, redactor=Redactor())
        assert {one.status for one in (await db.import_path(source)).files} == {"unchanged"}
        with (source / file).open("ab") as grown:
            grown.write(b'"}\n' + message("m9", "m5", PLANTED[0]).encode() + b"\n")
        (source / index).write_bytes(index_of() + b"\n")
        refused = by_name(await db.import_path(source))
        for name in (file, index):
            assert refused[name].status == "failed"
            assert "import with --redact again" in refused[name].note
        assert not (await db.import_path(source, verify=True)).ok
        taken = by_name(await db.import_path(source, redactor=Redactor(), verify=True))
        assert (taken[file].status, taken[file].verified, taken[index].status) == (
            "grown",
            True,
            "imported",
        )
    assert leaks(home) == []


@pytest.mark.anyio
async def test_a_file_that_was_imported_as_it_is_goes_on_redacted_from_there(
    tmp_path: Path,
) -> None:
    first, second = (
        transcript(2).rpartition(b"\n")[0] + b"\n",
        message("m8", "m1", PLANTED[4]).encode() + b"\n",
    )
    source = write(tmp_path / "in", {"a.jsonl": first})
    async with sessiondb.open(tmp_path / "g.db") as db:
        await db.import_path(source)
        (source / "a.jsonl").write_bytes(first + second)
        report = await db.import_path(source, redactor=Redactor(), verify=True)
        assert (report.files[0].status, report.files[0].verified, report.files[0].redacted) == (
            "grown",
            True,
            {"slack-token": 1},
        )
        await db.export(tmp_path / "out")
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == first + redacted_file(second)


@pytest.mark.anyio
async def test_an_import_that_is_stopped_after_any_batch_goes_on_redacted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"\n".join(
        [
            header("s-1").encode(),
            *(message(f"m{at}", None, PLANTED[at % 5]).encode() for at in range(23)),
            b"",
        ]
    )
    source = write(tmp_path / "in", {"a.jsonl": content})
    monkeypatch.setattr(jsonl_reader, "IMPORT_BATCH_ENTRIES", 5)
    monkeypatch.setattr(import_packs, "IMPORT_BATCH_ENTRIES", 5)
    store, stored = importer.store_batch, 0

    def stop_after_one(*arguments: Any) -> Any:
        nonlocal stored
        stored += 1
        if stored % 2 == 0:
            raise sessiondb.StoreFull
        return store(*arguments)

    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        monkeypatch.setattr(importer, "store_batch", stop_after_one)
        stops = 0
        while True:
            try:
                report = await db.import_path(source, redactor=Redactor(), verify=True)
                break
            except sessiondb.StoreFull:
                stops += 1
        assert stops >= 3
        assert report.files[0].verified
        notes = await db.read(
            "test", lambda tx: tx.first("import_file.by_path", path=report.files[0].path).note
        )
        mark = mark_in(notes)
        assert mark is not None
        assert (mark.from_byte, mark.counts.total()) == (0, 23)
    assert leaks(tmp_path / "db") == []


@pytest.mark.anyio
async def test_every_real_transcript_that_is_imported_is_imported_just_as_well_with_a_redactor(
    tmp_path: Path, sample: Path
) -> None:
    async with sessiondb.open(tmp_path / "plain.db") as db:
        plain = await db.import_path(sample, verify=True)
    async with sessiondb.open(tmp_path / "redacted.db") as db:
        found = await db.import_path(sample, verify=True, redactor=Redactor(emails=True))
        assert (await db.verify()).ok
    assert [
        (one.name, one.status, one.entries, one.damaged, one.verified, one.sha256)
        for one in found.files
    ] == [
        (one.name, one.status, one.entries, one.damaged, one.verified, one.sha256)
        for one in plain.files
    ]


# -- export ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_export_with_a_redactor_writes_no_secret_and_leaves_the_database_alone(
    tmp_path: Path,
) -> None:
    source = state_folder(tmp_path / "in")
    async with sessiondb.open(tmp_path / "db" / "g.db") as db:
        await db.import_path(source)
        native = await db.session("agent:main:web:direct:jo")
        await native.append({"role": "user", "content": f"mine is {PLANTED[2]}"})
        report = await db.export(tmp_path / "out", redactor=Redactor())
        assert report.ok
        by_file = {file.name: file for file in report.files}
        assert by_file["agents/main/sessions/s-1.jsonl"].redacted["jwt"] == 1
        assert by_file[f"agents/main/sessions/{native.id}.jsonl"].redacted == {"aws-access-key": 1}
        assert {
            file.status for file in (await db.export(tmp_path / "out", redactor=Redactor())).files
        } == {"unchanged"}
        assert (await db.export(tmp_path / "plain")).ok
    assert leaks(tmp_path / "out") == []
    assert leaks(tmp_path / "plain") == PLANTED
    for name in ("agents/main/sessions/s-1.jsonl", "agents/main/sessions/sessions.json"):
        assert (
            len(json.loads((tmp_path / "out/agents/main/sessions/sessions.json").read_bytes())) == 2
        )
        assert (tmp_path / "out" / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_an_export_whose_redactor_does_nothing_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Redactor, "line", lambda self, raw, counts, shape="entry": raw)
    async with sessiondb.open(tmp_path / "g.db") as db:
        await db.import_path(state_folder(tmp_path / "in"))
        await db.export(tmp_path / "out", redactor=Redactor())
    assert leaks(tmp_path / "out") == PLANTED


@pytest.mark.anyio
async def test_a_redacted_export_is_imported_again_like_any_other(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(state_folder(tmp_path / "in"))
        await db.export(tmp_path / "out", redactor=Redactor())
    async with sessiondb.open(tmp_path / "two.db") as db:
        report = await db.import_path(tmp_path / "out", verify=True, redactor=Redactor())
        assert report.ok
        assert all(not file.redacted for file in report.files)


# -- the command line -----------------------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(
        program, [str(argument) for argument in arguments], prog_name="sessiondb"
    )


def test_the_command_line_redacts_at_import_and_at_export_and_names_rules_but_no_secret(
    tmp_path: Path,
) -> None:
    source, db = state_folder(tmp_path / "in"), tmp_path / "db" / "g.db"
    imported = run("import", db, source, "--redact", "--verify")
    assert imported.exit_code == 1  # its damaged lines are damaged all the same
    assert (
        "redacted: 1 aws-access-key, 2 github-token, 1 jwt, 2 sk-key, 1 slack-token"
        in imported.output
    )
    machine = json.loads(run("import", db, source, "--redact", "--json").output)
    assert [file["redacted"] for file in machine[0]["files"]] == [{}, {}]
    rules = tmp_path / "rules"
    rules.write_text("nothing-special = nothing\n", encoding="utf-8")
    exported = run("export", db, tmp_path / "out", "--redact-rules", rules)
    assert (exported.exit_code, exported.output.rpartition("; ")[2]) == (
        0,
        "redacted: 3 nothing-special\n",
    )
    assert leaks(tmp_path / "db", tmp_path / "out") == []
    assert not [secret for secret in PLANTED if secret in imported.output + exported.output]


def test_a_rule_file_with_a_mistake_ends_the_command_before_anything_is_opened(
    tmp_path: Path,
) -> None:
    rules = tmp_path / "rules"
    rules.write_text("slow = (a+)+\n", encoding="utf-8")
    for command in (
        ("import", tmp_path / "g.db", tmp_path),
        ("export", tmp_path / "g.db", tmp_path / "out"),
    ):
        result = run(*command, "--redact-rules", rules)
        assert result.exit_code == 1
        assert f"{rules}, line 1: rule slow: `+` repeats without an end" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rules"]

"""A redactor removes secrets, changes nothing else, and reads each text a few times at most."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("re2", reason="the extra `redact` is not installed")

from sessiondb.transfer import redaction_rules
from sessiondb.transfer.redaction import Mark, Redactor, mark_in, without_mark
from sessiondb.transfer.redaction_rules import EMAIL, KEY_BLOCK_BYTES_MAX, RULES
from tests.support.redaction import (
    EXAMPLES_MAX,
    INNOCENT,
    JWT,
    PARTS,
    SECRETS,
    WHOLE,
    key_block,
    redacted,
)

# -- rules -----------------------------------------------------------------------------------------


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
def test_a_secret_is_replaced_whole_and_its_neighbours_stay(
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
def test_only_the_secret_part_of_a_longer_text_goes(name: str, parts: tuple[str, str, str]) -> None:
    before, _, behind = parts
    assert redacted("".join(parts)) == (f"{before}[redacted:{name}]{behind}", {name: 1})


@pytest.mark.parametrize("text", INNOCENT)
def test_a_text_that_only_looks_like_a_secret_stays(text: str) -> None:
    assert redacted(text, Redactor()) == (text, {})


def test_addresses_are_left_alone_unless_they_are_asked_for() -> None:
    assert redacted("jo@example.com", Redactor()) == ("jo@example.com", {})


def test_a_cut_off_key_block_is_replaced_up_to_a_bound() -> None:
    assert (
        redacted("it is -----BEGIN EC PRIVATE KEY-----\nMHcC")[0] == "it is [redacted:private-key]"
    )
    far = "-----BEGIN PRIVATE KEY-----" + "x " * KEY_BLOCK_BYTES_MAX + "-----END PRIVATE KEY-----"
    assert redacted(far) == ("[redacted:private-key]", {"private-key": 1})
    text, counts = redacted(far.removesuffix("-----END PRIVATE KEY-----") + "the end")
    assert counts == {"private-key": 1}
    assert text.endswith("x the end")


def test_several_secrets_of_several_kinds_are_counted_by_rule() -> None:
    one, two = SECRETS["github-token"][0], SECRETS["aws-access-key"][0]
    assert redacted(f"{one} {two} {one}")[1] == {"github-token": 2, "aws-access-key": 1}


EXAMPLES = [secret for some in SECRETS.values() for secret in some] + [
    "".join(parts) for some in PARTS.values() for parts in some
]


@settings(max_examples=EXAMPLES_MAX)
@given(st.lists(st.sampled_from([*EXAMPLES, *INNOCENT])))
def test_a_redacted_text_is_not_redacted_again(texts: list[str]) -> None:
    once, _ = redacted(" ".join(texts))
    assert redacted(once) == (once, {})


# -- no text is slow -------------------------------------------------------------------------------


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


SECRET_BYTES_MAX = 1_000


class Counting:
    """A pattern that counts the bytes which it is made to read: up to its match, or to the end."""

    def __init__(self, pattern: Any, read: list[int]) -> None:
        self._pattern, self._read = pattern, read
        self.groupindex = pattern.groupindex

    def search(self, text: bytes, at: int = 0, end: int | None = None) -> Any:
        end = len(text) if end is None else end
        match = self._pattern.search(text, at, end)
        if len(text) > SECRET_BYTES_MAX:  # and not a secret that is looked at by itself
            self._read.append((end if match is None else match.end()) - at)
        return match


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_text_is_read_a_bounded_number_of_times(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RE2 reads a text once a search. So that is all there is to show: where each search begins."""
    read: list[int] = []
    real = redaction_rules.compiled
    monkeypatch.setattr(redaction_rules, "compiled", lambda pattern: Counting(real(pattern), read))
    text = (unit * (8 * SECRET_BYTES_MAX // len(unit))).encode()
    for rule in WHOLE.rules:
        read.clear()
        spans = list(rule.spans(text))
        assert spans == sorted(spans)
        assert sum(read) <= 4 * len(text), rule.name


def test_that_measure_notices_a_rule_that_begins_anew() -> None:
    read: list[int] = []
    pattern = Counting(redaction_rules.compiled("a[^b]*b"), read)
    for at in range(1_000):
        pattern.search(b"a" * 1_001, at)
    assert sum(read) > 100 * 1_000


# -- lines -----------------------------------------------------------------------------------------


KEY = SECRETS["anthropic-key"][0]


def line(value: Any, redactor: Redactor = WHOLE, **dump: Any) -> Any:
    """Redact a value as a line, and return it decoded."""
    return json.loads(redactor.line(json.dumps(value, **dump).encode(), Counter()))


def test_ids_types_and_signatures_are_never_changed() -> None:
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


def test_a_secret_behind_json_escapes_is_found() -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in KEY)
    before, behind = '{ "a" : "x \\ud83d ', ' \\"q\\"" , "n": 1.50, "a": 12345678901234567890 }\r\n'
    counts: Counter[str] = Counter()
    assert (
        WHOLE.line(f"{before}{escaped}{behind}".encode(), counts)
        == f"{before}[redacted:anthropic-key]{behind}".encode()
    )
    assert counts == {"anthropic-key": 1}
    block = json.dumps({"text": key_block()}).encode()
    assert json.loads(WHOLE.line(block, Counter())) == {"text": "[redacted:private-key]"}
    slashes = b'{"u":"redis:\\/\\/:hunter2@cache"}'
    assert json.loads(WHOLE.line(slashes, Counter())) == {
        "u": "redis://:[redacted:url-password]@cache"
    }


def test_a_secret_in_json_inside_json_is_found() -> None:
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
def test_a_line_that_is_not_json_is_redacted_as_text(raw: bytes) -> None:
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
def test_an_object_keeps_its_shape_and_innocent_bytes(
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

"""A redactor removes secrets, changes nothing else, and is slow on no text."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessiondb.transfer import redaction
from sessiondb.transfer.redaction import EMAIL, RULES, Mark, Redactor, mark_in, without_mark
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


def cpu_ratio(run: Callable[[int], object], small: int, factor: int) -> float:
    """Return the ratio of CPU time for a text `factor` times as long, the best of 3 tries."""

    def cost(size: int) -> float:
        begun = time.thread_time()
        run(size)
        return time.thread_time() - begun

    return min(cost(small * factor) / max(cost(small), 1e-4) for _ in range(3))


@pytest.mark.parametrize("unit", HOSTILE)
def test_the_cost_of_a_hostile_text_is_linear_in_its_length(unit: str) -> None:
    def run(size: int) -> str:
        return redacted(unit * (size // len(unit)))[0]

    # With 8 times the text, linear is 8 and quadratic is 64.
    assert cpu_ratio(run, 6_000, 8) < 30


def test_that_measure_notices_a_rule_that_is_not_linear() -> None:
    slow = re.compile(r"a+b")
    assert cpu_ratio(lambda size: slow.search("a" * size), 1_000, 8) > 30


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

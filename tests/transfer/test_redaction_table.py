"""100 made-up secrets go, and 100 harmless texts stay, whatever is around them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote

import pytest

pytest.importorskip("re2", reason="the extra `redact` is not installed")

from sessiondb.transfer.redaction import Redactor
from tests.support.redaction import HARMLESS_TEXTS, SECRET_TEXTS

REDACTOR = Redactor()
MARK = re.compile(r"\[redacted:[a-z0-9_-]+\]")
KEPT_CHARS_MAX = 6  # of a secret that may stay: less than is worth anything


def in_json(text: str) -> str:
    return json.dumps({"b": f"x{text}", "c": [f"\n{text}\t"]}, ensure_ascii=False)


AROUND: dict[str, Callable[[str], str]] = {
    "alone": lambda text: text,
    "behind a line end": lambda text: f"so\n{text}\nand",
    "between letters that are not ASCII": lambda text: f"密钥：{text}。",
    "in JSON of JSON": lambda text: in_json(f"\n{text}\n"),
    "in JSON of JSON of JSON": lambda text: in_json(in_json(f"\t{text}\r")),
    "with every letter escaped": lambda text: "".join(f"\\u{ord(one):04x}" for one in text),
    "in colours": lambda text: f"$\x1b[1;31m{text}\x1b[0m",
    "in colours that are escaped": lambda text: f"$\\u001b[38;5;9m{text}\\u001b[0m",
    "percent-encoded": lambda text: f"https://a.example/?q=1%20{quote(text, safe='')}%20b",
    "percent-encoded twice": lambda text: quote(quote(f"\n{text}\n", safe=""), safe=""),
}


def line_of(text: str) -> bytes:
    """Return a text as the argument of a tool's call, in a line of a transcript."""
    call = {"type": "toolCall", "id": "c", "name": "bash", "arguments": {"command": text}}
    return json.dumps({"type": "message", "message": {"content": [call]}}).encode() + b"\n"


def said_in(line: bytes) -> str:
    said: str = json.loads(line)["message"]["content"][0]["arguments"]["command"]
    return said


def is_left(secret: str, text: str) -> bool:
    text = MARK.sub("", text)
    size = min(len(secret), KEPT_CHARS_MAX + 1)
    return any(secret[at : at + size] in text for at in range(len(secret) - size + 1))


def test_the_table_has_a_hundred_of_each() -> None:
    assert (len(SECRET_TEXTS), len(HARMLESS_TEXTS)) == (100, 100)


@pytest.mark.parametrize("around", AROUND)
def test_every_secret_of_the_table_goes(around: str) -> None:
    left = []
    for text, secret in SECRET_TEXTS:
        counts: Counter[str] = Counter()
        given = AROUND[around](text)
        found = said_in(REDACTOR.line(line_of(given), counts))
        if not counts or is_left(secret, found) or found == given:
            left.append((text, found))
        assert said_in(REDACTOR.line(line_of(found), Counter())) == found
    assert left == []


@pytest.mark.parametrize("around", AROUND)
def test_every_harmless_text_of_the_table_stays(around: str) -> None:
    changed = []
    for text in HARMLESS_TEXTS:
        counts: Counter[str] = Counter()
        line = line_of(AROUND[around](text))
        if REDACTOR.line(line, counts) != line or counts:
            changed.append((text, counts))
    assert changed == []

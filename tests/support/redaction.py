"""Secrets for the tests of redaction: at least one for each rule, and texts that are not secrets.

No secret here is real. They are generated at run time, so that no scanner of repositories reports
them.
"""

from __future__ import annotations

import os
import random
import re
import uuid
from collections import Counter
from pathlib import Path

from sessiondb.transfer.redaction import Redactor

# The long run (`make fuzz`) sets this in the environment.
EXAMPLES_MAX = int(os.environ.get("SESSIONDB_REDACTION_EXAMPLES", "40"))


ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789"


def made(prefix: str, count: int, alphabet: str = ALPHABET) -> str:
    """Return the shape of a secret: a prefix, and random characters with a digit among them.

    The same each time, whichever tests ran before: a rule may pass over one with a word in it.
    """
    drawn = random.Random(f"{prefix} {count}").choices(alphabet, k=count - 1)
    return prefix + "".join(drawn) + "7"


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
    "email": ["first.last+x@mail.example.com"],
}
# Texts of which a part is the secret: the text before it, the secret, the text behind it.
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
    "AKIA is a prefix, AKIATOOSHORT7 is too short, and XAKIAABCDEFGHIJKLMNOP is a part of a word",
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


# -- the table -------------------------------------------------------------------------------------

_ALPHABETS = {
    "alnum": ALPHABET,
    "letters": "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ",
    "small": "abcdefghjkmnpqrstuvwxyz23456789",
    "upper": "ABCDEFGHJKLMNPQRSTUVWXYZ23456789",
    "word": ALPHABET + "_-",
    "hex": "0123456789abcdef",
    "digits": "123456789",
    "base32": CAPITALS,
    "base64": ALPHABET + "+/",
    "bech": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
}
_PART = re.compile(r"<(?:(?P<kind>[a-z0-9]+):(?P<count>\d+)|(?P<word>uuid|nl|dashes))>")


def _filled(template: str) -> str:
    drawn = random.Random(template)  # another line changes nothing of this one

    def part(found: re.Match[str]) -> str:
        if found["kind"] is not None:
            alphabet = _ALPHABETS[found["kind"]]
            made = "".join(drawn.choices(alphabet, k=int(found["count"])))
            # As a generated one does, it begins and ends in a letter or a digit, and has a digit.
            return "x" + made[1:-1] + "7" if found["kind"] == "word" else made
        words = {"uuid": str(uuid.UUID(int=drawn.getrandbits(128), version=4)), "nl": "\n"}
        return words.get(found["word"], "-----")

    return _PART.sub(part, template)


def _table() -> tuple[list[tuple[str, str]], list[str]]:
    """Return the texts with a secret, each with it, and those without."""
    secrets, harmless = [], []
    for line in Path(__file__).with_name("redaction_table.txt").read_text("utf-8").splitlines():
        if line.startswith("#") or not line:
            continue
        filled = _filled(line.replace("\\x1b", "\x1b"))
        if "«" in filled:
            secrets.append(
                (filled.replace("«", "").replace("»", ""), filled.split("«")[1].split("»")[0])
            )
        else:
            harmless.append(filled)
    return secrets, harmless


SECRET_TEXTS, HARMLESS_TEXTS = _table()

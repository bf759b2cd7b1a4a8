"""Hostile transcripts from a seed: real ones with damage, and ones that no program would write.

Everything is JSON *text* or bytes, never Python objects: an encoder cannot write a key twice, half
an emoji, 1e999 or a number of 100,000 digits. A `Chance` is a `random.Random` with the vocabulary
of transcripts. So a course can be repeated from its seed, and a coverage-guided fuzzer can use the
same moves as its mutator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from tests import TESTS

SAMPLE = TESTS / "sample"
CORPUS = TESTS.parent.parent / "shared" / "corpus"

TYPES = (
    "message",
    "message",
    "message",
    "session",
    "leaf",
    "compaction",
    "reset",
    "custom",
    "custom_message",
    "branch_summary",
    "model_change",
    "thinking_level_change",
    "session_info",
    "label",
    "unheard_of",
    "",
    "\\ud800",
    "\\u0000",
    "a\\nb",
)
ROLES = (
    "user",
    "assistant",
    "toolResult",
    "bashExecution",
    "custom",
    "hookMessage",
    "branchSummary",
    "compactionSummary",
    "",
    "\\ud83d",
)
KEYS = (
    "type",
    "id",
    "parentId",
    "timestamp",
    "message",
    "role",
    "content",
    "version",
    "cwd",
    "summary",
    "firstKeptEntryId",
    "firstKeptEntryIndex",
    "tokensBefore",
    "targetId",
    "appendMode",
    "name",
    "data",
    "customType",
    "display",
    "details",
    "fromId",
    "provider",
    "modelId",
    "thinkingLevel",
    "label",
    "usage",
    "totalTokens",
    "idempotencyKey",
    "toolCallId",
    "excludeFromContext",
    "providerReplay",
    "command",
    "output",
    "stopReason",
    "contextUsage",
    "reason",
    "parentSession",
    "errorMessage",
    "exitCode",
    "",
)
IDS = (
    "a",
    "b",
    "c",
    "d",
    "e",
    "m1",
    "m2",
    "",
    "\\u0000",
    "\\ud800",
    "x" * 300,
    "\\u202e",
    "漢",
    "../..",
)
STAMPS = (
    "2026-01-01T00:00:00.000Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "1969-01-01",
    "now",
    "",
    "\\ud800",
    "2026-13-45T99:99:99Z",
    "2026-01-01T00:00:00.000000000000Z",
    "20260101",
    "2026-W01-1",
)
NUMBERS = (
    "0",
    "-0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "1.5",
    "-0.0",
    "1e5",
    "1e999",
    "-1e999",
    "1E-999",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551617",
    "9" * 400,
    "9" * 4_300,
    "9" * 4_301,
    "0." + "3" * 500,
    "NaN",
    "Infinity",
    "-Infinity",
    "01",
    "+1",
    ".5",
    "1.",
    "0x10",
)
TEXTS = (
    "",
    "x",
    "hello",
    "é",
    "漢字",
    "🙂",
    "\\u0000",
    "\\ud83d",
    "\\udc00\\ud83d",
    "\\u202e",
    "\\u009b2J",
    "\\u001b[2J",
    "\\u2028",
    "a\\\\",
    '\\"',
    "\\/",
    "[[[{{{",
    "}}}]]]",
    "text " * 40,
    "\\ufeff",
    "\\ud83d\\ude42",
    "\u009b2J",
    "\u202e",
    "\ufeff",
    "\x7f",
)
BLOCKS = ("text", "thinking", "toolCall", "image", "", "unheard_of")


@cache
def real_transcripts() -> tuple[bytes, ...]:
    """Return the bytes of the real transcripts of the sample and of the corpus, smallest first."""
    paths = sorted(
        path for folder in (SAMPLE, CORPUS) if folder.is_dir() for path in folder.rglob("*.jsonl*")
    )
    found = {
        path.read_bytes()
        for path in paths
        if "expected" not in path.parts and path.stat().st_size < 40_000 and path.suffix != ".zst"
    }
    return tuple(sorted(found, key=lambda content: (len(content), content)))


@cache
def real_lines() -> tuple[bytes, ...]:
    """Return different lines of real transcripts, short ones, in a fixed order."""
    return tuple(
        sorted(
            {
                line
                for content in real_transcripts()
                for line in content.split(b"\n")
                if 0 < len(line) < 3_000
            }
        )
    )


class Chance:
    """What happens next: a random number generator that speaks the language of transcripts."""

    def __init__(self, seed: int | random.Random) -> None:
        self.random = seed if isinstance(seed, random.Random) else random.Random(seed)

    def one_in(self, count: int) -> bool:
        return self.random.randrange(count) == 0

    # -- JSON text ---------------------------------------------------------------------------------

    def text(self) -> str:
        """Return a JSON string."""
        return f'"{self.random.choice(TEXTS)}"'

    def value(self, depth: int = 3) -> str:
        """Return any JSON value, and now and then one that only looks like one."""
        kind = self.random.randrange(10 if depth > 0 else 7)
        if kind < 3:
            return self.text()
        if kind < 5:
            return self.random.choice(NUMBERS)
        if kind < 7:
            return self.random.choice(("null", "true", "false", '""', "[]", "{}"))
        if kind == 7:
            return (
                "[" + ",".join(self.value(depth - 1) for _ in range(self.random.randrange(4))) + "]"
            )
        if kind == 8 and self.one_in(8):
            levels = self.random.choice((100, 490, 498, 499, 500, 501, 600, 5_000))
            return "[" * levels + "]" * levels
        return self.object({}, self.random.randrange(4), depth - 1)

    def object(self, fields: dict[str, str], extra: int = 0, depth: int = 2) -> str:
        """Return an object of these fields and others, at times unordered or with a key twice."""
        pairs = list(fields.items()) + [
            (self.random.choice(KEYS), self.value(depth)) for _ in range(extra)
        ]
        if self.one_in(6):
            self.random.shuffle(pairs)
        if pairs and self.one_in(12):
            pairs.append((self.random.choice(pairs)[0], self.value(depth)))
        colon, comma = (
            self.random.choice((":", ":", ":", ": ", " :\t", ":\r")),
            self.random.choice((",", ",", ",", ", ", " ,")),
        )
        return "{" + comma.join(f'"{key}"{colon}{value}' for key, value in pairs) + "}"

    def ids(self) -> str:
        return f'"{self.random.choice(IDS)}"' if not self.one_in(8) else self.value(1)

    def parent(self) -> str:
        return "null" if self.one_in(5) else self.ids()

    def block(self) -> str:
        kind = self.random.choice(BLOCKS)
        fields = {
            "type": f'"{kind}"',
            "text": self.text(),
            "id": self.ids(),
            "name": self.text(),
            "arguments": self.value(2),
        }
        return (
            self.object(fields, self.random.randrange(2)) if not self.one_in(8) else self.value(1)
        )

    def content(self) -> str:
        if self.one_in(3):
            return self.text()
        return (
            "[" + ",".join(self.block() for _ in range(self.random.randrange(4))) + "]"
            if not self.one_in(6)
            else self.value()
        )

    def message(self) -> str:
        fields = {
            "role": f'"{self.random.choice(ROLES)}"',
            "content": self.content(),
            "toolCallId": self.ids(),
        }
        if self.one_in(3):
            fields["usage"] = self.object(
                {"totalTokens": self.value(0), "input": self.value(0)}, self.random.randrange(2)
            )
        if self.one_in(5):
            fields["idempotencyKey"] = self.ids()
        if self.one_in(6):
            fields["providerReplay"] = self.object({"type": '"anthropic-compaction"'}, 1)
        if self.one_in(6):
            fields["excludeFromContext"] = "true"
        return (
            self.object(fields, self.random.randrange(3)) if not self.one_in(12) else self.value()
        )

    def entry(self) -> str:
        """Return a line that is nearly, and often quite, an entry."""
        kind = self.random.choice(TYPES)
        fields = {
            "type": f'"{kind}"' if not self.one_in(20) else self.value(1),
            "id": self.ids(),
            "parentId": self.parent(),
        }
        if not self.one_in(4):
            fields["timestamp"] = f'"{self.random.choice(STAMPS)}"'
        match kind:
            case "message":
                fields["message"] = self.message()
            case "session":
                fields["version"] = self.random.choice(
                    ("1", "2", "3", "3", "4", "99", self.value(0))
                )
            case "compaction" | "reset":
                fields["summary"] = self.random.choice((self.text(), self.value()))
                fields[self.random.choice(("firstKeptEntryId", "firstKeptEntryIndex"))] = (
                    self.random.choice((self.ids(), self.value(0)))
                )
                fields["tokensBefore"] = self.value(0)
            case "leaf":
                fields["targetId"] = self.parent()
            case "custom_message" | "branch_summary":
                fields["content"], fields["summary"] = (
                    self.content(),
                    self.random.choice((self.text(), self.value())),
                )
        if self.one_in(10):
            fields["appendMode"] = '"side"'
        for key in list(fields):
            if self.one_in(25):
                fields[key] = self.value()
            elif self.one_in(30):
                del fields[key]
        return self.object(fields, self.random.randrange(3) if self.one_in(3) else 0)

    # -- lines and files ---------------------------------------------------------------------------

    def line(self) -> bytes:
        """Return the bytes of one line, without its end."""
        kind = self.random.randrange(20)
        if kind < 9:
            return self.entry().encode(errors="surrogatepass")
        if kind < 14:
            return self.random.choice(real_lines())
        if kind < 17:
            return self.damaged(
                self.entry().encode(errors="surrogatepass")
                if self.one_in(2)
                else self.random.choice(real_lines())
            )
        if kind == 17:
            return self.random.choice(
                (
                    b"",
                    b" ",
                    b"\t \r",
                    b"\r",
                    b"\xef\xbb\xbf",
                    b"null",
                    b"[]",
                    b"42",
                    b'"x"',
                    b"{}",
                    b"\x00",
                    b"\x0b",
                )
            )
        if kind == 18:
            return self.random.randbytes(self.random.randrange(40))
        # More structure than may be, torn inside a string: it has to be read, and quickly.
        return (
            b'{"type":"custom","data":['
            + b"{}," * 600
            + b'"'
            + b"torn " * self.random.randrange(400)
        )

    def damaged(self, line: bytes) -> bytes:
        """Return a line after something happened to it."""
        at = self.random.randrange(len(line) + 1)
        moves: tuple[Callable[[], bytes], ...] = (
            lambda: line[:at],
            lambda: line[at:],
            lambda: line[:at] + self.random.randbytes(1) + line[at + 1 :],
            lambda: (
                line[:at]
                + self.random.choice(
                    (
                        b"\x00",
                        b"\xff",
                        b"\xed\xa0\x80",
                        b"\xef\xbb\xbf",
                        b"\r",
                        b'"',
                        b"\\",
                        b"{",
                        b"]",
                        b",",
                    )
                )
                + line[at:]
            ),
            lambda: (
                line[:at]
                + self.random.randbytes(self.random.randrange(8))
                + line[at + self.random.randrange(8) :]
            ),
            lambda: line + line,
            lambda: line[:at] + line[:at] + line[at:],
            lambda: line.replace(b'"', b"'", 1),
            lambda: line.replace(b":", b":" + self.random.choice(NUMBERS).encode() + b',"x":', 1),
        )
        return self.random.choice(moves)().replace(b"\n", b" ")

    def file(self) -> bytes:
        """Return the bytes of a file."""
        if self.one_in(4):
            return self.spoiled(self.random.choice(real_transcripts()))
        lines = [self.line() for _ in range(self.random.randrange(12))]
        if not self.one_in(3):
            version = self.random.choice(("1", "2", "3", "3", "3", "4"))
            session_id = f"s-{self.random.randrange(9)}"
            first = f'{{"type":"session","version":{version},"id":"{session_id}"}}'
            lines.insert(0, first.encode())
        end = self.random.choice((b"\n", b"\n", b"\n", b"\r\n"))
        start = b"\xef\xbb\xbf" if self.one_in(15) else b""
        return start + end.join(lines) + (b"" if self.one_in(4) else end)

    def spoiled(self, content: bytes) -> bytes:
        """Return a real transcript after a few accidents."""
        lines = content.split(b"\n")
        for _ in range(self.random.randrange(1, 5)):
            at = self.random.randrange(len(lines))
            match self.random.randrange(7):
                case 0:
                    lines[at] = self.damaged(lines[at])
                case 1:
                    del lines[at : at + self.random.randrange(1, 4)]
                case 2:
                    lines.insert(at, self.random.choice(lines or [b""]))
                case 3:
                    other = self.random.randrange(len(lines))
                    lines[at], lines[other] = lines[other], lines[at]
                case 4:
                    lines.insert(at, self.line())
                case 5:
                    lines = lines[at:] if self.one_in(3) else lines[: at + 1]
                case _:
                    lines[at] += b"\r"
            lines = lines or [b""]
        content = b"\n".join(lines)
        return content[: self.random.randrange(len(content) + 1)] if self.one_in(5) else content

    # -- folders -----------------------------------------------------------------------------------

    def index(self, names: list[str]) -> bytes:
        """Return an OpenClaw index whose rows name these transcripts, others, and none."""
        if self.one_in(12):
            return self.random.choice(
                (
                    b"",
                    b"[]",
                    b"null",
                    b"{",
                    b"\xff",
                    b'{"a":1,}',
                    b"[" * 5_000,
                    self.value().encode(errors="replace"),
                )
            )
        pairs = []
        for _ in range(self.random.randrange(8)):
            key = self.random.choice(
                (
                    "agent:main:main",
                    "agent:main:discord:channel:1",
                    "AGENT:Main:Discord:Channel:1",
                    "main",
                    "cron:x",
                    "agent::",
                    "message",
                    "agent:main:a\\nb",
                    "agent:main:\\u202e",
                    "agent:main:\\ud800",
                    "",
                    "x" * 2_000,
                    "agent:other:main",
                    "\\u0000",
                    "agent:main:x y",
                )
            )
            row = (
                self.value()
                if self.one_in(4)
                else self.object(self._row(names), self.random.randrange(3))
            )
            colon = self.random.choice((":", ": ", " :", ":\n  ", "\n:"))
            pairs.append(f'"{key}"{colon}{row}')
        comma = self.random.choice((",", ",\n  ", " , "))
        text = (
            "{"
            + self.random.choice(("", "\n  "))
            + comma.join(pairs)
            + self.random.choice(("", "\n"))
            + "}"
            + self.random.choice(("", "\n"))
        )
        content = text.encode(errors="surrogatepass")
        return (
            self.damaged(content)
            if self.one_in(8)
            else (b"\xef\xbb\xbf" if self.one_in(15) else b"") + content
        )

    def _row(self, names: list[str]) -> dict[str, str]:
        name = self.random.choice(
            [*names, "missing.jsonl", "../../etc/passwd", "/etc/passwd", "..", "a\\nb.jsonl", ""]
        )
        row = {
            "sessionId": f'"{name.partition(".jsonl")[0]}"'
            if not self.one_in(3)
            else self.value(1),
            "updatedAt": self.value(0),
        }
        if self.one_in(2):
            folder = self.random.choice(("", "/somewhere/else/", "..\\\\", "sessions/"))
            row["sessionFile"] = f'"{folder}{name}"' if not self.one_in(5) else self.value(1)
        return row

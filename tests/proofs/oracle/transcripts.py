"""Transcripts from a seed, in all the ways in which the files of each program are odd.

A transcript is written for one reader: it has what the programs of that reader write, and what
happens to their files. What two readers take differently is written for the one whose programs
write it. `docs/reliability.md` lists what is left out, with the reasons.

Every number of a seed is a course of its own, so a finding is repeated alone.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

READERS: Final = ("pi", "openclaw", "sdk")
_START: Final = datetime(2026, 9, 1, 10, tzinfo=UTC)
_TEXTS: Final = (
    "hello",
    "",
    "Where is the boiler?\nIn the cellar.",
    "caf\u00e9 \u6f22\u5b57 \U0001f642\u200d",
    'a\u2028b\u0085c\ttab "quoted" \\ back',
    "\x00\x01",
    "x" * 5_000,
    "half of a pair: \ud83d",
)
_TIMES: Final = (
    "2026-09-01",
    "2026-09-01T10:00Z",
    "2026-09-01T10:00:00+02:00",
    "2026-09-01T10:00:00.123456789Z",
    "2026-09-01T10:00:00.1Z",
    "1969-12-31T23:59:59.999Z",
)
_MODELS: Final = (("anthropic", "claude-sonnet-4-5"), ("openai", "gpt-5.2"), ("ollama", "qwen3:8b"))
_LEVELS: Final = ("off", "low", "medium", "high", "xhigh")
_ABSENT: Final = object()
_INFINITE: Final = "1e999 without quotes"
"""Stands for a number that JavaScript takes for infinite, and writes as null."""


_SHIFTS: Final = frozenset(
    {"a header in the middle", "a line that is no object", "an entry without a type"}
)
"""Lines that the readers of version 1 count, each in its own way, and an import does not."""


@dataclass(frozen=True)
class Transcript:
    """A file, and whose reader knows what it means."""

    name: str
    by: str
    content: bytes = field(repr=False)
    moves: frozenset[str]
    """What is odd about it."""


def generate(seed: int, number: int) -> Transcript:
    """Return one transcript of a seed."""
    chance = random.Random(f"{seed}:{number}")
    by = chance.choices(READERS, (55, 35, 10))[0]
    writer = _WRITERS[by](chance, number)
    content = writer.write()
    return Transcript(f"{by}-{number:05}.jsonl", by, content, frozenset(writer.moves))


@dataclass
class _Writer(ABC):
    """Writes one transcript, line by line."""

    chance: random.Random
    number: int
    lines: list[bytes] = field(default_factory=list)
    parents: dict[Any, Any] = field(default_factory=dict)
    """Every entry that can be a parent, with its own parent."""
    leaf: Any = None
    moves: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def now(self, *moves: tuple[str, float]) -> str | None:
        """Return one of these moves by its probability, or none of them."""
        at = self.chance.random()
        for move, probability in moves:
            if at < probability:
                self.moves.add(move)
                return move
            at -= probability
        return None

    def odd(self, move: str, probability: float) -> bool:
        """Tell whether to make a move."""
        return self.now((move, probability)) is not None

    def pick(self, values: Any) -> Any:
        return self.chance.choice(list(values))

    def text(self) -> str:
        return f"{len(self.lines)}: {self.pick(_TEXTS)}"

    def session_id(self) -> str:
        return f"019f{self.number:04x}-0000-7000-8000-{self.number:012x}"

    def ms(self) -> int:
        return int((_START + timedelta(seconds=len(self.lines))).timestamp() * 1000)

    def iso(self) -> str:
        moment = _START + timedelta(seconds=len(self.lines), milliseconds=7 * len(self.lines))
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def encode(self, fields: dict[str, Any]) -> bytes:
        """Write a line as programs do: as UTF-8, with half pairs escaped. Some escape all."""
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        if self.chance.random() < 0.1 or any("\ud800" <= char <= "\udfff" for char in text):
            text = json.dumps(fields, separators=(",", ":"))
        return text.replace(f'"{_INFINITE}"', "1e999").encode()

    def put(self, line: bytes) -> None:
        self.lines.append(line)

    def path(self) -> list[Any]:
        """Return the ids from the leaf back to the root."""
        found = []
        at = self.leaf
        while at is not None and at in self.parents and at not in found:
            found.append(at)
            at = self.parents[at]
        return found

    # -- messages ------------------------------------------------------------------------------

    def content(self, role: str) -> Any:
        """Return a content that the reader takes as it is."""
        blocks = [{"type": "text", "text": self.text()}]
        if role in ("user", "custom") and self.chance.random() < 0.4:
            return self.text()
        if role in ("user", "toolResult") and self.chance.random() < 0.1:
            blocks.append({"type": "image", "data": "aGk=", "mimeType": "image/png"})
        return blocks

    def message(self) -> dict[str, Any]:
        roles = {"user": 8, "assistant": 10, "toolResult": 4, "bashExecution": 1, "custom": 1}
        role = self.chance.choices(list(roles), list(roles.values()))[0]
        message: dict[str, Any] = {"role": role}
        if role == "bashExecution":
            message |= {"command": "ls", "output": self.text(), "exitCode": 0, "cancelled": False}
            if self.chance.random() < 0.3:
                message["excludeFromContext"] = True
        else:
            message["content"] = self.content(role)
        match role:
            case "assistant":
                self._say(message)
            case "toolResult":
                message |= {
                    "toolCallId": self.pick([*self.calls, "call-of-nobody"]),
                    "toolName": "read",
                    "isError": self.chance.random() < 0.1,
                }
            case "custom":
                message |= {"customType": "note", "display": False}
        message["timestamp"] = self.ms()
        return message

    def _say(self, message: dict[str, Any]) -> None:
        provider, model = self.pick(_MODELS)
        if self.chance.random() < 0.3:
            thought = {"type": "thinking", "thinking": self.text(), "thinkingSignature": "c2ln/+=="}
            message["content"].insert(0, thought)
        if self.chance.random() < 0.4:
            self.calls.append(f"call-{len(self.lines)}")
            call = {"type": "toolCall", "id": self.calls[-1], "name": "read", "arguments": {"n": 1}}
            message["content"].append(call)
        message |= {
            "api": "anthropic-messages",
            "provider": provider,
            "model": model,
            "usage": {"input": 10, "output": 3, "cacheRead": 0, "cacheWrite": 0, "totalTokens": 13},
            "stopReason": self.pick(["stop", "stop", "toolUse", "error", "aborted", "length"]),
        }
        for name in ("provider", "model", "usage", "api", "stopReason"):
            if self.odd("a reply without some of its fields", 0.02):
                del message[name]

    @abstractmethod
    def write(self) -> bytes:
        """Return a transcript of its program."""

    def joined(self) -> bytes:
        """Put the lines together, with what happens to the ends of files."""
        end = b"\r\n" if self.odd("carriage returns", 0.03) else b"\n"
        content = end.join(self.lines) + end
        tails = (("no last line end", 0.04), ("a torn tail", 0.06))
        match self.now(*tails) if len(self.lines) > 1 else None:
            case "no last line end":
                return content[: -len(end)]
            case "a torn tail":
                return content[: -self.chance.randrange(2, max(3, min(60, len(self.lines[-1]))))]
        return content


def _follows_itself(parent: bytes, child: bytes) -> bool:
    """Return whether a line that names no parent would follow its own child, if it came later."""
    try:
        fields, named = json.loads(parent), json.loads(child)
    except ValueError:
        return False
    if not isinstance(fields, dict) or not isinstance(named, dict) or "parentId" in fields:
        return False
    return "id" in fields and named.get("parentId") == fields["id"]


@dataclass
class _Tree(_Writer):
    """The files of pi and of OpenClaw: entries with an id and a parent."""

    version: Any = 3

    def write(self) -> bytes:
        self._header()
        for _ in range(self.chance.choice((0, 1, 3, 8, 20, 40))):
            self._step()
        # Of two lines with one id, pi's children follow the last one in the file, wherever they
        # stand, and an import's the last one before them.
        is_plain = len(self.lines) > 3 and "an id twice" not in self.moves
        if is_plain and self.odd("a child before its parent", 0.1):
            at = self.chance.randrange(1, len(self.lines) - 1)
            parent, child = self.lines[at : at + 2]
            if not _follows_itself(parent, child):
                self.lines[at : at + 2] = [child, parent]
        return self.joined()

    def _header(self) -> None:
        self.version = self.chance.choices((3, 2, 1, None), (60, 12, 14, 14))[0]
        if self.odd("an odd version", 0.04):
            self.version = self.pick([3.0, "3", "2", 2.0, 0, 4, "three", "1"])
        header: dict[str, Any] = {"type": "session", "version": self.version}
        if self.version is None:
            del header["version"]
        header |= {"id": self.session_id(), "timestamp": self.iso(), "cwd": "/home/ana/work"}
        if self.chance.random() < 0.1:
            header["parentSession"] = "/home/ana/.pi/other.jsonl"
        self.put(self.encode(header))

    @property
    def is_linear(self) -> bool:
        """Whether its reader takes the lines one after the other."""
        try:
            return self.version is None or float(self.version) < 2
        except ValueError:
            return False

    def _step(self) -> None:
        self._damage()
        if self.parents and self.odd("a branch", 0.06):
            self.leaf = self.pick([*self.parents, None])
        fields = self._entry()
        entry_id = self._new_id()
        line = self._place(fields, entry_id)
        if self.odd("a line twice", 0.01):
            self.put(line)
        if self.odd("an id twice", 0.005):
            self._place(self._message(), entry_id, parent=self.parents[entry_id])

    def _new_id(self) -> Any:
        return f"{self.chance.getrandbits(32):08x}"

    def _place(self, fields: dict[str, Any], entry_id: Any, parent: Any = _ABSENT) -> bytes:
        """Write an entry behind the leaf, or a parent, and make it the leaf."""
        if parent is _ABSENT:
            parent = self.leaf
            if self.odd("a parent that is not there", 0.01):
                parent = self.pick(["nobody", "", "parent\u0000", *self._odd_parents()])
        placed = {"type": fields.pop("type"), "id": entry_id, "parentId": parent}
        if self.is_linear and self.chance.random() < 0.5:
            del placed["id"], placed["parentId"]
        placed["timestamp"] = self._timestamp()
        if placed["timestamp"] is _ABSENT:
            del placed["timestamp"]
        line = self.encode(placed | fields)
        if self.odd("space around a line", 0.01):
            line = b" \t" + line + b"  "
        if self.odd("a field twice", 0.01):
            line = line.replace(b"{", b'{"type":"label","message":7,', 1)
        self.put(line)
        is_known = isinstance(parent, str | int) and parent in self.parents
        self.parents[entry_id] = parent if is_known else None
        self.leaf = entry_id
        return line

    def _odd_parents(self) -> tuple[Any, ...]:
        return ()

    def _timestamp(self) -> Any:
        return self.iso()

    # -- entries -------------------------------------------------------------------------------

    def _entry(self) -> dict[str, Any]:
        kinds = self._kinds()
        return self.chance.choices(list(kinds), list(kinds.values()))[0]()

    def _kinds(self) -> dict[Callable[[], dict[str, Any]], int]:
        return {
            self._message: 60,
            self._model_change: 3,
            self._level_change: 3,
            self._compaction: 5,
            self._branch_summary: 2,
            self._custom: 2,
            self._custom_message: 4,
            self._label: 2,
            self._session_info: 1,
        }

    def _message(self) -> dict[str, Any]:
        message = self.message()
        if message["role"] == "custom" and self.version != 3 and self.chance.random() < 0.5:
            message["role"] = "hookMessage"
        match self.now(
            ("a role of the future", 0.01),
            ("a content of another shape", 0.01),
            ("numbers of every kind", 0.01),
            ("fields of the future", 0.02),
        ):
            case "a role of the future":
                message["role"] = self.pick(["developer", "", "User", None, 5])
            case "a content of another shape" if message["role"] in ("user", "custom"):
                message["content"] = self.pick([[], 5, {"a": 1}, [1, "b", None, {"type": "x"}]])
            case "numbers of every kind":
                message["n"] = [1.0, 1e3, -0.0, 2**53 + 1, 10**30, 0.1 + 0.2, 1e-7, _INFINITE]
            case "fields of the future":
                message |= {"idempotencyKey": self.pick(["k1", "k2", 7]), "__proto__": {"a": 1}}
        return {"type": "message", "message": message}

    def _model_change(self) -> dict[str, Any]:
        provider, model = self.pick(_MODELS)
        fields = {"type": "model_change", "provider": provider, "modelId": model}
        if self.odd("a model change without some of its fields", 0.1):
            del fields[self.pick(["provider", "modelId"])]
        return fields

    def _level_change(self) -> dict[str, Any]:
        if self.odd("a level that is none", 0.1):
            return {"type": "thinking_level_change", **self.pick([{}, {"thinkingLevel": None}])}
        return {"type": "thinking_level_change", "thinkingLevel": self.pick(_LEVELS)}

    def _compaction(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"type": "compaction", "summary": self.text()}
        if self.is_linear and self.chance.random() < 0.7:
            lines = len(self.lines)
            fields["firstKeptEntryIndex"] = self.pick([0, 1, lines // 2, lines - 1, lines, 999])
        else:
            fields["firstKeptEntryId"] = self._first_kept()
        fields["tokensBefore"] = 50_000
        if self.chance.random() < 0.3:
            fields["details"] = {"readFiles": ["a.txt"], "modifiedFiles": []}
        if self.odd("a compaction without some of its fields", 0.05):
            del fields[self.pick(["tokensBefore", "summary"])]
        return fields

    def _first_kept(self) -> Any:
        near = self.path()[: self.chance.choice((1, 3, 10, 100))]
        if self.odd("a compaction that keeps nothing", 0.1):
            return self.pick([None, "", 5])
        if not near or self.odd("a kept entry that is not on the path", 0.1):
            return self.pick([*self.parents, "nobody"])
        return near[-1]

    def _branch_summary(self) -> dict[str, Any]:
        fields = {"type": "branch_summary", "fromId": self.pick([*self.parents, "root"])}
        fields["summary"] = self.pick(["", None]) if self.chance.random() < 0.2 else self.text()
        if self.odd("a branch summary without its origin", 0.1):
            del fields["fromId"]
        return fields

    def _custom(self) -> dict[str, Any]:
        data: Any = {"cursor": 3, "seen": [1.5, None, True]}
        if self.odd("deep data", 0.03):
            for _ in range(self.chance.choice((50, 400))):
                data = [data]
        return {"type": "custom", "customType": "example.state", "data": data}

    def _custom_message(self) -> dict[str, Any]:
        fields = {"type": "custom_message", "customType": "note", "content": self.content("custom")}
        fields |= {"display": True, "details": {"a": 1}}
        for name in ("display", "details", "customType"):
            if self.chance.random() < 0.2:
                del fields[name]
        return fields

    def _label(self) -> dict[str, Any]:
        label = {"label": "good"} if self.chance.random() < 0.7 else {}
        return {"type": "label", "targetId": self.pick([*self.parents, "nobody"]), **label}

    def _session_info(self) -> dict[str, Any]:
        return {"type": "session_info", "name": self.pick(["a name", ""])}

    # -- what happens to files -----------------------------------------------------------------

    def _damage(self) -> None:
        """Write a line that is no entry, now and then."""
        match self.now(
            ("a blank line", 0.01),
            ("a torn line", 0.005),
            ("a header in the middle", 0.01),
            ("a line that is no object", 0.01),
        ):
            case "a blank line":
                self.put(self.pick([b"", b"  ", b"\t"]))
            case "a torn line":
                line = self.encode(self._message())
                self.put(
                    self.pick([line[:-20], line + line, line[:-1] + b',"n":NaN}', b"\x00" * 40])
                )
            case "a line that is no object":
                self.put(self.pick([b"null", b"false", b"0", b'""']))
            case "a header in the middle":
                self.put(self.encode({"type": "session", "version": 3, "id": "again"}))

    def now(self, *moves: tuple[str, float]) -> str | None:
        """Return a move, but none of those that shift the lines that version 1 counts."""
        if self.is_linear:
            moves = tuple((move, 0 if move in _SHIFTS else share) for move, share in moves)
        return super().now(*moves)

    def encode(self, fields: dict[str, Any]) -> bytes:
        line = super().encode(fields)
        if self.odd("a line that is not UTF-8", 0.01):
            at = line.find(b": ") + 2  # within a text, where the line has one
            if at > 1:
                line = line[:at] + self.pick([b"\xe9", b"\xc4\xe3", b"\xf0\x9f"]) + line[at:]
        return line


@dataclass
class _Pi(_Tree):
    def _kinds(self) -> dict[Callable[[], dict[str, Any]], int]:
        return super()._kinds() | {
            self._edit: 0 if self.is_linear else 6,
            self._system: 3,
            self._usage: 1,
            self._of_the_future: 1,
        }

    def _new_id(self) -> Any:
        if self.odd("numbers for ids", 0.006):
            return 1_000 + len(self.lines)
        if self.odd("an empty id", 0.002):
            return ""
        return super()._new_id()

    def _odd_parents(self) -> tuple[Any, ...]:
        return (5, 5.5, True, False, {}, [])

    def _timestamp(self) -> Any:
        match self.now(
            ("a time that is none", 0.01),
            ("a number for a time", 0.01),
            ("a time of another form", 0.02),
        ):
            case "a time of another form":
                return self.pick(_TIMES)
            case "a time that is none":
                return self.pick([None, "not a time", _ABSENT, ""])
            case "a number for a time":
                return self.ms()
        return super()._timestamp()

    def _edit(self) -> dict[str, Any]:
        near = self.path()[:12]
        target = self.pick(near or ["nobody"])
        if self.odd("an edit of what is not on the path", 0.1):
            target = self.pick([*self.parents, "nobody"])
        content = self.pick(["edited", [{"type": "text", "text": "edited"}], []])
        replacement = None if self.chance.random() < 0.4 else {"content": content}
        return {"type": "context_edit", "targetId": target, "replacement": replacement}

    def _system(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "system", "content": self.text()}
        if self.chance.random() < 0.5:
            message["sections"] = {"time": {"content": self.text()}, "gone": None}
        return {"type": "message", "message": message | {"timestamp": self.ms()}}

    def _usage(self) -> dict[str, Any]:
        return {"type": "usage", "kind": "side", "model": "m", "usage": {"input": 1}}

    def _of_the_future(self) -> dict[str, Any]:
        return {"type": self.pick(["unheard_of", "tool_state"]), "data": {"a": self.text()}}

    def _message(self) -> dict[str, Any]:
        fields = super()._message()
        message = fields["message"]
        match self.now(("no content", 0.01), ("null for a content", 0.02)):
            case "no content":
                message.pop("content", None)
            case "null for a content":
                message["content"] = None
        return fields

    def _compaction(self) -> dict[str, Any]:
        fields = super()._compaction()
        if self.chance.random() < 0.4:
            fields["systemMessage"] = {"role": "system", "content": "", "timestamp": self.ms()}
        return fields

    def _custom_message(self) -> dict[str, Any]:
        fields = super()._custom_message()
        if self.odd("a custom message without a content", 0.05):
            fields["content"] = None
        return fields

    def _damage(self) -> None:
        super()._damage()
        if self.odd("an entry without a type", 0.01):
            self._place({"type": self.pick(["", 5, None, [], {}])}, self._new_id())
            # As the last line it ends a conversation for pi, and nothing for an import.
            self._place(self._message(), self._new_id())


@dataclass
class _OpenClaw(_Tree):
    of_the_future: set[Any] = field(default_factory=set)

    def _first_kept(self) -> Any:
        kept = super()._first_kept()
        return None if kept in self.of_the_future else kept

    def _step(self) -> None:
        if self.is_linear:
            super()._step()
            return
        match self.now(
            ("a leaf record", 0.04),
            ("a side append", 0.04),
            ("no parent", 0.04),
            ("a line of the future", 0.02),
        ):
            case "a line of the future" if "a torn line" not in self.moves:
                kind = self.pick(["tool_state", "", 5, None])
                entry_id = self._new_id()
                self._place({"type": kind, "data": self.text()}, entry_id, parent=self.leaf)
                self.of_the_future.add(entry_id)
            case "a leaf record":
                self._leaf_record()
            case "a side append":
                self._side_append()
            case "no parent":
                self._parentless()
            case _:
                super()._step()

    def _leaf_record(self) -> None:
        record_id = self._new_id()
        record = {"type": "leaf", "id": record_id, "parentId": self.leaf, "timestamp": self.iso()}
        target = self.pick([*self.parents, None])
        if self.odd("a leaf record of an entry that is not there", 0.1):
            target = "nobody"
        record["targetId"] = target
        self.put(self.encode(record))
        if target != "nobody":
            self.leaf = target
            if self.odd("an entry that names a leaf record", 0.3):
                entry_id = self._new_id()
                self._place(self._message(), entry_id, parent=record_id)
                self.parents[entry_id] = target

    def _side_append(self) -> None:
        """Write a mirror of a delivery, and return to the conversation as OpenClaw does."""
        before = self.leaf
        mirror = self._message()
        if self.chance.random() < 0.5:
            mirror["appendMode"] = "side"
            self._place(mirror, self._new_id())
        else:
            self._place(mirror, self._new_id())
            aside = self.leaf
            record = {"type": "leaf", "id": self._new_id(), "parentId": aside}
            record |= {"timestamp": self.iso(), "targetId": before, "appendParentId": aside}
            self.put(self.encode(record | {"appendMode": "side"}))
        aside, self.leaf = self.leaf, before
        if self.chance.random() < 0.7:
            # The next entry names the end of the side append, and means the leaf.
            fields, entry_id = self._message(), self._new_id()
            self.put(
                self.encode(
                    {"type": "message", "id": entry_id, "parentId": aside, "timestamp": self.iso()}
                    | fields
                )
            )
            self.parents[entry_id] = before
            self.leaf = entry_id

    def _parentless(self) -> None:
        entry_id = self._new_id()
        fields = self._message()
        line = {"type": "message", "id": entry_id, "timestamp": self.iso()} | fields
        self.put(self.encode(line))
        self.parents[entry_id] = self.leaf
        self.leaf = entry_id

    def _message(self) -> dict[str, Any]:
        fields = super()._message()
        message = fields["message"]
        if message["role"] in ("assistant", "toolResult") and self.odd("a text for a list", 0.04):
            message["content"] = self.text()
        elif message["role"] == "toolResult" and self.odd("a block for a list", 0.1):
            message["content"] = {"type": "text", "text": self.text()}
        return fields


@dataclass
class _Sdk(_Writer):
    """The files of pi's SDK. Its reader refuses what its programs do not write."""

    seq: int = 0
    lanes: dict[str, Any] = field(default_factory=lambda: {"main": None})

    def write(self) -> bytes:
        header = {"kind": "header", "version": 4, "id": self.session_id(), "createdAt": self.ms()}
        self.put(self.encode(header | {"cwd": "/home/ana/work"}))
        for _ in range(self.chance.choice((1, 5, 20, 40))):
            for line in self._step():
                self.put(self.encode(line))
        return self.joined()

    def joined(self) -> bytes:
        self.moves.discard("carriage returns")
        content = b"\n".join(self.lines) + b"\n"
        if self.odd("a torn tail", 0.1):
            return content[:-10]
        return content

    def _step(self) -> Iterator[dict[str, Any]]:
        match self.chance.choices(("entry", "record", "lane", "fact"), (80, 8, 8, 4))[0]:
            case "entry":
                yield self._entry()
            case "record":
                yield {
                    "kind": "record",
                    "type": "operation_started",
                    "id": f"r{len(self.lines)}",
                    "lane": "main",
                    "intent": {"kind": "run"},
                    "seq": self._next(),
                    "timestamp": self.ms(),
                }
            case "lane":
                lane = self.pick(["main", "aside"])
                self.lanes[lane] = self.pick([*self.parents, None])
                yield {
                    "kind": "lane",
                    "seq": self._next(),
                    "lane": lane,
                    "leafId": self.lanes[lane],
                }
            case _:
                yield {"kind": "fact", "seq": self._next(), "fact": "name", "name": self.text()}

    def _next(self) -> int:
        self.seq += 1
        return self.seq

    def _entry(self) -> dict[str, Any]:
        lane = self.pick(self.lanes)
        entry_id = f"01a2{self.chance.getrandbits(48):012x}"
        placed = {"kind": "entry", "lane": lane, "id": entry_id, "parentId": self.lanes[lane]}
        fields = self.pick((self._message, self._message, self._message, self._other))()
        self.parents[entry_id], self.lanes[lane] = self.lanes[lane], entry_id
        return placed | fields | {"seq": self._next(), "timestamp": self.ms()}

    def _message(self) -> dict[str, Any]:
        message = self.message()
        if message["role"] == "assistant" and self.odd("a deferred reply", 0.05):
            message["stopReason"] = "deferred"
        return {"type": "message", "message": message}

    def _other(self) -> dict[str, Any]:
        provider, model = self.pick(_MODELS)
        return self.pick(
            (
                {"type": "model_change", "provider": provider, "modelId": model},
                {"type": "thinking_level_change", "thinkingLevel": self.pick(_LEVELS)},
                {"type": "active_tools_change", "activeToolNames": ["read"]},
                {"type": "branch_summary", "fromId": "root", "summary": self.text()},
                {"type": "custom", "customType": "state", "data": 1},
                {
                    "type": "compaction",
                    "summary": self.text(),
                    "tokensBefore": 10,
                    "retainedTail": [self.message() for _ in range(self.chance.randrange(3))],
                },
            )
        )


_WRITERS: Final[dict[str, Callable[[random.Random, int, frozenset[str]], _Writer]]] = {
    "pi": _Pi,
    "openclaw": _OpenClaw,
    "sdk": _Sdk,
}

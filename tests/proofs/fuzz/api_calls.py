"""Calls of the API with arguments that a careless caller may pass.

A `Draw` draws arguments. Texts are empty, a megabyte long, not Unicode, or full of control
characters. Numbers are negative, infinite, not numbers, or past 64 bits. Objects stand where a
text belongs. `undeclared` is set when an argument is not of the declared type.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import sessiondb
from sessiondb.openclaw_settings import reset_policy, resume_policy
from tests.proofs.fuzz.inputs import Chance
from tests.proofs.fuzz.properties import INPUTS

CALLS = 120 if INPUTS else 60
TEXTS = (
    "",
    " ",
    "x",
    "main",
    "\0",
    "a\0b",
    "\ud800",
    "x\ud83d",
    "é",
    "漢🙂",
    "\x1b[2J",
    "\x9b",
    "\u202e",
    "\n",
    "a\nb",
    "..",
    "../x",
    "/",
    "a/b",
    "-x",
    "--",
    "x" * 256,
    "x" * 600,
    "x" * 1_100,
    "%s",
    "'; DROP TABLE entry; --",
    ":x",
    "?1",
    "1",
    "null",
    "{}",
    "[]",
    '{"role":"user","content":"x"}',
    '{"role":"user",\n"message"\n:{}}',
    '{"type":"session"}',
    '{"role":"user","content":NaN}',
)
MEGABYTE = "x" * 1_000_000
INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    100,
    1_000,
    1_001,
    2**31,
    2**32,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**64,
    10**30,
    True,
    False,
)
FLOATS = (0.0, -0.0, 0.5, -1.0, 1e-300, 1e300, math.inf, -math.inf, math.nan)
KEYS = (
    "agent:main:main",
    "agent:main:discord:channel:1",
    "AGENT:Main:X",
    "agent:a:b:thread:c",
    "agent::",
    "agent:main:",
    "agent",
    "main:x",
    "agent:\ud800:x",
    "agent:main:\0",
    "agent:main:" + "x" * 2_000,
    "agent:İ:x",
    "agent:main:\x9b",
    "agent:main:\u202e",
)
ODD = (None, 5, 1.5, b"x", b"\xff", [], ["a"], {}, {"a": 1}, ())


class Draw:
    """Arguments for calls."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.json = Chance(chance)
        self.undeclared = False

    def _odd(self) -> Any:
        self.undeclared = True
        return self.chance.choice(ODD)

    def text(self, *others: str) -> Any:
        return (
            self.chance.choice((*TEXTS, MEGABYTE, *others))
            if self.chance.random() < 0.93
            else self._odd()
        )

    def key(self) -> Any:
        return self.text(*KEYS * 4)

    def integer(self) -> Any:
        return self.chance.choice(INTEGERS) if self.chance.random() < 0.93 else self._odd()

    def seconds(self) -> Any:
        return (
            self.chance.choice((*FLOATS, 1, 0, -1)) if self.chance.random() < 0.93 else self._odd()
        )

    def value(self, depth: int = 3) -> Any:
        """Return a value that JSON, or a Python program, may hold."""
        kind = self.chance.randrange(9 if depth else 6)
        if kind < 3:
            return self.chance.choice(TEXTS)
        if kind < 6:
            return self.chance.choice((*INTEGERS, *FLOATS, None))
        if kind == 6:
            return [self.value(depth - 1) for _ in range(self.chance.randrange(4))]
        return {
            self.chance.choice((*TEXTS, "role", "content", "type", "id")): self.value(depth - 1)
            for _ in range(self.chance.randrange(5))
        }

    def item(self) -> Any:
        """Return an item to append: a message or an entry, as a dict, text or bytes, or nearly."""
        kind = self.chance.randrange(10)
        if kind < 2:
            content = self.value() if self.chance.randrange(20) else MEGABYTE
            return {
                "role": self.chance.choice(("user", "assistant", "toolResult")),
                "content": content,
            }
        if kind == 2:
            return {"role": self.value(0), "content": self.value(), **self._object()}
        if kind == 3:
            return {
                "type": self.chance.choice(
                    ("message", "custom", "compaction", "reset", "leaf", "session", "label")
                ),
                **self._object(),
            }
        if kind == 4:
            deep: Any = self.value()
            for _ in range(self.chance.choice((10, 400, 499, 501, 2_000))):
                deep = [deep]
            return {"role": "user", "content": deep}
        if kind < 8:
            text = self.json.entry() if kind == 5 else self.json.message()
            return text if self.chance.random() < 0.5 else text.encode(errors="surrogatepass")
        if kind == 8:
            return self.json.line()
        return self.text()

    def _object(self) -> dict[Any, Any]:
        found = self.value()
        return found if isinstance(found, dict) else {"message": found}


Call = Callable[[], Awaitable[Any]]


def calls(
    db: sessiondb.SessionDB, talk: sessiondb.Session, draw: Draw, work: Path
) -> dict[str, Call]:
    """Return one call of each kind. Its arguments are drawn when it is made."""
    listed = draw.chance.randrange(4)
    return {
        "session": lambda: db.session(draw.key(), cwd=draw.text()),
        "create_session": lambda: db.create_session(
            draw.text(), agent_id=draw.text(), cwd=draw.text()
        ),
        "session_for": lambda: db.session_for(
            draw.text(), draw.text(), create=draw.chance.random() < 0.5, agent_id=draw.text()
        ),
        "session_by_id": lambda: db.session_by_id(draw.key()),
        "find": lambda: db.find(draw.key()),
        "sessions": lambda: anext(
            db.sessions(
                agent_id=draw.chance.choice((None, draw.text())),
                namespace=draw.chance.choice((None, draw.text())),
                key_prefix=draw.chance.choice((None, draw.text())),
                newest_first=draw.chance.random() < 0.5,
            ),
            None,
        ),
        "bind": lambda: db.bind(draw.key(), talk),
        "unbind": lambda: db.unbind(draw.key()),
        "append": lambda: talk.append(
            draw.item(), idempotency_key=draw.chance.choice((None, None, draw.text()))
        ),
        "append again": lambda: talk.append(draw.item()),
        "append in time": lambda: talk.append(
            {"role": "user", "content": "x"}, timeout_s=draw.seconds()
        ),
        "append_many": lambda: talk.append_many([draw.item() for _ in range(listed)]),
        "append_many with keys": lambda: talk.append_many(
            [sessiondb.Item(draw.item(), key=draw.text()) for _ in range(listed)]
        ),
        "entries": lambda: talk.entries(
            after=draw.chance.choice((None, draw.integer())),
            limit=draw.integer(),
            newest_first=listed > 1,
        ),
        "entries before": lambda: talk.entries(before=draw.integer()),
        "entries last": lambda: talk.entries(last=draw.integer()),
        "all entries": lambda: talk.all_entries(
            after=draw.chance.choice((None, draw.integer())), limit=draw.integer()
        ),
        "context": lambda: talk.context(epoch=draw.integer()),
        "branch": lambda: talk.branch(draw.text()),
        "reset": lambda: talk.reset(
            draw.text("new", "reset", "daily", "idle"), keep_from=draw.text()
        ),
        "fork": lambda: talk.fork(entry=draw.text(), key=draw.key(), session_id=draw.text()),
        "fork epoch": lambda: talk.fork(epoch=draw.integer(), session_id=draw.text()),
        "compact": lambda: compacted(talk, draw),
        "compact late": lambda: compacted(talk, draw, keep_recent_tokens=1),
        "commit_compaction": lambda: db.commit_compaction(
            draw.text(), draw.text(), details=draw.value()
        ),
        "fail_compaction": lambda: db.fail_compaction(draw.text(), draw.text()),
        "undo_compaction": talk.undo_compaction,
        "accept": lambda: db.accept(
            draw.key(),
            message(draw),
            channel=draw.chance.choice(TEXTS),
            event_id=draw.chance.choice(TEXTS),
        ),
        "accept in lane": lambda: db.accept(
            "agent:main:in",
            message(draw),
            channel="s",
            event_id=draw.chance.choice(TEXTS),
            lane=draw.text("main", "cron"),
        ),
        "requeue": lambda: db.requeue(draw.integer()),
        "drop": lambda: db.drop(draw.integer()),
        "abort_turn": lambda: db.abort_turn(draw.integer(), draw.text()),
        "settle_reply": lambda: db.settle_reply(draw.integer(), draw.text("sent", "pending")),
        "set_lane": lambda: db.set_lane(
            draw.text("main"), concurrency=draw.chance.choice(INTEGERS), priority=draw.integer()
        ),
        "reset_if_due": lambda: reset_if_due(db, draw),
        "plan_resumes": lambda: plan_resumes(db, draw),
        "import_path": lambda: db.import_path(
            f"{work}/{draw.text()}" if listed else work / "missing"
        ),
        "export": lambda: db.export(work / "out", session=draw.chance.choice(TEXTS)),
        "export to": lambda: db.export(
            draw.chance.choice(("a\0b", "\ud800", str(work / "file.txt" / "below")))
        ),
        "verify": lambda: db.verify(talk),
    }


def message(draw: Draw) -> Any:
    """Return a message to accept: a dict or a text with any content."""
    item = draw.item()
    return (
        item.decode(errors="replace")
        if isinstance(item, bytes)
        else item
        if isinstance(item, dict | str)
        else str(item)
    )


async def compacted(talk: sessiondb.Session, draw: Draw, **options: Any) -> Any:
    options = options or {
        "keep_recent_tokens": draw.chance.choice(INTEGERS),
        "timeout_s": draw.seconds(),
    }
    async with talk.compact(
        trigger=draw.chance.choice(("manual", "threshold", *TEXTS)), **options
    ) as job:
        return await job.commit(
            draw.chance.choice(TEXTS),
            details=draw.value(),
            from_hook=draw.chance.choice((None, True)),
        )


def draw_settings(draw: Draw) -> dict[str, Any]:
    """Return a settings object of OpenClaw's, valid in some parts only."""
    names = (
        "mode",
        "atHour",
        "idleMinutes",
        "pruneAfter",
        "maxEntries",
        "maxDiskBytes",
        "highWaterBytes",
        "preserveRecent",
        "maxAgeHours",
        "idleHours",
        "resetArchiveRetention",
    )
    amounts = (
        "30d",
        "1w",
        "-1d",
        "9" * 400 + "d",
        "1e9gb",
        "0.5h",
        "10gb",
        "daily",
        "idle",
        "warn",
        3,
        0,
        False,
        *INTEGERS,
        *FLOATS,
    )

    def part() -> Any:
        chosen = draw.chance.sample(names, draw.chance.randrange(4))
        fields = {
            name: draw.chance.choice(amounts) if draw.chance.random() < 0.7 else draw.value()
            for name in chosen
        }
        return fields if draw.chance.random() < 0.85 else draw.value()

    session = {
        name: part()
        for name in ("reset", "maintenance", "threadBindings")
        if draw.chance.random() < 0.7
    }
    session |= {
        name: {draw.chance.choice(("direct", "dm", "group", "thread", "discord", *TEXTS)): part()}
        for name in ("resetByType", "resetByChannel")
    }
    return draw.chance.choice(
        (
            {"session": session},
            session,
            {"session": draw.value()},
            {draw.chance.choice(TEXTS): draw.value()},
        )
    )


async def reset_if_due(db: sessiondb.SessionDB, draw: Draw) -> Any:
    policy = reset_policy(
        draw_settings(draw), time_zone=draw.chance.choice((None, "Europe/Vienna", *TEXTS))
    )
    return await db.reset_if_due(draw.chance.choice(KEYS), policy)


async def plan_resumes(db: sessiondb.SessionDB, draw: Draw) -> Any:
    return await db.plan_resumes(resume_policy(draw_settings(draw)))

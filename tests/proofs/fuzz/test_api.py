"""Whatever a caller passes, a call answers with a typed error or does what it says, and never half of it.

A course is a few dozen calls with arguments that JSON can say and that a channel, a settings file or a careless caller
may well hand on: texts that are empty, a megabyte long, not Unicode, or full of control characters; numbers that are negative,
infinite, not numbers, or past 64 bits; objects where a text is meant. Two rules about what may be raised:

* an argument of a declared type, with whatever value: a `SessionDBError`, and nothing else;
* an argument of another type: a `SessionDBError`, or a `TypeError` as Python's own functions raise it.

A write that raised has changed nothing: the rows of every table are the same as before. After a course, `verify` finds nothing.

`SESSIONDB_FUZZ` makes more and longer courses.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb import json_text
from sessiondb.errors import SessionDBError, outcome_of
from sessiondb.openclaw_settings import reset_policy, resume_policy, retention_policy
from sessiondb.transcript import entries
from tests.proofs.fuzz.inputs import Chance
from tests.proofs.fuzz.properties import INPUTS, SEED, Broken, watched
from tests.support.transfer import NOT_COMPARED

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]

COURSES = max(2, INPUTS // 5_000)
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
        """Return something to append: a message or an entry, as a dict, text or bytes; or nearly."""
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
    """Return one call of each kind; its arguments are drawn when it is made."""
    listed = draw.chance.randrange(4)
    return {
        "session": lambda: db.session(draw.key(), cwd=draw.text()),
        "create_session": lambda: db.create_session(
            draw.text(), agent_id=draw.text(), cwd=draw.text()
        ),
        "session_by_id": lambda: db.session_by_id(draw.key()),
        "sessions": lambda: anext(db.sessions(agent_id=draw.text()), None),
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
            [draw.item(), draw.item()], idempotency_keys=[draw.text() for _ in range(listed)]
        ),
        "entries": lambda: talk.entries(
            after=draw.chance.choice((None, draw.integer())),
            limit=draw.integer(),
            newest_first=listed > 1,
        ),
        "entries before": lambda: talk.entries(before=draw.integer()),
        "tail": lambda: talk.tail(draw.integer()),
        "arrivals": lambda: talk.arrivals(after_seq=draw.integer(), limit=draw.integer()),
        "context": lambda: talk.context(epoch=draw.integer()),
        "branch": lambda: talk.branch(draw.text()),
        "reset": lambda: talk.reset(
            draw.text("new", "reset", "daily", "idle"), keep_from=draw.text()
        ),
        "fork": lambda: talk.fork(entry_id=draw.text(), key=draw.key(), session_id=draw.text()),
        "fork epoch": lambda: talk.fork(epoch=draw.integer(), session_id=draw.text()),
        "compact": lambda: compacted(talk, draw),
        "compact late": lambda: compacted(talk, draw, keep_recent_tokens=1),
        "commit_compaction": lambda: db.commit_compaction(
            draw.text(), draw.text(), details=draw.value()
        ),
        "fail_compaction": lambda: db.fail_compaction(draw.text(), draw.text()),
        "undo_compaction": talk.undo_compaction,
        "accept": lambda: db.accept(
            draw.chance.choice(TEXTS), draw.chance.choice(TEXTS), draw.key(), message(draw)
        ),
        "accept in lane": lambda: db.accept(
            "s",
            draw.chance.choice(TEXTS),
            "agent:main:in",
            message(draw),
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
        "import_path": lambda: db.import_path(str(draw.text()) if listed else work / "missing"),
        "export": lambda: db.export(work / "out", session=draw.chance.choice(TEXTS)),
        "export to": lambda: db.export(
            draw.chance.choice(("a\0b", "\ud800", str(work / "file.txt" / "below")))
        ),
        "verify": lambda: db.verify(talk),
    }


def message(draw: Draw) -> Any:
    """Return something to accept: a dict or a text, whatever is in it."""
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


def settings(draw: Draw) -> dict[str, Any]:
    """Return a settings object of OpenClaw's: some of it as it should be, some not."""
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
        settings(draw), time_zone=draw.chance.choice((None, "Europe/Vienna", *TEXTS))
    )
    return await db.reset_if_due(draw.chance.choice(KEYS), policy)


async def plan_resumes(db: sessiondb.SessionDB, draw: Draw) -> Any:
    return await db.plan_resumes(resume_policy(settings(draw)))


ONLY_COUNTED = {"entry", "inbox", "event", "import_file", "quarantine"}


def rows_of(db: Path) -> dict[str, list[Any]]:
    """Return the rows of every table, read through a connection of its own beside the open database (the same library).

    Of tables whose rows are only added by these calls, how many there are.
    """
    found: dict[str, list[Any]] = {}
    connection = apsw.Connection(str(db), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.execute("BEGIN")
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
        ).fetchall():
            if name not in NOT_COMPARED:
                what = "count(*)" if name in ONLY_COUNTED else "*"
                found[name] = connection.execute(f"SELECT {what} FROM {name}").fetchall()
    finally:
        connection.close()
    return found


async def prepare_talk(talk: sessiondb.Session) -> None:
    """Give a conversation something to compact."""
    await talk.append_many(
        [
            {"role": "user" if at % 2 == 0 else "assistant", "content": f"text {at} " * 30}
            for at in range(6)
        ]
    )


async def run_course(chance: random.Random, path: Path, report: Counter[str]) -> None:
    """Make calls, one after the other; whatever one raises, it is typed and has changed nothing."""
    draw = Draw(chance)
    async with sessiondb.open(
        path, durability="normal"
    ) as db:  # what is tried here does not depend on syncs
        talk = await db.session("agent:main:main")
        await prepare_talk(talk)
        for number in range(CALLS):
            created = calls(db, talk, draw, path.parent)
            name = chance.choice(list(created))
            draw.undeclared = False
            before = rows_of(path)
            try:
                await created[name]()
                report["done"] += 1
            except (SessionDBError, TypeError) as error:
                report[type(error).__name__] += 1
                if not isinstance(error, SessionDBError) and not draw.undeclared:
                    raise Broken(
                        f"call {number}, {name}: an argument of a declared type raised {error!r}"
                    ) from error
                # A compaction that was begun and not committed leaves its job, with its end, and has to.
                same = name.startswith("compact") or rows_of(path) == before
                if not same or outcome_of(error) == "unknown":
                    raise Broken(
                        f"call {number}, {name}: {error!r} left something behind"
                    ) from error
            except Exception as error:
                raise Broken(f"call {number}, {name}: {type(error).__name__}: {error}") from error
        try:
            [*(await talk.context()).messages]
            await talk.append({"role": "user", "content": "still there"})
        except SessionDBError as error:
            raise Broken(f"the conversation cannot go on: {error!r}") from error
        findings = (await db.verify()).findings
        if findings:
            raise Broken(f"verify: {findings}")


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what differs between them has tests of its own."""
    return "asyncio"


async def appending_one_by_one(self: sessiondb.Session, items: Any, **_: Any) -> Any:
    """What `append_many` would be if it were a loop: the first ones stay when a later one is refused."""
    return [await self.append(item) for item in items]


async def test_a_call_that_leaves_half_of_its_work_behind_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessiondb.Session, "append_many", appending_one_by_one)
    monkeypatch.setattr(
        "tests.proofs.fuzz.test_api.calls",
        lambda db, talk, draw, work: {
            "append_many": lambda: talk.append_many([{"role": "user"}, draw.item()])
        },
    )
    monkeypatch.setattr("tests.proofs.fuzz.test_api.prepare_talk", no_preparation)
    with pytest.raises(Broken, match="left something behind"):
        await run_course(random.Random(SEED), tmp_path / "one.db", Counter())


async def test_a_call_that_lets_another_librarys_error_through_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "dumps", json_text._encoder.encode)
    monkeypatch.setattr(
        "tests.proofs.fuzz.test_api.calls",
        lambda db, talk, draw, work: {"append": lambda: talk.append(draw.item())},
    )
    with pytest.raises(Broken, match=r"append: (Value|Recursion|Unicode)"):
        await run_course(random.Random(SEED), tmp_path / "one.db", Counter())


async def no_preparation(talk: sessiondb.Session) -> None:
    """For a talk whose `append_many` is broken."""


async def test_every_call_takes_any_argument_and_answers_with_a_typed_error_or_does_it(
    tmp_path: Path,
) -> None:
    report: Counter[str] = Counter()
    for number in range(COURSES):
        (tmp_path / str(number)).mkdir()
        try:
            await run_course(
                random.Random(SEED * 104_729 + number), tmp_path / str(number) / "one.db", report
            )
        except Broken as broken:
            raise Broken(f"course {number} of seed {SEED}: {broken}") from broken
    print(
        f"\nfuzz: seed {SEED}: {COURSES} courses, {report.total():,} calls: {json.dumps(dict(report.most_common()))}"
    )
    assert report["done"] > CALLS * COURSES // 10
    assert report["InvalidInput"] > CALLS * COURSES // 10


def test_any_settings_make_a_policy_or_a_typed_error() -> None:
    created = refused = 0
    for number in range(INPUTS or 800):
        draw = Draw(random.Random(SEED * 15_485_863 + number))
        for make in (reset_policy, resume_policy, retention_policy):
            args = settings(draw)
            try:
                make(args)
                created += 1
            except sessiondb.InvalidInput:
                refused += 1
            except Exception as error:
                raise Broken(
                    f"input {number} of seed {SEED}: {make.__name__}({args!r:.400}): {type(error).__name__}: {error}"
                ) from error
    print(f"\nfuzz: seed {SEED}: {created:,} policies, {refused:,} refusals")
    assert created > 100
    assert refused > 100


# -- what was found -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncIterator[sessiondb.Session]:
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        yield await db.session("agent:main:main")
        assert (await db.verify()).findings == ()


TORN = '{"role":"user","content":[' + "{}," * 600 + '"' + "a text that nobody ended " * 4


async def test_found_an_append_of_a_torn_text_with_many_brackets_took_for_ever(
    talk: sessiondb.Session,
) -> None:
    with watched(), pytest.raises(sessiondb.InvalidInput, match="not JSON"):
        await talk.append(TORN)


async def test_found_a_line_break_before_a_colon_was_an_assertion_and_is_an_error_that_says_what_is_wrong(
    talk: sessiondb.Session,
) -> None:
    with pytest.raises(sessiondb.InvalidInput, match="must be on one line"):
        await talk.append('{"type":"message",\n"message"\n:\n{"role":"user"}}')


@pytest.mark.parametrize(
    "item",
    [
        '{"role":"assistant","content":"x","usage":{"totalTokens":' + "9" * 400 + "}}",
        {"role": "assistant", "content": "x", "usage": {"totalTokens": 10**400}},
        {"role": "assistant", "content": 5},
        {"role": "assistant", "content": [{"type": "toolCall", "id": [1], "name": {}}]},
        {"role": "toolResult", "toolCallId": {"a": 1}, "content": None},
        {
            "role": "assistant",
            "providerReplay": {"type": ["anthropic-compaction"]},
            "content": True,
        },
        '{"type":"model_change","provider":1e999,"modelId":' + "9" * 5_000 + "}",
        '{"type":"custom_message","content":' + "[" * 490 + "1e999" + "]" * 490 + "}",
    ],
    ids=["count", "count-dict", "content", "call", "result", "replay", "model", "infinite"],
)
async def test_found_a_message_of_odd_types_is_stored_and_read_in_every_way(
    talk: sessiondb.Session, item: Any
) -> None:
    first = await talk.append({"role": "user", "content": "first"})
    await talk.append(item)
    await talk.append({"role": "user", "content": 9_007_199_254_740_993})
    for _ in range(2):
        context = await talk.context()
        assert context.messages[-1]["content"] == 9_007_199_254_740_993
        assert isinstance(context.messages[-1]["content"], int), (
            "a number past the digit limit changes its neighbours"
        )
        assert set(json.loads(context.as_pi_json(), parse_int=len)) == {
            "messages",
            "thinkingLevel",
            "model",
        }
        await talk.reset(keep_from=first.entry_id)


async def test_found_an_entry_of_more_values_than_memory_has_room_for_is_refused(
    talk: sessiondb.Session,
) -> None:
    with pytest.raises(sessiondb.InvalidInput, match="too many values: more than 1,000,000"):
        await talk.append('{"type":"custom","data":[' + "[]," * 1_000_000 + "0]}")
    await talk.append('{"type":"custom","data":"' + "[]," * 1_000_000 + '"}')


async def test_found_half_an_emoji_for_a_role_made_verify_call_the_database_damaged(
    tmp_path: Path,
) -> None:
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        await db.accept("s", "1", "agent:main:main", {"role": "\ud83d", "content": "x"})
        await db.accept(
            "s", "2", "agent:main:main", '{"role":"user","role":"assistant","content":"x"}'
        )
        assert (await db.verify()).findings == ()


@pytest.mark.parametrize("timeout_s", [math.nan, math.inf, 0, -1.0])
async def test_found_a_compaction_with_a_time_that_is_none_is_refused_before_it_begins(
    talk: sessiondb.Session, timeout_s: float
) -> None:
    with pytest.raises(sessiondb.InvalidInput):
        talk.compact(timeout_s=timeout_s)


@pytest.mark.parametrize("limit", [1.5, math.nan, "1", None])
async def test_found_a_limit_that_is_no_number_is_a_typed_error(
    talk: sessiondb.Session, limit: Any
) -> None:
    for read in (talk.entries, talk.arrivals):
        with pytest.raises(sessiondb.InvalidInput):
            await read(limit=limit)


@pytest.mark.parametrize("odd", [5, None, b"x", ["a"], {}])
async def test_found_a_key_an_id_or_an_entry_of_another_type_is_a_typed_error(
    talk: sessiondb.Session, odd: Any
) -> None:
    with pytest.raises(sessiondb.InvalidKey):
        await talk.db.session(odd)
    if odd is not None:
        with pytest.raises(sessiondb.InvalidInput):
            await talk.db.create_session(odd)
        with pytest.raises(sessiondb.InvalidInput):
            await talk.append({"role": "user"}, idempotency_key=odd)
    if not isinstance(odd, dict | bytes):
        with pytest.raises(sessiondb.InvalidInput):
            await talk.append(odd)

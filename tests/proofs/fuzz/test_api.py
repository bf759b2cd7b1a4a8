"""Whatever a caller passes, a call raises a typed error or does what it says, and never half of it.

A course is a few dozen calls with the arguments of `api_calls.py`. Two rules say what a call may
raise:

* for an argument of a declared type, with any value: a `SessionDBError`, and nothing else.
* for an argument of another type: a `SessionDBError`, or a `TypeError` like Python's own functions.

A write that raised has changed nothing: the rows of every table are the same as before. After a
course, `verify` finds nothing.

`SESSIONDB_FUZZ` makes more and longer courses.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb import json_text
from sessiondb.errors import SessionDBError, outcome_of
from sessiondb.openclaw_settings import reset_policy, resume_policy, retention_policy
from sessiondb.transcript import entries
from tests.proofs.fuzz.api_calls import CALLS, Draw, calls, draw_settings
from tests.proofs.fuzz.properties import INPUTS, SEED, Broken, watched
from tests.support.transfer import NOT_COMPARED

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]

COURSES = max(2, INPUTS // 5_000)
ONLY_COUNTED = {"entry", "inbox", "event", "import_file", "quarantine"}


def rows_of(db: Path) -> dict[str, list[Any]]:
    """Return the rows of every table, read through a second connection of the same library.

    For a table to which these calls only add rows, return their number.
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
    """Append enough to a conversation for a compaction."""
    await talk.append_many(
        [
            {"role": "user" if at % 2 == 0 else "assistant", "content": f"text {at} " * 30}
            for at in range(6)
        ]
    )


async def run_course(chance: random.Random, path: Path, report: Counter[str]) -> None:
    """Make calls, one after the other. A call that raises a typed error changed nothing."""
    draw = Draw(chance)
    # Durability is normal, because nothing here depends on syncs.
    async with sessiondb.open(path, durability="normal") as db:
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
                # A compaction that was begun and not committed has to leave its job, with its end.
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
            raise Broken(f"the conversation cannot be continued: {error!r}") from error
        findings = (await db.verify()).findings
        if findings:
            raise Broken(f"verify: {findings}")


async def appending_one_by_one(self: sessiondb.Session, items: Any, **_: Any) -> Any:
    """Append in a loop, as a careless `append_many` would: items before a refused one stay."""
    return [await self.append(item) for item in items]


async def test_a_call_that_does_half_of_its_work_is_found_out(
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


async def test_a_call_that_lets_an_untyped_error_out_is_found_out(
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


async def test_every_call_does_its_work_or_raises_a_typed_error(
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
    outcomes = json.dumps(dict(report.most_common()))
    print(f"\nfuzz: seed {SEED}: {COURSES} courses, {report.total():,} calls: {outcomes}")
    assert report["done"] > CALLS * COURSES // 10
    assert report["InvalidInput"] > CALLS * COURSES // 10


def test_any_settings_make_a_policy_or_a_typed_error() -> None:
    created = refused = 0
    for number in range(INPUTS or 800):
        draw = Draw(random.Random(SEED * 15_485_863 + number))
        for make in (reset_policy, resume_policy, retention_policy):
            args = draw_settings(draw)
            try:
                make(args)
                created += 1
            except sessiondb.InvalidInput:
                refused += 1
            except Exception as error:
                raise Broken(
                    f"input {number} of seed {SEED}: {make.__name__}({args!r:.400}): "
                    f"{type(error).__name__}: {error}"
                ) from error
    print(f"\nfuzz: seed {SEED}: {created:,} policies, {refused:,} refusals")
    assert created > 100
    assert refused > 100


# -- findings --------------------------------------------------------------------------------------


@pytest.fixture
async def talk(tmp_path: Path) -> AsyncIterator[sessiondb.Session]:
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        yield await db.session("agent:main:main")
        assert (await db.verify()).findings == ()


TORN = '{"role":"user","content":[' + "{}," * 600 + '"' + "a text that nobody ended " * 4


async def test_found_a_torn_text_with_many_brackets_took_forever(
    talk: sessiondb.Session,
) -> None:
    with watched(), pytest.raises(sessiondb.InvalidInput, match="not JSON"):
        await talk.append(TORN)


async def test_found_a_line_break_before_a_colon_was_an_assertion(
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
async def test_found_a_message_of_odd_types_is_stored_and_read(
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


async def test_found_an_entry_of_too_many_values_is_refused(
    talk: sessiondb.Session,
) -> None:
    with pytest.raises(sessiondb.InvalidInput, match="too many values: more than 1,000,000"):
        await talk.append('{"type":"custom","data":[' + "[]," * 1_000_000 + "0]}")
    await talk.append('{"type":"custom","data":"' + "[]," * 1_000_000 + '"}')


async def test_found_half_an_emoji_for_a_role_looked_like_damage(
    tmp_path: Path,
) -> None:
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        await db.accept(
            "agent:main:main", {"role": "\ud83d", "content": "x"}, channel="s", event_id="1"
        )
        await db.accept(
            "agent:main:main",
            '{"role":"user","role":"assistant","content":"x"}',
            channel="s",
            event_id="2",
        )
        assert (await db.verify()).findings == ()


@pytest.mark.parametrize("timeout_s", [math.nan, math.inf, 0, -1.0])
async def test_found_a_compaction_with_an_invalid_time_is_refused(
    talk: sessiondb.Session, timeout_s: float
) -> None:
    with pytest.raises(sessiondb.InvalidInput):
        talk.compact(timeout_s=timeout_s)


@pytest.mark.parametrize("limit", [1.5, math.nan, "1", None])
async def test_found_a_limit_that_is_no_number_is_a_typed_error(
    talk: sessiondb.Session, limit: Any
) -> None:
    for read in (talk.entries, talk.all_entries):
        with pytest.raises(sessiondb.InvalidInput):
            await read(limit=limit)


@pytest.mark.parametrize("odd", [5, None, b"x", ["a"], {}])
async def test_found_an_argument_of_another_type_is_a_typed_error(
    talk: sessiondb.Session, odd: Any
) -> None:
    with pytest.raises(sessiondb.InvalidInput):
        await talk.db.session(odd)
    if odd is not None:
        with pytest.raises(sessiondb.InvalidInput):
            await talk.db.create_session(odd)
        with pytest.raises(sessiondb.InvalidInput):
            await talk.append({"role": "user"}, idempotency_key=odd)
    if not isinstance(odd, dict | bytes):
        with pytest.raises(sessiondb.InvalidInput):
            await talk.append(odd)

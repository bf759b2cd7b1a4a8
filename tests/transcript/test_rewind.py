"""Going back in a conversation, under conditions, beside writers in this and another process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import (
    HeadMoved,
    IdentityConflict,
    InvalidInput,
    Item,
    NotFound,
    PartlyStored,
    Session,
)
from sessiondb.limits import POP_MESSAGES_MAX, REWIND_SCAN_ROWS
from tests.support.core import ids_of, reply, result, texts, user, whole_path

pytestmark = pytest.mark.anyio

NOTE = {"type": "custom", "customType": "note", "data": {}}


async def seen(session: Session) -> list[str]:
    return texts(await session.context())


def said(entries: list[sessiondb.Entry]) -> list[Any]:
    return [json.loads(entry.payload)["message"]["content"] for entry in entries]


async def talk(db: sessiondb.SessionDB, name: str, *words: str) -> Session:
    session = await db.create_session(name)
    await session.append_many([user(word) for word in words])
    return session


async def two(db: sessiondb.SessionDB) -> tuple[Session, Session]:
    """Return two sessions that say the same. One of them is to stay as it is."""
    return await talk(db, "one", *"abcd"), await talk(db, "two", *"abcd")


# -- what each takes off ---------------------------------------------------------------------


async def test_pop_takes_the_last_messages_and_keeps_them_on_a_branch(
    db: sessiondb.SessionDB,
) -> None:
    session, other = await two(db)
    await session.append(NOTE)
    before = await session.entries(last=100)
    epoch = (await session.info()).epoch
    assert said(await session.pop()) == ["d"]
    assert said(await session.pop(2)) == ["b", "c"]
    assert await seen(session) == ["a"]
    assert (await session.info()).epoch == epoch + 2
    await session.append(user("e"))
    assert await seen(session) == ["a", "e"]
    assert [texts(await session.context(epoch=at)) for at in (epoch, epoch + 1)] == [
        ["a", "b", "c", "d"],
        ["a", "b", "c"],
    ]
    await session.branch(before[-1])
    assert await session.entries(last=100) == before
    assert await seen(other) == ["a", "b", "c", "d"]
    assert (await db.verify()).findings == ()


async def test_pop_of_more_than_there_is_takes_all_and_then_nothing(
    db: sessiondb.SessionDB,
) -> None:
    session, other = await two(db)
    assert said(await session.pop(10)) == ["a", "b", "c", "d"]
    assert await session.pop() == []
    assert await session.undo_turn() is None
    epoch = (await session.info()).epoch
    assert await session.pop() == []
    assert (await session.info()).epoch == epoch, "nothing was changed"
    await session.append(user("anew"))
    assert await seen(session) == ["anew"]
    assert await seen(other) == ["a", "b", "c", "d"]


async def test_neither_pop_nor_undo_goes_behind_a_reset(db: sessiondb.SessionDB) -> None:
    session, _ = await two(db)
    await session.reset("new")
    await session.append_many([user("e"), reply("f")])
    assert len(await session.pop(5)) == 2
    assert await session.pop() == []
    assert await session.undo_turn() is None
    assert await seen(session) == []


async def test_behind_a_compaction_the_context_is_the_one_before_it(
    db: sessiondb.SessionDB,
) -> None:
    session = await db.create_session("s")
    for number in range(3):
        await session.append_many([user(f"q{number}"), reply(f"a{number} " * 400)])
    async with session.compact(keep_recent_tokens=1) as job:
        await job.commit("they talked")
    await session.append(user("q3"))
    assert said(await session.pop()) == ["q3"]
    assert (await seen(session))[0] == "<they talked>"
    await session.pop(2)
    assert (await seen(session))[0] == "q0"
    assert "they talked" not in str(await seen(session))
    assert (await db.verify()).findings == ()


async def test_undo_turn_takes_a_question_with_all_that_was_done_about_it(
    db: sessiondb.SessionDB,
) -> None:
    session, other = await two(db)
    await session.append_many(
        [user("do it"), reply("", calls=["1"]), NOTE, result("1"), reply("done")]
    )
    undone = await session.undo_turn()
    assert undone is not None
    assert said([undone]) == ["do it"]
    assert await seen(session) == ["a", "b", "c", "d"]
    again = await session.undo_turn()
    assert again is not None
    assert said([again]) == ["d"]
    assert await seen(other) == ["a", "b", "c", "d"]


async def test_rewind_goes_before_an_entry_and_the_next_append_follows_there(
    db: sessiondb.SessionDB,
) -> None:
    session, other = await two(db)
    a, b, c, _ = await whole_path(session)
    await session.rewind(before=c)
    assert await seen(session) == ["a", "b"]
    await session.append(user("C"))
    await session.rewind(before=b.entry_id)
    assert await seen(session) == ["a"]
    for gone in (c, b.entry_id, (await whole_path(other))[0], "nowhere"):
        with pytest.raises(NotFound, match="current path"):
            await session.rewind(before=gone)
    await session.rewind(before=a)
    assert await seen(session) == []
    assert await seen(other) == ["a", "b", "c", "d"]


async def test_replace_tail_puts_others_in_the_place_of_the_last(db: sessiondb.SessionDB) -> None:
    session, other = await two(db)
    b = (await whole_path(session))[1]
    receipts = await session.replace_tail([user("C"), user("D"), user("E")], after=b)
    assert await seen(session) == ["a", "b", "C", "D", "E"]
    assert [receipt.entry_id for receipt in receipts] == ids_of(await session.entries(last=3))
    assert await session.replace_tail([], after=receipts[0]) == []
    assert await seen(session) == ["a", "b", "C"]
    await session.replace_tail([user("all of it")], after=None)
    assert await seen(session) == ["all of it"]
    with pytest.raises(NotFound, match="current path"):
        await session.replace_tail([user("x")], after=b)
    assert await seen(session) == ["all of it"]
    assert await seen(other) == ["a", "b", "c", "d"]
    assert (await db.verify()).findings == ()


async def test_a_fork_goes_back_into_the_history_that_it_shares(db: sessiondb.SessionDB) -> None:
    origin, _ = await two(db)
    places = await whole_path(origin)
    receipt = (await origin.append_many([user("e")]))[0]
    for named in (places[2], places[2].entry_id):
        fork = await origin.fork(entry=named)
        assert await seen(fork) == ["a", "b", "c"]
        assert said(await fork.pop(2)) == ["b", "c"]
        await fork.branch(places[2])
        with pytest.raises(NotFound):
            await fork.branch(receipt)  # which its origin got behind that place
        await fork.replace_tail([user("B")], after=places[0])
        assert await seen(fork) == ["a", "B"]
    assert await seen(await origin.fork(entry=receipt)) == ["a", "b", "c", "d", "e"]
    assert await seen(origin) == ["a", "b", "c", "d", "e"]
    assert (await db.verify()).findings == ()


async def test_an_entry_is_named_by_itself_its_receipt_or_its_id(db: sessiondb.SessionDB) -> None:
    session, other = await two(db)
    [receipt] = await session.append_many([user("e")])
    [entry] = await session.entries(last=1)
    for named in (receipt, entry, entry.entry_id):
        await session.branch(None)
        await session.branch(named)
        assert (await session.entries(last=1))[0] == entry
    [foreign] = await other.entries(last=1)
    for wrong in (foreign, foreign.entry_id):
        with pytest.raises(NotFound, match=f"session one has no entry '{foreign.entry_id}'"):
            await session.branch(wrong)
    with pytest.raises(
        InvalidInput, match=r"entry is .* and must be an Entry or a Receipt or a text"
    ):
        await session.branch(entry.entry_no)  # type: ignore[arg-type]


# -- bounds ----------------------------------------------------------------------------------


async def test_what_one_call_takes_off_is_bounded(db: sessiondb.SessionDB) -> None:
    session, _ = await two(db)
    for count in (0, -1, POP_MESSAGES_MAX + 1, "2"):
        with pytest.raises(InvalidInput, match=r"takes off 1 to 100 messages|count is"):
            await session.pop(count)  # type: ignore[arg-type]
    await session.append_many([user("x")] * POP_MESSAGES_MAX)
    assert len(await session.pop(POP_MESSAGES_MAX)) == POP_MESSAGES_MAX
    for _ in range(REWIND_SCAN_ROWS // 1_000):
        await session.append_many([NOTE] * 1_000)
    with pytest.raises(InvalidInput, match="name the entry"):
        await session.pop()
    with pytest.raises(InvalidInput, match="name the entry"):
        await session.undo_turn()
    assert (await session.info()).entries == 4 + POP_MESSAGES_MAX + 1 + REWIND_SCAN_ROWS


async def test_messages_that_are_too_large_together_are_not_taken_off(
    db: sessiondb.SessionDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = await two(db)
    monkeypatch.setattr("sessiondb.transcript.rewind.APPEND_BYTES_MAX", 400)
    assert len(await session.pop(2)) == 2
    await session.append(user("long " * 60))
    with pytest.raises(InvalidInput, match="pop fewer"):
        await session.pop(2)


# -- conditions ------------------------------------------------------------------------------


Verb = Callable[..., Awaitable[object]]


async def append_many(session: Session, first: sessiondb.Entry, **condition: Any) -> object:
    return await session.append_many([user("more")], **condition)


async def branch(session: Session, first: sessiondb.Entry, **condition: Any) -> object:
    return await session.branch(first, **condition)


async def pop(session: Session, first: sessiondb.Entry, **condition: Any) -> object:
    return await session.pop(2, **condition)


async def rewind(session: Session, first: sessiondb.Entry, **condition: Any) -> object:
    return await session.rewind(before=first, **condition)


async def undo_turn(session: Session, first: sessiondb.Entry, **condition: Any) -> object:
    return await session.undo_turn(**condition)


async def replace_tail(session: Session, first: sessiondb.Entry, **condition: Any) -> object:
    return await session.replace_tail([user("other")], after=first, **condition)


VERBS = [append_many, branch, pop, rewind, undo_turn, replace_tail]


@pytest.mark.parametrize("verb", VERBS)
async def test_a_condition_that_does_not_hold_changes_nothing_and_names_the_head(
    db: sessiondb.SessionDB, verb: Verb
) -> None:
    session, _ = await two(db)
    path = await whole_path(session)
    first, head = path[0], path[-1]
    before = await session.info()
    for wrong in (first, first.entry_id, None, "nowhere", (await session.all_entries(limit=1))[0]):
        with pytest.raises(HeadMoved) as refused:
            await verb(session, first, expect_head=wrong)
        assert f"session one: its head is entry {head.entry_id}, and not" in str(refused.value)
        assert "decide again" in str(refused.value)
        assert (refused.value.session_id, refused.value.head) == ("one", head.entry_id)
        expected = wrong if isinstance(wrong, str | None) else wrong.entry_id
        assert refused.value.expected == expected
        assert sessiondb.outcome_of(refused.value) == "not_executed"
    assert await session.info() == before
    await verb(session, first, expect_head=head)
    assert await whole_path(session) != path


async def test_none_expects_an_empty_session(db: sessiondb.SessionDB) -> None:
    session = await db.create_session("empty")
    await session.append_many([user("first")], expect_head=None)
    with pytest.raises(HeadMoved, match="and not the root"):
        await session.append_many([user("first")], expect_head=None)
    with pytest.raises(HeadMoved, match="its head is the root") as refused:
        await (await db.create_session("other")).append_many([user("x")], expect_head="gone")
    assert refused.value.head is None
    assert await seen(session) == ["first"]


async def test_an_append_of_all_or_nothing_never_fills_in_what_is_missing(
    db: sessiondb.SessionDB,
) -> None:
    session, _ = await two(db)
    await session.append_many([Item(user("e"), key="e")])
    items = [Item(user(text), key=text) for text in "ef"]
    with pytest.raises(PartlyStored, match="1 of 2 items") as refused:
        await session.append_many(items, all_or_nothing=True)
    [head] = await session.entries(last=1)
    assert (refused.value.head, refused.value.stored) == (head.entry_id, [head.entry_id])
    assert await seen(session) == [*"abcde"]
    new = [Item(user(text), key=text) for text in "gh"]
    first = await session.append_many(new, all_or_nothing=True)
    await session.append(user("i"))
    again = await session.append_many(new, all_or_nothing=True, expect_head=head)
    assert [receipt.entry_no for receipt in again] == [receipt.entry_no for receipt in first]
    assert all(receipt.duplicate for receipt in again)
    assert await seen(session) == [*"abcdeghi"]
    with pytest.raises(IdentityConflict, match="says something else"):
        await session.append_many([Item(user("G"), key="g")], all_or_nothing=True)


async def test_a_tail_that_was_replaced_is_not_replaced_again(db: sessiondb.SessionDB) -> None:
    session, _ = await two(db)
    b = (await whole_path(session))[1]
    items = [Item(user(text), key=text) for text in "CD"]
    first = await session.replace_tail(items, after=b)
    await session.append(user("E"))
    again = await session.replace_tail(items, after=b, expect_head=b)
    assert [receipt.entry_no for receipt in again] == [receipt.entry_no for receipt in first]
    with pytest.raises(PartlyStored):
        await session.replace_tail([items[0], user("F")], after=b)
    assert await seen(session) == ["a", "b", "C", "D", "E"]


# -- calls and results -----------------------------------------------------------------------


async def test_no_tail_begins_with_a_result_without_its_call(db: sessiondb.SessionDB) -> None:
    session = await db.create_session("s")
    question, call, *_ = await session.append_many(
        [user("q"), reply("", calls=["1", "2"]), result("1"), result("2"), reply("done")]
    )
    path = await whole_path(session)
    for after in (None, question):
        with pytest.raises(InvalidInput, match="item 1: it has a result of a tool call"):
            await session.replace_tail([user("x"), result("2")], after=after)
    with pytest.raises(InvalidInput, match="item 0"):
        await session.replace_tail([result("3")], after=call)
    with pytest.raises(InvalidInput, match="item 0"):
        await session.replace_tail([result("3"), reply("", calls=["3"])], after=call)
    assert await whole_path(session) == path
    await session.replace_tail([result("2", "other"), reply("", calls=["3"])], after=path[2])
    await session.append(result("3"))
    await session.replace_tail([reply("", calls=["4"]), result("4")], after=question)
    roles = [message["role"] for message in (await session.context(raw=True)).messages]
    assert roles == ["user", "assistant", "toolResult"]


OPENAI = [
    {"role": "user", "content": "q"},
    {
        "role": "assistant",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "done"},
]
RESPONSES = [
    {"role": "user", "content": "q"},
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "1", "output": "done"},
]
ANTHROPIC = [
    {"role": "user", "content": "q"},
    {
        "role": "assistant",
        "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "done"}]},
]


@pytest.mark.parametrize(
    ("named", "items"),
    [("openai-chat", OPENAI), ("openai-responses", RESPONSES), ("anthropic", ANTHROPIC)],
)
async def test_calls_and_results_stay_together_in_every_format(
    db: sessiondb.SessionDB, named: sessiondb.models.MessageFormat, items: list[dict[str, Any]]
) -> None:
    session = await db.create_session("s", format=named)
    question, call, _ = await session.append_many(items)
    with pytest.raises(InvalidInput, match="item 0: it has a result"):
        await session.replace_tail([items[2]], after=question)
    await session.replace_tail([items[2]], after=call)
    assert len(await session.pop()) == 1
    await session.append(items[2])
    undone = await session.undo_turn()
    assert undone is not None
    assert undone.entry_id == question.entry_id, "a result is no question of a person"
    assert await whole_path(session) == []


# -- beside other writers --------------------------------------------------------------------


async def test_a_pop_loses_no_message_that_arrives_meanwhile(tmp_db: Path) -> None:
    """Each message is either popped once, or stays: whoever of the two was first."""
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        await talk(db, "s", *(f"before {number}" for number in range(20)))
        popped: list[str] = []

        async def append(name: str, source: sessiondb.SessionDB) -> None:
            session = await source.session_by_id("s")
            for number in range(40):
                await session.append(user(f"{name} {number}"))

        async def take(source: sessiondb.SessionDB) -> None:
            session = await source.session_by_id("s")
            for count in (1, 3, 2) * 8:
                popped.extend(said(await session.pop(count)))

        async with anyio.create_task_group() as group:
            group.start_soon(append, "one", db)
            group.start_soon(append, "two", other)
            group.start_soon(take, db)
            group.start_soon(take, other)
        left = said(await whole_path(await db.session_by_id("s")))
        sent = [f"before {number}" for number in range(20)]
        sent += [f"{name} {number}" for name in ("one", "two") for number in range(40)]
        assert sorted(popped + left) == sorted(sent)
        assert (await db.verify()).findings == ()


APPENDER = """
import sys, sessiondb.sync
with sessiondb.sync.open(sys.argv[1]) as db:
    session = db.session_by_id("s")
    print("ready", flush=True)
    for number in range(150):
        session.append({"role": "user", "content": str(number)})
"""


def test_a_pop_loses_no_message_of_another_process(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.create_session("s")
        popped: list[str] = []
        child = [sys.executable, "-c", APPENDER, str(tmp_db)]
        with subprocess.Popen(child, stdout=subprocess.PIPE, text=True) as appender:
            assert appender.stdout is not None
            assert appender.stdout.readline() == "ready\n"
            while appender.poll() is None:
                popped += said(session.pop(2))
        assert appender.returncode == 0
        left = said(session.entries(limit=1_000))
        assert sorted(map(int, popped + left)) == list(range(150))
        assert db.verify().findings == ()


async def test_of_two_changes_with_one_condition_one_is_refused(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db, sessiondb.open(tmp_db) as other:
        session, _ = await two(db)
        first, *_, head = await whole_path(session)
        refused: list[str] = []

        async def change(verb: Verb, source: sessiondb.SessionDB) -> None:
            try:
                await verb(await source.session_by_id("one"), first, expect_head=head)
            except HeadMoved:
                refused.append(verb.__name__)

        async with anyio.create_task_group() as group:
            for at, verb in enumerate(VERBS):
                group.start_soon(change, verb, (db, other)[at % 2])
        assert len(refused) == len(VERBS) - 1


def test_the_synchronous_face_goes_back_as_well(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.create_session("s")
        a, b, c = session.append_many([user(word) for word in "abc"], expect_head=None)
        assert said(session.pop(expect_head=c)) == ["c"]
        with pytest.raises(HeadMoved):
            session.branch(a, expect_head=c)
        [d] = session.replace_tail([user("d")], after=b)
        assert session.rewind(before=d) == 2
        undone = session.undo_turn()
        assert undone is not None
        assert said([undone]) == ["b"]
        assert texts(session.context()) == ["a"]
        assert texts(session.fork(entry=d).context()) == ["a", "b", "d"]

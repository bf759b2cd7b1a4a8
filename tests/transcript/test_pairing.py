"""A context is a prompt that its provider takes, whatever happened to its calls."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.transcript import pairing
from sessiondb.transcript.formats import FORMATS, recognise
from sessiondb.transcript.formats.prompt import PROMPTS
from sessiondb.transcript.pairing import NOTHING_OPEN, Open, Part, follow, in_order, ties_of
from tests.support.prompts import CHECKERS, Refused, check_pi
from tests.test_prompt_checkers import (
    REASONING,
    call,
    chat,
    output,
    reply,
    result,
    results,
    said,
    tool,
    user,
    uses,
)

Message = dict[str, Any]

CLOSED = "There is no result of this call of the tool ls"


def shown(messages: Sequence[Message]) -> list[str]:
    """Return messages as short words: u:text, a:calls, r:id (R:id if it was made)."""
    found = []
    for message in messages:
        content = message["content"]
        match message["role"]:
            case "toolResult":
                made = content[0]["text"].startswith("There is no result")
                found.append(("R:" if made else "r:") + message["toolCallId"])
            case "assistant":
                calls = [block["id"] for block in content if block["type"] == "toolCall"]
                found.append("a:" + ",".join(calls))
            case role:
                found.append(f"{role[0]}:{content}")
    return found


CASES: list[tuple[str, list[Message], list[str]]] = [
    (
        "a person writes while a tool works",
        [user("q"), reply("x"), user("and?"), result("x"), reply()],
        ["u:q", "a:x", "r:x", "u:and?", "a:"],
    ),
    (
        "a program writes while two tools work",
        [user("q"), reply("x", "y"), result("y"), {"role": "custom", "customType": "n",
         "content": "n", "display": True}, result("x")],
        ["u:q", "a:x,y", "r:y", "r:x", "c:n"],
    ),
    (
        "a turn died",
        [user("q"), reply("x", "y"), result("y"), user("again")],
        ["u:q", "a:x,y", "r:y", "R:x", "u:again"],
    ),
    (
        "a turn works, and its handler asks between two results",
        [user("q"), reply("x", "y"), result("x")],
        ["u:q", "a:x,y", "r:x", "R:y"],
    ),
    (
        "a result comes after a later reply",
        [user("q"), reply("x"), reply("y"), result("y"), result("x")],
        ["u:q", "a:x", "r:x", "a:y", "r:y"],
    ),
    (
        "a result without its call, and one that comes twice",
        [user("q"), result("w"), reply("x"), result("x", "first"), result("x", "second")],
        ["u:q", "a:x", "r:x"],
    ),
    (
        "an id that comes again, while the earlier call of it is open",
        [user("q"), reply("x"), user("go on"), reply("x"), result("x"), result("x")],
        ["u:q", "a:x", "R:x", "u:go on", "a:x", "r:x"],
    ),
    (
        "an id that comes again, later",
        [user("q"), reply("x"), result("x"), reply("x"), result("x"), reply()],
        ["u:q", "a:x", "r:x", "a:x", "r:x", "a:"],
    ),
    (
        "a reply that failed half-way",
        [user("q"), reply("x", stopReason="error"), result("x"), reply("z", text="",
         stopReason="aborted"), user("again")],
        ["u:q", "a:", "u:again"],
    ),
    (
        "a message that says nothing",
        [user("q"), user(" "), {"role": "assistant", "content": []}, user("hello?")],
        ["u:q", "u:hello?"],
    ),
    ("a reply comes first", [reply(), user("q")], ["u:(The conversation begins here.)", "a:",
                                                   "u:q"]),
    ("nothing", [], []),
]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("messages", "wanted"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
async def test_a_context_is_a_prompt(
    tmp_db: Path, messages: list[Message], wanted: list[str]
) -> None:
    async with sessiondb.open(tmp_db) as db:
        other = await db.create_session("other")
        session = await db.create_session("s")
        for message in messages:
            await session.append(message)
            for one in (user("q"), reply("x"), result("x")):
                await other.append(one)
        context = await session.context()
        assert shown(context.messages) == wanted
        check_pi(context.messages)
        raw = await session.context(raw=True)
        assert raw.messages == messages
        assert list(raw.parts) == list(context.parts), "the entries stay as they are"
        assert context.as_json() == b"[" + b",".join(context.included) + b"]"
        assert (await other.context()).prompt is None, "the other session is in order as stored"
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_call_says_which_tool_did_not_finish(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user(), reply("x", timestamp=7)])
        made = (await session.context()).messages[-1]
        assert made == {
            "role": "toolResult",
            "toolCallId": "x",
            "toolName": "ls",
            "content": [{"type": "text", "text": pairing._CUT_OFF.format(tool="ls")}],
            "isError": True,
            "timestamp": 7,
        }
        assert (await session.context()).as_json() == (await session.context()).as_json()


@pytest.mark.anyio
async def test_a_call_of_a_running_turn_is_not_finished_yet(tmp_db: Path) -> None:
    """The handler sees it so, and so does any other reader. After the turn it was cut off."""
    async with sessiondb.open(tmp_db) as db:
        key = "agent:main:web:direct:ann"
        session = await db.session(key)
        await session.append_many([user("before"), reply("old")])
        await db.accept(key, user("now"), channel="web", event_id="1")
        seen: list[list[str]] = []
        asked, go_on = anyio.Event(), anyio.Event()

        async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
            await turn.append(reply("x", "y"))
            await turn.append(result("x"))
            seen.append(_ends((await turn.session.context()).messages))
            asked.set()
            await go_on.wait()
            return sessiondb.Answer(incomplete="stopped")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(db.run_lane, "main", handler)
            await asked.wait()
            await session.append(user("meanwhile"))
            seen.append(_ends((await session.context()).messages))
            go_on.set()
            while await db.held():  # noqa: ASYNC110  the end of a turn is no event of this process
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
        seen.append(_ends((await session.context()).messages))
        assert seen == [
            ["old cut off", "y still"],
            ["old cut off", "y still"],
            ["old cut off", "y cut off"],
        ]


def _ends(messages: Sequence[Message]) -> list[str]:
    found = []
    check_pi(messages)
    for message in messages:
        text = message["content"][0]["text"] if message["role"] == "toolResult" else ""
        if text.startswith(CLOSED):
            how = "still" if "still working" in text else "cut off"
            found.append(f"{message['toolCallId']} {how}")
    return found


@pytest.mark.anyio
async def test_a_compaction_hands_out_a_prompt(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        items = [user("q"), reply("x"), user("and?"), result("x"), reply(), user("later"), reply()]
        await session.append_many(items)
        async with session.compact(keep_recent_tokens=1) as job:
            assert shown(job.messages)[:4] == ["u:q", "a:x", "r:x", "u:and?"]
            check_pi(job.messages)
            await job.commit("so far")
        check_pi((await session.context()).messages)


@pytest.mark.anyio
async def test_a_foreign_cut_between_call_and_result_is_seen(tmp_db: Path) -> None:
    """A context that begins inside of a reply's results is no prompt as it is stored."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user("q"), reply("x", "y"), result("x")])
        kept = await session.append(result("y"))
        await session.append(
            {"type": "compaction", "summary": "so far", "firstKeptEntryId": kept.entry_id,
             "tokensBefore": 9}
        )  # fmt: skip
        await session.append(user("go on"))
        check_pi((await session.context()).messages)
        assert [message["role"] for message in (await session.context()).messages] == [
            "compactionSummary",
            "user",
        ]
        with pytest.raises(Refused):
            check_pi((await session.context(raw=True)).messages)
        await session.undo_compaction()
        check_pi((await session.context()).messages)


@pytest.mark.anyio
async def test_an_undo_brings_back_a_call_that_is_open(tmp_db: Path) -> None:
    """A context that begins anew is in order. The one before it was not, and is back."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user("q"), reply("x")])
        foreign = {"type": "compaction", "summary": "so far", "firstKeptEntryId": "nowhere"}
        await session.append({**foreign, "tokensBefore": 9})
        await session.append(user("go on"))
        assert (await session.context()).prompt is None
        await session.undo_compaction()
        assert shown((await session.context()).messages) == ["u:q", "a:x", "R:x", "u:go on"]


@pytest.mark.anyio
async def test_a_text_that_says_nothing_is_left_out_whoever_could_have_said_it(
    tmp_db: Path,
) -> None:
    """The item may be of three formats, and only Anthropic refuses its blank text."""
    blank = [{"type": "text", "text": ""}, {"type": "text", "text": "q"}]
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s", format="anthropic")
        await session.append(user(blank))
        CHECKERS["anthropic"]((await session.context()).messages)
        other = await db.create_session("t", format="openai-chat")
        await other.append(user(blank))
        assert (await other.context()).prompt is None


@pytest.mark.anyio
@pytest.mark.parametrize("kept_at", range(1, 6))
async def test_a_reset_between_parallel_calls_is_seen(tmp_db: Path, kept_at: int) -> None:
    """In OpenAI Responses each call is an item, and a reset may keep any of them."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s", format="openai-responses")
        items = [user("q"), call("x"), call("y"), call("z"), output("z"), output("x")]
        receipts = await session.append_many(items)
        await session.reset(keep_from=receipts[kept_at].entry_id)
        await session.append(output("y"))
        CHECKERS["openai-responses"]((await session.context()).messages)
        await session.append_many([said(), user("more")])
        CHECKERS["openai-responses"]((await session.context()).messages)


@pytest.mark.anyio
async def test_a_context_is_in_order_again_after_its_next_cut(tmp_db: Path) -> None:
    """Only contexts that hold something out of order are decoded to be put in order."""
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append_many([user("q"), reply("x"), user("and?"), result("x"), reply()])
        assert (await session.context()).prompt is not None
        tail = [user("q2"), reply("x"), result("x"), reply()]
        receipts = await session.append_many(tail)
        async with session.compact(keep_recent_tokens=5) as job:
            await session.append_many([user("q3"), reply("y")])
            assert (await job.commit("so far")).outcome == "committed"
        assert (await session.context()).prompt is not None, "a call is open"
        await session.append(result("y"))
        assert (await session.context()).prompt is None
        fork = await session.fork()
        await fork.append(reply())
        assert (await fork.context()).prompt is None
        await session.branch(receipts[0].entry_id)
        check_pi((await session.context()).messages)


# -- every format ----------------------------------------------------------------------

ITEMS: dict[str, list[Message]] = {
    "pi": [user("q"), user(""), reply(), reply("x"), reply("y", "z"), reply("x", text=""),
           reply("z", stopReason="aborted"), result("x"), result("y"), result("z")],
    "openai-chat": [user("q"), chat(text="well"), chat(text=""), chat("x"), chat("y", "z"),
                    tool("x"), tool("y"), tool("z")],
    "openai-responses": [user("q"), said(), call("x"), call("y"), call("z"), REASONING,
                         output("x"), output("y"), output("z"), user("")],
    "anthropic": [user("q"), user([{"type": "text", "text": ""}]), uses(), uses("x"),
                  uses("y", "z"), results("x"), results("y", then="so?"), results("y", "z"),
                  results("z", first="well"), uses("w", text="")],
}  # fmt: skip


def random_items(name: str, source: random.Random) -> list[Message]:
    """Return items in any order, some as good as in a conversation. Ids that must differ do."""
    found: list[Message] = []
    for number in range(source.randrange(1, 9)):
        item = source.choice(ITEMS[name])
        text = str(item)
        if name in ("openai-responses", "anthropic") and (
            "tool_use'" in text or "'function_call'" in text or "'id'" in text
        ):
            # A model gives each call an id of its own. Results may be of any.
            if any(str(item) == str(other) for other in found):
                continue
            if name == "anthropic" and any(_shares_calls(item, other) for other in found):
                continue
        found.append(item)
        del number
    return found


def _shares_calls(one: Message, other: Message) -> bool:
    keys = [{call.key for call in PROMPTS["anthropic"].calls(item)} for item in (one, other)]
    return bool(keys[0] & keys[1])


@pytest.mark.parametrize("name", CHECKERS)
def test_an_item_is_sent_as_it_is_in_the_formats_that_take_it(name: str) -> None:
    """The usual items are told at once: it is what each format says."""
    blank = [{"role": role, "content": text} for role in ("user", "system") for text in (" ", "q")]
    for item in [*ITEMS[name], *blank]:
        may_be = recognise(item)
        taken = [
            each
            for each in FORMATS
            if each.bit & may_be
            and each.sendable(item) == item
            and PROMPTS[each.name].taken(item) == item
        ]
        assert ties_of(may_be, item).as_is_in == sum(each.bit for each in taken)


@pytest.mark.parametrize("name", CHECKERS)
def test_any_items_become_a_prompt(name: str) -> None:
    """And one whose items all stand where they may is left as it is."""
    source, prompt = random.Random(7), PROMPTS[name]
    bits = {each.name: each.bit for each in FORMATS}
    in_place = 0
    for _ in range(3_000):
        items = random_items(name, source)
        parts = [Part(item, number, b"stored") for number, item in enumerate(items)]
        found = in_order(prompt, parts)
        CHECKERS[name]([part.message for part in found])
        again = in_order(prompt, found)
        assert [part.message for part in again] == [part.message for part in found]
        stands: Open = NOTHING_OPEN
        stand_well = True
        for item in items:
            stands, fits = follow(stands, ties_of(bits[name], item), bits[name])
            stand_well = stand_well and fits
        begins = bool(items) and prompt.user_first and prompt.by_model(items[0])
        if stand_well and not stands.is_open and not begins:
            in_place += 1
            assert found == parts
    assert in_place > 50, "hardly any was in order from the start"

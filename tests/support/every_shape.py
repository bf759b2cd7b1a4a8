"""A database with every shape of a session, and with messages, turns and replies in every state."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import sessiondb
from sessiondb.gateway import outbox
from tests.support.core import reply, result, user
from tests.support.gateway import claimed, complete, fail, interrupt, say


async def fill(path: Path) -> None:
    """Make a database with every shape that a session can have.

    Session 1 has the entries that the table of `test_verify.py` breaks.
    """
    async with sessiondb.open(path) as db:
        chat = await db.session("agent:main:discord:channel:1", cwd="/work")  # header: seq 0
        await chat.append(user("one " * 40), idempotency_key="k1")  # 1
        await chat.append({"type": "thinking_level_change", "thinkingLevel": "high"})  # 2
        await chat.append({"type": "model_change", "provider": "p", "modelId": "m"})  # 3
        await chat.append(reply("two " * 40, calls=["a", "b"], tokens=500))  # 4
        await chat.append_many([result("a"), result("b")])  # 5, 6
        await chat.append(reply("three", tokens=600))  # 7
        await chat.append(user("four"))  # 8
        await chat.append(reply("five"))  # 9
        async with chat.compact(keep_recent_tokens=1) as job:
            assert (await job.commit("so far")).outcome == "committed"  # 10, epoch 1
        await chat.append(user("six"))  # 11
        seventh = await chat.append(reply("seven", tokens=700))  # 12
        await chat.append(
            {"type": "custom_message", "customType": "n", "content": "note", "display": True}
        )  # 13
        await chat.append(
            {"type": "custom", "customType": "d", "data": {}, "appendMode": "side"}
        )  # 14, off the path
        await chat.append({"type": "session_info", "name": "a name"})  # 15
        await chat.append({**user("secret"), "excludeFromContext": True})  # 16
        await chat.branch(seventh.entry_id)  # 17, epoch 2
        await chat.append(user("eight"))  # 18, opens a branch
        await chat.append(reply("nine", tokens=900))  # 19

        undone = await db.create_session("undone")
        await undone.append_many([user("a " * 300), reply("b " * 300), user("c"), reply("d")])
        async with undone.compact(keep_recent_tokens=1) as job:
            assert (await job.commit("s")).outcome == "committed"
        await undone.append(user("e"))
        await undone.undo_compaction()
        await undone.append_many([user("f"), reply("g")])
        await (await undone.fork(session_id="fork-of-undone")).append(user("h"))

        reset = await db.create_session("reset")
        await reset.append(user("a"))
        kept = await reset.append(user("b"))
        await reset.append(reply("c", calls=["x"]))
        await reset.reset(keep_from=kept.entry_id)
        await reset.append(user("d"))
        await reset.reset()
        await reset.branch(None)
        await reset.append(user("a new root"))

        fork = await chat.fork(session_id="fork", key="agent:main:fork")
        await fork.append(user("in the fork"))
        await (await fork.fork(session_id="fork-of-fork")).append(user("deeper"))
        await chat.fork(session_id="fork-empty", epoch=0)
        await (await chat.fork(session_id="fork-at-entry", entry=seventh.entry_id)).append(
            user("aside")
        )
        await (await db.create_session("empty")).end()
        failed = await db.create_session("failed")
        await failed.append_many([user("a " * 300), reply("b"), user("c")])
        with pytest.raises(ZeroDivisionError):
            async with failed.compact(keep_recent_tokens=1):
                raise ZeroDivisionError
        await db.bind("agent:main:web:1", reset)
        await work(db)


async def work(db: sessiondb.SessionDB) -> None:
    """Leave messages, turns and replies in every state.

    These are inbox items 1 to 5, turns 1 to 5 and replies 1 to 3. Items 6 to 8 are another
    session's: one that a later one superseded, that one, and one that waits.
    """
    for name in ("answered", "failing", "dead", "cut", "waiting"):
        await say(db, name)
    answered = await claimed(db)
    await complete(
        db,
        answered.turn_no,
        "here",
        replies=[("web:1", "one"), ("web:1", "two"), ("web:1", "three")],
    )
    sent = await db.write("send", partial(outbox.begin_sending, lease_ms=60_000))
    assert sent is not None
    await db.write("sent", lambda tx: outbox.sent(tx, sent, "42"))
    lost = await db.write("send", partial(outbox.begin_sending, lease_ms=60_000))
    assert lost is not None
    await db.write("lost", lambda tx: outbox.lost(tx, lost, "gone"))
    await fail(db, (await claimed(db)).turn_no, retry=False)
    await fail(db, (await claimed(db)).turn_no, retry=False)
    await interrupt(db, (await claimed(db)).turn_no)
    running = await claimed(db)
    assert (running.turn_no, running.inbox_no) == (5, 5)
    await say(db, "overtaken", "agent:main:web:2")
    await interrupt(db, (await claimed(db)).turn_no)
    await say(db, "later", "agent:main:web:2")
    await complete(db, (await claimed(db)).turn_no, "both")
    await say(db, "last", "agent:main:web:2")
    async for event in db.events("operator", from_start=True):
        if event.event_no == 3:
            break

"""Wrong types in public calls: `InvalidInput` that names the argument, and no other error.

The walk finds the calls and their parameters by itself, and passes strange values for each, in a
scope that is cancelled: a call that gets past its arguments ends at its first wait.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
import sessiondb.testing
from sessiondb.errors import InvalidInput, SessionDBError

KEY = "agent:main:web:direct:jo"
MESSAGE = {"role": "user", "content": "hello"}


class Odd:
    """No argument may be one of these."""


ODD = Odd()
STRANGE: tuple[object, ...] = (
    ODD, None, 42, 2**70, -1, 1.5, float("nan"), True, "text", "\ud800", "", b"bytes",
    [1], [ODD], {"a": 1}, {"a": ODD}, {1: 1}, {1}, (1, 2), ("a",), object, lambda: 1,
)  # fmt: skip
VALID: dict[str, Any] = {
    "answer": sessiondb.Answer(), "attempt": 1,
    "after": "e", "audience": "user", "before": "e", "channel": "web", "compaction_id": "c",
    "concurrency": 1, "consumer": "reader", "content": "x", "dest": "there", "destination": "there",
    "details": {}, "entry": "e", "entry_id": "e", "event_id": "1", "external_id": "x",
    "file": "there", "home": "there", "idempotency_key": "k", "inbox_no": 1, "item": MESSAGE,
    "items": [],
    "key": KEY, "lane": "main", "message": MESSAGE, "name": "n", "namespace": "app", "op": "test",
    "outbox_no": 1, "settings": None,
    "path": "there", "policy": sessiondb.RetentionPolicy(), "priority": 1, "reason": "x",
    "ref": KEY, "session_id": "s", "session_no": 1, "sql": "select 1", "state": "sent",
    "summary": "x", "target": "web:1", "timeout_s": 1.0, "title": "x", "turn_no": 1, "version": 1,
    "words": "x",
}  # fmt: skip
OF_CALL: dict[str, dict[str, Any]] = {
    "diff": {"before": 1, "after": 2},
    "reset_if_due": {"policy": sessiondb.ResetPolicy()},
}
# Their own rules say what they may be: anything that has a JSON form, a message, an entry.
FREE = {"item", "message", "details", "content"}
# They take no argument, or end the database under the walk.
SKIPPED = {"close", "close_now", "open_now", "drain"}


def calls(one: object) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public methods of an object that take arguments."""
    for name in sorted(dir(type(one))):
        member = getattr(type(one), name)
        if not name.startswith("_") and inspect.isfunction(member) and name not in SKIPPED:
            yield f"{type(one).__name__}.{name}", getattr(one, name)


def parameters(call: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind is not parameter.VAR_POSITIONAL
    }


def given_names(call: Callable[..., Any]) -> set[str]:
    return {n for n, p in parameters(call).items() if p.default is p.empty}


def given(call: Callable[..., Any], valid: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of the right types for all that a call cannot do without."""
    valid = valid | OF_CALL.get(call.__name__, {})
    needed = given_names(call)
    assert needed <= valid.keys(), (
        f"VALID has no value for {call.__name__}: {needed - valid.keys()}"
    )
    return {name: valid[name] for name in needed}


async def end_at_once(call: Callable[..., Any], **values: object) -> None:
    """Make a call. If it waits, cancel it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        result = call(**values)
        if inspect.iscoroutine(result):
            await result


async def walk(one: object, valid: dict[str, Any]) -> list[str]:
    """Pass each strange value as each argument. Return what should not be."""
    wrong: list[str] = []
    for full, call in calls(one):
        for name in parameters(call):
            for value in STRANGE:
                shown = f"{full}({name}={value!r:.20})"
                try:
                    await end_at_once(call, **{**given(call, valid), name: value})
                    error: BaseException | None = None
                except SessionDBError as found:
                    error = found
                except Exception as found:  # noqa: BLE001  # what should not be is listed
                    wrong.append(f"{shown}: {type(found).__name__}: {found}")
                    continue
                if value is ODD and name not in FREE and f": {name} is an Odd" not in str(error):
                    wrong.append(f"{shown}: {error!r}")
    return wrong


async def answer(turn: sessiondb.Turn) -> sessiondb.Answer:
    return sessiondb.Answer()


async def send(reply: sessiondb.Reply) -> None:
    return None


async def walked(tmp_db: Path) -> list[str]:
    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        await db.accept(KEY, MESSAGE, channel="web", event_id="1")
        valid: dict[str, Any] = VALID | {
            "session": session,
            "fn": lambda _: None,
            "handler": answer,
            "sender": send,
        }
        wrong: list[str] = []

        async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
            [valid["event"]] = await session.events(audience="operator", limit=1)
            wrong.extend(await walk(turn, valid))
            wrong.extend(await walk(db, valid) + await walk(session, valid))
            return sessiondb.Answer()

        await sessiondb.testing.run_until_idle(db, handler)
        await session.append_many([MESSAGE] * 3)
        async with db.batch() as batch:
            wrong += await walk(batch, valid)
            batch._changes.clear()
        async with session.compact(keep_recent_tokens=1) as job:
            wrong += await walk(job, valid)
    return wrong


def test_no_argument_of_a_wrong_type_reaches_python_or_the_driver(tmp_db: Path) -> None:
    assert anyio.run(walked, tmp_db) == []


def test_the_synchronous_twin_refuses_the_same(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.session(KEY)
        valid = VALID | {
            "session": session,
            "fn": lambda _: None,
            "handler": lambda _: None,
            "sender": lambda _: None,
        }
        tried = 0
        with db.batch() as batch:
            for one in (db, session, batch):
                for _, call in calls(one):
                    for name in parameters(call):
                        if name in FREE or name == "event" or "event" in given_names(call):
                            continue
                        values = {**given(call, valid), name: ODD}
                        with pytest.raises(InvalidInput, match=f": {name} is an Odd"):
                            list(call(**values))
                        tried += 1
    assert tried > 100


def test_opening_refuses_wrong_options() -> None:
    for name in ("limits", "readonly", "create", "guard", "program", "clock", "durability"):
        options: Any = {name: ODD}
        for module in (sessiondb, sessiondb.sync):
            with pytest.raises(InvalidInput, match=f": {name} is an Odd"):
                module.open("there", **options)
    for path in (42, ODD, None, b"there"):
        with pytest.raises(InvalidInput, match="path is"):
            sessiondb.sync.open(path)  # type: ignore[arg-type]


async def strange_contents(tmp_db: Path) -> list[str]:
    """Store strange values where a call takes any that has a JSON form."""
    wrong: list[str] = []

    async def attempt(shown: str, result: Awaitable[object]) -> None:
        try:
            await result
        except SessionDBError:
            pass
        except Exception as found:  # noqa: BLE001  # what should not be is listed
            wrong.append(f"{shown}: {type(found).__name__}: {found}")

    async with sessiondb.open(tmp_db) as db:
        session = await db.session(KEY)
        first = await session.append(MESSAGE)
        await db.accept(KEY, MESSAGE, channel="web", event_id="1")

        async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
            [event] = await session.events(audience="operator", limit=1)
            for number, value in enumerate(STRANGE):
                free: Any = value
                for name, result in {
                    "append": session.append(free),
                    "append_many": session.append_many([free]),
                    "Item": session.append(sessiondb.Item(free, key=free, at_ms=free)),
                    "Item.key": session.append(sessiondb.Item(MESSAGE, key=free)),
                    "Item.at_ms": session.append(sessiondb.Item(MESSAGE, at_ms=free)),
                    "replace_tail": session.replace_tail(after=first, items=[free]),
                    "edit": session.edit(first.entry_id, [free]),
                    "set_details": session.set_details({"a": free}),
                    "accept": db.accept(KEY, free, channel="web", event_id=f"m{number}"),
                    "details": db.accept(
                        KEY, MESSAGE, channel="web", event_id=f"d{number}", details={"a": free}
                    ),
                    "forward": db.forward_event(
                        event, consumer="notices", target="web:1", message=free
                    ),
                    "commit": db.commit_compaction("none", "x", details=free),
                    "turn.append": turn.append(free),
                    "turn.progress": turn.progress(free),
                }.items():
                    await attempt(f"{name}({value!r:.20})", result)
            for message in [one async for one in db.inbox()]:
                await db.withdraw(message.channel, message.event_id)
            return sessiondb.Answer()

        await sessiondb.testing.run_until_idle(db, handler)
    return wrong


def test_what_has_no_json_form_is_refused_as_such(tmp_db: Path) -> None:
    assert anyio.run(strange_contents, tmp_db) == []

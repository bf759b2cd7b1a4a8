"""What type checkers see of the public API. mypy checks it, nothing runs it.

`assert_type` states a type. A `type: ignore` with a code states that mypy finds a mistake,
because an unused one is an error. tests/test_public_api.py runs mypy.
"""
# ruff: noqa: B015, B018  what is misspelt here is of no other use

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import sessiondb
import sessiondb.sync
from sessiondb.maintenance.status import DatabaseStatus
from sessiondb.models import ExportReport, ImportReport


async def asynchronous() -> None:
    async with sessiondb.open(Path("gateway.db"), durability="normal") as db:
        assert_type(db, sessiondb.SessionDB)
        session = await db.session("agent:main:main")
        assert_type(session, sessiondb.Session)
        receipt = await session.append({"role": "user", "content": "hello"}, idempotency_key="k")
        assert_type(receipt, sessiondb.Receipt)
        assert_type(receipt.seq, int)
        assert_type(await session.append_many(["{}", b"{}"]), list[sessiondb.Receipt])
        context = await session.context(epoch=0)
        assert_type(context, sessiondb.Context)
        assert_type(context.messages, list[dict[str, Any]])
        assert_type(context.as_json(), bytes)
        async with session.compact(keep_recent_tokens=1) as job:
            assert_type(job, sessiondb.CompactionJob)
            assert_type(job.messages, list[dict[str, Any]])
            result = await job.commit("summary")
            assert_type(result, sessiondb.CompactionResult)
        assert_type(await session.entries(after=receipt), list[sessiondb.Entry])
        assert_type(db.sessions(), AsyncIterator[sessiondb.SessionInfo])
        assert_type(await session.fork(), sessiondb.Session)
        assert_type(await db.verify(), sessiondb.VerifyReport)
        assert_type(await db.status(), DatabaseStatus)
        assert_type(await db.import_path("folder"), ImportReport)
        assert_type(await db.migrate("home", final=True), sessiondb.MigrationReport)
        assert_type(
            await db.import_path("folder", redactor=sessiondb.Redactor(emails=True)), ImportReport
        )
        assert_type(await db.backup("copy.db"), int)
        edited = await db.edit("agent:main:web:1", "{}", channel="web", event_id="1", version=1)
        assert_type(edited, sessiondb.Edited)
        assert_type(await db.export("folder", session=session), ExportReport)
        await session.append(5)  # type: ignore[arg-type]
        await session.append({}, idempotency_kye="k")  # type: ignore[call-arg]


def synchronous() -> None:
    with sessiondb.sync.open("gateway.db") as db:
        assert_type(db, sessiondb.sync.SessionDB)
        session = db.session("agent:main:main", cwd="/")
        assert_type(session, sessiondb.sync.Session)
        receipt = session.append({"role": "user", "content": "hello"}, idempotency_key="k")
        assert_type(receipt, sessiondb.Receipt)
        assert_type(session.append_many(["{}", b"{}"]), list[sessiondb.Receipt])
        context = session.context(epoch=0)
        assert_type(context, sessiondb.Context)
        with session.compact(keep_recent_tokens=1) as job:
            assert_type(job, sessiondb.sync.CompactionJob)
            assert_type(job.messages, list[dict[str, Any]])
            assert_type(job.result, sessiondb.CompactionResult | None)
            assert_type(job.commit("summary"), sessiondb.CompactionResult)
        assert_type(session.entries(after=receipt), list[sessiondb.Entry])
        assert_type(db.sessions(with_ended=True), Iterator[sessiondb.SessionInfo])
        assert_type(db.compactions(session), Iterator[sessiondb.CompactionInfo])
        assert_type(session.fork(epoch=1), sessiondb.sync.Session)
        assert_type(session.db.session_by_id("x"), sessiondb.sync.Session)
        assert_type(db.bind("agent:main:main", session), None)
        assert_type(db.verify(session), sessiondb.VerifyReport)
        assert_type(db.status(), DatabaseStatus)
        assert_type(
            db.edit("agent:main:web:1", "{}", channel="web", event_id="1", version=1),
            sessiondb.Edited,
        )
        assert_type(db.import_path("folder"), ImportReport)
        assert_type(db.export("folder", session=session), ExportReport)
        assert_type(db.read("count", lambda tx: len(tx.all("status.stuck", limit=1))), int)
        session.append(5)  # type: ignore[arg-type]
        session.append({}, idempotency_kye="k")  # type: ignore[call-arg]
        session.fork("positional")  # type: ignore[call-arg]
        db.run_lane("main", work)
        db.run_outbox(lambda reply: reply.target)
        db.run_lane("main", work_asynchronously)  # type: ignore[arg-type]


def work(turn: sessiondb.sync.Turn) -> sessiondb.Answer:
    assert_type(turn.session, sessiondb.sync.Session)
    assert_type(turn.append("{}"), sessiondb.Receipt)
    assert_type(turn.key, str | None)
    turn.atempt  # type: ignore[attr-defined]
    return sessiondb.Answer()


async def work_asynchronously(turn: sessiondb.Turn) -> sessiondb.Answer:
    return sessiondb.Answer()


def options() -> None:
    chosen: sessiondb.OpenOptions = {
        "guard": "raise",
        "program": "adapter",
        "limits": sessiondb.Limits(readers=1),
    }
    assert_type(sessiondb.open("gateway.db", **chosen), sessiondb.SessionDB)
    assert_type(sessiondb.sync.open("gateway.db", **chosen), sessiondb.sync.SessionDB)
    sessiondb.open("gateway.db", read_only=True)  # type: ignore[call-arg]
    sessiondb.open("gateway.db", durability="fast")  # type: ignore[arg-type]
    sessiondb.sync.open("gateway.db", gaurd="raise")  # type: ignore[call-arg]
    sessiondb.sync.open("gateway.db", guard="warn")  # type: ignore[arg-type]
    sessiondb.sync.SessionDB("gateway.db", durability=1)  # type: ignore[arg-type]


def errors(error: Exception) -> None:
    if isinstance(error, sessiondb.StoreBusy):
        assert_type(error.retry, bool)
        assert_type(error.retry_after_ms, int)
        assert_type(error.holder, str)
        error.retry_after  # type: ignore[attr-defined]
        error.fields  # type: ignore[attr-defined]
    if isinstance(error, sessiondb.NotFound):
        assert_type(error.inbox_no, int | None)
        error.inbox_number  # type: ignore[attr-defined]
    if isinstance(error, sessiondb.TurnLost):
        assert_type(error.turn_no, int)
        error.state == "abroted"  # type: ignore[comparison-overlap]
    if isinstance(error, sessiondb.SessionEnded):
        assert_type(error.session_id, str)
    if isinstance(error, sessiondb.CompactionRunning):
        assert_type(error.retry_after_ms, int)
        error.until_ms  # type: ignore[attr-defined]
    if isinstance(error, sessiondb.SessionDBError):
        error.retry_after_ms  # type: ignore[attr-defined]
    if isinstance(error, sessiondb.CompactionTimeout):
        assert isinstance(error, TimeoutError)
    if sessiondb.outcome_of(error) == "comitted":  # type: ignore[comparison-overlap]
        return
    sessiondb.StoreBusy("busy")  # type: ignore[call-arg]
    assert_type(sessiondb.Limits(readers=2).readers, int)


async def handler(turn: sessiondb.Turn) -> sessiondb.Answer:
    turn.number  # type: ignore[attr-defined]
    turn.kind == "resumed"  # type: ignore[comparison-overlap]
    return sessiondb.Answer(entries=[{"role": "assistant", "content": "hi"}])


async def sender(reply: sessiondb.Reply) -> str | None:
    return str(reply.message["text"])


async def returns_a_number(reply: sessiondb.Reply) -> int:
    return reply.outbox_no


async def gateway(db: sessiondb.SessionDB) -> None:
    handle: sessiondb.Handler = handler
    send: sessiondb.Sender = sender
    await db.run_lane("main", handle)
    await db.run_outbox(send)
    await db.run_outbox(handler)  # type: ignore[arg-type]
    await db.run_outbox(returns_a_number)  # type: ignore[arg-type]
    await db.run_recovery()
    await db.run_resumes()  # type: ignore[attr-defined]
    db.replies("failled")  # type: ignore[arg-type]
    async for event in db.events("reader", audience="user"):
        assert_type(event.data, dict[str, Any])
        event.kind == "turn_fialed"  # type: ignore[comparison-overlap]
    db.events("reader", audience="users")  # type: ignore[arg-type]
    session = await db.session("agent:main:main", format="openai")  # type: ignore[arg-type]
    items: list[sessiondb.Appendable] = [{"role": "user", "content": "hello"}, "{}"]
    await session.append_many(items)
    await session.tail(5)  # type: ignore[attr-defined]
    for entry in await session.entries(last=5):
        assert_type(entry.message, dict[str, Any] | None)
        assert_type(entry.text, str)
        entry.message["content"]  # type: ignore[index]
        entry.content  # type: ignore[attr-defined]
    async for letter in db.dead_letters():
        assert_type(letter.message, dict[str, Any])
    await db.fail_compaction("id", "why", state="canceled")  # type: ignore[arg-type]


def records(
    job: sessiondb.CompactionInfo,
    epoch: sessiondb.EpochInfo,
    event: sessiondb.Event,
    holding: sessiondb.Holding,
    info: sessiondb.SessionInfo,
    message: sessiondb.OpenMessage,
    receipt: sessiondb.Accepted,
    reply: sessiondb.Reply,
) -> None:
    assert_type(holding.turn_no, int | None)
    job.state == "commited"  # type: ignore[comparison-overlap]
    epoch.reason == "compacted"  # type: ignore[comparison-overlap]
    event.audience == "operators"  # type: ignore[comparison-overlap]
    holding.what == "turns"  # type: ignore[comparison-overlap]
    info.origin == "imported"  # type: ignore[comparison-overlap]
    assert_type(message.message, dict[str, Any])
    message.state == "waiting"  # type: ignore[comparison-overlap]
    receipt.state == "accepted"  # type: ignore[comparison-overlap]
    reply.state == "failled"  # type: ignore[comparison-overlap]
    reply.attempt  # type: ignore[attr-defined]
    holding.number  # type: ignore[attr-defined]


def names() -> None:
    assert_type(sessiondb.__version__, str)
    sessiondb.opne("gateway.db")  # type: ignore[attr-defined]

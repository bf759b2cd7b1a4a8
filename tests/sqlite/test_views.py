"""The views in the distribution's sqlite3 shell, read-only, beside an open database."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest

import sessiondb
from sessiondb.backend import ReadTx
from sessiondb.gateway import dead_letters
from tests import ROOT
from tests.support import pages
from tests.support.transfer import transcript, write

VIEWS = re.findall(r"^CREATE VIEW (\w+)", (ROOT / "schema.sql").read_text(), re.MULTILINE)
QUERIES = [
    query.strip()
    for page in (ROOT / "README.md", *pages.HOW_TO)
    if page.stem != "operators-questions"  # test_views_questions.py
    for block in pages.blocks(page, "sql")
    for query in block.text.split(";")
    if query.strip()
]

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 shell on this machine"),
]


def shell(path: Path, sql: str) -> list[dict]:
    done = subprocess.run(
        ["sqlite3", "-readonly", "-json", str(path)],
        input=sql,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout or "[]")


def write_with_shell(path: Path, sql: str) -> None:
    subprocess.run(["sqlite3", str(path)], input=sql, text=True, check=True)


async def a_bit_of_everything(db: sessiondb.SessionDB) -> dict[str, sessiondb.Session]:
    """One session of each shape that a view has to describe."""
    await db.accept(
        "agent:main:waiting",
        {"role": "user", "content": "is anybody there?"},
        channel="web",
        event_id="waiting",
    )
    created = {
        name: await db.session(f"agent:main:{name}")
        for name in ("plain", "compacted", "branched", "reset", "cooling", "overdue")
    }
    for session in created.values():
        for number in range(6):
            await session.append(
                {"role": "user", "content": f"question {number} about the invoice"}
            )
            await session.append(
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": f"answer {number} " + "x" * 400}],
                }
            )
    async with created["compacted"].compact(trigger="threshold", keep_recent_tokens=150) as job:
        await job.commit("a summary")
    await created["compacted"].append({"role": "user", "content": "since"})
    created["forked"] = await created["compacted"].fork(key="agent:main:forked")
    await created["forked"].append({"role": "user", "content": "only in the fork"})
    first = (await created["branched"].entries(limit=3))[2]
    await created["branched"].branch(first.entry_id)
    await created["branched"].append({"role": "user", "content": "another way"})
    await created["reset"].reset("new")
    await created["reset"].append({"role": "user", "content": "fresh"})
    for _ in range(3):
        async with created["cooling"].compact(trigger="threshold", keep_recent_tokens=150) as job:
            assert (await job.commit("")).outcome == "rejected"
    return created


async def test_every_view_answers_in_the_distributions_shell(tmp_db: Path) -> None:
    assert len(VIEWS) >= 8
    async with sessiondb.open(tmp_db) as db:
        await a_bit_of_everything(db)
        for view in VIEWS:
            shell(tmp_db, f"SELECT * FROM {view}")


async def test_live_context_shows_exactly_what_the_model_is_sent(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for session in (await a_bit_of_everything(db)).values():
            context = await session.context()
            rows = shell(
                tmp_db,
                f"SELECT * FROM live_context WHERE session_id = '{session.id}' ORDER BY place",
            )
            note = [row["text"] for row in rows]
            sent = [message.get("summary") or message["content"] for message in context.messages]
            assert note == [text if isinstance(text, str) else text[0]["text"] for text in sent], (
                session.id
            )
            assert [row["place"] for row in rows] == list(range(1, len(rows) + 1))


async def test_live_context_says_why_each_message_is_there(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = (await a_bit_of_everything(db))["compacted"]
        rows = shell(
            tmp_db, f"SELECT why FROM live_context WHERE session_id = '{session.id}' ORDER BY place"
        )
        assert [row["why"] for row in rows] == ["summary", "kept", "kept", "kept", "since"]


async def test_session_overview_counts_what_the_api_counts(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await a_bit_of_everything(db)
        rows = {row["session_id"]: row for row in shell(tmp_db, "SELECT * FROM session_overview")}
        infos = {info.session_id: info async for info in db.sessions(with_ended=True)}
        assert rows.keys() == infos.keys()
        for session_id, info in infos.items():
            row = rows[session_id]
            assert (
                row["entries"],
                row["epoch"],
                row["compactions"],
                row["context_tokens"],
                row["forked_from"],
            ) == (
                info.entries,
                info.epoch,
                info.compactions,
                info.context_tokens,
                info.forked_from,
            )


async def test_stuck_shows_a_cool_down_and_an_overdue_job_only(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        created = await a_bit_of_everything(db)
        assert [
            (row["session_id"], row["problem"]) for row in shell(tmp_db, "SELECT * FROM stuck")
        ] == [(created["cooling"].id, "in cool-down")]
        with pytest.raises(sessiondb.CompactionCoolDown):
            async with created["cooling"].compact(trigger="threshold", keep_recent_tokens=150):
                pass
    # A deadline in the past, as a killed process leaves it behind.
    overdue = (
        "INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch,"
        " tokens_before, begun_at_ms, deadline_ms, deadline_max_ms)"
        " SELECT 'dead', session_no, 'running', 'threshold', 0, 1, 1, 2, 2 FROM session"
        f" WHERE session_id = '{created['overdue'].id}'"
    )
    write_with_shell(tmp_db, overdue)
    assert {row["problem"] for row in shell(tmp_db, "SELECT * FROM stuck")} == {
        "in cool-down",
        "past its deadline",
    }


async def everything_else(db: sessiondb.SessionDB, folder: Path) -> None:
    """Leave what a gateway, an import and retention leave behind them."""

    async def answer(turn: sessiondb.Turn) -> sessiondb.Answer:
        return sessiondb.Answer(replies=[(turn.session.id, {"text": "here I am"})])

    async def send(_reply: object) -> str:
        raise Stuck("the line was cut")

    write(folder, {"s-1.jsonl": transcript() + b'{"torn'})
    await db.import_path(folder)
    old = await db.create_session("old")
    await old.append({"role": "user", "content": "long ago"})
    await db.gc(sessiondb.RetentionPolicy(max_sessions=8, idle_days=0))
    await db.accept(
        "agent:main:late",
        {"role": "user", "content": "?"},
        channel="web",
        event_id="late",
        lane="cron",
    )
    async with anyio.create_task_group() as group:
        group.start_soon(db.run_lane, "main", answer)
        group.start_soon(db.run_outbox, send)
        with anyio.fail_after(60):
            async with aclosing(db.events("test", from_start=True)) as events:
                async for event in events:
                    if event.kind == "reply_unknown":
                        break
        group.cancel_scope.cancel()


async def test_every_query_of_the_pages_finds_something(tmp_db: Path) -> None:
    assert len(QUERIES) >= 14
    async with sessiondb.open(tmp_db) as db:
        made = await a_bit_of_everything(db)
        await everything_else(db, tmp_db.parent / "transcripts")
        async with made["overdue"].compact(
            trigger="threshold", keep_recent_tokens=150
        ) as job:  # something to hold
            silent = [query for query in QUERIES if not shell(tmp_db, query)]
            await job.commit("done")
        assert silent == [], "each finds something in a database that holds something of everything"


# -- a gateway's work ------------------------------------------------------------------


class Stuck(Exception):
    """What the test's channel raises: the outcome of the reply is unknown."""


async def a_gateways_day(db: sessiondb.SessionDB) -> None:
    """Bring one message to each end: sent, unknown, refused, incomplete, dead, and waiting."""

    async def answer(turn: sessiondb.Turn) -> sessiondb.Answer:
        message = turn.message["content"]
        if message == "nothing":
            return sessiondb.Answer(incomplete="the model said nothing")
        return sessiondb.Answer(
            entries=[{"role": "assistant", "content": f"re {message}"}],
            replies=[(f"web:{message}", {"text": message})],
        )

    async def send(reply: object) -> str:
        target = getattr(reply, "target", "")
        if target == "web:refused":
            raise sessiondb.RefusedBySender("no such channel", retry=False)
        if target == "web:unknown":
            raise Stuck("the line was cut")
        return "id of the channel"

    for message in ("sent", "refused", "unknown", "nothing"):
        await db.accept(
            f"agent:main:web:direct:{message}",
            {"role": "user", "content": message},
            channel="web",
            event_id=message,
        )
    dead = await db.accept(
        "agent:main:web:direct:dead",
        {"role": "user", "content": "dead"},
        channel="web",
        event_id="dead",
        lane="cron",
    )
    waiting = await db.session("agent:main:web:direct:dead")
    await db.write(
        "test.dead_letter",
        lambda tx: dead_letters.dead_letter(
            tx, dead.inbox_no, waiting.ref.session_no, "made to die"
        ),
    )
    await db.accept(
        "agent:main:web:direct:waiting",
        {"role": "user", "content": "waiting"},
        channel="web",
        event_id="waiting",
        lane="cron",
    )
    async with anyio.create_task_group() as group:
        group.start_soon(db.run_lane, "main", answer)
        group.start_soon(db.run_outbox, send)
        with anyio.fail_after(60):
            while not await db.read("test.quiet", is_quiet):
                await db.backend.wait_change(db.backend.change_count, 0.05)
        group.cancel_scope.cancel()


def is_quiet(tx: ReadTx) -> bool:
    """Return whether everything but the message in lane `cron` is done."""
    work = tx.one("status.work", now_ms=0)
    return (
        work.messages_waiting,
        work.turns_running,
        work.replies_pending,
        work.replies_sending,
        work.replies_unknown,
    ) == (1, 0, 0, 0, 1)


async def test_the_views_of_a_gateway_tell_what_became_of_each_message(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await a_gateways_day(db)
        open_ones = {row["event_id"]: row for row in shell(tmp_db, "SELECT * FROM inbox_open")}
        assert {name: row["state"] for name, row in open_ones.items()} == {
            "dead": "dead",
            "waiting": "queued",
        }
        assert open_ones["dead"]["reason"] == "made to die"
        assert '"waiting"' in open_ones["waiting"]["begins_with"]

        ended = shell(tmp_db, "SELECT * FROM turn_log ORDER BY turn_no")
        assert [(row["state"], row["lane"], row["attempt"]) for row in ended] == [
            ("completed", "main", 1)
        ] * 4
        assert [row["reason"] for row in ended if row["incomplete"]] == ["the model said nothing"]
        assert all(row["took_s"] >= 0 and row["owner"] for row in ended)

        replies = {row["target"]: row for row in shell(tmp_db, "SELECT * FROM outbox_open")}
        assert {target: row["state"] for target, row in replies.items()} == {
            "web:refused": "failed",
            "web:unknown": "unknown",
        }
        assert "no such channel" in replies["web:refused"]["reason"]
        assert "the line was cut" in replies["web:unknown"]["reason"]

        report = shell(tmp_db, "SELECT * FROM event_log ORDER BY event_no")
        assert {(row["kind"], row["audience"]) for row in report} == {
            ("message_dead", "user"),
            ("message_dead", "operator"),
            ("turn_started", "operator"),
            ("turn_completed", "operator"),
            ("turn_incomplete", "user"),
            ("reply_sent", "operator"),
            ("reply_failed", "operator"),
            ("reply_unknown", "operator"),
        }
        assert all(
            row["text"] and row["at"] and json.loads(row["data"]) is not None for row in report
        )
        assert shell(tmp_db, "SELECT * FROM held") == []


async def test_held_shows_what_the_api_shows(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        both = {"turn", "reply", "compaction"}
        busy = anyio.Event()

        async def answer(turn: sessiondb.Turn) -> sessiondb.Answer:
            if turn.message["content"] == "answer":
                return sessiondb.Answer(replies=[("web:1", {"text": "hi"})])
            await anyio.sleep_forever()
            raise AssertionError

        async def send(_reply: object) -> str:
            busy.set()
            await anyio.sleep_forever()
            raise AssertionError

        await db.accept(
            "agent:main:a", {"role": "user", "content": "answer"}, channel="web", event_id="1"
        )
        await db.accept(
            "agent:main:b", {"role": "user", "content": "think"}, channel="web", event_id="2"
        )
        session = await db.session("agent:main:c")
        for _ in range(6):
            await session.append({"role": "user", "content": "question " * 30})
            await session.append({"role": "assistant", "content": "answer " * 30})
        async with anyio.create_task_group() as group, session.compact(keep_recent_tokens=100):
            group.start_soon(db.run_lane, "main", answer)
            group.start_soon(db.run_outbox, send)
            with anyio.fail_after(60):
                await busy.wait()
                while {holding.what for holding in await db.held()} != both:
                    await db.backend.wait_change(db.backend.change_count, 0.05)
            shown = shell(tmp_db, "SELECT * FROM held ORDER BY what")
            known = sorted(await db.held(), key=lambda holding: holding.what)
            jobs = shell(tmp_db, "SELECT compaction_id, compaction_no FROM compaction")
            numbers = {job["compaction_id"]: job["compaction_no"] for job in jobs}
            assert [
                (row["what"], row["session_id"], row["number"], row["operation"], row["owner"])
                for row in shown
            ] == [
                (
                    holding.what,
                    holding.session_id,
                    holding.turn_no or holding.outbox_no or numbers[holding.compaction_id],
                    holding.operation,
                    f"{holding.pid}@{holding.host}",
                )
                for holding in known
            ]
            assert all(row["since"] <= row["until"] for row in shown)
            group.cancel_scope.cancel()

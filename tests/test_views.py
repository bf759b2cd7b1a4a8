"""The views, as an operator meets them: through the distribution's sqlite3 shell, read-only, beside an open database."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import sessiondb

REPOSITORY = Path(__file__).resolve().parent.parent
VIEWS = re.findall(r"^CREATE VIEW (\w+)", (REPOSITORY / "schema.sql").read_text(), re.MULTILINE)
QUERIES = re.search(r"```sql\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 shell on this machine"),
]


def shell(path: Path, sql: str) -> list[dict]:
    done = subprocess.run(["sqlite3", "-readonly", "-json", str(path)], input=sql, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout or "[]")


def write_with_shell(path: Path, sql: str) -> None:
    subprocess.run(["sqlite3", str(path)], input=sql, text=True, check=True)


async def a_bit_of_everything(db: sessiondb.SessionDB) -> dict[str, sessiondb.Session]:
    """One session of each shape that a view has to describe."""
    made = {name: await db.session(f"agent:main:{name}") for name in ("plain", "compacted", "branched", "reset", "cooling", "overdue")}
    for session in made.values():
        for number in range(6):
            await session.append({"role": "user", "content": f"question {number} about the invoice"})
            await session.append({"role": "assistant", "content": [{"type": "text", "text": f"answer {number} " + "x" * 400}]})
    async with made["compacted"].compact(trigger="threshold", keep_recent_tokens=150) as job:
        await job.commit("a summary")
    await made["compacted"].append({"role": "user", "content": "since"})
    made["forked"] = await made["compacted"].fork(key="agent:main:forked")
    await made["forked"].append({"role": "user", "content": "only in the fork"})
    first = (await made["branched"].entries(limit=3))[2]
    await made["branched"].branch(first.entry_id)
    await made["branched"].append({"role": "user", "content": "another way"})
    await made["reset"].reset("new")
    await made["reset"].append({"role": "user", "content": "fresh"})
    for _ in range(3):
        async with made["cooling"].compact(trigger="threshold", keep_recent_tokens=150) as job:
            assert (await job.commit("")).outcome == "rejected"
    return made


async def test_every_view_answers_in_the_distributions_shell_beside_an_open_database(tmp_db: Path) -> None:
    assert len(VIEWS) >= 8
    async with sessiondb.open(tmp_db) as db:
        await a_bit_of_everything(db)
        for view in VIEWS:
            shell(tmp_db, f"SELECT * FROM {view}")


async def test_live_context_shows_exactly_what_the_model_is_sent(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        for session in (await a_bit_of_everything(db)).values():
            context = await session.context()
            rows = shell(tmp_db, f"SELECT * FROM live_context WHERE session_id = '{session.id}' ORDER BY place")
            said = [row["text"] for row in rows]
            sent = [message.get("summary") or message["content"] for message in context.messages]
            assert said == [text if isinstance(text, str) else text[0]["text"] for text in sent], session.id
            assert [row["place"] for row in rows] == list(range(1, len(rows) + 1))


async def test_live_context_says_why_each_message_is_there(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = (await a_bit_of_everything(db))["compacted"]
        rows = shell(tmp_db, f"SELECT why FROM live_context WHERE session_id = '{session.id}' ORDER BY place")
        assert [row["why"] for row in rows] == ["summary", "kept", "kept", "kept", "since"]


async def test_session_overview_counts_what_the_api_counts(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await a_bit_of_everything(db)
        rows = {row["session_id"]: row for row in shell(tmp_db, "SELECT * FROM session_overview")}
        infos = {info.session_id: info async for info in db.sessions(with_ended=True)}
        assert rows.keys() == infos.keys()
        for session_id, info in infos.items():
            row = rows[session_id]
            assert (row["entries"], row["epoch"], row["compactions"], row["context_tokens"], row["forked_from"]) == (
                info.entries, info.epoch, info.compactions, info.context_tokens, info.forked_from,
            )  # fmt: skip


async def test_stuck_shows_a_cool_down_and_an_overdue_job_and_nothing_else(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        made = await a_bit_of_everything(db)
        assert [(row["session_id"], row["what"]) for row in shell(tmp_db, "SELECT * FROM stuck")] == [
            (made["cooling"].id, "compaction cool-down")
        ]
        with pytest.raises(sessiondb.CompactionCoolDown):
            async with made["cooling"].compact(trigger="threshold", keep_recent_tokens=150):
                pass
    # A deadline in the past, as a killed process leaves it behind.
    overdue = (
        "INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch, tokens_before, begun_at_ms, deadline_ms,"
        " deadline_max_ms)"
        f" SELECT 'dead', session_no, 'running', 'threshold', 0, 1, 1, 2, 2 FROM session WHERE session_id = '{made['overdue'].id}'"
    )
    write_with_shell(tmp_db, overdue)
    assert {row["what"] for row in shell(tmp_db, "SELECT * FROM stuck")} == {"compaction cool-down", "compaction overdue"}


async def test_the_readmes_queries_work_as_printed(tmp_db: Path) -> None:
    assert QUERIES is not None
    queries = [query.strip() for query in QUERIES[1].split(";") if query.strip()]
    assert len(queries) == 5
    async with sessiondb.open(tmp_db) as db:
        await a_bit_of_everything(db)
        answers = [shell(tmp_db, query) for query in queries]
        assert all(answers), "each query finds something in a database that holds something of everything"

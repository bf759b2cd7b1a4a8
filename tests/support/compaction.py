"""Conversations to compact, and jobs whose block no task has entered."""

from __future__ import annotations

from typing import Any

import sessiondb
from sessiondb.backend import Tx
from sessiondb.transcript import compaction
from sessiondb.transcript.context import decode_messages
from tests.support.core import reply, texts, user


class Clock:
    """The writer's clock."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000


async def talk(db: sessiondb.SessionDB, turns: int = 4) -> sessiondb.Session:
    """Return a session of q0 a0 q1 a1 ... Each message has 25 tokens."""
    session = await db.create_session()
    for turn in range(turns):
        await say(session, f"q{turn}", f"a{turn}")
    return session


async def say(session: sessiondb.Session, question: str, answer: str | None = None) -> None:
    await session.append(user(question.ljust(100)))
    if answer is not None:
        await session.append(reply(answer.ljust(100)))


async def seen(session: sessiondb.Session, epoch: int | None = None) -> list[str]:
    return [text.strip() for text in texts(await session.context(epoch=epoch))]


async def span_of(job: sessiondb.CompactionJob) -> list[dict[str, Any]]:
    """Return what a job covers as it is stored. `job.messages` are in order for a model."""
    parts = await job.session.db.read(
        "test.span", lambda tx: compaction.read_span(tx, job._begun, raw=True)
    )
    return decode_messages(parts)


def asked(job: sessiondb.CompactionJob) -> list[str]:
    found = []
    for item in job.messages:
        content = item.get("content", item.get("summary"))
        found.append((content if isinstance(content, str) else content[0]["text"]).strip())
    return found


async def begin(session: sessiondb.Session, keep: int = 50, *, trigger: str = "threshold") -> str:
    """Begin a job without entering its block; return its id."""
    job = session.compact(trigger=trigger, keep_recent_tokens=keep)
    await job.__aenter__()
    job._deadline.__exit__(None, None, None)
    return job.id


async def jobs(session: sessiondb.Session) -> list[tuple[str, bool, str | None]]:
    return [(job.state, job.late, job.reason) async for job in session.db.compactions(session)]


def begin_in(
    tx: Tx,
    session_no: int,
    *,
    trigger: str,
    keep_recent_tokens: int,
    timeout_ms: int,
    threshold_tokens: int | None = None,
) -> compaction.Job:
    """Choose a cut and begin its job in one transaction. (A `CompactionJob` needs two.)"""
    choice = compaction.choose(
        tx, session_no, trigger=trigger, keep_recent_tokens=keep_recent_tokens
    )
    job = compaction.begin(tx, choice, timeout_ms=timeout_ms, threshold_tokens=threshold_tokens)
    assert job is not None, "nothing changes within a transaction"
    return job

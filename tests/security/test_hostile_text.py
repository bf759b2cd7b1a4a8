"""Hostile text in any argument or option changes nothing, and stored text comes back as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sessiondb
import sessiondb.sync
from sessiondb.errors import SessionDBError
from tests.support.attacks import IS_LONG, content_of, run

HOSTILE = [
    "'; DROP TABLE entry; --",
    '"; DELETE FROM session; --',
    "' OR '1'='1",
    "x' UNION SELECT payload FROM entry --",
    ":session_no ?1 $x @y {name} %s %(x)s",
    "%",
    "_",
    "*",
    "[a-z]",
    "\\",
    "../../etc/passwd",
    "\x1b[2J\x07",
    "nul\x00behind",
    "line\nbreak",
    "\ud83d",
    "é漢🙂\u202e",
    " ",
    "",
    "x" * 5_000,
    "--help",
]


def shortly(text: str) -> str:
    return ascii(text)[:40]


async def every_call(db: sessiondb.SessionDB, text: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    session = await db.session("agent:main:web:direct:jo")

    async def listed(pages: Any) -> list[Any]:
        return [item async for item in pages]

    reads: list[tuple[str, Callable[[], Any]]] = [
        ("session_by_id", lambda: db.session_by_id(text)),
        ("find", lambda: db.find(text)),
        ("session_for", lambda: db.session_for(text, text, create=False)),
        ("sessions", lambda: listed(db.sessions(agent_id=text))),
        ("of a namespace", lambda: listed(db.sessions(namespace=text))),
        ("of keys", lambda: listed(db.sessions(key_prefix=text))),
        ("export", lambda: db.export(os.devnull + "/x", session=text)),
        ("replies", lambda: listed(db.replies(text))),  # type: ignore[arg-type]
        ("plan_resumes", lambda: db.plan_resumes()),
        ("branch", lambda: session.branch(text)),
        ("fork", lambda: session.fork(entry=text)),
        ("reset", lambda: session.reset(text)),
        ("keep_from", lambda: session.reset("new", keep_from=text)),
        ("unbind", lambda: db.unbind(f"agent:x:{text}")),
        ("commit", lambda: db.commit_compaction(text, "a summary")),
        ("fail", lambda: db.fail_compaction(text, text)),
        (
            "accept in lane",
            lambda: db.accept(
                "agent:main:web:direct:zz",
                {"role": "user", "content": "x"},
                channel="web",
                event_id="e9",
                lane=text,
            ),
        ),
        ("typed", lambda: session.append({"type": "custom", "parentId": text, "data": 1})),
        ("unarchive", lambda: db.unarchive(text)),
        ("not json", lambda: session.append(text)),
        ("import", lambda: db.import_path("/nonexistent/" + text)),
    ]
    return iter(reads)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "trio"] if IS_LONG else ["asyncio"], scope="module"
)
@pytest.mark.parametrize("text", HOSTILE, ids=shortly)
async def test_hostile_text_in_any_argument_changes_nothing(db: Path, text: str) -> None:
    before = content_of(db)
    async with sessiondb.open(db) as opened:
        for name, call in await every_call(opened, text):
            try:
                await call()
            except (SessionDBError, ValueError, OSError):
                assert name  # an error of the driver would end the test
        assert (await opened.verify()).ok
    after = content_of(db)
    assert after["schema"] == before["schema"]
    assert after["entry"] == before["entry"]
    assert after["session"] == before["session"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "trio"] if IS_LONG else ["asyncio"], scope="module"
)
@pytest.mark.parametrize("text", HOSTILE, ids=shortly)
async def test_hostile_text_that_is_stored_comes_back_as_it_was(db: Path, text: str) -> None:
    before = content_of(db)
    async with sessiondb.open(db) as opened:
        session = await opened.create_session()
        await session.append({"role": "user", "content": text})
        for store in (
            lambda: session.append(
                {"role": "user", "content": "again"}, idempotency_key=text or None
            ),
            lambda: opened.session(f"agent:main:web:direct:{text}"),
            lambda: opened.create_session(text),
            lambda: opened.accept(
                "agent:main:web:direct:zz",
                {"role": "user", "content": text},
                channel=text,
                event_id=text,
            ),
            lambda: opened.set_lane(text, concurrency=1, priority=1),
            lambda: session.append(
                {"type": "custom", "customType": text, "id": text or "e", "data": {text: text}}
            ),
        ):
            try:
                await store()
            except SessionDBError:
                continue  # a typed refusal is an answer, too
        stored = [json.loads(entry.payload) for entry in await session.entries()]
        assert stored[0]["message"]["content"] == text
        assert (await opened.verify()).ok
        try:
            assert (await opened.session_by_id(text)).id == text
        except (SessionDBError, ValueError):
            assert (
                await opened.read("test", lambda tx: tx.first("registry.by_id", session_id="zz"))
                is None
            )
    assert content_of(db)["schema"] == before["schema"]


COMMANDS = [
    ("show", "{db}", "{text}"),
    ("context", "{db}", "{text}"),
    ("tail", "{db}", "{text}"),
    ("sessions", "{db}", "--agent", "{text}"),
    ("compactions", "{db}", "--session", "{text}"),
    ("verify", "{db}", "--session", "{text}"),
    ("export", "{db}", "{out}", "--session", "{text}"),
    ("pin", "{db}", "{text}"),
    ("unpin", "{db}", "{text}"),
    ("unarchive", "{db}", "{text}"),
    ("append", "{db}", "{text}"),
    ("query", "{db}", "select count(*) from entry where entry_id = :x", "-p", "x", "{text}"),
    ("events", "{db}", "--consumer", "{text}"),
    ("outbox", "{db}", "--state", "{text}"),
    ("dead", "{db}", "--requeue", "{text}"),
    ("gc", "{db}", "--max-age", "{text}", "--dry-run"),
]


# An argument of a process has no NUL and no lone surrogate. The short run takes every fourth
# of the rest.
@pytest.mark.parametrize(
    "text",
    [text for text in HOSTILE if "\x00" not in text and "\ud83d" not in text][
        :: 1 if IS_LONG else 4
    ],
    ids=shortly,
)
def test_hostile_text_in_any_option_changes_nothing(db: Path, text: str, tmp_path: Path) -> None:
    before = content_of(db)
    for command in COMMANDS:
        result = run(*(part.format(db=db, text=text, out=tmp_path / "out") for part in command))
        assert result.exit_code != 70, (command, result.output)
        assert "\x1b[2J" not in result.output
    assert content_of(db) == before

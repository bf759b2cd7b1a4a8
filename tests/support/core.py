"""Shared by the core's tests: messages, transcripts read line by line, access to a closed file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb.backend import Tx
from sessiondb.json_text import DamagedLine
from sessiondb.limits import PAGE_ENTRIES_MAX
from sessiondb.transcript import registry
from sessiondb.transcript.entries import Draft, parse_line
from sessiondb.transcript.formats import PI
from sessiondb.transcript.replay import replay
from sessiondb.transcript.state import load_state, save_state

one_loop = pytest.mark.one_loop
"""For tests of many seconds that are not about a loop: under trio the same lines run again."""


def user(text: str) -> dict[str, Any]:
    """Return a user message."""
    return {"role": "user", "content": text}


def reply(
    text: str, *, calls: Sequence[str] = (), tokens: int | None = None, **fields: Any
) -> dict[str, Any]:
    """Return an assistant message that calls tools with these ids.

    `tokens` is the provider's count.
    """
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    content += [
        {"type": "toolCall", "id": call, "name": "read", "arguments": {"path": "a.txt"}}
        for call in calls
    ]
    usage = {"usage": {"totalTokens": tokens}} if tokens is not None else {}
    return {
        "role": "assistant",
        "content": content,
        "provider": "p",
        "model": "m",
        **usage,
        **fields,
    }


def result(call: str, text: str = "done") -> dict[str, Any]:
    """Return the result of a tool call."""
    return {
        "role": "toolResult",
        "toolCallId": call,
        "toolName": "read",
        "content": [{"type": "text", "text": text}],
    }


def texts(context: sessiondb.Context) -> list[str]:
    """Return the texts of a context, one per message."""
    return [_text_of(message) for message in context.messages]


def _text_of(message: dict[str, Any]) -> str:
    if "summary" in message:
        return f"<{message['summary']}>"
    content = message.get("content")
    return (
        content
        if isinstance(content, str)
        else "".join(block.get("text", "") for block in content or ())
    )


def ids_of(entries: Sequence[sessiondb.Entry]) -> list[str]:
    """Return the ids of a page."""
    return [entry.entry_id for entry in entries]


async def whole_path(session: sessiondb.Session) -> list[sessiondb.Entry]:
    """Return the current path in one page."""
    return await session.entries(limit=PAGE_ENTRIES_MAX)


async def load_lines(
    db: sessiondb.SessionDB, session_id: str, lines: Sequence[str], *, version: int | None = None
) -> tuple[sessiondb.Session, list[str]]:
    """Store the lines of a transcript as an import does; return the session and the notes."""
    if version is None:
        first = json.loads(lines[0])
        version = first.get("version", 1) if first.get("type") == "session" else 3
    drafts: list[Draft] = []
    for line in lines:
        try:
            drafts.append(parse_line(line, version))
        except DamagedLine:
            continue

    def body(tx: Tx) -> list[str]:
        session_no = registry.insert(
            tx, session_id, origin="import", version=version, agent_id=None, may_be=PI.bit
        )
        state = load_state(tx, session_no)
        notes: list[str] = []
        for draft in drafts:
            replay(tx, state, draft, notes)
        save_state(tx, state)
        return notes

    notes = await db.backend.write(body, op="test.load")
    return await db.session_by_id(session_id), notes


async def load_file(db: sessiondb.SessionDB, path: Path) -> tuple[sessiondb.Session, list[str]]:
    """Store a transcript file under its own name."""
    return await load_lines(db, path.name, _lines_of(path))


def _lines_of(path: Path) -> list[str]:
    return [line for line in path.read_bytes().decode().split("\n") if line.strip()]


def change(path: Path, *statements: str) -> None:
    """Change a closed database without its rules: even its schema."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(
            "PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on"
        ).fetchall()
        for statement in statements:
            connection.execute(statement).fetchall()


def query(path: Path, sql: str, *values: Any) -> list[Any]:
    """Query a closed database. Rows of one column come as plain values."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        rows = connection.execute(sql, values).fetchall()
    return [row[0] if len(row) == 1 else row for row in rows]

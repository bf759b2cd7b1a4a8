"""A home of OpenClaw with two of everything: two agents, one of each era, and what lies beside."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.openclaw_store import OpenClawStore, transcript_lines
from tests.support.transfer import message, transcript, write

FOREIGN = json.dumps({"type": "user", "uuid": "u", "parentUuid": None, "sessionId": "c"}) + "\n"
ROLLOUT = json.dumps({"type": "session_meta", "payload": {"id": "r"}}) + "\n"
ARCHIVED = "old.jsonl.reset.2026-05-17T07-35-46.420Z"
OTHERS = {
    "cron run log": 1,
    "Codex rollout": 1,
    "log": 1,
    "lock file": 1,
    "other file": 2,
    "trajectory": 1,
    "workspace file": 2,
}
"""What the home holds that is no conversation, by kind."""


def index_of(keys: dict[str, str]) -> bytes:
    return json.dumps(
        {key: {"sessionId": name, "updatedAt": 5} for key, name in keys.items()}
    ).encode()


def make_home(home: Path) -> Path:
    """Make a home of which everything can be imported: five transcripts and two indexes."""
    sessions = "agents/main/sessions"
    write(
        home,
        {
            f"{sessions}/sessions.json": index_of({"agent:main:a": "a", "agent:main:b": "b"}),
            f"{sessions}/a.jsonl": transcript(4, "a"),
            f"{sessions}/b.jsonl": transcript(5, "b"),
            f"{sessions}/{ARCHIVED}": transcript(3, "old"),
            f"{sessions}/a.jsonl.lock": b'{"pid": 999999999}',
            f"{sessions}/a.trajectory.jsonl": b"{}\n",
            "agents/main/agent/codex-home/sessions/2026/rollout-1.jsonl": ROLLOUT.encode(),
            "agents/main/agent/models.json": b"{}",
            "cron/runs/j.jsonl": b'{"ts":1,"jobId":"j","action":"finished"}\n',
            "logs/audit.jsonl": b'{"ts":1}\n',
            "workspace/notes.jsonl": b'{"role":"user","content":"mine"}\n',
            "workspace-ops/SOUL.md": b"be kind",
            "openclaw.json": b"{}",
        },
    )
    with_store(home).close()
    return home


def with_store(home: Path) -> OpenClawStore:
    """Give the home an agent of the SQLite era with two transcripts. The database stays open."""
    store = OpenClawStore(home, "ops")
    for name in ("x", "y"):
        store.window(name, name)
        store.append(name, transcript_lines(name), packed=(1,))
        store.key(name, name)
    return store


def grow(path: Path, session_id: str, count: int) -> None:
    """Append a message to a transcript that `transcript` made with so many."""
    with path.open("ab") as file:
        file.write(f"{message(f'm{count}', f'm{count - 1}', session_id)}\n".encode())

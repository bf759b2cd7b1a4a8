"""What the README and docs/gateway.md say about gateways is true: the example runs, and the tables name what exists."""

from __future__ import annotations

import ast
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
from sessiondb.cli import program
from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_gateway_of_the_readme_runs_as_written(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sessiondb.gateway.inbox.SESSION_WAITING_MAX", 2)
    acknowledged: list[str] = []
    refused: list[tuple[str, int]] = []
    rejected: list[tuple[str, str]] = []
    sent: list[tuple[str, str]] = []

    async def main() -> None:
        enough, full = anyio.Event(), anyio.Event()

        async def channel() -> AsyncIterator[tuple[str, str, str]]:
            for event in (
                "1 ann hello",
                "1 ann hello",
                "2 ann again",
                "3 ann more",
                "5 eve late",
                "6 a\x07b ring",
                "4 bob hi",
            ):
                event_id, user, text = event.split(" ")
                yield event_id, user, text
            full.set()

        async def model(messages: list[dict[str, Any]]) -> str:
            await full.wait()  # so that what is accepted waits, and the third message of ann finds her conversation full
            return f"re {messages[-1]['content']}"

        async def send(reply: Any) -> str:
            sent.append((reply.target, reply.payload))
            if len(sent) == 3:
                enough.set()
            return "channel-id"

        async def ack(event_id: str) -> None:
            acknowledged.append(event_id)

        async def nack(event_id: str, retry_after_ms: int) -> None:
            refused.append((event_id, retry_after_ms))

        async def reject(event_id: str, why: str) -> None:
            rejected.append((event_id, why))

        async with sessiondb.open("gateway.db") as db:
            await (await db.session("agent:main:web:direct:eve")).end()
        names: dict[str, Any] = {
            "channel": channel(),
            "model": model,
            "send": send,
            "ack": ack,
            "nack": nack,
            "reject": reject,
        }
        [source] = [block for block in python_blocks(README) if "run_lane" in block]
        exec(compile(source, "README.md", "exec"), names)  # our own text
        async with anyio.create_task_group() as group:
            group.start_soon(names["main"])
            with anyio.fail_after(60):
                await enough.wait()
            group.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert acknowledged == ["1", "1", "2", "4"]
    assert [event_id for event_id, _ in refused] == ["3"]
    assert refused[0][1] > 0
    assert [event_id for event_id, _ in rejected] == ["5", "6"], (
        "one for a session that has ended, one whose key cannot be one"
    )
    assert "unbind the key" in rejected[0][1]
    assert len(sent) == 3
    with sessiondb.sync.open("gateway.db") as db:
        note = [
            message["content"]
            for message in db.session("agent:main:web:direct:ann").context().messages
        ]
        assert note == ["hello", "re hello", "again", "re again"]
        assert db.verify().ok


def test_every_python_block_of_the_guide_is_python() -> None:
    blocks = python_blocks(GUIDE)
    assert len(blocks) >= 2
    for block in blocks:
        compile(
            "async def block():\n" + "".join(f"    {line}\n" for line in block.splitlines()),
            "docs/gateway.md",
            "exec",
        )


def emitted() -> set[str]:
    """Return the kinds of event that the package emits, from its source; those that are chosen at run time by their prefix."""
    found: set[str] = set()
    for path in (ROOT / "sessiondb").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = (
                    node.func.attr
                    if isinstance(node.func, ast.Attribute)
                    else getattr(node.func, "id", "")
                )
                if name in ("emit", "_notify_operators", "_notify_user") and len(node.args) > 1:
                    kinds = [
                        arg.value
                        for arg in node.args[1:3]
                        if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
                    ]
                    found |= {kind for kind in kinds[:1] if re.fullmatch(r"[a-z]+(_[a-z]+)+", kind)}
    return found


def test_the_guide_lists_every_kind_of_event() -> None:
    listed = set(
        re.findall(
            r"`(\w+)`",
            " ".join(
                line
                for line in GUIDE.splitlines()
                if re.match(r"\| `\w+`.*\| (user|operator)", line)
            ),
        )
    )
    assert len(emitted()) >= 8
    assert emitted() <= listed, f"not in the table of docs/gateway.md: {sorted(emitted() - listed)}"


def test_the_commands_that_the_readme_and_the_guide_name_exist() -> None:
    named = set(re.findall(r"^\$ (?:echo .* \| )?sessiondb (\w+)", README, re.MULTILINE))
    named |= set(re.findall(r"`sessiondb (\w+)", README + GUIDE))
    assert {"held", "events", "resume", "dead", "outbox", "inbox"} <= named
    assert named <= set(program.commands)


def test_the_calls_that_the_guide_names_exist() -> None:
    called = set(re.findall(r"\bdb\.(\w+)\(", README + GUIDE))
    assert len(called) > 10
    assert {name for name in called if not hasattr(sessiondb.SessionDB, name)} == set()
    assert {
        name
        for name in re.findall(r"\bsession\.(\w+)\(", README + GUIDE)
        if not hasattr(sessiondb.Session, name)
    } == set()

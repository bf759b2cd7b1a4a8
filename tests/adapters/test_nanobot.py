"""The session store of nanobot. `make adapters` runs these.

Each course is run on nanobot's own store of JSONL files, too, and both must say the same.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import sessiondb.sync
from tests import ROOT

from .programs import Program

pytest.importorskip("nanobot.session.manager", reason="nanobot is not installed: make adapters")

from nanobot.session.manager import Session, SessionManager
from websockets.asyncio.client import unix_connect

from sessiondb.adapters.nanobot import SessionDBStore

Managers = Callable[[], SessionManager]
"""Each call is a new process, as far as the manager's memory goes."""


AT = datetime(2026, 1, 1)  # noqa: DTZ001  nanobot's times have no zone


def ticking() -> type[datetime]:
    """Return a clock that goes on by a second each time, for two courses that are compared."""
    seconds = itertools.count()

    class Ticking(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return AT + timedelta(seconds=next(seconds))

    return Ticking


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is nanobot's home, too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def begun(manager: SessionManager, key: str) -> Session:
    """Return a new session, of a fixed time."""
    session = manager.get_or_create(key)
    session.created_at = session.updated_at = AT
    return session


def talk(session: Session, *names: str) -> None:
    """Say something, with a call and its result."""
    for name in names:
        session.add_message("user", f"question {name}", media=["/tmp/a.png"], _n=[None, 1.5])
        call = {"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}}
        session.add_message("assistant", "", tool_calls=[call])
        session.add_message("tool", "found", tool_call_id=name, name="look")
        session.add_message("assistant", f"answer {name}")


def told(manager: SessionManager, key: str) -> Any:
    """Return all that a manager says of a session, but for where it is."""
    listed = [{**each, "path": ""} for each in manager.list_sessions()]
    return (
        manager.read_session_snapshot(key),
        manager.read_session_file(key),
        manager.read_session_metadata(key),
        listed,
    )


def is_saved_again_and_again(managers: Managers) -> Any:
    first = managers()
    one, other = begun(first, "cli:one"), begun(first, "telegram:2/ä")
    said = []
    for number in range(3):
        talk(one, str(number))
        first.save(one)
        said.append(told(managers(), "cli:one"))
    talk(other, "else")
    first.save(other, fsync=True)
    again = managers().get_or_create("cli:one")
    talk(again, "late")
    return said, told(managers(), "telegram:2/ä"), told(managers(), "nobody"), again.messages


def is_compacted_and_changed(managers: Managers) -> Any:
    manager = managers()
    session = begun(manager, "cli:one")
    talk(session, "a", "b", "c")
    manager.save(session)
    session.commit_summary_checkpoint("a summary", insert_at=4)
    manager.save(session)
    said = [told(managers(), "cli:one"), managers().get_or_create("cli:one").get_history()]
    session.messages[5]["content"] = "another"
    session.messages.append({"no_role": True})
    manager.save(session)
    said.append(told(managers(), "cli:one"))
    session.clear()
    manager.save(session)
    said.append(told(managers(), "cli:one"))
    talk(session, "anew")
    manager.save(session)
    return [*said, told(managers(), "cli:one")]


def has_metadata(managers: Managers) -> Any:
    manager = managers()
    assert not manager.update_session_metadata("cli:one", {"a": 1})
    session = begun(manager, "cli:one")
    session.metadata |= {"title": "<think>no</think>A talk", "deep": {"b": [1, None]}}
    talk(session, "a")
    manager.save(session)
    assert managers().update_session_metadata("cli:one", {"title": "B", "large": "x" * 100_000})
    said = [told(managers(), "cli:one")]
    assert managers().update_session_metadata("cli:one", {"large": ""})
    return [*said, told(managers(), "cli:one")]


def is_forked_and_deleted(managers: Managers) -> Any:
    manager = managers()
    session = begun(manager, "cli:one")
    talk(session, "a", "b")
    manager.save(session)
    forked = manager.fork_session_before_user_index("cli:one", "cli:two", 1)
    deleted = [manager.delete_session("cli:one"), managers().delete_session("cli:one")]
    session = begun(managers(), "cli:one")
    manager.save(session)
    return forked and forked.messages, deleted, told(managers(), "cli:one")[0].messages


@pytest.mark.parametrize(
    "course",
    [is_saved_again_and_again, is_compacted_and_changed, has_metadata, is_forked_and_deleted],
)
def test_it_says_what_nanobots_own_store_says(
    course: Callable[[Managers], Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sessiondb.sync.temporary() as db:
        said = []
        for name, store in (("own", lambda: None), ("ours", lambda: SessionDBStore(db))):
            monkeypatch.setattr("nanobot.session.manager.datetime", ticking())
            said.append(
                course(
                    lambda name=name, store=store: SessionManager(
                        home / name, store=store(), sessions_root=home / f"{name} sessions"
                    )
                )
            )
    assert said[1] == said[0]


def test_a_save_writes_what_is_new_and_no_more(home: Path) -> None:
    with sessiondb.sync.temporary() as db:
        manager = SessionManager(home / "w", store=SessionDBStore(db), sessions_root=home / "s")
        session = manager.get_or_create("cli:one")
        talk(session, "a", "b", "c")
        manager.save(session)
        stored = db.session_for("nanobot", "cli:one")
        before = len(stored.all_entries(limit=1_000))
        talk(session, "d")
        manager.save(session)
        manager.save(session)
        assert len(stored.all_entries(limit=1_000)) == before + 4
        # Of a message that was changed, it and what follows is written, and the old is kept.
        session.messages[12]["content"] = "another"
        manager.save(session)
        texts = [str(entry.message) for entry in stored.all_entries(limit=1_000)]
        assert sum("question d" in text for text in texts) == 1
        assert sum("another" in text for text in texts) == 1
        assert SessionDBStore(db).load("cli:one") == session


def test_a_long_session_is_saved_at_once(home: Path) -> None:
    with sessiondb.sync.temporary() as db:
        session = Session("cli:one", [{"role": "user", "content": str(n)} for n in range(1_500)])
        SessionDBStore(db).save(session)
        assert SessionDBStore(db).load("cli:one") == session


def test_what_another_process_has_appended_stays(home: Path) -> None:
    with sessiondb.sync.temporary() as db:
        stores = [SessionDBStore(db), SessionDBStore(db)]
        talk(begun_session := Session("cli:one"), "a")
        stores[0].save(begun_session)
        sessions = [store.load("cli:one") for store in stores]
        for number in range(6):
            session = sessions[number % 2]
            assert session is not None
            session.add_message("user", f"from {number}")
            stores[number % 2].save(session)
        read = SessionDBStore(db).read("cli:one")
        assert read is not None
        said = [each["content"] for each in read["messages"][4:]]
        assert said == [f"from {number}" for number in range(6)]
        # What another process has deleted, is saved anew and whole.
        assert SessionDBStore(db).delete("cli:one")
        assert sessions[0] is not None
        stores[0].save(sessions[0])
        assert stores[1].load("cli:one") == sessions[0]


class Gateway:
    """The real gateway, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.adapters.nanobot_gateway", str(folder)],
            cwd=ROOT,
            env=os.environ | {"HOME": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.logged: SimpleQueue[str | None] = SimpleQueue()
        threading.Thread(target=self._read_log).start()
        self.wait_for("WebSocket server listening")

    def _read_log(self) -> None:
        """Read its log to the end, so that it never waits for a reader."""
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.logged.put(line)
        self.logged.put(None)

    def wait_for(self, text: str) -> None:
        """Wait until it logs a text."""
        read = []
        while (line := self.logged.get()) is not None:
            read.append(line)
            if text in line:
                return
        raise AssertionError(f"the gateway ended before it said {text!r}:\n{''.join(read)}")

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def ask(self, chat: str, text: str, *, until: str) -> list[str]:
        """Send a message. Return what was said until an event."""
        return asyncio.run(self._ask(chat, text, until))

    async def _ask(self, chat: str, text: str, until: str) -> list[str]:
        said = []
        async with unix_connect(str(self.folder / "gateway.sock"), "ws://localhost/") as chats:
            for kind, more in (("attach", {}), ("message", {"content": text})):
                await chats.send(json.dumps({"type": kind, "chat_id": chat, **more}))
            async for raw in chats:
                event = json.loads(raw)
                said += [event["text"]] if event["event"] == "delta" else []
                if event["event"] == until:
                    break
        return said


def test_the_gateway_goes_on_after_it_was_killed(home: Path) -> None:
    gateway = Gateway(home)
    try:
        assert gateway.ask("one", "first", until="turn_end") == ["I was asked 1 questions."]
        assert gateway.ask("two", "else", until="turn_end") == ["I was asked 1 questions."]
        assert gateway.ask("one", "second", until="turn_end") == ["I was asked 2 questions."]
        gateway.ask("one", "hang", until="goal_status")
        gateway.wait_for("the model hangs")
        gateway.kill()
        gateway = Gateway(home)
        assert gateway.ask("two", "again", until="turn_end") == ["I was asked 2 questions."]
        assert gateway.ask("one", "third", until="turn_end") == ["I was asked 4 questions."]
    finally:
        gateway.kill()
    with sessiondb.sync.open(home / "gateway.db") as db:
        assert db.verify().ok
        for chat, asked in (
            ("one", ["first", "second", "hang", "third"]),
            ("two", ["else", "again"]),
        ):
            read = SessionDBStore(db).read(f"websocket:{chat}")
            assert read is not None
            texts = [each["content"] for each in read["messages"] if each["role"] == "user"]
            assert [text.rpartition("\n")[2] for text in texts] == asked


def test_the_program_answers_while_its_session_is_compacted(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program("nanobot", capsys, monkeypatch)
    program.has_all_in_its_context()
    assert program.third.endswith(f", of {10 + program.answered + 1} questions")

"""Every command's help ends with examples, and each of them does what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio
import pytest

import sessiondb
from sessiondb import sync
from sessiondb.cli import program
from sessiondb.cli.program import Command
from sessiondb.gateway import dead_letters
from tests.support import pages
from tests.support.command_line import fails, fill, ok, run
from tests.support.gateway_commands import claim
from tests.support.openclaw_home import make_home

KEY = "agent:main:discord:channel:1"
EXAMPLES = [
    pytest.param(example, id=example.split("#", maxsplit=1)[0].strip())
    for name in sorted(program.commands)
    for command in [program.commands[name]]
    if isinstance(command, Command)
    for example in command.examples
]
MAY_END_WITH_1 = {"stuck", "export", "status", "doctor"}
"""There is something stuck, something that is archived, a verdict that is not green, a finding."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sample_folder: Path) -> Path:
    """Make a folder with all that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    fill(folder / "gateway.db")
    with sync.open(folder / "gateway.db") as db:
        kept = [info.session_id for info in db.sessions(with_ended=True)]
        for session_id in kept:
            db.session_by_id(session_id).pin()
        old = db.create_session("archived-one")
        old.append({"role": "user", "content": "long ago"})
        db.gc(sessiondb.RetentionPolicy(max_sessions=0, idle_days=0))
    with sync.open(folder / "gateway.db") as db:
        for key in ("agent:main:web:guest", "agent:main:web:guest:1"):
            db.session(key).append({"role": "user", "content": "forget me"})
    anyio.run(_leave_work_behind, folder / "gateway.db")
    ok("backup", folder / "gateway.db", folder / "copy.db")
    (folder / "backups").mkdir()
    (folder / "transcripts").mkdir()
    for name in ("branch.jsonl", "tools.jsonl"):
        shutil.copy(sample_folder / "pi-0.74.2" / "sessions" / name, folder / "transcripts")
    make_home(folder / "openclaw")
    (folder / "lines.jsonl").write_text('{"role":"user","content":"hello"}\n')
    return folder


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    return Path(__file__).parent.parent / "sample"


async def _leave_work_behind(path: Path) -> None:
    """Leave reply 1 unknown, message 2 dead and message 3 waiting, and an empty lane."""
    async with sessiondb.open(path) as db:
        async with anyio.create_task_group() as group:

            async def answer(turn: sessiondb.Turn) -> sessiondb.Answer:
                entry = {"role": "assistant", "content": "hello to you"}
                return sessiondb.Answer(entries=[entry], replies=[("web:1", {"text": "hello"})])

            async def send(_reply: object) -> None:
                group.cancel_scope.cancel()
                raise OSError("the line went dead")

            await db.accept(KEY, {"role": "user", "content": "hello"}, channel="web", event_id="1")
            group.start_soon(db.run_lane, "main", answer)
            group.start_soon(db.run_outbox, send)
        await db.set_lane("reports", concurrency=1, priority=7)
        for event_id in ("2", "3"):
            await db.accept(
                KEY, {"role": "user", "content": "are you there?"}, channel="web", event_id=event_id
            )
        session_no = (await db.session(KEY)).ref.session_no
        await db.write(
            "test.dead_letter",
            lambda tx: dead_letters.dead_letter(tx, 2, session_no, "the model refused it"),
        )


def _prepare(name: str, path: Path) -> None:
    """Begin turn 2 for the example that stops it. Its lease is not to pass beside the others."""
    if name == "abort":
        with sync.open(path) as db:
            assert claim(db).turn_no == 2


@pytest.mark.parametrize("name", sorted(program.commands))
def test_every_command_has_examples_at_the_end_of_its_help(name: str) -> None:
    found = program.commands[name]
    assert isinstance(found, Command)
    assert found.examples
    shown = ok(name, "--help").partition("\nExamples:\n")[2]
    assert [line.strip() for line in shown.splitlines()] == list(found.examples)
    for example in found.examples:
        assert example.split()[:2] == ["sessiondb", name]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_does_what_it_says(
    example: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    name = example.split()[1]
    _prepare(name, tmp_path / "here" / "gateway.db")
    code, said = pages.type_in(example, tmp_path / "here", pages.installed(tmp_path / "here"))
    assert code == 0 or (code == 1 and name in MAY_END_WITH_1), said
    assert said.strip(), "it shows something"


def test_an_example_leaves_the_database_whole(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(world, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    commands = pages.installed(tmp_path / "here")
    for example in [str(param.values[0]) for param in EXAMPLES]:
        pages.type_in(example, tmp_path / "here", commands)
    assert "all good" in ok("verify", "gateway.db")


# -- the database of a command that is given none --------------------------------------


def test_a_command_without_a_database_takes_sessiondbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    for path, text in ((one, "in the first"), (two, "in the second")):
        with sync.open(path) as db:
            db.session(KEY).append({"role": "user", "content": text})
    monkeypatch.setenv("SESSIONDB", str(one))
    assert "in the first" in ok("show", KEY)
    assert "in the first" in ok("show", "--full", "-n", "3", "--", KEY)
    assert "in the second" in ok("show", two, KEY)
    assert str(one) in ok("status")
    assert str(two) in ok("status", two)
    assert "in the first" in ok("query", "select text from transcript")
    assert "1 appended" in ok("append", KEY, stdin=b'{"role":"user","content":"more"}\n')
    assert [len(ok("tail", path, KEY).splitlines()) for path in (one, two)] == [2, 1]


def test_without_either_the_complaint_names_both_ways(tmp_path: Path) -> None:
    for args in (["status"], ["show"], ["query"]):
        message = fails(2, *args)
        assert "SESSIONDB" in message
        assert "'DB'" in message
    assert "SESSIONDB" not in fails(2, "show", tmp_path / "some.db")


def test_help_of_a_command_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONDB", "/no/such/file.db")
    assert "show [OPTIONS] DB SESSION" in run("show", "--help").stdout
    assert "no such file" in fails(4, "status")
    assert "No such option" in fails(2, "status", "--nonsense")

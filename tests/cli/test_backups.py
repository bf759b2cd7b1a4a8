"""backup and restore-backup: whole, verified, named last, and nothing goes on by itself."""

from __future__ import annotations

import json
import re
import stat
import time
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
from sessiondb import sync
from sessiondb.errors import NotFound
from sessiondb.gateway import restored
from tests.support.command_line import KEY, fails, ok, run, session_id
from tests.support.core import query
from tests.support.gateway_commands import GatewayStart, accept, emit, found, kill, says


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("options", [[], ["--zstd"], ["--quick"]], ids=str)
def test_a_backup_is_whole_private_and_alone_in_its_folder(
    db: Path, folder: Path, options: list[str]
) -> None:
    with sync.open(db) as gateway:  # beside a gateway that goes on
        gateway.session(KEY).append({"role": "user", "content": "before the backup"})
        said = ok("backup", db, folder / "copy", *options)
        gateway.session(KEY).append({"role": "user", "content": "after the backup"})
    assert "3 sessions, 34 entries, verified and on disk" in said
    assert names(folder) == ["copy"]
    assert stat.S_IMODE((folder / "copy").stat().st_mode) == 0o600
    again = folder / "again.db"
    assert "verified and on disk" in ok("restore-backup", again, folder / "copy")
    assert "before the backup" in ok("show", again, KEY)
    assert "after the backup" not in ok("show", again, KEY)
    assert names(folder) == ["again.db", "again.db-alive", "copy"] or names(folder) == [
        "again.db",
        "copy",
    ]
    ok("verify", again)
    assert session_id(again) == session_id(db)


def test_the_check_of_a_copy_may_take_as_long_as_a_large_file_needs(
    db: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ages: dict[bool, list[float]] = {True: [], False: []}
    real = sync.open

    def noted(path: Any, **options: Any) -> sync.SessionDB:
        limits = options.get("limits") or sessiondb.Limits()
        ages[str(path) == str(db)].append(limits.read_age_s_max)
        return real(path, **options)

    monkeypatch.setattr(sync, "open", noted)
    ok("backup", db, folder / "copy")
    ok("restore-backup", folder / "again.db", folder / "copy")
    assert len([age for age in ages[False] if age > 3_600]) == 2, "of each copy"
    assert max(ages[True]) < 60, "a gateway's own file is not read for so long"


def test_a_backup_changes_nothing_in_the_database(db: Path, folder: Path) -> None:
    before = db.read_bytes()
    ok("backup", db, folder)
    assert db.read_bytes() == before


def test_a_folder_keeps_the_newest_backups_of_a_database(db: Path, folder: Path) -> None:
    old = [f"gateway-2025010{day}T030000Z.db{end}" for day, end in ((1, ""), (2, ".zst"), (3, ""))]
    others = ["other-20250101T030000Z.db", "gateway-notes.txt", "gateway.db"]
    for name in (*old, *others):
        (folder / name).write_text("x")
    report = json.loads(ok("backup", db, folder, "--keep", 2, "--zstd", "--json"))
    assert re.fullmatch(r"gateway-\d{8}T\d{6}Z\.db\.zst", Path(report["backup"]).name)
    assert report["removed"] == [str(folder / name) for name in old[:2]]
    assert names(folder) == sorted([old[2], *others, Path(report["backup"]).name])
    assert report["bytes"] == Path(report["backup"]).stat().st_size
    assert "make it first" in fails(2, "backup", db, folder / "none", "--keep", 2).lower()


def test_neither_command_takes_a_files_name(db: Path, folder: Path) -> None:
    ok("backup", db, folder / "copy.db")
    before = (folder / "copy.db").read_bytes()
    assert "never overwrites" in fails(1, "backup", db, folder / "copy.db")
    assert "never overwrites" in fails(1, "restore-backup", db, folder / "copy.db")
    (folder / "new.db-wal").write_text("another database's")
    assert "move" in fails(1, "restore-backup", folder / "new.db", folder / "copy.db")
    assert (folder / "copy.db").read_bytes() == before
    assert names(folder) == ["copy.db", "new.db-wal"]


def test_a_backup_that_is_not_whole_gets_no_name(
    db: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = "UPDATE session SET last_seq = last_seq + 1 WHERE session_id = 'ended-one'"
    connection = apsw.Connection(str(db))
    connection.execute(change).fetchall()
    connection.close()
    result = run("backup", db, folder / "copy.db")
    assert result.exit_code == 1
    assert "does not pass verify" in result.stderr
    assert "ended-one" in result.stdout
    assert names(folder) == []

    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sync.SessionDB, "verify", interrupt)
    result = run("backup", db, folder / "copy.db")
    assert result.exit_code == 130
    assert "nothing is left of it" in result.stderr
    assert names(folder) == []


def test_a_torn_backup_is_refused(db: Path, folder: Path) -> None:
    ok("backup", db, folder / "copy.db")
    ok("backup", db, folder / "copy.zst", "--zstd")
    for name in ("copy.db", "copy.zst"):
        content = (folder / name).read_bytes()
        (folder / "torn").write_bytes(content[: len(content) // 2])
        result = run("restore-backup", folder / "new.db", folder / "torn")
        assert result.exit_code in (1, 4), result.output
        assert result.stderr.startswith("sessiondb: ")
    (folder / "torn").unlink()
    assert "no such file" in fails(1, "restore-backup", folder / "new.db", folder / "torn")
    assert names(folder) == ["copy.db", "copy.zst"]


# -- what a restored database does by itself -------------------------------------------


def test_nothing_restored_is_sent_or_answered_by_itself(
    tmp_db: Path, folder: Path, gateway: GatewayStart
) -> None:
    """Made while a gateway has a turn, a reply under way, waiting messages and replies."""
    accept(tmp_db, "hang", "behind it")
    accept(tmp_db, "stick", "next", key="agent:main:web:direct:2")
    accept(tmp_db, "at night", key="agent:main:web:direct:3", lane="cron")
    running = gateway()
    says(running, "hanging", "sticking")
    ok("backup", tmp_db, folder / "copy.db")
    kill(running)
    new = folder / "gateway.db"
    said = ok("restore-backup", new, folder / "copy.db")
    messages = [row["state"] for row in found("inbox", new)]
    assert set(messages) == {"interrupted"}
    assert f"{len(messages)} messages and" in said
    unknown = [reply["outbox_no"] for reply in found("outbox", new, "--state", "unknown")]
    assert unknown
    assert found("outbox", new, "--state", "pending") == []
    assert {decision["action"] for decision in found("resume", new, "--plan")} == {"ask"}
    result = run("stuck", new, "--json")
    assert result.exit_code == 1
    steps = {one["next_step"] for one in json.loads(result.stdout)}
    assert {
        f"sessiondb inbox {new} --requeue {row['inbox_no']}" for row in found("inbox", new)
    } <= steps
    assert {f"sessiondb outbox {new} --resend {number}" for number in unknown} <= steps
    ok("verify", new)

    handled, sent = anyio.run(_run_for_a_while, new)
    assert (handled, sent) == ([], [])

    first, *rest = [row["inbox_no"] for row in found("inbox", new)]
    assert "waits in its lane" in ok("inbox", new, "--requeue", first)
    assert "dead letter" in ok("inbox", new, "--give-up", rest[0])
    assert "decision" in fails(3, "inbox", new, "--requeue", first)
    assert "decision" in fails(3, "inbox", new, "--give-up", rest[0])
    ok("inbox", new, "--requeue", "all")
    assert {row["state"] for row in found("inbox", new)} == {"queued"}
    handled, _ = anyio.run(_run_for_a_while, new)
    assert "hang" in handled
    ok("verify", new)


async def _run_for_a_while(path: Path) -> tuple[list[str], list[str]]:
    """Run a gateway on a database until it has nothing to do. Return what it handled and sent."""
    handled: list[str] = []
    sent: list[str] = []
    async with sessiondb.open(path) as db:
        key, message = "agent:main:web:direct:99", {"role": "user", "content": "the last"}
        async with anyio.create_task_group() as group:

            async def answer(turn: sessiondb.Turn) -> sessiondb.Answer:
                handled.append(turn.message["content"])
                entry = {"role": "assistant", "content": "yes"}
                return sessiondb.Answer(
                    entries=[entry], replies=[(f"{turn.message['content']}:1", {"text": "yes"})]
                )

            async def send(reply: sessiondb.Reply) -> None:
                sent.append(reply.target)
                if reply.target == "the last:1":
                    group.cancel_scope.cancel()

            for lane in ("main", "cron", "resume"):
                group.start_soon(db.run_lane, lane, answer)
            group.start_soon(db.run_outbox, send)
            group.start_soon(db.run_recovery)
            # Everything else in the file is older, so lanes and channels would take it first.
            await db.accept(key, message, channel="last", event_id=f"{time.time_ns()}")
    handled.remove("the last")
    sent.remove("the last:1")
    return handled, sent


def test_readers_of_events_begin_with_the_next_one(db: Path, folder: Path) -> None:
    emit(db, "one", "two", "three")
    ok("events", db, "--consumer", "pager", "-n", "0")
    emit(db, "after it read")
    ok("backup", db, folder / "copy.db")
    new = folder / "gateway.db"
    ok("restore-backup", new, folder / "copy.db")
    assert ok("events", new, "--consumer", "pager") == ""
    assert "after it read" in ok("events", new)
    assert "A backup was restored: 0 messages and 0 replies" in ok("events", new)


def test_settling_twice_changes_nothing_more(tmp_db: Path) -> None:
    accept(tmp_db, "one", "two")
    with sync.open(tmp_db) as opened:
        first = opened.write("test.settle", restored.settle)
        assert (first.messages, first.replies) == (2, 0)
        before = query(tmp_db, "SELECT inbox_no, state, restored, reason FROM inbox")
        opened.write("test.settle", restored.settle)
    assert query(tmp_db, "SELECT inbox_no, state, restored, reason FROM inbox") == before


def test_requeue_of_an_ordinary_interrupted_message_is_refused(tmp_db: Path) -> None:
    [number] = accept(tmp_db, "one")
    with sync.open(tmp_db) as opened, pytest.raises(NotFound, match="restored backup"):
        opened.write("test.requeue", lambda tx: restored.requeue(tx, number))

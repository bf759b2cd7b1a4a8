"""Files are for their owner alone, and what others put in the way is refused."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import database
from sessiondb.errors import OpenError
from sessiondb.sqlite import opening, permissions
from tests.support.attacks import fill, run
from tests.support.transfer import transcript, write


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
    }


@pytest.mark.anyio
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_every_file_is_for_its_owner_alone_with_any_umask(tmp_path: Path, umask: int) -> None:
    write(
        tmp_path / "in",
        {
            "agents/main/sessions/s-1.jsonl": transcript(),
            "agents/main/sessions/old.jsonl.reset.1.zst": b"",
        },
    )
    before, old = modes(tmp_path), os.umask(umask)
    try:
        async with sessiondb.open(tmp_path / "a" / "b" / "gateway.db") as db:
            await db.import_path(tmp_path / "in")
            native = await db.session("agent:main:web:direct:jo")
            await native.append({"role": "user", "content": "hi"})
            backend: Any = db.backend
            await backend.backup(tmp_path / "backups" / "one.db")
            await db.export(tmp_path / "x" / "y")
            open_files = modes(tmp_path)
        assert {
            "a/b/gateway.db",
            "a/b/gateway.db-wal",
            "a/b/gateway.db-shm",
            "a/b/gateway.db-alive",
            "backups/one.db",
            "a",
            "x/y/agents",
        } <= open_files.keys()
        created = {
            name: mode
            for name, mode in (open_files | modes(tmp_path)).items()
            if name not in before
        }
        folders = {name for name in created if (tmp_path / name).is_dir()}
        assert {
            name: oct(mode)
            for name, mode in created.items()
            if mode != (0o700 if name in folders else 0o600)
        } == {}
        assert len(folders) >= 7
    finally:
        os.umask(old)


@pytest.mark.anyio
async def test_open_status_and_verify_name_files_open_to_others(
    db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sessiondb.open(db) as opened:
        assert (await opened.status()).concerns == ()
        assert (await opened.verify()).findings == ()
    assert caplog.records == []
    os.chmod(db.parent, 0o777)  # noqa: PTH101  # at once
    os.chmod(db, 0o644)  # noqa: PTH101
    with caplog.at_level(logging.WARNING):
        async with sessiondb.open(db) as opened:
            concerns = (await opened.status()).concerns
            findings = (await opened.verify()).findings
    assert [
        concern.partition(": ")[2]
        for concern in concerns
        if ".db-" not in concern.partition(": ")[0]
    ] == [
        "everybody may write to this folder, and so replace the database. chmod go-w it",
        "everybody may read it; chmod 600 it unless that is meant",
    ]
    assert [(one.check, one.severity) for one in findings] == [("access", "warning")] * len(
        concerns
    )
    assert any("everybody may read it" in record.message for record in caplog.records)
    assert "everybody may read it" in run("status", db).output
    verified = run("verify", db)
    assert (verified.exit_code, "everybody may write to this folder" in verified.output) == (
        0,
        True,
    )
    db.parent.chmod(0o700)
    assert permissions.concerns(str(db)) == ()  # nobody else reaches the file


def test_groups_and_others_differ_and_a_sticky_folder_is_fine(db: Path) -> None:
    db.parent.chmod(0o1777)
    for mode, message in (
        (0o600, None),
        (0o640, "its group may read it"),
        (0o660, "its group may write it"),
        (0o604, "everybody may read it"),
    ):
        db.chmod(mode)
        found = permissions.concerns(str(db))
        assert [message in one for one in found] == [True] * bool(message)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", "-alive"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_name_of_sqlites_that_is_no_file_is_refused(db: Path, suffix: str, kind: str) -> None:
    victim, planted = db.parent / "victim", Path(f"{db}{suffix}")
    victim.write_bytes(b"precious\n" * 1_000)
    {
        "link": lambda: planted.symlink_to(victim),
        "pipe": lambda: os.mkfifo(planted),
        "folder": planted.mkdir,
    }[kind]()
    for attempt in (lambda: fill(db), lambda: sessiondb.sync.open(db, readonly=True).__enter__()):
        with pytest.raises(OpenError, match="keeps a file of its own under this name"):
            attempt()
    with pytest.raises(OpenError, match="of its own"), database.query(db, "select 1"):
        pass
    assert victim.read_bytes() == b"precious\n" * 1_000


def planted_wal(db: Path) -> Path:
    """Put a WAL with a change by a stranger beside a database. A copy of it made the WAL."""
    copy = db.parent.parent / "copy.db"
    shutil.copyfile(db, copy)
    with closing(apsw.Connection(str(copy))) as opened:
        opened.execute("update session set name = 'planted by somebody'").fetchall()
        shutil.copyfile(f"{copy}-wal", f"{db}-wal")
    return Path(f"{db}-wal")


def test_a_wal_of_another_user_is_refused(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, planted_wal(db)))
    for readonly in (True, False):
        with pytest.raises(OpenError, match="SQLite would take it for its own, with what is in it"):
            sessiondb.sync.open(db, readonly=readonly).__enter__()


def test_without_that_refusal_the_planted_message_comes_in(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, planted_wal(db)))
    monkeypatch.setattr(opening, "refuse_planted", lambda args, path: None)
    with sessiondb.sync.open(db, readonly=True) as opened:
        assert [info.name for info in opened.sessions()] == ["planted by somebody"] * 2


def owned_by(uid: int, *paths: Path) -> Callable[[str], os.stat_result | None]:
    """Return a `stat` by which some files are another user's, so tests need not run as root."""

    def lstat(path: str) -> os.stat_result | None:
        if not os.path.lexists(path):
            return None
        found = list(os.lstat(path))
        found[stat.ST_UID] = uid if Path(path) in paths else found[stat.ST_UID]
        return os.stat_result(found)

    return lstat


def test_what_another_user_has_put_in_the_way_is_refused(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, wal = db.parent / "link.db", Path(f"{db}-wal")
    link.symlink_to(db)
    fill(link)  # one's own link is followed
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, link))
    with pytest.raises(
        OpenError, match="a symbolic link that another user \\(uid 4711\\) has made"
    ):
        fill(link)
    fill(db)
    wal.touch(mode=0o600)
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, wal))
    with pytest.raises(OpenError, match="belongs to uid 4711, and the database does not"):
        fill(db)
    # All of it is another user's. Root may open it.
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, wal, db))
    fill(db)
    db.parent.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    assert any(
        "belongs to another user (uid 4711)" in concern for concern in permissions.concerns(str(db))
    )

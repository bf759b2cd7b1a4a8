"""Another program's database is read as it is now, and nothing beside it is made or removed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from sessiondb.errors import OpenError
from sessiondb.sqlite import foreign_file
from sessiondb.sqlite.foreign_file import ForeignFile
from tests.support.openclaw_store import OpenClawStore, transcript_lines


@pytest.fixture
def scratch(tmp_path: Path) -> str:
    (tmp_path / "scratch").mkdir()
    return str(tmp_path / "scratch")


def agent(folder: Path, *, wal: bool) -> OpenClawStore:
    store = OpenClawStore(folder, wal=wal)
    for session_id in ("s-1", "s-2"):
        store.window(session_id)
        store.append(session_id, transcript_lines(session_id))
    return store


def listing(folder: Path) -> dict[str, bytes | None]:
    """Return the files of a folder with their content. Locks change that of a -shm."""
    return {
        path.name: None if path.name.endswith("-shm") else path.read_bytes()
        for path in folder.iterdir()
    }


def copied(store: OpenClawStore, folder: Path, *suffixes: str) -> Path:
    """Copy the files of a store that is open: what a kill, or a backup, leaves."""
    folder.mkdir()
    for suffix in suffixes:
        shutil.copyfile(f"{store.path}{suffix}", folder / f"{store.path.name}{suffix}")
    return folder / store.path.name


def events_in(path: Path, scratch: str) -> int:
    file = ForeignFile(str(path), scratch)
    try:
        return sum(row.events for row in file.all("openclaw.windows"))
    finally:
        file.close()


def test_beside_a_running_gateway_the_newest_commit_is_read(tmp_path: Path, scratch: str) -> None:
    store = agent(tmp_path, wal=True)
    assert Path(f"{store.path}-wal").stat().st_size > 0
    before = listing(store.path.parent)
    assert events_in(store.path, scratch) == 8
    assert listing(store.path.parent) == before
    store.append("s-1", transcript_lines("s-1", 4)[4:])
    assert events_in(store.path, scratch) == 9
    store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert events_in(store.path, scratch) == 9
    store.close()


def test_a_snapshot_stays_while_the_gateway_writes(tmp_path: Path, scratch: str) -> None:
    store = agent(tmp_path, wal=True)
    file = ForeignFile(str(store.path), scratch)
    store.append("s-1", transcript_lines("s-1", 4)[4:])
    store.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert sum(row.events for row in file.all("openclaw.windows")) == 8
    file.close()
    store.close()


@pytest.mark.parametrize("suffixes", [("", "-wal", "-shm"), ("", "-wal")])
def test_after_a_kill_the_wal_is_read_and_nothing_is_made(
    tmp_path: Path, scratch: str, suffixes: tuple[str, ...]
) -> None:
    store = agent(tmp_path / "live", wal=True)
    path = copied(store, tmp_path / "killed", *suffixes)
    store.close()
    before = listing(path.parent)
    assert events_in(path, scratch) == 8
    assert listing(path.parent) == before


def test_a_stopped_gateway_leaves_one_file_and_so_does_a_look(tmp_path: Path, scratch: str) -> None:
    store = agent(tmp_path, wal=True)
    store.close()
    before = listing(store.path.parent)
    assert list(before) == [store.path.name]
    assert events_in(store.path, scratch) == 8
    assert listing(store.path.parent) == before
    assert list(Path(scratch).iterdir()) == [], "what nobody has open is not copied"


def test_a_write_while_it_is_read_in_place_is_noticed(tmp_path: Path, scratch: str) -> None:
    store = agent(tmp_path, wal=False)
    file = ForeignFile(str(store.path), scratch)
    assert len(file.all("openclaw.windows")) == 2
    store.window("s-3")
    with pytest.raises(OpenError, match="has begun to write it"):
        file.all("openclaw.windows")
    file.close()
    store.close()


def test_a_commit_that_was_cut_off_is_not_read_over(
    tmp_path: Path, scratch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_file, "JOURNAL_S_MAX", 0.0)
    store = agent(tmp_path, wal=False)
    store.close()
    Path(f"{store.path}-journal").write_bytes(b"pages")
    before = listing(store.path.parent)
    with pytest.raises(OpenError, match="a commit was cut off"):
        events_in(store.path, scratch)
    assert listing(store.path.parent) == before


def test_nothing_can_be_written(tmp_path: Path, scratch: str) -> None:
    for wal in (True, False):
        store = agent(tmp_path / str(wal), wal=wal)
        file = ForeignFile(str(store.path), scratch)
        with pytest.raises(apsw.ReadOnlyError):
            file._connection.execute("DELETE FROM session_windows")
        file.close()
        store.close()


def test_what_is_no_database_has_no_tables(tmp_path: Path, scratch: str) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(b"not a database" * 100)
    file = ForeignFile(str(path), scratch)
    assert (file.is_database, file.tables) == (False, {})
    file.close()


def test_a_damaged_database_says_so(tmp_path: Path, scratch: str) -> None:
    store = agent(tmp_path, wal=False)
    store.close()
    content = bytearray(store.path.read_bytes())
    content[100:2000] = b"\xff" * 1900
    store.path.write_bytes(content)
    with pytest.raises(OpenError, match=f"{store.path}: the database is damaged"):
        ForeignFile(str(store.path), scratch)


def test_a_reader_in_another_process_sees_the_same(tmp_path: Path, scratch: str) -> None:
    """Locks of one process do not stop it. So this is asked of two."""
    store = agent(tmp_path, wal=True)
    script = (
        "import sys\n"
        "from sessiondb.sqlite.foreign_file import ForeignFile\n"
        "file = ForeignFile(sys.argv[1], sys.argv[2])\n"
        "print(sum(row.events for row in file.all('openclaw.windows')))\n"
        "file.close()\n"
    )
    before = listing(store.path.parent)
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.path), scratch],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("8\n", 0), done.stderr
    assert listing(store.path.parent) == before
    store.append("s-1", transcript_lines("s-1", 4)[4:])
    store.close()
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]

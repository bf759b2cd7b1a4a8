"""A hostile folder to import: names, links, pipes, devices, files that change while they are read.

A transcript's folder is written by other programs, and now and then by people who mean harm. An
import opens only regular files, follows no link out of the folder, and never waits: a pipe without
a writer is reported like everything else. Every file has a receipt. The good ones are imported,
whatever is beside them. A name never drives the terminal.

Files change at chosen moments, not by chance: the import reports that it has finished a file, and
the test then changes the next one.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import sessiondb
import sessiondb.sync
from sessiondb.cli import program
from sessiondb.transfer import folder_scan
from tests.proofs.fuzz.properties import MEANT, OBEYED, Broken, watched
from tests.support.transfer import by_name, header, message, transcript, write

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]


EVIL_NAMES = (
    "a\nb.jsonl",
    "\x1b[2Jcleared.jsonl",
    "\x9b2J.jsonl",
    "\u202egnp.jsonl",
    "-rf.jsonl",
    "--help.jsonl",
    " .jsonl",
    "..jsonl",
    "....jsonl",
    "\\..\\..\\x.jsonl",
    "a:b.jsonl",
    "%s%n.jsonl",
    "';drop table entry;--.jsonl",
    "\u2028.jsonl",
    "\ufeff.jsonl",
    "漢字🙂.jsonl",
    "CON.jsonl",
    "x" * 249 + ".jsonl",
    "漢" * 83 + ".jsonl",
    "\x7f.jsonl",
    "*.jsonl",
    "a.jsonl.jsonl",
    "a\rb.jsonl",
    "e\u0301.jsonl",
    "\u00e9.jsonl",
)
NOT_UTF8 = (b"\xff.jsonl", b"\xed\xa0\x80.jsonl", b"a\x80b.jsonl", b"\xc0\xaf.jsonl")


def fill(folder: Path) -> dict[str, bytes]:
    """Fill a folder with every kind of file, and return the transcripts that can be imported."""
    good = {name: transcript(2, f"s-{number}") for number, name in enumerate(EVIL_NAMES)}
    write(folder, good)
    for number, name in enumerate(NOT_UTF8):
        descriptor = os.open(os.fsencode(folder) + b"/" + name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(descriptor, transcript(1, f"n-{number}"))
        os.close(descriptor)
    outside = folder.parent / "outside"
    write(outside, {"secret.jsonl": transcript(3, "secret")})
    (folder / "out.jsonl").symlink_to(outside / "secret.jsonl")
    (folder / "out").symlink_to(outside)
    (folder / "loop.jsonl").symlink_to("loop.jsonl")
    (folder / "ping.jsonl").symlink_to("pong.jsonl")
    (folder / "pong.jsonl").symlink_to("ping.jsonl")
    (folder / "up").symlink_to("..")
    (folder / "nowhere.jsonl").symlink_to("missing.jsonl")
    (folder / "zero.jsonl").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo.jsonl")
    os.mkfifo(folder / "sessions.json")
    listener = socket.socket(socket.AF_UNIX)
    place = os.open(folder, os.O_PATH)
    # Through /proc, because the whole path may be too long for a socket.
    listener.bind(f"/proc/self/fd/{place}/socket.jsonl")
    listener.close()
    os.close(place)
    (folder / "hard.jsonl").hardlink_to(folder / "CON.jsonl")
    (folder / "folder.jsonl").mkdir()
    write(folder / "folder.jsonl", {"inner.jsonl": transcript(1, "inner")})
    deep = folder
    for _ in range(60):
        deep = deep / "deep"
    write(deep, {"x.jsonl": transcript(1, "deep")})
    try:
        os.mknod(folder / "null.jsonl", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        (folder / "null.jsonl").symlink_to("/dev/null")
    return good | {
        "folder.jsonl/inner.jsonl": transcript(1, "inner"),
        f"{'deep/' * 60}x.jsonl": transcript(1, "deep"),
    }


async def test_every_file_of_a_hostile_folder_has_a_receipt(
    tmp_path: Path,
) -> None:
    good = fill(tmp_path / "in")
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        report = await db.import_path(tmp_path / "in", verify=True)
        receipts = by_name(report)
        for name in good:
            assert (receipts[name].status, receipts[name].damaged) == ("imported", 0), receipts[
                name
            ]
        answer = {name: receipt.note for name, receipt in receipts.items() if name not in good}
        assert answer.pop("hard.jsonl").startswith("a hard link to ") or "CON.jsonl" in receipts
        for name in ("fifo.jsonl", "sessions.json", "socket.jsonl"):
            assert answer.pop(name) == "not a regular file"
        for name in ("out.jsonl", "out", "zero.jsonl"):
            assert "a symbolic link out of the folder; it was not followed" in answer.pop(name)
        assert "not" in answer.pop("null.jsonl")
        assert sum("its name is not UTF-8" in note for note in answer.values()) == len(NOT_UTF8)
        everything = [info.session_id async for info in db.sessions(with_ended=True)]
        assert "secret" not in everything
        assert len(everything) == len(good)
        exported = await db.export(tmp_path / "out")
        assert exported.ok, exported
        assert (await db.verify()).findings == ()
    for name, content in good.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == len(good) + 1  # the hard link too


def test_no_name_in_a_hostile_folder_drives_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)
    db = str(tmp_path / "one.db")
    for call in (
        ["import", db, str(tmp_path / "in"), "-v"],
        ["import", db, str(tmp_path / "in"), "--json"],
        ["import", db, os.fsdecode(os.fsencode(tmp_path) + b"/in/\xff.jsonl")],
        ["sessions", db],
        ["export", db, str(tmp_path / "out")],
        ["export", db, str(tmp_path / "out"), "--json"],
        ["query", db, "select * from import_log", "-t"],
    ):
        with watched(cpu=False):
            result = CliRunner().invoke(program, call, color=True)
        assert result.exit_code in (0, 1), (call, result.output)
        found = OBEYED.search(MEANT.sub("", result.output))
        assert found is None, (
            call,
            result.output[max(0, found.start() - 80) : found.end() + 80] if found else "",
        )


# -- files that change while they are read ---------------------------------------------------------


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(message("late", "m2").encode() + b"\n")


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_link_out(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent / "outside.jsonl")


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, tuple[Callable[[Path], Any], set[str]]] = {
    "vanishes": (lambda path: path.unlink(), {"failed"}),
    "becomes a pipe": (become_a_pipe, {"failed"}),
    "becomes a link out of the folder": (become_a_link_out, {"failed"}),
    "becomes a folder": (become_a_folder, {"failed"}),
    "grows": (grow, {"imported"}),
    "is cut": (lambda path: os.truncate(path, 100), {"imported"}),
    "is emptied": (lambda path: os.truncate(path, 0), {"imported"}),
    "is replaced": (
        lambda path: (path.unlink(), path.write_bytes(transcript(1, "other"))),
        {"imported", "failed"},  # a new file may get the inode of the old one
    ),
}


@pytest.mark.parametrize("what", CHANGES)
async def test_a_file_that_changes_before_it_is_read_costs_no_other(
    tmp_path: Path, what: str
) -> None:
    # Each fills more than one transaction, so the third is not read before the first is reported.
    files = {f"{name}.jsonl": transcript(220, f"s-{name}") for name in "abc"}
    folder = write(tmp_path / "in", files)
    write(tmp_path, {"outside.jsonl": transcript(3, "outside")})
    change, expected = CHANGES[what]
    changed: list[str] = []

    def progress(done: int, total: int, bytes_done: int, bytes_total: int, name: str) -> None:
        if not changed:
            changed.append(name)
            change(folder / "c.jsonl")

    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        receipts = by_name(await db.import_path(folder, progress=progress))
        assert (receipts["a.jsonl"].status, receipts["b.jsonl"].status) == ("imported", "imported")
        assert (receipts["a.jsonl"].entries, receipts["b.jsonl"].entries) == (220, 220)
        assert receipts["c.jsonl"].status in expected, receipts["c.jsonl"]
        assert "outside" not in [info.session_id async for info in db.sessions(with_ended=True)]
        assert (await db.verify()).findings == ()
        again = by_name(await db.import_path(folder))
        now = {"unchanged", "failed", "skipped", "grown"}
        if receipts["c.jsonl"].status == "failed":  # it was not read, and may be a file by now
            now.add("imported")
        assert {receipt.status for receipt in again.values()} <= now


class Removed:
    """An entry of `os.scandir` whose file was removed since."""

    name, path = "removed.jsonl", "removed.jsonl"

    def is_symlink(self) -> bool:
        return False

    def is_dir(self, *, follow_symlinks: bool) -> bool:
        return False

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise FileNotFoundError(2, "No such file or directory")


class Listing:
    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries

    def __enter__(self) -> Iterator[Any]:
        return iter(self.entries)

    def __exit__(self, *_: object) -> None:
        pass


async def test_found_a_file_that_vanished_hid_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", {"a.jsonl": transcript(1, "a"), "z.jsonl": transcript(1, "z")})
    scandir = os.scandir
    monkeypatch.setattr(
        folder_scan.os, "scandir", lambda path: Listing([Removed(), *scandir(path)])
    )
    found = folder_scan.scan(str(tmp_path / "in"))
    assert [file.name for file in found.transcripts] == ["a.jsonl", "z.jsonl"]
    assert found.skipped == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who may not read a file")
def test_found_a_folder_without_search_permission_ended_it() -> None:
    top = Path(tempfile.mkdtemp())  # not pytest's, which another user may not search
    try:
        top.chmod(0o755)
        names = ("good/a", "shut/b", "listed/c", "d")
        folder = write(top / "in", {f"{name}.jsonl": transcript(2, name[-1]) for name in names})
        (folder / "shut").chmod(0)
        (folder / "listed").chmod(0o444)
        (folder / "d.jsonl").chmod(0)
        script = (
            "import os, sys\n"
            "from sessiondb.transfer import folder_scan\n"
            "os.setgid(65534), os.setuid(65534)\n"
            "found = folder_scan.scan(sys.argv[1])\n"
            "print([file.name for file in found.transcripts])\n"
            "print([(left.name, left.other.sentence) for left in found.skipped])"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(top)
    assert done.returncode == 0, done.stderr[-800:]
    assert "'d.jsonl', 'good/a.jsonl'" in done.stdout
    assert done.stdout.count("this folder cannot be read: Permission denied") == 2


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "in\0/x.jsonl"])
async def test_found_a_path_that_no_file_can_have_is_refused(tmp_path: Path, path: str) -> None:
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        with pytest.raises(sessiondb.InvalidInput, match="cannot be imported"):
            await db.import_path(path)
        with pytest.raises(sessiondb.InvalidInput, match="cannot export there"):
            await db.export(path)


async def test_a_file_with_a_time_outside_the_calendar_is_imported(
    tmp_path: Path,
) -> None:
    write(
        tmp_path / "in",
        {
            "a.jsonl": header(timestamp="0001-01-01T00:00:00+23:59").encode()
            + b"\n"
            + message("m", None).encode()
            + b"\n"
        },
    )
    os.utime(tmp_path / "in/a.jsonl", (2**33, 2**33))
    db = str(tmp_path / "one.db")
    async with sessiondb.open(db, durability="normal") as opened:
        assert (await opened.import_path(tmp_path / "in")).ok
        await opened.write(
            "age",
            lambda tx: tx.run(
                "import_file.date_session",
                session_no=1,
                created_at_ms=-(2**62),
                updated_at_ms=2**62,
            ),
        )
    for command in (
        ["sessions", db],
        ["show", db, "s-1"],
        ["status", db],
        ["gc", db, "--max-age", "1d"],
    ):
        with watched(cpu=False):
            result = CliRunner().invoke(program, command)
        if result.exit_code != 0:
            raise Broken(f"{command}: exit code {result.exit_code}: {result.output}")


async def test_found_a_session_id_too_long_for_a_file_name(
    tmp_path: Path,
) -> None:
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        for session_id, agent_id in (
            ("x" * 255, None),
            ("x" * 254, None),
            ("漢" * 200, None),
            ("y", "z" * 600),
        ):
            await (await db.create_session(session_id, agent_id=agent_id)).append(
                {"role": "user", "content": session_id}
            )
        report = await db.export(tmp_path / "out")
        assert report.ok, report
        assert len({file.name for file in report.files}) == len(report.files)
        assert sum("written as" in file.note for file in report.files) == 4
    async with sessiondb.open(tmp_path / "two.db", durability="normal") as other:
        assert (await other.import_path(tmp_path / "out")).ok
        assert {info.session_id async for info in other.sessions()} == {
            "x" * 255,
            "x" * 254,
            "漢" * 200,
            "y",
        }


@pytest.mark.parametrize("name", ["\udcff", "a\0b"], ids=["not-utf8", "nul"])
def test_found_a_path_that_sqlite_refuses_left_an_empty_file(tmp_path: Path, name: str) -> None:
    opened = sessiondb.sync.open(f"{tmp_path}/{name}/one.db")
    with pytest.raises(sessiondb.OpenError, match="a database's path is UTF-8 without NUL"), opened:
        pass
    assert list(tmp_path.iterdir()) == []

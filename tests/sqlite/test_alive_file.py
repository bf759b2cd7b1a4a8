"""A byte is locked for exactly as long as its instance's process lives, whoever asks."""

# ruff: noqa: ASYNC221, ASYNC240  # tests look at files and start processes as they please

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb import process
from sessiondb.errors import OpenError, UnsafeFilesystem
from sessiondb.process import Owner
from sessiondb.sqlite import alive_file, engine, instance, transaction
from sessiondb.sqlite.alive_file import SUFFIX, Hold, hold, liveness, name_of
from sessiondb.sqlite.transaction import Prepared
from tests.support import warm
from tests.support.core import query, user
from tests.support.engine import other_process, run_python
from tests.support.leaks import open_files

IMPERSONATE = "UPDATE instance SET pid = :pid, pid_started = :pid_started WHERE instance_no = 1"
transaction.statements()["look.impersonate"] = Prepared("look.impersonate", IMPERSONATE)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="asks as Linux does, from outside"),
]

# Asks the kernel without a line of sessiondb. It sees locks of both kinds.
ASK = """
import fcntl, os, struct, sys
lock = os.open(sys.argv[1], os.O_RDONLY)
for number in map(int, sys.argv[2:]):
    question = struct.pack("@hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, number, 1, 0)
    answer = fcntl.fcntl(lock, fcntl.F_OFD_GETLK, question)
    print(int(struct.unpack("@hhqqi4x", answer)[0] != fcntl.F_UNLCK))
"""


def taken(path: Path, *numbers: int) -> list[int]:
    """Return which bytes of a database's lock file are locked, as another process sees it."""
    done = run_python(ASK, f"{path}{SUFFIX}", *numbers)
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split()
    return [number for number, answer in zip(numbers, answers, strict=True) if answer == "1"]


def registered(path: Path, instance_no: int, **fields: Any) -> Owner:
    """Return the registration of an instance as its process would have written it."""
    values = {
        "program": "p",
        "host": "h",
        "pid": 1,
        "boot_id": process.boot_id(),
        "database_file": name_of(str(path)),
        "lock_file": name_of(f"{path}{SUFFIX}"),
    }
    return Owner(instance_no=instance_no, **{**values, **fields})


def lives(path: Path, instance_no: int, **fields: Any) -> bool | None:
    [answer] = liveness(str(path), [registered(path, instance_no, **fields)])
    return answer


@pytest.fixture(params=["description", "process"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Lock with each kind: the lock of a file description, and that of a process."""
    monkeypatch.setattr(alive_file, "_HAS_OFD", request.param == "description")
    return str(request.param)


@pytest.fixture
def database(tmp_db: Path) -> Path:
    """Return a file that stands for a database. Locks do not look into it."""
    tmp_db.touch(0o600)
    return tmp_db


def held(path: Path, number: int) -> Hold:
    found = hold(str(path), number)
    assert found is not None
    return found


# -- one process -----------------------------------------------------------------------


def test_a_byte_is_taken_from_its_lock_to_its_release(database: Path, kind: str) -> None:
    seven, nine = held(database, 7), held(database, 9)
    assert taken(database, 6, 7, 8, 9) == [7, 9]
    assert [lives(database, number) for number in (6, 7, 8, 9)] == [False, True, False, True]
    assert hold(str(database), 7) is None, "it is taken, and by this process"
    seven.release()
    seven.release()
    assert taken(database, 6, 7, 8, 9) == [9], "a release frees its own byte, and only that"
    assert lives(database, 7) is False
    nine.release()
    assert taken(database, 9) == []


def test_a_process_has_one_descriptor_and_closes_it_at_the_end(database: Path, kind: str) -> None:
    lock_file = f"{database}{SUFFIX}"
    holds = [held(database, number) for number in range(1, 5)]
    assert open_files(database.parent) == [lock_file]
    assert not os.get_inheritable(alive_file._files[name_of(lock_file)].descriptors[0])
    for number in (1, 2, 5):
        lives(database, number)
    assert open_files(database.parent) == [lock_file], "asking needs no other"
    for one in holds[:-1]:
        one.release()
    assert taken(database, 1, 2, 3, 4) == [4]
    holds[-1].release()
    assert open_files(database.parent) == []
    assert lives(database, 4) is False
    assert open_files(database.parent) == [], "who only asks keeps nothing open"


def test_the_last_byte_of_all_can_be_held(database: Path, kind: str) -> None:
    """Salvage and other programs may leave numbers like that."""
    last = 2**63 - 1
    one = held(database, last)
    assert taken(database, last - 1, last) == [last]
    assert [lives(database, number) for number in (-1, 0, last)] == [False, False, True]
    one.release()


def test_opening_and_closing_the_file_elsewhere_drops_no_lock(database: Path) -> None:
    """As a backup of the folder does that runs in the gateway's process. See `guard.py`."""
    one = held(database, 7)
    Path(f"{database}{SUFFIX}").read_bytes()
    assert taken(database, 7) == [7]
    one.release()


def test_a_sandbox_with_the_classic_kind_only_is_served(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_ofd(descriptor: int, command: int, *arguments: Any) -> Any:
        assert command in (fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(alive_file.fcntl, "fcntl", without_ofd)
    assert lives(database, 7, lock_file="1:1") is None
    one = held(database, 7)
    assert taken(database, 7, 8) == [7]
    assert [lives(database, number) for number in (7, 8)] == [True, False]
    one.release()


# -- forks, programs and kills ---------------------------------------------------------

HOLD = """
import os, sys
from sessiondb.sqlite import alive_file
from sessiondb.sqlite.alive_file import hold
alive_file._HAS_OFD = sys.argv[2] == "description"
one = hold(sys.argv[1], 7)
"""
WAIT = """
os.write(1, b"held\\n")   # in one piece: others write there, too
sys.stdin.readline()
"""


def test_a_killed_process_holds_nothing(database: Path, kind: str) -> None:
    with other_process(HOLD + WAIT, database, kind) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        assert lives(database, 7) is True
        assert hold(str(database), 7) is None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is left as a zombie
        assert lives(database, 7) is False
        held(database, 7).release()


FORK = """
gone, alive = os.pipe()
if os.fork() == 0:
    one.release()          # of the parent's, so it does nothing
    held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{fd}")]
    assert not any(name.endswith("-alive") for name in held), held
    os.close(alive)
    os.write(1, b"forked\\n")
    os.read(gone, 1)       # until the parent has died
    os.write(1, b"alone\\n")
    sys.stdin.readline()   # it lives on
    os._exit(0)
os.close(gone)
"""


def test_a_forks_child_neither_ends_nor_keeps_its_parents_lock(database: Path, kind: str) -> None:
    with other_process(HOLD + FORK + WAIT, database, kind) as child:
        assert child.stdout is not None
        assert {child.stdout.readline() for _ in range(2)} == {"forked\n", "held\n"}
        assert lives(database, 7) is True, "the child closed what it inherited"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.stdout.readline() == "alone\n", "the child outlives it"
        assert lives(database, 7) is False


FORK_INSIDE = """
import threading
from sessiondb.sqlite import alive_file
inside, forked, real = threading.Event(), threading.Event(), alive_file._LockFile.__init__
def slowly(self, *arguments, **options):
    # The descriptor is open, and not in the table yet.
    inside.set()
    forked.wait(0.5)  # a fork that is kept out does not come, however long this waits
    real(self, *arguments, **options)
alive_file._LockFile.__init__ = slowly
opening = threading.Thread(target=lambda: holds.append(alive_file.hold(sys.argv[1], 8)))
holds = []
one.release()
opening.start()
inside.wait()
child = os.fork()
forked.set()
if child == 0:
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
             if os.path.exists(f"/proc/self/fd/{fd}")]
    os._exit(any(name.endswith("-alive") for name in names))
opening.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), holds[0] is not None)
"""


def test_a_fork_waits_while_a_descriptor_is_not_in_the_table(database: Path, kind: str) -> None:
    """Critical section "descriptors": a child finds every descriptor, and closes it."""
    done = run_python(HOLD + FORK_INSIDE, database, kind)
    assert (done.stdout, done.returncode) == ("0 True\n", 0), done.stderr


EXECUTE = """
import subprocess
subprocess.Popen(
    [sys.executable, "-c", "import os, sys; os.write(1, b'executed\\\\n'); sys.stdin.readline()"],
    close_fds=False,
)
"""


def test_a_program_that_it_starts_does_not_hold_its_lock(database: Path, kind: str) -> None:
    with other_process(HOLD + EXECUTE + WAIT, database, kind) as child:
        assert child.stdout is not None
        assert {child.stdout.readline() for _ in range(2)} == {"executed\n", "held\n"}
        child.kill()
        child.wait()
        assert lives(database, 7) is False, "the program lives on"


# -- the file --------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660])
def test_the_file_has_the_databases_mode(database: Path, mode: int) -> None:
    database.chmod(mode)
    mask = os.umask(0o022)
    try:
        held(database, 1).release()
    finally:
        os.umask(mask)
    found = Path(f"{database}{SUFFIX}").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (mode, 0)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")


@needs_root
def test_roots_command_leaves_the_file_to_the_databases_owner(database: Path) -> None:
    os.chown(database, 4711, 4712)
    held(database, 1).release()
    found = Path(f"{database}{SUFFIX}").stat()
    assert (found.st_uid, found.st_gid) == (4711, 4712)


@needs_root
def test_a_user_who_may_not_use_the_file_is_told(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That user may not write the figures of `make coverage` into this checkout either.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
    database.parent.chmod(0o777)
    for parent in database.parent.parents[:3]:
        parent.chmod(0o755)
    database.chmod(0o666)
    Path(f"{database}{SUFFIX}").touch(0o600)
    code = (
        "import os, sys\n"
        "from sessiondb.sqlite.alive_file import hold, liveness\n"
        "from sessiondb import process\n"
        "from sessiondb.process import Owner\n"
        "process.boot_id()  # whose decoder is found by root only\n"
        "os.setuid(4711)\n"
        "print(liveness(sys.argv[1], [Owner(1, 'p', 'h', 1, '', None, sys.argv[2])]))\n"
        "try: hold(sys.argv[1], 1)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = run_python(code, database, name_of(f"{database}{SUFFIX}"))
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == "[None]", "who may not ask does not know"
    assert second.startswith(f"OpenError {database}{SUFFIX}: ")
    assert "Permission denied. Give it the owner and mode of the database" in second


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda name: name.symlink_to("victim"), "this is a symbolic link"),
        (os.mkfifo, "an empty file of its own"),
        (lambda name: name.mkdir(), "Is a directory"),
        (lambda name: name.write_text("12345"), "an empty file of its own"),
    ],
)
def test_what_is_no_empty_file_is_not_used(
    database: Path, make: Callable[[Path], object], message: str
) -> None:
    make(Path(f"{database}{SUFFIX}"))
    with pytest.raises(OpenError, match=message):
        hold(str(database), 1)
    assert not (database.parent / "victim").exists()
    assert open_files(database.parent) == []


def test_a_file_that_is_replaced_while_it_is_locked_is_locked_again(
    database: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads the registration looks for the file under its name."""
    lock_file, times = Path(f"{database}{SUFFIX}"), [0]
    take = alive_file._LockFile.take

    def replaced(self: Any, number: int) -> bool:
        found = take(self, number)
        times[0] += 1
        if times[0] <= 2:
            lock_file.rename(f"{lock_file}.{times[0]}")
            lock_file.touch()
        return found

    monkeypatch.setattr(alive_file._LockFile, "take", replaced)
    one = held(database, 7)
    assert (times[0], one.lock_file) == (3, name_of(str(lock_file)))
    assert taken(database, 7) == [7]
    assert open_files(database.parent) == [str(lock_file)]
    one.release()
    monkeypatch.setattr(alive_file, "_REPLACED_MAX", 2)
    times[0] = 0
    with pytest.raises(OpenError, match="replaced again and again"):
        hold(str(database), 7)
    assert open_files(database.parent) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
async def test_a_file_system_without_locks_is_refused_unless_accepted(
    tmp_db: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(alive_file.fcntl, "fcntl", without_locks)
    with pytest.raises(UnsafeFilesystem, match=f"no file locks that work: {os.strerror(number)}"):
        await engine.SqliteBackend.open(tmp_db)
    async with sessiondb.open(tmp_db, allow_unsafe_filesystem=True) as db:
        await db.session("agent:main:web:1")
        assert [one.alive for one in (await db.status()).processes] == [None]
        assert await db.recover() == sessiondb.Recovered(), "nothing is known, so nothing is taken"


async def test_locks_that_keep_nobody_out_are_refused(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver does that answers every call with success."""
    monkeypatch.setattr(alive_file._LockFile, "_lock", lambda self, kind, number: True)
    with pytest.raises(UnsafeFilesystem, match="a lock that is held is not seen") as refused:
        await engine.SqliteBackend.open(tmp_db)
    assert refused.value.mount
    assert refused.value.filesystem
    assert open_files(tmp_db.parent) == []


# -- what cannot be asked --------------------------------------------------------------


def test_without_its_lock_file_a_registration_is_judged_by_what_is_certain(database: Path) -> None:
    gone = {"lock_file": "1:1"}
    assert lives(database, 1, **gone) is None, "its file was moved, and it may live"
    assert lives(database, 1, **gone, boot_id="before") is False, "the machine was started again"
    assert lives(database, 1, **gone, boot_id="") is None
    assert lives(database, 1, **gone, database_file="1:2") is False, "this is a copy"
    assert lives(database, 1, lock_file=None, database_file=None) is None, "of an older release"
    one = held(database, 1)
    assert lives(database, 1, **gone) is None
    assert lives(database, 1, boot_id="before", database_file="1:2") is True, "the lock decides"
    assert lives(database, 2) is False
    one.release()


def test_a_lock_file_that_was_copied_back_does_not_make_the_living_dead(database: Path) -> None:
    """As a restored folder does. The copy has the name, and not the lock."""
    lock_file = Path(f"{database}{SUFFIX}")
    with other_process(HOLD + WAIT, database, "description") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        row = registered(database, 7)
        shutil.copy2(lock_file, f"{lock_file}.copy")
        Path(f"{lock_file}.copy").replace(lock_file)
        assert liveness(str(database), [row]) == [None]


# -- registrations ---------------------------------------------------------------------


def open_rows(path: Path) -> list[int]:
    return query(path, "SELECT instance_no FROM instance WHERE closed_at_ms IS NULL ORDER BY 1")


async def test_each_database_object_has_a_byte_and_closing_frees_its_own(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db):
        async with sessiondb.open(tmp_db) as second:
            assert taken(tmp_db, 1, 2, 3) == [1, 2]
            names = query(tmp_db, "SELECT DISTINCT database_file, lock_file FROM instance")
            assert names == [(name_of(str(tmp_db)), name_of(f"{tmp_db}{SUFFIX}"))]
            assert [one.alive for one in (await second.status()).processes] == [True, True]
        assert (taken(tmp_db, 1, 2, 3), open_rows(tmp_db)) == ([1], [1])
        async with sessiondb.open(tmp_db, readonly=True) as visitor:
            assert [one.alive for one in (await visitor.status()).processes] == [True]
        assert taken(tmp_db, 1, 2, 3) == [1], "a visitor holds nothing, and ends nothing"
    assert taken(tmp_db, 1, 2, 3) == []


async def test_two_event_loops_of_one_process_see_one_another(tmp_db: Path) -> None:
    async def in_another_loop() -> None:
        async with sessiondb.open(tmp_db) as other:
            assert [one.alive for one in (await other.status()).processes] == [True, True]
            assert await other.recover() == sessiondb.Recovered()

    async with sessiondb.open(tmp_db):
        await anyio.to_thread.run_sync(lambda: anyio.run(in_another_loop))
        assert taken(tmp_db, 1, 2) == [1]


async def test_the_lock_outlasts_the_registration_at_both_ends(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Critical section "registration": an open row without its lock would look dead."""
    seen: list[tuple[str, list[int], list[int]]] = []

    def look(when: str) -> None:
        seen.append((when, open_rows(tmp_db), taken(tmp_db, 1)))

    run, release = instance._run_alone, Hold.release

    def alone(connection: Any, path: str, number: int, body: Any, *rest: Any) -> None:
        def looked(tx: Any) -> None:
            body(tx)
            look("before COMMIT")

        run(connection, path, number, looked, *rest)
        look("after COMMIT")

    def looked_at(self: Hold) -> None:
        look("before release")
        release(self)

    monkeypatch.setattr(instance, "_run_alone", alone)
    monkeypatch.setattr(Hold, "release", looked_at)
    async with sessiondb.open(tmp_db):
        assert seen == [("before COMMIT", [], [1]), ("after COMMIT", [1], [1])]
        seen.clear()
    assert seen == [
        ("before COMMIT", [1], [1]),
        ("after COMMIT", [], [1]),
        ("before release", [], [1]),
    ]
    assert taken(tmp_db, 1) == []


async def test_a_registration_that_fails_frees_its_byte(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db):
        pass

    def failing(*arguments: object) -> None:
        raise OpenError("no")

    monkeypatch.setattr(instance, "_record", failing)
    with pytest.raises(OpenError, match="no"):
        await engine.SqliteBackend.open(tmp_db)
    assert taken(tmp_db, 1, 2) == []
    assert open_files(tmp_db.parent) == []


def test_eight_processes_that_start_at_once_lock_one_file(tmp_db: Path) -> None:
    """Critical section "creation": none of them makes a second file of the name."""
    code = """
import sys, anyio, sessiondb
print("ready", flush=True)
sys.stdin.readline()
async def main():
    async with sessiondb.open(sys.argv[1]):
        print("open", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
anyio.run(main)
"""
    children = [
        warm.Popen(
            [sys.executable, "-c", code, tmp_db],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "open\n"
        numbers = list(range(1, 9))
        assert open_rows(tmp_db) == numbers
        assert query(tmp_db, "SELECT DISTINCT lock_file FROM instance") == [
            name_of(f"{tmp_db}{SUFFIX}")
        ]
        assert taken(tmp_db, *numbers, 9) == numbers
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert taken(tmp_db, *numbers) == []


# -- a lock file that goes -------------------------------------------------------------

GATEWAY = """
import sys, anyio, sessiondb
async def main():
    async with sessiondb.open(sys.argv[1], program="the living") as db:
        session = await db.session("agent:main:web:1")
        print("open", flush=True)
        while await anyio.to_thread.run_sync(sys.stdin.readline) == "write\\n":
            await session.append({"role": "user", "content": "x"})
            print("written", flush=True)
anyio.run(main)
"""


class Living:
    """A gateway in another process, which writes when it is told to."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self.hears("open")

    def hears(self, word: str) -> None:
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == f"{word}\n"

    def writes(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write("write\n")
        self.child.stdin.flush()
        self.hears("written")


def delete(lock_file: Path) -> None:
    lock_file.unlink()


def move(lock_file: Path) -> None:
    lock_file.rename(lock_file.with_name("moved"))


def replace(lock_file: Path) -> None:
    lock_file.with_name("new").touch(0o600)
    lock_file.with_name("new").replace(lock_file)


@pytest.mark.parametrize("take_away", [delete, move, replace])
async def test_a_gateway_whose_lock_file_goes_is_not_taken_for_dead(
    tmp_db: Path, take_away: Callable[[Path], None]
) -> None:
    """It is unknown until it writes, which is before it claims anything. Then it is known again."""
    with other_process(GATEWAY, tmp_db) as child:
        gateway = Living(child)
        async with sessiondb.open(tmp_db, program="the other") as db:
            await db.accept("agent:main:web:1", user("a question"), channel="web", event_id="1")
            take_away(Path(f"{tmp_db}{SUFFIX}"))

            async def alive(program: str) -> bool | None:
                [found] = [one for one in (await db.status()).processes if one.program == program]
                return found.alive

            assert await alive("the living") is not False
            assert (await db.recover()).instances == 0
            assert await alive("the other") is True, "nobody takes itself for dead"
            gateway.writes()
            await db.write("write", lambda tx: None)
            assert (await alive("the living"), await alive("the other")) == (True, True)
            assert taken(tmp_db, 1, 2) == [1, 2]
            child.kill()
            child.wait()
            assert await alive("the living") is False, "its byte is in the new file, and free"
            assert (await db.recover()).instances == 1


async def test_a_forgotten_gateway_registers_again_before_it_claims(tmp_db: Path) -> None:
    with other_process(GATEWAY, tmp_db) as child:
        gateway = Living(child)
        Path(f"{tmp_db}{SUFFIX}").unlink()
        async with sessiondb.open(tmp_db) as db:
            assert (await db.recover()).instances == 0
            assert open_rows(tmp_db) == [2], "it held nothing, and nothing is known of it"
            gateway.writes()
            assert open_rows(tmp_db) == [1, 2]
            assert taken(tmp_db, 1, 2) == [1, 2]


async def test_registrations_do_not_grow_where_the_lock_file_is_deleted_at_each_start(
    tmp_db: Path,
) -> None:
    for _ in range(4):
        with other_process(GATEWAY, tmp_db) as child:
            Living(child)
            child.kill()
            child.wait()
        Path(f"{tmp_db}{SUFFIX}").unlink()
    async with sessiondb.open(tmp_db) as db:
        assert len(open_rows(tmp_db)) == 5
        await db.recover()
        assert open_rows(tmp_db) == [5]


# -- copies ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["backup", "file", "folder"])
async def test_a_copy_opened_elsewhere_has_no_living_owners(
    tmp_db: Path, tmp_path: Path, how: str
) -> None:
    copy = tmp_path / "elsewhere" / "copy.db"
    async with sessiondb.open(tmp_db) as db:
        await db.accept("agent:main:web:1", user("a question"), channel="web", event_id="1")
        if how == "backup":
            backend: Any = db.backend
            await backend.backup(copy)
        else:
            copy.parent.mkdir()
            # From another process: closing a copy's descriptor here would drop SQLite's locks.
            for suffix in ("", "-wal", *((SUFFIX,) if how == "folder" else ())):
                subprocess.run(["cp", "-a", f"{tmp_db}{suffix}", f"{copy}{suffix}"], check=True)
        async with sessiondb.open(copy, readonly=True) as looked:
            assert [one.alive for one in (await looked.status()).processes] == [False]
        async with sessiondb.open(copy) as restored:
            assert (await restored.recover()).instances == 1
        assert [one.alive for one in (await db.status()).processes] == [True], "where it lives"


async def test_an_older_copy_in_the_place_of_a_live_database_counts_past_its_numbers(
    tmp_db: Path, tmp_path: Path
) -> None:
    """Both count in one lock file. Each number names one process."""
    async with sessiondb.open(tmp_db) as db:
        backend: Any = db.backend
        await backend.backup(tmp_path / "older.db")
        async with sessiondb.open(tmp_db):
            assert taken(tmp_db, 1, 2, 3) == [1, 2]
            for suffix in ("", "-wal", "-shm"):
                Path(f"{tmp_db}{suffix}").rename(tmp_path / f"moved{suffix}")
            shutil.copy(tmp_path / "older.db", tmp_db)
            async with sessiondb.open(tmp_db) as restored:
                assert (await restored.stats())["instance_no"] == 3
                assert taken(tmp_db, 1, 2, 3) == [1, 2, 3]


# -- fields that a person reads decide nothing -----------------------------------------


async def test_a_recycled_pid_and_a_new_host_name_decide_nothing(tmp_db: Path) -> None:
    me = process.identity()
    with other_process(GATEWAY, tmp_db) as child:
        Living(child)
        child.kill()
        child.wait()
    async with sessiondb.open(tmp_db) as db:
        await db.write(
            "as if recycled",
            lambda tx: tx.run("look.impersonate", pid=me.pid, pid_started=me.pid_started),
        )
        first, second = sorted((await db.status()).processes, key=lambda one: one.instance_no)
        assert (first.pid, first.alive) == (me.pid, False)
        assert second.alive is True


FORK_FROM_WITHIN = """
import threading
with alive_file._lock:
    child = os.fork()
    if child == 0:
        with alive_file._lock:
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
other = threading.Thread(target=lambda: print(code, hold(sys.argv[1], 8) is not None))
other.start()
other.join()
"""


def test_a_fork_from_within_the_critical_section_goes_through(database: Path, kind: str) -> None:
    """As of a signal's handler, or of an audit hook of the open."""
    done = run_python(HOLD + FORK_FROM_WITHIN, database, kind)
    assert (done.stdout, done.returncode) == ("0 True\n", 0), done.stderr

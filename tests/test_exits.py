"""The ways in which a program ends, with a database of the synchronous API open.

Whatever the way: the program's own exit code, no hang, no line that the program did not write,
and what was acknowledged is there. The next process finds a file that was closed: every
registration signed off, no -wal, and nobody dead to report.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

import sessiondb
import sessiondb.sync
from tests import ROOT
from tests.support.engine import PATIENCE_S

KEY = "agent:main:web:1"
# Long enough to be encoded in a thread.
HELLO = f"""
import sys
from sessiondb import sync
import sessiondb
KEY, path = {KEY!r}, sys.argv[1]
hello = {{"role": "user", "content": "hello " * 20_000}}
"""
OPEN = "db = sync.open(path).__enter__(); session = db.session(KEY)\n"


def run(code: str, path: Path, *flags: str, timeout_s: float = PATIENCE_S * 2) -> tuple[int, str]:
    """Run a program with the path of a database. Return its exit code, and what it wrote."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", HELLO + code, str(path)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=ROOT,
    )
    return done.returncode, done.stdout + done.stderr


def was_closed(path: Path) -> bool:
    """Tell whether the next process finds a database that every process before it has closed."""
    beside = {file.name for file in path.parent.glob(f"{path.name}-*")} - {f"{path.name}-alive"}
    connection = apsw.Connection(str(path))
    [(left_open,)] = connection.execute("SELECT count(*) FROM instance WHERE closed_at_ms IS NULL")
    connection.close()
    with sessiondb.sync.open(path) as db:
        return not beside and left_open == 0 and db.recover() == sessiondb.Recovered()


def appended(path: Path) -> int:
    with sessiondb.sync.open(path, readonly=True) as db:
        return len(db.session(KEY, create=False).context().messages)


WAYS = {
    "end of the script": "session.append(hello)",
    "an exception of its own": "session.append(hello)\nraise SystemExit('the program failed')",
    "a handler of SIGTERM that calls sys.exit": """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
session.append(hello)
os.kill(os.getpid(), signal.SIGTERM)
""",
    "sys.exit in another thread": """
import threading
def work():
    session.append(hello)
    sys.exit(3)
thread = threading.Thread(target=work)
thread.start()
thread.join()
""",
    "another thread that is in a call": """
import threading
begun = threading.Event()
def slow(tx):
    begun.set()
    threading.Event().wait(0.3)
def work():
    db.write("slow", slow)
    session.append(hello)
threading.Thread(target=work).start()
begun.wait()
""",
    "a daemon that calls again and again": """
import threading
begun = threading.Event()
def work():
    session.append(hello)
    begun.set()
    while True:
        db.write("nothing", lambda tx: None)
threading.Thread(target=work, daemon=True).start()
begun.wait()
""",
    "opened in a thread that has ended": """
import threading
def work():
    global other
    other = sync.open(path).__enter__()
thread = threading.Thread(target=work)
thread.start()
thread.join()
other.session(KEY).append(hello)
""",
    "atexit: the database is used": """
import atexit
atexit.register(lambda: session.append(hello))
""",
    "atexit: the database is closed": """
import atexit
session.append(hello)
atexit.register(db.close)
""",
    "iterators that were left": """
session.append(hello)
for number in range(5):
    db.session(f"agent:main:web:{number}")
sessions, events = db.sessions(), db.events("me", from_start=True)
next(sessions)
""",
    "an object with a finalizer that uses it": """
class Owner:
    def __init__(self):
        session.append(hello)
    def __del__(self):
        db.close()
owner = Owner()
""",
    "a pool of threads": """
from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(4)
pool.submit(session.append, hello)
""",
    "a rule that raised SystemExit": """
def rule(tx):
    raise SystemExit(3)
try:
    db.write("rule", rule)
except SystemExit:
    session.append(hello)
""",
}
CODES = {
    "an exception of its own": (1, "the program failed\n"),
    "a handler of SIGTERM that calls sys.exit": (4, ""),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_does_not_close_ends(tmp_db: Path, way: str) -> None:
    assert run(OPEN + WAYS[way], tmp_db) == CODES.get(way, (0, ""))
    assert appended(tmp_db) == 1
    assert was_closed(tmp_db)


@pytest.mark.parametrize("kind", ["in a call", "between two calls"])
def test_a_program_that_is_interrupted_ends(tmp_db: Path, kind: str) -> None:
    """As by Ctrl-C, which raises KeyboardInterrupt in the main thread."""
    wait = {
        "in a call": "db.write('slow', lambda tx: (begun.set(), threading.Event().wait(0.5)))",
        "between two calls": "begun.set(); threading.Event().wait()",
    }[kind]
    code = f"""
import os, signal, threading
begun = threading.Event()
def interrupt():
    begun.wait()
    os.kill(os.getpid(), signal.SIGINT)
session.append(hello)
threading.Thread(target=interrupt, daemon=True).start()
{wait}
"""
    returncode, said = run(OPEN + code, tmp_db)
    assert returncode == -signal.SIGINT
    assert said.count("Traceback") == said.count("KeyboardInterrupt\n") == 1, said
    assert appended(tmp_db) == 1
    assert was_closed(tmp_db)


def test_os_exit_is_a_crash_that_loses_nothing(tmp_db: Path) -> None:
    assert run(OPEN + "import os\nsession.append(hello)\nos._exit(5)", tmp_db) == (5, "")
    assert appended(tmp_db) == 1
    with sessiondb.sync.open(tmp_db) as db:
        assert db.recover().instances == 1, "it left without closing"


def test_a_handle_that_is_dropped_says_so_and_is_closed(tmp_db: Path) -> None:
    code = """
import gc, threading, warnings
session.append(hello)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    del db, session
    gc.collect()
print(*{str(warning.message).partition(path)[2] for warning in caught})
for thread in threading.enumerate():
    if thread.name.startswith("sessiondb") and thread.name[10:] not in ("timers", "worker"):
        thread.join()
"""
    said = " was not closed. Use `async with` or call close()\n"
    assert run(OPEN + code, tmp_db) == (0, said)
    assert appended(tmp_db) == 1
    assert was_closed(tmp_db)


def test_a_test_run_that_leaves_a_database_open_ends(tmp_db: Path, tmp_path: Path) -> None:
    file = tmp_path / "test_left_open.py"
    file.write_text(
        f"from sessiondb import sync\ndef test_it():\n    global db\n"
        f"    db = sync.open({str(tmp_db)!r}).__enter__()\n    db.session({KEY!r}).append(\n"
        "        {'role': 'user', 'content': 'x' * 100_000})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "1 passed" in done.stdout
    assert appended(tmp_db) == 1
    assert was_closed(tmp_db)


# -- when the loop has ended --------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["stopped", "raised"])
def test_callers_get_an_error_when_the_loop_has_ended(tmp_db: Path, ends: str) -> None:
    code = f"""
import threading
loop = db._loop._thread._loop
held = threading.Event()
def wait_for_event():
    try:
        next(db.events("me"))
    except sessiondb.StoreClosed as error:
        print("waiting:", sessiondb.outcome_of(error))
def bad():
    raise SystemExit("something ended the loop")
session.append(hello)
waiting = threading.Thread(target=wait_for_event)
waiting.start()
while not db._loop._thread._tasks:
    pass
loop.call_soon_threadsafe(loop.stop if {ends!r} == "stopped" else bad)
waiting.join()
for _ in range(2):
    try:
        session.append(hello)
    except sessiondb.StoreClosed as error:
        print("later:", sessiondb.outcome_of(error), "open it again" in str(error))
db.close()
with sync.open(path) as again:
    again.session(KEY).append(hello)
"""
    returncode, said = run(OPEN + code, tmp_db)
    assert returncode == 0, said
    told = [line for line in said.splitlines() if line.startswith(("waiting", "later"))]
    assert told == ["waiting: unknown", *["later: not_executed True"] * 2], said
    assert appended(tmp_db) == 2
    assert was_closed(tmp_db)


# -- processes that are made of this one --------------------------------------------------------


NEXT_PROCESS = f"""
import os, sys
from sessiondb import sync
db = sync.open(sys.argv[1]).__enter__()
db.session({KEY!r}).append({{"role": "user", "content": "of the next process"}})
os._exit(0)
"""


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("calls", [False, True])
def test_a_forks_child_is_told_and_leaves_the_files_alone(
    tmp_db: Path, *, readonly: bool, calls: bool
) -> None:
    """The child outlives its parent, which closes, and the next process, which is killed.

    At its end it holds connections to a -wal of an older time, and the last -wal has its name.
    """
    code = f"""
import gc, os, subprocess
session.append(hello)
db.close()
db = sync.open(path, readonly={readonly}).__enter__()
ended, ends = os.pipe()
if os.fork():
    db.close()
    os._exit(0)
os.close(ends)
os.read(ended, 1)  # until the parent has ended
def use():
    for call in (db.status, db.stats, lambda: next(db.sessions()), lambda: db.session(KEY)):
        try:
            call()
        except sessiondb.StoreClosed as error:
            assert "before a fork" in str(error), error
        else:
            raise AssertionError(call)
    db.close()
if {calls}:
    use()
subprocess.run([sys.executable, "-c", {NEXT_PROCESS!r}, path], check=True)
del db
gc.collect()
sys.exit(0)
"""
    assert run(OPEN + code, tmp_db) == (0, "")
    assert appended(tmp_db) == 2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_that_does_not_close_ends(
    tmp_db: Path, tmp_path: Path, method: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        HELLO
        + f"""
import multiprocessing
def work():
    global db
    db = sync.open(path).__enter__()
    db.session(KEY).append(hello)
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print([child.exitcode for child in children])
"""
    )
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_db)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 0]\n", "")
    assert appended(tmp_db) == 2
    assert was_closed(tmp_db)


def test_a_forked_worker_uses_a_database_of_its_own(tmp_db: Path, tmp_path: Path) -> None:
    """The parent has timers, worker threads and an open database. The child has none of them."""
    code = f"""
import os
session.append(hello)
child = os.fork()
if child == 0:
    with sync.open({str(tmp_path / "other.db")!r}) as other:
        other.session(KEY).append(hello)
    sys.exit(6)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
session.append(hello)
"""
    assert run(OPEN + code, tmp_db) == (0, "6\n")
    assert (appended(tmp_db), appended(tmp_path / "other.db")) == (2, 1)
    assert was_closed(tmp_db)
    assert was_closed(tmp_path / "other.db")

"""Ctrl-C: no traceback at any moment, and a word on what a command has done and how to go on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sessiondb import sync
from tests.support import warm
from tests.support.command_line import KEY, TIMEOUT_S, command, run

# Runs the command line, and presses Ctrl-C where a module is imported, or a function called.
CHILD = """
import os, pkgutil, signal, sys

where, kind, *arguments = sys.argv[1:]

def press():
    os.kill(os.getpid(), signal.SIGINT)

class Importing:
    def find_spec(self, name, path=None, target=None):
        if name == where:
            sys.meta_path.remove(self)
            press()

if kind == "import":
    sys.meta_path.insert(0, Importing())
else:
    module, _, name = where.rpartition(".")
    owner = pkgutil.resolve_name(module)
    called = getattr(owner, name)
    count = [int(kind)]

    def wrapped(*args, **options):
        count[0] -= 1
        if count[0] == 0:
            press()
        return called(*args, **options)

    setattr(owner, name, wrapped)
sys.argv[1:] = arguments
from sessiondb.__main__ import main
main()
"""


def interrupted(
    where: str, kind: object, *args: object, stdin: bytes = b""
) -> tuple[int, str, str]:
    """Run a command that is interrupted there. Return its code and what it printed."""
    # An import that is interrupted is one of a new interpreter.
    start = subprocess.run if kind == "import" else warm.run
    done = start(
        [sys.executable, "-c", CHILD, where, str(kind), *map(str, args)],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    "module",
    ["click", "sessiondb.cli.program", "sessiondb.cli.sessions", "pydantic", "sessiondb.sync"],
)
def test_ctrl_c_at_start_up_is_silent(db: Path, module: str) -> None:
    code, out, err = interrupted(module, "import", "sessions", db)
    assert (code in (130, -signal.SIGINT), out, err) == (True, "", "")


@pytest.mark.parametrize("function", ["print_table", "print_json_array"])
def test_a_command_that_only_reads_says_nothing(db: Path, function: str) -> None:
    args = ["--json"] if function == "print_json_array" else []
    where = f"sessiondb.cli.sessions.{function}"
    assert interrupted(where, 1, "sessions", db, *args)[::2] == (130, "")


def test_an_import_says_what_is_done_and_goes_on(tmp_db: Path, sample: Path) -> None:
    folder = sample / "pi-0.74.2" / "sessions"
    code, _, err = interrupted(
        "sessiondb.cli.transfer.Progress.__call__", 4, "import", tmp_db, folder
    )
    assert code == 130
    assert err.count("\n") == 1
    assert "were read, and what was read is stored" in err
    assert "The same command goes on" in err
    again = run("import", tmp_db, folder)
    assert again.exit_code in (0, 1)  # one of the files has a damaged line
    with sync.open(tmp_db, readonly=True) as opened:
        assert opened.status().import_files == len(list(folder.iterdir()))


def test_an_interrupted_append_names_the_line_to_go_on_with(tmp_db: Path) -> None:
    process = warm.Popen(
        command("append", tmp_db, KEY, "--create", "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number in (1, 2):
        process.stdin.write(b'{"role":"user","content":"now"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["line"] == number
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert err.decode() == (
        "sessiondb: interrupted. 2 lines are stored, up to line 2. Send the lines after it again.\n"
    )


def test_an_interrupted_gc_says_that_it_may_be_repeated(db: Path) -> None:
    where = "sessiondb.sync.SessionDB.gc"
    code, _, err = interrupted(where, 1, "gc", db, "--max-sessions", 0, "--idle", 0)
    assert code == 130
    assert "Run it again" in err
    assert err.count("\n") == 1

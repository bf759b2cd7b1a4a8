"""A warm child (tests/support/warm.py) is what a new interpreter would be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import warm

pytestmark = pytest.mark.skipif(
    not warm._adopts_orphans(), reason="children are started cold here, by subprocess itself"
)

TELL = """
import json, os, signal, sys
print(json.dumps({
    "arguments": sys.argv, "path": sys.path[0], "folder": os.getcwd(), "parent": os.getppid(),
    "leads": os.getsid(0) == os.getpid(), "variable": os.environ.get("A_VARIABLE"),
    "heard": sys.stdin.read(), "interrupts": signal.getsignal(signal.SIGINT).__name__,
    "main": [name for name in vars() if not name.startswith("__")],
    "lines": [stream.line_buffering for stream in (sys.stdout, sys.stderr)],
    "through": sys.stdout.write_through,
}))
print("to the other stream", file=sys.stderr)
sys.exit(3)
"""
IS_WARM = (
    "import sys; print('tests.support' not in sys.modules and 'sessiondb.sync' in sys.modules)"
)


def told(start: Any, command: list[str], folder: Path, **variables: str) -> Any:
    done = start(
        command,
        input="a line\n",
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | variables,
        start_new_session=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (3, "to the other stream\n")
    return json.loads(done.stdout)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_it_sees_what_a_cold_one_sees(tmp_path: Path, unbuffered: str) -> None:
    script, module = tmp_path / "told.py", tmp_path / "tells.py"
    for file in (script, module):
        file.write_text(TELL)
    for command in (["-c", TELL], [str(script)], ["-m", "tells"]):
        line = [sys.executable, *command, "an argument", "-x"]
        variables = {"A_VARIABLE": "of this child", "PYTHONUNBUFFERED": unbuffered}
        cold, hot = (
            told(start, line, tmp_path, **variables) for start in (subprocess.run, warm.run)
        )
        assert cold == hot
        assert (hot["parent"], hot["variable"]) == (os.getpid(), "of this child")


def test_two_are_processes_of_their_own_and_die_as_any_other() -> None:
    line = [sys.executable, "-c", "print('begun', flush=True); input()"]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with warm.Popen(line, **streams) as one, warm.Popen(line, **streams) as other:
        for child in (one, other):
            assert child.stdout.readline() == "begun\n"
        assert one.pid != other.pid
        one.kill()
        assert one.wait(60) == -signal.SIGKILL
        assert other.poll() is None
        assert other.communicate("go on\n", timeout=60) == ("", None)
        assert other.returncode == 0


def test_an_error_is_told_and_ctrl_c_ends_it() -> None:
    for code, ended in (("1 / 0", 1), ("import signal; signal.raise_signal(2)", -signal.SIGINT)):
        done = warm.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == ended
        assert done.stderr.startswith("Traceback")


@pytest.mark.parametrize(
    ("flags", "variables", "expected"),
    [([], {}, True), (["-O"], {}, False), ([], {"PYTHONHASHSEED": "1"}, False)],
    ids=["as the tests", "a flag", "a variable of the interpreter"],
)
def test_other_options_of_the_interpreter_make_it_cold(
    flags: list[str], variables: dict[str, str], expected: bool
) -> None:
    done = warm.run(
        [sys.executable, *flags, "-c", IS_WARM],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        check=True,
    )
    assert done.stdout == f"{expected}\n"

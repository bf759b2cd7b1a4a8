"""`python -O` has no assertions, and `python -OO` no docstrings either. Nothing depends on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.support.engine import PATIENCE_S

FLAGS = pytest.mark.parametrize("flag", ["-O", "-OO"])
KEY = "agent:main:web:1"


def run(flag: str, *arguments: object, given: str = "") -> tuple[int, str]:
    """Run Python to its end. Return its exit code, and what it wrote."""
    done = subprocess.run(
        [sys.executable, flag, *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 4,
        check=False,
        cwd=ROOT,
    )
    return done.returncode, done.stdout + done.stderr


@FLAGS
def test_the_commands_work_without_docstrings(tmp_db: Path, tmp_path: Path, flag: str) -> None:
    def command(*arguments: object, given: str = "") -> str:
        code, said = run(flag, "-m", "sessiondb", *arguments, given=given)
        assert code == 0, said
        return said

    command("append", tmp_db, KEY, "--create", given='{"role": "user", "content": "hello"}\n')
    select = "SELECT type, position FROM entry ORDER BY entry_no"
    assert command("query", tmp_db, select) == (
        '[{"type": "session", "position": 0},\n {"type": "message", "position": 1}]\n'
    )
    assert command("query", tmp_db, select, "--csv") == "type,position\nsession,0\nmessage,1\n"
    assert "message" in command("query", tmp_db, select, "--table")
    for name in ("status", "sessions", "stuck", "held", "compactions", "verify", "dead", "inbox"):
        command(name, tmp_db)
    for name in ("show", "context"):
        assert "hello" in command(name, tmp_db, KEY)
    command("export", tmp_db, tmp_path / "out")
    assert command("--help").count("\n") > 20
    for name in ("query", "import", "status"):
        assert "--help" in command(name, "--help")
    code, said = run(flag, "-m", "sessiondb", "status", tmp_path / "missing.db")
    assert (code != 70, "missing.db" in said) == (True, True), said


@FLAGS
def test_an_error_without_a_message_says_something(flag: str) -> None:
    code = "import sessiondb; print(sessiondb.NotExecuted(), sessiondb.NotFound('no such'))"
    said = "The deadline passed before the transaction began. Nothing was changed."
    wanted = f"{said if flag == '-O' else 'NotExecuted'} no such\n"
    assert run(flag, "-c", code) == (0, wanted)


@FLAGS
def test_the_tests_of_the_core_pass(flag: str, tmp_path: Path) -> None:
    """Those of rules that change rows. pytest makes statements of the tests' own assertions."""
    files = ("transcript/test_registry.py",)
    code, said = run(
        flag,
        *(
            "-m",
            "pytest",
            "-W",
            "ignore::pytest.PytestConfigWarning",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
        ),
        f"--basetemp={tmp_path / 'inner'}",
        *(os.fspath(ROOT / "tests" / file) for file in files),
    )
    assert code == 0, said[-3_000:]
    assert " passed" in said

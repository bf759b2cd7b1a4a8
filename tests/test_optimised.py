"""`python -O` has no assertions, and `python -OO` no docstrings either. Nothing depends on them."""

from __future__ import annotations

import json
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


# Runs the commands that it reads, one after another. To start Python for each takes seconds:
# nothing is compiled ahead for these flags.
RUN_ALL = """
import json, sys
from click.testing import CliRunner
from sessiondb.cli import program
done = [CliRunner().invoke(program, command, input=text) for command, text in json.load(sys.stdin)]
print(json.dumps([(result.exit_code, result.output) for result in done]))
"""


@FLAGS
def test_the_commands_work_without_docstrings(tmp_db: Path, tmp_path: Path, flag: str) -> None:
    select = "SELECT type, position FROM entry ORDER BY entry_no"
    appended = ("append", tmp_db, KEY, "--create")
    names = ("status", "sessions", "stuck", "held", "compactions", "verify", "dead", "inbox")
    commands: list[tuple[object, ...]] = [
        ("query", tmp_db, select),
        ("query", tmp_db, select, "--csv"),
        ("query", tmp_db, select, "--table"),
        *((name, tmp_db) for name in names),
        ("show", tmp_db, KEY),
        ("context", tmp_db, KEY),
        ("export", tmp_db, tmp_path / "out"),
        ("--help",),
        *((name, "--help") for name in ("query", "import", "status")),
    ]
    given = [(appended, '{"role": "user", "content": "hello"}\n'), *((one, "") for one in commands)]
    code, printed = run(
        flag, "-c", RUN_ALL, given=json.dumps([(list(map(str, one)), text) for one, text in given])
    )
    assert code == 0, printed
    [(code, said), *results] = json.loads(printed)
    assert code == 0, said
    assert [(*one, said) for one, (code, said) in zip(commands, results, strict=True) if code] == []
    said_by = {one: said for one, (_, said) in zip(commands, results, strict=True)}
    assert said_by["query", tmp_db, select] == (
        '[{"type": "session", "position": 0},\n {"type": "message", "position": 1}]\n'
    )
    assert said_by["query", tmp_db, select, "--csv"] == "type,position\nsession,0\nmessage,1\n"
    assert "message" in said_by["query", tmp_db, select, "--table"]
    assert all("hello" in said_by[name, tmp_db, KEY] for name in ("show", "context"))
    assert said_by["--help",].count("\n") > 20
    assert all("--help" in said_by[name, "--help"] for name in ("query", "import", "status"))
    code, said = run(flag, "-m", "sessiondb", "status", tmp_path / "missing.db")
    assert (code != 70, "missing.db" in said) == (True, True), said


@FLAGS
def test_an_error_without_a_message_says_something(flag: str) -> None:
    code = "import sessiondb; print(sessiondb.NotExecuted(), sessiondb.NotFound('no such'))"
    said = "The deadline passed before the transaction began. Nothing was changed."
    wanted = f"{said if flag == '-O' else 'NotExecuted'} no such\n"
    assert run(flag, "-c", code) == (0, wanted)


def test_the_tests_of_the_core_pass(tmp_path: Path) -> None:
    """Those of rules that change rows. pytest makes statements of the tests' own assertions.

    Under `-OO`, which takes away all that `-O` does.
    """
    files = ("transcript/test_registry.py",)
    code, said = run(
        "-OO",
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

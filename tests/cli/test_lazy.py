"""The commands' modules are imported when a command is used. Help lists them without."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from sessiondb.cli import COMMANDS, TASKS, program

# Runs `python -m sessiondb ARGUMENTS`, then prints what is imported, as JSON.
CHILD = """
import json, runpy, sys
sys.argv = ["sessiondb", *sys.argv[1:]]
try:
    runpy.run_module("sessiondb", run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted(sys.modules)]))
"""
HEAVY = {"apsw", "anyio", "pydantic", "sqlite_utils", "tabulate"}


def imported(*args: str, code: int = 0) -> set[str]:
    """Return what is imported at the end of a command."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *args], capture_output=True, text=True, timeout=60, check=True
    )
    found, modules = json.loads(done.stdout.splitlines()[-1])
    assert found == code, done.stderr
    return set(modules)


@pytest.mark.parametrize(
    ("args", "code"),
    [(["--help"], 0), (["-h"], 0), ([], 0), (["unheard-of"], 2), (["--no-such-option"], 2)],
)
def test_help_imports_no_command_and_no_library(args: list[str], code: int) -> None:
    modules = imported(*args, code=code)
    ours = {name for name in modules if name.startswith("sessiondb")}
    assert ours == {
        *("sessiondb", "sessiondb.errors", "sessiondb.exits", "sessiondb.cli"),
        *(f"sessiondb.cli.{name}" for name in ("lazy", "program", "terminal", "watch")),
    }
    assert modules & HEAVY == set()


def test_a_command_imports_its_own_module_and_no_other() -> None:
    modules = imported("verify", "--help")
    of_commands = {f"sessiondb.cli.{place.module}" for place in COMMANDS.values()}
    assert modules & of_commands == {"sessiondb.cli.overview"}
    assert "pydantic" in modules  # so the test above sees an import of it
    assert "sqlite_utils" not in modules


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_line_of_the_table_is_the_commands_short_help(name: str) -> None:
    command = program.commands[name]
    assert command.name == name
    assert command.callback is not None
    assert f"sessiondb.cli.{COMMANDS[name].module}" == command.callback.__module__
    assert COMMANDS[name].short_help == command.get_short_help_str(limit=200)


def test_the_help_lists_commands_by_task_a_line_each() -> None:
    shown = CliRunner().invoke(program, [], terminal_width=80)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == CliRunner().invoke(program, ["--help"], terminal_width=80).stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for task, offered in TASKS.items():
        listed = shown.stdout.partition(f"\n{task}:\n")[2].partition("\n\n")[0].splitlines()
        assert [line.split()[0] for line in listed] == list(offered)

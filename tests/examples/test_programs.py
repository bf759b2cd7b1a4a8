"""The small programs run to their end, say what they should, and are clean for a type checker."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sessiondb
import sessiondb.sync
import sessiondb.testing
from tests import ROOT

SAID = {
    "telegram_bot": [
        "nothing ran",
        r"to -5: 2: @bot what do you think\?",
        "to 7: 1: hello",
        # Either the edit took the message's place, or both texts were answered.
        r"(to 8: 1: good day\nto 8: 3: good evening|to 8: 1: good evening)",
        "to 9: 1: bye",
        "interrupted: 0",
    ],
    "history_page": [
        "stored",
        "again",
        '<ul><li><a href="/ID">agent:main:web:direct:7</a> 6 entries</li></ul>',
        "<p>line 4</p><p>line 5</p><p>a &lt;b&gt;bold&lt;/b&gt; one</p>",
        "<p>line 1</p><p>line 2</p><p>line 3</p>",
    ],
    "heartbeat": [
        r"Are you still there\?",
        "I have somebody look into it.",
        "It is found: all about bees",
        "You said: hello",
        "6 entries of heartbeats",
    ],
    "compact_all": ["5 committed, 1 small", "6 small", "smaller", "True True"],
    "two_processes": [
        "interrupted: 0, exit code 0",
        "interrupted: 0, exit code 0",
        "interrupted: 0, exit code 0",
        "40 replies to 40 messages",
    ],
}
APPLICATION = ROOT / "examples" / "application"

pytestmark = pytest.mark.slow


def run(*arguments: str, **environment: str) -> str:
    """Run this Python in the checkout. Return what it printed, of a success without a warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def test_every_program_is_run() -> None:
    known = {"__init__", "demo", "demo_gateway"}  # those have tests of their own
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} - known == set(SAID)


@pytest.mark.parametrize("program", SAID)
def test_a_program_runs_to_its_end_and_says_what_it_did(program: str) -> None:
    said = run("-m", f"examples.{program}")
    assert re.fullmatch("\n".join(SAID[program]), said.strip()), said


def test_the_test_suite_of_an_application_passes(tmp_path: Path) -> None:
    """With the fixtures as pytest finds them: by the entry point of an installed distribution."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [(name, module)] = project["entry-points"]["pytest11"].items()
    about = tmp_path / "installed-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")
    said = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", str(APPLICATION)),
        PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}",
    )
    assert "10 passed" in said


def test_a_type_checker_finds_nothing_in_the_programs() -> None:
    programs = [f"examples/{name}.py" for name in SAID]
    said = run("-m", "mypy", "--strict", "--no-error-summary", *programs, str(APPLICATION))
    assert said == ""


# -- misspellings ------------------------------------------------------------------------------


def public_names() -> set[str]:
    """Return what a program may name: calls, their parameters, and fields of records."""
    names: set[str] = set()
    for module in (sessiondb, sessiondb.sync, sessiondb.testing):
        for name in sessiondb.__all__ if module is sessiondb else dir(module):
            found = getattr(module, name)
            parts = vars(found) if inspect.isclass(found) else {}
            fields = getattr(found, "__dataclass_fields__", {})
            names |= {name, *parts, *fields}
            for call in filter(inspect.isfunction, (found, *parts.values())):
                names |= inspect.signature(call).parameters.keys()
    # `decode` is what they call of a page's bytes, too, and that page may be of any type.
    return {name for name in names - {"decode"} if not name.startswith("_")}


def uses(source: str, names: set[str]) -> Iterator[tuple[str, int, int]]:
    """Yield each name that a program uses once: with the line and the column of a use.

    A keyword of a call of the program's own is the program's.
    """
    tree = ast.parse(source)
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    found: dict[str, tuple[int, int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.end_col_offset is not None:
            where = node.end_lineno or 0, node.end_col_offset - len(node.attr)
            found.setdefault(node.attr, where)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") not in own:
            for word in node.keywords:
                if word.arg is not None:
                    found.setdefault(word.arg, (word.lineno, word.col_offset))
    for name in found.keys() & names:
        yield name, *found[name]


def misspelt(word: str) -> str:
    half = len(word) // 2
    swapped = word[: half - 1] + word[half] + word[half - 1] + word[half + 1 :]
    return swapped if swapped != word and len(word) > 2 else word + word[-1]


def test_a_type_checker_refuses_every_misspelling(tmp_path: Path) -> None:
    """Every name of the API that a program uses, one at a time, with two letters swapped."""
    names = public_names()
    wrong = set()
    programs = [ROOT / "examples" / f"{name}.py" for name in SAID]
    for path in [*programs, *APPLICATION.glob("*assistant.py")]:
        source = path.read_text(encoding="utf-8")
        for name, line, column in uses(source, names):
            lines = source.splitlines(keepends=True)
            before, rest = lines[line - 1][:column], lines[line - 1][column:]
            assert rest.startswith(name), (path, line, name)
            lines[line - 1] = before + misspelt(name) + rest.removeprefix(name)
            copy = tmp_path / f"{path.stem}__{name}.py"
            copy.write_text("".join(lines), encoding="utf-8")
            wrong.add(copy.name)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    refused = set(re.findall(r"([^/\n]+\.py):\d+: error", done.stdout))
    assert len(wrong) > 100, "the programs use so many names"
    assert wrong - refused == set()

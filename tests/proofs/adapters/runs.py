"""One framework's own tests, run against its adapter, and what became of each of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests import ROOT

from .frameworks import PYTEST, Framework

FOLDER: Final = ROOT / ".venv/.adapters"
PLUGINS: Final = Path(__file__).parent / "plugins"
INSIDE: Final = Path(__file__).with_name("inside.toml")
TIMEOUT_S: Final = 3_600
# A framework's own warnings are no errors of ours, and its plugin for asyncio warns at its start.
QUIET: Final = ("-p", "no:cacheprovider", "-p", "no:asyncio", "-o", "filterwarnings=default")


class Failed(Exception):
    """A framework could not be installed, or its tests did not run. The message says why."""


@dataclass(frozen=True)
class Judged:
    """What became of a framework's tests, beside the list of those that reach inside."""

    passed: int
    inside: int
    """Failed, and listed: they reach into the framework's own store."""
    skipped: int
    wrong: tuple[str, ...]
    """Sentences: a test that failed and is not listed, or a listed one that did not fail."""
    ships_none: bool = False
    not_fetched: bool = False
    """Its tests did not run, because the repository that has them could not be reached."""

    def __str__(self) -> str:
        total = self.passed + self.inside + len(self.wrong)
        if self.ships_none or self.not_fetched:
            own = "this project's own failed" if self.wrong else "this project's own pass"
            why = "ITS TESTS DID NOT RUN" if self.not_fetched else "it ships no tests of its stores"
            return f"{why}; {own}"
        return (
            f"{self.passed} of {total} passed, {self.inside} reach into the framework's own store"
            + (f", {self.skipped} skipped by the framework" if self.skipped else "")
        )


def listed(name: str) -> dict[str, str]:
    """Return the tests of a framework that reach inside, each with the reason."""
    table = tomllib.loads(INSIDE.read_text(encoding="utf-8")).get(name, {})
    return {test: reason for reason, tests in table.items() for test in tests}


def judge(outcomes: dict[str, str], inside: Iterable[str]) -> Judged:
    """Compare outcomes with the list. A name without parameters lists all of a test's cases."""
    left, expected, wrong = set(inside), 0, []
    listing = frozenset(left)
    for test, outcome in outcomes.items():
        name = next((each for each in (test, test.partition("[")[0]) if each in listing), None)
        if name is not None and outcome == "failed":
            expected += 1
            left.discard(name)
        elif name is not None and outcome == "passed":
            wrong.append(f"{test} passes: take it off the list")
            left.discard(name)
        elif outcome == "failed":
            wrong.append(f"{test} failed, and is not listed")
    wrong += [f"{name} is listed, and no test of that name failed" for name in sorted(left)]
    counts = list(outcomes.values())
    passed = sum(
        outcome == "passed" and test not in listing and test.partition("[")[0] not in listing
        for test, outcome in outcomes.items()
    )
    return Judged(passed, expected, counts.count("skipped"), tuple(wrong))


def run(framework: Framework, say: Callable[[str], None]) -> Judged:
    """Install a framework where it is not installed yet, and run its tests.

    Raises:
        Failed: no package index, or the tests could not be run.
    """
    home = FOLDER / f"{framework.name}-{framework.version}"
    python = _installed(framework, home, say)
    if not framework.tests:
        return Judged(0, 0, 0, _own(framework, python, say), ships_none=True)
    try:
        source = _source(framework, home, python, say)
    except Failed as failed:
        if not framework.repository:
            raise
        say(f"{framework.name}: {failed}")
        return Judged(0, 0, 0, _own(framework, python, say), not_fetched=True)
    outcomes = home / "outcomes.json"
    outcomes.unlink(missing_ok=True)
    say(f"{framework.name}: pytest, {len(framework.tests)} of its files")
    for path in framework.tests:
        if (PLUGINS / path).exists():  # it must not find the conftest of this checkout
            shutil.copy(PLUGINS / path, source / path)
    left_out = [word for name in framework.left_out for word in ("--deselect", name)]
    plugins = [word for name in ("outcomes", *framework.plugins) for word in ("-p", name)]
    done = subprocess.run(
        [
            python,
            "-m",
            "pytest",
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            *plugins,
            *left_out,
            *framework.tests,
        ],
        cwd=source,
        env=os.environ | {"PYTHONPATH": str(PLUGINS), "OUTCOMES": str(outcomes)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    (home / "pytest.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if not outcomes.exists() or done.returncode not in (0, 1):
        raise Failed(f"{framework.name}: pytest did not run:\n{done.stdout[-2000:]}{done.stderr}")
    judged = judge(json.loads(outcomes.read_text(encoding="utf-8")), listed(framework.name))
    return replace(judged, wrong=judged.wrong + _own(framework, python, say))


def bench(framework: Framework, say: Callable[[str], None]) -> str:
    """Return the lines of a table: the adapter beside the framework's own SQLite store.

    Raises:
        Failed: no package index, or the program failed.
    """
    home = FOLDER / f"{framework.name}-{framework.version}"
    python = _installed(framework, home, say)
    say(f"{framework.name}: benchmarks/adapters.py")
    return _call([python, str(ROOT / "benchmarks/adapters.py"), framework.name])


def _own(framework: Framework, python: str, say: Callable[[str], None]) -> tuple[str, ...]:
    """Run this project's tests of the adapter, which `make test` skips, and its program."""
    path = f"tests/adapters/test_{framework.name.replace('-', '_')}.py"
    say(f"{framework.name}: {path}")
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "--noconftest", *QUIET, path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    return () if done.returncode == 0 else (f"{path} failed:\n{done.stdout[-3000:]}",)


def _installed(framework: Framework, home: Path, say: Callable[[str], None]) -> str:
    """Return the interpreter of the framework's environment. Make it if it is not there."""
    python, wanted = home / "venv/bin/python", [framework.requirement, PYTEST, *framework.needs]
    mark = home / "installed.json"
    if not mark.exists() or json.loads(mark.read_text(encoding="utf-8")) != wanted:
        say(f"{framework.name}: installing {framework.requirement} into {home}")
        _call([sys.executable, "-m", "venv", str(home / "venv")])
        _call([str(python), "-m", "pip", "install", "--quiet", "--editable", str(ROOT), *wanted])
        mark.write_text(json.dumps(wanted), encoding="utf-8")
    return str(python)


def _source(framework: Framework, home: Path, python: str, say: Callable[[str], None]) -> Path:
    """Return the folder of the framework's source, with its tests. Fetch it if it is not there."""
    source = home / "source"
    if framework.repository and not source.exists():
        say(f"{framework.name}: fetching {framework.repository}")
        fetched = home / "fetched"
        shutil.rmtree(fetched, ignore_errors=True)
        _call(["git", "clone", "--quiet", framework.repository, str(fetched)])
        _call(["git", "-C", str(fetched), "checkout", "--quiet", framework.commit])
        fetched.rename(source)
    if not source.exists():
        say(f"{framework.name}: fetching its source distribution")
        options = ["--quiet", "--no-deps", "--no-binary", ":all:", "--dest", str(home)]
        _call([python, "-m", "pip", "download", *options, framework.requirement])
        [archive] = home.glob("*.tar.gz")
        unpacked = home / "unpacked"
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        [top] = unpacked.iterdir()
        top.rename(source)
    return source


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode != 0:
        raise Failed(
            f"{' '.join(command[:4])} ... failed. It needs a package index, and for some "
            f"tests git.\n{done.stderr[-2000:]}"
        )
    return done.stdout

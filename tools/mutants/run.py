"""Meets a mutant with the tests that reach it, in a copy of the checkout."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .mutant import Mutant
from .record import BY_TEXT, Test
from .statements import STATEMENT

CHECKOUT = Path(__file__).resolve().parents[2]
LIMIT_S = 20.0  # beside 12 times what a test takes: the machine may be busy with others
LIMIT_FACTOR = 12
STARTING_S = 30.0
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", ".benchmarks"
)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)(?: - (.*))?", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a mutant ended."""

    outcome: str
    """noticed, noticed by its plan, timed out, survived, or not reached."""
    test: str = ""
    message: str = ""
    tests_run: int = 0
    seconds: float = 0.0


def chosen(mutant: Mutant, tests: Iterable[Test], budget_s: float, tests_max: int) -> list[Test]:
    """Return the tests that meet a mutant, of those that reach it.

    First come those with the statement in their name, then those of the file that is named after
    the changed one, then those of files that share a word with it, then the fastest, and those
    about plans last. Where only the plan can change, it is the first and the last of these. A hint
    that names too few states is no hint any more, and leaves rows out. What no test is recorded to
    reach meets the tests of its package.
    """
    stem = "test_" + mutant.path.rpartition("/")[2].partition(".")[0]
    if mutant.where.startswith("view "):
        stem = "test_views"

    def is_named(test: Test) -> bool:
        return mutant.where in test.name

    def is_mirrored(test: Test) -> bool:
        return test.name.partition("::")[0].rpartition("/")[2].startswith(stem)

    words = set(stem.split("_")) - {"test"}

    def words_apart(test: Test) -> int:
        file = test.name.partition("::")[0].rpartition("/")[2].removesuffix(".py")
        return len(words - set(file.split("_")))

    def place(test: Test) -> tuple[bool, bool, int, float, str]:
        return (
            not is_named(test),
            not is_mirrored(test),
            words_apart(test),
            test.seconds,
            test.name,
        )

    reaching = [
        test for test in tests if test.reaches(mutant) or (mutant.run_by and is_mirrored(test))
    ]
    package = mutant.path.split("/")[1:-1]
    if not reaching and package and mutant.path.endswith(".py"):
        # Perhaps a child of a test reaches it. The records do not see children.
        folder = f"tests/{package[0]}/"
        reaching = [test for test in tests if test.name.startswith(folder)]
    if mutant.path == "schema.sql":
        reaching = [test for test in reaching if not test.name.startswith(BY_TEXT)]
    if mutant.is_about_plans:  # other tests see the same rows
        reaching = [
            test for test in reaching if test.is_about_plans or is_named(test) or is_mirrored(test)
        ]
    found: list[Test] = []
    spent = 0.0
    for test in sorted(reaching, key=place):
        if test.is_about_plans:
            continue
        spent += test.seconds
        if len(found) >= tests_max or (found and spent > budget_s):
            break
        found.append(test)
    return found + [test for test in reaching if test.is_about_plans]


class Tree:
    """A copy of the checkout in which one file at a time is changed.

    Python recompiles a file whose time has changed, so each change has a time of its own.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = root
        self.folder = folder
        self.times = itertools.count(1_000_000_000)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root, folder, ignore=NOT_COPIED)

    def text(self, path: str) -> str:
        """Return a file as it is in the checkout's copy, unchanged."""
        return (self.folder / path).read_text("utf-8")

    def put(self, path: str, text: str) -> None:
        """Write a file."""
        target = self.folder / path
        target.write_text(text, "utf-8")
        now = next(self.times)
        os.utime(target, (now, now))


class Runner:
    """A server of forks over a tree, and plain runs of pytest for what a fork cannot take over."""

    def __init__(self, tree: Tree, tests: Sequence[Test], log: Path, temp: str) -> None:
        self.tree = tree
        self.tests = {test.name: test for test in tests}
        self.log = log
        self.environment = os.environ | {
            "MUTANTS_TEMP": temp,
            "PYTEST_DEBUG_TEMPROOT": temp,
            # The copy's package, and the plugin, which a copy of a test need not have.
            "PYTHONPATH": os.pathsep.join([str(tree.folder), str(CHECKOUT)]),
        }
        self.limit_s = LIMIT_S
        self.proven: set[str] = set()
        self.unfit: set[str] = set()
        """Tests that fail without a mutant, when they run first."""
        self.server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        files = sorted({name.partition("::")[0] for name in self.tests})
        in_reading, in_writing = os.pipe()
        out_reading, out_writing = os.pipe()
        options = [
            "-q",
            "-s",
            "-p",
            "no:sessiondb",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-p",
            "no:benchmark",
        ]
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "pytest", *options, "-p", "tools.mutants.serve", *files],
                cwd=self.tree.folder,
                env=self.environment
                | {"MUTANTS_IN": str(in_reading), "MUTANTS_OUT": str(out_writing)},
                pass_fds=(in_reading, out_writing),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        os.close(in_reading)
        os.close(out_writing)
        self.requests = os.fdopen(in_writing, "w", encoding="utf-8")
        self.answers = os.fdopen(out_reading, "r", encoding="utf-8")
        self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        self.requests.close()
        self.answers.close()

    def _answer(self) -> dict[str, Any]:
        line = self.answers.readline()
        if not line:
            raise SystemExit(f"mutants: the process that forks has ended. See {self.log}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def meet(self, mutant: Mutant, tests: Sequence[Test]) -> Outcome:
        """Run tests against a mutant until one notices it.

        A test that notices is tried without the mutant, once. One that fails then is left out.
        """
        while True:
            usable = [test for test in tests if test.name not in self.unfit]
            if not usable:
                return Outcome("not reached")
            found = self._meet(mutant, usable)
            if not found.outcome.startswith("noticed") or self._is_fit(found.test):
                return found

    def _meet(self, mutant: Mutant, tests: Sequence[Test]) -> Outcome:
        before = self.tree.text(mutant.path)
        after = mutant.apply(before)
        self.tree.put(mutant.path, after)
        try:
            if mutant.alive:
                answer = self._ask(self._request(mutant, before, after), tests)
                if answer["end"] == "nothing changed":  # every test would pass, so none may tell
                    raise SystemExit(f"mutants: {mutant.key}: nothing changed: {answer['message']}")
                if answer["end"] != "unchangeable":
                    return self._outcome(mutant, answer, tests)
            return self._afresh(mutant, tests)
        finally:
            self.tree.put(mutant.path, before)

    def _request(self, mutant: Mutant, before: str, after: str) -> dict[str, Any]:
        if mutant.path.endswith(".py"):
            path = str(self.tree.folder / mutant.path)
            return {"python": path, "before": before, "after": after}
        if mutant.path == "schema.sql":
            return {"schema": True}  # it is read when a database is made
        wanted = mutant.where.partition(".")[2]
        found = next(match for match in STATEMENT.finditer(after) if match["name"] == wanted)
        return {"statements": {mutant.where: found["sql"].strip()}}

    def _ask(self, request: dict[str, Any], tests: Sequence[Test]) -> dict[str, Any]:
        listed = [
            {"name": test.name, "limit_s": self.limit_s + LIMIT_FACTOR * test.seconds}
            for test in tests
        ]
        self.requests.write(json.dumps(request | {"tests": listed}) + "\n")
        self.requests.flush()
        return self._answer()

    def _outcome(self, mutant: Mutant, answer: dict[str, Any], tests: Sequence[Test]) -> Outcome:
        running, seconds = int(answer["running"]), float(answer["seconds"])
        if answer["end"] == "survived":
            return Outcome("survived", tests_run=len(tests), seconds=seconds)
        test = tests[max(running, 0)]
        if answer["end"] == "timed out":
            return Outcome("timed out", test.name, "", running + 1, seconds)
        message = answer.get("message", "its process ended")
        return noticed(mutant, test, message, running + 1, seconds)

    def _afresh(self, mutant: Mutant, tests: Sequence[Test]) -> Outcome:
        """Run pytest anew: for a module's own body, which has run in the server before."""
        limit_s = STARTING_S + self.limit_s + LIMIT_FACTOR * sum(test.seconds for test in tests)
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:sessiondb",
            "--tb=line",
        ]
        try:
            run = subprocess.run(
                [*command, *(test.name for test in tests)],
                cwd=self.tree.folder,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome("timed out", tests_run=len(tests), seconds=limit_s)
        if run.returncode == 0:
            return Outcome("survived", tests_run=len(tests))
        found = FAILED.search(run.stdout)
        failed = self.tests.get(found[1]) if found else None
        message = (found and found[2]) or "it cannot be imported"
        return noticed(mutant, failed or tests[0], message, 0, 0.0)

    def _is_fit(self, name: str) -> bool:
        """Whether a test passes by itself, without a mutant."""
        if name not in self.proven:
            if self._ask({}, [self.tests[name]])["end"] == "survived":
                self.proven.add(name)
            else:
                self.unfit.add(name)
                print(f"left out, because it fails alone without a mutant: {name}", flush=True)
        return name in self.proven


def noticed(mutant: Mutant, test: Test, message: str, tests_run: int, seconds: float) -> Outcome:
    """Return the outcome of a test that failed."""
    plan = test.is_about_plans and not mutant.is_about_plans
    outcome = "noticed by its plan" if plan else "noticed"
    return Outcome(outcome, test.name, message, tests_run, seconds)

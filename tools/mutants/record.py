"""What each test reaches, recorded once and again when a file that it depends on has changed.

A record is a file for each file of tests, under `build/mutants/reach/`. It is renewed when the
tests have changed, or a source file that they reached. Without that (`--no-record`) the lines of
changed source files are unknown, and statements go by their names.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .mutant import Mutant
from .reach import digest

# Tests that notice a change by reading the text, or that are about something else.
NOT_ASKED = (
    "tests/proofs/",  # long courses: what they would notice, a test of the rule is to notice
    "tests/examples/",  # the reference gateway and the demo
    "tests/tools/",  # compare texts
    "tests/test_docs.py",
    "tests/test_layers.py",
    "tests/test_packaging.py",
    "tests/test_public_api.py",
    "tests/test_readme.py",
    "tests/test_sample.py",
)
BY_TEXT = ("tests/sqlite/test_schema.py::test_all_migrations_on_an_empty_file_give_exactly",)
BY_PLAN = (
    "tests/sqlite/test_plans.py",
    "tests/sqlite/test_view_plans.py",
    "tests/test_costs.py",
)
FILE_S_MAX = 1800


@dataclass
class Test:
    """What one test reaches, and how long it takes."""

    name: str
    seconds: float
    lines: dict[str, set[int]] = field(default_factory=dict)
    statements: set[str] = field(default_factory=set)
    relations: set[str] = field(default_factory=set)
    version: str = ""
    """A digest of its own file and of what that imports of the tests."""

    @property
    def is_about_plans(self) -> bool:
        """Whether it notices how SQLite finds the rows, not which."""
        return self.name.startswith(BY_PLAN)

    def reaches(self, mutant: Mutant) -> bool:
        """Whether a mutant's change is run by this test."""
        if mutant.path == "schema.sql":
            names = mutant.where.partition("index ")[2] or mutant.where.split()[-1]
            return not self.relations.isdisjoint(names.split(" of "))
        if mutant.path.endswith(".sql"):
            return mutant.where in self.statements
        first, last = mutant.run_by or mutant.lines
        return any(line in self.lines.get(mutant.path, ()) for line in range(first, last + 1))


def test_files(root: Path) -> Iterator[str]:
    """Yield the files of tests that are asked."""
    for path in sorted((root / "tests").rglob("test_*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(NOT_ASKED):
            yield name


def record(root: Path, folder: Path, python: str = sys.executable) -> None:
    """Bring the records up to date. It may be interrupted, and continues where it was."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in test_files(root):
        target = folder / (name.replace("/", ".") + ".json")
        if _is_current(root, name, target):
            continue
        begun = time.monotonic()
        _run(root, name, target, python)
        tests = json.loads(target.read_text("utf-8"))["tests"] if target.exists() else {}
        failed = [test for test, found in tests.items() if not found["passed"]]
        print(f"recorded {name}: {len(tests)} tests, {time.monotonic() - begun:.0f} s", flush=True)
        for test in failed:
            print(f"  left out, because it skips or fails without a mutant: {test}", flush=True)


def _run(root: Path, name: str, target: Path, python: str) -> None:
    # Not the plugin of sessiondb: it would be imported before the recording begins, and a tree of
    # a test has none.
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:sessiondb",
        "-m",
        "not slow",
        "-p",
        "tools.mutants.reach",
    ]
    new = target.with_suffix(".new")
    run = subprocess.run(
        [python, "-m", "pytest", *options, name],
        cwd=root,
        env=os.environ | {"MUTANTS_REACH": str(new)},
        timeout=FILE_S_MAX,
        capture_output=True,
        text=True,
        check=False,
    )
    if not new.exists():
        raise SystemExit(f"mutants: {name} cannot be recorded:\n{run.stdout}{run.stderr}")
    found = json.loads(new.read_text("utf-8"))
    found["digests"][name] = digest(root / name)
    new.write_text(json.dumps(found), "utf-8")
    new.rename(target)


def _is_current(root: Path, name: str, target: Path) -> bool:
    if not target.exists():
        return False
    digests: dict[str, str] = json.loads(target.read_text("utf-8"))["digests"]
    return digests.get(name) == digest(root / name) and all(
        digest(root / path) == known for path, known in digests.items()
    )


def recorded(root: Path, folder: Path) -> list[Test]:
    """Return the tests of all records, without those that fail."""
    found = []
    for name in test_files(root):
        target = folder / (name.replace("/", ".") + ".json")
        if target.exists():
            one: dict[str, Any] = json.loads(target.read_text("utf-8"))
            digests: dict[str, str] = one["digests"]
            same = {path for path, known in digests.items() if digest(root / path) == known}
            ours = sorted(part for part in digests.items() if part[0].startswith("tests/"))
            version = hashlib.sha256(json.dumps(ours).encode()).hexdigest()[:16]
            found += [
                _test(test, of, same, version) for test, of in one["tests"].items() if of["passed"]
            ]
    return found


def _test(name: str, one: dict[str, Any], same: set[str], version: str) -> Test:
    lines = {path: set(numbers) for path, numbers in one["lines"].items() if path in same}
    statements, relations = set(one["statements"]), set(one["relations"])
    return Test(name, one["seconds"], lines, statements, relations, version)

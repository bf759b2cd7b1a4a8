"""A pytest plugin that records what each test reaches: lines, named statements, relations.

Lines of `sessiondb/` come from coverage.py, a context for each test. Statements come from
SQLite's own trace, which sees every connection of this process, also one that a test opened
beside the engine. Children of tests are not seen.

Run by `record`: `python -m pytest -p tools.mutants.reach FILE`, in the checkout that is recorded.
The environment variable `MUTANTS_REACH` names the file that is written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import coverage
import pytest

from .statements import OBJECT, STATEMENT

WORD = re.compile(r"\w+")


class Recorder:
    """What the tests of one file reach."""

    def __init__(self, root: Path, target: Path) -> None:
        self.root = root
        self.target = target
        self.test = ""
        self.statements: defaultdict[str, set[str]] = defaultdict(set)
        self.relations: defaultdict[str, set[str]] = defaultdict(set)
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.known: dict[str, tuple[set[str], set[str]]] = {}
        self.names = statement_names(root)
        self.texts = {name: text for text, names in self.names.items() for name in names}
        self.objects = {
            match["name"] for match in OBJECT.finditer((root / "schema.sql").read_text("utf-8"))
        }
        self.coverage = coverage.Coverage(
            data_file=None, include=[str(root / "sessiondb" / "*")], config_file=False
        )

    def watch(self, connection: apsw.Connection) -> None:
        """Note each statement that a new connection runs."""
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, self.note, id=self)

    def note(self, event: dict[str, Any]) -> None:
        """Note a statement that begins."""
        self.note_text(event["sql"])

    def note_text(self, sql: str) -> None:
        """Note a statement by its text, and the relations that it names."""
        if sql not in self.known:
            words = set() if sql.startswith(("CREATE ", "--")) else set(WORD.findall(sql))
            self.known[sql] = self.names.get(sql.strip(), set()), self.objects & words
        names, relations = self.known[sql]
        self.statements[self.test] |= names
        self.relations[self.test] |= relations

    def write(self) -> None:
        """Write the file, with a digest of each file that was reached or imported."""
        data = self.coverage.get_data()
        lines: defaultdict[str, dict[str, list[int]]] = defaultdict(dict)
        reached = []
        for file in sorted(data.measured_files()):
            path = Path(file).relative_to(self.root).as_posix()
            reached.append(path)
            for line, tests in data.contexts_by_lineno(file).items():
                for test in tests:
                    lines[test].setdefault(path, []).append(line)
        found = {
            test: {
                "seconds": round(seconds, 3),
                "passed": test not in self.failed,
                "lines": lines[test],
                "statements": sorted(self.statements[test]),
                "relations": sorted(self.relations[test]),
            }
            for test, seconds in self.seconds.items()
        }
        digests = {path: digest(self.root / path) for path in [*reached, *self.modules_of_tests()]}
        self.target.write_text(json.dumps({"tests": found, "digests": digests}), "utf-8")

    def modules_of_tests(self) -> list[str]:
        """Return the files under `tests/` that are imported."""
        folder = self.root / "tests"
        files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
        paths = [Path(file) for file in files if file and Path(file).is_relative_to(folder)]
        return sorted(path.relative_to(self.root).as_posix() for path in paths)

    # -- pytest's hooks

    def pytest_sessionstart(self) -> None:
        """Begin with the imports: tests of a module's own body reach it."""
        apsw.connection_hooks.append(self.watch)
        self.coverage.start()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the second event loop: a rule does not know under which it runs."""
        items[:] = [item for item in items if not runs_under_trio(item)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Attribute to a test what happens in it, and in fixtures that it is the first to use."""
        self.test = item.nodeid
        self.coverage.switch_context(item.nodeid)
        for value in getattr(getattr(item, "callspec", None), "params", {}).values():
            # A test of plans runs EXPLAIN, which the trace does not see.
            if isinstance(value, str) and value in self.texts:
                self.note_text(self.texts[value])
            if isinstance(value, str) and value.partition(" ")[0] in self.objects:
                self.relations[item.nodeid].add(value.partition(" ")[0])
        begun = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] += time.perf_counter() - begun
        self.test = ""
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that fails, or does not run: it can notice nothing."""
        if not report.passed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """End."""
        self.coverage.stop()
        self.write()


def runs_under_trio(item: pytest.Item) -> bool:
    """Whether a test has a twin that runs under asyncio."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return parameters.get("anyio_backend") == "trio"


def statement_names(root: Path) -> dict[str, set[str]]:
    """Return the names of each named statement by its text. Some have the same."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for file in (root / "sessiondb" / "sqlite" / "queries").glob("*.sql"):
        for match in STATEMENT.finditer(file.read_text("utf-8")):
            found[match["sql"].strip()].add(f"{file.stem}.{match['name']}")
    return found


def digest(path: Path) -> str:
    """Return a digest of a file, or of none."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""


def pytest_configure(config: pytest.Config) -> None:
    """Register the recorder."""
    target = os.environ["MUTANTS_REACH"]
    config.pluginmanager.register(Recorder(config.rootpath, Path(target)))

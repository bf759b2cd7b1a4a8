"""A pytest plugin: a process that has imported and collected everything, and forks for each mutant.

It reads one request a line from the file descriptor `MUTANTS_IN` and answers on `MUTANTS_OUT`.
A request names the tests in the order in which they run, each with its time limit, and says what
the child changes in itself. The file on disk has been changed already, for children of tests.

A child is a session of its own, so that its processes die with it. It runs until its first test
fails, and leaves without any cleaning up.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import select
import shutil
import signal
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

import sessiondb


def pytest_configure(config: pytest.Config) -> None:
    """Register the server."""
    config.pluginmanager.register(
        Server(int(os.environ["MUTANTS_IN"]), int(os.environ["MUTANTS_OUT"]))
    )


class Server:
    """Takes the place of pytest's loop over the tests."""

    def __init__(self, requests: int, answers: int) -> None:
        self.requests = os.fdopen(requests, "r", encoding="utf-8")
        self.answers = os.fdopen(answers, "w", encoding="utf-8")
        self.failure = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the first failure's message."""
        if report.failed and not self.failure:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr)
            self.failure = " ".join(message.split())[:200] or "it failed"

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Serve until the requests end."""
        items = {item.nodeid: item for item in session.items}
        self.alive = Alive()
        self._answer({"collected": len(items)})
        for line in self.requests:
            request = json.loads(line)
            tests = [one for one in request["tests"] if one["name"] in items]
            self._answer(self._run(request, tests, items))
        return True

    def _answer(self, answer: dict[str, Any]) -> None:
        self.answers.write(json.dumps(answer) + "\n")
        self.answers.flush()

    def _run(
        self, request: dict[str, Any], tests: list[dict[str, Any]], items: dict[str, pytest.Item]
    ) -> dict[str, Any]:
        """Fork, and watch the child. Return how it ended."""
        folder = tempfile.mkdtemp(prefix="mutant-", dir=os.environ.get("MUTANTS_TEMP"))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            self._be_the_child(request, [items[one["name"]] for one in tests], folder, writing)
        os.close(writing)
        try:
            return watch(child, reading, [float(one["limit_s"]) for one in tests])
        finally:
            os.close(reading)
            shutil.rmtree(folder, ignore_errors=True)

    def _be_the_child(
        self, request: dict[str, Any], items: list[pytest.Item], folder: str, pipe: int
    ) -> None:
        """Run the tests. Never returns."""
        os.setsid()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = folder
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)

        def say(**what: Any) -> None:
            os.write(pipe, (json.dumps(what) + "\n").encode())

        try:
            self.alive.change(request)
        except Unchangeable as error:
            say(end="unchangeable", message=str(error))
            os._exit(0)
        except NothingChanged as error:
            say(end="nothing changed", message=str(error))
            os._exit(0)
        for number, item in enumerate(items):
            say(begin=number)
            following = items[number + 1] if number + 1 < len(items) else None
            try:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            except BaseException as error:  # noqa: BLE001  # e.g. pytest.exit: the test has noticed
                self.failure = f"{type(error).__name__}: {error}"[:200]
            if self.failure:
                say(end="noticed", test=item.nodeid, message=self.failure)
                os._exit(0)
        say(end="survived")
        os._exit(0)


def watch(child: int, pipe: int, limits: list[float]) -> dict[str, Any]:
    """Wait for a child's end. Kill it, and what it started, when a test takes too long."""
    begun, running, text = time.monotonic(), -1, b""
    deadline = begun + 60.0
    ended: dict[str, Any] = {"end": "died"}  # without a word: the mutant has killed it
    while True:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            ended = {"end": "timed out"}
            break
        more = os.read(pipe, 65536)
        if not more:
            break
        text += more
        *whole, text = text.split(b"\n")
        for line in whole:
            said = json.loads(line)
            if "begin" in said:
                running = said["begin"]
                deadline = time.monotonic() + limits[running]
            else:
                ended = said
        if "end" in ended and ended["end"] != "died":
            break
    kill_group(child)
    os.waitpid(child, 0)
    return ended | {"running": running, "seconds": round(time.monotonic() - begun, 2)}


def kill_group(child: int) -> None:
    """Kill a child and the processes of its session's first group."""
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has not begun its session yet, or has ended


class Unchangeable(Exception):
    """A living process cannot take this change over."""


class NothingChanged(Exception):
    """The process has no living object of a statement: its tests would ask the old one."""


MADE_ONCE = ("tests.support.world_build", "template")
"""What tests of statements share, and takes longer than they do: it is made before the forks.

The rules as they are make it, and the changed one is tried on it. A changed schema makes it anew.
"""


class Alive:
    """What a child changes in itself: the statements and functions of this process.

    They are looked for once, before the first fork. A child that walked over all objects would
    copy every page of memory.
    """

    def __init__(self) -> None:
        import_everything()
        self.shared = shared()
        self.statements: defaultdict[str, list[Any]] = defaultdict(list)
        self.functions: defaultdict[str, list[FunctionType]] = defaultdict(list)
        gc.unfreeze()  # tests/conftest.py has frozen them, and what is frozen is not found
        for one in gc.get_objects():
            if isinstance(one, FunctionType):
                self.functions[one.__code__.co_filename].append(one)
            elif type(one).__name__ in {"Prepared", "Statement"}:
                name = getattr(one, "name", None)
                if isinstance(name, str):
                    self.statements[name].append(one)
        gc.freeze()

    def change(self, request: dict[str, Any]) -> None:
        """Make this process what one that starts now would be.

        Raises:
            NothingChanged: a statement has no living object here.
            Unchangeable: a function cannot take its change over.
        """
        for name, text in request.get("statements", {}).items():
            # Of these a transaction takes the text.
            if not any(type(one).__name__ == "Prepared" for one in self.statements[name]):
                raise NothingChanged(f"the process that forks has no statement {name}")
            for one in self.statements[name]:
                object.__setattr__(one, "sql", text)
        if request.get("schema") and self.shared is not None:
            self.shared.cache_clear()
        if "python" in request:
            self.change_functions(request["python"], request["before"], request["after"])

    def change_functions(self, path: str, before: str, after: str) -> None:
        """Give each changed function of a module its code of now. The lines are as many."""
        changed = {
            old: new
            for old, new in zip(codes(path, before), codes(path, after), strict=True)
            if old != new
        }
        found = [one for one in self.functions[path] if one.__code__ in changed]
        if not found:
            raise Unchangeable("no function that was changed is alive")
        for one in found:
            try:
                one.__code__ = changed[one.__code__]
            except ValueError as error:  # it closes over other variables now
                raise Unchangeable(str(error)) from error


def shared() -> Any:
    """Return the function that makes what tests share, after its first call, or None."""
    module, name = MADE_ONCE
    if not Path(*module.split(".")).with_suffix(".py").exists():
        return None  # a checkout of a test
    function = getattr(importlib.import_module(module), name)
    function()
    return function


def import_everything() -> None:
    """Import every module of the package, also those that are imported when they are needed."""
    for module in pkgutil.walk_packages(sessiondb.__path__, "sessiondb."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError:
            if not module.name.startswith("sessiondb.adapters."):
                raise
            # Its framework is not installed here, so no test reaches it either.
    importlib.import_module("anyio._backends._asyncio")


def codes(path: str, text: str) -> list[CodeType]:
    """Return the code of a module, and of everything in it, in the order of the file."""
    found = [compile(text, path, "exec", dont_inherit=True)]
    for code in found:
        found += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return found

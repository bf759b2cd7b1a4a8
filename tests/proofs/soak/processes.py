"""The processes of a soak: gateways as the harness holds them, and commands of the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.support.engine import CHECKOUT

from .gateway import SoakSettings
from .plan import Plan

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONHASHSEED": "0"}
# A command that takes longer hangs. Nothing takes a tenth of that.
COMMAND_S_MAX = 600.0

Line = dict[str, Any]


class GatewayFailed(Exception):
    """A gateway ended that nobody had killed."""


class Member:
    """One gateway process, or the place where one was and will be."""

    def __init__(self, name: str, plan: Plan, on_line: Callable[[Member, Line], None]) -> None:
        self.name, self.plan, self.on_line = name, plan, on_line
        self.log = plan.folder / f"{name}.log"
        self.lives = 0
        self.is_ready = False
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._heard: dict[str, asyncio.Future[Line]] = {}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it, and wait until its loops run."""
        plan, self.lives = self.plan, self.lives + 1
        settings = SoakSettings(
            channel=str(plan.channel),
            seed=plan.seed * 1_000 + self.lives,
            name=self.name,
            model_s=plan.model_s,
            slow_s=plan.slow_s,
            summary_s=plan.summary_s,
            compact_at_tokens=plan.compact_at_tokens,
            lease_s=15.0,
            concurrency=8,
            retention_s=plan.retention_s,
            max_age_s=plan.max_age_s,
            idle_age_s=plan.idle_age_s,
            prune_age_s=plan.prune_age_s,
            pulse_s=plan.sample_s,
            wal_bytes_max=plan.wal_bytes_max,
            broken=list(plan.broken),
            policy={
                "breaker_unclean_starts": 1_000_000,
                "budget_per_start": 1_000_000,
                "max_concurrent_resumes": 4,
            },
        )
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.proofs.soak.gateway",
                str(plan.database),
                json.dumps(asdict(settings)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=CHECKOUT,
                env=ENVIRONMENT,
                limit=2**20,
            )
        ready = self.hear("ready")
        self._reading = asyncio.create_task(self._read(self._process))
        await ready
        self.is_ready = True

    def hear(self, saw: str) -> asyncio.Future[Line]:
        """Return what will hold the next line of that kind."""
        return self._heard.setdefault(saw, asyncio.get_running_loop().create_future())

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for raw in process.stdout:
            if not raw.endswith(b"\n"):
                break  # torn by a kill
            line = json.loads(raw)
            self.on_line(self, line)
            waiting = self._heard.pop(line["saw"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(line)
        self.is_ready = False
        code = await process.wait()
        for waiting in self._heard.values():
            if not waiting.done():
                waiting.set_exception(
                    GatewayFailed(f"{self.name} ended with {code}:\n{self.wrote()}")
                )
                waiting.exception()  # whoever waits sees it. Nobody may be waiting
        self._heard.clear()
        if code not in (0, -signal.SIGKILL):
            raise GatewayFailed(f"{self.name} ended with {code}:\n{self.wrote()}")

    def send(self, do: str, **fields: Any) -> bool:
        """Give a command. False if nobody is there to hear it."""
        if self._process is None or self._process.stdin is None or not self.is_ready:
            return False
        self._process.stdin.write((json.dumps({"do": do, **fields}) + "\n").encode())
        return True

    async def kill(self) -> None:
        """Kill -9, and read what it left in the pipe."""
        assert self._process is not None
        self.is_ready = False
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        await self.ended()

    async def stop(self) -> None:
        """Ask it to stop in good order, and wait."""
        assert self._process is not None
        assert self._process.stdin is not None
        self.is_ready = False
        self._process.stdin.close()
        await self.ended()

    async def ended(self) -> None:
        """Wait until it has ended.

        Raises:
            GatewayFailed: nobody had killed it, and it did not end well.
        """
        assert self._process is not None
        assert self._reading is not None
        reading, process = self._reading, self._process
        await reading
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await process.stdin.wait_closed()
        self._process = None

    @property
    def failure(self) -> BaseException | None:
        """Return why its reading ended, if that was a failure."""
        if self._reading is None or not self._reading.done() or self._reading.cancelled():
            return None
        return self._reading.exception()

    def wrote(self) -> str:
        return self.log.read_text("utf-8", errors="replace")[-700:] if self.log.exists() else ""


class Commands:
    """Processes of the command line.

    Their exit codes are counted, and those that nobody expects are told.
    """

    def __init__(self, plan: Plan, on_failure: Callable[[str, str], None]) -> None:
        self.plan, self.on_failure = plan, on_failure
        self.codes: Counter[str] = Counter()
        self.longest_s: dict[str, float] = {}

    async def begin(self, *arguments: str | Path) -> asyncio.subprocess.Process:
        """Start a command that goes on until it is killed."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sessiondb",
            *map(str, arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=CHECKOUT,
            env=ENVIRONMENT,
        )

    async def run(
        self,
        *arguments: str | Path,
        codes: tuple[int, ...] = (0,),
        kill_after_s: float | None = None,
    ) -> tuple[int, str]:
        """Run one.

        Return its exit code and what it printed. 5 is always allowed: busy, the same
        command can succeed later.
        """
        name = str(arguments[0])
        code, out, errors = await self.spawn(
            "-m", "sessiondb", *map(str, arguments), kill_after_s=kill_after_s, name=name
        )
        killed = kill_after_s is not None and code == -signal.SIGKILL
        if not killed and code not in (*codes, 5):
            self.on_failure(
                "command",
                (
                    f"sessiondb {' '.join(map(str, arguments))}: exit code "
                    f"{code}\n{out[-1_500:]}{errors[-1_500:]}"
                ),
            )
        return code, out

    async def spawn(
        self, *arguments: str, kill_after_s: float | None = None, name: str = ""
    ) -> tuple[int, str, str]:
        """Run a Python process. Kill it after so long."""
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=CHECKOUT,
            env=ENVIRONMENT,
        )
        try:
            out, errors = await self._finish(process, kill_after_s, arguments)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        if name:
            killed = process.returncode == -signal.SIGKILL
            self.codes[f"{name} {'killed' if killed else process.returncode}"] += 1
            self.longest_s[name] = max(self.longest_s.get(name, 0.0), time.monotonic() - began)
        return process.returncode, out.decode(errors="replace"), errors.decode(errors="replace")

    async def _finish(
        self,
        process: asyncio.subprocess.Process,
        kill_after_s: float | None,
        arguments: tuple[str, ...],
    ) -> tuple[bytes, bytes]:
        ending = asyncio.ensure_future(process.communicate())
        done, _ = await asyncio.wait([ending], timeout=kill_after_s or COMMAND_S_MAX)
        if not done:
            if kill_after_s is None:
                self.on_failure("command", f"{' '.join(arguments)} has run for {COMMAND_S_MAX:g} s")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        return await ending

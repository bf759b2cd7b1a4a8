"""The processes of a soak: gateways as the harness holds them, and commands of the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.engine import CHECKOUT

from .clock import EVERYWHERE
from .gateway import SoakSettings
from .plan import Plan

# A PID namespace, a mount namespace with a /proc of its own, and a host name of its own.
CONTAINER_COMMAND = ("unshare", "-rpfmu", "--kill-child", "--mount-proc")
NAMED = ("sh", "-c", 'hostname "$1"; shift; exec "$@"', "sh")


def environment(plan: Plan) -> dict[str, str]:
    """Return that of every process of a soak: this checkout, and the soak's wall clock."""
    path = os.pathsep.join((str(EVERYWHERE), str(CHECKOUT)))
    own = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "SOAK_CLOCK": str(plan.clock)}
    return {**os.environ, **own}


@cache
def no_containers() -> str:
    """Return why there are no containers on this machine. Empty: there are."""
    try:
        tried = subprocess.run(
            [*CONTAINER_COMMAND, *NAMED, "pod-0", "true"], capture_output=True, check=False
        )
    except FileNotFoundError:
        return "skipped: there is no `unshare` here"
    return "skipped: namespaces are not allowed here" if tried.returncode else ""


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
        self.pid: int | None = None
        self.dead_channel = False
        self.is_ready = False
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._heard: dict[str, asyncio.Future[Line]] = {}

    async def start(
        self, *, settles: bool = False, container: str = "", loop: str = "asyncio"
    ) -> None:
        """Start it, and wait until its loops run. One that `settles` makes no trouble.

        With `container` it has namespaces of its own, and this host name.
        """
        plan, self.lives = self.plan, self.lives + 1
        settings = SoakSettings(
            channel=str(plan.channel),
            seed=plan.seed * 1_000 + self.lives,
            name=self.name,
            loop=loop,
            parked_priority=plan.parked_priority,
            dead_channel=self.dead_channel,
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
            shares={} if settles else plan.shares,
            policy={
                "breaker_unclean_starts": 1_000_000,
                "budget_per_start": 1_000_000,
                "max_concurrent_resumes": 4,
            },
        )
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *((*CONTAINER_COMMAND, *NAMED, container) if container else ()),
                sys.executable,
                "-m",
                "tests.proofs.soak.gateway",
                str(plan.database),
                json.dumps(asdict(settings)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=CHECKOUT,
                env=environment(plan),
                limit=2**20,
            )
        ready = self.hear("ready")
        self._reading = asyncio.create_task(self._read(self._process))
        self._is_killed = False
        await ready
        self.pid = child_of(self._process.pid) if container else self._process.pid
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
        self.pid = None
        if code != 0 and not self._is_killed:
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
        self.is_ready, self._is_killed = False, True
        # `unshare` waits for the process in its namespace, so it ends after that one.
        pid = self.pid or child_of(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
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


def child_of(pid: int) -> int:
    """Return the child of a process, or the process itself if it has none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return pid
    return int(children[0]) if children else pid


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
            env=environment(self.plan),
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
            env=environment(self.plan),
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

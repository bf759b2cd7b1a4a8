"""A real OpenClaw: its package, its gateway in a home of its own, its client and its doctor."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests import ROOT

VERSIONS: Final = ("2026.7.1-2", "2026.9.6")
"""The last one of the JSONL era, and one of the SQLite era."""
NODE: Final = "24.16.0"
_MACHINE: Final = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
PACKAGES: Final = {
    **{version: f"openclaw@{version}" for version in VERSIONS},
    "node": f"node-{sys.platform}-{_MACHINE}@{NODE}",
}
"""What `make openclaw` installs, each in a folder of its own."""
INSTALLED: Final = ROOT / ".venv/.openclaw"
TOKEN: Final = "of-a-gateway-on-loopback"
CLIENT: Final = Path(__file__).with_name("client.mjs")
# A gateway on a busy machine has been seen to take two minutes to start.
PATIENCE_S: Final = 600


class Missing(Exception):
    """There is no such program on this machine. The message says how to get it."""


@dataclass(frozen=True)
class Program:
    """One version of OpenClaw."""

    version: str
    node: str
    package: Path

    @property
    def has_files(self) -> bool:
        """Whether it keeps its transcripts as files."""
        return self.version < "2026.7.2"

    def run(self, home: Home, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command of OpenClaw in a home, to its end."""
        return subprocess.run(
            self.command(*args),
            cwd=home.state,
            env=home.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
        )

    def command(self, *args: str) -> list[str]:
        """Return the command line of a command of OpenClaw."""
        return [self.node, str(self.package / "openclaw.mjs"), *args]


def find(version: str) -> Program:
    """Find a version of OpenClaw, and a node that runs it.

    Raises:
        Missing: one of them is not there.
    """
    folder = Path(os.environ.get("SESSIONDB_OPENCLAW", INSTALLED))
    package = folder / version / "node_modules/openclaw"
    nodes = [*(folder / "node/node_modules").glob("node-*/bin/node"), shutil.which("node") or ""]
    how = (
        f"`npm install --ignore-scripts openclaw@{version}` in the folder {version} of a folder "
        f"that SESSIONDB_OPENCLAW names, and have node {NODE}. `make openclaw` does both, "
        "in .venv/.openclaw"
    )
    if not (package / "openclaw.mjs").is_file():
        raise Missing(f"OpenClaw {version} is not installed (looked in {folder}). {how}")
    for node in map(str, nodes):
        if node and _version(node) >= _parsed(NODE):
            return Program(version, node, package)
    raise Missing(f"no node {NODE} or newer is on this machine. {how}")


def _version(node: str) -> tuple[int, ...]:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return _parsed(said.stdout)


def _parsed(text: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", text)[:3])


class Home:
    """A home of OpenClaw, with settings that let it call nothing but the scripted model."""

    def __init__(
        self,
        folder: Path,
        model_url: str,
        *,
        window: int = 200_000,
        compaction: str = "safeguard",
        plugins: Any = None,
    ) -> None:
        self.state = folder / "state"
        self.temporary = folder / "tmp"
        for made in (self.state, self.temporary, folder / "user"):
            made.mkdir(0o700, parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        model = {
            "id": "m",
            "name": "m",
            "contextWindow": window,
            "maxTokens": 8_192,
            "reasoning": False,
            "input": ["text"],
        }
        provider = {
            "baseUrl": model_url,
            "apiKey": "none",
            "api": "openai-completions",
            "models": [model],
        }
        settings = {
            "gateway": {
                "mode": "local",
                "bind": "loopback",
                "port": self.port,
                "auth": {"mode": "token", "token": TOKEN},
                "reload": {"mode": "off"},
            },
            "models": {"mode": "merge", "providers": {"scripted": provider}},
            "agents": {
                "defaults": {
                    "model": {"primary": "scripted/m"},
                    "workspace": str(folder / "workspace"),
                    "skipBootstrap": True,
                    "heartbeat": {"every": "0m"},
                    "compaction": {"mode": compaction, "keepRecentTokens": 300},
                }
            },
            # By itself OpenClaw 2026.7 begins anew at four in the morning.
            "session": {"reset": {"mode": "idle", "idleMinutes": 525_600}},
            "plugins": plugins or {"enabled": False},
            "discovery": {"mdns": {"mode": "off"}},
            "update": {"checkOnStart": False},
        }
        (self.state / "openclaw.json").touch(0o600)
        (self.state / "openclaw.json").write_text(json.dumps(settings, indent=2))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder / "user"),
            "TMPDIR": str(self.temporary),
            "TZ": "UTC",
            "NO_COLOR": "1",
            "OPENCLAW_STATE_DIR": str(self.state),
            "OPENCLAW_CONFIG_PATH": str(self.state / "openclaw.json"),
            "OPENCLAW_NO_RESPAWN": "1",
        }


class Gateway:
    """A gateway that runs, and its client."""

    def __init__(self, program: Program, home: Home, log: Path) -> None:
        self._program = program
        self._home = home
        self._log = log
        self._answers: dict[int, Future[Any]] = {}
        self._calls = 0
        self._lock = threading.Lock()
        self.process = self._start()
        try:
            self._client = self._connect()
        except BaseException:
            self._end()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        command = self._program.command("gateway", "run", "--port", str(self._home.port))
        ends = time.monotonic() + PATIENCE_S
        while True:
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    command,
                    cwd=self._home.state,
                    env=self._home.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            while process.poll() is None and not self._listens():
                time.sleep(0.5)
            if process.poll() is None:
                return process
            # On a busy machine OpenClaw 2026.9 misses its own time for starting.
            if time.monotonic() > ends:
                raise RuntimeError(f"the gateway does not start: {self.log[-2_000:]}")

    def _listens(self) -> bool:
        with socket.socket() as found:
            return found.connect_ex(("127.0.0.1", self._home.port)) == 0

    def _connect(self) -> subprocess.Popen[str]:
        url = f"ws://127.0.0.1:{self._home.port}"
        ends = time.monotonic() + PATIENCE_S
        command = [self._program.node, str(CLIENT), str(self._program.package), url, TOKEN]
        # The client keeps a device of its own, in a home that nobody migrates.
        aside = self._home.temporary / "client"
        environment = self._home.environment | {"OPENCLAW_STATE_DIR": str(aside)}
        while True:
            client = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert client.stdout is not None
            if client.stdout.readline():
                threading.Thread(target=self._read, args=(client,), daemon=True).start()
                return client
            client.wait()
            if self.process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"no client gets into the gateway: {self.log[-2_000:]}")

    def _read(self, client: subprocess.Popen[str]) -> None:
        assert client.stdout is not None
        for line in client.stdout:
            said = json.loads(line)
            waiting = self._answers.pop(said["id"])
            if "error" in said:
                waiting.set_exception(RuntimeError(said["error"]))
            else:
                waiting.set_result(said["ok"])

    @property
    def log(self) -> str:
        """All that the gateway has printed."""
        return self._log.read_text(errors="replace")

    def begin(self, method: str, *, accepts: bool = False, **params: Any) -> Future[Any]:
        """Call a method. The answer comes later: with `accepts` when a turn was accepted."""
        answer: Future[Any] = Future()
        with self._lock:
            self._calls += 1
            self._answers[self._calls] = answer
            call = {"id": self._calls, "method": method, "params": params, "accepts": accepts}
            assert self._client.stdin is not None
            self._client.stdin.write(json.dumps(call) + "\n")
            self._client.stdin.flush()
        return answer

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its answer.

        Raises:
            RuntimeError: the gateway refuses, or fails.
        """
        return self.begin(method, **params).result(PATIENCE_S)

    def stop(self) -> None:
        """Stop client and gateway, as an operator would."""
        self._client.kill()
        self._client.wait()
        self._end()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running(program: Program, home: Home, log: Path) -> Iterator[Gateway]:
    """Run a gateway in a home."""
    gateway = Gateway(program, home, log)
    try:
        yield gateway
    finally:
        gateway.stop()

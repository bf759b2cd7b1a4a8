"""A server of `sessiondb serve`, as a process of its own, for tests."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx


class Serving:
    """A running server and its socket. A context manager: it ends with SIGTERM."""

    def __init__(self, db: Path, *options: str) -> None:
        self.db = db
        # A path of a socket has about 100 characters at most, and pytest's folders are long.
        self.folder = Path(tempfile.mkdtemp(prefix="sdb-"))
        self.socket = self.folder / "http.sock"
        self.token_file = self.folder / "token"
        self.options = options
        self.process: subprocess.Popen[str] | None = None
        self.addresses: list[str] = []

    def start(self) -> Self:
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "sessiondb", "serve", str(self.db), "--json"),
                *("--socket", str(self.socket)),
                *self.options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"it did not start: {self.process.communicate()[1]}")
        self.addresses = json.loads(line)["addresses"]
        return self

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Stop it with a signal. Return its exit code, and what it said on standard error."""
        assert self.process is not None
        self.process.send_signal(number)
        said = self.process.communicate()[1]
        return self.process.returncode, said

    def kill(self) -> None:
        """End it as a crash would."""
        self.stop(signal.SIGKILL)

    def client(self, **extra: Any) -> httpx.Client:
        """Return a client of its socket."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)),
            base_url="http://sessiondb",
            timeout=120,
            **extra,
        )

    def tcp_client(self, **headers: str) -> httpx.Client:
        """Return a client of its port, with these headers and no token of its own."""
        [base] = [each for each in self.addresses if each.startswith("http:")]
        return httpx.Client(base_url=base, headers=headers, timeout=120)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

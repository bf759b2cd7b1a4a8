"""The reference gateway as a process that tests start, stop, kill and restart.

    with GatewayProcess(folder / "gateway.db", model_delay=0.05, summary_delay=1) as gateway:
        receipt = gateway.say("hello", conversation="alice")
        gateway.wait_for(lambda: gateway.answer_to(receipt["event_id"]))
        gateway.kill()
        gateway.start()

Keywords are the options of `python -m examples.gateway`, with `_` for `-`. `wait_for`
polls, so it is for conditions that stay true. One that is not true within `PATIENCE_S`
fails the test and shows the process's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import httpx
from websockets.sync.client import ClientConnection, connect

from tests import ROOT
from tests.support import warm

# No test waits this long unless it fails.
PATIENCE_S = 120.0
LOOK_AGAIN_S = 0.05

T = TypeVar("T")


class GatewayProcess:
    """A gateway, or the place where one was and will be."""

    def __init__(self, database: Path, **options: object) -> None:
        self.database, self.options = database, dict(options)
        self.log = database.with_suffix(".log")
        self.channel_log = database.with_suffix(".sent")
        self.lobby = "lobby"  # the conversation of calls that name none
        self.url = ""
        self.process: subprocess.Popen[str] | None = None
        self.http = httpx.Client(timeout=PATIENCE_S)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(f"the gateway wrote:\n{self.wrote()}")
        self.kill()
        self.http.close()

    # -- the process -------------------------------------------------------------------

    def start(self, **options: object) -> Self:
        """Start it on a free port and wait until it serves.

        `options` are added to those of the constructor.
        """
        assert self.process is None, "it is running"
        self.options.update(options)
        flags = {"port": 0, "channel_log": self.channel_log, **self.options}
        with self.log.open("a") as log:
            self.process = warm.Popen(
                [sys.executable, "-m", "examples.gateway", str(self.database)]
                + [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # the URL, or nothing when it ended
        if not line.startswith("gateway: http"):
            self.kill()
            raise AssertionError(f"the gateway did not start; it wrote:\n{line}{self.wrote()}")
        self.url = line.split()[1].rstrip("/")
        assert self.get("/health")["pid"] == self.process.pid
        return self

    def kill_at_start(self, step: str) -> bool:
        """Start it and kill it at its first call of a step. Return whether it came so far.

        Steps: `open`, `recover`, `resume` or `serve`.

        True if it came so far.

        Where in the step is a matter of chance: the process says that it begins, and
        goes on until it is dead.
        """
        assert self.process is None, "it is running"
        flags = {"port": 0, "channel_log": self.channel_log, **self.options}
        with self.log.open("a") as log:
            process = warm.Popen(
                [
                    sys.executable,
                    str(ROOT / "tests/support/starting_child.py"),
                    step,
                    str(self.database),
                ]
                + [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        begun = any(
            line.startswith("begins") for line in process.stdout
        )  # reads no further than that line
        process.kill()
        process.communicate(timeout=PATIENCE_S)
        return begun

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self.process is not None, "it is not running"
        return self.process.pid

    def signal(self) -> None:
        """Send it SIGTERM."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> str:
        """End it with SIGTERM, in good order. Return what it printed."""
        self.signal()
        assert self.process is not None
        out, _ = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, (
            f"exit code {self.process.returncode}; it wrote:\n{self.wrote()}"
        )
        self.process = None
        return out

    def kill(self) -> None:
        """End it with SIGKILL, whatever it is doing. May be repeated."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=PATIENCE_S)
            self.process = None

    def wrote(self) -> str:
        """Return the end of its log."""
        return self.log.read_text("utf-8")[-6_000:] if self.log.exists() else ""

    # -- calls -------------------------------------------------------------------------

    def get(self, path: str, **query: str) -> Any:
        """GET some JSON."""
        response = self.http.get(self.url + path, params=query)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
        return response.json()

    def post(self, text: str, **fields: str) -> httpx.Response:
        """POST a message, or a command. Return the response whatever it is."""
        known = {"conversation": self.lobby, "event_id": str(uuid.uuid4())}
        return self.http.post(self.url + "/messages", json={"text": text, **known, **fields})

    def say(self, text: str, **fields: str) -> dict[str, Any]:
        """POST a message that must be accepted. Return its receipt, with the event_id.

        Fields: conversation, agent, channel, event_id.
        """
        response = self.post(text, **fields)
        assert response.status_code == 202, f"{response.status_code} {response.text}"
        receipt: dict[str, Any] = response.json()
        return receipt

    def command(self, text: str, **fields: str) -> str:
        """POST a command such as /status. Return what the gateway says."""
        response = self.post(text, **fields)
        assert response.status_code == 200, f"{response.status_code} {response.text}"
        said: str = response.json()["text"]
        return said

    def said(self, conversation: str | None = None, **query: str) -> list[dict[str, Any]]:
        """Return a conversation's transcript: what, text, event_id, answers, at_ms, entry_id."""
        path = f"/conversations/{conversation or self.lobby}"
        said: list[dict[str, Any]] = self.get(path, **query)["said"]
        return said

    def answer_to(self, event_id: str, conversation: str | None = None, **query: str) -> str | None:
        """Return the answer to a message, if there is one by now."""
        said = self.said(conversation, **query)
        return next((item["text"] for item in said if item["answers"] == event_id), None)

    def status(self) -> dict[str, Any]:
        """Return what operators are told."""
        status: dict[str, Any] = self.get("/status")
        return status

    def held(self) -> list[dict[str, Any]]:
        """Return who holds what."""
        held: list[dict[str, Any]] = self.get("/held")
        return held

    def delivered(self) -> list[dict[str, Any]]:
        """Return the answers that the simulated channels were sent, in order.

        Fields: target, outbox_no, attempt, event_id, text.
        """
        return [line for line in self._sent() if "event_no" not in line]

    def noticed(self) -> list[dict[str, Any]]:
        """Return the notices that the simulated channels were sent, in order.

        Fields: target, outbox_no, attempt, event, event_no, text.
        """
        return [line for line in self._sent() if "event_no" in line]

    def _sent(self) -> list[dict[str, Any]]:
        if not self.channel_log.exists():
            return []
        return [json.loads(line) for line in self.channel_log.read_text("utf-8").splitlines()]

    def wait_for(self, condition: Callable[[], T]) -> T:
        """Look until a condition is true. Return what it returned."""
        give_up = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < give_up, (
                f"it did not happen in {PATIENCE_S:g} s; the gateway wrote:\n{self.wrote()}"
            )
            assert self.process is None or self.process.poll() is None, (
                f"the gateway ended; it wrote:\n{self.wrote()}"
            )
            time.sleep(LOOK_AGAIN_S)  # between two looks. Nothing depends on how long
        return found

    def ask(self, text: str, conversation: str | None = None, **fields: str) -> str:
        """Send a message and wait for the answer."""
        event_id = self.say(text, conversation=conversation or self.lobby, **fields)["event_id"]
        query = {name: fields[name] for name in ("agent", "channel") if name in fields}
        return self.wait_for(lambda: self.answer_to(event_id, conversation, **query) or "")

    @contextlib.contextmanager
    def page(self, conversation: str | None = None, **query: str) -> Iterator[Page]:
        """Open a WebSocket as the web page does. It has been greeted when it is yielded."""
        path = f"/ws/{conversation or self.lobby}"
        url = httpx.URL(self.url.replace("http", "ws", 1) + path, params=query)
        with connect(str(url), open_timeout=PATIENCE_S) as socket:
            yield Page(socket)


class Page:
    """An open WebSocket, and what it was told."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.notices: list[dict[str, Any]] = []
        self.hello = self.next("hello")

    def next(self, *kinds: str, **fields: object) -> dict[str, Any]:
        """Return the next notice of one of these kinds with these fields.

        What is skipped stays in `notices`.
        """
        while True:
            notice: dict[str, Any] = json.loads(self.socket.recv(timeout=PATIENCE_S))
            self.notices.append(notice)
            if _is(notice, kinds, fields):
                return notice

    def notified(self, *kinds: str, **fields: object) -> dict[str, Any]:
        """Likewise, or one that came already: what it stands beside comes by another way."""
        came = (notice for notice in self.notices if _is(notice, kinds, fields))
        return next(came, None) or self.next(*kinds, **fields)


def _is(notice: dict[str, Any], kinds: Collection[str], fields: Mapping[str, object]) -> bool:
    return notice["type"] in kinds and all(
        notice.get(name) == value for name, value in fields.items()
    )


Start = Callable[..., GatewayProcess]

LONG = (
    "something long enough to fill the context with, so that it has to be compacted before "
    "it can go on "
)


def fill(gateway: GatewayProcess, conversation: str | None = None, *, times: int = 4) -> None:
    """Fill a conversation, so that it has to be compacted."""
    for number in range(times):
        gateway.ask(f"{LONG} {number}", conversation)


async def until(condition: Callable[[], Any]) -> None:
    """Wait for a state that stays."""
    with anyio.fail_after(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what it looks at has no event
            await anyio.sleep(0.01)

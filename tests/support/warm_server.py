"""The process that warm children are forked from (`warm.py`). It imports, and does nothing else."""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any

REQUEST_BYTES_MAX = 1 << 20
NAMES = (
    "anyio._backends._asyncio",
    "anyio._backends._trio",
    "examples.gateway.gateway",
    "examples.gateway.web",
    "sessiondb.cli.program",
    "sessiondb.sqlite",
    "sessiondb.sync",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)
"""What the children use."""


def serve(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork a child for each request. Only a child returns, with its request and its streams."""
    while True:
        data, streams, _, _ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 3)
        if not data:
            os._exit(0)
        told, tell = os.pipe()
        held, release = os.pipe()
        middle = os.fork()
        if middle == 0:
            child = os.fork()
            if child == 0:
                for descriptor in (told, tell, release, requests.fileno()):
                    os.close(descriptor)
                os.read(held, 1)  # to its end: this process's parent is the one that asked
                os.close(held)
                return json.loads(data), streams
            os.write(tell, str(child).encode())
            os._exit(0)  # the child is an orphan now: the tests' process, which asked, gets it
        pid = os.read(told, 20)
        os.waitpid(middle, 0)
        for descriptor in (told, tell, held, release):
            os.close(descriptor)
        for stream in streams:
            os.close(stream)
        requests.send(pid)


def become(request: dict[str, Any], streams: list[int]) -> None:
    """Take the place of a new interpreter with these arguments."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in streams:
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["start_new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    _open_streams()
    what, *arguments = request["arguments"]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if what == "-m":
        sys.path[0] = request["cwd"]
        sys.argv = arguments
        runpy._run_module_as_main(arguments[0])  # type: ignore[attr-defined]  # what -m calls
        return
    if what == "-c":
        sys.path[0] = ""
        source, *arguments = arguments
        name = "<string>"
    else:
        sys.path[0] = str(Path(what).parent)
        source = Path(what).read_text("utf-8")
        main.__file__ = name = what
    sys.argv = [what, *arguments]
    exec(compile(source, name, "exec"), main.__dict__)


def _open_streams() -> None:
    """Make the three streams anew, because those of the server are of another kind of file."""
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(
        open(0, "rb", closefd=False),  # noqa: SIM115  # for the whole of its life
        sys.stdin.encoding,
        sys.stdin.errors,
    )
    for number, name in ((1, "stdout"), (2, "stderr")):
        server = getattr(sys, name)
        stream = io.TextIOWrapper(
            open(number, "wb", 0 if unbuffered else -1, closefd=False),  # noqa: SIM115
            server.encoding,
            server.errors,
            newline="\n",
            line_buffering=not unbuffered and (number == 2 or os.isatty(number)),
            write_through=unbuffered,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def import_all() -> None:
    """Import it, and make it cheap to share."""
    for name in NAMES:
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: its children hear it, too
    gc.collect()
    gc.freeze()  # pages that no child's collector writes to stay shared


if __name__ == "__main__":
    asked = socket.socket(fileno=int(sys.argv[1]))
    import_all()
    become(*serve(asked))

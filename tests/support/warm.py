"""Start Python children that have imported sessiondb already.

A new interpreter spends half a second of CPU on imports, and the tests start a thousand.
A warm child is forked from a process that has imported sessiondb and has done nothing else.
It is a process of its own, with its own streams, arguments and environment, and it is a
child of the tests' process. What it does not show is what an interpreter does before the
first line of a program. Tests about imports, start-up, memory, or an installed script use
`subprocess` itself. So does a child of this module where the system has no orphans to
adopt, and one with options that it does not know.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import inspect
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests import ROOT

SERVER = Path(__file__).with_name("warm_server.py")
# Since 3.12 Python warns about each fork of a process that has threads. Tests fork on purpose.
QUIET_FORKS = ("-W", "ignore:This process:DeprecationWarning")
PR_SET_CHILD_SUBREAPER = 36

_one_at_a_time = threading.Lock()


class Popen(subprocess.Popen[Any]):
    """A child as `subprocess.Popen` starts it, warm if it can be."""

    def _execute_child(self, *values: Any) -> None:
        start = super()._execute_child  # type: ignore[misc]
        how = inspect.signature(start).bind(*values).arguments
        arguments = _arguments(how)
        if arguments is None:
            start(*values)
            return
        streams = [
            number if stream == -1 else stream
            for number, stream in enumerate((how["p2cread"], how["c2pwrite"], how["errwrite"]))
        ]
        request = {
            "arguments": arguments,
            "cwd": os.fspath(how["cwd"] or Path.cwd()),
            "env": dict(os.environ if how["env"] is None else how["env"]),
            "start_new_session": bool(how["start_new_session"]),
        }
        self.pid = _ask(request, streams)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            *(how[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite")),
            *(how[name] for name in ("errread", "errwrite")),
        )


def run(
    command: Any, *, timeout: float | None = None, check: bool = False, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Run a child to its end, as `subprocess.run` does, warm if it can be."""
    written = options.pop("input", None)
    if written is not None:
        options["stdin"] = subprocess.PIPE
    if options.pop("capture_output", False):
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with Popen(command, **options) as child:
        try:
            out, errors = child.communicate(written, timeout=timeout)
        except BaseException:
            child.kill()
            raise
    done = subprocess.CompletedProcess(child.args, child.returncode, out, errors)
    if check:
        done.check_returncode()
    return done


def _arguments(how: dict[str, Any]) -> list[str] | None:
    """Return the arguments of a warm interpreter. None: this one must be started cold."""
    if isinstance(how["args"], str | bytes) or not _adopts_orphans():
        return None
    program, *arguments = [os.fspath(argument) for argument in how["args"]]
    if tuple(arguments[:2]) == QUIET_FORKS:
        arguments = arguments[2:]
    known = arguments and (arguments[0] in ("-m", "-c") or arguments[0].endswith(".py"))
    env = how["env"] if how["env"] is not None else os.environ
    plain = (
        program == sys.executable
        and how["executable"] in (None, program)
        and known
        and not any((how["preexec_fn"], how["pass_fds"], how["shell"]))
        and how.get("process_group", -1) == -1
        and _of_the_interpreter(env) == _server().variables
    )
    return arguments if plain else None


def _of_the_interpreter(env: Any) -> dict[str, str]:
    """Return the variables that an interpreter reads before the first line of a program.

    But for the two that a warm child follows, too.
    """
    return {
        name: value
        for name, value in env.items()
        if name.startswith(("PYTHON", "LC_", "LANG", "TZ", "LD_"))
        and name not in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
    }


@functools.cache
def _adopts_orphans() -> bool:
    # Coverage counts in children that it sees start, and in no fork of them.
    return sys.platform == "linux" and not any(name.startswith("COVERAGE") for name in os.environ)


def _ask(request: dict[str, Any], streams: list[int]) -> int:
    """Have a child forked that is this process's. Return its id."""
    with _one_at_a_time:
        # Only for this moment: other orphans of the tests are not this process's.
        _adopt_orphans(True)
        try:
            socket.send_fds(_server().requests, [json.dumps(request).encode()], streams)
            answer = _server().requests.recv(20)
        finally:
            _adopt_orphans(False)
    if not answer:
        raise RuntimeError("the process that warm children are forked from has ended")
    return int(answer)


def _adopt_orphans(yes: bool) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl refused to make this process a subreaper")


class _Server:
    """The process that children are forked from. It ends with this one."""

    def __init__(self) -> None:
        self.variables = _of_the_interpreter(os.environ)
        self.requests, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, *QUIET_FORKS, str(SERVER), str(its.fileno())],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=ROOT,
        )
        its.close()
        atexit.register(self._end)

    def _end(self) -> None:
        self.requests.close()
        self._process.wait()


_server = functools.cache(_Server)

"""Commands in this process or one of their own, and the database that their tests read."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
from pathlib import Path

from click.testing import CliRunner, Result

from sessiondb import sync
from sessiondb.cli import program
from sessiondb.cli.session_ids import session_named
from tests.support import warm

KEY = "agent:main:discord:channel:1"
TIMEOUT_S = 60
EVIL = "\x1b[31mred\x1b[0m \x07 \x9b2J \u202egnp.exe \x7f"


def run(*args: object, stdin: str | bytes = b"") -> Result:
    """Run a command. A traceback that escapes it fails the test."""
    result = CliRunner().invoke(program, [str(arg) for arg in args], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def ok(*args: object, stdin: str | bytes = b"") -> str:
    """Run a command that must succeed, and return its output."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(code: int, *args: object, stdin: str | bytes = b"") -> str:
    """Run a command that must fail, and return its one line of complaint."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("sessiondb: ")
    assert "Traceback" not in result.output
    return result.stderr.strip().splitlines()[-1]


def fill(path: Path) -> None:
    """Make a database with a compacted, an ended and a hostile conversation."""
    with sync.open(path) as opened:
        session = opened.session(KEY)
        for number in range(12):
            session.append({"role": "user", "content": f"question {number} " * 20})
            session.append(
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": f"answer {number} " * 20}],
                }
            )
        with session.compact(keep_recent_tokens=300) as job:
            job.commit("they asked and were answered")
        session.append({"role": "user", "content": "and now?"})
        ended = opened.create_session("ended-one")
        ended.append({"role": "user", "content": "bye"})
        ended.end()
        evil = opened.session("agent:main:evil")
        evil.append({"role": "user", "content": EVIL})
        call = {"type": "toolCall", "id": "1", "name": "bash", "arguments": {"command": "seq 100"}}
        evil.append(
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "hm"}, call],
                "model": "m-1",
            }
        )
        lines = "\n".join(f"line {number}" for number in range(100))
        evil.append(
            {
                "role": "toolResult",
                "toolCallId": "1",
                "toolName": "bash",
                "content": [{"type": "text", "text": lines}],
            }
        )


def session_id(db: Path, key: str = KEY) -> str:
    """Return the id of the session of a key."""
    with sync.open(db, readonly=True) as opened:
        return session_named(opened, key).id


def command(*args: object) -> list[str]:
    """Return the command line of a process of its own."""
    return [sys.executable, "-m", "sessiondb", *(str(arg) for arg in args)]


def on_terminal(*args: object, columns: int = 80) -> tuple[str, int]:
    """Run a command on a terminal of its own. Return the terminal's text and the exit code."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
    }
    process = warm.Popen(
        command(*args), stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    got = bytearray()
    while True:
        try:
            data = os.read(leader, 65536)
        except OSError:  # Linux: the last descriptor of the terminal's other end is closed
            break
        if not data:
            break
        got += data
    os.close(leader)
    return got.decode().replace("\r\n", "\n"), process.wait(TIMEOUT_S)

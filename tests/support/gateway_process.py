"""A child gateway that tests kill, and the checks of its database."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sessiondb.gateway.retry import SLEEP_S_MAX
from tests.support import warm
from tests.support.core import query
from tests.support.engine import CHECKOUT
from tests.support.gateway_child import Settings

# No wait lasts this long unless the test fails. It turns a deadlock into a failure.
PATIENCE_S = 60.0

Line = dict[str, Any]


class Gateway:
    """A child gateway.

    Every line it wrote is read, also what was in the pipe when it was killed.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.lines: list[Line] = []
        self._queue: queue.Queue[Line | None] = queue.Queue()
        self._over = False
        self._child = warm.Popen(
            [
                sys.executable,
                str(CHECKOUT / "tests/support/gateway_child.py"),
                str(path),
                json.dumps(asdict(settings)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        )
        self.pid = self._child.pid
        self.errors = b""
        self._readers = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.endswith(b"\n"):  # the last one may be torn
                self._queue.put(json.loads(line))
        self._queue.put(None)

    def _read_errors(self) -> None:
        assert self._child.stderr is not None
        self.errors = self._child.stderr.read()

    def send(self, do: str, **fields: Any) -> None:
        """Give a command. One that is dead does not hear it."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write((json.dumps({"do": do, **fields}) + "\n").encode())
            self._child.stdin.flush()
        except BrokenPipeError:
            return  # whoever speaks learns of the death from `next`

    def accept(self, event_id: str, talk: str, text: str) -> None:
        self.send("accept", id=event_id, talk=talk, text=text)

    def next(self) -> Line | None:
        """Return the next line. None once the process has ended."""
        if self._over:
            return None
        try:
            line = self._queue.get(timeout=PATIENCE_S)
        except queue.Empty:
            self.kill()
            message = f"the gateway said nothing for {PATIENCE_S:g} s; its last: {self.lines[-5:]}"
            raise AssertionError(f"{message}\n{self.errors.decode()}") from None
        self._heard(line)
        return line

    def _heard(self, line: Line | None) -> None:
        if line is None:
            self._over = True
        else:
            self.lines.append(line)

    def until(self, saw: str, where: Callable[[Line], bool] = lambda line: True) -> Line:
        """Read on to a line of that kind."""
        while (line := self.next()) is not None:
            if line["saw"] == saw and where(line):
                return line
        raise AssertionError(f"the gateway ended before it said {saw!r}:\n{self.errors.decode()}")

    def saw(self, what: str) -> list[Line]:
        """Return the lines of that kind so far."""
        return [line for line in self.lines if line["saw"] == what]

    def kill(self) -> None:
        """Kill -9, and read what it left in the pipe."""
        self._child.send_signal(signal.SIGKILL)
        self._ended()

    def suspend(self) -> None:
        """Stop the process as a debugger or a closed lid does. On return it has stopped."""
        self._child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on where it was."""
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._ended()
        assert self._child.returncode == 0, self.errors.decode()

    def _ended(self) -> None:
        while not self._over:
            self._heard(self._queue.get(timeout=PATIENCE_S))
        self._child.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for pipe in (self._child.stdin, self._child.stdout, self._child.stderr):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # a command that it never read


def delivered(channel: Path) -> list[Line]:
    """Read what the channel has received, in order. A torn last line was not delivered."""
    if not channel.exists():
        return []
    return [json.loads(line) for line in channel.read_bytes().split(b"\n")[:-1]]


# Turns that completed with an answer and have no reply. Or behind whose message stand
# fewer entries of the assistant than turns of the session have completed since. (Not by
# time: the courses in which clocks jump have their times put in order before they are
# judged.)
WITHOUT_ANSWER = """
WITH answered AS (
  SELECT t.turn_no, t.session_no, i.entry_no FROM turn AS t
    JOIN inbox AS i ON i.inbox_no = t.inbox_no
  WHERE t.state = 'completed' AND NOT t.incomplete
)
SELECT a.turn_no FROM answered AS a
WHERE NOT EXISTS (SELECT 1 FROM outbox AS o
                  WHERE o.turn_no = a.turn_no AND o.session_no = a.session_no)
   OR (SELECT count(*) FROM answered AS later
       WHERE later.session_no = a.session_no AND later.turn_no >= a.turn_no)
    > (SELECT count(*) FROM entry AS e
       WHERE e.entry_no > a.entry_no AND e.entry_no <= (a.session_no << 32) + 4294967295
         AND e.role = 'assistant')"""


# A lane's loop looks at least this often. The rest is for a machine that is busy with
# other tests.
TAKE_OVER_MS = round(SLEEP_S_MAX * 1000) + 10_000


def check_leases(path: Path) -> None:
    """Check that no turn was held for longer than its lease allows.

    Taking over may take a while in addition.

    Where a process was there all the while to take over. Where one is killed after the
    other, nothing is held once one is ready.
    """
    outlived = query(
        path,
        (
            "SELECT turn_no, finished_at_ms - expires_at_ms FROM turn WHERE finished_at_ms > "
            "expires_at_ms + ?"
        ),
        TAKE_OVER_MS,
    )
    assert outlived == [], f"held after their leases had run out, ms: {outlived}"


def check_promises(
    path: Path,
    channel: Path,
    sent: dict[str, list[str]],
    acknowledged: set[str],
    *,
    key: str = "agent:main:fake:channel:{}",
) -> Counter[str]:
    """Check a closed database against what its clients remember.

    Return what happened, counted.

    `sent` has the texts of each conversation (whose key is `key`) in the order in which
    they were sent. `acknowledged` are event ids.
    """
    inbox = query(path, "SELECT event_id, state, inbox_no FROM inbox")
    states = {event_id: state for event_id, state, _ in inbox}
    assert acknowledged <= states.keys(), (
        f"acknowledged and not in the inbox: {sorted(acknowledged - states.keys())}"
    )
    assert set(states.values()) <= {"done", "dead"}, (
        f"not settled: {[row for row in inbox if row[1] not in ('done', 'dead')]}"
    )

    # Exactly once, and in order: what people wrote, as the transcripts have it. A message
    # that was buried when its turn began anew was appended again, under its turn's key.
    for talk, texts in sent.items():
        report = query(
            path,
            """SELECT json_extract(e.payload, '$.message.content') FROM entry AS e
               JOIN binding AS b ON b.session_no = e.entry_no >> 32
               WHERE b.session_key = ? AND e.role = 'user'
                 AND ifnull(e.idempotency_key, '') NOT GLOB 'inbox:*:*' ORDER BY e.entry_no""",
            key.format(talk),
        )
        assert report == texts, (
            f"conversation {talk}: the transcript has {report}, sent was {texts}"
        )

    # One claim at a time, one completion at most, one reply at most for each message.
    twice = query(
        path,
        (
            "SELECT inbox_no, count(*) FROM turn WHERE state = 'completed' GROUP BY inbox_no "
            "HAVING count(*) > 1"
        ),
    )
    assert twice == [], f"completed twice: {twice}"
    overlapping = query(
        path,
        """SELECT a.turn_no, b.turn_no FROM turn AS a JOIN turn AS b ON b.session_no = a.session_no
           AND b.turn_no > a.turn_no
           WHERE b.started_at_ms < a.finished_at_ms""",
    )
    assert overlapping == [], f"turns of one session overlap: {overlapping}"
    # What was answered has its answer: in the transcript, and in the outbox, both with
    # the end of the turn.
    unanswered = query(path, WITHOUT_ANSWER)
    assert unanswered == [], f"turns completed, without its entry or its reply: {unanswered}"
    # Nothing outlives its owner: every turn, job and reply of a process that died has
    # been given back.
    held = query(path, "SELECT what, number, owner FROM held")
    assert held == [], f"still held: {held}"

    # The channel's own ledger against the outbox.
    outbox = dict(query(path, "SELECT outbox_no, state FROM outbox"))
    times = Counter(line["outbox_no"] for line in delivered(channel))
    assert [no for no, count in times.items() if count > 1] == [], "delivered twice"
    assert set(times) <= outbox.keys()
    assert set(outbox.values()) <= {"sent", "unknown"}, "a reply is not settled"
    invented = [no for no, state in outbox.items() if state == "sent" and no not in times]
    assert invented == [], f"sent, say the rows; the channel has not got them: {invented}"
    # A reply that was lost track of holds back none, and its sender may wake up late.
    lost = query(
        path, "SELECT json_extract(data, '$.outbox_no') FROM event WHERE kind = 'reply_unknown'"
    )
    order: dict[str, int] = {}
    late = 0
    for line in delivered(channel):
        target, number = line["target"], line["outbox_no"]
        if order.get(target, 0) > number:
            assert number in lost, "replies of one session were delivered out of order"
            late += 1
            continue
        order[target] = number

    counted: Counter[str] = Counter()
    counted["messages"] = len(inbox)
    counted["notices"] = query(path, "SELECT count(*) FROM outbox WHERE turn_no IS NULL")[0]
    counted["dead"] = sum(state == "dead" for state in states.values())
    counted["replies late"] = late
    counted["replies unknown"] = sum(state == "unknown" for state in outbox.values())
    counted["unknown, and delivered"] = sum(
        state == "unknown" and no in times for no, state in outbox.items()
    )
    counted["replies sent"] = sum(state == "sent" for state in outbox.values())
    for state, count in query(path, "SELECT 'turns ' || state, count(*) FROM turn GROUP BY 1"):
        counted[state] = count
    for state, count in query(
        path, "SELECT 'compactions ' || state, count(*) FROM compaction GROUP BY 1"
    ):
        counted[state] = count
    counted["resumes"] = query(path, "SELECT count(*) FROM turn WHERE kind = 'resume'")[0]
    return counted

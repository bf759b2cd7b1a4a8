"""`make openclaw-plugin`: the plugin in a real OpenClaw, beside OpenClaw's own engine.

A summary takes 20 s. What people wait for meanwhile is measured with either engine, in one run, by
one scripted model. Then the server is killed while a summary is written, and the conversation is
reset. The exit code is 1 if a context is not what it must be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests import ROOT
from tests.support.serving import Serving

from .course import say
from .model import Model, serve
from .program import PATIENCE_S, VERSIONS, Gateway, Home, Missing, Program, find, running

VERSION: Final = VERSIONS[-1]
PLUGIN: Final = ROOT / "clients/openclaw"
WINDOW: Final = 64_000
LARGE: Final = " and more" * 1_000
"""What is pasted into a question, some 2,000 tokens: an automatic summary is due after some."""
LARGE_MAX: Final = 60
"""So many of them are pasted until one is due."""
TALK, BUSY, AWAY, RESET = (f"agent:main:{name}" for name in ("manual", "auto", "away", "reset"))
LONG = ("agent:main:long", "agent:main:long-alone")
Table = dict[str, str]


@dataclass
class Course:
    """One gateway with one engine, and what was seen."""

    gateway: Gateway
    model: Model
    is_ours: bool
    seen: Table = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def ask(self, key: str, more: str = "") -> Asked:
        """Ask a question, and do not wait."""
        self.model.questions += 1
        mark = f"q{self.model.questions:04}"
        return Asked(self.gateway, key, mark, f"{mark} is the question{more}")

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note what is wrong."""
        if found != wanted:
            self.wrong.append(f"{what}: {found}, and it must be {wanted}")


class Asked:
    """A question: when it was accepted, and when it was answered."""

    def __init__(self, gateway: Gateway, key: str, mark: str, text: str) -> None:
        self.mark = mark
        self._began = time.monotonic()
        call = {"sessionKey": key, "message": text, "idempotencyKey": mark}
        self._accepted: Future[Any] = gateway.begin("agent", accepts=True, **call)
        self._pool = ThreadPoolExecutor(1)
        self._times = self._pool.submit(self._wait, gateway)

    def _wait(self, gateway: Gateway) -> tuple[float, float]:
        run = self._accepted.result(PATIENCE_S)
        accepted_s = time.monotonic() - self._began
        while True:
            ended = gateway.call("agent.wait", runId=run["runId"], timeoutMs=120_000)
            if ended["status"] not in ("pending", "timeout"):
                break
        assert ended["status"] == "ok", ended
        return accepted_s, time.monotonic() - self._began

    def times(self) -> tuple[float, float]:
        """Wait for its answer. Return the seconds until it was accepted, and answered."""
        found = self._times.result(PATIENCE_S)
        self._pool.shutdown()
        return found


def _shown(*seconds: float) -> str:
    return " / ".join(f"{one:.1f}" if one >= 1 else f"{one:.2f}" for one in seconds)


def manual(course: Course) -> None:
    """Compact by hand, and write at once into the same conversation, and into another one."""
    model = course.model
    for _ in range(4):
        course.ask(TALK).times()
    before = model.summaries
    began, compacting = _compact(course, TALK)
    asked, other = course.ask(TALK), course.ask(BUSY)
    compacting.result(PATIENCE_S)
    course.seen["manual: the command returns"] = _shown(time.monotonic() - began)
    course.seen["manual: the same conversation, accepted / answered"] = _shown(*asked.times())
    course.seen["manual: another conversation, answered"] = _shown(other.times()[1])
    _until_summarised(course, TALK)
    course.seen["manual: summaries paid"] = str(model.summaries - before)


def _compact(course: Course, key: str) -> tuple[float, Future[Any]]:
    """Compact by hand, and wait until the summary is asked for. Return when the command began.

    A turn that has been answered goes on for a moment, and the command is refused meanwhile.
    """
    course.model.asked_for_summary.clear()
    while True:
        began = time.monotonic()
        compacting = course.gateway.begin("sessions.compact", key=key)
        while not course.model.asked_for_summary.wait(0.1):
            if compacting.done() and compacting.exception() is not None:
                break
            if time.monotonic() - began > PATIENCE_S / 10:
                raise RuntimeError(f"no summary was asked for: {compacting}")
        else:
            return began, compacting
        if "active run" not in str(compacting.exception()):
            compacting.result()
        time.sleep(0.2)


def automatic(course: Course) -> None:
    """Paste large texts until a summary is due, and write on at once."""
    model = course.model
    before = model.summaries
    model.asked_for_summary.clear()
    for _ in range(LARGE_MAX):
        times = course.ask(BUSY, LARGE).times()
        if model.asked_for_summary.wait(1):
            break
    else:
        course.wrong.append(f"no summary was due after {LARGE_MAX} large texts")
    course.seen["automatic: the turn that triggers it, answered"] = _shown(times[1])
    course.seen["automatic: the next one, accepted / answered"] = _shown(*course.ask(BUSY).times())
    _until_summarised(course, BUSY)
    course.seen["automatic: summaries paid"] = str(model.summaries - before)


def _until_summarised(course: Course, key: str) -> None:
    """Ask until the model is sent a summary. OpenClaw's own repeats some messages within it."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        asked = course.ask(key)
        asked.times()
        sent = course.model.sent[asked.mark]
        summaries = [mark for mark in sent if mark.startswith("s")]
        if summaries:
            if course.is_ours:
                found = list(dict.fromkeys(summaries))  # one says its mark twice
                course.expect(f"{key}: summaries in its context", found, sent[:1])
            return
        time.sleep(2)
    course.wrong.append(f"{key}: no summary was used within {PATIENCE_S} s")


def killed(course: Course, server: Serving) -> None:
    """Kill the server while a summary is written. It is away for two turns, and then back."""
    for _ in range(4):
        course.ask(AWAY).times()
    before = course.model.summaries
    _compact(course, AWAY)
    server.kill()
    answered = [course.ask(AWAY).times()[1] for _ in range(2)]
    course.seen["the server is killed in a summary: two turns, answered"] = _shown(*answered)
    time.sleep(course.model.summary_s)
    server.start()
    _until_summarised(course, AWAY)
    course.seen["the server is killed in a summary: summaries paid"] = str(
        course.model.summaries - before
    )


def refused(course: Course, server: Serving) -> None:
    """Have the model refuse a context as too long: with a server, and without one."""
    for name, is_away in (("", False), (", the server is away", True)):
        for _ in range(4):
            course.ask(LONG[is_away]).times()
        if is_away:
            server.kill()
        course.model.refuses = True
        asked = course.ask(LONG[is_away])
        row = f"the model refuses a context as too long{name}: the turn, answered"
        course.seen[row] = _shown(asked.times()[1])
        if is_away:
            server.start()
        marks = [mark for mark in course.model.sent[asked.mark] if mark.startswith("s")]
        if not marks:
            course.wrong.append(f"{row}: it was sent no summary")


def was_reset(course: Course) -> None:
    """Reset a conversation that has a summary. The model is told nothing of before."""
    for _ in range(4):
        course.ask(RESET).times()
    _compact(course, RESET)
    _until_summarised(course, RESET)
    course.gateway.call("sessions.reset", key=RESET)
    asked = course.ask(RESET)
    asked.times()
    course.expect("after a reset the model was sent", course.model.sent[asked.mark], [asked.mark])


@contextmanager
def _gateway(program: Program, folder: Path, model: Model, plugins: Any) -> Iterator[Course]:
    folder.mkdir()
    # Its safeguard refuses the summaries of a scripted model, and the turn with them.
    home = Home(folder, model.url, window=WINDOW, compaction="default", plugins=plugins)
    with running(program, home, folder / "log") as gateway:
        yield Course(gateway, model, is_ours=plugins is not None)


def _plugin(server: Serving) -> dict[str, Any]:
    config = {"socketPath": str(server.socket), "keepRecentTokens": 300}
    return {
        "enabled": True,
        "load": {"paths": [str(PLUGIN)]},
        "slots": {"contextEngine": "sessiondb"},
        "entries": {"sessiondb": {"enabled": True, "config": config}},
    }


def main() -> int:
    """Measure, print the table, and return the exit code."""
    parser = argparse.ArgumentParser(prog="openclaw-plugin", description=__doc__)
    parser.add_argument("--summary-s", type=float, default=20.0)
    asked = parser.parse_args()
    try:
        program = find(VERSION)
    except Missing as why:
        say(f"SKIPPED: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="sessiondb-claw-") as name, serve() as model:
        folder = Path(name)
        model.summary_s, model.counts = asked.summary_s, True
        say(f"OpenClaw {VERSION}, its own engine")
        with _gateway(program, folder / "own", model, None) as own:
            manual(own)
            automatic(own)
        say("the plugin")
        with Serving(folder / "gateway.db") as server:
            with _gateway(program, folder / "plugin", model, _plugin(server)) as ours:
                manual(ours)
                automatic(ours)
                killed(ours, server)
                refused(ours, server)
                was_reset(ours)
                if 'engine "sessiondb"' in ours.gateway.log and "quarantin" in ours.gateway.log:
                    ours.wrong.append("OpenClaw has quarantined the plugin")
    _print(f"seconds; a summary takes {asked.summary_s:g} s", "OpenClaw's own", "the plugin")
    for row in ours.seen:
        _print(row, own.seen.get(row, "-"), ours.seen[row])
    for sentence in (*own.wrong, *ours.wrong):
        say(f"WRONG: {sentence}")
    return 1 if own.wrong or ours.wrong else 0


def _print(*cells: str) -> None:
    sys.stdout.write("| " + " | ".join(cells) + " |\n")


if __name__ == "__main__":
    sys.exit(main())

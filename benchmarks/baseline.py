"""Measure the rows of docs/baseline.md on the reference gateway.

OpenClaw's gateway was measured the same way.

    python benchmarks/baseline.py [--summary 20] [--outlast 70]

Each row is one trial on a real process on loopback with a scripted model, as theirs
were: seconds are solid, milliseconds indicative. Nothing is asserted. A cell that did
not happen says so. Takes about three minutes, most of it waiting for summaries.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import sessiondb
from tests.support import interrupted_sessions, reference_gateway
from tests.support.core import query
from tests.support.reference_gateway import GatewayProcess, Page

# The tests' patience is shorter than some summaries here.
reference_gateway.PATIENCE_S = 180.0

MODEL_S = 0.3
LONG = (
    "We talked about the boiler, the garden fence, who feeds the cat in August, and what the "
    "plumber said about all of it. "
)
MANUAL: dict[str, object] = {"model_delay": MODEL_S, "threshold": 1_000_000, "keep": 50}


def shown(seconds: float) -> str:
    """Show a time as the table does."""
    return (
        f"{seconds:,.1f} s"
        if seconds >= 1
        else f"{seconds * 1000:,.1f} ms"
        if seconds < 0.01
        else f"{seconds * 1000:,.0f} ms"
    )


def row(what: str, cell: str) -> None:
    sys.stdout.write(f"| {what} | {cell} |\n")
    sys.stdout.flush()


def fill(gateway: GatewayProcess, conversation: str) -> None:
    for number in range(6):
        gateway.ask(f"{LONG} ({number})", conversation)


def timed(
    gateway: GatewayProcess, page: Page, conversation: str, text: str
) -> tuple[float, float, int]:
    """Say something.

    Return when it was accepted and answered, counted from the moment of saying it, and
    its number.
    """
    begun = perf_counter()
    receipt = gateway.say(text, conversation=conversation)
    accepted = perf_counter() - begun
    page.next("reply", event_id=receipt["event_id"])
    return accepted, perf_counter() - begun, receipt["inbox_no"]


def while_a_manual_compaction_runs(folder: Path, summary_s: float) -> None:
    with GatewayProcess(folder / "manual.db", summary_delay=summary_s, **MANUAL) as gateway:
        fill(gateway, "alice")
        with gateway.page("alice") as alice, gateway.page("bob") as bob:
            idle = timed(gateway, bob, "bob", "hello")
            begun = perf_counter()
            gateway.command("/compact", conversation="alice")
            alice.next("compacting")
            same = timed(gateway, alice, "alice", "during")
            other = timed(gateway, bob, "bob", "during")
            outcome = alice.next("compacted")["outcome"]
            total = perf_counter() - begun
    row("manual compaction, total", f"{shown(total)} ({outcome}; one summary of {summary_s:g} s)")
    row(
        "message to the same session: accepted / answered", f"+{shown(same[0])} / +{shown(same[1])}"
    )
    row(
        "message to another session, same agent: answered (idle)",
        f"+{shown(other[1])} ({shown(idle[1])})",
    )


def while_an_automatic_compaction_runs(folder: Path, summary_s: float) -> None:
    with GatewayProcess(
        folder / "auto.db", model_delay=MODEL_S, summary_delay=summary_s, threshold=300, keep=50
    ) as gateway:
        with gateway.page("alice") as alice:
            # The turn that found the context too large is the one during which the page
            # is told of the compaction.
            while True:
                triggering = timed(gateway, alice, "alice", LONG)
                if any(notice["type"] == "compacting" for notice in alice.notices):
                    break
            same = timed(gateway, alice, "alice", "during")
            over = any(notice["type"] == "compacted" for notice in alice.notices)
            alice.next("compacted")
    row("automatic compaction: the triggering turn", shown(triggering[1]))
    row(
        "automatic, same session: accepted / answered",
        f"+{shown(same[0])} / +{shown(same[1])}" + (" (after it)" if over else ""),
    )


def when_a_compaction_outlasts_its_time(folder: Path, summary_s: float) -> None:
    with GatewayProcess(
        folder / "outlasts.db", summary_delay=summary_s, compaction_timeout=60, **MANUAL
    ) as gateway:
        fill(gateway, "alice")
        with gateway.page("alice") as alice:
            gateway.command("/compact", conversation="alice")
            alice.next("compacting")
            during = timed(gateway, alice, "alice", "during")
            alice.next("compacted", outcome="expired")
            after = timed(gateway, alice, "alice", "after its time was up")
            late = alice.next("compacted", trigger="late")
    cell = (
        f"+{shown(during[0])} / +{shown(during[1])}; given up at 60 s, then "
        f"+{shown(after[0])} / +{shown(after[1])}; "
    )
    row(
        f"compaction that outlasts 60 s ({summary_s:g} s): accepted / answered",
        cell + f"the summary: {late['outcome']}, late",
    )


def when_a_summariser_hangs(folder: Path) -> None:
    answered = []
    for number in range(5):
        options = {**MANUAL, "compaction_timeout": 3, "late": 0.1}
        with GatewayProcess(
            folder / f"hangs-{number}.db", summary_script="!hang", **options
        ) as gateway:
            fill(gateway, "alice")
            with gateway.page("alice") as alice:
                gateway.command("/compact", conversation="alice")
                alice.next("compacting")
                answered.append(timed(gateway, alice, "alice", "during")[1])
                alice.next("compacted", outcome="expired")
                answered.append(timed(gateway, alice, "alice", "after")[1])
            held = [holding for holding in gateway.held() if holding["what"] == "compaction"]
            assert held == [], held
    row(
        "the summariser hangs for good",
        f"0 of 5 sessions hung; answered during and after: +{shown(max(answered))} at most",
    )


def killed_in_a_compaction(folder: Path) -> None:
    with GatewayProcess(folder / "killed-compaction.db", summary_delay=60, **MANUAL) as gateway:
        fill(gateway, "alice")
        with gateway.page("alice") as alice:
            gateway.command("/compact", conversation="alice")
            alice.next("compacting")
            gateway.say("!slow 60", conversation="alice")
            waits = gateway.say("accepted meanwhile", conversation="alice")
        gateway.kill()
        begun = perf_counter()
        gateway.start()
        gateway.wait_for(lambda: gateway.answer_to(waits["event_id"], "alice"))
        answered = perf_counter() - begun
        (state,) = query(gateway.database, "SELECT state FROM compaction")
    cell = (
        f"summary lost (job {state}); the message accepted meanwhile is answered "
        f"{shown(answered)} after the restart began"
    )
    row("mid-compaction", cell)


def killed_in_a_turn(folder: Path) -> None:
    with GatewayProcess(folder / "killed-turn.db", **MANUAL) as gateway:
        with gateway.page("alice") as alice:
            cut_off = gateway.say("!slow 3 tell me more", conversation="alice")
            alice.next("thinking")
        gateway.kill()
        begun = perf_counter()
        gateway.start()
        resumed = gateway.wait_for(
            lambda: query(
                gateway.database,
                "SELECT turn_no FROM turn WHERE kind = 'resume' AND inbox_no = ?",
                cut_off["inbox_no"],
            )
        )
        resumed_s = perf_counter() - begun
        meanwhile = gateway.say("sent meanwhile", conversation="alice")
        gateway.wait_for(lambda: gateway.answer_to(meanwhile["event_id"], "alice"))
        assert resumed
        assert gateway.answer_to(cut_off["event_id"], "alice")
    row(
        "mid-stream",
        (
            f"resumes {shown(resumed_s)} after the restart began; a message sent meanwhile is "
            "accepted, and answered after it"
        ),
    )


def killed_in_a_tool(folder: Path) -> None:
    with GatewayProcess(folder / "killed-tool.db", **MANUAL) as gateway:
        with gateway.page("alice") as alice:
            cut_off = gateway.say("!tool 30", conversation="alice")
            alice.next("thinking")
            gateway.wait_for(
                lambda: query(
                    gateway.database, "SELECT turn_no FROM turn WHERE operation = 'tool wait'"
                )
            )
        gateway.kill()
        begun = perf_counter()
        gateway.start()
        answer = gateway.wait_for(lambda: gateway.answer_to(cut_off["event_id"], "alice"))
        answered_s = perf_counter() - begun
        assert "cut off" in answer, answer
    cell = (
        "the tool is not run again; the model is told that it was cut off, and answers "
        f"{shown(answered_s)} after the restart began"
    )
    row("mid-tool", cell)


def start_to_health(folder: Path, sessions: int) -> None:
    path = folder / f"start-{sessions}.db"
    interrupted_sessions.build(
        path, interrupted_sessions.Storm(sessions=sessions, bindings=sessions + 10)
    )
    times = []
    for _ in range(3):
        begun = perf_counter()
        with GatewayProcess(path, resumes=0):
            times.append(perf_counter() - begun)
    row(
        f"start to first health answer, {sessions:,} sessions",
        " / ".join(shown(time) for time in times) + " (three starts in a row)",
    )


async def appends(folder: Path, entries: int) -> None:
    path = folder / f"history-{entries}.db"
    message: dict[str, Any] = {"role": "user", "content": "x" * 400}
    async with sessiondb.open(path) as db:
        session = await db.session("agent:main:main")
        for _ in range(0, entries, 100):
            await session.append_many([message] * 100)
        times = []
        for _ in range(500):
            begun = perf_counter()
            await session.append(message)
            times.append(perf_counter() - begun)
    opened, built = [], []
    for _ in range(10):
        begun = perf_counter()
        async with sessiondb.open(path) as db:
            session = await db.session("agent:main:main")
            opened.append(perf_counter() - begun)
            begun = perf_counter()
            await session.context()
            built.append(perf_counter() - begun)
    times.sort()
    cell = f"{times[len(times) // 2] * 1000:.2f} / {times[int(len(times) * 0.99)] * 1000:.1f} ms"
    both = f"{statistics.median(opened) * 1000:.1f} + {statistics.median(built) * 1000:.2f} ms"
    sys.stdout.write(f"| {entries:,} | {cell} | {both} |\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--summary",
        type=float,
        default=20.0,
        help="seconds that a summary takes (default: %(default)s)",
    )
    parser.add_argument(
        "--outlast",
        type=float,
        default=70.0,
        help="... and one that outlasts its 60 s (default: %(default)s)",
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sessiondb-baseline-") as name:
        folder = Path(name)
        sys.stdout.write("While a compaction runs\n\n")
        while_a_manual_compaction_runs(folder, options.summary)
        while_an_automatic_compaction_runs(folder, options.summary)
        when_a_summariser_hangs(folder)
        sys.stdout.write("\nAfter kill -9\n\n")
        killed_in_a_compaction(folder)
        killed_in_a_turn(folder)
        killed_in_a_tool(folder)
        for sessions in (48, 54, 100_000):
            start_to_health(folder, sessions)
        sys.stdout.write(
            "\nOne process, one session: append p50 / p99, open + build context p50\n\n"
        )
        for entries in (100, 1_000, 10_000):
            asyncio.run(appends(folder, entries))
        sys.stdout.write("\nLast, because it is long\n\n")
        when_a_compaction_outlasts_its_time(folder, options.outlast)


if __name__ == "__main__":
    main()

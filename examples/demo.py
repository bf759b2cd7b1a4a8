"""The demo: real transcripts, compaction under load, kill -9, and a report.

    make demo        or        python -m examples.demo

The report can fail. This process is the client. Its gateway (demo_gateway.py) is a child
process that it kills without warning. Acknowledgements go into a ledger, a file of this
process, synced before anything else happens. At the end every promise is counted
against that ledger, not against what the gateway believes. The exit code is 0 only if
all were kept, and 1 if one was broken. `--break lose` or `--break duplicate` breaks one
on purpose, to show that the report would notice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import sessiondb
from tests import ROOT

SAMPLE = ROOT / "tests" / "sample"
TRANSCRIPTS = ("pi-0.74.2/sessions", "openclaw-2026.5.18/agents", "openclaw-2026.5.18/after-kill9")
CONVERSATIONS = 24
MESSAGES_PER_S = 4.0  # each conversation's. Every message has a reply
TICK_S = 0.05
PATIENCE_S = 30.0  # for one answer of the gateway. Passing it is a broken demo, not a slow one
MESSAGE_ID = re.compile(r"<([\w-]+:\d+(?::reply)?)>")
WORDS = (
    "the agent reads the file, finds where the lock is taken, proposes a smaller critical "
    "section and writes a test for it; "
)

# Commands that anyone can repeat on a database of their own. As many lines of each are
# shown.
COMMANDS = (
    ("what the gateway and its file are doing", ("status",), ""),
    (
        "how compactions ended",
        ("query", "--table"),
        """
        SELECT state, late, count(*) AS jobs, max(took_s) AS longest_s
        FROM compaction_log GROUP BY state, late
        """,
    ),
    (
        "which conversations are heavy",
        ("query", "--table"),
        """
        SELECT session_keys, entries, compactions, context_tokens
        FROM session_overview WHERE session_keys LIKE '%:demo:%'
        ORDER BY context_tokens DESC LIMIT 4
        """,
    ),
)
LINES_SHOWN = 9


class Broken(Exception):
    """The demo cannot go on. Its message says why."""


# -- what is on the screen -------------------------------------------------------------


class Screen:
    """Eighty columns: one line a step, which moves on a terminal and is printed once when piped."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.live = out.isatty()
        self._step = 0

    def paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.live else text

    def line(self, text: str = "") -> None:
        self.out.write(text + "\n")
        self.out.flush()

    def head(self, title: str, aside: str = "") -> None:
        self.line(self.paint(title, "1") + (aside.rjust(79 - len(title)) if aside else ""))

    def step(self, name: str, now: str) -> None:
        """Show what a step is doing. Only where it can be replaced."""
        if self.live:
            self.out.write(f"\r\x1b[K {self._step + 1}  {name:<10}{self.paint(now[:64], '2')}")
            self.out.flush()

    def done(self, name: str, *message: str) -> None:
        """End a step with what it showed."""
        self._step += 1
        self.out.write("\r\x1b[K" if self.live else "")
        for index, text in enumerate(message):
            self.line(
                f" {self._step}  {self.paint(f'{name:<10}', '36')}{text}"
                if index == 0
                else f"{'':14}{text}"
            )


# -- what is known outside the gateway -------------------------------------------------


@dataclass
class Ledger:
    """What the gateway acknowledged, on disk before it counts.

    And what was seen of it otherwise.
    """

    path: Path
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Message id to conversation."""
    order: list[tuple[str, str, str]] = field(default_factory=list)
    """(what, conversation, id), as the events came: "ack", "begun" and the outcomes of
    compactions.
    """
    latencies_ms: dict[str, list[float]] = field(
        default_factory=lambda: {"none": [], "other": [], "same": []}
    )
    resent: int = 0
    resent_known: int = 0
    longest_ms: float = 0.0
    longest_op: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        self._file.close()

    def note(self, events: list[dict[str, Any]]) -> None:
        """Take in all events that arrived at once.

        Acknowledgements are synced before they count.
        """
        acks = [event for event in events if event["event"] == "ack"]
        if acks:
            self._file.writelines(f"{event['conversation']} {event['id']}\n" for event in acks)
            self._file.flush()
            os.fsync(self._file.fileno())
        for event in events:
            self._note(event)

    def _note(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "ack":
                self.acknowledged[event["id"]] = event["conversation"]
                self.order.append(("ack", event["conversation"], event["id"]))
                self.resent_known += event["duplicate"]
                if not event["duplicate"]:
                    self.latencies_ms[event["compacting"]].append(event["ms"])
            case "begun":
                self.order.append(("begun", event["conversation"], event["compaction"]))
            case "finished" | "late-commit":
                self.order.append((event["outcome"], event["conversation"], event["compaction"]))
            case "stats" if event["longest_ms"] > self.longest_ms:
                self.longest_ms, self.longest_op = event["longest_ms"], event["longest_op"]


class Gateway:
    """The child process, and the two pipes to it."""

    def __init__(self, database: Path, ledger: Ledger) -> None:
        self.database = database
        self.ledger = ledger
        self.running: dict[str, dict[str, Any]] = {}
        self.process: asyncio.subprocess.Process | None = None
        self.trouble = ""
        self._news = asyncio.Condition()
        self._seen: list[dict[str, Any]] = []
        self._reading: asyncio.Task[None] | None = None
        self._log = database.with_name("gateway.log").open("ab")

    async def start(self) -> float:
        """Start the process and wait until it has opened the database.

        Return how long that took in ms.
        """
        self.running.clear()
        self._seen.clear()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "examples.demo_gateway",
            str(self.database),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for this process, which then ends that one
        )
        self._reading = asyncio.get_running_loop().create_task(self._read(self.process.stdout))
        return float((await self.wait_for("ready"))["ms"])

    def send(self, **command: Any) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self, pipe: asyncio.StreamReader | None) -> None:
        assert pipe is not None
        rest = b""
        while chunk := await pipe.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            events = [json.loads(line) for line in lines]
            self.ledger.note(events)
            for event in events:
                self._follow(event)
            async with self._news:
                self._seen += [event for event in events if event["event"] != "ack"]
                self._news.notify_all()
        async with self._news:
            self._seen.append({"event": "gone"})
            self._news.notify_all()

    def _follow(self, event: dict[str, Any]) -> None:
        if event["event"] == "begun":
            self.running[event["compaction"]] = event
        elif event["event"] == "finished":
            self.running.pop(event["compaction"], None)
        elif event["event"] == "failed":
            self.trouble = event["error"]

    async def wait_for(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event, and take it."""

        def found() -> dict[str, Any] | None:
            return next(
                (
                    e
                    for e in self._seen
                    if e["event"] == "gone" or {"event": kind, **fields}.items() <= e.items()
                ),
                None,
            )

        await self.wait_until(lambda: found() is not None)
        event = found()
        assert event is not None
        if event["event"] == "gone" and kind != "gone":
            raise Broken(
                f"the gateway ended while the client waited for its answer ({kind}); see its "
                f"log:\n{self.last_words()}"
            )
        self._seen.remove(event)
        return event

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Wait for what its events bring about.

        Raises:
            Broken: it did not come about in time.
        """
        try:
            async with asyncio.timeout(PATIENCE_S), self._news:
                await self._news.wait_for(is_true)
        except TimeoutError:
            raise Broken(
                f"the gateway gave no answer for {PATIENCE_S:.0f} s; see its "
                f"log:\n{self.last_words()}"
            ) from None

    def last_words(self) -> str:
        """Return the end of what the gateway logged."""
        return self.database.with_name("gateway.log").read_text(encoding="utf-8", errors="replace")[
            -2_000:
        ]

    async def kill(self) -> None:
        """SIGKILL, and read what the pipe still holds. May be repeated."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
        await self._gone()

    async def close(self) -> None:
        """End the process if it still runs."""
        await self.kill()
        self._log.close()

    async def stop(self) -> None:
        """Close its stdin and wait until it has closed the database."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.wait_for("closed")
        await self._gone()

    async def _gone(self) -> None:
        if self.process is not None:
            await self.process.wait()
        if self._reading is not None:
            await self._reading
            self._reading = None


class Client:
    """Clients that write a steady stream of messages.

    After a restart each message is sent again until it is acknowledged.
    """

    def __init__(self, gateway: Gateway, ledger: Ledger) -> None:
        self.gateway = gateway
        self.ledger = ledger
        self.sent: dict[str, dict[str, Any]] = {}
        self._due = 0.0
        self._random = random.Random(42)

    def waiting(self) -> list[dict[str, Any]]:
        """The messages of which either they or their replies are not acknowledged."""
        known = self.ledger.acknowledged
        return [
            message
            for name, message in self.sent.items()
            if name not in known or f"{name}:reply" not in known
        ]

    def write(self) -> None:
        number = len(self.sent)
        conversation = f"c{number % CONVERSATIONS:02d}"
        name = f"{conversation}:{number}"
        message = {
            "conversation": conversation,
            "id": name,
            "text": f"<{name}> {WORDS * self._random.randint(1, 4)}",
            "reply": WORDS * self._random.randint(2, 8),
        }
        self.sent[name] = message
        self.gateway.send(do="message", **message)

    async def talk(self, seconds: float) -> None:
        """Keep the conversations going for that long."""
        ends = perf_counter() + seconds
        while (before := perf_counter()) < ends:
            await asyncio.sleep(TICK_S)
            self._due += (perf_counter() - before) * CONVERSATIONS * MESSAGES_PER_S
            while self._due >= 1:
                self._due -= 1
                self.write()

    def send_again(self) -> int:
        """After a restart: whatever may have been lost in the crash, under the same ids."""
        waiting = self.waiting()
        for message in waiting:
            self.gateway.send(do="message", **message)
        self.ledger.resent += len(waiting)
        return len(waiting)

    async def settle(self) -> None:
        """Wait until everything that was sent is acknowledged and no summariser is at work."""
        await self.gateway.wait_until(lambda: not self.waiting() and not self.gateway.running)


# -- the steps -------------------------------------------------------------------------


@dataclass
class Count:
    """What the closed database holds, beside the ledger."""

    lost: list[str]
    twice: list[str]
    missing: int
    committed: int
    states: Counter[tuple[str, bool]]
    verified: sessiondb.VerifyReport


@dataclass
class Demo:
    """What the steps share. Every broken promise is a sentence in `broken`."""

    screen: Screen
    folder: Path
    pace: float
    fault: str
    broken: list[str] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / "gateway.db"

    def must(self, kept: bool, otherwise: str) -> None:
        if not kept:
            self.broken.append(otherwise)

    async def run(self) -> None:
        self.screen.head("sessiondb demo", "real transcripts, a busy gateway, kill -9")
        await self.import_sample()
        ledger = Ledger(self.folder / "ledger.txt")
        gateway = Gateway(self.database, ledger)
        try:
            await self.drive(gateway, Client(gateway, ledger), ledger)
        finally:
            await gateway.close()
            ledger.close()
        self.must(not gateway.trouble, f"a task of the gateway failed: {gateway.trouble}")
        await self.check(ledger)

    async def import_sample(self) -> None:
        self.screen.step("import", "reading transcripts of pi and OpenClaw ...")
        async with sessiondb.open(self.database, program="demo") as db:
            reports = [await db.import_path(SAMPLE / folder, verify=True) for folder in TRANSCRIPTS]
        files = [file for report in reports for file in report.files]
        self.must(
            all(report.ok for report in reports), "an imported transcript differs from its file"
        )
        entries, damaged = (
            sum(report.entries_new for report in reports),
            sum(report.damaged for report in reports),
        )
        verified = sum(1 for file in files if file.verified)
        self.screen.done(
            "import",
            (
                f"{len(files)} real files of pi and OpenClaw, {entries:,} entries; {verified} "
                "compared:"
            ),
            f"bytes and contexts are the originals'; damaged lines kept aside: {damaged}",
        )

    async def drive(self, gateway: Gateway, client: Client, ledger: Ledger) -> None:
        summariser_s = (2.0 * self.pace, 4.0 * self.pace)
        await gateway.start()
        gateway.send(do="settings", compact=False, fault=self.fault, summariser_s=summariser_s)
        await self.talk("talk", client, 6 * self.pace)
        self.screen.done(
            "talk",
            (
                f"{CONVERSATIONS} conversations, {len(ledger.acknowledged):,} messages accepted, "
                "no compaction yet"
            ),
        )
        before = len(ledger.acknowledged)
        gateway.send(do="settings", compact=True, fault=self.fault, summariser_s=summariser_s)
        await self.talk("compact", client, 8 * self.pace)
        during, running = len(ledger.acknowledged) - before, len(gateway.running)
        self.screen.done(
            "compact", f"{during:,} more while summarisers think ({running} at this moment)"
        )
        killed = await self.kill(gateway, client)
        opened_ms = await gateway.start()
        again = client.send_again()
        gateway.send(do="settings", compact=False, fault=self.fault, summariser_s=summariser_s)
        await self.talk("restart", client, 1.5 * self.pace)
        self.screen.done(
            "restart",
            f"open again after {opened_ms:.0f} ms; {again} unanswered messages sent once more,",
            f"of which {ledger.resent_known} parts were on disk already and were not stored twice",
        )
        await self.reconcile(gateway, client, killed)
        gateway.send(do="settings", compact=True, fault=self.fault, summariser_s=summariser_s)
        await self.talk("go on", client, 6 * self.pace)
        gateway.send(do="settings", compact=False, fault=self.fault, summariser_s=summariser_s)
        self.screen.step("go on", "waiting for the last answers ...")
        await client.settle()
        await gateway.stop()
        self.screen.done(
            "go on",
            (
                f"{len(ledger.acknowledged):,} messages accepted in all; the gateway closed in "
                "good order"
            ),
        )

    async def talk(self, name: str, client: Client, seconds: float) -> None:
        """Keep conversations going, and show it."""
        ends = perf_counter() + seconds
        while (left := ends - perf_counter()) > 0:
            accepted, running = len(client.ledger.acknowledged), len(client.gateway.running)
            self.screen.step(
                name, f"{accepted:,} accepted, {running} summarisers at work, {left:.0f} s"
            )
            await client.talk(min(left, 0.25))

    async def kill(self, gateway: Gateway, client: Client) -> list[dict[str, Any]]:
        """Kill the gateway while summarisers work and messages are on their way.

        Return the jobs that died with it.
        """
        # These summarisers outlast the kill. One that thinks for less time may have
        # committed without the client knowing it.
        long_s = 2 * PATIENCE_S
        gateway.send(do="settings", compact=True, fault=self.fault, summariser_s=(long_s, long_s))

        def thinking() -> list[dict[str, Any]]:
            return [job for job in gateway.running.values() if job["seconds"] == long_s]

        give_up = perf_counter() + PATIENCE_S
        while len(thinking()) < 2 and perf_counter() < give_up:
            await client.talk(TICK_S)
        accepted = len(client.ledger.acknowledged)
        for _ in range(CONVERSATIONS * 2):
            client.write()
        # At the first answer: some of these are now on disk without the client knowing
        # it, and some nowhere.
        await gateway.wait_until(lambda: len(client.ledger.acknowledged) > accepted)
        await gateway.kill()
        dead = thinking()
        self.must(
            len({job["conversation"] for job in dead}) >= 2,
            "fewer than two compactions were running when the gateway was killed",
        )
        self.screen.done(
            "kill -9",
            (
                f"in the middle of {len(gateway.running)} compactions, with "
                f"{len(client.waiting())} messages unanswered"
            ),
        )
        return dead

    async def reconcile(self, gateway: Gateway, client: Client, dead: list[dict[str, Any]]) -> None:
        """Deliver the dead process's summaries.

        One is still useful. The other has been overtaken.
        """
        if len(dead) < 2:
            return
        useful, overtaken = dead[0], dead[1]
        self.screen.step("reconcile", "summaries of the dead process arrive ...")
        answers = {}
        for job, fail in ((useful, True), (overtaken, False)):
            # A new attempt takes the dead owner's job over. One attempt fails as models
            # do, one succeeds.
            gateway.send(do="compact", conversation=job["conversation"], seconds=0.3, fail=fail)
            begun = await gateway.wait_for("begun", conversation=job["conversation"])
            await client.talk(0.2)
            await gateway.wait_for("finished", compaction=begun["compaction"])
            summary = "What the process that died had made of it: a lock was fixed."
            gateway.send(
                do="commit",
                compaction=job["compaction"],
                conversation=job["conversation"],
                summary=summary,
            )
            answers[job["compaction"]] = await gateway.wait_for(
                "late-commit", compaction=job["compaction"]
            )
        late, superseded = answers[useful["compaction"]], answers[overtaken["compaction"]]
        self.must(
            (late["outcome"], late["late"]) == ("committed", True),
            f"a late summary that was still useful was {late['outcome']}",
        )
        self.must(
            superseded["outcome"] == "superseded",
            f"a summary that had been overtaken was {superseded['outcome']}",
        )
        self.screen.done(
            "reconcile",
            "two summaries of the dead process arrive after all:",
            (
                f"one {late['outcome']}, late; one {superseded['outcome']}, as a newer one "
                "covers as much"
            ),
        )

    # -- the report --------------------------------------------------------------------

    async def check(self, ledger: Ledger) -> None:
        """Count every promise against the ledger, in the closed database, and report."""
        self.screen.step("check", "counting every message against the ledger ...")
        count = await self.count(ledger)
        self.judge(count)
        self.screen.done(
            "check",
            f"{CONVERSATIONS} conversations read back, message by message; verify walked",
            f"{count.verified.entries:,} entries of {count.verified.sessions} sessions",
        )
        self.screen.line()
        self.screen.head("REPORT")
        self.report_messages(ledger, count)
        self.report_compactions(count)
        self.report_times(ledger)

    async def count(self, ledger: Ledger) -> Count:
        """Read every conversation back, read-only, and compare it with the ledger."""
        async with sessiondb.open(self.database, readonly=True) as db:
            stored: Counter[str] = Counter()
            missing = 0
            for number in range(CONVERSATIONS):
                session = await db.session(f"agent:main:demo:channel:c{number:02d}", create=False)
                stored.update(message_ids([entry.payload async for entry in all_entries(session)]))
                in_context = set(message_ids([(await session.context()).as_json().decode()]))
                missing += len(must_be_in_context(ledger, f"c{number:02d}") - in_context)
            states = Counter([(job.state, job.late) async for job in db.compactions()])
            imported = sum([1 async for job in db.compactions() if job.trigger == "import"])
            verified = await db.verify()
        return Count(
            lost=[name for name in ledger.acknowledged if not stored[name]],
            twice=[name for name, times in stored.items() if times > 1],
            missing=missing,
            committed=states["committed", False] + states["committed", True] - imported,
            states=states,
            verified=verified,
        )

    def judge(self, count: Count) -> None:
        """Name every promise that was broken."""
        lost, twice, findings = count.lost, count.twice, count.verified.findings
        self.must(
            not lost,
            f"{len(lost)} acknowledged messages are not in the database, such as {lost[:1]}",
        )
        self.must(
            not twice,
            f"{len(twice)} messages are in the database more than once, such as {twice[:1]}",
        )
        self.must(
            not count.missing,
            f"{count.missing} messages arrived during a compaction and are not in the context "
            "that it made",
        )
        self.must(
            count.verified.ok,
            f"verify found {len(findings)} broken invariants: {[str(f) for f in findings[:1]]}",
        )
        self.must(count.committed > 0, "no compaction was committed")

    def report_messages(self, ledger: Ledger, count: Count) -> None:
        self.row(
            "messages accepted",
            f"{len(ledger.acknowledged):,}",
            "user messages and replies, acknowledged",
        )
        self.count_row("lost", len(count.lost), "acknowledged, and not in the database")
        self.count_row(
            "duplicated", len(count.twice), f"{ledger.resent} were sent twice, across a kill -9"
        )
        self.count_row(
            "missing from a context", count.missing, "arrived while a summariser thought"
        )
        self.count_row(
            "broken invariants",
            len(count.verified.findings),
            "of what `sessiondb verify` checks",
        )

    def report_compactions(self, count: Count) -> None:
        states = count.states
        self.row(
            "compactions committed",
            f"{count.committed:,}",
            f"{states['committed', True]} of them late, its process being dead",
        )
        removed = ", ".join(
            f"{number} {state}"
            for (state, _), number in sorted(states.items())
            if state not in ("committed", "superseded")
        )
        self.row(
            "compactions superseded",
            f"{states['superseded', False]:,}",
            f"and {removed}" if removed else "",
        )

    def report_times(self, ledger: Ledger) -> None:
        for which, text in (
            ("none", "no compaction running"),
            ("other", "others are compacted"),
            ("same", "this one is compacted"),
        ):
            samples = sorted(ledger.latencies_ms[which])
            if samples:
                p50, p99 = samples[len(samples) // 2], samples[int(len(samples) * 0.99)]
                self.row(
                    f"append, p50 / p99, {'ms':>2}",
                    f"{p50:.1f} / {p99:.1f}",
                    f"{text} ({len(samples):,})",
                )
        self.row(
            "longest write, ms", f"{ledger.longest_ms:.1f}", f"a transaction: {ledger.longest_op}"
        )

    def count_row(self, what: str, number: int, note: str) -> None:
        """Print a figure that must be zero."""
        self.row(what, f"{number:,}", note, bad=number > 0)

    def row(self, what: str, value: str, note: str, *, bad: bool = False) -> None:
        shown = self.screen.paint(f"{value:>12}", "1;31" if bad else "1")
        self.screen.line(f"  {what:<24}{shown}   {self.screen.paint(note, '2')}")

    def name_what_broke(self) -> None:
        """Print each broken promise."""
        if self.broken:
            self.screen.line()
        for sentence in self.broken:
            self.screen.line(self.screen.paint("BROKEN", "1;31") + f"  {sentence}")

    def show_commands(self) -> None:
        """Run the commands of sessiondb that show the same, and print how each begins."""
        self.screen.line()
        self.screen.head("THE SAME, FROM THE COMMAND LINE")
        for why, (command, *options), sql in COMMANDS:
            sql = textwrap.dedent(sql).strip()
            quoted = ' "' + sql.replace("\n", "\n    ") + '"' if sql else ""
            line = " ".join(("$ sessiondb", command, *options, self.database.name))
            self.screen.line(self.screen.paint(f"# {why}", "2"))
            self.screen.line(line + (" \\\n   " + quoted if quoted else ""))
            done = subprocess.run(
                [sys.executable, "-m", "sessiondb", command, *options, str(self.database)]
                + ([sql] if sql else []),
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "COLUMNS": "78", "PYTHONPATH": str(ROOT)},
            )
            self.must(done.returncode == 0, f"`{line}` ended with {done.returncode}: {done.stderr}")
            lines = done.stdout.splitlines()
            for line in lines[:LINES_SHOWN]:
                self.screen.line(f"  {line[:78]}")
            if len(lines) > LINES_SHOWN:
                self.screen.line(f"  ... and {len(lines) - LINES_SHOWN} more lines")


def must_be_in_context(ledger: Ledger, conversation: str) -> set[str]:
    """Return the messages that a conversation's context must contain.

    They were acknowledged after its last committed compaction began.

    They arrived while its summariser thought or later, so no summary can cover them. A
    conversation that was never compacted has everything in its context.
    """
    events = [(what, name) for what, of, name in ledger.order if of == conversation]
    committed = {name for what, name in events if what == "committed"}
    begun = [
        index for index, (what, name) in enumerate(events) if what == "begun" and name in committed
    ]
    after = begun[-1] if begun else 0
    return {name for what, name in events[after:] if what == "ack"}


async def all_entries(session: sessiondb.Session) -> Any:
    """Yield everything a session holds, a page at a time."""
    last: sessiondb.Entry | None = None
    while page := await session.all_entries(after=last, limit=500):
        for entry in page:
            yield entry
        last = page[-1]


def message_ids(texts: list[str]) -> Iterator[str]:
    """Find the ids that the client wrote into its messages.

    They are read from the messages, not from an index.
    """
    for text in texts:
        yield from MESSAGE_ID.findall(text)


# -- starting and ending ---------------------------------------------------------------


@contextmanager
def folder_for(wanted: str | None) -> Iterator[Path]:
    """Yield the folder of this run.

    One that somebody asked for is kept when the run ends by itself.
    """
    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="sessiondb-demo-") as temporary:
            yield Path(temporary)
        return
    created = Path(wanted)
    if created.exists():
        raise Broken(
            f"{created} is there already; the demo wants a folder of its own. "
            "Choose another with --dir."
        )
    created.mkdir(parents=True)
    try:
        yield created
    except BaseException:
        shutil.rmtree(created)
        raise


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Import, compact under load, kill -9, recover, report.",
    )
    parser.add_argument(
        "--dir",
        metavar="PATH",
        help="keep the database and the ledger in this new folder (default: nothing is kept)",
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=1.0,
        metavar="X",
        help="stretch or shorten the waiting (default: %(default)s)",
    )
    parser.add_argument(
        "--break", dest="fault", choices=("lose", "duplicate"), default="", help=argparse.SUPPRESS
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    screen = Screen(sys.stdout)
    began = perf_counter()
    try:
        with folder_for(options.dir) as folder:
            demo = Demo(screen, folder, options.pace, options.fault)
            asyncio.run(demo.run())
            demo.show_commands()
            demo.name_what_broke()
            if options.dir:
                screen.line(f"\nThe database is {demo.database}")
            else:
                screen.line("\nNothing is left behind; `make demo ARGS='--dir PATH'` keeps it.")
    except KeyboardInterrupt:
        screen.line("\ninterrupted; the gateway was ended and the folder removed")
        return 130
    except (Broken, sessiondb.SessionDBError) as error:
        screen.line(f"\n{screen.paint('BROKEN', '1;31')}  {error}")
        return 1
    screen.line()
    verdict = f"{len(demo.broken)} promises broken" if demo.broken else "every promise kept"
    screen.line(
        screen.paint(verdict, "1;31" if demo.broken else "1;32")
        + f", in {perf_counter() - began:.0f} s"
    )
    return 1 if demo.broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

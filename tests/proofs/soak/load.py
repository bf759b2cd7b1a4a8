"""The soak itself.

It starts everything, keeps it working, kills some of it, and collects samples.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.engine import CHECKOUT

from .audit import Findings, Ledger
from .clock import SharedClock
from .files import GrowingFolder
from .judge import Broken, Reader
from .people import People
from .plan import Plan, Span
from .processes import Commands, Line, Member, environment, no_containers
from .troubles import (
    ATTIC_LANE,
    BACKLOG,
    CLOCK_BACK,
    CLOCK_FORWARD,
    CONTAINER,
    DEAD_CHANNEL,
    FULL_POOL,
    INTERRUPTIONS,
    ORDERLY_STOP,
    PARKED,
    PARKED_LANE,
    SENDS,
    STARTS,
    TRIO,
    TURNS,
    UNPARKED,
    Met,
)
from .watch import Looker, Series, hold_snapshot, process, wal_bytes

HEAVY_QUERY = "SELECT role, count(*), sum(length(text)), max(seq) FROM transcript GROUP BY role"
# What an operator or a script runs beside the gateways, and which exit codes are a success.
LOOKING: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    (("status",), (0,)),
    (("held",), (0,)),
    (("inbox",), (0,)),
    (("outbox",), (0,)),
    (("dead",), (0,)),
    (("resume", "--plan"), (0,)),
    (("events", "-n", "100"), (0,)),
    (("stuck",), (0, 1)),
    (("sessions",), (0,)),
    (("compactions",), (0,)),
    (("verify", "--quick"), (0,)),
    (("verify",), (0,)),
    (("query", HEAVY_QUERY), (0,)),
)


@dataclass
class Soak:
    """Everything that a run has and has seen. Times are seconds since its beginning."""

    plan: Plan
    series: Series = field(default_factory=Series)
    readers: list[Reader] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    lags: dict[str, Counter[int]] = field(
        default_factory=dict
    )  # idle, load, control: tenths of a millisecond
    slow: Counter[str] = field(
        default_factory=Counter
    )  # operations over the bound of a transaction
    slow_ms: dict[str, float] = field(default_factory=dict)
    longest: tuple[str, float] = ("", 0.0)
    held: tuple[str, float] = ("", 0.0)  # the longest transaction without its COMMIT
    gc_s: list[float] = field(default_factory=list)
    audited: dict[str, int] = field(default_factory=dict)
    met: Met = field(default_factory=Met)
    load_began_s: float = 0.0
    load_ended_s: float = 0.0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.seed + 1)
        self.began = time.monotonic()
        self.clock = SharedClock(self.plan.clock)
        if no_containers():
            self.met.not_here[CONTAINER] = no_containers()
        self.over = asyncio.Event()
        self.ending = asyncio.Lock()  # held by who ends the mortal gateway, until it runs again
        self.elder = Member("elder", self.plan, self.on_line)
        self.mortal = Member("mortal", self.plan, self.on_line)
        self.people = People(self.plan, lambda: [self.elder, self.mortal])
        self.commands = Commands(self.plan, self.fail)
        self.files = GrowingFolder(
            self.plan.folder / "transcripts", self.plan.seed, self.plan.grown_files
        )
        self.backups = 0
        self.lives: dict[str, dict[str, Any]] = {}  # the last pulse of each life
        self.looker: Looker | None = None
        self._delivered: set[int] = set()
        self._channel_at = 0

    # -- what is seen ------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began

    def fail(self, bound: str, what: str) -> None:
        """Note a bound that was broken, once each."""
        if not any(broken.bound == bound for broken in self.broken):
            self.broken.append(Broken(bound, round(self.now_s, 1), what))
            sys.stderr.write(
                f"soak: {self.now_s:.0f} s: {bound}: {what}\n"
            )  # an hour is long: whoever waits for it may stop it
        self.counted[f"broken: {bound}"] += 1

    def ended_unsigned(self) -> int:
        """Return how many processes ended, at most, that could not close their registration."""
        commands = sum(
            count
            for name, count in self.commands.codes.items()
            if name.endswith((" killed", " 5"))  # 5: the database was busy
        )
        return self.counted["kills"] + self.counted["stops that were not signed off"] + commands

    @contextlib.contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Say that somebody may hold a snapshot for as long as the block lasts."""
        began_s, at = self.now_s, len(self.readers)
        self.readers.append(Reader(began_s, float("inf"), what))
        try:
            yield
        finally:
            self.readers[at] = Reader(began_s, self.now_s, what)

    def on_line(self, member: Member, line: Line) -> None:
        """Hear what a gateway says."""
        saw = line["saw"]
        if saw == "pulse":
            self._on_pulse(member, line)
        elif saw in ("accepted", "refused", "turn"):
            self.people.hear(line)
            if saw == "turn":
                self.counted[f"turns: {line['kind']}, attempt {line['attempt']}"] += 1
                self.met.calls[TURNS] += 1
        elif saw == "delivered":
            self.met.calls[SENDS] += 1
        elif saw == "waits for the pool":
            self.fail("threads of others", f"{member.name} waits for the application's threads")
        elif saw == "disturbed":
            self.met.calls[INTERRUPTIONS] += line["looked"]
            self.met.times.update(line["done"])
        elif saw == "met":
            self.met.times[line["trouble"]] += 1
        elif saw == "event out of order":
            self.fail(
                "events", f"{member.name} was given event {line['event_no']} after {line['after']}"
            )
        elif saw == "retained":
            self.counted["sessions archived by gateways"] += line["done"]
            self.counted["rows pruned"] += line["pruned"]
            self.counted["gc runs"] += 1
            self.gc_s.append(line["took_s"])
            for note in line["failed"]:
                self._gc_failed(note)
        elif saw == "dropped":
            self.counted["archives deleted"] += line["done"]
        elif saw in ("compacted", "not compacted"):
            late = ", late" if line.get("late") else ""
            self.counted[f"{saw}: {line.get('outcome') or line.get('reason')}{late}"] += 1
        elif saw == "busy":
            self.counted[f"busy: {line['op']}"] += 1
        elif saw == "recovered":
            self.counted["processes found dead"] += line["instances"]
        elif saw == "stopped":
            self.counted["stops that were not signed off"] += line["unsigned"] > 0
        elif saw in ("not decided", "decided by hand", "backed up"):
            self.counted[saw] += 1

    def _gc_failed(self, note: str) -> None:
        # Two processes archive at once: the one that comes second says so, and that is no failure.
        if "another process" in note:
            self.counted["gc met another process's"] += 1
        else:
            self.fail("retention", note)

    def _on_pulse(self, member: Member, line: Line) -> None:
        phase = "load" if self.load_began_s else "idle"
        if not self.load_ended_s:
            self.lags.setdefault(phase, Counter()).update(
                round(lag_us / 100) for lag_us in line["lags_us"]
            )
        for op, took_ms in line["slow"]:
            self.slow[op] += 1
            self.slow_ms[op] = max(self.slow_ms.get(op, 0.0), took_ms)
        if line["longest"][1] > self.longest[1]:
            self.longest = (line["longest"][0], line["longest"][1])
        if line["held"][1] > self.held[1]:
            self.held = (line["held"][0], line["held"][1])
        self.series.add(f"{member.name} queue", self.now_s, line["queue"])
        told_elsewhere = ("saw", "lags_us", "slow", "longest", "held")
        self.lives[f"{member.name} {member.lives}"] = {
            name: line[name] for name in line if name not in told_elsewhere
        }

    # -- a run -------------------------------------------------------------------------

    async def load(self) -> None:
        """Have everything going for as long as planned.

        Then let people end, and stop what runs beside them.
        """
        plan = self.plan
        self.clock.write()
        await self.elder.start()
        await self._start_mortal()
        self.looker = Looker(plan.database)
        watching, comparing = (
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._compare()),
        )
        await asyncio.sleep(plan.idle_s)
        self.load_began_s = self.now_s
        work = (
            self._kill,
            self._stop,
            self._send_heartbeats,
            self._park,
            self._run_parked,
            self._down_channel,
            self._fill_pool,
            self._set_clock_forward,
            self._set_clock_back,
            self._look_on,
            self._read_long,
            self._import,
            self._restore,
            self._back_up,
            self._operate,
            self._follow_events,
        )
        beside = [asyncio.create_task(each(), name=each.__name__) for each in work]
        talking = asyncio.create_task(self.people.run())
        try:
            await self._wait_while_well([watching, comparing, talking, *beside], plan.seconds)
            await self._wait_while_well(
                [watching, comparing, talking, *beside], plan.settle_s, until=self._has_seen_enough
            )
        finally:
            self.load_ended_s = self.now_s
            self.over.set()
            self.people.over.set()
        await self._wait_while_well([talking, *beside], plan.settle_s, until_done=True)
        for task in (watching, comparing):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._sample(rows=True)

    def _has_seen_enough(self) -> bool:
        """Return whether everything has happened that a run must have.

        On a busy machine a few seconds are not enough for it.
        """
        plan = self.plan
        imports = sum(
            count for name, count in self.commands.codes.items() if name.startswith("import")
        )
        return (
            self.people.counted["acknowledged"] >= plan.messages_min
            and self.counted["kills"] >= plan.kills_min
            and self.counted["backups audited"] >= plan.backups_min
            and imports >= plan.imports_min
        )

    async def _wait_while_well(
        self,
        tasks: list[asyncio.Task[None]],
        seconds: float,
        *,
        until: Callable[[], bool] = lambda: False,
        until_done: bool = False,
    ) -> None:
        """Wait, but no longer than until something fails that should not, or a condition holds."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            for member in (self.elder, self.mortal):
                if member.failure is not None:
                    raise member.failure
            if until() or (until_done and all(task.done() for task in tasks)):
                return
            await asyncio.sleep(min(0.1, max(0.0, give_up - time.monotonic())))
        if until_done:
            left = [task.get_name() for task in tasks if not task.done()]
            self.fail("settled", f"still going on {seconds:g} s after the end of the load: {left}")
            for task in tasks:
                task.cancel()

    async def _every(self, span: Span, work: Callable[[], Awaitable[None]]) -> None:
        """Do something again and again, with pauses, until it is over."""
        while not self.over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), self.chance.uniform(*span))
                return
            await work()

    # -- watching ----------------------------------------------------------------------

    async def _watch(self) -> None:
        rows_at = 0.0
        while True:
            rows = self.now_s >= rows_at
            await self._sample(rows=rows)
            if rows:
                rows_at = self.now_s + self.plan.rows_s
            await asyncio.sleep(self.plan.sample_s)

    async def _compare(self) -> None:
        """Measure the event loop of a process that does nothing.

        How late it is under load is not the gateways' doing.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.proofs.soak.lag",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            cwd=CHECKOUT,
            env=environment(self.plan),
        )
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                if self.load_began_s and not self.load_ended_s:
                    self.lags.setdefault("control", Counter()).update(
                        round(lag_us / 100) for lag_us in json.loads(line)
                    )
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _sample(self, *, rows: bool) -> None:
        assert self.looker is not None
        self.series.add("wal_bytes", self.now_s, wal_bytes(self.plan.database))
        for member in (self.elder, self.mortal):
            found = process(member.pid) if member.pid is not None else None
            for what, value in (found or {}).items():
                self.series.add(f"{member.name} {what}", self.now_s, value)
        for what, value in (await asyncio.to_thread(self.looker.space, self.clock.now_s())).items():
            self.series.add(what, self.now_s, value)
        if rows:
            for table, count in (await asyncio.to_thread(self.looker.rows)).items():
                self.series.add(f"rows {table}", self.now_s, count)

    # -- what goes on beside the conversations -----------------------------------------

    async def _kill(self) -> None:
        """Kill -9 one gateway, and start it again at once.

        Now and then it is killed soon after its start.
        """

        async def kill() -> None:
            async with self.ending:
                await self._kill_mortal()
                if self.chance.random() < 0.15:
                    await asyncio.sleep(self.chance.uniform(0.0, 0.5))
                    await self._kill_mortal()

        await self._every(self.plan.kill_s, kill)

    async def _kill_mortal(self) -> None:
        await self.mortal.kill()
        self.counted["kills"] += 1
        self.people.unheard()
        await self._start_mortal()

    async def _start_mortal(self) -> None:
        """Start it as its number says: on the host or in a container, under asyncio or trio.

        A container has a new name at each start.
        """
        number = self.mortal.lives
        contained, trio = number % 2 == 1 and not no_containers(), number % 4 in (1, 2)
        await self.mortal.start(
            container=f"pod-{number}" if contained else "", loop="trio" if trio else "asyncio"
        )
        self.met.calls[STARTS] += 1
        self.met.times[CONTAINER] += contained
        self.met.times[TRIO] += trio

    async def _stop(self) -> None:
        """Stop a gateway in good order, whatever it is doing, and start it again."""

        async def stop() -> None:
            async with self.ending:
                await self.mortal.stop()
                self.met.times[ORDERLY_STOP] += 1
                self.people.unheard()
                await self._start_mortal()

        await self._every(self.plan.spans[ORDERLY_STOP], stop)

    # -- lanes, channels and clocks that give trouble ------------------------------------

    async def _send_heartbeats(self) -> None:
        async def send() -> None:
            times = await self.people.program_says("cron", self.plan.heartbeats)
            self.met.times[BACKLOG] += times > 0

        await self._every(self.plan.spans[BACKLOG], send)

    async def _park(self) -> None:
        """Have programs send into a lane that nobody runs now, and into one that nobody will."""

        async def park() -> None:
            self.met.times[PARKED] += await self.people.program_says(PARKED_LANE)
            if len(self.people.left) < 2:
                await self.people.program_says(ATTIC_LANE)

        await self._every(self.plan.spans[PARKED], park)

    async def _run_parked(self) -> None:
        async def run() -> None:
            span_s = self.chance.uniform(*self.plan.unparked_s)
            member = self.chance.choice([self.elder, self.mortal])
            member.send("run", lane=PARKED_LANE, s=span_s)

        await self._every(self.plan.spans[UNPARKED], run)

    async def _down_channel(self) -> None:
        """Have one channel down for a while, in all gateways."""

        async def down() -> None:
            for dead in (True, False):
                for member in (self.elder, self.mortal):
                    member.dead_channel = dead
                    member.send("channel", dead=dead)
                if dead:
                    await asyncio.sleep(self.chance.uniform(*self.plan.dead_channel_s))

        await self._every(self.plan.spans[DEAD_CHANNEL], down)

    async def _fill_pool(self) -> None:
        """Take the threads of the mortal gateway's application. The elder's are counted."""

        async def fill() -> None:
            self.mortal.send("fill", s=self.chance.uniform(*self.plan.pool_s))

        await self._every(self.plan.spans[FULL_POOL], fill)

    async def _set_clock_forward(self) -> None:
        await self._every(self.plan.spans[CLOCK_FORWARD], lambda: self._set_clock(1))

    async def _set_clock_back(self) -> None:
        await self._every(self.plan.spans[CLOCK_BACK], lambda: self._set_clock(-1))

    async def _set_clock(self, direction: int) -> None:
        seconds = direction * self.chance.uniform(*self.plan.clock_step_s)
        by_s = self.clock.step(seconds, within_s=self.plan.clock_within_s)
        if by_s:
            self.met.times[CLOCK_FORWARD if by_s > 0 else CLOCK_BACK] += 1

    async def _look_on(self) -> None:
        """Run commands that look, one after the other."""
        number = 0

        async def look() -> None:
            nonlocal number
            (name, *options), codes = LOOKING[number % len(LOOKING)]
            number += 1
            arguments = (name, self.plan.database, *options)
            with self.reading(name) if name == "query" else contextlib.nullcontext():
                await self.commands.run(*arguments, codes=codes)

        await self._every(self.plan.command_s, look)

    async def _read_long(self) -> None:
        """Hold a snapshot for seconds, as a person's shell does."""

        async def hold() -> None:
            with self.reading("a snapshot that was held"), hold_snapshot(self.plan.database):
                await asyncio.sleep(self.chance.uniform(*self.plan.reader_holds_s))
                self.counted["snapshots held"] += 1

        await self._every(self.plan.reader_s, hold)

    async def _import(self) -> None:
        """Import a folder that grows. Damaged samples make it exit with 1, as it says."""

        async def grow_and_import() -> None:
            self.files.grow()
            kill_after_s = self.chance.uniform(0.2, 1.5) if self.chance.random() < 0.25 else None
            await self.commands.run(
                "import",
                self.plan.database,
                self.files.folder,
                codes=(0, 1),
                kill_after_s=kill_after_s,
            )

        await self._every(self.plan.import_s, grow_and_import)

    async def _restore(self) -> None:
        """Restore an archived session, or run gc from the command line.

        Some of these commands are killed.
        """
        assert self.looker is not None
        looker = self.looker

        async def restore() -> None:
            archived = await asyncio.to_thread(
                looker.ask,
                (
                    "SELECT s.session_id FROM archive AS a JOIN session AS s USING (session_no) "
                    "WHERE a.state IN ('archived', 'restoring')"
                ),
            )
            kill_after_s = self.chance.uniform(0.2, 1.0) if self.chance.random() < 0.25 else None
            if archived and self.chance.random() < 0.7:
                # 3 and 2: somebody deleted or restored it meanwhile.
                session_id = self.chance.choice(archived)[0]
                await self.commands.run(
                    "unarchive",
                    self.plan.database,
                    session_id,
                    codes=(0, 2, 3),
                    kill_after_s=kill_after_s,
                )
            else:
                limits = (
                    "--max-age",
                    f"{self.plan.max_age_s}s",
                    "--idle",
                    f"{self.plan.idle_age_s}s",
                    "--json",
                )
                code, out = await self.commands.run(
                    "gc", self.plan.database, *limits, codes=(0, 1), kill_after_s=kill_after_s
                )
                if code == 1 and not out.startswith("{"):
                    self.fail("retention", f"gc ended with 1 and said {out[:200]!r}")
                    return
                for created in json.loads(out)["decisions"] if code in (0, 1) else ():
                    self.counted["sessions archived by commands"] += created["outcome"] == "done"
                    if created["outcome"] == "failed":
                        self._gc_failed(created["note"])

        await self._every(self.plan.restore_s, restore)

    async def _back_up(self) -> None:
        """Take a backup, open it, verify it, audit it. Then let go of archives that it has."""

        async def back_up() -> None:
            self.backups += 1
            copy = self.plan.folder / f"backup-{self.backups}.db"
            acknowledged = self.people.remembered()
            # What is stamped so, on any clock that there may be meanwhile, is older.
            began_s = self.clock.now_s() - 2 * self.plan.clock_within_s
            waiting = self.elder.hear("backed up")
            if not self.elder.send("backup", to=str(copy)):
                return
            done, _ = await asyncio.wait(
                [waiting, asyncio.ensure_future(asyncio.shield(self.over.wait()))],
                return_when="FIRST_COMPLETED",
            )
            if waiting not in done:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiting, self.plan.settle_s)
            if not waiting.done() or not waiting.result()["pages"]:
                self.counted["not backed up"] += 1
                return
            code, _ = await self.commands.run("verify", copy)
            if code != 0:
                self.fail("backup", f"verify of backup {self.backups} ended with {code}")
            found = await self.audit(copy, acknowledged)
            self.judge_audit(found, f"backup {self.backups}")
            self.audited.update(found.whole)
            for file in self.plan.folder.glob(f"{copy.name}*"):
                file.unlink()
            self.counted["backups audited"] += 1
            # Only what was archived before the backup began, and so is known to be whole in it.
            self.elder.send("drop", archived_before_ms=round(began_s * 1000))

        await self._every((self.plan.backup_s, self.plan.backup_s), back_up)

    async def audit(self, copy: Path, acknowledged: dict[str, list[str]]) -> Findings:
        """Compare a copy with what is remembered, in a process of its own."""
        whole = self.people.ledger
        ledger = Ledger(whole.chars, acknowledged, whole.sent, whole.lanes)
        known, report = copy.with_suffix(".ledger"), copy.with_suffix(".findings")
        known.write_text(json.dumps(asdict(ledger)), "utf-8")
        code, out, errors = await self.commands.spawn(
            "-m", "tests.proofs.soak.audit", str(copy), str(known), str(report)
        )
        if code != 0:
            self.fail(
                "audit", f"the audit of {copy.name} ended with {code}:\n{(out + errors)[-600:]}"
            )
            return Findings()
        found = Findings(**json.loads(report.read_text("utf-8")))
        known.unlink()
        report.unlink()
        return found

    def judge_audit(self, found: Findings, where: str) -> None:
        """Note what an audit found."""
        self.counted["archives restored by audits"] += found.restored
        for bound, what in (
            ("lost", found.lost),
            ("doubled", found.doubled),
            ("out of order", found.out_of_order),
            ("changed", found.changed),
            ("invented", found.invented),
            ("archive", found.unrestored),
            ("verify", found.problems),
        ):
            if what:
                self.fail(bound, f"{where}: {len(what)} of them, such as {what[0]}")

    async def _operate(self) -> None:
        """Settle what nobody knows, as an operator does who can look into the channel.

        Requeue or drop dead letters.
        """
        await self._every((2 * self.plan.sample_s, 4 * self.plan.sample_s), self.decide)

    async def decide(self, member: Member | None = None) -> None:
        """Decide about every unknown reply and every dead letter that there is."""
        assert self.looker is not None
        unknown = await asyncio.to_thread(
            self.looker.ask, "SELECT outbox_no FROM outbox WHERE state IN ('unknown', 'failed')"
        )
        dead = await asyncio.to_thread(
            self.looker.ask, "SELECT inbox_no, reason FROM inbox WHERE state = 'dead'"
        )
        self._read_channel()
        for (outbox_no,) in unknown:
            what = "sent" if outbox_no in self._delivered else "pending"
            self.counted[
                f"replies of which nobody knew: {'sent' if what == 'sent' else 'not sent'}"
            ] += 1
            (member or self.elder).send("decide", what=what, number=outbox_no)
        for inbox_no, reason in dead:
            self.counted[f"dead: {reason.split(':')[0][:40]}"] += 1
            (member or self.elder).send(
                "decide", what=self.chance.choice(["requeue", "drop"]), number=inbox_no
            )

    def _read_channel(self) -> None:
        if self.plan.channel.exists():
            with self.plan.channel.open("rb") as channel:
                channel.seek(self._channel_at)
                for line in channel:
                    if line.endswith(b"\n"):
                        self._delivered.add(json.loads(line)["outbox_no"])
                        self._channel_at += len(line)

    async def _follow_events(self) -> None:
        """Follow events from a process that is stopped now and then.

        Each event is printed, in order, and none is left out.
        """
        last = 0
        while not self.over.is_set():
            follower = await self.commands.begin(
                "events",
                self.plan.database,
                "-f",
                "--json",
                "--consumer",
                "soak watcher",
                "-n",
                "0",
            )
            listening = asyncio.create_task(self._listen(follower, last))
            span_s = self.chance.uniform(*self.plan.follow_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), span_s)
            ended = follower.returncode
            if ended is None:
                follower.kill()
                self.commands.codes["events -f killed"] += 1
            last, said = await listening
            if ended is not None:
                self.fail("events", f"the follower ended by itself, with {ended}: {said}")
            self.counted["follower restarted"] += 1

    async def _listen(self, follower: asyncio.subprocess.Process, last: int) -> tuple[int, str]:
        """Return the last event that it printed, and what it said on standard error."""
        assert follower.stdout is not None
        assert follower.stderr is not None
        first = True
        async for line in follower.stdout:
            if not line.endswith(b"\n"):
                break
            number = json.loads(line)["event_no"]
            if last and (number > last + 1 or (number <= last and not first)):
                self.fail("events", f"the follower printed event {number} after {last}")
            first = first and number <= last
            last = max(last, number)
            self.counted["events followed"] += 1
        said = (await follower.stderr.read()).decode()
        await follower.wait()
        return last, said

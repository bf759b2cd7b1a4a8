"""What the crash tests share: children that die, their ledger, and the checks afterwards.

A `Zygote` is a process from which children are forked (`proofs/crash/child.py`). A
`World` is one database with its ledger, which has every line that a child wrote.
`check` opens the database anew after each death and compares it with the ledger.
`check_end` says what must be there once the scenario was run to its end, however often
it was cut off before.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio

import sessiondb
from sessiondb.sqlite import schema
from tests.proofs.crash.child import (
    GATEWAY_MESSAGES,
    GATEWAY_TALKS,
    MESSAGES,
    TALKS,
    Order,
    gateway_text,
    talk_text,
)
from tests.support.core import change, query
from tests.support.engine import CHECKOUT
from tests.support.gateway_process import PATIENCE_S, check_promises
from tests.support.old_schema import as_first_release
from tests.support.transfer import transcript, write

Line = dict[str, Any]
KEY = "agent:main:fake:channel:{}"


@dataclass
class Death:
    """How a child ended, and what it said."""

    order: Order
    lines: list[Line]
    code: int
    signal: str

    @property
    def killed(self) -> bool:
        return self.signal == "SIGKILL"

    @property
    def counts(self) -> dict[str, int]:
        """How often a child that survived arrived at each step."""
        return dict(next(line["counts"] for line in self.lines if line["saw"] == "steps"))

    def require(self) -> Death:
        """Raise if it ended in another way than by being killed or by coming to its end."""
        failed = [line for line in self.lines if line["saw"] == "failed"]
        assert not failed, f"{self.order} failed: {failed[0]['error']}\n{failed[0]['trace']}"
        assert self.killed or self.code == 0, f"{self.order} ended with {self.code} {self.signal}"
        return self


class Zygote:
    """A process from which children are forked. One lives at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CHECKOUT / "tests/proofs/crash/child.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{CHECKOUT / 'tests'}"},
        )
        self._order: Order | None = None
        self._pidfd: int | None = None
        self._heard: list[Line] = []
        self.pid = 0

    def close(self) -> None:
        """End it, and the child that it may have."""
        self._abandon()
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(PATIENCE_S)

    def _abandon(self) -> None:
        if self._order is not None:
            self.signal(signal.SIGKILL)
            self.end()

    def start(self, order: Order) -> None:
        """Fork a child. On return it lives."""
        self._abandon()  # a test that failed has left one
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(asdict(order)) + "\n").encode())
        self._process.stdin.flush()
        self._order, self._heard = order, []
        # Its own lines may come before the one about it.
        while not any(line["saw"] == "born" for line in self._heard):
            self.next()
        self.pid = next(line["pid"] for line in self._heard if line["saw"] == "born")
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:  # on a busy machine a short life is over by now
            self._pidfd = None

    def next(self) -> Line:
        """Return the next line."""
        assert self._process.stdout is not None
        guard = threading.Timer(PATIENCE_S, self._process.kill)
        guard.start()
        try:
            text = self._process.stdout.readline()
        finally:
            guard.cancel()
        assert text.endswith(b"\n"), (
            f"{self._order} said nothing for {PATIENCE_S:g} s, or its parent died; last: "
            f"{self._heard[-5:]}"
        )
        line: Line = json.loads(text)
        self._heard.append(line)
        return line

    def until(self, saw: str) -> Line:
        """Read on to a line of that kind."""
        for line in self._heard:
            if line["saw"] == saw:
                return line
        while True:
            line = self.next()
            if line["saw"] == saw:
                return line
            assert line["saw"] != "ended", (
                f"{self._order} ended before it said {saw!r}: {self._heard[-5:]}"
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child: to it, whatever has become of its number.

        Nothing if it has ended.
        """
        if self._pidfd is None:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return

    def end(self) -> Death:
        """Wait until the child has ended. Say how."""
        order = self._order
        assert order is not None
        while not self._heard or self._heard[-1]["saw"] != "ended":
            self.next()
        if self._pidfd is not None:
            os.close(self._pidfd)
        ended, self._order = self._heard[-1], None
        return Death(order, self._heard, ended["code"], ended["signal"])

    def live(self, order: Order) -> Death:
        """Fork a child and wait for its end."""
        self.start(order)
        return self.end().require()


@functools.cache
def zygote(number: int = 0) -> Zygote:
    """Return the zygote of that number, the same one for all tests of this run.

    It keeps nothing from one child to the next.
    """
    created = Zygote()
    atexit.register(created.close)
    return created


# -- the ledger and the database -------------------------------------------------------


@dataclass
class World:
    """One database, what belongs to it, and what was acknowledged."""

    folder: Path
    scenario: str
    options: dict[str, Any] = field(default_factory=dict)
    contents: dict[str, list[Any]] | None = None
    """What the sessions held to begin with, if they must hold it in the end."""
    prefixes: tuple[str, ...] = ("c",)
    ledger: list[Line] = field(default_factory=list)
    lives: int = 0
    copies: set[str] = field(default_factory=set)
    jumped: bool = False
    """A life had another wall clock."""

    @property
    def path(self) -> Path:
        return self.folder / "gateway.db"

    def order(self, step: str = "", nth: int = 1, **fields: Any) -> Order:
        """Return an order for the next life."""
        self.lives += 1
        options = {**self.options, **fields.pop("options", {})}
        scenario = fields.pop("scenario", self.scenario)
        self.jumped |= bool(options.get("clock_s"))
        return Order(
            str(self.path), scenario, step, nth, life=self.lives, options=options, **fields
        )

    def hear(self, death: Death) -> Death:
        """Remember what was acknowledged."""
        self.ledger += death.lines
        return death

    def saw(self, what: str) -> list[Line]:
        return [line for line in self.ledger if line["saw"] == what]

    # -- after each death --------------------------------------------------------------

    def check(self) -> None:
        """Open the database anew and check it.

        It recovers and is sound, the dead hold nothing, and all acknowledged writes are
        there.
        """
        if not self.path.exists():
            assert not self.saw("opened"), "an opened database is gone"
            return
        anyio.run(self._reopen)
        assert query(self.path, "SELECT count(*) FROM instance WHERE closed_at_ms IS NULL") == [
            0
        ], "a dead process counts as open"
        assert query(self.path, "SELECT what, number, owner FROM held") == [], (
            "the dead hold something"
        )
        self._check_transcripts()
        self._check_gateway()
        self._check_copies()
        self._check_exports()

    async def _reopen(self) -> None:
        async with sessiondb.open(self.path, program="check") as db:
            await db.recover()
            held = await db.held()
            assert held == [], f"still held after recover(): {held}"
            report = await db.verify()
            assert report.ok, f"verify: {report.findings}"

    def _check_transcripts(self) -> None:
        appended = Counter((line["key"], line["text"]) for line in self.saw("appended"))
        there = Counter(dict.fromkeys(appended, 0))
        for key, text in query(
            self.path,
            """SELECT b.session_key, json_extract(e.payload, '$.message.content') FROM entry AS e
               JOIN binding AS b ON b.session_no = e.entry_no >> 32 WHERE e.role = 'user'
                 AND ifnull(e.idempotency_key, '') NOT GLOB 'inbox:*:*'""",
        ):  # without a message that was buried when its turn began anew, and was appended again
            there[(key, text)] += 1
        lost = [item for item in appended if not there[item]]
        assert lost == [], f"acknowledged and not there: {[(key, text[:40]) for key, text in lost]}"
        twice = [item for item, count in there.items() if count > 1]
        assert twice == [], f"there twice: {[(key, text[:40]) for key, text in twice]}"
        epochs = set(
            query(
                self.path,
                (
                    "SELECT b.session_key, e.epoch, e.reason FROM epoch AS e JOIN binding AS b "
                    "ON b.session_no = e.session_no"
                ),
            )
        )
        for line in self.saw("moved"):
            assert (line["key"], line["epoch"], line["reason"]) in epochs, (
                f"acknowledged and not there: {line}"
            )
        forks = set(query(self.path, "SELECT session_id FROM session"))
        assert {line["session"] for line in self.saw("forked")} <= forks, (
            "an acknowledged fork is gone"
        )

    def _check_gateway(self) -> None:
        accepted = {line["id"] for line in self.saw("accepted")}
        inbox = query(self.path, "SELECT event_id FROM inbox")
        assert accepted <= set(inbox), (
            f"acknowledged and not in the inbox: {sorted(accepted - set(inbox))}"
        )
        assert len(inbox) == len(set(inbox)), "an event was accepted twice"

    def _check_copies(self) -> None:
        """A backup is there whole, or not at all under its name."""
        for line in self.saw("backed up"):
            assert Path(line["path"]).exists(), f"an acknowledged backup is gone: {line}"
        for copy in self.folder.glob("copy-*.db"):
            if copy.name not in self.copies:
                assert query(copy, "PRAGMA integrity_check") == ["ok"], f"{copy.name} is damaged"
                assert query(copy, "SELECT count(*) FROM session")[0] >= 1, f"{copy.name} is empty"
                self.copies.add(copy.name)

    def _check_exports(self) -> None:
        """An exported file is there whole, or not at all under its name."""
        for file in (self.folder / "out").rglob("*.jsonl"):
            content = file.read_bytes()
            source = Path(self.options["import"]) / file.name
            if source.exists():
                assert content == source.read_bytes(), f"{file.name} is not what was imported"
            assert content.endswith(b"\n"), f"{file.name} is torn"
            for line in content.splitlines():
                json.loads(line)

    # -- once the scenario was run to its end ------------------------------------------

    def check_end(self) -> Counter[str]:
        """The scenario was run to its end: everything is there, once, and in order."""
        self.check()
        counted: Counter[str] = Counter()
        for prefix in self.prefixes:
            if self.scenario == "talk":
                self._check_talk(prefix)
        if self.scenario in ("gateway", "recover"):
            sent = {
                f"{prefix}{talk}": [
                    gateway_text(prefix, talk, at) for at in range(GATEWAY_MESSAGES)
                ]
                for prefix in self.prefixes
                for talk in range(GATEWAY_TALKS)
            }
            if self.jumped:
                # Then the times of turns say nothing about their order. That no two of
                # a session overlap is a unique index's doing.
                change(
                    self.path,
                    "UPDATE turn SET started_at_ms = 2 * turn_no, finished_at_ms = 2 * turn_no + 1",
                )
            counted = check_promises(
                self.path,
                self.folder / "channel.jsonl",
                sent,
                {line["id"] for line in self.saw("accepted")},
            )
        if self.scenario == "recover":
            anyio.run(self._commit_late)
        if self.scenario == "maintain":
            anyio.run(self._restore_all)
        if self.scenario == "create":
            assert query(self.path, "PRAGMA user_version") == [schema.SCHEMA_VERSION]
        if self.contents is not None:
            self._check_contents(self.contents)
        return counted

    def _check_talk(self, prefix: str) -> None:
        for talk in range(TALKS):
            key = KEY.format(f"{prefix}{talk}")
            report = query(
                self.path,
                """SELECT json_extract(e.payload, '$.message.content') FROM entry AS e
                   JOIN binding AS b ON b.session_no = e.entry_no >> 32
                   WHERE b.session_key = ? AND e.role = 'user' ORDER BY e.entry_no""",
                key,
            )
            assert report == [talk_text(prefix, talk, at) for at in range(MESSAGES)], (
                f"{key}: {[text[:20] for text in report]}"
            )
            reasons = query(
                self.path,
                (
                    "SELECT e.reason FROM epoch AS e JOIN binding AS b ON b.session_no = "
                    "e.session_no WHERE b.session_key = ? ORDER BY epoch"
                ),
                key,
            )
            assert reasons == ["start", ("compaction", "reset", "branch")[talk]], (
                f"{key} went through {reasons}"
            )
        fork = (
            "SELECT count(*) FROM entry WHERE entry_no >> 32 = (SELECT session_no FROM "
            "session WHERE session_id = ?) AND role = 'user'"
        )
        assert query(self.path, fork, f"fork-of-{prefix}2") == [1]

    async def _commit_late(self) -> None:
        """Commit the summary that the dead process waited for.

        It counts, and once.
        """
        [begun] = self.saw("compacting")
        async with sessiondb.open(self.path, program="check") as db:
            result = await db.commit_compaction(begun["job"], "They talked.")
            assert (result.outcome, result.late) == ("committed", True), result
            assert await db.commit_compaction(begun["job"], "They talked again.") == result
            report = await db.verify()
            assert report.ok, f"verify: {report.findings}"

    async def _restore_all(self) -> None:
        async with sessiondb.open(self.path, program="check") as db:
            archived = (
                "SELECT s.session_id FROM archive AS a JOIN session AS s USING (session_no) "
                "WHERE a.state = 'archived'"
            )
            for session_id in query(self.path, archived):
                await db.unarchive(session_id)
            report = await db.verify()
            assert report.ok, f"verify after restoring: {report.findings}"
            again = await db.import_path(self.options["import"], verify=True)
            assert again.ok, again
            assert {file.status for file in again.files} == {"unchanged"}, again

    def _check_contents(self, expected: dict[str, list[Any]]) -> None:
        """Every session that the template had is as it was, entry by entry.

        What was deleted for good is gone.
        """
        found = contents(self.path)
        trash = self.options.get("trash")
        for session_id, entries in expected.items():
            if session_id == trash:
                assert found.get(session_id, []) == [], "what was deleted is still there"
            else:
                assert found.get(session_id) == entries, f"session {session_id} is not as it was"


def contents(path: Path) -> dict[str, list[Any]]:
    """Return every session's entries: number within the session, id, parent and text."""
    found: dict[str, list[Any]] = {}
    for session_id, *entry in query(
        path,
        """SELECT s.session_id, e.entry_no & 0xffffffff, e.entry_id, e.parent_no, e.payload
           FROM entry AS e
           JOIN session AS s ON s.session_no = e.entry_no >> 32 ORDER BY e.entry_no""",
    ):
        found.setdefault(session_id, []).append(entry)
    return found


# -- templates -------------------------------------------------------------------------


Made = tuple[dict[str, Any], list[Line], dict[str, list[Any]] | None]
"""Options for the scenario, what was acknowledged, and the contents."""


class Templates:
    """Databases to begin with, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._made: dict[
            str, tuple[Path, dict[str, Any], list[Line], dict[str, list[Any]] | None]
        ] = {}

    def world(self, name: str, folder: Path) -> World:
        """Return a world for a scenario (or "migrate"), in a new folder."""
        if name not in self._made:
            source = self.folder / name
            source.mkdir()
            options, lines, held = getattr(self, f"_{name}")(source)
            self._made[name] = (source, options, lines, held)
        source, options, lines, held = self._made[name]
        shutil.copytree(source, folder)
        scenario = "create" if name == "migrate" else name
        return World(folder, scenario, dict(options), held, ledger=list(lines))

    def _create(self, folder: Path) -> Made:
        return {}, [], None

    def _talk(self, folder: Path) -> Made:
        anyio.run(_make_empty, folder / "gateway.db")
        return {}, [], None

    _gateway = _talk

    def _migrate(self, folder: Path) -> Made:
        """Make a database as the first release made it, with contents."""
        path = folder / "gateway.db"
        anyio.run(_make_contents, path)
        found = contents(path)
        path.rename(folder / "newer.db")
        as_first_release(folder / "newer.db", path)
        (folder / "newer.db").unlink()
        path.chmod(0o600)
        assert query(path, "PRAGMA user_version") == [1]
        return {}, [], found

    def _recover(self, folder: Path) -> Made:
        """Make a database that a process left behind that held one of everything."""
        death = zygote().live(Order(str(folder / "gateway.db"), "hold", "holding"))
        assert death.killed, death
        # Nobody is sending it any more, and nobody knows: it stays unknown, whoever recovers.
        return {"accept": False}, death.lines, None

    def _maintain(self, folder: Path) -> Made:
        path = folder / "gateway.db"
        old = anyio.run(_make_contents, path)
        files = {
            f"imported-{number}.jsonl": transcript(75, f"imported-{number}") for number in range(2)
        }
        write(folder / "import", files)
        found = contents(path)
        return {"import": str(folder / "import"), "old": old[:2], "trash": old[2]}, [], found


async def _make_empty(path: Path) -> None:
    async with sessiondb.open(path):
        pass


async def _make_contents(path: Path) -> list[str]:
    """Make sessions with some length and a compaction. One is too long for one step of retention.

    Return the ids of those that retention takes first.
    """
    created: list[str] = []
    async with sessiondb.open(path) as db:
        for number in range(4):
            session = await db.session(f"agent:main:old:{number}")
            created.append(session.id)
            await session.append_many(
                [
                    {"role": "user", "content": f"line {at} of session {number} {'x' * 300}"}
                    for at in range(60 if number else 250)
                ]
            )
            await session.append(
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "yes"}],
                    "provider": "p",
                    "model": "m",
                    "stopReason": "stop",
                }
            )
            async with session.compact(trigger="manual", keep_recent_tokens=10) as job:
                await job.commit("They talked.")
    return created

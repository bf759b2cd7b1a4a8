"""What is tried: a move while a gateway answers, and the way back to one that goes on.

Each function returns what is wrong, in sentences, and prints what it did.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from sessiondb import sync
from tests import ROOT

from .model import MARK, Model, marks
from .program import PATIENCE_S, Gateway, Home, Program, running

KEYS = tuple(f"agent:main:{name}" for name in ("compacted", "reset", "deleted", "plain"))
COMPACTED, RESET, DELETED, PLAIN = KEYS
PAUSE_S = 2
TRIES = 5
# What a gateway says if somebody else holds a lock that it needs, or spoils its files.
DISTURBED = re.compile(
    r"database is locked|SQLITE_(BUSY|LOCKED|CORRUPT|IOERR)|malformed|SessionWriteLock|lock timeout"
    r"|checkpoint .*blocked|EBUSY|uncaught|unhandled",
    re.IGNORECASE,
)


def say(text: str) -> None:
    """Print what happens, at once."""
    sys.stdout.write(f"openclaw: {text}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Run:
    """One run of `sessiondb migrate`."""

    exit_code: int
    report: dict[str, Any]
    complaint: str
    seconds: float

    @property
    def reasons(self) -> list[str]:
        """Why it did not succeed."""
        failed = [
            f"{source['path']}: {source['verdict']}: {source['reason']}"
            for source in self.report.get("sources", ())
            if source["verdict"] in ("not-imported", "differs")
        ]
        return [*failed, *self.report.get("problems", ()), *self.complaint.splitlines()]


def migrate(home: Home, database: Path, *options: str) -> Run:
    """Move a home in, by the command."""
    began = time.monotonic()
    command = [sys.executable, "-m", "sessiondb", "migrate", str(home.state), str(database)]
    done = subprocess.run(
        [*command, "--json", *options],
        cwd=ROOT,
        # A gateway's lock lies in the folder for temporary files.
        env={**home.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    report = json.loads(done.stdout) if done.stdout.startswith("{") else {}
    return Run(done.returncode, report, done.stderr, time.monotonic() - began)


@contextmanager
def migrating(home: Home, database: Path) -> Iterator[list[Run]]:
    """Move a home in again and again, beside its gateway."""
    runs: list[Run] = []
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(PAUSE_S):
            runs.append(migrate(home, database))

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield runs
    finally:
        over.set()
        thread.join()


@dataclass
class Talk:
    """What people say to a gateway."""

    model: Model
    gateway: Gateway
    refused: Counter[str] = field(default_factory=Counter)
    newest: dict[str, str] = field(default_factory=dict)
    """The mark of the last question under each key."""
    said: list[str] = field(default_factory=list)

    def begin(self, key: str) -> Future[Any]:
        """Ask a question. Its answer comes later."""
        self.model.questions += 1
        mark = f"q{self.model.questions:04}"
        self.newest[key] = mark
        self.said.append(mark)
        return self.gateway.begin(
            "agent", sessionKey=key, message=f"{mark} is the question", idempotencyKey=mark
        )

    def ask(self, *keys: str) -> None:
        """Ask a question under each key, at once, and wait for the answers.

        On a busy machine OpenClaw 2026.9 misses its own deadlines, and refuses. It is asked again.
        """
        for key, answer in [(key, self.begin(key)) for key in keys]:
            for left in reversed(range(TRIES)):
                try:
                    ended = answer.result(PATIENCE_S)
                except RuntimeError as refused:
                    if not left:
                        raise
                    self.refused[str(refused)] += 1
                    self.said.remove(self.newest[key])
                    answer = self.begin(key)
                    continue
                assert ended["status"] == "ok", ended
                break


def context_marks(database: Path, key: str) -> list[str] | None:
    """Return the marks in the context of a key in a database. None: nothing has this key."""
    with sync.open(database) as db:
        session = db.find(key)
        if session is None:
            return None
        said = json.loads(session.context().as_pi_json())["messages"]
    # Beside its text a message of OpenClaw has the key of its question.
    return [mark for one in said for mark in marks(one.get("summary", one.get("content")))]


def all_marks(database: Path) -> set[str]:
    """Return every mark that is in any transcript of a database, whether it has ended or not."""
    with tempfile.TemporaryDirectory(prefix="sessiondb-openclaw-") as folder:
        with sync.open(database) as db:
            db.export(folder)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {mark for path in files for mark in MARK.findall(_text(path))}


def _text(path: Path) -> str:
    """Return what a file says, unpacked if its name says that it is packed."""
    content = path.read_bytes()
    if path.suffix == ".zst":
        with zstandard.ZstdDecompressor().stream_reader(content) as packed:
            content = packed.read()
    return content.decode()


def compare_contexts(database: Path, talk: Talk, keys: Iterable[str]) -> list[str]:
    """Compare contexts with what the gateway last sent to the model, and with its history."""
    wrong = []
    for key in keys:
        asked = talk.newest[key]
        theirs = [*talk.model.sent[asked], f"a{asked[1:]}"]
        ours = context_marks(database, key)
        if ours != theirs:
            wrong.append(f"{key}: its context is {ours}, and the gateway sent {theirs}")
        shown = talk.gateway.call("chat.history", sessionKey=key, limit=200)["messages"]
        history = [mark for message in shown for mark in marks(message.get("content"))]
        missing = set(history) - all_marks(database)
        if missing:
            wrong.append(f"{key}: {sorted(missing)} are in its history, and not in the database")
        if not {asked, f"a{asked[1:]}"} <= set(history):
            wrong.append(f"{key}: its history lacks what was said last: {history}")
    return wrong


def move(program: Program, home: Home, model: Model, database: Path, log: Path) -> list[str]:
    """Move a home whose gateway answers, is compacted, reset and deleted in. Then the rest."""
    wrong = []
    with running(program, home, log) as gateway:
        say(f"{program.version}: its gateway runs")
        talk = Talk(model, gateway)
        with migrating(home, database) as runs:
            for _ in range(3):
                talk.ask(*KEYS)
            compacting = gateway.begin("sessions.compact", key=COMPACTED)
            talk.ask(PLAIN, RESET)
            compacted = compacting.result(PATIENCE_S)
            if not compacted.get("compacted"):
                wrong.append(f"the gateway did not compact: {compacted}")
            talk.ask(COMPACTED)
            gateway.call("sessions.reset", key=RESET)
            talk.ask(RESET, PLAIN)
            gateway.call("sessions.delete", key=DELETED, deleteTranscript=True)
            talk.ask(COMPACTED, RESET, PLAIN)
        say(f"  the gateway refused: {dict(talk.refused) or 'nothing'}")
        wrong += _beside(runs)
        quiet = migrate(home, database)
        if quiet.exit_code != 0:
            wrong.append(f"beside an idle gateway: {quiet.reasons}")
        wrong += compare_contexts(database, talk, (COMPACTED, RESET, PLAIN))
        too_early = migrate(home, database, "--final")
        if too_early.exit_code != 1 or "OpenClaw is running" not in str(too_early.reasons):
            wrong.append(f"--final beside a gateway: {too_early.exit_code} {too_early.reasons}")
    if found := DISTURBED.findall(log.read_text(errors="replace")):
        wrong.append(f"the gateway was disturbed: {Counter(found)}, in {log}")
    last = migrate(home, database, "--final")
    verdicts = Counter(source["verdict"] for source in last.report.get("sources", ()))
    say(f"{program.version}: final run: {dict(verdicts)}")
    if last.exit_code != 0:
        wrong.append(f"the final run: {last.reasons}")
    lost = {mark for said in talk.said for mark in (said, f"a{said[1:]}")} - all_marks(database)
    if lost:
        wrong.append(f"{sorted(lost)} were said and answered, and are nowhere in the database")
    say(f"{program.version}: {len(talk.said)} questions and their answers are in the database")
    return [f"{program.version}: {sentence}" for sentence in wrong]


def _beside(runs: list[Run]) -> list[str]:
    """Judge runs beside a gateway: each succeeds, or says what has to come with the next one."""
    codes = Counter(run.exit_code for run in runs)
    slowest = max(run.seconds for run in runs)
    say(f"  {len(runs)} runs beside it, exit codes {dict(codes)}, the slowest took {slowest:.0f} s")
    for reason, count in Counter(reason for run in runs for reason in run.reasons).items():
        say(f"  {count} times: {reason}")
    return [
        f"a run ended with {run.exit_code}: {run.complaint[-500:]}"
        for run in runs
        if run.exit_code != 0 and not run.reasons
    ]


def files_of(home: Home) -> dict[str, str]:
    """Return the files of a home, with the SHA-256 of each."""
    return {
        path.relative_to(home.state).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(home.state.rglob("*"))
        if path.is_file()
    }


def back(
    program: Program, home: Home, model: Model, database: Path, second: Path, log: Path
) -> list[str]:
    """Export a database as a home, let doctor repair it, and go on there."""
    wrong = []
    exported = subprocess.run(
        [sys.executable, "-m", "sessiondb", "export", database, "--openclaw", home.state],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if exported.returncode != 0:
        return [f"the export: {exported.stdout}{exported.stderr}"]
    before = files_of(home)
    for options in ((), ("--fix",)):
        done = program.run(home, "doctor", "--non-interactive", *options)
        after = files_of(home)
        name = " ".join(("doctor", *options))
        (log.parent / f"{log.stem}-{name.replace(' ', '')}.log").write_text(
            done.stdout + done.stderr
        )
        say(f"{program.version}: {name} ended with {done.returncode}. {_changes(before, after)}")
        if program.has_files:
            spoiled = [
                path
                for path, sha in before.items()
                if "/sessions/" in path and path.endswith(".jsonl") and after.get(path) != sha
            ]
            if spoiled:
                wrong.append(f"{name} changed {spoiled}")
        before = after
    contexts = {key: context_marks(database, key) for key in KEYS}
    again = migrate(home, second)
    if again.exit_code != 0:
        wrong.append(f"what doctor left cannot be moved in: {again.reasons}")
    for key, context in contexts.items():
        if (found := context_marks(second, key)) != context:
            wrong.append(f"{key}: its context was {context}, and is {found} after doctor")
    if lost := all_marks(database) - all_marks(second):
        wrong.append(f"{sorted(lost)} are in no transcript any more")
    with running(program, home, log) as gateway:
        talk = Talk(model, gateway)
        for key, context in contexts.items():
            if context is None:
                continue
            talk.ask(key)
            asked = talk.newest[key]
            sent = talk.model.sent[asked]
            if sent != [*context, asked]:
                wrong.append(f"{key}: the gateway sent {sent}, and the context was {context}")
            else:
                say(f"{program.version}: {key} goes on, with {len(context)} texts before it")
    return [f"back to {program.version}: {sentence}" for sentence in wrong]


def _changes(before: dict[str, str], after: dict[str, str]) -> str:
    parts = []
    for what, paths in (
        ("new", after.keys() - before.keys()),
        ("gone", before.keys() - after.keys()),
        ("changed", {path for path in before.keys() & after.keys() if before[path] != after[path]}),
    ):
        if paths:
            kinds = Counter(re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "<id>", path) for path in paths)
            listed = ", ".join(f"{path} ({count})" for path, count in sorted(kinds.items()))
            parts.append(f"{what}: {listed}")
    return "; ".join(parts) or "No file changed"

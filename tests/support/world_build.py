"""The rows of the populated world (`world.py`), made by the rules themselves.

A rule is a plain function over a transaction, so no thread, file or event loop is needed.
Rules of several transactions run over `Direct`. Each transaction is a second after the one
before, so no two times are equal unless a test needs that.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import apsw

from sessiondb import events, process
from sessiondb.backend import Step
from sessiondb.clock import iso_from_ms
from sessiondb.gateway import claims, inbox, lanes, leases, outbox, turns
from sessiondb.gateway.outbox import Sending
from sessiondb.maintenance import archive
from sessiondb.sqlite.schema import schema_text
from sessiondb.sqlite.transaction import WriteTransaction
from sessiondb.timers import SYSTEM
from sessiondb.transcript import append, compaction, details, registry
from sessiondb.transcript.compaction import Summary
from sessiondb.transcript.content import digest
from sessiondb.transcript.entries import Draft, draft_decoded
from sessiondb.transcript.keys import parse_key
from sessiondb.transfer import source
from sessiondb.transfer.folder_scan import SourceFile
from sessiondb.transfer.jsonl_reader import Place, read_batches
from tests.support.compaction import begin_in
from tests.support.core import reply, result, user
from tests.support.transfer import header, message

NOW = 1_800_000_000_000
SECOND, HOUR, DAY = 1_000, 3_600_000, 86_400_000
LEASE, TIMEOUT = 30 * SECOND, 10 * DAY
PAGE_BYTES = 4096


class Direct:
    """A `Backend` and a `Database` that run each body at once, on one connection."""

    is_busy = False
    clock = SYSTEM

    def __init__(self, tx: Callable[[], WriteTransaction], stop_before: str | None = None) -> None:
        self.tx = tx
        self.stop_before = stop_before
        self.change_count = 0

    @property
    def backend(self) -> Direct:
        return self

    async def read(self, first: Any, second: Any = None, *, op: str = "") -> Any:
        return (second or first)(self.tx())

    async def write(self, first: Any, second: Any = None, **options: Any) -> Any:
        return (second or first)(self.tx())

    async def step(self, fn: Any, *, op: str, size: int = 0) -> Step[Any]:
        if op == self.stop_before:
            raise Stopped
        return Step(fn(self.tx()), 0.0)


class Stopped(BaseException):
    """Stands for a kill between two transactions."""


@functools.cache
def template() -> bytes:
    """Return the file of the world. Made once per process."""
    connection = apsw.Connection(":memory:")
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = incremental")
    connection.execute(schema_text()).fetchall()
    connection.execute("PRAGMA foreign_keys = on; PRAGMA recursive_triggers = on")
    Builder(connection).build()
    return connection.serialize("main")


class Builder:
    """Fills a new database, by the rules. Each transaction is a second after the one before."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.clock = NOW - 10 * DAY
        self.instances: dict[str, int] = {}
        self.retried: list[Sending] = []

    def build(self) -> None:
        self.processes()
        self.transcripts()
        self.jobs()
        self.imports()
        self.archives()
        self.clock = NOW - 2 * DAY
        self.lanes()
        self.finished_work()
        self.clock = NOW - 3 * HOUR
        self.work()
        self.sending()
        self.waiting()
        self.pauses()
        self.search()
        self.consumers()
        assert self.clock < NOW, "the world was built in the past"

    # -- tools

    def tx(self, program: str = "gateway") -> WriteTransaction:
        self.clock += SECOND
        return WriteTransaction(self.connection, self.clock, self.instances.get(program, 0))

    def sql(self, statement: str, **values: Any) -> None:
        """Do what no rule does: a row of another program, or of a clock that was set back."""
        self.connection.execute(statement, values).fetchall()

    def draft(self, item: Mapping[str, Any], key: str | None = None) -> Draft:
        return draft_decoded(dict(item), now_ms=self.clock, idempotency_key=key)[0]

    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Run a rule of several transactions to its end, also for a test that has a loop."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(anyio.run, fn, *args).result()

    def stopped(self, op: str, fn: Callable[..., Any], *args: Any) -> None:
        """Run a rule of several transactions, and stop it before one of them."""
        try:
            self.run(fn, Direct(self.tx, stop_before=op), *args)
        except Stopped:
            return
        raise AssertionError(f"there was no {op}")

    # -- processes

    def processes(self) -> None:
        me = process.identity()
        for program, host, boot_id, pid in (
            ("finished", me.host, me.boot_id, 11),
            ("killed", me.host, me.boot_id, 12),
            ("dying", me.host, "another boot", 13),
            ("dying-too", me.host, "another boot", 14),
            ("gateway", me.host, me.boot_id, me.pid),
            ("other", me.host, me.boot_id, me.pid),
            ("remote", "another host", "another boot", 15),
            ("sessiondb", me.host, me.boot_id, 16),
        ):
            tx = self.tx()
            row = tx.one(
                "instance.insert",
                host=host,
                boot_id=boot_id,
                pid=pid,
                pid_started=me.pid_started,
                program=program,
                opened_at_ms=tx.now_ms,
            )
            self.instances[program] = row.instance_no
        tx = self.tx()
        for program in ("finished", "sessiondb"):
            tx.run("instance.close", instance_no=self.instances[program], closed_at_ms=tx.now_ms)
        tx.run(
            "recovery.close_dead_instance",
            instance_no=self.instances["killed"],
            now_ms=tx.now_ms + 1,
        )
        self.tx("other").run(
            "draining.mark", instance_no=self.instances["other"], now_ms=self.clock
        )

    # -- sessions

    def session(self, session_id: str, key: str | None = None) -> int:
        tx = self.tx()
        if key is None:
            return registry.create(tx, session_id, agent_id="main", cwd="/project").session_no
        return registry.open_by_key(
            tx, parse_key(key), session_id=session_id, cwd="/project"
        ).session_no

    def say(self, session_no: int, *items: Mapping[str, Any] | str) -> list[Any]:
        """Append items. A text is a user's message, with its text as its idempotency key."""
        receipts = []
        for item in items:
            draft = (
                self.draft(user(item.ljust(200)), item)
                if isinstance(item, str)
                else self.draft(item)
            )
            receipts += append.append(self.tx(), session_no, [draft])
        return receipts

    def begin(self, session_no: int, name: str, *, by: str = "gateway", **options: Any) -> str:
        """Begin a compaction under a name of its own."""
        chosen = {"trigger": "threshold", "keep_recent_tokens": 1, "timeout_ms": HOUR} | options
        job = begin_in(self.tx(by), session_no, **chosen)
        self.sql(
            "UPDATE compaction SET compaction_id = :name WHERE compaction_id = :id",
            name=name,
            id=job.compaction_id,
        )
        return name

    def commit(self, job: str, text: str = "so far") -> None:
        compaction.commit(self.tx(), job, Summary.of(text), iso_from_ms(self.clock))

    def transcripts(self) -> None:
        """Make sessions with every pointer: compacted, branched, reset, undone and forked ones."""
        for number, (session_id, key) in enumerate(
            (("live", "agent:main:web:live"), ("twin", "agent:west:web:twin"))
        ):
            no = self.session(session_id, key)
            self.say(
                no,
                {"type": "thinking_level_change", "thinkingLevel": "high"},
                {"type": "model_change", "provider": "p", "modelId": f"m{number}"},
                f"{session_id} one",
                reply("two " * 60, calls=["a", "b"], tokens=500 + number),
                result("a"),
                result("b"),
                {**user("excluded " * 30), "excludeFromContext": True},
                f"{session_id} three",
                reply("four", tokens=600 + number),
            )
            self.commit(self.begin(no, f"{session_id}-first"))
            at = self.say(
                no,
                f"{session_id} five",
                {"type": "session_info", "name": f"name of {session_id}"},
                {"type": "custom_message", "customType": "n", "content": "note", "display": True},
                {"type": "custom", "customType": "d", "data": {}, "appendMode": "side"},
                reply("six " * 40, tokens=700 + number),
            )
            registry.branch(self.tx(), no, at[0].entry_id, iso_from_ms(self.clock))
            self.say(no, f"{session_id} seven", reply("eight " * 40, tokens=800 + number))
            fork = registry.fork(
                self.tx(),
                no,
                session_id=f"{session_id}-fork",
                entry=None,
                epoch=None,
                key=parse_key(f"agent:main:fork:{session_id}"),
                cwd=None,
            )
            self.say(fork.session_no, f"{session_id} forked")
            undone = self.session(f"{session_id}-undone")
            self.say(undone, "a " * 150, reply("b " * 150), "c", reply("d"))
            self.commit(self.begin(undone, f"{session_id}-undone-first"))
            compaction.undo(self.tx(), undone)
            self.say(undone, "e")
            reset = self.session(f"{session_id}-reset", f"agent:main:web:{session_id}-reset")
            kept = self.say(reset, "f", "g", reply("h", calls=["x"]))[1]
            registry.reset(
                self.tx(),
                reset,
                reason="new",
                keep_from=kept.entry_id,
                timestamp=iso_from_ms(self.clock),
            )
            self.say(reset, "i")
            # A compaction that another program made.
            item = {
                "type": "compaction",
                "summary": "s",
                "firstKeptEntryId": "x",
                "tokensBefore": 5,
            }
            self.say(reset, item, "j")
            self.sql(
                "UPDATE compaction SET compaction_id = :name WHERE session_no = :no",
                name=f"{session_id}-recorded",
                no=reset,
            )
            ended = self.session(f"{session_id}-ended", f"agent:west:web:{session_id}-ended")
            registry.end(self.tx(), ended)
        for session_id in ("live-undone", "twin-undone"):
            registry.pin(self.tx(), self.number(session_id))
        registry.bind(self.tx(), parse_key("agent:main:telegram:live"), self.number("live"))
        for key in ("agent:west:telegram:twin", "agent:main:web:twin"):
            registry.bind(self.tx(), parse_key(key), self.number("twin"))
        for namespace, external_id, session_id in (
            ("app", "thread 1", "live"),
            ("app", "Thread 1", "twin"),
            ("app", "thread 1 ", "live-ended"),
            ("other app", "thread 1", "live-fork"),
        ):
            tx = self.tx()
            tx.run(
                "foreign_ids.add",
                namespace=namespace,
                external_id=external_id,
                session_no=self.number(session_id),
                now_ms=tx.stamp_ms,
            )

        for session_id in ("live", "twin", "live-ended", "live-fork"):
            details.put(self.tx(), self.number(session_id), f'{{"of":"{session_id}"}}', None)
        for namespace, name in (("app", "a"), ("app", "b"), ("app", "c"), ("app 2", "a")):
            of = details.checked_name(namespace, name)
            details.put_named(self.tx(), of, f'{{"of":"{namespace}/{name}"}}', None)

    def number(self, session_id: str) -> int:
        tx = WriteTransaction(self.connection, self.clock, 0)  # no time passes
        return int(tx.one("registry.by_id", session_id=session_id).session_no)

    def jobs(self) -> None:
        """Make compactions in every state, of several processes."""
        for name, by, timeout_ms in (
            ("busy", "gateway", TIMEOUT * 2),
            ("busy-too", "other", TIMEOUT * 2),
            ("held", "dying", TIMEOUT * 2),
            ("held-too", "dying-too", TIMEOUT * 2),
            ("overdue", "remote", HOUR),
            ("overdue-too", "finished", 2 * HOUR),
        ):
            no = self.session(f"job-{name}", f"agent:main:job:{name}")
            self.say(no, "a " * 150, reply("b " * 150), "c", reply("d"))
            self.begin(no, name, by=by, timeout_ms=timeout_ms)
        for name in ("tired", "tired-too"):
            no = self.session(f"job-{name}", f"agent:west:job:{name}")
            self.say(no, "a " * 150, reply("b " * 150), "c", reply("d"))
            failed = self.begin(no, f"{name}-failed", trigger="manual")
            compaction.give_up(self.tx(), failed, "failed", "no luck")
            for count in range(3):
                self.commit(self.begin(no, f"{name}-rejected-{count}"), "too long " * 200)

    # -- imported files

    def imports(self) -> None:
        clean = "\n".join([header("import-clean"), message("m0", None), message("m1", "m0")]) + "\n"
        odd = "\n".join(
            [
                header("import-odd"),
                message("n0", None),
                "not JSON",
                "",
                message("n1", "n0"),
                "{torn",
            ]
        )
        self.file("main/clean.jsonl", clean.encode())
        self.file("main/odd.jsonl", odd.encode())
        blank = clean.replace("import-clean", "import-blank") + "\n"
        self.file("main/blank.jsonl", blank.encode())
        self.file("west/clean.jsonl", clean.replace("import-clean", "import-work").encode())
        self.file("west/odd.jsonl", odd.replace("import-odd", "import-torn").encode())
        self.file(
            "west/growing.jsonl", clean.replace("import-clean", "growing").encode(), last=False
        )
        self.file("west/rest.jsonl.reset.1", clean.replace("import-clean", "rest").encode())
        for agent in ("main", "west"):
            content = json.dumps(
                {f"agent:{agent}:index": {"sessionId": f"import-{agent}"}}
            ).encode()
            self.tx().run(
                "import_file.save_index",
                path=f"/imports/{agent}/sessions.json",
                name=f"{agent}/sessions.json",
                agent_id=agent,
                bytes=len(content),
                lines=0,
                entries=1,
                sha256=hashlib.sha256(content).hexdigest(),
                inode=f"9:{agent}",
                now_ms=self.clock,
                note=None,
                content=content,
                head_byte=None,
            )
        tx = self.tx()
        for name in ("main/clean.jsonl", "west/clean.jsonl"):
            tx.run(
                "import_file.link",
                path=f"/imports/{name}.link",
                name=f"{name}.link",
                kind="live",
                agent_id="main",
                inode=f"1:{name}",
                first_path=f"/imports/{name}",
                now_ms=tx.now_ms,
                note="a hard link",
            )
        for name in ("main/odd.jsonl", "west/odd.jsonl"):
            self.tx().run("import_file.mark_changed", path=f"/imports/{name}", note="it changed")
        for name in ("import-odd", "import-torn"):
            key = parse_key(f"agent:main:imported:{name}")
            registry.bind_imported(self.tx(), key, self.number(name), '{"sessionId": "x"}')

    def file(self, name: str, content: bytes, *, last: bool = True) -> None:
        """Import a file, whole. One that is not read to its end is still being imported."""
        folder, _, rest = name.rpartition("/")
        file = SourceFile(
            path=f"/imports/{name}",
            name=name,
            kind="reset" if ".reset." in name else "live",
            agent_id=folder,
            bytes=len(content),
            inode=f"1:{name}",
            modified_at_ms=self.clock - DAY,
            folder=f"/imports/{folder}",
        )
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / rest
            path.write_bytes(content)
            for batch in read_batches(str(path), Place()):
                batch.last = batch.last and last
                source.store_batch(self.tx(), file, batch)

    # -- archives

    def archives(self) -> None:
        """Make archives in every state, two of each that work can be done on."""
        for name, parent in (
            ("old", None),
            ("old-too", None),
            ("parent", None),
            ("child", "parent"),
        ):
            self.finished_session(name, parent)
        # A fork whose archive is finished, and one whose archive is not.
        for name, parent in (("base", None), ("kept", "base"), ("root", None), ("leaf", "root")):
            self.finished_session(name, parent)
        for name in ("writing", "complete", "deleting", "restoring", "deleted", "dropped"):
            for session_id in (name, f"{name}-too"):
                self.finished_session(session_id)
        for name in ("old", "old-too"):
            self.archive(name)
            self.run(archive.restore, Direct(self.tx), self.number(name))
        for name in ("old", "old-too", "child", "parent"):
            self.archive(name)
        self.archive("kept")
        self.archive("leaf", stop_before="archive.delete")
        for suffix in ("", "-too"):
            self.archive(f"writing{suffix}", stop_before="archive.chunk")
            self.archive(f"complete{suffix}", stop_before="archive.release")
            self.archive(f"deleting{suffix}", stop_before="archive.delete")
            self.archive(f"restoring{suffix}")
            self.stopped("restore.rows", archive.restore, self.number(f"restoring{suffix}"))
            self.archive(f"deleted{suffix}", keep=False)
            row = self.archive(f"dropped{suffix}")
            self.run(archive.drop, Direct(self.tx), row)

    def finished_session(self, name: str, parent: str | None = None) -> None:
        if parent is None:
            no = self.session(name, f"agent:main:old:{name}")
        else:
            no = registry.fork(
                self.tx(),
                self.number(parent),
                session_id=name,
                entry=None,
                epoch=None,
                key=parse_key(f"agent:main:old:{name}"),
                cwd=None,
            ).session_no
        self.say(no, "a " * 150, reply("b " * 150), {"type": "session_info", "name": name}, "c")
        if parent is None:
            self.commit(self.begin(no, f"{name}-first"))
            first = self.tx().one("transcript.by_no", entry_no=no << 32 | 1).entry_id
            registry.branch(self.tx(), no, first, iso_from_ms(self.clock))
            self.say(no, f"{name} again")

    def archive(self, name: str, *, keep: bool = True, stop_before: str | None = None) -> Any:
        async def whole(backend: Direct) -> Any:
            archive_no, protected = await archive.begin(
                backend, self.number(name), f"{name} is old", keep_archive=keep
            )
            assert archive_no is not None, f"{name}: {protected}"
            return await archive.advance(backend, archive_no)

        if stop_before is not None:
            return self.stopped(stop_before, whole)
        return self.run(whole, Direct(self.tx))

    # -- the gateway's queue

    def lanes(self) -> None:
        for lane, concurrency, priority in (("slow", 2, 5), ("slower", 1, 5), ("wide", 9, -1)):
            lanes.set_lane(self.tx(), lane, concurrency, priority)

    def accept(
        self, event_id: str, session_id: str, *, lane: str = "main", channel: str = "web"
    ) -> int:
        """Accept a message for the session of that name. The key is made from the name."""
        agent = "west" if channel == "telegram" else "main"
        message = user(event_id)
        incoming = inbox.Incoming(
            channel,
            event_id,
            parse_key(f"agent:{agent}:chat:{session_id}"),
            lane,
            json.dumps(message),
            digest(message),
            session_id,
            details=json.dumps({"of": event_id}),
        )
        return inbox.accept(self.tx(), incoming).inbox_no

    def claim(
        self, lane: str = "main", *, by: str = "gateway", claim_id: str | None = None
    ) -> claims.Started:
        candidate = claims.peek(self.tx(by), lane, self.clock)
        assert candidate is not None
        draft = self.draft(json.loads(candidate.payload))
        started = claims.claim(
            self.tx(by),
            lane,
            candidate,
            draft,
            lease_ms=LEASE,
            timeout_ms=TIMEOUT,
            claim_id=claim_id,
        )
        assert started is not None
        return started

    def started(
        self,
        event_id: str,
        session_id: str,
        *,
        lane: str = "main",
        channel: str = "web",
        by: str = "gateway",
        claim_id: str | None = None,
    ) -> claims.Started:
        """Accept a message and claim it. Nothing else may wait in the lane."""
        number = self.accept(event_id, session_id, lane=lane, channel=channel)
        turn = self.claim(lane, by=by, claim_id=claim_id)
        assert turn.inbox_no == number, f"another message was claimed before {event_id}"
        return turn

    def answer(self, turn: claims.Started, *targets: str) -> None:
        turns.complete(
            self.tx(),
            turn.turn_no,
            [self.draft(reply("an answer"))],
            [(target, json.dumps({"text": target})) for target in targets],
            incomplete=False,
            reason=None,
        )

    def send(
        self, *, by: str = "gateway", lease_ms: int = LEASE, claim_id: str | None = None
    ) -> Sending:
        """Begin to send the next reply, in this process's or another's name."""
        outgoing = outbox.begin_sending(self.tx(by), lease_ms=lease_ms, claim_id=claim_id)
        assert outgoing is not None
        return outgoing

    def finished_work(self) -> None:
        """Make what pruning deletes: messages, turns and replies of two days ago."""
        for name, channel in (("done-old", "web"), ("done-old-too", "telegram")):
            self.answer(self.started(name, name, channel=channel), f"{channel}:{name}")
            outbox.sent(self.tx(), self.send(), f"receipt of {name}")
        aborted = self.started("aborted-old", "aborted-old")
        turns.abort(self.tx(), aborted.turn_no, "stopped by a person")
        for name in ("dead-old", "dead-old-too"):
            turns.fail(self.tx(), self.started(name, name).turn_no, "no luck", retry=False)

    def work(self) -> None:
        """Make messages and turns in every state, of several processes and in several lanes."""
        # Two workers behind a server use one claim's id in two lanes, and one of them a second.
        for name, lane, by, claim_id in (
            ("running", "main", "gateway", "claim 1"),
            ("running-too", "cron", "other", "claim 1"),
            ("held", "main", "dying", "claim 2"),
            ("held-too", "slow", "dying-too", None),
            ("silent", "main", "other", None),
        ):
            self.started(name, name, lane=lane, by=by, claim_id=claim_id)
        for name, channel in (("done", "web"), ("done-too", "telegram")):
            turn = self.started(name, name, channel=channel, claim_id="claim 3")
            turns.abort(self.tx(), turn.turn_no, "stopped")
        for name, channel in (("dead", "web"), ("dead-too", "telegram")):
            turn = self.started(name, name, channel=channel)
            turns.fail(self.tx(), turn.turn_no, "no luck", retry=False)
        # A resume that was cut off again: a dead letter of lane resume, and one that runs.
        for name in ("dead-resume", "resuming", "resumed", "cut", "cut-too", "cut-failed"):
            if name == "cut-failed":
                turns.abort(self.tx(), self.started("aborted-before", name).turn_no, "stopped")
                first = self.started("failed-before", name)
                turns.fail(self.tx(), first.turn_no, "no luck", retry=False)
            turn = self.started(name, name)
            turns.interrupt(self.tx(), turn.turn_no, "its process died")
            if name in ("dead-resume", "resuming"):
                self.resume(turn.inbox_no)
                again = self.claim("resume", by="other")
                if name == "dead-resume":
                    turns.fail(self.tx(), again.turn_no, "no luck", retry=False)
            elif name == "resumed":
                self.resume(turn.inbox_no)
        # Of sessions that were imported with damaged lines, and with blank ones only.
        for name, session_id in (("cut-damaged", "import-odd"), ("cut-blank", "import-blank")):
            key = parse_key(f"agent:main:chat:{session_id}")
            registry.bind(self.tx(), key, self.number(session_id))
            turns.interrupt(self.tx(), self.started(name, session_id).turn_no, "it died")

    def resume(self, inbox_no: int) -> None:
        tx = self.tx()
        tx.run("inbox.resume", inbox_no=inbox_no, now_ms=tx.now_ms, timeout_ms=90_000)

    def sending(self) -> None:
        """Make replies in every state, of several processes and to two channels."""
        for target, name, by, lease_ms in (
            ("web:sent", "sent", "gateway", LEASE),
            ("telegram:sent", "sent-too", "other", LEASE),
            ("web:unknown", "unknown", "dying", LEASE),
            ("telegram:unknown", "unknown-too", "other", LEASE),
            ("telegram:unknown-too", "unknown-third", "other", LEASE),
            ("web:failed", "failed", "gateway", LEASE),
            ("telegram:failed", "failed-too", "other", LEASE),
            ("web:held", "reply-held", "dying", DAY),
            ("telegram:held", "reply-held-too", "dying-too", DAY),
            ("web:sending", "reply-sending", "gateway", DAY),
            ("telegram:sending", "reply-sending-too", "other", DAY),
            ("web:late", "reply-late", "remote", LEASE),
            ("telegram:late", "reply-late-too", "other", LEASE),
        ):
            channel, _, state = target.partition(":")
            behind = (f"{channel}:behind", f"{channel}:behind-too") if state == "sending" else ()
            self.answer(self.started(f"m-{name}", name, channel=channel), target, *behind)
            claim_id = f"claim of {name}" if state in ("sending", "sent") else None
            outgoing = self.send(by=by, lease_ms=lease_ms, claim_id=claim_id)
            assert outgoing.target == target
            if state == "sent":
                outbox.sent(self.tx(by), outgoing, f"receipt of {name}")
            elif state.startswith("unknown"):
                outbox.lost(self.tx(by), outgoing, "no clear answer")
            elif state == "failed":
                outbox.refused(self.tx(by), outgoing, "no such address", retry=False)
        # As if they had forwarded one event, each for another reader.
        for target, consumer in (("web:failed", "pager"), ("telegram:failed", "mailer")):
            self.connection.execute(
                "UPDATE outbox SET event_no = 7, consumer = ? WHERE target = ?", (consumer, target)
            )
        for name, channel in (("reply-retried", "web"), ("reply-retried-too", "telegram")):
            turn = self.started(f"m-{name}", name, channel=channel)
            self.answer(turn, f"{channel}:retried", f"{channel}:retried-behind")
            self.retried.append(self.send(lease_ms=DAY))
        # In sessions whose older replies are sent.
        for name, channel in (("done-old", "web"), ("done-old-too", "telegram")):
            self.answer(
                self.started(f"m-{name}", name, channel=channel),
                f"{channel}:pending",
                f"{channel}:pending-too",
            )

    def waiting(self) -> None:
        """Make messages that wait: behind a turn, for a retry, in each lane, and told or not."""
        self.clock = NOW - 5 * 60 * SECOND
        for name, session_id, lane in (
            ("running-next", "running", "main"),
            ("running-later", "running", "cron"),
            ("cut-next", "cut", "main"),
            ("resumed-next", "resumed", "main"),
            ("resuming-next", "resuming", "main"),
            ("dead-next", "dead", "main"),
            ("cron-next", "cron-session", "cron"),
            ("slow-next", "slow-session", "slow"),
            ("told", "told", "main"),
            ("untold", "untold", "main"),
            ("untold-too", "untold-too", "main"),
        ):
            self.accept(name, session_id, lane=lane)
        told = self.tx()
        told.run(
            "inbox.mark_delayed",
            inbox_no=told.one("inbox.by_event", channel="web", event_id="told").inbox_no,
        )
        for turn_label in ("running", "running-too", "held-too"):
            tx = self.tx()
            found = tx.one("inbox.by_event", channel="web", event_id=turn_label)
            turn_no = tx.one("inbox.notified", inbox_no=found.inbox_no).turn_no
            assert turn_no is not None
            leases.renew(tx, turn_no, lease_ms=HOUR, operation=f"{turn_label} on")
        self.clock = NOW - 60 * SECOND
        claimed = []
        for name in ("retried", "retried-too"):
            self.accept(name, name, lane="wide")
            claimed.append(self.claim("wide"))
        for name in ("retried", "retried-too"):
            self.accept(f"{name}-behind", name, lane="wide")
            self.accept(f"{name}-last", name, lane="cron")
        ahead = [
            self.started(f"m-ahead-{count}", f"reply-{count}", lane="wide") for count in (1, 2)
        ]
        # Their pause of a second goes on.
        for turn, outgoing, at_ms in zip(
            claimed, self.retried, (NOW - 600, NOW - 300), strict=True
        ):
            self.clock = at_ms - SECOND
            turns.fail(self.tx(), turn.turn_no, "not now", retry=True)
            self.clock = at_ms - SECOND - 50
            outbox.refused(self.tx(), outgoing, "not now", retry=True)
        # A clock that has been set back since: their times lie two days ahead.
        self.clock = NOW + 2 * DAY
        self.accept("ahead", "ahead")
        self.accept("ahead-too", "ahead-too", lane="cron")
        self.accept("retried-ahead", "retried", lane="wide")
        for turn, channel in zip(ahead, ("web", "telegram"), strict=True):
            self.answer(turn, f"{channel}:ahead")

    def pauses(self) -> None:
        """Make channels that said when to try again: some wait, for others that is over."""
        for channel, begun_ms, until_ms in (
            ("signal", NOW - 100, NOW + HOUR),
            ("matrix", NOW, NOW + 1),
            ("irc", NOW - SECOND, NOW),
            ("sms", NOW - DAY, NOW - HOUR),
            ("fax", NOW + 1, NOW + HOUR),  # by a clock that has been set back since
        ):
            self.tx().run(
                "channels.put_pause",
                channel=channel,
                refused_since_ms=begun_ms - HOUR,
                pauses=3,
                now_ms=begun_ms,
                until_ms=until_ms,
                reason=f"429 of {channel}",
            )

    def search(self) -> None:
        """Begin an index for a search. No entry is in it yet."""

        tx = self.tx()
        tx.run("search.begin", now_ms=NOW)
        for name in ("twin", "live"):
            number = self.number(name)
            low_no = number << 32
            tx.run("search.advance", session_no=number, after_no=low_no, indexed_no=low_no)

    def consumers(self) -> None:
        self.clock = NOW - 2 * SECOND
        tx = self.tx()
        for name in ("done", "done-too", "dead", "dead-too"):  # ties at the edge of a page
            tx.run(
                "import_file.date_session",
                session_no=self.number(name),
                created_at_ms=None,
                updated_at_ms=NOW - 4 * HOUR,
            )
        events.emit(tx, "crash_loop", "operator", "Nothing is resumed", messages=2)
        events.emit(tx, "note", "user", "Hello", session_no=self.number("cut"))
        events.emit(tx, "note", "operator", "Hello", session_no=self.number("cut"))
        events.emit(tx, "note", "user", "To all", n=1)
        events.emit(tx, "note", "user", "Hello", session_no=self.number("cut-too"))
        tx.run("events.move_cursor", consumer="pager", event_no=3)
        tx.run("events.move_cursor", consumer="web", event_no=5)

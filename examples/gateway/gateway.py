"""What a gateway does with sessiondb.

Everything else in this folder is HTTP, HTML and a model.

    a message    db.accept, then acknowledge    on disk first, once for each event
    /stop        session.abort                  the turn of a conversation, in any process
    an answer    db.run_lane(lane, handler)     one turn per session, retried, cut off
    a tool       turn.append                    the call, then its result, as they happen
    a reply      db.run_outbox(sender)          from a row that the end of the turn wrote
    a notice     db.events, db.forward_event    to open pages at once, to channels by outbox
    compaction   session.compact() in a task    no turn waits for it, and no message
    start        db.recover, db.run_recovery     users first, resumes within their budget
    stop         db.drain                       what was begun is finished and sent
    ever after   db.reset_if_due, db.gc         stale conversations reset, old ones archived

Memory holds only the open pages and the work of this process. A kill -9 loses nothing
that was promised. Several of these processes may share one database.

An answer is shown to open pages while it is written. That is not kept: the answer is.

Not shown: accounts. A page that is open on one process learns of another process's work
by notices only. When it is opened, it reads the conversation and the notices that it
missed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from sessiondb import (
    Accepted,
    Answer,
    CompactionRefused,
    CompactionTimeout,
    Decision,
    Event,
    LaneSettings,
    NothingToCompact,
    Recovered,
    Reply,
    ResetPolicy,
    ResumePolicy,
    RetentionPolicy,
    Session,
    SessionDB,
    SessionDBError,
    Turn,
)

from .channels import Notice, Pages, SimulatedChannel, in_words, session_key, target_of
from .model import Model, text_of
from .tools import calls_of, use_tool

log = logging.getLogger("gateway")

AGENTS = {
    "main": "You are a helpful assistant. Be brief.",
    "coder": "You are a careful programmer. Answer with code where code is an answer.",
    "writer": "You are an editor. Prefer short words.",
}
COMMANDS = {
    "/status": "how long the conversation is, and what it is busy with",
    "/compact": "summarise earlier messages now. Behind it may stand what matters most",
    "/new": "begin afresh, or /reset. What was said before can still be read",
    "/stop": "stop the answer that is being written, or the summary",
    "/help": "this list",
}
# These wait their turn in the inbox, so that they come after what was said before them.
# The other commands act at once.
RESETS = ("/new", "/reset")
# The reader of events whose position says which notices have been passed on. All
# processes share it.
NOTICES = "notices"


@dataclass(frozen=True)
class Settings:
    """What the command line may change."""

    threshold_tokens: int = 4_000
    """A context larger than this is compacted in the background."""
    keep_tokens: int = 1_000
    compaction_timeout_s: float = 60.0
    late_s: float = 600.0
    """A summary that outlasts its block by less than this is still committed."""
    summaries_max: int = 2
    """Summarisers at work at once, in this process.

    One that nobody waits for any more is one of them.
    """
    compaction_pause_s: float = 60.0
    """After a summariser failed or took too long, a session is not compacted by itself
    for so long.
    """
    reset: ResetPolicy | None = None
    """When a conversation is stale. None: never."""
    retention: RetentionPolicy | None = None
    """What is kept. None: everything, for ever."""
    gc_every_s: float = 3_600.0
    lane: LaneSettings = field(
        default_factory=lambda: LaneSettings(timeout_s=120.0, delayed_after_s=5.0)
    )
    resume: ResumePolicy = field(default_factory=ResumePolicy)
    care_every_s: float = 2.0
    channel_log: Path | None = None
    """Where the simulated channels note what they were sent: their users' memory, which
    outlives this process.
    """
    send_delay_s: float = 0.0


class Gateway:
    """What runs between start and stop."""

    def __init__(self, db: SessionDB, model: Model, settings: Settings) -> None:
        self.db, self.model, self.settings = db, model, settings
        self.recovered = Recovered()
        self.decisions: list[Decision] = []
        self.working: dict[str, Turn] = {}
        self.written: dict[str, str] = {}
        self.compacting: dict[str, anyio.CancelScope] = {}
        self.pages = Pages()
        self.tell = self.pages.tell
        self.channel = SimulatedChannel(settings.channel_log, settings.send_delay_s)
        self._summaries = asyncio.Semaphore(settings.summaries_max)
        self._paused: dict[str, float] = {}

    async def start(self, tasks: TaskGroup) -> None:
        """Give back what dead processes held, decide what is resumed, then begin to work."""
        self._tasks = tasks
        self.recovered = await self.db.recover()
        self.decisions = await self.db.resume(self.settings.resume)
        for decision in self.decisions:
            log.info(
                "interrupted message %s: %s, because: %s",
                decision.inbox_no,
                decision.action,
                decision.reason,
            )
        # Users first: lane resume has the lowest priority, and a resume that makes
        # no progress is cut off as its policy says.
        for lane in ("main", "cron", "resume"):
            tasks.start_soon(
                partial(self.db.run_lane, lane, self.answer, settings=self.settings.lane)
            )
        tasks.start_soon(self.db.run_outbox, self.send)
        tasks.start_soon(self._again, self._tell_users)
        tasks.start_soon(self._again, self._tell_operators)
        if self.settings.retention is not None:
            tasks.start_soon(self._again, partial(self._keep_small, self.settings.retention))
        # Looks after what other processes leave behind while this one runs, and lets
        # resumes go on as room is made.
        tasks.start_soon(
            partial(self.db.run_recovery, self.settings.resume, every_s=self.settings.care_every_s)
        )

    # -- a message comes in ------------------------------------------------------------

    async def receive(
        self, channel: str, agent: str, conversation: str, event_id: str, text: str
    ) -> Accepted:
        """Accept a message.

        When this returns it is on disk, and only then may its sender be told so.
        """
        key = session_key(channel, agent, conversation)
        message = {
            "role": "user",
            "content": text,
            "timestamp": round(time.time() * 1000),
            "event_id": event_id,  # a page knows its own messages by it
        }
        stale = (
            await self.db.reset_if_due(key, self.settings.reset)
            if self.settings.reset is not None
            else None
        )
        accepted = await self.db.accept(
            key,
            message,
            channel=channel,
            event_id=event_id,
            lane="cron" if channel == "cron" else "main",
            details={"target": f"{channel}:{conversation}"},  # for the answer. No model reads it
        )
        if stale is not None:
            self.tell(accepted.session_id, "reset", reason=stale)
        if not accepted.duplicate:
            self.tell(
                accepted.session_id,
                "accepted",
                event_id=event_id,
                inbox_no=accepted.inbox_no,
                ahead=accepted.ahead,
                text=text,
            )
        return accepted

    # -- a turn ------------------------------------------------------------------------

    async def answer(self, turn: Turn) -> Answer:
        """Answer one message.

        Whatever happens here, `run_lane` records it. A crash is found by the next
        start.
        """
        session, inbox_no = turn.session, turn.inbox_no
        self.working[session.id] = turn
        self.tell(
            session.id,
            "thinking",
            inbox_no=inbox_no,
            attempt=turn.attempt,
            resumed=turn.kind == "resume",
        )
        try:
            text, entries = await self._think(turn)
        except Exception as error:
            self.tell(
                session.id, "failed", inbox_no=inbox_no, attempt=turn.attempt, reason=str(error)
            )
            raise
        finally:
            if (
                self.working.get(session.id) is turn
            ):  # a turn that was stopped may end after the next one has begun
                del self.working[session.id]
                self.written.pop(session.id, None)
        if not text.strip():
            return Answer(incomplete="the model answered with nothing")
        # One transaction: the entry, the reply's row, and the end of the turn.
        reply = {"text": text, "event_id": turn.event_id, "inbox_no": inbox_no}
        return Answer(entries=entries, replies=[(turn.details["target"], reply)])

    async def _think(self, turn: Turn) -> tuple[str, list[dict[str, Any]]]:
        if (word := text_of(turn.message).split(maxsplit=1)[0]) in RESETS:
            # In line with the messages before and behind it, and in the name of this
            # turn: one that was taken over may not.
            await turn.reset(word.removeprefix("/"))
            return "A new conversation. What was said before is kept, and not part of it.", []
        context = await turn.session.context()
        if context.tokens > self.settings.threshold_tokens:
            self.compact_soon(turn.session, "threshold")
        system = AGENTS.get(turn.agent_id or "main", AGENTS["main"])
        message = await self._ask(turn, system, context.messages)
        while calls_of(message):  # the turn's deadline is the bound
            message = await self._ask(turn, system, await self._use_tools(turn, message))
        return text_of(message), [{**message, "answers": turn.event_id}]

    async def _ask(self, turn: Turn, system: str, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Ask the model. Open pages see what it has written so far."""
        session_id = turn.session.id
        self.written[session_id] = ""

        def write(piece: str) -> None:
            if self.working.get(session_id) is turn:
                written = self.written[session_id]
                self.written[session_id] = written + piece
                # Where it belongs goes with it: a page that opens now was told the rest.
                self.tell(session_id, "writing", begins_at=len(written), text=piece)

        return await self.model.answer(system, messages, attempt=turn.attempt, write=write)

    async def _use_tools(self, turn: Turn, message: dict[str, Any]) -> list[dict[str, Any]]:
        """Carry out what the model asked for.

        Return the conversation with it. Each step is on disk before the next one.
        """
        await turn.append(message)
        for call in calls_of(message):
            await turn.renew(f"tool {call['name']}")  # `held` shows it
            await turn.append(await use_tool(call))
        return (await turn.session.context()).messages

    # -- a reply goes out --------------------------------------------------------------

    async def send(self, reply: Reply) -> str | None:
        """Hand a reply to its channel.

        Return the channel's receipt. Not knowing is an exception, and is recorded as
        that.
        """
        message = reply.message
        if not reply.target.startswith("web:"):
            # Its number goes with it: a channel that knows idempotency keys can be
            # asked about it, or told to send it again.
            await self.channel.send(
                {
                    "target": reply.target,
                    "outbox_no": reply.outbox_no,
                    "attempt": reply.attempts,
                    **message,
                }
            )
        if "event_no" in message:  # a notice: open pages have been told by `_tell_users`
            return f"notice-{reply.outbox_no}"
        # A page that is not open reads the reply in the conversation later: that counts as sent.
        return (
            f"reply-{reply.outbox_no}, shown on "
            f"{self.tell(reply.session_id, 'reply', **message)} pages"
        )

    # -- compaction --------------------------------------------------------------------

    def compact_soon(self, session: Session, trigger: str, focus: str = "") -> bool:
        """Compact beside the conversation.

        False if this process is at it already, or failed at it a moment ago.
        """
        paused = trigger != "manual" and time.monotonic() < self._paused.get(session.id, 0.0)
        if paused or session.id in self.compacting:
            return False
        self.compacting[session.id] = anyio.CancelScope()
        self._tasks.start_soon(self._compact, session, trigger, focus)
        return True

    async def _compact(self, session: Session, trigger: str, focus: str) -> None:
        report: Notice = {
            "outcome": "cancelled",
            "text": "The summary was stopped. Nothing is lost.",
        }
        try:
            with self.compacting[session.id]:
                await (
                    self._summaries.acquire()
                )  # given back when the summariser has ended, which may be after the block
                report = await self._summarise_and_commit(session, trigger, focus)
        finally:
            del self.compacting[session.id]
            if report["outcome"] in (
                "failed",
                "expired",
            ):  # not again on every message. A person may all the same
                self._paused[session.id] = time.monotonic() + self.settings.compaction_pause_s
            self.tell(session.id, "compacted", trigger=trigger, **report)

    async def _summarise_and_commit(self, session: Session, trigger: str, focus: str) -> Notice:
        settings = self.settings
        job = session.compact(
            trigger=trigger,
            keep_recent_tokens=settings.keep_tokens,
            threshold_tokens=settings.threshold_tokens,
            timeout_s=settings.compaction_timeout_s,
        )
        summary: asyncio.Future[str] | None = None
        late = False
        try:
            async with job:
                self.tell(session.id, "compacting", trigger=trigger, tokens=job.tokens_before)
                summary = asyncio.ensure_future(self.model.summarise(job.messages, focus))
                result = await job.commit(await asyncio.shield(summary))
        except CompactionTimeout as error:
            # Nobody waits for it any more, and the session goes on. But the summariser
            # is still at work, and paid for.
            log.warning("%s", error)
            if late := summary is not None:
                self._tasks.start_soon(self._commit_late, session, job.id, summary)
            return {
                "outcome": "expired",
                "text": (
                    "The summary takes long. The conversation goes on, and the summary is "
                    "used when it comes."
                ),
            }
        except NothingToCompact as refused:
            log.info("%s", refused)
            return {
                "outcome": "refused",
                "text": (
                    "There is nothing to summarise yet: about "
                    f"{settings.keep_tokens:,} tokens of the newest messages stay as they are."
                ),
            }
        except CompactionRefused as refused:  # another process is at it
            log.info("%s", refused)
            return {"outcome": "refused", "text": f"Not summarised: {refused}"}
        except Exception as error:
            # The model failed, or the database was busy. The job's row says why. After
            # a pause a message starts another attempt.
            log.warning("session %s: compaction failed", session.id, exc_info=error)
            return {"outcome": "failed", "text": f"Not summarised: {error}"}
        finally:
            if summary is None:
                self._summaries.release()
            else:
                if not late:
                    summary.cancel()
                summary.add_done_callback(lambda _: self._summaries.release())
        return in_words(result.outcome, result.tokens_before, result.tokens_after, late=result.late)

    async def _commit_late(
        self, session: Session, compaction_id: str, summary: asyncio.Future[str]
    ) -> None:
        """Commit a summary whose block is over.

        sessiondb decides whether it is still of use.
        """
        try:
            with anyio.fail_after(self.settings.late_s):
                text = await asyncio.shield(summary)
            result = await self.db.commit_compaction(compaction_id, text)
        except Exception as error:
            log.warning(
                "session %s: compaction %s gets no late summary",
                session.id,
                compaction_id,
                exc_info=error,
            )
        else:
            report = in_words(
                result.outcome, result.tokens_before, result.tokens_after, late=result.late
            )
            self.tell(session.id, "compacted", trigger="late", **report)
        finally:
            summary.cancel()

    # -- commands ----------------------------------------------------------------------

    async def command(self, session: Session, text: str) -> str | None:
        """Carry out a command at once, whatever the conversation is busy with.

        None if it is none of these.
        """
        word, _, rest = text.strip().partition(" ")
        match word:
            case "/status":
                return await self._status_text(session)
            case "/compact":
                if self.compact_soon(session, "manual", rest.strip()):
                    return "Earlier messages are being summarised. You can go on meanwhile."
                return "A summary is being written already."
            case "/stop":
                return await self._stop(session)
            case "/help":
                return "\n".join(f"{word}  {does}" for word, does in self.help().items())
        return None

    def help(self) -> dict[str, str]:
        """Return each command, and what it does."""
        return {**COMMANDS, **self.model.demo}

    async def _status_text(self, session: Session) -> str:
        # One snapshot: these figures agree. Who holds what is read in another one.
        info = await session.info()
        mine = [holding for holding in await self.db.held() if holding.session_id == session.id]
        now_ms = time.time() * 1000
        return "\n".join(
            [
                f"Agent: {info.agent_id or 'main'}, model {self.model.name}",
                (
                    f"The model is shown {'' if info.tokens_fresh else 'about '}"
                    f"{info.context_tokens:,} tokens. Above {self.settings.threshold_tokens:,} "
                    "earlier messages are summarised"
                ),
                f"Summarised so far: {info.compactions:,} times",
                f"Kept: {info.entries:,} entries, in session {info.session_id}",
                *(
                    f"Busy: {held.operation or held.what}, {(now_ms - held.since_ms) / 1000:.0f} s"
                    for held in mine
                ),
            ]
        )

    async def _stop(self, session: Session) -> str:
        turn = self.working.get(session.id)
        stopped = await session.abort("stopped by its user")  # in whichever process it runs
        if stopped and turn is not None:
            self.tell(session.id, "stopped", inbox_no=turn.inbox_no)
        if session.id in self.compacting:
            self.compacting[session.id].cancel()
            stopped = True
        return "Stopped." if stopped else "Nothing is running."

    # -- whoever waits, and whoever looks after it -------------------------------------

    async def _tell_users(self) -> None:
        """Forward events to open pages, and once to their channel.

        Whichever process comes first forwards an event to the channel.
        """
        # From the start: a process may have died before anybody ever read its events.
        async for event in self.db.events(NOTICES, audience="user", from_start=True):
            if event.session_id is None:
                continue
            self.tell(event.session_id, "notice", **notice_of(event))
            info = await (await self.db.session_by_id(event.session_id)).info()
            targets = [target_of(key) for key in info.keys]
            if targets and targets[0] is not None and not targets[0].startswith("web:"):
                # A page reads what it missed. A channel is sent it, like a reply.
                await self.db.forward_event(
                    event, consumer=NOTICES, target=targets[0], message=notice_of(event)
                )

    async def _tell_operators(self) -> None:
        async for event in self.db.events("log", audience="operator"):
            log.info("%s: %s", event.kind, event.text)

    async def _keep_small(self, policy: RetentionPolicy) -> None:
        while True:
            report = await self.db.gc(policy)
            if report.decisions:
                log.info(
                    "retention: %s sessions went, %s failed",
                    report.count("done"),
                    report.count("failed"),
                )
            await asyncio.sleep(self.settings.gc_every_s)

    async def _again(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop until it returns, because this process drains.

        A database that is busy, or a disk that is full, is a reason to wait and not to
        stop.
        """
        while True:
            try:
                return await loop()
            except SessionDBError as error:
                if not error.retry:
                    raise
                log.warning("%s", error)
                await asyncio.sleep(1.0)


def notice_of(event: Event) -> Notice:
    """Return what a page or a channel is told of an event.

    Its number lets them see that they have it already.
    """
    return {
        **event.data,
        "event": event.kind,
        "event_no": event.event_no,
        "text": event.text,
        "at_ms": event.at_ms,
    }

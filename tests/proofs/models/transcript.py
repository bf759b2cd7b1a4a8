"""A transcript that is obviously right: lists, dictionaries and parent pointers, without indexes.

It does no arithmetic on numbers either. `proofs/models/test_transcript.py` runs the
database beside this model and compares them after every step. Everything is computed
the slow way: a path by walking parents, a context by slicing the path, a token count by
adding up. Its rules are from `docs/design.md`, not from the code. For example, it
decides the outcome of a commit by comparing the entries that two summaries cover, where
the database compares numbers.

The model knows nothing of storage: idempotency is a dictionary, an epoch is a row in a list, a
fork shares objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

COOL_DOWN_AFTER = 3
COOL_DOWN_MS = 600_000
MANUAL_FLOOR = 512

Shown = tuple[str, str]

FAILED = ("error", "aborted")
ASSISTANT = ("assistant", "call", *FAILED)
BEGINNING: Shown = ("user", "(The conversation begins here.)")
NO_RESULT: Shown = ("toolResult", "There is no result")
NOT_MESSAGES = ("setting", "compaction", "reset")


@dataclass(eq=False)
class Item:
    """One entry. Two items are the same only if they are the same object."""

    kind: str
    text: str
    parent: Item | None
    tokens: int = 0
    usage: int | None = None
    """The provider's count that a reply carries."""
    counted: bool = False
    """Its count is one of the context to which it was appended."""
    call_id: str | None = None
    thinking: str = "off"
    boundary: Item | None = None
    """The boundary in force for it. A boundary is in force for itself."""
    kept: Item | None = None
    """Of a boundary: the first item before it that stays."""
    before: Item | None = None
    """Of a boundary: the one that was in force before it."""
    entry_id: str = ""

    @property
    def is_message(self) -> bool:
        return self.kind not in NOT_MESSAGES

    @property
    def shown(self) -> Shown:
        role = {
            "call": "assistant",
            "error": "assistant",
            "aborted": "assistant",
            "result": "toolResult",
            "bash": "bashExecution",
            "hidden": "bashExecution",
            "note": "custom",
            "compaction": "compactionSummary",
        }
        return (role.get(self.kind, self.kind), self.text)


@dataclass
class Epoch:
    reason: str
    boundary: Item | None
    kept: Item | None
    closed_head: Item | None = None


@dataclass
class Job:
    compaction_id: str
    trigger: str
    base_epoch: int
    covered: list[Item] | None
    """The messages of the path that its summary replaces, from the root on.

    None: nothing, all is kept."""
    kept: Item | None
    tokens_before: int
    deadline_ms: int
    state: str = "running"
    finished_ms: int = 0
    epoch: int | None = None
    item: Item | None = None
    late: bool = False
    threshold: int | None = None
    in_vain: bool = False


class Refused(Exception):
    """The model refuses what the database must refuse too. The argument names the error's class."""


def tokens_of(text: str, extra_chars: int = 0) -> int:
    return math.ceil((len(text) + extra_chars) / 4)


def path_to(item: Item | None) -> list[Item]:
    found = []
    while item is not None:
        found.append(item)
        item = item.parent
    return found[::-1]


def span_of(
    head: Item | None, boundary: Item | None, kept: Item | None
) -> tuple[list[Item], list[Item]]:
    """Split the path of a context: what was kept from before the boundary, and what came after."""
    path = path_to(head)
    if boundary is None:
        return [], path
    at = path.index(boundary)
    start = path.index(kept) if kept is not None else at
    return path[start:at], path[at + 1 :]


def kept_by_reset(items: Sequence[Item]) -> list[Item]:
    """A reset keeps the conversation only: questions, replies, and results whose call is kept."""
    found, waiting = [], []
    for item in items:
        if item.kind == "call":
            waiting.append(item.call_id)
        if item.kind == "result" and item.call_id in waiting:
            waiting.remove(item.call_id)
            found.append(item)
        if item.kind in ("user", *ASSISTANT):
            found.append(item)
    return found


def context_of(head: Item | None, boundary: Item | None, kept: Item | None) -> list[Item]:
    """Return the items that a context shows. A compaction stands for its summary."""
    before, after = span_of(head, boundary, kept)
    summary = [boundary] if boundary is not None and boundary.kind == "compaction" else []
    if boundary is not None and boundary.kind == "reset":
        before = kept_by_reset(before)
    return summary + [item for item in before + after if item.is_message and item.kind != "hidden"]


def prompt_of(items: Sequence[Item]) -> list[Shown]:
    """Put what a context shows in the order that a provider takes.

    A result belongs to the last call before it with its id. The first result of a call stands
    right behind it. The others, and those without a call, are left out. A call without a result
    gets one. A prompt begins with no reply.
    """
    answers: dict[Item, Item] = {}
    for at, item in enumerate(items):
        if item.kind == "result":
            calls = [one for one in items[:at] if one.kind == "call"]
            own = [one for one in calls if one.call_id == item.call_id]
            if own:
                answers.setdefault(own[-1], item)
    found: list[Shown] = [BEGINNING] if items and items[0].kind in ASSISTANT else []
    for item in items:
        if item.kind != "result":
            found.append(item.shown)
        if item.kind == "call":
            found.append(answers[item].shown if item in answers else NO_RESULT)
    return found


def may_begin(item: Item) -> bool:
    return item.is_message and item.kind != "result"


def stays_from(messages: Sequence[Item]) -> int:
    """Return the index of the first message that waits for an answer. If none does, their number.

    A reply that calls a tool is no answer, and neither is one that failed or was aborted.
    """
    answers = [index for index, item in enumerate(messages) if item.kind == "assistant"]
    after = range(answers[-1] + 1 if answers else 0, len(messages))
    waits = ("user", "call", "note", "bash")
    return next((index for index in after if messages[index].kind in waits), len(messages))


def separates(messages: Sequence[Item], count: int) -> bool:
    """Tell whether a result after the first `count` messages has its call among them.

    A result belongs to the last call before it with its id.
    """
    for index in range(count, len(messages)):
        if messages[index].kind == "result":
            calls = [
                at
                for at in range(index)
                if messages[at].kind == "call" and messages[at].call_id == messages[index].call_id
            ]
            if calls and calls[-1] < count:
                return True
    return False


def place_to_cut(messages: Sequence[Item], keep_tokens: int) -> int | None:
    """Return how many messages a summary covers if about `keep_tokens` are kept. None if none."""
    stays = stays_from(messages)
    places = [
        n
        for n in range(1, stays + 1)
        if n == len(messages) or (may_begin(messages[n]) and not separates(messages, n))
    ]
    enough = [
        n
        for n in range(len(messages) + 1)
        if sum(item.tokens for item in messages[n:]) >= keep_tokens
    ]
    if not messages or not enough or (enough[-1] == 0 and may_begin(messages[0])):
        return None
    budget = min(enough[-1], stays)
    return min((n for n in places if n >= budget), default=None) or max(
        (n for n in places if n < budget), default=None
    )


@dataclass
class Session:
    """One transcript, its generations and its jobs."""

    session_id: str
    head: Item | None = None
    boundary: Item | None = None
    kept: Item | None = None
    tokens: int = 0
    fresh: bool = False
    ended: bool = False
    arrived: list[Item] = field(default_factory=list)
    records: int = 0
    """Entries of any sort: those in `arrived`, and the records that moved the head."""
    by_key: dict[str, Item] = field(default_factory=dict)
    epochs: list[Epoch] = field(default_factory=lambda: [Epoch("start", None, None)])
    jobs: list[Job] = field(default_factory=list)
    forked_at: Item | None = None
    undone: dict[Item, int] = field(default_factory=dict)
    """Compactions that were undone, and in which epoch. 0: before the session was forked."""

    @property
    def epoch(self) -> int:
        return len(self.epochs) - 1

    @property
    def compactions(self) -> int:
        return sum(job.state == "committed" for job in self.jobs)

    @property
    def thinking(self) -> str:
        return self.head.thinking if self.head is not None else "off"

    def context(self, epoch: int | None = None) -> list[Item]:
        if epoch is None or epoch == self.epoch:
            return context_of(self.head, self.boundary, self.kept)
        past = self.epochs[epoch]
        return context_of(past.closed_head, past.boundary, past.kept)

    def reachable(self) -> list[Item]:
        """Items that `branch` and `fork` can name: its own, and those up to where it was forked."""
        return self.arrived + [item for item in path_to(self.forked_at) if item not in self.arrived]

    def in_force(self, boundary: Item | None) -> Item | None:
        """Return the boundary of an item's context: its own or, if that was undone, the one before.

        An undo stays, wherever the head goes.
        """
        while boundary is not None and boundary in self.undone:
            boundary = boundary.before
        return boundary

    # -- append ------------------------------------------------------------------------------

    def append(
        self,
        kind: str,
        text: str,
        *,
        key: str | None = None,
        call_id: str | None = None,
        usage: int | None = None,
        asked: int | None = None,
    ) -> tuple[Item, bool]:
        """Append an item. `asked` is the epoch that a reply's model was sent, if it is known."""
        known = self.by_key.get(key) if key is not None else None
        if known is not None:
            if (known.kind, known.text, known.call_id, known.usage) != (kind, text, call_id, usage):
                raise Refused("IdentityConflict")
            return known, True
        if self.ended:
            raise Refused("SessionEnded")
        item = self._follow(kind, text)
        item.call_id, item.usage = call_id, usage
        item.boundary = self.boundary
        if kind == "call":
            item.tokens = tokens_of(text, len("ls") + len("{}"))
        elif kind == "setting":
            item.thinking = text
        elif kind != "hidden":
            item.tokens = tokens_of(text)
        item.counted = usage is not None and self._is_asked_here(item, asked)
        if item.counted and usage is not None:
            self.tokens, self.fresh = usage, True
        else:
            self.tokens += item.tokens
        if key is not None:
            self.by_key[key] = item
        return item, False

    def _is_asked_here(self, reply: Item, asked: int | None) -> bool:
        if asked is not None:
            return asked == self.epoch
        _, after = span_of(self.head, self.boundary, self.kept)
        sent = [item for item in after if item.tokens and item is not reply]
        return self.boundary is None or any(item.is_message for item in sent)

    def _follow(self, kind: str, text: str) -> Item:
        head = self.head
        item = Item(
            kind,
            text,
            head,
            thinking=head.thinking if head else "off",
        )
        self.head = item
        self.arrived.append(item)
        self.records += 1
        return item

    # -- moving ------------------------------------------------------------------------------

    def _next_epoch(self, reason: str, boundary: Item | None, kept: Item | None) -> None:
        self.epochs[-1].closed_head = self.head
        self.epochs.append(Epoch(reason, boundary, kept))
        self.boundary, self.kept = boundary, kept

    def _estimated(self) -> int:
        before, after = span_of(self.head, self.boundary, self.kept)
        summary = self.boundary.tokens if self.boundary is not None else 0
        return summary + sum(item.tokens for item in before + after if item.is_message)

    def _count(self) -> None:
        """Count anew: the last reply's count if one was made in this context, plus estimates."""
        self.tokens, self.fresh = self._estimated(), False
        _, after = span_of(self.head, self.boundary, self.kept)
        for index, item in enumerate(after):
            if item.counted and item.usage is not None and item.boundary is self.boundary:
                later = [one.tokens for one in after[index + 1 :] if one.is_message]
                self.tokens, self.fresh = item.usage + sum(later), True

    def _live(self) -> None:
        if self.ended:
            raise Refused("SessionEnded")

    def branch(self, target: Item | None) -> None:
        self._live()
        if target is self.head:
            return
        boundary = self.in_force(target.boundary) if target is not None else None
        self._next_epoch("branch", boundary, boundary.kept if boundary is not None else None)
        self.head = target
        self.records += 1
        self._count()

    def pop(self, count: int) -> list[Item]:
        self._live()
        taken = [item for item in self._since_reset() if item.is_message][-count:]
        if taken:
            self.branch(taken[0].parent)
        return taken

    def undo_turn(self) -> list[Item]:
        self._live()
        taken = [item for item in self._since_reset() if item.kind == "user"][-1:]
        if taken:
            self.branch(taken[0].parent)
        return taken

    def _since_reset(self) -> list[Item]:
        path = path_to(self.head)
        resets = [at for at, item in enumerate(path) if item.kind == "reset"]
        return path[resets[-1] + 1 :] if resets else path

    def reset(self, keep_from: Item | None) -> Item:
        self._live()
        if keep_from is not None and keep_from not in path_to(self.head):
            raise Refused("NotFound")
        return self._begin_at("reset", "", keep_from)

    def _begin_at(self, kind: str, text: str, kept: Item | None) -> Item:
        """Append a boundary: the epoch before it ends before it."""
        closed_head = self.head
        item = self._follow(kind, text)
        item.kept, item.boundary, item.before = kept, item, self.boundary
        item.tokens = tokens_of(text)
        self._next_epoch(kind, item, kept)
        self.epochs[-2].closed_head = closed_head
        self._count()
        return item

    def undo(self) -> None:
        self._live()
        job = next(
            (job for job in self.jobs if job.item is not None and job.item is self.boundary), None
        )
        if job is None or job.epoch is None:
            raise Refused("NothingToUndo")
        assert job.item is not None
        before = self.epochs[job.epoch - 1]
        self._next_epoch("undo", before.boundary, before.kept)
        self.undone[job.item] = self.epoch
        self._count()

    def fork(self, session_id: str, *, at: Item | None = None, epoch: int | None = None) -> Session:
        head, boundary, kept = self.head, self.boundary, self.kept
        if at is not None:
            head, boundary = at, self.in_force(at.boundary)
            kept = boundary.kept if boundary is not None else None
        elif epoch is not None and epoch != self.epoch:
            past = self.epochs[epoch]
            head, boundary, kept = past.closed_head, past.boundary, past.kept
        new = Session(
            session_id,
            head=head,
            boundary=boundary,
            kept=kept,
            epochs=[Epoch("fork", boundary, kept)],
            forked_at=head,
            undone={
                item: 0
                for item, at_epoch in self.undone.items()
                if epoch is None or at_epoch <= epoch
            },
        )
        new._count()
        return new

    # -- compaction --------------------------------------------------------------------------

    def begin(
        self,
        trigger: str,
        keep_tokens: int,
        now_ms: int,
        timeout_ms: int,
        threshold: int | None = None,
    ) -> Job:
        self._live()
        running = next((job for job in self.jobs if job.state == "running"), None)
        if running is not None and now_ms < running.deadline_ms:
            raise Refused("CompactionRunning")
        last = [job for job in self.jobs if job is not running][-COOL_DOWN_AFTER:]
        if (
            running is None
            and self._only_in_vain(last)
            and now_ms < max(job.finished_ms for job in last) + COOL_DOWN_MS
        ):
            raise Refused("CompactionCoolDown")
        job = self._choose(trigger, keep_tokens)
        job.threshold = threshold
        if running is not None:
            running.state, running.finished_ms = "expired", now_ms
        job.deadline_ms = now_ms + timeout_ms
        self.jobs.append(job)
        return job

    def _only_in_vain(self, last: Sequence[Job]) -> bool:
        """Three in a row were in vain, and nothing but they began an epoch meanwhile."""
        if len(last) < COOL_DOWN_AFTER or not all(job.in_vain for job in last):
            return False
        began = {job.epoch for job in last if job.epoch is not None}
        return began == set(range(min(job.base_epoch for job in last) + 1, self.epoch + 1))

    def messages(self) -> list[Item]:
        """The messages of the context, with hidden ones and those that a reset left out."""
        before, after = span_of(self.head, self.boundary, self.kept)
        return [item for item in before + after if item.is_message]

    def _choose(self, trigger: str, keep_tokens: int) -> Job:
        messages = self.messages()
        count = place_to_cut(messages, keep_tokens)
        if count is None and trigger == "manual":
            count = place_to_cut(messages, 0)
            if count is None and messages:
                count = 0
        if count is None:
            raise Refused("NothingToCompact")
        covered = None
        if count:
            path = [item for item in path_to(self.head) if item.is_message]
            covered = path[: path.index(messages[count - 1]) + 1]
        kept = messages[count] if count < len(messages) else None
        return Job("", trigger, self.epoch, covered, kept, self.tokens, 0)

    def to_summarise(self, job: Job) -> list[Item]:
        """The messages for the summariser of a job that has just begun."""
        if job.covered is None:
            return [item for item in self.context() if item.kind == "compaction"]
        return (
            context_of(job.covered[-1], None, None)
            if self.boundary is None
            else self._shown_up_to(job.covered[-1])
        )

    def _shown_up_to(self, last: Item) -> list[Item]:
        assert self.boundary is not None
        before, after = span_of(self.head, self.boundary, self.kept)
        items = before + after
        items = items[: items.index(last) + 1]
        kept = [item for item in items if item in before]
        if self.boundary.kind == "reset":
            kept = kept_by_reset(kept)
        summary = [self.boundary] if self.boundary.kind == "compaction" else []
        rest = kept + [item for item in items if item not in before]
        return summary + [item for item in rest if item.is_message and item.kind != "hidden"]

    def give_up(self, job: Job, state: str, now_ms: int) -> bool:
        if job.state != "running":
            return False
        job.state, job.finished_ms = state, now_ms
        return True

    def commit(self, job: Job, summary: str, now_ms: int) -> str:
        if job.state in ("committed", "superseded", "rejected"):
            return job.state
        was_running, job.finished_ms = job.state == "running", now_ms
        if not summary.strip():
            job.state, job.in_vain = "rejected", True
        elif self.ended or self._overtaken(job):
            job.state = "superseded"
        elif not self._reduces(job, summary):
            job.state, job.in_vain = "rejected", True
        else:
            job.late = not was_running or self.epoch != job.base_epoch
            path = [item for item in path_to(self.head) if item.is_message]
            kept = job.kept
            if kept is None and job.covered is not None:
                kept = next(iter(path[len(job.covered) :]), None)
            tokens_then = self._estimated()
            job.item = self._begin_at("compaction", summary, kept)
            saved = tokens_then - self.tokens
            job.in_vain = job.trigger != "manual" and (
                saved < tokens_then / 10
                or (job.threshold is not None and self.tokens > job.threshold)
            )
            job.epoch, job.state = self.epoch, "committed"
        return job.state

    def _overtaken(self, job: Job) -> bool:
        later = self.epochs[job.base_epoch + 1 :]
        if any(epoch.reason != "compaction" for epoch in later):
            return True
        covered = len(job.covered) if job.covered is not None else 0
        begun_by = [
            other for other in self.jobs if other.epoch is not None and other.epoch > job.base_epoch
        ]
        return any(len(other.covered or ()) >= covered for other in begun_by)

    def _reduces(self, job: Job, summary: str) -> bool:
        covered = job.covered or []
        replaced = sum(item.tokens for item in self.messages() if item in covered)
        replaced += self.boundary.tokens if self.boundary is not None else 0
        return tokens_of(summary) < (
            max(replaced, MANUAL_FLOOR) if job.trigger == "manual" else replaced
        )


def message(
    kind: str, text: str, *, call_id: str | None = None, usage: int | None = None
) -> dict[str, Any]:
    """Return an item as a caller appends it."""
    if kind == "user":
        return {"role": "user", "content": text}
    if kind in ASSISTANT:
        blocks: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if kind == "call":
            blocks.append({"type": "toolCall", "id": call_id, "name": "ls", "arguments": {}})
        found: dict[str, Any] = {"role": "assistant", "content": blocks}
        if kind in FAILED:
            found["stopReason"] = kind
        return {**found, "usage": {"totalTokens": usage}} if usage is not None else found
    if kind == "result":
        return {
            "role": "toolResult",
            "toolCallId": call_id,
            "toolName": "ls",
            "content": [{"type": "text", "text": text}],
            "isError": False,
        }
    if kind == "note":
        return {"type": "custom_message", "customType": "note", "content": text, "display": True}
    if kind == "setting":
        return {"type": "thinking_level_change", "thinkingLevel": text}
    found = {"role": "bashExecution", "command": text, "output": ""}
    return {**found, "excludeFromContext": True} if kind == "hidden" else found


def shown(found: dict[str, Any]) -> Shown:
    """Return a message of the database's context as the model shows it."""
    content = found.get("content", found.get("summary", found.get("command")))
    text = content if isinstance(content, str) else content[0]["text"]
    made = found["role"] == "toolResult" and text.startswith(NO_RESULT[1])
    return NO_RESULT if made else (found["role"], text)

"""The records that sessiondb returns: plain and frozen.

Times are milliseconds since 1970 UTC, sizes are bytes. A `payload` is JSON text, as it is stored.
What is decoded from it is decoded anew at each access, so nobody changes a record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal

from .errors import InvalidInput, StoreDamaged
from .limits import SEQ_MAX
from .texts import decoded, decoded_object, text_of
from .words import (
    Audience,
    CompactionOutcome,
    CompactionState,
    Cut,
    EpochReason,
    EventKind,
    ExportStatus,
    FileStatus,
    MessageFormat,
    MessageState,
    Origin,
    ReplyState,
    SourceVerdict,
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The place of an appended entry. The entry is on disk."""

    entry_no: int
    """The entry's number in the database. Also a cursor for paging."""
    entry_id: str
    position: int
    """1-based place along the path from the root. 0 for a record outside the tree."""
    epoch: int
    tokens: int
    """Estimate of what the entry adds to the context."""
    appended_at_ms: int
    duplicate: bool
    """True: an earlier call with the same idempotency key stored it. This one changed nothing."""

    @property
    def seq(self) -> int:
        """Order of arrival within the session, from 1."""
        return self.entry_no & SEQ_MAX


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as it is stored."""

    entry_no: int
    entry_id: str
    parent_no: int | None
    position: int
    type: str
    role: str | None
    tokens: int
    usage_tokens: int | None
    appended_at_ms: int
    """When it was appended. Of an imported entry: its own time."""
    idempotency_key: str | None
    payload: str
    """The exact text that was appended or imported."""

    @property
    def seq(self) -> int:
        """Order of arrival within the session, from 1. 0 is the header."""
        return self.entry_no & SEQ_MAX

    @property
    def message(self) -> dict[str, Any] | None:
        """The message, decoded. None: an entry of another type than `message` is none.

        Raises:
            StoreDamaged: the stored text is not what its type says.
        """
        if self.type != "message":
            return None
        message = decoded_object(self.payload, str(self)).get("message")
        if not isinstance(message, dict):
            raise StoreDamaged(
                f"{self}: its stored text is damaged: it has no message. "
                "Run `sessiondb verify DB`; then `sessiondb salvage DB NEW`."
            )
        return message

    @property
    def text(self) -> str:
        """What a person would read of it: the texts of a message, or of a summary. Empty: none.

        Raises:
            StoreDamaged: as of `message`.
        """
        message = self.message
        return text_of(decoded_object(self.payload, str(self)) if message is None else message)

    def __str__(self) -> str:
        return f"entry {self.entry_id} (number {self.entry_no})"


EntryRef = Entry | Receipt | str
"""An entry as a caller names it: the entry, the receipt of its append, or its id."""


class AnyHead(Enum):
    """The class of `ANY_HEAD`."""

    ANY_HEAD = "any head"


ANY_HEAD: Final = AnyHead.ANY_HEAD
"""No condition on the head: the default of `expect_head`. None is the root, before all entries."""

ExpectedHead = EntryRef | AnyHead | None
"""The head that a caller expects: an entry, None for the root, or `ANY_HEAD`."""


@dataclass(frozen=True, slots=True)
class AppendedHistory:
    """What `Session.append_history` has stored. All of it is on disk."""

    entries: int
    """The items of the history."""
    stored: int
    """Items of those that this call stored. An earlier one had stored the others."""
    last: Receipt | None
    """The receipt of the last item. None: there was none."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session's row, with values that are derived from other rows."""

    session_id: str
    keys: tuple[str, ...]
    agent_id: str | None
    origin: Origin
    version: int
    """Of the transcript's file format, which its header names."""
    format: MessageFormat | None
    """The message format. None: its items may have several so far, and none was chosen."""
    name: str | None
    entries: int
    epoch: int
    compactions: int
    context_tokens: int
    tokens_fresh: bool
    created_at_ms: int
    updated_at_ms: int
    ended_at_ms: int | None
    forked_from: str | None
    pinned_at_ms: int | None = None
    """Not None: retention leaves it alone."""
    archived_at_ms: int | None = None
    """Not None: its entries are in an archive. `db.unarchive` brings them back."""
    namespace: str | None = None
    """With `external_id`: the name that another program has for it (`db.session_for`)."""
    external_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict, hash=False)
    """What an application keeps about it (`set_details`)."""
    details_revision: int = 0


@dataclass(frozen=True, slots=True)
class Details:
    """What an application keeps about a session, or under a name of its own."""

    document: dict[str, Any] = field(hash=False)
    revision: int
    """0: it keeps nothing. Each change is one more."""
    changed_at_ms: int | None


@dataclass(frozen=True, slots=True)
class NamedDetails:
    """What an application keeps under a name of its own (`SessionDB.list_details`)."""

    namespace: str
    name: str
    document: dict[str, Any] = field(hash=False)
    revision: int
    changed_at_ms: int


@dataclass(frozen=True, slots=True)
class Redacted:
    """What `Session.redact` did. It is on disk."""

    entry_no: int
    entry_id: str
    already: bool
    """True: an earlier call had redacted it. This one changed nothing."""
    left: tuple[str, ...]
    """What may still hold its text, a sentence each."""


@dataclass(frozen=True, slots=True)
class DeleteReport:
    """What `SessionDB.delete` did."""

    deleted: tuple[str, ...]
    """The ids of sessions whose texts are gone from the tables."""
    archived: tuple[str, ...]
    """The ids of sessions that are in an archive now."""
    kept: tuple[tuple[str, str], ...]
    """Sessions that were left alone, each with the reason."""
    rows: dict[str, int]
    """Rows of other tables that went with them, by table."""
    left: tuple[str, ...]
    """What may still hold their texts, a sentence each: the WAL, backups, index files, ..."""

    @property
    def ok(self) -> bool:
        """True when no session was left alone."""
        return not self.kept


@dataclass(frozen=True, slots=True)
class EpochInfo:
    """One generation of a context."""

    epoch: int
    reason: EpochReason
    opened_at_ms: int
    closed_at_ms: int | None


@dataclass(frozen=True, slots=True)
class ContextDiff:
    """What left a session's context between the ends of two epochs, and what came."""

    before: int
    after: int
    removed: tuple[Entry, ...]
    """In the context of `before` and not of `after`, in their order."""
    added: tuple[Entry, ...]
    """The other way round. The summary of a compaction is the first of them."""
    kept: int
    """Entries of both."""


@dataclass(frozen=True, slots=True)
class CompactionInfo:
    """A compaction job, as stored."""

    compaction_id: str
    session_id: str
    state: CompactionState
    trigger: str
    base_epoch: int
    epoch: int | None
    late: bool
    tokens_before: int
    tokens_after: int | None
    owner: str | None
    begun_at_ms: int
    deadline_ms: int
    finished_at_ms: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """The outcome of a commit. The same compaction id always gets the same answer."""

    compaction_id: str
    session_id: str
    outcome: CompactionOutcome
    epoch: int
    """The epoch that the commit began. When it was not committed, the session's current one."""
    late: bool
    """True: committed after the job had been given up, or another compaction had overtaken it."""
    tokens_before: int
    tokens_after: int | None
    entry_id: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query found (`SessionDB.query`)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | int | float | bytes | None, ...], ...]
    cut: Cut | None
    """The bound at which the rows were cut, with `allow_cut`. None: these are all."""

    def dicts(self) -> list[dict[str, str | int | float | bytes | None]]:
        """Return the rows by the names of their columns.

        Raises:
            InvalidInput: two columns have one name.
        """
        if len(set(self.columns)) < len(self.columns):
            twice = next(name for name in self.columns if self.columns.count(name) > 1)
            raise InvalidInput(
                f"two columns are named {twice!r}. Give each a name of its own in the SQL, with AS"
            )
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken invariant, or a check that could not be finished."""

    check: str
    session_id: str | None
    message: str
    severity: Literal["error", "unfinished", "warning"] = "error"
    """`unfinished`: the check ended early, so what it would have found is not known."""


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An entry that has the words of a search."""

    session_id: str
    """The session that it was appended to. Its forks share it."""
    agent_id: str | None
    entry_id: str
    entry_no: int
    seq: int
    type: str
    role: str | None
    appended_at_ms: int
    snippet: str
    """The part of its text that has the words."""
    marks: tuple[tuple[int, int], ...]
    """Where they are in the snippet: the first character, and the one behind the last."""
    on_path: bool
    """False: the session has left it, by an undo or a switch of branches."""
    archived: bool = False
    """True: it was read from an archive."""


@dataclass(frozen=True, slots=True)
class SearchPage:
    """A page of what a search has found: the newest session first, and of it the last entry."""

    hits: tuple[SearchHit, ...]
    next: int | None
    """Where the next page begins (`before`). None: this was the last one."""
    unread: int
    """Entries that are neither in the index nor were read for this search, because they are too
    many."""
    built: bool
    """False: there is no index, so only the newest entries were read."""


@dataclass(frozen=True, slots=True)
class SearchIndexed:
    """What is in the search index."""

    built: bool
    """False: there is none."""
    purging: bool
    """True: the bytes of words that were deleted are still in its older parts."""
    entries: int
    """Entries that can be searched, in all."""
    behind: int
    """Those of them that are not in the index yet."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` checked and found."""

    sessions: int
    entries: int
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The broken invariants."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def unfinished(self) -> tuple[Finding, ...]:
        """The checks that could not be finished, each with its reason and what to do."""
        return tuple(finding for finding in self.findings if finding.severity == "unfinished")

    @property
    def ok(self) -> bool:
        """True when every check was finished and no error was found. Warnings do not count."""
        return not self.errors and not self.unfinished


# What the texts of receipts and of quarantined pieces tell programs, and not only a person.
BYTES_OF_ENTRY: Final = "read with U+FFFD for each byte that is no character"
"""Begins the reason of a piece that has the bytes of the entry before it, as the file has them."""
BEHIND_ENTRY: Final = (
    "bytes that arrived behind an entry which had been imported without its line end"
)
"""The reason of a piece that follows an entry's text without a line end between them."""
EARLY: Final = "it stands before its parent"
"""Begins the reason of a line that waits for its parent, or became an entry behind it."""
REDACTED: Final = "redacted at import"
"""The beginning of the note of a receipt whose hash is of what is not stored."""
BY_HAND: Final = "by-hand"
"""The rule in such a note that stands for entries that a person had redacted (`Session.redact`)."""
SALVAGED: Final = "salvaged: "
"""The beginning of the note of a receipt of which a salvage found only a part."""

NOT_IMPORTED: Final = ("changed", "skipped", "foreign", "failed")


@dataclass(frozen=True, slots=True)
class QuarantinedLine:
    """A line, or a piece of one, that is no entry: kept as bytes, and exported in its place."""

    line: int
    """1-based."""
    byte_offset: int
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class FileReceipt:
    """The outcome of one file in an import."""

    path: str
    name: str
    """Where an export writes it again, relative to its destination."""
    kind: str
    """live, reset, deleted, bak, checkpoint, corrupt, pi, index. Of a file that is none of these:
    what it is, such as a log, or which program wrote it."""
    status: FileStatus
    """foreign: a conversation of another program, which was left alone. skipped: no
    conversation. failed: it could not be read, and a note says why."""
    session_id: str | None = None
    bytes: int = 0
    """Read so far in all imports, unpacked."""
    lines: int = 0
    entries: int = 0
    """Lines that became entries in all imports, without the header. Of an index: its keys."""
    entries_new: int = 0
    """In this import. Of an index: keys that this import bound."""
    sha256: str | None = None
    damaged: int = 0
    """Lines kept as bytes in this import because they are no entries."""
    blank: int = 0
    quarantined: tuple[QuarantinedLine, ...] = ()
    """The first hundred of the damaged ones."""
    notes: tuple[str, ...] = ()
    redacted: dict[str, int] = field(default_factory=dict)
    """With a redactor: how many secrets were replaced in this import, per rule."""
    unredacted: dict[str, int] = field(default_factory=dict)
    """With a redactor: how many secrets an earlier import stored that are still there."""
    verified: bool | None = None
    """With verify: whether export and context equal the file. The notes list the differences.

    None: not requested, or not applicable."""

    @property
    def note(self) -> str:
        """The notes as one line."""
        return "; ".join(self.notes)


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did: a receipt for every file that it met."""

    root: str
    files: tuple[FileReceipt, ...]
    dry_run: bool = False

    def count(self, status: FileStatus) -> int:
        """Return how many files have that status."""
        return sum(1 for file in self.files if file.status == status)

    @property
    def entries_new(self) -> int:
        """Entries stored by this import (keys of an index are not entries)."""
        return sum(file.entries_new for file in self.files if file.kind != "index")

    @property
    def damaged(self) -> int:
        """Lines quarantined by this import."""
        return sum(file.damaged for file in self.files)

    @property
    def bytes(self) -> int:
        """Bytes of the files that were read, unpacked."""
        return sum(file.bytes for file in self.files)

    @property
    def not_imported(self) -> dict[str, dict[str, int]]:
        """How many files were not imported, by status and then by kind.

        Of one that had changed, an earlier import has the first part.
        """
        counts: dict[str, dict[str, int]] = {}
        for file in self.files:
            if file.status in NOT_IMPORTED:
                kinds = counts.setdefault(file.status, {})
                kinds[file.kind] = kinds.get(file.kind, 0) + 1
        return counts

    @property
    def ok(self) -> bool:
        """True when every conversation is stored, and as it is in its file.

        No file failed, was foreign, had changed, or differed from its stored copy. With a
        redactor, no secret that an earlier import stored is still there.
        """
        return all(
            file.status not in ("failed", "foreign", "changed")
            and file.verified is not False
            and not file.unredacted
            for file in self.files
        )


@dataclass(frozen=True, slots=True)
class SourceReceipt:
    """What became of one source of a migration: a transcript or an index of OpenClaw."""

    path: str
    """Relative to the home. A transcript out of a database is `<its file>/<session id>.jsonl`."""
    kind: str
    """As in `FileReceipt`."""
    verdict: SourceVerdict
    """equal: stored, and export and context equal the source. kept: stored, and there is nothing
    to compare (an index, or no entry). differs: stored, and not equal. not-imported: it is not
    here, or not all of it. would-import: what a dry run says of all that is new."""
    session_id: str | None = None
    bytes: int = 0
    """Unpacked. Of a source that was not read: its size."""
    sha256: str | None = None
    """Of those bytes. None: it could not be read, or is a database."""
    entries: int = 0
    entries_new: int = 0
    damaged: int = 0
    """Lines that are no entries. They are kept as bytes, and an export writes them."""
    reason: str = ""
    """Why it was not imported, or how it differs."""
    notes: tuple[str, ...] = ()
    """What else there is to say."""


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What became of a home of OpenClaw: a receipt for every source, and counts of the rest."""

    home: str
    sources: tuple[SourceReceipt, ...]
    others: dict[str, int]
    """How many files hold no conversation, by kind."""
    dry_run: bool
    final: bool
    finished_at_ms: int
    problems: tuple[str, ...] = ()
    """What keeps a final run from being the last one."""

    def count(self, verdict: SourceVerdict) -> int:
        """Return how many sources have that verdict."""
        return sum(1 for source in self.sources if source.verdict == verdict)

    @property
    def not_imported(self) -> dict[str, int]:
        """How many sources were not imported, or are not as in the home, by kind."""
        counts: dict[str, int] = {}
        for source in self.sources:
            if source.verdict in ("not-imported", "differs"):
                counts[source.kind] = counts.get(source.kind, 0) + 1
        return counts

    @property
    def entries_new(self) -> int:
        """Entries that this run stored (keys of an index are not entries)."""
        return sum(source.entries_new for source in self.sources if source.kind != "index")

    @property
    def damaged(self) -> int:
        """Lines that are no entries, in all sources."""
        return sum(source.damaged for source in self.sources)

    @property
    def ok(self) -> bool:
        """True when all that the home holds of conversations is here, every line of it."""
        return not (self.not_imported or self.damaged or self.problems)


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """The outcome of one file in an export."""

    path: str
    name: str
    session_id: str | None
    status: ExportStatus
    bytes: int = 0
    """Of its content, unpacked."""
    sha256: str | None = None
    """Of its content, unpacked."""
    notes: tuple[str, ...] = ()
    redacted: dict[str, int] = field(default_factory=dict)
    """With a redactor: how many secrets were replaced in it, per rule."""

    @property
    def note(self) -> str:
        """The notes as one line."""
        return "; ".join(self.notes)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did: one line for every file."""

    dest: str
    files: tuple[ExportedFile, ...]

    def count(self, status: ExportStatus) -> int:
        """Return how many files have that status."""
        return sum(1 for file in self.files if file.status == status)

    @property
    def bytes(self) -> int:
        """Bytes of content, unpacked."""
        return sum(file.bytes for file in self.files)

    @property
    def ok(self) -> bool:
        """True when every file is in place with its content."""
        return all(file.status in ("written", "unchanged") for file in self.files)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receipt of a message. It is on disk."""

    inbox_no: int
    session_id: str
    state: MessageState
    """`queued` for a new message, `heard` for one that is not for the agent.

    For a duplicate, the state of the first.
    """
    accepted_at_ms: int
    ahead: int
    """Messages of the same session that go before it."""
    duplicate: bool
    """True: the same (channel, event_id) had been accepted before. This call changed nothing."""


@dataclass(frozen=True, slots=True)
class Edited:
    """The receipt of an edit. It is on disk."""

    inbox_no: int
    """The message that has the new text."""
    session_id: str
    outcome: Literal["replaced", "queued", "unchanged"]
    """`replaced`: no turn had read the old text, and the new one is in its place.

    `queued`: the old text is in the transcript, and the new one waits as a message of its own.
    `unchanged`: the message has this text already."""
    answering_turn_no: int | None
    """The turn that works on the old text now. None: there is none."""
    duplicate: bool
    """True: this edit, or a newer one, had been reported before. This call changed nothing."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What became of a message that its sender took back."""

    outcome: Literal["withdrawn", "running", "done", "unknown"]
    """`withdrawn`: it waited, and no turn will work on it any more.

    `running`: a turn works on it. `done`: it had ended before: answered, stopped, dead or
    withdrawn. `unknown`: the channel never brought it, or its row was pruned."""
    inbox_no: int | None
    session_id: str | None
    turn_no: int | None
    """The turn that works on it, or on an edit of it. None: there is none."""


@dataclass(frozen=True, slots=True)
class Event:
    """A notice for an operator, or for the user who waits."""

    event_no: int
    kind: EventKind
    audience: Audience
    session_id: str | None
    at_ms: int
    text: str
    """The notice itself."""
    payload: str
    """Details, as JSON."""

    @property
    def data(self) -> dict[str, Any]:
        """The details, decoded. What they are is in the list of events in the documentation.

        Raises:
            StoreDamaged: the stored text is not what was written.
        """
        return decoded_object(self.payload, str(self))

    def __str__(self) -> str:
        return f"event {self.event_no} ({self.kind})"


@dataclass(frozen=True, slots=True)
class OpenMessage:
    """A message that was accepted and is not done.

    It is `queued`, `claimed` by a turn, `interrupted` (the resume plan decides), or `heard`.
    """

    inbox_no: int
    channel: str
    event_id: str
    session_id: str
    lane: str
    state: Literal["queued", "claimed", "interrupted", "heard"]
    accepted_at_ms: int
    available_at_ms: int
    """When the pause of its retry ends. 0: it waits for no time."""
    attempts: int
    turn_no: int | None
    reason: str | None
    details: dict[str, Any]
    """What its adapter gave to `accept` with it."""
    payload: str

    @property
    def message(self) -> dict[str, Any]:
        """The message, decoded. Of one that was edited while it waited: as it is now.

        Raises:
            StoreDamaged: the stored text is not what was accepted.
        """
        return decoded_object(self.payload, str(self))

    def __str__(self) -> str:
        return f"inbox item {self.inbox_no} of session {self.session_id}"


OutcomeState = Literal["answered", "incomplete", "given_up", "stopped", "withdrawn", "heard"]
"""How a message ended. `given_up` is a dead letter, or one that an operator dropped."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message (`SessionDB.wait`)."""

    inbox_no: int
    session_id: str
    state: OutcomeState
    reason: str | None
    """Why it was not answered, or why its answer is incomplete."""
    superseded_by: int | None
    """The newer message whose turn answered this one, too, or was stopped."""
    entries: tuple[Entry, ...]
    """What its turn appended, oldest first. Empty if that is not in the transcript any more."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane: its limits, and what is in it now."""

    lane: str
    concurrency: int
    """Turns that may run at once, in all processes together."""
    priority: int
    """The lane with the lower number goes first."""
    people: bool
    """Its messages are people's, unless `accept` says otherwise."""
    running: int
    waiting: int
    oldest_waiting_ms: int | None
    """When the oldest of the waiting messages was accepted. None: none waits."""
    interrupted: int
    dead: int
    paused_at_ms: int | None
    """Nothing is claimed from it since then (`SessionDB.pause_lane`). None: it runs."""
    settings: dict[str, Any] | None
    """How its turns are run, in all processes. None: as each loop was given."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up."""

    inbox_no: int
    channel: str
    event_id: str
    session_id: str
    lane: str
    accepted_at_ms: int
    attempts: int
    reason: str | None
    details: dict[str, Any]
    """What its adapter gave to `accept` with it."""
    payload: str

    @property
    def message(self) -> dict[str, Any]:
        """The message, decoded.

        Raises:
            StoreDamaged: the stored text is not what was accepted.
        """
        return decoded_object(self.payload, str(self))

    def __str__(self) -> str:
        return f"inbox item {self.inbox_no} of session {self.session_id}"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply in the outbox: as `replies` lists it, and as a sender gets it."""

    outbox_no: int
    session_id: str
    turn_no: int | None
    """The turn that made it. None: it forwards an event."""
    target: str
    state: ReplyState
    attempts: int
    """How often its channel was called for it. A sender's own call is counted."""
    created_at_ms: int
    reason: str | None
    """Why it is in its state, or waited before."""
    details: dict[str, Any]
    """Those of the message that it answers. Empty without any, and of a forwarded event."""
    payload: str

    @property
    def message(self) -> Any:
        """The message, decoded: what the handler, or `forward_event`, was given for the target.

        Raises:
            StoreDamaged: the stored text is not what was written.
        """
        return decoded(self.payload, str(self))

    @property
    def channel(self) -> str:
        """All of its target before the first colon."""
        return self.target.partition(":")[0]

    def __str__(self) -> str:
        return f"reply {self.outbox_no} to {self.target}"


@dataclass(frozen=True, slots=True)
class Holding:
    """Something that a process holds: a turn, a compaction, or a reply that it is sending."""

    what: Literal["turn", "compaction", "reply"]
    session_id: str
    turn_no: int | None
    """Of a turn: its number, for `abort_turn`."""
    compaction_id: str | None
    """Of a compaction: its id, for `fail_compaction`."""
    outbox_no: int | None
    """Of a reply: its number in the outbox."""
    operation: str
    since_ms: int
    until_ms: int
    host: str
    pid: int
    program: str
    alive: bool | None
    """None: unknown, because the file with its lock was moved or deleted."""
    draining_since_ms: int | None
    """Its process claims no more turns since then, and ends (`SessionDB.drain`). None: it works."""

    @property
    def name(self) -> str:
        """That of its three names which it has, as text."""
        if self.compaction_id is not None:
            return self.compaction_id
        return str(self.outbox_no if self.turn_no is None else self.turn_no)


@dataclass(frozen=True, slots=True)
class Drained:
    """What a drain has left: nothing, if its time was enough."""

    held: tuple[Holding, ...]
    """The turns, compactions and replies that this process still holds."""
    loops: tuple[str, ...]
    """The names of its loops that have not returned: `lane main`, `outbox`, `events for NAME`."""

    @property
    def complete(self) -> bool:
        """True when every loop has returned, and nothing is held."""
        return not self.held and not self.loops

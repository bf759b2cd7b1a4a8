"""What each named statement takes, and a class for its rows.

For type checkers only: at run time there is no such module. Written by `make statements` from
schema.sql and sessiondb/sqlite/queries/*.sql; a test compares them.
"""

from typing import Any, Literal, NamedTuple, Protocol, overload

from typing_extensions import deprecated

from .backend import AnyStatement, SqlValue
from .paging import Page


class ArchiveProtection(NamedTuple):
    """archive.protection: Return what keeps each of some sessions from being archived, as 1 or 0. A fork protects its parent while the fork can be read, and while the fork's own archive is being written. Forks of forks protect theirs in turn. `restorable_id` is an archived fork whose restore needs this session."""

    session_no: int
    pinned: int
    turn_running: int
    compaction_running: int
    inbox_open: int
    inbox_dead: int
    outbox_open: int
    outbox_unknown: int
    importing: int
    fork_id: str | None
    restorable_id: str | None


class ArchiveSession(NamedTuple):
    """archive.session: Return a session's whole row, as it is archived and compared. Whether it is in the search index is no part of it."""

    session_no: int
    session_id: str
    agent_id: str | None
    origin: Literal["native", "import", "fork"]
    version: int
    created_at_ms: int
    updated_at_ms: int
    ended_at_ms: int | None
    name: str | None
    last_seq: int
    epoch: int
    head_no: int | None
    branch_no: int | None
    boundary_no: int | None
    first_kept_no: int | None
    context_tokens: int
    tokens_fresh: int
    forked_from_no: int | None
    pinned_at_ms: int | None
    archived_at_ms: int | None
    forked_at_no: int | None
    forked_epoch: int | None
    heard_at_ms: int | None
    formats: int
    ordered_from_no: int | None
    open_marks: str | None
    asked_no: int | None


ArchiveSessions = ArchiveSession  # archive.sessions


class ArchiveWeights(NamedTuple):
    """archive.weights: Return how many rows some sessions have that an archive takes, and the bytes of their texts. Their entries are few."""

    session_no: int
    rows: int
    bytes: int


class ArchiveBindings(NamedTuple):
    """archive.bindings: Return the keys that point at a session, whole."""

    session_key: str
    session_no: int
    agent_id: str
    bound_at_ms: int
    details: str | None


ArchiveBindingsOf = ArchiveBindings  # archive.bindings_of


class ArchiveBranchesOf(NamedTuple):
    """archive.branches_of: Return the branches of some sessions, whole. A parent has the lower number."""

    branch_no: int
    session_no: int
    parent_branch_no: int | None
    fork_no: int | None
    first_no: int


class ArchiveEpochsOf(NamedTuple):
    """archive.epochs_of: Return the epochs of some sessions, whole."""

    session_no: int
    epoch: int
    reason: Literal["start", "compaction", "reset", "branch", "undo", "fork", "edit"]
    opened_at_ms: int
    boundary_no: int | None
    first_kept_no: int | None
    closed_head_no: int | None
    closed_at_ms: int | None


class ArchiveEntriesOf(NamedTuple):
    """archive.entries_of: Return the entries of some sessions, whole."""

    entry_no: int
    branch_no: int | None
    parent_no: int | None
    position: int
    type: str
    role: str | None
    projection: int
    tokens: int
    tokens_total: int
    usage_tokens: int | None
    open_calls: int
    boundary_no: int | None
    first_kept_no: int | None
    model_no: int | None
    thinking_no: int | None
    body_at: int
    body_bytes: int
    appended_at_ms: int
    entry_id: str
    idempotency_key: str | None
    payload: str


ArchiveBranches = ArchiveBranchesOf  # archive.branches


ArchiveEpochs = ArchiveEpochsOf  # archive.epochs


ArchiveEntries = ArchiveEntriesOf  # archive.entries


class ArchiveInsert(NamedTuple):
    """archive.insert: Begin an archive. The partial unique index allows one per session that is not restored."""

    archive_no: int


ArchiveInsertWhole = ArchiveInsert  # archive.insert_whole


class ArchiveGet(NamedTuple):
    """archive.get: Return one archive."""

    archive_no: int
    session_no: int
    session_id: str
    forked_from_no: int | None
    state: Literal["writing", "complete", "deleting", "archived", "restoring", "restored", "deleted"]
    reason: str
    encoding: Literal["zstd", "zlib", "none"]
    rows: int
    bytes: int
    bytes_stored: int
    session_keys: str
    finished_at_ms: int | None


class ArchiveOfSession(NamedTuple):
    """archive.of_session: Return a session's archive that is not restored, if there is one."""

    archive_no: int
    state: Literal["writing", "complete", "deleting", "archived", "restoring", "restored", "deleted"]
    reason: str
    encoding: Literal["zstd", "zlib", "none"]
    finished_at_ms: int | None


class ArchiveOpenOf(NamedTuple):
    """archive.open_of: Return those of some sessions that have an archive that is not restored."""

    session_no: int
    state: Literal["writing", "complete", "deleting", "archived", "restoring", "restored", "deleted"]


ArchiveUnfinished = ArchiveInsert  # archive.unfinished


class ArchiveKept(NamedTuple):
    """archive.kept: Return the archives that can be restored and when they were made, oldest first, a page at a time."""

    archive_no: int
    session_no: int
    session_id: str
    updated_at_ms: int
    last_seq: int
    bytes_stored: int
    finished_at_ms: int | None


class ArchiveNextChunk(NamedTuple):
    """archive.next_chunk: Return the number of the next chunk of an archive."""

    chunk_no: int


class ArchiveChunk(NamedTuple):
    """archive.chunk: Return one chunk."""

    chunk_no: int
    what: str
    rows: int
    sha256: str
    content: bytes


class ArchiveBranch(NamedTuple):
    """archive.branch: Return a branch, if it exists."""

    branch_no: int


class ChannelsFull(NamedTuple):
    """channels.full: Return a row if more than `fewer` replies of a channel wait. No further row is read."""

    full: int


class ChannelsNextTry(NamedTuple):
    """channels.next_try: Return when the first waiting reply of a channel is to be tried."""

    at_ms: int | None


class ChannelsPauseOf(NamedTuple):
    """channels.pause_of: Return the last pause of a channel that has taken no reply since, in force or not."""

    refused_since_ms: int
    pauses: int
    begun_at_ms: int
    until_ms: int


class ChannelsInForce(NamedTuple):
    """channels.in_force: Return the pauses in force. A pause that began later than now is of a clock that has been set back since."""

    channel: str
    refused_since_ms: int
    begun_at_ms: int
    until_ms: int
    reason: str


class ChannelsOutwaited(NamedTuple):
    """channels.outwaited: Return the replies of a channel that have waited since a time or longer, oldest first."""

    outbox_no: int
    session_no: int
    target: str


class CompactionRunning(NamedTuple):
    """compaction.running: Return the live job of a session, with its owner."""

    compaction_id: str
    trigger: str
    begun_at_ms: int
    deadline_ms: int
    instance_no: int | None
    program: str | None
    host: str | None
    pid: int | None
    boot_id: str | None
    database_file: str | None
    lock_file: str | None


class CompactionRecent(NamedTuple):
    """compaction.recent: Return a session's last jobs, newest first."""

    compaction_id: str
    state: Literal["running", "committed", "superseded", "rejected", "failed", "cancelled", "expired", "abandoned"]
    base_epoch: int
    in_vain: int
    finished_at_ms: int | None


class CompactionById(NamedTuple):
    """compaction.by_id: Return a job, whatever its state."""

    compaction_id: str
    session_no: int
    session_id: str
    state: Literal["running", "committed", "superseded", "rejected", "failed", "cancelled", "expired", "abandoned"]
    trigger: str
    base_epoch: int
    cut_no: int | None
    first_kept_no: int | None
    tokens_before: int
    tokens_after: int | None
    deadline_ms: int
    deadline_max_ms: int
    late: int
    epoch: int | None
    reason: str | None
    threshold_tokens: int | None
    entry_id: str | None


class CompactionRenew(NamedTuple):
    """compaction.renew: Move a running job's deadline, at most to its bound."""

    deadline_ms: int


class CompactionByEntry(NamedTuple):
    """compaction.by_entry: Return the job that wrote a summary entry."""

    compaction_id: str
    epoch: int | None


class CompactionReply(NamedTuple):
    """compaction.reply: Return a reply, or what else set the model, and what had set it before. Its message only if it may be an answer: sent to the model, and without a call of a tool."""

    entry_no: int
    parent_no: int | None
    role: str | None
    model_no: int | None
    calls: int
    content: bytes | None


class CompactionAfterAnswer(NamedTuple):
    """compaction.after_answer: Return the messages of one branch's range, oldest first: the calls of each, whether the turns of a message of the inbox have ended, and whether it was given up. One whose row was pruned has ended."""

    entry_no: int
    type: str
    role: str | None
    calls: int
    has_ended: int
    given_up: int


class CompactionStillAsked(NamedTuple):
    """compaction.still_asked: Return the first message of a user in one branch's range that waits for an answer: one that is not of the inbox, or whose message there is open. Reads no other message of the inbox."""

    entry_no: int


class CompactionCutPage(NamedTuple):
    """compaction.cut_page: Return the small columns of one branch's range, newest first: what a cut search weighs, and which messages of the inbox were given up. Reads no payload."""

    entry_no: int
    type: str
    role: str | None
    projection: int
    tokens: int
    calls: int
    given_up: int


class CompactionMessage(NamedTuple):
    """compaction.message: Return the message of an entry, as it was appended."""

    entry_no: int
    content: bytes


CompactionMayHaveResults = CompactionMessage  # compaction.may_have_results


CompactionFirstMessage = CompactionStillAsked  # compaction.first_message


CompactionResults = CompactionMessage  # compaction.results


class CompactionCalls(NamedTuple):
    """compaction.calls: Return a reply that calls tools, unless its author excludes it from the context."""

    content: bytes


class CompactionList(NamedTuple):
    """compaction.list: Return jobs, newest first, a page at a time."""

    compaction_no: int
    compaction_id: str
    session_id: str
    state: Literal["running", "committed", "superseded", "rejected", "failed", "cancelled", "expired", "abandoned"]
    trigger: str
    base_epoch: int
    epoch: int | None
    late: int
    tokens_before: int
    tokens_after: int | None
    owner: str | None
    begun_at_ms: int
    deadline_ms: int
    finished_at_ms: int | None
    reason: str | None


CompactionListOfSession = CompactionList  # compaction.list_of_session


class ContextPointers(NamedTuple):
    """context.pointers: Return where a session's current context begins and ends, and how many tokens it has."""

    session_no: int
    session_id: str
    version: int
    epoch: int
    head_no: int | None
    boundary_no: int | None
    first_kept_no: int | None
    context_tokens: int
    tokens_fresh: int
    formats: int


class ContextNow(NamedTuple):
    """context.now: Return the same, with the model settings at the head and the branch of the head. That is all that a context needs besides its messages, unless its path crosses branches."""

    session_id: str
    epoch: int
    head_no: int | None
    boundary_no: int | None
    first_kept_no: int | None
    context_tokens: int
    tokens_fresh: int
    archived_at_ms: int | None
    formats: int
    ordered_from_no: int | None
    open_marks: str | None
    open_calls: int
    head_id: str | None
    branch_no: int | None
    first_no: int | None
    parent_branch_no: int | None
    model_entry: str | None
    thinking_entry: str | None


class ContextThen(NamedTuple):
    """context.then: Return the same at the end of a past epoch, whose tokens were not kept. Neither was whether it is in order."""

    session_id: str
    epoch: int
    head_no: int | None
    boundary_no: int | None
    first_kept_no: int | None
    context_tokens: None
    tokens_fresh: int
    formats: int
    head_id: str | None
    branch_no: int | None
    first_no: int | None
    parent_branch_no: int | None
    model_entry: str | None
    thinking_entry: str | None


class ContextSpan(NamedTuple):
    """context.span: Return what one branch's range adds to a context, and the edits in it: the message as bytes where it can be cut out of the payload, else the whole entry. Bytes, so that offsets are bytes and nothing is decoded on the way. A compaction keeps no system message in pi's format: what those say is in its own entry."""

    entry_no: int
    projection: int
    content: bytes


class ContextIds(NamedTuple):
    """context.ids: Return the ids of the entries of one branch's range that are messages of a context."""

    entry_no: int
    entry_id: str


class ContextInstructions(NamedTuple):
    """context.instructions: Return the system messages of one branch's range, and the edits, by their index."""

    entry_no: int
    entry_id: str
    type: str
    payload: str


ContextSpanBackward = ContextSpan  # context.span_backward


class ContextLastUserMessage(NamedTuple):
    """context.last_user_message: Return the last user message that one branch's range adds to a context."""

    entry_no: int


ContextBoundary = ContextInstructions  # context.boundary


ContextWorkingFrom = ContextLastUserMessage  # context.working_from


class DeletionSending(NamedTuple):
    """deletion.sending: Return a reply of a session that a process is sending now."""

    outbox_no: int


class DeletionWaiting(NamedTuple):
    """deletion.waiting: Return messages of a session that wait for a turn, or were heard and wait for a claim."""

    inbox_no: int
    session_no: int
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    turn_no: int | None


class DeletionByKey(NamedTuple):
    """deletion.by_key: Return the sessions that keys with a prefix point at, a page of keys at a time."""

    session_key: str
    session_no: int


class DeletionArchived(NamedTuple):
    """deletion.archived: Return archives that are not restored, each with whether a key of its session has a prefix, and whether a deletion on request was begun and not ended, a page at a time."""

    archive_no: int
    session_no: int
    begun: int
    has_key: int


class DeletionInbox(NamedTuple):
    """deletion.inbox: Return the next messages by number, with their sessions."""

    no: int
    session_no: int


DeletionOutbox = DeletionInbox  # deletion.outbox


class DeletionEvent(NamedTuple):
    """deletion.event: Return the next events by number, up to one, with their sessions."""

    no: int
    session_no: int | None


class DeletionLastEvent(NamedTuple):
    """deletion.last_event: Return the number of the newest event."""

    event_no: int


class DeletionInNamespace(NamedTuple):
    """deletion.in_namespace: Return the sessions of a namespace of foreign ids, a page at a time."""

    external_id: str
    session_no: int


class DeletionIndexes(NamedTuple):
    """deletion.indexes: Return the imported index files: their texts are kept."""

    path: str


class DetailsOfSession(NamedTuple):
    """details.of_session: Return the details of a session, if it has some."""

    revision: int
    changed_at_ms: int
    document: str


DetailsNamed = DetailsOfSession  # details.named


class DetailsInNamespace(NamedTuple):
    """details.in_namespace: Return the details of a namespace in the order of their names, a page at a time."""

    namespace: str
    name: str
    revision: int
    changed_at_ms: int
    document: str


class DiskCanMeasure(NamedTuple):
    """disk.can_measure: Return whether this SQLite can count the pages of a table."""

    can: int


class DiskObjects(NamedTuple):
    """disk.objects: Return the tables and indexes that have pages."""

    name: str
    table_name: str


class DiskPages(NamedTuple):
    """disk.pages: Return the bytes of the pages of one table or index. It reads each of them."""

    bytes: int


DiskArchived = DiskPages  # disk.archived


class DrainingLast(NamedTuple):
    """draining.last: Return the number of the newest reply. 0: there is none."""

    outbox_no: int


class EarlyLinesOfFile(NamedTuple):
    """early_lines.of_file: Return what is open of a file's early lines: whether some wait, whether the parents of some are missing, and where the head will be."""

    head_seq: int | None
    head_byte: int | None
    cursor_id: str | None
    session_no: int | None
    head_id: str | None
    waiting: int
    missing: int
    ready: int


class EarlyLinesWaiting(NamedTuple):
    """early_lines.waiting: Return a row if a line with this id waits."""

    byte_offset: int


class EarlyLinesNext(NamedTuple):
    """early_lines.next: Return lines that may be placed, a page at a time, each behind its parent: of those whose parent is an entry the one with the newest first, and then what follows it, as far as it goes."""

    byte_offset: int
    line: int
    entry_id: str
    parent_seq: int | None
    waits_for: str | None
    content: bytes


class EarlyLinesWithoutParent(NamedTuple):
    """early_lines.without_parent: Return lines behind one of a file that wait for what neither is an entry nor waits."""

    byte_offset: int
    entry_id: str | None
    waits_for: str | None


EarlyLinesInACircle = EarlyLinesWithoutParent  # early_lines.in_a_circle


class EarlyLinesFoundLate(NamedTuple):
    """early_lines.found_late: Return a line that became a root, and whose parent has come since."""

    byte_offset: int
    entry_seq: int | None
    parent_seq: int | None
    waits_for: str | None


class EarlyLinesBranches(NamedTuple):
    """early_lines.branches: Return the branches of a session behind one of them, a page at a time."""

    branch_no: int
    parent_branch_no: int | None


class EarlyLinesEntries(NamedTuple):
    """early_lines.entries: Return entries of a session with their parents' ids, a page at a time."""

    entry_no: int
    entry_id: str
    branch_no: int | None
    parent_id: str | None


class EventsEmit(NamedTuple):
    """events.emit: Record an event. It is committed with the change that it reports."""

    event_no: int


class EventsAfter(NamedTuple):
    """events.after: Return the events after a cursor, in order. Safe, because numbers are assigned under the one write lock: a later commit never carries a lower number. (On a server with concurrent writers this would not hold.)"""

    event_no: int
    kind: str
    audience: Literal["operator", "user"]
    session_id: str | None
    at_ms: int
    text: str
    data: str


EventsAfterFor = EventsAfter  # events.after_for


class EventsOfSession(NamedTuple):
    """events.of_session: Return a session's events for one audience among the newest of that audience, newest first. Reads at most `among` rows, however many events of the other lie between."""

    event_no: int
    kind: str
    audience: Literal["operator", "user"]
    session_id: str
    at_ms: int
    text: str
    data: str


class EventsLast(NamedTuple):
    """events.last: Return the newest event's number."""

    event_no: int | None


EventsNthLast = EventsEmit  # events.nth_last


EventsNthLastFor = EventsEmit  # events.nth_last_for


EventsCursor = EventsEmit  # events.cursor


class ForeignIdsFind(NamedTuple):
    """foreign_ids.find: Return the session that has exactly this foreign id."""

    session_no: int
    session_id: str
    formats: int


class HistoryInContext(NamedTuple):
    """history.in_context: Return the numbers of one branch's entries between two numbers that reach the model, and of the boundary at which the context begins, a page at a time."""

    entry_no: int


class ImportFileKnown(NamedTuple):
    """import_file.known: Return what earlier imports recorded of some files, and where reading of each continues. The tail is the last line, if it had no line end and was not an entry. That line is read again, and a byte order mark before the first entry is none. ends_in_bytes: the last line had no line end and is an entry whose bytes are kept (`models.BYTES_OF_ENTRY`)."""

    import_file_no: int
    path: str
    name: str
    kind: Literal["live", "reset", "deleted", "bak", "checkpoint", "corrupt", "index", "pi"]
    session_no: int | None
    session_id: str | None
    version: int | None
    formats: int | None
    bytes: int
    lines: int
    entries: int
    quarantined: int
    sha256: str | None
    final_newline: int
    inode: str | None
    state: Literal["reading", "done", "changed"]
    note: str | None
    head_seq: int | None
    compared_sha256: str | None
    session_last_seq: int
    first_import_file_no: int
    tail_at: int | None
    tail_reason: str | None
    ends_in_bytes: int


class ImportFileByPath(NamedTuple):
    """import_file.by_path: Return one file's receipt, with its session's present size and its latest time."""

    import_file_no: int
    session_no: int | None
    session_id: str | None
    bytes: int
    lines: int
    entries: int
    quarantined: int
    sha256: str | None
    final_newline: int
    state: Literal["reading", "done", "changed"]
    note: str | None
    head_seq: int | None
    compared_sha256: str | None
    session_updated_at_ms: int | None
    session_last_seq: int
    first_import_file_no: int


class ImportFileByInode(NamedTuple):
    """import_file.by_inode: Return the receipts of files with these inodes, whatever their paths."""

    import_file_no: int
    path: str
    inode: str | None


class ImportFileOfName(NamedTuple):
    """import_file.of_name: Return the receipts of transcripts with these paths, and of those archives whose paths begin so."""

    path: str


class ImportFileInsert(NamedTuple):
    """import_file.insert: Begin a file's receipt, before anything of it is stored."""

    import_file_no: int


class ImportFileDamagedLines(NamedTuple):
    """import_file.damaged_lines: Return how many lines of the files below a folder are kept because they are no entries, a page at a time. It begins behind the path of the folder with a slash."""

    path: str
    lines: int


ImportFileBeginIndex = ImportFileInsert  # import_file.begin_index


class ImportFileIndex(NamedTuple):
    """import_file.index: Return the receipt of an index without its content, and whether it has pieces that do not count."""

    import_file_no: int
    sha256: str | None
    state: Literal["reading", "done", "changed"]
    note: str | None
    head_byte: int | None
    has_leftovers: int


class ImportFileIndexContent(NamedTuple):
    """import_file.index_content: Return the content of an index that is not kept in pieces."""

    content: bytes | None


class ImportFileIndexPieces(NamedTuple):
    """import_file.index_pieces: Return the pieces of one content of an index, a page at a time."""

    byte_offset: int
    content: bytes


class ImportFileCountPieces(NamedTuple):
    """import_file.count_pieces: Count the pieces of one content of an index."""

    pieces: int


class ImportFileInFolder(NamedTuple):
    """import_file.in_folder: Return the transcripts imported from one folder: where an index entry can point."""

    path: str
    kind: Literal["live", "reset", "deleted", "bak", "checkpoint", "corrupt", "index", "pi"]
    session_no: int
    session_id: str


class ImportFileFiles(NamedTuple):
    """import_file.files: Return imported files in the order of their import, a page at a time: what an export writes again. Of all sessions: without those deleted without an archive, of which nothing is left to write."""

    import_file_no: int
    path: str
    name: str
    kind: Literal["live", "reset", "deleted", "bak", "checkpoint", "corrupt", "index", "pi"]
    agent_id: str | None
    session_no: int | None
    session_id: str | None
    session_last_seq: int | None
    bytes: int
    entries: int
    final_newline: int
    state: Literal["reading", "done", "changed"]
    first_import_file_no: int


class ImportFileIndexes(NamedTuple):
    """import_file.indexes: Return the imported index files, without their content. Not those whose first import has not come to its end."""

    import_file_no: int
    path: str
    name: str
    agent_id: str | None


class ImportFileSessionsWithoutFile(NamedTuple):
    """import_file.sessions_without_file: Return the sessions that were not imported, a page at a time. Of all sessions: without those deleted without an archive."""

    session_no: int
    session_id: str
    agent_id: str | None
    origin: Literal["native", "import", "fork"]
    forked_from_no: int | None
    formats: int


class ImportFileBindingsOfAgent(NamedTuple):
    """import_file.bindings_of_agent: Return an agent's keys, a page at a time: the content of its index."""

    session_key: str
    session_no: int
    session_id: str
    updated_at_ms: int
    details: str | None


class ImportFileAgents(NamedTuple):
    """import_file.agents: Return the agents that own a key."""

    agent_id: str


class ImportFileEntrySizes(NamedTuple):
    """import_file.entry_sizes: Return the sizes of the next entries of a session, so that a step over them can be bounded in bytes."""

    entry_no: int
    bytes: int


class ImportFilePayloads(NamedTuple):
    """import_file.payloads: Return the texts of a range of entries, in order of arrival, a page at a time. Those that were early lines of the file are left out: they are among the pieces."""

    entry_no: int
    content: bytes


class ImportFileKept(NamedTuple):
    """import_file.kept: Return the quarantined pieces of a file, a page at a time. The bytes of an early line that became an entry are those of the entry."""

    byte_offset: int
    after_seq: int
    content: bytes
    reason: str


class ImportFileForeignParents(NamedTuple):
    """import_file.foreign_parents: Return the entries of other sessions that a fork's own entries follow."""

    parent_no: int | None


class ImportFileSharedEntries(NamedTuple):
    """import_file.shared_entries: Return the entries of one branch's range, with what a file of the current version needs, a page at a time."""

    entry_no: int
    entry_id: str
    type: str
    content: bytes
    parent_id: str | None
    first_kept_id: str | None


class ImportFileDetails(NamedTuple):
    """import_file.details: Return what an imported index recorded about a key, verbatim."""

    details: str | None


class ImportFileUndone(NamedTuple):
    """import_file.undone: Return a row if a compaction of a session was undone: the one change of a context that adds no entry."""

    epoch: int


class InboxByEvent(NamedTuple):
    """inbox.by_event: Return the receipt of a message that was accepted before, and what makes it that one."""

    inbox_no: int
    session_id: str
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    accepted_at_ms: int
    session_key: str | None
    digest: str | None
    edited: int
    lane: str
    lane_before: str | None
    by_person: int
    turn_no: int | None
    heard: int


class InboxAccept(NamedTuple):
    """inbox.accept: Accept a message: it is accepted when this row is committed."""

    inbox_no: int


InboxHear = InboxAccept  # inbox.hear


class InboxHeard(NamedTuple):
    """inbox.heard: Return the messages that a session has heard and that are not appended yet, oldest first, of those before another message. Without their texts."""

    inbox_no: int
    digest: str | None
    by_person: int


class InboxHeardWeight(NamedTuple):
    """inbox.heard_weight: Return how many such messages a session has, up to a limit, and their bytes."""

    messages: int
    bytes: int


class InboxNewestText(NamedTuple):
    """inbox.newest_text: Return the message that has the newest text of an edited one: its last edit that a turn reads on its own or, without one, itself."""

    inbox_no: int
    session_no: int
    session_id: str
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    digest: str | None
    turn_no: int | None
    details: str | None


class InboxWaitingInSession(NamedTuple):
    """inbox.waiting_in_session: Count the messages of a session and of one lane that wait or are being worked on, up to a limit. A resume counts in the lane that accepted it."""

    waiting: int


class InboxAhead(NamedTuple):
    """inbox.ahead: Count the messages of a session that a new one of a lane waits for, up to a limit: the one that a turn works on, and those that wait in lanes at or before its own."""

    messages: int


InboxOpenInSession = InboxAccept  # inbox.open_in_session


InboxWaitingInLane = InboxWaitingInSession  # inbox.waiting_in_lane


class InboxNext(NamedTuple):
    """inbox.next: Return the first message of a lane whose pause ends within a time range, and that may run: its session is idle, and no message of that session precedes it. Only older messages in lanes at or before its own do. A resume has the place of the lane that accepted it, and lets newer messages of those lanes go first, too. From 0 to 0 are those without a pause, in the order of their arrival. Messages that wait for their retry are not read, and neither are those that are marked: they wait for another message. In a paused lane none may run, and no resume of a message that it accepted."""

    inbox_no: int
    queued_at_ms: int


class InboxCandidate(NamedTuple):
    """inbox.candidate: Return what a claim of a message needs."""

    inbox_no: int
    session_no: int
    session_id: str
    channel: str
    event_id: str
    attempts: int
    timeout_ms: int | None
    entry_no: int | None
    ended_at_ms: int | None
    edit_of: int | None
    by_person: int
    digest: str | None
    lane: str
    lane_before: str | None
    session_key: str | None
    details: str | None


class InboxPayload(NamedTuple):
    """inbox.payload: Return the text of a message: its own, or what its entry says. Empty if that is not there. Never under the write lock: it may be large."""

    payload: str


class InboxDue(NamedTuple):
    """inbox.due: Return when the next message of a lane that waits for its retry becomes available. A pause is at most a minute. A time further ahead comes from a clock that has been set back since, and is ignored."""

    at_ms: int | None


class InboxOfTurn(NamedTuple):
    """inbox.of_turn: Return who sent the message of a turn, its entry, and where the context began when the entry was appended."""

    is_persons: int
    entry_no: int
    boundary_no: int | None


class InboxInterruptedBefore(NamedTuple):
    """inbox.interrupted_before: Return the messages of a session that people sent before another one, and that were interrupted: they wait for the resume plan, or for their resume."""

    inbox_no: int
    entry_no: int


InboxWaiting = InboxAccept  # inbox.waiting


class InboxInterrupted(NamedTuple):
    """inbox.interrupted: Return interrupted messages, newest first, a page at a time, with how the session's turn before ended, whether its import was damaged, and whether its lane is paused."""

    inbox_no: int
    session_no: int
    session_id: str
    updated_at_ms: int
    ended_at_ms: int | None
    accepted_at_ms: int
    attempts: int
    strikes: int
    reason: str | None
    restored: int
    state_before: Literal["running", "completed", "failed", "aborted", "interrupted"] | None
    damaged: int
    paused_lane: str | None
    holder_no: int | None


class InboxInterruptedBy(NamedTuple):
    """inbox.interrupted_by: Return the same for messages that turns of some processes (a JSON array) work on, for a plan that takes these processes for dead. Reads running turns only."""

    inbox_no: int
    session_no: int
    session_id: str
    updated_at_ms: int
    ended_at_ms: int | None
    accepted_at_ms: int
    attempts: int
    strikes: int
    reason: str | None
    restored: int
    state_before: Literal["running", "completed", "failed", "aborted", "interrupted"] | None
    damaged: int
    paused_lane: str | None
    holder_no: int


class InboxRunningResumes(NamedTuple):
    """inbox.running_resumes: Count the resumes that are queued or running, without those that run in dead processes (a JSON array), and without those that a paused lane keeps back."""

    resumes: int


class InboxLate(NamedTuple):
    """inbox.late: Return the messages of a lane that were not accepted within a time range, and whose sender has not been told yet that they wait."""

    inbox_no: int
    session_no: int
    session_id: str
    accepted_at_ms: int


class InboxNotified(NamedTuple):
    """inbox.notified: Return when a message was accepted, whether its sender has been told to wait, which turn has it, how many of its attempts count, and its session."""

    session_no: int
    accepted_at_ms: int
    delayed: int
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    turn_no: int | None
    strikes: int


class InboxRestored(NamedTuple):
    """inbox.restored: Return the messages of a restored backup that wait for a person's decision, oldest first, a page at a time."""

    inbox_no: int
    session_no: int


class InboxDead(NamedTuple):
    """inbox.dead: Return dead letters, newest first, a page at a time, each with its text or that of its entry."""

    inbox_no: int
    channel: str
    event_id: str
    session_id: str
    lane: str
    accepted_at_ms: int
    attempts: int
    reason: str | None
    details: str | None
    payload: str


class InboxOpen(NamedTuple):
    """inbox.open: Return the messages that are neither done nor dead, oldest first, a page at a time, each with its text or that of its entry. The partial indexes hold exactly these."""

    inbox_no: int
    channel: str
    event_id: str
    session_id: str
    lane: str
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    accepted_at_ms: int
    available_at_ms: int
    attempts: int
    turn_no: int | None
    reason: str | None
    details: str | None
    payload: str


InboxOpenOfSession = InboxOpen  # inbox.open_of_session


class InboxOutcome(NamedTuple):
    """inbox.outcome: Return how a message ended, if it has: with the turn that ended it, its own or that of the message that superseded it, and the event that told its sender."""

    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    reason: str | None
    heard: int
    entry_no: int | None
    superseded_by: int | None
    session_id: str
    turn_state: Literal["running", "completed", "failed", "aborted", "interrupted"] | None
    incomplete: int | None
    told_kind: str | None


class InboxAnsweredAt(NamedTuple):
    """inbox.answered_at: Return the entry behind which the answer to a message stands: its own, or that of the message that superseded it. None for a message that was only heard."""

    entry_no: int | None
    branch_no: int | None


class InstanceInsert(NamedTuple):
    """instance.insert: Register this process as one that may write, and return its number. `hold` completes it in the same transaction."""

    instance_no: int


class InstanceByPid(NamedTuple):
    """instance.by_pid: Return the newest open registration of a process on this boot of this host, to name the holder of a lock."""

    instance_no: int
    pid: int
    pid_started: int
    program: str
    opened_at_ms: int


class ListingOfAgent(NamedTuple):
    """listing.of_agent: Return sessions of an agent, up to a limit."""

    session_no: int


ListingOfNamespace = ListingOfAgent  # listing.of_namespace


ListingOfKeys = ListingOfAgent  # listing.of_keys


class ListingAmong(NamedTuple):
    """listing.among: Return, of a few sessions, those that a list is to have."""

    session_no: int
    updated_at_ms: int


ListingNewest = ListingAmong  # listing.newest


ListingOldest = ListingAmong  # listing.oldest


class OutboxAdd(NamedTuple):
    """outbox.add: Add a reply, in the transaction that completes its turn, with the details of its message. With a reason why not, it is failed."""

    outbox_no: int


OutboxNext = OutboxAdd  # outbox.next


class OutboxReady(NamedTuple):
    """outbox.ready: Return a row if a reply that a look has found may be sent now, too."""

    ready: int


class OutboxCandidate(NamedTuple):
    """outbox.candidate: Return what sending a reply needs."""

    outbox_no: int
    session_id: str
    session_no: int
    turn_no: int | None
    target: str
    attempts: int
    attempts_before: int
    created_at_ms: int
    asked_at_ms: int
    reason: str | None
    details: str | None


class OutboxOrigin(NamedTuple):
    """outbox.origin: Return what a reply answers or forwards. Its session's row may be lost."""

    session_no: int
    turn_no: int | None
    target: str
    event_no: int | None


class OutboxPayload(NamedTuple):
    """outbox.payload: Return the text of a reply. Not under the write lock, if that can be helped: it may be large."""

    payload: str


class OutboxDue(NamedTuple):
    """outbox.due: Return when the next reply that waits for its retry becomes available, of the channels that are not in a JSON array. A pause is at most a minute. A time further ahead comes from a clock that has been set back since, and is ignored."""

    at_ms: int | None


OutboxClaimedAs = OutboxAdd  # outbox.claimed_as


OutboxBegun = OutboxAdd  # outbox.begun


class OutboxOverdue(NamedTuple):
    """outbox.overdue: Return the replies whose lease has expired."""

    outbox_no: int
    session_no: int
    attempts: int


OutboxOfInstance = OutboxOverdue  # outbox.of_instance


class OutboxList(NamedTuple):
    """outbox.list: Return the replies in a state, oldest first, a page at a time."""

    outbox_no: int
    session_id: str
    turn_no: int | None
    target: str
    state: Literal["pending", "sending", "sent", "unknown", "failed"]
    attempts: int
    created_at_ms: int
    reason: str | None
    details: str | None
    payload: str


OutboxListSent = OutboxList  # outbox.list_sent


class PruningOutbox(NamedTuple):
    """pruning.outbox: Return the next replies by number: whether each is sent and older than a time, and whether it is younger. One of the future is neither. One that forwarded an event stays while the event may be delivered to its reader again."""

    no: int
    prunable: int
    young: int


PruningInbox = PruningOutbox  # pruning.inbox


PruningTurn = PruningOutbox  # pruning.turn


PruningEvent = PruningOutbox  # pruning.event


class RecoveryOpenInstances(NamedTuple):
    """recovery.open_instances: Return the processes that never closed the database, oldest first, a page at a time."""

    instance_no: int
    host: str
    boot_id: str
    pid: int
    program: str
    opened_at_ms: int
    database_file: str | None
    lock_file: str | None


class RecoveryIsOpen(NamedTuple):
    """recovery.is_open: Return a registration that has not been closed."""

    instance_no: int


RecoveryIdle = RecoveryIsOpen  # recovery.idle


class RecoveryRunningCompactions(NamedTuple):
    """recovery.running_compactions: Return the running jobs of one process."""

    compaction_id: str
    session_no: int


class RecoveryOverdueCompactions(NamedTuple):
    """recovery.overdue_compactions: Return the running jobs whose deadline has passed, whatever process runs them. Reads running jobs only."""

    compaction_id: str


class RecoveryUncleanStarts(NamedTuple):
    """recovery.unclean_starts: Count the processes of one program that were opened between two times and died without closing. They are known to be dead, or are in a JSON array of processes found dead. The program is the caller's own. For a reader or the command line it is the program with most of them. A later time comes from a clock that has been set back since, and is ignored."""

    starts: int


class RecoveryHeld(NamedTuple):
    """recovery.held: Return the turns, compactions and replies under way, each with its own name, with their owners, since when and until when."""

    what: Literal["turn", "compaction", "reply"]
    session_id: str
    turn_no: int | None
    compaction_id: str | None
    outbox_no: int | None
    operation: str
    since_ms: int
    until_ms: int
    host: str
    pid: int
    program: str
    instance_no: int
    boot_id: str
    database_file: str | None
    lock_file: str | None
    draining_at_ms: int | None


class RedactEntry(NamedTuple):
    """redact.entry: Return an entry with its text, and whether a later one of its session names the session."""

    entry_no: int
    entry_id: str
    type: str
    tokens: int
    payload: str
    named_later: int


RedactCopies = RedactEntry  # redact.copies


class RegistryInsert(NamedTuple):
    """registry.insert: Insert a session. The unique session_id settles a race between two creators."""

    session_no: int


class RegistryById(NamedTuple):
    """registry.by_id: Return the session with exactly this id."""

    session_no: int
    session_id: str


class RegistryByKey(NamedTuple):
    """registry.by_key: Return the session that a key is bound to now, and the row of the index that it came with."""

    session_no: int
    session_id: str
    ended_at_ms: int | None
    formats: int
    session_key: str
    details: str | None


class RegistryInfo(NamedTuple):
    """registry.info: Return one session, with what is derived from other rows."""

    session_no: int
    session_id: str
    agent_id: str | None
    origin: Literal["native", "import", "fork"]
    version: int
    name: str | None
    last_seq: int
    epoch: int
    context_tokens: int
    tokens_fresh: int
    created_at_ms: int
    updated_at_ms: int
    ended_at_ms: int | None
    pinned_at_ms: int | None
    archived_at_ms: int | None
    formats: int
    forked_from: str | None
    namespace: str | None
    external_id: str | None
    details: str | None
    details_revision: int | None
    compactions: int
    keys: str


class RegistryBegan(NamedTuple):
    """registry.began: Return when a session's present conversation began, by its start, its last reset or its fork, and the reset's entry."""

    opened_at_ms: int
    boundary_no: int | None


class RetentionNewest(NamedTuple):
    """retention.newest: Return sessions in the order of their last change, newest first, a page at a time. Archived ones too, so that a page is one page."""

    session_no: int
    session_id: str
    updated_at_ms: int
    last_seq: int
    archived_at_ms: int | None
    keys: int
    agent_id: str | None
    restored_at_ms: int | None


RetentionOldest = RetentionNewest  # retention.oldest


class RetentionSizes(NamedTuple):
    """retention.sizes: Return the bytes of the texts of some sessions. Their entries are few."""

    session_no: int
    bytes: int


class SalvageCountedHeader(NamedTuple):
    """salvage.counted_header: Return a row if a receipt counts one entry more than the session has: the header, which is no entry."""

    found: int


class SalvageSessions(NamedTuple):
    """salvage.sessions: Return sessions with what they need from other tables, a page at a time."""

    session_no: int
    session_id: str
    origin: Literal["native", "import", "fork"]
    version: int
    created_at_ms: int
    updated_at_ms: int
    last_seq: int
    head_no: int | None
    forked_from_no: int | None
    archived_at_ms: int | None
    formats: int
    found_forked_from_no: int | None


class SalvageSession(NamedTuple):
    """salvage.session: Return one session."""

    session_no: int
    session_id: str
    origin: Literal["native", "import", "fork"]
    version: int
    created_at_ms: int
    updated_at_ms: int
    last_seq: int
    head_no: int | None
    forked_from_no: int | None
    archived_at_ms: int | None
    ended_at_ms: int | None
    formats: int


class SalvageNumbers(NamedTuple):
    """salvage.numbers: Return the numbers of the entries of a session, a page at a time."""

    entry_no: int


class SalvageHeader(NamedTuple):
    """salvage.header: Return a session's first line."""

    entry_id: str
    appended_at_ms: int
    payload: str


class SalvageTaken(NamedTuple):
    """salvage.taken: Return a row if a session id is in use."""

    session_no: int


class SalvageForkEpoch(NamedTuple):
    """salvage.fork_epoch: Return the context that a fork began with."""

    boundary_no: int | None
    first_kept_no: int | None


class SalvageForkPoint(NamedTuple):
    """salvage.fork_point: Return the entry of another session that the first branch of a fork continues."""

    fork_no: int | None


class SalvageUndoneAt(NamedTuple):
    """salvage.undone_at: Return the heads at which a compaction was undone: the entries do not record it."""

    closed_head_no: int | None


class SalvageAside(NamedTuple):
    """salvage.aside: Return the entries that were set aside, in the order of their numbers (below zero), a page at a time."""

    entry_no: int
    parent_no: int | None
    appended_at_ms: int
    entry_id: str
    idempotency_key: str | None
    payload: str


class SalvageAsideChild(NamedTuple):
    """salvage.aside_child: Return the text of the first of the next few entries that follows a given one."""

    payload: str


SalvageAsideById = SalvageNumbers  # salvage.aside_by_id


class SalvageJobsAside(NamedTuple):
    """salvage.jobs_aside: Return the jobs that were set aside."""

    compaction_no: int
    compaction_id: str
    state: Literal["running", "committed", "superseded", "rejected", "failed", "cancelled", "expired", "abandoned"]
    trigger: str
    base_epoch: int
    cut_no: int | None
    tokens_before: int
    instance_no: int | None
    begun_at_ms: int
    deadline_ms: int
    deadline_max_ms: int
    finished_at_ms: int | None
    entry_no: int | None
    reason: str | None


class SalvageBindings(NamedTuple):
    """salvage.bindings: Return bindings, a page at a time."""

    session_key: str
    session_no: int
    found_session_no: int | None
    archived_at_ms: int | None


class SalvageForeignIds(NamedTuple):
    """salvage.foreign_ids: Return sessions with foreign ids, a page at a time."""

    session_no: int
    namespace: str
    external_id: str
    found_session_no: int | None


class SalvageDetails(NamedTuple):
    """salvage.details: Return sessions with details, a page at a time."""

    session_no: int
    found_session_no: int | None


class SalvageBranches(NamedTuple):
    """salvage.branches: Return branches, a page at a time."""

    branch_no: int
    session_no: int
    found_session_no: int | None


SalvageNextEpochOwner = SalvageDetails  # salvage.next_epoch_owner


class SalvageCompactions(NamedTuple):
    """salvage.compactions: Return jobs, a page at a time."""

    compaction_no: int
    session_no: int
    found_session_no: int | None
    instance_no: int | None
    found_instance_no: int | None


class SalvageTurns(NamedTuple):
    """salvage.turns: Return turns with everything that they must agree with, a page at a time."""

    turn_no: int
    session_no: int
    lane: str
    state: Literal["running", "completed", "failed", "aborted", "interrupted"]
    inbox_no: int
    instance_no: int
    started_at_ms: int
    expires_at_ms: int
    deadline_ms: int
    found_session_no: int | None
    found_lane: str | None
    found_instance_no: int | None
    found_inbox_no: int | None
    inbox_state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"] | None
    inbox_turn_no: int | None
    inbox_session_no: int | None


class SalvageInbox(NamedTuple):
    """salvage.inbox: Return messages with everything that they must agree with, a page at a time."""

    inbox_no: int
    session_no: int
    lane: str
    heard: int
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    attempts: int
    turn_no: int | None
    entry_no: int | None
    found_session_no: int | None
    archived_at_ms: int | None
    found_lane: str | None
    lane_before: str | None
    found_lane_before: str | None
    found_turn_no: int | None
    turn_state: Literal["running", "completed", "failed", "aborted", "interrupted"] | None
    turn_inbox_no: int | None
    turn_session_no: int | None
    found_entry_no: int | None
    found_type: str | None
    is_own: int | None
    has_text: int
    is_json: int


class SalvageMessage(NamedTuple):
    """salvage.message: Return a row if a message is there."""

    inbox_no: int


class SalvageOutbox(NamedTuple):
    """salvage.outbox: Return replies with everything that they must agree with, a page at a time."""

    outbox_no: int
    session_no: int
    state: Literal["pending", "sending", "sent", "unknown", "failed"]
    turn_no: int | None
    instance_no: int | None
    expires_at_ms: int | None
    created_at_ms: int
    finished_at_ms: int | None
    found_session_no: int | None
    turn_state: Literal["running", "completed", "failed", "aborted", "interrupted"] | None
    turn_session_no: int | None
    found_instance_no: int | None


class SalvageEvents(NamedTuple):
    """salvage.events: Return events, a page at a time."""

    event_no: int
    session_no: int | None
    found_session_no: int | None


class SalvageImportFiles(NamedTuple):
    """salvage.import_files: Return the receipts of imports with how much of each exists, a page at a time."""

    import_file_no: int
    session_no: int | None
    lines: int
    entries: int
    quarantined: int
    found_session_no: int | None
    session_last_seq: int | None
    first_import_file_no: int
    found_quarantined: int
    last_line: int | None


class SalvageNextQuarantined(NamedTuple):
    """salvage.next_quarantined: Return the next receipt that quarantined lines refer to."""

    import_file_no: int
    found_import_file_no: int | None


class SalvageArchives(NamedTuple):
    """salvage.archives: Return archives, a page at a time."""

    archive_no: int
    session_no: int
    state: Literal["writing", "complete", "deleting", "archived", "restoring", "restored", "deleted"]
    encoding: Literal["zstd", "zlib", "none"]
    found_session_no: int | None


class SalvageArchiveOf(NamedTuple):
    """salvage.archive_of: Return the archive that holds a session's entries."""

    archive_no: int
    state: Literal["writing", "complete", "deleting", "archived", "restoring", "restored", "deleted"]
    encoding: Literal["zstd", "zlib", "none"]


class SalvageNextChunkOwner(NamedTuple):
    """salvage.next_chunk_owner: Return the next archive that chunks belong to."""

    archive_no: int
    found_archive_no: int | None


class SalvageChunk(NamedTuple):
    """salvage.chunk: Return the next chunk of an archive."""

    chunk_no: int
    what: str
    rows: int
    content: bytes


class SearchState(NamedTuple):
    """search.state: Return the row of the index. No row: there is no index."""

    built_at_ms: int
    purging: int


class SearchBehind(NamedTuple):
    """search.behind: Return sessions with entries that are not in the index yet, newest first."""

    session_no: int
    last_seq: int
    indexed_no: int


class SearchCountBehind(NamedTuple):
    """search.count_behind: Return how many entries are not in the index."""

    behind: int


class SearchCountEntries(NamedTuple):
    """search.count_entries: Return how many entries the index is to have."""

    entries: int


class SearchIndexed(NamedTuple):
    """search.indexed: Return how far a session is in the index, and whether it may be put there."""

    after_no: int | None
    indexed_no: int | None
    last_seq: int
    archived_at_ms: int | None


class SearchIndexedOf(NamedTuple):
    """search.indexed_of: Return how far those of some sessions are in the index that are there."""

    session_no: int
    after_no: int
    indexed_no: int


class SearchParts(NamedTuple):
    """search.parts: Return how many parts the index has, up to two."""

    parts: int


class SearchMatches(NamedTuple):
    """search.matches: Return entries with some words, last ones first. Those that are asked for have the part of their text that has the words, between two marks. It is NULL for the others: see `described`."""

    entry_no: int
    entry_id: str
    branch_no: int | None
    type: str
    role: str | None
    appended_at_ms: int
    session_no: int
    session_id: str
    agent_id: str | None
    head_no: int | None
    head_branch_no: int | None
    content: bytes | None


class SearchAnyMatch(NamedTuple):
    """search.any_match: Return nothing, after a look into the index."""

    entry_no: int


class SearchDescribed(NamedTuple):
    """search.described: Return those of some entries that are asked for, last ones first. A line of a file that is two entries is found once. So is a checkpoint, which is a copy of its session: with its session."""

    entry_no: int
    entry_id: str
    branch_no: int | None
    type: str
    role: str | None
    appended_at_ms: int
    session_no: int
    session_id: str
    agent_id: str | None
    head_no: int | None
    head_branch_no: int | None


class SearchArchives(NamedTuple):
    """search.archives: Return archives that can be searched, the newest session first."""

    archive_no: int
    session_no: int
    session_id: str
    agent_id: str | None


class SearchTexts(NamedTuple):
    """search.texts: Return the texts of a range of entries, last ones first."""

    entry_no: int
    content: bytes | None


class SearchCursors(NamedTuple):
    """search.cursors: Return how far the sessions are in the index, with what they have, a page at a time."""

    session_no: int
    after_no: int | None
    indexed_no: int | None
    session_id: str
    last_seq: int
    search_behind: int


class SearchDocuments(NamedTuple):
    """search.documents: Return the numbers that the index has, a page at a time, each with its entry and with how far its session is in the index. NULL: there is none."""

    document_no: int
    entry_no: int | None
    after_no: int | None
    indexed_no: int | None


SearchMissing = SearchAnyMatch  # search.missing


class SessionIdsByPrefix(NamedTuple):
    """session_ids.by_prefix: Return the sessions whose id begins with a prefix, and ends with the letters of `tail`. An id is no shorter than both. Two rows are enough to know that it is ambiguous."""

    session_no: int
    session_id: str


class SessionIdsIdNeighbours(NamedTuple):
    """session_ids.id_neighbours: Return the ids before and behind an id, in their order. What they share with it is not unique."""

    previous: str | None
    following: str | None


class SessionListByUpdate(NamedTuple):
    """session_list.by_update: Return the numbers of sessions, last changed first, a page at a time. A checkpoint is a copy of a session that OpenClaw made beside it."""

    session_no: int
    place: int


SessionListByValue = SessionListByUpdate  # session_list.by_value


class SessionListAbout(NamedTuple):
    """session_list.about: Return what a session does, the first message of a person among its first entries, and the last message before its head. Messages of programs (cron, sub-agents, hooks) have the role of a person, and the inbox knows better."""

    is_running: int
    is_waiting: int
    first_message_no: int | None
    last_message_no: int | None


class SessionListText(NamedTuple):
    """session_list.text: Return the beginning of what an entry says, as the view `transcript` shows it, and whose it is. A damaged text may not be UTF-8."""

    content: bytes | None
    role: str | None


class StatusFile(NamedTuple):
    """status.file: Return what SQLite keeps about the file itself. These figures are the engine's own."""

    pages: int
    pages_free: int
    page_bytes: int
    schema_version: int


class StatusTotals(NamedTuple):
    """status.totals: Return what is known without counting. Sessions and receipts are numbered, and stay."""

    sessions: int
    import_files: int
    processes_open: int


class StatusNumbers(NamedTuple):
    """status.numbers: Return the highest numbers that were ever given out. None is given out again."""

    messages: int
    turns: int
    replies: int
    events: int


class StatusRecentTurns(NamedTuple):
    """status.recent_turns: Count the turns that began since then, by state."""

    state: Literal["running", "completed", "failed", "aborted", "interrupted"]
    turns: int


class StatusCounts(NamedTuple):
    """status.counts: Count what no index counts. Reads every session's row. Entries are what the sessions count. The pieces of an imported index, below offset 0, are no lines."""

    sessions_ended: int
    keys: int
    entries: int
    lines_damaged: int
    lines_blank: int


class StatusWork(NamedTuple):
    """status.work: Count what a gateway has to do and what it could not finish. Each count reads a partial index of exactly these rows."""

    messages_waiting: int
    messages_interrupted: int
    messages_dead: int
    turns_running: int
    turns_overdue: int
    replies_pending: int
    replies_sending: int
    replies_unknown: int
    replies_failed: int
    events: int


class StatusLanes(NamedTuple):
    """status.lanes: Return the lanes with what is in them, those that go first first."""

    lane: str
    concurrency: int
    priority: int
    people: int
    paused_at_ms: int | None
    settings: str | None
    running: int
    waiting: int
    oldest_waiting_ms: int | None
    interrupted: int
    dead: int


class StatusChannels(NamedTuple):
    """status.channels: Return the channels for which replies wait, most first, and until when each said to wait."""

    channel: str
    replies_waiting: int
    until_ms: int | None
    reason: str | None


class StatusCompactions(NamedTuple):
    """status.compactions: Count the jobs in each state."""

    state: Literal["running", "committed", "superseded", "rejected", "failed", "cancelled", "expired", "abandoned"]
    jobs: int


class StatusRunning(NamedTuple):
    """status.running: Return the running jobs, oldest first, with their owners."""

    compaction_id: str
    session_id: str
    trigger: str
    begun_at_ms: int
    deadline_ms: int
    instance_no: int | None
    program: str | None
    host: str | None
    pid: int | None
    boot_id: str | None
    database_file: str | None
    lock_file: str | None


class StatusStuck(NamedTuple):
    """status.stuck: Return what does not go on by itself, with the process that has it."""

    what: str
    name: str
    problem: str
    session_id: str | None
    place: str | None
    since: str
    until: str | None
    why: str
    next_step: str
    instance_no: int | None
    program: str | None
    host: str | None
    pid: int | None
    boot_id: str | None
    database_file: str | None
    lock_file: str | None


class StatusProcesses(NamedTuple):
    """status.processes: Return the processes that opened the file for writing and never closed it, newest first: running, or dead."""

    instance_no: int
    program: str
    pid: int
    host: str
    opened_at_ms: int
    boot_id: str
    database_file: str | None
    lock_file: str | None
    draining_at_ms: int | None


class StatusRelations(NamedTuple):
    """status.relations: Return the tables and views by name, views first: what a query may name. The tables in which FTS5 keeps the search index are nothing to read."""

    name: str
    type: str


class StatusBranches(NamedTuple):
    """status.branches: Return where a session's first branches left their parents, for a person to see."""

    branch_no: int
    fork_no: int | None
    first_no: int


class StoppingTexts(NamedTuple):
    """stopping.texts: Return a message, and those of its edits that turns read on their own, with the turn that had each last."""

    inbox_no: int
    session_no: int
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    turn_no: int | None


StoppingText = StoppingTexts  # stopping.text


class StoppingEnded(NamedTuple):
    """stopping.ended: Return the turns of a JSON array that run no more."""

    turn_no: int


class TranscriptState(NamedTuple):
    """transcript.state: Return everything that an append needs, by two primary-key lookups: the columns of transcript.State, in its order."""

    session_no: int
    session_id: str
    version: int
    ended_at_ms: int | None
    last_seq: int
    epoch: int
    head_no: int | None
    branch_no: int | None
    boundary_no: int | None
    first_kept_no: int | None
    context_tokens: int
    tokens_fresh: int
    name: str | None
    archived_at_ms: int | None
    forked_at_no: int | None
    heard_at_ms: int | None
    formats: int
    ordered_from_no: int | None
    open_marks: str | None
    asked_no: int | None
    search_behind: int
    head_id: str | None
    position: int
    tokens_total: int
    open_calls: int
    model_no: int | None
    thinking_no: int | None


class TranscriptArchived(NamedTuple):
    """transcript.archived: Return whether a session's entries are in an archive."""

    session_id: str
    archived_at_ms: int | None


class TranscriptInsertBranch(NamedTuple):
    """transcript.insert_branch: Begin a branch after an entry, or at the root. Returns its number."""

    branch_no: int


class TranscriptBranch(NamedTuple):
    """transcript.branch: Return one branch: where it left its parent."""

    branch_no: int
    session_no: int
    parent_branch_no: int | None
    fork_no: int | None
    first_no: int


class TranscriptByIdempotencyKey(NamedTuple):
    """transcript.by_idempotency_key: Return the entry that an earlier call with the same key stored in this session."""

    entry_no: int
    entry_id: str
    position: int
    tokens: int
    appended_at_ms: int
    payload: str


class TranscriptById(NamedTuple):
    """transcript.by_id: Return the newest entry of this session with this id. Files have been seen to repeat ids."""

    entry_no: int
    branch_no: int | None
    parent_no: int | None
    position: int
    type: str
    tokens_total: int
    open_calls: int
    boundary_no: int | None
    model_no: int | None
    thinking_no: int | None
    entry_id: str


class TranscriptByNo(NamedTuple):
    """transcript.by_no: Return one entry's small columns."""

    entry_no: int
    branch_no: int | None
    parent_no: int | None
    position: int
    type: str
    role: str | None
    tokens: int
    tokens_total: int
    open_calls: int
    boundary_no: int | None
    first_kept_no: int | None
    model_no: int | None
    thinking_no: int | None
    entry_id: str


class TranscriptUsage(NamedTuple):
    """transcript.usage: Return a reply, or what else set the model, with the provider's count that it carries, and what had set the model before."""

    usage_tokens: int | None
    tokens_total: int
    boundary_no: int | None
    model_no: int | None


class TranscriptSpanForward(NamedTuple):
    """transcript.span_forward: Return the entries of one branch between two numbers, oldest first: one page of history."""

    entry_no: int
    parent_no: int | None
    position: int
    type: str
    role: str | None
    tokens: int
    usage_tokens: int | None
    appended_at_ms: int
    entry_id: str
    idempotency_key: str | None
    payload: str


TranscriptSpanBackward = TranscriptSpanForward  # transcript.span_backward


class TranscriptNewestInSpan(NamedTuple):
    """transcript.newest_in_span: Return the small columns of one branch's range, newest first: what kind of entry each is, what it follows, and the bytes of its payload. Reads no payload."""

    entry_no: int
    branch_no: int | None
    parent_no: int | None
    type: str
    role: str | None
    projection: int
    bytes: int


TranscriptTypedForward = TranscriptSpanForward  # transcript.typed_forward


TranscriptTypedBackward = TranscriptSpanForward  # transcript.typed_backward


TranscriptAllEntries = TranscriptSpanForward  # transcript.all_entries


class TranscriptFirstInSpan(NamedTuple):
    """transcript.first_in_span: Return the oldest entry of one branch between two numbers."""

    entry_no: int


class TranscriptEpoch(NamedTuple):
    """transcript.epoch: Return one epoch's pointers. closed_at_ms is NULL in the current one."""

    epoch: int
    reason: Literal["start", "compaction", "reset", "branch", "undo", "fork", "edit"]
    opened_at_ms: int
    boundary_no: int | None
    first_kept_no: int | None
    closed_head_no: int | None
    closed_at_ms: int | None


class TranscriptUndone(NamedTuple):
    """transcript.undone: Return a row if the context that began at a boundary in an epoch was undone since, up to another epoch."""

    epoch: int


class TranscriptOrigin(NamedTuple):
    """transcript.origin: Return the session that a fork was made of, and that session's epoch then."""

    forked_from_no: int | None
    forked_epoch: int | None


TranscriptEpochs = TranscriptEpoch  # transcript.epochs


class TranscriptFirstEpochNotCompaction(NamedTuple):
    """transcript.first_epoch_not_compaction: Return the first epoch after a given one that something other than a compaction began."""

    epoch: int
    reason: Literal["start", "compaction", "reset", "branch", "undo", "fork", "edit"]


class TurnsLane(NamedTuple):
    """turns.lane: Return a lane's settings, and how many of its turns run now in all processes. One that was dropped says so."""

    lane: str
    concurrency: int
    priority: int
    people: int
    paused_at_ms: int | None
    settings: str | None
    dropped_at_ms: int | None
    running: int


class TurnsOpenInLane(NamedTuple):
    """turns.open_in_lane: Return messages that are not done and that a lane accepted, up to a limit: those that wait, for their resume, too, those that turns work on, and those that wait for a decision. A turn may run in a lane that was dropped before its message's, so all that run are read."""

    inbox_no: int


class TurnsLanesBefore(NamedTuple):
    """turns.lanes_before: Return the lanes that go before this one. From a paused one nothing is claimed."""

    lane: str


class TurnsStart(NamedTuple):
    """turns.start: Start a turn. The partial unique index refuses a second running turn of its session. It takes over what the last turn of its message noted."""

    turn_no: int
    progress: str | None


class TurnsClaimedAs(NamedTuple):
    """turns.claimed_as: Return the turn that runs since a claim with this id."""

    turn_no: int
    inbox_no: int
    attempt: int
    started_at_ms: int
    expires_at_ms: int
    deadline_ms: int
    progress: str | None


class TurnsProgressOfMessage(NamedTuple):
    """turns.progress_of_message: Return what the last turn of a message noted."""

    progress: str | None


class TurnsGet(NamedTuple):
    """turns.get: Return one turn."""

    turn_no: int
    session_no: int
    session_id: str
    lane: str
    kind: Literal["message", "resume"]
    state: Literal["running", "completed", "failed", "aborted", "interrupted"]
    inbox_no: int
    attempt: int
    operation: str
    instance_no: int
    started_at_ms: int
    expires_at_ms: int
    deadline_ms: int
    reason: str | None


class TurnsSessionOf(NamedTuple):
    """turns.session_of: Return the session of a turn, whose own row may be lost."""

    session_no: int


class TurnsRunningOfSession(NamedTuple):
    """turns.running_of_session: Return the running turn of a session."""

    turn_no: int
    operation: str
    started_at_ms: int
    expires_at_ms: int
    deadline_ms: int
    pid: int
    host: str


class TurnsRenew(NamedTuple):
    """turns.renew: Renew a turn's lease, at most until its deadline. Only while the turn runs."""

    expires_at_ms: int


class TurnsExpired(NamedTuple):
    """turns.expired: Return the running turns of any lane whose lease has expired, without those that the caller knows to be alive."""

    turn_no: int
    inbox_no: int


TurnsOfInstance = TurnsExpired  # turns.of_instance


class TurnsNextExpiry(NamedTuple):
    """turns.next_expiry: Return when the next lease of any lane expires, without those of turns that the caller knows to be alive."""

    at_ms: int | None


class TurnsPaceOfSession(NamedTuple):
    """turns.pace_of_session: Return how long the last turns of a session took together, and how many these are."""

    turns: int
    took_ms: int


TurnsPaceOfLane = TurnsPaceOfSession  # turns.pace_of_lane


class VerifyFileFull(NamedTuple):
    """verify.file_full: Return what SQLite itself finds wrong with the file, at most 100 problems. Reads every page."""

    problem: str


VerifyFileQuick = VerifyFileFull  # verify.file_quick


class VerifyForeignKeys(NamedTuple):
    """verify.foreign_keys: Return the rows that point at a missing row. The entry table has no foreign keys: the walk checks it."""

    table_name: str
    row_no: int | None
    parent_name: str


class VerifyBindings(NamedTuple):
    """verify.bindings: Return keys with the sessions that they are bound to, a page at a time. A key is bound to an archived session only while that is being restored."""

    session_key: str
    session_no: int
    agent_id: str
    found_session_no: int | None
    session_id: str | None
    archived_at_ms: int | None
    restoring: int


class VerifyForeignIds(NamedTuple):
    """verify.foreign_ids: Return sessions with foreign ids, and what is wrong with these, a page at a time. A session that was deleted has none."""

    session_no: int
    namespace: str
    external_id: str
    found_session_no: int | None
    session_id: str | None
    is_deleted: int


class VerifyNumbers(NamedTuple):
    """verify.numbers: Return the highest number of each table that assigns no number twice, and its counter."""

    name: str
    last_no: int
    seq: int


class VerifyWalLink(NamedTuple):
    """verify.wal_link: Return the names of the file's state: two rows at most."""

    previous: str
    current: str


class VerifyLanes(NamedTuple):
    """verify.lanes: Return the lanes that a new file has."""

    lane: str


class VerifyOddInstances(NamedTuple):
    """verify.odd_instances: Return processes whose end contradicts itself."""

    instance_no: int
    unclean: int


class VerifyOddPauses(NamedTuple):
    """verify.odd_pauses: Return pauses that no channel can have asked for."""

    channel: str
    pauses: int


class VerifyEvents(NamedTuple):
    """verify.events: Return whether each event's data are JSON, a page at a time."""

    event_no: int
    is_json: int


class VerifyArchives(NamedTuple):
    """verify.archives: Return archives with their sessions and the size of their chunks, a page at a time."""

    archive_no: int
    state: Literal["writing", "complete", "deleting", "archived", "restoring", "restored", "deleted"]
    finished_at_ms: int | None
    bytes_stored: int
    session_id: str | None
    archived_at_ms: int | None
    ended_at_ms: int | None
    found_chunks: int
    found_bytes: int


class VerifyBrokenRules(NamedTuple):
    """verify.broken_rules: Return the rows that break a CHECK of their table. Reads every row but entries: the walk over those names them."""

    rule: str
    what: str


class VerifyLastSession(NamedTuple):
    """verify.last_session: Return the highest session number. 0 in an empty database."""

    session_no: int


VerifyNextSession = VerifyLastSession  # verify.next_session


class VerifyLastOwner(NamedTuple):
    """verify.last_owner: Return the highest session number that an entry claims. 0 without an entry."""

    owner_no: int


VerifyNextOwner = VerifyLastOwner  # verify.next_owner


class VerifySession(NamedTuple):
    """verify.session: Return one session's row with everything that its pointers must agree with, in one snapshot. :low_no and :high_no bound the numbers that its entries may have."""

    session_no: int
    session_id: str
    origin: Literal["native", "import", "fork"]
    version: int
    name: str | None
    last_seq: int
    epoch: int
    head_no: int | None
    branch_no: int | None
    boundary_no: int | None
    first_kept_no: int | None
    context_tokens: int
    tokens_fresh: int
    forked_from_no: int | None
    archived_at_ms: int | None
    forked_at_no: int | None
    forked_epoch: int | None
    heard_at_ms: int | None
    formats: int
    ordered_from_no: int | None
    open_marks: str | None
    asked_no: int | None
    created_at_ms: int
    header_type: str | None
    header_at_ms: int | None
    header_version: int | None
    origin_epoch: int | None
    last_no: int | None
    found_head_no: int | None
    head_branch_no: int | None
    head_tokens_total: int | None
    head_boundary_no: int | None
    head_open_calls: int | None
    after_head_no: int | None
    found_boundary_no: int | None
    boundary_type: str | None
    boundary_branch_no: int | None
    boundary_tokens: int | None
    boundary_tokens_total: int | None
    found_kept_no: int | None
    before_kept_tokens_total: int | None
    last_epoch: int | None
    open_epoch: int | None
    open_closed_at_ms: int | None
    open_boundary_no: int | None
    open_first_kept_no: int | None
    running: int


class VerifyComesFrom(NamedTuple):
    """verify.comes_from: Return a row if a session is another one, or was forked from it: directly, or in several steps."""

    session_no: int | None


class VerifyFirstHead(NamedTuple):
    """verify.first_head: Return the head of a session's first epoch: where it ended, or where it is."""

    head_no: int | None
    branch_no: int | None


class VerifyExists(NamedTuple):
    """verify.exists: Return whether a session still exists, and whether its entries do."""

    session_no: int
    archived_at_ms: int | None


class VerifyArchive(NamedTuple):
    """verify.archive: Return a session's archive that is not restored, and how many of its rows exist. A planted number must not end it: sum() of such numbers is an error, and total() is none."""

    archive_no: int
    state: Literal["writing", "complete", "deleting", "archived", "restoring", "restored", "deleted"]
    encoding: Literal["zstd", "zlib", "none"]
    rows: int
    finished_at_ms: int | None
    session_keys: str
    found_rows: int


class VerifyArchiveOfParent(NamedTuple):
    """verify.archive_of_parent: Return the archive of the session that this one was forked from, if that session is archived."""

    archive_no: int


class VerifyBranches(NamedTuple):
    """verify.branches: Return a session's branches with the entries that they begin at and left from, a page at a time."""

    branch_no: int
    parent_branch_no: int | None
    fork_no: int | None
    first_no: int
    first_branch_no: int | None
    first_parent_no: int | None
    found_fork_no: int | None
    fork_branch_no: int | None
    found_parent_branch_no: int | None


class VerifyEntries(NamedTuple):
    """verify.entries: Return entries with their parents, their branches, and the entry before each on its branch, a page at a time. Reads no payload."""

    entry_no: int
    branch_no: int | None
    parent_no: int | None
    position: int
    type: str
    role: str | None
    projection: int
    tokens: int
    tokens_total: int
    usage_tokens: int | None
    open_calls: int
    boundary_no: int | None
    first_kept_no: int | None
    model_no: int | None
    thinking_no: int | None
    body_at: int
    body_bytes: int
    appended_at_ms: int
    idempotency_key: str | None
    entry_id: str
    bytes: int
    found_branch_no: int | None
    branch_session_no: int | None
    first_no: int | None
    found_parent_no: int | None
    parent_branch_no: int | None
    parent_position: int | None
    parent_tokens_total: int | None
    parent_open_calls: int | None
    parent_boundary_no: int | None
    parent_model_no: int | None
    parent_thinking_no: int | None
    parent_id: str | None
    previous_no: int | None


class VerifyPayloads(NamedTuple):
    """verify.payloads: Return the texts of a range of entries, as bytes, so that a text that is not UTF-8 can be reported."""

    entry_no: int
    payload: bytes


VerifyPathPayloads = VerifyPayloads  # verify.path_payloads


class VerifyPlace(NamedTuple):
    """verify.place: Return where an entry is in the tree."""

    entry_no: int
    branch_no: int | None
    entry_id: str


class VerifyNamedBefore(NamedTuple):
    """verify.named_before: Return the entry that an id named when a later entry was appended: the newest of the session or, for a fork, of the sessions that it comes from."""

    entry_no: int
    branch_no: int | None


class VerifyKeyOwner(NamedTuple):
    """verify.key_owner: Return a row if an earlier entry of a session has an idempotency key."""

    entry_no: int


class VerifyJobOfEntry(NamedTuple):
    """verify.job_of_entry: Return the job that wrote a compaction entry, and the entry before the first that it keeps."""

    compaction_id: str
    tokens_before: int
    tokens_after: int | None
    cut_no: int | None
    first_kept_no: int | None
    found_kept_no: int | None
    before_kept_no: int | None
    before_kept_tokens_total: int | None


VerifyControlRecord = VerifyKeyOwner  # verify.control_record


class VerifyReopenedAt(NamedTuple):
    """verify.reopened_at: Return a row if a session's context was ever moved, at this head, to a boundary that is not the head's own. An undo does that, a fork, and a switch to what follows a compaction that was undone."""

    epoch: int


class VerifyLastUsage(NamedTuple):
    """verify.last_usage: Return the newest entry of a short range of one branch that carries a provider's count of a context which began at a boundary."""

    entry_no: int
    usage_tokens: int | None
    tokens_total: int


class VerifyEpochs(NamedTuple):
    """verify.epochs: Return a session's epochs with the entries that they point at, a page at a time."""

    epoch: int
    reason: Literal["start", "compaction", "reset", "branch", "undo", "fork", "edit"]
    boundary_no: int | None
    first_kept_no: int | None
    opened_at_ms: int
    closed_head_no: int | None
    closed_at_ms: int | None
    found_head_no: int | None
    head_branch_no: int | None
    head_boundary_no: int | None
    found_boundary_no: int | None
    boundary_type: str | None
    boundary_parent_no: int | None
    boundary_kept_no: int | None


class VerifyBeforeCompaction(NamedTuple):
    """verify.before_compaction: Return the context that was in force before a compaction of a session, by its entry."""

    boundary_no: int | None
    first_kept_no: int | None


class VerifyAfterEpoch(NamedTuple):
    """verify.after_epoch: Return the head at which an epoch ended that had begun with an entry, and the entry after it on its branch, no later than a given one."""

    closed_head_no: int | None
    branch_no: int | None
    next_no: int | None


class VerifyCompactions(NamedTuple):
    """verify.compactions: Return a session's jobs with what they committed, a page at a time."""

    compaction_no: int
    compaction_id: str
    state: Literal["running", "committed", "superseded", "rejected", "failed", "cancelled", "expired", "abandoned"]
    base_epoch: int
    cut_no: int | None
    late: int
    epoch: int | None
    in_vain: int
    reason: str | None
    deadline_ms: int
    deadline_max_ms: int
    entry_no: int | None
    session_epoch: int
    found_entry_no: int | None
    entry_type: str | None
    cut_branch_no: int | None
    epoch_reason: Literal["start", "compaction", "reset", "branch", "undo", "fork", "edit"] | None
    epoch_boundary_no: int | None


class VerifyImportFiles(NamedTuple):
    """verify.import_files: Return the receipts of imports with how much of each exists, a page at a time. The first receipt of a session has its quarantined pieces."""

    import_file_no: int
    path: str
    kind: Literal["live", "reset", "deleted", "bak", "checkpoint", "corrupt", "index", "pi"]
    lines: int
    entries: int
    quarantined: int
    session_no: int | None
    session_id: str | None
    origin: Literal["native", "import", "fork"] | None
    session_last_seq: int | None
    first_import_file_no: int
    found_quarantined: int
    last_line: int | None


class VerifyFirstReceipt(NamedTuple):
    """verify.first_receipt: Return the first receipt of a session, and the last entry that an early line became."""

    import_file_no: int
    session_id: str
    placed_seq: int


class VerifyReceipts(NamedTuple):
    """verify.receipts: Return one receipt, and all others of its session, with whether that is archived, and the last entry that an early line became."""

    import_file_no: int
    path: str
    bytes: int
    lines: int
    entries: int
    sha256: str | None
    final_newline: int
    note: str | None
    archived_at_ms: int | None
    placed_seq: int


class VerifyPieces(NamedTuple):
    """verify.pieces: Return the quarantined pieces of a file, a page at a time. The bytes of an early line that became an entry are those of the entry."""

    line: int
    byte_offset: int
    after_seq: int
    reason: str
    severity: Literal["blank", "damaged", "early"]
    content: bytes
    entry_id: str | None
    entry_seq: int | None


class VerifyIndex(NamedTuple):
    """verify.index: Return an imported index file with its receipt. A long one has its content in pieces."""

    path: str
    size: int
    lines: int
    sha256: str | None
    state: Literal["reading", "done", "changed"]
    note: str | None
    content: bytes | None
    head_byte: int | None


class VerifyInbox(NamedTuple):
    """verify.inbox: Return messages with the turns that claimed them last, their entries, and the events that told their senders of their ends, a page at a time. Reads no payload of an entry."""

    inbox_no: int
    session_no: int
    session_id: str | None
    archived_at_ms: int | None
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    attempts: int
    turn_no: int | None
    waits_in_vain: int
    restored: int
    entry_no: int | None
    superseded_by: int | None
    told_no: int | None
    told_kind: str | None
    told_audience: Literal["operator", "user"] | None
    told_session_no: int | None
    told_inbox_no: int
    entry_branch_no: int | None
    turn_state: Literal["running", "completed", "failed", "aborted", "interrupted"] | None
    turn_inbox_no: int | None
    turn_session_no: int | None
    turn_attempt: int | None
    heard: int
    stops: int
    lane: str
    lane_before: str | None
    found_lane_before: str | None
    dropped_lane: str | None
    digest: str | None
    idempotency_key: str | None
    has_text: int
    is_json: int
    found_type: str | None


class VerifySuccessor(NamedTuple):
    """verify.successor: Return the message that superseded another one, with its last turn, and its entry: where the context began for it, and what that kept."""

    session_no: int
    state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"]
    turn_no: int | None
    entry_no: int | None
    turn_state: Literal["running", "completed", "failed", "aborted", "interrupted"] | None
    branch_no: int | None
    boundary_no: int | None
    first_kept_no: int | None


class VerifyTurns(NamedTuple):
    """verify.turns: Return turns with the messages that they work on, a page at a time."""

    turn_no: int
    session_no: int
    session_id: str | None
    state: Literal["running", "completed", "failed", "aborted", "interrupted"]
    kind: Literal["message", "resume"]
    lane: str
    inbox_no: int
    expires_at_ms: int
    deadline_ms: int
    inbox_state: Literal["queued", "claimed", "interrupted", "done", "dead", "heard"] | None
    inbox_turn_no: int | None
    inbox_session_no: int | None
    running: int


class VerifyOutbox(NamedTuple):
    """verify.outbox: Return replies with the turns that wrote them, a page at a time."""

    outbox_no: int
    session_no: int
    session_id: str | None
    state: Literal["pending", "sending", "sent", "unknown", "failed"]
    turn_no: int | None
    instance_no: int | None
    expires_at_ms: int | None
    finished_at_ms: int | None
    target: str
    channel: str
    attempts: int
    attempts_before: int
    turn_state: Literal["running", "completed", "failed", "aborted", "interrupted"] | None
    turn_session_no: int | None
    waits_in_vain: int


class VerifyCursors(NamedTuple):
    """verify.cursors: Return the consumers that claim to have handled events which were never written."""

    consumer: str
    event_no: int
    last_no: int


class WalLinkCurrent(NamedTuple):
    """wal_link.current: Return the name of the database."""

    current: str


class Reads(Protocol):
    """How a body runs the statements that return rows."""

    @overload
    def first(self, statement: Literal["archive.protection"], /, *, session_nos: SqlValue) -> ArchiveProtection | None:
        """Return the first row of a named statement, or None."""
    @overload
    def first(self, statement: Literal["archive.session"], /, *, session_no: SqlValue) -> ArchiveSession | None: ...
    @overload
    def first(self, statement: Literal["archive.sessions"], /, *, session_nos: SqlValue) -> ArchiveSessions | None: ...
    @overload
    def first(self, statement: Literal["archive.weights"], /, *, session_nos: SqlValue) -> ArchiveWeights | None: ...
    @overload
    def first(self, statement: Literal["archive.bindings"], /, *, session_no: SqlValue) -> ArchiveBindings | None: ...
    @overload
    def first(self, statement: Literal["archive.bindings_of"], /, *, session_nos: SqlValue) -> ArchiveBindingsOf | None: ...
    @overload
    def first(self, statement: Literal["archive.branches_of"], /, *, session_nos: SqlValue) -> ArchiveBranchesOf | None: ...
    @overload
    def first(self, statement: Literal["archive.epochs_of"], /, *, session_nos: SqlValue) -> ArchiveEpochsOf | None: ...
    @overload
    def first(self, statement: Literal["archive.entries_of"], /, *, session_nos: SqlValue) -> ArchiveEntriesOf | None: ...
    @overload
    def first(self, statement: Literal["archive.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> ArchiveBranches | None: ...
    @overload
    def first(self, statement: Literal["archive.epochs"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> ArchiveEpochs | None: ...
    @overload
    def first(self, statement: Literal["archive.entries"], /, *, low_no: SqlValue, high_no: SqlValue) -> ArchiveEntries | None: ...
    @overload
    def first(self, statement: Literal["archive.insert"], /, *, session_no: SqlValue, state: SqlValue, reason: SqlValue, encoding: SqlValue, now_ms: SqlValue, session_keys: SqlValue) -> ArchiveInsert | None: ...
    @overload
    def first(self, statement: Literal["archive.insert_whole"], /, *, session_no: SqlValue, reason: SqlValue, encoding: SqlValue, now_ms: SqlValue, rows: SqlValue, bytes: SqlValue, bytes_stored: SqlValue, session_keys: SqlValue) -> ArchiveInsertWhole | None: ...
    @overload
    def first(self, statement: Literal["archive.get"], /, *, archive_no: SqlValue) -> ArchiveGet | None: ...
    @overload
    def first(self, statement: Literal["archive.of_session"], /, *, session_no: SqlValue) -> ArchiveOfSession | None: ...
    @overload
    def first(self, statement: Literal["archive.open_of"], /, *, session_nos: SqlValue) -> ArchiveOpenOf | None: ...
    @overload
    def first(self, statement: Literal["archive.unfinished"], /, *, after_no: SqlValue, limit: SqlValue) -> ArchiveUnfinished | None: ...
    @overload
    def first(self, statement: Literal["archive.kept"], /, *, after_no: SqlValue, limit: SqlValue) -> ArchiveKept | None: ...
    @overload
    def first(self, statement: Literal["archive.next_chunk"], /, *, archive_no: SqlValue) -> ArchiveNextChunk | None: ...
    @overload
    def first(self, statement: Literal["archive.chunk"], /, *, archive_no: SqlValue, chunk_no: SqlValue) -> ArchiveChunk | None: ...
    @overload
    def first(self, statement: Literal["archive.branch"], /, *, branch_no: SqlValue) -> ArchiveBranch | None: ...
    @overload
    def first(self, statement: Literal["channels.full"], /, *, channel: SqlValue, fewer: SqlValue) -> ChannelsFull | None: ...
    @overload
    def first(self, statement: Literal["channels.next_try"], /, *, channel: SqlValue) -> ChannelsNextTry | None: ...
    @overload
    def first(self, statement: Literal["channels.pause_of"], /, *, channel: SqlValue) -> ChannelsPauseOf | None: ...
    @overload
    def first(self, statement: Literal["channels.in_force"], /, *, now_ms: SqlValue) -> ChannelsInForce | None: ...
    @overload
    def first(self, statement: Literal["channels.outwaited"], /, *, channel: SqlValue, asked_before_ms: SqlValue, limit: SqlValue) -> ChannelsOutwaited | None: ...
    @overload
    def first(self, statement: Literal["compaction.running"], /, *, session_no: SqlValue) -> CompactionRunning | None: ...
    @overload
    def first(self, statement: Literal["compaction.recent"], /, *, session_no: SqlValue, limit: SqlValue) -> CompactionRecent | None: ...
    @overload
    def first(self, statement: Literal["compaction.by_id"], /, *, compaction_id: SqlValue) -> CompactionById | None: ...
    @overload
    def first(self, statement: Literal["compaction.renew"], /, *, deadline_ms: SqlValue, compaction_id: SqlValue) -> CompactionRenew | None: ...
    @overload
    def first(self, statement: Literal["compaction.by_entry"], /, *, session_no: SqlValue, entry_no: SqlValue) -> CompactionByEntry | None: ...
    @overload
    def first(self, statement: Literal["compaction.reply"], /, *, entry_no: SqlValue) -> CompactionReply | None: ...
    @overload
    def first(self, statement: Literal["compaction.after_answer"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> CompactionAfterAnswer | None: ...
    @overload
    def first(self, statement: Literal["compaction.still_asked"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue) -> CompactionStillAsked | None: ...
    @overload
    def first(self, statement: Literal["compaction.cut_page"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> CompactionCutPage | None: ...
    @overload
    def first(self, statement: Literal["compaction.message"], /, *, entry_no: SqlValue) -> CompactionMessage | None: ...
    @overload
    def first(self, statement: Literal["compaction.may_have_results"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> CompactionMayHaveResults | None: ...
    @overload
    def first(self, statement: Literal["compaction.first_message"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> CompactionFirstMessage | None: ...
    @overload
    def first(self, statement: Literal["compaction.results"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> CompactionResults | None: ...
    @overload
    def first(self, statement: Literal["compaction.calls"], /, *, entry_no: SqlValue) -> CompactionCalls | None: ...
    @overload
    def first(self, statement: Literal["compaction.list"], /, *, before_no: SqlValue, limit: SqlValue) -> CompactionList | None: ...
    @overload
    def first(self, statement: Literal["compaction.list_of_session"], /, *, session_no: SqlValue, before_no: SqlValue, limit: SqlValue) -> CompactionListOfSession | None: ...
    @overload
    def first(self, statement: Literal["context.pointers"], /, *, session_no: SqlValue) -> ContextPointers | None: ...
    @overload
    def first(self, statement: Literal["context.now"], /, *, session_no: SqlValue) -> ContextNow | None: ...
    @overload
    def first(self, statement: Literal["context.then"], /, *, session_no: SqlValue, epoch: SqlValue) -> ContextThen | None: ...
    @overload
    def first(self, statement: Literal["context.span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, system_after_no: SqlValue) -> ContextSpan | None: ...
    @overload
    def first(self, statement: Literal["context.ids"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> ContextIds | None: ...
    @overload
    def first(self, statement: Literal["context.instructions"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue) -> ContextInstructions | None: ...
    @overload
    def first(self, statement: Literal["context.span_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> ContextSpanBackward | None: ...
    @overload
    def first(self, statement: Literal["context.last_user_message"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> ContextLastUserMessage | None: ...
    @overload
    def first(self, statement: Literal["context.boundary"], /, *, entry_no: SqlValue) -> ContextBoundary | None: ...
    @overload
    def first(self, statement: Literal["context.working_from"], /, *, session_no: SqlValue) -> ContextWorkingFrom | None: ...
    @overload
    def first(self, statement: Literal["deletion.sending"], /, *, session_no: SqlValue) -> DeletionSending | None: ...
    @overload
    def first(self, statement: Literal["deletion.waiting"], /, *, session_no: SqlValue, limit: SqlValue) -> DeletionWaiting | None: ...
    @overload
    def first(self, statement: Literal["deletion.by_key"], /, *, after_key: SqlValue, prefix: SqlValue, prefix_end: SqlValue, limit: SqlValue) -> DeletionByKey | None: ...
    @overload
    def first(self, statement: Literal["deletion.archived"], /, *, prefix: SqlValue, prefix_end: SqlValue, after_no: SqlValue, limit: SqlValue) -> DeletionArchived | None: ...
    @overload
    def first(self, statement: Literal["deletion.inbox"], /, *, after_no: SqlValue, limit: SqlValue) -> DeletionInbox | None: ...
    @overload
    def first(self, statement: Literal["deletion.outbox"], /, *, after_no: SqlValue, limit: SqlValue) -> DeletionOutbox | None: ...
    @overload
    def first(self, statement: Literal["deletion.event"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> DeletionEvent | None: ...
    @overload
    def first(self, statement: Literal["deletion.last_event"], /) -> DeletionLastEvent | None: ...
    @overload
    def first(self, statement: Literal["deletion.in_namespace"], /, *, namespace: SqlValue, after_id: SqlValue, limit: SqlValue) -> DeletionInNamespace | None: ...
    @overload
    def first(self, statement: Literal["deletion.indexes"], /, *, limit: SqlValue) -> DeletionIndexes | None: ...
    @overload
    def first(self, statement: Literal["details.of_session"], /, *, session_no: SqlValue) -> DetailsOfSession | None: ...
    @overload
    def first(self, statement: Literal["details.named"], /, *, namespace: SqlValue, name: SqlValue) -> DetailsNamed | None: ...
    @overload
    def first(self, statement: Literal["details.in_namespace"], /, *, namespace: SqlValue, after_name: SqlValue, limit: SqlValue) -> DetailsInNamespace | None: ...
    @overload
    def first(self, statement: Literal["disk.can_measure"], /) -> DiskCanMeasure | None: ...
    @overload
    def first(self, statement: Literal["disk.objects"], /) -> DiskObjects | None: ...
    @overload
    def first(self, statement: Literal["disk.pages"], /, *, name: SqlValue) -> DiskPages | None: ...
    @overload
    def first(self, statement: Literal["disk.archived"], /) -> DiskArchived | None: ...
    @overload
    def first(self, statement: Literal["draining.last"], /) -> DrainingLast | None: ...
    @overload
    def first(self, statement: Literal["early_lines.of_file"], /, *, import_file_no: SqlValue) -> EarlyLinesOfFile | None: ...
    @overload
    def first(self, statement: Literal["early_lines.waiting"], /, *, import_file_no: SqlValue, entry_id: SqlValue) -> EarlyLinesWaiting | None: ...
    @overload
    def first(self, statement: Literal["early_lines.next"], /, *, import_file_no: SqlValue, limit: SqlValue, session_no: SqlValue) -> EarlyLinesNext | None: ...
    @overload
    def first(self, statement: Literal["early_lines.without_parent"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> EarlyLinesWithoutParent | None: ...
    @overload
    def first(self, statement: Literal["early_lines.in_a_circle"], /, *, import_file_no: SqlValue, after_offset: SqlValue) -> EarlyLinesInACircle | None: ...
    @overload
    def first(self, statement: Literal["early_lines.found_late"], /, *, import_file_no: SqlValue) -> EarlyLinesFoundLate | None: ...
    @overload
    def first(self, statement: Literal["early_lines.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> EarlyLinesBranches | None: ...
    @overload
    def first(self, statement: Literal["early_lines.entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> EarlyLinesEntries | None: ...
    @overload
    def first(self, statement: Literal["events.emit"], /, *, kind: SqlValue, audience: SqlValue, session_no: SqlValue, now_ms: SqlValue, text: SqlValue, data: SqlValue) -> EventsEmit | None: ...
    @overload
    def first(self, statement: Literal["events.after"], /, *, after_no: SqlValue, limit: SqlValue) -> EventsAfter | None: ...
    @overload
    def first(self, statement: Literal["events.after_for"], /, *, audience: SqlValue, after_no: SqlValue, limit: SqlValue) -> EventsAfterFor | None: ...
    @overload
    def first(self, statement: Literal["events.of_session"], /, *, audience: SqlValue, session_no: SqlValue, among: SqlValue, limit: SqlValue) -> EventsOfSession | None: ...
    @overload
    def first(self, statement: Literal["events.last"], /) -> EventsLast | None: ...
    @overload
    def first(self, statement: Literal["events.nth_last"], /, *, skipped: SqlValue) -> EventsNthLast | None: ...
    @overload
    def first(self, statement: Literal["events.nth_last_for"], /, *, audience: SqlValue, skipped: SqlValue) -> EventsNthLastFor | None: ...
    @overload
    def first(self, statement: Literal["events.cursor"], /, *, consumer: SqlValue) -> EventsCursor | None: ...
    @overload
    def first(self, statement: Literal["foreign_ids.find"], /, *, namespace: SqlValue, external_id: SqlValue) -> ForeignIdsFind | None: ...
    @overload
    def first(self, statement: Literal["history.in_context"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue, limit: SqlValue) -> HistoryInContext | None: ...
    @overload
    def first(self, statement: Literal["import_file.known"], /, *, paths: SqlValue) -> ImportFileKnown | None: ...
    @overload
    def first(self, statement: Literal["import_file.by_path"], /, *, path: SqlValue) -> ImportFileByPath | None: ...
    @overload
    def first(self, statement: Literal["import_file.by_inode"], /, *, inodes: SqlValue) -> ImportFileByInode | None: ...
    @overload
    def first(self, statement: Literal["import_file.of_name"], /, *, names: SqlValue) -> ImportFileOfName | None: ...
    @overload
    def first(self, statement: Literal["import_file.insert"], /, *, path: SqlValue, name: SqlValue, kind: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue, sha256: SqlValue, note: SqlValue) -> ImportFileInsert | None: ...
    @overload
    def first(self, statement: Literal["import_file.damaged_lines"], /, *, after_path: SqlValue, folder: SqlValue, limit: SqlValue) -> ImportFileDamagedLines | None: ...
    @overload
    def first(self, statement: Literal["import_file.begin_index"], /, *, path: SqlValue, name: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue) -> ImportFileBeginIndex | None: ...
    @overload
    def first(self, statement: Literal["import_file.index"], /, *, path: SqlValue) -> ImportFileIndex | None: ...
    @overload
    def first(self, statement: Literal["import_file.index_content"], /, *, path: SqlValue) -> ImportFileIndexContent | None: ...
    @overload
    def first(self, statement: Literal["import_file.index_pieces"], /, *, import_file_no: SqlValue, after_offset: SqlValue, end_offset: SqlValue, limit: SqlValue) -> ImportFileIndexPieces | None: ...
    @overload
    def first(self, statement: Literal["import_file.count_pieces"], /, *, import_file_no: SqlValue, first_offset: SqlValue, end_offset: SqlValue) -> ImportFileCountPieces | None: ...
    @overload
    def first(self, statement: Literal["import_file.in_folder"], /, *, folder: SqlValue) -> ImportFileInFolder | None: ...
    @overload
    def first(self, statement: Literal["import_file.files"], /, *, after_no: SqlValue, session_no: SqlValue, limit: SqlValue) -> ImportFileFiles | None: ...
    @overload
    def first(self, statement: Literal["import_file.indexes"], /) -> ImportFileIndexes | None: ...
    @overload
    def first(self, statement: Literal["import_file.sessions_without_file"], /, *, after_no: SqlValue, session_no: SqlValue, limit: SqlValue) -> ImportFileSessionsWithoutFile | None: ...
    @overload
    def first(self, statement: Literal["import_file.bindings_of_agent"], /, *, agent_id: SqlValue, after_key: SqlValue, limit: SqlValue) -> ImportFileBindingsOfAgent | None: ...
    @overload
    def first(self, statement: Literal["import_file.agents"], /) -> ImportFileAgents | None: ...
    @overload
    def first(self, statement: Literal["import_file.entry_sizes"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> ImportFileEntrySizes | None: ...
    @overload
    def first(self, statement: Literal["import_file.payloads"], /, *, low_no: SqlValue, high_no: SqlValue, import_file_no: SqlValue, limit: SqlValue) -> ImportFilePayloads | None: ...
    @overload
    def first(self, statement: Literal["import_file.kept"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> ImportFileKept | None: ...
    @overload
    def first(self, statement: Literal["import_file.foreign_parents"], /, *, low_no: SqlValue, high_no: SqlValue, session_no: SqlValue) -> ImportFileForeignParents | None: ...
    @overload
    def first(self, statement: Literal["import_file.shared_entries"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> ImportFileSharedEntries | None: ...
    @overload
    def first(self, statement: Literal["import_file.details"], /, *, session_key: SqlValue) -> ImportFileDetails | None: ...
    @overload
    def first(self, statement: Literal["import_file.undone"], /, *, session_no: SqlValue) -> ImportFileUndone | None: ...
    @overload
    def first(self, statement: Literal["inbox.by_event"], /, *, channel: SqlValue, event_id: SqlValue) -> InboxByEvent | None: ...
    @overload
    def first(self, statement: Literal["inbox.accept"], /, *, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, now_ms: SqlValue, details: SqlValue, payload: SqlValue) -> InboxAccept | None: ...
    @overload
    def first(self, statement: Literal["inbox.hear"], /, *, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, now_ms: SqlValue, details: SqlValue, payload: SqlValue) -> InboxHear | None: ...
    @overload
    def first(self, statement: Literal["inbox.heard"], /, *, session_no: SqlValue, before_no: SqlValue, limit: SqlValue) -> InboxHeard | None: ...
    @overload
    def first(self, statement: Literal["inbox.heard_weight"], /, *, session_no: SqlValue, limit: SqlValue) -> InboxHeardWeight | None: ...
    @overload
    def first(self, statement: Literal["inbox.newest_text"], /, *, inbox_no: SqlValue) -> InboxNewestText | None: ...
    @overload
    def first(self, statement: Literal["inbox.waiting_in_session"], /, *, session_no: SqlValue, lane: SqlValue, limit: SqlValue) -> InboxWaitingInSession | None: ...
    @overload
    def first(self, statement: Literal["inbox.ahead"], /, *, session_no: SqlValue, lane: SqlValue, limit: SqlValue) -> InboxAhead | None: ...
    @overload
    def first(self, statement: Literal["inbox.open_in_session"], /, *, session_no: SqlValue) -> InboxOpenInSession | None: ...
    @overload
    def first(self, statement: Literal["inbox.waiting_in_lane"], /, *, lane: SqlValue, limit: SqlValue) -> InboxWaitingInLane | None: ...
    @overload
    def first(self, statement: Literal["inbox.next"], /, *, lane: SqlValue, low_ms: SqlValue, high_ms: SqlValue) -> InboxNext | None: ...
    @overload
    def first(self, statement: Literal["inbox.candidate"], /, *, inbox_no: SqlValue) -> InboxCandidate | None: ...
    @overload
    def first(self, statement: Literal["inbox.payload"], /, *, inbox_no: SqlValue) -> InboxPayload | None: ...
    @overload
    def first(self, statement: Literal["inbox.due"], /, *, lane: SqlValue, now_ms: SqlValue) -> InboxDue | None: ...
    @overload
    def first(self, statement: Literal["inbox.of_turn"], /, *, inbox_no: SqlValue) -> InboxOfTurn | None: ...
    @overload
    def first(self, statement: Literal["inbox.interrupted_before"], /, *, session_no: SqlValue, inbox_no: SqlValue) -> InboxInterruptedBefore | None: ...
    @overload
    def first(self, statement: Literal["inbox.waiting"], /, *, inbox_no: SqlValue) -> InboxWaiting | None: ...
    @overload
    def first(self, statement: Literal["inbox.interrupted"], /, *, before_no: SqlValue, limit: SqlValue) -> InboxInterrupted | None: ...
    @overload
    def first(self, statement: Literal["inbox.interrupted_by"], /, *, instances: SqlValue, before_no: SqlValue, limit: SqlValue) -> InboxInterruptedBy | None: ...
    @overload
    def first(self, statement: Literal["inbox.running_resumes"], /, *, dead: SqlValue) -> InboxRunningResumes | None: ...
    @overload
    def first(self, statement: Literal["inbox.late"], /, *, lane: SqlValue, low_ms: SqlValue, high_ms: SqlValue, limit: SqlValue) -> InboxLate | None: ...
    @overload
    def first(self, statement: Literal["inbox.notified"], /, *, inbox_no: SqlValue) -> InboxNotified | None: ...
    @overload
    def first(self, statement: Literal["inbox.restored"], /, *, after_no: SqlValue, limit: SqlValue) -> InboxRestored | None: ...
    @overload
    def first(self, statement: Literal["inbox.dead"], /, *, before_no: SqlValue, limit: SqlValue) -> InboxDead | None: ...
    @overload
    def first(self, statement: Literal["inbox.open"], /, *, after_no: SqlValue, limit: SqlValue) -> InboxOpen | None: ...
    @overload
    def first(self, statement: Literal["inbox.open_of_session"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> InboxOpenOfSession | None: ...
    @overload
    def first(self, statement: Literal["inbox.outcome"], /, *, inbox_no: SqlValue) -> InboxOutcome | None: ...
    @overload
    def first(self, statement: Literal["inbox.answered_at"], /, *, inbox_no: SqlValue) -> InboxAnsweredAt | None: ...
    @overload
    def first(self, statement: Literal["instance.insert"], /, *, host: SqlValue, boot_id: SqlValue, pid: SqlValue, pid_started: SqlValue, program: SqlValue, opened_at_ms: SqlValue) -> InstanceInsert | None: ...
    @overload
    def first(self, statement: Literal["instance.by_pid"], /, *, host: SqlValue, boot_id: SqlValue, pid: SqlValue) -> InstanceByPid | None: ...
    @overload
    def first(self, statement: Literal["listing.of_agent"], /, *, agent_id: SqlValue, limit: SqlValue) -> ListingOfAgent | None: ...
    @overload
    def first(self, statement: Literal["listing.of_namespace"], /, *, namespace: SqlValue, limit: SqlValue) -> ListingOfNamespace | None: ...
    @overload
    def first(self, statement: Literal["listing.of_keys"], /, *, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> ListingOfKeys | None: ...
    @overload
    def first(self, statement: Literal["listing.among"], /, *, among: SqlValue, updated_before: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue) -> ListingAmong | None: ...
    @overload
    def first(self, statement: Literal["listing.newest"], /, *, past_ms: SqlValue, past_no: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> ListingNewest | None: ...
    @overload
    def first(self, statement: Literal["listing.oldest"], /, *, past_ms: SqlValue, past_no: SqlValue, updated_before: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> ListingOldest | None: ...
    @overload
    def first(self, statement: Literal["outbox.add"], /, *, session_no: SqlValue, turn_no: SqlValue, target: SqlValue, reason: SqlValue, now_ms: SqlValue, payload: SqlValue) -> OutboxAdd | None: ...
    @overload
    def first(self, statement: Literal["outbox.next"], /, *, low_ms: SqlValue, high_ms: SqlValue, full: SqlValue) -> OutboxNext | None: ...
    @overload
    def first(self, statement: Literal["outbox.ready"], /, *, outbox_no: SqlValue, now_ms: SqlValue, full: SqlValue) -> OutboxReady | None: ...
    @overload
    def first(self, statement: Literal["outbox.candidate"], /, *, outbox_no: SqlValue) -> OutboxCandidate | None: ...
    @overload
    def first(self, statement: Literal["outbox.origin"], /, *, outbox_no: SqlValue) -> OutboxOrigin | None: ...
    @overload
    def first(self, statement: Literal["outbox.payload"], /, *, outbox_no: SqlValue) -> OutboxPayload | None: ...
    @overload
    def first(self, statement: Literal["outbox.due"], /, *, now_ms: SqlValue, full: SqlValue) -> OutboxDue | None: ...
    @overload
    def first(self, statement: Literal["outbox.claimed_as"], /, *, claim_id: SqlValue) -> OutboxClaimedAs | None: ...
    @overload
    def first(self, statement: Literal["outbox.begun"], /, *, outbox_no: SqlValue, instance_no: SqlValue, attempt: SqlValue, expires_at_ms: SqlValue) -> OutboxBegun | None: ...
    @overload
    def first(self, statement: Literal["outbox.overdue"], /, *, now_ms: SqlValue, limit: SqlValue) -> OutboxOverdue | None: ...
    @overload
    def first(self, statement: Literal["outbox.of_instance"], /, *, instance_no: SqlValue, limit: SqlValue) -> OutboxOfInstance | None: ...
    @overload
    def first(self, statement: Literal["outbox.list"], /, *, state: SqlValue, after_no: SqlValue, limit: SqlValue) -> OutboxList | None: ...
    @overload
    def first(self, statement: Literal["outbox.list_sent"], /, *, after_no: SqlValue, limit: SqlValue) -> OutboxListSent | None: ...
    @overload
    def first(self, statement: Literal["pruning.outbox"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> PruningOutbox | None: ...
    @overload
    def first(self, statement: Literal["pruning.inbox"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> PruningInbox | None: ...
    @overload
    def first(self, statement: Literal["pruning.turn"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> PruningTurn | None: ...
    @overload
    def first(self, statement: Literal["pruning.event"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> PruningEvent | None: ...
    @overload
    def first(self, statement: Literal["recovery.open_instances"], /, *, after_no: SqlValue, limit: SqlValue) -> RecoveryOpenInstances | None: ...
    @overload
    def first(self, statement: Literal["recovery.is_open"], /, *, instance_no: SqlValue) -> RecoveryIsOpen | None: ...
    @overload
    def first(self, statement: Literal["recovery.idle"], /, *, instances: SqlValue) -> RecoveryIdle | None: ...
    @overload
    def first(self, statement: Literal["recovery.running_compactions"], /, *, instance_no: SqlValue, limit: SqlValue) -> RecoveryRunningCompactions | None: ...
    @overload
    def first(self, statement: Literal["recovery.overdue_compactions"], /, *, before_ms: SqlValue, limit: SqlValue) -> RecoveryOverdueCompactions | None: ...
    @overload
    def first(self, statement: Literal["recovery.unclean_starts"], /, *, since_ms: SqlValue, now_ms: SqlValue, dead: SqlValue, command_line: SqlValue, instance_no: SqlValue) -> RecoveryUncleanStarts | None: ...
    @overload
    def first(self, statement: Literal["recovery.held"], /) -> RecoveryHeld | None: ...
    @overload
    def first(self, statement: Literal["redact.entry"], /, *, entry_no: SqlValue) -> RedactEntry | None: ...
    @overload
    def first(self, statement: Literal["redact.copies"], /, *, entry_no: SqlValue) -> RedactCopies | None: ...
    @overload
    def first(self, statement: Literal["registry.insert"], /, *, session_id: SqlValue, agent_id: SqlValue, origin: SqlValue, version: SqlValue, now_ms: SqlValue, head_no: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, context_tokens: SqlValue, tokens_fresh: SqlValue, forked_from_no: SqlValue, forked_at_no: SqlValue, forked_epoch: SqlValue, formats: SqlValue, ordered_from_no: SqlValue, open_marks: SqlValue, asked_no: SqlValue) -> RegistryInsert | None: ...
    @overload
    def first(self, statement: Literal["registry.by_id"], /, *, session_id: SqlValue) -> RegistryById | None: ...
    @overload
    def first(self, statement: Literal["registry.by_key"], /, *, session_key: SqlValue) -> RegistryByKey | None: ...
    @overload
    def first(self, statement: Literal["registry.info"], /, *, session_no: SqlValue) -> RegistryInfo | None: ...
    @overload
    def first(self, statement: Literal["registry.began"], /, *, session_no: SqlValue) -> RegistryBegan | None: ...
    @overload
    def first(self, statement: Literal["retention.newest"], /, *, before_ms: SqlValue, before_no: SqlValue, limit: SqlValue) -> RetentionNewest | None: ...
    @overload
    def first(self, statement: Literal["retention.oldest"], /, *, after_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> RetentionOldest | None: ...
    @overload
    def first(self, statement: Literal["retention.sizes"], /, *, session_nos: SqlValue) -> RetentionSizes | None: ...
    @overload
    def first(self, statement: Literal["salvage.counted_header"], /, *, session_no: SqlValue) -> SalvageCountedHeader | None: ...
    @overload
    def first(self, statement: Literal["salvage.sessions"], /, *, after_no: SqlValue, limit: SqlValue) -> SalvageSessions | None: ...
    @overload
    def first(self, statement: Literal["salvage.session"], /, *, session_no: SqlValue) -> SalvageSession | None: ...
    @overload
    def first(self, statement: Literal["salvage.numbers"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> SalvageNumbers | None: ...
    @overload
    def first(self, statement: Literal["salvage.header"], /, *, entry_no: SqlValue) -> SalvageHeader | None: ...
    @overload
    def first(self, statement: Literal["salvage.taken"], /, *, session_id: SqlValue) -> SalvageTaken | None: ...
    @overload
    def first(self, statement: Literal["salvage.fork_epoch"], /, *, session_no: SqlValue) -> SalvageForkEpoch | None: ...
    @overload
    def first(self, statement: Literal["salvage.fork_point"], /, *, session_no: SqlValue, low_no: SqlValue) -> SalvageForkPoint | None: ...
    @overload
    def first(self, statement: Literal["salvage.undone_at"], /, *, session_no: SqlValue) -> SalvageUndoneAt | None: ...
    @overload
    def first(self, statement: Literal["salvage.aside"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> SalvageAside | None: ...
    @overload
    def first(self, statement: Literal["salvage.aside_child"], /, *, low_no: SqlValue, high_no: SqlValue, parent_no: SqlValue) -> SalvageAsideChild | None: ...
    @overload
    def first(self, statement: Literal["salvage.aside_by_id"], /, *, aside_no: SqlValue, entry_id: SqlValue) -> SalvageAsideById | None: ...
    @overload
    def first(self, statement: Literal["salvage.jobs_aside"], /, *, session_no: SqlValue) -> SalvageJobsAside | None: ...
    @overload
    def first(self, statement: Literal["salvage.bindings"], /, *, after: SqlValue, limit: SqlValue) -> SalvageBindings | None: ...
    @overload
    def first(self, statement: Literal["salvage.foreign_ids"], /, *, after: SqlValue, limit: SqlValue) -> SalvageForeignIds | None: ...
    @overload
    def first(self, statement: Literal["salvage.details"], /, *, after: SqlValue, limit: SqlValue) -> SalvageDetails | None: ...
    @overload
    def first(self, statement: Literal["salvage.branches"], /, *, after: SqlValue, limit: SqlValue) -> SalvageBranches | None: ...
    @overload
    def first(self, statement: Literal["salvage.next_epoch_owner"], /, *, after: SqlValue) -> SalvageNextEpochOwner | None: ...
    @overload
    def first(self, statement: Literal["salvage.compactions"], /, *, after: SqlValue, limit: SqlValue) -> SalvageCompactions | None: ...
    @overload
    def first(self, statement: Literal["salvage.turns"], /, *, after: SqlValue, limit: SqlValue) -> SalvageTurns | None: ...
    @overload
    def first(self, statement: Literal["salvage.inbox"], /, *, after: SqlValue, limit: SqlValue) -> SalvageInbox | None: ...
    @overload
    def first(self, statement: Literal["salvage.message"], /, *, inbox_no: SqlValue) -> SalvageMessage | None: ...
    @overload
    def first(self, statement: Literal["salvage.outbox"], /, *, after: SqlValue, limit: SqlValue) -> SalvageOutbox | None: ...
    @overload
    def first(self, statement: Literal["salvage.events"], /, *, after: SqlValue, limit: SqlValue) -> SalvageEvents | None: ...
    @overload
    def first(self, statement: Literal["salvage.import_files"], /, *, after: SqlValue, limit: SqlValue) -> SalvageImportFiles | None: ...
    @overload
    def first(self, statement: Literal["salvage.next_quarantined"], /, *, after: SqlValue) -> SalvageNextQuarantined | None: ...
    @overload
    def first(self, statement: Literal["salvage.archives"], /, *, after: SqlValue, limit: SqlValue) -> SalvageArchives | None: ...
    @overload
    def first(self, statement: Literal["salvage.archive_of"], /, *, session_no: SqlValue) -> SalvageArchiveOf | None: ...
    @overload
    def first(self, statement: Literal["salvage.next_chunk_owner"], /, *, after: SqlValue) -> SalvageNextChunkOwner | None: ...
    @overload
    def first(self, statement: Literal["salvage.chunk"], /, *, archive_no: SqlValue, after: SqlValue) -> SalvageChunk | None: ...
    @overload
    def first(self, statement: Literal["search.state"], /) -> SearchState | None: ...
    @overload
    def first(self, statement: Literal["search.behind"], /, *, limit: SqlValue) -> SearchBehind | None: ...
    @overload
    def first(self, statement: Literal["search.count_behind"], /) -> SearchCountBehind | None: ...
    @overload
    def first(self, statement: Literal["search.count_entries"], /) -> SearchCountEntries | None: ...
    @overload
    def first(self, statement: Literal["search.indexed"], /, *, session_no: SqlValue) -> SearchIndexed | None: ...
    @overload
    def first(self, statement: Literal["search.indexed_of"], /, *, session_nos: SqlValue) -> SearchIndexedOf | None: ...
    @overload
    def first(self, statement: Literal["search.parts"], /) -> SearchParts | None: ...
    @overload
    def first(self, statement: Literal["search.matches"], /, *, branch_no: SqlValue, agent_id: SqlValue, role: SqlValue, since_ms: SqlValue, checkpoints: SqlValue, words: SqlValue, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> SearchMatches | None: ...
    @overload
    def first(self, statement: Literal["search.any_match"], /, *, words: SqlValue) -> SearchAnyMatch | None: ...
    @overload
    def first(self, statement: Literal["search.described"], /, *, numbers: SqlValue, branch_no: SqlValue, agent_id: SqlValue, role: SqlValue, since_ms: SqlValue, checkpoints: SqlValue) -> SearchDescribed | None: ...
    @overload
    def first(self, statement: Literal["search.archives"], /, *, last_no: SqlValue, session_no: SqlValue, agent_id: SqlValue, limit: SqlValue) -> SearchArchives | None: ...
    @overload
    def first(self, statement: Literal["search.texts"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> SearchTexts | None: ...
    @overload
    def first(self, statement: Literal["search.cursors"], /, *, after_session_no: SqlValue, limit: SqlValue) -> SearchCursors | None: ...
    @overload
    def first(self, statement: Literal["search.documents"], /, *, after_no: SqlValue, limit: SqlValue) -> SearchDocuments | None: ...
    @overload
    def first(self, statement: Literal["search.missing"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> SearchMissing | None: ...
    @overload
    def first(self, statement: Literal["session_ids.by_prefix"], /, *, prefix: SqlValue, prefix_end: SqlValue, tail: SqlValue, limit: SqlValue) -> SessionIdsByPrefix | None: ...
    @overload
    def first(self, statement: Literal["session_ids.id_neighbours"], /, *, session_id: SqlValue) -> SessionIdsIdNeighbours | None: ...
    @overload
    def first(self, statement: Literal["session_list.by_update"], /, *, before: SqlValue, before_no: SqlValue, since_ms: SqlValue, agent_id: SqlValue, checkpoints: SqlValue, state: SqlValue, limit: SqlValue) -> SessionListByUpdate | None: ...
    @overload
    def first(self, statement: Literal["session_list.by_value"], /, *, sort: SqlValue, before: SqlValue, before_no: SqlValue, since_ms: SqlValue, agent_id: SqlValue, checkpoints: SqlValue, state: SqlValue, limit: SqlValue) -> SessionListByValue | None: ...
    @overload
    def first(self, statement: Literal["session_list.about"], /, *, look: SqlValue, session_no: SqlValue) -> SessionListAbout | None: ...
    @overload
    def first(self, statement: Literal["session_list.text"], /, *, chars: SqlValue, entry_no: SqlValue) -> SessionListText | None: ...
    @overload
    def first(self, statement: Literal["status.file"], /) -> StatusFile | None: ...
    @overload
    def first(self, statement: Literal["status.totals"], /) -> StatusTotals | None: ...
    @overload
    def first(self, statement: Literal["status.numbers"], /) -> StatusNumbers | None: ...
    @overload
    def first(self, statement: Literal["status.recent_turns"], /, *, since_ms: SqlValue) -> StatusRecentTurns | None: ...
    @overload
    def first(self, statement: Literal["status.counts"], /) -> StatusCounts | None: ...
    @overload
    def first(self, statement: Literal["status.work"], /, *, now_ms: SqlValue) -> StatusWork | None: ...
    @overload
    def first(self, statement: Literal["status.lanes"], /) -> StatusLanes | None: ...
    @overload
    def first(self, statement: Literal["status.channels"], /, *, now_ms: SqlValue, limit: SqlValue) -> StatusChannels | None: ...
    @overload
    def first(self, statement: Literal["status.compactions"], /) -> StatusCompactions | None: ...
    @overload
    def first(self, statement: Literal["status.running"], /, *, limit: SqlValue) -> StatusRunning | None: ...
    @overload
    def first(self, statement: Literal["status.stuck"], /, *, limit: SqlValue) -> StatusStuck | None: ...
    @overload
    def first(self, statement: Literal["status.processes"], /, *, limit: SqlValue) -> StatusProcesses | None: ...
    @overload
    def first(self, statement: Literal["status.relations"], /) -> StatusRelations | None: ...
    @overload
    def first(self, statement: Literal["status.branches"], /, *, session_no: SqlValue, limit: SqlValue) -> StatusBranches | None: ...
    @overload
    def first(self, statement: Literal["stopping.texts"], /, *, inbox_no: SqlValue) -> StoppingTexts | None: ...
    @overload
    def first(self, statement: Literal["stopping.text"], /, *, inbox_no: SqlValue) -> StoppingText | None: ...
    @overload
    def first(self, statement: Literal["stopping.ended"], /, *, turns: SqlValue) -> StoppingEnded | None: ...
    @overload
    def first(self, statement: Literal["transcript.state"], /, *, session_no: SqlValue) -> TranscriptState | None: ...
    @overload
    def first(self, statement: Literal["transcript.archived"], /, *, session_no: SqlValue) -> TranscriptArchived | None: ...
    @overload
    def first(self, statement: Literal["transcript.insert_branch"], /, *, session_no: SqlValue, parent_branch_no: SqlValue, fork_no: SqlValue, first_no: SqlValue) -> TranscriptInsertBranch | None: ...
    @overload
    def first(self, statement: Literal["transcript.branch"], /, *, branch_no: SqlValue) -> TranscriptBranch | None: ...
    @overload
    def first(self, statement: Literal["transcript.by_idempotency_key"], /, *, session_no: SqlValue, idempotency_key: SqlValue) -> TranscriptByIdempotencyKey | None: ...
    @overload
    def first(self, statement: Literal["transcript.by_id"], /, *, session_no: SqlValue, entry_id: SqlValue) -> TranscriptById | None: ...
    @overload
    def first(self, statement: Literal["transcript.by_no"], /, *, entry_no: SqlValue) -> TranscriptByNo | None: ...
    @overload
    def first(self, statement: Literal["transcript.usage"], /, *, entry_no: SqlValue) -> TranscriptUsage | None: ...
    @overload
    def first(self, statement: Literal["transcript.span_forward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> TranscriptSpanForward | None: ...
    @overload
    def first(self, statement: Literal["transcript.span_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> TranscriptSpanBackward | None: ...
    @overload
    def first(self, statement: Literal["transcript.newest_in_span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> TranscriptNewestInSpan | None: ...
    @overload
    def first(self, statement: Literal["transcript.typed_forward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, types: SqlValue, limit: SqlValue) -> TranscriptTypedForward | None: ...
    @overload
    def first(self, statement: Literal["transcript.typed_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, types: SqlValue, limit: SqlValue) -> TranscriptTypedBackward | None: ...
    @overload
    def first(self, statement: Literal["transcript.all_entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> TranscriptAllEntries | None: ...
    @overload
    def first(self, statement: Literal["transcript.first_in_span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> TranscriptFirstInSpan | None: ...
    @overload
    def first(self, statement: Literal["transcript.epoch"], /, *, session_no: SqlValue, epoch: SqlValue) -> TranscriptEpoch | None: ...
    @overload
    def first(self, statement: Literal["transcript.undone"], /, *, session_no: SqlValue, epoch: SqlValue, last_epoch: SqlValue, boundary_no: SqlValue) -> TranscriptUndone | None: ...
    @overload
    def first(self, statement: Literal["transcript.origin"], /, *, session_no: SqlValue) -> TranscriptOrigin | None: ...
    @overload
    def first(self, statement: Literal["transcript.epochs"], /, *, session_no: SqlValue, epoch: SqlValue, limit: SqlValue) -> TranscriptEpochs | None: ...
    @overload
    def first(self, statement: Literal["transcript.first_epoch_not_compaction"], /, *, session_no: SqlValue, epoch: SqlValue) -> TranscriptFirstEpochNotCompaction | None: ...
    @overload
    def first(self, statement: Literal["turns.lane"], /, *, lane: SqlValue) -> TurnsLane | None: ...
    @overload
    def first(self, statement: Literal["turns.open_in_lane"], /, *, lane: SqlValue, limit: SqlValue) -> TurnsOpenInLane | None: ...
    @overload
    def first(self, statement: Literal["turns.lanes_before"], /, *, lane: SqlValue) -> TurnsLanesBefore | None: ...
    @overload
    def first(self, statement: Literal["turns.start"], /, *, session_no: SqlValue, lane: SqlValue, kind: SqlValue, inbox_no: SqlValue, attempt: SqlValue, operation: SqlValue, instance_no: SqlValue, now_ms: SqlValue, expires_at_ms: SqlValue, deadline_ms: SqlValue, claim_id: SqlValue) -> TurnsStart | None: ...
    @overload
    def first(self, statement: Literal["turns.claimed_as"], /, *, lane: SqlValue, claim_id: SqlValue) -> TurnsClaimedAs | None: ...
    @overload
    def first(self, statement: Literal["turns.progress_of_message"], /, *, inbox_no: SqlValue) -> TurnsProgressOfMessage | None: ...
    @overload
    def first(self, statement: Literal["turns.get"], /, *, turn_no: SqlValue) -> TurnsGet | None: ...
    @overload
    def first(self, statement: Literal["turns.session_of"], /, *, turn_no: SqlValue) -> TurnsSessionOf | None: ...
    @overload
    def first(self, statement: Literal["turns.running_of_session"], /, *, session_no: SqlValue) -> TurnsRunningOfSession | None: ...
    @overload
    def first(self, statement: Literal["turns.renew"], /, *, now_ms: SqlValue, expires_at_ms: SqlValue, operation: SqlValue, turn_no: SqlValue) -> TurnsRenew | None: ...
    @overload
    def first(self, statement: Literal["turns.expired"], /, *, now_ms: SqlValue, alive: SqlValue, limit: SqlValue) -> TurnsExpired | None: ...
    @overload
    def first(self, statement: Literal["turns.of_instance"], /, *, instance_no: SqlValue, limit: SqlValue) -> TurnsOfInstance | None: ...
    @overload
    def first(self, statement: Literal["turns.next_expiry"], /, *, alive: SqlValue) -> TurnsNextExpiry | None: ...
    @overload
    def first(self, statement: Literal["turns.pace_of_session"], /, *, session_no: SqlValue, turns: SqlValue) -> TurnsPaceOfSession | None: ...
    @overload
    def first(self, statement: Literal["turns.pace_of_lane"], /, *, turns: SqlValue, lane: SqlValue) -> TurnsPaceOfLane | None: ...
    @overload
    def first(self, statement: Literal["verify.file_full"], /) -> VerifyFileFull | None: ...
    @overload
    def first(self, statement: Literal["verify.file_quick"], /) -> VerifyFileQuick | None: ...
    @overload
    def first(self, statement: Literal["verify.foreign_keys"], /, *, limit: SqlValue) -> VerifyForeignKeys | None: ...
    @overload
    def first(self, statement: Literal["verify.bindings"], /, *, after_key: SqlValue, limit: SqlValue) -> VerifyBindings | None: ...
    @overload
    def first(self, statement: Literal["verify.foreign_ids"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyForeignIds | None: ...
    @overload
    def first(self, statement: Literal["verify.numbers"], /) -> VerifyNumbers | None: ...
    @overload
    def first(self, statement: Literal["verify.wal_link"], /) -> VerifyWalLink | None: ...
    @overload
    def first(self, statement: Literal["verify.lanes"], /) -> VerifyLanes | None: ...
    @overload
    def first(self, statement: Literal["verify.odd_instances"], /, *, limit: SqlValue) -> VerifyOddInstances | None: ...
    @overload
    def first(self, statement: Literal["verify.odd_pauses"], /, *, limit: SqlValue) -> VerifyOddPauses | None: ...
    @overload
    def first(self, statement: Literal["verify.events"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyEvents | None: ...
    @overload
    def first(self, statement: Literal["verify.archives"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyArchives | None: ...
    @overload
    def first(self, statement: Literal["verify.broken_rules"], /, *, limit: SqlValue) -> VerifyBrokenRules | None: ...
    @overload
    def first(self, statement: Literal["verify.last_session"], /) -> VerifyLastSession | None: ...
    @overload
    def first(self, statement: Literal["verify.next_session"], /, *, after_no: SqlValue) -> VerifyNextSession | None: ...
    @overload
    def first(self, statement: Literal["verify.last_owner"], /) -> VerifyLastOwner | None: ...
    @overload
    def first(self, statement: Literal["verify.next_owner"], /, *, after_entry_no: SqlValue) -> VerifyNextOwner | None: ...
    @overload
    def first(self, statement: Literal["verify.session"], /, *, low_no: SqlValue, high_no: SqlValue, session_no: SqlValue) -> VerifySession | None: ...
    @overload
    def first(self, statement: Literal["verify.comes_from"], /, *, session_no: SqlValue, origin_no: SqlValue) -> VerifyComesFrom | None: ...
    @overload
    def first(self, statement: Literal["verify.first_head"], /, *, session_no: SqlValue) -> VerifyFirstHead | None: ...
    @overload
    def first(self, statement: Literal["verify.exists"], /, *, session_no: SqlValue) -> VerifyExists | None: ...
    @overload
    def first(self, statement: Literal["verify.archive"], /, *, session_no: SqlValue) -> VerifyArchive | None: ...
    @overload
    def first(self, statement: Literal["verify.archive_of_parent"], /, *, session_no: SqlValue) -> VerifyArchiveOfParent | None: ...
    @overload
    def first(self, statement: Literal["verify.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> VerifyBranches | None: ...
    @overload
    def first(self, statement: Literal["verify.entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> VerifyEntries | None: ...
    @overload
    def first(self, statement: Literal["verify.payloads"], /, *, low_no: SqlValue, high_no: SqlValue) -> VerifyPayloads | None: ...
    @overload
    def first(self, statement: Literal["verify.path_payloads"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> VerifyPathPayloads | None: ...
    @overload
    def first(self, statement: Literal["verify.place"], /, *, entry_no: SqlValue) -> VerifyPlace | None: ...
    @overload
    def first(self, statement: Literal["verify.named_before"], /, *, session_no: SqlValue, entry_id: SqlValue, before_no: SqlValue) -> VerifyNamedBefore | None: ...
    @overload
    def first(self, statement: Literal["verify.key_owner"], /, *, session_no: SqlValue, idempotency_key: SqlValue, before_no: SqlValue) -> VerifyKeyOwner | None: ...
    @overload
    def first(self, statement: Literal["verify.job_of_entry"], /, *, session_no: SqlValue, entry_no: SqlValue) -> VerifyJobOfEntry | None: ...
    @overload
    def first(self, statement: Literal["verify.control_record"], /, *, session_no: SqlValue, entry_id: SqlValue) -> VerifyControlRecord | None: ...
    @overload
    def first(self, statement: Literal["verify.reopened_at"], /, *, session_no: SqlValue, boundary_no: SqlValue, head_no: SqlValue) -> VerifyReopenedAt | None: ...
    @overload
    def first(self, statement: Literal["verify.last_usage"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue) -> VerifyLastUsage | None: ...
    @overload
    def first(self, statement: Literal["verify.epochs"], /, *, session_no: SqlValue, low_epoch: SqlValue, high_epoch: SqlValue, limit: SqlValue) -> VerifyEpochs | None: ...
    @overload
    def first(self, statement: Literal["verify.before_compaction"], /, *, session_no: SqlValue, entry_no: SqlValue) -> VerifyBeforeCompaction | None: ...
    @overload
    def first(self, statement: Literal["verify.after_epoch"], /, *, head_no: SqlValue, session_no: SqlValue, epoch: SqlValue) -> VerifyAfterEpoch | None: ...
    @overload
    def first(self, statement: Literal["verify.compactions"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> VerifyCompactions | None: ...
    @overload
    def first(self, statement: Literal["verify.import_files"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyImportFiles | None: ...
    @overload
    def first(self, statement: Literal["verify.first_receipt"], /, *, session_no: SqlValue) -> VerifyFirstReceipt | None: ...
    @overload
    def first(self, statement: Literal["verify.receipts"], /, *, import_file_no: SqlValue, session_no: SqlValue) -> VerifyReceipts | None: ...
    @overload
    def first(self, statement: Literal["verify.pieces"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> VerifyPieces | None: ...
    @overload
    def first(self, statement: Literal["verify.index"], /, *, import_file_no: SqlValue) -> VerifyIndex | None: ...
    @overload
    def first(self, statement: Literal["verify.inbox"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyInbox | None: ...
    @overload
    def first(self, statement: Literal["verify.successor"], /, *, inbox_no: SqlValue) -> VerifySuccessor | None: ...
    @overload
    def first(self, statement: Literal["verify.turns"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyTurns | None: ...
    @overload
    def first(self, statement: Literal["verify.outbox"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyOutbox | None: ...
    @overload
    def first(self, statement: Literal["verify.cursors"], /, *, limit: SqlValue) -> VerifyCursors | None: ...
    @overload
    def first(self, statement: Literal["wal_link.current"], /) -> WalLinkCurrent | None: ...
    @overload
    def first(self, statement: AnyStatement, /, **params: SqlValue) -> Any | None: ...
    @overload
    @deprecated("no statement has this name and takes these parameters")
    def first(self, statement: str, /, **params: SqlValue) -> Any | None: ...
    @overload
    def one(self, statement: Literal["archive.protection"], /, *, session_nos: SqlValue) -> ArchiveProtection:
        """Return the first row of a named statement that an invariant guarantees.

        Raises:
            StoreDamaged: there is none: the file is damaged, or was changed by another program.
        """
    @overload
    def one(self, statement: Literal["archive.session"], /, *, session_no: SqlValue) -> ArchiveSession: ...
    @overload
    def one(self, statement: Literal["archive.sessions"], /, *, session_nos: SqlValue) -> ArchiveSessions: ...
    @overload
    def one(self, statement: Literal["archive.weights"], /, *, session_nos: SqlValue) -> ArchiveWeights: ...
    @overload
    def one(self, statement: Literal["archive.bindings"], /, *, session_no: SqlValue) -> ArchiveBindings: ...
    @overload
    def one(self, statement: Literal["archive.bindings_of"], /, *, session_nos: SqlValue) -> ArchiveBindingsOf: ...
    @overload
    def one(self, statement: Literal["archive.branches_of"], /, *, session_nos: SqlValue) -> ArchiveBranchesOf: ...
    @overload
    def one(self, statement: Literal["archive.epochs_of"], /, *, session_nos: SqlValue) -> ArchiveEpochsOf: ...
    @overload
    def one(self, statement: Literal["archive.entries_of"], /, *, session_nos: SqlValue) -> ArchiveEntriesOf: ...
    @overload
    def one(self, statement: Literal["archive.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> ArchiveBranches: ...
    @overload
    def one(self, statement: Literal["archive.epochs"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> ArchiveEpochs: ...
    @overload
    def one(self, statement: Literal["archive.entries"], /, *, low_no: SqlValue, high_no: SqlValue) -> ArchiveEntries: ...
    @overload
    def one(self, statement: Literal["archive.insert"], /, *, session_no: SqlValue, state: SqlValue, reason: SqlValue, encoding: SqlValue, now_ms: SqlValue, session_keys: SqlValue) -> ArchiveInsert: ...
    @overload
    def one(self, statement: Literal["archive.insert_whole"], /, *, session_no: SqlValue, reason: SqlValue, encoding: SqlValue, now_ms: SqlValue, rows: SqlValue, bytes: SqlValue, bytes_stored: SqlValue, session_keys: SqlValue) -> ArchiveInsertWhole: ...
    @overload
    def one(self, statement: Literal["archive.get"], /, *, archive_no: SqlValue) -> ArchiveGet: ...
    @overload
    def one(self, statement: Literal["archive.of_session"], /, *, session_no: SqlValue) -> ArchiveOfSession: ...
    @overload
    def one(self, statement: Literal["archive.open_of"], /, *, session_nos: SqlValue) -> ArchiveOpenOf: ...
    @overload
    def one(self, statement: Literal["archive.unfinished"], /, *, after_no: SqlValue, limit: SqlValue) -> ArchiveUnfinished: ...
    @overload
    def one(self, statement: Literal["archive.kept"], /, *, after_no: SqlValue, limit: SqlValue) -> ArchiveKept: ...
    @overload
    def one(self, statement: Literal["archive.next_chunk"], /, *, archive_no: SqlValue) -> ArchiveNextChunk: ...
    @overload
    def one(self, statement: Literal["archive.chunk"], /, *, archive_no: SqlValue, chunk_no: SqlValue) -> ArchiveChunk: ...
    @overload
    def one(self, statement: Literal["archive.branch"], /, *, branch_no: SqlValue) -> ArchiveBranch: ...
    @overload
    def one(self, statement: Literal["channels.full"], /, *, channel: SqlValue, fewer: SqlValue) -> ChannelsFull: ...
    @overload
    def one(self, statement: Literal["channels.next_try"], /, *, channel: SqlValue) -> ChannelsNextTry: ...
    @overload
    def one(self, statement: Literal["channels.pause_of"], /, *, channel: SqlValue) -> ChannelsPauseOf: ...
    @overload
    def one(self, statement: Literal["channels.in_force"], /, *, now_ms: SqlValue) -> ChannelsInForce: ...
    @overload
    def one(self, statement: Literal["channels.outwaited"], /, *, channel: SqlValue, asked_before_ms: SqlValue, limit: SqlValue) -> ChannelsOutwaited: ...
    @overload
    def one(self, statement: Literal["compaction.running"], /, *, session_no: SqlValue) -> CompactionRunning: ...
    @overload
    def one(self, statement: Literal["compaction.recent"], /, *, session_no: SqlValue, limit: SqlValue) -> CompactionRecent: ...
    @overload
    def one(self, statement: Literal["compaction.by_id"], /, *, compaction_id: SqlValue) -> CompactionById: ...
    @overload
    def one(self, statement: Literal["compaction.renew"], /, *, deadline_ms: SqlValue, compaction_id: SqlValue) -> CompactionRenew: ...
    @overload
    def one(self, statement: Literal["compaction.by_entry"], /, *, session_no: SqlValue, entry_no: SqlValue) -> CompactionByEntry: ...
    @overload
    def one(self, statement: Literal["compaction.reply"], /, *, entry_no: SqlValue) -> CompactionReply: ...
    @overload
    def one(self, statement: Literal["compaction.after_answer"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> CompactionAfterAnswer: ...
    @overload
    def one(self, statement: Literal["compaction.still_asked"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue) -> CompactionStillAsked: ...
    @overload
    def one(self, statement: Literal["compaction.cut_page"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> CompactionCutPage: ...
    @overload
    def one(self, statement: Literal["compaction.message"], /, *, entry_no: SqlValue) -> CompactionMessage: ...
    @overload
    def one(self, statement: Literal["compaction.may_have_results"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> CompactionMayHaveResults: ...
    @overload
    def one(self, statement: Literal["compaction.first_message"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> CompactionFirstMessage: ...
    @overload
    def one(self, statement: Literal["compaction.results"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> CompactionResults: ...
    @overload
    def one(self, statement: Literal["compaction.calls"], /, *, entry_no: SqlValue) -> CompactionCalls: ...
    @overload
    def one(self, statement: Literal["compaction.list"], /, *, before_no: SqlValue, limit: SqlValue) -> CompactionList: ...
    @overload
    def one(self, statement: Literal["compaction.list_of_session"], /, *, session_no: SqlValue, before_no: SqlValue, limit: SqlValue) -> CompactionListOfSession: ...
    @overload
    def one(self, statement: Literal["context.pointers"], /, *, session_no: SqlValue) -> ContextPointers: ...
    @overload
    def one(self, statement: Literal["context.now"], /, *, session_no: SqlValue) -> ContextNow: ...
    @overload
    def one(self, statement: Literal["context.then"], /, *, session_no: SqlValue, epoch: SqlValue) -> ContextThen: ...
    @overload
    def one(self, statement: Literal["context.span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, system_after_no: SqlValue) -> ContextSpan: ...
    @overload
    def one(self, statement: Literal["context.ids"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> ContextIds: ...
    @overload
    def one(self, statement: Literal["context.instructions"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue) -> ContextInstructions: ...
    @overload
    def one(self, statement: Literal["context.span_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> ContextSpanBackward: ...
    @overload
    def one(self, statement: Literal["context.last_user_message"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> ContextLastUserMessage: ...
    @overload
    def one(self, statement: Literal["context.boundary"], /, *, entry_no: SqlValue) -> ContextBoundary: ...
    @overload
    def one(self, statement: Literal["context.working_from"], /, *, session_no: SqlValue) -> ContextWorkingFrom: ...
    @overload
    def one(self, statement: Literal["deletion.sending"], /, *, session_no: SqlValue) -> DeletionSending: ...
    @overload
    def one(self, statement: Literal["deletion.waiting"], /, *, session_no: SqlValue, limit: SqlValue) -> DeletionWaiting: ...
    @overload
    def one(self, statement: Literal["deletion.by_key"], /, *, after_key: SqlValue, prefix: SqlValue, prefix_end: SqlValue, limit: SqlValue) -> DeletionByKey: ...
    @overload
    def one(self, statement: Literal["deletion.archived"], /, *, prefix: SqlValue, prefix_end: SqlValue, after_no: SqlValue, limit: SqlValue) -> DeletionArchived: ...
    @overload
    def one(self, statement: Literal["deletion.inbox"], /, *, after_no: SqlValue, limit: SqlValue) -> DeletionInbox: ...
    @overload
    def one(self, statement: Literal["deletion.outbox"], /, *, after_no: SqlValue, limit: SqlValue) -> DeletionOutbox: ...
    @overload
    def one(self, statement: Literal["deletion.event"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> DeletionEvent: ...
    @overload
    def one(self, statement: Literal["deletion.last_event"], /) -> DeletionLastEvent: ...
    @overload
    def one(self, statement: Literal["deletion.in_namespace"], /, *, namespace: SqlValue, after_id: SqlValue, limit: SqlValue) -> DeletionInNamespace: ...
    @overload
    def one(self, statement: Literal["deletion.indexes"], /, *, limit: SqlValue) -> DeletionIndexes: ...
    @overload
    def one(self, statement: Literal["details.of_session"], /, *, session_no: SqlValue) -> DetailsOfSession: ...
    @overload
    def one(self, statement: Literal["details.named"], /, *, namespace: SqlValue, name: SqlValue) -> DetailsNamed: ...
    @overload
    def one(self, statement: Literal["details.in_namespace"], /, *, namespace: SqlValue, after_name: SqlValue, limit: SqlValue) -> DetailsInNamespace: ...
    @overload
    def one(self, statement: Literal["disk.can_measure"], /) -> DiskCanMeasure: ...
    @overload
    def one(self, statement: Literal["disk.objects"], /) -> DiskObjects: ...
    @overload
    def one(self, statement: Literal["disk.pages"], /, *, name: SqlValue) -> DiskPages: ...
    @overload
    def one(self, statement: Literal["disk.archived"], /) -> DiskArchived: ...
    @overload
    def one(self, statement: Literal["draining.last"], /) -> DrainingLast: ...
    @overload
    def one(self, statement: Literal["early_lines.of_file"], /, *, import_file_no: SqlValue) -> EarlyLinesOfFile: ...
    @overload
    def one(self, statement: Literal["early_lines.waiting"], /, *, import_file_no: SqlValue, entry_id: SqlValue) -> EarlyLinesWaiting: ...
    @overload
    def one(self, statement: Literal["early_lines.next"], /, *, import_file_no: SqlValue, limit: SqlValue, session_no: SqlValue) -> EarlyLinesNext: ...
    @overload
    def one(self, statement: Literal["early_lines.without_parent"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> EarlyLinesWithoutParent: ...
    @overload
    def one(self, statement: Literal["early_lines.in_a_circle"], /, *, import_file_no: SqlValue, after_offset: SqlValue) -> EarlyLinesInACircle: ...
    @overload
    def one(self, statement: Literal["early_lines.found_late"], /, *, import_file_no: SqlValue) -> EarlyLinesFoundLate: ...
    @overload
    def one(self, statement: Literal["early_lines.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> EarlyLinesBranches: ...
    @overload
    def one(self, statement: Literal["early_lines.entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> EarlyLinesEntries: ...
    @overload
    def one(self, statement: Literal["events.emit"], /, *, kind: SqlValue, audience: SqlValue, session_no: SqlValue, now_ms: SqlValue, text: SqlValue, data: SqlValue) -> EventsEmit: ...
    @overload
    def one(self, statement: Literal["events.after"], /, *, after_no: SqlValue, limit: SqlValue) -> EventsAfter: ...
    @overload
    def one(self, statement: Literal["events.after_for"], /, *, audience: SqlValue, after_no: SqlValue, limit: SqlValue) -> EventsAfterFor: ...
    @overload
    def one(self, statement: Literal["events.of_session"], /, *, audience: SqlValue, session_no: SqlValue, among: SqlValue, limit: SqlValue) -> EventsOfSession: ...
    @overload
    def one(self, statement: Literal["events.last"], /) -> EventsLast: ...
    @overload
    def one(self, statement: Literal["events.nth_last"], /, *, skipped: SqlValue) -> EventsNthLast: ...
    @overload
    def one(self, statement: Literal["events.nth_last_for"], /, *, audience: SqlValue, skipped: SqlValue) -> EventsNthLastFor: ...
    @overload
    def one(self, statement: Literal["events.cursor"], /, *, consumer: SqlValue) -> EventsCursor: ...
    @overload
    def one(self, statement: Literal["foreign_ids.find"], /, *, namespace: SqlValue, external_id: SqlValue) -> ForeignIdsFind: ...
    @overload
    def one(self, statement: Literal["history.in_context"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue, limit: SqlValue) -> HistoryInContext: ...
    @overload
    def one(self, statement: Literal["import_file.known"], /, *, paths: SqlValue) -> ImportFileKnown: ...
    @overload
    def one(self, statement: Literal["import_file.by_path"], /, *, path: SqlValue) -> ImportFileByPath: ...
    @overload
    def one(self, statement: Literal["import_file.by_inode"], /, *, inodes: SqlValue) -> ImportFileByInode: ...
    @overload
    def one(self, statement: Literal["import_file.of_name"], /, *, names: SqlValue) -> ImportFileOfName: ...
    @overload
    def one(self, statement: Literal["import_file.insert"], /, *, path: SqlValue, name: SqlValue, kind: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue, sha256: SqlValue, note: SqlValue) -> ImportFileInsert: ...
    @overload
    def one(self, statement: Literal["import_file.damaged_lines"], /, *, after_path: SqlValue, folder: SqlValue, limit: SqlValue) -> ImportFileDamagedLines: ...
    @overload
    def one(self, statement: Literal["import_file.begin_index"], /, *, path: SqlValue, name: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue) -> ImportFileBeginIndex: ...
    @overload
    def one(self, statement: Literal["import_file.index"], /, *, path: SqlValue) -> ImportFileIndex: ...
    @overload
    def one(self, statement: Literal["import_file.index_content"], /, *, path: SqlValue) -> ImportFileIndexContent: ...
    @overload
    def one(self, statement: Literal["import_file.index_pieces"], /, *, import_file_no: SqlValue, after_offset: SqlValue, end_offset: SqlValue, limit: SqlValue) -> ImportFileIndexPieces: ...
    @overload
    def one(self, statement: Literal["import_file.count_pieces"], /, *, import_file_no: SqlValue, first_offset: SqlValue, end_offset: SqlValue) -> ImportFileCountPieces: ...
    @overload
    def one(self, statement: Literal["import_file.in_folder"], /, *, folder: SqlValue) -> ImportFileInFolder: ...
    @overload
    def one(self, statement: Literal["import_file.files"], /, *, after_no: SqlValue, session_no: SqlValue, limit: SqlValue) -> ImportFileFiles: ...
    @overload
    def one(self, statement: Literal["import_file.indexes"], /) -> ImportFileIndexes: ...
    @overload
    def one(self, statement: Literal["import_file.sessions_without_file"], /, *, after_no: SqlValue, session_no: SqlValue, limit: SqlValue) -> ImportFileSessionsWithoutFile: ...
    @overload
    def one(self, statement: Literal["import_file.bindings_of_agent"], /, *, agent_id: SqlValue, after_key: SqlValue, limit: SqlValue) -> ImportFileBindingsOfAgent: ...
    @overload
    def one(self, statement: Literal["import_file.agents"], /) -> ImportFileAgents: ...
    @overload
    def one(self, statement: Literal["import_file.entry_sizes"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> ImportFileEntrySizes: ...
    @overload
    def one(self, statement: Literal["import_file.payloads"], /, *, low_no: SqlValue, high_no: SqlValue, import_file_no: SqlValue, limit: SqlValue) -> ImportFilePayloads: ...
    @overload
    def one(self, statement: Literal["import_file.kept"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> ImportFileKept: ...
    @overload
    def one(self, statement: Literal["import_file.foreign_parents"], /, *, low_no: SqlValue, high_no: SqlValue, session_no: SqlValue) -> ImportFileForeignParents: ...
    @overload
    def one(self, statement: Literal["import_file.shared_entries"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> ImportFileSharedEntries: ...
    @overload
    def one(self, statement: Literal["import_file.details"], /, *, session_key: SqlValue) -> ImportFileDetails: ...
    @overload
    def one(self, statement: Literal["import_file.undone"], /, *, session_no: SqlValue) -> ImportFileUndone: ...
    @overload
    def one(self, statement: Literal["inbox.by_event"], /, *, channel: SqlValue, event_id: SqlValue) -> InboxByEvent: ...
    @overload
    def one(self, statement: Literal["inbox.accept"], /, *, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, now_ms: SqlValue, details: SqlValue, payload: SqlValue) -> InboxAccept: ...
    @overload
    def one(self, statement: Literal["inbox.hear"], /, *, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, now_ms: SqlValue, details: SqlValue, payload: SqlValue) -> InboxHear: ...
    @overload
    def one(self, statement: Literal["inbox.heard"], /, *, session_no: SqlValue, before_no: SqlValue, limit: SqlValue) -> InboxHeard: ...
    @overload
    def one(self, statement: Literal["inbox.heard_weight"], /, *, session_no: SqlValue, limit: SqlValue) -> InboxHeardWeight: ...
    @overload
    def one(self, statement: Literal["inbox.newest_text"], /, *, inbox_no: SqlValue) -> InboxNewestText: ...
    @overload
    def one(self, statement: Literal["inbox.waiting_in_session"], /, *, session_no: SqlValue, lane: SqlValue, limit: SqlValue) -> InboxWaitingInSession: ...
    @overload
    def one(self, statement: Literal["inbox.ahead"], /, *, session_no: SqlValue, lane: SqlValue, limit: SqlValue) -> InboxAhead: ...
    @overload
    def one(self, statement: Literal["inbox.open_in_session"], /, *, session_no: SqlValue) -> InboxOpenInSession: ...
    @overload
    def one(self, statement: Literal["inbox.waiting_in_lane"], /, *, lane: SqlValue, limit: SqlValue) -> InboxWaitingInLane: ...
    @overload
    def one(self, statement: Literal["inbox.next"], /, *, lane: SqlValue, low_ms: SqlValue, high_ms: SqlValue) -> InboxNext: ...
    @overload
    def one(self, statement: Literal["inbox.candidate"], /, *, inbox_no: SqlValue) -> InboxCandidate: ...
    @overload
    def one(self, statement: Literal["inbox.payload"], /, *, inbox_no: SqlValue) -> InboxPayload: ...
    @overload
    def one(self, statement: Literal["inbox.due"], /, *, lane: SqlValue, now_ms: SqlValue) -> InboxDue: ...
    @overload
    def one(self, statement: Literal["inbox.of_turn"], /, *, inbox_no: SqlValue) -> InboxOfTurn: ...
    @overload
    def one(self, statement: Literal["inbox.interrupted_before"], /, *, session_no: SqlValue, inbox_no: SqlValue) -> InboxInterruptedBefore: ...
    @overload
    def one(self, statement: Literal["inbox.waiting"], /, *, inbox_no: SqlValue) -> InboxWaiting: ...
    @overload
    def one(self, statement: Literal["inbox.interrupted"], /, *, before_no: SqlValue, limit: SqlValue) -> InboxInterrupted: ...
    @overload
    def one(self, statement: Literal["inbox.interrupted_by"], /, *, instances: SqlValue, before_no: SqlValue, limit: SqlValue) -> InboxInterruptedBy: ...
    @overload
    def one(self, statement: Literal["inbox.running_resumes"], /, *, dead: SqlValue) -> InboxRunningResumes: ...
    @overload
    def one(self, statement: Literal["inbox.late"], /, *, lane: SqlValue, low_ms: SqlValue, high_ms: SqlValue, limit: SqlValue) -> InboxLate: ...
    @overload
    def one(self, statement: Literal["inbox.notified"], /, *, inbox_no: SqlValue) -> InboxNotified: ...
    @overload
    def one(self, statement: Literal["inbox.restored"], /, *, after_no: SqlValue, limit: SqlValue) -> InboxRestored: ...
    @overload
    def one(self, statement: Literal["inbox.dead"], /, *, before_no: SqlValue, limit: SqlValue) -> InboxDead: ...
    @overload
    def one(self, statement: Literal["inbox.open"], /, *, after_no: SqlValue, limit: SqlValue) -> InboxOpen: ...
    @overload
    def one(self, statement: Literal["inbox.open_of_session"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> InboxOpenOfSession: ...
    @overload
    def one(self, statement: Literal["inbox.outcome"], /, *, inbox_no: SqlValue) -> InboxOutcome: ...
    @overload
    def one(self, statement: Literal["inbox.answered_at"], /, *, inbox_no: SqlValue) -> InboxAnsweredAt: ...
    @overload
    def one(self, statement: Literal["instance.insert"], /, *, host: SqlValue, boot_id: SqlValue, pid: SqlValue, pid_started: SqlValue, program: SqlValue, opened_at_ms: SqlValue) -> InstanceInsert: ...
    @overload
    def one(self, statement: Literal["instance.by_pid"], /, *, host: SqlValue, boot_id: SqlValue, pid: SqlValue) -> InstanceByPid: ...
    @overload
    def one(self, statement: Literal["listing.of_agent"], /, *, agent_id: SqlValue, limit: SqlValue) -> ListingOfAgent: ...
    @overload
    def one(self, statement: Literal["listing.of_namespace"], /, *, namespace: SqlValue, limit: SqlValue) -> ListingOfNamespace: ...
    @overload
    def one(self, statement: Literal["listing.of_keys"], /, *, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> ListingOfKeys: ...
    @overload
    def one(self, statement: Literal["listing.among"], /, *, among: SqlValue, updated_before: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue) -> ListingAmong: ...
    @overload
    def one(self, statement: Literal["listing.newest"], /, *, past_ms: SqlValue, past_no: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> ListingNewest: ...
    @overload
    def one(self, statement: Literal["listing.oldest"], /, *, past_ms: SqlValue, past_no: SqlValue, updated_before: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> ListingOldest: ...
    @overload
    def one(self, statement: Literal["outbox.add"], /, *, session_no: SqlValue, turn_no: SqlValue, target: SqlValue, reason: SqlValue, now_ms: SqlValue, payload: SqlValue) -> OutboxAdd: ...
    @overload
    def one(self, statement: Literal["outbox.next"], /, *, low_ms: SqlValue, high_ms: SqlValue, full: SqlValue) -> OutboxNext: ...
    @overload
    def one(self, statement: Literal["outbox.ready"], /, *, outbox_no: SqlValue, now_ms: SqlValue, full: SqlValue) -> OutboxReady: ...
    @overload
    def one(self, statement: Literal["outbox.candidate"], /, *, outbox_no: SqlValue) -> OutboxCandidate: ...
    @overload
    def one(self, statement: Literal["outbox.origin"], /, *, outbox_no: SqlValue) -> OutboxOrigin: ...
    @overload
    def one(self, statement: Literal["outbox.payload"], /, *, outbox_no: SqlValue) -> OutboxPayload: ...
    @overload
    def one(self, statement: Literal["outbox.due"], /, *, now_ms: SqlValue, full: SqlValue) -> OutboxDue: ...
    @overload
    def one(self, statement: Literal["outbox.claimed_as"], /, *, claim_id: SqlValue) -> OutboxClaimedAs: ...
    @overload
    def one(self, statement: Literal["outbox.begun"], /, *, outbox_no: SqlValue, instance_no: SqlValue, attempt: SqlValue, expires_at_ms: SqlValue) -> OutboxBegun: ...
    @overload
    def one(self, statement: Literal["outbox.overdue"], /, *, now_ms: SqlValue, limit: SqlValue) -> OutboxOverdue: ...
    @overload
    def one(self, statement: Literal["outbox.of_instance"], /, *, instance_no: SqlValue, limit: SqlValue) -> OutboxOfInstance: ...
    @overload
    def one(self, statement: Literal["outbox.list"], /, *, state: SqlValue, after_no: SqlValue, limit: SqlValue) -> OutboxList: ...
    @overload
    def one(self, statement: Literal["outbox.list_sent"], /, *, after_no: SqlValue, limit: SqlValue) -> OutboxListSent: ...
    @overload
    def one(self, statement: Literal["pruning.outbox"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> PruningOutbox: ...
    @overload
    def one(self, statement: Literal["pruning.inbox"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> PruningInbox: ...
    @overload
    def one(self, statement: Literal["pruning.turn"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> PruningTurn: ...
    @overload
    def one(self, statement: Literal["pruning.event"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> PruningEvent: ...
    @overload
    def one(self, statement: Literal["recovery.open_instances"], /, *, after_no: SqlValue, limit: SqlValue) -> RecoveryOpenInstances: ...
    @overload
    def one(self, statement: Literal["recovery.is_open"], /, *, instance_no: SqlValue) -> RecoveryIsOpen: ...
    @overload
    def one(self, statement: Literal["recovery.idle"], /, *, instances: SqlValue) -> RecoveryIdle: ...
    @overload
    def one(self, statement: Literal["recovery.running_compactions"], /, *, instance_no: SqlValue, limit: SqlValue) -> RecoveryRunningCompactions: ...
    @overload
    def one(self, statement: Literal["recovery.overdue_compactions"], /, *, before_ms: SqlValue, limit: SqlValue) -> RecoveryOverdueCompactions: ...
    @overload
    def one(self, statement: Literal["recovery.unclean_starts"], /, *, since_ms: SqlValue, now_ms: SqlValue, dead: SqlValue, command_line: SqlValue, instance_no: SqlValue) -> RecoveryUncleanStarts: ...
    @overload
    def one(self, statement: Literal["recovery.held"], /) -> RecoveryHeld: ...
    @overload
    def one(self, statement: Literal["redact.entry"], /, *, entry_no: SqlValue) -> RedactEntry: ...
    @overload
    def one(self, statement: Literal["redact.copies"], /, *, entry_no: SqlValue) -> RedactCopies: ...
    @overload
    def one(self, statement: Literal["registry.insert"], /, *, session_id: SqlValue, agent_id: SqlValue, origin: SqlValue, version: SqlValue, now_ms: SqlValue, head_no: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, context_tokens: SqlValue, tokens_fresh: SqlValue, forked_from_no: SqlValue, forked_at_no: SqlValue, forked_epoch: SqlValue, formats: SqlValue, ordered_from_no: SqlValue, open_marks: SqlValue, asked_no: SqlValue) -> RegistryInsert: ...
    @overload
    def one(self, statement: Literal["registry.by_id"], /, *, session_id: SqlValue) -> RegistryById: ...
    @overload
    def one(self, statement: Literal["registry.by_key"], /, *, session_key: SqlValue) -> RegistryByKey: ...
    @overload
    def one(self, statement: Literal["registry.info"], /, *, session_no: SqlValue) -> RegistryInfo: ...
    @overload
    def one(self, statement: Literal["registry.began"], /, *, session_no: SqlValue) -> RegistryBegan: ...
    @overload
    def one(self, statement: Literal["retention.newest"], /, *, before_ms: SqlValue, before_no: SqlValue, limit: SqlValue) -> RetentionNewest: ...
    @overload
    def one(self, statement: Literal["retention.oldest"], /, *, after_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> RetentionOldest: ...
    @overload
    def one(self, statement: Literal["retention.sizes"], /, *, session_nos: SqlValue) -> RetentionSizes: ...
    @overload
    def one(self, statement: Literal["salvage.counted_header"], /, *, session_no: SqlValue) -> SalvageCountedHeader: ...
    @overload
    def one(self, statement: Literal["salvage.sessions"], /, *, after_no: SqlValue, limit: SqlValue) -> SalvageSessions: ...
    @overload
    def one(self, statement: Literal["salvage.session"], /, *, session_no: SqlValue) -> SalvageSession: ...
    @overload
    def one(self, statement: Literal["salvage.numbers"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> SalvageNumbers: ...
    @overload
    def one(self, statement: Literal["salvage.header"], /, *, entry_no: SqlValue) -> SalvageHeader: ...
    @overload
    def one(self, statement: Literal["salvage.taken"], /, *, session_id: SqlValue) -> SalvageTaken: ...
    @overload
    def one(self, statement: Literal["salvage.fork_epoch"], /, *, session_no: SqlValue) -> SalvageForkEpoch: ...
    @overload
    def one(self, statement: Literal["salvage.fork_point"], /, *, session_no: SqlValue, low_no: SqlValue) -> SalvageForkPoint: ...
    @overload
    def one(self, statement: Literal["salvage.undone_at"], /, *, session_no: SqlValue) -> SalvageUndoneAt: ...
    @overload
    def one(self, statement: Literal["salvage.aside"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> SalvageAside: ...
    @overload
    def one(self, statement: Literal["salvage.aside_child"], /, *, low_no: SqlValue, high_no: SqlValue, parent_no: SqlValue) -> SalvageAsideChild: ...
    @overload
    def one(self, statement: Literal["salvage.aside_by_id"], /, *, aside_no: SqlValue, entry_id: SqlValue) -> SalvageAsideById: ...
    @overload
    def one(self, statement: Literal["salvage.jobs_aside"], /, *, session_no: SqlValue) -> SalvageJobsAside: ...
    @overload
    def one(self, statement: Literal["salvage.bindings"], /, *, after: SqlValue, limit: SqlValue) -> SalvageBindings: ...
    @overload
    def one(self, statement: Literal["salvage.foreign_ids"], /, *, after: SqlValue, limit: SqlValue) -> SalvageForeignIds: ...
    @overload
    def one(self, statement: Literal["salvage.details"], /, *, after: SqlValue, limit: SqlValue) -> SalvageDetails: ...
    @overload
    def one(self, statement: Literal["salvage.branches"], /, *, after: SqlValue, limit: SqlValue) -> SalvageBranches: ...
    @overload
    def one(self, statement: Literal["salvage.next_epoch_owner"], /, *, after: SqlValue) -> SalvageNextEpochOwner: ...
    @overload
    def one(self, statement: Literal["salvage.compactions"], /, *, after: SqlValue, limit: SqlValue) -> SalvageCompactions: ...
    @overload
    def one(self, statement: Literal["salvage.turns"], /, *, after: SqlValue, limit: SqlValue) -> SalvageTurns: ...
    @overload
    def one(self, statement: Literal["salvage.inbox"], /, *, after: SqlValue, limit: SqlValue) -> SalvageInbox: ...
    @overload
    def one(self, statement: Literal["salvage.message"], /, *, inbox_no: SqlValue) -> SalvageMessage: ...
    @overload
    def one(self, statement: Literal["salvage.outbox"], /, *, after: SqlValue, limit: SqlValue) -> SalvageOutbox: ...
    @overload
    def one(self, statement: Literal["salvage.events"], /, *, after: SqlValue, limit: SqlValue) -> SalvageEvents: ...
    @overload
    def one(self, statement: Literal["salvage.import_files"], /, *, after: SqlValue, limit: SqlValue) -> SalvageImportFiles: ...
    @overload
    def one(self, statement: Literal["salvage.next_quarantined"], /, *, after: SqlValue) -> SalvageNextQuarantined: ...
    @overload
    def one(self, statement: Literal["salvage.archives"], /, *, after: SqlValue, limit: SqlValue) -> SalvageArchives: ...
    @overload
    def one(self, statement: Literal["salvage.archive_of"], /, *, session_no: SqlValue) -> SalvageArchiveOf: ...
    @overload
    def one(self, statement: Literal["salvage.next_chunk_owner"], /, *, after: SqlValue) -> SalvageNextChunkOwner: ...
    @overload
    def one(self, statement: Literal["salvage.chunk"], /, *, archive_no: SqlValue, after: SqlValue) -> SalvageChunk: ...
    @overload
    def one(self, statement: Literal["search.state"], /) -> SearchState: ...
    @overload
    def one(self, statement: Literal["search.behind"], /, *, limit: SqlValue) -> SearchBehind: ...
    @overload
    def one(self, statement: Literal["search.count_behind"], /) -> SearchCountBehind: ...
    @overload
    def one(self, statement: Literal["search.count_entries"], /) -> SearchCountEntries: ...
    @overload
    def one(self, statement: Literal["search.indexed"], /, *, session_no: SqlValue) -> SearchIndexed: ...
    @overload
    def one(self, statement: Literal["search.indexed_of"], /, *, session_nos: SqlValue) -> SearchIndexedOf: ...
    @overload
    def one(self, statement: Literal["search.parts"], /) -> SearchParts: ...
    @overload
    def one(self, statement: Literal["search.matches"], /, *, branch_no: SqlValue, agent_id: SqlValue, role: SqlValue, since_ms: SqlValue, checkpoints: SqlValue, words: SqlValue, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> SearchMatches: ...
    @overload
    def one(self, statement: Literal["search.any_match"], /, *, words: SqlValue) -> SearchAnyMatch: ...
    @overload
    def one(self, statement: Literal["search.described"], /, *, numbers: SqlValue, branch_no: SqlValue, agent_id: SqlValue, role: SqlValue, since_ms: SqlValue, checkpoints: SqlValue) -> SearchDescribed: ...
    @overload
    def one(self, statement: Literal["search.archives"], /, *, last_no: SqlValue, session_no: SqlValue, agent_id: SqlValue, limit: SqlValue) -> SearchArchives: ...
    @overload
    def one(self, statement: Literal["search.texts"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> SearchTexts: ...
    @overload
    def one(self, statement: Literal["search.cursors"], /, *, after_session_no: SqlValue, limit: SqlValue) -> SearchCursors: ...
    @overload
    def one(self, statement: Literal["search.documents"], /, *, after_no: SqlValue, limit: SqlValue) -> SearchDocuments: ...
    @overload
    def one(self, statement: Literal["search.missing"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> SearchMissing: ...
    @overload
    def one(self, statement: Literal["session_ids.by_prefix"], /, *, prefix: SqlValue, prefix_end: SqlValue, tail: SqlValue, limit: SqlValue) -> SessionIdsByPrefix: ...
    @overload
    def one(self, statement: Literal["session_ids.id_neighbours"], /, *, session_id: SqlValue) -> SessionIdsIdNeighbours: ...
    @overload
    def one(self, statement: Literal["session_list.by_update"], /, *, before: SqlValue, before_no: SqlValue, since_ms: SqlValue, agent_id: SqlValue, checkpoints: SqlValue, state: SqlValue, limit: SqlValue) -> SessionListByUpdate: ...
    @overload
    def one(self, statement: Literal["session_list.by_value"], /, *, sort: SqlValue, before: SqlValue, before_no: SqlValue, since_ms: SqlValue, agent_id: SqlValue, checkpoints: SqlValue, state: SqlValue, limit: SqlValue) -> SessionListByValue: ...
    @overload
    def one(self, statement: Literal["session_list.about"], /, *, look: SqlValue, session_no: SqlValue) -> SessionListAbout: ...
    @overload
    def one(self, statement: Literal["session_list.text"], /, *, chars: SqlValue, entry_no: SqlValue) -> SessionListText: ...
    @overload
    def one(self, statement: Literal["status.file"], /) -> StatusFile: ...
    @overload
    def one(self, statement: Literal["status.totals"], /) -> StatusTotals: ...
    @overload
    def one(self, statement: Literal["status.numbers"], /) -> StatusNumbers: ...
    @overload
    def one(self, statement: Literal["status.recent_turns"], /, *, since_ms: SqlValue) -> StatusRecentTurns: ...
    @overload
    def one(self, statement: Literal["status.counts"], /) -> StatusCounts: ...
    @overload
    def one(self, statement: Literal["status.work"], /, *, now_ms: SqlValue) -> StatusWork: ...
    @overload
    def one(self, statement: Literal["status.lanes"], /) -> StatusLanes: ...
    @overload
    def one(self, statement: Literal["status.channels"], /, *, now_ms: SqlValue, limit: SqlValue) -> StatusChannels: ...
    @overload
    def one(self, statement: Literal["status.compactions"], /) -> StatusCompactions: ...
    @overload
    def one(self, statement: Literal["status.running"], /, *, limit: SqlValue) -> StatusRunning: ...
    @overload
    def one(self, statement: Literal["status.stuck"], /, *, limit: SqlValue) -> StatusStuck: ...
    @overload
    def one(self, statement: Literal["status.processes"], /, *, limit: SqlValue) -> StatusProcesses: ...
    @overload
    def one(self, statement: Literal["status.relations"], /) -> StatusRelations: ...
    @overload
    def one(self, statement: Literal["status.branches"], /, *, session_no: SqlValue, limit: SqlValue) -> StatusBranches: ...
    @overload
    def one(self, statement: Literal["stopping.texts"], /, *, inbox_no: SqlValue) -> StoppingTexts: ...
    @overload
    def one(self, statement: Literal["stopping.text"], /, *, inbox_no: SqlValue) -> StoppingText: ...
    @overload
    def one(self, statement: Literal["stopping.ended"], /, *, turns: SqlValue) -> StoppingEnded: ...
    @overload
    def one(self, statement: Literal["transcript.state"], /, *, session_no: SqlValue) -> TranscriptState: ...
    @overload
    def one(self, statement: Literal["transcript.archived"], /, *, session_no: SqlValue) -> TranscriptArchived: ...
    @overload
    def one(self, statement: Literal["transcript.insert_branch"], /, *, session_no: SqlValue, parent_branch_no: SqlValue, fork_no: SqlValue, first_no: SqlValue) -> TranscriptInsertBranch: ...
    @overload
    def one(self, statement: Literal["transcript.branch"], /, *, branch_no: SqlValue) -> TranscriptBranch: ...
    @overload
    def one(self, statement: Literal["transcript.by_idempotency_key"], /, *, session_no: SqlValue, idempotency_key: SqlValue) -> TranscriptByIdempotencyKey: ...
    @overload
    def one(self, statement: Literal["transcript.by_id"], /, *, session_no: SqlValue, entry_id: SqlValue) -> TranscriptById: ...
    @overload
    def one(self, statement: Literal["transcript.by_no"], /, *, entry_no: SqlValue) -> TranscriptByNo: ...
    @overload
    def one(self, statement: Literal["transcript.usage"], /, *, entry_no: SqlValue) -> TranscriptUsage: ...
    @overload
    def one(self, statement: Literal["transcript.span_forward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> TranscriptSpanForward: ...
    @overload
    def one(self, statement: Literal["transcript.span_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> TranscriptSpanBackward: ...
    @overload
    def one(self, statement: Literal["transcript.newest_in_span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> TranscriptNewestInSpan: ...
    @overload
    def one(self, statement: Literal["transcript.typed_forward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, types: SqlValue, limit: SqlValue) -> TranscriptTypedForward: ...
    @overload
    def one(self, statement: Literal["transcript.typed_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, types: SqlValue, limit: SqlValue) -> TranscriptTypedBackward: ...
    @overload
    def one(self, statement: Literal["transcript.all_entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> TranscriptAllEntries: ...
    @overload
    def one(self, statement: Literal["transcript.first_in_span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> TranscriptFirstInSpan: ...
    @overload
    def one(self, statement: Literal["transcript.epoch"], /, *, session_no: SqlValue, epoch: SqlValue) -> TranscriptEpoch: ...
    @overload
    def one(self, statement: Literal["transcript.undone"], /, *, session_no: SqlValue, epoch: SqlValue, last_epoch: SqlValue, boundary_no: SqlValue) -> TranscriptUndone: ...
    @overload
    def one(self, statement: Literal["transcript.origin"], /, *, session_no: SqlValue) -> TranscriptOrigin: ...
    @overload
    def one(self, statement: Literal["transcript.epochs"], /, *, session_no: SqlValue, epoch: SqlValue, limit: SqlValue) -> TranscriptEpochs: ...
    @overload
    def one(self, statement: Literal["transcript.first_epoch_not_compaction"], /, *, session_no: SqlValue, epoch: SqlValue) -> TranscriptFirstEpochNotCompaction: ...
    @overload
    def one(self, statement: Literal["turns.lane"], /, *, lane: SqlValue) -> TurnsLane: ...
    @overload
    def one(self, statement: Literal["turns.open_in_lane"], /, *, lane: SqlValue, limit: SqlValue) -> TurnsOpenInLane: ...
    @overload
    def one(self, statement: Literal["turns.lanes_before"], /, *, lane: SqlValue) -> TurnsLanesBefore: ...
    @overload
    def one(self, statement: Literal["turns.start"], /, *, session_no: SqlValue, lane: SqlValue, kind: SqlValue, inbox_no: SqlValue, attempt: SqlValue, operation: SqlValue, instance_no: SqlValue, now_ms: SqlValue, expires_at_ms: SqlValue, deadline_ms: SqlValue, claim_id: SqlValue) -> TurnsStart: ...
    @overload
    def one(self, statement: Literal["turns.claimed_as"], /, *, lane: SqlValue, claim_id: SqlValue) -> TurnsClaimedAs: ...
    @overload
    def one(self, statement: Literal["turns.progress_of_message"], /, *, inbox_no: SqlValue) -> TurnsProgressOfMessage: ...
    @overload
    def one(self, statement: Literal["turns.get"], /, *, turn_no: SqlValue) -> TurnsGet: ...
    @overload
    def one(self, statement: Literal["turns.session_of"], /, *, turn_no: SqlValue) -> TurnsSessionOf: ...
    @overload
    def one(self, statement: Literal["turns.running_of_session"], /, *, session_no: SqlValue) -> TurnsRunningOfSession: ...
    @overload
    def one(self, statement: Literal["turns.renew"], /, *, now_ms: SqlValue, expires_at_ms: SqlValue, operation: SqlValue, turn_no: SqlValue) -> TurnsRenew: ...
    @overload
    def one(self, statement: Literal["turns.expired"], /, *, now_ms: SqlValue, alive: SqlValue, limit: SqlValue) -> TurnsExpired: ...
    @overload
    def one(self, statement: Literal["turns.of_instance"], /, *, instance_no: SqlValue, limit: SqlValue) -> TurnsOfInstance: ...
    @overload
    def one(self, statement: Literal["turns.next_expiry"], /, *, alive: SqlValue) -> TurnsNextExpiry: ...
    @overload
    def one(self, statement: Literal["turns.pace_of_session"], /, *, session_no: SqlValue, turns: SqlValue) -> TurnsPaceOfSession: ...
    @overload
    def one(self, statement: Literal["turns.pace_of_lane"], /, *, turns: SqlValue, lane: SqlValue) -> TurnsPaceOfLane: ...
    @overload
    def one(self, statement: Literal["verify.file_full"], /) -> VerifyFileFull: ...
    @overload
    def one(self, statement: Literal["verify.file_quick"], /) -> VerifyFileQuick: ...
    @overload
    def one(self, statement: Literal["verify.foreign_keys"], /, *, limit: SqlValue) -> VerifyForeignKeys: ...
    @overload
    def one(self, statement: Literal["verify.bindings"], /, *, after_key: SqlValue, limit: SqlValue) -> VerifyBindings: ...
    @overload
    def one(self, statement: Literal["verify.foreign_ids"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyForeignIds: ...
    @overload
    def one(self, statement: Literal["verify.numbers"], /) -> VerifyNumbers: ...
    @overload
    def one(self, statement: Literal["verify.wal_link"], /) -> VerifyWalLink: ...
    @overload
    def one(self, statement: Literal["verify.lanes"], /) -> VerifyLanes: ...
    @overload
    def one(self, statement: Literal["verify.odd_instances"], /, *, limit: SqlValue) -> VerifyOddInstances: ...
    @overload
    def one(self, statement: Literal["verify.odd_pauses"], /, *, limit: SqlValue) -> VerifyOddPauses: ...
    @overload
    def one(self, statement: Literal["verify.events"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyEvents: ...
    @overload
    def one(self, statement: Literal["verify.archives"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyArchives: ...
    @overload
    def one(self, statement: Literal["verify.broken_rules"], /, *, limit: SqlValue) -> VerifyBrokenRules: ...
    @overload
    def one(self, statement: Literal["verify.last_session"], /) -> VerifyLastSession: ...
    @overload
    def one(self, statement: Literal["verify.next_session"], /, *, after_no: SqlValue) -> VerifyNextSession: ...
    @overload
    def one(self, statement: Literal["verify.last_owner"], /) -> VerifyLastOwner: ...
    @overload
    def one(self, statement: Literal["verify.next_owner"], /, *, after_entry_no: SqlValue) -> VerifyNextOwner: ...
    @overload
    def one(self, statement: Literal["verify.session"], /, *, low_no: SqlValue, high_no: SqlValue, session_no: SqlValue) -> VerifySession: ...
    @overload
    def one(self, statement: Literal["verify.comes_from"], /, *, session_no: SqlValue, origin_no: SqlValue) -> VerifyComesFrom: ...
    @overload
    def one(self, statement: Literal["verify.first_head"], /, *, session_no: SqlValue) -> VerifyFirstHead: ...
    @overload
    def one(self, statement: Literal["verify.exists"], /, *, session_no: SqlValue) -> VerifyExists: ...
    @overload
    def one(self, statement: Literal["verify.archive"], /, *, session_no: SqlValue) -> VerifyArchive: ...
    @overload
    def one(self, statement: Literal["verify.archive_of_parent"], /, *, session_no: SqlValue) -> VerifyArchiveOfParent: ...
    @overload
    def one(self, statement: Literal["verify.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> VerifyBranches: ...
    @overload
    def one(self, statement: Literal["verify.entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> VerifyEntries: ...
    @overload
    def one(self, statement: Literal["verify.payloads"], /, *, low_no: SqlValue, high_no: SqlValue) -> VerifyPayloads: ...
    @overload
    def one(self, statement: Literal["verify.path_payloads"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> VerifyPathPayloads: ...
    @overload
    def one(self, statement: Literal["verify.place"], /, *, entry_no: SqlValue) -> VerifyPlace: ...
    @overload
    def one(self, statement: Literal["verify.named_before"], /, *, session_no: SqlValue, entry_id: SqlValue, before_no: SqlValue) -> VerifyNamedBefore: ...
    @overload
    def one(self, statement: Literal["verify.key_owner"], /, *, session_no: SqlValue, idempotency_key: SqlValue, before_no: SqlValue) -> VerifyKeyOwner: ...
    @overload
    def one(self, statement: Literal["verify.job_of_entry"], /, *, session_no: SqlValue, entry_no: SqlValue) -> VerifyJobOfEntry: ...
    @overload
    def one(self, statement: Literal["verify.control_record"], /, *, session_no: SqlValue, entry_id: SqlValue) -> VerifyControlRecord: ...
    @overload
    def one(self, statement: Literal["verify.reopened_at"], /, *, session_no: SqlValue, boundary_no: SqlValue, head_no: SqlValue) -> VerifyReopenedAt: ...
    @overload
    def one(self, statement: Literal["verify.last_usage"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue) -> VerifyLastUsage: ...
    @overload
    def one(self, statement: Literal["verify.epochs"], /, *, session_no: SqlValue, low_epoch: SqlValue, high_epoch: SqlValue, limit: SqlValue) -> VerifyEpochs: ...
    @overload
    def one(self, statement: Literal["verify.before_compaction"], /, *, session_no: SqlValue, entry_no: SqlValue) -> VerifyBeforeCompaction: ...
    @overload
    def one(self, statement: Literal["verify.after_epoch"], /, *, head_no: SqlValue, session_no: SqlValue, epoch: SqlValue) -> VerifyAfterEpoch: ...
    @overload
    def one(self, statement: Literal["verify.compactions"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> VerifyCompactions: ...
    @overload
    def one(self, statement: Literal["verify.import_files"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyImportFiles: ...
    @overload
    def one(self, statement: Literal["verify.first_receipt"], /, *, session_no: SqlValue) -> VerifyFirstReceipt: ...
    @overload
    def one(self, statement: Literal["verify.receipts"], /, *, import_file_no: SqlValue, session_no: SqlValue) -> VerifyReceipts: ...
    @overload
    def one(self, statement: Literal["verify.pieces"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> VerifyPieces: ...
    @overload
    def one(self, statement: Literal["verify.index"], /, *, import_file_no: SqlValue) -> VerifyIndex: ...
    @overload
    def one(self, statement: Literal["verify.inbox"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyInbox: ...
    @overload
    def one(self, statement: Literal["verify.successor"], /, *, inbox_no: SqlValue) -> VerifySuccessor: ...
    @overload
    def one(self, statement: Literal["verify.turns"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyTurns: ...
    @overload
    def one(self, statement: Literal["verify.outbox"], /, *, after_no: SqlValue, limit: SqlValue) -> VerifyOutbox: ...
    @overload
    def one(self, statement: Literal["verify.cursors"], /, *, limit: SqlValue) -> VerifyCursors: ...
    @overload
    def one(self, statement: Literal["wal_link.current"], /) -> WalLinkCurrent: ...
    @overload
    def one(self, statement: AnyStatement, /, **params: SqlValue) -> Any: ...
    @overload
    @deprecated("no statement has this name and takes these parameters")
    def one(self, statement: str, /, **params: SqlValue) -> Any: ...
    @overload
    def all(self, statement: Literal["archive.protection"], /, *, session_nos: SqlValue) -> list[ArchiveProtection]:
        """Return every row of a named statement, materialised.

        For few or small rows. A list of texts is read with `page`.
        """
    @overload
    def all(self, statement: Literal["archive.session"], /, *, session_no: SqlValue) -> list[ArchiveSession]: ...
    @overload
    def all(self, statement: Literal["archive.sessions"], /, *, session_nos: SqlValue) -> list[ArchiveSessions]: ...
    @overload
    def all(self, statement: Literal["archive.weights"], /, *, session_nos: SqlValue) -> list[ArchiveWeights]: ...
    @overload
    def all(self, statement: Literal["archive.bindings"], /, *, session_no: SqlValue) -> list[ArchiveBindings]: ...
    @overload
    def all(self, statement: Literal["archive.bindings_of"], /, *, session_nos: SqlValue) -> list[ArchiveBindingsOf]: ...
    @overload
    def all(self, statement: Literal["archive.branches_of"], /, *, session_nos: SqlValue) -> list[ArchiveBranchesOf]: ...
    @overload
    def all(self, statement: Literal["archive.epochs_of"], /, *, session_nos: SqlValue) -> list[ArchiveEpochsOf]: ...
    @overload
    def all(self, statement: Literal["archive.entries_of"], /, *, session_nos: SqlValue) -> list[ArchiveEntriesOf]: ...
    @overload
    def all(self, statement: Literal["archive.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[ArchiveBranches]: ...
    @overload
    def all(self, statement: Literal["archive.epochs"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[ArchiveEpochs]: ...
    @overload
    def all(self, statement: Literal["archive.entries"], /, *, low_no: SqlValue, high_no: SqlValue) -> list[ArchiveEntries]: ...
    @overload
    def all(self, statement: Literal["archive.insert"], /, *, session_no: SqlValue, state: SqlValue, reason: SqlValue, encoding: SqlValue, now_ms: SqlValue, session_keys: SqlValue) -> list[ArchiveInsert]: ...
    @overload
    def all(self, statement: Literal["archive.insert_whole"], /, *, session_no: SqlValue, reason: SqlValue, encoding: SqlValue, now_ms: SqlValue, rows: SqlValue, bytes: SqlValue, bytes_stored: SqlValue, session_keys: SqlValue) -> list[ArchiveInsertWhole]: ...
    @overload
    def all(self, statement: Literal["archive.get"], /, *, archive_no: SqlValue) -> list[ArchiveGet]: ...
    @overload
    def all(self, statement: Literal["archive.of_session"], /, *, session_no: SqlValue) -> list[ArchiveOfSession]: ...
    @overload
    def all(self, statement: Literal["archive.open_of"], /, *, session_nos: SqlValue) -> list[ArchiveOpenOf]: ...
    @overload
    def all(self, statement: Literal["archive.unfinished"], /, *, after_no: SqlValue, limit: SqlValue) -> list[ArchiveUnfinished]: ...
    @overload
    def all(self, statement: Literal["archive.kept"], /, *, after_no: SqlValue, limit: SqlValue) -> list[ArchiveKept]: ...
    @overload
    def all(self, statement: Literal["archive.next_chunk"], /, *, archive_no: SqlValue) -> list[ArchiveNextChunk]: ...
    @overload
    def all(self, statement: Literal["archive.chunk"], /, *, archive_no: SqlValue, chunk_no: SqlValue) -> list[ArchiveChunk]: ...
    @overload
    def all(self, statement: Literal["archive.branch"], /, *, branch_no: SqlValue) -> list[ArchiveBranch]: ...
    @overload
    def all(self, statement: Literal["channels.full"], /, *, channel: SqlValue, fewer: SqlValue) -> list[ChannelsFull]: ...
    @overload
    def all(self, statement: Literal["channels.next_try"], /, *, channel: SqlValue) -> list[ChannelsNextTry]: ...
    @overload
    def all(self, statement: Literal["channels.pause_of"], /, *, channel: SqlValue) -> list[ChannelsPauseOf]: ...
    @overload
    def all(self, statement: Literal["channels.in_force"], /, *, now_ms: SqlValue) -> list[ChannelsInForce]: ...
    @overload
    def all(self, statement: Literal["channels.outwaited"], /, *, channel: SqlValue, asked_before_ms: SqlValue, limit: SqlValue) -> list[ChannelsOutwaited]: ...
    @overload
    def all(self, statement: Literal["compaction.running"], /, *, session_no: SqlValue) -> list[CompactionRunning]: ...
    @overload
    def all(self, statement: Literal["compaction.recent"], /, *, session_no: SqlValue, limit: SqlValue) -> list[CompactionRecent]: ...
    @overload
    def all(self, statement: Literal["compaction.by_id"], /, *, compaction_id: SqlValue) -> list[CompactionById]: ...
    @overload
    def all(self, statement: Literal["compaction.renew"], /, *, deadline_ms: SqlValue, compaction_id: SqlValue) -> list[CompactionRenew]: ...
    @overload
    def all(self, statement: Literal["compaction.by_entry"], /, *, session_no: SqlValue, entry_no: SqlValue) -> list[CompactionByEntry]: ...
    @overload
    def all(self, statement: Literal["compaction.reply"], /, *, entry_no: SqlValue) -> list[CompactionReply]: ...
    @overload
    def all(self, statement: Literal["compaction.after_answer"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[CompactionAfterAnswer]: ...
    @overload
    def all(self, statement: Literal["compaction.still_asked"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue) -> list[CompactionStillAsked]: ...
    @overload
    def all(self, statement: Literal["compaction.cut_page"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[CompactionCutPage]: ...
    @overload
    def all(self, statement: Literal["compaction.message"], /, *, entry_no: SqlValue) -> list[CompactionMessage]: ...
    @overload
    def all(self, statement: Literal["compaction.may_have_results"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[CompactionMayHaveResults]: ...
    @overload
    def all(self, statement: Literal["compaction.first_message"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> list[CompactionFirstMessage]: ...
    @overload
    def all(self, statement: Literal["compaction.results"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> list[CompactionResults]: ...
    @overload
    def all(self, statement: Literal["compaction.calls"], /, *, entry_no: SqlValue) -> list[CompactionCalls]: ...
    @overload
    def all(self, statement: Literal["compaction.list"], /, *, before_no: SqlValue, limit: SqlValue) -> list[CompactionList]: ...
    @overload
    def all(self, statement: Literal["compaction.list_of_session"], /, *, session_no: SqlValue, before_no: SqlValue, limit: SqlValue) -> list[CompactionListOfSession]: ...
    @overload
    def all(self, statement: Literal["context.pointers"], /, *, session_no: SqlValue) -> list[ContextPointers]: ...
    @overload
    def all(self, statement: Literal["context.now"], /, *, session_no: SqlValue) -> list[ContextNow]: ...
    @overload
    def all(self, statement: Literal["context.then"], /, *, session_no: SqlValue, epoch: SqlValue) -> list[ContextThen]: ...
    @overload
    def all(self, statement: Literal["context.span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, system_after_no: SqlValue) -> list[ContextSpan]: ...
    @overload
    def all(self, statement: Literal["context.ids"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> list[ContextIds]: ...
    @overload
    def all(self, statement: Literal["context.instructions"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue) -> list[ContextInstructions]: ...
    @overload
    def all(self, statement: Literal["context.span_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[ContextSpanBackward]: ...
    @overload
    def all(self, statement: Literal["context.last_user_message"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> list[ContextLastUserMessage]: ...
    @overload
    def all(self, statement: Literal["context.boundary"], /, *, entry_no: SqlValue) -> list[ContextBoundary]: ...
    @overload
    def all(self, statement: Literal["context.working_from"], /, *, session_no: SqlValue) -> list[ContextWorkingFrom]: ...
    @overload
    def all(self, statement: Literal["deletion.sending"], /, *, session_no: SqlValue) -> list[DeletionSending]: ...
    @overload
    def all(self, statement: Literal["deletion.waiting"], /, *, session_no: SqlValue, limit: SqlValue) -> list[DeletionWaiting]: ...
    @overload
    def all(self, statement: Literal["deletion.by_key"], /, *, after_key: SqlValue, prefix: SqlValue, prefix_end: SqlValue, limit: SqlValue) -> list[DeletionByKey]: ...
    @overload
    def all(self, statement: Literal["deletion.archived"], /, *, prefix: SqlValue, prefix_end: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[DeletionArchived]: ...
    @overload
    def all(self, statement: Literal["deletion.inbox"], /, *, after_no: SqlValue, limit: SqlValue) -> list[DeletionInbox]: ...
    @overload
    def all(self, statement: Literal["deletion.outbox"], /, *, after_no: SqlValue, limit: SqlValue) -> list[DeletionOutbox]: ...
    @overload
    def all(self, statement: Literal["deletion.event"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> list[DeletionEvent]: ...
    @overload
    def all(self, statement: Literal["deletion.last_event"], /) -> list[DeletionLastEvent]: ...
    @overload
    def all(self, statement: Literal["deletion.in_namespace"], /, *, namespace: SqlValue, after_id: SqlValue, limit: SqlValue) -> list[DeletionInNamespace]: ...
    @overload
    def all(self, statement: Literal["deletion.indexes"], /, *, limit: SqlValue) -> list[DeletionIndexes]: ...
    @overload
    def all(self, statement: Literal["details.of_session"], /, *, session_no: SqlValue) -> list[DetailsOfSession]: ...
    @overload
    def all(self, statement: Literal["details.named"], /, *, namespace: SqlValue, name: SqlValue) -> list[DetailsNamed]: ...
    @overload
    def all(self, statement: Literal["details.in_namespace"], /, *, namespace: SqlValue, after_name: SqlValue, limit: SqlValue) -> list[DetailsInNamespace]: ...
    @overload
    def all(self, statement: Literal["disk.can_measure"], /) -> list[DiskCanMeasure]: ...
    @overload
    def all(self, statement: Literal["disk.objects"], /) -> list[DiskObjects]: ...
    @overload
    def all(self, statement: Literal["disk.pages"], /, *, name: SqlValue) -> list[DiskPages]: ...
    @overload
    def all(self, statement: Literal["disk.archived"], /) -> list[DiskArchived]: ...
    @overload
    def all(self, statement: Literal["draining.last"], /) -> list[DrainingLast]: ...
    @overload
    def all(self, statement: Literal["early_lines.of_file"], /, *, import_file_no: SqlValue) -> list[EarlyLinesOfFile]: ...
    @overload
    def all(self, statement: Literal["early_lines.waiting"], /, *, import_file_no: SqlValue, entry_id: SqlValue) -> list[EarlyLinesWaiting]: ...
    @overload
    def all(self, statement: Literal["early_lines.next"], /, *, import_file_no: SqlValue, limit: SqlValue, session_no: SqlValue) -> list[EarlyLinesNext]: ...
    @overload
    def all(self, statement: Literal["early_lines.without_parent"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> list[EarlyLinesWithoutParent]: ...
    @overload
    def all(self, statement: Literal["early_lines.in_a_circle"], /, *, import_file_no: SqlValue, after_offset: SqlValue) -> list[EarlyLinesInACircle]: ...
    @overload
    def all(self, statement: Literal["early_lines.found_late"], /, *, import_file_no: SqlValue) -> list[EarlyLinesFoundLate]: ...
    @overload
    def all(self, statement: Literal["early_lines.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[EarlyLinesBranches]: ...
    @overload
    def all(self, statement: Literal["early_lines.entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> list[EarlyLinesEntries]: ...
    @overload
    def all(self, statement: Literal["events.emit"], /, *, kind: SqlValue, audience: SqlValue, session_no: SqlValue, now_ms: SqlValue, text: SqlValue, data: SqlValue) -> list[EventsEmit]: ...
    @overload
    def all(self, statement: Literal["events.after"], /, *, after_no: SqlValue, limit: SqlValue) -> list[EventsAfter]: ...
    @overload
    def all(self, statement: Literal["events.after_for"], /, *, audience: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[EventsAfterFor]: ...
    @overload
    def all(self, statement: Literal["events.of_session"], /, *, audience: SqlValue, session_no: SqlValue, among: SqlValue, limit: SqlValue) -> list[EventsOfSession]: ...
    @overload
    def all(self, statement: Literal["events.last"], /) -> list[EventsLast]: ...
    @overload
    def all(self, statement: Literal["events.nth_last"], /, *, skipped: SqlValue) -> list[EventsNthLast]: ...
    @overload
    def all(self, statement: Literal["events.nth_last_for"], /, *, audience: SqlValue, skipped: SqlValue) -> list[EventsNthLastFor]: ...
    @overload
    def all(self, statement: Literal["events.cursor"], /, *, consumer: SqlValue) -> list[EventsCursor]: ...
    @overload
    def all(self, statement: Literal["foreign_ids.find"], /, *, namespace: SqlValue, external_id: SqlValue) -> list[ForeignIdsFind]: ...
    @overload
    def all(self, statement: Literal["history.in_context"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue, limit: SqlValue) -> list[HistoryInContext]: ...
    @overload
    def all(self, statement: Literal["import_file.known"], /, *, paths: SqlValue) -> list[ImportFileKnown]: ...
    @overload
    def all(self, statement: Literal["import_file.by_path"], /, *, path: SqlValue) -> list[ImportFileByPath]: ...
    @overload
    def all(self, statement: Literal["import_file.by_inode"], /, *, inodes: SqlValue) -> list[ImportFileByInode]: ...
    @overload
    def all(self, statement: Literal["import_file.of_name"], /, *, names: SqlValue) -> list[ImportFileOfName]: ...
    @overload
    def all(self, statement: Literal["import_file.insert"], /, *, path: SqlValue, name: SqlValue, kind: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue, sha256: SqlValue, note: SqlValue) -> list[ImportFileInsert]: ...
    @overload
    def all(self, statement: Literal["import_file.damaged_lines"], /, *, after_path: SqlValue, folder: SqlValue, limit: SqlValue) -> list[ImportFileDamagedLines]: ...
    @overload
    def all(self, statement: Literal["import_file.begin_index"], /, *, path: SqlValue, name: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue) -> list[ImportFileBeginIndex]: ...
    @overload
    def all(self, statement: Literal["import_file.index"], /, *, path: SqlValue) -> list[ImportFileIndex]: ...
    @overload
    def all(self, statement: Literal["import_file.index_content"], /, *, path: SqlValue) -> list[ImportFileIndexContent]: ...
    @overload
    def all(self, statement: Literal["import_file.index_pieces"], /, *, import_file_no: SqlValue, after_offset: SqlValue, end_offset: SqlValue, limit: SqlValue) -> list[ImportFileIndexPieces]: ...
    @overload
    def all(self, statement: Literal["import_file.count_pieces"], /, *, import_file_no: SqlValue, first_offset: SqlValue, end_offset: SqlValue) -> list[ImportFileCountPieces]: ...
    @overload
    def all(self, statement: Literal["import_file.in_folder"], /, *, folder: SqlValue) -> list[ImportFileInFolder]: ...
    @overload
    def all(self, statement: Literal["import_file.files"], /, *, after_no: SqlValue, session_no: SqlValue, limit: SqlValue) -> list[ImportFileFiles]: ...
    @overload
    def all(self, statement: Literal["import_file.indexes"], /) -> list[ImportFileIndexes]: ...
    @overload
    def all(self, statement: Literal["import_file.sessions_without_file"], /, *, after_no: SqlValue, session_no: SqlValue, limit: SqlValue) -> list[ImportFileSessionsWithoutFile]: ...
    @overload
    def all(self, statement: Literal["import_file.bindings_of_agent"], /, *, agent_id: SqlValue, after_key: SqlValue, limit: SqlValue) -> list[ImportFileBindingsOfAgent]: ...
    @overload
    def all(self, statement: Literal["import_file.agents"], /) -> list[ImportFileAgents]: ...
    @overload
    def all(self, statement: Literal["import_file.entry_sizes"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> list[ImportFileEntrySizes]: ...
    @overload
    def all(self, statement: Literal["import_file.payloads"], /, *, low_no: SqlValue, high_no: SqlValue, import_file_no: SqlValue, limit: SqlValue) -> list[ImportFilePayloads]: ...
    @overload
    def all(self, statement: Literal["import_file.kept"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> list[ImportFileKept]: ...
    @overload
    def all(self, statement: Literal["import_file.foreign_parents"], /, *, low_no: SqlValue, high_no: SqlValue, session_no: SqlValue) -> list[ImportFileForeignParents]: ...
    @overload
    def all(self, statement: Literal["import_file.shared_entries"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[ImportFileSharedEntries]: ...
    @overload
    def all(self, statement: Literal["import_file.details"], /, *, session_key: SqlValue) -> list[ImportFileDetails]: ...
    @overload
    def all(self, statement: Literal["import_file.undone"], /, *, session_no: SqlValue) -> list[ImportFileUndone]: ...
    @overload
    def all(self, statement: Literal["inbox.by_event"], /, *, channel: SqlValue, event_id: SqlValue) -> list[InboxByEvent]: ...
    @overload
    def all(self, statement: Literal["inbox.accept"], /, *, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, now_ms: SqlValue, details: SqlValue, payload: SqlValue) -> list[InboxAccept]: ...
    @overload
    def all(self, statement: Literal["inbox.hear"], /, *, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, now_ms: SqlValue, details: SqlValue, payload: SqlValue) -> list[InboxHear]: ...
    @overload
    def all(self, statement: Literal["inbox.heard"], /, *, session_no: SqlValue, before_no: SqlValue, limit: SqlValue) -> list[InboxHeard]: ...
    @overload
    def all(self, statement: Literal["inbox.heard_weight"], /, *, session_no: SqlValue, limit: SqlValue) -> list[InboxHeardWeight]: ...
    @overload
    def all(self, statement: Literal["inbox.newest_text"], /, *, inbox_no: SqlValue) -> list[InboxNewestText]: ...
    @overload
    def all(self, statement: Literal["inbox.waiting_in_session"], /, *, session_no: SqlValue, lane: SqlValue, limit: SqlValue) -> list[InboxWaitingInSession]: ...
    @overload
    def all(self, statement: Literal["inbox.ahead"], /, *, session_no: SqlValue, lane: SqlValue, limit: SqlValue) -> list[InboxAhead]: ...
    @overload
    def all(self, statement: Literal["inbox.open_in_session"], /, *, session_no: SqlValue) -> list[InboxOpenInSession]: ...
    @overload
    def all(self, statement: Literal["inbox.waiting_in_lane"], /, *, lane: SqlValue, limit: SqlValue) -> list[InboxWaitingInLane]: ...
    @overload
    def all(self, statement: Literal["inbox.next"], /, *, lane: SqlValue, low_ms: SqlValue, high_ms: SqlValue) -> list[InboxNext]: ...
    @overload
    def all(self, statement: Literal["inbox.candidate"], /, *, inbox_no: SqlValue) -> list[InboxCandidate]: ...
    @overload
    def all(self, statement: Literal["inbox.payload"], /, *, inbox_no: SqlValue) -> list[InboxPayload]: ...
    @overload
    def all(self, statement: Literal["inbox.due"], /, *, lane: SqlValue, now_ms: SqlValue) -> list[InboxDue]: ...
    @overload
    def all(self, statement: Literal["inbox.of_turn"], /, *, inbox_no: SqlValue) -> list[InboxOfTurn]: ...
    @overload
    def all(self, statement: Literal["inbox.interrupted_before"], /, *, session_no: SqlValue, inbox_no: SqlValue) -> list[InboxInterruptedBefore]: ...
    @overload
    def all(self, statement: Literal["inbox.waiting"], /, *, inbox_no: SqlValue) -> list[InboxWaiting]: ...
    @overload
    def all(self, statement: Literal["inbox.interrupted"], /, *, before_no: SqlValue, limit: SqlValue) -> list[InboxInterrupted]: ...
    @overload
    def all(self, statement: Literal["inbox.interrupted_by"], /, *, instances: SqlValue, before_no: SqlValue, limit: SqlValue) -> list[InboxInterruptedBy]: ...
    @overload
    def all(self, statement: Literal["inbox.running_resumes"], /, *, dead: SqlValue) -> list[InboxRunningResumes]: ...
    @overload
    def all(self, statement: Literal["inbox.late"], /, *, lane: SqlValue, low_ms: SqlValue, high_ms: SqlValue, limit: SqlValue) -> list[InboxLate]: ...
    @overload
    def all(self, statement: Literal["inbox.notified"], /, *, inbox_no: SqlValue) -> list[InboxNotified]: ...
    @overload
    def all(self, statement: Literal["inbox.restored"], /, *, after_no: SqlValue, limit: SqlValue) -> list[InboxRestored]: ...
    @overload
    def all(self, statement: Literal["inbox.dead"], /, *, before_no: SqlValue, limit: SqlValue) -> list[InboxDead]: ...
    @overload
    def all(self, statement: Literal["inbox.open"], /, *, after_no: SqlValue, limit: SqlValue) -> list[InboxOpen]: ...
    @overload
    def all(self, statement: Literal["inbox.open_of_session"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[InboxOpenOfSession]: ...
    @overload
    def all(self, statement: Literal["inbox.outcome"], /, *, inbox_no: SqlValue) -> list[InboxOutcome]: ...
    @overload
    def all(self, statement: Literal["inbox.answered_at"], /, *, inbox_no: SqlValue) -> list[InboxAnsweredAt]: ...
    @overload
    def all(self, statement: Literal["instance.insert"], /, *, host: SqlValue, boot_id: SqlValue, pid: SqlValue, pid_started: SqlValue, program: SqlValue, opened_at_ms: SqlValue) -> list[InstanceInsert]: ...
    @overload
    def all(self, statement: Literal["instance.by_pid"], /, *, host: SqlValue, boot_id: SqlValue, pid: SqlValue) -> list[InstanceByPid]: ...
    @overload
    def all(self, statement: Literal["listing.of_agent"], /, *, agent_id: SqlValue, limit: SqlValue) -> list[ListingOfAgent]: ...
    @overload
    def all(self, statement: Literal["listing.of_namespace"], /, *, namespace: SqlValue, limit: SqlValue) -> list[ListingOfNamespace]: ...
    @overload
    def all(self, statement: Literal["listing.of_keys"], /, *, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> list[ListingOfKeys]: ...
    @overload
    def all(self, statement: Literal["listing.among"], /, *, among: SqlValue, updated_before: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue) -> list[ListingAmong]: ...
    @overload
    def all(self, statement: Literal["listing.newest"], /, *, past_ms: SqlValue, past_no: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> list[ListingNewest]: ...
    @overload
    def all(self, statement: Literal["listing.oldest"], /, *, past_ms: SqlValue, past_no: SqlValue, updated_before: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue, limit: SqlValue) -> list[ListingOldest]: ...
    @overload
    def all(self, statement: Literal["outbox.add"], /, *, session_no: SqlValue, turn_no: SqlValue, target: SqlValue, reason: SqlValue, now_ms: SqlValue, payload: SqlValue) -> list[OutboxAdd]: ...
    @overload
    def all(self, statement: Literal["outbox.next"], /, *, low_ms: SqlValue, high_ms: SqlValue, full: SqlValue) -> list[OutboxNext]: ...
    @overload
    def all(self, statement: Literal["outbox.ready"], /, *, outbox_no: SqlValue, now_ms: SqlValue, full: SqlValue) -> list[OutboxReady]: ...
    @overload
    def all(self, statement: Literal["outbox.candidate"], /, *, outbox_no: SqlValue) -> list[OutboxCandidate]: ...
    @overload
    def all(self, statement: Literal["outbox.origin"], /, *, outbox_no: SqlValue) -> list[OutboxOrigin]: ...
    @overload
    def all(self, statement: Literal["outbox.payload"], /, *, outbox_no: SqlValue) -> list[OutboxPayload]: ...
    @overload
    def all(self, statement: Literal["outbox.due"], /, *, now_ms: SqlValue, full: SqlValue) -> list[OutboxDue]: ...
    @overload
    def all(self, statement: Literal["outbox.claimed_as"], /, *, claim_id: SqlValue) -> list[OutboxClaimedAs]: ...
    @overload
    def all(self, statement: Literal["outbox.begun"], /, *, outbox_no: SqlValue, instance_no: SqlValue, attempt: SqlValue, expires_at_ms: SqlValue) -> list[OutboxBegun]: ...
    @overload
    def all(self, statement: Literal["outbox.overdue"], /, *, now_ms: SqlValue, limit: SqlValue) -> list[OutboxOverdue]: ...
    @overload
    def all(self, statement: Literal["outbox.of_instance"], /, *, instance_no: SqlValue, limit: SqlValue) -> list[OutboxOfInstance]: ...
    @overload
    def all(self, statement: Literal["outbox.list"], /, *, state: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[OutboxList]: ...
    @overload
    def all(self, statement: Literal["outbox.list_sent"], /, *, after_no: SqlValue, limit: SqlValue) -> list[OutboxListSent]: ...
    @overload
    def all(self, statement: Literal["pruning.outbox"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[PruningOutbox]: ...
    @overload
    def all(self, statement: Literal["pruning.inbox"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[PruningInbox]: ...
    @overload
    def all(self, statement: Literal["pruning.turn"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[PruningTurn]: ...
    @overload
    def all(self, statement: Literal["pruning.event"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[PruningEvent]: ...
    @overload
    def all(self, statement: Literal["recovery.open_instances"], /, *, after_no: SqlValue, limit: SqlValue) -> list[RecoveryOpenInstances]: ...
    @overload
    def all(self, statement: Literal["recovery.is_open"], /, *, instance_no: SqlValue) -> list[RecoveryIsOpen]: ...
    @overload
    def all(self, statement: Literal["recovery.idle"], /, *, instances: SqlValue) -> list[RecoveryIdle]: ...
    @overload
    def all(self, statement: Literal["recovery.running_compactions"], /, *, instance_no: SqlValue, limit: SqlValue) -> list[RecoveryRunningCompactions]: ...
    @overload
    def all(self, statement: Literal["recovery.overdue_compactions"], /, *, before_ms: SqlValue, limit: SqlValue) -> list[RecoveryOverdueCompactions]: ...
    @overload
    def all(self, statement: Literal["recovery.unclean_starts"], /, *, since_ms: SqlValue, now_ms: SqlValue, dead: SqlValue, command_line: SqlValue, instance_no: SqlValue) -> list[RecoveryUncleanStarts]: ...
    @overload
    def all(self, statement: Literal["recovery.held"], /) -> list[RecoveryHeld]: ...
    @overload
    def all(self, statement: Literal["redact.entry"], /, *, entry_no: SqlValue) -> list[RedactEntry]: ...
    @overload
    def all(self, statement: Literal["redact.copies"], /, *, entry_no: SqlValue) -> list[RedactCopies]: ...
    @overload
    def all(self, statement: Literal["registry.insert"], /, *, session_id: SqlValue, agent_id: SqlValue, origin: SqlValue, version: SqlValue, now_ms: SqlValue, head_no: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, context_tokens: SqlValue, tokens_fresh: SqlValue, forked_from_no: SqlValue, forked_at_no: SqlValue, forked_epoch: SqlValue, formats: SqlValue, ordered_from_no: SqlValue, open_marks: SqlValue, asked_no: SqlValue) -> list[RegistryInsert]: ...
    @overload
    def all(self, statement: Literal["registry.by_id"], /, *, session_id: SqlValue) -> list[RegistryById]: ...
    @overload
    def all(self, statement: Literal["registry.by_key"], /, *, session_key: SqlValue) -> list[RegistryByKey]: ...
    @overload
    def all(self, statement: Literal["registry.info"], /, *, session_no: SqlValue) -> list[RegistryInfo]: ...
    @overload
    def all(self, statement: Literal["registry.began"], /, *, session_no: SqlValue) -> list[RegistryBegan]: ...
    @overload
    def all(self, statement: Literal["retention.newest"], /, *, before_ms: SqlValue, before_no: SqlValue, limit: SqlValue) -> list[RetentionNewest]: ...
    @overload
    def all(self, statement: Literal["retention.oldest"], /, *, after_ms: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[RetentionOldest]: ...
    @overload
    def all(self, statement: Literal["retention.sizes"], /, *, session_nos: SqlValue) -> list[RetentionSizes]: ...
    @overload
    def all(self, statement: Literal["salvage.counted_header"], /, *, session_no: SqlValue) -> list[SalvageCountedHeader]: ...
    @overload
    def all(self, statement: Literal["salvage.sessions"], /, *, after_no: SqlValue, limit: SqlValue) -> list[SalvageSessions]: ...
    @overload
    def all(self, statement: Literal["salvage.session"], /, *, session_no: SqlValue) -> list[SalvageSession]: ...
    @overload
    def all(self, statement: Literal["salvage.numbers"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> list[SalvageNumbers]: ...
    @overload
    def all(self, statement: Literal["salvage.header"], /, *, entry_no: SqlValue) -> list[SalvageHeader]: ...
    @overload
    def all(self, statement: Literal["salvage.taken"], /, *, session_id: SqlValue) -> list[SalvageTaken]: ...
    @overload
    def all(self, statement: Literal["salvage.fork_epoch"], /, *, session_no: SqlValue) -> list[SalvageForkEpoch]: ...
    @overload
    def all(self, statement: Literal["salvage.fork_point"], /, *, session_no: SqlValue, low_no: SqlValue) -> list[SalvageForkPoint]: ...
    @overload
    def all(self, statement: Literal["salvage.undone_at"], /, *, session_no: SqlValue) -> list[SalvageUndoneAt]: ...
    @overload
    def all(self, statement: Literal["salvage.aside"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> list[SalvageAside]: ...
    @overload
    def all(self, statement: Literal["salvage.aside_child"], /, *, low_no: SqlValue, high_no: SqlValue, parent_no: SqlValue) -> list[SalvageAsideChild]: ...
    @overload
    def all(self, statement: Literal["salvage.aside_by_id"], /, *, aside_no: SqlValue, entry_id: SqlValue) -> list[SalvageAsideById]: ...
    @overload
    def all(self, statement: Literal["salvage.jobs_aside"], /, *, session_no: SqlValue) -> list[SalvageJobsAside]: ...
    @overload
    def all(self, statement: Literal["salvage.bindings"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageBindings]: ...
    @overload
    def all(self, statement: Literal["salvage.foreign_ids"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageForeignIds]: ...
    @overload
    def all(self, statement: Literal["salvage.details"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageDetails]: ...
    @overload
    def all(self, statement: Literal["salvage.branches"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageBranches]: ...
    @overload
    def all(self, statement: Literal["salvage.next_epoch_owner"], /, *, after: SqlValue) -> list[SalvageNextEpochOwner]: ...
    @overload
    def all(self, statement: Literal["salvage.compactions"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageCompactions]: ...
    @overload
    def all(self, statement: Literal["salvage.turns"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageTurns]: ...
    @overload
    def all(self, statement: Literal["salvage.inbox"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageInbox]: ...
    @overload
    def all(self, statement: Literal["salvage.message"], /, *, inbox_no: SqlValue) -> list[SalvageMessage]: ...
    @overload
    def all(self, statement: Literal["salvage.outbox"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageOutbox]: ...
    @overload
    def all(self, statement: Literal["salvage.events"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageEvents]: ...
    @overload
    def all(self, statement: Literal["salvage.import_files"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageImportFiles]: ...
    @overload
    def all(self, statement: Literal["salvage.next_quarantined"], /, *, after: SqlValue) -> list[SalvageNextQuarantined]: ...
    @overload
    def all(self, statement: Literal["salvage.archives"], /, *, after: SqlValue, limit: SqlValue) -> list[SalvageArchives]: ...
    @overload
    def all(self, statement: Literal["salvage.archive_of"], /, *, session_no: SqlValue) -> list[SalvageArchiveOf]: ...
    @overload
    def all(self, statement: Literal["salvage.next_chunk_owner"], /, *, after: SqlValue) -> list[SalvageNextChunkOwner]: ...
    @overload
    def all(self, statement: Literal["salvage.chunk"], /, *, archive_no: SqlValue, after: SqlValue) -> list[SalvageChunk]: ...
    @overload
    def all(self, statement: Literal["search.state"], /) -> list[SearchState]: ...
    @overload
    def all(self, statement: Literal["search.behind"], /, *, limit: SqlValue) -> list[SearchBehind]: ...
    @overload
    def all(self, statement: Literal["search.count_behind"], /) -> list[SearchCountBehind]: ...
    @overload
    def all(self, statement: Literal["search.count_entries"], /) -> list[SearchCountEntries]: ...
    @overload
    def all(self, statement: Literal["search.indexed"], /, *, session_no: SqlValue) -> list[SearchIndexed]: ...
    @overload
    def all(self, statement: Literal["search.indexed_of"], /, *, session_nos: SqlValue) -> list[SearchIndexedOf]: ...
    @overload
    def all(self, statement: Literal["search.parts"], /) -> list[SearchParts]: ...
    @overload
    def all(self, statement: Literal["search.matches"], /, *, branch_no: SqlValue, agent_id: SqlValue, role: SqlValue, since_ms: SqlValue, checkpoints: SqlValue, words: SqlValue, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> list[SearchMatches]: ...
    @overload
    def all(self, statement: Literal["search.any_match"], /, *, words: SqlValue) -> list[SearchAnyMatch]: ...
    @overload
    def all(self, statement: Literal["search.described"], /, *, numbers: SqlValue, branch_no: SqlValue, agent_id: SqlValue, role: SqlValue, since_ms: SqlValue, checkpoints: SqlValue) -> list[SearchDescribed]: ...
    @overload
    def all(self, statement: Literal["search.archives"], /, *, last_no: SqlValue, session_no: SqlValue, agent_id: SqlValue, limit: SqlValue) -> list[SearchArchives]: ...
    @overload
    def all(self, statement: Literal["search.texts"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> list[SearchTexts]: ...
    @overload
    def all(self, statement: Literal["search.cursors"], /, *, after_session_no: SqlValue, limit: SqlValue) -> list[SearchCursors]: ...
    @overload
    def all(self, statement: Literal["search.documents"], /, *, after_no: SqlValue, limit: SqlValue) -> list[SearchDocuments]: ...
    @overload
    def all(self, statement: Literal["search.missing"], /, *, after_no: SqlValue, last_no: SqlValue, limit: SqlValue) -> list[SearchMissing]: ...
    @overload
    def all(self, statement: Literal["session_ids.by_prefix"], /, *, prefix: SqlValue, prefix_end: SqlValue, tail: SqlValue, limit: SqlValue) -> list[SessionIdsByPrefix]: ...
    @overload
    def all(self, statement: Literal["session_ids.id_neighbours"], /, *, session_id: SqlValue) -> list[SessionIdsIdNeighbours]: ...
    @overload
    def all(self, statement: Literal["session_list.by_update"], /, *, before: SqlValue, before_no: SqlValue, since_ms: SqlValue, agent_id: SqlValue, checkpoints: SqlValue, state: SqlValue, limit: SqlValue) -> list[SessionListByUpdate]: ...
    @overload
    def all(self, statement: Literal["session_list.by_value"], /, *, sort: SqlValue, before: SqlValue, before_no: SqlValue, since_ms: SqlValue, agent_id: SqlValue, checkpoints: SqlValue, state: SqlValue, limit: SqlValue) -> list[SessionListByValue]: ...
    @overload
    def all(self, statement: Literal["session_list.about"], /, *, look: SqlValue, session_no: SqlValue) -> list[SessionListAbout]: ...
    @overload
    def all(self, statement: Literal["session_list.text"], /, *, chars: SqlValue, entry_no: SqlValue) -> list[SessionListText]: ...
    @overload
    def all(self, statement: Literal["status.file"], /) -> list[StatusFile]: ...
    @overload
    def all(self, statement: Literal["status.totals"], /) -> list[StatusTotals]: ...
    @overload
    def all(self, statement: Literal["status.numbers"], /) -> list[StatusNumbers]: ...
    @overload
    def all(self, statement: Literal["status.recent_turns"], /, *, since_ms: SqlValue) -> list[StatusRecentTurns]: ...
    @overload
    def all(self, statement: Literal["status.counts"], /) -> list[StatusCounts]: ...
    @overload
    def all(self, statement: Literal["status.work"], /, *, now_ms: SqlValue) -> list[StatusWork]: ...
    @overload
    def all(self, statement: Literal["status.lanes"], /) -> list[StatusLanes]: ...
    @overload
    def all(self, statement: Literal["status.channels"], /, *, now_ms: SqlValue, limit: SqlValue) -> list[StatusChannels]: ...
    @overload
    def all(self, statement: Literal["status.compactions"], /) -> list[StatusCompactions]: ...
    @overload
    def all(self, statement: Literal["status.running"], /, *, limit: SqlValue) -> list[StatusRunning]: ...
    @overload
    def all(self, statement: Literal["status.stuck"], /, *, limit: SqlValue) -> list[StatusStuck]: ...
    @overload
    def all(self, statement: Literal["status.processes"], /, *, limit: SqlValue) -> list[StatusProcesses]: ...
    @overload
    def all(self, statement: Literal["status.relations"], /) -> list[StatusRelations]: ...
    @overload
    def all(self, statement: Literal["status.branches"], /, *, session_no: SqlValue, limit: SqlValue) -> list[StatusBranches]: ...
    @overload
    def all(self, statement: Literal["stopping.texts"], /, *, inbox_no: SqlValue) -> list[StoppingTexts]: ...
    @overload
    def all(self, statement: Literal["stopping.text"], /, *, inbox_no: SqlValue) -> list[StoppingText]: ...
    @overload
    def all(self, statement: Literal["stopping.ended"], /, *, turns: SqlValue) -> list[StoppingEnded]: ...
    @overload
    def all(self, statement: Literal["transcript.state"], /, *, session_no: SqlValue) -> list[TranscriptState]: ...
    @overload
    def all(self, statement: Literal["transcript.archived"], /, *, session_no: SqlValue) -> list[TranscriptArchived]: ...
    @overload
    def all(self, statement: Literal["transcript.insert_branch"], /, *, session_no: SqlValue, parent_branch_no: SqlValue, fork_no: SqlValue, first_no: SqlValue) -> list[TranscriptInsertBranch]: ...
    @overload
    def all(self, statement: Literal["transcript.branch"], /, *, branch_no: SqlValue) -> list[TranscriptBranch]: ...
    @overload
    def all(self, statement: Literal["transcript.by_idempotency_key"], /, *, session_no: SqlValue, idempotency_key: SqlValue) -> list[TranscriptByIdempotencyKey]: ...
    @overload
    def all(self, statement: Literal["transcript.by_id"], /, *, session_no: SqlValue, entry_id: SqlValue) -> list[TranscriptById]: ...
    @overload
    def all(self, statement: Literal["transcript.by_no"], /, *, entry_no: SqlValue) -> list[TranscriptByNo]: ...
    @overload
    def all(self, statement: Literal["transcript.usage"], /, *, entry_no: SqlValue) -> list[TranscriptUsage]: ...
    @overload
    def all(self, statement: Literal["transcript.span_forward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[TranscriptSpanForward]: ...
    @overload
    def all(self, statement: Literal["transcript.span_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[TranscriptSpanBackward]: ...
    @overload
    def all(self, statement: Literal["transcript.newest_in_span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[TranscriptNewestInSpan]: ...
    @overload
    def all(self, statement: Literal["transcript.typed_forward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, types: SqlValue, limit: SqlValue) -> list[TranscriptTypedForward]: ...
    @overload
    def all(self, statement: Literal["transcript.typed_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, types: SqlValue, limit: SqlValue) -> list[TranscriptTypedBackward]: ...
    @overload
    def all(self, statement: Literal["transcript.all_entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> list[TranscriptAllEntries]: ...
    @overload
    def all(self, statement: Literal["transcript.first_in_span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue) -> list[TranscriptFirstInSpan]: ...
    @overload
    def all(self, statement: Literal["transcript.epoch"], /, *, session_no: SqlValue, epoch: SqlValue) -> list[TranscriptEpoch]: ...
    @overload
    def all(self, statement: Literal["transcript.undone"], /, *, session_no: SqlValue, epoch: SqlValue, last_epoch: SqlValue, boundary_no: SqlValue) -> list[TranscriptUndone]: ...
    @overload
    def all(self, statement: Literal["transcript.origin"], /, *, session_no: SqlValue) -> list[TranscriptOrigin]: ...
    @overload
    def all(self, statement: Literal["transcript.epochs"], /, *, session_no: SqlValue, epoch: SqlValue, limit: SqlValue) -> list[TranscriptEpochs]: ...
    @overload
    def all(self, statement: Literal["transcript.first_epoch_not_compaction"], /, *, session_no: SqlValue, epoch: SqlValue) -> list[TranscriptFirstEpochNotCompaction]: ...
    @overload
    def all(self, statement: Literal["turns.lane"], /, *, lane: SqlValue) -> list[TurnsLane]: ...
    @overload
    def all(self, statement: Literal["turns.open_in_lane"], /, *, lane: SqlValue, limit: SqlValue) -> list[TurnsOpenInLane]: ...
    @overload
    def all(self, statement: Literal["turns.lanes_before"], /, *, lane: SqlValue) -> list[TurnsLanesBefore]: ...
    @overload
    def all(self, statement: Literal["turns.start"], /, *, session_no: SqlValue, lane: SqlValue, kind: SqlValue, inbox_no: SqlValue, attempt: SqlValue, operation: SqlValue, instance_no: SqlValue, now_ms: SqlValue, expires_at_ms: SqlValue, deadline_ms: SqlValue, claim_id: SqlValue) -> list[TurnsStart]: ...
    @overload
    def all(self, statement: Literal["turns.claimed_as"], /, *, lane: SqlValue, claim_id: SqlValue) -> list[TurnsClaimedAs]: ...
    @overload
    def all(self, statement: Literal["turns.progress_of_message"], /, *, inbox_no: SqlValue) -> list[TurnsProgressOfMessage]: ...
    @overload
    def all(self, statement: Literal["turns.get"], /, *, turn_no: SqlValue) -> list[TurnsGet]: ...
    @overload
    def all(self, statement: Literal["turns.session_of"], /, *, turn_no: SqlValue) -> list[TurnsSessionOf]: ...
    @overload
    def all(self, statement: Literal["turns.running_of_session"], /, *, session_no: SqlValue) -> list[TurnsRunningOfSession]: ...
    @overload
    def all(self, statement: Literal["turns.renew"], /, *, now_ms: SqlValue, expires_at_ms: SqlValue, operation: SqlValue, turn_no: SqlValue) -> list[TurnsRenew]: ...
    @overload
    def all(self, statement: Literal["turns.expired"], /, *, now_ms: SqlValue, alive: SqlValue, limit: SqlValue) -> list[TurnsExpired]: ...
    @overload
    def all(self, statement: Literal["turns.of_instance"], /, *, instance_no: SqlValue, limit: SqlValue) -> list[TurnsOfInstance]: ...
    @overload
    def all(self, statement: Literal["turns.next_expiry"], /, *, alive: SqlValue) -> list[TurnsNextExpiry]: ...
    @overload
    def all(self, statement: Literal["turns.pace_of_session"], /, *, session_no: SqlValue, turns: SqlValue) -> list[TurnsPaceOfSession]: ...
    @overload
    def all(self, statement: Literal["turns.pace_of_lane"], /, *, turns: SqlValue, lane: SqlValue) -> list[TurnsPaceOfLane]: ...
    @overload
    def all(self, statement: Literal["verify.file_full"], /) -> list[VerifyFileFull]: ...
    @overload
    def all(self, statement: Literal["verify.file_quick"], /) -> list[VerifyFileQuick]: ...
    @overload
    def all(self, statement: Literal["verify.foreign_keys"], /, *, limit: SqlValue) -> list[VerifyForeignKeys]: ...
    @overload
    def all(self, statement: Literal["verify.bindings"], /, *, after_key: SqlValue, limit: SqlValue) -> list[VerifyBindings]: ...
    @overload
    def all(self, statement: Literal["verify.foreign_ids"], /, *, after_no: SqlValue, limit: SqlValue) -> list[VerifyForeignIds]: ...
    @overload
    def all(self, statement: Literal["verify.numbers"], /) -> list[VerifyNumbers]: ...
    @overload
    def all(self, statement: Literal["verify.wal_link"], /) -> list[VerifyWalLink]: ...
    @overload
    def all(self, statement: Literal["verify.lanes"], /) -> list[VerifyLanes]: ...
    @overload
    def all(self, statement: Literal["verify.odd_instances"], /, *, limit: SqlValue) -> list[VerifyOddInstances]: ...
    @overload
    def all(self, statement: Literal["verify.odd_pauses"], /, *, limit: SqlValue) -> list[VerifyOddPauses]: ...
    @overload
    def all(self, statement: Literal["verify.events"], /, *, after_no: SqlValue, limit: SqlValue) -> list[VerifyEvents]: ...
    @overload
    def all(self, statement: Literal["verify.archives"], /, *, after_no: SqlValue, limit: SqlValue) -> list[VerifyArchives]: ...
    @overload
    def all(self, statement: Literal["verify.broken_rules"], /, *, limit: SqlValue) -> list[VerifyBrokenRules]: ...
    @overload
    def all(self, statement: Literal["verify.last_session"], /) -> list[VerifyLastSession]: ...
    @overload
    def all(self, statement: Literal["verify.next_session"], /, *, after_no: SqlValue) -> list[VerifyNextSession]: ...
    @overload
    def all(self, statement: Literal["verify.last_owner"], /) -> list[VerifyLastOwner]: ...
    @overload
    def all(self, statement: Literal["verify.next_owner"], /, *, after_entry_no: SqlValue) -> list[VerifyNextOwner]: ...
    @overload
    def all(self, statement: Literal["verify.session"], /, *, low_no: SqlValue, high_no: SqlValue, session_no: SqlValue) -> list[VerifySession]: ...
    @overload
    def all(self, statement: Literal["verify.comes_from"], /, *, session_no: SqlValue, origin_no: SqlValue) -> list[VerifyComesFrom]: ...
    @overload
    def all(self, statement: Literal["verify.first_head"], /, *, session_no: SqlValue) -> list[VerifyFirstHead]: ...
    @overload
    def all(self, statement: Literal["verify.exists"], /, *, session_no: SqlValue) -> list[VerifyExists]: ...
    @overload
    def all(self, statement: Literal["verify.archive"], /, *, session_no: SqlValue) -> list[VerifyArchive]: ...
    @overload
    def all(self, statement: Literal["verify.archive_of_parent"], /, *, session_no: SqlValue) -> list[VerifyArchiveOfParent]: ...
    @overload
    def all(self, statement: Literal["verify.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[VerifyBranches]: ...
    @overload
    def all(self, statement: Literal["verify.entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: SqlValue) -> list[VerifyEntries]: ...
    @overload
    def all(self, statement: Literal["verify.payloads"], /, *, low_no: SqlValue, high_no: SqlValue) -> list[VerifyPayloads]: ...
    @overload
    def all(self, statement: Literal["verify.path_payloads"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: SqlValue) -> list[VerifyPathPayloads]: ...
    @overload
    def all(self, statement: Literal["verify.place"], /, *, entry_no: SqlValue) -> list[VerifyPlace]: ...
    @overload
    def all(self, statement: Literal["verify.named_before"], /, *, session_no: SqlValue, entry_id: SqlValue, before_no: SqlValue) -> list[VerifyNamedBefore]: ...
    @overload
    def all(self, statement: Literal["verify.key_owner"], /, *, session_no: SqlValue, idempotency_key: SqlValue, before_no: SqlValue) -> list[VerifyKeyOwner]: ...
    @overload
    def all(self, statement: Literal["verify.job_of_entry"], /, *, session_no: SqlValue, entry_no: SqlValue) -> list[VerifyJobOfEntry]: ...
    @overload
    def all(self, statement: Literal["verify.control_record"], /, *, session_no: SqlValue, entry_id: SqlValue) -> list[VerifyControlRecord]: ...
    @overload
    def all(self, statement: Literal["verify.reopened_at"], /, *, session_no: SqlValue, boundary_no: SqlValue, head_no: SqlValue) -> list[VerifyReopenedAt]: ...
    @overload
    def all(self, statement: Literal["verify.last_usage"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue) -> list[VerifyLastUsage]: ...
    @overload
    def all(self, statement: Literal["verify.epochs"], /, *, session_no: SqlValue, low_epoch: SqlValue, high_epoch: SqlValue, limit: SqlValue) -> list[VerifyEpochs]: ...
    @overload
    def all(self, statement: Literal["verify.before_compaction"], /, *, session_no: SqlValue, entry_no: SqlValue) -> list[VerifyBeforeCompaction]: ...
    @overload
    def all(self, statement: Literal["verify.after_epoch"], /, *, head_no: SqlValue, session_no: SqlValue, epoch: SqlValue) -> list[VerifyAfterEpoch]: ...
    @overload
    def all(self, statement: Literal["verify.compactions"], /, *, session_no: SqlValue, after_no: SqlValue, limit: SqlValue) -> list[VerifyCompactions]: ...
    @overload
    def all(self, statement: Literal["verify.import_files"], /, *, after_no: SqlValue, limit: SqlValue) -> list[VerifyImportFiles]: ...
    @overload
    def all(self, statement: Literal["verify.first_receipt"], /, *, session_no: SqlValue) -> list[VerifyFirstReceipt]: ...
    @overload
    def all(self, statement: Literal["verify.receipts"], /, *, import_file_no: SqlValue, session_no: SqlValue) -> list[VerifyReceipts]: ...
    @overload
    def all(self, statement: Literal["verify.pieces"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: SqlValue) -> list[VerifyPieces]: ...
    @overload
    def all(self, statement: Literal["verify.index"], /, *, import_file_no: SqlValue) -> list[VerifyIndex]: ...
    @overload
    def all(self, statement: Literal["verify.inbox"], /, *, after_no: SqlValue, limit: SqlValue) -> list[VerifyInbox]: ...
    @overload
    def all(self, statement: Literal["verify.successor"], /, *, inbox_no: SqlValue) -> list[VerifySuccessor]: ...
    @overload
    def all(self, statement: Literal["verify.turns"], /, *, after_no: SqlValue, limit: SqlValue) -> list[VerifyTurns]: ...
    @overload
    def all(self, statement: Literal["verify.outbox"], /, *, after_no: SqlValue, limit: SqlValue) -> list[VerifyOutbox]: ...
    @overload
    def all(self, statement: Literal["verify.cursors"], /, *, limit: SqlValue) -> list[VerifyCursors]: ...
    @overload
    def all(self, statement: Literal["wal_link.current"], /) -> list[WalLinkCurrent]: ...
    @overload
    def all(self, statement: AnyStatement, /, **params: SqlValue) -> list[Any]: ...
    @overload
    @deprecated("no statement has this name and takes these parameters")
    def all(self, statement: str, /, **params: SqlValue) -> list[Any]: ...
    @overload
    def page(self, statement: Literal["archive.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ArchiveBranches]:
        """Return a page of rows: `limit` at most, or until they have `bytes_max` (`paging.py`).

        The statement has a parameter `:limit`, and reads its rows in order, without a sort.
        """
    @overload
    def page(self, statement: Literal["archive.epochs"], /, *, session_no: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ArchiveEpochs]: ...
    @overload
    def page(self, statement: Literal["archive.unfinished"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ArchiveUnfinished]: ...
    @overload
    def page(self, statement: Literal["archive.kept"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ArchiveKept]: ...
    @overload
    def page(self, statement: Literal["channels.outwaited"], /, *, channel: SqlValue, asked_before_ms: SqlValue, limit: int, bytes_max: int = ...) -> Page[ChannelsOutwaited]: ...
    @overload
    def page(self, statement: Literal["compaction.recent"], /, *, session_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[CompactionRecent]: ...
    @overload
    def page(self, statement: Literal["compaction.after_answer"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[CompactionAfterAnswer]: ...
    @overload
    def page(self, statement: Literal["compaction.cut_page"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[CompactionCutPage]: ...
    @overload
    def page(self, statement: Literal["compaction.may_have_results"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[CompactionMayHaveResults]: ...
    @overload
    def page(self, statement: Literal["compaction.results"], /, *, branch_no: SqlValue, low_no: SqlValue, high_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[CompactionResults]: ...
    @overload
    def page(self, statement: Literal["compaction.list"], /, *, before_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[CompactionList]: ...
    @overload
    def page(self, statement: Literal["compaction.list_of_session"], /, *, session_no: SqlValue, before_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[CompactionListOfSession]: ...
    @overload
    def page(self, statement: Literal["context.span_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ContextSpanBackward]: ...
    @overload
    def page(self, statement: Literal["deletion.waiting"], /, *, session_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[DeletionWaiting]: ...
    @overload
    def page(self, statement: Literal["deletion.by_key"], /, *, after_key: SqlValue, prefix: SqlValue, prefix_end: SqlValue, limit: int, bytes_max: int = ...) -> Page[DeletionByKey]: ...
    @overload
    def page(self, statement: Literal["deletion.archived"], /, *, prefix: SqlValue, prefix_end: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[DeletionArchived]: ...
    @overload
    def page(self, statement: Literal["deletion.inbox"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[DeletionInbox]: ...
    @overload
    def page(self, statement: Literal["deletion.outbox"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[DeletionOutbox]: ...
    @overload
    def page(self, statement: Literal["deletion.event"], /, *, after_no: SqlValue, last_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[DeletionEvent]: ...
    @overload
    def page(self, statement: Literal["deletion.in_namespace"], /, *, namespace: SqlValue, after_id: SqlValue, limit: int, bytes_max: int = ...) -> Page[DeletionInNamespace]: ...
    @overload
    def page(self, statement: Literal["deletion.indexes"], /, *, limit: int, bytes_max: int = ...) -> Page[DeletionIndexes]: ...
    @overload
    def page(self, statement: Literal["details.in_namespace"], /, *, namespace: SqlValue, after_name: SqlValue, limit: int, bytes_max: int = ...) -> Page[DetailsInNamespace]: ...
    @overload
    def page(self, statement: Literal["early_lines.next"], /, *, import_file_no: SqlValue, limit: int, session_no: SqlValue, bytes_max: int = ...) -> Page[EarlyLinesNext]: ...
    @overload
    def page(self, statement: Literal["early_lines.without_parent"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: int, bytes_max: int = ...) -> Page[EarlyLinesWithoutParent]: ...
    @overload
    def page(self, statement: Literal["early_lines.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[EarlyLinesBranches]: ...
    @overload
    def page(self, statement: Literal["early_lines.entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[EarlyLinesEntries]: ...
    @overload
    def page(self, statement: Literal["events.after"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[EventsAfter]: ...
    @overload
    def page(self, statement: Literal["events.after_for"], /, *, audience: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[EventsAfterFor]: ...
    @overload
    def page(self, statement: Literal["events.of_session"], /, *, audience: SqlValue, session_no: SqlValue, among: SqlValue, limit: int, bytes_max: int = ...) -> Page[EventsOfSession]: ...
    @overload
    def page(self, statement: Literal["history.in_context"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[HistoryInContext]: ...
    @overload
    def page(self, statement: Literal["import_file.damaged_lines"], /, *, after_path: SqlValue, folder: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFileDamagedLines]: ...
    @overload
    def page(self, statement: Literal["import_file.index_pieces"], /, *, import_file_no: SqlValue, after_offset: SqlValue, end_offset: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFileIndexPieces]: ...
    @overload
    def page(self, statement: Literal["import_file.files"], /, *, after_no: SqlValue, session_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFileFiles]: ...
    @overload
    def page(self, statement: Literal["import_file.sessions_without_file"], /, *, after_no: SqlValue, session_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFileSessionsWithoutFile]: ...
    @overload
    def page(self, statement: Literal["import_file.bindings_of_agent"], /, *, agent_id: SqlValue, after_key: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFileBindingsOfAgent]: ...
    @overload
    def page(self, statement: Literal["import_file.entry_sizes"], /, *, low_no: SqlValue, high_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFileEntrySizes]: ...
    @overload
    def page(self, statement: Literal["import_file.payloads"], /, *, low_no: SqlValue, high_no: SqlValue, import_file_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFilePayloads]: ...
    @overload
    def page(self, statement: Literal["import_file.kept"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFileKept]: ...
    @overload
    def page(self, statement: Literal["import_file.shared_entries"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[ImportFileSharedEntries]: ...
    @overload
    def page(self, statement: Literal["inbox.heard"], /, *, session_no: SqlValue, before_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxHeard]: ...
    @overload
    def page(self, statement: Literal["inbox.heard_weight"], /, *, session_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxHeardWeight]: ...
    @overload
    def page(self, statement: Literal["inbox.waiting_in_session"], /, *, session_no: SqlValue, lane: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxWaitingInSession]: ...
    @overload
    def page(self, statement: Literal["inbox.ahead"], /, *, session_no: SqlValue, lane: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxAhead]: ...
    @overload
    def page(self, statement: Literal["inbox.waiting_in_lane"], /, *, lane: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxWaitingInLane]: ...
    @overload
    def page(self, statement: Literal["inbox.interrupted"], /, *, before_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxInterrupted]: ...
    @overload
    def page(self, statement: Literal["inbox.interrupted_by"], /, *, instances: SqlValue, before_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxInterruptedBy]: ...
    @overload
    def page(self, statement: Literal["inbox.late"], /, *, lane: SqlValue, low_ms: SqlValue, high_ms: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxLate]: ...
    @overload
    def page(self, statement: Literal["inbox.restored"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxRestored]: ...
    @overload
    def page(self, statement: Literal["inbox.dead"], /, *, before_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxDead]: ...
    @overload
    def page(self, statement: Literal["inbox.open"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxOpen]: ...
    @overload
    def page(self, statement: Literal["inbox.open_of_session"], /, *, session_no: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[InboxOpenOfSession]: ...
    @overload
    def page(self, statement: Literal["listing.of_agent"], /, *, agent_id: SqlValue, limit: int, bytes_max: int = ...) -> Page[ListingOfAgent]: ...
    @overload
    def page(self, statement: Literal["listing.of_namespace"], /, *, namespace: SqlValue, limit: int, bytes_max: int = ...) -> Page[ListingOfNamespace]: ...
    @overload
    def page(self, statement: Literal["listing.of_keys"], /, *, keys_from: SqlValue, keys_before: SqlValue, limit: int, bytes_max: int = ...) -> Page[ListingOfKeys]: ...
    @overload
    def page(self, statement: Literal["listing.newest"], /, *, past_ms: SqlValue, past_no: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue, limit: int, bytes_max: int = ...) -> Page[ListingNewest]: ...
    @overload
    def page(self, statement: Literal["listing.oldest"], /, *, past_ms: SqlValue, past_no: SqlValue, updated_before: SqlValue, agent_id: SqlValue, with_ended: SqlValue, namespace: SqlValue, keys_from: SqlValue, keys_before: SqlValue, limit: int, bytes_max: int = ...) -> Page[ListingOldest]: ...
    @overload
    def page(self, statement: Literal["outbox.overdue"], /, *, now_ms: SqlValue, limit: int, bytes_max: int = ...) -> Page[OutboxOverdue]: ...
    @overload
    def page(self, statement: Literal["outbox.of_instance"], /, *, instance_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[OutboxOfInstance]: ...
    @overload
    def page(self, statement: Literal["outbox.list"], /, *, state: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[OutboxList]: ...
    @overload
    def page(self, statement: Literal["outbox.list_sent"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[OutboxListSent]: ...
    @overload
    def page(self, statement: Literal["pruning.outbox"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[PruningOutbox]: ...
    @overload
    def page(self, statement: Literal["pruning.inbox"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[PruningInbox]: ...
    @overload
    def page(self, statement: Literal["pruning.turn"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[PruningTurn]: ...
    @overload
    def page(self, statement: Literal["pruning.event"], /, *, before_ms: SqlValue, now_ms: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[PruningEvent]: ...
    @overload
    def page(self, statement: Literal["recovery.open_instances"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[RecoveryOpenInstances]: ...
    @overload
    def page(self, statement: Literal["recovery.running_compactions"], /, *, instance_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[RecoveryRunningCompactions]: ...
    @overload
    def page(self, statement: Literal["recovery.overdue_compactions"], /, *, before_ms: SqlValue, limit: int, bytes_max: int = ...) -> Page[RecoveryOverdueCompactions]: ...
    @overload
    def page(self, statement: Literal["retention.newest"], /, *, before_ms: SqlValue, before_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[RetentionNewest]: ...
    @overload
    def page(self, statement: Literal["retention.oldest"], /, *, after_ms: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[RetentionOldest]: ...
    @overload
    def page(self, statement: Literal["salvage.sessions"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageSessions]: ...
    @overload
    def page(self, statement: Literal["salvage.numbers"], /, *, low_no: SqlValue, high_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageNumbers]: ...
    @overload
    def page(self, statement: Literal["salvage.aside"], /, *, low_no: SqlValue, high_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageAside]: ...
    @overload
    def page(self, statement: Literal["salvage.bindings"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageBindings]: ...
    @overload
    def page(self, statement: Literal["salvage.foreign_ids"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageForeignIds]: ...
    @overload
    def page(self, statement: Literal["salvage.details"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageDetails]: ...
    @overload
    def page(self, statement: Literal["salvage.branches"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageBranches]: ...
    @overload
    def page(self, statement: Literal["salvage.compactions"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageCompactions]: ...
    @overload
    def page(self, statement: Literal["salvage.turns"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageTurns]: ...
    @overload
    def page(self, statement: Literal["salvage.inbox"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageInbox]: ...
    @overload
    def page(self, statement: Literal["salvage.outbox"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageOutbox]: ...
    @overload
    def page(self, statement: Literal["salvage.events"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageEvents]: ...
    @overload
    def page(self, statement: Literal["salvage.import_files"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageImportFiles]: ...
    @overload
    def page(self, statement: Literal["salvage.archives"], /, *, after: SqlValue, limit: int, bytes_max: int = ...) -> Page[SalvageArchives]: ...
    @overload
    def page(self, statement: Literal["search.behind"], /, *, limit: int, bytes_max: int = ...) -> Page[SearchBehind]: ...
    @overload
    def page(self, statement: Literal["search.matches"], /, *, branch_no: SqlValue, agent_id: SqlValue, role: SqlValue, since_ms: SqlValue, checkpoints: SqlValue, words: SqlValue, low_no: SqlValue, high_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[SearchMatches]: ...
    @overload
    def page(self, statement: Literal["search.archives"], /, *, last_no: SqlValue, session_no: SqlValue, agent_id: SqlValue, limit: int, bytes_max: int = ...) -> Page[SearchArchives]: ...
    @overload
    def page(self, statement: Literal["search.texts"], /, *, after_no: SqlValue, last_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[SearchTexts]: ...
    @overload
    def page(self, statement: Literal["search.cursors"], /, *, after_session_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[SearchCursors]: ...
    @overload
    def page(self, statement: Literal["search.documents"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[SearchDocuments]: ...
    @overload
    def page(self, statement: Literal["search.missing"], /, *, after_no: SqlValue, last_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[SearchMissing]: ...
    @overload
    def page(self, statement: Literal["session_ids.by_prefix"], /, *, prefix: SqlValue, prefix_end: SqlValue, tail: SqlValue, limit: int, bytes_max: int = ...) -> Page[SessionIdsByPrefix]: ...
    @overload
    def page(self, statement: Literal["session_list.by_update"], /, *, before: SqlValue, before_no: SqlValue, since_ms: SqlValue, agent_id: SqlValue, checkpoints: SqlValue, state: SqlValue, limit: int, bytes_max: int = ...) -> Page[SessionListByUpdate]: ...
    @overload
    def page(self, statement: Literal["session_list.by_value"], /, *, sort: SqlValue, before: SqlValue, before_no: SqlValue, since_ms: SqlValue, agent_id: SqlValue, checkpoints: SqlValue, state: SqlValue, limit: int, bytes_max: int = ...) -> Page[SessionListByValue]: ...
    @overload
    def page(self, statement: Literal["status.channels"], /, *, now_ms: SqlValue, limit: int, bytes_max: int = ...) -> Page[StatusChannels]: ...
    @overload
    def page(self, statement: Literal["status.running"], /, *, limit: int, bytes_max: int = ...) -> Page[StatusRunning]: ...
    @overload
    def page(self, statement: Literal["status.stuck"], /, *, limit: int, bytes_max: int = ...) -> Page[StatusStuck]: ...
    @overload
    def page(self, statement: Literal["status.processes"], /, *, limit: int, bytes_max: int = ...) -> Page[StatusProcesses]: ...
    @overload
    def page(self, statement: Literal["status.branches"], /, *, session_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[StatusBranches]: ...
    @overload
    def page(self, statement: Literal["transcript.span_forward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[TranscriptSpanForward]: ...
    @overload
    def page(self, statement: Literal["transcript.span_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[TranscriptSpanBackward]: ...
    @overload
    def page(self, statement: Literal["transcript.newest_in_span"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[TranscriptNewestInSpan]: ...
    @overload
    def page(self, statement: Literal["transcript.typed_forward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, types: SqlValue, limit: int, bytes_max: int = ...) -> Page[TranscriptTypedForward]: ...
    @overload
    def page(self, statement: Literal["transcript.typed_backward"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, types: SqlValue, limit: int, bytes_max: int = ...) -> Page[TranscriptTypedBackward]: ...
    @overload
    def page(self, statement: Literal["transcript.all_entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[TranscriptAllEntries]: ...
    @overload
    def page(self, statement: Literal["transcript.epochs"], /, *, session_no: SqlValue, epoch: SqlValue, limit: int, bytes_max: int = ...) -> Page[TranscriptEpochs]: ...
    @overload
    def page(self, statement: Literal["turns.open_in_lane"], /, *, lane: SqlValue, limit: int, bytes_max: int = ...) -> Page[TurnsOpenInLane]: ...
    @overload
    def page(self, statement: Literal["turns.expired"], /, *, now_ms: SqlValue, alive: SqlValue, limit: int, bytes_max: int = ...) -> Page[TurnsExpired]: ...
    @overload
    def page(self, statement: Literal["turns.of_instance"], /, *, instance_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[TurnsOfInstance]: ...
    @overload
    def page(self, statement: Literal["verify.foreign_keys"], /, *, limit: int, bytes_max: int = ...) -> Page[VerifyForeignKeys]: ...
    @overload
    def page(self, statement: Literal["verify.bindings"], /, *, after_key: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyBindings]: ...
    @overload
    def page(self, statement: Literal["verify.foreign_ids"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyForeignIds]: ...
    @overload
    def page(self, statement: Literal["verify.odd_instances"], /, *, limit: int, bytes_max: int = ...) -> Page[VerifyOddInstances]: ...
    @overload
    def page(self, statement: Literal["verify.odd_pauses"], /, *, limit: int, bytes_max: int = ...) -> Page[VerifyOddPauses]: ...
    @overload
    def page(self, statement: Literal["verify.events"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyEvents]: ...
    @overload
    def page(self, statement: Literal["verify.archives"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyArchives]: ...
    @overload
    def page(self, statement: Literal["verify.broken_rules"], /, *, limit: int, bytes_max: int = ...) -> Page[VerifyBrokenRules]: ...
    @overload
    def page(self, statement: Literal["verify.branches"], /, *, session_no: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyBranches]: ...
    @overload
    def page(self, statement: Literal["verify.entries"], /, *, low_no: SqlValue, high_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyEntries]: ...
    @overload
    def page(self, statement: Literal["verify.path_payloads"], /, *, low_no: SqlValue, high_no: SqlValue, branch_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyPathPayloads]: ...
    @overload
    def page(self, statement: Literal["verify.epochs"], /, *, session_no: SqlValue, low_epoch: SqlValue, high_epoch: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyEpochs]: ...
    @overload
    def page(self, statement: Literal["verify.compactions"], /, *, session_no: SqlValue, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyCompactions]: ...
    @overload
    def page(self, statement: Literal["verify.import_files"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyImportFiles]: ...
    @overload
    def page(self, statement: Literal["verify.pieces"], /, *, import_file_no: SqlValue, after_offset: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyPieces]: ...
    @overload
    def page(self, statement: Literal["verify.inbox"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyInbox]: ...
    @overload
    def page(self, statement: Literal["verify.turns"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyTurns]: ...
    @overload
    def page(self, statement: Literal["verify.outbox"], /, *, after_no: SqlValue, limit: int, bytes_max: int = ...) -> Page[VerifyOutbox]: ...
    @overload
    def page(self, statement: Literal["verify.cursors"], /, *, limit: int, bytes_max: int = ...) -> Page[VerifyCursors]: ...
    @overload
    def page(self, statement: AnyStatement, /, *, limit: int, bytes_max: int = ..., **params: SqlValue) -> Page[Any]: ...
    @overload
    @deprecated("no statement has this name and takes these parameters")
    def page(self, statement: str, /, *, limit: int, bytes_max: int = ..., **params: SqlValue) -> Page[Any]: ...


class Writes(Protocol):
    """How a body runs the statements that change rows."""

    @overload
    def run(self, statement: Literal["archive.insert"], /, *, session_no: SqlValue, state: SqlValue, reason: SqlValue, encoding: SqlValue, now_ms: SqlValue, session_keys: SqlValue) -> int:
        """Run a named statement that changes rows. Return how many it changed."""
    @overload
    def run(self, statement: Literal["archive.insert_whole"], /, *, session_no: SqlValue, reason: SqlValue, encoding: SqlValue, now_ms: SqlValue, rows: SqlValue, bytes: SqlValue, bytes_stored: SqlValue, session_keys: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.put_chunk"], /, *, archive_no: SqlValue, chunk_no: SqlValue, what: SqlValue, rows: SqlValue, sha256: SqlValue, content: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.count_chunk"], /, *, rows: SqlValue, bytes: SqlValue, bytes_stored: SqlValue, archive_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.drop_chunk"], /, *, archive_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.move"], /, *, to_state: SqlValue, archive_no: SqlValue, from_state: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.finish"], /, *, to_state: SqlValue, now_ms: SqlValue, archive_no: SqlValue, from_state: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.add_key"], /, *, session_key: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.empty"], /, *, archive_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.hide_session"], /, *, now_ms: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.hide_sessions"], /, *, now_ms: SqlValue, session_nos: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.unbind_all"], /, *, session_nos: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.delete_entries_of"], /, *, session_nos: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.delete_branches_of"], /, *, session_nos: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.delete_epochs_of"], /, *, session_nos: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.reopen_session"], /, *, ended_at_ms: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.unbind"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.rebind"], /, *, session_key: SqlValue, session_no: SqlValue, agent_id: SqlValue, bound_at_ms: SqlValue, details: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.delete_entries"], /, *, low_no: SqlValue, high_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.delete_branches"], /, *, session_no: SqlValue, limit: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.delete_epochs"], /, *, session_no: SqlValue, limit: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.delete_compactions"], /, *, session_no: SqlValue, limit: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.forget_name"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.put_branch"], /, *, branch_no: SqlValue, session_no: SqlValue, parent_branch_no: SqlValue, fork_no: SqlValue, first_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.put_epoch"], /, *, session_no: SqlValue, epoch: SqlValue, reason: SqlValue, opened_at_ms: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, closed_head_no: SqlValue, closed_at_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["archive.put_entry"], /, *, entry_no: SqlValue, branch_no: SqlValue, parent_no: SqlValue, position: SqlValue, type: SqlValue, role: SqlValue, projection: SqlValue, tokens: SqlValue, tokens_total: SqlValue, usage_tokens: SqlValue, open_calls: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, model_no: SqlValue, thinking_no: SqlValue, body_at: SqlValue, body_bytes: SqlValue, appended_at_ms: SqlValue, entry_id: SqlValue, idempotency_key: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["channels.put_pause"], /, *, channel: SqlValue, refused_since_ms: SqlValue, pauses: SqlValue, now_ms: SqlValue, until_ms: SqlValue, reason: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["channels.end_pause"], /, *, channel: SqlValue, begun_at_ms: SqlValue, until_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["channels.forget"], /, *, channel: SqlValue, now_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["channels.forget_old"], /, *, before_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["compaction.begin"], /, *, compaction_id: SqlValue, session_no: SqlValue, trigger: SqlValue, base_epoch: SqlValue, cut_no: SqlValue, first_kept_no: SqlValue, tokens_before: SqlValue, instance_no: SqlValue, now_ms: SqlValue, deadline_ms: SqlValue, deadline_max_ms: SqlValue, threshold_tokens: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["compaction.record"], /, *, compaction_id: SqlValue, session_no: SqlValue, base_epoch: SqlValue, first_kept_no: SqlValue, tokens_before: SqlValue, tokens_after: SqlValue, now_ms: SqlValue, epoch: SqlValue, entry_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["compaction.finish"], /, *, state: SqlValue, now_ms: SqlValue, reason: SqlValue, compaction_id: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["compaction.renew"], /, *, deadline_ms: SqlValue, compaction_id: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["compaction.settle"], /, *, state: SqlValue, now_ms: SqlValue, late: SqlValue, epoch: SqlValue, entry_no: SqlValue, tokens_after: SqlValue, reason: SqlValue, summary: SqlValue, in_vain: SqlValue, compaction_id: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.drop_dead"], /, *, session_no: SqlValue, limit: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.drop_unsent"], /, *, session_no: SqlValue, limit: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.delete_inbox"], /, *, numbers: SqlValue, sessions: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.delete_outbox"], /, *, numbers: SqlValue, sessions: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.delete_event"], /, *, numbers: SqlValue, sessions: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.delete_turns"], /, *, session_no: SqlValue, limit: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.empty_pieces"], /, *, session_no: SqlValue, limit: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.begin_dropping"], /, *, archive_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["deletion.forget_keys"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["details.set"], /, *, session_no: SqlValue, revision: SqlValue, now_ms: SqlValue, document: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["details.forget"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["details.set_named"], /, *, namespace: SqlValue, name: SqlValue, revision: SqlValue, now_ms: SqlValue, document: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["details.forget_named"], /, *, namespace: SqlValue, name: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["details.forget_namespace"], /, *, namespace: SqlValue, limit: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["draining.mark"], /, *, now_ms: SqlValue, instance_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.found"], /, *, seq: SqlValue, import_file_no: SqlValue, entry_id: SqlValue, line: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.wait_for_another"], /, *, parent_id: SqlValue, import_file_no: SqlValue, entry_id: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.placed"], /, *, seq: SqlValue, reason: SqlValue, import_file_no: SqlValue, byte_offset: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.become_roots"], /, *, parent_seq: SqlValue, import_file_no: SqlValue, byte_offsets: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.repeat"], /, *, import_file_no: SqlValue, seq: SqlValue, reason: SqlValue, entry_id: SqlValue, waits_for: SqlValue, parent_seq: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.not_missing"], /, *, import_file_no: SqlValue, byte_offset: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.set_head"], /, *, head_seq: SqlValue, head_byte: SqlValue, import_file_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.set_cursor"], /, *, cursor_id: SqlValue, import_file_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["early_lines.advance"], /, *, entries: SqlValue, state: SqlValue, note: SqlValue, import_file_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["events.emit"], /, *, kind: SqlValue, audience: SqlValue, session_no: SqlValue, now_ms: SqlValue, text: SqlValue, data: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["events.move_cursor"], /, *, consumer: SqlValue, event_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["events.forget"], /, *, consumer: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["foreign_ids.add"], /, *, namespace: SqlValue, external_id: SqlValue, session_no: SqlValue, now_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["foreign_ids.forget"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.insert"], /, *, path: SqlValue, name: SqlValue, kind: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue, sha256: SqlValue, note: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.advance"], /, *, session_no: SqlValue, bytes: SqlValue, lines: SqlValue, entries: SqlValue, quarantined: SqlValue, sha256: SqlValue, final_newline: SqlValue, inode: SqlValue, now_ms: SqlValue, state: SqlValue, note: SqlValue, import_file_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.mark_changed"], /, *, note: SqlValue, path: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.mark_done"], /, *, note: SqlValue, path: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.note_compared"], /, *, sha256: SqlValue, path: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.move"], /, *, path: SqlValue, name: SqlValue, kind: SqlValue, agent_id: SqlValue, import_file_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.set_aside"], /, *, path: SqlValue, name: SqlValue, note: SqlValue, import_file_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.link"], /, *, path: SqlValue, name: SqlValue, kind: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue, note: SqlValue, first_path: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.keep"], /, *, import_file_no: SqlValue, line: SqlValue, byte_offset: SqlValue, after_seq: SqlValue, reason: SqlValue, severity: SqlValue, content: SqlValue, entry_id: SqlValue, waits_for: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.drop_tail"], /, *, import_file_no: SqlValue, byte_offset: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.date_session"], /, *, created_at_ms: SqlValue, updated_at_ms: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.save_index"], /, *, path: SqlValue, name: SqlValue, agent_id: SqlValue, bytes: SqlValue, lines: SqlValue, entries: SqlValue, sha256: SqlValue, inode: SqlValue, now_ms: SqlValue, note: SqlValue, content: SqlValue, head_byte: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.begin_index"], /, *, path: SqlValue, name: SqlValue, agent_id: SqlValue, inode: SqlValue, now_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.end_index"], /, *, path: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["import_file.drop_piece"], /, *, path: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.accept"], /, *, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, now_ms: SqlValue, details: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.hear"], /, *, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, now_ms: SqlValue, details: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.append_heard"], /, *, entry_no: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.drop_heard"], /, *, reason: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.line_up"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.wait_behind"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.line_up_all"], /) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.replace_text"], /, *, payload: SqlValue, digest: SqlValue, details: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.note_edit"], /, *, version: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.claim"], /, *, turn_no: SqlValue, entry_no: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.finish"], /, *, reason: SqlValue, told_no: SqlValue, inbox_no: SqlValue, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.retry"], /, *, available_at_ms: SqlValue, more_time: SqlValue, reason: SqlValue, inbox_no: SqlValue, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.suspend"], /, *, stops: SqlValue, reason: SqlValue, inbox_no: SqlValue, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.dead_letter"], /, *, reason: SqlValue, told_no: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.supersede"], /, *, superseded_by: SqlValue, told_no: SqlValue, reason: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.resume"], /, *, now_ms: SqlValue, timeout_ms: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.mark_delayed"], /, *, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.requeue"], /, *, now_ms: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.requeue_restored"], /, *, now_ms: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["inbox.drop"], /, *, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["instance.insert"], /, *, host: SqlValue, boot_id: SqlValue, pid: SqlValue, pid_started: SqlValue, program: SqlValue, opened_at_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["instance.hold"], /, *, held_no: SqlValue, database_file: SqlValue, lock_file: SqlValue, instance_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["instance.close"], /, *, closed_at_ms: SqlValue, instance_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.add"], /, *, session_no: SqlValue, turn_no: SqlValue, target: SqlValue, reason: SqlValue, now_ms: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.forward"], /, *, session_no: SqlValue, target: SqlValue, reason: SqlValue, now_ms: SqlValue, event_no: SqlValue, consumer: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.begin_sending"], /, *, instance_no: SqlValue, expires_at_ms: SqlValue, claim_id: SqlValue, outbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.send_longer"], /, *, instance_no: SqlValue, expires_at_ms: SqlValue, outbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.adopt"], /, *, instance_no: SqlValue, outbox_no: SqlValue, attempt: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.set_aside"], /, *, now_ms: SqlValue, reason: SqlValue, outbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.settle"], /, *, state: SqlValue, now_ms: SqlValue, receipt: SqlValue, reason: SqlValue, outbox_no: SqlValue, instance_no: SqlValue, attempt: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.retry"], /, *, reason: SqlValue, available_at_ms: SqlValue, uncounted: SqlValue, outbox_no: SqlValue, instance_no: SqlValue, attempt: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.line_up"], /, *, outbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.line_up_all"], /) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.lose_track"], /, *, now_ms: SqlValue, reason: SqlValue, outbox_no: SqlValue, attempt: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["outbox.decide"], /, *, state: SqlValue, reason: SqlValue, now_ms: SqlValue, outbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["pruning.delete_outbox"], /, *, numbers: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["pruning.delete_inbox"], /, *, numbers: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["pruning.delete_turn"], /, *, numbers: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["pruning.delete_event"], /, *, numbers: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["recovery.close_dead_instance"], /, *, now_ms: SqlValue, instance_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["recovery.close_idle"], /, *, now_ms: SqlValue, instance_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["redact.put_entry"], /, *, payload: SqlValue, body_at: SqlValue, body_bytes: SqlValue, entry_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["redact.name_session"], /, *, name: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["redact.mark_receipts"], /, *, mark: SqlValue, session_no: SqlValue, seq: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["redact.put_bytes"], /, *, line: SqlValue, content: SqlValue, session_no: SqlValue, seq: SqlValue, reason: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["redact.forget_order"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.insert"], /, *, session_id: SqlValue, agent_id: SqlValue, origin: SqlValue, version: SqlValue, now_ms: SqlValue, head_no: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, context_tokens: SqlValue, tokens_fresh: SqlValue, forked_from_no: SqlValue, forked_at_no: SqlValue, forked_epoch: SqlValue, formats: SqlValue, ordered_from_no: SqlValue, open_marks: SqlValue, asked_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.end"], /, *, now_ms: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.end_imported"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.reopen_imported"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.set_formats"], /, *, formats: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.bind"], /, *, session_key: SqlValue, session_no: SqlValue, agent_id: SqlValue, now_ms: SqlValue, details: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.spell"], /, *, session_key: SqlValue, lowered: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.unbind"], /, *, session_key: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.pin"], /, *, now_ms: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["registry.unpin"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["restored.suspend_queued"], /) -> int: ...
    @overload
    def run(self, statement: Literal["restored.mark_interrupted"], /, *, reason: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["restored.lose_replies"], /, *, now_ms: SqlValue, reason: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["restored.skip_events"], /) -> int: ...
    @overload
    def run(self, statement: Literal["restored.end_pauses"], /) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_instance"], /, *, instance_no: SqlValue, host: SqlValue, boot_id: SqlValue, pid: SqlValue, pid_started: SqlValue, program: SqlValue, opened_at_ms: SqlValue, closed_at_ms: SqlValue, unclean: SqlValue, database_file: SqlValue, lock_file: SqlValue, draining_at_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_session"], /, *, session_no: SqlValue, session_id: SqlValue, agent_id: SqlValue, origin: SqlValue, version: SqlValue, created_at_ms: SqlValue, updated_at_ms: SqlValue, ended_at_ms: SqlValue, name: SqlValue, last_seq: SqlValue, epoch: SqlValue, head_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, context_tokens: SqlValue, tokens_fresh: SqlValue, forked_from_no: SqlValue, pinned_at_ms: SqlValue, archived_at_ms: SqlValue, forked_at_no: SqlValue, forked_epoch: SqlValue, heard_at_ms: SqlValue, formats: SqlValue, ordered_from_no: SqlValue, open_marks: SqlValue, asked_no: SqlValue, search_behind: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_binding"], /, *, session_key: SqlValue, session_no: SqlValue, agent_id: SqlValue, bound_at_ms: SqlValue, details: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_foreign_id"], /, *, namespace: SqlValue, external_id: SqlValue, session_no: SqlValue, named_at_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_session_details"], /, *, session_no: SqlValue, revision: SqlValue, changed_at_ms: SqlValue, document: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_named_details"], /, *, details_no: SqlValue, namespace: SqlValue, name: SqlValue, revision: SqlValue, changed_at_ms: SqlValue, document: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_branch"], /, *, branch_no: SqlValue, session_no: SqlValue, parent_branch_no: SqlValue, fork_no: SqlValue, first_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_epoch"], /, *, session_no: SqlValue, epoch: SqlValue, reason: SqlValue, opened_at_ms: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, closed_head_no: SqlValue, closed_at_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_entry"], /, *, entry_no: SqlValue, branch_no: SqlValue, parent_no: SqlValue, position: SqlValue, type: SqlValue, role: SqlValue, projection: SqlValue, tokens: SqlValue, tokens_total: SqlValue, usage_tokens: SqlValue, open_calls: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, model_no: SqlValue, thinking_no: SqlValue, body_at: SqlValue, body_bytes: SqlValue, appended_at_ms: SqlValue, entry_id: SqlValue, idempotency_key: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_compaction"], /, *, compaction_no: SqlValue, compaction_id: SqlValue, session_no: SqlValue, state: SqlValue, trigger: SqlValue, base_epoch: SqlValue, cut_no: SqlValue, first_kept_no: SqlValue, tokens_before: SqlValue, tokens_after: SqlValue, instance_no: SqlValue, begun_at_ms: SqlValue, deadline_ms: SqlValue, deadline_max_ms: SqlValue, finished_at_ms: SqlValue, late: SqlValue, epoch: SqlValue, entry_no: SqlValue, reason: SqlValue, summary: SqlValue, threshold_tokens: SqlValue, in_vain: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_import_file"], /, *, import_file_no: SqlValue, path: SqlValue, name: SqlValue, kind: SqlValue, session_no: SqlValue, agent_id: SqlValue, bytes: SqlValue, lines: SqlValue, entries: SqlValue, quarantined: SqlValue, sha256: SqlValue, final_newline: SqlValue, inode: SqlValue, imported_at_ms: SqlValue, state: SqlValue, note: SqlValue, content: SqlValue, head_seq: SqlValue, head_byte: SqlValue, cursor_id: SqlValue, compared_sha256: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_quarantine"], /, *, import_file_no: SqlValue, byte_offset: SqlValue, line: SqlValue, after_seq: SqlValue, reason: SqlValue, severity: SqlValue, content: SqlValue, entry_id: SqlValue, waits_for: SqlValue, parent_seq: SqlValue, entry_seq: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_lane"], /, *, lane: SqlValue, concurrency: SqlValue, priority: SqlValue, people: SqlValue, paused_at_ms: SqlValue, settings: SqlValue, dropped_at_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_turn"], /, *, turn_no: SqlValue, session_no: SqlValue, lane: SqlValue, kind: SqlValue, state: SqlValue, inbox_no: SqlValue, attempt: SqlValue, operation: SqlValue, instance_no: SqlValue, started_at_ms: SqlValue, renewed_at_ms: SqlValue, expires_at_ms: SqlValue, deadline_ms: SqlValue, finished_at_ms: SqlValue, incomplete: SqlValue, reason: SqlValue, claim_id: SqlValue, progress: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_inbox"], /, *, inbox_no: SqlValue, channel: SqlValue, event_id: SqlValue, session_no: SqlValue, session_key: SqlValue, digest: SqlValue, edited: SqlValue, edit_of: SqlValue, lane: SqlValue, by_person: SqlValue, heard: SqlValue, state: SqlValue, accepted_at_ms: SqlValue, available_at_ms: SqlValue, queued_at_ms: SqlValue, waits: SqlValue, attempts: SqlValue, stops: SqlValue, turn_no: SqlValue, entry_no: SqlValue, superseded_by: SqlValue, told_no: SqlValue, delayed: SqlValue, restored: SqlValue, timeout_ms: SqlValue, lane_before: SqlValue, reason: SqlValue, details: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_outbox"], /, *, outbox_no: SqlValue, session_no: SqlValue, turn_no: SqlValue, target: SqlValue, channel: SqlValue, state: SqlValue, attempts: SqlValue, attempts_before: SqlValue, instance_no: SqlValue, expires_at_ms: SqlValue, created_at_ms: SqlValue, available_at_ms: SqlValue, waits: SqlValue, asked_at_ms: SqlValue, finished_at_ms: SqlValue, event_no: SqlValue, consumer: SqlValue, receipt: SqlValue, reason: SqlValue, claim_id: SqlValue, details: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_channel_pause"], /, *, channel: SqlValue, refused_since_ms: SqlValue, pauses: SqlValue, begun_at_ms: SqlValue, until_ms: SqlValue, reason: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_event"], /, *, event_no: SqlValue, kind: SqlValue, audience: SqlValue, session_no: SqlValue, at_ms: SqlValue, text: SqlValue, data: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_event_cursor"], /, *, consumer: SqlValue, event_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.cap_cursors"], /) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_archive"], /, *, archive_no: SqlValue, session_no: SqlValue, state: SqlValue, reason: SqlValue, encoding: SqlValue, begun_at_ms: SqlValue, finished_at_ms: SqlValue, rows: SqlValue, bytes: SqlValue, bytes_stored: SqlValue, session_keys: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_archive_chunk"], /, *, archive_no: SqlValue, chunk_no: SqlValue, what: SqlValue, rows: SqlValue, sha256: SqlValue, content: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.lose_parent"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_origin"], /, *, forked_from_no: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_aside_entries"], /, *, low_no: SqlValue, high_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_aside_compactions"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_branches"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_epochs"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.restart"], /, *, head_no: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_tokens"], /, *, context_tokens: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_updated"], /, *, updated_at_ms: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.forget_aside"], /, *, low_no: SqlValue, high_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.forget_job"], /, *, compaction_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.put_job_back"], /, *, epoch: SqlValue, cut_no: SqlValue, compaction_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.name_job"], /, *, compaction_id: SqlValue, trigger: SqlValue, instance_no: SqlValue, begun_at_ms: SqlValue, deadline_ms: SqlValue, deadline_max_ms: SqlValue, finished_at_ms: SqlValue, reason: SqlValue, session_no: SqlValue, entry_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_entries"], /, *, low_no: SqlValue, high_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_compactions"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_binding"], /, *, session_key: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_foreign_id"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_details"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_compaction"], /, *, compaction_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.interrupt_turn"], /, *, reason: SqlValue, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_turn_lease"], /, *, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.forget_message"], /, *, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_turn"], /, *, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.move_inbox"], /, *, session_no: SqlValue, number: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.return_inbox"], /, *, session_no: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.move_outbox"], /, *, session_no: SqlValue, number: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_inbox"], /, *, state: SqlValue, turn_no: SqlValue, entry_no: SqlValue, reason: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_end"], /, *, told_no: SqlValue, superseded_by: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_outbox"], /, *, state: SqlValue, turn_no: SqlValue, instance_no: SqlValue, finished_at_ms: SqlValue, reason: SqlValue, outbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_event"], /, *, event_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.set_import_file"], /, *, session_no: SqlValue, lines: SqlValue, entries: SqlValue, quarantined: SqlValue, note: SqlValue, import_file_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.forget_hash"], /, *, note: SqlValue, import_file_no: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_quarantine"], /, *, import_file_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_chunks"], /, *, archive_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.drop_archive"], /, *, archive_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.unarchive"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.make_instance"], /, *, instance_no: SqlValue, host: SqlValue, now_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.make_session"], /, *, session_no: SqlValue, session_id: SqlValue, version: SqlValue, at_ms: SqlValue, formats: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["salvage.make_lane"], /, *, lane: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.begin"], /, *, now_ms: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.merge_by_hand"], /) -> int: ...
    @overload
    def run(self, statement: Literal["search.end"], /) -> int: ...
    @overload
    def run(self, statement: Literal["search.empty"], /) -> int: ...
    @overload
    def run(self, statement: Literal["search.forget_sessions"], /) -> int: ...
    @overload
    def run(self, statement: Literal["search.mark_behind"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.mark_all_behind"], /) -> int: ...
    @overload
    def run(self, statement: Literal["search.mark_whole"], /, *, session_no: SqlValue, indexed_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.put"], /, *, after_no: SqlValue, last_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.advance"], /, *, session_no: SqlValue, after_no: SqlValue, indexed_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.take_out"], /, *, after_no: SqlValue, last_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.retreat"], /, *, after_no: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.forget_session"], /, *, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.merge"], /, *, pages: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.merge_all"], /, *, pages: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["search.ask_purge"], /) -> int: ...
    @overload
    def run(self, statement: Literal["search.end_purge"], /) -> int: ...
    @overload
    def run(self, statement: Literal["stopping.withdraw"], /, *, told_no: SqlValue, inbox_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["transcript.save_state"], /, *, now_ms: SqlValue, last_seq: SqlValue, epoch: SqlValue, head_no: SqlValue, branch_no: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, context_tokens: SqlValue, tokens_fresh: SqlValue, name: SqlValue, heard_at_ms: SqlValue, formats: SqlValue, ordered_from_no: SqlValue, open_marks: SqlValue, asked_no: SqlValue, session_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["transcript.insert_entry"], /, *, entry_no: SqlValue, branch_no: SqlValue, parent_no: SqlValue, position: SqlValue, type: SqlValue, role: SqlValue, projection: SqlValue, tokens: SqlValue, tokens_total: SqlValue, usage_tokens: SqlValue, open_calls: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue, model_no: SqlValue, thinking_no: SqlValue, body_at: SqlValue, body_bytes: SqlValue, appended_at_ms: SqlValue, entry_id: SqlValue, idempotency_key: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["transcript.insert_control_record"], /, *, entry_no: SqlValue, parent_no: SqlValue, type: SqlValue, appended_at_ms: SqlValue, entry_id: SqlValue, idempotency_key: SqlValue, payload: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["transcript.insert_branch"], /, *, session_no: SqlValue, parent_branch_no: SqlValue, fork_no: SqlValue, first_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["transcript.open_epoch"], /, *, session_no: SqlValue, epoch: SqlValue, reason: SqlValue, now_ms: SqlValue, boundary_no: SqlValue, first_kept_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["transcript.close_epoch"], /, *, head_no: SqlValue, now_ms: SqlValue, session_no: SqlValue, epoch: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.set_lane"], /, *, lane: SqlValue, concurrency: SqlValue, priority: SqlValue, people: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.pause_lane"], /, *, at_ms: SqlValue, lane: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.set_lane_settings"], /, *, settings: SqlValue, lane: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.drop_lane"], /, *, now_ms: SqlValue, lane: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.move_messages"], /, *, lane: SqlValue, into: SqlValue, numbers: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.make_room"], /, *, concurrency: SqlValue, lane: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.start"], /, *, session_no: SqlValue, lane: SqlValue, kind: SqlValue, inbox_no: SqlValue, attempt: SqlValue, operation: SqlValue, instance_no: SqlValue, now_ms: SqlValue, expires_at_ms: SqlValue, deadline_ms: SqlValue, claim_id: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.note_progress"], /, *, progress: SqlValue, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.renew"], /, *, now_ms: SqlValue, expires_at_ms: SqlValue, operation: SqlValue, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["turns.finish"], /, *, state: SqlValue, now_ms: SqlValue, incomplete: SqlValue, reason: SqlValue, turn_no: SqlValue) -> int: ...
    @overload
    def run(self, statement: Literal["wal_link.renew"], /, *, current: SqlValue) -> int: ...
    @overload
    def run(self, statement: AnyStatement, /, **params: SqlValue) -> int: ...
    @overload
    @deprecated("no statement has this name and takes these parameters")
    def run(self, statement: str, /, **params: SqlValue) -> int: ...

"""Every limit, with its arithmetic. Reaching one is a typed error, never silence.

`Limits` holds those that a deployment may change when it opens a database. Module constants are
part of the format or of the design, and are not settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

KIB, MIB = 1024, 1024 * 1024

# The packed entry number leaves 32 bits for seq and 31 for session_no. (SQLite integers
# are signed and have 64.)
SEQ_BITS = 32
SEQ_MAX = (1 << SEQ_BITS) - 1

# The last millisecond that an ISO text of four digits can name: the end of the year 9999.
TIME_MS_MAX = 253_402_300_799_999

# One entry. OpenClaw has been seen to write 11 MB rows (inline images). SQLite's own
# limit is 1 GB.
ENTRY_BYTES_MAX = 64 * MIB
# Values in one entry. A list in a list takes three bytes of text and 70 bytes of memory
# once it is decoded, so without this 64 MiB of them would take 1.5 GB. A message has
# hundreds of values, one with a thousand tool calls some ten thousand.
ENTRY_VALUES_MAX = 1_000_000
# Names that become part of an index key.
SESSION_ID_CHARS_MAX = 255
SESSION_KEY_CHARS_MAX = 1024
IDEMPOTENCY_KEY_CHARS_MAX = 512
# Names that another program gives: any text, so what counts is its UTF-8. Both together are
# less than half of a page, so that an index has several in each.
NAMESPACE_BYTES_MAX = 255
EXTERNAL_ID_BYTES_MAX = 1024
# What an application keeps about a session, or under a name of its own. It is listed: a page of
# a list has 64 of these.
KEPT_DETAILS_BYTES_MAX = 64 * KIB
TITLE_BYTES_MAX = 1024
LANE_CHARS_MAX = 255
CLAIM_ID_CHARS_MAX = 255
CONSUMER_CHARS_MAX = 255
# One append call, and a turn's answer (entries and replies together): bounded so that
# its transaction stays within a few tens of milliseconds. The bytes: the largest entry
# must fit, with its envelope and a short reply beside it. That much takes some 0.3 s to
# write. An answer of a megabyte, which is a long one, takes 5 ms.
APPEND_ENTRIES_MAX = 1_000
APPEND_BYTES_MAX = ENTRY_BYTES_MAX + 1 * MIB

# Messages that one `pop` takes off a conversation and returns. They are read in its
# transaction, so together they may have as many bytes as one append.
POP_MESSAGES_MAX = 100
# Entries that `pop` and `undo_turn` look at, from the head back: small columns only, some
# 3 us each. A turn of two thousand tool calls is found. The page of such a walk.
REWIND_SCAN_ROWS = 4_000
REWIND_PAGE_ROWS = 64
# Replies among which `replace_tail` looks for the call of a result, in a read. A result
# comes soon after its call.
TAIL_REPLIES_MAX = 1_000

# Import works in transactions of at most this size: some 5 ms. An entry takes about 50
# us to store.
IMPORT_BATCH_ENTRIES = 100
IMPORT_BATCH_BYTES = 512 * KIB

# Byte offsets that the pieces of one content of an imported index may have: far more than an
# index has bytes.
INDEX_RANGE_BYTES = 1 << 32

# A power cut can leave a file with a hole of some pages at its end, and its zeros are kept as a
# damaged line. A file with more in holes is refused, or it would be stored in its apparent size.
HOLE_BYTES_MAX = 1 * MIB

# A page of a list: sessions, compactions, replies, archives, entries to be printed. A
# row has some hundred bytes, and each page a snapshot of its own: a fraction of a
# millisecond.
PAGE_ROWS = 200
# Where a page of any list ends before it has its rows. With texts of a few KB a page of a
# thousand is whole. Of 11 MB rows it has one, so ten readers at once hold 150 MB, and not
# a hundred times as much. The last row of a page may be the largest entry.
PAGE_BYTES = 4 * MIB
# Sessions that a filter of `db.sessions` may name so that they are read by that name and sorted.
# Of more, the list is walked in the order of its changes: it soon meets two hundred of them.
SESSIONS_SORTED_MAX = 1_000
# A page of history, and the rows that one step of a cut search reads: at first, and at
# most.
PAGE_ENTRIES_MAX = 1_000
# Entries that one read looks at for those of some types. Each is a row of some hundred bytes,
# and of its text at most what is on the same page: 10 to 50 ms.
TYPED_ENTRIES_LOOKED_AT = 10_000
CUT_SCAN_ROWS_FIRST = 32
CUT_SCAN_ROWS = 256
# A compaction keeps at most so many entries beside what waits, however little they weigh. So
# the search for a cut ends also among replies that failed and say nothing.
CUT_KEPT_ENTRIES_MAX = 10_000
# A cut is chosen in a read, and chosen again if the context has changed by the write. A
# change is a reset, another compaction, or a result whose call may lie before the cut. Two in
# a row are chance. Ten are a session that is reset all the time, and its caller is told so.
CUT_CHOICES_MAX = 10
CUT_RETRY_AFTER_MS = 1_000
# Results and replies that the write looks at, a lookup each, to find that the calls of those
# results lie behind the cut. A working turn's calls are the newest.
CUT_CHECK_ROWS = 32

# The last messages of a context are read back from its end, so many rows at a time. They go
# on to the calls of their results, but no further than this: a result that has no call would
# otherwise be searched for in all of the context.
CONTEXT_BACK_ROWS = 64
CONTEXT_CALLS_BACK_MAX = 1_000

# After a switch of branches, an undo or a fork, a provider's count is looked for among so
# many replies, two lookups each. Without one the context's tokens are an estimate.
USAGE_REPLIES_MAX = 100

# A summary that is no shorter than the text it replaces is rejected. A person who
# compacts a short conversation by hand may have a summary of up to this many tokens. An
# automatic trigger never may (that would loop).
MANUAL_SUMMARY_TOKENS_FLOOR = 512
# A compaction that saves less than a tenth of the context is in vain. The next one would be
# due after a message or two.
SAVED_SHARE_MIN = 0.1
# Three compactions in vain in a row begin a cool-down (openclaw#119824: a paid summary on
# every message).
COOL_DOWN_AFTER = 3
COOL_DOWN_MS = 10 * 60 * 1000
# OpenClaw's default is 180 s. A holder may renew to at most ten times the time it asked
# for.
COMPACTION_TIMEOUT_S = 180.0
COMPACTION_RENEWAL_FACTOR = 10
# pi's and OpenClaw's default.
KEEP_RECENT_TOKENS = 20_000

# What an adapter keeps with a message: an address and some ids. Each state of the message
# writes it again, and each of its replies has a copy.
DETAILS_BYTES_MAX = 16 * KIB

# Messages of one session in one lane, and in one lane, that may wait. A person sends a handful
# before they are answered. A lane of 10,000 at a few seconds a turn is hours behind,
# and its senders had better know.
SESSION_WAITING_MAX = 100
LANE_WAITING_MAX = 10_000
# Messages of one session that nobody addressed to the agent and that wait to be appended, and
# their bytes: some milliseconds of the transaction that appends them. Beyond that `accept`
# appends them itself, unless a turn runs.
HEARD_WAITING_MAX = 100
HEARD_BYTES_MAX = 4 * MIB
# `Accepted.ahead` counts the messages of a session that a new one waits for, up to this.
AHEAD_MAX = 1_000
# A sender that is refused is told how long the queue needs for one message: what its last
# turns took. At least this, because a turn may take no time.
PACE_TURNS = 20
RETRY_AFTER_MS_MIN = 100
# Replies that may wait for one channel. At a few KB each that is some 50 MB, and a channel
# that takes one a second is three hours behind. Above this `accept` refuses the messages of
# this channel with SessionBusy, and of no other. Those that a lane had accepted before are
# answered, and cron jobs and events may have replies for the channel, too. So it takes up to
# twice as many. Replies beyond that are stored as `failed`. (A turn adds all or none of its
# replies to a channel: a thousand more at most.)
OUTBOX_WAITING_MAX = 10_000
OUTBOX_CHANNEL_MAX = 2 * OUTBOX_WAITING_MAX
# What a turn notes for the next attempt (`turn.progress`) lies on the turn's row, which each
# renewal of its lease rewrites: a page, so that a row needs two at most.
TURN_PROGRESS_BYTES_MAX = 4_096
# A message whose turn failed is tried this often, after pauses of 1, 4, 16 and 60 s. A
# one-minute outage of the model delays the answer. A longer one dead-letters the
# message and notifies people.
INBOX_ATTEMPTS_MAX = 5
INBOX_PAUSES_S = (1.0, 4.0, 16.0, 60.0)
# A turn that was interrupted (most likely its process died) or cut off counts more. A
# message that kills its process, or hangs for all of its time while its session waits,
# is not tried for long. One that an orderly stop interrupted does not count.
INTERRUPTED_ATTEMPTS_MAX = 3
# A resume that made no progress for its time is cut off, so that it does not hold up a
# person who writes in between. Its next attempt gets this many times as long: with 60 s
# at first, a model's call of two minutes ends at the second resume.
RESUME_TIME_GROWTH = 2
# A reply that the channel did not take is tried for a day, after pauses that double to
# a minute. The day begins when the reply was created or an operator asked for it again:
# an outage of hours should need nobody's decision. It is tried eight times (two minutes)
# however old it is, so that a gateway that was off for the weekend does not give up at
# the first refusal.
REPLY_RETRY_MS_MAX = 24 * 60 * 60 * 1000
REPLY_ATTEMPTS_MIN = 8
REPLY_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
# A channel that says when to try again is not called before. At most so long: a gateway
# whose channel said a week is back a day after the channel is. At least so long, doubled at
# each pause in a row up to a minute, because some channels say 0 (all of a day: 1,500 calls).
# A channel that was not called for so long after its pause begins a new row of them.
CHANNEL_PAUSE_MS_MAX = 24 * 60 * 60 * 1000
CHANNEL_PAUSE_MS_MIN = 100
CHANNEL_PAUSE_GROWTH = 2
CHANNEL_QUIET_MS = 10 * 60 * 1000
RETRY_PAUSE_MS = 1_000
RETRY_PAUSE_MS_MAX = 60_000
RetryPauses = Annotated[
    tuple[Annotated[float, Field(ge=0, le=RETRY_PAUSE_MS_MAX / 1000)], ...], Field(min_length=1)
]
"""The pauses between attempts in seconds, one or more. The last one is repeated."""
# Resumes older than this do not count against the budget of resumes any more. The
# budget is there against the storm after a start, which is over in minutes. A process
# that lives for weeks meets interruptions one by one, and must not run out of it.
RESUME_BUDGET_S = 60 * 60.0
# A message that has been available for longer than this is not held back any more by
# lanes of higher priority. In a burst those come first: a minute is ten times what a
# person waits for an answer. Without this it would be held back for good whenever one
# of them is always busy, or nobody runs it.
PRIORITY_WAIT_MS_MAX = 60_000
# A lease outlasts the timeout of its work by this, so that the end of a turn that was
# cut off can still be written.
LEASE_GRACE_MS = 2_000

# A chunk of an archive: the rows that one transaction stores, and that are decompressed
# at once.
ARCHIVE_CHUNK_ROWS = 200
ARCHIVE_CHUNK_BYTES = 1 * MIB
# Its text: a payload whose quotes and backslashes are escaped once more, and 4 KiB a
# row. Those are the columns that repeat parts of the payload (type, role, ids), 17
# numbers, and an idempotency key that is escaped. A single row may be larger than a
# chunk: its payload may be the largest entry's.
ARCHIVE_PAGE_BYTES_MAX = 4 * ARCHIVE_CHUNK_BYTES + 4 * KIB * ARCHIVE_CHUNK_ROWS
ARCHIVE_ROW_BYTES_MAX = ARCHIVE_CHUNK_BYTES + 2 * ENTRY_BYTES_MAX
# Keys that point at one session when it is archived. They are one chunk, and are
# restored in one transaction. A conversation has a handful.
ARCHIVE_BINDINGS_MAX = 10_000
# The window that zstd may look back over in a chunk. At the level that we write with it
# is 2 MiB; a frame that claims 128 MiB would make the reader allocate that much.
ARCHIVE_WINDOW_BYTES_MAX = 8 * MIB
# Rows and bytes that one step of background work deletes or restores. Where ids are
# random (imported ones often are), each row may touch an index page of its own, and the
# time of that depends on the disk. So the rows are halved when a step held the write
# lock for longer than STEP_MS, and doubled when it held it for less than half of that,
# between the two bounds. At the lower one syncing is all the cost.
STEP_ROWS = 400
STEP_ROWS_FIRST = 100
STEP_ROWS_MIN = 100
STEP_BYTES = 512 * KIB
STEP_MS = 5.0
# Pages of the search index that one step merges: 4 KiB each, so a step takes a few milliseconds.
SEARCH_MERGE_PAGES = 32
# Sessions whose newest entries one step puts into the index.
SEARCH_SESSIONS_AT_ONCE = 50
# Steps that a gateway's upkeep does between two looks at its queue: 2 s beside callers.
SEARCH_STEPS_OF_UPKEEP = 5
# Steps that a redaction or a deletion merges the index for, to get the words out of its older
# parts. 100 of them rewrite 13 MB. Upkeep does the rest.
SEARCH_PURGE_STEPS = 100
# Hits of one page, and matches that are examined for it. A filter that leaves few of them (an
# agent, a role) ends a page early, and the next one continues there. A part of a text that is
# shown has at most its 100,000 characters, so those that are read at once have a few megabytes.
SEARCH_HITS_MAX = 200
SEARCH_LOOK_AT_ONCE = 50
SEARCH_LOOK_MAX = 5_000
# Entries that are not in the index yet, and are read for a search: newest ones first. About
# 0.2 s where each of them has the word.
SEARCH_TAIL_SESSIONS = 200
SEARCH_TAIL_ENTRIES = 1_000
SEARCH_TAIL_CHARS = MIB
# Archives that a search in archives unpacks for one page.
SEARCH_ARCHIVES_AT_ONCE = 20
# Words of one search.
SEARCH_WORDS_MAX = 64
SEARCH_WORDS_CHARS_MAX = 4_000
# Backups and vacuums of one process that run or wait. They go one after another, at
# some 100 MiB a second and slower beside callers, so the last of 16 backups of a
# gigabyte waits for minutes. A caller that asks for more asks in a loop.
MAINTENANCE_TASKS_MAX = 16

# A deletion begins anew so often when a message, a reply or a change of the session comes
# between two of its steps. Ten in a row are a conversation that does not stop: the report says
# so, and the call can be repeated.
DELETE_TRIES_MAX = 20

# Threads of one event loop that encode, read files or wait for a backup. As many as anyio's
# own limit, which is the application's. The backups that wait leave room for the others.
THREADS_MAX = 40

# Calls of a synchronous handler or sender that were given up and go on, of one loop: nothing can
# interrupt a thread. Each costs a stack, and one more than these is a program that hangs.
LEFT_BEHIND_MAX = 100


# `sessiondb query`. A value: twice the largest entry, so that hex() of one still fits.
# Memory of SQLite: for a sort or a subquery of a person's own. Output: bytes that wait in
# an unlinked file for a pager. Rows of a table: all are in memory.
QUERY_VALUE_BYTES_MAX = 2 * ENTRY_BYTES_MAX
QUERY_MEMORY_BYTES_MAX = 1024 * MIB
QUERY_OUTPUT_BYTES_MAX = 16 * 1024 * MIB
QUERY_TABLE_ROWS_MAX = 100_000
# `SessionDB.query`, in a gateway's process, where nothing bounds SQLite's memory. An answer: the
# largest entry fits. A value that an answer has no room for is not made, and columns are few, so
# one row is bounded, too. The least that a value may have: the schema's own texts fit.
QUERY_ANSWER_BYTES = 4 * MIB
QUERY_ANSWER_BYTES_MAX = APPEND_BYTES_MAX
QUERY_VALUE_BYTES_MIN = 1 * MIB
QUERY_COLUMNS_MAX = 100
QUERY_ROWS = 1_000
QUERY_ROWS_MAX = 100_000
# Its time, in which the WAL is not reset: at 1,000 appends a second some 10 MB each second.
QUERY_ANSWER_S = 5.0
QUERY_ANSWER_S_MAX = 60.0
# Statements that take long to compile, and patterns of many wildcards, are not interrupted.
QUERY_SQL_BYTES_MAX = 1 * MIB
QUERY_PATTERN_BYTES_MAX = 1 * KIB
# Threads of their own, so queries take none from the gateway's reads. Queries that may wait.
QUERIES_AT_ONCE = 2
QUERIES_WAITING_MAX = 16
# How long a query may take, unless its caller says otherwise.
QUERY_TIMEOUT_S = 60.0
# A statement is interrupted between two steps. A single function can take longer
# (instr() of two large values is quadratic). This long after the time limit the command
# ends all the same.
QUERY_STOP_S = 5.0

DURATION_S_MAX = 100 * 365 * 86_400


def duration_ms(seconds: float) -> int:
    """Return a duration in milliseconds. More than a century is a century, and ends no wait.

    In milliseconds, 1e306 seconds are no number any more.
    """
    return round(min(seconds, DURATION_S_MAX) * 1000)


def retry_pause_ms(attempt: int, pauses_s: Sequence[float]) -> int:
    """Return the pause after failed attempt number `attempt`, from 1. The last one repeats."""
    return round(pauses_s[min(attempt, len(pauses_s)) - 1] * 1000)


def pauses_over(now_ms: int) -> tuple[tuple[int, int], ...]:
    """Return the ranges of times that nobody waits for: no pause, and pauses that are over.

    A pause is a minute at most. One that seems to end later is of a clock that has been set
    back since. So it ends when that is, or at the latest a minute after the clock was set.
    """
    return ((0, 0), (1, now_ms), (now_ms + RETRY_PAUSE_MS_MAX + 1, 2**62))


class Limits(BaseModel):
    """What one open database may use. All values are bounds, none is a reservation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_items_max: int = Field(default=4_096, ge=1)
    """Write requests that may wait. At 10k/s this is under half a second of work."""
    queue_bytes_max: int = Field(default=64 * MIB, ge=1)
    """Payload bytes that may wait. One request is always admitted to an empty queue."""
    batch_items_max: int = Field(default=256, ge=1)
    """Requests that share one COMMIT."""
    batch_bytes_max: int = Field(default=4 * MIB, ge=1)
    batch_ms_max: float = Field(default=25.0, gt=0)
    """A batch takes no further request after this, so its first caller never waits much longer."""
    write_timeout_s: float = Field(default=30.0, gt=0)
    """A write that has not begun by then fails with NotExecuted."""
    busy_timeout_s: float = Field(default=5.0, gt=0)
    """How long the writer retries while another process holds the write lock. Then StoreBusy."""
    readers: int = Field(default=3, ge=1, le=64)
    """Reader threads. They buy isolation from a slow read, not throughput.

    (Building rows holds the GIL.)"""
    read_queue_max: int = Field(default=1_024, ge=1)
    read_age_s_max: float = Field(default=10.0, gt=0)
    """A snapshot older than this is interrupted, because it pins the WAL."""
    wal_bytes_max: int = Field(default=16 * MIB, ge=64 * KIB)
    """Above this the writer pauses to reset the WAL."""
    wal_reset_ms_max: float = Field(default=500.0, gt=0)
    """The longest pause. Measured need: twice the longest snapshot."""
    wal_fold_s: float = Field(default=1.0, ge=0)
    """After this long without a commit the WAL is folded into the file."""
    slow_ms: float | None = Field(default=None, ge=0)
    """A write or a read that waits and runs for longer is logged.

    The logger `sessiondb.slow` gets a line for each such transaction and read: the operations'
    names and times, and no text of a message. None: nothing is logged."""
    wal_retry_ms: float = Field(default=1_000.0, ge=0)
    """After a reset or a fold that readers blocked, the next attempt waits this long."""

-- sessiondb: the whole schema, for a person to read.
--
-- A new database is made from this file. Numbered migrations bring older files to
-- exactly this state. SQLite 3.40 can read everything here (`sqlite3 -readonly
-- gateway.db`): JSON is plain text, not JSONB, and no function is newer than 3.38.
-- Times are integer milliseconds since 1970 UTC. Views show them as ISO text. Never
-- order by a time: `seq` and `position` order, and the clock only labels.
--
-- Words. A *session* is one transcript. A *session key* is the address of a
-- conversation. A *binding* says which session a key points at now. An *entry* is one
-- immutable item of a transcript. The *head* is the entry that the next append follows.
-- An *epoch* is one generation of the context: compaction, reset, branch switch and
-- undo each begin a new one. A *boundary* is the compaction or reset entry at which the
-- context begins.

PRAGMA application_id = 0x53455344;   -- "SESD"
PRAGMA user_version = 4;

-- One row each time that a process opened the file for writing. The process lives while it
-- holds a lock on byte `instance_no` of the file beside the database whose name ends in
-- "-alive". host, boot_id, pid and pid_started are for a person to read.
CREATE TABLE instance (
  instance_no    INTEGER PRIMARY KEY,
  host           TEXT    NOT NULL,
  boot_id        TEXT    NOT NULL,
  pid            INTEGER NOT NULL,
  pid_started    INTEGER NOT NULL,              -- kernel ticks since boot: shows a recycled pid
  program        TEXT    NOT NULL,
  opened_at_ms   INTEGER NOT NULL,
  closed_at_ms   INTEGER,                       -- NULL: running, or died and not yet recovered
  unclean        INTEGER NOT NULL DEFAULT 0,    -- 1: it died without closing
  database_file  TEXT,                          -- device and inode of this database, and ...
  lock_file      TEXT,                          -- ... of the file with the lock. NULL: no lock
  draining_at_ms INTEGER                        -- set: it claims no more turns, and ends
) STRICT;
CREATE INDEX instance_open ON instance (instance_no) WHERE closed_at_ms IS NULL;
CREATE INDEX instance_unclean ON instance (opened_at_ms) WHERE unclean = 1;
CREATE INDEX instance_by_opening ON instance (opened_at_ms);

-- One row: the name of this file's state, which tells whether a -wal belongs to it. The
-- first commit of each WAL renews it (`sqlite/wal_link.py`), and so does a backup.
CREATE TABLE wal_link (
  link_no    INTEGER PRIMARY KEY CONSTRAINT wal_link_once CHECK (link_no = 1),
  previous   TEXT    NOT NULL,                  -- what the WAL with this row continues
  current    TEXT    NOT NULL                   -- 32 hexadecimal digits
) STRICT;
INSERT INTO wal_link (link_no, previous, current)
VALUES (1, '00000000000000000000000000000000', lower(hex(randomblob(16))));

-- A transcript and where it stands. The pointers (head, boundary, first kept, model,
-- thinking) are all that one append needs, so it reads no row but this one and the
-- head.
CREATE TABLE session (
  session_no       INTEGER PRIMARY KEY
                   CONSTRAINT session_no_fits_entry_no CHECK (session_no BETWEEN 1 AND 2147483647),
  session_id       TEXT    NOT NULL CONSTRAINT session_id_unique UNIQUE,
  agent_id         TEXT,                        -- owner by the key's grammar. NULL for a
                                                -- transcript without a key
  origin           TEXT    NOT NULL
                   CONSTRAINT session_origin_known CHECK (origin IN ('native', 'import', 'fork')),
  version          INTEGER NOT NULL,            -- of the transcript format (its header), 1 to 4,
                                                -- not of this schema
  created_at_ms    INTEGER NOT NULL,
  updated_at_ms    INTEGER NOT NULL,
  ended_at_ms      INTEGER,                     -- set: accepts no append. An archived
                                                -- transcript is ended, too
  name             TEXT,                        -- last session_info entry
  last_seq         INTEGER NOT NULL DEFAULT 0,  -- the last seq given out. The header has 0
  epoch            INTEGER NOT NULL DEFAULT 0,
  head_no          INTEGER,                     -- NULL: before the first entry
  branch_no        INTEGER,                     -- the branch whose tip is the head.
                                                -- NULL: the next append opens one
  boundary_no      INTEGER,                     -- the context begins here. NULL: at the root
  first_kept_no    INTEGER,                     -- first entry before the boundary that stays.
                                                -- NULL: none
  context_tokens   INTEGER NOT NULL DEFAULT 0,
  tokens_fresh     INTEGER NOT NULL DEFAULT 0,  -- 1: rests on the provider's own count since
                                                -- the boundary. 0: estimate
  forked_from_no   INTEGER REFERENCES session (session_no),
  pinned_at_ms     INTEGER,                     -- set: retention keeps it
  archived_at_ms   INTEGER,                     -- set: its entries are in `archive`, and this
                                                -- row stays as its tombstone
  forked_at_no     INTEGER,                     -- of a fork: the head that it began with ...
  forked_epoch     INTEGER,                     -- ... and the epoch of its origin. What was undone
                                                -- there later is not undone here
  heard_at_ms      INTEGER,                     -- when a person last wrote. NULL: never
  formats          INTEGER NOT NULL DEFAULT 15  -- the message formats that its items may have, a
                   CONSTRAINT session_formats_known CHECK (formats BETWEEN 1 AND 15),
                                                -- bit for each: 1 pi, 2 openai-chat,
                                                -- 4 openai-responses, 8 anthropic
  ordered_from_no  INTEGER,                     -- a context that begins at this entry or later
                                                -- has results behind their calls. NULL: not known
  open_marks       TEXT,                        -- marks of the calls that are open at the head, or
                                                -- "unknown". NULL: the head's open_calls says it
  asked_no         INTEGER,                     -- the first entry behind the last answer that may
                                                -- wait for one. 0: none. Below 0: likewise, unless
                                                -- more of the last reply follows. NULL: not known
  search_behind    INTEGER NOT NULL DEFAULT 1   -- 0: all its entries are in the search index.
                                                -- 1: some may not be there
) STRICT;
CREATE INDEX session_by_update ON session (updated_at_ms);
CREATE INDEX session_by_fork ON session (forked_from_no) WHERE forked_from_no IS NOT NULL;
CREATE INDEX session_by_agent ON session (agent_id) WHERE agent_id IS NOT NULL;
-- A search finds in it what it has to read itself. An append changes it once, and then no more
-- until the index has what was appended.
CREATE INDEX session_search_behind ON session (search_behind)
  WHERE search_behind = 1 AND archived_at_ms IS NULL;

-- The names that other programs give to their sessions (`db.session_for`). They are compared
-- byte by byte. A session has one at most, and keeps it in an archive. A session that is
-- deleted without an archive loses it.
CREATE TABLE foreign_id (
  namespace     TEXT    NOT NULL,               -- whose names these are: a program, its user
  external_id   TEXT    NOT NULL,
  session_no    INTEGER NOT NULL REFERENCES session (session_no),
  named_at_ms   INTEGER NOT NULL,
  PRIMARY KEY (namespace, external_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX foreign_id_of_session ON foreign_id (session_no);

-- What an application keeps about a session (`session.set_details`): a JSON object. It stays when
-- the session is archived, and goes when it is deleted.
CREATE TABLE session_details (
  session_no     INTEGER PRIMARY KEY REFERENCES session (session_no),
  revision       INTEGER NOT NULL,              -- 1 at first, and one more with each change
  changed_at_ms  INTEGER NOT NULL,
  document       TEXT    NOT NULL
                 CONSTRAINT session_details_json CHECK (json_valid(document))
) STRICT;

-- What an application keeps under a name of its own (`db.set_details`), of no session: its own
-- state, or that of a user. A JSON object. It goes with `db.delete(namespace=...)`.
CREATE TABLE named_details (
  details_no     INTEGER PRIMARY KEY,
  namespace      TEXT    NOT NULL,               -- whose names these are: a program, its user
  name           TEXT    NOT NULL,
  revision       INTEGER NOT NULL,              -- 1 at first, and one more with each change
  changed_at_ms  INTEGER NOT NULL,
  document       TEXT    NOT NULL
                 CONSTRAINT named_details_json CHECK (json_valid(document)),
  CONSTRAINT named_details_once UNIQUE (namespace, name)
) STRICT;

-- Which session a conversation's key points at now. Rebinding keeps the old session.
CREATE TABLE binding (
  session_key   TEXT    NOT NULL PRIMARY KEY,
  session_no    INTEGER NOT NULL REFERENCES session (session_no),
  agent_id      TEXT    NOT NULL,
  bound_at_ms   INTEGER NOT NULL,
  details       TEXT                            -- the imported index entry, verbatim
                CONSTRAINT binding_details_json CHECK (details IS NULL OR json_valid(details))
) STRICT, WITHOUT ROWID;
CREATE INDEX binding_by_session ON binding (session_no);

-- A branch is an unbroken run of entries, each the parent of the next. A path from an
-- entry to its root is a short list of branches, each up to the entry at which the next
-- one left it. A fork is a branch whose parent lies in another session: no entry is
-- ever copied.
CREATE TABLE branch (
  branch_no          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given out again: archives keep it
  session_no         INTEGER NOT NULL REFERENCES session (session_no),
  parent_branch_no   INTEGER REFERENCES branch (branch_no),
  fork_no            INTEGER,                   -- last entry shared with the parent branch.
                                                -- NULL: starts at the root
  first_no           INTEGER NOT NULL,          -- first entry of its own
  CONSTRAINT branch_parent_and_fork_together CHECK ((parent_branch_no IS NULL) = (fork_no IS NULL))
) STRICT;
CREATE INDEX branch_by_session ON branch (session_no);
CREATE INDEX branch_by_parent ON branch (parent_branch_no) WHERE parent_branch_no IS NOT NULL;

-- The transcript. entry_no = session_no * 2^32 + seq: clustered by session, in order of
-- arrival. Along any path it only grows (a fork's session number is greater than its
-- ancestors'), so it also orders a path. Rows are never changed or renumbered, but for
-- one: a person may have a row's payload redacted. Small
-- columns come first and the payload last, so a scan that searches for a cut or counts
-- tokens never reads an overflow page.
CREATE TABLE entry (
  entry_no         INTEGER PRIMARY KEY,
  branch_no        INTEGER,                     -- NULL: outside the tree (header, leaf and
                                                -- other control records)
  parent_no        INTEGER,                     -- may lie in another session (fork). NULL: a root
  position         INTEGER NOT NULL,            -- 1, 2, 3, ... along the path. 0: outside the tree
  type             TEXT    NOT NULL,            -- message, compaction, custom, ...
  role             TEXT,                        -- of a message: user, assistant, toolResult, ...
  projection       INTEGER NOT NULL             -- how it reaches the model: 0 not, 1 its body,
                   CONSTRAINT entry_projection_known CHECK (projection BETWEEN 0 AND 4),
                                                -- 2 its body, but its author excludes it,
                                                -- 3 made from the payload, 4 its body, without a
                                                -- provider's checkpoint if a compaction keeps it
  tokens           INTEGER NOT NULL DEFAULT 0,  -- estimate of what it adds to a context
  tokens_total     INTEGER NOT NULL DEFAULT 0,  -- the same, summed along the path, itself included
  usage_tokens     INTEGER,                     -- the provider's count of the whole context.
                                                -- NULL: none, or of another context
  open_calls       INTEGER NOT NULL DEFAULT 0,  -- tool calls that have no result after this entry
  boundary_no      INTEGER,                     -- the boundary in force when it was appended
  first_kept_no    INTEGER,                     -- of a compaction or reset entry
  model_no         INTEGER,                     -- last entry on the path that set the model ...
  thinking_no      INTEGER,                     -- ... and the thinking level
  body_at          INTEGER NOT NULL DEFAULT 0,  -- byte span of the message inside the payload
  body_bytes       INTEGER NOT NULL DEFAULT 0,
  appended_at_ms   INTEGER NOT NULL,
  entry_id         TEXT    NOT NULL,            -- the transcript's own id
  idempotency_key  TEXT,
  payload          TEXT    NOT NULL             -- the exact text that was appended or imported
) STRICT;
CREATE INDEX entry_by_id ON entry (entry_no >> 32, entry_id);
CREATE UNIQUE INDEX entry_by_idempotency_key ON entry (entry_no >> 32, idempotency_key)
WHERE idempotency_key IS NOT NULL;
-- A compaction asks for the results behind an entry, however many messages lie behind it.
CREATE INDEX entry_results ON entry (branch_no, entry_no) WHERE role = 'toolResult';
-- What the replies of the last hour cost, without a look at any other entry.
CREATE INDEX entry_replies ON entry (appended_at_ms) WHERE role = 'assistant';
-- A compaction carries on what the system messages say. They are few, among many entries.
CREATE INDEX entry_instructions ON entry (branch_no, entry_no)
WHERE role = 'system' OR type = 'context_edit';
-- It asks for a user's message that waits. One of the inbox is found by its row there.
CREATE INDEX entry_asked ON entry (branch_no, entry_no)
WHERE role = 'user' AND (idempotency_key IS NULL OR idempotency_key NOT GLOB 'inbox:[0-9]*');

-- Every generation of every context, for ever. closed_head_no and the pointers rebuild
-- the context that the model was sent at the end of that epoch.
CREATE TABLE epoch (
  session_no       INTEGER NOT NULL REFERENCES session (session_no),
  epoch            INTEGER NOT NULL,
  reason           TEXT    NOT NULL CONSTRAINT epoch_reason_known
                   CHECK (reason IN
                   ('start', 'compaction', 'reset', 'branch', 'undo', 'fork', 'edit')),
  opened_at_ms     INTEGER NOT NULL,
  boundary_no      INTEGER,
  first_kept_no    INTEGER,
  closed_head_no   INTEGER,                     -- the head when the next epoch began. NULL in
                                                -- the current one
  closed_at_ms     INTEGER,
  PRIMARY KEY (session_no, epoch)
) STRICT, WITHOUT ROWID;

-- A compaction is a job with a life cycle. Between begin and commit it is this row, not
-- a lock.
CREATE TABLE compaction (
  compaction_no    INTEGER PRIMARY KEY,
  compaction_id    TEXT    NOT NULL CONSTRAINT compaction_id_unique UNIQUE,
  session_no       INTEGER NOT NULL REFERENCES session (session_no),
  state            TEXT    NOT NULL CONSTRAINT compaction_state_known CHECK (state IN
                   ('running', 'committed', 'superseded', 'rejected', 'failed', 'cancelled',
                    'expired', 'abandoned')),
  trigger          TEXT    NOT NULL,            -- manual, threshold, overflow, import, ...
  base_epoch       INTEGER NOT NULL,
  cut_no           INTEGER,                     -- last entry that the summary covers.
                                                -- NULL: keeps everything
  first_kept_no    INTEGER,                     -- at begin. NULL: no entry after the cut yet
  tokens_before    INTEGER NOT NULL,
  tokens_after     INTEGER,
  instance_no      INTEGER REFERENCES instance (instance_no),   -- the process that runs it
  begun_at_ms      INTEGER NOT NULL,
  deadline_ms      INTEGER NOT NULL,
  deadline_max_ms  INTEGER NOT NULL,            -- renewals cannot pass this
  finished_at_ms   INTEGER,
  late             INTEGER NOT NULL DEFAULT 0,  -- 1: committed after it was given up or overtaken
  epoch            INTEGER,                     -- the epoch that it began
  entry_no         INTEGER,                     -- its summary entry
  reason           TEXT,                        -- why it ended as it did
  summary          TEXT,                        -- kept here only when it did not become an entry
  threshold_tokens INTEGER,                     -- its caller compacts a context that is larger
  in_vain          INTEGER NOT NULL DEFAULT 0,  -- 1: it made the context hardly smaller, or not
                                                -- enough for its caller
  CONSTRAINT compaction_committed_is_complete
  CHECK ((state = 'committed') = (epoch IS NOT NULL AND entry_no IS NOT NULL)),
  CONSTRAINT compaction_finished_when_not_running
  CHECK ((state = 'running') = (finished_at_ms IS NULL))
) STRICT;
CREATE UNIQUE INDEX compaction_one_running ON compaction (session_no) WHERE state = 'running';
CREATE INDEX compaction_by_session ON compaction (session_no);
-- What is stuck is looked for among the jobs that were lately in vain, not among all.
CREATE INDEX compaction_in_vain ON compaction (finished_at_ms) WHERE in_vain = 1;

-- The imported files: one receipt per file, and how far it was read.
CREATE TABLE import_file (
  import_file_no    INTEGER PRIMARY KEY,
  path              TEXT    NOT NULL CONSTRAINT import_file_path_unique UNIQUE,   -- absolute
  name              TEXT    NOT NULL,           -- relative to what was imported. An export
                                                -- writes the file there again
  kind              TEXT    NOT NULL CONSTRAINT import_file_kind_known
                    CHECK (kind IN
                    ('live', 'reset', 'deleted', 'bak', 'checkpoint', 'corrupt', 'index', 'pi')),
  session_no        INTEGER REFERENCES session (session_no),   -- NULL: an index, or no entry so far
  agent_id          TEXT,
  bytes             INTEGER NOT NULL DEFAULT 0, -- read so far, after decompression
  lines             INTEGER NOT NULL DEFAULT 0,
  entries           INTEGER NOT NULL DEFAULT 0,
  quarantined       INTEGER NOT NULL DEFAULT 0,
  sha256            TEXT,                       -- of those bytes
  final_newline     INTEGER NOT NULL DEFAULT 1,
  inode             TEXT,                       -- device:inode, to see two names of one file
  imported_at_ms    INTEGER NOT NULL,
  state             TEXT    NOT NULL
                    CONSTRAINT import_file_state_known
                    CHECK (state IN ('reading', 'done', 'changed')),
  note              TEXT,
  content           BLOB,                       -- a short index file. NULL: a long one, which is in
                                                -- pieces, or a transcript, whose lines are entries
  head_seq          INTEGER,                    -- while early lines are placed: the entry that is
                                                -- the head afterwards. 0: the root
  head_byte         INTEGER,                    -- while early lines wait: the one that is the head
                                                -- once it is placed. NULL: none of them. Of a long
                                                -- index: where the pieces that count begin
  cursor_id         TEXT,                       -- while early lines wait: the id that the next line
                                                -- may name, and mean the head
  compared_sha256   TEXT                        -- the sha256 at which export and context were last
                                                -- found equal to the file. NULL: at none
) STRICT;
CREATE INDEX import_file_by_session ON import_file (session_no) WHERE session_no IS NOT NULL;
CREATE INDEX import_file_by_inode ON import_file (inode) WHERE inode IS NOT NULL;
CREATE INDEX import_file_reading ON import_file (imported_at_ms) WHERE state = 'reading';

-- Lines that are not entries (torn, not JSON, blank), kept as bytes. So nothing is
-- lost, and an export is byte for byte the file. after_seq is the entry that precedes
-- the line in its file. Content includes the line's own end, if it has one. A long line
-- is kept in several rows, ordered by byte_offset.
--
-- An *early* line is an entry that stands before its parent in the file. It waits here, and
-- becomes an entry when its parent is one, or at the end of the file. Its row stays: an
-- export writes the entry here, and not where its number would put it.
--
-- A long index has its bytes here, in pieces of line 0. Each content of it has a range of 2^32
-- byte offsets below 0, and its receipt says which range counts (head_byte).
CREATE TABLE quarantine (
  import_file_no  INTEGER NOT NULL REFERENCES import_file (import_file_no),
  line            INTEGER NOT NULL,             -- 1-based
  byte_offset     INTEGER NOT NULL,
  after_seq       INTEGER NOT NULL,             -- -1: before the first entry
  reason          TEXT    NOT NULL,
  severity        TEXT    NOT NULL
                  CONSTRAINT quarantine_severity_known
                  CHECK (severity IN ('blank', 'damaged', 'early')),
  content         BLOB    NOT NULL,             -- of an early line: without its line end, and
                                                -- empty once the entry has the same bytes
  entry_id        TEXT,                         -- of an early line that waits: its own id
  waits_for       TEXT,                         -- of an early line: the parent that it names,
                                                -- until that is an entry
  parent_seq      INTEGER,                      -- of an early line that need not wait any more:
                                                -- the entry that it follows. -1: the root
  entry_seq       INTEGER,                      -- the entry that an early line became
  PRIMARY KEY (import_file_no, byte_offset)
) STRICT, WITHOUT ROWID;
-- Which early lines wait, for which parents, which wait no more, and which are entries.
CREATE INDEX quarantine_waiting ON quarantine (import_file_no, entry_id)
WHERE entry_id IS NOT NULL;
CREATE INDEX quarantine_parent ON quarantine (import_file_no, waits_for)
WHERE waits_for IS NOT NULL;
CREATE INDEX quarantine_ready ON quarantine (import_file_no, parent_seq)
WHERE parent_seq IS NOT NULL;
CREATE INDEX quarantine_placed ON quarantine (import_file_no, entry_seq)
WHERE entry_seq IS NOT NULL;
-- A resume asks for each message whether its session's import was damaged.
CREATE INDEX quarantine_damaged ON quarantine (import_file_no) WHERE severity = 'damaged';

-- Lanes: how many turns may run at once, in all processes together. A lower priority
-- number goes first. Only a person's message may take the place of one that was
-- interrupted, so a lane says whether people write in it.
CREATE TABLE lane (
  lane          TEXT    NOT NULL PRIMARY KEY,
  concurrency   INTEGER NOT NULL CONSTRAINT lane_concurrency_positive CHECK (concurrency >= 1),
  priority      INTEGER NOT NULL,
  people        INTEGER NOT NULL DEFAULT 0,     -- 1: its messages are people's, unless `accept`
                                                -- says otherwise
  paused_at_ms  INTEGER,                        -- set: nothing is claimed from it
  settings      TEXT                            -- how its turns are run, whatever its loops were
                CONSTRAINT lane_settings_json CHECK (settings IS NULL OR json_valid(settings)),
                                                -- given. NULL: as these say
  dropped_at_ms INTEGER                         -- set: it is no lane any more. Ended turns name it
) STRICT, WITHOUT ROWID;
INSERT INTO lane (lane, concurrency, priority, people)
VALUES ('main', 4, 0, 1), ('cron', 1, 10, 0), ('resume', 1, 20, 0);

-- A turn: one run of the agent over one claimed message. Its number is its fencing
-- token. Numbers only grow, and a write that names a turn is refused unless that turn
-- is running. The lease is the time until which its owner has promised to renew or end
-- it.
CREATE TABLE turn (
  turn_no           INTEGER PRIMARY KEY AUTOINCREMENT,
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  lane              TEXT    NOT NULL REFERENCES lane (lane),
  kind              TEXT    NOT NULL
                    CONSTRAINT turn_kind_known CHECK (kind IN ('message', 'resume')),
  state             TEXT    NOT NULL CONSTRAINT turn_state_known
                    CHECK (state IN ('running', 'completed', 'failed', 'aborted', 'interrupted')),
  inbox_no          INTEGER NOT NULL,           -- its message. 0: not known any more, salvaged
  attempt           INTEGER NOT NULL,
  operation         TEXT    NOT NULL,           -- its present activity, for `held`
  instance_no       INTEGER NOT NULL REFERENCES instance (instance_no),
  started_at_ms     INTEGER NOT NULL,
  renewed_at_ms     INTEGER NOT NULL,
  expires_at_ms     INTEGER NOT NULL,           -- the lease: it may be taken over after this
  deadline_ms       INTEGER NOT NULL,           -- renewals cannot pass this
  finished_at_ms    INTEGER,
  incomplete        INTEGER NOT NULL DEFAULT 0, -- 1: it ended without a usable answer
  reason            TEXT,
  progress          TEXT                        -- what its handler, or an earlier attempt at its
                                                -- message, noted last, as JSON. NULL: nothing
                    CONSTRAINT turn_progress_json CHECK (progress IS NULL OR json_valid(progress)),
  claim_id          TEXT,                       -- of a worker behind a server: its claim, repeated
                                                -- with this, is this turn while it runs
  CONSTRAINT turn_finished_when_not_running CHECK ((state = 'running') = (finished_at_ms IS NULL))
) STRICT;
CREATE UNIQUE INDEX turn_one_running ON turn (session_no) WHERE state = 'running';
CREATE INDEX turn_running ON turn (lane, expires_at_ms) WHERE state = 'running';
CREATE UNIQUE INDEX turn_claimed_as ON turn (lane, claim_id)
WHERE claim_id IS NOT NULL AND state = 'running';
CREATE INDEX turn_by_session ON turn (session_no);
CREATE INDEX turn_by_expiry ON turn (expires_at_ms) WHERE state = 'running';
CREATE INDEX turn_by_start ON turn (started_at_ms);

-- The inbox: a message that was accepted is a row here, whatever happens next.
--   queued -> claimed -> done | dead
--   interrupted: its turn was interrupted, and the resume plan decides
--   heard -> done: not for the agent. The next claim appends it
-- Its text is here until it is appended, and from then on in its entry only.
-- A message ends answered by a completed turn, or with an event that its sender can see.
CREATE TABLE inbox (
  inbox_no          INTEGER PRIMARY KEY AUTOINCREMENT,
  channel           TEXT    NOT NULL,           -- the adapter: discord:bot1, web, cron
  event_id          TEXT    NOT NULL,           -- the adapter's own id of the message
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  session_key       TEXT,                       -- the conversation that it came from. NULL: it was
                                                -- accepted before schema 4
  digest            TEXT,                       -- of the message, to tell a repeated delivery from
                                                -- another message. NULL: likewise
  edited            INTEGER NOT NULL DEFAULT 0, -- the version of its newest edit. 0: none
  edit_of           INTEGER,                    -- of an edit that a turn reads on its own: the
                                                -- message that it edits, whose row may be pruned
  lane              TEXT    NOT NULL REFERENCES lane (lane),
  by_person         INTEGER NOT NULL DEFAULT 0, -- 1: a person sent it. 0: cron, a sub-agent, a hook
  heard             INTEGER NOT NULL DEFAULT 0, -- 1: it is not for the agent. The next claim of its
                                                -- session appends it, and no turn answers it
  state             TEXT    NOT NULL CONSTRAINT inbox_state_known
                    CHECK (state IN ('queued', 'claimed', 'interrupted', 'done', 'dead', 'heard')),
  accepted_at_ms    INTEGER NOT NULL,
  available_at_ms   INTEGER NOT NULL,           -- a retry waits until then. 0: it waits for no time
  queued_at_ms      INTEGER NOT NULL DEFAULT 0, -- when it was queued last, or its pause ends. Lanes
                                                -- before its own go first for a minute from then
  waits             INTEGER NOT NULL DEFAULT 0, -- 1: it certainly waits for its session's turn, or
                                                -- an older message, so no look reads it. 0 is never
                                                -- wrong, only slower
  attempts          INTEGER NOT NULL DEFAULT 0,
  stops             INTEGER NOT NULL DEFAULT 0, -- of these, ended by an orderly stop: they do
                                                -- not count against it
  turn_no           INTEGER,                    -- the last turn that claimed it
  entry_no          INTEGER,                    -- its user entry, once it was claimed. The last
                                                -- one, if it was appended again
  superseded_by     INTEGER,                    -- the message whose turn answers this one, too.
                                                -- 0: not known any more
  told_no           INTEGER,                    -- the event that told its sender of its end. NULL:
                                                -- it is open or answered. 0: not known any more,
                                                -- from before schema 4, or salvaged
  delayed           INTEGER NOT NULL DEFAULT 0, -- 1: the user was told that the answer takes longer
  restored          INTEGER NOT NULL DEFAULT 0, -- 1: it was open in a backup that was restored. It
                                                -- may have been answered since, so a person decides
  timeout_ms        INTEGER,                    -- of a resume: how long it may go on without
                                                -- progress
  lane_before       TEXT,                       -- of a resume: the lane that accepted it
  reason            TEXT,
  details           TEXT                        -- what its adapter keeps with it: addresses and
                                                -- the like, as a JSON object. No model reads it
                    CONSTRAINT inbox_details_object CHECK (details IS NULL OR
                    json_type(iif(json_valid(details), details, 'null')) = 'object'),
  payload           TEXT,                       -- the message, as JSON. NULL: its entry has it
  CONSTRAINT inbox_text_is_kept CHECK (payload IS NOT NULL OR entry_no IS NOT NULL),
  CONSTRAINT inbox_event_once UNIQUE (channel, event_id),
  CONSTRAINT inbox_end_is_told
  CHECK (told_no IS NOT NULL OR (state <> 'dead' AND superseded_by IS NULL)),
  CONSTRAINT inbox_heard_never_runs
  CHECK (iif(heard, state IN ('heard', 'done') AND turn_no IS NULL, state <> 'heard'))
) STRICT;
-- A message that may run is found by a search in this index, not by reading those that wait.
CREATE INDEX inbox_waiting ON inbox (lane, available_at_ms) WHERE state = 'queued' AND waits = 0;
CREATE INDEX inbox_queued ON inbox (lane, session_no) WHERE state = 'queued';
CREATE INDEX inbox_of_session ON inbox (session_no, inbox_no)
WHERE state IN ('queued', 'claimed', 'interrupted');
CREATE INDEX inbox_untold ON inbox (lane, inbox_no) WHERE state = 'queued' AND delayed = 0;
CREATE INDEX inbox_interrupted ON inbox (state, inbox_no) WHERE state IN ('interrupted', 'dead');
CREATE INDEX inbox_edits ON inbox (edit_of) WHERE edit_of IS NOT NULL;
CREATE INDEX inbox_heard ON inbox (session_no, inbox_no) WHERE state = 'heard';
CREATE INDEX inbox_told ON inbox (told_no) WHERE told_no IS NOT NULL;
-- A person asks for the messages of a session, or of the last hour.
CREATE INDEX inbox_by_session ON inbox (session_no, accepted_at_ms);
CREATE INDEX inbox_by_acceptance ON inbox (accepted_at_ms);

-- The outbox: replies, written in the transaction that completes their turn.
--   pending -> sending -> sent | failed | unknown
--   unknown: its sender died, or got no clear answer, after the channel was called
CREATE TABLE outbox (
  outbox_no         INTEGER PRIMARY KEY AUTOINCREMENT,
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  turn_no           INTEGER,                    -- the turn that it answers, whose row may be pruned
  target            TEXT    NOT NULL,           -- the channel's address for this reply
  channel           TEXT    NOT NULL,           -- of the target: all before its first colon.
                                                -- Channels do not wait for each other
  state             TEXT    NOT NULL CONSTRAINT outbox_state_known
                    CHECK (state IN ('pending', 'sending', 'sent', 'unknown', 'failed')),
  attempts          INTEGER NOT NULL DEFAULT 0, -- only grows: fences an older attempt that
                                                -- answers late
  attempts_before   INTEGER NOT NULL DEFAULT 0, -- of these, not counted: before an operator asked
                                                -- for it again, or while its channel waited
  instance_no       INTEGER REFERENCES instance (instance_no),   -- the process that sends it ...
  expires_at_ms     INTEGER,                    -- ... and until when it is believed to
  created_at_ms     INTEGER NOT NULL,
  available_at_ms   INTEGER NOT NULL,           -- a retry waits until then. 0: it waits for no time
  waits             INTEGER NOT NULL DEFAULT 0, -- 1: it certainly waits for an older reply, so no
                                                -- look reads it. 0 is never wrong, only slower
  asked_at_ms       INTEGER,                    -- when an operator asked for it again. Its day of
                                                -- retries counts from then
  finished_at_ms    INTEGER,
  event_no          INTEGER,                    -- of a reply that forwards an event: the event ...
  consumer          TEXT,                       -- ... and its reader, for whom it is forwarded once
  receipt           TEXT,                       -- the channel's id of the sent message
  reason            TEXT,
  claim_id          TEXT,                       -- of a sender behind a server: its claim, repeated
                                                -- with this, is this attempt while it goes on
  details           TEXT                        -- of the message that it answers
                    CONSTRAINT outbox_details_object CHECK (details IS NULL OR
                    json_type(iif(json_valid(details), details, 'null')) = 'object'),
  payload           TEXT    NOT NULL,
  CONSTRAINT outbox_event_and_reader_together CHECK ((event_no IS NULL) = (consumer IS NULL))
) STRICT;
CREATE INDEX outbox_unsent ON outbox (state, outbox_no)
WHERE state IN ('pending', 'sending', 'unknown', 'failed');
CREATE INDEX outbox_of_session ON outbox (session_no, channel, outbox_no)
WHERE state IN ('pending', 'sending');
CREATE UNIQUE INDEX outbox_claimed_as ON outbox (claim_id)
WHERE claim_id IS NOT NULL AND state = 'sending';
CREATE INDEX outbox_waiting ON outbox (channel, waits, available_at_ms) WHERE state = 'pending';
CREATE UNIQUE INDEX outbox_event_once ON outbox (event_no, consumer) WHERE event_no IS NOT NULL;
CREATE INDEX outbox_by_turn ON outbox (turn_no) WHERE turn_no IS NOT NULL;

-- A channel that said when to try again (429 with `retry_after`). None of its replies is
-- sent before. The row stays until the channel takes a reply.
CREATE TABLE channel_pause (
  channel           TEXT    NOT NULL PRIMARY KEY,
  refused_since_ms  INTEGER NOT NULL,           -- since then it has said so every time ...
  pauses            INTEGER NOT NULL,           -- ... which is so many times
  begun_at_ms       INTEGER NOT NULL,           -- when it said so last. The pause is in force ...
  until_ms          INTEGER NOT NULL,           -- ... from then until this
  reason            TEXT    NOT NULL,
  CONSTRAINT channel_pause_ends_later CHECK (until_ms >= begun_at_ms)
) STRICT, WITHOUT ROWID;

-- What an operator, or the person who waits, should know. Written in the transaction of
-- the change itself, read from a cursor.
CREATE TABLE event (
  event_no          INTEGER PRIMARY KEY AUTOINCREMENT,
  kind              TEXT    NOT NULL,
  audience          TEXT    NOT NULL
                    CONSTRAINT event_audience_known CHECK (audience IN ('operator', 'user')),
  session_no        INTEGER REFERENCES session (session_no),
  at_ms             INTEGER NOT NULL,
  text              TEXT    NOT NULL,           -- what to tell the audience
  data              TEXT    NOT NULL CONSTRAINT event_data_json CHECK (json_valid(data))
) STRICT;
CREATE INDEX event_by_audience ON event (audience, event_no);
CREATE INDEX event_by_session ON event (session_no) WHERE session_no IS NOT NULL;
CREATE TABLE event_cursor (
  consumer          TEXT    NOT NULL PRIMARY KEY,
  event_no          INTEGER NOT NULL            -- everything up to this has been handled
) STRICT, WITHOUT ROWID;

-- An archived session: its rows, compressed, in chunks. They are written and checked
-- before the rows are deleted. A small session is one chunk.
--   writing -> complete -> deleting -> archived -> restoring -> restored
--   deleted: gone, without an archive
-- The session's own row stays for ever as its tombstone, so numbers and epochs are
-- never given out twice.
CREATE TABLE archive (
  archive_no      INTEGER PRIMARY KEY,
  session_no      INTEGER NOT NULL REFERENCES session (session_no),
  state           TEXT    NOT NULL CONSTRAINT archive_state_known CHECK (state IN
                  ('writing', 'complete', 'deleting', 'archived', 'restoring', 'restored',
                   'deleted')),
  reason          TEXT    NOT NULL,
  encoding        TEXT    NOT NULL
                  CONSTRAINT archive_encoding_known CHECK (encoding IN ('zstd', 'zlib', 'none')),
  begun_at_ms     INTEGER NOT NULL,
  finished_at_ms  INTEGER,                      -- NULL: the next run continues it
  rows            INTEGER NOT NULL DEFAULT 0,
  bytes           INTEGER NOT NULL DEFAULT 0,   -- before compression
  bytes_stored    INTEGER NOT NULL DEFAULT 0,
  session_keys    TEXT    NOT NULL              -- the keys that pointed at it, as a JSON array
) STRICT;
CREATE UNIQUE INDEX archive_one_open ON archive (session_no) WHERE state <> 'restored';
CREATE INDEX archive_by_session ON archive (session_no);
CREATE INDEX archive_unfinished ON archive (archive_no) WHERE finished_at_ms IS NULL;
-- It has a rowid: without one, SQLite gives each row of more than 1,002 bytes a page of its own.
CREATE TABLE archive_chunk (
  archive_no      INTEGER NOT NULL REFERENCES archive (archive_no),
  chunk_no        INTEGER NOT NULL,
  what            TEXT    NOT NULL,             -- the table whose rows these are. "whole": all
  rows            INTEGER NOT NULL,
  sha256          TEXT    NOT NULL,             -- of the JSON lines before compression
  content         BLOB    NOT NULL,
  PRIMARY KEY (archive_no, chunk_no)
) STRICT;

-- The search index (`sessiondb search`). It is made from the entries and holds nothing of its own,
-- so it can be dropped and built again at any time. It is empty until a person builds it.
-- Background steps fill it, and no append waits for it.
--
-- What a person would read of each entry: what was said, results of tools, commands and their
-- output, summaries. No images, no reasoning, no arguments of calls. The index was filled from
-- these very texts, and takes words out by them. So a step of the schema that changes this view
-- also empties the index.
CREATE VIEW search_text AS
SELECT e.entry_no,
       substr(CASE
         WHEN NOT json_valid(e.payload) THEN ''   -- damaged
         WHEN e.type = 'message' THEN
           CASE json_type(e.payload, '$.message.content')
             WHEN 'text' THEN e.payload ->> '$.message.content'
             WHEN 'array' THEN
               (SELECT group_concat(CASE
                         WHEN b.type = 'text' THEN b.value
                         WHEN b.value ->> '$.type' IN ('text', 'input_text', 'output_text')
                         THEN b.value ->> '$.text'
                         WHEN b.value ->> '$.type' = 'refusal' THEN b.value ->> '$.refusal'
                         WHEN b.value ->> '$.type' <> 'tool_result' THEN NULL
                         WHEN json_type(b.value, '$.content') = 'text'
                         THEN b.value ->> '$.content'
                         WHEN json_type(b.value, '$.content') = 'array' THEN
                           (SELECT group_concat(r.value ->> '$.text', char(10))
                            FROM json_each(b.value, '$.content') AS r
                            WHERE r.type = 'object' AND r.value ->> '$.type' = 'text')
                       END, char(10))
                FROM json_each(e.payload, '$.message.content') AS b
                WHERE b.type IN ('object', 'text'))
             ELSE coalesce(iif(json_type(e.payload, '$.message.command') = 'text',
                               (e.payload ->> '$.message.command') || char(10), ''), '')
                  || CASE json_type(e.payload, '$.message.output')
                       WHEN 'text' THEN e.payload ->> '$.message.output'
                       WHEN 'array' THEN
                         (SELECT coalesce(group_concat(b.value ->> '$.text', char(10)), '')
                          FROM json_each(e.payload, '$.message.output') AS b
                          WHERE b.type = 'object' AND b.value ->> '$.type' = 'input_text')
                       ELSE '' END
                  || coalesce(iif(json_type(e.payload, '$.message.refusal') = 'text',
                                  e.payload ->> '$.message.refusal', ''), '')
           END
         WHEN e.type IN ('compaction', 'branch_summary')
         THEN iif(json_type(e.payload, '$.summary') = 'text', e.payload ->> '$.summary', '')
         WHEN e.type = 'custom_message' THEN
           CASE json_type(e.payload, '$.content')
             WHEN 'text' THEN e.payload ->> '$.content'
             WHEN 'array' THEN
               (SELECT group_concat(b.value ->> '$.text', char(10))
                FROM json_each(e.payload, '$.content') AS b
                WHERE b.type = 'object' AND b.value ->> '$.type' = 'text')
           END
         WHEN e.type = 'session_info'
         THEN iif(json_type(e.payload, '$.name') = 'text', e.payload ->> '$.name', '')
       END, 1, 100000) AS text
FROM entry AS e;

-- The words of these texts. From any shell:
--   SELECT t.session_id, t.seq, snippet(search, 0, '[', ']', '...', 12)
--   FROM search JOIN transcript AS t ON t.entry_no = search.rowid
--   WHERE search MATCH '"invoice" "4711"' ORDER BY search.rowid DESC LIMIT 20;
CREATE VIRTUAL TABLE search USING fts5 (
  text, content = 'search_text', content_rowid = 'entry_no',
  tokenize = 'unicode61 remove_diacritics 2'
);

-- How far the entries of each session are in the index. No row: none of them is.
CREATE TABLE search_session (
  session_no   INTEGER PRIMARY KEY REFERENCES session (session_no),
  after_no     INTEGER NOT NULL,                -- entries behind this one ...
  indexed_no   INTEGER NOT NULL                 -- ... up to this one are in the index
) STRICT;

-- One row while there is an index. None: nobody has built one, or it was dropped.
CREATE TABLE search_state (
  state_no     INTEGER PRIMARY KEY CONSTRAINT search_state_once CHECK (state_no = 1),
  built_at_ms  INTEGER NOT NULL,                -- when a person asked for it
  purging      INTEGER NOT NULL DEFAULT 0       -- 1: words that were taken out are still in its
                                                -- older parts, until those are merged
) STRICT;

-- Views for the shell. They compute everything from the tables above. None is stored.
--
-- Names. `X_log` has a row for each X, with its times and how it ended. `X_open` has those that
-- are not done. The others show what is so now. A session is always `session_id`, a process
-- `owner`. A time `..._at` is a text to read. Where a view also has it as a number, `..._at_ms`,
-- an index finds it: compare that one, as in
-- `WHERE accepted_at_ms > 1000 * (strftime('%s', 'now') - 3600)`.
-- A payload that is damaged, or odd, leaves a column empty, and is no error.

-- One line per session: who it is, how long, how heavy, and when it last moved.
CREATE VIEW session_overview AS
SELECT s.session_id,
       (SELECT group_concat(b.session_key, ', ') FROM binding AS b
        WHERE b.session_no = s.session_no) AS session_keys,
       s.agent_id,
       CASE WHEN s.archived_at_ms IS NOT NULL THEN 'archived'
            WHEN s.ended_at_ms IS NULL THEN 'live' ELSE 'ended' END AS state,
       s.last_seq AS entries,
       -- Of its payloads, which are read for it. Of an archived session: of its archive.
       coalesce((SELECT sum(length(CAST(e.payload AS BLOB))) FROM entry AS e
                 WHERE e.entry_no BETWEEN s.session_no << 32
                                      AND (s.session_no << 32) + 4294967295),
                (SELECT a.bytes_stored FROM archive AS a
                 WHERE a.session_no = s.session_no AND a.state <> 'restored'), 0) AS bytes,
       s.epoch,
       (SELECT count(*) FROM compaction AS c
        WHERE c.session_no = s.session_no AND c.state = 'committed') AS compactions,
       s.context_tokens,
       CASE s.tokens_fresh WHEN 1 THEN 'counted' ELSE 'estimated' END AS tokens_are,
       s.name,
       s.origin,
       CASE s.formats WHEN 1 THEN 'pi' WHEN 2 THEN 'openai-chat' WHEN 4 THEN 'openai-responses'
                      WHEN 8 THEN 'anthropic' END AS format,   -- NULL: not decided yet
       (SELECT f.session_id FROM session AS f WHERE f.session_no = s.forked_from_no) AS forked_from,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.created_at_ms / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.updated_at_ms / 1000.0, 'unixepoch') AS updated_at,
       s.updated_at_ms
FROM session AS s;

-- One line per session key: the conversation that it names, and the session that it points at
-- now. The parts of the key are those of OpenClaw's grammar (`transcript/keys.py`).
CREATE VIEW conversation AS
SELECT k.session_key, s.session_id, k.agent_id,
       CASE WHEN instr(':' || k.tail, ':thread:') THEN 'thread'
            WHEN k.word IN ('main', 'cron', 'subagent', 'acp', 'hook', 'explicit', 'global')
            THEN k.word
            WHEN k.second IN ('direct', 'group', 'channel', 'room') THEN k.second
            WHEN k.third IN ('direct', 'group', 'channel', 'room') THEN k.third
            ELSE 'other' END AS kind,
       iif(k.peer_at = 0 OR k.tail = '', NULL, k.word) AS channel,
       iif(k.peer_at = 2, k.second, NULL) AS account,
       nullif(substr(iif(instr(k.address, ':thread:'),
                         substr(k.address, 1, instr(k.address, ':thread:') - 1), k.address), 2),
              '') AS peer,
       iif(instr(k.address, ':thread:'),
           nullif(substr(k.address, instr(k.address, ':thread:') + 8), ''), NULL) AS thread,
       s.name,
       CASE WHEN s.archived_at_ms IS NOT NULL THEN 'archived'
            WHEN s.ended_at_ms IS NULL THEN 'live' ELSE 'ended' END AS state,
       strftime('%Y-%m-%dT%H:%M:%fZ', k.bound_at_ms / 1000.0, 'unixepoch') AS bound_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.updated_at_ms / 1000.0, 'unixepoch') AS updated_at,
       s.updated_at_ms
FROM (
  SELECT p.*, ':' || CASE p.peer_at WHEN 2 THEN p.behind_third WHEN 1 THEN p.behind_second
                                    ELSE p.tail END AS address
  FROM (
    SELECT q.*,
           -- Which part says of what kind the peer is: 0 is the first, or there is no channel.
           CASE WHEN q.word IN ('main', 'global', 'unknown', 'cron', 'subagent', 'acp', 'hook',
                                'explicit', 'direct', 'dm', 'group', 'channel', 'room') THEN 0
                WHEN q.second IN ('direct', 'dm', 'group', 'channel', 'room') THEN 1
                WHEN q.third IN ('direct', 'dm', 'group', 'channel', 'room') THEN 2
                ELSE 3 END AS peer_at
    FROM (
      SELECT r.*, substr(r.behind_second, 1, instr(r.behind_second || ':', ':') - 1) AS third,
             substr(r.behind_second, instr(r.behind_second || ':', ':') + 1) AS behind_third
      FROM (
        SELECT t.*, substr(t.tail, 1, instr(t.tail || ':', ':') - 1) AS second,
               substr(t.tail, instr(t.tail || ':', ':') + 1) AS behind_second
        FROM (
          SELECT o.*, substr(o.rest, 1, instr(o.rest || ':', ':') - 1) AS word,
                 substr(o.rest, instr(o.rest || ':', ':') + 1) AS tail
          FROM (
            SELECT b.session_key, b.session_no, b.agent_id, b.bound_at_ms,
                   iif(b.session_key GLOB 'agent:*:*',
                       substr(b.session_key, 7 + instr(substr(b.session_key, 7), ':')), NULL)
                     AS rest
            FROM binding AS b
          ) AS o
        ) AS t
      ) AS r
    ) AS q
  ) AS p
) AS k JOIN session AS s ON s.session_no = k.session_no;

-- Everything that was ever said, in order of arrival, with its text. Filter by session_id. What
-- the session left by a branch switch or an undo is not on its path, nor is a record without a
-- place in the tree.
CREATE VIEW transcript AS
SELECT s.session_id,
       e.entry_no & 0xffffffff AS seq,
       strftime('%Y-%m-%dT%H:%M:%fZ', e.appended_at_ms / 1000.0, 'unixepoch') AS appended_at,
       e.type,
       e.role,
       EXISTS (
         WITH RECURSIVE path (branch_no, high_no) AS (
           SELECT h.branch_no, h.entry_no FROM entry AS h WHERE h.entry_no = s.head_no
           UNION ALL
           SELECT b.parent_branch_no, b.fork_no
           FROM path AS p JOIN branch AS b ON b.branch_no = p.branch_no
           -- A damaged tree may have a circle.
           WHERE b.fork_no < p.high_no AND b.fork_no >= s.session_no << 32
         )
         SELECT 1 FROM path AS p WHERE p.branch_no = e.branch_no AND p.high_no >= e.entry_no
       ) AS on_path,
       CASE
         WHEN NOT json_valid(e.payload) THEN e.payload   -- damaged
         WHEN json_type(e.payload, '$.message.content') = 'text'
         THEN e.payload ->> '$.message.content'
         WHEN json_type(e.payload, '$.message.content') = 'array' THEN
           (SELECT group_concat(CASE b.value ->> '$.type'
                      WHEN 'text' THEN b.value ->> '$.text'
                      WHEN 'input_text' THEN b.value ->> '$.text'
                      WHEN 'output_text' THEN b.value ->> '$.text'
                      WHEN 'toolCall' THEN '[call ' || (b.value ->> '$.name') || ' '
                                           || coalesce(b.value -> '$.arguments', '') || ']'
                      WHEN 'tool_use' THEN '[call ' || (b.value ->> '$.name') || ' '
                                           || coalesce(b.value -> '$.input', '') || ']'
                      ELSE '[' || coalesce(b.value ->> '$.type', '?') || ']' END, char(10))
            FROM json_each(e.payload, '$.message.content') AS b WHERE b.type = 'object')
         WHEN json_type(e.payload, '$.message.tool_calls') = 'array' THEN
           (SELECT group_concat('[call ' || coalesce(c.value ->> '$.function.name',
                                                     c.value ->> '$.custom.name', '?') || ' '
                                || coalesce(c.value ->> '$.function.arguments',
                                            c.value ->> '$.custom.input', '') || ']', char(10))
            FROM json_each(e.payload, '$.message.tool_calls') AS c WHERE c.type = 'object')
         WHEN e.role = 'assistant' AND json_type(e.payload, '$.message.type') = 'text'
         THEN '[' || (e.payload ->> '$.message.type')
              || coalesce(' ' || (e.payload ->> '$.message.name'), '')
              || coalesce(' ' || (e.payload ->> '$.message.arguments'), '') || ']'
         ELSE coalesce(e.payload ->> '$.summary', e.payload ->> '$.message.command',
                       e.payload ->> '$.message.output', e.payload ->> '$.content',
                       e.payload ->> '$.name')
       END AS text,
       e.tokens,
       e.entry_id,
       (SELECT p.entry_id FROM entry AS p WHERE p.entry_no = e.parent_no) AS parent_id,
       e.idempotency_key,
       e.entry_no
FROM entry AS e JOIN session AS s ON s.session_no = e.entry_no >> 32
 AND e.entry_no BETWEEN s.session_no << 32 AND (s.session_no << 32) + 4294967295;

-- The context that the model would be sent now, in order: the summary, the entries that
-- it kept, and everything since. Filter by session_id, because otherwise the path of
-- every session is walked.
CREATE VIEW live_context AS
SELECT t.session_id AS written_in,
       s.session_id,
       row_number() OVER (PARTITION BY s.session_id
                          ORDER BY e.entry_no <> ifnull(s.boundary_no, 0), e.entry_no) AS place,
       CASE WHEN e.entry_no = s.boundary_no THEN 'summary'
            WHEN e.entry_no < s.boundary_no THEN 'kept' ELSE 'since' END AS why,
       t.seq, t.appended_at, t.type, t.role, t.tokens, t.text, t.entry_id
FROM session AS s
-- The ranges of entries that the path of this one session has: first, last, and the branch.
CROSS JOIN json_each((
  WITH RECURSIVE path (branch_no, high_no) AS (
    SELECT h.branch_no, h.entry_no FROM entry AS h WHERE h.entry_no = s.head_no
    UNION ALL
    SELECT b.parent_branch_no, b.fork_no
    FROM path AS p JOIN branch AS b ON b.branch_no = p.branch_no
    WHERE b.fork_no < p.high_no AND b.fork_no >= coalesce(s.first_kept_no, s.boundary_no, 0)
  )
  SELECT json_group_array(json_array(
           max(b.first_no, coalesce(s.first_kept_no, s.boundary_no, 0)), p.high_no, b.branch_no))
  FROM path AS p JOIN branch AS b ON b.branch_no = p.branch_no
)) AS part
CROSS JOIN entry AS e ON e.entry_no BETWEEN part.value ->> 0 AND part.value ->> 1
 AND e.branch_no = part.value ->> 2
 AND (e.projection IN (1, 3, 4) OR e.entry_no = s.boundary_no AND e.type = 'compaction')
JOIN transcript AS t ON t.entry_no = e.entry_no;

-- Every compaction job and what became of it.
CREATE VIEW compaction_log AS
SELECT c.compaction_id, s.session_id, c.trigger, c.state, c.late, c.base_epoch, c.epoch,
       c.tokens_before, c.tokens_after,
       strftime('%Y-%m-%dT%H:%M:%fZ', c.begun_at_ms / 1000.0, 'unixepoch') AS begun_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', c.finished_at_ms / 1000.0, 'unixepoch') AS finished_at,
       (c.finished_at_ms - c.begun_at_ms) / 1000.0 AS took_s,
       strftime('%Y-%m-%dT%H:%M:%fZ', c.deadline_ms / 1000.0, 'unixepoch') AS deadline,
       i.pid || '@' || i.host AS owner,
       c.reason
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN instance AS i ON i.instance_no = c.instance_no;

-- Every generation of every context, and what began it.
CREATE VIEW epoch_log AS
SELECT s.session_id, e.epoch, e.reason,
       strftime('%Y-%m-%dT%H:%M:%fZ', e.opened_at_ms / 1000.0, 'unixepoch') AS opened_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', e.closed_at_ms / 1000.0, 'unixepoch') AS closed_at,
       b.entry_id AS boundary_id, k.entry_id AS first_kept_id, h.entry_id AS closed_head_id
FROM epoch AS e JOIN session AS s ON s.session_no = e.session_no
LEFT JOIN entry AS b ON b.entry_no = e.boundary_no
LEFT JOIN entry AS k ON k.entry_no = e.first_kept_no
LEFT JOIN entry AS h ON h.entry_no = e.closed_head_no;

-- What does not go on by itself: since when, whose, why, and the command that goes on. A
-- gateway that does its work leaves no row here. "sessiondb stuck" adds what dead processes
-- left before their leases end. Waiting counts when it is longer than every pause of a loop.
CREATE VIEW stuck AS
WITH RECURSIVE clock (now_ms) AS (SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000),
channel_waiting (channel) AS (
  SELECT min(channel) FROM outbox WHERE state = 'pending'
  UNION ALL
  SELECT (SELECT min(o.channel) FROM outbox AS o
          WHERE o.state = 'pending' AND o.channel > w.channel)
  FROM channel_waiting AS w WHERE w.channel IS NOT NULL
), turn_lately (lane, at_ms) AS (
  SELECT r.lane, max(r.at_ms) FROM
    (SELECT lane, max(started_at_ms, coalesce(finished_at_ms, 0)) AS at_ms FROM turn
     ORDER BY turn_no DESC LIMIT 1000) AS r
  GROUP BY r.lane
), lane_idle (lane, inbox_no) AS (
  -- A lane has room, and has begun or ended no turn of late: the message that could run.
  SELECT l.lane,
         (SELECT i.inbox_no FROM inbox AS i INDEXED BY inbox_queued
          JOIN lane AS own ON own.lane = coalesce(i.lane_before, i.lane)
          WHERE i.state = 'queued' AND i.lane = l.lane AND i.available_at_ms <= c.now_ms - 90000
            AND i.queued_at_ms <= c.now_ms - 90000 AND own.paused_at_ms IS NULL
            AND NOT EXISTS (SELECT 1 FROM turn AS t
                            WHERE t.session_no = i.session_no AND t.state = 'running')
            AND coalesce((SELECT t.finished_at_ms FROM turn AS t WHERE t.session_no = i.session_no
                          ORDER BY t.turn_no DESC LIMIT 1), 0) <= c.now_ms - 90000
            AND NOT EXISTS (SELECT 1 FROM inbox AS o JOIN lane AS before ON before.lane = o.lane
                            WHERE o.session_no = i.session_no
                              AND o.state IN ('queued', 'claimed', 'interrupted')
                              AND o.state <> 'interrupted' AND o.lane <> 'resume'
                              AND before.priority <= own.priority
                              AND (o.inbox_no < i.inbox_no OR i.lane = 'resume'))
          ORDER BY max(i.queued_at_ms, i.available_at_ms), i.inbox_no LIMIT 1)
  FROM clock AS c CROSS JOIN lane AS l
  WHERE (SELECT count(*) FROM turn AS t WHERE t.state = 'running' AND t.lane = l.lane)
          < l.concurrency
    AND l.paused_at_ms IS NULL
    AND NOT EXISTS (SELECT 1 FROM turn_lately AS y
                    WHERE y.lane = l.lane AND y.at_ms > c.now_ms - 90000)
), channel_idle (channel, problem, outbox_no, since_ms) AS (
  -- Replies of a channel are due, and none is being sent: the one that could be.
  SELECT w.channel, 'nothing is sent', o.outbox_no,
         max(o.available_at_ms, coalesce(o.asked_at_ms, o.created_at_ms))
  FROM clock AS c CROSS JOIN channel_waiting AS w
  JOIN outbox AS o ON o.outbox_no =
       (SELECT p.outbox_no FROM outbox AS p INDEXED BY outbox_waiting
        WHERE p.state = 'pending' AND p.channel = w.channel
          AND p.available_at_ms <= c.now_ms - 90000
          AND coalesce(p.asked_at_ms, p.created_at_ms) <= c.now_ms - 90000
          AND NOT EXISTS (SELECT 1 FROM outbox AS e
                          WHERE e.session_no = p.session_no AND e.channel = p.channel
                            AND e.state IN ('pending', 'sending') AND e.outbox_no < p.outbox_no)
        ORDER BY p.outbox_no LIMIT 1)
  WHERE NOT EXISTS (SELECT 1 FROM outbox AS e
                    WHERE e.state IN ('pending', 'sending', 'unknown', 'failed')
                      AND e.state = 'sending' AND e.channel = w.channel)
    AND NOT EXISTS (SELECT 1 FROM outbox AS e
                    WHERE e.outbox_no BETWEEN o.outbox_no - 1000 AND o.outbox_no + 1000
                      AND e.channel = w.channel AND e.finished_at_ms > c.now_ms - 90000)
    AND NOT EXISTS (SELECT 1 FROM channel_pause AS p
                    WHERE p.channel = w.channel AND p.begun_at_ms < c.now_ms + 1000
                      AND p.until_ms > c.now_ms - 90000)
  UNION ALL
  -- A channel has refused for ten minutes, and taken nothing meanwhile: its first reply.
  SELECT w.channel, 'refuses everything', o.outbox_no, coalesce(o.asked_at_ms, o.created_at_ms)
  FROM clock AS c CROSS JOIN channel_waiting AS w
  JOIN outbox AS o ON o.outbox_no =
       (SELECT min(p.outbox_no) FROM outbox AS p INDEXED BY outbox_waiting
        WHERE p.state = 'pending' AND p.channel = w.channel AND p.attempts > p.attempts_before
          AND p.available_at_ms > c.now_ms - 90000
          AND coalesce(p.asked_at_ms, p.created_at_ms) <= c.now_ms - 600000)
  WHERE NOT EXISTS (SELECT 1 FROM outbox AS e
                    WHERE e.outbox_no BETWEEN o.outbox_no - 1000 AND o.outbox_no + 1000
                      AND e.channel = w.channel AND e.finished_at_ms > c.now_ms - 600000)
), unread (consumer, event_no, since_ms, known_ms) AS (
  -- A reader asks for events of one audience, which is not stored. What both audiences miss,
  -- or so many of one as no reader leaves behind, is missed by every reader.
  SELECT r.consumer, f.event_no, f.at_ms, coalesce(max(u.at_ms, o.at_ms), m.at_ms)
  FROM event_cursor AS r
  JOIN event AS f ON f.event_no = (SELECT min(e.event_no) FROM event AS e
                                   WHERE e.event_no > r.event_no)
  LEFT JOIN event AS u ON u.event_no = (SELECT min(e.event_no) FROM event AS e
                                        WHERE e.audience = 'user' AND e.event_no > r.event_no)
  LEFT JOIN event AS o ON o.event_no = (SELECT min(e.event_no) FROM event AS e
                                        WHERE e.audience = 'operator' AND e.event_no > r.event_no)
  LEFT JOIN event AS m ON m.event_no = (SELECT e.event_no FROM event AS e
                                        WHERE e.event_no > r.event_no
                                        ORDER BY e.event_no LIMIT 1 OFFSET 400)
), cool_down (compaction_no, finished_at_ms) AS (
  -- The rule of transcript/compaction.py: only jobs in vain have moved the context.
  SELECT max(r.compaction_no), max(r.finished_at_ms)
  FROM compaction AS r JOIN session AS s ON s.session_no = r.session_no
  WHERE r.session_no IN (SELECT v.session_no FROM clock AS c CROSS JOIN compaction AS v
                         INDEXED BY compaction_in_vain
                         WHERE v.in_vain = 1 AND v.finished_at_ms > c.now_ms - 600000)
    AND r.compaction_no IN (SELECT l.compaction_no FROM compaction AS l
                            WHERE l.session_no = r.session_no
                            ORDER BY l.compaction_no DESC LIMIT 3)
  GROUP BY r.session_no
  HAVING count(*) = 3 AND min(r.in_vain) = 1
     AND min(r.base_epoch) + sum(r.state = 'committed') = s.epoch
), found (what, name, problem, session_no, place, since_ms, until_ms, instance_no, why, next_step)
AS (
  SELECT 'turn', t.turn_no, 'past its lease', t.session_no, 'lane ' || t.lane, t.expires_at_ms,
         NULL, t.instance_no,
         iif(t.expires_at_ms >= t.deadline_ms, 'its time is up', 'its process renews it no more')
           || ', and no loop of a gateway took it over',
         'sessiondb resume DB --run'
  FROM clock AS c JOIN turn AS t ON t.state = 'running' AND t.expires_at_ms <= c.now_ms
  UNION ALL
  SELECT 'reply', o.outbox_no, 'past its lease', o.session_no, 'to ' || o.target, o.expires_at_ms,
         NULL, o.instance_no,
         'its sender gave no answer in time, and no loop of a gateway gave it up',
         'sessiondb resume DB --run'
  FROM clock AS c JOIN outbox AS o ON o.state IN ('pending', 'sending', 'unknown', 'failed')
   AND o.state = 'sending' AND o.expires_at_ms <= c.now_ms
  UNION ALL
  SELECT 'compaction', k.compaction_id, 'past its deadline', k.session_no,
         'trigger ' || k.trigger, k.deadline_ms, NULL, k.instance_no,
         'its process did not end it. A late commit is still reconciled',
         'sessiondb resume DB --run'
  FROM clock AS c JOIN compaction AS k INDEXED BY compaction_one_running
    ON k.state = 'running' AND k.deadline_ms < c.now_ms - 2000
  UNION ALL
  SELECT 'lane', f.lane, 'not run', i.session_no, 'inbox item ' || i.inbox_no,
         max(i.queued_at_ms, i.available_at_ms), NULL, NULL,
         (SELECT count(*) FROM inbox AS q WHERE q.state = 'queued' AND q.lane = f.lane)
           || ' waiting, and there is room. No process runs the lane, or the one that does hangs'
           || coalesce((SELECT '. One drains, and claims no more: ' || d.program || ', pid '
                          || d.pid || ' on ' || d.host FROM instance AS d
                        WHERE d.closed_at_ms IS NULL AND d.draining_at_ms IS NOT NULL
                        ORDER BY d.instance_no DESC LIMIT 1), ''),
         'start a process with db.run_lane() for lane ' || f.lane
  FROM lane_idle AS f JOIN inbox AS i ON i.inbox_no = f.inbox_no
  UNION ALL
  SELECT 'lane', l.lane, 'paused', NULL, NULL, l.paused_at_ms, NULL, NULL,
         (SELECT count(*) FROM inbox AS q WHERE q.state = 'queued'
            AND q.lane IN (l.lane, 'resume') AND coalesce(q.lane_before, q.lane) = l.lane)
           || ' waiting, and no process claims them until somebody resumes the lane',
         'sessiondb lanes DB --resume ' || char(39)
           || replace(l.lane, char(39), char(39, 92, 39, 39)) || char(39)
  FROM lane AS l
  WHERE l.paused_at_ms IS NOT NULL AND l.dropped_at_ms IS NULL
    AND EXISTS (SELECT 1 FROM inbox AS q WHERE q.state = 'queued'
                  AND q.lane IN (l.lane, 'resume') AND coalesce(q.lane_before, q.lane) = l.lane)
  UNION ALL
  SELECT 'channel', f.channel, f.problem, o.session_no,
         'reply ' || o.outbox_no || ' to ' || o.target, f.since_ms, NULL, NULL,
         (SELECT count(*) FROM outbox AS q WHERE q.state = 'pending' AND q.channel = f.channel)
           || ' pending. '
           || iif(f.problem = 'nothing is sent',
                  'No process sends the outbox, or the one that does hangs',
                  o.attempts || ' attempts, the last: ' || coalesce(o.reason, 'no reason is kept')),
         iif(f.problem = 'nothing is sent', 'start a process with db.run_outbox()',
             'mend the channel: its replies are tried again at least once a minute')
  FROM channel_idle AS f JOIN outbox AS o ON o.outbox_no = f.outbox_no
  UNION ALL
  SELECT 'channel', p.channel, 'waits', NULL, NULL, p.refused_since_ms, p.until_ms, NULL,
         'it said so, and none of its replies is sent until then: ' || p.reason,
         'sessiondb outbox DB --state pending'
  FROM clock AS c JOIN channel_pause AS p ON p.begun_at_ms < c.now_ms + 1000
   AND p.until_ms > c.now_ms AND p.until_ms > p.refused_since_ms + 60000
  UNION ALL
  SELECT 'message', i.inbox_no, 'interrupted, and not resumed', i.session_no,
         'lane ' || coalesce(i.lane_before, i.lane), coalesce(t.finished_at_ms, i.accepted_at_ms),
         NULL, NULL,
         coalesce(i.reason, 'the reason is not recorded')
           || '. No resume is queued or runs: --plan instead of --run tells what would be done',
         'sessiondb resume DB --run'
  FROM clock AS c JOIN inbox AS i ON i.state IN ('interrupted', 'dead') AND i.state = 'interrupted'
  LEFT JOIN turn AS t ON t.turn_no = i.turn_no
  WHERE i.restored = 0 AND coalesce(t.finished_at_ms, i.accepted_at_ms) <= c.now_ms - 60000
    AND NOT EXISTS (SELECT 1 FROM inbox AS r WHERE r.state = 'queued' AND r.lane = 'resume')
    AND NOT EXISTS (SELECT 1 FROM turn AS r WHERE r.state = 'running' AND r.lane = 'resume')
    AND NOT EXISTS (SELECT 1 FROM turn_lately AS y
                    WHERE y.lane = 'resume' AND y.at_ms > c.now_ms - 60000)
  UNION ALL
  SELECT 'message', i.inbox_no, 'from a restored backup', i.session_no,
         'lane ' || coalesce(i.lane_before, i.lane), i.accepted_at_ms, NULL, NULL,
         'it may have been answered since the backup was made. '
           || 'If it was, or is not wanted any more: --give-up instead of --requeue',
         'sessiondb inbox DB --requeue ' || i.inbox_no
  FROM inbox AS i
  WHERE i.state IN ('interrupted', 'dead') AND i.state = 'interrupted' AND i.restored = 1
  UNION ALL
  SELECT 'consumer', u.consumer, 'behind', NULL, 'event ' || u.event_no, u.since_ms, NULL, NULL,
         'it handled no event from this one on: nobody reads under this name, or its reader hangs. '
           || 'If nobody is to, --forget forgets it',
         'sessiondb events DB --consumer ' || char(39)
           || replace(u.consumer, char(39), char(39, 92, 39, 39)) || char(39)
  FROM clock AS c JOIN unread AS u ON u.known_ms <= c.now_ms - 600000
  UNION ALL
  SELECT 'import', f.path, 'not finished', f.session_no, 'byte ' || f.bytes, f.imported_at_ms,
         NULL, NULL, 'its process died or was stopped. The next import goes on from there',
         'sessiondb import DB ' || char(39)
           || replace(f.path, char(39), char(39, 92, 39, 39)) || char(39)
  FROM clock AS c CROSS JOIN import_file AS f INDEXED BY import_file_reading
    ON f.state = 'reading'
   AND f.imported_at_ms <= c.now_ms - 600000
  UNION ALL
  SELECT 'archive', a.archive_no, a.state, a.session_no, NULL, a.begun_at_ms, NULL, NULL,
         iif(a.state = 'restoring', 'a restore is under way, or its process died or was stopped',
             'its process died or was stopped') || '. The next call goes on from there',
         iif(a.state = 'restoring', 'sessiondb unarchive DB ' || s.session_id, 'sessiondb gc DB')
  FROM clock AS c JOIN archive AS a ON a.finished_at_ms IS NULL
   AND a.begun_at_ms <= c.now_ms - 3600000
  JOIN session AS s ON s.session_no = a.session_no
  UNION ALL
  SELECT 'compaction', r.compaction_id, 'in cool-down', r.session_no, NULL, f.finished_at_ms,
         f.finished_at_ms + 600000, NULL,
         'the last three made the context hardly smaller. It ends by itself',
         'sessiondb compactions DB --session ' || s.session_id
  FROM clock AS c JOIN cool_down AS f ON f.finished_at_ms > c.now_ms - 600000
   AND f.finished_at_ms < c.now_ms + 1000
  JOIN compaction AS r ON r.compaction_no = f.compaction_no
  JOIN session AS s ON s.session_no = r.session_no
  UNION ALL
  SELECT 'reply', o.outbox_no, o.state, o.session_no, 'to ' || o.target, o.finished_at_ms, NULL,
         NULL, coalesce(o.reason, 'the reason is not recorded')
           || '. If it has arrived: --sent instead of --resend',
         'sessiondb outbox DB --resend ' || o.outbox_no
  FROM outbox AS o
  WHERE o.state IN ('pending', 'sending', 'unknown', 'failed') AND o.state IN ('unknown', 'failed')
  UNION ALL
  SELECT 'message', i.inbox_no, 'dead', i.session_no, 'lane ' || coalesce(i.lane_before, i.lane),
         coalesce(e.at_ms, i.accepted_at_ms), NULL, NULL,
         coalesce(i.reason, 'the reason is not recorded')
           || '. If it is not wanted any more: --drop instead of --requeue',
         'sessiondb dead DB --requeue ' || i.inbox_no
  FROM inbox AS i LEFT JOIN event AS e ON e.event_no = i.told_no
  WHERE i.state IN ('interrupted', 'dead') AND i.state = 'dead'
)
SELECT f.what, CAST(f.name AS TEXT) AS name, f.problem, s.session_id, f.place,
       strftime('%Y-%m-%dT%H:%M:%fZ', f.since_ms / 1000.0, 'unixepoch') AS since,
       strftime('%Y-%m-%dT%H:%M:%fZ', f.until_ms / 1000.0, 'unixepoch') AS until,
       i.pid || '@' || i.host AS owner, f.instance_no, f.why, f.next_step
FROM found AS f LEFT JOIN session AS s ON s.session_no = f.session_no
LEFT JOIN instance AS i ON i.instance_no = f.instance_no;

-- One receipt per imported file.
CREATE VIEW import_log AS
SELECT f.name, f.kind, f.state, s.session_id, f.bytes, f.lines, f.entries, f.quarantined, f.sha256,
       strftime('%Y-%m-%dT%H:%M:%fZ', f.imported_at_ms / 1000.0, 'unixepoch') AS imported_at,
       f.note, f.path
FROM import_file AS f LEFT JOIN session AS s ON s.session_no = f.session_no;

-- Lines that could not be read as entries. An export writes them again.
CREATE VIEW quarantine_log AS
SELECT f.path, q.line, q.byte_offset, q.reason, length(q.content) AS bytes,
       substr(CAST(q.content AS TEXT), 1, 200) AS begins_with
FROM quarantine AS q JOIN import_file AS f ON f.import_file_no = q.import_file_no
WHERE q.severity = 'damaged';

-- Who holds what, since when, until when. `sessiondb held` adds whether the process lives.
CREATE VIEW held AS
SELECT 'turn' AS what, s.session_id, t.turn_no AS number, t.operation,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.started_at_ms / 1000.0, 'unixepoch') AS since,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.expires_at_ms / 1000.0, 'unixepoch') AS until,
       i.pid || '@' || i.host AS owner, i.program,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.draining_at_ms / 1000.0, 'unixepoch') AS draining_since
FROM turn AS t JOIN session AS s ON s.session_no = t.session_no
JOIN instance AS i ON i.instance_no = t.instance_no
WHERE t.state = 'running'
UNION ALL
SELECT 'compaction', s.session_id, c.compaction_no, c.trigger,
       strftime('%Y-%m-%dT%H:%M:%fZ', c.begun_at_ms / 1000.0, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%fZ', c.deadline_ms / 1000.0, 'unixepoch'),
       i.pid || '@' || i.host, i.program,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.draining_at_ms / 1000.0, 'unixepoch')
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.state = 'running'
UNION ALL
SELECT 'reply', s.session_id, o.outbox_no, 'to ' || o.target,
       strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at_ms / 1000.0, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%fZ', o.expires_at_ms / 1000.0, 'unixepoch'),
       i.pid || '@' || i.host, i.program,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.draining_at_ms / 1000.0, 'unixepoch')
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
JOIN instance AS i ON i.instance_no = o.instance_no
WHERE o.state IN ('pending', 'sending', 'unknown', 'failed') AND o.state = 'sending';

-- Accepted messages that are not done: queued, claimed, interrupted or dead.
CREATE VIEW inbox_open AS
SELECT i.inbox_no, i.channel, i.event_id, s.session_id, i.lane, i.state, i.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.accepted_at_ms / 1000.0, 'unixepoch') AS accepted_at,
       i.turn_no, i.reason,
       substr(coalesce(i.payload,
         CAST(substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) AS TEXT)),
         1, 200) AS begins_with
FROM (
  SELECT * FROM inbox WHERE state IN ('queued', 'claimed', 'interrupted')
  UNION ALL
  SELECT * FROM inbox WHERE state IN ('interrupted', 'dead') AND state = 'dead'
) AS i JOIN session AS s ON s.session_no = i.session_no
LEFT JOIN entry AS e ON e.entry_no = i.entry_no AND i.payload IS NULL AND e.type = 'message';

-- Every turn, its message, and how it ended. Messages of old turns are pruned.
CREATE VIEW turn_log AS
SELECT t.turn_no, s.session_id, t.lane, t.kind, t.state, t.attempt, t.incomplete,
       t.inbox_no, m.channel, m.event_id,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.started_at_ms / 1000.0, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.finished_at_ms / 1000.0, 'unixepoch') AS finished_at,
       (t.finished_at_ms - t.started_at_ms) / 1000.0 AS took_s,
       i.pid || '@' || i.host AS owner, t.reason, t.started_at_ms
FROM turn AS t JOIN session AS s ON s.session_no = t.session_no
JOIN instance AS i ON i.instance_no = t.instance_no
LEFT JOIN inbox AS m ON m.inbox_no = t.inbox_no;

-- Every accepted message from its acceptance to the reply that was sent, in one row. A message
-- that was superseded has the times of the turn that answered it, too. `waited_s` ends when that
-- turn began, `took_s` is the turn's, and `sent_after_s` counts from the acceptance. `replies`
-- are those of the turn: `reply_state` is of the one that is furthest from being sent.
CREATE VIEW message_log AS
SELECT m.inbox_no, s.session_id, m.session_key, m.channel, m.event_id, m.lane, m.state,
       m.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.accepted_at_ms / 1000.0, 'unixepoch') AS accepted_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.started_at_ms / 1000.0, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.finished_at_ms / 1000.0, 'unixepoch') AS finished_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.sent_at_ms / 1000.0, 'unixepoch') AS sent_at,
       (t.started_at_ms - m.accepted_at_ms) / 1000.0 AS waited_s,
       (t.finished_at_ms - t.started_at_ms) / 1000.0 AS took_s,
       (m.sent_at_ms - m.accepted_at_ms) / 1000.0 AS sent_after_s,
       t.turn_no, t.state AS turn_state, m.superseded_by, m.replies, m.reply_state,
       coalesce(m.reason, t.reason, m.reply_reason) AS reason, m.begins_with, m.accepted_at_ms
FROM (
  SELECT i.inbox_no, i.session_no, i.session_key, i.channel, i.event_id,
         coalesce(i.lane_before, i.lane) AS lane, i.state, i.attempts, i.accepted_at_ms,
         coalesce(b.turn_no, i.turn_no) AS turn_no, i.superseded_by, i.reason,
         substr(coalesce(i.payload,
           CAST(substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) AS TEXT)),
           1, 200) AS begins_with,
         (SELECT count(*) FROM outbox AS o WHERE o.turn_no = coalesce(b.turn_no, i.turn_no))
           AS replies,
         (SELECT o.state FROM outbox AS o WHERE o.turn_no = coalesce(b.turn_no, i.turn_no)
          ORDER BY instr('failed unknown pending sending sent', o.state) LIMIT 1) AS reply_state,
         (SELECT o.reason FROM outbox AS o WHERE o.turn_no = coalesce(b.turn_no, i.turn_no)
          ORDER BY instr('failed unknown pending sending sent', o.state) LIMIT 1) AS reply_reason,
         -- Only once all are sent.
         (SELECT iif(min(o.state = 'sent'), max(o.finished_at_ms), NULL) FROM outbox AS o
          WHERE o.turn_no = coalesce(b.turn_no, i.turn_no)) AS sent_at_ms
  FROM inbox AS i LEFT JOIN inbox AS b ON b.inbox_no = i.superseded_by
  LEFT JOIN entry AS e ON e.entry_no = i.entry_no AND i.payload IS NULL AND e.type = 'message'
) AS m JOIN session AS s ON s.session_no = m.session_no
LEFT JOIN turn AS t ON t.turn_no = m.turn_no;

-- What each lane does now, and how busy it was in the last hour. `ready` messages wait for
-- nothing but a free place, `retrying` ones for a time. The others wait behind their session.
CREATE VIEW lane_load AS
SELECT l.lane, l.concurrency, l.priority,
       strftime('%Y-%m-%dT%H:%M:%fZ', l.paused_at_ms / 1000.0, 'unixepoch') AS paused_at,
       (SELECT count(*) FROM turn AS t WHERE t.state = 'running' AND t.lane = l.lane) AS running,
       (SELECT count(*) FROM inbox AS i WHERE i.state = 'queued' AND i.lane = l.lane) AS queued,
       (SELECT count(*) FROM inbox AS i WHERE i.state = 'queued' AND i.waits = 0
          AND i.lane = l.lane AND i.available_at_ms <= c.now_ms) AS ready,
       (SELECT count(*) FROM inbox AS i WHERE i.state = 'queued' AND i.waits = 0
          AND i.lane = l.lane AND i.available_at_ms > c.now_ms) AS retrying,
       (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', i.accepted_at_ms / 1000.0, 'unixepoch')
        FROM inbox AS i WHERE i.inbox_no = l.oldest_no) AS oldest_at,
       (SELECT (c.now_ms - i.accepted_at_ms) / 1000.0 FROM inbox AS i
        WHERE i.inbox_no = l.oldest_no) AS oldest_s,
       (SELECT count(*) FROM turn AS t
        WHERE t.started_at_ms > c.now_ms - 3600000 AND t.lane = l.lane) AS turns_last_hour,
       (SELECT round(avg((t.finished_at_ms - t.started_at_ms) / 1000.0), 3) FROM turn AS t
        WHERE t.started_at_ms > c.now_ms - 3600000 AND t.lane = l.lane) AS took_avg_s
FROM (SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000 AS now_ms) AS c
CROSS JOIN (
  SELECT n.lane, n.concurrency, n.priority, n.paused_at_ms,
         (SELECT min(i.inbox_no) FROM inbox AS i INDEXED BY inbox_queued
          WHERE i.state = 'queued' AND i.lane = n.lane) AS oldest_no
  FROM lane AS n WHERE n.dropped_at_ms IS NULL
) AS l;

-- Every process that opened the file for writing, and how it ended. `open` is one that runs, or
-- died a moment ago: `sessiondb status` looks whether it lives.
CREATE VIEW process_log AS
SELECT i.instance_no, i.program, i.pid || '@' || i.host AS owner,
       CASE WHEN i.unclean = 1 THEN 'died' WHEN i.closed_at_ms IS NOT NULL THEN 'closed'
            WHEN i.draining_at_ms IS NOT NULL THEN 'draining' ELSE 'open' END AS state,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.opened_at_ms / 1000.0, 'unixepoch') AS opened_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.draining_at_ms / 1000.0, 'unixepoch') AS draining_since,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.closed_at_ms / 1000.0, 'unixepoch') AS closed_at,
       (i.closed_at_ms - i.opened_at_ms) / 1000.0 AS ran_s, i.opened_at_ms
FROM instance AS i;

-- What each reply of a model used, as its provider counted. `tokens_in` is all that the model
-- read, `tokens_cached` what of it came from the provider's cache. `tokens_total` is the provider's
-- own sum. `cost` is in its currency, where the message has it. A reply without usage has no row.
CREATE VIEW usage_log AS
SELECT strftime('%Y-%m-%dT%H:%M:%fZ', r.appended_at_ms / 1000.0, 'unixepoch') AS appended_at,
       s.session_id, s.agent_id,
       iif(json_type(r.message, '$.provider') = 'text', r.message ->> '$.provider', NULL)
         AS provider,
       iif(json_type(r.message, '$.model') = 'text', r.message ->> '$.model', NULL) AS model,
       -- Three names for one thing. Two of the formats count the cache apart, two within.
       (SELECT CAST(min(max(iif(u.key IN ('input', 'prompt_tokens', 'input_tokens'), u.value, 0))
                 + total(iif(u.key IN ('input', 'prompt_tokens', 'input_tokens'), 0, u.value)),
                 1e12) AS INTEGER)
        FROM json_each(r.message, '$.usage') AS u
        WHERE u.key IN ('input', 'prompt_tokens', 'input_tokens', 'cacheRead', 'cacheWrite',
                        'cache_read_input_tokens', 'cache_creation_input_tokens')
          AND u.type IN ('integer', 'real') AND u.value BETWEEN 0 AND 1e12) AS tokens_in,
       (SELECT CAST(max(u.value) AS INTEGER) FROM json_tree(r.message, '$.usage') AS u
        WHERE u.key IN ('cacheRead', 'cache_read_input_tokens', 'cached_tokens')
          AND u.type IN ('integer', 'real') AND u.value BETWEEN 0 AND 1e12) AS tokens_cached,
       (SELECT CAST(max(u.value) AS INTEGER) FROM json_each(r.message, '$.usage') AS u
        WHERE u.key IN ('output', 'completion_tokens', 'output_tokens')
          AND u.type IN ('integer', 'real') AND u.value BETWEEN 0 AND 1e12) AS tokens_out,
       (SELECT CAST(max(u.value) AS INTEGER) FROM json_each(r.message, '$.usage') AS u
        WHERE u.key IN ('totalTokens', 'total_tokens')
          AND u.type IN ('integer', 'real') AND u.value BETWEEN 0 AND 1e12) AS tokens_total,
       (SELECT max(u.value) FROM json_tree(r.message, '$.usage') AS u
        WHERE u.fullkey IN ('$.usage.cost', '$.usage.cost.total')
          AND u.type IN ('integer', 'real') AND u.value BETWEEN 0 AND 1e12) AS cost,
       r.entry_id, r.appended_at_ms
FROM (
  SELECT e.entry_no, e.appended_at_ms, e.entry_id, json_extract(e.payload, '$.message') AS message
  FROM entry AS e
  WHERE e.role = 'assistant'
    AND iif(json_valid(e.payload), json_type(e.payload, '$.message.usage'), NULL) = 'object'
    -- A line of a file whose parent came late is two entries, and was paid for once.
    AND NOT EXISTS (SELECT 1 FROM entry AS c
                    WHERE c.entry_no >> 32 = e.entry_no >> 32 AND c.entry_id = e.entry_id
                      AND c.entry_no < e.entry_no AND c.payload = e.payload)
) AS r JOIN session AS s ON s.session_no = r.entry_no >> 32
 AND r.entry_no BETWEEN s.session_no << 32 AND (s.session_no << 32) + 4294967295;

-- Replies that are not sent: pending, sending, failed or unknown.
CREATE VIEW outbox_open AS
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at_ms / 1000.0, 'unixepoch') AS created_at,
       o.reason, substr(o.payload, 1, 200) AS begins_with
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state IN ('pending', 'sending', 'unknown', 'failed');

-- Every event, with its session.
CREATE VIEW event_log AS
SELECT e.event_no, strftime('%Y-%m-%dT%H:%M:%fZ', e.at_ms / 1000.0, 'unixepoch') AS at,
       e.kind, e.audience, s.session_id, e.text, e.data
FROM event AS e LEFT JOIN session AS s ON s.session_no = e.session_no;

-- Archived sessions, and the space that each takes in the file.
CREATE VIEW archive_log AS
SELECT s.session_id, a.state, a.reason, s.last_seq AS entries, a.rows, a.bytes, a.bytes_stored,
       a.encoding, a.session_keys,
       strftime('%Y-%m-%dT%H:%M:%fZ', a.begun_at_ms / 1000.0, 'unixepoch') AS begun_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', a.finished_at_ms / 1000.0, 'unixepoch') AS finished_at
FROM archive AS a JOIN session AS s ON s.session_no = a.session_no;

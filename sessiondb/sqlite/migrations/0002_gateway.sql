-- What a gateway needs beside transcripts: an inbox, turns, lanes, an outbox, events, and archives.
--
-- Until now a message was safe only once it was in a transcript; whoever received it had to keep it until then. All
-- tables are new, and the three columns are added with defaults: no table is rewritten, whatever the file's size. Two indexes
-- are built over tables that were there, see below: `session` and `source`, a row per session and per file.

-- Lanes: how many turns may run at once, in all processes together. A lower priority number goes first.
CREATE TABLE lane (
  lane          TEXT    NOT NULL PRIMARY KEY,
  concurrency   INTEGER NOT NULL CONSTRAINT lane_concurrency_positive CHECK (concurrency >= 1),
  priority      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO lane (lane, concurrency, priority) VALUES ('main', 4, 0), ('cron', 1, 10), ('resume', 1, 20);

-- A turn: one run of the agent over one claimed message. Its number is its fencing token: numbers only
-- grow, and a write that names a turn is refused unless that turn is still running. The lease says until
-- when its owner has promised to be heard of.
CREATE TABLE turn (
  turn_no           INTEGER PRIMARY KEY AUTOINCREMENT,
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  lane              TEXT    NOT NULL REFERENCES lane (lane),
  kind              TEXT    NOT NULL CONSTRAINT turn_kind_known CHECK (kind IN ('message', 'resume')),
  state             TEXT    NOT NULL CONSTRAINT turn_state_known
                    CHECK (state IN ('running', 'completed', 'failed', 'aborted', 'interrupted')),
  inbox_no          INTEGER NOT NULL,
  attempt           INTEGER NOT NULL,
  operation         TEXT    NOT NULL,           -- what it is doing now, for `held`
  instance_no       INTEGER NOT NULL REFERENCES instance (instance_no),
  started_at_ms     INTEGER NOT NULL,
  renewed_at_ms     INTEGER NOT NULL,
  expires_at_ms     INTEGER NOT NULL,           -- the lease: taken over after this
  deadline_ms       INTEGER NOT NULL,           -- renewals cannot pass this
  finished_at_ms    INTEGER,
  incomplete        INTEGER NOT NULL DEFAULT 0, -- 1: it ended without a usable answer
  reason            TEXT,
  CONSTRAINT turn_finished_when_not_running CHECK ((state = 'running') = (finished_at_ms IS NULL))
) STRICT;
CREATE UNIQUE INDEX turn_one_running ON turn (session_no) WHERE state = 'running';
CREATE INDEX turn_running ON turn (lane, expires_at_ms) WHERE state = 'running';
CREATE INDEX turn_by_session ON turn (session_no);

-- The inbox: a message that was accepted is a row here, whatever happens next.
--   queued -> claimed -> done | dead;  held: its turn was interrupted, the resume plan decides
CREATE TABLE inbox (
  inbox_no          INTEGER PRIMARY KEY AUTOINCREMENT,
  source            TEXT    NOT NULL,           -- which adapter: discord:bot1, web, cron
  event_id          TEXT    NOT NULL,           -- the adapter's own id of the message
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  lane              TEXT    NOT NULL REFERENCES lane (lane),
  state             TEXT    NOT NULL CONSTRAINT inbox_state_known
                    CHECK (state IN ('queued', 'claimed', 'held', 'done', 'dead')),
  accepted_at_ms    INTEGER NOT NULL,
  available_at_ms   INTEGER NOT NULL,           -- a retry waits until then
  attempts          INTEGER NOT NULL DEFAULT 0,
  turn_no           INTEGER,                    -- the last one that claimed it
  entry_no          INTEGER,                    -- its user entry, once it was claimed
  delayed           INTEGER NOT NULL DEFAULT 0, -- 1: the user has been told to wait
  timeout_ms        INTEGER,                    -- of a resume: its turn is cut off after this; NULL: as its lane says
  lane_before       TEXT,                       -- of a resume: the lane that it was accepted in
  reason            TEXT,
  payload           TEXT    NOT NULL,           -- the message, as JSON
  CONSTRAINT inbox_event_once UNIQUE (source, event_id)
) STRICT;
CREATE INDEX inbox_waiting ON inbox (lane, available_at_ms) WHERE state = 'queued';   -- what is due is sought, not looked for
CREATE INDEX inbox_of_session ON inbox (session_no, inbox_no) WHERE state IN ('queued', 'claimed', 'held');
CREATE INDEX inbox_untold ON inbox (lane, inbox_no) WHERE state = 'queued' AND delayed = 0;
CREATE INDEX inbox_held ON inbox (state, inbox_no) WHERE state IN ('held', 'dead');

-- The outbox: replies, written in the transaction that completes their turn.
--   pending -> sending -> sent | failed | unknown (its sender died between sending and hearing back)
CREATE TABLE outbox (
  outbox_no         INTEGER PRIMARY KEY AUTOINCREMENT,
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  turn_no           INTEGER,                    -- whose answer it is; that row may have been pruned
  target            TEXT    NOT NULL,           -- the channel's address for this reply
  state             TEXT    NOT NULL CONSTRAINT outbox_state_known
                    CHECK (state IN ('pending', 'sending', 'sent', 'unknown', 'failed')),
  attempts          INTEGER NOT NULL DEFAULT 0, -- only grows: which attempt it is fences what an older one still says
  attempts_before   INTEGER NOT NULL DEFAULT 0, -- of these, before an operator asked for it again
  instance_no       INTEGER REFERENCES instance (instance_no),   -- who is sending it
  expires_at_ms     INTEGER,                    -- ... and until when it is believed to
  created_at_ms     INTEGER NOT NULL,
  available_at_ms   INTEGER NOT NULL,           -- a retry waits until then
  asked_at_ms       INTEGER,                    -- when an operator asked for it again: how long it is tried counts from then
  finished_at_ms    INTEGER,
  receipt           TEXT,                       -- the channel's id of what was sent
  reason            TEXT,
  payload           TEXT    NOT NULL
) STRICT;
CREATE INDEX outbox_unsent ON outbox (state, outbox_no) WHERE state IN ('pending', 'sending', 'unknown', 'failed');
CREATE INDEX outbox_of_session ON outbox (session_no, outbox_no) WHERE state IN ('pending', 'sending');
CREATE INDEX outbox_waiting ON outbox (available_at_ms) WHERE state = 'pending';

-- What happened that somebody should know: an operator, or the person who waits. Written in the
-- transaction of the change itself, read from a cursor.
CREATE TABLE event (
  event_no          INTEGER PRIMARY KEY AUTOINCREMENT,
  kind              TEXT    NOT NULL,
  audience          TEXT    NOT NULL CONSTRAINT event_audience_known CHECK (audience IN ('operator', 'user')),
  session_no        INTEGER REFERENCES session (session_no),
  at_ms             INTEGER NOT NULL,
  text              TEXT    NOT NULL,           -- what to say
  data              TEXT    NOT NULL CONSTRAINT event_data_json CHECK (json_valid(data))
) STRICT;
CREATE INDEX event_by_audience ON event (audience, event_no);
CREATE TABLE event_cursor (
  consumer          TEXT    NOT NULL PRIMARY KEY,
  event_no          INTEGER NOT NULL            -- everything up to this has been handled
) STRICT, WITHOUT ROWID;

-- An archived session: its rows, compressed, in chunks; written and checked before the rows are deleted.
--   writing -> complete -> deleting -> archived -> restoring -> restored;  deleted: gone, without an archive
-- The session's own row stays for ever as its tombstone, so numbers and epochs are never given out twice.
CREATE TABLE archive (
  archive_no      INTEGER PRIMARY KEY,
  session_no      INTEGER NOT NULL REFERENCES session (session_no),
  state           TEXT    NOT NULL CONSTRAINT archive_state_known CHECK (state IN
                  ('writing', 'complete', 'deleting', 'archived', 'restoring', 'restored', 'deleted')),
  reason          TEXT    NOT NULL,
  encoding        TEXT    NOT NULL CONSTRAINT archive_encoding_known CHECK (encoding IN ('zstd', 'zlib', 'none')),
  begun_at_ms     INTEGER NOT NULL,
  finished_at_ms  INTEGER,                      -- NULL: there is still something to do
  rows            INTEGER NOT NULL DEFAULT 0,
  bytes           INTEGER NOT NULL DEFAULT 0,   -- before compression
  bytes_stored    INTEGER NOT NULL DEFAULT 0,
  session_keys    TEXT    NOT NULL              -- what pointed at it, as a JSON array
) STRICT;
CREATE UNIQUE INDEX archive_one_open ON archive (session_no) WHERE state <> 'restored';
CREATE INDEX archive_by_session ON archive (session_no);
CREATE INDEX archive_unfinished ON archive (archive_no) WHERE finished_at_ms IS NULL;
CREATE TABLE archive_chunk (
  archive_no      INTEGER NOT NULL REFERENCES archive (archive_no),
  chunk_no        INTEGER NOT NULL,
  what            TEXT    NOT NULL,             -- the table whose rows these are
  rows            INTEGER NOT NULL,
  sha256          TEXT    NOT NULL,             -- of the JSON lines before compression
  content         BLOB    NOT NULL,
  PRIMARY KEY (archive_no, chunk_no)
) STRICT, WITHOUT ROWID;

ALTER TABLE session ADD COLUMN pinned_at_ms INTEGER;
ALTER TABLE session ADD COLUMN archived_at_ms INTEGER;
CREATE INDEX session_by_fork ON session (forked_from_no) WHERE forked_from_no IS NOT NULL;
ALTER TABLE instance ADD COLUMN unclean INTEGER NOT NULL DEFAULT 0;
CREATE INDEX instance_open ON instance (instance_no) WHERE closed_at_ms IS NULL;
CREATE INDEX instance_unclean ON instance (opened_at_ms) WHERE unclean = 1;
-- An import asks under which names it has seen a file's inode, once per 500 new files; without an index each time reads all
-- receipts, so a first import took quadratic time. Built by reading `source` once: one row per imported file, about a second
-- for a million of them.
CREATE INDEX source_by_inode ON source (inode) WHERE inode IS NOT NULL;

-- Who holds what, since when, until when. Whether the process lives is what `sessiondb held` adds.
CREATE VIEW held AS
SELECT 'turn' AS what, s.session_id, t.turn_no AS number, t.operation,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.started_at_ms / 1000.0, 'unixepoch') AS since,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.expires_at_ms / 1000.0, 'unixepoch') AS until,
       i.pid || '@' || i.host AS owner, i.program
FROM turn AS t JOIN session AS s ON s.session_no = t.session_no JOIN instance AS i ON i.instance_no = t.instance_no
WHERE t.state = 'running'
UNION ALL
SELECT 'compaction', s.session_id, c.compaction_no, c.trigger,
       strftime('%Y-%m-%dT%H:%M:%fZ', c.begun_at_ms / 1000.0, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%fZ', c.deadline_ms / 1000.0, 'unixepoch'),
       i.pid || '@' || i.host, i.program
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.state = 'running'
UNION ALL
SELECT 'reply', s.session_id, o.outbox_no, 'to ' || o.target,
       strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at_ms / 1000.0, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%fZ', o.expires_at_ms / 1000.0, 'unixepoch'),
       i.pid || '@' || i.host, i.program
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no JOIN instance AS i ON i.instance_no = o.instance_no
WHERE o.state = 'sending';

-- What was accepted and is not done: waiting, being worked on, interrupted, or dead.
CREATE VIEW inbox_open AS
SELECT i.inbox_no, i.source, i.event_id, s.session_id, i.lane, i.state, i.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.accepted_at_ms / 1000.0, 'unixepoch') AS accepted_at, i.turn_no, i.reason,
       substr(i.payload, 1, 200) AS begins_with
FROM inbox AS i JOIN session AS s ON s.session_no = i.session_no
WHERE i.state <> 'done';

-- Every turn, and how it ended.
CREATE VIEW turn_log AS
SELECT t.turn_no, s.session_id, t.lane, t.kind, t.state, t.attempt, t.incomplete,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.started_at_ms / 1000.0, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.finished_at_ms / 1000.0, 'unixepoch') AS finished_at,
       (t.finished_at_ms - t.started_at_ms) / 1000.0 AS took_s, i.pid || '@' || i.host AS owner, t.reason
FROM turn AS t JOIN session AS s ON s.session_no = t.session_no JOIN instance AS i ON i.instance_no = t.instance_no;

-- Replies that are not simply sent: waiting, under way, failed, or unknown.
CREATE VIEW outbox_open AS
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at_ms / 1000.0, 'unixepoch') AS created_at, o.reason, substr(o.payload, 1, 200) AS begins_with
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state <> 'sent';

-- What happened that somebody should know.
CREATE VIEW event_log AS
SELECT e.event_no, strftime('%Y-%m-%dT%H:%M:%fZ', e.at_ms / 1000.0, 'unixepoch') AS at, e.kind, e.audience, s.session_id, e.text, e.data
FROM event AS e LEFT JOIN session AS s ON s.session_no = e.session_no;

DROP VIEW session_overview;
-- One line per session: who it is, how long, how heavy, and when it last moved.
CREATE VIEW session_overview AS
SELECT s.session_id,
       (SELECT group_concat(b.session_key, ', ') FROM binding AS b WHERE b.session_no = s.session_no) AS session_keys,
       s.agent_id,
       CASE WHEN s.archived_at_ms IS NOT NULL THEN 'archived' WHEN s.ended_at_ms IS NULL THEN 'live' ELSE 'ended' END AS state,
       s.entries,
       s.epoch,
       (SELECT count(*) FROM compaction AS c WHERE c.session_no = s.session_no AND c.state = 'committed') AS compactions,
       s.context_tokens,
       CASE s.tokens_fresh WHEN 1 THEN 'counted' ELSE 'estimated' END AS tokens_are,
       s.name,
       s.origin,
       (SELECT f.session_id FROM session AS f WHERE f.session_no = s.forked_from_no) AS forked_from,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.created_at_ms / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.updated_at_ms / 1000.0, 'unixepoch') AS updated_at
FROM session AS s;

-- Archived sessions, and how much of them is left in the file.
CREATE VIEW archive_log AS
SELECT s.session_id, a.state, a.reason, s.entries, a.rows, a.bytes, a.bytes_stored, a.encoding, a.session_keys,
       strftime('%Y-%m-%dT%H:%M:%fZ', a.begun_at_ms / 1000.0, 'unixepoch') AS begun_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', a.finished_at_ms / 1000.0, 'unixepoch') AS finished_at
FROM archive AS a JOIN session AS s ON s.session_no = a.session_no;

PRAGMA user_version = 2;

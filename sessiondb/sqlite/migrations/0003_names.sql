-- Four names that meant two things, or the wrong one.
--
-- `source` was a table of imported files and a column for the channel of a message. The table
-- becomes `import_file`, the column `channel`. `session.entries` was the last seq, not a count.
-- It becomes `last_seq`. A message whose turn was interrupted had the state `held`, although
-- nothing held it. The state becomes `interrupted`.
--
-- Rewritten are import_file (a row per file), quarantine (the damaged lines) and inbox (a row
-- per message that was not pruned). `entry`, which has the bytes, is not touched. It takes
-- about a second for 100 MB of messages.

DROP VIEW archive_log;
DROP VIEW event_log;
DROP VIEW outbox_open;
DROP VIEW turn_log;
DROP VIEW inbox_open;
DROP VIEW held;
DROP VIEW quarantined;
DROP VIEW import_log;
DROP VIEW stuck;
DROP VIEW epoch_log;
DROP VIEW compaction_log;
DROP VIEW live_context;
DROP VIEW transcript;
DROP VIEW session_overview;

ALTER TABLE session RENAME COLUMN entries TO last_seq;

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
  content           BLOB                        -- a whole index file. NULL: a transcript, because
                                                -- its lines are entries
) STRICT;
INSERT INTO import_file (import_file_no, path, name, kind, session_no, agent_id, bytes, lines,
  entries, quarantined, sha256, final_newline, inode, imported_at_ms, state, note, content)
SELECT source_no, path, name, kind, session_no, agent_id, bytes, lines,
  entries, quarantined, sha256, final_newline, inode, imported_at_ms, state, note, content
FROM source;
ALTER TABLE quarantine RENAME TO quarantine_before;
CREATE TABLE quarantine (
  import_file_no  INTEGER NOT NULL REFERENCES import_file (import_file_no),
  line            INTEGER NOT NULL,             -- 1-based
  byte_offset     INTEGER NOT NULL,
  after_seq       INTEGER NOT NULL,             -- -1: before the first entry
  reason          TEXT    NOT NULL,
  severity        TEXT    NOT NULL
                  CONSTRAINT quarantine_severity_known CHECK (severity IN ('blank', 'damaged')),
  content         BLOB    NOT NULL,
  PRIMARY KEY (import_file_no, byte_offset)
) STRICT, WITHOUT ROWID;
INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity, content)
SELECT source_no, line, byte_offset, after_seq, reason, severity, content FROM quarantine_before;
DROP TABLE quarantine_before;
DROP TABLE source;
CREATE INDEX import_file_by_session ON import_file (session_no) WHERE session_no IS NOT NULL;
CREATE INDEX import_file_by_inode ON import_file (inode) WHERE inode IS NOT NULL;

ALTER TABLE inbox RENAME TO inbox_before;
CREATE TABLE inbox (
  inbox_no          INTEGER PRIMARY KEY AUTOINCREMENT,
  channel           TEXT    NOT NULL,           -- the adapter: discord:bot1, web, cron
  event_id          TEXT    NOT NULL,           -- the adapter's own id of the message
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  lane              TEXT    NOT NULL REFERENCES lane (lane),
  state             TEXT    NOT NULL CONSTRAINT inbox_state_known
                    CHECK (state IN ('queued', 'claimed', 'interrupted', 'done', 'dead')),
  accepted_at_ms    INTEGER NOT NULL,
  available_at_ms   INTEGER NOT NULL,           -- a retry waits until then
  attempts          INTEGER NOT NULL DEFAULT 0,
  turn_no           INTEGER,                    -- the last turn that claimed it
  entry_no          INTEGER,                    -- its user entry, once it was claimed
  delayed           INTEGER NOT NULL DEFAULT 0, -- 1: the user was told that the answer takes longer
  timeout_ms        INTEGER,                    -- of a resume: its turn's time. NULL: its lane's
  lane_before       TEXT,                       -- of a resume: the lane that accepted it
  reason            TEXT,
  payload           TEXT    NOT NULL,           -- the message, as JSON
  CONSTRAINT inbox_event_once UNIQUE (channel, event_id)
) STRICT;
INSERT INTO inbox (inbox_no, channel, event_id, session_no, lane, state, accepted_at_ms,
  available_at_ms, attempts, turn_no, entry_no, delayed, timeout_ms, lane_before, reason, payload)
SELECT inbox_no, source, event_id, session_no, lane,
  CASE state WHEN 'held' THEN 'interrupted' ELSE state END, accepted_at_ms,
  available_at_ms, attempts, turn_no, entry_no, delayed, timeout_ms, lane_before, reason, payload
FROM inbox_before;
-- Numbers of pruned messages are not assigned again.
DELETE FROM sqlite_sequence WHERE name = 'inbox';
INSERT INTO sqlite_sequence (name, seq)
SELECT 'inbox', seq FROM sqlite_sequence WHERE name = 'inbox_before';
DROP TABLE inbox_before;
CREATE INDEX inbox_waiting ON inbox (lane, available_at_ms) WHERE state = 'queued';
CREATE INDEX inbox_of_session ON inbox (session_no, inbox_no)
WHERE state IN ('queued', 'claimed', 'interrupted');
CREATE INDEX inbox_untold ON inbox (lane, inbox_no) WHERE state = 'queued' AND delayed = 0;
CREATE INDEX inbox_interrupted ON inbox (state, inbox_no) WHERE state IN ('interrupted', 'dead');

-- Views for the shell. They compute everything from the tables above. None is stored.

-- One line per session: who it is, how long, how heavy, and when it last moved.
CREATE VIEW session_overview AS
SELECT s.session_id,
       (SELECT group_concat(b.session_key, ', ') FROM binding AS b
        WHERE b.session_no = s.session_no) AS session_keys,
       s.agent_id,
       CASE WHEN s.archived_at_ms IS NOT NULL THEN 'archived'
            WHEN s.ended_at_ms IS NULL THEN 'live' ELSE 'ended' END AS state,
       s.last_seq AS entries,
       s.epoch,
       (SELECT count(*) FROM compaction AS c
        WHERE c.session_no = s.session_no AND c.state = 'committed') AS compactions,
       s.context_tokens,
       CASE s.tokens_fresh WHEN 1 THEN 'counted' ELSE 'estimated' END AS tokens_are,
       s.name,
       s.origin,
       (SELECT f.session_id FROM session AS f WHERE f.session_no = s.forked_from_no) AS forked_from,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.created_at_ms / 1000.0, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', s.updated_at_ms / 1000.0, 'unixepoch') AS updated_at
FROM session AS s;

-- Everything that was ever said, in order of arrival, with its text. Filter by session_id.
CREATE VIEW transcript AS
SELECT s.session_id,
       e.entry_no & 0xffffffff AS seq,
       strftime('%Y-%m-%dT%H:%M:%fZ', e.appended_at_ms / 1000.0, 'unixepoch') AS appended_at,
       e.type,
       e.role,
       CASE
         WHEN json_type(e.payload, '$.message.content') = 'text'
         THEN e.payload ->> '$.message.content'
         WHEN json_type(e.payload, '$.message.content') = 'array' THEN
           (SELECT group_concat(CASE b.value ->> '$.type'
                      WHEN 'text' THEN b.value ->> '$.text'
                      WHEN 'toolCall' THEN '[call ' || (b.value ->> '$.name') || ' '
                                           || coalesce(b.value -> '$.arguments', '') || ']'
                      ELSE '[' || coalesce(b.value ->> '$.type', '?') || ']' END, char(10))
            FROM json_each(e.payload, '$.message.content') AS b WHERE b.type = 'object')
         ELSE coalesce(e.payload ->> '$.summary', e.payload ->> '$.message.command',
                       e.payload ->> '$.content', e.payload ->> '$.name')
       END AS text,
       e.tokens,
       e.entry_id,
       (SELECT p.entry_id FROM entry AS p WHERE p.entry_no = e.parent_no) AS parent_id,
       e.idempotency_key,
       e.entry_no
FROM entry AS e JOIN session AS s ON s.session_no = e.entry_no >> 32;

-- The context that the model would be sent now, in order: the summary, the entries that
-- it kept, and everything since. Filter by session_id, because otherwise the path of
-- every session is walked.
CREATE VIEW live_context AS
WITH RECURSIVE path (session_no, branch_no, high_no, start_no) AS (
  SELECT s.session_no, h.branch_no, s.head_no, coalesce(s.first_kept_no, s.boundary_no, 0)
  FROM session AS s JOIN entry AS h ON h.entry_no = s.head_no
  UNION ALL
  SELECT p.session_no, b.parent_branch_no, b.fork_no, p.start_no
  FROM path AS p JOIN branch AS b ON b.branch_no = p.branch_no
  WHERE b.fork_no >= p.start_no
), part (session_no, entry_no) AS (
  SELECT p.session_no, e.entry_no
  FROM path AS p JOIN branch AS b ON b.branch_no = p.branch_no
  JOIN entry AS e
    ON e.entry_no BETWEEN max(b.first_no, p.start_no) AND p.high_no AND e.branch_no = p.branch_no
  WHERE e.projection IN (1, 3, 4)
  UNION ALL
  SELECT s.session_no, s.boundary_no
  FROM session AS s JOIN entry AS e ON e.entry_no = s.boundary_no
  WHERE e.type = 'compaction'
)
SELECT t.session_id AS written_in,
       s.session_id,
       row_number() OVER (PARTITION BY s.session_no
                          ORDER BY part.entry_no <> ifnull(s.boundary_no, 0), part.entry_no)
         AS place,
       CASE WHEN part.entry_no = s.boundary_no THEN 'summary'
            WHEN part.entry_no < s.boundary_no THEN 'kept' ELSE 'since' END AS why,
       t.seq, t.appended_at, t.type, t.role, t.tokens, t.text, t.entry_id
FROM part JOIN session AS s ON s.session_no = part.session_no
JOIN transcript AS t ON t.entry_no = part.entry_no;

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

-- What needs an operator: jobs past their deadline, and sessions in cool-down.
CREATE VIEW stuck AS
SELECT s.session_id, 'compaction overdue' AS what, c.compaction_id,
       strftime('%Y-%m-%dT%H:%M:%fZ', c.deadline_ms / 1000.0, 'unixepoch') AS since,
       NULL AS until,
  'ends by itself when the next compaction of the session begins; a late commit is still reconciled'
         AS what_happens
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
WHERE c.state = 'running' AND c.deadline_ms < CAST(strftime('%s', 'now') AS INTEGER) * 1000
UNION ALL
SELECT s.session_id, 'compaction cool-down', max(r.compaction_id),
       strftime('%Y-%m-%dT%H:%M:%fZ', max(r.finished_at_ms) / 1000.0, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%fZ', max(r.finished_at_ms) / 1000.0 + 600, 'unixepoch'),
       'the last three summaries made the context no smaller; compaction is refused until then'
FROM session AS s JOIN compaction AS r ON r.session_no = s.session_no
WHERE r.compaction_no IN
      (SELECT l.compaction_no FROM compaction AS l WHERE l.session_no = s.session_no
       ORDER BY l.compaction_no DESC LIMIT 3)
GROUP BY s.session_no
HAVING count(*) = 3 AND min(r.state = 'rejected') = 1 AND min(r.base_epoch) = s.epoch
   AND max(r.finished_at_ms) + 600000 > CAST(strftime('%s', 'now') AS INTEGER) * 1000;

-- One receipt per imported file.
CREATE VIEW import_log AS
SELECT f.name, f.kind, f.state, s.session_id, f.bytes, f.lines, f.entries, f.quarantined, f.sha256,
       strftime('%Y-%m-%dT%H:%M:%fZ', f.imported_at_ms / 1000.0, 'unixepoch') AS imported_at,
       f.note, f.path
FROM import_file AS f LEFT JOIN session AS s ON s.session_no = f.session_no;

-- Lines that could not be read as entries. An export writes them again.
CREATE VIEW quarantined AS
SELECT f.path, q.line, q.byte_offset, q.reason, length(q.content) AS bytes,
       substr(CAST(q.content AS TEXT), 1, 200) AS begins_with
FROM quarantine AS q JOIN import_file AS f ON f.import_file_no = q.import_file_no
WHERE q.severity = 'damaged';

-- Who holds what, since when, until when. `sessiondb held` adds whether the process lives.
CREATE VIEW held AS
SELECT 'turn' AS what, s.session_id, t.turn_no AS number, t.operation,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.started_at_ms / 1000.0, 'unixepoch') AS since,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.expires_at_ms / 1000.0, 'unixepoch') AS until,
       i.pid || '@' || i.host AS owner, i.program
FROM turn AS t JOIN session AS s ON s.session_no = t.session_no
JOIN instance AS i ON i.instance_no = t.instance_no
WHERE t.state = 'running'
UNION ALL
SELECT 'compaction', s.session_id, c.compaction_no, c.trigger,
       strftime('%Y-%m-%dT%H:%M:%fZ', c.begun_at_ms / 1000.0, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%fZ', c.deadline_ms / 1000.0, 'unixepoch'),
       i.pid || '@' || i.host, i.program
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.state = 'running'
UNION ALL
SELECT 'reply', s.session_id, o.outbox_no, 'to ' || o.target,
       strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at_ms / 1000.0, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%fZ', o.expires_at_ms / 1000.0, 'unixepoch'),
       i.pid || '@' || i.host, i.program
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
JOIN instance AS i ON i.instance_no = o.instance_no
WHERE o.state = 'sending';

-- Accepted messages that are not done: queued, claimed, interrupted or dead.
CREATE VIEW inbox_open AS
SELECT i.inbox_no, i.channel, i.event_id, s.session_id, i.lane, i.state, i.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.accepted_at_ms / 1000.0, 'unixepoch') AS accepted_at,
       i.turn_no, i.reason,
       substr(i.payload, 1, 200) AS begins_with
FROM inbox AS i JOIN session AS s ON s.session_no = i.session_no
WHERE i.state <> 'done';

-- Every turn, and how it ended.
CREATE VIEW turn_log AS
SELECT t.turn_no, s.session_id, t.lane, t.kind, t.state, t.attempt, t.incomplete,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.started_at_ms / 1000.0, 'unixepoch') AS started_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.finished_at_ms / 1000.0, 'unixepoch') AS finished_at,
       (t.finished_at_ms - t.started_at_ms) / 1000.0 AS took_s,
       i.pid || '@' || i.host AS owner, t.reason
FROM turn AS t JOIN session AS s ON s.session_no = t.session_no
JOIN instance AS i ON i.instance_no = t.instance_no;

-- Replies that are not sent: pending, sending, failed or unknown.
CREATE VIEW outbox_open AS
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at_ms / 1000.0, 'unixepoch') AS created_at,
       o.reason, substr(o.payload, 1, 200) AS begins_with
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state <> 'sent';

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

PRAGMA user_version = 3;

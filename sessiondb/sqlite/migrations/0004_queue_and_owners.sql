-- How a message ended, who was told of it, who sent it, and what makes two deliveries the same
-- message.
--
-- `session_key` and `digest` tell a message that is delivered again from another one with the
-- same event id. Messages of before have neither, and are known by their event id alone.
-- `told_no` is the event that told the sender of a message that it ended without an answer.
-- Messages that ended so before have 0: their events may be pruned. `by_person` says whether a
-- person sent a message, because only a person's may take the place of one that was
-- interrupted. `lane.people` is its default. Before, lane main was people's.
-- `available_at_ms` is 0 unless a message, or a reply, waits for its retry: nothing else waits
-- for a time. `queued_at_ms` says from when on lanes before its own may hold a message back.
-- `waits` marks messages that a look need not read: they wait for another one of their session.
-- `restored` marks what was open in a backup that was restored: a person decides about it.
-- `stops` counts the attempts that an orderly stop ended: no reason to give a message up.
-- `heard` marks messages that are not for the agent: no turn answers them.
-- `details` is what an adapter keeps with a message. Its replies have it, too.
-- `payload` is NULL from when a message is appended: its entry, or its archive, has the text.
-- Without either the text stays where it is.
--
-- Rewritten are inbox (a row per message that was not pruned), quarantine (the damaged lines
-- of imported files) and archive_chunk (archives, which are compressed). It takes about a second
-- for 100 MB of messages, and for 200 MB of archives. `entry`, which has the
-- bytes, is not rewritten. It is read twice, for the indexes of its results and its replies:
-- each takes a few seconds per gigabyte.

ALTER TABLE lane ADD COLUMN people INTEGER NOT NULL DEFAULT 0;
UPDATE lane SET people = 1 WHERE lane = 'main';
-- A lane can be paused, given other settings while its loops run, and dropped.
ALTER TABLE lane ADD COLUMN paused_at_ms INTEGER;
ALTER TABLE lane ADD COLUMN settings TEXT
  CONSTRAINT lane_settings_json CHECK (settings IS NULL OR json_valid(settings));
ALTER TABLE lane ADD COLUMN dropped_at_ms INTEGER;

-- Who is alive is told by a lock that the kernel releases, and no longer by host, boot and
-- pid. A registration says in which file its lock is, and of which database. Rows of the
-- third step have no lock: the leases decide about them.
ALTER TABLE instance ADD COLUMN database_file TEXT;
ALTER TABLE instance ADD COLUMN lock_file TEXT;
-- One that drains claims no more turns.
ALTER TABLE instance ADD COLUMN draining_at_ms INTEGER;
-- Any loop takes over any turn whose lease ran out, whatever its lane.
CREATE INDEX turn_by_expiry ON turn (expires_at_ms) WHERE state = 'running';
-- What a handler noted, for the attempt that takes its message over.
ALTER TABLE turn ADD COLUMN progress TEXT
  CONSTRAINT turn_progress_json CHECK (progress IS NULL OR json_valid(progress));
-- The claim of a worker behind a server, which may be repeated while its turn runs.
ALTER TABLE turn ADD COLUMN claim_id TEXT;
CREATE UNIQUE INDEX turn_claimed_as ON turn (lane, claim_id)
  WHERE claim_id IS NOT NULL AND state = 'running';

DROP VIEW inbox_open;
ALTER TABLE inbox RENAME TO inbox_before;
CREATE TABLE inbox (
  inbox_no          INTEGER PRIMARY KEY AUTOINCREMENT,
  channel           TEXT    NOT NULL,
  event_id          TEXT    NOT NULL,
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  session_key       TEXT,
  digest            TEXT,
  edited            INTEGER NOT NULL DEFAULT 0,
  edit_of           INTEGER,
  lane              TEXT    NOT NULL REFERENCES lane (lane),
  by_person         INTEGER NOT NULL DEFAULT 0,
  heard             INTEGER NOT NULL DEFAULT 0,
  state             TEXT    NOT NULL CONSTRAINT inbox_state_known
                    CHECK (state IN ('queued', 'claimed', 'interrupted', 'done', 'dead', 'heard')),
  accepted_at_ms    INTEGER NOT NULL,
  available_at_ms   INTEGER NOT NULL,
  queued_at_ms      INTEGER NOT NULL DEFAULT 0,
  waits             INTEGER NOT NULL DEFAULT 0,
  attempts          INTEGER NOT NULL DEFAULT 0,
  stops             INTEGER NOT NULL DEFAULT 0,
  turn_no           INTEGER,
  entry_no          INTEGER,
  superseded_by     INTEGER,
  told_no           INTEGER,
  delayed           INTEGER NOT NULL DEFAULT 0,
  restored          INTEGER NOT NULL DEFAULT 0,
  timeout_ms        INTEGER,
  lane_before       TEXT,
  reason            TEXT,
  details           TEXT
                    CONSTRAINT inbox_details_object CHECK (details IS NULL OR
                    json_type(iif(json_valid(details), details, 'null')) = 'object'),
  payload           TEXT,
  CONSTRAINT inbox_text_is_kept CHECK (payload IS NOT NULL OR entry_no IS NOT NULL),
  CONSTRAINT inbox_event_once UNIQUE (channel, event_id),
  CONSTRAINT inbox_end_is_told
  CHECK (told_no IS NOT NULL OR (state <> 'dead' AND superseded_by IS NULL)),
  CONSTRAINT inbox_heard_never_runs
  CHECK (iif(heard, state IN ('heard', 'done') AND turn_no IS NULL, state <> 'heard'))
) STRICT;
INSERT INTO inbox (inbox_no, channel, event_id, session_no, lane, by_person, state, accepted_at_ms,
  available_at_ms, queued_at_ms, attempts, stops, turn_no, entry_no, superseded_by, told_no,
  delayed, timeout_ms, lane_before, reason, payload)
SELECT i.inbox_no, i.channel, i.event_id, i.session_no, i.lane,
  coalesce(i.lane_before, i.lane) = 'main', i.state, i.accepted_at_ms,
  iif(i.state = 'queued' AND i.attempts > 0, i.available_at_ms, 0), i.available_at_ms,
  i.attempts, coalesce(o.stops, 0), i.turn_no, i.entry_no,
  -- An interrupted message that a newer one had finished was done without a completed turn.
  CASE WHEN i.state = 'done' AND t.state = 'interrupted'
    AND i.reason = 'a newer message of the session went on from here' THEN 0 END,
  CASE WHEN i.state = 'dead' OR i.state = 'done' AND ifnull(t.state, '') <> 'completed' THEN 0 END,
  i.delayed, i.timeout_ms, i.lane_before, i.reason,
  iif(i.entry_no IS NOT NULL AND (e.entry_no IS NOT NULL OR s.archived_at_ms IS NOT NULL), NULL,
      i.payload)
FROM inbox_before AS i LEFT JOIN turn AS t ON t.turn_no = i.turn_no
LEFT JOIN entry AS e ON e.entry_no = i.entry_no AND e.type = 'message'
LEFT JOIN session AS s ON s.session_no = i.session_no
LEFT JOIN (
  SELECT inbox_no, count(*) AS stops FROM turn
  WHERE state = 'interrupted' AND reason = 'its gateway is stopping' GROUP BY inbox_no
) AS o ON o.inbox_no = i.inbox_no;
-- Numbers of pruned messages are not assigned again.
DELETE FROM sqlite_sequence WHERE name = 'inbox';
INSERT INTO sqlite_sequence (name, seq)
SELECT 'inbox', seq FROM sqlite_sequence WHERE name = 'inbox_before';
DROP TABLE inbox_before;
CREATE INDEX inbox_waiting ON inbox (lane, available_at_ms) WHERE state = 'queued' AND waits = 0;
CREATE INDEX inbox_queued ON inbox (lane, session_no) WHERE state = 'queued';
CREATE INDEX inbox_of_session ON inbox (session_no, inbox_no)
WHERE state IN ('queued', 'claimed', 'interrupted');
UPDATE inbox SET waits = 1
WHERE state = 'queued' AND lane <> 'resume' AND (
  EXISTS (SELECT 1 FROM turn AS t WHERE t.session_no = inbox.session_no AND t.state = 'running')
  OR EXISTS (SELECT 1 FROM inbox AS o JOIN lane AS before ON before.lane = o.lane
             WHERE o.session_no = inbox.session_no
               AND o.state IN ('queued', 'claimed', 'interrupted') AND o.state = 'queued'
               AND o.lane <> 'resume' AND o.inbox_no < inbox.inbox_no
               AND before.priority <= (SELECT own.priority FROM lane AS own
                                       WHERE own.lane = inbox.lane)));
CREATE INDEX inbox_untold ON inbox (lane, inbox_no) WHERE state = 'queued' AND delayed = 0;
CREATE INDEX inbox_interrupted ON inbox (state, inbox_no) WHERE state IN ('interrupted', 'dead');
CREATE INDEX inbox_edits ON inbox (edit_of) WHERE edit_of IS NOT NULL;
CREATE INDEX inbox_heard ON inbox (session_no, inbox_no) WHERE state = 'heard';
CREATE INDEX inbox_told ON inbox (told_no) WHERE told_no IS NOT NULL;

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

-- `channel` says which replies wait for each other, and (event_no, consumer) which events were
-- forwarded. Rewritten is outbox (a row per reply that was not pruned).
DROP VIEW outbox_open;
DROP VIEW held;
ALTER TABLE outbox RENAME TO outbox_before;
CREATE TABLE outbox (
  outbox_no         INTEGER PRIMARY KEY AUTOINCREMENT,
  session_no        INTEGER NOT NULL REFERENCES session (session_no),
  turn_no           INTEGER,
  target            TEXT    NOT NULL,
  channel           TEXT    NOT NULL,
  state             TEXT    NOT NULL CONSTRAINT outbox_state_known
                    CHECK (state IN ('pending', 'sending', 'sent', 'unknown', 'failed')),
  attempts          INTEGER NOT NULL DEFAULT 0,
  attempts_before   INTEGER NOT NULL DEFAULT 0,
  instance_no       INTEGER REFERENCES instance (instance_no),
  expires_at_ms     INTEGER,
  created_at_ms     INTEGER NOT NULL,
  available_at_ms   INTEGER NOT NULL,
  waits             INTEGER NOT NULL DEFAULT 0,
  asked_at_ms       INTEGER,
  finished_at_ms    INTEGER,
  event_no          INTEGER,
  consumer          TEXT,
  receipt           TEXT,
  reason            TEXT,
  claim_id          TEXT,
  details           TEXT
                    CONSTRAINT outbox_details_object CHECK (details IS NULL OR
                    json_type(iif(json_valid(details), details, 'null')) = 'object'),
  payload           TEXT    NOT NULL,
  CONSTRAINT outbox_event_and_reader_together CHECK ((event_no IS NULL) = (consumer IS NULL))
) STRICT;
INSERT INTO outbox (outbox_no, session_no, turn_no, target, channel, state, attempts,
  attempts_before, instance_no, expires_at_ms, created_at_ms, available_at_ms, asked_at_ms,
  finished_at_ms, receipt, reason, payload)
SELECT outbox_no, session_no, turn_no, target, substr(target, 1, instr(target || ':', ':') - 1),
  state, attempts, attempts_before, instance_no, expires_at_ms, created_at_ms,
  iif(state = 'pending' AND attempts > attempts_before, available_at_ms, 0), asked_at_ms,
  finished_at_ms, receipt, reason, payload
FROM outbox_before;
DELETE FROM sqlite_sequence WHERE name = 'outbox';
INSERT INTO sqlite_sequence (name, seq)
SELECT 'outbox', seq FROM sqlite_sequence WHERE name = 'outbox_before';
DROP TABLE outbox_before;
CREATE INDEX outbox_unsent ON outbox (state, outbox_no)
WHERE state IN ('pending', 'sending', 'unknown', 'failed');
CREATE INDEX outbox_of_session ON outbox (session_no, channel, outbox_no)
WHERE state IN ('pending', 'sending');
UPDATE outbox SET waits = 1 WHERE state = 'pending'
  AND EXISTS (SELECT 1 FROM outbox AS e
              WHERE e.session_no = outbox.session_no AND e.channel = outbox.channel
                AND e.state IN ('pending', 'sending') AND e.outbox_no < outbox.outbox_no);
CREATE UNIQUE INDEX outbox_claimed_as ON outbox (claim_id)
  WHERE claim_id IS NOT NULL AND state = 'sending';
CREATE INDEX outbox_waiting ON outbox (channel, waits, available_at_ms) WHERE state = 'pending';
CREATE UNIQUE INDEX outbox_event_once ON outbox (event_no, consumer) WHERE event_no IS NOT NULL;
CREATE VIEW outbox_open AS
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at_ms / 1000.0, 'unixepoch') AS created_at,
       o.reason, substr(o.payload, 1, 200) AS begins_with
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state IN ('pending', 'sending', 'unknown', 'failed');
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

-- The name of the file's state tells whether a -wal belongs to it.
CREATE TABLE wal_link (
  link_no    INTEGER PRIMARY KEY CONSTRAINT wal_link_once CHECK (link_no = 1),
  previous   TEXT    NOT NULL,
  current    TEXT    NOT NULL
) STRICT;
INSERT INTO wal_link (link_no, previous, current)
VALUES (1, '00000000000000000000000000000000', lower(hex(randomblob(16))));

-- A channel that says when to try again is not called before.
CREATE TABLE channel_pause (
  channel           TEXT    NOT NULL PRIMARY KEY,
  refused_since_ms  INTEGER NOT NULL,
  pauses            INTEGER NOT NULL,
  begun_at_ms       INTEGER NOT NULL,
  until_ms          INTEGER NOT NULL,
  reason            TEXT    NOT NULL,
  CONSTRAINT channel_pause_ends_later CHECK (until_ms >= begun_at_ms)
) STRICT, WITHOUT ROWID;
-- A fork can go back and forth to where it began. When a person last wrote was searched among
-- the newest entries. Where nobody recorded the epoch of a fork's origin, the clock says it.
ALTER TABLE session ADD COLUMN forked_at_no INTEGER;
ALTER TABLE session ADD COLUMN forked_epoch INTEGER;
ALTER TABLE session ADD COLUMN heard_at_ms INTEGER;
UPDATE session SET
  forked_at_no = coalesce(
    (SELECT iif(e.closed_at_ms IS NULL, session.head_no, e.closed_head_no) FROM epoch AS e
     WHERE e.session_no = session.session_no AND e.epoch = 0
       AND iif(e.closed_at_ms IS NULL, session.head_no, e.closed_head_no)
           < session.session_no << 32),
    (SELECT b.fork_no FROM branch AS b WHERE b.session_no = session.session_no
       AND b.fork_no < session.session_no << 32 ORDER BY b.branch_no LIMIT 1)),
  forked_epoch = (SELECT max(o.epoch) FROM epoch AS o
                  WHERE o.session_no = session.forked_from_no
                    AND o.opened_at_ms <= session.created_at_ms)
WHERE forked_from_no IS NOT NULL;
UPDATE session SET heard_at_ms = (
  SELECT e.appended_at_ms FROM entry AS e
  WHERE e.entry_no BETWEEN session.session_no << 32 AND (session.session_no << 32) + 4294967295
    AND e.role = 'user' AND NOT EXISTS (
      SELECT 1 FROM inbox AS i WHERE e.idempotency_key GLOB 'inbox:[0-9]*'
        AND i.inbox_no = CAST(substr(e.idempotency_key, 7) AS INTEGER) AND i.by_person = 0)
  ORDER BY e.entry_no DESC LIMIT 1);

-- Other programs name their sessions, and the sessions of one agent are found by an index.
CREATE INDEX session_by_agent ON session (agent_id) WHERE agent_id IS NOT NULL;
CREATE TABLE foreign_id (
  namespace     TEXT    NOT NULL,
  external_id   TEXT    NOT NULL,
  session_no    INTEGER NOT NULL REFERENCES session (session_no),
  named_at_ms   INTEGER NOT NULL,
  PRIMARY KEY (namespace, external_id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX foreign_id_of_session ON foreign_id (session_no);

-- An application keeps a JSON object about a session.
CREATE TABLE session_details (
  session_no     INTEGER PRIMARY KEY REFERENCES session (session_no),
  revision       INTEGER NOT NULL,
  changed_at_ms  INTEGER NOT NULL,
  document       TEXT    NOT NULL
                 CONSTRAINT session_details_json CHECK (json_valid(document))
) STRICT;

-- It keeps one under a name of its own, too.
CREATE TABLE named_details (
  details_no     INTEGER PRIMARY KEY,
  namespace      TEXT    NOT NULL,
  name           TEXT    NOT NULL,
  revision       INTEGER NOT NULL,
  changed_at_ms  INTEGER NOT NULL,
  document       TEXT    NOT NULL
                 CONSTRAINT named_details_json CHECK (json_valid(document)),
  CONSTRAINT named_details_once UNIQUE (namespace, name)
) STRICT;

-- A compaction asks for the results behind an entry, however many messages lie behind it.
CREATE INDEX entry_results ON entry (branch_no, entry_no) WHERE role = 'toolResult';
-- It asks for a user's message that waits. One of the inbox is found by its row there.
CREATE INDEX entry_asked ON entry (branch_no, entry_no)
WHERE role = 'user' AND (idempotency_key IS NULL OR idempotency_key NOT GLOB 'inbox:[0-9]*');

-- An edit of a message begins an epoch. A compaction carries on what system messages say.
CREATE INDEX entry_instructions ON entry (branch_no, entry_no)
WHERE role = 'system' OR type = 'context_edit';
DROP VIEW epoch_log;
ALTER TABLE epoch RENAME TO epoch_before;
CREATE TABLE epoch (
  session_no       INTEGER NOT NULL REFERENCES session (session_no),
  epoch            INTEGER NOT NULL,
  reason           TEXT    NOT NULL CONSTRAINT epoch_reason_known
                   CHECK (reason IN
                   ('start', 'compaction', 'reset', 'branch', 'undo', 'fork', 'edit')),
  opened_at_ms     INTEGER NOT NULL,
  boundary_no      INTEGER,
  first_kept_no    INTEGER,
  closed_head_no   INTEGER,
  closed_at_ms     INTEGER,
  PRIMARY KEY (session_no, epoch)
) STRICT, WITHOUT ROWID;
INSERT INTO epoch SELECT * FROM epoch_before;
DROP TABLE epoch_before;
CREATE VIEW epoch_log AS
SELECT s.session_id, e.epoch, e.reason,
       strftime('%Y-%m-%dT%H:%M:%fZ', e.opened_at_ms / 1000.0, 'unixepoch') AS opened_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', e.closed_at_ms / 1000.0, 'unixepoch') AS closed_at,
       b.entry_id AS boundary_id, k.entry_id AS first_kept_id, h.entry_id AS closed_head_id
FROM epoch AS e JOIN session AS s ON s.session_no = e.session_no
LEFT JOIN entry AS b ON b.entry_no = e.boundary_no
LEFT JOIN entry AS k ON k.entry_no = e.first_kept_no
LEFT JOIN entry AS h ON h.entry_no = e.closed_head_no;

-- A compaction that saves next to nothing counts for the cool-down as a rejected one does.
ALTER TABLE compaction ADD COLUMN threshold_tokens INTEGER;
ALTER TABLE compaction ADD COLUMN in_vain INTEGER NOT NULL DEFAULT 0;
UPDATE compaction SET in_vain = 1 WHERE state = 'rejected';
CREATE INDEX compaction_in_vain ON compaction (finished_at_ms) WHERE in_vain = 1;
CREATE INDEX import_file_reading ON import_file (imported_at_ms) WHERE state = 'reading';

-- A session says which message formats its items may have. Items of before were read as pi's, so
-- that is what sessions with entries have.
ALTER TABLE session ADD COLUMN formats INTEGER NOT NULL DEFAULT 15
  CONSTRAINT session_formats_known CHECK (formats BETWEEN 1 AND 15);
-- Contexts of before are put in order when they are read, until their next compaction.
ALTER TABLE session ADD COLUMN ordered_from_no INTEGER;
ALTER TABLE session ADD COLUMN open_marks TEXT;
-- What waits in a session of before is searched for, until its next answer.
ALTER TABLE session ADD COLUMN asked_no INTEGER;
UPDATE session SET formats = 1 WHERE head_no IS NOT NULL OR last_seq > 0;
DROP VIEW session_overview;
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
DROP VIEW transcript;
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

-- An early line stands before its parent. It waits in quarantine until that is an entry.
ALTER TABLE import_file ADD COLUMN head_seq INTEGER;
ALTER TABLE import_file ADD COLUMN head_byte INTEGER;
ALTER TABLE import_file ADD COLUMN cursor_id TEXT;
-- A migration that is run again compares no file that it has compared before.
ALTER TABLE import_file ADD COLUMN compared_sha256 TEXT;
DROP VIEW quarantined;
ALTER TABLE quarantine RENAME TO quarantine_before;
CREATE TABLE quarantine (
  import_file_no  INTEGER NOT NULL REFERENCES import_file (import_file_no),
  line            INTEGER NOT NULL,
  byte_offset     INTEGER NOT NULL,
  after_seq       INTEGER NOT NULL,
  reason          TEXT    NOT NULL,
  severity        TEXT    NOT NULL
                  CONSTRAINT quarantine_severity_known
                  CHECK (severity IN ('blank', 'damaged', 'early')),
  content         BLOB    NOT NULL,
  entry_id        TEXT,
  waits_for       TEXT,
  parent_seq      INTEGER,
  entry_seq       INTEGER,
  PRIMARY KEY (import_file_no, byte_offset)
) STRICT, WITHOUT ROWID;
INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity, content)
SELECT import_file_no, line, byte_offset, after_seq, reason, severity, content
FROM quarantine_before;
DROP TABLE quarantine_before;
CREATE INDEX quarantine_waiting ON quarantine (import_file_no, entry_id)
WHERE entry_id IS NOT NULL;
CREATE INDEX quarantine_parent ON quarantine (import_file_no, waits_for)
WHERE waits_for IS NOT NULL;
CREATE INDEX quarantine_ready ON quarantine (import_file_no, parent_seq)
WHERE parent_seq IS NOT NULL;
CREATE INDEX quarantine_placed ON quarantine (import_file_no, entry_seq)
WHERE entry_seq IS NOT NULL;
CREATE INDEX quarantine_damaged ON quarantine (import_file_no) WHERE severity = 'damaged';

-- The view names whatever is stuck, with the command that goes on.
DROP VIEW stuck;
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

-- Views that answer an operator's questions in one statement, and the indexes that find
-- the rows of one session or of the last hour. `live_context` reads one session only, and
-- `quarantined` gets a name as the other logs have.
CREATE INDEX instance_by_opening ON instance (opened_at_ms);
CREATE INDEX entry_replies ON entry (appended_at_ms) WHERE role = 'assistant';
CREATE INDEX turn_by_start ON turn (started_at_ms);
CREATE INDEX inbox_by_session ON inbox (session_no, accepted_at_ms);
CREATE INDEX inbox_by_acceptance ON inbox (accepted_at_ms);
CREATE INDEX event_by_session ON event (session_no) WHERE session_no IS NOT NULL;
CREATE INDEX outbox_by_turn ON outbox (turn_no) WHERE turn_no IS NOT NULL;
DROP VIEW live_context;
DROP VIEW turn_log;
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
CREATE VIEW quarantine_log AS
SELECT f.path, q.line, q.byte_offset, q.reason, length(q.content) AS bytes,
       substr(CAST(q.content AS TEXT), 1, 200) AS begins_with
FROM quarantine AS q JOIN import_file AS f ON f.import_file_no = q.import_file_no
WHERE q.severity = 'damaged';
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
CREATE VIEW process_log AS
SELECT i.instance_no, i.program, i.pid || '@' || i.host AS owner,
       CASE WHEN i.unclean = 1 THEN 'died' WHEN i.closed_at_ms IS NOT NULL THEN 'closed'
            WHEN i.draining_at_ms IS NOT NULL THEN 'draining' ELSE 'open' END AS state,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.opened_at_ms / 1000.0, 'unixepoch') AS opened_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.draining_at_ms / 1000.0, 'unixepoch') AS draining_since,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.closed_at_ms / 1000.0, 'unixepoch') AS closed_at,
       (i.closed_at_ms - i.opened_at_ms) / 1000.0 AS ran_s, i.opened_at_ms
FROM instance AS i;
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

-- An index for a search. It is empty until a person builds it.
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

-- Which sessions have entries that are not there.
ALTER TABLE session ADD COLUMN search_behind INTEGER NOT NULL DEFAULT 1;
CREATE INDEX session_search_behind ON session (search_behind)
  WHERE search_behind = 1 AND archived_at_ms IS NULL;

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

-- Chunks of small archives share pages. Without a rowid each of more than 1,002 bytes had a page
-- of its own.
ALTER TABLE archive_chunk RENAME TO archive_chunk_before;
CREATE TABLE archive_chunk (
  archive_no      INTEGER NOT NULL REFERENCES archive (archive_no),
  chunk_no        INTEGER NOT NULL,
  what            TEXT    NOT NULL,             -- the table whose rows these are. "whole": all
  rows            INTEGER NOT NULL,
  sha256          TEXT    NOT NULL,             -- of the JSON lines before compression
  content         BLOB    NOT NULL,
  PRIMARY KEY (archive_no, chunk_no)
) STRICT;
INSERT INTO archive_chunk (archive_no, chunk_no, what, rows, sha256, content)
SELECT archive_no, chunk_no, what, rows, sha256, content FROM archive_chunk_before;
DROP TABLE archive_chunk_before;
PRAGMA user_version = 4;

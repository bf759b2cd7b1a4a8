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
-- `stops` counts the attempts that an orderly stop ended: no reason to give a message up.
--
-- Rewritten is inbox (a row per message that was not pruned). `entry`, which has the bytes, is
-- not touched. It takes about a second for 100 MB of messages.

ALTER TABLE lane ADD COLUMN people INTEGER NOT NULL DEFAULT 0;
UPDATE lane SET people = 1 WHERE lane = 'main';

-- Who is alive is told by a lock that the kernel releases, and no longer by host, boot and
-- pid. A registration says in which file its lock is, and of which database. Rows of the
-- third step have no lock: the leases decide about them.
ALTER TABLE instance ADD COLUMN database_file TEXT;
ALTER TABLE instance ADD COLUMN lock_file TEXT;
-- Any loop takes over any turn whose lease ran out, whatever its lane.
CREATE INDEX turn_by_expiry ON turn (expires_at_ms) WHERE state = 'running';

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
  state             TEXT    NOT NULL CONSTRAINT inbox_state_known
                    CHECK (state IN ('queued', 'claimed', 'interrupted', 'done', 'dead')),
  accepted_at_ms    INTEGER NOT NULL,
  available_at_ms   INTEGER NOT NULL,
  queued_at_ms      INTEGER NOT NULL DEFAULT 0,
  attempts          INTEGER NOT NULL DEFAULT 0,
  stops             INTEGER NOT NULL DEFAULT 0,
  turn_no           INTEGER,
  entry_no          INTEGER,
  superseded_by     INTEGER,
  told_no           INTEGER,
  delayed           INTEGER NOT NULL DEFAULT 0,
  timeout_ms        INTEGER,
  lane_before       TEXT,
  reason            TEXT,
  payload           TEXT    NOT NULL,
  CONSTRAINT inbox_event_once UNIQUE (channel, event_id),
  CONSTRAINT inbox_end_is_told
  CHECK (told_no IS NOT NULL OR (state <> 'dead' AND superseded_by IS NULL))
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
  i.delayed, i.timeout_ms, i.lane_before, i.reason, i.payload
FROM inbox_before AS i LEFT JOIN turn AS t ON t.turn_no = i.turn_no
LEFT JOIN (
  SELECT inbox_no, count(*) AS stops FROM turn
  WHERE state = 'interrupted' AND reason = 'its gateway is stopping' GROUP BY inbox_no
) AS o ON o.inbox_no = i.inbox_no;
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
CREATE INDEX inbox_edits ON inbox (edit_of) WHERE edit_of IS NOT NULL;
CREATE INDEX inbox_told ON inbox (told_no) WHERE told_no IS NOT NULL;

-- Accepted messages that are not done: queued, claimed, interrupted or dead.
CREATE VIEW inbox_open AS
SELECT i.inbox_no, i.channel, i.event_id, s.session_id, i.lane, i.state, i.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.accepted_at_ms / 1000.0, 'unixepoch') AS accepted_at,
       i.turn_no, i.reason,
       substr(i.payload, 1, 200) AS begins_with
FROM inbox AS i JOIN session AS s ON s.session_no = i.session_no
WHERE i.state <> 'done';

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
  asked_at_ms       INTEGER,
  finished_at_ms    INTEGER,
  event_no          INTEGER,
  consumer          TEXT,
  receipt           TEXT,
  reason            TEXT,
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
CREATE INDEX outbox_of_session ON outbox (session_no, outbox_no)
WHERE state IN ('pending', 'sending');
CREATE INDEX outbox_waiting ON outbox (channel, available_at_ms) WHERE state = 'pending';
CREATE UNIQUE INDEX outbox_event_once ON outbox (event_no, consumer) WHERE event_no IS NOT NULL;
CREATE VIEW outbox_open AS
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts,
       strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at_ms / 1000.0, 'unixepoch') AS created_at,
       o.reason, substr(o.payload, 1, 200) AS begins_with
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state <> 'sent';
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

-- A compaction that saves next to nothing counts for the cool-down as a rejected one does.
ALTER TABLE compaction ADD COLUMN threshold_tokens INTEGER;
ALTER TABLE compaction ADD COLUMN in_vain INTEGER NOT NULL DEFAULT 0;
UPDATE compaction SET in_vain = 1 WHERE state = 'rejected';
DROP VIEW stuck;
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
       'the last three made the context hardly smaller; compaction is refused until then'
FROM session AS s JOIN compaction AS r ON r.session_no = s.session_no
WHERE r.compaction_no IN
      (SELECT l.compaction_no FROM compaction AS l WHERE l.session_no = s.session_no
       ORDER BY l.compaction_no DESC LIMIT 3)
GROUP BY s.session_no
HAVING count(*) = 3 AND min(r.in_vain) = 1
   AND min(r.base_epoch) + sum(r.state = 'committed') = s.epoch
   AND max(r.finished_at_ms) + 600000 > CAST(strftime('%s', 'now') AS INTEGER) * 1000
UNION ALL
SELECT NULL, 'channel ' || p.channel || ' waits', NULL,
       strftime('%Y-%m-%dT%H:%M:%fZ', p.refused_since_ms / 1000.0, 'unixepoch'),
       strftime('%Y-%m-%dT%H:%M:%fZ', p.until_ms / 1000.0, 'unixepoch'),
       'it said so, and none of its replies is sent until then: ' || p.reason
FROM channel_pause AS p
WHERE p.begun_at_ms < (CAST(strftime('%s', 'now') AS INTEGER) + 1) * 1000
  AND p.until_ms > CAST(strftime('%s', 'now') AS INTEGER) * 1000;

CREATE INDEX quarantine_damaged ON quarantine (import_file_no) WHERE severity = 'damaged';

PRAGMA user_version = 4;

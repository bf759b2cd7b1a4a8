-- name: by_event
-- Return the receipt of a message that was accepted before, and what makes it that one.
SELECT i.inbox_no, s.session_id, i.state, i.accepted_at_ms, i.session_key, i.digest, i.edited,
       i.lane, i.lane_before, i.by_person, i.turn_no, i.heard
FROM inbox AS i JOIN session AS s ON s.session_no = i.session_no
WHERE i.channel = :channel AND i.event_id = :event_id;

-- name: accept, one row
-- Accept a message: it is accepted when this row is committed.
INSERT INTO inbox (channel, event_id, session_no, session_key, digest, edit_of, lane, by_person,
                   state, accepted_at_ms, available_at_ms, queued_at_ms, waits, details, payload)
VALUES (:channel, :event_id, :session_no, :session_key, :digest, :edit_of, :lane, :by_person,
        'queued', :now_ms, 0, :now_ms,
        EXISTS (SELECT 1 FROM turn AS t WHERE t.session_no = :session_no AND t.state = 'running')
        OR EXISTS (SELECT 1 FROM lane AS before CROSS JOIN inbox AS o INDEXED BY inbox_queued
                   WHERE before.lane <> 'resume' AND before.priority <=
                     (SELECT own.priority FROM lane AS own WHERE own.lane = :lane)
                     AND o.state = 'queued' AND o.lane = before.lane
                     AND o.session_no = :session_no),
        :details, :payload)
RETURNING inbox_no;

-- name: hear, one row
-- Accept a message that is not for the agent. It waits for the next claim of its session.
INSERT INTO inbox (channel, event_id, session_no, session_key, digest, edit_of, lane, by_person,
                   heard, state, accepted_at_ms, available_at_ms, details, payload)
VALUES (:channel, :event_id, :session_no, :session_key, :digest, :edit_of, :lane, :by_person,
        1, 'heard', :now_ms, 0, :details, :payload)
RETURNING inbox_no;

-- name: heard
-- Return the messages that a session has heard and that are not appended yet, oldest first, of
-- those before another message. Without their texts.
SELECT inbox_no, digest, by_person FROM inbox INDEXED BY inbox_heard
WHERE session_no = :session_no AND state = 'heard' AND inbox_no < :before_no
ORDER BY inbox_no LIMIT :limit;

-- name: heard_weight
-- Return how many such messages a session has, up to a limit, and their bytes.
SELECT count(*) AS messages, coalesce(sum(bytes), 0) AS bytes FROM (
  SELECT octet_length(payload) AS bytes FROM inbox INDEXED BY inbox_heard
  WHERE session_no = :session_no AND state = 'heard' LIMIT :limit
);

-- name: append_heard, one row
-- Record the entry of a message that was heard: -> done. The entry has its text now.
UPDATE inbox SET state = 'done', entry_no = :entry_no, payload = NULL
WHERE inbox_no = :inbox_no AND state = 'heard';

-- name: drop_heard, one row
-- Give up a message that was heard and cannot be read: -> done. Nobody waits for an answer.
UPDATE inbox SET state = 'done', reason = :reason WHERE inbox_no = :inbox_no AND state = 'heard';

-- name: line_up, any rows
-- Mark the first message that waits in each lane of a session: whether it waits for the
-- session's turn, or for an older message in a lane at or before its own. The others are
-- marked, and stay so: they wait for it. So this reads no more however many wait. A resume
-- is never marked.
UPDATE inbox SET waits = 1 - waits WHERE inbox_no IN (
  SELECT first.inbox_no FROM (
    SELECT own.priority,
           (SELECT min(q.inbox_no) FROM inbox AS q INDEXED BY inbox_queued
            WHERE q.state = 'queued' AND q.lane = own.lane AND q.session_no = :session_no)
             AS inbox_no
    FROM lane AS own WHERE own.lane <> 'resume'
  ) AS place CROSS JOIN inbox AS first ON first.inbox_no = place.inbox_no
  WHERE first.waits <> (
    EXISTS (SELECT 1 FROM turn AS t WHERE t.session_no = :session_no AND t.state = 'running')
    OR EXISTS (SELECT 1 FROM lane AS before CROSS JOIN inbox AS o INDEXED BY inbox_queued
               WHERE before.lane <> 'resume' AND before.priority <= place.priority
                 AND o.state = 'queued' AND o.lane = before.lane
                 AND o.session_no = :session_no AND o.inbox_no < first.inbox_no LIMIT 1)
  )
);

-- name: wait_behind, any rows
-- Mark the messages of a session that wait behind another one of their lane. For a session
-- in which an old message was queued again. At most as many rows as may wait in a session.
UPDATE inbox SET waits = 1
WHERE session_no = :session_no AND state IN ('queued', 'claimed', 'interrupted')
  AND state = 'queued' AND waits = 0 AND lane <> 'resume'
  AND EXISTS (SELECT 1 FROM inbox AS o INDEXED BY inbox_queued
              WHERE o.state = 'queued' AND o.lane = inbox.lane AND o.session_no = inbox.session_no
                AND o.inbox_no < inbox.inbox_no LIMIT 1);

-- name: line_up_all, any rows
-- Mark every message that waits, and no other. For lanes whose order has changed, and for
-- rows that another program wrote, or that were salvaged.
UPDATE inbox SET waits = 1 - waits
WHERE state = 'queued' AND waits <> (lane <> 'resume' AND (
  EXISTS (SELECT 1 FROM turn AS t WHERE t.session_no = inbox.session_no AND t.state = 'running')
  OR EXISTS (SELECT 1 FROM inbox AS o JOIN lane AS before ON before.lane = o.lane
             WHERE o.session_no = inbox.session_no
               AND o.state IN ('queued', 'claimed', 'interrupted') AND o.state = 'queued'
               AND o.lane <> 'resume' AND o.inbox_no < inbox.inbox_no
               AND before.priority <= (SELECT own.priority FROM lane AS own
                                       WHERE own.lane = inbox.lane))));

-- name: newest_text
-- Return the message that has the newest text of an edited one: its last edit that a
-- turn reads on its own or, without one, itself.
SELECT i.inbox_no, i.session_no, s.session_id, i.state, i.digest, i.turn_no, i.details
FROM inbox AS i
JOIN session AS s ON s.session_no = i.session_no
WHERE i.inbox_no = (SELECT coalesce(max(e.inbox_no), :inbox_no) FROM inbox AS e
                    WHERE e.edit_of = :inbox_no);

-- name: replace_text, one row or none
-- Replace the text of a message that no turn has read, and its details if there are new ones.
UPDATE inbox SET payload = :payload, digest = :digest, details = coalesce(:details, details)
WHERE inbox_no = :inbox_no AND state IN ('queued', 'heard') AND entry_no IS NULL;

-- name: note_edit, one row
-- Record the version of a message's newest edit.
UPDATE inbox SET edited = :version WHERE inbox_no = :inbox_no;

-- name: waiting_in_session
-- Count the messages of a session and of one lane that wait or are being worked on, up to
-- a limit. A resume counts in the lane that accepted it.
SELECT count(*) AS waiting FROM (
  SELECT 1 FROM inbox
  WHERE session_no = :session_no AND state IN ('queued', 'claimed', 'interrupted')
    AND state <> 'interrupted' AND coalesce(lane_before, lane) = :lane LIMIT :limit
);

-- name: ahead
-- Count the messages of a session that a new one of a lane waits for, up to a limit: the
-- one that a turn works on, and those that wait in lanes at or before its own.
SELECT count(*) AS messages FROM (
  SELECT 1 FROM inbox AS o JOIN lane AS before ON before.lane = o.lane
  WHERE o.session_no = :session_no AND o.state IN ('queued', 'claimed', 'interrupted')
    AND (o.state = 'claimed'
         OR (o.state = 'queued' AND o.lane <> 'resume'
             AND before.priority <= (SELECT own.priority FROM lane AS own WHERE own.lane = :lane)))
  LIMIT :limit
);

-- name: open_in_session
-- Return a row if a session has a message that waits, is being worked on, or was interrupted.
SELECT inbox_no FROM inbox
WHERE session_no = :session_no AND state IN ('queued', 'claimed', 'interrupted') LIMIT 1;

-- name: waiting_in_lane
-- Count the messages that wait in a lane, up to a limit.
SELECT count(*) AS waiting
FROM (SELECT 1 FROM inbox WHERE state = 'queued' AND lane = :lane LIMIT :limit);

-- name: next
-- Return the first message of a lane whose pause ends within a time range, and that may
-- run: its session is idle, and no message of that session precedes it. Only older
-- messages in lanes at or before its own do. A resume has the place of the lane that
-- accepted it, and lets newer messages of those lanes go first, too. From 0 to 0 are those
-- without a pause, in the order of their arrival. Messages that wait for their retry are
-- not read, and neither are those that are marked: they wait for another message. In a
-- paused lane none may run, and no resume of a message that it accepted.
SELECT i.inbox_no, i.queued_at_ms FROM inbox AS i INDEXED BY inbox_waiting
JOIN lane AS own ON own.lane = coalesce(i.lane_before, i.lane)
WHERE i.state = 'queued' AND i.waits = 0 AND i.lane = :lane AND own.paused_at_ms IS NULL
  AND i.available_at_ms BETWEEN :low_ms AND :high_ms
  AND NOT EXISTS (SELECT 1 FROM turn AS t WHERE t.session_no = i.session_no AND t.state = 'running')
  AND NOT EXISTS (SELECT 1 FROM inbox AS o JOIN lane AS before ON before.lane = o.lane
                  WHERE o.session_no = i.session_no
                    AND o.state IN ('queued', 'claimed', 'interrupted') AND o.state <> 'interrupted'
                    AND o.lane <> 'resume' AND before.priority <= own.priority
                    AND (o.inbox_no < i.inbox_no OR i.lane = 'resume'))
ORDER BY i.available_at_ms, i.inbox_no LIMIT 1;

-- name: candidate
-- Return what a claim of a message needs.
SELECT i.inbox_no, i.session_no, s.session_id, i.channel, i.event_id, i.attempts, i.timeout_ms,
       i.entry_no, s.ended_at_ms, i.edit_of, i.by_person, i.digest,
       i.lane, i.lane_before, i.session_key, i.details
FROM inbox AS i JOIN session AS s ON s.session_no = i.session_no WHERE i.inbox_no = :inbox_no;

-- name: payload
-- Return the text of a message: its own, or what its entry says. Empty if that is not there.
-- Never under the write lock: it may be large.
SELECT coalesce(i.payload,
         CAST(substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) AS TEXT),
         '') AS payload
FROM inbox AS i
LEFT JOIN entry AS e ON e.entry_no = i.entry_no AND i.payload IS NULL AND e.type = 'message'
WHERE i.inbox_no = :inbox_no;

-- name: due
-- Return when the next message of a lane that waits for its retry becomes available. A
-- pause is at most a minute. A time further ahead comes from a clock that has been set
-- back since, and is ignored.
SELECT min(available_at_ms) AS at_ms FROM inbox
WHERE state = 'queued' AND waits = 0 AND lane = :lane
  AND available_at_ms BETWEEN :now_ms + 1 AND :now_ms + 60000;

-- name: claim, one row or none
-- Claim a message: queued -> claimed, once. Its entry has its text from now on, so that no later
-- state writes that again.
UPDATE inbox SET state = 'claimed', attempts = attempts + 1, turn_no = :turn_no,
       entry_no = :entry_no, payload = NULL
WHERE inbox_no = :inbox_no AND state = 'queued';

-- name: finish, one row or none
-- Finish a message: claimed -> done, by the turn that claimed it. Without an answer with
-- the event that tells its sender.
UPDATE inbox SET state = 'done', reason = :reason, told_no = :told_no
WHERE inbox_no = :inbox_no AND state = 'claimed' AND turn_no = :turn_no;

-- name: retry, one row or none
-- Retry a message: claimed -> queued, not before a time. A resume may get more time. It waits
-- for older messages that a dropped lane brought into its lane while its turn ran.
UPDATE inbox SET state = 'queued', available_at_ms = :available_at_ms,
       queued_at_ms = :available_at_ms, timeout_ms = timeout_ms * :more_time,
       reason = :reason,
       waits = lane <> 'resume' AND EXISTS (
         SELECT 1 FROM inbox AS o INDEXED BY inbox_queued
         WHERE o.state = 'queued' AND o.lane = inbox.lane AND o.session_no = inbox.session_no
           AND o.inbox_no < inbox.inbox_no LIMIT 1)
WHERE inbox_no = :inbox_no AND state = 'claimed' AND turn_no = :turn_no;

-- name: suspend, one row or none
-- Suspend a message: claimed -> interrupted, because its turn was interrupted. The
-- resume plan decides. An orderly stop is no strike against the message.
UPDATE inbox SET state = 'interrupted', stops = stops + :stops, reason = :reason
WHERE inbox_no = :inbox_no AND state = 'claimed' AND turn_no = :turn_no;

-- name: dead_letter, one row or none
-- Dead-letter a message: -> dead, with the reason, and the event that tells its sender.
UPDATE inbox SET state = 'dead', reason = :reason, told_no = :told_no
WHERE inbox_no = :inbox_no AND state IN ('claimed', 'interrupted', 'queued');

-- name: of_turn
-- Return who sent the message of a turn, its entry, and where the context began when the
-- entry was appended.
SELECT i.by_person AND e.role = 'user' AS is_persons, e.entry_no, e.boundary_no
FROM inbox AS i JOIN entry AS e ON e.entry_no = i.entry_no WHERE i.inbox_no = :inbox_no;

-- name: interrupted_before
-- Return the messages of a session that people sent before another one, and that were
-- interrupted: they wait for the resume plan, or for their resume.
SELECT i.inbox_no, e.entry_no FROM inbox AS i
JOIN entry AS e ON e.entry_no = i.entry_no
WHERE i.session_no = :session_no AND i.inbox_no < :inbox_no
  AND i.state IN ('queued', 'claimed', 'interrupted')
  AND (i.state = 'interrupted' OR (i.state = 'queued' AND i.lane = 'resume'))
  AND i.by_person = 1 AND e.role = 'user'
ORDER BY i.inbox_no;

-- name: supersede, one row or none
-- Supersede an interrupted message: -> done, because the turn of a newer one answered it, too.
UPDATE inbox SET state = 'done', superseded_by = :superseded_by, told_no = :told_no,
       reason = :reason
WHERE inbox_no = :inbox_no AND state IN ('queued', 'interrupted');

-- name: waiting
-- Return a row if a message is queued.
SELECT inbox_no FROM inbox WHERE inbox_no = :inbox_no AND state = 'queued';

-- name: resume, one row or none
-- Resume a message: interrupted -> queued, in the lane of resumes. Its sender was told
-- of the interruption, and is not told again that it waits.
UPDATE inbox SET state = 'queued', lane_before = coalesce(lane_before, lane), lane = 'resume',
       available_at_ms = 0, queued_at_ms = :now_ms, timeout_ms = :timeout_ms, delayed = 1
WHERE inbox_no = :inbox_no AND state = 'interrupted';

-- name: interrupted
-- Return interrupted messages, newest first, a page at a time, with how the session's
-- turn before ended, whether its import was damaged, and whether its lane is paused.
SELECT i.inbox_no, i.session_no, s.session_id, s.updated_at_ms, s.ended_at_ms, i.accepted_at_ms,
       i.attempts, i.attempts - i.stops AS strikes, i.reason, i.restored,
       (SELECT t.state FROM turn AS t WHERE t.session_no = i.session_no AND t.inbox_no <> i.inbox_no
          AND t.turn_no < i.turn_no ORDER BY t.turn_no DESC LIMIT 1)
         AS state_before,
       EXISTS (SELECT 1 FROM import_file AS r
               JOIN quarantine AS q ON q.import_file_no = r.import_file_no
               WHERE r.session_no = i.session_no AND q.severity = 'damaged') AS damaged,
       (SELECT l.lane FROM lane AS l WHERE l.lane = coalesce(i.lane_before, i.lane)
          AND l.paused_at_ms IS NOT NULL) AS paused_lane,
       NULL AS holder_no
FROM inbox AS i JOIN session AS s ON s.session_no = i.session_no
WHERE i.state IN ('interrupted', 'dead') AND i.state = 'interrupted' AND i.inbox_no < :before_no
ORDER BY i.inbox_no DESC LIMIT :limit;

-- name: interrupted_by
-- Return the same for messages that turns of some processes (a JSON array) work on, for
-- a plan that takes these processes for dead. Reads running turns only.
SELECT i.inbox_no, i.session_no, s.session_id, s.updated_at_ms, s.ended_at_ms, i.accepted_at_ms,
       i.attempts, i.attempts - i.stops AS strikes, i.reason, i.restored,
       (SELECT t.state FROM turn AS t WHERE t.session_no = i.session_no AND t.inbox_no <> i.inbox_no
          AND t.turn_no < i.turn_no ORDER BY t.turn_no DESC LIMIT 1)
         AS state_before,
       EXISTS (SELECT 1 FROM import_file AS r
               JOIN quarantine AS q ON q.import_file_no = r.import_file_no
               WHERE r.session_no = i.session_no AND q.severity = 'damaged') AS damaged,
       (SELECT l.lane FROM lane AS l WHERE l.lane = coalesce(i.lane_before, i.lane)
          AND l.paused_at_ms IS NOT NULL) AS paused_lane,
       w.instance_no AS holder_no
FROM turn AS w INDEXED BY turn_one_running CROSS JOIN inbox AS i ON i.inbox_no = w.inbox_no
JOIN session AS s ON s.session_no = i.session_no
WHERE w.state = 'running' AND w.instance_no IN (SELECT value FROM json_each(:instances))
  AND i.state = 'claimed' AND i.inbox_no < :before_no
ORDER BY i.inbox_no DESC LIMIT :limit;

-- name: running_resumes
-- Count the resumes that are queued or running, without those that run in dead
-- processes (a JSON array), and without those that a paused lane keeps back.
SELECT (SELECT count(*) FROM inbox WHERE state = 'queued' AND lane = 'resume'
          AND NOT EXISTS (SELECT 1 FROM lane AS l WHERE l.lane = inbox.lane_before
                            AND l.paused_at_ms IS NOT NULL))
     + (SELECT count(*) FROM turn
        WHERE state = 'running' AND lane = 'resume'
          AND instance_no NOT IN (SELECT value FROM json_each(:dead))) AS resumes;

-- name: late
-- Return the messages of a lane that were not accepted within a time range, and whose
-- sender has not been told yet that they wait.
SELECT i.inbox_no, i.session_no, s.session_id, i.accepted_at_ms FROM inbox AS i
JOIN session AS s ON s.session_no = i.session_no
WHERE i.state = 'queued' AND i.lane = :lane AND i.delayed = 0
  AND i.accepted_at_ms NOT BETWEEN :low_ms AND :high_ms
ORDER BY i.inbox_no LIMIT :limit;

-- name: notified
-- Return when a message was accepted, whether its sender has been told to wait, which
-- turn has it, how many of its attempts count, and its session.
SELECT session_no, accepted_at_ms, delayed, state, turn_no, attempts - stops AS strikes FROM inbox
WHERE inbox_no = :inbox_no;

-- name: mark_delayed, one row or none
-- Record that the sender has been told to wait, once.
UPDATE inbox SET delayed = 1 WHERE inbox_no = :inbox_no AND delayed = 0;

-- name: requeue, one row or none
-- Requeue a dead letter, for an operator: dead -> queued, in the lane that accepted it,
-- with no attempts counted. A resume is a message again, with all of its lane's time.
UPDATE inbox SET state = 'queued', attempts = 0, stops = 0, available_at_ms = 0,
       queued_at_ms = :now_ms, lane = coalesce(lane_before, lane), lane_before = NULL,
       timeout_ms = NULL, told_no = NULL, reason = 'requeued by an operator'
WHERE inbox_no = :inbox_no AND state = 'dead';

-- name: requeue_restored, one row or none
-- Requeue a message of a restored backup, for an operator: interrupted -> queued, in the lane
-- that accepted it.
UPDATE inbox SET state = 'queued', restored = 0, available_at_ms = 0, queued_at_ms = :now_ms,
       lane = coalesce(lane_before, lane), lane_before = NULL, timeout_ms = NULL,
       reason = 'requeued by an operator'
WHERE inbox_no = :inbox_no AND state = 'interrupted' AND restored = 1;

-- name: restored
-- Return the messages of a restored backup that wait for a person's decision, oldest first, a
-- page at a time.
SELECT inbox_no, session_no FROM inbox
WHERE state IN ('interrupted', 'dead') AND state = 'interrupted' AND restored = 1
  AND inbox_no > :after_no
ORDER BY inbox_no LIMIT :limit;

-- name: drop, one row or none
-- Drop a dead letter, for an operator: dead -> done.
UPDATE inbox SET state = 'done', reason = 'dropped by an operator'
WHERE inbox_no = :inbox_no AND state = 'dead';

-- name: dead
-- Return dead letters, newest first, a page at a time, each with its text or that of its entry.
SELECT i.inbox_no, i.channel, i.event_id, s.session_id, i.lane, i.accepted_at_ms, i.attempts,
       i.reason, i.details,
       coalesce(i.payload,
         CAST(substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) AS TEXT),
         '') AS payload
FROM inbox AS i JOIN session AS s ON s.session_no = i.session_no
LEFT JOIN entry AS e ON e.entry_no = i.entry_no AND i.payload IS NULL AND e.type = 'message'
WHERE i.state IN ('interrupted', 'dead') AND i.state = 'dead' AND i.inbox_no < :before_no
ORDER BY i.inbox_no DESC LIMIT :limit;

-- name: open
-- Return the messages that are neither done nor dead, oldest first, a page at a time, each with
-- its text or that of its entry.
-- The partial indexes hold exactly these.
SELECT i.inbox_no, i.channel, i.event_id, s.session_id, i.lane, i.state, i.accepted_at_ms,
       i.available_at_ms, i.attempts, i.turn_no, i.reason, i.details,
       coalesce(i.payload,
         CAST(substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) AS TEXT),
         '') AS payload
FROM (
  SELECT o.inbox_no FROM inbox AS o INDEXED BY inbox_of_session
  WHERE o.state IN ('queued', 'claimed', 'interrupted') AND o.inbox_no > :after_no
  UNION ALL
  SELECT h.inbox_no FROM inbox AS h INDEXED BY inbox_heard
  WHERE h.state = 'heard' AND h.inbox_no > :after_no
  ORDER BY 1 LIMIT :limit
) AS found CROSS JOIN inbox AS i ON i.inbox_no = found.inbox_no
JOIN session AS s ON s.session_no = i.session_no
LEFT JOIN entry AS e ON e.entry_no = i.entry_no AND i.payload IS NULL AND e.type = 'message'
ORDER BY i.inbox_no;

-- name: open_of_session
-- Return the same of one session.
SELECT i.inbox_no, i.channel, i.event_id, s.session_id, i.lane, i.state, i.accepted_at_ms,
       i.available_at_ms, i.attempts, i.turn_no, i.reason, i.details,
       coalesce(i.payload,
         CAST(substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) AS TEXT),
         '') AS payload
FROM (
  SELECT o.inbox_no FROM inbox AS o INDEXED BY inbox_of_session
  WHERE o.session_no = :session_no AND o.state IN ('queued', 'claimed', 'interrupted')
    AND o.inbox_no > :after_no
  UNION ALL
  SELECT h.inbox_no FROM inbox AS h INDEXED BY inbox_heard
  WHERE h.session_no = :session_no AND h.state = 'heard' AND h.inbox_no > :after_no
  ORDER BY 1 LIMIT :limit
) AS found CROSS JOIN inbox AS i ON i.inbox_no = found.inbox_no
JOIN session AS s ON s.session_no = i.session_no
LEFT JOIN entry AS e ON e.entry_no = i.entry_no AND i.payload IS NULL AND e.type = 'message'
ORDER BY i.inbox_no;

-- name: outcome
-- Return how a message ended, if it has: with the turn that ended it, its own or that of the
-- message that superseded it, and the event that told its sender.
SELECT i.state, i.reason, i.heard, i.entry_no, i.superseded_by, s.session_id,
       t.state AS turn_state, t.incomplete, v.kind AS told_kind
FROM inbox AS i JOIN session AS s ON s.session_no = i.session_no
LEFT JOIN inbox AS o ON o.inbox_no = i.superseded_by
LEFT JOIN turn AS t ON t.turn_no = iif(i.superseded_by IS NULL, i.turn_no, o.turn_no)
LEFT JOIN event AS v ON v.event_no = i.told_no
WHERE i.inbox_no = :inbox_no;

-- name: answered_at
-- Return the entry behind which the answer to a message stands: its own, or that of the message
-- that superseded it. None for a message that was only heard.
SELECT e.entry_no, e.branch_no
FROM inbox AS i LEFT JOIN inbox AS o ON o.inbox_no = i.superseded_by
JOIN entry AS e ON e.entry_no = coalesce(o.entry_no, i.entry_no)
WHERE i.inbox_no = :inbox_no AND i.heard = 0;

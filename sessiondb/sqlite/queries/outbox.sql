-- name: add, one row
-- Add a reply, in the transaction that completes its turn, with the details of its message.
-- With a reason why not, it is failed.
INSERT INTO outbox (session_no, turn_no, target, channel, state, created_at_ms, available_at_ms,
                    waits, finished_at_ms, reason, details, payload)
VALUES (:session_no, :turn_no, :target, substr(:target, 1, instr(:target || ':', ':') - 1),
        CASE WHEN :reason IS NULL THEN 'pending' ELSE 'failed' END, :now_ms, 0,
        EXISTS (SELECT 1 FROM outbox AS e INDEXED BY outbox_of_session
                WHERE e.session_no = :session_no
                  AND e.channel = substr(:target, 1, instr(:target || ':', ':') - 1)
                  AND e.state IN ('pending', 'sending')),
        CASE WHEN :reason IS NOT NULL THEN :now_ms END, :reason,
        (SELECT i.details FROM turn AS t JOIN inbox AS i ON i.inbox_no = t.inbox_no
         WHERE t.turn_no = :turn_no), :payload)
RETURNING outbox_no;

-- name: forward, one row or none
-- Add the reply that forwards an event for a consumer, once. With a reason why not, it is
-- failed.
INSERT INTO outbox (session_no, turn_no, target, channel, state, created_at_ms, available_at_ms,
                    waits, finished_at_ms, event_no, consumer, reason, payload)
VALUES (:session_no, NULL, :target, substr(:target, 1, instr(:target || ':', ':') - 1),
        CASE WHEN :reason IS NULL THEN 'pending' ELSE 'failed' END, :now_ms, 0,
        EXISTS (SELECT 1 FROM outbox AS e INDEXED BY outbox_of_session
                WHERE e.session_no = :session_no
                  AND e.channel = substr(:target, 1, instr(:target || ':', ':') - 1)
                  AND e.state IN ('pending', 'sending')),
        CASE WHEN :reason IS NOT NULL THEN :now_ms END, :event_no, :consumer, :reason, :payload)
ON CONFLICT (event_no, consumer) WHERE event_no IS NOT NULL DO NOTHING;

-- name: next
-- Return the first reply whose pause ends within a time range and that may be sent, of
-- the channels that are not in a JSON array. From 0 to 0 are those without a pause, in the
-- order in which they were written. Replies of one session to one channel keep their
-- order. Each channel that has a waiting reply is searched by itself, so those that
-- wait for a channel in the array, or for their retry, are not read. Neither are those that
-- are marked: they wait for another reply.
WITH RECURSIVE waiting (channel) AS (
  SELECT min(channel) FROM outbox WHERE state = 'pending'
  UNION ALL
  SELECT (SELECT min(o.channel) FROM outbox AS o
          WHERE o.state = 'pending' AND o.channel > waiting.channel)
  FROM waiting WHERE waiting.channel IS NOT NULL
),
first_of (outbox_no) AS (
  SELECT (SELECT o.outbox_no FROM outbox AS o INDEXED BY outbox_waiting
          WHERE o.state = 'pending' AND o.channel = w.channel AND o.waits = 0
            AND o.available_at_ms BETWEEN :low_ms AND :high_ms
            AND NOT EXISTS (SELECT 1 FROM outbox AS e
                            WHERE e.session_no = o.session_no AND e.channel = o.channel
                              AND e.state IN ('pending', 'sending') AND e.outbox_no < o.outbox_no)
          ORDER BY o.available_at_ms, o.outbox_no LIMIT 1)
  FROM waiting AS w
  WHERE w.channel IS NOT NULL AND w.channel NOT IN (SELECT value FROM json_each(:full))
)
SELECT o.outbox_no FROM first_of AS f CROSS JOIN outbox AS o ON o.outbox_no = f.outbox_no
ORDER BY o.available_at_ms, o.outbox_no LIMIT 1;

-- name: ready
-- Return a row if a reply that a look has found may be sent now, too.
SELECT 1 AS ready FROM outbox AS o
WHERE o.outbox_no = :outbox_no AND o.state = 'pending'
  AND o.available_at_ms NOT BETWEEN :now_ms + 1 AND :now_ms + 60000
  AND o.channel NOT IN (SELECT value FROM json_each(:full))
  AND NOT EXISTS (SELECT 1 FROM outbox AS e INDEXED BY outbox_of_session
                  WHERE e.session_no = o.session_no AND e.channel = o.channel
                    AND e.state IN ('pending', 'sending') AND e.outbox_no < o.outbox_no);

-- name: candidate
-- Return what sending a reply needs.
SELECT o.outbox_no, s.session_id, o.session_no, o.turn_no, o.target, o.attempts, o.attempts_before,
       o.created_at_ms, coalesce(o.asked_at_ms, o.created_at_ms) AS asked_at_ms, o.reason, o.details
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no WHERE o.outbox_no = :outbox_no;

-- name: origin
-- Return what a reply answers or forwards. Its session's row may be lost.
SELECT session_no, turn_no, target, event_no FROM outbox WHERE outbox_no = :outbox_no;

-- name: payload
-- Return the text of a reply. Not under the write lock, if that can be helped: it may be
-- large.
SELECT payload FROM outbox WHERE outbox_no = :outbox_no;

-- name: due
-- Return when the next reply that waits for its retry becomes available, of the channels
-- that are not in a JSON array. A pause is at most a minute. A time further ahead comes
-- from a clock that has been set back since, and is ignored.
WITH RECURSIVE waiting (channel) AS (
  SELECT min(channel) FROM outbox WHERE state = 'pending'
  UNION ALL
  SELECT (SELECT min(o.channel) FROM outbox AS o
          WHERE o.state = 'pending' AND o.channel > waiting.channel)
  FROM waiting WHERE waiting.channel IS NOT NULL
)
SELECT min((SELECT min(o.available_at_ms) FROM outbox AS o INDEXED BY outbox_waiting
            WHERE o.state = 'pending' AND o.channel = w.channel AND o.waits = 0
              AND o.available_at_ms BETWEEN :now_ms + 1 AND :now_ms + 60000)) AS at_ms
FROM waiting AS w
WHERE w.channel IS NOT NULL AND w.channel NOT IN (SELECT value FROM json_each(:full));

-- name: begin_sending, one row or none
-- Begin to send a reply: pending -> sending, once. From here on a crash makes it
-- unknown.
UPDATE outbox SET state = 'sending', attempts = attempts + 1, instance_no = :instance_no,
       expires_at_ms = :expires_at_ms, claim_id = :claim_id
WHERE outbox_no = :outbox_no AND state = 'pending';

-- name: claimed_as
-- Return the reply that is being sent since a claim with this id.
SELECT outbox_no FROM outbox WHERE claim_id = :claim_id AND state = 'sending';

-- name: send_longer, one row or none
-- Let the attempt that is sending a reply go on, through another process perhaps.
UPDATE outbox SET instance_no = :instance_no, expires_at_ms = :expires_at_ms
WHERE outbox_no = :outbox_no AND state = 'sending';

-- name: adopt, one row or none
-- Let an instance speak for the attempt that is sending a reply, or left it unknown: its worker
-- is in no process of ours, and the instance that began may be gone.
UPDATE outbox SET instance_no = :instance_no
WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND attempts = :attempt;

-- name: set_aside, one row or none
-- Set a reply aside that cannot be read: pending -> failed, without its channel having
-- been called.
UPDATE outbox SET state = 'failed', finished_at_ms = :now_ms, reason = :reason
WHERE outbox_no = :outbox_no AND state = 'pending';

-- name: begun
-- Return a row if exactly this attempt is sending a reply, or left it unknown.
SELECT outbox_no FROM outbox
WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND instance_no = :instance_no
  AND attempts = :attempt AND expires_at_ms = :expires_at_ms;

-- name: settle, one row or none
-- Settle a reply: -> sent or failed, by the attempt that was sending it. Also from
-- unknown: the attempt knows now.
UPDATE outbox SET state = :state, finished_at_ms = :now_ms, receipt = :receipt, reason = :reason
WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND instance_no = :instance_no
  AND attempts = :attempt;

-- name: retry, one row or none
-- Retry a reply: -> pending, by the attempt that was sending it, because the channel
-- refused it. Without a pause, 0, it keeps its place. `uncounted` attempts do not count. It is
-- marked until line_up, in the same transaction, finds that it is the first.
UPDATE outbox SET state = 'pending', finished_at_ms = NULL, reason = :reason,
       available_at_ms = :available_at_ms, attempts_before = attempts_before + :uncounted, waits = 1
WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND instance_no = :instance_no
  AND attempts = :attempt;

-- name: line_up, any rows
-- Mark the first two open replies of a session to the channel of one of them: the first
-- waits for none, the second does. The others are marked, and stay so. So this reads no more
-- however many wait.
UPDATE outbox SET waits = 1 - waits WHERE state = 'pending' AND outbox_no IN (
  SELECT place.outbox_no FROM (
    SELECT e.outbox_no, e.waits, row_number() OVER (ORDER BY e.outbox_no) > 1 AS is_behind
    FROM outbox AS own CROSS JOIN outbox AS e INDEXED BY outbox_of_session
      ON e.session_no = own.session_no AND e.channel = own.channel
    WHERE own.outbox_no = :outbox_no AND e.state IN ('pending', 'sending')
    ORDER BY e.outbox_no LIMIT 2
  ) AS place WHERE place.waits <> place.is_behind
);

-- name: line_up_all, any rows
-- Mark every reply that waits, and no other. For rows that another program wrote, or that
-- were salvaged.
UPDATE outbox SET waits = 1 - waits
WHERE state IN ('pending', 'sending', 'unknown', 'failed') AND state = 'pending' AND waits <>
  EXISTS (SELECT 1 FROM outbox AS e INDEXED BY outbox_of_session
          WHERE e.session_no = outbox.session_no AND e.channel = outbox.channel
            AND e.state IN ('pending', 'sending') AND e.outbox_no < outbox.outbox_no);

-- name: overdue
-- Return the replies whose lease has expired.
SELECT outbox_no, session_no, attempts FROM outbox
WHERE state IN ('pending', 'sending', 'unknown', 'failed') AND state = 'sending'
  AND expires_at_ms <= :now_ms LIMIT :limit;

-- name: of_instance
-- Return the replies that one process was sending.
SELECT outbox_no, session_no, attempts FROM outbox
WHERE state IN ('pending', 'sending', 'unknown', 'failed') AND state = 'sending'
  AND instance_no = :instance_no LIMIT :limit;

-- name: lose_track, one row or none
-- Mark a reply as unknown: its sender died while sending. It is never sent again by
-- itself.
UPDATE outbox SET state = 'unknown', finished_at_ms = :now_ms, reason = :reason
WHERE outbox_no = :outbox_no AND state = 'sending' AND attempts = :attempt;

-- name: decide, one row or none
-- Decide about a reply, for an operator: unknown or failed -> sent or pending. A
-- pending one is tried as if it were new. Its attempts keep counting, because their
-- number is the fence against an older attempt that answers late. It is marked until line_up,
-- in the same transaction, finds that it is the first.
UPDATE outbox SET state = :state, available_at_ms = 0, reason = :reason,
       waits = :state = 'pending',
       finished_at_ms = CASE WHEN :state = 'sent' THEN :now_ms END,
       asked_at_ms = CASE WHEN :state = 'sent' THEN asked_at_ms ELSE :now_ms END,
       attempts_before = CASE WHEN :state = 'sent' THEN attempts_before ELSE attempts END
WHERE outbox_no = :outbox_no AND state IN ('unknown', 'failed');

-- name: list
-- Return the replies in a state, oldest first, a page at a time.
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts, o.created_at_ms,
       o.reason, o.details, o.payload
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state IN ('pending', 'sending', 'unknown', 'failed') AND o.state = :state
  AND o.outbox_no > :after_no
ORDER BY o.outbox_no LIMIT :limit;

-- name: list_sent
-- Return the sent replies, oldest first, a page at a time. They have no index: most
-- replies are sent.
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts, o.created_at_ms,
       o.reason, o.details, o.payload
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state = 'sent' AND o.outbox_no > :after_no ORDER BY o.outbox_no LIMIT :limit;

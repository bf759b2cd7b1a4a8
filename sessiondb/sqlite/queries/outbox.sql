-- name: add
-- A reply, in the transaction that completes its turn.
INSERT INTO outbox (session_no, turn_no, target, state, created_at_ms, available_at_ms, payload)
VALUES (:session_no, :turn_no, :target, 'pending', :now_ms, :now_ms, :payload);

-- name: next
-- The reply that became available first within some time, and may be sent: replies of one session keep their order. What waits for
-- its retry is not even looked at.
SELECT o.outbox_no FROM outbox AS o INDEXED BY outbox_waiting
WHERE o.state = 'pending' AND o.available_at_ms BETWEEN :low_ms AND :high_ms
  AND NOT EXISTS (SELECT 1 FROM outbox AS e WHERE e.session_no = o.session_no AND e.state IN ('pending', 'sending') AND e.outbox_no < o.outbox_no)
ORDER BY o.available_at_ms, o.outbox_no LIMIT 1;

-- name: candidate
-- What is needed of a reply to send it.
SELECT o.outbox_no, s.session_id, o.session_no, o.target, o.attempts, o.attempts_before, coalesce(o.asked_at_ms, o.created_at_ms) AS asked_at_ms,
       o.payload
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no WHERE o.outbox_no = :outbox_no;

-- name: full
-- A row if more replies than that wait to be sent or are being sent; by the partial index that holds just these.
SELECT 1 AS full FROM outbox INDEXED BY outbox_of_session WHERE state IN ('pending', 'sending') LIMIT 1 OFFSET :fewer;

-- name: due
-- When the next reply that waits for its retry becomes available. A pause is a minute at most: a time further ahead is of a clock
-- that has been set back since, and is not waited for.
SELECT min(available_at_ms) AS at_ms FROM outbox WHERE state = 'pending' AND available_at_ms BETWEEN :now_ms + 1 AND :now_ms + 60000;

-- name: begin_sending
-- pending -> sending, once: from here on a crash makes it unknown.
UPDATE outbox SET state = 'sending', attempts = attempts + 1, instance_no = :instance_no, expires_at_ms = :expires_at_ms
WHERE outbox_no = :outbox_no AND state = 'pending';

-- name: begun
-- Whether a reply is being sent, or was given up as unknown, by just this attempt.
SELECT outbox_no FROM outbox WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND instance_no = :instance_no
  AND attempts = :attempt AND expires_at_ms = :expires_at_ms;

-- name: settle
-- -> sent or failed, by the attempt that was sending it; also when it had been given up as unknown: now it is known.
UPDATE outbox SET state = :state, finished_at_ms = :now_ms, receipt = :receipt, reason = :reason
WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND instance_no = :instance_no AND attempts = :attempt;

-- name: retry
-- -> pending, by the attempt that was sending it: the channel said that it did not.
UPDATE outbox SET state = 'pending', available_at_ms = :available_at_ms, finished_at_ms = NULL, reason = :reason
WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND instance_no = :instance_no AND attempts = :attempt;

-- name: wait_behind
-- What is pending behind a reply of its session that waits for its retry waits as long: it could not be sent anyway, and is not
-- looked at in vain. The next ones only: it is one short transaction.
UPDATE outbox SET available_at_ms = :available_at_ms WHERE available_at_ms < :available_at_ms AND outbox_no IN (
  SELECT outbox_no FROM outbox WHERE session_no = :session_no AND state IN ('pending', 'sending') AND state = 'pending'
    AND outbox_no > :outbox_no ORDER BY outbox_no LIMIT :limit
);

-- name: overdue
-- Replies whose sender has not been heard of in time.
SELECT outbox_no, session_no, attempts FROM outbox WHERE state IN ('pending', 'sending', 'unknown', 'failed') AND state = 'sending' AND expires_at_ms <= :now_ms LIMIT :limit;

-- name: of_instance
-- Replies that one process was sending.
SELECT outbox_no, session_no, attempts FROM outbox WHERE state IN ('pending', 'sending', 'unknown', 'failed') AND state = 'sending' AND instance_no = :instance_no LIMIT :limit;

-- name: lose_track
-- sending -> unknown: its sender died in between. Never sent again by itself.
UPDATE outbox SET state = 'unknown', finished_at_ms = :now_ms, reason = :reason
WHERE outbox_no = :outbox_no AND state = 'sending' AND attempts = :attempt;

-- name: decide
-- unknown or failed -> sent or pending, by an operator who knows. Pending, it is tried as if it were new; its attempts are counted on,
-- because their number is what an older attempt that still answers is told by.
UPDATE outbox SET state = :state, available_at_ms = :now_ms, reason = :reason,
       finished_at_ms = CASE WHEN :state = 'sent' THEN :now_ms END,
       asked_at_ms = CASE WHEN :state = 'sent' THEN asked_at_ms ELSE :now_ms END,
       attempts_before = CASE WHEN :state = 'sent' THEN attempts_before ELSE attempts END
WHERE outbox_no = :outbox_no AND state IN ('unknown', 'failed');

-- name: list
-- Replies in a state, oldest first.
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts, o.created_at_ms, o.reason, o.payload
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state IN ('pending', 'sending', 'unknown', 'failed') AND o.state = :state AND o.outbox_no > :after_no ORDER BY o.outbox_no LIMIT :limit;

-- name: list_sent
-- Replies that were sent, oldest first. They have no index: most replies are.
SELECT o.outbox_no, s.session_id, o.turn_no, o.target, o.state, o.attempts, o.created_at_ms, o.reason, o.payload
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state = 'sent' AND o.outbox_no > :after_no ORDER BY o.outbox_no LIMIT :limit;

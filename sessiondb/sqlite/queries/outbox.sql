-- name: add
-- A reply, in the transaction that completes its turn.
INSERT INTO outbox (session_no, turn_no, target, state, created_at_ms, available_at_ms, payload)
VALUES (:session_no, :turn_no, :target, 'pending', :now_ms, :now_ms, :payload);

-- name: next
-- The oldest reply that may be sent now; replies of one session keep their order. A pause is a minute at most: a time
-- further ahead is of a clock that has been set back since, and is not waited for.
SELECT o.outbox_no, s.session_id, o.session_no, o.target, o.attempts, o.payload FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
WHERE o.state IN ('pending', 'sending', 'unknown', 'failed') AND o.state = 'pending'
  AND o.available_at_ms NOT BETWEEN :now_ms + 1 AND :now_ms + 60000
  AND NOT EXISTS (SELECT 1 FROM outbox AS e WHERE e.session_no = o.session_no AND e.state IN ('pending', 'sending') AND e.outbox_no < o.outbox_no)
ORDER BY o.outbox_no LIMIT 1;

-- name: due
-- When the next reply that waits for its retry becomes available.
SELECT min(available_at_ms) AS at_ms FROM outbox WHERE state IN ('pending', 'sending', 'unknown', 'failed') AND state = 'pending'
  AND available_at_ms BETWEEN :now_ms + 1 AND :now_ms + 60000;

-- name: begin_sending
-- pending -> sending, once: from here on a crash makes it unknown.
UPDATE outbox SET state = 'sending', attempts = attempts + 1, instance_no = :instance_no, expires_at_ms = :expires_at_ms
WHERE outbox_no = :outbox_no AND state = 'pending';

-- name: settle
-- -> sent or failed, by the attempt that was sending it; also when it had been given up as unknown: now it is known.
UPDATE outbox SET state = :state, finished_at_ms = :now_ms, receipt = :receipt, reason = :reason
WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND instance_no = :instance_no AND attempts = :attempt;

-- name: retry
-- -> pending, by the attempt that was sending it: the channel said that it did not.
UPDATE outbox SET state = 'pending', available_at_ms = :available_at_ms, finished_at_ms = NULL, reason = :reason
WHERE outbox_no = :outbox_no AND state IN ('sending', 'unknown') AND instance_no = :instance_no AND attempts = :attempt;

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
-- unknown or failed -> sent or pending, by an operator who knows.
UPDATE outbox SET state = :state, available_at_ms = :now_ms, finished_at_ms = CASE WHEN :state = 'sent' THEN :now_ms END, reason = :reason
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

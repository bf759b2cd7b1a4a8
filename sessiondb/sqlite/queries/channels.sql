-- name: full
-- Return a row if more than `fewer` replies of a channel wait. No further row is read.
SELECT 1 AS full FROM outbox INDEXED BY outbox_waiting
WHERE state = 'pending' AND channel = :channel LIMIT 1 OFFSET :fewer;

-- name: next_try
-- Return when the first waiting reply of a channel is to be tried.
SELECT min(available_at_ms) AS at_ms FROM outbox INDEXED BY outbox_waiting
WHERE state = 'pending' AND channel = :channel AND waits = 0;

-- name: pause_of
-- Return the last pause of a channel that has taken no reply since, in force or not.
SELECT refused_since_ms, pauses, begun_at_ms, until_ms FROM channel_pause WHERE channel = :channel;

-- name: in_force
-- Return the pauses in force. A pause that began later than now is of a clock that has been
-- set back since.
SELECT channel, refused_since_ms, begun_at_ms, until_ms, reason FROM channel_pause
WHERE begun_at_ms <= :now_ms AND until_ms > :now_ms;

-- name: put_pause, one row
-- Make a channel wait, in the place of its last pause.
INSERT INTO channel_pause (channel, refused_since_ms, pauses, begun_at_ms, until_ms, reason)
VALUES (:channel, :refused_since_ms, :pauses, :now_ms, :until_ms, :reason)
ON CONFLICT (channel) DO UPDATE SET refused_since_ms = excluded.refused_since_ms,
       pauses = excluded.pauses, begun_at_ms = excluded.begun_at_ms, until_ms = excluded.until_ms,
       reason = excluded.reason;

-- name: end_pause, one row or none
-- End exactly this pause before its time. Its row still says since when the channel refuses.
UPDATE channel_pause SET until_ms = begun_at_ms
WHERE channel = :channel AND begun_at_ms = :begun_at_ms AND until_ms = :until_ms;

-- name: forget, one row or none
-- Forget the pause of a channel that took a reply. Not one in force: the call that the
-- channel took had begun before it.
DELETE FROM channel_pause
WHERE channel = :channel AND (begun_at_ms > :now_ms OR until_ms <= :now_ms);

-- name: forget_old, any rows
-- Forget the pauses that ended before a time.
DELETE FROM channel_pause WHERE until_ms < :before_ms;

-- name: outwaited
-- Return the replies of a channel that have waited since a time or longer, oldest first.
SELECT outbox_no, session_no, target FROM outbox INDEXED BY outbox_waiting
WHERE state = 'pending' AND channel = :channel
  AND coalesce(asked_at_ms, created_at_ms) <= :asked_before_ms
ORDER BY outbox_no LIMIT :limit;

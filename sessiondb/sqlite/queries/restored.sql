-- What a restored backup holds that would go on by itself (gateway/restored.py).

-- name: suspend_queued, any rows
-- Suspend every message that is queued: it may have been answered since the backup.
UPDATE inbox SET state = 'interrupted', waits = 0, available_at_ms = 0 WHERE state = 'queued';

-- name: mark_interrupted, any rows
-- Leave every interrupted message to a person's decision.
UPDATE inbox SET restored = 1, reason = :reason
WHERE state IN ('interrupted', 'dead') AND state = 'interrupted';

-- name: lose_replies, any rows
-- Make every reply that would be sent unknown: it may have been sent since the backup.
UPDATE outbox SET state = 'unknown', waits = 0, expires_at_ms = NULL, instance_no = NULL,
       finished_at_ms = :now_ms, reason = :reason
WHERE state IN ('pending', 'sending', 'unknown', 'failed') AND state IN ('pending', 'sending');

-- name: skip_events, any rows
-- Move every reader of events to the newest one, so that none is passed on a second time.
UPDATE event_cursor SET event_no = (SELECT max(e.event_no) FROM event AS e)
WHERE event_no < (SELECT max(e.event_no) FROM event AS e);

-- name: end_pauses, any rows
-- End the pauses of channels. They were of then.
DELETE FROM channel_pause;

-- name: emit, one row
-- Record an event. It is committed with the change that it reports.
INSERT INTO event (kind, audience, session_no, at_ms, text, data)
VALUES (:kind, :audience, :session_no, :now_ms, :text, :data)
RETURNING event_no;

-- name: after
-- Return the events after a cursor, in order. Safe, because numbers are assigned under
-- the one write lock: a later commit never carries a lower number. (On a server with
-- concurrent writers this would not hold.)
SELECT e.event_no, e.kind, e.audience, s.session_id, e.at_ms, e.text, e.data
FROM event AS e LEFT JOIN session AS s ON s.session_no = e.session_no
WHERE e.event_no > :after_no ORDER BY e.event_no LIMIT :limit;

-- name: after_for
-- Return the same for one audience, however many events of the other lie between.
SELECT e.event_no, e.kind, e.audience, s.session_id, e.at_ms, e.text, e.data
FROM event AS e LEFT JOIN session AS s ON s.session_no = e.session_no
WHERE e.audience = :audience AND e.event_no > :after_no ORDER BY e.event_no LIMIT :limit;

-- name: of_session
-- Return a session's events for one audience among the newest of that audience, newest first.
-- Reads at most `among` rows, however many events of the other lie between.
SELECT e.event_no, e.kind, e.audience, s.session_id, e.at_ms, e.text, e.data
FROM event AS e JOIN session AS s ON s.session_no = e.session_no
WHERE e.audience = :audience AND e.session_no = :session_no
  AND e.event_no >= coalesce((SELECT n.event_no FROM event AS n WHERE n.audience = :audience
                              ORDER BY n.event_no DESC LIMIT 1 OFFSET :among - 1), 0)
ORDER BY e.event_no DESC LIMIT :limit;

-- name: last
-- Return the newest event's number.
SELECT max(event_no) AS event_no FROM event;

-- name: nth_last
-- Return the number of the n-th event from the end.
SELECT event_no FROM event WHERE event_no > 0 ORDER BY event_no DESC LIMIT 1 OFFSET :skipped;

-- name: nth_last_for
-- Return the same for one audience.
SELECT event_no FROM event WHERE audience = :audience
ORDER BY event_no DESC LIMIT 1 OFFSET :skipped;

-- name: cursor
-- Return up to which event a consumer has handled.
SELECT event_no FROM event_cursor WHERE consumer = :consumer;

-- name: move_cursor, one row
-- Move a consumer's cursor, forward only.
INSERT INTO event_cursor (consumer, event_no) VALUES (:consumer, :event_no)
ON CONFLICT (consumer) DO UPDATE SET event_no = max(event_no, excluded.event_no);

-- name: forget, one row or none
-- Forget a consumer's cursor: nobody reads under its name any more.
DELETE FROM event_cursor WHERE consumer = :consumer;

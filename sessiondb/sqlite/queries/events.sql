-- name: emit
-- Something happened; committed with the change itself.
INSERT INTO event (kind, audience, session_no, at_ms, text, data) VALUES (:kind, :audience, :session_no, :now_ms, :text, :data);

-- name: after
-- Events behind a cursor, in order. Safe because numbers are given out by the one writer lock: a later commit
-- never carries a lower number. (It would not be on a server with concurrent writers.)
SELECT e.event_no, e.kind, e.audience, s.session_id, e.at_ms, e.text, e.data
FROM event AS e LEFT JOIN session AS s ON s.session_no = e.session_no
WHERE e.event_no > :after_no ORDER BY e.event_no LIMIT :limit;

-- name: after_for
-- The same for one audience; however many there are for the other in between.
SELECT e.event_no, e.kind, e.audience, s.session_id, e.at_ms, e.text, e.data
FROM event AS e LEFT JOIN session AS s ON s.session_no = e.session_no
WHERE e.audience = :audience AND e.event_no > :after_no ORDER BY e.event_no LIMIT :limit;

-- name: of_session
-- A session's events for one audience among the newest of all, newest first; reads `among` rows at most.
SELECT e.event_no, e.kind, e.audience, s.session_id, e.at_ms, e.text, e.data
FROM event AS e JOIN session AS s ON s.session_no = e.session_no
WHERE e.event_no > (SELECT max(event_no) FROM event) - :among AND e.session_no = :session_no AND e.audience = :audience
ORDER BY e.event_no DESC LIMIT :limit;

-- name: last
-- The newest event's number.
SELECT max(event_no) AS event_no FROM event;

-- name: nth_last
-- The number of the n-th event from the end.
SELECT event_no FROM event WHERE event_no > 0 ORDER BY event_no DESC LIMIT 1 OFFSET :skipped;

-- name: nth_last_for
-- The same for one audience.
SELECT event_no FROM event WHERE audience = :audience ORDER BY event_no DESC LIMIT 1 OFFSET :skipped;

-- name: cursor
-- Up to where a consumer has handled events.
SELECT event_no FROM event_cursor WHERE consumer = :consumer;

-- name: move_cursor
-- Move it, forward only.
INSERT INTO event_cursor (consumer, event_no) VALUES (:consumer, :event_no)
ON CONFLICT (consumer) DO UPDATE SET event_no = max(event_no, excluded.event_no);

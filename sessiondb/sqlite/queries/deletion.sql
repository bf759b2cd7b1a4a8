-- Sessions that are deleted for good, and what the other tables hold of them
-- (maintenance/deletion.py, gateway/clearing.py).

-- name: sending
-- Return a reply of a session that a process is sending now.
SELECT outbox_no FROM outbox
WHERE session_no = :session_no AND state IN ('pending', 'sending') AND state = 'sending' LIMIT 1;

-- name: waiting
-- Return messages of a session that wait for a turn, or were heard and wait for a claim.
SELECT inbox_no, session_no, state, turn_no FROM inbox
WHERE session_no = :session_no AND state IN ('queued', 'claimed', 'interrupted')
  AND state <> 'claimed'
UNION ALL
SELECT inbox_no, session_no, state, turn_no FROM inbox
WHERE session_no = :session_no AND state = 'heard'
ORDER BY inbox_no LIMIT :limit;

-- name: drop_dead, any rows
-- Delete dead letters of a session.
DELETE FROM inbox WHERE inbox_no IN (
  SELECT i.inbox_no FROM inbox AS i
  WHERE i.state IN ('interrupted', 'dead') AND i.state = 'dead' AND i.session_no = :session_no
  ORDER BY i.inbox_no LIMIT :limit);

-- name: drop_unsent, any rows
-- Delete replies of a session that were not sent, or of which nobody knows.
DELETE FROM outbox WHERE outbox_no IN (
  SELECT o.outbox_no FROM outbox AS o
  WHERE o.state IN ('pending', 'sending', 'unknown', 'failed') AND o.state <> 'sending'
    AND o.session_no = :session_no
  ORDER BY o.outbox_no LIMIT :limit);

-- name: by_key
-- Return the sessions that keys with a prefix point at, a page of keys at a time.
SELECT session_key, session_no FROM binding
WHERE session_key > :after_key AND session_key >= :prefix AND session_key < :prefix_end
ORDER BY session_key LIMIT :limit;

-- name: archived
-- Return archives that are not restored, each with whether a key of its session has a prefix,
-- and whether a deletion on request was begun and not ended, a page at a time.
SELECT a.archive_no, a.session_no,
       a.state IN ('deleting', 'deleted') AND a.reason = 'deleted on request' AS begun,
       EXISTS (SELECT 1 FROM json_each(a.session_keys) AS k
               WHERE k.value >= :prefix AND k.value < :prefix_end) AS has_key
FROM archive AS a WHERE a.archive_no > :after_no AND a.state <> 'restored'
ORDER BY a.archive_no LIMIT :limit;

-- name: inbox
-- Return the next messages by number, with their sessions.
SELECT inbox_no AS no, session_no FROM inbox WHERE inbox_no > :after_no
ORDER BY inbox_no LIMIT :limit;

-- name: outbox
-- Return the next replies by number, with their sessions.
SELECT outbox_no AS no, session_no FROM outbox WHERE outbox_no > :after_no
ORDER BY outbox_no LIMIT :limit;

-- name: event
-- Return the next events by number, up to one, with their sessions.
SELECT event_no AS no, session_no FROM event
WHERE event_no > :after_no AND event_no <= :last_no ORDER BY event_no LIMIT :limit;

-- name: last_event
-- Return the number of the newest event.
SELECT coalesce(max(event_no), 0) AS event_no FROM event;

-- name: delete_inbox, any rows
-- Delete messages of deleted sessions.
DELETE FROM inbox WHERE inbox_no IN (SELECT value FROM json_each(:numbers))
  AND session_no IN (SELECT value FROM json_each(:sessions));

-- name: delete_outbox, any rows
-- Delete replies of deleted sessions.
DELETE FROM outbox WHERE outbox_no IN (SELECT value FROM json_each(:numbers))
  AND session_no IN (SELECT value FROM json_each(:sessions));

-- name: delete_event, any rows
-- Delete events of deleted sessions.
DELETE FROM event WHERE event_no IN (SELECT value FROM json_each(:numbers))
  AND session_no IN (SELECT value FROM json_each(:sessions));

-- name: delete_turns, any rows
-- Delete turns of a deleted session.
DELETE FROM turn WHERE turn_no IN (SELECT t.turn_no FROM turn AS t
  WHERE t.session_no = :session_no AND t.state <> 'running' ORDER BY t.turn_no LIMIT :limit);

-- name: empty_pieces, any rows
-- Delete the texts of the lines of a session's imported file that are no entries. The receipt
-- counts their rows.
UPDATE quarantine SET content = zeroblob(0) WHERE (import_file_no, byte_offset) IN (
  SELECT q.import_file_no, q.byte_offset FROM import_file AS f
  JOIN quarantine AS q ON q.import_file_no = f.import_file_no
  WHERE f.session_no = :session_no AND length(q.content) > 0 LIMIT :limit);

-- name: begin_dropping, one row or none
-- Note that an archive is dropped on request.
UPDATE archive SET reason = 'deleted on request'
WHERE archive_no = :archive_no AND state = 'archived';

-- name: in_namespace
-- Return the sessions of a namespace of foreign ids, a page at a time.
SELECT external_id, session_no FROM foreign_id
WHERE namespace = :namespace AND external_id > :after_id ORDER BY external_id LIMIT :limit;

-- name: forget_keys, one row or none
-- Forget which keys pointed at a deleted session: its deletion has come to its end.
UPDATE archive SET session_keys = '[]', reason = 'deleted on request, to the end'
WHERE session_no = :session_no AND state = 'deleted' AND finished_at_ms IS NOT NULL;

-- name: indexes
-- Return the imported index files: their texts are kept.
SELECT path FROM import_file WHERE kind = 'index' ORDER BY import_file_no LIMIT :limit;

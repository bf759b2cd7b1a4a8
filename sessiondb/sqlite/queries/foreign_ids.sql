-- name: find
-- Return the session that has exactly this foreign id.
SELECT s.session_no, s.session_id, s.formats FROM foreign_id AS f
JOIN session AS s ON s.session_no = f.session_no
WHERE f.namespace = :namespace AND f.external_id = :external_id;

-- name: add, one row
-- Give a session its foreign id. A second one of a session, or of two sessions the same, is an
-- error.
INSERT INTO foreign_id (namespace, external_id, session_no, named_at_ms)
VALUES (:namespace, :external_id, :session_no, :now_ms);

-- name: forget, one row or none
-- Delete the foreign id of a session that is deleted.
DELETE FROM foreign_id WHERE session_no = :session_no;

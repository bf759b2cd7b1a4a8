-- What an application keeps about a session (transcript/details.py).

-- name: of_session
-- Return the details of a session, if it has some.
SELECT revision, changed_at_ms, document FROM session_details WHERE session_no = :session_no;

-- name: set, one row
-- Give a session its details, in the place of those that it had.
INSERT INTO session_details (session_no, revision, changed_at_ms, document)
VALUES (:session_no, :revision, :now_ms, :document)
ON CONFLICT (session_no) DO UPDATE SET revision = excluded.revision,
       changed_at_ms = excluded.changed_at_ms, document = excluded.document;

-- name: forget, one row or none
-- Delete the details of a session that is deleted.
DELETE FROM session_details WHERE session_no = :session_no;

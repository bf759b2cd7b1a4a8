-- What an application keeps about a session, or under a name of its own (transcript/details.py).

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

-- name: named
-- Return the details of a name, if it has some.
SELECT revision, changed_at_ms, document FROM named_details
WHERE namespace = :namespace AND name = :name;

-- name: set_named, one row
-- Give a name its details, in the place of those that it had.
INSERT INTO named_details (namespace, name, revision, changed_at_ms, document)
VALUES (:namespace, :name, :revision, :now_ms, :document)
ON CONFLICT (namespace, name) DO UPDATE SET revision = excluded.revision,
       changed_at_ms = excluded.changed_at_ms, document = excluded.document;

-- name: forget_named, one row or none
-- Delete the details of a name.
DELETE FROM named_details WHERE namespace = :namespace AND name = :name;

-- name: in_namespace
-- Return the details of a namespace in the order of their names, a page at a time.
SELECT namespace, name, revision, changed_at_ms, document FROM named_details
WHERE namespace = :namespace AND name > :after_name ORDER BY name LIMIT :limit;

-- name: forget_namespace, any rows
-- Delete some details of a namespace that is deleted.
DELETE FROM named_details WHERE details_no IN (
  SELECT details_no FROM named_details WHERE namespace = :namespace LIMIT :limit);

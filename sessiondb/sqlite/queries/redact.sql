-- The redaction of one entry (transcript/redact.py).

-- name: entry
-- Return an entry with its text, and whether a later one of its session names the session.
SELECT e.entry_no, e.entry_id, e.type, e.tokens, e.payload,
       EXISTS (SELECT 1 FROM entry AS n
               WHERE n.entry_no > e.entry_no AND n.entry_no <= e.entry_no | 4294967295
                 AND n.type = 'session_info') AS named_later
FROM entry AS e WHERE e.entry_no = :entry_no;

-- name: copies
-- Return the other entries of a session that are the same line of a file: one that was placed
-- once more when its parent came.
SELECT o.entry_no, o.entry_id, o.type, o.tokens, o.payload,
       EXISTS (SELECT 1 FROM entry AS n
               WHERE n.entry_no > o.entry_no AND n.entry_no <= o.entry_no | 4294967295
                 AND n.type = 'session_info') AS named_later
FROM entry AS e JOIN entry AS o
  ON o.entry_no >> 32 = e.entry_no >> 32 AND o.entry_id = e.entry_id AND o.payload = e.payload
WHERE e.entry_no = :entry_no AND o.entry_no <> e.entry_no ORDER BY o.entry_no;

-- name: put_entry, one row
-- Put another text in the place of an entry's, for good.
UPDATE entry SET payload = :payload, body_at = :body_at, body_bytes = :body_bytes
WHERE entry_no = :entry_no;

-- name: name_session, one row
-- Give a session another name.
UPDATE session SET name = :name WHERE session_no = :session_no;

-- name: mark_receipts, any rows
-- Mark the receipts of a session's file that an entry came from: what is stored is not what
-- their hashes are of.
UPDATE import_file SET note = CASE WHEN note IS NULL THEN :mark ELSE :mark || '; ' || note END
WHERE session_no = :session_no AND entries >= :seq
  AND coalesce(note, '') NOT GLOB 'redacted at import*';

-- name: put_bytes, one row or none
-- Put other bytes in the place of those of an imported line that is not UTF-8. The reason of
-- the piece says whose they are (`models.BYTES_OF_ENTRY`). A line end stays. Of an early line
-- those of its entry count then.
UPDATE quarantine
SET content = CASE WHEN entry_seq IS NOT NULL THEN x''
                   WHEN substr(content, -1) = x'0a' THEN :line ELSE :content END
WHERE import_file_no IN (SELECT import_file_no FROM import_file WHERE session_no = :session_no)
  AND (entry_seq = :seq OR (after_seq = :seq AND reason GLOB :reason));

-- name: forget_order, any rows
-- Forget from where on the contexts of a session, and of its forks, are in order.
UPDATE session SET ordered_from_no = NULL WHERE session_no IN (
  WITH RECURSIVE family (session_no) AS (
    VALUES (:session_no)
    UNION
    SELECT f.session_no FROM family AS o JOIN session AS f ON f.forked_from_no = o.session_no
  ) SELECT session_no FROM family);

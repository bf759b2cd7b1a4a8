-- name: known
-- Return what earlier imports recorded of some files, and where reading of each
-- continues. The tail is the last line, if it had no line end and was not an entry.
-- That line is read again, and a byte order mark before the first entry is none. ends_in_bytes:
-- the last line had no line end and is an entry whose bytes are kept (`models.BYTES_OF_ENTRY`).
SELECT r.import_file_no, r.path, r.name, r.kind, r.session_no, s.session_id, s.version, s.formats,
       r.bytes, r.lines, r.entries, r.quarantined,
       r.sha256, r.final_newline, r.inode, r.state, r.note, r.head_seq, r.compared_sha256,
       coalesce(s.last_seq, 0) AS session_last_seq,
       coalesce((SELECT min(p.import_file_no) FROM import_file AS p
                 WHERE p.session_no = r.session_no), r.import_file_no) AS first_import_file_no,
       (SELECT min(q.byte_offset) FROM quarantine AS q
        WHERE q.import_file_no = r.import_file_no AND q.line = r.lines
          AND r.final_newline = 0 AND q.severity <> 'early'
          AND (q.after_seq >= 0 OR r.session_no IS NULL)
          AND q.reason NOT GLOB 'read with U+FFFD*') AS tail_at,
       (SELECT min(q.reason) FROM quarantine AS q
        WHERE q.import_file_no = r.import_file_no AND q.line = r.lines
          AND r.final_newline = 0 AND q.severity <> 'early'
          AND (q.after_seq >= 0 OR r.session_no IS NULL)
          AND q.reason NOT GLOB 'read with U+FFFD*') AS tail_reason,
       EXISTS (SELECT 1 FROM quarantine AS q
               WHERE q.import_file_no = r.import_file_no AND q.line = r.lines
                 AND r.final_newline = 0 AND q.reason GLOB 'read with U+FFFD*') AS ends_in_bytes
FROM import_file AS r LEFT JOIN session AS s ON s.session_no = r.session_no
WHERE r.path IN (SELECT value FROM json_each(:paths));

-- name: by_path
-- Return one file's receipt, with its session's present size and its latest time.
SELECT r.import_file_no, r.session_no, s.session_id, r.bytes, r.lines, r.entries, r.quarantined,
       r.sha256, r.final_newline, r.state, r.note, r.head_seq, r.compared_sha256,
       s.updated_at_ms AS session_updated_at_ms,
       coalesce(s.last_seq, 0) AS session_last_seq,
       coalesce((SELECT min(p.import_file_no) FROM import_file AS p
                 WHERE p.session_no = r.session_no), r.import_file_no) AS first_import_file_no
FROM import_file AS r LEFT JOIN session AS s ON s.session_no = r.session_no
WHERE r.path = :path;

-- name: by_inode
-- Return the receipts of files with these inodes, whatever their paths.
SELECT import_file_no, path, inode FROM import_file INDEXED BY import_file_by_inode
WHERE inode IN (SELECT value FROM json_each(:inodes)) AND kind <> 'index' ORDER BY import_file_no;

-- name: of_name
-- Return the receipts of transcripts with these paths, and of those archives whose paths begin so.
SELECT r.path
FROM json_each(:names) AS n CROSS JOIN import_file AS r
  ON r.path >= n.value AND r.path < n.value || '/'
WHERE r.kind <> 'index' ORDER BY r.path;

-- name: insert, one row
-- Begin a file's receipt, before anything of it is stored.
INSERT INTO import_file (path, name, kind, agent_id, inode, imported_at_ms, sha256, state, note)
VALUES (:path, :name, :kind, :agent_id, :inode, :now_ms, :sha256, 'reading', :note)
RETURNING import_file_no;

-- name: advance, one row
-- Record how far a file has been read, in the transaction that stores what was read.
UPDATE import_file SET session_no = :session_no, bytes = :bytes, lines = :lines, entries = :entries,
       quarantined = :quarantined, sha256 = :sha256, final_newline = :final_newline, inode = :inode,
       imported_at_ms = :now_ms, state = :state, note = :note
WHERE import_file_no = :import_file_no;

-- name: mark_changed, one row
-- Record that a file differs from what was imported. What was imported stays.
UPDATE import_file SET state = 'changed', note = :note WHERE path = :path;

-- name: mark_done, one row or none
-- Record that a file is again what was imported.
UPDATE import_file SET state = 'done', note = :note WHERE path = :path AND state = 'changed';

-- name: note_compared, one row or none
-- Record that what was imported of a file was found equal to it. None: more was imported since, or
-- it is recorded already.
UPDATE import_file SET compared_sha256 = :sha256
WHERE path = :path AND sha256 = :sha256 AND compared_sha256 IS NOT :sha256;

-- name: damaged_lines
-- Return how many lines of the files below a folder are kept because they are no entries, a
-- page at a time. It begins behind the path of the folder with a slash.
SELECT r.path, count(DISTINCT q.line) AS lines
FROM import_file AS r JOIN quarantine AS q INDEXED BY quarantine_damaged
  ON q.import_file_no = r.import_file_no AND q.severity = 'damaged'
WHERE r.path > :after_path AND r.path < :folder || '0'
GROUP BY r.path ORDER BY r.path LIMIT :limit;

-- name: move, one row
-- Record that a file was renamed: same inode, same bytes, and its old path is missing.
UPDATE import_file SET path = :path, name = :name, kind = :kind, agent_id = :agent_id
WHERE import_file_no = :import_file_no;

-- name: set_aside, one row
-- Give the receipt of a file that was replaced the name of an archive: its old name is the new
-- file's.
UPDATE import_file SET path = :path, name = :name, kind = 'bak', state = 'done', note = :note
WHERE import_file_no = :import_file_no;

-- name: link, one row or none
-- Record one more name of an imported file (a hard link). It shares the session and
-- holds no lines of its own.
INSERT INTO import_file (path, name, kind, agent_id, inode, session_no, bytes, lines, entries,
                         quarantined, sha256, final_newline, imported_at_ms, state, note)
SELECT :path, :name, :kind, :agent_id, :inode, session_no, bytes, lines, entries, 0, sha256,
       final_newline, :now_ms, 'done', :note
FROM import_file WHERE path = :first_path AND state = 'done'
ON CONFLICT (path) DO UPDATE SET session_no = excluded.session_no, bytes = excluded.bytes,
       lines = excluded.lines, entries = excluded.entries, sha256 = excluded.sha256,
       final_newline = excluded.final_newline, inode = excluded.inode,
       imported_at_ms = excluded.imported_at_ms, note = excluded.note
WHERE import_file.sha256 <> excluded.sha256 OR import_file.session_no IS NOT excluded.session_no;

-- name: keep, one row
-- Keep bytes of a file that are no entry, or not yet.
INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity, content,
                        entry_id, waits_for)
VALUES (:import_file_no, :line, :byte_offset, :after_seq, :reason, :severity, :content,
        :entry_id, :waits_for);

-- name: drop_tail, any rows
-- Delete a last line that was not whole: it is read again.
DELETE FROM quarantine WHERE import_file_no = :import_file_no AND byte_offset >= :byte_offset;

-- name: date_session, one row
-- Date an imported session by its messages, not by its import.
UPDATE session SET created_at_ms = coalesce(:created_at_ms, created_at_ms),
       updated_at_ms = :updated_at_ms
WHERE session_no = :session_no;

-- name: save_index, one row
-- Store the receipt of an index, with its content or with where its pieces begin. What it had
-- before does not count any more.
INSERT INTO import_file (path, name, kind, agent_id, bytes, lines, entries, sha256, inode,
                         imported_at_ms, state, note, content, head_byte)
VALUES (:path, :name, 'index', :agent_id, :bytes, :lines, :entries, :sha256, :inode, :now_ms,
        'done', :note, :content, :head_byte)
ON CONFLICT (path) DO UPDATE SET bytes = excluded.bytes, lines = excluded.lines,
       entries = excluded.entries, sha256 = excluded.sha256, inode = excluded.inode,
       imported_at_ms = excluded.imported_at_ms, state = excluded.state, note = excluded.note,
       content = excluded.content, head_byte = excluded.head_byte;

-- name: begin_index, one row
-- Begin to store an index in pieces. What an earlier import stored of it counts until the end.
INSERT INTO import_file (path, name, kind, agent_id, inode, imported_at_ms, state)
VALUES (:path, :name, 'index', :agent_id, :inode, :now_ms, 'reading')
ON CONFLICT (path) DO UPDATE SET imported_at_ms = excluded.imported_at_ms, state = excluded.state
RETURNING import_file_no;

-- name: end_index, one row or none
-- Record that an index is whole: an import of it ended early, and left nothing.
UPDATE import_file SET state = 'done'
WHERE path = :path AND kind = 'index' AND state = 'reading'
  AND (content IS NOT NULL OR head_byte IS NOT NULL);

-- name: index
-- Return the receipt of an index without its content, and whether it has pieces that do not count.
SELECT r.import_file_no, r.sha256, r.state, r.note, r.head_byte,
       EXISTS (SELECT 1 FROM quarantine AS q
               WHERE q.import_file_no = r.import_file_no AND q.byte_offset < 0
                 AND (r.head_byte IS NULL OR q.byte_offset < r.head_byte
                      OR q.byte_offset >= r.head_byte + 4294967296)) AS has_leftovers
FROM import_file AS r WHERE r.path = :path AND r.kind = 'index';

-- name: index_content
-- Return the content of an index that is not kept in pieces.
SELECT content FROM import_file WHERE path = :path AND kind = 'index';

-- name: index_pieces
-- Return the pieces of one content of an index, a page at a time.
SELECT byte_offset, content FROM quarantine
WHERE import_file_no = :import_file_no AND byte_offset > :after_offset
  AND byte_offset < :end_offset
ORDER BY byte_offset LIMIT :limit;

-- name: count_pieces
-- Count the pieces of one content of an index.
SELECT count(*) AS pieces FROM quarantine
WHERE import_file_no = :import_file_no AND byte_offset >= :first_offset
  AND byte_offset < :end_offset;

-- name: drop_piece, one row or none
-- Delete a piece of an index that does not count: its import ended early, or there was a later one.
DELETE FROM quarantine WHERE (import_file_no, byte_offset) IN (
  SELECT q.import_file_no, q.byte_offset FROM import_file AS r
  JOIN quarantine AS q ON q.import_file_no = r.import_file_no
  WHERE r.path = :path AND r.kind = 'index' AND q.byte_offset < 0
    AND (r.head_byte IS NULL OR q.byte_offset < r.head_byte
         OR q.byte_offset >= r.head_byte + 4294967296)
  ORDER BY q.byte_offset LIMIT 1);

-- name: in_folder
-- Return the transcripts imported from one folder: where an index entry can point.
SELECT r.path, r.kind, s.session_no, s.session_id FROM import_file AS r
JOIN session AS s ON s.session_no = r.session_no
WHERE r.path > :folder || '/' AND r.path < :folder || '0' ORDER BY r.path;

-- name: files
-- Return imported files in the order of their import, a page at a time: what an export
-- writes again. Of all sessions: without those deleted without an archive, of which
-- nothing is left to write.
SELECT r.import_file_no, r.path, r.name, r.kind, r.agent_id, r.session_no, s.session_id,
       s.last_seq AS session_last_seq, r.bytes, r.entries, r.final_newline, r.state,
       coalesce((SELECT min(p.import_file_no) FROM import_file AS p
                 WHERE p.session_no = r.session_no), r.import_file_no) AS first_import_file_no
FROM import_file AS r LEFT JOIN session AS s ON s.session_no = r.session_no
WHERE r.import_file_no > :after_no AND r.kind <> 'index'
  AND (:session_no IS NULL OR r.session_no = :session_no)
  AND (:session_no IS NOT NULL
         OR NOT EXISTS (SELECT 1 FROM archive AS a
                        WHERE a.session_no = r.session_no AND a.state = 'deleted'))
ORDER BY r.import_file_no LIMIT :limit;

-- name: indexes
-- Return the imported index files, without their content. Not those whose first import has not come
-- to its end.
SELECT import_file_no, path, name, agent_id FROM import_file
WHERE kind = 'index' AND (content IS NOT NULL OR head_byte IS NOT NULL) ORDER BY import_file_no;

-- name: sessions_without_file
-- Return the sessions that were not imported, a page at a time. Of all sessions:
-- without those deleted without an archive.
SELECT s.session_no, s.session_id, s.agent_id, s.origin, s.forked_from_no, s.formats
FROM session AS s
WHERE s.session_no > :after_no AND (:session_no IS NULL OR s.session_no = :session_no)
  AND NOT EXISTS (SELECT 1 FROM import_file AS r WHERE r.session_no = s.session_no)
  AND (:session_no IS NOT NULL
         OR NOT EXISTS (SELECT 1 FROM archive AS a
                        WHERE a.session_no = s.session_no AND a.state = 'deleted'))
ORDER BY s.session_no LIMIT :limit;

-- name: bindings_of_agent
-- Return an agent's keys, a page at a time: the content of its index.
SELECT b.session_key, b.session_no, s.session_id, s.updated_at_ms, b.details FROM binding AS b
JOIN session AS s ON s.session_no = b.session_no
WHERE b.agent_id = :agent_id AND b.session_key > :after_key ORDER BY b.session_key LIMIT :limit;

-- name: agents
-- Return the agents that own a key.
SELECT DISTINCT agent_id FROM binding ORDER BY agent_id;

-- name: entry_sizes
-- Return the sizes of the next entries of a session, so that a step over them can be
-- bounded in bytes.
SELECT entry_no, octet_length(payload) AS bytes FROM entry
WHERE entry_no BETWEEN :low_no AND :high_no ORDER BY entry_no LIMIT :limit;

-- name: payloads
-- Return the texts of a range of entries, in order of arrival, a page at a time. Those that
-- were early lines of the file are left out: they are among the pieces.
SELECT e.entry_no, CAST(e.payload AS BLOB) AS content FROM entry AS e
WHERE e.entry_no BETWEEN :low_no AND :high_no
  AND NOT EXISTS (SELECT 1 FROM quarantine AS q
                  WHERE q.import_file_no = :import_file_no
                    AND q.entry_seq = e.entry_no & 4294967295)
ORDER BY e.entry_no LIMIT :limit;

-- name: kept
-- Return the quarantined pieces of a file, a page at a time. The bytes of an early line that
-- became an entry are those of the entry.
SELECT q.byte_offset, q.after_seq,
       iif(q.entry_seq IS NOT NULL AND length(q.content) = 0,
           coalesce((SELECT CAST(e.payload AS BLOB) FROM entry AS e
                     WHERE e.entry_no = r.session_no << 32 | q.entry_seq), x''),
           q.content) AS content,
       q.reason
FROM import_file AS r JOIN quarantine AS q ON q.import_file_no = r.import_file_no
WHERE r.import_file_no = :import_file_no AND q.byte_offset > :after_offset
ORDER BY q.byte_offset LIMIT :limit;

-- name: foreign_parents
-- Return the entries of other sessions that a fork's own entries follow.
SELECT DISTINCT parent_no FROM entry
WHERE entry_no BETWEEN :low_no AND :high_no AND parent_no IS NOT NULL
  AND parent_no >> 32 <> :session_no;

-- name: shared_entries
-- Return the entries of one branch's range, with what a file of the current version
-- needs, a page at a time.
SELECT e.entry_no, e.entry_id, e.type, CAST(e.payload AS BLOB) AS content, p.entry_id AS parent_id,
       k.entry_id AS first_kept_id
FROM entry AS e LEFT JOIN entry AS p ON p.entry_no = e.parent_no
LEFT JOIN entry AS k ON k.entry_no = e.first_kept_no
WHERE e.entry_no BETWEEN :low_no AND :high_no AND e.branch_no = :branch_no
ORDER BY e.entry_no LIMIT :limit;

-- name: details
-- Return what an imported index recorded about a key, verbatim.
SELECT details FROM binding WHERE session_key = :session_key;

-- name: undone
-- Return a row if a compaction of a session was undone: the one change of a context
-- that adds no entry.
SELECT epoch FROM epoch WHERE session_no = :session_no AND reason = 'undo' LIMIT 1;

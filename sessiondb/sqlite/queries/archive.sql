-- name: protection
-- Return what keeps each of some sessions from being archived, as 1 or 0. A fork protects its
-- parent while the fork can be read, and while the fork's own archive is being written.
-- Forks of forks protect theirs in turn. `restorable_id` is an archived fork whose
-- restore needs this session.
SELECT s.session_no, s.pinned_at_ms IS NOT NULL AS pinned,
       EXISTS (SELECT 1 FROM turn AS t
               WHERE t.session_no = s.session_no AND t.state = 'running') AS turn_running,
       EXISTS (SELECT 1 FROM compaction AS c
               WHERE c.session_no = s.session_no AND c.state = 'running') AS compaction_running,
       EXISTS (SELECT 1 FROM inbox AS i
               WHERE i.session_no = s.session_no
                 AND i.state IN ('queued', 'claimed', 'interrupted')) AS inbox_open,
       EXISTS (SELECT 1 FROM inbox AS d INDEXED BY inbox_interrupted
               WHERE d.state IN ('interrupted', 'dead') AND d.state = 'dead'
                 AND d.session_no = s.session_no) AS inbox_dead,
       EXISTS (SELECT 1 FROM outbox AS o
               WHERE o.session_no = s.session_no
                 AND o.state IN ('pending', 'sending')) AS outbox_open,
       EXISTS (SELECT 1 FROM outbox AS u
               WHERE u.state IN ('pending', 'sending', 'unknown', 'failed') AND u.state = 'unknown'
                 AND u.session_no = s.session_no) AS outbox_unknown,
       EXISTS (SELECT 1 FROM import_file AS r
               WHERE r.session_no = s.session_no AND r.state = 'reading') AS importing,
       (SELECT f.session_id FROM session AS f WHERE f.forked_from_no = s.session_no
          AND (f.archived_at_ms IS NULL
                 OR EXISTS (SELECT 1 FROM archive AS a
                            WHERE a.session_no = f.session_no AND a.finished_at_ms IS NULL))
        LIMIT 1) AS fork_id,
       (SELECT f.session_id FROM session AS f JOIN archive AS a ON a.session_no = f.session_no
        WHERE f.forked_from_no = s.session_no AND a.state = 'archived' LIMIT 1) AS restorable_id
FROM json_each(:session_nos) AS n JOIN session AS s ON s.session_no = n.value;

-- name: session
-- Return a session's whole row, as it is archived and compared. Whether it is in the search index
-- is no part of it.
SELECT session_no, session_id, agent_id, origin, version, created_at_ms, updated_at_ms, ended_at_ms,
       name, last_seq, epoch, head_no, branch_no, boundary_no, first_kept_no, context_tokens,
       tokens_fresh, forked_from_no, pinned_at_ms, archived_at_ms,
       forked_at_no, forked_epoch, heard_at_ms, formats, ordered_from_no, open_marks,
       asked_no
FROM session WHERE session_no = :session_no;

-- name: sessions
-- Return the rows of some sessions, whole, as `archive_format.COLUMNS` has their columns.
SELECT s.session_no, s.session_id, s.agent_id, s.origin, s.version, s.created_at_ms,
       s.updated_at_ms, s.ended_at_ms, s.name, s.last_seq, s.epoch, s.head_no, s.branch_no,
       s.boundary_no, s.first_kept_no, s.context_tokens, s.tokens_fresh, s.forked_from_no,
       s.pinned_at_ms, s.archived_at_ms, s.forked_at_no, s.forked_epoch, s.heard_at_ms, s.formats,
       s.ordered_from_no, s.open_marks, s.asked_no
FROM json_each(:session_nos) AS n JOIN session AS s ON s.session_no = n.value;

-- name: weights
-- Return how many rows some sessions have that an archive takes, and the bytes of their texts.
-- Their entries are few.
SELECT s.session_no,
       1 + (SELECT count(*) FROM entry AS e
            WHERE e.entry_no BETWEEN s.session_no << 32 AND (s.session_no << 32) + 4294967295)
         + (SELECT count(*) FROM branch AS r WHERE r.session_no = s.session_no)
         + (SELECT count(*) FROM epoch AS p WHERE p.session_no = s.session_no)
         + (SELECT count(*) FROM binding AS k WHERE k.session_no = s.session_no) AS rows,
       (SELECT coalesce(sum(octet_length(t.payload)), 0) FROM entry AS t
        WHERE t.entry_no BETWEEN s.session_no << 32 AND (s.session_no << 32) + 4294967295)
         + (SELECT coalesce(sum(octet_length(d.details)), 0) FROM binding AS d
            WHERE d.session_no = s.session_no) AS bytes
FROM json_each(:session_nos) AS n JOIN session AS s ON s.session_no = n.value;

-- name: bindings
-- Return the keys that point at a session, whole.
SELECT session_key, session_no, agent_id, bound_at_ms, details FROM binding
WHERE session_no = :session_no ORDER BY session_key;

-- name: bindings_of
-- Return the keys that point at some sessions, whole.
SELECT b.session_key, b.session_no, b.agent_id, b.bound_at_ms, b.details
FROM json_each(:session_nos) AS n JOIN binding AS b ON b.session_no = n.value
ORDER BY b.session_key;

-- name: branches_of
-- Return the branches of some sessions, whole. A parent has the lower number.
SELECT b.branch_no, b.session_no, b.parent_branch_no, b.fork_no, b.first_no
FROM json_each(:session_nos) AS n JOIN branch AS b ON b.session_no = n.value
ORDER BY b.branch_no;

-- name: epochs_of
-- Return the epochs of some sessions, whole.
SELECT e.session_no, e.epoch, e.reason, e.opened_at_ms, e.boundary_no, e.first_kept_no,
       e.closed_head_no, e.closed_at_ms
FROM json_each(:session_nos) AS n JOIN epoch AS e ON e.session_no = n.value
ORDER BY e.session_no, e.epoch;

-- name: entries_of
-- Return the entries of some sessions, whole.
SELECT e.entry_no, e.branch_no, e.parent_no, e.position, e.type, e.role, e.projection, e.tokens,
       e.tokens_total, e.usage_tokens, e.open_calls, e.boundary_no, e.first_kept_no, e.model_no,
       e.thinking_no, e.body_at, e.body_bytes, e.appended_at_ms, e.entry_id, e.idempotency_key,
       e.payload
FROM json_each(:session_nos) AS n
CROSS JOIN entry AS e ON e.entry_no BETWEEN n.value << 32 AND (n.value << 32) + 4294967295
ORDER BY e.entry_no;

-- name: branches
-- Return a session's branches, whole, a page at a time. A parent has the lower number.
SELECT branch_no, session_no, parent_branch_no, fork_no, first_no FROM branch
WHERE session_no = :session_no AND branch_no > :after_no ORDER BY branch_no LIMIT :limit;

-- name: epochs
-- Return a session's epochs, whole, a page at a time.
SELECT session_no, epoch, reason, opened_at_ms, boundary_no, first_kept_no, closed_head_no,
       closed_at_ms
FROM epoch
WHERE session_no = :session_no AND epoch > :after_no ORDER BY epoch LIMIT :limit;

-- name: entries
-- Return a range of entries, whole.
SELECT entry_no, branch_no, parent_no, position, type, role, projection, tokens, tokens_total,
       usage_tokens, open_calls, boundary_no, first_kept_no, model_no, thinking_no, body_at,
       body_bytes, appended_at_ms, entry_id, idempotency_key, payload
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no ORDER BY entry_no;

-- name: insert, one row
-- Begin an archive. The partial unique index allows one per session that is not
-- restored.
INSERT INTO archive (session_no, state, reason, encoding, begun_at_ms, session_keys)
VALUES (:session_no, :state, :reason, :encoding, :now_ms, :session_keys) RETURNING archive_no;

-- name: insert_whole, one row
-- Insert an archive that was made in one step.
INSERT INTO archive (session_no, state, reason, encoding, begun_at_ms, finished_at_ms, rows, bytes,
                     bytes_stored, session_keys)
VALUES (:session_no, 'archived', :reason, :encoding, :now_ms, :now_ms, :rows, :bytes,
        :bytes_stored, :session_keys) RETURNING archive_no;

-- name: get
-- Return one archive.
SELECT a.archive_no, a.session_no, s.session_id, s.forked_from_no, a.state, a.reason, a.encoding,
       a.rows, a.bytes, a.bytes_stored, a.session_keys, a.finished_at_ms
FROM archive AS a JOIN session AS s ON s.session_no = a.session_no WHERE a.archive_no = :archive_no;

-- name: of_session
-- Return a session's archive that is not restored, if there is one.
SELECT archive_no, state, reason, encoding, finished_at_ms FROM archive
WHERE session_no = :session_no AND state <> 'restored';

-- name: open_of
-- Return those of some sessions that have an archive that is not restored.
SELECT a.session_no, a.state
FROM json_each(:session_nos) AS n JOIN archive AS a ON a.session_no = n.value
WHERE a.state <> 'restored';

-- name: unfinished
-- Return the archives whose work is not finished, oldest first, a page at a time.
SELECT archive_no FROM archive WHERE finished_at_ms IS NULL AND archive_no > :after_no
ORDER BY archive_no LIMIT :limit;

-- name: kept
-- Return the archives that can be restored and when they were made, oldest first, a
-- page at a time.
SELECT a.archive_no, a.session_no, s.session_id, s.updated_at_ms, s.last_seq, a.bytes_stored,
       a.finished_at_ms
FROM archive AS a JOIN session AS s ON s.session_no = a.session_no
WHERE a.archive_no > :after_no AND a.state = 'archived' ORDER BY a.archive_no LIMIT :limit;

-- name: next_chunk
-- Return the number of the next chunk of an archive.
SELECT coalesce(max(chunk_no), -1) + 1 AS chunk_no FROM archive_chunk
WHERE archive_no = :archive_no;

-- name: put_chunk, one row
-- Store one chunk.
INSERT INTO archive_chunk (archive_no, chunk_no, what, rows, sha256, content)
VALUES (:archive_no, :chunk_no, :what, :rows, :sha256, :content);

-- name: count_chunk, one row
-- Add a chunk to its archive's sums.
UPDATE archive SET rows = rows + :rows, bytes = bytes + :bytes,
       bytes_stored = bytes_stored + :bytes_stored
WHERE archive_no = :archive_no;

-- name: chunk
-- Return one chunk.
SELECT chunk_no, what, rows, sha256, content FROM archive_chunk
WHERE archive_no = :archive_no AND chunk_no = :chunk_no;

-- name: drop_chunk, one row or none
-- Delete an archive's last chunk.
DELETE FROM archive_chunk WHERE archive_no = :archive_no
  AND chunk_no = (SELECT max(c.chunk_no) FROM archive_chunk AS c WHERE c.archive_no = :archive_no);

-- name: move, one row or none
-- Move an archive from one state to the next, once. Its work is not finished.
UPDATE archive SET state = :to_state, finished_at_ms = NULL
WHERE archive_no = :archive_no AND state = :from_state;

-- name: finish, one row or none
-- Finish the work of an archive, in its last state, once.
UPDATE archive SET state = :to_state, finished_at_ms = :now_ms
WHERE archive_no = :archive_no AND state = :from_state AND finished_at_ms IS NULL;

-- name: add_key, one row or none
-- Record a key that an index names for an archived session. A restore binds it.
UPDATE archive SET session_keys = json_insert(session_keys, '$[#]', :session_key)
WHERE session_no = :session_no AND state <> 'restored'
  AND NOT EXISTS (SELECT 1 FROM json_each(session_keys) AS k WHERE k.value = :session_key);

-- name: empty, one row
-- Record that the chunks of an archive have been deleted.
UPDATE archive SET bytes_stored = 0 WHERE archive_no = :archive_no;

-- name: hide_session, one row
-- Mark a session as archived: from here on some of its entries may be missing.
UPDATE session SET archived_at_ms = :now_ms, search_behind = last_seq > 0
WHERE session_no = :session_no;

-- name: hide_sessions, any rows
-- End some sessions and mark them as archived.
UPDATE session SET ended_at_ms = coalesce(ended_at_ms, :now_ms), archived_at_ms = :now_ms,
       search_behind = last_seq > 0
WHERE session_no IN (SELECT value FROM json_each(:session_nos));

-- name: unbind_all, any rows
-- Delete every key that points at one of some sessions.
DELETE FROM binding WHERE session_no IN (SELECT value FROM json_each(:session_nos));

-- name: delete_entries_of, any rows
-- Delete the entries of some archived sessions.
DELETE FROM entry WHERE entry_no IN (
  SELECT e.entry_no FROM json_each(:session_nos) AS n
  CROSS JOIN entry AS e ON e.entry_no BETWEEN n.value << 32 AND (n.value << 32) + 4294967295);

-- name: delete_branches_of, any rows
-- Delete the branches of some archived sessions.
DELETE FROM branch WHERE session_no IN (SELECT value FROM json_each(:session_nos));

-- name: delete_epochs_of, any rows
-- Delete the epochs of some archived sessions.
DELETE FROM epoch WHERE session_no IN (SELECT value FROM json_each(:session_nos));

-- name: reopen_session, one row
-- Make a session readable again, ended or not as it was before.
UPDATE session SET ended_at_ms = :ended_at_ms, archived_at_ms = NULL WHERE session_no = :session_no;

-- name: unbind, any rows
-- Delete every key that points at a session.
DELETE FROM binding WHERE session_no = :session_no;

-- name: rebind, one row or none
-- Point a key where it pointed before, unless it points elsewhere by now.
INSERT INTO binding (session_key, session_no, agent_id, bound_at_ms, details)
VALUES (:session_key, :session_no, :agent_id, :bound_at_ms, :details)
ON CONFLICT (session_key) DO NOTHING;

-- name: delete_entries, any rows
-- Delete a range of entries. It lies in one archived session.
DELETE FROM entry WHERE entry_no BETWEEN :low_no AND :high_no;

-- name: delete_branches, any rows
-- Delete a session's last branches: children before their parents.
DELETE FROM branch
WHERE branch_no IN (SELECT b.branch_no FROM branch AS b WHERE b.session_no = :session_no
                    ORDER BY b.branch_no DESC LIMIT :limit);

-- name: delete_epochs, any rows
-- Delete a session's first epochs.
DELETE FROM epoch WHERE session_no = :session_no
  AND epoch IN (SELECT e.epoch FROM epoch AS e WHERE e.session_no = :session_no
                ORDER BY e.epoch LIMIT :limit);

-- name: delete_compactions, any rows
-- Delete a session's jobs, when no archive is kept.
DELETE FROM compaction
WHERE compaction_no IN (SELECT c.compaction_no FROM compaction AS c
                        WHERE c.session_no = :session_no LIMIT :limit);

-- name: forget_name, one row
-- Delete a session's name: it is a text of the transcript.
UPDATE session SET name = NULL WHERE session_no = :session_no;

-- name: branch
-- Return a branch, if it exists.
SELECT branch_no FROM branch WHERE branch_no = :branch_no;

-- name: put_branch, one row or none
-- Restore a branch. After an interruption it may exist already.
INSERT INTO branch (branch_no, session_no, parent_branch_no, fork_no, first_no)
VALUES (:branch_no, :session_no, :parent_branch_no, :fork_no, :first_no)
ON CONFLICT (branch_no) DO NOTHING;

-- name: put_epoch, one row or none
-- Restore an epoch. After an interruption it may exist already.
INSERT INTO epoch (session_no, epoch, reason, opened_at_ms, boundary_no, first_kept_no,
                   closed_head_no, closed_at_ms)
VALUES (:session_no, :epoch, :reason, :opened_at_ms, :boundary_no, :first_kept_no, :closed_head_no,
        :closed_at_ms)
ON CONFLICT (session_no, epoch) DO NOTHING;

-- name: put_entry, one row or none
-- Restore an entry. After an interruption it may exist already.
INSERT INTO entry (entry_no, branch_no, parent_no, position, type, role, projection, tokens,
                   tokens_total, usage_tokens, open_calls, boundary_no, first_kept_no, model_no,
                   thinking_no, body_at, body_bytes, appended_at_ms, entry_id, idempotency_key,
                   payload)
VALUES (:entry_no, :branch_no, :parent_no, :position, :type, :role, :projection, :tokens,
        :tokens_total, :usage_tokens, :open_calls, :boundary_no, :first_kept_no, :model_no,
        :thinking_no, :body_at, :body_bytes, :appended_at_ms, :entry_id, :idempotency_key, :payload)
ON CONFLICT (entry_no) DO NOTHING;

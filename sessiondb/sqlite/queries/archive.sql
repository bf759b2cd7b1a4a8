-- name: protection
-- Return what keeps a session from being archived, each as 1 or 0. A fork protects its
-- parent while the fork can be read, and while the fork's own archive is being written.
-- Forks of forks protect theirs in turn. `restorable_id` is an archived fork whose
-- restore needs this session.
SELECT s.session_id, s.pinned_at_ms IS NOT NULL AS pinned,
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
FROM session AS s WHERE s.session_no = :session_no;

-- name: session
-- Return a session's whole row, as it is archived and compared.
SELECT session_no, session_id, agent_id, origin, version, created_at_ms, updated_at_ms, ended_at_ms,
       name, last_seq, epoch, head_no, branch_no, boundary_no, first_kept_no, context_tokens,
       tokens_fresh, forked_from_no, pinned_at_ms, archived_at_ms,
       forked_at_no, forked_epoch, heard_at_ms, formats, ordered_from_no, open_marks,
       asked_no
FROM session WHERE session_no = :session_no;

-- name: bindings
-- Return the keys that point at a session, whole.
SELECT session_key, session_no, agent_id, bound_at_ms, details FROM binding
WHERE session_no = :session_no ORDER BY session_key;

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

-- name: get
-- Return one archive.
SELECT a.archive_no, a.session_no, s.session_id, s.forked_from_no, a.state, a.reason, a.encoding,
       a.rows, a.bytes, a.bytes_stored, a.session_keys, a.finished_at_ms
FROM archive AS a JOIN session AS s ON s.session_no = a.session_no WHERE a.archive_no = :archive_no;

-- name: of_session
-- Return a session's archive that is not restored, if there is one.
SELECT archive_no, state, reason, encoding, finished_at_ms FROM archive
WHERE session_no = :session_no AND state <> 'restored';

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
UPDATE session SET archived_at_ms = :now_ms WHERE session_no = :session_no;

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

-- name: protection
-- What keeps a session from being archived, each as 1 or 0. A fork keeps its parent while it can be read, and while its own
-- archive is on the way; forks of forks keep theirs in turn. `restorable` is a fork whose archive needs its parent to come back.
SELECT s.session_id, s.pinned_at_ms IS NOT NULL AS pinned,
       EXISTS (SELECT 1 FROM turn AS t WHERE t.session_no = s.session_no AND t.state = 'running') AS turn_running,
       EXISTS (SELECT 1 FROM compaction AS c WHERE c.session_no = s.session_no AND c.state = 'running') AS compaction_running,
       EXISTS (SELECT 1 FROM inbox AS i WHERE i.session_no = s.session_no AND i.state IN ('queued', 'claimed', 'interrupted')) AS inbox_open,
       EXISTS (SELECT 1 FROM outbox AS o WHERE o.session_no = s.session_no AND o.state IN ('pending', 'sending')) AS outbox_open,
       EXISTS (SELECT 1 FROM outbox AS u WHERE u.state IN ('pending', 'sending', 'unknown', 'failed') AND u.state = 'unknown'
                 AND u.session_no = s.session_no) AS outbox_unknown,
       EXISTS (SELECT 1 FROM import_file AS r WHERE r.session_no = s.session_no AND r.state = 'reading') AS importing,
       (SELECT f.session_id FROM session AS f WHERE f.forked_from_no = s.session_no
          AND (f.archived_at_ms IS NULL OR EXISTS (SELECT 1 FROM archive AS a WHERE a.session_no = f.session_no AND a.finished_at_ms IS NULL))
        LIMIT 1) AS fork_id,
       (SELECT f.session_id FROM session AS f JOIN archive AS a ON a.session_no = f.session_no
        WHERE f.forked_from_no = s.session_no AND a.state = 'archived' LIMIT 1) AS restorable_id
FROM session AS s WHERE s.session_no = :session_no;

-- name: session
-- A session's whole row, as it is archived and compared.
SELECT session_no, session_id, agent_id, origin, version, created_at_ms, updated_at_ms, ended_at_ms, name, last_seq, epoch, head_no,
       branch_no, boundary_no, first_kept_no, context_tokens, tokens_fresh, forked_from_no, pinned_at_ms, archived_at_ms
FROM session WHERE session_no = :session_no;

-- name: bindings
-- What points at a session, whole.
SELECT session_key, session_no, agent_id, bound_at_ms, details FROM binding WHERE session_no = :session_no ORDER BY session_key;

-- name: branches
-- A session's branches, whole, a page at a time; a parent always has the lower number.
SELECT branch_no, session_no, parent_branch_no, fork_no, first_no FROM branch
WHERE session_no = :session_no AND branch_no > :after_no ORDER BY branch_no LIMIT :limit;

-- name: epochs
-- A session's generations, whole, a page at a time.
SELECT session_no, epoch, reason, opened_at_ms, boundary_no, first_kept_no, closed_head_no, closed_at_ms FROM epoch
WHERE session_no = :session_no AND epoch > :after_no ORDER BY epoch LIMIT :limit;

-- name: entries
-- A range of entries, whole.
SELECT entry_no, branch_no, parent_no, position, type, role, projection, tokens, tokens_total, usage_tokens, open_calls, boundary_no,
       first_kept_no, model_no, thinking_no, body_at, body_bytes, appended_at_ms, entry_id, idempotency_key, payload
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no ORDER BY entry_no;

-- name: insert
-- Begin an archive. The partial unique index allows one per session that is not restored.
INSERT INTO archive (session_no, state, reason, encoding, begun_at_ms, session_keys)
VALUES (:session_no, :state, :reason, :encoding, :now_ms, :session_keys) RETURNING archive_no;

-- name: get
-- One archive.
SELECT a.archive_no, a.session_no, s.session_id, s.forked_from_no, a.state, a.reason, a.encoding, a.rows, a.bytes, a.bytes_stored,
       a.session_keys, a.finished_at_ms
FROM archive AS a JOIN session AS s ON s.session_no = a.session_no WHERE a.archive_no = :archive_no;

-- name: of_session
-- A session's archive that is not restored, if there is one.
SELECT archive_no, state, reason, encoding, finished_at_ms FROM archive WHERE session_no = :session_no AND state <> 'restored';

-- name: unfinished
-- Archives at which something remains to be done, oldest first, a page at a time.
SELECT archive_no FROM archive WHERE finished_at_ms IS NULL AND archive_no > :after_no ORDER BY archive_no LIMIT :limit;

-- name: kept
-- Archives that could be restored, oldest first, a page at a time; and when they were made.
SELECT a.archive_no, a.session_no, s.session_id, s.updated_at_ms, s.last_seq, a.bytes_stored, a.finished_at_ms
FROM archive AS a JOIN session AS s ON s.session_no = a.session_no
WHERE a.archive_no > :after_no AND a.state = 'archived' ORDER BY a.archive_no LIMIT :limit;

-- name: next_chunk
-- How many chunks an archive has: the number of the next one.
SELECT coalesce(max(chunk_no), -1) + 1 AS chunk_no FROM archive_chunk WHERE archive_no = :archive_no;

-- name: put_chunk
-- One chunk.
INSERT INTO archive_chunk (archive_no, chunk_no, what, rows, sha256, content)
VALUES (:archive_no, :chunk_no, :what, :rows, :sha256, :content);

-- name: count_chunk
-- Add a chunk to its archive's sums.
UPDATE archive SET rows = rows + :rows, bytes = bytes + :bytes, bytes_stored = bytes_stored + :bytes_stored
WHERE archive_no = :archive_no;

-- name: chunk
-- One chunk.
SELECT chunk_no, what, rows, sha256, content FROM archive_chunk WHERE archive_no = :archive_no AND chunk_no = :chunk_no;

-- name: drop_chunk
-- Delete an archive's last chunk.
DELETE FROM archive_chunk WHERE archive_no = :archive_no
  AND chunk_no = (SELECT max(c.chunk_no) FROM archive_chunk AS c WHERE c.archive_no = :archive_no);

-- name: move
-- From one state to the next, once. There is still something to do.
UPDATE archive SET state = :to_state, finished_at_ms = NULL WHERE archive_no = :archive_no AND state = :from_state;

-- name: finish
-- Nothing remains to be done; a state that it has, or the last one.
UPDATE archive SET state = :to_state, finished_at_ms = :now_ms
WHERE archive_no = :archive_no AND state = :from_state AND finished_at_ms IS NULL;

-- name: add_key
-- A key that an index names for a session that is archived already: bound when it is restored.
UPDATE archive SET session_keys = json_insert(session_keys, '$[#]', :session_key)
WHERE session_no = :session_no AND state <> 'restored'
  AND NOT EXISTS (SELECT 1 FROM json_each(session_keys) AS k WHERE k.value = :session_key);

-- name: empty
-- Its chunks are gone.
UPDATE archive SET bytes_stored = 0 WHERE archive_no = :archive_no;

-- name: end_session
-- Accept no append any more.
UPDATE session SET ended_at_ms = coalesce(ended_at_ms, :now_ms) WHERE session_no = :session_no;

-- name: hide_session
-- Its entries are not all there from now on.
UPDATE session SET archived_at_ms = :now_ms WHERE session_no = :session_no;

-- name: reopen_session
-- As it was before: ended or not, and readable.
UPDATE session SET ended_at_ms = :ended_at_ms, archived_at_ms = NULL WHERE session_no = :session_no;

-- name: unbind
-- Nothing points at a session any more.
DELETE FROM binding WHERE session_no = :session_no;

-- name: rebind
-- Point a key where it pointed, unless it points elsewhere by now.
INSERT INTO binding (session_key, session_no, agent_id, bound_at_ms, details)
VALUES (:session_key, :session_no, :agent_id, :bound_at_ms, :details) ON CONFLICT (session_key) DO NOTHING;

-- name: delete_entries
-- Delete a range of entries. It lies in one session that is archived.
DELETE FROM entry WHERE entry_no BETWEEN :low_no AND :high_no;

-- name: delete_branches
-- Delete a session's last branches: children before their parents.
DELETE FROM branch WHERE branch_no IN (SELECT b.branch_no FROM branch AS b WHERE b.session_no = :session_no ORDER BY b.branch_no DESC LIMIT :limit);

-- name: delete_epochs
-- Delete a session's first generations.
DELETE FROM epoch WHERE session_no = :session_no
  AND epoch IN (SELECT e.epoch FROM epoch AS e WHERE e.session_no = :session_no ORDER BY e.epoch LIMIT :limit);

-- name: delete_compactions
-- Delete a session's jobs: only when no archive is kept.
DELETE FROM compaction WHERE compaction_no IN (SELECT c.compaction_no FROM compaction AS c WHERE c.session_no = :session_no LIMIT :limit);

-- name: forget_name
-- The name was said in the transcript.
UPDATE session SET name = NULL WHERE session_no = :session_no;

-- name: branch
-- A branch, if it is there.
SELECT branch_no FROM branch WHERE branch_no = :branch_no;

-- name: put_branch
-- Put a branch back; it may be there already, after an interruption.
INSERT INTO branch (branch_no, session_no, parent_branch_no, fork_no, first_no)
VALUES (:branch_no, :session_no, :parent_branch_no, :fork_no, :first_no) ON CONFLICT (branch_no) DO NOTHING;

-- name: put_epoch
-- Put a generation back; likewise.
INSERT INTO epoch (session_no, epoch, reason, opened_at_ms, boundary_no, first_kept_no, closed_head_no, closed_at_ms)
VALUES (:session_no, :epoch, :reason, :opened_at_ms, :boundary_no, :first_kept_no, :closed_head_no, :closed_at_ms)
ON CONFLICT (session_no, epoch) DO NOTHING;

-- name: put_entry
-- Put an entry back; likewise.
INSERT INTO entry (entry_no, branch_no, parent_no, position, type, role, projection, tokens, tokens_total, usage_tokens, open_calls,
                   boundary_no, first_kept_no, model_no, thinking_no, body_at, body_bytes, appended_at_ms, entry_id, idempotency_key, payload)
VALUES (:entry_no, :branch_no, :parent_no, :position, :type, :role, :projection, :tokens, :tokens_total, :usage_tokens, :open_calls,
        :boundary_no, :first_kept_no, :model_no, :thinking_no, :body_at, :body_bytes, :appended_at_ms, :entry_id, :idempotency_key, :payload)
ON CONFLICT (entry_no) DO NOTHING;

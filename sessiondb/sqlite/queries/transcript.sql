-- name: state
-- Return everything that an append needs, by two primary-key lookups: the columns of
-- transcript.State, in its order.
SELECT s.session_no, s.session_id, s.version, s.ended_at_ms, s.last_seq, s.epoch, s.head_no,
       s.branch_no, s.boundary_no, s.first_kept_no, s.context_tokens, s.tokens_fresh, s.name,
       s.archived_at_ms, s.forked_at_no, s.heard_at_ms, s.formats, s.ordered_from_no, s.open_marks,
       s.asked_no, s.search_behind, h.entry_id AS head_id, coalesce(h.position, 0) AS position,
       coalesce(h.tokens_total, 0) AS tokens_total,
       coalesce(h.open_calls, 0) AS open_calls, h.model_no, h.thinking_no
FROM session AS s LEFT JOIN entry AS h ON h.entry_no = s.head_no
WHERE s.session_no = :session_no;

-- name: archived
-- Return whether a session's entries are in an archive.
SELECT session_id, archived_at_ms FROM session WHERE session_no = :session_no;

-- name: save_state, one row
-- Move a session's pointers: one row.
UPDATE session SET updated_at_ms = :now_ms, last_seq = :last_seq, epoch = :epoch,
       head_no = :head_no, branch_no = :branch_no, boundary_no = :boundary_no,
       first_kept_no = :first_kept_no, context_tokens = :context_tokens,
       tokens_fresh = :tokens_fresh, name = :name, heard_at_ms = :heard_at_ms,
       formats = :formats, ordered_from_no = :ordered_from_no, open_marks = :open_marks,
       asked_no = :asked_no
WHERE session_no = :session_no;

-- name: insert_entry, one row
-- Insert one immutable entry. It is never updated and never renumbered.
INSERT INTO entry (entry_no, branch_no, parent_no, position, type, role, projection, tokens,
                   tokens_total, usage_tokens, open_calls, boundary_no, first_kept_no, model_no,
                   thinking_no, body_at, body_bytes, appended_at_ms, entry_id, idempotency_key,
                   payload)
VALUES (:entry_no, :branch_no, :parent_no, :position, :type, :role, :projection, :tokens,
        :tokens_total, :usage_tokens, :open_calls, :boundary_no, :first_kept_no, :model_no,
        :thinking_no, :body_at, :body_bytes, :appended_at_ms, :entry_id, :idempotency_key,
        :payload);

-- name: insert_control_record, one row
-- Insert a header or a leaf record: an entry without a place in the tree.
-- The other columns take their defaults.
INSERT INTO entry (
  entry_no, parent_no, position, type, projection, appended_at_ms, entry_id, idempotency_key,
  payload
)
VALUES (:entry_no, :parent_no, 0, :type, 0, :appended_at_ms, :entry_id, :idempotency_key, :payload);

-- name: insert_branch, one row
-- Begin a branch after an entry, or at the root. Returns its number.
INSERT INTO branch (session_no, parent_branch_no, fork_no, first_no)
VALUES (:session_no, :parent_branch_no, :fork_no, :first_no)
RETURNING branch_no;

-- name: branch
-- Return one branch: where it left its parent.
SELECT branch_no, session_no, parent_branch_no, fork_no, first_no FROM branch
WHERE branch_no = :branch_no;

-- name: by_idempotency_key
-- Return the entry that an earlier call with the same key stored in this session.
SELECT entry_no, entry_id, position, tokens, appended_at_ms, payload FROM entry
WHERE entry_no >> 32 = :session_no AND idempotency_key = :idempotency_key;

-- name: by_id
-- Return the newest entry of this session with this id. Files have been seen to repeat
-- ids.
SELECT entry_no, branch_no, parent_no, position, type, tokens_total, open_calls, boundary_no,
       model_no, thinking_no, entry_id
FROM entry WHERE entry_no >> 32 = :session_no AND entry_id = :entry_id
ORDER BY entry_no DESC LIMIT 1;

-- name: by_no
-- Return one entry's small columns.
SELECT entry_no, branch_no, parent_no, position, type, role, tokens, tokens_total, open_calls,
       boundary_no, first_kept_no, model_no, thinking_no, entry_id
FROM entry WHERE entry_no = :entry_no;

-- name: usage
-- Return a reply, or what else set the model, with the provider's count that it carries,
-- and what had set the model before.
SELECT e.usage_tokens, e.tokens_total, e.boundary_no, p.model_no
FROM entry AS e LEFT JOIN entry AS p ON p.entry_no = e.parent_no WHERE e.entry_no = :entry_no;

-- name: span_forward
-- Return the entries of one branch between two numbers, oldest first: one page of
-- history.
SELECT entry_no, parent_no, position, type, role, tokens, usage_tokens, appended_at_ms, entry_id,
       idempotency_key, payload
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
ORDER BY entry_no LIMIT :limit;

-- name: span_backward
-- Return the same, newest first.
SELECT entry_no, parent_no, position, type, role, tokens, usage_tokens, appended_at_ms, entry_id,
       idempotency_key, payload
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
ORDER BY entry_no DESC LIMIT :limit;

-- name: newest_in_span
-- Return the small columns of one branch's range, newest first: what kind of entry each is,
-- what it follows, and the bytes of its payload. Reads no payload.
SELECT entry_no, branch_no, parent_no, type, role, projection, octet_length(payload) AS bytes
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
ORDER BY entry_no DESC LIMIT :limit;

-- name: typed_forward
-- Return those of them that have one of some types, oldest first.
SELECT entry_no, parent_no, position, type, role, tokens, usage_tokens, appended_at_ms, entry_id,
       idempotency_key, payload
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
  AND type IN (SELECT value FROM json_each(:types))
ORDER BY entry_no LIMIT :limit;

-- name: typed_backward
-- Return the same, newest first.
SELECT entry_no, parent_no, position, type, role, tokens, usage_tokens, appended_at_ms, entry_id,
       idempotency_key, payload
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
  AND type IN (SELECT value FROM json_each(:types))
ORDER BY entry_no DESC LIMIT :limit;

-- name: all_entries
-- Return the entries of a session in order of arrival: every branch and every control
-- record.
SELECT entry_no, parent_no, position, type, role, tokens, usage_tokens, appended_at_ms, entry_id,
       idempotency_key, payload
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no ORDER BY entry_no LIMIT :limit;

-- name: first_in_span
-- Return the oldest entry of one branch between two numbers.
SELECT entry_no FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
ORDER BY entry_no LIMIT 1;

-- name: open_epoch, one row
-- Begin an epoch of the context.
INSERT INTO epoch (session_no, epoch, reason, opened_at_ms, boundary_no, first_kept_no)
VALUES (:session_no, :epoch, :reason, :now_ms, :boundary_no, :first_kept_no);

-- name: close_epoch, one row or none
-- End the current epoch at its head. Exactly one row, or the epoch had moved.
UPDATE epoch SET closed_head_no = :head_no, closed_at_ms = :now_ms
WHERE session_no = :session_no AND epoch = :epoch AND closed_at_ms IS NULL;

-- name: epoch
-- Return one epoch's pointers. closed_at_ms is NULL in the current one.
SELECT epoch, reason, opened_at_ms, boundary_no, first_kept_no, closed_head_no, closed_at_ms
FROM epoch
WHERE session_no = :session_no AND epoch = :epoch;

-- name: undone
-- Return a row if the context that began at a boundary in an epoch was undone since, up to
-- another epoch.
SELECT u.epoch FROM epoch AS u
JOIN epoch AS p ON p.session_no = u.session_no AND p.epoch = u.epoch - 1
WHERE u.session_no = :session_no AND u.epoch > :epoch AND u.epoch <= :last_epoch
  AND u.reason = 'undo' AND p.boundary_no = :boundary_no LIMIT 1;

-- name: origin
-- Return the session that a fork was made of, and that session's epoch then.
SELECT forked_from_no, forked_epoch FROM session WHERE session_no = :session_no;

-- name: epochs
-- Return a session's epochs from one on, a page at a time.
SELECT epoch, reason, opened_at_ms, boundary_no, first_kept_no, closed_head_no, closed_at_ms
FROM epoch
WHERE session_no = :session_no AND epoch >= :epoch ORDER BY epoch LIMIT :limit;

-- name: first_epoch_not_compaction
-- Return the first epoch after a given one that something other than a compaction
-- began.
SELECT epoch, reason FROM epoch
WHERE session_no = :session_no AND epoch > :epoch AND reason <> 'compaction' ORDER BY epoch LIMIT 1;

-- name: running
-- Return the live job of a session, with its owner.
SELECT c.compaction_id, c.trigger, c.begun_at_ms, c.deadline_ms, i.instance_no, i.program, i.host,
       i.pid, i.boot_id, i.database_file, i.lock_file
FROM compaction AS c LEFT JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.session_no = :session_no AND c.state = 'running';

-- name: recent
-- Return a session's last jobs, newest first.
SELECT compaction_id, state, base_epoch, in_vain, finished_at_ms FROM compaction
WHERE session_no = :session_no ORDER BY compaction_no DESC LIMIT :limit;

-- name: begin, one row
-- Insert a job. The partial unique index refuses a second running job of its session.
INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch, cut_no,
                        first_kept_no, tokens_before, instance_no, begun_at_ms, deadline_ms,
                        deadline_max_ms, threshold_tokens)
VALUES (:compaction_id, :session_no, 'running', :trigger, :base_epoch, :cut_no, :first_kept_no,
        :tokens_before, :instance_no, :now_ms, :deadline_ms, :deadline_max_ms,
        :threshold_tokens);

-- name: record, one row
-- Insert a compaction that another program made, found in an imported or appended
-- entry.
INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch, first_kept_no,
                        tokens_before, tokens_after, begun_at_ms, deadline_ms, deadline_max_ms,
                        finished_at_ms, epoch, entry_no)
VALUES (:compaction_id, :session_no, 'committed', 'import', :base_epoch, :first_kept_no,
        :tokens_before, :tokens_after, :now_ms, :now_ms, :now_ms, :now_ms, :epoch, :entry_no);

-- name: by_id
-- Return a job, whatever its state.
SELECT c.compaction_id, c.session_no, s.session_id, c.state, c.trigger, c.base_epoch, c.cut_no,
       c.first_kept_no, c.tokens_before, c.tokens_after, c.deadline_ms, c.deadline_max_ms, c.late,
       c.epoch, c.reason, c.threshold_tokens, e.entry_id
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN entry AS e ON e.entry_no = c.entry_no
WHERE c.compaction_id = :compaction_id;

-- name: finish, one row or none
-- End a running job without a commit. Zero rows: it was no longer running.
UPDATE compaction SET state = :state, finished_at_ms = :now_ms, reason = :reason
WHERE compaction_id = :compaction_id AND state = 'running';

-- name: renew, one row or none
-- Move a running job's deadline, at most to its bound.
UPDATE compaction SET deadline_ms = min(:deadline_ms, deadline_max_ms)
WHERE compaction_id = :compaction_id AND state = 'running'
RETURNING deadline_ms;

-- name: settle, one row or none
-- Record how a commit ended, once. This is the only completion path.
UPDATE compaction SET state = :state, finished_at_ms = :now_ms, late = :late, epoch = :epoch,
       entry_no = :entry_no, tokens_after = :tokens_after, reason = :reason, summary = :summary,
       in_vain = :in_vain
WHERE compaction_id = :compaction_id AND state NOT IN ('committed', 'superseded', 'rejected');

-- name: by_entry
-- Return the job that wrote a summary entry.
SELECT compaction_id, epoch FROM compaction WHERE session_no = :session_no AND entry_no = :entry_no;

-- name: reply
-- Return a reply, or what else set the model, and what had set it before. Its message
-- only if it may be an answer: sent to the model, and without a call of a tool.
SELECT e.entry_no, e.parent_no, e.role, p.model_no,
       CASE WHEN e.role = 'assistant' THEN e.open_calls ELSE 0 END AS calls,
       CASE WHEN e.role = 'assistant' AND e.open_calls = 0 AND e.projection IN (1, 3, 4)
            THEN substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) END AS content
FROM entry AS e LEFT JOIN entry AS p ON p.entry_no = e.parent_no WHERE e.entry_no = :entry_no;

-- name: after_answer
-- Return the messages of one branch's range, oldest first: the calls of each, whether the
-- turns of a message of the inbox have ended, and whether it was given up. One whose row
-- was pruned has ended.
SELECT e.entry_no, e.type, e.role, e.open_calls AS calls,
       coalesce(e.role = 'user' AND e.idempotency_key GLOB 'inbox:[0-9]*'
         AND coalesce(i.state, 'done') IN ('done', 'dead'), 0) AS has_ended,
       coalesce(e.role = 'user' AND (i.state = 'dead' OR i.heard OR (i.state = 'done'
         AND i.superseded_by IS NULL AND (i.told_no IS NOT NULL OR t.incomplete = 1))), 0)
         AS given_up
FROM entry AS e
LEFT JOIN inbox AS i ON e.idempotency_key GLOB 'inbox:[0-9]*'
  AND i.inbox_no = CAST(substr(e.idempotency_key, 7) AS INTEGER)
  AND i.session_no = e.entry_no >> 32
LEFT JOIN turn AS t ON t.turn_no = i.turn_no
WHERE e.entry_no BETWEEN :low_no AND :high_no AND e.branch_no = :branch_no
  AND e.projection IN (1, 3, 4)
ORDER BY e.entry_no LIMIT :limit;

-- name: still_asked
-- Return the first message of a user in one branch's range that waits for an answer: one
-- that is not of the inbox, or whose message there is open. Reads no other message of the
-- inbox.
SELECT entry_no FROM (
  SELECT * FROM (
    SELECT entry_no FROM entry INDEXED BY entry_asked
    WHERE branch_no = :branch_no AND entry_no BETWEEN :low_no AND :high_no AND role = 'user'
      AND (idempotency_key IS NULL OR idempotency_key NOT GLOB 'inbox:[0-9]*')
      AND projection IN (1, 3, 4)
    ORDER BY entry_no LIMIT 1)
  UNION ALL
  SELECT e.entry_no FROM inbox AS i INDEXED BY inbox_of_session
  CROSS JOIN entry AS e INDEXED BY entry_by_idempotency_key
    ON e.entry_no >> 32 = :low_no >> 32 AND e.idempotency_key = 'inbox:' || i.inbox_no
  WHERE i.session_no = :low_no >> 32 AND i.state IN ('queued', 'claimed', 'interrupted')
    AND e.branch_no = :branch_no AND e.entry_no BETWEEN :low_no AND :high_no
    AND e.role = 'user' AND e.projection IN (1, 3, 4)
  UNION ALL
  SELECT e.entry_no FROM inbox AS i INDEXED BY inbox_of_session
  CROSS JOIN entry AS e INDEXED BY entry_by_idempotency_key
    ON e.entry_no >> 32 = :low_no >> 32
    AND e.idempotency_key BETWEEN 'inbox:' || i.inbox_no || ':' AND 'inbox:' || i.inbox_no || ';'
  WHERE i.session_no = :low_no >> 32 AND i.state IN ('queued', 'claimed', 'interrupted')
    AND e.branch_no = :branch_no AND e.entry_no BETWEEN :low_no AND :high_no
    AND e.role = 'user' AND e.projection IN (1, 3, 4))
ORDER BY entry_no LIMIT 1;

-- name: cut_page
-- Return the small columns of one branch's range, newest first: what a cut search
-- weighs, and which messages of the inbox were given up. Reads no payload.
SELECT e.entry_no, e.type, e.role, e.projection, e.tokens,
       CASE WHEN e.role = 'assistant' THEN e.open_calls ELSE 0 END AS calls,
       coalesce(e.role = 'user' AND (i.state = 'dead' OR i.heard OR (i.state = 'done'
         AND i.superseded_by IS NULL AND (i.told_no IS NOT NULL OR t.incomplete = 1))), 0)
         AS given_up
FROM entry AS e
LEFT JOIN inbox AS i ON e.idempotency_key GLOB 'inbox:[0-9]*'
  AND i.inbox_no = CAST(substr(e.idempotency_key, 7) AS INTEGER)
  AND i.session_no = e.entry_no >> 32
LEFT JOIN turn AS t ON t.turn_no = i.turn_no
WHERE e.entry_no BETWEEN :low_no AND :high_no AND e.branch_no = :branch_no
ORDER BY e.entry_no DESC LIMIT :limit;

-- name: message
-- Return the message of an entry, as it was appended.
SELECT entry_no, substr(CAST(payload AS BLOB), body_at + 1, body_bytes) AS content
FROM entry WHERE entry_no = :entry_no;

-- name: may_have_results
-- Return the items of one branch's range that may have results, oldest first, in a format
-- in which those stand beside other content.
SELECT entry_no, substr(CAST(payload AS BLOB), body_at + 1, body_bytes) AS content
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
  AND projection IN (1, 3, 4) AND role IN ('toolResult', 'user', 'assistant')
ORDER BY entry_no LIMIT :limit;

-- name: first_message
-- Return the oldest message of one branch's range.
SELECT entry_no FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
  AND projection > 0
ORDER BY entry_no LIMIT 1;

-- name: results
-- Return the results in one branch's range that reach the model, by their index.
SELECT entry_no, substr(CAST(payload AS BLOB), body_at + 1, body_bytes) AS content
FROM entry INDEXED BY entry_results
WHERE branch_no = :branch_no AND entry_no BETWEEN :low_no AND :high_no AND role = 'toolResult'
  AND projection IN (1, 3, 4)
ORDER BY entry_no LIMIT :limit;

-- name: calls
-- Return a reply that calls tools, unless its author excludes it from the context.
SELECT substr(CAST(payload AS BLOB), body_at + 1, body_bytes) AS content FROM entry
WHERE entry_no = :entry_no AND role = 'assistant' AND open_calls > 0 AND projection IN (1, 3, 4);

-- name: list
-- Return jobs, newest first, a page at a time.
SELECT c.compaction_no, c.compaction_id, s.session_id, c.state, c.trigger, c.base_epoch, c.epoch,
       c.late, c.tokens_before, c.tokens_after,
       i.pid || '@' || i.host AS owner,
       c.begun_at_ms, c.deadline_ms, c.finished_at_ms, c.reason
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.compaction_no < :before_no ORDER BY c.compaction_no DESC LIMIT :limit;

-- name: list_of_session
-- Return one session's jobs, newest first, a page at a time. Reads no other session's.
SELECT c.compaction_no, c.compaction_id, s.session_id, c.state, c.trigger, c.base_epoch, c.epoch,
       c.late, c.tokens_before, c.tokens_after,
       i.pid || '@' || i.host AS owner,
       c.begun_at_ms, c.deadline_ms, c.finished_at_ms, c.reason
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.session_no = :session_no AND c.compaction_no < :before_no
ORDER BY c.compaction_no DESC LIMIT :limit;

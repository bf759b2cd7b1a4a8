-- name: by_update
-- Return the numbers of sessions, last changed first, a page at a time. A checkpoint is a
-- copy of a session that OpenClaw made beside it.
SELECT s.session_no, s.updated_at_ms AS place
FROM session AS s
WHERE (s.updated_at_ms, s.session_no) < (:before, :before_no) AND s.updated_at_ms >= :since_ms
  AND (:agent_id IS NULL OR s.agent_id = :agent_id)
  AND (:checkpoints OR NOT EXISTS (SELECT 1 FROM import_file AS f
                                   WHERE f.session_no = s.session_no AND f.kind = 'checkpoint'))
  AND CASE :state
      WHEN 'any' THEN 1
      WHEN 'archived' THEN s.archived_at_ms IS NOT NULL
      WHEN 'ended' THEN s.archived_at_ms IS NULL AND s.ended_at_ms IS NOT NULL
      WHEN 'live' THEN s.ended_at_ms IS NULL
      WHEN 'running' THEN EXISTS (SELECT 1 FROM turn AS t
                                  WHERE t.session_no = s.session_no AND t.state = 'running')
      WHEN 'waiting' THEN EXISTS (SELECT 1 FROM inbox AS i
                                  WHERE i.session_no = s.session_no
                                    AND i.state IN ('queued', 'claimed', 'interrupted'))
        AND NOT EXISTS (SELECT 1 FROM turn AS t
                        WHERE t.session_no = s.session_no AND t.state = 'running') END
ORDER BY s.updated_at_ms DESC, s.session_no DESC LIMIT :limit;

-- name: by_value
-- Return the same, the largest of a value first. It reads every session's row for a page, and
-- no entry.
SELECT s.session_no, CASE :sort WHEN 'entries' THEN s.last_seq WHEN 'tokens' THEN s.context_tokens
                     ELSE s.created_at_ms END AS place
FROM session AS s
WHERE (CASE :sort WHEN 'entries' THEN s.last_seq WHEN 'tokens' THEN s.context_tokens
       ELSE s.created_at_ms END, s.session_no) < (:before, :before_no)
  AND s.updated_at_ms >= :since_ms
  AND (:agent_id IS NULL OR s.agent_id = :agent_id)
  AND (:checkpoints OR NOT EXISTS (SELECT 1 FROM import_file AS f
                                   WHERE f.session_no = s.session_no AND f.kind = 'checkpoint'))
  AND CASE :state
      WHEN 'any' THEN 1
      WHEN 'archived' THEN s.archived_at_ms IS NOT NULL
      WHEN 'ended' THEN s.archived_at_ms IS NULL AND s.ended_at_ms IS NOT NULL
      WHEN 'live' THEN s.ended_at_ms IS NULL
      WHEN 'running' THEN EXISTS (SELECT 1 FROM turn AS t
                                  WHERE t.session_no = s.session_no AND t.state = 'running')
      WHEN 'waiting' THEN EXISTS (SELECT 1 FROM inbox AS i
                                  WHERE i.session_no = s.session_no
                                    AND i.state IN ('queued', 'claimed', 'interrupted'))
        AND NOT EXISTS (SELECT 1 FROM turn AS t
                        WHERE t.session_no = s.session_no AND t.state = 'running') END
ORDER BY place DESC, s.session_no DESC LIMIT :limit;

-- name: about
-- Return what a session does, the first message of a person among its first entries, and the
-- last message before its head. Messages of programs (cron, sub-agents, hooks) have the role
-- of a person, and the inbox knows better.
SELECT EXISTS (SELECT 1 FROM turn AS t
               WHERE t.session_no = s.session_no AND t.state = 'running') AS is_running,
       EXISTS (SELECT 1 FROM inbox AS i
               WHERE i.session_no = s.session_no
                 AND i.state IN ('queued', 'claimed', 'interrupted')) AS is_waiting,
       (SELECT e.entry_no FROM entry AS e
        WHERE e.entry_no BETWEEN s.session_no << 32 AND (s.session_no << 32) + :look
          AND e.role = 'user' AND NOT EXISTS (
            SELECT 1 FROM inbox AS i WHERE e.idempotency_key GLOB 'inbox:[0-9]*'
              AND i.inbox_no = CAST(substr(e.idempotency_key, 7) AS INTEGER) AND i.by_person = 0)
        ORDER BY e.entry_no LIMIT 1) AS first_message_no,
       (SELECT e.entry_no FROM entry AS e
        WHERE e.entry_no BETWEEN max(s.session_no << 32, s.head_no - :look) AND s.head_no
          AND e.role IN ('user', 'assistant')
          AND e.branch_no = (SELECT h.branch_no FROM entry AS h WHERE h.entry_no = s.head_no)
        ORDER BY e.entry_no DESC LIMIT 1) AS last_message_no
FROM session AS s WHERE s.session_no = :session_no;

-- name: text
-- Return the beginning of what an entry says, as the view `transcript` shows it, and whose it
-- is. A damaged text may not be UTF-8.
SELECT CAST(substr(t.text, 1, :chars) AS BLOB) AS content, t.role
FROM transcript AS t WHERE t.entry_no = :entry_no;

-- name: pointers
-- Return where a session's current context begins and ends, and how many tokens it has.
SELECT s.session_no, s.session_id, s.version, s.epoch, s.head_no, s.boundary_no, s.first_kept_no,
       s.context_tokens, s.tokens_fresh, s.formats
FROM session AS s WHERE s.session_no = :session_no;

-- name: now
-- Return the same, with the model settings at the head and the branch of the head. That
-- is all that a context needs besides its messages, unless its path crosses branches.
SELECT s.session_id, s.epoch, s.head_no, s.boundary_no, s.first_kept_no, s.context_tokens,
       s.tokens_fresh, s.archived_at_ms, s.formats, s.ordered_from_no,
       s.open_marks, coalesce(h.open_calls, 0) AS open_calls, h.entry_id AS head_id, h.branch_no,
       b.first_no, b.parent_branch_no, m.payload AS model_entry, t.payload AS thinking_entry
FROM session AS s
LEFT JOIN entry AS h ON h.entry_no = s.head_no
LEFT JOIN branch AS b ON b.branch_no = h.branch_no
LEFT JOIN entry AS m ON m.entry_no = h.model_no
LEFT JOIN entry AS t ON t.entry_no = h.thinking_no
WHERE s.session_no = :session_no;

-- name: then
-- Return the same at the end of a past epoch, whose tokens were not kept. Neither was whether
-- it is in order.
SELECT s.session_id, e.epoch, e.closed_head_no AS head_no, e.boundary_no, e.first_kept_no,
       NULL AS context_tokens, 0 AS tokens_fresh, s.formats, h.entry_id AS head_id, h.branch_no,
       b.first_no,
       b.parent_branch_no, m.payload AS model_entry, t.payload AS thinking_entry
FROM epoch AS e
JOIN session AS s ON s.session_no = e.session_no
LEFT JOIN entry AS h ON h.entry_no = e.closed_head_no
LEFT JOIN branch AS b ON b.branch_no = h.branch_no
LEFT JOIN entry AS m ON m.entry_no = h.model_no
LEFT JOIN entry AS t ON t.entry_no = h.thinking_no
WHERE e.session_no = :session_no AND e.epoch = :epoch AND e.closed_at_ms IS NOT NULL;

-- name: span
-- Return what one branch's range adds to a context, and the edits in it: the message as
-- bytes where it can be cut out of the payload, else the whole entry. Bytes, so that offsets
-- are bytes and nothing is decoded on the way. A compaction keeps no system message in pi's
-- format: what those say is in its own entry.
SELECT entry_no, CASE WHEN type = 'context_edit' THEN 5 ELSE projection END AS projection,
       CASE WHEN projection = 3 OR type = 'context_edit' THEN CAST(payload AS BLOB)
       ELSE substr(CAST(payload AS BLOB), body_at + 1, body_bytes) END AS content
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
  AND (projection > 0 OR type = 'context_edit')
  AND (role IS NOT 'system' OR entry_no > :system_after_no)
ORDER BY entry_no;

-- name: ids
-- Return the ids of the entries of one branch's range that are messages of a context.
SELECT entry_no, entry_id FROM entry
WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no AND projection > 0
ORDER BY entry_no;

-- name: instructions
-- Return the system messages of one branch's range, and the edits, by their index.
SELECT entry_no, entry_id, type, payload FROM entry INDEXED BY entry_instructions
WHERE branch_no = :branch_no AND entry_no BETWEEN :low_no AND :high_no
  AND (role = 'system' OR type = 'context_edit')
ORDER BY entry_no;

-- name: span_backward
-- Return the same rows, newest first, a page at a time.
SELECT entry_no, projection, CASE WHEN projection = 3 THEN CAST(payload AS BLOB)
       ELSE substr(CAST(payload AS BLOB), body_at + 1, body_bytes) END AS content
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no AND projection > 0
ORDER BY entry_no DESC LIMIT :limit;

-- name: last_user_message
-- Return the last user message that one branch's range adds to a context.
SELECT entry_no FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
  AND role = 'user' AND projection IN (1, 3, 4)
ORDER BY entry_no DESC LIMIT 1;

-- name: boundary
-- Return the entry at which the context begins, or any other one, with its text.
SELECT entry_no, entry_id, type, payload FROM entry WHERE entry_no = :entry_no;

-- name: working_from
-- Return the first entry that was appended after the message of a session's running turn, since
-- the turn began. An earlier attempt may have left others behind the message.
SELECT e.entry_no FROM turn AS t JOIN inbox AS i ON i.inbox_no = t.inbox_no
JOIN entry AS e ON e.entry_no BETWEEN i.entry_no + 1 AND i.entry_no | 4294967295
WHERE t.session_no = :session_no AND t.state = 'running' AND e.appended_at_ms >= t.started_at_ms
ORDER BY e.entry_no LIMIT 1;

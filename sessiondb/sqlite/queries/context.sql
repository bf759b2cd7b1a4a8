-- name: pointers
-- Where the current context of a session begins and ends, and how heavy it is.
SELECT s.session_no, s.session_id, s.version, s.epoch, s.head_no, s.boundary_no, s.first_kept_no, s.context_tokens, s.tokens_fresh
FROM session AS s WHERE s.session_no = :session_no;

-- name: head
-- What the head says about the model; NULLs before the first entry.
SELECT h.entry_id, h.position, h.tokens_total, m.type AS model_type, m.payload AS model_payload, t.payload AS thinking_payload
FROM entry AS h
LEFT JOIN entry AS m ON m.entry_no = h.model_no
LEFT JOIN entry AS t ON t.entry_no = h.thinking_no
WHERE h.entry_no = :entry_no;

-- name: span
-- What one branch's range adds to a context: the message as bytes where it can be cut out of the payload, else the
-- whole entry. Bytes, so that offsets are bytes and nothing is decoded on the way.
SELECT entry_no, projection, CASE WHEN projection = 3 THEN CAST(payload AS BLOB)
       ELSE substr(CAST(payload AS BLOB), body_at + 1, body_bytes) END AS content
FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no AND projection > 0
ORDER BY entry_no;

-- name: boundary
-- The entry at which the context begins.
SELECT entry_no, type, payload FROM entry WHERE entry_no = :entry_no;

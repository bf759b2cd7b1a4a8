-- name: insert, one row
-- Insert a session. The unique session_id settles a race between two creators.
INSERT INTO session (session_id, agent_id, origin, version, created_at_ms, updated_at_ms, head_no,
                     boundary_no, first_kept_no, context_tokens, tokens_fresh, forked_from_no,
                     forked_at_no, forked_epoch, formats, ordered_from_no,
                     open_marks)
VALUES (:session_id, :agent_id, :origin, :version, :now_ms, :now_ms, :head_no, :boundary_no,
        :first_kept_no, :context_tokens, :tokens_fresh, :forked_from_no, :forked_at_no,
        :forked_epoch, :formats, :ordered_from_no, :open_marks)
RETURNING session_no;

-- name: end, one row or none
-- End a session: it accepts no append. Once.
UPDATE session SET ended_at_ms = :now_ms WHERE session_no = :session_no AND ended_at_ms IS NULL;

-- name: set_formats, one row
-- Say which message formats a session's items may have.
UPDATE session SET formats = :formats WHERE session_no = :session_no;

-- name: by_id
-- Return the session with exactly this id.
SELECT session_no, session_id FROM session WHERE session_id = :session_id;

-- name: by_prefix
-- Return the sessions whose id begins with a prefix, and ends with the letters of `tail`. An id
-- is no shorter than both. Two rows are enough to know that it is ambiguous.
SELECT session_no, session_id FROM session
WHERE session_id >= :prefix AND session_id < :prefix_end
  AND length(session_id) >= length(:prefix) + length(:tail)
  AND substr(session_id, length(session_id) - length(:tail) + 1) = :tail
ORDER BY session_id LIMIT :limit;

-- name: by_key
-- Return the session that a key is bound to now, and the row of the index that it came with.
SELECT s.session_no, s.session_id, s.ended_at_ms, s.formats, b.session_key, b.details
FROM binding AS b
JOIN session AS s ON s.session_no = b.session_no
WHERE b.session_key = :session_key;

-- name: bind, one row
-- Point a key at a session. The last call wins.
INSERT INTO binding (session_key, session_no, agent_id, bound_at_ms, details)
VALUES (:session_key, :session_no, :agent_id, :now_ms, :details)
ON CONFLICT (session_key) DO UPDATE SET session_no = excluded.session_no,
       agent_id = excluded.agent_id,
       bound_at_ms = excluded.bound_at_ms, details = coalesce(excluded.details, details);

-- name: spell, one row
-- Give a key that had lost the case of its id the right one.
UPDATE binding SET session_key = :session_key WHERE session_key = :lowered;

-- name: unbind, one row or none
-- Delete a key. Its session stays.
DELETE FROM binding WHERE session_key = :session_key;

-- name: list
-- Return sessions in the order of their last change, newest first, a page at a time.
SELECT s.session_no, s.session_id, s.agent_id, s.origin, s.version, s.name, s.last_seq, s.epoch,
       s.context_tokens, s.tokens_fresh, s.created_at_ms, s.updated_at_ms, s.ended_at_ms,
       s.pinned_at_ms, s.archived_at_ms, s.formats, f.session_id AS forked_from,
       (SELECT count(*) FROM compaction AS c
        WHERE c.session_no = s.session_no AND c.state = 'committed') AS compactions,
       (SELECT json_group_array(b.session_key) FROM binding AS b
        WHERE b.session_no = s.session_no) AS keys
FROM session AS s LEFT JOIN session AS f ON f.session_no = s.forked_from_no
WHERE (s.updated_at_ms, s.session_no) < (:before_ms, :before_no)
  AND (:agent_id IS NULL OR s.agent_id = :agent_id)
  AND (:with_ended OR s.ended_at_ms IS NULL)
ORDER BY s.updated_at_ms DESC, s.session_no DESC LIMIT :limit;

-- name: info
-- Return one session, with what is derived from other rows.
SELECT s.session_no, s.session_id, s.agent_id, s.origin, s.version, s.name, s.last_seq, s.epoch,
       s.context_tokens, s.tokens_fresh, s.created_at_ms, s.updated_at_ms, s.ended_at_ms,
       s.pinned_at_ms, s.archived_at_ms, s.formats, f.session_id AS forked_from,
       (SELECT count(*) FROM compaction AS c
        WHERE c.session_no = s.session_no AND c.state = 'committed') AS compactions,
       (SELECT json_group_array(b.session_key) FROM binding AS b
        WHERE b.session_no = s.session_no) AS keys
FROM session AS s LEFT JOIN session AS f ON f.session_no = s.forked_from_no
WHERE s.session_no = :session_no;

-- name: began
-- Return when a session's present conversation began, by its start, its last reset or
-- its fork, and the reset's entry.
SELECT opened_at_ms, boundary_no FROM epoch
WHERE session_no = :session_no AND reason IN ('start', 'reset', 'fork') ORDER BY epoch DESC LIMIT 1;

-- name: pin, one row
-- Pin a session: retention leaves it alone. The first time counts.
UPDATE session SET pinned_at_ms = coalesce(pinned_at_ms, :now_ms) WHERE session_no = :session_no;

-- name: unpin, one row
-- Unpin a session.
UPDATE session SET pinned_at_ms = NULL WHERE session_no = :session_no;

-- name: id_neighbours
-- Return the ids before and behind an id, in their order. What they share with it is not unique.
SELECT (SELECT b.session_id FROM session AS b WHERE b.session_id < :session_id
        ORDER BY b.session_id DESC LIMIT 1) AS previous,
       (SELECT a.session_id FROM session AS a WHERE a.session_id > :session_id
        ORDER BY a.session_id LIMIT 1) AS following;

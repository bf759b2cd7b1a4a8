-- name: insert, one row
-- Insert a session. The unique session_id settles a race between two creators.
INSERT INTO session (session_id, agent_id, origin, version, created_at_ms, updated_at_ms, head_no,
                     boundary_no, first_kept_no, context_tokens, tokens_fresh, forked_from_no,
                     forked_at_no, forked_epoch, formats, ordered_from_no,
                     open_marks, asked_no, search_behind)
VALUES (:session_id, :agent_id, :origin, :version, :now_ms, :now_ms, :head_no, :boundary_no,
        :first_kept_no, :context_tokens, :tokens_fresh, :forked_from_no, :forked_at_no,
        :forked_epoch, :formats, :ordered_from_no, :open_marks, :asked_no, 0)
RETURNING session_no;

-- name: end, one row or none
-- End a session: it accepts no append. Once.
UPDATE session SET ended_at_ms = :now_ms WHERE session_no = :session_no AND ended_at_ms IS NULL;

-- name: end_imported, one row or none
-- End a session of a transcript that its own program has ended: with its last entry. Once.
UPDATE session SET ended_at_ms = updated_at_ms
WHERE session_no = :session_no AND ended_at_ms IS NULL;

-- name: reopen_imported, one row or none
-- Let a session go on whose transcript its own program has restored. Not one in an archive here.
UPDATE session SET ended_at_ms = NULL
WHERE session_no = :session_no AND ended_at_ms IS NOT NULL AND archived_at_ms IS NULL;

-- name: set_formats, one row
-- Say which message formats a session's items may have.
UPDATE session SET formats = :formats WHERE session_no = :session_no;

-- name: by_id
-- Return the session with exactly this id.
SELECT session_no, session_id FROM session WHERE session_id = :session_id;

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

-- name: info
-- Return one session, with what is derived from other rows.
SELECT s.session_no, s.session_id, s.agent_id, s.origin, s.version, s.name, s.last_seq, s.epoch,
       s.context_tokens, s.tokens_fresh, s.created_at_ms, s.updated_at_ms, s.ended_at_ms,
       s.pinned_at_ms, s.archived_at_ms, s.formats, f.session_id AS forked_from,
       n.namespace, n.external_id, d.document AS details, d.revision AS details_revision,
       (SELECT count(*) FROM compaction AS c
        WHERE c.session_no = s.session_no AND c.state = 'committed') AS compactions,
       (SELECT json_group_array(b.session_key) FROM binding AS b
        WHERE b.session_no = s.session_no) AS keys
FROM session AS s LEFT JOIN session AS f ON f.session_no = s.forked_from_no
LEFT JOIN foreign_id AS n ON n.session_no = s.session_no
LEFT JOIN session_details AS d ON d.session_no = s.session_no
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

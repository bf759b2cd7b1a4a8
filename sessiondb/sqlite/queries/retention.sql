-- name: newest
-- Return sessions in the order of their last change, newest first, a page at a time.
-- Archived ones too, so that a page is one page.
SELECT s.session_no, s.session_id, s.updated_at_ms, s.last_seq, s.archived_at_ms,
       (SELECT count(*) FROM binding AS b WHERE b.session_no = s.session_no) AS keys,
       coalesce((SELECT min(b.agent_id) FROM binding AS b WHERE b.session_no = s.session_no),
                s.agent_id) AS agent_id,
       (SELECT max(coalesce(a.finished_at_ms, a.begun_at_ms)) FROM archive AS a
        WHERE a.session_no = s.session_no AND a.state = 'restored') AS restored_at_ms
FROM session AS s WHERE (s.updated_at_ms, s.session_no) < (:before_ms, :before_no)
ORDER BY s.updated_at_ms DESC, s.session_no DESC LIMIT :limit;

-- name: oldest
-- Return the same, oldest first.
SELECT s.session_no, s.session_id, s.updated_at_ms, s.last_seq, s.archived_at_ms,
       (SELECT count(*) FROM binding AS b WHERE b.session_no = s.session_no) AS keys,
       coalesce((SELECT min(b.agent_id) FROM binding AS b WHERE b.session_no = s.session_no),
                s.agent_id) AS agent_id,
       (SELECT max(coalesce(a.finished_at_ms, a.begun_at_ms)) FROM archive AS a
        WHERE a.session_no = s.session_no AND a.state = 'restored') AS restored_at_ms
FROM session AS s WHERE (s.updated_at_ms, s.session_no) > (:after_ms, :after_no)
ORDER BY s.updated_at_ms, s.session_no LIMIT :limit;

-- name: sizes
-- Return the bytes of the texts of some sessions. Their entries are few.
SELECT n.value AS session_no,
       (SELECT coalesce(sum(octet_length(e.payload)), 0) FROM entry AS e
        WHERE e.entry_no BETWEEN n.value << 32 AND (n.value << 32) + 4294967295) AS bytes
FROM json_each(:session_nos) AS n;

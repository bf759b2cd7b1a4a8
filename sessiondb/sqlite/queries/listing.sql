-- Sessions, in the order of their last change (transcript/listing.py).

-- name: of_agent
-- Return sessions of an agent, up to a limit.
SELECT session_no FROM session WHERE agent_id = :agent_id LIMIT :limit;

-- name: of_namespace
-- Return sessions whose foreign ids are of one namespace, up to a limit.
SELECT session_no FROM foreign_id WHERE namespace = :namespace LIMIT :limit;

-- name: of_keys
-- Return sessions that a range of keys points at, up to a limit. One may have several.
SELECT session_no FROM binding WHERE session_key >= :keys_from AND session_key < :keys_before
LIMIT :limit;

-- name: among
-- Return, of a few sessions, those that a list is to have.
SELECT s.session_no, s.updated_at_ms FROM session AS s
WHERE s.session_no IN (SELECT value FROM json_each(:among)) AND s.updated_at_ms < :updated_before
  AND (:agent_id IS NULL OR s.agent_id = :agent_id)
  AND (:with_ended OR s.ended_at_ms IS NULL)
  AND (:namespace IS NULL OR EXISTS (SELECT 1 FROM foreign_id AS f
                                     WHERE f.session_no = s.session_no
                                       AND f.namespace = :namespace))
  AND (:keys_from IS NULL OR EXISTS (SELECT 1 FROM binding AS b
                                     WHERE b.session_no = s.session_no
                                       AND b.session_key >= :keys_from
                                       AND b.session_key < :keys_before));

-- name: newest
-- Return the sessions of a list, last changed first, a page at a time.
SELECT s.session_no, s.updated_at_ms FROM session AS s
WHERE (s.updated_at_ms, s.session_no) < (:past_ms, :past_no)
  AND (:agent_id IS NULL OR s.agent_id = :agent_id)
  AND (:with_ended OR s.ended_at_ms IS NULL)
  AND (:namespace IS NULL OR EXISTS (SELECT 1 FROM foreign_id AS f
                                     WHERE f.session_no = s.session_no
                                       AND f.namespace = :namespace))
  AND (:keys_from IS NULL OR EXISTS (SELECT 1 FROM binding AS b
                                     WHERE b.session_no = s.session_no
                                       AND b.session_key >= :keys_from
                                       AND b.session_key < :keys_before))
ORDER BY s.updated_at_ms DESC, s.session_no DESC LIMIT :limit;

-- name: oldest
-- Return the sessions of a list, last changed last, a page at a time.
SELECT s.session_no, s.updated_at_ms FROM session AS s
WHERE (s.updated_at_ms, s.session_no) > (:past_ms, :past_no) AND s.updated_at_ms < :updated_before
  AND (:agent_id IS NULL OR s.agent_id = :agent_id)
  AND (:with_ended OR s.ended_at_ms IS NULL)
  AND (:namespace IS NULL OR EXISTS (SELECT 1 FROM foreign_id AS f
                                     WHERE f.session_no = s.session_no
                                       AND f.namespace = :namespace))
  AND (:keys_from IS NULL OR EXISTS (SELECT 1 FROM binding AS b
                                     WHERE b.session_no = s.session_no
                                       AND b.session_key >= :keys_from
                                       AND b.session_key < :keys_before))
ORDER BY s.updated_at_ms, s.session_no LIMIT :limit;

-- Ids as a person types them (cli/session_ids.py).

-- name: by_prefix
-- Return the sessions whose id begins with a prefix, and ends with the letters of `tail`. An id
-- is no shorter than both. Two rows are enough to know that it is ambiguous.
SELECT session_no, session_id FROM session
WHERE session_id >= :prefix AND session_id < :prefix_end
  AND length(session_id) >= length(:prefix) + length(:tail)
  AND substr(session_id, length(session_id) - length(:tail) + 1) = :tail
ORDER BY session_id LIMIT :limit;

-- name: id_neighbours
-- Return the ids before and behind an id, in their order. What they share with it is not unique.
SELECT (SELECT b.session_id FROM session AS b WHERE b.session_id < :session_id
        ORDER BY b.session_id DESC LIMIT 1) AS previous,
       (SELECT a.session_id FROM session AS a WHERE a.session_id > :session_id
        ORDER BY a.session_id LIMIT 1) AS following;

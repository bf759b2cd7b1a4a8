-- The search index: how it is filled, what is taken out of it, and what is found
-- (transcript/search_index.py, transcript/search.py, maintenance/verify_search.py).

-- name: state
-- Return the row of the index. No row: there is no index.
SELECT built_at_ms, purging FROM search_state;

-- name: begin, one row or none
-- Note that there is an index from now on.
INSERT INTO search_state (state_no, built_at_ms) VALUES (1, :now_ms)
ON CONFLICT (state_no) DO NOTHING;

-- name: merge_by_hand, any rows
-- Let the index merge its parts when it is asked to, and never within an INSERT.
INSERT INTO search (search, rank) VALUES ('automerge', 0);

-- name: end, one row or none
-- Note that there is no index any more.
DELETE FROM search_state;

-- name: empty, any rows
-- Take everything out of the index.
INSERT INTO search (search) VALUES ('delete-all');

-- name: forget_sessions, any rows
-- Forget how far the sessions are in the index.
DELETE FROM search_session;

-- name: behind
-- Return sessions with entries that are not in the index yet, newest first.
SELECT s.session_no, s.last_seq, coalesce(i.indexed_no, s.session_no << 32) AS indexed_no
FROM session AS s LEFT JOIN search_session AS i ON i.session_no = s.session_no
WHERE s.search_behind = 1 AND s.archived_at_ms IS NULL ORDER BY s.session_no DESC LIMIT :limit;

-- name: mark_behind, one row
-- Note that a session may have entries that are not in the index.
UPDATE session SET search_behind = 1 WHERE session_no = :session_no;

-- name: mark_all_behind, any rows
-- Note so of all sessions with entries.
UPDATE session SET search_behind = 1 WHERE search_behind = 0 AND last_seq > 0;

-- name: mark_whole, one row or none
-- Note that all entries of a session are in the index, if the last one that is there is its last.
UPDATE session SET search_behind = 0
WHERE session_no = :session_no AND (session_no << 32) + last_seq = :indexed_no;

-- name: count_behind
-- Return how many entries are not in the index.
SELECT coalesce(sum((s.session_no << 32) + s.last_seq
                    - coalesce(i.indexed_no, s.session_no << 32)), 0) AS behind
FROM session AS s LEFT JOIN search_session AS i ON i.session_no = s.session_no
WHERE s.search_behind = 1 AND s.archived_at_ms IS NULL;

-- name: count_entries
-- Return how many entries the index is to have.
SELECT coalesce(sum(s.last_seq), 0) AS entries FROM session AS s WHERE s.archived_at_ms IS NULL;

-- name: indexed
-- Return how far a session is in the index, and whether it may be put there.
SELECT i.after_no, i.indexed_no, s.last_seq, s.archived_at_ms
FROM session AS s LEFT JOIN search_session AS i ON i.session_no = s.session_no
WHERE s.session_no = :session_no;

-- name: indexed_of
-- Return how far those of some sessions are in the index that are there.
SELECT i.session_no, i.after_no, i.indexed_no
FROM json_each(:session_nos) AS n JOIN search_session AS i ON i.session_no = n.value;

-- name: put, any rows
-- Put the words of a range of entries into the index.
INSERT INTO search (rowid, text)
WITH said AS MATERIALIZED (
  SELECT t.entry_no, t.text FROM search_text AS t
  WHERE t.entry_no > :after_no AND t.entry_no <= :last_no
) SELECT said.entry_no, said.text FROM said WHERE said.text <> '';

-- name: advance, one row
-- Note how far a session is in the index now.
INSERT INTO search_session (session_no, after_no, indexed_no)
VALUES (:session_no, :after_no, :indexed_no)
ON CONFLICT (session_no) DO UPDATE SET indexed_no = excluded.indexed_no;

-- name: take_out, any rows
-- Take the words of a range of entries out of the index. The entries are as they were put there.
INSERT INTO search (search, rowid, text)
WITH said AS MATERIALIZED (
  SELECT t.entry_no, t.text FROM search_text AS t
  WHERE t.entry_no > :after_no AND t.entry_no <= :last_no
) SELECT 'delete', said.entry_no, said.text FROM said WHERE said.text <> '';

-- name: retreat, one row
-- Note that the first entries of a session are not in the index any more.
UPDATE search_session SET after_no = :after_no WHERE session_no = :session_no;

-- name: forget_session, one row or none
-- Note that no entry of a session is in the index.
DELETE FROM search_session WHERE session_no = :session_no;

-- name: merge, any rows
-- Merge so many pages of the index's parts, where four or more are of one size.
INSERT INTO search (search, rank) VALUES ('merge', :pages);

-- name: merge_all, any rows
-- Merge so many pages on the way to a single part, which has no word that was taken out.
INSERT INTO search (search, rank) VALUES ('merge', -:pages);

-- name: parts
-- Return how many parts the index has, up to two.
SELECT ((SELECT min(segid) FROM search_idx) IS NOT NULL)
     + EXISTS (SELECT 1 FROM search_idx
               WHERE segid > (SELECT min(segid) FROM search_idx)) AS parts;

-- name: ask_purge, one row or none
-- Note that words are to go from the older parts of the index, too.
UPDATE search_state SET purging = 1;

-- name: end_purge, one row or none
-- Note that the index has no word that was taken out.
UPDATE search_state SET purging = 0;

-- name: matches
-- Return entries with some words, last ones first. Those that are asked for have the part of their
-- text that has the words, between two marks. It is NULL for the others: see `described`.
SELECT e.entry_no, e.entry_id, e.branch_no, e.type, e.role, e.appended_at_ms, s.session_no,
       s.session_id, s.agent_id, s.head_no, s.branch_no AS head_branch_no,
       CASE
         WHEN s.archived_at_ms IS NULL
          AND (:branch_no IS NULL OR e.branch_no = :branch_no)
          AND (:agent_id IS NULL OR s.agent_id = :agent_id)
          AND (:role IS NULL OR coalesce(e.role, e.type) = :role)
          AND e.appended_at_ms >= :since_ms
          AND (s.origin = 'native'
               OR (:checkpoints OR NOT EXISTS (SELECT 1 FROM import_file AS f
                                               WHERE f.session_no = s.session_no
                                                 AND f.kind = 'checkpoint'))
               AND NOT EXISTS (SELECT 1 FROM entry AS c
                               WHERE c.entry_no >> 32 = e.entry_no >> 32
                                 AND c.entry_id = e.entry_id AND c.entry_no > e.entry_no
                                 AND c.payload = e.payload))
         THEN CAST(coalesce(snippet(search, 0, char(2), char(3), '...', 32), '') AS BLOB)
       END AS content
FROM search
CROSS JOIN entry AS e ON e.entry_no = search.rowid
CROSS JOIN session AS s ON s.session_no = e.entry_no >> 32
WHERE search MATCH :words AND search.rowid BETWEEN :low_no AND :high_no
ORDER BY search.rowid DESC LIMIT :limit;

-- name: any_match
-- Return nothing, after a look into the index.
SELECT rowid AS entry_no FROM search WHERE search MATCH :words AND rowid < 0 LIMIT 1;

-- name: described
-- Return those of some entries that are asked for, last ones first. A line of a file that is two
-- entries is found once. So is a checkpoint, which is a copy of its session: with its session.
SELECT e.entry_no, e.entry_id, e.branch_no, e.type, e.role, e.appended_at_ms, s.session_no,
       s.session_id, s.agent_id, s.head_no, s.branch_no AS head_branch_no
FROM json_each(:numbers) AS n
CROSS JOIN entry AS e ON e.entry_no = n.value
CROSS JOIN session AS s ON s.session_no = e.entry_no >> 32
WHERE s.archived_at_ms IS NULL
  AND (:branch_no IS NULL OR e.branch_no = :branch_no)
  AND (:agent_id IS NULL OR s.agent_id = :agent_id)
  AND (:role IS NULL OR coalesce(e.role, e.type) = :role)
  AND e.appended_at_ms >= :since_ms
  AND (:checkpoints OR NOT EXISTS (SELECT 1 FROM import_file AS f
                                   WHERE f.session_no = s.session_no AND f.kind = 'checkpoint'))
  AND NOT EXISTS (SELECT 1 FROM entry AS c
                  WHERE c.entry_no >> 32 = e.entry_no >> 32 AND c.entry_id = e.entry_id
                    AND c.entry_no > e.entry_no AND c.payload = e.payload)
ORDER BY e.entry_no DESC;

-- name: archives
-- Return archives that can be searched, the newest session first.
SELECT a.archive_no, s.session_no, s.session_id, s.agent_id
FROM archive AS a CROSS JOIN session AS s ON s.session_no = a.session_no
WHERE a.state = 'archived' AND a.session_no <= :last_no
  AND (:session_no IS NULL OR a.session_no = :session_no)
  AND (:agent_id IS NULL OR s.agent_id = :agent_id)
ORDER BY a.session_no DESC LIMIT :limit;

-- name: texts
-- Return the texts of a range of entries, last ones first.
SELECT t.entry_no, CAST(t.text AS BLOB) AS content FROM search_text AS t
WHERE t.entry_no > :after_no AND t.entry_no <= :last_no ORDER BY t.entry_no DESC LIMIT :limit;

-- name: cursors
-- Return how far the sessions are in the index, with what they have, a page at a time.
SELECT s.session_no, i.after_no, i.indexed_no, s.session_id, s.last_seq, s.search_behind
FROM session AS s LEFT JOIN search_session AS i ON i.session_no = s.session_no
WHERE s.session_no > :after_session_no ORDER BY s.session_no LIMIT :limit;

-- name: documents
-- Return the numbers that the index has, a page at a time, each with its entry and with how far
-- its session is in the index. NULL: there is none.
SELECT d.id AS document_no, e.entry_no, i.after_no, i.indexed_no
FROM search_docsize AS d LEFT JOIN entry AS e ON e.entry_no = d.id
LEFT JOIN search_session AS i ON i.session_no = d.id >> 32
WHERE d.id > :after_no ORDER BY d.id LIMIT :limit;

-- name: missing
-- Return entries of a range that have words and are not in the index.
SELECT t.entry_no FROM search_text AS t
WHERE t.entry_no > :after_no AND t.entry_no <= :last_no AND t.text <> ''
  AND NOT EXISTS (SELECT 1 FROM search_docsize AS d WHERE d.id = t.entry_no)
ORDER BY t.entry_no LIMIT :limit;

-- Lines that stand before their parents in an imported file (transfer/early_lines.py). Such a
-- line waits while it has an `entry_id`, and may be placed once it has a `parent_seq`.

-- name: of_file
-- Return what is open of a file's early lines: whether some wait, whether the parents of some
-- are missing, and where the head will be.
SELECT r.head_seq, r.head_byte, r.cursor_id, r.session_no,
       (SELECT h.entry_id FROM quarantine AS h
        WHERE h.import_file_no = r.import_file_no AND h.byte_offset = r.head_byte) AS head_id,
       EXISTS (SELECT 1 FROM quarantine AS w
               WHERE w.import_file_no = r.import_file_no AND w.entry_id IS NOT NULL) AS waiting,
       EXISTS (SELECT 1 FROM quarantine AS m
               WHERE m.import_file_no = r.import_file_no AND m.waits_for IS NOT NULL) AS missing,
       EXISTS (SELECT 1 FROM quarantine AS o
               WHERE o.import_file_no = r.import_file_no AND o.parent_seq IS NOT NULL) AS ready
FROM import_file AS r WHERE r.import_file_no = :import_file_no;

-- name: waiting
-- Return a row if a line with this id waits.
SELECT byte_offset FROM quarantine
WHERE import_file_no = :import_file_no AND entry_id = :entry_id LIMIT 1;

-- name: found, any rows
-- Let the lines that wait for an entry follow it, and those that became roots without it. Of
-- lines with one id they follow the last, so not this entry while another line waits.
UPDATE quarantine INDEXED BY quarantine_parent SET parent_seq = :seq
WHERE import_file_no = :import_file_no AND waits_for = :entry_id AND parent_seq IS NULL
  AND NOT EXISTS (SELECT 1 FROM quarantine AS t INDEXED BY quarantine_waiting
                  WHERE t.import_file_no = :import_file_no AND t.entry_id = :entry_id
                    AND t.line > :line);

-- name: wait_for_another, any rows
-- Let the lines that wait for a line which is no entry wait for what that one follows.
UPDATE quarantine INDEXED BY quarantine_parent SET waits_for = :parent_id
WHERE import_file_no = :import_file_no AND waits_for = :entry_id AND parent_seq IS NULL;

-- name: next
-- Return lines that may be placed, a page at a time, each behind its parent: of those whose
-- parent is an entry the one with the newest first, and then what follows it, as far as it goes.
WITH RECURSIVE line (byte_offset, number, entry_id, parent_seq, depth) AS (
  SELECT f.byte_offset, f.line, f.entry_id, f.parent_seq, 0
  FROM (SELECT r.byte_offset, r.line, r.entry_id, r.parent_seq FROM quarantine AS r
        WHERE r.import_file_no = :import_file_no AND r.parent_seq IS NOT NULL
          AND r.entry_id IS NOT NULL
        ORDER BY r.parent_seq DESC LIMIT :limit) AS f
  UNION ALL
  SELECT c.byte_offset, c.line, c.entry_id, NULL, p.depth + 1
  FROM line AS p CROSS JOIN quarantine AS c INDEXED BY quarantine_parent
    ON c.import_file_no = :import_file_no AND c.waits_for = p.entry_id
   AND c.entry_id IS NOT NULL AND c.parent_seq IS NULL
   AND NOT EXISTS (SELECT 1 FROM quarantine AS t INDEXED BY quarantine_waiting
                   WHERE t.import_file_no = :import_file_no AND t.entry_id = p.entry_id
                     AND t.line > p.number)
  ORDER BY 5 DESC, 4 DESC, 1
  LIMIT :limit
)
SELECT l.byte_offset, l.number AS line, l.entry_id, l.parent_seq, q.waits_for,
       iif(l.byte_offset < 0,
           (SELECT CAST(e.payload AS BLOB) FROM entry AS e
            WHERE e.entry_no = :session_no << 32 | -l.byte_offset), q.content) AS content
FROM line AS l CROSS JOIN quarantine AS q
  ON q.import_file_no = :import_file_no AND q.byte_offset = l.byte_offset
LIMIT :limit;

-- name: placed, one row
-- Note the entry that a line became. Of a parent that is missing the name stays: it may come.
UPDATE quarantine SET entry_seq = :seq, entry_id = NULL, parent_seq = NULL,
       waits_for = iif(parent_seq = -1, waits_for, NULL),
       content = iif(reason = :reason, x'', content)
WHERE import_file_no = :import_file_no AND byte_offset = :byte_offset AND entry_id IS NOT NULL;

-- name: without_parent
-- Return lines behind one of a file that wait for what neither is an entry nor waits.
SELECT q.byte_offset, q.entry_id, q.waits_for FROM quarantine AS q
WHERE q.import_file_no = :import_file_no AND q.byte_offset > :after_offset
  AND q.entry_id IS NOT NULL AND q.parent_seq IS NULL
  AND NOT EXISTS (SELECT 1 FROM quarantine AS p INDEXED BY quarantine_waiting
                  WHERE p.import_file_no = q.import_file_no AND p.entry_id = q.waits_for
                    AND p.parent_seq IS NULL)
ORDER BY q.byte_offset LIMIT :limit;

-- name: in_a_circle
-- Return the first line behind one of a file that waits.
SELECT byte_offset, entry_id, waits_for FROM quarantine
WHERE import_file_no = :import_file_no AND byte_offset > :after_offset
  AND entry_id IS NOT NULL AND parent_seq IS NULL
ORDER BY byte_offset LIMIT 1;

-- name: become_roots, any rows
-- Let lines follow the root. -1 stands for a parent that does not come.
UPDATE quarantine SET parent_seq = :parent_seq
WHERE import_file_no = :import_file_no AND entry_id IS NOT NULL
  AND byte_offset IN (SELECT value FROM json_each(:byte_offsets));

-- name: found_late
-- Return a line that became a root, and whose parent has come since.
SELECT byte_offset, entry_seq, parent_seq, waits_for
FROM quarantine INDEXED BY quarantine_ready
WHERE import_file_no = :import_file_no AND parent_seq IS NOT NULL AND entry_id IS NULL LIMIT 1;

-- name: branches
-- Return the branches of a session behind one of them, a page at a time.
SELECT branch_no, parent_branch_no FROM branch
WHERE session_no = :session_no AND branch_no > :after_no ORDER BY branch_no LIMIT :limit;

-- name: entries
-- Return entries of a session with their parents' ids, a page at a time.
SELECT e.entry_no, e.entry_id, e.branch_no, p.entry_id AS parent_id
FROM entry AS e LEFT JOIN entry AS p ON p.entry_no = e.parent_no
WHERE e.entry_no BETWEEN :low_no AND :high_no ORDER BY e.entry_no LIMIT :limit;

-- name: repeat, one row or none
-- Let an entry be placed once more, behind another parent. It keeps its line in the file.
INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity, content,
                        entry_id, waits_for, parent_seq)
VALUES (:import_file_no, 0, -:seq, :seq, :reason, 'early', x'', :entry_id, :waits_for, :parent_seq)
ON CONFLICT DO NOTHING;

-- name: not_missing, one row
-- Note that nothing is to be done any more about the parent of a line.
UPDATE quarantine SET waits_for = NULL, parent_seq = NULL
WHERE import_file_no = :import_file_no AND byte_offset = :byte_offset AND entry_id IS NULL;

-- name: set_head, one row
-- Note where the head will be when all early lines are placed.
UPDATE import_file SET head_seq = :head_seq, head_byte = :head_byte
WHERE import_file_no = :import_file_no;

-- name: set_cursor, one row
-- Note what the next line of a file may name, and mean the head.
UPDATE import_file SET cursor_id = :cursor_id WHERE import_file_no = :import_file_no;

-- name: advance, one row
-- Note how many entries a file has by now, and what was odd about them.
UPDATE import_file SET entries = :entries, state = :state, note = :note
WHERE import_file_no = :import_file_no;

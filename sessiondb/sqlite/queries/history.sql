-- What changed between two epochs (transcript/history.py).

-- name: in_context
-- Return the numbers of one branch's entries between two numbers that reach the model, and
-- of the boundary at which the context begins, a page at a time.
SELECT entry_no FROM entry
WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
  AND (projection IN (1, 3, 4) OR entry_no = :boundary_no)
ORDER BY entry_no LIMIT :limit;

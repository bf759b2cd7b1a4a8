-- name: mark, one row or none
-- Record that a process claims no more turns, and ends. May be repeated: the first time counts.
UPDATE instance SET draining_at_ms = :now_ms
WHERE instance_no = :instance_no AND closed_at_ms IS NULL AND draining_at_ms IS NULL;

-- name: last
-- Return the number of the newest reply. 0: there is none.
SELECT coalesce(max(outbox_no), 0) AS outbox_no FROM outbox;

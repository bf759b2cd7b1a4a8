-- name: insert, one row
-- Register this process as one that may write, and return its number. `hold` completes it
-- in the same transaction.
INSERT INTO instance (host, boot_id, pid, pid_started, program, opened_at_ms)
VALUES (:host, :boot_id, :pid, :pid_started, :program, :opened_at_ms)
RETURNING instance_no;

-- name: hold, one row
-- Record in which file a process has its lock, and under which number. Every lease and job
-- names it by that. A registration that was closed meanwhile, because its lock file had
-- gone, is open again.
UPDATE instance SET instance_no = :held_no, database_file = :database_file, lock_file = :lock_file,
       closed_at_ms = NULL, unclean = 0
WHERE instance_no = :instance_no;

-- name: close, one row or none
-- Record that this process closed the database. May be repeated: the first time counts.
UPDATE instance SET closed_at_ms = :closed_at_ms
WHERE instance_no = :instance_no AND closed_at_ms IS NULL;

-- name: by_pid
-- Return the newest open registration of a process on this boot of this host, to name
-- the holder of a lock.
SELECT instance_no, pid, pid_started, program, opened_at_ms
FROM instance
WHERE host = :host AND boot_id = :boot_id AND pid = :pid AND closed_at_ms IS NULL
ORDER BY instance_no DESC
LIMIT 1;

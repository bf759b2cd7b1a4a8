-- name: open_instances
-- Return the processes that never closed the database, oldest first, a page at a time.
SELECT instance_no, host, boot_id, pid, program, opened_at_ms, database_file, lock_file
FROM instance
WHERE closed_at_ms IS NULL AND instance_no > :after_no ORDER BY instance_no LIMIT :limit;

-- name: is_open
-- Return a registration that has not been closed.
SELECT instance_no FROM instance WHERE instance_no = :instance_no AND closed_at_ms IS NULL;

-- name: close_dead_instance, one row or none
-- Close the registration of a dead process, after everything it held has been released.
UPDATE instance SET closed_at_ms = :now_ms, unclean = 1
WHERE instance_no = :instance_no AND closed_at_ms IS NULL;

-- name: idle
-- Return the open registrations of a JSON array that hold nothing.
SELECT instance_no FROM instance
WHERE instance_no IN (SELECT value FROM json_each(:instances)) AND closed_at_ms IS NULL
  AND NOT EXISTS (SELECT 1 FROM turn AS t
                  WHERE t.state = 'running' AND t.instance_no = instance.instance_no)
  AND NOT EXISTS (SELECT 1 FROM compaction AS c
                  WHERE c.state = 'running' AND c.instance_no = instance.instance_no)
  AND NOT EXISTS (SELECT 1 FROM outbox AS o
                  WHERE o.state IN ('pending', 'sending', 'unknown', 'failed')
                    AND o.state = 'sending' AND o.instance_no = instance.instance_no);

-- name: close_idle, one row or none
-- Close a registration that holds nothing, of a process of which nothing can be known.
UPDATE instance SET closed_at_ms = :now_ms
WHERE instance_no = :instance_no AND closed_at_ms IS NULL;

-- name: running_compactions
-- Return the running jobs of one process.
SELECT compaction_id, session_no FROM compaction
WHERE state = 'running' AND instance_no = :instance_no LIMIT :limit;

-- name: overdue_compactions
-- Return the running jobs whose deadline has passed, whatever process runs them. Reads
-- running jobs only.
SELECT compaction_id FROM compaction INDEXED BY compaction_one_running
WHERE state = 'running' AND deadline_ms <= :before_ms LIMIT :limit;

-- name: unclean_starts
-- Count the processes of one program that were opened between two times and died
-- without closing. They are known to be dead, or are in a JSON array of processes found
-- dead. The program is the caller's own. For a reader or the command line it is the
-- program with most of them. A later time comes from a clock that has been set back
-- since, and is ignored.
SELECT coalesce(max(starts), 0) AS starts FROM (
  SELECT count(*) AS starts FROM (
    SELECT program FROM instance WHERE unclean = 1 AND opened_at_ms BETWEEN :since_ms AND :now_ms
    UNION ALL
    SELECT program FROM instance
    WHERE instance_no IN (SELECT value FROM json_each(:dead)) AND unclean = 0
      AND opened_at_ms BETWEEN :since_ms AND :now_ms
  ) AS ended
  WHERE program <> :command_line
    AND program = coalesce((SELECT own.program FROM instance AS own
                            WHERE own.instance_no = :instance_no AND own.program <> :command_line),
                            program)
  GROUP BY program
);

-- name: held
-- Return the turns, compactions and replies under way, each with its own name, with their
-- owners, since when and until when.
SELECT 'turn' AS what, s.session_id, t.turn_no, NULL AS compaction_id, NULL AS outbox_no,
       t.operation, t.started_at_ms AS since_ms, t.expires_at_ms AS until_ms, i.host, i.pid,
       i.program, i.instance_no, i.boot_id, i.database_file, i.lock_file, i.draining_at_ms
FROM turn AS t INDEXED BY turn_by_expiry JOIN session AS s ON s.session_no = t.session_no
JOIN instance AS i ON i.instance_no = t.instance_no
WHERE t.state = 'running'
UNION ALL
SELECT 'compaction', s.session_id, NULL, c.compaction_id, NULL,
       c.trigger, c.begun_at_ms, c.deadline_ms, i.host, i.pid,
       i.program, i.instance_no, i.boot_id, i.database_file, i.lock_file, i.draining_at_ms
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.state = 'running'
UNION ALL
SELECT 'reply', s.session_id, NULL, NULL, o.outbox_no,
       'to ' || o.target, o.created_at_ms, o.expires_at_ms, i.host, i.pid,
       i.program, i.instance_no, i.boot_id, i.database_file, i.lock_file, i.draining_at_ms
FROM outbox AS o JOIN session AS s ON s.session_no = o.session_no
JOIN instance AS i ON i.instance_no = o.instance_no
WHERE o.state IN ('pending', 'sending', 'unknown', 'failed') AND o.state = 'sending'
ORDER BY since_ms;

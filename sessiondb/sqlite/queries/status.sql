-- name: file
-- Return what SQLite keeps about the file itself. These figures are the engine's own.
SELECT p.page_count AS pages, f.freelist_count AS pages_free, s.page_size AS page_bytes,
       v.user_version AS schema_version
FROM pragma_page_count AS p, pragma_freelist_count AS f, pragma_page_size AS s,
     pragma_user_version AS v;

-- name: totals
-- Return what is known without counting. Sessions and receipts are numbered, and stay.
SELECT (SELECT coalesce(max(session_no), 0) FROM session) AS sessions,
       (SELECT coalesce(max(import_file_no), 0) FROM import_file) AS import_files,
       (SELECT count(*) FROM instance WHERE closed_at_ms IS NULL) AS processes_open;

-- name: numbers
-- Return the highest numbers that were ever given out. None is given out again.
SELECT (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'inbox') AS messages,
       (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'turn') AS turns,
       (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'outbox') AS replies,
       (SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'event') AS events;

-- name: recent_turns
-- Count the turns that began since then, by state.
SELECT state, count(*) AS turns FROM turn WHERE started_at_ms >= :since_ms
GROUP BY state ORDER BY state;

-- name: counts
-- Count what no index counts. Reads every session's row. Entries are what the sessions count. The
-- pieces of an imported index, below offset 0, are no lines.
SELECT (SELECT count(*) FROM session WHERE ended_at_ms IS NOT NULL) AS sessions_ended,
       (SELECT count(*) FROM binding) AS keys,
       (SELECT coalesce(sum(last_seq), 0) FROM session) AS entries,
       (SELECT count(*) FROM quarantine WHERE severity = 'damaged') AS lines_damaged,
       (SELECT count(*) FROM quarantine WHERE severity = 'blank' AND byte_offset >= 0)
         AS lines_blank;

-- name: work
-- Count what a gateway has to do and what it could not finish. Each count reads a
-- partial index of exactly these rows.
SELECT (SELECT count(*) FROM inbox WHERE state = 'queued') AS messages_waiting,
       (SELECT count(*) FROM inbox
        WHERE state IN ('interrupted', 'dead') AND state = 'interrupted') AS messages_interrupted,
       (SELECT count(*) FROM inbox
        WHERE state IN ('interrupted', 'dead') AND state = 'dead') AS messages_dead,
       (SELECT count(*) FROM turn WHERE state = 'running') AS turns_running,
       (SELECT count(*) FROM turn
        WHERE state = 'running' AND expires_at_ms <= :now_ms) AS turns_overdue,
       (SELECT count(*) FROM outbox
        WHERE state IN ('pending', 'sending', 'unknown', 'failed')
          AND state = 'pending') AS replies_pending,
       (SELECT count(*) FROM outbox
        WHERE state IN ('pending', 'sending', 'unknown', 'failed')
          AND state = 'sending') AS replies_sending,
       (SELECT count(*) FROM outbox
        WHERE state IN ('pending', 'sending', 'unknown', 'failed')
          AND state = 'unknown') AS replies_unknown,
       (SELECT count(*) FROM outbox
        WHERE state IN ('pending', 'sending', 'unknown', 'failed')
          AND state = 'failed') AS replies_failed,
       (SELECT coalesce(max(event_no), 0) FROM event) AS events;

-- name: lanes
-- Return the lanes with what is in them, those that go first first.
SELECT l.lane, l.concurrency, l.priority, l.people, l.paused_at_ms, l.settings,
       (SELECT count(*) FROM turn AS t
        WHERE t.state = 'running' AND t.lane = l.lane) AS running,
       (SELECT count(*) FROM inbox AS q
        WHERE q.state = 'queued' AND q.lane = l.lane) AS waiting,
       (SELECT o.accepted_at_ms FROM inbox AS o WHERE o.state = 'queued' AND o.lane = l.lane
        ORDER BY o.accepted_at_ms LIMIT 1) AS oldest_waiting_ms,
       (SELECT count(*) FROM inbox AS i
        WHERE i.state IN ('interrupted', 'dead') AND i.state = 'interrupted'
          AND coalesce(i.lane_before, i.lane) = l.lane) AS interrupted,
       (SELECT count(*) FROM inbox AS d
        WHERE d.state IN ('interrupted', 'dead') AND d.state = 'dead'
          AND coalesce(d.lane_before, d.lane) = l.lane) AS dead
FROM lane AS l WHERE l.dropped_at_ms IS NULL ORDER BY l.priority, l.lane;

-- name: channels
-- Return the channels for which replies wait, most first, and until when each said to wait.
SELECT o.channel, count(*) AS replies_waiting, p.until_ms, p.reason
FROM outbox AS o INDEXED BY outbox_waiting
LEFT JOIN channel_pause AS p
  ON p.channel = o.channel AND p.begun_at_ms <= :now_ms AND p.until_ms > :now_ms
WHERE o.state = 'pending'
GROUP BY o.channel ORDER BY replies_waiting DESC, o.channel LIMIT :limit;

-- name: compactions
-- Count the jobs in each state.
SELECT state, count(*) AS jobs FROM compaction GROUP BY state ORDER BY state;

-- name: running
-- Return the running jobs, oldest first, with their owners.
SELECT c.compaction_id, s.session_id, c.trigger, c.begun_at_ms, c.deadline_ms, i.instance_no,
       i.program, i.host, i.pid, i.boot_id, i.database_file, i.lock_file
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.state = 'running' ORDER BY c.begun_at_ms LIMIT :limit;

-- name: stuck
-- Return what does not go on by itself, with the process that has it.
SELECT k.what, k.name, k.problem, k.session_id, k.place, k.since, k.until, k.why, k.next_step,
       i.instance_no, i.program, i.host, i.pid, i.boot_id, i.database_file, i.lock_file
FROM stuck AS k LEFT JOIN instance AS i ON i.instance_no = k.instance_no LIMIT :limit;

-- name: processes
-- Return the processes that opened the file for writing and never closed it, newest
-- first: running, or dead.
SELECT instance_no, program, pid, host, opened_at_ms, boot_id, database_file, lock_file,
       draining_at_ms
FROM instance
WHERE closed_at_ms IS NULL ORDER BY instance_no DESC LIMIT :limit;

-- name: relations
-- Return the tables and views by name, views first: what a query may name. The tables in which
-- FTS5 keeps the search index are nothing to read.
SELECT name, type FROM sqlite_schema
WHERE type IN ('view', 'table') AND name NOT LIKE 'sqlite^_%' ESCAPE '^'
  AND name NOT IN ('search_config', 'search_data', 'search_docsize', 'search_idx')
ORDER BY type DESC, name;

-- name: branches
-- Return where a session's first branches left their parents, for a person to see.
SELECT branch_no, fork_no, first_no FROM branch WHERE session_no = :session_no
ORDER BY branch_no LIMIT :limit;

-- name: running
-- Return the live job of a session, with its owner.
SELECT c.compaction_id, c.trigger, c.begun_at_ms, c.deadline_ms, i.instance_no, i.program, i.host,
       i.pid, i.boot_id, i.database_file, i.lock_file
FROM compaction AS c LEFT JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.session_no = :session_no AND c.state = 'running';

-- name: recent
-- Return a session's last jobs, newest first.
SELECT compaction_id, state, base_epoch, finished_at_ms FROM compaction
WHERE session_no = :session_no ORDER BY compaction_no DESC LIMIT :limit;

-- name: begin, one row
-- Insert a job. The partial unique index refuses a second running job of its session.
INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch, cut_no,
                        first_kept_no, tokens_before, instance_no, begun_at_ms, deadline_ms,
                        deadline_max_ms)
VALUES (:compaction_id, :session_no, 'running', :trigger, :base_epoch, :cut_no, :first_kept_no,
        :tokens_before, :instance_no, :now_ms, :deadline_ms, :deadline_max_ms);

-- name: record, one row
-- Insert a compaction that another program made, found in an imported or appended
-- entry.
INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch, first_kept_no,
                        tokens_before, tokens_after, begun_at_ms, deadline_ms, deadline_max_ms,
                        finished_at_ms, epoch, entry_no)
VALUES (:compaction_id, :session_no, 'committed', 'import', :base_epoch, :first_kept_no,
        :tokens_before, :tokens_after, :now_ms, :now_ms, :now_ms, :now_ms, :epoch, :entry_no);

-- name: by_id
-- Return a job, whatever its state.
SELECT c.compaction_id, c.session_no, s.session_id, c.state, c.trigger, c.base_epoch, c.cut_no,
       c.first_kept_no, c.tokens_before, c.tokens_after, c.deadline_ms, c.deadline_max_ms, c.late,
       c.epoch, c.reason, e.entry_id
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN entry AS e ON e.entry_no = c.entry_no
WHERE c.compaction_id = :compaction_id;

-- name: finish, one row or none
-- End a running job without a commit. Zero rows: it was no longer running.
UPDATE compaction SET state = :state, finished_at_ms = :now_ms, reason = :reason
WHERE compaction_id = :compaction_id AND state = 'running';

-- name: renew, one row or none
-- Move a running job's deadline, at most to its bound.
UPDATE compaction SET deadline_ms = min(:deadline_ms, deadline_max_ms)
WHERE compaction_id = :compaction_id AND state = 'running'
RETURNING deadline_ms;

-- name: settle, one row or none
-- Record how a commit ended, once. This is the only completion path.
UPDATE compaction SET state = :state, finished_at_ms = :now_ms, late = :late, epoch = :epoch,
       entry_no = :entry_no, tokens_after = :tokens_after, reason = :reason, summary = :summary
WHERE compaction_id = :compaction_id AND state NOT IN ('committed', 'superseded', 'rejected');

-- name: by_entry
-- Return the job that wrote a summary entry.
SELECT compaction_id, epoch FROM compaction WHERE session_no = :session_no AND entry_no = :entry_no;

-- name: cut_page
-- Return the small columns of one branch's range, newest first: what a cut search
-- weighs. Reads no payload.
SELECT entry_no, type, role, projection, tokens, open_calls FROM entry
WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
ORDER BY entry_no DESC LIMIT :limit;

-- name: list
-- Return jobs, newest first, a page at a time.
SELECT c.compaction_no, c.compaction_id, s.session_id, c.state, c.trigger, c.base_epoch, c.epoch,
       c.late, c.tokens_before, c.tokens_after,
       i.pid || '@' || i.host AS owner,
       c.begun_at_ms, c.deadline_ms, c.finished_at_ms, c.reason
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.compaction_no < :before_no ORDER BY c.compaction_no DESC LIMIT :limit;

-- name: list_of_session
-- Return one session's jobs, newest first, a page at a time. Reads no other session's.
SELECT c.compaction_no, c.compaction_id, s.session_id, c.state, c.trigger, c.base_epoch, c.epoch,
       c.late, c.tokens_before, c.tokens_after,
       i.pid || '@' || i.host AS owner,
       c.begun_at_ms, c.deadline_ms, c.finished_at_ms, c.reason
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.session_no = :session_no AND c.compaction_no < :before_no
ORDER BY c.compaction_no DESC LIMIT :limit;

-- name: lane
-- Return a lane's settings, and how many of its turns run now in all processes. One that
-- was dropped says so.
SELECT l.lane, l.concurrency, l.priority, l.people, l.paused_at_ms, l.settings, l.dropped_at_ms,
       (SELECT count(*) FROM turn AS t WHERE t.state = 'running' AND t.lane = l.lane) AS running
FROM lane AS l WHERE l.lane = :lane;

-- name: set_lane, one row
-- Create a lane, or change its limits. One that was dropped begins anew.
INSERT INTO lane (lane, concurrency, priority, people)
VALUES (:lane, :concurrency, :priority, coalesce(:people, 0))
ON CONFLICT (lane) DO UPDATE SET concurrency = excluded.concurrency, priority = excluded.priority,
       people = coalesce(:people, iif(dropped_at_ms IS NULL, people, 0)),
       paused_at_ms = iif(dropped_at_ms IS NULL, paused_at_ms, NULL),
       settings = iif(dropped_at_ms IS NULL, settings, NULL), dropped_at_ms = NULL;

-- name: pause_lane, one row or none
-- Pause a lane that runs, or with NULL resume one that is paused.
UPDATE lane SET paused_at_ms = :at_ms
WHERE lane = :lane AND dropped_at_ms IS NULL AND (paused_at_ms IS NULL) <> (:at_ms IS NULL);

-- name: set_lane_settings, one row or none
-- Say how a lane's turns are run, or with NULL leave it to those who run it.
UPDATE lane SET settings = :settings
WHERE lane = :lane AND dropped_at_ms IS NULL AND settings IS NOT :settings;

-- name: drop_lane, one row or none
-- Drop a lane. Its row stays, because the turns of before name it.
UPDATE lane SET dropped_at_ms = :now_ms WHERE lane = :lane AND dropped_at_ms IS NULL;

-- name: open_in_lane
-- Return messages that are not done and that a lane accepted, up to a limit: those that
-- wait, for their resume, too, those that turns work on, and those that wait for a decision.
-- A turn may run in a lane that was dropped before its message's, so all that run are read.
SELECT q.inbox_no FROM inbox AS q WHERE q.state = 'queued' AND q.lane = :lane
UNION ALL
SELECT r.inbox_no FROM inbox AS r
WHERE r.state = 'queued' AND r.lane = 'resume' AND r.lane_before = :lane
UNION ALL
SELECT d.inbox_no FROM inbox AS d
WHERE d.state IN ('interrupted', 'dead') AND coalesce(d.lane_before, d.lane) = :lane
UNION ALL
SELECT c.inbox_no
FROM turn AS t INDEXED BY turn_one_running JOIN inbox AS c ON c.inbox_no = t.inbox_no
WHERE t.state = 'running' AND c.state = 'claimed' AND coalesce(c.lane_before, c.lane) = :lane
LIMIT :limit;

-- name: move_messages, any rows
-- Move messages of one lane to another. A resume keeps the lane of resumes.
UPDATE inbox SET lane = iif(lane = :lane, :into, lane),
       lane_before = iif(lane_before = :lane, :into, lane_before)
WHERE inbox_no IN (SELECT value FROM json_each(:numbers));

-- name: make_room, one row or none
-- Let at least so many turns of a lane run at once.
UPDATE lane SET concurrency = :concurrency WHERE lane = :lane AND concurrency < :concurrency;

-- name: lanes_before
-- Return the lanes that go before this one. From a paused one nothing is claimed.
SELECT l.lane FROM lane AS l
WHERE l.priority < (SELECT own.priority FROM lane AS own WHERE own.lane = :lane)
  AND l.paused_at_ms IS NULL AND l.dropped_at_ms IS NULL
ORDER BY l.priority;

-- name: start, one row
-- Start a turn. The partial unique index refuses a second running turn of its session. It
-- takes over what the last turn of its message noted.
INSERT INTO turn (session_no, lane, kind, state, inbox_no, attempt, operation, instance_no,
                  started_at_ms, renewed_at_ms, expires_at_ms, deadline_ms, claim_id, progress)
VALUES (:session_no, :lane, :kind, 'running', :inbox_no, :attempt, :operation, :instance_no,
        :now_ms, :now_ms, :expires_at_ms, :deadline_ms, :claim_id,
        (SELECT t.progress FROM inbox AS i JOIN turn AS t ON t.turn_no = i.turn_no
         WHERE i.inbox_no = :inbox_no))
RETURNING turn_no, progress;

-- name: claimed_as
-- Return the turn that runs since a claim with this id.
SELECT t.turn_no, t.inbox_no, t.attempt, t.started_at_ms, t.expires_at_ms, t.deadline_ms, t.progress
FROM turn AS t WHERE t.lane = :lane AND t.claim_id = :claim_id AND t.state = 'running';

-- name: note_progress, one row or none
-- Note what a turn has done, in the place of what was noted before. Only while it runs.
UPDATE turn SET progress = :progress WHERE turn_no = :turn_no AND state = 'running';

-- name: progress_of_message
-- Return what the last turn of a message noted.
SELECT t.progress FROM inbox AS i JOIN turn AS t ON t.turn_no = i.turn_no
WHERE i.inbox_no = :inbox_no AND t.progress IS NOT NULL;

-- name: get
-- Return one turn.
SELECT t.turn_no, t.session_no, s.session_id, t.lane, t.kind, t.state, t.inbox_no, t.attempt,
       t.operation, t.instance_no, t.started_at_ms, t.expires_at_ms, t.deadline_ms, t.reason
FROM turn AS t JOIN session AS s ON s.session_no = t.session_no WHERE t.turn_no = :turn_no;

-- name: session_of
-- Return the session of a turn, whose own row may be lost.
SELECT session_no FROM turn WHERE turn_no = :turn_no;

-- name: running_of_session
-- Return the running turn of a session.
SELECT t.turn_no, t.operation, t.started_at_ms, t.expires_at_ms, t.deadline_ms, i.pid, i.host
FROM turn AS t
JOIN instance AS i ON i.instance_no = t.instance_no
WHERE t.session_no = :session_no AND t.state = 'running';

-- name: renew, one row or none
-- Renew a turn's lease, at most until its deadline. Only while the turn runs.
UPDATE turn SET renewed_at_ms = :now_ms, expires_at_ms = min(:expires_at_ms, deadline_ms),
       operation = coalesce(:operation, operation)
WHERE turn_no = :turn_no AND state = 'running' RETURNING expires_at_ms;

-- name: finish, one row or none
-- End a running turn, once.
UPDATE turn SET state = :state, finished_at_ms = :now_ms, incomplete = :incomplete, reason = :reason
WHERE turn_no = :turn_no AND state = 'running';

-- name: expired
-- Return the running turns of any lane whose lease has expired, without those that the
-- caller knows to be alive.
SELECT turn_no, inbox_no FROM turn WHERE state = 'running' AND expires_at_ms <= :now_ms
  AND turn_no NOT IN (SELECT value FROM json_each(:alive)) ORDER BY expires_at_ms LIMIT :limit;

-- name: of_instance
-- Return the running turns of one process, oldest first.
SELECT turn_no, inbox_no FROM turn INDEXED BY turn_one_running
WHERE state = 'running' AND instance_no = :instance_no ORDER BY turn_no LIMIT :limit;

-- name: next_expiry
-- Return when the next lease of any lane expires, without those of turns that the caller
-- knows to be alive.
SELECT min(expires_at_ms) AS at_ms FROM turn WHERE state = 'running'
  AND turn_no NOT IN (SELECT value FROM json_each(:alive));

-- name: pace_of_session
-- Return how long the last turns of a session took together, and how many these are.
SELECT count(*) AS turns, coalesce(sum(max(0, ended.finished_at_ms - ended.started_at_ms)), 0)
         AS took_ms FROM (
  SELECT started_at_ms, finished_at_ms FROM turn
  WHERE session_no = :session_no AND finished_at_ms IS NOT NULL ORDER BY turn_no DESC LIMIT :turns
) AS ended;

-- name: pace_of_lane
-- Return the same of the turns of a lane, among the last of all lanes.
SELECT count(*) AS turns, coalesce(sum(max(0, ended.finished_at_ms - ended.started_at_ms)), 0)
         AS took_ms FROM (
  SELECT lane, started_at_ms, finished_at_ms FROM turn ORDER BY turn_no DESC LIMIT :turns
) AS ended
WHERE ended.lane = :lane AND ended.finished_at_ms IS NOT NULL;

-- What `sessiondb salvage` runs in the database that it builds. No other part of
-- sessiondb uses these statements. The database is new, no other process has it open,
-- and foreign keys are off until it is verified at the end.

-- name: put_instance, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO instance (instance_no, host, boot_id, pid, pid_started, program, opened_at_ms,
                      closed_at_ms, unclean, database_file, lock_file, draining_at_ms)
VALUES (:instance_no, :host, :boot_id, :pid, :pid_started, :program, :opened_at_ms, :closed_at_ms,
        :unclean, :database_file, :lock_file, :draining_at_ms)
ON CONFLICT DO NOTHING;

-- name: put_session, one row or none
-- Insert one row as it was read. The first row of a key stays. No entry is in the new search index.
INSERT INTO session (session_no, session_id, agent_id, origin, version, created_at_ms,
                     updated_at_ms, ended_at_ms, name, last_seq, epoch, head_no, branch_no,
                     boundary_no, first_kept_no, context_tokens, tokens_fresh, forked_from_no,
                     pinned_at_ms, archived_at_ms, forked_at_no, forked_epoch, heard_at_ms,
                     formats, ordered_from_no, open_marks, asked_no, search_behind)
VALUES (:session_no, :session_id, :agent_id, :origin, :version, :created_at_ms, :updated_at_ms,
        :ended_at_ms, :name, :last_seq, :epoch, :head_no, :branch_no, :boundary_no, :first_kept_no,
        :context_tokens, :tokens_fresh, :forked_from_no, :pinned_at_ms, :archived_at_ms,
        :forked_at_no, :forked_epoch, :heard_at_ms, coalesce(:formats, 15),
        :ordered_from_no, :open_marks, :asked_no, :last_seq > 0 OR :search_behind IS NOT 0)
ON CONFLICT DO NOTHING;

-- name: put_binding, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO binding (session_key, session_no, agent_id, bound_at_ms, details)
VALUES (:session_key, :session_no, :agent_id, :bound_at_ms, :details)
ON CONFLICT DO NOTHING;

-- name: put_foreign_id, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO foreign_id (namespace, external_id, session_no, named_at_ms)
VALUES (:namespace, :external_id, :session_no, :named_at_ms)
ON CONFLICT DO NOTHING;

-- name: put_session_details, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO session_details (session_no, revision, changed_at_ms, document)
VALUES (:session_no, :revision, :changed_at_ms, :document)
ON CONFLICT DO NOTHING;

-- name: put_named_details, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO named_details (details_no, namespace, name, revision, changed_at_ms, document)
VALUES (:details_no, :namespace, :name, :revision, :changed_at_ms, :document)
ON CONFLICT DO NOTHING;

-- name: put_branch, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO branch (branch_no, session_no, parent_branch_no, fork_no, first_no)
VALUES (:branch_no, :session_no, :parent_branch_no, :fork_no, :first_no)
ON CONFLICT DO NOTHING;

-- name: put_epoch, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO epoch (session_no, epoch, reason, opened_at_ms, boundary_no, first_kept_no,
                   closed_head_no, closed_at_ms)
VALUES (:session_no, :epoch, :reason, :opened_at_ms, :boundary_no, :first_kept_no, :closed_head_no,
        :closed_at_ms)
ON CONFLICT DO NOTHING;

-- name: put_entry, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO entry (entry_no, branch_no, parent_no, position, type, role, projection, tokens,
                   tokens_total, usage_tokens, open_calls, boundary_no, first_kept_no, model_no,
                   thinking_no, body_at, body_bytes, appended_at_ms, entry_id, idempotency_key,
                   payload)
VALUES (:entry_no, :branch_no, :parent_no, :position, :type, :role, :projection, :tokens,
        :tokens_total, :usage_tokens, :open_calls, :boundary_no, :first_kept_no, :model_no,
        :thinking_no, :body_at, :body_bytes, :appended_at_ms, :entry_id, :idempotency_key, :payload)
ON CONFLICT DO NOTHING;

-- name: put_compaction, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO compaction (compaction_no, compaction_id, session_no, state, trigger, base_epoch,
                        cut_no, first_kept_no, tokens_before, tokens_after, instance_no,
                        begun_at_ms, deadline_ms, deadline_max_ms, finished_at_ms, late, epoch,
                        entry_no, reason, summary, threshold_tokens, in_vain)
VALUES (:compaction_no, :compaction_id, :session_no, :state, :trigger, :base_epoch, :cut_no,
        :first_kept_no, :tokens_before, :tokens_after, :instance_no, :begun_at_ms, :deadline_ms,
        :deadline_max_ms, :finished_at_ms, :late, :epoch, :entry_no, :reason, :summary,
        :threshold_tokens, :in_vain)
ON CONFLICT DO NOTHING;

-- name: put_import_file, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO import_file (import_file_no, path, name, kind, session_no, agent_id, bytes, lines,
                         entries, quarantined, sha256, final_newline, inode, imported_at_ms, state,
                         note, content, head_seq, head_byte, cursor_id, compared_sha256)
VALUES (:import_file_no, :path, :name, :kind, :session_no, :agent_id, :bytes, :lines, :entries,
        :quarantined, :sha256, :final_newline, :inode, :imported_at_ms, :state, :note, :content,
        :head_seq, :head_byte, :cursor_id, :compared_sha256)
ON CONFLICT DO NOTHING;

-- name: put_quarantine, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO quarantine (import_file_no, byte_offset, line, after_seq, reason, severity, content,
                        entry_id, waits_for, parent_seq, entry_seq)
VALUES (:import_file_no, :byte_offset, :line, :after_seq, :reason, :severity, :content,
        :entry_id, :waits_for, :parent_seq, :entry_seq)
ON CONFLICT DO NOTHING;

-- name: put_lane, one row
-- Insert one row as it was read. The last row of a key wins.
INSERT INTO lane (lane, concurrency, priority, people, paused_at_ms, settings, dropped_at_ms)
VALUES (:lane, :concurrency, :priority, :people, :paused_at_ms, :settings, :dropped_at_ms)
ON CONFLICT (lane) DO UPDATE SET concurrency = excluded.concurrency, priority = excluded.priority,
       people = excluded.people, paused_at_ms = excluded.paused_at_ms, settings = excluded.settings,
       dropped_at_ms = excluded.dropped_at_ms;

-- name: put_turn, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO turn (turn_no, session_no, lane, kind, state, inbox_no, attempt, operation, instance_no,
                  started_at_ms, renewed_at_ms, expires_at_ms, deadline_ms, finished_at_ms,
                  incomplete, reason, claim_id, progress)
VALUES (:turn_no, :session_no, :lane, :kind, :state, :inbox_no, :attempt, :operation, :instance_no,
        :started_at_ms, :renewed_at_ms, :expires_at_ms, :deadline_ms, :finished_at_ms, :incomplete,
        :reason, :claim_id, :progress)
ON CONFLICT DO NOTHING;

-- name: put_inbox, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO inbox (inbox_no, channel, event_id, session_no, session_key, digest, edited, edit_of,
                   lane, by_person, heard, state, accepted_at_ms, available_at_ms, queued_at_ms,
                   waits, attempts, stops, turn_no, entry_no, superseded_by, told_no, delayed,
                   restored, timeout_ms, lane_before, reason, details, payload)
VALUES (:inbox_no, :channel, :event_id, :session_no, :session_key, :digest, :edited, :edit_of,
        :lane, :by_person, coalesce(:heard, 0), :state, :accepted_at_ms, :available_at_ms,
        coalesce(:queued_at_ms, :available_at_ms), coalesce(:waits, 0), :attempts, :stops,
        :turn_no, :entry_no, :superseded_by, :told_no, :delayed, coalesce(:restored, 0),
        :timeout_ms, :lane_before, :reason,
        iif(json_type(iif(json_valid(:details), :details, 'null')) = 'object', :details, NULL),
        iif(:entry_no IS NULL, coalesce(:payload, ''), :payload))
ON CONFLICT DO NOTHING;

-- name: put_outbox, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO outbox (outbox_no, session_no, turn_no, target, channel, state, attempts,
                    attempts_before, instance_no, expires_at_ms, created_at_ms, available_at_ms,
                    waits, asked_at_ms, finished_at_ms, event_no, consumer, receipt, reason,
                    claim_id, details, payload)
VALUES (:outbox_no, :session_no, :turn_no, :target,
        coalesce(:channel, substr(:target, 1, instr(:target || ':', ':') - 1)), :state, :attempts,
        :attempts_before, :instance_no, :expires_at_ms, :created_at_ms, :available_at_ms,
        coalesce(:waits, 0), :asked_at_ms, :finished_at_ms, :event_no, :consumer, :receipt,
        :reason, :claim_id,
        iif(json_type(iif(json_valid(:details), :details, 'null')) = 'object', :details, NULL),
        :payload)
ON CONFLICT DO NOTHING;

-- name: put_channel_pause, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO channel_pause (channel, refused_since_ms, pauses, begun_at_ms, until_ms, reason)
VALUES (:channel, :refused_since_ms, :pauses, :begun_at_ms, :until_ms, :reason)
ON CONFLICT DO NOTHING;

-- name: put_event, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO event (event_no, kind, audience, session_no, at_ms, text, data)
VALUES (:event_no, :kind, :audience, :session_no, :at_ms, :text, :data)
ON CONFLICT DO NOTHING;

-- name: put_event_cursor, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO event_cursor (consumer, event_no)
VALUES (:consumer, :event_no)
ON CONFLICT DO NOTHING;

-- name: counted_header
-- Return a row if a receipt counts one entry more than the session has: the header,
-- which is no entry.
SELECT 1 AS found FROM import_file AS r JOIN session AS s ON s.session_no = r.session_no
WHERE r.session_no = :session_no AND r.entries > s.last_seq LIMIT 1;

-- name: cap_cursors, any rows
-- Bound the cursors of consumers by the last event written. A larger number is damaged,
-- and its consumer would miss all later events.
UPDATE event_cursor SET event_no = coalesce((SELECT q.seq FROM sqlite_sequence AS q
                                             WHERE q.name = 'event'), 0)
WHERE event_no > coalesce((SELECT q.seq FROM sqlite_sequence AS q WHERE q.name = 'event'), 0);

-- name: put_archive, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO archive (archive_no, session_no, state, reason, encoding, begun_at_ms, finished_at_ms,
                     rows, bytes, bytes_stored, session_keys)
VALUES (:archive_no, :session_no, :state, :reason, :encoding, :begun_at_ms, :finished_at_ms, :rows,
        :bytes, :bytes_stored, :session_keys)
ON CONFLICT DO NOTHING;

-- name: put_archive_chunk, one row or none
-- Insert one row as it was read. The first row of a key stays.
INSERT INTO archive_chunk (archive_no, chunk_no, what, rows, sha256, content)
VALUES (:archive_no, :chunk_no, :what, :rows, :sha256, :content)
ON CONFLICT DO NOTHING;

-- name: sessions
-- Return sessions with what they need from other tables, a page at a time.
SELECT s.session_no, s.session_id, s.origin, s.version, s.created_at_ms, s.updated_at_ms,
       s.last_seq, s.head_no, s.forked_from_no, s.archived_at_ms, s.formats,
       f.session_no AS found_forked_from_no
FROM session AS s LEFT JOIN session AS f ON f.session_no = s.forked_from_no
WHERE s.session_no > :after_no ORDER BY s.session_no LIMIT :limit;

-- name: session
-- Return one session.
SELECT session_no, session_id, origin, version, created_at_ms, updated_at_ms, last_seq, head_no,
       forked_from_no, archived_at_ms, ended_at_ms, formats
FROM session WHERE session_no = :session_no;

-- name: numbers
-- Return the numbers of the entries of a session, a page at a time.
SELECT entry_no FROM entry WHERE entry_no BETWEEN :low_no AND :high_no
ORDER BY entry_no LIMIT :limit;

-- name: header
-- Return a session's first line.
SELECT entry_id, appended_at_ms, payload FROM entry WHERE entry_no = :entry_no AND type = 'session';

-- name: taken
-- Return a row if a session id is in use.
SELECT session_no FROM session WHERE session_id = :session_id;

-- name: lose_parent, one row
-- Make a fork whose origin is lost stand alone.
UPDATE session SET forked_from_no = NULL, forked_at_no = NULL, forked_epoch = NULL
WHERE session_no = :session_no;

-- name: set_origin, one row
-- Record the origin of a fork whose row is lost: its branches name it.
UPDATE session SET forked_from_no = :forked_from_no, origin = 'fork' WHERE session_no = :session_no;

-- name: set_aside_entries, any rows
-- Move a session's entries out of the way, to the same numbers below zero.
UPDATE entry SET entry_no = -entry_no WHERE entry_no BETWEEN :low_no AND :high_no;

-- name: set_aside_compactions, any rows
-- Move a session's jobs out of the way.
UPDATE compaction SET session_no = -session_no WHERE session_no = :session_no;

-- name: drop_branches, any rows
-- Delete a session's branches. Replaying its entries creates them again.
DELETE FROM branch WHERE session_no = :session_no;

-- name: drop_epochs, any rows
-- Delete a session's epochs. Replaying its entries creates them again.
DELETE FROM epoch WHERE session_no = :session_no;

-- name: fork_epoch
-- Return the context that a fork began with.
SELECT boundary_no, first_kept_no FROM epoch
WHERE session_no = :session_no AND epoch = 0 AND reason = 'fork';

-- name: fork_point
-- Return the entry of another session that the first branch of a fork continues.
SELECT fork_no FROM branch
WHERE session_no = :session_no AND fork_no IS NOT NULL AND fork_no < :low_no
ORDER BY branch_no LIMIT 1;

-- name: undone_at
-- Return the heads at which a compaction was undone: the entries do not record it.
SELECT e.closed_head_no FROM epoch AS u
JOIN epoch AS e ON e.session_no = u.session_no AND e.epoch = u.epoch - 1
WHERE u.session_no = :session_no AND u.reason = 'undo' ORDER BY u.epoch;

-- name: restart, one row
-- Put a session back to the state before its first entry.
UPDATE session SET last_seq = 0, epoch = 0, head_no = :head_no, branch_no = NULL,
       boundary_no = :boundary_no, first_kept_no = :first_kept_no, context_tokens = 0,
       tokens_fresh = 0, name = NULL, archived_at_ms = NULL, heard_at_ms = NULL,
       forked_at_no = :head_no,
       ordered_from_no = CASE WHEN :head_no IS NULL THEN 0 END,
       open_marks = CASE WHEN :head_no IS NULL THEN '' END,
       asked_no = CASE WHEN :head_no IS NULL THEN 0 END,
       forked_from_no = CASE WHEN :head_no IS NULL THEN NULL ELSE forked_from_no END
WHERE session_no = :session_no;

-- name: set_tokens, one row
-- Record the tokens of a fork's context before its first entry.
UPDATE session SET context_tokens = :context_tokens WHERE session_no = :session_no;

-- name: set_updated, one row
-- Record when a session last changed, as far as that is known.
UPDATE session SET updated_at_ms = :updated_at_ms WHERE session_no = :session_no;

-- name: aside
-- Return the entries that were set aside, in the order of their numbers (below zero), a
-- page at a time.
SELECT -e.entry_no AS entry_no, e.parent_no, e.appended_at_ms, e.entry_id, e.idempotency_key,
       e.payload
FROM entry AS e
WHERE e.entry_no BETWEEN :low_no AND :high_no ORDER BY e.entry_no DESC LIMIT :limit;

-- name: aside_child
-- Return the text of the first of the next few entries that follows a given one.
SELECT payload FROM entry WHERE entry_no BETWEEN :low_no AND :high_no AND parent_no = :parent_no
ORDER BY entry_no DESC LIMIT 1;

-- name: aside_by_id
-- Return a row if an id is in use among the entries that were set aside.
SELECT entry_no FROM entry WHERE entry_no >> 32 = :aside_no AND entry_id = :entry_id LIMIT 1;

-- name: forget_aside, any rows
-- Delete the entries that were set aside: each is replayed, or a mark records its loss.
DELETE FROM entry WHERE entry_no BETWEEN :low_no AND :high_no;

-- name: jobs_aside
-- Return the jobs that were set aside.
SELECT compaction_no, compaction_id, state, trigger, base_epoch, cut_no, tokens_before, instance_no,
       begun_at_ms, deadline_ms, deadline_max_ms, finished_at_ms, entry_no, reason
FROM compaction WHERE session_no = -:session_no ORDER BY compaction_no;

-- name: forget_job, one row
-- Delete a job that exists in another form, or points at what is lost.
DELETE FROM compaction WHERE compaction_no = :compaction_no;

-- name: put_job_back, one row
-- Put back a job that did not begin an epoch, as it was.
UPDATE compaction SET session_no = -session_no, base_epoch = min(base_epoch, :epoch),
       cut_no = :cut_no
WHERE compaction_no = :compaction_no;

-- name: name_job, one row or none
-- Give the job behind a compaction entry its own name, owner and times again.
UPDATE compaction SET compaction_id = :compaction_id, trigger = :trigger,
       instance_no = :instance_no, begun_at_ms = :begun_at_ms, deadline_ms = :deadline_ms,
       deadline_max_ms = :deadline_max_ms, finished_at_ms = :finished_at_ms, reason = :reason
WHERE compaction_no = (SELECT c.compaction_no FROM compaction AS c
                       WHERE c.session_no = :session_no AND c.entry_no = :entry_no);

-- name: drop_entries, any rows
-- Delete a session's entries.
DELETE FROM entry WHERE entry_no BETWEEN :low_no AND :high_no;

-- name: drop_compactions, any rows
-- Delete a session's jobs.
DELETE FROM compaction WHERE session_no = :session_no;

-- name: bindings
-- Return bindings, a page at a time.
SELECT b.session_key, b.session_no, s.session_no AS found_session_no, s.archived_at_ms
FROM binding AS b
LEFT JOIN session AS s ON s.session_no = b.session_no
WHERE b.session_key > :after ORDER BY b.session_key LIMIT :limit;

-- name: drop_binding, one row
-- Delete a key of a session that is lost.
DELETE FROM binding WHERE session_key = :session_key;

-- name: foreign_ids
-- Return sessions with foreign ids, a page at a time.
SELECT f.session_no, f.namespace, f.external_id, s.session_no AS found_session_no
FROM foreign_id AS f LEFT JOIN session AS s ON s.session_no = f.session_no
WHERE f.session_no > :after ORDER BY f.session_no LIMIT :limit;

-- name: drop_foreign_id, one row
-- Delete the foreign id of a session that is lost.
DELETE FROM foreign_id WHERE session_no = :session_no;

-- name: details
-- Return sessions with details, a page at a time.
SELECT d.session_no, s.session_no AS found_session_no
FROM session_details AS d LEFT JOIN session AS s ON s.session_no = d.session_no
WHERE d.session_no > :after ORDER BY d.session_no LIMIT :limit;

-- name: drop_details, one row
-- Delete the details of a session that is lost.
DELETE FROM session_details WHERE session_no = :session_no;

-- name: branches
-- Return branches, a page at a time.
SELECT b.branch_no, b.session_no, s.session_no AS found_session_no FROM branch AS b
LEFT JOIN session AS s ON s.session_no = b.session_no
WHERE b.branch_no > :after ORDER BY b.branch_no LIMIT :limit;

-- name: next_epoch_owner
-- Return the next session that has epochs.
SELECT e.session_no, s.session_no AS found_session_no FROM epoch AS e
LEFT JOIN session AS s ON s.session_no = e.session_no
WHERE e.session_no > :after ORDER BY e.session_no LIMIT 1;

-- name: compactions
-- Return jobs, a page at a time.
SELECT c.compaction_no, c.session_no, s.session_no AS found_session_no, c.instance_no,
       i.instance_no AS found_instance_no
FROM compaction AS c LEFT JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN instance AS i ON i.instance_no = c.instance_no
WHERE c.compaction_no > :after ORDER BY c.compaction_no LIMIT :limit;

-- name: set_compaction, one row
-- Clear the owner of a job: its row is lost.
UPDATE compaction SET instance_no = NULL WHERE compaction_no = :compaction_no;

-- name: turns
-- Return turns with everything that they must agree with, a page at a time.
SELECT t.turn_no, t.session_no, t.lane, t.state, t.inbox_no, t.instance_no, t.started_at_ms,
       t.expires_at_ms, t.deadline_ms, s.session_no AS found_session_no, l.lane AS found_lane,
       n.instance_no AS found_instance_no, i.inbox_no AS found_inbox_no, i.state AS inbox_state,
       i.turn_no AS inbox_turn_no, i.session_no AS inbox_session_no
FROM turn AS t LEFT JOIN session AS s ON s.session_no = t.session_no
LEFT JOIN lane AS l ON l.lane = t.lane
LEFT JOIN instance AS n ON n.instance_no = t.instance_no
LEFT JOIN inbox AS i ON i.inbox_no = t.inbox_no
WHERE t.turn_no > :after ORDER BY t.turn_no LIMIT :limit;

-- name: interrupt_turn, one row or none
-- Interrupt a running turn whose message is lost, or another turn's.
UPDATE turn SET state = 'interrupted', finished_at_ms = started_at_ms, reason = :reason
WHERE turn_no = :turn_no AND state = 'running';

-- name: set_turn_lease, one row
-- Bound a lease by its deadline.
UPDATE turn SET expires_at_ms = min(expires_at_ms, deadline_ms) WHERE turn_no = :turn_no;

-- name: forget_message, one row
-- Record that the message of a turn is not known any more: the number is another session's.
UPDATE turn SET inbox_no = 0 WHERE turn_no = :turn_no;

-- name: drop_turn, one row
-- Delete a turn of a session that is lost.
DELETE FROM turn WHERE turn_no = :turn_no;

-- name: inbox
-- Return messages with everything that they must agree with, a page at a time.
SELECT i.inbox_no, i.session_no, i.lane, i.heard, i.state, i.attempts, i.turn_no, i.entry_no,
       s.session_no AS found_session_no, s.archived_at_ms, l.lane AS found_lane,
       i.lane_before, b.lane AS found_lane_before, t.turn_no AS found_turn_no,
       t.state AS turn_state, t.inbox_no AS turn_inbox_no, t.session_no AS turn_session_no,
       e.entry_no AS found_entry_no, e.type AS found_type,
       e.idempotency_key || ':' GLOB 'inbox:' || i.inbox_no || ':*' AS is_own,
       i.payload IS NOT NULL AS has_text, coalesce(json_valid(i.payload), 0) AS is_json
FROM inbox AS i LEFT JOIN session AS s ON s.session_no = i.session_no
LEFT JOIN lane AS l ON l.lane = i.lane LEFT JOIN lane AS b ON b.lane = i.lane_before
LEFT JOIN turn AS t ON t.turn_no = i.turn_no LEFT JOIN entry AS e ON e.entry_no = i.entry_no
WHERE i.inbox_no > :after ORDER BY i.inbox_no LIMIT :limit;

-- name: message
-- Return a row if a message is there.
SELECT inbox_no FROM inbox WHERE inbox_no = :inbox_no;

-- name: move_inbox, one row
-- Move a message whose session number is invalid to another session. An accepted
-- message is never dropped. It takes its text along.
UPDATE inbox SET session_no = :session_no, entry_no = NULL,
       payload = coalesce(payload,
         (SELECT CAST(substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) AS TEXT)
          FROM entry AS e WHERE e.entry_no = inbox.entry_no AND e.type = 'message'), '')
WHERE inbox_no = :number;

-- name: return_inbox, one row
-- Put a message back into the session of the turn that worked on it.
UPDATE inbox SET session_no = :session_no WHERE inbox_no = :inbox_no;

-- name: move_outbox, one row
-- Move a reply whose session number is invalid to another session.
UPDATE outbox SET session_no = :session_no, turn_no = NULL WHERE outbox_no = :number;

-- name: set_inbox, one row
-- Put a message into the state that the rest of the salvaged rows allows. An accepted
-- message is never dropped. With an entry it has no text beside that one. Without one it has
-- its own, or takes that of the entry with it.
UPDATE inbox SET state = :state, turn_no = :turn_no, entry_no = :entry_no,
       reason = coalesce(:reason, reason),
       payload = CASE WHEN :entry_no IS NULL THEN coalesce(payload,
           (SELECT CAST(substr(CAST(e.payload AS BLOB), e.body_at + 1, e.body_bytes) AS TEXT)
            FROM entry AS e WHERE e.entry_no = inbox.entry_no AND e.type = 'message'), '')
         WHEN EXISTS (SELECT 1 FROM entry AS e
                      WHERE e.entry_no = :entry_no AND e.type = 'message') THEN NULL
         ELSE payload END
WHERE inbox_no = :inbox_no;

-- name: set_end, one row
-- Record how a message ended, as far as the rest of the salvaged rows tells.
UPDATE inbox SET told_no = :told_no, superseded_by = :superseded_by WHERE inbox_no = :inbox_no;

-- name: outbox
-- Return replies with everything that they must agree with, a page at a time.
SELECT o.outbox_no, o.session_no, o.state, o.turn_no, o.instance_no, o.expires_at_ms,
       o.created_at_ms, o.finished_at_ms, s.session_no AS found_session_no, t.state AS turn_state,
       t.session_no AS turn_session_no, n.instance_no AS found_instance_no
FROM outbox AS o LEFT JOIN session AS s ON s.session_no = o.session_no
LEFT JOIN turn AS t ON t.turn_no = o.turn_no
LEFT JOIN instance AS n ON n.instance_no = o.instance_no
WHERE o.outbox_no > :after ORDER BY o.outbox_no LIMIT :limit;

-- name: set_outbox, one row
-- Put a reply into the state that the rest of the salvaged rows allows.
UPDATE outbox SET state = :state, turn_no = :turn_no, instance_no = :instance_no,
       finished_at_ms = :finished_at_ms,
       reason = coalesce(:reason, reason) WHERE outbox_no = :outbox_no;

-- name: events
-- Return events, a page at a time.
SELECT e.event_no, e.session_no, s.session_no AS found_session_no FROM event AS e
LEFT JOIN session AS s ON s.session_no = e.session_no
WHERE e.event_no > :after ORDER BY e.event_no LIMIT :limit;

-- name: set_event, one row
-- Clear the session of an event: the session is lost. The event stays.
UPDATE event SET session_no = NULL WHERE event_no = :event_no;

-- name: import_files
-- Return the receipts of imports with how much of each exists, a page at a time.
SELECT r.import_file_no, r.session_no, r.lines, r.entries, r.quarantined,
       s.session_no AS found_session_no, s.last_seq AS session_last_seq,
       coalesce((SELECT min(p.import_file_no) FROM import_file AS p
                 WHERE p.session_no = r.session_no), r.import_file_no) AS first_import_file_no,
       (SELECT count(*) FROM quarantine AS q
        WHERE q.import_file_no = r.import_file_no AND q.byte_offset >= 0) AS found_quarantined,
       (SELECT max(q.line) FROM quarantine AS q
        WHERE q.import_file_no = r.import_file_no) AS last_line
FROM import_file AS r LEFT JOIN session AS s ON s.session_no = r.session_no
WHERE r.import_file_no > :after ORDER BY r.import_file_no LIMIT :limit;

-- name: set_import_file, one row
-- Make a receipt count what exists.
UPDATE import_file SET session_no = :session_no, lines = :lines, entries = :entries,
       quarantined = :quarantined, note = :note
WHERE import_file_no = :import_file_no;

-- name: forget_hash, any rows
-- Forget the hash of a receipt, and of all others of its session: a part is lost.
UPDATE import_file SET sha256 = NULL, note = :note
WHERE import_file_no = :import_file_no OR session_no = :session_no;

-- name: next_quarantined
-- Return the next receipt that quarantined lines refer to.
SELECT q.import_file_no, r.import_file_no AS found_import_file_no FROM quarantine AS q
LEFT JOIN import_file AS r ON r.import_file_no = q.import_file_no
WHERE q.import_file_no > :after ORDER BY q.import_file_no LIMIT 1;

-- name: drop_quarantine, any rows
-- Delete the quarantined lines of a file whose receipt is lost.
DELETE FROM quarantine WHERE import_file_no = :import_file_no;

-- name: archives
-- Return archives, a page at a time.
SELECT a.archive_no, a.session_no, a.state, a.encoding, s.session_no AS found_session_no
FROM archive AS a
LEFT JOIN session AS s ON s.session_no = a.session_no
WHERE a.archive_no > :after ORDER BY a.archive_no LIMIT :limit;

-- name: archive_of
-- Return the archive that holds a session's entries.
SELECT archive_no, state, encoding FROM archive
WHERE session_no = :session_no AND state <> 'restored';

-- name: next_chunk_owner
-- Return the next archive that chunks belong to.
SELECT c.archive_no, a.archive_no AS found_archive_no FROM archive_chunk AS c
LEFT JOIN archive AS a ON a.archive_no = c.archive_no
WHERE c.archive_no > :after ORDER BY c.archive_no LIMIT 1;

-- name: chunk
-- Return the next chunk of an archive.
SELECT chunk_no, what, rows, content FROM archive_chunk
WHERE archive_no = :archive_no AND chunk_no > :after ORDER BY chunk_no LIMIT 1;

-- name: drop_chunks, any rows
-- Delete an archive's chunks, after their rows are read.
DELETE FROM archive_chunk WHERE archive_no = :archive_no;

-- name: drop_archive, one row
-- Delete an archive that holds nothing any more.
DELETE FROM archive WHERE archive_no = :archive_no;

-- name: unarchive, one row
-- Mark a session as not archived: its entries came out of a damaged archive.
UPDATE session SET archived_at_ms = NULL WHERE session_no = :session_no;

-- name: make_instance, one row or none
-- Insert a stand-in for a process whose row is lost. It had another file open, so it counts
-- as dead, and what it held is released.
INSERT INTO instance (instance_no, host, boot_id, pid, pid_started, program, opened_at_ms,
                      closed_at_ms, unclean, database_file, lock_file)
VALUES (:instance_no, :host, '', 0, 0, 'lost', :now_ms, NULL, 0, 'lost', NULL)
ON CONFLICT DO NOTHING;

-- name: make_session, one row
-- Insert a stand-in for a session whose row is lost.
INSERT INTO session (session_no, session_id, agent_id, origin, version, created_at_ms,
                     updated_at_ms, formats)
VALUES (:session_no, :session_id, NULL, 'native', :version, :at_ms, :at_ms, :formats);

-- name: make_lane, one row or none
-- Insert a stand-in for a lane whose row is lost: one turn at a time, before no other
-- lane.
INSERT INTO lane (lane, concurrency, priority) VALUES (:lane, 1, 10)
ON CONFLICT DO NOTHING;

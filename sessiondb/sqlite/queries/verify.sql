-- name: file_full
-- Return what SQLite itself finds wrong with the file, at most 100 problems. Reads
-- every page.
SELECT integrity_check AS problem FROM pragma_integrity_check();

-- name: file_quick
-- Return the same, without comparing indexes with their tables.
SELECT quick_check AS problem FROM pragma_quick_check();

-- name: foreign_keys
-- Return the rows that point at a missing row. The entry table has no foreign keys: the
-- walk checks it.
SELECT "table" AS table_name, rowid AS row_no, parent AS parent_name
FROM pragma_foreign_key_check() LIMIT :limit;

-- name: bindings
-- Return keys with the sessions that they are bound to, a page at a time. A key is bound to
-- an archived session only while that is being restored.
SELECT b.session_key, b.session_no, b.agent_id, s.session_no AS found_session_no, s.session_id,
       s.archived_at_ms,
       EXISTS (SELECT 1 FROM archive AS a
               WHERE a.session_no = b.session_no AND a.state = 'restoring') AS restoring
FROM binding AS b LEFT JOIN session AS s ON s.session_no = b.session_no
WHERE b.session_key > :after_key ORDER BY b.session_key LIMIT :limit;

-- name: foreign_ids
-- Return sessions with foreign ids, and what is wrong with these, a page at a time. A session
-- that was deleted has none.
SELECT f.session_no, f.namespace, f.external_id, s.session_no AS found_session_no, s.session_id,
       EXISTS (SELECT 1 FROM archive AS a
               WHERE a.session_no = f.session_no AND a.state = 'deleted') AS is_deleted
FROM foreign_id AS f LEFT JOIN session AS s ON s.session_no = f.session_no
WHERE f.session_no > :after_no ORDER BY f.session_no LIMIT :limit;

-- name: numbers
-- Return the highest number of each table that assigns no number twice, and its counter.
WITH last (name, last_no) AS (
  SELECT 'branch', (SELECT max(branch_no) FROM branch)
  UNION ALL SELECT 'turn', (SELECT max(turn_no) FROM turn)
  UNION ALL SELECT 'inbox', (SELECT max(inbox_no) FROM inbox)
  UNION ALL SELECT 'outbox', (SELECT max(outbox_no) FROM outbox)
  UNION ALL SELECT 'event', (SELECT max(event_no) FROM event)
)
SELECT l.name, coalesce(l.last_no, 0) AS last_no,
       coalesce((SELECT max(q.seq) FROM sqlite_sequence AS q WHERE q.name = l.name), 0) AS seq
FROM last AS l;

-- name: wal_link
-- Return the names of the file's state: two rows at most.
SELECT previous, current FROM wal_link LIMIT 2;

-- name: lanes
-- Return the lanes that a new file has.
SELECT lane FROM lane WHERE lane IN ('main', 'cron', 'resume');

-- name: odd_instances
-- Return processes whose end contradicts itself.
SELECT instance_no, unclean FROM instance
WHERE unclean NOT IN (0, 1) OR (unclean = 1 AND closed_at_ms IS NULL) LIMIT :limit;

-- name: odd_pauses
-- Return pauses that no channel can have asked for.
SELECT channel, pauses FROM channel_pause
WHERE pauses < 1 OR refused_since_ms > begun_at_ms LIMIT :limit;

-- name: events
-- Return whether each event's data are JSON, a page at a time.
SELECT event_no, json_valid(data) AS is_json FROM event
WHERE event_no > :after_no ORDER BY event_no LIMIT :limit;

-- name: archives
-- Return archives with their sessions and the size of their chunks, a page at a time.
SELECT a.archive_no, a.state, a.finished_at_ms, a.bytes_stored, s.session_id, s.archived_at_ms,
       s.ended_at_ms,
       (SELECT count(*) FROM archive_chunk AS c WHERE c.archive_no = a.archive_no) AS found_chunks,
       (SELECT coalesce(sum(length(c.content)), 0) FROM archive_chunk AS c
        WHERE c.archive_no = a.archive_no) AS found_bytes
FROM archive AS a LEFT JOIN session AS s ON s.session_no = a.session_no
WHERE a.archive_no > :after_no ORDER BY a.archive_no LIMIT :limit;

-- name: broken_rules
-- Return the rows that break a CHECK of their table. Reads every row but entries: the walk
-- over those names them.
SELECT 'session_no_fits_entry_no' AS rule, 'session ' || session_id AS what FROM session
WHERE session_no NOT BETWEEN 1 AND 2147483647
UNION ALL SELECT 'session_origin_known', 'session ' || session_id FROM session
WHERE origin NOT IN ('native', 'import', 'fork')
UNION ALL SELECT 'session_formats_known', 'session ' || session_id FROM session
WHERE formats NOT BETWEEN 1 AND 15
UNION ALL SELECT 'binding_details_json', 'key ' || session_key FROM binding
WHERE NOT json_valid(details)
UNION ALL SELECT 'session_details_json', 'the details of session number ' || session_no
FROM session_details WHERE NOT json_valid(document)
UNION ALL SELECT 'named_details_json', 'details number ' || details_no
FROM named_details WHERE NOT json_valid(document)
UNION ALL SELECT 'branch_parent_and_fork_together', 'branch ' || branch_no FROM branch
WHERE (parent_branch_no IS NULL) <> (fork_no IS NULL)
UNION ALL SELECT 'epoch_reason_known', 'epoch ' || epoch || ' of session number ' || session_no
FROM epoch
WHERE reason NOT IN ('start', 'compaction', 'reset', 'branch', 'undo', 'fork', 'edit')
UNION ALL SELECT 'compaction_state_known', 'compaction ' || compaction_id FROM compaction
WHERE state NOT IN ('running', 'committed', 'superseded', 'rejected', 'failed', 'cancelled',
                    'expired', 'abandoned')
UNION ALL SELECT 'compaction_committed_is_complete', 'compaction ' || compaction_id FROM compaction
WHERE (state = 'committed') <> (epoch IS NOT NULL AND entry_no IS NOT NULL)
UNION ALL SELECT 'compaction_finished_when_not_running', 'compaction ' || compaction_id
FROM compaction WHERE (state = 'running') <> (finished_at_ms IS NULL)
UNION ALL SELECT 'import_file_kind_known', 'import ' || path FROM import_file
WHERE kind NOT IN ('live', 'reset', 'deleted', 'bak', 'checkpoint', 'corrupt', 'index', 'pi')
UNION ALL SELECT 'import_file_state_known', 'import ' || path FROM import_file
WHERE state NOT IN ('reading', 'done', 'changed')
UNION ALL SELECT 'quarantine_severity_known',
                 'the piece at byte ' || byte_offset || ' of import ' || import_file_no
FROM quarantine WHERE severity NOT IN ('blank', 'damaged', 'early')
UNION ALL SELECT 'lane_concurrency_positive', 'lane ' || lane FROM lane WHERE concurrency < 1
UNION ALL SELECT 'lane_settings_json', 'lane ' || lane FROM lane
WHERE settings IS NOT NULL AND NOT json_valid(settings)
UNION ALL SELECT 'turn_kind_known', 'turn ' || turn_no FROM turn
WHERE kind NOT IN ('message', 'resume')
UNION ALL SELECT 'turn_state_known', 'turn ' || turn_no FROM turn
WHERE state NOT IN ('running', 'completed', 'failed', 'aborted', 'interrupted')
UNION ALL SELECT 'turn_finished_when_not_running', 'turn ' || turn_no FROM turn
WHERE (state = 'running') <> (finished_at_ms IS NULL)
UNION ALL SELECT 'turn_progress_json', 'turn ' || turn_no FROM turn
WHERE progress IS NOT NULL AND NOT json_valid(progress)
UNION ALL SELECT 'inbox_state_known', 'inbox item ' || inbox_no FROM inbox
WHERE state NOT IN ('queued', 'claimed', 'interrupted', 'done', 'dead', 'heard')
UNION ALL SELECT 'inbox_end_is_told', 'inbox item ' || inbox_no FROM inbox
WHERE told_no IS NULL AND (state = 'dead' OR superseded_by IS NOT NULL)
UNION ALL SELECT 'inbox_heard_never_runs', 'inbox item ' || inbox_no FROM inbox
WHERE NOT iif(heard, state IN ('heard', 'done') AND turn_no IS NULL, state <> 'heard')
UNION ALL SELECT 'inbox_text_is_kept', 'inbox item ' || inbox_no FROM inbox
WHERE payload IS NULL AND entry_no IS NULL
UNION ALL SELECT 'inbox_details_object', 'inbox item ' || inbox_no FROM inbox
WHERE details IS NOT NULL AND json_type(iif(json_valid(details), details, 'null')) <> 'object'
UNION ALL SELECT 'outbox_state_known', 'reply ' || outbox_no FROM outbox
WHERE state NOT IN ('pending', 'sending', 'sent', 'unknown', 'failed')
UNION ALL SELECT 'outbox_event_and_reader_together', 'reply ' || outbox_no FROM outbox
WHERE (event_no IS NULL) <> (consumer IS NULL)
UNION ALL SELECT 'outbox_details_object', 'reply ' || outbox_no FROM outbox
WHERE details IS NOT NULL AND json_type(iif(json_valid(details), details, 'null')) <> 'object'
UNION ALL SELECT 'channel_pause_ends_later', 'the pause of channel ' || channel FROM channel_pause
WHERE until_ms < begun_at_ms
UNION ALL SELECT 'event_audience_known', 'event ' || event_no FROM event
WHERE audience NOT IN ('operator', 'user')
UNION ALL SELECT 'event_data_json', 'event ' || event_no FROM event WHERE NOT json_valid(data)
UNION ALL SELECT 'archive_state_known', 'archive ' || archive_no FROM archive
WHERE state NOT IN ('writing', 'complete', 'deleting', 'archived', 'restoring', 'restored',
                    'deleted')
UNION ALL SELECT 'archive_encoding_known', 'archive ' || archive_no FROM archive
WHERE encoding NOT IN ('zstd', 'zlib', 'none')
UNION ALL SELECT 'wal_link_once', 'link ' || link_no FROM wal_link WHERE link_no <> 1
UNION ALL SELECT 'search_state_once', 'index ' || state_no FROM search_state WHERE state_no <> 1
LIMIT :limit;

-- name: last_session
-- Return the highest session number. 0 in an empty database.
SELECT coalesce(max(session_no), 0) AS session_no FROM session;

-- name: next_session
-- Return the next session.
SELECT session_no FROM session WHERE session_no > :after_no ORDER BY session_no LIMIT 1;

-- name: last_owner
-- Return the highest session number that an entry claims. 0 without an entry.
SELECT coalesce(max(entry_no), 0) >> 32 AS owner_no FROM entry;

-- name: next_owner
-- Return the session number that the next entry claims.
SELECT entry_no >> 32 AS owner_no FROM entry WHERE entry_no > :after_entry_no
ORDER BY entry_no LIMIT 1;

-- name: session
-- Return one session's row with everything that its pointers must agree with, in one
-- snapshot. :low_no and :high_no bound the numbers that its entries may have.
SELECT s.session_no, s.session_id, s.origin, s.version, s.name, s.last_seq, s.epoch, s.head_no,
       s.branch_no, s.boundary_no, s.first_kept_no, s.context_tokens, s.tokens_fresh,
       s.forked_from_no, s.archived_at_ms, s.forked_at_no, s.forked_epoch, s.heard_at_ms,
       s.formats, s.ordered_from_no, s.open_marks, s.asked_no, s.created_at_ms,
       z.type AS header_type, z.appended_at_ms AS header_at_ms,
       CASE WHEN json_type(iif(json_valid(z.payload), z.payload, 'null'), '$.version') = 'integer'
         THEN CAST(z.payload ->> '$.version' AS INTEGER) END AS header_version,
       (SELECT f.epoch FROM session AS f WHERE f.session_no = s.forked_from_no) AS origin_epoch,
       (SELECT max(n.entry_no) FROM entry AS n
        WHERE n.entry_no BETWEEN :low_no AND :high_no) AS last_no, h.entry_no AS found_head_no,
        h.branch_no AS head_branch_no, h.tokens_total AS head_tokens_total,
        h.boundary_no AS head_boundary_no, h.open_calls AS head_open_calls,
       (SELECT n.entry_no FROM entry AS n
        WHERE n.entry_no BETWEEN max(s.head_no + 1, :low_no) AND :high_no
          AND n.branch_no = s.branch_no
        ORDER BY n.entry_no LIMIT 1) AS after_head_no,
       b.entry_no AS found_boundary_no, b.type AS boundary_type, b.branch_no AS boundary_branch_no,
       b.tokens AS boundary_tokens, b.tokens_total AS boundary_tokens_total,
       k.entry_no AS found_kept_no, p.tokens_total AS before_kept_tokens_total,
       (SELECT max(e.epoch) FROM epoch AS e WHERE e.session_no = s.session_no) AS last_epoch,
       o.epoch AS open_epoch, o.closed_at_ms AS open_closed_at_ms,
       o.boundary_no AS open_boundary_no, o.first_kept_no AS open_first_kept_no,
       (SELECT count(*) FROM compaction AS c
        WHERE c.session_no = s.session_no AND c.state || '' = 'running') AS running
FROM session AS s
LEFT JOIN entry AS z ON z.entry_no = :low_no
LEFT JOIN entry AS h ON h.entry_no = s.head_no
LEFT JOIN entry AS b ON b.entry_no = s.boundary_no
LEFT JOIN entry AS k ON k.entry_no = s.first_kept_no
LEFT JOIN entry AS p ON p.entry_no = k.parent_no
LEFT JOIN epoch AS o ON o.session_no = s.session_no AND o.epoch = s.epoch
WHERE s.session_no = :session_no;

-- name: comes_from
-- Return a row if a session is another one, or was forked from it: directly, or in several
-- steps.
WITH RECURSIVE origin (session_no) AS (
  VALUES (:session_no)
  UNION
  SELECT s.forked_from_no FROM origin AS o JOIN session AS s ON s.session_no = o.session_no
  WHERE s.forked_from_no < s.session_no
)
SELECT session_no FROM origin WHERE session_no = :origin_no;

-- name: first_head
-- Return the head of a session's first epoch: where it ended, or where it is.
SELECT h.entry_no AS head_no, h.branch_no FROM session AS s
JOIN epoch AS e ON e.session_no = s.session_no AND e.epoch = 0
LEFT JOIN entry AS h ON h.entry_no = iif(s.epoch = 0, s.head_no, e.closed_head_no)
WHERE s.session_no = :session_no;

-- name: exists
-- Return whether a session still exists, and whether its entries do.
SELECT session_no, archived_at_ms FROM session WHERE session_no = :session_no;

-- name: archive
-- Return a session's archive that is not restored, and how many of its rows exist. A planted
-- number must not end it: sum() of such numbers is an error, and total() is none.
SELECT a.archive_no, a.state, a.encoding, a.rows, a.finished_at_ms, a.session_keys,
       (SELECT CAST(total(c.rows) AS INTEGER) FROM archive_chunk AS c
        WHERE c.archive_no = a.archive_no) AS found_rows
FROM archive AS a WHERE a.session_no = :session_no AND a.state <> 'restored';

-- name: archive_of_parent
-- Return the archive of the session that this one was forked from, if that session is
-- archived.
SELECT a.archive_no FROM session AS s JOIN archive AS a ON a.session_no = s.forked_from_no
WHERE s.session_no = :session_no AND a.state <> 'restored';

-- name: branches
-- Return a session's branches with the entries that they begin at and left from, a page
-- at a time.
SELECT b.branch_no, b.parent_branch_no, b.fork_no, b.first_no, f.branch_no AS first_branch_no,
       f.parent_no AS first_parent_no, k.entry_no AS found_fork_no, k.branch_no AS fork_branch_no,
       p.branch_no AS found_parent_branch_no
FROM branch AS b
LEFT JOIN entry AS f ON f.entry_no = b.first_no
LEFT JOIN entry AS k ON k.entry_no = b.fork_no
LEFT JOIN branch AS p ON p.branch_no = b.parent_branch_no
WHERE b.session_no = :session_no AND b.branch_no > :after_no ORDER BY b.branch_no LIMIT :limit;

-- name: entries
-- Return entries with their parents, their branches, and the entry before each on its
-- branch, a page at a time. Reads no payload.
SELECT e.entry_no, e.branch_no, e.parent_no, e.position, e.type, e.role, e.projection, e.tokens,
       e.tokens_total, e.usage_tokens, e.open_calls, e.boundary_no, e.first_kept_no, e.model_no,
       e.thinking_no, e.body_at, e.body_bytes, e.appended_at_ms, e.idempotency_key,
       e.entry_id, octet_length(e.payload) AS bytes, b.branch_no AS found_branch_no,
       b.session_no AS branch_session_no, b.first_no, p.entry_no AS found_parent_no,
       p.branch_no AS parent_branch_no, p.position AS parent_position,
       p.tokens_total AS parent_tokens_total, p.open_calls AS parent_open_calls,
       p.boundary_no AS parent_boundary_no, p.model_no AS parent_model_no,
       p.thinking_no AS parent_thinking_no, p.entry_id AS parent_id,
       (SELECT q.entry_no FROM entry AS q
        WHERE q.entry_no >= b.first_no AND q.entry_no < e.entry_no AND q.branch_no = e.branch_no
        ORDER BY q.entry_no DESC LIMIT 1) AS previous_no
FROM entry AS e
LEFT JOIN branch AS b ON b.branch_no = e.branch_no
LEFT JOIN entry AS p ON p.entry_no = e.parent_no
WHERE e.entry_no BETWEEN :low_no AND :high_no ORDER BY e.entry_no LIMIT :limit;

-- name: payloads
-- Return the texts of a range of entries, as bytes, so that a text that is not UTF-8
-- can be reported.
SELECT entry_no, CAST(payload AS BLOB) AS payload FROM entry
WHERE entry_no BETWEEN :low_no AND :high_no ORDER BY entry_no;

-- name: path_payloads
-- Return the texts of one branch's range, as bytes, a page at a time.
SELECT entry_no, CAST(payload AS BLOB) AS payload FROM entry
WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no
ORDER BY entry_no LIMIT :limit;

-- name: place
-- Return where an entry is in the tree.
SELECT entry_no, branch_no, entry_id FROM entry WHERE entry_no = :entry_no;

-- name: named_before
-- Return the entry that an id named when a later entry was appended: the newest of the
-- session or, for a fork, of the sessions that it comes from.
WITH RECURSIVE origin (session_no, distance) AS (
  VALUES (:session_no, 0)
  UNION
  SELECT s.forked_from_no, o.distance + 1 FROM origin AS o
  JOIN session AS s ON s.session_no = o.session_no
  WHERE s.forked_from_no < s.session_no
)
SELECT e.entry_no, e.branch_no FROM origin AS o
JOIN entry AS e ON e.entry_no >> 32 = o.session_no AND e.entry_id = :entry_id
WHERE e.entry_no < :before_no ORDER BY o.distance, e.entry_no DESC LIMIT 1;

-- name: key_owner
-- Return a row if an earlier entry of a session has an idempotency key.
SELECT entry_no FROM entry
WHERE entry_no >> 32 = :session_no AND idempotency_key = :idempotency_key AND entry_no < :before_no
LIMIT 1;

-- name: job_of_entry
-- Return the job that wrote a compaction entry, and the entry before the first that it keeps.
SELECT c.compaction_id, c.tokens_before, c.tokens_after, c.cut_no, c.first_kept_no,
       k.entry_no AS found_kept_no, k.parent_no AS before_kept_no,
       p.tokens_total AS before_kept_tokens_total
FROM compaction AS c LEFT JOIN entry AS n ON n.entry_no = c.entry_no
LEFT JOIN entry AS k ON k.entry_no = n.first_kept_no
LEFT JOIN entry AS p ON p.entry_no = k.parent_no
WHERE c.session_no = :session_no AND c.entry_no = :entry_no LIMIT 1;

-- name: control_record
-- Return a row if an id belongs to a record outside the tree, which older programs
-- named as a parent.
SELECT entry_no FROM entry
WHERE entry_no >> 32 = :session_no AND entry_id = :entry_id AND branch_no IS NULL LIMIT 1;

-- name: reopened_at
-- Return a row if a session's context was ever moved, at this head, to a boundary that
-- is not the head's own. An undo does that, a fork, and a switch to what follows a
-- compaction that was undone.
SELECT e.epoch FROM epoch AS e
LEFT JOIN epoch AS p ON p.session_no = e.session_no AND p.epoch = e.epoch - 1
WHERE e.session_no = :session_no AND e.boundary_no IS :boundary_no
  AND ((e.reason = 'undo' AND p.closed_head_no IS :head_no)
       OR e.reason IN ('fork', 'branch'))
LIMIT 1;

-- name: last_usage
-- Return the newest entry of a short range of one branch that carries a provider's
-- count of a context which began at a boundary.
SELECT entry_no, usage_tokens, tokens_total FROM entry
WHERE entry_no BETWEEN :low_no AND :high_no AND branch_no = :branch_no AND usage_tokens IS NOT NULL
  AND boundary_no IS :boundary_no
ORDER BY entry_no DESC LIMIT 1;

-- name: epochs
-- Return a session's epochs with the entries that they point at, a page at a time.
SELECT e.epoch, e.reason, e.boundary_no, e.first_kept_no, e.opened_at_ms, e.closed_head_no,
       e.closed_at_ms, h.entry_no AS found_head_no, h.branch_no AS head_branch_no,
       h.boundary_no AS head_boundary_no, b.entry_no AS found_boundary_no, b.type AS boundary_type,
       b.parent_no AS boundary_parent_no, b.first_kept_no AS boundary_kept_no
FROM epoch AS e
LEFT JOIN entry AS h ON h.entry_no = e.closed_head_no
LEFT JOIN entry AS b ON b.entry_no = e.boundary_no
WHERE e.session_no = :session_no AND e.epoch BETWEEN :low_epoch AND :high_epoch
ORDER BY e.epoch LIMIT :limit;

-- name: before_compaction
-- Return the context that was in force before a compaction of a session, by its entry.
SELECT b.boundary_no, b.first_kept_no FROM compaction AS c
JOIN epoch AS b ON b.session_no = c.session_no AND b.epoch = c.epoch - 1
WHERE c.session_no = :session_no AND c.entry_no = :entry_no LIMIT 1;

-- name: after_epoch
-- Return the head at which an epoch ended that had begun with an entry, and the entry after
-- it on its branch, no later than a given one.
SELECT e.closed_head_no, h.branch_no,
       (SELECT n.entry_no FROM entry AS n
        WHERE n.entry_no > h.entry_no AND n.entry_no <= :head_no AND n.branch_no = h.branch_no
        ORDER BY n.entry_no LIMIT 1) AS next_no
FROM epoch AS e JOIN entry AS h ON h.entry_no = e.closed_head_no
WHERE e.session_no = :session_no AND e.epoch = :epoch
  AND e.reason IN ('start', 'compaction', 'reset', 'edit');

-- name: compactions
-- Return a session's jobs with what they committed, a page at a time.
SELECT c.compaction_no, c.compaction_id, c.state, c.base_epoch, c.cut_no, c.late, c.epoch,
       c.in_vain, c.reason, c.deadline_ms, c.deadline_max_ms, c.entry_no,
       s.epoch AS session_epoch, n.entry_no AS found_entry_no, n.type AS entry_type,
       k.branch_no AS cut_branch_no, e.reason AS epoch_reason, e.boundary_no AS epoch_boundary_no
FROM compaction AS c JOIN session AS s ON s.session_no = c.session_no
LEFT JOIN entry AS n ON n.entry_no = c.entry_no
LEFT JOIN entry AS k ON k.entry_no = c.cut_no
LEFT JOIN epoch AS e ON e.session_no = c.session_no AND e.epoch = c.epoch
WHERE c.session_no = :session_no AND c.compaction_no > :after_no
ORDER BY c.compaction_no LIMIT :limit;

-- name: import_files
-- Return the receipts of imports with how much of each exists, a page at a time. The first
-- receipt of a session has its quarantined pieces.
SELECT r.import_file_no, r.path, r.kind, r.lines, r.entries, r.quarantined, r.session_no,
       s.session_id, s.origin, s.last_seq AS session_last_seq,
       coalesce((SELECT min(p.import_file_no) FROM import_file AS p
                 WHERE p.session_no = r.session_no), r.import_file_no) AS first_import_file_no,
       (SELECT count(*) FROM quarantine AS q
        WHERE q.import_file_no = r.import_file_no AND q.byte_offset >= 0) AS found_quarantined,
       (SELECT max(q.line) FROM quarantine AS q
        WHERE q.import_file_no = r.import_file_no) AS last_line
FROM import_file AS r LEFT JOIN session AS s ON s.session_no = r.session_no
WHERE r.import_file_no > :after_no ORDER BY r.import_file_no LIMIT :limit;

-- name: first_receipt
-- Return the first receipt of a session, and the last entry that an early line became.
SELECT r.import_file_no, s.session_id,
       coalesce((SELECT max(q.entry_seq) FROM quarantine AS q
                 WHERE q.import_file_no = r.import_file_no AND q.entry_seq IS NOT NULL), 0)
         AS placed_seq
FROM import_file AS r
JOIN session AS s ON s.session_no = r.session_no
WHERE r.session_no = :session_no ORDER BY r.import_file_no LIMIT 1;

-- name: receipts
-- Return one receipt, and all others of its session, with whether that is archived, and the last
-- entry that an early line became.
SELECT r.import_file_no, r.path, r.bytes, r.lines, r.entries, r.sha256, r.final_newline, r.note,
       s.archived_at_ms,
       coalesce((SELECT max(q.entry_seq) FROM quarantine AS q
                 WHERE q.import_file_no = r.import_file_no AND q.entry_seq IS NOT NULL), 0)
         AS placed_seq
FROM import_file AS r LEFT JOIN session AS s ON s.session_no = r.session_no
WHERE r.import_file_no = :import_file_no OR r.session_no = :session_no ORDER BY r.import_file_no;

-- name: pieces
-- Return the quarantined pieces of a file, a page at a time. The bytes of an early line that
-- became an entry are those of the entry.
SELECT q.line, q.byte_offset, q.after_seq, q.reason, q.severity,
       iif(q.entry_seq IS NOT NULL AND length(q.content) = 0,
           coalesce((SELECT CAST(e.payload AS BLOB) FROM entry AS e
                     WHERE e.entry_no = r.session_no << 32 | q.entry_seq), x''),
           q.content) AS content,
       q.entry_id, q.entry_seq
FROM import_file AS r JOIN quarantine AS q ON q.import_file_no = r.import_file_no
WHERE r.import_file_no = :import_file_no AND q.byte_offset > :after_offset
ORDER BY q.byte_offset LIMIT :limit;

-- name: index
-- Return an imported index file with its receipt. A long one has its content in pieces.
SELECT path, bytes AS size, lines, sha256, state, note, content, head_byte FROM import_file
WHERE import_file_no = :import_file_no AND kind = 'index';

-- name: inbox
-- Return messages with the turns that claimed them last, their entries, and the events
-- that told their senders of their ends, a page at a time. Reads no payload of an entry.
SELECT i.inbox_no, i.session_no, s.session_id, s.archived_at_ms, i.state, i.attempts, i.turn_no,
       CASE WHEN i.state = 'queued' AND i.waits THEN NOT EXISTS (
         SELECT 1 FROM turn AS r WHERE r.session_no = i.session_no AND r.state = 'running')
         AND NOT EXISTS (
         SELECT 1 FROM inbox AS o JOIN lane AS before ON before.lane = o.lane
         WHERE o.session_no = i.session_no AND o.state IN ('queued', 'claimed', 'interrupted')
           AND o.state <> 'interrupted' AND o.lane <> 'resume'
           AND (o.inbox_no < i.inbox_no OR i.lane = 'resume')
           AND before.priority <= (SELECT own.priority FROM lane AS own
                                   WHERE own.lane = coalesce(i.lane_before, i.lane)))
       ELSE 0 END AS waits_in_vain,
       i.restored, i.entry_no, i.superseded_by, i.told_no,
       v.kind AS told_kind, v.audience AS told_audience,
       v.session_no AS told_session_no,
       CASE WHEN json_valid(v.data)
         THEN CAST(coalesce(v.data ->> '$.inbox_no', 0) AS INTEGER) ELSE 0 END AS told_inbox_no,
       e.branch_no AS entry_branch_no, t.state AS turn_state,
       t.inbox_no AS turn_inbox_no, t.session_no AS turn_session_no, t.attempt AS turn_attempt,
       i.heard, i.stops, i.lane, i.lane_before,
       b.lane AS found_lane_before,
       (SELECT d.lane FROM lane AS d WHERE d.lane = coalesce(i.lane_before, i.lane)
          AND d.dropped_at_ms IS NOT NULL) AS dropped_lane, i.digest, e.idempotency_key,
       i.payload IS NOT NULL AS has_text, coalesce(json_valid(i.payload), 0) AS is_json,
       e.type AS found_type
FROM inbox AS i LEFT JOIN session AS s ON s.session_no = i.session_no
LEFT JOIN turn AS t ON t.turn_no = i.turn_no
LEFT JOIN entry AS e ON e.entry_no = i.entry_no
LEFT JOIN event AS v ON v.event_no = i.told_no
LEFT JOIN lane AS b ON b.lane = i.lane_before
WHERE i.inbox_no > :after_no ORDER BY i.inbox_no LIMIT :limit;

-- name: successor
-- Return the message that superseded another one, with its last turn, and its entry: where
-- the context began for it, and what that kept.
SELECT i.session_no, i.state, i.turn_no, i.entry_no, t.state AS turn_state, e.branch_no,
       e.boundary_no, b.first_kept_no
FROM inbox AS i LEFT JOIN turn AS t ON t.turn_no = i.turn_no
LEFT JOIN entry AS e ON e.entry_no = i.entry_no
LEFT JOIN entry AS b ON b.entry_no = e.boundary_no
WHERE i.inbox_no = :inbox_no;

-- name: turns
-- Return turns with the messages that they work on, a page at a time.
SELECT t.turn_no, t.session_no, s.session_id, t.state, t.kind, t.lane, t.inbox_no, t.expires_at_ms,
       t.deadline_ms, i.state AS inbox_state, i.turn_no AS inbox_turn_no,
       i.session_no AS inbox_session_no, CASE WHEN t.state = 'running' THEN
         (SELECT count(*) FROM turn AS o
          WHERE o.session_no = t.session_no AND o.state || '' = 'running') ELSE 0 END AS running
FROM turn AS t LEFT JOIN session AS s ON s.session_no = t.session_no
LEFT JOIN inbox AS i ON i.inbox_no = t.inbox_no
WHERE t.turn_no > :after_no ORDER BY t.turn_no LIMIT :limit;

-- name: outbox
-- Return replies with the turns that wrote them, a page at a time.
SELECT o.outbox_no, o.session_no, s.session_id, o.state, o.turn_no, o.instance_no, o.expires_at_ms,
       o.finished_at_ms, o.target, o.channel, o.attempts, o.attempts_before,
       t.state AS turn_state, t.session_no AS turn_session_no,
       CASE WHEN o.state = 'pending' AND o.waits THEN NOT EXISTS (
         SELECT 1 FROM outbox AS e WHERE e.session_no = o.session_no AND e.channel = o.channel
           AND e.state IN ('pending', 'sending') AND e.outbox_no < o.outbox_no)
       ELSE 0 END AS waits_in_vain
FROM outbox AS o LEFT JOIN session AS s ON s.session_no = o.session_no
LEFT JOIN turn AS t ON t.turn_no = o.turn_no
WHERE o.outbox_no > :after_no ORDER BY o.outbox_no LIMIT :limit;

-- name: cursors
-- Return the consumers that claim to have handled events which were never written.
SELECT c.consumer, c.event_no,
       coalesce((SELECT q.seq FROM sqlite_sequence AS q WHERE q.name = 'event'), 0) AS last_no
FROM event_cursor AS c
WHERE c.event_no > coalesce((SELECT q.seq FROM sqlite_sequence AS q WHERE q.name = 'event'),
                            0) LIMIT :limit;

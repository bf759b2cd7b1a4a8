-- name: meta
-- Return what an agent's database says about itself.
SELECT role, schema_version, agent_id FROM schema_meta WHERE role = 'agent' LIMIT 1;

-- name: windows
-- Return the transcripts: how many rows each has, and the bytes of its text with line ends.
SELECT w.session_id, coalesce(w.transcript_updated_at, w.updated_at) AS updated_at_ms,
       (SELECT count(*) FROM transcript_events AS e WHERE e.session_id = w.session_id) AS events,
       (SELECT max(seq) FROM transcript_events AS e WHERE e.session_id = w.session_id) AS last_seq,
       (SELECT coalesce(sum(coalesce(octet_length(e.event_json), e.event_utf8_bytes) + 1), 0)
        FROM transcript_events AS e WHERE e.session_id = w.session_id) AS bytes
FROM session_windows AS w ORDER BY w.created_at, w.session_id;

-- name: windows_before_zstd
-- Return the same of a schema whose rows are never compressed.
SELECT w.session_id, w.updated_at AS updated_at_ms,
       (SELECT count(*) FROM transcript_events AS e WHERE e.session_id = w.session_id) AS events,
       (SELECT max(seq) FROM transcript_events AS e WHERE e.session_id = w.session_id) AS last_seq,
       (SELECT coalesce(sum(octet_length(e.event_json) + 1), 0)
        FROM transcript_events AS e WHERE e.session_id = w.session_id) AS bytes
FROM session_windows AS w ORDER BY w.session_id;

-- name: sizes
-- Return the sizes of the next rows of a transcript, so that a page can be bounded in bytes.
SELECT seq, coalesce(octet_length(event_json), event_utf8_bytes) + 1 AS bytes
FROM transcript_events WHERE session_id = :session_id AND seq > :after_seq
ORDER BY seq LIMIT :limit;

-- name: sizes_before_zstd
-- Return the same of a schema whose rows are never compressed.
SELECT seq, octet_length(event_json) + 1 AS bytes
FROM transcript_events WHERE session_id = :session_id AND seq > :after_seq
ORDER BY seq LIMIT :limit;

-- name: texts
-- Return a range of rows of a transcript. The text of each is a line of its JSONL file. It
-- may be compressed.
SELECT seq, CAST(event_json AS BLOB) AS text, event_zstd AS packed, event_utf8_bytes AS bytes
FROM transcript_events
WHERE session_id = :session_id AND seq > :after_seq AND seq <= :last_seq ORDER BY seq;

-- name: texts_before_zstd
-- Return the same of a schema whose rows are never compressed.
SELECT seq, CAST(event_json AS BLOB) AS text, NULL AS packed, NULL AS bytes
FROM transcript_events
WHERE session_id = :session_id AND seq > :after_seq AND seq <= :last_seq ORDER BY seq;

-- name: nodes
-- Return the keys, each with the transcript that it names and OpenClaw's own fields.
-- -1 marks a deleted one.
SELECT session_key, current_session_id, entry_valid, CAST(entry_json AS BLOB) AS entry
FROM session_nodes ORDER BY session_key;

-- name: archives
-- Return the transcripts that were reset or deleted, without their content.
SELECT rowid AS archive_no, archive_name, length(archive_blob) AS bytes, created_at AS created_at_ms
FROM session_transcript_archives ORDER BY archive_name;

-- name: archive
-- Return the content of one of them, and the SHA-256 of these bytes.
SELECT encoding, archive_sha256, archive_blob AS content
FROM session_transcript_archives WHERE rowid = :archive_no;

-- name: cold
-- Return the transcripts in cold storage, without their content.
SELECT session_id, generation, archive_name, archive_sha256, event_count, last_seq,
       raw_bytes + 1 AS bytes, storage
FROM session_transcript_cold_archives ORDER BY session_id;

-- name: cold_content
-- Return the content of one of them, if it lies in the database.
SELECT archive_blob AS content
FROM session_transcript_cold_archives WHERE session_id = :session_id;

-- name: pending
-- Return how many messages were accepted and are in no transcript yet.
SELECT count(*) AS messages FROM session_pending_inputs
WHERE state <> 'cancelled' AND consumed_event_id IS NULL;

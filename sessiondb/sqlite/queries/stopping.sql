-- name: texts
-- Return a message, and those of its edits that turns read on their own, with the turn that
-- had each last.
SELECT inbox_no, session_no, state, turn_no FROM inbox WHERE inbox_no = :inbox_no
UNION ALL
SELECT inbox_no, session_no, state, turn_no FROM inbox WHERE edit_of = :inbox_no
ORDER BY inbox_no;

-- name: text
-- Return a message by itself.
SELECT inbox_no, session_no, state, turn_no FROM inbox WHERE inbox_no = :inbox_no;

-- name: withdraw, one row or none
-- Withdraw a message that waits: -> done, with the event that tells its sender.
UPDATE inbox SET state = 'done', told_no = :told_no, reason = 'its sender took it back'
WHERE inbox_no = :inbox_no AND state IN ('queued', 'interrupted', 'heard');

-- name: ended
-- Return the turns of a JSON array that run no more.
SELECT turn_no FROM turn
WHERE turn_no IN (SELECT value FROM json_each(:turns)) AND state <> 'running';

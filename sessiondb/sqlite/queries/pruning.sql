-- name: outbox
-- Return the next replies by number: whether each is sent and older than a time, and
-- whether it is younger. One of the future is neither. One that forwarded an event stays while
-- the event may be delivered to its reader again.
SELECT o.outbox_no AS no,
       o.state = 'sent' AND o.created_at_ms < :before_ms
         AND NOT EXISTS (SELECT 1 FROM event AS e
                         LEFT JOIN event_cursor AS c ON c.consumer = o.consumer
                         WHERE e.event_no = o.event_no
                           AND e.event_no > coalesce(c.event_no, 0)) AS prunable,
       o.created_at_ms BETWEEN :before_ms AND :now_ms AS young
FROM outbox AS o WHERE o.outbox_no > :after_no ORDER BY o.outbox_no LIMIT :limit;

-- name: delete_outbox, any rows
-- Delete sent replies.
DELETE FROM outbox WHERE outbox_no IN (SELECT value FROM json_each(:numbers)) AND state = 'sent';

-- name: inbox
-- Return the next messages by number, likewise for done ones, and for those that were heard
-- and after which nobody addressed the agent. Dead letters wait for a person, whatever their
-- age.
SELECT inbox_no AS no, state IN ('done', 'heard') AND accepted_at_ms < :before_ms AS prunable,
       accepted_at_ms BETWEEN :before_ms AND :now_ms AS young
FROM inbox WHERE inbox_no > :after_no ORDER BY inbox_no LIMIT :limit;

-- name: delete_inbox, any rows
-- Delete done messages, and such ones.
DELETE FROM inbox WHERE inbox_no IN (SELECT value FROM json_each(:numbers))
  AND state IN ('done', 'heard');

-- name: turn
-- Return the next turns by number, likewise for ended ones whose message is pruned
-- already. So a message that exists has its turns.
SELECT t.turn_no AS no, t.state <> 'running' AND t.started_at_ms < :before_ms
         AND NOT EXISTS (SELECT 1 FROM inbox AS i WHERE i.inbox_no = t.inbox_no) AS prunable,
       t.started_at_ms BETWEEN :before_ms AND :now_ms AS young
FROM turn AS t WHERE t.turn_no > :after_no ORDER BY t.turn_no LIMIT :limit;

-- name: delete_turn, any rows
-- Delete ended turns.
DELETE FROM turn WHERE turn_no IN (SELECT value FROM json_each(:numbers)) AND state <> 'running';

-- name: event
-- Return the next events by number, likewise for all, handled or not, that no message
-- has as the event of its end. So a sender can see it as long as the message is there.
SELECT event_no AS no,
       at_ms < :before_ms
         AND NOT EXISTS (SELECT 1 FROM inbox AS i WHERE i.told_no = event_no) AS prunable,
       at_ms BETWEEN :before_ms AND :now_ms AS young
FROM event WHERE event_no > :after_no ORDER BY event_no LIMIT :limit;

-- name: delete_event, any rows
-- Delete events that no message has as the event of its end.
DELETE FROM event WHERE event_no IN (SELECT value FROM json_each(:numbers))
  AND NOT EXISTS (SELECT 1 FROM inbox AS i WHERE i.told_no = event_no);

-- name: renew, one row
-- Give the database a new name, and keep the one that it continues. The first commit of
-- each WAL does so.
UPDATE wal_link SET previous = current, current = :current
WHERE link_no = 1;

-- name: current
-- Return the name of the database.
SELECT current FROM wal_link WHERE link_no = 1;

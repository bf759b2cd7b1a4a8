-- What takes the space of the file (maintenance/disk.py).

-- name: can_measure
-- Return whether this SQLite can count the pages of a table.
SELECT count(*) AS can FROM pragma_compile_options WHERE compile_options = 'ENABLE_DBSTAT_VTAB';

-- name: objects
-- Return the tables and indexes that have pages.
SELECT name, tbl_name AS table_name FROM sqlite_schema WHERE rootpage > 0 ORDER BY name;

-- name: pages
-- Return the bytes of the pages of one table or index. It reads each of them.
SELECT coalesce(sum(pgsize), 0) AS bytes FROM dbstat WHERE name = :name AND aggregate = TRUE;

-- name: archived
-- Return the bytes of the chunks of archives, as their rows count them.
SELECT coalesce(sum(bytes_stored), 0) AS bytes FROM archive;

-- name: encoding
-- Return the encoding of the texts of a file.
SELECT encoding FROM pragma_encoding;

-- name: columns
-- Return the columns of each table. Views and virtual tables are none: what they return
-- is for a file's author to decide.
SELECT t.name AS table_name, c.name AS column_name
FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
WHERE t.type = 'table' AND t.sql NOT LIKE 'CREATE VIRTUAL%';

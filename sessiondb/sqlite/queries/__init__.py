"""The named SQL statements of the SQLite engine, one file per concept."""

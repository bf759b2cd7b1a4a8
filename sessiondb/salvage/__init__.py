"""A damaged file becomes a new database. Only the façade and the command line use this package."""

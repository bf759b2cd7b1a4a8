"""A damaged file becomes a new database. Nothing but the façade and the command line depends on it."""

"""Transcripts in and out of the database as files: import, export, comparison, redaction."""

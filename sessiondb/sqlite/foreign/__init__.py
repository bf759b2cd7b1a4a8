"""Statements over the databases of other programs, one file per program."""

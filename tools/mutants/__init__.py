"""`make mutants`. See `__main__.py`."""

"""The judges of the adapters: the tests that the frameworks ship themselves.

`frameworks.py` has the pinned releases and the test files. `runs.py` installs a release into an
environment of its own, unpacks its source distribution, and runs its tests with the framework's
own store replaced by the adapter (`plugins/`). `inside.toml` lists the tests that reach into the
framework's own store. `make adapters` runs all of it (`__main__.py`).
"""

"""Fixtures of all tests.

* `anyio_backend`: a test marked `@pytest.mark.anyio` runs twice, under asyncio and
  under trio. In a module marked `one_loop` it runs once.
* `tmp_db`: a path for a database that does not exist yet, in a folder of its own.
* `sample`: the project's own transcripts (tests/sample), always there.
* `nothing_left`: fails a test that leaves a file of its folder open, or a thread of ours
  alive.
* `rows_are_what_their_classes_say`: compares every row that a test reads with what mypy
  takes it for.
* `gate`: stops the writer where a test wants it (tests/support/cancellation.py).
* `corpus`: the large collection of real transcripts beside the checkout. Without it the
  test is skipped. It has the layout of `sample`.
* `transcripts`: `sample`, then `corpus` if there is one.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from sessiondb.paging import Page
from sessiondb.sqlite import transaction
from tests import ROOT, TESTS
from tests.proofs.models.machine import LONG
from tests.support import row_types
from tests.support.leaks import open_files, our_threads

# Plugins, so that their fixtures are there for every test.
pytest_plugins = ["tests.support.cancellation", "tests.support.damaged_databases"]

SAMPLE = TESTS / "sample"
CORPUS = ROOT.parent / "shared" / "corpus"

# Children of the tests find this checkout's package and tests.
os.environ["PYTHONPATH"] = str(ROOT)
# Commands that are given no database say so, whatever whoever runs the tests has set.
os.environ.pop("SESSIONDB", None)

# A shell ignores Ctrl-C for what it starts in the background. So would every child of these tests.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis would fail an example for being slow (200 ms by default): a timed
# assertion, on a machine that is shared. `make test` draws the same examples each time, so that
# it judges a change and not its luck. `make models` draws new ones.
settings.register_profile("sessiondb", deadline=None, print_blob=True, derandomize=not LONG)
settings.load_profile("sessiondb")


EVERY_LOOP = os.environ.get("SESSIONDB_LOOPS") == "all"
"""`make loops`: also the second loop of tests that have nothing to do with one."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out repetitions, and put the files with slow tests first.

    So no worker begins one of those when the others end.
    """
    if not EVERY_LOOP:
        again = [item for item in items if item.get_closest_marker("one_loop") and _on_trio(item)]
        config.hook.pytest_deselected(items=again)
        items[:] = [item for item in items if item not in set(again)]
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from walking half a million objects of pytest, for each test."""
    gc.collect()
    gc.freeze()


def _on_trio(item: pytest.Item) -> bool:
    call = getattr(item, "callspec", None)
    return call is not None and call.params.get("anyio_backend") == "trio"


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each async test under both event loops.

    Module scope, so that async fixtures may be as wide.
    """
    backend: str = request.param
    return backend


@pytest.fixture
def tmp_db(tmp_path: Path) -> Path:
    """Return where a new database may be made.

    Neither the file nor its folder's other files exist.
    """
    return tmp_path / "gateway.db"


@pytest.fixture
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """Compare descriptors and threads with what there was before.

    Asked for first, it looks when everything else has been closed.
    """
    before = our_threads()
    yield
    gc.collect()  # a traceback may hold what it went through
    assert open_files(tmp_path) == [], "left open"
    assert our_threads() - before == set(), "left alive"


@pytest.fixture(scope="session")
def sample() -> Path:
    """Return the folder of the project's own transcripts."""
    return SAMPLE


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Return the folder of the large corpus, or skip."""
    if not CORPUS.is_dir():
        pytest.skip(
            "the large corpus is not beside this checkout (../shared/corpus); tests/sample "
            "covers the essentials"
        )
    return CORPUS


@pytest.fixture(scope="session", params=["sample", "corpus"])
def transcripts(request: pytest.FixtureRequest) -> Path:
    """Return the sample, then the corpus.

    For tests that hold for any folder of real transcripts.
    """
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(autouse=True, scope="module")
def rows_are_what_their_classes_say(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare the rows that this process reads with sessiondb/statements.pyi.

    Not in a module marked `damaged_values`.
    """
    read, read_page = transaction.Snapshot.all, transaction.Snapshot.page

    def checked(self: transaction.Snapshot, statement: str, /, **params: Any) -> list[Any]:
        rows = read(self, statement, **params)
        row_types.check(statement, rows)
        return rows

    def checked_page(self: transaction.Snapshot, statement: str, /, **params: Any) -> Page[Any]:
        page = read_page(self, statement, **params)
        row_types.check(statement, page.rows)
        return page

    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("damaged_values") is None:
            patch.setattr(transaction.Snapshot, "all", checked)
            patch.setattr(transaction.Snapshot, "page", checked_page)
        yield

"""Fixtures of the benchmarks, and the table that a run ends with.

How they measure: `measure.py`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from floor import Raw
from measure import ASSISTANT_MESSAGE, HISTORY, SMOKE, USER_MESSAGE, Bench, Line, history_key

import sessiondb

_RESULTS = pytest.StashKey[list[Line]]()
_BUILD_BATCH = 500


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(_RESULTS, [])
    if not lines:
        return
    rows = [
        ("what", "floor", "sessiondb", "ratio", "target", "met?"),
        *(line.cells() for line in lines),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    terminalreporter.section(
        "sessiondb beside its raw floor"
        + (" (smoke: sizes too small to mean anything)" if SMOKE else "")
    )
    for what, *figures in rows:
        aligned = [cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True)]
        terminalreporter.write_line("  ".join((what.ljust(widths[0]), *aligned)).rstrip())


@pytest.fixture
def bench(benchmark: Any, request: pytest.FixtureRequest) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        yield Bench(benchmark, runner, request.config.stash.setdefault(_RESULTS, []))


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Raw]:
    with Raw(tmp_path / "floor.db") as floor:
        yield floor


@pytest.fixture
def db(bench: Bench, tmp_path: Path) -> Iterator[sessiondb.SessionDB]:
    """An empty database on the same file system as the floor, with default settings."""
    opened = bench.run(sessiondb.open(tmp_path / "gateway.db").__aenter__())
    yield opened
    bench.run(opened.close())


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database with one session per size of HISTORY, its key ending in that size.

    Built once, and removed at the end: it has a gigabyte. A benchmark compacts a
    session of it once at most. What needs the whole history forks it at epoch 0.
    """
    folder = tmp_path_factory.mktemp("history")
    asyncio.run(_build_history(folder / "gateway.db"))
    yield folder / "gateway.db"
    shutil.rmtree(folder)


async def _build_history(path: Path) -> None:
    async with sessiondb.open(path, durability="normal") as db:
        for entries in HISTORY:
            session = await db.session(history_key(entries))
            for start in range(0, entries, _BUILD_BATCH):
                count = min(_BUILD_BATCH, entries - start)
                await session.append_many(
                    [
                        USER_MESSAGE if number % 2 == 0 else ASSISTANT_MESSAGE
                        for number in range(count)
                    ]
                )


@pytest.fixture
def history_db(bench: Bench, history: Path) -> Iterator[sessiondb.SessionDB]:
    opened = bench.run(sessiondb.open(history).__aenter__())
    yield opened
    bench.run(opened.close())

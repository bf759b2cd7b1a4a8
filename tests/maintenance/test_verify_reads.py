"""The steps of `verify` share short snapshots, and a snapshot stays short."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.errors import StoreBusy
from sessiondb.maintenance import (
    verify,
    verify_reads,
    verify_receipts,
    verify_search,
    verify_steps,
    verify_text,
)
from sessiondb.maintenance.verify_reads import Reads
from sessiondb.maintenance.verify_steps import Steps
from tests.support.core import change
from tests.support.world import world_file


class Counted:
    """A backend that counts its reads, and fails some of them before they begin."""

    def __init__(
        self, backend: Any, fails: Callable[[int], Exception | None] = lambda _: None
    ) -> None:
        self._backend = backend
        self._fails = fails
        self.reads = 0

    def stats(self) -> Any:
        return self._backend.stats()

    async def read(self, fn: Any, *, op: str) -> Any:
        self.reads += 1
        if (error := self._fails(self.reads)) is not None:
            raise error
        return await self._backend.read(fn, op=op)


class Ticking:
    """A clock on which each look takes a millisecond."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.looks / 1000


def walk_of(names: str, done: list[str], failing: str = "") -> Steps:
    """Yield a step for each letter. Those of `failing` raise, and the walk goes on."""
    for name in names:
        try:
            yield lambda tx, name=name: run_step(tx, name, done, failing)
        except ValueError as error:
            done.append(f"<{error}>")


def run_step(tx: Any, name: str, done: list[str], failing: str) -> None:
    tx.all("verify.lanes")  # the snapshot is open
    if name in failing:
        raise ValueError(name)
    done.append(name)


@pytest.mark.anyio
async def test_what_is_found_does_not_depend_on_shared_reads(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(
        broken,
        "UPDATE session SET context_tokens = 1 WHERE session_id = 'fork'",
        "UPDATE entry SET position = 9 WHERE entry_no = (1 << 32) + 5",
        "UPDATE entry SET payload = '{' WHERE entry_no = (1 << 32) + 8",
    )
    async with sessiondb.open(broken, readonly=True) as db:
        alone, together = Counted(db.backend), Counted(db.backend)
        monkeypatch.setattr(verify_reads, "SHARED_S", 0.0)
        found = await verify.run(alone, None, deep=True)  # type: ignore[arg-type]
        monkeypatch.setattr(verify_reads, "SHARED_S", math.inf)
        assert await verify.run(together, None, deep=True) == found  # type: ignore[arg-type]
    assert {"context_tokens", "position", "payload"} <= {one.check for one in found.findings}
    assert together.reads == 1
    assert alone.reads > 100


@pytest.mark.anyio
@pytest.mark.parametrize("rows", [1, 2])
async def test_pages_of_few_rows_find_what_one_page_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    path = world_file(tmp_path / "world.db")
    async with sessiondb.open(path) as db:
        await db.build_search()
    change(
        path,
        "UPDATE import_file SET sha256 = 'no' WHERE name = 'west/odd.jsonl'",
        "INSERT INTO search (rowid, text) VALUES (7, 'nobody'), (8, 'nobody')",
        "DELETE FROM search_session WHERE session_no > 5",
    )
    async with sessiondb.open(path, readonly=True) as db:
        whole = await db.verify(deep=True)
        for module in (verify_receipts, verify_search, verify_steps, verify_text):
            monkeypatch.setattr(module, "PAGE_ROWS", rows)
        assert (await db.verify(deep=True)).findings == whole.findings
    found = Counter(finding.check for finding in whole.findings)
    assert found["source"] == 1
    assert found["search"] > 3


@pytest.mark.anyio
@pytest.mark.parametrize("redacted", ["west/clean.jsonl", "west/clean.jsonl.link"])
async def test_receipts_of_redacted_bytes_are_not_compared(tmp_path: Path, redacted: str) -> None:
    """Neither a redacted one, nor any whose session's first one is."""
    path = world_file(tmp_path / "world.db")
    change(
        path,
        "UPDATE import_file SET sha256 = 'no' WHERE name GLOB 'west/clean*'",
        f"UPDATE import_file SET note = 'redacted at import' WHERE name = '{redacted}'",
    )
    async with sessiondb.open(path) as db:
        found = (await db.verify()).findings
    is_first = redacted == "west/clean.jsonl"
    assert [one.message.split()[3] for one in found] == (
        [] if is_first else ["/imports/west/clean.jsonl"]
    )


@pytest.mark.anyio
async def test_the_first_row_of_a_walk_is_looked_at(tmp_path: Path) -> None:
    path = world_file(tmp_path / "world.db")
    change(path, "UPDATE event SET data = '{' WHERE event_no = 1")
    async with sessiondb.open(path) as db:
        found = (await db.verify()).findings
    assert any(one.message.startswith("the data of event 1 are not JSON") for one in found)


@pytest.mark.anyio
async def test_a_snapshot_ends_when_it_is_too_old_for_a_step(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_reads, "monotonic", Ticking())
    done: list[str] = []
    async with sessiondb.open(tmp_db) as db:
        counted = Counted(db.backend)
        await Reads(counted, walk_of("abcdefghijkl", done)).run()  # type: ignore[arg-type]
    assert "".join(done) == "abcdefghijkl"
    assert counted.reads == 3  # five steps of a millisecond in each


@pytest.mark.anyio
async def test_a_step_that_fails_ends_its_read_and_no_other_step(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_reads, "SHARED_S", math.inf)
    done: list[str] = []
    async with sessiondb.open(tmp_db) as db:
        counted = Counted(db.backend)
        await Reads(counted, walk_of("abcdef", done, failing="cf")).run()  # type: ignore[arg-type]
    assert done == ["a", "b", "<c>", "d", "e", "<f>"]
    assert counted.reads == 2


@pytest.mark.anyio
async def test_a_refused_read_is_tried_again_with_the_step_that_is_due(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_reads, "monotonic", Ticking())
    done: list[str] = []
    busy = StoreBusy("a moment", retry_after_ms=0)
    async with sessiondb.open(tmp_db) as db:
        counted = Counted(db.backend, lambda read: busy if read in (1, 3) else None)
        await Reads(counted, walk_of("abcdefgh", done)).run()  # type: ignore[arg-type]
    assert "".join(done) == "abcdefgh"
    assert counted.reads == 4

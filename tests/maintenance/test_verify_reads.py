"""The steps of `verify` share short snapshots, and a snapshot stays short."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.errors import StoreBusy
from sessiondb.maintenance import verify, verify_reads
from sessiondb.maintenance.verify_reads import Reads
from sessiondb.maintenance.verify_steps import Steps
from tests.support.core import change


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

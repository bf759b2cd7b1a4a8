"""The connection that writes: it fails, is opened again, and is closed on a failing disk."""

from __future__ import annotations

from pathlib import Path

import anyio
import apsw
import pytest

from sessiondb.errors import OutcomeUnknown, StoreBusy, outcome_of
from sessiondb.sqlite import SqliteBackend
from tests.support.disk import Faults
from tests.support.engine import count, insert, opened

pytestmark = pytest.mark.anyio


async def test_while_the_file_cannot_be_reopened_reads_continue(
    tmp_db: Path, faults: Faults
) -> None:
    async with opened(tmp_db) as backend:
        await backend.write(insert("before"), op="append")
        assert await count(backend, "before") == 1  # one reader is connected
        faults.sync = apsw.IOError
        with pytest.raises(OutcomeUnknown):
            await backend.write(insert("during"), op="append")
        faults.open = apsw.CantOpenError
        with pytest.raises(
            StoreBusy, match=r"failed and cannot be opened again yet .*check the disk"
        ) as busy:
            await backend.write(insert("refused"), op="append")
        assert outcome_of(busy.value) == "not_executed"
        assert not backend.stats()["writer"]["connected"]
        faults.heal()

        async def insist() -> None:
            while True:
                try:
                    await backend.write(insert("after"), op="append")
                    return
                except StoreBusy as error:
                    await anyio.sleep(error.retry_after_ms / 1000)

        with anyio.fail_after(30):
            await insist()
        assert [await count(backend, name) for name in ("before", "refused", "after")] == [1, 0, 1]


async def test_a_closed_disk_does_not_keep_the_database_from_closing(
    tmp_db: Path, faults: Faults
) -> None:
    backend = await SqliteBackend.open(tmp_db)
    await backend.write(insert("x"), op="append")
    faults.write = apsw.FullError
    with anyio.fail_after(30):
        await backend.close()
    faults.heal()
    async with opened(tmp_db) as again:
        assert await count(again, "x") == 1

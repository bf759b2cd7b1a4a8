"""`verify` looks at each session, at its texts, and at the rows of no session."""

from __future__ import annotations

from pathlib import Path

import pytest

import sessiondb
from tests.support.core import change
from tests.support.world import world_file

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


async def test_a_fork_whose_branch_leaves_itself_ends_the_walk(tmp_path: Path) -> None:
    path = world_file(tmp_path / "world.db")
    change(
        path,
        "UPDATE branch SET parent_branch_no = branch_no, fork_no = first_no WHERE session_no ="
        " (SELECT session_no FROM session WHERE session_id = 'twin-fork')",
    )
    async with sessiondb.open(path) as db:
        found = (await db.verify()).findings
    assert {"branch", "fork"} & {one.check for one in found}


async def test_the_first_row_of_a_walk_is_looked_at(tmp_path: Path) -> None:
    path = world_file(tmp_path / "world.db")
    change(path, "UPDATE event SET data = '{' WHERE event_no = 1")
    async with sessiondb.open(path) as db:
        found = (await db.verify()).findings
    assert any(one.message.startswith("the data of event 1 are not JSON") for one in found)


async def test_a_reply_of_an_epoch_before_may_be_without_the_count_of_its_text(
    tmp_path: Path,
) -> None:
    """It can have been asked for in another epoch than the one that it stands in."""
    path = world_file(tmp_path / "world.db")
    change(path, "UPDATE entry SET usage_tokens = NULL WHERE usage_tokens = 500")
    async with sessiondb.open(path) as db:
        assert (await db.verify(deep=True)).findings == ()


@pytest.mark.parametrize("version", [2, 3])
async def test_a_boundary_that_keeps_nothing_names_no_entry_that_it_could_keep(
    tmp_path: Path, version: int
) -> None:
    path = world_file(tmp_path / "world.db")
    change(
        path,
        f"UPDATE session SET version = {version} WHERE session_id = 'twin'",
        "UPDATE entry SET first_kept_no = NULL WHERE type = 'compaction' AND entry_no >> 32 ="
        " (SELECT session_no FROM session WHERE session_id = 'twin')",
    )
    async with sessiondb.open(path) as db:
        found = (await db.verify(deep=True)).findings
    assert ("twin", "first_kept") in {(one.session_id, one.check) for one in found}

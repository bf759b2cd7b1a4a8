"""A module that runs on one event loop has nothing to do with loops."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import TESTS

MARK = "pytest.mark.one_loop"
# What the two loops do in ways of their own: waits, cancellation, tasks, threads.
OF_A_LOOP = re.compile(
    r"\b(CancelScope|move_on_after|fail_after|create_task_group|cancel\(|start_soon|to_thread"
    r"|current_time|other_process|until\(|anyio_backend|trio|asyncio)"
)


def marked() -> list[Path]:
    here = Path(__file__)
    return [file for file in TESTS.rglob("test_*.py") if file != here and MARK in file.read_text()]


@pytest.mark.parametrize("file", marked(), ids=lambda file: str(file.relative_to(TESTS)))
def test_what_runs_on_one_loop_uses_nothing_of_it(file: Path) -> None:
    found = OF_A_LOOP.findall(file.read_text("utf-8"))
    assert found == [], f"{file.name} uses {found}: take its mark one_loop away"


@pytest.mark.one_loop
@pytest.mark.anyio
async def test_such_a_test_runs_under_asyncio_unless_all_are_asked_for(
    anyio_backend_name: str, request: pytest.FixtureRequest
) -> None:
    assert anyio_backend_name == "asyncio" or request.config.option.markexpr == "one_loop"

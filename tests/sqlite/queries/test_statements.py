"""Every named statement in the populated world: what it changes, and what it returns.

The cases of `queries/inbox.sql` are in `inbox.py` beside this file, and so on.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.statement_cases import ROWS_MAX, Change, Guard, Page, Read
from tests.support.world import World

MODULES = [
    importlib.import_module(f"{__package__}.{found.name}")
    for found in pkgutil.iter_modules([str(Path(__file__).parent)])
    if not found.name.startswith(("test_", "conftest"))
]


def table(name: str) -> list[Any]:
    """Return a table of cases, of all files together."""
    return [case for module in MODULES for case in getattr(module, name, ())]


@pytest.mark.parametrize("case", table("CHANGES"), ids=str)
def test_a_rule_changes_its_rows_and_no_other(world: World, case: Change) -> None:
    assert case.made(world) == case.expected(world)


@pytest.mark.parametrize("case", table("GUARDS"), ids=str)
def test_a_row_in_another_state_stays(world: World, case: Guard) -> None:
    assert case.found(world) == case.expected(world) != {}


@pytest.mark.parametrize("case", table("PAGES"), ids=str)
def test_pages_together_are_all_rows_in_order(world: World, case: Page) -> None:
    expected = case.expected(world)
    assert len(expected) >= 3
    for limit in (1, 2, ROWS_MAX):
        assert case.read(world, limit) == expected


@pytest.mark.parametrize("case", table("READS"), ids=str)
def test_a_read_returns_these_rows(world: World, case: Read) -> None:
    assert case.found(world) == case.expected(world)

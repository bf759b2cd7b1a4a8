"""Every named statement in the populated world: what it changes, and what it returns.

The cases of `queries/inbox.sql` are in `inbox.py` beside this file, and so on.
"""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from sessiondb.backend import load_statements
from tests.support.statement_cases import ROWS_MAX, Change, Guard, Page, Read
from tests.support.world import World

STATEMENTS = load_statements("sessiondb.sqlite.queries")
FILES = sorted({name.partition(".")[0] for name in STATEMENTS})
# A file without its module of cases fails here.
MODULES = [importlib.import_module(f"{__package__}.{name}") for name in FILES]

# These statements return a bounded part, and nobody asks for the part behind it.
NO_PAGE_BEHIND = {
    "inbox.heard": "a claim takes all that may wait",
    "inbox.heard_weight": "a count",
    "turns.open_in_lane": "what was returned is moved, and not returned again",
    "history.in_context": "read from one number on (tests/cli/test_history.py)",
    "status.channels": "those with most replies, for a person",
    "channels.outwaited": "what was returned is given up, and not returned again",
    "compaction.recent": "the newest jobs, for the cool-down",
    "deletion.indexes": "some, for a person",
    "early_lines.next": "what was returned is placed, and not returned again",
    "deletion.waiting": "what was returned is taken back, and not returned again",
    "events.of_session": "the newest events",
    "inbox.late": "what was returned is marked, and not returned again",
    "inbox.waiting_in_lane": "a count up to the limit",
    "inbox.ahead": "a count up to the limit",
    "inbox.waiting_in_session": "a count up to the limit",
    "outbox.of_instance": "what was returned is released, and not returned again",
    "outbox.overdue": "what was returned is given up, and not returned again",
    "recovery.overdue_compactions": "what was returned is ended, and not returned again",
    "listing.of_agent": "some, to tell whether they are few",
    "listing.of_keys": "some, to tell whether they are few",
    "listing.of_namespace": "some, to tell whether they are few",
    "recovery.running_compactions": "what was returned is given up, and not returned again",
    "search.behind": "what was returned is put into the index, and not returned again",
    "search.archives": "read from one number on (tests/transcript/test_search.py)",
    "search.matches": "read from one number on (tests/transcript/test_search.py)",
    "search.missing": "findings of one page of entries",
    "search.texts": "read from one number on (tests/transcript/test_search.py)",
    "search.documents": "the index has tables of its own (tests/transcript/test_search.py)",
    "session_ids.by_prefix": "the first, to tell whether one is alone",
    "status.branches": "the first, for a person",
    "status.processes": "the newest, for a person",
    "status.running": "the oldest, for a person",
    "status.stuck": "some, for a person",
    "turns.expired": "what was returned is interrupted, and not returned again",
    "turns.of_instance": "what was returned is interrupted, and not returned again",
    "verify.broken_rules": "some findings",
    "verify.cursors": "some findings",
    "verify.foreign_keys": "some findings",
    "verify.odd_instances": "some findings",
    "verify.odd_pauses": "some findings",
}


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


def names(*tables: str) -> set[str]:
    return {case.statement for name in tables for case in table(name)}


def test_every_statement_that_changes_rows_has_a_case() -> None:
    changing = {name for name, found in STATEMENTS.items() if found.changes is not None}
    assert changing - names("CHANGES") == set()


def test_every_statement_that_returns_a_page_has_a_case() -> None:
    paged = {
        name
        for name, found in STATEMENTS.items()
        if ":limit" in found.sql and found.changes is None
    }
    assert paged == names("PAGES") | NO_PAGE_BEHIND.keys()


def test_every_case_names_a_statement() -> None:
    assert names("CHANGES", "GUARDS", "PAGES", "READS") <= STATEMENTS.keys()

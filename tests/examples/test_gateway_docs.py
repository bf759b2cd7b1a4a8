"""The README and docs/ tell the truth about gateways.

The example runs, and commands, calls and events exist.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

import sessiondb
import sessiondb.sync
from sessiondb.cli import program
from sessiondb.words import EventKind
from tests import ROOT
from tests.support import pages

README = ROOT / "README.md"
GUIDE = pages.DOCS / "gateway.md"
EVENTS = pages.DOCS / "reference" / "events.md"
SAID = "".join(page.read_text(encoding="utf-8") for page in (README, GUIDE, EVENTS, *pages.RUN))
"""What people read about commands and calls."""


def test_every_python_block_of_the_guide_is_python() -> None:
    blocks = pages.blocks(GUIDE, "python")
    assert len(blocks) >= 2
    for block in blocks:
        indented = "".join(f"    {line}\n" for line in block.text.splitlines())
        compile(f"async def block():\n{indented}", "docs/gateway.md", "exec")


def listed(page: Path) -> set[str]:
    """Return the kinds of event in a page's tables: what their first cells name."""
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)*) \| (?:user|operator)",
        page.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return {kind for row in rows for kind in re.findall(r"\w+", row)}


def test_every_kind_of_event_is_emitted_somewhere() -> None:
    sources = (path for path in (ROOT / "sessiondb").rglob("*.py") if path.stem != "words")
    package = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert [kind for kind in get_args(EventKind) if f'"{kind}"' not in package] == []


@pytest.mark.parametrize("page", [GUIDE, EVENTS], ids=lambda page: page.stem)
def test_a_page_lists_every_kind_of_event(page: Path) -> None:
    kinds = set(get_args(EventKind))
    assert kinds == listed(page)


def test_the_two_lists_of_events_are_of_the_same_kinds() -> None:
    assert listed(GUIDE) == listed(EVENTS)


def test_the_commands_that_the_pages_name_exist() -> None:
    named = set(re.findall(r"^\$ (?:echo .* \| )?sessiondb ([\w-]+)", SAID, re.MULTILINE))
    named |= set(re.findall(r"`sessiondb ([\w-]+)", SAID))
    assert {"held", "events", "resume", "dead", "outbox", "inbox"} <= named
    assert named <= set(program.commands)


@pytest.mark.parametrize(
    ("name", "owner"), [("db", sessiondb.SessionDB), ("session", sessiondb.Session)]
)
def test_the_calls_that_the_pages_name_exist(name: str, owner: type) -> None:
    text = SAID + (pages.DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    called = set(re.findall(rf"\b{name}\.(\w+)\(", text))
    assert len(called) > 8
    assert {call for call in called if not hasattr(owner, call)} == set()

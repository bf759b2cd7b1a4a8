"""The site of docs/, unbuilt (`make docs` builds it): all is in the reference, all pages exist."""

from __future__ import annotations

import inspect
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import sessiondb
import sessiondb.sync
import sessiondb.testing
from docs.tools import diagrams, generated, schema
from sessiondb.cli import TASKS, program
from tests import ROOT
from tests.support import pages

ALL = sorted(pages.DOCS.rglob("*.md"))
REFERENCE = "\n".join(
    generated.expand(page.read_text(encoding="utf-8"))
    for page in sorted((pages.DOCS / "reference").glob("*.md"))
)
OBJECTS = re.findall(r"^::: (\S+)$", REFERENCE, re.MULTILINE)
DIAGRAMS = [block.text for page in ALL for block in pages.blocks(page, "mermaid")]


def test_every_command_has_one_section_in_the_reference() -> None:
    page = generated.expand(
        (pages.DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    )
    usages = re.findall(r"^### ([\w-]+)\n\n```text\nsessiondb \1 ", page, re.MULTILINE)
    assert sorted(usages) == sorted(program.commands)


def test_the_reference_shows_a_commands_options_as_help_does() -> None:
    page = generated.expand("<!-- commands: outbox query -->")
    assert "| `--resend N` | Reply N (unknown or failed) is to be sent again. |" in page
    assert "$ sessiondb query gateway.db 'select * from session_overview' --table" in page
    assert "`--debug`" not in page


def test_the_reference_has_the_tasks_of_the_help() -> None:
    page = (pages.DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    parts = re.findall(r"^## (.+)\n\n<!-- commands: (.+) -->$", page, re.MULTILINE)
    assert {task: names.split() for task, names in parts} == {
        task: list(offered) for task, offered in TASKS.items()
    }


def test_every_public_name_is_in_the_reference() -> None:
    missing = {f"sessiondb.{name}" for name in sessiondb.__all__} - set(OBJECTS)
    assert missing == set()


@pytest.mark.parametrize(
    "owner", [sessiondb.SessionDB, sessiondb.Session, sessiondb.CompactionJob, sessiondb.Batch]
)
def test_every_public_member_of_a_handle_is_in_the_reference(owner: type) -> None:
    offered = {name for name in dir(owner) if not name.startswith("_")}
    listed = re.findall(rf"^::: sessiondb\.{owner.__name__}\.(\w+)$", REFERENCE, re.MULTILINE)
    assert len(listed) > 5
    assert len(listed) == len(set(listed))
    assert offered - set(listed) == set()


def test_every_name_that_the_reference_asks_for_exists() -> None:
    for name in OBJECTS:
        found: Any = sessiondb
        for part in name.split(".")[1:]:
            assert hasattr(found, part) or part in fields_of(found), name
            found = getattr(found, part, None)


def fields_of(owner: type) -> set[str]:
    """Return what objects of a class have and the class has not: set, or declared, in its body."""
    source = inspect.getsource(owner)
    return {*re.findall(r"self\.(\w+)(?::| =)", source), *inspect.get_annotations(owner)}


def test_every_synchronous_call_is_in_the_reference() -> None:
    page = generated.expand("<!-- sync -->")
    for name in set(sessiondb.sync.__all__) - {"open"}:
        made = vars(getattr(sessiondb.sync, name))
        twin = getattr(sessiondb, name)
        calls = {
            call
            for call in made
            if not call.startswith("_") and callable(made[call]) and hasattr(twin, call)
        }
        assert {call for call in calls if f"[sessiondb.{name}.{call}]" not in page} == set()


def test_the_schema_page_is_the_schema_verbatim() -> None:
    shown = re.findall(r"^```sql\n(.*?)\n```$", schema.reference(), re.MULTILINE | re.DOTALL)
    assert "\n\n".join(shown) == (ROOT / "schema.sql").read_text(encoding="utf-8").strip()
    assert "### session_overview" in schema.reference()


def test_no_marker_is_left_that_nothing_replaces() -> None:
    assert re.findall(r"<!--.*", REFERENCE) == []


def in_nav() -> list[str]:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    return re.findall(r": (\S+\.md)$", nav, re.MULTILINE)


def test_the_nav_names_every_page_once_and_no_other() -> None:
    written = [page.relative_to(pages.DOCS).as_posix() for page in ALL]
    assert sorted(in_nav()) == sorted([*written, *generated.ROOT_PAGES])
    assert [
        source for source in generated.ROOT_PAGES.values() if not (ROOT / source).exists()
    ] == []


def test_every_link_between_pages_leads_to_a_file() -> None:
    """In the repository too, where nobody knows `[name][reference]`."""
    text = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
    for page in ALL:
        links = re.findall(
            r"\]\((?!https?:)([^)#\s]+)", text.sub("", page.read_text(encoding="utf-8"))
        )
        assert [link for link in links if not (page.parent / link).exists()] == [], page
        assert "][sessiondb." not in page.read_text(encoding="utf-8"), page


# -- diagrams --------------------------------------------------------------------------


@pytest.mark.parametrize("source", DIAGRAMS, ids=range(len(DIAGRAMS)))
def test_every_diagram_of_the_pages_can_be_drawn(source: str) -> None:
    drawn = diagrams.svg(source)
    arrows = len(re.findall(r"-->|-\.->|---", source))
    assert drawn.count('<path class="edge') == arrows
    names = (
        set(re.findall(r"(?:^|> )(\w+)(?: -->|:|$)", source, re.MULTILINE))
        if source[0] == "s"
        else set()
    )
    assert {
        name for name in names if f">{name}</tspan>" not in drawn and name != "stateDiagram"
    } == set()


def test_boxes_of_a_diagram_do_not_overlap() -> None:
    number = r'="(-?[\d.]+)"'
    for source in DIAGRAMS:
        frames = re.findall(
            rf"<rect x{number} y{number} width{number} height{number}", diagrams.svg(source)
        )
        boxes = sorted(tuple(map(float, frame)) for frame in frames)
        for one, other in (
            (one, other) for at, one in enumerate(boxes) for other in boxes[at + 1 :]
        ):
            apart = (
                one[0] + one[2] <= other[0] + 0.1,
                one[1] + one[3] <= other[1] + 0.1,
                other[1] + other[3] <= one[1] + 0.1,
            )
            assert any(apart), (source, one, other)


def test_a_diagram_reads_in_the_direction_of_its_arrows() -> None:
    drawn = diagrams.svg("flowchart LR\na --> b\nb --> c\nc --> a")
    places = [float(x) for x in re.findall(r'<tspan x="([\d.]+)"', drawn)]
    assert len(places) == 3
    assert all(before < after for before, after in pairwise(places))


@pytest.mark.parametrize("source", ["pie", "flowchart LR\na ==> b", "stateDiagram-v2\nA -> B"])
def test_a_diagram_that_cannot_be_read_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match=r"diagram begins|not a"):
        diagrams.svg(source)


# -- documents about the tests ----------------------------------------------------------------

SOURCES = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")}
TESTS = {name for text in SOURCES.values() for name in re.findall(r"def (test_\w+)", text)}
FILES = {path.stem for path in SOURCES}
DOCUMENTS = [*ALL, ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"]


def unknown_tests(text: str) -> list[str]:
    """Return the tests and test files that a text names and that do not exist.

    A name that ends in `_...` is the beginning of one.
    """
    unknown = []
    for code in re.findall(r"`([^`\n]*\btest_[^`\n]*)`", text):
        for name, shortened in re.findall(r"\b(test_\w+)(\.\.\.)?", code):
            if shortened:
                known = any(test.startswith(name) for test in TESTS)
            else:
                known = name in TESTS or name in FILES
            if not known:
                unknown.append(name)
    return unknown


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.stem)
def test_every_test_that_a_document_names_exists(page: Path) -> None:
    assert unknown_tests(page.read_text("utf-8")) == []


def test_a_document_that_names_a_test_of_the_past_is_noticed() -> None:
    text = "`tests/test_docs.py::test_of_the_past`, `test_every_test_that_...`, `test_none_of_...`"
    assert unknown_tests(text) == ["test_of_the_past", "test_none_of_"]

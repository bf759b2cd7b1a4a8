"""The diagrams of states agree with the statements that change them, both ways.

Which transitions there are is read from the statements: from which states (WHERE) to which
(SET). Each must be an arrow in the diagram of its table in the docs, and in the docstring of
the module that owns it. Each arrow must be made by a statement.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from sessiondb.backend import load_statements
from sessiondb.gateway import outbox, turns
from sessiondb.transcript import compaction
from sessiondb.words import (
    CompactionOutcome,
)
from tests import ROOT

Arrow = tuple[str, str]
START = "[*]"
SCHEMA = (ROOT / "schema.sql").read_text()
# Statements whose new state is a parameter: every value that the rules give it.
PARAMETERS: dict[str, tuple[str, ...]] = {
    "turns.finish": typing.get_args(turns.Ended),
    "outbox.settle": ("sent", "failed"),
    "outbox.decide": ("sent", "pending"),
    "compaction.finish": typing.get_args(compaction.GivenUp),
    "compaction.settle": typing.get_args(CompactionOutcome),
}


@dataclass(frozen=True)
class Described:
    """A table whose rows have states, and where its transitions are written for people."""

    page: str
    first: str
    """The first arrow of its diagram, which tells it from others of the page."""
    module: str


TABLES = {
    "inbox": Described("docs/gateway.md", "[*] --> queued", "sessiondb.gateway.inbox"),
    "turn": Described("docs/gateway.md", "[*] --> running", "sessiondb.gateway.turns"),
    "outbox": Described("docs/gateway.md", "[*] --> pending", "sessiondb.gateway.outbox"),
    "compaction": Described("docs/design.md", "[*] --> running", "sessiondb.transcript.compaction"),
}
# Their diagrams have the states of the table, but the rules and not the statements know the
# arrows: the state before is a parameter, too.
BY_THE_RULES = {"archive": Described("docs/design.md", "[*] --> writing", "")}
WITHOUT_DIAGRAM = {"import_file": "a receipt: reading, then done, and changed if its file is"}


# -- what the statements do


@cache
def states_of(table: str) -> frozenset[str]:
    """Return the states that the schema's rules allow."""
    [listed] = re.findall(rf"{table}_state_known\s+CHECK \(state IN\s+\(([^)]*)\)", SCHEMA)
    return frozenset(re.findall(r"'(\w+)'", listed))


def transitions(table: str) -> frozenset[Arrow]:
    """Return every transition that a statement can make."""
    return frozenset(
        arrow
        for name, statement in load_statements("sessiondb.sqlite.queries").items()
        if not name.startswith("salvage.")  # judges and copies rows of another file
        for arrow in _made_by(name, _without_queries(statement.sql), table)
    )


def _made_by(name: str, sql: str, table: str) -> Iterator[Arrow]:
    if sql.startswith(f"INSERT INTO {table} ("):
        columns, _, values = sql.partition("VALUES")
        place = [word.strip(" ()\n") for word in columns[columns.index("(") + 1 :].split(",")]
        value = [word.strip(" ()\n;") for word in _split(values)][place.index("state")]
        begun = re.findall(r"(?:^|THEN |ELSE )'(\w+)'", value)
        assert begun, f"{name} begins rows in state {value}"
        yield from ((START, state) for state in begun)
    if sql.startswith(f"UPDATE {table} SET "):
        assigned, _, where = sql.partition("WHERE")
        found = re.search(r"(?<![:\w.])state = ('\w+'|:\w+)", assigned)
        if found is not None:
            to = (found[1].strip("'"),) if found[1][0] == "'" else PARAMETERS[name]
            for before in _selected(where, table):
                yield from ((before, after) for after in to)


def _selected(where: str, table: str) -> frozenset[str]:
    """Return the states of the rows that a condition selects."""
    selected = states_of(table)
    condition = r"(?<![:\w.])state (=|<>|IN|NOT IN) (\([^)]*\)|'\w+')"
    for operator, listed in re.findall(condition, where):
        named = frozenset(re.findall(r"'(\w+)'", listed))
        assert named <= states_of(table), f"{where}: no row is in such a state"
        selected &= named if operator in ("=", "IN") else selected - named
    return selected


def _without_queries(sql: str) -> str:
    """Return a statement without its subqueries, whose states are of other rows."""
    while (begin := re.search(r"\(\s*SELECT\b", sql)) is not None:
        depth = 0
        for at in range(begin.start(), len(sql)):
            depth += (sql[at] == "(") - (sql[at] == ")")
            if depth == 0:
                sql = sql[: begin.start()] + "()" + sql[at + 1 :]
                break
    return sql


def _split(values: str) -> list[str]:
    """Split a list of values at the commas that no bracket encloses."""
    parts, depth = [""], 0
    for char in values.strip()[1:]:
        depth += (char == "(") - (char == ")")
        if depth < 0:
            break
        if char == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts


# -- what people read


def drawn(described: Described) -> frozenset[Arrow]:
    """Return the arrows of a diagram. One name may stand for several states."""
    text = (ROOT / described.page).read_text()
    diagrams = [
        body
        for body in re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", text, re.DOTALL)
        if body.strip().startswith(described.first)
    ]
    assert len(diagrams) == 1, f"{described.page}: diagrams that begin with {described.first}"
    stands_for = {
        name: re.findall(r"`(\w+)`", states)
        for name, states in re.findall(r"`(\w+)` stands\s+for (`[^.]*)\.", text)
    }
    found: list[Arrow] = []
    for line in diagrams[0].strip().splitlines():
        arrow = re.fullmatch(r"\s*(\[\*\]|\w+) --> (\w+)(?:: .+)?", line)
        assert arrow is not None, line
        ends = [stands_for.get(end, [end]) for end in arrow.groups()]
        found += [(before, after) for before in ends[0] for after in ends[1]]
    assert len(found) == len(set(found)), "an arrow is drawn twice"
    return frozenset(found)


def told(module: str) -> frozenset[Arrow]:
    """Return the arrows of a module's docstring: `    this | that --> one | other   words`."""
    text = inspect.getdoc(importlib.import_module(module)) or ""
    found: list[Arrow] = []
    for line in text.splitlines():
        if " --> " in line:
            arrow = re.fullmatch(r"    ([\w |]+?) --> ([\w |]+?)(?:\s{2,}\S.*)?", line)
            assert arrow is not None, line
            before, after = (part.split(" | ") for part in arrow.groups())
            found += [(one, other) for one in before for other in after]
    assert len(found) == len(set(found)), "an arrow is told twice"
    return frozenset(found)


@pytest.mark.parametrize("table", TABLES)
def test_every_transition_is_an_arrow_and_every_arrow_a_transition(table: str) -> None:
    assert drawn(TABLES[table]) == transitions(table)


@pytest.mark.parametrize("table", TABLES)
def test_the_owning_module_tells_every_transition(table: str) -> None:
    begun = {arrow for arrow in transitions(table) if arrow[0] == START}
    assert told(TABLES[table].module) == transitions(table) - begun


@pytest.mark.parametrize(
    ("module", "table"),
    [("sessiondb.gateway.dead_letters", "inbox"), ("sessiondb.gateway.leases", "turn")],
)
def test_other_modules_tell_transitions_that_there_are(module: str, table: str) -> None:
    assert told(module)
    assert told(module) < transitions(table)


@pytest.mark.parametrize("table", [*TABLES, *BY_THE_RULES])
def test_a_diagram_has_the_states_of_the_table(table: str) -> None:
    arrows = drawn((TABLES | BY_THE_RULES)[table])
    assert {state for arrow in arrows for state in arrow} - {START} == states_of(table)


def test_every_table_with_states_has_a_diagram() -> None:
    tables = re.findall(
        r"^CREATE TABLE (\w+) \((?:(?!^\)).)*?^  state ", SCHEMA, re.MULTILINE | re.DOTALL
    )
    assert sorted(tables) == sorted([*TABLES, *BY_THE_RULES, *WITHOUT_DIAGRAM])


@pytest.mark.parametrize("table", ["inbox", "outbox"])
def test_the_schema_shows_transitions_that_there_are(table: str) -> None:
    [comment] = re.findall(rf"((?:^--[^\n]*\n)+)CREATE TABLE {table} \(", SCHEMA, re.MULTILINE)
    [chain] = re.findall(r"^--   (\w+(?: -> [\w |]+)+)$", comment, re.MULTILINE)
    steps = [step.split(" | ") for step in chain.split(" -> ")]
    shown = {
        (before, after) for first, second in pairwise(steps) for before in first for after in second
    }
    assert shown < transitions(table)
    assert ("claimed", "done") in shown or ("sending", "sent") in shown


def test_the_values_of_parameters_are_those_that_the_rules_give() -> None:
    tree = ast.parse(Path(inspect.getfile(outbox)).read_text())
    settled = {
        call.args[2].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "_settle"
        and isinstance(call.args[2], ast.Constant)
    }
    assert settled == set(PARAMETERS["outbox.settle"])
    decided = typing.get_args(typing.get_type_hints(outbox.decide)["state"])
    assert set(decided) == set(PARAMETERS["outbox.decide"])


# -- the reader of statements itself


READ = {
    """UPDATE outbox SET state = 'sent'
       WHERE state IN ('pending', 'sending') AND state <> 'pending'""": {("sending", "sent")},
    "UPDATE outbox SET reason = CASE WHEN :state = 'sent' THEN 1 END WHERE state = 'sent'": set(),
    """UPDATE outbox SET state = 'failed'
       WHERE outbox_no IN (SELECT outbox_no FROM outbox WHERE state = 'sent')
         AND state NOT IN ('sent', 'failed')""": {
        ("pending", "failed"),
        ("sending", "failed"),
        ("unknown", "failed"),
    },
    """INSERT INTO outbox (target, channel, state)
       VALUES (:target, substr(:target, 1, 2), 'pending')""": {(START, "pending")},
}


@pytest.mark.parametrize("sql", READ)
def test_transitions_are_read_from_a_statement(sql: str) -> None:
    assert set(_made_by("a.statement", _without_queries(sql), "outbox")) == READ[sql]

"""Compare rows that tests read with the classes that sessiondb/statements.pyi says they have."""

from __future__ import annotations

import ast
import functools
from typing import Any

from tests import ROOT

TYPES = {"int": int, "str": str, "bytes": bytes, "float": float, "None": type(None)}
CHECKED_ROWS = 3
"""Of each result. Enough to see a NULL in tests that are about one."""


@functools.cache
def declared() -> dict[str, tuple[tuple[type | str, ...], ...]]:
    """Return the types and the words of each statement's columns, by the statement's name."""
    tree = ast.parse((ROOT / "sessiondb" / "statements.pyi").read_text("utf-8"))
    classes = {
        node.name: tuple(_types(field) for field in node.body if isinstance(field, ast.AnnAssign))
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    for node in tree.body:  # a statement that shares the class of another
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            classes[ast.unparse(node.targets[0])] = classes[node.value.id]
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "all":
            kind = node.args.posonlyargs[1].annotation
            if isinstance(kind, ast.Subscript) and isinstance(node.returns, ast.Subscript):
                name = ast.literal_eval(kind.slice)
                found[name] = classes[ast.unparse(node.returns.slice)]
    return found


def _types(field: ast.AnnAssign) -> tuple[type | str, ...]:
    """Return the types that a column may have, and the words of a Literal."""
    found: list[type | str] = []
    for part in ast.unparse(field.annotation).split("|"):
        if part.strip().startswith("Literal["):
            found += ast.literal_eval(f"[{part.strip()[len('Literal[') : -1]}]")
        else:
            found.append(TYPES[part.strip()])
    return tuple(found)


def _is_one_of(value: object, kinds: tuple[type | str, ...]) -> bool:
    return any(
        isinstance(value, kind) if isinstance(kind, type) else value == kind for kind in kinds
    )


def check(statement: str, rows: list[Any]) -> None:
    """Fail when a row of a statement is not what its class says."""
    columns = declared().get(statement)
    if columns is None:
        return  # a statement of a test
    for row in rows[:CHECKED_ROWS]:
        for name, value, kinds in zip(row._fields, row, columns, strict=True):
            assert _is_one_of(value, kinds), f"{statement}: {name} is {value!r}, not {kinds}"

"""The front door: what it offers, and that it is documented and typed."""

from __future__ import annotations

import ast
import builtins
import collections.abc
import importlib
import inspect
import itertools
import re
import subprocess
import sys
import typing
from collections.abc import Mapping
from importlib.metadata import version
from types import ModuleType
from typing import Any, get_type_hints

import pydantic
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import errors
from tests import ROOT


def test_all_is_sorted_and_every_name_in_it_exists() -> None:
    assert sessiondb.__all__ == sorted(sessiondb.__all__)
    assert len(set(sessiondb.__all__)) == len(sessiondb.__all__)
    assert [name for name in sessiondb.__all__ if not hasattr(sessiondb, name)] == []


def test_every_public_name_of_the_package_is_in_all() -> None:
    offered = {
        name
        for name in dir(sessiondb)
        if not name.startswith("_") and not isinstance(getattr(sessiondb, name), ModuleType)
    }
    assert offered == set(sessiondb.__all__)


def test_checkers_and_programs_import_a_name_from_one_module() -> None:
    """The imports in `if typing.TYPE_CHECKING`, and the table that `__getattr__` reads."""
    for_checkers = {
        alias.name: f"sessiondb.{node.module}"
        for block in ast.parse(inspect.getsource(sessiondb)).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert len(for_checkers) > 30
    assert for_checkers == sessiondb._MODULE_OF


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sessiondb' has no attribute 'opne'"):
        assert sessiondb.opne


def test_the_version_is_that_of_the_distribution() -> None:
    assert sessiondb.__version__ == version("sessiondb")


def test_importing_the_package_imports_errors_and_exits_only() -> None:
    code = "import sys, sessiondb; print(*(n for n in sys.modules if n.startswith('sessiondb')))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert set(done.stdout.split()) == {"sessiondb", "sessiondb.errors", "sessiondb.exits"}


def test_every_error_of_a_call_can_be_caught_by_its_base() -> None:
    offered = [
        value
        for name in sessiondb.__all__
        if isinstance(value := getattr(sessiondb, name), type) and issubclass(value, Exception)
    ]
    assert len(offered) > 10
    raised_by_callers = {sessiondb.RefusedBySender}
    assert {
        error for error in offered if not issubclass(error, sessiondb.SessionDBError)
    } == raised_by_callers


def test_every_error_of_the_tree_is_offered_by_the_package() -> None:
    tree = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert len(tree) > 25
    assert tree - set(sessiondb.__all__) == set()
    drawn = set(
        re.findall(r"^\s*[|` -]*(\w+)", (errors.__doc__ or "").split("\n\n")[1], re.MULTILINE)
    )
    assert drawn == tree


def documented(owner: Any, prefix: str) -> dict[str, str | None]:
    """Return the docstrings of a public object and of its public methods and properties."""
    found = {prefix: owner.__doc__}
    if isinstance(owner, type):
        for base in owner.__mro__:
            if base.__module__.startswith("sessiondb"):
                for name, member in vars(base).items():
                    if not name.startswith("_") and (
                        inspect.isroutine(member) or isinstance(member, property)
                    ):
                        found[f"{prefix}.{name}"] = member.__doc__
    return found


def aliases() -> dict[str, str | None]:
    """Return the offered names of types that are no classes, each with the text below it."""
    found: dict[str, str | None] = {}
    for name, module in {**sessiondb._MODULE_OF, "WriteOutcome": "sessiondb.errors"}.items():
        body = ast.parse(inspect.getsource(importlib.import_module(module))).body
        for node, following in itertools.pairwise(body):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                told = following.value if isinstance(following, ast.Expr) else None
                found[name] = told.value if isinstance(told, ast.Constant) else None
    return found


def test_every_public_class_method_and_function_has_a_docstring() -> None:
    found: dict[str, str | None] = {}
    for module in (sessiondb, sessiondb.sync):
        for name in set(module.__all__) - set(aliases()):
            found |= documented(getattr(module, name), f"{module.__name__}.{name}")
    found |= aliases()
    assert len(found) > 100
    assert [name for name, doc in found.items() if not (doc or "").strip()] == []


def test_the_synchronous_module_offers_what_its_all_says() -> None:
    assert sessiondb.sync.__all__ == sorted(sessiondb.sync.__all__)
    assert set(sessiondb.sync.__all__) == {
        "Batch",
        "CompactionJob",
        "Handler",
        "Sender",
        "Session",
        "SessionDB",
        "Turn",
        "open",
        "shared",
        "temporary",
    }


def test_the_options_of_open_are_the_databases_and_documented() -> None:
    declared = get_type_hints(sessiondb.OpenOptions)
    taken = get_type_hints(sessiondb.SessionDB.__init__)
    assert {name: taken[name] for name in taken if name not in ("path", "return")} == declared
    assert [name for name in declared if f"`{name}`:" not in (sessiondb.open.__doc__ or "")] == []


def test_what_a_handle_keeps_for_itself_has_no_public_name() -> None:
    handles = (
        sessiondb.SessionDB,
        sessiondb.Session,
        sessiondb.CompactionJob,
        sessiondb.Turn,
        sessiondb.sync.CompactionJob,
    )
    names = {
        (one.__name__, name)
        for one in handles
        for name in (*vars(one), *inspect.get_annotations(one))
        if not name.startswith("_")
    }
    assert {name for _, name in names} & {
        "started",
        "settings",
        "alive_until",
        "job",
        "running_turns",
    } == set()
    assert {
        ("Turn", name) for name in ("turn_no", "attempt", "inbox_no", "kind", "message", "session")
    } <= names


FOREIGN = {*vars(builtins), *vars(typing), *vars(collections.abc), *vars(pydantic)}
FOREIGN |= {"Counter", "PathLike", "Pattern", "TracebackType"}
# Of the seam to the engine. Its own signatures are those of `sessiondb.backend`.
SEAM = {"Backend", "ReadTx", "Tx"}


def types_in(annotation: Any) -> set[str]:
    """Return the names of the types in an annotation, without the words of a Literal."""
    if not isinstance(annotation, str):
        annotation = getattr(annotation, "__forward_arg__", getattr(annotation, "__name__", ""))
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(annotation, mode="eval").body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= types_in(node.value)
        elif not (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal"):
            waiting += ast.iter_child_nodes(node)
    return found


def shown_types() -> dict[str, set[str]]:
    """Return the types that public signatures and attributes show, each with where."""
    shown: dict[str, set[str]] = {}

    def show(where: str, annotations: Mapping[str, Any]) -> None:
        for name, annotation in annotations.items():
            if not name.startswith("_"):
                for word in types_in(annotation):
                    shown.setdefault(word, set()).add(where)

    for module in (sessiondb, sessiondb.sync):
        for name in set(module.__all__) - SEAM:
            value = getattr(module, name)
            if inspect.isfunction(value):
                show(name, inspect.get_annotations(value))
            for base in value.__mro__ if isinstance(value, type) else ():
                if base.__module__.startswith("sessiondb"):
                    show(name, inspect.get_annotations(base))
                    for member, each in vars(base).items():
                        bare = getattr(each, "fget", getattr(each, "func", each))
                        if not member.startswith("_") and inspect.isfunction(bare):
                            show(f"{name}.{member}", inspect.get_annotations(inspect.unwrap(bare)))
    return shown


def test_every_type_that_a_signature_shows_is_offered() -> None:
    shown = shown_types()
    assert {"Handler", "Sender", "Appendable", "EventKind", "SessionRef", "Stuck"} <= set(shown)
    type_variables = {"T"}
    assert {
        word: where
        for word, where in shown.items()
        if word not in {*sessiondb.__all__, *FOREIGN, *type_variables}
    } == {}


@pytest.mark.slow
def test_type_checkers_see_the_api_as_it_is_meant() -> None:
    checked = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "tests/typing/api.py",
    ]
    done = subprocess.run(
        checked, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr

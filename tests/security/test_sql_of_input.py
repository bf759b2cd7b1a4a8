"""SQL is a constant or a named statement. It is never made of input."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests import ROOT

PACKAGE = ROOT / "sessiondb"
RUNS_SQL = {"execute", "executemany", "drain", "query_info", "pragma", "trace_v2", "blob_open"}
# SQL that is neither a constant, nor a named statement, nor a pragma with a number of ours,
# by module and function. Each has its reason.
NAMED_EXCEPTIONS = {
    f"sqlite/{place}": reason
    for place, reason in {
        "user_query.py _query_info sql": "the user's own statement, which the authorizer checks",
        "user_query.py _rows sql": "... run",
        "user_query.py _rows _with_text_as_bytes(sql, count)": (
            "... inside a template of user_query.sql, for text that is not Unicode"
        ),
        "connection.py drain script": "its callers' statements, each of which is found here",
        "schema.py create_or_migrate schema_text()": "schema.sql",
        "schema.py create_or_migrate next((script for number, script in migrations()"
        " if number == version + 1))": "a migration's file",
        "schema.py _pragma name": "called with constants of schema.py",
        "transaction.py _start prepared.sql": "a named statement of a .sql file",
        "file_format.py shapes schema_text()": "schema.sql, in memory",
        "layout.py _expected schema_text()": "schema.sql, in memory",
        "layout.py faults name": "called with constants of layout.py",
        "foreign_file.py all prepared.sql": "a named statement of a .sql file",
        "new_database.py __enter__ f'PRAGMA {setting}'": "called with constants of its own",
    }.items()
}


def statements_run(source: str, module: str) -> Iterator[str]:
    """Yield `module function expression` for each SQL in a module that is no constant."""
    tree = ast.parse(source)
    for function in [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module)
    ]:
        for call in calls_of(function):
            name = (
                call.func.attr
                if isinstance(call.func, ast.Attribute)
                else call.func.id
                if isinstance(call.func, ast.Name)
                else ""
            )
            if name not in RUNS_SQL or not call.args:
                continue
            if ast.unparse(call.func) == "draining.drain":
                continue  # the end of a gateway's loops, which has the name of the engine's call
            args = (
                call.args[1]
                if name in ("drain", "query_info") and len(call.args) > 1
                else call.args[0]
            )
            if not is_constant(args):
                yield f"{module} {getattr(function, 'name', '<module>')} {ast.unparse(args)}"


def calls_of(function: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls in a function, but not those in the functions inside it."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from calls_of(child)


def is_constant(node: ast.expr) -> bool:
    """Return whether an expression is text of ours.

    Such text is a constant, one of two constants, or a pragma with a NUMBER_OF_OURS or a
    counter in it.
    """
    match node:
        case ast.Constant():
            return True
        case ast.IfExp():
            return is_constant(node.body) and is_constant(node.orelse)
        case ast.JoinedStr():
            gaps = [value.value for value in node.values if isinstance(value, ast.FormattedValue)]
            begins = ast.unparse(node)[2:9].upper() == "PRAGMA "
            return begins and all(
                isinstance(gap, ast.Name) and (gap.id.isupper() or gap.id == "step") for gap in gaps
            )
    return False


def test_sql_is_a_constant_a_named_statement_or_an_exception() -> None:
    found = {
        line
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in statements_run(path.read_text("utf-8"), str(path.relative_to(PACKAGE)))
    }
    assert found - NAMED_EXCEPTIONS.keys() == set()
    assert NAMED_EXCEPTIONS.keys() - found == set(), "a named exception that is no longer there"


@pytest.mark.parametrize(
    "source",
    [
        'def f(c, x): c.execute(f"select * from entry where id = {x}")',
        'def f(c, x): c.execute("select " + x)',
        'def f(c, x): c.execute("select %s" % x)',
        'def f(c, x): c.execute("select {}".format(x))',
        "def f(c, x): c.execute(x)",
        "def f(c, x): drain(c, x)",
        'def f(c, x): drain(c, f"PRAGMA journal_mode = {x}")',
        'def f(c, X): drain(c, f"DELETE FROM {X}")',
        'async def f(c, x): c.pragma(f"table_info({x})")',
        "x = lambda c, q: c.executemany(q, [])",
        'def f(c, x): c.execute("select 1" if x else x)',
    ],
)
def test_sql_made_of_input_would_be_found(source: str) -> None:
    assert len(list(statements_run(source, "m.py"))) == 1


@pytest.mark.parametrize(
    "source",
    [
        'c.execute("select :x", {"x": x})',
        'drain(c, f"PRAGMA page_size = {PAGE_BYTES}")',
        'c.execute("a" if b else "c")',
        "execute()",
    ],
)
def test_constants_are_not_taken_for_it(source: str) -> None:
    assert list(statements_run(source, "m.py")) == []

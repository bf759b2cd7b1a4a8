"""Mutants of the rules in Python.

Left alone are annotations, docstrings, assertions, what is only for mypy, log lines, and the
texts of messages: none of them is a rule. Nor are the numbers that a module names, as those of
`limits.py` (how many at a time, how long). The rules that use one are met where they use it.

A default is evaluated, and a class's or module's body runs, at the import. No test does that, so
these mutants meet the tests that run the function, or anything of the module, and those of the
file that is named after it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise

from .mutant import Edit, Mutant, line_of, numbered

COMPARISONS: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
}
EXTREMES = {"min": "max", "max": "min"}
SMALL = frozenset(["arithmetic", "constant", "extreme swapped"])
LOGS = frozenset(["log", "logger", "logging", "warnings"])
NEGATABLE = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
NAMES = ast.Tuple | ast.expr_context
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def of_python(path: str, text: str) -> Iterator[Mutant]:
    """Yield the mutants of a module. `where` is the function or class."""
    yield from numbered(_Reader(path, text).read())


class _Reader:
    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.starts = [0]
        for line in text.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.lines = text.splitlines()
        self.found: list[Mutant] = []

    def read(self) -> list[Mutant]:
        """Return the mutants in the order of the file."""
        for node in ast.parse(self.text).body:
            if not _is_named_number(node):
                self._visit(node, (), (1, len(self.lines)))
        return self.found

    def _at(self, line: int, column: int) -> int:
        """Return the offset of a character. The syntax tree counts columns in bytes."""
        before = self.lines[line - 1].encode()[:column].decode()
        return self.starts[line - 1] + len(before)

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._at(node.lineno, node.col_offset), self._at(
            node.end_lineno, node.end_col_offset
        )

    def _visit(self, node: ast.AST, scope: tuple[str, ...], run_by: tuple[int, int] | None) -> None:
        """Collect the mutants of a node, then of those in it. `run_by`: see Mutant."""
        if _is_no_rule(node):
            return
        self._mutate(node, scope, run_by)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            # Its defaults are evaluated where it is defined.
            for default in [*node.args.defaults, *node.args.kw_defaults]:
                if default is not None:
                    body = node.body[0].lineno, node.end_lineno or node.lineno
                    self._visit(default, (*scope, node.name), run_by and body)
            for child in node.body:
                self._visit(child, (*scope, node.name), None)
            return
        if isinstance(node, ast.ClassDef):
            scope = (*scope, node.name)
        if isinstance(node, ast.Lambda):
            run_by = None
        skipped = {"annotation", "returns", "decorator_list", "args"}
        for field, value in ast.iter_fields(node):
            if field in skipped and not isinstance(node, ast.Call):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    self._visit(child, scope, run_by)

    def _mutate(
        self, node: ast.AST, scope: tuple[str, ...], run_by: tuple[int, int] | None
    ) -> None:
        for kind, whole, start, end, new in self._changes(node):
            span = self._span(whole)
            # As many lines as before, so that the lines below keep their numbers.
            new += "\n" * (self.text.count("\n", start, end) - new.count("\n"))
            piece = _short(" ".join(self.text[slice(*span)].split()))
            if kind in SMALL:  # its line tells what it is
                piece += f" in {_short(self.lines[line_of(self.text, start) - 1].strip())}"
            lines = whole.lineno, whole.end_lineno or whole.lineno
            where = ".".join(scope) or "(module)"
            edits = (Edit(start, end, new),)
            self.found.append(
                Mutant(self.path, where, kind, piece, edits, lines, run_by is None, run_by)
            )

    def _changes(self, node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, int, int, str]]:
        """Yield the kind, the piece, and where which text replaces which."""
        match node:
            case ast.Compare():
                for left, operator, right in zip(
                    [node.left, *node.comparators], node.ops, node.comparators, strict=False
                ):
                    old, new = COMPARISONS[type(operator)]
                    yield from self._operator("comparison", node, left, right, old, new)
            case ast.BoolOp():
                old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                for left, right in pairwise(node.values):
                    yield from self._operator("boolean operator", node, left, right, old, new)
            case ast.BinOp() if type(node.op) in ARITHMETIC and not _is_text(node):
                old, new = ARITHMETIC[type(node.op)]
                yield from self._operator("arithmetic", node, node.left, node.right, old, new)
            case ast.AugAssign() if isinstance(node.op, (ast.Add, ast.Sub)):
                old, new = ("+=", "-=") if isinstance(node.op, ast.Add) else ("-=", "+=")
                if not _is_text(node.value):
                    yield from self._operator("arithmetic", node, node.target, node.value, old, new)
            case ast.UnaryOp(op=ast.Not()):
                start, _ = self._span(node)
                yield "not dropped", node, start, start + len("not "), ""
            case ast.If() | ast.While() | ast.IfExp() if not _is_negated_already(node.test):
                start, end = self._span(node.test)
                yield "negated", node.test, start, end, f"not ({self.text[start:end]})"
            case ast.Constant(value=bool() as value):
                yield "constant", node, *self._span(node), str(not value)
            case ast.Constant(value=int() | float() as value):
                yield "constant", node, *self._span(node), str(value + 1)
            case ast.Return(value=ast.expr() as value) if not _is_none(value):
                yield "returned value", node, *self._span(value), "None"
            case ast.Raise():
                yield "raise removed", node, *self._span(node), "pass"
            case ast.Expr(value=ast.Call() | ast.Await()):
                yield "call removed", node, *self._span(node), "pass"
            case ast.Call(func=ast.Name(id=name) as func) if name in EXTREMES:
                yield "extreme swapped", node, *self._span(func), EXTREMES[name]

    def _operator(
        self,
        kind: str,
        node: ast.expr | ast.stmt,
        left: ast.expr,
        right: ast.expr,
        old: str,
        new: str,
    ) -> Iterator[tuple[str, ast.expr | ast.stmt, int, int, str]]:
        """Replace an operator: it lies between its operands, beside brackets and spaces."""
        start, end = self._span(left)[1], self._span(right)[0]
        at = self.text.find(old, start, end)
        if at >= 0:  # `is  not` on two lines is left alone
            yield kind, node, at, at + len(old), new


def _short(piece: str) -> str:
    return piece if len(piece) <= 90 else f"{piece[:60]} ... {piece[-25:]}"


def _is_no_rule(node: ast.AST) -> bool:
    match node:
        case ast.Assert() | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name in LOGS
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.ClassDef(bases=bases):
            return any(isinstance(base, ast.Name) and base.id == "Protocol" for base in bases)
    return False


def _is_named_number(node: ast.stmt) -> bool:
    """Whether a module only gives numbers, or expressions of numbers, names."""
    return isinstance(node, ast.Assign | ast.AnnAssign) and all(
        isinstance(part, ast.BinOp | ast.UnaryOp | ast.operator | ast.unaryop | NAMES)
        or (isinstance(part, ast.Constant) and type(part.value) in {int, float})
        for part in ast.walk(node.value or ast.Constant(None))
    )


def _is_text(node: ast.expr) -> bool:
    return any(
        isinstance(part, ast.JoinedStr)
        or (isinstance(part, ast.Constant) and isinstance(part.value, (str, bytes)))
        for part in ast.walk(node)
    )


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or node.value in {True, False})


def _is_negated_already(test: ast.expr) -> bool:
    """Whether another mutant of the condition is its negation."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return True
    return (
        isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], NEGATABLE)
    )

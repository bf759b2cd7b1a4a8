"""Mutants of SQL: of named statements, and of the bodies of views, checks and partial indexes.

Each change keeps every parameter in the text. A conjunct is dropped as `(1 OR (...))` and an
assignment as `CASE WHEN 1 THEN column ELSE ... END`. So the check of parameters, which compares
names, notices nothing. Only behaviour does.

SQL is read as this project writes it: keywords in capitals, one style. That takes a tokenizer of
a dozen lines. A parser library would print the statement anew and lose the text's own places.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .mutant import Edit

TOKEN = re.compile(
    r"(?P<nothing>\s+|--[^\n]*)|(?P<string>'(?:[^']|'')*')|(?P<name>\"[^\"]*\")"
    r"|(?P<parameter>:\w+)|(?P<number>0x[0-9a-fA-F]+|\d+(?:\.\d+)?)|(?P<word>\w+)"
    r"|(?P<operator><>|<=|>=|<<|>>|\|\||->>|->|.)",
    re.DOTALL,
)
CLAUSES = frozenset(
    re.findall(
        r"\w+",
        "SELECT FROM WHERE ON HAVING GROUP ORDER LIMIT OFFSET SET VALUES RETURNING JOIN LEFT INNER "
        "CROSS UNION ALL AS WHEN THEN ELSE UPDATE INSERT DELETE INTO DO WITH RECURSIVE INDEXED "
        "CONFLICT PARTITION DISTINCT CHECK CONSTRAINT CREATE",
    )
)
CONDITIONS = frozenset(["WHERE", "ON", "HAVING"])
BOUNDARIES = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
EXTREMES = {"min": "max", "max": "min"}


class Token(NamedTuple):
    """A word, a value, or an operator."""

    text: str
    start: int
    end: int
    kind: str


class Change(NamedTuple):
    """A kind of mutant, the piece that it changes, and the edits."""

    kind: str
    start: int
    end: int
    edits: tuple[Edit, ...]


class Run(NamedTuple):
    """An unbroken expression: tokens `first` to `last`, and the clause that it belongs to."""

    clause: str
    first: int
    last: int


def tokens_of(text: str, start: int, end: int) -> list[Token]:
    """Return the tokens of a part of a text, without spaces and comments."""
    return [
        Token(match[0], match.start(), match.end(), str(match.lastgroup))
        for match in TOKEN.finditer(text, start, end)
        if match.lastgroup != "nothing"
    ]


class Sql:
    """One statement, or one object of the schema, as tokens with their brackets matched."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.tokens = tokens_of(text, start, end)
        self.closing = self._match()
        self.hints: set[int] = set()
        """Each IN that only names the rows of a partial index: what follows it is narrower."""

    def _match(self) -> dict[int, int]:
        """Return where each bracket and each CASE ends."""
        found, opened = {}, []
        for index, token in enumerate(self.tokens):
            if token.text in {"(", "CASE"}:
                opened.append(index)
            elif token.text in {")", "END"}:
                found[opened.pop()] = index
        return found

    def changes(self, first: int = 0) -> Iterator[Change]:
        """Yield every change from a token on."""
        yield from self._inside(first, len(self.tokens), "")

    def inside(self, bracket: int) -> Iterator[Change]:
        """Yield the changes inside a bracket."""
        yield from self._inside(bracket + 1, self.closing[bracket], "(")

    def whole_condition(self, kind: str, bracket: int) -> Iterator[Change]:
        """Yield the change that makes the condition in a bracket always true."""
        yield self._wrapped(kind, bracket + 1, self.closing[bracket], "1 OR (", ")")

    def _inside(self, first: int, last: int, clause: str) -> Iterator[Change]:
        """Yield the changes between two tokens: of this depth, then of the brackets in it."""
        for run in self._runs(first, last, clause):
            yield from self._operands(run)
            yield from self._comparisons(run)
            yield from self._ordering(run)
            yield from self._assignment(run)
            yield from self._branch(run)
        index = first
        while index < last:
            yield from self._phrase(index)
            if index in self.closing:
                inner = "CASE" if self.tokens[index].text == "CASE" else "("
                yield from self._inside(index + 1, self.closing[index], inner)
                index = self.closing[index]
            index += 1

    def _runs(self, first: int, last: int, clause: str) -> Iterator[Run]:
        """Split at commas and keywords. Brackets and CASE ... END stay whole."""
        begin = index = first
        while index < last:
            text = self.tokens[index].text
            if text in CLAUSES or text in {",", ";"}:
                if begin < index:
                    yield Run(clause, begin, index)
                begin = index + 1
                if text in CLAUSES:
                    clause = text
            index = self.closing.get(index, index) + 1
        if begin < last:
            yield Run(clause, begin, last)

    def _split(self, first: int, last: int, word: str) -> list[tuple[int, int]]:
        """Split a run at AND or OR. The AND of a BETWEEN splits nothing."""
        parts, begin, index, between = [], first, first, False
        while index < last:
            text = self.tokens[index].text
            if text == "BETWEEN":
                between = True
            elif text == "AND" and between:
                between = False
            elif text == word:
                parts.append((begin, index))
                begin = index + 1
            index = self.closing.get(index, index) + 1
        return [*parts, (begin, last)]

    def _operands(self, run: Run) -> Iterator[Change]:
        """Yield the change of each operand of AND and OR, and of a condition without either."""
        disjuncts = self._split(run.first, run.last, "OR")
        if len(disjuncts) > 1:
            for first, last in disjuncts:
                yield self._wrapped("disjunct dropped", first, last, "(0 AND (", "))")
        for first, last in disjuncts:
            conjuncts = self._split(first, last, "AND")
            if len(conjuncts) > 1 or (run.clause in CONDITIONS and len(disjuncts) == 1):
                for begin, end in conjuncts:
                    kind = "hint" if self._is_hint(begin, end, conjuncts) else "conjunct"
                    yield self._wrapped(f"{kind} dropped", begin, end, "(1 OR (", "))")

    def _is_hint(self, first: int, last: int, conjuncts: list[tuple[int, int]]) -> bool:
        """Whether `x IN (...)` has `x = ...` or `x <> ...` beside it. Remember it then."""
        words = [token.text for token in self.tokens[first:last]]
        if "IN" not in words or "NOT" in words:
            return False
        column = words[: words.index("IN")]
        for begin, _ in conjuncts:
            begin += self.tokens[begin].text == "("
            beside = [token.text for token in self.tokens[begin : begin + len(column) + 1]]
            if beside in ([*column, "="], [*column, "<>"]):
                self.hints.add(first + len(column))
                return True
        return False

    def _comparisons(self, run: Run) -> Iterator[Change]:
        """Yield the changes of boundaries."""
        index = run.first
        while index < run.last:
            token = self.tokens[index]
            if token.kind == "operator" and token.text in BOUNDARIES:
                other = BOUNDARIES[token.text]
                yield self._at_operator("boundary moved", index, run, token, other)
            elif token.text == "BETWEEN":
                yield from self._between(index, run)
            index = self.closing.get(index, index) + 1

    def _at_operator(self, kind: str, index: int, run: Run, token: Token, other: str) -> Change:
        """Replace an operator. The piece is the operand of AND that it lies in."""
        for part in self._split(run.first, run.last, "OR"):
            for first, last in self._split(*part, "AND"):
                if first <= index < last:
                    start, end = self.tokens[first].start, self.tokens[last - 1].end
                    return Change(kind, start, end, (Edit(token.start, token.end, other),))
        raise AssertionError(token)

    def _between(self, index: int, run: Run) -> Iterator[Change]:
        middle = next(i for i in range(index, run.last) if self.tokens[i].text == "AND")
        ends = [i for i in range(middle + 1, run.last) if self.tokens[i].text in {"AND", "OR"}]
        last = min([*ends, run.last])
        yield self._wrapped("lower bound moved", index + 1, middle, "(1 + (", "))")
        yield self._wrapped("upper bound moved", middle + 1, last, "(-1 + (", "))")

    def _ordering(self, run: Run) -> Iterator[Change]:
        """Yield the reverse of a term of ORDER BY."""
        if run.clause != "ORDER":
            return
        first = run.first + (self.tokens[run.first].text == "BY")
        start, last = self.tokens[first].start, self.tokens[run.last - 1]
        edit = (
            Edit(last.start, last.end, "ASC")
            if last.text == "DESC"
            else Edit(last.end, last.end, " DESC")
        )
        yield Change("order reversed", start, last.end, (edit,))

    def _assignment(self, run: Run) -> Iterator[Change]:
        """Yield an UPDATE that leaves a column as it is."""
        if run.clause != "SET" or self.tokens[run.first + 1].text != "=":
            return
        column = self.tokens[run.first]
        value = self._wrapped(
            "", run.first + 2, run.last, f"CASE WHEN 1 THEN {column.text} ELSE ", " END"
        )
        yield Change("assignment dropped", column.start, value.end, value.edits)

    def _branch(self, run: Run) -> Iterator[Change]:
        """Yield a CASE that never takes a branch."""
        if run.clause == "WHEN":
            simple = self._is_simple(run.first)
            before = "CASE WHEN 1 THEN NULL ELSE " if simple else "(0 AND ("
            yield self._wrapped(
                "branch dropped", run.first, run.last, before, " END" if simple else "))"
            )
        elif run.clause == "ELSE":
            yield self._wrapped(
                "ELSE dropped", run.first, run.last, "CASE WHEN 1 THEN NULL ELSE ", " END"
            )

    def _is_simple(self, index: int) -> bool:
        """Whether the CASE around a token compares one value: CASE value WHEN ..."""
        outer = max(i for i, end in self.closing.items() if i < index < end)
        return self.tokens[outer + 1].text != "WHEN"

    def _phrase(self, index: int) -> Iterator[Change]:
        """Yield the changes of what begins at a token: a join, a call, a list."""
        text = self.tokens[index].text
        following = self.tokens[index + 1].text if index + 1 < len(self.tokens) else ""
        if (text, following) == ("LEFT", "JOIN"):
            last = next(
                (i for i in range(index, len(self.tokens)) if self.tokens[i].text == "ON"), index
            )
            start, end = self.tokens[index].start, self.tokens[index + 1].end
            edits = (Edit(start, end, "JOIN"),)
            yield Change("outer join made inner", start, self.tokens[last].end, edits)
        elif text in EXTREMES and following == "(":
            start, end = self.tokens[index].start, self.tokens[index].end
            edits = (Edit(start, end, EXTREMES[text]),)
            yield Change("extreme swapped", start, self.tokens[self.closing[index + 1]].end, edits)
        elif text == "coalesce":
            yield from self._coalesce(index)
        elif (text, following) == ("IN", "("):
            yield from self._list(index)

    def _coalesce(self, index: int) -> Iterator[Change]:
        """Yield the first value alone, and what stands in for it alone."""
        close = self.closing[index + 1]
        first, *_ = self._runs(index + 2, close, "")
        start, end = self.tokens[index].start, self.tokens[close].end
        value = self._wrapped("", first.first, first.last, "CASE WHEN 1 THEN NULL ELSE ", " END")
        yield Change("fallback always", start, end, value.edits)
        kept = self.text[self.tokens[first.first].start : self.tokens[first.last - 1].end]
        edits = (Edit(start, start, f"CASE WHEN 1 THEN {kept} ELSE "), Edit(end, end, " END"))
        yield Change("fallback dropped", start, end, edits)

    def _list(self, index: int) -> Iterator[Change]:
        """Yield the list without one of its texts."""
        inner = self.tokens[index + 2 : self.closing[index + 1]]
        texts = [token for token in inner if token.kind == "string"]
        if len(texts) < 2 or len(texts) * 2 - 1 != len(inner):
            return
        for token in texts:
            edits = (Edit(token.start, token.end, "'-'"),)  # no row has it, the list keeps its form
            kind = f"{'hint: ' if index in self.hints else ''}{token.text} left out"
            yield Change(kind, inner[0].start, inner[-1].end, edits)

    def _wrapped(self, kind: str, first: int, last: int, before: str, after: str) -> Change:
        """Put text around tokens `first` to `last`."""
        start, end = self.tokens[first].start, self.tokens[last - 1].end
        return Change(kind, start, end, (Edit(start, start, before), Edit(end, end, after)))

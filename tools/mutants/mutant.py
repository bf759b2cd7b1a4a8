"""A mutant: one small change of one source file, under a name that outlives moved lines."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple


class Edit(NamedTuple):
    """Characters `start` to `end` of a file become `text`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    path: str
    """Of the file, relative to the checkout."""
    where: str
    """A named statement, an object of the schema, or a function."""
    kind: str
    piece: str
    """What is changed, on one line."""
    edits: tuple[Edit, ...]
    lines: tuple[int, int]
    """First and last line of the piece."""
    alive: bool = True
    """A running process can take the change over. A module's or class's own body has run before."""
    run_by: tuple[int, int] | None = None
    """First and last line of what the change shows in, if its own lines run at the import only."""
    number: int = 1
    """Among mutants that are otherwise named alike."""

    @property
    def key(self) -> str:
        """The name by which results and the list of equivalents know it. No line number in it."""
        again = f" #{self.number}" if self.number > 1 else ""
        return f"{self.path}: {self.where}: {self.kind}: {self.piece}{again}"

    @property
    def is_about_plans(self) -> bool:
        """Whether only the plan can change: it is an index that is not unique, or a hint."""
        return self.where.startswith("index ") or self.kind.startswith("hint")

    def apply(self, text: str) -> str:
        """Return the text of its file with the change."""
        for edit in sorted(self.edits, reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return text

    def diff(self, text: str) -> str:
        """Return the changed lines, before and after."""
        lines = difflib.unified_diff(
            text.splitlines(), self.apply(text).splitlines(), lineterm="", n=0
        )
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def one_line(text: str) -> str:
    """Return a piece of a file without its layout and SQL comments."""
    return " ".join(" ".join(line.partition("--")[0] for line in text.splitlines()).split())


def numbered(mutants: Iterable[Mutant]) -> Iterator[Mutant]:
    """Number the mutants that are named alike, so that each key is one mutant's."""
    seen: Counter[str] = Counter()
    for mutant in mutants:
        seen[mutant.key] += 1
        yield replace(mutant, number=seen[mutant.key])


def line_of(text: str, offset: int) -> int:
    """Return the line of a character, from 1 on."""
    return text.count("\n", 0, offset) + 1

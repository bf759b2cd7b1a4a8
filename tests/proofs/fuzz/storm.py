"""Thousands of seeded files on a bench. The first that breaks a promise is shortened and raised."""

from __future__ import annotations

import pytest

from tests.proofs.fuzz.inputs import Chance
from tests.proofs.fuzz.properties import INPUTS, Bench, Broken, Hung, watched

long_only = pytest.mark.skipif(
    not INPUTS, reason="takes minutes; `make fuzz` runs it, with SESSIONDB_FUZZ set"
)


def problem_of(bench: Bench, content: bytes, cut: int | None = None) -> str | None:
    """Return the problem with the import of a file, or None."""
    try:
        with watched():
            bench.check(content, cut=cut)
    except Hung:
        return "Hung"
    except Exception as error:  # noqa: BLE001  # any exception is a finding
        return f"{type(error).__name__}: {error}"
    return None


def shortest(bench: Bench, content: bytes) -> bytes:
    """Return the least part of a file that shows the same kind of problem."""
    wanted = (problem_of(bench, content) or "").splitlines()[:1]
    size = len(content) // 2
    while size and wanted:
        at = 0
        while at < len(content):
            without = content[:at] + content[at + size :]
            if (problem_of(bench, without) or "").splitlines()[:1] == wanted:
                content = without
            else:
                at += size
        size //= 2
    return content


def storm(bench: Bench, count: int, seed: int, *, shorten: bool = True) -> None:
    """Try so many seeded files. Raise the first that breaks a promise, as short as it can be."""
    for number in range(count):
        chance = Chance(seed * 1_000_003 + number)
        content = chance.file()
        cut = chance.random.randrange(len(content) + 1) if chance.one_in(4) else None
        if (problem := problem_of(bench, content, cut)) is not None:
            if cut is None and shorten:
                content = shortest(bench, content)
                problem = problem_of(bench, content)
            raise Broken(f"input {number} of seed {seed}, cut at {cut}: {problem}\n{content!r}")

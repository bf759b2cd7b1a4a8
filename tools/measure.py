"""Measure how the project is built: one table of figures, of one checkout or of two.

    python tools/measure.py                     this checkout
    python tools/measure.py BEFORE AFTER        two checkouts beside each other
    python tools/measure.py --no-time           without the time that `--help` takes
    python tools/measure.py --decodes           also count the JSON decodes of a message
    python tools/measure.py --names             also name the test files and modules without a match

Source is read, not imported, so any checkout will do, of any layout. Only `--help` and the gateway
of `--decodes` run, each in a process of its own that imports the checkout's package. They need what
sessiondb needs, in the Python that runs this. Nothing is written to a checkout, no bytecode either.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import prose
from prose import COLUMNS_MAX
from prose_reader import read

LINES_MAX = 600  # of a file
NAME_CHARS_MAX = 60  # of a test's name
RUNS = 7  # of `--help`, and of the command beside it
# Folders of tests whose files prove no module of sessiondb of their own name: long-running proofs
# and what they share, these tools, the examples, and files that are data.
ASIDE = {"proofs", "support", "tools", "examples", "sample", "typing"}
# Test files that prove no single module, each with what it proves instead.
EXCEPTIONS = {
    "test_costs": "pages, rows and preparations of operations",
    "test_layers": "imports of all modules",
    "test_packaging": "the wheel",
    "test_public_api": "the names that the package exports",
    "test_sample": "the transcripts in tests/sample",
    "test_hostile_text": "hostile text in every call",
    "test_input_limits": "the bounds of input from outside",
    "test_names": "names that lead out of a folder",
    "test_planted_schema": "a database that an attacker made",
    "test_sql_of_input": "where SQL comes from",
}
NO_TOKENS = {
    tokenize.COMMENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER,
    tokenize.INDENT, tokenize.NEWLINE, tokenize.NL,
}  # fmt: skip  # what a reader of code does not see as a token


@dataclass(frozen=True)
class Source:
    """A Python file. Its path is relative to its checkout."""

    path: Path
    text: str

    @cached_property
    def lines(self) -> list[str]:
        """Return its lines."""
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        """Return its syntax tree."""
        return ast.parse(self.text)

    @property
    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Yield every function and method."""
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node


def sources(checkout: Path, folder: str) -> list[Source]:
    """Return the Python files below a folder."""
    found = sorted((checkout / folder).rglob("*.py"))
    return [Source(path.relative_to(checkout), path.read_text(encoding="utf-8")) for path in found]


def imports(code: list[Source]) -> dict[str, set[str]]:
    """Return which modules of the package each imports, anywhere in it and for whatever reason."""
    names = {source.path: ".".join(source.path.with_suffix("").parts) for source in code}
    modules = {name.removesuffix(".__init__") for name in names.values()}
    modules.add("sessiondb.statements")  # a stub: what type checkers import is no other module
    found: dict[str, set[str]] = {}
    for source in code:
        package = names[source.path].split(".")[:-1]  # of `__init__` it is the module itself
        mine = names[source.path].removesuffix(".__init__")
        found[mine] = set()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                found[mine] |= {alias.name for alias in node.names} & modules
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else []
                base = ".".join([*above, *([node.module] if node.module else [])])
                wholes = {f"{base}.{alias.name}" for alias in node.names}
                found[mine] |= (wholes & modules) | (
                    {base} & modules if wholes - modules else set()
                )
        found[mine] -= {mine}
    return found


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components: sets of modules that all reach one another."""
    reached = {module: set(theirs) for module, theirs in edges.items()}
    for between in edges:
        for theirs in reached.values():
            if between in theirs:
                theirs |= reached[between]
    found = {
        frozenset(one for one in theirs if module in reached[one])
        for module, theirs in reached.items()
        if module in theirs
    }
    return sorted(map(set, found), key=len, reverse=True)


def tokens_per_line(code: list[Source]) -> float:
    """Return the mean number of tokens of lines that have any. A docstring is one token."""
    counts: Counter[tuple[Path, int]] = Counter()
    for source in code:
        for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
            if token.type not in NO_TOKENS:
                counts[source.path, token.start[0]] += 1
    return counts.total() / len(counts) if counts else 0.0


def unmatched(code: list[Source], tests: list[Source]) -> tuple[list[Path], list[Path]]:
    """Return the test files named after no module, and the modules after which none is named.

    `tests/x/test_y.py` and `tests/x/test_y_aspect.py` prove `sessiondb/x/y.py`.
    """
    modules = [source.path for source in code if not source.path.stem.startswith("__")]
    without_module, proven = [], set()
    for source in tests:
        folders, name = source.path.parts[1:-1], source.path.stem
        if not name.startswith("test_") or name in EXCEPTIONS or (folders and folders[0] in ASIDE):
            continue
        theirs = {
            path
            for path in modules
            if path.parts[1:-1] == folders and f"{name}_".startswith(f"test_{path.stem}_")
        }
        proven |= theirs
        if not theirs:
            without_module.append(source.path)
    return without_module, [path for path in modules if path not in proven]


def environment(checkout: Path, scratch: str) -> dict[str, str]:
    """Return the environment of a process that imports the checkout's package."""
    return {**os.environ, "PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": f"{scratch}/bytecode"}


def help_times(checkout: Path) -> tuple[float, float]:
    """Return the median seconds of `sessiondb --help` and `sqlite-utils --help`, interleaved."""
    beside = Path(sys.executable).with_name("sqlite-utils")
    commands = [[sys.executable, "-m", "sessiondb", "--help"], [str(beside), "--help"]]
    times: list[list[float]] = [[], []]
    with tempfile.TemporaryDirectory() as scratch:
        for run in range(RUNS + 1):
            for command, taken in zip(commands, times, strict=True):
                began = time.perf_counter()
                subprocess.run(
                    command,
                    cwd=scratch,
                    env=environment(checkout, scratch),
                    stdout=subprocess.DEVNULL,
                    check=True,
                )
                if run:  # the first compiles
                    taken.append(time.perf_counter() - began)
    ours, theirs = map(statistics.median, times)
    return ours, theirs


def decodes(checkout: Path) -> dict[str, int]:
    """Return how often a gateway of the checkout decodes one message. See `count_decodes.py`."""
    script = Path(__file__).with_name("count_decodes.py")
    with tempfile.TemporaryDirectory() as scratch:
        ran = subprocess.run(
            [sys.executable, str(script), f"{scratch}/gateway.db"],
            cwd=scratch,
            env=environment(checkout, scratch),
            stdout=subprocess.PIPE,
            check=True,
        )
    counts: dict[str, int] = json.loads(ran.stdout)
    return counts


def measure(checkout: Path) -> dict[str, str]:
    """Return the figures that reading gives, by name."""
    code, tests = sources(checkout, "sessiondb"), sources(checkout, "tests")
    folders = Counter(source.path.parent.as_posix() for source in code)
    folder, modules = folders.most_common(1)[0]
    rings = circles(imports(code))
    rings_text = f" ({', '.join(str(len(ring)) for ring in rings)} modules)" if rings else ""
    lengths = [(node.end_lineno or 0) - node.lineno + 1 for one in code for node in one.functions]
    names = [
        node.name
        for source in tests
        for node in source.functions
        if source.path.stem.startswith("test_") and node.name.startswith("test_")
    ]
    without_module, without_test = unmatched(code, tests)
    places = [checkout / place for place in prose.CODE + prose.PAGES if (checkout / place).exists()]
    rate = prose.per_100(read(path) for path in prose.files(places))

    figures = {
        "modules": f"{len(code)}",
        "largest folder": f"{modules} modules ({folder})",
        "import circles": f"{len(rings)}{rings_text}",
    }
    totals = {}
    for name, held in (("", code), ("tests: ", tests)):
        lines = [line for source in held for line in source.lines]
        largest = max(held, key=lambda source: len(source.lines))
        large = sum(len(source.lines) > LINES_MAX for source in held)
        wide = sum(len(line) > COLUMNS_MAX for line in lines)
        totals[name] = len(lines)
        figures |= {
            f"{name}lines": f"{len(lines):,}",
            f"{name}largest file": f"{len(largest.lines):,} lines ({largest.path})",
            f"{name}files over {LINES_MAX} lines": f"{large}",
            f"{name}lines over {COLUMNS_MAX} columns": f"{wide:,} ({wide / len(lines):.1%})",
        }
    long_names = sum(len(name) > NAME_CHARS_MAX for name in names)
    return figures | {
        "tokens a line": f"{tokens_per_line(code):.1f}",
        "semicolons per 100 sentences": f"{rate:.1f}",
        "lines of a function, median": f"{statistics.median(lengths):.0f}",
        "lines of a function, maximum": f"{max(lengths)}",
        "lines of tests per line of code": f"{totals['tests: '] / totals['']:.2f}",
        f"test names over {NAME_CHARS_MAX} characters": f"{long_names} of {len(names)}",
        "test files without a module": f"{len(without_module)}",
        "modules without a test file": f"{len(without_test)}",
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Measure how a checkout is built, or two.")
    parser.add_argument("checkouts", nargs="*", type=Path, help="[default: this checkout]")
    parser.add_argument("--no-time", action="store_true", help="do not run `--help`")
    parser.add_argument("--decodes", action="store_true", help="run a gateway, count JSON decodes")
    parser.add_argument("--names", action="store_true", help="name test files without a module")
    options = parser.parse_args()
    checkouts = [path.resolve() for path in options.checkouts] or [prose.ROOT]
    if len(checkouts) > 2 or not all((path / "sessiondb").is_dir() for path in checkouts):
        parser.error("name one checkout of sessiondb, or two")
    columns = []
    for checkout in checkouts:
        figures = measure(checkout)
        if not options.no_time:
            ours, theirs = help_times(checkout)
            figures["--help"] = f"{1000 * ours:.0f} ms"
            figures["sqlite-utils --help"] = f"{1000 * theirs:.0f} ms"
            figures["ratio of the two"] = f"{ours / theirs:.2f}"
        if options.decodes:
            counts = decodes(checkout)
            figures["decodes of a message, until its handler"] = str(counts["until_handler"])
            figures["decodes of a message, in all"] = str(counts["in_all"])
        columns.append(figures)
    head = ("before", "after") if len(columns) == 2 else (checkouts[0].name,)
    rows = [("", *head), *((name, *(one[name] for one in columns)) for name in columns[0])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
    for checkout in checkouts if options.names else ():
        without = unmatched(sources(checkout, "sessiondb"), sources(checkout, "tests"))
        for title, paths in zip(("without a module", "without a test file"), without, strict=True):
            print(f"\n{checkout.name}, {title}:", *paths, sep="\n  ")


if __name__ == "__main__":
    main()

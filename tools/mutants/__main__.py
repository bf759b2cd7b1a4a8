"""`make mutants`: changes rules and statements one at a time, and reports which no test notices.

    python -m tools.mutants --only inbox                 mutants whose key has this in it
    python -m tools.mutants --sample 200 --seed 7        some of them, drawn at random
    python -m tools.mutants --since 1a2b3c4              those that this commit does not have
    python -m tools.mutants --list                       only print the keys
    python -m tools.mutants --again                      also those that have a result

A run may be interrupted. The next one continues: a mutant that was noticed keeps its result, and
one that survived is tried again when tests have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import equivalents
from .mutant import Mutant
from .python import of_python
from .record import Test, record, recorded
from .run import Outcome, Runner, Tree, chosen
from .statements import of_schema, of_statements

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "mutants"
LEFT_OUT = re.compile(r"'.*' left out")
OUTCOMES = ("noticed", "timed out", "noticed by its plan", "survived", "not reached", "equivalent")
# Files without rules: numbers with their arithmetic, classes of errors and results, printing.
NO_RULES = (
    "sessiondb/limits.py",
    "sessiondb/errors.py",
    "sessiondb/models.py",
    "sessiondb/sync.py",
    "sessiondb/cli/",
)
# Modules of the command line that decide more than what is printed.
RULES_ALL_THE_SAME = ("sessiondb/cli/follow.py", "sessiondb/cli/mcp")


def all_mutants(root: Path) -> Iterator[Mutant]:
    """Yield the mutants of every named statement, of the schema and of every rule."""
    for path in sorted((root / "sessiondb" / "sqlite" / "queries").glob("*.sql")):
        yield from of_statements(path.relative_to(root).as_posix(), path.read_text("utf-8"))
    yield from of_schema("schema.sql", (root / "schema.sql").read_text("utf-8"))
    for path in sorted((root / "sessiondb").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith(NO_RULES) or name.startswith(RULES_ALL_THE_SAME):
            yield from of_python(name, path.read_text("utf-8"))


def known_at(root: Path, commit: str) -> set[str]:
    """Return the keys of the mutants that a commit has: their code is older than what follows."""
    git = shutil.which("git")
    if git is None:
        raise SystemExit("mutants: --since needs git")
    files = subprocess.run(
        [git, "archive", "--format=tar", commit, "sessiondb", "schema.sql"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(files.stdout)) as archive:
            archive.extractall(folder, filter="data")
        return {mutant.key for mutant in all_mutants(Path(folder))}


def drawn(
    mutants: Sequence[Mutant], only: Sequence[str], sample: int | None, seed: int
) -> list[Mutant]:
    """Return the mutants of a run, in the order of the files."""
    found = [mutant for mutant in mutants if any(text in mutant.key for text in only)]
    if sample is not None and sample < len(found):
        draw = random.Random(seed)  # noqa: S311  # no secret: a course that can be repeated
        numbers = draw.sample(range(len(found)), sample)
        found = [found[number] for number in sorted(numbers)]
    return found


class Results:
    """The file of results: a line for each mutant that was met. The last line of a key counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                one = json.loads(line)
                self.known[one["key"]] = one

    def find(self, mutant: Mutant, text: str, asking: str) -> dict[str, Any] | None:
        """Return the result of the same change, if the tests could not do better by now."""
        one = self.known.get(mutant.key)
        if one is None or one["diff"] != mutant.diff(text):
            return None
        if one["outcome"] in {"noticed", "timed out"} or one["asked"] == asking:
            return one
        return None

    def add(self, mutant: Mutant, text: str, asking: str, found: Outcome) -> dict[str, Any]:
        """Write a result."""
        one = {
            "key": mutant.key,
            "group": group(mutant),
            "kind": mutant.kind,
            "file": mutant.path,
            "line": mutant.lines[0],
            "diff": mutant.diff(text),
            "asked": asking,
            **asdict(found),
        }
        self.known[mutant.key] = one
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")
        return one


def asked(tests: Sequence[Test]) -> str:
    """Return a digest of tests: of their names, and of the files of tests that they import."""
    known = sorted((test.name, test.version) for test in tests)
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]


def group(mutant: Mutant) -> str:
    """Return which of the three tables of the report a mutant belongs to."""
    if mutant.path == "schema.sql":
        return "schema"
    return "Python" if mutant.path.endswith(".py") else "statements"


def run(
    mutants: Sequence[Mutant], tests: Sequence[Test], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Meet each mutant. Return the results, also those of runs before."""
    results, found = Results(BUILD / "results.jsonl"), []
    texts = {path: (ROOT / path).read_text("utf-8") for path in {one.path for one in mutants}}
    reasons = equivalents.read()
    waiting: list[tuple[Mutant, list[Test], str]] = []
    for mutant in mutants:
        text = texts[mutant.path]
        meeting = chosen(mutant, tests, options.seconds, options.tests)
        asking = asked(meeting)  # now: a test that is written meanwhile has not been asked
        known = None if options.again else results.find(mutant, text, asking)
        if mutant.key in reasons:
            equivalent = Outcome("equivalent", message=reasons[mutant.key])
            found.append(results.add(mutant, text, asking, equivalent))
        elif known is not None:
            found.append(known)
        elif not meeting:
            found.append(results.add(mutant, text, asking, Outcome("not reached")))
        else:
            waiting.append((mutant, meeting, asking))
    print(f"{len(mutants)} mutants, {len(waiting)} to be met", flush=True)
    if waiting:
        tree = Tree(ROOT, BUILD / "tree")
        with Runner(tree, tests, BUILD / "server.log", options.temp) as runner:
            for mutant, meeting, asking in waiting:
                outcome = runner.meet(mutant, meeting)
                one = results.add(mutant, texts[mutant.path], asking, outcome)
                found.append(one)
                print(f"{one['outcome']}: {mutant.key}", flush=True)
    return found


def report(found: Sequence[dict[str, Any]], seed: int) -> int:
    """Print the counts and the survivors. Return how many survived."""
    lines = [f"seed {seed}"]
    for title in ("statements", "schema", "Python"):
        ours = [one for one in found if one["group"] == title]
        if ours:
            lines += [f"\n{title}: {share(ours)}", *table(ours)]
    print("\n".join(lines))
    survivors = [
        one for one in found if one["outcome"] in {"survived", "not reached", "noticed by its plan"}
    ]
    for one in survivors:
        print(f"\n{one['outcome']} ({one['tests_run']} tests): {one['file']}:{one['line']}")
        print(f"  {one['key']}\n{one['diff']}")
    summary = {"seed": seed, "mutants": found}
    (BUILD / "summary.json").write_text(json.dumps(summary, indent=1), "utf-8")
    return len(survivors)


def share(found: Sequence[dict[str, Any]]) -> str:
    """Return how many of the mutants that change behaviour were noticed."""
    counts = Counter(one["outcome"] for one in found)
    real = len(found) - counts["equivalent"]
    seen = counts["noticed"] + counts["timed out"]
    return f"{seen} of {real} noticed ({100 * seen / max(real, 1):.1f} %)"


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each kind."""
    kinds: dict[str, Counter[str]] = {}
    for one in found:
        kind = LEFT_OUT.sub("text left out of a list", one["kind"])
        kinds.setdefault(kind, Counter())[one["outcome"]] += 1
    for kind, counts in sorted(kinds.items()):
        numbers = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if counts[name])
        yield f"  {kind}: {numbers}"


def main(arguments: Sequence[str]) -> int:
    """Run. Return 1 if a mutant survived."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", action="append", help="mutants whose key contains this text (repeat for more)"
    )
    parser.add_argument("--since", help="leave out the mutants that this commit has already")
    parser.add_argument("--sample", type=int, help="how many, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=15, help="of tests for one mutant")
    parser.add_argument("--tests", type=int, default=1000, help="at most, for one mutant")
    parser.add_argument("--temp", default=fast_folder(), help="where tests make databases")
    parser.add_argument("--list", action="store_true", help="print the keys only")
    parser.add_argument("--again", action="store_true", help="also those that have a result")
    parser.add_argument("--no-record", action="store_true", help="trust the records as they are")
    options = parser.parse_args(arguments)
    mutants = list(all_mutants(ROOT))
    equivalents.check(equivalents.read(), (one.key for one in mutants))
    if options.since:
        known = known_at(ROOT, options.since)
        mutants = [mutant for mutant in mutants if mutant.key not in known]
    mutants = drawn(mutants, options.only or [""], options.sample, options.seed)
    if options.list:
        print("\n".join(mutant.key for mutant in mutants))
        return 0
    if not options.no_record:
        record(ROOT, BUILD / "reach")
    tests = recorded(ROOT, BUILD / "reach")
    return 1 if report(run(mutants, tests, options), options.seed) else 0


def fast_folder() -> str:
    """Return a folder in memory, where there is one: a sync costs nothing there."""
    memory = Path("/dev/shm")  # noqa: S108  # tests make private folders in it
    return str(memory) if memory.is_dir() else tempfile.gettempdir()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

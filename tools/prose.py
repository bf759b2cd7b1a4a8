"""Check the project's prose: the length of sentences, semicolons, the width of lines.

    python tools/prose.py                     print `file:line: what` for each finding
    python tools/prose.py --count             print a table instead, one row per folder
    python tools/prose.py docs README.md      check only these files and folders

The exit code is 1 with findings and 0 without. The rules are the constants below. Sentences and
lines count in documentation and in comments, semicolons in documentation alone. The width of Python
code is ruff's business. Rows of Markdown tables, and lines that only a URL makes long, have any
width. `prose_reader.py` says what is prose.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from prose_reader import Lines, Prose, Sentence, read

WORDS_MAX = 40  # of one sentence
COLUMNS_MAX = 100
SEMICOLONS_PER_100_MAX = 2  # sentences of documentation, in one file and in all
SENTENCES_MIN = 20  # fewer have no rate: a shorter file counts in that of all files alone

ROOT = Path(__file__).resolve().parent.parent
CODE = ("sessiondb", "tests", "benchmarks", "examples", "tools", "schema.sql")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs")
# Transcripts that other programs wrote, and migrations that have been applied: they are not edited.
EXCLUDED = ("tests/sample/", "/migrations/0001_", "/migrations/0002_")

URL = re.compile(r"https?://\S+")
PRAGMA_AT_END = re.compile(r"\s*#\s*(?:noqa|type: ignore|fmt:|pragma:)[^#]*$")


def files(places: Iterable[Path]) -> list[Path]:
    """Return the files that hold prose: those named, and those in folders."""
    found = {
        path for place in places for path in ([place] if place.is_file() else place.rglob("*"))
    }
    return sorted(
        path
        for path in found
        if path.suffix in {".md", ".py", ".sql"}
        and not any(part in path.as_posix() for part in EXCLUDED)
    )


def too_long(prose: Prose) -> list[Sentence]:
    """Return the sentences of more words than one may have."""
    return [one for one in prose.documentation + prose.comments if one.words > WORDS_MAX]


def too_wide(prose: Prose) -> Lines:
    """Return the lines of more columns than one may have, even without a URL or a pragma."""
    bare = ((n, line, URL.sub("", PRAGMA_AT_END.sub("", line))) for n, line in prose.lines)
    return [(number, line) for number, line, text in bare if len(text) > COLUMNS_MAX]


def per_100(prose: Iterable[Prose]) -> float:
    """Return the semicolons per 100 sentences of documentation."""
    counts = [(len(one.semicolons), len(one.documentation)) for one in prose]
    sentences = sum(count for _, count in counts)
    return 100 * sum(count for count, _ in counts) / sentences if sentences else 0.0


def findings(name: str, prose: Prose) -> Iterator[str]:
    """Yield what one file breaks, in the order of its lines."""
    found = [(one.line, f"a sentence of {one.words} words") for one in too_long(prose)]
    found += [(number, f"{len(line)} columns") for number, line in too_wide(prose)]
    rate = per_100([prose])
    if len(prose.documentation) >= SENTENCES_MIN and rate > SEMICOLONS_PER_100_MAX:
        where = ", ".join(map(str, prose.semicolons))
        found.append((prose.semicolons[0], f"{rate:.1f} semicolons per 100 sentences: {where}"))
    yield from (f"{name}:{line}: {what}" for line, what in sorted(found))


def table(prose: dict[str, Prose]) -> Iterator[str]:
    """Yield the rows of the summary: one per folder, and one for all."""
    folders: dict[str, list[Prose]] = defaultdict(list)
    for name, one in prose.items():
        folders[Path(name).parent.as_posix()].append(one)
    yield f"{'folder':34} {'sentences':>9} {'too long':>9} {';/100':>6} {'too wide':>9}"
    for folder, held in [*sorted(folders.items()), ("all", list(prose.values()))]:
        count = sum(len(one.documentation) + len(one.comments) for one in held)
        long, wide = (
            sum(len(too_long(one)) for one in held),
            sum(len(too_wide(one)) for one in held),
        )
        yield f"{folder:34} {count:9} {long:9} {per_100(held):6.1f} {wide:9}"


def main(args: list[str] | None = None) -> int:
    """Check, and print what was found."""
    parser = argparse.ArgumentParser(description="Check the project's prose.")
    parser.add_argument("places", nargs="*", type=Path, help="files and folders  [default: all]")
    parser.add_argument("--count", action="store_true", help="print a table, one row per folder")
    options = parser.parse_args(args)
    places = options.places or [ROOT / place for place in CODE + PAGES]
    if missing := [str(place) for place in places if not place.exists()]:
        parser.error(f"no such file or folder: {', '.join(missing)}")
    prose = {os.path.relpath(path): read(path) for path in files(places)}
    found = [what for name, one in prose.items() for what in findings(name, one)]
    rate, count = per_100(prose.values()), sum(len(one.documentation) for one in prose.values())
    if count >= SENTENCES_MIN and rate > SEMICOLONS_PER_100_MAX:
        found.append(f"all: {rate:.1f} semicolons per 100 sentences")
    for line in table(prose) if options.count else found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

"""`make oracle`: imports against the real readers. The exit code is 1 if they differ."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections import Counter
from collections.abc import Sequence

import anyio

from . import files, transcripts
from .departures import IN_THE_CORPUS
from .judge import Difference, judge
from .readers import Missing, Readers, find

SLICE = 250
SHOWN_CHARS = 600


def main() -> int:
    """Judge the corpus, the cases and generated transcripts. Return the exit code."""
    parser = argparse.ArgumentParser(prog="oracle", description=__doc__)
    parser.add_argument("--count", type=int, default=2_000, help="transcripts to generate (2,000)")
    parser.add_argument("--seed", type=int, help="of the transcripts (a new one)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (0)")
    asked = parser.parse_args()
    seed = secrets.randbelow(10**8) if asked.seed is None else asked.seed
    try:
        readers = find()
    except Missing as why:
        print(f"oracle: SKIPPED: {why}")
        return 0
    print(f"oracle: read by {', '.join(readers.found.values())}")
    print(f"oracle: seed {seed}, {asked.count:,} transcripts from number {asked.first}")
    return 1 if anyio.run(_run, readers, seed, asked.first, asked.count) else 0


async def _run(readers: Readers, seed: int, first: int, count: int) -> int:
    """Return how many differences there are. Each is printed."""
    found = 0
    for name, kept in (("corpus", files.real()), ("cases", files.cases())):
        differences = [
            difference
            for difference in await judge(kept, readers)
            if difference.transcript.name not in IN_THE_CORPUS
        ]
        found += _report(name, kept, differences)
    moves: Counter[str] = Counter()
    for start in range(first, first + count, SLICE):
        numbers = range(start, min(start + SLICE, first + count))
        made = [transcripts.generate(seed, number) for number in numbers]
        moves.update(move for transcript in made for move in transcript.moves)
        found += _report(f"{start} to {numbers[-1]}", made, await judge(made, readers))
    print("oracle: oddities: " + ", ".join(f"{n} {move}" for move, n in moves.most_common()))
    print(f"oracle: {found} differences" if found else "oracle: no difference")
    return found


def _report(name: str, judged: Sequence[object], differences: Sequence[Difference]) -> int:
    print(f"oracle: {name}: {len(judged):,} transcripts, {len(differences)} differences")
    for difference in differences:
        print(f"  {difference}")
        for who, value in (("imported", difference.ours), ("real", difference.theirs)):
            print(f"    {who}: {json.dumps(value)[:SHOWN_CHARS]}")
    sys.stdout.flush()
    return len(differences)


if __name__ == "__main__":
    sys.exit(main())

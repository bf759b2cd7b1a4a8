"""`make adapters`: the frameworks' own tests against the adapters. FRAMEWORK names one of them."""

from __future__ import annotations

import argparse
import sys

from .frameworks import FRAMEWORKS
from .runs import Failed, bench, run


def main() -> int:
    """Run them, print the counts, and return 1 if anything is not as it is listed."""
    names = [framework.name for framework in FRAMEWORKS]
    parser = argparse.ArgumentParser(prog="make adapters", description=__doc__)
    parser.add_argument("framework", nargs="*", choices=[*names, []], help="all, if none is named")
    parser.add_argument("--bench", action="store_true", help="measure beside their own stores")
    asked = parser.parse_args()
    is_good = True
    for framework in FRAMEWORKS:
        if asked.framework and framework.name not in asked.framework:
            continue
        if asked.bench and not framework.has_own_store:
            continue
        try:
            if asked.bench:
                _print(bench(framework, _say))
                continue
            judged = run(framework, _say)
        except Failed as failed:
            _print(f"adapters: {failed}")
            is_good = False
            continue
        for sentence in judged.wrong:
            _print(f"  {sentence}")
        _print(f"adapters: {framework.requirement}: {judged}")
        is_good = is_good and not judged.wrong
    return 0 if is_good else 1


def _say(text: str) -> None:
    _print(f"adapters: {text}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

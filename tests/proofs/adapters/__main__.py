"""`make adapters`: the frameworks' own tests against the adapters. FRAMEWORK names one of them."""

from __future__ import annotations

import argparse
import sys

from .frameworks import FRAMEWORKS
from .runs import Failed, run


def main() -> int:
    """Run them, print the counts, and return 1 if anything is not as it is listed."""
    names = [framework.name for framework in FRAMEWORKS]
    parser = argparse.ArgumentParser(prog="make adapters", description=__doc__)
    parser.add_argument("framework", nargs="*", choices=[*names, []], help="all, if none is named")
    chosen = parser.parse_args().framework or names
    is_good = True
    for framework in FRAMEWORKS:
        if framework.name not in chosen:
            continue
        try:
            judged = run(framework, lambda text: _print(f"adapters: {text}"))
        except Failed as failed:
            _print(f"adapters: {failed}")
            is_good = False
            continue
        for sentence in judged.wrong:
            _print(f"  {sentence}")
        _print(f"adapters: {framework.requirement}: {judged}")
        is_good = is_good and not judged.wrong
    return 0 if is_good else 1


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

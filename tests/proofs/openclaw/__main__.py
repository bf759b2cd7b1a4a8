"""`make openclaw`: moves to and from real gateways. The exit code is 1 if anything is wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from .course import back, move, say
from .model import serve
from .program import VERSIONS, Home, Missing, Program, find


def main() -> int:
    """Try every version that is installed. Return the exit code."""
    parser = argparse.ArgumentParser(prog="openclaw", description=__doc__)
    parser.add_argument("version", nargs="*", help=f"versions of OpenClaw ({', '.join(VERSIONS)})")
    parser.add_argument("--keep", type=Path, help="a new folder, in which all is left")
    asked = parser.parse_args()
    programs = []
    for version in asked.version or VERSIONS:
        try:
            programs.append(find(version))
        except Missing as why:
            say(f"SKIPPED: {why}")
    if asked.keep is not None:
        asked.keep.mkdir(exist_ok=True)
        wrong = _try(programs, asked.keep.resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="sessiondb-openclaw-") as folder:
            wrong = _try(programs, Path(folder))
    for sentence in wrong:
        say(f"WRONG: {sentence}")
    if programs:
        say(f"{len(wrong)} things are wrong" if wrong else "nothing is wrong")
    return 1 if wrong else 0


def _try(programs: list[Program], folder: Path) -> list[str]:
    """Move each home in, and each database back to its own version and to every later one."""
    wrong = []
    with serve() as model:
        for number, program in enumerate(programs):
            name = program.version
            database = folder / f"{name}.db"
            home = Home(folder / name, model.url)
            wrong += move(program, home, model, database, folder / f"{name}.log")
            for later in programs[number:]:
                course = f"{name}-to-{later.version}"
                home = Home(folder / course, model.url)
                second = folder / f"{course}.db"
                wrong += back(later, home, model, database, second, folder / f"{course}.log")
    return wrong


if __name__ == "__main__":
    sys.exit(main())

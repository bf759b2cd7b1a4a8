"""The real readers, called through node: one process reads many files.

Where they are is a list of `node_modules` folders: `SESSIONDB_ORACLE` (as `PATH` is written), or
`.venv/.oracle/node_modules`, which `make oracle` fills.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests import ROOT

PACKAGES: Final = {
    "pi": "@earendil-works/pi-coding-agent@1.6.0",
    "openclaw": "openclaw@2026.7.1-2",
    "sdk": "@earendil-works/pi-agent-core@0.84.4",
}
SCRIPT: Final = Path(__file__).with_name("readers.mjs")
INSTALLED: Final = ROOT / ".venv/.oracle/node_modules"
# A reader that follows a circle of parents never ends. So long may a batch take.
TIMEOUT_S: Final = 600


class Missing(Exception):
    """No reader is on this machine. The message says how to get them."""


@dataclass(frozen=True)
class Readers:
    """Real readers on this machine, with their versions."""

    folders: tuple[str, ...]
    found: dict[str, str]

    def read(self, files: Sequence[tuple[str, bytes]]) -> list[dict[str, Any]]:
        """Return what its reader makes of each file, given with the name of that reader.

        The readers repair files, so they get copies, in a home of their own.
        """
        with tempfile.TemporaryDirectory(prefix="sessiondb-oracle-") as home:
            jobs = []
            for number, (by, content) in enumerate(files):
                path = Path(home, f"{number:05}.jsonl")
                path.write_bytes(content)
                jobs.append(json.dumps({"path": str(path), "by": by}))
            _, *answers = _node(self.folders, jobs, home)
        assert len(answers) == len(files), "node ended before the last file"
        return answers


def find() -> Readers:
    """Find node and the packages.

    Raises:
        Missing: there is no node, or no package.
    """
    named = os.environ.get("SESSIONDB_ORACLE", str(INSTALLED))
    folders = tuple(folder for folder in named.split(os.pathsep) if Path(folder).is_dir())
    how = (
        f"Install node 20 or newer, and in a folder of your own `npm install --ignore-scripts "
        f"{' '.join(PACKAGES.values())}`. Then name its node_modules in SESSIONDB_ORACLE. "
        "`make oracle` does the second step by itself, in .venv/.oracle"
    )
    if shutil.which("node") is None:
        raise Missing(f"there is no node on this machine. {how}")
    if not folders:
        raise Missing(f"the real readers are not installed (looked in {named}). {how}")
    with tempfile.TemporaryDirectory(prefix="sessiondb-oracle-") as home:
        [found] = _node(folders, [], home)
    if not found:
        raise Missing(f"none of the real readers is in {named}. {how}")
    return Readers(folders, found)


def _node(folders: Iterable[str], jobs: Sequence[str], home: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["node", str(SCRIPT), *folders],
        input="\n".join(jobs),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        # JavaScript reads a time without a zone as a local one.
        env={"PATH": os.environ["PATH"], "HOME": home, "TZ": "UTC", "OPENCLAW_STATE_DIR": home},
    )
    if done.returncode != 0:
        raise RuntimeError(f"node ended with {done.returncode}: {done.stderr[-2_000:]}")
    return [decoded(line) for line in done.stdout.split("\n") if line]


def decoded(text: str | bytes) -> Any:
    """Decode JSON to the values of JavaScript, where every number is a float of 64 bits.

    A large whole number is not exact there, and an infinite one is written as null.
    """
    return json.loads(text, parse_int=_number, parse_float=_number)


def _number(digits: str) -> float | int | None:
    number = float(digits)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() else number

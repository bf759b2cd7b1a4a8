"""The mutants that change no behaviour, each with its reason: `equivalents.toml` beside this file.

A mutant is named by its key, which has no line number. An entry whose mutant no longer exists
is an error, so the list cannot grow stale.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

LIST = Path(__file__).with_name("equivalents.toml")


class Stale(Exception):
    """The list and the mutants disagree."""


def read(path: Path = LIST) -> dict[str, str]:
    """Return the reason of each entry.

    Raises:
        Stale: an entry has no reason, or is there twice.
    """
    found: dict[str, str] = {}
    for reason in tomllib.loads(path.read_text("utf-8")).get("equivalent", []):
        if not reason.get("reason", "").strip() or not reason.get("mutants"):
            raise Stale(f"{path.name}: an entry needs a reason and its mutants: {reason}")
        for key in reason["mutants"]:
            if key in found:
                raise Stale(f"{path.name}: {key} is there twice")
            found[key] = reason["reason"]
    return found


def check(equivalents: dict[str, str], keys: Iterable[str]) -> None:
    """Compare the list with the mutants that exist.

    Raises:
        Stale: an entry names no mutant of today.
    """
    stale = sorted(equivalents.keys() - set(keys))
    if stale:
        listed = "".join(f"\n  {key}" for key in stale)
        raise Stale(
            f"{LIST.name} names mutants that do not exist. The code has changed: run "
            f"`make mutants ONLY=...` over it, and write each entry anew or delete it.{listed}"
        )

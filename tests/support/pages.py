"""The pages of docs/: which there are, and their examples, as a reader would run them.

A fence says what an example is. ```python title="name.py"``` is a whole program, and
becomes a file of that name. ```console``` is what a reader types (`$ command`) and
sees: the lines below a command are its output, as doctest reads them (`...` stands for
anything). A comment `# exits with 1` says how a command ends. Otherwise it ends with 0.
```sql``` is for `sqlite3 -readonly`. ```sh``` is not run: installing, and what takes
minutes.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from sessiondb.cli import program
from tests import ROOT

DOCS = ROOT / "docs"
HOW_TO = sorted((DOCS / "how-to").glob("*.md"))
RUN = [DOCS / "index.md", *HOW_TO]
"""Pages whose examples are run, each from its beginning to its end in a folder of its own."""

_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r"# exits with (\d+)$", re.MULTILINE)
_SHELL = re.compile(r"[|&;<>$*\n]")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    language: str
    title: str | None
    text: str


def blocks(page: Path, language: str | None = None) -> list[Block]:
    """Return a page's blocks in order, all or those of one language."""
    found = [Block(*match.groups()) for match in _FENCE.finditer(page.read_text(encoding="utf-8"))]
    return [block for block in found if language in (None, block.language)]


def run(page: Path, folder: Path) -> None:
    """Run a page's examples in the current folder. AssertionError where one differs."""
    commands = installed(folder)
    for block in blocks(page):
        if block.title is not None:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            for command, wanted in typed(block):
                code, said = type_in(command, folder, commands)
                exits = _EXIT.search(command)
                assert code == (int(exits[1]) if exits else 0), (
                    f"$ {command}\nended with {code}\n{said}"
                )
                assert not wanted.strip() or _shows(wanted, said), (
                    f"$ {command}\nwanted:\n{wanted}\nsaid:\n{said}"
                )


def typed(block: Block) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, each with the output that the page shows."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = f"{command}\n{more}"
        yield command, output


def installed(folder: Path) -> Path:
    """Make the commands that the pages name, of this interpreter and this checkout."""
    bin_folder = folder.parent / f"{folder.name}-bin"
    bin_folder.mkdir()
    for name, arguments in (("python", ""), ("sessiondb", " -m sessiondb")):
        script = bin_folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        script.chmod(0o755)
    return bin_folder


def type_in(command: str, folder: Path, commands: Path) -> tuple[int, str]:
    """Run a command, here if it needs no shell. Return how it ended and what it printed."""
    words = shlex.split(command, comments=True)
    if not _SHELL.search(command):
        if words[0] == "sessiondb":
            result = CliRunner().invoke(program, words[1:])
            return result.exit_code, result.output
        if words[0] == "python" and words[1] != "-m" and not _EXIT.search(command):
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(
                    compile((folder / words[1]).read_text(), words[1], "exec"),
                    {"__name__": "__main__"},
                )  # our own text
            return 0, printed.getvalue()
    script = ["bash", "-c", f'export PATH="{commands}:$PATH"\n{command}\n']
    done = subprocess.run(
        script, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    return (
        done.returncode if done.returncode >= 0 else 128 - done.returncode,
        done.stdout + done.stderr,
    )


def _shows(wanted: str, said: str) -> bool:
    return doctest.OutputChecker().check_output(
        wanted, said, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )

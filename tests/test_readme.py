"""The README is true.

Its programs print what it says, and its picture shows the table.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT

README = (ROOT / "README.md").read_text("utf-8")
# A program, and what it prints: a block of Python, then a block of the console whose
# first line runs it.
PROGRAMS = re.findall(
    r"```python\n(.*?)```\n+```console\n\$ python (\w+\.py)\n(.*?)```", README, re.DOTALL
)


def test_the_first_page_has_programs_that_print() -> None:
    assert [name for _, name, _ in PROGRAMS] == ["first.py", "compact.py", "bot.py"]


@pytest.mark.parametrize(("program", "name", "printed"), PROGRAMS, ids=[p[1] for p in PROGRAMS])
def test_a_program_of_the_first_page_prints_what_it_says(
    tmp_path: Path, program: str, name: str, printed: str
) -> None:
    (tmp_path / name).write_text(program, "utf-8")
    done = subprocess.run(
        [sys.executable, name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == printed


def test_the_picture_is_drawn_from_the_table() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "plot.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, "run `python benchmarks/plot.py`"


def test_every_link_of_the_first_page_leads_to_a_file() -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", README)
    assert len(links) > 10
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []

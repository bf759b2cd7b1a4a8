"""A file that is being salvaged is open nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sessiondb import sync
from sessiondb.errors import StoreBusy
from sessiondb.sqlite.damaged_file import DamagedFile
from tests import ROOT
from tests.support.damage import (
    Truth,
    salvaged,
)


def test_a_database_that_this_process_has_open_is_refused(
    sound: Truth, broken: Path, new: Path
) -> None:
    with sync.open(broken) as db:
        with pytest.raises(StoreBusy, match="has the database open"):
            salvaged(broken, new)
        db.create_session("still-mine")
    assert not new.exists()


HOLD_OPEN = """
import sys
from sessiondb import sync
with sync.open(sys.argv[1], readonly=sys.argv[2] == "r") as db:
    list(db.sessions())
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("mode", ["r+", "r"])
def test_a_database_that_another_process_has_open_is_refused(
    broken: Path, new: Path, mode: str
) -> None:
    command = [sys.executable, "-c", HOLD_OPEN, str(broken), mode]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(StoreBusy, match=f"pid {process.pid}"):
            salvaged(broken, new)
        process.stdin.close()
    assert salvaged(broken, new).complete


OPEN = """
import sys
from sessiondb import Limits, sync
with sync.open(sys.argv[1], limits=Limits(busy_timeout_s=0.2)):
    pass
"""


def test_no_other_process_opens_a_file_during_a_salvage(broken: Path) -> None:
    with DamagedFile(str(broken)):
        done = subprocess.run(
            [sys.executable, "-c", OPEN, str(broken)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert "StoreBusy" in done.stderr

"""What a person is shown of this process."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sessiondb import process


def test_each_process_has_an_identity_of_its_own() -> None:
    me = process.identity()
    assert (me.host, me.pid) == (socket.gethostname(), os.getpid())
    code = "from sessiondb import process; print(process.identity())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() != str(me)
    assert f"boot_id={me.boot_id!r}" in other.stdout


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="there is no /proc here")
def test_a_command_with_blanks_and_brackets_has_a_start_time() -> None:
    code = """
from pathlib import Path
from sessiondb import process
before = process.identity().pid_started
Path("/proc/self/comm").write_text("a) R (b 1 2")
print(before > 0, process.identity().pid_started == before)
"""
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout == "True True\n"


def test_without_proc_it_has_no_boot_and_no_start_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_PROC", tmp_path)
    me = process.identity()
    assert (me.boot_id, me.pid_started) == ("", 0)
    assert me.pid == os.getpid()


def test_a_row_that_found_no_whole_instance_names_no_holder() -> None:
    row = process.Owner(1, "gateway", "host", 7, "boot", "1:2", "1:3")
    assert process.owner(row) == row
    outside = dataclasses.replace(row, boot_id="", database_file=None, lock_file=None)
    assert process.owner(outside) == outside, "a system may not tell these"
    for name in ("instance_no", "program", "host", "pid", "boot_id"):
        missing: Any = dataclasses.replace(row, **{name: None})
        assert process.owner(missing) is None, name

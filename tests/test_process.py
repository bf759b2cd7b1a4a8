"""What a person is shown of this process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

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

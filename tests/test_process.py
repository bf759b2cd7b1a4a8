"""Which process is alive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sessiondb import process


def test_a_process_is_alive_until_it_ends() -> None:
    me = process.identity()
    assert process.is_alive(me.host, me.boot_id, me.pid, me.pid_started) is True
    assert process.is_alive(me.host, me.boot_id, me.pid, me.pid_started + 1) is False
    assert process.is_alive(me.host, "another boot", me.pid, me.pid_started) is False
    assert process.is_alive("another host", me.boot_id, me.pid, me.pid_started) is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process._started(child.pid)
    assert started is not None
    assert process.is_alive(me.host, me.boot_id, child.pid, started) is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has died, and is left as a zombie
    assert (
        process.is_alive(me.host, me.boot_id, child.pid, started) is False
    )  # a zombie holds nothing
    child.communicate()
    assert process.is_alive(me.host, me.boot_id, child.pid, started) is False


def test_without_proc_a_pid_that_exists_counts_as_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_PROC", tmp_path)
    me = process.identity()
    assert (me.boot_id, me.pid_started) == ("", 0)
    assert process.is_alive(me.host, "", me.pid, 0) is True
    assert process.is_alive(me.host, "", 2**22 + 1, 0) is False

"""The demo keeps its promises, and notices when one is broken.

It runs as a user runs it, as a program of its own, at a fraction of its pace.
"""

from __future__ import annotations

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import ROOT
from tests.support import warm

PROC = Path("/proc")

pytestmark = pytest.mark.slow


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return warm.Popen(
        [sys.executable, "-m", "examples.demo", "--pace", "0.1", "--dir", str(folder), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, folder: Path) -> tuple[int, str]:
    """Run the demo to its end.

    Return its exit code and what it printed. It has nothing to say on stderr.
    """
    with start(*arguments, folder=folder) as demo:
        out, err = demo.communicate(timeout=120)
    assert err == ""
    return demo.returncode, out


def figure(out: str, what: str) -> int:
    """Return a row's number from the report."""
    found = re.search(rf"^  {re.escape(what)} +([\d,]+) ", out, re.MULTILINE)
    assert found is not None, f"the report has no row {what!r}:\n{out}"
    return int(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A short run that kept everything: its folder and its output."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    code, out = run(folder=folder)
    assert code == 0, out
    return folder, out


def test_every_promise_is_kept_and_each_outcome_happened(
    demo: tuple[Path, str],
) -> None:
    _, out = demo
    assert figure(out, "messages accepted") >= 96, "those of the kill, and their replies"
    assert [
        figure(out, what)
        for what in ("lost", "duplicated", "missing from a context", "broken invariants")
    ] == [0, 0, 0, 0]
    assert figure(out, "compactions committed") >= 2
    assert figure(out, "compactions superseded") == 1
    assert "1 of them late" in out
    assert "every promise kept" in out


def test_what_was_accepted_is_what_the_ledger_holds(demo: tuple[Path, str]) -> None:
    folder, out = demo
    assert figure(out, "messages accepted") == len(
        set((folder / "ledger.txt").read_text(encoding="utf-8").splitlines())
    )


def test_piped_output_is_plain_and_fits_eighty_columns(demo: tuple[Path, str]) -> None:
    folder, out = demo
    assert not re.search(r"[\x1b\r]", out)
    assert [line for line in out.splitlines() if len(line) > 80 and str(folder) not in line] == []


def test_it_ends_with_commands_of_its_own_and_what_they_print(demo: tuple[Path, str]) -> None:
    _, out = demo
    shown = out.partition("THE SAME, FROM THE COMMAND LINE")[2]
    assert re.findall(r"^\$ sessiondb (\w+) ", shown, re.MULTILINE) == [
        "status",
        "query",
        "query",
    ]
    assert "agent:main:demo:channel:" in shown
    assert "committed" in shown


@pytest.mark.parametrize(
    ("fault", "row", "sentence"),
    [
        ("lose", "lost", "acknowledged messages are not in the database"),
        ("duplicate", "duplicated", "messages are in the database more than once"),
    ],
)
def test_a_broken_promise_is_named_and_makes_the_exit_code_1(
    fault: str, row: str, sentence: str, tmp_path: Path
) -> None:
    code, out = run("--break", fault, folder=tmp_path / "run")
    assert code == 1
    assert figure(out, row) > 0
    assert sentence in out
    assert "every promise kept" not in out


def test_a_run_that_keeps_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.demo", "--pace", "0.05"]
    done = warm.run(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "Nothing is left behind" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_gateway_and_removes_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start(folder=folder) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if " talk " in line:  # the gateway runs and has accepted messages
                break
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=60)
    assert (demo.returncode, err) == (130, "")
    assert "interrupted" in out
    assert not folder.exists()
    assert processes_that_name(folder) == []


def test_a_folder_that_exists_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    code, out = run(folder=tmp_path)
    assert code == 1
    assert "is there already" in out
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ("ack:a ack:b", "a b"),
        ("ack:a begun:1 ack:b committed:1 ack:c", "b c"),
        ("ack:a begun:1 ack:b committed:1 begun:2 ack:c failed:2", "b c"),
        ("ack:a begun:1 ack:b begun:2 ack:c failed:2 committed:1", "b c"),
        ("ack:a begun:1 ack:b begun:2 ack:c committed:2 superseded:1", "c"),
        ("ack:a begun:1 ack:b committed:1 begun:2 ack:c committed:2", "c"),
    ],
)
def test_the_ledger_says_what_a_context_must_contain(events: str, expected: str) -> None:
    must_be_in_context = runpy.run_path(str(ROOT / "examples" / "demo.py"))["must_be_in_context"]
    order = [(what, "c00", name) for what, name in (event.split(":") for event in events.split())]
    ledger = SimpleNamespace(order=[("ack", "c01", "of another conversation"), *order])
    assert must_be_in_context(ledger, "c00") == set(expected.split())


def processes_that_name(folder: Path) -> list[int]:
    """Return the processes whose command line names a folder.

    Return none where the system cannot tell.
    """
    if not PROC.is_dir():
        return []
    wanted, found = os.fsencode(folder), []
    for entry in PROC.glob("[0-9]*/cmdline"):
        try:
            if wanted in entry.read_bytes():
                found.append(int(entry.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or is somebody else's
    return found

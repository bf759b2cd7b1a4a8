"""What `verify` found, for a person: each thing once, and no log beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import apsw
import pytest

from sessiondb.cli.findings import SHOWN_MAX, print_findings
from sessiondb.models import Finding
from tests.support import warm
from tests.support.command_line import TIMEOUT_S, command, run

ADVICE = "Keep the file, and run `sessiondb salvage DB NEW`. Then look."


@pytest.fixture
def damaged(db: Path) -> Path:
    """Overwrite every leaf of the entries, and one of their index."""
    connection = apsw.Connection(str(db))
    sql = "SELECT pageno FROM dbstat WHERE pagetype = 'leaf' AND name IN ('entry', 'entry_by_id')"
    pages = [number for (number,) in connection.execute(sql)]
    size = connection.pragma("page_size")
    connection.close()
    with db.open("r+b") as file:
        for number in pages:
            file.seek((number - 1) * size)
            file.write(os.urandom(size))
    return db


def test_a_damaged_file_is_reported_once_and_not_logged(damaged: Path) -> None:
    done = warm.run(
        command("verify", damaged), capture_output=True, timeout=TIMEOUT_S, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("cannot be read") > 1
    assert done.stdout.count("If the system's log") == 1
    assert f"sessiondb salvage {damaged} NEW" in done.stdout
    assert " DB" not in done.stdout
    assert ".." not in done.stdout
    found = json.loads(run("verify", damaged, "--json").stdout)["findings"]
    assert len(found) > 1
    assert all("salvage" in finding["message"] for finding in found)


def test_debug_shows_the_librarys_log(damaged: Path) -> None:
    done = warm.run(
        command("verify", damaged, "--debug"), capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert b"is opened again" in done.stderr


def test_findings_of_a_check_share_their_advice(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [
        Finding("head", "one", f"entry 1/2 is odd. {ADVICE}"),
        Finding("tokens", "one", "the sum is 3, not 4. Import it again.", "warning"),
        Finding("head", "two", f"entry 2/7 is odd. It is 9. {ADVICE}"),
    ]
    print_findings(findings, "my files/gateway.db")
    assert capsys.readouterr().out.splitlines() == [
        "error: head",
        "    session one: entry 1/2 is odd.",
        "    session two: entry 2/7 is odd. It is 9.",
        "    > Keep the file, and run `sessiondb salvage 'my files/gateway.db' NEW`. Then look.",
        "warning: tokens",
        "    session one: the sum is 3, not 4.",
        "    > Import it again.",
    ]


def test_many_findings_of_a_check_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    findings = [Finding("file", None, f"page {number} is odd. {ADVICE}") for number in range(50)]
    print_findings(findings, "gateway.db")
    shown = capsys.readouterr().out
    assert shown.count("is odd") == SHOWN_MAX
    assert f"... and {50 - SHOWN_MAX} more" in shown
    assert shown.count("Keep the file") == 1

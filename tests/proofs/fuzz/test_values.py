"""A foreign database is data: any value in a sound file raises errors of ours, and no others.

`values.py` makes the cases from a seed. SESSIONDB_FUZZ makes more cases, and SESSIONDB_FUZZ_SEED
other ones. They run in a process with a limit of memory, because a value may claim to be large.
Findings stand below, by name.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sessiondb import sync
from sessiondb.errors import StoreDamaged
from tests.proofs.fuzz import values as fuzz_values
from tests.proofs.fuzz.properties import INPUTS, SEED
from tests.support.core import change, query
from tests.support.damage import copy_of, make, salvaged

pytestmark = pytest.mark.damaged_values

CASES = max(5, INPUTS // 50)
LIMIT_MIB = 1_500  # of address space, of which some twenty threads take most


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("sound") / "sound.db", sessions=1)


@pytest.fixture
def hostile(sound: Path, tmp_path: Path) -> Path:
    return copy_of(sound, tmp_path / "hostile.db")


def test_any_value_in_a_database_raises_only_errors_of_ours(sound: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        fuzz_values.__file__,
        str(sound),
        str(tmp_path),
        str(LIMIT_MIB),
        str(SEED),
        "0",
        str(CASES),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120 + 10 * CASES
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [], (
        f"SESSIONDB_FUZZ_SEED={SEED}"
    )
    print(f"\nvalues: seed {SEED}, {CASES} hostile databases")


def test_a_reader_that_trusts_what_is_stored_is_found_out(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(hostile, "UPDATE archive SET session_keys = '5'")
    monkeypatch.setattr(
        "sessiondb.maintenance.archive.keys_of",
        lambda session_keys, session_id: list(json.loads(session_keys)),
    )
    assert any("TypeError" in found for found in fuzz_values.calls_of_the_api(hostile, tmp_path))


FOUND = [
    "UPDATE entry SET payload = '' WHERE projection = 1",
    "UPDATE entry SET payload = 'null'",
    (
        'UPDATE entry SET payload = \'{"type": "custom_message", "timestamp": []}\', '
        "projection = 3 WHERE branch_no IS NOT NULL"
    ),
    "UPDATE entry SET payload = printf('%.*c', 100000, '[')",
    (
        "UPDATE event_cursor SET event_no = 253402300800000; "
        "INSERT OR IGNORE INTO event_cursor VALUES ('late', 253402300800000)"
    ),
    "UPDATE inbox SET attempts = 0",
    "UPDATE inbox SET session_no = 4611686018427387904",
    "UPDATE outbox SET session_no = -5",
    (
        "UPDATE archive_chunk SET archive_no = -9223372036854775808 "
        "WHERE archive_no = 1 AND chunk_no = 0"
    ),
    "UPDATE archive_chunk SET rows = 9223372036854775807",
    "UPDATE branch SET parent_branch_no = branch_no, fork_no = first_no",
    "UPDATE branch SET fork_no = NULL",
    "UPDATE branch SET branch_no = 9223372036854775807 WHERE branch_no = 3",
]


@pytest.mark.parametrize("statement", FOUND)
def test_what_the_fuzzer_found_stays_found(hostile: Path, tmp_path: Path, statement: str) -> None:
    change(hostile, statement)
    assert list(fuzz_values.salvage(hostile, tmp_path)) == []
    assert list(fuzz_values.calls_of_the_api(hostile, tmp_path)) == []


def test_a_message_of_an_impossible_session_moves_to_another(hostile: Path, tmp_path: Path) -> None:
    before = query(hostile, "SELECT channel, event_id, payload FROM inbox ORDER BY inbox_no")
    change(hostile, "UPDATE inbox SET session_no = 4611686018427387904 WHERE state = 'queued'")
    report = salvaged(hostile, tmp_path / "new.db")
    assert (
        query(tmp_path / "new.db", "SELECT channel, event_id, payload FROM inbox ORDER BY inbox_no")
        == before
    )
    assert (report.findings, report.complete) == ([], False)


def test_a_text_of_millions_of_lists_is_reported_as_damage(hostile: Path) -> None:
    lists = '{"role":"user","content":[' + "[]," * 1_100_000 + "0]}"
    heads = "SELECT head_no FROM session WHERE archived_at_ms IS NULL"
    values = f"payload = '{lists}', body_at = 0, body_bytes = {len(lists)}"
    change(hostile, f"UPDATE entry SET {values} WHERE projection = 1 AND entry_no IN ({heads})")
    with sync.open(hostile) as db:
        [session_id, *_] = query(
            hostile,
            "SELECT session_id FROM session JOIN entry ON entry_no = head_no "
            "WHERE length(payload) > 1000000",
        )
        assert any(
            "too many values" in finding.message
            for finding in db.verify(db.session_by_id(session_id)).findings
        )
        with pytest.raises(StoreDamaged, match="values"):
            db.session_by_id(session_id).context()

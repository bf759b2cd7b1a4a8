"""Small transcripts, each with the context that the program that wrote it computes.

The folder of cases lies beside a checkout. What each of them stands for has tests of its own in
the project, so without the folder these are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sessiondb

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

CASES = Path(__file__).parents[3] / "shared/cases/transcripts"
FOUND = sorted(CASES.glob("*/*.expected.json"))


def test_there_are_cases() -> None:
    if not CASES.is_dir():
        pytest.skip("the cases are not beside this checkout (../shared/cases)")
    assert len(FOUND) >= 39


@pytest.mark.parametrize("expected", FOUND, ids=lambda path: f"{path.parent.name}/{path.stem[:-9]}")
async def test_a_case_is_read_as_its_own_program_reads_it(expected: Path, tmp_path: Path) -> None:
    name = expected.stem[: -len(".expected")]
    source = expected.with_name(f"{name}.jsonl")
    wanted, content = json.loads(expected.read_bytes()), source.read_bytes()  # noqa: ASYNC240
    async with sessiondb.open(tmp_path / "cases.db") as db:
        [receipt] = (await db.import_path(source, verify=True)).files
        assert receipt.verified, receipt
        assert receipt.session_id is not None
        session = await db.session_by_id(receipt.session_id)
        read = json.loads((await session.context()).as_pi_json())
        await db.export(tmp_path / "out")
        report = await db.verify()
    assert {part: read[part] for part in read} == {part: wanted[part] for part in read}
    assert (tmp_path / "out" / source.name).read_bytes() == content
    assert report.ok, report

"""The coverage-guided fuzzer runs where atheris is installed, and finds a broken importer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import TESTS
from tests.proofs.fuzz.properties import INPUTS, SEED
from tests.proofs.fuzz.storm import long_only

pytestmark = pytest.mark.usefixtures("nothing_left")


FUZZER = TESTS / "proofs/fuzz/import_bytes.py"


def fuzz(tmp_path: Path, *options: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run the coverage-guided fuzzer in a process of its own, after the statements in `first`."""
    broken = BREAK if "broken" in options else ""
    passed = [option for option in options if option != "broken"]
    script = f"{first}\nimport runpy\nfuzzer = runpy.run_path({str(FUZZER)!r}, run_name='fuzz')\n"
    script += f"{broken}\nfuzzer['main']({passed!r})"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )


BREAK = """
from sessiondb import json_text
from sessiondb.transfer import jsonl_reader as jsonl
def neat(text, *more, parse=jsonl.parse_line):
    draft = parse(text, *more)
    draft.before = json_text.dumps_again(json_text.loads(text)) if draft.body_bytes == 0 else text
    return draft
jsonl.parse_line = neat
"""


def test_the_fuzzer_says_so_where_it_is_not_installed(tmp_path: Path) -> None:
    done = fuzz(tmp_path, first="import sys; sys.modules['atheris'] = None")
    assert (done.returncode, "atheris is not installed" in done.stdout) == (3, True)


@pytest.fixture
def atheris() -> None:
    """Require atheris: without it a long run fails, unless SESSIONDB_FUZZ_COVERAGE is `no`."""
    if importlib.util.find_spec("atheris") is None:
        assert os.environ.get("SESSIONDB_FUZZ_COVERAGE") == "no", (
            "atheris is not installed: pip install 'sessiondb[fuzz]', or make fuzz COVERAGE=no"
        )
        pytest.skip("left out, as SESSIONDB_FUZZ_COVERAGE=no asks")


@long_only
def test_the_fuzzer_finds_nothing(tmp_path: Path, atheris: None) -> None:
    done = fuzz(tmp_path, f"-runs={INPUTS}", f"-seed={SEED}")
    print(f"\nfuzz: seed {SEED}: atheris: {' '.join(done.stderr.splitlines()[-6:])[:400]}")
    assert done.returncode == 0, done.stderr[-3_000:]
    assert f"Done {INPUTS} runs" in done.stderr


@long_only
def test_the_fuzzer_finds_an_importer_that_is_broken(tmp_path: Path, atheris: None) -> None:
    done = fuzz(tmp_path, "-runs=2000", f"-seed={SEED}", "broken")
    assert done.returncode != 0
    assert "Broken: " in done.stdout + done.stderr

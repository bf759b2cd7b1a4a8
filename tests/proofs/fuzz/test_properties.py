"""The checks find importers that are broken on purpose, hangs, and leaks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sessiondb import json_text
from sessiondb.json_text import dumps
from sessiondb.transcript import entries
from sessiondb.transcript.entries import Draft
from sessiondb.transfer import jsonl_reader, source
from tests import ROOT, conftest
from tests.proofs.fuzz.properties import SEED, Bench, Broken, Hung, watched
from tests.proofs.fuzz.storm import problem_of, storm

pytestmark = pytest.mark.usefixtures("nothing_left")


def dropping_the_line_after_a_bad_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = jsonl_reader._Reader.batches

    def careless(self: Any) -> Iterator[Any]:
        for batch in batches(self):
            bad = [
                isinstance(item, jsonl_reader.Kept) and item.severity == "damaged"
                for item in batch.items
            ]
            batch.items = [
                item
                for item, after_bad in zip(batch.items, [False, *bad[:-1]], strict=True)
                if not after_bad
            ]
            yield batch

    monkeypatch.setattr(jsonl_reader._Reader, "batches", careless)


def trusting_that_a_character_is_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_byte_span", lambda text, span: (span[0], span[1] - span[0]))


def normalising_what_it_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = entries.parse_line

    def neat(text: str, *more: int) -> Draft:
        draft = parse(text, *more)
        draft.before = dumps(json_text.loads(text)) if draft.body_bytes == 0 else text
        return draft

    monkeypatch.setattr(jsonl_reader, "parse_line", neat)


def repairing_what_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = source._keep

    def repaired(tx: Any, import_file_no: int, kept: jsonl_reader.Kept, *, after_seq: int) -> None:
        kept.content = kept.content.decode(errors="replace").encode()
        keep(tx, import_file_no, kept, after_seq=after_seq)

    monkeypatch.setattr(source, "_keep", repaired)


def letting_a_parsers_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = entries.parse_line

    def brittle(text: str, *more: int) -> Draft:
        json.loads(text)
        return parse(text, *more)

    monkeypatch.setattr(jsonl_reader, "parse_line", brittle)


def writing_into_another_session(monkeypatch: pytest.MonkeyPatch) -> None:
    store = source.store_batch

    def stray(tx: Any, file: Any, batch: Any) -> Any:
        if any(isinstance(item, jsonl_reader.Kept) for item in batch.items):
            tx.run("import_file.date_session", session_no=1, created_at_ms=None, updated_at_ms=7)
        return store(tx, file, batch)

    monkeypatch.setattr(source, "store_batch", stray)


OTHER_LINES = "the entries are not the intact lines|the export .* is not the file"
OTHER_CONTEXT = "an independent reader sees another context|verify finds|Decode|StoreDamaged"
BROKEN = {
    dropping_the_line_after_a_bad_one: OTHER_LINES,
    trusting_that_a_character_is_a_byte: OTHER_CONTEXT,
    normalising_what_it_stores: OTHER_LINES,
    repairing_what_is_damaged: "what is no entry was not kept|the export .* is not the file",
    letting_a_parsers_error_through: "ValueError|JSONDecodeError",
    writing_into_another_session: "another session was touched",
}


@pytest.mark.parametrize("how", BROKEN, ids=lambda how: how.__name__)
def test_an_importer_that_is_broken_on_purpose_is_found_out_by(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    how(monkeypatch)
    with pytest.raises(Broken, match=BROKEN[how]):
        storm(bench, 200, SEED, shorten=False)


def test_a_slow_pattern_over_a_torn_line_is_found_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "_structure", re.compile(r'"(?:[^"\\]+|\\.)*"|[\[\]{}]'))
    monkeypatch.setattr("tests.proofs.fuzz.properties.HANG_CPU_S", 0.5)
    assert (
        problem_of(bench, b'{"type":"custom","data":[' + b"{}," * 600 + b'"' + b"torn " * 12)
        == "Hung"
    )


def test_waiting_without_processor_time_is_a_hang_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("tests.proofs.fuzz.properties.HANG_WALL_S", 0.2)
    with pytest.raises(Hung, match="SIGALRM"), watched():
        (tmp_path / "pipe").read_bytes()
    with watched():
        pass  # and it is over


def test_a_hang_that_cannot_be_stopped_ends_the_process() -> None:
    stuck = """
import threading
from tests.proofs.fuzz import properties
properties.HANG_WALL_S = properties.CLEAN_UP_S = 0.2
def wait_for_ever():
    try:
        threading.Event().wait()
    finally:
        threading.Event().wait()  # a clean-up that waits for a thread, say
with properties.watched():
    wait_for_ever()
"""
    done = subprocess.run(
        [sys.executable, "-c", stuck], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "wait_for_ever" in done.stderr


@pytest.mark.parametrize("what", ["descriptor", "thread"])
def test_a_leak_of_a_test_fails_it(tmp_path: Path, what: str) -> None:
    fixture = conftest.nothing_left.__wrapped__(tmp_path)
    next(fixture)
    over = threading.Event()
    descriptor = os.open(tmp_path, os.O_RDONLY) if what == "descriptor" else None
    thread = threading.Thread(target=over.wait, name="sessiondb-left")
    if what == "thread":
        thread.start()
    with pytest.raises(
        AssertionError, match="left open" if descriptor is not None else "left alive"
    ):
        next(fixture)
    over.set()
    if descriptor is not None:
        os.close(descriptor)
    else:
        thread.join()

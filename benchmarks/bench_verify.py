"""Verify and export: what a check of a database costs beside a scan that decodes, and files out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from time import perf_counter, process_time

import apsw
import pytest
from measure import ASSISTANT_MESSAGE, USER_MESSAGE, Bench, size

import sessiondb

ENTRIES = 10
SESSIONS = size(1_000, 3)
LONG = size(20_000, 30)


@pytest.fixture(params=["small", "large"])
def filled(request: pytest.FixtureRequest, bench: Bench, tmp_path: Path) -> Path:
    """A closed database: many sessions of ten messages, or one long session."""
    sessions, entries = (SESSIONS, ENTRIES) if request.param == "small" else (1, LONG)
    path = tmp_path / f"{request.param}.db"
    bench.run(_fill(path, sessions, entries))
    return path


async def _fill(path: Path, sessions: int, entries: int) -> None:
    messages = [USER_MESSAGE if number % 2 == 0 else ASSISTANT_MESSAGE for number in range(500)]
    async with sessiondb.open(path, durability="normal") as db:
        for number in range(sessions):
            session = await db.session(f"agent:main:chat:{number}")
            for start in range(0, entries, len(messages)):
                await session.append_many(messages[: entries - start])


def texts_of(path: Path) -> list[tuple[int, str]]:
    """Read every text, with the number of its session, as one would without any rule."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return list(connection.execute("SELECT entry_no >> 32, payload FROM entry"))
    finally:
        connection.close()


def test_verify_beside_a_scan_that_decodes(bench: Bench, filled: Path) -> None:
    async def scan() -> float:
        began = process_time()
        for _, text in texts_of(filled):
            json.loads(text)
        return (process_time() - began) * 1000

    async def ours() -> float:
        async with sessiondb.open(filled, readonly=True) as db:
            began = process_time()
            report = await db.verify()
            took_ms = (process_time() - began) * 1000
        assert report.errors == ()
        return took_ms

    target = "<= 6" if filled.stem == "small" else ""
    pairs = bench.rounds(scan, ours, 7)
    bench.say(f"verify, {filled.stem}, processor time", pairs, unit="ms", target=target)


def test_export_beside_writing_and_syncing_files(
    bench: Bench, filled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    async def raw() -> float:
        began = perf_counter()
        files: dict[int, list[str]] = {}
        for session_no, text in texts_of(filled):
            files.setdefault(session_no, []).append(text)
        out.mkdir()
        for session_no, texts in files.items():
            with (out / f"{session_no}.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(f"{text}\n" for text in texts)
                file.flush()
                os.fsync(file.fileno())
        took_ms = (perf_counter() - began) * 1000
        shutil.rmtree(out)
        return took_ms

    async def ours() -> float:
        async with sessiondb.open(filled, readonly=True) as db:
            began = perf_counter()
            report = await db.export(out)
            took_ms = (perf_counter() - began) * 1000
        assert report.ok
        shutil.rmtree(out)
        return took_ms

    bench.say(f"export, {filled.stem}", bench.rounds(raw, ours, 7), unit="ms")

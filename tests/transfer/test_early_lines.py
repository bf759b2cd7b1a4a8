"""Entries that stand before their parents in a file: every order of lines is the same tree.

pi's and OpenClaw's readers look for a parent in the whole file. The reader here does the same in
a dozen lines, so it shares nothing with the import.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.database import salvage
from sessiondb.maintenance import verify_text
from sessiondb.transfer import early_lines, import_run, jsonl_reader
from tests.support.core import change, query
from tests.support.maintenance import EVERYTHING

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

HEADER = {"type": "session", "version": 3, "id": "s", "timestamp": "2026-09-01T10:00:00.000Z"}


def said(entry_id: str, parent_id: str | None, **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": entry_id}]
    return {
        "type": "message",
        "id": entry_id,
        "parentId": parent_id,
        "timestamp": "2026-09-01T10:00:01.000Z",
        "message": {"role": "user", "content": content, "timestamp": 1},
        **fields,
    }


def bytes_of(lines: Sequence[dict[str, Any] | bytes], *, last_ends: bool = True) -> bytes:
    content = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    return content if last_ends else content[:-1]


def texts_of_file(content: bytes) -> list[str]:
    """Return what the model is sent, as pi finds it: from the last line to the root, by ids."""
    entries = [json.loads(line.decode(errors="replace")) for line in content.splitlines()[1:]]
    by_id = {entry["id"]: entry for entry in entries}
    found = []
    at = entries[-1] if entries else None
    while at is not None:
        found.append(at["id"])
        at = by_id.get(at["parentId"])
    return found[::-1]


async def texts(db: sessiondb.SessionDB, session_id: str = "s") -> list[str]:
    messages = json.loads((await (await db.session_by_id(session_id)).context()).as_pi_json())
    return [message["content"][0]["text"] for message in messages["messages"]]


def random_tree(rng: random.Random, count: int) -> list[dict[str, Any]]:
    """Return entries in the order in which they arose: mostly one line, with some branches."""
    found: list[dict[str, Any]] = []
    for number in range(count):
        parent = None if not found else rng.choice(found) if rng.random() < 0.2 else found[-1]
        found.append(said(f"e{number}", parent["id"] if parent is not None else None))
    return found


def disordered(rng: random.Random, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return entries in another order: shuffled, reversed, with neighbours swapped, or rotated."""
    lines = list(entries)
    match rng.randrange(4):
        case 0:
            rng.shuffle(lines)
        case 1:
            lines.reverse()
        case 2:
            for at in rng.sample(range(1, len(lines)), min(3, len(lines) - 1)):
                lines[at - 1], lines[at] = lines[at], lines[at - 1]
        case _:
            at = rng.randrange(len(lines))
            lines = lines[at:] + lines[:at]
    return lines


async def holds(db: sessiondb.SessionDB, source: Path, out: Path) -> None:
    """Check what is stored against the file: its context, its bytes, and `verify`."""
    content = source.read_bytes()  # noqa: ASYNC240
    assert await texts(db) == texts_of_file(content)
    await db.export(out, overwrite=True)
    assert (out / source.name).read_bytes() == content
    report = await db.verify()
    assert report.ok, report.findings


@pytest.mark.parametrize("counted", ["entries", "lines"])
async def test_verify_compares_what_a_receipt_of_early_lines_counts(
    counted: str, tmp_path: Path
) -> None:
    source, path = tmp_path / "s.jsonl", tmp_path / "a.db"
    source.write_bytes(bytes_of([HEADER, said("b", "a"), said("a", None), said("c", "b")]))
    async with sessiondb.open(path) as db:
        assert (await db.import_path(source)).files[0].status == "imported"
        assert (await db.verify()).ok
    change(path, f"UPDATE import_file SET {counted} = {counted} + 1")  # names, from above
    async with sessiondb.open(path, readonly=True) as db:
        messages = [finding.message for finding in (await db.verify()).findings]
    assert any(f"counts {4 + (counted == 'lines')} {counted}, but" in one for one in messages)


@pytest.mark.parametrize(("most", "found"), [(100, 2), (1, 1)])
async def test_verify_reports_parents_that_no_line_explains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, found: int
) -> None:
    monkeypatch.setattr(verify_text, "UNEXPLAINED_MAX", most)
    source, path = tmp_path / "s.jsonl", tmp_path / "a.db"
    lines = [said("b", "a"), said("a", None), said("c", "b"), said("d", "c")]
    source.write_bytes(bytes_of([HEADER, *lines]))
    async with sessiondb.open(path) as db:
        await db.import_path(source)
        assert (await db.verify()).ok
    change(
        path,
        "UPDATE entry SET parent_no = (SELECT a.entry_no FROM entry AS a WHERE a.entry_id = 'a')"
        " WHERE entry_id IN ('c', 'd')",
    )
    async with sessiondb.open(path, readonly=True) as db:
        findings = (await db.verify()).findings
    assert sum("but its text says" in finding.message for finding in findings) == found


SEEDS = range(int(os.environ.get("SESSIONDB_EARLY_LINES", "6")))


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_order_of_lines_is_the_same_tree(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    entries = random_tree(rng, rng.choice([2, 5, 30]))
    if rng.random() < 0.3:
        del entries[rng.randrange(len(entries) - 1)]  # a parent that never comes
    source = tmp_path / "s.jsonl"
    source.write_bytes(bytes_of([HEADER, *disordered(rng, entries)], last_ends=rng.random() < 0.7))
    async with sessiondb.open(tmp_path / "a.db") as db:
        [receipt] = (await db.import_path(source, verify=True)).files
        assert (receipt.verified, receipt.status) == (True, "imported"), receipt
        assert receipt.entries == len(entries)
        await holds(db, source, tmp_path / "out")
        assert (await db.import_path(source)).files[0].status == "unchanged"


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_file_that_grows_in_any_order_is_the_file_imported_once(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    entries = random_tree(rng, rng.choice([3, 12]))
    content = bytes_of([HEADER, *disordered(rng, entries)])
    source = tmp_path / "s.jsonl"
    cuts = sorted(rng.randrange(60, len(content)) for _ in range(rng.choice([1, 3])))
    async with sessiondb.open(tmp_path / "a.db") as db:
        for cut in (*cuts, len(content)):
            source.write_bytes(content[:cut])
            [receipt] = (await db.import_path(source, verify=True)).files
            assert receipt.verified is not False, receipt
        await holds(db, source, tmp_path / "out")


class Killed(Exception):
    """Ends an import as a kill does: nothing of it runs any more."""


@pytest.mark.parametrize("seed", SEEDS[: len(SEEDS) // 3])
async def test_an_import_that_was_killed_anywhere_goes_on(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(jsonl_reader, "IMPORT_BATCH_ENTRIES", 3)
    monkeypatch.setattr(early_lines, "IMPORT_BATCH_ENTRIES", 2)
    lines = disordered(rng, random_tree(rng, 12))
    source = tmp_path / "s.jsonl"
    content = bytes_of([HEADER, *lines])
    source.write_bytes(content[: rng.randrange(60, len(content))])
    write, left = import_run.ImportRun.write, [0]

    async def killed(run: import_run.ImportRun, fn: Any, *, size: int = 0) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return await write(run, fn, size=size)

    async with sessiondb.open(tmp_path / "a.db") as db:
        await db.import_path(source)
        source.write_bytes(content)
        for count in itertools.count():
            left[0], was_killed = count, False
            monkeypatch.setattr(import_run.ImportRun, "write", killed)
            try:
                await db.import_path(source)
            except* Killed:
                was_killed = True
            if not was_killed:
                break
            monkeypatch.setattr(import_run.ImportRun, "write", write)
            await db.export(tmp_path / "between", overwrite=True)
            assert content.startswith((tmp_path / "between/s.jsonl").read_bytes())
            report = await db.verify()
            assert report.ok, report.findings
        await holds(db, source, tmp_path / "out")


# -- what OpenClaw's reader makes of them ---------------------------------------------------------

EARLY = [HEADER, said("early", "late"), said("late", None)]
SIDE = said("aside", "early", appendMode="side")


def leaf(target_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "leaf", "id": "leaf", "parentId": "x", "targetId": target_id, **fields}


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        # Who names what was appended last means the head.
        ([SIDE, said("next", "aside")], ["late", "next"]),
        ([said("e", "early"), SIDE, said("next", "aside")], ["late", "early", "e", "next"]),
        (
            [
                said("e", "early"),
                leaf("early", appendParentId="e", appendMode="side"),
                said("next", "e"),
            ],
            ["late", "early", "next"],
        ),
        (
            [
                said("e", "late"),
                said("orphan", "nobody"),
                leaf("e", appendParentId="orphan"),
                said("next", "orphan"),
            ],
            ["late", "e", "next"],
        ),
        # Of two lines with one id the last one is followed.
        ([said("e", "early"), said("e", "late"), said("next", "e")], ["late", "e", "next"]),
    ],
    ids=["side", "side-behind", "leaf", "leaf-behind-what-waits", "twins"],
)
@pytest.mark.parametrize("batch", [1, 2, 100])
async def test_a_side_append_and_a_repeated_id_are_as_openclaw_reads_them(
    lines: list[dict[str, Any]],
    wanted: list[str],
    batch: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The contexts are those of `SessionManager` of OpenClaw 2026.7.1-2."""
    monkeypatch.setattr(jsonl_reader, "IMPORT_BATCH_ENTRIES", batch)
    source, other = tmp_path / "s.jsonl", tmp_path / "t.jsonl"
    source.write_bytes(bytes_of([*EARLY, *lines]))
    other.write_bytes(bytes_of([HEADER | {"id": "t"}, said("a", None), said("aside", "a")]))
    async with sessiondb.open(tmp_path / "a.db") as db:
        for path in (source, other):
            [receipt] = (await db.import_path(path, verify=True)).files
            assert receipt.verified is True, receipt
        assert await texts(db) == wanted
        assert await texts(db, "t") == ["a", "aside"]
        report = await db.verify()
        assert report.ok, report.findings


# -- beside what else is done to a session ---------------------------------------------------------


async def two_files(db: sessiondb.SessionDB, folder: Path) -> None:
    """Import a file whose lines came in time, and one of an earlier import and of early lines.

    A child of `e1` came before its parent, and the parent of `late` with a second import.
    """
    folder.mkdir()  # noqa: ASYNC240
    for session_id in ("s", "t"):
        lines = [HEADER | {"id": session_id}, said("late", "e0"), said("e2", "e1")]
        (folder / f"{session_id}.jsonl").write_bytes(bytes_of(lines))
        await db.import_path(folder)
        lines += [said("e0", None), said("e1", "e0"), said("e3", "e2")]
        (folder / f"{session_id}.jsonl").write_bytes(bytes_of(lines))
        await db.import_path(folder)


async def both_hold(db: sessiondb.SessionDB, folder: Path, out: Path) -> None:
    await db.export(out, overwrite=True)
    for session_id in ("s", "t"):
        content = (folder / f"{session_id}.jsonl").read_bytes()
        assert await texts(db, session_id) == texts_of_file(content) == ["e0", "e1", "e2", "e3"]
        assert (out / f"{session_id}.jsonl").read_bytes() == content
    report = await db.verify()
    assert report.ok, report.findings


async def test_a_session_with_early_lines_is_archived_and_restored(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        await two_files(db, tmp_path / "in")
        await both_hold(db, tmp_path / "in", tmp_path / "out")
        assert (await db.gc(EVERYTHING)).count("done") == 2
        await db.unarchive("s")
        await db.unarchive("t")
        await both_hold(db, tmp_path / "in", tmp_path / "out")


async def test_a_session_with_early_lines_is_salvaged(tmp_path: Path) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        await two_files(db, tmp_path / "in")
    report = salvage(tmp_path / "one.db", tmp_path / "new.db")
    assert (report.complete, report.findings) == (True, [])
    async with sessiondb.open(tmp_path / "new.db") as db:
        await both_hold(db, tmp_path / "in", tmp_path / "out")


ODD_ORDERS = {
    "the last line is not the last entry": [said("a", None), said("x", "y"), said("y", "a")],
    "a leaf record appends behind a line that waits": [
        said("a", None),
        said("b", "a"),
        said("late", "p"),
        leaf("a", appendParentId="late"),
        said("c", "late"),
        said("p", "b"),
        leaf("c"),
    ],
    "a side append waits, and what follows it does not": [
        said("a", None),
        said("late", "p"),
        said("aside", "late", appendMode="side"),
        said("next", "aside"),
        said("p", "a"),
        said("b", "a"),
        leaf("next"),
    ],
    "a leaf record is ignored, whose line comes later": [
        said("a", None),
        said("b", "a"),
        said("w", "q"),
        leaf("a", appendParentId="p"),
        said("c", "b"),
        said("p", "b"),
        said("q", "p"),
        said("d", "c"),
    ],
}


async def shown_by(db: sessiondb.SessionDB) -> dict[str, Any]:
    """Return the context of both sessions, and where each entry is."""
    return {
        name: (
            [message["content"] for message in (await session.context()).messages],
            [(entry.seq, entry.entry_id, entry.position) for entry in await session.entries()],
        )
        for name in ("one", "two")
        for session in [await db.session_by_id(name)]
    }


@pytest.mark.parametrize("order", ODD_ORDERS)
async def test_a_damaged_session_with_early_lines_is_rebuilt_as_it_was(
    tmp_path: Path, order: str
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.jsonl").write_bytes(
            bytes_of([HEADER | {"id": name}, *ODD_ORDERS[order]])
        )
    async with sessiondb.open(tmp_path / "one.db") as db:
        for name in ("one", "two"):
            await db.import_path(tmp_path / f"{name}.jsonl")
        assert (await db.verify()).findings == ()
        before = await shown_by(db)
    change(tmp_path / "one.db", "UPDATE entry SET tokens_total = 9999 WHERE entry_no >> 32 = 1")
    report = salvage(tmp_path / "one.db", tmp_path / "new.db")
    assert [one.session_id for one in report.damaged_sessions] == ["one"]
    async with sessiondb.open(tmp_path / "new.db") as db:
        assert await shown_by(db) == before
        assert (await db.verify()).findings == ()


async def test_verify_compares_the_parents_of_early_lines(tmp_path: Path) -> None:
    lines = ODD_ORDERS["a leaf record appends behind a line that waits"]
    (tmp_path / "one.jsonl").write_bytes(bytes_of([HEADER, *lines]))
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path / "one.jsonl")
        assert (await db.verify()).findings == ()
    moved = "(SELECT entry_no FROM entry WHERE entry_id = 'a')"
    change(tmp_path / "one.db", f"UPDATE entry SET parent_no = {moved} WHERE entry_id = 'late'")
    async with sessiondb.open(tmp_path / "one.db") as db:
        found = (await db.verify()).findings
    assert any("follows 'a', but its text says 'p'" in one.message for one in found)


@pytest.mark.parametrize("redacted", ["late", "e2", "e0"])
async def test_an_early_line_is_redacted(tmp_path: Path, redacted: str) -> None:
    """Wherever its bytes are: in the entry, in the line's row, in an entry that was repeated."""
    async with sessiondb.open(tmp_path / "one.db") as db:
        await two_files(db, tmp_path / "in")
        session = await db.session_by_id("s")
        await session.redact(redacted)
        await db.export(tmp_path / "out")
        lines = (tmp_path / "out" / "s.jsonl").read_bytes().splitlines()
        found = [json.loads(line) for line in lines[1:]]
        assert [line["id"] for line in found] == ["late", "e2", "e0", "e1", "e3"]
        assert [line["id"] for line in found if redacted in json.dumps(line["message"])] == []
        assert "[redacted]" in (tmp_path / "out" / "s.jsonl").read_text()
        held = (
            "SELECT e.session_id FROM (SELECT entry_no >> 32 AS session_no, payload FROM entry "
            "UNION ALL SELECT f.session_no, q.content FROM quarantine AS q "
            "JOIN import_file AS f USING (import_file_no)) JOIN session AS e USING (session_no) "
            "WHERE CAST(payload AS TEXT) LIKE ?"
        )
        said_so = query(tmp_path / "one.db", held, f'%"text": "{redacted}"%')
        assert set(said_so) == {"t"}
        other = (tmp_path / "out" / "t.jsonl").read_bytes()
        assert other == (tmp_path / "in" / "t.jsonl").read_bytes()
        assert (await db.verify()).ok


async def test_a_reply_that_is_repeated_behind_its_parent_was_paid_for_once(tmp_path: Path) -> None:
    def answers(entry_id: str, parent_id: str | None, tokens: int) -> dict[str, Any]:
        message = {"role": "assistant", "content": [], "usage": {"input": tokens, "output": 1}}
        return said(entry_id, parent_id, message=message)

    source = tmp_path / "s.jsonl"
    lines = [HEADER, answers("late", "e0", 10), answers("late2", "late", 20)]
    async with sessiondb.open(tmp_path / "one.db") as db:
        source.write_bytes(bytes_of(lines))
        await db.import_path(source)
        source.write_bytes(bytes_of([*lines, said("e0", None), answers("twin", "late2", 20)]))
        await db.import_path(source)
        paid = await db.query("SELECT entry_id, tokens_in FROM usage_log ORDER BY entry_id")
        assert paid.rows == (("late", 10), ("late2", 20), ("twin", 20))
        entries = await db.query("SELECT count(*) FROM entry WHERE entry_id = 'late'")
        assert entries.rows == ((2,),)

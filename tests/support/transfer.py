"""Shared by the tests of import and export: transcripts, round trips, a database's rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw

import sessiondb

# A process that opens the file registers itself there, and gives its WAL a name of its own.
# Neither is a change by an import.
NOT_COMPARED = {"instance", "sqlite_sequence", "wal_link"}


def header(session_id: str = "s-1", **fields: Any) -> str:
    return json.dumps(
        {
            "type": "session",
            "version": 3,
            "id": session_id,
            "timestamp": "2026-01-01T00:00:00.000Z",
            "cwd": "/x",
            **fields,
        }
    )


def message(entry_id: str, parent_id: str | None, text: str = "hi", **fields: Any) -> str:
    body = {"role": "user", "content": text, "timestamp": 1}
    entry = {
        "type": "message",
        "id": entry_id,
        "parentId": parent_id,
        "timestamp": "2026-01-01T00:00:01.000Z",
        "message": body,
        **fields,
    }
    return json.dumps(entry, ensure_ascii=False)


def transcript(count: int = 5, session_id: str = "s-1", text: str = "text é 漢 🙂") -> bytes:
    lines = [header(session_id)]
    lines += [
        message(f"m{at}", f"m{at - 1}" if at else None, f"{text} {at}") for at in range(count)
    ]
    return ("\n".join(lines) + "\n").encode()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def tables(path: Path, *, times: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Return all rows of a closed database by table. Without `times`, columns of the clock go."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        names = [
            name
            for (name,) in connection.execute(
                "select name from sqlite_master where type = 'table' order by name"
            )
        ]
        for name in names:
            if name in NOT_COMPARED:
                continue
            columns = [
                column for (_, column, *_) in connection.execute(f"pragma table_info({name})")
            ]
            chosen = [column for column in columns if times or not column.endswith("_ms")]
            order = "1, 2" if len(chosen) > 1 else "1"
            found[name] = list(
                connection.execute(f"select {', '.join(chosen)} from {name} order by {order}")
            )
    finally:
        connection.close()
    return found


def by_name(report: sessiondb.ImportReport) -> dict[str, sessiondb.FileReceipt]:
    return {file.name: file for file in report.files}


def differing(left: Path, right: Path, *, ignoring: str = "expected") -> list[str]:
    """Return the files that differ, or are missing, between two folders."""
    names = {
        path.relative_to(folder)
        for folder in (left, right)
        for path in folder.rglob("*")
        if path.is_file()
    }
    wrong = []
    for name in sorted(names):
        if ignoring in name.parts or name.name == "README.md":
            continue
        if (
            not (left / name).is_file()
            or not (right / name).is_file()
            or (left / name).read_bytes() != (right / name).read_bytes()
        ):
            wrong.append(str(name))
    return wrong


async def export_of(db: sessiondb.SessionDB, session: str, folder: Path) -> bytes:
    """Export one session to a file and return its bytes."""
    report = await db.export(folder / "one.jsonl", session=session, overwrite=True)
    assert report.ok, report
    return (folder / "one.jsonl").read_bytes()


async def round_trip(
    folder: Path, content: bytes
) -> tuple[sessiondb.FileReceipt, list[dict[str, Any]]]:
    """Import one file, compare its export with it, and return the receipt and the context."""
    source = write(folder / "in", {"one.jsonl": content})
    async with sessiondb.open(folder / "one.db") as db:
        [receipt] = (await db.import_path(source, verify=True)).files
        await db.export(folder / "out")
        again = await db.import_path(source)
        assert again.count("unchanged") == 1, again
        messages: list[dict[str, Any]] = []
        if receipt.session_id is not None:
            messages = (await (await db.session_by_id(receipt.session_id)).context()).messages
        findings = (await db.verify()).findings
    assert (folder / "out/one.jsonl").read_bytes() == content
    assert receipt.verified is not False, receipt.notes
    assert [finding for finding in findings if finding.severity == "error"] == []
    return receipt, messages


async def in_steps(
    folder: Path, content: bytes, cuts: list[int]
) -> tuple[list[sessiondb.FileReceipt], dict[str, list[tuple[Any, ...]]], list[bytes]]:
    """Import a file as it grows to each of some lengths, then whole.

    Return the receipts, the rows of the database, and the context.
    """
    source = write(folder / "in", {"one.jsonl": b""}) / "one.jsonl"
    receipts = []
    async with sessiondb.open(folder / "one.db") as db:
        for length in [*sorted(cuts), len(content)]:
            source.write_bytes(content[:length])
            [receipt] = (await db.import_path(source, verify=True)).files
            assert receipt.verified is not False, receipt
            receipts.append(receipt)
        await db.export(folder / "out")
        parts: list[bytes] = []
        if receipts[-1].session_id is not None:
            session = await db.session_by_id(receipts[-1].session_id)
            parts = list((await session.context()).parts)
    assert (folder / "out/one.jsonl").read_bytes() == content
    return receipts, tables(folder / "one.db", times=False), parts

"""What the tests of import and export share: making transcripts, and looking at all of a database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw

import sessiondb

# A process that opens the file registers itself; that says nothing about what an import changed.
NOT_COMPARED = {"instance", "sqlite_sequence"}


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
    """Return every row of every table of a closed database; without `times`, less the columns that hold the clock."""
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
            found[name] = list(
                connection.execute(f"select {', '.join(chosen)} from {name} order by 1, 2")
            )
    finally:
        connection.close()
    return found


def by_name(report: sessiondb.ImportReport) -> dict[str, sessiondb.FileReceipt]:
    return {file.name: file for file in report.files}


def differing(left: Path, right: Path, *, ignoring: str = "expected") -> list[str]:
    """Return the files that are not byte for byte the same in two folders."""
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

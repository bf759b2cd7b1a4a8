"""What the real readers read otherwise than an import did (`make oracle`), as small files.

Each text is what its own program hands to the model: pi 1.6.0, or OpenClaw 2026.7.1 where the
name says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb.limits import IMPORT_BATCH_BYTES
from tests.support.transfer import header, message


def entry(entry_type: str, entry_id: Any, parent_id: Any, **fields: Any) -> str:
    """Return the line of an entry that is no message."""
    placed = {"type": entry_type, "id": entry_id, "parentId": parent_id}
    return json.dumps(placed | {"timestamp": "2026-09-01T10:00:00.000Z"} | fields)


def lines(*texts: str | bytes) -> bytes:
    """Return a file of lines."""
    return b"".join((text.encode() if isinstance(text, str) else text) + b"\n" for text in texts)


def said(entry_id: str, parent_id: str | None, seq: int, lane: str, text: str) -> dict[str, Any]:
    """Return a message of pi's SDK in a lane."""
    return {
        "kind": "entry",
        "lane": lane,
        "type": "message",
        "id": entry_id,
        "parentId": parent_id,
        "seq": seq,
        "timestamp": seq,
        "message": {"role": "user", "content": text, "timestamp": seq},
    }


FOUND: dict[str, tuple[bytes, list[str]]] = {
    "a compaction keeps an entry whose id is a number": (
        lines(
            header(),
            message("a", None, "one"),
            entry("custom_message", 7, "a", content="two"),
            entry("compaction", "c", 7, summary="S", firstKeptEntryId=7),
        ),
        ["S", "two"],
    ),
    "a compaction keeps from a line on that has no type": (
        lines(
            header(),
            message("a", None, "one"),
            entry("", "d", "a"),
            entry("", "e", "d"),
            message("b", "e", "two"),
            message("x", "a", "on another branch"),
            entry("compaction", "c", "b", summary="S", firstKeptEntryId="d"),
            message("f", "c", "three"),
        ),
        ["S", "two", "three"],
    ),
    "a compaction keeps nothing for a line without a type on another branch": (
        lines(
            header(),
            message("a", None, "one"),
            entry("", "d", "a"),
            message("b", "d", "two"),
            message("x", "a", "on another branch"),
            entry("compaction", "c", "x", summary="S", firstKeptEntryId="d"),
        ),
        ["S"],
    ),
    "a last line that is not UTF-8 and has no line end": (
        lines(header(), message("a", None, "one"))
        + message("b", "a", "two: ?").replace("?", "\xe9").encode("latin-1"),
        ["one", "two: \ufffd"],
    ),
    "a long line that is not UTF-8": (
        lines(
            header(),
            message("a", None, "one: ?" + "x" * (IMPORT_BATCH_BYTES + 10))
            .replace("?", "\xe9")
            .encode("latin-1"),
            message("b", "a", "two"),
        ),
        ["one: \ufffd" + "x" * (IMPORT_BATCH_BYTES + 10), "two"],
    ),
    "a compaction of another lane is continued on the main lane (pi's SDK)": (
        lines(
            *map(
                json.dumps,
                [
                    {"kind": "header", "version": 4, "id": "s", "createdAt": 1, "cwd": "/x"},
                    said("a", None, 1, "main", "one"),
                    {"kind": "lane", "seq": 2, "lane": "aside", "leafId": "a"},
                    {
                        **said("c", "a", 3, "aside", ""),
                        "type": "compaction",
                        "summary": "S",
                        "tokensBefore": 1,
                        "retainedTail": [],
                    },
                    said("b", "c", 4, "aside", "two"),
                    {"kind": "lane", "seq": 5, "lane": "main", "leafId": "b"},
                    said("d", "b", 6, "main", "three"),
                ],
            )
        ),
        ["S", "two", "three"],
    ),
    "a compaction that was appended aside is continued (OpenClaw)": (
        lines(
            header(),
            message("a", None, "one"),
            entry(
                "compaction",
                "c",
                "a",
                summary="S",
                firstKeptEntryId="a",
                tokensBefore=1,
                appendMode="side",
            ),
            message("b", "a", "two"),
            entry("leaf", "l", "b", targetId="c"),
            message("d", "c", "three"),
        ),
        ["S", "one", "three"],
    ),
    "a line that Python cannot decode, for it has 100,000 levels": (
        lines(
            header(),
            message("a", None, "one"),
            entry("custom", "p", "a", data=0).replace("0}", "[" * 100_000 + "]" * 100_000 + "}"),
            message("b", "p", "two"),
        ),
        ["one", "two"],
    ),
}


def text_of(found: dict[str, Any]) -> str:
    """Return what a message says."""
    content = found.get("content", found.get("summary"))
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


@pytest.mark.parametrize("name", FOUND)
def test_a_finding_is_read_as_its_own_program_reads_it(name: str, tmp_path: Path) -> None:
    content, wanted = FOUND[name]
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)

    async def run() -> None:
        async with sessiondb.open(tmp_path / "found.db") as db:
            [receipt] = (await db.import_path(source, verify=True)).files
            assert receipt.verified, receipt
            assert receipt.session_id is not None
            session = await db.session_by_id(receipt.session_id)
            read = json.loads((await session.context()).as_pi_json())
            await db.export(tmp_path / "out")
            assert [text_of(found) for found in read["messages"]] == wanted
            report = await db.verify()
            assert report.ok, report

    anyio.run(run)
    assert Path(tmp_path, "out", source.name).read_bytes() == content

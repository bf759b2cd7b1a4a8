"""`verify` compares an import with its file, and finds any difference between them."""

from __future__ import annotations

import ast
import inspect
import json
import types
from pathlib import Path
from typing import Any

import apsw
import pytest

import sessiondb
from sessiondb.transfer import importer, roundtrip
from tests.support.transfer import (
    by_name,
    round_trip,
    transcript,
    write,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


async def test_verify_compares_no_context_that_was_changed_here(
    sample: Path, tmp_path: Path
) -> None:
    async with sessiondb.open(tmp_path / "one.db") as db:
        source = sample / "pi-0.74.2/sessions/compaction-1.jsonl"
        [receipt] = (await db.import_path(source)).files
        await (await db.session_by_id(receipt.session_id or "")).undo_compaction()
        [again] = (await db.import_path(source, verify=True)).files
    assert (again.status, again.verified, again.notes) == ("unchanged", True, ())


async def test_verify_finds_what_was_changed_behind_its_back(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(3), "two.jsonl": transcript(3, "s-2")})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
    connection = apsw.Connection(str(tmp_path / "one.db"))
    connection.execute(
        "update entry set payload = replace(payload, '漢 🙂 1', 'oops') where entry_no >> 32 = 1"
    )
    connection.execute("update entry set projection = 0 where entry_no = (2 << 32) + 1")
    connection.close()
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(source, verify=True)
    files = by_name(report)
    assert "its export differs from the file" in files["one.jsonl"].notes
    assert "its context has 2 messages here and 3 in the file" in files["two.jsonl"].notes
    assert not report.ok


async def test_a_file_that_changes_before_it_is_compared_is_said_to_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway goes on beside a migration: it rewrites a file, and renames another one."""
    names = ("rewritten.jsonl", "renamed.jsonl", "grown.jsonl")
    source = write(
        tmp_path / "in", {name: transcript(3, f"s-{at}") for at, name in enumerate(names)}
    )

    def change(file: Path) -> None:
        if file.name == "rewritten.jsonl":
            file.write_bytes(transcript(4, "s-0", "other"))
        elif file.name == "renamed.jsonl":
            file.rename(file.with_name("renamed.jsonl.reset.2026-05-17T07-35-46.420Z"))
        else:
            file.write_bytes(transcript(4, "s-2"))

    async def compare(backend: Any, path: str, *args: Any, **options: Any) -> list[str]:
        change(Path(path))
        return await roundtrip.compare_with_file(backend, path, *args, **options)

    monkeypatch.setattr(importer, "compare_with_file", compare)
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(source, verify=True)
    files = by_name(report)
    assert not report.ok
    assert {name: (files[name].verified, files[name].note) for name in names} == {
        "rewritten.jsonl": (
            False,
            "not verified: it was rewritten after it was imported; import again",
        ),
        "renamed.jsonl": (
            False,
            "not verified: it was renamed or removed after it was imported; import again",
        ),
        "grown.jsonl": (True, ""),
    }


def said(
    entry_id: str | int | None, parent_id: str | int | None = None, **fields: Any
) -> dict[str, Any]:
    """Return an entry with a user message. Its text is its id, or `text`."""
    names = {} if entry_id is None else {"id": entry_id, "parentId": parent_id}
    body = {"role": "user", "content": fields.pop("text", entry_id)}
    return {"type": "message", **names, "message": body, **fields}


def line_of(*texts: str) -> list[dict[str, Any]]:
    """Return entries as version 1 writes them: without ids, each behind the one before."""
    return [said(None, text=text) for text in texts]


def head(version: Any) -> dict[str, Any]:
    return {"type": "session", "id": "s-1", "version": version}


def leaf(entry_id: str, target: str | None, **fields: Any) -> dict[str, Any]:
    return {"type": "leaf", "id": entry_id, "parentId": None, "targetId": target, **fields}


def summary(index: Any) -> dict[str, Any]:
    return {"type": "compaction", "summary": "so far", "firstKeptEntryIndex": index}


# What the file says, and the texts of its context. A summary is in brackets.
SHAPES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "version 1 has no ids": ([head(1), *line_of("a", "b")], ["a", "b"]),
    "a version that is true": ([head(True), *line_of("a", "b")], ["a", "b"]),
    "a version that is a text": ([head("3"), said("a"), said("b", "a")], ["a", "b"]),
    "a version that is a float": ([head(3.0), said("a"), said("b")], ["b"]),
    "a version that is no number": ([head("new"), said("a"), said("b")], ["b"]),
    "version 1 over a tree": (
        [head(1), said("a"), said("b", "a"), said("c", "a")],
        ["a", "b", "c"],
    ),
    "ids that are numbers": (
        [head(3), said(1, text="1"), said(2, 1, text="2"), said(3, 1, text="3")],
        ["1", "3"],
    ),
    "a line without a type": (
        [head(3), said("a"), {"id": "p", "parentId": "a"}, said("b", "p")],
        ["a", "b"],
    ),
    "two lines without a type": (
        [
            head(3),
            said("a"),
            {"id": "p", "parentId": "a"},
            {"type": 7, "id": "q", "parentId": "p"},
            said("b", "q"),
        ],
        ["a", "b"],
    ),
    "lines without a type in a circle": (
        [
            head(3),
            said("a"),
            {"id": "p", "parentId": "q"},
            {"id": "q", "parentId": "p"},
            said("b", "p"),
        ],
        ["b"],
    ),
    "a leaf of a line without a type": (
        [head(3), said("a"), said("b", "a"), {"id": "p", "parentId": "a"}, leaf("l", "p")],
        ["a"],
    ),
    "an entry with the id of a line without a type": (
        [head(3), said("a"), {"id": "b", "parentId": "a"}, said("b"), said("c", "b")],
        ["b", "c"],
    ),
    "no version": ([{"type": "session", "id": "s-1"}, *line_of("a", "b")], ["a", "b"]),
    "version 3 without a parent": ([head(3), said("a"), {**said("b")}], ["b"]),
    "no header and no ids": (line_of("a", "b"), ["a", "b"]),
    "no header and ids": ([said("a"), said("b", "a")], ["a", "b"]),
    "a leaf goes back": (
        [head(3), said("a"), said("b", "a"), leaf("l", "a"), said("c", "a")],
        ["a", "c"],
    ),
    "the file ends at a leaf": ([head(3), said("a"), said("b", "a"), leaf("l", "a")], ["a"]),
    "a parent that is a leaf": (
        [head(3), said("a"), said("b", "a"), leaf("l", "a"), said("c", "l")],
        ["a", "c"],
    ),
    "a leaf of a leaf": (
        [head(3), said("a"), said("b", "a"), leaf("l", "a"), leaf("m", "l"), said("c", "m")],
        ["a", "c"],
    ),
    "the file ends at a leaf of a leaf": (
        [head(3), said("a"), said("b", "a"), said("c", "b"), leaf("l", "a"), leaf("m", "l")],
        ["a"],
    ),
    "a leaf of nothing": ([head(3), said("a"), leaf("l", None)], []),
    "a leaf of an entry that is lost": ([head(3), said("a"), leaf("l", "lost")], ["a"]),
    "a leaf at the side": (
        [head(3), said("a"), said("b", "a"), leaf("l", "a", appendMode="side")],
        ["a"],
    ),
    "an entry at the side": (
        [head(3), said("a"), said("b", "a", appendMode="side"), said("c", "a")],
        ["a", "c"],
    ),
    "the file ends at the side": (
        [head(3), said("a"), said("b", "a", appendMode="side")],
        ["a"],
    ),
    "everything is kept": (
        [head(1), *line_of("a", "b"), summary(1), *line_of("c")],
        ["<so far>", "a", "b", "c"],
    ),
    "the last is kept": (
        [head(1), *line_of("a", "b"), summary(2), *line_of("c")],
        ["<so far>", "b", "c"],
    ),
    "the first that is kept is the summary": (
        [head(1), *line_of("a", "b"), summary(3), *line_of("c")],
        ["<so far>", "c"],
    ),
    "the first that is kept is no entry": (
        [head(1), *line_of("a", "b"), summary(0), *line_of("c")],
        ["<so far>", "c"],
    ),
    "the first that is kept comes later": (
        [head(1), *line_of("a", "b"), summary(9), *line_of("c")],
        ["<so far>", "c"],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_independent_reader_agrees_on_every_shape(tmp_path: Path, shape: str) -> None:
    lines, expected = SHAPES[shape]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    receipt, messages = await round_trip(tmp_path, content)
    assert receipt.verified, receipt
    assert [
        f"<{one['summary']}>" if "summary" in one else one["content"] for one in messages
    ] == expected


@pytest.mark.parametrize(
    ("timestamp", "ms"),
    [
        ("2026-01-01T00:00:01.234Z", 1_767_225_601_234),
        ("2026-01-01T01:00:01+01:00", 1_767_225_601_000),
        ("2026-01-01T00:00:01", 1_767_225_601_000),
        ("2026-01-01T00:00:01.2349Z", 1_767_225_601_234),  # cut off, not rounded
        ("yesterday", None),
        (7, 7),  # the rest as JavaScript's `new Date` reads it
        (7.9, 7),
        (None, 0),
        (9e15, None),
    ],
)
async def test_the_independent_reader_agrees_on_times(
    tmp_path: Path, timestamp: Any, ms: int | None
) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "custom_message": {"customType": "note", "content": "c", "display": True},
        "branch_summary": {"summary": "b", "fromId": "m0"},
    }
    lines: list[dict[str, Any]] = [
        {"type": kind, "id": kind, "parentId": None, "timestamp": timestamp, **fields}
        for kind, fields in kinds.items()
    ]
    lines[1]["parentId"] = "custom_message"
    content = "".join(json.dumps(line) + "\n" for line in [head(3), *lines]).encode()
    receipt, messages = await round_trip(tmp_path, content)
    assert receipt.verified, receipt
    assert [one["timestamp"] for one in messages] == [ms, ms]
    assert [one["role"] for one in messages] == ["custom", "branchSummary"]


def _globals_of(code: types.CodeType) -> set[str]:
    """Return the global names that a function uses, and those inside it."""
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return set(code.co_names).union(*map(_globals_of, inner))


def test_the_second_reader_uses_no_name_of_the_library() -> None:
    tree = ast.parse(inspect.getsource(roundtrip))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    shared = {
        alias.asname or alias.name
        for node in imports
        if node.level or (node.module or "").startswith("sessiondb")
        for alias in node.names
    }
    assert {"read_context", "raw_lines"} <= shared, "the comparison uses some"
    waiting, seen = ["_context_of"], set[str]()
    while waiting:
        function = getattr(roundtrip, waiting.pop(), None)
        if inspect.isfunction(function) and function.__name__ not in seen:
            seen.add(function.__name__)
            used = _globals_of(function.__code__)
            assert not used & shared, function.__name__
            waiting += used
    assert {"_objects", "_path", "_build"} <= seen

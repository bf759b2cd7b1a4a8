"""What cannot be an entry is kept as bytes with its reason, keeps nothing else out, and goes out again where it stood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb.limits import ENTRY_BYTES_MAX, MIB
from sessiondb.transfer import jsonl_reader
from tests.support.transfer import export_of, header, message, transcript, write

pytestmark = pytest.mark.anyio

HEAD = header().encode()
GOOD = message("a", None, "first").encode()
NEXT = message("b", "a", "second").encode()


async def round_trip(
    tmp_path: Path, content: bytes
) -> tuple[sessiondb.FileReceipt, list[dict[str, Any]]]:
    """Import one file, compare its export with it, and return the receipt and the context."""
    folder = write(tmp_path / "in", {"one.jsonl": content})
    async with sessiondb.open(tmp_path / "one.db") as db:
        [receipt] = (await db.import_path(folder, verify=True)).files
        await db.export(tmp_path / "out")
        again = await db.import_path(folder)
        assert again.count("unchanged") == 1, again
        context = (
            await (await db.session_by_id(receipt.session_id)).context()
            if receipt.session_id
            else None
        )
        findings = (await db.verify()).findings
    assert (tmp_path / "out/one.jsonl").read_bytes() == content
    assert receipt.verified is not False, receipt.notes
    assert [finding for finding in findings if finding.severity == "error"] == []
    return receipt, context.messages if context is not None else []


DAMAGE = {
    "a torn line in the middle": (b'{"type":"message","id":"x"', "not JSON"),
    "not JSON": (b"hello", "not JSON"),
    "a JSON number": (b"42", "a JSON int, not an object"),
    "a JSON array": (b"[1]", "a JSON list, not an object"),
    "a JSON null": (b"null", "a JSON NoneType, not an object"),
    "no type": (b'{"id":"x"}', "no entry type"),
    "a type that is no text": (b'{"type":7}', "no entry type"),
    "invalid UTF-8": (
        b'{"type":"custom","data":"\xff"}',
        "not UTF-8 (byte 0xff at 25 of the line)",
    ),
    "a surrogate as bytes": (b'{"type":"custom","data":"\xed\xa0\x80"}', "not UTF-8"),
    "a NUL byte": (b'{"type":"custom","data":"\x00"}', "not JSON"),
    "NaN": (b'{"type":"custom","data":NaN}', "NaN is not JSON"),
    "infinity": (b'{"type":"custom","data":-Infinity}', "-Infinity is not JSON"),
    "nesting without end": (
        b'{"type":"custom","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "nested too deeply",
    ),
    "two objects on a line": (b'{"type":"custom"}{"type":"custom"}', "not JSON"),
    "a byte order mark in the middle": (b'\xef\xbb\xbf{"type":"custom"}', "not JSON"),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_a_damaged_line_is_quarantined_and_its_neighbours_are_not(
    tmp_path: Path, case: str, end: bytes
) -> None:
    line, reason = DAMAGE[case]
    content = end.join([HEAD, GOOD, line, NEXT, b""])
    receipt, messages = await round_trip(tmp_path, content)
    [found] = receipt.quarantined
    assert reason in found.reason
    assert (found.line, found.byte_offset, found.bytes) == (
        3,
        content.index(end + line + end) + len(end),
        len(line + end),
    )
    assert receipt.entries == 2
    assert [entry["content"] for entry in messages] == ["first", "second"]


ODD = {
    "CRLF": b"\r\n".join([HEAD, GOOD, NEXT, b""]),
    "mixed line ends": HEAD + b"\r\n" + GOOD + b"\n" + NEXT + b"\r\n",
    "no final newline": b"\n".join([HEAD, GOOD, NEXT]),
    "no final newline after CRLF": b"\r\n".join([HEAD, GOOD, NEXT]),
    "blank lines": b"\n\n" + HEAD + b"\n \t\n\n" + GOOD + b"\n\r\n" + NEXT + b"\n\n\n",
    "blank tail without newline": b"\n".join([HEAD, GOOD, NEXT, b"  \t"]),
    "a byte order mark": b"\xef\xbb\xbf" + b"\n".join([HEAD, GOOD, NEXT, b""]),
    "a byte order mark and a blank": b"\xef\xbb\xbf\n" + b"\n".join([HEAD, GOOD, NEXT, b""]),
    "space around": b"\n".join([HEAD, b"  " + GOOD + b" \t", NEXT, b""]),
    "line separators that are not line feeds": b"\n".join(
        [HEAD, GOOD, message("b", "a", "second").encode() + b" \r ", b""]
    ),
    "damage before the header": b"torn{\n" + b"\n".join([HEAD, GOOD, NEXT, b""]),
    "a second header": b"\n".join([HEAD, GOOD, header("other").encode(), NEXT, b""]),
}


@pytest.mark.parametrize("case", ODD)
async def test_odd_files_come_back_byte_for_byte_with_all_their_messages(
    tmp_path: Path, case: str
) -> None:
    _, messages = await round_trip(tmp_path, ODD[case])
    assert [entry["content"] for entry in messages] == ["first", "second"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\n\n\n",
        b" ",
        b"\xef\xbb\xbf",
        b"\xef\xbb\xbf\n",
        b"\xef",
        b"hello",
        b"{",
        HEAD[:-5],
        b"\x00\x01\xff" * 10,
    ],
)
async def test_a_file_without_any_entry_makes_no_session_and_comes_back(
    tmp_path: Path, content: bytes
) -> None:
    receipt, _ = await round_trip(tmp_path, content)
    assert receipt.status == "imported"
    assert receipt.session_id is None
    assert receipt.entries == 0


@pytest.mark.parametrize("content", [HEAD, HEAD + b"\n", HEAD + b"\r\n", HEAD + b"\n\n"])
async def test_a_header_alone_makes_an_empty_session(tmp_path: Path, content: bytes) -> None:
    receipt, messages = await round_trip(tmp_path, content)
    assert (receipt.session_id, receipt.entries, messages) == ("s-1", 0, [])


TREES = {
    "a missing parent": ([message("a", None), message("b", "gone")], ["b"]),
    "its own parent": ([message("a", "a"), message("b", "a")], ["a", "b"]),
    "a cycle": ([message("a", "b"), message("b", "a")], ["a", "b"]),
    "duplicate ids": (
        [message("a", None, "1"), message("a", "a", "2"), message("c", "a", "3")],
        ["1", "2", "3"],
    ),
    "a child before its parent": ([message("b", "a"), message("a", None)], ["a"]),
}


@pytest.mark.parametrize("case", TREES)
async def test_broken_trees_are_read_without_an_end_and_noted(tmp_path: Path, case: str) -> None:
    lines, _ = TREES[case]
    receipt, messages = await round_trip(tmp_path, "\n".join([header(), *lines, ""]).encode())
    assert receipt.entries == len(lines)
    assert len(messages) == len(TREES[case][1])
    if case != "duplicate ids":
        assert "is not in the transcript; it starts a new root" in receipt.note


async def test_a_key_that_a_file_holds_twice_keeps_both_entries(tmp_path: Path) -> None:
    body = {"role": "user", "content": "x", "idempotencyKey": "k"}
    lines = [
        json.dumps({"type": "message", "id": at, "parentId": None, "message": body})
        for at in ("a", "b")
    ]
    receipt, _ = await round_trip(tmp_path, "\n".join([header(), *lines, ""]).encode())
    assert receipt.entries == 2
    assert "idempotency key 'k' was used before" in receipt.note


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(
            {
                "type": "message",
                "id": "a",
                "parentId": None,
                "message": {"role": "user", "content": "\ud83d cut"},
            }
        ),
        json.dumps({"type": "session_info", "id": "a", "parentId": None, "name": "cut \ud83d"}),
        json.dumps({"type": "custom\udc00", "id": "\ud800", "parentId": "\ud801"}),
        json.dumps(
            {
                "type": "message",
                "id": "a",
                "message": {"role": "\ud800", "content": "", "idempotencyKey": "\ud800"},
            }
        ),
        '{"type":"compaction","id":"c","parentId":null,"firstKeptEntryIndex":18446744073709551617,"tokensBefore":1e400,"summary":"s"}',
        '{"type":"message","id":"a","message":{"role":"assistant","usage":{"totalTokens":'
        + "9" * 5000
        + "}}}",
        '{"type":"message","id":"a","message":{"role":"user","content":1e999}}',
        '{"type":"custom","id":"a","parentId":null,"data":' + "[" * 400 + "]" * 400 + "}",
        '{"type":"message","type":"message","id":"a","id":"b","message":{"role":"user"},"message":{"role":"user","content":"last"}}',
    ],
    ids=[
        "surrogate-text",
        "surrogate-name",
        "surrogate-ids",
        "surrogate-key",
        "huge-index",
        "long-number",
        "overflow",
        "deep",
        "twice",
    ],
)
async def test_legal_json_that_is_hard_to_store_is_an_entry(tmp_path: Path, line: str) -> None:
    for version in (None, 3):
        folder = tmp_path / str(version)
        folder.mkdir()
        receipt, _ = await round_trip(
            folder, "\n".join([header(version=version), line, ""]).encode()
        )
        assert (receipt.entries, receipt.damaged) == (1, 0)


@pytest.mark.parametrize(
    ("version", "stored", "noted"),
    [
        (None, 1, False),
        (2, 2, False),
        (4, 4, False),
        (99, 4, True),
        ("3", 1, True),
        (0, 1, True),
        (True, 1, True),
    ],
)
async def test_the_version_is_the_headers_or_said(
    tmp_path: Path, version: object, stored: int, noted: bool
) -> None:
    write(tmp_path / "in", {"one.jsonl": (header(version=version) + "\n").encode()})
    async with sessiondb.open(tmp_path / "one.db") as db:
        [receipt] = (await db.import_path(tmp_path / "in")).files
        assert (await (await db.session_by_id("s-1")).info()).version == stored
    assert ("read as version" in receipt.note) == noted


async def test_a_line_above_the_limit_is_kept_in_pieces_and_its_neighbours_come_in(
    tmp_path: Path,
) -> None:
    long = b'{"type":"custom","data":"' + b"x" * (ENTRY_BYTES_MAX + 3 * MIB + 17) + b'"}'
    receipt, messages = await round_trip(tmp_path, b"\n".join([HEAD, GOOD, long, NEXT, b""]))
    assert receipt.damaged == 1
    assert "longer than" in receipt.quarantined[0].reason
    assert [entry["content"] for entry in messages] == ["first", "second"]


lines = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                HEAD,
                GOOD,
                NEXT,
                GOOD[:-4],
                b"",
                b" ",
                b"\r",
                b"\xef\xbb\xbf",
                GOOD + b"\r",
                message("c", "b").encode(),
            ]
        ),
    ),
    max_size=12,
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=lines, tail=st.booleans())
def test_any_file_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], tail: bool
) -> None:
    import anyio

    content = b"\n".join(lines) + (b"\n" if tail else b"")
    anyio.run(round_trip, tmp_path_factory.mktemp("any"), content)


@settings(max_examples=200)
@given(content=st.binary(max_size=300), limit=st.integers(1, 50))
def test_lines_put_together_are_the_stream_whatever_the_limit(content: bytes, limit: int) -> None:
    blocks = [content[at : at + 7] for at in range(0, len(content), 7)]
    pieces = list(jsonl_reader.raw_lines(lambda _: blocks.pop(0) if blocks else b"", limit))
    assert b"".join(piece for piece, _, _ in pieces) == content
    assert sum(1 for _, begins, _ in pieces if begins) == content.count(b"\n") + (
        not content.endswith(b"\n") and content != b""
    )
    for piece, _, fits in pieces:
        assert not fits or len(piece) <= limit


async def test_one_bad_file_does_not_keep_the_others_out(tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    folder = write(
        tmp_path / "in",
        {
            "a.jsonl.deleted.2026-01-01T00-00-00.zst": b"not zstd",
            "b.jsonl": transcript(),
            "c.jsonl": b"\xff\n",
        },
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder)
        assert (await (await db.session_by_id("s-1")).info()).entries == 5
    bad, good, odd = report.files
    assert (bad.status, good.status, odd.status) == ("failed", "imported", "imported")
    assert "compression is damaged" in bad.note
    assert not report.ok


async def test_the_notes_of_a_file_that_is_odd_throughout_stay_short(tmp_path: Path) -> None:
    lines = [message(f"m{at}", f"gone{at}") for at in range(2_000)]
    receipt, _ = await round_trip(tmp_path, "\n".join([header(), *lines, ""]).encode())
    assert receipt.entries == 2_000
    assert 50 < len(receipt.notes) <= 100
    connection = apsw.Connection(str(tmp_path / "one.db"))
    [(chars,)] = connection.execute("select length(note) from import_file")
    connection.close()
    assert 1_000 < chars <= 4_000


async def test_a_database_opened_for_reading_refuses_an_import(tmp_path: Path) -> None:
    write(tmp_path / "in", {"one.jsonl": transcript(2)})
    async with sessiondb.open(tmp_path / "one.db"):
        pass
    async with sessiondb.open(tmp_path / "one.db", readonly=True) as db:
        assert (await db.import_path(tmp_path / "in", dry_run=True)).count("would-import") == 1
        with pytest.raises(sessiondb.SessionDBError, match="readonly"):
            await db.import_path(tmp_path / "in")


async def test_what_is_appended_later_follows_a_file_that_had_no_final_newline(
    tmp_path: Path,
) -> None:
    for name, content in {
        "whole": b"\n".join([HEAD, GOOD]),
        "torn": b"\n".join([HEAD, GOOD, b'{"type":']),
    }.items():
        folder = write(tmp_path / name, {"one.jsonl": content})
        async with sessiondb.open(tmp_path / f"{name}.db") as db:
            await db.import_path(folder)
            await (await db.session_by_id("s-1")).append({"role": "user", "content": "new"})
            exported = await export_of(db, "s-1", tmp_path)
        assert exported.startswith(content + b"\n")
        last = json.loads(exported[len(content) + 1 :])
        assert (last["message"]["content"], last["parentId"]) == ("new", "a")

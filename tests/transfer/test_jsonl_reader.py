"""Bytes that cannot be an entry are kept with a reason, keep nothing else out, and come back."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb.limits import ENTRY_BYTES_MAX, ENTRY_VALUES_MAX, IMPORT_BATCH_ENTRIES, MIB
from sessiondb.transcript.entries import Draft
from sessiondb.transfer import jsonl_reader
from tests.support.core import one_loop
from tests.support.transfer import (
    header,
    message,
    round_trip,
    transcript,
    write,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

HEAD = header().encode()
GOOD = message("a", None, "first").encode()
NEXT = message("b", "a", "second").encode()
ARCHIVE = "s-1.jsonl.deleted.2026-05-17T07-35-46Z.zst"
DAMAGE = {
    "a torn line in the middle": (b'{"type":"message","id":"x"', "not JSON"),
    "not JSON": (b"hello", "not JSON"),
    "a JSON number": (b"42", "a JSON int, not an object"),
    "a JSON array": (b"[1]", "a JSON list, not an object"),
    "a JSON null": (b"null", "a JSON NoneType, not an object"),
    "no type": (b'{"id":"x"}', "no entry type"),
    "a type that is no text": (b'{"type":7}', "no entry type"),
    "neither UTF-8 nor an entry": (b'{"kind":"\xff"}', "not UTF-8 (byte 0xff at 9 of the line)"),
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
async def test_a_damaged_line_is_quarantined_alone(tmp_path: Path, case: str, end: bytes) -> None:
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


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("odd", [b"\xff", b"\xed\xa0\x80", b"\xe2\x82"])
async def test_bytes_that_are_no_character_are_read_as_u_fffd(
    tmp_path: Path, odd: bytes, end: bytes
) -> None:
    line = GOOD.replace(b"first", b"<" + odd + b">").replace(b'"a"', b'"o"')
    content = end.join([HEAD, line, GOOD, b""])
    receipt, messages = await round_trip(tmp_path, content)
    [found] = receipt.quarantined
    assert (found.line, found.byte_offset, found.bytes) == (
        2,
        len(HEAD + end),
        len(line + end),
    )
    assert f"not UTF-8 (byte 0x{odd[0]:02x} at {line.index(odd)} of the line)" in found.reason
    assert receipt.entries == 2
    assert [entry["content"] for entry in messages] == ["first"], "both are roots"


def test_an_entry_and_its_bytes_are_never_in_two_transactions(tmp_path: Path) -> None:
    """An import that is killed between two batches goes on behind both, or in front of both."""
    lines = [HEAD, *(GOOD.replace(b'"a"', b'"a%d"' % at) for at in range(IMPORT_BATCH_ENTRIES))]
    content = b"".join(line.replace(b"first", b"\xff") + b"\n" for line in lines)
    path = write(tmp_path, {"one.jsonl": content}) / "one.jsonl"
    batches = list(jsonl_reader.read_batches(str(path), jsonl_reader.Place()))
    assert len(batches) > 2
    for batch in batches:
        entries = [item for item in batch.items if isinstance(item, Draft)]
        kept = [item for item in batch.items if isinstance(item, jsonl_reader.Kept)]
        assert len(entries) - len(kept) == (batch is batches[0]), "the header is UTF-8"
        assert batch.bytes == batch.before.bytes + sum(
            len(line) for line in content[batch.before.bytes :].splitlines(True)[: len(entries)]
        )


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
async def test_odd_files_come_back_with_all_their_messages(tmp_path: Path, case: str) -> None:
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
async def test_a_file_without_an_entry_makes_no_session(tmp_path: Path, content: bytes) -> None:
    receipt, _ = await round_trip(tmp_path, content)
    assert receipt.status == "imported"
    assert receipt.session_id is None
    assert receipt.entries == 0


@pytest.mark.parametrize("content", [HEAD, HEAD + b"\n", HEAD + b"\r\n", HEAD + b"\n\n"])
async def test_a_header_alone_makes_an_empty_session(tmp_path: Path, content: bytes) -> None:
    receipt, messages = await round_trip(tmp_path, content)
    assert (receipt.session_id, receipt.entries, messages) == ("s-1", 0, [])


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
        (
            '{"type":"compaction","id":"c","parentId":null,"summary":"s",'
            '"firstKeptEntryIndex":18446744073709551617,"tokensBefore":1e400}'
        ),
        '{"type":"message","id":"a","message":{"role":"assistant","usage":{"totalTokens":'
        + "9" * 5000
        + "}}}",
        '{"type":"message","id":"a","message":{"role":"user","content":1e999}}',
        '{"type":"custom","id":"a","parentId":null,"data":' + "[" * 400 + "]" * 400 + "}",
        (
            '{"type":"message","type":"message","id":"a","id":"b","message":{"role":"user"},'
            '"message":{"role":"user","content":"last"}}'
        ),
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
        ("3", 3, True),
        (3.0, 3, True),
        (2.5, 2, True),
        ("2", 2, True),
        ("three", 3, True),
        ("", 3, True),
        ([], 3, True),
        (0, 1, True),
        (-7, 1, True),
        (True, 1, True),
        ("1e9", 4, True),
    ],
)
async def test_the_version_is_the_headers_or_noted(
    tmp_path: Path, version: object, stored: int, noted: bool
) -> None:
    write(tmp_path / "in", {"one.jsonl": (header(version=version) + "\n").encode()})
    async with sessiondb.open(tmp_path / "one.db") as db:
        [receipt] = (await db.import_path(tmp_path / "in")).files
        assert (await (await db.session_by_id("s-1")).info()).version == stored
    assert ("read as version" in receipt.note) == noted


DAMAGED = {
    "no type": b'{"id":"p","parentId":"m1"}\n',
    "a type that is a number": b'{"type":7,"id":"p","parentId":"m1"}\n',
    "not UTF-8": b'{"type":"custom","id":"p","parentId":"m1","data":"caf\xe9"}\n',
    "too deep": (
        b'{"type":"custom","id":"p","parentId":"m1","data":' + b"[" * 600 + b"]" * 600 + b"}\n"
    ),
    "too deep for Python": (
        b'{"type":"custom","id":"p","parentId":"m1","data":'
        + b"[" * 200_000
        + b"]" * 200_000
        + b"}\n"
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("grows", [False, True])
async def test_a_damaged_line_cuts_no_history_off(
    tmp_path: Path, name: str, *, grows: bool
) -> None:
    before = transcript(2) + DAMAGED[name]
    after = f"{message('c', 'p', 'after')}\n".encode()
    source = write(tmp_path / "in", {"one.jsonl": before + (b"" if grows else after)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
        (source / "one.jsonl").write_bytes(before + after)
        [receipt] = (await db.import_path(source, verify=True)).files
        assert receipt.verified is True
        context = await (await db.session_by_id("s-1")).context()
        assert len(context.messages) == 3
        assert (await db.verify()).ok
        await db.export(tmp_path / "out")
    assert (tmp_path / "out/one.jsonl").read_bytes() == before + after


async def test_a_line_of_too_many_values_cuts_no_history_off(tmp_path: Path) -> None:
    values = b"0," * ENTRY_VALUES_MAX + b"0"
    line = b'{"type":"custom","id":"p","parentId":"a","data":[' + values + b"]}"
    after = message("c", "p", "after").encode()
    receipt, messages = await round_trip(tmp_path, b"\n".join([HEAD, GOOD, line, after, b""]))
    assert (receipt.damaged, receipt.verified) == (1, True)
    assert [entry["content"] for entry in messages] == ["first", "after"]


async def test_a_damaged_line_in_pieces_cuts_no_history_off(tmp_path: Path) -> None:
    """The file grows after its import. Two lines are so long, and each has its own link."""
    long = [
        b'{"type":"custom","id":"%b","parentId":"%b","data":"\xff%b"}'
        % (own, parent, b"x" * (jsonl_reader.PIECE_BYTES * 2 + 9))
        for own, parent in ((b"p", b"a"), (b"q", b"p"))
    ]
    before = b"\n".join([HEAD, GOOD, *long, b""])
    after = message("c", "q", "after").encode() + b"\n"
    source = write(tmp_path / "in", {"one.jsonl": before})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
        (source / "one.jsonl").write_bytes(before + after)
        [receipt] = (await db.import_path(source, verify=True)).files
        assert receipt.verified is True
        context = await (await db.session_by_id(receipt.session_id)).context()
        assert [entry["content"] for entry in context.messages] == ["first", "after"]


async def test_a_session_of_version_1_keeps_entries_when_it_is_compacted(tmp_path: Path) -> None:
    lines = [header(version=1), message("a", None), message("b", "a"), message("c", "a")]
    write(tmp_path / "in", {"one.jsonl": "".join(f"{line}\n" for line in lines).encode()})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path / "in")
        session = await db.session_by_id("s-1")
        kept = {"type": "compaction", "summary": "so far", "firstKeptEntryId": "b"}
        await session.append(kept)
        assert len((await session.context()).messages) == 3
        assert (await db.verify()).ok


@one_loop
async def test_a_line_above_the_limit_is_kept_in_pieces_and_cuts_no_history_off(
    tmp_path: Path,
) -> None:
    """What follows it comes in the same import, and in one after that."""
    text = b"x" * (ENTRY_BYTES_MAX + 3 * MIB + 17)
    long = b'{"type":"custom","id":"p","parentId":"a","data":"' + text + b'"}'
    after = message("c", "p", "second").encode()
    receipt, messages = await round_trip(tmp_path, b"\n".join([HEAD, GOOD, long, after, b""]))
    assert (receipt.damaged, receipt.verified) == (1, True)
    assert "longer than" in receipt.quarantined[0].reason
    assert [entry["content"] for entry in messages] == ["first", "second"]
    source = tmp_path / "in" / receipt.name
    with source.open("ab") as file:
        file.write(message("d", "p", "third").encode() + b"\n")
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
        context = await (await db.session_by_id(receipt.session_id)).context()
    assert [entry["content"] for entry in context.messages] == ["first", "third"]


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
# A byte order mark that does not begin the file is a damaged line.
@example(lines=[b"", b"\xef\xbb\xbf"], tail=False)
@example(lines=[GOOD, b"\xef\xbb\xbf", b"\xef\xbb\xbf"], tail=True)
@example(lines=[b"\xef\xbb\xbf", b"\xef\xbb\xbf"], tail=False)
def test_any_file_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], tail: bool
) -> None:
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


# -- compressed files -----------------------------------------------------------------------------


async def test_compressed_files_need_the_extra_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    folder = write(
        tmp_path / "in",
        {ARCHIVE: b"x", "b.jsonl": transcript(1)},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        report = await db.import_path(folder)
    assert "pip install 'sessiondb[zstd]'" in next(
        file.note for file in report.files if file.status == "failed"
    )
    assert report.count("imported") == 1


async def test_a_compressed_archive_can_grow_and_be_torn(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    whole = transcript(400)
    for content, status in (
        (whole[:1000], "imported"),
        (whole[:5001], "grown"),
        (whole, "grown"),
        (whole, "unchanged"),
    ):
        write(tmp_path / "in", {ARCHIVE: zstandard.ZstdCompressor().compress(content)})
        async with sessiondb.open(tmp_path / "one.db") as db:
            [receipt] = (await db.import_path(tmp_path / "in", verify=True)).files
            assert (receipt.status, receipt.verified, receipt.bytes) == (status, True, len(content))


async def test_a_file_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zstandard = pytest.importorskip("zstandard")
    monkeypatch.setattr("sessiondb.transfer.jsonl_reader.UNPACKED_BYTES_MAX", 50_000)
    bomb = zstandard.ZstdCompressor().compress((header() + "\n").encode() + b"\n" * 10_000_000)
    write(tmp_path / "in", {ARCHIVE: bomb})
    async with sessiondb.open(tmp_path / "one.db") as db:
        [receipt] = (await db.import_path(tmp_path / "in")).files
    assert receipt.status == "failed"
    assert "unpacks to more than 50,000 bytes" in receipt.note


@pytest.mark.parametrize(("limit", "is_refused"), [(10, False), (9, True)])
def test_a_file_may_unpack_to_its_limit_and_no_further(limit: int, is_refused: bool) -> None:
    unpacked = jsonl_reader._Unpacked(io.BytesIO(b"0123456789"), ValueError, limit)
    assert unpacked.read(4) == b"0123"
    if is_refused:
        with pytest.raises(jsonl_reader.UnreadableFile, match="unpacks to more than 9 bytes"):
            unpacked.read(6)
    else:
        assert unpacked.read(7) == b"456789"
        assert unpacked.read(1) == b""

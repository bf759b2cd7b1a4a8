"""SQLite's file format, read without SQLite: compared with what SQLite writes and reads."""

from __future__ import annotations

import struct
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessiondb.sqlite import damaged_pages
from sessiondb.sqlite.file_format import (
    BadCell,
    Value,
    cell_places,
    decode_all,
    is_plausible_page,
    record_sizes,
    signed,
    varint,
)
from tests.support.damage import PAGE

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.one_of(
    st.none(),
    INT64,
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40),
    st.binary(max_size=40),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(number=INT64, record=st.lists(VALUES, min_size=1, max_size=12))
def test_a_row_that_sqlite_wrote_is_read_as_sqlite_reads_it(
    tmp_path_factory: pytest.TempPathFactory, number: int, record: list[Value]
) -> None:
    path = tmp_path_factory.mktemp("format") / "one.db"
    write_one(path, number, record)
    with closing(apsw.Connection(str(path))) as db:
        [(key, *expected)] = db.execute("SELECT rowid, * FROM one").fetchall()
    page = path.read_bytes()[PAGE : 2 * PAGE]
    [at] = cell_places(page, 2, PAGE)
    total, at = varint(page, at)
    raw_key, at = varint(page, at)
    header, serials = record_sizes(page[at : at + total], 0, total, len(record))
    assert (signed(raw_key), decode_all(page[at : at + total], header, serials)) == (
        key,
        (expected, ""),
    )


def write_one(path: Path, number: int, record: list[Value]) -> None:
    columns = ", ".join(f"c{n}" for n in range(len(record)))
    marks = ", ".join("?" for _ in record)
    with closing(apsw.Connection(str(path))) as db:
        db.execute(
            f"PRAGMA page_size = {PAGE}; PRAGMA synchronous = off; CREATE TABLE one ({columns})"
        ).fetchall()
        db.execute(
            f"INSERT INTO one (rowid, {columns}) VALUES (?, {marks})", (number, *record)
        ).fetchall()


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 8])
def test_a_number_that_the_data_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(BadCell, match="runs past the end"):
        varint(data, 0)


@pytest.mark.parametrize(
    ("record", "total", "reason"),
    [
        (b"\x09\x01", 2, "header runs past the row"),
        (b"\x02\x0a", 2, "type that does not exist"),
        (b"\x03\x01\x01\x00\x00", 5, "type that does not exist"),  # more columns than there are
        (b"\x02\x01\x00", 2, "do not add up"),
    ],
)
def test_a_record_whose_header_contradicts_it_is_refused(
    record: bytes, total: int, reason: str
) -> None:
    with pytest.raises(BadCell, match=reason):
        record_sizes(record, 0, total, 1)


def test_a_text_that_is_not_utf_8_comes_as_bytes_with_the_reason() -> None:
    assert decode_all(b"\xff\x07", 0, [15, 1]) == ([b"\xff", 7], "a text of it is not UTF-8")


@pytest.mark.parametrize("size", [512, 1024, 2048, 4096, 8192, 32768, 65536])
def test_without_a_header_the_pages_tell_their_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "one.db"
    with closing(apsw.Connection(str(path))) as db:
        db.execute(f"PRAGMA page_size = {size}; CREATE TABLE t (x)").fetchall()
        with db:
            for number in range(3_000):
                db.execute("INSERT INTO t VALUES (?)", (f"{number} " * (1 + number % 60),))
    with path.open("r+b") as file:
        file.write(bytes(100))
        file.flush()
        notes: list[str] = []
        assert damaged_pages.page_size_of(file.fileno(), path.stat().st_size, notes) == size
    [note] = notes
    assert f"Its pages seem to have {size} bytes" in note


def leaf(*places: int, count: int | None = None, content: int = 0) -> bytes:
    """Return the bytes of a leaf of 512 bytes with rows at these places."""
    head = struct.pack(">B3HB", 13, 0, len(places) if count is None else count, content, 0)
    return (head + struct.pack(f">{len(places)}H", *places)).ljust(512, b"\0")


@pytest.mark.parametrize(
    ("page", "plausible"),
    [
        (leaf(500, content=500), True),
        (leaf(500, 300, 256, content=256), True),
        (leaf(), False),  # no rows
        (leaf(500, content=9), False),  # the rows begin in the list of their places
        (leaf(500, content=10), True),
        (leaf(500, content=513), False),
        (leaf(9, 300, content=12), False),  # a row in the list of places
        (leaf(255, content=255), False),  # no row in the second half
        (leaf(512, content=512), False),  # behind the end
        (b"\x0c" + leaf(500, content=500)[1:], False),
        (leaf(500, content=500)[:511], False),
        (bytes(512), False),
    ],
)
def test_a_page_is_recognised_by_its_head_and_its_places(page: bytes, plausible: bool) -> None:
    assert is_plausible_page(page, 512) is plausible

"""A file that grows adds its new part. A file that was rewritten is left as it was imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessiondb
from tests.support.core import one_loop
from tests.support.transfer import (
    by_name,
    export_of,
    header,
    in_steps,
    message,
    round_trip,
    tables,
    transcript,
    write,
)

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

PIECES = [
    *transcript(4).splitlines(),
    b"",
    b"  ",
    b"\xff damaged \xe2\x82",
    b"{torn",
    '{"type":"custom","id":"ü","parentId":"m3","data":"漢字🙂"}'.encode(),
    b"\xef\xbb\xbf",
]
contents = st.tuples(
    st.lists(st.sampled_from(PIECES), max_size=8), st.sampled_from([b"\n", b"\r\n"]), st.booleans()
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=contents, cuts=st.lists(st.integers(0, 400), max_size=4))
def test_a_file_imported_as_it_grows_is_the_file_imported_once(
    tmp_path_factory: pytest.TempPathFactory,
    content: tuple[list[bytes], bytes, bool],
    cuts: list[int],
) -> None:
    lines, end, final = content
    whole = end.join(lines) + (end if final and lines else b"")
    folder = tmp_path_factory.mktemp("grow")
    receipts, grown, grown_context = anyio.run(
        in_steps, folder / "a", whole, [min(cut, len(whole)) for cut in cuts]
    )
    _, once, once_context = anyio.run(in_steps, folder / "b", whole, [])
    assert grown_context == once_context
    assert {receipt.status for receipt in receipts} <= {"imported", "grown", "unchanged"}
    # A root whose parent comes with a later import is placed once more.
    has_early = any("early" in row for row in grown["quarantine"])
    if end == b"\n" and not has_early and not _ends_an_entry_in_its_space(whole, cuts):
        for table in ("session", "entry", "branch", "epoch", "quarantine"):
            assert _without_ids(grown[table]) == _without_ids(once[table]), table


def _ends_an_entry_in_its_space(whole: bytes, cuts: list[int]) -> bool:
    """Return whether a cut falls before an entry's trailing space.

    The space is then kept behind the entry: the same bytes, in one row more.
    """
    return any(
        whole[:cut].rstrip(b" ").endswith(b"}") and whole[cut : cut + 1] not in (b"\n", b"")
        for cut in cuts
    )


def _without_ids(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows without random ids: an entry without an id gets 16 hexadecimal digits."""
    return [
        tuple(
            "id" if isinstance(v, str) and len(v) == 16 and set(v) <= set("0123456789abcdef") else v
            for v in row
        )
        for row in rows
    ]


@one_loop
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_every_cut_of_a_transcript_gives_the_same_in_the_end(
    tmp_path: Path, end: bytes
) -> None:
    """There is one file for each length that a transcript had. Then all of them are whole."""
    lines = [
        header().encode(),
        message("a", None, "é漢🙂").encode(),
        b"",
        b"\xff{",
        message("b", "a").encode(),
        b"",
    ]
    whole = b"\xef\xbb\xbf" + end.join(lines)
    cuts = list(range(len(whole) + 1))
    if end == b"\r\n":  # what differs is near the ends of lines
        ends = [at for at in cuts if whole[at : at + 2] == end]
        near = {at + step for at in ends for step in (-1, 0, 1, 2, 3)}
        cuts = sorted(near & set(cuts) | {0, len(whole)})
    names = [f"{cut:03}.jsonl" for cut in cuts]
    folder = write(tmp_path / "in", {f"{cut:03}.jsonl": whole[:cut] for cut in cuts})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        write(folder, dict.fromkeys(names, whole))
        report = await db.import_path(folder, verify=True)
        await db.export(tmp_path / "out")
        once = (await (await db.session_by_id(report.files[-1].session_id or "")).context()).parts
        for receipt in report.files:
            assert receipt.verified, receipt
            assert (
                await (await db.session_by_id(receipt.session_id or "")).context()
            ).parts == once, receipt.name
    assert [file.status for file in report.files] == [
        "imported",
        *["grown"] * (len(cuts) - 2),
        "unchanged",
    ]
    assert {(tmp_path / "out" / name).read_bytes() for name in names} == {whole}


async def test_a_torn_line_becomes_an_entry_once_it_is_whole(
    tmp_path: Path,
) -> None:
    whole = transcript(3)
    cut = whole.rindex(b'{"type"') + 30
    receipts, rows, _ = await in_steps(tmp_path / "a", whole, [cut])
    assert [(receipt.status, receipt.entries_new, receipt.damaged) for receipt in receipts] == [
        ("imported", 2, 1),
        ("grown", 1, 0),
    ]
    assert rows["quarantine"] == []


async def test_a_line_end_that_arrives_late_belongs_to_its_entry(tmp_path: Path) -> None:
    whole = transcript(3)
    receipts, rows, _ = await in_steps(tmp_path / "a", whole, [len(whole) - 1])
    assert [(receipt.status, receipt.entries, receipt.lines) for receipt in receipts] == [
        ("imported", 3, 4),
        ("grown", 3, 4),
    ]
    assert rows["quarantine"] == []


async def test_entries_behind_a_late_line_end_are_entries(tmp_path: Path) -> None:
    whole = transcript(6)
    cut = whole.index(b"\n", whole.index(b'"m2"'))
    receipts, rows, _ = await in_steps(tmp_path / "a", whole, [cut])
    assert [(receipt.status, receipt.entries_new) for receipt in receipts] == [
        ("imported", 3),
        ("grown", 3),
    ]
    assert rows["quarantine"] == []


async def test_only_the_new_part_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(20)}) / "one.jsonl"
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
        parsed: list[str] = []
        real = sessiondb.transfer.jsonl_reader.parse_line  # type: ignore[attr-defined]
        monkeypatch.setattr(
            "sessiondb.transfer.jsonl_reader.parse_line",
            lambda text, *more: parsed.append(text) or real(text, *more),
        )
        with source.open("ab") as file:
            file.write((message("new", "m19") + "\n").encode())
        [receipt] = (await db.import_path(source)).files
    assert parsed == [message("new", "m19")]
    assert (receipt.status, receipt.entries, receipt.entries_new) == ("grown", 21, 1)


@pytest.mark.parametrize("change", ["rewritten", "shorter", "emptied"])
async def test_a_file_whose_imported_part_changed_is_left_as_it_was(
    tmp_path: Path, change: str
) -> None:
    whole = transcript(5)
    source = (
        write(tmp_path / "in", {"one.jsonl": whole, "two.jsonl": transcript(2, "s-2")})
        / "one.jsonl"
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(tmp_path / "in")
        source.write_bytes(
            {"rewritten": whole.replace(b"text", b"TEXT"), "shorter": whole[:-9], "emptied": b""}[
                change
            ]
        )
        for _ in range(2):
            files = by_name(await db.import_path(tmp_path / "in"))
            assert (files["one.jsonl"].status, files["two.jsonl"].status) == (
                "changed",
                "unchanged",
            )
            assert "copy the file to a new name and import that" in files["one.jsonl"].note
            recorded = await db.backend.read(
                lambda tx: tx.one("import_file.by_path", path=str(source)), op="test"
            )
            assert (recorded.state, recorded.note) == ("changed", files["one.jsonl"].note)
        assert await export_of(db, "s-1", tmp_path) == whole
        source.write_bytes(whole + (message("new", "m4") + "\n").encode())
        assert by_name(await db.import_path(tmp_path / "in"))["one.jsonl"].status == "grown"
    rows = tables(tmp_path / "one.db", times=False)["import_file"]
    assert all("changed" not in row for row in rows)


async def test_a_changed_file_under_a_new_name_is_another_session(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"one.jsonl": transcript(3)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(folder)
        write(folder, {"again.jsonl": transcript(4, text="other")})
        files = by_name(await db.import_path(folder))
        assert (files["again.jsonl"].status, files["again.jsonl"].session_id) == (
            "imported",
            "again",
        )
        assert "because another session has that id" in files["again.jsonl"].note


async def test_a_session_with_entries_of_its_own_takes_no_more_lines(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(3)}) / "one.jsonl"
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
        session = await db.session_by_id("s-1")
        await session.append({"role": "user", "content": "mine"})
        assert (await db.import_path(source)).files[0].status == "unchanged"
        with source.open("ab") as file:
            file.write((message("new", "m2") + "\n").encode())
        [receipt] = (await db.import_path(source)).files
        assert receipt.status == "changed"
        assert "has 1 entries of its own since the import" in receipt.note
        assert (await session.info()).entries == 4
        assert (await db.verify()).ok


# -- odd transcripts ------------------------------------------------------------------------------


TREES = {
    "a missing parent": ([message("a", None), message("b", "gone")], ["b"]),
    "its own parent": ([message("a", "a"), message("b", "a")], ["a", "b"]),
    "a cycle": ([message("a", "b"), message("b", "a")], ["a", "b"]),
    "duplicate ids": (
        [message("a", None, "1"), message("a", "a", "2"), message("c", "a", "3")],
        ["1", "2", "3"],
    ),
    "a child before its parent": ([message("b", "a"), message("a", None)], ["a"]),
    "a child before and behind its parent": (
        [message("b", "a"), message("a", None), message("c", "b")],
        ["a", "b", "c"],
    ),
}


@pytest.mark.parametrize("case", TREES)
async def test_broken_trees_are_read_and_noted(tmp_path: Path, case: str) -> None:
    lines, _ = TREES[case]
    receipt, messages = await round_trip(tmp_path, "\n".join([header(), *lines, ""]).encode())
    assert receipt.entries == len(lines)
    assert len(messages) == len(TREES[case][1])
    is_whole = case == "duplicate ids" or case.startswith("a child")
    assert ("it starts a new root" in receipt.note) is not is_whole


async def test_a_key_that_a_file_holds_twice_keeps_both_entries(tmp_path: Path) -> None:
    body = {"role": "user", "content": "x", "idempotencyKey": "k"}
    lines = [
        json.dumps({"type": "message", "id": at, "parentId": None, "message": body})
        for at in ("a", "b")
    ]
    receipt, _ = await round_trip(tmp_path, "\n".join([header(), *lines, ""]).encode())
    assert receipt.entries == 2
    assert "idempotency key 'k' was used before" in receipt.note


async def test_a_key_that_no_caller_may_use_stays_in_the_text_only(
    tmp_path: Path, tmp_db: Path
) -> None:
    file = tmp_path / "given" / "a.jsonl"
    file.parent.mkdir()
    keys = ["inbox:1", "k" * 513, "good"]
    lines = [
        '{"type":"session","version":3,"id":"a","timestamp":"2026-01-01T00:00:00.000Z","cwd":"/"}'
    ]
    for number, key in enumerate(keys):
        message = {"role": "user", "content": "hello", "idempotencyKey": key}
        parent = f"e{number - 1}" if number else None
        lines.append(
            json.dumps(
                {"type": "message", "id": f"e{number}", "parentId": parent, "message": message}
            )
        )
    file.write_text("\n".join(lines) + "\n", "utf-8")
    async with sessiondb.open(tmp_db) as db:
        report = await db.import_path(file, verify=True)
        [receipt] = report.files
        assert any(
            "entry e0: the idempotency key 'inbox:1' is reserved" in note for note in receipt.notes
        )
        assert any(
            "entry e1: an idempotency key has 1 to 512 characters" in note for note in receipt.notes
        )
        session = await db.session_by_id("a")
        assert [entry.idempotency_key for entry in await session.entries()] == [None, None, "good"]
        await db.export(tmp_path / "out")
        assert [found.read_bytes() for found in (tmp_path / "out").rglob("*.jsonl")] == [
            file.read_bytes()
        ]


@one_loop
async def test_the_notes_of_a_file_that_is_odd_throughout_stay_short(tmp_path: Path) -> None:
    lines = [message(f"m{at}", f"gone{at}") for at in range(2_000)]
    receipt, _ = await round_trip(tmp_path, "\n".join([header(), *lines, ""]).encode())
    assert receipt.entries == 2_000
    assert 50 < len(receipt.notes) <= 100
    connection = apsw.Connection(str(tmp_path / "one.db"))
    [(chars,)] = connection.execute("select length(note) from import_file")
    connection.close()
    assert 1_000 < chars <= 4_000

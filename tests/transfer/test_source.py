"""A file that grows gives what is new; an import that dies goes on; a file that was rewritten is left as it was imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb.limits import IMPORT_BATCH_ENTRIES, MIB
from sessiondb.sqlite import throttle
from sessiondb.transfer.folder_scan import scan
from sessiondb.transfer.import_packs import BatchRead, read_packs
from sessiondb.transfer.import_plan import FilePlan
from tests.support.transfer import by_name, export_of, header, message, tables, transcript, write

pytestmark = pytest.mark.anyio

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


def without_order(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    return tables(path, times=False)


async def in_steps(
    folder: Path, content: bytes, cuts: list[int]
) -> tuple[list[sessiondb.FileReceipt], Any]:
    """Import a file as it grows to each of some lengths, then whole; return the receipts, and the database's rows and messages."""
    source = write(folder / "in", {"one.jsonl": b""}) / "one.jsonl"
    receipts = []
    async with sessiondb.open(folder / "one.db") as db:
        for length in [*sorted(cuts), len(content)]:
            source.write_bytes(content[:length])
            [receipt] = (await db.import_path(source, verify=True)).files
            assert receipt.verified is not False, receipt
            receipts.append(receipt)
        await db.export(folder / "out")
        contexts = (
            [(await (await db.session_by_id(receipts[-1].session_id)).context()).parts]
            if receipts[-1].session_id
            else []
        )
    assert (folder / "out/one.jsonl").read_bytes() == content
    return receipts, (without_order(folder / "one.db"), contexts)


def comparable(rows: dict[str, list[tuple[Any, ...]]], folder: Path) -> Any:
    """Leave out what tells the time or the place of a test run."""
    return {
        name: [tuple(str(value).replace(str(folder), "") for value in row) for row in found]
        for name, found in rows.items()
    }


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
    receipts, (grown, grown_contexts) = anyio.run(
        in_steps, folder / "a", whole, [min(cut, len(whole)) for cut in cuts]
    )
    _, (once, once_contexts) = anyio.run(in_steps, folder / "b", whole, [])
    assert grown_contexts == once_contexts
    assert {receipt.status for receipt in receipts} <= {"imported", "grown", "unchanged"}
    if end == b"\n" and not _ends_an_entry_in_its_space(whole, cuts):
        for table in ("session", "entry", "branch", "epoch", "quarantine"):
            assert _without_ids(grown[table]) == _without_ids(once[table]), table


def _ends_an_entry_in_its_space(whole: bytes, cuts: list[int]) -> bool:
    """A cut before an entry's trailing space leaves the space behind the entry: the same bytes, in one row more."""
    return any(
        whole[:cut].rstrip(b" ").endswith(b"}") and whole[cut : cut + 1] not in (b"\n", b"")
        for cut in cuts
    )


def _without_ids(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Entries without an id get a random one, and inodes differ; 16 hexadecimal digits are one of ours."""
    return [
        tuple(
            "id" if isinstance(v, str) and len(v) == 16 and set(v) <= set("0123456789abcdef") else v
            for v in row
        )
        for row in rows
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_every_cut_of_a_transcript_gives_the_same_in_the_end(
    tmp_path: Path, end: bytes
) -> None:
    """One file for every length that a transcript had while it grew; then all of them whole."""
    lines = [
        header().encode(),
        message("a", None, "é漢🙂").encode(),
        b"",
        b"\xff{",
        message("b", "a").encode(),
        b"",
    ]
    whole = b"\xef\xbb\xbf" + end.join(lines)
    names = [f"{cut:03}.jsonl" for cut in range(len(whole) + 1)]
    folder = write(tmp_path / "in", {name: whole[:cut] for cut, name in enumerate(names)})
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
        *["grown"] * (len(whole) - 1),
        "unchanged",
    ]
    assert {(tmp_path / "out" / name).read_bytes() for name in names} == {whole}


async def test_a_torn_line_becomes_an_entry_when_it_is_whole_and_its_quarantine_row_goes(
    tmp_path: Path,
) -> None:
    whole = transcript(3)
    cut = whole.rindex(b'{"type"') + 30
    receipts, (rows, _) = await in_steps(tmp_path / "a", whole, [cut])
    assert [(receipt.status, receipt.entries_new, receipt.damaged) for receipt in receipts] == [
        ("imported", 2, 1),
        ("grown", 1, 0),
    ]
    assert rows["quarantine"] == []


async def test_a_line_end_that_arrives_late_belongs_to_its_entry(tmp_path: Path) -> None:
    whole = transcript(3)
    receipts, (rows, _) = await in_steps(tmp_path / "a", whole, [len(whole) - 1])
    assert [(receipt.status, receipt.entries, receipt.lines) for receipt in receipts] == [
        ("imported", 3, 4),
        ("grown", 3, 4),
    ]
    assert rows["quarantine"] == []


async def test_only_what_is_new_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(20)}) / "one.jsonl"
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(source)
        parsed: list[str] = []
        real = sessiondb.transfer.jsonl_reader.parse_line  # type: ignore[attr-defined]
        monkeypatch.setattr(
            "sessiondb.transfer.jsonl_reader.parse_line",
            lambda text, version: parsed.append(text) or real(text, version),
        )
        with source.open("ab") as file:
            file.write((message("new", "m19") + "\n").encode())
        [receipt] = (await db.import_path(source)).files
    assert parsed == [message("new", "m19")]
    assert (receipt.status, receipt.entries, receipt.entries_new) == ("grown", 21, 1)


@pytest.mark.parametrize("change", ["rewritten", "shorter", "emptied"])
async def test_a_file_whose_imported_part_changed_is_reported_and_kept_as_it_was(
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


async def test_a_changed_file_under_a_new_name_is_a_session_of_its_own(tmp_path: Path) -> None:
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


async def test_a_session_that_went_on_here_takes_no_more_from_its_file(tmp_path: Path) -> None:
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


CHILD = """
import os, signal, sys
import anyio, sessiondb

async def main(database, source, packs):
    done = 0
    def progress(*step):
        nonlocal done
        done += 1
        if done == packs:
            os.kill(os.getpid(), signal.SIGKILL)
    async with sessiondb.open(database) as db:
        await db.import_path(source, progress=progress)

anyio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


def big_folder(folder: Path) -> Path:
    long = b"x" * (2 * MIB)
    damaged = b"\n".join([header("s-2").encode(), long, message("a", None).encode(), b""])
    big = transcript(IMPORT_BATCH_ENTRIES * 3 + 7)
    return write(
        folder, {"big.jsonl": big, "long.jsonl": damaged, "small.jsonl": transcript(3, "s-3")}
    )


@pytest.mark.parametrize("packs", [1, 2, 4, 6])
def test_an_import_killed_anywhere_goes_on_and_ends_like_an_undisturbed_one(
    tmp_path: Path, packs: int
) -> None:
    source = big_folder(tmp_path / "in")
    killed = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "killed.db"), str(source), str(packs)],
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    async def finish() -> tuple[sessiondb.ImportReport, bool]:
        async with sessiondb.open(tmp_path / "whole.db") as db:
            await db.import_path(source)
        async with sessiondb.open(tmp_path / "killed.db") as db:
            report = await db.import_path(source, verify=True)
            return report, (await db.verify()).ok

    report, ok = anyio.run(finish)
    assert ok
    assert report.ok
    assert {file.status for file in report.files} <= {"imported", "unchanged"}
    killed_rows, whole_rows = (
        tables(tmp_path / name, times=False) for name in ("killed.db", "whole.db")
    )
    assert killed_rows == whole_rows


async def test_an_append_goes_between_the_batches_of_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: an append is asked for after every chunk, and the answers keep up with the chunks."""
    monkeypatch.setattr(
        throttle, "SHARE_BESIDE_CALLERS", 0.25
    )  # the order is what counts, not the pauses
    source = write(tmp_path / "in", {"big.jsonl": transcript(IMPORT_BATCH_ENTRIES * 24)})
    order: list[str] = []
    async with sessiondb.open(tmp_path / "one.db") as db:
        session = await db.session("agent:main:live:channel:1")

        async def append(number: int) -> None:
            await session.append({"role": "user", "content": f"live {number}"})
            order.append("append")

        async with anyio.create_task_group() as group:

            def progress(*_: Any) -> None:
                order.append("chunk")
                group.start_soon(append, len(order))

            await db.import_path(source, progress=progress)
    batches = order.count("chunk")
    assert batches >= 24
    assert order.count("append") == batches
    # The writer takes requests in their order, so an append waits for one pack. The rest is the event loop's: an answer may
    # be counted a few steps late.
    answered = stored = 0
    for step in order:
        answered, stored = answered + (step == "append"), stored + (step == "chunk")
        assert answered >= stored - 4, order


async def test_a_pack_never_exceeds_its_limits(tmp_path: Path) -> None:
    files = {f"{at:03}.jsonl": transcript(at % 40, f"s-{at}") for at in range(60)} | {
        "big.jsonl": transcript(700, text="x" * 20_000)
    }
    source = write(tmp_path / "in", files)
    found = scan(str(source))
    packs = list(read_packs([FilePlan(file) for file in found.transcripts]))
    for pack in packs:
        batches = [event.batch for event in pack if isinstance(event, BatchRead)]
        assert sum(len(batch.items) for batch in batches) <= IMPORT_BATCH_ENTRIES
        assert len(batches) == 1 or sum(batch.size for batch in batches) <= MIB
        assert sum(batch.size for batch in batches) <= MIB + 40_000
    items = sum(
        len(event.batch.items) for pack in packs for event in pack if isinstance(event, BatchRead)
    )
    assert items == sum(content.count(b"\n") for content in files.values())


async def test_two_imports_of_one_file_at_once_store_it_once(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(IMPORT_BATCH_ENTRIES * 4)})
    reports: list[sessiondb.ImportReport] = []
    async with sessiondb.open(tmp_path / "one.db") as db:

        async def run() -> None:
            reports.append(await db.import_path(source))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            group.start_soon(run)
        final = await db.import_path(source, verify=True)
        assert (await db.verify()).ok
        assert (await (await db.session_by_id("s-1")).info()).entries == IMPORT_BATCH_ENTRIES * 4
    assert final.files[0].status in ("unchanged", "imported")
    assert final.files[0].verified
    for report in reports:
        assert (
            report.files[0].status in ("imported", "unchanged")
            or "another import is reading it too" in report.files[0].note
        )


async def test_a_cancelled_import_goes_on_later(tmp_path: Path) -> None:
    source = write(tmp_path / "in", {"one.jsonl": transcript(IMPORT_BATCH_ENTRIES * 6)})
    async with sessiondb.open(tmp_path / "one.db") as db:
        with anyio.CancelScope() as scope:
            await db.import_path(source, progress=lambda *_: scope.cancel())
        assert scope.cancelled_caught
        [receipt] = (await db.import_path(source, verify=True)).files
        assert (receipt.status, receipt.entries, receipt.verified) == (
            "imported",
            IMPORT_BATCH_ENTRIES * 6,
            True,
        )


async def test_a_file_that_vanishes_while_the_import_runs_is_a_note(tmp_path: Path) -> None:
    long = transcript(IMPORT_BATCH_ENTRIES * 4)
    folder = write(
        tmp_path / "in",
        {"a.jsonl": long, "b.jsonl": transcript(2, "s-2"), "c.jsonl": transcript(2, "s-3")},
    )
    async with sessiondb.open(tmp_path / "one.db") as db:
        files = by_name(
            await db.import_path(
                folder, progress=lambda *_: (folder / "b.jsonl").unlink(missing_ok=True)
            )
        )
    assert files["a.jsonl"].status == files["c.jsonl"].status == "imported"
    assert (files["b.jsonl"].status, files["b.jsonl"].notes) in [
        ("failed", ("it vanished while the import was running; import again",)),
        ("imported", ()),  # read ahead before it went
    ]


async def test_nothing_on_the_source_side_is_opened_for_writing(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a.jsonl": transcript(3), "sessions.json": b"{}"})
    opened: list[tuple[str, int]] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if active and event == "open" and str(arguments[0]).startswith(str(folder)):
            opened.append((str(arguments[0]), arguments[2]))

    active = False
    sys.addaudithook(watch)
    async with sessiondb.open(tmp_path / "one.db") as db:
        active = True
        await db.import_path(folder, verify=True)
        active = False
    assert {Path(path).name for path, _ in opened} == {"a.jsonl", "sessions.json"}
    assert all(
        flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) == 0 for _, flags in opened
    )

"""The importer meets files that nobody would write, and none of them costs a line beside the bad one.

Three ways, from quick to whole: thousands of seeded files through the importer's own steps on a bench
(`proofs/fuzz/properties.py`), files that hypothesis builds and shrinks, and whole folders with an index and archives through
`import_path` and `export` on a real database. `tests/fuzz/` holds the coverage-guided fuzzer over the same
bench. The last parts break the importer on purpose and see that the same checks say so, and keep what was found.

`SESSIONDB_FUZZ=100000` tries so many inputs, `SESSIONDB_FUZZ_SEED` takes another course.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb import json_text
from sessiondb.json_text import dumps
from sessiondb.limits import ENTRY_BYTES_MAX, MIB
from sessiondb.transcript import entries
from sessiondb.transcript.entries import Draft
from sessiondb.transfer import jsonl_reader, source
from sessiondb.transfer.openclaw_index import read_index
from tests import ROOT, TESTS, conftest
from tests.proofs.fuzz.inputs import IDS, KEYS, NUMBERS, TYPES, Chance
from tests.proofs.fuzz.properties import INPUTS, SEED, Bench, Broken, Hung, sort_lines, watched
from tests.support.transfer import by_name, header, message, write

pytestmark = pytest.mark.usefixtures("nothing_left")

FOLDERS = max(5, INPUTS // 100)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    created = Bench(tmp_path)
    yield created
    created.close()


def problem_of(bench: Bench, content: bytes, cut: int | None = None) -> str | None:
    """Return what is wrong with how a file was imported; None if nothing is."""
    try:
        with watched():
            bench.check(content, cut=cut)
    except Hung:
        return "Hung"
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    return None


def shortest(bench: Bench, content: bytes) -> bytes:
    """Leave out of a file whatever it takes to see the same kind of problem."""
    wanted = (problem_of(bench, content) or "").splitlines()[:1]
    size = len(content) // 2
    while size and wanted:
        at = 0
        while at < len(content):
            without = content[:at] + content[at + size :]
            if (problem_of(bench, without) or "").splitlines()[:1] == wanted:
                content = without
            else:
                at += size
        size //= 2
    return content


# -- thousands of files on a bench ----------------------------------------------------------------------------------


def storm(bench: Bench, count: int, seed: int, *, shorten: bool = True) -> None:
    """Try so many seeded files; the first that breaks a promise is made as short as it can be, and reported."""
    for number in range(count):
        chance = Chance(seed * 1_000_003 + number)
        content = chance.file()
        cut = chance.random.randrange(len(content) + 1) if chance.one_in(4) else None
        if (problem := problem_of(bench, content, cut)) is not None:
            if cut is None and shorten:
                content = shortest(bench, content)
                problem = problem_of(bench, content)
            raise Broken(f"input {number} of seed {seed}, cut at {cut}: {problem}\n{content!r}")


def test_every_intact_line_of_a_hostile_file_is_an_entry_and_every_other_byte_comes_back(
    bench: Bench,
) -> None:
    count = INPUTS or 250
    storm(bench, count, SEED)
    print(
        f"\nfuzz: seed {SEED}: {bench.tried:,} files, {bench.entries:,} intact lines, {bench.kept:,} others: all accounted for"
    )
    assert bench.tried == count
    assert bench.entries > count
    assert bench.kept > count // 2


# -- files that hypothesis builds -----------------------------------------------------------------------------------

texts = st.text(max_size=8) | st.sampled_from(
    ["\ud83d", "\x00", "\u202e", "\x1b[2J", "\x9b", "漢", "🙂", '"', "\\"]
)
numbers = st.sampled_from(NUMBERS[:20])
values = st.recursive(
    st.none().map(lambda _: "null")
    | st.booleans().map(json.dumps)
    | texts.map(json.dumps)
    | numbers,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f'"{k}":{v}' for k, v in pairs) + "}"
        )
    ),
    max_leaves=6,
)
ids = st.sampled_from(IDS).map(lambda text: f'"{text}"') | st.just("null") | values
objects = st.lists(st.tuples(st.sampled_from(KEYS), ids), max_size=5)
lines = st.builds(
    lambda kind, own, parent, more: (
        f'{{"type":"{kind}","id":{own},"parentId":{parent}{"".join(f",{json.dumps(k)}:{v}" for k, v in more)}}}'
    ),
    st.sampled_from(TYPES),
    ids,
    ids,
    objects,
)
files = st.lists(
    lines.map(lambda line: line.encode(errors="surrogatepass")) | st.binary(max_size=12), max_size=8
).map(b"\n".join)


@seed(SEED)
@settings(
    max_examples=INPUTS // 10 or 60,
    derandomize=not INPUTS,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=files, tail=st.booleans())
def test_any_file_that_hypothesis_builds_is_accounted_for(
    bench: Bench, content: bytes, tail: bool
) -> None:
    with watched():
        bench.check(content + b"\n" * tail)


# -- whole folders, real databases ----------------------------------------------------------------------------------


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what differs between them has tests of its own."""
    return "asyncio"


def make_folder(chance: Chance, folder: Path) -> dict[str, bytes]:
    """Fill a state folder with hostile files; return what each holds, unpacked."""
    zstandard = pytest.importorskip("zstandard")
    names = [
        "a.jsonl",
        "b.jsonl",
        "c.jsonl.reset.2026-01-01T00-00-00.000Z",
        "d.jsonl.deleted.2026-01-01T00-00-00.000Z.zst",
        "e-topic-1.jsonl",
    ]
    found = {name: chance.file() for name in names if not chance.one_in(5)}
    found["sessions.json"] = chance.index(names)
    packed = {
        name: zstandard.ZstdCompressor().compress(content) if name.endswith(".zst") else content
        for name, content in found.items()
    }
    write(folder / "agents/main/sessions", packed)
    return found


async def check_folder(chance: Chance, work: Path) -> int:
    """Import a hostile folder beside a conversation, and ask everything; return how many files it held."""
    zstandard = pytest.importorskip("zstandard")
    files = make_folder(chance, work / "in")
    async with sessiondb.open(work / "one.db", durability="normal") as db:
        talk = await db.session("agent:neighbour:main")
        await talk.append({"role": "user", "content": "hello"})
        before = (
            (await talk.context()).messages,
            await talk.info(),
            [entry.payload for entry in await talk.entries()],
        )
        report = await db.import_path(work / "in")
        receipts = by_name(report)
        for name, content in files.items():
            receipt = receipts[f"agents/main/sessions/{name}"]
            assert receipt.status == "imported", receipt
            assert receipt.bytes == len(content)
            if name != "sessions.json":
                assert receipt.damaged == sum(
                    line.kind == "damaged" for line in sort_lines(content)
                ), receipt
        exported = await db.export(work / "out")
        assert exported.ok, exported
        for name, content in files.items():
            written = (work / "out/agents/main/sessions" / name).read_bytes()
            assert (
                zstandard.ZstdDecompressor().decompressobj().decompress(written)
                if name.endswith(".zst")
                else written
            ) == content, name
        again = await db.import_path(work / "in")
        assert {receipt.status for receipt in again.files} == {"unchanged"}, again
        assert {file.status for file in (await db.export(work / "out")).files} == {"unchanged"}
        await rebind(db, work)
        assert (await db.verify()).findings == ()
        assert (
            (await talk.context()).messages,
            await talk.info(),
            [entry.payload for entry in await talk.entries()],
        ) == before
    return len(files)


async def rebind(db: sessiondb.SessionDB, work: Path) -> None:
    """Point some imported keys at a new session: an export still writes an index that can be read, and says so in it."""
    keys = [
        key
        async for info in db.sessions(with_ended=True)
        for key in info.keys
        if key.startswith("agent:main:")
    ]
    other = await db.create_session(f"new-{len(keys)}", agent_id="main")
    for key in keys[::2]:
        await db.bind(key, other)
    assert (await db.export(work / "rebound")).ok
    content = (work / "rebound/agents/main/sessions/sessions.json").read_bytes()
    if keys:
        _, rows = read_index(content)
        assert sum(row.session_id == other.id for row in rows) >= len(keys[::2])


@pytest.mark.anyio
async def test_a_folder_of_hostile_files_comes_in_and_goes_out_again_and_touches_nothing_else(
    tmp_path: Path,
) -> None:
    tried = 0
    for number in range(FOLDERS):
        try:
            tried += await check_folder(Chance(SEED * 7_919 + number), tmp_path / str(number))
        except Exception as error:
            raise Broken(
                f"folder {number} of seed {SEED}: {type(error).__name__}: {error}"
            ) from error
    print(f"\nfuzz: seed {SEED}: {FOLDERS} folders, {tried:,} files")


# -- what it costs --------------------------------------------------------------------------------------------------

ROOM_MIB = 768
ARCHIVE = "jsonl.deleted.2026-01-01T00-00-00.000Z.zst"
SIZE_MIB = 60 if INPUTS else 2
TINY_LINES = 100_000 if INPUTS else 4_000
TINY_ENTRIES = 1_000_000
HUGE_LINE_BYTES = 100_000_000
BOMB_MIB = 2_000 if INPUTS else 100
# Of all kinds in one folder. A line of 60 MiB or 20 million values takes three times its size; what reserves a claim takes 256 MiB more.
PEAK_MIB = 4 * SIZE_MIB + 32 if INPUTS else 96
long_only = pytest.mark.skipif(
    not INPUTS, reason="takes minutes; `make fuzz` runs it, with SESSIONDB_FUZZ set"
)


def cost_of(
    tmp_path: Path, files: dict[str, bytes], *, broken: str = "", export_to: str = ""
) -> dict[str, Any]:
    """Import files in a process of its own that may not take more than so much memory; return what it says."""
    folder = write(tmp_path / "in", files)
    arguments = [
        sys.executable,
        str(TESTS / "proofs/fuzz/import_child.py"),
        str(tmp_path / "one.db"),
        str(folder),
        str(ROOM_MIB),
    ]
    done = subprocess.run(
        [*arguments, broken, export_to], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["findings"] == []
    assert [message["content"] for message in found["said"]] == ["hello"]
    assert found["files"].keys() == files.keys()
    print(
        f"\nfuzz: {', '.join(files)}: memory {found['peak_mib']:.0f} MiB, database {found['db_mib']:.0f} MiB"
    )
    return found


def zstd(piece: bytes, count: int) -> bytes:
    """Compress a piece that is repeated, without ever holding all of it."""
    packer = pytest.importorskip("zstandard").ZstdCompressor(level=1).compressobj()
    block = piece * (MIB // len(piece))
    return b"".join(packer.compress(block) for _ in range(count)) + bytes(packer.flush())


def zstd_frame(*, window: int, claims: int, holds: bytes) -> bytes:
    """Return a frame whose header claims any size and asks for any window (2 to the power of it)."""
    block = (len(holds) << 3 | 1).to_bytes(3, "little") + holds
    return (
        b"\x28\xb5\x2f\xfd"
        + bytes([0b11000000, (window - 10) << 3])
        + claims.to_bytes(8, "little")
        + block
    )


def long_line() -> dict[str, bytes]:
    return {
        "long.jsonl": f"{header('long')}\n{message('a', None, 'x' * SIZE_MIB * MIB)}\n".encode()
    }


def dense_line() -> dict[str, bytes]:
    return {
        "dense.jsonl": b'{"type":"custom","data":['
        + b"[]," * (max(SIZE_MIB, 5) * MIB // 3)
        + b"0]}\n"
    }


def tiny_lines() -> dict[str, bytes]:
    return {"tiny.jsonl": b'\n{"type":"x"}\n{\n\n' * (TINY_LINES // 4)}


def bombs(size_mib: int = BOMB_MIB) -> dict[str, bytes]:
    return {
        f"{name}.{ARCHIVE}": zstd(piece, size_mib)
        for name, piece in (("text", b"x"), ("zeros", b"\0"))
    }


def claims() -> dict[str, bytes]:
    return {
        f"claim-{window}.{ARCHIVE}": zstd_frame(window=window, claims=2**40, holds=b"hello\n")
        for window in (10, 27, 31, 41)
    }


def check_cost(found: dict[str, Any], peak_mib: float) -> None:
    """What came of each kind of file; and neither memory nor disk in proportion to what one of them claims."""
    assert found["peak_mib"] < peak_mib, "memory"
    assert found["db_mib"] < 6 * found["bytes_mib"] + 64, "disk"
    for name, file in found["files"].items():
        kind = name.partition(".")[0].partition("-")[0]
        report = {key: file[key] for key in ("status", "entries", "damaged", "blank")}
        if kind == "long":
            assert report == {"status": "imported", "entries": 1, "damaged": 0, "blank": 0}
        elif kind == "dense":
            assert report == {"status": "imported", "entries": 0, "damaged": 1, "blank": 0}
        elif kind == "tiny":
            quarter = TINY_LINES // 4
            assert report == {
                "status": "imported",
                "entries": quarter,
                "damaged": quarter,
                "blank": 2 * quarter,
            }
        else:
            assert report["status"] == "failed"
            assert (
                "its compression is damaged" if kind == "claim" else "it unpacks to more than"
            ) in file["note"]


@pytest.mark.slow
def test_a_folder_of_long_dense_and_tiny_lines_bombs_and_false_claims_costs_little(
    tmp_path: Path,
) -> None:
    pytest.importorskip("zstandard")
    check_cost(
        cost_of(tmp_path, long_line() | dense_line() | tiny_lines() | bombs() | claims()), PEAK_MIB
    )


@long_only
@pytest.mark.parametrize(
    ("make", "peak_mib"),
    [
        (long_line, 8 * SIZE_MIB + 32),
        (dense_line, 8 * SIZE_MIB + 32),
        (tiny_lines, 64),
        (bombs, 64),
        (claims, 64),
    ],
)
def test_each_kind_alone_at_full_size(tmp_path: Path, make: Any, peak_mib: int) -> None:
    check_cost(cost_of(tmp_path, make()), peak_mib)


@long_only
def test_a_line_above_the_limit_costs_no_more_than_the_limit(tmp_path: Path) -> None:
    found = cost_of(
        tmp_path,
        {
            "one.jsonl": f"{header()}\n".encode()
            + b"x" * 150 * MIB
            + f"\n{message('a', None)}\n".encode()
        },
    )
    assert (found["files"]["one.jsonl"]["entries"], found["files"]["one.jsonl"]["damaged"]) == (
        1,
        1,
    )
    assert found["peak_mib"] < 4 * ENTRY_BYTES_MAX / MIB


@long_only
def test_a_million_tiny_entries_and_a_line_of_100_mb_come_in_and_go_out_byte_for_byte(
    tmp_path: Path,
) -> None:
    tiny = b'{"type":"x"}\n' * TINY_ENTRIES
    huge = (
        message("a", None, "x" * HUGE_LINE_BYTES).encode()
        + b"\n"
        + message("b", "a").encode()
        + b"\n"
    )
    for name, content, entries_, damaged, peak_mib in (
        ("tiny.jsonl", tiny, TINY_ENTRIES, 0, 64),
        (
            "huge.jsonl",
            huge,
            1,
            1,
            4 * ENTRY_BYTES_MAX // MIB,
        ),  # longer than an entry may be: kept beside the entries
    ):
        folder = tmp_path / name
        folder.mkdir()
        found = cost_of(folder, {name: content}, export_to=str(folder / "out"))
        report = found["files"][name]
        assert (report["status"], report["entries"], report["damaged"]) == (
            "imported",
            entries_,
            damaged,
        )
        assert (folder / "out" / name).read_bytes() == content
        assert found["peak_mib"] < peak_mib


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [
        "reserves what an archive claims to hold",
        pytest.param("unpacks without a bound", marks=long_only),
        pytest.param("holds a whole file", marks=long_only),
    ],
)
def test_an_importer_that_takes_memory_or_disk_without_a_bound_is_found_out(
    tmp_path: Path, broken: str
) -> None:
    pytest.importorskip("zstandard")
    # The bound of the sound importer. What unpacks everything gets bombs that fit on the disk, what holds whole files a large one.
    if broken == "unpacks without a bound":
        files = bombs(100)
    elif broken == "holds a whole file":
        files = {"a.jsonl": b"x" * 300 * MIB}
    else:
        files = long_line() | dense_line() | tiny_lines() | bombs() | claims()
    found = cost_of(tmp_path, files, broken=broken)
    with pytest.raises(AssertionError, match=r"memory|disk"):
        check_cost(found, PEAK_MIB)


# -- teeth: importers that are broken on purpose ----------------------------------------------------------------------


def dropping_the_line_after_a_bad_one(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = jsonl_reader._Reader.batches

    def careless(self: Any) -> Iterator[Any]:
        for batch in batches(self):
            bad = [
                isinstance(item, jsonl_reader.Kept) and item.severity == "damaged"
                for item in batch.items
            ]
            batch.items = [
                item
                for item, after_bad in zip(batch.items, [False, *bad[:-1]], strict=True)
                if not after_bad
            ]
            yield batch

    monkeypatch.setattr(jsonl_reader._Reader, "batches", careless)


def trusting_that_a_character_is_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_byte_span", lambda text, span: (span[0], span[1] - span[0]))


def normalising_what_it_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = entries.parse_line

    def neat(text: str, version: int) -> Draft:
        draft = parse(text, version)
        draft.before = dumps(json_text.loads(text)) if draft.body_bytes == 0 else text
        return draft

    monkeypatch.setattr(jsonl_reader, "parse_line", neat)


def repairing_what_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    keep = source._keep

    def repaired(tx: Any, import_file_no: int, kept: jsonl_reader.Kept, *, after_seq: int) -> None:
        kept.content = kept.content.decode(errors="replace").encode()
        keep(tx, import_file_no, kept, after_seq=after_seq)

    monkeypatch.setattr(source, "_keep", repaired)


def letting_a_parsers_error_through(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = entries.parse_line

    def brittle(text: str, version: int) -> Draft:
        json.loads(text)
        return parse(text, version)

    monkeypatch.setattr(jsonl_reader, "parse_line", brittle)


def writing_into_another_session(monkeypatch: pytest.MonkeyPatch) -> None:
    store = source.store_batch

    def stray(tx: Any, file: Any, batch: Any) -> Any:
        if any(isinstance(item, jsonl_reader.Kept) for item in batch.items):
            tx.run("import_file.date_session", session_no=1, created_at_ms=None, updated_at_ms=7)
        return store(tx, file, batch)

    monkeypatch.setattr(source, "store_batch", stray)


BROKEN = {
    dropping_the_line_after_a_bad_one: "the entries are not the intact lines|the export .* is not the file",
    trusting_that_a_character_is_a_byte: "an independent reader sees another context|verify finds|Decode|StoreDamaged",
    normalising_what_it_stores: "the entries are not the intact lines|the export .* is not the file",
    repairing_what_is_damaged: "what is no entry was not kept as it is|the export .* is not the file",
    letting_a_parsers_error_through: "ValueError|JSONDecodeError",
    writing_into_another_session: "another session was touched",
}


@pytest.mark.parametrize("how", BROKEN, ids=lambda how: how.__name__)
def test_an_importer_that_is_broken_on_purpose_is_found_out_by(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    how(monkeypatch)
    with pytest.raises(Broken, match=BROKEN[how]):
        storm(bench, 200, SEED, shorten=False)


def test_a_pattern_that_takes_for_ever_over_a_torn_line_is_found_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_text, "_structure", re.compile(r'"(?:[^"\\]+|\\.)*"|[\[\]{}]'))
    monkeypatch.setattr("tests.proofs.fuzz.properties.HANG_CPU_S", 0.5)
    assert (
        problem_of(bench, b'{"type":"custom","data":[' + b"{}," * 600 + b'"' + b"torn " * 12)
        == "Hung"
    )


def test_what_waits_for_ever_without_using_the_processor_is_a_hang_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr("tests.proofs.fuzz.properties.HANG_WALL_S", 0.2)
    with pytest.raises(Hung, match="SIGALRM"), watched():
        (tmp_path / "pipe").read_bytes()
    with watched():
        pass  # and it is over


def test_what_cannot_even_be_stopped_ends_the_process_with_a_traceback() -> None:
    stuck = """
import threading
from tests.proofs.fuzz import properties
properties.HANG_WALL_S = properties.CLEAN_UP_S = 0.2
def wait_for_ever():
    try:
        threading.Event().wait()
    finally:
        threading.Event().wait()  # a clean-up that waits for a thread, say
with properties.watched():
    wait_for_ever()
"""
    done = subprocess.run(
        [sys.executable, "-c", stuck], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "wait_for_ever" in done.stderr


@pytest.mark.parametrize("what", ["descriptor", "thread"])
def test_what_a_test_leaves_open_or_alive_fails_it(tmp_path: Path, what: str) -> None:
    fixture = conftest.nothing_left.__wrapped__(tmp_path)
    next(fixture)
    over = threading.Event()
    descriptor = os.open(tmp_path, os.O_RDONLY) if what == "descriptor" else None
    thread = threading.Thread(target=over.wait, name="sessiondb-left")
    if what == "thread":
        thread.start()
    with pytest.raises(
        AssertionError, match="left open" if descriptor is not None else "left alive"
    ):
        next(fixture)
    over.set()
    if descriptor is not None:
        os.close(descriptor)
    else:
        thread.join()


# -- what was found, each with the shortest input that showed it ------------------------------------------------------

TORN = (
    b'{"type":"custom","data":['
    + b"{}," * 600
    + b'"'
    + b"torn in the middle of a long string, as a power cut leaves it " * 3
)
FOUND = {
    "a line with many brackets that is torn inside a string took for ever": TORN,
    "one with a thousand escaped quotes, likewise": b'{"type":"custom","data":['
    + b"{}," * 600
    + b'"'
    + b'\\"' * 100_000,
    "a number past the digit limit in front of damage ended the import": b'{"type":"x","n":'
    + b"9" * 4_301
    + b",}",
    "a count of tokens that is no float ended the import": (
        b'{"type":"message","id":"a","message":{"role":"assistant","usage":{"totalTokens":'
        + b"9" * 400
        + b"}}}"
    ),
    "a replay state whose type is a list ended the import": (
        b'{"type":"message","id":"a","message":{"role":"assistant","providerReplay":{"type":[]}}}'
    ),
    "a leaf record that names the header's id emptied the context": (
        b'{"type":"session","id":"h","version":3}\n{"type":"message","id":"a","parentId":null,"message":{"role":"user","content":"x"}}\n'
        b'{"type":"leaf","id":"l","parentId":"a","targetId":"h"}'
    ),
    "a leaf record that names an ignored one emptied the context": (
        b'{"type":"session","id":"h","version":3}\n{"type":"message","id":"a","parentId":null,"message":{"role":"user","content":"x"}}\n'
        b'{"type":"leaf","id":"l","parentId":"a","targetId":"lost"}\n{"type":"leaf","id":"m","parentId":"a","targetId":"l"}'
    ),
    "a content that is a number could not be read after a reset": (
        b'{"type":"message","id":"a","message":{"role":"assistant","content":5}}\n{"type":"reset","id":"r","parentId":"a","firstKeptEntryId":"a"}'
    ),
    "a tool call whose id is a list could not be read after a reset": (
        b'{"type":"message","id":"a","message":{"role":"assistant","content":[{"type":"toolCall","id":[1]}]}}\n'
        b'{"type":"message","id":"b","parentId":"a","message":{"role":"toolResult","toolCallId":[1],"content":""}}\n'
        b'{"type":"reset","id":"r","parentId":"b","firstKeptEntryId":"a"}'
    ),
    "a model whose name is infinite could not be read as pi reads it": b'{"type":"model_change","id":"a","provider":1e999}',
    "an infinite number deep inside a custom message could not be read": (
        b'{"type":"custom_message","id":"a","content":' + b"[" * 490 + b"1e999" + b"]" * 490 + b"}"
    ),
    "a number past the digit limit made verify see a wrong span": (
        b'{"type":"message","id":"a","x":'
        + b"9" * 4_301
        + b',"message":{"role":"user","content":9007199254740993}}'
    ),
    "an empty id was a parent to one reader only": b'{"type":"thinking_level_change","id":"","x":1}\n{"type":"b","parentId":""}',
}


@pytest.mark.parametrize("what", FOUND)
@pytest.mark.parametrize("around", [False, True], ids=["alone", "beside-good-lines"])
def test_found(bench: Bench, what: str, around: bool) -> None:
    content = FOUND[what]
    if around:
        content = b"\n".join(
            [
                header().encode(),
                message("g1", None).encode(),
                content,
                message("g2", "g1").encode(),
                b"",
            ]
        )
    with watched():
        bench.check(content)


@pytest.mark.anyio
async def test_found_a_first_line_that_is_damaged_behind_a_byte_order_mark_is_in_the_receipt(
    tmp_path: Path,
) -> None:
    write(tmp_path / "in", {"one.jsonl": b"\xef\xbb\xbf{\n" + header().encode() + b"\n"})
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        [receipt] = (await db.import_path(tmp_path / "in")).files
    assert (receipt.damaged, receipt.blank, [line.line for line in receipt.quarantined]) == (
        1,
        1,
        [1],
    )


INDEXES = {
    "one key twice was bound to another session by every second import": b'{"main":{"sessionId":"a"},"main":{"sessionId":"b"}}',
    "one key written in two ways": b'{"main":{"sessionId":"a"},"agent:main:main":{"sessionId":"b"}}',
    "a row that names an archive was lost by the export": b'{"agent:main:main":{"sessionFile":"c.jsonl.reset.2026-01-01T00-00-00.000Z"}}',
    "a row of another agent was lost by the export": b'{"agent:other:main":{"sessionId":"a"},"agent:main:main":{"sessionId":"b"}}',
    "a row that is a list could not be renewed": b'{"main":{"sessionId":"a"},"agent:main:main":[]}',
    "a row with an infinite number could not be renewed": b'{"agent:main:main":{"sessionId":"a","n":1e999}}',
    "a row with a number past the digit limit could not be renewed": b'{"agent:main:main":{"sessionId":"a","n":'
    + b"9" * 4_301
    + b"}}",
    "a line break before a colon was no JSON": b'{"message"\n:\n{"sessionId":"a"},"agent:main:main"\n:{"sessionId":"b"}}',
}


@pytest.mark.anyio
@pytest.mark.parametrize("what", INDEXES)
async def test_found_in_an_index(tmp_path: Path, what: str) -> None:
    folder = "agents/main/sessions/"
    transcripts = {
        f"{name}.jsonl": f"{header(name)}\n{message('m', None)}\n".encode() for name in ("a", "b")
    }
    files = transcripts | {
        "c.jsonl.reset.2026-01-01T00-00-00.000Z": transcripts["a.jsonl"],
        "sessions.json": INDEXES[what],
    }
    write(tmp_path / "in", {folder + name: content for name, content in files.items()})
    async with sessiondb.open(tmp_path / "one.db", durability="normal") as db:
        await db.import_path(tmp_path / "in")
        keys = {
            key: info.session_id async for info in db.sessions(with_ended=True) for key in info.keys
        }
        again = await db.import_path(tmp_path / "in")
        assert {file.status for file in again.files} == {"unchanged"}, again
        assert {
            key: info.session_id async for info in db.sessions(with_ended=True) for key in info.keys
        } == keys
        await db.export(tmp_path / "out")
        assert (tmp_path / "out" / folder / "sessions.json").read_bytes() == INDEXES[what]
        await rebind(db, tmp_path)
        assert (await db.verify()).ok


# -- the coverage-guided fuzzer ----------------------------------------------------------------------------------------

FUZZER = TESTS / "proofs/fuzz/import_bytes.py"


def fuzz(tmp_path: Path, *options: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run the coverage-guided fuzzer in a process of its own, after some statements."""
    script = f"{first}\nimport runpy\nfuzzer = runpy.run_path({str(FUZZER)!r}, run_name='fuzz')\n"
    script += f"{'' if 'atheris' in first else BREAK if 'broken' in options else ''}\nfuzzer['main']({[o for o in options if o != 'broken']!r})"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )


BREAK = """
from sessiondb import json_text
from sessiondb.transfer import jsonl_reader as jsonl
def neat(text, version, parse=jsonl.parse_line):
    draft = parse(text, version)
    draft.before = json_text.dumps_again(json_text.loads(text)) if draft.body_bytes == 0 else text
    return draft
jsonl.parse_line = neat
"""


def test_the_coverage_guided_fuzzer_says_so_where_it_is_not_installed(tmp_path: Path) -> None:
    done = fuzz(tmp_path, first="import sys; sys.modules['atheris'] = None")
    assert (done.returncode, "atheris is not installed" in done.stdout) == (3, True)


@pytest.fixture
def atheris() -> None:
    """Require the coverage-guided fuzzer: a long run without it says so by failing, unless that was asked for."""
    if importlib.util.find_spec("atheris") is None:
        told_so = os.environ.get("SESSIONDB_FUZZ_COVERAGE") == "no"
        assert told_so, (
            "atheris is not installed: pip install 'sessiondb[fuzz]', or make fuzz COVERAGE=no"
        )
        pytest.skip("left out, as SESSIONDB_FUZZ_COVERAGE=no asks")


@long_only
def test_the_coverage_guided_fuzzer_finds_nothing(tmp_path: Path, atheris: None) -> None:
    done = fuzz(tmp_path, f"-runs={INPUTS}", f"-seed={SEED}")
    print(f"\nfuzz: seed {SEED}: atheris: {' '.join(done.stderr.splitlines()[-6:])[:400]}")
    assert done.returncode == 0, done.stderr[-3_000:]
    assert f"Done {INPUTS} runs" in done.stderr


@long_only
def test_the_coverage_guided_fuzzer_finds_an_importer_that_is_broken(
    tmp_path: Path, atheris: None
) -> None:
    done = fuzz(tmp_path, "-runs=2000", f"-seed={SEED}", "broken")
    assert done.returncode != 0
    assert "Broken: " in done.stdout + done.stderr

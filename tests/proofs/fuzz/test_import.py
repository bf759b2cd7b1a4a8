"""Files that no program would write cost the importer no line beside the bad one.

There are three ways, from quick to whole. Thousands of seeded files go through the importer's own
steps on a bench (`storm.py`). Hypothesis builds and shrinks files. Whole folders with an index and
archives go through `import_path` and `export` on a real database. Findings stand at the end, each
with the shortest input that showed it.

`SESSIONDB_FUZZ=100000` tries so many inputs, and `SESSIONDB_FUZZ_SEED` takes another course.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb.transfer.openclaw_index import read_index
from tests.proofs.fuzz.inputs import IDS, KEYS, NUMBERS, TYPES, Chance
from tests.proofs.fuzz.properties import INPUTS, SEED, Bench, Broken, sort_lines, watched
from tests.proofs.fuzz.storm import storm
from tests.support.transfer import by_name, header, message, write

pytestmark = pytest.mark.usefixtures("nothing_left")

FOLDERS = max(5, INPUTS // 100)


# -- thousands of files on a bench -----------------------------------------------------------------


def test_every_line_of_a_hostile_file_is_accounted_for(bench: Bench) -> None:
    count = INPUTS or 60
    storm(bench, count, SEED)
    print(
        f"\nfuzz: seed {SEED}: {bench.tried:,} files, {bench.entries:,} intact lines, "
        f"{bench.kept:,} others: all accounted for"
    )
    assert bench.tried == count
    assert bench.entries > count
    assert bench.kept > count // 2


# -- files that hypothesis builds ------------------------------------------------------------------


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
        f'{{"type":"{kind}","id":{own},"parentId":{parent}'
        + "".join(f",{json.dumps(k)}:{v}" for k, v in more)
        + "}"
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


# -- whole folders, real databases -----------------------------------------------------------------


def make_folder(chance: Chance, folder: Path) -> dict[str, bytes]:
    """Fill a state folder with hostile files, and return their unpacked contents."""
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
    """Import a hostile folder beside a conversation, check everything, and count the files."""
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
                    line.kind in ("damaged", "entry in other bytes") for line in sort_lines(content)
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
    """Bind some imported keys to a new session. The exported index can be read, and says so."""
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
async def test_a_folder_of_hostile_files_round_trips(
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


# -- findings --------------------------------------------------------------------------------------

MESSAGE_A = b'{"type":"message","id":"a","parentId":null,"message":{"role":"user","content":"x"}}\n'
TORN = (
    b'{"type":"custom","data":['
    + b"{}," * 600
    + b'"'
    + b"torn in the middle of a long string, as a power cut leaves it " * 3
)
FOUND = {
    "a first line without a type decided the version of the file": (
        b'{"type":"","id":"a"}\n{"type":"message","message":{"role":"hookMessage"}}\n'
    ),
    "a line with many brackets that is torn inside a string took forever": TORN,
    "a torn line with 100,000 escaped quotes took forever": (
        b'{"type":"custom","data":[' + b"{}," * 600 + b'"' + b'\\"' * 100_000
    ),
    "a number past the digit limit in front of damage ended the import": (
        b'{"type":"x","n":' + b"9" * 4_301 + b",}"
    ),
    "a count of tokens that is no float ended the import": (
        b'{"type":"message","id":"a","message":{"role":"assistant","usage":{"totalTokens":'
        + b"9" * 400
        + b"}}}"
    ),
    "a replay state whose type is a list ended the import": (
        b'{"type":"message","id":"a","message":{"role":"assistant","providerReplay":{"type":[]}}}'
    ),
    "a leaf record that names the header's id emptied the context": (
        b'{"type":"session","id":"h","version":3}\n'
        + MESSAGE_A
        + b'{"type":"leaf","id":"l","parentId":"a","targetId":"h"}'
    ),
    "a leaf record that names an ignored one emptied the context": (
        b'{"type":"session","id":"h","version":3}\n'
        + MESSAGE_A
        + b'{"type":"leaf","id":"l","parentId":"a","targetId":"lost"}\n'
        + b'{"type":"leaf","id":"m","parentId":"a","targetId":"l"}'
    ),
    "a content that is a number could not be read after a reset": (
        b'{"type":"message","id":"a","message":{"role":"assistant","content":5}}\n'
        b'{"type":"reset","id":"r","parentId":"a","firstKeptEntryId":"a"}'
    ),
    "a tool call whose id is a list could not be read after a reset": (
        b'{"type":"message","id":"a","message":'
        b'{"role":"assistant","content":[{"type":"toolCall","id":[1]}]}}\n'
        b'{"type":"message","id":"b","parentId":"a","message":'
        b'{"role":"toolResult","toolCallId":[1],"content":""}}\n'
        b'{"type":"reset","id":"r","parentId":"b","firstKeptEntryId":"a"}'
    ),
    "a model whose name is infinite could not be read as pi reads it": (
        b'{"type":"model_change","id":"a","provider":1e999}'
    ),
    "an infinite number deep inside a custom message could not be read": (
        b'{"type":"custom_message","id":"a","content":' + b"[" * 490 + b"1e999" + b"]" * 490 + b"}"
    ),
    "a number past the digit limit made verify see a wrong span": (
        b'{"type":"message","id":"a","x":'
        + b"9" * 4_301
        + b',"message":{"role":"user","content":9007199254740993}}'
    ),
    "an empty id was a parent to one reader only": (
        b'{"type":"thinking_level_change","id":"","x":1}\n{"type":"b","parentId":""}'
    ),
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
async def test_found_a_damaged_first_line_behind_a_byte_order_mark(
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
    "one key twice was bound to another session by every second import": (
        b'{"main":{"sessionId":"a"},"main":{"sessionId":"b"}}'
    ),
    "one key written in two ways": (
        b'{"main":{"sessionId":"a"},"agent:main:main":{"sessionId":"b"}}'
    ),
    "a row that names an archive was lost by the export": (
        b'{"agent:main:main":{"sessionFile":"c.jsonl.reset.2026-01-01T00-00-00.000Z"}}'
    ),
    "a row of another agent was lost by the export": (
        b'{"agent:other:main":{"sessionId":"a"},"agent:main:main":{"sessionId":"b"}}'
    ),
    "a row that is a list could not be renewed": (
        b'{"main":{"sessionId":"a"},"agent:main:main":[]}'
    ),
    "a row with an infinite number could not be renewed": (
        b'{"agent:main:main":{"sessionId":"a","n":1e999}}'
    ),
    "a row with a number past the digit limit could not be renewed": (
        b'{"agent:main:main":{"sessionId":"a","n":' + b"9" * 4_301 + b"}}"
    ),
    "a line break before a colon was not JSON": (
        b'{"message"\n:\n{"sessionId":"a"},"agent:main:main"\n:{"sessionId":"b"}}'
    ),
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

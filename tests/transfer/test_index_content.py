"""A long index is stored, read, compared and replaced in pieces, and none of them shows early."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
from sessiondb.backend import Backend, Tx
from sessiondb.maintenance import verify_receipts
from sessiondb.transfer import import_index, index_content
from tests.support.transfer import by_name, transcript, write

pytestmark = pytest.mark.anyio

PIECE_BYTES = 2_000
# The columns of a receipt, or of a binding, beside the texts that are counted.
ENVELOPE_BYTES = 1_000
AGENTS = ("main", "west")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # where an import waits is tested under both loops in test_importer


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_content, "PIECE_BYTES", PIECE_BYTES)
    monkeypatch.setattr(import_index, "IMPORT_BATCH_BYTES", PIECE_BYTES)
    monkeypatch.setattr(import_index, "IMPORT_BATCH_ENTRIES", 7)


def index_of(agent: str, rows: int, filler: str = "x") -> bytes:
    """Return an index: keys that lead to one transcript, 200 bytes each."""
    entries = {
        f"agent:{agent}:chat:{at}": {"sessionId": f"{agent}-s", "filler": filler * 130}
        for at in range(rows)
    }
    return json.dumps(entries, indent=2).encode()


def put(home: Path, agent: str, content: bytes) -> None:
    write(
        home / f"agents/{agent}/sessions",
        {"sessions.json": content, f"{agent}-s.jsonl": transcript(2, f"{agent}-s")},
    )


def two_agents(home: Path, rows: int = 40) -> dict[str, bytes]:
    indexes = {agent: index_of(agent, rows) for agent in AGENTS}
    for agent, content in indexes.items():
        put(home, agent, content)
    return indexes


async def exported(db: sessiondb.SessionDB, folder: Path) -> dict[str, bytes]:
    """Return the indexes of an export, by agent."""
    await db.export(folder, overwrite=True)
    paths = {agent: folder / f"agents/{agent}/sessions/sessions.json" for agent in AGENTS}
    return {agent: path.read_bytes() for agent, path in paths.items() if path.exists()}


def pieces(path: Path) -> dict[str, list[tuple[int, bytes]]]:
    """Return the rows of all indexes that are kept as pieces, by the agent."""
    with apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY) as connection:
        rows = list(
            connection.execute(
                "SELECT f.agent_id, q.byte_offset, q.content FROM import_file AS f JOIN quarantine"
                " AS q ON q.import_file_no = f.import_file_no WHERE f.kind = 'index' ORDER BY 1, 2"
            )
        )
    return {agent: [row[1:] for row in rows if row[0] == agent] for agent in AGENTS}


async def faults(db: sessiondb.SessionDB) -> list[str]:
    return [finding.message for finding in (await db.verify()).findings]


class CountingTx:
    """A transaction that counts the bytes of texts which its statements write."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    def run(self, statement: str, /, **params: Any) -> int:
        self.bytes += sum(len(value) for value in params.values() if isinstance(value, str | bytes))
        return self._tx.run(statement, **params)


Step = Callable[..., Awaitable[Any]]


def before_each_step(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, then: Callable[[int], Awaitable[None]]
) -> None:
    """Call a function before each step of an import, with its number."""
    step: Step = backend.step
    numbers: Iterator[int] = iter(range(1_000_000))

    async def counted(fn: Any, *, op: str, size: int = 0) -> Any:
        await then(next(numbers))
        return await step(fn, op=op, size=size)

    monkeypatch.setattr(backend, "step", counted)


async def test_no_transaction_writes_or_deletes_more_than_a_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    deleted: list[int] = []
    async with sessiondb.open(tmp_path / "one.db") as db:
        step: Step = db.backend.step

        async def counting(fn: Any, *, op: str, size: int = 0) -> Any:
            def body(tx: Tx) -> Any:
                counted = CountingTx(tx)
                before = _piece_bytes(tx)
                value = fn(counted)
                written.append(counted.bytes)
                deleted.append(max(0, before - _piece_bytes(tx)))
                return value

            return await step(body, op=op, size=size)

        monkeypatch.setattr(db.backend, "step", counting)
        for rows in (40, 60, 1, 40):
            indexes = two_agents(tmp_path / "home", rows)
            assert len(indexes["main"]) > 3 * PIECE_BYTES or rows == 1
            report = await db.import_path(tmp_path / "home")
            assert report.ok, report
            assert await exported(db, tmp_path / "out") == indexes
            assert await faults(db) == []
        again = await db.import_path(tmp_path / "home")
        assert again.count("unchanged") == 4
    assert max(written) <= PIECE_BYTES + ENVELOPE_BYTES
    assert 0 < max(deleted) <= PIECE_BYTES
    assert sum(written) > 2 * sum(len(index_of("main", rows)) for rows in (40, 60, 1, 40))


def _piece_bytes(tx: Tx) -> int:
    """Return the bytes of all pieces of the two indexes, whether they count or not."""
    total = 0
    for row in tx.all("verify.import_files", after_no=0, limit=100):
        if row.kind == "index":
            found = tx.all(
                "import_file.index_pieces",
                import_file_no=row.import_file_no,
                after_offset=-(1 << 62),
                end_offset=0,
                limit=1_000,
            )
            total += sum(len(piece.content) for piece in found)
    return total


async def test_only_the_pieces_of_the_last_import_are_left(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    two_agents(tmp_path / "home")
    async with sessiondb.open(path) as db:
        await db.import_path(tmp_path / "home")
    west = pieces(path)["west"]
    for rows in (60, 20, 1, 30):
        content = index_of("main", rows)
        put(tmp_path / "home", "main", content)
        async with sessiondb.open(path) as db:
            report = by_name(await db.import_path(tmp_path / "home"))
            assert report["agents/main/sessions/sessions.json"].status == "imported"
            assert report["agents/west/sessions/sessions.json"].status == "unchanged"
            bound = (await (await db.session_by_id("main-s")).info()).keys
        left = pieces(path)
        assert b"".join(piece for _, piece in left["main"]) == (content if rows > 1 else b"")
        assert {len(piece) for _, piece in left["main"][:-1]} <= {PIECE_BYTES}
        assert left["west"] == west
        assert len(bound) == rows, "the keys whose rows are gone are unbound, page by page"


@pytest.mark.parametrize("first", [True, False], ids=["the first import", "a later one"])
async def test_an_import_that_ends_between_two_steps_shows_nothing_of_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    path, home = tmp_path / "one.db", tmp_path / "home"
    async with sessiondb.open(path) as db:
        before = two_agents(home, 20) if not first else {}
        if before:
            await db.import_path(home)
        after = {"main": index_of("main", 20, "yy"), "west": index_of("west", 20)}
        for agent in AGENTS:
            put(home, agent, after[agent])
        ends_at, ended_early, had_leftovers = 0, True, 0
        while ended_early:
            with anyio.CancelScope() as scope, monkeypatch.context() as patch:

                async def end(
                    number: int, ends_at: int = ends_at, scope: anyio.CancelScope = scope
                ) -> None:
                    if number == ends_at:
                        scope.cancel()
                        await anyio.lowlevel.checkpoint()

                before_each_step(patch, db.backend, end)
                await db.import_path(home)
            ended_early = scope.cancelled_caught
            shown = await exported(db, tmp_path / f"out{ends_at}")
            # Until an agent has an index, an export makes one of its keys.
            for agent in AGENTS if not first else ():
                assert shown[agent] in (before[agent], after[agent])
            assert await faults(db) == []
            had_leftovers += len(pieces(path)["main"]) > len(before.get("main", b"")) // PIECE_BYTES
            ends_at += 1
        assert await exported(db, tmp_path / "out") == after
        assert (await db.import_path(home)).count("unchanged") == 4
    assert had_leftovers > 2, "some of them ended between two pieces"
    assert {agent: b"".join(piece for _, piece in pieces(path)[agent]) for agent in AGENTS} == after


async def test_an_index_of_an_earlier_release_is_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, home = tmp_path / "one.db", tmp_path / "home"
    indexes = two_agents(home)
    with monkeypatch.context() as patch:
        patch.setattr(index_content, "PIECE_BYTES", 1 << 30)
        async with sessiondb.open(path) as db:
            await db.import_path(home)
    assert pieces(path) == {"main": [], "west": []}
    async with sessiondb.open(path) as db:
        assert (await db.import_path(home)).count("unchanged") == 4
        assert await exported(db, tmp_path / "out") == indexes
        indexes["main"] = index_of("main", 50)
        put(home, "main", indexes["main"])
        await db.import_path(home)
        assert await exported(db, tmp_path / "out") == indexes
        assert await faults(db) == []
    assert b"".join(piece for _, piece in pieces(path)["main"]) == indexes["main"]
    assert pieces(path)["west"] == []


async def test_of_two_imports_at_once_one_stores_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    two_agents(home)
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(home)
        put(home, "main", index_of("main", 40, "y"))
        last = {"main": index_of("main", 44, "z"), "west": index_of("west", 40)}

        async def overtake(tx_number: int) -> None:
            if not overtaken and len(pieces(tmp_path / "one.db")["main"]) > len(stored) + 1:
                overtaken.append(tx_number)
                put(home, "main", last["main"])
                assert (await db.import_path(home)).ok

        overtaken: list[int] = []
        stored = pieces(tmp_path / "one.db")["main"]
        before_each_step(monkeypatch, db.backend, overtake)
        slower = by_name(await db.import_path(home))["agents/main/sessions/sessions.json"]
        assert slower.status == "failed"
        assert "another import is storing it too" in slower.note
        assert await exported(db, tmp_path / "out") == last
        assert await faults(db) == []
        assert (await db.import_path(home)).ok
    assert b"".join(piece for _, piece in pieces(tmp_path / "one.db")["main"]) == last["main"]


async def test_an_index_that_is_stored_anew_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    two_agents(home)
    path = str(home / "agents/main/sessions/sessions.json")
    monkeypatch.setattr(index_content, "PAGE_ROWS", 1)
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(home)
        read: Step = db.backend.read
        pages: list[int] = []

        async def replaced_meanwhile(fn: Any, *, op: str) -> Any:
            value = await read(fn, op=op)
            if op == "test" and len(pages) < 3:
                pages.append(len(pages))
                if len(pages) == 3:
                    put(home, "main", index_of("main", 44, "z"))
                    await db.import_path(home)
            return value

        monkeypatch.setattr(db.backend, "read", replaced_meanwhile)
        stored = await index_content.load(db.backend, path, op="test")
        assert stored is not None
        assert stored.content == index_of("main", 44, "z")
        assert pages == [0, 1, 2]


async def test_verify_begins_anew_when_an_index_is_stored_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    two_agents(home)
    monkeypatch.setattr(verify_receipts, "PAGE_ROWS", 1)
    async with sessiondb.open(tmp_path / "one.db") as db:
        await db.import_path(home)
        number = await db.backend.read(
            lambda tx: tx.all("import_file.indexes")[0].import_file_no, op="test"
        )
        for is_replaced in (True, False):
            findings = verify_receipts.SessionFindings()
            walk = verify_receipts.IndexWalk(number, findings)
            for at, step in enumerate(walk.steps()):
                if is_replaced and at == 3:
                    put(home, "main", index_of("main", 44, "z"))
                    await db.import_path(home)
                await db.backend.read(step, op="test")
            assert walk.moved == is_replaced
            assert findings.found == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("DELETE FROM quarantine WHERE byte_offset = ?", "names pieces of its content that are"),
        ("UPDATE quarantine SET content = zeroblob(2000) WHERE byte_offset = ?", "another hash"),
        ("DELETE FROM quarantine WHERE byte_offset >= ?", "bytes, but its content has 2000"),
    ],
    ids=["a piece is missing", "a piece is another one", "the rest is missing"],
)
async def test_verify_compares_the_pieces_of_an_index(
    tmp_path: Path, change: str, says: str
) -> None:
    path = tmp_path / "one.db"
    two_agents(tmp_path / "home")
    async with sessiondb.open(path) as db:
        await db.import_path(tmp_path / "home")
    second = pieces(path)["west"][1][0]
    with apsw.Connection(str(path)) as connection:
        of_west = (
            " AND import_file_no = (SELECT import_file_no FROM import_file"
            " WHERE kind = 'index' AND agent_id = 'west')"
        )
        connection.execute(change + of_west, (second,))
    async with sessiondb.open(path) as db:
        [fault] = await faults(db)
    assert says in fault
    assert "agents/west/sessions/sessions.json" in fault

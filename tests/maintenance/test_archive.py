"""A session goes into its archive and comes back exactly as it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessiondb
import sessiondb.sync
from sessiondb.errors import (
    InvalidInput,
    NotFound,
    SessionArchived,
    SessionEnded,
    StoreBusy,
    StoreDamaged,
)
from sessiondb.maintenance import archive
from tests.support.core import change, query, reply, texts, user
from tests.support.maintenance import (
    EVERYTHING,
    KEY,
    Dying,
    Killed,
    archive_session,
    dump,
    eventful_session,
)

pytestmark = pytest.mark.one_loop


@pytest.mark.anyio
async def test_archive_and_restore_leave_every_row_as_it_was(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db)
        context = await session.context()
        await eventful_session(db, "agent:main:web:2", length=3)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        row = await archive_session(db, session := await db.session_by_id(session.id))
        assert (row.state, row.finished_at_ms is not None) == ("archived", True)
        assert (await db.verify()).findings == ()
        assert [info.session_id async for info in db.sessions()] != []
    during = dump(tmp_db)
    low = session.ref.session_no << 32
    assert [entry for entry in during["entry"] if entry[0] >> 32 == session.ref.session_no] == []
    assert [entry for entry in before["entry"] if entry[0] >> 32 != low >> 32] == during["entry"]
    assert during["compaction"] == before["compaction"]
    async with sessiondb.open(tmp_db) as db:
        restored = await db.unarchive(session.id)
        assert (restored.session_id, restored.keys_bound, restored.keys_taken) == (
            session.id,
            (KEY, KEY + ":other"),
            (),
        )
        assert (await db.verify()).findings == ()
        assert await (await db.session(KEY)).context() == context
    assert dump(tmp_db) == before
    assert query(tmp_db, "SELECT count(*) FROM archive_chunk") == [0]


@pytest.mark.anyio
async def test_archive_and_restore_may_be_repeated(tmp_db: Path) -> None:
    """Each time the whole session of then comes back, and a neighbour's archive stays."""
    async with sessiondb.open(tmp_db) as db:
        session, other = [await eventful_session(db, key, length=3) for key in (KEY, KEY + "2")]
        await archive_session(db, other)
        for round_ in range(3):
            await session.append_many([user(f"round {round_}"), reply("yes")])
            entries, context = await session.all_entries(limit=1_000), await session.context()
            before = dump(tmp_db)
            row = await archive_session(db, session)
            assert (row.state, row.session_no) == ("archived", session.ref.session_no)
            assert await archive_session(db, session) == "its archive is archived already"
            assert (await db.verify()).findings == ()
            assert (await db.unarchive(session.id)).keys_bound == (KEY, KEY + ":other")
            with pytest.raises(InvalidInput):
                await db.unarchive(session.id)
            assert (await db.verify()).findings == ()
            assert await session.all_entries(limit=1_000) == entries
            assert await session.context() == context
            assert dump(tmp_db) == before
        await db.unarchive(other.id)
    assert query(tmp_db, "SELECT state FROM archive") == ["restored"] * 4
    assert query(tmp_db, "SELECT count(*) FROM archive_chunk") == [0]


@pytest.mark.anyio
async def test_calls_on_an_archived_session_name_the_restore_command(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        await archive_session(db, session)

        async def compact() -> None:
            async with session.compact():
                pytest.fail("there is nothing to compact")

        for refused in (
            session.context,
            session.entries,
            lambda: session.entries(last=20),
            session.all_entries,
            session.epochs,
            session.fork,
            session.reset,
            session.undo_compaction,
            compact,
            lambda: session.append(user("one more")),
            lambda: session.branch(None),
            lambda: db.bind("agent:main:web:9", session),
            lambda: session.context(epoch=0),
        ):
            with pytest.raises(SessionEnded) as caught:
                await refused()
            assert (type(caught.value), caught.value.session_id) == (SessionArchived, session.id)
            assert f"sessiondb unarchive DB {session.id}" in str(caught.value)
        assert (await session.info()).entries > 0


@pytest.mark.anyio
async def test_a_key_reused_while_archived_stays_with_its_new_session(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        await archive_session(db, session)
        accepted = await db.accept(KEY, user("hello again"), channel="web", event_id="1")
        assert accepted.session_id != session.id
        restored = await db.unarchive(session.id)
        assert (restored.keys_bound, restored.keys_taken) == ((KEY + ":other",), (KEY,))
        assert (await db.session(KEY)).id == accepted.session_id
        assert (await db.session(KEY + ":other")).id == session.id
        await (await db.session_by_id(session.id)).append(user("it goes on"))
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_late_summary_of_an_archived_session_gets_its_answer(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        [lost] = [
            info.compaction_id async for info in db.compactions(session) if info.state == "failed"
        ]
        [done] = [
            info.compaction_id
            async for info in db.compactions(session)
            if info.state == "committed"
        ]
        await archive_session(db, session)
        late = await db.commit_compaction(lost, "far too late")
        assert (late.outcome, late.reason) == ("superseded", "the session has ended")
        assert await db.commit_compaction(lost, "again") == late
        assert (await db.commit_compaction(done, "again")).outcome == "committed"
        await db.unarchive(session.id)
        assert await db.commit_compaction(lost, "again") == late
        assert (await db.verify()).findings == ()


# -- what protects a session -----------------------------------------------------------


@pytest.mark.anyio
async def test_a_session_forked_while_being_archived_stays_as_it_was(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        archive_no, _ = await archive.begin(db.backend, session.ref.session_no, "for the test")
        assert archive_no is not None
        with pytest.raises(SessionEnded):
            await (session := await db.session_by_id(session.id)).append(user("too late"))
        assert len(await session.entries()) > 3  # no row is missing yet
        fork = await session.fork()
        row = await archive.advance(db.backend, archive_no)
        assert row.state == "restored"
        assert texts(await fork.context()) == texts(await session.context())
        held = await archive_session(db, session)
        assert held == f"session {fork.id} was forked from it and uses its entries"
    after = dump(tmp_db)
    assert after["binding"] == before["binding"]
    assert before["session"][0] in after["session"]


@pytest.mark.anyio
async def test_a_fork_and_its_parent_are_restored_together(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        parent = await eventful_session(db, length=3)
        bare = await parent.fork()  # it has no entry of its own, only its parent's
        child = await bare.fork(key="agent:main:web:child")
        await child.append(user("on my own"))
    before = dump(tmp_db)
    async with sessiondb.open(tmp_db) as db:
        parent, bare, child = [
            await db.session_by_id(handle.id) for handle in (parent, bare, child)
        ]
        assert "was forked from it" in await archive_session(db, parent)
        assert "was forked from it" in await archive_session(db, bare)
        for session in (child, bare, parent):
            assert (await archive_session(db, session)).state == "archived"
            assert (await db.verify()).findings == ()
        assert await archive_session(db, parent) == "its archive is archived already"
        restored = await db.unarchive(child.id)
        assert restored.parents == (bare.id, parent.id)
        assert (await db.verify()).findings == ()
    assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_a_parent_that_an_archived_fork_needs_is_not_deleted(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        parent = await eventful_session(db, length=3)
        child = await parent.fork()
        await archive_session(db, child)
        assert (
            await archive_session(db, parent, keep_archive=False)
            == f"the archived session {child.id} was forked from it"
        )
        row = await archive_session(db, parent)
        assert (
            await archive.drop(db.backend, row)
            == f"the archived session {child.id} was forked from it"
        )
        await db.unarchive(child.id)
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_two_processes_at_one_archive_do_not_harm_it(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as one, sessiondb.open(tmp_db) as two:
        session = await one.session(KEY)
        await session.append_many([user(f"{number}") for number in range(700)])
        entries = await session.all_entries(limit=1_000)
        archive_no, _ = await archive.begin(one.backend, session.ref.session_no, "for the test")
        assert archive_no is not None
        # The second process writes a chunk just before the first one would.
        dying = Dying(two.backend, 1)

        class Racing(Dying):
            async def step(self, fn: Callable[[Any], Any], *, op: str, **options: Any) -> Any:
                if op == "archive.chunk" and not dying.ops:
                    with pytest.raises(Killed):
                        await archive.advance(dying, archive_no)
                return await self.backend.step(fn, op=op, **options)

        with pytest.raises(StoreBusy, match="another process"):
            await archive.advance(Racing(one.backend, -1), archive_no)
        assert (await archive.advance(one.backend, archive_no)).state == "archived"
        await two.unarchive(session.id)
        assert await session.all_entries(limit=1_000) == entries
        assert (await one.verify()).findings == ()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "damage",
    [
        "archive_chunk SET content = CAST(x'00' || substr(content, 2) AS BLOB)",
        "archive_chunk SET sha256 = replace(sha256, substr(sha256, 1, 1), 'z')",
        "archive_chunk SET rows = rows + 1",
        "archive SET rows = rows + 1",
    ],
)
async def test_a_damaged_archive_is_found_and_stays_archived(tmp_db: Path, damage: str) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        await archive_session(db, session)
    of_entries = " WHERE what = 'entry'" if "chunk" in damage else ""
    change(tmp_db, f"UPDATE {damage}{of_entries}")
    async with sessiondb.open(tmp_db) as db:
        assert {
            (finding.check, finding.session_id) for finding in (await db.verify()).findings
        } == {("archive", session.id)}
        with pytest.raises(StoreDamaged, match=session.id):
            await db.unarchive(session.id)
        with pytest.raises(SessionArchived):
            await (await db.session_by_id(session.id)).context()
        assert list((await db.gc(EVERYTHING)).decisions) == []  # it stays archived
    # As if the damage had come during a restore.
    change(tmp_db, "UPDATE archive SET state = 'restoring', finished_at_ms = NULL")
    async with sessiondb.open(tmp_db) as db:
        with pytest.raises(StoreDamaged, match=session.id):
            await db.unarchive(session.id)
        with pytest.raises(SessionArchived):
            await (await db.session_by_id(session.id)).context()
        report = await db.gc(EVERYTHING)
        assert [(decision.session_id, decision.outcome) for decision in report.decisions] == [
            (session.id, "failed")
        ]


@pytest.mark.anyio
async def test_deleting_without_an_archive_is_final(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        row = await archive_session(db, session, keep_archive=False)
        assert (row.state, row.encoding) == ("deleted", "none")
        assert (await db.verify()).findings == ()
        with pytest.raises(NotFound, match="cannot be restored"):
            await db.unarchive(session.id)
    for table in ("entry", "branch", "epoch", "compaction", "binding", "archive_chunk"):
        assert query(tmp_db, f"SELECT count(*) FROM {table}") == [0]
    assert query(tmp_db, "SELECT name FROM session") == [None]


@pytest.mark.anyio
async def test_only_an_archived_session_can_be_restored(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        with pytest.raises(InvalidInput, match="is not archived"):
            await db.unarchive(session.id)
        with pytest.raises(NotFound):
            await db.unarchive("no-such-session")


# -- compression -----------------------------------------------------------------------


@pytest.mark.anyio
async def test_without_zstd_an_archive_is_compressed_with_zlib(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
    before = dump(tmp_db)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    async with sessiondb.open(tmp_db) as db:
        assert (await archive_session(db, session)).encoding == "zlib"
        await db.unarchive(session.id)
    assert dump(tmp_db) == before


@pytest.mark.anyio
async def test_without_zstd_its_archives_say_what_to_install(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zstandard", reason="the extra `zstd` is not installed")
    async with sessiondb.open(tmp_db) as db:
        session = await eventful_session(db, length=3)
        assert (await archive_session(db, session)).encoding == "zstd"
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(InvalidInput, match=r"sessiondb\[zstd\]"):
            await db.unarchive(session.id)


# -- imports and exports ---------------------------------------------------------------


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_archived_import_exports_equal_bytes_after_restore(tmp_path: Path, sample: Path) -> None:
    path = tmp_path / "gateway.db"
    with sessiondb.sync.open(path) as db:
        db.import_path(str(sample))
        assert db.export(str(tmp_path / "before")).ok
    before = dump(path)
    with sessiondb.sync.open(path) as db:
        report = db.gc(EVERYTHING)
        assert report.ok
        archived = [
            decision.session_id for decision in report.decisions if decision.outcome == "done"
        ]
        assert len(archived) > 3
        assert db.verify().findings == ()
        refused = db.export(str(tmp_path / "during"))
        assert sum("sessiondb unarchive DB" in file.note for file in refused.files) >= len(archived)
        again = db.import_path(str(sample))
        assert (again.entries_new, again.count("imported"), again.count("failed")) == (0, 0, 0)
        for session_id in archived:
            db.unarchive(session_id)
        assert db.export(str(tmp_path / "after")).ok
        assert db.verify().findings == ()
    assert files_in(tmp_path / "after") == files_in(tmp_path / "before")
    assert dump(path) == before


# -- any history -----------------------------------------------------------------------


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.text(max_size=40).filter(lambda text: text.isprintable())),
        st.tuples(st.just("answer"), st.integers(0, 10**9)),
        st.tuples(st.just("branch"), st.integers(0, 30)),
        st.tuples(st.just("reset"), st.just(0)),
        st.tuples(st.just("compact"), st.integers(0, 30)),
        st.tuples(st.just("undo"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("archive"), st.just(0)),
    ),
    max_size=25,
)


@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_archive_and_restore_together_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "gateway.db"
    with sessiondb.sync.open(path) as db:
        session = db.session(KEY)
        for step, value in steps:
            if step == "archive":
                live(db, session, step, value)
                continue
            # Not every step is possible in every state.
            with contextlib.suppress(sessiondb.SessionDBError):
                live(db, session, step, value)
        before = dump(path)
        assert db.gc(EVERYTHING).count("done") == 1
        assert db.verify().findings == ()
        db.unarchive(session.id)
        assert db.verify().findings == ()
        assert dump(path) == before


def live(
    db: sessiondb.sync.SessionDB, session: sessiondb.sync.Session, step: str, value: Any
) -> None:
    if step == "say":
        session.append(user(value))
    elif step == "answer":
        session.append(reply("yes", tokens=value))
    elif step == "branch":
        found = session.all_entries(limit=40)
        session.branch(found[value % len(found)].entry_id)
    elif step == "compact":
        with session.compact(keep_recent_tokens=value) as job:
            job.commit("so far")
    elif step == "archive":
        db.gc(EVERYTHING)
        db.unarchive(session.id)
    else:
        {"reset": session.reset, "undo": session.undo_compaction, "end": session.end}[step]()

"""`verify` finds nothing in a sound database of any shape, and exactly what was broken in a broken one."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessiondb
from sessiondb import Finding
from sessiondb.backend import ReadTx
from sessiondb.gateway import outbox
from sessiondb.maintenance import verify, verify_session, verify_steps, verify_text
from tests.support.core import change, load_file, reply, result, user
from tests.support.gateway import claimed, complete, fail, interrupt, say


async def fill(path: Path) -> None:
    """Make a database with every shape that a session can have. Session 1 has the numbers that the table below breaks."""
    async with sessiondb.open(path) as db:
        chat = await db.session("agent:main:discord:channel:1", cwd="/work")  # header: seq 0
        await chat.append(user("one " * 40), idempotency_key="k1")  # 1
        await chat.append({"type": "thinking_level_change", "thinkingLevel": "high"})  # 2
        await chat.append({"type": "model_change", "provider": "p", "modelId": "m"})  # 3
        await chat.append(reply("two " * 40, calls=["a", "b"], tokens=500))  # 4
        await chat.append_many([result("a"), result("b")])  # 5, 6
        await chat.append(reply("three", tokens=600))  # 7
        await chat.append(user("four"))  # 8
        await chat.append(reply("five"))  # 9
        async with chat.compact(keep_recent_tokens=1) as job:
            assert (await job.commit("so far")).outcome == "committed"  # 10, epoch 1
        await chat.append(user("six"))  # 11
        seventh = await chat.append(reply("seven", tokens=700))  # 12
        await chat.append(
            {"type": "custom_message", "customType": "n", "content": "note", "display": True}
        )  # 13
        await chat.append(
            {"type": "custom", "customType": "d", "data": {}, "appendMode": "side"}
        )  # 14, off the path
        await chat.append({"type": "session_info", "name": "a name"})  # 15
        await chat.append({**user("secret"), "excludeFromContext": True})  # 16
        await chat.branch(seventh.entry_id)  # 17, epoch 2
        await chat.append(user("eight"))  # 18, opens a branch
        await chat.append(reply("nine", tokens=900))  # 19

        undone = await db.create_session("undone")
        await undone.append_many([user("a " * 300), reply("b " * 300), user("c"), reply("d")])
        async with undone.compact(keep_recent_tokens=1) as job:
            assert (await job.commit("s")).outcome == "committed"
        await undone.append(user("e"))
        await undone.undo_compaction()
        await undone.append_many([user("f"), reply("g")])
        await (await undone.fork(session_id="fork-of-undone")).append(user("h"))

        reset = await db.create_session("reset")
        await reset.append(user("a"))
        kept = await reset.append(user("b"))
        await reset.append(reply("c", calls=["x"]))
        await reset.reset(keep_from=kept.entry_id)
        await reset.append(user("d"))
        await reset.reset()
        await reset.branch(None)
        await reset.append(user("a new root"))

        fork = await chat.fork(session_id="fork", key="agent:main:fork")
        await fork.append(user("in the fork"))
        await (await fork.fork(session_id="fork-of-fork")).append(user("deeper"))
        await chat.fork(session_id="fork-empty", epoch=0)
        await (await chat.fork(session_id="fork-at-entry", entry_id=seventh.entry_id)).append(
            user("aside")
        )
        await (await db.create_session("empty")).end()
        failed = await db.create_session("failed")
        await failed.append_many([user("a " * 300), reply("b"), user("c")])
        with pytest.raises(ZeroDivisionError):
            async with failed.compact(keep_recent_tokens=1):
                raise ZeroDivisionError
        await db.bind("agent:main:web:1", reset)
        await work(db)


async def work(db: sessiondb.SessionDB) -> None:
    """Leave messages, turns and replies in every state: inbox items 1 to 5, turns 1 to 5, replies 1 to 3."""
    for name in ("answered", "failing", "dead", "cut", "waiting"):
        await say(db, name)
    answered = await claimed(db)
    await complete(
        db,
        answered.turn_no,
        "here",
        replies=[("web:1", "one"), ("web:1", "two"), ("web:1", "three")],
    )
    sent = await db.write("send", partial(outbox.begin_sending, lease_ms=60_000))
    assert sent is not None
    await db.write("sent", lambda tx: outbox.sent(tx, sent, "42"))
    lost = await db.write("send", partial(outbox.begin_sending, lease_ms=60_000))
    assert lost is not None
    await db.write("lost", lambda tx: outbox.lost(tx, lost, "gone"))
    await fail(db, (await claimed(db)).turn_no, retry=False)
    await fail(db, (await claimed(db)).turn_no, retry=False)
    await interrupt(db, (await claimed(db)).turn_no)
    running = await claimed(db)
    assert (running.turn_no, running.inbox_no) == (5, 5)
    async for event in db.events("operator", from_start=True):
        if event.event_no == 3:
            break


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a closed database of every shape, to be copied and not changed."""
    path = tmp_path_factory.mktemp("sound") / "gateway.db"
    anyio.run(fill, path)
    return path


@pytest.fixture
def broken(sound: Path, tmp_db: Path) -> Path:
    """Return a copy of it, to be broken."""
    assert not sound.with_name("gateway.db-wal").exists(), (
        "the database was closed, so its file is whole"
    )
    shutil.copy(sound, tmp_db)
    return tmp_db


async def findings(path: Path, *, deep: bool = True) -> tuple[Finding, ...]:
    """Verify a file."""
    async with sessiondb.open(path) as db:
        return (await db.verify(deep=deep)).findings


@pytest.mark.anyio
@pytest.mark.parametrize("deep", [True, False])
async def test_a_database_of_every_shape_is_sound(sound: Path, *, deep: bool) -> None:
    async with sessiondb.open(sound, readonly=True) as db:
        report = await db.verify(deep=deep)
    assert report.findings == ()
    assert report.ok
    assert report.sessions == 10


@pytest.mark.anyio
async def test_one_session_can_be_verified_alone(sound: Path) -> None:
    async with sessiondb.open(sound, readonly=True) as db:
        report = await db.verify(await db.session_by_id("agent:main:discord:channel:1"))
    assert (report.sessions, report.entries, report.findings) == (1, 20, ())


def small_files(folder: Path) -> list[Path]:
    """Return the transcripts of a folder that load in a moment."""
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and ".jsonl" in path.name and "expected" not in path.parts
    ]
    return sorted(
        path for path in files if not path.name.endswith(".zst") and path.stat().st_size < 500_000
    )


@pytest.mark.anyio
async def test_every_imported_transcript_is_sound(tmp_db: Path, transcripts: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        loaded = set()
        for path in small_files(transcripts):
            if path.name not in loaded:
                await load_file(db, path)
                loaded.add(path.name)
        report = await db.verify()
    assert report.sessions == len(loaded) >= 20
    assert report.findings == ()


BREAKS = [
    # check, part of the message, and what breaks it; #8 is the number of session 1's entry 8
    (
        "header",
        "entry 0",
        "UPDATE entry SET type = 'leaf', payload = replace(payload, '\"session\"', '\"leaf\"') WHERE entry_no = #0",
    ),
    ("header", "entry 0", "DELETE FROM entry WHERE entry_no = #0"),
    ("sequence", "last seq is 18", "UPDATE session SET last_seq = 18 WHERE session_no = 1"),
    ("sequence", "last seq is 20", "UPDATE session SET last_seq = 20 WHERE session_no = 1"),
    (
        "sequence",
        "14 to 14 are missing",
        "DELETE FROM branch WHERE first_no = #14; DELETE FROM entry WHERE entry_no = #14",
    ),
    (
        "position",
        "1/5 has position 9 instead of 5",
        "UPDATE entry SET position = 9 WHERE entry_no = #5",
    ),
    ("parent", "1/8 has no parent", "UPDATE entry SET parent_no = NULL WHERE entry_no = #8"),
    ("parent", "1/8 follows entry 1/99", "UPDATE entry SET parent_no = #99 WHERE entry_no = #8"),
    (
        "parent",
        "1/8 follows entry 1/9, which came later",
        "UPDATE entry SET parent_no = #9 WHERE entry_no = #8",
    ),
    (
        "parent",
        "1/19 follows entry 1/17, a record",
        "UPDATE entry SET parent_no = #17 WHERE entry_no = #19",
    ),
    ("parent", "1/8 follows entry 1/6, but", "UPDATE entry SET parent_no = #6 WHERE entry_no = #8"),
    (
        "branch",
        "lies on branch 77, which is not there",
        "UPDATE entry SET branch_no = 77 WHERE entry_no = #16",
    ),
    ("branch", "of session number", "UPDATE branch SET session_no = 2 WHERE first_no = #18"),
    ("branch", "begins at entry 1/3", "INSERT INTO branch (session_no, first_no) VALUES (1, #3)"),
    (
        "branch",
        "left its parent at entry 1/11",
        "UPDATE branch SET fork_no = #11 WHERE first_no = #18",
    ),
    ("branch", "later branch", "UPDATE branch SET parent_branch_no = 5 WHERE first_no = #18"),
    (
        "tokens",
        "1/5 sums the path",
        "UPDATE entry SET tokens_total = tokens_total + 7 WHERE entry_no = #5",
    ),
    (
        "open_calls",
        "1/4 leaves 1 tool calls open instead of 2",
        "UPDATE entry SET open_calls = 1 WHERE entry_no = #4",
    ),
    (
        "open_calls",
        "1/5 leaves 3 tool calls open instead of 1",
        "UPDATE entry SET open_calls = 3 WHERE entry_no = #5",
    ),
    (
        "model",
        "1/8 has its model from none instead of 1/7",
        "UPDATE entry SET model_no = NULL WHERE entry_no = #8",
    ),
    (
        "thinking",
        "1/8 has its thinking level from 1/7 instead of 1/2",
        "UPDATE entry SET thinking_no = #7 WHERE entry_no = #8",
    ),
    (
        "boundary",
        "1/13 was appended to a context that begins at none",
        "UPDATE entry SET boundary_no = NULL WHERE entry_no = #13",
    ),
    ("first_kept", "1/8 keeps entries", "UPDATE entry SET first_kept_no = #1 WHERE entry_no = #8"),
    (
        "projection",
        "1/8 has projection 3 instead of 1",
        "UPDATE entry SET projection = 3 WHERE entry_no = #8",
    ),
    (
        "projection",
        "1/8 is part of contexts but has no body",
        "UPDATE entry SET body_at = 0, body_bytes = 0 WHERE entry_no = #8",
    ),
    (
        "body",
        "of entry 1/8 are not its message",
        "UPDATE entry SET body_at = body_at + 1 WHERE entry_no = #8",
    ),
    (
        "body",
        "of entry 1/8 are not its message",
        "UPDATE entry SET body_bytes = body_bytes - 1 WHERE entry_no = #8",
    ),
    (
        "payload",
        "entry 1/8 is not JSON",
        "UPDATE entry SET payload = substr(payload, 1, 50) WHERE entry_no = #8",
    ),
    (
        "payload",
        "entry 1/8 is not an object",
        "UPDATE entry SET payload = '[]' WHERE entry_no = #8",
    ),
    (
        "payload",
        "entry 1/3 is stored as 'model_change'",
        """UPDATE entry SET payload = '{"type":"x"}' WHERE entry_no = #3""",
    ),
    (
        "payload",
        "entry 1/17 is stored with id 'zzz'",
        "UPDATE entry SET entry_id = 'zzz' WHERE entry_no = #17",
    ),
    (
        "payload",
        "entry 1/8 is stored with role 'robot'",
        "UPDATE entry SET role = 'robot' WHERE entry_no = #8",
    ),
    (
        "parent",
        "but its text says 'x",
        "UPDATE entry SET body_at = body_at + 1, payload = replace(payload, 'parentId\":\"', 'parentId\":\"x') WHERE entry_no = #8",
    ),
    (
        "tree",
        "1/20 is a 'custom', but lies on no branch",
        """INSERT INTO entry VALUES (#20, NULL, NULL, 0, 'custom', NULL, 0, 0, 0, NULL,
        0, NULL, NULL, NULL, NULL, 0, 0, 1, 'x', NULL, '{"type":"custom"}'); UPDATE session SET last_seq = 20 WHERE session_no = 1""",
    ),
    (
        "tree",
        "1/17 is a 'leaf' record outside the tree",
        "UPDATE entry SET position = 4 WHERE entry_no = #17",
    ),
    (
        "tree",
        "1/17 is a 'leaf' record, but lies on branch 1",
        "UPDATE entry SET branch_no = 1 WHERE entry_no = #17",
    ),
    ("name", "named 'other'", "UPDATE session SET name = 'other' WHERE session_no = 1"),
    (
        "head",
        "1/18, is followed by entry 1/19",
        "UPDATE session SET head_no = #18, context_tokens = 702, tokens_fresh = 1 WHERE session_no = 1",
    ),
    ("head", "1/99, is not there", "UPDATE session SET head_no = #99 WHERE session_no = 1"),
    ("head", "1/17, is a control record", "UPDATE session SET head_no = #17 WHERE session_no = 1"),
    ("head", "the session on 1", "UPDATE session SET branch_no = 1 WHERE session_no = 1"),
    (
        "head",
        "was not forked from",
        "UPDATE session SET forked_from_no = NULL WHERE session_id = 'fork-empty'",
    ),
    (
        "pointers",
        "keeps from none, but its epoch 2",
        "UPDATE session SET first_kept_no = NULL WHERE session_no = 1",
    ),
    (
        "context_tokens",
        "901 tokens in its context, but entry 1/19",
        "UPDATE session SET context_tokens = 901 WHERE session_no = 1",
    ),
    (
        "context_tokens",
        "add up to",
        "UPDATE session SET context_tokens = context_tokens + 1 WHERE session_id = 'undone'",
    ),
    (
        "context_tokens",
        "no entry of the context carries one",
        "UPDATE session SET tokens_fresh = 1 WHERE session_id = 'undone'",
    ),
    (
        "epoch",
        "at epoch 1, but its last one is 2",
        "UPDATE session SET epoch = 1, first_kept_no = #9 WHERE session_no = 1",
    ),
    (
        "epoch",
        "epoch 2 is closed",
        "UPDATE epoch SET closed_at_ms = 1 WHERE session_no = 1 AND epoch = 2",
    ),
    (
        "epoch",
        "epoch 0 is open",
        "UPDATE epoch SET closed_at_ms = NULL WHERE session_no = 1 AND epoch = 0",
    ),
    ("epoch", "epoch 0 is missing", "DELETE FROM epoch WHERE session_no = 1 AND epoch = 0"),
    (
        "epoch",
        "epoch 0 ended at entry 1/6",
        "UPDATE epoch SET closed_head_no = #6 WHERE session_no = 1 AND epoch = 0",
    ),
    (
        "epoch",
        "epoch 1 ended at entry 1/17, which is no entry",
        "UPDATE epoch SET closed_head_no = #17 WHERE session_no = 1 AND epoch = 1",
    ),
    (
        "epoch",
        "not on the path there",
        "UPDATE epoch SET closed_head_no = #8 WHERE session_no = 1 AND epoch = 1",
    ),
    (
        "epoch",
        "keeps entries from 1/2",
        "UPDATE epoch SET first_kept_no = #2 WHERE session_no = 1 AND epoch = 1",
    ),
    (
        "epoch",
        "cannot have begun with a fork",
        "UPDATE epoch SET reason = 'fork' WHERE session_no = 1 AND epoch = 2",
    ),
    (
        "compaction",
        "no committed compaction says so",
        "DELETE FROM compaction WHERE session_no = 1",
    ),
    (
        "compaction",
        "does not begin at its entry",
        "UPDATE compaction SET epoch = 0 WHERE session_no = 1",
    ),
    (
        "compaction",
        "is no compaction of this session",
        "UPDATE compaction SET entry_no = #5 WHERE session_no = 1",
    ),
    ("compaction", "not marked late", "UPDATE compaction SET base_epoch = -1 WHERE session_no = 1"),
    (
        "compaction",
        "the session is at 2",
        "UPDATE compaction SET base_epoch = 7, late = 1, state = 'failed', epoch = NULL WHERE session_no = 1",
    ),
    (
        "compaction",
        "covers everything up to",
        "UPDATE compaction SET cut_no = #99 WHERE session_no = 1",
    ),
    (
        "compaction",
        "two compactions say",
        """INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch, tokens_before,
        begun_at_ms, deadline_ms, deadline_max_ms, finished_at_ms, epoch, entry_no) SELECT 'x', session_no, state, trigger, base_epoch,
        tokens_before, 1, 1, 1, 1, epoch, entry_no FROM compaction WHERE session_no = 1""",
    ),
    (
        "compaction",
        "2 compactions are running",
        """DROP INDEX compaction_one_running;
        INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch, tokens_before, begun_at_ms,
        deadline_ms, deadline_max_ms) VALUES ('x', 1, 'running', 'm', 2, 1, 1, 1, 1),
        ('y', 1, 'running', 'm', 2, 1, 1, 1, 1)""",
    ),
    ("binding", "is bound to session number 99", "UPDATE binding SET session_no = 99"),
    (
        "foreign_key",
        "of session points at a session",
        "UPDATE session SET forked_from_no = 99 WHERE session_id = 'fork-at-entry'",
    ),
    (
        "orphan",
        "session number 50",
        """INSERT INTO entry SELECT #50/1, branch_no, parent_no, position, type, role, projection, tokens,
        tokens_total, usage_tokens, open_calls, boundary_no, first_kept_no, model_no, thinking_no, body_at, body_bytes, appended_at_ms,
        'x', NULL, payload FROM entry WHERE entry_no = #1""",
    ),
    (
        "source",
        "counts 3 quarantined lines, but there are 0",
        """
        INSERT INTO import_file (path, name, kind, session_no, lines, quarantined, imported_at_ms, state)
        VALUES ('/a', 'a', 'live', 1, 9, 3, 1, 'done')""",
    ),
    (
        "source",
        "the last seq of its session is 19",
        """INSERT INTO import_file (path, name, kind, session_no, entries, imported_at_ms, state)
        VALUES ('/a', 'a', 'live', 1, 21, 1, 'done')""",
    ),
    (
        "source",
        "line 9 of /a is quarantined, but only 3",
        """
        INSERT INTO import_file (import_file_no, path, name, kind, lines, quarantined, imported_at_ms, state)
        VALUES (1, '/a', 'a', 'live', 3, 1, 1, 'done'); INSERT INTO quarantine VALUES (1, 9, 0, 0, 'torn', 'damaged', x'00')""",
    ),
    (
        "inbox",
        "item 5 is claimed, but its turn 4 is interrupted",
        "UPDATE inbox SET turn_no = 4 WHERE inbox_no = 5; UPDATE turn SET state = 'failed', finished_at_ms = 1 WHERE turn_no = 5",
    ),
    (
        "inbox",
        "item 5 is claimed, but it counts no attempt",
        "UPDATE inbox SET attempts = 0 WHERE inbox_no = 5",
    ),
    (
        "inbox",
        "is not in the transcript",
        "UPDATE inbox SET entry_no = (session_no << 32) + 999 WHERE inbox_no = 1",
    ),
    ("inbox", "lies in another session", "UPDATE inbox SET entry_no = #1 WHERE inbox_no = 1"),
    (
        "turn",
        "runs past its deadline",
        "UPDATE turn SET expires_at_ms = deadline_ms + 1 WHERE turn_no = 1",
    ),
    ("outbox", "its turn 2 is failed", "UPDATE outbox SET turn_no = 2 WHERE outbox_no = 1"),
    ("outbox", "nobody is sending it", "UPDATE outbox SET state = 'sending' WHERE outbox_no = 3"),
    ("outbox", "it has not ended", "UPDATE outbox SET finished_at_ms = NULL WHERE outbox_no = 2"),
    ("event", "has handled event 999", "UPDATE event_cursor SET event_no = 999"),
    (
        "archive",
        "its archive is not there",
        "UPDATE session SET archived_at_ms = 1 WHERE session_no = 1",
    ),
    (
        "archive",
        "counts 9 rows and holds 0",
        """UPDATE session SET archived_at_ms = 1 WHERE session_no = 1;
        INSERT INTO archive (session_no, state, reason, encoding, begun_at_ms, finished_at_ms, rows, session_keys)
        VALUES (1, 'archived', '', 'zlib', 1, 1, 9, '[]')""",
    ),
    (
        "file",
        "SQLite: ",
        """PRAGMA writable_schema = on; UPDATE sqlite_schema SET sql = replace(sql, 'updated_at_ms)', 'created_at_ms)')
        WHERE name = 'session_by_update'""",
    ),
]


def sql(statement: str) -> str:
    """Write entry numbers out: #8 is entry 8 of session 1, #50/1 is entry 1 of session 50."""
    return re.sub(
        r"#(?:(\d+)/)?(\d+)", lambda at: str((int(at[1] or 1) << 32) + int(at[2])), statement
    )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("check", "says", "statement"), BREAKS, ids=[f"{check}: {says}" for check, says, _ in BREAKS]
)
async def test_what_was_broken_is_found_and_nothing_else(
    broken: Path, check: str, says: str, statement: str
) -> None:
    change(broken, sql(statement))
    found = await findings(broken)
    assert {finding.check for finding in found} == {check}, found
    assert any(says in finding.message for finding in found), found
    for finding in found:
        assert verify.ADVICE[check] in finding.message
        assert finding.severity == "error"


def test_every_check_is_broken_on_purpose_somewhere() -> None:
    assert {check for check, _, _ in BREAKS} == verify.ADVICE.keys()


@pytest.mark.anyio
async def test_small_pages_find_the_same(
    sound: Path, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(
        broken,
        "UPDATE session SET context_tokens = 1 WHERE session_id = 'fork'",
        *(sql(statement) for _, _, statement in BREAKS[5:9]),
    )
    expected = await findings(broken)
    monkeypatch.setattr(verify_steps, "PAGE_ROWS", 2)
    monkeypatch.setattr(verify_text, "SLICE_BYTES", 1)
    monkeypatch.setattr(verify_session, "USAGE_SCAN_ENTRIES", 1)
    assert await findings(broken) == expected != ()
    assert await findings(sound) == ()


@pytest.mark.anyio
async def test_a_count_of_the_provider_is_found_across_branches_and_forks(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_session, "USAGE_SCAN_ENTRIES", 2)
    async with sessiondb.open(tmp_db) as db:
        session = await db.create_session("s")
        await session.append(reply("counted", tokens=1000))
        for number in range(20):
            last = await session.append(user(f"message {number}"))
            if number % 3 == 0:
                await session.append(
                    {
                        "type": "custom",
                        "customType": "d",
                        "data": {},
                        "appendMode": "side",
                        "parentId": last.entry_id,
                    }
                )
        assert (await session.info()).tokens_fresh
        assert (await db.verify()).findings == ()
    change(tmp_db, "UPDATE session SET context_tokens = context_tokens - 1")
    [finding] = await findings(tmp_db)
    assert finding.check == "context_tokens"
    assert "entry 1/1 " in finding.message


@pytest.mark.anyio
async def test_invalid_utf8_in_a_text_is_a_finding(broken: Path) -> None:
    change(
        broken,
        "UPDATE entry SET payload = CAST(CAST(payload AS BLOB) || x'ff' AS TEXT) WHERE entry_no = 4294967304",
    )
    [finding] = await findings(broken)
    assert finding.check == "payload"
    change(broken, "UPDATE entry SET entry_id = CAST(x'ff' AS TEXT) WHERE entry_no = 4294967299")
    assert {finding.check for finding in await findings(broken)} == {"file"}


def spoil_a_page_of_entries(path: Path) -> None:
    """Overwrite the beginning of the first leaf page that holds nothing but entries."""
    content = bytearray(path.read_bytes())
    pages = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    number = next(
        number
        for number, page in enumerate(pages)
        if page[0] == 13 and page.count(b"x" * 1000) == 3
    )
    content[number * 4096 : number * 4096 + 100] = b"\xee" * 100
    path.write_bytes(content)


@pytest.mark.anyio
async def test_an_unreadable_page_is_a_finding_and_the_other_sessions_are_still_checked(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        for name in ("first", "second", "third"):
            session = await db.create_session(name)
            for _ in range(30):
                await session.append(user("x" * 1000))
    change(tmp_db, "UPDATE entry SET position = 9 WHERE entry_no = (3 << 32) + 30")
    spoil_a_page_of_entries(tmp_db)
    found = await findings(tmp_db)
    assert {finding.check for finding in found} >= {"file", "position"}
    assert any("cannot be read" in finding.message for finding in found)
    assert any(finding.check == "position" and finding.session_id == "third" for finding in found)


@pytest.mark.anyio
async def test_a_file_too_large_to_check_in_one_snapshot_is_a_warning_and_the_walk_goes_on(
    broken: Path,
) -> None:
    def too_long(tx: ReadTx) -> None:
        raise sessiondb.errors.ReadTooLong("verify: its snapshot is too old")

    change(broken, sql(BREAKS[5][2]))
    async with sessiondb.open(broken) as db:
        walk = verify.Walk(None, deep=True)
        steps = walk.steps()
        next(steps)
        with pytest.raises(sessiondb.errors.ReadTooLong) as caught:
            await db.backend.read(too_long, op="verify")
        await db.backend.read(steps.throw(caught.value), op="verify")
        for step in steps:
            await db.backend.read(step, op="verify")
    report = walk.report()
    assert (report.findings[0].check, report.findings[0].severity) == ("file", "warning")
    assert "position" in {finding.check for finding in report.findings}


@pytest.mark.anyio
async def test_findings_are_bounded(tmp_db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_steps, "SESSION_FINDINGS_MAX", 5)
    monkeypatch.setattr(verify, "FINDINGS_MAX", 8)
    async with sessiondb.open(tmp_db) as db:
        for name in ("a", "b"):
            session = await db.create_session(name)
            await session.append_many([user("x")] * 50)
    change(tmp_db, "UPDATE entry SET position = 99")
    found = await findings(tmp_db)
    assert len(found) == 9
    assert "the rest is left out" in found[5].message
    assert "More than 8 findings" in found[8].message


# -- beside writers --------------------------------------------------------------------


class Writer:
    """Changes one session in every way there is, one change a call."""

    def __init__(self, db: sessiondb.SessionDB, session: sessiondb.Session) -> None:
        self.db, self.session, self.number = db, session, 0

    async def change(self, kind: int) -> None:
        self.number += 1
        session = self.session
        match kind:
            case 0:
                await session.append(user("question " * 20))
            case 1:
                await session.append(reply("answer " * 20, tokens=self.number))
            case 2:
                await session.append(
                    {"type": "custom", "customType": "d", "data": {}, "appendMode": "side"}
                )
            case 3:
                await self.compact()
            case 4:
                await self.undo()
            case 5:
                page = await session.tail(5)
                await session.branch(page[0].entry_id if page else None)
            case 6:
                await session.reset()
            case 7:
                fork = await session.fork()
                await fork.append(user("in a fork"))
            case 8:
                await self.db.bind("agent:main:any", session)

    async def compact(self) -> None:
        try:
            async with self.session.compact(keep_recent_tokens=1) as job:
                await job.commit("s")
        except sessiondb.CompactionRefused:
            await self.session.append(reply("nothing to compact " * 20))

    async def undo(self) -> None:
        try:
            await self.session.undo_compaction()
        except sessiondb.NothingToUndo:
            await self.session.append(user("nothing to undo " * 20))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=20)
@given(kinds=st.lists(st.integers(0, 8), min_size=20, max_size=50))
def test_changes_between_two_steps_are_no_finding(
    tmp_path_factory: pytest.TempPathFactory, backend: str, kinds: list[int]
) -> None:
    async def main() -> None:
        path = tmp_path_factory.mktemp("verify") / "gateway.db"
        async with sessiondb.open(path, durability="normal") as db:
            writer = Writer(db, await db.session("agent:main:any"))
            waiting = iter(kinds)
            for kind in [0, 1, *kinds[: len(kinds) // 2]]:
                await writer.change(kind)
            walk = verify.Walk(None, deep=True)
            for step in walk.steps():
                await db.backend.read(step, op="verify")
                for kind in waiting:
                    await writer.change(kind)
                    break
            assert walk.report().findings == ()
            assert (await db.verify()).findings == ()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify_steps, "PAGE_ROWS", 3)
        anyio.run(main, backend=backend)


@pytest.mark.anyio
async def test_verify_runs_beside_a_writer_that_never_rests(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_steps, "PAGE_ROWS", 5)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        writers = [Writer(db, await db.session(f"agent:main:chat:{number}")) for number in range(4)]
        done = False

        async def hammer(writer: Writer) -> None:
            while not done:
                await writer.change(writer.number * 7 % 10 % 9)

        async with anyio.create_task_group() as tasks:
            for writer in writers:
                tasks.start_soon(hammer, writer)
            while min(writer.number for writer in writers) < 40:
                assert (await db.verify()).findings == ()
            done = True
        report = await db.verify()
    assert report.findings == ()


@pytest.mark.anyio
async def test_a_session_that_is_deleted_meanwhile_is_not_reported(
    broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention removes whole sessions, each in one transaction."""
    monkeypatch.setattr(verify_steps, "PAGE_ROWS", 2)
    missing = [
        "DELETE FROM quarantine",
        "DELETE FROM compaction",
        "DELETE FROM epoch",
        "DELETE FROM binding",
        "DELETE FROM branch",
        "DELETE FROM entry",
        "DELETE FROM session",
    ]
    async with sessiondb.open(broken) as db:
        walk = verify.Walk(1, deep=True)
        steps = walk.steps()
        for _ in range(4):
            await db.backend.read(next(steps), op="verify")
        await db.close()
    change(broken, *missing)
    async with sessiondb.open(broken) as db:
        for step in steps:
            await db.backend.read(step, op="verify")
    assert walk.report() == sessiondb.VerifyReport(sessions=0, entries=0, findings=())

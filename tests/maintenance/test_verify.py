"""`verify` finds each broken invariant, and nothing in a sound database of any shape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sessiondb
from sessiondb import Finding
from sessiondb.backend import ReadTx
from sessiondb.maintenance import verify, verify_session, verify_steps, verify_text
from tests.maintenance.test_planted_corruptions import PLANTS
from tests.support.core import change, load_file, reply, user


async def findings(path: Path, *, deep: bool = True) -> tuple[Finding, ...]:
    """Verify a file."""
    async with sessiondb.open(path) as db:
        return (await db.verify(deep=deep)).findings


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run on one event loop: what is found in a file does not depend on it."""
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("deep", [True, False])
async def test_a_database_of_every_shape_is_sound(sound: Path, *, deep: bool) -> None:
    async with sessiondb.open(sound, readonly=True) as db:
        report = await db.verify(deep=deep)
    assert report.findings == ()
    assert report.ok
    assert report.sessions == 11


@pytest.mark.anyio
async def test_one_session_can_be_verified_alone(sound: Path) -> None:
    async with sessiondb.open(sound, readonly=True) as db:
        report = await db.verify(await db.session("agent:main:discord:channel:1", create=False))
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


# Statements that break rows of session 1. In each, #8 stands for the number of its entry 8, and
# #50/1 for the number of entry 1 of session 50.
def entry(seq: int, values: str) -> str:
    return f"UPDATE entry SET {values} WHERE entry_no = #{seq}"


def session(values: str, session_id: str = "") -> str:
    which = f"session_id = '{session_id}'" if session_id else "session_no = 1"
    return f"UPDATE session SET {values} WHERE {which}"


def epoch(number: int, values: str) -> str:
    return f"UPDATE epoch SET {values} WHERE session_no = 1 AND epoch = {number}"


def compaction(values: str) -> str:
    return f"UPDATE compaction SET {values} WHERE session_no = 1"


BREAKS = [
    # The check (or several), a part of its message, and the statement that breaks the invariant.
    (
        "header",
        "entry 0",
        entry(0, "type = 'leaf', payload = replace(payload, '\"session\"', '\"leaf\"')"),
    ),
    ("header", "entry 0", "DELETE FROM entry WHERE entry_no = #0"),
    ("sequence", "last seq is 18", session("last_seq = 18")),
    ("sequence", "last seq is 20", session("last_seq = 20")),
    (
        "sequence",
        "14 to 14 are missing",
        "DELETE FROM branch WHERE first_no = #14; DELETE FROM entry WHERE entry_no = #14",
    ),
    ("position", "1/5 has position 9 instead of 5", entry(5, "position = 9")),
    ("parent", "1/8 has no parent", entry(8, "parent_no = NULL")),
    ("parent", "1/8 follows entry 1/99", entry(8, "parent_no = #99")),
    ("parent", "1/8 follows entry 1/9, which came later", entry(8, "parent_no = #9")),
    ("parent", "1/19 follows entry 1/17, a record", entry(19, "parent_no = #17")),
    ("parent", "1/8 follows entry 1/6, but", entry(8, "parent_no = #6")),
    ("branch", "lies on branch 77, which is not there", entry(16, "branch_no = 77")),
    ("branch", "of session number", "UPDATE branch SET session_no = 2 WHERE first_no = #18"),
    ("branch", "begins at entry 1/3", "INSERT INTO branch (session_no, first_no) VALUES (1, #3)"),
    (
        "branch",
        "left its parent at entry 1/11",
        "UPDATE branch SET fork_no = #11 WHERE first_no = #18",
    ),
    ("branch", "later branch", "UPDATE branch SET parent_branch_no = 5 WHERE first_no = #18"),
    ("usage", "1/4 carries a provider's count of 501", entry(4, "usage_tokens = 501")),
    (
        "idempotency_key",
        "1/8 has no idempotency key, but its text says 'k9'",
        entry(
            8,
            """body_bytes = body_bytes + 22, payload =
            replace(payload, '"role":"user"', '"idempotencyKey":"k9","role":"user"')""",
        ),
    ),
    ("tokens", "1/5 sums the path", entry(5, "tokens_total = tokens_total + 7")),
    ("open_calls", "1/4 leaves 1 tool calls open instead of 2", entry(4, "open_calls = 1")),
    ("open_calls", "1/5 leaves 3 tool calls open instead of 1", entry(5, "open_calls = 3")),
    ("model", "1/8 has its model from none instead of 1/7", entry(8, "model_no = NULL")),
    (
        "thinking",
        "1/8 has its thinking level from 1/7 instead of 1/2",
        entry(8, "thinking_no = #7"),
    ),
    (
        "boundary",
        "1/13 was appended to a context that begins at none",
        entry(13, "boundary_no = NULL"),
    ),
    ("first_kept", "1/8 keeps entries", entry(8, "first_kept_no = #1")),
    ("projection", "1/8 has projection 3 instead of 1", entry(8, "projection = 3")),
    (
        "projection",
        "1/8 is part of contexts but has no body",
        entry(8, "body_at = 0, body_bytes = 0"),
    ),
    ("body", "of entry 1/8 are not its message", entry(8, "body_at = body_at + 1")),
    ("body", "of entry 1/8 are not its message", entry(8, "body_bytes = body_bytes - 1")),
    (
        "payload",
        "the text of entry 1/8 is damaged: not JSON",
        entry(8, "payload = substr(payload, 1, 50)"),
    ),
    ("payload", "the text of entry 1/8 is damaged: a JSON list", entry(8, "payload = '[]'")),
    ("payload", "entry 1/3 is stored as 'model_change'", entry(3, """payload = '{"type":"x"}'""")),
    ("payload", "entry 1/17 is stored with id 'zzz'", entry(17, "entry_id = 'zzz'")),
    ("payload", "entry 1/8 is stored with role 'robot'", entry(8, "role = 'robot'")),
    (
        "parent",
        "but its text says 'x",
        entry(
            8,
            "body_at = body_at + 1, payload = replace(payload, 'parentId\":\"', 'parentId\":\"x')",
        ),
    ),
    (
        "tree",
        "1/20 is a 'custom', but lies on no branch",
        """INSERT INTO entry VALUES (#20, NULL, NULL, 0, 'custom', NULL, 0, 0, 0, NULL, 0, NULL,
        NULL, NULL, NULL, 0, 0, 1, 'x', NULL, '{"type":"custom"}');
        """
        + session("last_seq = 20"),
    ),
    ("tree", "1/17 is a 'leaf' record outside the tree", entry(17, "position = 4")),
    ("tree", "1/17 is a 'leaf' record, but lies on branch 1", entry(17, "branch_no = 1")),
    ("name", "named 'other'", session("name = 'other'")),
    (
        "asked head",
        "1/18, is followed by entry 1/19",
        session("head_no = #18, context_tokens = 702, tokens_fresh = 1"),
    ),
    ("head", "1/99, is not there", session("head_no = #99")),
    ("head", "1/17, is a control record", session("head_no = #17")),
    ("head", "the session on 1", session("branch_no = 1")),
    ("head fork", "was not forked from", session("forked_from_no = NULL", "fork-empty")),
    ("pointers", "keeps from none, but its epoch 2", session("first_kept_no = NULL")),
    (
        "context_tokens",
        "901 tokens in its context, but entry 1/19",
        session("context_tokens = 901"),
    ),
    ("context_tokens", "add up to", session("context_tokens = context_tokens + 1", "undone")),
    (
        "context_tokens",
        "no entry of the context carries one",
        session("tokens_fresh = 1", "undone"),
    ),
    ("epoch fork", "at epoch 1, but its last one is 2", session("epoch = 1, first_kept_no = #9")),
    ("epoch", "epoch 2 is closed", epoch(2, "closed_at_ms = 1")),
    ("epoch", "epoch 0 is open", epoch(0, "closed_at_ms = NULL")),
    ("epoch", "epoch 0 is missing", "DELETE FROM epoch WHERE session_no = 1 AND epoch = 0"),
    ("epoch", "epoch 0 ended at entry 1/6", epoch(0, "closed_head_no = #6")),
    ("epoch", "epoch 1 ended at entry 1/17, which is no entry", epoch(1, "closed_head_no = #17")),
    ("epoch", "not on the path there", epoch(1, "closed_head_no = #8")),
    ("epoch", "keeps entries from 1/2", epoch(1, "first_kept_no = #2")),
    ("epoch", "cannot have begun with a fork", epoch(2, "reason = 'fork'")),
    (
        "compaction",
        "no committed compaction says so",
        "DELETE FROM compaction WHERE session_no = 1",
    ),
    ("compaction", "does not begin at its entry", compaction("epoch = 0")),
    ("compaction", "is no compaction of this session", compaction("entry_no = #5")),
    ("compaction", "not marked late", compaction("base_epoch = -1")),
    (
        "compaction",
        "the session is at 2",
        compaction("base_epoch = 7, late = 1, state = 'failed', epoch = NULL"),
    ),
    ("compaction", "covers everything up to", compaction("cut_no = #99")),
    (
        "compaction",
        "two compactions say",
        """INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch,
        tokens_before, begun_at_ms, deadline_ms, deadline_max_ms, finished_at_ms, epoch, entry_no)
        SELECT 'x', session_no, state, trigger, base_epoch, tokens_before, 1, 1, 1, 1, epoch,
        entry_no FROM compaction WHERE session_no = 1""",
    ),
    (
        "compaction schema",
        "2 compactions are running",
        """DROP INDEX compaction_one_running;
        INSERT INTO compaction (compaction_id, session_no, state, trigger, base_epoch,
        tokens_before, begun_at_ms, deadline_ms, deadline_max_ms)
        VALUES ('x', 1, 'running', 'm', 2, 1, 1, 1, 1),
        ('y', 1, 'running', 'm', 2, 1, 1, 1, 1)""",
    ),
    ("binding", "is bound to session number 99", "UPDATE binding SET session_no = 99"),
    (
        "foreign_key fork branch",
        "of session points at a session",
        session("forked_from_no = 99", "fork-at-entry"),
    ),
    (
        "orphan",
        "session number 50",
        """INSERT INTO entry SELECT #50/1, branch_no, parent_no, position, type, role, projection,
        tokens, tokens_total, usage_tokens, open_calls, boundary_no, first_kept_no, model_no,
        thinking_no, body_at, body_bytes, appended_at_ms, 'x', NULL, payload
        FROM entry WHERE entry_no = #1""",
    ),
    (
        "source",
        "counts 3 quarantined lines, but there are 0",
        """INSERT INTO import_file
        (path, name, kind, lines, quarantined, imported_at_ms, state)
        VALUES ('/a', 'a', 'live', 9, 3, 1, 'done')""",
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
        """INSERT INTO import_file
        (import_file_no, path, name, kind, lines, quarantined, imported_at_ms, state)
        VALUES (1, '/a', 'a', 'live', 3, 1, 1, 'done');
        INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason, severity,
        content) VALUES (1, 9, 0, 0, 'torn', 'damaged', x'00')""",
    ),
    (
        "inbox",
        "item 5 is claimed, but its turn 4 is interrupted",
        """UPDATE inbox SET turn_no = 4 WHERE inbox_no = 5;
        UPDATE turn SET state = 'failed', finished_at_ms = 1 WHERE turn_no = 5""",
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
    (
        "queue",
        "item 8 is queued, but it is marked to wait for another message, and there is none",
        "UPDATE inbox SET waits = 1 WHERE inbox_no = 8",
    ),
    ("inbox", "lies in another session", "UPDATE inbox SET entry_no = #1 WHERE inbox_no = 1"),
    (
        "unanswered",
        "item 1 is done, but its turn 1 is failed, and no event told its sender",
        """UPDATE outbox SET turn_no = NULL;
        UPDATE turn SET state = 'failed' WHERE turn_no = 1""",
    ),
    (
        "unanswered",
        "item 2 is done, but its turn 2 is failed, and no event told",
        "UPDATE inbox SET state = 'done', told_no = NULL WHERE inbox_no = 2",
    ),
    (
        "rule unanswered",
        "item 2 is dead, but no event told its sender",
        """PRAGMA ignore_check_constraints = on;
        UPDATE inbox SET told_no = NULL WHERE inbox_no = 2""",
    ),
    (
        "unanswered",
        "which told its sender, is not there",
        "DELETE FROM event WHERE event_no = (SELECT told_no FROM inbox WHERE inbox_no = 2)",
    ),
    (
        "unanswered",
        "is message_dead for user about item 3",
        (
            "UPDATE inbox SET told_no = (SELECT told_no FROM inbox WHERE inbox_no = 3) "
            "WHERE inbox_no = 2"
        ),
    ),
    (
        "unanswered",
        "is message_dead for operator about item 2",
        "UPDATE inbox SET told_no = told_no + 1 WHERE inbox_no = 2",
    ),
    (
        "unanswered",
        "is reply_failed for user about item 2",
        (
            "UPDATE event SET kind = 'reply_failed' "
            "WHERE event_no = (SELECT told_no FROM inbox WHERE inbox_no = 2)"
        ),
    ),
    (
        "unanswered",
        "is message_dead for user about item 2",
        (
            "UPDATE event SET session_no = 1 "
            "WHERE event_no = (SELECT told_no FROM inbox WHERE inbox_no = 2)"
        ),
    ),
    (
        "unanswered",
        "item 4 is interrupted, but its sender was told that it ended",
        "UPDATE inbox SET told_no = 0 WHERE inbox_no = 4",
    ),
    (
        "unanswered",
        "item 6 is interrupted, but item 7 superseded it",
        "UPDATE inbox SET state = 'interrupted', told_no = 0 WHERE inbox_no = 6",
    ),
    (
        "unanswered",
        "item 5, which superseded it, is no later one of its session",
        "UPDATE inbox SET superseded_by = 5 WHERE inbox_no = 6",
    ),
    (
        "unanswered",
        "item 8, which superseded it, is queued",
        "UPDATE inbox SET superseded_by = 8 WHERE inbox_no = 6",
    ),
    (
        "unanswered inbox",
        "item 7, which superseded it, did not have it in its context",
        (
            "UPDATE inbox SET entry_no = (SELECT entry_no FROM inbox WHERE inbox_no = 7) "
            "WHERE inbox_no = 6"
        ),
    ),
    (
        "inbox",
        "item 1 is queued: it would be answered twice",
        (
            "UPDATE inbox SET state = 'queued', turn_no = NULL, entry_no = NULL, "
            'payload = \'{"role":"user","content":"once more"}\' WHERE inbox_no = 1'
        ),
    ),
    (
        "turn",
        "runs past its deadline",
        "UPDATE turn SET expires_at_ms = deadline_ms + 1 WHERE turn_no = 1",
    ),
    ("outbox", "its turn 2 is failed", "UPDATE outbox SET turn_no = 2 WHERE outbox_no = 1"),
    ("outbox", "nobody is sending it", "UPDATE outbox SET state = 'sending' WHERE outbox_no = 3"),
    ("outbox", "it has not ended", "UPDATE outbox SET finished_at_ms = NULL WHERE outbox_no = 2"),
    ("event", "has handled event 999", "UPDATE event_cursor SET event_no = 999"),
    ("archive binding", "its archive is not there", session("archived_at_ms = 1")),
    (
        "archive binding",
        "counts 9 rows and holds 0",
        """UPDATE session SET archived_at_ms = 1 WHERE session_no = 1;
        INSERT INTO archive
        (session_no, state, reason, encoding, begun_at_ms, finished_at_ms, rows, session_keys)
        VALUES (1, 'archived', '', 'zlib', 1, 1, 9, '[]')""",
    ),
    (
        "file",
        "SQLite: ",
        # The index is emptied while nobody sees it.
        """PRAGMA writable_schema = on;
        UPDATE sqlite_schema SET sql = sql || ' WHERE created_at_ms < 0'
        WHERE name = 'session_by_update';
        PRAGMA writable_schema = reset;
        REINDEX session_by_update;
        PRAGMA writable_schema = on;
        UPDATE sqlite_schema SET sql = replace(sql, ' WHERE created_at_ms < 0', '')
        WHERE name = 'session_by_update'""",
    ),
    ("schema", "the index session_by_update is not there", "DROP INDEX session_by_update"),
    ("schema", "the view held is not there", "DROP VIEW held"),
    ("schema", "the view held is not as", "DROP VIEW held; CREATE VIEW held AS SELECT 1"),
    ("schema", "the index extra is none", "CREATE INDEX extra ON session (name)"),
    ("schema", "the table extra is none", "CREATE TABLE extra (x)"),
    (
        "schema",
        "the trigger extra is none",
        "CREATE TRIGGER extra AFTER INSERT ON entry BEGIN DELETE FROM event; END",
    ),
    (
        "schema",
        "the table event is not as",
        """PRAGMA writable_schema = on;
        UPDATE sqlite_schema SET sql = replace(sql, 'CHECK (json_valid(data))', 'CHECK (1)')
        WHERE name = 'event'""",
    ),
    ("schema", "its auto_vacuum is 1", "PRAGMA auto_vacuum = full"),
]


def sql(statement: str) -> str:
    """Write out the numbers of entries: #8 is entry 8 of session 1, #50/1 entry 1 of session 50."""
    return re.sub(
        r"#(?:(\d+)/)?(\d+)", lambda at: str((int(at[1] or 1) << 32) + int(at[2])), statement
    )


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("check", "says", "statement"), BREAKS, ids=[f"{check}: {says}" for check, says, _ in BREAKS]
)
async def test_each_broken_invariant_is_found_and_nothing_else(
    broken: Path, check: str, says: str, statement: str
) -> None:
    change(broken, sql(statement))
    found = await findings(broken)
    assert {finding.check for finding in found} == set(check.split()), found
    assert any(says in finding.message for finding in found), found
    for finding in found:
        assert verify.ADVICE[finding.check] in finding.message
    assert "error" in {finding.severity for finding in found}


def test_every_check_is_broken_on_purpose_somewhere() -> None:
    broken = {name for check, _, _ in BREAKS for name in check.split()}
    broken.add("search")  # in tests/transcript/test_search.py: its findings are warnings
    assert broken | {name for planted in PLANTS for name in planted.check.split()} == set(
        verify.ADVICE
    )


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
async def test_a_count_of_the_provider_is_found_across_branches(
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
    change(broken, sql(entry(8, "payload = CAST(CAST(payload AS BLOB) || x'ff' AS TEXT)")))
    [finding] = await findings(broken)
    assert finding.check == "payload"
    change(broken, sql(entry(3, "entry_id = CAST(x'ff' AS TEXT)")))
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
async def test_an_unreadable_page_is_a_finding_and_the_walk_continues(
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
async def test_a_file_check_that_takes_too_long_is_not_finished(
    broken: Path,
) -> None:
    def too_long(tx: ReadTx) -> None:
        raise sessiondb.errors.ReadTooLong("verify: its snapshot is too old")

    change(broken, sql(entry(5, "position = 9")))
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
    assert (report.findings[0].check, report.findings[0].severity) == ("file", "unfinished")
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

"""Search: a person finds what was said, whatever is in the index, and nothing that was deleted."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest

import sessiondb
import sessiondb.sync
from sessiondb import InvalidInput, Item, SearchDamaged
from sessiondb.backend import ReadTx
from sessiondb.limits import SEARCH_HITS_MAX
from sessiondb.maintenance import archive, retention
from sessiondb.models import SearchHit
from sessiondb.transcript import search, search_index
from sessiondb.transcript.searched_text import searched_text
from tests import ROOT
from tests.sqlite.queries.search import built
from tests.support.core import change, one_loop, reply, result, user, whole_path
from tests.support.maintenance import Dying, Killed, archive_session, dump
from tests.support.world import make_world

pytestmark = [pytest.mark.anyio, one_loop]

SECRET = "swordfish"


async def found(db: sessiondb.SessionDB, words: str, **options: Any) -> list[str]:
    """Return the snippets of all pages of a search, as `session: snippet`."""
    before: int | None = None
    hits: list[SearchHit] = []
    while True:
        page = await db.search(words, before=before, **options)
        hits += page.hits
        if page.next is None:
            return [f"{hit.session_id}: {hit.snippet}" for hit in hits]
        before = page.next


async def world(db: sessiondb.SessionDB) -> tuple[sessiondb.Session, sessiondb.Session]:
    """Make two sessions of two agents that say the same and other things."""
    one, two = [await db.create_session(name, agent_id=name) for name in ("one", "two")]
    for session in (one, two):
        await session.append(user("the red lamp is broken"))
        await session.append(reply("I look at it", calls=["c"]))
        await session.append(result("c", "lamp: Réd, 40 W"))
    await two.append(user("broken is the lamp"))
    return one, two


@pytest.mark.parametrize("built", ["never", "before", "between"])
async def test_a_search_finds_the_same_whatever_is_in_the_index(tmp_db: Path, built: str) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        if built == "before":
            await db.build_search()
        one, two = await world(db)
        if built == "between":
            await db.build_search()
        await one.append(user("one more lamp"))
        if built == "before":
            assert (await db.build_search()).behind == 0
        assert await found(db, "lamp", limit=2) == [
            "two: broken is the lamp",
            "two: lamp: Réd, 40 W",
            "two: the red lamp is broken",
            "one: one more lamp",
            "one: lamp: Réd, 40 W",
            "one: the red lamp is broken",
        ]
        assert await found(db, "broken lamp", session=two) == [
            "two: broken is the lamp",
            "two: the red lamp is broken",
        ]
        assert await found(db, '"lamp is broken"', agent_id="one") == [
            "one: the red lamp is broken"
        ]
        assert await found(db, "RED", role="toolResult", limit=1) == [
            "two: lamp: Réd, 40 W",
            "one: lamp: Réd, 40 W",
        ]
        assert await found(db, "arguments") == []  # of a call
        page = await db.search("lamp broken", limit=1)
        [hit] = page.hits
        marked = [hit.snippet[low:high] for low, high in hit.marks]
        assert (sorted(marked), hit.on_path, hit.role) == (["broken", "lamp"], True, "user")
        assert (page.unread, page.built) == (0, built != "never")
        late = (await two.entries(limit=1))[0].appended_at_ms + 3_600_000
        assert await found(db, "lamp", since_ms=late) == []
        assert (await db.verify()).findings == ()


@pytest.mark.parametrize(
    "words",
    ['"a', "a* OR", "NEAR(a", "text:a-b", "+"],
)
async def test_no_word_is_syntax(tmp_db: Path, words: str) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await db.create_session("s")
        await session.append(user(f"so it is: {words}!"))
        await session.append(user("so it is not"))
        for _ in range(2):
            if any(character.isalnum() for character in words):
                [hit] = (await db.search(words)).hits
                assert hit.snippet == f"so it is: {words}!"
            else:
                with pytest.raises(InvalidInput, match="no word to search for"):
                    await db.search(words)
            await db.build_search()


@pytest.mark.parametrize("built", [False, True])
async def test_an_entry_is_found_once_and_says_where_it_is(tmp_db: Path, built: bool) -> None:
    """Of a fork, of a session that was undone, and of one with branches."""
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await db.create_session("origin")
        other = await db.create_session("other")
        await other.append(user("a lamp elsewhere"))
        first = await session.append(user("first lamp"))
        await session.append(user("left lamp"))
        fork = await session.fork(session_id="fork")
        await fork.append(user("lamp of the fork"))
        await session.branch(first.entry_id)
        await session.append(user("right lamp"))
        if built:
            await db.build_search()
        hits = (await db.search("lamp")).hits
        assert [(hit.session_id, hit.snippet, hit.on_path) for hit in hits] == [
            ("fork", "lamp of the fork", True),
            ("other", "a lamp elsewhere", True),
            ("origin", "right lamp", True),
            ("origin", "left lamp", False),
            ("origin", "first lamp", True),
        ]
        assert await found(db, "lamp", session=fork, limit=1) == [
            "fork: lamp of the fork",
            "origin: left lamp",
            "origin: first lamp",
        ]


async def test_what_is_too_much_to_read_is_counted(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SEARCH_TAIL_ENTRIES", 3)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, two = await world(db)
        page = await db.search("lamp")
        assert [hit.snippet for hit in page.hits] == ["broken is the lamp", "lamp: Réd, 40 W"]
        assert page.unread == 4
        await db.build_search()
        await one.append(user("lamp"))
        page = await db.search("lamp")
        assert (len(page.hits), page.unread) == (6, 0)
        await db.drop_search()
        page = await db.search("lamp")
        assert (len(page.hits), page.unread, page.built) == (2, 5, False)
        assert (await two.info()).entries == 4


async def test_a_filter_that_leaves_little_is_read_in_pages(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SEARCH_LOOK_AT_ONCE", 2)
    monkeypatch.setattr(search, "SEARCH_LOOK_MAX", 4)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await db.create_session("s")
        await session.append(reply("lamp"))
        await session.append_many([user(f"lamp {number}") for number in range(9)])
        await db.build_search()
        page = await db.search("lamp", role="assistant")
        assert page.hits == ()
        assert page.next is not None
        assert await found(db, "lamp", role="assistant") == ["s: lamp"]
        assert len(await found(db, "lamp", role="user", limit=1)) == 9


async def test_upkeep_fills_the_index_and_appends_do_not(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        await world(db)
        assert await search_index.fill(db.backend, steps_max=1)  # nobody has built one
        assert not (await db.search_indexed()).built
        await db.build_search()
        one, _ = await world_more(db)
        assert (await db.search_indexed()).behind == 2
        async with anyio.create_task_group() as group:
            group.start_soon(partial(db.run_recovery, every_s=0.01))
            while (seen := db.backend.change_count) >= 0:
                if not (await db.search_indexed()).behind:
                    break
                await db.backend.wait_change(seen, 1.0)
            group.cancel_scope.cancel()
        assert (await db.search_indexed()).behind == 0
        assert (await db.verify(deep=True)).findings == ()
        assert len(await found(db, "further", session=one)) == 1


async def world_more(
    db: sessiondb.SessionDB,
) -> tuple[sessiondb.Session, sessiondb.Session]:
    one, two = await db.session_by_id("one"), await db.session_by_id("two")
    for session in (one, two):
        await session.append(user("a further lamp"))
    return one, two


ITEMS: list[dict[str, Any]] = [
    user(SECRET),
    {"role": "user", "content": [{"type": "text", "text": f"see {SECRET}"}]},
    {**reply(SECRET, calls=["1"], tokens=70), "stopReason": "toolUse"},
    result("1", SECRET),
    {"role": "bashExecution", "command": f"cat {SECRET}", "output": SECRET, "exitCode": 0},
    {"type": "custom_message", "customType": "n", "content": SECRET, "display": True},
    {"type": "session_info", "name": SECRET},
    {"type": "branch_summary", "summary": SECRET, "fromId": "x"},
]


def holding(path: Path, word: str = SECRET) -> bool:
    """Tell whether a word is in the bytes of a closed database. The index cuts off beginnings."""
    pages = b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    return word[1:].encode() in pages


async def test_a_search_looks_only_into_sessions_that_are_marked(tmp_db: Path) -> None:
    async def marked() -> list[Any]:
        rows = (await db.query("SELECT session_id FROM session WHERE search_behind = 1")).rows
        return sorted(row[0] for row in rows)

    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, two = await world(db)
        await db.create_session("empty")
        assert await marked() == ["one", "two"]
        await db.build_search()
        assert await marked() == []
        for _ in range(2):
            await two.append(user("an owl"))
            assert await marked() == ["two"]
        fork = await one.fork(session_id="fork")
        assert await marked() == ["two"]
        await fork.append(user("another owl"))
        assert await marked() == ["fork", "two"]
        assert await found(db, "owl") == ["fork: another owl", "two: an owl", "two: an owl"]
        assert (await db.search_indexed()).behind == 3
        # A step that has put a part of them there leaves the mark.
        await db.write(
            "advance",
            lambda tx: tx.run(
                "search.mark_whole",
                session_no=two.ref.session_no,
                indexed_no=two.ref.session_no << 32,
            ),
        )
        assert await marked() == ["fork", "two"]
        assert (await db.build_search()).behind == 0
        assert await marked() == []
        await db.drop_search()
        assert await marked() == ["fork", "one", "two"]


@pytest.mark.parametrize("way", ["redact", "delete", "archive and delete"])
async def test_words_that_are_deleted_leave_the_index(tmp_db: Path, way: str) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session, other = [await db.create_session(name) for name in ("s", "t")]
        await session.append_many(ITEMS)
        await other.append(user("catfish"))
        await db.build_search()
        # Parts of the index that are made later have other words of the same session.
        await session.append(user("dogfish"))
        await db.build_search()
        assert len(await found(db, SECRET, limit=3)) == len(ITEMS)
        if way == "redact":
            for entry in await whole_path(session):
                if SECRET in entry.payload:
                    await session.redact(entry)
        else:
            if way != "delete":
                assert (await archive_session(db, session)).state == "archived"
            await db.delete(session)
        assert await found(db, SECRET) == []
        assert await found(db, "catfish") == ["t: catfish"]
        assert not (await db.search_indexed()).purging
        assert (await db.verify()).findings == ()
    assert not holding(tmp_db)
    assert holding(tmp_db, "catfish")


@pytest.mark.parametrize("step", [2, 5, 6])
async def test_an_archive_takes_its_words_with_it_and_brings_them_back(
    tmp_db: Path, step: int
) -> None:
    """Whenever a process dies in between: the index has what the tables have."""
    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, two = await world(db)
        await db.build_search()
        archive_no = await archive_until(db, one, Dying(db.backend, step))
        if archive_no is None:
            pytest.skip("it died before anything was begun")
        hits = await found(db, "red")
        assert {hit.partition(":")[0] for hit in hits} <= {"one", "two"}
        state = dump(tmp_db, "archive")["archive"][0][2]
        if state != "restored":
            await db.unarchive(one.ref.session_id)
        await db.build_search()
        assert await found(db, "red", session=one) == [
            "one: lamp: Réd, 40 W",
            "one: the red lamp is broken",
        ]
        assert await found(db, "red", session=two) != []
        assert (await db.verify()).findings == ()


async def test_words_leave_a_large_index_in_many_steps(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that merges a part of it does not end the purge."""
    monkeypatch.setattr(search_index, "SEARCH_MERGE_PAGES", 1)
    monkeypatch.setattr(search_index, "SEARCH_PURGE_STEPS", 2)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await db.create_session("s")
        for part in range(3):
            words = " ".join(f"{SECRET}{part}x{number}" for number in range(3_000))
            await session.append(user(words))
            await session.append(user(words.replace(SECRET, "catfish")))
            await db.build_search()
        for entry in (await whole_path(session))[::2]:
            done = await session.redact(entry)
        assert any("Older parts of the search index" in sentence for sentence in done.left)
        assert (await db.search_indexed()).purging
        assert (await db.search(f"{SECRET}0x7")).hits == ()
        assert (await db.search("catfish0x7")).hits != ()
        # Upkeep goes on with it, a bounded part at a time.
        steps = 0
        while not await search_index.fill(db.backend, steps_max=5):
            steps += 1
        assert steps > 1
        assert not (await db.search_indexed()).purging
        assert (await db.verify()).findings == ()
        await retention.free_pages(db.backend)
    assert not holding(tmp_db)
    assert holding(tmp_db, "catfish")


async def archive_until(
    db: sessiondb.SessionDB, session: sessiondb.Session, backend: Any
) -> int | None:
    """Archive a session with a backend that dies on the way."""
    archive_no: int | None = None
    try:
        archive_no, _ = await archive.begin(backend, session.ref.session_no, "for the test")
        assert archive_no is not None
        await archive.advance(backend, archive_no)
    except Killed:
        pass
    return archive_no


async def test_archived_sessions_are_searched_if_that_is_asked(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, two = await world(db)
        await db.build_search()
        for session in (one, two):
            assert (await archive_session(db, session)).state == "archived"
        assert await found(db, "lamp") == []
        assert await found(db, "lamp", archived=True, limit=2) == [
            "two: broken is the lamp",
            "two: lamp: Réd, 40 W",
            "two: the red lamp is broken",
            "one: lamp: Réd, 40 W",
            "one: the red lamp is broken",
        ]
        assert await found(db, "red", archived=True, agent_id="one", role="user") == [
            "one: the red lamp is broken"
        ]
        hits = (await db.search("40", archived=True)).hits
        assert [hit.archived for hit in hits] == [True, True]
        newest_ms = max(hit.appended_at_ms for hit in hits)
        for since_ms, count in ((newest_ms, 1), (newest_ms + 1, 0)):
            later = await db.search("40", archived=True, since_ms=since_ms, agent_id="two")
            assert len(later.hits) == count


async def test_a_text_that_is_passed_over_has_not_the_word(tmp_db: Path) -> None:
    """Most texts are passed over before they are taken apart. None of them has the words."""
    texts = ["lamp", "LAMP.", "red_lamp", "a-lamp,", "lamps", "lamp7", "7lamp", "l amp", "", "lämp"]
    texts += [f"{before}lamp{behind}" for before in "\t'\x00é" for behind in "~]\n²"]

    def look(tx: ReadTx) -> list[tuple[str, bool, bool]]:
        wanted = search.wanted(tx, "Lamp")
        return [
            (
                text,
                bool(search.matching(tx, text, wanted)),
                "lamp" in {one.word for one in tx.words(text)},
            )
            for text in texts
        ]

    async with sessiondb.open(tmp_db, durability="normal") as db:
        found = await db.read("test.look", look)
    assert [one for one in found if one[1] != one[2]] == []
    assert {one[1] for one in found} == {True, False}


READABLE: list[tuple[str, dict[str, Any]]] = [
    ("message", {"message": {"role": "user", "content": "a text"}}),
    (
        "message",
        {
            "message": {
                "role": "user",
                "content": [
                    "bare",
                    {"type": "text", "text": "one"},
                    {"type": "image", "data": "aGVsbG8="},
                    {"type": "input_text", "text": "two"},
                    {"type": "output_text", "text": "three"},
                    {"type": "refusal", "refusal": "no"},
                    {"type": "tool_result", "content": "nested text"},
                    {"type": "tool_result", "content": [{"type": "text", "text": "nested block"}]},
                    {"type": "tool_result", "content": [{"type": "image", "data": "x"}]},
                    {"type": "tool_use", "name": "bash", "input": {"command": "secret"}},
                    {"type": "thinking", "text": "hm"},
                    7,
                    None,
                ],
            }
        },
    ),
    ("message", {"message": {"command": "ls", "output": "a.txt"}}),
    ("message", {"message": {"command": "ls"}}),
    ("message", {"message": {"command": 7, "output": 7, "refusal": "no"}}),
    ("message", {"message": {"command": "ls", "output": [], "refusal": 7}}),
    (
        "message",
        {
            "message": {
                "output": [{"type": "input_text", "text": "out"}, {"type": "text", "text": "x"}],
                "refusal": "I will not",
            }
        },
    ),
    ("message", {"message": {"output": ["bare", 7, None, {"type": "input_text", "text": "o"}]}}),
    (
        "message",
        {
            "message": {
                "role": "user",
                "content": [
                    {"type": "tool_result", "content": ["bare", 7, {"type": "text", "text": "n"}]},
                    {"type": "tool_result", "content": 7},
                ],
            }
        },
    ),
    ("custom_message", {"content": ["bare", 7, None, {"type": "text", "text": "b"}]}),
    ("message", {"message": {"role": "user", "content": None}}),
    ("message", {"message": {"role": "user", "content": []}}),
    ("message", {"message": {"role": "user", "content": "x" * 100_001}}),
    ("compaction", {"summary": "what was said"}),
    ("branch_summary", {"summary": ["no", "text"]}),
    ("custom_message", {"content": "for people"}),
    ("custom_message", {"content": [{"type": "text", "text": "a"}, {"type": "image"}]}),
    ("session_info", {"name": "the lamp"}),
    ("custom", {"data": "for programs"}),
]


async def test_texts_of_archives_are_those_that_the_index_has() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE entry (entry_no INTEGER PRIMARY KEY, type, payload)")
    schema = (ROOT / "schema.sql").read_text(encoding="utf-8")
    view = schema[schema.index("CREATE VIEW search_text") :].partition(";\n")[0]
    connection.execute(view.partition("FROM entry AS e")[0] + "FROM entry AS e")
    for number, (kind, entry) in enumerate(READABLE):
        row = (number, kind, json.dumps(entry))
        connection.execute("INSERT INTO entry VALUES (?, ?, ?)", row)
    texts = [text or "" for (text,) in connection.execute("SELECT text FROM search_text")]
    assert texts == [searched_text(kind, entry) for kind, entry in READABLE]
    assert len([text for text in texts if text]) >= 9


def test_a_step_fills_what_it_may_and_each_entry_of_it_can_be_taken_out() -> None:
    world = make_world()
    with world.undone() as tx:
        [newest, *_] = tx.all("search.behind", limit=1)
        ranges = list(search_index._next_ranges(tx, newest.last_seq))
        assert [one.session_no for one in ranges] == [newest.session_no]
        built(world, tx)
        last = world.row("session twin")["last_seq"]
        taken = [
            search_index.take_out(tx, world.no("session twin") << 32 | seq)
            for seq in (0, 1, last, last + 1)
        ]
    assert taken == [False, True, True, False]


async def test_a_damaged_index_harms_no_message(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, two = await world(db)
        await db.build_search()
    change(tmp_db, "UPDATE search_data SET block = x'00' WHERE id > 10")
    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, two = await db.session_by_id("one"), await db.session_by_id("two")
        with pytest.raises(SearchDamaged, match="--rebuild"):
            await db.search("lamp")
        assert len((await two.context()).messages) == 4
        assert {finding.check for finding in (await db.verify()).findings} == {"search"}
        await one.append(user(f"{SECRET} lamp"))
        last = (await whole_path(one))[-1]
        await one.redact(last)
        await db.build_search(rebuild=True)
        assert len(await found(db, "lamp")) == 5
        assert (await db.verify()).findings == ()
    assert not holding(tmp_db)


PLANTED = [
    ("INSERT INTO search (rowid, text) VALUES (7, 'nobody')", "there is no entry"),
    ("DELETE FROM search_docsize WHERE id = (SELECT min(id) FROM search_docsize)", "is not"),
    ("UPDATE search_session SET indexed_no = indexed_no + 9", "further than"),
    ("UPDATE search_session SET indexed_no = indexed_no - 2", "not count"),
    ("UPDATE search_session SET indexed_no = indexed_no - 2", "finds its last 2 entries"),
    ("DELETE FROM search_session", "finds its last 4 entries"),
]


@pytest.mark.parametrize(("planted", "said"), PLANTED, ids=[said for _, said in PLANTED])
async def test_verify_compares_the_index_with_the_entries(
    tmp_db: Path, planted: str, said: str
) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        await world(db)
        await db.build_search()
    change(tmp_db, planted)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        findings = (await db.verify()).findings
        assert findings
        assert {finding.check for finding in findings} == {"search"}
        assert any(said in finding.message for finding in findings), findings
        await db.build_search(rebuild=True)
        assert (await db.verify()).findings == ()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3 shell")
async def test_verify_reads_the_parts_anew_that_another_opener_has_merged(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await db.create_session("s")
        await session.append(user("a lamp"))
        await db.build_search()
        async with sessiondb.open(tmp_db, readonly=True) as reading:
            for number in range(5):
                # Its connection keeps a list of the parts that it has seen.
                await reading.search("lamp")
                await session.append(user(f"lamp {number}"))
                await db.build_search()
                assert (await reading.verify(deep=True)).findings == ()


async def test_the_shell_of_the_distribution_finds_words(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        one, _ = await world(db)
        await db.build_search()
        await one.redact((await whole_path(one))[0])
    query = (
        "SELECT t.session_id, t.seq, snippet(search, 0, '[', ']', '...', 12) "
        "FROM search JOIN transcript AS t ON t.entry_no = search.rowid "
        """WHERE search MATCH '"lamp" "broken"' ORDER BY search.rowid DESC LIMIT 20"""
    )
    done = await anyio.run_process(["sqlite3", "-readonly", str(tmp_db), query])
    assert done.stdout.decode().splitlines() == [
        "two|4|[broken] is the [lamp]",
        "two|1|the red [lamp] is [broken]",
    ]


async def test_a_database_that_nobody_searches_pays_nothing(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        await world(db)
        await db.search("lamp")
    tables = dump(tmp_db, "search_docsize", "search_idx", "search_session", "search_state")
    assert not any(tables.values())


async def test_no_image_and_no_reasoning_is_in_the_index(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, durability="normal") as db:
        session = await db.create_session("s")
        await session.append_many(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "data": SECRET, "mimeType": "image/png"},
                        {"type": "text", "text": "what is this?"},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": SECRET, "thinkingSignature": SECRET},
                        {"type": "text", "text": "a lamp \ud83d"},
                        {"type": "toolCall", "id": "1", "name": "f", "arguments": {"x": SECRET}},
                    ],
                },
            ]
        )
        for _ in range(2):
            assert await found(db, SECRET) == []
            assert len(await found(db, "lamp")) == 1
            await db.build_search()


@pytest.mark.usefixtures("anyio_backend")
def test_the_synchronous_face_searches(tmp_db: Path) -> None:
    with sessiondb.sync.open(tmp_db) as db:
        session = db.create_session("s")
        db.create_session("t").append_many([Item(user("lamp"), key="1")])
        session.append(user("lamp"))
        assert db.build_search().behind == 0
        assert [hit.session_id for hit in db.search("lamp", session=session).hits] == ["s"]
        assert db.search_indexed().built
        db.drop_search()
        assert json.dumps(len(db.search("lamp").hits)) == "2"


async def test_a_page_has_as_many_hits_as_its_limit_allows(db: sessiondb.SessionDB) -> None:
    await (await db.session("agent:main:web:1")).append(user("a lamp"))
    for limit in (1, SEARCH_HITS_MAX):
        assert len((await db.search("lamp", limit=limit)).hits) == 1
    for limit in (0, SEARCH_HITS_MAX + 1):
        with pytest.raises(InvalidInput, match="a page of a search has 1 to"):
            await db.search("lamp", limit=limit)

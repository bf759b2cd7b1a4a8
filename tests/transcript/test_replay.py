"""The entries of a transcript that exists already: placed leniently, with a note of each oddity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sessiondb
from tests.support.core import load_lines, texts, user, whole_path

pytestmark = pytest.mark.one_loop

HEADER = '{"type":"session","version":3,"id":"s","timestamp":"t","cwd":"/"}'


def said(entry_id: str, parent_id: str | None, **fields: str) -> str:
    """Return the line of a user message that says its own id."""
    message = {"role": "user", "content": entry_id, **fields}
    return json.dumps(
        {"type": "message", "id": entry_id, "parentId": parent_id, "message": message}
    )


def side(entry_id: str, parent_id: str) -> str:
    return said(entry_id, parent_id).replace('"type"', '"appendMode": "side", "type"', 1)


def no_parent(entry_id: str) -> str:
    line = json.loads(said(entry_id, None))
    del line["parentId"]
    return json.dumps(line)


@pytest.mark.anyio
async def test_an_entry_without_its_parent_starts_a_root_with_a_note(
    tmp_db: Path,
) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, notes = await load_lines(
            db,
            "s",
            [
                HEADER,
                said("a", "lost"),
                '{"type":"leaf","id":"l","parentId":"a","targetId":"lost too"}',
                said("b", "l"),
            ],
        )
        assert texts(await session.context()) == ["b"]
        assert [note.split(":")[0] for note in notes] == ["entry a", "leaf l"]
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("first", "second", "context", "ignored"),
    [
        ('"a"', "l1", ["a", "c"], []),
        ('"a"', "b", ["a", "b", "c"], []),
        ('"a"', "s", ["a", "c"], ["leaf l2"]),
        ("null", "l1", ["c"], ["leaf l2"]),
        ('"lost"', "l1", ["a", "b", "c"], ["leaf l1", "leaf l2"]),
        ('"s"', "l1", ["a", "b", "c"], ["leaf l1", "leaf l2"]),
    ],
)
async def test_only_a_null_target_empties_a_context(
    tmp_db: Path, first: str, second: str, context: list[str], ignored: list[str]
) -> None:
    """A leaf record never makes a control record the head.

    A target that is a leaf record stands for that record's target. A target that is no entry (as
    a header is none), or a leaf record without an entry, changes nothing.
    """
    async with sessiondb.open(tmp_db) as db:
        session, notes = await load_lines(
            db,
            "s",
            [
                HEADER,
                said("a", None),
                said("b", "a"),
                f'{{"type":"leaf","id":"l1","parentId":"b","targetId":{first}}}',
                f'{{"type":"leaf","id":"l2","parentId":"b","targetId":"{second}"}}',
            ],
        )
        assert [note.split(":")[0] for note in notes] == ignored
        await session.append(user("c"))
        assert texts(await session.context()) == context
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_version_1_file_is_a_line(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, _ = await load_lines(
            db,
            "s",
            [
                '{"type":"session"}',
                *(
                    f'{{"type":"message","message":{{"role":"user","content":"{n}"}}}}'
                    for n in range(3)
                ),
            ],
        )
        assert texts(await session.context()) == ["0", "1", "2"]
        path = await whole_path(session)
        assert [entry.parent_no for entry in path] == [None, path[0].entry_no, path[1].entry_no]


@pytest.mark.anyio
async def test_a_key_that_a_file_holds_twice_stays_with_the_first(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        lines = [HEADER, said("a", None, idempotencyKey="k"), said("b", "a", idempotencyKey="k")]
        session, notes = await load_lines(db, "s", lines)
        assert notes == ["entry b: idempotency key 'k' was used before"]
        assert [entry.idempotency_key for entry in await session.entries()] == ["k", None]
        assert (await session.append(user("a"), idempotency_key="k")).duplicate
        with pytest.raises(sessiondb.IdentityConflict):
            await session.append(user("b"), idempotency_key="k")


@pytest.mark.anyio
async def test_a_second_header_is_kept_outside_the_tree(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        session, notes = await load_lines(db, "s", [HEADER, HEADER, said("a", None)])
        assert notes == []
        assert [entry.seq for entry in await session.all_entries()] == [0, 1, 2]
        assert texts(await session.context()) == ["a"]
        assert (await db.verify()).findings == ()


def leaf(target: str | None, **fields: str) -> str:
    return json.dumps({"type": "leaf", "id": "leaf", "parentId": "x", "targetId": target, **fields})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([no_parent("a"), no_parent("b")], ["a", "b"]),
        ([said("a", None), said("b", "a"), no_parent("c")], ["a", "b", "c"]),
        ([said("a", None), said("b", "a"), said("c", None)], ["c"]),
        ([said("a", None), side("m", "a"), said("b", "m")], ["a", "b"]),
        ([said("a", None), side("m", "a"), side("n", "m"), said("b", "n")], ["a", "b"]),
        ([said("a", None), side("m", "a"), said("b", "a"), said("c", "m")], ["a", "m", "c"]),
        (
            [said("a", None), said("m", "a"), leaf("a", appendParentId="m"), said("b", "m")],
            ["a", "b"],
        ),
        (
            [said("a", None), said("m", "a"), leaf("a", appendMode="side"), said("b", "m")],
            ["a", "m", "b"],
        ),
        (
            [said("a", None), said("m", "a"), leaf("a", appendParentId="nowhere"), no_parent("b")],
            ["a", "m", "b"],
        ),
    ],
)
async def test_what_an_entry_follows_that_does_not_name_the_head(
    tmp_db: Path, lines: list[str], wanted: list[str]
) -> None:
    """As OpenClaw reads it: `scanSessionTranscriptTree`."""
    async with sessiondb.open(tmp_db) as db:
        session, _ = await load_lines(db, "s", [HEADER, *lines])
        other, _ = await load_lines(db, "t", [HEADER, said("a", None), said("b", "a")])
        assert texts(await session.context()) == wanted
        assert texts(await other.context()) == ["a", "b"]
        assert (await db.verify()).findings == ()


@pytest.mark.anyio
async def test_a_header_in_the_middle_is_nobodys_parent(tmp_db: Path) -> None:
    """An entry that names it begins at the root, as it did before the header came."""
    async with sessiondb.open(tmp_db) as db:
        lines = [HEADER, said("a", None), HEADER.replace('"s"', '"again"'), said("b", "again")]
        session, _ = await load_lines(db, "s", lines)
        assert texts(await session.context()) == ["b"]
        assert (await db.verify()).findings == ()

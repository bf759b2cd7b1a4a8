"""What was said last year is from last year, whenever it was imported and by whatever file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb.clock import iso_from_ms, ms_from_iso
from sessiondb.testing import ManualClock
from tests.support.command_line import ok
from tests.support.transfer import header, write

pytestmark = pytest.mark.anyio

DAY_MS = 86_400_000
NOW_MS = ms_from_iso("2026-11-30T12:00:00.000Z") or 0
"""The day of the import. The commands, which go by the real clock, are asked for order only."""


@pytest.fixture
def anyio_backend() -> str:
    """Return one loop: this is an import, whose tests run under both."""
    return "asyncio"


def day(number: int) -> int:
    """Return a moment of a day of last year."""
    return (ms_from_iso("2025-01-01T08:00:00.000Z") or 0) + number * DAY_MS


def line(entry_id: str, parent_id: str | None, at_ms: int | None, **fields: Any) -> str:
    stamp = {} if at_ms is None else {"timestamp": iso_from_ms(at_ms)}
    body = {"role": "user", "content": f"the lamp of {entry_id}"}
    entry = {"type": "message", "id": entry_id, "parentId": parent_id, **stamp, "message": body}
    return json.dumps(entry | fields)


def talk(name: str, *days: int) -> list[str]:
    """Return a transcript with a message for each day."""
    ids = [f"{name}{at}" for at in range(len(days))]
    parents = [None, *ids]
    return [
        header(name, timestamp=iso_from_ms(day(days[0]))),
        *(line(one, parents[at], day(days[at])) for at, one in enumerate(ids)),
    ]


def put(folder: Path, name: str, lines: list[str], *, mtime_ms: int) -> None:
    path = write(folder, {name: "".join(f"{one}\n" for one in lines).encode()}) / name
    os.utime(path, ns=(mtime_ms * 1_000_000,) * 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return two live transcripts and two that ended. Their files say the opposite order."""
    folder = tmp_path / "agents/main/sessions"
    put(folder, "old.jsonl", talk("old", 10, 11), mtime_ms=NOW_MS)
    put(folder, "new.jsonl", talk("new", 40, 41), mtime_ms=day(1))
    put(folder, "reset.jsonl.reset.2025-01-31T00-00-00.000Z", talk("r", 30), mtime_ms=NOW_MS)
    # Its lines are in another order than what was said, and the last one has no time.
    lines = [*talk("gone", 20, 21), line("g2", "gone1", None), line("g3", "late", day(19))]
    lines += [line("late", "gone1", day(18))]
    put(folder, "gone.jsonl.deleted.2025-01-31T00-00-00.000Z", lines, mtime_ms=NOW_MS)
    rows = {"agent:main:old": {"sessionId": "old"}, "agent:main:new": {"sessionId": "new"}}
    write(folder, {"sessions.json": json.dumps(rows).encode()})
    return folder


async def infos(db: sessiondb.SessionDB) -> dict[str, sessiondb.SessionInfo]:
    return {one.session_id: one async for one in db.sessions(with_ended=True)}


LATEST = {"new": day(41), "r": day(30), "gone": day(21), "old": day(11)}
"""The last message of each, the newest first."""


async def test_sessions_are_as_old_as_their_messages(folder: Path, tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db, clock=ManualClock(iso_from_ms(day(62)))) as db:
        assert (await db.import_path(folder, verify=True)).ok
        found = await infos(db)
        assert {name: one.updated_at_ms for name, one in found.items()} == LATEST
        assert list(found) == list(LATEST), "in their order, too"
        ended = {name: one.ended_at_ms for name, one in found.items() if one.ended_at_ms}
        assert ended == {name: LATEST[name] for name in ("r", "gone")}
        for name, one in found.items():
            session = await db.session_by_id(name)
            times = [entry.appended_at_ms for entry in await session.entries()]
            assert max(times) == LATEST[name]
            assert (await session.epochs())[0].opened_at_ms == one.created_at_ms
        hits = (await db.search("lamp")).hits
        assert len(hits) == 10
        assert all(day(0) <= hit.appended_at_ms <= LATEST[hit.session_id] for hit in hits)
        [hit] = (await db.search("lamp", since_ms=day(41))).hits
        assert hit.session_id == "new"
        # A month without a message is too long for all but one.
        report = await db.gc(
            sessiondb.RetentionPolicy(max_age_days=30, idle_days=0), dry_run=True, every=True
        )
        assert [one.session_id for one in report.decisions if one.action == "keep"] == ["new"]
        assert (await db.verify()).findings == ()


def test_every_command_shows_the_time_of_the_messages(folder: Path, tmp_db: Path) -> None:
    ok("import", tmp_db, folder)
    order = [one["session_id"] for one in json.loads(ok("sessions", tmp_db, "--json", "--all"))]
    assert order == list(LATEST)
    for shown in (
        ok("show", tmp_db, "new"),
        ok("tail", tmp_db, "new"),
        ok("epochs", tmp_db, "new"),
        ok("query", tmp_db, "SELECT appended_at FROM transcript WHERE session_id = 'new'"),
        ok("query", tmp_db, "SELECT updated_at FROM conversation WHERE session_id = 'new'"),
        ok("gc", tmp_db, "--dry-run", "--max-age", "1d"),
    ):
        assert "2025-02-1" in shown, shown
        assert "2026-" not in shown
    assert "ended 2025-01-31" in ok("show", tmp_db, "r")


async def test_a_new_message_moves_its_session_and_no_other(folder: Path, tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(folder)
        before = await infos(db)
        with (folder / "old.jsonl").open("a") as file:
            file.write(line("old2", "old1", day(50)) + "\n")
        # A time in the future is no reason to be the newest for ever, nor is one before.
        with (folder / "new.jsonl").open("a") as file:
            file.write(line("new2", "new1", day(39)) + "\n")
        os.utime(folder / "new.jsonl")
        await db.import_path(folder)
        after = await infos(db)
        assert after["old"].updated_at_ms == day(50)
        assert {name: one.updated_at_ms for name, one in after.items() if name != "old"} == {
            name: one.updated_at_ms for name, one in before.items() if name != "old"
        }
        await (await db.session("agent:main:new")).append({"role": "user", "content": "now"})
        last = await infos(db)
        assert next(iter(last)) == "new"
        assert last["new"].updated_at_ms > day(365)
        assert {name: last[name].updated_at_ms for name in ("old", "r", "gone")} == {
            name: after[name].updated_at_ms for name in ("old", "r", "gone")
        }


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([line("a", None, None, timestamp=day(3))], day(3)),
        (
            [line("a", None, None, message={"role": "user", "content": "", "timestamp": day(4)})],
            day(4),
        ),
        ([line("a", None, None, timestamp="yesterday"), line("b", "a", day(5))], day(5)),
        ([line("a", None, None)], "the file's"),
        ([line("a", None, 4_102_444_800_000)], "now"),
    ],
)
async def test_where_a_time_comes_from(
    tmp_path: Path, tmp_db: Path, lines: list[str], expected: int | str
) -> None:
    put(tmp_path / "in", "a.jsonl", lines, mtime_ms=day(1))
    async with sessiondb.open(tmp_db) as db:
        await db.import_path(tmp_path / "in")
        [one] = (await infos(db)).values()
    if expected == "now":
        assert day(365) < one.updated_at_ms < 4_102_444_800_000
    elif expected == "the file's":
        assert one.updated_at_ms == day(1)
    else:
        assert one.updated_at_ms == expected

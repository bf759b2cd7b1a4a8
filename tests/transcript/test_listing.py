"""Lists of sessions: every filter, both orders, few and many, and no more rows than are wanted."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import InvalidInput, SessionInfo, sync
from sessiondb.transcript import listing
from tests.support.core import user

pytestmark = pytest.mark.one_loop

AGENTS = ("main", "west")
NAMESPACES = ("app", "App")


async def filled(db: sessiondb.SessionDB, count: int = 60) -> list[SessionInfo]:
    """Make sessions of all kinds, changed in another order than that of their making."""
    made: list[sessiondb.Session] = []
    for number in range(count):
        agent = AGENTS[number % 2]
        if number % 3 == 0:
            made.append(await db.session(f"agent:{agent}:web:direct:P{number}"))
            await db.bind(f"agent:{agent}:irc:direct:p{number}", made[-1])
        elif number % 3 == 1:
            made.append(await db.session_for(NAMESPACES[number % 2], f"{number}", agent_id=agent))
        else:
            made.append(await db.create_session(agent_id=agent if number % 5 else None))
    chance = random.Random(count)
    chance.shuffle(made)
    for session in made:
        await session.append(user("hello"))
    for session in made[::7]:
        await session.end()
    return [await session.info() for session in made]


def place(infos: list[SessionInfo], numbers: dict[str, int], *, newest: bool) -> list[str]:
    infos = sorted(
        infos, key=lambda info: (info.updated_at_ms, numbers[info.session_id]), reverse=newest
    )
    return [info.session_id for info in infos]


LISTS: dict[str, tuple[dict[str, Any], Callable[[SessionInfo], bool]]] = {
    "all": ({}, lambda info: True),
    "agent": ({"agent_id": "west"}, lambda info: info.agent_id == "west"),
    "namespace": ({"namespace": "App"}, lambda info: info.namespace == "App"),
    "keys": (
        {"key_prefix": "agent:west:web:direct:P1"},
        lambda info: any(key.startswith("agent:west:web:direct:P1") for key in info.keys),
    ),
    "two": (
        {"agent_id": "main", "key_prefix": "agent:main:irc:"},
        lambda info: any(key.startswith("agent:main:irc:") for key in info.keys),
    ),
    "none": ({"namespace": "app", "key_prefix": "agent:"}, lambda info: False),
}


@pytest.mark.anyio
@pytest.mark.parametrize("few_are", [0, 5, 1_000])
async def test_a_list_is_what_its_filters_say(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, few_are: int
) -> None:
    """Whether the filters name few sessions or many, and however small the pages are."""
    monkeypatch.setattr(listing, "SESSIONS_SORTED_MAX", few_are)
    monkeypatch.setattr("sessiondb.paging.PAGE_ROWS", 4)
    async with sessiondb.open(tmp_db, durability="normal") as db:
        infos = await filled(db)
        numbers = {
            info.session_id: (await db.session_by_id(info.session_id)).ref.session_no
            for info in infos
        }
        middle = sorted(info.updated_at_ms for info in infos)[len(infos) // 2]
        for options, holds in LISTS.values():
            for with_ended in (False, True):
                for newest in (False, True):
                    for before in (None, middle):
                        wanted = [
                            info
                            for info in infos
                            if holds(info)
                            and (with_ended or info.ended_at_ms is None)
                            and (before is None or info.updated_at_ms < before)
                        ]
                        expected = place(wanted, numbers, newest=newest)
                        options = {**options, "with_ended": with_ended, "newest_first": newest}
                        found = [
                            info.session_id
                            async for info in db.sessions(**options, updated_before=before)
                        ]
                        assert found == expected, options
                        cut = [
                            info.session_id
                            async for info in db.sessions(**options, updated_before=before, limit=6)
                        ]
                        assert cut == expected[:6]
        assert [info async for info in db.sessions(limit=0)] == []


@pytest.mark.anyio
async def test_a_filter_that_is_none_is_refused(tmp_db: Path) -> None:
    async with sessiondb.open(tmp_db) as db:
        await db.session("agent:main:web:direct:1")
        bad: list[dict[str, Any]] = [
            {"namespace": ""},
            {"namespace": 7},
            {"key_prefix": "x" * 5_000},
            {"key_prefix": "\ud83d"},
            {"updated_before": "yesterday"},
            {"updated_before": 2**63},
        ]
        for options in bad:
            with pytest.raises(InvalidInput):
                db.sessions(**options)


def test_a_list_of_a_million_years_ago_is_empty(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        db.session("agent:main:web:direct:1")
        db.session_for("app", "1")
        assert list(db.sessions(updated_before=1)) == []
        assert len(list(db.sessions(updated_before=2**62))) == 2
        assert len(list(db.sessions(key_prefix="agent:main:web:direct:1", newest_first=False))) == 1

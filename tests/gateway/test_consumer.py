"""A follower gets every event once and in order, however many pages lie between."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
from sessiondb import events
from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.errors import StoreBusy
from sessiondb.gateway import consumer, retry
from sessiondb.paging import Page
from sessiondb.words import (
    Audience,
)
from tests.support.engine import PATIENCE_S
from tests.support.gateway import eventually, running
from tests.support.world import make_world, world_file

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("audience", [None, "user", "operator"])
async def test_a_reader_with_several_full_pages_unread_skips_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, audience: Audience | None
) -> None:
    monkeypatch.setattr(events, "PAGE", 2)
    monkeypatch.setattr(events.after, "__kwdefaults__", {"limit": 2})
    expected = sorted(
        row["event_no"]
        for _, row in make_world().rows("event")
        if audience in (None, row["audience"])
    )
    found: list[int] = []
    async with sessiondb.open(world_file(tmp_path / "world.db")) as db:
        following = db.events("new", audience=audience, from_start=True)
        with anyio.fail_after(PATIENCE_S):
            async with aclosing(following):
                async for event in following:
                    found.append(event.event_no)
                    if event.event_no == expected[-1]:
                        break
    assert found == expected


def operators(text: str) -> Callable[[Tx], object]:
    return lambda tx: events.emit(tx, "recovery_done", "operator", text)


async def test_a_position_is_saved_past_the_events_of_others_now_and_then(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at each, and not after more than a page of them: they may be pruned then."""
    monkeypatch.setattr(events, "PAGE", 2)
    looked_to: list[int] = []
    saved: list[int] = []
    read_page, move = consumer._events_page, consumer._move_cursor

    def noted_page(tx: ReadTx, **where: Any) -> tuple[list[sessiondb.Event], int]:
        page, last = read_page(tx, **where)
        looked_to.append(last)
        return page, last

    async def noted_move(db: Database, name: str, event_no: int, backoff: retry.Backoff) -> None:
        await move(db, name, event_no, backoff)
        saved.append(event_no)

    monkeypatch.setattr(consumer, "_events_page", noted_page)
    monkeypatch.setattr(consumer, "_move_cursor", noted_move)

    async def follow(db: sessiondb.SessionDB) -> None:
        async for _ in db.events("users", audience="user"):
            pytest.fail("none of these events is for users")

    async def has_looked_to(event_no: int) -> bool:
        return bool(looked_to) and looked_to[-1] >= event_no

    async with sessiondb.open(tmp_db) as db:
        for number in range(1, 8):
            await db.write("emit", operators(f"before {number}"))
        async with running(partial(follow, db)):
            for number in range(7, 13):
                await eventually(partial(has_looked_to, number))
                await db.write("emit", operators(f"now {number}"))
            await eventually(partial(has_looked_to, 13))
    assert saved[:2] == [9, 11]


async def test_a_reader_waits_for_a_change_only_after_an_empty_page(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it neither sleeps with work before it, nor reads again and again without any."""
    monkeypatch.setattr(events, "PAGE", 2)
    monkeypatch.setattr(events.after, "__kwdefaults__", {"limit": 2})
    steps: list[str] = []
    read_page = consumer._events_page

    def noted_page(tx: ReadTx, **where: Any) -> tuple[Page[sessiondb.Event], int]:
        page, last = read_page(tx, **where)
        steps.append(f"{len(page.rows)} read")
        return page, last

    monkeypatch.setattr(consumer, "_events_page", noted_page)
    async with sessiondb.open(tmp_db) as db:
        wait_change = db.backend.wait_change

        async def noted_wait(seen: int, timeout_s: float) -> None:
            steps.append("wait")
            await wait_change(seen, timeout_s)

        monkeypatch.setattr(db.backend, "wait_change", noted_wait)
        for number in range(5):
            await db.write("emit", operators(f"{number}"))
        found: list[str] = []

        async def follow() -> None:
            async for event in db.events("new", from_start=True):
                found.append(event.text)  # noqa: PERF401  # it never ends

        async def waits_after(events: int) -> bool:
            return len(found) == events and steps[-1] == "wait"

        async with running(follow):
            await eventually(partial(waits_after, 5))
            await db.write("emit", operators("5"))
            await eventually(partial(waits_after, 6))
    assert found == ["0", "1", "2", "3", "4", "5"]
    pages = [step for step in steps if step != "0 read" and step != "wait"]
    assert pages == ["2 read", "2 read", "1 read", "1 read"]
    for before, step in itertools.pairwise(steps):
        assert (before == "0 read") == (step == "wait"), steps


async def test_each_failure_to_save_a_position_is_logged_once(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sessiondb")
    fails = iter([True, True, False, True])
    move = events.move_cursor

    def busy(tx: Tx, **where: Any) -> None:
        if next(fails, False):
            raise StoreBusy("the disk is busy", retry_after_ms=1)
        move(tx, **where)

    async with sessiondb.open(tmp_db) as db:
        async with aclosing(db.events("new", from_start=True)) as following:
            for number in range(6):
                await db.write("emit", operators(f"{number}"))
                if number == 0:
                    assert (await anext(following)).text == "0"
                    monkeypatch.setattr(events, "move_cursor", busy)
                else:
                    assert (await anext(following)).text == f"{number}"
    assert caplog.messages == ["the cursor of new: the disk is busy"] * 2

"""The session service of Google's ADK. `make adapters` runs these.

ADK ships no tests in its source distribution, so each course is run on its own SQLite service,
too, and both must say the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import sessiondb

from .programs import Program

pytest.importorskip("google.adk", reason="Google's ADK is not installed: make adapters")

from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions, EventCompaction
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types

from sessiondb.adapters.google_adk import SessionDBSessionService

Course = Callable[[BaseSessionService], Awaitable[Any]]
LATER = 4e9
"""After the creation of each session: ADK's own service refuses older events as stale."""
ONE: Any = {"app_name": "app", "user_id": "a/b", "session_id": "one"}


def event(number: int, **delta: Any) -> Event:
    call = types.FunctionCall(id=f"c{number}", name="look", args={"at": [number, None]})
    parts = [
        types.Part(text=f"text {number}"),
        types.Part(function_call=call),
        types.Part(inline_data=types.Blob(data=b"\xff\x00", mime_type="image/png")),
    ]
    return Event(
        id=f"e{number}",
        author="agent",
        invocation_id="i",
        timestamp=LATER + number,
        content=types.Content(role="model", parts=parts),
        actions=EventActions(state_delta=delta),
    )


async def events_come_back(service: BaseSessionService) -> Any:
    session = await service.create_session(**ONE)
    await service.create_session(app_name="app", user_id="a", session_id="b/one")
    for number in range(6):
        await service.append_event(session, event(number))
    await service.append_event(session, event(9).model_copy(update={"partial": True}))
    read = [
        await service.get_session(**ONE, config=config)
        for config in (
            None,
            GetSessionConfig(num_recent_events=2),
            GetSessionConfig(num_recent_events=0),
            GetSessionConfig(after_timestamp=LATER + 3),
            GetSessionConfig(after_timestamp=LATER + 1, num_recent_events=3),
        )
    ]
    other = await service.get_session(app_name="app", user_id="a", session_id="b/one")
    assert other is not None
    return [each and each.events for each in read], other.events, session.last_update_time


async def states_are_merged(service: BaseSessionService) -> Any:
    start = {"mine": 1, "user:name": "A", "app:theme": "dark", "temp:gone": 1}
    session = await service.create_session(**ONE, state=start)
    changes = {"mine": {"deep": 0.1}, "user:age": 3, "app:theme": None, "temp:seen": 2}
    await service.append_event(session, event(1, **changes))
    second = await service.create_session(app_name="app", user_id="a/b", session_id="two")
    stranger = await service.create_session(app_name="app", user_id="c", session_id="one")
    foreign = await service.create_session(app_name="app2", user_id="a/b", session_id="one")
    again = await service.get_session(**ONE)
    assert again is not None
    listed = (await service.list_sessions(app_name="app", user_id="a/b")).sessions
    return (
        session.state,
        again.state,
        second.state,
        stranger.state,
        foreign.state,
        {each.id: each.state for each in listed},
        sorted(
            (each.user_id, each.id)
            for each in (await service.list_sessions(app_name="app")).sessions
        ),
        await service.get_user_state(app_name="app", user_id="a/b"),
    )


async def errors_and_deletion(service: BaseSessionService) -> Any:
    session = await service.create_session(**ONE, state={"user:kept": 1})
    with pytest.raises(AlreadyExistsError):
        await service.create_session(**ONE)
    await service.append_event(session, event(1))
    await service.delete_session(**ONE)
    await service.delete_session(**ONE)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(session, event(2))
    gone = await service.get_session(**ONE)
    again = await service.create_session(**ONE)
    read = await service.get_session(**ONE)
    return gone, again.state, again.events, read and read.events


@pytest.mark.parametrize("course", [events_come_back, states_are_merged, errors_and_deletion])
def test_it_says_what_adks_own_service_says(course: Course, tmp_path: Path) -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            own = await course(SqliteSessionService(str(tmp_path / "adk.db")))
            assert await course(SessionDBSessionService(db)) == own

    asyncio.run(run())


def test_two_handles_append_at_once_and_lose_neither_event_nor_state() -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            service = SessionDBSessionService(db)
            await service.create_session(**ONE)
            handles = [await service.get_session(**ONE) for _ in range(2)]
            await asyncio.gather(
                *(
                    service.append_event(
                        handle,
                        event(
                            number, **{f"k{number}": 1, f"user:k{number}": 1, f"app:k{number}": 1}
                        ),
                    )
                    for number in range(20)
                    if (handle := handles[number % 2]) is not None
                )
            )
            read = await service.get_session(**ONE)
            assert read is not None
            assert len(read.events) == 20
            assert len(read.state) == 60

    asyncio.run(run())


def test_a_compaction_event_of_an_old_handle_is_stored() -> None:
    async def run() -> None:
        async with sessiondb.temporary() as db:
            service = SessionDBSessionService(db)
            old = await service.create_session(**ONE)
            new = await service.get_session(**ONE)
            assert new is not None
            await service.append_event(new, event(1))
            summary = types.Content(role="model", parts=[types.Part(text="a summary")])
            compaction = EventCompaction(
                start_timestamp=LATER, end_timestamp=LATER + 1, compacted_content=summary
            )
            actions = EventActions(compaction=compaction)
            await service.append_event(old, Event(author="user", actions=actions))
            read = await service.get_session(**ONE)
            assert read is not None
            assert [each.actions.compaction is not None for each in read.events] == [False, True]

    asyncio.run(run())


def test_the_program_answers_while_its_session_is_compacted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Program("google_adk", capsys, monkeypatch)
    assert program.second == f"of their questions in the session behind it: {program.answered}"
    assert program.third.startswith("ADK's compaction covers ")

"""The stream of events: who comes again with the last id misses none, and sees none twice."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from sessiondb import events, sync
from tests.support.gateway_commands import emit
from tests.support.serving import Serving


def sent(told: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield events as they come, each with its fields."""
    fields: dict[str, Any] = {}
    for line in told.iter_lines():
        name, _, value = line.partition(": ")
        if line == "" and "data" in fields:
            yield {**fields, "data": json.loads(fields["data"])}
            fields = {}
        elif line and name:
            fields[name] = value


def take(client: httpx.Client, count: int, headers: dict[str, str], **params: Any) -> list[Any]:
    with client.stream("GET", "/v1/events", params=params, headers=headers) as told:
        assert told.headers["content-type"].startswith("text/event-stream")
        coming = sent(told)
        return [next(coming) for _ in range(count)]


def test_a_stream_is_resumed_behind_its_last_id(client: httpx.Client, db_path: Path) -> None:
    with sync.open(db_path) as db:
        before = db.read("test", events.last)
    emit(db_path, "one", "two", "three", "four")
    emit(db_path, "for users", audience="user")
    first = take(client, 2, {}, after=before)
    assert [each["data"]["text"] for each in first] == ["one", "two"]
    assert [int(each["id"]) for each in first] == [before + 1, before + 2]
    assert first[0]["event"] == first[0]["data"]["kind"] == "recovery_done"
    rest = take(client, 3, {"last-event-id": first[-1]["id"]}, after=0)
    assert [each["data"]["text"] for each in rest] == ["three", "four", "for users"]
    mine = take(client, 1, {}, after=before, audience="user")
    assert [each["data"]["text"] for each in mine] == ["for users"]
    for wrong in ("x", "-1", "1" * 30):
        assert client.get("/v1/events", headers={"last-event-id": wrong}).status_code == 422


def test_a_new_event_reaches_two_clients(
    client: httpx.Client, other: httpx.Client, db_path: Path
) -> None:
    with client.stream("GET", "/v1/events") as one, other.stream("GET", "/v1/events") as two:
        # Both have begun when their first bytes are here.
        begun = [each.iter_lines() for each in (one, two)]
        assert [next(lines) for lines in begun] == ["retry: 1000", "retry: 1000"]
        emit(db_path, "to both")
        for lines in begun:
            data = next(line for line in lines if line.startswith("data: "))
            assert json.loads(data.removeprefix("data: "))["text"] == "to both"


def test_a_stop_ends_streams_and_requests_that_wait(tmp_path: Path) -> None:
    with Serving(tmp_path / "a.db") as server, server.client() as client:
        with client.stream("GET", "/v1/events") as told:
            lines = told.iter_lines()
            assert next(lines) == "retry: 1000"
            assert server.process is not None
            server.process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line and not line.startswith(":")] == ["id: 0"]
        assert server.process.communicate()[1] == ""
        assert server.process.returncode == 0

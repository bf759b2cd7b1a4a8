"""The routes of a gateway's queue: two workers, two channels, and who loses what."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessiondb import sync
from tests.support.serving import Serving


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.fixture
def lane(client: httpx.Client, request: pytest.FixtureRequest) -> str:
    """Make a lane of the test's own."""
    name = str(request.node.name)
    limits = {"concurrency": 2, "priority": 1, "people": True}
    client.put(f"/v1/lanes/{name}", json=limits).raise_for_status()
    return name


def accept(client: httpx.Client, lane: str, number: int, text: str = "hello") -> dict[str, Any]:
    told = client.post(
        "/v1/messages",
        json={
            "key": f"agent:main:{lane}:{number}",
            "message": user(text),
            "channel": f"{lane}:web",
            "event_id": f"{number}:{text}",
            "lane": lane,
            "details": {"chat": number},
        },
    )
    found: dict[str, Any] = told.raise_for_status().json()
    return found


def claim(client: httpx.Client, lane: str, **extra: Any) -> dict[str, Any]:
    told = client.post(f"/v1/lanes/{lane}/claim", json=extra)
    assert told.status_code == 200, told.text
    found: dict[str, Any] = told.json()
    return found


def test_a_message_is_answered_by_one_of_two_workers(
    client: httpx.Client, other: httpx.Client, lane: str
) -> None:
    first = accept(client, lane, 1)
    assert accept(other, lane, 1) == {**first, "duplicate": True}
    accept(client, lane, 2)
    one, two = claim(client, lane), claim(other, lane)
    assert {one["key"], two["key"]} == {f"agent:main:{lane}:1", f"agent:main:{lane}:2"}
    assert client.post(f"/v1/lanes/{lane}/claim", json={}).status_code == 204
    assert (one["message"], one["details"], one["attempt"]) == (user("hello"), {"chat": 1}, 1)
    path = f"/v1/turns/{one['turn_no']}"
    renewed = client.post(f"{path}/renew", json={"lease_s": 60, "operation": "thinking"})
    assert renewed.raise_for_status().json()["expires_at_ms"] > one["expires_at_ms"]
    client.put(f"{path}/note", json={"details": {"shown": 7}}).raise_for_status()
    step = {"item": {"role": "assistant", "content": "wait"}, "idempotency_key": "step"}
    for _ in range(2):
        client.post(f"{path}/entries", json=step).raise_for_status()
    answer = {
        "entries": [{"item": {"role": "assistant", "content": "hello to you"}}],
        "replies": [{"target": f"{lane}:42", "message": {"text": "hello to you"}}],
    }
    client.post(f"{path}/complete", json=answer).raise_for_status()
    again = client.post(f"{path}/complete", json=answer)
    assert (again.status_code, again.json()["type"]) == (409, "TurnLost")
    assert again.json()["data"]["state"] == "completed"
    ended = client.get(f"/v1/messages/{first['inbox_no']}/outcome").raise_for_status().json()
    assert ended["state"] == "answered"
    texts = client.get(f"/v1/sessions/{one['session_id']}/context").json()
    assert [each["content"] for each in texts] == ["hello", "wait", "hello to you"]
    open_one = client.get(f"/v1/messages/{two['inbox_no']}/outcome")
    assert open_one.status_code == 202
    untouched = client.get(f"/v1/sessions/{two['session_id']}/context").json()
    assert [each["content"] for each in untouched] == ["hello"]
    client.post(f"/v1/turns/{two['turn_no']}/fail", json={"reason": "no", "retry": False})
    assert other.get(f"/v1/messages/{two['inbox_no']}/outcome").json()["state"] == "given_up"
    _send(client, other, lane)


def _send(client: httpx.Client, other: httpx.Client, lane: str) -> None:
    """Send the one reply of a lane: refused once, then sent once, and told twice."""
    reply = client.post("/v1/outbox/claim", json={}).raise_for_status().json()
    assert (reply["target"], reply["channel"]) == (f"{lane}:42", lane)
    assert (reply["message"], reply["details"]) == ({"text": "hello to you"}, {"chat": 1})
    assert other.post("/v1/outbox/claim", json={}).status_code == 204
    path = f"/v1/outbox/{reply['outbox_no']}"
    refused = {"attempt": reply["attempts"], "reason": "not now"}
    assert client.post(f"{path}/failed", json=refused).json()["recorded"] is True
    again = other.post("/v1/outbox/claim", json={"wait_s": 60}).raise_for_status().json()
    assert again["attempts"] == reply["attempts"] + 1
    late = client.post(f"{path}/sent", json={"attempt": reply["attempts"]})
    assert late.json()["recorded"] is False, "that attempt has ended"
    sent = {"attempt": again["attempts"], "receipt": "m1"}
    assert other.post(f"{path}/sent", json=sent).json()["recorded"] is True
    assert other.post(f"{path}/sent", json=sent).json()["recorded"] is False
    assert other.post(f"{path}/sent", json={"attempt": 99}).status_code == 404
    assert client.post(f"{path}/settle", json={"state": "sent"}).status_code == 404


def test_a_worker_that_waits_is_given_the_next_message(
    client: httpx.Client, other: httpx.Client, lane: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(claim, other, lane, wait_s=60)
        accept(client, lane, 1)
        assert waiting.result()["message"] == user("hello")


def test_a_released_turn_goes_on_elsewhere_and_its_holder_has_lost_it(
    client: httpx.Client, other: httpx.Client, lane: str
) -> None:
    accept(client, lane, 1)
    turn = claim(client, lane)
    path = f"/v1/turns/{turn['turn_no']}"
    released = client.post(f"{path}/release", json={}).raise_for_status()
    assert released.json() == {"turn_no": int(path.rpartition("/")[2])}
    for verb, body in (
        ("renew", {}),
        ("complete", {}),
        ("fail", {"reason": "x"}),
        ("release", {}),
        ("entries", {"item": user("late")}),
    ):
        lost = other.post(f"{path}/{verb}", json=body)
        assert (lost.status_code, lost.json()["data"]["state"]) == (409, "interrupted"), verb
    assert client.post("/v1/turns/999999999/renew", json={}).status_code == 404
    assert client.post("/v1/turns/x/renew", json={}).status_code == 422
    assert client.post("/v1/lanes/nobody's/claim", json={}).status_code == 404


def test_a_turn_outlives_the_server_that_it_was_claimed_from(tmp_path: Path) -> None:
    with Serving(tmp_path / "a.db") as server:
        with server.client() as client:
            client.put("/v1/lanes/l", json={"concurrency": 2, "priority": 1}).raise_for_status()
            for number in (1, 2):
                accept(client, "l", number)
            one, two = claim(client, "l", lease_s=600), claim(client, "l", lease_s=600)
            answer = {"replies": [{"target": "web:1", "message": "a"}]}
            client.post(f"/v1/turns/{one['turn_no']}/complete", json=answer).raise_for_status()
            reply = client.post("/v1/outbox/claim", json={"lease_s": 600}).json()
        server.kill()
        server.start()
        with server.client() as client:
            path = f"/v1/turns/{two['turn_no']}"
            client.post(f"{path}/renew", json={"lease_s": 600}).raise_for_status()
            client.post(f"{path}/complete", json={}).raise_for_status()
            sent = client.post(
                f"/v1/outbox/{reply['outbox_no']}/sent", json={"attempt": reply["attempts"]}
            )
            assert sent.raise_for_status().json()["recorded"] is True
        server.stop()
        with sync.open(tmp_path / "a.db") as db:
            assert [each.outbox_no for each in db.replies("sent")] == [reply["outbox_no"]]
            assert db.held() == []
            assert db.verify().ok


def test_edits_and_withdrawals_reach_a_message_that_waits(client: httpx.Client, lane: str) -> None:
    accepted = accept(client, lane, 1)
    accept(client, lane, 2)
    event = {"channel": f"{lane}:web", "event_id": "1:hello"}
    edited = client.post(
        "/v1/messages/edit",
        json={**event, "key": f"agent:main:{lane}:1", "message": user("bye"), "version": 1},
    )
    assert edited.raise_for_status().json()["outcome"] == "replaced"
    withdrawn = client.post("/v1/messages/withdraw", json={**event, "event_id": "2:hello"})
    assert withdrawn.raise_for_status().json()["outcome"] == "withdrawn"
    assert claim(client, lane)["message"] == user("bye")
    assert client.post(f"/v1/lanes/{lane}/claim", json={}).status_code == 204
    names = [each["lane"] for each in client.get("/v1/lanes").json()["lanes"]]
    assert {lane, "main", "resume"} <= set(names)
    assert client.get(f"/v1/messages/{accepted['inbox_no']}/outcome").status_code == 202


@pytest.fixture(autouse=True)
def _no_reply_left(client: httpx.Client) -> Iterator[None]:
    """A test that left replies would give them to the next one."""
    yield
    assert client.post("/v1/outbox/claim", json={}).status_code == 204


def test_a_claim_that_fails_says_so_whether_it_waits_or_not(client: httpx.Client) -> None:
    for wait_s in (0, 0.05):
        told = client.post("/v1/lanes/nobody/claim", json={"wait_s": wait_s})
        assert (told.status_code, told.json()["type"]) == (404, "NotFound")

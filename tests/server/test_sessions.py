"""The routes of sessions, over the socket of a server in another process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from sessiondb import sync


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.fixture
def talks(client: httpx.Client, request: pytest.FixtureRequest) -> list[str]:
    """Open two sessions, each with an entry."""
    ids = []
    for name in ("one", "two"):
        key = f"agent:main:{request.node.name}:{name}"
        opened = client.post("/v1/sessions", json={"key": key})
        ids.append(opened.raise_for_status().json()["session_id"])
        body = {"item": user(f"hello {name}"), "idempotency_key": "first"}
        client.post(f"/v1/sessions/{ids[-1]}/entries", json=body).raise_for_status()
    return ids


def payloads(client: httpx.Client, session: str) -> list[Any]:
    found = client.get(f"/v1/sessions/{session}/entries").raise_for_status().json()
    return [json.loads(entry["payload"])["message"]["content"] for entry in found["entries"]]


def test_a_key_is_opened_once_by_two_clients(client: httpx.Client, other: httpx.Client) -> None:
    key = "agent:main:web:a/b c%2F"
    first = client.post("/v1/sessions", json={"key": key}).raise_for_status().json()
    again = other.post("/v1/sessions", json={"key": key}).raise_for_status().json()
    assert first["session_id"] == again["session_id"]
    by_key = other.get(f"/v1/sessions/{quote(key, safe='')}").raise_for_status().json()
    assert by_key["session_id"] == first["session_id"]
    assert by_key["keys"] == [key]


def test_a_session_that_is_not_to_be_made_is_not_found(client: httpx.Client) -> None:
    asked = {"key": "agent:main:web:nobody", "create": False}
    for _ in range(2):
        told = client.post("/v1/sessions", json=asked)
        assert (told.status_code, told.json()["type"]) == (404, "NotFound")
        assert told.json()["data"]["key"] == "agent:main:web:nobody"


def test_a_foreign_id_and_an_id_of_ones_own_open_sessions(client: httpx.Client) -> None:
    foreign = {"namespace": "shop", "external_id": "7", "agent_id": "main"}
    first = client.post("/v1/sessions", json=foreign).raise_for_status().json()
    assert client.post("/v1/sessions", json=foreign).json()["session_id"] == first["session_id"]
    own = client.post("/v1/sessions", json={"session_id": "my-own"}).raise_for_status().json()
    assert own["session_id"] == "my-own" != first["session_id"]
    taken = client.post("/v1/sessions", json={"session_id": "my-own"})
    assert (taken.status_code, taken.json()["type"]) == (422, "InvalidInput")


@pytest.mark.parametrize(
    "asked",
    [
        {"key": "agent:main:web:1", "session_id": "x"},
        {"key": "agent:main:web:1", "namespace": "n", "external_id": "x"},
        {"key": "agent:main:web:1", "agent_id": "main"},
        {"namespace": "n"},
        {"create": False},
        {"key": "no key"},
        {"key": 1},
        {"kye": "agent:main:web:1"},
    ],
)
def test_a_session_that_is_not_named_is_refused(
    client: httpx.Client, asked: dict[str, Any]
) -> None:
    assert client.post("/v1/sessions", json=asked).status_code == 422


def test_an_append_that_is_repeated_is_stored_once(
    client: httpx.Client, other: httpx.Client, talks: list[str], db_path: Path
) -> None:
    one, two = talks
    body = {"item": user("where is my order?"), "idempotency_key": "web:7"}
    first = client.post(f"/v1/sessions/{one}/entries", json=body).raise_for_status().json()
    again = other.post(f"/v1/sessions/{one}/entries", json=body).raise_for_status().json()
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert again["entry_id"] == first["entry_id"]
    assert payloads(client, one) == ["hello one", "where is my order?"]
    assert payloads(client, two) == ["hello two"]
    with sync.open(db_path, readonly=True) as db:  # and so in the file, for another process
        assert len(db.session_by_id(one).entries()) == 2
    found = client.get(f"/v1/sessions/{one}/keys/web%3A7").raise_for_status().json()
    assert found["entry_id"] == first["entry_id"]
    assert client.get(f"/v1/sessions/{two}/keys/web%3A7").status_code == 404
    body["item"] = user("something else")
    refused = client.post(f"/v1/sessions/{one}/entries", json=body)
    assert (refused.status_code, refused.json()["type"]) == (409, "IdentityConflict")
    assert refused.json()["outcome"] == "not_executed"


def test_a_text_is_stored_byte_by_byte(client: httpx.Client, talks: list[str]) -> None:
    one, _ = talks
    text = '{ "role":"user", "content":"x", "n": 1.50, "big":12345678901234567890123 }'
    client.post(f"/v1/sessions/{one}/entries", json={"item": text}).raise_for_status()
    found = client.get(f"/v1/sessions/{one}/entries").json()["entries"][-1]["payload"]
    assert text in found
    assert text.encode() in client.get(f"/v1/sessions/{one}/context").content


def test_a_batch_is_stored_whole_or_not_at_all(client: httpx.Client, talks: list[str]) -> None:
    one, two = talks
    path = f"/v1/sessions/{one}/entries/batch"
    items = [{"item": user(text), "idempotency_key": text} for text in "abc"]
    stored = client.post(path, json={"items": items}).raise_for_status().json()["receipts"]
    again = client.post(path, json={"items": items}).raise_for_status().json()["receipts"]
    assert [each["entry_id"] for each in again] == [each["entry_id"] for each in stored]
    assert all(each["duplicate"] for each in again)
    moved = client.post(path, json={"items": [{"item": user("d")}], "expect_head": "other"})
    assert (moved.status_code, moved.json()["type"]) == (409, "HeadMoved")
    assert moved.json()["data"]["head"] == stored[-1]["entry_id"]
    root = client.post(path, json={"items": [{"item": user("d")}], "expect_head": None})
    assert root.json()["type"] == "HeadMoved"
    bad = client.post(path, json={"items": [{"item": user("d")}, {"item": {"no": "role"}}]})
    assert (bad.status_code, bad.json()["type"]) == (422, "InvalidInput")
    follows = {"items": [{"item": user("d")}], "expect_head": stored[-1]["entry_id"]}
    client.post(path, json=follows).raise_for_status()
    assert payloads(client, one) == ["hello one", *"abcd"]
    assert payloads(client, two) == ["hello two"]


def test_a_context_has_a_tag_that_changes_with_it(client: httpx.Client, talks: list[str]) -> None:
    one, two = talks
    path = f"/v1/sessions/{one}/context"
    first = client.get(path).raise_for_status()
    assert first.json() == [user("hello one")]
    assert first.headers["sessiondb-session"] == one
    assert first.headers["sessiondb-epoch"] == "0"
    tag = {"if-none-match": f'"other", {first.headers["etag"]}'}
    unchanged = client.get(path, headers=tag)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    client.post(f"/v1/sessions/{two}/entries", json={"item": user("more")}).raise_for_status()
    assert client.get(path, headers=tag).status_code == 304
    client.post(f"/v1/sessions/{one}/entries", json={"item": user("more")}).raise_for_status()
    changed = client.get(path, headers=tag)
    assert (changed.status_code, changed.json()) == (200, [user("hello one"), user("more")])
    assert client.get(path, params={"last": 1}).json() == [user("more")]
    assert client.get(path, params={"epoch": 9}).status_code == 404


def test_entries_come_in_pages(client: httpx.Client, talks: list[str]) -> None:
    one, _ = talks
    items = [{"item": user(str(number))} for number in range(5)]
    client.post(f"/v1/sessions/{one}/entries/batch", json={"items": items}).raise_for_status()
    path, seen, after = f"/v1/sessions/{one}/entries", [], None
    while True:
        params = {"limit": 2} if after is None else {"limit": 2, "after": after}
        page = client.get(path, params=params).raise_for_status().json()["entries"]
        if not page:
            break
        assert len(page) <= 2
        seen += [json.loads(entry["payload"])["message"]["content"] for entry in page]
        after = page[-1]["entry_no"]
    assert seen == ["hello one", "0", "1", "2", "3", "4"]
    newest = client.get(path, params={"limit": 1, "newest_first": True}).json()["entries"]
    one_entry = client.get(f"{path}/{newest[0]['entry_id']}").raise_for_status().json()
    assert one_entry == newest[0]
    assert client.get(path, params={"types": "compaction,reset"}).json() == {"entries": []}
    for wrong in ({"limit": 0}, {"limit": 100_000}, {"after": "x"}, {"nonsense": 1}):
        assert client.get(path, params=wrong).status_code == 422


def test_sessions_come_in_pages(client: httpx.Client, talks: list[str]) -> None:
    asked: dict[str, Any] = {"limit": 1, "key_prefix": "agent:main:test_sessions_come_in_pages:"}
    found = []
    while True:
        page = client.get("/v1/sessions", params=asked).raise_for_status().json()
        found += [each["session_id"] for each in page["sessions"]]
        if page["next"] is None:
            break
        asked["cursor"] = page["next"]
    assert found == talks[::-1]
    for wrong in ("x", "1-x", "--1", "1-"):
        told = client.get("/v1/sessions", params={"cursor": wrong})
        assert told.json()["type"] == "InvalidInput"


def test_words_are_found_in_one_session_or_all(client: httpx.Client, talks: list[str]) -> None:
    one, _ = talks
    found = client.get("/v1/search", params={"words": "hello", "session": one}).json()["hits"]
    assert [hit["session_id"] for hit in found] == [one]
    everywhere = client.get("/v1/search", params={"words": "hello"}).json()["hits"]
    assert set(talks) <= {hit["session_id"] for hit in everywhere}
    assert client.get("/v1/search", params={"words": '""'}).status_code == 422
    assert client.get("/v1/search").status_code == 422


def test_health_and_status_tell_of_the_database(client: httpx.Client, db_path: Path) -> None:
    assert client.get("/v1/health").raise_for_status().json()["ok"] is True
    found = client.get("/v1/status", params={"counts": True}).raise_for_status().json()
    assert found["path"] == str(db_path)
    assert found["entries"] >= 0
    assert [each["program"] for each in found["processes"] if each["alive"]] == ["serve"]

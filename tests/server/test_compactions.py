"""Compactions of a client in another process: nothing is held while its model thinks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.serving import Serving


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


@pytest.fixture
def talk(client: httpx.Client, request: pytest.FixtureRequest) -> str:
    """Open a session with ten questions and answers."""
    key = f"agent:main:{request.node.name}:1"
    client.post("/v1/sessions", json={"key": key}).raise_for_status()
    fill(client, key)
    return key


def fill(client: httpx.Client, key: str) -> None:
    items = [
        {"item": {"role": role, "content": f"{role} {number} " * 20}}
        for number in range(10)
        for role in ("user", "assistant")
    ]
    told = client.post(f"/v1/sessions/{key}/entries/batch", json={"items": items})
    told.raise_for_status()


def begin(client: httpx.Client, key: str, client_id: str, **extra: Any) -> httpx.Response:
    asked = {"client_id": client_id, "keep_recent_tokens": 100, **extra}
    return client.post(f"/v1/sessions/{key}/compactions", json=asked)


def test_appends_go_on_while_a_summary_is_written(
    client: httpx.Client, other: httpx.Client, talk: str
) -> None:
    begun = begin(client, talk, "one")
    assert begun.status_code == 201
    job = begun.json()
    assert job["messages"][0]["content"].startswith("user 0")
    assert 0 < len(job["messages"]) < 20
    other.post(f"/v1/sessions/{talk}/entries", json={"item": user("meanwhile")}).raise_for_status()
    path = f"/v1/compactions/{job['compaction_id']}"
    renewed = client.post(f"{path}/renew", json={"lease_s": 300}).raise_for_status().json()
    assert renewed["expires_at_ms"] > job["expires_at_ms"]
    done = client.post(f"{path}/commit", json={"summary": "they talked", "details": {"n": 1}})
    assert done.raise_for_status().json()["outcome"] == "committed"
    again = other.post(f"{path}/commit", json={"summary": "they talked", "details": {"n": 1}})
    assert again.json() == done.json()
    context = client.get(f"/v1/sessions/{talk}/context")
    assert context.headers["sessiondb-epoch"] == str(done.json()["epoch"])
    assert "they talked" in context.text
    assert "user 0" not in context.text
    assert context.json()[-1] == user("meanwhile")
    listed = client.get(f"/v1/sessions/{talk}/compactions").json()["compactions"]
    assert [(each["compaction_id"], each["state"]) for each in listed] == [
        (job["compaction_id"], "committed")
    ]
    lost = client.post(f"{path}/renew", json={})
    assert (lost.status_code, lost.json()["data"]["state"]) == (409, "committed")


def test_a_client_takes_its_own_job_over_and_no_other(
    client: httpx.Client, other: httpx.Client, talk: str
) -> None:
    first = begin(client, talk, "one").json()
    refused = begin(other, talk, "two")
    assert (refused.status_code, refused.json()["type"]) == (409, "CompactionRunning")
    assert refused.json()["data"]["compaction_id"] == first["compaction_id"]
    assert refused.json()["retry_after_ms"] > 0
    anew = begin(other, talk, "one")
    assert anew.status_code == 201
    assert anew.json()["compaction_id"] != first["compaction_id"]
    assert anew.json()["messages"] == first["messages"]
    path = f"/v1/compactions/{anew.json()['compaction_id']}"
    assert client.post(f"{path}/fail", json={"reason": "x"}).json()["recorded"] is True
    assert client.post(f"{path}/fail", json={"reason": "x"}).json()["recorded"] is False
    late = client.post(f"{path}/commit", json={"summary": "late"}).raise_for_status().json()
    assert (late["outcome"], late["late"]) == ("committed", True)


def test_what_cannot_be_compacted_is_told(client: httpx.Client, talk: str) -> None:
    nothing = begin(client, talk, "one", keep_recent_tokens=1_000_000, trigger="threshold")
    assert (nothing.status_code, nothing.json()["type"]) == (409, "NothingToCompact")
    assert begin(client, talk, "").status_code == 422
    assert begin(client, "nobody", "one").status_code == 404
    for verb, body in (("renew", {}), ("commit", {"summary": "x"})):
        assert client.post(f"/v1/compactions/none/{verb}", json=body).status_code == 404


def test_a_job_of_a_killed_server_is_committed_through_the_next(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    key = "agent:main:web:1"
    with Serving(tmp_path_factory.mktemp("killed") / "a.db") as server:
        with server.client() as client:
            client.post("/v1/sessions", json={"key": key}).raise_for_status()
            fill(client, key)
            job = begin(client, key, "one", lease_s=600).json()
        server.kill()
        server.start()
        with server.client() as client:
            path = f"/v1/compactions/{job['compaction_id']}"
            client.post(f"{path}/renew", json={"lease_s": 600}).raise_for_status()
            done = client.post(f"{path}/commit", json={"summary": "they talked"})
            assert done.raise_for_status().json()["outcome"] == "committed"
            assert "they talked" in client.get(f"/v1/sessions/{key}/context").text

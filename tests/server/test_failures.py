"""Every error has a status, and every request that no route takes has an answer that says so."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from sessiondb import errors
from sessiondb.errors import SessionDBError
from sessiondb.server.failures import REFUSALS, STATUS, response_to, status_of
from tests.support.serving import Serving


def subclasses(base: type[SessionDBError]) -> Iterator[type[SessionDBError]]:
    yield base
    for each in base.__subclasses__():
        if each.__module__.startswith("sessiondb."):
            yield from subclasses(each)


@pytest.mark.parametrize("kind", sorted(set(subclasses(SessionDBError)), key=lambda k: k.__name__))
def test_every_error_has_a_status_of_its_own(kind: type[SessionDBError]) -> None:
    assert kind in STATUS
    error = kind.__new__(kind)
    error.message = "x"
    assert status_of(error) == STATUS[kind]


def test_the_table_has_no_error_that_does_not_exist() -> None:
    assert set(STATUS) == set(subclasses(SessionDBError))


BY_STATUS = {
    403: "StoreReadOnly",
    404: "NotFound",
    409: (
        "CompactionCoolDown CompactionRefused CompactionRunning CompactionTimeout ConstraintFailed"
        " DetailsChanged HeadMoved IdentityConflict NothingToCompact NothingToUndo PartlyStored"
        " SessionArchived SessionEnded TurnLost"
    ),
    422: "InvalidInput InvalidKey ReadTooLong",
    503: "NotExecuted SessionBusy StoreBusy StoreClosed",
    507: "StoreFull",
}
"""What a client acts on. All else is 500: the server's own fault."""


def test_a_status_says_whose_fault_it_is() -> None:
    found: dict[int, list[str]] = {}
    for kind, status in STATUS.items():
        found.setdefault(status, []).append(kind.__name__)
    assert len(found.pop(500)) >= 10
    assert {status: " ".join(sorted(names)) for status, names in found.items()} == BY_STATUS


def test_a_refusal_has_the_status_of_its_meaning() -> None:
    assert {name: status for name, (status, _) in REFUSALS.items()} == {
        "MalformedRequest": 400,
        "Unauthorized": 401,
        "WrongHost": 403,
        "NoSuchRoute": 404,
        "MethodNotAllowed": 405,
        "BodyTooSlow": 408,
        "BodyTooLarge": 413,
        "InternalError": 500,
        "ServerBusy": 503,
    }


def test_an_error_says_when_to_retry_and_what_became_of_the_write() -> None:
    busy = response_to(errors.StoreBusy("the queue is full", retry_after_ms=1_500, holder="x"))
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "2")
    assert json.loads(bytes(busy.body)) == {
        "type": "StoreBusy",
        "message": "the queue is full",
        "retry_after_ms": 1_500,
        "outcome": "not_executed",
        "data": {"holder": "x"},
    }
    unknown = response_to(errors.OutcomeUnknown("the disk failed"))
    assert json.loads(bytes(unknown.body))["outcome"] == "unknown"
    full = response_to(errors.StoreFull("no space"))
    assert (full.status_code, full.headers["retry-after"]) == (507, "1")
    ended = response_to(errors.SessionEnded("it has ended", session_id="s"))
    assert "retry-after" not in ended.headers
    assert json.loads(bytes(ended.body))["data"] == {"session_id": "s"}


def test_a_bug_is_logged_and_its_text_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    told = response_to(ZeroDivisionError("a secret of the code"))
    assert told.status_code == 500
    assert b"secret" not in bytes(told.body)
    assert json.loads(bytes(told.body))["outcome"] == "unknown"
    assert "a secret of the code" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "content", "kind"),
    [
        ("GET", "/v1/nothing", b"", "NoSuchRoute"),
        ("GET", "/", b"", "NoSuchRoute"),
        ("GET", "/v1/sessions/", b"", "NoSuchRoute"),
        ("DELETE", "/v1/sessions", b"", "MethodNotAllowed"),
        ("GET", "/v1/sessions/%ff", b"", "MalformedRequest"),
        ("POST", "/v1/sessions", b"", "MalformedRequest"),
        ("POST", "/v1/sessions", b"[]", "MalformedRequest"),
        ("POST", "/v1/sessions", b'{"key":', "MalformedRequest"),
        ("POST", "/v1/sessions", b'{"key": NaN}', "MalformedRequest"),
        ("POST", "/v1/sessions", b'{"key": "\xff"}', "MalformedRequest"),
        ("POST", "/v1/sessions", b'{"key":' + b"[" * 5000 + b"]" * 5000 + b"}", "MalformedRequest"),
    ],
)
def test_a_request_that_no_route_takes_is_refused(
    client: httpx.Client, method: str, path: str, content: bytes, kind: str
) -> None:
    told = client.request(method, path, content=content)
    assert told.json()["type"] == kind
    assert told.status_code == REFUSALS[kind][0]
    assert told.json()["outcome"] == "not_executed"
    assert told.headers.get("allow") == ("GET, POST" if kind == "MethodNotAllowed" else None)


def test_tcp_needs_the_token_and_the_name_of_this_machine(serving: Serving) -> None:
    token = serving.token_file.read_text().strip()
    assert serving.token_file.stat().st_mode & 0o777 == 0o600
    given = {"authorization": f"Bearer {token}"}
    for headers, status in (
        ({}, 401),
        ({"authorization": "Bearer " + "0" * len(token)}, 401),
        ({"authorization": f"Basic {token}"}, 401),
        ({"authorization": f"Bearer {token}é".encode("latin-1").decode("latin-1")}, 401),
        (given, 200),
        ({**given, "host": "LOCALHOST:99"}, 200),
        ({**given, "host": "[::1]"}, 200),
        ({**given, "host": "attacker.example"}, 403),
        ({**given, "host": "127.0.0.1.attacker.example:80"}, 403),
    ):
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        with serving.tcp_client() as client:
            assert client.get("/v1/health", headers=encoded).status_code == status, headers
    with serving.client() as client:  # the socket's folder is the token
        assert client.get("/v1/health", headers={"host": "anything"}).status_code == 200

"""The process of a server: it starts, stops in good order, and starts again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sessiondb import sync
from tests.support.command_line import fails
from tests.support.serving import Serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_good_order(tmp_db: Path, number: signal.Signals) -> None:
    with Serving(tmp_db) as server:
        with server.client() as client:
            client.post("/v1/sessions", json={"key": "agent:main:web:1"}).raise_for_status()
            # A connection that is kept alive does not keep the server.
            assert server.stop(number) == (0, "")
        assert not server.socket.exists()
        with sync.open(tmp_db) as db:
            assert db.status().processes_open == 1  # this one: the server has signed off
            assert [info.keys for info in db.sessions()] == [("agent:main:web:1",)]


def test_a_killed_server_is_followed_by_another(tmp_db: Path) -> None:
    with Serving(tmp_db) as server:
        with server.client() as client:
            client.post("/v1/sessions", json={"key": "agent:main:web:1"}).raise_for_status()
        server.kill()
        assert server.socket.exists()
        server.start()
        with server.client() as client:
            found = client.get("/v1/sessions").raise_for_status().json()["sessions"]
            assert [each["keys"] for each in found] == [["agent:main:web:1"]]


def test_a_second_server_on_the_socket_is_refused(tmp_db: Path) -> None:
    with Serving(tmp_db) as server:
        said = fails(1, "serve", tmp_db.with_name("other.db"), "--socket", server.socket)
        assert "a server is listening on" in said
        assert not tmp_db.with_name("other.db").exists()
        with server.client() as client:
            assert client.get("/v1/health").status_code == 200


def test_tcp_and_its_token_go_together(tmp_db: Path) -> None:
    assert "go together" in fails(2, "serve", tmp_db, "--tcp", "0")
    assert "go together" in fails(2, "serve", tmp_db, "--token-file", tmp_db.with_name("token"))


def test_a_database_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_text("not a database, and long enough to have a header " * 10)
    server = Serving(other)
    with pytest.raises(AssertionError, match="not a SQLite file"):
        with server:
            pass
    assert not server.socket.exists()

"""A server that the tests of a file share, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.serving import Serving


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Start a server on a socket and on a port."""
    server = Serving(tmp_path_factory.mktemp("serving") / "gateway.db")
    server.options = ("--tcp", "0", "--token-file", str(server.token_file))
    with server:
        yield server


@pytest.fixture
def client(serving: Serving) -> Iterator[httpx.Client]:
    """Connect to its socket."""
    with serving.client() as connected:
        yield connected


@pytest.fixture
def other(serving: Serving) -> Iterator[httpx.Client]:
    """Connect to its socket once more."""
    with serving.client() as connected:
        yield connected


@pytest.fixture
def db_path(serving: Serving) -> Path:
    """Return the served database, for a look beside the server."""
    return serving.db

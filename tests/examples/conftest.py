"""Fixtures of the examples' tests: a gateway as a process, and a model."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.chat_endpoint import ChatEndpoint, chat_endpoint
from tests.support.reference_gateway import GatewayProcess


@pytest.fixture
def gateway_process(tmp_path: Path) -> Iterator[Callable[..., GatewayProcess]]:
    """Return a function that starts a gateway on a database in the test's folder.

    It takes the gateway's options as keywords. `name` picks another file. A gateway that
    still runs at the end of the test is killed.
    """
    with contextlib.ExitStack() as stack:

        def start(name: str = "gateway", **options: object) -> GatewayProcess:
            return stack.enter_context(GatewayProcess(tmp_path / f"{name}.db", **options))

        yield start


@pytest.fixture
def endpoint() -> Iterator[ChatEndpoint]:
    """Serve a model of somebody else's."""
    with chat_endpoint() as serving:
        yield serving


@pytest.fixture(scope="module")
def module_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Start a gateway that the tests of a file share."""
    folder = tmp_path_factory.mktemp("shared")
    with GatewayProcess(folder / "gateway.db", model_delay=0.02, summary_delay=0.05) as started:
        yield started


@pytest.fixture
def gateway(module_gateway: GatewayProcess) -> Iterator[GatewayProcess]:
    """Return a gateway that tests share, at rest, with a conversation of the test's own."""
    module_gateway.lobby = f"lobby-{uuid.uuid4().hex[:8]}"
    yield module_gateway
    module_gateway.command("/stop")
    module_gateway.wait_for(lambda: module_gateway.held() == [])

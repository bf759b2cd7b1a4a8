"""Fixtures of the fuzzers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proofs.fuzz.properties import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    created = Bench(tmp_path)
    yield created
    created.close()


@pytest.fixture
def anyio_backend() -> str:
    """One loop is enough: what differs between them has tests of its own."""
    return "asyncio"

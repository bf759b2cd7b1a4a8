"""What several tests of the engine share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.disk import Faults, faulty_disk


@pytest.fixture
def faults() -> Iterator[Faults]:
    with faulty_disk() as found:
        yield found

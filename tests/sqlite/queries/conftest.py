from __future__ import annotations

import pytest

from tests.support.world import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    """Return the populated world. Every test rolls back what it does there."""
    return make_world()

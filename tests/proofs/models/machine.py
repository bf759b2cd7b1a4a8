"""Running a state machine, on one of the event loops, with all of its rules or a few."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RULE_MARKER, RuleBasedStateMachine, run_state_machine_as_test

from sessiondb.errors import SessionDBError

NOTICED = (AssertionError, SessionDBError, pytest.fail.Exception)
"""How a machine says that a rule is broken. Anything else is a mistake of the test."""

# Always the same examples with one version of hypothesis, and no search for a smaller one. It ends
# with the first that shows the defect.
FIRST_FAILURE = {"derandomize": True, "phases": [Phase.generate], "database": None}


def run(
    machine: type[RuleBasedStateMachine], loop: str, only: Collection[str] = (), **options: Any
) -> None:
    """Run a machine with the rules in `only`. None means all of them."""
    rules = {name for name, part in vars(machine).items() if hasattr(part, RULE_MARKER)}
    assert rules.issuperset(only), set(only) - rules
    without = rules.difference(only) if only else ()
    run_state_machine_as_test(
        type("Machine", (machine,), {"loop": loop, **dict.fromkeys(without)}),
        settings=settings(
            deadline=None, print_blob=True, suppress_health_check=list(HealthCheck), **options
        ),
    )

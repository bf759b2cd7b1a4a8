"""Running a state machine, on one of the event loops, with all of its rules or a few."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RULE_MARKER, RuleBasedStateMachine, run_state_machine_as_test

from sessiondb.errors import SessionDBError

LONG = os.environ.get("SESSIONDB_HYPOTHESIS") == "long"
"""`make models`: many long courses, new ones each time, and every broken rule."""

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


def courses(count: int, loop: str) -> int:
    """Return how many of so many courses a test takes on an event loop.

    The rules are the same on both, and a short run takes the same courses: on trio a few are
    enough to see that each rule's calls arrive there.
    """
    return count if LONG or loop == "asyncio" else max(1, count // 4)


def broken(
    rules: Iterable[Callable[..., None]], *, rare: Collection[Callable[..., None]]
) -> pytest.MarkDecorator:
    """Return the cases of a test that breaks one rule at a time.

    It takes many courses to meet what shows one of `rare`. Those wait for `make models`.
    """
    waits = pytest.mark.skip(reason="shows in many courses only; `make models` runs it")
    return pytest.mark.parametrize(
        "break_rule",
        [
            pytest.param(
                rule,
                id=rule.__name__.strip("_"),
                marks=[waits] if rule in rare and not LONG else [],
            )
            for rule in rules
        ],
    )

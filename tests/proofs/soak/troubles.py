"""Troubles that a gateway meets, and how often a soak gives it each.

Of some the gateway itself makes a share of its calls (`gateway.py`). Others come from outside,
at intervals (`load.py`). The report counts each. A course that was long enough for a trouble,
and never met it, proves nothing about it, and says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import Plan

STRAY_HANDLER = "a handler's stray cancellation"
STRAY_SENDER = "a sender's stray cancellation"
WRONG_ANSWER = "a handler's wrong answer"
WRONG_RECEIPT = "a sender's wrong receipt"
RESET = "a reset while a message is interrupted"
BRANCH = "a branch while a message is interrupted"
REQUEUE = "a requeue while a message is interrupted"

ORDERLY_STOP = "an orderly stop of a gateway"
BACKLOG = "a backlog of heartbeats beside people"
PARKED = "a message of a lane that nobody runs"
UNPARKED = "somebody runs the lane that nobody ran"
DEAD_CHANNEL = "a channel that is dead beside live ones"
FULL_POOL = "a full thread pool of the application"
CLOCK_FORWARD = "a clock set forward by seconds"
CLOCK_BACK = "a clock set back by seconds"
CONTAINER = "a gateway in a container, with a new name"
TRIO = "a gateway under trio"

# Lanes beside `main`, `cron` and `resume`. Somebody runs the first now and then. The second is
# left alone on purpose: what was sent there is all that waits at the end.
PARKED_LANE, ATTIC_LANE = "parked", "attic"

TURNS, SENDS, INTERRUPTIONS, STARTS = "turns", "sends", "interruptions", "starts"

# Of what the gateway makes a share.
OF: dict[str, str] = {
    STRAY_HANDLER: TURNS,
    WRONG_ANSWER: TURNS,
    STRAY_SENDER: SENDS,
    WRONG_RECEIPT: SENDS,
    RESET: INTERRUPTIONS,
    BRANCH: INTERRUPTIONS,
    REQUEUE: INTERRUPTIONS,
    CONTAINER: STARTS,
    TRIO: STARTS,
}

# A trouble that a course should have met so often is met at least once: in all but one of
# twenty thousand courses.
ENOUGH = 10.0


@dataclass
class Met:
    """What a soak has met, and out of how much."""

    times: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    not_here: dict[str, str] = field(default_factory=dict)
    """Troubles that this machine does not allow, and why."""


def expected(plan: Plan, met: Met) -> dict[str, float]:
    """Return how often a course of that length should have met each trouble."""
    shares = {name: plan.shares[name] * met.calls[calls] for name, calls in OF.items()}
    spans = {name: 2 * plan.seconds / sum(span) for name, span in plan.spans.items()}
    return shares | spans

"""The policy of resuming: its bounds, and what a start may spend over all pages of a plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

import sessiondb
from sessiondb.gateway import recovery
from sessiondb.limits import INTERRUPTED_ATTEMPTS_MAX
from tests.support.gateway import held_message

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]

# The least value that each setting takes. The durations may be as short as anyone wants, and
# must be some time.
LEAST = {
    "max_concurrent_resumes": 0,
    "budget_per_start": 0,
    "max_age_hours": 0,
    "idle_hours": 0,
    "attempts_max": 1,
    "deadline_s": 0.001,
    "breaker_unclean_starts": 1,
    "breaker_window_s": 0.001,
}


@pytest.mark.parametrize(("field", "allowed"), LEAST.items(), ids=LEAST)
def test_a_policys_setting_has_bounds_and_stays(field: str, allowed: float) -> None:
    policy = sessiondb.ResumePolicy(**{field: allowed})  # type: ignore[arg-type]
    for refused in (-1, 0 if allowed else -0.001, "soon", None):
        with pytest.raises(ValidationError, match=field):
            sessiondb.ResumePolicy(**{field: refused})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="frozen"):
        setattr(policy, field, allowed)
    with pytest.raises(ValidationError, match="patience"):
        sessiondb.ResumePolicy(patience=1)  # type: ignore[call-arg]


def test_a_start_without_a_policy_has_the_one_that_is_documented() -> None:
    assert sessiondb.ResumePolicy().model_dump() == {
        "max_concurrent_resumes": 1,
        "budget_per_start": 20,
        "max_age_hours": 24.0,
        "idle_hours": 0.0,
        "skip_states": frozenset({"failed", "damaged"}),
        "attempts_max": INTERRUPTED_ATTEMPTS_MAX,
        "deadline_s": 60.0,
        "breaker_unclean_starts": 3,
        "breaker_window_s": 300.0,
    }


@pytest.mark.parametrize("page", [1, 2, 3, 50])
@pytest.mark.parametrize(("budget", "at_once"), [(3, 9), (9, 3), (3, 3)])
async def test_a_plan_spends_its_budget_and_its_room_once_over_all_pages(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, page: int, budget: int, at_once: int
) -> None:
    monkeypatch.setattr(recovery, "PLAN_AT_ONCE", page)
    policy = sessiondb.ResumePolicy(budget_per_start=budget, max_concurrent_resumes=at_once)
    async with sessiondb.open(tmp_db) as db:
        for number in range(5):
            await held_message(db, f"e{number}", f"agent:main:web:{number}")
        planned = [decision.action for decision in await db.plan_resumes(policy)]
        assert planned == ["resume"] * 3 + ["later"] * 2
        assert [decision.action for decision in await db.resume(policy)] == planned
        again = [decision.action for decision in await db.plan_resumes(policy)]
        assert again == ["later"] * 2

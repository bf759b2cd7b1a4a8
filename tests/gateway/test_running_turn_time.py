"""How long a running turn has: its lease, its deadline, its progress, and the settings of these."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from sessiondb.clock import Clock
from sessiondb.errors import InvalidInput, StoreBusy, TurnLost
from sessiondb.gateway import claims, running_turn
from sessiondb.gateway.running_turn import LaneSettings, Turn
from sessiondb.limits import INBOX_ATTEMPTS_MAX, LEASE_GRACE_MS
from sessiondb.timers import SYSTEM

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


def a_turn(*, lease_s: float, timeout_ms: int, progress_ms: int | None = None) -> Turn:
    """Return a turn that only its clocks look at."""
    started = claims.Started(
        turn_no=1,
        session_no=1,
        session_id="s",
        inbox_no=1,
        entry_id="e",
        attempt=1,
        kind="message" if progress_ms is None else "resume",
        expires_at_ms=0,
        deadline_ms=0,
        timeout_ms=timeout_ms,
        progress_ms=progress_ms,
        accepted_at_ms=0,
        edit_of=None,
        notified=False,
        progress=None,
    )
    nothing: Any = None
    db: Any = SimpleNamespace(clock=SYSTEM)
    session: Any = SimpleNamespace(id="s")
    origin = claims.Origin("web", "e1", "main", "agent:main:web:1", "main", {})
    settings = LaneSettings(lease_s=lease_s)
    return Turn(session, {}, started, origin, db, settings, nothing)


@pytest.mark.parametrize(
    ("lease_s", "timeout_ms", "until_s"),
    [(30.0, 600_000, 30.0), (0.5, 600_000, 0.5), (9_000.0, 60_000, 60 + LEASE_GRACE_MS / 1000)],
)
def test_a_turn_is_owned_for_a_lease_and_at_most_until_its_end(
    monkeypatch: pytest.MonkeyPatch, lease_s: float, timeout_ms: int, until_s: float
) -> None:
    now = 1_000.0
    monkeypatch.setattr(running_turn.clock, "monotonic", lambda: now)
    turn = a_turn(lease_s=lease_s, timeout_ms=timeout_ms)
    for moment, owned in ((0.0, True), (until_s - 0.001, True), (until_s, False)):
        now = 1_000.0 + moment
        assert running_turn.is_owned(turn) == owned
    turn._ending = True
    assert running_turn.is_owned(turn), "its end is being written"


async def test_a_resume_is_cut_off_without_progress_and_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun_s = now_s = 1_000.0
    monkeypatch.setattr(running_turn.clock, "monotonic", lambda: now_s)
    turn = a_turn(lease_s=30, timeout_ms=60_000, progress_ms=10_000)
    turn._note_progress()  # before its work has begun
    deadline = turn._begin_time()
    assert deadline.at == begun_s + 10
    for at_s, until_s in ((5, 15), (49, 59), (50, 60), (55, 60)):
        now_s = begun_s + at_s
        turn._note_progress()
        assert deadline.at == begun_s + until_s
    now_s = begun_s + 59
    assert turn._cut_off_reason() == "cut off after 10 s without progress"
    now_s = begun_s + 60
    assert turn._cut_off_reason() == "cut off at its deadline of 60 s"


async def test_a_message_has_its_time_whether_or_not_it_makes_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun_s = now_s = 1_000.0
    monkeypatch.setattr(running_turn.clock, "monotonic", lambda: now_s)
    turn = a_turn(lease_s=30, timeout_ms=90_000)
    deadline = turn._begin_time()
    now_s = begun_s + 50
    turn._note_progress()
    assert deadline.at == begun_s + 90
    assert turn._cut_off_reason() == "cut off at its deadline of 90 s"


@pytest.mark.parametrize(
    ("field", "least"),
    [("lease_s", None), ("timeout_s", None), ("delayed_after_s", None), ("attempts_max", 1)],
)
def test_a_setting_of_a_lane_has_bounds_and_stays(field: str, least: int | None) -> None:
    allowed = least if least is not None else 0.001
    for refused in (-1, allowed - 1 if least is not None else 0, "soon", None):
        with pytest.raises(ValidationError, match=field):
            LaneSettings(**{field: refused})  # type: ignore[arg-type]
    settings = LaneSettings(**{field: allowed})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, field, allowed)
    with pytest.raises(ValidationError, match="patience"):
        LaneSettings(patience=1)  # type: ignore[call-arg]


def test_a_lane_without_settings_has_those_that_are_documented() -> None:
    assert LaneSettings().model_dump() == {
        "lease_s": 30.0,
        "timeout_s": 600.0,
        "delayed_after_s": 10.0,
        "attempts_max": INBOX_ATTEMPTS_MAX,
        "retry_pauses_s": (1.0, 4.0, 16.0, 60.0),
    }


class Over(Exception):
    """The first sleep is over: the rest is not what a test looks at."""


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that are slept. The first sleep raises Over."""
    found: list[float] = []

    async def sleep(seconds: float, *, by: Clock = SYSTEM) -> None:
        found.append(seconds)
        raise Over

    monkeypatch.setattr(running_turn, "sleep", sleep)
    return found


async def test_a_lease_is_renewed_every_third_of_it(slept: list[float]) -> None:
    with pytest.raises(Over):
        await running_turn._keep_lease(a_turn(lease_s=30, timeout_ms=600_000))
    assert slept == [10.0]


@pytest.mark.parametrize(
    ("waited_s", "sleeps_s"), [(0, 10.0), (3, 7.0), (10, 0.0), (60, 0.0), (-86_400, 10.0)]
)
async def test_a_sender_is_notified_so_long_after_the_message_was_accepted(
    monkeypatch: pytest.MonkeyPatch, slept: list[float], waited_s: int, sleeps_s: float
) -> None:
    """However long the message waited for its turn, and however the clock was set back since."""
    monkeypatch.setattr(running_turn.clock, "now_ms", lambda: waited_s * 1000)
    with pytest.raises(Over):
        await running_turn._notify_delay(a_turn(lease_s=30, timeout_ms=600_000))
    assert slept == [sleeps_s]


async def test_a_lease_is_renewed_for_the_length_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int, str | None]] = []

    def renew(tx: Any, turn_no: int, *, lease_ms: int, operation: str | None) -> None:
        asked.append((turn_no, lease_ms, operation))

    class _Db:
        clock = SYSTEM

        async def write(self, op: str, body: Any) -> None:
            body(None)

    monkeypatch.setattr(running_turn.leases, "renew", renew)
    turn = a_turn(lease_s=12.5, timeout_ms=600_000)
    turn._db = _Db()  # type: ignore[assignment]
    await turn.renew("thinking")
    await turn._renew_lease()
    assert asked == [(1, 12_500, "thinking"), (1, 12_500, None)]


async def test_a_notice_is_tried_again_after_errors_that_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    busy, fatal = StoreBusy("the disk is busy", retry_after_ms=1), InvalidInput("no")
    slept: list[float] = []

    class _Db:
        clock = SYSTEM

        def __init__(self, *ends: Exception | None) -> None:
            self.ends = [*ends]

        async def write(self, op: str, body: Any) -> None:
            end = self.ends.pop(0)
            if end is not None:
                raise end

    async def sleep(seconds: float, *, by: Clock = SYSTEM) -> None:
        slept.append(seconds)

    monkeypatch.setattr(running_turn.clock, "now_ms", lambda: 0)
    monkeypatch.setattr(running_turn, "sleep", sleep)
    for ends, pauses in (
        ((busy, busy, None), 2),
        ((busy, fatal), 1),
        ((fatal,), 0),
        ((TurnLost("it has ended", turn_no=1, session_id="s", state="aborted"),), 0),
    ):
        slept.clear()
        turn = a_turn(lease_s=30, timeout_ms=600_000)
        turn._db = db = _Db(*ends)  # type: ignore[assignment]
        await running_turn._notify_delay(turn)
        assert (db.ends, len(slept)) == ([], 1 + pauses)

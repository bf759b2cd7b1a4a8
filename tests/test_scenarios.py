"""What was reported of file-based gateways, done to the reference gateway: one test per public report, a real process each.

The summaries take seconds here where the reports had a minute or more (`openclaw#73204`: 60 s), and what waits for them there is
not allowed to wait at all here, so a longer delay would only make the tests longer. Nothing is timed: what is compared is order,
as the pages, the transcripts and the turns have it.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import sessiondb
import sessiondb.sync
import storm_support
from core_support import query, texts
from gateway_support import ROOT, GatewayProcess, gateway_process  # noqa: F401  # the fixture
from sessiondb import compaction
from sessiondb.compaction import GivenUp

pytestmark = pytest.mark.slow

Start = Callable[..., GatewayProcess]

# Long enough that a summary of a few of them is shorter.
LONG = "We talked about the boiler, the garden fence, who feeds the cat in August, and what the plumber said about all of it. "


def fill(gateway: GatewayProcess, conversation: str, messages: int = 4) -> None:
    """Hold a conversation that is worth summarising."""
    for number in range(messages):
        gateway.ask(f"{LONG} ({number})", conversation)


def compactions_held(gateway: GatewayProcess) -> list[dict[str, Any]]:
    return [held for held in gateway.held() if held["what"] == "compaction"]


def session_id_of(gateway: GatewayProcess, conversation: str) -> str:
    found: str = gateway.get(f"/conversations/{conversation}")["session_id"]
    return found


def check_clean(path: Path) -> None:
    """Check a closed database: every invariant, and nothing held."""
    with sessiondb.sync.open(path, readonly=True) as db:
        report = db.verify()
    assert report.ok, report
    assert query(path, "SELECT what, session_id, operation FROM held") == []


# -- openclaw#73204: messages are lost, or wait in silence, while a session is compacted -------------------------------------


def test_openclaw_73204_messages_sent_during_a_summary_are_accepted_kept_and_answered(gateway_process: Start) -> None:  # noqa: F811
    gateway = gateway_process(model_delay=0.02, summary_delay=6, threshold=1_000_000, keep=50)
    fill(gateway, "alice")
    with gateway.page("alice") as page:
        gateway.command("/compact", conversation="alice")
        page.next("compacting")
        during = [gateway.say(f"sent during the summary, number {number}", conversation="alice")["event_id"] for number in range(10)]
        gateway.wait_for(lambda: gateway.answer_to(during[-1], "alice"))
        done = page.next("compacted")
        assert done["outcome"] == "committed"
        assert done["late"] is False
    told = [(notice["type"], notice.get("event_id")) for notice in page.told]
    for event_id in during:
        assert told.index(("accepted", event_id)) < told.index(("reply", event_id)) < told.index(("compacted", None))

    said = gateway.said("alice")
    assert [item["event_id"] for item in said if item["event_id"] in during] == during, "each is in the transcript once, in order"
    assert [item["answers"] for item in said if item["answers"] in during] == during
    gateway.stop()
    # ... and in what the model is sent now, behind the summary: an entry above the cut stays by definition.
    with sessiondb.sync.open(gateway.database, readonly=True) as db:
        context = texts(db.session("agent:main:web:direct:alice").context())
    assert context[0].startswith("<")
    assert [text for text in context if text.startswith("sent during")] == [f"sent during the summary, number {n}" for n in range(10)]
    check_clean(gateway.database)


def test_openclaw_73204_who_waits_is_told_and_a_turn_without_an_answer_is_recorded_and_reported(gateway_process: Start) -> None:  # noqa: F811
    gateway = gateway_process(model_delay=0.02, delayed_after=0.3)
    with gateway.page("alice") as page:
        gateway.say("!slow 2 think about it", conversation="alice")
        behind = gateway.say("and this?", conversation="alice")
        delayed = page.next("notice", event="message_delayed")
        assert delayed["inbox_no"] == behind["inbox_no"]
        page.next("reply", event_id=behind["event_id"])
        empty = gateway.say("!empty", conversation="alice")
        told = page.next("notice", event="turn_incomplete")
        assert "ask again" in told["text"]
    gateway.stop()
    assert query(gateway.database, "SELECT inbox_no, incomplete, reason FROM turn ORDER BY turn_no")[-1] == (
        empty["inbox_no"],
        1,
        "the model answered with nothing",
    )
    assert query(gateway.database, "SELECT count(*) FROM outbox WHERE turn_no = (SELECT max(turn_no) FROM turn)") == [0]
    check_clean(gateway.database)


# -- openclaw#84193: a compaction that ends badly takes the session with it until a restart ----------------------------------


@pytest.mark.parametrize(
    ("how", "focus", "state"),
    [
        ("times out", "!slow 60", "expired"),
        ("hangs", "!hang", "expired"),
        ("raises", "!fail", "failed"),
        ("is cancelled", "!hang", "cancelled"),
    ],
)
def test_openclaw_84193_after_a_compaction_that(gateway_process: Start, how: str, focus: str, state: str) -> None:  # noqa: F811
    """... times out, hangs, raises or is cancelled, the next turn starts without waiting, and no restart is needed."""
    gateway = gateway_process(model_delay=0.02, summary_delay=2, threshold=1_000_000, keep=50, compaction_timeout=4, late=0.1)
    fill(gateway, "alice")
    session_id = session_id_of(gateway, "alice")
    with gateway.page("alice") as page:
        gateway.command(f"/compact {focus}", conversation="alice")
        page.next("compacting")
        (held,) = compactions_held(gateway)
        assert (held["session_id"], held["operation"], held["pid"], held["alive"]) == (session_id, "manual", gateway.pid, True)
        assert "manual" in gateway.command("/status", conversation="alice"), "/status names the operation, too"
        during = gateway.say("said while it goes on", conversation="alice")["event_id"]
        page.next("reply", event_id=during)
        if state == "cancelled":
            gateway.command("/stop", conversation="alice")
        ended = page.next("compacted")
        assert (ended["outcome"], ended["text"] != "") == (state, True), how
        assert [notice["type"] for notice in page.told].index("reply") < [notice["type"] for notice in page.told].index("compacted")

        after = gateway.say("said after it", conversation="alice")["event_id"]
        page.next("reply", event_id=after)
        assert compactions_held(gateway) == []
        gateway.wait_for(lambda: notices(gateway, session_id)["compaction_failed"])
        gateway.command("/compact !slow 0.1", conversation="alice")
        page.next("compacted", outcome="committed")
    pid = gateway.pid
    assert gateway.get("/health")["pid"] == pid, "the same process, from the first message to the last"
    gateway.stop()
    assert query(gateway.database, "SELECT state FROM compaction ORDER BY compaction_no") == [state, "committed"]
    assert query(gateway.database, "SELECT count(*) FROM turn WHERE state <> 'completed'") == [0]
    check_clean(gateway.database)


def notices(gateway: GatewayProcess, session_id: str) -> Counter[str]:
    """Count the events of a session that are for its user."""
    return Counter(query(gateway.database, "SELECT kind FROM event_log WHERE audience = 'user' AND session_id = ?", session_id))


# -- openclaw#45505: late success leaves the session row, the counters, the tokens and the transcript disagreeing -----------


def test_openclaw_45505_a_summary_that_comes_after_the_run_has_moved_on_counts_once(gateway_process: Start) -> None:  # noqa: F811
    gateway = gateway_process(model_delay=0.02, summary_delay=5, threshold=1_000_000, keep=50, compaction_timeout=1)
    fill(gateway, "alice")
    session_id = session_id_of(gateway, "alice")
    with gateway.page("alice") as page, status_is_never_a_mixture(gateway, "alice"):
        gateway.command("/compact", conversation="alice")
        page.next("compacted", outcome="expired")
        moved_on = [gateway.say(f"said after it was given up, number {number}", conversation="alice")["event_id"] for number in range(3)]
        page.next("reply", event_id=moved_on[-1])
        late = page.next("compacted", trigger="late")
        assert (late["outcome"], late["late"]) == ("committed", True)
        page.next("notice", event="compaction_late")

        # The same signals again, in another order, and from another process: none of them changes anything.
        (compaction_id,) = query(gateway.database, "SELECT compaction_id FROM compaction")
        before = surfaces(gateway.database, session_id)
        with sessiondb.sync.open(gateway.database) as other:
            results = [other.commit_compaction(compaction_id, summary) for summary in ("once more", "and another one", "")]
            assert {(result.outcome, result.late, result.epoch) for result in results} == {("committed", True, 1)}
            assert [other.fail_compaction(compaction_id, "too late", state=state) for state in ("expired", "cancelled")] == [False, False]
        assert surfaces(gateway.database, session_id) == before

        # And the next one is an ordinary one.
        gateway.command("/compact !slow 0.1", conversation="alice")
        page.next("compacted", outcome="committed", late=False)
    assert "Compactions: 2 · epoch 2" in gateway.command("/status", conversation="alice")
    gateway.stop()
    agree(gateway.database, session_id, committed=2)
    check_clean(gateway.database)


@contextmanager
def status_is_never_a_mixture(gateway: GatewayProcess, conversation: str) -> Iterator[None]:
    """Read /status all the while: its count of compactions and its epoch come from different rows, and always agree."""
    seen: Counter[tuple[int, int]] = Counter()
    over = threading.Event()

    def look() -> None:
        reader = GatewayProcess(gateway.database)
        reader.url = gateway.url
        while not over.is_set():
            line = next(line for line in reader.command("/status", conversation=conversation).splitlines() if "Compactions" in line)
            numbers = [int(word) for word in line.split() if word.isdigit()]
            seen[numbers[0], numbers[1]] += 1
        reader.http.close()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert all(compactions == epoch for compactions, epoch in seen), seen
    assert len(seen) > 1, f"it was not looked at before and after: {seen}"


def surfaces(path: Path, session_id: str) -> dict[str, Any]:
    """Read everything that says something about a session's compactions."""
    with sessiondb.sync.open(path, readonly=True) as db:
        session = db.session_by_id(session_id)
        info, context = session.info(), session.context()
        return {
            "session": (info.epoch, info.compactions, info.context_tokens),
            "context": (texts(context), context.tokens),
            "epochs": [(epoch.epoch, epoch.reason) for epoch in session.epochs()],
            "entries": [entry.entry_id for entry in session.arrivals(limit=1_000) if entry.type == "compaction"],
            "jobs": Counter((job.state, job.late) for job in db.compactions(session)),
            "tokens": [job.tokens_after for job in db.compactions(session)],
            "events": Counter(query(path, "SELECT kind FROM event_log WHERE session_id = ? AND audience = 'operator'", session_id)),
        }


def agree(path: Path, session_id: str, *, committed: int) -> dict[str, Any]:
    """Check that session row, epochs, transcript, jobs, tokens and events tell one story; return it."""
    found = surfaces(path, session_id)
    epoch, compactions, tokens = found["session"]
    assert epoch == compactions == committed == len(found["entries"])
    assert tokens == found["context"][1]
    assert [reason for _, reason in found["epochs"]] == ["start", *["compaction"] * committed]
    assert sum(count for (state, _), count in found["jobs"].items() if state == "committed") == committed
    assert found["events"]["compaction_committed"] + found["events"]["compaction_late"] == committed
    assert found["events"]["compaction_started"] == found["jobs"].total()
    return found


def test_openclaw_45505_every_order_of_the_signals_ends_in_the_same_state(tmp_path: Path) -> None:
    """Two jobs, and the success and the failure of each, in every order in which they can arrive; each arrives twice."""
    path = tmp_path / "gateway.db"
    outcomes: set[tuple[str, bool]] = set()
    orders = list(itertools.permutations([("first", "commit"), ("first", "expired"), ("second", "commit"), ("second", "failed")]))

    async def signals() -> dict[str, tuple[list[int], int]]:
        told: dict[str, tuple[list[int], int]] = {}
        async with sessiondb.open(path) as db:
            for number, order in enumerate(orders):
                session = await db.create_session(f"order-{number}")
                jobs: dict[str, str] = {}
                committed: set[str] = set()
                epochs = []

                async def begin(name: str, session: sessiondb.Session = session, jobs: dict[str, str] = jobs) -> None:
                    for text in (LONG, LONG, LONG, LONG, "a short end"):
                        await session.append({"role": "user", "content": text})
                        await session.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
                    job = await db.write(
                        "begin",
                        lambda tx: compaction.begin(
                            tx, session.ref.session_no, trigger="manual", keep_recent_tokens=20, timeout_ms=60_000
                        ),
                    )
                    jobs[name] = job.compaction_id

                await begin("first")
                for name, signal in [signal for signal in order for _ in range(2)]:
                    if name not in jobs:
                        # The second one begins when its first signal is due; the first one's run has moved on by then.
                        await db.fail_compaction(jobs["first"], "its run has moved on", state="cancelled")
                        await begin(name)
                    if signal == "commit":
                        result = await db.commit_compaction(jobs[name], f"They talked ({name}).")
                        outcomes.add((result.outcome, result.late))
                        if result.outcome == "committed":
                            committed.add(name)
                    else:
                        state: GivenUp = "expired" if signal == "expired" else "failed"
                        await db.fail_compaction(jobs[name], "a signal", state=state)
                    info = await session.info()
                    assert info.epoch == info.compactions == len(committed), order
                    epochs.append(info.epoch)
                told[session.id] = epochs, len(committed)
        return told

    for session_id, (epochs, committed) in anyio.run(signals).items():
        assert epochs == sorted(epochs), "counters only grow"
        found = agree(path, session_id, committed=committed)
        assert "(second)" in found["context"][0][0], "the summary that covers more is the one that counts"
    assert outcomes == {("committed", False), ("committed", True), ("superseded", False)}
    check_clean(path)


# -- background maintenance keeps the lock while users wait ------------------------------------------------------------------

KEYS = ["agent:main:web:direct:alice", "agent:main:web:direct:bob"]


def test_background_maintenance_never_keeps_a_turn_waiting_and_killed_half_way_leaves_nothing_held(
    gateway_process: Start,  # noqa: F811
    tmp_path: Path,
) -> None:
    gateway = gateway_process(model_delay=0.0, summary_delay=0.2, threshold=200, keep=50)
    folder = tmp_path / "sessions"
    folder.mkdir()
    gateway.ask("hello", "alice")
    gateway.ask("hello", "bob")
    maintenance = subprocess.Popen(

        [sys.executable, str(ROOT / "tests" / "maintenance_child.py"), str(gateway.database), str(folder), *KEYS],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,

    )
    assert maintenance.stdout is not None
    try:
        asked = 0
        rounds = [maintenance.stdout.readline().strip()]
        over = threading.Event()

        def follow() -> None:
            assert maintenance.stdout is not None
            while len(rounds) < 3 and (line := maintenance.stdout.readline()):
                rounds.append(line.strip())
            over.set()

        follower = threading.Thread(target=follow)
        follower.start()
        while not over.is_set() or asked < 20:  # automatic compactions go on, too
            asked += 1
            gateway.ask(f"{LONG} ({asked})", ("alice", "bob")[asked % 2])
        follower.join()
    finally:
        maintenance.kill()  # wherever it is
        maintenance.wait()
        maintenance.stdout.close()
    assert rounds == ["1", "2", "3"], "the maintenance went on all the while"

    gateway.ask("are you still there?", "alice")
    gateway.wait_for(lambda: [held for held in gateway.held() if held["pid"] == maintenance.pid] == [])
    said = gateway.said("alice") + gateway.said("bob")
    assert sum(item["what"] == "user" for item in said) == sum(item["what"] == "assistant" for item in said) == asked + 3
    log = gateway.wrote()
    assert "busy" not in log
    gateway.stop()
    assert query(gateway.database, "SELECT count(*) FROM turn WHERE state <> 'completed' OR attempt > 1") == [0]
    assert query(gateway.database, "SELECT count(*) FROM event WHERE kind = 'message_delayed'") == [0]
    assert query(gateway.database, "SELECT count(*) FROM compaction WHERE state = 'committed'")[0] > 0
    assert query(gateway.database, "SELECT count(*) FROM archive WHERE state = 'archived'")[0] > 0, "retention was at work"
    check_clean(gateway.database)


# -- openclaw#44687: after a restart every stale session resumes at once, and users starve ----------------------------------

STORM = storm_support.Storm()


@pytest.mark.parametrize("sessions", [STORM.sessions, 100_000])
def test_openclaw_44687_a_restart_serves_users_first_and_resumes_within_its_budget(
    gateway_process: Start,  # noqa: F811
    tmp_path: Path,
    sessions: int,
) -> None:
    storm = storm_support.Storm(sessions=sessions, bindings=sessions + 10)
    storm_support.build(tmp_path / "gateway.db", storm)
    gateway = gateway_process(model_delay=0.02, resume_timeout=1.5, resume_budget=4, resumes=1, care_every=0.1, threshold=1_000_000)
    # It serves. (That it does so whatever has accumulated is a ratio, in the benchmarks.)
    new = gateway.say("somebody new", channel="sim", conversation="new")["inbox_no"]
    status = gateway.status()
    recovered = status["recovered"]
    assert (recovered["instances"], recovered["turns"]) == (1, storm.interrupted)

    # Every decision of the start has its reason.
    reasons = Counter((decision["action"], decision["reason"].split(" h ago")[0].rstrip("0123456789.")) for decision in status["decisions"])
    assert reasons["skip", "accepted "] == storm.old
    assert reasons["skip", "its session has ended"] == storm.ended
    skipped = sum(count for (action, _), count in reasons.items() if action == "skip")
    assert skipped == storm.old + storm.ended + storm.failed + storm.damaged
    assert [decision["action"] for decision in status["decisions"]].count("resume") == 1, "one at a time"
    assert sum(count for (action, _), count in reasons.items() if action == "later") == storm.recent - 1

    def ended(kind: str) -> int:
        found: int = query(gateway.database, "SELECT count(*) FROM turn WHERE kind = ? AND state <> 'running' AND instance_no > 2", kind)[0]
        return found

    gateway.wait_for(lambda: ended("resume") == 4)
    gateway.wait_for(lambda: ended("message") == storm.waiting + 1)
    later = gateway.say("somebody later", channel="sim", conversation="later")["event_id"]
    gateway.wait_for(lambda: gateway.answer_to(later, "later", channel="sim"))
    gateway.stop()

    order = query(gateway.database, "SELECT kind, inbox_no, state, reason FROM turn WHERE instance_no > 2 ORDER BY turn_no")
    first_resume = [kind for kind, *_ in order].index("resume")
    before = {inbox_no for _, inbox_no, *_ in order[:first_resume]}
    waited = set(query(gateway.database, "SELECT inbox_no FROM inbox WHERE event_id LIKE 'waiting %'"))
    assert waited <= before, "who had been waiting was served before anything was resumed"
    assert new in {inbox_no for _, inbox_no, *_ in order}
    resumes = [(inbox_no, state, reason) for kind, inbox_no, state, reason in order if kind == "resume"]
    assert len(resumes) == 4, "the budget of this start, whatever is left"
    assert [inbox_no for inbox_no, *_ in resumes] == sorted((inbox_no for inbox_no, *_ in resumes), reverse=True), "newest first"
    # The newest never answers. It is cut off, its user is told, and the others have their turn.
    assert resumes[0][1] == "failed"
    assert "deadline" in resumes[0][2]
    assert {state for _, state, _ in resumes[1:]} == {"completed"}
    dead = query(gateway.database, "SELECT count(*) FROM inbox WHERE state = 'dead'")[0]
    assert dead == storm.old + storm.used_up + storm.ended + storm.failed + storm.damaged + storm.hanging
    told = query(gateway.database, "SELECT count(*) FROM event WHERE kind = 'message_dead' AND audience = 'user'")[0]
    assert told == dead, "everybody whose message was given up is told"
    assert query(gateway.database, "SELECT count(*) FROM inbox WHERE state = 'held'") == [storm.recent - 4]
    assert query(gateway.database, "SELECT what FROM held") == []

"""The synchronous façade: the asynchronous one's results, from any thread, with interrupts."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import sessiondb
from sessiondb import database, sync, threads
from sessiondb.gateway import dead_letters
from sessiondb.limits import THREADS_MAX
from sessiondb.sync import _iterate
from tests.support.core import query, reply, user
from tests.support.engine import PATIENCE_S, other_process

KEY = "agent:main:discord:channel:1"


def talk(session: sync.Session, rounds: int = 20) -> None:
    for number in range(rounds):
        session.append({"role": "user", "content": f"question {number} " * 20})
        session.append(
            {"role": "assistant", "content": [{"type": "text", "text": f"answer {number} " * 20}]}
        )


# -- the same API ---------------------------------------------------------------------------


PAIRS = [
    (database.SessionDB, sync.SessionDB),
    (sessiondb.Session, sync.Session),
    (sessiondb.CompactionJob, sync.CompactionJob),
    (sessiondb.Batch, sync.Batch),
    (sessiondb.Turn, sync.Turn),
]
# A transaction on the event loop (scripts have db.read and db.write), and opening without a loop.
ASYNC_ONLY = {
    "SessionDB.backend",
    "SessionDB.change_session",
    "SessionDB.close_now",
    "SessionDB.open_now",
    "SessionDB.unsigned",
}


def public(cls: type) -> set[str]:
    """Return the public names of a class, annotations included."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("sessiondb")]
    return {
        name
        for base in ours
        for name in (*vars(base), *inspect.get_annotations(base))
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS)
def test_every_public_name_has_its_counterpart(asynchronous: type, synchronous: type) -> None:
    missing = {
        name
        for name in public(asynchronous) - public(synchronous)
        if f"{asynchronous.__name__}.{name}" not in ASYNC_ONLY
    }
    attributes = {
        "SessionDB": {"path"},
        "Session": {"db", "ref"},
        "CompactionJob": {"session", "result"},
        "Batch": set(),
        "Turn": set(),
    }[asynchronous.__name__]
    assert missing == set()
    assert public(synchronous) - public(asynchronous) <= attributes


@pytest.mark.parametrize(("asynchronous", "synchronous"), PAIRS)
def test_every_method_mirrors_the_signature_of_its_counterpart(
    asynchronous: type, synchronous: type
) -> None:
    compared = 0
    for name in public(asynchronous) & public(synchronous):
        theirs, ours = getattr(asynchronous, name, None), getattr(synchronous, name)
        if not inspect.isfunction(theirs):
            continue
        assert (
            inspect.signature(ours, follow_wrapped=True).parameters.keys()
            == inspect.signature(theirs).parameters.keys()
        ), name
        for written_by_hand in [inspect.signature(ours, follow_wrapped=False)]:
            names = [
                parameter
                for parameter in written_by_hand.parameters
                if parameter not in ("args", "kwargs")
            ]
            assert names == ["self"] or names == list(inspect.signature(theirs).parameters), name
            for parameter, default in (
                (p.name, p.default)
                for p in written_by_hand.parameters.values()
                if p.default is not p.empty
            ):
                assert inspect.signature(theirs).parameters[parameter].default == default, name
        if theirs.__doc__:
            assert ours.__doc__ is not None, name
            assert ours.__doc__.splitlines()[0] == theirs.__doc__.splitlines()[0], name
        compared += 1
    assert compared >= 3


def test_no_call_returns_a_coroutine_or_an_asynchronous_object(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        talk(session)
        fork = session.fork()
        with session.compact(keep_recent_tokens=100) as job:
            results = [job.commit("summary"), job.id, job.messages, job.as_json()]
        results += [
            session,
            fork,
            db.session_by_id(session.id),
            session.info(),
            session.context(),
            session.entries(),
            session.entries(last=20),
        ]
        results += [
            session.all_entries(),
            session.epochs(),
            session.undo_compaction(),
            db.stats(),
            db.status(),
            db.verify(session),
        ]
        results += [
            *db.sessions(),
            *db.compactions(session),
            db.read("test", lambda tx: tx.all("status.compactions")),
        ]
    assert [
        type(result)
        for result in results
        if inspect.isawaitable(result) or inspect.isasyncgen(result)
    ] == []
    assert {type(one) for one in results if isinstance(one, (sync.Session, sessiondb.Session))} == {
        sync.Session
    }


# -- what it does ---------------------------------------------------------------------------


def test_a_script_appends_reads_compacts_and_undoes(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        talk(session)
        with session.compact(trigger="manual", keep_recent_tokens=200) as job:
            session.append({"role": "user", "content": "meanwhile"})
            assert job.messages[0]["role"] == "user"
            result = job.commit("what was said")
        assert (result.outcome, result.epoch, job.result) == ("committed", 1, result)
        context = session.context()
        assert context.messages[0]["summary"] == "what was said"
        assert context.messages[-1]["content"] == "meanwhile"
        assert session.undo_compaction() == 2
        assert len(session.context().messages) == 41
        db.bind("agent:main:discord:channel:2", session)
        assert db.session("agent:main:discord:channel:2").id == session.id
        assert [info.session_id for info in db.sessions()] == [session.id]
        assert [info.state for info in db.compactions(session)] == ["committed"]
        assert db.unbind(KEY) is True
    with sync.open(tmp_db, readonly=True) as db:
        assert db.session_by_id(session.id).info().entries == session_entries(tmp_db)


def session_entries(path: Path) -> int:
    with sync.open(path, readonly=True) as db:
        return sum(info.entries for info in db.sessions())


def test_a_file_is_imported_and_exported(tmp_db: Path, tmp_path: Path, sample: Path) -> None:
    transcript = next(path for path in sorted(sample.rglob("*.jsonl")) if path.stat().st_size)
    with sync.open(tmp_db) as db:
        report = db.import_path(transcript)
        session = db.session_by_id(report.files[0].session_id or "")
        written = db.export(tmp_path / "out", session=session)
    assert report.ok
    assert [Path(file.path).read_bytes() for file in written.files if file.session_id] == [
        transcript.read_bytes()
    ]


def test_errors_are_those_of_the_asynchronous_api(tmp_db: Path) -> None:
    with pytest.raises(sessiondb.OpenError):
        sync.open(tmp_db, create=False).__enter__()
    with sync.open(tmp_db) as db:
        with pytest.raises(sessiondb.NotFound):
            db.session_by_id("nobody")
        with pytest.raises(sessiondb.InvalidInput):
            db.session(KEY).append("[]")
        with pytest.raises(sessiondb.InvalidInput):
            db.session(KEY).compact(timeout_s=0)
        with pytest.raises(sessiondb.NothingToCompact), db.session(KEY).compact():
            raise AssertionError("the block is not entered")
        assert db.session(KEY).append({"role": "user", "content": "fine"}).seq == 1


def test_many_threads_share_one_database(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db, ThreadPoolExecutor(8) as pool:
        session = db.session(KEY)
        receipts = list(
            pool.map(lambda n: session.append({"role": "user", "content": str(n)}), range(100))
        )
        assert {receipt.seq for receipt in receipts} == set(range(1, 101))
        assert len(session.context().messages) == 100


def test_two_databases_are_open_at_once(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as a, sync.open(tmp_path / "b.db") as b:
        a.session(KEY).append({"role": "user", "content": "a"})
        assert b.session(KEY).context().messages == []


def test_a_database_that_is_closed_or_not_open_says_so(tmp_db: Path) -> None:
    db = sync.open(tmp_db)
    with pytest.raises(sessiondb.StoreClosed, match="not open"):
        db.session(KEY)
    with db:
        session = db.session(KEY)
        infos = db.sessions()
        next(infos)
        with pytest.raises(sessiondb.InvalidInput, match="open already"):
            db.__enter__()
        assert session.info().entries == 0  # the second attempt did no harm
    db.close()
    with pytest.raises(sessiondb.StoreClosed):
        session.append({"role": "user", "content": "too late"})
    infos.close()  # an iterator that outlives its database ends quietly
    with sync.open(tmp_db) as again:
        assert again.session_by_id(session.id).id == session.id


def test_an_iterator_that_is_left_early_leaves_nothing_behind(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        for number in range(3):
            db.session(f"agent:main:discord:channel:{number}")
        for _ in db.sessions():
            break
        assert len(list(db.sessions())) == 3


def test_a_forks_child_is_refused_and_the_parent_goes_on(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        child = os.fork()
        if child == 0:
            # No exception may leave the child: it would run the parent's tests a second
            # time.
            code = 1
            try:
                session.append({"role": "user", "content": "child"})
            except sessiondb.StoreClosed as error:
                code = 0 if "fork" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert session.append({"role": "user", "content": "parent"}).seq == 1


# -- compaction -----------------------------------------------------------------------------


def test_a_block_that_raises_fails_the_job_with_its_own_error(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        talk(session)
        boom = RuntimeError("the model is down")
        with pytest.raises(RuntimeError) as caught, session.compact(keep_recent_tokens=100):
            raise boom
        assert caught.value is boom
        [job] = db.compactions(session)
        assert (job.state, job.reason) == ("failed", "RuntimeError: the model is down")
        with session.compact(keep_recent_tokens=100) as again:
            assert again.commit("now").outcome == "committed"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupted_block_fails_the_job_and_the_loop_lives(
    tmp_db: Path, error: type[BaseException]
) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        talk(session)
        with pytest.raises(error), session.compact(keep_recent_tokens=100):
            raise error
        assert [job.state for job in db.compactions(session)] == ["failed"]
        assert session.append({"role": "user", "content": "on we go"}).epoch == 0


def test_a_block_left_without_a_commit_fails_the_job(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        talk(session)
        with session.compact(keep_recent_tokens=100) as job:
            pass
        assert job.result is None
        assert [info.state for info in db.compactions(session)] == ["failed"]


def wait_until_expired(db: sync.SessionDB, session: sync.Session) -> None:
    """Wait for the deadline to end the job, which then stays ended."""
    while next(info.state for info in db.compactions(session)) == "running":
        threading.Event().wait(0.005)


def test_at_its_deadline_a_job_is_given_up_inside_the_block(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        talk(session)
        with (
            pytest.raises(sessiondb.CompactionTimeout),
            session.compact(keep_recent_tokens=100, timeout_s=0.05),
        ):
            wait_until_expired(db, session)
        assert [info.state for info in db.compactions(session)] == ["expired"]


def test_a_commit_after_the_deadline_is_late_and_counts(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        talk(session)
        with session.compact(keep_recent_tokens=100, timeout_s=0.05) as job:
            wait_until_expired(db, session)
            result = job.commit("late")
        assert (result.outcome, result.late) == ("committed", True)


# -- Ctrl-C ---------------------------------------------------------------------------------


class Interrupted(Exception):
    """Raised by the signal handler of a test."""


@pytest.fixture
def interruptible() -> object:
    """Make SIGUSR1 raise in the main thread, as SIGINT does."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_an_interrupt_of_a_running_write_has_its_outcome(
    tmp_db: Path, interruptible: object
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def body(tx: object) -> str:
        began.set()
        assert go_on.wait(30)
        return "stored"

    def interrupt() -> None:
        assert began.wait(30)
        os.kill(os.getpid(), signal.SIGUSR1)
        go_on.set()

    with sync.open(tmp_db) as db:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(Interrupted) as caught:
            db.write("test", body)
        thread.join()
        assert sessiondb.outcome_of(caught.value) == "committed"
        assert db.session(KEY).append({"role": "user", "content": "on we go"}).seq == 1


@pytest.fixture(params=["before it is handed over", "while the loop takes it"])
def interrupted_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], bool]:
    """Return a function that has the next call interrupted while it is handed to the loop.

    It returns whether the call got there.
    """
    hand_over = sync._Thread.begin
    armed: list[bool] = []
    comes = request.param == "while the loop takes it"

    def interrupt(self: sync._Thread, *args: Any, **kwargs: Any) -> Any:
        if not armed:
            return hand_over(self, *args, **kwargs)
        armed.clear()
        if comes:
            hand_over(self, *args, **kwargs)
        raise Interrupted

    monkeypatch.setattr(sync._Thread, "begin", interrupt)

    def arm() -> bool:
        armed.append(True)
        return comes

    return arm


def test_an_interrupt_of_a_call_on_its_way_has_its_outcome(
    tmp_db: Path, interrupted_once: Callable[[], bool]
) -> None:
    """Such a call used to go on unobserved, neither cancelled nor reported."""
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        comes = interrupted_once()
        with pytest.raises(Interrupted) as caught:
            session.append({"role": "user", "content": "stored or not"})
        outcome = sessiondb.outcome_of(caught.value)
        assert outcome in (("committed", "not_executed") if comes else ("not_executed",))
        assert len(session.context().messages) == (outcome == "committed")


def test_an_interrupt_of_a_block_on_its_way_fails_its_job(
    tmp_db: Path, interrupted_once: Callable[[], bool]
) -> None:
    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        talk(session)
        job = session.compact(keep_recent_tokens=100)
        comes = interrupted_once()
        with pytest.raises(Interrupted), job:
            raise AssertionError("not reached")
        states = [info.state for info in db.compactions(session)]
        assert states in ([], ["failed"] if comes else []), "it began, and ended, or never came"
        with session.compact(keep_recent_tokens=100) as again:
            assert again.commit("nothing is left behind").outcome == "committed"


def call_on_the_loop(db: sync.SessionDB, function: Callable[[], object]) -> None:
    """Call a function on the thread of a database's event loop."""

    async def call() -> None:
        function()

    db._loop.call(call)


def test_a_callback_that_calls_its_database_is_an_error(
    tmp_db: Path,
) -> None:
    with sync.open(tmp_db) as db, pytest.raises(sessiondb.InvalidInput, match="callback is over"):
        call_on_the_loop(db, db.status)


def test_an_interrupt_of_a_queued_write_leaves_it_unexecuted(
    tmp_db: Path, interruptible: object
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(tx: object) -> None:
        began.set()
        assert go_on.wait(30)

    with sync.open(tmp_db) as db:
        session = db.session(KEY)
        blocker = threading.Thread(target=lambda: db.write("slow", slow))
        blocker.start()
        assert began.wait(30)

        def interrupt() -> None:
            # Once the append is in the queue behind the slow one, and not before.
            while db.stats()["writer"]["queue_items"] == 0:
                threading.Event().wait(0.002)
            os.kill(os.getpid(), signal.SIGUSR1)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(Interrupted) as caught:
            session.append({"role": "user", "content": "never"})
        thread.join()
        go_on.set()
        blocker.join()
        assert sessiondb.outcome_of(caught.value) == "not_executed"
        assert session.context().messages == []


# -- a gateway's calls ----------------------------------------------------------------------


@pytest.mark.parametrize("on_the_loop", [True, False])
def test_an_iterator_collected_on_another_thread_is_closed(tmp_db: Path, on_the_loop: bool) -> None:
    """The collector runs on any thread.

    On the loop's own, a call that waits for the loop would fail, or wait for ever.
    """
    closed = threading.Event()

    async def items() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            await anyio.lowlevel.checkpoint()  # closing one may take more than a step
            closed.set()

    with sync.open(tmp_db) as db:
        abandoned = [_iterate(db._loop, items)]
        assert next(abandoned[0]) == 1
        if on_the_loop:
            call_on_the_loop(db, abandoned.clear)
        else:
            with ThreadPoolExecutor(1) as other:
                other.submit(abandoned.clear).result(timeout=10)
        assert closed.wait(timeout=10)


def test_an_iterator_is_closed_when_the_loop_over_it_ends(
    tmp_db: Path,
) -> None:
    closed = threading.Event()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(0.05)
            closed.set()

    with sync.open(tmp_db) as db:
        for _ in _iterate(db._loop, items):
            break
        assert closed.is_set()


def test_a_script_uses_the_calls_of_a_gateway(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        first = db.accept(KEY, {"role": "user", "content": "hello"}, channel="cron", event_id="1")
        assert (first.state, first.duplicate) == ("queued", False)
        assert db.accept(
            KEY, {"role": "user", "content": "hello"}, channel="cron", event_id="1"
        ).duplicate
        db.set_lane("slow", concurrency=1, priority=5)
        assert (
            db.accept(
                KEY, {"role": "user", "content": "again"}, channel="cron", event_id="2", lane="slow"
            ).ahead
            == 1
        )
        db.write("refuse", lambda tx: dead_letters.refuse(tx, first.inbox_no, 1, "nobody is here"))
        [letter] = db.dead_letters()
        assert (letter.inbox_no, letter.reason) == (first.inbox_no, "nobody is here")
        events = db.events("script", from_start=True)
        assert [(event.kind, event.audience) for event in itertools.islice(events, 3)] == [
            ("lane_changed", "operator"),
            ("message_dead", "user"),
            ("message_dead", "operator"),
        ]
        events.close()
        assert next(db.events("script")).kind == "message_dead", (
            "an event is handled when the next is asked for"
        )
        db.requeue(first.inbox_no)
        db.write("refuse", lambda tx: dead_letters.refuse(tx, first.inbox_no, 1, "still nobody"))
        db.drop(first.inbox_no)
        assert (
            list(db.dead_letters())
            == list(db.replies("unknown"))
            == db.held()
            == db.plan_resumes()
            == db.resume()
            == []
        )
        assert db.recover() == sessiondb.Recovered()
        for call in (lambda: db.settle_reply(1, "sent"), lambda: db.abort_turn(1, "stop")):
            with pytest.raises(sessiondb.NotFound):
                call()
        assert db.verify().ok


# -- a gateway of plain functions -------------------------------------------------------------


def served(*loops: Callable[[], None]) -> list[threading.Thread]:
    """Run loops in threads of their own. A test joins them with `ended`."""
    running = [threading.Thread(target=loop, daemon=True) for loop in loops]
    for thread in running:
        thread.start()
    return running


def ended(running: list[threading.Thread]) -> bool:
    for thread in running:
        thread.join(PATIENCE_S)
    return not any(thread.is_alive() for thread in running)


def accept(db: sync.SessionDB, *texts: str, lane: str = "main") -> None:
    """Accept messages, each in a conversation of its own."""
    for text in texts:
        db.accept(f"agent:main:web:{text}", user(text), channel="web", event_id=text, lane=lane)


def states(path: Path) -> dict[str, str]:
    rows = query(path, "SELECT event_id, state FROM inbox WHERE channel = 'web'")
    return dict(rows)


def test_a_program_of_plain_functions_is_a_gateway_and_drains(tmp_db: Path) -> None:
    sent: list[tuple[str, str]] = []
    all_sent = threading.Event()

    def answer(turn: sync.Turn) -> sessiondb.Answer:
        assert threading.current_thread().name == "sessiondb-worker"
        text = turn.message["content"]
        assert text in str(turn.session.context().messages[-1])
        if text == "second" and turn.attempt == 1:
            turn.progress({"message_id": 7})
            raise RuntimeError("no luck")
        turn.renew("thinking")
        turn.append(reply(f"noted {turn.previous}"))
        return sessiondb.Answer(
            entries=[reply(f"re {text}")], replies=[(f"web:{text}", {"text": f"re {text}"})]
        )

    def send(outgoing: sessiondb.Reply) -> str | None:
        sent.append((outgoing.target, json.loads(outgoing.payload)["text"]))
        if len(sent) == 1:
            raise sessiondb.RefusedBySender("once more")
        if len(sent) == 3:
            all_sent.set()
        return "a receipt"

    with sync.open(tmp_db) as db, sync.open(tmp_db) as other:
        settings = sessiondb.LaneSettings(retry_pauses_s=(0.01,))
        running = served(
            lambda: db.run_lane("main", answer, settings=settings),
            lambda: db.run_lane("resume", answer),
            lambda: db.run_outbox(send, retry_pauses_s=(0.01,)),
            db.run_recovery,
        )
        accept(other, "first", "second")
        assert all_sent.wait(PATIENCE_S)
        assert db.drain(timeout_s=PATIENCE_S).complete
        assert ended(running)
        assert set(sent) == {("web:first", "re first"), ("web:second", "re second")}
        second = other.session("agent:main:web:second").context().messages
        assert "noted {'message_id': 7}" in str(second)
        assert states(tmp_db) == {"first": "done", "second": "done"}
        assert other.verify().ok


def test_more_handlers_than_the_library_has_threads_call_it_at_once(tmp_db: Path) -> None:
    count = THREADS_MAX + 8
    all_in, all_out = threading.Barrier(count + 1), threading.Barrier(count + 1)

    def answer(turn: sync.Turn) -> sessiondb.Answer:
        all_in.wait(PATIENCE_S)
        turn.append(user("x" * 300_000))  # encoded in a thread
        all_out.wait(PATIENCE_S)
        return sessiondb.Answer()

    with sync.open(tmp_db) as db:
        db.set_lane("main", concurrency=count, priority=0)
        accept(db, *map(str, range(count)))
        running = served(lambda: db.run_lane("main", answer))
        all_in.wait(PATIENCE_S)
        all_out.wait(PATIENCE_S)
        assert db.drain(timeout_s=PATIENCE_S).complete
        assert ended(running)
        assert set(states(tmp_db).values()) == {"done"}


def test_a_handler_waits_for_the_answer_of_another_lane(tmp_db: Path) -> None:
    def ask(turn: sync.Turn) -> sessiondb.Answer:
        asked = db.accept("agent:sub:web:1", user("?"), channel="sub", event_id="1", lane="cron")
        outcome = db.wait(asked.inbox_no)
        return sessiondb.Answer(entries=[reply(f"it is {outcome.state}")])

    def be_asked(turn: sync.Turn) -> sessiondb.Answer:
        return sessiondb.Answer(entries=[reply("yes")])

    with sync.open(tmp_db) as db:
        accept(db, "e1")
        running = served(lambda: db.run_lane("main", ask), lambda: db.run_lane("cron", be_asked))
        assert db.wait(1).state == "answered"
        assert "it is answered" in str(db.session("agent:main:web:e1").context().messages)
    assert ended(running)


@pytest.mark.parametrize("by", ["the block's end", "a handler"])
def test_closing_interrupts_the_turns_of_other_threads(tmp_db: Path, by: str) -> None:
    begun, may_end, late = threading.Barrier(3), threading.Event(), []

    def answer(turn: sync.Turn) -> sessiondb.Answer:
        begun.wait(PATIENCE_S)
        if by == "a handler" and turn.event_id == "e1":
            db.close()
        may_end.wait(PATIENCE_S)
        try:
            turn.append(reply("too late"))
        except sessiondb.StoreClosed as error:
            late.append(error)
        return sessiondb.Answer(entries=[reply("too late")])

    with sync.open(tmp_db) as db:
        accept(db, "e1", "e2")
        running = served(lambda: db.run_lane("main", answer), db.run_recovery)
        begun.wait(PATIENCE_S)
        if by == "a handler":
            assert ended(running)
    assert ended(running)
    may_end.set()
    while len(late) < 2:
        threading.Event().wait(0.01)
    with sync.open(tmp_db) as db:
        assert db.recover() == sessiondb.Recovered(), "each was interrupted in order"
        assert states(tmp_db) == {"e1": "interrupted", "e2": "interrupted"}
        assert [one.action for one in db.resume()] == ["resume", "later"]
        assert db.verify().ok


def test_ctrl_c_ends_the_loop_that_the_main_thread_waits_for(tmp_db: Path) -> None:
    may_end = threading.Event()

    def answer(turn: sync.Turn) -> sessiondb.Answer:
        # Of this thread it would wake no other: a terminal's goes to the process.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        may_end.wait(PATIENCE_S)
        return sessiondb.Answer()

    with sync.open(tmp_db) as db:
        accept(db, "e1", "e2")
        db.set_lane("main", concurrency=1, priority=0)
        with pytest.raises(KeyboardInterrupt) as caught:
            db.run_lane("main", answer)
        assert sessiondb.outcome_of(caught.value) is None, "it was no single write"
        assert states(tmp_db) == {"e1": "interrupted", "e2": "queued"}
        assert db.held() == []
        assert db.verify().ok
        may_end.set()


def test_a_turn_that_somebody_stops_writes_no_more_whatever_its_thread_does(
    tmp_db: Path,
) -> None:
    begun, may_end, refused = threading.Event(), threading.Event(), threading.Event()

    def answer(turn: sync.Turn) -> sessiondb.Answer:
        if turn.event_id == "e1":
            begun.set()
            may_end.wait(PATIENCE_S)
            for write in (lambda: turn.progress("late"), turn.renew, turn.reset):
                with pytest.raises(sessiondb.TurnLost):
                    write()
            refused.set()
        return sessiondb.Answer()

    with sync.open(tmp_db) as db, sync.open(tmp_db) as other:
        db.set_lane("main", concurrency=1, priority=0)
        accept(db, "e1", "e2")
        running = served(lambda: db.run_lane("main", answer))
        assert begun.wait(PATIENCE_S)
        other.abort_turn(1, "enough")
        assert other.wait(2).state == "answered", "the lane goes on while that thread does"
        may_end.set()
        assert refused.wait(PATIENCE_S)
        assert query(tmp_db, "SELECT state FROM turn") == ["aborted", "completed"]
    assert ended(running)


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError])
def test_whatever_a_handler_raises_fails_its_turn_alone(
    tmp_db: Path, error: type[BaseException]
) -> None:
    def answer(turn: sync.Turn) -> sessiondb.Answer:
        if turn.event_id == "e1":
            raise error
        return sessiondb.Answer()

    with sync.open(tmp_db) as db:
        accept(db, "e1", "e2")
        once = sessiondb.LaneSettings(attempts_max=1)
        running = served(lambda: db.run_lane("main", answer, settings=once))
        assert (db.wait(1).state, db.wait(2).state) == ("given_up", "answered")
    assert ended(running)


def test_handlers_that_hang_are_left_behind_up_to_a_limit(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LEFT_BEHIND_MAX", 2)
    begun, may_end = [], threading.Event()

    def answer(turn: sync.Turn) -> sessiondb.Answer:
        begun.append(turn.event_id)
        may_end.wait(PATIENCE_S)
        return sessiondb.Answer()

    with sync.open(tmp_db) as db:
        db.set_lane("main", concurrency=1, priority=0)
        accept(db, "e1", "e2", "e3", "e4")
        short = sessiondb.LaneSettings(timeout_s=0.05, attempts_max=1)
        running = served(lambda: db.run_lane("main", answer, settings=short))
        assert [db.wait(number).state for number in (1, 2, 3)] == ["given_up"] * 3
        while len(begun) < 2:
            threading.Event().wait(0.01)
        assert sorted(begun) == ["e1", "e2"], "the third was not called"
        [reason] = query(tmp_db, "SELECT reason FROM inbox WHERE event_id = 'e3'")
        assert "2 calls of the handler of lane main were given up and go on" in reason
        may_end.set()
    assert ended(running)


def test_a_reply_whose_sender_was_not_called_waits(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "LEFT_BEHIND_MAX", 1)
    may_end = threading.Event()

    def answer(turn: sync.Turn) -> sessiondb.Answer:
        return sessiondb.Answer(replies=[(f"web:{turn.event_id}", "yes")])

    def send(_: sessiondb.Reply) -> None:
        may_end.wait(PATIENCE_S)

    with sync.open(tmp_db) as db:
        db.set_lane("main", concurrency=1, priority=0)
        accept(db, "e1", "e2")
        running = served(lambda: db.run_lane("main", answer))
        assert [db.wait(number).state for number in (1, 2)] == ["answered"] * 2
        running += served(lambda: db.run_outbox(send, lease_s=0.05, at_once=1))
        while not (reasons := [one.reason for one in db.replies("pending") if one.reason]):
            threading.Event().wait(0.01)
        assert "1 calls of the sender were given up" in reasons[0]
        assert [one.target for one in db.replies("unknown")] == ["web:e1"]
        assert [one.target for one in db.replies("pending")] == ["web:e2"]
        may_end.set()
    assert ended(running)


@pytest.mark.parametrize("call", ["run_lane", "run_outbox"])
def test_an_asynchronous_handler_is_refused_with_what_to_do(tmp_db: Path, call: str) -> None:
    async def handler(_: Any) -> Any:
        raise AssertionError("it is never called")

    with sync.open(tmp_db) as db:
        arguments = ("main", handler) if call == "run_lane" else (handler,)
        with pytest.raises(sessiondb.InvalidInput, match="write `def`"):
            getattr(db, call)(*arguments)


GATEWAY = """
import sys, threading, sessiondb
from sessiondb import sync

def answer(turn):
    print(turn.event_id, turn.attempt, flush=True)
    if sys.argv[2] == "hangs":
        threading.Event().wait()
    return sessiondb.Answer(replies=[("web:1", "done")])

def send(reply):
    print("sent", flush=True)

with sync.open(sys.argv[1]) as db:
    loops = [lambda lane=lane: db.run_lane(lane, answer) for lane in ("main", "resume")]
    for loop in (*loops, lambda: db.run_outbox(send)):
        threading.Thread(target=loop).start()
    try:
        db.run_recovery()
    except KeyboardInterrupt:
        print(db.drain(timeout_s=60).complete, flush=True)
"""


def test_a_process_of_plain_functions_is_killed_and_another_one_goes_on(tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        accept(db, "e1")
        with other_process(GATEWAY, tmp_db, "hangs") as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "e1 1\n"
            first.kill()
            first.wait()
        with other_process(GATEWAY, tmp_db, "works") as second:
            assert second.stdout is not None
            assert [second.stdout.readline() for _ in range(2)] == ["e1 2\n", "sent\n"]
            second.send_signal(signal.SIGINT)
            assert second.stdout.readline() == "True\n"
            assert second.wait(PATIENCE_S) == 0
        assert states(tmp_db) == {"e1": "done"}
        assert query(tmp_db, "SELECT state FROM turn") == ["interrupted", "completed"]
        assert db.verify().ok

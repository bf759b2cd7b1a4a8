"""The view `stuck` over the populated world, by a clock that the test sets.

Each case changes one condition of one row, and says which rows go and which come.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from sessiondb import process
from sessiondb.clock import iso_from_ms
from tests.support.statement_cases import Given, set_columns
from tests.support.world import Recorder, World, make_world
from tests.support.world_build import HOUR, NOW, SECOND

LATELY = NOW - 90 * SECOND
"""Nobody calls it stuck when something happened after this."""
Shown = tuple[str, str, str]


@pytest.fixture(scope="module")
def world() -> World:
    w = make_world()

    def strftime(form: str, when: object, *_unit: str) -> str | None:
        if when == "now":
            assert form == "%s"
            return str(w.now_ms // 1000)
        if when is None:
            return None
        assert isinstance(when, (int, float))
        text = datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")

    w.connection.create_scalar_function("strftime", strftime, -1)
    return w


def shown(w: World) -> list[Shown]:
    """Return what each row is about, and what is wrong with it, with the labels of rows."""
    found = []
    for what, name, problem, place in w.connection.execute(
        "SELECT what, name, problem, place FROM stuck"
    ):
        table = {"turn": "turn", "reply": "outbox", "message": "inbox", "archive": "archive"}
        label = w.before.name(table[what], int(name)) if what in table else name
        if what in ("lane", "channel") and place is not None:
            number = int(place.removeprefix("inbox item ").removeprefix("reply ").split()[0])
            label += f": {w.before.name('inbox' if what == 'lane' else 'outbox', number)}"
        elif what == "consumer":
            label += f": {place}"
        found.append((what, label, problem))
    return sorted(found)


def of(what: str, problem: str, *names: str) -> set[Shown]:
    return {(what, name, problem) for name in names}


BEFORE: set[Shown] = {
    *of("archive", "complete", "complete/10", "complete-too/16"),
    *of("archive", "deleting", "deleting/11", "deleting-too/17", "leaf/8"),
    *of("archive", "restoring", "restoring/12", "restoring-too/18"),
    *of("archive", "writing", "writing/9", "writing-too/15"),
    *of("channel", "waits", "fax", "matrix", "signal"),
    *of("channel", "refuses everything", "telegram: telegram:retried", "web: web:retried"),
    *of("compaction", "past its deadline", "overdue", "overdue-too"),
    *of("consumer", "behind", "pager: event 4", "web: event 6"),
    *of("import", "not finished", "/imports/west/growing.jsonl"),
    *of("lane", "not run", "main: cut-next", "slow: slow-next"),
    *of("message", "dead", "dead", "dead-old", "dead-old-too", "dead-resume", "dead-too"),
    *of("message", "dead", "failed-before"),
    *of("reply", "failed", "web:failed", "telegram:failed"),
    *of("reply", "past its lease", "web:late", "telegram:late"),
    *of("reply", "unknown", "web:unknown", "telegram:unknown", "telegram:unknown-too"),
    *of("turn", "past its lease", "held#1", "silent#1", "resuming#2"),
}


def all_of(*given: Given) -> Given:
    return lambda w, tx: [one(w, tx) for one in given]


def sql(statement: str, **values: object) -> Given:
    return lambda w, _tx: w.connection.execute(statement, values).fetchall()


def lane(name: str, **columns: int) -> Given:
    """Change the columns of a lane."""
    assigned = ", ".join(f"{column} = :{column}" for column in columns)
    return sql(f"UPDATE lane SET {assigned} WHERE lane = :lane", lane=name, **columns)


def lately(turn: str, of_lane: str, finished_at_ms: int) -> Given:
    """Let a turn have been of a lane, and have ended at a time."""
    return set_columns(f"turn {turn}", lane=of_lane, finished_at_ms=finished_at_ms)


OLDER_TURNS = sql(
    "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 1000) "
    "INSERT INTO turn (turn_no, session_no, lane, kind, state, inbox_no, attempt, operation, "
    "instance_no, started_at_ms, renewed_at_ms, expires_at_ms, deadline_ms, finished_at_ms) "
    "SELECT -n, session_no, 'main', kind, 'completed', inbox_no, attempt, operation, "
    "instance_no, 1, 1, 1, 1, 1 FROM number JOIN turn ON turn_no = 1"
)
"""A thousand turns that began before those of the world."""


def slow_next(**columns: object) -> Given:
    return set_columns("inbox slow-next", **columns)


SLOW = of("lane", "not run", "slow: slow-next")
CUT = of("lane", "not run", "main: cut-next")
RESUMED_NEXT = of("lane", "not run", "main: resumed-next")
RESUME = of("lane", "not run", "resume: resumed")
NOTHING: set[Shown] = set()
Case = tuple[str, Given, set[Shown], set[Shown]]
LANES: list[Case] = [
    ("no room", lane("slow", concurrency=1), SLOW, NOTHING),
    ("a turn of it ended lately", lately("done#1", "slow", LATELY + 1), SLOW, NOTHING),
    ("a turn of it ended before", lately("done#1", "slow", LATELY), NOTHING, NOTHING),
    ("a turn of another ended lately", lately("done#1", "wide", NOW), NOTHING, NOTHING),
    (
        "a turn of it began lately",
        set_columns("turn held-too#1", started_at_ms=LATELY + 1),
        SLOW,
        NOTHING,
    ),
    ("queued long enough", slow_next(queued_at_ms=LATELY), NOTHING, NOTHING),
    ("queued lately", slow_next(queued_at_ms=LATELY + 1), SLOW, NOTHING),
    ("its pause ended lately", slow_next(available_at_ms=LATELY + 1), SLOW, NOTHING),
    ("its pause ended before", slow_next(available_at_ms=LATELY), NOTHING, NOTHING),
    ("its session works", slow_next(session_no="session running-too"), SLOW, NOTHING),
    (
        "its session works, in a later lane",
        all_of(lane("cron", priority=50), slow_next(session_no="session running-too")),
        SLOW,
        NOTHING,
    ),
    (
        "a turn of it ended lately, after a thousand others",
        all_of(OLDER_TURNS, lately("done#1", "slow", LATELY + 1)),
        SLOW,
        NOTHING,
    ),
    (
        "its session has just worked",
        lately("cut#1", "wide", LATELY + 1),
        CUT,
        RESUMED_NEXT,
    ),
    ("its session has worked before", lately("cut#1", "wide", LATELY), NOTHING, NOTHING),
    (
        "its session has just worked, after other turns",
        all_of(
            slow_next(session_no="session cut-failed"),
            lately("cut-failed#1", "wide", LATELY + 1),
        ),
        SLOW,
        NOTHING,
    ),
    (
        "an older message of its session goes first",
        slow_next(session_no="session dead"),
        SLOW,
        NOTHING,
    ),
    (
        "an older message of its session is done",
        slow_next(session_no="session done"),
        NOTHING,
        NOTHING,
    ),
    (
        "an older message of its session is of a later lane",
        slow_next(session_no="session cron-session"),
        NOTHING,
        NOTHING,
    ),
    (
        "an older resume of its session, in an earlier lane",
        all_of(
            lane("slow", priority=30),
            slow_next(session_no="session resumed"),
            set_columns("inbox resumed-next", session_no="session live"),
        ),
        NOTHING,
        NOTHING,
    ),
    (
        "a newer message of its session",
        set_columns("inbox told", session_no="session cut"),
        NOTHING,
        NOTHING,
    ),
    (
        "a newer message of a resume's session goes first",
        lane("resume", concurrency=2),
        NOTHING,
        NOTHING,
    ),
    (
        "a resume goes before a later lane than accepted it",
        all_of(lane("resume", concurrency=2), set_columns("inbox resumed-next", lane="cron")),
        NOTHING,
        RESUME,
    ),
    (
        "the one that has waited longest is named",
        set_columns("inbox told", queued_at_ms=NOW - HOUR),
        CUT,
        of("lane", "not run", "main: told"),
    ),
    (
        "of two that have waited as long, the older one",
        sql("UPDATE inbox SET queued_at_ms = :ms WHERE state = 'queued'", ms=NOW - HOUR),
        NOTHING,
        NOTHING,
    ),
]


def idle(*more: Given) -> Given:
    """Let nothing be under way to web, and change more."""
    stop = sql(
        "UPDATE outbox SET state = 'unknown', finished_at_ms = 1"
        " WHERE state = 'sending' AND channel = 'web'"
    )
    return all_of(stop, *more)


def pause(begun_at_ms: int, until_ms: int) -> Given:
    return sql(
        "INSERT INTO channel_pause VALUES ('web', :until - 1, 1, :begun, :until, 'r')",
        begun=begun_at_ms,
        until=until_ms,
    )


def reply(name: str, **columns: object) -> Given:
    return set_columns(f"outbox {name}", **columns)


def sent_beside(target: str, offset: int, finished_at_ms: int) -> Given:
    """Let a reply have been sent whose number is so far from another one's."""

    def send(w: World, tx: Recorder) -> None:
        outbox_no = w.no(f"outbox {target}") + offset
        reply("web:sent", outbox_no=outbox_no, finished_at_ms=finished_at_ms)(w, tx)

    return send


WEB = of("channel", "refuses everything", "web: web:retried")
IDLE = of("channel", "nothing is sent", "web: web:behind")
IDLE_PENDING = of("channel", "nothing is sent", "web: web:pending")
TEN_MINUTES = NOW - 600 * SECOND
CHANNELS: list[Case] = [
    ("nothing is sent", idle(), NOTHING, IDLE),
    ("one was sent lately", idle(reply("web:sent", finished_at_ms=LATELY + 1)), WEB, NOTHING),
    ("one was sent before", idle(reply("web:sent", finished_at_ms=LATELY)), WEB, IDLE),
    (
        "one of another channel was sent",
        idle(reply("telegram:sent", finished_at_ms=LATELY + 1)),
        of("channel", "refuses everything", "telegram: telegram:retried"),
        IDLE,
    ),
    ("it waits", idle(pause(LATELY, LATELY + 1)), NOTHING, NOTHING),
    ("its wait is over", idle(pause(LATELY - 1, LATELY)), NOTHING, IDLE),
    ("its wait begins later", idle(pause(NOW + 1_000, NOW + 1_001)), NOTHING, IDLE),
    ("its wait has just begun", idle(pause(NOW + 999, NOW + 1_000)), NOTHING, NOTHING),
    ("due for long", idle(reply("web:behind", available_at_ms=LATELY)), NOTHING, IDLE),
    (
        "due lately, and another of its session waits behind it",
        idle(reply("web:behind", available_at_ms=LATELY + 1)),
        NOTHING,
        IDLE_PENDING,
    ),
    ("made before", idle(reply("web:behind", created_at_ms=LATELY)), NOTHING, IDLE),
    ("made lately", idle(reply("web:behind", created_at_ms=LATELY + 1)), NOTHING, IDLE_PENDING),
    ("asked for lately", idle(reply("web:behind", asked_at_ms=NOW)), NOTHING, IDLE_PENDING),
    (
        "one before it is of another channel",
        idle(reply("web:behind", channel="telegram")),
        NOTHING,
        of("channel", "nothing is sent", "web: web:behind-too"),
    ),
    (
        "of the first of three channels",
        reply("web:pending", channel="sms"),
        NOTHING,
        of("channel", "nothing is sent", "sms: web:pending"),
    ),
    ("no attempt counts", reply("web:retried", attempts_before=1), WEB, NOTHING),
    ("it is due", reply("web:retried", available_at_ms=LATELY), WEB, NOTHING),
    ("it is due soon", reply("web:retried", available_at_ms=LATELY + 1), NOTHING, NOTHING),
    ("made ten minutes ago", reply("web:retried", created_at_ms=TEN_MINUTES), NOTHING, NOTHING),
    ("made since", reply("web:retried", created_at_ms=TEN_MINUTES + 1), WEB, NOTHING),
    ("asked for since", reply("web:retried", asked_at_ms=TEN_MINUTES + 1), WEB, NOTHING),
    ("one was taken since", reply("web:sent", finished_at_ms=TEN_MINUTES + 1), WEB, NOTHING),
    ("one was taken before", reply("web:sent", finished_at_ms=TEN_MINUTES), NOTHING, NOTHING),
    (
        "the first of two is named",
        reply("web:behind", attempts=1, available_at_ms=NOW),
        WEB,
        of("channel", "refuses everything", "web: web:behind"),
    ),
    # It looks at a thousand replies before and behind. The window of web:retried is the later one.
    *(
        (
            f"one was sent lately, {offset} numbers away",
            idle(sent_beside("web:behind", offset, LATELY + 1)),
            WEB if offset > 0 else NOTHING,
            IDLE if abs(offset) > 1000 else NOTHING,
        )
        for offset in (-1001, -1000, 1000, 1001)
    ),
    *(
        (
            f"one was taken since, {offset} numbers away",
            sent_beside("web:retried", offset, TEN_MINUTES + 1),
            NOTHING if abs(offset) > 1000 else WEB,
            NOTHING,
        )
        for offset in (-1001, -1000, 1000, 1001)
    ),
]

CONSUMERS = of("consumer", "behind", "pager: event 4", "web: event 6")
EVENTS = "UPDATE event SET at_ms = :ms"
CUT_OFF = of(
    "message",
    "interrupted, and not resumed",
    *("cut", "cut-too", "cut-failed", "cut-damaged", "cut-blank"),
)
NO_QUEUED = sql("UPDATE inbox SET lane = 'main' WHERE state = 'queued' AND lane = 'resume'")
NO_RUNNING = sql("UPDATE turn SET lane = 'main' WHERE state = 'running' AND lane = 'resume'")
MINUTE = NOW - 60 * SECOND


def missed(count: int, audience: str = "operator") -> Given:
    """Let web miss so many events. All are of one audience, and the last one is of now."""
    return all_of(
        sql(
            "WITH RECURSIVE number (n) AS (SELECT max(event_no) + 1 FROM event UNION ALL "
            "SELECT n + 1 FROM number WHERE n < 2000) "
            "INSERT INTO event (event_no, kind, audience, at_ms, text, data) "
            "SELECT n, 'note', 'operator', 1, 'n', '{}' FROM number"
        ),
        sql("UPDATE event SET audience = :audience, at_ms = 1", audience=audience),
        sql(
            "DELETE FROM event WHERE event_no > (SELECT event_no FROM event WHERE event_no > 5 "
            "ORDER BY event_no LIMIT 1 OFFSET :count - 1)",
            count=count,
        ),
        sql(
            "UPDATE event SET at_ms = :now WHERE event_no = (SELECT max(event_no) FROM event)",
            now=NOW,
        ),
    )


def tired(number: int = 2, **columns: object) -> Given:
    return set_columns(f"compaction tired-rejected-{number}", **columns)


def cool_down(*more: Given) -> Given:
    """Let the last of three jobs in vain have ended just now, and change more."""
    return all_of(tired(finished_at_ms=NOW - 1), *more)


COOL_DOWN = of("compaction", "in cool-down", "tired-rejected-2")
COOL_DOWNS: list[Case] = [
    ("ten minutes ago", tired(finished_at_ms=TEN_MINUTES), NOTHING, NOTHING),
    ("less than ten minutes ago", tired(finished_at_ms=TEN_MINUTES + 1), NOTHING, COOL_DOWN),
    ("in this second", tired(finished_at_ms=NOW + 999), NOTHING, COOL_DOWN),
    ("by a clock that was set back", tired(finished_at_ms=NOW + 1_000), NOTHING, NOTHING),
    ("the first of them", tired(0, finished_at_ms=NOW - 1), NOTHING, COOL_DOWN),
    ("not in vain", cool_down(tired(0, in_vain=0)), NOTHING, NOTHING),
    ("begun before", cool_down(tired(0, base_epoch=-1)), NOTHING, NOTHING),
    (
        "the context has moved since",
        cool_down(set_columns("session job-tired", epoch=1)),
        NOTHING,
        NOTHING,
    ),
    (
        "one of them has moved the context",
        cool_down(
            set_columns("session job-tired", epoch=1),
            tired(0, state="committed", epoch=1, entry_no=1),
            tired(1, base_epoch=1),
            tired(2, base_epoch=1),
        ),
        NOTHING,
        COOL_DOWN,
    ),
    (
        "two only",
        cool_down(
            sql(
                "DELETE FROM compaction WHERE compaction_id IN ('tired-failed', 'tired-rejected-0')"
            )
        ),
        NOTHING,
        NOTHING,
    ),
]


def fax(**columns: int) -> Given:
    assigned = ", ".join(f"{column} = :{column}" for column in columns)
    return sql(f"UPDATE channel_pause SET {assigned} WHERE channel = 'fax'", **columns)


def archived(label: str, problem: str) -> set[Shown]:
    return of("archive", problem, label)


OTHERS: list[Case] = [
    ("read to the end", sql("UPDATE event_cursor SET event_no = 100000"), CONSUMERS, NOTHING),
    ("of an audience", sql("UPDATE event SET audience = 'operator'"), CONSUMERS, NOTHING),
    ("missed lately", sql(EVENTS, ms=TEN_MINUTES + 1), CONSUMERS, NOTHING),
    ("missed for long", sql(EVENTS, ms=TEN_MINUTES), NOTHING, NOTHING),
    (
        "of one audience for long, of the other lately",
        sql(EVENTS + " WHERE audience = 'user'", ms=NOW),
        CONSUMERS,
        NOTHING,
    ),
    ("so many that every reader misses some", missed(402), NOTHING, NOTHING),
    ("so many of the other audience", missed(402, "user"), NOTHING, NOTHING),
    *(
        (
            f"of one audience, all of the other, {handled}, were before",
            sql(
                "UPDATE event SET audience = iif(event_no > 5, :missed, :handled)",
                missed=missed,
                handled=handled,
            ),
            of("consumer", "behind", "web: event 6"),
            NOTHING,
        )
        for missed, handled in (("user", "operator"), ("operator", "user"))
    ),
    (
        "so many, the last of them just now",
        missed(401),
        CONSUMERS,
        of("consumer", "behind", "pager: event 4"),
    ),
    ("not so many", missed(400), CONSUMERS, of("consumer", "behind", "pager: event 4")),
    ("not so many of another one either", missed(398), CONSUMERS, NOTHING),
    ("no resume", all_of(NO_QUEUED, NO_RUNNING), NOTHING, CUT_OFF),
    ("a resume runs", NO_QUEUED, NOTHING, NOTHING),
    ("a resume is queued", NO_RUNNING, NOTHING, NOTHING),
    (
        "a resume ended just now",
        all_of(NO_QUEUED, NO_RUNNING, lately("done#1", "resume", MINUTE + 1)),
        NOTHING,
        NOTHING,
    ),
    (
        "a resume ended before",
        all_of(NO_QUEUED, NO_RUNNING, lately("done#1", "resume", MINUTE)),
        NOTHING,
        CUT_OFF,
    ),
    (
        "interrupted just now",
        all_of(NO_QUEUED, NO_RUNNING, set_columns("turn cut#1", finished_at_ms=MINUTE + 1)),
        NOTHING,
        CUT_OFF - of("message", "interrupted, and not resumed", "cut"),
    ),
    (
        "interrupted a minute ago",
        all_of(NO_QUEUED, NO_RUNNING, set_columns("turn cut#1", finished_at_ms=MINUTE)),
        NOTHING,
        CUT_OFF,
    ),
    (
        "an archive that has begun",
        set_columns("archive writing/9", begun_at_ms=NOW - HOUR + 1),
        archived("writing/9", "writing"),
        NOTHING,
    ),
    (
        "an archive that has begun before",
        set_columns("archive writing/9", begun_at_ms=NOW - HOUR),
        NOTHING,
        NOTHING,
    ),
    (
        "an import that goes on",
        set_columns("import_file west/growing.jsonl", imported_at_ms=TEN_MINUTES + 1),
        of("import", "not finished", "/imports/west/growing.jsonl"),
        NOTHING,
    ),
    (
        "an import that went on before",
        set_columns("import_file west/growing.jsonl", imported_at_ms=TEN_MINUTES),
        NOTHING,
        NOTHING,
    ),
    ("a lease", set_columns("turn held#1", expires_at_ms=NOW), NOTHING, NOTHING),
    (
        "a lease that holds",
        set_columns("turn held#1", expires_at_ms=NOW + 1),
        of("turn", "past its lease", "held#1"),
        NOTHING,
    ),
    ("a sender's lease", reply("web:late", expires_at_ms=NOW), NOTHING, NOTHING),
    (
        "a sender's lease that holds",
        reply("web:late", expires_at_ms=NOW + 1),
        of("reply", "past its lease", "web:late"),
        NOTHING,
    ),
    (
        "a deadline",
        set_columns("compaction overdue", deadline_ms=NOW - 2_000),
        of("compaction", "past its deadline", "overdue"),
        NOTHING,
    ),
    (
        "a deadline before",
        set_columns("compaction overdue", deadline_ms=NOW - 2_001),
        NOTHING,
        NOTHING,
    ),
    (
        "a wait that is over",
        fax(until_ms=NOW, begun_at_ms=1),
        of("channel", "waits", "fax"),
        NOTHING,
    ),
    ("a wait that begins", fax(begun_at_ms=NOW + 999), NOTHING, NOTHING),
    (
        "a wait that begins later",
        fax(begun_at_ms=NOW + 1_000),
        of("channel", "waits", "fax"),
        NOTHING,
    ),
    (
        "a channel that waits for a minute",
        fax(until_ms=NOW + HOUR, refused_since_ms=NOW + HOUR - 60_000),
        of("channel", "waits", "fax"),
        NOTHING,
    ),
    (
        "a channel that waits for longer",
        fax(until_ms=NOW + HOUR, refused_since_ms=NOW + HOUR - 60_001),
        NOTHING,
        NOTHING,
    ),
]


def test_the_world_as_it_is(world: World) -> None:
    assert shown(world) == sorted(BEFORE)


KINDS = {what for what, _, _ in BEFORE}


@pytest.mark.parametrize(
    ("given", "gone", "come", "kinds"),
    [
        (*case[1:], kinds)
        for cases, kinds in (
            (LANES, {"lane"}),
            (CHANNELS, {"channel"}),
            (COOL_DOWNS, {"compaction"}),
            # A message that is no resume any more waits in its lane.
            (OTHERS, KINDS - {"lane"}),
        )
        for case in cases
    ],
    ids=[case[0] for case in (*LANES, *CHANNELS, *COOL_DOWNS, *OTHERS)],
)
def test_one_condition_of_one_row(
    world: World, given: Given, gone: set[Shown], come: set[Shown], kinds: set[str]
) -> None:
    assert gone <= BEFORE
    with world.undone() as tx:
        given(world, tx)
        found = {one for one in shown(world) if one[0] in kinds}
    assert found == {one for one in BEFORE - gone | come if one[0] in kinds}


def since(w: World, what: str, problem: str, name: str) -> str:
    [(found,)] = w.connection.execute(
        "SELECT since FROM stuck WHERE what = ? AND problem = ? AND name = ?", (what, problem, name)
    ).fetchall()
    return str(found)


@pytest.mark.parametrize(
    ("given", "what", "problem", "name", "since_ms"),
    [
        (
            idle(reply("web:behind", created_at_ms=7_000)),
            *("channel", "nothing is sent", "web", 7_000),
        ),
        (
            idle(reply("web:behind", asked_at_ms=LATELY - 5)),
            *("channel", "nothing is sent", "web", LATELY - 5),
        ),
        (
            idle(reply("web:behind", available_at_ms=LATELY)),
            *("channel", "nothing is sent", "web", LATELY),
        ),
        (
            reply("web:retried", created_at_ms=7_000),
            *("channel", "refuses everything", "web", 7_000),
        ),
        (
            reply("web:retried", asked_at_ms=9_000),
            *("channel", "refuses everything", "web", 9_000),
        ),
        (slow_next(queued_at_ms=7_000), "lane", "not run", "slow", 7_000),
        (slow_next(available_at_ms=LATELY), "lane", "not run", "slow", LATELY),
        (sql(EVENTS, ms=7_000), "consumer", "behind", "web", 7_000),
        (
            all_of(sql(EVENTS, ms=7_000), sql(EVENTS + " WHERE event_no > 6", ms=5_000)),
            *("consumer", "behind", "web", 7_000),
        ),
        (
            tired(0, finished_at_ms=NOW - 1),
            "compaction",
            "in cool-down",
            "tired-rejected-2",
            NOW - 1,
        ),
    ],
)
def test_it_says_since_when(
    world: World, given: Given, what: str, problem: str, name: str, since_ms: int
) -> None:
    with world.undone() as tx:
        given(world, tx)
        assert since(world, what, problem, name) == iso_from_ms(since_ms)


NO_RESUME = all_of(NO_QUEUED, NO_RUNNING)
HANGS = "No process sends the outbox, or the one that does hangs"
NOT_RESUMED = ". No resume is queued or runs: --plan instead of --run tells what would be done"
ARRIVED = ". If it has arrived: --sent instead of --resend"
NOT_WANTED = ". If it is not wanted any more: --drop instead of --requeue"
MEND = "mend the channel: its replies are tried again at least once a minute"
RUN = "sessiondb resume DB --run"
ME = process.identity()
SAYS: list[tuple[str, Given, str, str | None, dict[str, object]]] = [
    (
        "turn held#1",
        set_columns("turn held#1", expires_at_ms=NOW - 5, deadline_ms=NOW - 4),
        "past its lease",
        "held",
        {
            "place": "lane main",
            "since_ms": NOW - 5,
            "owner": "dying",
            "why": "its process renews it no more, and no loop of a gateway took it over",
            "next_step": RUN,
        },
    ),
    (
        "turn held#1",
        set_columns("turn held#1", expires_at_ms=NOW - 5, deadline_ms=NOW - 5),
        "past its lease",
        "held",
        {"why": "its time is up, and no loop of a gateway took it over"},
    ),
    (
        "outbox web:late",
        reply("web:late", expires_at_ms=NOW - 5),
        "past its lease",
        "reply-late",
        {
            "place": "to web:late",
            "since_ms": NOW - 5,
            "owner": "remote",
            "why": "its sender gave no answer in time, and no loop of a gateway gave it up",
            "next_step": RUN,
        },
    ),
    (
        "compaction overdue",
        set_columns("compaction overdue", deadline_ms=5),
        "past its deadline",
        "job-overdue",
        {
            "place": "trigger threshold",
            "since_ms": 5,
            "owner": "remote",
            "why": "its process did not end it. A late commit is still reconciled",
            "next_step": RUN,
        },
    ),
    (
        "compaction tired-rejected-2",
        cool_down(),
        "in cool-down",
        "job-tired",
        {
            "place": None,
            "since_ms": NOW - 1,
            "until_ms": NOW - 1 + 600_000,
            "why": "the last three made the context hardly smaller. It ends by itself",
            "next_step": "sessiondb compactions DB --session job-tired",
        },
    ),
    (
        "lane main",
        all_of(),
        "not run",
        "cut",
        {
            "why": "9 waiting, and there is room. No process runs the lane, or the one that does "
            f"hangs. One drains, and claims no more: other, pid {ME.pid} on {ME.host}",
        },
    ),
    (
        "lane main",
        set_columns("instance other", closed_at_ms=NOW),
        "not run",
        "cut",
        {
            "place": "inbox item {inbox cut-next}",
            "why": "9 waiting, and there is room. No process runs the lane, or the one that does "
            "hangs",
            "next_step": "start a process with db.run_lane() for lane main",
        },
    ),
    (
        "channel web",
        idle(),
        "nothing is sent",
        "reply-sending",
        {
            "place": "reply {outbox web:behind} to web:behind",
            "why": f"7 pending. {HANGS}",
            "next_step": "start a process with db.run_outbox()",
        },
    ),
    (
        "channel web",
        reply("web:retried", attempts=3),
        "refuses everything",
        "reply-retried",
        {
            "place": "reply {outbox web:retried} to web:retried",
            "why": "7 pending. 3 attempts, the last: not now",
            "next_step": MEND,
        },
    ),
    (
        "channel web",
        reply("web:retried", reason=None),
        "refuses everything",
        "reply-retried",
        {"why": "7 pending. 1 attempts, the last: no reason is kept", "next_step": MEND},
    ),
    (
        "channel fax",
        all_of(),
        "waits",
        None,
        {
            "place": None,
            "since_ms": NOW + 1 - HOUR,
            "until_ms": NOW + HOUR,
            "why": "it said so, and none of its replies is sent until then: 429 of fax",
            "next_step": "sessiondb outbox DB --state pending",
        },
    ),
    (
        "inbox cut",
        all_of(NO_RESUME, set_columns("turn cut#1", finished_at_ms=7)),
        "interrupted, and not resumed",
        "cut",
        {
            "place": "lane main",
            "since_ms": 7,
            "why": f"its process died{NOT_RESUMED}",
            "next_step": RUN,
        },
    ),
    (
        "inbox cut",
        all_of(
            NO_RESUME,
            set_columns(
                "inbox cut",
                lane="resume",
                lane_before="slow",
                reason=None,
                turn_no=None,
                accepted_at_ms=9,
            ),
        ),
        "interrupted, and not resumed",
        "cut",
        {
            "place": "lane slow",
            "since_ms": 9,
            "why": f"the reason is not recorded{NOT_RESUMED}",
        },
    ),
    (
        "event_cursor pager",
        sql("UPDATE event SET at_ms = event_no"),
        "behind",
        None,
        {
            "place": "event 4",
            "since_ms": 4,
            "why": "it handled no event from this one on: nobody reads under this name, or its "
            "reader hangs. If nobody is to, --forget forgets it",
            "next_step": "sessiondb events DB --consumer 'pager'",
        },
    ),
    (
        "import_file west/growing.jsonl",
        set_columns("import_file west/growing.jsonl", imported_at_ms=7, bytes=5),
        "not finished",
        "growing",
        {
            "place": "byte 5",
            "since_ms": 7,
            "why": "its process died or was stopped. The next import goes on from there",
            "next_step": "sessiondb import DB '/imports/west/growing.jsonl'",
        },
    ),
    (
        "archive writing/9",
        set_columns("archive writing/9", begun_at_ms=7),
        "writing",
        "writing",
        {
            "place": None,
            "since_ms": 7,
            "why": "its process died or was stopped. The next call goes on from there",
            "next_step": "sessiondb gc DB",
        },
    ),
    (
        "archive restoring/12",
        all_of(),
        "restoring",
        "restoring",
        {
            "why": "a restore is under way, or its process died or was stopped. The next call "
            "goes on from there",
            "next_step": "sessiondb unarchive DB restoring",
        },
    ),
    (
        "outbox web:failed",
        reply("web:failed", finished_at_ms=7),
        "failed",
        "failed",
        {
            "place": "to web:failed",
            "since_ms": 7,
            "why": f"no such address{ARRIVED}",
            "next_step": "sessiondb outbox DB --resend {outbox web:failed}",
        },
    ),
    (
        "outbox web:unknown",
        reply("web:unknown", reason=None),
        "unknown",
        "unknown",
        {"why": f"the reason is not recorded{ARRIVED}"},
    ),
    (
        "inbox dead",
        all_of(sql("UPDATE event SET at_ms = event_no"), set_columns("inbox dead", told_no=7)),
        "dead",
        "dead",
        {
            "place": "lane main",
            "since_ms": 7,
            "why": f"no luck{NOT_WANTED}",
            "next_step": "sessiondb dead DB --requeue {inbox dead}",
        },
    ),
    (
        "inbox dead",
        set_columns(
            "inbox dead",
            lane="resume",
            lane_before="slow",
            reason=None,
            told_no=0,
            accepted_at_ms=9,
        ),
        "dead",
        "dead",
        {
            "place": "lane slow",
            "since_ms": 9,
            "why": f"the reason is not recorded{NOT_WANTED}",
        },
    ),
]


WHAT = {"inbox": "message", "outbox": "reply", "event_cursor": "consumer", "import_file": "import"}


@pytest.mark.parametrize(
    ("label", "given", "problem", "session_id", "says"),
    SAYS,
    ids=[f"{case[0]}: {case[2]}" for case in SAYS],
)
def test_what_a_row_says(
    world: World,
    label: str,
    given: Given,
    problem: str,
    session_id: str | None,
    says: dict[str, object],
) -> None:
    table, _, name = label.partition(" ")
    what = WHAT.get(table, table)
    if table in {"turn", "inbox", "outbox", "archive"}:
        name = str(world.no(label))
    elif table == "import_file":
        name = world.row(label)["path"]
    columns = ("session_id", "place", "since", "until", "owner", "why", "next_step")
    with world.undone() as tx:
        given(world, tx)
        [row] = world.connection.execute(
            f"SELECT {', '.join(columns)} FROM stuck WHERE what = ? AND name = ? AND problem = ?",
            (what, name, problem),
        ).fetchall()
    found = dict(zip(columns, row, strict=True))
    expected: dict[str, object] = {"session_id": session_id}
    for column, value in says.items():
        if column.endswith("_ms"):
            assert isinstance(value, int)
            expected[column.removesuffix("_ms")] = iso_from_ms(value)
        elif column == "owner":
            process = world.row(f"instance {value}")
            expected[column] = f"{process['pid']}@{process['host']}"
        elif value is not None:
            numbered = re.sub(r"\{(.+?)\}", lambda found: str(world.no(found[1])), str(value))
            expected[column] = numbered
        else:
            expected[column] = None
    assert {column: found[column] for column in expected} == expected

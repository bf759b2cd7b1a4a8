"""Cases of queries/compaction.sql."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY, patch

from sessiondb.clock import iso_from_ms
from sessiondb.gateway import turns
from sessiondb.transcript import append, compaction
from sessiondb.transcript.compaction import Summary
from sessiondb.transcript.entries import draft_decoded
from tests.support.compaction import begin_in
from tests.support.statement_cases import (
    Change,
    Given,
    Guard,
    Page,
    Read,
    nothing,
    set_columns,
    without,
)
from tests.support.world import Recorder, World
from tests.support.world_build import NOW


def begin(w: World, tx: Recorder) -> None:
    with patch.object(compaction, "new_id", lambda: "new"):
        begin_in(
            tx, w.no("session twin"), trigger="threshold", keep_recent_tokens=1, timeout_ms=9_000
        )


def commit(job: str, text: str = "short") -> Callable[[World, Recorder], object]:
    return lambda _, tx: compaction.commit(tx, job, Summary.of(text), iso_from_ms(NOW))


def give_up(job: str) -> Callable[[World, Recorder], object]:
    return lambda _, tx: compaction.give_up(tx, job, "cancelled", "stop")


def record(w: World, tx: Recorder) -> None:
    """Append a compaction that another program made."""
    kept = w.row("entry twin/18")["entry_id"]
    item = {"type": "compaction", "summary": "s", "firstKeptEntryId": kept, "tokensBefore": 7}
    draft, _ = draft_decoded(item, now_ms=NOW)
    with patch.object(append, "new_id", lambda: "new"):
        append.append(tx, w.no("session twin"), [draft])


def settling(name: str, **columns: Any) -> dict[str, Any]:
    settled = {
        "compaction_id": name,
        "state": "superseded",
        "now_ms": NOW,
        "late": 0,
        "epoch": None,
        "entry_no": None,
        "tokens_after": None,
        "reason": "why",
        "summary": None,
        "in_vain": 0,
    }
    return settled | columns


def settle_twice(_: World, tx: Recorder) -> None:
    assert tx.run("compaction.settle", **settling("busy", reason="first", summary="kept")) == 1
    assert tx.run("compaction.settle", **settling("busy", reason="second")) == 0


COMMITTED = {
    "state": "committed",
    "tokens_after": 3,
    "finished_at_ms": NOW,
    "epoch": 1,
    "entry_no": "job-busy/5",
}

CHANGES = [
    Change(
        "compaction.begin",
        "one new job",
        begin,
        {
            "+compaction new": {
                "compaction_id": "new",
                "session_no": "twin",
                "state": "running",
                "trigger": "threshold",
                "base_epoch": 2,
                "cut_no": "twin/17",
                "first_kept_no": "twin/18",
                "tokens_before": 801,
                "instance_no": "gateway",
                "begun_at_ms": NOW,
                "deadline_ms": NOW + 9_000,
                "deadline_max_ms": NOW + 90_000,
            },
            "+event compaction_started/operator": ANY,
        },
    ),
    Change(
        "compaction.record",
        "one new job, and the epoch that it began",
        record,
        {
            "+compaction new": {
                "compaction_id": "new",
                "session_no": "twin",
                "state": "committed",
                "trigger": "import",
                "base_epoch": 2,
                "first_kept_no": "twin/18",
                "tokens_before": 7,
                "tokens_after": 61,
                "begun_at_ms": NOW,
                "deadline_ms": NOW,
                "deadline_max_ms": NOW,
                "finished_at_ms": NOW,
                "epoch": 3,
                "entry_no": "twin/19",
            },
            "session twin": ANY,
            "epoch twin/2": {"closed_head_no": "twin/18", "closed_at_ms": NOW},
            "+epoch twin/3": ANY,
            "+entry twin/19": ANY,
        },
    ),
    Change(
        "compaction.settle",
        "a commit of one job of several",
        commit("busy"),
        {
            "compaction busy": COMMITTED,
            "session job-busy": {
                "updated_at_ms": NOW,
                "last_seq": 5,
                "epoch": 1,
                "head_no": "job-busy/5",
                "boundary_no": "job-busy/5",
                "first_kept_no": "job-busy/4",
                "context_tokens": 3,
            },
            "epoch job-busy/0": {"closed_head_no": "job-busy/4", "closed_at_ms": NOW},
            "+epoch job-busy/1": {
                "reason": "compaction",
                "opened_at_ms": NOW,
                "boundary_no": "job-busy/5",
                "first_kept_no": "job-busy/4",
            },
            "+entry job-busy/5": ANY,
            "+event compaction_committed/operator": ANY,
        },
    ),
    Change(
        "compaction.settle",
        "a commit of a job that was given up is late",
        lambda w, tx: [give_up("busy")(w, tx), commit("busy")(w, tx)],
        {
            "compaction busy": COMMITTED | {"late": 1, "reason": "stop"},
            "session job-busy": ANY,
            "epoch job-busy/0": ANY,
            "+epoch job-busy/1": ANY,
            "+entry job-busy/5": ANY,
            "+event compaction_failed/operator": ANY,
            "+event compaction_late/operator": ANY,
        },
    ),
    Change(
        "compaction.settle",
        "a rejection keeps the summary",
        commit("busy", " "),
        {
            "compaction busy": {
                "state": "rejected",
                "in_vain": 1,
                "finished_at_ms": NOW,
                "reason": "the summary is empty",
                "summary": " ",
            },
            "+event compaction_rejected/operator": ANY,
        },
    ),
    Change(
        "compaction.settle",
        "a job that was superseded is not settled again",
        settle_twice,
        {
            "compaction busy": {
                "state": "superseded",
                "finished_at_ms": NOW,
                "reason": "first",
                "summary": "kept",
            }
        },
    ),
    Change(
        "compaction.finish",
        "one running job of several",
        give_up("busy-too"),
        {
            "compaction busy-too": {
                "state": "cancelled",
                "finished_at_ms": NOW,
                "reason": "stop",
            },
            "+event compaction_failed/operator": ANY,
        },
    ),
    Change(
        "compaction.renew",
        "one running job of several",
        lambda w, tx: compaction.renew(tx, "busy", 9_000),
        {"compaction busy": {"deadline_ms": NOW + 9_000}},
    ),
    Change(
        "compaction.renew",
        "at most to its bound",
        lambda w, tx: compaction.renew(tx, "busy", 2**50),
        lambda w: {"compaction busy": {"deadline_ms": w.row("compaction busy")["deadline_max_ms"]}},
    ),
]


def running(row: Any) -> bool:
    return row["state"] == "running"


GUARDS = [
    Guard(
        "compaction.finish",
        "compaction",
        lambda row: {
            "compaction_id": row["compaction_id"],
            "state": "failed",
            "now_ms": NOW,
            "reason": "why",
        },
        running,
    ),
    Guard(
        "compaction.renew",
        "compaction",
        lambda row: {"compaction_id": row["compaction_id"], "deadline_ms": 1},
        running,
    ),
    Guard(
        "compaction.settle",
        "compaction",
        lambda row: settling(row["compaction_id"]),
        lambda row: row["state"] in ("running", "failed"),
    ),
]


def before(row: Any) -> dict[str, int]:
    return {"before_no": row.compaction_no}


def of_session(name: str, **more: Any) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"session_no": w.no(f"session {name}"), **more}


def cut_page(w: World) -> dict[str, int]:
    low_no = w.no("session live") << 32
    return {
        "low_no": low_no | 4,
        "high_no": low_no | 15,
        "branch_no": w.no("branch live/1"),
    }


def span_of(*places: str, **more: Any) -> Callable[[World], dict[str, Any]]:
    """Return the range of a branch from its first named entry to its last."""

    def params(w: World) -> dict[str, Any]:
        numbers = [w.no(f"entry {place}") for place in places]
        branches = {row["entry_no"]: row["branch_no"] for _, row in w.rows("entry")}
        return {
            "low_no": numbers[0],
            "high_no": numbers[-1],
            "branch_no": branches[numbers[-1]],
            **more,
        }

    return params


def onwards(row: Any) -> dict[str, int]:
    return {"low_no": row.entry_no + 1}


def message_of(event: str) -> Callable[[World], dict[str, Any]]:
    """Return the range that is the entry of a message of the inbox."""

    def params(w: World) -> dict[str, Any]:
        entry_no = w.row(f"inbox {event}")["entry_no"]
        rows = [row for _, row in w.rows("entry") if row["entry_no"] == entry_no]
        return {
            "low_no": entry_no,
            "high_no": entry_no,
            "branch_no": rows[0]["branch_no"],
            "limit": 9,
        }

    return params


def ends(
    event: str,
    ended: bool,
    given_up: bool,
    *,
    once: str = "",
    given: Given = nothing,
    role: str = "user",
) -> list[Read]:
    """Return reads of the entry of a message of the inbox: has it ended, and was it given up?"""
    what = f"{event} {once}".strip()
    return [
        Read(
            "compaction.after_answer",
            what,
            message_of(event),
            [{"role": role, "calls": 0, "has_ended": int(ended), "given_up": int(given_up)}],
            given,
        ),
        Read(
            "compaction.cut_page",
            what,
            message_of(event),
            [{"role": role, "calls": 0, "given_up": int(given_up)}],
            given,
        ),
    ]


def asked(event: str) -> Callable[[World], dict[str, Any]]:
    """Return the range that is the entry of a message of the inbox, without a limit."""
    return lambda w: {name: no for name, no in message_of(event)(w).items() if name != "limit"}


def key_of(event: str, ending: str) -> Given:
    """Give the entry of a message of the inbox a key that begins with that of the message."""
    key = f"inbox:{{}}{ending}"
    return lambda w, tx: set_columns(
        f"entry {event}/1", idempotency_key=key.format(w.no(f"inbox {event}"))
    )(w, tx)


def without_an_answer(w: World, tx: Recorder) -> None:
    turn_no = w.row("inbox running")["turn_no"]
    turns.complete(tx, turn_no, [], [], incomplete=True, reason="nothing usable")


def key_of_another_kind(w: World, tx: Recorder) -> None:
    """Give an entry a key that ends in the number of its message, and is not of the inbox."""
    number = w.no("inbox dead-old")
    set_columns("entry dead-old/1", idempotency_key=f"other:{number}")(w, tx)


def ids_of(w: World) -> list[str]:
    rows = [row for _, row in w.rows("compaction")]
    return [row["compaction_id"] for row in sorted(rows, key=lambda row: -row["compaction_no"])]


PAGES = [
    Page("compaction.list", {"before_no": 2**62}, before, "compaction_id", ids_of),
    Page(
        "compaction.list_of_session",
        of_session("job-tired", before_no=2**62),
        before,
        "compaction_id",
        ["tired-rejected-2", "tired-rejected-1", "tired-rejected-0", "tired-failed"],
    ),
    Page(
        "compaction.cut_page",
        cut_page,
        lambda row: {"high_no": row.entry_no - 1},
        "entry_no",
        [f"live/{seq}" for seq in (15, *range(13, 3, -1))],
    ),
    Page(
        "compaction.after_answer",
        span_of("twin/3", "twin/15"),
        onwards,
        ("entry_no", "role", "calls"),
        [
            ("twin/3", "user", 0),
            ("twin/4", "assistant", 2),
            ("twin/5", "toolResult", 1),
            ("twin/6", "toolResult", 0),
            ("twin/8", "user", 0),
            ("twin/9", "assistant", 0),
            ("twin/11", "user", 0),
            ("twin/13", None, 0),
            ("twin/15", "assistant", 0),
        ],
    ),
    Page(
        "compaction.may_have_results",
        span_of("twin/3", "twin/6"),
        onwards,
        "entry_no",
        ["twin/4", "twin/5", "twin/6"],
        given=set_columns("entry twin/3", projection=0),
    ),
    Page(
        "compaction.results",
        span_of("twin/3", "twin/15"),
        onwards,
        "entry_no",
        ["twin/4", "twin/5", "twin/6"],
        given=set_columns("entry twin/4", role="toolResult"),
    ),
]


def in_list(name: str, **columns: Any) -> list[Read]:
    """Return reads of one job, among all and among those of its session."""

    def params(w: World) -> dict[str, int]:
        return {"before_no": w.row(f"compaction {name}")["compaction_no"] + 1, "limit": 1}

    def own(w: World) -> dict[str, int]:
        return params(w) | {"session_no": w.row(f"compaction {name}")["session_no"]}

    row = {"compaction_id": name, **columns}
    return [
        Read("compaction.list", name, params, [row]),
        Read("compaction.list_of_session", name, own, [row]),
    ]


def body(w: World, place: str) -> bytes:
    row = w.row(f"entry {place}")
    return row["payload"].encode()[row["body_at"] : row["body_at"] + row["body_bytes"]]


READS = [
    Read(
        "compaction.running",
        "of its session, with its process",
        of_session("job-held-too"),
        [{"compaction_id": "held-too", "trigger": "threshold", "program": "dying-too", "pid": 14}],
    ),
    Read(
        "compaction.running",
        "whose process a salvage did not find",
        of_session("job-busy"),
        [{"compaction_id": "busy", "program": None}],
        lambda w, tx: tx.run(
            "salvage.set_compaction", compaction_no=w.row("compaction busy")["compaction_no"]
        ),
    ),
    Read("compaction.running", "none", of_session("job-tired"), []),
    *(
        Read(
            "compaction.recent",
            f"{limit} of {name}",
            of_session(name, limit=limit),
            [{"compaction_id": job, "state": state} for job, state in rows],
        )
        for name, limit, rows in (
            (
                "job-tired-too",
                9,
                [
                    *((f"tired-too-rejected-{no}", "rejected") for no in (2, 1, 0)),
                    ("tired-too-failed", "failed"),
                ],
            ),
            ("job-tired-too", 1, [("tired-too-rejected-2", "rejected")]),
        )
    ),
    Read(
        "compaction.by_id",
        "a committed one, with its entry",
        {"compaction_id": "twin-first"},
        lambda w: [
            {
                "compaction_id": "twin-first",
                "session_no": "twin",
                "session_id": "twin",
                "state": "committed",
                "cut_no": "twin/8",
                "first_kept_no": "twin/9",
                "epoch": 1,
                "entry_id": w.row("entry twin/10")["entry_id"],
            }
        ],
    ),
    Read(
        "compaction.by_id",
        "a running one",
        {"compaction_id": "held"},
        [{"compaction_id": "held", "session_id": "job-held", "entry_id": None}],
    ),
    Read(
        "compaction.by_entry",
        "of its session",
        lambda w: {"session_no": w.no("session twin"), "entry_no": w.no("entry twin/10")},
        [{"compaction_id": "twin-first", "epoch": 1}],
    ),
    Read(
        "compaction.by_entry",
        "of another entry",
        lambda w: {"session_no": w.no("session twin"), "entry_no": w.no("entry twin/9")},
        [],
    ),
    *ends("done-old", True, False),
    *ends("aborted-old", True, True),
    *ends("dead-old", True, True),
    *ends("running", False, False),
    *ends("running", True, True, once="once it is incomplete", given=without_an_answer),
    *ends("dead-old", True, False, once="whose row was pruned", given=without("inbox")),
    *ends(
        *("aborted-old", True, True),
        once="that was only heard",
        given=set_columns("inbox aborted-old", heard=1, turn_no=None, told_no=None),
    ),
    *ends(
        *("dead-old", True, False),
        once="whose number another session's message has",
        given=set_columns("inbox dead-old", session_no="session live"),
    ),
    *ends(
        *("dead-old", False, False),
        once="under a key of its own",
        given=key_of_another_kind,
    ),
    *ends(
        *("dead-old", False, False),
        once="that no user said",
        given=set_columns("entry dead-old/1", role="custom"),
        role="custom",
    ),
    *ends(
        *("aborted-old", True, False),
        once="that a newer one continues",
        given=set_columns("inbox aborted-old", superseded_by="inbox told"),
    ),
    *ends(
        "cut", False, False, once="whose sender was told", given=set_columns("inbox cut", told_no=1)
    ),
    Read(
        "compaction.after_answer",
        "of one branch",
        span_of("twin/9", "twin/17", limit=9),
        [{"entry_no": "twin/17", "role": "user", "has_ended": 0, "given_up": 0}],
    ),
    *(
        Read(
            "compaction.cut_page",
            f"the calls of {place}",
            span_of(place, place, limit=1),
            [{"role": role, "calls": calls}],
        )
        for place, role, calls in (("twin/4", "assistant", 2), ("twin/5", "toolResult", 0))
    ),
    Read(
        "compaction.still_asked",
        "the first of a person of no channel",
        span_of("twin/4", "twin/11"),
        [{"entry_no": "twin/8"}],
    ),
    Read(
        "compaction.still_asked",
        "without a key",
        span_of("twin/4", "twin/11"),
        [{"entry_no": "twin/8"}],
        set_columns("entry twin/8", idempotency_key=None),
    ),
    Read(
        "compaction.still_asked",
        "not what is excluded, and no reply",
        span_of("twin/4", "twin/11"),
        [{"entry_no": "twin/11"}],
        set_columns("entry twin/8", projection=2),
    ),
    Read(
        "compaction.still_asked",
        "of one branch",
        span_of("twin/9", "twin/17"),
        [{"entry_no": "twin/17"}],
    ),
    Read("compaction.still_asked", "of the inbox", asked("running"), [{"entry_no": "running/1"}]),
    Read(
        "compaction.still_asked",
        "of the inbox, and appended again",
        asked("running"),
        [{"entry_no": "running/1"}],
        key_of("running", ":7"),
    ),
    Read(
        "compaction.still_asked",
        "not of another message of the inbox",
        asked("running"),
        [],
        key_of("running", "0"),
    ),
    *(
        Read(
            "compaction.still_asked",
            f"of the inbox, with a key that ends in {ending!r}, {what}",
            lambda w, wanted=wanted: asked("running")(w) | wanted(w),
            [],
            lambda w, tx, ending=ending, columns=columns: [
                key_of("running", ending)(w, tx),
                set_columns("entry running/1", **columns)(w, tx),
            ],
        )
        for ending in ("", ":7")
        for what, columns, wanted in (
            ("no message of a person", {"role": "assistant"}, lambda _w: {}),
            ("excluded", {"projection": 2}, lambda _w: {}),
            ("of another branch", {"role": "user"}, lambda w: {"branch_no": w.no("branch live/1")}),
            (
                "before the range",
                {"role": "user"},
                lambda w: {"low_no": w.no("entry running/1") + 1},
            ),
            (
                "behind the range",
                {"role": "user"},
                lambda w: {"high_no": w.no("entry running/1") - 1},
            ),
        )
    ),
    Read("compaction.still_asked", "not one that is dead", asked("dead"), []),
    Read("compaction.still_asked", "not one that is done", asked("done"), []),
    Read(
        "compaction.may_have_results",
        "of one branch, both ends",
        span_of("twin/4", "twin/5", limit=9),
        lambda w: [
            {"entry_no": f"twin/{seq}", "content": body(w, f"twin/{seq}")} for seq in (4, 5)
        ],
    ),
    Read(
        "compaction.may_have_results",
        "not of another",
        span_of("twin/4", "twin/17", limit=9),
        [{"entry_no": "twin/17"}],
    ),
    Read(
        "compaction.may_have_results",
        "what people said, and not what is excluded",
        span_of("twin/4", "twin/6", limit=9),
        [{"entry_no": "twin/5"}, {"entry_no": "twin/6"}],
        lambda w, tx: [
            set_columns("entry twin/4", projection=2)(w, tx),
            set_columns("entry twin/5", role="user")(w, tx),
        ],
    ),
    Read(
        "compaction.may_have_results",
        "not a command of a person",
        span_of("twin/4", "twin/6", limit=9),
        [{"entry_no": "twin/4"}, {"entry_no": "twin/6"}],
        set_columns("entry twin/5", role="bashExecution"),
    ),
    Read(
        "compaction.results",
        "one alone",
        span_of("twin/6", "twin/6", limit=9),
        lambda w: [{"entry_no": "twin/6", "content": body(w, "twin/6")}],
    ),
    Read("compaction.results", "not of another", span_of("twin/4", "twin/17", limit=9), []),
    Read(
        "compaction.results",
        "not what is excluded, and no user's",
        span_of("twin/3", "twin/6", limit=9),
        [],
        lambda w, tx: [
            set_columns("entry twin/5", projection=2)(w, tx),
            set_columns("entry twin/6", role="user")(w, tx),
        ],
    ),
    Read(
        "compaction.calls",
        "of a reply",
        lambda w: {"entry_no": w.no("entry twin/4")},
        lambda w: [{"content": body(w, "twin/4")}],
    ),
    *(
        Read(
            "compaction.calls",
            f"none: {columns}",
            lambda w: {"entry_no": w.no("entry twin/4")},
            [],
            set_columns("entry twin/4", **columns),
        )
        for columns in ({"projection": 2}, {"role": "user"}, {"open_calls": 0})
    ),
    Read(
        "compaction.reply",
        "that its author excludes",
        lambda w: {"entry_no": w.no("entry live/9")},
        [{"entry_no": "live/9", "content": None}],
        set_columns("entry live/9", projection=2),
    ),
    Read(
        "compaction.reply",
        "a user's message",
        lambda w: {"entry_no": w.no("entry live/8")},
        [{"entry_no": "live/8", "calls": 0, "content": None}],
    ),
    Read(
        "compaction.reply",
        "a result before another",
        lambda w: {"entry_no": w.no("entry live/5")},
        [{"entry_no": "live/5", "calls": 0, "content": None}],
    ),
    Read(
        "compaction.reply",
        "the first entry",
        lambda w: {"entry_no": w.no("entry live/1")},
        [{"entry_no": "live/1", "model_no": None}],
    ),
    Read("compaction.first_message", "one", span_of("twin/8", "twin/8"), [{"entry_no": "twin/8"}]),
    Read(
        "compaction.first_message",
        "of one branch",
        span_of("twin/8", "twin/17"),
        [{"entry_no": "twin/17"}],
    ),
    *ends("resumed", False, False),
    *ends("cut", False, False),
    Read(
        "compaction.reply",
        "that may be an answer",
        lambda w: {"entry_no": w.no("entry live/9")},
        lambda w: [
            {
                "entry_no": "live/9",
                "model_no": "live/4",
                "calls": 0,
                "content": body(w, "live/9"),
            }
        ],
    ),
    Read(
        "compaction.reply",
        "that calls tools",
        lambda w: {"entry_no": w.no("entry live/4")},
        [{"entry_no": "live/4", "model_no": "live/2", "calls": 2, "content": None}],
    ),
    Read(
        "compaction.reply",
        "a model change",
        lambda w: {"entry_no": w.no("entry live/2")},
        [{"entry_no": "live/2", "model_no": None, "calls": 0, "content": None}],
    ),
    Read(
        "compaction.message",
        "as it was appended",
        lambda w: {"entry_no": w.no("entry twin/5")},
        lambda w: [{"entry_no": "twin/5", "content": body(w, "twin/5")}],
    ),
    Read(
        "compaction.first_message",
        "of a branch's range, behind settings",
        span_of("twin/1", "twin/15"),
        [{"entry_no": "twin/3"}],
    ),
    Read("compaction.first_message", "there is none", span_of("twin/1", "twin/2"), []),
    *in_list("held", session_id="job-held", state="running", epoch=None, late=0),
    *in_list("overdue", owner="15@another host"),
    *in_list("twin-recorded", session_id="twin-reset", state="committed", epoch=2, owner=None),
]

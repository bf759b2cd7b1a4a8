"""Cases of queries/transcript.sql."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

from sessiondb.clock import iso_from_ms
from sessiondb.transcript import append, registry
from sessiondb.transcript.entries import draft_decoded
from tests.support.core import user
from tests.support.statement_cases import Change, Guard, Page, Read
from tests.support.world import Recorder, World
from tests.support.world_build import NOW


def say(name: str, text: str = "hello", key: str = "hello") -> Callable[[World, Recorder], object]:
    def rule(w: World, tx: Recorder) -> None:
        draft, _ = draft_decoded(user(text), now_ms=NOW, idempotency_key=key)
        draft.entry_id = "new"
        append.append(tx, w.no(f"session {name}"), [draft])

    return rule


def branch(w: World, tx: Recorder) -> None:
    no = w.no("session twin")
    entry_id = w.row("entry twin/3")["entry_id"]
    registry.branch(tx, no, entry_id, iso_from_ms(NOW))
    say("twin")(w, tx)


def reset(w: World, tx: Recorder) -> None:
    registry.reset(
        tx, w.no("session twin"), reason="new", keep_from=None, timestamp=iso_from_ms(NOW)
    )


CHANGES = [
    Change(
        "transcript.insert_entry",
        "an entry, and its session",
        say("twin-undone"),
        {
            "session twin-undone": {
                "updated_at_ms": NOW,
                "last_seq": 7,
                "head_no": "twin-undone/7",
                "context_tokens": 253,
                "heard_at_ms": NOW,
            },
            "+entry twin-undone/7": {
                "branch_no": "twin-undone/1",
                "parent_no": "twin-undone/6",
                "position": 7,
                "type": "message",
                "role": "user",
                "projection": 1,
                "tokens": 2,
                "tokens_total": 253,
                "model_no": "twin-undone/4",
                "body_at": ANY,
                "body_bytes": 33,
                "appended_at_ms": NOW,
                "entry_id": "new",
                "idempotency_key": "hello",
                "payload": ANY,
            },
        },
    ),
    Change(
        "transcript.by_idempotency_key",
        "the same again",
        say("twin-undone", "c".ljust(200), "c"),
        {},
    ),
    *(
        Change(
            f"transcript.{statement}",
            "a branch, its epoch and its leaf record",
            branch,
            {
                "session twin": {
                    "updated_at_ms": NOW,
                    "last_seq": 20,
                    "epoch": 3,
                    "head_no": "twin/20",
                    "branch_no": "twin/20",
                    "boundary_no": None,
                    "first_kept_no": None,
                    "context_tokens": 52,
                    "tokens_fresh": 0,
                    "heard_at_ms": NOW,
                    "asked_no": None,
                },
                "epoch twin/2": {"closed_head_no": "twin/18", "closed_at_ms": NOW},
                "+epoch twin/3": {"reason": "branch", "opened_at_ms": NOW},
                "+entry twin/19": {
                    "parent_no": "twin/3",
                    "position": 0,
                    "type": "leaf",
                    "projection": 0,
                    "appended_at_ms": NOW,
                    "entry_id": ANY,
                    "payload": ANY,
                },
                "+entry twin/20": ANY,
                "+branch twin/20": {
                    "session_no": "twin",
                    "parent_branch_no": "twin/1",
                    "fork_no": "twin/3",
                    "first_no": "twin/20",
                },
            },
        )
        for statement in ("insert_branch", "insert_control_record", "open_epoch")
    ),
    Change(
        "transcript.close_epoch",
        "the open epoch of one session",
        reset,
        {
            "session twin": {
                "updated_at_ms": NOW,
                "last_seq": 19,
                "epoch": 3,
                "head_no": "twin/19",
                "boundary_no": "twin/19",
                "first_kept_no": None,
                "context_tokens": 0,
                "tokens_fresh": 0,
            },
            "epoch twin/2": {"closed_head_no": "twin/18", "closed_at_ms": NOW},
            "+epoch twin/3": {"reason": "reset", "opened_at_ms": NOW, "boundary_no": "twin/19"},
            "+entry twin/19": ANY,
            "+event session_reset/operator": ANY,
        },
    ),
    Change(
        "transcript.save_state",
        "every column",
        lambda w, tx: tx.run(
            "transcript.save_state",
            session_no=w.no("session twin"),
            now_ms=NOW,
            last_seq=101,
            epoch=102,
            head_no=w.no("entry twin/1"),
            branch_no=w.no("branch twin/1"),
            boundary_no=w.no("entry twin/2"),
            first_kept_no=w.no("entry twin/3"),
            context_tokens=103,
            tokens_fresh=0,
            name="n",
            heard_at_ms=104,
            formats=8,
            ordered_from_no=105,
            open_marks="m",
            asked_no=106,
        ),
        {
            "session twin": {
                "updated_at_ms": NOW,
                "last_seq": 101,
                "epoch": 102,
                "head_no": "twin/1",
                "branch_no": "twin/1",
                "boundary_no": "twin/2",
                "first_kept_no": "twin/3",
                "context_tokens": 103,
                "tokens_fresh": 0,
                "name": "n",
                "heard_at_ms": 104,
                "formats": 8,
                "ordered_from_no": 105,
                "open_marks": "m",
                "asked_no": 106,
            }
        },
    ),
]
GUARDS = [
    Guard(
        "transcript.close_epoch",
        "epoch",
        lambda row: {
            "session_no": row["session_no"],
            "epoch": row["epoch"],
            "head_no": 1,
            "now_ms": NOW,
        },
        lambda row: row["closed_at_ms"] is None,
    )
]


def span(w: World, branch: str = "live/1", low: int = 1, high: int = 18) -> dict[str, int]:
    """Return the bounds of a range of the session's entries, and a branch of it."""
    low_no = w.no(f"session {branch.partition('/')[0]}") << 32
    found = {"low_no": low_no | low, "high_no": low_no | high}
    return found | {"branch_no": w.no(f"branch {branch}")}


def all_entries(w: World) -> dict[str, int]:
    found = span(w)
    del found["branch_no"]
    return found


def forward(row: Any) -> dict[str, int]:
    return {"low_no": row.entry_no + 1}


def seqs(*seqs: int) -> list[str]:
    return [f"live/{seq}" for seq in seqs]


def of_types(w: World, types: set[str], among: list[int]) -> list[str]:
    labels = seqs(*among)
    return [label for label in labels if w.row(f"entry {label}")["type"] in types]


def typed_of_live(w: World) -> list[str]:
    return of_types(w, {"message", "compaction"}, [*range(1, 14), 15])


def messages_of_live(w: World) -> list[str]:
    return of_types(w, {"message"}, [15, *range(13, 2, -1)])


PAGES = [
    Page("transcript.span_forward", span, forward, "entry_no", seqs(*range(1, 14), 15)),
    Page(
        "transcript.span_forward",
        lambda w: span(w, low=3, high=6),
        forward,
        "entry_no",
        seqs(3, 4, 5, 6),
        key="with both ends",
    ),
    Page(
        "transcript.span_backward",
        lambda w: span(w, low=3, high=15),
        lambda row: {"high_no": row.entry_no - 1},
        "entry_no",
        seqs(15, *range(13, 2, -1)),
    ),
    Page(
        "transcript.newest_in_span",
        lambda w: span(w, low=3, high=15),
        lambda row: {"high_no": row.entry_no - 1},
        "entry_no",
        seqs(15, *range(13, 2, -1)),
    ),
    Page(
        "transcript.typed_forward",
        lambda w: {**span(w), "types": '["message", "compaction"]'},
        forward,
        "entry_no",
        typed_of_live,
    ),
    Page(
        "transcript.typed_backward",
        lambda w: {**span(w, low=3, high=15), "types": '["message"]'},
        lambda row: {"high_no": row.entry_no - 1},
        "entry_no",
        messages_of_live,
    ),
    Page("transcript.all_entries", all_entries, forward, "entry_no", seqs(*range(1, 19))),
    Page(
        "transcript.epochs",
        lambda w: {"session_no": w.no("session live"), "epoch": 0},
        lambda row: {"epoch": row.epoch + 1},
        "reason",
        ["start", "compaction", "branch"],
    ),
]


def twice(w: World, tx: Recorder) -> None:
    """Repeat an id in its own session and in another one, as files have been seen to do."""
    for name, seq in (("twin", 40), ("twin-fork", 41)):
        tx.run(
            "transcript.insert_control_record",
            entry_no=w.no(f"session {name}") << 32 | seq,
            parent_no=None,
            type="leaf",
            appended_at_ms=NOW,
            entry_id=w.row("entry twin/3")["entry_id"],
            idempotency_key=None,
            payload="{}",
        )


def by_id(w: World) -> dict[str, Any]:
    row = w.row("entry twin/3")
    return {"session_no": w.no("session twin"), "entry_id": row["entry_id"]}


def of_session(name: str, **more: Any) -> Callable[[World], dict[str, Any]]:
    return lambda w: {"session_no": w.no(f"session {name}"), **more}


def undo_of(name: str, boundary: str, epoch: int) -> Callable[[World], dict[str, Any]]:
    return lambda w: {
        "session_no": w.no(f"session {name}"),
        "boundary_no": w.no(f"entry {boundary}"),
        "epoch": epoch,
        "last_epoch": 9,
    }


def undo_a_reset(w: World, _tx: Recorder) -> None:
    """Let a reset follow a compaction, and let an undo follow the reset."""
    session_no = w.no("session twin-undone")
    w.connection.execute(
        "UPDATE epoch SET reason = 'reset' WHERE session_no = ? AND epoch = 2", (session_no,)
    )
    w.connection.execute(
        "INSERT INTO epoch (session_no, epoch, reason, opened_at_ms) VALUES (?, 3, 'undo', 1)",
        (session_no,),
    )


READS = [
    *(
        Read(
            "transcript.undone",
            what,
            lambda w, boundary=boundary, last=last: {
                "session_no": w.no("session twin-undone"),
                "boundary_no": w.no(f"entry {boundary}"),
                "epoch": 1,
                "last_epoch": last,
            },
            [{"epoch": found}] if found else [],
        )
        for what, boundary, last, found in (
            ("it was", "twin-undone/5", 2, 2),
            ("not so far", "twin-undone/5", 1, None),
            ("another one was", "live-undone/5", 2, None),
        )
    ),
    Read(
        "transcript.origin",
        "of a fork",
        lambda w: {"session_no": w.no("session twin-fork")},
        [{"forked_from_no": "twin", "forked_epoch": 2}],
    ),
    Read("transcript.undone", "not after it", undo_of("twin-undone", "twin-undone/5", 2), []),
    Read("transcript.undone", "a branch is no undo", undo_of("twin", "twin/10", 1), []),
    Read(
        "transcript.undone",
        "not another context since",
        undo_of("twin-undone", "twin-undone/5", 1),
        [],
        undo_a_reset,
    ),
    Read(
        "transcript.usage",
        "of the first entry",
        lambda w: {"entry_no": w.no("entry twin/1")},
        [{"usage_tokens": None, "model_no": None}],
    ),
    Read(
        "transcript.usage",
        "of a reply",
        lambda w: {"entry_no": w.no("entry twin/15")},
        [{"usage_tokens": 701, "boundary_no": "twin/10", "model_no": "twin/9"}],
    ),
    Read(
        "transcript.usage",
        "of what else set the model, the first to do so",
        lambda w: {"entry_no": w.no("entry twin/2")},
        [{"usage_tokens": None, "boundary_no": None, "model_no": None}],
    ),
    Read(
        "transcript.state",
        "with what the head passes on",
        of_session("live-undone"),
        [
            {
                "session_no": "live-undone",
                "session_id": "live-undone",
                "version": 3,
                "ended_at_ms": None,
                "last_seq": 6,
                "epoch": 2,
                "head_no": "live-undone/6",
                "branch_no": "live-undone/1",
                "boundary_no": None,
                "first_kept_no": None,
                "context_tokens": 251,
                "tokens_fresh": 0,
                "name": None,
                "archived_at_ms": None,
                "position": 6,
                "tokens_total": 251,
                "open_calls": 0,
                "model_no": "live-undone/4",
                "thinking_no": None,
            }
        ],
    ),
    Read(
        "transcript.state",
        "without a head",
        of_session("live-ended"),
        [{"head_no": None, "head_id": None, "position": 0, "tokens_total": 0, "open_calls": 0}],
    ),
    Read(
        "transcript.state",
        "with open calls",
        of_session("twin-reset"),
        [{"session_id": "twin-reset", "open_calls": 1, "boundary_no": "twin-reset/6"}],
    ),
    Read(
        "transcript.archived",
        "an archived session",
        of_session("old"),
        lambda w: [{"session_id": "old", "archived_at_ms": w.row("session old")["archived_at_ms"]}],
    ),
    Read(
        "transcript.branch",
        "one branch",
        lambda w: {"branch_no": w.no("branch live/17")},
        [
            {
                "branch_no": "live/17",
                "session_no": "live",
                "parent_branch_no": "live/1",
                "fork_no": "live/11",
                "first_no": "live/17",
            }
        ],
    ),
    Read(
        "transcript.by_idempotency_key",
        "of its own session",
        of_session("twin-undone", idempotency_key="c"),
        [{"entry_no": "twin-undone/3", "position": 3, "tokens": 50}],
    ),
    Read(
        "transcript.by_idempotency_key",
        "of no other",
        of_session("twin", idempotency_key="c"),
        [],
    ),
    Read("transcript.by_id", "of its own session", by_id, [{"entry_no": "twin/3"}]),
    Read(
        "transcript.by_id",
        "the newest of two",
        by_id,
        [{"entry_no": "twin/40", "type": "leaf"}],
        twice,
    ),
    Read(
        "transcript.by_no",
        "one entry",
        lambda w: {"entry_no": w.no("entry twin/10")},
        [
            {
                "entry_no": "twin/10",
                "branch_no": "twin/1",
                "parent_no": "twin/9",
                "type": "compaction",
                "boundary_no": "twin/10",
                "first_kept_no": "twin/9",
            }
        ],
    ),
    *(
        Read(
            "transcript.first_in_span",
            f"{branch} {low} {high}",
            lambda w, branch=branch, low=low, high=high: span(w, branch, low, high),
            [{"entry_no": found}] if found else [],
        )
        for branch, low, high, found in (
            ("live/1", 3, 9, "live/3"),
            ("live/1", 14, 18, "live/15"),
            ("live/17", 3, 18, "live/17"),
            ("live/17", 3, 17, "live/17"),
            ("live/17", 3, 16, None),
        )
    ),
    Read(
        "transcript.epoch",
        "one of its session",
        of_session("live-undone", epoch=1),
        [
            {
                "epoch": 1,
                "reason": "compaction",
                "boundary_no": "live-undone/5",
                "first_kept_no": "live-undone/4",
                "closed_head_no": "live-undone/5",
            }
        ],
    ),
    *(
        Read(
            "transcript.first_epoch_not_compaction",
            f"{name} after {epoch}",
            of_session(name, epoch=epoch),
            [{"epoch": found, "reason": reason}] if found else [],
        )
        for name, epoch, found, reason in (
            ("live", 0, 2, "branch"),
            ("live", 2, None, None),
            ("live-reset", 0, 1, "reset"),
            ("live-undone", 0, 2, "undo"),
        )
    ),
    Read(
        "transcript.first_epoch_not_compaction",
        "the first of two",
        of_session("live", epoch=0),
        [{"epoch": 2, "reason": "branch"}],
        lambda w, _tx: w.connection.execute(
            "INSERT INTO epoch (session_no, epoch, reason, opened_at_ms) VALUES (?, 3, 'reset', 1)",
            (w.no("session live"),),
        ),
    ),
]

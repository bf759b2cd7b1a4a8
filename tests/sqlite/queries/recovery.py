"""Cases of queries/recovery.sql."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import ANY

from sessiondb.gateway import recovery
from tests.support.statement_cases import Change, Guard, Page, Read, run
from tests.support.world import Recorder, World
from tests.support.world_build import DAY, HOUR, NOW, SECOND


def release(w: World, tx: Recorder) -> None:
    recovery.release(tx, w.no("instance dying"), "dying, pid 13")


CHANGES = [
    Change(
        "recovery.close_dead_instance",
        "one dead process, and what it held. The living and the other dead keep theirs",
        release,
        {
            "instance dying": {"closed_at_ms": NOW, "unclean": 1},
            "turn held#1": {
                "state": "interrupted",
                "finished_at_ms": NOW,
                "reason": "its process (dying, pid 13) died",
            },
            "inbox held": {"state": "interrupted", "reason": "its process (dying, pid 13) died"},
            "compaction held": {
                "state": "abandoned",
                "finished_at_ms": NOW,
                "reason": "its process (dying, pid 13) died",
            },
            "outbox web:held": {
                "state": "unknown",
                "finished_at_ms": NOW,
                "reason": "its process (dying, pid 13) died",
            },
            "+event turn_interrupted/user": ANY,
            "+event turn_interrupted/operator": ANY,
            "+event compaction_failed/operator": ANY,
            "+event reply_unknown/operator": ANY,
            "+event recovery_done/operator": ANY,
        },
    ),
    Change(
        "recovery.close_idle",
        "one process of several, and that is no unclean end",
        run("recovery.close_idle", instance_no="instance remote", now_ms=NOW),
        {"instance remote": {"closed_at_ms": NOW}},
    ),
]
GUARDS = [
    Guard(
        "recovery.close_dead_instance",
        "instance",
        lambda row: {"instance_no": row["instance_no"], "now_ms": NOW},
        lambda row: row["closed_at_ms"] is None,
    ),
    Guard(
        "recovery.close_idle",
        "instance",
        lambda row: {"instance_no": row["instance_no"], "now_ms": NOW},
        lambda row: row["closed_at_ms"] is None,
    ),
]
PAGES = [
    Page(
        "recovery.open_instances",
        {"after_no": 0},
        lambda row: {"after_no": row.instance_no},
        "program",
        ["dying", "dying-too", "gateway", "other", "remote"],
    )
]

OPENED = NOW - 10 * DAY
DYING = OPENED + 3 * SECOND  # process "dying" was opened then
COMMAND_LINE = "sessiondb"


def unclean(
    what: str, starts: int, since_ms: int = OPENED, now_ms: int = NOW, **options: Any
) -> Read:
    """Count unclean ends among 3 of gateway, 2 of cron and 4 of the command line."""

    def given(w: World, tx: Recorder) -> None:
        at_ms = NOW - HOUR
        for program, count in (("gateway", 3), ("cron", 2), (COMMAND_LINE, 4)):
            for _ in range(count):
                w.connection.execute(
                    "INSERT INTO instance (host, boot_id, pid, pid_started, program, opened_at_ms,"
                    " closed_at_ms, unclean) VALUES ('h', 'b', 0, 0, ?, ?, 0, 1)",
                    (program, at_ms),
                )
                at_ms += 1000

    def params(w: World) -> dict[str, Any]:
        program = options.get("program")
        return {
            "since_ms": since_ms,
            "now_ms": now_ms,
            "dead": json.dumps([w.no(f"instance {name}") for name in options.get("dead", ())]),
            "instance_no": w.no(f"instance {program}") if program else None,
            "command_line": COMMAND_LINE,
        }

    return Read("recovery.unclean_starts", what, params, [{"starts": starts}], given)


def jobs(limit: int, program: str, *names: str) -> Read:
    return Read(
        "recovery.running_compactions",
        f"{limit} of {program}",
        lambda w: {"instance_no": w.no(f"instance {program}"), "limit": limit},
        [{"compaction_id": name, "session_no": f"job-{name}"} for name in names],
    )


IDLE, CLOSED = 4711, 4712


def idle(
    what: str, *numbers: int, listed: tuple[int, ...] = (IDLE, CLOSED), held: str = ""
) -> Read:
    """Ask which of two processes hold nothing, once one has got something of a living one."""

    def given(w: World, tx: Recorder) -> None:
        for number, closed_at_ms in ((IDLE, None), (CLOSED, NOW)):
            w.connection.execute(
                "INSERT INTO instance (instance_no, host, boot_id, pid, pid_started, program,"
                " opened_at_ms, closed_at_ms) VALUES (?, 'h', 'b', 0, 0, 'idle', 0, ?)",
                (number, closed_at_ms),
            )
        if held:
            w.connection.execute(held, (IDLE, w.no("instance gateway")))

    return Read(
        "recovery.idle",
        what,
        {"instances": json.dumps(listed)},
        [{"instance_no": f"no {number}"} for number in numbers],
        given,
    )


READS = [
    Read(
        "recovery.is_open",
        "an open one",
        lambda w: {"instance_no": w.no("instance dying")},
        lambda w: [{"instance_no": "dying"}],
    ),
    Read(
        "recovery.is_open", "one that died", lambda w: {"instance_no": w.no("instance killed")}, []
    ),
    idle("of two, one of which is closed", IDLE),
    idle("that are not in the list", listed=(CLOSED,)),
    *(
        idle(
            f"with rows of {table}, state {is_state}",
            *found,
            held=f"UPDATE {table} SET instance_no = ? WHERE instance_no = ? AND state {is_state}",
        )
        for table, state in (("turn", "running"), ("compaction", "running"), ("outbox", "sending"))
        for is_state, found in ((f"= '{state}'", ()), (f"<> '{state}'", (IDLE,)))
    ),
    jobs(9, "dying", "held"),
    jobs(9, "remote", "overdue"),
    jobs(0, "remote"),
    jobs(9, "gateway", "busy"),  # of many that it ran
    *(
        Read(
            "recovery.overdue_compactions",
            what,
            lambda w, early=early: {
                "before_ms": w.row("compaction overdue")["deadline_ms"] - early,
                "limit": 9,
            },
            [{"compaction_id": name} for name in names],
        )
        for what, early, names in (("at its deadline", 0, ["overdue"]), ("before it", 1, []))
    ),
    jobs(9, "killed"),
    *(
        Read(
            "recovery.overdue_compactions",
            f"{limit} before {before_ms}",
            {"before_ms": before_ms, "limit": limit},
            [{"compaction_id": name} for name in names],
        )
        for limit, before_ms, names in (
            (9, NOW, ["overdue", "overdue-too"]),
            (1, NOW, ["overdue"]),
            (9, OPENED, []),
            (9, NOW - 10 * DAY + 2 * HOUR, ["overdue"]),
        )
    ),
    unclean("of the caller's own program", 3, program="gateway"),
    unclean("of a program that never died", 0, program="other"),
    unclean("for a reader: the program with most, without the command line", 3),
    unclean("for the command line: the program with most", 3, program="sessiondb"),
    unclean("since a time", 2, since_ms=NOW - HOUR + 1000, program="gateway"),
    unclean("since another", 1, since_ms=NOW - HOUR + 1001, program="gateway"),
    unclean("until a time", 1, now_ms=NOW - HOUR, program="gateway"),
    unclean("with one found dead", 1, program="dying", dead=("dying",)),
    unclean("with one found dead, of old", 0, OPENED + HOUR, program="dying", dead=("dying",)),
    unclean("with one found dead, to the ms", 1, DYING, DYING, program="dying", dead=("dying",)),
    unclean("with one found dead, not twice", 1, program="killed", dead=("killed",)),
    unclean("with none found dead", 0, program="dying"),
    Read(
        "recovery.held",
        "by whom, the oldest first",
        {},
        [
            *(
                {"what": "compaction", "session_id": f"job-{name}", "program": program}
                for name, program in (
                    ("busy", "gateway"),
                    ("busy-too", "other"),
                    ("held", "dying"),
                    ("held-too", "dying-too"),
                    ("overdue", "remote"),
                    ("overdue-too", "finished"),
                )
            ),
            *(
                {"what": "turn", "session_id": name, "program": program}
                for name, program in (
                    ("running", "gateway"),
                    ("running-too", "other"),
                    ("held", "dying"),
                    ("held-too", "dying-too"),
                    ("silent", "other"),
                    ("resuming", "other"),
                )
            ),
            *(
                {"what": "reply", "session_id": f"reply-{name}", "program": program}
                for name, program in (
                    ("held", "dying"),
                    ("held-too", "dying-too"),
                    ("sending", "gateway"),
                    ("sending-too", "other"),
                    ("late", "remote"),
                    ("late-too", "other"),
                )
            ),
        ],
    ),
]

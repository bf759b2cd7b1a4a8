"""Cases of queries/status.sql."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.statement_cases import Change, Guard, Page, Read, set_columns, without
from tests.support.world import Recorder, World, tables
from tests.support.world_build import NOW

CHANGES: list[Change] = []
GUARDS: list[Guard] = []
PAGES: list[Page] = []


def count(w: World, table: str, holds: Callable[[Any], bool] = lambda _: True) -> int:
    return sum(1 for _, row in w.rows(table) if holds(row))


def state(name: str) -> Callable[[Any], bool]:
    return lambda row: row["state"] == name


def work(w: World) -> list[dict[str, int]]:
    running = state("running")
    return [
        {
            "messages_waiting": count(w, "inbox", state("queued")),
            "messages_interrupted": count(w, "inbox", state("interrupted")),
            "messages_dead": count(w, "inbox", state("dead")),
            "turns_running": count(w, "turn", running),
            "turns_overdue": count(
                w, "turn", lambda row: running(row) and row["expires_at_ms"] <= NOW
            ),
            **{
                f"replies_{name}": count(w, "outbox", state(name))
                for name in ("pending", "sending", "unknown", "failed")
            },
            "events": max(row["event_no"] for _, row in w.rows("event")),
        }
    ]


def totals(w: World) -> list[dict[str, int]]:
    return [
        {
            "sessions": max(row["session_no"] for _, row in w.rows("session")),
            "import_files": max(row["import_file_no"] for _, row in w.rows("import_file")),
            "processes_open": count(w, "instance", lambda row: row["closed_at_ms"] is None),
        }
    ]


def numbers(w: World) -> list[dict[str, int]]:
    tables = {"messages": "inbox", "turns": "turn", "replies": "outbox", "events": "event"}
    highest = {
        name: max(row[f"{table}_no"] for _, row in w.rows(table)) for name, table in tables.items()
    }
    return [highest]


def recent_turns(since_ms: int) -> Callable[[World], list[dict[str, Any]]]:
    def by_state(w: World) -> list[dict[str, Any]]:
        rows = [row for _, row in w.rows("turn") if row["started_at_ms"] >= since_ms]
        found = Counter(row["state"] for row in rows)
        return [{"state": name, "turns": turns} for name, turns in sorted(found.items())]

    return by_state


def pieces(w: World, _tx: Recorder) -> None:
    """Give a file a blank first line, and a piece below offset 0, as an index has."""
    for byte_offset, severity in ((0, "blank"), (-1, "blank")):
        w.connection.execute(
            "INSERT INTO quarantine (import_file_no, line, byte_offset, after_seq, reason,"
            " severity, content) VALUES (?, 0, ?, -1, 'x', ?, x'')",
            (w.no("import_file main/clean.jsonl"), byte_offset, severity),
        )


def counts(w: World) -> list[dict[str, int]]:
    return [
        {
            "sessions_ended": count(w, "session", lambda row: row["ended_at_ms"] is not None),
            "keys": count(w, "binding"),
            "entries": sum(row["last_seq"] for _, row in w.rows("session")),
            "lines_damaged": count(w, "quarantine", lambda row: row["severity"] == "damaged"),
            "lines_blank": count(w, "quarantine", lambda row: row["severity"] == "blank"),
        }
    ]


def lanes(w: World) -> list[dict[str, Any]]:
    """Return what is in each lane. A message that is resumed belongs to the lane it came from."""
    messages = [dict(row) for _, row in w.rows("inbox")]
    next(row for row in messages if row["event_id"] == "cut").update(RESUMED_OF_CRON)
    found = []
    for _, lane in sorted(w.rows("lane"), key=lambda row: (row[1]["priority"], row[1]["lane"])):
        name = lane["lane"]
        waiting = [row for row in messages if (row["state"], row["lane"]) == ("queued", name)]
        of_lane = [row for row in messages if (row["lane_before"] or row["lane"]) == name]
        found.append(
            {
                "lane": name,
                "concurrency": lane["concurrency"],
                "priority": lane["priority"],
                "people": lane["people"],
                "running": count(
                    w, "turn", lambda row, name=name: state("running")(row) and row["lane"] == name
                ),
                "waiting": len(waiting),
                "oldest_waiting_ms": min((row["accepted_at_ms"] for row in waiting), default=None),
                "interrupted": sum(map(state("interrupted"), of_lane)),
                "dead": sum(map(state("dead"), of_lane)),
            }
        )
    return found


RESUMED_OF_CRON = {"lane": "resume", "lane_before": "cron"}


def jobs(w: World) -> list[dict[str, Any]]:
    states = sorted({row["state"] for _, row in w.rows("compaction")})
    return [{"state": name, "jobs": count(w, "compaction", state(name))} for name in states]


def relations(w: World) -> list[dict[str, str]]:
    rows = w.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view'").fetchall()
    views = sorted(name for (name,) in rows)
    return [{"name": name, "type": "view"} for name in views] + [
        {"name": name, "type": "table"} for name in sorted({*tables(), "search"})
    ]


READS = [
    Read("status.work", "every count", {"now_ms": NOW}, work),
    Read(
        "status.work",
        "at the end of a lease",
        lambda w: {"now_ms": w.row("turn silent#1")["expires_at_ms"]},
        [{"turns_overdue": 2}],
    ),
    Read("status.work", "without any event", {"now_ms": NOW}, [{"events": 0}], without("event")),
    Read("status.totals", "the highest numbers", {}, totals),
    Read("status.totals", "without any session", {}, [{"sessions": 0}], without("session")),
    Read(
        "status.totals",
        "without any import",
        {},
        [{"import_files": 0}],
        without("import_file"),
    ),
    Read("status.numbers", "the highest numbers", {}, numbers),
    Read(
        "status.numbers",
        "the highest number of all is another table's",
        {},
        lambda w: [{"replies": 9_000, "events": numbers(w)[0]["events"]}],
        lambda w, _tx: w.connection.execute(
            "UPDATE sqlite_sequence SET seq = 9000 WHERE name = 'outbox'"
        ),
    ),
    *(
        Read("status.recent_turns", what, {"since_ms": since_ms}, recent_turns(since_ms))
        for what, since_ms in (("those since then, by state", NOW), ("all, by state", 0))
    ),
    Read("status.counts", "every count", {}, counts),
    Read(
        "status.counts",
        "lines from the first byte on, and no piece that is none",
        {},
        lambda w: [
            {
                "lines_damaged": counts(w)[0]["lines_damaged"],
                "lines_blank": counts(w)[0]["lines_blank"] + 1,
            }
        ],
        pieces,
    ),
    Read(
        "status.counts",
        "without any session",
        {},
        [{"sessions_ended": 0, "entries": 0}],
        without("session"),
    ),
    Read("status.lanes", "each", {}, lanes, set_columns("inbox cut", **RESUMED_OF_CRON)),
    Read("status.compactions", "by state", {}, jobs),
    *(
        Read(
            "status.running",
            f"{limit} with their processes, the oldest first",
            {"limit": limit},
            [
                {"compaction_id": name, "session_id": f"job-{name}", "program": program}
                for name, program in (
                    ("busy", "gateway"),
                    ("busy-too", "other"),
                    ("held", "dying"),
                    ("held-too", "dying-too"),
                    ("overdue", "remote"),
                    ("overdue-too", "finished"),
                )
            ][:limit],
        )
        for limit in (9, 2)
    ),
    Read(
        "status.running",
        "whose process is lost",
        {"limit": 1},
        [{"compaction_id": "busy", "program": None}],
        without("instance"),
    ),
    Read(
        "status.processes",
        "open ones, newest first",
        {"limit": 9},
        [{"program": name} for name in ("remote", "other", "gateway", "dying-too", "dying")],
    ),
    Read("status.processes", "the newest", {"limit": 1}, [{"program": "remote"}]),
    Read(
        "status.channels",
        "most first",
        {"now_ms": NOW, "limit": 9},
        [{"channel": "web", "replies_waiting": 8}, {"channel": "telegram", "replies_waiting": 6}],
        set_columns("outbox telegram:pending-too", channel="web"),
    ),
    *(
        Read(
            "status.channels",
            f"{limit} with a pause in force or not",
            {"now_ms": NOW, "limit": limit},
            [
                {"channel": "telegram", "replies_waiting": 7, "until_ms": NOW + 1, "reason": "429"},
                {"channel": "web", "replies_waiting": 7, "until_ms": None, "reason": None},
            ][:limit],
            lambda w, tx, over=over: [
                tx.run(
                    "channels.put_pause",
                    channel=channel,
                    refused_since_ms=1,
                    pauses=1,
                    now_ms=now_ms,
                    until_ms=until_ms,
                    reason="429",
                )
                for channel, now_ms, until_ms in (
                    ("telegram", NOW, NOW + 1),
                    ("web", *over),
                )
            ],
        )
        for limit, over in ((9, (1, NOW)), (1, (1, NOW)), (9, (NOW + 1, NOW + 2)))
    ),
    Read(
        "status.stuck",
        "with the process that has it, by the clock of the file's reader",
        {"limit": 1},
        lambda w: [
            {
                "what": "turn",
                "name": str(w.no("turn silent#1")),
                "problem": "past its lease",
                "program": "other",
            }
        ],
        lambda w, tx: w.connection.execute(
            "UPDATE turn SET expires_at_ms = iif(turn_no = ?, 1000, 1 << 50)",
            (w.no("turn silent#1"),),
        ),
    ),
    Read(
        "status.stuck",
        "whose process is lost",
        {"limit": 1},
        [{"program": None}],
        without("instance"),
    ),
    Read("status.relations", "views first", {}, relations),
    *(
        Read(
            "status.branches",
            f"{limit} of one session",
            lambda w, limit=limit: {"session_no": w.no("session live"), "limit": limit},
            [
                {"branch_no": name, "fork_no": fork_no, "first_no": name}
                for name, fork_no in (
                    ("live/1", None),
                    ("live/14", "live/13"),
                    ("live/17", "live/11"),
                )
            ][:limit],
        )
        for limit in (9, 2)
    ),
]

"""Eight writers and eight readers of one file lose nothing and see whole snapshots.

The processes and their work are in `process_storm.py`. The readers check while all of
them run. Here, when all have ended, their ledgers are compared with the file: every
acknowledged write is there, once.

The storm is also run against builds that are broken on purpose, and must report them.

`SESSIONDB_STORM` is the number of entries of a long storm (20,000 take some minutes).
`SESSIONDB_STORM_SEED` chooses what each process wants to do. The scheduler's part is
never the same twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

import sessiondb.sync
from tests.proofs.crash.process_storm import Settings
from tests.support.core import query
from tests.support.engine import CHECKOUT, names_in

ENTRIES = int(os.environ.get("SESSIONDB_STORM", "200"))
SEED = int(os.environ.get("SESSIONDB_STORM_SEED", "20261120"))
# No storm lasts this long unless it hangs, however crowded the machine is.
PATIENCE_S = 600.0 + ENTRIES / 5
# The sessions of a long storm stay of a size that a reader can read whole, again and again.
ENTRIES_PER_SESSION = 600

pytestmark = pytest.mark.slow

Line = dict[str, Any]


@dataclass
class Storm:
    """A storm that is over: what each process wrote into its ledger, and whether all ended well."""

    settings: Settings
    ended: int | None
    wrote: str
    ledgers: dict[str, list[Line]]

    @property
    def path(self) -> Path:
        return self.settings.path

    def saw(self, what: str) -> list[Line]:
        return [line for lines in self.ledgers.values() for line in lines if line["saw"] == what]

    @property
    def violations(self) -> list[str]:
        """What processes found while it went on."""
        return [line["what"] for line in (*self.saw("violation"), *self.saw("failed"))]


def run_storms(*storms: Settings) -> list[Storm]:
    """Let them happen, one after the other. Return when every process has ended."""
    for settings in storms:
        Path(settings.folder).mkdir()
    child = subprocess.Popen(
        [
            sys.executable,
            str(CHECKOUT / "tests/proofs/crash/process_storm.py"),
            *(json.dumps(asdict(settings)) for settings in storms),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        start_new_session=True,  # a group of its own, so that all can be killed at once
    )
    try:
        message, wrote = child.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        message, wrote = child.communicate()
        wrote = f"not over after {PATIENCE_S:g} s\n{wrote}"
    codes = [int(code) for code in message.split()]
    return [
        Storm(
            settings, codes[at] if at < len(codes) else None, wrote, _ledgers(Path(settings.folder))
        )
        for at, settings in enumerate(storms)
    ]


def _ledgers(folder: Path) -> dict[str, list[Line]]:
    return {
        file.stem: [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted(folder.glob("*.jsonl"))
    }


# -- the ledgers against the file ------------------------------------------------------


def compare(storm: Storm) -> list[str]:
    """Return how the file differs from what the processes were told.

    What was archived is brought back first.
    """
    with sessiondb.sync.open(storm.path) as db:
        for info in list(db.sessions(with_ended=True)):
            if info.archived_at_ms is not None:
                db.unarchive(info.session_id)
        findings = [
            f"verify: {finding.check}: {finding.message}" for finding in db.verify().findings
        ]
    return [
        *findings,
        *compare_entries(storm),
        *compare_loose(storm),
        *compare_compactions(storm),
        *compare_messages(storm),
    ]


def compare_entries(storm: Storm) -> list[str]:
    """Compare the numbered entries of the shared sessions.

    Each is there once, under the acknowledged number, in its writer's order.
    """
    report: dict[tuple[int, str], int] = {}
    for line in storm.saw("appended"):
        report.update(
            zip(((line["session"], key) for key in line["keys"]), line["numbers"], strict=True)
        )
    rows = query(
        storm.path,
        """SELECT b.session_key, e.idempotency_key, e.entry_no FROM entry AS e
           JOIN binding AS b ON b.session_no = e.entry_no >> 32
           WHERE b.agent_id = 'talk' AND e.idempotency_key GLOB '[0-9]*' ORDER BY e.entry_no""",
    )
    stored = [((int(key.rpartition(":")[2]), mine), number) for key, mine, number in rows]
    wrong = _differences(report, stored, "entry")
    orders: dict[tuple[int, str], list[int]] = defaultdict(list)
    for (session, mine), _ in stored:
        orders[session, mine.partition(":")[0]].append(int(mine.partition(":")[2]))
    wrong += [
        f"session {session}: writer {who} said {order}"
        for (session, who), order in orders.items()
        if order != sorted(order)
    ]
    return wrong


def compare_loose(storm: Storm) -> list[str]:
    """Compare what was said in bursts and into sessions that were being archived."""
    report = {(line["session_id"], line["key"]): line["number"] for line in storm.saw("loose")}
    rows = query(
        storm.path,
        """SELECT s.session_id, e.idempotency_key, e.entry_no FROM entry AS e
           JOIN session AS s ON s.session_no = e.entry_no >> 32
           WHERE e.idempotency_key GLOB 'burst *' OR e.idempotency_key GLOB 'gone *'""",
    )
    return _differences(
        report, [((session_id, key), number) for session_id, key, number in rows], "entry"
    )


def _differences(report: dict[Any, int], stored: list[tuple[Any, int]], what: str) -> list[str]:
    times = Counter(name for name, _ in stored)
    found = dict(stored)
    wrong = [
        f"{what} {name} was acknowledged and is not there" for name in report if name not in found
    ]
    wrong += [
        f"{what} {name} is there, and nobody was told" for name in found if name not in report
    ]
    wrong += [f"{what} {name} is there {count} times" for name, count in times.items() if count > 1]
    return wrong + [
        f"{what} {name} is {found[name]}, told was {no}"
        for name, no in report.items()
        if found.get(name, no) != no
    ]


def compare_compactions(storm: Storm) -> list[str]:
    """Every committed compaction began one epoch, and its summary is there once."""
    rows = query(
        storm.path,
        """SELECT s.session_id, c.epoch, json_extract(e.payload, '$.summary') FROM compaction AS c
           JOIN session AS s ON s.session_no = c.session_no
             JOIN entry AS e ON e.entry_no = c.entry_no WHERE c.state = 'committed'""",
    )
    report = sorted(
        (line["session_id"], line["epoch"], line["summary"])
        for line in storm.saw("compacted")
        if line["outcome"] == "committed"
    )
    wrong = [] if sorted(rows) == report else [f"compactions: told {report}, stored {sorted(rows)}"]
    for session_id, epoch in query(
        storm.path, "SELECT session_id, epoch FROM session WHERE agent_id = 'talk'"
    ):
        epochs = sorted(number for session, number, _ in report if session == session_id)
        if epochs != list(range(1, epoch + 1)):
            wrong.append(
                f"session {session_id} is at epoch {epoch}; its compactions began {epochs}"
            )
    return wrong


def compare_messages(storm: Storm) -> list[str]:
    """Check that every accepted message was claimed and answered once.

    It is one row, and its reply was sent once.

    Each conversation in its order.
    """
    wrong = []
    receipts: dict[str, list[Line]] = defaultdict(list)
    for line in storm.saw("accepted"):
        receipts[line["event_id"]].append(line)
    for event_id, lines in receipts.items():
        if (
            len({line["inbox_no"] for line in lines}) != 1
            or [line["duplicate"] for line in lines].count(False) != 1
        ):
            wrong.append(f"event {event_id} was accepted as {lines}")
    inbox = query(storm.path, "SELECT event_id, inbox_no FROM inbox WHERE state = 'done'")
    wrong += _differences(
        {event_id: lines[0]["inbox_no"] for event_id, lines in receipts.items()}, inbox, "message"
    )
    for what, name in (("turn", "inbox_no"), ("sent", "outbox_no")):
        times = Counter(line[name] for line in storm.saw(what))
        wrong += [f"{name} {no}: {what} {count} times" for no, count in times.items() if count != 1]
    answered = Counter(line["payload"]["re"] for line in storm.saw("sent"))
    if answered != Counter(no for _, no in inbox):
        wrong.append(f"answered were {sorted(answered.items())}, accepted {sorted(inbox)}")
    for session_no in query(storm.path, "SELECT session_no FROM binding WHERE agent_id = 'chat'"):
        asked = query(
            storm.path,
            (
                "SELECT idempotency_key FROM entry WHERE entry_no >> 32 = ? AND idempotency_key "
                "GLOB 'inbox:*' AND idempotency_key NOT GLOB 'inbox:*:*' ORDER BY entry_no"
            ),
            session_no,
        )
        numbers = [int(key.partition(":")[2]) for key in asked]
        if numbers != sorted(numbers):
            wrong.append(
                f"the messages of session number {session_no} were claimed out of order: {numbers}"
            )
    return wrong


# -- the storm -------------------------------------------------------------------------


def test_eight_writers_lose_nothing_eight_readers_see_snapshots(
    tmp_path: Path,
) -> None:
    sessions = max(3, ENTRIES // ENTRIES_PER_SESSION)
    messages = max(6, ENTRIES // 200)
    [storm] = run_storms(
        Settings(
            str(tmp_path / "storm"),
            seed=SEED,
            entries=ENTRIES,
            sessions=sessions,
            messages=messages,
        )
    )
    counted = count(storm)
    print(f"seed {SEED}: " + ", ".join(f"{number} {what}" for what, number in counted.items()))
    assert storm.ended == 0, storm.wrote
    assert storm.violations == []
    assert compare(storm) == []

    # Nobody was left out, and it was a storm: all of this happened.
    assert counted["appends of the least busy writer"] > 0
    rounds = [line["rounds"] for line in storm.saw("read")]
    assert len(rounds) == 8
    assert min(rounds) > 0, rounds
    assert all(
        counted[what]
        for what in (
            "entries",
            "refusals",
            "compactions",
            "archived sessions",
            "imports",
            "WAL resets",
        )
    ), counted


def test_processes_that_come_and_go_find_all_their_writes(
    tmp_path: Path,
) -> None:
    visits = max(6, ENTRIES // 40)
    [storm] = run_storms(
        Settings(
            str(tmp_path / "visits"),
            seed=SEED,
            writers=0,
            readers=0,
            sessions=5,
            comers=5,
            visits=visits,
        )
    )
    print(
        f"seed {SEED}: {len(storm.saw('appended'))} visits that wrote, "
        f"{len(storm.saw('looked in'))} that read"
    )
    assert storm.ended == 0, storm.wrote
    assert storm.violations == []
    assert len(storm.saw("appended")) == 5 * visits
    # Two that close at the same instant may both leave the WAL to the other. The next
    # one takes it away.
    with sessiondb.sync.open(storm.path):
        pass
    assert names_in(storm.path.parent) == sorted(
        [
            storm.path.name,
            f"{storm.path.name}-alive",
            *(f"{name}.jsonl" for name in storm.ledgers),
        ]
    )
    assert compare(storm) == []


def count(storm: Storm) -> Counter[str]:
    """Say what happened, in numbers."""
    counted: Counter[str] = Counter()
    counted["entries"] = sum(len(line["keys"]) for line in storm.saw("appended")) + len(
        storm.saw("loose")
    )
    counted["refusals"] = len(storm.saw("refused"))
    counted["compactions"] = sum(line["outcome"] == "committed" for line in storm.saw("compacted"))
    counted["compactions refused or overtaken"] = (
        len(storm.saw("no compaction")) + len(storm.saw("compacted")) - counted["compactions"]
    )
    counted["messages"] = len(storm.saw("turn"))
    counted["archived sessions"] = sum(line["done"] for line in storm.saw("collected"))
    counted["imports"] = len(storm.saw("imported"))
    shares = [
        sum(line["saw"] == "appended" for line in lines)
        for name, lines in storm.ledgers.items()
        if name.startswith("writer")
    ]
    counted["appends of the least busy writer"] = min(shares, default=0)
    counted["of the busiest"] = max(shares, default=0)
    counted["looks"] = sum(line["rounds"] for line in storm.saw("read"))
    counted["commits"] = sum(line["commits"] for line in storm.saw("stats"))
    counted["waits for the lock"] = sum(line["busy_waits"] for line in storm.saw("stats"))
    counted["WAL resets"] = sum(line["checkpoint_ok"] for line in storm.saw("stats"))
    counted["WAL resets blocked"] = sum(line["checkpoint_blocked"] for line in storm.saw("stats"))
    counted["WAL KiB at most"] = max(
        (line["wal_bytes_most"] // 1024 for line in storm.saw("read")), default=0
    )
    return counted


# -- broken builds ---------------------------------------------------------------------

BROKEN = {
    "claim without compare": {"writers": 6, "readers": 1, "entries": 1, "messages": 8},
    "busy is success": {"writers": 6, "readers": 1, "entries": 80, "messages": 0},
    "early acknowledgement": {"writers": 3, "readers": 3, "entries": 100, "messages": 0},
    "lost lock": {"writers": 3, "readers": 1, "entries": 60, "messages": 0},
    "split snapshot": {"writers": 3, "readers": 3, "entries": 100, "messages": 0},
    "counted twice": {"writers": 3, "readers": 1, "entries": 60, "messages": 0},
}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Storm]:
    """A small storm over each broken build, all of them from one start of the interpreter."""
    if "SESSIONDB_STORM" not in os.environ:
        pytest.skip("six storms over broken builds; `make crash` runs them (SESSIONDB_STORM)")
    folder = tmp_path_factory.mktemp("broken")
    storms = run_storms(
        *[
            Settings(str(folder / name), seed=SEED, broken=name, maintenance=False, **sizes)
            for name, sizes in BROKEN.items()
        ]
    )
    return dict(zip(BROKEN, storms, strict=True))


def test_the_storm_finds_a_claim_that_compares_nothing(
    broken: dict[str, Storm],
) -> None:
    found = found_in(broken["claim without compare"])
    assert any("turn 2 times" in what or "answered twice" in what for what in found), found


def test_the_storm_finds_a_busy_commit_reported_as_success(
    broken: dict[str, Storm],
) -> None:
    found = found_in(broken["busy is success"])
    assert any("acknowledged and is not there" in what for what in found), found


def test_the_storm_finds_an_acknowledgement_before_commit(
    broken: dict[str, Storm],
) -> None:
    storm = broken["early acknowledgement"]
    # An entry that a reader does not find, or the session itself that a writer has just made.
    signs = ("acknowledged and not there", "there is no session number")
    found = [what for what in storm.violations if any(sign in what for sign in signs)]
    assert found, storm.violations
    assert compare_entries(storm) == [], (
        "all of it was committed later; only the readers could tell"
    )


def test_the_storm_finds_a_write_lock_lost_by_opening_a_file(
    broken: dict[str, Storm],
) -> None:
    storm = broken["lost lock"]
    found = [
        what
        for what in storm.violations
        if "not there" in what or "failed" in what or "verify" in what or "its row says" in what
    ]
    # Without its locks a process may also die at once, of a page that another one took away.
    died = storm.ended in (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)
    print(f"lost lock: {len(storm.violations)} violations, for example {storm.violations[:3]}")
    assert found or died, (storm.violations, storm.ended)


def test_the_storm_finds_a_snapshot_of_two_transactions(
    broken: dict[str, Storm],
) -> None:
    storm = broken["split snapshot"]
    assert any(
        "its row says" in what or "its context has" in what or "its pointers" in what
        for what in storm.violations
    ), storm.violations
    assert compare_entries(storm) == [], "nothing is wrong with the file"


def test_the_storm_finds_a_count_that_is_raised_twice(broken: dict[str, Storm]) -> None:
    storm = broken["counted twice"]
    assert any("its row says" in what for what in storm.violations), storm.violations
    assert any(
        what.startswith("verify: sequence: the session's last seq is") for what in compare(storm)
    )
    assert compare_entries(storm) == [], "every entry is there once, under the number that was told"


def found_in(storm: Storm) -> list[str]:
    found = [*storm.violations, *compare_entries(storm), *compare_messages(storm)]
    print(f"{storm.settings.broken}: {len(found)} violations, for example {found[:3]}")
    return found

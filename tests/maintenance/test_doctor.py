"""What the doctor says of each rule, and what it does when it is asked to fix."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from sessiondb.maintenance import doctor
from sessiondb.maintenance.doctor import CONSEQUENCES, FIXABLE, diagnose
from sessiondb.maintenance.status import Alarm, DatabaseStatus
from sessiondb.models import Finding, VerifyReport
from tests import ROOT
from tests.maintenance.test_health import WELL

SCHEMA = (ROOT / "schema.sql").read_text(encoding="utf-8")
STUCK = SCHEMA.partition("CREATE VIEW stuck")[2].partition("CREATE VIEW import_log")[0]
MAINTENANCE = ROOT / "sessiondb" / "maintenance"


def rules() -> set[str]:
    """Return the name of every rule that an alarm can have."""
    found = {
        f"{what}: {problem}"
        for what, problem in re.findall(r"SELECT '(\w+)', [\w.]+, '([^']+)'", STUCK)
    }
    # Where the view has the problem in a column.
    found |= {f"channel: {problem}" for problem in ("nothing is sent", "refuses everything")}
    found |= {f"reply: {state}" for state in ("unknown", "failed")}
    found |= {f"archive: {state}" for state in ("writing", "complete", "deleting", "restoring")}
    found |= {f"{what}: left by a dead process" for what in ("turn", "compaction", "reply")}
    health = (MAINTENANCE / "health.py").read_text(encoding="utf-8")
    found |= set(re.findall(r'^ +"([a-z]+: [a-z ]+)",$', health, re.MULTILINE))
    return found | {"process: died", "access"}


def status(*alarms: Alarm) -> DatabaseStatus:
    return replace(WELL, alarms=alarms)


def test_every_rule_says_what_it_means_for_people() -> None:
    assert rules() == CONSEQUENCES.keys()
    assert set(FIXABLE) - CONSEQUENCES.keys() == set()
    assert len(rules()) > 25


def test_errors_come_first_and_each_names_its_command() -> None:
    report = VerifyReport(
        1,
        2,
        (
            Finding("branches", "a-session", "one is missing. Run `sessiondb verify DB`."),
            Finding("receipts", None, "odd", severity="warning"),
        ),
    )
    found = diagnose(
        status(
            Alarm("yellow", "message: dead", "message 7: dead", "sessiondb dead DB --requeue 7"),
            Alarm("red", "turn: past its lease", "turn 3", "sessiondb resume DB --run"),
        ),
        report,
    )
    assert [(one.severity, one.rule, one.fixable) for one in found] == [
        ("error", "verify: branches", False),
        ("error", "turn: past its lease", True),
        ("warning", "verify: receipts", False),
        ("warning", "message: dead", False),
    ]
    assert all(one.command and one.consequence for one in found)
    assert "'/data/gate way.db'" in str(found[0].command)


def test_a_check_that_did_not_end_is_no_finding_of_damage() -> None:
    report = VerifyReport(
        1, 2, (Finding("file", None, "not finished", "unfinished"), Finding("file", None, "torn"))
    )
    torn, unfinished = diagnose(status(), report)
    assert (torn.severity, torn.consequence) == ("error", doctor.BROKEN)
    assert (unfinished.severity, unfinished.consequence) == ("warning", doctor.UNFINISHED)
    assert str(unfinished.command).endswith(" --quick --read-s 600")
    assert "--read-s" not in str(torn.command)


def test_nothing_is_wrong_with_a_sound_database() -> None:
    assert diagnose(status(), VerifyReport(1, 2, ())) == ()


@pytest.mark.parametrize("rule", sorted(FIXABLE))
def test_nothing_that_needs_a_decision_is_fixable(rule: str) -> None:
    decisions = ("message:", "channel:", "lane:", "consumer:", "wal:", "disk:", "access")
    assert not rule.startswith(decisions)
    assert "unknown" not in rule
    assert doctor.__doc__

"""The end of a soak: both gateways are killed at once, and a last one recovers.

Then what is left on disk is compared with what people remember, and with the files that
were imported.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter

from tests.support.core import query
from tests.support.gateway_process import delivered
from tests.support.transfer import differing

from .load import Soak
from .processes import Member
from .troubles import ATTIC_LANE, PARKED_LANE


async def finish(soak: Soak) -> None:
    """Kill, recover, settle, stop, check."""
    await asyncio.gather(soak.elder.kill(), soak.mortal.kill())
    soak.counted["kills"] += 2
    await _settle(soak)
    assert soak.looker is not None
    soak.looker.close()
    check_rows(soak)
    check_channel(soak)
    code, out = await soak.commands.run("verify", soak.plan.database, codes=(0, 1))
    if code != 0:
        soak.fail("verify", out[-1_000:])
    await _check_transcripts(soak)


async def _settle(soak: Soak) -> None:
    """Start a last gateway. Wait until nothing waits, is held or unknown. Stop it in good order."""
    last = Member("last", soak.plan, soak.on_line)
    await last.start(settles=True)
    last.send("run", lane=PARKED_LANE, s=2 * soak.plan.settle_s)
    try:
        async with asyncio.timeout(soak.plan.settle_s):
            while True:
                settled = last.hear("settled")
                last.send("settle")
                await settled
                if not _undecided(soak):
                    break
                await soak.decide(last)
                await asyncio.sleep(0.2)
    except TimeoutError:
        soak.fail(
            "settled",
            (
                f"not settled {soak.plan.settle_s:g} s after the last start: {_undecided(soak)} "
                "undecided"
            ),
        )
    await last.stop()


def _undecided(soak: Soak) -> int:
    assert soak.looker is not None
    sql = """SELECT (SELECT count(*) FROM outbox
                  WHERE state IN ('unknown', 'failed', 'pending', 'sending'))
                  + (SELECT count(*) FROM inbox WHERE state <> 'done' AND lane <> 'attic')"""
    return int(soak.looker.ask(sql)[0][0])


def check_rows(soak: Soak) -> None:
    """Check the rows that a soak leaves.

    No dead process holds anything, every ended process is known as ended, no work is
    left.
    """
    path = soak.plan.database
    if held := query(path, "SELECT what, number, owner FROM held"):
        soak.fail(
            "held", f"{len(held)} things are held by processes that are dead, such as {held[0]}"
        )
    if undead := query(path, "SELECT pid, program FROM instance WHERE closed_at_ms IS NULL"):
        soak.fail(
            "held", f"{len(undead)} processes that ended count as running, such as {undead[0]}"
        )
    left = query(path, "SELECT event_id, state FROM inbox WHERE state <> 'done'")
    on_purpose = [(event_id, "queued") for event_id in soak.people.left]
    if unsettled := set(left).symmetric_difference(on_purpose):
        soak.fail(
            "settled",
            f"{len(unsettled)} messages are not done, or are no longer left on purpose, "
            f"such as {min(unsettled)}",
        )
    soak.counted[f"left on purpose: messages of lane {ATTIC_LANE}"] = len(on_purpose)
    twice = query(
        path,
        (
            "SELECT inbox_no, count(*) FROM turn WHERE state = 'completed' GROUP BY inbox_no "
            "HAVING count(*) > 1"
        ),
    )
    if twice:
        soak.fail("completed twice", f"{len(twice)} messages, such as {twice[0]}")
    open_jobs = query(path, "SELECT compaction_id FROM compaction WHERE state = 'running'")
    if open_jobs:
        soak.fail("held", f"{len(open_jobs)} compactions are still running, such as {open_jobs[0]}")


def check_channel(soak: Soak) -> None:
    """Compare the channel with the outbox.

    Each reply came once, in order per target, and nothing else came.
    """
    outbox = dict(query(soak.plan.database, "SELECT outbox_no, state FROM outbox"))
    lines = delivered(soak.plan.channel)
    times = Counter(line["outbox_no"] for line in lines)
    soak.counted["replies delivered"] = len(times)
    if twice := [number for number, count in times.items() if count > 1]:
        soak.fail("reply sent twice", f"{len(twice)} replies, such as {twice[0]}")
    if missing := [
        number for number, state in outbox.items() if state == "sent" and number not in times
    ]:
        soak.fail(
            "reply lost",
            (
                f"{len(missing)} replies are sent, say the rows; the channel has not got them, "
                f"such as {missing[0]}"
            ),
        )
    last: dict[str, int] = {}
    for line in lines:
        # A reply that nobody knew about and that was sent again later comes behind
        # those that did not wait for it, by design.
        if line["outbox_no"] < last.get(line["target"], 0):
            soak.counted["replies sent later, settled by hand"] += 1
        last[line["target"]] = max(last.get(line["target"], 0), line["outbox_no"])


async def _check_transcripts(soak: Soak) -> None:
    """Audit a copy in which every archive was restored.

    Then import and export it once more, byte for byte.
    """
    plan = soak.plan
    copy = plan.folder / "final.db"
    shutil.copy(plan.database, copy)  # nobody has it open any more
    found = await soak.audit(copy, soak.people.ledger.acknowledged)
    soak.judge_audit(found, "at the end")
    soak.counted["sessions audited at the end"] = len(found.whole)
    soak.counted["sessions deleted, audited before"] = len(found.deleted)
    for session_id in found.deleted:
        if soak.audited.get(session_id) != len(soak.people.ledger.acknowledged[session_id]):
            soak.fail(
                "lost", f"session {session_id} was deleted before an audit had seen all of it"
            )
    soak.files.mend()
    await soak.commands.run("import", copy, soak.files.folder, codes=(0, 1))
    out = plan.folder / "export"
    await soak.commands.run("export", copy, out, codes=(0, 1))
    # What was deleted for good is not written. An index names what is bound:
    # conversations that retention has let go of are not.
    deleted = """SELECT r.name FROM import_file AS r
                 JOIN archive AS a ON a.session_no = r.session_no WHERE a.state = 'deleted'"""
    missing = set(query(copy, deleted))
    names = set(query(copy, "SELECT name FROM import_file WHERE kind <> 'index'"))
    wrong = [
        name for name in differing(soak.files.folder, out) if name in names and name not in missing
    ]
    soak.counted["files imported"] = len(names)
    soak.counted["files whose archive was deleted"] = len(missing)
    if wrong:
        soak.fail(
            "export",
            f"{len(wrong)} imported files do not come out as they went in, such as {wrong[0]}",
        )

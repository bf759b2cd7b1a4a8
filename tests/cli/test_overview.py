"""The commands that list, check and count: context, compactions, verify, status."""

from __future__ import annotations

import json
import re
from pathlib import Path

import apsw
import pytest

from sessiondb import clock, sync
from sessiondb.maintenance import status
from tests.support.command_line import KEY, ok, run, session_id
from tests.support.core import change, reply, user
from tests.support.gateway_commands import accept, dead_letter


def test_a_list_of_nothing_is_an_empty_array_or_a_hint(tmp_db: Path) -> None:
    with sync.open(tmp_db):
        pass
    for command in ("sessions", "compactions"):
        assert json.loads(ok(command, tmp_db, "--json")) == []
        result = run(command, tmp_db)
        assert (result.stdout, result.exit_code) == ("", 0)
        assert result.stderr
    assert ok("query", tmp_db, "select 1 where 0", "--nl") == ""
    assert json.loads(ok("query", tmp_db, "select 1 where 0")) == []


def test_context_prints_messages_now_of_an_epoch_or_in_pis_shape(db: Path) -> None:
    now, before = (
        json.loads(ok("context", db, KEY)),
        json.loads(ok("context", db, KEY, "--epoch", "0")),
    )
    assert now[0]["role"] == "compactionSummary"
    assert [message["role"] for message in before] == ["user", "assistant"] * 12
    pi = json.loads(ok("context", db, KEY, "--format", "pi"))
    assert list(pi) == ["messages", "thinkingLevel", "model"]
    assert pi["messages"] == now
    with sync.open(db, readonly=True) as opened:
        session = opened.session(KEY, create=False)
        assert ok("context", db, KEY).encode() == session.context().as_json() + b"\n"


def test_context_prints_what_is_sent_and_with_raw_what_is_stored(tmp_db: Path) -> None:
    """A call of a turn that died has a result that says so, which is stored nowhere."""
    with sync.open(tmp_db) as opened:
        for key in (KEY, f"{KEY}:2"):
            session = opened.session(key)
            session.append_many([user("q"), reply("", calls=["x"]), user("and now?")])
            session.append({"type": "compaction", "summary": "s", "firstKeptEntryId": "-"})
            session.append(user("go on"))
    epoch = ("context", tmp_db, KEY, "--epoch", "0")
    roles = [message["role"] for message in json.loads(ok(*epoch))]
    assert roles == ["user", "assistant", "toolResult", "user"]
    stored = json.loads(ok(*epoch, "--raw"))
    assert [message["role"] for message in stored] == ["user", "assistant", "user"]
    assert json.loads(ok(*epoch, "--format", "pi"))["messages"] == stored
    now = json.loads(ok("context", tmp_db, KEY, "--raw"))
    assert [message["role"] for message in now] == ["compactionSummary", "user"]


def test_compactions_are_listed_with_what_became_of_them(db: Path) -> None:
    [job] = json.loads(ok("compactions", db, "--json", "--session", KEY))
    assert (job["state"], job["epoch"], job["session_id"]) == ("committed", 1, session_id(db))
    assert "committed" in ok("compactions", db)
    assert json.loads(ok("compactions", db, "--json", "--session", "agent:main:evil")) == []


def test_verify_says_all_good_and_1_when_it_is_not(db: Path) -> None:
    assert "all good" in ok("verify", db)
    assert json.loads(ok("verify", db, "--json"))["ok"] is True
    broken = apsw.Connection(str(db))
    broken.execute(
        "UPDATE session SET last_seq = last_seq + 1 WHERE session_id = 'ended-one'"
    ).fetchall()
    broken.close()
    result = run("verify", db)
    assert result.exit_code == 1
    assert "ended-one" in result.stdout
    report = json.loads(run("verify", db, "--json").stdout)
    assert report["ok"] is False
    assert report["findings"]
    assert run("verify", db, "--session", KEY).exit_code == 0


def test_status_counts_and_names_what_runs(db: Path) -> None:
    with sync.open(db) as opened:
        session = opened.session(KEY, create=False)
        with session.compact(keep_recent_tokens=0) as job:
            found = json.loads(ok("status", db, "--json", "--counts"))
            text = ok("status", db)
            assert "sessions:     3 (--counts counts the rest)" in text
            assert "3 (1 ended), 2 keys, 30 entries" in ok("status", db, "--counts")
            [running] = found["running"]
            assert (running["compaction_id"], running["owner_alive"], running["overdue"]) == (
                job.id,
                True,
                False,
            )
            assert job.id in text
            [process] = found["processes"]
            assert process["alive"] is True
    assert (found["sessions"], found["sessions_ended"]) == (3, 1)
    quick = json.loads(ok("status", db, "--json"))
    assert (quick["sessions"], quick["entries"], quick["compactions"]) == (3, None, None)
    after = json.loads(ok("status", db, "--json", "--counts"))
    assert after["compactions"] == {"committed": 1, "failed": 1}
    assert (after["running"], after["processes"], after["entries"]) == ([], [], 30)
    assert (after["schema_version"], after["sessions"], after["keys"]) == (4, 3, 2)
    assert after["file_bytes"] == db.stat().st_size


def test_status_names_a_compaction_that_is_overdue(db: Path) -> None:
    with sync.open(db) as opened:
        session = opened.session(KEY, create=False)
        with session.compact(keep_recent_tokens=0, timeout_s=600) as job:
            late = apsw.Connection(str(db))
            late.execute(
                "UPDATE compaction SET begun_at_ms = 1, deadline_ms = 2 WHERE state = 'running'"
            ).fetchall()
            late.close()
            found = json.loads(ok("status", db, "--json"))
            assert [line["name"] for line in found["stuck"]] == [job.id]
            assert found["running"][0]["overdue"] is True
            text = ok("status", db)
    assert f"compaction {job.id}: past its deadline" in text
    assert "overdue since 1970-01-01 00:00:00" in text


def test_status_counts_what_waits_and_what_a_person_must_decide(tmp_db: Path) -> None:
    first, _ = accept(tmp_db, "one", "two")
    with sync.open(tmp_db, readonly=True) as opened:
        before = opened.status()
        assert (
            before.gateway.messages_waiting,
            before.gateway.messages_dead,
            before.needs_attention,
        ) == (2, 0, False)
    dead_letter(tmp_db, first, "test")
    with sync.open(tmp_db, readonly=True) as opened:
        after = opened.status()
        assert (
            after.gateway.messages_waiting,
            after.gateway.messages_dead,
            after.needs_attention,
        ) == (1, 1, True)
        assert after.gateway.events == 2
    assert "1 waiting, 0 interrupted, 1 dead" in ok("status", tmp_db)


def test_status_says_which_channel_is_full_and_which_waits(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sync.open(tmp_db):
        pass
    monkeypatch.setattr(status, "OUTBOX_WAITING_MAX", 2)
    reply = (
        "INSERT INTO outbox (session_no, channel, target, state, created_at_ms, available_at_ms,"
        f" payload) VALUES (1, '{{}}', 't', '{{}}', {clock.now_ms()}, 0, '{{{{}}}}')"
    ).format
    change(
        tmp_db,
        "INSERT INTO session (session_id, origin, version, created_at_ms, updated_at_ms)"
        " VALUES ('s', 'native', 3, 1, 1)",
        reply("telegram", "pending"),
        reply("telegram", "sending"),
        reply("discord", "pending"),
    )
    with sync.open(tmp_db, readonly=True) as opened:
        assert not opened.status().needs_attention
    assert "channel telegram" not in ok("status", tmp_db)
    change(
        tmp_db,
        reply("telegram", "pending"),
        "INSERT INTO channel_pause VALUES ('discord', 1, 1, 1, 4102444800000, '429: slow down')",
        "INSERT INTO channel_pause VALUES ('telegram', 1, 1, 1, 2, 'it is over')",
    )
    said = ok("status", tmp_db)
    assert "4 to send" in said
    assert (
        "channel telegram: 2 replies to send (full: its messages are refused until some are sent)"
        in said
    )
    assert (
        "channel discord: waits until 2100-01-01 00:00:00, because it said so: 429: slow down"
        in said
    )
    assert "over" not in said.replace("overdue", "")
    assert "channel discord: waits, since 1970-01-01" in said
    with sync.open(tmp_db, readonly=True) as opened:
        found = opened.status()
        assert found.needs_attention
        assert [(row.channel, row.replies_waiting, row.full) for row in found.channels] == [
            ("telegram", 2, True),
            ("discord", 1, False),
        ]


def test_status_shows_lanes_that_are_paused_whatever_is_in_them(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        for lane in ("cron", "idle", "busy"):
            opened.set_lane(lane, concurrency=1, priority=50)
    accept(tmp_db, "hello", lane="busy")
    with sync.open(tmp_db) as opened:
        for lane in ("cron", "busy"):
            opened.pause_lane(lane)
    said = ok("status", tmp_db)
    assert "cron: 0 of 1 running, 0 waiting, paused for " in said
    assert re.search("busy: 0 of 1 running, 1 waiting, the oldest for .*, paused for ", said)
    assert "idle" not in said
    assert "yellow: lane busy: paused" in said

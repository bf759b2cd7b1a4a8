"""`show` and `tail`: their marks, short forms and JSON, for entries of every shape."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sessiondb import sync
from sessiondb.cli.terminal import (
    at,
)
from sessiondb.words import (
    MessageFormat,
)
from tests.support.command_line import KEY, ok
from tests.support.talks import SPEAKERS


def test_show_marks_where_the_current_context_begins(db: Path) -> None:
    lines = ok("show", db, KEY).splitlines()
    [begins] = [
        index for index, line in enumerate(lines) if "the current context begins here" in line
    ]
    before, after = "\n".join(lines[:begins]), "\n".join(lines[begins:])
    assert "question 0" in before
    assert "question 11" in after
    assert "they asked and were answered" in after
    assert "and now?" in after


def test_show_prints_no_control_character_of_the_content(db: Path) -> None:
    for output in (ok("show", db, "agent:main:evil"), ok("tail", db, "agent:main:evil")):
        assert "\\x1b[31mred" in output
        assert [
            char
            for char in output
            if (ord(char) < 0x20 and char != "\n") or 0x7F <= ord(char) <= 0x9F or char == "\u202e"
        ] == []


def test_show_shortens_tool_results_unless_asked_for_all(db: Path) -> None:
    short, full = ok("show", db, "agent:main:evil"), ok("show", db, "agent:main:evil", "--full")
    assert "line 3\n" in short
    assert "line 50" not in short
    assert "96 more lines" in short
    assert "line 99" in full
    assert '-> bash {"command": "seq 100"}' in short
    assert "thinking: hm" in short


def test_show_marks_forks_and_branches(db: Path) -> None:
    with sync.open(db) as opened:
        session = opened.session(KEY, create=False)
        entries = session.entries()
        fork = session.fork(entry=entries[3].entry_id)
        fork.append({"role": "user", "content": "elsewhere"})
        session.branch(entries[5].entry_id)
        session.append({"role": "user", "content": "another way"})
    forked = ok("show", db, fork.id)
    assert "forked here" in forked
    assert forked.index("answer 1") < forked.index("forked here") < forked.index("elsewhere")
    branched = ok("show", db, KEY)
    assert (
        branched.index("answer 2")
        < branched.index("1 other branch left here")
        < branched.index("another way")
    )


def test_show_as_json_carries_the_stored_text_itself(db: Path) -> None:
    shown = json.loads(ok("show", db, KEY, "--json"))
    with sync.open(db, readonly=True) as opened:
        entries = opened.session(KEY, create=False).entries()
    assert [one["payload"] for one in shown] == [json.loads(entry.payload) for entry in entries]
    assert [one["seq"] for one in shown] == [entry.seq for entry in entries]
    assert [one["seq"] for one in json.loads(ok("show", db, KEY, "--json", "--last", "3"))] == [
        entry.seq for entry in entries[-3:]
    ]


def test_show_pages_through_a_transcript_longer_than_a_page(tmp_db: Path) -> None:
    with sync.open(tmp_db) as opened:
        session = opened.session(KEY)
        for _ in range(5):
            session.append_many([{"role": "user", "content": "x"}] * 123)
    assert [one["seq"] for one in json.loads(ok("show", tmp_db, KEY, "--json"))] == list(
        range(1, 616)
    )


@pytest.mark.parametrize("last", [1, 2, 3, 5, 8, 9])
def test_the_last_entries_are_all_shown_when_no_page_holds_them(tmp_db: Path, last: int) -> None:
    sizes = [10, 3_000_000, 10, 2_500_000, 2_500_000, 10, 1_000_000, 10]
    with sync.open(tmp_db, durability="normal") as opened:
        for key in (KEY, "agent:main:other"):
            session = opened.session(key)
            for size in sizes:
                session.append({"role": "user", "content": "x" * size})
    shown = [one["seq"] for one in json.loads(ok("show", tmp_db, KEY, "--json", "-n", str(last)))]
    assert shown == list(range(1, 9))[-last:]
    tail = ok("tail", tmp_db, KEY, "--json", "-n", str(last)).splitlines()
    assert [json.loads(line)["seq"] for line in tail] == shown


@pytest.mark.parametrize(
    "entry",
    [
        {"role": "user", "content": None},
        {"role": "user"},
        {
            "role": "assistant",
            "content": ["text", 7, None, {"type": "text"}, {"type": None}, {"type": "toolCall"}],
        },
        {"role": "user", "content": [{"type": "image", "data": 5}]},
        {"role": "toolResult", "content": "text", "isError": True},
        {"role": "bashExecution", "command": "ls", "output": None, "exitCode": 2},
        {"role": "custom", "customType": "note", "content": [{"type": "text", "text": "x"}]},
        {"role": "somebody", "content": {"a": 1}},
        {"type": "custom", "customType": "state", "data": {"deep": [1, 2]}},
        {"type": "custom", "data": None},
        {"type": "custom", "data": {"huge": 10**4000, "text": "half \ud83d"}},
        {"type": "label", "targetId": "x", "label": None},
        {"type": "model_change", "provider": None},
        {"type": "compaction", "summary": None},
        {"type": "branch_summary", "summary": 5},
        {"type": "custom_message", "content": 5},
        {"type": "session_info", "name": "名前"},
        {"type": "something of tomorrow", "x": "y"},
    ],
)
def test_whatever_shape_an_entry_has_it_can_be_shown(tmp_db: Path, entry: dict[str, Any]) -> None:
    ok("append", tmp_db, KEY, "--create", stdin=json.dumps(entry))
    assert "\n1  " in ok("show", tmp_db, KEY)
    assert ok("tail", tmp_db, KEY).startswith("1 ")


@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        ("2001-02-03T04:05:06.789Z", True),
        ("not a time", False),
        ("99999-01-01T00:00:00Z", False),
        ("0001-01-01T00:00:00Z", False),
    ],
)
def test_an_entry_is_shown_with_the_time_of_its_own_account(
    tmp_db: Path, stamp: str, shown: bool
) -> None:
    entry = {
        "type": "message",
        "id": "a",
        "parentId": None,
        "timestamp": stamp,
        "message": {"role": "user", "content": "x"},
    }
    ok("append", tmp_db, KEY, "--create", stdin=json.dumps(entry))
    with sync.open(tmp_db, readonly=True) as opened:
        stored = at(opened.session(KEY, create=False).entries()[0].appended_at_ms)
    for output in (ok("show", tmp_db, KEY), ok("tail", tmp_db, KEY)):
        assert ("2001-02-03 04:05:06" if shown else stored) in output


def test_tail_prints_the_end_and_with_json_one_object_a_line(db: Path) -> None:
    lines = ok("tail", db, KEY, "-n", "2").splitlines()
    assert len(lines) == 2
    assert "and now?" in lines[-1]
    assert [
        json.loads(line)["seq"] for line in ok("tail", db, KEY, "-n", "2", "--json").splitlines()
    ] == [25, 26]


@pytest.mark.parametrize("message_format", SPEAKERS)
def test_calls_and_results_of_every_format_are_shown(
    tmp_db: Path, message_format: MessageFormat
) -> None:
    speaker = SPEAKERS[message_format](random.Random(1))
    speaker.words = lambda: "the words"  # type: ignore[method-assign]
    speaker.person()
    speaker.calls(["c1"])
    speaker.result(["c1"])
    speaker.answer()
    with sync.open(tmp_db) as database:
        session = database.create_session("the-session", format=message_format)
        session.append_many(speaker.talk.items)
    shown = ok("show", tmp_db, "the-session")
    assert f"format  {message_format}" in shown
    assert "-> read" in shown
    assert shown.count("the words") == 4
    assert message_format in ok("sessions", tmp_db)
    said = json.loads(ok("query", tmp_db, "SELECT type, role, text FROM transcript", "--json"))
    messages = [row for row in said if row["type"] == "message"]
    assert all(row["text"] for row in messages)
    assert "toolResult" in [row["role"] for row in messages]

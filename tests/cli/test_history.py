"""Time travel from the terminal: epochs, diff, undo, reset, branch, fork."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sessiondb import sync
from tests.support.command_line import fails, ok, on_terminal

KEY = "agent:main:discord:channel:1"
OTHER = "agent:main:discord:channel:2"


@pytest.fixture
def db(tmp_db: Path) -> Path:
    """Make two conversations, each compacted, the first one twice."""
    with sync.open(tmp_db) as opened:
        for key, times in ((KEY, 2), (OTHER, 1)):
            session = opened.session(key)
            for time in range(times):
                for number in range(4):
                    said = f"{key[-1]}: question {time}.{number}"
                    session.append({"role": "user", "content": said})
                    session.append({"role": "assistant", "content": f"answer to {said}"})
                with session.compact(keep_recent_tokens=20) as job:
                    job.commit(f"summary {time} of {key[-1]}")
    return tmp_db


def texts(db: Path, key: str = KEY, *options: object) -> list[str]:
    """Return the texts of a context."""
    found: list[dict[str, Any]] = json.loads(ok("context", db, key, *options))
    return [str(message.get("content", message.get("summary"))) for message in found]


def test_epochs_lists_what_began_each_and_when(db: Path) -> None:
    found = json.loads(ok("epochs", db, KEY, "--json"))
    assert [(epoch["epoch"], epoch["reason"]) for epoch in found] == [
        (0, "start"),
        (1, "compaction"),
        (2, "compaction"),
    ]
    assert ok("epochs", db, KEY).splitlines()[-1].split()[:2] == ["2", "compaction"]


def test_diff_shows_what_a_compaction_removed_and_its_summary(db: Path) -> None:
    before, after = texts(db, KEY, "--epoch", 0), texts(db, KEY, "--epoch", 1)
    found = json.loads(ok("diff", db, KEY, 0, 1, "--json"))
    shown = ok("diff", db, KEY, 0, 1)
    removed = [text for text in before if text not in after]
    assert removed
    for text in removed:
        assert re.search(rf"^- \d+  (user|assistant).*{re.escape(text)}", shown, re.MULTILINE)
    for text in set(before) - set(removed):
        assert text not in shown
    assert "+   summary 0 of 1" in shown
    assert len(found["removed"]) == len(removed)
    assert found["added"][0]["type"] == "compaction"
    assert found["kept"] == len(before) - len(removed)
    assert f"{len(removed)} entries left" in shown.splitlines()[-1]


def test_a_diff_the_other_way_round_swaps_its_sides(db: Path) -> None:
    there = json.loads(ok("diff", db, KEY, 0, 2, "--json"))
    back = json.loads(ok("diff", db, KEY, 2, 0, "--json"))
    assert (there["removed"], there["added"]) == (back["added"], back["removed"])
    same = json.loads(ok("diff", db, KEY, 1, 1, "--json"))
    assert (same["removed"], same["added"]) == ([], [])
    assert "no epoch 9" in fails(3, "diff", db, KEY, 0, 9)


def test_undo_brings_the_context_before_a_compaction_back(db: Path) -> None:
    before, other = texts(db, KEY, "--epoch", 1), texts(db, OTHER)
    assert "this is epoch 3" in ok("undo", db, KEY)
    assert texts(db) == before
    assert "this is epoch 4" in ok("undo", db, KEY)
    assert "summary" not in " ".join(texts(db))
    assert "nothing to undo" in fails(1, "undo", db, KEY)
    assert texts(db, OTHER) == other
    ok("verify", db)


def test_reset_begins_anew_and_keeps_what_it_is_told_to(db: Path) -> None:
    last = json.loads(ok("tail", db, KEY, "-n", 1, "--json").splitlines()[-1])
    ok("append", db, KEY, stdin=b'{"role":"user","content":"and now?"}\n')
    number = json.loads(ok("tail", db, KEY, "-n", 1, "--json"))["seq"]
    assert "begins anew" in ok("reset", db, KEY, "--keep-from", number)
    assert texts(db) == ["and now?"]
    ok("reset", db, KEY)
    assert texts(db) == []
    assert "show" in fails(3, "reset", db, KEY, "--keep-from", 4_000)
    assert last["entry_id"] in json.dumps(json.loads(ok("show", db, KEY, "--json")))


def test_branch_goes_to_an_entry_by_number_or_id_and_back(db: Path) -> None:
    entries = json.loads(ok("show", db, KEY, "--json"))
    head = entries[-1]
    assert "follows 2" in ok("branch", db, KEY, 2)
    assert texts(db) == ["1: question 0.0", "answer to 1: question 0.0"]
    ok("append", db, KEY, stdin=b'{"role":"user","content":"another way"}\n')
    ok("branch", db, KEY, head["entry_id"])
    assert "another way" not in " ".join(texts(db))
    assert json.loads(ok("branch", db, KEY, "#2", "--json"))["epoch"] > 0
    ok("branch", db, KEY, "root")
    assert texts(db) == []
    assert "no-such-entry" in fails(3, "branch", db, KEY, "no-such-entry")
    ok("verify", db)


def test_fork_copies_a_place_and_leaves_the_origin(db: Path) -> None:
    before = texts(db)
    first = ok("fork", db, KEY, "--entry", 4).strip()
    second = ok("fork", db, KEY, "--epoch", 0, "--key", "agent:main:web:1", "--id", "mine").strip()
    assert second == "mine"
    assert texts(db, first) == texts(db, KEY, "--epoch", 0)[:4]
    assert texts(db, "agent:main:web:1") == texts(db, KEY, "--epoch", 0)
    assert texts(db) == before
    assert "not at both" in fails(1, "fork", db, KEY, "--entry", 4, "--epoch", 0)
    assert "x:y" in fails(2, "fork", db, KEY, "--key", "x:y")
    ok("verify", db)


@pytest.mark.parametrize("command", ["show", "tail"])
def test_every_entry_that_is_shown_of_a_fork_can_be_gone_to(db: Path, command: str) -> None:
    """Own and inherited entries have the same numbers, so the inherited ones say whose."""
    mine = ok("fork", db, KEY, "--entry", 4).strip()
    ok(
        "append",
        db,
        mine,
        stdin=b'{"role":"user","content":"own 1"}\n{"role":"user","content":"2"}\n',
    )
    output, _ = on_terminal(command, db, mine)
    plain = output.replace("\x1b[1m", "").replace("\x1b[0m", "")
    names = re.findall(r"^(\d+(?:@\S+)?) +(?:user|assistant|\d{4}-)", plain, re.MULTILINE)
    entries = json.loads(ok("show", db, mine, "--json"))
    assert len(names) == len(entries) == 6
    for name, entry in zip(names, entries, strict=True):
        ok("branch", db, mine, name)
        assert json.loads(ok("show", db, mine, "--json"))[-1]["entry_id"] == entry["entry_id"]
        assert ok("fork", db, mine, "--entry", name)
    ok("verify", db)

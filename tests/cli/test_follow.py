"""follow: a live home of OpenClaw has a copy, of both eras, and the home is only read."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from watchfiles import watch

import sessiondb
from sessiondb import sync
from sessiondb.cli import follow
from tests.support.command_line import TIMEOUT_S, command, fails, ok, run
from tests.support.openclaw_home import FOREIGN, grow, make_home
from tests.support.openclaw_store import OpenClawStore, transcript_lines
from tests.support.transfer import transcript

A = Path("agents/main/sessions/a.jsonl")
B = A.with_name("b.jsonl")


@pytest.fixture(scope="module")
def made_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("made") / "openclaw")


@pytest.fixture
def home(made_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_home, tmp_path / "openclaw"))


def contents(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def texts(path: Path) -> dict[str, int]:
    """Return how many entries each session has."""
    with sync.open(path, readonly=True) as db:
        return {info.session_id: info.entries for info in db.sessions(with_ended=True)}


def test_once_copies_what_is_new_and_only_reads(home: Path, tmp_db: Path) -> None:
    before = contents(home)
    assert " 5 transcripts" in ok("follow", home, tmp_db, "--once")
    first = texts(tmp_db)
    assert contents(home) == before
    assert " 0 new entries, 0 transcripts" in ok("follow", home, tmp_db, "--once")
    assert texts(tmp_db) == first
    grow(home / A, "a", 4)
    found = json.loads(ok("follow", home, tmp_db, "--once", "--json"))
    assert (found["entries_new"], found["sources"], found["ok"]) == (1, {str(A): 1}, True)
    grown = texts(tmp_db)
    assert {name for name in first if grown[name] != first[name]} == {"a"}
    assert json.loads(ok("migrate", home, tmp_db, "--json"))["ok"]


def test_what_is_not_copied_is_said_once_and_then_is_an_exit_code(
    home: Path, tmp_db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / A).with_name("c.jsonl").write_text(FOREIGN)
    with (home / B).open("a") as file:
        file.write("no JSON\n")
    done = run("follow", home, tmp_db, "--once")
    assert done.exit_code == 1
    assert "c.jsonl: not copied: " in done.stdout
    assert "b.jsonl: 1 damaged line, kept as bytes" in done.stdout
    with sync.open(tmp_db) as db:
        copy = follow.Copy(as_json=False)
        for name in (A, A, B):
            copy.take(db.migrate(home, compare=False))
            grow(home / name, name.stem, 9)
        assert not copy.is_whole
    said = capsys.readouterr().out
    assert said.count("not copied") == said.count("damaged") == 1
    assert said.count("1 new entry, 1 transcript\n") == 2


@pytest.fixture
def following(home: Path, tmp_db: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command("follow", home, tmp_db, "--json", "--every", 3_600),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # A command that hears of nothing would never print, and its reader never end.
    patience = threading.Timer(4 * TIMEOUT_S, process.kill)
    patience.start()
    with process:
        yield process
        process.kill()
    patience.cancel()


def heard(stream: IO[str] | None, path: str) -> dict[str, Any]:
    """Read what passes found until one of them found something there. A wait for the event."""
    assert stream is not None
    for line in stream:
        found: dict[str, Any] = json.loads(line)
        if path in found["sources"]:
            return found
    raise AssertionError(f"the command ended before it found {path}")


def test_changes_of_both_eras_are_copied_until_ctrl_c(
    following: subprocess.Popen[str], home: Path, tmp_db: Path
) -> None:
    out = following.stdout
    assert heard(out, str(A))["entries_new"] == 18
    grow(home / A, "a", 4)
    assert heard(out, str(A))["sources"] == {str(A): 1}
    store = OpenClawStore.again(home, "ops")
    store.append("x", [transcript_lines("x")[-1].replace('"id": "', '"id": "more-')])
    place = str(store.path.relative_to(home) / "x.jsonl")
    assert heard(out, place)["sources"] == {place: 1}
    store.close()
    (home / A).rename((home / A).with_name("a.jsonl.reset.2026-06-01T00-00-00.000Z"))
    anew = A.with_name("anew.jsonl")
    (home / anew).write_bytes(transcript(2, "anew"))
    assert heard(out, str(anew))["sources"] == {str(anew): 2}
    assert set(texts(tmp_db).items()) >= {("a", 5), ("b", 5), ("anew", 2), ("old", 3)}
    following.send_signal(signal.SIGINT)
    assert following.wait(TIMEOUT_S) == 130
    assert following.stderr is not None
    assert "entries were copied, and are stored" in following.stderr.read()


def test_a_pass_asks_for_no_other_pass(home: Path, tmp_db: Path) -> None:
    changes = watch(
        home, watch_filter=None, step=follow.TOGETHER_MS, rust_timeout=100, yield_on_timeout=True
    )
    with sync.open(tmp_db) as db:
        assert next(changes) == set(), "the watch has begun"
        for _ in range(2):
            db.migrate(home, compare=False)
        grow(home / B, "b", 5)
        seen: set[str] = set()
        while str(home / B) not in seen:  # the kernel tells what happened before it first
            seen |= {path for _, path in next(changes)}
    changes.close()
    assert [path for path in seen if follow.TRANSCRIPT.search(path)] == [str(home / B)]


@pytest.mark.parametrize("built", [False, True])
def test_new_entries_are_indexed_if_there_is_an_index(
    home: Path, tmp_db: Path, built: bool
) -> None:
    ok("follow", home, tmp_db, "--once")
    if built:
        ok("search", tmp_db, "--build")
    grow(home / A, "a", 4)
    grow(home / B, "b", 5)
    ok("follow", home, tmp_db, "--once")
    with sync.open(tmp_db, readonly=True) as db:
        indexed = db.search_indexed()
    assert (indexed.built, indexed.behind == 0) == (built, built)


def test_a_run_that_compares_nothing_leaves_it_to_the_next(home: Path, tmp_db: Path) -> None:
    with sync.open(tmp_db) as db:
        assert db.migrate(home, compare=False).count("equal") == 0
        assert db.migrate(home).count("equal") == 5
        grow(home / A, "a", 4)
        assert db.migrate(home, compare=False).entries_new == 1
        assert db.migrate(home).count("equal") == 5
        with pytest.raises(sessiondb.InvalidInput, match="leave out compare=False"):
            db.migrate(home, final=True, compare=False)


def test_without_watchfiles_it_says_what_to_install(
    home: Path, tmp_db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert "pip install 'sessiondb[follow]'" in fails(1, "follow", home, tmp_db)
    ok("follow", home, tmp_db, "--once")

"""OpenClaw's renames, step by step beside one import of what they end in.

A conversation that is reset becomes an archive and its key gets a new transcript. One that is
deleted becomes an archive, one that is restored a transcript again. Archives are compressed, keys
move, transcripts get other names. Whoever imports after any of these steps has in the end what one
import of the final folder gives: the sessions, whether they have ended, their times, their keys
with OpenClaw's row of each, every entry and every context.

The model is the importer itself, on a folder whose past it does not know. So the test finds what
depends on the past, and no mistake that does not.

`make models` runs 1,000 courses. `make test` runs 6, the same each time.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessiondb
from tests.proofs.models.machine import LONG
from tests.support.transfer import message, transcript

EXAMPLES = 1_000 if LONG else 6
KEYS = ("agent:main:a", "agent:main:b", "agent:main:c", "agent:main:d")


class Home:
    """A folder of transcripts as OpenClaw keeps it: live ones, archives, an index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "agents" / "main" / "sessions"
        self.folder.mkdir(parents=True)
        self.rows: dict[str, dict[str, Any]] = {}
        self.counts: dict[str, int] = {}
        self.steps = 0
        for key in KEYS[:3]:
            self.begin(key)
            self.talk(key)

    def save(self) -> None:
        (self.folder / "sessions.json").write_text(json.dumps(self.rows, indent=1))

    def begin(self, key: str) -> None:
        """Give a key a new session. OpenClaw writes its transcript with the first answer."""
        name = f"s{len(self.counts)}"
        self.counts[name] = 0
        self.rows[key] = {"sessionId": name, "updatedAt": self.steps}
        self.save()

    def path(self, key: str) -> Path:
        row = self.rows[key]
        return self.folder / row.get("sessionFile", f"{row['sessionId']}.jsonl")

    def talk(self, key: str) -> None:
        name, path = self.rows[key]["sessionId"], self.path(key)
        count = self.counts[name]
        if count == 0:
            path.write_bytes(transcript(1, name, f"hello of {name}"))
        else:
            with path.open("a") as file:
                file.write(message(f"m{count}", f"m{count - 1}", f"{name} {self.steps}") + "\n")
        self.counts[name] += 1
        self.rows[key]["updatedAt"] = self.steps
        self.save()

    def archive(self, key: str, why: str) -> None:
        path = self.path(key)
        if path.exists():
            path.rename(f"{path}.{why}.2026-05-17T07-35-{self.steps:02}.420Z")

    @property
    def archives(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl.*"))


def say(home: Home, which: int) -> None:
    if home.rows:
        home.talk(sorted(home.rows)[which % len(home.rows)])


def reset(home: Home, which: int) -> None:
    if home.rows:
        key = sorted(home.rows)[which % len(home.rows)]
        home.archive(key, "reset")
        home.begin(key)


def reset_and_say(home: Home, which: int) -> None:
    if home.rows:
        key = sorted(home.rows)[which % len(home.rows)]
        home.archive(key, "reset")
        home.begin(key)
        home.talk(key)


def delete(home: Home, which: int) -> None:
    if home.rows:
        key = sorted(home.rows)[which % len(home.rows)]
        home.archive(key, "deleted")
        del home.rows[key]
        home.save()


def restore(home: Home, which: int) -> None:
    """Make an archive a live transcript, under a key that is free if there is one."""
    if not home.archives:
        return
    archive = home.archives[which % len(home.archives)]
    live = home.folder / f"{archive.name.partition('.jsonl')[0]}.jsonl"
    if live.exists():
        return
    if archive.suffix == ".zst":
        unpacked = zstandard.ZstdDecompressor().stream_reader(archive.read_bytes()).read()
        live.write_bytes(unpacked)
        archive.unlink()
    else:
        archive.rename(live)
    free = [key for key in KEYS if key not in home.rows]
    if free:
        name = json.loads(live.read_text().splitlines()[0])["id"]
        row = {"sessionId": name, "updatedAt": home.steps, "sessionFile": live.name}
        home.rows[free[which % len(free)]] = row
        home.save()


def pack(home: Home, which: int) -> None:
    """Compress an archive."""
    plain = [path for path in home.archives if path.suffix != ".zst"]
    if plain:
        archive = plain[which % len(plain)]
        packed = zstandard.ZstdCompressor().compress(archive.read_bytes())
        Path(f"{archive}.zst").write_bytes(packed)
        archive.unlink()


def move_key(home: Home, which: int) -> None:
    free = [key for key in KEYS if key not in home.rows]
    if home.rows and free:
        home.rows[free[0]] = home.rows.pop(sorted(home.rows)[which % len(home.rows)])
        home.save()


def rename(home: Home, which: int) -> None:
    """Give a transcript another name, which its row says."""
    if home.rows:
        key = sorted(home.rows)[which % len(home.rows)]
        path = home.path(key)
        if path.exists():
            name = f"{home.rows[key]['sessionId']}-topic-{home.steps}.jsonl"
            path.rename(home.folder / name)
            home.rows[key]["sessionFile"] = name
            home.save()


STEPS: tuple[Callable[[Home, int], None], ...] = (
    say,
    reset,
    reset_and_say,
    delete,
    restore,
    pack,
    move_key,
    rename,
)
courses = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 5), st.booleans()), min_size=4, max_size=14
)


def state_of(db: sessiondb.sync.SessionDB) -> list[dict[str, Any]]:
    """Return what a user sees of every session, and of OpenClaw's rows."""
    rows = dict(db.query("SELECT session_key, details FROM binding").rows)
    files = db.query("SELECT session_id, name, state, entries FROM import_log").rows
    found = []
    for info in db.sessions(with_ended=True):
        session = db.session_by_id(info.session_id)
        found.append(
            {
                "id": info.session_id,
                "keys": {key: rows[key] for key in info.keys},
                "times": (info.created_at_ms, info.updated_at_ms, info.ended_at_ms),
                "files": [file for file in files if file[0] == info.session_id],
                "entries": [(one.seq, one.payload) for one in session.entries()],
                "context": session.context().messages,
            }
        )
    return sorted(found, key=lambda one: str(one["id"]))


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(courses)
def test_imports_after_each_rename_are_one_import_of_the_end(
    course: list[tuple[Callable[[Home, int], None], int, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = Home(Path(scratch) / "home")
        with sessiondb.sync.open(Path(scratch) / "often.db") as often:
            often.import_path(home.folder)
            for number, (step, which, is_imported) in enumerate(course):
                home.steps = number + 1
                step(home, which)
                if is_imported:
                    assert often.import_path(home.folder).ok
            assert often.import_path(home.folder, verify=True).ok
            with sessiondb.sync.open(Path(scratch) / "once.db") as once:
                once.import_path(home.folder)
                assert state_of(often) == state_of(once)
            assert often.verify().findings == ()

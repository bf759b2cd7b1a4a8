"""Every command, and the library, on databases that are damaged, foreign or no database at all.

A command does its work as far as the damage lets it. Or it prints one line that names the file
and the next step, and ends with its own exit code. It does not hang, crash, show a traceback, call
damage a bug, or change a session that the damage does not touch. SESSIONDB_DAMAGE is how many
damaged files are tried, SESSIONDB_DAMAGE_SEED the seed.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from click.testing import CliRunner

from sessiondb import sync
from sessiondb.cli import program
from sessiondb.errors import NewerSchema, NotASessionDB, OpenError, StoreDamaged
from sessiondb.sqlite import transaction
from tests import ROOT
from tests.proofs.fuzz.properties import watched
from tests.support import warm
from tests.support.core import change, query, user
from tests.support.damage import PAGE, SEED, TIMES, Truth, break_it, copy_of, die_with_wal, make

pytestmark = pytest.mark.damaged_values

FILES = max(4, TIMES // 5)
PATIENCE_S = 60
LINE = '{"role":"user","content":"hello"}\n'
# The next steps that the messages name.
WAYS_OUT = (
    "salvage",
    "--rebuild",
    "put the database back",
    "Upgrade",
    "Check",
    "Choose",
    "Run as",
    "Open it",
    "a file of its own",
)

OK, PROBLEMS, USAGE, NOT_FOUND, CANNOT_OPEN, BUSY = range(6)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return Truth.of(make(tmp_path_factory.mktemp("sound") / "sound.db", sessions=2))


@pytest.fixture
def broken(sound: Truth, tmp_path: Path) -> Path:
    return copy_of(sound.path, tmp_path / "broken.db")


def commands(path: Path, folder: Path) -> dict[str, list[str]]:
    """Return every command that opens a database, each with ordinary arguments."""
    line = folder / "line.jsonl"
    line.write_text(
        '{"type":"session","version":3,"id":"imported",'
        '"timestamp":"2026-01-01T00:00:00.000Z","cwd":"/"}\n'
    )
    sessions = folder / "openclaw" / "agents" / "main" / "sessions"
    sessions.mkdir(parents=True, exist_ok=True)
    (sessions / "moved.jsonl").write_text(line.read_text().replace("imported", "moved"))
    out = folder / "out"
    return {
        "status": ["status", str(path)],
        "sessions": ["sessions", str(path), "--all", "--json"],
        "show": ["show", str(path), "agent:main:more:1"],
        "context": ["context", str(path), "agent:main:more:1"],
        "compactions": ["compactions", str(path), "--json"],
        "export": ["export", str(path), str(out), "--session", "agent:main:more:1"],
        "export --format": ["export", str(path), str(folder / "read"), "--format", "html"],
        "doctor": ["doctor", str(path)],
        "metrics": ["metrics", str(path), "--json"],
        "verify": ["verify", str(path), "--json"],
        "query": ["query", str(path), "SELECT count(*), max(payload) FROM entry"],
        "disk": ["disk", str(path)],
        "top": ["top", str(path), "--json"],
        "search": ["search", str(path), "hello"],
        "inbox": ["inbox", str(path)],
        "stuck": ["stuck", str(path)],
        "events": ["events", str(path)],
        "import": ["import", str(path), str(line)],
        "migrate": ["migrate", str(folder / "openclaw"), str(path)],
        "append": ["append", str(path), "agent:main:more:1"],
        "delete": ["delete", str(path), "--session", "agent:main:more:1"],
        "redact": ["redact", str(path), "agent:main:more:1", "1"],
        "gc": ["gc", str(path), "--dry-run", "--max-age", "1d"],
        "salvage": ["salvage", str(path), str(folder / "new.db")],
    }


def run(arguments: list[str], stdin: str = "") -> tuple[int, str]:
    """Run a command in this process. Return its exit code and its complaint.

    An exception that escapes it fails the test.
    """
    with watched(cpu=False):
        result = CliRunner().invoke(program, arguments, input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def misbehaviour(name: str, code: int, message: str, path: Path) -> str | None:
    """Return what a command did wrong, or None."""
    if code not in (OK, PROBLEMS, USAGE, NOT_FOUND, CANNOT_OPEN, BUSY):
        return f"{name} ended with {code}: {message}"
    if "Traceback" in message or "this is a bug" in message:
        return f"{name} showed its insides: {message}"
    if code == CANNOT_OPEN and not (
        str(path) in message and any(way in message for way in WAYS_OUT)
    ):
        return f"{name} does not say which file, or what to do next: {message}"
    if code not in (OK, PROBLEMS) and not message.startswith("sessiondb: "):
        return f"{name} ended with {code} and said {message!r}"
    return None


def try_all(
    path: Path, folder: Path, only: tuple[str, ...] = ()
) -> tuple[dict[str, int], list[str]]:
    """Run every command on its own copy of a database. Return exit codes, and what was wrong."""
    codes, wrong = {}, []
    copy = folder / "copy.db"
    for name in only or tuple(commands(copy, folder)):
        (folder / "new.db").unlink(missing_ok=True)
        code, message = run(commands(copy_of(path, copy), folder)[name], LINE)
        codes[name] = code
        complaint = misbehaviour(name, code, message, copy)
        wrong += [complaint] if complaint is not None else []
    return codes, wrong


# -- whatever the damage


def test_no_command_hangs_or_crashes_whatever_is_damaged(
    sound: Truth, broken: Path, tmp_path: Path
) -> None:
    ended, failures = Counter[str](), []
    for number in range(FILES):
        damage = break_it(
            copy_of(sound.path, broken), random.Random(f"{SEED}/commands/{number}"), sound.count
        )
        codes, wrong = try_all(broken, tmp_path)
        ended.update(f"{name}: {code}" for name, code in codes.items())
        if wrong:
            failures.append(f"SESSIONDB_DAMAGE_SEED={SEED}, number {number}, {damage}: {wrong[:3]}")
    print(f"\ndamaged: seed {SEED}, {FILES} files, every command: {dict(sorted(ended.items()))}")
    assert failures == []


def test_a_file_cut_off_at_any_page_is_refused_or_read(
    sound: Truth, broken: Path, tmp_path: Path
) -> None:
    pages = range(0, sound.count, max(1, sound.count // max(6, FILES)))
    for left in pages:
        with copy_of(sound.path, broken).open("r+b") as file:
            file.truncate(left * PAGE)
        _, wrong = try_all(broken, tmp_path, ("status", "sessions", "verify", "append", "salvage"))
        assert wrong == [], f"{left} pages left"


def no_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def no_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(PAGE))


def shm_garbage(path: Path) -> None:
    Path(f"{path}-shm").write_bytes(random.Random(1).randbytes(32_768))


def wal_garbage(path: Path) -> None:
    Path(f"{path}-wal").write_bytes(random.Random(2).randbytes(50_000))


def wal_a_folder(path: Path) -> None:
    Path(f"{path}-wal").mkdir()


@pytest.mark.parametrize("damage", [no_header, no_first_page, shm_garbage, wal_garbage])
def test_the_header_and_the_files_beside_may_be_damaged(
    damage: Callable[[Path], None], broken: Path, tmp_path: Path
) -> None:
    damage(broken)
    codes, wrong = try_all(broken, tmp_path)
    assert wrong == []
    if damage in (no_header, no_first_page):
        assert {code for name, code in codes.items() if name != "salvage"} == {CANNOT_OPEN}
        assert codes["salvage"] == OK
    else:
        assert codes["sessions"] == OK


def test_a_foreign_or_damaged_wal_is_read_or_refused(sound: Truth, tmp_path: Path) -> None:
    other = die_with_wal(tmp_path / "other.db", turns=6)
    path = copy_of(sound.path, tmp_path / "broken.db")
    wal = Path(f"{path}-wal")
    content = Path(f"{other}-wal").read_bytes()
    for number in range(FILES):
        rng = random.Random(f"{SEED}/wal/{number}")
        data = bytearray(content)
        if number:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if number % 3 == 1:
            del data[rng.randrange(len(data)) :]
        wal.write_bytes(data)
        _, wrong = try_all(
            path, tmp_path, ("status", "sessions", "verify", "query", "append", "salvage")
        )
        assert wrong == [], f"SESSIONDB_DAMAGE_SEED={SEED}, WAL number {number}"


# -- files of another kind


def text(path: Path) -> None:
    path.write_text("these are notes, not a database\n" * 400)


def json_lines(path: Path) -> None:
    path.write_text('{"type":"session","id":"x"}\n' * 400)


def noise(path: Path) -> None:
    path.write_bytes(random.Random(3).randbytes(20_000))


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(10 * PAGE))


def foreign(path: Path) -> None:
    with closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE customer (name); PRAGMA application_id = 1196444487").fetchall()


@pytest.mark.parametrize("kind", [text, json_lines, noise, zeros, foreign])
def test_a_file_of_another_kind_is_refused_and_unchanged(
    kind: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "other"
    kind(path)
    before = path.read_bytes()
    folder = tmp_path / "work"
    folder.mkdir()
    codes, wrong = try_all(path, folder)
    assert wrong == []
    assert {code for name, code in codes.items() if name != "salvage"} == {CANNOT_OPEN}
    assert codes["salvage"] == USAGE
    assert not (folder / "new.db").exists()
    assert (folder / "copy.db").read_bytes() == before


def test_an_empty_file_is_refused_by_commands_that_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "empty"
    zero_bytes(path)
    folder = tmp_path / "work"
    folder.mkdir()
    codes, wrong = try_all(path, folder)
    assert wrong == []
    assert (codes["status"], codes["sessions"], codes["salvage"]) == (
        CANNOT_OPEN,
        CANNOT_OPEN,
        USAGE,
    )


def test_a_newer_schema_is_refused_with_its_number(broken: Path, tmp_path: Path) -> None:
    with closing(apsw.Connection(str(broken))) as db:
        db.execute("PRAGMA user_version = 77").fetchall()
    codes, wrong = try_all(broken, tmp_path)
    assert wrong == []
    assert {code for name, code in codes.items() if name != "salvage"} == {CANNOT_OPEN}
    assert codes["salvage"] == USAGE
    with pytest.raises(NewerSchema) as caught, sync.open(broken):
        pass
    assert caught.value.found == 77


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def in_a_process(arguments: list[str]) -> tuple[int, str]:
    """Run a command in its own process, with a time limit."""
    command = [sys.executable, "-m", "sessiondb", *arguments]
    done = warm.run(
        command,
        cwd=ROOT,
        input=LINE,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("kind", [a_folder, a_pipe, a_device, a_link_to_nowhere, a_link_to_itself])
def test_what_is_not_a_plain_file_is_refused_at_once(
    kind: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "odd"
    kind(path)
    for name, arguments in commands(path, tmp_path).items():
        if kind is a_link_to_nowhere and name in ("import", "migrate", "append"):
            continue  # these make a database where there is none
        code, message = (
            in_a_process(arguments)
            if kind is a_pipe and name in ("append", "salvage")
            else run(arguments, LINE)
        )
        assert code in (CANNOT_OPEN, USAGE), (name, code, message)
        assert message.startswith("sessiondb: "), (name, message)
        assert any(word in message for word in ("odd", "nowhere", "/dev/zero")), (name, message)
        assert "Traceback" not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_an_unreadable_file_is_refused_with_the_reason(broken: Path, tmp_path: Path) -> None:
    broken.chmod(0)
    for arguments in commands(broken, tmp_path).values():
        code, message = run(arguments)
        assert code in (CANNOT_OPEN, USAGE)
        assert "may not" in message or "permission" in message.lower()


# -- damage in one session does not touch another


def test_a_damaged_session_does_not_stop_the_others(
    sound: Truth, broken: Path, tmp_path: Path
) -> None:
    hurt, whole = "agent:main:more:0", "agent:main:more:1"
    with sync.open(sound.path) as db:
        before = [entry.payload for entry in db.session(whole).entries(limit=1000)]
    [number] = query(sound.path, "SELECT session_no FROM binding WHERE session_key = ?", hurt)
    mine = {
        page
        for (table, key), pages in sound.pages.items()
        if table == "entry" and key >> 32 == number
        for page in pages
    }
    others = {
        page
        for (table, key), pages in sound.pages.items()
        if table == "entry" and key >> 32 != number
        for page in pages
    }
    for page in mine - others:
        with broken.open("r+b") as file:
            file.seek((page - 1) * PAGE)
            file.write(b"\xff" * PAGE)
    with sync.open(broken) as db:
        with pytest.raises(StoreDamaged, match="salvage"):
            db.session(hurt).entries(limit=1000)
        session = db.session(whole)
        assert [entry.payload for entry in session.entries(limit=1000)] == before
        added = session.append(user("life goes on"))
        assert session.context().messages[-1]["content"] == "life goes on"
        report = db.verify()
        assert any("salvage" in finding.message for finding in report.findings)
        exported = tmp_path / "exported"
        db.export(exported, session=whole)
        assert any("life goes on" in file.read_text() for file in exported.rglob("*.jsonl"))
        assert db.session(whole).entries(limit=1000)[-1].entry_no == added.entry_no
    code, message = run(["show", str(broken), hurt])
    assert (code, "salvage" in message) == (CANNOT_OPEN, True)


def test_the_error_for_a_damaged_file_names_salvage(broken: Path) -> None:
    with broken.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 50)
    for options in ({}, {"readonly": True}):
        with (
            pytest.raises((OpenError, StoreDamaged), match="salvage"),
            sync.open(broken, **options) as db,
        ):
            list(db.sessions())
    no_header(broken)
    with pytest.raises(NotASessionDB, match="salvage"), sync.open(broken):
        pass


# -- findings of the sweeps above, one by one


def overwrite_with(path: Path, page: int, other: int) -> None:
    """Put a copy of one page in the place of another."""
    data = bytearray(path.read_bytes())
    data[(page - 1) * PAGE : page * PAGE] = data[(other - 1) * PAGE : other * PAGE]
    path.write_bytes(data)


def test_verify_continues_past_a_page_of_another_table(sound: Truth, broken: Path) -> None:
    leaf = {name: page for page, name in sorted(sound.tables.items(), reverse=True)}
    for table, other in (("branch", "event"), ("inbox", "event"), ("turn", "session")):
        overwrite_with(copy_of(sound.path, broken), leaf[table], leaf[other])
        code, message = run(["verify", str(broken), "--json"])
        assert (code, misbehaviour("verify", code, message, broken)) == (PROBLEMS, None)


def test_verify_and_salvage_continue_past_a_broken_message(broken: Path, tmp_path: Path) -> None:
    change(broken, "UPDATE inbox SET payload = substr(payload, 2) WHERE event_id = 'waiting-7'")
    with sync.open(broken, readonly=True) as db:
        assert [finding.check for finding in db.verify().findings] == ["inbox"]
    new = tmp_path / "new.db"
    assert run(["salvage", str(broken), str(new)])[0] == PROBLEMS
    with sync.open(new, readonly=True) as db:
        assert db.verify().ok
    [(state, reason)] = query(new, "SELECT state, reason FROM inbox WHERE event_id = 'waiting-7'")
    assert (state, reason) == (
        "dead",
        "salvaged: its text is damaged",
    )  # shown to a person, not lost


def test_a_broken_text_is_shown_and_makes_no_context(
    broken: Path,
) -> None:
    change(
        broken, "UPDATE entry SET payload = replace(payload, 'question 3 of 1', 'question\"3 of 1')"
    )
    result = CliRunner().invoke(program, ["show", str(broken), "agent:main:more:1", "-n", "200"])
    assert result.exit_code == OK
    assert "damaged, run" in result.stdout
    assert 'question"3 of 1' in result.stdout
    with sync.open(broken, readonly=True) as db, pytest.raises(StoreDamaged, match="salvage"):
        list(db.session("agent:main:more:1", create=False).context(epoch=0).messages)


def replace_column(path: Path, before: str, after: str) -> None:
    """Change a column of `entry` in the stored schema."""
    change(
        path,
        "PRAGMA writable_schema = on",
        f"UPDATE sqlite_schema SET sql = replace(sql, '{before}', '{after}') WHERE name = 'entry'",
    )


def test_an_impossible_value_is_reported_as_damage_not_as_a_bug(
    broken: Path,
) -> None:
    nullable, required = "payload          TEXT", "payload          TEXT    NOT NULL"
    replace_column(broken, required, nullable)
    change(broken, "UPDATE entry SET payload = NULL WHERE payload GLOB '*question 3 of 1*'")
    replace_column(broken, nullable, required)
    code, message = run(["export", str(broken), str(broken.with_name("out"))])
    assert (code, "the file is damaged" in message, "salvage" in message) == (
        CANNOT_OPEN,
        True,
        True,
    )


def test_a_text_that_is_not_utf_8_is_reported_as_damage(broken: Path) -> None:
    change(broken, "UPDATE session SET name = CAST(x'ff41' AS TEXT) WHERE session_no = 1")
    with sync.open(broken, readonly=True) as db, pytest.raises(StoreDamaged, match="salvage"):
        list(db.sessions(with_ended=True))


# -- teeth


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (70, "sessiondb: this is a bug: CorruptError"),
        (1, "Traceback (most recent call last):\n  File"),
        (4, "sessiondb: database disk image is malformed"),
        (5, "something else"),
    ],
)
def test_a_command_that_misbehaves_is_caught(code: int, message: str) -> None:
    assert misbehaviour("status", code, message, Path("/tmp/broken.db")) is not None


def test_a_library_that_passes_on_sqlites_error_is_caught(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "translate", lambda error, *_: error)
    monkeypatch.setattr(sys.modules["sessiondb.cli.program"], "_damage_of", lambda db: None)
    with broken.open("r+b") as file:
        for number in {page for page, name in Truth.of(broken).tables.items() if name == "entry"}:
            file.seek((number - 1) * PAGE)
            file.write(b"\xff" * PAGE)
    _, wrong = try_all(broken, tmp_path, ("show", "context"))
    assert wrong != []

"""The command line as real processes: pipes, signals, a terminal, a gateway meanwhile."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from sessiondb import sync
from sessiondb.cli.terminal import cells
from tests.support import warm
from tests.support.command_line import KEY, TIMEOUT_S, command, on_terminal


@pytest.fixture(params=["buffered", "unbuffered"])
def output(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run commands with and without a buffer in front of standard output (`python -u`)."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1" if request.param == "unbuffered" else "")


def run(*args: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return warm.run(
        command(*args), input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False
    )


@pytest.fixture
def db(tmp_db: Path) -> Path:
    with sync.open(tmp_db) as opened:
        session = opened.session(KEY)
        session.append_many(
            [
                {"role": "user", "content": f"message {number} " + "x" * 200}
                for number in range(1000)
            ]
        )
    return tmp_db


@pytest.mark.usefixtures("output")
def test_a_reader_that_goes_away_ends_the_command_without_a_word(db: Path) -> None:
    for args in (
        ["show", db, KEY],
        ["show", db, KEY, "--json"],
        ["query", db, "select * from transcript", "--nl"],
        ["context", db, KEY],
    ):
        process = warm.Popen(command(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(TIMEOUT_S) == 141


@pytest.mark.usefixtures("output")
def test_output_that_cannot_be_written_is_an_error(db: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    for args in (["sessions"], ["show", KEY], ["query", "select * from transcript"]):
        with Path("/dev/full").open("wb") as full:
            done = warm.run(
                command(args[0], db, *args[1:]),
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=TIMEOUT_S,
                check=False,
            )
        assert done.returncode == 1
        assert b"No space left" in done.stderr
        assert b"send it elsewhere" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_closed_streams_are_no_bug(db: Path) -> None:
    def code(redirection: str, *args: object) -> int:
        line = f"{shlex.join(command(*args))} {redirection}"
        return subprocess.run(
            ["sh", "-c", line], capture_output=True, timeout=TIMEOUT_S, check=False
        ).returncode

    assert code("<&-", "append", db, KEY) == 2
    assert code(">&-", "sessions", db) == 141
    assert code("<&-", "sessions", db) == 0


def test_ctrl_c_ends_a_command_with_130(db: Path) -> None:
    process = warm.Popen(
        command("tail", "-f", db, KEY, "-n", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert b"message 999" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_ctrl_c_stops_an_endless_query(db: Path) -> None:
    endless = (
        "with recursive n(i) as (select 1 union all select i + 1 from n) "
        "select i, i % 1000000 as m from n"
    )
    process = warm.Popen(
        command("query", db, endless, "--nl"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["i"] == 1
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130


def test_tail_follows_what_another_process_appends(db: Path) -> None:
    process = warm.Popen(
        command("tail", "-f", db, KEY, "-n", "1", "--json"), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["seq"] == 1000
        with sync.open(db) as gateway:
            session = gateway.session(KEY)
            for number in (1001, 1002, 1003):
                session.append({"role": "user", "content": f"new {number}"})
                assert json.loads(process.stdout.readline())["seq"] == number
            session.branch(session.entries(limit=1)[0].entry_id)
            assert json.loads(process.stdout.readline())["type"] == "leaf"
        run("append", db, KEY, stdin=b'{"role":"user","content":"from a third process"}')
        assert "third" in json.loads(process.stdout.readline())["payload"]["message"]["content"]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)


@pytest.mark.slow
def test_commands_that_read_leave_a_live_gateways_files_alone(db: Path) -> None:
    with sync.open(db) as gateway:
        session = gateway.session(KEY)
        session.append({"role": "user", "content": "live"})
        before = {
            path.name: (path.stat().st_ino, path.stat().st_size) for path in db.parent.iterdir()
        }
        sql = "select * from stuck"
        for args in (
            ["sessions"],
            ["show", KEY],
            ["context", KEY],
            ["status"],
            ["verify"],
            ["query", sql],
            ["compactions"],
        ):
            done = run(args[0], db, *args[1:])
            assert (done.returncode, done.stderr) in ((0, b""), (0, b"no compactions\n")), args
        assert {
            path.name: (path.stat().st_ino, path.stat().st_size) for path in db.parent.iterdir()
        } == before
        assert session.append({"role": "user", "content": "still here"}).seq == 1002
    assert sorted(path.name for path in db.parent.iterdir()) == [db.name, f"{db.name}-alive"]
    run("sessions", db)
    run("query", db, "select 1")
    assert sorted(path.name for path in db.parent.iterdir()) == [db.name, f"{db.name}-alive"]


def test_a_query_with_a_stalled_reader_does_not_hold_the_wal(db: Path) -> None:
    """The rows go into a file at full speed, so the snapshot ends before they are read."""
    with sync.open(db) as gateway:
        session = gateway.session(KEY)
        session.append({"role": "user", "content": "in the WAL"})
        process = warm.Popen(
            command("query", db, "select * from transcript", "--nl"), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        # The query runs. The pipe takes 64 KiB of some 400, and is not read further.
        process.stdout.read(1)
        other = apsw.Connection(str(db))
        other.set_busy_timeout(TIMEOUT_S * 1000)
        # Waits for every snapshot, and would fail if one stayed.
        other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        other.close()
        rest = process.stdout.read()
        assert rest.count(b"\n") == 1002
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == 0


def test_append_stores_a_line_as_soon_as_it_arrives(tmp_db: Path) -> None:
    process = warm.Popen(
        command("append", tmp_db, KEY, "--create", "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    for number in (1, 2, 3):
        process.stdin.write(b'{"role":"user","content":"now"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["seq"] == number
    process.stdin.write(b'{"role":"user","content":"without a newline"}')
    process.stdin.close()
    assert json.loads(process.stdout.readline())["seq"] == 4
    process.stdout.close()
    assert process.wait(TIMEOUT_S) == 0


def test_what_append_acknowledged_survives_a_kill(tmp_db: Path) -> None:
    process = warm.Popen(
        command("append", tmp_db, KEY, "--create", "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b'{"role":"user","content":"mine"}\n')
    process.stdin.flush()
    receipt = json.loads(process.stdout.readline())
    process.kill()
    process.wait(TIMEOUT_S)
    process.stdin.close()
    process.stdout.close()
    shown = json.loads(run("show", tmp_db, KEY, "--json").stdout)
    assert [one["entry_id"] for one in shown] == [receipt["entry_id"]]
    status = json.loads(run("status", tmp_db, "--json").stdout)
    assert [process["alive"] for process in status["processes"]] == [False]


@pytest.mark.slow
def test_a_busy_database_is_code_5_and_names_the_holder(db: Path) -> None:
    holder = apsw.Connection(str(db))
    holder.execute("BEGIN IMMEDIATE").fetchall()
    try:
        done = run("append", db, KEY, stdin=b'{"role":"user","content":"x"}')
        assert done.returncode == 5
        assert done.stderr.startswith(b"sessiondb: ")
        assert done.stderr.count(b"\n") == 1
        assert run("show", db, KEY, "-n", "1").returncode == 0  # a reader does not mind
    finally:
        holder.execute("ROLLBACK").fetchall()
        holder.close()


def lines_without_bold(output: str) -> Iterator[str]:
    yield from output.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()


@pytest.mark.slow
def test_on_a_terminal_everything_fits_its_width(db: Path) -> None:
    with sync.open(db) as opened:
        opened.bind("agent:main:discord:channel:" + "9" * 60, opened.session(KEY))
        opened.session(KEY).append(
            {"role": "user", "content": "日本語の長いテキスト" * 30 + " evil \x1b[2J \x9b0m"}
        )
    sql = "select * from transcript limit 3"
    for args in (
        ["sessions"],
        ["status"],
        ["compactions"],
        ["show", KEY, "-n", "3"],
        ["tail", KEY],
        ["query", sql, "-t"],
    ):
        output, code = on_terminal(args[0], db, *args[1:])
        assert code == 0, output
        assert max(cells(line) for line in lines_without_bold(output)) <= 80, args
        assert "\x1b" not in "".join(lines_without_bold(output))
        assert "\x9b" not in output


def test_elsewhere_nothing_is_cut_or_coloured(db: Path) -> None:
    key = "agent:main:discord:channel:" + "9" * 60
    with sync.open(db) as opened:
        opened.bind(key, opened.session(KEY))
    output = run("sessions", db).stdout.decode()
    assert key in output
    assert "\x1b" not in output + run("show", db, KEY, "-n", "3").stdout.decode()


def test_progress_is_shown_on_a_terminal_only(tmp_db: Path, sample: Path) -> None:
    folder = sample / "pi-0.74.2"
    output, _ = on_terminal("import", tmp_db, folder)
    assert "importing" in output
    done = run("import", tmp_db, folder)
    assert b"importing" not in done.stdout + done.stderr


def test_the_module_is_the_command(db: Path) -> None:
    script = Path(sys.executable).with_name("sessiondb")
    assert run("--version").stdout.startswith(b"sessiondb ")
    if script.exists():
        assert (
            subprocess.run(
                [script, "--version"], capture_output=True, timeout=TIMEOUT_S, check=True
            ).stdout
            == run("--version").stdout
        )

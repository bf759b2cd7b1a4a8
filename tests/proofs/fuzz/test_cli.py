"""A command answers any arguments or says in one line what is wrong. None drives the terminal.

Arguments are made from the declared parameters of the commands (click's), so a new option is tried
without a change here. A value fits its type, is at an edge of it, or is not of the type at all. The
database holds texts by strangers: session ids, keys, names, file names and messages full of escape
sequences, control characters of both sets, direction marks and half emoji. The commands believe
that standard output is a terminal. Raw JSON for a pipe is not tested here.

For every call this must hold. It ends. There is no traceback. The exit code is in the table of
`--help`, and never 70 ("a bug"). A complaint is one line. The terminal gets no sequence that it
obeys except the program's own: bold headings and the progress bar's moves.

`--follow` and `--watch` are left out, because they never end. `SESSIONDB_FUZZ` tries so many calls.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import sessiondb.sync
from sessiondb.cli import program
from sessiondb.cli.terminal import at
from tests.proofs.fuzz.properties import INPUTS, MEANT, OBEYED, SEED, Broken, watched
from tests.support.transfer import header, message, write

pytestmark = pytest.mark.usefixtures("nothing_left")

CALLS = INPUTS // 10 or 70
CODES = {0, 1, 2, 3, 4, 5}
EVIL = "\x1b[31mred\x1b[0m\x07 \x9b2J \u202egnp.exe\u2066 \x7f\u2028\u200f end"
EVIL_ID = "evil\x7f\x9b2J\u202e\u2028id"
EVIL_KEY = "agent:main:\x7f\x9b2j\u202e\u2028key"


@pytest.fixture(autouse=True)
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands believe that they write to a terminal."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)


def run(*arguments: str, stdin: bytes = b"") -> Result:
    """Run a command. Escape sequences stay in its output, as on a terminal."""
    with watched(cpu=False):
        return CliRunner().invoke(program, list(arguments), input=stdin, color=True)


def problem_of(result: Result, arguments: list[str]) -> str | None:
    """Return the problem with the end or the output of a command, or None."""
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return f"it raised {result.exception!r}"
    if result.exit_code not in CODES:
        return f"exit code {result.exit_code}: {result.stderr[-400:]!r}"
    if "Traceback" in result.output and "--debug" not in arguments:
        return "a traceback"
    found = OBEYED.search(MEANT.sub("", result.output))
    if found is not None:
        around = result.output[max(0, found.start() - 60) : found.start() + 120]
        return f"{found[0]!r} reached the terminal in {around!r}"
    complaints = [line for line in result.stderr.splitlines() if line.startswith("sessiondb: ")]
    if result.exit_code in (2, 3, 4) and len(complaints) != 1 and "--debug" not in arguments:
        count = len(complaints)
        return f"exit code {result.exit_code} with {count} complaints: {result.stderr[-400:]!r}"
    return None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a database with texts by strangers, files that are not databases, and folders."""
    tmp_path = tmp_path_factory.mktemp("made")
    with sessiondb.sync.open(tmp_path / "one.db", durability="normal") as opened:
        session = opened.create_session(EVIL_ID, agent_id=f"a{EVIL}")
        opened.bind(EVIL_KEY, session)
        session.append_many(
            [
                {"role": "user", "content": EVIL},
                {"role": f"r{EVIL}", "content": EVIL},
                {"type": "session_info", "name": EVIL},
            ]
        )
        session.append(
            {"type": f"t{EVIL}", "id": f"i{EVIL}", "data": {EVIL: EVIL}}, idempotency_key=f"k{EVIL}"
        )
        session.append(
            '{"role":"assistant","model":"\\ud83d","content":'
            '[{"type":"\\u009b","text":"\\ud83d"},{"type":"toolCall","name":"\\u202e"}]}'
        )
        session.append({"role": "assistant", "content": EVIL * 100})
        with session.compact(trigger=f"by {EVIL}", keep_recent_tokens=1) as job:
            job.commit(f"short {EVIL}")
        opened.accept(
            EVIL_KEY, {"role": "user", "content": EVIL}, channel=f"s{EVIL}", event_id=f"e{EVIL}"
        )
        opened.set_lane(f"l{EVIL}", concurrency=1, priority=1)
        opened.accept(
            EVIL_KEY,
            {"role": "\ud83d", "content": EVIL},
            channel="s",
            event_id="2",
            lane=f"l{EVIL}",
        )
        bad = f"{header(f'h{EVIL}')}\n{message('a', None)}\n{EVIL}\n".encode()
        write(
            tmp_path / "in",
            {
                f"{EVIL}.jsonl": bad,
                "sessions.json": json.dumps(
                    {f"agent:main:{EVIL}": {"sessionId": "x"}, EVIL: 1}
                ).encode(),
            },
        )
        opened.import_path(tmp_path / "in")
    (tmp_path / "empty.db").touch()
    (tmp_path / "no.db").write_bytes(b"not a database, but long enough to be looked at " * 100)
    (tmp_path / "settings.json").write_text('{"session": {"maintenance": {"pruneAfter": "30d"}}}')
    (tmp_path / EVIL).mkdir()
    return tmp_path


@pytest.fixture
def places(made: Path, tmp_path: Path) -> dict[str, Path]:
    """Copy these files for a test that may change them."""
    shutil.copytree(made, tmp_path / "here")
    os.mkfifo(tmp_path / "here/fifo.jsonl")
    return {"db": tmp_path / "here/one.db", "folder": tmp_path / "here"}


ENDS = {"follow": ["--once"], "serve": ["--openapi"], "top": ["--json"]}
"""With these, a command ends that otherwise goes on until somebody stops it."""


class Arguments:
    """Makes arguments for a command from its declared parameters."""

    def __init__(self, chance: random.Random, places: dict[str, Path]) -> None:
        self.chance = chance
        self.folder = str(places["folder"])
        self.db = str(places["db"])

    def make(self) -> list[str]:
        name = self.chance.choice(
            [*program.commands, *program.commands, "", "unheard-of", EVIL, "\udcff"]
        )
        if name not in program.commands:
            return [name, *(self.text() for _ in range(self.chance.randrange(3)))]
        arguments = [name]
        for parameter in program.commands[name].params:
            arguments += self.of(parameter)
        arguments += ENDS.get(name, [])
        if self.chance.randrange(10) == 0:
            arguments.insert(self.chance.randrange(1, len(arguments) + 1), self.text())
        return arguments

    def of(self, parameter: click.Parameter) -> list[str]:
        if isinstance(parameter, click.Argument):
            if parameter.name == "db":
                return [self.db if self.chance.randrange(5) else self.path()]
            return [
                self.value(parameter)
                for _ in range(
                    self.chance.randrange(1, 3) if parameter.nargs == -1 else parameter.nargs
                )
            ]
        assert isinstance(parameter, click.Option)
        if self.chance.randrange(4) or parameter.name in ("follow", "watch", "help"):
            return []
        name = self.chance.choice(parameter.opts)
        if parameter.is_flag:
            return [name]
        return [name, *(self.value(parameter) for _ in range(parameter.nargs))]

    def value(self, parameter: click.Parameter) -> str:
        if self.chance.randrange(8) == 0:
            return self.text()
        kind = parameter.type
        if isinstance(kind, click.Choice):
            return str(self.chance.choice(list(kind.choices)))
        if isinstance(kind, click.types.IntParamType):
            return str(
                self.chance.choice(
                    (0, 1, 2, 20, 1_000, 1_001, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**30)
                )
            )
        if isinstance(kind, click.types.FloatParamType):
            return self.chance.choice(
                (
                    "0",
                    "0.5",
                    "1",
                    "-1",
                    "1e-300",
                    "1e300",
                    "1e999",
                    "inf",
                    "-inf",
                    "nan",
                    "0x1",
                    "1_0",
                )
            )
        if isinstance(kind, click.Path) or parameter.name in ("dest", "to", "new"):
            return self.path()
        if parameter.name == "sql":
            return self.sql()
        if parameter.name in ("max_age", "idle", "drop_archives", "max_bytes"):
            return self.chance.choice(
                ("30d", "0d", "1h", "1e9d", "9" * 400 + "d", "10gb", "1", "d", "-1d", "٣d", EVIL)
            )
        return self.text()

    def text(self) -> str:
        return self.chance.choice(
            (
                "",
                "-",
                "--",
                "x",
                "evil",
                "e",
                EVIL,
                EVIL_ID,
                EVIL_KEY,
                "agent:main:new",
                "agent::",
                "\udcff",
                "x" * 3_000,
                "-x",
                "--no",
                "-n",
                "%s",
                "\n",
                "--json",
                "--debug",
                "-1",
                "\u202e",
                "é",
                f":{EVIL}",
                "name",
            )
        )

    def path(self) -> str:
        name = self.chance.choice(
            (
                "in",
                "empty.db",
                "no.db",
                "missing",
                "settings.json",
                EVIL,
                "out",
                f"{EVIL}/x",
                "\udcff",
                "x" * 300,
                "",
                ".",
                "fifo.jsonl",
                "one.db/below",
                "one.db-wal",
                "settings.json",
            )
        )
        return self.chance.choice(
            (f"{self.folder}/{name}",) * 9 + ("/dev/null", "/dev/full", "/proc/self/mem", self.db)
        )

    def sql(self) -> str:
        return self.chance.choice(
            (
                "select * from session_overview",
                "select * from transcript",
                "select 1",
                "",
                ";",
                "select",
                f"select '{EVIL}' as \"{EVIL}\"",
                "\udcff",
                "select :x",
                "select ?",
                "attach 'x' as y",
                "drop table entry",
                "pragma user_version = 7",
                "select 1; select 2",
                "select x'ff', null, 1e999",
                "select load_extension('x')",
                "select cast(x'ed a0 80' as text)".replace(" a0 80", "a080"),
                "values (1), (2)",
                "select * from nothing",
                "select count(*) from quarantined",
                "select json_extract(payload, '$.message.content') from entry",
                "select zeroblob(10)",
            )
        )


def attempt(chance: random.Random, places: dict[str, Path]) -> tuple[list[str], Result]:
    arguments = Arguments(chance, places).make()
    stdin = chance.choice(
        (
            b"",
            b'{"role":"user","content":"x"}\n',
            EVIL.encode(),
            b"\xff\x00\n" * 5,
            b'{"role":"user","content":"\\ud83d"}',
            b"{" * 9_000,
        )
    )
    return arguments, run(*arguments, stdin=stdin)


def test_a_command_answers_any_arguments_with_a_known_exit_code(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places["folder"])
    report: Counter[int] = Counter()
    commands: Counter[str] = Counter()
    for number in range(CALLS):
        arguments, result = attempt(random.Random(SEED * 32_452_843 + number), places)
        report[result.exit_code] += 1
        commands[arguments[0] if arguments[0] in program.commands else "(none)"] += 1
        problem = problem_of(result, arguments)
        if problem is not None:
            shown = [argument[:200] for argument in arguments]
            raise Broken(f"call {number} of seed {SEED}: sessiondb {shown}: {problem}")
    codes = dict(sorted(report.items()))
    print(f"\nfuzz: seed {SEED}: {CALLS} calls of {len(commands)} commands, exit codes {codes}")
    assert report[0] > CALLS // 50, "calls that get somewhere"
    assert report[2] > CALLS // 10


@pytest.mark.parametrize("name", sorted(program.commands))
def test_a_text_by_strangers_never_drives_the_terminal_of(
    name: str, places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places["folder"])  # a text may be taken for the path of a new database
    db, folder = str(places["db"]), str(places["folder"])
    needed = {
        "import": [
            [db, folder + "/in"],
            [db, folder + "/in", "--verify", "-v"],
            [db, f"{folder}/{EVIL}"],
        ],
        "export": [
            [db, folder + "/out"],
            [db, folder + "/out2", "--session", EVIL_KEY],
            [db, f"{folder}/{EVIL}/out", "--session", EVIL_ID],
        ],
        "query": [
            [db, f"select '{EVIL}' as \"{EVIL}\"", *shape]
            for shape in ([], ["-t"], ["--csv"], ["--nl"], ["--fmt", "github"], ["--arrays"])
        ],
        "salvage": [[db, folder + "/new.db"]],
        "gc": [
            [db, "--max-sessions", "0", "--dry-run", "--all"],
            [db, "--max-sessions", "0", "--idle", "0d"],
        ],
        "serve": [[db, *ENDS["serve"]]],
        "top": [[db, *ENDS["top"]]],
        "resume": [[db, "--plan"], [db, "--run"]],
        "dead": [[db], [db, "--requeue", "1"]],
        "outbox": [[db], [db, "--sent", "1"]],
        "events": [[db], [db, "--consumer", EVIL]],
        "append": [[db, EVIL_KEY], [db, "agent:main:new", "--create"]],
    }.get(name)
    for arguments in needed or [[db], [db, EVIL_ID], [db, EVIL_KEY]]:
        for shape in ([], ["--json"]):
            call = [name, *arguments, *shape]
            problem = problem_of(
                run(*call, stdin=b'{"role":"user","content":"x"}\n' + EVIL.encode() + b"\n"), call
            )
            assert problem is None, f"{call}: {problem}"


# -- teeth -----------------------------------------------------------------------------------------


def test_a_command_that_prints_what_it_is_given_is_found_out(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessiondb.cli.terminal.escape", lambda text: text)
    call = ["sessions", str(places["db"])]
    assert "reached the terminal" in (problem_of(run(*call), call) or "")


def test_a_command_that_has_a_bug_is_found_out(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessiondb.sync.SessionDB.status", lambda self: {}["status"])
    call = ["status", str(places["db"])]
    assert "exit code 70" in (problem_of(run(*call), call) or "")


# -- findings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ms", [-(2**62), -62_135_596_800_001, 253_402_300_800_000, 2**62, 10**30])
def test_found_a_time_that_no_calendar_has_is_shown_as_a_number(ms: int) -> None:
    assert str(ms) in at(ms)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_found_a_value_that_is_not_a_number_is_wrong_usage(
    number: str, places: dict[str, Path]
) -> None:
    db = str(places["db"])
    for call in (
        ["resume", db, "--plan", "--max-age-hours", number],
        ["query", db, "select 1", "--timeout", number],
    ):
        assert run(*call).exit_code == 2, call


@pytest.mark.parametrize(
    "rest",
    [["\udcff"], ["select :x", "-p", "x", "\udcff"], ["select 1", "--timeout", "1e300"]],
    ids=["sql", "value", "time"],
)
def test_found_a_query_that_cannot_be_asked_is_wrong_usage(
    rest: list[str], places: dict[str, Path]
) -> None:
    assert run("query", str(places["db"]), *rest).exit_code == 2


def test_found_a_traceback_does_not_drive_the_terminal(places: dict[str, Path]) -> None:
    call = ["unarchive", str(places["db"]), EVIL_ID, "--debug"]
    result = run(*call)
    assert "Traceback" in result.stderr
    assert problem_of(result, call) is None

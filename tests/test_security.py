"""Attacks on the promises of SECURITY.md: files, SQL, `query`, databases, names and limits.

Each attack runs against a real file. Afterwards the file and its folder are compared with
what they were: a refusal with a changed byte is a success of the attack. For each wall, a
test takes it down and shows that the harness then reports the attack.
`SESSIONDB_ATTACKS` raises the number of random statements (`make fuzz`).

Not modelled: another process of the same user (it may do all that this one may), and
timing.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from click.testing import CliRunner

import sessiondb
import sessiondb.sync
from sessiondb import database, limits
from sessiondb.cli import query
from sessiondb.cli.program import program
from sessiondb.errors import InvalidInput, OpenError, ReadTooLong, SessionDBError
from sessiondb.limits import Limits
from sessiondb.sqlite import connection, engine, permissions, user_query
from sessiondb.transcript import compaction, entries
from sessiondb.transfer import exporter
from tests import ROOT
from tests.support.transfer import header, transcript, write

ATTACKS = int(os.environ.get("SESSIONDB_ATTACKS", "200"))
IS_LONG = ATTACKS > 1_000
SEED = int(os.environ.get("SESSIONDB_ATTACKS_SEED", "20261120"))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(
        program, [str(argument) for argument in arguments], prog_name="sessiondb"
    )


def fill(path: Path) -> None:
    """Make a small database with something in most tables."""
    with sessiondb.sync.open(path, program="test") as db:
        session = db.session("agent:main:web:direct:jo")
        session.append_many([{"role": "user", "content": f"word {number}"} for number in range(5)])
        session.fork()
        db.accept("web", "e1", "agent:main:web:direct:jo", {"role": "user", "content": "hi"})


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a closed database. Tests copy it, and leave it as it is."""
    path = tmp_path_factory.mktemp("filled") / "gateway.db"
    fill(path)
    return path


@pytest.fixture
def db(filled: Path, tmp_path: Path) -> Path:
    """Return a closed database for one test, in a folder of its own."""
    path = tmp_path / "home" / "gateway.db"
    path.parent.mkdir(mode=0o700)
    shutil.copyfile(filled, path)
    path.chmod(0o600)
    return path


# -- files -----------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
    }


@pytest.mark.anyio
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_every_file_is_for_its_owner_alone_with_any_umask(tmp_path: Path, umask: int) -> None:
    write(
        tmp_path / "in",
        {
            "agents/main/sessions/s-1.jsonl": transcript(),
            "agents/main/sessions/old.jsonl.reset.1.zst": b"",
        },
    )
    before, old = modes(tmp_path), os.umask(umask)
    try:
        async with sessiondb.open(tmp_path / "a" / "b" / "gateway.db") as db:
            await db.import_path(tmp_path / "in")
            native = await db.session("agent:main:web:direct:jo")
            await native.append({"role": "user", "content": "hi"})
            backend: Any = db.backend
            await backend.backup(tmp_path / "backups" / "one.db")
            await db.export(tmp_path / "x" / "y")
            open_files = modes(tmp_path)
        assert {
            "a/b/gateway.db",
            "a/b/gateway.db-wal",
            "a/b/gateway.db-shm",
            "backups/one.db",
            "a",
            "x/y/agents",
        } <= open_files.keys()
        created = {
            name: mode
            for name, mode in (open_files | modes(tmp_path)).items()
            if name not in before
        }
        folders = {name for name in created if (tmp_path / name).is_dir()}
        assert {
            name: oct(mode)
            for name, mode in created.items()
            if mode != (0o700 if name in folders else 0o600)
        } == {}
        assert len(folders) >= 7
    finally:
        os.umask(old)


@pytest.mark.anyio
async def test_open_status_and_verify_name_files_open_to_others(
    db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with sessiondb.open(db) as opened:
        assert (await opened.status()).concerns == ()
        assert (await opened.verify()).findings == ()
    assert caplog.records == []
    os.chmod(db.parent, 0o777)  # noqa: PTH101  # at once
    os.chmod(db, 0o644)  # noqa: PTH101
    with caplog.at_level(logging.WARNING):
        async with sessiondb.open(db) as opened:
            concerns = (await opened.status()).concerns
            findings = (await opened.verify()).findings
    assert [
        concern.partition(": ")[2]
        for concern in concerns
        if "-" not in concern.partition(": ")[0][-4:]
    ] == [
        "everybody may write to this folder, and so replace the database. chmod go-w it",
        "everybody may read it; chmod 600 it unless that is meant",
    ]
    assert [(one.check, one.severity) for one in findings] == [("access", "warning")] * len(
        concerns
    )
    assert any("everybody may read it" in record.message for record in caplog.records)
    assert "everybody may read it" in run("status", db).output
    verified = run("verify", db)
    assert (verified.exit_code, "everybody may write to this folder" in verified.output) == (
        0,
        True,
    )
    db.parent.chmod(0o700)
    assert permissions.concerns(str(db)) == ()  # nobody else reaches the file


def test_groups_and_others_differ_and_a_sticky_folder_is_fine(db: Path) -> None:
    db.parent.chmod(0o1777)
    for mode, message in (
        (0o600, None),
        (0o640, "its group may read it"),
        (0o660, "its group may write it"),
        (0o604, "everybody may read it"),
    ):
        db.chmod(mode)
        found = permissions.concerns(str(db))
        assert [message in one for one in found] == [True] * bool(message)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_name_of_sqlites_that_is_no_file_is_refused(db: Path, suffix: str, kind: str) -> None:
    victim, planted = db.parent / "victim", Path(f"{db}{suffix}")
    victim.write_bytes(b"precious\n" * 1_000)
    {
        "link": lambda: planted.symlink_to(victim),
        "pipe": lambda: os.mkfifo(planted),
        "folder": planted.mkdir,
    }[kind]()
    for attempt in (lambda: fill(db), lambda: sessiondb.sync.open(db, readonly=True).__enter__()):
        with pytest.raises(OpenError, match="SQLite keeps a file of its own under this name"):
            attempt()
    with pytest.raises(OpenError, match="of its own"), database.query(db, "select 1"):
        pass
    assert victim.read_bytes() == b"precious\n" * 1_000


def planted_wal(db: Path) -> Path:
    """Put a WAL with a change by a stranger beside a database. A copy of it made the WAL."""
    copy = db.parent.parent / "copy.db"
    shutil.copyfile(db, copy)
    with closing(apsw.Connection(str(copy))) as opened:
        opened.execute("update session set name = 'planted by somebody'").fetchall()
        shutil.copyfile(f"{copy}-wal", f"{db}-wal")
    return Path(f"{db}-wal")


def test_a_wal_of_another_user_is_refused(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, planted_wal(db)))
    for readonly in (True, False):
        with pytest.raises(OpenError, match="SQLite would take its content for"):
            sessiondb.sync.open(db, readonly=readonly).__enter__()


def test_without_that_refusal_the_planted_message_comes_in(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, planted_wal(db)))
    monkeypatch.setattr(engine, "refuse_planted", lambda args, path: None)
    with sessiondb.sync.open(db, readonly=True) as opened:
        assert [info.name for info in opened.sessions()] == ["planted by somebody"] * 2


def owned_by(uid: int, *paths: Path) -> Callable[[str], os.stat_result | None]:
    """Return a `stat` by which some files are another user's, so tests need not run as root."""

    def lstat(path: str) -> os.stat_result | None:
        if not os.path.lexists(path):
            return None
        found = list(os.lstat(path))
        found[stat.ST_UID] = uid if Path(path) in paths else found[stat.ST_UID]
        return os.stat_result(found)

    return lstat


def test_what_another_user_has_put_in_the_way_is_refused(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, wal = db.parent / "link.db", Path(f"{db}-wal")
    link.symlink_to(db)
    fill(link)  # one's own link is followed
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, link))
    with pytest.raises(
        OpenError, match="a symbolic link that another user \\(uid 4711\\) has made"
    ):
        fill(link)
    fill(db)
    wal.touch(mode=0o600)
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, wal))
    with pytest.raises(OpenError, match="belongs to uid 4711, and the database does not"):
        fill(db)
    # All of it is another user's. Root may open it.
    monkeypatch.setattr(permissions, "_lstat", owned_by(4711, wal, db))
    fill(db)
    db.parent.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    assert any(
        "belongs to another user (uid 4711)" in concern for concern in permissions.concerns(str(db))
    )


# -- SQL is never made of input --------------------------------------------------------------------

PACKAGE = ROOT / "sessiondb"
RUNS_SQL = {"execute", "executemany", "drain", "query_info", "pragma", "trace_v2", "blob_open"}
# SQL that is neither a constant, nor a named statement, nor a pragma with a number of ours,
# by module and function. Each has its reason.
NAMED_EXCEPTIONS = {
    f"sqlite/{place}": reason
    for place, reason in {
        "user_query.py _compile sql": "the user's own statement, which the authorizer checks",
        "user_query.py _without_semicolon sql[:at]": "... less a semicolon",
        "user_query.py _rows sql": "... run",
        "user_query.py _rows _with_text_as_bytes(sql, count)": (
            "... inside a template of user_query.sql, for text that is not Unicode"
        ),
        "connection.py drain script": "its callers' statements, each of which is found here",
        "schema.py create_or_migrate schema_text()": "schema.sql",
        "schema.py create_or_migrate next((script for number, script in migrations()"
        " if number == version + 1))": "a migration's file",
        "schema.py _pragma name": "called with constants of schema.py",
        "transaction.py _start prepared.sql": "a named statement of a .sql file",
        "file_format.py shapes schema_text()": "schema.sql, in memory",
        "new_database.py __enter__ f'PRAGMA {setting}'": "called with constants of its own",
    }.items()
}


def statements_run(source: str, module: str) -> Iterator[str]:
    """Yield `module function expression` for each SQL in a module that is no constant."""
    tree = ast.parse(source)
    for function in [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module)
    ]:
        for call in calls_of(function):
            name = (
                call.func.attr
                if isinstance(call.func, ast.Attribute)
                else call.func.id
                if isinstance(call.func, ast.Name)
                else ""
            )
            if name not in RUNS_SQL or not call.args:
                continue
            args = (
                call.args[1]
                if name in ("drain", "query_info") and len(call.args) > 1
                else call.args[0]
            )
            if not is_constant(args):
                yield f"{module} {getattr(function, 'name', '<module>')} {ast.unparse(args)}"


def calls_of(function: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls in a function, but not those in the functions inside it."""
    for child in ast.iter_child_nodes(function):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from calls_of(child)


def is_constant(node: ast.expr) -> bool:
    """Return whether an expression is text of ours.

    Such text is a constant, one of two constants, or a pragma with a NUMBER_OF_OURS or a
    counter in it.
    """
    match node:
        case ast.Constant():
            return True
        case ast.IfExp():
            return is_constant(node.body) and is_constant(node.orelse)
        case ast.JoinedStr():
            gaps = [value.value for value in node.values if isinstance(value, ast.FormattedValue)]
            begins = ast.unparse(node)[2:9].upper() == "PRAGMA "
            return begins and all(
                isinstance(gap, ast.Name) and (gap.id.isupper() or gap.id == "step") for gap in gaps
            )
    return False


def test_sql_is_a_constant_a_named_statement_or_an_exception() -> None:
    found = {
        line
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in statements_run(path.read_text("utf-8"), str(path.relative_to(PACKAGE)))
    }
    assert found - NAMED_EXCEPTIONS.keys() == set()
    assert NAMED_EXCEPTIONS.keys() - found == set(), "a named exception that is no longer there"


@pytest.mark.parametrize(
    "source",
    [
        'def f(c, x): c.execute(f"select * from entry where id = {x}")',
        'def f(c, x): c.execute("select " + x)',
        'def f(c, x): c.execute("select %s" % x)',
        'def f(c, x): c.execute("select {}".format(x))',
        "def f(c, x): c.execute(x)",
        "def f(c, x): drain(c, x)",
        'def f(c, x): drain(c, f"PRAGMA journal_mode = {x}")',
        'def f(c, X): drain(c, f"DELETE FROM {X}")',
        'async def f(c, x): c.pragma(f"table_info({x})")',
        "x = lambda c, q: c.executemany(q, [])",
        'def f(c, x): c.execute("select 1" if x else x)',
    ],
)
def test_sql_made_of_input_would_be_found(source: str) -> None:
    assert len(list(statements_run(source, "m.py"))) == 1


@pytest.mark.parametrize(
    "source",
    [
        'c.execute("select :x", {"x": x})',
        'drain(c, f"PRAGMA page_size = {PAGE_BYTES}")',
        'c.execute("a" if b else "c")',
        "execute()",
    ],
)
def test_constants_are_not_taken_for_it(source: str) -> None:
    assert list(statements_run(source, "m.py")) == []


# -- hostile text through every call ---------------------------------------------------------------

HOSTILE = [
    "'; DROP TABLE entry; --",
    '"; DELETE FROM session; --',
    "' OR '1'='1",
    "x' UNION SELECT payload FROM entry --",
    ":session_no ?1 $x @y {name} %s %(x)s",
    "%",
    "_",
    "*",
    "[a-z]",
    "\\",
    "../../etc/passwd",
    "\x1b[2J\x07",
    "nul\x00behind",
    "line\nbreak",
    "\ud83d",
    "é漢🙂\u202e",
    " ",
    "",
    "x" * 5_000,
    "--help",
]


def shortly(text: str) -> str:
    return ascii(text)[:40]


def content_of(path: Path) -> dict[str, list[Any]]:
    """Return the schema and every row of a database, but for those that opening it changes."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as opened:
        names = [
            name
            for (name,) in opened.execute(
                "select name from sqlite_schema where type = 'table' order by name"
            )
        ]
        rows = {name: sorted(opened.execute(f'select * from "{name}"'), key=repr) for name in names}
        rows["schema"] = list(
            opened.execute("select type, name, tbl_name, sql from sqlite_schema order by 1, 2")
        )
    return {
        name: found
        for name, found in rows.items()
        if name not in ("instance", "sqlite_sequence", "event_cursor", "lane")
    }


async def every_call(db: sessiondb.SessionDB, text: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    session = await db.session("agent:main:web:direct:jo")

    async def listed(pages: Any) -> list[Any]:
        return [item async for item in pages]

    reads: list[tuple[str, Callable[[], Any]]] = [
        ("session_by_id", lambda: db.session_by_id(text)),
        ("sessions", lambda: listed(db.sessions(agent_id=text))),
        ("export", lambda: db.export(os.devnull + "/x", session=text)),
        ("replies", lambda: listed(db.replies(text))),  # type: ignore[arg-type]
        ("plan_resumes", lambda: db.plan_resumes()),
        ("branch", lambda: session.branch(text)),
        ("fork", lambda: session.fork(entry_id=text)),
        ("reset", lambda: session.reset(text)),
        ("keep_from", lambda: session.reset("new", keep_from=text)),
        ("unbind", lambda: db.unbind(f"agent:x:{text}")),
        ("commit", lambda: db.commit_compaction(text, "a summary")),
        ("fail", lambda: db.fail_compaction(text, text)),
        (
            "accept in lane",
            lambda: db.accept(
                "web", "e9", "agent:main:web:direct:zz", {"role": "user", "content": "x"}, lane=text
            ),
        ),
        ("typed", lambda: session.append({"type": "custom", "parentId": text, "data": 1})),
        ("restore", lambda: db.restore(text)),
        ("not json", lambda: session.append(text)),
        ("import", lambda: db.import_path("/nonexistent/" + text)),
    ]
    return iter(reads)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "trio"] if IS_LONG else ["asyncio"], scope="module"
)
@pytest.mark.parametrize("text", HOSTILE, ids=shortly)
async def test_hostile_text_in_any_argument_changes_nothing(db: Path, text: str) -> None:
    before = content_of(db)
    async with sessiondb.open(db) as opened:
        for name, call in await every_call(opened, text):
            try:
                await call()
            except (SessionDBError, ValueError, OSError):
                assert name  # an error of the driver would end the test
        assert (await opened.verify()).ok
    after = content_of(db)
    assert after["schema"] == before["schema"]
    assert after["entry"] == before["entry"]
    assert after["session"] == before["session"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "anyio_backend", ["asyncio", "trio"] if IS_LONG else ["asyncio"], scope="module"
)
@pytest.mark.parametrize("text", HOSTILE, ids=shortly)
async def test_hostile_text_that_is_stored_comes_back_as_it_was(db: Path, text: str) -> None:
    before = content_of(db)
    async with sessiondb.open(db) as opened:
        session = await opened.create_session()
        await session.append({"role": "user", "content": text})
        for store in (
            lambda: session.append(
                {"role": "user", "content": "again"}, idempotency_key=text or None
            ),
            lambda: opened.session(f"agent:main:web:direct:{text}"),
            lambda: opened.create_session(text),
            lambda: opened.accept(
                text, text, "agent:main:web:direct:zz", {"role": "user", "content": text}
            ),
            lambda: opened.set_lane(text, concurrency=1, priority=1),
            lambda: session.append(
                {"type": "custom", "customType": text, "id": text or "e", "data": {text: text}}
            ),
        ):
            try:
                await store()
            except SessionDBError:
                continue  # a typed refusal is an answer, too
        stored = [json.loads(entry.payload) for entry in await session.entries()]
        assert stored[0]["message"]["content"] == text
        assert (await opened.verify()).ok
        try:
            assert (await opened.session_by_id(text)).id == text
        except (SessionDBError, ValueError):
            assert (
                await opened.read("test", lambda tx: tx.first("registry.by_id", session_id="zz"))
                is None
            )
    assert content_of(db)["schema"] == before["schema"]


COMMANDS = [
    ("show", "{db}", "{text}"),
    ("context", "{db}", "{text}"),
    ("tail", "{db}", "{text}"),
    ("sessions", "{db}", "--agent", "{text}"),
    ("compactions", "{db}", "--session", "{text}"),
    ("verify", "{db}", "--session", "{text}"),
    ("export", "{db}", "{out}", "--session", "{text}"),
    ("pin", "{db}", "{text}"),
    ("unpin", "{db}", "{text}"),
    ("restore", "{db}", "{text}"),
    ("append", "{db}", "{text}"),
    ("query", "{db}", "select count(*) from entry where entry_id = :x", "-p", "x", "{text}"),
    ("events", "{db}", "--consumer", "{text}"),
    ("outbox", "{db}", "--state", "{text}"),
    ("dead", "{db}", "--requeue", "{text}"),
    ("gc", "{db}", "--max-age", "{text}", "--dry-run"),
]


# An argument of a process has no NUL and no lone surrogate. The short run takes every fourth
# of the rest.
@pytest.mark.parametrize(
    "text",
    [text for text in HOSTILE if "\x00" not in text and "\ud83d" not in text][
        :: 1 if IS_LONG else 4
    ],
    ids=shortly,
)
def test_hostile_text_in_any_option_changes_nothing(db: Path, text: str, tmp_path: Path) -> None:
    before = content_of(db)
    for command in COMMANDS:
        result = run(*(part.format(db=db, text=text, out=tmp_path / "out") for part in command))
        assert result.exit_code != 70, (command, result.output)
        assert "\x1b[2J" not in result.output
    assert content_of(db) == before


# -- query -----------------------------------------------------------------------------------------

WRITES = [
    (
        "insert into event (kind, audience, at_ms, text, data)"
        " values ('x', 'user', 0, '', '{{}}') returning 1"
    ),
    "delete from entry returning entry_id",
    "update session set epoch = 99 returning session_id",
    "replace into lane values ('main', 9, 9) returning lane",
    "with x as (select 1) delete from entry returning 1",
    "select 1; delete from entry",
    "create table planted (x)",
    "create temp table planted (x)",
    "create view planted as select 1",
    "create trigger planted after insert on entry begin select 1; end",
    "create virtual table planted using fts5(x)",
    "drop table entry",
    "alter table entry rename to other",
    "attach '{home}/attached.db' as planted",
    "vacuum into '{home}/vacuumed.db'",
    "vacuum",
    "reindex",
    "analyze",
    "begin immediate",
    "commit",
    "savepoint x",
    "detach main",
    "select load_extension('{home}/x.so')",
    "select writefile('{home}/written', 'x')",
    "select edit('x', 'touch {home}/edited')",
    "select fts3_tokenizer('simple')",
    "select fts3_tokenizer('x', x'0000000000000000')",
    "select sqlite_log(1, 'forged')",
    "select readfile('/etc/passwd')",
    "select * from fsdir('/')",
    "select * from sqlite_dbpage('main')",
    "update sqlite_dbpage set data = zeroblob(4096) where pgno = 1 returning 1",
    "insert into sqlite_schema values ('table', 'x', 'x', 2, 'create table x (y)') returning 1",
    "explain delete from entry",
    "select * from pragma_journal_mode('delete')",
    "select * from pragma_wal_checkpoint('truncate')",
    "select * from pragma_query_only(0)",
]
HARMLESS_ROWS = {"explain delete from entry"}  # it explains the statement and does nothing


def pragma_attacks() -> list[str]:
    with closing(apsw.Connection(":memory:")) as opened:
        names = [name for (name,) in opened.execute("pragma pragma_list")]
    forms = (
        "pragma {name} = 1",
        "pragma {name}(1)",
        "pragma {name} = off",
        "pragma main.{name} = delete",
        "select * from pragma_{name}(1)",
    )
    return [form.format(name=name) for name in sorted(names) for form in forms] + [
        f"pragma {name}" for name in sorted(names)
    ]


def footprint(home: Path) -> dict[str, bytes]:
    """Return every file of a folder with its content."""
    return {path.name: path.read_bytes() for path in sorted(home.iterdir())}


def attack(db: Path, sql: str) -> list[str]:
    """Run a statement as `query` does, and return its effects that are not allowed.

    They are changed or new files, rows of a write, and errors that are not ours.
    """
    before = footprint(db.parent)
    message = []
    try:
        with database.query(
            db, sql.format(home=db.parent) if "{" in sql else sql, timeout_s=5.0
        ) as (_, rows):
            found = list(rows)
        if sql in WRITES and sql not in HARMLESS_ROWS and found:
            message.append(f"it was run, and returned {found[0]!r}")
    except SessionDBError:
        pass
    except Exception as error:  # noqa: BLE001  # any error is reported
        message.append(f"{type(error).__name__}: {error}")
    after = footprint(db.parent)
    message += [
        f"{name} changed"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return message


def test_no_statement_of_query_writes_attaches_loads_or_acts(db: Path) -> None:
    assert {sql: message for sql in WRITES if (message := attack(db, sql))} == {}


def test_no_pragma_given_to_query_changes_anything(db: Path) -> None:
    attacks = pragma_attacks()
    assert len(attacks) > 300
    assert {sql: message for sql in attacks if (message := attack(db, sql))} == {}


def test_an_allowed_pragma_leaves_the_settings_alone(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (
        "query_only",
        "temp_store",
        "cache_size",
        "mmap_size",
        "trusted_schema",
        "writable_schema",
        "busy_timeout",
        "journal_mode",
    )
    opened: list[apsw.Connection] = []
    connect = user_query.connect_visitor

    def visitor(path: str) -> apsw.Connection:
        opened.append(connect(path))
        return opened[-1]

    monkeypatch.setattr(user_query, "connect_visitor", visitor)
    for name in settings:
        for sql in (f"select * from pragma_{name}(1)", f"pragma {name} = 1", f"pragma {name}"):
            try:
                with database.query(db, sql) as (_, rows):
                    list(rows)
                    changed = opened[-1]
                    changed.authorizer = None
                    assert changed.pragma("query_only") == 1, sql
                    assert changed.pragma("writable_schema") == 0, sql
            except SessionDBError:
                continue


def test_without_the_authorizer_all_but_writes_succeed(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_query, "_authorize", lambda *_: apsw.SQLITE_OK)
    reported = {sql for sql in WRITES if attack(db, sql)}
    assert any(sql.startswith("select sqlite_log") for sql in reported) or any(
        "fts3_tokenizer('simple')" in sql for sql in reported
    )
    assert "delete from entry returning entry_id" not in reported  # query_only refuses it


def test_without_authorizer_and_query_only_writes_succeed(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_query, "_authorize", lambda *_: apsw.SQLITE_OK)
    monkeypatch.setattr(connection, "_query_only", lambda opened: None)
    reported = {sql for sql in WRITES if attack(db, sql)}
    assert {
        "delete from entry returning entry_id",
        "update session set epoch = 99 returning session_id",
    } <= reported


VOCABULARY = """
    select from where with recursive union all values insert into delete update set returning
    attach pragma vacuum create temp table view trigger drop explain query plan begin immediate
    commit as entry session sqlite_schema pragma_table_info json_each dbstat query_only
    journal_mode writable_schema main load_extension hex zeroblob randomblob count ( ) , ; = *
    'x' 1 -1 null x . -- /* */
"""
WORDS = VOCABULARY.split()


def test_random_statements_change_nothing_either(db: Path) -> None:
    chosen = random.Random(SEED)
    print(f"random statements: {ATTACKS}, seed {SEED}")
    seeds = [*WRITES, *pragma_attacks()[:50]]
    for number in range(ATTACKS):
        words = (
            chosen.choices(WORDS, k=chosen.randint(1, 14))
            if number % 2
            else chosen.choice(seeds).split()
        )
        for _ in range(chosen.randint(0, 3)):
            words.insert(chosen.randint(0, len(words)), chosen.choice(WORDS))
        sql = (
            " ".join(words)
            .replace("{home}", str(db.parent))
            .replace("{{", "{")
            .replace("}}", "}")
            .replace("{", "(")
            .replace("}", ")")
        )
        assert attack(db, sql) == [], sql


ENDLESS = "with recursive c(n) as (select 1 union all select n + 1 from c) "


@pytest.mark.parametrize(
    "sql",
    [
        ENDLESS + "select count(*) from c",
        ENDLESS + "select n from c where n < 0",
        f"select count(*) from {', '.join(f'entry {alias}' for alias in 'abcdefghijkl')}",
        "select * from (" + ENDLESS + "select n from c) order by 1 limit 1 offset 100000000",
    ],
)
def test_a_query_that_never_ends_is_ended(db: Path, sql: str) -> None:
    with pytest.raises(ReadTooLong), database.query(db, sql, timeout_s=0.05) as (_, rows):
        list(rows)


@pytest.mark.parametrize(
    "sql",
    [
        "select zeroblob(2147483647)",
        "select zeroblob(900000000)",
        "select randomblob(1000000000)",
        "select printf('%*d', 1000000000, 1)",
        "select printf('%.*c', 1000000000, 'x')",
        "select hex(zeroblob(100000000))",
        "select replace(hex(zeroblob(100000)), '0', hex(zeroblob(1000)))",
        ENDLESS + "select group_concat(hex(zeroblob(1000000))) from (select n from c limit 200)",
        "select json_group_array(hex(zeroblob(1000000))) from ("
        + ENDLESS
        + "select n from c limit 200)",
    ],
)
def test_a_value_of_a_gigabyte_is_refused_before_it_is_made(db: Path, sql: str) -> None:
    before = apsw.memory_high_water(True)
    with pytest.raises(InvalidInput), database.query(db, sql, timeout_s=20.0) as (_, rows):
        list(rows)
    assert apsw.memory_high_water() - before < 3 * limits.QUERY_VALUE_BYTES_MAX


def test_the_largest_entry_that_can_be_stored_can_be_queried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert limits.QUERY_VALUE_BYTES_MAX >= 2 * limits.ENTRY_BYTES_MAX
    monkeypatch.setattr(entries, "ENTRY_BYTES_MAX", 300_000)
    monkeypatch.setattr(user_query, "QUERY_VALUE_BYTES_MAX", 600_000)
    with sessiondb.sync.open(tmp_path / "large.db") as opened:
        opened.create_session().append({"role": "user", "content": "x" * 299_500})
    with database.query(
        tmp_path / "large.db", "select max(length(hex(payload))), max(payload) from entry"
    ) as (_, rows):
        assert next(rows)[0] > 599_000


def in_a_process(
    db: Path, sql: str, *options: str, changed: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run `sessiondb query` in a process of its own, after a change to the module `query`."""
    code = (
        "import sys\nfrom sessiondb.cli import main, query\n"
        f"{changed}\nsys.argv[0] = 'sessiondb'\nmain()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, "query", str(db), sql, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )


def test_a_sort_that_would_fill_memory_or_disk_is_refused(db: Path) -> None:
    sql = (
        "select count(*) from ("
        + ENDLESS
        + "select n, hex(randomblob(2000)) as r from c limit 100000000) order by r"
    )
    found = in_a_process(
        db,
        sql.replace("count(*)", "r"),
        changed="query.QUERY_MEMORY_BYTES_MAX = 32 << 20",
    )
    assert (found.returncode, "needs more memory than a query may have" in found.stderr) == (
        2,
        True,
    ), found.stderr


def test_an_uninterruptible_function_ends_with_the_process(db: Path) -> None:
    found = in_a_process(
        db,
        "select instr(zeroblob(60000000), cast(zeroblob(30000000) || '1' as blob))",
        "--timeout",
        "0.2",
        changed="query.QUERY_STOP_S = 0.2",
    )
    assert (found.returncode, "it could not be stopped" in found.stderr) == (5, True), found.stderr


def test_output_without_end_and_tables_without_end_are_refused(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "QUERY_OUTPUT_BYTES_MAX", 1_000_000)
    monkeypatch.setattr(query, "QUERY_TABLE_ROWS_MAX", 1_000)
    # The limit is one of the whole process, which runs other tests.
    monkeypatch.setattr(database, "bound_query_memory", lambda limit_bytes: None)
    for option, message in (
        ("--csv", "the output is longer than 1,000,000 bytes"),
        ("--table", "a table holds at most 1,000 rows"),
    ):
        result = run("query", db, ENDLESS + "select n from c", option)
        assert result.exit_code in (1, 2)
        assert message in result.output


# -- a database that an attacker made --------------------------------------------------------------

PLANTS = {
    "a trigger that deletes what is stored": (
        "CREATE TRIGGER t AFTER INSERT ON instance BEGIN DELETE FROM entry; END"
    ),
    "a trigger on every append": (
        "CREATE TRIGGER t AFTER INSERT ON entry "
        "BEGIN DELETE FROM entry WHERE entry_no < new.entry_no; END"
    ),
    "a trigger that never ends": (
        "CREATE TRIGGER t AFTER INSERT ON entry BEGIN SELECT count(*) FROM ("
        + ENDLESS
        + "SELECT n FROM c); END"
    ),
    "a view that never ends in place of ours": "DROP VIEW stuck; CREATE VIEW stuck AS "
    + ENDLESS
    + "SELECT n, n, n, n, n, n FROM c WHERE n < 0",
    "a view that loads an extension": (
        "DROP VIEW stuck; CREATE VIEW stuck AS SELECT load_extension('/tmp/x.so'), 1, 1, 1, 1, 1"
    ),
    "a view that registers a tokenizer": (
        "DROP VIEW stuck; CREATE VIEW stuck AS SELECT fts3_tokenizer('x', x'00'), 1, 1, 1, 1, 1"
    ),
    "a view that reads pages": (
        "DROP VIEW stuck; CREATE VIEW stuck AS SELECT data, 1, 1, 1, 1, 1 FROM sqlite_dbpage"
    ),
    "views that double forty times": "DROP VIEW stuck; CREATE VIEW v0 AS SELECT 1 AS x"
    + "".join(
        f"; CREATE VIEW v{n} AS SELECT a.x FROM v{n - 1} AS a, v{n - 1} AS b" for n in range(1, 40)
    )
    + "; CREATE VIEW stuck AS SELECT x, x, x, x, x, x FROM v39",
    "a virtual table": (
        "CREATE VIRTUAL TABLE planted USING fts5(x); INSERT INTO planted VALUES ('x')"
    ),
    "an index on an expression": "CREATE INDEX planted ON entry (length(hex(payload)))",
}


def plant(path: Path, script: str) -> None:
    with closing(apsw.Connection(str(path))) as opened:
        opened.execute(script).fetchall()


def read_all_and_append(path: Path, tmp_path: Path) -> None:
    """Make every call that only reads, then append. Errors of ours are answers."""
    short = Limits(read_age_s_max=0.2)
    steps: list[Callable[[sessiondb.sync.SessionDB], object]] = [
        lambda db: db.status(),
        lambda db: list(db.sessions()),
        lambda db: [
            session.context()
            for session in (db.session_by_id(info.session_id) for info in db.sessions())
        ],
        lambda db: db.verify(),
        lambda db: db.export(tmp_path / "out"),
        lambda db: list(db.compactions()),
    ]
    for readonly in (True, False):
        with sessiondb.sync.open(path, readonly=readonly, limits=short) as db:
            for step in steps:
                try:
                    step(db)
                except (SessionDBError, apsw.Error):
                    continue
            if not readonly:
                db.session("agent:main:web:direct:jo").append(
                    {"role": "user", "content": "said after"}
                )
    for sql in ("select * from stuck limit 5", "select count(*) from entry"):
        try:
            with database.query(path, sql, timeout_s=0.2) as (_, rows):
                list(rows)
        except SessionDBError:
            continue


def damage_by(script: str, db: Path, tmp_path: Path) -> list[str]:
    """Run a script on a database, use it, and return the damage to entries and other files."""
    before = content_of(db)["entry"]
    plant(db, script)
    others = {
        path: path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.parent != db.parent
    }
    read_all_and_append(db, tmp_path)
    after = content_of(db)["entry"]
    message = (
        []
        if set(before) < set(after) and len(after) == len(before) + 1
        else ["the entries are not those that were stored"]
    )
    message += [
        f"{path} changed" for path, content in others.items() if path.read_bytes() != content
    ]
    with closing(apsw.Connection(str(db), flags=apsw.SQLITE_OPEN_READONLY)) as opened:
        message += [
            "the head was moved"
            for (count,) in opened.execute(
                "select count(*) from session where head_no is null and last_seq > 1"
            )
            if count
        ]
    return message


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_schema_is_not_run_or_is_interrupted(name: str, db: Path, tmp_path: Path) -> None:
    assert damage_by(PLANTS[name], db, tmp_path) == []


@pytest.mark.parametrize(
    "name", ["a trigger that deletes what is stored", "a trigger on every append"]
)
def test_with_triggers_on_that_attack_succeeds(
    name: str, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_no_triggers", lambda opened: None)
    assert damage_by(PLANTS[name], db, tmp_path) != []


def test_a_planted_schema_calls_nothing_without_the_authorizer(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(db, PLANTS["a view that registers a tokenizer"])
    monkeypatch.setattr(user_query, "_authorize", lambda *_: apsw.SQLITE_OK)
    with (
        pytest.raises(InvalidInput, match="unsafe use of fts3_tokenizer"),
        database.query(db, "select * from stuck"),
    ):
        pass


@pytest.mark.parametrize(
    "content",
    [b"", b"SQLite format 3\x00", b"\x00" * 8192, b"#!/bin/sh\nrm -rf /\n", os.urandom(20_000)],
    ids=len,
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(content)
    for arguments in (
        ("status", path),
        ("verify", path),
        ("query", path, "select 1"),
        ("sessions", path),
        ("export", path, tmp_path / "out"),
    ):
        assert run(*arguments).exit_code in (4, 2)
    assert path.read_bytes() == content


# -- names -----------------------------------------------------------------------------------------

NAMES = [
    "../outside.jsonl",
    "../../../../../../tmp/sessiondb-outside.jsonl",
    "/outside.jsonl",
    "a/../../outside.jsonl",
    "a\x00b.jsonl",
    "a\nb.jsonl",
    "..\\outside.jsonl",
    "C:\\outside.jsonl",
    "CON.jsonl",
    "a:stream.jsonl",
    "linked/outside.jsonl",
    "precious.jsonl",
    "PRECIOUS.jsonl",
    ".",
    "..",
    "",
    "x" * 300 + ".jsonl",
    "/".join(["d"] * 3_000) + ".jsonl",
    "sessions.json",
    "gateway.db",
    "-rf.jsonl",
    ".bashrc",
]


def world(tmp_path: Path) -> dict[str, bytes]:
    """Return every file below a folder that no export may touch."""
    return {
        str(path): path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and "home" not in path.parts
    }


def export_names(
    db: Path, tmp_path: Path, names: list[str], *, overwrite: bool = False
) -> tuple[list[str], sessiondb.ExportReport]:
    """Give recorded files hostile names, and export them.

    Returns the effects on all but new files in the destination, and the report.
    """
    out, elsewhere = tmp_path / "deep" / "out", tmp_path / "elsewhere"
    for folder in (out, elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "outside.jsonl").write_bytes(b"not ours")
    (tmp_path / "deep" / "outside.jsonl").write_bytes(b"not ours")
    (out / "linked").symlink_to(elsewhere)
    (out / "precious.jsonl").write_bytes(b"there before")
    write(
        tmp_path / "in",
        {f"{number}.jsonl": header(f"s-{number}").encode() + b"\n" for number in range(len(names))},
    )
    with sessiondb.sync.open(db) as opened:
        opened.import_path(tmp_path / "in")
    for number, name in enumerate(names):
        with closing(apsw.Connection(str(db))) as raw:
            raw.execute(
                "update import_file set name = ? where path like ?", (name, f"%/{number}.jsonl")
            ).fetchall()
    before = world(tmp_path)
    with sessiondb.sync.open(db) as opened:
        report = opened.export(out, overwrite=overwrite)
    after = world(tmp_path)
    kept = {
        path: content
        for path, content in before.items()
        if not (overwrite and path.startswith(str(out)))
    }
    message = [f"{path} changed" for path, content in kept.items() if after.get(path) != content]
    message += [
        f"{path} is new"
        for path in after.keys() - before.keys()
        if not os.path.realpath(path).startswith(f"{out}/")
    ]
    message += [
        f"{path} is no regular file"
        for path in out.rglob("*")
        if not path.is_symlink() and not (path.is_file() or path.is_dir())
    ]
    return message, report


def test_no_name_leads_an_export_out_of_its_folder(db: Path, tmp_path: Path) -> None:
    message, report = export_names(db, tmp_path, NAMES)
    assert message == []
    assert report.count("written") >= len(NAMES) - 4
    assert all(file.status in ("written", "refused", "failed") for file in report.files)
    assert all(file.notes for file in report.files if file.status in ("refused", "failed"))
    assert len({file.name.casefold() for file in report.files}) == len(report.files)


def test_overwriting_stays_within_the_folder_too(db: Path, tmp_path: Path) -> None:
    assert export_names(db, tmp_path, NAMES, overwrite=True)[0] == []


def test_without_the_check_of_names_that_export_leads_out(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "safe_name", lambda name: name)
    monkeypatch.setattr(
        exporter, "_make_below", lambda top, folder: folder.mkdir(parents=True, exist_ok=True)
    )
    message, _ = export_names(db, tmp_path, ["../new.jsonl", "linked/new.jsonl"])
    assert [one.rpartition("/")[2] for one in message] == ["new.jsonl is new", "new.jsonl is new"]


def test_session_and_agent_ids_make_no_paths(tmp_path: Path) -> None:
    ids = [
        "../up",
        "..",
        "/root",
        "a/b",
        "a\\b",
        ".hidden",
        "con",
        "CON",
        "é" * 200,
        "x" * 255,
        "~",
        "-",
        "a\u202eb",
    ]
    with sessiondb.sync.open(tmp_path / "home" / "g.db") as db:
        for number, text in enumerate(ids):
            session = db.create_session(text)
            db.bind(f"agent:{text.replace(':', '')}:k{number}", session)
        report = db.export(tmp_path / "deep" / "out")
    assert len(report.files) >= len(ids)
    # A name that is too long for the disk fails by itself.
    assert {file.status for file in report.files} <= {"written", "failed"}
    assert report.count("written") >= len(ids) - 2
    assert {path.name for path in tmp_path.iterdir()} == {"home", "deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}


def test_no_name_in_an_index_leads_an_import_out_of_its_folder(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "outside.jsonl": transcript(3, "outside", text="SECRET"),
            "in/agents/main/sessions/s-1.jsonl": transcript(2),
        },
    )
    files = [
        "../../../../outside.jsonl",
        str(tmp_path / "outside.jsonl"),
        "..\\outside.jsonl",
        "file:///etc/passwd",
        "s-1.jsonl\x00x",
        "/",
        "",
    ]
    rows = {
        f"agent:main:k{number}": {"sessionId": "../outside", "sessionFile": name}
        for number, name in enumerate(files)
    }
    folder = tmp_path / "in/agents/main/sessions"
    (folder / "sessions.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "linked.jsonl").symlink_to(tmp_path / "outside.jsonl")
    os.mkfifo(folder / "pipe.jsonl")
    with sessiondb.sync.open(tmp_path / "home" / "g.db") as db:
        report = db.import_path(tmp_path / "in")
        assert {file.name.rpartition("/")[2]: file.status for file in report.files} == {
            "s-1.jsonl": "imported",
            "sessions.json": "imported",
            "linked.jsonl": "skipped",
            "pipe.jsonl": "skipped",
        }
        assert [info.session_id for info in db.sessions()] == ["s-1"]
    assert b"SECRET" not in (tmp_path / "home" / "g.db").read_bytes()


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("name", ["evil.jsonl", "sessions.json"])
def test_a_hard_link_to_the_live_database_is_not_opened(
    db: Path, tmp_path: Path, suffix: str, name: str
) -> None:
    """Opening and closing it would drop the locks of this process. The guard would raise."""
    (tmp_path / "in").mkdir()
    with sessiondb.sync.open(db, guard="raise") as opened:
        session = opened.session("agent:main:web:direct:jo")
        session.append({"role": "user", "content": "x"})
        (tmp_path / "in" / name).hardlink_to(f"{db}{suffix}")
        report = opened.import_path(tmp_path / "in")
        assert [(file.status, file.note) for file in report.files] == [
            ("failed", "this is the database's own file under another name")
        ]
        out = tmp_path / "out" / "agents" / "main" / "sessions"
        out.mkdir(parents=True)
        (out / f"{session.id}.jsonl").hardlink_to(f"{db}{suffix}")
        (out / "sessions.json").hardlink_to(f"{db}{suffix}")
        exported = opened.export(tmp_path / "out")
        assert {
            file.status
            for file in exported.files
            if file.name.endswith((f"{session.id}.jsonl", "sessions.json"))
        } == {"refused"}
        assert opened.stats()["guard_violations"] == 0


# -- limits ----------------------------------------------------------------------------------------


def test_an_entry_is_bounded_in_bytes_whatever_its_characters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(entries, "ENTRY_BYTES_MAX", 1_000)
    entries.draft_entry({"role": "user", "content": "x" * 900}, now_ms=0)
    for content in ("x" * 1_000, "漢" * 330):
        with pytest.raises(InvalidInput, match="at most 1,000 fit in one"):
            entries.draft_entry({"role": "user", "content": content}, now_ms=0)


def test_a_summary_is_bounded_as_the_entry_that_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ENTRY_BYTES_MAX", 1_000)
    compaction.Summary.of("漢" * 300)
    for arguments in (("漢" * 334,), ("short", {"x": "y" * 1_000})):
        with pytest.raises(InvalidInput, match="at most 1,000 fit in one entry"):
            compaction.Summary.of(*arguments)


@pytest.mark.anyio
async def test_every_input_has_a_bound_and_a_typed_error(tmp_path: Path) -> None:
    key, one = "agent:main:web:direct:jo", {"role": "user", "content": "x"}
    async with sessiondb.open(tmp_path / "g.db") as db:
        session = await db.session(key)
        too_much: dict[str, Callable[[], Any]] = {
            "entries of one call": lambda: session.append_many(
                [one] * (limits.APPEND_ENTRIES_MAX + 1)
            ),
            "session key": lambda: db.session("agent:main:" + "x" * limits.SESSION_KEY_CHARS_MAX),
            "session id": lambda: db.create_session("x" * (limits.SESSION_ID_CHARS_MAX + 1)),
            "idempotency key": lambda: session.append(
                one, idempotency_key="x" * (limits.IDEMPOTENCY_KEY_CHARS_MAX + 1)
            ),
            "source": lambda: db.accept("x" * (limits.SESSION_KEY_CHARS_MAX + 1), "e", key, one),
            "event id": lambda: db.accept(
                "web", "x" * (limits.SESSION_KEY_CHARS_MAX + 1), key, one
            ),
            "consumer of events": lambda: anext(db.events("x" * (limits.CONSUMER_CHARS_MAX + 1))),
            "consumer without a name": lambda: anext(db.events("")),
            "nesting": lambda: session.append(
                '{"role":"user","content":' + "[" * 600 + "]" * 600 + "}"
            ),
        }
        for name, call in too_much.items():
            with pytest.raises(InvalidInput):
                await call()
            assert name
        assert (await session.info()).entries == 0

"""Dependencies point down, one library touches the file, and SQL stays in `.sql` files.

    doors      cli, server, adapters, monitors  may import anything but an engine
    front      sessiondb, sync, testing         what a program or its tests import
    façade     database                         one asynchronous class: it alone names the engine
    above      salvage, openclaw_settings       uses the packages below, for façade and doors
    packages   gateway, transfer, maintenance   never import one another
    core       transcript                       one session's entries: knows no package above it
    shared     batching, events, messages
    base       backend, clock, errors, limits, paging, ...
    engine     sqlite                           alone imports apsw, and knows the base only

The rules are checked on the syntax tree, so an import inside a function, for type checking
or in a table of lazy imports counts as much as one at the top. Each rule is also tested on
source that breaks it, and on similar source that does not: a check that cannot fail is
worth nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import sessiondb
from tests import ROOT

PACKAGE = ROOT / "sessiondb"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From the ground up. An import goes to the same floor or a lower one. A room is a package, or
# a module at the top.
FLOORS: list[set[str]] = [
    {
        "arguments",
        "backend",
        "clock",
        "durable_files",
        "errors",
        "exits",
        "json_text",
        "limits",
        "models",
        "paging",
        "process",
        "statements",
        "texts",
        "threads",
        "timers",
        "waiter",
        "words",
    },
    {"batching", "events", "messages"},
    {"transcript"},
    {"gateway", "transfer", "maintenance"},
    {"salvage", "openclaw_settings"},
    {"database"},
    {
        "lifecycle",
        "sync",
        "testing",
        "pytest_plugin",
        "",
    },  # "": sessiondb/__init__.py, the front door
    {"cli", "server", "adapters", "monitors", "__main__"},
]
BASE = FLOORS[0]
PACKAGES = {"transcript", "gateway", "transfer", "maintenance", "salvage"}
ENGINE = "sqlite"
NAMES_THE_ENGINE = "database"

DRIVER = "apsw"
# The standard library's SQLite, and libraries that would open the live file through it or
# through one more.
SECOND_LIBRARIES = {
    "sqlite3",
    "_sqlite3",
    "pysqlite3",
    "aiosqlite",
    "sqlalchemy",
    "libsql",
    "turso",
}


def dotted(path: Path) -> str:
    """Return the name under which a source file is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# With the stub, which exists for type checkers alone. It imports `backend`, which imports it.
MODULES = {dotted(path) for path in SOURCES} | {"sessiondb.statements"}


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(source: str) -> ast.Module:
    return ast.parse(source)


@cache
def nodes_of(source: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree_of(source)))


@pytest.fixture(scope="module", autouse=True)
def _trees_go_with_this_module() -> Iterator[None]:
    """The tests after it would have the garbage collector walk half a million nodes."""
    yield
    for kept in (text_of, tree_of, nodes_of):
        kept.cache_clear()


def found_in(paths: Iterable[Path], rule: Callable[[str], list[str]]) -> list[str]:
    """Return what a rule finds in some source files, each with the name of its module."""
    return [f"{dotted(path)}: {found}" for path in paths for found in rule(text_of(path))]


def imported(source: str, package: str, modules: set[str]) -> Iterator[str]:
    """Yield what a source file in `package` imports, each as the dotted name of a module.

    A table of lazy imports counts, too: a dict whose keys are the names of modules.
    """
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if whole in modules else base
        elif isinstance(node, ast.Dict):
            keys = (key.value for key in node.keys if isinstance(key, ast.Constant))
            yield from (key for key in keys if isinstance(key, str) and key in modules)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {
            "import_module",
            "__import__",
        }:
            yield from (
                arg.value
                for arg in node.args[:1]
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            )


def room(module: str) -> str:
    """Return the package of a module, or its own name if it is at the top. "": front door."""
    return [*module.split("."), ""][1]


def floor(name: str) -> int:
    """Return which floor a room is on."""
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def broken_rules(
    source: str, module: str, *, package: str | None = None, modules: set[str] = MODULES
) -> list[str]:
    """Return a sentence for each import in `source` that goes against the layers."""
    mine, found = room(module), []
    for name in imported(source, package or module.rpartition(".")[0], modules):
        theirs = room(name)
        if name.split(".")[0] in SECOND_LIBRARIES:
            found.append(
                f"{module} imports {name}: a second SQLite library in the process drops the "
                "first one's locks"
            )
        elif name.split(".")[0] == DRIVER and mine != ENGINE:
            found.append(f"{module} imports {name}: only sessiondb.{ENGINE} knows the driver")
        elif name.split(".")[0] != "sessiondb" or theirs == mine:
            continue
        elif theirs == ENGINE and mine != NAMES_THE_ENGINE:
            found.append(
                f"{module} imports {name}: only sessiondb.{NAMES_THE_ENGINE} names the engine"
            )
        elif theirs == ENGINE:
            continue
        elif mine == ENGINE:
            if theirs not in BASE:
                known = ", ".join(sorted(BASE))
                found.append(f"{module} imports {name}: the engine knows {known}, nothing above")
        elif floor(theirs) > floor(mine):
            found.append(f"{module} imports {name}: dependencies point down")
        elif floor(theirs) == floor(mine) and mine in PACKAGES and theirs in PACKAGES:
            found.append(
                f"{module} imports {name}: the packages of one floor do not know one another"
            )
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return every set of modules that import one another in a circle."""
    found: list[list[str]] = []
    left = {module: set(theirs) for module, theirs in edges.items()}
    while left:
        free = {module for module, theirs in left.items() if not theirs & left.keys()}
        used = set().union(*left.values())
        free |= {module for module in left if module not in used}
        if not free:
            return [*found, sorted(left)]
        left = {module: theirs for module, theirs in left.items() if module not in free}
    return found


def test_imports_point_down() -> None:
    found = []
    for path in SOURCES:
        module = dotted(path)
        package = module if path.name == "__init__.py" else None
        found += broken_rules(text_of(path), module, package=package)
    assert found == []


def test_every_module_is_in_a_room_that_has_a_floor() -> None:
    rooms = {room(module) for module in MODULES} - {ENGINE}
    assert rooms == set().union(*FLOORS)


def outside_public_api(source: str) -> list[str]:
    """Return what an adapter imports of sessiondb that a program should not, or its framework.

    An adapter is a program's own code that happens to be shipped: it has the names that
    `sessiondb` exports, and needs no rule of its own over a transaction.
    """
    found = []
    for node in nodes_of(source):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("sessiondb.")]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            if str(node.module).startswith("sessiondb."):
                found.append(str(node.module))
            elif node.module == "sessiondb":
                public = (*sessiondb.__all__, "sync")
                found += [each.name for each in node.names if each.name not in public]
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            found.append("." * node.level + str(node.module or ""))
        elif isinstance(node, ast.Attribute) and node.attr in RULES_OF_ONES_OWN:
            found.append(ast.unparse(node))
    return found


RULES_OF_ONES_OWN = {"backend", "change_session"}
ADAPTERS = [path for path in SOURCES if path.parent.name == "adapters"]


def test_adapters_import_the_public_api_alone() -> None:
    assert found_in(ADAPTERS, outside_public_api) == []


@pytest.mark.parametrize(
    "source",
    [
        "from sessiondb.transcript.keys import parse_key",
        "import sessiondb.database",
        "from sessiondb import database",
        "from ..errors import InvalidInput",
        "db.backend.write(f)",
        "db.change_session('op', 1, f)",
    ],
)
def test_an_adapter_that_knows_more_is_found(source: str) -> None:
    assert outside_public_api(source) != []


def test_an_adapter_may_import_its_framework_and_exported_names() -> None:
    source = "from sessiondb import Item, Session\nfrom . import Needs\nimport agents.items"
    assert outside_public_api(source) == []


def test_nothing_imports_an_adapter() -> None:
    # Not the front door either: a framework takes a second to import, and may be missing.
    for path in SOURCES:
        if path.parent.name != "adapters":
            package = dotted(path) if path.name == "__init__.py" else dotted(path.parent)
            names = imported(text_of(path), package, MODULES)
            assert [name for name in names if room(name) == "adapters"] == [], dotted(path)


def test_no_modules_import_one_another_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for path in SOURCES:
        module = dotted(path)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        names = imported(text_of(path), package, MODULES)
        edges[module] = {name for name in names if name in MODULES and name != module}
    assert circles(edges) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


EXAMPLE_MODULES = {"sessiondb"} | {
    f"sessiondb.{name}"
    for name in (
        "errors",
        "sqlite",
        "sqlite.writer",
        "transcript",
        "transcript.append",
        "gateway",
        "gateway.turns",
        "transfer",
        "transfer.importer",
        "maintenance",
        "maintenance.verify",
        "salvage",
        "salvage.pipeline",
        "database",
        "sync",
        "cli",
    )
}


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("sessiondb.maintenance.verify", "import sqlite3", "second SQLite library"),
        ("sessiondb.sqlite.guard", "from sqlite3 import connect", "second SQLite library"),
        ("sessiondb.adapters.pi", "import aiosqlite", "second SQLite library"),
        (
            "sessiondb.maintenance.verify",
            "def f():\n    import importlib\n    importlib.import_module('sqlite3')",
            "second SQLite library",
        ),
        ("sessiondb.transcript.append", "import apsw", "knows the driver"),
        ("sessiondb.database", "from apsw import Connection", "knows the driver"),
        ("sessiondb.cli.query", "def f():\n    import apsw.shell", "knows the driver"),
        (
            "sessiondb.transcript.append",
            "from sessiondb.sqlite import SqliteBackend",
            "names the engine",
        ),
        ("sessiondb.cli.query", "from sessiondb import sqlite", "names the engine"),
        ("sessiondb.sync", "from .sqlite.writer import Writer", "names the engine"),
        ("sessiondb.sqlite.writer", "from ..transcript import append", "nothing above"),
        ("sessiondb.sqlite.writer", "from sessiondb import database", "nothing above"),
        ("sessiondb.transcript.append", "from sessiondb.database import SessionDB", "point down"),
        ("sessiondb.transcript.append", "import sessiondb", "point down"),
        ("sessiondb.transcript.append", "from .. import open", "point down"),
        (
            "sessiondb.transcript.append",
            "if TYPE_CHECKING:\n    from sessiondb.cli import main",
            "point down",
        ),
        ("sessiondb.transcript.append", "from sessiondb.gateway import turns", "point down"),
        ("sessiondb.errors", "from .transcript import append", "point down"),
        ("sessiondb.database", "from sessiondb import cli", "point down"),
        ("sessiondb.database", "from . import sync", "point down"),
        (
            "sessiondb.gateway.turns",
            "from sessiondb.transfer import importer",
            "do not know one another",
        ),
        (
            "sessiondb.maintenance.verify",
            "from sessiondb.gateway.turns import complete",
            "do not know one another",
        ),
        (
            "sessiondb.transfer.importer",
            "def f():\n    from sessiondb.maintenance import verify",
            "do not know one another",
        ),
        ("sessiondb.maintenance.verify", "from sessiondb.salvage import pipeline", "point down"),
        ("sessiondb.gateway.turns", "TABLE = {'sessiondb.database': ('open',)}", "point down"),
    ],
)
def test_an_import_that_points_up_or_past_the_seam_is_found(
    module: str, source: str, reason: str
) -> None:
    found = broken_rules(source, module, modules=EXAMPLE_MODULES)
    assert len(found) == 1
    assert reason in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "sessiondb.sqlite.writer",
            (
                "import apsw\nfrom ..errors import StoreBusy\n"
                "from sessiondb import errors\nfrom . import writer"
            ),
        ),
        (
            "sessiondb.database",
            "from .sqlite import SqliteBackend\nfrom . import errors\nfrom .gateway import turns",
        ),
        (
            "sessiondb.transcript.append",
            "from sessiondb import errors\nfrom .context import read\nimport json, sqlite_utils",
        ),
        ("sessiondb.gateway.turns", "from sessiondb.transcript import append\nfrom . import inbox"),
        (
            "sessiondb.salvage.pipeline",
            "from sessiondb.maintenance import verify\nfrom sessiondb.transcript import append",
        ),
        (
            "sessiondb.cli.query",
            (
                "import sessiondb\nfrom sessiondb import database, open\n"
                "from sessiondb.transcript import append"
            ),
        ),
        ("sessiondb.sync", "from .database import SessionDB"),
        ("sessiondb", "TABLE = {'sessiondb.database': ('open',)}"),
    ],
)
def test_an_import_that_points_down_is_allowed(module: str, source: str) -> None:
    assert broken_rules(source, module, modules=EXAMPLE_MODULES) == []


# Modules that open a connection. Allowed are `socket` for the machine's name, `urllib.parse`
# for parts of a name, and asyncio for its loop.
NETWORK = {
    "aiohttp",
    "ftplib",
    "h11",
    "http",
    "httpcore",
    "httptools",
    "httpx",
    "imaplib",
    "poplib",
    "requests",
    "smtplib",
    "socketserver",
    "ssl",
    "starlette",
    "urllib",
    "urllib3",
    "uvicorn",
    "webbrowser",
    "websockets",
    "xmlrpc",
}
OF_SOCKET = {"gethostname"}
CONNECTS = re.compile(
    r"\b(?:anyio\.(?:connect|create)_(?:tcp|udp|unix|connected)|asyncio\.(?:open|start)_"
    r"|\w+\.create_(?:connection|server)\b)"
)


def network_in(source: str) -> list[str]:
    """Return the imports and calls of a source file that could reach a network."""
    tree = tree_of(source)
    found = [
        name
        for name in imported(source, "sessiondb", MODULES)
        if name.split(".")[0] in NETWORK and name != "urllib.parse"
    ]
    found += [
        f"from socket import {alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "socket"
        for alias in node.names
    ]
    uses = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return found + [
        use
        for use in uses
        if CONNECTS.match(use) or (use.startswith("socket.") and use.split(".")[1] not in OF_SOCKET)
    ]


# `sessiondb serve` listens. Its package alone imports what that takes, and calls nobody: these
# are the modules that it may import, and what it may use of `socket`. One connection is made, to
# the socket of a server that may have died, and by a method, which is not looked for here.
SERVER = "server"
OF_A_SERVER = re.compile(
    r"(?:starlette|uvicorn)(?:\.[\w.]+)?$"
    r"|socket\.(?:socket|AF_INET|AF_UNIX|SOCK_STREAM|SOL_SOCKET|SO_REUSEADDR)$"
)


def test_the_library_reaches_no_network() -> None:
    assert found_in([p for p in SOURCES if room(dotted(p)) != SERVER], network_in) == []


def test_the_server_listens_and_calls_nobody() -> None:
    found = found_in([p for p in SOURCES if room(dotted(p)) == SERVER], network_in)
    assert [use for use in found if not OF_A_SERVER.match(use.partition(": ")[2])] == []


@pytest.mark.parametrize(
    "source",
    ["import httpx", "import socket\nsocket.create_connection(('h', 1))", "import websockets"],
)
def test_a_server_that_calls_somebody_is_found(source: str) -> None:
    found = network_in(source)
    assert [use for use in found if not OF_A_SERVER.match(use)] != []


def test_nothing_but_its_command_imports_the_server() -> None:
    # It needs an extra, and takes a while to import.
    for path in SOURCES:
        if room(dotted(path)) != SERVER and dotted(path) != "sessiondb.cli.serve":
            package = dotted(path) if path.name == "__init__.py" else dotted(path.parent)
            names = imported(text_of(path), package, MODULES)
            ours = [name for name in names if name.split(".")[0] == "sessiondb"]
            assert [name for name in ours if room(name) == SERVER] == [], dotted(path)


@pytest.mark.parametrize(
    "source",
    [
        "import httpx",
        "from urllib.request import urlopen",
        "def f():\n    import ssl",
        "import socket\nsocket.create_connection(('host', 1))",
        "from socket import socket",
        "import asyncio\nasyncio.open_connection('host', 1)",
        "loop.create_connection(f)",
        "await anyio.connect_tcp('host', 1)",
    ],
)
def test_what_reaches_a_network_is_found(source: str) -> None:
    assert network_in(source) != []


def test_asking_for_the_machines_name_reaches_none() -> None:
    source = (
        "from urllib.parse import unquote\nimport socket\nsocket.gethostname()\n"
        "import json, anyio\nanyio.create_task_group()"
    )
    assert network_in(source) == []


# Clocks, random numbers and ids of the library come from one module, which asks the kernel. A
# host program's tests stop the clock, seed `random` and replace `uuid4` (`sessiondb/clock.py`).
# The timers of an event loop go by a clock that they stop, too (`sessiondb/timers.py`).
CLOCK = PACKAGE / "clock.py"
OF_THE_HOST = {"time", "random", "secrets", "uuid"}
TELLS_TIME = re.compile(
    r"(?:.*\.)?(?:datetime|date)\.(?:now|utcnow|today)$"
    r"|(?:anyio|asyncio|trio)\.(?:sleep\w*|current_time|move_on_\w+|fail_\w+|timeout\w*|wait_for)$"
    r"|.*\.(?:call_later|call_at)$"
)


def clocks_in(source: str) -> list[str]:
    """Return what a source file uses of clocks, random numbers and an event loop's timers."""
    nodes = nodes_of(source)
    uses = [ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)]
    return [
        *(name for name in imported(source, "sessiondb", MODULES) if name in OF_THE_HOST),
        *(use for use in uses if TELLS_TIME.match(use)),
        *(
            ast.unparse(node)
            for node in nodes
            if isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("CancelScope")
            and any(keyword.arg == "deadline" for keyword in node.keywords)
        ),
    ]


def test_only_one_module_reads_a_clock_or_draws_a_number() -> None:
    assert found_in([p for p in SOURCES if p != CLOCK], clocks_in) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "def f():\n    from random import uniform",
        "import uuid\nuuid.uuid4()",
        "import secrets",
        "from datetime import datetime\ndatetime.now()",
        "import datetime\ndatetime.datetime.utcnow()",
        "import anyio\nanyio.sleep(1)",
        "with anyio.move_on_after(1): pass",
        "anyio.CancelScope(deadline=anyio.current_time() + 1)",
        "asyncio.wait_for(f(), 1)",
        "loop.call_later(1, f)",
    ],
)
def test_what_tells_the_time_is_found(source: str) -> None:
    assert clocks_in(source) != []


def test_what_tells_no_time_is_not_found() -> None:
    source = (
        "from sessiondb.clock import monotonic\nfrom datetime import UTC, datetime\n"
        "datetime.fromtimestamp(1, UTC)\ndatetime.fromisoformat('')\nimport os\nos.urandom(8)\n"
        "anyio.CancelScope(shield=True)\nthreading.Event().wait(1)\nmonotonic()"
    )
    assert clocks_in(source) == []


# A whole statement at the start of a literal, in either case, or an unmistakable clause
# anywhere, in SQL's capitals. Prose such as "select a session from the list" can begin a
# literal, so the lower-case shapes need a part that only a statement has.
STATEMENT = re.compile(
    r"""^\s*(?: select\s+(?:\*|[\w.,\s()"*]+)\s+from\s+\w+\s*
              (?:$|;|where\b|order\b|group\b|limit\b|join\b|,)
            | with\s+(?:recursive\s+)?\w+\s*(?:\([^)]*\))?\s+as\s*\(
            | (?:insert|replace)\s+(?:or\s+\w+\s+)?into\s+\w+\s*(?:\(|values\b|select\b|default\b)
            | update\s+(?:or\s+\w+\s+)?\w+\s+set\s+\w+\s*=
            | delete\s+from\s+\w+\s*(?:$|;|where\b)
            | create\s+(?:temp(?:orary)?\s+|unique\s+|virtual\s+)?(?:table|index|view|trigger)
              \s+(?:if\s+not\s+exists\s+)?\w+\s*(?:\(|on\b|as\b|using\b)
            | (?:drop|alter)\s+(?:table|index|view|trigger)\s+\w+
            | pragma\s+\w+\s*(?:$|;|=|\()
            | (?:begin\s+(?:immediate|exclusive|deferred)|savepoint\s+\w+|release\s+\w+
              |rollback\s+to\b|vacuum\b|attach\s+database\b)
        )""",
    re.VERBOSE | re.IGNORECASE,
)
CLAUSE = re.compile(
    r"\bSELECT\b.*\bFROM\b|\bINSERT\s+(?:OR\s+\w+\s+)?INTO\b|\bUPDATE\s+\w+\s+SET\b"
    r"|\bDELETE\s+FROM\b|\bCREATE\s+(?:TEMP\s+)?(?:TABLE|VIEW)\b"
    r"|\b(?:WHERE|AND)\s+[\w.]+\s*(?:=|IN\b|IS\b|>|<)|\bORDER\s+BY\b|\bGROUP\s+BY\b",
    re.DOTALL,
)


def literals(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield the line and text of each string literal, and whether it is put together.

    Docstrings are left out. The gaps of an f-string are `x`.
    """
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    pieces: set[int] = set()
    for node in ast.walk(tree):  # breadth first: a whole comes before its pieces
        if isinstance(node, ast.JoinedStr):
            pieces.update(id(value) for value in node.values)
            text = "".join(
                value.value if isinstance(value, ast.Constant) else "x" for value in node.values
            )  # type: ignore[misc]
            yield (
                node.lineno,
                text,
                any(isinstance(value, ast.FormattedValue) for value in node.values),
            )
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mod)):
            for side in (node.left, node.right):
                if isinstance(side, ast.Constant) and isinstance(side.value, str):
                    pieces.add(id(side))
                    yield side.lineno, side.value, True
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"format", "join", "replace"}
        ):
            if isinstance(node.func.value, ast.Constant) and isinstance(node.func.value.value, str):
                pieces.add(id(node.func.value))
                yield node.lineno, node.func.value.value, True
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in pieces | docstrings
        ):
            yield node.lineno, node.value, False


GAP = re.compile(r"\{[^{}]*\}|%\(?\w*\)?[sdr]")


def sql_in(source: str, *, only_put_together: bool = False) -> list[str]:
    """Return `line: text` for each literal that holds SQL."""
    return [
        f"{line}: {text.strip()[:80]}"
        for line, text, put_together in (
            (line, GAP.sub("x", text), joined) for line, text, joined in literals(tree_of(source))
        )
        if (put_together or not only_put_together)
        and (STATEMENT.search(text) or CLAUSE.search(text))
    ]


def test_python_outside_the_engine_holds_no_sql() -> None:
    assert found_in([p for p in SOURCES if room(dotted(p)) != ENGINE], sql_in) == []


def sql_put_together_in(source: str) -> list[str]:
    """Return the literals that an engine module may not have.

    Pragmas are allowed, because they take no parameters.
    """
    return [
        found
        for found in sql_in(source, only_put_together=True)
        if not re.match(r"\d+: pragma\b", found, re.IGNORECASE)
    ]


def test_the_engine_never_puts_a_statement_together_from_strings() -> None:
    assert found_in([p for p in SOURCES if room(dotted(p)) == ENGINE], sql_put_together_in) == []


@pytest.mark.parametrize(
    "source",
    [
        'tx.execute("select * from entry")',
        'tx.execute("SELECT 1 FROM entry WHERE entry_no = ?")',
        'q = f"select {column} from entry where seq > {seq}"',
        'q = "delete from entry"',
        'q = "insert into entry (a) values (1)"',
        'q = "update session set head_no = 1"',
        'q = "with recursive p(n) as (select 1)"',
        'q = "create table t(x)"',
        'q = base + " ORDER BY seq"',
        'q = base + " WHERE session_no = %d" % n',
        'q = "PRAGMA user_version"',
        'q = """\n    BEGIN IMMEDIATE\n"""',
        'def f(q="vacuum"):\n    """Docstring."""',
    ],
)
def test_sql_in_a_literal_is_found(source: str) -> None:
    assert len(sql_in(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Update session set by set; select * from entry."""',
        'def f():\n    """Delete from entry where it hurts."""',
        'raise ValueError("select a session from the list, or update the key")',
        'help = "Insert into a new database; create a table of contents; with a line as (it was)"',
        'tx.run("entry.insert", seq=1)',
        'message = f"delete {name} from {folder} first"',
        'choices = ["select", "update", "begin", "pragma"]',
    ],
)
def test_prose_and_names_of_statements_are_not_taken_for_sql(source: str) -> None:
    assert sql_in(source) == []


@pytest.mark.parametrize(
    "source",
    [
        'f"select {x} from entry"',
        '"DELETE FROM " + table',
        '"select x from {}".format(t)',
        '"SELECT x FROM %s" % t',
        'base + " ORDER BY seq"',
        'f"savepoint {name}"',
    ],
)
def test_a_statement_put_together_is_found_in_the_engine(source: str) -> None:
    assert len(sql_put_together_in(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"select x from entry where y = :y"',
        'f"pragma wal_autocheckpoint = {pages}"',
        '"BEGIN IMMEDIATE"',
    ],
)
def test_a_whole_statement_and_a_pragma_are_the_engines_to_use(source: str) -> None:
    assert sql_put_together_in(source) == []


def test_the_package_was_found() -> None:
    """Every test above passes on an empty list of sources."""
    assert {"sessiondb.backend", "sessiondb.errors", "sessiondb.limits"} <= MODULES


# `python -O` drops assertions. What they say to a reader and to the type checker stays true
# without them. A check that can fail at run time raises an error of its own.
NARROWS = re.compile(r".* is not None$|isinstance\(.*\)$")


def checks_in(source: str) -> list[str]:
    """Return the assertions of a source file that do more than narrow a type."""
    return [
        ast.unparse(node.test)
        for node in nodes_of(source)
        if isinstance(node, ast.Assert) and not NARROWS.match(ast.unparse(node.test))
    ]


def test_nothing_is_checked_by_an_assertion() -> None:
    assert found_in(SOURCES, checks_in) == []


def test_an_assertion_that_checks_is_found() -> None:
    assert checks_in("assert changed == 1, 'one row'") == ["changed == 1"]
    assert checks_in("assert row is not None\nassert isinstance(value, int)") == []

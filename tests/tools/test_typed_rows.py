"""sessiondb/statements.pyi is what the statements say, and mypy finds what contradicts it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typed_rows

from sessiondb.backend import Statement, load_statements
from tests import ROOT
from tests.support import row_types

RULES = """
from toy.backend import AnyStatement, Tx

def rule(tx: Tx, name: str) -> None:
    row = tx.one("toy.session", session_no=1)
    reveal_type(row.session_id)
    reveal_type(row.name)
    reveal_type(row.parent_id)
    reveal_type(row.sessions)
    reveal_type(tx.first("toy.other", session_no=1))
    reveal_type(tx.all("toy.inserted", lane="main", sha256=None))
    reveal_type(tx.run("toy.inserted", lane="main", sha256=None))
    reveal_type(tx.one(AnyStatement(name)))
    row.session_key
    tx.one("toy.session", session=1)
    tx.one("toy.session")
    tx.one("toy.sessions", session_no=1)
    tx.one(name)
    tx.run("toy.session", session_no=1)
    tx.one("toy.deleted")
"""
OPTIONS = (
    "--strict",
    "--enable-error-code=deprecated",  # as in pyproject.toml
    "--no-error-summary",
    "--config-file=",
    "--cache-dir=cache",
)
FOUND = [
    'Revealed type is "str"',
    'Revealed type is "str | None"',
    'Revealed type is "str | None"',
    'Revealed type is "int"',
    'int, fallback=toy.statements.ToySession] | None"',
    'Revealed type is "list[tuple[str, int, fallback=toy.statements.ToyInserted]]"',
    'Revealed type is "int"',
    'Revealed type is "Any"',
    '"ToySession" has no attribute "session_key"  [attr-defined]',
    *[typed_rows.NO_SUCH_STATEMENT + "  [deprecated]"] * 6,
]
SESSION = """
SELECT s.session_id, s.name, p.session_id AS parent_id, count(*) AS sessions
FROM session AS s LEFT JOIN session AS p ON p.session_no = s.forked_from_no
WHERE s.session_no = :session_no
"""
INSERTED = """
INSERT INTO lane (lane, concurrency) VALUES (:lane, :sha256) RETURNING lane, concurrency
"""


def statements(**sql: str) -> dict[str, Statement]:
    """Return statements of a file `toy.sql`."""
    return {
        f"toy.{name}": Statement(f"toy.{name}", "Return it.", text, None)
        for name, text in sql.items()
    }


def test_the_file_is_what_the_statements_say() -> None:
    text = typed_rows.module(load_statements("sessiondb.sqlite.queries"))
    assert typed_rows.TARGET.read_text("utf-8") == text, "run `make statements`"


def test_a_class_may_be_shared_within_a_file() -> None:
    text = typed_rows.module(statements(session=SESSION, other=SESSION))
    assert "\nToyOther = ToySession  # toy.other\n" in text


def test_the_methods_keep_their_docstrings() -> None:
    text = typed_rows.TARGET.read_text("utf-8")
    assert text.count('"""Return every row of a named statement, materialised.') == 1
    assert text.count("            StoreDamaged: there is none: the file is damaged") == 1


# backend.py, and what it imports.
SEAM = ["backend", "clock", "errors", "json_text", "limits", "models", "paging", "process"]
SEAM += ["texts", "timers", "words"]


def test_mypy_finds_a_misspelt_statement_parameter_or_column(tmp_path: Path) -> None:
    toy = tmp_path / "toy"
    toy.mkdir()
    (toy / "__init__.py").touch()
    for module in SEAM:
        shutil.copy(ROOT / "sessiondb" / f"{module}.py", toy / f"{module}.py")
    known = statements(
        session=SESSION, other=SESSION, inserted=INSERTED, deleted="DELETE FROM lane"
    )
    (toy / "statements.pyi").write_text(typed_rows.module(known), "utf-8")
    (toy / "rules.py").write_text(RULES, "utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *OPTIONS, "toy/rules.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = checked.stdout.splitlines()
    assert len(lines) == len(FOUND), checked.stdout + checked.stderr
    assert [end for line, end in zip(lines, FOUND, strict=True) if not line.endswith(end)] == []


@pytest.mark.parametrize(
    ("statement", "row"),
    [
        ("events.cursor", {"event_no": "1"}),
        ("registry.by_id", {"session_no": 1, "session_id": None}),
    ],
)
def test_a_row_that_its_class_does_not_allow_is_found(
    statement: str, row: dict[str, object]
) -> None:
    one = type("Row", (tuple,), {"_fields": tuple(row)})(row.values())
    with pytest.raises(AssertionError, match=statement):
        row_types.check(statement, [one])

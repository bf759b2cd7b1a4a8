"""The mutator: what it changes, which tests it asks, and that it sees a test that cannot notice."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests import ROOT
from tools.mutants import equivalents
from tools.mutants.__main__ import all_mutants, drawn, known_at
from tools.mutants.mutant import Mutant
from tools.mutants.python import of_python
from tools.mutants.record import Test as Reach
from tools.mutants.run import Runner, Tree, chosen
from tools.mutants.statements import of_schema, of_statements


def changed(mutants: Sequence[Mutant], text: str, kind: str) -> list[str]:
    """Return the lines that mutants of a kind write, on one line each."""
    return [
        " ".join(
            line[1:].strip()
            for line in mutant.diff(text).splitlines()
            if line.startswith("+") and line[1:].strip()
        )
        for mutant in mutants
        if mutant.kind == kind
    ]


STATEMENTS = [
    (
        "conjunct dropped",
        "SELECT a FROM t WHERE a = :a AND b BETWEEN 1 AND 2;",
        [
            "SELECT a FROM t WHERE (1 OR (a = :a)) AND b BETWEEN 1 AND 2;",
            "SELECT a FROM t WHERE a = :a AND (1 OR (b BETWEEN 1 AND 2));",
        ],
    ),
    (
        "conjunct dropped",
        "SELECT a FROM t AS x INDEXED BY i JOIN u ON u.a = x.a;",
        ["SELECT a FROM t AS x  JOIN u ON (1 OR (u.a = x.a));"],
    ),
    (
        "disjunct dropped",
        "DELETE FROM t WHERE (a = 1 OR b = 2) AND c;",
        [
            "DELETE FROM t WHERE ((0 AND (a = 1)) OR b = 2) AND c;",
            "DELETE FROM t WHERE (a = 1 OR (0 AND (b = 2))) AND c;",
        ],
    ),
    (
        "boundary moved",
        "SELECT (a, b) < (:a, :b) AS x FROM t WHERE a >= 1;",
        [
            "SELECT (a, b) <= (:a, :b) AS x FROM t WHERE a >= 1;",
            "SELECT (a, b) < (:a, :b) AS x FROM t WHERE a > 1;",
        ],
    ),
    ("lower bound moved", "SELECT a BETWEEN 1 AND 2;", ["SELECT a BETWEEN (1 + (1)) AND 2;"]),
    ("upper bound moved", "SELECT a BETWEEN 1 AND 2;", ["SELECT a BETWEEN 1 AND (-1 + (2));"]),
    (
        "order reversed",
        "SELECT a FROM t ORDER BY a, b DESC LIMIT 1;",
        [
            "SELECT a FROM t ORDER BY a DESC, b DESC LIMIT 1;",
            "SELECT a FROM t ORDER BY a, b ASC LIMIT 1;",
        ],
    ),
    (
        "assignment dropped",
        "UPDATE t SET a = :a, b = b + 1 WHERE c = :c;",
        [
            "UPDATE t SET a = CASE WHEN 1 THEN a ELSE :a END, b = b + 1 WHERE c = :c;",
            "UPDATE t SET a = :a, b = CASE WHEN 1 THEN b ELSE b + 1 END WHERE c = :c;",
        ],
    ),
    (
        "assignment dropped",
        "INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 5;",
        ["INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = CASE WHEN 1 THEN a ELSE 5 END;"],
    ),
    (
        "branch dropped",
        "SELECT CASE WHEN a THEN CASE b WHEN 2 THEN 3 END END;",
        [
            "SELECT CASE WHEN (0 AND (a)) THEN CASE b WHEN 2 THEN 3 END END;",
            "SELECT CASE WHEN a THEN CASE b WHEN CASE WHEN 1 THEN NULL ELSE 2 END THEN 3 END END;",
        ],
    ),
    (
        "ELSE dropped",
        "SELECT CASE WHEN a THEN 1 ELSE :b END;",
        ["SELECT CASE WHEN a THEN 1 ELSE CASE WHEN 1 THEN NULL ELSE :b END END;"],
    ),
    (
        "outer join made inner",
        "SELECT a FROM t LEFT JOIN u ON u.a = t.a;",
        ["SELECT a FROM t JOIN u ON u.a = t.a;"],
    ),
    ("extreme swapped", "SELECT max(a, 0) FROM t;", ["SELECT min(a, 0) FROM t;"]),
    (
        "fallback dropped",
        "SELECT coalesce(a, :b);",
        ["SELECT CASE WHEN 1 THEN a ELSE coalesce(a, :b) END;"],
    ),
    (
        "fallback always",
        "SELECT coalesce(a, :b);",
        ["SELECT coalesce(CASE WHEN 1 THEN NULL ELSE a END, :b);"],
    ),
    (
        "hint dropped",
        "SELECT a FROM t WHERE t.a IN ('x', 'y') AND t.a = 'x';",
        ["SELECT a FROM t WHERE (1 OR (t.a IN ('x', 'y'))) AND t.a = 'x';"],
    ),
    (
        "hint: 'y' left out",
        "SELECT a FROM t WHERE a IN ('x', 'y') AND (a = 'x' OR b);",
        ["SELECT a FROM t WHERE a IN ('x', '-') AND (a = 'x' OR b);"],
    ),
    (
        "'x' left out",
        "SELECT a FROM t WHERE a IN ('x', 'y');",
        ["SELECT a FROM t WHERE a IN ('-', 'y');"],
    ),
]


@pytest.mark.parametrize(("kind", "sql", "expected"), STATEMENTS)
def test_a_statement_is_changed_and_keeps_its_parameters(
    kind: str, sql: str, expected: list[str]
) -> None:
    text = f"-- name: one\n-- Promise one thing; or AND another.\n{sql}\n"
    found = list(of_statements("queries/file.sql", text))
    assert changed(found, text, kind) == expected
    assert {mutant.where for mutant in found} == {"file.one"}


SCHEMA = """
CREATE TABLE t (
  a INTEGER PRIMARY KEY AUTOINCREMENT,
  b TEXT CONSTRAINT b_known CHECK (b <> ''),  -- CHECK (no rule);
  c INTEGER REFERENCES u (c),
  d INTEGER DEFAULT 0,
  CONSTRAINT pair UNIQUE (b, c)
) STRICT;
CREATE UNIQUE INDEX t_open ON t (b) WHERE c IS NULL;
"""


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("AUTOINCREMENT dropped", ["a INTEGER PRIMARY KEY ,"]),
        (
            "CHECK dropped",
            ["b TEXT CONSTRAINT b_known CHECK (1 OR (b <> '')),  -- CHECK (no rule);"],
        ),
        ("foreign key dropped", ["c INTEGER ,"]),
        ("DEFAULT changed", ["d INTEGER DEFAULT (0 + 1),"]),
        (
            "UNIQUE dropped",
            ["CONSTRAINT pair CHECK (1)", "CREATE  INDEX t_open ON t (b) WHERE c IS NULL;"],
        ),
        ("index dropped", [""]),
        ("conjunct dropped", ["CREATE UNIQUE INDEX t_open ON t (b) WHERE (1 OR (c IS NULL));"]),
    ],
)
def test_each_rule_of_the_schema_is_dropped(kind: str, expected: list[str]) -> None:
    assert changed(list(of_schema("schema.sql", SCHEMA)), SCHEMA, kind) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("return a < b", {"return a <= b", "return None"}),
        ("x = a is not None", {"x = a is None"}),
        ("x = a and b or c", {"x = a or b or c", "x = a and b and c"}),
        ("x = not (a)", {"x = (a)"}),
        ("x = n // 2 + 1", {"x = n // 2 - 1", "x = n * 2 + 1", "x = n // 3 + 1", "x = n // 2 + 2"}),
        ("n += m", {"n -= m"}),
        ("x = True", {"x = False"}),
        ("if a.b: f.g()", {"if not (a.b): f.g()", "if a.b: pass"}),
        ("raise KeyError('text' + a)", {"pass"}),
        ("x = max(a, b)", {"x = min(a, b)"}),
        ("log.warning('%s', 1)", set()),
        ("logger.error('%s', a + 1)", set()),
        ("assert a < b, 1", set()),
        ("x: Literal[3] = y", set()),
        ('"""Say 3."""', set()),
    ],
)
def test_a_rule_in_python_is_changed(code: str, expected: set[str]) -> None:
    text = f"def rule(a, b, n):\n    {code}\n"
    found = list(of_python("sessiondb/rule.py", text))
    assert {mutant.apply(text).splitlines()[1].strip() for mutant in found} == expected
    assert {mutant.where for mutant in found} <= {"rule"}
    assert all(mutant.alive for mutant in found)


def test_what_ran_at_the_import_cannot_be_changed_alive() -> None:
    text = "SIZES = [3]\n\ndef rule(n=4):\n    return 5\n"
    found = {one.piece: one for one in of_python("a.py", text) if one.kind == "constant"}
    assert [one.alive for _, one in sorted(found.items())] == [False, False, True]


def test_what_ran_at_the_import_meets_tests_that_run_its_use() -> None:
    text = "SIZES = [3]\n\ndef rule(n=4):\n    return 5\n\nclass Rule:\n    size = 6\n"
    found = [one for one in of_python("a.py", text) if one.kind == "constant"]
    tests = [
        Reach("of the rule", 0.1, lines={"a.py": {4}}),
        Reach("of the module", 0.1, lines={"a.py": {1}}),
        Reach("of another", 0.1, lines={"b.py": {1, 2, 3, 4}}),
    ]
    assert {one.piece[0]: [test.name for test in tests if test.reaches(one)] for one in found} == {
        "3": ["of the rule", "of the module"],
        "4": ["of the rule"],
        "5": ["of the rule"],
        "6": ["of the rule", "of the module"],
    }


def test_a_class_that_only_has_fields_meets_the_tests_of_its_file() -> None:
    [mutant] = of_python("a.py", "class Settings:\n    size = [6]\n")
    tests = [Reach(f"tests/test_{name}.py::test_x", 0.1) for name in ("a", "a_time", "b")]
    found = [test.name for test in chosen(mutant, tests, budget_s=5.0, tests_max=9)]
    assert found == ["tests/test_a.py::test_x", "tests/test_a_time.py::test_x"]


def test_a_number_that_a_module_names_is_no_rule() -> None:
    text = "A = 3\nB: Final = -2 * 1.5\nC = max(4, A)\nD = 'x' * 5\nE, F = 6, -7\n"
    found = [one for one in of_python("a.py", text) if one.kind == "constant"]
    assert {one.piece[0] for one in found} == {"4", "5"}


def test_lines_keep_their_numbers() -> None:
    text = "def rule():\n    raise ValueError(\n        1,\n    )\n    return 2\n"
    for mutant in of_python("a.py", text):
        assert mutant.apply(text).count("\n") == text.count("\n")


# -- the mutants of this checkout


@pytest.fixture(scope="module")
def mutants() -> list[Mutant]:
    return list(all_mutants(ROOT))


def test_every_change_is_one_and_has_a_key_of_its_own(mutants: list[Mutant]) -> None:
    assert len({mutant.key for mutant in mutants}) == len(mutants)
    texts = {path: (ROOT / path).read_text("utf-8") for path in {one.path for one in mutants}}
    assert [one.key for one in mutants if one.apply(texts[one.path]) == texts[one.path]] == []


def test_a_seed_draws_the_same_mutants_again(mutants: list[Mutant]) -> None:
    first, second = drawn(mutants, ["inbox"], 20, 7), drawn(mutants, ["inbox"], 20, 7)
    assert first == second != drawn(mutants, ["inbox"], 20, 8)
    assert all("inbox" in mutant.key for mutant in first)


def test_what_a_commit_has_already_is_known(tmp_path: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")

    def call(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
        subprocess.run([git, *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "sessiondb").mkdir()
    module = tmp_path / "sessiondb" / "a.py"
    module.write_text("def rule(n):\n    return n < 1\n")
    (tmp_path / "schema.sql").write_text("")
    call("init", "-q")
    call("add", ".")
    call("commit", "-q", "-m", "first")
    first = {mutant.key for mutant in all_mutants(tmp_path)}
    module.write_text("def rule(n):\n    return n < 1 or n == 7\n")
    assert known_at(tmp_path, "HEAD") == first != {mutant.key for mutant in all_mutants(tmp_path)}


def test_the_list_of_equivalents_names_mutants_that_exist(mutants: list[Mutant]) -> None:
    equivalents.check(equivalents.read(), (mutant.key for mutant in mutants))


def test_an_entry_whose_mutant_is_gone_is_an_error(tmp_path: Path) -> None:
    listed = tmp_path / "equivalents.toml"
    listed.write_text('[[equivalent]]\nreason = "none"\nmutants = ["a: b: c: d", "e: f: g: h"]\n')
    known = equivalents.read(listed)
    assert known == {"a: b: c: d": "none", "e: f: g: h": "none"}
    equivalents.check(known, ["a: b: c: d", "e: f: g: h", "more"])
    with pytest.raises(equivalents.Stale, match=r"\n  e: f: g: h$"):
        equivalents.check(known, ["a: b: c: d"])


@pytest.mark.parametrize("entry", ['mutants = ["a"]', 'reason = "b"', 'reason = " "\nmutants = []'])
def test_an_entry_without_a_reason_or_mutant_is_an_error(tmp_path: Path, entry: str) -> None:
    listed = tmp_path / "equivalents.toml"
    listed.write_text(f"[[equivalent]]\n{entry}\n")
    with pytest.raises(equivalents.Stale):
        equivalents.read(listed)


# -- the tests that a mutant meets


def test_the_fastest_tests_that_reach_a_mutant_come_first() -> None:
    mutant = Mutant("queries/inbox.sql", "inbox.next", "conjunct dropped", "a", (), (1, 1))
    tests = [
        Reach("slow", 2.0, statements={"inbox.next"}),
        Reach("too_much", 9.0, statements={"inbox.next"}),
        Reach("fast", 1.0, statements={"inbox.next", "inbox.accept"}),
        Reach("another", 0.1, statements={"inbox.accept"}),
        Reach("tests/sqlite/test_plans.py::test_x", 0.1, statements={"inbox.next"}),
    ]
    found = [test.name for test in chosen(mutant, tests, budget_s=5.0, tests_max=9)]
    assert found == ["fast", "slow", "tests/sqlite/test_plans.py::test_x"]


def test_files_that_share_a_word_with_the_changed_one_come_before_faster_ones() -> None:
    [mutant] = of_python("sessiondb/maintenance/verify_search.py", "def rule():\n    do()\n")
    files = ("tests/a/test_fast.py", "tests/a/test_search.py", "tests/b/test_verify_search_x.py")
    lines = {"sessiondb/maintenance/verify_search.py": {2}}
    tests = [Reach(f"{file}::test_x", 1.0 + at, lines=lines) for at, file in enumerate(files)]
    found = [test.name for test in chosen(mutant, tests, budget_s=9.0, tests_max=9)]
    assert found == [test.name for test in tests[::-1]]


def test_a_hint_is_met_by_its_statements_own_cases_too() -> None:
    """One that names too few states leaves rows out. Other tests see what these see."""
    mutant = Mutant("queries/inbox.sql", "inbox.open", "hint: 'queued' left out", "a", (), (1, 1))
    names = (
        "tests/sqlite/queries/test_statements.py::test_read[inbox.open: one]",
        "tests/gateway/test_turns.py::test_x",
        "tests/sqlite/test_plans.py::test_x",
    )
    tests = [Reach(name, 1.0, statements={"inbox.open"}) for name in names]
    found = [test.name for test in chosen(mutant, tests, budget_s=5.0, tests_max=9)]
    assert found == [names[0], names[2]]


def test_what_only_a_child_of_a_test_may_reach_meets_the_tests_of_its_package() -> None:
    [mutant] = of_python("sessiondb/server/a.py", "def rule():\n    do()\n")
    names = ("tests/server/test_b.py::test_x", "tests/cli/test_b.py::test_x")
    recorded: tuple[dict[str, set[int]], ...] = ({}, {"sessiondb/server/a.py": {2}})
    for lines, expected in zip(recorded, names, strict=True):
        tests = [Reach(names[0], 1.0), Reach(names[1], 1.0, lines=lines)]
        found = [test.name for test in chosen(mutant, tests, budget_s=5.0, tests_max=9)]
        assert found == [expected]


def test_an_index_is_met_by_those_that_ask_for_its_table_or_its_plan() -> None:
    where = "unique index session_by_id of session"
    mutant = Mutant("schema.sql", where, "index dropped", "a", (), (1, 1))
    tests = [
        Reach("tests/sqlite/test_schema_rules.py::test_x", 1.0, relations={"session"}),
        Reach("tests/sqlite/test_view_plans.py::test_x", 1.0, relations={"session_by_id"}),
        Reach("tests/sqlite/test_view_plans.py::test_y", 1.0, relations={"of", "index", "turn"}),
    ]
    found = [test.name for test in chosen(mutant, tests, budget_s=5.0, tests_max=9)]
    assert found == [test.name for test in tests[:2]]


TOY = {
    "sessiondb/__init__.py": "LIMIT = 3\n",
    "sessiondb/rules.py": """
        from . import LIMIT

        FLOOR = abs(1)

        class Prepared:
            def __init__(self, name, sql):
                self.name, self.sql = name, sql

        ALIVE = Prepared("file.alive", "SELECT a FROM t ORDER BY a")

        def within(n):
            return n < LIMIT

        def above(n):
            while n < FLOOR:
                n = n + 1
            return n
        """,
    "queries/file.sql": """
        -- name: alive
        -- Return all.
        SELECT a FROM t ORDER BY a;

        -- name: unknown
        -- Return all. No object of the process has its name.
        SELECT a FROM t ORDER BY a;
        """,
    "tests/test_rules.py": """
        import subprocess, sys

        from sessiondb import rules

        def test_blind():
            assert rules.within(1)

        def test_seeing():
            assert not rules.within(3)

        def test_floor():
            assert rules.above(-1) == 1

        def test_statement():
            assert rules.ALIVE.sql == "SELECT a FROM t ORDER BY a"

        def test_child():
            code = "from sessiondb import rules; print(rules.above(0))"
            ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert ran.stdout == "1\\n"

        def test_unfit():
            assert not rules.within(1)
        """,
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tree, Runner]]:
    """Return a small checkout, and what runs its tests."""
    root = tmp_path_factory.mktemp("toy")
    for name, text in TOY.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(textwrap.dedent(text).lstrip())
    tree = Tree(root, root.parent / "toy-tree")
    names = ["blind", "seeing", "floor", "statement", "child", "unfit"]
    tests = [Reach(f"tests/test_rules.py::test_{name}", 0.01) for name in names]
    with Runner(tree, tests, root / "log", str(root)) as runner:
        yield tree, runner


def meet(toy: tuple[Tree, Runner], kind: str, piece: str, *names: str) -> tuple[str, str]:
    """Return how the mutant of a kind ends that tests meet, and the test that says so."""
    tree, runner = toy
    text = tree.text("sessiondb/rules.py")
    mutants = [
        one
        for one in of_python("sessiondb/rules.py", text)
        if one.kind == kind and piece in one.piece
    ]
    assert len(mutants) == 1, mutants
    tests = [runner.tests[f"tests/test_rules.py::test_{name}"] for name in names]
    found = runner.meet(mutants[0], tests)
    assert tree.text("sessiondb/rules.py") == text
    return found.outcome, found.test.rpartition("_")[2]


def test_a_test_that_cannot_notice_lets_the_mutant_survive(toy: tuple[Tree, Runner]) -> None:
    assert meet(toy, "comparison", "n < LIMIT", "blind") == ("survived", "")
    assert meet(toy, "comparison", "n < LIMIT", "blind", "seeing") == ("noticed", "seeing")


def test_a_statement_that_no_living_object_has_is_refused(toy: tuple[Tree, Runner]) -> None:
    """Its tests would ask the unchanged one, and every mutant would survive."""
    tree, runner = toy
    text = tree.text("queries/file.sql")
    alive, unknown = of_statements("queries/file.sql", text)
    tests = [runner.tests["tests/test_rules.py::test_statement"]]
    assert runner.meet(alive, tests).outcome == "noticed"
    with pytest.raises(SystemExit, match=r"file\.unknown: .* nothing changed: the process that"):
        runner.meet(unknown, tests)
    assert tree.text("queries/file.sql") == text


def test_children_of_tests_see_the_mutant_too(toy: tuple[Tree, Runner]) -> None:
    assert meet(toy, "comparison", "n < FLOOR", "child") == ("noticed", "child")


def test_a_mutant_that_hangs_is_noticed_by_the_limit(
    toy: tuple[Tree, Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy[1], "limit_s", 0.1)
    assert meet(toy, "arithmetic", "n + 1", "floor") == ("timed out", "floor")


def test_the_body_of_a_module_is_run_anew(toy: tuple[Tree, Runner]) -> None:
    assert meet(toy, "constant", "FLOOR", "blind") == ("survived", "")
    assert meet(toy, "constant", "FLOOR", "blind", "floor") == ("noticed", "floor")


def test_a_test_that_fails_without_a_mutant_is_left_out(
    toy: tuple[Tree, Runner], capsys: pytest.CaptureFixture[str]
) -> None:
    assert meet(toy, "comparison", "n < LIMIT", "unfit", "blind")[0] == "survived"
    assert meet(toy, "comparison", "n < FLOOR", "unfit", "seeing") == ("survived", "")
    assert "left out" in capsys.readouterr().out

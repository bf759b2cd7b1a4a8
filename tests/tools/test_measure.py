"""The figures of tools/measure.py, on small trees whose figures are known."""

from __future__ import annotations

from pathlib import Path

import measure
import pytest
from measure import Source


def module(path: str, text: str = "") -> Source:
    return Source(Path(path), text)


def test_imports_are_those_of_modules_for_whatever_reason() -> None:
    code = [
        module("sessiondb/__init__.py", "from .a import x\nfrom . import a"),
        module("sessiondb/a.py", "import json\nfrom .p import b\nfrom sessiondb.p.b import y"),
        module("sessiondb/p/__init__.py", "if TYPE_CHECKING:\n    from ..a import x"),
        module("sessiondb/p/b.py", "def f():\n    from . import c\n    import sessiondb.a"),
        module("sessiondb/p/c.py", "from .. import open\nfrom . import c"),
    ]
    assert measure.imports(code) == {
        "sessiondb": {"sessiondb.a"},
        "sessiondb.a": {"sessiondb.p.b"},
        "sessiondb.p": {"sessiondb.a"},
        "sessiondb.p.b": {"sessiondb.p.c", "sessiondb.a"},
        "sessiondb.p.c": {"sessiondb"},
    }


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [{"a", "b", "c"}]),
        ({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}}, [{"a", "b"}, {"c", "d"}]),
    ],
)
def test_circles_are_strongly_connected_components(
    edges: dict[str, set[str]], expected: list[set[str]]
) -> None:
    assert sorted(measure.circles(edges), key=min) == expected


def test_tokens_are_counted_on_lines_that_have_any() -> None:
    text = '"""Docstring of\ntwo lines."""\n\n# a comment\nx = 1  # another\nf(\n    x,\n)\n'
    assert measure.tokens_per_line([module("a.py", text)]) == (1 + 3 + 2 + 2 + 1) / 5


def test_a_test_file_is_named_after_a_module_of_its_folder() -> None:
    code = [module(f"sessiondb/{name}.py") for name in ("__init__", "a", "p/b", "p/b_more", "p/c")]
    names = ("test_a", "test_b", "test_layers", "p/test_b_aspect", "p/test_bb", "p/helper")
    tests = [module(f"tests/{name}.py") for name in (*names, "proofs/p/test_x")]
    without_module, without_test = measure.unmatched(code, tests)
    assert without_module == [Path("tests/test_b.py"), Path("tests/p/test_bb.py")]
    assert without_test == [Path("sessiondb/p/b_more.py"), Path("sessiondb/p/c.py")]


def test_a_checkout_is_measured(tmp_path: Path) -> None:
    for folder in ("sessiondb/inner", "tests"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "README.md").write_text("One; two.\n", encoding="utf-8")
    (tmp_path / "sessiondb/a.py").write_text("def f():\n    return 1\n", encoding="utf-8")
    (tmp_path / "sessiondb/inner/b.py").write_text(f"x = '{'y' * 95}'\n", encoding="utf-8")
    (tmp_path / "tests/test_a.py").write_text(f"def test_{'x' * 60}(): ...\n", encoding="utf-8")
    assert measure.measure(tmp_path) == {
        "modules": "2",
        "largest folder": "1 modules (sessiondb)",
        "import circles": "0",
        "lines": "3",
        "largest file": "2 lines (sessiondb/a.py)",
        "files over 600 lines": "0",
        "lines over 100 columns": "1 (33.3%)",
        "tests: lines": "1",
        "tests: largest file": "1 lines (tests/test_a.py)",
        "tests: files over 600 lines": "0",
        "tests: lines over 100 columns": "0 (0.0%)",
        "tokens a line": "3.3",
        "semicolons per 100 sentences": "100.0",
        "lines of a function, median": "2",
        "lines of a function, maximum": "2",
        "lines of tests per line of code": "0.33",
        "test names over 60 characters": "1 of 1",
        "test files without a module": "0",
        "modules without a test file": "1",
    }


def test_the_decodes_of_a_message_are_counted() -> None:
    counts = measure.decodes(measure.prose.ROOT)
    assert 1 <= counts["until_handler"] <= counts["in_all"]

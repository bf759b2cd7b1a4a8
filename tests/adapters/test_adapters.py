"""What every adapter has, and what needs no framework to be seen."""

from __future__ import annotations

import importlib
import sys
import tomllib

import pytest

from tests import ROOT
from tests.proofs.adapters.frameworks import FRAMEWORKS
from tests.proofs.adapters.runs import INSIDE, judge

NAMES = sorted(path.stem for path in (ROOT / "sessiondb/adapters").glob("[a-z]*.py"))
IMPORTED = {
    "agent_framework": "agent_framework",
    "claude_agent_sdk": "claude_agent_sdk",
    "google_adk": "google.adk.errors.already_exists_error",
    "nanobot": "nanobot.providers.base",
    "openai_agents": "agents.items",
    "pydantic_ai": "pydantic_ai.conversation",
}
"""The first module of each framework that its adapter imports."""


def extra(name: str) -> str:
    return name.replace("_", "-")


@pytest.mark.parametrize("name", NAMES)
def test_each_has_an_extra_a_judge_a_program_and_a_row(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert extra(name) in project["optional-dependencies"]
    assert extra(name) in {framework.name for framework in FRAMEWORKS}
    assert (ROOT / f"examples/adapters/{name}.py").exists()
    assert f"`sessiondb[{extra(name)}]`" in (ROOT / "docs/adapters.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_without_its_framework_the_error_says_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, IMPORTED[name], None)
    monkeypatch.delitem(sys.modules, f"sessiondb.adapters.{name}", raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'sessiondb\[{extra(name)}\]'"):
        importlib.import_module(f"sessiondb.adapters.{name}")


def test_the_list_of_tests_that_reach_inside_is_of_these_frameworks() -> None:
    listed = tomllib.loads(INSIDE.read_text(encoding="utf-8"))
    assert listed.keys() <= {framework.name for framework in FRAMEWORKS}


def test_a_listed_test_that_passes_is_an_error() -> None:
    judged = judge({"a[1]": "failed", "a[2]": "passed", "b": "passed"}, ["a"])
    assert judged.wrong == ("a[2] passes: take it off the list",)
    assert judge({"a[1]": "failed", "b": "passed"}, ["a[1]"]).wrong == ()


def test_a_failure_that_is_not_listed_is_an_error() -> None:
    judged = judge({"a": "failed", "b": "failed", "c": "skipped"}, ["a"])
    assert (judged.passed, judged.inside, judged.skipped) == (0, 1, 1)
    assert judged.wrong == ("b failed, and is not listed",)


def test_a_listed_test_that_is_gone_is_an_error() -> None:
    assert judge({"b": "passed"}, ["a"]).wrong == ("a is listed, and no test of that name failed",)

"""`sessiondb salvage` prints its result, and its exit code tells how it ended."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sessiondb.cli import program
from tests.support.damage import (
    Truth,
    copy_of,
    first_leaf,
    make,
    zero_pages,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return Truth.of(make(tmp_path_factory.mktemp("sound") / "sound.db"))


@pytest.fixture
def broken(sound: Truth, tmp_path: Path) -> Path:
    return copy_of(sound.path, tmp_path / "broken.db")


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return tmp_path / "new.db"


def run(*args: object) -> Any:
    result = CliRunner().invoke(program, [str(arg) for arg in args])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_salvage_prints_its_result_and_exits_with_0_1_or_2(
    sound: Truth, broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run("salvage", broken, new)
    assert (done.exit_code, "everything was salvaged" in done.stdout) == (0, True)
    done = run("salvage", broken, new)
    assert (
        done.exit_code,
        done.stderr.startswith("sessiondb: "),
        "a file already" in done.stderr,
    ) == (2, True, True)
    new.unlink()
    zero_pages(broken, first_leaf(sound))
    done = run("salvage", broken, new, "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert (report["complete"], report["missing_entries"] > 0, report["findings"]) == (
        False,
        True,
        [],
    )
    new.unlink()
    done = run("salvage", broken, new)
    assert done.exit_code == 1
    assert "missing" in done.stdout
    assert run("verify", new).exit_code == 0
    done = run("salvage", broken.with_name("nowhere.db"), new.with_name("other.db"))
    assert (done.exit_code, "no such file" in done.stderr) == (2, True)


def test_on_80_columns_no_line_is_longer(
    sound: Truth, broken: Path, new: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("sessiondb.cli.terminal", "sessiondb.cli.salvage"):
        monkeypatch.setattr(importlib.import_module(module), "terminal_width", lambda: 80)
    zero_pages(broken, first_leaf(sound), first_leaf(sound, "session"))
    lines = run("salvage", broken, new).stdout.splitlines()
    assert [line for line in lines if len(line) > 80 and str(new) not in line] == []

"""The client for Node: its own tests, and that it has each route of the server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sessiondb.server.openapi import document
from sessiondb.server.routes import TABLE
from tests import ROOT
from tests.support import pages
from tests.support.engine import PATIENCE_S
from tests.support.serving import Serving
from tools.node_types import TARGET, records

CLIENT = ROOT / "clients" / "node"
METHOD = re.compile(r"^  (?:async \*?)?([a-z]\w*)\(", re.MULTILINE)
OPERATIONS = {
    operation["operationId"]
    for methods in document(TABLE)["paths"].values()
    for operation in methods.values()
}
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def methods(path: Path) -> set[str]:
    return set(METHOD.findall(path.read_text("utf-8")))


def test_each_route_is_a_method_with_types() -> None:
    assert len(OPERATIONS) > 30
    wanted = {
        first + "".join(map(str.capitalize, rest))
        for first, *rest in (name.split("_") for name in OPERATIONS)
    }
    own = {"close", "contextText", "work", "send", "compact"}
    for name in ("index.js", "index.d.ts"):
        found = methods(CLIENT / name) - {"constructor"}
        assert found == wanted | own, name


def test_the_types_of_records_are_those_of_the_document() -> None:
    assert records() == TARGET.read_text("utf-8"), "run `make node-types`"


def test_it_depends_on_nothing() -> None:
    package = json.loads((CLIENT / "package.json").read_text("utf-8"))
    assert [name for name in package if "ependencies" in name] == []
    assert {(CLIENT / name).exists() for name in package["files"]} == {True}
    imported = re.findall(r' from "([^"]+)"', (CLIENT / "index.js").read_text("utf-8"))
    assert imported == ["node:crypto", "node:http"]


@needs_node
def test_its_own_tests_pass() -> None:
    ended = subprocess.run(
        ["node", "--test"],
        cwd=CLIENT,
        env={**os.environ, "SESSIONDB_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 4,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert "# fail 0" in ended.stdout


@needs_node
def test_the_program_of_its_readme_prints_what_it_says(tmp_path: Path) -> None:
    program, shown = pages.blocks(CLIENT / "README.md")[:2]
    installed = tmp_path / "node_modules" / "sessiondb"
    shutil.copytree(CLIENT, installed)
    (tmp_path / "gateway.db-serve").mkdir()
    with Serving(tmp_path / "gateway.db") as server:
        text = program.text.replace("gateway.db-serve/http.sock", str(server.socket))
        (tmp_path / "program.mjs").write_text(text, "utf-8")
        ended = subprocess.run(
            ["node", "program.mjs"],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
    assert ended.stdout.strip() == shown.text.strip()

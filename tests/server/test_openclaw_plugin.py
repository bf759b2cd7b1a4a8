"""The plugin for OpenClaw, in a host that is played: its own tests.

`make openclaw-plugin` has it in a real OpenClaw.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests import ROOT
from tests.proofs.openclaw.program import NODE, VERSIONS
from tests.support.engine import PATIENCE_S

PLUGIN = ROOT / "clients" / "openclaw"
README = (PLUGIN / "README.md").read_text("utf-8")


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_its_own_tests_pass() -> None:
    ended = subprocess.run(
        ["node", "--test"],
        cwd=PLUGIN,
        env={**os.environ, "SESSIONDB_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 4,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"(?m)^. fail 0$", ended.stdout)


def test_its_readme_names_what_it_was_tested_with_and_its_settings() -> None:
    package = json.loads((PLUGIN / "package.json").read_text("utf-8"))
    assert package["openclaw"]["build"]["openclawVersion"] == VERSIONS[-1]
    assert package["openclaw"]["compat"]["pluginApi"].startswith(f">={VERSIONS[-1]} <")
    assert package["engines"]["node"] == f">={NODE.rpartition('.')[0]}"
    assert f"OpenClaw {VERSIONS[-1]}." in README
    manifest = json.loads((PLUGIN / "openclaw.plugin.json").read_text("utf-8"))
    settings = manifest["configSchema"]["properties"]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) ?\|", README, re.MULTILINE))
    assert rows.keys() == settings.keys()
    for name, setting in settings.items():
        if "default" in setting:
            assert rows[name] == str(setting["default"])
    assert {(PLUGIN / name).is_file() for name in package["files"]} == {True}

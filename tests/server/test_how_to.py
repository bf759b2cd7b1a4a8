"""The commands of docs/how-to/serve.md, and the gateway in Node, against a server."""

from __future__ import annotations

import doctest
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.support import pages
from tests.support.serving import Serving

PAGE = ROOT / "docs" / "how-to" / "serve.md"
GATEWAY = ROOT / "examples" / "serve" / "gateway.mjs"
SOCKET = "gateway.db-serve/http.sock"


def steps() -> Iterator[tuple[str, str]]:
    """Yield each command of the page that asks the server, and the answer that follows it."""
    found = [block for block in pages.blocks(PAGE) if block.language in ("sh", "json")]
    for command, answer in itertools.pairwise(found):
        if command.language == "sh" and answer.language == "json":
            assert command.text.startswith("curl "), command.text
            yield command.text, answer.text


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_command_is_answered_as_the_page_says(tmp_path: Path) -> None:
    shown = list(steps())
    assert len(shown) >= 8
    with Serving(tmp_path / "gateway.db") as server:
        for command, wanted in shown:
            script = command.replace(SOCKET, str(server.socket))
            script = re.sub(r"--json ", "-H 'content-type: application/json' --data-raw ", script)
            ended = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
            matches = doctest.OutputChecker().check_output(
                wanted.strip(), ended.stdout.strip(), doctest.ELLIPSIS
            )
            assert matches, f"{command}\nwanted:\n{wanted}\nsaid:\n{ended.stdout}"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_gateway_in_node_answers_although_the_server_is_killed(tmp_path: Path) -> None:
    with Serving(tmp_path / "gateway.db") as server:
        with subprocess.Popen(
            ["node", str(GATEWAY), str(server.socket)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        ) as gateway:
            assert gateway.stdin is not None
            assert gateway.stdout is not None
            try:
                gateway.stdin.write("hello\n")
                gateway.stdin.flush()
                assert gateway.stdout.readline() == "you said: hello\n"
                server.kill()
                gateway.stdin.write("are you there?\n")
                gateway.stdin.flush()
                server.start()
                assert gateway.stdout.readline() == "you said: are you there?\n"
            finally:
                gateway.kill()
        with server.client() as client:
            context = client.get("/v1/sessions/agent:main:terminal:1/context").json()
        assert [each["content"] for each in context] == [
            "hello",
            "you said: hello",
            "are you there?",
            "you said: are you there?",
        ]

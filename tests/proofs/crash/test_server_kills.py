"""Killing `sessiondb serve` under load loses nothing that it acknowledged, and doubles nothing.

Clients in Python and in Node, each in a process of its own, append to a session of their own
without a pause. A fourth has its messages answered by a worker, and the answers sent. Again and
again the server is killed in the middle and started anew. The clients repeat their calls until they
are acknowledged. In the end each session has each number once, in order. Each message has an answer
of its own, by the only turn that ever worked on it, and that was sent at its first attempt.

`make server-kills` kills 200 times. `SESSIONDB_SERVER_KILLS` and `SESSIONDB_SERVER_KILLS_SEED`
choose another number and another course.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sessiondb import sync
from tests.support import serving_child
from tests.support.core import query
from tests.support.serving import Serving

KILLS = int(os.environ.get("SESSIONDB_SERVER_KILLS", "2"))
SEED = int(os.environ.get("SESSIONDB_SERVER_KILLS_SEED", "20261201"))
IN_NODE = {"three": "append", "four": "talk"} if shutil.which("node") else {}
"""The clients in Node, and what they do. Without node there are the two in Python alone."""
NAMES = ("one", "two", *IN_NODE)
TALKS = [name for name, what in IN_NODE.items() if what == "talk"]

pytestmark = pytest.mark.slow


def begin(server: Serving, name: str) -> subprocess.Popen[str]:
    child = Path(serving_child.__file__)
    command = (
        ["node", str(child.with_suffix(".mjs"))]
        if name in IN_NODE
        else [sys.executable, "-m", serving_child.__name__]
    )
    return subprocess.Popen(
        [*command, str(server.socket), name, IN_NODE.get(name, "append")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    acknowledged = dict.fromkeys(NAMES, 0)
    with Serving(tmp_path / "gateway.db") as server:
        clients = {name: begin(server, name) for name in NAMES}
        try:
            for _ in range(KILLS):
                for name, client in clients.items():
                    assert client.stdout is not None
                    for _ in range(chance.randint(1, 20)):
                        acknowledged[name] += 1
                        assert client.stdout.readline() == f"{acknowledged[name]}\n"
                server.kill()
                server.start()
            for name, client in clients.items():
                assert client.stdin is not None
                assert client.stdout is not None
                client.stdin.close()  # so it ends
                # Not `communicate`: that would pass over what `readline` has buffered.
                acknowledged[name] += len(client.stdout.read().split())
                assert client.wait() == 0
        finally:
            for client in clients.values():
                client.kill()
                client.wait()
                for stream in (client.stdin, client.stdout):
                    assert stream is not None
                    stream.close()
        server.stop()
    with sync.open(tmp_path / "gateway.db") as db:
        for name, count in acknowledged.items():
            session, found = db.session(f"agent:main:kills:{name}", create=False), []
            while page := session.entries(after=found[-1] if found else None, limit=1_000):
                found += page
            if name in TALKS:
                said = [json.loads(entry.payload)["message"]["content"] for entry in found]
                asked = [str(number) for number in range(1, count + 1)]
                assert [text for text in said if not text.startswith("re ")] == asked
                answers = [text.removeprefix("re ") for text in said if text not in asked]
                assert answers == asked
                assert all(said.index(f"re {text}") > said.index(text) for text in asked)
                ends = query(
                    db.path,
                    "SELECT event_id, state, attempts, superseded_by FROM inbox"
                    " WHERE channel = ? ORDER BY inbox_no",
                    name,
                )
                assert ends == [(text, "done", 1, None) for text in asked]
                replies = query(
                    db.path,
                    "SELECT payload, state, attempts FROM outbox WHERE channel = ?"
                    " ORDER BY outbox_no",
                    name,
                )
                assert replies == [(f'"re {text}"', "sent", 1) for text in asked]
                continue
            keys = [entry.idempotency_key for entry in found]
            assert keys == [f"{name}:{number}" for number in range(1, count + 1)]
        assert db.verify().ok
    print(f"server kills: {KILLS}, seed {SEED}, acknowledged: {acknowledged}")

"""A client of `sessiondb serve` in a process of its own: it appends, and repeats what broke.

    python -m tests.support.serving_child SOCKET NAME

It appends 1, 2, 3, ... to the session of NAME, each until it is acknowledged, and prints each
number that is. It ends when its standard input is closed. It uses the standard library alone, as
a client in another language would.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading


class Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def call(path: str, target: str, body: dict[str, object]) -> int:
    """Make one call over a connection of its own. 0: nobody knows what became of it."""
    connection = Connection(path)
    try:
        connection.request("POST", target, json.dumps(body))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def main(path: str, name: str) -> None:
    over, pause = threading.Event(), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    key = f"agent:main:kills:{name}"
    while call(path, "/v1/sessions", {"key": key}) != 200:
        pause.wait(0.01)
    number = 0
    while not over.is_set():
        number += 1
        item = {"role": "user", "content": f"{name} {number}"}
        body = {"item": item, "idempotency_key": f"{name}:{number}"}
        while (status := call(path, f"/v1/sessions/{key}/entries", body)) != 200:
            if status not in (0, 503):
                raise SystemExit(f"append {number} ended with {status}")
            pause.wait(0.01)
        print(number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

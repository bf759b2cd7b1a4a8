"""An OpenAI-compatible chat endpoint in a thread, for tests that hold its summaries back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.reference_gateway import PATIENCE_S

ASKS_FOR_SUMMARY = "Summarise the conversation so far"


class ChatEndpoint(ThreadingHTTPServer):
    """Repeats the last message. Asks for the tool `clock` when it is asked for the time."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []
        """Path, key and body of every request."""
        self.usage: dict[str, int] | None = {"prompt_tokens": 70, "total_tokens": 77}
        self.may_summarise = threading.Event()
        """While it is not set, no summary is answered."""
        self.may_summarise.set()


class _Handler(BaseHTTPRequestHandler):
    server: ChatEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, self.headers["Authorization"], body))
        last = body["messages"][-1]["content"]
        if last.startswith(ASKS_FOR_SUMMARY):
            assert self.server.may_summarise.wait(PATIENCE_S)
        self.send_response(500 if "fail" in last else 200)
        self.end_headers()
        message: dict[str, Any] = {"content": f"it is about {last}"}
        if last == "what time is it":
            function = {"name": "clock", "arguments": "{}"}
            call = {"id": "call-1", "type": "function", "function": function}
            message = {"content": None, "tool_calls": [call]}
        answer = {"choices": [{"message": message}], "usage": self.server.usage}
        self.wfile.write(b"overloaded" if "fail" in last else json.dumps(answer).encode())

    def log_message(self, *args: object) -> None:
        """Write nothing to stderr."""


@contextmanager
def chat_endpoint() -> Iterator[ChatEndpoint]:
    """Serve an endpoint from a thread."""
    with ChatEndpoint() as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server
        finally:
            server.may_summarise.set()
            server.shutdown()
            serving.join()

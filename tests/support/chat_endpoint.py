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
        self.streams = False
        """Whether an answer comes in pieces, if that is asked for."""
        self.breaks_off = False
        """Whether it breaks off after the first one, and says so."""
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
        streams = self.server.streams and body.get("stream")
        self.send_response(500 if "fail" in last else 200)
        if streams:
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        message: dict[str, Any] = {"content": f"it is about {last}"}
        if last == "what time is it":
            function = {"name": "clock", "arguments": "{}"}
            call = {"id": "call-1", "type": "function", "function": function}
            message = {"content": None, "tool_calls": [call]}
        if streams:
            self._stream(message)
            return
        answer = {"choices": [{"message": message}], "usage": self.server.usage}
        self.wfile.write(b"overloaded" if "fail" in last else json.dumps(answer).encode())

    def _stream(self, message: dict[str, Any]) -> None:
        """Send a message as providers do: words, then the parts of calls, then the usage."""
        pieces: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        pieces += [{"content": f"{word} "} for word in (message["content"] or "").split()]
        for call in message.get("tool_calls", ()):
            function = call["function"]
            begins = {**call, "index": 0, "function": {**function, "arguments": ""}}
            pieces.append({"tool_calls": [begins]})
            for part in function["arguments"]:
                pieces.append({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        lines: list[dict[str, Any]] = [{"choices": [{"delta": piece}]} for piece in pieces]
        lines.append({"choices": [], "usage": self.server.usage})
        if self.server.breaks_off:
            lines[2:] = [{"error": {"message": "overloaded"}}]
        for line in lines:
            self.wfile.write(f": a comment\n\ndata: {json.dumps(line)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

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

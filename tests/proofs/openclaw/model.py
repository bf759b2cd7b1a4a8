"""A scripted model that OpenClaw calls as it calls a provider's. It notes what it was sent.

Everything said has a mark: `q0001` in a question, `a0001` in its answer, `s0001` in a summary. So
what a context holds, and in which order, is the list of its marks, however a program wraps texts.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MARK = re.compile(r"\b[qas]\d{4}\b")
USAGE = {"prompt_tokens": 900, "completion_tokens": 90, "total_tokens": 990}
SUMMARY = """## Goal
{mark} so far
## Constraints & Preferences
- (none)
## Progress
### Done
- [x] {mark}
### In Progress
- (none)
### Blocked
- (none)
## Key Decisions
- (none)
## Next Steps
1. (none)
## Critical Context
- (none)
"""


def marks(value: Any) -> list[str]:
    """Return the marks in a JSON value, in their order."""
    return MARK.findall(json.dumps(value).replace("\\n", " "))  # else it ends no word


class Model(ThreadingHTTPServer):
    """Answers each question with its number, in pieces."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.sent: dict[str, list[str]] = {}
        """The marks of all that was sent for a question, by its mark."""
        self.questions = 0
        self.summaries = 0
        self.summary_s = 0.0
        """How long a summary takes."""
        self.asked_for_summary = threading.Event()
        self.refuses = False
        """True: it refuses the next request, because its context is too long."""
        self.counts = False
        """True: it says how many tokens it was sent. False: always the same number."""
        self._lock = threading.Lock()

    def answer(self, body: dict[str, Any]) -> str:
        """Note a request, and return the text of its answer."""
        system, *said = body["messages"]
        if "summariz" in json.dumps(system)[:2_000]:
            with self._lock:
                self.summaries += 1
                mark = f"s{self.summaries:04}"
            self.asked_for_summary.set()
            time.sleep(self.summary_s)
            return SUMMARY.format(mark=mark)
        with self._lock:
            sent = [mark for message in said for mark in marks(message.get("content"))]
            asked = next(mark for mark in reversed(sent) if mark.startswith("q"))
            self.sent[asked] = sent
        # Long enough that a compaction has something to summarise, and that an answer takes time.
        return f"a{asked[1:]} is the answer. " + "It has some more words. " * 60


class _Handler(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.refuses:
            self.server.refuses = False
            self._refuse()
            return
        text = self.server.answer(body)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.end_headers()
        pieces = [{"content": piece} for piece in re.findall(r"\S+\s*", text)]
        for piece in ({"role": "assistant", "content": ""}, *pieces):
            self._write({"choices": [{"index": 0, "delta": piece, "finish_reason": None}]})
        ended = {"index": 0, "delta": {}, "finish_reason": "stop"}
        sent = len(json.dumps(body["messages"])) // 4
        counted = {**USAGE, "prompt_tokens": sent, "total_tokens": sent + 90}
        self._write({"choices": [ended], "usage": counted if self.server.counts else USAGE})
        self.wfile.write(b"data: [DONE]\n\n")

    def _refuse(self) -> None:
        text = "This model's maximum context length is 64000 tokens. Reduce the messages."
        error = {"message": text, "type": "invalid_request_error"}
        told = json.dumps({"error": error | {"code": "context_length_exceeded"}}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def _write(self, chunk: dict[str, Any]) -> None:
        chunk |= {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted"}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *args: object) -> None:
        """Write nothing to stderr."""


@contextmanager
def serve() -> Iterator[Model]:
    """Serve a model from a thread."""
    with Model() as model:
        serving = threading.Thread(target=model.serve_forever)
        serving.start()
        try:
            yield model
        finally:
            model.shutdown()
            serving.join()

"""A page of conversations, served by synchronous endpoints in threads. Standard library only.

    python -m examples.history_page

Shown: `sessiondb.sync` from any thread, pages back from the end, a message that is stored once
however often a form is sent, and a part of the program that shares the file with another.
"""

from __future__ import annotations

import html
import json
import tempfile
import threading
import urllib.parse
import urllib.request
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from sessiondb import NotFound, sync

PER_PAGE = 3


class HistoryPage(ThreadingHTTPServer, AbstractContextManager["HistoryPage"]):
    """The server. Each request has a thread, and all have one database."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), Endpoints)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.db = sync.shared(path, program="history-page")

    def __enter__(self) -> Self:
        self.db.__enter__()
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self.db.close()


class Endpoints(BaseHTTPRequestHandler):
    server: HistoryPage

    def do_GET(self) -> None:  # the name that http.server calls
        url = urllib.parse.urlsplit(self.path)
        asked = urllib.parse.parse_qs(url.query)
        if url.path == "/":
            self.answer(200, self.conversations())
            return
        try:
            before = int(asked["before"][0]) if "before" in asked else None
            self.answer(200, self.conversation(url.path[1:], before))
        except NotFound as error:
            self.answer(404, f"<p>{html.escape(str(error))}</p>")

    def do_POST(self) -> None:
        """Say something, as a person who may press the button twice."""
        form = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        session = self.server.db.session(form["key"])
        message = {"role": "user", "content": form["text"]}
        receipt = session.append(message, idempotency_key=form["form"])
        self.answer(200, "again" if receipt.duplicate else "stored")

    def conversations(self) -> str:
        rows = [
            f'<li><a href="/{info.session_id}">{html.escape(", ".join(info.keys))}</a> '
            f"{info.entries} entries</li>"
            for info in self.server.db.sessions()
        ]
        return f"<ul>{''.join(rows)}</ul>"

    def conversation(self, session_id: str, before: int | None) -> str:
        """One page, its oldest message first, and a link to the one before."""
        session = self.server.db.session_by_id(session_id)
        page = session.entries(last=PER_PAGE, before=before)
        rows = "".join(f"<p>{html.escape(one.text or one.type)}</p>" for one in page)
        older = f'<a href="?before={page[0].entry_no}">older</a>' if page else ""
        return rows + older

    def answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def fetch(url: str, **form: str) -> str:
    body = json.dumps(form).encode() if form else None
    with urllib.request.urlopen(url, body, timeout=30) as answer:
        return str(answer.read().decode())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        with HistoryPage(path) as page, sync.shared(path) as writer:  # one engine for both
            key = "agent:main:web:direct:7"
            session = writer.session(key)
            session.append_many([{"role": "user", "content": f"line {n}"} for n in range(1, 6)])
            for _ in range(2):
                print(fetch(page.url, key=key, text="a <b>bold</b> one", form="form-1"))
            print(fetch(page.url).replace(session.id, "ID"))
            here = f"{page.url}/{session.id}"
            query = ""
            while "older" in (text := fetch(here + query)):
                print(text.split("<a")[0])
                query = text.split('href="')[1].split('"')[0]


if __name__ == "__main__":
    main()

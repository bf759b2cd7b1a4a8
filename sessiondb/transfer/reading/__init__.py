"""A conversation in a form for people and for their programs, instead of a transcript's file.

    path          which entries: the path to the head, or to another entry, a page at a time
    html          one page that needs nothing beside it: `page.css` and `page.js` are inside
    markdown      one Markdown text
    tables        CSV, lines of JSON, Parquet: a row for each entry

What it promises. The head is chosen once, and a path never changes. So what is appended during
an export is not in it, and an export that is repeated has the same bytes as long as the head
stays. One page of entries is in memory, whatever the length of the conversation. Nothing that an
entry says can become markup or script of the page, nor a formula of a table.

What it is not. No import reads these files back: that is what the transcript format is for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final, Protocol

from sessiondb import threads
from sessiondb.backend import Backend
from sessiondb.models import Entry
from sessiondb.transfer.redaction import Redactor

from .html import Html
from .markdown import Markdown
from .path import FindArchived, Heading, archived_heading, heading, pages
from .tables import Csv, Ndjson, Parquet

__all__ = ["ENDINGS", "content", "require_library"]

ENDINGS: Final[dict[str, str]] = {
    "html": ".html",
    "markdown": ".md",
    "csv": ".csv",
    "ndjson": ".ndjson",
    "parquet": ".parquet",
}
"""The formats, each with the ending of its files' names."""


class _Writer(Protocol):
    """Turns a conversation into bytes, in order. Called on worker threads."""

    def begin(self, heading: Heading) -> bytes: ...
    def page(self, entries: list[Entry]) -> bytes: ...
    def end(self) -> bytes: ...


_WRITERS: Final[dict[str, type[_Writer]]] = {
    "html": Html,
    "markdown": Markdown,
    "csv": Csv,
    "ndjson": Ndjson,
    "parquet": Parquet,
}


def require_library(name: str) -> None:
    """Refuse a format whose library is not installed.

    Raises:
        InvalidInput: it needs an extra.
    """
    _WRITERS[name]()


async def content(
    backend: Backend,
    session_no: int,
    name: str,
    *,
    branch: str | None = None,
    redactor: Redactor | None = None,
    redacted: Counter[str],
    find_archived: FindArchived | None = None,
) -> AsyncIterator[bytes]:
    """Yield one conversation in a format, in pieces of a page of entries.

    `branch` is the id of the entry at which the path ends. None: the head. With a redactor,
    `redacted` counts what it found. `find_archived` reads a session's path out of its archive.

    Raises:
        NotFound: no such entry.
        SessionArchived: its entries are in an archive.
    """
    writer = _WRITERS[name]()
    archived = None
    if find_archived is not None and branch is None:
        archived = await find_archived(backend, session_no)
    top = await backend.read(
        lambda tx: (
            heading(tx, session_no, branch)
            if archived is None
            else archived_heading(tx, session_no, archived)
        ),
        op="export.reading",
    )
    read = pages(backend, session_no, top.head_no) if archived is None else archived.pages(backend)
    if redactor is not None:
        top = replace(top, title=redactor.text(top.title, redacted))
    yield await threads.run(writer.begin, top)
    async for entries in read:
        yield await threads.run(_page, writer, entries, redactor, redacted)
    yield await threads.run(writer.end)


def _page(
    writer: _Writer, entries: list[Entry], redactor: Redactor | None, redacted: Counter[str]
) -> bytes:
    if redactor is not None:
        entries = [
            replace(entry, payload=redactor.line(entry.payload.encode(), redacted).decode())
            for entry in entries
        ]
    return writer.page(entries)

"""A search in archived sessions: their archives are read, the newest session first.

An archived session is not in the search index, so that its words take no space and go with its
archive. A search in archives unpacks them, chunk after chunk, and so takes as long as they are
large. A call reads a bounded number of archives, and says where the next one goes on.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from sessiondb.backend import Backend, ReadTx
from sessiondb.json_text import stored_text
from sessiondb.limits import SEARCH_ARCHIVES_AT_ONCE, SEARCH_HITS_MAX
from sessiondb.models import SearchHit, SearchPage
from sessiondb.transcript import search
from sessiondb.transcript.paths import entry_number, seq_of, session_of
from sessiondb.transcript.search import Filters
from sessiondb.transcript.searched_text import searched_text

from .archive_format import ENTRY
from .archive_rows import read_chunk

if TYPE_CHECKING:
    from sessiondb import statements


async def page(
    backend: Backend, text: str, filters: Filters, before_no: int | None, limit: int
) -> SearchPage:
    """Return a page of what is found in archives. See `SessionDB.search`.

    Raises:
        InvalidInput: there is no word to search for, or `limit` is not one of a page.
        StoreDamaged: an archive is damaged.
    """
    search.check_limit(limit)
    await backend.read(lambda tx: search.wanted(tx, text), op="search.words")
    last_no = session_of(before_no - 1) if before_no is not None else 2**31
    archives = await backend.read(partial(_archives, filters=filters, last_no=last_no), op="search")
    hits: list[SearchHit] = []
    for row in archives:
        found = [
            hit
            for hit in await _in_archive(backend, row, text, filters)
            if before_no is None or hit.entry_no < before_no
        ]
        hits += sorted(found, key=lambda hit: -hit.entry_no)
        if len(hits) > limit:
            return SearchPage(tuple(hits[:limit]), hits[limit - 1].entry_no, 0, built=False)
    whole = len(archives) < SEARCH_ARCHIVES_AT_ONCE
    next_no = None if whole else entry_number(archives[-1].session_no, 0)
    return SearchPage(tuple(hits), next_no, 0, built=False)


def _archives(tx: ReadTx, *, filters: Filters, last_no: int) -> list[statements.SearchArchives]:
    return tx.all(
        "search.archives",
        last_no=last_no,
        session_no=filters.session_no,
        agent_id=filters.agent_id,
        limit=SEARCH_ARCHIVES_AT_ONCE,
    )


async def _in_archive(
    backend: Backend, found: statements.SearchArchives, text: str, filters: Filters
) -> list[SearchHit]:
    row = await backend.read(
        lambda tx: tx.one("archive.get", archive_no=found.archive_no), op="search.archive"
    )
    hits: list[SearchHit] = []
    chunk_no = 0
    while (chunk := await read_chunk(backend, row, chunk_no)) is not None:
        chunk_no += 1
        for what, columns, values in chunk:
            if what != ENTRY:
                continue
            rows = [dict(zip(columns, one, strict=True)) for one in values]
            hits += await backend.read(
                partial(_in_rows, found=found, rows=rows, text=text, filters=filters),
                op="search.match",
            )
    return hits[-SEARCH_HITS_MAX - 1 :]


def _in_rows(
    tx: ReadTx,
    *,
    found: statements.SearchArchives,
    rows: list[dict[str, Any]],
    text: str,
    filters: Filters,
) -> list[SearchHit]:
    words = search.wanted(tx, text)
    hits = []
    for row in rows:
        role = row["role"] or row["type"]
        if filters.role not in (None, role) or row["appended_at_ms"] < filters.since_ms:
            continue
        said = _text(row)
        matched = search.matching(tx, said, words)
        if matched:
            snippet, marks = search.snippet_of(said, matched, words)
            hits.append(
                SearchHit(
                    session_id=found.session_id,
                    agent_id=found.agent_id,
                    entry_id=row["entry_id"],
                    entry_no=row["entry_no"],
                    seq=seq_of(row["entry_no"]),
                    type=row["type"],
                    role=row["role"],
                    appended_at_ms=row["appended_at_ms"],
                    snippet=snippet,
                    marks=marks,
                    on_path=True,
                    archived=True,
                )
            )
    return hits


@stored_text()
def _text(row: dict[str, Any]) -> str:
    entry = json.loads(row["payload"])
    return searched_text(row["type"], entry) if isinstance(entry, dict) else ""

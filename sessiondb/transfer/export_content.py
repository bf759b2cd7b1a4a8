"""The bytes of one file of an export: a transcript, or a conversation to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable

from sessiondb.backend import Backend, ReadTx
from sessiondb.errors import SessionArchived
from sessiondb.json_text import dumps
from sessiondb.transcript.registry import FORMAT_FIELD, header_fields

from .export_plan import Plan
from .jsonl_reader import UnreadableFile
from .jsonl_writer import appended_lines, imported_bytes, own_entries, shared_lines
from .reading import content as reading_content
from .reading.path import FindArchived
from .redaction import Redactor


async def content_to_read(
    backend: Backend,
    plan: Plan,
    name: str,
    *,
    branch: str | None,
    redactor: Redactor | None,
    redacted: Counter[str],
    find_archived: FindArchived | None,
) -> AsyncIterator[bytes]:
    """Yield the bytes of one file that is for reading.

    Raises:
        UnreadableFile: its session is archived, or went into an archive while it was read.
    """
    assert plan.session_no is not None, "a conversation is one of a session"
    parts = reading_content(
        backend,
        plan.session_no,
        name,
        branch=branch,
        redactor=redactor,
        redacted=redacted,
        find_archived=find_archived,
    )
    try:
        async for part in parts:
            yield part
    except SessionArchived as error:
        raise UnreadableFile(str(error)) from error


async def transcript_content(backend: Backend, plan: Plan) -> AsyncIterator[bytes]:
    """Yield the bytes of one file.

    Raises:
        UnreadableFile: its session is archived, or went into an archive while it was read.
    """
    async for part in _readable_content(backend, plan):
        yield part
    if plan.session_no is not None and await backend.read(
        _is_archived(plan.session_no), op="export.archived"
    ):
        raise UnreadableFile(
            "its session is archived; "
            f"bring it back with `sessiondb unarchive DB {plan.session_id}`, then export again"
        )


def _is_archived(session_no: int) -> Callable[[ReadTx], bool]:
    return lambda tx: (
        tx.one("transcript.archived", session_no=session_no).archived_at_ms is not None
    )


def _with_format(header: bytes, formats: int) -> bytes:
    """Return a header that names the message format, which was not known when it was written."""
    added = header_fields(formats)
    if not added or FORMAT_FIELD.encode() in header:
        return header
    return header.rstrip()[:-1] + b"," + dumps(added)[1:].encode()


async def _readable_content(backend: Backend, plan: Plan) -> AsyncIterator[bytes]:
    source = plan.source
    if source is None:
        assert plan.session_no is not None, "a file comes from an imported file or a session"
        async for _, header in own_entries(backend, plan.session_no, 0, 0):
            yield _with_format(header, plan.formats) + b"\n"
        if plan.is_fork:
            async for line in shared_lines(backend, plan.session_no):
                yield line
        async for line in appended_lines(backend, plan.session_no, 0):
            yield line
        return
    ends = True
    async for part in imported_bytes(
        backend,
        source.first_import_file_no,
        source.session_no,
        source.entries,
        final_newline=bool(source.final_newline),
    ):
        ends = part.endswith(b"\n")
        yield part
    if source.session_no is not None:
        async for line in appended_lines(backend, source.session_no, source.entries):
            yield line if ends else b"\n" + line
            ends = True

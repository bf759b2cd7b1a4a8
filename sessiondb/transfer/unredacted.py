"""Secrets that an earlier import stored, which one with a redactor looks for and names.

Entries never change, so an import does not take out what an earlier one stored. It must not look
as if it had, either. So the stored part of each file that was imported without a redactor, or with
other rules, is searched. What is found is counted and named, and the import is not ok.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from sessiondb import threads
from sessiondb.limits import MIB

from .import_run import FileState, ImportRun
from .jsonl_reader import link_of
from .jsonl_writer import imported_bytes
from .redaction import Redactor, mark_in

_NAMED_MAX: Final = 10  # entries


async def look_for_secrets(run: ImportRun, redactor: Redactor, state: FileState) -> None:
    """Search what earlier imports stored of a file, unless the same rules did so already."""
    known = state.known
    if known is None or not known.bytes or state.file.kind == "index" or state.session_id is None:
        return
    mark = mark_in(known.note)
    if mark is not None and mark.from_byte == 0 and mark.rules == redactor.fingerprint:
        return
    row = await run.backend.read(
        lambda tx: tx.first("import_file.by_path", path=state.file.path), op="import.redact"
    )
    if row is None or row.session_no is None:
        return
    session_no = row.session_no
    if await run.backend.read(
        lambda tx: tx.first("archive.of_session", session_no=session_no), op="import.redact"
    ):
        state.status = "failed"
        state.notes.append(
            "it was imported before, without these rules, and its session is archived: that was "
            f"not searched for secrets. Bring it back with `sessiondb unarchive DB "
            f"{row.session_id}`, then import with --redact again"
        )
        return
    search = _Search(redactor)
    lines: list[bytes] = []
    size = 0
    async for line in imported_bytes(
        run.backend,
        row.first_import_file_no,
        session_no,
        row.entries,
        final_newline=bool(row.final_newline),
    ):
        lines.append(line)
        size += len(line)
        if size >= MIB:
            await threads.run(search.read, lines)
            lines, size = [], 0
    await threads.run(search.read, lines)
    if search.found:
        state.unredacted = search.found
        state.notes.append(
            f"an earlier import stored {_listed(search.found)}, and that is still there"
            f"{search.where}. To delete what such an entry says: `sessiondb redact DB "
            f"{row.session_id} ENTRY`. To have the whole without: `sessiondb delete DB "
            f"{row.session_id}`, then copy the file to a new name and import that with --redact"
        )


class _Search:
    """What was found in the lines so far."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._ids: list[str] = []
        self.found: Counter[str] = Counter()

    def read(self, lines: list[bytes]) -> None:
        """Search lines. Runs on a worker thread."""
        for line in lines:
            before = self.found.total()
            self._redactor.line(line, self.found)
            if self.found.total() > before and len(self._ids) <= _NAMED_MAX:
                entry_id = next((one for one in link_of(line)), None)
                self._ids += [entry_id] if entry_id is not None else []

    @property
    def where(self) -> str:
        """Which entries hold something, as a part of a sentence."""
        if not self._ids:
            return ""
        more = " and others" if len(self._ids) > _NAMED_MAX else ""
        lines = "line" if len(self._ids) == 1 else "lines"
        return f" (in the {lines} {', '.join(self._ids[:_NAMED_MAX])}{more})"


def _listed(found: Counter[str]) -> str:
    return ", ".join(f"{count:,} {rule}" for rule, count in sorted(found.items()))

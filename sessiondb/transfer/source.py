"""What was imported from where: the rules over `source` and `quarantine`.

One transaction stores a chunk of a file and how far the file has been read, so the receipt is never ahead of the
rows nor behind them, and an import that dies goes on where its last commit ended. Entries are placed leniently: what
is odd about a transcript is noted, never a reason to keep its good entries out. Bytes that are no entry are kept
beside them, with their place, because an export has to give the file back.

A session gets the best id that is free: the one its folder's index gives it, its header's, its file name.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sessiondb.backend import Row, Tx
from sessiondb.errors import InvalidInput
from sessiondb.json_text import storable
from sessiondb.limits import SESSION_ID_CHARS_MAX
from sessiondb.transcript import registry
from sessiondb.transcript.append import load_state, save_state
from sessiondb.transcript.entries import Draft, key_trouble
from sessiondb.transcript.replay import replay

from .folder_scan import ENDED_KINDS, Found, file_name, stem_of
from .jsonl_reader import BEHIND_ENTRY, FileBatch, Identity, Kept, Place
from .openclaw_index import Binding
from .redaction import Mark, mark_in, without_mark

NOTES_MAX: Final = 100  # that a receipt spells out
NOTE_CHARS_MAX: Final = 4_000


class Overtaken(Exception):
    """The file's receipt is not where this import left it."""


class GoneOn(Exception):
    """The session holds entries that did not come from the file."""


@dataclass(slots=True)
class Stored:
    """What one chunk's transaction did."""

    session_id: str | None
    entries: int
    notes: list[str]


def store_batch(tx: Tx, file: Found, batch: FileBatch) -> Stored:
    """Store one chunk of a file and record how far the file has been read.

    Raises:
        Overtaken: another import has read on in the meantime.
        GoneOn: the session was appended to by something else than an import of this file.
    """
    row = tx.first("import_file.by_path", path=file.path) or _begin_source(tx, file)
    # Invariant: `source` says exactly how much of the file is stored, so whoever goes on must have begun there. Of
    # two imports at once, one goes on and the other is told.
    if (row.bytes, row.sha256) != (batch.before.bytes, batch.before.sha256):
        raise Overtaken(
            f"another import is reading it too, and has come to byte {row.bytes:,}; import again when that is done"
        )
    if (
        batch.items
        and row.session_no is not None
        and tx.first("archive.of_session", session_no=row.session_no) is not None
    ):
        raise GoneOn(
            f"session {row.session_id} is archived; restore it, then import again: `sessiondb restore DB {row.session_id}`"
        )
    if batch.items and row.session_last_seq != row.entries:
        raise GoneOn(_gone_on(row.session_id, row.session_last_seq - row.entries))
    quarantined = row.quarantined - tx.run(
        "import_file.drop_tail",
        import_file_no=row.import_file_no,
        byte_offset=batch.before.resume_at,
    )
    notes: list[str] = []
    odd: list[str] = []
    state = load_state(tx, row.session_no) if row.session_no is not None else None
    for item in batch.items:
        if isinstance(item, Draft):
            if state is None:
                state = load_state(tx, _create_session(tx, file, batch.identity, notes))
            trouble = key_trouble(item.idempotency_key)
            if (
                trouble is not None
            ):  # the text keeps it; no claim of a message may take it for its own
                odd.append(f"entry {item.entry_id}: {trouble}; left out")
                item.idempotency_key = None
            replay(tx, state, item, odd)
        else:
            _keep(tx, row.import_file_no, item, after_seq=-1 if state is None else state.last_seq)
            quarantined += 1
    if state is not None and batch.items:
        save_state(tx, state)
        notes += odd[:NOTES_MAX]
        created_at_ms = batch.identity.created_at_ms if batch.identity is not None else None
        tx.run(
            "import_file.date_session",
            session_no=state.session_no,
            created_at_ms=created_at_ms,
            updated_at_ms=file.modified_at_ms,
        )
    if state is not None and batch.last and file.kind in ENDED_KINDS:
        registry.end(tx, state.session_no)
    entries = state.last_seq if state is not None and batch.items else row.entries
    tx.run(
        "import_file.advance",
        import_file_no=row.import_file_no,
        session_no=state.session_no if state is not None else None,
        bytes=batch.bytes,
        lines=batch.lines,
        entries=entries,
        quarantined=quarantined,
        sha256=batch.sha256,
        final_newline=int(batch.final_newline),
        inode=file.inode,
        now_ms=tx.now_ms,
        state="done" if batch.last else "reading",
        note=_note_of(row, batch, notes),
    )
    return Stored(state.session_id if state is not None else None, entries, notes)


def _note_of(row: Row, batch: FileBatch, notes: Sequence[str]) -> str | None:
    """Return what the receipt notes, first of all from where on it is without its secrets, and how many they were."""
    mark = mark_in(row.note)
    if batch.redacted is not None:
        from_byte, counts = (
            (mark.from_byte, mark.counts)
            if mark is not None
            else (batch.before.resume_at, Counter[str]())
        )
        mark = Mark(from_byte, counts + batch.redacted)
    rest = without_mark(row.note)
    return shortened(
        [*([str(mark)] if mark is not None else []), *([rest] if rest else []), *notes]
    )


def _begin_source(tx: Tx, file: Found) -> Row:
    row = tx.first(
        "import_file.insert",
        path=file.path,
        name=file.name,
        kind=file.kind,
        agent_id=file.agent_id,
        inode=file.inode,
        now_ms=tx.now_ms,
        sha256=Place().sha256,
        note=None,
    )
    assert row is not None, "INSERT ... RETURNING returns its row"
    return tx.first("import_file.by_path", path=file.path)


def _keep(tx: Tx, import_file_no: int, kept: Kept, *, after_seq: int) -> None:
    tx.run(
        "import_file.keep",
        import_file_no=import_file_no,
        line=kept.line,
        byte_offset=kept.byte_offset,
        after_seq=after_seq,
        reason=kept.reason,
        severity=kept.severity,
        content=kept.content,
    )


def _create_session(tx: Tx, file: Found, identity: Identity | None, notes: list[str]) -> int:
    """Create the session of a file under the best id that is free: the index's, the header's, the file name's."""
    assert identity is not None, "the first entry of a file tells what the file is"
    notes += identity.notes
    for session_id in _candidates(file, identity):
        if tx.first("registry.by_id", session_id=session_id) is None:
            notes += _about_id(file, identity, session_id)
            return registry.insert(
                tx, session_id, origin="import", version=identity.version, agent_id=file.agent_id
            )
    raise InvalidInput(f"{file.path}: no session id is free for it; rename the file")


def _candidates(file: Found, identity: Identity) -> Iterator[str]:
    stem = stem_of(file_name(file.path))
    for wanted in (file.index_id, identity.header_id, stem):
        try:
            if wanted is not None:
                yield registry.check_session_id(wanted)
        except InvalidInput:
            continue  # what cannot be an id is passed over for the next best
    for attempt in range(16):
        digest = hashlib.sha256(f"{file.path}\0{attempt}".encode()).hexdigest()[:8]
        yield f"{stem[: SESSION_ID_CHARS_MAX - 9]}~{digest}"


def _about_id(file: Found, identity: Identity, session_id: str) -> list[str]:
    stem = stem_of(file_name(file.path))
    if identity.header_id is not None and session_id != identity.header_id:
        why = (
            "as the index says"
            if session_id == file.index_id
            else "because another session has that id"
        )
        return [f"its header says id {identity.header_id}; stored as {session_id}, {why}"]
    if file.kind == "live" and session_id != stem and identity.header_id is not None:
        return [f"its header says id {identity.header_id}, which is not its file name"]
    return []


def _gone_on(session_id: str | None, count: int) -> str:
    return (
        f"session {session_id} has {count:,} entries of its own since the import; to have the file's new lines too, "
        "copy the file to a new name and import that"
    )


def shortened(notes: Sequence[str]) -> str | None:
    """Return notes as one text of bounded length; None when there are none."""
    text = storable("; ".join(dict.fromkeys(notes)))
    return (text if len(text) <= NOTE_CHARS_MAX else f"{text[: NOTE_CHARS_MAX - 2]} …") or None


def bind_keys(tx: Tx, bindings: Sequence[Binding]) -> tuple[int, list[str]]:
    """Bind keys as an index says, unless they have been bound elsewhere since; return how many, and notes."""
    bound, notes = 0, []
    for binding in bindings:
        row = tx.first("registry.by_key", session_key=binding.key.text)
        if row is not None and row.session_no not in (binding.session_no, binding.before_no):
            notes.append(
                f"{binding.key.text} is bound to session {row.session_id} in this database; left so"
            )
            continue
        kept = (
            tx.first("archive.of_session", session_no=binding.session_no) if row is None else None
        )
        if kept is not None and (kept.encoding == "none" or kept.state == "deleted"):
            notes.append(f"{binding.key.text} is not bound: its session was deleted")
            continue
        if kept is not None:
            tx.run("archive.add_key", session_no=binding.session_no, session_key=binding.key.text)
            notes.append(
                f"{binding.key.text} is not bound: its session is archived; restoring it binds the key"
            )
            continue
        registry.bind(tx, binding.key, binding.session_no, binding.details)
        bound += 1
    return bound, notes


def place_of(row: Row | None) -> Place:
    """Return where reading goes on for a file that an earlier import has recorded."""
    if row is None:
        return Place()
    known = Place(
        row.bytes,
        row.lines,
        row.sha256,
        resume_at=row.bytes,
        resume_lines=row.lines,
        mid_line=row.bytes > 0 and not row.final_newline,
        version=row.version,
        final_newline=bool(row.final_newline),
        finished=row.state != "reading",
    )
    if row.tail_at is None:
        return known
    behind_entry = row.tail_reason == BEHIND_ENTRY
    return replace(
        known,
        resume_at=row.tail_at,
        resume_lines=row.lines - (not behind_entry),
        mid_line=behind_entry,
    )

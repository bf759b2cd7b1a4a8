"""What was imported from where: the rules over the tables `import_file` and `quarantine`.

One transaction stores a batch of a file and how far the file has been read. So the record is
never ahead of the rows nor behind them, and an import that dies continues where its last commit
ended. Entries are placed leniently: an oddity of a transcript is noted, and keeps no good entry
out. Bytes that are not an entry are kept beside the entries, with their place, because an export
has to give the file back.

A session gets the best id that is free: its folder's index's, its header's, or its file name's.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sessiondb.backend import ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import InvalidInput
from sessiondb.json_text import storable
from sessiondb.limits import SESSION_ID_CHARS_MAX
from sessiondb.models import BEHIND_ENTRY, BYTES_OF_ENTRY
from sessiondb.transcript import registry
from sessiondb.transcript.entries import Draft, key_trouble
from sessiondb.transcript.formats import PI
from sessiondb.transcript.keys import SessionKey, parse_key
from sessiondb.transcript.state import State, load_state, save_state

from . import early_lines
from .early_lines import EarlyLines, Late, Lines
from .folder_scan import ENDED_KINDS, SourceFile, file_name, stem_of
from .jsonl_reader import FileBatch, Identity, Kept, Place
from .openclaw_index import Binding, IndexEntry
from .own_times import OwnTimes, first_time, own_times
from .redaction import Mark, mark_in, without_mark

if TYPE_CHECKING:
    from sessiondb import statements

NOTES_MAX: Final = 100  # that a receipt lists
NOTE_CHARS_MAX: Final = 4_000


class Overtaken(Exception):
    """Another import has read the file further than this one expects."""


class SessionDiverged(Exception):
    """The session holds entries that did not come from the file, or is archived."""


@dataclass(slots=True)
class BatchResult:
    """What the transaction of one batch stored."""

    session_id: str | None
    entries: int
    notes: list[str]
    waiting: bool = False
    """Some of its lines wait for their parents."""


def store_batch(tx: Tx, file: SourceFile, batch: FileBatch) -> BatchResult:
    """Store one batch of a file and record how far the file has been read.

    Raises:
        Overtaken: another import has read further in the meantime.
        SessionDiverged: the session has entries of its own, or is archived.
    """
    row = tx.first("import_file.by_path", path=file.path) or _begin_file(tx, file)
    _refuse_batch(tx, row, batch)
    quarantined = row.quarantined - tx.run(
        "import_file.drop_tail",
        import_file_no=row.import_file_no,
        byte_offset=batch.before.resume_at,
    )
    notes: list[str] = []
    state = load_state(tx, row.session_no) if row.session_no is not None else None
    early = EarlyLines(tx, row.import_file_no)
    if early.being_placed:
        raise _overtaken(row)
    if batch.items:
        with own_times(tx, _latest_ms(row, file, batch)) as times:
            state, kept = _store_items(tx, file, row, state, batch, notes, early, times)
        quarantined += kept
    if state is not None and batch.last and file.kind in ENDED_KINDS:
        registry.end_imported(tx, state.session_no)
    entries = state.last_seq if state is not None and batch.items else row.entries
    is_open = early.is_open()
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
        state="done" if batch.last and not is_open else "reading",
        note=_note_of(row, batch, notes),
    )
    return BatchResult(state.session_id if state is not None else None, entries, notes, is_open)


def _latest_ms(row: statements.ImportFileByPath, file: SourceFile, batch: FileBatch) -> int:
    """Return the time of what is stored of a file, or the one that its session begins with."""
    if row.session_updated_at_ms is not None:
        return row.session_updated_at_ms
    created_at_ms = batch.identity.created_at_ms if batch.identity is not None else None
    first_ms = created_at_ms if created_at_ms is not None else first_time(batch.items)
    return first_ms if first_ms is not None else file.modified_at_ms


def store_early(tx: Tx, file: SourceFile, lines: Lines, drafts: Sequence[Draft]) -> BatchResult:
    """Store a page of early lines behind their parents, and record how many entries there are.

    Raises:
        Overtaken: another import has placed some of them in the meantime.
        SessionDiverged: the session has entries of its own, or is archived.
    """
    row = tx.one("import_file.by_path", path=file.path)
    if row.entries != lines.entries or row.session_no is None or row.session_updated_at_ms is None:
        raise _overtaken(row)
    _refuse_session(tx, row)
    state = load_state(tx, row.session_no)
    odd: list[str] = []
    for draft in drafts:
        _check_key(draft, odd)
    with own_times(tx, row.session_updated_at_ms) as times:
        early_lines.place(tx, state, lines, drafts, odd, times)
        _save(tx, state, times, None)
    notes = odd[:NOTES_MAX]
    _advance_early(tx, row, state, row.state, notes)
    return BatchResult(state.session_id, state.last_seq, notes, True)


def end_early(tx: Tx, file: SourceFile, *, last: bool) -> None:
    """Bring the head to where it belongs, and a file that has been read to its end.

    Raises:
        SessionDiverged: the session has entries of its own, or is archived.
    """
    row = tx.one("import_file.by_path", path=file.path)
    if row.session_no is None or row.session_updated_at_ms is None:
        return
    state = load_state(tx, row.session_no)
    if row.head_seq is not None:
        _refuse_session(tx, row)
        with own_times(tx, row.session_updated_at_ms) as times:
            early_lines.restore_head(tx, state, row.import_file_no)
            _save(tx, state, times, None)
    if last:
        _advance_early(tx, row, state, "done", [])


def repeat_late(tx: Tx, file: SourceFile, late: Late) -> None:
    """Let entries whose root has found its parent be placed once more: the next of them.

    Raises:
        SessionDiverged: the session has entries of its own, or is archived.
    """
    _refuse_session(tx, tx.one("import_file.by_path", path=file.path))
    early_lines.repeat(tx, late)


def move(tx: Tx, file: SourceFile, row: statements.ImportFileKnown) -> None:
    """Record the new name of a file. An archive's session has ended, one restored goes on."""
    tx.run(
        "import_file.move",
        import_file_no=row.import_file_no,
        path=file.path,
        name=file.name,
        kind=file.kind,
        agent_id=file.agent_id,
    )
    if row.session_no is None:
        return
    if file.kind in ENDED_KINDS:
        registry.end_imported(tx, row.session_no)
    elif row.kind in ENDED_KINDS:
        registry.reopen_imported(tx, row.session_no)


def set_aside(tx: Tx, file: SourceFile) -> bool:
    """Make an archive of what was imported of a file that is another one now.

    Its session ends, and an export writes it under a name of OpenClaw's for such files. False: the
    session has entries of its own, or other names, and nothing is changed.
    """
    row = tx.first("import_file.by_path", path=file.path)
    if (
        row is None
        or row.session_no is None
        or file.kind not in ("live", "pi")
        or row.first_import_file_no != row.import_file_no
        or row.session_last_seq != row.entries
    ):
        return False
    ending = f".bak.{iso_from_ms(tx.stamp_ms).replace(':', '-')}"
    path, name = (text.removesuffix(".zst") + ending for text in (file.path, file.name))
    mark = mark_in(row.note)
    tx.run(
        "import_file.set_aside",
        import_file_no=row.import_file_no,
        path=path,
        name=name,
        note=shortened([*([str(mark)] if mark is not None else []), "its file was replaced"]),
    )
    registry.end_imported(tx, row.session_no)
    return True


def _advance_early(
    tx: Tx, row: statements.ImportFileByPath, state: State, status: str, notes: list[str]
) -> None:
    tx.run(
        "early_lines.advance",
        import_file_no=row.import_file_no,
        entries=state.last_seq,
        state=status,
        note=shortened([*([row.note] if row.note else []), *notes]),
    )


def _overtaken(row: statements.ImportFileByPath) -> Overtaken:
    return Overtaken(
        f"another import is reading it too, and has come to byte {row.bytes:,}; "
        "import again when that is done"
    )


def _refuse_batch(tx: Tx, row: statements.ImportFileByPath, batch: FileBatch) -> None:
    """Refuse a batch that does not continue what is stored."""
    # Invariant: the record says exactly how much of the file is stored, and a batch begins
    # exactly there. Of two imports at once, one continues and the other is refused.
    if (row.bytes, row.sha256) != (batch.before.bytes, batch.before.sha256):
        raise _overtaken(row)
    if batch.items:
        _refuse_session(tx, row)


def _refuse_session(tx: Tx, row: statements.ImportFileByPath) -> None:
    """Refuse to go on in a session that is another one than the file's."""
    if (
        row.session_no is not None
        and tx.first("archive.of_session", session_no=row.session_no) is not None
    ):
        raise SessionDiverged(
            f"session {row.session_id} is archived. Bring it back, then import again: "
            f"`sessiondb unarchive DB {row.session_id}`"
        )
    if row.session_last_seq != row.entries:
        raise SessionDiverged(_about_divergence(row.session_id, row.session_last_seq - row.entries))


def _store_items(
    tx: Tx,
    file: SourceFile,
    row: statements.ImportFileByPath,
    state: State | None,
    batch: FileBatch,
    notes: list[str],
    early: EarlyLines,
    times: OwnTimes,
) -> tuple[State | None, int]:
    """Append the entries of a batch and keep its quarantined lines.

    Return the session's state, and how many lines were kept. The first entry makes the session.
    """
    odd: list[str] = []
    kept = 0
    bytes_of_waiting: Kept | None = None
    for at, item in enumerate(batch.items):
        if not isinstance(item, Draft):
            if item is not bytes_of_waiting:
                after_seq = -1 if state is None else state.last_seq
                _keep(tx, row.import_file_no, item, after_seq=after_seq)
                early.pass_over(state, item.links)
                kept += 1
            continue
        if state is None:
            state = load_state(tx, _create_session(tx, file, batch.identity, notes))
        _check_key(item, odd)
        times.stamp(item)
        following = batch.items[at + 1] if at + 1 < len(batch.items) else None
        has_bytes = isinstance(following, Kept) and following.reason.startswith(BYTES_OF_ENTRY)
        of_item = following if isinstance(following, Kept) and has_bytes else None
        if early.put(state, item, batch.places[at], of_item, odd):
            bytes_of_waiting = of_item
            kept += 1
    early.save()
    if state is not None:
        notes += odd[:NOTES_MAX]
        _save(tx, state, times, batch.identity)
    return state, kept


def _check_key(draft: Draft, odd: list[str]) -> None:
    """Leave out an idempotency key that none of this database may be."""
    trouble = key_trouble(draft.idempotency_key)
    if trouble is not None:
        # The text keeps it. No claim of a message may take it for its own.
        odd.append(f"entry {draft.entry_id}: {trouble}; left out")
        draft.idempotency_key = None


def _save(tx: Tx, state: State, times: OwnTimes, identity: Identity | None) -> None:
    times.stamp_latest()
    save_state(tx, state)
    tx.run(
        "import_file.date_session",
        session_no=state.session_no,
        created_at_ms=identity.created_at_ms if identity is not None else None,
        updated_at_ms=tx.stamp_ms,
    )


def _note_of(
    row: statements.ImportFileByPath, batch: FileBatch, notes: Sequence[str]
) -> str | None:
    """Return the note of the record. First comes the mark of a redaction, if there was one."""
    mark = mark_in(row.note)
    if batch.redacted is not None:
        before = mark or Mark(batch.before.resume_at, Counter(), batch.rules)
        rules = batch.rules if batch.rules == before.rules else None
        mark = Mark(before.from_byte, before.counts + batch.redacted, rules)
    rest = without_mark(row.note)
    return shortened(
        [*([str(mark)] if mark is not None else []), *([rest] if rest else []), *notes]
    )


def _begin_file(tx: Tx, file: SourceFile) -> statements.ImportFileByPath:
    tx.one(
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
    return tx.one("import_file.by_path", path=file.path)


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
        entry_id=None,
        waits_for=None,
    )


def _create_session(tx: Tx, file: SourceFile, identity: Identity | None, notes: list[str]) -> int:
    """Create the session of a file under the best id that is free."""
    assert identity is not None, "the batch with a file's first entry has its identity"
    notes += identity.notes
    for session_id in _candidates(file, identity):
        if tx.first("registry.by_id", session_id=session_id) is None:
            notes += _about_id(file, identity, session_id)
            return registry.insert(
                tx,
                session_id,
                origin="import",
                version=identity.version,
                agent_id=file.agent_id,
                may_be=identity.formats,
            )
    raise InvalidInput(f"{file.path}: no session id is free for it; rename the file")


def _candidates(file: SourceFile, identity: Identity) -> Iterator[str]:
    stem = stem_of(file_name(file.path))
    for wanted in (file.index_id, identity.header_id, stem):
        try:
            if wanted is not None:
                yield registry.check_session_id(wanted)
        except InvalidInput:
            continue  # it cannot be an id: the next best is tried
    for attempt in range(16):
        digest = hashlib.sha256(f"{file.path}\0{attempt}".encode()).hexdigest()[:8]
        yield f"{stem[: SESSION_ID_CHARS_MAX - 9]}~{digest}"


def _about_id(file: SourceFile, identity: Identity, session_id: str) -> list[str]:
    stem = stem_of(file_name(file.path))
    if identity.header_id is not None and session_id != identity.header_id:
        why = _about_other_id(file, identity.header_id, session_id)
        return [f"its header says id {identity.header_id}; stored as {session_id}, {why}"]
    if file.kind == "live" and session_id != stem and identity.header_id is not None:
        return [f"its header says id {identity.header_id}, which is not its file name"]
    return []


def _about_other_id(file: SourceFile, header_id: str, session_id: str) -> str:
    if session_id == file.index_id:
        return "as the index says"
    try:
        registry.check_session_id(header_id)
    except InvalidInput:
        return "because an id cannot hold all of its characters"
    return "because another session has that id"


def _about_divergence(session_id: str | None, count: int) -> str:
    return (
        f"session {session_id} has {count:,} entries of its own since the import; "
        "to have the file's new lines too, copy the file to a new name and import that"
    )


def shortened(notes: Sequence[str]) -> str | None:
    """Return notes as one text of at most `NOTE_CHARS_MAX`, or None if there are none."""
    text = storable("; ".join(dict.fromkeys(notes)))
    return (text if len(text) <= NOTE_CHARS_MAX else f"{text[: NOTE_CHARS_MAX - 2]} …") or None


def bind_keys(tx: Tx, bindings: Sequence[Binding]) -> tuple[int, list[str]]:
    """Bind keys as an index says, unless they were bound elsewhere since.

    Return how many were bound, and notes on the others.
    """
    bound, notes = 0, []
    for binding in bindings:
        key = _spelled(tx, binding)
        row = tx.first("registry.by_key", session_key=key.text)
        if binding.only_follows and (row is None or row.session_no not in binding.replaced):
            continue
        is_as_imported = row is None or (
            row.session_no in (binding.session_no, binding.before_no)
            or _is_as_indexed(row, binding.before)
        )
        if row is not None and not is_as_imported:
            notes.append(
                f"{key.text} is bound to session {row.session_id} in this database; left so"
            )
            continue
        kept = (
            tx.first("archive.of_session", session_no=binding.session_no) if row is None else None
        )
        if kept is not None and (kept.encoding == "none" or kept.state == "deleted"):
            notes.append(f"{key.text} is not bound: its session was deleted")
            continue
        if kept is not None:
            tx.run("archive.add_key", session_no=binding.session_no, session_key=key.text)
            notes.append(
                f"{key.text} is not bound: its session is archived; restoring it binds the key"
            )
            continue
        registry.bind_imported(tx, key, binding.session_no, binding.details)
        bound += 1
    return bound, notes


def unbind_keys(tx: Tx, rows: Mapping[str, IndexEntry]) -> int:
    """Unbind keys that an index leads nowhere, if they are as it had them. Return how many."""
    count = 0
    for key, before in rows.items():
        row = tx.first("registry.by_key", session_key=key)
        if row is not None and _is_as_indexed(row, before):
            count += tx.run("registry.unbind", session_key=key)
    return count


def _is_as_indexed(row: statements.RegistryByKey, before: IndexEntry | None) -> bool:
    """Return whether a key is bound as an earlier import of its index has left it.

    The transcript may have another name since, but its session has the id that the row names, or
    one that was made from that.
    """
    return (
        before is not None
        and row.details == before.text
        and row.session_id.partition("~")[0] == before.session_id
    )


def _spelled(tx: ReadTx, binding: Binding) -> SessionKey:
    """Return the key of a row of an index, with the case of its id if that is known by now."""
    if tx.first("registry.by_key", session_key=binding.key.text) is not None:
        return binding.key
    for session_no in (binding.before_no, binding.session_no):
        for row in tx.all("archive.bindings", session_no=session_no):
            key = parse_key(row.session_key)
            if key.lowered == binding.key.text:
                return key
    return binding.key


def place_of(row: statements.ImportFileKnown | None) -> Place:
    """Return where reading continues in a file that an earlier import has recorded."""
    if row is None:
        return Place()
    known = Place(
        row.bytes,
        row.lines,
        row.sha256 or "",  # every record has one; without it, nothing is a continuation
        resume_at=row.bytes,
        resume_lines=row.lines,
        mid_line=row.bytes > 0 and not row.final_newline,
        version=row.version,
        formats=row.formats if row.formats is not None else PI.bit,
        final_newline=bool(row.final_newline),
        finished=row.state != "reading",
        ends_in_bytes=bool(row.ends_in_bytes),
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

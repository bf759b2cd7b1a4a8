"""Mend and settle: create lost rows that others refer to, and fix the states of the rest."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Final

from sessiondb.backend import Row
from sessiondb.gateway import dead_letters, inbox, outbox
from sessiondb.limits import SEQ_BITS, SEQ_MAX
from sessiondb.maintenance import verify_inbox
from sessiondb.maintenance.verify_receipts import IndexWalk, ReceiptWalk
from sessiondb.maintenance.verify_steps import SessionFindings
from sessiondb.models import SALVAGED
from sessiondb.transcript import formats, registry

from . import archives
from .workspace import BATCH_ROWS, FIRST_NUMBER, NUMBERED, Workspace, decode_object

SESSION_NO_MAX: Final = (1 << 31) - 1
_PART_IS_LOST: Final = f"{SALVAGED}part of what was imported is lost"


# -- references


def mend_references(work: Workspace) -> None:
    """Create each lost row that another row needs, or drop the other row."""
    archives.open_orphaned_chunks(work)
    for session_no in sorted(work.lost_sessions.keys() | work.lost_entries.keys()):
        _recreate_session(work, session_no, "entry in an index")
    for session_no in _entry_owners(work):
        if work.first("verify.exists", session_no=session_no) is None:
            _recreate_session(work, session_no, "entries")
    for row in work.pages("inbox", "inbox_no"):
        _return_to_its_turn(work, row)
    for row in work.pages("inbox", "inbox_no"):
        if row.found_session_no is None and not _recreate_session(
            work, row.session_no, f"message {row.inbox_no}"
        ):
            _move_to_catch_all(work, "inbox", row.inbox_no, row.session_no)
        if row.found_lane is None:
            _recreate_lane(work, row.lane)
        if row.lane_before is not None and row.found_lane_before is None:
            _recreate_lane(work, row.lane_before)
        if row.entry_no is not None and row.found_entry_no is None and row.archived_at_ms is None:
            work.lost_inputs.add(row.entry_no)
    for row in work.pages("outbox", "outbox_no"):
        if row.found_session_no is None and not _recreate_session(
            work, row.session_no, f"reply {row.outbox_no}"
        ):
            _move_to_catch_all(work, "outbox", row.outbox_no, row.session_no)
    for row in work.pages("archives", "archive_no"):
        if row.found_session_no is None:
            _recreate_session(work, row.session_no, f"archive {row.archive_no}")
    for row in work.pages("turns", "turn_no"):
        _mend_turn(work, row)
    _drop_orphans(work)


def _entry_owners(work: Workspace) -> Iterator[int]:
    owner: int | None = 0
    while owner is not None:
        after = owner << SEQ_BITS | SEQ_MAX
        row = work.first("verify.next_owner", after_entry_no=after)
        owner = row.owner_no if row is not None else None
        if owner is not None:
            yield owner


def _recreate_session(work: Workspace, session_no: int, why: str) -> bool:
    """Create the row of a lost session. Its entries, if any, tell the rest later.

    Return False if the number cannot be a session's.
    """
    if not 1 <= session_no <= SESSION_NO_MAX:
        return False
    if work.first("salvage.session", session_no=session_no) is not None:
        return True
    header = work.first("salvage.header", entry_no=session_no << SEQ_BITS)
    fields = decode_object(header.payload) if header is not None else {}
    known_id, version = fields.get("id"), fields.get("version")
    if session_no in work.lost_sessions:
        known_id = work.lost_sessions[session_no]
    session_id = (
        known_id
        if isinstance(known_id, str) and 0 < len(known_id) <= 255
        else f"salvaged-{session_no}"
    )
    if work.first("salvage.taken", session_id=session_id) is not None:
        session_id = f"salvaged-{session_no}"
    version = version if isinstance(version, int) and 1 <= version <= 4 else 3
    at_ms = header.appended_at_ms if header is not None else work.now_ms
    work.change(
        "make_session",
        session_no=session_no,
        session_id=session_id,
        version=version,
        at_ms=at_ms,
        formats=registry.formats_in_header(fields) or formats.ANY,
    )
    work.table("session").created += 1
    work.recreated_sessions.add(session_no)
    work.note_loss(
        f"the row of session number {session_no} is lost. "
        f"It is created again as {session_id} for its {why}"
    )
    return True


def _return_to_its_turn(work: Workspace, row: Row) -> None:
    """Put a message that names a wrong session back into the one in which a turn worked on it.

    Elsewhere it would be answered again, without its context. If the session that it names is
    there, its entry has to confirm the turn's.
    """
    session_no = row.turn_session_no
    if row.turn_inbox_no != row.inbox_no or session_no == row.session_no:
        return
    confirmed = row.entry_no is not None and row.entry_no >> SEQ_BITS == session_no
    if (row.found_session_no is not None and not confirmed) or (
        work.first("salvage.session", session_no=session_no) is None
    ):
        return
    work.change("return_inbox", inbox_no=row.inbox_no, session_no=session_no)
    work.note_loss(
        f"message {row.inbox_no} named session number {row.session_no}. "
        f"It is in number {session_no} again, in which turn {row.turn_no} worked on it"
    )


def _move_to_catch_all(work: Workspace, table: str, number: int, session_no: int) -> None:
    """Move a message or a reply to another session: its own number cannot be a session's."""
    if work.catch_all_no is None:
        last_no = work.one("verify.last_session").session_no
        work.catch_all_no = last_no + 1 if last_no < SESSION_NO_MAX else last_no
        _recreate_session(work, work.catch_all_no, "messages and replies without a session")
    work.change(f"move_{table}", number=number, session_no=work.catch_all_no)
    work.note_loss(
        f"row {number} of {table} named session number {session_no}, which cannot exist. "
        f"It is in session number {work.catch_all_no} now"
    )


def _recreate_lane(work: Workspace, lane: str) -> None:
    if work.change("make_lane", lane=lane):
        work.table("lane").created += 1
        work.note_loss(
            f"the settings of lane {lane!r} are lost. "
            "It runs one turn at a time now (see db.set_lane())"
        )


def _recreate_instance(work: Workspace, instance_no: int) -> None:
    if work.change(
        "make_instance", instance_no=instance_no, host=socket.gethostname(), now_ms=work.now_ms
    ):
        work.table("instance").created += 1


def _mend_turn(work: Workspace, row: Row) -> None:
    if row.found_session_no is None:
        work.change("drop_turn", turn_no=row.turn_no)
        work.table("turn").left_out += 1
        work.note_loss(
            f"turn {row.turn_no} was left out: "
            f"nothing else is left of its session, number {row.session_no}"
        )
        return
    if row.found_lane is None:
        _recreate_lane(work, row.lane)
    if row.found_instance_no is None:
        _recreate_instance(work, row.instance_no)
    if row.expires_at_ms > row.deadline_ms:
        work.change("set_turn_lease", turn_no=row.turn_no)


def _drop_orphans(work: Workspace) -> None:
    """Drop rows whose session or receipt is lost, and could not be created again."""
    for row in work.pages("bindings", "session_key", ""):
        if row.found_session_no is None:
            work.change("drop_binding", session_key=row.session_key)
            work.table("binding").left_out += 1
            work.note_loss(
                f"key {row.session_key} was bound to session number {row.session_no}, "
                "of which nothing is left"
            )
    for row in work.pages("foreign_ids", "session_no"):
        if row.found_session_no is None:
            work.change("drop_foreign_id", session_no=row.session_no)
            work.table("foreign_id").left_out += 1
            work.note_loss(
                f"the external id {row.external_id!r} of namespace {row.namespace!r} named session "
                f"number {row.session_no}, of which nothing is left"
            )
    for row in work.pages("details", "session_no"):
        if row.found_session_no is None:
            work.change("drop_details", session_no=row.session_no)
            work.table("session_details").left_out += 1
            work.note_loss(
                f"the details of session number {row.session_no} were left out: "
                "nothing else is left of it"
            )
    for row in work.pages("branches", "branch_no"):
        if row.found_session_no is None:
            work.change("drop_branches", session_no=row.session_no)
            work.table("branch").left_out += 1
    for row in work.owners("next_epoch_owner", "session_no"):
        if row.found_session_no is None:
            work.change("drop_epochs", session_no=row.session_no)
            work.table("epoch").left_out += 1
            work.note_loss(
                f"epochs of session number {row.session_no} were left out: "
                "nothing else is left of it"
            )
    for row in work.pages("compactions", "compaction_no"):
        if row.found_session_no is None:
            work.change("forget_job", compaction_no=row.compaction_no)
            work.table("compaction").left_out += 1
            work.note_loss(
                f"compaction {row.compaction_no} was left out: nothing else is left of its session"
            )
        elif row.instance_no is not None and row.found_instance_no is None:
            work.change("set_compaction", compaction_no=row.compaction_no)
    for row in work.owners("next_quarantined", "import_file_no"):
        if row.found_import_file_no is None:
            work.table("quarantine").left_out += work.change(
                "drop_quarantine", import_file_no=row.import_file_no
            )
            work.note_loss(
                f"quarantined lines of import {row.import_file_no} were left out: "
                "its receipt is lost"
            )


# -- states


def settle_states(work: Workspace) -> None:
    """Give each message, turn, reply and receipt a state that agrees with the other rows."""
    for row in work.pages("archives", "archive_no"):
        if row.found_session_no is None:
            archives.drop_archive(work, row.archive_no)
    for row in work.pages("inbox", "inbox_no"):
        _settle_message(work, row)
    for row in work.pages("turns", "turn_no"):
        has_message = (
            row.found_inbox_no is not None
            and row.inbox_turn_no == row.turn_no
            and row.inbox_state == "claimed"
        )
        if row.state == "running" and not has_message:
            work.change(
                "interrupt_turn",
                turn_no=row.turn_no,
                reason="salvaged: its message is lost or was settled",
            )
            work.note_loss(
                f"turn {row.turn_no} was running. Its message is lost, so it is interrupted now"
            )
        if row.inbox_session_no not in (None, row.session_no):
            work.change("forget_message", turn_no=row.turn_no)
            work.note_loss(
                f"turn {row.turn_no} worked on message {row.inbox_no}, which is one of another "
                "session. Its own message is not known any more"
            )
    _settle_ends(work)
    work.write(inbox.line_up_all)
    for row in work.pages("outbox", "outbox_no"):
        _settle_reply(work, row)
    work.write(outbox.line_up_all)
    for row in work.pages("events", "event_no"):
        if row.session_no is not None and row.found_session_no is None:
            work.change("set_event", event_no=row.event_no)
    for row in work.pages("import_files", "import_file_no"):
        _settle_receipt(work, row)
    for row in work.pages("import_files", "import_file_no"):
        if _is_changed(work, row):
            # No hash says what is left, so nothing takes it for the whole file.
            work.change(
                "forget_hash",
                import_file_no=row.import_file_no,
                session_no=row.session_no,
                note=_PART_IS_LOST,
            )
            work.note_loss(f"import {row.import_file_no}: an export cannot write it as it was")


def _settle_message(work: Workspace, row: Row) -> None:
    state, turn_no, entry_no = row.state, row.turn_no, row.entry_no
    own_turn = (
        row.found_turn_no is not None
        and row.turn_inbox_no == row.inbox_no
        and row.turn_session_no == row.session_no
    )
    if turn_no is not None and not own_turn:
        turn_no = None
    in_entry = row.found_type == "message" and bool(row.is_own or not row.has_text)
    lost = row.archived_at_ms is None and not in_entry
    if entry_no is not None and (lost or entry_no >> SEQ_BITS != row.session_no):
        entry_no = None
    running = own_turn and row.turn_state == "running"
    if state == "claimed" and not running:
        state = "interrupted"
    if state in ("claimed", "interrupted") and (entry_no is None or row.attempts < 1):
        state, turn_no = "queued", None
    if running and state != "claimed":
        work.change(
            "interrupt_turn", turn_no=row.turn_no, reason="salvaged: its message was settled"
        )
    is_usable = row.is_json if row.has_text else in_entry
    unusable = not is_usable and state in ("queued", "claimed", "interrupted")
    if unusable:
        state, turn_no = "queued", None
    if state == "heard" and not is_usable:
        state = "done"
    if state == "heard":
        entry_no = None
    twice = row.has_text and in_entry and entry_no is not None
    if twice or (state, turn_no, entry_no) != (row.state, row.turn_no, row.entry_no):
        work.change(
            "set_inbox",
            inbox_no=row.inbox_no,
            state=state,
            turn_no=turn_no,
            entry_no=entry_no,
            reason="salvaged",
        )
    if unusable:
        # No turn can run on it. A dead message is shown to a person, who can still read it.
        state = "dead"
        work.write(
            dead_letters.dead_letter,
            row.inbox_no,
            row.session_no,
            f"salvaged: its text is {'damaged' if row.has_text else 'lost'}",
        )
    if (state, turn_no, entry_no) != (row.state, row.turn_no, row.entry_no):
        work.note_loss(
            f"message {row.inbox_no} was {row.state}. "
            f"With the rest of its turn and its entry, it is {state} now"
        )


def _settle_ends(work: Workspace) -> None:
    after_no = FIRST_NUMBER - 1
    while rows := work.all("verify.inbox", after_no=after_no, limit=BATCH_ROWS):
        for row in rows:
            _settle_end(work, row)
        after_no = rows[-1].inbox_no


def _settle_end(work: Workspace, row: Row) -> None:
    """Keep what `verify` accepts of how a message ended. 0 says that it is not known any more.

    The rest of its story may be lost: the entries, the turn, or the session that it was in.
    """
    told_no, other_no = row.told_no, row.superseded_by
    if row.state in dead_letters.OPEN or row.heard:
        told_no = other_no = None
    else:
        is_answered = row.state == "done" and row.turn_state == "completed"
        if verify_inbox.fault_of_event(row) or (told_no is None and not is_answered):
            told_no = 0
        if work.target.read(lambda tx: verify_inbox.fault_of_successor(tx, row)):
            other_no = 0
        if row.state == "dead":
            other_no = None
    if (told_no, other_no) == (row.told_no, row.superseded_by):
        return
    if row.state == "dead":
        told_no = work.write(dead_letters.notify_dead, row.inbox_no, row.session_no)
    work.change("set_end", inbox_no=row.inbox_no, told_no=told_no, superseded_by=other_no)


def _settle_reply(work: Workspace, row: Row) -> None:
    if row.found_session_no is None:
        return  # its number cannot be a session's: `verify` reports it
    before = (row.state, row.turn_no, row.instance_no, row.finished_at_ms)
    state, turn_no, instance_no, finished = before
    if turn_no is not None and (
        row.turn_state != "completed" or row.turn_session_no != row.session_no
    ):
        turn_no = None
    if instance_no is not None and row.found_instance_no is None:
        instance_no = None
    if state == "sending" and (instance_no is None or row.expires_at_ms is None):
        state = "unknown"  # it may have been sent, so it is shown to a person and not sent again
    if state in ("pending", "sending"):
        finished = None
    elif finished is None:
        finished = row.created_at_ms
    if (state, turn_no, instance_no, finished) != before:
        work.change(
            "set_outbox",
            outbox_no=row.outbox_no,
            state=state,
            turn_no=turn_no,
            instance_no=instance_no,
            finished_at_ms=finished,
            reason="salvaged",
        )
        work.note_loss(
            f"reply {row.outbox_no} was {row.state}. "
            f"With the rest of its turn and its sender, it is {state} now"
        )


def _settle_receipt(work: Workspace, row: Row) -> None:
    session_no = row.session_no if row.found_session_no is not None else None
    lines = max(row.lines, row.last_line or 0)
    entries = (
        min(row.entries, row.session_last_seq) if row.session_last_seq is not None else row.entries
    )
    if (session_no, lines, entries, row.found_quarantined) == (
        row.session_no,
        row.lines,
        row.entries,
        row.quarantined,
    ):
        return
    work.change(
        "set_import_file",
        import_file_no=row.import_file_no,
        session_no=session_no,
        lines=lines,
        entries=entries,
        quarantined=row.found_quarantined,
        note=_PART_IS_LOST,
    )
    work.note_loss(
        f"import {row.import_file_no}: "
        f"of {row.quarantined} quarantined lines {row.found_quarantined} are left"
    )


def _is_changed(work: Workspace, row: Row) -> bool:
    """Tell whether an export would write something else than what was imported."""
    findings = SessionFindings()
    walk: IndexWalk | ReceiptWalk
    if work.first("verify.index", import_file_no=row.import_file_no) is not None:
        walk = IndexWalk(row.import_file_no, findings)
    elif row.import_file_no == row.first_import_file_no:
        walk = ReceiptWalk(row.session_no, row.import_file_no, findings)
    else:
        return False
    work.verify(walk.steps())
    return bool(findings.found)


# -- numbers


def raise_numbers(work: Workspace) -> None:
    """Never assign again a number that was assigned.

    A restored archive brings its branches' numbers back, so those count, too.
    """
    if "branch" not in work.sequences:
        for row in work.pages("archives", "archive_no"):
            archives.note_archived_branches(work, row.archive_no)
    for table in NUMBERED:
        work.target.raise_sequence(table, work.numbers[table])

"""The registry: sessions, the keys bound to them, reset and fork.

A session is created with its header (seq 0) and epoch 0 in one transaction. A binding only points:
binding a key to another session, or forking one, copies nothing and ends nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sessiondb import clock, events
from sessiondb.backend import ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import InvalidInput, InvalidKey, NotFound
from sessiondb.json_text import dumps, loads, stored_text
from sessiondb.limits import SESSION_ID_CHARS_MAX, SESSION_KEY_CHARS_MAX
from sessiondb.models import ANY_HEAD, EntryRef, ExpectedHead, SessionInfo

from . import formats
from .append import (
    attach,
    boundary_in_force,
    count_context,
    find_entry,
    insert_control_record,
    kept_by,
    move_head,
    require_head,
    require_named,
)
from .entries import NATIVE_VERSION, Draft, new_id
from .keys import SessionKey, looks_like_key, may_name, parse_key
from .paths import entry_number, on_path, require_entries, require_readable
from .state import State, agreed_formats, load_state, no_entry, no_session, require_live, save_state

if TYPE_CHECKING:
    from sessiondb import statements

_Ending = Literal["ended", "archived", "deleted"]
RESET_REASONS = ("new", "reset", "idle", "daily", "cron-stale")


class SessionRef(NamedTuple):
    """A session's number and id."""

    session_no: int
    session_id: str


# -- finding ---------------------------------------------------------------------------


def by_id(tx: ReadTx, session_id: str) -> SessionRef:
    """Return the session with exactly this id.

    Raises:
        NotFound: there is none.
    """
    found = _with_id(tx, session_id)
    if found is None:
        raise NotFound(
            f"no session has the id {session_id[:SESSION_ID_CHARS_MAX]!r}; "
            "list them with `sessiondb sessions DB --all`",
            session_id=session_id,
        )
    return found


def by_key_or_id(tx: ReadTx, text: str) -> SessionRef | None:
    """Return the session that a key is bound to, or that has this id, or None. No prefix matches.

    An id that a program chose has no colon, so no text is both. Of an imported id that is a key,
    too, the key counts.
    """
    key = _key_or_none(text)
    bound = find(tx, key) if key is not None else None
    return (
        SessionRef(bound.session_no, bound.session_id) if bound is not None else _with_id(tx, text)
    )


def named(tx: ReadTx, text: str) -> SessionRef:
    """Return what `by_key_or_id` does.

    Raises:
        NotFound: there is none.
    """
    found = by_key_or_id(tx, text)
    if found is None:
        missing = "is bound to a session" if looks_like_key(text) else "is the id of a session"
        raise NotFound(
            f"no key and no id {text[:SESSION_KEY_CHARS_MAX]!r} {missing}; "
            "list them with `sessiondb sessions DB --all`",
            session=text,
        )
    return found


def _with_id(tx: ReadTx, session_id: str) -> SessionRef | None:
    if not isinstance(session_id, str):
        raise InvalidInput(f"a session id is a text, not {type(session_id).__name__}")
    row = tx.first("registry.by_id", session_id=session_id)
    return SessionRef(row.session_no, row.session_id) if row is not None else None


def unbound(key: SessionKey) -> NotFound:
    """Return the error for a key that no session is bound to."""
    return NotFound(
        f"no session is bound to the key {key.text}; list the sessions and their keys with "
        "`sessiondb sessions DB --all`",
        key=key.text,
    )


def find(tx: ReadTx, key: SessionKey) -> statements.RegistryByKey | None:
    """Return the session that a key is bound to, or None.

    An imported key may have lost the case of its id. It is `key` if it is so in lower case, and
    if its row of the index has no address that says otherwise. `take_over` settles it.
    """
    bound = tx.first("registry.by_key", session_key=key.text)
    if bound is not None or key.text == key.lowered:
        return bound
    bound = tx.first("registry.by_key", session_key=key.lowered)
    return bound if bound is not None and _is_spelled_as(bound, key) else None


@stored_text()
def _is_spelled_as(bound: statements.RegistryByKey, key: SessionKey) -> bool:
    return bound.details is not None and may_name(bound.details, key)


def take_over(tx: Tx, key: SessionKey) -> statements.RegistryByKey | None:
    """Return what `find` does. A key that had lost its case has it from now on.

    So the next conversation with the same letters in another case is one of its own.
    """
    bound = find(tx, key)
    if bound is not None and bound.session_key != key.text:
        tx.run("registry.spell", session_key=key.text, lowered=bound.session_key)
    return bound


def _key_or_none(text: str) -> SessionKey | None:
    try:
        return parse_key(text)
    except InvalidKey:
        return None  # nothing is bound to it, so the search continues by id


def info(tx: ReadTx, session_no: int) -> SessionInfo:
    """Describe one session.

    Raises:
        NotFound: no such session.
    """
    row = tx.first("registry.info", session_no=session_no)
    if row is None:
        raise no_session(session_no)
    return described(row)


def described(row: statements.RegistryInfo) -> SessionInfo:
    """Return what a row says of its session."""
    return SessionInfo(
        session_id=row.session_id,
        keys=tuple(json.loads(row.keys)),
        agent_id=row.agent_id,
        origin=row.origin,
        version=row.version,
        format=formats.known(row.formats),
        name=row.name,
        entries=row.last_seq,
        epoch=row.epoch,
        compactions=row.compactions,
        context_tokens=row.context_tokens,
        tokens_fresh=bool(row.tokens_fresh),
        created_at_ms=row.created_at_ms,
        updated_at_ms=row.updated_at_ms,
        ended_at_ms=row.ended_at_ms,
        forked_from=row.forked_from,
        pinned_at_ms=row.pinned_at_ms,
        archived_at_ms=row.archived_at_ms,
        namespace=row.namespace,
        external_id=row.external_id,
        details=_details(row.details),
        details_revision=row.details_revision or 0,
    )


@stored_text()
def _details(document: str | None) -> dict[str, Any]:
    return {} if document is None else loads(document)


# -- making ----------------------------------------------------------------------------


def new_session_id() -> str:
    """Return a fresh session id."""
    return clock.new_uuid()


def check_session_id(session_id: str) -> str:
    """Return a session id that can be stored and found again.

    Raises:
        InvalidInput: empty, too long, or with a colon (that would be a key) or a control character.
    """
    if not isinstance(session_id, str):
        raise InvalidInput(f"a session id is a text, not {type(session_id).__name__}")
    if (
        not session_id
        or len(session_id) > SESSION_ID_CHARS_MAX
        or looks_like_key(session_id)
        or any(ord(c) < 0x20 for c in session_id)
    ):
        raise InvalidInput(
            f"{session_id[:80]!r} cannot be a session id: 1 to {SESSION_ID_CHARS_MAX} characters, "
            "no colon, no control character"
        )
    return session_id


def open_by_key(
    tx: Tx,
    key: SessionKey,
    *,
    session_id: str | None,
    cwd: str | None,
    may_be: int = formats.ANY,
    asked: str = "its caller",
) -> SessionRef:
    """Return the session that a key is bound to, or create and bind one. May be repeated.

    `may_be` are the message formats of `asked`, and from here on those of the session. Without a
    `session_id` none is created.

    Raises:
        NotFound: the key is not bound, and no session is to be created.
        InvalidInput: its items have none of the message formats of `may_be`.
    """
    row = take_over(tx, key)
    if row is not None:
        if row.formats & may_be != row.formats:
            agree(tx, row.session_no, may_be, asked)
        return SessionRef(row.session_no, row.session_id)
    if session_id is None:
        raise unbound(key)
    ref = create(tx, session_id, agent_id=key.agent_id, cwd=cwd, may_be=may_be)
    bind(tx, key, ref.session_no)
    return ref


def agree(tx: Tx, session_no: int, may_be: int, asked: str) -> None:
    """Let a session have only those of its message formats that `asked` may have, too.

    Raises:
        InvalidInput: none is left.
    """
    row = tx.one("context.pointers", session_no=session_no)
    agreed = agreed_formats(row.session_id, row.formats, may_be, asked)
    if agreed != row.formats:
        tx.run("registry.set_formats", session_no=session_no, formats=agreed)


def create(
    tx: Tx,
    session_id: str,
    *,
    agent_id: str | None = None,
    cwd: str | None = None,
    may_be: int = formats.ANY,
) -> SessionRef:
    """Create an empty session with its header. `may_be` are its message formats.

    Raises:
        InvalidInput: the id is taken.
    """
    session_no = insert(
        tx, session_id, origin="native", version=NATIVE_VERSION, agent_id=agent_id, may_be=may_be
    )
    _write_header(tx, session_no, session_id, cwd=cwd, parent_session=None, may_be=may_be)
    return SessionRef(session_no, session_id)


def insert(
    tx: Tx,
    session_id: str,
    *,
    origin: str,
    version: int,
    agent_id: str | None,
    may_be: int,
    start: State | None = None,
    forked_from_no: int | None = None,
) -> int:
    """Insert a session's row and its epoch 0, with `start` at that place of another's path.

    `may_be` are the message formats that its items may have.

    Raises:
        InvalidInput: the id is taken.
    """
    if tx.first("registry.by_id", session_id=session_id) is not None:
        raise InvalidInput(f"there is already a session {session_id}", session_id=session_id)
    row = tx.one(
        "registry.insert",
        session_id=session_id,
        agent_id=agent_id,
        origin=origin,
        version=version,
        now_ms=tx.stamp_ms,
        head_no=start.head_no if start else None,
        boundary_no=start.boundary_no if start else None,
        first_kept_no=start.first_kept_no if start else None,
        context_tokens=start.context_tokens if start else 0,
        tokens_fresh=start.tokens_fresh if start else 0,
        forked_from_no=forked_from_no,
        forked_at_no=start.head_no if start else None,
        forked_epoch=start.epoch if start else None,
        formats=may_be,
        ordered_from_no=start.ordered_from_no if start else 0,
        open_marks=start.open_marks if start else "",
        asked_no=start.asked_no if start else 0,
    )
    tx.run(
        "transcript.open_epoch",
        session_no=row.session_no,
        epoch=0,
        reason="fork" if start else "start",
        now_ms=tx.stamp_ms,
        boundary_no=start.boundary_no if start else None,
        first_kept_no=start.first_kept_no if start else None,
    )
    return int(row.session_no)


def bind(tx: Tx, key: SessionKey, session_no: int) -> None:
    """Point a key at a session. The session that it pointed at stays as it is. May be repeated.

    Raises:
        SessionArchived: the entries are in an archive, and then no key may point at the session.
    """
    take_over(tx, key)
    bind_imported(tx, key, session_no, None)


def bind_imported(tx: Tx, key: SessionKey, session_no: int, details: str | None) -> None:
    """As `bind`, for a key as it stands in an index, with its row. It takes no other key over."""
    require_readable(tx, session_no)
    tx.run(
        "registry.bind",
        session_key=key.text,
        session_no=session_no,
        agent_id=key.agent_id,
        now_ms=tx.stamp_ms,
        details=details,
    )


def unbind(tx: Tx, key: SessionKey) -> bool:
    """Forget a key. False if it was not bound."""
    take_over(tx, key)
    return tx.run("registry.unbind", session_key=key.text) == 1


def end(tx: Tx, session_no: int, *, why: _Ending = "ended") -> bool:
    """End a session: it accepts no append. False if it had ended.

    Its running compaction, if any, will be superseded.
    """
    if tx.run("registry.end", session_no=session_no, now_ms=tx.stamp_ms) == 0:
        return False
    tell_ended(tx, session_no, tx.one("context.pointers", session_no=session_no).session_id, why)
    return True


def tell_ended(tx: Tx, session_no: int, session_id: str, why: _Ending) -> None:
    """Record that a session has ended, in the transaction that ends it."""
    events.emit(
        tx,
        "session_ended",
        "operator",
        f"Session {session_id} {'has' if why == 'ended' else 'is ' + why + ', and has'} ended",
        session_no=session_no,
        why=why,
    )


def end_imported(tx: Tx, session_no: int) -> None:
    """As `end`, for a transcript that its own program had ended: that is no news."""
    tx.run("registry.end_imported", session_no=session_no)


def reopen_imported(tx: Tx, session_no: int) -> None:
    """Undo `end_imported`, for a transcript that its own program has restored."""
    tx.run("registry.reopen_imported", session_no=session_no)


def pin(tx: Tx, session_no: int) -> None:
    """Exempt a session from retention. May be repeated."""
    tx.run("registry.pin", session_no=session_no, now_ms=tx.stamp_ms)


def unpin(tx: Tx, session_no: int) -> None:
    """Subject a session to retention again. May be repeated."""
    tx.run("registry.unpin", session_no=session_no)


def _write_header(
    tx: Tx,
    session_no: int,
    session_id: str,
    *,
    cwd: str | None,
    parent_session: str | None,
    may_be: int,
) -> None:
    fields = {
        "type": "session",
        "version": NATIVE_VERSION,
        "id": session_id,
        "timestamp": iso_from_ms(tx.stamp_ms),
        "cwd": cwd or "",
        **({"parentSession": parent_session} if parent_session is not None else {}),
        **header_fields(may_be),
    }
    header = Draft(type="session", before=dumps(fields), entry_id=session_id)
    insert_control_record(tx, header, entry_number(session_no, 0))


FORMAT_FIELD = "sessiondbFormat"
"""The field of a header that names the message format. A header without it is pi's."""


def header_fields(may_be: int) -> dict[str, str]:
    """Return what a header says of the message format. Of pi, nothing: its programs read it."""
    name = formats.known(may_be)
    return {} if name is None or name == "pi" else {FORMAT_FIELD: name}


def formats_in_header(fields: dict[str, Any]) -> int | None:
    """Return the message formats that a header names. None: it names none that is known."""
    name = fields.get(FORMAT_FIELD)
    return next((each.bit for each in formats.FORMATS if each.name == name), None)


# -- moving ----------------------------------------------------------------------------


def check_reset_reason(reason: str) -> None:
    """Raise InvalidInput unless `reason` is one that transcripts know."""
    if reason not in RESET_REASONS:
        raise InvalidInput(
            f"{reason!r} is not a reason for a reset; one of {', '.join(RESET_REASONS)}"
        )


def reset(tx: Tx, session_no: int, *, reason: str, keep_from: str | None, timestamp: str) -> int:
    """Begin the context anew, in the same session, with a `reset` entry. Return the new epoch.

    With `keep_from`, the user, assistant and answered tool messages from that entry on stay in the
    context.

    Raises:
        NotFound: `keep_from` is not on the current path.
        SessionEnded: the session has ended. Fork it to continue.
    """
    state = live_state(tx, session_no)
    first_kept_no = None
    if keep_from is not None:
        kept_entry = find_entry(tx, state, keep_from)
        if (
            kept_entry is None
            or kept_entry.branch_no is None
            or state.head_no is None
            or not on_path(tx, kept_entry, state.head_no)
        ):
            raise no_entry(state.session_id, keep_from, " on its current path to keep from")
        first_kept_no = kept_entry.entry_no
    entry_id = new_id()
    kept = f',"firstKeptEntryId":{dumps(keep_from)}' if keep_from is not None else ""
    draft = Draft(
        type="reset",
        before=f'{{"type":"reset","id":"{entry_id}","parentId":',
        after=f',"timestamp":"{timestamp}","reason":{dumps(reason)}{kept}}}',
        follows_head=True,
        entry_id=entry_id,
    )
    attach(tx, state, draft, begins_context=True, first_kept_no=first_kept_no)
    save_state(tx, state)
    events.emit(
        tx,
        "session_reset",
        "operator",
        f"Session {state.session_id} began a new context: {reason}",
        session_no=session_no,
        reason=reason,
        epoch=state.epoch,
    )
    return state.epoch


def branch(
    tx: Tx,
    session_no: int,
    named: EntryRef | None,
    timestamp: str,
    *,
    expect_head: ExpectedHead = ANY_HEAD,
) -> int:
    """Make another entry the head. Return the epoch.

    The context begins where it began for that entry.

    Raises:
        NotFound: no such entry.
        HeadMoved: the head is not `expect_head`.
        SessionEnded: the session has ended. Fork it to continue.
    """
    state = live_state(tx, session_no)
    require_head(tx, state, expect_head)
    target = require_named(tx, state, named) if named is not None else None
    move_head(tx, state, target, timestamp)
    save_state(tx, state)
    return state.epoch


def fork(
    tx: Tx,
    session_no: int,
    *,
    session_id: str,
    entry: EntryRef | None,
    epoch: int | None,
    key: SessionKey | None,
    cwd: str | None,
) -> SessionRef:
    """Create a session that continues from an entry, or from the end of an epoch, of another.

    Without either it continues from the current head. Copies no entry. The new session's key, if
    given, is bound to it.

    Raises:
        NotFound: no such entry or epoch.
        InvalidInput: the id is taken.
    """
    source = load_state(tx, session_no)
    require_entries(source.session_id, source.archived_at_ms)
    start = _state_at(tx, source, entry, epoch)
    agent_id = key.agent_id if key is not None else info(tx, session_no).agent_id
    forked_no = insert(
        tx,
        session_id,
        origin="fork",
        version=NATIVE_VERSION,
        agent_id=agent_id,
        may_be=source.formats,
        start=start,
        forked_from_no=session_no,
    )
    _write_header(
        tx,
        forked_no,
        session_id,
        cwd=cwd,
        parent_session=source.session_id,
        may_be=source.formats,
    )
    if key is not None:
        bind(tx, key, forked_no)
    return SessionRef(forked_no, session_id)


def _state_at(tx: ReadTx, source: State, named: EntryRef | None, epoch: int | None) -> State:
    """Return a state whose pointers are those of an entry or of the end of an epoch."""
    start = source
    if named is not None or (epoch is not None and epoch != source.epoch):
        start.ordered_from_no = start.open_marks = start.asked_no = None
    if named is not None:
        entry = require_named(tx, source, named, " to fork at")
        start.head_no, start.tokens_total = entry.entry_no, entry.tokens_total
        start.model_no = entry.model_no
        start.boundary_no = boundary_in_force(tx, source, entry)
        start.first_kept_no = kept_by(tx, start.boundary_no)
    elif epoch is not None and epoch != source.epoch:
        past = tx.first("transcript.epoch", session_no=source.session_no, epoch=epoch)
        if past is None:
            raise NotFound(
                f"session {source.session_id} has no epoch {epoch}; "
                f"its current epoch is {source.epoch}",
                session_id=source.session_id,
            )
        head = (
            tx.first("transcript.by_no", entry_no=past.closed_head_no)
            if past.closed_head_no is not None
            else None
        )
        start.head_no, start.epoch = past.closed_head_no, epoch
        start.boundary_no, start.first_kept_no = past.boundary_no, past.first_kept_no
        start.tokens_total = head.tokens_total if head is not None else 0
        start.model_no = head.model_no if head is not None else None
    start.context_tokens, start.tokens_fresh = count_context(tx, start)
    return start


def live_state(tx: ReadTx, session_no: int) -> State:
    """Read the state of a session that is to be continued.

    Raises:
        NotFound: no such session.
        SessionEnded: it has ended. As SessionArchived if its entries are in an archive.
    """
    state = load_state(tx, session_no)
    require_live(state)
    return state

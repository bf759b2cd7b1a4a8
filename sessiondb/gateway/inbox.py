"""The inbox: an accepted message is a row, whatever happens next.

    queued --> claimed                        a turn began with it
    claimed --> done                          its turn was completed, or a person stopped it
    claimed --> queued                        its turn failed. It is tried again, after a pause
    claimed --> interrupted                   its turn was. The resume plan decides
    interrupted --> queued                    by the plan, in lane resume
    queued --> interrupted                    it came from a backup. A person decides
    queued | interrupted --> done             superseded: the turn of a newer one answered it.
                                              Or withdrawn: its sender took it back
    queued | claimed | interrupted --> dead   it is given up. An operator decides
    dead --> queued | done                    by an operator
    heard --> done                            it is not for the agent: appended (`heard.py`)

An adapter calls `accept` before it acknowledges a message to its channel. The same
(channel, event_id) again gets the first receipt, so a channel may deliver as often as
it likes. The same id from another conversation, or with another text, is an error: some
channels number their messages per conversation, and a message must not pass for another
one. `edit` is the verb for a message whose sender changed its text. When a session or a
lane is full, the adapter gets an error with a time to retry. It can NACK instead of
dropping the message.

A text is in one place. The row has it until a turn claims the message, and from then on the
entry that it became. So no later state writes it again.

Order: one message of a session at a time. A message waits only for older messages of its
session in lanes at or before its own, so nobody waits for a lane that goes behind theirs. One
that waits for its retry holds up those that wait for it. A resume is the exception. Newer
messages of its session go first, too. If a person sent both, and the newer one's context had
the interrupted one, the answer is for both: the interrupted one is superseded, with an event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from sessiondb import events
from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import (
    IdentityConflict,
    InvalidInput,
    NotFound,
    SessionBusy,
    SessionEnded,
)
from sessiondb.json_text import dumps
from sessiondb.limits import (
    AHEAD_MAX,
    HEARD_BYTES_MAX,
    HEARD_WAITING_MAX,
    LANE_WAITING_MAX,
    OUTBOX_WAITING_MAX,
    PACE_TURNS,
    RETRY_AFTER_MS_MIN,
    RETRY_PAUSE_MS,
    SESSION_KEY_CHARS_MAX,
    SESSION_WAITING_MAX,
)
from sessiondb.messages import message_json
from sessiondb.models import Accepted, DeadLetter, Edited, OpenMessage
from sessiondb.transcript import registry
from sessiondb.transcript.content import digest
from sessiondb.transcript.entries import draft_decoded, formats_of, is_large, off_loop
from sessiondb.transcript.formats import ANY, is_item
from sessiondb.transcript.keys import SessionKey, parse_key

from . import changes, channels, lanes
from .details import decoded_details, encoded_details

if TYPE_CHECKING:
    from sessiondb import statements


class HeardFull(Exception):
    """A session has heard as much as may wait. What waits is to be appended before more."""

    def __init__(self, session_no: int) -> None:
        super().__init__(f"session number {session_no} has heard as much as may wait")
        self.session_no = session_no


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message on its way in, checked and encoded."""

    channel: str
    event_id: str
    key: SessionKey
    lane: str
    payload: str
    digest: str
    session_id: str  # for a session that does not exist yet
    details: str | None = None
    edit_of: int | None = None
    by_person: bool | None = None  # as the lane's messages are
    heard: bool = False  # it is not for the agent
    formats: int = ANY  # the message formats that it may have


async def prepare_incoming(
    channel: str,
    event_id: str,
    key: str,
    message: dict[str, Any] | BaseModel | str,
    lane: str,
    by_person: bool | None = None,
    details: Mapping[str, Any] | None = None,
    *,
    answer: bool = True,
) -> Incoming:
    """Check and encode a message on its way in, off the event loop when it is large.

    Raises:
        InvalidInput: not a message, or the channel or the event id (which some channels
            number) is not a text that fits, or the details are no JSON object that fits.
        InvalidKey: outside the grammar `agent:<agentId>:<rest>`.
    """
    text, said, may_be = (
        await off_loop(partial(_encoded, message)) if is_large(message) else _encoded(message)
    )
    _check_text("channel", channel)
    _check_text("event_id", event_id)
    return Incoming(
        channel,
        event_id,
        parse_key(key),
        lane,
        text,
        said,
        registry.new_session_id(),
        details=encoded_details(details) if details is not None else None,
        by_person=by_person,
        heard=not answer,
        formats=may_be,
    )


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not 0 < len(value) <= SESSION_KEY_CHARS_MAX:
        raise InvalidInput(
            f"{name} is a text of 1 to {SESSION_KEY_CHARS_MAX} characters, not {value!r:.80}"
        )


def check_version(version: object) -> int:
    """Return the version of an edit.

    Raises:
        InvalidInput: it is no number from 1 to 2^63 - 1.
    """
    if not isinstance(version, int) or isinstance(version, bool) or not 0 < version < 2**63:
        raise InvalidInput(f"the version of an edit is a number of at least 1, not {version!r:.80}")
    return version


def _encoded(message: dict[str, Any] | BaseModel | str) -> tuple[str, str, int]:
    """Encode a message for the inbox. Also return the digest of what it says, and its formats.

    Raises:
        InvalidInput: not a message with a role, or not what a transcript can store.
    """
    if not isinstance(message, dict | str | BaseModel):
        raise InvalidInput(
            f"a message is a dict, a typed message, or JSON text, not {type(message).__name__}"
        )
    item = message_json(message) if isinstance(message, BaseModel) else message
    text = dumps(item) if isinstance(item, dict) else item.strip()
    # What a transcript would refuse is refused here, while the sender can be told.
    draft, fields = draft_decoded(text, now_ms=0, formats=formats_of(message))
    if not is_item(fields) or not isinstance(fields.get("role"), str):
        raise InvalidInput(
            'a message has a "role", and no "type" but "message"; other entries are appended to '
            "their session, not accepted"
        )
    return text, digest(fields), draft.formats


def accept(tx: Tx, incoming: Incoming) -> Accepted:
    """Store a message. Durable once the transaction commits. May be repeated.

    Raises:
        IdentityConflict: the event is known, from another conversation or with another text.
        SessionBusy: too many messages of this session, or in this lane, are waiting, or too
            many replies of this channel.
        SessionEnded: the key is bound to a session that has ended, and takes no message.
        HeardFull: what the session has heard has to be appended first (`heard.make_room`).
        NotFound: no such lane.
        InvalidInput: the lane is for resumes, or the session has another message format.
    """
    known = tx.first("inbox.by_event", channel=incoming.channel, event_id=incoming.event_id)
    if known is not None:
        _refuse_other_conversation(known, incoming)
        _refuse_other_text(known, incoming)
        return Accepted(
            known.inbox_no, known.session_id, known.state, known.accepted_at_ms, 0, duplicate=True
        )
    lane = lanes.require_lane(tx, incoming.lane)
    if incoming.lane == lanes.RESUME_LANE:
        raise InvalidInput(
            f"lane {incoming.lane!r} is for interrupted messages, which the resume plan puts "
            "there: a message that is accepted there would wait behind every other, and be cut "
            "off sooner. Accept it into lane 'main', or into one made with "
            "db.set_lane()",
            lane=incoming.lane,
        )
    _refuse_when_ended(tx, incoming.key)
    ref = registry.open_by_key(
        tx,
        incoming.key,
        session_id=incoming.session_id,
        cwd=None,
        may_be=incoming.formats,
        asked="this message",
    )
    by_person = bool(lane.people) if incoming.by_person is None else incoming.by_person
    if incoming.heard:
        return _hear(tx, ref, incoming, by_person=by_person)
    ahead = _refuse_when_full(tx, ref, incoming)
    row = tx.one(
        "inbox.accept",
        channel=incoming.channel,
        event_id=incoming.event_id,
        session_no=ref.session_no,
        session_key=incoming.key.text,
        digest=incoming.digest,
        edit_of=incoming.edit_of,
        lane=incoming.lane,
        by_person=by_person,
        now_ms=tx.now_ms,
        details=incoming.details,
        payload=incoming.payload,
    )
    return Accepted(row.inbox_no, ref.session_id, "queued", tx.now_ms, ahead, duplicate=False)


def _hear(tx: Tx, ref: registry.SessionRef, incoming: Incoming, *, by_person: bool) -> Accepted:
    """Store a message that is not for the agent, in no lane's queue.

    Raises:
        HeardFull: the session has heard as much as may wait.
    """
    waiting = tx.one("inbox.heard_weight", session_no=ref.session_no, limit=HEARD_WAITING_MAX)
    if waiting.messages >= HEARD_WAITING_MAX or (
        waiting.messages and waiting.bytes + len(incoming.payload) > HEARD_BYTES_MAX
    ):
        raise HeardFull(ref.session_no)
    row = tx.one(
        "inbox.hear",
        channel=incoming.channel,
        event_id=incoming.event_id,
        session_no=ref.session_no,
        session_key=incoming.key.text,
        digest=incoming.digest,
        edit_of=incoming.edit_of,
        lane=incoming.lane,
        by_person=by_person,
        now_ms=tx.now_ms,
        details=incoming.details,
        payload=incoming.payload,
    )
    return Accepted(row.inbox_no, ref.session_id, "heard", tx.now_ms, 0, duplicate=False)


def edit(tx: Tx, incoming: Incoming, version: int) -> Edited:
    """Give an accepted message a new text, or queue that behind it. May be repeated.

    Raises:
        NotFound: there is no such message.
        IdentityConflict: it came from another conversation.
        InvalidInput: its session has another message format.
        SessionBusy, SessionEnded: the new text has to wait as a message, and cannot.
    """
    known = tx.first("inbox.by_event", channel=incoming.channel, event_id=incoming.event_id)
    if known is None:
        raise NotFound(
            f"{incoming.channel} never brought event {incoming.event_id!r}, or its row was pruned; "
            "accept the edited text as a message",
            channel=incoming.channel,
            event_id=incoming.event_id,
        )
    _refuse_other_conversation(known, incoming)
    newest = tx.one("inbox.newest_text", inbox_no=known.inbox_no)
    answering = next((row.turn_no for row in (newest, known) if row.state == "claimed"), None)
    if version <= known.edited or newest.digest == incoming.digest:
        before: Literal["replaced", "queued"] = (
            "replaced" if newest.inbox_no == known.inbox_no else "queued"
        )
        return Edited(
            newest.inbox_no,
            newest.session_id,
            before if version <= known.edited else "unchanged",
            answering,
            duplicate=version <= known.edited,
        )
    registry.agree(tx, newest.session_no, incoming.formats, "this edit")
    tx.run("inbox.note_edit", inbox_no=known.inbox_no, version=version)
    if tx.run(
        "inbox.replace_text",
        inbox_no=newest.inbox_no,
        payload=incoming.payload,
        digest=incoming.digest,
        details=incoming.details,
    ):
        return Edited(newest.inbox_no, newest.session_id, "replaced", None, duplicate=False)
    follower = replace(
        incoming,
        event_id=f"{incoming.event_id} edit {version}",
        lane=lanes.lane_of_edit(tx, known.lane_before or known.lane),
        by_person=bool(known.by_person),
        details=incoming.details or newest.details,
        heard=bool(known.heard),
        edit_of=known.inbox_no,
    )
    queued = accept(tx, follower)
    return Edited(queued.inbox_no, queued.session_id, "queued", answering, duplicate=False)


def _refuse_other_conversation(known: statements.InboxByEvent, incoming: Incoming) -> None:
    """Refuse an event whose id another conversation of the channel has used.

    Messages that were accepted before schema 4 do not say from which conversation.
    """
    if known.session_key is not None and known.session_key != incoming.key.text:
        raise IdentityConflict(
            f"{incoming.channel} brought event {incoming.event_id!r} before, from "
            f"{known.session_key} (inbox item {known.inbox_no}), and now from {incoming.key.text}. "
            "Nothing was changed; an event id must be unique in its channel: put the "
            "conversation's id in front of it",
            channel=incoming.channel,
            event_id=incoming.event_id,
            inbox_no=known.inbox_no,
            session_key=known.session_key,
        )


def _refuse_other_text(known: statements.InboxByEvent, incoming: Incoming) -> None:
    """Refuse an event that was accepted with another text.

    An edited message has had more than one, so any is taken for a repetition. Messages that
    were accepted before schema 4 have no digest.
    """
    if known.edited or known.digest is None or known.digest == incoming.digest:
        return
    raise IdentityConflict(
        f"{incoming.channel} brought event {incoming.event_id!r} before, with another text than "
        f"this one of {len(incoming.payload):,} characters (inbox item {known.inbox_no}, "
        f"{known.state}). Nothing was changed; if its sender edited the message, call db.edit()",
        channel=incoming.channel,
        event_id=incoming.event_id,
        inbox_no=known.inbox_no,
        session_key=known.session_key,
    )


def _refuse_when_ended(tx: Tx, key: SessionKey) -> None:
    bound = registry.find(tx, key)
    if bound is not None and bound.ended_at_ms is not None:
        raise SessionEnded(
            f"{key.text} is bound to session {bound.session_id}, which has ended; unbind the key, "
            "and the message begins a new one",
            session_id=bound.session_id,
        )


def _refuse_when_full(tx: Tx, ref: registry.SessionRef, incoming: Incoming) -> int:
    """Return how many messages of the session are ahead.

    Raise SessionBusy if the session has too many messages of the lane, the lane is full, or
    too many replies wait for the message's channel.
    """
    _refuse_when_outbox_full(tx, ref, incoming)
    lane = incoming.lane
    waiting = tx.one(
        "inbox.waiting_in_session", session_no=ref.session_no, lane=lane, limit=SESSION_WAITING_MAX
    ).waiting
    if waiting >= SESSION_WAITING_MAX:
        busy = tx.first("turns.running_of_session", session_no=ref.session_no)
        holder = (
            f"{busy.operation} (turn {busy.turn_no}, pid {busy.pid} on {busy.host})"
            if busy is not None
            else "no turn"
        )
        retry_after_ms = until_a_place_ms(tx, ref.session_no, lane, busy)
        raise SessionBusy(
            f"session {ref.session_id}: {waiting} messages of lane {lane} are waiting, which is "
            f"the limit; it is busy with {holder}. Not accepted; retry in {retry_after_ms} ms.",
            session_id=ref.session_id,
            holder=holder,
            retry_after_ms=retry_after_ms,
        )
    waiting = tx.one("inbox.waiting_in_lane", lane=lane, limit=LANE_WAITING_MAX).waiting
    if waiting >= LANE_WAITING_MAX:
        concurrency = lanes.require_lane(tx, lane).concurrency
        retry_after_ms = max(RETRY_AFTER_MS_MIN, _turn_ms(tx, None, lane) // concurrency)
        raise SessionBusy(
            f"lane {lane}: {waiting:,} messages are waiting, which is the limit. "
            f"Not accepted; retry in {retry_after_ms:,} ms.",
            session_id=ref.session_id,
            holder=f"lane {lane}",
            retry_after_ms=retry_after_ms,
        )
    return tx.one("inbox.ahead", session_no=ref.session_no, lane=lane, limit=AHEAD_MAX).messages


def _refuse_when_outbox_full(tx: Tx, ref: registry.SessionRef, incoming: Incoming) -> None:
    channel = channels.channel_of(incoming.channel)
    retry_after_ms = channels.full_for_ms(tx, channel, tx.now_ms)
    if retry_after_ms is not None:
        raise SessionBusy(
            f"channel {channel}: {OUTBOX_WAITING_MAX:,} replies wait to be sent, which is the "
            f"limit. Not accepted; retry in {retry_after_ms:,} ms. See `sessiondb outbox DB`.",
            session_id=ref.session_id,
            holder=f"channel {channel}",
            retry_after_ms=retry_after_ms,
        )


def until_a_place_ms(
    tx: Tx, session_no: int, lane: str, busy: statements.TurnsRunningOfSession | None
) -> int:
    """Return how long it takes until one more message of a session is done, by its own pace.

    That is what its last turns took, less what the running one has taken. A lease says only
    how long a silent process is believed.
    """
    turn_ms = _turn_ms(tx, session_no, lane)
    took_ms = tx.now_ms - busy.started_at_ms if busy is not None else 0
    left_ms = turn_ms - took_ms if 0 <= took_ms < turn_ms else turn_ms
    return max(RETRY_AFTER_MS_MIN, left_ms)


def _turn_ms(tx: Tx, session_no: int | None, lane: str) -> int:
    """Return how long a turn of a session takes, or else of its lane, by the last that ended."""
    paces = (
        tx.one("turns.pace_of_session", session_no=session_no, turns=PACE_TURNS),
        tx.one("turns.pace_of_lane", lane=lane, turns=PACE_TURNS),
    )
    return next((pace.took_ms // pace.turns for pace in paces if pace.turns), RETRY_PAUSE_MS)


def notify_delayed(tx: Tx, lane: str, *, after_ms: int, limit: int = 50) -> int:
    """Emit an event, once each, for messages that have waited longer than `after_ms`.

    Return how many. One that seems to have been accepted later than in `after_ms` has waited
    since before the clock was set back.
    """
    late = tx.all(
        "inbox.late",
        lane=lane,
        low_ms=tx.now_ms - after_ms + 1,
        high_ms=tx.now_ms + after_ms,
        limit=limit,
    )
    for row in late:
        if tx.run("inbox.mark_delayed", inbox_no=row.inbox_no):
            events.emit(
                tx,
                "message_delayed",
                "user",
                "Your message has arrived and is waiting its turn.",
                session_no=row.session_no,
                inbox_no=row.inbox_no,
                waited_ms=max(0, tx.now_ms - row.accepted_at_ms),
            )
    return len(late)


def next_notice_ms(tx: ReadTx, lane: str, now_ms: int, *, after_ms: int) -> int | None:
    """Return when the next sender has to be told that their message waits. None: nobody."""
    first = tx.first("inbox.late", lane=lane, low_ms=1, high_ms=0, limit=1)  # in no range
    if first is None:
        return None
    at_ms: int = first.accepted_at_ms + after_ms
    return at_ms if at_ms <= now_ms + 2 * after_ms else now_ms


def open_messages(
    tx: ReadTx, after_no: int | None, limit: int, *, session_no: int | None
) -> tuple[list[OpenMessage], int | None]:
    """List messages that are not done, oldest first. Of one session or of all.

    Also return the next page's cursor, None at the end.
    """
    after_no = after_no or 0
    rows: Sequence[statements.InboxOpen | statements.InboxOpenOfSession]
    if session_no is None:
        rows, more = tx.page("inbox.open", after_no=after_no, limit=limit)
    else:
        rows, more = tx.page(
            "inbox.open_of_session", session_no=session_no, after_no=after_no, limit=limit
        )
    found = [
        OpenMessage(**{**row._asdict(), "details": decoded_details(row.details)}) for row in rows
    ]
    return found, found[-1].inbox_no if more else None


def dead_letters(
    tx: ReadTx, before_no: int | None, limit: int
) -> tuple[list[DeadLetter], int | None]:
    """List messages that were given up, newest first.

    Also return the next page's cursor, None at the end.
    """
    before_no = 2**62 if before_no is None else before_no
    rows, more = tx.page("inbox.dead", before_no=before_no, limit=limit)
    letters = [
        DeadLetter(**{**row._asdict(), "details": decoded_details(row.details)}) for row in rows
    ]
    return letters, letters[-1].inbox_no if more else None


def requeue(tx: Tx, inbox_no: int) -> None:
    """Put a dead letter back into the lane that accepted it, its attempts forgotten.

    Raises:
        NotFound: there is no such dead letter.
        SessionEnded: its session has ended, so it cannot run.
    """
    dead = tx.first("inbox.notified", inbox_no=inbox_no)
    found = tx.one("inbox.candidate", inbox_no=inbox_no) if dead and dead.state == "dead" else None
    if found is not None and found.ended_at_ms is not None:
        raise SessionEnded(
            f"inbox item {inbox_no} cannot be requeued: session {found.session_id} has ended, and "
            "no turn can run in it. Have its sender send it again, and drop this one with "
            f"`sessiondb dead DB --drop {inbox_no}`",
            session_id=found.session_id,
        )
    if not tx.run("inbox.requeue", inbox_no=inbox_no, now_ms=tx.now_ms):
        raise NotFound(
            f"inbox item {inbox_no} is not a dead letter; list them with `sessiondb dead DB`",
            inbox_no=inbox_no,
        )
    session_no = tx.one("inbox.notified", inbox_no=inbox_no).session_no
    tx.run("inbox.wait_behind", session_no=session_no)
    changes.line_up(tx, session_no)


def line_up_all(tx: Tx) -> int:
    """Mark again which messages wait for others. Return how many marks were wrong.

    For marks that another program changed. Nothing else depends on them.
    """
    return tx.run("inbox.line_up_all")


def drop(tx: Tx, inbox_no: int) -> None:
    """Give up a dead letter for good. Its row stays, so the same event is never accepted again.

    Raises:
        NotFound: there is no such dead letter.
    """
    if not tx.run("inbox.drop", inbox_no=inbox_no):
        raise NotFound(
            f"inbox item {inbox_no} is not a dead letter; list them with `sessiondb dead DB`",
            inbox_no=inbox_no,
        )

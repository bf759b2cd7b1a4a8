"""The handle of one session, as a caller holds it.

A `Session` holds nothing of its session, so it never disagrees with the database.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from sessiondb import events
from sessiondb.arguments import checks_arguments
from sessiondb.backend import Database, ReadTx, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import InvalidInput, NotFound, before_the_write
from sessiondb.json_text import dumps
from sessiondb.limits import COMPACTION_TIMEOUT_S, KEEP_RECENT_TOKENS, TITLE_BYTES_MAX
from sessiondb.models import (
    ANY_HEAD,
    AppendedHistory,
    ContextDiff,
    Details,
    Entry,
    EntryRef,
    EpochInfo,
    Event,
    ExpectedHead,
    Receipt,
    Redacted,
    SessionInfo,
)
from sessiondb.words import (
    Audience,
)

from . import (
    append,
    compaction,
    editing,
    history,
    long_append,
    paths,
    redact,
    registry,
    rewind,
    search_index,
)
from . import details as details_rules
from .compaction_job import CompactionJob
from .context import Context, read_context
from .entries import Appendable, Draft, check_append, prepare, prepare_all
from .foreign_ids import check_part
from .keys import parse_key
from .state import State, load_state, no_entry

if TYPE_CHECKING:
    from sessiondb import statements

T = TypeVar("T")

_EPOCHS_PAGE = 200
PART_OF_EPOCH = -1
"""Stands for the epoch of a reply that was asked for with a part of its context. A count of
that is good for no context."""
_WENT_BACK = "the conversation went back to another entry"
"""The reason of a turn that is stopped by going back."""


@checks_arguments
class Session:
    """One transcript, by its handle.

    It holds nothing of the session, so it agrees with the database. It knows which context it
    read last: a reply that is appended by it was asked for with that one.
    """

    def __init__(self, db: Database, ref: registry.SessionRef) -> None:
        self.db = db
        self.ref = ref
        """The session's number, which names it in the tables, and its id."""
        self.asked_epoch: int | None = None
        """The epoch of the present context that was last read by this handle."""
        self.turn_no: int | None = None
        """The turn whose handler has this handle: its changes are from inside of that turn."""

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    @property
    def id(self) -> str:
        """The session's id."""
        return self.ref.session_id

    async def info(self) -> SessionInfo:
        """Describe the session, also an ended or archived one: keys, sizes and times."""
        return await self.db.read("session.info", lambda tx: registry.info(tx, self.ref.session_no))

    async def details(self) -> Details:
        """Return what an application keeps about the session. Nothing: `{}`, of revision 0.

        Also of an archived session.
        """
        return await self.db.read("details", lambda tx: details_rules.read(tx, self.ref.session_no))

    async def set_details(self, details: Mapping[str, Any], *, expect: int | None = None) -> int:
        """Keep a JSON object about the session, in the place of another. Return its revision.

        64 KiB at most. With `expect` it is stored only if the details have this revision (0: if
        there are none yet). No model sees it. Durable. `sessions` lists it with the session. A
        fork begins without details.

        Raises:
            DetailsChanged: they have another revision. It is in the error.
            InvalidInput: no object, without a JSON form, or too large.
            SessionArchived: the session is in an archive. `db.unarchive` brings it back.
        """
        document = details_rules.encoded(details)
        return await self.db.write(
            "details.set",
            lambda tx: details_rules.put(tx, self.ref.session_no, document, expect),
            size=len(document),
        )

    async def rename(self, title: str) -> Receipt:
        """Give the session a title, which lists show. Durable.

        It is an entry of the transcript (`session_info`), so pi and OpenClaw show it, too.

        Raises:
            InvalidInput: no text, or an empty or too long one.
            SessionEnded: as of `append`.
        """
        checked = check_part("a title", title, TITLE_BYTES_MAX)
        return await self.append({"type": "session_info", "name": checked})

    # -- append and read ---------------------------------------------------------------

    async def append(
        self,
        item: Appendable,
        *,
        idempotency_key: str | None = None,
        timeout_s: float | None = None,
    ) -> Receipt:
        """Append a message, a typed entry, or the JSON text of either, after the head.

        On disk when it returns. With an idempotency key it may be repeated: the second call returns
        the first receipt with `duplicate=True`, also when the session has ended meanwhile. Never
        waits for a compaction or an import. A slow reader costs it at most
        `Limits.wal_reset_ms_max`, while the WAL is reset.

        Raises:
            InvalidInput: not JSON, or neither a message (with a role) nor an entry (with a type).
            StoreBusy: the queue is full. Retry after `retry_after_ms`.
            NotExecuted: `timeout_s` passed before the transaction began.
            NotFound: the entry names a parent that is not in the transcript.
            IdentityConflict: the key is that of an entry that says something else.
            SessionEnded: the session has ended: fork it. As SessionArchived: restore it first.
        """
        draft = await prepare(item, idempotency_key, now_ms=self.db.clock.stamp_ms())
        check_append(1, draft.size)
        draft.asked_epoch = self.asked_epoch
        return (await self._append([draft], timeout_s))[0]

    async def append_many(
        self,
        items: Sequence[Appendable],
        *,
        expect_head: ExpectedHead = ANY_HEAD,
        all_or_nothing: bool = False,
        details: Mapping[str, Any] | None = None,
        expect_details: int | None = None,
        timeout_s: float | None = None,
    ) -> list[Receipt]:
        """Append several in order, in one transaction. Otherwise like `append`.

        `Item(message, key=..., at_ms=...)` gives one its idempotency key and its own time. With
        `expect_head` they are appended only if that entry is the head (None: if there is no
        entry yet). Items that were stored before, by their keys, are left out, and have their first
        receipts. With `all_or_nothing` this is so only if all of them were. A call that is
        repeated with keys returns the first receipts, wherever the head is by now.

        `details` become the session's details, in the same transaction (`set_details`), if their
        revision is `expect_details`. A call that stores no item, because all were stored before,
        leaves them as they are.

        Raises:
            InvalidInput: one of them cannot be stored (its index is in the message), or they are
                too many at once. Or the details cannot be stored.
            HeadMoved: the head is not `expect_head`. The error names it.
            DetailsChanged: their revision is not `expect_details`. None was stored.
            PartlyStored: with `all_or_nothing`, some are stored already.
            StoreBusy, NotExecuted, NotFound, IdentityConflict, SessionEnded: as of `append`.
                None was stored.
        """
        document = None if details is None else details_rules.encoded(details)
        drafts = await self._drafts(items)
        if not drafts and document is None:
            return []

        def write(tx: Tx) -> list[Receipt]:
            return append_with_details(
                tx,
                self.ref.session_no,
                drafts,
                expect_head=expect_head,
                all_or_nothing=all_or_nothing,
                document=document,
                expect_details=expect_details,
            )

        size = sum(draft.size for draft in drafts) + len(document or "")
        return await self.db.write("append", write, size=size, timeout_s=timeout_s)

    async def append_history(
        self,
        items: Iterable[Appendable],
        *,
        key: str,
        expect_head: ExpectedHead = ANY_HEAD,
    ) -> AppendedHistory:
        """Append a history of any length, in steps that give way to other writers.

        For what another store holds: `Item(message, at_ms=...)` with the time of each. Each step is
        durable. When the call is interrupted, a beginning of the history is on disk, in whole
        steps. The same call, with the same items and `key`, goes on from there: an item without a
        key of its own has `key` and its number as its key. Nobody's entry gets between two items.
        The items are taken in a worker thread, a step at a time, so they may come from a file.

        Raises:
            InvalidInput: an item cannot be stored. Its index is in the message. Those before its
                step are on disk.
            HeadMoved: the head is not `expect_head`, or somebody else has appended meanwhile.
            PartlyStored: an item is stored already, and one before it is not.
            IdentityConflict, SessionEnded, StoreBusy: as of `append`.
        """
        return await long_append.append_history(
            self.db, self.ref.session_no, items, key=key, expect_head=expect_head
        )

    async def _drafts(self, items: Sequence[Appendable]) -> list[Draft]:
        """Encode items that one transaction can take, in the name of this handle."""
        check_append(len(items), 0)
        drafts = await prepare_all(items, now_ms=self.db.clock.stamp_ms())
        check_append(len(drafts), sum(draft.size for draft in drafts))
        for draft in drafts:
            draft.asked_epoch = self.asked_epoch
        return drafts

    async def _append(
        self,
        drafts: list[Draft],
        timeout_s: float | None,
        *,
        expect_head: ExpectedHead = ANY_HEAD,
        all_or_nothing: bool = False,
    ) -> list[Receipt]:
        return await self.db.write(
            "append",
            lambda tx: append.append(
                tx,
                self.ref.session_no,
                drafts,
                expect_head=expect_head,
                all_or_nothing=all_or_nothing,
            ),
            size=sum(draft.size for draft in drafts),
            timeout_s=timeout_s,
        )

    async def context(
        self,
        *,
        epoch: int | None = None,
        last: int | None = None,
        decode: bool = True,
        raw: bool = False,
    ) -> Context:
        """Read the context of the model: the present one, or with `epoch` that epoch's last.

        Its messages are a prompt that their provider takes. Results stand behind their calls,
        and a call without a result has one that says so. `raw=True` leaves them as they were
        stored.

        With `last` it is the last messages only, and no summary: so many, and as many more as
        have the calls of their results. It costs as much as it returns. A provider's count of a
        reply to a part of the context is not taken for one of the whole.

        A reply that this handle, or its turn, appends from now on counts as asked for with the
        present context. The provider's count of tokens is good only for the context it was asked
        with.

        Messages are decoded on a reader thread. `decode=False` leaves that out, for callers of
        `as_json()`.

        Raises:
            NotFound: no such epoch.
            InvalidInput: `last` is no number from 1 to 1,000.
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
        """
        if last is not None and paths.page_limit(last) == 0:
            raise InvalidInput("the last 0 messages are no prompt; ask for one at least")

        def read(tx: ReadTx) -> Context:
            context = read_context(tx, self.ref.session_no, epoch, raw=raw, last=last)
            if decode:
                context.messages  # noqa: B018  decodes on the reader thread; the value is cached
            return context

        context = await self.db.read("context", read)
        if epoch is None:
            self.asked_epoch = context.epoch if context.is_whole else PART_OF_EPOCH
        return context

    async def entries(
        self,
        *,
        after: Entry | Receipt | int | None = None,
        before: Entry | Receipt | int | None = None,
        types: str | Collection[str] | None = None,
        limit: int = 100,
        newest_first: bool = False,
        last: int | None = None,
    ) -> list[Entry]:
        """Read one page of the current path: oldest first, or newest first.

        `after` and `before` are entries (or their `entry_no`) that bound the page and are not part
        of it. `after` alone means the entries just behind it, `before` alone those just before it.
        For the next page, pass the last entry of this one as `after` (or as `before`, newest
        first). An empty page is behind the last one. `last=20` are the last twenty, or the last
        twenty before `before`, oldest first. `types` are the types of the entries that are wanted
        ("message", "compaction", ...), one or several.

        A page has `limit` entries, 1,000 at most, or fewer when they are large: it ends with the
        entry at which it reaches 4 MiB (`limits.PAGE_BYTES`). So a short page is not the last.

        Raises:
            NotFound: a bound is not on the current path (the head has moved to another branch).
            InvalidInput: a number of entries that no page can have, `last` with `after` or
                `newest_first`, or `types` that are no texts.
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
        """
        if last is not None and (after is not None or newest_first):
            raise InvalidInput("`last` goes back from the end, so it takes `before` only")
        after_no, before_no = _entry_no(after), _entry_no(before)
        from_end = last is not None or (before is not None and after is None)
        backward, count = newest_first or from_end, limit if last is None else last
        in_turn = -1 if backward and not newest_first else 1  # pages from the end are turned round
        if types is not None:
            ranges = await self.db.read(
                "entries", lambda tx: self._ranges(tx, after_no=after_no, before_no=before_no)
            )
            search = paths.TypedSearch(ranges, _types(types), backward, paths.page_limit(count))
            return (await self._search(search))[::in_turn]

        def read(tx: ReadTx) -> list[Entry]:
            rows = paths.read_path(
                tx,
                self._readable(tx).head_no,
                after_no=after_no,
                before_no=before_no,
                limit=count,
                backward=backward,
            )
            return _entries(rows[::in_turn])

        return await self.db.read("entries", read)

    def _readable(self, tx: ReadTx) -> State:
        """Return the session's state, if its entries are there."""
        state = load_state(tx, self.ref.session_no)
        paths.require_entries(state.session_id, state.archived_at_ms)
        return state

    def _ranges(
        self, tx: ReadTx, *, after_no: int | None, before_no: int | None
    ) -> list[paths.Segment]:
        head_no = self._readable(tx).head_no
        return paths.ranges_between(tx, head_no, after_no=after_no, before_no=before_no)

    async def _search(self, search: paths.TypedSearch) -> list[Entry]:
        """Search a path in bounded reads. It is the path of the first read: paths only grow."""

        def step(tx: ReadTx) -> list[Entry]:
            self._readable(tx)
            before = len(search.found)
            search.step(tx)
            return _entries(search.found[before:])

        found: list[Entry] = []
        while not search.is_over:
            found += await self.db.read("entries", step)
        return found

    async def entry(self, entry_id: str) -> Entry:
        """Return one entry by its id, on whichever branch it is. Of two with one id, the newest.

        Of a fork also one of the path that it began with.

        Raises:
            NotFound: no such entry.
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
        """

        def read(tx: ReadTx) -> Entry:
            state = self._readable(tx)
            found = append.find_entry(tx, state, entry_id)
            if found is None:
                raise no_entry(state.session_id, entry_id)
            return _entries([paths.read_entry(tx, found.entry_no)])[0]

        return await self.db.read("entry", read)

    async def entry_by_key(self, idempotency_key: str) -> Entry:
        """Return the entry that this session stored under an idempotency key.

        It tells what became of an append whose outcome is not known. A fork has the keys of its own
        entries only.

        Raises:
            NotFound: nothing was stored under this key.
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
        """

        def read(tx: ReadTx) -> Entry:
            state = self._readable(tx)
            found = tx.first(
                "transcript.by_idempotency_key",
                session_no=state.session_no,
                idempotency_key=idempotency_key,
            )
            if found is None:
                raise NotFound(
                    f"session {state.session_id} has stored no entry under the idempotency key "
                    f"{idempotency_key!r}; append it with this key",
                    session_id=state.session_id,
                    idempotency_key=idempotency_key,
                )
            return _entries([paths.read_entry(tx, found.entry_no)])[0]

        return await self.db.read("entry", read)

    async def all_entries(
        self, *, after: Entry | Receipt | int | None = None, limit: int = 100
    ) -> list[Entry]:
        """Read one page of all entries of the session, in order of arrival.

        Includes all branches, control records, and the header (seq 0). Entries of the session that
        it was forked from are not its own. For the next page, pass the last entry of this one as
        `after` (or its `entry_no`). An empty page is behind the last one. Pages are as large as
        those of `entries`.

        Raises:
            NotFound: `after` is an entry of another session.
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
        """
        after_no = _entry_no(after)
        return await self.db.read(
            "all_entries",
            lambda tx: _entries(
                paths.read_all_entries(tx, self.ref.session_no, after_no=after_no, limit=limit)
            ),
        )

    async def epochs(self) -> list[EpochInfo]:
        """List the generations of the context, oldest first.

        Raises:
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
        """
        found: list[EpochInfo] = []
        while True:
            rows = await self.db.read("epochs", _epochs_page(self.ref.session_no, len(found)))
            found += [
                EpochInfo(row.epoch, row.reason, row.opened_at_ms, row.closed_at_ms) for row in rows
            ]
            if len(rows) < _EPOCHS_PAGE:
                return found

    async def diff(self, before: int, after: int) -> ContextDiff:
        """Compare the contexts at the ends of two epochs: what left, what came.

        Between the epochs before and after a compaction that is what it removed, and the summary.
        Memory is that of the entries that differ.

        Raises:
            NotFound: no such epoch.
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
        """
        return await self.db.read(
            "diff", lambda tx: history.diff(tx, self.ref.session_no, before, after)
        )

    async def events(self, *, audience: Audience = "user", limit: int = 50) -> list[Event]:
        """Read the session's newest events, oldest first, for a page that is opened late.

        Bounded: it does not search for old ones, and returns one page (`limits.PAGE_BYTES`).
        """
        return await self.db.read(
            "session.events",
            lambda tx: events.of_session(tx, self.ref.session_no, audience=audience, limit=limit),
        )

    # -- moving ------------------------------------------------------------------------

    async def abort(self, reason: str) -> bool:
        """Stop the turn that runs in this session, on a person's behalf. False if none does.

        In this process or another one. Whatever the turn still tries to write is refused. Its
        message is done, without an answer, and its sender is told (`turn_aborted`). Durable. May
        be repeated.
        """
        return await self.db.change_session(
            "turn.abort", self.ref.session_no, lambda _, aborted: aborted is not None, abort=reason
        )

    async def branch(
        self,
        entry: EntryRef | None,
        *,
        expect_head: ExpectedHead = ANY_HEAD,
        abort_running: bool = False,
    ) -> int:
        """Make another entry the head, so that the next append follows it. Return the epoch.

        An entry, its receipt or its id. None is the root. Durable. Moving to the present head
        changes nothing. With `expect_head` nothing is changed if another entry is the head by
        then. With `abort_running` a turn that runs in the session is stopped, as by `abort`.

        Raises:
            SessionBusy: a turn runs in the session.
            NotFound: no such entry.
            HeadMoved: the head is not `expect_head`. The error names it.
            SessionEnded: the session has ended. Continue in `fork(entry=...)`.
        """
        return await self._change(
            "branch",
            lambda tx: registry.branch(
                tx,
                self.ref.session_no,
                entry,
                iso_from_ms(tx.stamp_ms),
                expect_head=expect_head,
            ),
            _WENT_BACK if abort_running else None,
        )

    async def rewind(
        self,
        *,
        before: EntryRef,
        expect_head: ExpectedHead = ANY_HEAD,
        abort_running: bool = False,
    ) -> int:
        """Go back to right before an entry of the current path. Return the epoch.

        For a message that is said anew. Otherwise like `branch`.

        Raises:
            NotFound: the entry is not on the current path.
            SessionBusy, HeadMoved, SessionEnded: as of `branch`.
        """
        return await self._change(
            "rewind",
            lambda tx: rewind.rewind(tx, self.ref.session_no, before, expect_head=expect_head),
            _WENT_BACK if abort_running else None,
        )

    async def pop(
        self,
        count: int = 1,
        *,
        expect_head: ExpectedHead = ANY_HEAD,
        abort_running: bool = False,
    ) -> list[Entry]:
        """Take the last messages off the conversation, 100 at most. Return them, oldest first.

        They stay on a branch of their own: `branch` goes back to them. Messages from before the
        last reset are not taken: fewer are returned then, perhaps none. Behind a compaction the
        context is the one of before it. A message that somebody appends meanwhile is either
        returned, or stays in the conversation. `expect_head` refuses the first. Durable. Each
        call takes off more. With `abort_running` a turn that runs in the session is stopped, as
        by `abort`.

        Raises:
            InvalidInput: no such count, or what is to be taken off is too large, or too far back.
            SessionBusy, HeadMoved, SessionEnded: as of `branch`.
        """
        rewind.check_pop(count)
        return await self._change(
            "pop",
            lambda tx: rewind.pop(tx, self.ref.session_no, count, expect_head=expect_head),
            _WENT_BACK if abort_running else None,
        )

    async def undo_turn(
        self, *, expect_head: ExpectedHead = ANY_HEAD, abort_running: bool = False
    ) -> Entry | None:
        """Go back before the last user message, and return it. None: there is none.

        It leaves the conversation with all that was said and done about it. None also if the last
        reset lies between. A message that waits for its turn is not part of the conversation yet:
        `db.withdraw` takes that back. Otherwise like `pop`.

        Raises:
            InvalidInput: it lies too far back. Use `rewind`.
            SessionBusy, HeadMoved, SessionEnded: as of `branch`.
        """
        return await self._change(
            "turn.undo",
            lambda tx: rewind.undo_turn(tx, self.ref.session_no, expect_head=expect_head),
            _WENT_BACK if abort_running else None,
        )

    async def replace_tail(
        self,
        items: Sequence[Appendable],
        *,
        after: EntryRef | None,
        expect_head: ExpectedHead = ANY_HEAD,
        abort_running: bool = False,
    ) -> list[Receipt]:
        """Put items in the place of all that follows an entry. Return their receipts.

        `after` is on the current path. None: the root, so that all is replaced. One transaction:
        everybody reads the old tail or the new one. The old one stays on a branch of its own.
        Durable. Repeated with an idempotency key in each item it changes nothing. Without keys,
        `expect_head` keeps it from being done twice.

        Raises:
            InvalidInput: one of them cannot be stored, or has a result whose call is not before
                it. Its index is in the message.
            NotFound: `after` is not on the current path.
            PartlyStored: some of the items are stored already, by their keys.
            IdentityConflict: as of `append`.
            SessionBusy, HeadMoved, SessionEnded: as of `branch`.
        """
        drafts = await self._drafts(items)
        with before_the_write():
            lonely = await self.db.read(
                "tail.check", lambda tx: rewind.unpaired(tx, self.ref.session_no, after, drafts)
            )
        if lonely is not None:
            raise InvalidInput(
                f"item {lonely}: it has a result of a tool call, and the call is neither in the "
                f"items before it nor on the path of session {self.id} up to that place. Nothing "
                "was changed; put the call before its result, or choose an earlier place"
            )
        return await self._change(
            "tail.replace",
            lambda tx: rewind.replace_tail(
                tx, self.ref.session_no, after, drafts, expect_head=expect_head
            ),
            _WENT_BACK if abort_running else None,
            size=sum(draft.size for draft in drafts),
        )

    async def reset(
        self,
        reason: str = "reset",
        *,
        keep_from: str | None = None,
        abort_running: bool = False,
    ) -> int:
        """Begin the context anew in the same session. Return the new epoch.

        Durable. Each call begins another epoch. With `keep_from` (an entry id) the conversation
        from there on stays in the context. With `abort_running` a turn that runs in the session
        is stopped, as by `abort`.

        Raises:
            SessionBusy: a turn runs in the session.
            NotFound: no such entry on the current path.
            InvalidInput: an unknown reason.
            SessionEnded: the session has ended.
        """
        registry.check_reset_reason(reason)
        return await self._change(
            "reset",
            lambda tx: registry.reset(
                tx,
                self.ref.session_no,
                reason=reason,
                keep_from=keep_from,
                timestamp=iso_from_ms(tx.stamp_ms),
            ),
            "the conversation began anew" if abort_running else None,
        )

    async def edit(
        self,
        entry_id: str,
        content: str | Sequence[dict[str, Any]] | None,
        *,
        abort_running: bool = False,
    ) -> Receipt:
        """Replace the content of a message for the model, or leave the message out. Durable.

        `entry_id` is a message of the current context. A `content` of None leaves it out. The
        entry itself stays as it is: an entry of type `context_edit` says what the model is sent
        from now on. It begins an epoch, so a compaction that runs is superseded. What a result is
        for is left out with its call. Of several edits of a message the last one counts. Each
        call begins another epoch.

        With `abort_running` a turn that runs in the session is stopped, as by `abort`.

        Raises:
            SessionBusy: a turn runs in the session.
            NotFound: no such entry in the current context.
            InvalidInput: not a content, or the entry has none that can be replaced.
            SessionEnded: the session has ended.
        """
        draft = await editing.prepare_edit(entry_id, content, now_ms=self.db.clock.stamp_ms())
        return await self._change(
            "edit",
            lambda tx: editing.edit(
                tx, self.ref.session_no, entry_id, draft, omits=content is None
            ),
            "a message of the conversation was edited" if abort_running else None,
        )

    async def _change(
        self, op: str, change: Callable[[Tx], T], abort: str | None, *, size: int = 0
    ) -> T:
        """Change what a turn of the session builds on, while none runs but this handle's own."""
        return await self.db.change_session(
            op,
            self.ref.session_no,
            lambda tx, _: change(tx),
            own_turn_no=self.turn_no,
            abort=abort,
            size=size,
        )

    async def fork(
        self,
        *,
        entry: EntryRef | None = None,
        epoch: int | None = None,
        key: str | None = None,
        session_id: str | None = None,
        cwd: str | None = None,
    ) -> Session:
        """Create a session that continues from here, from an entry, or from the end of an epoch.

        `entry` is one, its receipt or its id. Copies no entry. Durable on return.
        Each call creates another session. A call repeated with
        its `session_id` is refused. `key` is bound to the new session. A session that has ended can
        be forked.

        Raises:
            NotFound: no such entry or epoch.
            InvalidInput: both an entry and an epoch, or the id is taken. As InvalidKey: `key` is
                not a session key.
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
        """
        if entry is not None and epoch is not None:
            raise InvalidInput("fork at an entry or at an epoch, not at both")
        parsed = parse_key(key) if key is not None else None
        chosen = (
            registry.check_session_id(session_id)
            if session_id is not None
            else registry.new_session_id()
        )
        ref = await self.db.write(
            "fork",
            lambda tx: registry.fork(
                tx,
                self.ref.session_no,
                session_id=chosen,
                entry=entry,
                epoch=epoch,
                key=parsed,
                cwd=cwd,
            ),
        )
        return Session(self.db, ref)

    async def redact(self, entry: EntryRef) -> Redacted:
        """Delete what an entry says, for good. Say what may still hold it.

        Its texts, arguments and images go, and `[redacted]` stands there. Its ids, its place, its
        role, its calls and its weight stay, so every context is as valid as before, in forks as
        well. If it is a message of the inbox, that is redacted, too. One transaction, durable. May
        be repeated. An append that is repeated with the entry's key is `IdentityConflict` then.

        Raises:
            NotFound: no such entry.
            InvalidInput: it says nothing that could be redacted, or is one of the session that this
                one was forked from.
            SessionArchived: its entries are in an archive. `db.unarchive` brings them back.
            StoreBusy: they are being archived.
        """
        with before_the_write():
            planned = await self.db.read(
                "redact.plan", lambda tx: redact.plan(tx, self.ref.session_no, entry)
            )
        done = await self.db.write(
            "redact", lambda tx: redact.apply(tx, planned), size=len(planned.payload)
        )
        return replace(done, left=(*done.left, *await search_index.left(self.db.backend)))

    async def end(self) -> bool:
        """End the session. False if it had ended. It accepts no append any more.

        It stays readable and can be forked. Durable, and may be repeated. Its keys stay bound, so
        messages for them are refused until `db.unbind`.
        """
        return await self.db.write("session.end", lambda tx: registry.end(tx, self.ref.session_no))

    async def pin(self) -> None:
        """Exempt the session from retention. Durable, and may be repeated."""
        await self.db.write("pin", lambda tx: registry.pin(tx, self.ref.session_no))

    async def unpin(self) -> None:
        """Subject the session to retention again. Durable, and may be repeated."""
        await self.db.write("unpin", lambda tx: registry.unpin(tx, self.ref.session_no))

    # -- compaction --------------------------------------------------------------------

    def compact(
        self,
        *,
        trigger: str = "manual",
        keep_recent_tokens: int = KEEP_RECENT_TOKENS,
        threshold_tokens: int | None = None,
        timeout_s: float = COMPACTION_TIMEOUT_S,
    ) -> CompactionJob:
        """Return a compaction job, to be used as an async context manager.

        Inside the block nothing is locked. Summarise `job.messages`, then `job.commit(summary)`.
        Leaving the block without a commit gives the job up, whatever the reason.

        `threshold_tokens`, if you compact contexts that are larger, tells the library when a
        compaction was in vain: the next one would be due at once. After three in vain it refuses.

        Raises (on entering):
            SessionEnded: the session has ended.
            CompactionRunning: another job of this session is alive. A dead owner's is taken over.
            CompactionCoolDown: the last three made the context hardly smaller.
            NothingToCompact: nothing lies before the entries that are to be kept.
            StoreBusy: the context was changed again and again while the cut was chosen.
        """
        return CompactionJob(
            self,
            trigger=trigger,
            keep_recent_tokens=keep_recent_tokens,
            threshold_tokens=threshold_tokens,
            timeout_s=timeout_s,
        )

    async def undo_compaction(self, *, abort_running: bool = False) -> int:
        """Undo the last compaction: return to the context before it. Return the new epoch.

        Entries that arrived since stay. Durable. A second call undoes the compaction before it.
        With `abort_running` a turn that runs in the session is stopped, as by `abort`.

        Raises:
            SessionBusy: a turn runs in the session.
            SessionEnded: the session has ended.
            NothingToUndo: the context does not begin at a compaction of this session.
        """
        return await self._change(
            "compaction.undo",
            lambda tx: compaction.undo(tx, self.ref.session_no),
            "the context went back behind a compaction" if abort_running else None,
        )


def append_with_details(
    tx: Tx,
    session_no: int,
    drafts: list[Draft],
    *,
    expect_head: ExpectedHead,
    all_or_nothing: bool,
    document: str | None,
    expect_details: int | None,
) -> list[Receipt]:
    """Append items, and set the session's details unless all were stored before."""
    receipts = append.append(
        tx, session_no, drafts, expect_head=expect_head, all_or_nothing=all_or_nothing
    )
    is_new = not receipts or not all(receipt.duplicate for receipt in receipts)
    if document is not None and is_new:
        details_rules.put(tx, session_no, document, expect_details)
    return receipts


def _entries(rows: Sequence[statements.TranscriptSpanForward]) -> list[Entry]:
    """Make a page's entries, on the reader thread."""
    return [Entry(**row._asdict()) for row in rows]


def _types(types: str | Collection[str]) -> str:
    """Return the types of entries as a JSON array. A text is one type, not its letters."""
    wanted = [types] if isinstance(types, str) else list(types)
    if not wanted or not all(isinstance(each, str) for each in wanted):
        raise InvalidInput(f"types are texts, one or several, not {types!r}")
    return dumps(wanted)


def _entry_no(bound: Entry | Receipt | int | None) -> int | None:
    entry_no = bound.entry_no if isinstance(bound, Entry | Receipt) else bound
    if entry_no is not None and not isinstance(entry_no, int):
        raise InvalidInput(
            f"a page is bounded by an entry or its number, not by {type(entry_no).__name__}"
        )
    return entry_no


def _epochs_page(
    session_no: int, epoch: int
) -> Callable[[ReadTx], list[statements.TranscriptEpochs]]:
    def page(tx: ReadTx) -> list[statements.TranscriptEpochs]:
        paths.require_readable(tx, session_no)
        return tx.all("transcript.epochs", session_no=session_no, epoch=epoch, limit=_EPOCHS_PAGE)

    return page

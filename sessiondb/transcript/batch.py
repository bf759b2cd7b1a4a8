"""Several changes, of one session or of several, in one transaction.

    async with db.batch() as batch:
        batch.append(parent, result)
        batch.append(child, answer)

The block collects, and its end writes all of it in one transaction, or nothing. So nothing is
locked inside the block, whatever is awaited there: a model may think for a minute. A transaction
that was open from the beginning of the block would hold the database's write lock for that
minute. That is why a batch reads nothing. A condition takes the place of a read: `expect_head`,
which the transaction checks. Code that must decide in the transaction runs in it: `db.write`.

A block that raises, or is cancelled, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from sessiondb.arguments import checks_arguments
from sessiondb.backend import Database, Tx
from sessiondb.clock import iso_from_ms
from sessiondb.errors import InvalidInput
from sessiondb.limits import APPEND_ENTRIES_MAX
from sessiondb.models import ANY_HEAD, EntryRef, ExpectedHead, Receipt

from . import append, registry, rewind
from . import details as details_rules
from .entries import Appendable, Draft, check_append, prepare_all
from .keys import parse_key
from .session import Session, append_with_details

T = TypeVar("T")

RequireIdle = Callable[[Tx, int, int | None], object]
"""Raises SessionBusy if a turn of a session runs, other than the caller's own."""


class Planned(Generic[T]):
    """What a change of a batch returned. It is there once the batch is written."""

    def __init__(self, change: str) -> None:
        self._change = change
        self._values: list[T] = []

    @property
    def value(self) -> T:
        """What the change returned.

        Raises:
            InvalidInput: the batch is not written: its block has not ended, or it failed.
        """
        if not self._values:
            raise InvalidInput(
                f"{self._change} is not written; its value is there once the block of "
                "`async with db.batch()` has ended without an error"
            )
        return self._values[0]

    def note(self, value: T) -> None:
        """Note the value, once the batch is on disk."""
        self._values = [value]


@dataclass(slots=True)
class _Change:
    """One change of a batch: its items, and what it does in the transaction."""

    session: Session | None
    """None: the change is of no session."""
    change: Callable[[Tx, list[Draft]], Any]
    planned: Planned[Any]
    items: Sequence[Appendable] = ()
    moves: bool = False
    """It is refused while a turn of the session runs."""
    size: int = 0
    """Bytes that it writes beside its items."""
    drafts: list[Draft] = field(default_factory=list)


@checks_arguments
class Batch:
    """Changes that are written together. `db.batch()` makes one.

    Each call notes a change, and returns what will have its result. The changes are made in
    their order. Together they have as many entries and bytes as one append.
    """

    def __init__(self, db: Database, require_idle: RequireIdle) -> None:
        self._db = db
        self._require_idle = require_idle
        self._changes: list[_Change] = []
        self._is_open = False

    async def __aenter__(self) -> Self:
        if self._is_open or self._changes:
            raise InvalidInput("a batch's block is entered once; call db.batch() again")
        self._is_open = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._is_open = False
        if exc_type is None and self._changes:
            await self._write()

    def append(
        self, session: Session, item: Appendable, *, expect_head: ExpectedHead = ANY_HEAD
    ) -> Planned[Receipt]:
        """Append one item, as `Session.append`. `Item(..., key=...)` gives it a key."""
        return self._note(
            session,
            "append",
            lambda tx, drafts: append.append(
                tx, session.ref.session_no, drafts, expect_head=expect_head
            )[0],
            items=[item],
        )

    def append_many(
        self,
        session: Session,
        items: Sequence[Appendable],
        *,
        expect_head: ExpectedHead = ANY_HEAD,
        all_or_nothing: bool = False,
        details: Mapping[str, Any] | None = None,
        expect_details: int | None = None,
    ) -> Planned[list[Receipt]]:
        """Append several, and set the session's details, as `Session.append_many`."""
        document = None if details is None else details_rules.encoded(details)
        return self._note(
            session,
            "append_many",
            lambda tx, drafts: append_with_details(
                tx,
                session.ref.session_no,
                drafts,
                expect_head=expect_head,
                all_or_nothing=all_or_nothing,
                document=document,
                expect_details=expect_details,
            ),
            items=list(items),
            size=len(document or ""),
        )

    def set_details(
        self,
        namespace: str,
        name: str,
        details: Mapping[str, Any],
        *,
        expect: int | None = None,
    ) -> Planned[int]:
        """Keep a JSON object under a name, as `SessionDB.set_details`. Its value is the revision.

        With another revision than `expect` nothing of the batch is written.
        """
        of, document = details_rules.checked_name(namespace, name), details_rules.encoded(details)
        return self._note(
            None,
            "set_details",
            lambda tx, _: details_rules.put_named(tx, of, document, expect),
            size=len(document),
        )

    def branch(
        self, session: Session, entry: EntryRef | None, *, expect_head: ExpectedHead = ANY_HEAD
    ) -> Planned[int]:
        """Make another entry the head, as `Session.branch`. Its value is the epoch."""
        return self._note(
            session,
            "branch",
            lambda tx, _: registry.branch(
                tx,
                session.ref.session_no,
                entry,
                iso_from_ms(tx.stamp_ms),
                expect_head=expect_head,
            ),
            moves=True,
        )

    def rewind(
        self, session: Session, *, before: EntryRef, expect_head: ExpectedHead = ANY_HEAD
    ) -> Planned[int]:
        """Go back to right before an entry, as `Session.rewind`. Its value is the epoch."""
        return self._note(
            session,
            "rewind",
            lambda tx, _: rewind.rewind(
                tx, session.ref.session_no, before, expect_head=expect_head
            ),
            moves=True,
        )

    def bind(self, key: str, session: Session) -> Planned[None]:
        """Point a conversation's key at a session, as `SessionDB.bind`."""
        parsed = parse_key(key)
        return self._note(
            session, "bind", lambda tx, _: registry.bind(tx, parsed, session.ref.session_no)
        )

    def end(self, session: Session) -> Planned[bool]:
        """End a session, as `Session.end`. Its value is False if it had ended."""
        return self._note(session, "end", lambda tx, _: registry.end(tx, session.ref.session_no))

    def _note(
        self,
        session: Session | None,
        name: str,
        change: Callable[[Tx, list[Draft]], T],
        *,
        items: Sequence[Appendable] = (),
        moves: bool = False,
        size: int = 0,
    ) -> Planned[T]:
        if not self._is_open:
            raise InvalidInput(
                f"batch.{name}() is for the block of `async with db.batch() as batch`; "
                "nothing was noted"
            )
        if session is not None and session.db is not self._db:
            raise InvalidInput(
                f"session {session.id} is a handle of another open database; get one of this: "
                f"db.session_by_id({session.id!r}). Nothing was noted"
            )
        if len(self._changes) == APPEND_ENTRIES_MAX:
            raise InvalidInput(
                f"a batch holds at most {APPEND_ENTRIES_MAX:,} changes; write this one, "
                "and begin another"
            )
        whose = f" of session {session.id}" if session is not None else ""
        planned: Planned[T] = Planned(f"batch.{name}(){whose}")
        self._changes.append(_Change(session, change, planned, items, moves, size))
        return planned

    async def _write(self) -> None:
        size = await self._encode()
        results = await self._db.write("batch", self._body, size=size)
        for change, result in zip(self._changes, results, strict=True):
            change.planned.note(result)

    async def _encode(self) -> int:
        """Encode all items, before the transaction. Return their size."""
        items = [item for change in self._changes for item in change.items]
        check_append(len(items), 0)
        drafts = await prepare_all(items, now_ms=self._db.clock.stamp_ms())
        size = sum(draft.size for draft in drafts) + sum(change.size for change in self._changes)
        check_append(len(drafts), size)
        for change in self._changes:
            change.drafts, drafts = drafts[: len(change.items)], drafts[len(change.items) :]
            for draft in change.drafts:
                assert change.session is not None, "items are of a session"
                draft.asked_epoch = change.session.asked_epoch
        return size

    def _body(self, tx: Tx) -> list[Any]:
        for change in self._changes:
            if change.moves and change.session is not None:
                self._require_idle(tx, change.session.ref.session_no, change.session.turn_no)
        return [change.change(tx, change.drafts) for change in self._changes]

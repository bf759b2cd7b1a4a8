"""Choose the cut of a compaction: the entry up to which its summary covers the context.

The cut is chosen in a read, because it looks into messages, and is checked by the write that
begins the job (`compaction.begin`). In words:

* An *answer* is a reply that calls no tool and neither failed nor was aborted. In a format in
  which a reply may be several items (`formats/`), none of its items calls one.
* After the last answer everything stays, from the first message that still waits for one. A
  message of the inbox whose turns have ended does not wait any more, however they ended, and
  neither does what its turns left behind. Any other message waits.
* A call and its result stay together. A result belongs to the last call before it with its id.
* Of the rest as much stays as the caller asked for (pi `core/compaction/compaction.ts`, and
  OpenClaw's extension of it). A context never begins with a tool result, nor with a message
  that was given up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sessiondb.backend import ReadTx
from sessiondb.json_text import loads, stored_text
from sessiondb.limits import (
    CUT_CHECK_ROWS,
    CUT_KEPT_ENTRIES_MAX,
    CUT_SCAN_ROWS,
    CUT_SCAN_ROWS_FIRST,
)
from sessiondb.paging import Page, handed_on

from .entries import CUT_ROLES, CUT_TYPES, Projection
from .formats import CallId, Format, spoken
from .formats.base import ASSISTANT, RESULT, USER
from .formats.prompt import PROMPTS
from .notes import ANSWERED
from .paths import Segment, context_start, segments, walk_back
from .state import State

if TYPE_CHECKING:
    from sessiondb import statements

    _Newer = statements.CompactionAfterAnswer | statements.CompactionCutPage


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a summary ends: it covers everything on the path up to `cut_no`."""

    cut_no: int | None
    """None: all of the context is kept, and only the previous summary is written anew."""
    first_kept_no: int | None
    """The next entry that is a message. None: there is none yet."""


def choose_cut(tx: ReadTx, state: State, keep_recent_tokens: int, *, manual: bool) -> Cut | None:
    """Choose where the summary ends. None: the cut would not move forward.

    Reads what is to be kept, and nothing of the history before it. Of what waits it reads the
    calls and results.

    A manual compaction happens even when everything would fit. It then keeps only what waits. If
    the context holds nothing else, it keeps all of it.
    """
    context = _Context(tx, state)
    cut = context.search(keep_recent_tokens)
    if cut is None and manual:
        cut = context.search(0)
        oldest_no = context.oldest_no() if cut is None else None
        if oldest_no is not None:
            cut = Cut(None, oldest_no)
    return cut


def calls_follow(tx: ReadTx, state: State, *, since_no: int, cut_no: int) -> bool:
    """Tell whether the results that arrived after an entry are of calls behind a cut.

    Costs some lookups: False also when it cannot be told with those.
    """
    results = _results_after(tx, state, since_no, CUT_CHECK_ROWS)
    return results is not None and not _without_call(tx, state, results, cut_no, CUT_CHECK_ROWS)


def _results_after(
    tx: ReadTx, state: State, since_no: int, most: int | None = None
) -> dict[CallId, int] | None:
    """Return the ids of the results behind an entry, each with its oldest result.

    None: there are more than `most` items that may have one.
    """
    message_format = spoken(state.formats)
    found: dict[CallId, int] = {}
    count = 0
    for segment in segments(tx, state.head_no, stop_no=since_no):
        low_no, more = segment.low_no + (segment.low_no == since_no), True
        while more:
            rows, more = _page_of_results(tx, message_format, segment, low_no)
            count += len(rows)
            if most is not None and count > most:
                return None
            low_no = rows[-1].entry_no + 1 if rows else low_no
            for row in handed_on(rows):
                for call_id in _closed_by(message_format, row.content):
                    found.setdefault(call_id, row.entry_no)
    return found


def _page_of_results(
    tx: ReadTx, message_format: Format, segment: Segment, low_no: int
) -> Page[statements.CompactionResults] | Page[statements.CompactionMayHaveResults]:
    """Read a page of the items that have results, or may have some beside other content."""
    if message_format.result_roles == {RESULT}:
        return tx.page(
            "compaction.results",
            branch_no=segment.branch_no,
            low_no=low_no,
            high_no=segment.high_no,
            limit=CUT_SCAN_ROWS_FIRST,
        )
    return tx.page(
        "compaction.may_have_results",
        branch_no=segment.branch_no,
        low_no=low_no,
        high_no=segment.high_no,
        limit=CUT_SCAN_ROWS_FIRST,
    )


def _without_call(
    tx: ReadTx, state: State, results: dict[CallId, int], floor_no: int, most: int | None = None
) -> set[CallId]:
    """Return the ids of results whose call does not lie between an entry and them.

    Looks at the replies from the newest on, until each has its call, or at `most` of them.
    """
    message_format = spoken(state.formats)
    reply_no = state.model_no
    looked = 0
    while results and reply_no is not None and reply_no > floor_no and looked != most:
        looked += 1
        reply = tx.first("compaction.calls", entry_no=reply_no)
        if reply is not None:
            for call_id in _opened_by(message_format, reply.content) & results.keys():
                if reply_no < results[call_id]:
                    del results[call_id]
        reply_no = tx.one("compaction.reply", entry_no=reply_no).model_no
    return set(results)


@stored_text()
def _closed_by(message_format: Format, item: bytes) -> set[CallId]:
    return set(message_format.closes(loads(item)))


@stored_text()
def _opened_by(message_format: Format, item: bytes) -> set[CallId]:
    return set(message_format.opens(loads(item)))


class _Context:
    """What a search knows of a context before it walks: where what stays begins."""

    def __init__(self, tx: ReadTx, state: State) -> None:
        self.tx, self.state = tx, state
        self.format = spoken(state.formats)
        self.start_no = context_start(state.boundary_no, state.first_kept_no)
        self.waiting = self._first_waiting()
        """The first entry that must stay. None: nothing must."""

    # -- what waits ------------------------------------------------------------------------

    def _first_waiting(self) -> statements.CompactionAfterAnswer | None:
        """Find the first message after the last answer that still waits for one."""
        for row in self._may_wait():
            if row.role == USER:
                return self._first_person(row.entry_no) if row.has_ended else row
            if row.role == ASSISTANT and row.calls == 0 and not self._goes_on(row):
                continue  # it failed or was aborted: nothing waits for more of it
            if row.role != RESULT:
                # A call of a turn at work, or a note of a program: its answer may be on the way.
                return row
        return None

    def _may_wait(self) -> Iterator[statements.CompactionAfterAnswer]:
        """Read on from the first message after the last answer that may wait for one."""
        asked_no = self.state.asked_no
        if asked_no is None:  # nothing is noted: search for the answer
            answer_no = self._last_answer()
            stop_no = answer_no + 1 if answer_no is not None else self.start_no
        elif asked_no <= ANSWERED:
            return iter(())
        else:
            stop_no = max(asked_no, self.start_no or 0)
        return self._read_on(stop_no)

    def _first_person(self, after_no: int) -> statements.CompactionAfterAnswer | None:
        """Find the first message of a user behind one whose turns have ended, and that waits.

        What such turns left behind waits for nothing.
        """
        for segment in segments(self.tx, self.state.head_no, stop_no=after_no):
            low_no = segment.low_no
            while True:
                found = self.tx.first(
                    "compaction.still_asked",
                    branch_no=segment.branch_no,
                    low_no=low_no,
                    high_no=segment.high_no,
                )
                if found is None:
                    break
                row = next(self._read_on(found.entry_no))
                if not self._has_results(row):
                    return row
                low_no = row.entry_no + 1
        return None

    def _last_answer(self) -> int | None:
        """Find the newest reply that is an answer. Each entry names the last reply before it."""
        reply_no, goes_on_after = self.state.model_no, None
        while reply_no is not None and (self.start_no is None or reply_no >= self.start_no):
            reply = self.tx.one("compaction.reply", entry_no=reply_no)
            if (
                reply.content is not None
                and self._is_usable(reply.content)
                and goes_on_after != reply_no
                and not self._belongs_to_call(reply)
            ):
                return reply_no
            if self.format.reply_in_parts and reply.role == ASSISTANT:
                goes_on_after = reply.parent_no
            reply_no = reply.model_no
        return None

    def _belongs_to_call(self, reply: statements.CompactionReply) -> bool:
        """Tell whether a part of a reply stands right behind a call of the same reply."""
        if not self.format.reply_in_parts or reply.content is None:
            return False
        closed = set(self.format.closes(loads(reply.content)))
        while reply.parent_no is not None and reply.model_no == reply.parent_no:
            if self.start_no is not None and reply.parent_no < self.start_no:
                return False
            reply = self.tx.one("compaction.reply", entry_no=reply.parent_no)
            if reply.calls:
                return not closed.issuperset(self.format.opens(self._item(reply.entry_no)))
            if reply.content is not None and self._is_usable(reply.content):
                return False
        return False

    @stored_text()
    def _is_usable(self, reply: bytes) -> bool:
        return self.format.is_usable(loads(reply))

    @stored_text()
    def _item(self, entry_no: int) -> dict[str, Any]:
        return _item(self.tx, entry_no)

    def _goes_on(self, row: statements.CompactionAfterAnswer) -> bool:
        """Tell whether a part of a reply says that more of it is on the way."""
        return self.format.reply_in_parts and self.format.goes_on(self._item(row.entry_no))

    def _has_results(self, row: _Newer) -> bool:
        """Tell whether a message that is no tool's has results of calls beside its own content."""
        return row.role in self.format.result_roles and bool(
            self.format.closes(self._item(row.entry_no))
        )

    def _may_begin(self, row: _Newer) -> bool:
        """Tell whether a context may begin with an entry."""
        return (
            (row.role in CUT_ROLES or row.type in CUT_TYPES)
            and not row.given_up
            and not self._has_results(row)
        )

    def _splits_reply(self, row: statements.CompactionCutPage, newer: _Newer) -> bool:
        """Tell whether a place lies between two parts of one reply.

        A part that only leads to the next one, such as a reasoning item, is worth nothing alone,
        and its provider refuses the next part without it.
        """
        if not self.format.reply_in_parts or newer.role != ASSISTANT:
            return False
        if not row.projection:
            return True  # what lies between them is no item: the place before it is asked about
        return row.role == ASSISTANT and (
            newer.calls > 0 or row.calls > 0 or not self.format.is_usable(self._item(row.entry_no))
        )

    def _read_on(self, from_no: int | None) -> Iterator[statements.CompactionAfterAnswer]:
        limit = CUT_SCAN_ROWS_FIRST
        for segment in segments(self.tx, self.state.head_no, stop_no=from_no):
            low_no = segment.low_no
            while True:
                rows = self.tx.all(
                    "compaction.after_answer",
                    branch_no=segment.branch_no,
                    low_no=low_no,
                    high_no=segment.high_no,
                    limit=limit,
                )
                yield from rows
                if len(rows) < limit:
                    break
                low_no, limit = rows[-1].entry_no + 1, min(2 * limit, CUT_SCAN_ROWS)

    def oldest_no(self) -> int | None:
        """Return the first entry of the context that is a message."""
        for segment in segments(self.tx, self.state.head_no, stop_no=self.start_no):
            row = self.tx.first(
                "compaction.first_message",
                branch_no=segment.branch_no,
                low_no=segment.low_no,
                high_no=segment.high_no,
            )
            if row is not None:
                return row.entry_no
        return None

    # -- the search ------------------------------------------------------------------------

    def search(self, keep_tokens: int) -> Cut | None:
        """Walk back from what must stay until enough is kept. None: nothing would be covered.

        A place between two entries is a candidate when a context may begin there. The first
        candidate that keeps enough is chosen. Where the entry that reaches the budget may not
        begin a context, the last candidate after it is chosen instead (pi's rule: a long result
        does not overrun the budget).
        """
        last_no, kept_tokens = self._last_coverable()
        if last_no is None:
            return None
        calls = _Calls(self.tx, self.format, self.start_no)
        calls.lack(self._results_without_call(last_no))
        newer: _Newer | None = self.waiting
        candidate = None if newer is not None else Cut(self.state.head_no, None)
        chosen: Cut | None = None
        before_no: int | None = None
        """The entry right before `newer`, which may be none that a model is sent."""
        kept = 0
        for row in self._rows_before(last_no):
            if before_no is None:
                before_no = row.entry_no
            if (
                newer is not None
                and self._may_begin(newer)
                and not self._splits_reply(row, newer)
                and not calls.lie_before(row.entry_no)
            ):
                candidate = Cut(before_no, newer.entry_no)
            enough = kept_tokens >= keep_tokens or kept >= CUT_KEPT_ENTRIES_MAX
            if chosen is None and enough:
                chosen = candidate
            if not row.projection:
                continue  # a boundary or a setting reaches no model: no context begins with it
            if chosen is not None and chosen.cut_no is not None and row.entry_no <= chosen.cut_no:
                return chosen
            calls.add(row)
            kept_tokens += row.tokens
            kept += 1
            if candidate is not None and kept_tokens >= keep_tokens and not self._may_begin(row):
                return candidate  # the row itself is covered
            newer, before_no = row, None
        return None

    def _last_coverable(self) -> tuple[int | None, int]:
        """Return the last entry that may be covered (None: there is none) and the tokens after it.

        Those are known without reading what waits, because every entry has their sum.
        """
        if self.waiting is None:
            return self.state.head_no, 0
        last_no = self.tx.one("transcript.by_no", entry_no=self.waiting.entry_no).parent_no
        if last_no is None or (self.start_no is not None and last_no < self.start_no):
            return None, 0
        last = self.tx.one("transcript.by_no", entry_no=last_no)
        return last_no, self.state.tokens_total - last.tokens_total

    def _results_without_call(self, last_no: int) -> set[CallId]:
        """Return the ids of the results after an entry whose calls lie before it, or nowhere."""
        if self._is_in_order():
            return set()
        results = _results_after(self.tx, self.state, last_no)
        assert results is not None, "they were not limited"
        return _without_call(self.tx, self.state, results, last_no)

    def _is_in_order(self) -> bool:
        """Tell whether all calls of the results behind what waits lie behind it, too, for sure.

        Appends have noted that results stand behind their calls. What waits stands well itself,
        so no call was open before it, unless calls may follow calls.
        """
        waiting, ordered_from_no = self.waiting, self.state.ordered_from_no
        return (
            waiting is not None
            and ordered_from_no is not None
            and ordered_from_no <= waiting.entry_no
            and (waiting.role == USER or not PROMPTS[self.format.name].calls_are_items)
            and not self._has_results(waiting)
        )

    def _rows_before(self, last_no: int) -> Iterator[statements.CompactionCutPage]:
        limit = CUT_SCAN_ROWS_FIRST  # what is kept is usually short: each page is twice as long

        def page(segment: Segment, high_no: int) -> list[statements.CompactionCutPage]:
            nonlocal limit
            rows = self.tx.all(
                "compaction.cut_page",
                branch_no=segment.branch_no,
                low_no=segment.low_no,
                high_no=high_no,
                limit=limit,
            )
            limit = min(2 * limit, CUT_SCAN_ROWS)
            return rows

        return walk_back(self.tx, last_no, self.start_no, page)


class _Calls:
    """Which results lost their call if the context began at a place, by the calls' ids.

    Follows the search back: `add` is told each entry, newest first.
    """

    def __init__(self, tx: ReadTx, message_format: Format, start_no: int | None) -> None:
        self._tx, self._format, self._start_no = tx, message_format, start_no
        self._lacking: set[CallId] = set()
        """Ids of the results so far whose call has not been met."""
        self._oldest: dict[CallId, int] = {}
        """By id, the oldest call among the replies that were searched for one."""
        self._reply_no: int | None = None
        self._searching = False

    def lack(self, call_ids: set[CallId]) -> None:
        """Add results of what must stay, before any other: those without their call."""
        self._lacking.update(call_ids)

    @stored_text()
    def add(self, row: statements.CompactionCutPage) -> None:
        """Add the next entry. One that its author excludes from the context is no part of it."""
        if row.projection == Projection.EXCLUDED:
            return
        if row.role in self._format.result_roles or (row.calls and self._lacking):
            item = _item(self._tx, row.entry_no)
            self._lacking.difference_update(self._format.opens(item))
            self._lacking.update(self._format.closes(item))

    @stored_text()
    def lie_before(self, entry_no: int) -> bool:
        """Tell whether a call up to an entry has a result among those that were added.

        A result whose call is not in the context is forgotten: nothing separates the two.
        """
        self._lacking = {call_id for call_id in self._lacking if self._is_before(call_id, entry_no)}
        return bool(self._lacking)

    def _is_before(self, call_id: CallId, entry_no: int) -> bool:
        if not self._searching:
            self._searching = True
            self._reply_no = self._tx.one("transcript.by_no", entry_no=entry_no).model_no
        while self._oldest.get(call_id, entry_no + 1) > entry_no:
            reply_no = self._reply_no
            if reply_no is None or (self._start_no is not None and reply_no < self._start_no):
                return False
            reply = self._tx.one("compaction.reply", entry_no=reply_no)
            if reply.calls:
                self._oldest.update(
                    dict.fromkeys(self._format.opens(_item(self._tx, reply_no)), reply_no)
                )
            self._reply_no = reply.model_no
        return True


def _item(tx: ReadTx, entry_no: int) -> dict[str, Any]:
    item: dict[str, Any] = loads(tx.one("compaction.message", entry_no=entry_no).content)
    return item

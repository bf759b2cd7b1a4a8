"""A search for words in all that was said, in the index and in what is not there yet.

A person's words are taken as they are: all of them are to be in an entry, in any order, and those
in quotes side by side. No character in them means anything else. Capitals and accents make no
difference, by the rules of the index's tokenizer (`ReadTx.words`).

A page is one snapshot. It has the hits of the index and those of the newest entries that are not
in it yet, in one order: the newest session first, and of it the last entry. An entry is in one of
the two at any time, so a list that is read in pages has none twice, whatever fills the index
meanwhile. All work of a page is bounded. What the bounds left out is counted in it.

An entry is found once, with the session that it was appended to. Forks share it. It is found as
well when its session has left it by an undo or a switch of branches, and the hit says so.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

from sessiondb.backend import ReadTx, Word
from sessiondb.errors import InvalidInput
from sessiondb.limits import (
    SEARCH_HITS_MAX,
    SEARCH_LOOK_AT_ONCE,
    SEARCH_LOOK_MAX,
    SEARCH_TAIL_CHARS,
    SEARCH_TAIL_ENTRIES,
    SEARCH_TAIL_SESSIONS,
    SEARCH_WORDS_CHARS_MAX,
    SEARCH_WORDS_MAX,
    SEQ_MAX,
)
from sessiondb.models import SearchHit, SearchPage

from .paths import Segment, entry_number, segments, seq_of, session_of

if TYPE_CHECKING:
    from sessiondb import statements

    _Described = statements.SearchDescribed
    _Matched = statements.SearchMatches

_LAST: Final = 2**63 - 1
_PIECES: Final = re.compile(r'"([^"]*)"?|([^"\s]+)')
# Marks around a word in a snippet of the index. A text that has them itself loses them, and its
# words may be marked wrong.
_BEGIN, _END = "\x02", "\x03"
_AROUND: Final = 10
"""So many words stand before the first hit in a snippet, and twice as many behind it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The words of a search."""

    phrases: tuple[tuple[str, ...], ...]
    """Words that stand side by side, as the index has them."""

    def may_be_in(self, lowered: str) -> bool:
        """Tell whether a text of ASCII, in small letters, has each of the words."""
        words = {word for phrase in self.phrases for word in phrase}
        return all(_whole_word(word).search(lowered) for word in words)

    @property
    def match(self) -> str:
        """The words as FTS5 takes them. They are letters and digits, in quotes."""
        return " AND ".join(f'"{" ".join(phrase)}"' for phrase in self.phrases)


@lru_cache(maxsize=256)
def _whole_word(word: str) -> re.Pattern[str]:
    """Return what finds a word in a text of ASCII: all but letters and digits stand between."""
    return re.compile(f"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries are searched."""

    session_no: int | None = None
    """Those of a session, with those that it shares as a fork."""
    agent_id: str | None = None
    role: str | None = None
    """A role of a message, or the type of another entry."""
    since_ms: int = 0
    """Those that were appended then or later."""

    @property
    def leave_out(self) -> bool:
        """Whether a match of the words need not be a hit."""
        return self.agent_id is not None or self.role is not None or self.since_ms > 0


def wanted(tx: ReadTx, text: str) -> Wanted:
    """Return the words that a person typed.

    Raises:
        InvalidInput: there is no word among them, or there are too many.
    """
    if len(text) > SEARCH_WORDS_CHARS_MAX:
        raise InvalidInput(
            f"a search has at most {SEARCH_WORDS_CHARS_MAX:,} characters, and these are "
            f"{len(text):,}. Nothing was searched"
        )
    phrases: list[tuple[str, ...]] = []
    for phrase, word in _PIECES.findall(text):
        found = tuple(one.word for one in tx.words(phrase or word))
        if found and found not in phrases:
            phrases.append(found)
    if not phrases:
        raise InvalidInput(
            f"there is no word to search for in {text[:40]!r}: a word has letters or digits. "
            "Nothing was searched"
        )
    if sum(map(len, phrases)) > SEARCH_WORDS_MAX:
        raise InvalidInput(
            f"a search has at most {SEARCH_WORDS_MAX} words, and these are "
            f"{sum(map(len, phrases)):,}. Nothing was searched"
        )
    return Wanted(tuple(phrases))


def check_limit(limit: int) -> None:
    """Refuse a number of hits that is none of a page."""
    if not 0 < limit <= SEARCH_HITS_MAX:
        raise InvalidInput(f"a page of a search has 1 to {SEARCH_HITS_MAX} hits, not {limit}")


def page(tx: ReadTx, text: str, filters: Filters, before_no: int | None, limit: int) -> SearchPage:
    """Return one page of what a search finds.

    It may have fewer hits than `limit`, or none, although others follow: `next` says so.

    Raises:
        InvalidInput: there is no word to search for, or `limit` is not one of a page.
    """
    check_limit(limit)
    words = wanted(tx, text)
    built = tx.first("search.state") is not None
    tail = _Tail(tx, words, filters)
    look = _Look(tx, words, filters, limit)
    hits: list[SearchHit] = []
    paths: dict[int, list[Segment]] = {}
    for span in _spans(tx, filters, before_no):
        behind = [found for found in tail.hits if _is_in(found.row, span)]
        found = look.hits(span)
        if behind:
            found = heapq.merge(behind, found, key=lambda one: -one.row.entry_no)
        for one in found:
            if len(hits) == limit:
                return SearchPage(tuple(hits), hits[-1].entry_no, tail.unread, built)
            hits.append(_hit(tx, one, words, paths))
        if look.reached_no is not None:
            return SearchPage(tuple(hits), look.reached_no, tail.unread, built)
    return SearchPage(tuple(hits), None, tail.unread, built)


# -- where -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Span:
    """A range of entries, both numbers included. None: of every branch."""

    low_no: int
    high_no: int
    branch_no: int | None = None


def _spans(tx: ReadTx, filters: Filters, before_no: int | None) -> Iterator[_Span]:
    """Yield the ranges that are searched, last ones first."""
    last_no = _LAST if before_no is None else before_no - 1
    for span in _all_spans(tx, filters):
        if span.low_no <= last_no:
            yield _Span(span.low_no, min(span.high_no, last_no), span.branch_no)


def _all_spans(tx: ReadTx, filters: Filters) -> Iterator[_Span]:
    number = filters.session_no
    if number is None:
        yield _Span(0, _LAST)
        return
    yield _Span(entry_number(number, 0), entry_number(number, SEQ_MAX))
    head_no = tx.one("context.pointers", session_no=number).head_no
    for segment in reversed(segments(tx, head_no)):
        if session_of(segment.high_no) != number:
            yield _Span(segment.low_no, segment.high_no, segment.branch_no)


def _is_in(row: _Described | _Matched, span: _Span) -> bool:
    return span.low_no <= row.entry_no <= span.high_no and span.branch_no in (None, row.branch_no)


def _described(
    tx: ReadTx, numbers: Sequence[int], filters: Filters, branch_no: int | None
) -> list[_Described]:
    if not numbers:
        return []
    return tx.all("search.described", numbers=json.dumps(numbers), **_asked_for(filters, branch_no))


class _AskedFor(TypedDict):
    branch_no: int | None
    agent_id: str | None
    role: str | None
    since_ms: int
    checkpoints: int


def _asked_for(filters: Filters, branch_no: int | None) -> _AskedFor:
    return {
        "branch_no": branch_no,
        "agent_id": filters.agent_id,
        "role": filters.role,
        "since_ms": filters.since_ms,
        "checkpoints": int(filters.session_no is not None),
    }


# -- in the index ----------------------------------------------------------------------


class _Found(NamedTuple):
    """An entry that has the words: its snippet from the index, or its text and its words."""

    row: _Described | _Matched
    snippet: bytes | None = None
    text: str | None = None
    words: Sequence[Word] = ()


class _Look:
    """A bounded look into the index, for a page of `limit` hits."""

    def __init__(self, tx: ReadTx, words: Wanted, filters: Filters, limit: int) -> None:
        self._tx, self._words, self._filters = tx, words, filters
        self._at_once = (
            SEARCH_LOOK_AT_ONCE if filters.leave_out else min(limit + 1, SEARCH_LOOK_AT_ONCE)
        )
        self._left = SEARCH_LOOK_MAX
        self.reached_no: int | None = None
        """Where the bound ended it. None: it has seen every match."""

    def hits(self, span: _Span) -> Iterator[_Found]:
        """Yield the hits in a range, last ones first."""
        high_no, asked_for = span.high_no, _asked_for(self._filters, span.branch_no)
        while True:
            rows = self._tx.all(
                "search.matches",
                words=self._words.match,
                low_no=span.low_no,
                high_no=high_no,
                limit=self._at_once,
                **asked_for,
            )
            for row in rows:
                if row.content is not None:
                    yield _Found(row, snippet=row.content)
            self._left -= len(rows)
            if len(rows) < self._at_once:
                return
            high_no = rows[-1].entry_no - 1
            if self._left <= 0:
                self.reached_no = rows[-1].entry_no
                return


# -- what is not there yet -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Behind:
    """Entries that are not in the index: how many, and where they are, the newest session first."""

    entries: int
    ranges: list[tuple[int, int]]
    """Of a session the last entry in the index, and its last one."""


def _behind(tx: ReadTx, filters: Filters) -> _Behind:
    if filters.session_no is None:
        rows = tx.all("search.behind", limit=SEARCH_TAIL_SESSIONS)
        ranges = [(row.indexed_no, entry_number(row.session_no, row.last_seq)) for row in rows]
        if len(rows) == SEARCH_TAIL_SESSIONS:  # there may be more, and a count reads every session
            return _Behind(tx.one("search.count_behind").behind, ranges)
        return _Behind(_entries_in(ranges), ranges)
    ranges = []
    for number in sorted(
        {session_of(one.high_no) for one in _all_spans(tx, filters)}, reverse=True
    ):
        row = tx.one("search.indexed", session_no=number)
        if row.archived_at_ms is None:
            indexed_no = row.indexed_no or entry_number(number, 0)
            ranges.append((indexed_no, entry_number(number, row.last_seq)))
    return _Behind(_entries_in(ranges), ranges)


def _entries_in(ranges: list[tuple[int, int]]) -> int:
    return sum(last_no - indexed_no for indexed_no, last_no in ranges)


class _Tail:
    """The newest entries that are not in the index: those that have the words."""

    def __init__(self, tx: ReadTx, words: Wanted, filters: Filters) -> None:
        self.unread = 0
        texts = dict(self._read(tx, _behind(tx, filters)))
        found = {number: matching(tx, text, words) for number, text in texts.items()}
        numbers = [number for number, words_of in found.items() if words_of]
        self.hits = [
            _Found(row, text=texts[row.entry_no], words=found[row.entry_no])
            for row in _described(tx, numbers, filters, None)
        ]
        """Last ones first."""

    def _read(self, tx: ReadTx, behind: _Behind) -> Iterator[tuple[int, str]]:
        """Yield the texts, bounded. Count the entries that are left out."""
        entries, chars = SEARCH_TAIL_ENTRIES, SEARCH_TAIL_CHARS
        self.unread = behind.entries
        for indexed_no, last_no in behind.ranges:
            while entries > 0 and chars > 0 and last_no > indexed_no:
                limit = min(entries, _TEXTS_AT_ONCE)
                found = tx.page("search.texts", after_no=indexed_no, last_no=last_no, limit=limit)
                for one in found.rows:
                    text = (one.content or b"").decode(errors="replace")
                    chars -= len(text)
                    yield one.entry_no, text
                entries -= len(found.rows)
                reached_no = found.rows[-1].entry_no if found.more else indexed_no + 1
                self.unread -= last_no - reached_no + 1
                last_no = reached_no - 1


def matching(tx: ReadTx, text: str, wanted: Wanted) -> list[Word]:
    """Return the words of a text, or none unless it has all that are searched for."""
    if text.isascii() and not wanted.may_be_in(text.lower()):
        return []  # sooner than to take it apart
    words = tx.words(text)
    return words if all(_places(words, phrase) for phrase in wanted.phrases) else []


_TEXTS_AT_ONCE: Final = 20
"""Texts have 100,000 characters at most."""


def _places(words: Sequence[Word], phrase: Sequence[str]) -> list[int]:
    """Return where a phrase stands among words."""
    size = len(phrase)
    return [
        at
        for at, word in enumerate(words)
        if word.word == phrase[0]
        and tuple(one.word for one in words[at : at + size]) == tuple(phrase)
    ]


# -- a hit -----------------------------------------------------------------------------


def _hit(tx: ReadTx, found: _Found, words: Wanted, paths: dict[int, list[Segment]]) -> SearchHit:
    row = found.row
    snippet, marks = (
        snippet_of(found.text, found.words, words)
        if found.text is not None
        else _unmarked(found.snippet or b"")
    )
    return SearchHit(
        session_id=row.session_id,
        agent_id=row.agent_id,
        entry_id=row.entry_id,
        entry_no=row.entry_no,
        seq=seq_of(row.entry_no),
        type=row.type,
        role=row.role,
        appended_at_ms=row.appended_at_ms,
        snippet=snippet,
        marks=marks,
        on_path=_is_on_path(tx, row, paths),
    )


def _is_on_path(tx: ReadTx, row: _Described | _Matched, paths: dict[int, list[Segment]]) -> bool:
    """Tell whether an entry is on its session's path. Most are on the branch of its last entry."""
    if row.head_no is None:
        return False
    if row.branch_no == row.head_branch_no:
        return row.entry_no <= row.head_no
    if row.session_no not in paths:
        paths[row.session_no] = segments(tx, row.head_no)
    return any(
        segment.branch_no == row.branch_no and segment.low_no <= row.entry_no <= segment.high_no
        for segment in paths[row.session_no]
    )


def _unmarked(snippet: bytes) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return a snippet of the index without the marks around its words, and where they were."""
    marked = snippet.decode(errors="replace")
    pieces = marked.replace(_END, _BEGIN).split(_BEGIN)  # between words, a word, and so on
    if marked.count(_BEGIN) != marked.count(_END):
        return "".join(pieces), ()
    ends = list(accumulate(map(len, pieces)))
    return "".join(pieces), tuple(zip(ends[::2], ends[1::2], strict=False))


def snippet_of(
    text: str, words: Sequence[Word], wanted: Wanted
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return the part of a text around the first place of the words, and where they are in it."""
    places = sorted(
        (at, at + len(phrase) - 1) for phrase in wanted.phrases for at in _places(words, phrase)
    )
    first = max(places[0][0] - _AROUND, 0)
    last = min(places[0][1] + 2 * _AROUND, len(words) - 1)
    encoded = text.encode()
    start = words[first].start if first else 0
    end = words[last].end if last < len(words) - 1 else len(encoded)
    before = "..." if first else ""

    def place(byte: int) -> int:
        return len(before) + len(encoded[start:byte].decode(errors="replace"))

    marks = tuple(
        (place(words[low].start), place(words[high].end))
        for low, high in places
        if first <= low and high <= last
    )
    behind = "..." if end < len(encoded) else ""
    return before + encoded[start:end].decode(errors="replace") + behind, marks

"""Put a context in order, so that it is a prompt that its provider takes.

A transcript is in order of arrival. A person writes while a tool works, a process dies before a
result comes, another program has cut between a call and its result. A provider answers 400 to
each of these, and so to every later request of that session. In words:

* A result stands right behind its call, whatever was appended in between. What stood there comes
  after it. Results of one reply keep the order in which they came.
* A result belongs to the last call before it with its id, and the first result of a call counts.
  A second one, and a result whose call is not in the context, are left out.
* A call without a result gets one that says so. Of a reply that failed or was aborted no call was
  ever carried out: it is left out.
* A message that says nothing is left out, and so is a reasoning that leads to nothing. Where the
  provider wants a user's message first, a reply is not the first.

The entries stay as they are. Most contexts are in order as they are stored, and are not decoded.
So each append notes whether its entry stands where a prompt may have it (`follow`).

OpenClaw repairs a prompt in the same way before it sends it (`agents/session-transcript-repair`),
and pi gives calls without a result one (`ai/providers/transform-messages`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from .formats import FORMATS, CallId, spoken
from .formats.prompt import PROMPTS, Call, Prompt

Item = dict[str, Any]

OPEN_CALLS_MAX: Final = 100
"""Calls that are open at once and are remembered. Of more it is only known that they are open."""

_UNKNOWN: Final = "unknown"
_LEAD: Final = "lead"
"""Stands among the open calls while the last item is nothing without the model's next one."""


# -- while entries are appended --------------------------------------------------------


class Ties(NamedTuple):
    """What ties an item to its neighbours in a prompt."""

    prompt: Prompt
    called: tuple[str, ...]
    answered: tuple[str, ...]
    """Marks of the calls that it makes, and of those whose results it holds."""
    as_is_in: int
    """The bits of the formats whose provider takes it as it is stored."""
    leads: bool
    by_model: bool


def ties_of(may_be: int, item: Item) -> Ties:
    """Work out what ties an item to its neighbours. `may_be` has the bits of its formats.

    It is read in the first of them. All say the same of its calls and results. Every append
    pays for this, so the most usual item, a text that fits several formats, is told at once.
    """
    message_format = spoken(may_be)
    prompt = PROMPTS[message_format.name]
    taken = prompt.taken(item)
    as_is_in = message_format.bit & may_be
    if taken is not item or message_format.sendable(item) is not item:
        as_is_in = 0
    if may_be & ~message_format.bit:
        content = item.get("content")
        if as_is_in and len(item) == 2 and isinstance(content, str) and content.strip():
            as_is_in = may_be
        else:
            as_is_in |= _as_is_in(may_be & ~message_format.bit, item)
    calls = prompt.calls(taken if taken is not None else item)
    results = prompt.results(item)
    return Ties(
        prompt,
        tuple([_mark(call.key) for call in calls]) if calls else (),
        tuple([_mark(key) for key, _ in results]) if results else (),
        as_is_in,
        prompt.leads(item),
        prompt.by_model(item),
    )


def _as_is_in(may_be: int, item: Item) -> int:
    found = 0
    for each in FORMATS:
        if (
            each.bit & may_be
            and each.sendable(item) is item
            and PROMPTS[each.name].taken(item) is item
        ):
            found |= each.bit
    return found


def _mark(key: CallId) -> str:
    """Return a short name for a call's id, which may be of any length."""
    return hashlib.blake2b(repr(key).encode(errors="replace"), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Open:
    """The calls that have no result at some place of a transcript."""

    marks: tuple[str, ...] = ()
    is_known: bool = True

    @property
    def is_open(self) -> bool:
        """False: no call is open, for sure."""
        return bool(self.marks) or not self.is_known

    @property
    def may_have_calls(self) -> bool:
        """False: no call is open, for sure, but an item may be that leads to the next one."""
        return not self.is_known or any(mark != _LEAD for mark in self.marks)

    @property
    def column(self) -> str:
        """The marks, as a session's row has them."""
        return " ".join(self.marks) if self.is_known else _UNKNOWN


NOTHING_OPEN: Final = Open()
UNKNOWN: Final = Open(is_known=False)


def open_at_head(formats: int, head_no: int | None, marks: str | None, open_calls: int) -> Open:
    """Read what a session's row says of the calls that are open at its head.

    `marks` is what `Open.column` wrote, or None if no append has noted it for this head.
    """
    if marks is None:
        return open_behind(formats, head_no, open_calls)
    return UNKNOWN if marks == _UNKNOWN else Open(tuple(marks.split()))


def open_behind(formats: int, entry_no: int | None, open_calls: int) -> Open:
    """Tell which calls are open behind an entry of which no more is known than its own calls.

    Where calls are items of their own, one may be open further back, or an item may lead to one.
    """
    may_go_on = entry_no is not None and PROMPTS[spoken(formats).name].calls_are_items
    return UNKNOWN if open_calls or may_go_on else NOTHING_OPEN


def follow(before: Open, ties: Ties, bit: int) -> tuple[Open, bool]:
    """Return what is open after an item, and whether it stands where a prompt may have it.

    `bit` is that of the prompt's format. If all items of a context stand well, and nothing is
    open at its end, `in_order` would change nothing.
    """
    if not before.is_known:
        # Until the next call any result may be right, and any other item in between.
        return (Open(ties.called) if ties.called else UNKNOWN), False
    fits = bool(ties.as_is_in & bit)
    if not (before.marks or ties.answered or ties.called or ties.leads):
        return before, fits  # most items: nothing is open, before and after
    marks = list(before.marks)
    if _LEAD in marks and not ties.leads:
        fits = fits and ties.by_model
        if ties.by_model:
            marks.remove(_LEAD)
    for mark in ties.answered:
        if mark in marks:
            marks.remove(mark)
        else:
            fits = False
    calls = [mark for mark in marks if mark != _LEAD]
    if ties.answered:
        fits = fits and not (ties.prompt.results_are_joined and calls)
    elif calls:
        fits = fits and bool(ties.called) and ties.prompt.calls_are_items
    if ties.called:
        marks = [*(calls if ties.prompt.calls_are_items else ()), *ties.called]
    if ties.leads and _LEAD not in marks:
        marks.append(_LEAD)
    return (Open(tuple(marks)) if len(marks) <= OPEN_CALLS_MAX else UNKNOWN), fits


# -- when a context is read ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A message of a context."""

    message: Item
    entry_no: int
    text: bytes | None = None
    """As it is stored. None: it was changed, or made."""


@dataclass(slots=True)
class _Reply:
    """A reply that calls tools, with its results. Of some formats, a run of calls."""

    items: list[Part]
    open: list[tuple[Call, Part]] = field(default_factory=list)
    """Its calls without a result, each with the item that makes it."""
    results: list[Part] = field(default_factory=list)


def in_order(
    prompt: Prompt, parts: Iterable[Part], working_from_no: int | None = None
) -> list[Part]:
    """Return the messages of a context as its provider takes them.

    A call of the entries from `working_from_no` on is one of a turn that still runs.
    """
    sequence = _Sequence(prompt)
    for part in parts:
        sequence.add(part)
    return sequence.emitted(working_from_no)


class _Sequence:
    """A prompt in the making."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.places: list[Part | _Reply] = []
        self.last: dict[CallId, _Reply | None] = {}
        """By id, the last reply with such a call. None: its calls are left out."""
        self.led: list[Part] = []
        """Items that wait for the model's next one, and behind which it may be too late."""
        self.others_since_led = False

    def add(self, part: Part) -> None:
        """Add the next message of the context."""
        taken = self.prompt.taken(part.message)
        for call in self.prompt.calls(part.message):
            self.last[call.key] = None
        if taken is None:
            return
        if taken is not part.message:
            part = Part(taken, part.entry_no)
        if self._answers_at_once(part):
            return
        rest: Part | None = part
        results = self.prompt.results(part.message)
        if results:
            for key, result in results:
                self._answer(key, part if result is part.message else Part(result, part.entry_no))
            left = self.prompt.rest(part.message)
            rest = Part(left, part.entry_no) if left is not None else None
        if rest is not None:
            self._place(rest)

    def _answers_at_once(self, part: Part) -> bool:
        """Keep a message whole that has all results of the reply right before it."""
        place = self.places[-1] if self.places else None
        if not self.prompt.results_are_joined or not isinstance(place, _Reply) or place.results:
            return False
        keys = Counter(key for key, _ in self.prompt.results(part.message))
        if not keys or keys != Counter(call.key for call, _ in place.open):
            return False
        place.items.append(part)
        place.open.clear()
        return True

    def _answer(self, key: CallId, result: Part) -> None:
        reply = self.last.get(key)
        if reply is None:
            return  # its call is not in the context
        answered = next((called for called in reply.open if called[0].key == key), None)
        if answered is None:
            return  # the call has a result
        reply.open.remove(answered)
        (reply.results if self.prompt.results_are_joined else reply.items).append(result)

    def _place(self, part: Part) -> None:
        if self.prompt.leads(part.message):
            if self.others_since_led:
                self.led = []
            self.led.append(part)
            self.others_since_led = False
            return
        led: list[Part] = []
        if self.prompt.by_model(part.message):
            led, self.led = self.led, []
        self.others_since_led = bool(self.led)
        calls = self.prompt.calls(part.message)
        if not calls:
            self.places += [*led, part]
            return
        reply = self.places[-1] if self.places and self.prompt.calls_are_items else None
        if not isinstance(reply, _Reply) or led:
            reply = _Reply([*led])
            self.places.append(reply)
        reply.items.append(part)
        for call in calls:
            reply.open.append((call, part))
            self.last[call.key] = reply

    def emitted(self, working_from_no: int | None) -> list[Part]:
        """Return the messages. What still waits for the model's next one is left out."""
        found: list[Part] = []
        for place in self.places:
            if isinstance(place, _Reply):
                found += self._closed(place, working_from_no)
            else:
                found.append(place)
        if self.prompt.user_first and found and self.prompt.by_model(found[0].message):
            found.insert(0, Part(self.prompt.beginning(), found[0].entry_no))
        return found

    def _closed(self, reply: _Reply, working_from_no: int | None) -> list[Part]:
        items, results = reply.items, reply.results
        for call, caller in reply.open:
            works = working_from_no is not None and caller.entry_no >= working_from_no
            text = (_STILL_WORKING if works else _CUT_OFF).format(tool=call.tool)
            closing = self.prompt.closing(call, text, caller.message)
            if closing is None:
                items = self._without(items, caller)
            elif self.prompt.results_are_joined:
                results = [*results, Part(closing, caller.entry_no)]
            else:
                items = [*items, Part(closing, caller.entry_no)]
        return [*items, *self._joined(results)]

    def _without(self, items: Sequence[Part], caller: Part) -> list[Part]:
        """Leave out a call that cannot be closed, and what led to it."""
        at = next(at for at, item in enumerate(items) if item is caller)
        before = list(items[:at])
        while before and self.prompt.leads(before[-1].message):
            before.pop()
        return [*before, *items[at + 1 :]]

    def _joined(self, results: Sequence[Part]) -> list[Part]:
        if len(results) <= 1:
            return list(results)
        joined = self.prompt.joined([result.message for result in results])
        return [Part(message, results[0].entry_no) for message in joined]


_CUT_OFF: Final = (
    "There is no result of this call of the tool {tool}. It did not finish: it was stopped, or its "
    "process ended. Whether it had an effect is not known, and it was not tried again."
)
_STILL_WORKING: Final = (
    "There is no result of this call of the tool {tool} yet. It has not finished: a turn of this "
    "conversation is still working on it."
)

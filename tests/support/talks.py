"""Random conversations in each message format, with what the rules must keep together.

The maker of a conversation knows by itself which items belong to each other and which
message is answered. It asks sessiondb nothing.
"""

from __future__ import annotations

import json
import random
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sessiondb.words import (
    MessageFormat,
)

Item = dict[str, Any]


@dataclass
class Talk:
    """A conversation: its items, in the order of their appends."""

    format: MessageFormat
    items: list[Item] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    """Places of two items of which a context has both or none: a call and its result, ..."""
    results: set[int] = field(default_factory=set)
    """Places of items with results: no context begins there."""
    people: list[int] = field(default_factory=list)
    """Places of what people wrote."""
    answers: list[int] = field(default_factory=list)
    """Places of usable replies without open calls."""

    def add(self, item: Item) -> int:
        """Append an item. Return its place."""
        self.items.append(item)
        return len(self.items) - 1

    @property
    def unanswered(self) -> list[int]:
        """Return the places of what people wrote since the last answer."""
        last = self.answers[-1] if self.answers else -1
        return [place for place in self.people if place > last]


class Speaker(ABC):
    """Says in one format what happens in a conversation."""

    format: ClassVar[MessageFormat]

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.talk = Talk(self.format)
        self.called: dict[str, int] = {}

    def words(self) -> str:
        """Return a text of some length."""
        return self.rng.choice(("a", "wort ", "日本", "long " * 40)) * self.rng.randint(1, 12)

    def person(self) -> None:
        """Append what a person writes."""
        self.talk.people.append(self.talk.add({"role": "user", "content": self.words()}))

    @abstractmethod
    def calls(self, ids: list[str]) -> None:
        """Append a reply that calls tools."""

    @abstractmethod
    def result(self, ids: list[str]) -> None:
        """Append the results of some calls."""

    @abstractmethod
    def answer(self) -> None:
        """Append a usable reply."""

    @abstractmethod
    def failure(self) -> None:
        """Append a reply that is not usable."""

    def note_calls(self, place: int, ids: list[str]) -> None:
        """Remember which item called."""
        self.called.update(dict.fromkeys(ids, place))

    def note_results(self, place: int, ids: list[str]) -> None:
        """Remember that an item has results: each belongs to the last call with its id."""
        self.talk.results.add(place)
        self.talk.pairs += [(self.called[call], place) for call in ids]


class Pi(Speaker):
    """pi: a result is a message of its own."""

    format = "pi"

    def calls(self, ids: list[str]) -> None:
        blocks = [
            {"type": "toolCall", "id": call, "name": "read", "arguments": {"p": self.words()}}
            for call in ids
        ]
        self.note_calls(self.talk.add({"role": "assistant", "content": blocks}), ids)

    def result(self, ids: list[str]) -> None:
        for call in ids:
            content = [{"type": "text", "text": self.words()}]
            item = {"role": "toolResult", "toolCallId": call, "toolName": "r", "content": content}
            self.note_results(self.talk.add({**item, "isError": False}), [call])

    def answer(self) -> None:
        content = [{"type": "text", "text": self.words()}]
        self.talk.answers.append(self.talk.add({"role": "assistant", "content": content}))

    def failure(self) -> None:
        self.talk.add(
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "half a"}],
                "stopReason": self.rng.choice(("error", "aborted")),
            }
        )


class Chat(Speaker):
    """OpenAI chat: calls are a field, a result is a message of its own."""

    format = "openai-chat"

    def calls(self, ids: list[str]) -> None:
        calls = [
            {
                "id": call,
                "type": "function",
                "function": {"name": "read", "arguments": json.dumps({"p": self.words()})},
            }
            for call in ids
        ]
        item = {"role": "assistant", "content": None, "tool_calls": calls}
        self.note_calls(self.talk.add(item), ids)

    def result(self, ids: list[str]) -> None:
        for call in ids:
            item = {"role": "tool", "tool_call_id": call, "content": self.words()}
            self.note_results(self.talk.add(item), [call])

    def answer(self) -> None:
        item = {"role": "assistant", "content": self.words()}
        self.talk.answers.append(self.talk.add(item))

    def failure(self) -> None:
        self.talk.add({"role": "assistant", "content": None, "refusal": "I cannot."})


class Responses(Speaker):
    """OpenAI Responses: a reply is several items."""

    format = "openai-responses"

    def _lead(self) -> int | None:
        if self.rng.random() < 0.5:
            return None
        summary = [{"type": "summary_text", "text": self.words()}]
        return self.talk.add({"type": "reasoning", "id": self._id("rs"), "summary": summary})

    def _id(self, kind: str) -> str:
        return f"{kind}_{len(self.talk.items)}"

    def _message(self, **fields: Any) -> int:
        content = [{"type": "output_text", "text": self.words(), "annotations": []}]
        item = {"type": "message", "id": self._id("m"), "role": "assistant", "content": content}
        return self.talk.add({**item, "status": "completed", **fields})

    def calls(self, ids: list[str]) -> None:
        lead = self._lead()
        if self.rng.random() < 0.4:  # commentary, which looks like an answer until a call follows
            place = self._message()
            self.talk.pairs += [(lead, place)] if lead is not None else []
            lead = None
        for call in ids:
            kind = self.rng.choice(("function_call", "custom_tool_call"))
            field_name = "arguments" if kind == "function_call" else "input"
            item = {"type": kind, "call_id": call, "name": "read", field_name: self.words()}
            place = self.talk.add(item)
            self.note_calls(place, [call])
            self.talk.pairs += [(lead, place)] if lead is not None else []
            lead = None

    def result(self, ids: list[str]) -> None:
        for call in ids:
            kind = self.talk.items[self.called[call]]["type"]
            item = {"type": f"{kind}_output", "call_id": call, "output": self.words()}
            self.note_results(self.talk.add(item), [call])

    def answer(self) -> None:
        lead = self._lead()
        if self.rng.random() < 0.2:
            search = {"type": "web_search_call", "id": self._id("ws"), "status": "completed"}
            place = self.talk.add({**search, "action": {"type": "search", "query": "q"}})
            self.talk.pairs += [(lead, place)] if lead is not None else []
            lead = place
        place = self._message()
        self.talk.pairs += [(lead, place)] if lead is not None else []
        self.talk.answers.append(place)

    def failure(self) -> None:
        self._message(status="incomplete")


class Anthropic(Speaker):
    """Anthropic: results are blocks of a user message, perhaps with text beside them."""

    format = "anthropic"

    def calls(self, ids: list[str]) -> None:
        blocks: list[Item] = [{"type": "text", "text": self.words()}] * self.rng.randint(0, 1)
        blocks += [
            {"type": "tool_use", "id": call, "name": "read", "input": {"p": self.words()}}
            for call in ids
        ]
        self.note_calls(self.talk.add({"role": "assistant", "content": blocks}), ids)

    def result(self, ids: list[str]) -> None:
        together = [ids] if self.rng.random() < 0.6 else [[call] for call in ids]
        for part in together:
            blocks: list[Item] = [
                {"type": "tool_result", "tool_use_id": call, "content": self.words()}
                for call in part
            ]
            reminded = self.rng.random() < 0.3
            blocks += [{"type": "text", "text": "reminder " + self.words()}] * reminded
            place = self.talk.add({"role": "user", "content": blocks})
            self.note_results(place, part)
            if reminded:
                self.talk.people.append(place)

    def answer(self) -> None:
        content = [{"type": "text", "text": self.words()}]
        self.talk.answers.append(self.talk.add({"role": "assistant", "content": content}))

    def failure(self) -> None:
        content = [{"type": "text", "text": "I"}]
        self.talk.add({"role": "assistant", "content": content, "stop_reason": "refusal"})


SPEAKERS: dict[MessageFormat, type[Speaker]] = {
    each.format: each for each in (Pi, Chat, Responses, Anthropic)
}


def random_talk(message_format: MessageFormat, seed: int, *, new_ids: bool = False) -> Talk:
    """Return a conversation of a few turns, with all that may come between.

    With `new_ids` no call has an id of an earlier one: some providers want that.
    """
    rng = random.Random(seed)
    speaker = SPEAKERS[message_format](rng)
    count = 0
    for _ in range(rng.randint(1, 6)):
        for _ in range(rng.choice((1, 1, 1, 2, 0))):
            speaker.person()
        for _ in range(rng.choice((0, 0, 1, 2, 3))):
            ids = []
            for _ in range(rng.choice((1, 1, 2, 3))):
                count += 1
                # Some programs count from one in each turn.
                begins_anew = rng.random() >= 0.8 and not new_ids
                ids.append(f"c{len(ids)}" if begins_anew else f"c{count}")
            ids = list(dict.fromkeys(ids))
            speaker.calls(ids)
            if rng.random() < 0.3:
                speaker.person()
            if rng.random() < 0.85:
                rng.shuffle(ids)
                speaker.result(ids[: len(ids) if rng.random() < 0.9 else 1])
        ending = rng.random()
        if ending < 0.7:
            speaker.answer()
        elif ending < 0.85:
            speaker.failure()
    return speaker.talk

"""Models: a scripted one without a network, and any OpenAI-compatible one.

Both answer and both summarise, as coroutines that may be cancelled at any await.
Neither knows anything of sessiondb: a context is a list of messages, as
`session.context()` returns it.

The scripted model obeys words in what it is told, so that a person (or a test) can see
each thing go wrong:

    !fail       raises             !empty     answers with nothing        !slow 3    takes 3 s
    !flaky      raises, but only at the first attempt                     !hang      never returns
    !stall      never returns at the first attempt; a later one answers at once
    !tool 3     asks for the tool `wait`, 3 s, and then says what came of it
    !long       a long answer          !half      writes half of an answer, and stops there

In a message they act on the answer. Behind `/compact` on the summary. `ScriptedModel.demo`
explains those that a visitor may like.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from .tools import TOOLS, calls_of

Message = dict[str, Any]

Write = Callable[[str], None]
"""Is called with each piece of an answer as it comes. What it shows is not kept."""

_CONTROL = re.compile(r"!(fail|flaky|empty|hang|stall|slow)\b(?: +([0-9.]+))?")
_TOOL = re.compile(r"!tool\b(?: +([0-9.]+))?")
_SUMMARY_CHARS_PER_MESSAGE = 60
_ASK_FOR_SUMMARY = (
    "Summarise the conversation so far for yourself: what was asked, what was decided, names and "
    "numbers that still matter, "
    "what is open. At most 300 words. "
)


class ModelError(Exception):
    """The model gave no answer."""


class Model(Protocol):
    """What the gateway asks of a model."""

    name: str
    demo: Mapping[str, str]
    """Words that it obeys, and what each does. A real model has none."""

    async def answer(
        self, system: str, messages: list[Message], *, attempt: int, write: Write
    ) -> Message:
        """Return the assistant's message to a conversation. Write it meanwhile, in pieces."""
        ...

    async def summarise(self, messages: list[Message], focus: str) -> str:
        """Return a summary of the messages."""
        ...

    async def close(self) -> None:
        """Hang up."""
        ...


def text_of(message: Message) -> str:
    """Return the text of a message of any role."""
    content = message.get("summary") or message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block.get("type") == "text")


def assistant(text: str, calls: Sequence[Message] = (), **fields: Any) -> Message:
    """Make an assistant's message: what it says, and the tools that it asks for."""
    content = [*([{"type": "text", "text": text}] if text or not calls else []), *calls]
    return {
        "role": "assistant",
        "content": content,
        "timestamp": round(time.time() * 1000),
        **fields,
    }


def tool_call(name: str, arguments: Message, call_id: str | None = None) -> Message:
    """Make the part of a message that asks for a tool."""
    return {
        "type": "toolCall",
        "id": call_id or f"call-{uuid.uuid4().hex[:12]}",
        "name": name,
        "arguments": arguments,
    }


PIECES = 20
"""The scripted model writes an answer in at most so many pieces."""

DEMO = {
    "!long": "a long answer with headings, a list and code. Two of them are worth a /compact",
    "!slow 10": "takes ten seconds. Write on meanwhile: it is answered in order",
    "!half": "writes half of an answer, and stops there until /stop",
    "!tool 5": "uses a tool for five seconds, and tells what came of it",
    "!flaky": "fails once, and is tried again",
    "!fail": "fails every time, and is given up in the end",
    "!empty": "answers with nothing",
}
LONG = """## A long answer

It has **bold** and *slanted* words, `code` in a line, and a [link](https://sqlite.org/wal.html).

1. A message is on disk before it is acknowledged.
2. An answer and the end of its turn are one transaction.
3. A summary is written beside the conversation.

- What waits is a row.
- What runs is a row, too.

```python
async with sessiondb.open("gateway.db") as db:
    await db.accept(key, message, channel="web", event_id=event_id)
```

> Memory holds only the open pages.

""" + "\n\n".join(
    f"Paragraph {number} is here to be long. So is the conversation after it, and that is what "
    "a summary is for: the model is shown the summary in place of these words, and people can "
    "still read every one of them."
    for number in range(1, 31)
)


@dataclass
class ScriptedModel:
    """Echoes after a delay, and does as it is told in order to fail."""

    delay_s: float = 0.8
    summary_delay_s: float = 4.0
    summary_script: str = ""
    """Acts on every summary, as the words behind `/compact` act on one."""
    name: str = "scripted"
    demo: Mapping[str, str] = field(default_factory=lambda: DEMO)

    async def answer(
        self, system: str, messages: list[Message], *, attempt: int, write: Write
    ) -> Message:
        """Repeat what was said, and how much of the conversation it was shown."""
        del system
        text = next(
            (text_of(message) for message in reversed(messages) if message["role"] == "user"), ""
        )
        if await _obey(text, self.delay_s / 2, attempt):
            return assistant("")
        if messages[-1]["role"] == "toolResult":
            return await self._say(f"The tool said: {text_of(messages[-1])}", text, write)
        if (wanted := _TOOL.search(text)) is not None:
            call = tool_call("wait", {"seconds": float(wanted[1] or 1)})
            return assistant("", [call], provider="scripted", model=self.name, stopReason="toolUse")
        summarised = any(message["role"] == "compactionSummary" for message in messages)
        remembers = f"{len(messages)} message{'s' * (len(messages) > 1)}" + (
            " with a summary of earlier ones" if summarised else ""
        )
        long = f"\n\n{LONG}" if "!long" in text else ""
        return await self._say(f"You said: {text}\n(I was shown {remembers}.){long}", text, write)

    async def _say(self, answer: str, text: str, write: Write) -> Message:
        """Write the answer piece by piece, in the other half of the time. `!half`: half of it."""
        words = re.findall(r"\S+\s*|\s+", answer)
        size = -(-len(words) // PIECES)
        pieces = ["".join(words[at : at + size]) for at in range(0, len(words), size)]
        for number, piece in enumerate(pieces):
            if "!half" in text and 2 * number >= len(pieces):
                await asyncio.Event().wait()
            write(piece)
            await asyncio.sleep(self.delay_s / 2 / len(pieces))
        return assistant(answer, provider="scripted", model=self.name, stopReason="stop")

    async def summarise(self, messages: list[Message], focus: str) -> str:
        """List how the first few messages begin."""
        if await _obey(f"{self.summary_script} {focus}", self.summary_delay_s, attempt=1):
            return ""
        begins = "; ".join(
            text_of(message)[:_SUMMARY_CHARS_PER_MESSAGE] for message in messages[:3]
        )
        return f"{len(messages)} earlier messages. They begin: {begins}"

    async def close(self) -> None:
        """Nothing is open."""


async def _obey(text: str, delay_s: float, attempt: int) -> bool:
    """Take the time, and do what the text says. True if the answer is to be empty."""
    found = _CONTROL.search(text)
    word, number = (found[1], found[2]) if found is not None else ("", None)
    if word == "hang" or (word == "stall" and attempt == 1):
        await asyncio.Event().wait()
    await asyncio.sleep(float(number) if word == "slow" and number else delay_s)
    if word == "fail" or (word == "flaky" and attempt == 1):
        raise ModelError(f"the script says !{word}")
    return word == "empty"


@dataclass
class ChatEndpoint:
    """Any endpoint that speaks OpenAI's chat completions, local or remote."""

    client: httpx.AsyncClient
    name: str
    demo: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, url: str, name: str, *, timeout_s: float = 300.0) -> ChatEndpoint:
        """Return a model of an endpoint, such as http://localhost:11434/v1.

        Its key is in GATEWAY_API_KEY.
        """
        key = os.environ.get("GATEWAY_API_KEY") or os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return cls(
            httpx.AsyncClient(base_url=url.rstrip("/") + "/", headers=headers, timeout=timeout_s),
            name,
        )

    async def answer(
        self, system: str, messages: list[Message], *, attempt: int, write: Write
    ) -> Message:
        """Ask for the next message. What the provider counted becomes its `usage`."""
        del attempt
        text, calls, usage = await self._complete(
            [{"role": "system", "content": system}, *map(_as_openai, messages)],
            write,
            tools=_OFFERED,
            stream=True,
            stream_options={"include_usage": True},
        )
        fields: Message = {"usage": usage} if usage else {}
        return assistant(
            text,
            calls,
            provider="openai-compatible",
            model=self.name,
            stopReason="toolUse" if calls else "stop",
            **fields,
        )

    async def summarise(self, messages: list[Message], focus: str) -> str:
        """Ask for a summary."""
        ask = {
            "role": "user",
            "content": _ASK_FOR_SUMMARY + (f"Mind this above all: {focus}" if focus else ""),
        }
        return (await self._complete([*map(_as_openai, messages), ask]))[0]

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()

    async def _complete(
        self, messages: list[Message], write: Write | None = None, **options: Any
    ) -> tuple[str, list[Message], dict[str, int] | None]:
        try:
            body = {"model": self.name, "messages": messages, **options}
            async with self.client.stream("POST", "chat/completions", json=body) as response:
                if response.is_error:
                    await response.aread()
                    response.raise_for_status()
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    note = await _put_together(response, write or (lambda _: None))
                else:  # it streams nothing
                    note = json.loads(await response.aread())
            message = note["choices"][0]["message"]
            text = message["content"] or ""
            asked = [(call["function"], call["id"]) for call in message.get("tool_calls") or ()]
            calls = [
                tool_call(function["name"], json.loads(function["arguments"] or "{}"), call_id)
                for function, call_id in asked
            ]
        except httpx.HTTPStatusError as error:
            raise ModelError(
                f"{error.request.url} answered {error.response.status_code}: "
                f"{error.response.text[:300]}"
            ) from error
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise ModelError(
                f"no answer from {self.client.base_url}: {type(error).__name__}: {error}"
            ) from error
        counted = note.get("usage") or {}
        if not counted.get("total_tokens"):
            return text, calls, None
        return (
            text,
            calls,
            {
                "input": counted.get("prompt_tokens", 0),
                "output": counted.get("completion_tokens", 0),
                "totalTokens": counted["total_tokens"],
            },
        )


async def _put_together(response: httpx.Response, write: Write) -> dict[str, Any]:
    """Read an answer that comes in pieces. Return it as if it had come whole."""
    content, calls, usage = "", dict[int, Message](), None
    async for line in response.aiter_lines():
        if not line.startswith("data:") or line.removeprefix("data:").strip() == "[DONE]":
            continue
        piece = json.loads(line.removeprefix("data:"))
        if "error" in piece:
            raise ModelError(f"{response.url} broke off: {str(piece['error'])[:300]}")
        usage = piece.get("usage") or usage
        for choice in piece.get("choices") or ():
            if said := choice["delta"].get("content"):
                content += said
                write(said)
            for part in choice["delta"].get("tool_calls") or ():
                call = calls.setdefault(part["index"], {"name": "", "arguments": ""})
                call["id"] = part.get("id") or call.get("id")
                for name in ("name", "arguments"):
                    call[name] += (part.get("function") or {}).get(name) or ""
    asked = [{"id": call.get("id"), "function": call} for call in calls.values()]
    return {"choices": [{"message": {"content": content, "tool_calls": asked}}], "usage": usage}


_OFFERED = [
    {
        "type": "function",
        "function": {"name": name, "description": tool.description, "parameters": tool.parameters},
    }
    for name, tool in TOOLS.items()
]


def _as_openai(message: Message) -> Message:
    text = text_of(message)
    match message["role"]:
        case "compactionSummary":
            return {"role": "user", "content": f"(A summary of what was said before.)\n{text}"}
        case "toolResult":
            return {"role": "tool", "tool_call_id": message["toolCallId"], "content": text}
        case "assistant":
            calls = [
                {
                    "id": call["id"],
                    "type": "function",
                    "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
                }
                for call in calls_of(message)
            ]
            return {
                "role": "assistant",
                "content": text,
                **({"tool_calls": calls} if calls else {}),
            }
        case _:
            return {"role": "user", "content": text}

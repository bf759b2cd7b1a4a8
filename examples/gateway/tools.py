"""Tools that the model may call.

A call is in the transcript before it runs, and its result as soon as there is one. Both
belong to the turn. So after a crash the transcript shows the call, and it is unknown
whether it ran. It does not run again by itself. In the next context sessiondb gives it a
result that says so, and the model decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Message = dict[str, Any]

WAIT_S_MAX = 60.0


@dataclass(frozen=True)
class Tool:
    """What a model is told of a tool, and how it is carried out."""

    description: str
    parameters: dict[str, Any]
    use: Callable[[dict[str, Any]], Awaitable[str]]


async def _clock(arguments: dict[str, Any]) -> str:
    del arguments
    return datetime.now(UTC).isoformat(timespec="seconds")


async def _wait(arguments: dict[str, Any]) -> str:
    seconds = min(max(float(arguments.get("seconds", 1)), 0.0), WAIT_S_MAX)
    await asyncio.sleep(seconds)
    return f"waited for {seconds:g} s"


TOOLS = {
    "clock": Tool("The time now, UTC.", {"type": "object", "properties": {}}, _clock),
    "wait": Tool(
        "Wait for some seconds.",
        {"type": "object", "properties": {"seconds": {"type": "number"}}},
        _wait,
    ),
}


def calls_of(message: Message) -> list[dict[str, Any]]:
    """Return what a message of the model asks for: blocks with an id, a name and arguments."""
    content = message.get("content")
    return (
        [block for block in content if block.get("type") == "toolCall"]
        if isinstance(content, list)
        else []
    )


async def use_tool(call: dict[str, Any]) -> Message:
    """Carry a call out.

    Return the message for the transcript. A tool that fails says so to the model.
    """
    tool = TOOLS.get(call["name"])
    if tool is None:
        return _result(
            call, f"there is no tool {call['name']!r}; there are {', '.join(TOOLS)}", is_error=True
        )
    try:
        return _result(call, await tool.use(call["arguments"]))
    except (TypeError, ValueError) as error:
        return _result(call, f"{call['name']} cannot do that: {error}", is_error=True)


def _result(call: dict[str, Any], text: str, *, is_error: bool = False) -> Message:
    return {
        "role": "toolResult",
        "toolCallId": call["id"],
        "toolName": call["name"],
        "content": [{"type": "text", "text": text}],
        "isError": is_error,
        "timestamp": round(time.time() * 1000),
    }

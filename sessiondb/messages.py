"""Typed messages: pydantic models of the messages of pi and OpenClaw, instead of dicts.

`session.append(UserMessage(content="hello"))` stores exactly the fields that were set, by their
own names. Unknown fields are kept: programs add their own (`idempotencyKey`, `runtimeContext`,
sender facts), and a dropped signature invalidates a conversation. Reading does not use these
models unless you call `parse_message`: validating a thousand entries costs ten times as much
as decoding them.

Source: pi `packages/ai/src/types.ts` and `coding-agent/src/core/messages.ts`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

from .json_text import dumps


class _Shape(BaseModel):
    """Fields are snake_case here and camelCase on disk. Both are accepted."""

    model_config = ConfigDict(extra="allow", alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="after")
    def _tag_is_set(self) -> Self:
        """Count the tag of the shape as set, so that it is stored although it is a default."""
        self.model_fields_set.update({"role", "type"} & type(self).model_fields.keys())
        return self


class Text(_Shape):
    """A piece of text."""

    type: Literal["text"] = "text"
    text: str
    text_signature: str | None = None


class Image(_Shape):
    """An inline image, base64."""

    type: Literal["image"] = "image"
    data: str
    mime_type: str


class Thinking(_Shape):
    """A model's reasoning. Its signature must go back to the provider byte for byte."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    thinking_signature: str | None = None
    redacted: bool | None = None


class ToolCall(_Shape):
    """A tool that the model wants to be called."""

    type: Literal["toolCall"] = "toolCall"
    id: str
    name: str
    arguments: dict[str, Any]
    thought_signature: str | None = None


class Cost(_Shape):
    """The cost of a reply, in the provider's currency."""

    input: float = 0
    output: float = 0
    cache_read: float = 0
    cache_write: float = 0
    total: float = 0


class Usage(_Shape):
    """Tokens that a provider counted for one reply. `total_tokens` is the context after it."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    total_tokens: int | None = None
    cost: Cost | None = None


class UserMessage(_Shape):
    """A person's message."""

    role: Literal["user"] = "user"
    content: str | list[Text | Image]
    timestamp: int | None = None


class AssistantMessage(_Shape):
    """A model's reply."""

    role: Literal["assistant"] = "assistant"
    content: list[Text | Thinking | ToolCall]
    api: str | None = None
    provider: str | None = None
    model: str | None = None
    usage: Usage | None = None
    stop_reason: str | None = None
    error_message: str | None = None
    timestamp: int | None = None


class ToolResultMessage(_Shape):
    """The result of a tool."""

    role: Literal["toolResult"] = "toolResult"
    tool_call_id: str
    tool_name: str
    content: list[Text | Image]
    is_error: bool = False
    details: Any = None
    timestamp: int | None = None


class BashExecutionMessage(_Shape):
    """A command that a person ran beside the conversation."""

    role: Literal["bashExecution"] = "bashExecution"
    command: str
    output: str
    exit_code: int | None = None
    cancelled: bool = False
    truncated: bool = False
    full_output_path: str | None = None
    exclude_from_context: bool | None = None
    timestamp: int | None = None


class OtherMessage(_Shape):
    """Any other role: `custom`, and those of future programs."""

    role: str
    content: Any = None
    timestamp: int | None = None


def _tag(value: Any) -> str:
    role = value.get("role") if isinstance(value, dict) else getattr(value, "role", None)
    return role if role in ("user", "assistant", "toolResult", "bashExecution") else "other"


Message = Annotated[
    Annotated[UserMessage, Tag("user")]
    | Annotated[AssistantMessage, Tag("assistant")]
    | Annotated[ToolResultMessage, Tag("toolResult")]
    | Annotated[BashExecutionMessage, Tag("bashExecution")]
    | Annotated[OtherMessage, Tag("other")],
    Field(discriminator=Discriminator(_tag)),
]

_adapter: TypeAdapter[Any] = TypeAdapter(Message)


def parse_message(message: dict[str, Any]) -> Message:
    """Validate one message of a context.

    Raises:
        pydantic.ValidationError: a known role without a field that it needs.
    """
    parsed: Message = _adapter.validate_python(message)
    return parsed


def is_typed(message: object) -> bool:
    """Tell whether a message is one of these models, and so one of pi's format."""
    return isinstance(message, _Shape)


def message_json(message: BaseModel) -> str:
    """Encode a typed message as it is stored.

    That is the role and the fields that were set, by their names on disk.
    """
    return dumps(message.model_dump(mode="json", by_alias=True, exclude_unset=True))

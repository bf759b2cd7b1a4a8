"""What a file holds, by its first lines: a transcript of pi or OpenClaw, or something else.

A name does not say who wrote a `.jsonl` file, so the content decides. A conversation of another
program is *foreign*: it is named and left alone, and the import does not succeed. Read as if it
were pi's, it would become a session without a message. A record that is no conversation, such as
the log of a cron job, is named too, and fails no import. Everything else is read: a damaged
transcript is still one, and its lines are kept.

The first 20 lines are read, or as many as begin within a MiB. Knows no database.

Sources: the session files of Claude Code, openai/codex `codex-rs/protocol`, can1357/oh-my-pi
`docs/session.md`, HKUDS/nanobot `session/manager.py`, NousResearch/hermes-agent `gateway`,
openclaw `src/config/sessions/session-cold-storage-codec.ts` and `src/cron/run-log.ts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sessiondb.json_text import DamagedLine, decode_object
from sessiondb.limits import MIB

from .jsonl_reader import BOM, raw_lines

SAMPLE_LINES: Final = 20
SAMPLE_BYTES: Final = MIB

# The types of lines of Codex since the autumn of 2025.
_CODEX_TYPES: Final = frozenset(
    {"compacted", "event_msg", "response_item", "session_meta", "turn_context"}
)
# The types of entries by which a transcript without a header is recognised.
_OWN_TYPES: Final = frozenset(
    {
        "branch_summary",
        "compaction",
        "context_edit",
        "custom",
        "custom_message",
        "label",
        "leaf",
        "message",
        "model_change",
        "reset",
        "session_info",
        "thinking_level_change",
        "usage",
    }
)


@dataclass(frozen=True, slots=True)
class Other:
    """A file that is no transcript of pi or OpenClaw."""

    kind: str
    """Who wrote it, or what it is, in a word or two: reports count by it."""
    sentence: str
    foreign: bool = False
    """It holds a conversation, which nobody has imported."""


def _foreign(program: str) -> Other:
    return Other(
        program,
        f"a transcript of {program}, whose format sessiondb does not read: nothing of it was "
        "imported. Keep the file. To have its messages, write each as a JSON line with role and "
        "content, for `sessiondb append`",
        foreign=True,
    )


CLAUDE_CODE: Final = _foreign("Claude Code")
CODEX: Final = _foreign("Codex")
HERMES: Final = _foreign("hermes-agent")
NANOBOT: Final = _foreign("nanobot")
OH_MY_PI: Final = _foreign("oh-my-pi")
TAU: Final = _foreign("tau")
COLD_STORAGE: Final = Other(
    "cold storage",
    "OpenClaw's cold storage. It was not imported, because the database of its agent "
    "(openclaw-agent.sqlite) does not name it. Import the whole state folder, with that database",
    foreign=True,
)
BARE_MESSAGES: Final = Other(
    "list of messages",
    "messages, one a line, and no transcript around them: nothing of it was imported. To have "
    "them in a session: `sessiondb append DB agent:main:main --create < FILE`",
    foreign=True,
)
UNKNOWN: Final = Other(
    "unknown JSON lines",
    "JSON lines of an unknown program, and no entries of pi or OpenClaw: nothing of it was "
    "imported. If it is a conversation, write its messages as JSON lines with role and content, "
    "for `sessiondb append`. If it is none, import only the folders that hold transcripts",
    foreign=True,
)
ACP_STREAM: Final = Other("ACP stream", "a stream of ACP events, not a transcript")
CRON_RUNS: Final = Other("cron run log", "a log of cron runs, not a transcript")
CODEX_OF_OPENCLAW: Final = Other(
    "Codex rollout",
    "Codex's own record of an agent of OpenClaw, whose transcript has the conversation",
)


def recognise(read: Callable[[int], bytes]) -> Other | None:
    """Return what a file is, or None if it is to be read as a transcript."""
    objects, damaged = _sample(read)
    if objects and is_header(objects[0]):
        # A header of this shape begins other programs' files, too, and the next line tells.
        return TAU if any(_is_of_tau(fields) for fields in objects[1:]) else None
    found = next((other for fields in objects if (other := _other(fields)) is not None), None)
    if found is not None:
        return found
    if damaged or not objects or any(_is_entry(fields) for fields in objects):
        return None
    return UNKNOWN


def _sample(read: Callable[[int], bytes]) -> tuple[list[dict[str, Any]], int]:
    """Return the first lines that are JSON objects, and how many others there are before."""
    objects: list[dict[str, Any]] = []
    damaged = 0
    for line in _first_lines(read):
        try:
            objects.append(decode_object(line.decode())[0])
        except (DamagedLine, UnicodeDecodeError, RecursionError):
            damaged += 1
    return objects, damaged


def _first_lines(read: Callable[[int], bytes]) -> Iterator[bytes]:
    size = 0
    for at, (raw, _, is_whole) in enumerate(raw_lines(read)):
        line = raw.removeprefix(BOM) if at == 0 else raw
        if not is_whole or at == SAMPLE_LINES or size > SAMPLE_BYTES:
            return
        size += len(raw)
        if line.strip():
            yield line


def begins_as_transcript(read: Callable[[int], bytes]) -> bool:
    """Return whether the first line is a header, whatever the file's name is."""
    objects, damaged = _sample(read)
    return bool(objects) and not damaged and is_header(objects[0])


def is_header(fields: dict[str, Any]) -> bool:
    """Return whether a line is the header of a transcript of pi or OpenClaw."""
    return fields.get("type") == "session" or (
        fields.get("kind") == "header" and "sessionId" not in fields
    )


def _is_entry(fields: dict[str, Any]) -> bool:
    kind = fields.get("type")
    has_place = isinstance(kind, str) and "id" in fields and "parentId" in fields
    return has_place or kind in _OWN_TYPES or fields.get("kind") in ("entry", "record")


def _other(fields: dict[str, Any]) -> Other | None:
    """Return who wrote a line, if not pi or OpenClaw, or None."""
    if "parentId" in fields:
        return None
    return next((other for is_written, other in _SHAPES if is_written(fields)), None)


def _is_of_claude_code(fields: dict[str, Any]) -> bool:
    kind = fields.get("type")
    return isinstance(kind, str) and (
        ("uuid" in fields and "parentUuid" in fields)
        or "leafUuid" in fields
        or ("sessionId" in fields and kind not in _OWN_TYPES)
        or (kind == "file-history-snapshot" and "messageId" in fields)
    )


def _is_of_codex(fields: dict[str, Any]) -> bool:
    # Older files begin with a line that has no type.
    return (fields.get("type") in _CODEX_TYPES and isinstance(fields.get("payload"), dict)) or (
        _has(fields, "id", "timestamp", "instructions") and "type" not in fields
    )


def _is_of_tau(fields: dict[str, Any]) -> bool:
    return _has(fields, "type", "id", "parent_id") and "parentId" not in fields


def _has(fields: dict[str, Any], *names: str) -> bool:
    return all(name in fields for name in names)


_SHAPES: Final[tuple[tuple[Callable[[dict[str, Any]], bool], Other], ...]] = (
    (
        lambda line: line.get("kind") == "header" and _has(line, "sessionId", "generation"),
        COLD_STORAGE,
    ),
    (lambda line: line.get("type") == "acp_event", ACP_STREAM),
    (lambda line: _has(line, "jobId", "action", "ts") and "type" not in line, CRON_RUNS),
    (_is_of_claude_code, CLAUDE_CODE),
    (_is_of_codex, CODEX),
    (lambda line: line.get("type") == "title" and "v" in line, OH_MY_PI),
    (_is_of_tau, TAU),
    (lambda line: line.get("_type") == "metadata", NANOBOT),
    (lambda line: line.get("role") == "session_meta" and "type" not in line, HERMES),
    (lambda line: _has(line, "role", "content") and "type" not in line, BARE_MESSAGES),
)

"""Check an import against its file: the bytes of an export, the context of an independent reader.

The reader here is written like pi's and OpenClaw's: the whole file in memory, an index of ids, a
walk along `parentId` from the leaf to the root. It shares no rule and no stored column with
`transcript.append` and `transcript.context`, so that agreement means something. Of lines that are
not entries it takes the links. It looks for a parent among the lines before its child, and then
among those behind it.

It needs memory for the decoded file, several times its size. An import without `verify` does not.

Sources: pi `core/session-manager.ts`,
openclaw `packages/agent-core/src/harness/session/session.ts`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from sessiondb import threads
from sessiondb.backend import Backend
from sessiondb.errors import OpenError
from sessiondb.limits import MIB
from sessiondb.transcript.context import read_context

from .jsonl_reader import BOM, Opener, PrefixChanged, UnreadableFile, open_transcript, raw_lines
from .jsonl_writer import imported_bytes
from .redaction import Redactor, mark_in

_CHECKPOINTS: Final = {
    "anthropic-compaction",
    "openai-responses-compaction",
    "openai-responses-retained-compaction",
}


async def compare_with_file(
    backend: Backend,
    path: str,
    redactor: Redactor | None = None,
    *,
    opened: Opener | None = None,
) -> list[str]:
    """Return how a stored transcript differs from its file. The list is empty if both agree.

    A transcript that was imported with a redactor is compared with the file redacted now.
    `opened` opens the file, if it is a part of a database.
    """
    row = await backend.read(
        lambda tx: tx.first("import_file.by_path", path=path), op="import.verify"
    )
    if row is None or row.session_no is None:
        return []
    session_no = row.session_no
    digest = hashlib.sha256()
    async for part in imported_bytes(
        backend,
        row.first_import_file_no,
        session_no,
        row.entries,
        final_newline=bool(row.final_newline),
    ):
        if len(part) > MIB:
            await threads.run(digest.update, part)
        else:
            digest.update(part)
    try:
        content = await threads.run(_read, path, row.bytes, opened)
    except FileNotFoundError:
        return ["not verified: it was renamed or removed after it was imported; import again"]
    except (OpenError, PrefixChanged, UnreadableFile, OSError) as error:
        return [f"not verified: {error}"]
    if await threads.run(_sha256, content) != row.sha256:
        # OpenClaw writes a file anew now and then, beside this.
        return ["not verified: it was rewritten after it was imported; import again"]
    if (mark := mark_in(row.note)) is not None:
        if redactor is None:
            return ["not verified: it was imported with --redact; verify with the same options"]
        content = await threads.run(_redacted, content, mark.from_byte, redactor)
    differences = []
    if digest.digest() != hashlib.sha256(content).digest():
        differences.append("its export differs from the file")
    undone = await backend.read(
        lambda tx: tx.first("import_file.undone", session_no=session_no), op="import.verify"
    )
    if row.session_last_seq != row.entries or undone is not None:
        return differences  # the session has entries of its own, so its context is not the file's
    stored = await backend.read(
        lambda tx: read_context(tx, session_no, raw=True), op="import.verify"
    )
    read = await threads.run(_context_of, content)
    if read is not None:
        try:
            parts = await threads.run(_decoded, stored.parts)
        except ValueError as error:
            return [
                *differences,
                f"its context is damaged in this database ({error}); run `sessiondb verify`",
            ]
        differences += _differences(parts, stored.model, stored.thinking_level, *read)
    return differences


def _read(path: str, count: int, opened: Opener | None) -> bytes:
    """Read the part of a file that was imported."""
    parts: list[bytes] = []
    with opened(0) if opened is not None else open_transcript(path) as file:
        while count and (block := file.read(min(count, MIB))):
            parts.append(block)
            count -= len(block)
    return b"".join(parts)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _redacted(content: bytes, from_byte: int, redactor: Redactor) -> bytes:
    """Return a file's content with the rules applied from a place on, as an import does."""
    stream = io.BytesIO(content[from_byte:])
    begins = BOM if from_byte == 0 and content.startswith(BOM) else b""
    stream.seek(len(begins))
    return b"".join(
        [
            content[:from_byte],
            begins,
            *(redactor.line(line, Counter()) for line, _, _ in raw_lines(stream.read)),
        ]
    )


def _decoded(parts: tuple[bytes, ...]) -> list[Any]:
    return [_loads(part) for part in parts]


def _differences(
    stored: list[Any], model: Any, level: Any, messages: list[Any], read_model: Any, read_level: Any
) -> list[str]:
    found = []
    if len(stored) != len(messages):
        found.append(
            f"its context has {len(stored):,} messages here and {len(messages):,} in the file"
        )
    elif stored != messages:
        at = next(
            index
            for index, (ours, theirs) in enumerate(zip(stored, messages, strict=True))
            if ours != theirs
        )
        found.append(f"message {at} of its context differs from the file's")
    if model != read_model:
        found.append(f"its model is {model} here and {read_model} in the file")
    if level != read_level:
        found.append(f"its thinking level is {level} here and {read_level} in the file")
    return found


# -- the independent reader ------------------------------------------------------------------------


def _context_of(content: bytes) -> tuple[list[Any], Any, Any] | None:
    lines = list(_objects(content))
    # The other programs read pi's messages only. There is no second reader for other formats.
    return None if not lines or "sessiondbFormat" in lines[0] else _build(_path(lines))


def _objects(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield every line that is an entry. Of another one that has an id: that and its parent."""
    *whole, torn = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for line in [*whole, torn]:
        value: Any = None
        with contextlib.suppress(ValueError, RecursionError):
            value = _loads(line.decode(errors="replace"))
        value = _of_sdk(value) if isinstance(value, dict) else value
        if isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"]:
            yield value
        elif line is not torn and (damaged := _damaged(line)) is not None:
            yield damaged


def _of_sdk(value: dict[str, Any]) -> dict[str, Any]:
    """Return a line of pi's SDK with the words of pi's own files. Its lane `main` is read."""
    kind, lane = value.get("kind"), value.get("lane")
    if kind == "header" and "type" not in value:
        return {**value, "type": "session"}
    if kind == "entry" and "seq" in value and lane != "main":
        return {**value, "appendMode": "side"}
    if kind == "lane" and "seq" in value and lane == "main":
        return {"type": "leaf", "id": "", "targetId": value.get("leafId")}
    if kind in ("record", "lane", "fact") and "seq" in value:
        return {"type": "session"}  # no entry
    return value


def _damaged(line: bytes) -> dict[str, Any] | None:
    """Return the link of a line that is no entry."""
    text = line.decode(errors="replace")
    with contextlib.suppress(ValueError):
        try:
            value = json.loads(text)
        except RecursionError:
            value = json.loads(_before_nested(text))
        if isinstance(value, dict) and _id(value.get("id")) is not None:
            return {"type": None, "id": value["id"], "parentId": value.get("parentId")}
    return None


def _before_nested(text: str) -> str:
    """Return an object up to the first field that is a list or an object, which is too deep."""
    begins = next(at for at, mark in enumerate(text) if mark in "[{" and at > 0)
    return text[:begins].rpartition(",")[0] + "}"


def _id(value: Any) -> str | None:
    """Return an id as text. An empty one names nothing."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value else None


def _as_number(value: Any) -> float:
    """Return a version as JavaScript compares it with numbers."""
    try:
        return 1 if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _loads(text: str | bytes) -> Any:
    return json.loads(text, parse_constant=_refuse, parse_int=_number)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)  # the interpreter refuses to convert long ones exactly


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(value: Any) -> Any:
    """Return a value as JavaScript writes it: a number that is too large becomes null."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _path(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Link each entry to its parent and return the path to the leaf, root first."""
    first = next((line for line in lines if line["type"] is not None), {"type": None})
    header = first if first["type"] == "session" else None
    has_ids = header is None and isinstance(first.get("id"), str)
    version = _as_number(header.get("version")) if header is not None else 3 if has_ids else 1
    damaged: dict[str, Any] = {}  # the parents of lines that are no entries
    nodes: list[tuple[dict[str, Any], int | None]] = []  # entry, index of its parent
    newest: dict[str, int] = {}
    oldest: dict[str, int] = {}
    missing: dict[int, Any] = {}  # the parents that entries name, and that are not before them
    leaf: int | None = None
    cursor: str | None = None  # what the next entry may name, and mean the leaf

    def passed(value: Any) -> list[str | None]:
        """Return an id and, of lines that are no entries, those that they lead to."""
        found = [_id(value)]
        while found[-1] in damaged and (parent_id := _id(damaged[found[-1]])) not in found:
            found.append(parent_id)
        return found

    def named(value: Any) -> int | None:
        """Return the newest line of an id. Lines that are no entries lead to their parents."""
        wanted = passed(value)[-1]
        return newest.get(wanted) if wanted is not None else None

    for line in lines:
        if line is header:
            continue
        if line["type"] is None:
            damaged[str(_id(line["id"]))] = line["parentId"]
            continue
        parent = named(line.get("parentId"))
        is_side = line.get("appendMode") == "side"
        means_leaf = not is_side and cursor is not None and cursor == _id(line.get("parentId"))
        if version < 2 or "parentId" not in line or means_leaf:
            parent = leaf
        elif parent is None and line["type"] not in ("leaf", "session"):
            missing[len(nodes)] = line["parentId"]
        if parent is not None and nodes[parent][0]["type"] == "leaf":
            parent = nodes[parent][1]
        if line["type"] in ("leaf", "session"):
            target = line.get("targetId")
            known = named(target)
            if known is not None and nodes[known][0]["type"] in ("leaf", "session"):
                known = nodes[known][1]
            nodes.append((line, known))
            appends_to = _id(line.get("appendParentId"))
            is_known = known is not None or not isinstance(target, str)
            may_append = appends_to is None or named(appends_to) is not None
            if line["type"] == "leaf" and is_known and may_append:
                leaf, cursor = known, appends_to
        else:
            if version < 2 and line["type"] == "compaction":
                line = {**line, "firstKeptEntryId": None, "kept": _kept_line(line, nodes)}
            message = line.get("message")
            sent = (
                message
                if isinstance(message, dict) and message.get("excludeFromContext") is not True
                else {}
            )
            if version < 3 and sent.get("role") == "hookMessage":
                line = {**line, "message": _finite({**sent, "role": "custom"})}
            nodes.append(({**line, "passed": passed(line.get("parentId"))[:-1]}, parent))
            cursor = _id(line.get("id")) if is_side else None
            if not is_side:
                leaf = len(nodes) - 1
        if (own_id := _id(line.get("id"))) is not None:
            newest[own_id] = len(nodes) - 1
            oldest.setdefault(own_id, len(nodes) - 1)
            damaged.pop(own_id, None)
    parents = [parent for _, parent in nodes]
    for index, wanted in missing.items():
        parents[index] = _found_later(nodes, oldest, damaged, wanted)
    _cut_circles(parents)
    path = []
    while leaf is not None:
        path.append(nodes[leaf][0])
        leaf = parents[leaf]
    return path[::-1]


def _found_later(
    nodes: list[tuple[dict[str, Any], int | None]],
    oldest: dict[str, int],
    damaged: dict[str, Any],
    named: Any,
) -> int | None:
    """Return the first line of an id, of a line behind the one that names it."""
    wanted, seen = _id(named), set()
    while wanted not in oldest and wanted in damaged and wanted not in seen:
        seen.add(wanted)
        wanted = _id(damaged[wanted])
    found = oldest.get(wanted) if wanted is not None else None
    if found is not None and nodes[found][0]["type"] in ("leaf", "session"):
        return nodes[found][1]
    return found


def _cut_circles(parents: list[int | None]) -> None:
    """Make a root of the first line of each circle: lines that follow one another."""
    ends: set[int] = set()
    for index in range(len(parents)):
        walked: list[int] = []
        at: int | None = index
        seen: set[int] = set()
        while at is not None and at not in ends and at not in seen:
            seen.add(at)
            walked.append(at)
            at = parents[at]
        if at is None or at in ends:
            ends.update(walked)
        else:
            parents[index] = None
            ends.add(index)


def _kept_line(compaction: dict[str, Any], nodes: list[Any]) -> dict[str, Any] | None:
    """Return the entry that a compaction of version 1 names by its line."""
    index: Any = compaction.get("firstKeptEntryIndex")
    is_line = isinstance(index, int | float) and math.isfinite(index) and index % 1 == 0
    return nodes[int(index) - 1][0] if is_line and 0 < index <= len(nodes) else None


def _build(path: list[dict[str, Any]]) -> tuple[list[Any], Any, Any]:
    """Assemble the messages of a path, and the model and thinking level at its end."""
    model: Any = None
    level: Any = "off"
    for entry in path:
        message = entry.get("message")
        if entry["type"] == "thinking_level_change":
            level = entry.get("thinkingLevel")
            level = level if level is None else str(level)
        elif entry["type"] == "model_change":
            model = {name: entry[name] for name in ("provider", "modelId") if name in entry}
        elif (
            entry["type"] == "message"
            and isinstance(message, dict)
            and message.get("role") == "assistant"
        ):
            names = {"provider": "provider", "model": "modelId"}
            model = {names[name]: message[name] for name in names if name in message}
    at = max(
        (index for index, entry in enumerate(path) if entry["type"] in ("compaction", "reset")),
        default=None,
    )
    if at is None:
        return _sent(path, _edits(path)), model, level
    boundary = path[at]
    first = next(
        (index for index, entry in enumerate(path[:at]) if _is_first_kept(boundary, entry)), at
    )
    kept, after = path[first:at], path[at + 1 :]
    edits = _edits([*kept, *after])
    messages: list[Any] = []
    if boundary["type"] == "compaction":
        if edits.get(_id(boundary.get("id")), {}) is not None:
            if isinstance(boundary.get("systemMessage"), dict):
                messages.append(_finite(boundary["systemMessage"]))
            messages.append(
                {
                    "role": "compactionSummary",
                    **_only(boundary, "summary", "tokensBefore"),
                    "timestamp": _ms(boundary),
                }
            )
            tail = boundary.get("retainedTail")
            messages += [_finite(one) for one in (tail if isinstance(tail, list) else [])]
        said = [entry for entry in kept if _role(entry) != "system"]
        messages += [_without_replay(message) for message in _sent(said, edits)]
    else:
        said = [entry for entry in kept if entry["type"] == "message"]
        messages += _answered(_sent(said, edits))
    messages += _sent(after, edits)
    return messages, model, level


def _role(entry: dict[str, Any]) -> Any:
    message = entry.get("message")
    return message.get("role") if entry["type"] == "message" and isinstance(message, dict) else None


def _edits(entries: list[dict[str, Any]]) -> dict[Any, Any]:
    """Return the replacement of each entry that was edited. Of several edits the last one."""
    return {
        _id(entry.get("targetId")): entry.get("replacement", {})
        for entry in entries
        if entry["type"] == "context_edit"
    }


def _sent(entries: list[dict[str, Any]], edits: dict[Any, Any]) -> list[Any]:
    """Return what entries add to the context, after the edits."""
    found = []
    for entry in entries:
        message, edit = _message(entry), edits.get(_id(entry.get("id")), {})
        if message is None or edit is None:
            continue
        editable = message.get("role") in ("user", "assistant", "toolResult", "custom")
        if editable and isinstance(edit, dict) and "content" in edit:
            content = _finite(edit["content"])
            if isinstance(content, str) and message["role"] in ("assistant", "toolResult"):
                content = [{"type": "text", "text": content}]
            message = _finite({**message, "content": content})
        found.append(message)
    return found


def _only(entry: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: _finite(entry[name]) for name in names if name in entry}


def _is_first_kept(boundary: dict[str, Any], entry: dict[str, Any]) -> bool:
    if boundary.get("kept") is not None:
        return entry is boundary["kept"]
    wanted = _id(boundary.get("firstKeptEntryId"))
    return wanted is not None and wanted in (_id(entry.get("id")), *entry.get("passed", ()))


def _message(entry: dict[str, Any]) -> Any:
    """Return the message that an entry adds to the context, or None."""
    match entry["type"]:
        case "message":
            message = entry.get("message")
            if not isinstance(message, dict) or message.get("stopReason") == "deferred":
                return None
            return _with_content(message)
        case "custom_message":
            said = _only(entry, "customType", "content", "display", "details")
            said["content"] = [] if said.get("content") is None else said["content"]
            return {"role": "custom", **said, "timestamp": _ms(entry)}
        case "branch_summary" if entry.get("summary"):
            said = _only(entry, "summary", "fromId")
            return {"role": "branchSummary", **said, "timestamp": _ms(entry)}
    return None


def _with_content(message: dict[str, Any]) -> Any:
    """Return a message with the content that pi, and OpenClaw, give to one without a list."""
    role, content = message.get("role"), message.get("content")
    if content is None and role in ("user", "assistant", "toolResult", "system"):
        return _finite({**message, "content": "" if role == "system" else []})
    if isinstance(content, str) and role in ("assistant", "toolResult"):
        return _finite({**message, "content": [{"type": "text", "text": content}]})
    if isinstance(content, dict) and role == "toolResult":
        return _finite({**message, "content": [content]})
    return message


def _without_replay(message: Any) -> Any:
    replay = message.get("providerReplay")
    kind = replay.get("type") if isinstance(replay, dict) else None
    if message.get("role") != "assistant" or not isinstance(kind, str) or kind not in _CHECKPOINTS:
        return message
    return {name: value for name, value in message.items() if name != "providerReplay"}


def _answered(messages: list[dict[str, Any]]) -> Iterator[Any]:
    """Yield the messages that a reset keeps.

    These are user and assistant messages, and each tool result whose call was kept before it.
    """
    calls: list[Any] = []
    for message in messages:
        if message.get("role") == "assistant":
            content = message.get("content")
            blocks = content if isinstance(content, list) else []
            calls += [
                block.get("id")
                for block in blocks
                if isinstance(block, dict) and block.get("type") == "toolCall"
            ]
        elif message.get("role") == "toolResult" and message.get("toolCallId") in calls:
            calls.remove(message.get("toolCallId"))
        elif message.get("role") != "user":
            continue
        yield _without_replay(message)


def _ms(entry: dict[str, Any]) -> int | None:
    """Return an entry's time as JavaScript's `Date` reads it: to the millisecond, or not at all."""
    if "timestamp" not in entry:
        return None
    time = entry["timestamp"]
    if not isinstance(time, str):
        number = 0 if time is None else time
        is_time = isinstance(number, int | float) and abs(number) <= 8.64e15
        return math.trunc(number) if is_time else None
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000

"""The lines of pi's SDK: version 4 of its session files, read as entries of pi's.

A line says with `kind` what it is. An `entry` has pi's fields, and the lane that it was appended
to. A `lane` line moves the head of a lane. A `record` is the log of an operation, and a `fact` a
name or a label: neither is part of the conversation. Lane `main` is the conversation. Entries of
another lane, or of none, are side appends of it. (OpenClaw's version 4 is another one, and has
`type` everywhere.)

Source: @earendil-works/pi-agent-core `harness/session/jsonl/codec.ts` and `state.ts`.
"""

from __future__ import annotations

from typing import Any, Final

RECORD_TYPE: Final = "lane_record"
"""The type of what is no entry. It stands outside the tree."""
MAIN_LANE: Final = "main"
_KINDS: Final = frozenset({"header", "entry", "record", "lane", "fact"})


def as_pi(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a decoded line as pi's files would say it. Itself, if it is no line of the SDK."""
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        return fields
    match kind:
        case "header" if "type" not in fields:
            return {**fields, "type": "session", "timestamp": fields.get("createdAt")}
        case "entry" if "lane" in fields or "seq" in fields:
            is_main = fields.get("lane") == MAIN_LANE
            return fields if is_main else {**fields, "appendMode": "side"}
        case "lane" if "seq" in fields and fields.get("lane") == MAIN_LANE:
            return {"type": "leaf", "targetId": fields.get("leafId")}
        case "record" | "lane" | "fact" if "seq" in fields:
            named = fields.get("name") if fields.get("fact") == "name" else None
            return {"type": RECORD_TYPE, "id": fields.get("id"), "name": named}
    return fields

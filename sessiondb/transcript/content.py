"""What makes two texts the same message: all that they say, but not when or under which id.

A sender that repeats a call may stamp the message with the present time, and order its
fields in another way. That is the same message. Any other difference is another message,
and must not pass for a repetition.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from sessiondb.json_text import loads, stored_text

_STAMPS: Final = ("id", "parentId", "timestamp", "idempotencyKey")


def digest(message: dict[str, Any]) -> str:
    """Return a digest of a decoded message, equal for messages that say the same."""
    text = json.dumps(_said(message), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def says_the_same(one: str, other: str) -> bool:
    """Tell whether the JSON texts of two entries say the same.

    Raises:
        StoreDamaged: one of them is not an entry any more.
    """
    if one == other:
        return True
    with stored_text():
        return _said(loads(one)) == _said(loads(other))


def _said(item: dict[str, Any]) -> dict[str, Any]:
    """Return an entry or a message without its stamps. An entry of a message has two sets."""
    said = {name: value for name, value in item.items() if name not in _STAMPS}
    if isinstance(said.get("message"), dict):
        said["message"] = _said(said["message"])
    return said

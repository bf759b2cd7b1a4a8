"""Edit a message for the model, without changing the entry that has it.

An edit is an entry of its own, of type `context_edit`. From there on the context has another
content in the place of the old one, or nothing. It begins an epoch: the context of before stays
readable, and a summary that is being made of it comes too late. The rule, and the shape of the
entry, are pi's (`appendContextEdit`, `projectContextEntry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sessiondb.backend import ReadTx, Tx
from sessiondb.errors import InvalidInput
from sessiondb.json_text import loads, stored_text
from sessiondb.models import Receipt

from .append import find_entry, place
from .context import contains
from .entries import Draft, prepare
from .formats import PI, spoken
from .state import load_state, no_entry, require_live, save_state

if TYPE_CHECKING:
    from .paths import TreeEntry


async def prepare_edit(
    entry_id: str, content: str | Sequence[dict[str, Any]] | None, *, now_ms: int
) -> Draft:
    """Encode an edit. A content of None leaves the message out. `now_ms` is its time.

    Raises:
        InvalidInput: it is no content, or too large.
    """
    if not isinstance(entry_id, str):
        raise InvalidInput(f"an entry's id is a text, not {type(entry_id).__name__}")
    is_list = isinstance(content, list | tuple) and all(isinstance(one, dict) for one in content)
    if not (content is None or isinstance(content, str) or is_list):
        raise InvalidInput(
            f"a content is a text or a list of blocks, not {type(content).__name__}; "
            "None leaves the message out of the context"
        )
    replacement = None
    if content is not None:
        replacement = {"content": content if isinstance(content, str) else list(content)}
    entry = {"type": "context_edit", "targetId": entry_id, "replacement": replacement}
    return await prepare(entry, now_ms=now_ms)


def edit(tx: Tx, session_no: int, entry_id: str, draft: Draft, *, omits: bool) -> Receipt:
    """Append an edit of an entry of the current context.

    Raises:
        NotFound: no such entry, or none of the current context.
        InvalidInput: the entry has no content that can be replaced.
        SessionEnded: the session has ended. Fork it to go on from it.
    """
    state = load_state(tx, session_no)
    require_live(state)
    target = find_entry(tx, state, entry_id)
    if target is None or not contains(tx, session_no, target):
        raise no_entry(state.session_id, entry_id, " in its current context")
    if not _is_editable(tx, state.formats, target, omits=omits):
        raise InvalidInput(
            f"session {state.session_id}: entry {entry_id} is a {target.type} entry "
            "without a content that can be replaced. Nothing was changed. "
            "Edit a message, or leave a message out with content=None",
            session_id=state.session_id,
        )
    receipt = place(tx, state, draft)
    save_state(tx, state)
    return receipt


@stored_text()
def _is_editable(tx: ReadTx, formats: int, target: TreeEntry, *, omits: bool) -> bool:
    """Tell whether an entry is a message whose content, or which, can be edited."""
    if target.type == "custom_message":
        return True
    if target.type != "message":
        return omits and target.type == "branch_summary"
    item = loads(tx.one("compaction.message", entry_no=target.entry_no).content)
    message_format = spoken(formats)
    if omits:
        return True
    if message_format is PI and "content" not in item:
        item = {**item, "content": None}
    return message_format.edited(item, "") is not item

"""The details of a message: what its adapter keeps with it, for the handler and the sender.

An address, a thread, the channel's own ids: a JSON object, stored beside the message and never
in it, so that no model reads it. Each reply of the message's turns has a copy, because a message
may be pruned before an operator has settled its reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sessiondb.errors import InvalidInput, StoreDamaged
from sessiondb.json_text import DamagedLine, decode_object, dumps
from sessiondb.limits import DETAILS_BYTES_MAX


def encoded_details(details: object) -> str:
    """Encode the details of a message.

    Raises:
        InvalidInput: they are no JSON object, or too large.
    """
    if not isinstance(details, Mapping) or not all(isinstance(key, str) for key in details):
        raise InvalidInput(
            f"the details of a message are a mapping of names to JSON values, not {details!r:.80}"
        )
    try:
        text = dumps(dict(details))
        decode_object(text)
    except (InvalidInput, DamagedLine) as error:
        raise InvalidInput(f"the details of a message cannot be stored as JSON: {error}") from error
    if (size := len(text.encode())) > DETAILS_BYTES_MAX:
        raise InvalidInput(
            f"the details of a message have {size:,} bytes, and at most {DETAILS_BYTES_MAX:,} fit; "
            "put what a model is to read into the message, and keep large files elsewhere"
        )
    return text


def decoded_details(text: str | None) -> dict[str, Any]:
    """Return stored details. Empty if the message has none.

    Raises:
        StoreDamaged: another program wrote what is no JSON object.
    """
    if text is None:
        return {}
    try:
        return decode_object(text)[0]
    except DamagedLine as error:
        raise StoreDamaged(
            f"the stored details of a message are no JSON object ({error}). "
            "Run `sessiondb verify DB`; then `sessiondb salvage DB NEW`."
        ) from error

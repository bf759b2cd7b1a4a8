"""The errors: what they say and carry, and that they come through a process boundary whole."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

import sessiondb
from sessiondb import errors, process
from sessiondb.errors import mark_outcome, outcome_of

TREE = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, errors.SessionDBError)
]
BY_TYPE = {
    "int": 7,
    "str": "a text",
    "list[str]": ["e"],
    "MessageFormat": "pi",
    "TurnState": "aborted",
}
BY_TYPE |= {
    "CompactionState": "failed",
    "Owner": process.Owner(1, "gateway", "h", 2, "b", None, "l"),
}


def attributes_of(kind: type[errors.SessionDBError]) -> dict[str, Any]:
    """Return a value for each attribute that an error declares, but for its message."""
    return {
        field.name: BY_TYPE[str(field.type).removesuffix(" | None")]
        for field in dataclasses.fields(kind)
        if field.name != "message"
    }


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_an_error_is_the_same_in_another_process(kind: type[errors.SessionDBError]) -> None:
    error = kind("what happened", **attributes_of(kind))
    error.add_note("noted")
    mark_outcome(error, "unknown")
    again = pickle.loads(pickle.dumps(error))  # our own bytes
    assert type(again) is kind
    assert (str(again), vars(again)) == ("what happened", vars(error))
    assert outcome_of(again) == "unknown"
    for name, value in attributes_of(kind).items():
        assert getattr(again, name) == value


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_a_misspelt_attribute_of_an_error_is_refused(kind: type[errors.SessionDBError]) -> None:
    error = kind("what happened", **attributes_of(kind))
    with pytest.raises(AttributeError):
        error.retry_after  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError, match="retry_after"):
        kind("what happened", retry_after=5, **attributes_of(kind))


def test_an_error_without_a_message_says_its_docstring() -> None:
    assert str(sessiondb.NotFound()) == "There is no such thing in this database."
    assert str(sessiondb.StoreBusy(retry_after_ms=5)).endswith("Retry after retry_after_ms.")
    assert sessiondb.NotFound().message == str(sessiondb.NotFound())

"""Docstrings as Markdown, for mkdocstrings: lists and tables where the source has lines, and errors
that are links.

In the source a docstring is read as it stands, so an option is a line that begins with its name,
and a `Raises:` section may say when (`Raises (on entering):`) and name several errors before a
colon. Markdown would join such lines to one paragraph.

The fields of a record, a policy or a typed message are a table here. mkdocstrings would give each a
heading.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, is_typeddict

import griffe
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import sessiondb

_RAISES = re.compile(r"^Raises(?: \(([^)]*)\))?:\n((?:(?: {4}.*)?(?:\n|$))+)", re.MULTILINE)
_ITEM = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", re.MULTILINE)
_OPTION = re.compile(r"^(`\w+`: )", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring of the package when it is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **_: object) -> None:
        """Put the fields of a record into a table behind its docstring."""
        if Path(str(cls.module.filepath)).suffix == ".pyi":
            return  # sessiondb/statements.pyi: at run time there is no such module
        if cls.module.path.startswith(("sessiondb.adapters.", "sessiondb.cli.")):
            return  # they have no page, and what they are drawn with may be missing
        fields = [
            member
            for name, member in cls.members.items()
            if isinstance(member, griffe.Attribute)
            and member.annotation is not None
            and not name.startswith("_")
        ]
        made = getattr(importlib.import_module(cls.module.path), cls.name, None)
        if not fields or cls.docstring is None or not _is_record(made):
            return
        cls.docstring.value += "\n\n" + _table(made, fields)
        cls.members.pop("__init__", None)  # a dataclass's, with its fields once more
        cls.labels.discard("dataclass")
        for member in fields:
            member.docstring = None  # a member without one is not shown again


def as_markdown(text: str) -> str:
    """Return a docstring as Markdown."""
    text = _RAISES.sub(_raises, text)
    first = _OPTION.search(text)
    if first is not None and len(_OPTION.findall(text)) > 1:
        text = text[: first.start()] + "\n" + _OPTION.sub(r"* \1", text[first.start() :])
    return text


def _raises(section: re.Match[str]) -> str:
    when = f" ({section[1]})" if section[1] else ""
    items = [
        f"* {', '.join(_error(name) for name in names.split(', '))}: {' '.join(text.split())}"
        for names, text in _ITEM.findall(section[2])
    ]
    return f"**Raises**{when}\n\n" + "\n".join(items) + "\n"


def _error(name: str) -> str:
    return f"[`{name}`][sessiondb.{name}]" if name in sessiondb.__all__ else f"`{name}`"


# -- fields ----------------------------------------------------------------------------------------


def _is_record(made: Any) -> bool:
    return (
        dataclasses.is_dataclass(made)
        or is_typeddict(made)
        or (inspect.isclass(made) and issubclass(made, BaseModel))
    )


def _table(made: Any, fields: list[griffe.Attribute]) -> str:
    """Return a class's fields: name, type, default, meaning. Without a column that is empty."""
    defaults = _defaults(made)
    columns = ["field", "type", "default", "meaning"]
    rows = [
        [
            f"`{field.name}`",
            f"`{field.annotation}`",
            f"`{defaults[field.name]}`" if field.name in defaults else "",
            " ".join(field.docstring.value.split()).replace("|", r"\|")
            if field.docstring is not None
            else "",
        ]
        for field in fields
    ]
    used = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    lines = [
        [columns[at] for at in used],
        ["---"] * len(used),
        *([row[at] for at in used] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _defaults(made: Any) -> dict[str, str]:
    """Return the defaults of a class's fields, as a person writes them."""
    found: dict[str, Any]
    if is_typeddict(
        made
    ):  # the options of `open`, whose defaults are those of the class that it makes
        found = {
            name: parameter.default
            for name, parameter in inspect.signature(sessiondb.SessionDB).parameters.items()
        }
    elif dataclasses.is_dataclass(made):
        found = {
            field.name: field.default_factory()
            if field.default_factory is not dataclasses.MISSING
            else field.default
            for field in dataclasses.fields(made)
        }
    else:
        found = {
            name: field.get_default(call_default_factory=True)
            for name, field in made.model_fields.items()
        }
    missing = (dataclasses.MISSING, inspect.Parameter.empty, PydanticUndefined)
    return {
        name: _written(value)
        for name, value in found.items()
        if not any(value is one for one in missing)
    }


def _written(value: Any) -> str:
    if isinstance(value, frozenset):
        return ", ".join(sorted(map(str, value)))
    return (
        f"{value:,}".replace(",", "_")
        if isinstance(value, int) and not isinstance(value, bool)
        else f"{value!r}"
    )

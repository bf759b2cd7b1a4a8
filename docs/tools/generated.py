"""Pages and parts of pages that the site has and docs/ has not. A part has a marker in its page:

    <!-- commands: show tail -->                          sections of the command line
    <!-- exit codes -->                                   their table
    <!-- schema -->                                       schema.sql, piece by piece
    <!-- members of sessiondb.SessionDB: accept held -->  some methods of a class
    <!-- errors -->                                       every error, in the source's order
    <!-- sync -->                                         the calls of sessiondb.sync

What MkDocs itself is not needed for is here, so that a test can read the pages as the site has
them.
"""

from __future__ import annotations

import inspect
import re

import sessiondb.sync
from docs.tools import commands, schema
from sessiondb import errors

ROOT_PAGES = {
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
"""Pages whose text lies at the top level of the repository."""

_MARKER = re.compile(
    r"^<!-- (commands|exit codes|schema|members of|errors|sync)(?: (\S+))?(?:: (.*))? -->$",
    re.MULTILINE,
)

_ALONE = (
    "members: false",
    "inherited_members: false",
    "show_signature: false",
    "separate_signature: false",
)
"""Options for an object of which its text says everything."""


def expand(markdown: str) -> str:
    """Return a page with every marker replaced."""
    return _MARKER.sub(_made, markdown)


def _made(marker: re.Match[str]) -> str:
    kind, owner, names = marker[1], marker[2], (marker[3] or "").split()
    match kind:
        case "commands":
            return commands.reference(names)
        case "exit codes":
            return commands.exit_codes()
        case "schema":
            return schema.reference()
        case "members of":
            return "\n\n".join(_object(f"{owner}.{name}") for name in names)
        case "errors":
            return "\n\n".join(_object(f"sessiondb.{name}", *_ALONE) for name in _errors())
        case _:
            return _sync()


def _object(name: str, *options: str) -> str:
    return f"::: {name}\n    options: {{ {', '.join(['heading_level: 3', *options])} }}"


def _errors() -> list[str]:
    return [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    ]


def _sync() -> str:
    """Return the calls of each class, each with a link to the asynchronous one behind it."""
    rows = ["| class | calls |", "|---|---|"]
    for name in ("SessionDB", "Session", "Turn", "Batch", "CompactionJob"):
        twin, calls = getattr(sessiondb, name), vars(getattr(sessiondb.sync, name))
        offered = {*dir(twin), *inspect.get_annotations(twin)}
        peers = [
            # The site has a place for each call, and none for a field.
            f"[`{call}`][sessiondb.{name}.{call}]"
            if callable(getattr(twin, call, None))
            else f"`{call}`"
            for call in calls
            if call in offered and call[0] != "_"
        ]
        rows.append(f"| `sessiondb.sync.{name}` | {', '.join(peers)} |")
    return "\n".join(rows)

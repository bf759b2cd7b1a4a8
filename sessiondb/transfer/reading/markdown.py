r"""A conversation as Markdown, for a person, a wiki, or a model.

What people and models wrote is quoted as the Markdown that it is. What a tool is given and what
it returns is folded, in a fence that is longer than any inside. A text cannot end its quote, so
no message can pretend to be another one. HTML in it is escaped outside of code fences, and an
image that it names is not loaded: `<` becomes `&lt;`, and `![` becomes `&#33;[`. Its links are
links, and lead where their author wants.

An image inside a message is named, and not written: a page of HTML shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sessiondb.clock import iso_from_ms
from sessiondb.models import Entry
from sessiondb.transcript.paths import session_of
from sessiondb.transcript.pieces import Piece, pieces_of, title_of, written_at_ms

from .path import Heading

_ENDS: Final = re.compile(r"\r\n|\r|\n")
# A fence that begins a line of its own, and that no list or quote around it can end.
_FENCE: Final = re.compile(r"(`{3,})[^`]*|(~{3,}).*", re.DOTALL)
_RUNS: Final = re.compile(r"`{3,}")
_MARKS: Final = re.compile(r"([\\`*_{}\[\]<>()#!|&~])")


class Markdown:
    """Writes the text from its top to its end."""

    def __init__(self) -> None:
        self._top: Heading | None = None
        self._last: Entry | None = None
        self._inside = True

    def begin(self, heading: Heading) -> bytes:
        """Return the text up to the first entry."""
        self._top = heading
        self._inside = heading.start_no is None
        info = heading.info
        lines = [f"# {_plain(heading.title)}", "", f"- session {_plain(info.session_id)}"]
        lines += [f"- key {_plain(key)}" for key in info.keys]
        if info.forked_from:
            lines.append(f"- fork of {_plain(info.forked_from)}")
        return _bytes("\n".join(lines) + "\n")

    def page(self, entries: list[Entry]) -> bytes:
        """Return the next entries."""
        return _bytes("".join(part for entry in entries for part in self._entry(entry)))

    def end(self) -> bytes:
        """Return nothing: the last entry is the end."""
        return b""

    def _entry(self, entry: Entry) -> Iterator[str]:
        top = self._top
        assert top is not None, "the text has begun"
        if self._last is not None and session_of(self._last.entry_no) != session_of(entry.entry_no):
            yield "\n---\n\n*forked here*\n"
        if not self._inside and top.start_no is not None and entry.entry_no >= top.start_no:
            self._inside = True
            yield "\n---\n\n*the current context begins here*\n"
        self._last = entry
        if entry.type in ("compaction", "reset"):
            yield f"\n---\n\n*{entry.type}: the context began anew here*\n"
        at = iso_from_ms(written_at_ms(entry))
        yield f"\n## {top.name_of(entry)} \u00b7 {_plain(title_of(entry))} \u00b7 "
        yield f"{at[:10]} {at[11:19]}\n"
        for piece in pieces_of(entry):
            yield _piece(piece)


def _piece(piece: Piece) -> str:
    if piece.kind == "image":
        about = f"{piece.name}, {piece.data_bytes:,} bytes" if piece.data else piece.text
        return f"\n*image: {_plain(about)}*\n"
    text = piece.text.strip("\r\n")
    if piece.kind == "other" and piece.name:
        return f"\n*{_plain(piece.name)}*\n"
    if piece.kind == "call":
        return _folded(f"calls {piece.name}", text)
    if not text.strip():
        return ""
    if piece.of_result:
        return _folded("returned", text)
    if piece.kind == "thinking":
        return _folded("thinks", text)
    if piece.kind in ("command", "other", "damaged"):
        return f"\n{_fenced(text)}"
    return f"\n{quoted(text)}"


def quoted(text: str) -> str:
    """Return a text as a quote. What would be HTML or an image in it is text."""
    fence = ""
    lines = []
    for line in _ENDS.split(text):
        if fence:
            stripped = line.rstrip(" \t")
            if stripped and set(stripped) == {fence[0]} and len(stripped) >= len(fence):
                fence = ""
        else:
            match = _FENCE.fullmatch(line)
            if match is not None:
                fence = match[1] or match[2]
            else:
                line = line.replace("<", "&lt;").replace("![", "&#33;[")
        lines.append(f"> {line}".rstrip(" "))
    return "\n".join(lines) + "\n"


def _folded(title: str, text: str) -> str:
    return f"\n<details><summary>{_plain(title)}</summary>\n\n{_fenced(text)}\n</details>\n"


def _fenced(text: str) -> str:
    text = "\n".join(_ENDS.split(text))
    longest = max(map(len, _RUNS.findall(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}\n"


def _plain(text: str) -> str:
    """Return a text as one line in which nothing is Markdown or HTML."""
    return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", " ".join(text.split()))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # half a surrogate pair has no UTF-8 form

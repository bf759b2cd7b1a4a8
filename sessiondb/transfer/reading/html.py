"""One self-contained page: a conversation that any browser shows, with no network.

It is safe against what the messages say. Every text is escaped, and the page forbids itself all
but its own style and script, by their hashes, and images that are inside it
(`Content-Security-Policy`). So an image that lies elsewhere is named and not loaded. Calls of
tools, their results and thinking are folded. Its script searches in the page, and without
scripts all can still be read.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sessiondb.clock import iso_from_ms
from sessiondb.models import Entry
from sessiondb.transcript.paths import session_of
from sessiondb.transcript.pieces import Piece, pieces_of, title_of, written_at_ms

from .path import Heading

_FOLDER: Final = Path(__file__).parent
_RASTER: Final = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp"}
)
"""Images that are shown. One of another type, such as SVG, can hold more than pixels."""
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)
SUMMARY_CHARS: Final = 100
"""As much of a folded text is in the line that unfolds it."""

# Characters that no text shows are shown by their pictures. A line and a tab stay.
_PICTURES: Final = {code: 0x2400 + code for code in range(0x20) if code not in (0x09, 0x0A)} | {
    0x7F: 0x2421
}
_FOLDED: Final = {"call": "calls", "thinking": "thinks"}


@lru_cache(maxsize=1)
def _assets() -> tuple[str, str]:
    names = ("page.css", "page.js")
    style, script = (_FOLDER.joinpath(name).read_text(encoding="utf-8") for name in names)
    return style, script


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy() -> str:
    """Return the page's Content-Security-Policy."""
    style, script = _assets()
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def shown(text: str) -> str:
    """Escape a text for the page, also inside of quotes."""
    return escape(text.replace("\r\n", "\n").translate(_PICTURES))


class Html:
    """Writes the page from its top to its end."""

    def __init__(self) -> None:
        self._top: Heading | None = None
        self._last: Entry | None = None
        self._inside = True

    def begin(self, heading: Heading) -> bytes:
        """Return the page up to the first entry."""
        self._top = heading
        self._inside = heading.start_no is None
        style, script = _assets()
        facts = "".join(
            f"<dt>{name}</dt><dd><bdi>{shown(value)}</bdi></dd>" for name, value in _facts(heading)
        )
        return _bytes(
            "<!doctype html>\n"
            '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy()}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<title>{shown(heading.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f'<header><h1 dir="auto">{shown(heading.title)}</h1>\n<dl>{facts}</dl>\n</header>\n'
            '<form id="find" role="search" hidden>'
            '<input type="search" id="words" placeholder="Search in this conversation" '
            'aria-label="Search in this conversation" autocomplete="off">'
            '<button type="button" id="before" aria-label="Previous match">&uarr;</button>'
            '<button type="submit" aria-label="Next match">&darr;</button>'
            '<output id="found" for="words"></output></form>\n'
            f"<main>\n<script>{script}</script>\n"
        )

    def page(self, entries: list[Entry]) -> bytes:
        """Return the next entries."""
        return _bytes("".join(part for entry in entries for part in self._entry(entry)))

    def end(self) -> bytes:
        """Return what is left of the page."""
        return b"</main>\n</body>\n</html>\n"

    def _entry(self, entry: Entry) -> Iterator[str]:
        top = self._top
        assert top is not None, "the page has begun"
        if self._last is not None and session_of(self._last.entry_no) != session_of(entry.entry_no):
            yield '<p class="rule">forked here</p>\n'
        if not self._inside and top.start_no is not None and entry.entry_no >= top.start_no:
            self._inside = True
            yield '<p class="rule now">the current context begins here</p>\n'
        self._last = entry
        if entry.type in ("compaction", "reset"):
            yield f'<p class="rule">{entry.type}: the context began anew here</p>\n'
        anchor = f"e-{entry.entry_id}"
        at = iso_from_ms(written_at_ms(entry))
        yield (
            f'<article id="{shown(anchor)}" class="{_look(entry)}"><header>'
            f'<a href="#{quote(anchor)}">{top.name_of(entry)}</a> '
            f"<b><bdi>{shown(title_of(entry))}</bdi></b> "
            f'<time datetime="{at}">{at[:10]} {at[11:19]}</time></header>\n'
        )
        for piece in pieces_of(entry):
            yield _piece(piece)
        yield "</article>\n"


def _facts(heading: Heading) -> Iterator[tuple[str, str]]:
    info = heading.info
    yield "session", info.session_id
    for key in info.keys:
        yield "key", key
    if info.forked_from:
        yield "fork of", info.forked_from
    yield "begun", f"{iso_from_ms(info.created_at_ms)[:19].replace('T', ' ')} UTC"


def _look(entry: Entry) -> str:
    """Return the class of an entry: who speaks, in one of a few words of the style."""
    if entry.type in ("compaction", "branch_summary"):
        return "summary"
    if entry.type not in ("message", "custom_message"):
        return "event"
    return entry.role if entry.role in ("user", "assistant") else "other"


def _piece(piece: Piece) -> str:
    if piece.kind == "image":
        return _image(piece)
    text = piece.text.strip("\n")
    if piece.kind == "other" and piece.name:
        text = f"[{piece.name}]"
    if not text.strip() and piece.kind != "call":
        return ""
    if piece.of_result:
        return _details("returned", "", text)
    if piece.kind in _FOLDED:
        return _details(_FOLDED[piece.kind], piece.name, text)
    tag = "pre" if piece.kind in ("command", "other", "damaged") else "div"
    return f'<{tag} class="{piece.kind}" dir="auto">{shown(text)}</{tag}>\n'


def _details(what: str, name: str, text: str) -> str:
    first = " ".join(text[: SUMMARY_CHARS * 2].split())
    cut = f"{first[:SUMMARY_CHARS]}\u2026" if len(first) > SUMMARY_CHARS else first
    title = f"<i>{what}</i> <b><bdi>{shown(name)}</bdi></b> <bdi>{shown(cut)}</bdi>"
    return (
        f'<details class="{what}"><summary>{title}</summary>'
        f'<pre dir="auto">{shown(text)}</pre></details>\n'
    )


def _image(piece: Piece) -> str:
    data = "".join((piece.data or "").split())
    mime_type = piece.name.lower()
    if mime_type in _RASTER and _BASE64.fullmatch(data):
        return f'<img alt="" src="data:{mime_type};base64,{data}">\n'
    if piece.data is not None:
        return f'<p class="note">[an image of type {shown(piece.name) or "unknown"}]</p>\n'
    return f'<p class="note">[an image that is not here: <bdi>{shown(piece.text)}</bdi>]</p>\n'


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # half a surrogate pair has no UTF-8 form

"""Exports that are read: every word of a conversation, and nothing of it is markup or a formula."""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import sessiondb
from sessiondb import sync
from sessiondb.errors import InvalidInput
from sessiondb.transfer import reading
from sessiondb.transfer.reading import path
from sessiondb.transfer.reading.html import policy
from sessiondb.transfer.reading.markdown import quoted
from sessiondb.transfer.redaction import Redactor
from sessiondb.words import ExportFormat, MessageFormat
from tests.support.talks import SPEAKERS

KEY = "agent:main:main"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAf"
    "FcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
HOSTILE = (
    "<script>document.title='taken'</script>",
    "\"'><img src=x onerror=\"document.title='taken'\">",
    "</div></main></script><style>*{display:none}</style>",
    "-->]]></title><iframe src=//evil.example></iframe>",
    "\n\n## 99 \u00b7 user\n\n</details>\n\n<b>forged</b>\n",
    "```\n<i>after an open fence</i>\n```\n<u>outside again</u>",
    "- a\n  ```\nout of the list <script>1</script>",
    "~~~\n<i>x\n~~~ \n<em>y",
    "\r<script>cr</script>\r\n![pixel](https://evil.example/p.png)",
    "&lt;b&gt; &amp;\u0000\u001b[31m\u202ertl",
)


def written(session: sync.Session, folder: Path, name: ExportFormat, **options: Any) -> str:
    """Export one session, and return its text."""
    report = session.db.export(
        folder / "it", session=session, format=name, overwrite=True, **options
    )
    [file] = report.files
    assert report.ok, file.note
    return Path(file.path).read_bytes().decode()


class Page(HTMLParser):
    """The page as a browser would take it: its tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[tuple[str, str]] = set()
        self.texts: list[str] = []
        self.sources: list[str] = []
        self._in: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {(tag, name) for name, _ in attrs}
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self._in.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._in and self._in.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" not in self._in and "style" not in self._in:
            self.texts.append(data)


def hostile(db: sync.SessionDB, words: tuple[str, ...]) -> sync.Session:
    """Make a conversation that says each of the words in every place that an export shows."""
    session = db.session(KEY)
    for text in words:
        image = {"type": "image", "data": text, "mimeType": text}
        reply = [
            {"type": "thinking", "thinking": text},
            {"type": "text", "text": text},
            image,
            {**image, "mimeType": "image/png"},
            {"type": text},
            {"type": "toolCall", "id": "c", "name": text, "arguments": {"a": text}},
        ]
        result = {"role": "toolResult", "toolCallId": "c", "toolName": text, "content": text}
        session.append_many(
            [
                {"role": "user", "content": text},
                {"role": "assistant", "model": text, "content": reply, "stopReason": text},
                result,
                {"type": "compaction", "summary": text, "tokensBefore": 1},
                {"type": "of tomorrow", "x": text},
                {"type": "session_info", "name": text},
            ]
        )
    return session


def test_nothing_that_a_message_says_is_markup_of_the_page(tmp_path: Path) -> None:
    found = []
    for name, words in (("hostile", HOSTILE), ("plain", tuple("a-word" for _ in HOSTILE))):
        with sync.open(tmp_path / f"{name}.db") as db:
            found.append(Page(written(hostile(db, words), tmp_path, "html")))
    page, plain = found
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes
    assert {name for _, name in page.attributes if name.startswith("on")} == set()
    assert all(source.startswith("#e-") for source in page.sources)
    text = "".join(page.texts)
    for words in HOSTILE:
        shown = (
            words.strip("\n").replace("\r\n", "\n").translate({0: 0x2400, 13: 0x240D, 27: 0x241B})
        )
        assert text.count(shown) >= 5, words


def test_a_page_allows_itself_its_own_script_and_nothing_else(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as db:
        session = db.session(KEY)
        text = written(session, tmp_path, "html")
    assert text.count("<script>") == 1
    assert policy().startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy()
    assert text.index("Content-Security-Policy") < min(text.index("<style"), text.index("<title"))


def outside_fences(text: str) -> Iterator[str]:
    """Yield the lines that a reader of Markdown does not take for code. A quote ends its fence."""
    fence, was_quoted = "", False
    for line in re.split(r"\r\n|\r|\n", text):
        is_quoted = line.startswith(">")
        fence = fence if is_quoted == was_quoted else ""
        was_quoted = is_quoted
        inside = line.removeprefix(">").removeprefix(" ")
        mark = re.match(r"(`{3,})[^`]*$|(~{3,})", inside)
        if not fence and mark:
            fence = mark[1] or mark[2]
        elif not fence:
            yield line
        elif re.fullmatch(rf"{fence[0]}{{{len(fence)},}}[ \t]*", inside):
            fence = ""


def test_no_message_of_markdown_can_pretend_to_be_another(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as db:
        session = hostile(db, HOSTILE)
        text = written(session, tmp_path, "markdown")
        entries = session.entries(limit=1_000)
    loose = list(outside_fences(text))
    assert sum(line.startswith("## ") for line in loose) == len(entries)
    ours = re.compile(r"<details><summary>[^<]*</summary>|</details>")
    rest = [line for line in loose if not ours.fullmatch(line)]
    assert [line for line in rest if "<" in line or "![" in line] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a <b>", "> a &lt;b>\n"),
        ("```\n<b>\n```\n<b>", "> ```\n> <b>\n> ```\n> &lt;b>\n"),
        ("````\n```\n<b>\n````\n<b>", "> ````\n> ```\n> <b>\n> ````\n> &lt;b>\n"),
        ("``` a`b\n<b>", "> ``` a`b\n> &lt;b>\n"),
        ("  ```\n<b>", ">   ```\n> &lt;b>\n"),
    ],
)
def test_markdown_in_a_quote_stays_as_it_is_but_for_html(text: str, shown: str) -> None:
    assert quoted(text) == shown


@pytest.mark.parametrize("message_format", SPEAKERS)
def test_the_words_of_every_message_format_are_in_every_export(
    tmp_path: Path, message_format: MessageFormat
) -> None:
    speaker = SPEAKERS[message_format](random.Random(1))
    said = iter(f"the words {number}" for number in range(100))
    speaker.words = lambda: next(said)  # type: ignore[method-assign]
    speaker.person()
    speaker.calls(["c1"])
    speaker.result(["c1"])
    speaker.answer()
    used = re.findall(r"the words \d+", json.dumps(speaker.talk.items))
    assert len(used) >= 4
    with sync.open(tmp_path / "a.db") as db:
        session = db.create_session("a-session", format=message_format)
        session.append_many(speaker.talk.items)
        page = Page(written(session, tmp_path, "html"))
        texts = {
            "html": "".join(page.texts),
            "markdown": written(session, tmp_path, "markdown"),
            "csv": written(session, tmp_path, "csv"),
            "ndjson": written(session, tmp_path, "ndjson"),
        }
    for name, text in texts.items():
        assert [words for words in used if words not in text] == [], name
    assert page.tags["details"] >= 2


IMAGES: dict[str, dict[str, Any]] = {
    "pi": {"type": "image", "data": PIXEL, "mimeType": "image/png"},
    "openai-chat": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    "openai-responses": {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
    "anthropic": {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
    },
}


def test_images_of_every_format_are_inside_the_page(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as db:
        for name, block in IMAGES.items():
            session = db.create_session(f"of-{name}")
            session.append({"role": "user", "content": [block]})
            page = Page(written(session, tmp_path, "html"))
            assert f"data:image/png;base64,{PIXEL}" in page.sources, name
        elsewhere = db.create_session("elsewhere")
        url = "https://example.com/a.png"
        elsewhere.append(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        )
        page = Page(written(elsewhere, tmp_path, "html"))
        assert not page.tags["img"]
        assert url in "".join(page.texts)


def test_every_table_has_a_row_for_each_entry(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is part of the extra parquet")
    with sync.open(tmp_path / "a.db") as db:
        session = hostile(db, ("=1+1", "\ud83d half", 'a\nb,"c"'))
        entries = session.entries(limit=1_000)
        lines = [json.loads(line) for line in (written(session, tmp_path, "ndjson")).splitlines()]
        rows = list(csv.DictReader((written(session, tmp_path, "csv")).splitlines(keepends=True)))
        report = db.export(tmp_path / "t.parquet", session=session, format="parquet")
        table = pq.read_table(report.files[0].path).to_pylist()
    assert [line["payload"] for line in lines] == [json.loads(entry.payload) for entry in entries]
    assert [(line["seq"], line["entry_id"], line["tokens"]) for line in lines] == [
        (entry.seq, entry.entry_id, entry.tokens) for entry in entries
    ]
    assert [
        {**line, "payload": entry.payload} for line, entry in zip(lines, entries, strict=True)
    ] == table
    for row, line in zip(rows, table, strict=True):
        assert row.keys() == line.keys()
        assert row["payload"] == line["payload"]
        assert row["text"].removeprefix("'") == line["text"]
        assert not row["text"].startswith(("=", "+", "-", "@"))
    assert "'=1+1" in [row["text"] for row in rows]


def test_an_export_is_repeated_until_the_head_moves(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as db:
        session = db.session(KEY)
        (db.session("agent:other:main")).append({"role": "user", "content": "other"})
        session.append({"role": "user", "content": "one"})
        for name in ("html", "markdown", "csv", "ndjson"):
            where = tmp_path / name
            states = [
                (db.export(where, session=session, format=name)).files[0].status for _ in range(2)
            ]
            assert states == ["written", "unchanged"]
        session.append({"role": "user", "content": "two"})
        refused = db.export(where, session=session, format=name)
        assert [file.status for file in refused.files] == ["refused"]
        every = db.export(tmp_path / "all", format="markdown")
        assert {file.session_id for file in every.files} >= {session.id}
        assert every.ok
        assert len(every.files) == 2
        assert all(
            "two" in Path(file.path).read_text()
            for file in every.files
            if file.session_id == session.id
        )


def test_a_branch_and_a_fork_are_read_along_their_own_paths(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as db:
        session = db.session(KEY)
        first = session.append({"role": "user", "content": "the root"})
        left = session.append({"role": "user", "content": "the left way"})
        session.branch(first.entry_id)
        session.append({"role": "user", "content": "the right way"})
        fork = session.fork(entry=left.entry_id)
        fork.append({"role": "user", "content": "the way of the fork"})
        text = written(session, tmp_path, "markdown")
        assert "the right way" in text
        assert "the left way" not in text
        text = written(session, tmp_path, "markdown", branch=left.entry_id)
        assert "the left way" in text
        assert "the right way" not in text
        text = written(fork, tmp_path, "html")
        assert text.index("the left way") < text.index("forked here") < text.index("of the fork")
        assert f">1@{session.id}</a>" in text
        with pytest.raises(InvalidInput, match="name the session"):
            db.export(tmp_path / "x", format="html", branch=left.entry_id)
        with pytest.raises(InvalidInput, match="format is 'docx'"):
            db.export(tmp_path / "x", format="docx")  # type: ignore[arg-type]


def test_edits_and_compactions_are_shown_where_they_came(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as db:
        session = db.session(KEY)
        session.append({"role": "user", "content": "left behind"})
        kept = session.append({"role": "user", "content": "said at first"})
        summary = {"type": "compaction", "summary": "what was", "tokensBefore": 9}
        session.append({**summary, "firstKeptEntryId": kept.entry_id})
        session.edit(kept.entry_id, "said better")
        text = "".join(Page(written(session, tmp_path, "html")).texts)
    order = (
        "left behind",
        "the current context begins here",
        "said at first",
        "compaction: the context began anew",
        "what was",
        f"is sent this instead of {kept.entry_id}",
        "said better",
    )
    places = [text.index(part) for part in order]
    assert places == sorted(places)


@pytest.mark.anyio
async def test_a_long_conversation_is_never_whole_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "PAGE_ROWS", 10)
    async with sessiondb.open(tmp_path / "a.db", durability="normal") as db:
        session = await db.session(KEY)
        await session.append_many([{"role": "user", "content": f"text {at}"} for at in range(100)])
        for name in ("html", "csv"):
            parts = reading.content(db.backend, session.ref.session_no, name, redacted=Counter())
            sizes = []
            async for part in parts:
                sizes.append(part.count(b"text "))
                # What is appended meanwhile is not a part of it.
                await session.append({"role": "user", "content": "text of another moment"})
            said = sum(sizes)
            assert said >= 100
            assert max(sizes) * 9 <= said
            assert sizes.count(0) <= 2


def test_an_archived_session_is_reported_and_others_are_written(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as db:
        ended = db.create_session("ended")
        ended.append({"role": "user", "content": "gone"})
        ended.end()
        (db.create_session("live")).append({"role": "user", "content": "here"})
        db.gc(sessiondb.RetentionPolicy(max_sessions=1, idle_days=0))
        report = db.export(tmp_path / "out", format="html")
    states = {file.session_id: (file.status, file.note) for file in report.files}
    assert states["live"][0] == "written"
    assert states["ended"][0] == "failed"
    assert "sessiondb unarchive DB ended" in states["ended"][1]


def test_an_archived_session_is_read_out_of_its_archive(tmp_path: Path) -> None:
    with sync.open(tmp_path / "a.db") as db:
        origin = db.create_session("origin")
        first = origin.append({"role": "user", "content": "the root"})
        left = origin.append({"role": "user", "content": "the left way"})
        origin.branch(first.entry_id)
        origin.append({"role": "user", "content": "the right way"})
        fork = origin.fork(entry=left.entry_id, session_id="fork")
        fork.append_many([{"role": "user", "content": f"of the fork {at}"} for at in range(30)])
        fork.append({"type": "compaction", "summary": "in short", "tokensBefore": 9})
        moved = db.create_session("moved")
        for text in ("one", "two", "three"):
            last = moved.append({"role": "user", "content": text})
        moved.branch(moved.entries()[1].entry_id)
        names = ("origin", "fork", "moved")
        before = {name: _texts(db, name, tmp_path / "before") for name in names}
        for name in names:
            db.session_by_id(name).end()
        policy = sessiondb.RetentionPolicy(max_sessions=0, idle_days=0)
        for _ in names:  # a fork's origin goes after it
            db.gc(policy)
        assert all(db.session_by_id(name).info().archived_at_ms for name in names)
        size = db.query("SELECT count(*) FROM entry").rows
        assert {name: _texts(db, name, tmp_path / "after") for name in names} == before
        assert db.query("SELECT count(*) FROM entry").rows == size
        refused = db.export(tmp_path / "x", session=moved, format="html")
        assert [file.status for file in refused.files] == ["failed"]
        with pytest.raises(InvalidInput, match="unarchive"):
            db.export(tmp_path / "x", session=moved, archived=True)
    assert "of the fork 29" in before["fork"][0]
    assert "the right way" in before["origin"][0]
    assert last.entry_id not in before["moved"][1]


def _texts(db: sync.SessionDB, name: str, folder: Path) -> tuple[str, str]:
    """Return a conversation as Markdown, without its keys, and as lines of JSON."""
    session = db.session_by_id(name)
    return (
        written(session, folder, "markdown", archived=True),
        written(session, folder, "ndjson", archived=True),
    )


def test_a_redactor_sees_what_is_said_and_counts_it(tmp_path: Path) -> None:
    pytest.importorskip("re2", reason="the extra `redact` is not installed")
    secret = "AKIAIOSFODNN7EXAMPLE"
    with sync.open(tmp_path / "a.db") as db:
        session = db.session(KEY)
        session.append({"role": "user", "content": f"use {secret}"})
        session.rename(f"about {secret}")
        for name in ("html", "markdown", "csv", "ndjson"):
            report = db.export(tmp_path / "out", session=session, format=name, redactor=Redactor())
            content = Path(report.files[0].path).read_text()
            assert secret not in content
            assert "[redacted:aws-access-key]" in content.replace("&#91;", "[").replace(
                "&#93;", "]"
            )
            assert report.files[0].redacted["aws-access-key"] >= 2


def test_a_format_without_its_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with sync.open(tmp_path / "a.db") as db:
        session = db.session(KEY)
        with pytest.raises(InvalidInput, match=r"pip install 'sessiondb\[parquet\]'"):
            db.export(tmp_path / "out", session=session, format="parquet")
        assert not (tmp_path / "out").exists()

"""The command `search`: find words in all that was said, and build the index for it.

A search reads and writes nothing. To build the index takes short steps, each durable, beside a
gateway that may have the database open.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from sessiondb import clock
from sessiondb.limits import SEARCH_HITS_MAX
from sessiondb.models import SearchHit, SearchIndexed, SearchPage

from .program import (
    command,
    database_argument,
    debug_option,
    json_option,
    look_into,
    on_interrupt,
    refuse,
    write_into,
)
from .session_ids import session_named, shown_id
from .sessions import span_s
from .terminal import (
    as_record,
    cells,
    counted,
    cut,
    duration,
    escape,
    naming,
    print_json,
    print_line,
    terminal_width,
)

if TYPE_CHECKING:
    from sessiondb import sync

WIDTH = 80
"""So wide is a snippet where the output goes to no terminal."""


@command(
    examples=(
        "sessiondb search gateway.db lamp",
        "sessiondb search gateway.db 'red lamp' broken --role user",
        "sessiondb search gateway.db lamp --session agent:main:discord:channel:1 --json",
        "sessiondb search gateway.db --build",
    ),
)
@database_argument
@click.argument("words", nargs=-1)
@click.option("--agent", metavar="ID", help="Only sessions of this agent.")
@click.option("--session", metavar="SESSION", help="Only this session, with what it shares.")
@click.option("--role", metavar="ROLE", help="Only messages of this role, such as user.")
@click.option(
    "--since",
    metavar="TIME",
    callback=span_s,
    help="Only what was said in this time, such as 30m, 2h or 7d.",
)
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="So many hits."
)
@click.option("--archived", is_flag=True, help="Search archived sessions instead: slower.")
@click.option("--build", is_flag=True, help="Build the index, or go on, and keep it from now on.")
@click.option("--rebuild", is_flag=True, help="Build it anew.")
@click.option("--drop", is_flag=True, help="Empty it, and keep it no more.")
@json_option()
@debug_option
def search(
    db: str,
    words: tuple[str, ...],
    agent: str | None,
    session: str | None,
    role: str | None,
    since: float | None,
    limit: int,
    archived: bool,
    build: bool,
    rebuild: bool,
    drop: bool,
    as_json: bool,
) -> None:
    """Find words in what was said, the newest session first.

    All words are to be in a message, in any order. Those in quotes stand side by side. Capitals
    and accents make no difference, and no character has another meaning. Without words, prints
    how much is in the index. `--build` makes one: until then only the newest messages are read.
    """
    if build or rebuild or drop:
        if words or sum((build, rebuild, drop)) > 1:
            refuse("give one of --build, --rebuild and --drop, and no words")
        _print_state(_change(db, drop=drop, rebuild=rebuild), db, as_json=as_json)
        return
    with look_into(db) as opened:
        if not words:
            _print_state(opened.search_indexed(), db, as_json=as_json)
            return
        chosen = session_named(opened, session) if session is not None else None
        since_ms = 0 if since is None else clock.now_ms() - round(since * 1000)
        pages = list(_pages(opened, _joined(words), limit, chosen, agent, role, since_ms, archived))
        hits = [hit for page in pages for hit in page.hits]
        if as_json:
            rest = as_record(pages[-1])
            print_json({**rest, "hits": [as_record(hit) for hit in hits]})
            return
        names = {one: shown_id(opened, one) for one in {hit.session_id for hit in hits}}
    for hit in hits:
        _print_hit(hit, names[hit.session_id])
    _say_more(pages[-1], hits, db)


def _joined(words: tuple[str, ...]) -> str:
    """Return the words as one text. One argument with spaces was in quotes."""
    return " ".join(
        f'"{word}"' if '"' not in word and len(word.split()) > 1 else word for word in words
    )


def _pages(
    opened: sync.SessionDB,
    words: str,
    limit: int,
    session: sync.Session | None,
    agent: str | None,
    role: str | None,
    since_ms: int,
    archived: bool,
) -> Iterator[SearchPage]:
    before: int | None = None
    while True:
        page = opened.search(
            words,
            session=session,
            agent_id=agent,
            role=role,
            since_ms=since_ms,
            archived=archived,
            before=before,
            limit=min(limit, SEARCH_HITS_MAX),
        )
        yield page
        limit, before = limit - len(page.hits), page.next
        if before is None or limit <= 0:
            return


def _change(db: str, *, drop: bool, rebuild: bool) -> SearchIndexed:
    on_interrupt(
        lambda: "What is in the index stays there. Run it again with --build for the rest."
    )
    with write_into(db, create=False) as opened:
        if drop:
            opened.drop_search()
            return opened.search_indexed()
        return opened.build_search(rebuild=rebuild)


# -- printing --------------------------------------------------------------------------


def _print_state(state: SearchIndexed, db: str, *, as_json: bool) -> None:
    if as_json:
        print_json(as_record(state))
    elif not state.built:
        print_line("There is no search index. A search reads the newest entries only.")
        print_line(naming("`sessiondb search DB --build` makes one.", db))
    else:
        done = state.entries - state.behind
        print_line(
            f"The search index has {done:,} of {counted(state.entries, 'entry', 'entries')}."
        )
        if state.purging:
            print_line("Words that were deleted are still in older parts of it.")


def _print_hit(hit: SearchHit, name: str) -> None:
    who = hit.role or hit.type
    age = duration(clock.now_ms() - hit.appended_at_ms)
    left = "" if hit.on_path else ", not on the current branch"
    print_line(f"{escape(name)} #{hit.seq}  {escape(who)}, {age} ago{left}")
    click.echo(f"  {_excerpt(hit, (terminal_width() or WIDTH) - 2)}")


def _excerpt(hit: SearchHit, room: int) -> str:
    """Return one line of a snippet with the first of its words. They are bold on a terminal."""
    first = hit.marks[0][0] if hit.marks else 0
    lead = escape(" ".join(hit.snippet[:first].split()))
    if cells(lead) > room // 3:
        begin = lead[-(room // 3) :].partition(" ")[2]
        lead = f"...{begin}"
    pieces = [(f"{lead} " if lead else "", False)]
    at = first
    for low, high in (*hit.marks, (len(hit.snippet), len(hit.snippet))):
        pieces += [(_line(hit.snippet[at:low]), False), (_line(hit.snippet[low:high]), True)]
        at = high
    shown = []
    for text, is_word in pieces:
        part = cut(text, room)
        shown.append(click.style(part, bold=True) if is_word and part else part)
        room -= cells(part)
        if room <= 0 or part != text:
            break
    return "".join(shown)


def _line(text: str) -> str:
    """Return text as a part of one line."""
    inner = " ".join(text.split())
    before = " " if text[:1].isspace() else ""
    behind = " " if text[-1:].isspace() and inner else ""
    return escape(f"{before}{inner}{behind}")


def _say_more(last: SearchPage, hits: list[SearchHit], db: str) -> None:
    lines = []
    if not hits:
        lines.append("Nothing was found.")
    elif last.next is not None:
        lines.append(f"The first {len(hits):,}. --limit N lists more.")
    if last.unread:
        unread = counted(last.unread, "entry", "entries")
        build = "" if last.built else " There is no index."
        lines.append(f"{unread} not in the index were not read.{build}")
        lines.append(naming("`sessiondb search DB --build` puts them there.", db))
    for line in lines:
        click.echo(line, err=True)

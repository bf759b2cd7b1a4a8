"""What `top` draws, with textual: a screen of the database, and one of a session.

Every look is read on a thread of its own, so a slow disk stops no key. A look that fails is shown
as a line, and the next one is tried. All text comes escaped, and is never taken for markup.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static

from sessiondb.clock import now_ms
from sessiondb.errors import SessionDBError

from .terminal import at, duration, escape
from .top_look import Conversation, Look, look, read_conversation

if TYPE_CHECKING:
    from sessiondb import sync
    from sessiondb.maintenance.session_list import Listed

TEXT_CELLS = 40
COLUMNS = ("title", "last message", "age", "entries", "tokens", "state")


class Live(Screen[None]):
    """A screen that is read again and again."""

    BINDINGS: ClassVar = [("r", "look", "Look now"), ("q", "app.quit", "Quit")]

    def __init__(self, opened: sync.SessionDB, every: float) -> None:
        super().__init__()
        self.opened = opened
        self.every = every

    def on_mount(self) -> None:
        """Look now, and again every few seconds."""
        self.set_interval(self.every, self.action_look)
        self.action_look()

    def action_look(self) -> None:
        """Read on a thread. One look at a time: the newest is shown."""
        self.run_worker(self._look, thread=True, exclusive=True, name="look")

    def _look(self) -> None:
        try:
            draw = self.read()
        except SessionDBError as error:
            text = f"cannot be read now: {escape(' '.join(str(error).split()))}"
            self.app.call_from_thread(self.trouble, text)
        else:
            self.app.call_from_thread(draw)

    @abstractmethod
    def read(self) -> Callable[[], None]:
        """Read what is shown, on a thread. Return what draws it."""

    def trouble(self, text: str) -> None:
        """Show that a look has failed."""
        self.query_one("#trouble", Static).update(Text(text, style="bold"))


class DatabaseScreen(Live):
    """Health and sessions."""

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="trouble")
        yield Static(id="health")
        yield DataTable(id="sessions", cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """Name the columns, and begin."""
        self.query_one(DataTable).add_columns(*COLUMNS)
        self.query_one(DataTable).focus()
        super().on_mount()

    def read(self) -> Callable[[], None]:
        """Read the database."""
        found = look(self.opened)
        return lambda: self.show(found)

    def show(self, found: Look) -> None:
        """Draw a look. The cursor stays on its session."""
        self.query_one("#trouble", Static).update("")
        self.query_one("#health", Static).update(Text("\n".join(found.health())))
        table = self.query_one(DataTable)
        chosen = self.chosen()
        table.clear()
        for one in found.sessions:
            table.add_row(*map(Text, _row(one)), key=one.info.session_id)
        ids = [one.info.session_id for one in found.sessions]
        if chosen in ids:
            table.move_cursor(row=ids.index(chosen))

    def chosen(self) -> str | None:
        """Return the session under the cursor."""
        table = self.query_one(DataTable)
        if not table.row_count:
            return None
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key
        return str(key.value)

    def on_data_table_row_selected(self, event: Any) -> None:
        """Open the session that was chosen."""
        self.app.push_screen(SessionScreen(self.opened, self.every, str(event.row_key.value)))


class SessionScreen(Live):
    """A session's epochs, and what was said last."""

    BINDINGS: ClassVar = [("escape", "app.pop_screen", "Back")]

    def __init__(self, opened: sync.SessionDB, every: float, session_id: str) -> None:
        super().__init__(opened, every)
        self.session_id = session_id

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="trouble")
        yield Static(id="facts")
        with VerticalScroll():
            yield Static(id="transcript")
        yield Footer()

    def read(self) -> Callable[[], None]:
        """Read the session."""
        found = read_conversation(self.opened, self.session_id)
        return lambda: self.show(found)

    def show(self, found: Conversation) -> None:
        """Draw a look."""
        self.query_one("#trouble", Static).update("")
        self.query_one("#facts", Static).update(Text("\n".join(_facts(found))))
        self.query_one("#transcript", Static).update(Text("\n".join(found.lines())))


class TopApp(App[None]):
    """The program: it begins with the database."""

    CSS = """
    #health, #facts { height: auto; max-height: 50%; border-bottom: solid $primary; }
    #trouble { height: auto; }
    DataTable, VerticalScroll { height: 1fr; }
    """
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, opened: sync.SessionDB, db: str, every: float) -> None:
        super().__init__()
        self.title = escape(db)
        self.opened = opened
        self.every = every

    def on_mount(self) -> None:
        """Show the database."""
        self.push_screen(DatabaseScreen(self.opened, self.every))


def _row(one: Listed) -> list[str]:
    info = one.info
    return [
        _short(one.title or ", ".join(info.keys)),
        _short(one.last_message or ""),
        duration(max(0, now_ms() - info.updated_at_ms)),
        f"{info.entries:,}",
        f"{info.context_tokens:,}",
        one.state,
    ]


def _short(text: str) -> str:
    return escape(" ".join(text.split()))[:TEXT_CELLS]


def _facts(found: Conversation) -> list[str]:
    info = found.info
    epochs = [
        f"epoch {epoch.epoch}, begun by {epoch.reason} at {at(epoch.opened_at_ms)} UTC"
        for epoch in found.epochs[-5:]
    ]
    keys = escape(", ".join(info.keys))
    return [f"{escape(info.session_id)}  {keys}", f"{info.entries:,} entries", *epochs]

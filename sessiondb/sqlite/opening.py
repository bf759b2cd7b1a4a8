"""Opening a database: what is refused before SQLite sees it, then the parts, one after another.

An opening blocks for a while, so it runs on a helper thread. What it promises:
* A file that is refused is left as it was, and no file appears beside it.
* An opening that fails, or whose caller is cancelled, leaves no thread behind that holds
  the file open.

A crash in the middle leaves an empty file, or a database whose registration `recover`
closes.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import apsw

from sessiondb import threads
from sessiondb.clock import Clock
from sessiondb.errors import NewerSchema, NotASessionDB, OpenError
from sessiondb.limits import Limits
from sessiondb.timers import SYSTEM

from .connection import (
    Durability,
    Note,
    connect_reader,
    connect_visitor,
    explain_cannot_open,
    forget,
    refuse_unsafe_library,
    when_unlocked,
)
from .files import make_file, resolved
from .filesystem import refuse_second_place, refuse_unsafe_filesystem
from .held_files import HeldFiles
from .notifier import Notifier
from .parts import Parts
from .permissions import refuse_planted
from .readers import Readers
from .schema import SCHEMA_VERSION, is_new
from .stray_wal import look_and_note, refuse_lone_wal
from .transaction import reraise
from .writer import Writer


@dataclass(frozen=True, slots=True)
class Settings:
    """How a database is to be opened: the arguments of `SqliteBackend.open`."""

    limits: Limits
    durability: Durability
    program: str
    readonly: bool
    create: bool
    allow_unsafe_filesystem: bool
    clock: Clock

    def __post_init__(self) -> None:
        if self.durability not in ("full", "normal"):
            raise OpenError(
                f"durability is {self.durability!r}. Choose 'full' (survives a power cut) or "
                "'normal' (may lose the last commits)."
            )


class SettingsOptions(TypedDict, total=False):
    """What `settings_of` takes."""

    limits: Limits | None
    durability: Durability
    program: str | None
    readonly: bool
    create: bool
    allow_unsafe_filesystem: bool
    clock: Clock


def settings_of(
    *,
    limits: Limits | None = None,
    durability: Durability = "full",
    program: str | None = None,
    readonly: bool = False,
    create: bool = True,
    allow_unsafe_filesystem: bool = False,
    clock: Clock = SYSTEM,
) -> Settings:
    """Return the settings of an opening: the defaults, but for what is said."""
    return Settings(
        limits=limits or Limits(),
        durability=durability,
        program=program or program_name(),
        readonly=readonly,
        create=create,
        allow_unsafe_filesystem=allow_unsafe_filesystem,
        clock=clock,
    )


async def start(path: str | os.PathLike[str], settings: Settings) -> Parts:
    """Start a database's parts on a helper thread. If cancelled, they are stopped again."""
    started: list[Parts] = []
    abandoned = threading.Event()

    def run() -> None:
        started.append(start_here(path, settings))
        if abandoned.is_set():
            started[0].stop()

    try:
        await threads.run(run, abandon_on_cancel=True)
    except BaseException:
        # Critical section "abandoned opening". Lock: none. Invariant: if no caller gets the
        # parts, somebody stops them. The helper thread may still be opening. Each side does
        # its part before it checks the other's, so whichever comes second stops the threads.
        abandoned.set()
        for parts in started:
            parts.stop()
        raise
    return started[0]


def start_here(path: str | os.PathLike[str], settings: Settings) -> Parts:
    """Start a database's parts on this thread.

    Raises:
        OpenError: and its subclasses. Each says what the file is and what to do.
        StoreBusy: another process held the lock for longer than `busy_timeout_s`.
        StoreFailed, StoreFull, StoreDamaged: the disk failed, the disk is full, or the
            file is damaged.
    """
    name = resolve(path)
    _refuse_unsafe_place(path, name, settings)
    with _explained(name, readonly=settings.readonly):
        return _start(name, settings)


def resolve(path: str | os.PathLike[str]) -> str:
    """Return the path of a file without links.

    Raises:
        OpenError: it is not the path of a file.
    """
    text = os.fspath(path)
    if not text or text == ":memory:" or text.startswith("file:"):
        raise OpenError(
            f"{text!r} is not the path of a file. Sessiondb keeps its data in a file that other "
            "processes can read."
        )
    return resolved(text)


def program_name() -> str:
    """Return the name by which others know this process."""
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"


def _refuse_unsafe_place(path: str | os.PathLike[str], name: str, settings: Settings) -> None:
    """Refuse a path, a library or a file system that would lose data. Nothing is opened."""
    refuse_planted(os.fspath(path), name)
    refuse_unsafe_library()
    refuse_second_place(name)
    if not settings.allow_unsafe_filesystem:
        refuse_unsafe_filesystem(name)


@contextmanager
def _explained(name: str, *, readonly: bool) -> Iterator[None]:
    """Raise SQLite's errors of an opening as sessiondb's."""
    try:
        yield
    except apsw.CantOpenError as error:
        raise explain_cannot_open(name) from error
    except apsw.ReadOnlyError as error:
        if readonly:
            raise explain_cannot_open(name) from error
        raise OpenError(
            f"{name}: this user may not write to it. Run as its owner, or open it with "
            "readonly=True."
        ) from error
    except apsw.Error as error:
        reraise(error, f"opening {name}")


def _start(path: str, settings: Settings) -> Parts:
    refuse_lone_wal(path)
    make_file(path, create=settings.create and not settings.readonly)
    note = look_and_note(path)
    start_parts = _start_reading if settings.readonly else _start_writing
    try:
        return start_parts(path, settings, note)
    except BaseException:
        forget(note)
        raise


def _start_writing(path: str, settings: Settings, note: Note | None) -> Parts:
    writer = Writer(
        path,
        settings.limits,
        settings.durability,
        settings.program,
        lambda: changes.notify(),
        without_lock=settings.allow_unsafe_filesystem,
        now_ms=None if settings.clock is SYSTEM else settings.clock.now_ms,
    )
    changes = Notifier(lambda: connect_reader(path), writer.files)
    readers = Readers(path, settings.limits, connect_reader, writer.files)
    with ExitStack() as started:
        _start_one(started, writer)
        _start_one(started, readers)
        _start_one(started, changes)
        parts = Parts(path, writer, readers, changes, note)
        started.pop_all()
    return parts


def _start_reading(path: str, settings: Settings, note: Note | None) -> Parts:
    connection, files = _open_visit(path, settings.limits)
    readers = Readers(path, settings.limits, connect_visitor, lambda: files)
    changes = Notifier(lambda: connect_visitor(path), lambda: files)
    with ExitStack() as started:
        started.callback(files.close, connection)
        _start_one(started, readers)
        _start_one(started, changes)
        parts = Parts(path, None, readers, changes, note, (connection, files))
        started.pop_all()
    return parts


def _open_visit(path: str, limits: Limits) -> tuple[apsw.Connection, HeldFiles]:
    """Open and check a database for reading. Keep its -wal and -shm in place meanwhile."""
    database = HeldFiles.database(path)
    connection = connect_visitor(path)
    try:
        if when_unlocked(
            lambda: is_new(connection, path),
            timeout_s=limits.busy_timeout_s,
            what="opening",
            path=path,
        ):
            raise NotASessionDB(
                f"{path}: the file is empty. Open it for writing first. That creates the database."
            )
        version = connection.pragma("user_version")
        if version != SCHEMA_VERSION:
            raise NewerSchema(
                f"{path}: schema {version} is older than this sessiondb reads ({SCHEMA_VERSION}). "
                "Open it for writing once.",
                path=path,
                found=version,
                known=SCHEMA_VERSION,
            )
        if connection.pragma("journal_mode") != "wal":
            raise OpenError(
                f"{path}: another program has taken it out of WAL mode. Open it for writing once: "
                "that puts it back."
            )
        return connection, database.with_wal()
    except BaseException:
        database.close(connection)
        raise


def _start_one(started: ExitStack, part: Writer | Readers | Notifier) -> None:
    """Start a part's threads, and have them end if a later part cannot be started.

    Threads that were left would hold the file open. A system out of memory or at a limit
    starts no further thread.
    """
    part.start()
    started.callback(part.join)
    started.callback(part.stop)

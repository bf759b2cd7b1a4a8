"""Other lives of an open database than one block's: shared within a process, or gone at its end.

`shared(path)`: all who ask for one path in a process have one engine, one writer and one
registration, and each has an object of its own. The engine is opened by the first, and closed by
the last. So one part of a program can close its object, or drain its loops, and disturb no other
part. They may be in any threads and on any event loops, of asyncio and trio at once.

Critical section "place". Lock: that of the place. Invariant: a place has its engine open from the
first entry into `users` to the last exit. Whoever finds a place that is over makes another.
Opening and closing wait inside, so tasks come here on worker threads.

An object that is dropped without being closed leaves by itself (`users` holds it weakly). If it
was the last one, the engine is collected with it, and warns as any that was not closed.

A fork's child has no places. Objects of the parent are refused there, and so is an opening of a
file that was open in the parent, as everywhere. Other files are opened anew.

`temporary()`: a database in a folder of its own, which is removed when it is closed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import anyio

from . import threads
from .backend import Backend
from .database import OpenOptions, SessionDB
from .errors import InvalidInput, StoreClosed

__all__ = ["shared", "temporary"]

# Options of who opens, and not of what is open.
OF_ONE_CALL = {"create", "program"}


class _Place:
    """A path, and the engine that all who share it use."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users: weakref.WeakSet[SharedDB] = weakref.WeakSet()
        self.backend: Backend | None = None
        self.options: dict[str, Any] = {}
        self.is_over = False
        self.pid = os.getpid()

    def enter(
        self, user: SharedDB, options: dict[str, Any], open_now: Callable[[], Backend]
    ) -> bool:
        """Let a user in, and open the engine for the first. False: the place is over.

        Raises:
            InvalidInput: it is open with other options.
        """
        with self.lock:
            if self.is_over:
                return False
            if self.backend is None:
                try:
                    self.backend = open_now()
                except BaseException:
                    self.is_over = True
                    raise
                self.options = options
            else:
                self._refuse_other(user.path, options)
            self.users.add(user)
            return True

    def _refuse_other(self, path: str, options: dict[str, Any]) -> None:
        for name, mine in self.options.items():
            if name not in OF_ONE_CALL and options[name] != mine:
                raise InvalidInput(
                    f"{path} is open in this process with {name}={mine!r:.80}, and cannot be "
                    f"shared with {name}={options[name]!r:.80}; use the same options, or "
                    "sessiondb.open()"
                )

    def leave(self, user: SharedDB) -> None:
        """Let a user out, and close the engine behind the last. May be repeated."""
        assert self.backend is not None, "it was entered"
        if self.pid != os.getpid():
            self.backend.close_now()  # which is refused, and says why
            return
        with self.lock:
            self.users.discard(user)
            if not self.users and not self.is_over:
                self.is_over = True
                self.backend.close_now()


class _Places:
    """The places of this process. A place lives as long as somebody is in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_path: weakref.WeakValueDictionary[str, _Place] = weakref.WeakValueDictionary()

    def enter(
        self, user: SharedDB, options: dict[str, Any], open_now: Callable[[], Backend]
    ) -> _Place:
        path = os.path.realpath(user.path)
        while True:
            with self._lock:
                place = self._by_path.get(path)
                if place is None or place.is_over:
                    self._by_path[path] = place = _Place()
            if place.enter(user, options, open_now):
                return place


_places = _Places()


def _start_afresh() -> None:
    global _places  # one per process
    _places = _Places()


os.register_at_fork(after_in_child=_start_afresh)


class SharedDB(SessionDB):
    """One user's object of a shared database."""

    _place: _Place | None = None
    _left = False

    @property
    def backend(self) -> Backend:
        if self._left:
            raise StoreClosed(
                f"{self.path}: this object was closed; call sessiondb.shared() for another"
            )
        return super().backend

    def _enter(self) -> None:
        self._place = _places.enter(self, self._options, super()._open_now)

    def _open_now(self) -> Backend:
        self._enter()
        return self._entered()

    async def _open(self) -> Backend:
        # Cancelled, the call waits for the thread's end. asyncio's own cancellation is raised
        # then, and whoever has entered leaves again.
        try:
            await threads.run(self._enter)
        except BaseException:
            if self._place is not None:
                with anyio.CancelScope(shield=True):
                    await threads.run(self._place.leave, self)
            raise
        return self._entered()

    def _entered(self) -> Backend:
        assert self._place is not None, "it was entered"
        assert self._place.backend is not None, "an entered place is open"
        return self._place.backend

    async def _close(self, _backend: Backend) -> None:
        await threads.run(self._close_now, _backend)

    def _close_now(self, _backend: Backend) -> None:
        assert self._place is not None, "it was opened"
        self._place.leave(self)
        self._left = True


class TemporaryDB(SessionDB):
    """A database in a folder of its own."""

    _folder: Path | None = None

    def _open_now(self) -> Backend:
        self._folder = Path(tempfile.mkdtemp(prefix="sessiondb-"))
        self.path = str(self._folder / "sessiondb.db")
        try:
            return super()._open_now()
        except BaseException:
            self._remove()
            raise

    async def _open(self) -> Backend:
        opened: list[Backend] = []
        try:
            await threads.run(lambda: opened.append(self._open_now()))
        except BaseException:
            with anyio.CancelScope(shield=True):
                for backend in opened:
                    await self._close(backend)
            raise
        return opened[0]

    async def _close(self, backend: Backend) -> None:
        await threads.run(self._close_now, backend)

    def _close_now(self, backend: Backend) -> None:
        super()._close_now(backend)
        self._remove()

    def _remove(self) -> None:
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder)


def shared(path: str | os.PathLike[str], **options: Unpack[OpenOptions]) -> SessionDB:
    """Return an object of the database at a path, which all of this process share.

    Use it as that of `open`: in `async with`, or with `open_now` and `close_now`. The first one
    that is opened opens the file, and the last one that is closed closes it. In between all use
    one writer and one registration. Loops, `drain` and `unsigned` are each object's own. The
    options, but for `create` and `program`, are those of the first.

    Any thread and any event loop may use any of the objects. A fork's child shares nothing with
    its parent: an object that was opened before raises StoreClosed there.

    Raises (on entering):
        InvalidInput: the database is open here with other options.
        OpenError, StoreBusy, StoreFailed, StoreFull, StoreDamaged: as of `open`.
    """
    return SharedDB(path, **options)


def temporary(**options: Unpack[OpenOptions]) -> SessionDB:
    """Return a database in a folder of its own, which is removed when it is closed.

    Use it as that of `open`. Its `path` is known once it is open. A program that ends without
    closing it leaves the folder behind, as a crash does.

    Raises (on entering):
        OpenError, StoreFailed, StoreFull: as of `open`.
    """
    return TemporaryDB("(a temporary database)", **options)

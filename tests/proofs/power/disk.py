"""A disk that loses power: writes and syncs are recorded, and a cut is replayed.

`Recorder` is SQLite's file layer (an apsw VFS over 'unix') for as long as its block
runs. The library under test needs no change. The recorder writes down, in one order for
all threads: every file created, write, truncation, sync and deletion, the file work
that Python code does with `os`, and marks that the test sets. It also records every
sync of a folder (SQLite's own too: it is told when a folder is opened for one). `Disk`
replays such a log up to a cut and answers what may be on the disk afterwards.

What is modelled:

* Since a file's last sync each write is kept or not, sector by sector, in any order.
  So are truncations.
* A file that grew may have its new length without the content: zeros, noise, or what
  lay there before it was cut off.
* A name (created, linked, renamed, removed) is on disk when its folder has been synced
  since, and not because of a file's sync. Before that each change of names is kept or
  not. A folder is a name in its parent folder.
* Disks that lie: `believe` decides which syncs count. Disks that fail: `fails` decides
  which syncs report an error. The bytes of such a sync count as written by the system
  and may be missing for ever, whatever later syncs say. They are shown from memory until
  the file is read from the disk again (`posix_fadvise`).
* A process that is killed: `after` lets another one continue in what the first had
  written, synced or not.

What is not: content that changes without being written (that is the business of
checksums), the -shm file (SQLite makes it anew), several processes at once, and a
sector of which the disk itself wrote only a part.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from unittest import mock

import apsw

# -- what is recorded ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Write:
    file: int
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file was synced.

    What was written after the call `began` (a position in the log) may have come too
    late for it.
    """

    file: int
    began: int


@dataclass(frozen=True, slots=True)
class FailedSync:
    """A sync reported an error.

    The system has given up on what was written before it, and will not try again.
    """

    file: int
    began: int


@dataclass(frozen=True, slots=True)
class Name:
    """Names change, all of them or none.

    A creation or link, a removal (None), or both at once (a rename).
    """

    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class SyncFolder:
    path: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Set by the test: what it knows at this moment."""

    what: object


@dataclass(frozen=True, slots=True)
class Forget:
    """The system was asked to read a file from the disk again.

    Writes that a failed sync had given up are then there, or lost for good.
    """

    file: int
    salt: int


Event = Write | Truncate | Sync | FailedSync | Forget | Name | SyncFolder | Mark
Kind = Literal["database", "wal", "journal", "folder", "file"]
Believe = Callable[[Kind, str], bool]

# What stands for a folder where a file would have its number.
FOLDER = -1

_JOURNALS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL
_NAMED = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL | _JOURNALS
_OpenDirectory = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))


@dataclass
class Log:
    """What happened, in order, after a beginning. `root` is the folder that was watched."""

    root: str
    initial: dict[str, bytes]
    """What lay in the folder, durably, when the recording began.

    Its names are the first file numbers, in this order.
    """
    events: list[Event] = field(default_factory=list)
    kinds: dict[int, Kind] = field(default_factory=dict)
    """Of each file, what SQLite opened it as."""
    paths: dict[int, str] = field(default_factory=dict)
    """... and by which name."""


class Recorder(AbstractContextManager["Recorder"]):
    """Records all that happens below a folder while its block runs.

    There can be one at a time in a process.
    """

    def __init__(
        self, root: Path, *, believe: Believe = lambda kind, path: True, after: Disk | None = None
    ) -> None:
        """With `after`, the record continues where a process was killed.

        Writes that had not been synced then still are not.
        """
        self.root = os.path.realpath(root)
        self.believe = believe
        self.fails: Callable[[Kind], bool] = lambda kind: False
        """May be set while the block runs."""
        if after is None:
            initial = {
                str(path): path.read_bytes()
                for path in sorted(Path(self.root).rglob("*"))
                if path.is_file()
            }
            self.log = Log(self.root, initial)
            self._files = {path: number for number, path in enumerate(initial)}
            self._numbers = itertools.count(len(initial))
        else:
            old = after.log
            self.log = Log(
                self.root,
                old.initial,
                old.events[: after.position],
                dict(old.kinds),
                dict(old.paths),
            )
            self._files = {path: number for path, number in after.now.items() if number != FOLDER}
            self._numbers = itertools.count(max(after.numbers, default=-1) + 1)
        self._lock = threading.Lock()
        self._opened: dict[int, str] = {}
        self._stack = ExitStack()

    def mark(self, what: object) -> int:
        """Note that the test knows something now. Return how many events came before."""
        with self._lock:
            self.log.events.append(Mark(what))
            return len(self.log.events) - 1

    # -- the block ---------------------------------------------------------------------

    def __enter__(self) -> Self:
        vfs = _Recording(self)
        self._stack.callback(vfs.unregister)
        self._watch_folders(vfs)
        for name in (
            "open",
            "fsync",
            "link",
            "unlink",
            "rename",
            "replace",
            "mkdir",
            "posix_fadvise",
        ):
            self._stack.enter_context(
                mock.patch.object(os, name, getattr(self, f"_os_{name}")(getattr(os, name)))
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _watch_folders(self, vfs: apsw.VFS) -> None:
        """Be told when SQLite opens a folder: it does so only to sync it."""
        pointer = vfs.xGetSystemCall("openDirectory")
        assert pointer is not None
        original = _OpenDirectory(pointer)

        def opened(path: bytes, descriptor: Any) -> int:
            code: int = original(path, descriptor)
            if code == apsw.SQLITE_OK:
                # Given a file's path it opens the folder that the file is in.
                self.sync_folder(str(Path(os.fsdecode(path)).parent))
            return code

        self._callback = _OpenDirectory(opened)  # must live as long as it may be called
        assert vfs.xSetSystemCall(
            "openDirectory", ctypes.cast(self._callback, ctypes.c_void_p).value or 0
        )
        self._stack.callback(vfs.xSetSystemCall, "openDirectory", pointer)

    # -- what SQLite does --------------------------------------------------------------

    def covers(self, path: str | None) -> bool:
        return path is not None and path.startswith(self.root + os.sep)

    def add(self, event: Event) -> None:
        with self._lock:
            self.log.events.append(event)

    def opened(self, path: str, flags: int, *, created: bool) -> int:
        """Return the number of a file that SQLite has opened."""
        with self._lock:
            if created:
                self._files[path] = next(self._numbers)
                self.log.events.append(Name(((path, self._files[path]),)))
            number = self._files[path]
            kind: Kind = (
                "wal"
                if flags & apsw.SQLITE_OPEN_WAL
                else "journal"
                if flags & _JOURNALS
                else "database"
            )
            self.log.kinds[number] = kind
            self.log.paths[number] = path
            return number

    def removed(self, path: str) -> None:
        with self._lock:
            del self._files[path]
            self.log.events.append(Name(((path, None),)))

    def synced(self, number: int, path: str, began: int) -> None:
        if self.believe(self.log.kinds.get(number, "file"), path):
            self.add(Sync(number, began))

    def sync_folder(self, path: str) -> None:
        if (path == self.root or self.covers(path)) and self.believe("folder", path):
            self.add(SyncFolder(path))

    # -- what Python code does ---------------------------------------------------------

    def _made(self, path: str, number: int) -> None:
        with self._lock:
            self._files[path] = number
            self.log.events.append(Name(((path, number),)))

    def _os_open(self, real: Any) -> Any:
        def os_open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
            name = _absolute(path)
            created = self.covers(name) and flags & os.O_CREAT and not os.path.lexists(name)
            descriptor: int = real(path, flags, mode, **options)
            self._opened[descriptor] = name
            if created:
                self._made(name, next(self._numbers))
            return descriptor

        return os_open

    def _os_fsync(self, real: Any) -> Any:
        def os_fsync(descriptor: Any) -> None:
            real(descriptor)
            name = self._opened[descriptor if isinstance(descriptor, int) else descriptor.fileno()]
            if Path(name).is_dir():
                self.sync_folder(name)
            elif self.covers(name):
                # Written by Python, unseen. Until now it counts as empty.
                number = self._files[name]
                self.add(Write(number, 0, Path(name).read_bytes()))
                self.synced(number, name, len(self.log.events))

        return os_fsync

    def _os_posix_fadvise(self, real: Any) -> Any:
        def os_posix_fadvise(descriptor: int, offset: int, length: int, advice: int) -> None:
            real(descriptor, offset, length, advice)
            name = self._opened[descriptor]
            if advice == os.POSIX_FADV_DONTNEED and self.covers(name):
                self.add(Forget(self._files[name], salt=len(self.log.events)))
                disk = Disk(self.log)
                disk.run_to(len(self.log.events))
                Path(name).write_bytes(
                    disk.after(Loss("nothing", lambda event, piece: True))[
                        os.path.relpath(name, self.root)
                    ]
                )

        return os_posix_fadvise

    def _os_link(self, real: Any) -> Any:
        def os_link(source: Any, target: Any, **options: Any) -> None:
            real(source, target, **options)
            old, new = _absolute(source), _absolute(target)
            if self.covers(new):
                self._made(new, self._files[old])

        return os_link

    def _os_unlink(self, real: Any) -> Any:
        def os_unlink(path: Any, **options: Any) -> None:
            real(path, **options)
            name = _absolute(path)
            if self.covers(name):
                self.removed(name)

        return os_unlink

    def _os_rename(self, real: Any) -> Any:
        def os_rename(source: Any, target: Any, **options: Any) -> None:
            real(source, target, **options)
            old, new = _absolute(source), _absolute(target)
            if self.covers(new):
                with self._lock:
                    self._files[new] = self._files.pop(old)
                    self.log.events.append(Name(((new, self._files[new]), (old, None))))

        return os_rename

    _os_replace = _os_rename

    def _os_mkdir(self, real: Any) -> Any:
        def os_mkdir(path: Any, mode: int = 0o777, **options: Any) -> None:
            real(path, mode, **options)
            name = _absolute(path)
            if self.covers(name):
                self.add(Name(((name, FOLDER),)))

        return os_mkdir


def _absolute(path: Any) -> str:
    # The name as it was given: links are not followed.
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # see above


class _Recording(apsw.VFS):
    """SQLite's unix file layer, recorded.

    The default one of the process until it is unregistered.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        super().__init__("recording", "unix", makedefault=True)

    def xOpen(  # noqa: N802  # SQLite's name
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or not self.recorder.covers(path) or not flags[0] & _NAMED:
            return apsw.VFSFile("unix", name, flags)
        created = not Path(path).exists()
        file = _RecordedFile(self.recorder, path, name, flags)
        file.number = self.recorder.opened(path, flags[0], created=created)
        return file

    def xDelete(self, name: str, syncdir: bool) -> None:  # noqa: N802
        # Told first: the folder is synced, and that is told, before the call returns.
        if self.recorder.covers(name) and Path(name).exists():
            self.recorder.removed(name)
        super().xDelete(name, syncdir)


class _RecordedFile(apsw.VFSFile):
    def __init__(
        self, recorder: Recorder, path: str, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self.recorder = recorder
        self.path = path
        self.number = -1
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self.recorder.add(Write(self.number, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self.recorder.add(Truncate(self.number, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        began = len(self.recorder.log.events)
        if self.recorder.fails(self.recorder.log.kinds[self.number]):
            self.recorder.add(FailedSync(self.number, began))
            raise apsw.IOError("the disk failed to sync, as the test asked")
        super().xSync(flags)
        self.recorder.synced(self.number, self.path, began)


# -- what is left after a cut ----------------------------------------------------------

Fill = Literal["zeros", "noise", "stale"]


@dataclass(frozen=True)
class Loss:
    """One way to lose what was not synced.

    `keeps(event, piece)` decides. A piece is a sector of a write, else 0.
    """

    name: str
    keeps: Callable[[int, int], bool]
    sector: int | None = None
    """Writes are torn at multiples of this. None: each is kept whole or not at all."""
    grows: bool = True
    """Whether a file has the length of what was lost at its end, filled with something else."""
    fill: Fill = "zeros"


LOSSES = (
    "all kept",
    "none kept",
    "a prefix",
    "only the last",
    "all but one",
    "last one torn",
    "some files",
    "sectors",
    "pages",
    "names",
)


def draw_loss(name: str, pending: list[int], kinds: Mapping[int, str], dice: random.Random) -> Loss:
    """Choose what is lost, of the events that are not synced.

    `kinds` says what each of them changed.
    """
    grows = dice.random() < 0.5
    fill = dice.choice(("zeros", "noise", "stale"))
    one = dice.choice(pending) if pending else -1
    last = pending[-1] if pending else -1
    salt, share = dice.getrandbits(64), dice.choice((0.1, 0.5, 0.9))

    def chance(*what: object) -> bool:
        return random.Random(f"{salt} {what}").random() < share

    keeps: dict[str, Callable[[int, int], bool]] = {
        "all kept": lambda event, piece: True,
        "none kept": lambda event, piece: False,
        "a prefix": lambda event, piece: event <= one,
        "only the last": lambda event, piece: event == last,
        "all but one": lambda event, piece: event != one,
        "last one torn": lambda event, piece: event != last or chance(piece),
        "some files": lambda event, piece: chance(kinds[event]),
        "sectors": chance,
        "pages": chance,
        "names": lambda event, piece: kinds[event] != "name" or chance(event),
    }
    sector = {"sectors": 512, "last one torn": dice.choice((512, 4096)), "pages": 4096}.get(name)
    return Loss(name, keeps[name], sector, grows, fill)


class _File:
    """One file: what is on the disk for certain, and what was done to it since."""

    __slots__ = ("doomed", "durable", "ever", "pending")

    def __init__(self, durable: bytes = b"", ever: bytes = b"") -> None:
        self.durable = bytearray(durable)
        self.ever = bytearray(ever or durable)
        """What each place of it held last, also beyond its end: in reused blocks that
        may come back.
        """
        self.pending: list[tuple[int, Write | Truncate]] = []
        self.doomed: list[tuple[int, Write]] = []
        """What a sync failed to write: there or not, until something else is written in
        its place.
        """

    def sync(self, began: int) -> None:
        """Make durable what was done before a position of the log."""
        while self.pending and self.pending[0][0] < began:
            event, change = self.pending.pop(0)
            if isinstance(change, Truncate):
                _resize(self.durable, change.size)
                self._redeem(event, change.size, math.inf)
            else:
                _put(self.durable, change.at, change.data)
                _put(self.ever, change.at, change.data)
                self._redeem(event, change.at, change.at + len(change.data))

    def _redeem(self, event: int, start: int, end: float) -> None:
        """A range has been written anew: what was doomed in it no longer matters."""
        left: list[tuple[int, Write]] = []
        for doomed, write in self.doomed:
            if doomed > event:
                left.append((doomed, write))
                continue
            before = write.data[: max(0, start - write.at)]
            after = write.data[round(min(len(write.data), max(0, end - write.at))) :]
            if before:
                left.append((doomed, Write(write.file, write.at, before)))
            if after:
                left.append(
                    (doomed, Write(write.file, write.at + len(write.data) - len(after), after))
                )
        self.doomed = left

    def fail(self, began: int) -> None:
        """Give up on what was written before a position of the log.

        A length is kept in the folder's journal: tried again.
        """
        given_up = [
            (event, change)
            for event, change in self.pending
            if event < began and isinstance(change, Write)
        ]
        self.doomed += given_up
        self.pending = [
            (event, change) for event, change in self.pending if (event, change) not in given_up
        ]

    def forget(self, salt: int) -> None:
        """Settle what of that is on the disk: it is what everybody sees from now on."""
        if not self.doomed:
            return
        dice = random.Random(salt)
        share = dice.choice((0.0, 0.5, 1.0))
        last = self.doomed[-1][0]
        for event, change in sorted([*self.doomed, *self.pending], key=lambda pair: pair[0]):
            if isinstance(change, Truncate) and event < last:
                _resize(self.durable, change.size)
            elif isinstance(change, Write) and (event, change) in self.doomed:
                _resize(self.durable, max(len(self.durable), change.at + len(change.data)))
                for start, end in _pieces(change, 512):
                    if dice.random() < share:
                        self.durable[start:end] = change.data[start - change.at : end - change.at]
        self.pending = [
            (event, change)
            for event, change in self.pending
            if isinstance(change, Write) or event > last
        ]
        self.doomed = []

    def after(self, loss: Loss) -> bytes:
        """Return its content as this loss leaves it."""
        content = bytearray(self.durable)
        for event, change in sorted([*self.doomed, *self.pending], key=lambda pair: pair[0]):
            if isinstance(change, Truncate):
                if loss.keeps(event, 0):
                    self._grow(content, change.size, loss)
                    del content[change.size :]
                continue
            for piece, (start, end) in enumerate(_pieces(change, loss.sector)):
                if loss.keeps(event, piece):
                    self._grow(content, start, loss)
                    content[start:end] = change.data[start - change.at : end - change.at]
                elif loss.grows:
                    self._grow(content, end, loss)
        return bytes(content)

    def _grow(self, content: bytearray, size: int, loss: Loss) -> None:
        """Make it longer without content of its own."""
        start = len(content)
        if size <= start:
            return
        if loss.fill == "stale":
            content += self.ever[start:size]
        elif loss.fill == "noise":
            content += random.Random(start).randbytes(size - start)
        _resize(content, max(size, len(content)))


def _pieces(change: Write, sector: int | None) -> Iterator[tuple[int, int]]:
    start, end = change.at, change.at + len(change.data)
    while sector is not None and start // sector != (end - 1) // sector:
        border = (start // sector + 1) * sector
        yield start, border
        start = border
    yield start, end


def _resize(content: bytearray, size: int) -> None:
    if size > len(content):
        content += bytes(size - len(content))
    del content[size:]


def _put(content: bytearray, at: int, data: bytes) -> None:
    _resize(content, max(at, len(content)))
    content[at : at + len(data)] = data


class Disk:
    """The disk, as a log is replayed on it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.position = 0
        """How many events have happened."""
        self._files = {
            number: _File(content) for number, content in enumerate(log.initial.values())
        }
        self._names: dict[str, int] = {path: number for number, path in enumerate(log.initial)}
        folders = {str(parent) for path in log.initial for parent in Path(path).parents}
        self._names.update(
            {folder: FOLDER for folder in folders if folder.startswith(log.root + os.sep)}
        )
        self.now = dict(self._names)
        """Every name as the running system sees it."""
        self._last = dict(self._names)
        self._unsynced: list[tuple[int, Name]] = []

    @property
    def numbers(self) -> list[int]:
        return list(self._files)

    def run_to(self, position: int) -> None:
        """Let everything happen up to a position of the log."""
        assert position >= self.position, "time goes forward"
        for number in range(self.position, position):
            self._happen(number, self.log.events[number])
        self.position = position

    def _happen(self, number: int, event: Event) -> None:
        match event:
            case Write(file) | Truncate(file):
                self._files[file].pending.append((number, event))
            case Sync(file, began):
                self._files[file].sync(began)
            case FailedSync(file, began):
                self._files[file].fail(began)
            case Forget(file, salt):
                self._files[file].forget(salt)
            case Name(changes):
                self._unsynced.append((number, event))
                _rename(self.now, event)
                for path, file in changes:
                    if file is not None and file != FOLDER and file not in self._files:
                        # Its blocks may be those of the file that had the name before.
                        before = self._last.get(path)
                        self._files[file] = _File(
                            ever=bytes(self._files[before].ever) if before is not None else b""
                        )
                    if file is not None:
                        self._last[path] = file
            case SyncFolder(path):
                self._sync_names(path)
            case Mark():
                pass

    def _sync_names(self, folder: str) -> None:
        """Make the names of a folder durable.

        A rename from or to another folder becomes so with either.
        """
        left = []
        for number, name in self._unsynced:
            if any(str(Path(path).parent) == folder for path, _ in name.changes):
                _rename(self._names, name)
            else:
                left.append((number, name))
        self._unsynced = left

    def pending(self) -> dict[int, str]:
        """Return every event that may or may not have reached the disk, and what it changed."""
        found = {
            event: f"file {number}"
            for number, file in self._files.items()
            for event, _ in [*file.doomed, *file.pending]
        }
        found.update({event: "name" for event, _ in self._unsynced})
        return dict(sorted(found.items()))

    def after(self, loss: Loss) -> dict[str, bytes]:
        """Return every file that is there after this loss, by its path below the root."""
        names = dict(self._names)
        for event, name in self._unsynced:
            if loss.keeps(event, 0):
                _rename(names, name)
        return {
            os.path.relpath(path, self.log.root): self._files[number].after(loss)
            for path, number in names.items()
            if number != FOLDER and self._is_reachable(path, names)
        }

    def _is_reachable(self, path: str, names: Mapping[str, int]) -> bool:
        parents = itertools.takewhile(
            lambda parent: str(parent) != self.log.root, Path(path).parents
        )
        return all(str(parent) in names for parent in parents)


def _rename(names: dict[str, int], name: Name) -> None:
    for path, file in name.changes:
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def lay_out(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files to a folder that is empty."""
    for name, content in files.items():
        path = folder / name
        if os.sep in name:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def commits(log: Log, database: str) -> Iterator[int]:
    """Yield the position after each commit.

    There the last frame of a transaction is in the database's WAL, kept or not. Before the
    database is in WAL mode, which is while it is created, the rollback journal is removed.
    """
    page: tuple[int, int] | None = None
    journal = Path(database).name + "-journal"
    for position, event in enumerate(log.events):
        if isinstance(event, Name) and any(
            file is None and Path(name).name == journal for name, file in event.changes
        ):
            yield position + 1
        if isinstance(event, Write) and log.paths.get(event.file) == database + "-wal":
            if (event.file, event.at) == page:
                yield position + 1
            # A frame's header: its second number is the size of the database in the
            # last frame of a transaction, else 0.
            is_last = len(event.data) == 24 and event.at >= 32 and event.data[4:8] != bytes(4)
            page = (event.file, event.at + 24) if is_last else None

"""A backup as a file: verified before it has its name, compressed, and brought back.

A backup is written in three steps, each to a name of its own beside it:

    NAME.unverified     the copy, for the caller to fill and to verify
    NAME.partial        what the file will be: the copy itself, or its zstd form, read back
    NAME                a link that is made last, and never takes another file's name

So a name in a folder of backups is a backup that was whole when it was made. A run that is
killed leaves one of the first two, and the next run of that name says so. `Restoring` goes
the other way: the database appears under its name when everything in it is settled.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from sessiondb.clock import now_ms
from sessiondb.errors import InvalidInput

from .files import file_status, make_partial, place, resolved

CHUNK_BYTES = 1024 * 1024
ZSTD_LEVEL = 6
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SIDE_FILES = ("", "-wal", "-shm", "-journal", "-alive")
_STAMP = r"-\d{8}T\d{6}Z\.db(?:\.zst)?"


class BackupFile:
    """A backup that is being made. Leaving it without `finish` leaves no file."""

    def __init__(self, path: str, *, compress: bool) -> None:
        self.path = resolved(path)
        self.copy = f"{self.path}.unverified"
        """Where the copy goes, for `backup`. It is to be verified before `finish`."""
        self._compress = compress
        if compress:
            _zstandard()
        # The name is free, and can be given.
        os.unlink(make_partial(self.path, "backup"))  # noqa: PTH108
        if file_status(self.copy) is not None:
            raise InvalidInput(
                f"{self.copy}: left by a backup that was interrupted, or being written. "
                "Remove it if no backup is running."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _remove(self.copy)

    def finish(self) -> int:
        """Give the copy its name. On disk on return. Return the file's bytes.

        Raises:
            InvalidInput: a file with that name was made meanwhile.
        """
        if not self._compress:
            place(self.copy, self.path, "backup")  # SQLite has synced the content
            return Path(self.path).stat().st_size
        partial = make_partial(self.path, "backup")
        try:
            _compress(self.copy, partial)
            place(partial, self.path, "backup")
        finally:
            Path(partial).unlink(missing_ok=True)
        return Path(self.path).stat().st_size


class Restoring:
    """A database that is being restored from a backup. Without `finish` it leaves no file."""

    def __init__(self, backup: str, path: str) -> None:
        self.path = resolved(path)
        for suffix in ("", "-wal", "-shm"):
            if file_status(self.path + suffix) is not None:
                raise InvalidInput(
                    f"{self.path}{suffix}: there is a file already, and a restore never overwrites "
                    f"one. Stop the gateway, and move {self.path} away with its -wal and -shm."
                )
        self.copy = make_partial(self.path, "restore")
        """The database, to be verified and settled before `finish`."""
        try:
            with _opened(backup) as source, Path(self.copy).open("wb") as target:
                shutil.copyfileobj(source, target, CHUNK_BYTES)
                target.flush()
                os.fsync(target.fileno())
        except BaseException:
            _remove(self.copy)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _remove(self.copy)

    def finish(self) -> None:
        """Give the database its name. On disk on return.

        Raises:
            InvalidInput: a file with that name was made meanwhile.
        """
        with Path(self.copy).open("rb") as file:
            os.fsync(file.fileno())
        place(self.copy, self.path, "restore")


def name_in(folder: str, database: str, *, compress: bool) -> str:
    """Return the path of a new backup in a folder: the database's name and the time, UTC."""
    stamp = f"{datetime.fromtimestamp(now_ms() / 1000, UTC):%Y%m%dT%H%M%SZ}"
    ending = ".db.zst" if compress else ".db"
    return str(Path(folder) / f"{Path(database).stem}-{stamp}{ending}")


def beyond_newest(folder: str, database: str, keep: int) -> list[Path]:
    """Return the backups of a database in a folder beyond the newest `keep`, by their names."""
    pattern = re.compile(re.escape(Path(database).stem) + _STAMP)
    found = sorted(path for path in Path(folder).iterdir() if pattern.fullmatch(path.name))
    return found[:-keep]


def _remove(path: str) -> None:
    for suffix in _SIDE_FILES:
        Path(path + suffix).unlink(missing_ok=True)


def _compress(path: str, target: str) -> None:
    """Compress a file, sync it, and compare what comes out of it again."""
    zstandard = _zstandard()
    size = Path(path).stat().st_size
    written = hashlib.sha256()
    with Path(path).open("rb") as source, Path(target).open("wb") as file:
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
        with compressor.stream_writer(file, size=size, closefd=False) as sink:
            while data := source.read(CHUNK_BYTES):
                written.update(data)
                sink.write(data)
        file.flush()
        os.fsync(file.fileno())
    read = hashlib.sha256()
    with _opened(target) as back:
        while data := back.read(CHUNK_BYTES):
            read.update(data)
    if read.digest() != written.digest():
        raise InvalidInput(
            f"{target}: what was compressed does not come out of it again. Nothing is left of it. "
            "Check the disk, and try again without --zstd."
        )


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """Open a backup for reading, decompressed.

    Raises:
        InvalidInput: there is none, or it is torn.
    """
    try:
        with Path(path).open("rb") as file:
            magic = file.read(len(_ZSTD_MAGIC))
            file.seek(0)
            if magic != _ZSTD_MAGIC:
                yield file
                return
            zstandard = _zstandard()
            try:
                with zstandard.ZstdDecompressor().stream_reader(file, closefd=False) as stream:
                    yield stream
            except zstandard.ZstdError as error:
                raise InvalidInput(
                    f"{path}: this backup is damaged: {error}. Take another one."
                ) from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InvalidInput(f"{path}: {(error.strerror or '').lower()}. Name a backup.") from error


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise InvalidInput(
            "backups that are compressed with zstd need the extra: pip install 'sessiondb[zstd]'"
        ) from error
    return zstandard

"""Where a server listens: a unix socket that is its owner's alone, or loopback with a token.

Nothing else is listened on. For another machine put a proxy with TLS in front of the socket.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sessiondb.errors import InvalidInput

BACKLOG: Final = 128
LOOPBACK: Final = "127.0.0.1"
TOKEN_BYTES: Final = 32
TOKEN_CHARS_MIN: Final = 32
TOKEN_FILE_BYTES_MAX: Final = 4_096


def default_socket(db: str) -> Path:
    """Return where the server of a database listens: in a folder of its own beside the file."""
    path = Path(os.path.realpath(db))
    return path.with_name(f"{path.name}-serve") / "http.sock"


class UnixListener:
    """The unix socket of a server, and its removal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _private_folder(path.parent)
        with _folder_locked(path.parent):
            _remove_stale(path)
            self.socket = _bound(path)
            found = path.lstat()
        self._inode = (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Close it, and remove its file, unless another server has put its own there.

        Whoever accepts connections has a duplicate of the socket. While this one is open, no
        other file can have its inode number.
        """
        with _folder_locked(self.path.parent):
            try:
                found = self.path.lstat()
            except FileNotFoundError:
                found = None
            if found is not None and (found.st_dev, found.st_ino) == self._inode:
                self.path.unlink()
            self.socket.close()


def _private_folder(folder: Path) -> None:
    """Make the socket's folder, or check that it is its owner's alone.

    Raises:
        InvalidInput: others may enter it, or it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise InvalidInput(
            f"the folder {folder} of the socket cannot be made: {error.strerror}. Make it, with "
            "permissions 0700",
            path=str(folder),
        ) from error
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidInput(f"{folder} is no folder, so no socket can be in it", path=str(folder))
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise InvalidInput(
            f"the folder {folder} of the socket is open to other users (permissions "
            f"{stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}). Whoever reaches the "
            "socket may read and write the database. Choose a folder of your own with "
            "permissions 0700: `chmod 700`, or --socket",
            path=str(folder),
        )


@contextmanager
def _folder_locked(folder: Path) -> Iterator[None]:
    """Keep servers that start or end at once apart."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    """Remove the socket of a server that died.

    Raises:
        InvalidInput: a server answers there, or it is no socket.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise InvalidInput(
            f"{path} is there and is no socket, so it was left alone; choose another --socket",
            path=str(path),
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINPROGRESS):
                raise InvalidInput(
                    f"{path}: whether a server listens there cannot be found out "
                    f"({error.strerror}); choose another --socket",
                    path=str(path),
                ) from error
    raise InvalidInput(
        f"a server is listening on {path}. Stop it first, or choose another --socket",
        path=str(path),
    )


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"no socket can be made at {path}: {error.strerror or error}. A path of a socket has "
            "about 100 characters at most; choose a shorter one with --socket",
            path=str(path),
        ) from error
    return listener


def tcp_listener(port: int) -> socket.socket:
    """Listen on a port of the loopback address. 0: on any free one.

    Raises:
        InvalidInput: the port is taken, or may not be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"port {port} of {LOOPBACK} cannot be listened on: {error.strerror}. Choose another "
            "with --tcp"
        ) from error
    return listener


def read_token(path: Path) -> bytes:
    """Return the token of a file. Make the file, with a random token, if there is none.

    Raises:
        InvalidInput: others may read the file, or it has no token.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _known_token(path)
    except OSError as error:
        raise InvalidInput(
            f"the token file {path} cannot be made: {error.strerror}", path=str(path)
        ) from error
    token = os.urandom(TOKEN_BYTES).hex().encode()
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(token + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return token


def _known_token(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            text = file.read(TOKEN_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidInput(
            f"the token file {path} cannot be read: {error.strerror}", path=str(path)
        ) from error
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise InvalidInput(
            f"the token file {path} is open to other users (permissions "
            f"{stat.S_IMODE(found.st_mode):04o}); make it 0600, or remove it for a new token",
            path=str(path),
        )
    token = text.strip()
    if not TOKEN_CHARS_MIN <= len(token) <= TOKEN_FILE_BYTES_MAX or not token.isascii():
        raise InvalidInput(
            f"the token file {path} has no token: {TOKEN_CHARS_MIN} characters of ASCII or more, "
            "on one line. Remove it for a new one",
            path=str(path),
        )
    return token

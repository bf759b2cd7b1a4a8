"""Which other users can reach a database's files: what is refused at open, what is reported.

New files are created 0600 and new folders 0700 (`files.py`, `durable_files.py`). The mode
of existing ones is their owner's choice: a group may be meant to read them. So that is
reported (`concerns`: a warning in the log at open, in `verify` and in `status`) and never
changed.

Refused is a file that another user has put where SQLite or sessiondb expects its own.
SQLite takes the content of a -wal or -journal beside a database for the database's own,
whoever made it.

Limits: this module learns from stat() alone, because nothing here may open a file of a
live database. It ignores access lists, folders above the database's own, and users who
could become this user.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sessiondb.errors import OpenError

# Suffix -> who keeps that file. The last one has no content: its locks tell who lives.
_BESIDE = {"-wal": "SQLite", "-shm": "SQLite", "-journal": "SQLite", "-alive": "sessiondb"}
_READ = stat.S_IRGRP | stat.S_IROTH
_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ENTER = stat.S_IXGRP | stat.S_IXOTH


def refuse_planted(requested: str, path: str) -> None:
    """Refuse names that another user has put where a database or SQLite's files belong.

    `requested` is the path as the caller gave it, `path` the same with links followed.

    Raises:
        OpenError: the message says which name it is.
    """
    link = _lstat(requested)
    if link is not None and stat.S_ISLNK(link.st_mode) and link.st_uid not in (os.geteuid(), 0):
        raise OpenError(
            f"{requested}: this is a symbolic link that another user (uid {link.st_uid}) has made. "
            f"Name the file itself: {path}"
        )
    database = _lstat(path)
    trusted = {os.geteuid(), 0, *((database.st_uid,) if database is not None else ())}
    for suffix, keeper in _BESIDE.items():
        found = _lstat(path + suffix)
        if found is None:
            continue
        if not stat.S_ISREG(found.st_mode):
            raise OpenError(
                f"{path + suffix}: {keeper} keeps a file of its own under this name, and this is "
                "no file. Find out who made it."
            )
        if found.st_uid not in trusted:
            raise OpenError(
                f"{path + suffix}: this belongs to uid {found.st_uid}, and the database does not; "
                f"{keeper} would take it for its own, with what is in it. Find out who put it "
                "there, and move it away."
            )


def concerns(path: str) -> tuple[str, ...]:
    """Return what lets other users read or change a database, each as a sentence.

    Empty when only its owner can.
    """
    found = []
    folder = Path(path).parent
    around = _lstat(str(folder))
    if around is not None and around.st_mode & _WRITE and not around.st_mode & stat.S_ISVTX:
        found.append(
            f"{folder}: {_who(around.st_mode & _WRITE)} may write to this folder, and so replace "
            "the database. chmod go-w it"
        )
    if around is not None and not around.st_mode & _ENTER and around.st_uid in (os.geteuid(), 0):
        return tuple(found)  # other users cannot reach the files
    for file in (path, *(path + suffix for suffix in _BESIDE)):
        status = _lstat(file)
        if status is None:
            continue
        if status.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
            found.append(
                f"{file}: it belongs to another user (uid {status.st_uid}), who can read and "
                "change it"
            )
        if status.st_mode & (_READ | _WRITE):
            what = "write" if status.st_mode & _WRITE else "read"
            found.append(
                f"{file}: {_who(status.st_mode & (_READ | _WRITE))} may {what} it; chmod 600 it "
                "unless that is meant"
            )
    return tuple(found)


def _who(bits: int) -> str:
    return "everybody" if bits & (stat.S_IROTH | stat.S_IWOTH) else "its group"


def _lstat(path: str) -> os.stat_result | None:
    try:
        return Path(path).lstat()
    except OSError:
        return None

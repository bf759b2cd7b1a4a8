"""Who else can get at the files of a database: what is refused at open, and what is only reported.

New files are made 0600 and new folders 0700 (`files.py`, `folders.py`). What was there before is its owner's business: to
let a group read it can be meant, so that is reported (`concerns`: a warning in the log at open, in `verify` and in
`status`) and never changed. Refused is what nobody means: a file that somebody else has put in SQLite's way. It takes
the content of a -wal or -journal that lies beside a database for the database's own, whoever made it.

Learnt by stat() alone, because nothing here may open a file of a live database. It does not look at access lists, at
folders above the database's own, or at who could become this user.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sessiondb.errors import OpenError

_BESIDE = ("-wal", "-shm", "-journal")
_READ = stat.S_IRGRP | stat.S_IROTH
_WRITE = stat.S_IWGRP | stat.S_IWOTH
_ENTER = stat.S_IXGRP | stat.S_IXOTH


def refuse_planted(args: str, path: str) -> None:
    """Refuse names that another user has put where a database, or a file of SQLite's beside it, is expected.

    `given` is the path as it was asked for, `path` the same with links followed.

    Raises:
        OpenError: says which name it is.
    """
    link = _lstat(args)
    if link is not None and stat.S_ISLNK(link.st_mode) and link.st_uid not in (os.geteuid(), 0):
        raise OpenError(
            f"{args}: this is a symbolic link that another user (uid {link.st_uid}) has made. Name the file itself: {path}"
        )
    database = _lstat(path)
    trusted = {os.geteuid(), 0, *((database.st_uid,) if database is not None else ())}
    for suffix in _BESIDE:
        found = _lstat(path + suffix)
        if found is None:
            continue
        if not stat.S_ISREG(found.st_mode):
            raise OpenError(
                f"{path + suffix}: SQLite keeps a file of its own under this name, and this is no file. Find out who made it."
            )
        if found.st_uid not in trusted:
            raise OpenError(
                f"{path + suffix}: this belongs to uid {found.st_uid}, and the database does not; SQLite would take its content for "
                "the database's. Find out who put it there, and move it away."
            )


def concerns(path: str) -> tuple[str, ...]:
    """Return what lets others read or change a database, each as a sentence; nothing, if it is its owner's alone."""
    found = []
    folder = Path(path).parent
    around = _lstat(str(folder))
    if around is not None and around.st_mode & _WRITE and not around.st_mode & stat.S_ISVTX:
        found.append(
            f"{folder}: {_who(around.st_mode & _WRITE)} may write to this folder, and so replace the database. chmod go-w it"
        )
    if around is not None and not around.st_mode & _ENTER and around.st_uid in (os.geteuid(), 0):
        return tuple(found)  # nobody else gets as far as the files
    for file in (path, *(path + suffix for suffix in _BESIDE)):
        status = _lstat(file)
        if status is None:
            continue
        if status.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
            found.append(
                f"{file}: it belongs to another user (uid {status.st_uid}), who can read and change it"
            )
        if status.st_mode & (_READ | _WRITE):
            what = "write" if status.st_mode & _WRITE else "read"
            found.append(
                f"{file}: {_who(status.st_mode & (_READ | _WRITE))} may {what} it; chmod 600 it unless that is meant"
            )
    return tuple(found)


def _who(bits: int) -> str:
    return "everybody" if bits & (stat.S_IROTH | stat.S_IWOTH) else "its group"


def _lstat(path: str) -> os.stat_result | None:
    try:
        return Path(path).lstat()
    except OSError:
        return None

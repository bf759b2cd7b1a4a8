"""A disk that fails on request: a VFS under SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apsw


class Faults:
    """What the disk does wrong at the moment."""

    def __init__(self) -> None:
        self.sync: type[apsw.Error] | None = None
        self.write: type[apsw.Error] | None = None
        self.read: type[apsw.Error] | None = None
        self.open: type[apsw.Error] | None = None

    def heal(self) -> None:
        self.__init__()  # type: ignore[misc]


class FaultyVFS(apsw.VFS):
    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        super().__init__("faulty", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802  # apsw's name
        if self.faults.open:
            raise self.faults.open("no more files today")
        return FaultyFile(self.faults, name, flags)


class FaultyFile(apsw.VFSFile):
    def __init__(self, faults: Faults, name: Any, flags: list[int]) -> None:
        self.faults = faults
        super().__init__("unix", name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if self.faults.write:
            raise self.faults.write("write")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self.faults.sync:
            raise self.faults.sync("sync")
        super().xSync(flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        if self.faults.read:
            raise self.faults.read("read")
        return super().xRead(amount, offset)


@contextmanager
def faulty_disk() -> Iterator[Faults]:
    """Put a disk under every database that is opened meanwhile. It fails as its Faults say."""
    found = Faults()
    vfs = FaultyVFS(found)
    try:
        yield found
    finally:
        found.heal()
        vfs.unregister()

"""The pages of a damaged file as of its last transaction: contents, pointer map and free list."""

from __future__ import annotations

import os
import struct

from .damaged_wal import Wal
from .file_format import (
    BTREE_PTR,
    DEPTH_MAX,
    FREE_PTR,
    LOCK_BYTE,
    MAGIC,
    ROOT_PTR,
    is_plausible_page,
)


class Pages:
    """The pages of a file. Newer versions in its WAL go before its own.

    `first` is page 1. `seen` marks the pages that a tree or a row's chain leads to.
    """

    def __init__(self, fd: int, size: int, page_size: int, wal: Wal) -> None:
        self.fd, self.page_size, self.wal = fd, page_size, wal
        header = os.pread(fd, 100, 0)
        self.usable = page_size - (header[20] if header[:16] == MAGIC and header[20] <= 32 else 0)
        in_file = size // page_size
        # Whatever the WAL says, no page number is larger than the count of pages in the file and
        # in the WAL.
        most = in_file + wal.frames
        wal.pages = {page: offset for page, offset in wal.pages.items() if page <= most}
        self.count = min(wal.size, most) if wal.size is not None else in_file
        self.first = self.page(1)
        self.seen, self._free = bytearray(self.count + 1), bytearray(self.count + 1)
        self._sound_maps: dict[int, bool] = {}
        self._has_map = self._looks_like_map()
        self._mark_free()

    def page(self, number: int) -> bytes | None:
        """Return a page as of the last transaction.

        Return None if the file is too short, or the disk cannot read it.
        """
        offset = self.wal.pages.get(number)
        fd, offset = (
            (self.fd, (number - 1) * self.page_size) if offset is None else (self.wal.fd, offset)
        )
        assert fd is not None
        try:
            data = os.pread(fd, self.page_size, offset)
        except OSError:
            return None  # a bad sector: this page is lost
        return data if len(data) == self.page_size else None

    def in_range(self, number: int) -> bool:
        return 1 < number <= self.count

    def _looks_like_map(self) -> bool:
        if self.first is not None and self.first[:16] == MAGIC and self.has_sound_header():
            return self.first[52:56] != b"\0\0\0\0"
        page = self.page(2) if self.count >= 2 else None
        if page is None:
            return False
        entries = min(50, self.count - 2, self.usable // 5)
        return entries > 0 and sum(1 <= page[5 * n] <= 5 for n in range(entries)) >= 0.9 * entries

    def has_sound_header(self) -> bool:
        return (
            self.first is not None
            and self.first[:16] == MAGIC
            and self.first[21:24] == b"\x40\x20\x20"
        )

    def _map_page(self, number: int) -> int:
        group = self.usable // 5 + 1
        page = (number - 2) // group * group + 2
        return page + 1 if page == LOCK_BYTE // self.page_size + 1 else page

    def pointer(self, number: int) -> tuple[int, int] | None:
        """Return a page's kind and its parent from the pointer map.

        Return None if there is no map, or if it cannot be read.
        """
        if not self._has_map or number < 3:
            return None
        at = self._map_page(number)
        offset = 5 * (number - at - 1)
        if at == number or not 0 <= offset <= self.usable - 5 or not self._is_sound_map(at):
            return None
        page = self.page(at)
        assert page is not None
        kind, parent = page[offset], struct.unpack(">I", page[offset + 1 : offset + 5])[0]
        return (kind, parent) if 1 <= kind <= 5 else None

    def _is_sound_map(self, at: int) -> bool:
        """Tell whether a page of the map is sound: 90 % of its entries must be possible.

        Each page is checked once.
        """
        if at not in self._sound_maps:
            page, sound = self.page(at) or b"", 0
            entries = min(len(page) // 5, self.usable // 5, max(0, self.count - at))
            for offset in range(0, 5 * entries, 5):
                kind, parent = page[offset], struct.unpack(">I", page[offset + 1 : offset + 5])[0]
                sound += 1 <= kind <= 5 and parent <= self.count
            self._sound_maps[at] = bool(page) and sound >= 0.9 * entries
        return self._sound_maps[at]

    def root_of(self, number: int) -> int | None:
        for _ in range(DEPTH_MAX):
            pointer = self.pointer(number)
            if pointer is None:
                return None
            if pointer[0] == ROOT_PTR:
                return number
            if pointer[0] != BTREE_PTR or not self.in_range(pointer[1]):
                return 1 if pointer == (BTREE_PTR, 1) else None
            number = pointer[1]
        return None

    def _mark_free(self) -> None:
        """Mark the pages that the free list names. Their rows were deleted.

        A page that a tree leads to is read nevertheless.
        """
        first = self.first
        trunk = (
            struct.unpack(">I", first[32:36])[0]
            if first is not None and self.has_sound_header()
            else 0
        )
        for _ in range(self.count):
            if not self.in_range(trunk) or self._free[trunk]:
                return
            page = self.page(trunk)
            self._free[trunk] = 1
            if page is None:
                return
            trunk, leaves = struct.unpack(">2I", page[:8])
            if leaves > self.usable // 4 - 2:
                return
            for leaf in struct.unpack(f">{leaves}I", page[8 : 8 + 4 * leaves]):
                if self.in_range(leaf):
                    self._free[leaf] = 1

    def is_free(self, number: int) -> bool:
        pointer = self.pointer(number)
        return bool(self._free[number]) if pointer is None else pointer[0] == FREE_PTR

    def stray(self, number: int) -> bytes | None:
        """Return a page that no tree leads to, unless it is free or the map's."""
        if (
            self.seen[number]
            or self.is_free(number)
            or (self._has_map and number >= 2 and self._map_page(number) == number)
        ):
            return None
        return self.page(number)


def page_size_of(fd: int, size: int, notes: list[str]) -> int:
    """Return the page size in bytes from the header. Without a header, guess it and add a note."""
    header = os.pread(fd, 100, 0)
    if header[:16] == MAGIC and len(header) >= 18:
        [claim] = struct.unpack(">H", header[16:18])
        claim = 65536 if claim == 1 else claim
        if claim >= 512 and claim & (claim - 1) == 0:
            return int(claim)
    best = _guess_page_size(fd, size)
    notes.append(f"the file's header is destroyed. Its pages seem to have {best} bytes")
    return best


def _guess_page_size(fd: int, file_bytes: int) -> int:
    """Return the size at which most of a sample look like pages. sessiondb's own wins a draw."""
    best, best_score = 4096, -1.0
    for size in (4096, 1024, 2048, 8192, 16384, 32768, 65536, 512):
        pages = max(0, file_bytes // size - 1)
        sample = range(1, pages + 1, max(1, pages // 256))
        looks = sum(is_plausible_page(os.pread(fd, size, number * size), size) for number in sample)
        score = looks / len(sample) if len(sample) else 0.0
        if score > best_score + 0.2:
            best, best_score = size, score
    return best

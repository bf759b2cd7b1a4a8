"""The WAL beside a damaged database: which of its frames count, and where the newest version of each page is."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from typing import Literal


@dataclass(slots=True)
class Wal:
    """Which pages the WAL has newer versions of, and where."""

    fd: int | None = None
    state: Literal["none", "empty", "whole", "torn", "unusable", "foreign", "ignored"] = "none"
    frames: int = 0
    pages: dict[int, int] = field(default_factory=dict)
    size: int | None = None
    """Pages of the database after the last transaction in it."""
    loose: list[int] = field(default_factory=list)
    """Offsets of pages behind the damage."""


_M32 = 0xFFFFFFFF


def _checksum(order: str, data: bytes, seed: tuple[int, int]) -> tuple[int, int]:
    """The WAL's checksum: two sums that each feed the other."""
    a, b = seed
    numbers = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        a = (a + first + b) & _M32
        b = (b + second + a) & _M32
    return a, b


def read_wal(path: str, page_size: int) -> Wal:
    """Index the WAL: the newest version of each page that a whole transaction wrote, up to the first damage.

    SQLite's rule, with one difference: a damaged header does not void the frames, whose checksums are chained to
    each other and whose salts agree.
    """
    try:
        fd = os.open(path + "-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return Wal()
    except OSError:
        return Wal(state="unusable")
    wal = Wal(fd=fd)
    size = os.fstat(fd).st_size
    if not stat.S_ISREG(os.fstat(fd).st_mode) or size < 32 + 24 + page_size:
        wal.state = (
            "unusable"
            if not stat.S_ISREG(os.fstat(fd).st_mode)
            else "torn"
            if size > 32
            else "empty"
        )
        return wal
    _read_frames(wal, size, page_size)
    return wal


def _bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def _read_frames(wal: Wal, size: int, page_size: int) -> None:
    assert wal.fd is not None
    header = os.pread(wal.fd, 32, 0)
    order = ">" if header[:4] == b"\x37\x7f\x06\x83" else "<"
    seed = _checksum(order, header[:24], (0, 0))
    sound = header[:3] == b"\x37\x7f\x06" and struct.unpack(">2I", header[24:]) == seed
    sound = sound and struct.unpack(">I", header[8:12]) == (page_size,)
    salts = header[16:24] if sound else os.pread(wal.fd, 8, 32 + 8)
    pending: dict[int, int] = {}
    broken = ended = False
    step = 24 + page_size
    for number, offset in enumerate(range(32, size - step + 1, step)):
        frame = os.pread(wal.fd, step if not ended else 24, offset)
        if frame[8:16] != salts and _bits_apart(frame[8:16], salts) > 3:
            ended = True  # left from an earlier round; the newer ones end here, unless this is damage and more of them follow
            continue
        if ended or len(frame) < step:
            ended, broken = False, True
            wal.loose.append(offset + 24)
            continue
        stored = struct.unpack(">2I", frame[16:24])
        page, commit = struct.unpack(">2I", frame[:8])
        intact = stored == _checksum(order, frame[:8] + frame[24:], seed) or (
            number == 0 and not sound
        )
        seed = stored
        if broken or not intact or not 0 < page <= _M32:
            broken = True
            wal.loose.append(offset + 24)
            continue
        wal.frames += 1
        pending[page] = offset + 24
        if commit:
            wal.pages |= pending
            wal.size = commit
            pending = {}
    wal.loose = [*pending.values(), *wal.loose] if broken else wal.loose
    wal.state = "torn" if broken or not sound else "whole" if wal.pages else "empty"

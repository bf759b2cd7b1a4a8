"""The WAL beside a damaged database: which frames count, and the newest version of each page."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from typing import Literal


@dataclass(slots=True)
class Wal:
    """The pages that a WAL has newer versions of, and their offsets in its file."""

    fd: int | None = None
    state: Literal["none", "empty", "whole", "torn", "unusable", "foreign", "ignored"] = "none"
    frames: int = 0
    pages: dict[int, int] = field(default_factory=dict)
    size: int | None = None
    """Pages of the database after the last whole transaction."""
    loose: list[int] = field(default_factory=list)
    """Offsets of pages behind the damage. They may never have been part of the database."""


_M32 = 0xFFFFFFFF


def checksum(order: str, data: bytes, seed: tuple[int, int]) -> tuple[int, int]:
    """Return the WAL's checksum: two sums that each feed the other."""
    a, b = seed
    numbers = struct.unpack(f"{order}{len(data) // 4}I", data)
    for first, second in zip(numbers[::2], numbers[1::2], strict=True):
        a = (a + first + b) & _M32
        b = (b + second + a) & _M32
    return a, b


def read_wal(path: str, page_size: int) -> Wal:
    """Index the newest version of each page that a whole transaction wrote, up to the first damage.

    This is SQLite's rule with one difference. A damaged header does not void the frames,
    because their checksums are chained to each other and their salts agree.
    """
    try:
        fd = os.open(path + "-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return Wal()
    except OSError:
        return Wal(state="unusable")
    wal = Wal(fd=fd)
    size = os.fstat(fd).st_size
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        wal.state = "unusable"
        return wal
    if size < 32 + 24 + page_size:
        wal.state = "torn" if size > 32 else "empty"
        return wal
    _read_frames(wal, size, page_size)
    return wal


def _bits_apart(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_count()


def _read_frames(wal: Wal, size: int, page_size: int) -> None:
    assert wal.fd is not None
    header = os.pread(wal.fd, 32, 0)
    order = ">" if header[:4] == b"\x37\x7f\x06\x83" else "<"
    seed = checksum(order, header[:24], (0, 0))
    sound = header[:3] == b"\x37\x7f\x06" and struct.unpack(">2I", header[24:]) == seed
    sound = sound and struct.unpack(">I", header[8:12]) == (page_size,)
    salts = header[16:24] if sound else os.pread(wal.fd, 8, 32 + 8)
    pending: dict[int, int] = {}
    broken = ended = False
    step = 24 + page_size
    for number, offset in enumerate(range(32, size - step + 1, step)):
        frame = os.pread(wal.fd, step if not ended else 24, offset)
        if frame[8:16] != salts and _bits_apart(frame[8:16], salts) > 3:
            # A frame from before the last reset: the newer ones end here. If more of them
            # follow, then this frame is damage.
            ended = True
            continue
        if ended or len(frame) < step:
            ended, broken = False, True
            wal.loose.append(offset + 24)
            continue
        stored = struct.unpack(">2I", frame[16:24])
        page, commit = struct.unpack(">2I", frame[:8])
        intact = stored == checksum(order, frame[:8] + frame[24:], seed) or (
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

"""Every Python process of a soak imports this at its start, and has the soak's wall clock.

`SOAK_CLOCK` names a file of eight bytes: by how many seconds the clock differs from the
machine's. So a step of the clock is one for all processes at once, as on a machine.
"""

from __future__ import annotations

import mmap
import os
import struct
import time


def follow(path: str) -> None:
    """Make the wall clocks those of the soak. The library reads them by number, the coarse too."""
    with open(path, "rb") as file:  # noqa: PTH123  # pathlib would be imported by every process
        offset = mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)
    real, real_ns, read = time.time, time.time_ns, struct.Struct("<d").unpack_from
    real_clock_ns = time.clock_gettime_ns
    time.time = lambda: real() + read(offset)[0]
    time.time_ns = lambda: real_ns() + round(read(offset)[0] * 1e9)
    time.clock_gettime_ns = lambda number: (
        real_clock_ns(number)
        + (0 if number == time.CLOCK_MONOTONIC else round(read(offset)[0] * 1e9))
    )


if "SOAK_CLOCK" in os.environ:
    follow(os.environ["SOAK_CLOCK"])

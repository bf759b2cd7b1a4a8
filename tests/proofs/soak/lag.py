"""Measure how late an event loop is.

It is measured in each gateway, and in a process that does nothing else.

    python -m tests.proofs.soak.lag

However busy the machine is, that makes the idle process late as well, and the bound of
the gateways goes by it.
"""

from __future__ import annotations

import json
import os
import time

import anyio

LAG_STEP_S = 0.01
PULSE_S = 0.5


async def measure(lags_us: list[int]) -> None:
    """Note, again and again, by how much a short sleep was too long."""
    while True:
        began = time.perf_counter()
        await anyio.sleep(LAG_STEP_S)
        lags_us.append(round((time.perf_counter() - began - LAG_STEP_S) * 1e6))


async def idle() -> None:
    """Measure, and tell from time to time. Until nobody listens any more."""
    lags_us: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(measure, lags_us)
        while True:
            await anyio.sleep(PULSE_S)
            os.write(1, (json.dumps(lags_us) + "\n").encode())
            lags_us.clear()


if __name__ == "__main__":
    anyio.run(idle)

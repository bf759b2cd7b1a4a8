"""Run the steps of a walk in short snapshots, several of them in one.

A read of its own costs a step its way to a reader thread and back, looks at the names of the
files, and a transaction: more than most steps of a small session. So steps share a snapshot until
it is `SHARED_S` old. Then it ends, and the next step begins another one. A snapshot thus lasts no
longer than that and one step, as before. Nothing is held between two snapshots.

Steps that share a snapshot see one state of the database. The rules of a walk allow a change
between any two steps, and need none.
"""

from __future__ import annotations

from typing import Final

from sessiondb.backend import Backend, ReadTx
from sessiondb.clock import monotonic
from sessiondb.errors import OpenError, StoreBusy, StoreClosed
from sessiondb.waiter import sleep

from .verify_steps import Step, Steps

SHARED_S: Final = 0.005
"""No step begins in a snapshot that is older. With 0, each has a snapshot of its own."""

# How long a walk waits for a place in the readers' queue, all in all.
BUSY_WAIT_S_MAX: Final = 30.0


class Reads:
    """The reads of one walk. Waits while the readers are busy: for a limited time in all."""

    def __init__(self, backend: Backend, steps: Steps) -> None:
        self._backend = backend
        self._steps = steps
        self._step: Step | None = None
        """The step that is due. None: the walk has ended, or has not begun."""
        self._patience_s = BUSY_WAIT_S_MAX

    async def run(self) -> None:
        """Run the walk to its end. What ends a step is thrown into the walk.

        Raises:
            StoreClosed: the database was closed meanwhile.
            OpenError: a newer release has migrated it meanwhile.
        """
        self._go_on(None)
        while self._step is not None:
            try:
                await self._read()
            except (StoreClosed, OpenError):
                raise  # nothing can be read any more
            except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
                self._go_on(error)  # the walk knows which part it was reading

    def _go_on(self, failure: Exception | None) -> None:
        """Ask the walk for its next step, or tell it what ended the last one."""
        try:
            self._step = next(self._steps) if failure is None else self._steps.throw(failure)
        except StopIteration:
            self._step = None

    async def _read(self) -> None:
        while True:
            try:
                # A step reads before it changes anything of its own, so it may be repeated.
                return await self._backend.read(self._share, op="verify")
            except StoreBusy as busy:
                pause_s = busy.retry_after_ms / 1000
                if self._patience_s < pause_s:
                    raise
                self._patience_s -= pause_s
                await sleep(pause_s)

    def _share(self, tx: ReadTx) -> None:
        """Run steps in one snapshot: the one that is due, and others while it is young."""
        until = monotonic() + SHARED_S
        while self._step is not None:
            self._step(tx)
            self._go_on(None)
            if monotonic() >= until:
                return

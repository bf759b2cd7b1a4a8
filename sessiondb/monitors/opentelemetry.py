"""Figures for OpenTelemetry: `sessiondb[opentelemetry]`.

    from opentelemetry import metrics
    from sessiondb.monitors.opentelemetry import observe

    observe(metrics.get_meter("my-gateway"), db.metrics)   # `db` of sessiondb.sync

The application chooses the SDK and its exporter. This module needs the API only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from sessiondb.clock import monotonic

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

    from sessiondb.maintenance.metrics import Metric

PREFIX: Final = "sessiondb."
FRESH_S: Final = 0.5
"""One collection asks for each figure by itself. All of them are of one reading."""


def observe(meter: Meter, read: Callable[[], Sequence[Metric]]) -> None:
    """Make an instrument of the meter for every figure that `read` returns.

    `read` is called when the meter is collected, from a thread of the SDK: pass `db.metrics` of
    an open `sessiondb.sync` database. It is called once now, to know which figures there are.
    """
    reading = _Reading(read)
    for metric in reading.now().values():
        make = (
            meter.create_observable_counter
            if metric.kind == "counter"
            else meter.create_observable_gauge
        )
        make(PREFIX + metric.name, [reading.callback(metric.name)], description=metric.help)


class _Reading:
    """The figures of a moment, shared by the callbacks of one collection."""

    def __init__(self, read: Callable[[], Sequence[Metric]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._found: dict[str, Metric] = {}
        self._at: float | None = None

    def now(self) -> dict[str, Metric]:
        """Return the figures by name, read again if they are not fresh."""
        # Critical section "reading". Lock: _lock. Invariant: one thread reads at a time, and
        # the others get what it has read.
        with self._lock:
            if self._at is None or monotonic() - self._at > FRESH_S:
                self._found = {metric.name: metric for metric in self._read()}
                self._at = monotonic()
            return self._found

    def callback(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Return what OpenTelemetry calls for the values of a figure."""
        from opentelemetry.metrics import Observation

        def values(_options: CallbackOptions) -> Iterable[Observation]:
            metric = self.now().get(name)
            if metric is None:
                return []
            return [
                Observation(value, dict(zip(metric.labels, labels, strict=True)))
                for labels, value in metric.samples
            ]

        return values

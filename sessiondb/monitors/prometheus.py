"""Figures for Prometheus: `sessiondb[prometheus]`.

A gateway serves them from its own process, with the figures of its writer:

    from prometheus_client import REGISTRY, start_http_server
    from sessiondb.monitors.prometheus import DatabaseCollector

    REGISTRY.register(DatabaseCollector(db.metrics))   # `db` of sessiondb.sync
    start_http_server(9100)

Behind an event loop, `text(await db.metrics())` is the answer of a route `/metrics`. Beside a
gateway, `sessiondb metrics DB` prints the same text once, for the textfile collector of
node_exporter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sessiondb.errors import InvalidInput

if TYPE_CHECKING:
    from prometheus_client import Metric as PrometheusMetric

    from sessiondb.maintenance.metrics import Metric

PREFIX: Final = "sessiondb_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class DatabaseCollector:
    """A collector for a registry of prometheus_client. It reads when it is scraped.

    `read` returns the figures: `db.metrics` of an open `sessiondb.sync` database. Register one
    for each database in a registry of its own: two have the same names.
    """

    def __init__(self, read: Callable[[], Sequence[Metric]]) -> None:
        _library()
        self._read = read

    def describe(self) -> Iterable[PrometheusMetric]:
        """Return nothing: a registration reads no database."""
        return ()

    def collect(self) -> Iterator[PrometheusMetric]:
        """Read the figures, and yield them as prometheus_client has them."""
        yield from _families(self._read())


def text(metrics: Sequence[Metric]) -> str:
    """Return figures as the text that Prometheus scrapes (`CONTENT_TYPE`).

    Raises:
        InvalidInput: prometheus_client is not installed.
    """
    library = _library()
    registry = library.CollectorRegistry(auto_describe=False)
    registry.register(DatabaseCollector(lambda: metrics))
    written: bytes = library.generate_latest(registry)
    return written.decode()


def _families(metrics: Sequence[Metric]) -> Iterator[PrometheusMetric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for metric in metrics:
        kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = kind(PREFIX + metric.name, metric.help, labels=metric.labels)
        for labels, value in metric.samples:
            family.add_metric(labels, value)
        yield family


def _library() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise InvalidInput(
            "figures for Prometheus are written by prometheus_client, which is not installed. "
            "Install the extra: pip install 'sessiondb[prometheus]'"
        ) from error
    return prometheus_client

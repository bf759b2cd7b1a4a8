"""The command `metrics`: figures for a monitor, once."""

from __future__ import annotations

from dataclasses import replace

import click

from sessiondb.maintenance.metrics import Metric
from sessiondb.monitors import prometheus

from .program import command, database_argument, debug_option, json_option, look_into
from .terminal import escape, print_json_array, to_json


@command(
    examples=("sessiondb metrics gateway.db", "sessiondb metrics gateway.db --json"),
)
@database_argument
@json_option("Print a JSON array of figures. It needs no library of Prometheus.")
@debug_option
def metrics(db: str, as_json: bool) -> None:
    """Print the figures of a database for Prometheus.

    It is the text that Prometheus scrapes, for the textfile collector of node_exporter. The
    gateway is not disturbed. Its writer's own figures come from its own process only.
    """
    with look_into(db) as opened:
        found = [_printable(metric) for metric in opened.metrics()]
    if as_json:
        print_json_array(to_json(metric) for metric in found)
    else:
        click.echo(prometheus.text(found), nl=False)


def _printable(metric: Metric) -> Metric:
    """Return a figure whose labels drive no terminal: the name of a lane may be any text."""
    samples = tuple((tuple(map(escape, labels)), value) for labels, value in metric.samples)
    return replace(metric, samples=samples)

"""The command `metrics`: figures for a monitor, once."""

from __future__ import annotations

from dataclasses import replace

import click

from sessiondb.maintenance.metrics import Metric, of_parts
from sessiondb.monitors import prometheus

from .disk import READ_S, parts_of
from .program import command, database_argument, debug_option, json_option, look_into
from .terminal import escape, print_json_array, to_json


@command(
    examples=(
        "sessiondb metrics gateway.db",
        "sessiondb metrics gateway.db --json",
        "sessiondb metrics gateway.db --disk --json",
    ),
)
@database_argument
@click.option(
    "--disk",
    "with_disk",
    is_flag=True,
    help="Add what takes the space, by part. It reads most of the file: once an hour is enough.",
)
@json_option("Print a JSON array of figures. It needs no library of Prometheus.")
@debug_option
def metrics(db: str, with_disk: bool, as_json: bool) -> None:
    """Print the figures of a database for Prometheus.

    It is the text that Prometheus scrapes, for the textfile collector of node_exporter. The
    gateway is not disturbed. Its writer's own figures come from its own process only.
    """
    with look_into(db, read_s=READ_S if with_disk else None) as opened:
        figures = opened.metrics()
        if with_disk:
            figures += (of_parts(parts_of(opened, db)),)
    found = [_printable(metric) for metric in figures]
    if as_json:
        print_json_array(to_json(metric) for metric in found)
    else:
        click.echo(prometheus.text(found), nl=False)


def _printable(metric: Metric) -> Metric:
    """Return a figure whose labels drive no terminal: the name of a lane may be any text."""
    samples = tuple((tuple(map(escape, labels)), value) for labels, value in metric.samples)
    return replace(metric, samples=samples)

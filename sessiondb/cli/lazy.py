"""A group of commands that imports a command's module when the command is used.

`sessiondb --help` and a mistyped command import no command at all, so they answer without
loading the library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import NamedTuple

import click


class LazyCommand(NamedTuple):
    """Where a command is, and its line in the list of commands."""

    module: str
    function: str
    short_help: str


class LazyCommands(Mapping[str, click.Command]):
    """The commands by name. Looking one up imports its module. Nothing is ever added."""

    def __init__(self, table: Mapping[str, LazyCommand]) -> None:
        self.table = table

    def __getitem__(self, name: str) -> click.Command:
        place = self.table[name]
        command: click.Command = getattr(import_module(place.module), place.function)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


class LazyGroup(click.Group):
    """A group whose help lists the commands of a table."""

    def offer(self, table: Mapping[str, LazyCommand]) -> None:
        """Offer the commands of a table, and no others."""
        self._table = table
        self.commands = LazyCommands(table)  # type: ignore[assignment]  # click adds none

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them, as click itself would."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, self._table[name].short_help) for name in sorted(self._table)]
            )

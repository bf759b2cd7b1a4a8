"""A group of commands that imports a command's module when the command is used.

`sessiondb --help` and a mistyped command import no command at all, so they answer without
loading the library. The help lists the commands by task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import NamedTuple

import click


class LazyCommand(NamedTuple):
    """Where a command is, and its line in the list of commands."""

    module: str
    """Its name in this package."""
    short_help: str
    function: str | None = None
    """Not None: the function's name, because a keyword cannot name one."""


class LazyCommands(Mapping[str, click.Command]):
    """The commands by name. Looking one up imports its module. Nothing is ever added."""

    def __init__(self, table: Mapping[str, LazyCommand]) -> None:
        self.table = table

    def __getitem__(self, name: str) -> click.Command:
        place = self.table[name]
        module = import_module(f".{place.module}", __package__)
        command: click.Command = getattr(module, place.function or name)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(self.table)

    def __len__(self) -> int:
        return len(self.table)


class LazyGroup(click.Group):
    """A group whose help lists the commands of a table, by task."""

    def offer(self, tasks: Mapping[str, Mapping[str, LazyCommand]]) -> None:
        """Offer the commands of some tasks, and no others."""
        self._tasks = tasks
        table = {name: place for offered in tasks.values() for name, place in offered.items()}
        self.commands = LazyCommands(table)  # type: ignore[assignment]  # click adds none

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands of each task without importing them, in the table's order."""
        width = max(len(name) for offered in self._tasks.values() for name in offered)
        for task, offered in self._tasks.items():
            with formatter.section(task):
                formatter.write_dl(
                    [(name.ljust(width), place.short_help) for name, place in offered.items()]
                )

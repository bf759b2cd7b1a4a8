"""The command line as Markdown, made from click's own help, as `--help` shows it."""

from __future__ import annotations

import inspect
import re

import click

from sessiondb.cli import program
from sessiondb.cli.program import EPILOG, Command

_COMMON = (r"--debug", r"--help", r"--json.*Print (JSON|a JSON array)\.$")
"""Options that every command has, as patterns of name and meaning. The page describes them once."""


def reference(names: list[str]) -> str:
    """Return the sections of some commands, in the order given.

    Raises:
        KeyError: there is no such command.
    """
    return "\n\n".join(_section(name, program.commands[name]) for name in names)


def exit_codes() -> str:
    """Return the table of exit codes, from the last paragraph of `sessiondb --help`."""
    found = re.findall(r"^ +(\d+)  (.+)$", EPILOG, re.MULTILINE)
    return "\n".join(
        [
            "| code | meaning |",
            "|---:|---|",
            *(f"| {code} | {meaning} |" for code, meaning in found),
        ]
    )


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"sessiondb {name}")
    usage = " ".join([f"sessiondb {name}", *command.collect_usage_pieces(context)])
    parts = [
        f"### {name}",
        f"```text\n{usage}\n```",
        *_paragraphs(command.help or ""),
        *_examples(command),
    ]
    rows = [
        row
        for param in command.params
        if isinstance(param, click.Option) and (row := _option(param, context))
    ]
    if rows:
        parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _paragraphs(text: str) -> list[str]:
    """Return a help text's paragraphs."""
    return [_marked_up(paragraph) for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text))]


def _examples(command: click.Command) -> list[str]:
    """Return the block of a command's examples."""
    assert isinstance(command, Command)
    lines = "\n".join(f"$ {example}" for example in command.examples)
    return [f"```console\n{lines}\n```"]


def _option(param: click.Option, context: click.Context) -> str | None:
    """Return an option's row. None for an option that every command has."""
    record = param.get_help_record(context)
    if record is None or any(re.search(pattern, " ".join(record)) for pattern in _COMMON):
        return None
    names, meaning = record
    return f"| `{names}` | {_marked_up(meaning)} |"


def _marked_up(text: str) -> str:
    """Return help as Markdown: options in code, and no character of a range taken for markup."""
    text = " ".join(text.split()).replace("<", "&lt;").replace("[", r"\[").replace("|", r"\|")
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]+)", r"`\1`", text)

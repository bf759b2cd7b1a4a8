"""The command `mcp`: an agent searches and reads a database, over the Model Context Protocol.

The program that runs the agent starts this command, and speaks with it over its standard input
and output. The tools are in `mcp_tools.py`, which alone imports the protocol's library.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import click

from sessiondb import database
from sessiondb.errors import InvalidInput
from sessiondb.process import COMMAND_LINE

from .program import command, database_argument, debug_option, refuse
from .terminal import escape
from .transfer import print_wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.mcpserver import MCPServer


@command(
    short_help="Let an agent search and read, over MCP.",
    examples=("sessiondb mcp gateway.db --tools",),
)
@database_argument
@click.option("--tools", is_flag=True, help="Print what an agent can do, and end.")
@debug_option
def mcp(db: str, tools: bool) -> None:
    """Let an agent search and read a database, over the Model Context Protocol.

    An agent's program starts this command, and speaks over its standard input and output. It can
    search, list sessions and read them, and change nothing. The gateway is not disturbed. It needs
    the extra `mcp`.
    """
    make = _server_maker()
    if not tools and is_for_a_person():
        refuse("mcp is for programs, which start it. --tools prints what an agent can do.")
    anyio.run(partial(_print_tools if tools else _serve, db, make))


def is_for_a_person() -> bool:
    """Return whether a person has started this, who would type messages of the protocol."""
    return sys.stdin.isatty()


def _server_maker() -> Callable[[database.SessionDB, str], MCPServer]:
    try:
        from .mcp_tools import server
    except ImportError as error:
        raise InvalidInput(
            "mcp speaks the protocol with the library `mcp`, which is not installed. "
            "Install the extra: pip install 'sessiondb[mcp]'"
        ) from error
    return server


async def _serve(db: str, make: Callable[[database.SessionDB, str], MCPServer]) -> None:
    """Answer until standard input ends."""
    async with database.open(db, readonly=True, program=COMMAND_LINE) as opened:
        await make(opened, Path(db).name).run_stdio_async()


async def _print_tools(db: str, make: Callable[[database.SessionDB, str], MCPServer]) -> None:
    async with database.open(db, readonly=True, program=COMMAND_LINE) as opened:
        for tool in await make(opened, Path(db).name).list_tools():
            first = (tool.description or "").partition("\n")[0]
            taken = ", ".join(tool.input_schema.get("properties", {}))
            print_wrapped(f"{tool.name}({taken}): {escape(first)}")

"""The command `serve`: the public API over HTTP, for programs in other languages.

`sessiondb/server` is imported when it runs, because it needs the extra `server`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

import click

from sessiondb.errors import InvalidInput

from .program import command, database_argument, debug_option, json_option, refuse
from .terminal import print_json, print_line


@command(
    short_help="Serve a database to programs in other languages.",
    examples=("sessiondb serve gateway.db --openapi",),
)
@database_argument
@click.option(
    "--socket",
    metavar="PATH",
    help="Listen on this unix socket. By default DB-serve/http.sock beside the database.",
)
@click.option(
    "--tcp",
    type=click.IntRange(0, 65_535),
    metavar="PORT",
    help="Listen on this port of 127.0.0.1 instead, or also with --socket. Needs --token-file.",
)
@click.option(
    "--token-file",
    metavar="PATH",
    help="The token of TCP clients. The file is made, with a random one, if there is none.",
)
@click.option("--openapi", is_flag=True, help="Print the OpenAPI document, and end.")
@json_option("Print the addresses as JSON.")
@debug_option
def serve(
    db: str,
    socket: str | None,
    tcp: int | None,
    token_file: str | None,
    openapi: bool,
    as_json: bool,
) -> None:
    """Serve a database to programs in other languages.

    HTTP and JSON, on a unix socket that only its owner reaches. The folder of the socket has
    permissions 0700, and is made if there is none. Ctrl-C and SIGTERM stop the server in good
    order. It needs the extra `server`.
    """
    if (tcp is None) != (token_file is None):
        refuse("--tcp and --token-file go together: TCP has no permissions of files.")
    try:
        from sessiondb.server import listening, running
        from sessiondb.server.openapi import document
        from sessiondb.server.routes import TABLE
    except ImportError as error:
        raise InvalidInput(
            f"serve needs a library that is not installed ({error.name}). Install the extra: "
            "pip install 'sessiondb[server]'"
        ) from error
    if openapi:
        print_json(document(TABLE))
        return
    path = Path(socket) if socket is not None else None
    if path is None and tcp is None:
        path = listening.default_socket(db)
    where = running.Where(path, tcp, Path(token_file) if token_file is not None else None)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)

    def announce(addresses: list[str]) -> None:
        if as_json:
            click.echo(json.dumps({"db": db, "addresses": addresses}))
        else:
            print_line(f"serving {db} on {', '.join(addresses)}; Ctrl-C stops it")
        sys.stdout.flush()

    asyncio.run(running.serve(db, where, announce=announce))

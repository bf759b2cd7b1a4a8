"""The process of a server: it opens the database, listens, and ends in good order.

SIGTERM and Ctrl-C stop it: it accepts no connection any more, requests that wait return, streams
end, what is being written is answered, and the database is closed. What clients have claimed
stays theirs: their leases are rows, and the next server knows them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import uvicorn

from sessiondb import database
from sessiondb.database import SessionDB
from sessiondb.errors import SessionDBError
from sessiondb.waiter import sleep

from .application import Application
from .listening import LOOPBACK, UnixListener, read_token, tcp_listener
from .protocol import bounded, cut_off_slow_clients
from .routes import TABLE
from .state import KEEP_ALIVE_S, Bounds, State

logger = logging.getLogger("sessiondb")

RELEASE_EVERY_S: Final = 5.0
DRAIN_S: Final = 30
"""Answers that are being sent when the server stops have so long."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where a server is to listen."""

    socket: Path | None
    tcp: int | None = None
    token_file: Path | None = None


class Server(uvicorn.Server):
    """uvicorn, without its signal handlers: they would end the process with the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `_stop_on_signals`."""
        yield


async def serve(
    db_path: str,
    where: Where,
    *,
    create: bool = True,
    bounds: Bounds | None = None,
    announce: Callable[[list[str]], None],
) -> None:
    """Serve a database until a signal stops it. `announce` is told the addresses.

    Raises:
        InvalidInput: it cannot listen there.
        OpenError, StoreBusy, StoreFailed, StoreFull, StoreDamaged: as of `sessiondb.open`.
    """
    state = State(bounds or Bounds())
    with _listeners(where, state) as (listeners, addresses):
        async with database.open(db_path, create=create, program="serve") as db:
            server = Server(
                uvicorn.Config(
                    Application(db, state, TABLE),
                    http=bounded(state.bounds),
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    proxy_headers=False,
                    timeout_keep_alive=KEEP_ALIVE_S,
                    timeout_graceful_shutdown=DRAIN_S,
                )
            )
            with _stop_on_signals(server, state, db):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cut_off_slow_clients, server.server_state.connections)
                    tasks.start_soon(_release_and_resume, db)
                    announce(addresses)
                    await server.serve(sockets=listeners)
                    tasks.cancel_scope.cancel()


async def _release_and_resume(db: SessionDB) -> None:
    """Release what silent workers held, and let the plan resume it, until it is cancelled.

    By their leases alone. `recover` would also take what the clients of a server hold that has
    been replaced, and they still work on it.
    """
    while True:
        try:
            await db.release_expired()
            await db.resume()
        except SessionDBError as error:
            logger.warning("serve: what silent workers hold is not released yet: %s", error)
        await sleep(RELEASE_EVERY_S)


@contextmanager
def _listeners(where: Where, state: State) -> Iterator[tuple[list[socket.socket], list[str]]]:
    """Listen. Nothing is left of it at the end."""
    with contextlib.ExitStack() as stack:
        listeners: list[socket.socket] = []
        addresses: list[str] = []
        if where.tcp is not None and where.token_file is not None:
            state.token = read_token(where.token_file)
            listener = stack.enter_context(tcp_listener(where.tcp))
            listeners.append(listener)
            addresses.append(f"http://{LOOPBACK}:{listener.getsockname()[1]}")
        if where.socket is not None:
            unix = UnixListener(where.socket)
            stack.callback(unix.close)
            listeners.append(stack.enter_context(unix.socket.dup()))
            addresses.append(f"unix:{os.fspath(where.socket)}")
        yield listeners, addresses


@contextmanager
def _stop_on_signals(server: Server, state: State, db: SessionDB) -> Iterator[None]:
    def stop() -> None:
        state.stop(db)
        server.should_exit = True

    loop = asyncio.get_running_loop()
    numbers: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)

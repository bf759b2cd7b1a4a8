"""One connection: how large and how slow what comes through it may be.

uvicorn's protocol reads HTTP. This one adds what it leaves to a proxy: a bound on the number of
connections, on the bytes and the time of a request's head, and on the time that a client may
read nothing of its answer. A client that is past a bound is cut off. It holds nothing else.
"""

from __future__ import annotations

import socket
from typing import Any, Final

import anyio
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sessiondb.clock import monotonic
from sessiondb.waiter import sleep

from .application import LOCAL
from .state import Bounds

_EVERY_S: Final = 0.5
_FULL: Final = (
    b'{"type":"ServerBusy","message":"the server has as many connections as it takes; '
    b'close some, or connect again later","retry_after_ms":1000,"outcome":"not_executed",'
    b'"data":{}}'
)
_LONG_HEAD: Final = (
    b'{"type":"HeadTooLarge","message":"the request\'s head is too large; send less in its path '
    b'and headers","retry_after_ms":null,"outcome":"not_executed","data":{}}'
)


class BoundedProtocol(HttpToolsProtocol):
    """A connection with bounds. A subclass of it for each server has them (`bounded`)."""

    bounds: Bounds = Bounds()

    def __init__(self, *args: Any, **extra: Any) -> None:
        super().__init__(*args, **extra)
        self._head_since: float | None = None
        self._head_bytes = 0
        self._stalled_since: float | None = None
        self._is_local = False

    def connection_made(self, transport: Any) -> None:
        """Begin, or refuse a connection too many."""
        super().connection_made(transport)
        listener = transport.get_extra_info("socket")
        self._is_local = listener is not None and listener.family == socket.AF_UNIX
        self._head_since = monotonic()
        if len(self.connections) > self.bounds.connections:
            self._refuse(b"503 Service Unavailable", _FULL, b"retry-after: 1\r\n")

    def data_received(self, data: bytes) -> None:
        """Read. A head that has more bytes than it may is refused before it is complete."""
        if self.transport.is_closing():
            return
        if self._head_since is None and not self._is_in_body():
            self._head_since, self._head_bytes = monotonic(), 0
        super().data_received(data)
        if self._head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.head_bytes and not self.transport.is_closing():
                self._refuse(b"431 Request Header Fields Too Large", _LONG_HEAD)

    def _is_in_body(self) -> bool:
        cycle = getattr(self, "cycle", None)  # None before the first request
        return cycle is not None and cycle.more_body

    def on_message_begin(self) -> None:
        """Note where the request came from, which decides whether it needs the token."""
        super().on_message_begin()
        self.scope[LOCAL] = self._is_local  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        """Note that the head is complete."""
        self._head_since, self._head_bytes = None, 0
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Note since when the client reads nothing."""
        self._stalled_since = monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that it reads again."""
        self._stalled_since = None
        super().resume_writing()

    def is_overdue(self, now: float) -> bool:
        """Tell whether the client is past a bound of time."""
        head, stalled = self._head_since, self._stalled_since
        return (head is not None and now - head > self.bounds.head_s) or (
            stalled is not None and now - stalled > self.bounds.stalled_s
        )

    def cut_off(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def _refuse(self, status: bytes, told: bytes, headers: bytes = b"") -> None:
        self.transport.write(
            b"HTTP/1.1 "
            + status
            + b"\r\ncontent-type: application/json\r\ncontent-length: "
            + str(len(told)).encode()
            + b"\r\n"
            + headers
            + b"connection: close\r\n\r\n"
            + told
        )
        self.transport.close()


def bounded(bounds: Bounds) -> type[BoundedProtocol]:
    """Return the protocol of a server with these bounds."""
    return type("Protocol", (BoundedProtocol,), {"bounds": bounds})


async def cut_off_slow_clients(connections: set[Any]) -> None:
    """End connections that are past a bound of time, until it is cancelled."""
    with anyio.CancelScope():
        while True:
            await sleep(_EVERY_S)
            now = monotonic()
            for each in list(connections):
                if isinstance(each, BoundedProtocol) and each.is_overdue(now):
                    each.cut_off()

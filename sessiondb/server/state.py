"""What the routes of one server share: its limits, and that it stops."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sessiondb.backend import Database
from sessiondb.limits import APPEND_BYTES_MAX

MIB: Final = 1024 * 1024

# A body has an append, and what JSON adds to it. Text that is all quotes would double.
BODY_BYTES_MAX: Final = APPEND_BYTES_MAX + 1 * MIB
# Bodies of all connections together: two of the largest, or many small ones. What is refused is
# told to come again.
BODIES_BYTES_MAX: Final = 2 * BODY_BYTES_MAX
BODY_S_MAX: Final = 30.0
"""A body has arrived after this, however large it is: 2 MiB a second of the largest."""
HEAD_BYTES_MAX: Final = 64 * 1024
HEAD_S_MAX: Final = 10.0
STALLED_S_MAX: Final = 30.0
"""A client that reads nothing of its answer for this long is cut off."""
KEEP_ALIVE_S: Final = 75
"""A connection without a request is closed after this."""
CONNECTIONS_MAX: Final = 256
WAIT_S_MAX: Final = 60.0
"""How long a request may wait for work, at most."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one client may take. Tests choose smaller ones."""

    body_bytes: int = BODY_BYTES_MAX
    bodies_bytes: int = BODIES_BYTES_MAX
    body_s: float = BODY_S_MAX
    head_bytes: int = HEAD_BYTES_MAX
    head_s: float = HEAD_S_MAX
    stalled_s: float = STALLED_S_MAX
    connections: int = CONNECTIONS_MAX


@dataclass(slots=True)
class State:
    """What the routes of one server share."""

    bounds: Bounds = field(default_factory=Bounds)
    token: bytes | None = None
    """What a request over TCP must bring. None: there is no TCP."""
    stopping: bool = False
    """True: requests that wait return, and streams end."""
    body_bytes: int = 0
    """Of bodies that are being received or worked on."""
    clients: dict[str, str] = field(default_factory=dict)
    """Which client began a compaction, by the compaction's id."""

    def stop(self, db: Database) -> None:
        """Let requests that wait return. From the event loop's thread."""
        self.stopping = True
        db.backend.wake()

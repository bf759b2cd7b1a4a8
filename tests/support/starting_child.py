"""The reference gateway, reporting each step of its start on stdout.

A test kills it there.

python tests/support/starting_child.py STEP DATABASE OPTIONS...
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import sessiondb
from examples.gateway.__main__ import Server, parse, serve

STEPS: dict[str, tuple[Any, str]] = {
    "open": (sessiondb.SessionDB, "__aenter__"),
    "recover": (sessiondb.SessionDB, "recover"),
    "resume": (sessiondb.SessionDB, "resume"),
    "serve": (Server, "serve"),
}


def tell_before(step: str) -> None:
    owner, name = STEPS[step]
    whole = getattr(owner, name)

    def told(*args: Any, **options: Any) -> Any:
        os.write(1, b"begins\n")
        return whole(*args, **options)

    setattr(owner, name, told)


if __name__ == "__main__":
    tell_before(sys.argv[1])
    asyncio.run(serve(parse(sys.argv[2:])))

"""`make openapi`: does `sessiondb serve` do what its OpenAPI document says, whatever it is asked?

schemathesis reads the document and makes requests of it: valid ones, broken ones, in sequences.
Every answer must have a status, a type and a shape that the document names, and none may be a bug.
In the end the server stops in good order, with nothing in its log, and `verify` finds nothing.

Two checks of schemathesis are left out:

* That every request which the schemas allow is accepted. They say which types there are. Which
  values may be, such as the keys of sessions, is the library's to say.
* That `Allow` names the methods of one path of the document. `/entries/batch` has POST. It is also
  the path of an entry whose id is `batch`, which has GET, so the header names both.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from sessiondb import sync
from tests.support.serving import Serving


def main() -> int:
    """Ask a server for some time. Return the exit code."""
    parser = argparse.ArgumentParser(prog="openapi", description=__doc__)
    parser.add_argument("--program", type=Path, required=True, help="the command of schemathesis")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sessiondb-openapi-") as folder:
        db = Path(folder) / "gateway.db"
        token_file = Path(folder) / "token"
        with Serving(db, "--tcp", "0", "--token-file", str(token_file)) as server:
            [address] = [each for each in server.addresses if each.startswith("http:")]
            token = token_file.read_text().strip()
            ran = subprocess.run(
                [
                    *(asked.program.resolve(), "run", f"{address}/v1/openapi.json"),
                    *("--header", f"Authorization: Bearer {token}"),
                    *("--exclude-checks", "positive_data_acceptance,allow_header_conformance"),
                    # A stream does not end. A claim may wait for a minute.
                    *("--exclude-path", "/v1/events", "--request-timeout", "90"),
                    *("--max-time", str(asked.seconds), "--seed", str(asked.seed)),
                    *("--workers", "4", "--continue-on-failure", "--warnings", "off"),
                ],
                cwd=folder,
                check=False,
            )
            code, said = server.stop()
        with sync.open(db) as opened:
            is_sound = opened.verify().ok
    # uvicorn notes a request that is none, which schemathesis sends, too.
    logged = [line for line in said.splitlines() if "Invalid HTTP request" not in line]
    _say(f"schemathesis ended with {ran.returncode}, the server with {code}")
    _say("verify found nothing" if is_sound else "verify found something")
    for line in logged:
        _say(f"in the server's log: {line}")
    return 0 if (ran.returncode, code, is_sound, logged) == (0, 0, True, []) else 1


def _say(text: str) -> None:
    sys.stdout.write(f"openapi: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

"""A process that imports a path under a limit of memory, and reports the cost.

    python import_child.py DB PATH LIMIT_MIB [BROKEN [EXPORT_TO]]

It prints one JSON object. `peak_mib` is how far the process's resident memory rose during the
import, by the kernel's own high-water mark. BROKEN names a way to break the importer first, so
that a test can see that this shows. With EXPORT_TO the import is exported again, which counts, too.
For `proofs/fuzz/test_import_cost.py`.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import sessiondb.sync
from sessiondb.transfer import jsonl_reader


def break_importer(how: str) -> None:
    """Break the importer as a careless one would be."""
    if how == "reserves what an archive claims to hold":
        read = jsonl_reader._Unpacked.read
        reserved: list[bytearray] = []

        def greedy(self: Any, count: int, /) -> bytes:
            if not reserved:
                # Touched, as by a reader that fills it.
                reserved.append(bytearray(b"x" * (256 * 1024 * 1024)))
            return read(self, count)

        jsonl_reader._Unpacked.read = greedy  # type: ignore[method-assign]
    elif how == "unpacks without a bound":
        jsonl_reader.UNPACKED_BYTES_FREE = 10**12  # type: ignore[misc]
    elif how == "holds a whole file":
        read = jsonl_reader._Reader.batches

        def greedy_batches(self: Any) -> Any:
            return iter(list(read(self)))

        jsonl_reader._Reader.batches = greedy_batches  # type: ignore[method-assign]
    else:
        raise SystemExit(f"cannot break {how!r}")


def peak_mib() -> float:
    """Return the high-water mark of this program's own memory.

    `ru_maxrss` would begin with the mark of the process that this one was forked from.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kib) / 1024


def main(db: str, path: str, limit_mib: str, broken: str = "", export_to: str = "") -> None:
    if broken:
        break_importer(broken)
    with sessiondb.sync.open(db, durability="normal") as opened:
        opened.session("agent:main:neighbour").append({"role": "user", "content": "hello"})
        before = peak_mib()
        used = (
            int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            * resource.getpagesize()
        )
        resource.setrlimit(resource.RLIMIT_AS, (used + int(limit_mib) * 1024 * 1024,) * 2)
        report = opened.import_path(path)
        if export_to:
            assert opened.export(export_to).ok
        peak = peak_mib() - before
        findings = opened.verify().findings
        message = opened.session("agent:main:neighbour").context().messages
    files = {
        file.name: {
            "status": file.status,
            "entries": file.entries,
            "damaged": file.damaged,
            "blank": file.blank,
            "note": file.note,
        }
        for file in report.files
    }
    found = {
        "files": files,
        "peak_mib": peak,
        "findings": [finding.message for finding in findings],
        "said": message,
        "bytes_mib": sum(file.stat().st_size for file in Path(path).iterdir()) / 1024 / 1024,
        "db_mib": Path(db).stat().st_size / 1024 / 1024,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

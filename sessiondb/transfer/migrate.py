"""Move a home of OpenClaw in: an import of all of it, and a receipt for every source.

What it promises. All that `importer` promises, since this is an import of the whole folder. Each
transcript is compared with its source, and what was found equal is recorded. So a run that was
killed is gone on with: what was imported is not imported again, and what was compared is not
compared again. Beside a running gateway each run takes what is new. Of a transcript that was
replaced meanwhile both are kept, the old one as an archive. Whatever of a conversation is
not here has a receipt with the reason, and everything else in the home is counted by kind.

A `final` run is for a gateway that was stopped. It compares everything again. It finds a problem
if a gateway of this home runs, or if a source changed meanwhile (`at_rest`).

What it does not do. It writes nothing in the home, and does not stop the gateway.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sessiondb import clock, threads
from sessiondb.backend import Backend, ReadTx
from sessiondb.errors import InvalidInput
from sessiondb.limits import MIB, PAGE_ROWS
from sessiondb.models import FileReceipt, ImportReport, MigrationReport, SourceReceipt
from sessiondb.words import SourceVerdict

from .at_rest import AtRest
from .folder_scan import file_name, inodes_of
from .importer import import_path
from .openclaw_sqlite import OpenForeign
from .progress import Progress
from .redaction import Redactor

if TYPE_CHECKING:
    from sessiondb import statements

_LOST: Final = ("failed", "foreign", "changed")


async def migrate(
    backend: Backend,
    home: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    final: bool = False,
    compare: bool = True,
    progress: Progress | None = None,
    redactor: Redactor | None = None,
    protect: Sequence[str] = (),
    open_foreign: OpenForeign,
) -> MigrationReport:
    """Import a home of OpenClaw. Durable on return. May be interrupted and repeated.

    A `final` run compares every transcript again, and asks whether the home is at rest. Without
    `compare` none is compared, and a later run compares what has changed since.

    Raises:
        InvalidInput: this is no home of OpenClaw, or the run is final and compares nothing.
    """
    if final and not compare:
        raise InvalidInput("the final run compares all of a home; leave out compare=False")
    await threads.run(_check_home, home)
    rest = await threads.run(AtRest, home, protect) if final else None
    imported = await import_path(
        backend,
        home,
        dry_run=dry_run,
        verify=compare,
        verdicts="none" if not compare else "renew" if final else "use",
        keep_replaced=True,
        progress=progress,
        redactor=redactor,
        protect=protect,
        open_foreign=open_foreign,
    )
    damaged = await _damaged_lines(backend, imported.root)
    problems = await threads.run(rest.problems) if rest is not None else []
    return await threads.run(
        _report, imported, damaged, protect, None if rest is None else problems
    )


def _check_home(home: str | os.PathLike[str]) -> None:
    folder = Path(home)
    try:
        agents = any(
            (agent / name).is_dir()
            for agent in (folder / "agents").iterdir()
            for name in ("sessions", "agent")
        )
    except (OSError, ValueError):
        agents = False
    if not agents:
        raise InvalidInput(
            f"{os.fspath(home)}: no home of OpenClaw: it has no agents/<agent>/sessions. Name the "
            "folder in which openclaw.json lies (~/.openclaw). Transcripts that lie elsewhere come "
            "in with `sessiondb import DB PATH`",
            path=os.fspath(home),
        )


async def _damaged_lines(backend: Backend, root: str) -> dict[str, int]:
    """Return how many lines of each source are kept because they are no entries."""
    found: dict[str, int] = {}
    after_path = f"{root.rstrip('/')}/"
    while rows := await backend.read(
        _damaged_page(root.rstrip("/"), after_path), op="migrate.damaged"
    ):
        found |= {row.path: row.lines for row in rows}
        after_path = rows[-1].path
    return found


def _damaged_page(
    folder: str, after_path: str
) -> Callable[[ReadTx], list[statements.ImportFileDamagedLines]]:
    return lambda tx: tx.all(
        "import_file.damaged_lines", folder=folder, after_path=after_path, limit=PAGE_ROWS
    )


# -- the report: on a worker thread ----------------------------------------------------------------


def _report(
    imported: ImportReport,
    damaged: dict[str, int],
    protect: Sequence[str],
    problems: Sequence[str] | None,
) -> MigrationReport:
    own = inodes_of(protect)
    sources, others = [], Counter[str]()
    for receipt in imported.files:
        if receipt.status == "skipped":
            others[receipt.kind] += 1
        else:
            sources.append(_source(imported, receipt, damaged, own))
    return MigrationReport(
        imported.root,
        tuple(sorted(sources, key=lambda source: source.path)),
        dict(sorted(others.items())),
        dry_run=imported.dry_run,
        final=problems is not None,
        finished_at_ms=clock.now_ms(),
        problems=tuple(problems or ()),
    )


def _source(
    imported: ImportReport, receipt: FileReceipt, damaged: dict[str, int], own: frozenset[str]
) -> SourceReceipt:
    verdict = _verdict(receipt)
    failed = verdict in ("not-imported", "differs")
    size, sha256 = receipt.bytes, receipt.sha256
    if receipt.status in _LOST and receipt.status != "changed":
        size, sha256 = _measured(receipt.path, own)
    return SourceReceipt(
        path=os.path.relpath(receipt.path, imported.root),
        kind=receipt.kind,
        verdict=verdict,
        session_id=receipt.session_id,
        bytes=size,
        sha256=sha256,
        entries=receipt.entries,
        entries_new=receipt.entries_new,
        damaged=max(receipt.damaged, damaged.get(receipt.path, 0)),
        reason=receipt.note if failed else "",
        notes=() if failed else receipt.notes,
    )


def _verdict(receipt: FileReceipt) -> SourceVerdict:
    if receipt.status in _LOST:
        return "not-imported"
    if receipt.status == "would-import":
        return "would-import"
    if receipt.verified is None:
        return "kept"
    if receipt.unredacted:
        return "differs"
    return "equal" if receipt.verified else "differs"


def _measured(path: str, own: frozenset[str]) -> tuple[int, str | None]:
    """Return the size and the SHA-256 of a file that was not imported, as far as can be known.

    A database is not opened. To open and close one that this process has open, under whatever
    name, would drop its locks.
    """
    try:
        found = Path(path).lstat()
        size = found.st_size
        is_text = stat.S_ISREG(found.st_mode) and ".jsonl" in file_name(path)
        if not is_text or f"{found.st_dev}:{found.st_ino}" in own:
            return size, None
        digest = hashlib.sha256()
        with Path(path).open("rb") as file:
            while block := file.read(MIB):
                digest.update(block)
    except OSError:
        return 0, None  # the receipt has the reason: it could not be read
    return size, digest.hexdigest()

"""Which files an export writes, and their names.

Names come from a database that anybody may have written: none leads out of the destination, and
no two files of an export have the same one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sessiondb.backend import Backend, ReadTx
from sessiondb.limits import PAGE_ROWS
from sessiondb.transcript.formats import PI

from .folder_scan import INDEX_NAME, file_name, stem_of
from .openclaw_home import name_in_home

if TYPE_CHECKING:
    from sessiondb import statements

FOLDERS_MAX: Final = 100
"""A name in a database may claim any number of folders, and each would be created and synced."""
NAME_BYTES_MAX: Final = 255  # of one name, in common file systems


@dataclass(slots=True)
class Plan:
    """One file to write."""

    name: str
    session_no: int | None
    session_id: str | None
    agent_id: str | None
    bytes: int
    source: statements.ImportFileFiles | None = None
    is_fork: bool = False
    formats: int = PI.bit
    note: str | None = None


async def plan_all(
    backend: Backend, session_no: int | None, *, agents: dict[int, str] | None
) -> list[Plan]:
    """List the files of an export, each under a name of its own.

    `agents` has the agent of each session that has a key, for a home of OpenClaw.
    """
    plans: list[Plan] = []
    after_no = 0
    while rows := await backend.read(_files_page(after_no, session_no), op="export.plan"):
        plans += [
            Plan(row.name, row.session_no, row.session_id, row.agent_id, row.bytes, source=row)
            for row in rows
        ]
        after_no = rows[-1].import_file_no
    folders = await _agent_folders(backend)
    after_no = 0
    while sessions := await backend.read(_sessions_page(after_no, session_no), op="export.plan"):
        for session in sessions:
            folder = (
                folders.get(session.agent_id, f"agents/{stem_of(session.agent_id)}/sessions")
                if session.agent_id is not None
                else ""
            )
            name = f"{folder}/{stem_of(session.session_id)}.jsonl".lstrip("/")
            plans.append(
                Plan(
                    name,
                    session.session_no,
                    session.session_id,
                    session.agent_id,
                    0,
                    is_fork=session.origin == "fork",
                    formats=session.formats,
                )
            )
        after_no = sessions[-1].session_no
    taken: set[str] = set()
    for plan in plans:
        if agents is not None:
            is_live = plan.source is None or plan.source.kind in ("live", "pi")
            agent_id = agents.get(plan.session_no or 0, plan.agent_id)
            plan.name = name_in_home(plan.name, agent_id, is_live=is_live)
        name_safely(plan, taken)
    return plans


def _files_page(
    after_no: int, session_no: int | None
) -> Callable[[ReadTx], list[statements.ImportFileFiles]]:
    return lambda tx: tx.all(
        "import_file.files", after_no=after_no, session_no=session_no, limit=PAGE_ROWS
    )


def _sessions_page(
    after_no: int, session_no: int | None
) -> Callable[[ReadTx], list[statements.ImportFileSessionsWithoutFile]]:
    return lambda tx: tx.all(
        "import_file.sessions_without_file",
        after_no=after_no,
        session_no=session_no,
        limit=PAGE_ROWS,
    )


async def _agent_folders(backend: Backend) -> dict[str, str]:
    """Return the folder of each agent's imported index: its native sessions go there, too."""
    rows = await backend.read(lambda tx: tx.all("import_file.indexes"), op="export.plan")
    return {
        row.agent_id: safe_name(row.name).rpartition("/")[0]
        for row in reversed(rows)
        if row.agent_id is not None
    }


def plans_to_read(plans: list[Plan], ending: str) -> list[Plan]:
    """Return a plan for each session, once, whatever files it came from."""
    chosen: dict[int, Plan] = {}
    taken: set[str] = set()
    for plan in plans:
        if plan.session_no is not None and plan.session_id is not None:
            folder = plan.name.rpartition("/")[0]
            name = f"{folder}/{stem_of(plan.session_id)}{ending}".lstrip("/")
            chosen.setdefault(plan.session_no, replace(plan, name=name, note=None))
    for plan in chosen.values():
        name_safely(plan, taken, ending=ending)
    return list(chosen.values())


# -- names ----------------------------------------------------------------------------


def name_safely(plan: Plan, taken: set[str], *, ending: str = ".jsonl") -> None:
    """Give a file a name below the destination that no other file of this export has."""
    wanted = safe_name(plan.name)
    if wanted != plan.name:
        plan.note = (
            f"its recorded name {plan.name!r} is not one that can be written; written as {wanted}"
        )
    name = wanted
    # A transcript never gets the name of an index: it would be read as one.
    while name.casefold() in taken or (file_name(name) == INDEX_NAME and ending == ".jsonl"):
        stem, dot, rest = wanted.partition(ending)
        digest = hashlib.sha256(f"{plan.session_id}{name}".encode()).hexdigest()[:8]
        name = f"{stem}~{digest}{dot}{rest}"
        plan.note = f"another file of this export has the name {wanted}; written as {name}"
    taken.add(name.casefold())
    plan.name = name


def safe_name(name: str) -> str:
    """Return a relative path that stays below the destination, whatever was recorded."""
    parts = [
        _shortened(part.replace("\0", "-"))
        for part in name.split("/")
        if part not in ("", ".", "..")
    ]
    return "/".join(parts[-FOLDERS_MAX:]) or "unnamed.jsonl"


def _shortened(part: str) -> str:
    """Return a name that a file system accepts: a long one is cut, and gets a digest of itself."""
    if len(part.encode()) <= NAME_BYTES_MAX:
        return part
    ending = ".jsonl" if part.endswith(".jsonl") else ""
    tail = f"~{hashlib.sha256(part.encode()).hexdigest()[:8]}{ending}"
    return part.encode()[: NAME_BYTES_MAX - len(tail)].decode(errors="ignore") + tail

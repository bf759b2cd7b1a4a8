"""The index files of an export: `sessions.json` of each agent, also as a home of OpenClaw has it.

An imported index comes back byte for byte if no key has been bound elsewhere since. Otherwise only
the rows that differ are rewritten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sessiondb import threads
from sessiondb.backend import Backend, ReadTx
from sessiondb.limits import PAGE_ROWS

from . import index_content
from .export_plan import Plan, safe_name
from .folder_scan import INDEX_NAME, agent_of, stem_of
from .openclaw_home import HomeFile, name_in_home, rows_in_home
from .openclaw_index import keys_in, new_row, renew_index, write_index

if TYPE_CHECKING:
    from sessiondb import statements


async def indexes_of(backend: Backend, names: dict[int, str]) -> list[tuple[str, bytes]]:
    """Return the index files to write: the imported ones, renewed, and those of other agents."""
    found: list[tuple[str, bytes]] = []
    seen: set[str] = set()
    imported_keys: set[str] = set()
    for row in await backend.read(lambda tx: tx.all("import_file.indexes"), op="export.index"):
        stored = await index_content.load(backend, row.path, op="export.index")
        assert stored is not None, "a receipt stays"
        assert stored.content is not None, "its first import has come to its end"
        content = stored.content
        owner = {row.agent_id} if row.agent_id is not None else set()
        first_of_agent = bool(owner - seen)
        # One index may hold the keys of several agents, in whatever folder it is.
        keys = await threads.run(keys_in, content, row.agent_id)
        bindings: dict[str, statements.ImportFileBindingsOfAgent] = {}
        for agent_id in sorted(owner | {key.agent_id for key in keys}):
            bindings |= await _bindings(backend, agent_id)
        imported_keys |= {key.text for key in keys}
        folder = safe_name(row.name).rpartition("/")[0]
        renewed = partial(
            renew_index, content, row.agent_id, bindings, names, folder, with_new=first_of_agent
        )
        found.append((safe_name(row.name), await threads.run(renewed)))
        seen |= owner
    for (agent_id,) in await backend.read(
        lambda tx: tx.tuples("import_file.agents"), op="export.index"
    ):
        if agent_id not in seen:
            folder = f"agents/{stem_of(agent_id)}/sessions"
            bindings = {
                key: row
                for key, row in (await _bindings(backend, agent_id)).items()
                if key not in imported_keys
                and (row.details is None or key.lower() not in imported_keys)
            }
            rows = {key: new_row(row, None, names, folder) for key, row in bindings.items()}
            if rows:
                found.append((f"{folder}/{INDEX_NAME}", write_index("", [], {}, rows).encode()))
    return found


async def agents_of(backend: Backend) -> dict[int, str]:
    """Return the agent of each session that has a key: its transcript is in that agent's folder."""
    agents = await backend.read(lambda tx: tx.tuples("import_file.agents"), op="export.index")
    return {
        row.session_no: agent_id
        for (agent_id,) in agents
        for row in (await _bindings(backend, agent_id)).values()
    }


async def indexes_for_openclaw(
    backend: Backend, folder: str, indexes: list[tuple[str, bytes]], plans: Sequence[Plan]
) -> list[tuple[str, bytes]]:
    """Return the indexes as OpenClaw takes them in a home: names of files, and times that hold."""
    files = {
        plan.session_no: HomeFile(
            plan.name,
            went_on=plan.source is None
            or (plan.source.session_last_seq or 0) > plan.source.entries,
        )
        for plan in plans
        if plan.session_no is not None
    }
    found = []
    for name, content in indexes:
        agent = agent_of(f"/{name.rpartition('/')[0]}") or "main"
        keys = await threads.run(keys_in, content, agent)
        bindings: dict[str, statements.ImportFileBindingsOfAgent] = {}
        for agent_id in sorted({agent, *(key.agent_id for key in keys)}):
            bindings |= await _bindings(backend, agent_id)
        rows = partial(rows_in_home, content, agent, bindings, files, folder)
        found.append((name_in_home(name, agent, is_live=False), await threads.run(rows)))
    return found


async def _bindings(
    backend: Backend, agent_id: str
) -> dict[str, statements.ImportFileBindingsOfAgent]:
    found: dict[str, statements.ImportFileBindingsOfAgent] = {}
    after_key = ""
    while rows := await backend.read(_bindings_page(agent_id, after_key), op="export.index"):
        found |= {row.session_key: row for row in rows}
        after_key = rows[-1].session_key
    return found


def _bindings_page(
    agent_id: str, after_key: str
) -> Callable[[ReadTx], list[statements.ImportFileBindingsOfAgent]]:
    return lambda tx: (
        tx.page(
            "import_file.bindings_of_agent", agent_id=agent_id, after_key=after_key, limit=PAGE_ROWS
        ).rows
    )

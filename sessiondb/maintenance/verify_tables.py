"""Verify the rows that belong to no session's transcript: keys, processes, lanes, events, archives.

Some values only label or count: a time, an attempt, the bytes of an archive. A wrong one is a
warning, because no rule is broken by it and nothing is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from sessiondb.backend import ReadTx

from .verify_steps import SESSION_FINDINGS_MAX, Severity, Steps, pages

if TYPE_CHECKING:
    from sessiondb import statements

Add = Callable[[str, str | None, str, Severity], None]

_NAME: Final = re.compile(r"[0-9a-f]{32}")
_ARCHIVED: Final = ("deleting", "archived", "restoring", "deleted")
_FINISHED: Final = ("archived", "restored", "deleted")
_EMPTY: Final = ("restored", "deleted")


class Tables:
    """The walks over these tables. `add` takes a check, a session, a finding and its severity."""

    def __init__(self, add: Add) -> None:
        self._add = add

    # -- whole tables of few rows ------------------------------------------------------

    def rules(self, tx: ReadTx) -> bool:
        """Name the rows that break a CHECK. Return False if there is none."""
        rows = tx.all("verify.broken_rules", limit=SESSION_FINDINGS_MAX)
        for row in rows:
            self._add("rule", None, f"{row.what} breaks its rule {row.rule}", "error")
        return bool(rows)

    def numbers(self, tx: ReadTx) -> None:
        """Check that no number was assigned which the counter of its table does not know."""
        for row in tx.all("verify.numbers"):
            if row.last_no > row.seq:
                self._add(
                    "numbers",
                    None,
                    f"the last {row.name} has number {row.last_no}, "
                    f"but the counter of its table is at {row.seq}",
                    "error",
                )

    def wal_link(self, tx: ReadTx) -> None:
        """Check that the file has one name, as the writer gives it."""
        names = tx.all("verify.wal_link")
        if len(names) != 1 or not all(
            _NAME.fullmatch(name) for row in names for name in (row.previous, row.current)
        ):
            self._add(
                "wal_link", None, f"the file has {len(names)} names, or no proper one", "error"
            )

    def lanes(self, tx: ReadTx) -> None:
        """Check that the lanes are there that every file has."""
        known = {row.lane for row in tx.all("verify.lanes")}
        for lane in sorted({"main", "cron", "resume"} - known):
            self._add("lane", None, f"lane {lane!r} is not there", "error")

    def processes(self, tx: ReadTx) -> None:
        """Check that a process that died without closing was recovered as such."""
        for row in tx.all("verify.odd_instances", limit=SESSION_FINDINGS_MAX):
            self._add(
                "instance",
                None,
                f"process {row.instance_no} is marked as {row.unclean} for how it ended",
                "warning",
            )

    def pauses(self, tx: ReadTx) -> None:
        """Check the pauses of channels."""
        for row in tx.all("verify.odd_pauses", limit=SESSION_FINDINGS_MAX):
            self._add(
                "outbox",
                None,
                f"channel {row.channel!r} has paused {row.pauses} times, and refuses since a time "
                "after its last pause began, or never",
                "warning",
            )

    # -- a page at a time --------------------------------------------------------------

    def bindings(self) -> Steps:
        """Yield the steps over the keys."""
        return pages(
            lambda tx, after, limit: tx.all("verify.bindings", after_key=after, limit=limit),
            lambda row: row.session_key,
            self._binding,
            first="",
        )

    def _binding(self, _tx: ReadTx, row: statements.VerifyBindings) -> None:
        name = f"key {row.session_key!r}"
        if row.found_session_no is None:
            self._add(
                "binding",
                None,
                f"{name} is bound to session number {row.session_no}, which is not there",
                "error",
            )
        elif row.archived_at_ms is not None and not row.restoring:
            self._add("binding", row.session_id, f"{name} is bound to an archived session", "error")
        agent_id = row.session_key.split(":")[1] if row.session_key.count(":") > 1 else None
        if agent_id != row.agent_id:
            self._add(
                "binding",
                row.session_id,
                f"{name} is listed as a key of {row.agent_id!r}",
                "warning",
            )

    def foreign_ids(self) -> Steps:
        """Yield the steps over the foreign ids of sessions."""
        return pages(
            lambda tx, after, limit: tx.all("verify.foreign_ids", after_no=after, limit=limit),
            lambda row: row.session_no,
            self._foreign_id,
            first=-(2**63),
        )

    def _foreign_id(self, _tx: ReadTx, row: statements.VerifyForeignIds) -> None:
        name = f"the external id {row.external_id[:80]!r} of namespace {row.namespace!r}"
        if row.found_session_no is None:
            self._add(
                "foreign_id",
                None,
                f"{name} names session number {row.session_no}, which is not there",
                "error",
            )
        elif row.is_deleted:
            self._add("foreign_id", row.session_id, f"{name} is left of a deleted session", "error")

    def events(self) -> Steps:
        """Yield the steps over the events."""
        return pages(
            lambda tx, after, limit: tx.all("verify.events", after_no=after, limit=limit),
            lambda row: row.event_no,
            self._event,
            first=0,
        )

    def _event(self, _tx: ReadTx, row: statements.VerifyEvents) -> None:
        if not row.is_json:
            self._add("event", None, f"the data of event {row.event_no} are not JSON", "error")

    def archives(self) -> Steps:
        """Yield the steps over the archives' own rows. Their chunks belong to the sessions."""
        return pages(
            lambda tx, after, limit: tx.all("verify.archives", after_no=after, limit=limit),
            lambda row: row.archive_no,
            self._archive,
            first=0,
        )

    def _archive(self, _tx: ReadTx, row: statements.VerifyArchives) -> None:
        name = f"archive {row.archive_no} is {row.state}, but"

        def add(what: str, severity: Severity = "error") -> None:
            self._add("archive", row.session_id, f"{name} {what}", severity)

        if row.state in _ARCHIVED and row.archived_at_ms is None:
            # Its entries are missing then, which the walk over the session reports.
            add("its session is not marked as archived", "warning")
        if row.archived_at_ms is not None and row.ended_at_ms is None:
            add("its session has not ended", "warning")
        is_finished = row.finished_at_ms is not None
        # One that was restored or deleted is finished when its last chunk is gone.
        if row.state not in _EMPTY and is_finished != (row.state in _FINISHED):
            add(f"it is {'' if is_finished else 'not '}finished", "warning")
        if row.state in _EMPTY and is_finished and row.found_chunks:
            add(f"{row.found_chunks} chunks of it are left", "warning")
        if row.state == "archived" and row.bytes_stored != row.found_bytes:
            add(f"it counts {row.bytes_stored} bytes and holds {row.found_bytes}", "warning")

"""Corruptions planted by SQL, table by table and column by column: `verify` finds each.

A plant changes one row of the populated world, which has two and more of everything. The
findings must be of the expected checks, name the row or its session, and name no other session.
What `verify` cannot know is listed with the reason. Every column is in one list or the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import apsw
import pytest

from sessiondb.maintenance import verify
from sessiondb.models import VerifyReport
from sessiondb.sqlite.transaction import Snapshot
from tests.support.world import tables
from tests.support.world_build import template

pytestmark = pytest.mark.damaged_values


@dataclass(frozen=True)
class Plant:
    """A corruption: what it changes, how, and what is found."""

    columns: str
    """As `table.column`, several with a space between them."""
    sql: str
    check: str
    """One check or several."""
    says: str
    """A part of one of the messages."""
    session: str | None = None
    """The session that every finding names. None: the message names the row."""


def no(session: str) -> str:
    """Return a session's number, as SQL."""
    return f"(SELECT session_no FROM session WHERE session_id = '{session}')"


def entry(session: str, seq: int, values: str) -> str:
    return f"UPDATE entry SET {values} WHERE entry_no = ({no(session)} << 32) + {seq}"


def session(name: str, values: str) -> str:
    return f"UPDATE session SET {values} WHERE session_id = '{name}'"


def epoch(name: str, number: int, values: str) -> str:
    return f"UPDATE epoch SET {values} WHERE session_no = {no(name)} AND epoch = {number}"


def job(name: str, values: str) -> str:
    return f"UPDATE compaction SET {values} WHERE compaction_id = '{name}'"


def file(name: str, values: str) -> str:
    return f"UPDATE import_file SET {values} WHERE name = '{name}'"


def inbox(name: str, values: str) -> str:
    return f"UPDATE inbox SET {values} WHERE event_id = '{name}'"


def turn(name: str, values: str) -> str:
    return (
        f"UPDATE turn SET {values} WHERE turn_no = "
        f"(SELECT turn_no FROM inbox WHERE event_id = '{name}')"
    )


def reply(target: str, values: str) -> str:
    return f"UPDATE outbox SET {values} WHERE target = '{target}'"


def archive(name: str, values: str) -> str:
    return f"UPDATE archive SET {values} WHERE session_no = {no(name)} AND state <> 'restored'"


def piece(name: str, line: int, values: str) -> str:
    return (
        f"UPDATE quarantine SET {values} WHERE line = {line} AND import_file_no = "
        f"(SELECT import_file_no FROM import_file WHERE name = '{name}')"
    )


def hidden(index: str, statement: str) -> str:
    """Change a row behind an index's back, as a broken program or disk does."""
    return f"""PRAGMA writable_schema = on;
        UPDATE sqlite_schema SET sql = sql || ' AND 0 '
        WHERE name = '{index}' AND sql LIKE '%WHERE%';
        UPDATE sqlite_schema SET sql = sql || ' WHERE 0 ' WHERE name = '{index}'
        AND sql NOT LIKE '%WHERE%';
        PRAGMA writable_schema = reset; {statement};
        PRAGMA writable_schema = on;
        UPDATE sqlite_schema SET sql = replace(replace(sql, ' AND 0 ', ''), ' WHERE 0 ', '')
        WHERE name = '{index}';
        PRAGMA writable_schema = reset"""


PLANTS = [
    # -- instance, wal_link
    Plant(
        "instance.unclean instance.closed_at_ms",
        "UPDATE instance SET closed_at_ms = NULL WHERE program = 'killed'",
        "instance",
        "process 2 is marked as 1",
    ),
    Plant(
        "instance.unclean",
        "UPDATE instance SET unclean = 2 WHERE program = 'killed'",
        "instance",
        "process 2 is marked as 2",
    ),
    Plant(
        "instance.instance_no",
        "DELETE FROM instance WHERE program = 'dying-too'",
        "foreign_key",
        "of compaction points at a instance",
    ),
    Plant("wal_link.link_no", "DELETE FROM wal_link", "wal_link", "0 names"),
    Plant("wal_link.current", "UPDATE wal_link SET current = 'x'", "wal_link", "no proper one"),
    Plant("wal_link.previous", "UPDATE wal_link SET previous = ''", "wal_link", "no proper one"),
    Plant("wal_link.link_no", "UPDATE wal_link SET link_no = 2", "rule", "link 2 breaks its rule"),
    # -- session
    Plant(
        "session.session_no",
        "DELETE FROM session WHERE session_id = 'job-tired'",
        "orphan foreign_key binding",
        "entries of session number",
    ),
    Plant(
        "session.session_id",
        session("kept", "session_id = 'other'"),
        "archive",
        "names another session",
        "other",
    ),
    Plant(
        "session.origin", session("live", "origin = 'x'"), "rule", "session live breaks its rule"
    ),
    Plant(
        "session.origin",
        session("import-clean", "origin = 'native'"),
        "source time",
        "its origin is native",
        "import-clean",
    ),
    Plant(
        "session.origin",
        session("live-fork", "origin = 'native'"),
        "fork",
        "is of origin native",
        "live-fork",
    ),
    Plant(
        "session.formats",
        session("live", "formats = 99"),
        "rule",
        "session live breaks its rule session_formats_known",
    ),
    Plant(
        "session.version",
        session("live", "version = 2"),
        "header",
        "its header says 3",
        "live",
    ),
    Plant(
        "session.created_at_ms",
        session("live", "created_at_ms = created_at_ms + 1"),
        "time",
        "says that it was created at",
        "live",
    ),
    Plant(
        "session.ended_at_ms",
        session("kept", "ended_at_ms = NULL"),
        "archive",
        "its session has not ended",
        "kept",
    ),
    Plant("session.name", session("live", "name = 'x'"), "name", "is named 'x'", "live"),
    Plant("session.name", session("live", "name = NULL"), "name", "is named None", "live"),
    Plant(
        "session.last_seq",
        session("live", "last_seq = last_seq + 1"),
        "sequence",
        "last seq is 19",
        "live",
    ),
    Plant(
        "session.last_seq",
        session("live", "last_seq = last_seq - 1"),
        "sequence",
        "last seq is 17",
        "live",
    ),
    Plant(
        "session.epoch",
        session("live-reset", "epoch = epoch - 1"),
        "epoch pointers context_tokens",
        "is at epoch 1, but its last one is 2",
        "live-reset",
    ),
    Plant(
        "session.head_no session.branch_no",
        session("live", "head_no = head_no - 1"),
        "head context_tokens asked",
        "is followed by entry",
        "live",
    ),
    Plant(
        "session.head_no",
        session("live", "head_no = (SELECT head_no FROM session WHERE session_id = 'twin')"),
        "head pointers context_tokens fork",
        "was not forked from",
        "live",
    ),
    Plant(
        "session.branch_no",
        session("live", "branch_no = branch_no - 1"),
        "head",
        "the session on",
        "live",
    ),
    Plant(
        "session.boundary_no",
        session("live", "boundary_no = NULL"),
        "pointers context_tokens",
        "the session's context begins at none",
        "live",
    ),
    Plant(
        "session.first_kept_no",
        session("live", "first_kept_no = NULL"),
        "pointers",
        "keeps from none",
        "live",
    ),
    Plant(
        "session.context_tokens",
        session("live", "context_tokens = context_tokens + 1"),
        "context_tokens",
        "the session counts",
        "live",
    ),
    Plant(
        "session.tokens_fresh",
        session("live", "tokens_fresh = 0"),
        "context_tokens",
        "the entries add up to",
        "live",
    ),
    Plant(
        "session.tokens_fresh",
        session("live-reset", "tokens_fresh = 1"),
        "context_tokens",
        "no entry of the context carries one",
        "live-reset",
    ),
    Plant(
        "session.forked_from_no",
        session("live-fork", "forked_from_no = NULL"),
        "fork branch",
        "is no fork, but it was forked at",
        "live-fork",
    ),
    Plant(
        "session.forked_from_no",
        session("live-fork", f"forked_from_no = {no('twin-reset')}"),
        "fork branch",
        "a session that it does not come from",
        "live-fork",
    ),
    Plant(
        "session.archived_at_ms",
        session("kept", "archived_at_ms = NULL"),
        "archive header sequence head epoch context_tokens time name",
        "its session is not marked as archived",
        "kept",
    ),
    Plant(
        "session.archived_at_ms",
        session("live", "archived_at_ms = 1"),
        "archive binding",
        "its archive is not there",
        "live",
    ),
    Plant(
        "session.forked_at_no",
        session("live-fork", "forked_at_no = forked_at_no - 1"),
        "fork",
        "its first context leaves it at",
        "live-fork",
    ),
    Plant(
        "session.forked_at_no",
        session("live-fork", "forked_at_no = NULL"),
        "fork",
        "was forked at entry none",
        "live-fork",
    ),
    Plant(
        "session.forked_epoch",
        session("live-fork", "forked_epoch = forked_epoch + 1"),
        "fork",
        "in epoch 3 of its origin",
        "live-fork",
    ),
    Plant(
        "session.heard_at_ms",
        session("live", "heard_at_ms = heard_at_ms + 1"),
        "time",
        "no message of a user is of that time",
        "live",
    ),
    Plant(
        "session.ordered_from_no",
        session("live", "ordered_from_no = head_no + 2"),
        "order",
        "which lies behind its head",
        "live",
    ),
    Plant(
        "session.open_marks",
        session("live", "open_marks = 'a-call'"),
        "order",
        "marks the calls 'a-call' as open at its head",
        "live",
    ),
    Plant(
        "session.asked_no",
        session("live", "asked_no = head_no"),
        "asked",
        "waits for an answer first",
        "live",
    ),
    Plant(
        "session.asked_no",
        session("live-reset", "asked_no = 0"),
        "asked",
        "waits for an answer first, but by its entries that is 4/",
        "live-reset",
    ),
    # -- binding
    Plant(
        "binding.session_no",
        "UPDATE binding SET session_no = 9999 WHERE session_key = 'agent:main:telegram:live'",
        "binding",
        "key 'agent:main:telegram:live' is bound to session number 9999",
    ),
    Plant(
        "binding.session_no",
        f"UPDATE binding SET session_no = {no('kept')} "
        "WHERE session_key = 'agent:main:telegram:live'",
        "binding",
        "is bound to an archived session",
        "kept",
    ),
    Plant(
        "binding.agent_id binding.session_key",
        "UPDATE binding SET agent_id = 'west' WHERE session_key = 'agent:main:telegram:live'",
        "binding",
        "is listed as a key of 'west'",
        "live",
    ),
    Plant(
        "binding.details",
        "UPDATE binding SET details = '{' WHERE session_key = 'agent:main:imported:import-odd'",
        "rule",
        "key agent:main:imported:import-odd breaks its rule binding_details_json",
    ),
    # -- foreign_id
    Plant(
        "foreign_id.session_no",
        "UPDATE foreign_id SET session_no = 9999 WHERE namespace = 'other app'",
        "foreign_id",
        "the external id 'thread 1' of namespace 'other app' names session number 9999",
    ),
    Plant(
        "foreign_id.session_no",
        f"UPDATE foreign_id SET session_no = {no('deleted')} WHERE namespace = 'other app'",
        "foreign_id",
        "is left of a deleted session",
        "deleted",
    ),
    # -- session_details
    Plant(
        "session_details.session_no",
        f"UPDATE session_details SET session_no = 9999 WHERE session_no = {no('live')}",
        "foreign_key",
        "row 9999 of session_details points at a session that is not there",
    ),
    Plant(
        "session_details.document",
        f"UPDATE session_details SET document = '{{' WHERE session_no = {no('live')}",
        "rule",
        "breaks its rule session_details_json",
    ),
    # -- named_details
    Plant(
        "named_details.document",
        "UPDATE named_details SET document = '{' WHERE namespace = 'app' AND name = 'b'",
        "rule",
        "breaks its rule named_details_json",
    ),
    # -- branch
    Plant(
        "branch.branch_no",
        f"DELETE FROM branch WHERE first_no = ({no('live')} << 32) + 1",
        "branch foreign_key pointers epoch first_kept compaction",
        "which is not there",
        "live",
    ),
    Plant(
        "branch.session_no",
        f"UPDATE branch SET session_no = {no('twin')} "
        f"WHERE first_no = ({no('live-undone')} << 32) + 1",
        "branch",
        "of session number",
    ),
    Plant(
        "branch.parent_branch_no",
        "UPDATE branch SET parent_branch_no = branch_no "
        f"WHERE session_no = {no('live')} AND parent_branch_no IS NOT NULL",
        "branch pointers epoch",
        "has the later branch",
        "live",
    ),
    Plant(
        "branch.parent_branch_no",
        "UPDATE branch SET parent_branch_no = NULL "
        f"WHERE session_no = {no('twin')} AND parent_branch_no IS NOT NULL",
        "rule pointers epoch context_tokens",
        "breaks its rule branch_parent_and_fork_together",
    ),
    Plant(
        "branch.fork_no",
        f"UPDATE branch SET fork_no = fork_no - 1 WHERE session_no = {no('live-fork')}",
        "branch fork context_tokens",
        "but its first entry",
        "live-fork",
    ),
    Plant(
        "branch.first_no",
        f"UPDATE branch SET first_no = first_no + 1 WHERE session_no = {no('live-undone')}",
        "branch parent",
        "lies before the beginning",
        "live-undone",
    ),
    Plant(
        "branch.first_no",
        f"INSERT INTO branch (session_no, first_no) SELECT session_no, first_no + 1 FROM branch "
        f"WHERE session_no = {no('live-undone')}",
        "branch",
        "begins at entry",
        "live-undone",
    ),
    # -- entry
    Plant(
        "entry.entry_no",
        f"DELETE FROM entry WHERE entry_no = ({no('live-undone')} << 32) + 2",
        "sequence parent",
        "entries 2 to 2 are missing",
        "live-undone",
    ),
    Plant(
        "entry.branch_no",
        entry("live", 3, "branch_no = branch_no + 1"),
        "branch parent",
        "lies before the beginning",
        "live",
    ),
    Plant(
        "entry.branch_no", entry("live", 3, "branch_no = NULL"), "tree parent", "no branch", "live"
    ),
    Plant(
        "entry.parent_no", entry("live", 3, "parent_no = NULL"), "parent", "has no parent", "live"
    ),
    Plant(
        "entry.parent_no",
        entry("live", 3, "parent_no = parent_no - 1"),
        "parent",
        "but the entry before it",
        "live",
    ),
    Plant(
        "entry.parent_no",
        entry("live", 3, f"parent_no = ({no('twin')} << 32) + 2"),
        "parent",
        "came later",
        "live",
    ),
    Plant(
        "entry.position",
        entry("live", 3, "position = position + 1"),
        "position",
        "has position 4 instead of 3",
        "live",
    ),
    Plant(
        "entry.type", entry("live", 3, "type = 'custom'"), "payload", "stored as 'custom'", "live"
    ),
    Plant("entry.role", entry("live", 3, "role = 'toolResult'"), "payload", "with role", "live"),
    Plant("entry.role", entry("live", 3, "role = NULL"), "payload", "with role None", "live"),
    Plant(
        "entry.projection",
        entry("live", 3, "projection = 4"),
        "projection",
        "has projection 4 instead of 1",
        "live",
    ),
    Plant(
        "entry.projection",
        entry("live", 3, "projection = 9"),
        "file projection tokens",
        "has projection 9 instead of 1",
    ),
    Plant(
        "entry.tokens",
        entry("live", 7, "tokens = tokens + 1"),
        "tokens",
        "counts 1 tokens instead of 0",
        "live",
    ),
    Plant(
        "entry.tokens_total",
        entry("live", 7, "tokens_total = tokens_total + 1"),
        "tokens",
        "sums the path up",
        "live",
    ),
    Plant(
        "entry.usage_tokens",
        entry("live", 4, "usage_tokens = usage_tokens + 1"),
        "usage",
        "carries a provider's count of 501",
        "live",
    ),
    Plant(
        "entry.usage_tokens",
        entry("live", 3, "usage_tokens = 1"),
        "usage",
        "carries a provider's count of 1 tokens",
        "live",
    ),
    Plant(
        "entry.open_calls",
        entry("live", 5, "open_calls = 2"),
        "open_calls",
        "leaves 2 tool calls open instead of 1",
        "live",
    ),
    Plant(
        "entry.boundary_no",
        entry("live", 12, "boundary_no = NULL"),
        "boundary",
        "begins at none",
        "live",
    ),
    Plant(
        "entry.first_kept_no",
        entry("live", 10, "first_kept_no = first_kept_no - 1"),
        "first_kept epoch compaction",
        "but its text says",
    ),
    Plant(
        "entry.first_kept_no",
        entry("live", 3, f"first_kept_no = ({no('live')} << 32) + 1"),
        "first_kept",
        "no context begins at it",
        "live",
    ),
    Plant(
        "entry.model_no", entry("live", 5, "model_no = model_no - 2"), "model", "its model", "live"
    ),
    Plant(
        "entry.thinking_no",
        entry("live", 5, "thinking_no = NULL"),
        "thinking",
        "thinking level from none",
        "live",
    ),
    Plant("entry.body_at", entry("live", 3, "body_at = body_at + 1"), "body", "not its", "live"),
    Plant(
        "entry.body_bytes",
        entry("live", 3, "body_bytes = body_bytes - 1"),
        "body",
        "not its",
        "live",
    ),
    Plant(
        "entry.entry_id", entry("live", 17, "entry_id = 'x'"), "payload parent", "with id", "live"
    ),
    Plant(
        "entry.idempotency_key",
        "UPDATE entry SET idempotency_key = NULL "
        "WHERE entry_no = (SELECT entry_no FROM inbox WHERE event_id = 'cut')",
        "inbox",
        "has the idempotency key None",
        "cut",
    ),
    Plant(
        "entry.payload",
        entry("live", 3, "payload = substr(payload, 1, 50)"),
        "payload",
        "is damaged: not JSON",
        "live",
    ),
    Plant(
        "entry.payload",
        entry("live", 3, "payload = replace(payload, 'live one', 'live one and more')"),
        "body tokens",
        "are not its message",
        "live",
    ),
    Plant(
        "entry.payload",
        entry("import-clean", 1, "payload = replace(payload, '\"m0\"', '\"m0\" ')"),
        "source body",
        "counts",
        "import-clean",
    ),
    Plant(
        "entry.payload",
        entry("import-clean", 2, "payload = replace(payload, 'm1', 'n1'), entry_id = 'n1'"),
        "source",
        "has another hash than what an export would write",
        "import-clean",
    ),
    # -- epoch
    Plant(
        "epoch.epoch",
        f"DELETE FROM epoch WHERE session_no = {no('live')} AND epoch = 1",
        "epoch compaction",
        "epoch 1 is missing",
        "live",
    ),
    Plant(
        "epoch.epoch epoch.session_no",
        f"INSERT INTO epoch (session_no, epoch, reason, opened_at_ms) "
        f"VALUES ({no('live')}, 3, 'branch', 1)",
        "epoch",
        "its last one is 3",
        "live",
    ),
    Plant(
        "epoch.session_no",
        f"UPDATE epoch SET session_no = 9999 WHERE session_no = {no('live-ended')}",
        "epoch foreign_key",
        "is at epoch 0",
    ),
    Plant("epoch.reason", epoch("live", 2, "reason = 'undo'"), "epoch", "undoes no", "live"),
    Plant(
        "epoch.reason",
        epoch("live-undone", 2, "reason = 'branch'"),
        "epoch",
        "but it went on where epoch 1 ended",
        "live-undone",
    ),
    Plant(
        "epoch.reason",
        epoch("live", 1, "reason = 'reset'"),
        "epoch compaction",
        "began with a reset",
        "live",
    ),
    Plant(
        "epoch.opened_at_ms",
        epoch("live", 1, "opened_at_ms = opened_at_ms + 1"),
        "time",
        "and the next began at",
        "live",
    ),
    Plant(
        "epoch.opened_at_ms",
        epoch("live", 0, "opened_at_ms = opened_at_ms + 1"),
        "time",
        "epoch 0 began at",
        "live",
    ),
    Plant(
        "epoch.closed_at_ms",
        epoch("live", 0, "closed_at_ms = closed_at_ms + 1"),
        "time",
        "epoch 0 ended at",
        "live",
    ),
    Plant(
        "epoch.closed_at_ms",
        epoch("live", 0, "closed_at_ms = NULL"),
        "epoch",
        "epoch 0 is open",
        "live",
    ),
    Plant(
        "epoch.boundary_no",
        epoch("live", 1, "boundary_no = boundary_no - 1"),
        "epoch compaction",
        "epoch 1 begins at entry",
        "live",
    ),
    Plant(
        "epoch.first_kept_no",
        epoch("live", 1, "first_kept_no = NULL"),
        "epoch",
        "epoch 1 keeps entries from none",
        "live",
    ),
    Plant(
        "epoch.closed_head_no",
        epoch("live", 0, "closed_head_no = closed_head_no - 1"),
        "epoch",
        "epoch 0 ended at entry",
        "live",
    ),
    # -- compaction
    Plant(
        "compaction.compaction_no",
        "DELETE FROM compaction WHERE compaction_id = 'live-first'",
        "compaction",
        "no committed compaction says so",
        "live",
    ),
    Plant(
        "compaction.session_no",
        job("live-first", f"session_no = {no('twin')}"),
        "compaction",
        "is no compaction of this session",
    ),
    Plant(
        "compaction.state",
        job("live-first", "state = 'x'"),
        "rule compaction",
        "compaction live-first breaks its rule compaction_state_known",
    ),
    Plant(
        "compaction.state compaction.finished_at_ms",
        job("live-first", "state = 'running', finished_at_ms = NULL"),
        "rule compaction",
        "compaction live-first breaks its rule compaction_committed_is_complete",
    ),
    Plant(
        "compaction.base_epoch",
        job("live-first", "base_epoch = base_epoch + 1"),
        "compaction",
        "live-first went from epoch 1 to 1",
        "live",
    ),
    Plant(
        "compaction.cut_no",
        job("live-first", "cut_no = cut_no - 1"),
        "compaction",
        "but what its entry keeps begins behind",
        "live",
    ),
    Plant(
        "compaction.first_kept_no",
        job("live-first", "first_kept_no = first_kept_no - 1"),
        "compaction",
        "live-first keeps entries from",
        "live",
    ),
    Plant(
        "compaction.tokens_before",
        job("live-first", "tokens_before = tokens_before + 1"),
        "compaction",
        "live-first began with",
        "live",
    ),
    Plant(
        "compaction.tokens_after",
        job("live-first", "tokens_after = NULL"),
        "compaction",
        "live-first left None tokens",
        "live",
    ),
    Plant(
        "compaction.instance_no",
        job("held", "instance_no = 9999"),
        "foreign_key",
        "of compaction points at a instance",
    ),
    Plant(
        "compaction.deadline_ms compaction.deadline_max_ms",
        job("held", "deadline_ms = deadline_max_ms + 1"),
        "compaction",
        "held is running, but its deadline",
        "job-held",
    ),
    Plant(
        "compaction.late",
        job("live-first", "late = 1"),
        "compaction",
        "it is marked late, and came in time",
        "live",
    ),
    Plant(
        "compaction.epoch",
        job("live-first", "epoch = 2"),
        "compaction",
        "epoch 2 does not begin at its entry",
        "live",
    ),
    Plant(
        "compaction.entry_no",
        job("live-first", "entry_no = entry_no - 1"),
        "compaction",
        "is no compaction of this session",
        "live",
    ),
    Plant(
        "compaction.in_vain",
        job("tired-rejected-0", "in_vain = 0"),
        "compaction",
        "it is marked as 0 for in vain",
        "job-tired",
    ),
    # -- import_file
    Plant(
        "import_file.import_file_no",
        "DELETE FROM import_file WHERE name = 'main/odd.jsonl'",
        "foreign_key",
        "of quarantine points at a import_file",
    ),
    Plant(
        "import_file.kind",
        file("main/odd.jsonl", "kind = 'x'"),
        "rule",
        "import /imports/main/odd.jsonl breaks its rule import_file_kind_known",
    ),
    Plant(
        "import_file.state",
        file("main/odd.jsonl", "state = 'x'"),
        "rule",
        "import /imports/main/odd.jsonl breaks its rule import_file_state_known",
    ),
    Plant(
        "import_file.session_no",
        file("main/odd.jsonl", f"session_no = {no('import-torn')}"),
        "source",
        "the receipt of /imports/main/odd.jsonl",
        "import-torn",
    ),
    Plant(
        "import_file.session_no",
        file("main/odd.jsonl", "session_no = NULL"),
        "source",
        "the receipt of /imports/main/odd.jsonl counts",
    ),
    Plant(
        "import_file.bytes",
        file("main/odd.jsonl", "bytes = bytes + 1"),
        "source",
        "the receipt of /imports/main/odd.jsonl counts",
        "import-odd",
    ),
    Plant(
        "import_file.lines",
        file("main/odd.jsonl", "lines = lines + 1"),
        "source",
        "counts 7 lines, but there are 6",
        "import-odd",
    ),
    Plant(
        "import_file.entries",
        file("main/clean.jsonl", "entries = entries - 1"),
        "source",
        "the receipt of /imports/main/clean.jsonl counts",
        "import-clean",
    ),
    Plant(
        "import_file.entries",
        file("main/clean.jsonl", "entries = entries + 1"),
        "source",
        "the last seq of its session is 2",
        "import-clean",
    ),
    Plant(
        "import_file.quarantined",
        file("main/odd.jsonl", "quarantined = 2"),
        "source",
        "counts 2 quarantined lines, but there are 3",
        "import-odd",
    ),
    Plant(
        "import_file.sha256",
        file("main/odd.jsonl", "sha256 = replace(sha256, '0', '1')"),
        "source",
        "has another hash",
        "import-odd",
    ),
    Plant(
        "import_file.sha256",
        file("main/odd.jsonl", "sha256 = NULL"),
        "source",
        "has no hash",
        "import-odd",
    ),
    Plant(
        "import_file.sha256",
        file("main/clean.jsonl.link", "sha256 = 'x'"),
        "source",
        "the receipt of /imports/main/clean.jsonl.link has another hash",
        "import-clean",
    ),
    Plant(
        "import_file.final_newline",
        file("main/clean.jsonl", "final_newline = 0"),
        "source",
        "counts",
        "import-clean",
    ),
    Plant(
        "import_file.final_newline",
        file("main/odd.jsonl", "final_newline = 1"),
        "source",
        "says that it ends in a line end",
        "import-odd",
    ),
    Plant(
        "import_file.content",
        file("main/sessions.json", "content = NULL"),
        "source",
        "the receipt of /imports/main/sessions.json has no content",
    ),
    Plant(
        "import_file.content",
        file("main/sessions.json", "content = CAST(content || x'20' AS BLOB)"),
        "source",
        "sessions.json counts",
    ),
    # -- quarantine
    Plant(
        "quarantine.import_file_no quarantine.line",
        "DELETE FROM quarantine WHERE line = 3 AND import_file_no = "
        "(SELECT import_file_no FROM import_file WHERE name = 'main/odd.jsonl')",
        "source",
        "counts 3 quarantined lines, but there are 2",
        "import-odd",
    ),
    Plant(
        "quarantine.line",
        piece("main/odd.jsonl", 3, "line = 2"),
        "source",
        "is said to be of line 2, but it is of line 3",
        "import-odd",
    ),
    Plant(
        "quarantine.byte_offset",
        piece("main/odd.jsonl", 3, "byte_offset = byte_offset + 1"),
        "source",
        "lies at byte",
        "import-odd",
    ),
    Plant(
        "quarantine.after_seq",
        piece("main/odd.jsonl", 3, "after_seq = 0"),
        "source",
        "has another hash",
        "import-odd",
    ),
    Plant(
        "quarantine.reason",
        piece(
            "main/odd.jsonl",
            3,
            "reason = 'bytes that arrived behind an entry which had been imported without its "
            "line end'",
        ),
        "source",
        "an export would write",
        "import-odd",
    ),
    Plant(
        "quarantine.severity",
        piece("main/odd.jsonl", 3, "severity = 'blank'"),
        "source",
        "is called blank, but it is not blank",
        "import-odd",
    ),
    Plant(
        "quarantine.content",
        piece("main/odd.jsonl", 3, "content = x'4E4F54204A534F4E0A'"),
        "source",
        "has another hash",
        "import-odd",
    ),
    Plant(
        "quarantine.entry_id quarantine.entry_seq",
        piece("main/odd.jsonl", 3, "severity = 'early'"),
        "source",
        "neither waits for its parent nor is an entry",
        "import-odd",
    ),
    # -- lane, turn
    Plant("lane.lane", "DELETE FROM lane WHERE lane = 'resume'", "lane foreign_key", "'resume'"),
    Plant(
        "lane.concurrency",
        "UPDATE lane SET concurrency = 0 WHERE lane = 'slow'",
        "rule",
        "lane slow breaks its rule",
    ),
    Plant(
        "lane.settings",
        "UPDATE lane SET settings = '{' WHERE lane = 'slow'",
        "rule",
        "lane slow breaks its rule",
    ),
    Plant(
        "lane.dropped_at_ms",
        "UPDATE lane SET dropped_at_ms = 1 WHERE lane = 'slow'",
        "lane",
        "its lane 'slow' was dropped",
    ),
    Plant(
        "turn.turn_no",
        "DELETE FROM turn WHERE turn_no = (SELECT turn_no FROM inbox WHERE event_id = 'running')",
        "inbox queue",
        "is claimed, but its turn",
        "running",
    ),
    Plant(
        "turn.session_no",
        turn("done-old", f"session_no = {no('done-old-too')}"),
        "inbox turn outbox",
        "is one of another session",
    ),
    Plant("turn.lane", turn("running", "lane = 'resume'"), "turn", "a message in lane", "running"),
    Plant("turn.kind", turn("running", "kind = 'resume'"), "turn", "is a resume in", "running"),
    Plant(
        "turn.state",
        turn("done-old", "state = 'failed'"),
        "unanswered outbox",
        "its turn 1 is failed",
        "done-old",
    ),
    Plant(
        "turn.state turn.finished_at_ms",
        turn("done-old", "finished_at_ms = NULL"),
        "rule",
        "breaks its rule turn_finished_when_not_running",
    ),
    Plant(
        "turn.inbox_no", turn("done", "inbox_no = inbox_no + 1"), "inbox turn", "worked on", "done"
    ),
    Plant(
        "turn.attempt",
        turn("running", "attempt = attempt + 1"),
        "inbox",
        "its turn was number 2",
        "running",
    ),
    Plant(
        "turn.instance_no",
        turn("running", "instance_no = 9999"),
        "foreign_key",
        "of turn points at a instance",
    ),
    Plant(
        "turn.expires_at_ms turn.deadline_ms",
        turn("running", "expires_at_ms = deadline_ms + 1"),
        "turn",
        "runs past its deadline",
        "running",
    ),
    # -- inbox
    Plant(
        "inbox.inbox_no",
        "DELETE FROM inbox WHERE event_id = 'running'",
        "turn",
        "is not there",
        "running",
    ),
    Plant(
        "inbox.session_no",
        inbox("running", f"session_no = {no('silent')}"),
        "inbox turn",
        "another session",
    ),
    Plant(
        "inbox.lane",
        inbox("slow-next", "lane = 'x'"),
        "foreign_key",
        "of inbox points at a lane",
    ),
    Plant(
        "inbox.state",
        inbox("running", "state = 'queued'"),
        "inbox turn",
        "is queued",
        "running",
    ),
    Plant("inbox.state", inbox("cut", "state = 'x'"), "rule inbox unanswered", "inbox_state_known"),
    Plant(
        "inbox.waits", inbox("slow-next", "waits = 1"), "queue", "and there is none", "slow-session"
    ),
    Plant(
        "inbox.attempts",
        inbox("running", "attempts = attempts + 1"),
        "inbox",
        "it counts 2 attempts",
        "running",
    ),
    Plant(
        "inbox.stops", inbox("running", "stops = 5"), "inbox", "5 were stopped in order", "running"
    ),
    Plant(
        "inbox.turn_no",
        inbox("cut", "turn_no = (SELECT turn_no FROM inbox WHERE event_id = 'cut-too')"),
        "inbox",
        "worked on item",
        "cut",
    ),
    Plant(
        "inbox.entry_no",
        inbox("running", "entry_no = NULL"),
        "inbox rule",
        "no entry",
        "running",
    ),
    Plant("inbox.payload", inbox("slow-next", "payload = NULL"), "rule", "inbox_text_is_kept"),
    Plant(
        "inbox.payload",
        inbox("done", "payload = '{}'"),
        "inbox",
        "has its text as well",
        "done",
    ),
    Plant(
        "inbox.entry_no",
        inbox("cut", "entry_no = (SELECT entry_no FROM inbox WHERE event_id = 'cut-too')"),
        "inbox",
        "lies in another session",
        "cut",
    ),
    Plant(
        "inbox.superseded_by",
        inbox("done-old", "superseded_by = inbox_no, told_no = 0"),
        "unanswered",
        "is no later one of its session",
        "done-old",
    ),
    Plant("inbox.told_no", inbox("done", "told_no = NULL"), "unanswered", "no event told", "done"),
    Plant(
        "inbox.told_no",
        inbox("dead", "told_no = NULL"),
        "unanswered rule",
        "no event told its sender",
    ),
    Plant(
        "inbox.lane_before",
        inbox("resuming", "lane_before = 'x'"),
        "inbox",
        "came from lane 'x', which is not there",
        "resuming",
    ),
    Plant(
        "inbox.lane_before",
        inbox("slow-next", "lane_before = 'main'"),
        "inbox",
        "and is no resume",
        "slow-session",
    ),
    Plant(
        "inbox.payload",
        inbox("slow-next", "payload = '{'"),
        "inbox",
        "its text is not JSON",
        "slow-session",
    ),
    Plant("inbox.heard", inbox("running", "heard = 1"), "rule", "inbox_heard_never_runs"),
    Plant(
        "inbox.heard inbox.state inbox.entry_no",
        inbox("cut", "heard = 1, state = 'heard', turn_no = NULL"),
        "inbox turn",
        "it was appended before, or a turn worked on it",
        "cut",
    ),
    Plant(
        "inbox.heard inbox.told_no",
        inbox("dead", "heard = 1, state = 'done', turn_no = NULL"),
        "unanswered inbox",
        "it is not for the agent, and its sender was told of an end",
        "dead",
    ),
    Plant("inbox.details", inbox("slow-next", "details = '{'"), "rule", "inbox_details_object"),
    # -- outbox, channel_pause
    Plant("outbox.details", reply("web:sent", "details = '[]'"), "rule", "outbox_details_object"),
    Plant(
        "outbox.session_no",
        reply("web:sent", f"session_no = {no('failed')}"),
        "outbox",
        "or another session's",
        "failed",
    ),
    Plant(
        "outbox.turn_no",
        reply("web:sent", "turn_no = (SELECT turn_no FROM inbox WHERE event_id = 'dead')"),
        "outbox",
        "its turn",
        "sent",
    ),
    Plant(
        "outbox.target outbox.channel",
        reply("web:sent", "target = 'mail:sent'"),
        "outbox",
        "it waits in channel 'web' for 'mail:sent'",
        "sent",
    ),
    Plant(
        "outbox.state",
        reply("web:sent", "state = 'pending'"),
        "outbox",
        "it has ended",
        "sent",
    ),
    Plant(
        "outbox.attempts outbox.attempts_before",
        reply("web:sent", "attempts_before = attempts + 1"),
        "outbox",
        "2 do not count",
        "sent",
    ),
    Plant(
        "outbox.instance_no",
        reply("web:sending", "instance_no = NULL"),
        "outbox",
        "nobody is sending it",
        "reply-sending",
    ),
    Plant(
        "outbox.expires_at_ms",
        reply("web:sending", "expires_at_ms = NULL"),
        "outbox",
        "nobody is sending it",
        "reply-sending",
    ),
    Plant(
        "outbox.waits",
        reply("web:pending", "waits = 1"),
        "queue",
        "and there is none",
        "done-old",
    ),
    Plant(
        "outbox.finished_at_ms",
        reply("web:sent", "finished_at_ms = NULL"),
        "outbox",
        "it has not ended",
        "sent",
    ),
    Plant(
        "outbox.event_no outbox.consumer",
        reply("web:failed", "consumer = NULL"),
        "rule",
        "breaks its rule outbox_event_and_reader_together",
    ),
    Plant(
        "channel_pause.until_ms channel_pause.begun_at_ms",
        "UPDATE channel_pause SET until_ms = begun_at_ms - 1 WHERE channel = 'irc'",
        "rule",
        "the pause of channel irc breaks its rule",
    ),
    Plant(
        "channel_pause.pauses",
        "UPDATE channel_pause SET pauses = 0 WHERE channel = 'irc'",
        "outbox",
        "channel 'irc' has paused 0 times",
    ),
    Plant(
        "channel_pause.refused_since_ms",
        "UPDATE channel_pause SET refused_since_ms = begun_at_ms + 1 WHERE channel = 'irc'",
        "outbox",
        "channel 'irc' has paused",
    ),
    # -- event, event_cursor
    Plant(
        "event.event_no",
        "DELETE FROM event WHERE event_no = (SELECT told_no FROM inbox WHERE event_id = 'dead')",
        "unanswered",
        "which told its sender, is not there",
        "dead",
    ),
    Plant(
        "event.event_no",
        "UPDATE sqlite_sequence SET seq = seq - 1 WHERE name = 'event'",
        "numbers",
        "the last event has number",
    ),
    Plant(
        "event.kind",
        "UPDATE event SET kind = 'note' "
        "WHERE event_no = (SELECT told_no FROM inbox WHERE event_id = 'dead')",
        "unanswered",
        "is note for user",
        "dead",
    ),
    Plant(
        "event.audience",
        "UPDATE event SET audience = 'operator' "
        "WHERE event_no = (SELECT told_no FROM inbox WHERE event_id = 'dead')",
        "unanswered",
        "for operator about item",
        "dead",
    ),
    Plant(
        "event.session_no",
        f"UPDATE event SET session_no = {no('live')} "
        "WHERE event_no = (SELECT told_no FROM inbox WHERE event_id = 'dead')",
        "unanswered",
        "which is to have told its sender",
        "dead",
    ),
    Plant(
        "event.data",
        "UPDATE event SET data = '{' WHERE event_no = 3",
        "rule event",
        "the data of event 3 are not JSON",
    ),
    Plant(
        "event_cursor.event_no event_cursor.consumer",
        "UPDATE event_cursor SET event_no = 99999 WHERE consumer = 'pager'",
        "event",
        "consumer 'pager' has handled event 99999",
    ),
    # -- archive, archive_chunk
    Plant(
        "archive.archive_no archive.session_no",
        f"DELETE FROM archive WHERE session_no = {no('kept')}",
        "archive foreign_key",
        "its archive is not there",
    ),
    Plant(
        "archive.session_no",
        archive("kept", f"session_no = {no('live')}"),
        "archive",
        "its archive is not there",
    ),
    Plant("archive.state", archive("kept", "state = 'complete'"), "archive", "is complete", "kept"),
    Plant(
        "archive.encoding",
        archive("kept", "encoding = 'zlib'"),
        "archive",
        "cannot be decompressed",
        "kept",
    ),
    Plant(
        "archive.finished_at_ms",
        archive("kept", "finished_at_ms = NULL"),
        "archive",
        "it is not finished",
        "kept",
    ),
    Plant("archive.rows", archive("kept", "rows = rows + 1"), "archive", "and holds", "kept"),
    Plant(
        "archive.bytes_stored",
        archive("kept", "bytes_stored = bytes_stored + 1"),
        "archive",
        "bytes and holds",
        "kept",
    ),
    Plant(
        "archive.session_keys",
        archive("kept", "session_keys = '{'"),
        "archive",
        "the list of keys",
        "kept",
    ),
]
for _column, _value, _says in (
    ("archive_no", "9999", "its archive counts"),
    ("chunk_no", "chunk_no + 50", "of its archive is not there"),
    ("what", "'event'", "which is no table that is archived"),
    ("rows", "rows + 1", "rows"),
    ("sha256", "'x'", "its hash differs"),
    ("content", "x'00'", "cannot be decompressed"),
):
    PLANTS.append(
        Plant(
            f"archive_chunk.{_column}",
            f"UPDATE archive_chunk SET {_column} = {_value} WHERE chunk_no = 2 AND archive_no = "
            f"(SELECT archive_no FROM archive WHERE session_no = {no('kept')})",
            "archive foreign_key",
            _says,
            "kept",
        )
    )
# The schema itself, and what an index says of a table.
PLANTS += [
    Plant("", "DROP INDEX entry_by_idempotency_key", "schema", "entry_by_idempotency_key is not"),
    Plant("", "DROP VIEW stuck", "schema", "the view stuck is not there"),
    Plant(
        "", "ALTER TABLE event_cursor ADD COLUMN more INTEGER", "schema", "event_cursor is not as"
    ),
    Plant("", "CREATE TABLE more (x)", "schema", "the table more is none"),
    Plant(
        "",
        "CREATE TRIGGER sly AFTER INSERT ON entry BEGIN DELETE FROM event; END",
        "schema",
        "the trigger sly is none",
    ),
    Plant("", "PRAGMA application_id = 7", "schema", "its application_id is 7"),
    Plant("", "PRAGMA user_version = 3", "schema", "its user_version is 3"),
    Plant(
        "",
        hidden("session_by_update", session("live", "updated_at_ms = updated_at_ms + 1")),
        "file",
        "missing from index session_by_update",
    ),
    Plant(
        "",
        hidden("entry_by_id", entry("live", 17, "entry_id = 'x'")),
        "file payload parent",
        "missing from index entry_by_id",
    ),
]

HISTORY = "it tells what was then, and nothing else records it"
CLOCK = "the clock only labels, and nothing else records that moment"
CHOICE = "it is a choice of the application's or an operator's, and any value is right"
WORKER = "the id is the worker's own"
CHANNEL = "only the channel knows it"
INDEX = "an index for a search has plants of its own (tests/transcript/test_search.py)"
NOT_KNOWABLE = {
    "search_state.state_no": INDEX,
    "search_state.built_at_ms": CLOCK,
    "search_state.purging": INDEX,
    "search_session.session_no": INDEX,
    "session.search_behind": INDEX,
    "search_session.after_no": INDEX,
    "search_session.indexed_no": INDEX,
    "instance.host": HISTORY,
    "instance.boot_id": HISTORY,
    "instance.pid": HISTORY,
    "instance.pid_started": HISTORY,
    "instance.program": HISTORY,
    "instance.opened_at_ms": CLOCK,
    "instance.draining_at_ms": CLOCK,
    "instance.database_file": "only a process that holds the lock compares it",
    "instance.lock_file": "only a process that holds the lock compares it",
    "session.agent_id": "the key that gave it may have been bound elsewhere since",
    "session.updated_at_ms": CLOCK,
    "session.pinned_at_ms": CHOICE,
    "binding.bound_at_ms": CLOCK,
    "foreign_id.namespace": "only the program that gave it knows it",
    "foreign_id.external_id": "only the program that gave it knows it",
    "foreign_id.named_at_ms": CLOCK,
    "session_details.revision": "it only counts, and nothing else records how often",
    "session_details.changed_at_ms": CLOCK,
    "named_details.details_no": "it is a number, and nothing refers to it",
    "named_details.namespace": "only the program that gave it knows it",
    "named_details.name": "only the program that gave it knows it",
    "named_details.revision": "it only counts, and nothing else records how often",
    "named_details.changed_at_ms": CLOCK,
    "entry.appended_at_ms": "an import and a clock that was set leave any time",
    "compaction.compaction_id": "it is a name, and nothing derives it",
    "compaction.trigger": CHOICE,
    "compaction.begun_at_ms": CLOCK,
    "compaction.reason": HISTORY,
    "compaction.summary": "a summary that did not become an entry is nowhere else",
    "compaction.threshold_tokens": CHOICE,
    "import_file.path": "the file may have been moved or deleted since",
    "import_file.name": "the file may have been moved or deleted since",
    "import_file.agent_id": "it is the folder's at the time of the import",
    "import_file.inode": "the file may have been moved or deleted since",
    "import_file.imported_at_ms": CLOCK,
    "import_file.note": HISTORY,
    "import_file.head_seq": "it is of the time while early lines are placed",
    "import_file.head_byte": "it is of the time while early lines wait",
    "import_file.cursor_id": "it is of the time while early lines wait",
    "import_file.compared_sha256": "the file may have been moved or deleted since",
    "quarantine.waits_for": "the parent of a line is not in the file, or not yet",
    "quarantine.parent_seq": "it is of the time until a line is placed",
    "lane.priority": CHOICE,
    "lane.people": CHOICE,
    "lane.paused_at_ms": CLOCK,
    "turn.operation": "the turn says what it does",
    "turn.progress": "the handler says what it noted",
    "turn.claim_id": WORKER,
    "turn.started_at_ms": CLOCK,
    "turn.renewed_at_ms": CLOCK,
    "turn.incomplete": "the turn says how it ended",
    "turn.reason": HISTORY,
    "inbox.channel": CHANNEL,
    "inbox.event_id": CHANNEL,
    "inbox.session_key": "a key may be bound to another session since",
    "inbox.digest": "it is of the text without what was said in other forms",
    "inbox.edited": CHANNEL,
    "inbox.edit_of": "the message that it edits may be pruned",
    "inbox.by_person": CHANNEL,
    "inbox.accepted_at_ms": CLOCK,
    "inbox.available_at_ms": CLOCK,
    "inbox.queued_at_ms": CLOCK,
    "inbox.restored": "only the restore of a backup knows it",
    "inbox.delayed": "the event that told its sender may be pruned",
    "inbox.timeout_ms": CHOICE,
    "inbox.reason": HISTORY,
    "outbox.outbox_no": "a reply that is not there was sent and pruned, or never written",
    "outbox.created_at_ms": CLOCK,
    "outbox.available_at_ms": CLOCK,
    "outbox.asked_at_ms": CLOCK,
    "outbox.receipt": CHANNEL,
    "outbox.claim_id": WORKER,
    "outbox.reason": HISTORY,
    "outbox.payload": "a channel's own text, which is nowhere else",
    "channel_pause.channel": CHANNEL,
    "channel_pause.reason": CHANNEL,
    "event.at_ms": CLOCK,
    "event.text": "it is for people, and nothing derives it",
    "archive.reason": HISTORY,
    "archive.begun_at_ms": CLOCK,
    "archive.bytes": "the size before compression is for people",
}


def world() -> apsw.Connection:
    """Return the populated world."""
    connection = apsw.Connection(":memory:")
    connection.deserialize("main", template())
    return connection


def verified(connection: apsw.Connection) -> VerifyReport:
    """Verify a database, as `verify.run` does."""
    walk = verify.Walk(None, deep=True)
    steps = walk.steps()
    failure: Exception | None = None
    while True:
        try:
            step = steps.throw(failure) if failure is not None else next(steps)
        except StopIteration:
            return walk.report()
        failure = None
        try:
            step(Snapshot(connection))
        except Exception as error:  # noqa: BLE001  # as in `run`: it is a finding
            failure = error


def plant(connection: apsw.Connection, sql: str) -> None:
    connection.execute("PRAGMA foreign_keys = off; PRAGMA ignore_check_constraints = on").fetchall()
    connection.execute(sql).fetchall()
    connection.execute("PRAGMA ignore_check_constraints = off").fetchall()


def names() -> Iterator[str]:
    for planted in PLANTS:
        yield f"{planted.columns or 'schema'}: {planted.says}"


def test_an_undamaged_world_has_no_finding() -> None:
    with closing(world()) as connection:
        assert verified(connection).findings == ()


@pytest.mark.parametrize("planted", PLANTS, ids=names())
def test_a_planted_corruption_is_found_and_named(planted: Plant) -> None:
    with closing(world()) as connection:
        plant(connection, planted.sql)
        if planted.columns:
            assert connection.total_changes() > 0, "nothing was planted"
        found = verified(connection).findings
    assert {finding.check for finding in found} <= set(planted.check.split()), found
    assert any(planted.says in finding.message for finding in found), found
    assert not [finding for finding in found if finding.severity == "unfinished"]
    if planted.session is not None:
        named = {finding.session_id for finding in found if finding.check != "foreign_key"}
        assert named <= {planted.session, None}, found
        assert planted.session in named, found


def test_every_column_has_a_plant_or_a_reason_why_it_cannot_be_known() -> None:
    planted = {column for one in PLANTS for column in one.columns.split()}
    columns = {f"{table}.{column}" for table, found in tables().items() for column in found.columns}
    assert planted | NOT_KNOWABLE.keys() == columns
    assert not planted & NOT_KNOWABLE.keys()


def test_there_are_at_least_71_kinds() -> None:
    kinds = {(planted.columns, planted.sql) for planted in PLANTS}
    assert len(kinds) == len(PLANTS) >= 71

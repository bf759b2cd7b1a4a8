"""Builds that break one promise each, for the tests of the harness.

A build is broken in this process only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from sessiondb.backend import ReadTx, Row, Tx
from sessiondb.gateway import changes, recovery, stopping, turns
from sessiondb.gateway.recovery import Recovered
from sessiondb.sqlite import schema, transaction
from sessiondb.sqlite.connection import drain
from sessiondb.sqlite.transaction import Prepared
from sessiondb.sqlite.writer import Batch, Writer

# Set by a process that has passed on what it was told. A build that tells too early
# waits for that, so that its lie is heard.
spoke = threading.Event()
HEARD_S_MAX = 5.0


def break_build(name: str) -> None:
    """Break this process's build in the way that is named. Nothing for no name."""
    if name:
        BREAKAGES[name]()


def acknowledges_before_commit() -> None:
    """Callers are told that their write is durable, and then it is committed."""
    commit = Writer._commit

    def _commit(self: Writer, connection: Any, batch: Batch) -> None:
        early = [request for request in batch.succeeded if request.op == "append"]
        spoke.clear()
        self._deliver(early)
        if early:
            spoke.wait(HEARD_S_MAX)
        commit(self, connection, batch)

    Writer._commit = _commit  # type: ignore[method-assign]


def works_on_in_a_turn_that_has_ended() -> None:
    """A lane does not see that somebody else has ended its turn: its handler comes to its end.

    As when the handler is quicker than the lane's look. Only the fence is left then.
    """
    stopping.ended = lambda _tx, _numbers: []


def completes_without_looking_at_its_fence() -> None:
    """A turn writes its end, its entries and its replies whoever has taken it over."""
    works_on_in_a_turn_that_has_ended()

    def require_running(tx: ReadTx, turn_no: int) -> Row:
        return tx.one("turns.get", turn_no=turn_no)

    def finish(
        tx: Tx, turn: Row, state: str, reason: str | None, *, incomplete: bool = False
    ) -> None:
        tx.run(
            "turns.finish",
            turn_no=turn.turn_no,
            state=state,
            now_ms=tx.now_ms,
            incomplete=int(incomplete),
            reason=reason,
        )

    turns.require_running = require_running  # type: ignore[assignment]
    # The second fence: the message is not claimed by this turn any more.
    changes.require_one = lambda _changed, _what: None
    turns._finish = finish  # type: ignore[assignment]


def buries_the_dead_without_releasing_their_claims() -> None:
    """`recover` says that a dead process has been dealt with, and leaves its turns running."""

    def release(
        tx: Tx, instance_no: int, holder: str, so_far: Recovered | None = None
    ) -> tuple[Recovered, bool]:
        tx.run("recovery.close_dead_instance", instance_no=instance_no, now_ms=tx.now_ms)
        return Recovered(instances=1), True

    recovery.release = release  # type: ignore[assignment]


def migrates_without_a_transaction() -> None:
    """A migration's statements are committed one by one."""

    def unprotected(connection: Any, script: str) -> list[Any]:
        return [] if script in ("BEGIN IMMEDIATE", "COMMIT") else drain(connection, script)

    schema.drain = unprotected  # type: ignore[attr-defined]


def miscounting() -> Prepared:
    """Return a broken statement that saves a session's pointers.

    An append raises its count of entries by one too many.
    """
    save = transaction.statements()["transcript.save_state"]
    counted = save.sql.replace(
        "last_seq = :last_seq", "last_seq = :last_seq + (:last_seq > last_seq)"
    )
    assert counted != save.sql
    return Prepared(save.name, counted)


def counts_an_append_twice() -> None:
    """The count in the session's row runs ahead.

    An entry has the number that its caller was told.
    """
    transaction.statements().update({"transcript.save_state": miscounting()})


BREAKAGES: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (
        acknowledges_before_commit,
        works_on_in_a_turn_that_has_ended,
        completes_without_looking_at_its_fence,
        buries_the_dead_without_releasing_their_claims,
        migrates_without_a_transaction,
        counts_an_append_twice,
    )
}

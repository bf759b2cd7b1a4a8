"""The one connection that writes: opened, held to its files, opened again, closed.

It belongs to the writer thread (`writer.py`), and so does everything here.

What it promises
* The process is registered before the first request, and signs off after the last one. Its
  byte in the lock file is held in between (`instance.py`).
* No transaction begins in a file that has lost its name. What was committed into one is
  reported to the writer, before it acknowledges anything (`held_files.py`).
* Each WAL begins with a name of its own, which says to which database it belongs
  (`wal_link.py`).
* After an I/O error the connection is closed, and opened again to the same files only, with
  growing pauses. `live` is None meanwhile.

What survives a crash: the registration, which `recover` closes, and every commit.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from sessiondb.clock import monotonic
from sessiondb.errors import SessionDBError, StoreBusy
from sessiondb.limits import Limits

from . import wal_link
from .alive_file import SUFFIX, Hold
from .batch import WriterStats
from .checkpoint import Checkpointer, truncate
from .connection import Durability, close_quietly, connect_writer, log, when_unlocked
from .held_files import HeldFiles, changed_while_open
from .instance import hold_again, register, sign_off
from .schema import create_or_migrate, is_new, refuse_newer
from .transaction import WriteTransaction

# Pauses between attempts to open a failed connection again.
REOPEN_PAUSE_S = (0.05, 5.0)

Refusal = Callable[[str], SessionDBError]
"""Makes the error of an operation that is refused."""


class WriteConnection:
    """The connection of one writer thread, and what the thread knows about its files."""

    def __init__(
        self,
        path: str,
        limits: Limits,
        durability: Durability,
        program: str,
        stats: WriterStats,
        *,
        now_ms: Callable[[], int],
        on_loss: Callable[[apsw.Error], None],
        without_lock: bool,
    ) -> None:
        self.path = path
        self.limits = limits
        self.checkpoints = Checkpointer(limits, path)
        self.live: apsw.Connection | None = None
        """None before it is opened, and from an I/O error until it is opened again."""
        self.files = HeldFiles(path, ())
        self.error = ""
        """Why it is not open, for messages."""
        self._durability = durability
        self._program = program
        self._stats = stats
        self._now_ms = now_ms
        self._on_loss = on_loss
        """Called before a failed connection is closed."""
        self._without_lock = without_lock
        self._hold: Hold | None = None
        self._wal_is_saved = False
        self._names_wal = False  # whether the transaction at hand names its WAL
        self._name_is_due = False  # whether the WAL has begun without its name
        self._reopen_at = 0.0
        self._reopen_pause_s = 0.0  # the first attempt after a good commit is immediate
        self._data_version = 0

    @property
    def instance_no(self) -> int:
        """This process's row in `instance`. 0 before it is registered."""
        return 0 if self._hold is None else self._hold.instance_no

    # -- opened and closed -------------------------------------------------------------

    def start(self) -> None:
        """Open the database. Create or migrate it, register this process, fold the WAL."""
        self._open(HeldFiles.database(self.path))
        self._register()
        self._fold_at_start()

    def give_up(self) -> None:
        """Close a database whose opening failed."""
        close_quietly(self.live)
        self.live = None
        self._release()

    def end(self) -> None:
        """Sign off, fold the WAL, close."""
        try:
            self._sign_off_and_close()
        finally:
            self._release()

    def _open(self, database: HeldFiles) -> None:
        timeout_s = self.limits.busy_timeout_s
        connection = connect_writer(
            self.path,
            self._durability,
            timeout_s,
            is_new=lambda opened: is_new(opened, self.path),
            create=lambda opened: create_or_migrate(opened, self.path),
        )
        try:
            when_unlocked(
                lambda: create_or_migrate(connection, self.path),
                timeout_s=timeout_s,
                what="setting up",
                path=self.path,
            )
            # The hook also switches SQLite's automatic checkpoints off: they are such a hook.
            connection.set_wal_hook(self.checkpoints.on_commit)
            self._data_version = int(connection.pragma("data_version"))
            self.files = database.with_wal()
        except BaseException:
            database.close(connection)
            raise
        self.live = connection

    def _register(self) -> None:
        """Insert this process's row, before any request: leases and jobs will name it."""
        assert self.live is not None
        self._hold = register(
            self.live,
            self.path,
            self._program,
            now_ms=self._now_ms,
            timeout_s=self.limits.busy_timeout_s,
            without_lock=self._without_lock,
        )

    def _fold_at_start(self) -> None:
        """Fold what is in the WAL, so that the file alone lacks nothing that came before.

        A large WAL waits for a pause: opening takes no longer because of it.
        """
        assert self.live is not None
        if self.checkpoints.wal_bytes < self.limits.wal_bytes_max:
            self.checkpoints.fold(self.live)

    def _release(self) -> None:
        """Give up this process's byte: its registration is closed, or others will close it."""
        if self._hold is not None:
            self._hold.release()

    def _sign_off_and_close(self) -> None:
        connection = self.live
        if connection is None:
            self._stats.sign_off_error = f"{self.path}: it failed, and could not be opened again"
            return
        if self.files.changed() is None:
            self._sign_off(connection)
            truncate(connection)
        self.files.spare_others(connection)
        close_quietly(connection)
        self.live = None

    def _sign_off(self, connection: apsw.Connection) -> None:
        try:
            sign_off(
                connection,
                self.path,
                self.instance_no,
                now_ms=self._now_ms,
                timeout_s=self.limits.busy_timeout_s,
            )
        except (SessionDBError, apsw.Error) as error:
            # The row then looks like that of a process that died, which recover() handles:
            # nothing is lost.
            self._stats.sign_off_error = f"could not sign off from {self.path}: {error}"
            log.warning("could not sign off from %s: %s", self.path, error)

    # -- its files ---------------------------------------------------------------------

    def keep_alive(self, connection: apsw.Connection) -> None:
        """Lock this process's byte anew when the lock file was moved, deleted or replaced.

        Before each transaction, so before anything is claimed. What cannot be done is tried
        again before the next one. Meanwhile others cannot tell whether this process lives,
        and leave its work to its leases, as they do from the moment the file has gone.
        """
        assert self._hold is not None
        if self._hold.is_named():
            return
        try:
            self._hold = hold_again(connection, self.path, self._hold, now_ms=self._now_ms)
        except StoreBusy:
            return
        except (SessionDBError, apsw.Error) as error:
            log.error("%s: its lock file was moved or deleted: %s", self.path, error)
        else:
            log.warning(
                "%s: its lock file was moved or deleted while it was in use. It was made anew",
                self.path + SUFFIX,
            )

    def refusal(self) -> Refusal | None:
        """Return what refuses the next transaction. None: the files still have their names."""
        name = self.files.changed()
        if name is None:
            return None
        effect = "Nothing was changed."
        if self._save_nameless_wal():
            effect += " What the -wal held is in the database now."
        return lambda op: changed_while_open(name, op, effect)

    def lost_in(self) -> str | None:
        """Return the name of the file that the last commit is perhaps not in. None: it is there.

        Only what is asked about here, after its COMMIT, may be acknowledged.
        """
        name = self.files.changed()
        return None if name is None or self._save_nameless_wal() else name

    def _save_nameless_wal(self) -> bool:
        """Fold a -wal that was deleted into the database, as long as this process has it open.

        It holds commits that were acknowledged, and is gone when this process ends.
        Return whether all of it is in the database.
        """
        if not self._wal_is_saved and self.live is not None:
            if not self.files.may_save_wal():
                return False
            self._wal_is_saved = self.checkpoints.fold(self.live)
            log.error(
                "%s-wal was deleted while it was open. What it held is %s the database",
                self.path,
                "now in" if self._wal_is_saved else "NOT in",
            )
        return self._wal_is_saved

    # -- the name of its WAL -----------------------------------------------------------

    def foresee_wal(self, connection: apsw.Connection) -> None:
        """Find out whether the transaction that begins next will be the first of a new WAL."""
        self._names_wal = self._name_is_due or self.checkpoints.starts_over(connection)

    def has_waited(self) -> None:
        """Expect a new WAL: another process had the write lock, and may have folded the old one."""
        self._names_wal = True

    def name_wal(self, connection: apsw.Connection) -> None:
        """Name the WAL that the transaction at hand begins, if it may begin one."""
        if self._names_wal:
            wal_link.renew(WriteTransaction(connection, 0, self.instance_no))

    def note_commit(self, connection: apsw.Connection) -> None:
        """Note a good commit. Name the WAL that it has begun against expectation."""
        if self._names_wal:
            self._name_is_due = False
        elif self.checkpoints.has_started_over(connection):
            self._name_alone(connection)
        self._reopen_pause_s = 0.0

    def before_step(self) -> None:
        """Name the WAL that a maintenance task will begin with its next step."""
        if self.live is not None and (self._name_is_due or self.checkpoints.starts_over(self.live)):
            self._name_alone(self.live)

    def after_step(self) -> None:
        """Name the WAL that a maintenance task has begun against expectation."""
        if self.live is not None and (
            self._name_is_due or self.checkpoints.has_started_over(self.live)
        ):
            self._name_alone(self.live)

    def _name_alone(self, connection: apsw.Connection) -> None:
        """Name a WAL that another process's checkpoint let begin before its name was in it."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            refuse_newer(connection, self.path)
            wal_link.renew(WriteTransaction(connection, 0, self.instance_no))
            connection.execute("COMMIT")
            self._name_is_due = False
        except (SessionDBError, apsw.Error) as error:
            # The commit before it is durable, whatever becomes of this one.
            log.info("%s: its WAL is named by the next commit: %s", self.path, error)
            self.roll_back(connection)
            self._name_is_due = True

    # -- when it fails -----------------------------------------------------------------

    def roll_back(self, connection: apsw.Connection) -> None:
        """Roll back the transaction at hand, if SQLite has not done so."""
        self._stats.rollbacks += 1
        if not connection.in_transaction:
            return
        try:
            connection.execute("ROLLBACK")
        except apsw.Error as error:
            self.drop(error)

    def drop(self, error: apsw.Error) -> None:
        """Close a failed connection. It is opened again before the next transaction."""
        if self.live is None:
            return
        log.error("%s: %s. The connection is opened again", self.path, error)
        self._on_loss(error)
        self.files.spare_others(self.live)
        self.files = self.files.closed()  # before the -wal may go with the connection
        close_quietly(self.live)
        self.live = None
        self.error = str(error)
        self._schedule_reopening()

    def _schedule_reopening(self) -> None:
        """Set the next attempt: at once, then with pauses that double until a commit."""
        self._reopen_at = monotonic() + self._reopen_pause_s
        self._reopen_pause_s = min(
            REOPEN_PAUSE_S[1], max(REOPEN_PAUSE_S[0], self._reopen_pause_s * 2)
        )

    def reopen(self) -> Refusal | None:
        """Open the failed connection again. Return what refuses operations if that failed.

        Critical section "opening again". Lock: none, because a file that is closed here has
        none. Invariant: a connection is only ever opened to the file that was open before.
        Another file that has come to the name meanwhile is not opened: the volume may be
        gone, and an empty folder may be in its place.
        """
        name = self.files.changed_since_closed()
        if name is not None:
            return lambda op: changed_while_open(name, op, "Nothing was changed.")
        if monotonic() >= self._reopen_at:
            try:
                self._open(self.files.without_wal())
            except (SessionDBError, apsw.Error) as error:
                self.error = str(error)
                self._schedule_reopening()
                log.error("%s cannot be opened again: %s", self.path, error)
            else:
                self._stats.reopened += 1
                self._name_is_due = True  # nobody has looked at the WAL that this one writes to
                return None
        retry_after_ms = max(1, round((self._reopen_at - monotonic()) * 1000))
        return lambda op: StoreBusy(
            f"{op}: {self.path} failed and cannot be opened again yet ({self.error}). "
            f"Nothing was changed. Retry in {retry_after_ms} ms, and check the disk.",
            retry_after_ms=retry_after_ms,
        )

    # -- other processes ---------------------------------------------------------------

    def others_committed(self) -> bool:
        """Return whether another process has committed since the last call."""
        if self.live is None:
            return False
        try:
            now = int(self.live.pragma("data_version"))
        except apsw.Error as error:
            log.info("the data version of %s cannot be read: %s", self.path, error)
            return False
        moved, self._data_version = now != self._data_version, now
        return moved

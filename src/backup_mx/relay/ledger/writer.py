"""The writer's side of the ledger: the agent's alone, one call at a time."""

from __future__ import annotations

import gc
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from backup_mx.errors import MachineError
from backup_mx.relay.ledger import journal, reconcile, schema, sums, veil
from backup_mx.relay.ledger.book import add
from backup_mx.relay.ledger.clerk import Clerk
from backup_mx.relay.ledger.deeds import Deeds
from backup_mx.relay.ledger.rows import Due, Progress
from backup_mx.relay.log import follow, maillog
from backup_mx.relay.queue import postfix
from backup_mx.relay.queue.spool import Entry
from backup_mx.relay.state import Count, Primary, Snapshot, Sums

_Answer = TypeVar("_Answer")


class Ledger:
    """What became of every message. Each method raises MachineError when the ledger fails it.

    A ledger that turns out to be broken is moved aside and begun anew from the log, and catch_up
    says so; what else was going on is lost with it.
    """

    lost = ""
    """Why this one is of no use any more: it broke, and none could be begun. Open another."""

    def __init__(
        self,
        path: Path,
        log: Path,
        *,
        hash_addresses: bool,
        clock: Callable[[], float],
        lost: str,
    ) -> None:
        self._path = path
        self._clock = clock
        self._hash_addresses = hash_addresses
        self._follower = follow.Follower(log, clock)
        self._told: list[str] = []
        self._begin(*schema.writable(path), lost)

    @classmethod
    def open(
        cls,
        path: Path,
        log: Path,
        *,
        hash_addresses: bool = False,
        clock: Callable[[], float] = time.time,
        lost: str = "",
    ) -> Ledger:
        """Open the ledger at ``path`` of Postfix's log ``log``, making or migrating it.

        lost is what the one before it said when it was. Raises MachineError.
        """
        return cls(path, log, hash_addresses=hash_addresses, clock=clock, lost=lost)

    def _begin(self, database: sqlite3.Connection, told: str, lost: str = "") -> None:
        """Go on with an opened ledger. Raises MachineError; then it is closed again."""
        self._database = database
        self._read_at, self._began, self._known = 0.0, self._clock(), False
        try:
            found = database.execute("SELECT value FROM meta WHERE key = 'position'").fetchone()
            self._clerk = Clerk(database, veil.drawn(database, self._hash_addresses))
            if told := told or (lost if found is None else ""):
                add(database, Counter(renewed=1))
                self._told.append(told)
        except sqlite3.Error as error:
            self.close()
            raise MachineError(f"the ledger {self._path} cannot be opened: {error}") from None
        self._position = follow.Position(**json.loads(found[0])) if found else None

    def close(self) -> None:
        """Close it; nothing is lost without."""
        self._follower.close()
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all of it or nothing."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def _failed(self, error: sqlite3.Error) -> MachineError:
        """Return what to raise; a broken ledger is begun anew, for the next call."""
        if schema.broken(error):
            self.close()
            self.lost = (
                f"the ledger was broken ({error}): it is begun anew, the old one lies beside it"
            )
            self._begin(*schema.writable(self._path, error))
            self.lost = ""
        return MachineError(f"the ledger {self._path} cannot be used: {error}")

    # --- What it learns

    def catch_up(self, lines: int = 5000) -> Progress:
        """Read on in the log, at most so many lines, and keep what they tell.

        Raises MachineError when the log cannot be read.
        """
        now = self._clock()
        try:
            batch = self._follower.read(self._position, lines)
        except OSError as error:
            raise MachineError(f"the mail log cannot be read: {error}") from None
        position = batch.position
        counts = self._keep(batch, position) if position and position != self._position else {}
        # By the last line's time where there is more: a log may grow as fast as it is read.
        known = max(self._read_at, position.stamp if position else 0.0)
        self._read_at = min(now, known) if batch.behind else now
        self._known = self._known or not batch.behind or self._read_at >= self._began
        told, self._told = (*self._told, *([batch.gap] if batch.gap else [])), []
        return Progress(
            read=len(batch.lines),
            behind=batch.behind,
            reached=self._read_at,
            accepted=counts.get("accepted", 0),
            answers=self._clerk.answers if counts else {},
            told=told,
        )

    def _keep(self, batch: follow.Batch, position: follow.Position) -> dict[str, int]:
        parsed = (maillog.parse(line, batch.written) for line in batch.lines)
        with _undisturbed(), self._transaction() as database:
            counts = self._clerk.enter(filter(None, parsed))
            add(database, Counter(lines=len(batch.lines), gaps=int(bool(batch.gap))))
            journal.put(database, "position", json.dumps(asdict(position)))
        self._position = position
        return counts

    def reconcile(self, listing: Iterable[Entry], listed: float) -> int:
        """Compare with a listing of the spool that was begun at ``listed``, seconds since 1970.

        Returns how many messages differ. Read the log to its end (catch_up) before each call; a
        difference counts when two listings, reconcile.GRACE seconds apart, agree on it.
        """
        try:
            reconcile.prepare(self._database)
        except sqlite3.Error as error:
            raise self._failed(error) from None
        with self._transaction() as database:
            reconcile.Auditor(database).audit(listing, listed, self._read_at)
        return self.sums().differences

    def unknown(self, limit: int = 1000) -> list[str]:
        """Return the IDs of messages of which only the spool told: see describe."""
        return self._ask(lambda database: reconcile.unknown(database, limit))

    def describe(self, messages: Iterable[postfix.Message]) -> None:
        """Fill in what the spool says of messages that the log never told of."""
        with self._transaction() as database:
            reconcile.describe(database, messages, veil.stored(database))

    def note_holds(self, holds: Mapping[str, float]) -> None:
        """Keep that retention has put messages on hold, by their IDs, at a time each.

        The log is to tell it as well, where there was room for its lines.
        """
        with self._transaction() as database:
            deeds = Deeds(database)
            for queue_id, moment in holds.items():
                deeds.note_hold(queue_id, moment)

    def prune(self, before: float) -> int:
        """Forget the messages that ended before a time; the sums still count them.

        Returns how many they were. What was begun and never accepted goes with them.
        """
        pruned = 0
        while True:
            with self._transaction() as database:
                found, stale = journal.prune(database, before, self._clock())
            pruned += found
            if not found and not stale:
                return pruned

    # --- What the agent keeps in it

    def keep_snapshot(self, snapshot: Snapshot) -> None:
        """Keep the agent's last look at everything."""
        with self._transaction() as database:
            journal.put(database, "snapshot", snapshot.text)

    def sample(self, snapshot: Snapshot) -> None:
        """Keep a point of the queue's curve; one a minute is kept, later one in a quarter hour."""
        with self._transaction() as database:
            journal.sample(database, snapshot)

    def keep_state(self, primary: Primary) -> None:
        """Keep a primary's state, if it is another one than the last."""
        if self._ask(lambda database: journal.is_news(database, primary)):
            with self._transaction() as database:
                journal.keep_state(database, primary)

    # --- What it knows

    def counts(self) -> tuple[Count, ...]:
        """Return how many messages wait or are held, by reason."""
        return self._ask(sums.counts)

    def shares(self) -> dict[str, tuple[Count, ...]]:
        """Return the same for each domain; see sums.shares."""
        return self._ask(sums.shares)

    def delivered(self) -> dict[str, int]:
        """Return how many messages were delivered for each domain."""
        return self._ask(sums.delivered)

    def sums(self) -> Sums:
        """Return the sum."""
        return self._ask(sums.sums)

    def counters(self) -> dict[str, int]:
        """Return what was counted since the ledger began, by schema.COUNTERS."""
        return self._ask(sums.counters)

    @property
    def known(self) -> bool:
        """Whether all of the log was read that there was when the ledger was opened, or begun.

        Until then what it counts is what was long ago, and no news.
        """
        return self._known

    def due(
        self,
        accepted_before: float,
        queued_before: float,
        limit: int = 1000,
        *,
        up: Mapping[str, float] | None = None,
        but: Collection[str] = (),
    ) -> Due:
        """Return what is old, at most ``limit`` messages of each kind; see rows.Due.

        up says of the domains whose primary is up since when, and but which to leave out: see
        sums.due.
        """
        return self._ask(
            lambda known: sums.due(known, accepted_before, queued_before, limit, up, but)
        )

    def _ask(self, question: Callable[[sqlite3.Connection], _Answer]) -> _Answer:
        try:
            return question(self._database)
        except sqlite3.Error as error:
            raise self._failed(error) from None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the garbage collector from looking through a batch's many values: none is cyclic."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""What the agent does with mail, as small tasks: each returns the seconds until its next turn."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.relay import certificate
from backup_mx.relay.decide import lifetime
from backup_mx.relay.decide.lifetime import HOPELESS, RETENTION, Aged, Orders
from backup_mx.relay.ledger.rows import Aged as Row
from backup_mx.relay.ledger.rows import Due, Filter, Progress
from backup_mx.relay.queue import spool
from backup_mx.relay.root import client, maintenance, protocol
from backup_mx.relay.root.protocol import Result
from backup_mx.relay.state import UP, WAITING
from backup_mx.relay.tasks import policyhosts, recipients, system
from backup_mx.relay.tasks.present import Present, noted
from backup_mx.relay.tasks.threads import aside

GUARDED = Path("/run/backup-mx/guarded")
"""What the guard's timer touches whenever it has run."""
BUSY, QUIET = 0.5, 1.0  # seconds between looks at the log
SOON = 1.0  # seconds to the next round of lifetimes where one is not enough
AGAIN = 15.0  # seconds to the second listing, which a difference needs
RARELY = 3600.0
SHARE = 100.0  # a listing takes at most a hundredth of the time
DAY = 86_400.0
POLICIES = 300.0  # seconds between looks at what the hosts of policies show
log = logging.getLogger("backup_mx.agent")


@dataclass
class Duties:
    """The tasks, over what is known at ``present``; say tells the operator, about what and what."""

    present: Present
    say: Callable[[str, str], None]
    _listings: int = 0
    _hourly: float = field(default=float("-inf"))
    _released: set[str] = field(default_factory=set)
    """The primaries whose mail was let go since the last of a few rounds."""
    _holds: dict[str, float] = field(default_factory=dict)
    """What was put on hold, and when, that the ledger could not be told of yet."""
    _unfit: dict[str, float] = field(default_factory=dict)
    """What could not be requeued, and when (time.monotonic()) that was tried."""

    @noted
    async def follow(self) -> float:
        """Read on in Postfix's log."""
        present = self.present
        try:
            progress = await self._read()
            if progress.read or not (present.figures and present.figures.counters):
                await self._refresh()
        except Exception:
            present.blind = True
            raise
        present.blind = False
        if progress.behind:
            return 0.0
        return BUSY if progress.read or present.waiting else QUIET

    @noted
    async def drain(self) -> float:
        """Flush if that is due."""
        present = self.present
        present.maintenance = maintenance.until()
        waits = any(each.up and each.waiting for each in present.scenes.values())
        if present.draining.edge and present.held_back and not waits:
            await self._release()
        await present.draining.turn(present.scenes)
        return 1.0 if present.waiting or present.draining.edge else 5.0

    @noted
    async def lifetimes(self) -> float:
        """Hold, release and requeue what is due."""
        terms = self.present.terms
        if terms is None or not self.present.walked:
            return 1.0
        now = time.time()
        due = await self.present.books.due(
            now - terms.retention,
            now - lifetime.SHARE * terms.limit,
            {name: it.since for name, it in self.present.owners.items() if it.state == UP},
            limit=lifetime.BATCH,
            but=self._left_out(),
        )
        before, self.present.held_back = self.present.held_back, len(due.held)
        if due.held and not before:
            self.present.wake_walkers()
        orders = lifetime.decide(now, terms, self._aged(due))
        self._released |= self._freed(due, orders)
        done = await aside(partial(_carry_out, orders))
        self._holds |= done.holds
        self._unfit |= dict.fromkeys(done.unfit, time.monotonic())
        await self._tell_of_holds()
        if done.trouble:
            raise done.trouble
        if done.count and lifetime.BATCH in map(len, (due.overdue, due.held, due.expiring)):
            return SOON  # there may be more
        for name in self._released:
            # Postfix would get round to it with its next queue run.
            self.present.draining.rose(name)
        self._released.clear()
        return lifetime.pace(terms)

    @noted
    async def reconcile(self) -> float:
        """Compare the ledger with the spool: at start, once more, then as rarely as it costs."""
        began = time.monotonic()
        differences = await self.present.books.reconcile(self._read)
        spent = time.monotonic() - began
        self._listings += 1
        left = await self.present.books.describe()
        await self._refresh()
        if left or self._listings == 1:
            return AGAIN if self._listings == 1 else 1.0
        if differences:
            log.warning("ledger and spool differ in %d messages", differences)
        return max(5 * 60.0, min(SHARE * spent, RARELY))

    @noted
    async def machine(self) -> float:
        """Look at the disk, and now and then at what hardly ever changes."""
        present = self.present
        # First, since they need nothing: what fails below must not leave them as they were.
        present.guarded = await aside(_guarded)
        present.drifted = await aside(system.drifted)
        present.handshakes = await aside(partial(system.handshakes, present.settings.targets))
        if time.monotonic() - self._hourly > RARELY:
            await self._look_at_what_stays()
            self._hourly = time.monotonic()
        await self._look_at_the_certificate()
        present.version = await aside(system.version)
        if present.limits:
            present.disk = await aside(partial(spool.disk, present.limits.minfree))
        wanted = Filter(older=0.9 * present.settings.retention, fate=WAITING)
        present.at_risk = await present.books.ask(lambda reader: reader.total(wanted))
        return 30.0

    @noted
    async def tables(self) -> float:
        """Fetch the tables of recipients."""
        settings = self.present.settings
        for table in settings.tables:
            work = partial(recipients.update, table, settings.recipients_may_shrink, time.time())
            before, found = self.present.tables.get(table.domain), await aside(work)
            self.present.tables[table.domain] = found
            if found.trouble and (before is None or before.trouble != found.trouble):
                log.warning("recipients of %s: %s", table.domain, found.trouble)
        return float(settings.recipients_every)

    @noted
    async def policies(self) -> float:
        """Look at what the hosts of MTA-STS policies show, which strangers can keep busy."""
        hosts = self.present.settings.policies
        self.present.policies = await aside(partial(policyhosts.look, hosts))
        return POLICIES

    @noted
    async def prune(self) -> float:
        """Forget, once a day, what ended long ago."""
        gone = await self.present.books.prune(time.time() - self.present.settings.ledger_keep)
        if gone:
            log.info("ledger: %d messages that ended long ago are forgotten", gone)
        return DAY

    async def _read(self) -> Progress:
        """Read one piece of the log, and let everybody hear what it told. Raises MachineError."""
        progress = await self.present.books.catch_up()
        for sentence in progress.told:
            log.warning("ledger: %s", sentence)
            self.say("ledger", sentence)
        self.present.heard(progress.answers)
        self.present.took(progress.accepted)
        return progress

    async def _refresh(self) -> None:
        """Take over what the ledger says now. Raises MachineError."""
        present = self.present
        before = present.waiting
        present.figures = await present.books.figures()
        if present.waiting and not before:
            present.wake_walkers()

    async def _release(self) -> None:
        """Release what is on hold, so that all of it goes with one flush; or go on without it."""
        try:
            await self.lifetimes()
        except Exception as error:
            log.warning("flushing without what is on hold: %s", error or type(error).__name__)

    def _left_out(self) -> list[str]:
        """Return what is not tried again before an hour is over: it would fill the next round."""
        before = time.monotonic() - RARELY
        self._unfit = {each: tried for each, tried in self._unfit.items() if tried > before}
        return list(self._unfit)

    async def _tell_of_holds(self) -> None:
        """Tell the ledger, whose log may have no room for it; in vain, the next round does."""
        if self._holds:
            with contextlib.suppress(MachineError):
                await self.present.books.note_holds(dict(self._holds))
                self._holds.clear()

    async def _look_at_what_stays(self) -> None:
        present = self.present
        try:
            present.limits = await aside(system.limits)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise MachineError(f"Postfix's limits cannot be read: {error}") from None
        present.certificate = await aside(partial(system.shown, present.settings.hostname))

    async def _look_at_the_certificate(self) -> None:
        """See what became of asking for one; what is shown is another one then, or ran out."""
        present = self.present
        asked = await aside(certificate.last)
        if asked != present.issuing:
            present.issuing = asked
            present.certificate = await aside(partial(system.shown, present.settings.hostname))

    def _aged(self, due: Due) -> Iterator[Aged]:
        for each in {row.id: row for row in (*due.overdue, *due.expiring)}.values():
            yield self._one(each, "")
        for each in due.held:
            yield self._one(each, RETENTION)

    def _freed(self, due: Due, orders: Orders) -> set[str]:
        """Return the primaries for which something that was held goes back into delivery."""
        moved, owners = {*orders.release}, self.present.owners
        found = (owners.get(name) for each in due.held if each.id in moved for name in each.domains)
        return {each.name for each in found if each and each.state == UP}

    def _one(self, row: Row, by: str) -> Aged:
        owners = self.present.owners
        up = [
            owners[each].since
            for each in row.domains
            if each in owners and owners[each].state == UP
        ]
        held = (row.held or row.queued) if by else None
        since = max(up, default=0.0)
        hopeless = row.why in HOPELESS
        return Aged(
            row.id, row.accepted, row.queued, held, by, row.released, bool(up), since, hopeless
        )


@dataclass(frozen=True)
class Done:
    """What became of orders: how many messages were changed, and what failed first, if anything.

    holds: the IDs of those that were put on hold, and when, in seconds since 1970. unfit: those of
    what could not be requeued.
    """

    count: int
    holds: Mapping[str, float]
    unfit: frozenset[str]
    trouble: MachineError | None


def _carry_out(orders: Orders) -> Done:
    """Have the helper do it all; what fails keeps nothing else from being done."""
    count, holds, unfit = 0, dict[str, float](), set[str]()
    trouble: MachineError | None = None
    for verb in ("release", "requeue", "hold"):
        ids: tuple[str, ...] = getattr(orders, verb)
        try:
            results = client.change(verb, ids, by=RETENTION) if ids else []
            count += _tell(verb, results)
            unfit |= {each.id for each in results if protocol.unfit(each)}
            holds |= {each.id: time.time() for each in results if _put_on_hold(verb, each)}
        except MachineError as error:
            trouble = trouble or error
    return Done(count, holds, frozenset(unfit), trouble)


def _put_on_hold(verb: str, result: Result) -> bool:
    """Tell whether a message is on hold now in retention's name (root/fit.py), and was not before.

    What was on hold before may be an operator's.
    """
    if verb == "hold":
        return result.done and not protocol.held_before(result)
    return protocol.lacks_room(result) and protocol.held_instead(result)


def _tell(verb: str, results: Iterable[Result]) -> int:
    done = sum(each.done for each in results)
    if done:
        log.info("retention: %s of %d messages", verb, done)
    return done


def _guarded() -> float | None:
    try:
        return GUARDED.stat().st_mtime
    except OSError:
        return None

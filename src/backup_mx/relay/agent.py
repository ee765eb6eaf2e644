"""The agent: look → decide → act → tell. Postfix is complete without it, with it mail is sooner.

    canaries ──walks──> primaries ─┐
    log ──ledger──> what waits ────┼─> drain, lifetime ──> helper ──> Postfix
    disk, certificate, tables ─────┴─> snapshot ──> ledger, metrics, dashboard, notices

One event loop and small tasks; each survives its own failures, and none waits for another.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from backup_mx.errors import BackupMxError
from backup_mx.relay import settings
from backup_mx.relay.decide import canary
from backup_mx.relay.decide.canary import Judged
from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.log.logfiles import MAILLOG
from backup_mx.relay.settings import Settings, Target
from backup_mx.relay.state import UP, Primary, Snapshot
from backup_mx.relay.tasks import systemd
from backup_mx.relay.tasks.books import Books
from backup_mx.relay.tasks.draining import Draining
from backup_mx.relay.tasks.duties import Duties
from backup_mx.relay.tasks.memory import Memory
from backup_mx.relay.tasks.present import Present, noted
from backup_mx.relay.tasks.servers import Servers
from backup_mx.relay.tasks.tending import Tending, Work
from backup_mx.relay.tasks.walker import Walker
from backup_mx.relay.tell.notify import Notifier

FOLDER = Path("/srv/backup-mx/agent")
RUNTIME = Path("/run/backup-mx-agent")
LOOK = 1.0  # seconds between snapshots
KEEP, KEEP_IDLE = 2.0, 15.0  # seconds between those that are kept: if mail moves, if nothing does
SAMPLE = 60.0  # seconds between the points of the curve
VITAL = ("follow", "drain", "tell")
STUCK = 90.0  # seconds without a turn of a vital task: then the watchdog is not fed
CHANGES = 100  # of the primaries' states, remembered while the ledger cannot keep them
STOP_SECONDS = 8.0
OPEN_SECONDS = 60.0  # that an older ledger may take: with STOP_SECONDS, less than TimeoutStartSec
RESUME = 60.0  # seconds for which what the last run knew of the primaries is still good
log = logging.getLogger("backup_mx.agent")


@dataclass
class Agent:
    """The agent as ``settings`` want it, with what it keeps in ``folder``."""

    settings: Settings
    folder: Path = FOLDER
    log: Path = MAILLOG
    runtime: Path = RUNTIME
    tending: Tending = field(default_factory=Tending)

    def __post_init__(self) -> None:
        """Put the parts together; nothing runs yet."""
        wanted = self.settings
        self.memory = Memory.open(self.folder / "moments.json")
        books = Books(self.folder / "ledger.sqlite", self.log, wanted.hash_addresses)
        self.present = Present(wanted, books, Draining(self.memory), self.tending)
        self.present.walkers = tuple(map(self._walker, wanted.targets))
        self.servers = Servers(self.present)
        self.notifier = Notifier.open(
            wanted.relay, wanted.notify_urls, folder=self.folder, runtime=self.runtime
        )
        self.present.notices = self.notifier.counters
        self.duties = Duties(self.present, self.notifier.say)
        self._kept = self._sampled = time.monotonic()
        self._moving = ""
        self._states: list[Primary] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set; everything is closed a few seconds later."""
        await self._remember()
        works = self._works()
        tasks = [asyncio.create_task(self.tending.forever(*each)) for each in works.items()]
        log.info("watching %d primaries with %d tasks", len(self.settings.targets), len(tasks))
        systemd.notify(systemd.READY)
        await stop.wait()
        systemd.notify(systemd.STOPPING)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._stop(tasks)
        log.info("stopped")

    def _works(self) -> dict[str, Work]:
        """Return every task by its name."""
        found: dict[str, Work] = {
            "follow": self.duties.follow,
            "drain": self.duties.drain,
            "tell": self._tell,
            "keep": self._keep,
            "lifetimes": self.duties.lifetimes,
            "reconcile": self.duties.reconcile,
            "machine": self.duties.machine,
            "prune": self.duties.prune,
            "notify": self._notify,
            "metrics": self.servers.metrics,
            "dashboard": self.servers.dashboard,
            **{
                each.task: partial(self.present.tend, f"next {each.task}", each.turn)
                for each in self.present.walkers
            },
        }
        if self.settings.tables:
            found["recipients"] = self.duties.tables
        if self.settings.policies:
            found["policies"] = self.duties.policies
        if self.settings.standby:
            found["standby"] = self.servers.standby
        return found

    def _walker(self, target: Target) -> Walker:
        return Walker(
            settings=self.settings,
            target=target,
            judged=canary.starting(target.name, time.time()),
            wanted=lambda: self.present.wanted,
            changed=self._changed,
            ended=self._walked,
            message_at=self.memory.get("message"),
        )

    def _changed(self, before: Judged, after: Judged) -> None:
        """Act on what a walk told."""
        old, new = before.primary, after.primary
        if new.message is not old.message:
            self.memory.keep("message", max(each.message_at for each in self.present.walkers))
        if new.state == old.state:
            return
        self._states.append(new)
        del self._states[:-CHANGES]
        log.info("%s: %s → %s (%s)", new.name, old.state, new.state, new.walk and new.walk.words)
        if new.state == UP:
            self.present.draining.rose(new.name)
        else:
            self.present.draining.changed(new.name)
        for task in ("drain", "lifetimes", "tell"):
            self.tending.wake(task)

    def _walked(self, task: str, error: Exception | None) -> None:
        """Note that a walk failed by a mistake of ours, or that it did not."""
        if error is None:
            self.present.works(task)
            return
        if task not in self.present.failing:
            log.warning("%s: %s", task, error or type(error).__name__, exc_info=error)
        self.tending.failures[task] += 1
        self.present.fails(task, error)

    @noted
    async def _tell(self) -> float:
        """Make the snapshot, show it, and feed the watchdog if the vital tasks turn."""
        now = self.present.look(time.time())
        self.notifier.look(now)
        if self.tending.turning(VITAL, STUCK):
            systemd.notify(systemd.WATCHDOG, systemd.status(_status(now)))
        return LOOK

    @noted
    async def _keep(self) -> float:
        """Keep the snapshot: soon if mail or a primary moved, now and then otherwise."""
        now, moment = self.present.shown, time.monotonic()
        moving, sample = _moving(now), moment - self._sampled >= SAMPLE
        if sample or moving != self._moving or moment - self._kept >= KEEP_IDLE:
            states = tuple(self._states)
            await self.present.books.keep(now, states, sample=sample)
            del self._states[: len(states)]
            self._kept, self._moving = moment, moving
            self._sampled = moment if sample else self._sampled
        return KEEP

    @noted
    async def _notify(self) -> float:
        """Tell what is to be told. It does not end: if it has run for a while, it works."""
        well = asyncio.get_running_loop().call_later(SAMPLE, self.present.works, "notify")
        try:
            await self.notifier.run()
        finally:
            well.cancel()
        return SAMPLE

    async def _remember(self) -> None:
        """Go on from what the last run knew, if its ledger can be read soon.

        Opened first: whoever only reads cannot read the ledger of the version before an upgrade.
        """
        with suppress(BackupMxError, TimeoutError):
            async with asyncio.timeout(OPEN_SECONDS):
                await self.present.books.open()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                last, judged = await self.present.books.ask(self._recall)
        except (BackupMxError, TimeoutError) as error:
            log.info("nothing is known of an earlier run: %s", error or "no answer")
            return
        if last:
            self.present.go_on_from(last)
        for walker, known in zip(self.present.walkers, judged, strict=True):
            walker.judged = known

    def _recall(self, reader: Reader) -> tuple[Snapshot | None, list[Judged]]:
        """Return what the last run saw, and what each walker begins with.

        Nothing is changed here, in the ledger's thread: nobody may be waiting for it any more.
        """
        now, last = time.time(), reader.snapshot()
        # After a quick restart a primary is what it was: no edge, no flush, no gap in its history.
        known = last.primaries if last and 0 <= now - last.time < RESUME else ()
        changes = reader.states(now - canary.WINDOW)
        judged = []
        for target in self.settings.targets:
            history = ((each.time, each.state) for each in changes if each.name == target.name)
            was = next((each for each in known if each.name == target.name), None)
            if was and not _posted_to(target, self.settings.canary_message_to):
                was = replace(was, message=None)  # no other one would ever revise that verdict
            fallen = canary.fallen(history, now)
            judged.append(canary.starting(target.name, now, fallen, was))
        return last, judged

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for walker in self.present.walkers:
            await walker.stop()
        self.notifier.close()
        with suppress(BackupMxError):
            await self.present.books.keep(self.present.look(time.time()), self._states)
        await self.present.books.close()
        await self.servers.stop()


def _posted_to(target: Target, address: str) -> bool:
    """Tell whether the daily message, to that address or "", goes to a primary."""
    return address.rpartition("@")[2].lower() in target.domains


def _status(now: Snapshot) -> str:
    """Return what ``systemctl status`` shows."""
    primaries = ", ".join(f"{each.name} is {each.state}" for each in now.primaries)
    return f"{primaries}; {now.sums.waiting} wait, {now.sums.held} on hold"


def _moving(now: Snapshot) -> str:
    """Return what makes a snapshot worth keeping at once."""
    states = [(each.name, each.state, each.paused) for each in now.primaries]
    return repr((states, now.counts, now.sums, now.maintenance, now.tables))


def main() -> None:
    """Run the agent until SIGTERM. Raises MachineError when it has no settings."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    wanted = settings.read(Path(folder, settings.PATH.name) if folder else settings.PATH)
    runtime = Path(os.environ.get("RUNTIME_DIRECTORY", RUNTIME))
    asyncio.run(_main(Agent(wanted, runtime=runtime)))


async def _main(agent: Agent) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    await agent.run(stop)


if __name__ == "__main__":
    main()

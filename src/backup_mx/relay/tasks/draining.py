"""The drain in action: asks the pure decider, flushes through the helper, remembers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.relay.decide import drain
from backup_mx.relay.decide.drain import Drain, Scene, Tally
from backup_mx.relay.decide.lifetime import HOPELESS
from backup_mx.relay.root import client
from backup_mx.relay.root.protocol import FLUSHED
from backup_mx.relay.state import WAITING, Count, oldest, waiting
from backup_mx.relay.tasks.memory import Memory
from backup_mx.relay.tasks.threads import aside

_SECONDS = 20.0
log = logging.getLogger("backup_mx.agent")


def helper_flush() -> None:
    """Have the helper try all queued mail now. Raises MachineError."""
    client.ask("flush", timeout=_SECONDS)


@dataclass
class Draining:
    """What is remembered of each primary's drain, by its name.

    flush tries all queued mail, whosever it is, and raises MachineError.
    """

    memory: Memory
    flush: Callable[[], None] = helper_flush
    flushed: Path = FLUSHED
    flushes: int = 0
    drains: dict[str, Drain] = field(default_factory=dict)
    _maintenance: bool = False

    def __post_init__(self) -> None:
        """Go on where the last run ended: a crash loop is no reason for a flush each time."""
        self._first = Drain(flushed=self.memory.get("flushed") or None)

    def of(self, name: str) -> Drain:
        """Return what is remembered of a primary."""
        return self.drains.setdefault(name, self._first)

    @property
    def edge(self) -> bool:
        """Whether a primary came up, and nothing was flushed since."""
        return any(each.edge for each in self.drains.values())

    def rose(self, name: str, now: float | None = None) -> None:
        """Note that a primary came up, now or at that time."""
        self.drains[name] = drain.rise(self.of(name), time.time() if now is None else now)

    def changed(self, name: str) -> None:
        """Note that a primary's state changed otherwise."""
        self.drains[name] = drain.changed(self.of(name))

    def heard(self, name: str, tally: Tally) -> None:
        """Add what a primary answered to its answers since the last flush."""
        self.drains[name] = drain.heard(self.of(name), tally)

    async def turn(self, scenes: Mapping[str, Scene]) -> bool:
        """Decide for each primary, and flush, once, if any wants it; return whether one did.

        Raises MachineError when it cannot be done.
        """
        for name in scenes:
            self.of(name)
        maintenance = any(scene.maintenance for scene in scenes.values())
        if self._maintenance and not maintenance:
            for name, scene in scenes.items():
                self.rose(name, scene.now)
        self._maintenance = maintenance
        self._look_for_others()
        before = dict(self.drains)
        decided = {name: drain.decide(before[name], scene) for name, scene in scenes.items()}
        # Noted first: what happens while we wait for the helper comes on top of it.
        self.drains |= {name: decision.drain for name, decision in decided.items()}
        wanted = {name: decision.why for name, decision in decided.items() if decision.flush}
        if wanted:
            await self._flush(before, wanted)
            words = (f"{name}: {why} ({scenes[name].waiting} wait)" for name, why in wanted.items())
            log.info("flushed for %s", "; ".join(words))
        return bool(wanted)

    def operator(self, now: float) -> None:
        """Note that the operator flushed."""
        self.drains = {name: drain.operator(each, now) for name, each in self.drains.items()}

    async def _flush(self, before: Mapping[str, Drain], wanted: Collection[str]) -> None:
        flushed = max(self.drains[name].flushed or 0.0 for name in wanted)
        try:
            await aside(self.flush)
        except MachineError:
            for name in wanted:
                then, now = before[name], self.drains[name]
                edge = then.edge or now.edge
                self.drains[name] = replace(now, edge=edge, flushed=then.flushed)
            raise
        for name in self.drains.keys() - set(wanted):
            self.drains[name] = drain.for_another(self.drains[name], flushed)
        self.flushes += 1
        self.memory.keep("flushed", flushed)

    def _look_for_others(self) -> None:
        try:
            moment = self.flushed.stat().st_mtime
        except OSError:
            return
        flushed = max((each.flushed or 0.0 for each in self.drains.values()), default=0.0)
        if moment > max(flushed, self.memory.get("operator")):
            self.memory.keep("operator", moment)
            self.operator(moment)


def scene(counts: Iterable[Count] | None, *, up: bool, maintenance: bool) -> Scene:
    """Return the moment to decide about a primary, from its counts (None: nobody can say)."""
    found = [each for each in counts or () if each.fate == WAITING and each.messages]
    waits = None if counts is None else waiting(found)
    hopeful = oldest(each for each in found if each.why not in HOPELESS)
    return Scene(time.time(), up, waits, hopeful, maintenance)

"""What the agent knows at this moment, in one place, and the Snapshot that is made of it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from itertools import chain
from typing import Any, Protocol, TypeVar

from backup_mx.relay.certificate import Asked, Certificate
from backup_mx.relay.decide.drain import Scene, Tally
from backup_mx.relay.decide.lifetime import Terms
from backup_mx.relay.decide.shares import of_primaries
from backup_mx.relay.decide.standby import by_domain
from backup_mx.relay.settings import Settings
from backup_mx.relay.state import (
    DOWN,
    FLAPPING,
    FOLLOW,
    GIVEN_UP,
    REFUSING,
    STARTING,
    STATES,
    UP,
    Count,
    Disk,
    Primary,
    Shown,
    Snapshot,
    TableState,
    Trouble,
    waiting,
)
from backup_mx.relay.tasks.books import Books, Figures
from backup_mx.relay.tasks.draining import Draining, scene
from backup_mx.relay.tasks.system import Limits
from backup_mx.relay.tasks.tending import Tending
from backup_mx.relay.tasks.walker import Walker

OWN = ("flushes", "walks", "messages", "standby", "intake", "failures")
"""Families of counters that are the agent's own, not the ledger's."""
MINUTE = 60.0
# In the memory: without them, a ledger that is lost would end the alarm, or begin it.
_MOMENT, _COUNT = "given up", "given up by then"
WORDS = 300  # of what a task failed with
WORST = (DOWN, REFUSING, FLAPPING, STARTING, UP)


@dataclass
class Present:
    """All of it. It belongs to the event loop; nothing in it blocks."""

    settings: Settings
    books: Books
    draining: Draining
    tending: Tending
    walkers: tuple[Walker, ...] = ()
    started: float = field(default_factory=time.time)
    figures: Figures | None = None
    blind: bool = True
    """Whether the ledger cannot say what waits."""
    limits: Limits | None = None
    disk: Disk | None = None
    certificate: Certificate | None = None
    issuing: Asked | None = None
    policies: tuple[Shown, ...] = field(init=False)
    version: str = ""
    maintenance: float = 0.0
    tables: dict[str, TableState] = field(default_factory=dict)
    at_risk: int = 0
    guarded: float | None = None
    drifted: bool = False
    handshakes: Mapping[str, float] = field(default_factory=dict)
    put_off: int = 0
    intake: Counter[str] = field(default_factory=Counter)
    held_back: int = 0
    """How many messages are on hold by retention until their primary is up, 1,000 at most."""
    asked: float = 0.0
    notices: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, int] = field(default_factory=dict)
    failing: dict[str, Trouble] = field(default_factory=dict)
    """What each task that fails now failed with first, by its name."""
    shown: Snapshot = field(init=False)
    _rates: deque[tuple[float, int]] = field(default_factory=deque)
    _given_up: float | None = None
    _gave: float | None = None
    """The sum of the counters GIVEN_UP at the last look, None before the first.

    A ledger that is made anew from the log counts no more than the one before: more is news.
    """

    def __post_init__(self) -> None:
        """Have something to show from the first moment."""
        self.policies = tuple(Shown(host, None) for host in self.settings.policies)
        kept = self.draining.memory.moments
        self._given_up = kept.get(_MOMENT) or None
        self._gave = kept.get(_COUNT)
        self.shown = self.snapshot(self.started)

    @property
    def primaries(self) -> tuple[Primary, ...]:
        """Each primary with its counts of mail, and why nothing is flushed to it, if so."""
        shares, delivered = self._shares, self._delivered
        return tuple(
            self._told(
                replace(
                    primary,
                    waiting=waiting(shares[primary.name]),
                    delivered=sum(delivered[primary.name]),
                )
            )
            for primary in (each.judged.primary for each in self.walkers)
        )

    @property
    def scenes(self) -> dict[str, Scene]:
        """The moment to decide about the drain, for each primary."""
        blind, kept_back = self.blind or not self.figures, bool(self.maintenance)
        shares, primaries = self._shares, (each.judged.primary for each in self.walkers)
        return {
            each.name: scene(
                None if blind else shares[each.name],
                up=each.state == UP,
                maintenance=kept_back,
            )
            for each in primaries
        }

    @property
    def waiting(self) -> int:
        """How many messages wait in delivery, for whomever."""
        return waiting(self.figures.counts) if self.figures else 0

    @property
    def wanted(self) -> bool:
        """Whether anything hangs on the primaries' state right now."""
        return (
            self.blind or bool(self.waiting or self.held_back) or time.time() - self.asked < MINUTE
        )

    @property
    def owners(self) -> dict[str, Primary]:
        """The primary of each domain, as the last walk left it."""
        return by_domain((each.judged.primary, each.target.domains) for each in self.walkers)

    def greeted(self, within: float) -> dict[str, Primary]:
        """Return those ``owners`` whose public name greeted the relay so many seconds ago."""
        greeted = (each for each in self.walkers if each.greeted(within))
        return by_domain((each.judged.primary, each.target.domains) for each in greeted)

    @property
    def walked(self) -> bool:
        """Whether every primary has been walked to."""
        return all(each.judged.primary.state != STARTING for each in self.walkers)

    @property
    def terms(self) -> Terms | None:
        """The terms of lifetimes; None while Postfix's limit is not known."""
        if self.limits is None:
            return None
        hold = self.settings.at_retention == "hold"
        return Terms(self.settings.retention, hold, self.limits.lifetime, bool(self.maintenance))

    def snapshot(self, now: float) -> Snapshot:
        """Return what is known, as everybody else is told it."""
        figures, shown = self.figures or Figures(), self.certificate
        return Snapshot(
            time=now,
            started=self.started,
            relay=self.settings.relay,
            hostname=self.settings.hostname,
            version=self.version,
            primaries=self.primaries,
            counts=figures.counts,
            sums=figures.sums,
            spool=self.books.spool,
            reconciled=self.books.reconciled,
            disk=self.disk,
            certificate=shown.ends if shown else None,
            certificate_lifetime=shown.lifetime if shown else 0.0,
            certificate_issuer=shown.issuer if shown else None,
            acme=self.settings.acme,
            asked=self.issuing,
            policies=self.policies,
            maintenance=self.maintenance or None,
            tables=tuple(self.tables.values()),
            retention=self.settings.retention,
            per_second=self._rate(now, figures),
            at_risk=self.at_risk,
            guarded=self.guarded,
            drifted=self.drifted,
            handshakes=dict(self.handshakes),
            given_up=self._gave_up(now, figures.counters),
            walks_every=max(self.settings.canary_idle, self.settings.canary_waiting),
            counters={**figures.counters, **self.notices, **self.own},
            troubles=self._troubles(),
        )

    @property
    def own(self) -> dict[str, int]:
        """The agent's own counters, those of its earlier runs added."""
        walkers = self.walkers
        now = {
            "flushes": self.draining.flushes,
            "walks:good": sum(each.good for each in walkers),
            "walks:bad": sum(each.bad for each in walkers),
            "messages:good": sum(each.messages_good for each in walkers),
            "messages:bad": sum(each.messages_bad for each in walkers),
            "standby": self.put_off,
            **{f"intake:{state}": self.intake[state] for state in STATES},
            **{f"failures:{name}": count for name, count in self.tending.failures.items()},
        }
        names = now.keys() | self.before.keys()
        return {name: now.get(name, 0) + self.before.get(name, 0) for name in sorted(names)}

    def look(self, now: float) -> Snapshot:
        """Make the snapshot that everybody is shown from now on, and return it."""
        self.shown = self.snapshot(now)
        return self.shown

    def heard(self, answers: Mapping[str, Tally]) -> None:
        """Let each primary's drain hear what it answered, by domain."""
        for name, tallies in of_primaries(answers, self._owned).items():
            for each in tallies:
                self.draining.heard(name, each)

    def took(self, messages: int) -> None:
        """Count accepted mail under the primaries' state, the worst of them."""
        states = {each.judged.primary.state for each in self.walkers}
        self.intake[next((each for each in WORST if each in states), STARTING)] += messages

    def was_asked(self, now: float) -> None:
        """Note that a sender came although the first MX may be there; then it matters if it is."""
        idle = not self.wanted
        self.asked = now
        if idle:
            self.wake_walkers()

    async def tend(self, task: str, work: Callable[[], Awaitable[float]]) -> float:
        """Do ``work``, and tell whether it works; it raises as before."""
        try:
            pause = await work()
        except Exception as error:
            self.fails(task, error)
            raise
        self.works(task)
        return pause

    def fails(self, task: str, error: Exception) -> None:
        """Note that a task failed; it is in trouble from its first failure until it works."""
        why = (str(error) or type(error).__name__)[:WORDS]
        self.failing.setdefault(task, Trouble(task, why, time.time()))

    def works(self, task: str) -> None:
        """Note that a task works."""
        self.failing.pop(task, None)

    def wake_walkers(self) -> None:
        """Let each walker look again at how soon its next walk is wanted."""
        for each in self.walkers:
            self.tending.wake(each.task)

    def go_on_from(self, last: Snapshot) -> None:
        """Take over what an earlier run had counted, and seen."""
        self.before = {
            name: count for name, count in last.counters.items() if name.partition(":")[0] in OWN
        }
        self._given_up = last.given_up or self._given_up
        if self._gave is None:  # an agent of before that was kept
            self._gave = _given_up(last.counters)

    def _gave_up(self, now: float, counters: Mapping[str, int]) -> float | None:
        """Return when Postfix was last seen to give up mail; what was before us, nobody saw."""
        count, before = _given_up(counters), self._gave
        if count is not None and count != before:
            if before is not None and count > before:
                self._given_up = now
                self._keep(_MOMENT, now)
            self._gave = count
            self._keep(_COUNT, count)
        return self._given_up

    def _keep(self, name: str, value: float) -> None:
        with suppress(OSError):  # it is kept in the ledger, too
            self.draining.memory.keep(name, value)

    def _troubles(self) -> tuple[Trouble, ...]:
        """Return what fails; counts of a log that was not read yet are no counts, either."""
        found = tuple(self.failing.values())
        if self.blind and FOLLOW not in self.failing:
            return (Trouble(FOLLOW, "nothing was read since the start", self.started), *found)
        return found

    def _told(self, primary: Primary) -> Primary:
        """Add why nothing is flushed although mail waits, where that is nobody's expectation."""
        paused, drain = "", self.draining.of(primary.name)
        if primary.waiting and self.maintenance:
            paused = "maintenance"
        elif primary.waiting and primary.state == UP and drain.paused is not None:
            paused = drain.why
        return replace(primary, paused=paused)

    @property
    def _shares(self) -> dict[str, list[Count]]:
        """What waits or is held for each primary."""
        found = of_primaries((self.figures or Figures()).shares, self._owned)
        return {name: [*chain.from_iterable(each)] for name, each in found.items()}

    @property
    def _delivered(self) -> dict[str, list[int]]:
        return of_primaries((self.figures or Figures()).delivered, self._owned)

    @property
    def _owned(self) -> dict[str, tuple[str, ...]]:
        return {each.name: each.domains for each in self.settings.targets}

    def _rate(self, now: float, figures: Figures) -> float:
        """Return the messages delivered a second, over the last minute.

        What the ledger learns of a log that is older than this run was delivered at another time.
        """
        rates, delivered = self._rates, figures.sums.delivered
        if not figures.counters or (rates and delivered < rates[-1][1]):  # it was begun anew
            rates.clear()
        if not figures.counters:
            return 0.0
        rates.append((now, delivered))
        while len(rates) > 2 and now - rates[1][0] >= MINUTE:
            rates.popleft()
        (then, had), span = rates[0], now - rates[0][0]
        return round((delivered - had) / span, 2) if span > 0 and then else 0.0


class _Tended(Protocol):
    @property
    def present(self) -> Present: ...


_T = TypeVar("_T", bound=_Tended)


def noted(work: Callable[[_T], Awaitable[float]]) -> Callable[[_T], Coroutine[Any, Any, float]]:
    """Make a task tell what is known at ``present`` whether it works; it raises as before."""

    @wraps(work)
    async def turn(self: _T) -> float:
        return await self.present.tend(work.__name__.strip("_"), partial(work, self))

    return turn


def _given_up(counters: Mapping[str, int]) -> int | None:
    """Return how much mail Postfix has given up, None where nobody has counted it."""
    known = [counters[name] for name in GIVEN_UP if name in counters]
    return sum(known) if known else None

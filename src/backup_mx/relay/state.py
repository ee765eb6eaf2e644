"""What the agent knows at a moment: the one value that verbs, metrics, dashboard, alarms show.

The agent makes one every few seconds and keeps it, as JSON, beside its ledger: who asks later, or
while the agent is dead, sees the last one and how old it is. Times are seconds since 1970.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, is_dataclass
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from backup_mx.relay.certificate import Asked

STARTING, UP, DOWN, FLAPPING, REFUSING = STATES = (
    "starting",  # no walk has ended yet
    "up",  # mail is handed over
    "down",  # the way to it is broken
    "flapping",  # it answers, but has not done so for long enough to be believed
    "refusing",  # it takes connections and refuses recipients
)
"""The states of a primary."""

WAITING, HELD, DELIVERED, DELETED = FATES = ("waiting", "held", "delivered", "deleted")
"""What became of an accepted message: each is in exactly one of these."""

QUEUES = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
"""Postfix's queues in which a message can lie."""


GIVEN_UP = ("bounced", "expired", "dsn")
"""The counters of what must never happen: recipients, messages, and notices that Postfix made."""

FOLLOW = "follow"
"""The agent's task that reads Postfix's log."""

_NO_TIME = 253_402_300_800.0  # the year 10000: what is later cannot be shown


@dataclass(frozen=True)
class Walk:
    """One walk of the canary down the drain path.

    step is how far it came (connect, greeting, ehlo, tls, mail, rcpt, rset; data for the daily
    message); why the class of the reason it ended there (reasons.CLASSES), "" where all was well;
    words what was said; seconds how long it took; offer the EHLO keywords after TLS.
    """

    time: float
    good: bool
    step: str
    why: str
    words: str
    seconds: float
    offer: tuple[str, ...] = ()


@dataclass(frozen=True)
class Primary:
    """A primary as the canary sees it; since when it is in its state; good: good walks in a row."""

    name: str
    state: str
    since: float
    good: int = 0
    walk: Walk | None = None
    last_good: float | None = None
    paused: str = ""
    """Why the agent does not flush although mail waits, "" where it does."""
    message: Walk | None = None
    """The last daily message; it does not change the state."""
    waiting: int = 0
    """How many messages wait in delivery for it."""
    delivered: int = 0
    """How many were delivered for its domains since the ledger began."""


@dataclass(frozen=True)
class Count:
    """How many messages wait or are held for one reason; oldest is when the first was accepted."""

    fate: str
    why: str
    messages: int
    octets: int
    oldest: float | None


@dataclass(frozen=True)
class Sums:
    """The ledger's sum: accepted = delivered + waiting + held + deleted, if nothing differs.

    differences counts the messages of which ledger and spool say different things.
    """

    accepted: int = 0
    delivered: int = 0
    waiting: int = 0
    held: int = 0
    deleted: int = 0
    differences: int = 0

    @property
    def even(self) -> bool:
        """Whether all that was accepted is accounted for."""
        known = self.delivered + self.waiting + self.held + self.deleted
        return self.accepted == known and not self.differences


@dataclass(frozen=True)
class Disk:
    """The spool's file system, in bytes; needed: below this, Postfix takes no more mail.

    damaged: it is read-only, or has found errors in itself.
    """

    free: int
    total: int
    needed: int
    damaged: bool = False


@dataclass(frozen=True)
class TableState:
    """A fetched table of recipients: how many, since when it is so, and what is wrong with it."""

    domain: str
    recipients: int
    fetched: float | None
    trouble: str = ""


@dataclass(frozen=True)
class Shown:
    """A certificate that a host of this relay shows: when it expires, None where none is shown.

    lifetime is for how many seconds in all it holds, asked how the last asking for one ended.
    """

    host: str
    ends: float | None
    lifetime: float = 0.0
    asked: Asked | None = None


@dataclass(frozen=True)
class Trouble:
    """A task of the agent that fails again and again: which, why, and since when."""

    task: str
    why: str
    since: float


@dataclass(frozen=True)
class Snapshot:
    """All that the agent knows at a moment.

    counters, by name, only grow while the ledger is kept: those of ledger/schema.COUNTERS, the
    notifier's, and the agent's own (tasks/present.OWN).
    """

    time: float
    started: float
    relay: str
    hostname: str
    version: str
    primaries: tuple[Primary, ...] = ()
    counts: tuple[Count, ...] = ()
    sums: Sums = field(default_factory=Sums)
    spool: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By queue: messages and bytes, when the spool was last listed."""
    reconciled: float | None = None
    disk: Disk | None = None
    certificate: float | None = None
    """When the certificate of the intake expires."""
    certificate_lifetime: float = 0.0
    """For how many seconds in all it holds."""
    certificate_issuer: str | None = None
    """Who issued it: "" it did itself, None it is not known."""
    acme: str = ""
    """The authority that is asked for one, "" where none is."""
    asked: Asked | None = None
    """How the last asking ended."""
    policies: tuple[Shown, ...] = ()
    """What each host of an MTA-STS policy shows that this relay serves."""
    maintenance: float | None = None
    """Until when mail is accepted and kept although the primary answers."""
    tables: tuple[TableState, ...] = ()
    retention: int = 0
    per_second: float = 0.0
    """Messages delivered a second, over the last minute."""
    at_risk: int = 0
    """Waiting messages that have used up nine tenths of the retention."""
    guarded: float | None = None
    """When the timer last ran that keeps mail from expiring without the agent."""
    drifted: bool = False
    """Whether that timer saw a file that is not as it was applied."""
    handshakes: dict[str, float] = field(default_factory=dict)
    """When the tunnel to each primary that has one last lived; 0: never."""
    given_up: float | None = None
    """When Postfix was last seen to bounce mail, or to let it expire."""
    walks_every: int = 0
    """Seconds between the canary's walks, where they are fewest; 0: nobody says."""
    counters: dict[str, int] = field(default_factory=dict)
    troubles: tuple[Trouble, ...] = ()
    """What the agent cannot do now."""

    @property
    def blind(self) -> Trouble | None:
        """Why the log is not read, so that the counts are old ones; None while it is."""
        return next((each for each in self.troubles if each.task == FOLLOW), None)

    @property
    def eta(self) -> float:
        """In how many seconds what can be handed over is, at the present pace; inf: never.

        What waits for a primary that is not up has to wait for that first.
        """
        if not waiting(self.counts):
            return 0.0
        goes = sum(each.waiting for each in self.primaries if each.state == UP)
        return goes / self.per_second if goes and self.per_second > 0 else math.inf

    @property
    def text(self) -> str:
        """The snapshot as JSON, on one line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def certificates(self) -> tuple[Shown, ...]:
        """What the intake shows, then what the hosts of policies do."""
        own = Shown(self.hostname, self.certificate, self.certificate_lifetime, self.asked)
        return (own, *self.policies)

    @property
    def messages(self) -> int:
        """How many messages wait, those on hold included."""
        return sum(each.messages for each in self.counts)

    @property
    def octets(self) -> int:
        """How many bytes wait."""
        return sum(each.octets for each in self.counts)

    @property
    def oldest(self) -> float | None:
        """When the oldest message that still waits was accepted."""
        return oldest(self.counts)


def waiting(counts: Iterable[Count]) -> int:
    """Return how many messages of those wait in delivery; what is held waits for the operator."""
    return sum(each.messages for each in counts if each.fate == WAITING)


def oldest(counts: Iterable[Count]) -> float | None:
    """Return when the oldest message of them all was accepted, None where there is none."""
    return min((each.oldest for each in counts if each.oldest is not None), default=None)


def from_text(text: str | bytes) -> Snapshot:
    """Read back what Snapshot.text wrote. Raises ValueError: for whatever has another shape."""
    try:
        told = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"this is no snapshot: {error}") from None
    return of(told)


def of(told: object) -> Snapshot:
    """Return what JSON tells as a Snapshot. Raises ValueError: for whatever has another shape."""
    try:
        return cast("Snapshot", _built(Snapshot, told))
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"this is no snapshot: {error}") from None


_hints = functools.cache(get_type_hints)  # evaluates each annotation anew, whenever it is asked


def _built(kind: Any, told: Any) -> object:  # noqa: ANN401  JSON, and any type of these fields
    """Return what JSON tells as a value of that type. Raises AttributeError, TypeError, ValueError.

    The ledger is the agent's and root reads it, so nothing is taken for what it says it is.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if told is None else _built(parts[0], told)
    if origin is dict:
        return {_built(parts[0], key): _built(parts[1], value) for key, value in told.items()}
    if origin is tuple:
        _of(list, told)
        kinds = parts[:1] * len(told) if parts[-1] is ... else parts
        return tuple(_built(each, one) for each, one in zip(kinds, told, strict=True))
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        return kind(**{name: _built(hints[name], value) for name, value in told.items()})
    return _of(kind, told)


def _of(kind: type, told: object) -> object:
    """Return a number, a text or a truth, if it is of that type. Raises ValueError."""
    fits = type(told) is kind or (kind is float and type(told) is int)
    if not fits or (kind is float and not abs(cast("float", told)) < _NO_TIME):
        raise ValueError(f"{str(told)[:40]!r} is no {kind.__name__}")
    return told

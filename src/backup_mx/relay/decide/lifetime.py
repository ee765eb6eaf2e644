"""What becomes of a message that waits for long: pure, no I/O, no clock of its own.

At ``retention`` it is held for the operator (or kept trying); when the primary comes back it is
released by itself. While the primary is up, only what it does not take as it is is held, and only
the operator knows when another try is worth it: all other mail is on its way. Long before Postfix's
own limit (maximal_queue_lifetime, bounce_queue_lifetime) it is requeued, so nothing ever expires;
what cannot be requeued is put on hold before that limit (root/changes.py).
What the operator put on hold is never touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from backup_mx.relay.queue import reasons

HOPELESS = (reasons.REFUSED, reasons.CAPABILITY)
"""Why a primary that is up does not take a message, and would not take it the next time."""
RETENTION = "retention"
"""By whom the agent's own holds are, in the log and the ledger."""
SHARE = 0.8  # of Postfix's limit, at which a message is requeued; the guard's own is 0.9
CHANCE = 3600.0  # seconds that a released message has before it may be held again
BATCH = 1000  # messages a round, so that one call of the helper stays short


@dataclass(frozen=True)
class Aged:
    """A message that may be due; times in seconds since 1970.

    accepted is when it was taken, queued since when Postfix's own clock runs for it; held since
    when it is on hold, None if it is not, and by whom; released when it last was, if ever; up is
    whether its primary is up, and came since when. hopeless: it would not be taken by one that is.
    """

    id: str
    accepted: float
    queued: float
    held: float | None = None
    by: str = ""
    released: float | None = None
    up: bool = False
    since: float = 0.0
    hopeless: bool = False


@dataclass(frozen=True)
class Terms:
    """What applies: seconds; limit is Postfix's, maintenance whether mail is kept on purpose."""

    retention: float
    hold: bool
    limit: float
    maintenance: bool = False


@dataclass(frozen=True)
class Orders:
    """The IDs to hold, to release and to requeue; a message is in one of them at most."""

    hold: tuple[str, ...] = ()
    release: tuple[str, ...] = ()
    requeue: tuple[str, ...] = ()


def decide(now: float, terms: Terms, aged: Iterable[Aged]) -> Orders:
    """Return what is due now, of BATCH messages at most for each order, in the order they came."""
    orders: dict[str, list[str]] = {"hold": [], "release": [], "requeue": []}
    for each in aged:
        order = _order(now, terms, each)
        if order and len(orders[order]) < BATCH:
            orders[order].append(each.id)
    return Orders(**{order: tuple(ids) for order, ids in orders.items()})


def _order(now: float, terms: Terms, aged: Aged) -> str:
    """Return what is due for one message, "" for nothing."""
    if aged.held is not None:
        if aged.by != RETENTION or terms.maintenance or not _worth_it(aged):
            return ""
        return "release"  # near its end the helper makes a requeue of it, if there is room
    if _too_old(now, terms, aged):
        return "hold"
    return "requeue" if now - aged.queued >= SHARE * terms.limit else ""


def _too_old(now: float, terms: Terms, aged: Aged) -> bool:
    """Tell whether a message in delivery has reached retention, and had its chance since."""
    if not terms.hold or terms.maintenance or now - aged.accepted < terms.retention:
        return False
    if aged.up and not aged.hopeless:
        return False  # it has its turn yet, however long the drain takes
    chance = max(aged.released or 0.0, aged.since if aged.up else 0.0)
    return now - chance >= min(CHANCE, terms.retention)


def _worth_it(aged: Aged) -> bool:
    """Tell whether it is to be tried again: its primary came up since, or did not refuse it."""
    return aged.up and (aged.since > (aged.held or 0.0) or not aged.hopeless)


def pace(terms: Terms) -> float:
    """Return the seconds between two looks: short lifetimes, as a drill has, want quick ones."""
    return max(2.0, min(60.0, min(terms.retention, terms.limit) / 50))

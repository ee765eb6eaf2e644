"""What a Snapshot cannot tell of an alarm: nobody has looked yet, or its subject is gone. Pure.

An agent that has just started knows little, and what it does not know is not over.
"""

from __future__ import annotations

from backup_mx.relay.queue import reasons
from backup_mx.relay.state import STARTING, UP, WAITING, Count, Primary, Snapshot
from backup_mx.relay.tell import certificates

LEDGER = ("held", "ledger", "at-risk", "overdue", "undeliverable", "stuck", "paused")
"""What the keys of those alarms begin with that say what the ledger does."""
TRIED = (reasons.LOCAL, reasons.PUT_OFF, reasons.UNREACHABLE, reasons.NEW)
"""The classes of mail that a primary which is up should have before long."""
STUCK_SECONDS = 6 * 3600.0
"""How long a primary is up, and mail waits for it all the same, before that is odd."""
OF_PRIMARIES = ("primary", "canary", "message", "paused")
YOUNG_SECONDS = 300.0
"""How long an agent may need until each of its tasks has failed, or worked, once."""
LOOKED_SECONDS = 2 * 3600.0
"""Within which it fetches each table, and a primary that is up has the daily message anew."""


def primary_of(key: str) -> str:
    """Return the primary that an alarm is about, "" for any other alarm."""
    return key.removeprefix("primary:") if key.startswith("primary:") else ""


def unknown(key: str, now: Snapshot) -> bool:
    """Whether it cannot be said if the alarm holds, as before the canary's first walk."""
    kind, _, subject = key.partition(":")
    age = now.time - now.started
    if kind in LEDGER and unread(now):
        return True
    if kind == "undeliverable":
        return all(primary.state != UP for primary in now.primaries)
    if kind == "stuck":
        return bool(tried(now)) and steady(now) <= STUCK_SECONDS
    if kind == "at-risk":
        return now.disk is None or age < YOUNG_SECONDS  # it is counted with the same look
    if kind in ("disk", "guarded", "reconciled"):
        return getattr(now, kind) is None
    if kind == "agent":
        return age < YOUNG_SECONDS
    if kind == "table":
        return not _fetched(subject, now) and age < LOOKED_SECONDS
    if kind in certificates.KEYS:
        return certificates.unknown(key, now)
    return any(_unseen(kind, each, now) for each in now.primaries if each.name == subject)


def unread(now: Snapshot) -> bool:
    """Whether the ledger has not said anything yet: none of its counters is there."""
    return "accepted" not in now.counters


def tried(now: Snapshot) -> list[Count]:
    """Return what waits of the classes TRIED."""
    return [each for each in now.counts if each.fate == WAITING and each.why in TRIED]


def steady(now: Snapshot) -> float:
    """Return for how long nothing has stood in the way of what waits: 0.0 while something does.

    One of several primaries that is away, and for which none waits, does not.
    """
    wanted = [each for each in now.primaries if each.waiting] or [
        each for each in now.primaries if each.state == UP
    ]
    if now.maintenance is not None or not wanted or any(each.state != UP for each in wanted):
        return 0.0
    return now.time - max(each.since for each in wanted)


def gone(key: str, now: Snapshot) -> bool:
    """Whether what the alarm is about is no longer in the config."""
    kind, _, subject = key.partition(":")
    if kind in OF_PRIMARIES:
        here = [each for each in now.primaries if each.name == subject]
        return not here or (kind == "message" and here[0].message is None)
    if kind == "table":
        return not _fetched(subject, now)
    return kind in certificates.KEYS and certificates.gone(key, now)


def _fetched(domain: str, now: Snapshot) -> bool:
    return any(each.domain == domain for each in now.tables)


def _unseen(kind: str, primary: Primary, now: Snapshot) -> bool:
    if kind == "message":
        up = now.time - max(now.started, primary.since) if primary.state == UP else 0.0
        return primary.message is None and up < LOOKED_SECONDS
    if kind == "canary":
        return primary.walk is None
    return kind == "primary" and primary.state == STARTING

"""What the ledger adds up to. Each takes a connection, so that writer and readers share them.

Each raises sqlite3.Error, also for a value that its column is not for.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping

from backup_mx.relay.decide.lifetime import HOPELESS
from backup_mx.relay.ledger.rows import RETENTION, Aged, Due
from backup_mx.relay.ledger.schema import (
    ACCEPTED,
    COUNTERS,
    DELETED,
    DELIVERED,
    HELD,
    WAITING,
)
from backup_mx.relay.ledger.typed import select
from backup_mx.relay.queue import reasons
from backup_mx.relay.state import FATES, Count, Sums, oldest

CODES = dict(zip(FATES, (WAITING, HELD, DELIVERED, DELETED), strict=True))
"""state.FATES to the numbers they are stored as."""

NAMES = {code: name for name, code in CODES.items()}
"""The other way round."""

# Of what is on hold, its recipients alone say why it waited.
_AGED = """
SELECT queue_id, accepted, queued, iif(fate = 2, (
    SELECT group_concat(DISTINCT why) FROM recipient WHERE message = message.id AND done = 0
), why), held, released, (
    SELECT group_concat(DISTINCT domain) FROM recipient WHERE message = message.id AND done = 0)
FROM message WHERE queue_id NOT IN (SELECT value FROM json_each(?)) AND """
_AGED_KINDS = "trrn??n"

_WORTH_IT = """
fate IN (1, 2) AND fate = 2 AND held_by = ? AND coalesce(held, queued) < ? AND EXISTS (
    SELECT 1 FROM json_each(?) AS up JOIN recipient ON domain = up.key
    WHERE up.value > coalesce(held, queued) AND message = message.id AND done = 0)
ORDER BY accepted LIMIT ?
"""

_HOPELESS = ", ".join(map(repr, HOPELESS))
_UNREFUSED = f"""
fate IN (1, 2) AND fate = 2 AND held_by = ? AND domain IN (SELECT key FROM json_each(?))
AND NOT EXISTS (SELECT 1 FROM recipient AS each
    WHERE message = message.id AND done = 0 AND each.why IN ({_HOPELESS}))
ORDER BY accepted LIMIT ?
"""  # noqa: S608  our words

# What a primary that is up has not refused has its turn yet: it must not hide what is to be held.
_OVERDUE = f"""
fate IN (1, 2) AND fate = 1 AND accepted <= ?
AND (why IN ({_HOPELESS}) OR domain NOT IN (SELECT key FROM json_each(?)))
ORDER BY accepted LIMIT ?
"""  # noqa: S608


def sums(database: sqlite3.Connection) -> Sums:
    """Return the sum."""
    tally = dict(select(database, "ii", "SELECT fate, sum(messages) FROM tally GROUP BY fate"))
    value = "SELECT value FROM counter WHERE name = ?"
    (accepted,) = next(select(database, "i", value, (ACCEPTED,)), (0,))
    differ = database.execute("SELECT count(*) FROM message WHERE trouble <> ''").fetchone()
    parts = {name: tally.get(code, 0) for name, code in CODES.items()}
    return Sums(accepted=accepted, differences=differ[0], **parts)


def counts(database: sqlite3.Connection) -> tuple[Count, ...]:
    """Return how many messages wait or are held, by reason."""
    return together(shares(database))


def together(shares: Mapping[str, Iterable[Count]]) -> tuple[Count, ...]:
    """Return the counts of all domains as one."""
    found: dict[tuple[str, str], list[Count]] = {}
    for share in shares.values():
        for each in share:
            found.setdefault((each.fate, each.why), []).append(each)
    return tuple(
        Count(
            *kind,
            sum(each.messages for each in alike),
            sum(each.octets for each in alike),
            oldest(alike),
        )
        for kind, alike in sorted(found.items())
    )


def shares(database: sqlite3.Connection) -> dict[str, tuple[Count, ...]]:
    """Return how many messages wait or are held for each domain, by reason.

    A message is counted for one domain, of its recipients who wait; for "" before it is tried, as
    until then the log names nobody.
    """
    rows = select(
        database,
        "titii",
        "SELECT domain, fate, why, messages, octets FROM tally"
        " WHERE fate IN (1, 2) AND messages > 0",
    )
    found: dict[str, tuple[Count, ...]] = {}
    for domain, fate, why, messages, octets in list(rows):
        first = _oldest(database, fate, why, domain)
        share = found.get(domain, ())
        found[domain] = (*share, Count(NAMES[fate], why, messages, octets, first))
    return found


def _oldest(database: sqlite3.Connection, fate: int, why: str, domain: str) -> float | None:
    (first,) = next(
        select(
            database,
            "?",
            "SELECT min(accepted) FROM message"
            " WHERE fate IN (1, 2) AND fate = ? AND why = ? AND domain = ?",
            (fate, why, domain),
        )
    )
    return None if first is None else float(first)


def delivered(database: sqlite3.Connection) -> dict[str, int]:
    """Return how many messages were delivered for each domain since the ledger began."""
    query = "SELECT domain, messages FROM tally WHERE fate = ?"
    return dict(select(database, "ti", query, (DELIVERED,)))


def counters(database: sqlite3.Connection) -> dict[str, int]:
    """Return all counters, each of schema.COUNTERS among them."""
    query = "SELECT name, value FROM counter WHERE name <> ?"
    return dict.fromkeys(COUNTERS, 0) | dict(select(database, "ti", query, (ACCEPTED,)))


def due(
    database: sqlite3.Connection,
    accepted_before: float,
    queued_before: float,
    limit: int,
    up: Mapping[str, float] | None = None,
    but: Collection[str] = (),
) -> Due:
    """Return what is old; see rows.Due.

    but are the IDs of those that are not to be released or requeued now.

    up says of the domains whose primary is up since when, in seconds since 1970: what was held
    before, or was never refused, comes first, so that the mail of a dead primary keeps none of it
    out.
    """
    held = "fate IN (1, 2) AND fate = 2 AND held_by = ? ORDER BY accepted LIMIT ?"
    expiring = "fate = 1 AND queued <= ? ORDER BY queued LIMIT ?"
    first: tuple[Aged, ...] = ()
    rose, left = json.dumps(dict(up or {})), json.dumps(list(but))
    if up:
        first = _aged(database, _WORTH_IT, left, RETENTION, max(up.values()), rose, limit)
        if len(first) < limit:
            unrefused = _aged(database, _UNREFUSED, left, RETENTION, rose, limit)
            first = tuple({each.id: each for each in (*first, *unrefused)}.values())
    rest = _aged(database, held, left, RETENTION, limit) if len(first) < limit else ()
    return Due(
        overdue=_aged(database, _OVERDUE, "[]", accepted_before, rose, limit),
        held=tuple({each.id: each for each in (*first, *rest)}.values())[:limit],
        expiring=_aged(database, expiring, left, queued_before, limit),
    )


def _aged(database: sqlite3.Connection, where: str, *values: float | str) -> tuple[Aged, ...]:
    return tuple(
        Aged(
            queue_id,
            accepted,
            queued,
            reasons.worst(one for one in (why or "").split(",") if one in reasons.CLASSES),
            tuple(domains.split(",")) if domains else (),
            held,
            released,
        )
        for queue_id, accepted, queued, why, held, released, domains in select(
            database, _AGED_KINDS, _AGED + where, values
        )
    )

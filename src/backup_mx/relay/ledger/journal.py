"""What the agent keeps beside the messages: its last look, the queue's curve, primaries' states."""

from __future__ import annotations

import sqlite3

from backup_mx.relay.ledger.rows import Change
from backup_mx.relay.state import Primary, Snapshot

_MINUTES_A_DAY = 1440
_COARSE = 15  # minutes between the samples of more than a day ago
_KEPT_DAYS = 31
_KEPT_CHANGES = 10_000
_CHUNK = 2000
_ARRIVING_SECONDS = 86_400.0  # what has not been accepted in a day never will be


def put(database: sqlite3.Connection, key: str, value: str) -> None:
    """Keep one value by its name."""
    database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def sample(database: sqlite3.Connection, snapshot: Snapshot) -> None:
    """Keep a snapshot's point of the curve, and thin out the older ones."""
    minute = int(snapshot.time // 60)
    held = sum(each.messages for each in snapshot.counts if each.fate == "held")
    counted = (snapshot.counters.get("accepted", 0), snapshot.counters.get("delivered", 0))
    database.execute(
        "INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?, ?)",
        (minute, snapshot.messages, snapshot.octets, held, *counted),
    )
    database.execute(
        "DELETE FROM sample WHERE minute < ? AND minute % ? <> 0 OR minute < ?",
        (minute - _MINUTES_A_DAY, _COARSE, minute - _KEPT_DAYS * _MINUTES_A_DAY),
    )


def is_news(database: sqlite3.Connection, primary: Primary) -> bool:
    """Tell whether a primary is in another state than the last one that was kept."""
    last = database.execute(
        "SELECT state FROM change WHERE name = ? ORDER BY id DESC LIMIT 1", (primary.name,)
    ).fetchone()
    return last is None or last[0] != primary.state


def keep_state(database: sqlite3.Connection, primary: Primary) -> None:
    """Keep a primary's new state."""
    change = Change.of(primary)
    number = database.execute(
        "INSERT INTO change (time, name, state, words) VALUES (?, ?, ?, ?)",
        (change.time, change.name, change.state, change.words),
    ).lastrowid
    database.execute("DELETE FROM change WHERE id <= ?", ((number or 0) - _KEPT_CHANGES,))


def prune(database: sqlite3.Connection, before: float, now: float) -> tuple[int, int]:
    """Delete some messages that ended before a time, and some that never came to be.

    Returns how many of each: nothing is left when that is none of either.
    """
    found = database.execute(
        "SELECT id, fate FROM message WHERE ended IS NOT NULL AND ended < ? LIMIT ?",
        (before, _CHUNK),
    ).fetchall()
    stale = database.execute(
        "SELECT id, fate FROM message WHERE fate = 0 AND queued < ? LIMIT ?",
        (now - _ARRIVING_SECONDS, _CHUNK),
    ).fetchall()
    numbers = [(number,) for number, _ in (*found, *stale)]
    for table in ("alias", "recipient", "attempt", "action"):
        database.executemany(f"DELETE FROM {table} WHERE message = ?", numbers)  # noqa: S608  ours
    database.executemany("DELETE FROM message WHERE id = ?", numbers)
    database.execute("DELETE FROM action WHERE message IS NULL AND time < ?", (before,))
    return len(found), len(stale)

"""The ledger against a listing of the spool.

Mail flows while the spool is listed and the log is read, so what a listing shows is a doubt at
first. It counts when another listing, GRACE seconds later, says the same, the log was read to its
end between the two, and told nothing of the message: a file that vanishes or moves is logged.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable

from backup_mx.relay.ledger.book import Book, Leaf, Recipient, add
from backup_mx.relay.ledger.clerk import CORRUPT, MISSING, NOBODY, THROWN_AWAY, class_of
from backup_mx.relay.ledger.rows import RETENTION, UNKNOWN
from backup_mx.relay.ledger.schema import ACCEPTED, ARRIVING, DELETED, HELD, WAITING
from backup_mx.relay.ledger.veil import Veil, domain
from backup_mx.relay.queue import postfix
from backup_mx.relay.queue.spool import Entry

GRACE = 10.0
"""Seconds after which the log has told what became of a file."""

FOUND, DESCRIBED = "spool", "found"
"""The origins of a message that only the spool told of: before and after it was looked into."""

_CHUNK = 500

_TABLES = """
DROP TABLE IF EXISTS temp.spool;
DROP TABLE IF EXISTS temp.verdict;
CREATE TEMP TABLE spool (queue_id TEXT PRIMARY KEY, queue TEXT, size INTEGER, mtime REAL)
    WITHOUT ROWID;
CREATE TEMP TABLE verdict (message INTEGER PRIMARY KEY, doubt TEXT);
"""
_JUDGE_HERE = """
INSERT INTO verdict SELECT * FROM (SELECT m.id, CASE
    WHEN s.queue = 'corrupt' THEN 'corrupt'
    WHEN s.queue = 'hold' AND m.fate = 1 THEN 'held'
    WHEN s.queue IN ('incoming', 'active', 'deferred') AND m.fate = 2 THEN 'free'
    WHEN s.queue IS NULL AND NOT EXISTS (
        SELECT 1 FROM alias a JOIN spool o USING (queue_id) WHERE a.message = m.id) THEN 'missing'
    END AS doubt
FROM message m LEFT JOIN spool s USING (queue_id)
WHERE m.fate IN (1, 2) AND m.trouble <> :thrown) WHERE doubt IS NOT NULL
"""
_JUDGE_BACK = """
INSERT OR IGNORE INTO verdict
SELECT m.id, iif(m.fate = 0, 'arrived', 'back')
FROM spool s JOIN alias a USING (queue_id) JOIN message m ON m.id = a.message
WHERE m.fate NOT IN (1, 2) AND s.queue <> 'maildrop'
"""
_SETTLED = """
UPDATE message SET doubt = '', doubted = NULL,
    trouble = iif(trouble IN (:missing, :corrupt), '', trouble)
WHERE doubt <> '' AND id NOT IN (SELECT message FROM verdict)
"""
_DOUBTED = """
UPDATE message SET doubt = v.doubt, doubted = :listed FROM verdict v
WHERE v.message = message.id AND (message.doubt <> v.doubt OR message.doubted > :listed)
"""
_KNOWN_NOW = """
DELETE FROM stranger WHERE queue_id IN (SELECT queue_id FROM alias)
    OR queue_id NOT IN (SELECT queue_id FROM spool)
"""
_STRANGE = """
INSERT OR IGNORE INTO stranger SELECT queue_id, ? FROM spool LEFT JOIN alias USING (queue_id)
WHERE alias.queue_id IS NULL AND spool.queue <> 'maildrop'
"""
_SWEPT = """
UPDATE message SET fate = :deleted, ended = :time, ended_by = :by, trouble = '', doubt = '',
    doubted = NULL WHERE id IN (SELECT id FROM message
        WHERE doubt <> '' AND doubt = 'missing' AND doubted <= :sure AND accepted <= :time + 1
        ORDER BY accepted LIMIT :messages)
"""

# What is gone as it was asked to be, and no line says so: root/changes.py unlinks a corrupt one.
_OPEN = """
doubt <> '' AND doubt = 'missing' AND doubted <= ?
AND asked <> '' AND json_extract(asked, '$[1]') = 'delete'
"""
_DONE = f"""
UPDATE action SET done = 1
WHERE id IN (SELECT json_extract(asked, '$[0]') FROM message WHERE {_OPEN})
"""  # noqa: S608  our words
_DELETED = f"""
UPDATE message SET fate = {DELETED}, ended = json_extract(asked, '$[3]'),
    ended_by = json_extract(asked, '$[2]'), asked = '', trouble = '', doubt = '', doubted = NULL
WHERE {_OPEN}
"""  # noqa: S608


class Auditor:
    """Compares within one transaction of its caller's."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._counts: Counter[str] = Counter()

    def audit(self, listing: Iterable[Entry], listed: float, read: float) -> None:
        """Take a listing begun at ``listed``; the log was last read to its end at ``read``."""
        database = self._database
        database.executemany("INSERT OR REPLACE INTO spool VALUES (?, ?, ?, ?)", _rows(listing))
        database.execute(_JUDGE_HERE, {"thrown": THROWN_AWAY})
        database.execute(_JUDGE_BACK)
        database.execute(_SETTLED, {"missing": MISSING, "corrupt": CORRUPT})
        database.execute(_DOUBTED, {"listed": listed})
        sure = min(listed, read) - GRACE
        self._act_on_doubts(sure, listed)
        self._take_in(sure, listed)
        add(database, self._counts)

    def _act_on_doubts(self, sure: float, listed: float) -> None:
        """Believe the doubts that are older than ``sure``."""
        database = self._database
        database.execute(_DONE, (sure,))
        self._counts["deleted"] += database.execute(_DELETED, (sure,)).rowcount
        self._act_on_sweeps(sure, listed)
        for doubt, trouble in (("missing", MISSING), ("corrupt", CORRUPT)):
            database.execute(
                "UPDATE message SET trouble = ? WHERE doubt = ? AND doubt <> '' AND doubted <= ?"
                " AND trouble = ''",
                (trouble, doubt, sure),
            )
        rows = database.execute(
            "SELECT queue_id FROM message WHERE doubt IN ('held', 'free', 'arrived', 'back')"
            " AND doubt <> '' AND doubted <= ?",
            (sure,),
        )
        self._each([row[0] for row in rows], listed)

    def _act_on_sweeps(self, sure: float, listed: float) -> None:
        """Let what is missing be deleted where postsuper said that it deleted so many."""
        database = self._database
        for number, time, messages in database.execute(
            "SELECT rowid, time, messages FROM sweep ORDER BY time"
        ).fetchall():
            names = {"deleted": DELETED, "time": time, "by": UNKNOWN, "sure": sure}
            swept = database.execute(_SWEPT, names | {"messages": messages}).rowcount
            self._counts["deleted"] += swept
            if swept:
                database.execute(
                    "INSERT INTO action (time, verb, queue_id, by, source, done)"
                    " VALUES (?, 'delete', ?, ?, '', 1)",
                    (time, f"{swept} messages", UNKNOWN),
                )
            database.execute(
                "UPDATE sweep SET messages = messages - ?, heard = coalesce(heard, ?)"
                " WHERE rowid = ?",
                (swept, listed, number),
            )
        # What is still open when all that was missing has been judged was never in the ledger.
        database.execute("DELETE FROM sweep WHERE messages = 0 OR heard <= ?", (sure,))

    def _each(self, queue_ids: list[str], listed: float) -> None:
        """Put right the messages that lie elsewhere than the ledger says."""
        for start in range(0, len(queue_ids), _CHUNK):
            chunk = queue_ids[start : start + _CHUNK]
            book = Book(self._database)
            book.fetch(chunk)
            for queue_id in chunk:
                leaf = book.find(queue_id)
                place = self._place(leaf) if leaf else None
                if leaf and place:
                    self._put_right(leaf, place, listed)
            book.write()

    def _place(self, leaf: Leaf) -> tuple[str, str, int] | None:
        """Return ID, queue and size of a message's file."""
        found = self._database.execute(
            "SELECT s.queue_id, s.queue, s.size FROM alias a JOIN spool s USING (queue_id)"
            " WHERE a.message = ? ORDER BY s.queue_id = ? DESC",
            (leaf.message.id, leaf.message.queue_id),
        ).fetchone()
        return found and (str(found[0]), str(found[1]), int(found[2]))

    def _put_right(self, leaf: Leaf, place: tuple[str, str, int], listed: float) -> None:
        message = leaf.message
        held = place[1] == "hold"
        if message.fate == ARRIVING:
            message.accepted = message.queued
            self._counts["accepted"] += 1
            self._counts[ACCEPTED] += 1
        elif message.ended:
            self._counts["reopened"] += 1
            for recipient in leaf.to.values():
                recipient.done = 0
        message.queue_id, message.size = place[0], message.size or place[2]
        self._counts["held" if held else "released"] += message.fate in (WAITING, HELD)
        by = NOBODY if message.fate == ARRIVING else self._holder(leaf)
        message.fate, message.ended, message.ended_by = HELD if held else WAITING, None, ""
        message.held, message.held_by = (listed, by) if held else (None, "")
        message.doubt, message.doubted = "", None

    def _holder(self, leaf: Leaf) -> str:
        """Return by whom a hold is of which no line told: retention's, if it asked for it last."""
        found = self._database.execute(
            "SELECT verb, by FROM action WHERE message = ? ORDER BY id DESC LIMIT 1",
            (leaf.message.id,),
        ).fetchone()
        return RETENTION if found == ("hold", RETENTION) else UNKNOWN

    def _take_in(self, sure: float, listed: float) -> None:
        """Enter the messages that the log has not told of, listing after listing."""
        database = self._database
        database.execute(_KNOWN_NOW)
        database.execute(_STRANGE, (listed,))
        rows = database.execute(
            "SELECT queue_id, queue, size, mtime FROM stranger JOIN spool USING (queue_id)"
            " WHERE since <= ?",
            (sure,),
        ).fetchall()
        for start in range(0, len(rows), _CHUNK):
            book = Book(database)
            book.fetch([])
            for queue_id, queue, size, mtime in rows[start : start + _CHUNK]:
                self._enter(book, Entry(queue, queue_id, size, mtime), listed)
            book.write()
        database.execute("DELETE FROM stranger WHERE since <= ?", (sure,))

    def _enter(self, book: Book, entry: Entry, listed: float) -> None:
        message = book.begin(entry.id, min(entry.mtime, listed)).message
        message.accepted, message.origin, message.size = message.queued, FOUND, entry.size
        message.fate = WAITING
        if entry.queue == "hold":
            message.fate, message.held, message.held_by = HELD, listed, UNKNOWN
        for name in ("accepted", ACCEPTED, "found"):
            self._counts[name] += 1


def _rows(listing: Iterable[Entry]) -> Iterable[tuple[str, str, int, float]]:
    return ((each.id, each.queue, each.size, each.mtime) for each in listing)


def prepare(database: sqlite3.Connection) -> None:
    """Make the temporary tables that an audit fills; outside of a transaction."""
    database.executescript(_TABLES)


def unknown(database: sqlite3.Connection, limit: int) -> list[str]:
    """Return the IDs of messages that only the spool told of, not yet described."""
    rows = database.execute(
        "SELECT queue_id FROM message WHERE origin = 'spool' AND fate IN (1, 2) LIMIT ?", (limit,)
    )
    return [str(row[0]) for row in rows]


def describe(database: sqlite3.Connection, found: Iterable[postfix.Message], veil: Veil) -> None:
    """Fill in sender, arrival, size and recipients, where the log has not told them."""
    messages = {each.id: each for each in found}
    book = Book(database)
    book.fetch(messages)
    for queue_id, described in messages.items():
        leaf = book.find(queue_id)
        if leaf is None or leaf.message.origin != FOUND:
            continue
        message = leaf.message
        message.origin = DESCRIBED
        message.sender = message.sender or veil.sender(described.sender)
        message.accepted, message.size = float(described.arrival), described.size
        for each in described.recipients:
            shown = veil.recipient(each.address)
            recipient = Recipient(shown, domain(each.address), words=veil.words(each.reason))
            recipient.why = class_of(each.reason)
            leaf.to.setdefault(shown, recipient)
    book.write()

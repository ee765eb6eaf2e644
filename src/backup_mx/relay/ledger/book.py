"""The messages that one batch of log lines speaks of: fetched at once, written back at once.

Of a message's recipients only those are fetched that the lines name: a stranger may write to a
thousand of them at a time, and a batch speaks of thousands of messages.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from backup_mx.relay.ledger.schema import ACCEPTED, ARRIVING, HELD, WAITING
from backup_mx.relay.queue import reasons

RUNS = 50
"""How many earlier runs of attempts are kept for one message."""

FEW = 2
"""A message's recipients are fetched with it, up to so many; of others only who is asked for."""

_BOUNCED = 2
_STEP = 500  # recipients that are in memory while all of a message's are looked through


@dataclass(slots=True)
class Recipient:
    """A recipient of a message, and his latest run of equal attempts; see schema.recipient."""

    address: str
    domain: str
    done: int = 0
    status: str = ""
    why: str = reasons.NEW
    words: str = ""
    dsn: str = ""
    relay: str = ""
    first: float = 0.0
    last: float = 0.0
    times: int = 0
    total: int = 0


@dataclass(slots=True)
class Message:
    """A message with all its queue IDs; see schema.message."""

    id: int
    queue_id: str
    fate: int = ARRIVING
    why: str = reasons.NEW
    domain: str = ""
    accepted: float = 0.0
    queued: float = 0.0
    ended: float | None = None
    size: int = 0
    recipients: int = 0
    sender: str = ""
    message_id: str = ""
    client: str = ""
    origin: str = ""
    held: float | None = None
    held_by: str = ""
    released: float | None = None
    ended_by: str = ""
    trouble: str = ""
    doubt: str = ""
    doubted: float | None = None
    parked: int = 0
    expired: int = 0
    notice: str = ""
    asked: str = ""


_MESSAGE = tuple(each.name for each in fields(Message))
_RECIPIENT = tuple(each.name for each in fields(Recipient))
_message = attrgetter(*_MESSAGE)
_FATE = _MESSAGE.index("fate")
_recipient = attrgetter(*_RECIPIENT)


def _made(row: tuple[Any, ...]) -> Recipient:
    return Recipient(*row)


def _marks(count: int) -> str:
    return ", ".join("?" * count)


_IDS = "(SELECT value FROM json_each(?))"
_FETCH_ALIAS = f"SELECT queue_id, message FROM alias WHERE queue_id IN {_IDS}"  # noqa: S608  ours
_FETCH = f"SELECT {', '.join(_MESSAGE)} FROM message WHERE id IN {_IDS}"  # noqa: S608
_FETCH_FEW = f"SELECT message, {', '.join(_RECIPIENT)} FROM recipient WHERE message IN {_IDS}"  # noqa: S608
_FETCH_ONE = f"SELECT {', '.join(_RECIPIENT)} FROM recipient WHERE message = ? AND address = ?"  # noqa: S608
_FETCH_STEP = f"""SELECT {", ".join(_RECIPIENT)} FROM recipient WHERE message = ? AND address > ?
    ORDER BY address LIMIT {_STEP}"""  # noqa: S608
_BOUNCES = f"SELECT address FROM recipient WHERE message = ? AND done = {_BOUNCED}"  # noqa: S608
_SETTLE = f"""SELECT message, count(*), group_concat(DISTINCT iif(done, NULL, why)),
    group_concat(DISTINCT iif(done, NULL, domain)) FROM recipient
    WHERE message IN {_IDS} GROUP BY message"""  # noqa: S608
_INSERT = f"INSERT INTO message ({', '.join(_MESSAGE)}) VALUES ({_marks(len(_MESSAGE))})"  # noqa: S608
_UPDATE = f"UPDATE message SET {', '.join(f'{name} = ?' for name in _MESSAGE[1:])} WHERE id = ?"  # noqa: S608
_PUT_TO = f"INSERT OR REPLACE INTO recipient (message, {', '.join(_RECIPIENT)}) VALUES ({_marks(len(_RECIPIENT) + 1)})"  # noqa: S608, E501
_RUN = ("address", "status", "why", "words", "dsn", "relay", "first", "last", "times")
_run = attrgetter(*_RUN)
_INSERT_RUN = f"INSERT INTO attempt (message, {', '.join(_RUN)}) VALUES ({_marks(len(_RUN) + 1)})"  # noqa: S608
_TRIM_RUNS = """DELETE FROM attempt WHERE message = :id AND id <= (
    SELECT id FROM attempt WHERE message = :id ORDER BY id DESC LIMIT 1 OFFSET :keep)"""


class People:
    """A message's recipients by address; they stay in the ledger until they are asked for.

    stored says that some may stand there; the others are all in hand.
    """

    __slots__ = ("_database", "_hand", "_number", "_told", "stored", "touched")

    def __init__(self, database: sqlite3.Connection, number: int, *, stored: bool) -> None:
        self._database = database
        self._number = number
        self._hand: dict[str, Recipient] = {}
        self._told: dict[str, tuple[object, ...]] = {}
        self.stored = stored
        self.touched = False

    def take(self, row: tuple[object, ...]) -> Recipient:
        """Take in hand what stands in the ledger."""
        each = self._hand[str(row[0])] = _made(row)
        self._told[each.address] = row
        return each

    def get(self, address: str) -> Recipient | None:
        """Return a recipient, if he is one."""
        if address in self._hand or not self.stored:
            return self._hand.get(address)
        row = self._database.execute(_FETCH_ONE, (self._number, address)).fetchone()
        return self.take(row) if row else None

    def setdefault(self, address: str, recipient: Recipient) -> Recipient:
        """Return a recipient; he is this one if there is none yet."""
        known = self.get(address)
        if known is None:
            known = self[address] = recipient
        return known

    def __setitem__(self, address: str, recipient: Recipient) -> None:
        self._hand[address] = recipient

    def values(self) -> Iterator[Recipient]:
        """Yield all of them. Those not in hand are written back as they pass, so run to the end."""
        yield from self._hand.values()
        last = ""
        while self.stored:
            rows = self._database.execute(_FETCH_STEP, (self._number, last)).fetchall()
            passing = [(_made(row), row) for row in rows if row[0] not in self._hand]
            yield from (each for each, _ in passing)
            changed = [_recipient(each) for each, row in passing if _recipient(each) != row]
            self._database.executemany(_PUT_TO, [(self._number, *row) for row in changed])
            self.touched = self.touched or bool(changed)
            if len(rows) < _STEP:
                return
            last = rows[-1][0]

    @property
    def hand(self) -> dict[str, Recipient]:
        """Those that are in hand."""
        return self._hand

    @property
    def bounced(self) -> bool:
        """Whether somebody got it back."""
        if any(each.done == _BOUNCED for each in self._hand.values()):
            return True
        if not self.stored:
            return False
        rows = self._database.execute(_BOUNCES, (self._number,))
        return any(row[0] not in self._hand for row in rows)

    def take_over(self, other: People) -> None:
        """Take all of another message's that are not known here; it has none afterwards."""
        for address, recipient in other._hand.items():
            self.setdefault(address, recipient)
        numbers = (self._number, other._number)
        self._database.execute(
            "UPDATE OR IGNORE recipient SET message = ? WHERE message = ?", numbers
        )
        self._database.execute("DELETE FROM recipient WHERE message = ?", numbers[1:])
        self.stored = self.stored or other.stored
        self.touched = True

    def changed(self) -> Iterator[tuple[object, ...]]:
        """Yield the rows of those in hand who are not as they stood in the ledger."""
        for address, recipient in self._hand.items():
            row = _recipient(recipient)
            if self._told.get(address) != row:
                self.touched = True
                yield (self._number, *row)


@dataclass(slots=True)
class Leaf:
    """A message in hand: what stood in the ledger, its recipients, and whether it is to go."""

    message: Message
    to: People
    stood: tuple[object, ...] | None = None
    gone: bool = False

    @property
    def bounced(self) -> bool:
        """Whether somebody will not get it but by the notice."""
        return bool(self.message.expired) or self.to.bounced

    @property
    def unsettled(self) -> bool:
        """Whether the ledger has to be asked for what follows from its recipients."""
        moved = self.stood is not None and self.stood[_FATE] != self.message.fate
        return self.to.stored and (self.to.touched or moved)

    def settle(
        self, people: int, whys: Iterable[str] | None, domains: Collection[str] = ()
    ) -> None:
        """Bring up to date what follows from the recipients: domain, reason, how many.

        whys and domains are those of who waits; whys is None where they are what they were.
        """
        message = self.message
        hand = self.to.hand.values()
        if hand and not message.domain:
            message.domain = next((each for each in hand if not each.done), next(iter(hand))).domain
        if domains and message.domain not in domains:
            message.domain = min(domains)
        message.recipients = max(message.recipients, people)
        if message.fate == HELD:
            message.why = reasons.HELD
        elif message.fate == WAITING and whys is not None:
            message.why = reasons.worst(whys)


class Book:
    """Works within one transaction of its caller's: fetch, change what is in hand, write."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._leaves: dict[int, Leaf] = {}
        self._aliases: dict[str, int] = {}
        self._named: dict[str, int] = {}
        self._runs: list[tuple[int, tuple[object, ...]]] = []
        self._merged: list[tuple[int, int]] = []
        self._next = 0
        self.counts: Counter[str] = Counter()

    def fetch(self, queue_ids: Iterable[str]) -> None:
        """Take in hand the messages with these IDs."""
        asked = json.dumps(sorted(queue_ids))
        self._aliases = dict(self._database.execute(_FETCH_ALIAS, (asked,)))
        numbers = json.dumps(sorted(set(self._aliases.values())))
        few: list[int] = []
        for row in self._database.execute(_FETCH, (numbers,)):
            message = Message(*row)
            people = People(self._database, message.id, stored=message.recipients > FEW)
            self._leaves[message.id] = Leaf(message, people, row)
            if not people.stored:
                few.append(message.id)
        for row in self._database.execute(_FETCH_FEW, (json.dumps(few),)):
            self._leaves[row[0]].to.take(row[1:])
        newest = self._database.execute("SELECT max(id) FROM message").fetchone()[0] or 0
        kept = self._database.execute("SELECT value FROM meta WHERE key = 'next'").fetchone()
        self._next = max(newest + 1, int(kept[0]) if kept else 1)

    def find(self, queue_id: str) -> Leaf | None:
        """Return the message that has, or had, that ID."""
        number = self._aliases.get(queue_id)
        return None if number is None else self._leaves.get(number)

    def begin(self, queue_id: str, time: float) -> Leaf:
        """Begin a message with that ID; a finished one that had it loses it."""
        message = Message(self._next, queue_id, queued=time)
        leaf = Leaf(message, People(self._database, self._next, stored=False))
        self._leaves[self._next] = leaf
        self.name(queue_id, leaf)
        self._next += 1
        return leaf

    def name(self, queue_id: str, leaf: Leaf) -> None:
        """Let a message be known by an ID, too."""
        if self._aliases.get(queue_id) != leaf.message.id:
            self._aliases[queue_id] = self._named[queue_id] = leaf.message.id

    def forget(self, leaf: Leaf) -> None:
        """Strike a message that never was one."""
        leaf.gone = True
        number = leaf.message.id
        for queue_id in [each for each, known in self._aliases.items() if known == number]:
            del self._aliases[queue_id]
            self._named.pop(queue_id, None)

    def merge(self, into: Leaf, other: Leaf) -> None:
        """Make one message of two that turn out to be one."""
        old, new = other.message.id, into.message.id
        if other.message.fate != ARRIVING:
            self.counts[ACCEPTED] -= 1
        for queue_id, known in list(self._aliases.items()):
            if known == old:
                self.name(queue_id, into)
        self._merged.append((new, old))
        into.to.take_over(other.to)
        into.message.domain = into.message.domain or other.message.domain
        other.gone = True

    def keep_run(self, leaf: Leaf, recipient: Recipient) -> None:
        """Put a recipient's run of attempts, which is over, with the earlier ones."""
        self._runs.append((leaf.message.id, _run(recipient)))

    def write(self) -> None:
        """Write back what has changed."""
        database = self._database
        self._strike([leaf for leaf in self._leaves.values() if leaf.gone and leaf.stood])
        kept = [leaf for leaf in self._leaves.values() if not leaf.gone]
        database.executemany(_PUT_TO, [row for leaf in kept for row in leaf.to.changed()])
        self._settle(kept)
        rows = [(leaf, _message(leaf.message)) for leaf in kept]
        database.executemany(_INSERT, [row for leaf, row in rows if leaf.stood is None])
        changed = [row for leaf, row in rows if leaf.stood is not None and row != leaf.stood]
        database.executemany(_UPDATE, [(*row[1:], row[0]) for row in changed])
        database.executemany("INSERT OR REPLACE INTO alias VALUES (?, ?)", self._named.items())
        self._write_runs()
        database.execute("INSERT OR REPLACE INTO meta VALUES ('next', ?)", (str(self._next),))
        add(database, self.counts)

    def _settle(self, leaves: list[Leaf]) -> None:
        """Let each message say what follows from its recipients, who are written by now."""
        asked = json.dumps([leaf.message.id for leaf in leaves if leaf.unsettled])
        found = {row[0]: row[1:] for row in self._database.execute(_SETTLE, (asked,))}
        for leaf in leaves:
            hand = leaf.to.hand.values()
            if leaf.message.id in found:
                people, *told = found[leaf.message.id]
                whys, domains = (each.split(",") if each else () for each in told)
                leaf.settle(people, whys, domains)
            else:
                waiting = [each for each in hand if not each.done]
                whys = None if leaf.to.stored else [each.why for each in waiting]
                domains = () if leaf.to.stored else [each.domain for each in waiting]
                leaf.settle(len(hand), whys, domains)

    def _strike(self, leaves: list[Leaf]) -> None:
        """Delete messages that never were, or that have become part of another."""
        merged = {old for _, old in self._merged}
        numbers = [(leaf.message.id,) for leaf in leaves]
        database = self._database
        for table in ("alias", "attempt", "action"):
            database.executemany(f"UPDATE {table} SET message = ? WHERE message = ?", self._merged)  # noqa: S608
        # A trigger counts what is deleted from the spool's fates only, as prune needs it.
        database.executemany("UPDATE message SET fate = 0 WHERE id = ?", numbers)
        database.executemany("DELETE FROM message WHERE id = ?", numbers)
        database.executemany("DELETE FROM recipient WHERE message = ?", numbers)
        lost = [each for each in numbers if each[0] not in merged]
        database.executemany("DELETE FROM alias WHERE message = ?", lost)
        database.executemany("DELETE FROM attempt WHERE message = ?", lost)

    def _write_runs(self) -> None:
        merged = {old: new for new, old in self._merged}
        runs = [(merged.get(number, number), run) for number, run in self._runs]
        self._database.executemany(_INSERT_RUN, [(number, *run) for number, run in runs])
        trimmed = [{"id": number, "keep": RUNS} for number in {number for number, _ in runs}]
        self._database.executemany(_TRIM_RUNS, trimmed)


def add(database: sqlite3.Connection, counts: Counter[str]) -> None:
    """Add to the counters."""
    database.executemany(
        "INSERT INTO counter VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET value = value + excluded.value",
        [(name, value) for name, value in counts.items() if value],
    )

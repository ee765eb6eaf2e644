"""The ledger for those who only read it: verbs, dashboard. From any process, while it is written.

A reader sees one moment. It opens the file read-only; the companions that SQLite may have to make
for that belong to the ledger's owner even when root reads (os_unix.c: robustFchown).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backup_mx.errors import MachineError
from backup_mx.relay import state
from backup_mx.relay.ledger import schema, sums, typed, veil
from backup_mx.relay.ledger.rows import (
    Action,
    Attempt,
    Change,
    Difference,
    Filter,
    Recipient,
    Row,
    Sample,
    Story,
)
from backup_mx.relay.ledger.schema import PATH
from backup_mx.relay.ledger.veil import Veil
from backup_mx.relay.queue import reasons
from backup_mx.relay.state import Count, Snapshot, Sums

__all__ = ["PATH", "Filter", "Reader", "reading"]

SHOWN = 8
"""How many recipients a row names."""

_ROW = (
    "id, queue_id, fate, why, accepted, queued, ended, size, sender, message_id, domain,"
    " recipients, held_by || ended_by, trouble, origin, client"
)
_ROW_KINDS = "ititrr?itttitttt"
_RUN = "address, status, why, words, dsn, relay, first, last, times"
_RUN_KINDS = "ttttttrri"
_RECIPIENT_KINDS = f"i{_RUN_KINDS}tii"
_RECIPIENT = f"message, {_RUN}, domain, done, total"
_RANKS = {name: at for at, name in enumerate(reasons.CLASSES)}
_WHEN = " ".join(f"WHEN {name!r} THEN {at}" for name, at in _RANKS.items())
_FEW = f"""SELECT {_RECIPIENT} FROM recipient WHERE message IN (SELECT value FROM json_each(?))
    ORDER BY done"""  # noqa: S608  our words, here and below
_FIRST = f"SELECT {_RECIPIENT} FROM recipient WHERE message = ? ORDER BY done LIMIT {SHOWN}"  # noqa: S608
_ALL = f"SELECT {_RECIPIENT} FROM recipient WHERE message = ? ORDER BY done"  # noqa: S608
_TOTAL = "SELECT sum(total), max(iif(times, last, NULL)) FROM recipient WHERE message = ?"
_WORST = f"""SELECT words, min(CASE why {_WHEN} ELSE 99 END) FROM recipient
    WHERE message = ? AND NOT done AND times HAVING count(*)"""  # noqa: S608

_SEARCH = """(instr(m.queue_id, :search) OR instr(lower(m.sender), lower(:search))
    OR instr(m.message_id, :search)
    OR m.id IN (SELECT message FROM alias WHERE queue_id = :search)
    OR m.sender IN (SELECT value FROM json_each(:forms))
    OR m.message_id IN (SELECT value FROM json_each(:forms))
    OR EXISTS (SELECT 1 FROM recipient r WHERE r.message = m.id
        AND (instr(lower(r.address), lower(:search))
            OR r.address IN (SELECT value FROM json_each(:forms)))))"""
_DOMAIN = """(m.domain = :domain OR EXISTS (
    SELECT 1 FROM recipient r WHERE r.message = m.id AND r.domain = :domain))"""


@contextmanager
def reading(path: Path = PATH) -> Iterator[Reader]:
    """Open the ledger for reading; the block sees it as it was at one moment.

    Raises MachineError when there is none, or it cannot be read, here and in the block.
    """
    try:
        with closing(schema.readable(path)) as database:
            yield Reader(database)
    except sqlite3.Error as error:
        raise MachineError(f"the ledger {path} cannot be read: {error}") from None


@dataclass(frozen=True)
class _People:
    """Of a message's recipients the first, and what they add up to."""

    first: tuple[Recipient, ...] = ()
    attempts: int = 0
    last: float | None = None
    words: str = ""


class Reader:
    """What can be asked of the ledger. Raises sqlite3.Error, which reading() translates."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def snapshot(self) -> Snapshot | None:
        """Return the agent's last look at everything, None if it never took one."""
        found = self._database.execute("SELECT value FROM meta WHERE key = 'snapshot'").fetchone()
        try:
            return state.from_text(found[0]) if found else None
        except (KeyError, TypeError, ValueError):  # written by another version
            return None

    def sums(self) -> Sums:
        """Return the sum."""
        return sums.sums(self._database)

    def counts(self) -> tuple[Count, ...]:
        """Return how many messages wait or are held, by reason."""
        return sums.counts(self._database)

    def counters(self) -> dict[str, int]:
        """Return what was counted since the ledger began, by schema.COUNTERS."""
        return sums.counters(self._database)

    def waiting(self, wanted: Filter) -> list[Row]:
        """Return messages, those that came first first; finished ones, the last first."""
        found = list(self._listed(_ROW_KINDS, _ROW, wanted))
        return list(self._rows(found))

    def ids(self, wanted: Filter) -> list[str]:
        """Return the queue IDs alone, in the same order; a limit of 0 is none."""
        return [str(row[0]) for row in self._listed("t", "queue_id", wanted)]

    def _listed(self, kinds: str, columns: str, wanted: Filter) -> Iterator[tuple[Any, ...]]:
        where, names = self._where(wanted)
        order = "ended DESC" if _ended(wanted) else "accepted, id"
        # Left alone SQLite reads and sorts all that waits, anew for each page.
        by = "" if wanted.fate or wanted.why else "INDEXED BY message_here"
        return self._select(
            kinds,
            f"SELECT {columns} FROM message m {by} WHERE {where} ORDER BY {order}"  # noqa: S608
            " LIMIT :limit OFFSET :offset",
            names,
        )

    def _select(
        self, kinds: str, query: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> Iterator[tuple[Any, ...]]:
        return typed.select(self._database, kinds, query, values)

    def total(self, wanted: Filter) -> int:
        """Return how many messages there are, whatever the limit."""
        where, names = self._where(wanted)
        query = f"SELECT count(*) FROM message m WHERE {where}"  # noqa: S608  our words
        return int(self._database.execute(query, names).fetchone()[0])

    def _where(self, wanted: Filter) -> tuple[str, dict[str, object]]:
        """Return the condition, and its parameters. Raises KeyError for no fate of state.FATES."""
        code = sums.CODES[wanted.fate] if wanted.fate else 0
        here = "m.fate IN (1, 2)" + (f" AND m.fate = {code}" if code else "")
        parts = [f"m.ended IS NOT NULL AND m.fate = {code}" if _ended(wanted) else here]
        parts += [_DOMAIN] if wanted.domain else []
        parts += ["m.why = :why"] if wanted.why else []
        parts += ["m.accepted <= :before"] if wanted.older else []
        parts += [_SEARCH] if wanted.search else []
        return " AND ".join(parts), {
            "domain": wanted.domain.lower(),
            "why": wanted.why,
            "before": time.time() - wanted.older,
            "search": wanted.search,
            "forms": json.dumps(self.veil().forms(wanted.search)),
            "limit": wanted.limit or -1,
            "offset": wanted.offset,
        }

    def veil(self) -> Veil:
        """Return how addresses stand here: it knows the forms of one that is known."""
        try:
            return veil.stored(self._database)
        except (TypeError, ValueError) as error:
            raise sqlite3.DataError(f"its key cannot be read: {error}") from None

    def _rows(self, found: Sequence[tuple[Any, ...]]) -> Iterator[Row]:
        few = json.dumps([each[0] for each in found if each[11] <= SHOWN])
        known: dict[object, list[tuple[Any, ...]]] = defaultdict(list)
        for row in self._select(_RECIPIENT_KINDS, _FEW, (few,)):
            known[row[0]].append(row)
        for each in found:
            many = each[11] > SHOWN
            yield _row(each, self._many(each[0]) if many else _few(known[each[0]]))

    def _many(self, number: int) -> _People:
        """Let SQLite add them up: there may be a thousand, for each of many messages."""
        first = self._select(_RECIPIENT_KINDS, _FIRST, (number,))
        people = tuple(map(_recipient, first))
        attempts, last = next(self._select("??", _TOTAL, (number,)))
        words = next((row[0] for row in self._select("t?", _WORST, (number,))), "")
        return _People(people, attempts or 0, last, words)

    def message(self, queue_id: str) -> Story | None:
        """Return all that is known of the message that has, or had, that queue ID."""
        found = list(
            self._select(
                _ROW_KINDS,
                f"SELECT {_ROW} FROM message m"  # noqa: S608  our words
                " WHERE id = (SELECT message FROM alias WHERE queue_id = ?)",
                (queue_id,),
            )
        )
        for each, row in zip(found, self._rows(found), strict=True):
            people = self._select(_RECIPIENT_KINDS, _ALL, each[:1])
            return Story(
                row=row,
                ids=self._ids(each[0], row.id),
                origin=each[14],
                client=each[15],
                recipients=tuple(map(_recipient, people)),
                attempts=self._attempts(each[0]),
                actions=tuple(self._actions("message = ?", each[:1], "id")),
            )
        return None

    def _ids(self, number: int, current: str) -> tuple[str, ...]:
        """Return a message's IDs; long ones begin with the time, so that they sort by age."""
        rows = self._select(
            "t",
            "SELECT queue_id FROM alias WHERE message = ? AND queue_id <> ? ORDER BY queue_id",
            (number, current),
        )
        return (*(row[0] for row in rows), current)

    def _attempts(self, number: int) -> tuple[Attempt, ...]:
        query = f"SELECT {_RUN} FROM attempt WHERE message = ? ORDER BY id"  # noqa: S608
        return tuple(Attempt(*row) for row in self._select(_RUN_KINDS, query, (number,)))

    def differences(self, limit: int = 100) -> list[Difference]:
        """Return the messages of which ledger and spool say different things."""
        rows = self._select(
            "ittrrt",
            "SELECT id, queue_id, trouble, coalesce(doubted, queued), accepted, sender"
            " FROM message WHERE trouble <> '' ORDER BY id LIMIT ?",
            (limit,),
        )
        return [_difference(each, self._addresses(each[0])) for each in list(rows)]

    def _addresses(self, number: int) -> tuple[str, ...]:
        rows = self._select(
            "t", "SELECT address FROM recipient WHERE message = ? LIMIT ?", (number, SHOWN)
        )
        return tuple(row[0] for row in rows)

    def history(self, since: float, step: float = 60.0) -> list[Sample]:
        """Return the points of the queue's curve since a time, the first one first.

        Of every step seconds only the minute with the most messages: a month in 200 points.
        """
        rows = self._select(
            "riiiii",
            "SELECT minute * 60.0, max(messages), octets, held, accepted, delivered FROM sample"
            " WHERE minute >= ? GROUP BY minute / ? ORDER BY minute",
            (int(since // 60), max(1, int(step // 60))),
        )
        return [Sample(*row) for row in rows]

    def states(self, since: float) -> list[Change]:
        """Return the primaries' changes of state since a time, and for each the one before."""
        rows = self._select(
            "rttt",
            "SELECT time, name, state, words FROM change WHERE time >= :since OR id IN ("
            " SELECT max(id) FROM change WHERE time < :since GROUP BY name) ORDER BY id",
            {"since": since},
        )
        return [Change(*row) for row in rows]

    def actions(self, limit: int = 100) -> list[Action]:
        """Return what people, and the agent, did to messages, the last one first."""
        return list(self._actions("1", (), "id DESC", limit))

    def _actions(
        self, where: str, values: Sequence[object], order: str, limit: int = 1000
    ) -> Iterator[Action]:
        for time_, verb, queue_id, by, source, done in self._select(
            "rtttti",
            f"SELECT time, verb, queue_id, by, source, done FROM action WHERE {where}"  # noqa: S608
            f" ORDER BY {order} LIMIT {limit}",
            values,
        ):
            yield Action(time_, verb, queue_id, by, source, bool(done))


def _ended(wanted: Filter) -> bool:
    return wanted.fate in (state.DELIVERED, state.DELETED)


def _recipient(row: tuple[Any, ...]) -> Recipient:
    _, *run, domain, done, _ = row
    latest = Attempt(*run)
    return Recipient(latest.address, domain, bool(done), latest if latest.times else None)


def _difference(row: tuple[Any, ...], recipients: tuple[str, ...]) -> Difference:
    _, queue_id, trouble, since, accepted, sender = row
    return Difference(queue_id, trouble, since, accepted, sender, recipients)


def _few(rows: Sequence[tuple[Any, ...]]) -> _People:
    people = tuple(map(_recipient, rows))
    runs = [each.last for each in people if each.last and not each.done]
    worst = min(runs, key=lambda run: _RANKS.get(run.why, len(_RANKS)), default=None)
    return _People(
        first=people[:SHOWN],
        attempts=sum(row[-1] for row in rows),
        last=max((each.last.last for each in people if each.last), default=None),
        words=worst.words if worst else "",
    )


def _row(found: tuple[Any, ...], people: _People) -> Row:
    _, queue_id, fate, why, accepted, queued, ended, size, sender, message_id, domain = found[:11]
    return Row(
        id=queue_id,
        fate=sums.NAMES.get(fate, "arriving"),
        why=why,
        words=people.words,
        accepted=accepted,
        queued=queued,
        ended=ended,
        size=size,
        sender=sender,
        message_id=message_id,
        domain=domain,
        to=found[11],
        recipients=people.first,
        attempts=people.attempts,
        last=people.last,
        asked_by=found[12],
        trouble=found[13],
    )

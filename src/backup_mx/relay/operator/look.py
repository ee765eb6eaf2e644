"""What waits, as the agent's ledger tells; where the agent is dead, as Postfix itself does."""

from __future__ import annotations

import contextlib
import heapq
import os
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TypeVar

from backup_mx.errors import MachineError
from backup_mx.relay import state, text
from backup_mx.relay.ledger import PATH, query
from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.ledger.rows import Filter, Row
from backup_mx.relay.queue import postfix, reasons
from backup_mx.relay.state import Count, Snapshot

FRESH = 60.0
"""Seconds after which what the agent said last is history."""
_PAGE = 1000
_SBIN = "/usr/sbin"
_WORDS = 160  # characters of why the agent is blind

_Told = TypeVar("_Told")

Lines = Callable[[], contextlib.AbstractContextManager[Iterable[str]]]


@dataclass(frozen=True)
class Item:
    """A message that lies here; to counts its recipients, of whom the first ones are named.

    recipients pairs each address with the reason for which it waits.
    """

    id: str
    fate: str
    why: str
    accepted: float
    size: int
    sender: str
    to: int
    recipients: tuple[tuple[str, str], ...]
    trouble: str = ""

    @property
    def words(self) -> str:
        """All reasons, each once."""
        return "; ".join(dict.fromkeys(reason for _, reason in self.recipients if reason))


@dataclass(frozen=True)
class Listing:
    """The oldest of the messages that match; total counts all that match.

    counts, by fate and class, is None where a filter was given.
    """

    items: tuple[Item, ...]
    total: int
    counts: tuple[Count, ...] | None
    agent: bool = field(default=True)
    """Whether the agent's ledger told, and not Postfix."""


@contextlib.contextmanager
def agent(path: Path = PATH) -> Iterator[tuple[Reader | None, Snapshot | None]]:
    """Give the ledger and the last snapshot; without a ledger None, and None where it has none."""
    with contextlib.ExitStack() as stack:
        reader = snapshot = None
        try:
            reader = stack.enter_context(query.reading(path))
            snapshot = reader.snapshot()
        except (MachineError, sqlite3.Error):
            reader = None
        yield reader, snapshot


def alive(snapshot: Snapshot | None) -> bool:
    """Tell whether the agent lives, by how old its last snapshot is."""
    return snapshot is not None and abs(time.time() - snapshot.time) <= FRESH


def fresh(snapshot: Snapshot | None) -> bool:
    """Tell whether the agent lives and reads the log, so that its ledger tells what waits."""
    return snapshot is not None and alive(snapshot) and snapshot.blind is None


def stale(snapshot: Snapshot | None) -> str:
    """Say why the ledger does not know what the log says now, "" where it does."""
    if fresh(snapshot):
        return ""
    if snapshot is None or not alive(snapshot) or snapshot.blind is None:
        return "The agent is silent: what the log says since then is not in the ledger yet."
    since, why = text.moment(snapshot.blind.since), text.printable(snapshot.blind.why[:_WORDS])
    return f"The agent cannot read the log since {since} ({why}): the ledger is as old."


@contextlib.contextmanager
def postqueue() -> Iterator[Iterable[str]]:
    """Give the lines of ``postqueue -j`` as they come. Raises MachineError when it fails."""
    with _started(postfix.LIST) as program:
        yield program.stdout or ()
        said = program.stderr.read().strip() if program.stderr else ""
    if program.returncode:
        raise MachineError(said or f"postqueue ended with {program.returncode}")


def _started(argv: Sequence[str]) -> subprocess.Popen[str]:
    """Start a program that anybody may run, also who has logged in without ``sbin`` in his PATH."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SBIN}"
    try:
        return subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PATH": path},
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise MachineError(f"{argv[0]} cannot be run: {error.strerror}") from None


def listing(wanted: Filter, path: Path = PATH, lines: Lines = postqueue) -> Listing:
    """Return the oldest messages that lie here and are wanted, at most ``wanted.limit`` (0: all).

    Raises MachineError when neither the ledger nor Postfix tells.
    """

    def told(reader: Reader) -> Listing:
        items = map(of_ledger, _rows(reader, wanted))
        whole = wanted == Filter(limit=wanted.limit)
        counts = reader.counts() if whole else None
        return Listing(tuple(items), reader.total(wanted), counts)

    found = _of_agent(path, told)
    if found is not None:
        return found
    with lines() as stream:
        return of_postfix(stream, wanted)


def ids(wanted: Filter, path: Path = PATH, lines: Lines = postqueue) -> list[str]:
    """Return the IDs of all messages that lie here and are wanted, the oldest first.

    The limit does not count. Raises MachineError when neither the ledger nor Postfix tells.
    """
    wanted = replace(wanted, limit=0)
    found = _of_agent(path, lambda reader: reader.ids(wanted))
    if found is not None:
        return found
    with lines() as stream:
        return [each.id for each in of_postfix(stream, wanted).items]


def _of_agent(path: Path, ask: Callable[[Reader], _Told]) -> _Told | None:
    """Return what a ledger tells that is of now, None where there is none, or it is damaged."""
    with contextlib.suppress(MachineError), agent(path) as (reader, snapshot):
        if reader is not None and fresh(snapshot):
            return ask(reader)
    return None


def _rows(reader: Reader, wanted: Filter) -> Iterator[Row]:
    """Yield rows page by page, since one page is what has to fit into memory."""
    left = wanted.limit or None
    for page in count():
        size = _PAGE if left is None else min(_PAGE, left)
        rows = reader.waiting(replace(wanted, limit=size, offset=page * _PAGE))
        yield from rows
        if left is not None:
            left -= len(rows)
        if len(rows) < _PAGE or left == 0:
            return


def of_ledger(row: Row) -> Item:
    """Return what is shown of a ledger's row."""
    people = tuple(
        (each.address, each.last.words if each.last else "")
        for each in row.recipients
        if not each.done
    )
    return Item(
        id=row.id,
        fate=row.fate,
        why=row.why,
        accepted=row.accepted,
        size=row.size,
        sender=row.sender,
        to=row.to,
        recipients=people,
        trouble=row.trouble,
    )


def of_postfix(lines: Iterable[str], wanted: Filter) -> Listing:
    """Read ``postqueue -j`` as it comes; keep the oldest of what is wanted. Raises MachineError."""
    tally = _Tally()
    try:
        items = (item_of(postfix.message_of(line)) for line in lines if line.strip())
        kept = tally.watched(item for item in items if matches(item, wanted, time.time()))
        limit = wanted.limit
        oldest = heapq.nsmallest(limit, kept, key=_age) if limit else sorted(kept, key=_age)
    except ValueError as error:
        raise MachineError(str(error)) from None
    # A message that moves while postqueue looks is listed twice.
    items_once = {each.id: each for each in oldest}
    whole = wanted == Filter(limit=wanted.limit)
    counts = tally.counts if whole else None
    return Listing(tuple(items_once.values()), tally.messages.total(), counts, agent=False)


def item_of(message: postfix.Message) -> Item:
    """Return what is shown of a message that Postfix lists."""
    held = message.queue == "hold"
    return Item(
        id=message.id,
        fate=state.HELD if held else state.WAITING,
        why=message.why,
        accepted=message.arrival,
        size=message.size,
        sender=message.sender,
        to=len(message.recipients),
        recipients=tuple((each.address, each.reason) for each in message.recipients),
    )


def matches(item: Item, wanted: Filter, now: float) -> bool:
    """Tell whether a message is wanted, as the ledger's own filter does.

    Postfix does not list Message-IDs, so what is searched for is not found in them here.
    """
    people = [address.lower() for address, _ in item.recipients]
    domain = f"@{wanted.domain.lower()}"
    words = (item.sender.lower(), *people)
    return (
        (not wanted.domain or any(each.endswith(domain) for each in people))
        and (not wanted.why or item.why == wanted.why)
        and (not wanted.fate or item.fate == wanted.fate)
        and now - item.accepted >= wanted.older
        and (wanted.search in item.id or any(wanted.search.lower() in each for each in words))
    )


def _age(item: Item) -> tuple[float, str]:
    return item.accepted, item.id


class _Tally:
    """Counts what passes, by fate and class."""

    def __init__(self) -> None:
        self.messages: Counter[tuple[str, str]] = Counter()
        self.octets: Counter[tuple[str, str]] = Counter()
        self.oldest: dict[tuple[str, str], float] = {}

    def watched(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            key = item.fate, item.why
            self.messages[key] += 1
            self.octets[key] += item.size
            self.oldest[key] = min(self.oldest.get(key, item.accepted), item.accepted)
            yield item

    @property
    def counts(self) -> tuple[Count, ...]:
        keys = sorted(self.messages, key=lambda key: reasons.CLASSES.index(key[1]))
        return tuple(
            Count(*key, self.messages[key], self.octets[key], self.oldest[key]) for key in keys
        )

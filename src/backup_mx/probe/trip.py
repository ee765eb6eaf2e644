"""The way a message took, from its Received lines (RFC 5321, section 4.4). Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Literal

from backup_mx.relay.text import counted, span

Way = Literal["direct", "relay", "missing", "lost"]
WAYS: tuple[Way, ...] = ("direct", "relay", "missing")
"""Those that are known at once: missing is not there yet. What is lost takes somebody to ask."""

LINES, LONGEST = 100, 4096
"""How many Received lines are read, the last servers' first, and characters of each, at most."""

_BY = re.compile(r"\bby\s+([A-Za-z0-9_.-]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Hop:
    """A server that took the message, in small letters, and when, if its line says so."""

    by: str
    at: datetime | None


@dataclass(frozen=True)
class Trip:
    """How a message came: relay names the relay it took, "" where it came straight.

    seconds is the time from its hand-over to the mailbox, waited how long it lay on the relay.
    """

    way: Way
    seconds: float
    relay: str = ""
    waited: float = 0.0

    @property
    def words(self) -> str:
        """What there is to say of it: "direct", or "by the relay mx2, 12 min late"."""
        if self.way == "direct":
            return f"direct, in {span(self.seconds)}"
        return f"by the relay {self.relay}, {_minutes(self.seconds)} late"


def hops(head: bytes) -> tuple[Hop, ...]:
    """Return who took a message, the first one first; a line that names nobody is left out."""
    lines = BytesHeaderParser().parsebytes(head).get_all("Received", [])[:LINES]
    found = (_hop(" ".join(str(line)[:LONGEST].split())) for line in reversed(lines))
    return tuple(hop for hop in found if hop)


def trip(head: bytes, sent: float, relays: Mapping[str, str], arrived: float) -> Trip:
    """Tell how a message came.

    sent is when it was handed over, arrived when the mailbox got it, as far as one knows otherwise
    (seconds since 1970); relays are the names of relays by their hostnames.
    """
    way = hops(head)
    last = next((hop.at.timestamp() for hop in reversed(way) if hop.at), arrived)
    seconds = max(0.0, last - sent)
    for place, hop in enumerate(way):
        if hop.by in relays:
            return Trip("relay", seconds, relays[hop.by], _waited(way[place:]))
    return Trip("direct", seconds)


def _waited(way: Sequence[Hop]) -> float:
    """Return how long a message lay where ``way`` begins: until the next one took it."""
    for hop, following in pairwise(way):
        if hop.at and following.at:
            return max(0.0, (following.at - hop.at).total_seconds())
        break
    return 0.0


def _hop(line: str) -> Hop | None:
    path, date = line.rsplit(";", 1) if ";" in line else (line, "")
    found = _BY.search(_bare(path))
    return Hop(found[1].lower().rstrip("."), _moment(date)) if found else None


def _bare(path: str) -> str:
    """Return a line without what is in brackets, the sender's own word; in one pass."""
    kept: list[str] = []
    opened: list[int] = []
    for letter in path:
        if letter == "(":
            opened.append(len(kept))
        if letter == ")" and opened:
            kept[opened.pop() :] = " "
        else:
            kept.append(letter)
    return "".join(kept)


def _moment(date: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(date.strip())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _minutes(seconds: float) -> str:
    if seconds >= 7200:
        return span(seconds)
    return counted(round(seconds / 60), "minute")

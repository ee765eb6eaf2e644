"""What the root helper is asked and answers: one JSON object a line. Pure: no I/O.

A request is ``{"verb": …}`` with what the verb needs beside it; an answer one object, or, for
``list``, one a thousand files and a last one with ``"end": true``. What is no request is answered
``{"error": …}``, once.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backup_mx.relay.queue import queueid

SOCKET = Path("/run/backup-mx/helper.sock")
FLUSHED = Path("/run/backup-mx/flushed")
"""Touched when the helper has all mail tried for root, not the agent, who looks at its time."""
DRIFT = Path("/run/backup-mx/drift")
"""What the guard saw that is not as the last deploy left it; empty where all is."""
USER = "backup-mx"
LINE = 256 * 1024
"""The longest request, in bytes."""
BATCH = 500
"""How many messages are changed at a time; a request may name twice as many."""
MOST_IDS = 2 * BATCH
LONGEST_MAINTENANCE = 30 * 86_400
"""How far ahead maintenance may end, in seconds."""

CHANGES = ("hold", "release", "requeue", "delete")
GONE = "no such message"
DELIVERED_NOW = "is being delivered right now"
DELIVERED = "has been delivered"
RECEIVED_NOW = "is still being received"
DAMAGED = "lies in the queue of damaged messages (corrupt)"
BROKEN = "is damaged, and Postfix would delete it"
"""What the answer to a requeue of a damaged file begins with."""
NO_ROOM = "no room for a copy"
"""What the answer to a requeue begins with for which the disk is too full."""
NO_ID = "no queue ID"
NO_FILE = "is no queue file"


class RequestError(ValueError):
    """What came is no request; its text is for who asked."""


NAME = 64
"""The longest name of who asks, in characters."""
_WHO = re.compile(rf"[!-~]{{1,{NAME}}}")


@dataclass(frozen=True)
class Result:
    """What became of one message.

    done: it is now as it was asked to be; said is that, or why not, fit for a user.
    """

    id: str
    done: bool
    said: str


HELD_INSTEAD = "it is on hold now, where nothing expires"
"""What the answer ends with that a message cannot be requeued, where it had not long to live."""
HELD_BEFORE = "was on hold already"


def unfit(result: Result) -> bool:
    """Tell whether a message could not be requeued as it is damaged, or for want of room."""
    return result.said.startswith((BROKEN, NO_ROOM))


def lacks_room(result: Result) -> bool:
    """Tell whether a message could not be requeued for want of room, which may come back."""
    return result.said.startswith(NO_ROOM)


def held_instead(result: Result) -> bool:
    """Tell whether a message was put on hold because it could not be requeued."""
    return result.said.endswith(HELD_INSTEAD)


def held_before(result: Result) -> bool:
    """Tell whether a message that was to be put on hold was there already."""
    return result.said == HELD_BEFORE


@dataclass(frozen=True)
class Who:
    """Who asks, for the log: a name of printable characters without spaces, and an IP address."""

    name: str
    address: str = ""

    def __str__(self) -> str:
        """Render as it stands in the log: ``by=root from=198.51.100.7``."""
        return f"by={self.name}" + (f" from={self.address}" if self.address else "")


@dataclass(frozen=True)
class Request:
    """A request that has been checked; each verb reads what it needs of it."""

    verb: str
    ids: tuple[str, ...] = ()
    who: Who = field(default_factory=lambda: Who("unknown"))
    body: bool = False
    until: int = 0


def parse(line: bytes, now: float) -> Request:
    """Read a request. Raises RequestError on anything else."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise RequestError("a request is one JSON object a line") from None
    if not isinstance(found, dict) or not isinstance(found.get("verb"), str):
        raise RequestError('a request is a JSON object with a "verb"')
    reader = _READERS.get(found["verb"])
    if reader is None:
        raise RequestError("there is no such verb")
    return reader(found, now)


def _change(found: dict[str, Any], _now: float) -> Request:
    ids = found.get("ids")
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise RequestError('"ids" is a list of queue IDs')
    if len(ids) > MOST_IDS:
        raise RequestError(f"at most {MOST_IDS} messages at a time")
    return Request(found["verb"], tuple(dict.fromkeys(ids)), who=_who(found))


def _who(found: dict[str, Any]) -> Who:
    name, address = found.get("by"), found.get("from", "")
    if not isinstance(name, str) or not _WHO.fullmatch(name):
        raise RequestError('"by" is a name: up to 64 printable characters without spaces')
    if not isinstance(address, str):
        raise RequestError('"from" is an IP address')
    try:
        if address:
            ipaddress.ip_address(address.replace("%", "no zones"))
    except ValueError:
        raise RequestError('"from" is an IP address') from None
    return Who(name, address)


def _show(found: dict[str, Any], _now: float) -> Request:
    if not queueid.valid(found.get("id")):
        raise RequestError('"id" is a queue ID')
    return Request("show", (found["id"],), body=found.get("body") is True)


def _maintenance(found: dict[str, Any], now: float) -> Request:
    until = found.get("until")
    if not isinstance(until, int) or isinstance(until, bool):
        raise RequestError('"until" is a time in whole seconds since 1970, 0 to end it')
    if until and not now < until <= now + LONGEST_MAINTENANCE:
        raise RequestError(f'"until" is within the next {LONGEST_MAINTENANCE // 86_400} days')
    return Request("maintenance", who=_who(found), until=until)


def _plain(found: dict[str, Any], _now: float) -> Request:
    return Request(found["verb"])


_READERS: dict[str, Callable[[dict[str, Any], float], Request]] = {
    **dict.fromkeys(CHANGES, _change),
    **dict.fromkeys(("list", "flush"), _plain),
    "show": _show,
    "maintenance": _maintenance,
}

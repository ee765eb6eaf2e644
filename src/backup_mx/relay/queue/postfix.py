"""What a relay's Postfix lists and is set to, and the only reader of what its commands say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from backup_mx.relay.queue import reasons

LIST = ("postqueue", "-j")
FLUSH = ("postqueue", "-f")
_INTERVAL = re.compile(r"([0-9]{1,12})([smhdw]?)")
_SECONDS = {"": 86_400, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True)
class Recipient:
    """One who still waits for a message, and why, in the other server's words."""

    address: str
    reason: str


@dataclass(frozen=True)
class Message:
    """A message in the queue; arrival in seconds since 1970, size in bytes, sender "" for null."""

    queue: str
    id: str
    arrival: int
    size: int
    sender: str
    recipients: tuple[Recipient, ...]

    @property
    def why(self) -> str:
        """The class of the reason for which it waits (reasons.CLASSES)."""
        if self.queue == "hold":
            return reasons.HELD
        return reasons.worst(reasons.class_of(each.reason) for each in self.recipients)


def messages(listing: Iterable[str]) -> list[Message]:
    """Read ``postqueue -j``, an object a line (postqueue(1)): each message once, oldest first.

    The listing may name a message twice while it moves between queues; unknown members are
    ignored. Raises ValueError on a line that is not such an object.
    """
    found = {message.id: message for message in map(message_of, filter(str.strip, listing))}
    return sorted(found.values(), key=lambda message: (message.arrival, message.id))


def message_of(line: str) -> Message:
    """Read one line of the listing."""
    try:
        return from_json(json.loads(line))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"not a line of postqueue -j: {line[:200]!r}") from error


def from_json(entry: dict[str, Any]) -> Message:
    """Build a Message from a listing's object. Raises KeyError, TypeError, ValueError."""
    sender = text(entry["sender"])
    return Message(
        queue=text(entry["queue_name"]),
        id=text(entry["queue_id"]),
        arrival=int(entry["arrival_time"]),
        size=int(entry["message_size"]),
        sender="" if sender == "MAILER-DAEMON" else sender,
        recipients=tuple(
            Recipient(text(recipient["address"]), text(recipient.get("delay_reason", "")))
            for recipient in entry["recipients"]
        ),
    )


def text(value: object) -> str:
    """Return ``value`` if it is a string. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def seconds(interval: str) -> int:
    """Return one of Postfix's lifetimes, by default in days (postconf(5)). Raises ValueError."""
    found = _INTERVAL.fullmatch(interval.strip())
    if not found:
        raise ValueError(f"not a time of Postfix: {interval[:80]!r}")
    return int(found[1]) * _SECONDS[found[2]]

"""Values as a person reads them, and text from strangers made harmless to look at. Pure."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

from backup_mx.relay.state import (
    DELETED,
    DELIVERED,
    DOWN,
    FLAPPING,
    HELD,
    REFUSING,
    STARTING,
    WAITING,
)
from backup_mx.relay.state import UP as UP_STATE

STATE_WORDS = {
    STARTING: "is being looked at",
    UP_STATE: "is up",
    DOWN: "is down",
    FLAPPING: "comes and goes",
    REFUSING: "answers, but refuses recipients",
}
FATE_WORDS = {WAITING: "waiting", HELD: "on hold", DELIVERED: "delivered", DELETED: "deleted"}
WHY_WORDS = {
    "held": "taken out of delivery",
    "maintenance": "kept back on purpose",
    "refused": "the primary said no (5xx)",
    "capability": "needs what the primary lacks",
    "tls": "no TLS as the config wants it",
    "4xx": "the primary says: later",
    "unreachable": "no connection to the primary",
    "local": "the relay itself cannot deliver",
    "new": "not tried yet",
}
VERBS = {
    "hold": "Hold",
    "release": "Release",
    "requeue": "Requeue",
    "delete": "Delete",
}
DONE = {
    "hold": "put on hold",
    "release": "released",
    "requeue": "requeued",
    "delete": "deleted",
}

_JOINERS = "\u200c\u200d"  # of Persian, and of emoji: letters by any other name


def visible(text: str) -> str:
    """Return text on one line with every invisible character named: ``⟨U+202E⟩``.

    So nothing in it can end a line, hide, or turn the direction of what stands beside it.
    """
    return text if text.isprintable() else "".join(map(_seen, text))


def visible_lines(text: str) -> str:
    """Do the same for text of many lines, such as a message's headers; a tab stays one, too."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in lines)


def _seen(character: str) -> str:
    if character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs":
        return character
    return f"\u27e8U+{ord(character):04X}\u27e9"


def moment(time: float) -> str:
    """Return when, to the second: ``22 Nov 2026, 07:41:02 UTC``."""
    return _utc(time).strftime("%-d %b %Y, %H:%M:%S UTC")


def short_moment(time: float) -> str:
    """Return when, to the minute: ``22 Nov 07:41``."""
    return _utc(time).strftime("%-d %b %H:%M")


def machine_moment(time: float) -> str:
    """Return when, as HTML's time element has it."""
    return _utc(time).strftime("%Y-%m-%dT%H:%M:%SZ")


def _utc(time: float) -> datetime:
    return datetime.fromtimestamp(min(max(time, 0.0), 253_402_300_799.0), UTC)


def count(number: int) -> str:
    """Return a number with its thousands apart: ``100,000``."""
    return f"{number:,}"

"""An alarm, and the words that all of them share. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from backup_mx.relay.state import Snapshot

INFO, WARNING, FAILURE = "info", "warning", "failure"
WORDS = 200  # of another server's answer, at most


@dataclass(frozen=True)
class Alarm:
    """A condition that holds: told after ``grace`` seconds, again when worse or of more messages.

    over is what there is to say when it holds no longer.
    """

    key: str
    severity: str
    grace: float
    title: str
    body: str
    over: str = ""
    count: int = 0


def late(now: Snapshot, last: float | None, often: float, first: float) -> bool:
    """Tell whether something was last done too long ago, or not even ``first`` seconds after start.

    The agent's own start counts: of what was before that, it knows nothing.
    """
    if last is None:
        return now.time - now.started > first
    return now.time - last > often


def one_line(words: str) -> str:
    """Return what another server said as one line without anything that is not printable."""
    return "".join(each if each.isprintable() else " " for each in words)[:WORDS].strip()


def clock(time: float) -> str:
    """Return a moment as people read it: "22 Nov 11:58 UTC"."""
    return datetime.fromtimestamp(time, UTC).strftime("%d %b %H:%M UTC")

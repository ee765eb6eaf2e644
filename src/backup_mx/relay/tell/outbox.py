"""What is still to be told, place by place: bounded, merged, retried for days. Pure.

One place that does not answer delays nothing for the others, and what gathers for it meanwhile
goes as one message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from backup_mx.relay.tell.alarm import FAILURE, INFO, WARNING
from backup_mx.relay.tell.alarms import SUCCESS, Notice

PENDING = 50
"""The most notices that wait for one place; of more, the oldest go, and are counted."""
BODY = 4000
"""The most characters of one message."""
GAP_SECONDS, CROWDED_SECONDS = 10.0, 600.0
"""The least time between two messages to one place, and that after CROWD of them in an hour."""
CROWD = 10
HOUR = 3600.0
FIRST_RETRY, LAST_RETRY = 30.0, HOUR
GIVE_UP_SECONDS = 7 * 24 * HOUR
"""A notice older than this is not sent any more."""

_WORST = (INFO, SUCCESS, WARNING, FAILURE)


@dataclass(frozen=True)
class Place:
    """One place that is told: what it still has to be told, and when it may be.

    tries counts failures in a row, due is when it is told next, sent when it was (last hour only),
    dropped how many notices were too many or too old for it.
    """

    pending: tuple[Notice, ...] = ()
    tries: int = 0
    due: float = 0.0
    sent: tuple[float, ...] = ()
    dropped: int = 0

    def add(self, notices: Iterable[Notice]) -> Place:
        """Queue notices; each replaces a waiting one of the same alarm and severity."""
        pending = list(self.pending)
        for new in notices:
            pending = [each for each in pending if _alike(each) != _alike(new)] + [new]
        over = max(0, len(pending) - PENDING)
        return replace(self, pending=tuple(pending[over:]), dropped=self.dropped + over)

    def wait(self, now: float) -> float:
        """Return the seconds until the next attempt; 0 where a wrong clock had set it too far."""
        return self.due - now if now < self.due <= now + LAST_RETRY else 0.0

    def message(self, now: float) -> Notice | None:
        """Return what to send now: all that waits as one message, or None."""
        if not self.pending or self.wait(now):
            return None
        return self.pending[0] if len(self.pending) == 1 and not self.dropped else self._digest()

    def _digest(self) -> Notice:
        last = self.pending[-1]
        severity = max((each.severity for each in self.pending), key=_WORST.index)
        lost = [f"({self.dropped} older notices are left out.)"] if self.dropped else []
        texts = [f"{each.title}\n{each.body}" for each in reversed(self.pending)]
        body = "\n\n".join([*lost, *texts])[:BODY]
        count = len(self.pending) + self.dropped
        return Notice("digest", severity, f"{last.title} (and {count - 1} more)", body, last.time)

    def succeeded(self, told: Iterable[Notice], now: float) -> Place:
        """Return the place after it took ``told``; what came meanwhile still waits."""
        gone = set(told)
        sent = (*(each for each in self.sent if 0 <= now - each < HOUR), now)
        gap = CROWDED_SECONDS if len(sent) >= CROWD else GAP_SECONDS
        pending = tuple(each for each in self.pending if each not in gone)
        return Place(pending, 0, now + gap, sent, 0)

    def failed(self, now: float) -> Place:
        """Return the place after it did not answer: later again, and without what is too old."""
        wait = min(FIRST_RETRY * 2.0**self.tries, LAST_RETRY)
        young = tuple(each for each in self.pending if now - each.time < GIVE_UP_SECONDS)
        dropped = self.dropped + len(self.pending) - len(young)
        tries = min(self.tries + 1, 32)
        return replace(self, pending=young, tries=tries, due=now + wait, dropped=dropped)


def _alike(notice: Notice) -> tuple[str, bool]:
    return notice.key, notice.severity == SUCCESS

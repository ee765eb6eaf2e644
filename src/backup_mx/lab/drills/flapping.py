"""The drill ``flapping``: a primary that comes and goes, again and again."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass

from backup_mx.errors import LabError
from backup_mx.lab.drills.base import DRAIN_SECONDS, PRIMARY, Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent

TIMES = 4
PERIOD = 20.0


@dataclass
class Flapping(Drill):
    """The drill ``flapping``: the primary's Postfix stops and starts every PERIOD seconds.

    A part of the mail arrives in each of the times that it is away.
    """

    name = "flapping"
    summary = "the primary comes and goes every 20 s: nothing is lost, and no storm of flushes"
    default_messages = 120

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Stop and start the primary's Postfix."""
        del pool
        self.need_the_agent()
        self.mailboxes.empty()
        flushes, deferred = self.flushes, self.relay.said("status=deferred")
        sent: list[Sent] = []
        try:
            for number in range(TIMES):
                sent += self.away(number)
                self.there()
            self.settle()
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            return sent, [str(error)]
        finally:
            self.primary.run(["systemctl", "start", "postfix"])
        attempts = self.relay.said("status=deferred") - deferred
        self.figures["flushes"] = self.flushes - flushes
        self.figures["failed attempts for each message"] = round(attempts / self.messages, 1)
        return sent, self.storm()

    @property
    def excusable(self) -> frozenset[str]:
        """The primary's stop may cut answers to the relay off, too."""
        return super().excusable | self.relay.answers(PRIMARY).unanswered

    @property
    def flushes(self) -> int:
        """How often the agent ever flushed."""
        found = self.agent.snapshot()
        return found.counters.get("flushes", 0) if found else 0

    def away(self, number: int) -> list[Sent]:
        """Stop it, send a share of the mail, and let the period pass."""
        ends = time.monotonic() + PERIOD
        self.primary.run(["systemctl", "stop", "postfix"])
        self.timeline.event("the primary stops taking mail", "down")
        share = len(range(number, self.messages, TIMES))
        sent = self.submit(f"{self.name}-{number}", share)
        wait_for("the next change", lambda: time.monotonic() > ends, timeout=2 * PERIOD)
        return sent

    def there(self) -> None:
        """Start it, and let the period pass."""
        ends = time.monotonic() + PERIOD
        self.primary.run(["systemctl", "start", "postfix"])
        self.timeline.event("the primary takes mail", "up")
        wait_for("the next change", lambda: time.monotonic() > ends, timeout=2 * PERIOD)

    def settle(self) -> None:
        """Wait until all is in the mailboxes."""
        wait_for("the sender's queue to empty", self.sender_is_empty(), timeout=DRAIN_SECONDS)
        wait_for("the relay's queue to empty", self.flushed(lambda: self.relay.waiting == 0),
                 timeout=DRAIN_SECONDS)  # fmt: skip
        self.timeline.event("the relay's queue is empty", "drained")
        self.filed()

    def storm(self) -> list[str]:
        """Say so if there were more flushes than the primary's returns are a reason for."""
        count = self.figures["flushes"]
        most = 2 * TIMES
        if 0 < count <= most:
            return []
        return [f"{count:.0f} flushes for {TIMES} returns of the primary, not 1 to {most}"]

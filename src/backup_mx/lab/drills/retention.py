"""The drill ``retention``: the primary stays away for longer than mail should wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from backup_mx.errors import LabError
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent

RETENTION = 20
LIFETIME = 40
"""Postfix's own limit while the agent is dead, in seconds."""
GUARD_SECONDS = 2
QUICK = {"minimal_backoff_time": "5s", "maximal_backoff_time": "5s", "queue_run_delay": "5s"}
PATIENCE = 90.0


@dataclass
class Retention(Drill):
    """The drill ``retention``, with days made seconds.

    First the agent holds what waited too long, tells the operator, and releases it when the
    primary is back. Then it is dead, Postfix's own limit draws near, and the guard renews it.
    """

    name = "retention"
    summary = "mail waits too long: it is held and told, and nothing expires with the agent dead"
    default_messages = 40

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Let mail grow old twice."""
        self.need_the_agent()
        self.mailboxes.empty()
        sent: list[Sent] = []
        with self.configured(f'[queue]\nretention = "{RETENTION}s"\n'):
            failures = self.outlast(pool, sent, "held", self.until_held)
        with self.agent.dead(), self.guard(), self.altered(short(LIFETIME)):
            self.timeline.event(
                f"the agent is dead, and Postfix's limit {LIFETIME} s", "agent dead"
            )
            failures += self.outlast(pool, sent, "renewed", self.until_renewed)
        return sent, failures

    def guard(self) -> AbstractContextManager[None]:
        """Have the guard come every GUARD_SECONDS, not every minute, while the block runs."""
        return self.agent.guarded(GUARD_SECONDS)

    def outlast(
        self, pool: Executor, sent: list[Sent], name: str, waited: Callable[[], None]
    ) -> list[str]:
        """Let mail arrive without a primary, wait, and bring it back; add the mail to ``sent``."""
        self.cut_the_primary(empty=False)
        sending = pool.submit(self.submit, f"{self.name}-{name}")
        try:
            self.fill_the_relay(self.messages)
            self.timeline.event(f"{self.relay.waiting} messages wait on the relay")
            waited()
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            return [str(error)]
        finally:
            self.restore_the_primary()
            sent += sending.result()
        return self.drained(name)

    def drained(self, name: str) -> list[str]:
        """Wait for the drain; return what did not come about."""
        try:
            self.drain()
        except LabError as error:
            return [str(error)]
        self.figures[f"first delivery of what was {name}, s"] = self.figures.pop("first_delivery_s")
        return []

    def until_held(self) -> None:
        """Wait until everything is on hold and the operator was told."""
        began, now = time.monotonic(), time.time()
        wait_for("every message to be held", lambda: self.relay.held >= self.messages,
                 timeout=RETENTION + PATIENCE)  # fmt: skip
        self.figures["held after the last arrival, s"] = round(time.monotonic() - began, 1)
        self.timeline.event(f"{self.relay.held} messages are on hold", "held")
        self.tells("on hold: ", now)
        self.timeline.event("the operator is told")

    def until_renewed(self) -> None:
        """Wait until everything would have expired, and see that the guard was there before.

        Raises LabError when a message has expired.
        """
        began, requeued = time.monotonic(), self.relay.said("orig_id=")
        expired = self.relay.said("status=expired")
        wait_for(
            f"Postfix's limit of {LIFETIME} s to pass twice",
            lambda: time.monotonic() - began > 2 * LIFETIME,
            timeout=3 * LIFETIME,
        )
        self.figures["renewed by the guard"] = self.relay.said("orig_id=") - requeued
        if count := self.relay.said("status=expired") - expired:
            raise LabError(f"{count} messages expired")
        if self.figures["renewed by the guard"] < self.messages:
            raise LabError(f"{self.figures['renewed by the guard']:.0f} messages were renewed")
        self.timeline.event("each message was renewed, none expired", "renewed")


def short(seconds: int) -> dict[str, str]:
    """Return main.cf's values with which mail expires after so many seconds, tried all the time."""
    limit = f"{seconds}s"
    return {"maximal_queue_lifetime": limit, "bounce_queue_lifetime": limit, **QUICK}

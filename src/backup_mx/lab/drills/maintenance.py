"""The drill ``maintenance``: mail is kept for a while although the primary would take it."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass, field

from backup_mx.errors import LabError
from backup_mx.lab.drills.agent import PROGRAM
from backup_mx.lab.drills.base import RELAY_ADDRESS, Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent

SECONDS = 30
GUARD_SECONDS = 2
PATIENCE = 150.0


@dataclass
class Maintenance(Drill):
    """The drill ``maintenance``: once with the agent, once with the agent dead."""

    name = "maintenance"
    summary = "mail is accepted and kept although the primary answers, until it ends by itself"
    default_messages = 40

    _taken: list[Sent] = field(default_factory=list, repr=False)

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Announce maintenance twice, and wait for its end."""
        del pool
        self.need_the_agent()
        self.mailboxes.empty()
        try:
            with self.agent.guarded(GUARD_SECONDS):
                self.maintain("with the agent")
                with self.agent.dead():
                    self.timeline.event("the relay's agent is killed, and stays dead", "agent dead")
                    self.maintain("with the agent dead")
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            self.relay.machine.run([PROGRAM, "maintenance", "off"], check=False)
            return self._taken, [str(error)]
        return self._taken, []

    @property
    def accepted(self) -> frozenset[str]:
        """The Message-IDs that the relay has answered 250 to."""
        return frozenset(each.message_id for each in self._taken if each.code == 250)

    def maintain(self, how: str) -> None:
        """Go through one maintenance. Raises LabError when mail passes too early or too late."""
        before = self.mailboxes.count
        ends = time.monotonic() + SECONDS
        self.relay.machine.run([PROGRAM, "maintenance", "on", "--for", f"{SECONDS}s"])
        self.timeline.event(f"maintenance for {SECONDS} s, {how}", "maintenance")
        name = f"{self.name}-{len(self._taken)}"
        self._taken += self.submit(name, host=RELAY_ADDRESS)
        if not self.relay.welcome():
            raise LabError("the primary does not answer: nothing would show")
        wait_for("the maintenance's end", lambda: time.monotonic() > ends - 1, timeout=2 * SECONDS)
        if self.relay.waiting < self.messages or self.mailboxes.count > before:
            raise LabError(f"mail was handed over in the maintenance {how}")
        self.timeline.event(f"{self.relay.waiting} messages are kept")
        wait_for(f"the maintenance to end by itself {how}", lambda: self.relay.waiting == 0,
                 timeout=PATIENCE)  # fmt: skip
        self.figures[f"drained after its end, {how}, s"] = round(time.monotonic() - ends, 1)
        self.timeline.event("the relay's queue is empty", "drained")
        self.filed()

"""The drill ``outage``: the primary dies, the relay loses power in the middle, mail comes on."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass

from backup_mx.errors import LabError
from backup_mx.lab.corpus import corpus
from backup_mx.lab.drills.base import BUDGET_SECONDS, INTAKE_SECONDS, Drill, copies, seed
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent

DIRECT = 4  # a client that never came before may open ten connections a minute, no more


@dataclass
class Outage(Drill):
    """The drill ``outage``.

    Nothing is done by hand: the sender tries again as senders do, the relay finds its queue on its
    disk, and its agent sees that the primary is back. With the agent dead, Postfix alone does.
    """

    name = "outage"
    summary = "the primary dies, mail comes on, the relay loses power in the middle"

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Go through the outage."""
        self.deliver_directly()
        self.cut_the_primary()
        sending = pool.submit(self.submit, self.name)
        failures = self.lose_and_regain()
        return sending.result(), failures

    def deliver_directly(self) -> None:
        """Show that mail takes the primary while it is there."""
        before = self.mailboxes.count
        sent = self.sender.submit(corpus(DIRECT, seed()), "direct")
        wanted = before + copies(sent)
        wait_for(
            "mail to reach the primary directly", lambda: self.mailboxes.count >= wanted, timeout=60
        )
        if self.relay.waiting:
            raise LabError("mail took the relay although the primary was there")
        self.timeline.event(f"{len(sent)} messages went straight to the primary")

    def lose_and_regain(self) -> list[str]:
        """Go through the outage; return what did not come about. The primary is on afterwards."""
        try:
            self.fill_and_cut()
            self.restore_the_primary()
            self.drain()
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            if why := self.sender.why:
                self.timeline.event(f"mail waits at its sender: {why}")
            return [str(error)]
        finally:
            self.restore_the_primary()
        return self.late()

    def late(self) -> list[str]:
        """Say so if the agent let the first delivery wait for longer than the budget."""
        seconds = self.figures["first_delivery_s"]
        if self.agent_dead or not self.agent.installed or seconds <= BUDGET_SECONDS:
            return []
        return [
            f"the first delivery came {seconds} s after the primary's first good answer,"
            f" not within {BUDGET_SECONDS:.0f} s"
        ]

    def fill_and_cut(self) -> None:
        """Wait for half of the mail, cut the relay's power, and wait for the rest."""
        began = time.monotonic()
        half = self.messages // 2
        wait_for(
            f"{half} messages to be on the relay", self.relay_has(half), timeout=INTAKE_SECONDS
        )
        self.timeline.event(f"the relay's power is cut with {half} messages on it", "power cut")
        self.relay.machine.kill()
        self.relay.machine.boot()
        self.relay.machine.ready()
        self.relay.machine.listening(25)
        self.timeline.event("the relay answers again", "relay back")
        self.fill_the_relay(self.messages)
        self.figures["intake with the power cut, s"] = round(time.monotonic() - began, 1)
        self.figures["messages waiting on the relay"] = waiting = self.relay.waiting
        self.timeline.event(f"{waiting} messages wait on the relay")

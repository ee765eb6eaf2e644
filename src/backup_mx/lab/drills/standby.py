"""The drill ``standby``: a relay that asks to come back later while the primary is up."""

from __future__ import annotations

import smtplib
import time
from concurrent.futures import Executor
from dataclasses import dataclass, field

from backup_mx.errors import LabError
from backup_mx.lab import names, network
from backup_mx.lab.drills.base import RELAY_ADDRESS, Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent

OPTIONS = "[intake]\nstandby = true\n"
PATIENCE = 200.0  # the gate closes slowly: relay/decide/standby.STABLE
FEW = 4


@dataclass
class Standby(Drill):
    """The drill ``standby``: primary up, down, up again; then the agent dead."""

    name = "standby"
    summary = "the relay defers while the primary is up, accepts when it is down or nobody knows"
    default_messages = 40

    _taken: list[Sent] = field(default_factory=list, repr=False)

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Knock at the relay in each state of the primary and of the agent."""
        self.need_the_agent()
        self.mailboxes.empty()
        sent: list[Sent] = []
        try:
            with self.configured(OPTIONS):
                self.deferred("the primary is up")
                sent += self.outage(pool)
                self.deferred("the primary is up again")
                sent += self.without_the_agent()
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            return sent, [str(error)]
        return sent, []

    @property
    def accepted(self) -> frozenset[str]:
        """The Message-IDs that somebody has answered 250 to."""
        ours = frozenset(each.message_id for each in self._taken if each.code == 250)
        return super().accepted | ours

    def deferred(self, when: str) -> None:
        """See that everybody is put off: 4xx, and nothing is taken."""
        began = time.monotonic()
        wait_for(f"the relay to put mail off: {when}", lambda: 400 <= self.code() < 500,
                 timeout=PATIENCE)  # fmt: skip
        self.figures[f"puts off, {when}, after, s"] = round(time.monotonic() - began, 1)
        answers = {each.code for each in self.submit(f"{self.name}-early", FEW, RELAY_ADDRESS)}
        if not all(400 <= code < 500 for code in answers):
            raise LabError(f"{when}, and the relay answers {sorted(answers)}")
        self.timeline.event(f"{when}: the relay asks to come back later", "put off")

    def outage(self, pool: Executor) -> list[Sent]:
        """Cut the primary's power: from when it is known, mail is taken, and handed over later."""
        self.cut_the_primary(empty=False)
        began = time.monotonic()
        sending = pool.submit(self.submit, self.name)
        try:
            wait_for("the relay to take mail", lambda: self.code() == 250, timeout=PATIENCE)
            self.figures["takes mail after the cut, s"] = round(time.monotonic() - began, 1)
            self.timeline.event("the relay takes mail", "taken")
            self.fill_the_relay(self.messages)
        finally:
            self.restore_the_primary()
            sent = sending.result()
        self.drain()
        return sent

    def without_the_agent(self) -> list[Sent]:
        """Kill the agent: mail is taken, and goes on at once."""
        with self.agent.dead():
            self.timeline.event("the relay's agent is killed, and stays dead", "agent dead")
            self._taken = self.submit(f"{self.name}-dead", FEW, RELAY_ADDRESS)
            answers = {each.code for each in self._taken}
            if answers != {250}:
                raise LabError(f"the agent is dead, and the relay answers {sorted(answers)}")
            self.timeline.event("the relay takes mail, with nobody to ask")
            wait_for("it to be handed over", lambda: self.relay.waiting == 0, timeout=PATIENCE)
            self.filed()
        return self._taken

    def code(self) -> int:
        """Ask the relay, as a stranger's MTA, whether it takes mail for alice."""
        try:
            with network.inside(names.scoped(self.world.name, "internet")):
                session = smtplib.SMTP(RELAY_ADDRESS, 25, "mta.example.net", timeout=20)
            with session:
                session.ehlo()
                session.mail("someone@example.net")
                return session.rcpt("alice@example.org")[0]
        except (OSError, smtplib.SMTPException) as error:
            raise LabError(f"the relay does not answer: {error}") from error

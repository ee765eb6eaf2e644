"""The drill ``flood``: thousands of messages at once, past limits that are meant for strangers."""

from __future__ import annotations

import time
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from backup_mx.errors import LabError
from backup_mx.lab.corpus import RECIPIENTS, uniform
from backup_mx.lab.drills.base import Drill, seed
from backup_mx.lab.layout import ROLES
from backup_mx.lab.reconcile import Sent

OCTETS = 10_240
DRAIN_SECONDS = 900.0
CONNECTIONS = 20  # Postfix's own default for one destination
BUDGET_FACTOR, BUDGET_SECONDS = 1.1, 5.0
SAMPLE = "/srv/lab/straight.eml"
# What rspamd's external_relay reads the client from; a relay's own Received field looks like this.
TRACE = (
    b"Received: from mta.example.net (mta.example.net [192.0.2.25])\r\n"
    b"\tby mx2.example.org (Postfix) with ESMTP id 4straight\r\n"
    b"\tfor <alice@example.org>; Thu, 01 Jan 2026 00:00:00 +0000 (UTC)\r\n"
)


@dataclass
class Flood(Drill):
    """The drill ``flood``.

    First as many messages of the same size are put straight into the primary, by the way that a
    drain takes and from where it comes, as fast as it takes them; then they are drained.
    """

    name = "flood"
    summary = "thousands of messages are drained, past the primary's limits for strangers"
    default_messages = 5000

    _taken: frozenset[str] = field(default=frozenset(), repr=False)

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Measure the primary, and drain into it."""
        try:
            straight = self.inject()
        except LabError as error:
            return [], [f"the primary does not take mail from the relay's address: {error}"]
        throttled = self.throttled
        self.cut_the_primary()
        try:
            sent = self.fill(pool)
        finally:
            self.restore_the_primary()
        began = time.monotonic()
        try:
            self.drain(DRAIN_SECONDS)
        except LabError as error:
            return sent, [str(error)]
        self.compare(straight, time.monotonic() - began)
        count = self.throttled - throttled
        return sent, [f"the primary's anvil held the relay back {count} times"] if count else []

    def inject(self) -> float:
        """Put the drill's number of messages straight into the primary; return the seconds."""
        mail = uniform(1, seed(), OCTETS - len(TRACE))[0]
        self.relay.machine.path(SAMPLE).parent.mkdir(parents=True, exist_ok=True)
        self.relay.machine.path(SAMPLE).write_bytes((TRACE + mail.data).replace(b"\r\n", b"\n"))
        began = time.monotonic()
        with ThreadPoolExecutor(len(RECIPIENTS)) as pool:
            list(pool.map(self.source, RECIPIENTS))
        seconds = time.monotonic() - began
        self.timeline.event(f"{self.messages} messages went straight into the primary", "injected")
        self.filed()
        return seconds

    def source(self, recipient: str) -> None:
        """Inject one recipient's share from the relay's machine with smtp-source(1)."""
        share = len(range(RECIPIENTS.index(recipient), self.messages, len(RECIPIENTS)))
        drain_to = self.world.made_from.primaries["home"].drain_to
        sessions = min(CONNECTIONS // len(RECIPIENTS), share)
        argv = ["smtp-source", "-d", "-s", str(sessions), "-m", str(share), "-F", SAMPLE]
        argv += ["-M", "mx2.example.org", "-f", "post@example.net", "-t", recipient]
        argv += [f"{drain_to.host}:{drain_to.port}"]
        self.relay.machine.run(argv, timeout=DRAIN_SECONDS)

    def fill(self, pool: Executor) -> list[Sent]:
        """Hand everything to the relay, as a stranger with many connections does."""
        began = time.monotonic()
        mails = uniform(self.messages, seed(), OCTETS)
        relay = ROLES["mx2"].addresses[0]
        sent = pool.submit(self.sender.submit, mails, self.name, host=relay).result()
        self._taken = frozenset(each.message_id for each in sent if each.code == 250)
        self.figures["intake by the relay, s"] = round(time.monotonic() - began, 1)
        self.figures["messages waiting on the relay"] = self.relay.waiting
        self.timeline.event(f"{self.relay.waiting} messages wait on the relay")
        return sent

    @property
    def accepted(self) -> frozenset[str]:
        """The Message-IDs that the relay has answered 250 to."""
        return self._taken

    @property
    def throttled(self) -> int:
        """How often the primary's Postfix ever said that a client comes too often (anvil(8))."""
        log = self.primary.path(self.primary.role.mail_log)
        with log.open(errors="replace") as lines:
            return sum("rate limit exceeded" in line for line in lines)

    def compare(self, straight: float, drained: float) -> None:
        """Take the figures that the design's budget is about."""
        self.figures |= {
            "straight into the primary, s": round(straight, 1),
            "drained, s": round(drained, 1),
            "drained, messages a second": round(self.messages / drained, 1),
            "drained against straight, ratio": round(drained / straight, 2),
            "budget (1.1 times straight and 5 s), s": round(
                BUDGET_FACTOR * straight + BUDGET_SECONDS, 1
            ),
        }

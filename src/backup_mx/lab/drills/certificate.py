"""The drill ``certificate``: an authority that is down, is asked, certifies, renews, and hangs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field

from backup_mx.errors import LabError
from backup_mx.lab.authority import OPTIONS, Authority, Shown
from backup_mx.lab.drills.base import RELAY_ADDRESS, Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.layout import AUTHORITY, VALIDATORS
from backup_mx.lab.reconcile import Sent
from backup_mx.relay.certificate import ASKED, Asked, last
from backup_mx.relay.root.acme import CHAIN

UNIT = "backup-mx-acme@now.service"
TIMER = "backup-mx-acme.timer"
KEPT = ASKED.parent / AUTHORITY
LOG = KEPT / "log" / "letsencrypt.log"
LIFETIME = 90
"""For how many seconds a certificate holds: certbot renews it as soon as it is told to look."""
TIMER_SECONDS = 2.0
ASKING = 180.0  # certbot polls an authority that looks in vain for a minute or two
PATIENCE = 120.0
TOLD = 90.0  # the agent looks twice a minute
SLOWEST = 20.0  # seconds that the relay may take for all of a stage's mail


@dataclass
class Certificate(Drill):
    """The drill ``certificate``. Mail is sent straight to the relay in each of its states."""

    name = "certificate"
    summary = "an authority is down, then certifies, renews and hangs; mail passes all the time"
    default_messages = 60

    root: str = ""
    _taken: list[Sent] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        """Name the authority, too."""
        super().__post_init__()
        self.authority = Authority(self.world)

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Go through what can become of a certificate."""
        del pool
        self.need_the_agent()
        self.mailboxes.empty()
        try:
            # A root certificate is needed to see that nothing shown is its: any will do at first.
            self.authority.start(LIFETIME)
            self.root = self.authority.root()
            self.authority.stop()
            with self.without_a_certificate(), self.configured(OPTIONS):
                self.in_vain("nobody answers at the authority", "authority down")
                wait_for("the agent to know", self.agent_knows, timeout=TOLD)
                self.authority.start(LIFETIME)
                self.root = self.authority.root()
                self.nowhere()
                self.renewed(self.issued())
                self.hangs()
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            return self._taken, [str(error)]
        finally:
            self.authority.unhide()
            self.authority.stop()
        return self._taken, []

    @property
    def accepted(self) -> frozenset[str]:
        """The Message-IDs that the relay has answered 250 to."""
        return frozenset(each.message_id for each in self._taken if each.code == 250)

    @contextlib.contextmanager
    def without_a_certificate(self) -> Iterator[None]:
        """Begin with a relay that nobody has certified yet, and leave one like it."""
        self.forget()
        try:
            yield
        finally:
            self.forget()

    def forget(self) -> None:
        """Have the relay make its own certificate again."""
        run = self.relay.machine.run
        run(["systemctl", "stop", TIMER, UNIT], check=False)
        run(["rm", "-rf", str(CHAIN), str(KEPT), str(ASKED)])
        run(["systemctl", "start", "backup-mx-certificate.service"])
        run(["postfix", "reload"])

    def ask(self) -> None:
        """Have the relay ask now, as an operator can, and as it does by itself in its own time."""
        self.relay.machine.run(["systemctl", "start", UNIT], check=False, timeout=ASKING)

    @property
    def asked(self) -> Asked:
        """How the last asking ended."""
        return last(self.relay.machine.path(ASKED)) or Asked("", 0.0)

    def agent_knows(self) -> bool:
        """Whether the agent says of the last asking what became of it."""
        found = self.agent.snapshot()
        return found is not None and found.asked == self.asked

    def shown(self) -> Shown:
        """Return what a sender is shown who trusts the authority alone."""
        try:
            return self.authority.shown(self.root)
        except OSError as error:
            raise LabError(f"the relay offers no TLS: {error}") from error

    def mail_flows(self, when: str) -> None:
        """Send mail to the relay. Raises LabError when some of it is not taken, or slowly."""
        began = time.monotonic()
        sent = self.submit(f"{self.name}-{len(self._taken)}", self.messages // 6, RELAY_ADDRESS)
        spent = time.monotonic() - began
        self._taken += sent
        self.figures[f"mail taken, {when}, s"] = round(spent, 1)
        if not all(each.code == 250 for each in sent) or spent > SLOWEST:
            codes = sorted({each.code for each in sent})
            raise LabError(f"{when}, and the relay answers {codes} in {spent:.0f} s")
        wait_for(f"it to be handed over: {when}", lambda: self.relay.waiting == 0, timeout=PATIENCE)

    def in_vain(self, when: str, mark: str) -> None:
        """See that asking is in vain and noted, and that mail passes."""
        before = self.asked.failures
        self.ask()
        if self.asked.failures <= before:
            raise LabError(f"{when}, and that is not noted")
        if "self-signed" not in (trouble := self.shown().trouble):
            raise LabError(f"{when}, and the relay shows a certificate: {trouble or 'a good one'}")
        self.timeline.event(f"{when}; the relay keeps its own certificate", mark)
        self.timeline.event(f"it notes: {self.asked.why[:100]}")
        self.mail_flows(when)

    def nowhere(self) -> None:
        """Take the relay's name out of DNS, and put it back."""
        self.authority.hide()
        self.in_vain("the relay's name leads nowhere", "no name")
        self.authority.unhide()

    def issued(self) -> Shown:
        """Have a certificate issued; return what is shown. Raises LabError when it is not good."""
        began = time.monotonic()
        with self.authority.session() as session:
            self.ask()
            wait_for("a good certificate", lambda: not self.shown().trouble, timeout=PATIENCE)
            self.figures["certificate shown after asking, s"] = round(time.monotonic() - began, 1)
            if session.noop()[0] != 250:
                raise LabError("a session from before the certificate was cut off")
        looked = self.relay.machine.path(LOG).read_text()
        if missing := [address for address in VALIDATORS if address not in looked]:
            raise LabError(f"the authority did not look from {', '.join(missing)}")
        self.timeline.event(f"the relay is certified, seen from {len(VALIDATORS)} places", "issued")
        self.mail_flows("with a certificate")
        return self.shown()

    def renewed(self, first: Shown) -> None:
        """Wait until another certificate is shown, that nobody asked for by hand."""
        with self.agent.hurried(TIMER, TIMER_SECONDS):
            wait_for("another certificate", lambda: self.shown().der != first.der,
                     timeout=LIFETIME)  # fmt: skip
        found = self.shown()
        if found.trouble:
            raise LabError(f"after the renewal the relay shows a certificate: {found.trouble}")
        left = first.ends - time.time()
        self.figures["renewed before its end, s"] = round(left)
        self.timeline.event(f"the certificate is renewed, {left:.0f} s before its end", "renewed")
        self.mail_flows("after the renewal")

    def hangs(self) -> None:
        """Have the authority hang until the certificate is over, and answer again."""
        self.authority.freeze()
        now = time.time()
        try:
            self.relay.machine.run(["systemctl", "start", "--no-block", UNIT])
            self.timeline.event("the authority answers nothing any more", "authority hangs")
            self.mail_flows("the authority hangs")
            self.tells("the certificate expire", now)
            self.timeline.event("the operator is told that the certificate ends", "told")
            wait_for("its end", lambda: "expired" in self.shown().trouble, timeout=LIFETIME)
            self.timeline.event("the certificate is over, and is shown all the same", "over")
            self.mail_flows("the certificate is over")
        finally:
            self.authority.thaw()
        self.recovers()

    def recovers(self) -> None:
        """Have it asked again, and the operator told that all is well."""
        now = time.time()
        wait_for("certbot to give up or end", self.idle, timeout=ASKING)
        self.ask()
        wait_for("a good certificate again", lambda: not self.shown().trouble, timeout=PATIENCE)
        self.timeline.event("the authority answers again: there is a good certificate", "well")
        with self.agent.hurried(TIMER, TIMER_SECONDS):
            self.tells("over: the certificate expire", now)
        self.timeline.event("the operator is told so")

    def idle(self) -> bool:
        """Whether the relay does not ask just now."""
        shown = self.relay.machine.run(["systemctl", "show", "-P", "ActiveState", UNIT])
        return shown.text.strip() not in {"activating", "active"}

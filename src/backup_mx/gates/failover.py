"""The gate ``failover``: an outage on purpose, with real messages, from the first to the last.

away ── primary off ──> sent ── messages out ──> kept ── on the relay ──> back ── primary on ──>
drained ── queue empty ──> found ── in the mailbox, unchanged, once

The operator switches the primary off and on; the rest is watched. What was reached is kept in a
file: interrupted, it goes on there when it is run again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

from backup_mx.config import Config
from backup_mx.errors import MachineError
from backup_mx.evidence import config_hash
from backup_mx.findings import Finding
from backup_mx.gates import relay
from backup_mx.gates import trial as trials
from backup_mx.gates.gate import Gate, Site
from backup_mx.gates.letters import FIELD, Letter, essence, letters, token_of
from backup_mx.gates.lock import held
from backup_mx.gates.trial import Came, Trial
from backup_mx.machine.sent import ask
from backup_mx.net import courier, mailbox
from backup_mx.net.mailbox import Found, Mailbox
from backup_mx.net.session import EHLO, SMTP
from backup_mx.probe import keeper
from backup_mx.probe.roundtrip import Accounts, accounts
from backup_mx.probe.trip import trip
from backup_mx.relay.state import DOWN, UP, Primary
from backup_mx.relay.text import counted, span


@dataclass(frozen=True)
class Patience:
    """Seconds: for the operator to act, for senders to turn to the relay, for the rest; a look."""

    operator: float = 3600.0
    senders: float = 3600.0
    drain: float = 1800.0
    pace: float = 5.0


class _Given(Exception):  # noqa: N818  no mistake, but an end
    """The trial cannot go on now; it has been kept, or ended, as its finding says."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.saw)
        self.finding = finding


def judge(
    site: Site, patience: Patience = Patience(), sleep: Callable[[float], None] = time.sleep
) -> Iterator[Finding]:
    """Guide the operator through an outage. Raises MachineError, SecretError, DnsError."""
    used = accounts(site.config)
    try:
        yield from _Outage(site, used, patience, sleep).go()
    except _Given as end:
        yield end.finding


@dataclass
class _Outage:
    """One trial, gone through from where it was left."""

    site: Site
    used: Accounts
    patience: Patience
    sleep: Callable[[float], None]

    def go(self) -> Iterator[Finding]:
        with held(self._path, f"another trial of {self.site.relay.name} is going on"):
            yield from self._gone_through()

    def _gone_through(self) -> Iterator[Finding]:
        self.trial = self._begun()
        if not self.trial.kept:
            self._away()
            self._send()
            self._keep()
        yield self._kept()
        self._back()
        self._drain()
        yield self._drained()
        yield from self._arrived()
        yield from untried(self.site.config, self._primary)

    @property
    def _path(self) -> Path:
        return self.site.folder / f"failover-{self.site.relay.name}.json"

    def _begun(self) -> Trial:
        """Return the trial that was left, or else a new one."""
        now = self.site.now().timestamp()
        version, config = self.site.version, config_hash(self.site.config)
        if found := trials.left(self._path, version, config, now):
            self.site.tell("going on with the trial that was left")
            return found
        return Trial(secrets.token_hex(12), version, config, now, self._by_mx())

    def _note(self, **changes: Any) -> None:  # noqa: ANN401  the fields of Trial
        self.trial = replace(self.trial, **changes)
        trials.keep(self._path, self.trial)

    def _by_mx(self) -> bool:
        """Whether a sender of the world would turn to this relay, and to no other."""
        records = [each.split() for each in self.site.names.lookup(self._domain, "MX")]
        ours = [int(number) for number, host in records if host == self._hostname]
        known = (self._hostname, self.site.config.primaries[self._primary].hostname)
        rivals = [int(number) for number, host in records if host not in known]
        return bool(ours) and all(number > min(ours) for number in rivals)

    @property
    def _hostname(self) -> str:
        return self.site.relay.hostname.lower()

    @property
    def _domain(self) -> str:
        """The mailbox's domain. Raises MachineError when it is none of the config's."""
        recipient = self.used.options.recipient
        domain = recipient.rpartition("@")[2]
        if domain not in self.site.config.domains:
            raise MachineError(f"[roundtrip] recipient = {recipient} is in none of your domains")
        return domain

    @property
    def _primary(self) -> str:
        return self.site.config.domains[self._domain].primary

    def _seen(self, state: str) -> Primary | None:
        """Return the primary if the relay sees it in this state. Raises MachineError."""
        last = relay.word(self.site.host).snapshot
        wanted = (self._primary, state)
        seen = last.primaries if last else ()
        return next((each for each in seen if (each.name, each.state) == wanted), None)

    def _away(self) -> None:
        name = self.site.config.primaries[self._primary].hostname
        self.site.tell(
            f"Switch {name} off now, or pull its line: mail must not reach it, whichever way."
            f" The relay sees that within {span(self.site.config.queue.canary_idle)}."
        )
        self.site.tell("To leave: Ctrl-C; running it again goes on from there.")
        self._note()
        if not self._wait(lambda: self._seen(DOWN) is not None, self.patience.operator):
            raise _Given(self._left(f"{name} was not switched off"))
        self.site.tell(f"The relay sees that {name} is away.")

    def _back(self) -> None:
        if self.trial.back:
            return
        name = self.site.config.primaries[self._primary].hostname
        self.site.tell(f"Switch {name} on again now.")
        if not self._wait(self._returned, self.patience.operator):
            raise _Given(self._left(f"{name} was not switched on again"))

    def _returned(self) -> bool:
        """Tell whether the primary is back; note since when, which may be long ago."""
        found = self._seen(UP)
        if found:
            self._note(back=min(time.time(), found.since))
        return found is not None

    def _left(self, what: str) -> Finding:
        saw = f"{what} within {span(self.patience.operator)}"
        return Finding(_NAME, "unknown", saw, "backup-mx gate run failover goes on from there")

    def _wait(self, question: Callable[[], bool], seconds: float) -> bool:
        """Ask until it is so; an operator's own line may be away with the primary's."""
        ends, trouble = time.monotonic() + seconds, ""
        while True:
            try:
                if question():
                    return True
            except MachineError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self.site.tell(f"still trying: {trouble}")
            if time.monotonic() > ends:
                return False
            self.sleep(self.patience.pace)

    def _letters(self) -> tuple[Letter, ...]:
        """Return the messages; not every account takes those that a server alone would send."""
        options, straight = self.used.options, not self.trial.by_mx
        utf8 = all(each.smtputf8 for each in self.site.config.primaries.values())
        return letters(
            *(self.trial.token, options.sender, options.recipient, self.trial.began),
            null=straight,
            utf8=straight and utf8,
        )

    def _send(self) -> None:
        wanted = [each for each in self._letters() if each.sort not in self.trial.sent]
        if self.trial.by_mx:
            options = self.used.options
            for each in wanted:
                self.site.tell(f"sending: {each.sort}, through {self.used.submit.host}")
                mailbox.submit(self.used.submit, options.sender, options.recipient, each.whole)
                self._note(sent={**self.trial.sent, each.sort: time.time()})
        elif wanted:
            self._hand_over(wanted)

    def _hand_over(self, wanted: list[Letter]) -> None:
        """Hand messages straight to the relay, from where it is looked at."""
        self.site.tell(
            f"handing {len(wanted)} messages straight to {self._hostname}, from "
            f"{self.site.outside.words}: no MX record names it yet, or another relay comes first"
        )
        options = self.used.options
        task = {
            "host": str(self.site.relay.address),
            "port": SMTP,
            "ehlo": EHLO,
            "recipient": options.recipient,
            "messages": [{"sender": each.sender, "utf8": each.utf8, "head": each.head,
                          "body": each.body, "times": each.times} for each in wanted],
        }  # fmt: skip
        answers = ask(self.site.outside.host, courier, task)["answers"]
        for letter, answer in zip(wanted, answers, strict=False):
            if answer.get("code") != 250:
                words = answer.get("error") or f"{answer.get('code')} {answer.get('text')}"
                saw = f"{self._hostname} did not take the message ({letter.sort}): {words}"
                raise _Given(Finding(_NAME, "fail", saw, "see gate run inbound and intake"))
            self._note(sent={**self.trial.sent, letter.sort: time.time()})

    def _waiting(self) -> dict[str, str]:
        """Return why each message of this trial that is on the relay waits, by its token.

        Others send to the same mailbox, as `probe serve` does. Raises MachineError.
        """
        recipient, ours = self.used.options.recipient, {each.token for each in self._letters()}
        found = keeper.waiting(self.site.host, recipient, self.trial.began, FIELD)
        return {token: why for token, why in found.items() if token in ours}

    def _keep(self) -> None:
        count = len(self._letters())
        if not self._wait(lambda: len(self._waiting()) >= count, self.patience.senders):
            within = span(self.patience.senders)
            saw = f"{len(self._waiting())} of {count} messages came to the relay within {within}"
            do = "did the primary take the others? Then it was not away for everybody"
            self._path.unlink(missing_ok=True)  # what went astray will not come: begin anew
            raise _Given(Finding("kept", "fail", saw, do))
        self._note(kept=time.time())

    def _kept(self) -> Finding:
        way = "by its MX record" if self.trial.by_mx else f"from {self.site.outside.words}"
        sorts = ", ".join(self.trial.sent)
        return Finding("kept", "pass", f"{len(self.trial.sent)} messages came {way}: {sorts}")

    def _drain(self) -> None:
        if self.trial.drained:
            return
        self.site.tell("The primary is back; the relay hands over.")
        in_time = self._wait(lambda: not self._waiting(), self.patience.drain)
        if not in_time and (left := [*self._waiting().values()]):
            saw = f"{counted(len(left))} still on the relay after {span(self.patience.drain)}"
            saw = ": ".join((saw, *left[:1]))
            self._path.unlink(missing_ok=True)  # they are late, whenever they come: begin anew
            raise _Given(Finding("drained", "fail", saw, "backup-mx queue says more"))
        self._note(drained=time.time())

    def _drained(self) -> Finding:
        took = (self.trial.drained or 0) - (self.trial.back or 0)
        return Finding("drained", "pass", f"all handed over within {span(took)} of its return")

    def _arrived(self) -> Iterator[Finding]:
        """Look into the mailbox, and delete what is found there of this trial, which is over."""
        self.site.tell(f"looking into the mailbox at {self.used.imap.host}")
        letters = self._letters()

        def all_there() -> bool:
            with mailbox.opened(self.used.imap) as box:
                found = box.find(FIELD, self.trial.token)
            return len({token_of(each.head) for each in found}) >= len(letters)

        self._wait(all_there, self.patience.drain)
        with mailbox.opened(self.used.imap) as box:
            found = box.find(FIELD, self.trial.token)
            came = [self._came(box, each) for each in found]
            patience, by_mx = self.patience.drain, self.trial.by_mx
            yield from trials.judged(letters, came, patience, by_mx=by_mx)
            if came:
                yield trials.filtered(came)
            # First: a trial gone on with would look for what it has deleted, and call it lost.
            self._path.unlink(missing_ok=True)
            self._delete(box, found)

    def _delete(self, box: Mailbox, found: list[Found]) -> None:
        """Delete messages that were judged; one that stays does no harm to the verdict."""
        trouble = ""
        for each in found:
            try:
                box.delete(each)
            except MachineError as error:
                trouble = str(error)
        if trouble:
            self.site.tell(f"some of these messages stay in the mailbox: {trouble}")

    def _came(self, box: Mailbox, found: Found) -> Came:
        relays = {self._hostname: self.site.relay.name}
        sent = min(self.trial.sent.values(), default=self.trial.began)
        way = trip(found.head, sent, relays, time.time())
        symbols = BytesHeaderParser().parsebytes(found.head).get(trials.RESULT)
        said = None if symbols is None else str(symbols)
        after = sent + way.seconds - (self.trial.back or 0)
        return Came(token_of(found.head), essence(box.whole(found)), way, said, after)


def untried(config: Config, tried: str) -> Iterator[Finding]:
    """Say which primaries with domains were not away: the trial's mail goes to one mailbox."""
    for name, primary in config.primaries.items():
        domains = config.domains_of(primary)
        if name != tried and domains:
            saw = f"{primary.hostname} was not away: not tried for {', '.join(domains)}"
            do = "canary and drain look at its way, too; [roundtrip] recipient says who is tried"
            yield Finding("untried", "warn", saw, do)


_NAME = "failover"
GATE = Gate(
    _NAME, "mail takes the relay while the primary is off, and comes home whole", ("MX",), judge,
    live=True, lasting=True,
)  # fmt: skip

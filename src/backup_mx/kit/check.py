"""Is the kit in effect? Asked from the relay, over the real drain path, layer by layer.

    ask(host, …) ── net/smtp.py, run on the relay ──> facts ── judge ──> findings

The kit's own rspamd rule answers each probe with a 4xx that tells what rspamd saw and would have
done. The first probe that is taken all the same is delivered to the operator, and is the last one.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from email.utils import formatdate, make_msgid

from backup_mx.config import Config
from backup_mx.config.options import Primary, Relay
from backup_mx.findings import Finding
from backup_mx.kit.judge import STRANGER, judge, parity
from backup_mx.kit.primary import clients
from backup_mx.machine.sent import ask
from backup_mx.machine.ship import Host
from backup_mx.net import smtp
from backup_mx.net.smtp import Fact

# Its SPF record is "v=spf1 -all": no host may send with it. Its DMARC policy is to reject.
_SPF_SENDER = "probe@example.com"
_TRANSACTIONS, _CONNECTIONS = 120, 24
_LARGE = 12_000_000  # octets; Postfix takes 10,240,000 unless told otherwise (message_size_limit)
_ROOM = 64 * 1024  # octets that a message gains on its way
# Korean: rspamd guesses by chance at the language of Latin words with accents.
_EIGHT_BIT = "이 메시지는 지워도 됩니다."


@dataclass(frozen=True)
class _Probe:
    """A message that the primary's filters are asked about.

    client is who its Received field says sent it, mark what its sender's name begins with, author
    who its From field says wrote it, text a line of its body, fill octets that follow.
    """

    client: str = STRANGER
    score: int = 0
    mark: str = "probe"
    # Of no domain, so of none with a DMARC policy, which would decide before anything else.
    author: str = "probe@stranger.invalid"
    text: str = ""
    fill: int = 0

    @property
    def options(self) -> tuple[str, ...]:
        """The parameters of MAIL that it has to be sent with (RFC 6152, RFC 6531)."""
        eight = () if self.text.isascii() else ("BODY=8BITMIME",)
        return eight if self.mark.isascii() else (*eight, "SMTPUTF8")


def check(host: Host, config: Config, relay: Relay, primary: Primary) -> list[Finding]:
    """Ask from ``relay``, which is reached as ``host``, whether ``primary`` takes its drain.

    Takes half a minute where all is well. Raises MachineError, UnreachableError.
    """
    wanted = plan(config, relay, primary)
    return list(judge(ask(host, smtp, wanted), wanted))


def compare(host: Host, config: Config, relay: Relay, primary: Primary) -> list[Finding]:
    """Ask from ``relay`` what both servers offer, and no more; see ``check``."""
    wanted = plan(config, relay, primary)
    offers = {**wanted, "senders": {}, "messages": {}, "connections": 0}
    return list(parity(ask(host, smtp, offers)))


def plan(config: Config, relay: Relay, primary: Primary) -> Fact:
    """Return what is to be asked, as `backup_mx.net.smtp.facts` takes it."""
    # A new one each time: to a greylister it is a stranger.
    sender = f"{secrets.token_hex(6)}@{relay.hostname}"
    own, seen = _recipient(config, primary), _seen(config, relay, primary)
    return {
        "host": primary.drain_to.host,
        "port": primary.drain_to.port,
        "tls": primary.tls,
        "name": primary.hostname,
        "ehlo": relay.hostname,
        "recipient": own,
        # The null sender is in nobody's domain, and no domain says who may use it.
        "senders": {"outside": "", "own": own, "spf": _SPF_SENDER},
        "messages": {
            name: {
                "sender": f"{probe.mark}-{sender}",
                "data": _message(relay.hostname, own, probe),
                "options": probe.options,
                **({"fill": probe.fill} if probe.fill else {}),
            }
            for name, probe in _probes(config, seen).items()
        },
        "transactions": _TRANSACTIONS,
        "connections": _CONNECTIONS,
    }


def _probes(config: Config, seen: str) -> dict[str, _Probe]:
    """Return the messages to be asked about; of a kind that no relay takes there is none.

    The large one is the last: some filters let such a message pass, and then it is mail.
    """
    primaries = config.primaries.values()
    found = {
        "plain": _Probe(),
        "local": _Probe(client=seen),
        "greylist": _Probe(score=6),
        "ceiling": _Probe(score=50),
        "dmarc": _Probe(author=_SPF_SENDER),
    }
    if all(each.eightbitmime for each in primaries):
        found["eight-bit"] = _Probe(text=_EIGHT_BIT)
        if all(each.smtputf8 for each in primaries):
            found["smtputf8"] = _Probe(text=_EIGHT_BIT, mark="탐침")
    found["large"] = _Probe(fill=min(_LARGE, config.queue.message_size_limit - _ROOM))
    return found


def _recipient(config: Config, primary: Primary) -> str:
    """Return an address that ``primary`` takes mail for: the operator's, or a postmaster's."""
    operator, domains = config.operator.address, config.domains_of(primary)
    known = not domains or operator.rpartition("@")[2] in domains
    return operator if known else f"postmaster@{domains[0]}"


def _seen(config: Config, relay: Relay, primary: Primary) -> str:
    """Return the address that ``primary`` sees ``relay`` come from."""
    return next(str(each.seen) for each in clients(config, primary) if each.name == relay.name)


def _message(relay: str, recipient: str, probe: _Probe) -> str:
    """Return a probe: its mark above the Received field, where only a relay itself can put it."""
    words = "Where the kit's rule for rspamd is in effect, nobody sees this."
    kind, encoding = "text/plain; charset=utf-8", "8bit" if probe.text else "7bit"
    body = [f"{words} {secrets.token_hex(6)}", *([probe.text] if probe.text else [])]
    if probe.fill:
        kind, encoding, body = "application/octet-stream", "base64", []
    lines = (
        f"X-Backup-MX-Probe: {probe.score}",
        f"Received: from stranger.invalid (unknown [{probe.client}])",
        f"\tby {relay} (Postfix) with ESMTP id 4probe",
        f"\tfor <{recipient}>; {formatdate()}",
        f"From: backup-mx <{probe.author}>",
        f"To: <{recipient}>",
        "Subject: backup-mx asks whether its kit is in effect; this can be deleted",
        f"Date: {formatdate()}",
        f"Message-ID: {make_msgid(domain='probe.invalid')}",
        "MIME-Version: 1.0",
        f"Content-Type: {kind}",
        f"Content-Transfer-Encoding: {encoding}",
        "",
        *body,
    )
    return "\r\n".join(lines) + "\r\n"

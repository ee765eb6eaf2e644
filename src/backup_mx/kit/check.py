"""Is the kit in effect? Asked from the relay, over the real drain path, layer by layer.

    ask(host, …) ── net/smtp.py, run on the relay ──> facts ── judge ──> findings

Nothing is delivered where the kit's own rspamd rule is loaded: it answers each probe with a 4xx
that tells what rspamd saw and would have done. Where it is not, the first probe is, and the last.
"""

from __future__ import annotations

import inspect
import json
import secrets
from dataclasses import dataclass
from email.utils import formatdate, make_msgid

from backup_mx.config import Config, Primary, Relay
from backup_mx.errors import MachineError
from backup_mx.findings import Finding
from backup_mx.kit.judge import STRANGER, judge
from backup_mx.kit.primary import clients
from backup_mx.machine.ship import Host, must
from backup_mx.net import smtp
from backup_mx.net.smtp import Fact

# Its SPF record is "v=spf1 -all": no host may send with it.
_SPF_SENDER = "probe@example.com"
_TRANSACTIONS, _CONNECTIONS = 120, 24


@dataclass(frozen=True)
class _Probe:
    """A message that rspamd is asked about; client is who its Received field says sent it."""

    client: str = STRANGER
    score: int = 0


def check(host: Host, config: Config, relay: Relay, primary: Primary) -> list[Finding]:
    """Ask from ``relay``, which is reached as ``host``, whether ``primary`` takes its drain.

    Takes half a minute where all is well. Raises MachineError, UnreachableError.
    """
    wanted = plan(config, relay, primary)
    return list(judge(ask(host, wanted), wanted))


def ask(host: Host, wanted: Fact) -> Fact:
    """Run the walk on the relay and return its facts. Raises MachineError, UnreachableError."""
    call = f"\nimport json\nprint(json.dumps(facts(json.loads({json.dumps(wanted)!r}))))\n"
    program = inspect.getsource(smtp) + call
    said = must(host, ("python3", "-I", "-"), stdin=program.encode())
    try:
        return dict(json.loads(said))
    except ValueError:
        raise MachineError(f"the relay answered no facts: {said[:200]!r}") from None


def plan(config: Config, relay: Relay, primary: Primary) -> Fact:
    """Return what is to be asked, as `backup_mx.net.smtp.facts` takes it."""
    # A new one each time: to a greylister it is a stranger.
    sender = f"probe-{secrets.token_hex(6)}@{relay.hostname}"
    own, seen = _recipient(config, primary), _seen(config, relay, primary)
    probes = {
        "plain": _Probe(),
        "local": _Probe(client=seen),
        "greylist": _Probe(score=6),
        "ceiling": _Probe(score=50),
    }
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
                "sender": sender,
                "data": _message(relay.hostname, own, probe),
            }
            for name, probe in probes.items()
        },
        "transactions": _TRANSACTIONS,
        "connections": _CONNECTIONS,
    }


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
    lines = (
        f"X-Backup-MX-Probe: {probe.score}",
        f"Received: from stranger.invalid (unknown [{probe.client}])",
        f"\tby {relay} (Postfix) with ESMTP id 4probe",
        f"\tfor <{recipient}>; {formatdate()}",
        # Of no domain, so of none with a DMARC policy, which would decide before anything else.
        "From: backup-mx <probe@stranger.invalid>",
        f"To: <{recipient}>",
        "Subject: backup-mx asks whether its kit is in effect; this can be deleted",
        f"Date: {formatdate()}",
        f"Message-ID: {make_msgid(domain='probe.invalid')}",
        "",
        f"Where the kit's rule for rspamd is in effect, nobody sees this. {secrets.token_hex(6)}",
    )
    return "\r\n".join(lines) + "\r\n"

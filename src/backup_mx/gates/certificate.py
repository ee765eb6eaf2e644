"""Whether senders trust the certificate that the relay shows, and for how long yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backup_mx.config import Config
from backup_mx.findings import Finding
from backup_mx.gates import relay
from backup_mx.gates.gate import Gate, Site, View
from backup_mx.machine.acme import own_authority
from backup_mx.machine.sent import ask
from backup_mx.mta_sts.policy import enforced, named
from backup_mx.net import shown
from backup_mx.net.session import SMTP
from backup_mx.net.shown import Fact
from backup_mx.probe.smtp import OWN, ends_soon
from backup_mx.relay import text


def judge(site: Site) -> Iterator[Finding]:
    """Look from outside. Raises MachineError, UnreachableError, ConfigError."""
    name = site.relay.hostname
    fact = seen(site.outside, site.config, {name: str(site.relay.address)})[name]
    why = _why_none(site) if fact.get("trouble") else ""
    yield judged(site.config, name, fact, site.now().timestamp(), why)


def seen(view: View, config: Config, servers: Mapping[str, str]) -> Mapping[str, Fact]:
    """Return what servers show at port 25, by name; their addresses are the values."""
    listed = [{"name": name, "host": host, "port": SMTP} for name, host in servers.items()]
    return ask(view.host, shown, {"servers": listed, "ca": own_authority(config)})


def _why_none(site: Site) -> str:
    """Return the authority's own words on why there is no certificate, "" where it has none."""
    last = relay.word(site.host).snapshot
    return last.asked.why if last and last.asked and last.asked.failures else ""


def judged(config: Config, name: str, fact: Fact, now: float, why: str = "") -> Finding:
    """Judge what a relay called ``name`` shows at ``now`` (seconds since 1970).

    why is what its authority says of the last asking, if that was in vain.
    """
    gate = "certificate"
    if error := fact.get("error"):
        return Finding(gate, "unknown", f"none is to be seen: {error}", "see the gate inbound")
    if trouble := fact["trouble"]:
        return _distrusted(config, trouble, why)
    if not named(fact["names"], name):
        saw = f"it is for {', '.join(fact['names']) or 'no name'}, not {name}"
        return Finding(gate, "fail", saw, "see what stands before the relay")
    saw = f"by {fact['issuer']}, for another {text.span(fact['ends'] - now)}"
    if fact["own"]:
        do = "senders who insist on a good one wait: ask a public authority"
        return Finding(gate, "fail" if enforced(config) else "warn", f"{saw}: {OWN}", do)
    if ends_soon(fact, now):
        return Finding(gate, "warn", f"{saw}: not renewed", why or "backup-mx status says why")
    return Finding(gate, "pass", saw)


def _distrusted(config: Config, trouble: str, why: str) -> Finding:
    if not config.tls.acme and not enforced(config):
        saw = f"{trouble}, as acme = false has it: senders who insist on a good one wait"
        return Finding("certificate", "warn", saw)
    do = why or "one is asked for once the relay's name is in DNS: backup-mx status tells of it"
    return Finding("certificate", "fail", trouble, do)


GATE = Gate("certificate", "senders trust its certificate", ("MX",), judge, abroad=True)

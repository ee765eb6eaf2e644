"""Whether DNS, the MTA-STS policy and the certificates say the same."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from backup_mx.dns import judge as dns_judge
from backup_mx.dns import seen as dns_seen
from backup_mx.dns.facts import blind
from backup_mx.dns.key import key
from backup_mx.dns.plan import questions
from backup_mx.dns.wanted import Facts, wanted
from backup_mx.errors import DnsError
from backup_mx.findings import Finding
from backup_mx.gates import certificate
from backup_mx.gates.gate import Gate, Site
from backup_mx.mta_sts import compare, look, policy
from backup_mx.mta_sts.compare import Shown
from backup_mx.net.dns import Names
from backup_mx.net.shown import Fact
from backup_mx.probe.smtp import OWN


def judge(site: Site) -> Iterator[Finding]:
    """Ask every name server, the policy's host and port 25. Raises MachineError, DnsError."""
    mx = {domain: look.hosts(site.names, domain) for domain in site.config.domains}
    facts = _shown(site, [host for hosts in mx.values() for host in hosts])
    yield from _records(site, facts[site.relay.hostname])
    certificates = {host: _certificate(each) for host, each in facts.items()}
    for domain, hosts in mx.items():
        yield from _policy(site, domain, hosts, certificates)
    for host, fact in facts.items():
        name = f"_25._tcp.{host}"
        pinned = site.names.lookup(name, "TLSA")
        if pinned and not site.names.signed(site.names.zone(name)):
            saw = f"{host} has TLSA records in a zone that is not signed: no sender heeds them"
            yield Finding("TLSA", "warn", saw, "sign the zone, or take them away")
            pinned = ()
        if "error" in fact:
            yield unseen(host, fact["error"], pinned=bool(pinned))
        else:
            yield from tlsa(host, pinned, base64.b64decode(fact["der"]))


def _shown(site: Site, hosts: Sequence[str]) -> Mapping[str, Fact]:
    """Return what each mail exchanger shows from outside, or the ``error`` that came instead."""
    known = {host: _address(site.names, host) for host in hosts}
    known[site.relay.hostname] = str(site.relay.address)
    servers = {host: where for host, where in known.items() if where}
    facts = certificate.seen(site.outside, site.config, servers)
    nowhere: Fact = {"error": "its address is not to be found"}
    return {host: facts.get(host, nowhere) for host in known}


def _certificate(fact: Fact) -> Shown:
    if "error" in fact:
        return Shown((), error=fact["error"])
    return Shown(tuple(fact.get("names", ())), fact["trouble"] or (OWN if fact["own"] else ""))


def _address(names: Names, host: str) -> str:
    try:
        found = names.lookup(host, "A") or names.lookup(host, "AAAA")
    except DnsError:
        return ""
    return found[0] if found else ""


def _records(site: Site, fact: Fact) -> Iterator[Finding]:
    """Judge the relay's and the domains' records at every server."""
    facts = _facts(site, fact)
    yield from blind(facts)
    listed = [each for each in wanted(site.config, facts) if each.relay in ("", site.relay.name)]
    world = dns_seen.look(site.names, questions(site.config, listed))
    # What is not published yet is what these gates are for.
    yield from dns_judge.judge(site.config, listed, world, missing="warn")


def _facts(site: Site, fact: Fact) -> Facts:
    """Return the key that a TLSA record is to name, where its zone is signed."""
    name = site.relay.name
    if not site.names.signed(site.names.zone(site.relay.hostname)):
        return Facts()
    if "error" in fact:
        return Facts(unseen={name: "it shows no certificate from outside"})
    return Facts(keys={name: key(base64.b64decode(fact["der"]))})


def _policy(
    site: Site, domain: str, hosts: tuple[str, ...], certificates: Mapping[str, Shown]
) -> Iterator[Finding]:
    """Judge a domain's policy, where it has one or is to have one."""
    mx = tuple(dict.fromkeys([*hosts, site.relay.hostname]))
    seen = look.ask(site.config, site.names, domain)
    ours = policy.wanted(site.config, domain)
    yield from compare.compare(ours, replace(seen, mx=mx, certificates=certificates))


def unseen(host: str, error: str, *, pinned: bool) -> Finding:
    """Say that a mail exchanger could not be looked at: pinned by TLSA records, it has to fit."""
    saw = f"{host}{', which has TLSA records,' if pinned else ''} could not be looked at: {error}"
    do = "look from where its port 25 answers: --outside"
    return Finding("certificates", "unknown" if pinned else "warn", saw, do)


def tlsa(host: str, records: Sequence[str], der: bytes) -> Iterator[Finding]:
    """Judge a mail exchanger's TLSA records (RFC 7672) against the certificate that it shows.

    Senders that heed them, in a signed zone only (section 2.2), have no other way: where none
    fits, they wait.
    """
    if not records:
        return
    fitting = {f"3 1 1 {key(der).digest}", f"3 0 1 {hashlib.sha256(der).hexdigest()}"}
    if fitting & {each.lower() for each in records}:
        yield Finding("TLSA", "pass", f"{host} shows the certificate that its TLSA record names")
    elif all(each.startswith(("3 1 1 ", "3 0 1 ")) for each in records):
        saw = f"{host} shows a certificate that none of its TLSA records names: senders wait"
        yield Finding("TLSA", "fail", saw, "backup-mx dns plan; for the primary, mend it there")
    else:
        saw = f"{host} has TLSA records of a sort that is not judged here"
        yield Finding("TLSA", "warn", saw, "see that its certificate fits them")


GATE = Gate("names", "DNS, policy and certificates agree", ("MX",), judge, abroad=True)

"""The gate ``inbound``: port 25 answers the world, as this relay and nobody else, and with TLS."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from backup_mx.config.options import Relay
from backup_mx.findings import Finding
from backup_mx.gates.gate import Gate, Site
from backup_mx.machine.sent import ask
from backup_mx.net import outside
from backup_mx.net.outside import Fact
from backup_mx.net.session import EHLO, SMTP, told

HOME = "127.0.0.1"
_GREETED = 220
_PORT, _TLS = "port 25", "starttls"


def judge(site: Site) -> Iterator[Finding]:
    """Connect from outside and from the relay itself, and compare. Raises MachineError."""
    primaries = list(site.config.primaries.values())
    wanted = stranger(site.relay)
    # Where the relay does not answer: does anything, at port 25, from there?
    control = [primaries[0].hostname, SMTP] if primaries else None
    yield from judged(
        *both(site, {**wanted, "control": control}, {**wanted, "host": HOME}),
        hostname=site.relay.hostname,
        place=site.outside.words,
    )


def stranger(relay: Relay) -> Fact:
    """Return what a stranger asks of ``relay``, for `backup_mx.net.outside.facts`."""
    host, name = str(relay.address), relay.hostname
    return {"host": host, "port": SMTP, "name": name, "ehlo": EHLO, "source": ""}


def neighbour() -> str:
    """Return a loopback address that nobody came from before: to postscreen it is a stranger."""
    return "127." + ".".join(str(1 + secrets.randbelow(254)) for _ in range(3))


def both(site: Site, there: Fact, here: Fact) -> tuple[Fact, Fact]:
    """Ask from outside and on the relay at once; return both facts. Raises MachineError."""
    with ThreadPoolExecutor() as pool:
        own = pool.submit(ask, site.host, outside, here)
        return ask(site.outside.host, outside, there), own.result()


def judged(seen: Fact, own: Fact, *, hostname: str, place: str) -> Iterator[Finding]:
    """Turn what was seen from ``place``, and on the relay itself, into findings. Pure."""
    found = seen["tls"]
    if "greeting" not in found:
        yield _silent(seen, own, place)
        return
    said = found["greeting"]
    name = next(iter(said["text"].split()), "nobody")
    if said["code"] != _GREETED:
        saw = f"{place} is turned away: {told(said)}"
        yield Finding(_PORT, "fail", saw, "see why in the relay's own log")
    elif name.lower() != hostname:
        saw = f"{name} answers, not {hostname}"
        yield Finding(_PORT, "fail", saw, "see whose the address is, and what stands before it")
    else:
        yield Finding(_PORT, "pass", f"answers {place} after {found['seconds']} s")
        yield _tls(found, own["tls"])


def _silent(seen: Fact, own: Fact, place: str) -> Finding:
    """Say whose fault it may be that nothing answered."""
    if "greeting" not in own["tls"]:
        saw = f"not even the relay itself is answered: {told(own['tls'])}"
        return Finding(_PORT, "fail", saw, "see there: systemctl status 'postfix*'")
    saw = f"{place} gets no answer: {told(seen['tls'])}"
    if "error" in seen.get("control", {"error": ""}):
        saw += "; nor from the primary's port 25"
        remedy = "many networks let nothing out to port 25: look from elsewhere (--outside)"
        return Finding(_PORT, "unknown", saw, remedy)
    saw += "; the primary's port 25 does answer there"
    # Behind the primary's own router that proves little: its port 25 is reached without a provider.
    remedy = (
        "let port 25 in: the cloud's rules, then the relay's own; at home, --outside tells more"
    )
    return Finding(_PORT, "fail", saw, remedy)


def _tls(found: Fact, own: Fact) -> Finding:
    """Judge what came of STARTTLS."""
    if "sha256" not in found:
        answer = found.get("starttls", found)
        saw = told(found if answer.get("code") == _GREETED else answer)
        remedy = "see what the relay itself says: openssl s_client -starttls smtp -connect :25"
        return Finding(_TLS, "fail", f"no TLS: {saw}", remedy)
    if found["sha256"] != own.get("sha256"):
        saw = "the certificate is not the one that the relay itself shows"
        return Finding(_TLS, "fail", saw, "something stands between, and reads the mail")
    return Finding(_TLS, "pass", f"{found['version']}, with the relay's own certificate")


GATE = Gate("inbound", "port 25 answers the world, with TLS", ("A", "MX"), judge, abroad=True)

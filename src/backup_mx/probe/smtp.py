"""Port 25 as a stranger meets it, and the certificate that is shown there."""

from __future__ import annotations

import time

from backup_mx.config import Config
from backup_mx.errors import MachineError
from backup_mx.findings import Finding
from backup_mx.machine.acme import own_authority
from backup_mx.mta_sts.policy import enforced, named
from backup_mx.net import outside, shown
from backup_mx.net.outside import Fact
from backup_mx.net.session import EHLO, SMTP, told
from backup_mx.probe.probe import Probe, Scene, Seen, Target, servers
from backup_mx.relay.text import span

OWN = "only an authority of your own vouches for it"
_SOON = 14 * 86_400.0
"""Seconds before its end by which it has been renewed long ago: certbot begins 30 days before."""
_SHARE = 6  # or this part of a short-lived one's time
_GREETED, _OK = 220, 250


def reach(scene: Scene, target: Target) -> Seen:
    """Say whether the server greets a stranger and begins TLS. Raises MachineError."""
    wanted = {"host": target.address, "port": SMTP, "name": target.name, "ehlo": EHLO, "source": ""}
    control = _another(scene.config, target)
    return Seen(judged(target.name, scene.see(outside, {**wanted, "control": control})))


def judged(name: str, seen: Fact) -> Finding:
    """Judge how the server called ``name`` meets a stranger."""
    found = seen["tls"]
    if "greeting" not in found:
        saw = f"{name} does not answer: {found.get('error')}"
        if "error" in seen.get("control", {"error": ""}):
            do = "many networks let nothing out to port 25: look from elsewhere, [gates] outside"
            return Finding("inbound", "unknown", f"{saw}; nor does any other server", do)
        return Finding("inbound", "fail", saw, "see there, and what stands before it")
    if found["greeting"]["code"] != _GREETED:
        saw = f"{name} turns strangers away: {told(found['greeting'])}"
        # What is put off is not refused: its list of clients may not like this very place.
        later = found["greeting"]["code"] // 100 == 4
        return Finding("inbound", "warn" if later else "fail", saw, "see why in its own log")
    if found.get("secured", {}).get("code") != _OK:
        why = found.get("error") or told(found.get("starttls", found["greeting"]))
        saw = f"{name} answers, but does not begin TLS: {why}"
        return Finding("inbound", "fail", saw, "see why in its own log")
    saw = f"{name} greets after {found['seconds']} s, and begins {found['version']}"
    return Finding("inbound", "pass", saw)


def _another(config: Config, target: Target) -> list[object] | None:
    """Return another server's port 25, to tell a server that is away from a place that is shut."""
    others = (each for each in servers(config) if each.name != target.name)
    return next(([each.address, SMTP] for each in others), None)


def trust(scene: Scene, target: Target) -> Seen:
    """Say whether senders that insist on a valid certificate can hand mail over, and until when.

    Raises MachineError.
    """
    server = {"name": target.name, "host": target.address, "port": SMTP}
    wanted = {"servers": [server], "ca": own_authority(scene.config) if target.relay else ""}
    fact = scene.see(shown, wanted)[target.name]
    if "error" in fact:
        raise MachineError(f"no certificate is to be seen: {fact['error']}")
    found = certified(target.name, fact, time.time(), insisting=enforced(scene.config))
    return Seen(found, fact["ends"], margin(fact)) if "ends" in fact else Seen(found)


def certified(name: str, fact: Fact, now: float, *, insisting: bool) -> Finding:
    """Judge what a server shows that is called ``name``, at ``now`` (seconds since 1970).

    insisting is whether the policy has senders hold mail back where they do not trust it.
    """
    wait = "senders that insist on a valid one (MTA-STS, DANE) come back later until it is"
    if fact["trouble"]:
        return Finding("certificate", "fail", f"{name}: {fact['trouble']}", wait)
    if not named(fact["names"], name):
        saw = f"{name}: it is for {', '.join(fact['names']) or 'no name'}"
        return Finding("certificate", "fail", saw, wait)
    if fact["own"]:
        return Finding("certificate", "fail" if insisting else "warn", f"{name}: {OWN}", wait)
    saw = f"{name}: valid for another {span(fact['ends'] - now)}"
    if ends_soon(fact, now):
        return Finding("certificate", "warn", saw, "see why it has not been renewed")
    return Finding("certificate", "pass", saw)


def ends_soon(fact: Fact, now: float) -> bool:
    """Tell whether a certificate should have been renewed by ``now`` (seconds since 1970)."""
    return bool(fact["ends"] - now < margin(fact))


def margin(fact: Fact) -> float:
    """Return how many seconds before its end a certificate should have been renewed."""
    return min(_SOON, float(fact["ends"] - fact["begins"]) / _SHARE)


INBOUND = Probe("inbound", "each server greets a stranger and begins TLS", servers, reach)
CERTIFICATE = Probe("certificate", "each server's certificate is valid for long", servers, trust)

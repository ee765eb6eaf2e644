"""Whether the operator gets in with the home dark: by two ways that do not need each other."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import Collection, Iterator

from backup_mx.config import Config
from backup_mx.config.values import Network
from backup_mx.errors import DnsError, MachineError, UnreachableError
from backup_mx.findings import Finding
from backup_mx.gates.gate import Gate, Site
from backup_mx.gates.views import HERE
from backup_mx.machine import probe
from backup_mx.machine.look import look
from backup_mx.machine.rebuild import fingerprints
from backup_mx.machine.sent import ask
from backup_mx.machine.ship import Host
from backup_mx.machine.tailnet import IN, STARTING
from backup_mx.net import sshkeys
from backup_mx.net.dns import Names

_HOME = {4: 29, 6: 48}  # the largest networks, by their prefix, that one home is given


def judge(site: Site) -> Iterator[Finding]:
    """Log in, and look at the ways there are. Raises MachineError."""
    ssh, address = site.relay.ssh, str(site.relay.address)
    try:
        own = look(site.host, ssh.port).ssh
    except UnreachableError as error:
        do = "see that the machine runs, and that [access] ssh_from lets you in"
        yield Finding("login", "fail", str(error), do)
        return
    yield Finding("login", "pass", f"root's commands run, by {ssh}")
    shown = fingerprints(address, ssh.port)
    where = f"{address} port {ssh.port}"
    yield public(where, own, shown)
    elsewhere = site.outside.words != HERE
    if elsewhere:
        shown = scanned(site.outside.host, address, ssh.port)
        yield public(where, own, shown, site.outside.words)
    if at_home(site.config.access.ssh_from, homes(site.config, site.names)):
        saw = "ssh_from lets in your primary's own line alone, which is what is down when it counts"
        yield Finding("ssh_from", "warn", saw, "name a second place, or all: docs/deploy.md")
    tailnet = joined(site.host) if site.config.tailnet else None
    yield second(public=bool(set(own) & set(shown)), tailnet=tailnet, elsewhere=elsewhere)


def scanned(host: Host, address: str, port: int) -> list[str]:
    """Return the fingerprints of the keys that an address shows to a host. Raises MachineError."""
    found = ask(host, sshkeys, {"host": address, "port": port})
    if why := found.get("error"):
        raise MachineError(f"ssh-keyscan cannot be run where it is looked from: {why}")
    try:
        return probe.fingerprints(str(found["printed"]))
    except (KeyError, IndexError, ValueError):
        raise MachineError("ssh-keyscan printed no keys where it is looked from") from None


def homes(config: Config, names: Names) -> list[str]:
    """Return the public addresses of the primaries, as far as DNS tells."""
    found = []
    for primary in config.primaries.values():
        with contextlib.suppress(DnsError):  # another gate tells that
            found += [
                each for kind in ("A", "AAAA") for each in names.lookup(primary.hostname, kind)
            ]
    return found


def at_home(allowed: Collection[Network], homes: Collection[str]) -> bool:
    """Tell whether each network is of no more than a home, and has one of those addresses in it."""
    addresses = [ipaddress.ip_address(each) for each in homes]
    return all(
        network.prefixlen >= _HOME[network.version]
        and any(each in network for each in addresses if each.version == network.version)
        for network in allowed
    )


def public(
    where: str, own: Collection[str], shown: Collection[str], seen_from: str = "here"
) -> Finding:
    """Judge the SSH keys that the public address shows, against those that the relay has."""
    if set(own) & set(shown):
        return Finding("public", "pass", f"its own SSH answers at {where}, from {seen_from}")
    if shown:
        saw = f"at {where} another machine's SSH answers"
        return Finding("public", "fail", saw, "see that relay.address is the relay's own")
    saw = f"no SSH answers at {where} from {seen_from}"
    return Finding("public", "warn", saw, "[access] ssh_from, and the provider's own firewall")


def second(*, public: bool, tailnet: bool | None, elsewhere: bool) -> Finding:
    """Judge how many ways there are; tailnet is None where the config has none.

    elsewhere: its public address was tried from another place than this one, which may be at home.
    """
    if tailnet is False:
        saw = "it is not in the tailnet that the config names"
        return Finding("second way", "fail", saw, "backup-mx deploy; tailscale status, on it")
    if public and tailnet and elsewhere:
        return Finding("second way", "pass", "by its public address, and by the tailnet")
    if public and tailnet:
        saw = "by its public address, and by the tailnet: both tried from this machine only"
        do = "with --outside it is tried from elsewhere, too, as when the home is dark"
        return Finding("second way", "warn", saw, do)
    way = "its public address" if public else "the tailnet" if tailnet else "your SSH"
    do = "try your provider's console once, or have a [tailnet]: docs/deploy.md"
    return Finding("second way", "warn", f"{way} is the only way in that is known", do)


def joined(host: Host) -> bool:
    """Tell whether the relay is in a tailnet, and seen there. Raises MachineError."""
    answer = host.run(("env", "tailscale", "status", "--json", "--peers=false"))
    try:
        told = dict(json.loads(answer.stdout))
        state, online = told.get("BackendState"), bool(told.get("Self", {}).get("Online", True))
    except (AttributeError, TypeError, ValueError, RecursionError):
        return False
    if state in STARTING:
        raise MachineError("its tailscale is still starting: run it again")
    return state == IN and online


GATE = Gate("access", "you get in with the home dark", ("A", "MX"), judge, abroad=True)

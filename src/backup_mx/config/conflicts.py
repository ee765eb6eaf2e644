"""What is wrong only together with the rest of the file: clouds, DNS, MTA-STS.

`backup_mx.config.mistakes` calls this; it judges by the values that are right by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backup_mx.config.known import FREE_GB, FREE_MACHINES, FREE_SHAPE, IPV4_ONLY, zone_of
from backup_mx.errors import did_you_mean

Values = Mapping[str, Any]
Conflict = tuple[tuple[str | int, ...], str, str]
"""An option's path, what was expected there, and a hint."""


def of_oci(oci: Values, relays: Mapping[str, Values], access: Values) -> Iterator[Conflict]:
    """Tell what clashes with [cloud.oci]; each argument holds the right values of its table."""
    here = {name: relays[name] for name in oci.get("relays", relays) if name in relays}
    yield from _unknown(oci, relays)
    yield from _what_costs(oci, len(here))
    for name, relay in here.items():
        if "address" in relay and relay["address"].version != 4:
            yield ("relay", name, "address"), f"expected an IPv4 address: {IPV4_ONLY}", ""
        inner = relay.get("wireguard_address")
        if inner and "network" in oci and inner in oci["network"]:
            expected = f"expected a network of its own, but relay.{name}.wireguard_address is in it"
            yield ("cloud", "oci", "network"), expected, ""
    if "ssh_keys" not in access:
        missing = "missing: nobody could log in on the machines that Oracle makes"
        yield ("access", "ssh_keys"), missing, ""
    networks = access.get("ssh_from", ())
    if networks and all(network.version != 4 for network in networks):
        yield ("access", "ssh_from"), f"expected an IPv4 network as well: {IPV4_ONLY}", ""


def _unknown(oci: Values, relays: Mapping[str, Values]) -> Iterator[Conflict]:
    for index, name in enumerate(oci.get("relays", ())):
        if name not in relays:
            expected = f"expected the name of a [relay.NAME]: {', '.join(relays)}"
            yield ("cloud", "oci", "relays", index), expected, did_you_mean(name, relays)


def _what_costs(oci: Values, machines: int) -> Iterator[Conflict]:
    if oci.get("may_cost"):
        return
    hint = "may_cost = true if it may cost money"
    if oci.get("shape", FREE_SHAPE) != FREE_SHAPE:
        yield ("cloud", "oci", "shape"), f"expected {FREE_SHAPE}, which is free", hint
    if machines > FREE_MACHINES:
        expected = f"expected {FREE_MACHINES} relays at most, which are free; these are {machines}"
        yield ("cloud", "oci", "relays"), expected, hint
    total = machines * (oci.get("boot_volume_size", 0) + oci.get("volume_size", 0))
    if machines <= FREE_MACHINES and total > FREE_GB:
        expected = f"expected {FREE_GB} GB at most in all, which are free; this makes {total}"
        yield ("cloud", "oci", "volume_size"), expected, hint


def of_cloudflare(
    cloudflare: Values, relays: Mapping[str, Values], domains: Mapping[str, Values]
) -> Iterator[Conflict]:
    """Tell where [dns.cloudflare] would publish nothing."""
    names = [*(relay["hostname"] for relay in relays.values() if "hostname" in relay), *domains]
    zones = cloudflare.get("zones", {})
    if zones and not any(zone_of(name, zones) for name in names):
        expected = "expected the zone of a relay's hostname or of a domain"
        yield ("dns", "cloudflare", "zones"), expected, ""


def of_updates(
    updates: Values, cloudflare: Values, names: Mapping[str, object]
) -> Iterator[Conflict]:
    """Tell where [dns.rfc2136] would publish nothing, or what another publishes, too.

    names are the hostnames of the relays and the domains.
    """
    zones = dict.fromkeys(updates.get("zones", ()), "")
    if zones and not any(zone_of(name, zones) for name in names):
        expected = "expected the zone of a relay's hostname or of a domain"
        yield ("dns", "rfc2136", "zones"), expected, ""
    for index, zone in enumerate(zones):
        if zone in cloudflare.get("zones", {}):
            expected = "expected a zone that [dns.cloudflare] does not have"
            yield ("dns", "rfc2136", "zones", index), expected, ""


def of_policy(policy: Values, relays: Mapping[str, Values], tls: Values) -> Iterator[Conflict]:
    """Tell where the relay that is to host the MTA-STS policy is none, or could not."""
    path = ("mta_sts", "hosted_by")
    host = policy.get("hosted_by")
    if host is None:
        return
    if relays and host not in relays:
        expected = f"expected the name of a [relay.NAME]: {', '.join(relays)}"
        yield path, expected, did_you_mean(str(host), relays)
    elif tls.get("acme") is False:
        expected = "expected acme = true in [tls]: nobody believes a policy without a certificate"
        yield path, expected, ""

"""What of [cloud.oci] and [dns.cloudflare] is wrong only together with the rest of the file.

Like `backup_mx.mistakes`, which calls this: it judges by the values that are right by themselves.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from backup_mx.errors import did_you_mean

Values = Mapping[str, Any]
Conflict = tuple[tuple[str | int, ...], str, str]
"""An option's path, what was expected there, and a hint."""

# What Oracle gives each tenancy for free.
FREE_SHAPE, FREE_MACHINES, FREE_GB = "VM.Standard.E2.1.Micro", 2, 200
IPV4_ONLY = "Oracle's reserved addresses are IPv4's"
# Addresses of documentation (RFC 5737): nobody has one of them.
_EXAMPLES = [
    ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
]


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


def zone_of(name: str, zones: Mapping[str, str]) -> str | None:
    """Return the zone that a name is in, None if it is in none: the longest that fits."""
    fitting = [zone for zone in zones if f".{name.lower()}".endswith(f".{zone}")]
    return max(fitting, key=len, default=None)


def is_example(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address stands in the config only until the real one is known."""
    return any(address in network for network in _EXAMPLES)

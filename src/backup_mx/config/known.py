"""What is known of Oracle's free machines, of examples and of zones, whatever a file says."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

# What Oracle gives each tenancy for free.
FREE_SHAPE, FREE_MACHINES, FREE_GB = "VM.Standard.E2.1.Micro", 2, 200
IPV4_ONLY = "Oracle's reserved addresses are IPv4's"
# Addresses of documentation (RFC 5737): nobody has one of them.
_EXAMPLES = [
    ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
]


def zone_of(name: str, zones: Mapping[str, str]) -> str | None:
    """Return the zone that a name is in, None if it is in none: the longest that fits."""
    fitting = [zone for zone in zones if f".{name.lower()}".endswith(f".{zone}")]
    return max(fitting, key=len, default=None)


def is_example(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether an address stands in the config only until the real one is known."""
    return any(address in network for network in _EXAMPLES)

"""What of [dns.…] and [mta_sts] is wrong only together with the rest of the file.

Like `backup_mx.conflicts_cloud`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backup_mx.conflicts_cloud import Conflict, Values, zone_of
from backup_mx.errors import did_you_mean


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

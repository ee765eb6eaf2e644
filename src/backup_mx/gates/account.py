"""Whether the cloud account gives the relay what it needs, and keeps it."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.findings import Finding
from backup_mx.gates.gate import Gate, Site


def judge(site: Site) -> Iterator[Finding]:
    """Ask Oracle where the relay stands there, as `backup-mx cloud check` does.

    Raises CloudError, HostError where the SDK is missing, SecretError, UnreachableError.
    """
    oci = site.config.cloud.oci
    if oci is None or site.relay.name not in oci.relays:
        yield Finding("account", "pass", "not on a cloud whose account can be asked")
        return
    from backup_mx.cloud.check import check
    from backup_mx.cloud.oracle import Account
    from backup_mx.cloud.wanted import wanted_by

    wanted = wanted_by(site.config)
    yield from check(Account(wanted.profile), wanted, site.tell)


GATE = Gate(
    "account", "the cloud account gives it what it needs", ("A", "MX"), judge, of_relay=False
)

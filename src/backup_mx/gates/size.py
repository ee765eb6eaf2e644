"""Whether what a new machine boots from fits into what a provider lets it carry."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.errors import BundleError
from backup_mx.findings import Finding
from backup_mx.gates.gate import Gate, Site
from backup_mx.machine import cloudinit

_NEAR = 0.9  # of the limit: the next key, or longer table, may be too much


def judge(site: Site) -> Iterator[Finding]:
    """Make the relay's user-data, and measure it as Oracle does."""
    try:
        size = cloudinit.size(cloudinit.user_data(site.config, site.relay.name))
    except BundleError as error:
        do = "take SSH keys or tables of recipients out: a deploy can bring those"
        yield Finding("size", "fail", str(error), do)
        return
    yield judged(size)


def judged(size: int) -> Finding:
    """Judge user-data of ``size`` bytes as base64."""
    saw = f"user-data takes {size:,} of {cloudinit.LIMIT:,} bytes"
    if size > _NEAR * cloudinit.LIMIT:
        return Finding("size", "warn", saw, "it is nearly too large to make the machine anew")
    return Finding("size", "pass", saw)


GATE = Gate(
    "size", "what a new machine boots from is small enough", ("A", "MX"), judge, of_relay=False
)

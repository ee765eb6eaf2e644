"""What a config wants of an account at Oracle, as far as the account's facts are judged by it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from backup_mx.config import Config
from backup_mx.config.known import FREE_SHAPE, is_example


@dataclass(frozen=True)
class WantedRelay:
    """A relay as terraform/oci makes it. Its machine is called as the hostname is."""

    hostname: str
    address: str
    boot_gb: int
    volume_gb: int

    @property
    def volume(self) -> str:
        """Return what its queue's volume is called."""
        return f"{self.hostname} queue"

    @property
    def to_reserve(self) -> bool:
        """Tell whether the address is still an example's: Oracle gives the real one."""
        return is_example(ipaddress.ip_address(self.address))


@dataclass(frozen=True)
class Wanted:
    """What is to be made, and where; None is what no config says."""

    profile: str | None = None
    tenancy: str | None = None
    region: str | None = None
    shape: str = FREE_SHAPE
    may_cost: bool = False
    relays: tuple[WantedRelay, ...] = ()

    def wants(self, machine: str) -> bool:
        """Tell whether a machine of that name is a relay's; where no relay is wanted, it may be."""
        return not self.relays or any(each.hostname == machine for each in self.relays)

    def missing(self, there: Iterable[str]) -> list[WantedRelay]:
        """Return the relays that have no machine among ``there``, by name."""
        names = set(there)
        return [each for each in self.relays if each.hostname not in names]


def wanted_by(config: Config) -> Wanted:
    """Return what ``config`` wants; nothing in particular without [cloud.oci]."""
    oci = config.cloud.oci
    if oci is None:
        return Wanted()
    relays = tuple(
        WantedRelay(
            hostname=str(config.relays[name].hostname),
            address=str(config.relays[name].address),
            boot_gb=oci.boot_volume_size,
            volume_gb=oci.volume_size if config.relays[name].volume else 0,
        )
        for name in oci.relays
    )
    return Wanted(oci.profile, oci.tenancy, oci.region, oci.shape, oci.may_cost, relays)

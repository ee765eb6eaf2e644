"""Who changes which zone of a config: a provider, Terraform, or a person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from backup_mx.config import Config
from backup_mx.dns.plan import Change
from backup_mx.dns.provider import Provider
from backup_mx.dns.wanted import Stage, by_terraform
from backup_mx.errors import HostError, SecretError


@dataclass(frozen=True)
class Providers:
    """Who changes which zone; every other one is changed by hand.

    broken tells of each zone whose provider cannot be had, why.
    """

    config: Config
    by_zone: Mapping[str, Provider]
    broken: Mapping[str, str] = field(default_factory=dict)

    def words(self, zone: str) -> str:
        """Return how a zone is changed."""
        if provider := self.by_zone.get(zone):
            return provider.words
        if why := self.broken.get(zone):
            return f"by hand: {why}"
        return "by Terraform" if by_terraform(self.config, zone) else "by hand"

    def advice(self, change: Change) -> str:
        """Return who is to make a change of a zone that no provider here changes."""
        cloudflare = self.config.dns.cloudflare
        if cloudflare and self._by_terraform(change):
            apply = f"`backup-mx build`, and `terraform apply` in {cloudflare.folder}, are to make"
            return f"{_before(change)}{apply}"
        why = self.broken.get(change.zone)
        return f"{why}, so you are to make" if why else "you are to make"

    def _by_terraform(self, change: Change) -> bool:
        """Tell whether it is of what `terraform/cloudflare` makes: relays' addresses and MX."""
        name, kind = change.question
        hosts = {relay.hostname for relay in self.config.relays.values()}
        made = kind == "MX" or (kind in ("A", "AAAA") and name in hosts)
        return made and by_terraform(self.config, change.zone)


def providers(config: Config) -> Providers:
    """Return who changes the zones of a config.

    A provider whose secret or library is missing leaves its zones to a person: a withdrawal is
    never refused.
    """
    found: dict[str, Provider] = {}
    broken: dict[str, str] = {}
    for zones, made in _makers(config):
        try:
            found |= dict.fromkeys(zones, made())
        except (SecretError, HostError) as error:
            broken |= dict.fromkeys(zones, str(error))
    return Providers(config, found, broken)


def _makers(config: Config) -> Iterator[tuple[Iterable[str], Callable[[], Provider]]]:
    """Yield the zones of each provider, and what makes it."""
    if updates := config.dns.rfc2136:
        from backup_mx.dns.rfc2136 import Updates

        yield updates.zones, lambda: Updates(updates, updates.key.read(config.folder))
    cloudflare = config.dns.cloudflare
    if cloudflare and (token := cloudflare.token):
        from backup_mx.dns.cloudflare import Cloudflare

        yield cloudflare.zones, lambda: Cloudflare(cloudflare, token.read(config.folder))


def _before(change: Change) -> str:
    """Return what has to be changed in the config, so that Terraform makes a change."""
    if change.put:
        return ""
    if change.stage is Stage.NAMES:
        return f"without [relay.{change.relay}] in the config, "
    return 'with `publish = "address"` in [dns.cloudflare], which withdraws every relay, '

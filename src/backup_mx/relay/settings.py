"""What the agent is told: the relay's part of the config, as JSON on the machine."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backup_mx.errors import MachineError

PATH = Path("/etc/backup-mx/agent.json")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Target:
    """A primary, and how its mail is drained.

    tls is the config's word (verify, encrypt, may, none); domains are those it owns; tunnel is the
    public key at the other end of the WireGuard tunnel that leads to it, "" where none does.
    """

    name: str
    hostname: str
    host: str
    port: int
    tls: str
    domains: tuple[str, ...]
    tunnel: str = ""


@dataclass(frozen=True)
class Table:
    """A domain's table of recipients, and the URL it is fetched from."""

    domain: str
    url: str


@dataclass(frozen=True)
class Settings:
    """All that the agent is told; durations in seconds, networks as text.

    acme is the authority that is asked for the certificate, "" where none is; policies are the web
    hosts whose MTA-STS policies this relay serves, which need certificates of their own.
    Secrets are in clear, but not in its repr: that is what ends up in logs.
    """

    relay: str
    hostname: str
    address: str
    targets: tuple[Target, ...]
    retention: int
    at_retention: str
    canary_waiting: int
    canary_idle: int
    canary_message_to: str
    ledger_keep: int
    hash_addresses: bool
    standby: bool
    acme: str
    tables: tuple[Table, ...]
    recipients_every: int
    recipients_may_shrink: int
    metrics_from: tuple[str, ...]
    dashboard_from: tuple[str, ...]
    dashboard_password: str = field(repr=False)
    dashboard_actions: bool
    notify_urls: tuple[str, ...] = field(repr=False)
    policies: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The settings as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def is_named(self, host: str, here: Address | None) -> bool:
        """Say whether a request's Host names this relay: no page elsewhere makes a browser do so.

        here is the machine's own address that was asked, which behind a cloud's NAT is not the one
        that the world knows. Against DNS rebinding.
        """
        name = _name(host)
        if name in {"localhost", self.hostname.lower(), self.relay.lower()}:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or address == here or str(address) == self.address


def _name(host: str) -> str:
    """Return the name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def read(path: Path = PATH) -> Settings:
    """Read the settings. Raises MachineError where they cannot be read or are not such."""
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise MachineError(f"{path} cannot be read: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise MachineError(f"{path} is not what backup-mx deploy writes: {error}") from None


def from_json(found: dict[str, Any]) -> Settings:
    """Build Settings from a JSON object. Raises KeyError, TypeError, ValueError."""
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in found.items()
    }
    targets = (Target(**each | {"domains": tuple(each["domains"])}) for each in found["targets"])
    tables = (Table(**each) for each in found["tables"])
    return Settings(**plain | {"targets": tuple(targets), "tables": tuple(tables)})

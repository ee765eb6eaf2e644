"""Config to an edge kit: what lets the relays' drain through a router or proxy of the operator's.

    backup-mx edge render nftables ──> README.md, files/etc/nftables.d/backup-mx.nft, …

What `forward_to` is: for nftables and pfSense, which translate addresses, where the connection goes
on (HAProxy on the router itself, or the primary); for HAProxy the primary's own inner address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from backup_mx.config import Config
from backup_mx.config.options import Edge, Primary
from backup_mx.config.values import Address, ip
from backup_mx.errors import ConfigError, Problem
from backup_mx.kit.files import KitFile
from backup_mx.machine.tree import rendered, walk
from backup_mx.machine.wireguard import private_key, public_key

TRANSLATORS = ("nftables", "pfsense")
"""The kinds that translate addresses: what they forward to is an address, of the relays' family."""

_OUTSIDE = {"pfsense": "wan"}  # what the outer side is called where nobody renames it


@dataclass(frozen=True)
class Peer:
    """A relay as the edge's WireGuard knows it; address is the inner one."""

    name: str
    hostname: str
    public_key: str
    address: Address

    @property
    def network(self) -> str:
        """The inner address alone, as ``AllowedIPs`` has it (wg(8))."""
        return str(ipaddress.ip_network(self.address))


def render(config: Config, kind: str) -> tuple[KitFile, ...]:
    """Return the kit for the edge ``kind`` ("nftables", "haproxy" or "pfsense") of ``config``.

    Below ``files/`` a path is the destination on the router. Where the primary has a tunnel, the
    relays' private keys are read, for their public halves only.

    Raises ConfigError where the config has no such edge or the edge cannot do what it says,
    SecretError where a key cannot be read.
    """
    edges: Mapping[str, Edge] = dict(config.edges.items())
    if kind not in edges:
        raise _wrong(f"edge.{kind}", f"expected a table [edge.{kind}] in the config")
    edge = edges[kind]
    primary = config.primaries[edge.primary]
    _check(config, edge, primary)
    values = _values(config, edge, primary)
    folders = [kind]
    if values["tunnel"] and kind != "pfsense":
        folders.append("wireguard")
    return tuple(file for folder in folders for file in _files(folder, values))


def _files(folder: str, values: dict[str, Any]) -> Iterator[KitFile]:
    root = resources.files("backup_mx") / "templates" / "edge" / folder
    for path, source in walk(root, ""):
        yield KitFile(path.removesuffix(".j2"), rendered(source, path, values))


def _values(config: Config, edge: Edge, primary: Primary) -> dict[str, Any]:
    """Return what the templates of an edge may name."""
    relays = config.seen_from(primary)
    peers = _peers(config) if primary.wireguard_endpoint else []
    return {
        "primary": primary,
        "drain_to": primary.drain_to,
        "forward_to": edge.forward_to,
        # Out of a tunnel it may be there already.
        "translate": not peers or primary.drain_to != edge.forward_to,
        "interface": edge.interface or _OUTSIDE.get(edge.name, ""),
        "proxy_protocol": edge.proxy_protocol,
        "check_port": edge.check_port,
        "relays": relays,
        "machines": list(config.relays.values()),
        "outer": [relay.address for relay in config.relays.values()],
        "versions": {address.version for address in relays},
        "ip": family(relays[0]),
        "family": family,
        "tunnel": bool(peers),
        "endpoint": primary.wireguard_endpoint,
        "peers": peers,
        "keys": {peer.name: peer.public_key for peer in peers},
    }


def _peers(config: Config) -> list[Peer]:
    return [
        Peer(
            relay.name,
            relay.hostname,
            public_key(private_key(relay, config.folder)),
            relay.wireguard_address,
        )
        for relay in config.relays.values()
        if relay.wireguard_address
    ]


def family(address: Address) -> str:
    """Return what nftables calls the protocol of ``address``: "ip" or "ip6"."""
    return "ip" if address.version == 4 else "ip6"


def _check(config: Config, edge: Edge, primary: Primary) -> None:
    """Refuse what no address can be translated to. Raises ConfigError."""
    if edge.name not in TRANSLATORS:
        return
    path = f"edge.{edge.name}.forward_to"
    try:
        target = ip(edge.forward_to.host)
    except ValueError:
        message = "expected an address: a router does not look names up for each connection"
        raise _wrong(path, message, str(edge.forward_to)) from None
    for relay in config.seen_from(primary):
        if relay.version != target.version:
            message = f"expected an IPv{relay.version} address, as {relay} is, a relay's"
            raise _wrong(path, message, str(edge.forward_to))


def _wrong(path: str, expected: str, value: str = "") -> ConfigError:
    return ConfigError("the config file", [Problem(path, None, value, expected)])

"""WireGuard: the tunnels a relay dials, its private key, and the public one belonging to it."""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from backup_mx.config import Config
from backup_mx.config.options import Relay
from backup_mx.config.values import WIREGUARD_KEY, HostPort, ip
from backup_mx.errors import SecretError

_PRIME = 2**255 - 19
_A24 = 121665  # (486662 - 2) / 4, of the curve's equation (RFC 7748 section 4.1)
_BASE_POINT = 9


@dataclass(frozen=True)
class Tunnel:
    """The other side of a tunnel: its key, where it is dialled, and the addresses inside it."""

    public_key: str
    endpoint: HostPort
    networks: tuple[str, ...]


def tunnels(config: Config) -> list[Tunnel]:
    """Return what a relay dials: one tunnel for each public key that primaries have.

    Nothing is routed into it but the addresses that mail is drained to.
    """
    found: dict[str, Tunnel] = {}
    for primary in config.primaries.values():
        key, endpoint = primary.wireguard_public_key, primary.wireguard_endpoint
        if key and endpoint:
            inner = str(ipaddress.ip_network(ip(primary.drain_to.host)))
            others = found[key].networks if key in found else ()
            networks = tuple(dict.fromkeys((*others, inner)))
            found[key] = Tunnel(key, endpoint, networks)
    return list(found.values())


def private_key(relay: Relay, folder: Path) -> str:
    """Read the private key of ``relay``; ``folder`` is the config file's.

    Raises SecretError when it cannot be read, or is no such key; what it is instead is not told.
    """
    path = f"relay.{relay.name}.wireguard_key"
    if relay.wireguard_key is None:
        raise SecretError(f"{path} is missing: a primary is behind a tunnel")
    key = relay.wireguard_key.read(folder)
    if not WIREGUARD_KEY.fullmatch(key):
        raise SecretError(f"{path}: what is kept there is no WireGuard key: `wg genkey` makes one")
    return key


def public_key(private: str) -> str:
    """Return the public key of a private one, both as ``wg`` writes them.

    The operator need not have ``wg``, nor keep two options in step. This X25519 takes longer for
    some keys than for others: it is for the operator's own host, not for a server.
    """
    scalar = bytearray(base64.b64decode(private))
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    point = _ladder(int.from_bytes(scalar, "little"), _BASE_POINT)
    return base64.b64encode(point.to_bytes(32, "little")).decode()


def _ladder(scalar: int, u: int) -> int:
    """Multiply the point at ``u`` by ``scalar`` (RFC 7748 section 5, in its words)."""
    x_2, z_2, x_3, z_3 = 1, 0, u, 1
    for bit in range(254, -1, -1):
        swap = scalar >> bit & 1
        if swap:
            x_2, z_2, x_3, z_3 = x_3, z_3, x_2, z_2
        a, b, c, d = x_2 + z_2, x_2 - z_2, x_3 + z_3, x_3 - z_3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x_3, z_3 = (da + cb) ** 2 % _PRIME, u * (da - cb) ** 2 % _PRIME
        x_2, z_2 = aa * bb % _PRIME, e * (aa + _A24 * e) % _PRIME
        if swap:
            x_2, z_2, x_3, z_3 = x_3, z_3, x_2, z_2
    return x_2 * pow(z_2, _PRIME - 2, _PRIME) % _PRIME

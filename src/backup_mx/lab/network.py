"""A lab's wire: one bridge in a namespace of its own, one namespace a machine.

Nothing here touches the host's own network: every link is born inside a namespace. The bridge's
namespace has an address itself, OUTSIDER: from there the host looks at the machines as any client
on the internet does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import host, names

NAMESPACES = Path("/run/netns")
RANGES = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
"""RFC 5737: addresses for documentation, which filters nevertheless treat as public."""
OUTSIDER = "192.0.2.1"

_CLONE_NEWNET = 0x40000000
_BRIDGE = "br0"


def create(lab: str) -> None:
    """Make the lab's bridge, and its namespace."""
    wire = names.scoped(lab, "net")
    host.call(["ip", "netns", "add", wire])
    _batch(
        wire,
        [
            f"link add {_BRIDGE} type bridge forward_delay 0",
            f"link set {_BRIDGE} up",
            "link set lo up",
            *_addressing(_BRIDGE, [OUTSIDER]),
        ],
    )
    _impatient(wire, _BRIDGE)


def attach(lab: str, machine: str, addresses: Sequence[str]) -> Path:
    """Make a machine's namespace with eth0 in it, joined to the bridge, and return its path.

    It is made anew at every boot: firewall rules and open connections live in the namespace, and
    a machine that lost its power has neither.
    """
    wire, own = names.scoped(lab, "net"), names.scoped(lab, machine)
    host.call(["ip", "netns", "add", own])
    _batch(
        wire,
        [
            f"link add {machine} type veth peer name eth0 address {_mac(addresses[0])} netns {own}",
            f"link set {machine} master {_BRIDGE} up",
        ],
    )
    _batch(own, ["link set lo up", "link set eth0 up", *_addressing("eth0", addresses)])
    _impatient(own, "eth0")
    return NAMESPACES / own


def detach(lab: str, machine: str) -> None:
    """Pull a machine's plug: from here on it sends nothing, not even a reset. None is fine."""
    wire, own = names.scoped(lab, "net"), names.scoped(lab, machine)
    with contextlib.suppress(LabError):
        host.call(["ip", "-n", wire, "link", "del", machine])
    if (NAMESPACES / own).exists():
        host.call(["ip", "netns", "del", own])
    for other in found(lab):
        # As when a switch's port goes dark; else a neighbour would go on sending for half a minute.
        host.call(["ip", "-n", other, "neigh", "flush", "all"])


def found(lab: str) -> list[str]:
    """Return the names of the lab's namespaces."""
    return sorted(path.name for path in NAMESPACES.glob(f"{names.prefix(lab)}*"))


def remove(namespace: str) -> set[int]:
    """Remove a namespace with its links, and return the ids of the processes that are in it."""
    pids = host.call(["ip", "netns", "pids", namespace]).split()
    host.call(["ip", "netns", "del", namespace])
    return {int(pid) for pid in pids}


def connect(lab: str, address: str, port: int, timeout: float = 5.0) -> socket.socket:
    """Connect to a machine over TCP from outside (from OUTSIDER), within ``timeout`` seconds.

    Raises OSError as socket.create_connection does.
    """
    with inside(names.scoped(lab, "net")):
        return socket.create_connection((address, port), timeout)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Stand in a network namespace: the sockets this thread makes meanwhile belong to it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(NAMESPACES / namespace, os.O_RDONLY)
        try:
            _enter(there)
            yield
        finally:
            os.close(there)
            _enter(home)
    finally:
        os.close(home)


def _enter(descriptor: int) -> None:
    """Move this thread to the network namespace behind an open file (setns(2))."""
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mac(address: str) -> str:
    """Return the hardware address of the machine with this IPv4 address: the same at every boot."""
    return ":".join(["02", "00", *(f"{int(part):02x}" for part in address.split("."))])


def _addressing(device: str, addresses: Iterable[str]) -> list[str]:
    """Return the commands that give a device its addresses, with every range on the wire."""
    first, *others = addresses
    return [
        f"addr add {first}/32 dev {device}",
        *(f"addr add {other}/32 dev {device}" for other in others),
        *(f"route add {block} dev {device} src {first}" for block in RANGES),
    ]


def _batch(namespace: str, commands: Iterable[str]) -> None:
    host.call(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")


def _impatient(namespace: str, device: str) -> None:
    """Let a switched-off neighbour be known for it after 0.15 s, not 3 s: the wire is in memory.

    A sender tries the primary anew for each message before it turns to the relay.
    """
    with inside(namespace):
        Path(f"/proc/sys/net/ipv4/neigh/{device}/retrans_time_ms").write_text("50")

"""A lab's wires: two bridges in a namespace of their own, one namespace a machine.

Nothing here touches the host's own network: every link is born inside a namespace. The bridges'
namespace has an address on each itself: from OUTSIDER the host looks at the machines as any client
on the internet does, from INSIDER as a machine on the operator's LAN. It forwards nothing: the only
way from one wire to the other is the edge.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import host, names
from backup_mx.lab.layout import LAN, WAN, Link, Role

NAMESPACES = Path("/run/netns")
RANGES = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
"""RFC 5737: addresses for documentation, which filters nevertheless treat as public."""
OUTSIDER = "192.0.2.1"
INSIDER = "10.0.10.254"

_CLONE_NEWNET = 0x40000000
_BLOCKS = {WAN: RANGES, LAN: ("10.0.10.0/24",)}
_BRIDGES = {WAN: "br0", LAN: "br1"}


def create(lab: str) -> None:
    """Make the lab's bridges, and their namespace."""
    wires = names.scoped(lab, "net")
    host.call(["ip", "netns", "add", wires])
    _batch(wires, ["link set lo up"])
    for wire, address in ((WAN, OUTSIDER), (LAN, INSIDER)):
        bridge = _BRIDGES[wire]
        made = [f"link add {bridge} type bridge forward_delay 0", f"link set {bridge} up"]
        _batch(wires, [*made, *_addressing(bridge, Link(wire, (address,)))])
        _impatient(wires, bridge)
    _forwarding(wires, between_wires=False)


def attach(lab: str, role: Role) -> Path:
    """Make a machine's namespace with its links, joined to their wires, and return its path.

    It is made anew at every boot: firewall rules and open connections live in the namespace, and
    a machine that lost its power has neither.
    """
    own = names.scoped(lab, role.name)
    host.call(["ip", "netns", "add", own])
    _batch(own, ["link set lo up"])
    for number, link in enumerate(role.links):
        _join(lab, role.name, f"eth{number}", link)
    if role.gateway:
        _batch(own, [f"route add default via {role.gateway}"])
    _forwarding(own, between_wires=len(role.links) > 1)
    _long_queues(own)
    return NAMESPACES / own


def _join(lab: str, machine: str, device: str, link: Link) -> None:
    """Give a machine a device, joined to its wire."""
    wires, own = names.scoped(lab, "net"), names.scoped(lab, machine)
    port = _port(machine, device)
    far = f"peer name {device} address {_mac(link.addresses[0])} netns {own}"
    _batch(
        wires,
        [f"link add {port} type veth {far}", f"link set {port} master {_BRIDGES[link.wire]} up"],
    )
    _batch(own, [f"link set {device} up", *_addressing(device, link)])
    _impatient(own, device)


def _port(machine: str, device: str) -> str:
    """Return what the bridges' end of a machine's device is called."""
    return f"{machine}-{device}"


def detach(lab: str, machine: str) -> None:
    """Pull a machine's plug: from here on it sends nothing, not even a reset. None is fine."""
    wires, own = names.scoped(lab, "net"), names.scoped(lab, machine)
    for device in ("eth0", "eth1"):
        with contextlib.suppress(LabError):
            host.call(["ip", "-n", wires, "link", "del", _port(machine, device)])
    if (NAMESPACES / own).exists():
        host.call(["ip", "netns", "del", own])
    for other in found(lab):
        # As when a switch's port goes dark; else a neighbour would go on sending for half a minute.
        host.call(["ip", "-n", other, "neigh", "flush", "all"])


def unplug(lab: str, machine: str, *, plugged: bool = False) -> None:
    """Take a machine's cable out, and with plugged put it back; it has its addresses all along."""
    wires = names.scoped(lab, "net")
    state = "up" if plugged else "down"
    host.call(["ip", "-n", wires, "link", "set", _port(machine, "eth0"), state])


def found(lab: str) -> list[str]:
    """Return the names of the lab's namespaces."""
    return sorted(path.name for path in NAMESPACES.glob(f"{names.prefix(lab)}*"))


def remove(namespace: str) -> set[int]:
    """Remove a namespace with its links, and return the ids of the processes that are in it."""
    pids = host.call(["ip", "netns", "pids", namespace]).split()
    host.call(["ip", "netns", "del", namespace])
    return {int(pid) for pid in pids}


def connect(lab: str, address: str, port: int, timeout: float = 5.0) -> socket.socket:
    """Connect to a machine over TCP within ``timeout`` seconds.

    An address on the LAN is reached from INSIDER, any other from OUTSIDER.

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


def _addressing(device: str, link: Link) -> list[str]:
    """Return the commands that give a device its addresses, with every range on its wire."""
    first = link.addresses[0]
    return [
        *(f"addr add {address}/32 dev {device}" for address in link.addresses),
        *(f"route add {block} dev {device} src {first}" for block in _BLOCKS[link.wire]),
    ]


def _batch(namespace: str, commands: Iterable[str]) -> None:
    host.call(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")


def _forwarding(namespace: str, *, between_wires: bool) -> None:
    """Let a namespace hand packets on or not: a new one does if the host does.

    Machines cannot say so themselves: systemd-nspawn lets them read /proc/sys only.
    """
    with inside(namespace):
        Path("/proc/sys/net/ipv4/ip_forward").write_text(f"{between_wires:d}")


def _long_queues(namespace: str) -> None:
    """Let sockets hold as many datagrams as systemd sees to on a real machine, 512 and not 10.

    Postfix's postlogd(8) waits for itself when it has more than these to say as it starts.
    """
    with inside(namespace):
        Path("/proc/sys/net/unix/max_dgram_qlen").write_text("512")


def _impatient(namespace: str, device: str) -> None:
    """Let a switched-off neighbour be known for it after 0.15 s, not 3 s: the wire is in memory.

    A sender tries the primary anew for each message before it turns to the relay.
    """
    with inside(namespace):
        Path(f"/proc/sys/net/ipv4/neigh/{device}/retrans_time_ms").write_text("50")

"""Listening for the operator and for Prometheus: where, and who is let in at all.

Nothing here needs aiohttp: it costs 12 MiB, and is loaded when somebody opens the dashboard.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from asyncio import BaseTransport
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from backup_mx.errors import MachineError

LOOPBACK = ("127.0.0.1", "::1")
BACKLOG = 64
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Server:
    """A server that runs; addresses are those it listens at, as ``host:port``."""

    addresses: tuple[str, ...]
    stop: Callable[[], Coroutine[Any, Any, None]]
    """Take nothing new, answer what was asked, and close, within some seconds."""


def listeners(networks: tuple[str, ...], port: int) -> list[socket.socket]:
    """Listen on loopback, and on all addresses where networks are let in from outside.

    Raises MachineError where the port is taken. An address family the machine lacks is left out.
    """
    hosts = ("0.0.0.0", "::") if networks else LOOPBACK  # noqa: S104 - peers are checked
    bound: list[socket.socket] = []
    try:
        bound += (each for host in hosts if (each := _listener(host, port)))
    except BaseException:
        close(bound)
        raise
    if not bound:
        raise MachineError(f"nothing to listen at, for port {port}: the machine has no loopback")
    return bound


def close(bound: Iterable[socket.socket]) -> None:
    """Stop to listen."""
    for each in bound:
        each.close()


def named(bound: Iterable[socket.socket]) -> tuple[str, ...]:
    """Return where sockets listen, as ``host:port``."""
    names = (each.getsockname() for each in bound)
    return tuple(f"[{at[0]}]:{at[1]}" if ":" in at[0] else f"{at[0]}:{at[1]}" for at in names)


def _listener(host: str, port: int) -> socket.socket | None:
    try:
        return _bound(host, port)
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            return None
        raise MachineError(f"cannot listen at {host} port {port}: {error.strerror}") from None


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def peer(transport: BaseTransport | None) -> Address | None:
    """Return who asks, None for a connection that is gone; IPv4 in IPv6 is IPv4."""
    return _address(transport, "peername")


def here(transport: BaseTransport | None) -> Address | None:
    """Return which of the machine's own addresses was asked."""
    return _address(transport, "sockname")


def _address(transport: BaseTransport | None, which: str) -> Address | None:
    found: Any = transport.get_extra_info(which) if transport else None
    if not found:
        return None
    address = ipaddress.ip_address(found[0].partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def may_ask(address: Address | None, networks: Iterable[str]) -> bool:
    """Say whether a peer is let in: from loopback always, else from one of the networks."""
    if address is None:
        return False
    return address.is_loopback or any(address in ipaddress.ip_network(each) for each in networks)

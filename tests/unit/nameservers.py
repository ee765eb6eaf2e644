"""A name server of one's own on this host: it answers from a zone's text, as it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.zone
import pytest
from ports import both

from backup_mx.dns.records import Record
from backup_mx.net import dns as net
from backup_mx.net.dns import Names

CONFIG = """
[relay.mx2]
hostname = "mx2.example.org"
address = "203.0.113.20"
[primary.home]
hostname = "mail.example.org"
[domain."example.org"]
"""
SOA = "@ 300 SOA ns1 hostmaster 1 3600 600 604800 60\n"
ZONE = f"""{SOA}
@ 300 NS ns1
ns1 300 A 127.0.0.1
@ 300 MX 10 mail
"""

Reply = Callable[[dns.message.Message], dns.message.Message | None]


@dataclass
class NameServer:
    """A server at ``port`` of 127.0.0.1, of a zone or of several; asked tells the questions.

    spoil changes an answer before it goes; None for none at all.
    """

    port: int
    zones: list[dns.zone.Zone] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    spoil: Reply = field(default=lambda answer: answer)

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        question = dns.message.from_wire(wire)
        name, kind = question.question[0].name, question.question[0].rdtype
        self.asked.append(f"{name} {dns.rdatatype.to_text(kind)}{' tcp' if tcp else ''}")
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.AA | dns.flags.RA
        self._fill(answer, name, kind)
        spoiled = self.spoil(answer)
        if spoiled is None:
            return None
        return spoiled.to_wire(max_size=65535) if tcp else _short(spoiled)

    def _fill(
        self, answer: dns.message.Message, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> None:
        zone = next(
            (each for each in self.zones if each.origin and name.is_subdomain(each.origin)), None
        )
        if zone is None:
            answer.set_rcode(dns.rcode.REFUSED)
            return
        node = zone.get_node(name)
        if node is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
            return
        for wanted in (kind, dns.rdatatype.CNAME):
            if found := node.get_rdataset(dns.rdataclass.IN, wanted):
                answer.answer.append(dns.rrset.from_rdata_list(name, found.ttl, list(found)))
                return


def _short(answer: dns.message.Message) -> bytes:
    """Return an answer as a datagram: cut off, and said to be, where it is too long for one."""
    whole = answer.to_wire(max_size=65535)
    if len(whole) <= 512:
        return whole
    answer.answer.clear()
    answer.flags |= dns.flags.TC
    return answer.to_wire()


@contextlib.contextmanager
def serving(*zones: tuple[str, str]) -> Iterator[NameServer]:
    """Run a server of these zones, each a name and its text."""
    with both() as (stream, datagrams):
        port = stream.getsockname()[1]
        made = [
            dns.zone.from_text(text, origin, relativize=False, check_origin=False)
            for origin, text in zones
        ]
        server = NameServer(port, made)
        threads = [
            threading.Thread(target=_datagrams, args=(server, datagrams)),
            threading.Thread(target=_streams, args=(server, stream)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield server
        finally:
            stream.shutdown(socket.SHUT_RDWR)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", ("127.0.0.1", port))
            for thread in threads:
                thread.join(5)


def _datagrams(server: NameServer, own: socket.socket) -> None:
    while True:
        wire, client = own.recvfrom(65535)
        if not wire:
            return
        if answer := server.answer(wire, tcp=False):
            own.sendto(answer, client)


def _streams(server: NameServer, own: socket.socket) -> None:
    while True:
        try:
            line, _ = own.accept()
        except OSError:
            return
        with line:
            size = int.from_bytes(line.recv(2), "big")
            if answer := server.answer(line.recv(size, socket.MSG_WAITALL), tcp=True):
                line.sendall(len(answer).to_bytes(2, "big") + answer)


@contextlib.contextmanager
def standing(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """Let this host's DNS be one server of ZONE and of the zone of its relay's address."""
    with serving(("example.org.", ZONE), ("113.0.203.in-addr.arpa.", SOA)) as running:
        monkeypatch.setattr(net, "PORT", running.port)
        monkeypatch.setattr(net, "Names", names)
        yield running


def names() -> Names:
    """Return the DNS as this server has it; what it once knew is not remembered."""
    return Names(("127.0.0.1",))


def add(server: NameServer, record: Record) -> None:
    """Put a record into the server's first zone."""
    data = dns.rdata.from_text("IN", record.kind, record.text)
    server.zones[0].find_rdataset(f"{record.name}.", record.kind, create=True).add(data, 300)

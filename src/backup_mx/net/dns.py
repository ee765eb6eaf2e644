"""DNS, asked: of a resolver, as everybody does, and of each authoritative server by itself.

The only user of dnspython's sockets; every question is bounded. Names go in with or without their
final dot, and come out in small letters and without it: an MX record reads "20 mx2.example.org".
A TXT record is the text that its strings make together, as its readers take it (RFC 7208, 3.3).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.rdatatype
import dns.resolver
import dns.reversename
import dns.rrset
import dns.tsig

from backup_mx.errors import DnsError

PORT = 53
SECONDS = 5.0
"""How long one server is waited for, each time that it is asked."""

TRIES = 2  # a datagram may get lost
LIFETIME = 15.0
"""How long a resolver may take, in seconds, with all its tries."""

_FAILED = (dns.exception.DNSException, EOFError, OSError)  # EOFError: it hung up on TCP


@dataclass(frozen=True)
class Server:
    """A name server at one of its addresses; "" where its name has none."""

    name: str
    address: str

    def __str__(self) -> str:
        """Return it for a message."""
        return f"{self.name} ({self.address})" if self.address else self.name


@dataclass(frozen=True)
class Answer:
    """What one server said of a name and a type.

    rcode is its word ("NOERROR", "NXDOMAIN", "REFUSED", …); records what it has, sorted; ttl their
    seconds, None without records; authoritative whether it answers for the zone; alias the name
    that a CNAME leads to, which then is all that there is. cuts has each text as a zone file
    has it: cut as it is there.
    """

    rcode: str
    records: tuple[str, ...]
    ttl: int | None
    authoritative: bool
    alias: str = ""
    cuts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """The names of the world as the host's resolver sees them, or the one at ``nameservers``."""

    nameservers: tuple[str, ...] = ()

    def lookup(self, name: str, kind: str) -> tuple[str, ...]:
        """Return the records of a type at ``name``, sorted; none where there are none.

        CNAMEs are followed. Raises DnsError when nobody could tell.
        """
        wanted, about = _name(name), f"{kind} of {name}"
        try:
            answer = self._resolver.resolve(wanted, kind, search=False, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            return ()
        except dns.resolver.LifetimeTimeout:
            raise DnsError(f"{about}: no resolver answered within {LIFETIME:.0f} s") from None
        except dns.resolver.NoNameservers:
            raise DnsError(f"{about}: no resolver could tell") from None
        except (dns.exception.DNSException, OSError) as error:
            raise DnsError(f"{about}: {_words(error)}") from None
        return _texts(answer.rrset)

    def zone(self, name: str) -> str:
        """Return the zone that a name is in, as the world has it cut. Raises DnsError."""
        wanted = _name(name)
        while wanted != dns.name.root:
            if self.lookup(wanted.to_text(), "SOA"):
                return _plain(wanted)
            wanted = wanted.parent()
        raise DnsError(f"{name} is in no zone that the world knows")

    def authoritative(self, zone: str) -> tuple[Server, ...]:
        """Return the name servers of a zone, at each address that this host has a way to.

        Raises DnsError when it has none.
        """
        names = self.lookup(zone, "NS")
        if not names:
            raise DnsError(f"{zone} has no name servers")
        return tuple(server for name in names for server in self._servers(name))

    def signed(self, zone: str) -> bool:
        """Tell whether a zone is signed, and its parent vouches for it (RFC 4035). Raises DnsError.

        Nothing is validated here.
        """
        return bool(self.lookup(zone, "DNSKEY") and self.lookup(zone, "DS"))

    def ask(self, server: Server, name: str, kind: str) -> Answer:
        """Ask one server, which has to know by itself. Raises DnsError when it does not answer."""
        if not server.address:
            raise DnsError(f"{server.name} has no address")
        wanted = _name(name)
        question = dns.message.make_query(wanted, kind)
        question.flags &= ~dns.flags.RD
        return _read(_asked(question, server), wanted, kind)

    @cached_property
    def _resolver(self) -> dns.resolver.Resolver:
        try:
            found = dns.resolver.Resolver(configure=not self.nameservers)
        except (dns.resolver.NoResolverConfiguration, OSError):
            raise DnsError("this machine knows no resolver: /etc/resolv.conf names none") from None
        if self.nameservers:
            found.nameservers = list(self.nameservers)
        found.timeout, found.lifetime, found.port = SECONDS, LIFETIME, PORT
        return found

    def _servers(self, name: str) -> Iterable[Server]:
        """Return a server at each of its addresses that can be reached, else at what it has."""
        addresses: list[str] = []
        for kind in ("A", "AAAA"):
            with suppress(DnsError):  # one that is not to be found is told when it is asked
                addresses += self.lookup(name, kind)
        reached = [each for each in addresses if _routed(each)]
        return [Server(name, address) for address in reached or addresses or [""]]


def exchange(message: dns.message.Message, address: str, port: int = PORT) -> dns.message.Message:
    """Send a message over TCP and return the answer to it. Raises DnsError."""
    try:
        return dns.query.tcp(message, address, timeout=SECONDS, port=port)
    except _FAILED as error:
        raise DnsError(f"the name server at {address} port {port}: {_words(error)}") from None


def addresses(host: str) -> tuple[str, ...]:
    """Return the addresses of a host as this host's programs see it. Raises DnsError."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise DnsError(f"{host}: {error.strerror}") from None
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))


def reverse(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return the name whose PTR record is an address's own name."""
    return _plain(dns.reversename.from_address(str(address)))


def _asked(question: dns.message.Message, server: Server) -> dns.message.Message:
    """Ask as often as is sensible; by TCP where the answer is long."""
    for left in reversed(range(TRIES)):
        try:
            answer, _ = dns.query.udp_with_fallback(question, server.address, SECONDS, PORT)
        except _FAILED as error:
            if not left:
                raise DnsError(f"{server} does not answer: {_words(error)}") from None
        else:
            break
    return answer


def _read(answer: dns.message.Message, name: dns.name.Name, kind: str) -> Answer:
    # A server that refuses may leave out the question; then nothing else of it is an answer to it.
    records = answer.answer if answer.question else ()
    found = {each.rdtype: each for each in records if each.name == name}
    own = found.get(dns.rdatatype.from_text(kind))
    alias = found.get(dns.rdatatype.CNAME) if own is None else None
    return Answer(
        rcode=dns.rcode.to_text(answer.rcode()),
        records=_texts(own),
        ttl=own.ttl if own else None,
        authoritative=bool(answer.flags & dns.flags.AA),
        alias=_texts(alias)[0] if alias else "",
        cuts={
            _text(each): each.to_text() for each in own or () if each.rdtype == dns.rdatatype.TXT
        },
    )


def _texts(records: dns.rrset.RRset | None) -> tuple[str, ...]:
    return tuple(sorted(_text(each) for each in records or ()))


def _text(record: dns.rdata.Rdata) -> str:
    """Return a record as text, its names in small letters and without their last dot."""
    if record.rdtype == dns.rdatatype.TXT:
        return b"".join(record.strings).decode(errors="backslashreplace")  # type: ignore[attr-defined]
    text = record.to_text()
    named = (dns.rdatatype.MX, dns.rdatatype.NS, dns.rdatatype.PTR, dns.rdatatype.CNAME)
    if record.rdtype not in named:
        return text
    before, space, name = text.rpartition(" ")
    return f"{before}{space}{name.lower().rstrip('.') or '.'}"


def _name(name: str) -> dns.name.Name:
    try:
        return dns.name.from_text(name)
    except dns.exception.DNSException as error:
        raise DnsError(f"{name!r} is no name in DNS: {_words(error)}") from None


def _plain(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _routed(address: str) -> bool:
    """Tell whether this host has a way to an address at all; nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, PORT))
    except OSError:
        return False
    return True


_TSIG = (
    (dns.tsig.PeerBadKey, "it does not know the TSIG key, or not with this algorithm"),
    (dns.tsig.PeerBadSignature, "it has another secret or algorithm for the TSIG key"),
    (dns.tsig.PeerBadTime, "its clock and this machine's are too far apart for TSIG"),
)


def _words(error: Exception) -> str:
    """Return what went wrong, short."""
    for kind, words in _TSIG:
        if isinstance(error, kind):
            return words
    if isinstance(error, dns.exception.FormError) and "TSIG" in str(error):
        return f"its answer is not signed: {_TSIG[0][1]}"
    if isinstance(error, dns.exception.Timeout):
        return f"no answer within {SECONDS:.0f} s"
    if isinstance(error, EOFError):
        return "it hung up"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).rstrip(".").lower() or type(error).__name__

"""Who is who in a lab: every machine's name, addresses, what it runs, how it shows it is ready.

    internet 192.0.2.x ──┐
                         ├── wan ── 198.51.100.10 edge 10.0.10.1 ── lan ── 10.0.10.10 primary
    mx2 203.0.113.20 ────┘

Nothing on the LAN has a public address: the edge hands connections on.
"""

from __future__ import annotations

from dataclasses import dataclass

from backup_mx.errors import LabError, did_you_mean

RESOLVER = "192.0.2.53"
SERVERS = ("192.0.2.2", "192.0.2.3")
"""All zones' authoritative servers; the second has the operator's zone from the first."""
EDGE = "198.51.100.10"
"""The only public address of the operator's home, known as mail.example.org."""
ADDRESSES = {"mail.example.org": EDGE}
"""Where the hosts are that a relay drains to by name; the lab's host has another resolver."""
EDGE_INSIDE = "10.0.10.1"
PRIMARY = "10.0.10.10"
TUNNEL = "10.0.20.1"
"""The edge's address inside the relays' tunnel."""
MIRROR = "mirror.example.net"
AUTHORITY = "acme.example.net"
"""The host of the lab's ACME server, which runs for those who start it: lab-acme.service."""
VALIDATORS = ("192.0.2.83", "192.0.2.84", "192.0.2.85")
"""The addresses from which it looks at a name."""
SENDER_DOMAIN = "example.net"
RELAY_LOG = "/srv/backup-mx/log/maillog"
DKIM_SELECTOR = "lab"
DKIM_KEY = "/etc/dkim/lab.private"
"""Where the internet machine keeps the sender's private key (PEM)."""


WAN = "wan"
LAN = "lan"


@dataclass(frozen=True)
class Answer:
    """A port that answers with ``greeting`` when a machine is ready.

    With ``through`` it is reached through another machine, and only asked while that one runs.
    """

    address: str
    port: int
    greeting: bytes
    request: bytes = b""
    through: str = ""


@dataclass(frozen=True)
class Link:
    """An interface: the wire it is joined to (WAN or LAN), and its addresses there."""

    wire: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Role:
    """What a machine is.

    links are its interfaces, eth0 first, the first address of all its main one; what is on none
    of its wires it reaches by gateway; units are enabled over what its image starts; cloud is
    true for a machine that cloud-init sets up, as a provider's is; mail_log is the file its
    Postfix writes.
    """

    name: str
    hostname: str
    links: tuple[Link, ...]
    gateway: str = ""
    units: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    cloud: bool = False
    mail_log: str = "/var/log/mail.log"

    @property
    def addresses(self) -> tuple[str, ...]:
        """All its addresses, the main one first."""
        return tuple(address for link in self.links for address in link.addresses)


def soa_query(zone: str) -> bytes:
    """Return a DNS question over TCP for a zone's SOA (RFC 1035 section 4), recursion desired."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in zone.split("."))
    message = b"\x00\x2a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x06\x00\x01"
    return len(message).to_bytes(2, "big") + message


# How the reply goes on after its length: our id, no error, one question, one answer.
_SOA_REPLY = b"\x00\x2a\x81\x80\x00\x01\x00\x01"

# The same of a name server that has the zone itself, and asks nobody.
_SOA_SAID = b"\x00\x2a\x85\x00\x00\x01\x00\x01"

# The senders of the drills: each has an address of its own, since filters judge by it.
_SENDERS = tuple(f"192.0.2.{number}" for number in (*range(101, 116), 119, 120))
_INTERNET = ("192.0.2.25", "192.0.2.2", "192.0.2.3", RESOLVER, "192.0.2.66", "192.0.2.80")
_AUTHORITY = ("192.0.2.82", *VALIDATORS)
_GET = b"GET %b HTTP/1.0\r\n\r\n"

ROLES = {
    role.name: role
    for role in (
        Role(
            "internet",
            "internet.example.net",
            (Link(WAN, (*_INTERNET, *_AUTHORITY, *_SENDERS)),),
            units=(
                *("knot", "knot-secondary", "unbound"),
                *("postfix", "dovecot", "lab-mirror", "lab-place"),
            ),
            answers=(
                Answer(RESOLVER, 53, _SOA_REPLY, soa_query("example.org")),
                *(Answer(server, 53, _SOA_SAID, soa_query("example.org")) for server in SERVERS),
                Answer("192.0.2.25", 25, b"220 mta.example.net "),
                Answer("192.0.2.25", 587, b"220 mta.example.net "),
                Answer("192.0.2.80", 80, b"HTTP/1.0 200", _GET % b"/"),
            ),
        ),
        Role(
            "edge",
            "edge.example.org",
            (Link(WAN, (EDGE,)), Link(LAN, (EDGE_INSIDE,))),
            units=("nftables", "haproxy"),
            answers=(Answer(EDGE_INSIDE, 8404, b"200", _GET % b"/"),),
        ),
        Role(
            "primary",
            "mail.example.org",
            (Link(LAN, (PRIMARY,)),),
            gateway=EDGE_INSIDE,
            units=("redis-server", "rspamd", "postfix", "dovecot"),
            answers=(
                Answer(PRIMARY, 11334, b"HTTP/1.1 200", _GET % b"/ping"),
                Answer(PRIMARY, 10025, b"220 mail.example.org "),
                Answer(PRIMARY, 143, b"* OK "),
                # From postscreen, or from smtpd for a client that postscreen knows already.
                Answer(EDGE, 25, b"220", through="edge"),
            ),
        ),
        Role(
            "mx2",
            "mx2.example.org",
            (Link(WAN, ("203.0.113.20",)),),
            units=("ssh",),
            cloud=True,
            mail_log=RELAY_LOG,
        ),
        Role(
            "bare",
            "bare.example.org",
            (Link(WAN, ("203.0.113.30",)),),
            units=("ssh",),
            cloud=True,
            mail_log=RELAY_LOG,
        ),
    )
}
"""Every machine a lab can have, by name."""


def role(name: str) -> Role:
    """Return the role of the machine ``name``. Raises LabError when there is no such machine."""
    if name not in ROLES:
        hint = did_you_mean(name, ROLES)
        raise LabError(
            f'the lab has no machine "{name}": it has {", ".join(ROLES)}. {hint}'.strip()
        )
    return ROLES[name]

"""Who is who in a lab: every machine's name, addresses, what it runs, how it shows it is ready."""

from __future__ import annotations

from dataclasses import dataclass

from backup_mx.errors import LabError, did_you_mean

RESOLVER = "192.0.2.53"
MIRROR = "mirror.example.net"
SENDER_DOMAIN = "example.net"
RELAY_LOG = "/srv/backup-mx/log/maillog"
DKIM_SELECTOR = "lab"
DKIM_KEY = "/etc/dkim/lab.private"
"""Where the internet machine keeps the sender's private key (PEM)."""


@dataclass(frozen=True)
class Answer:
    """A port of a machine that answers, when the machine is ready, with ``greeting``."""

    address: str
    port: int
    greeting: bytes
    request: bytes = b""


@dataclass(frozen=True)
class Role:
    """What a machine is.

    addresses are its own, the first one its main one; units are enabled over what its image
    starts; cloud is true for a machine that cloud-init sets up, as a provider's is; mail_log is
    the file its Postfix writes.
    """

    name: str
    hostname: str
    addresses: tuple[str, ...]
    units: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    cloud: bool = False
    mail_log: str = "/var/log/mail.log"


def soa_query(zone: str) -> bytes:
    """Return a DNS question over TCP for a zone's SOA (RFC 1035 section 4), recursion desired."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in zone.split("."))
    message = b"\x00\x2a\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + labels + b"\x00\x00\x06\x00\x01"
    return len(message).to_bytes(2, "big") + message


# How the reply goes on after its length: our id, no error, one question, one answer.
_SOA_REPLY = b"\x00\x2a\x81\x80\x00\x01\x00\x01"

ROLES = {
    role.name: role
    for role in (
        Role(
            "internet",
            "internet.example.net",
            ("192.0.2.25", "192.0.2.2", "192.0.2.3", RESOLVER, "192.0.2.66", "192.0.2.80"),
            units=("knot", "unbound", "postfix", "lab-mirror"),
            answers=(
                Answer(RESOLVER, 53, _SOA_REPLY, soa_query("example.org")),
                Answer("192.0.2.25", 25, b"220 mta.example.net "),
                Answer("192.0.2.80", 80, b"HTTP/1.0 200", b"GET / HTTP/1.0\r\n\r\n"),
            ),
        ),
        Role(
            "primary",
            "mail.example.org",
            ("198.51.100.10",),
            units=("postfix", "dovecot"),
            answers=(
                Answer("198.51.100.10", 25, b"220 mail.example.org "),
                Answer("198.51.100.10", 2526, b"220 mail.example.org "),
                Answer("198.51.100.10", 143, b"* OK "),
            ),
        ),
        Role(
            "mx2",
            "mx2.example.org",
            ("203.0.113.20",),
            units=("ssh",),
            cloud=True,
            mail_log=RELAY_LOG,
        ),
        Role(
            "bare",
            "bare.example.org",
            ("203.0.113.30",),
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

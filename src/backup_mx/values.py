"""Values: what a string in the config file must look like, and what it becomes.

They end up in Postfix's files, in a firewall's rules and in ssh's arguments, so each grammar is an
allow list: nothing passes because nobody thought of forbidding it.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from backup_mx.errors import did_you_mean

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_MAILBOX = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_-]*(?:\.[A-Za-z0-9+_-]+)*")
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[^\[\]:]*))(?::(?P<port>[0-9]{1,5}))?")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})"
_BYTES = rf"{_BYTE}(?:\.\.{_BYTE})?"
_FILTER_PART = rf"(?:{_BYTE}|\[{_BYTES}(?:;{_BYTES})*\])"
_DNSBL = re.compile(
    rf"(?P<zone>[^=*]+)(?:={_FILTER_PART}(?:\.{_FILTER_PART}){{3}})?(?:\*-?[0-9]{{1,3}})?"
)
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?) ?([kmg]?i?b)", re.IGNORECASE)
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
_NOT_PUBLIC = [
    ipaddress.ip_network(net)
    for net in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"),
        *("::/127", "::ffff:0:0/96", "fc00::/7", "fe80::/10", "ff00::/8"),
    )
]


class _HintError(ValueError):
    """A value is wrong for a reason that the Check's words alone do not tell."""


class RefusedError(ValueError):
    """A Check refused a value: what it expected, and the hint if there is one."""

    def __init__(self, expected: str, hint: str = "") -> None:
        super().__init__(expected)
        self.expected, self.hint = expected, hint


@dataclass(frozen=True)
class Check:
    """What an option takes: in words, for people, and as a function from TOML's value to ours.

    ``read`` raises ValueError for anything else, a _HintError where the user gets to know why.
    """

    words: str
    read: Callable[[object], object]

    def __call__(self, value: object) -> object:
        """Return the value to use, or raise a ValueError that says what was expected."""
        try:
            return self.read(value)
        except ValueError as error:
            hint = str(error) if isinstance(error, _HintError) else ""
            raise RefusedError(f"expected {self.words}", hint) from None

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        """Stand for the whole schema of the annotated type: pydantic's own coercions stay out."""
        return core_schema.no_info_plain_validator_function(self)


@dataclass(frozen=True)
class HostPort:
    """A host (a name, or an address without brackets) and a TCP port."""

    host: str
    port: int

    @property
    def next_hop(self) -> str:
        """Postfix's next hop without an MX look-up, ``[host]:port`` (transport(5)).

        smtp(8) writes an IPv6 address as ``[ipv6:address]``, but Postfix takes it without, too.
        """
        return f"[{self.host}]:{self.port}"

    def __str__(self) -> str:
        """Write it as in the config file."""
        return f"{bracketed(self.host)}:{self.port}"


@dataclass(frozen=True)
class SshTarget:
    """Where ssh logs in: a user, a host (a name, or an address without brackets) and a TCP port."""

    user: str
    host: str
    port: int

    def __str__(self) -> str:
        """Write it as in the config file."""
        return f"{self.user}@{bracketed(self.host)}:{self.port}"


def bracketed(host: str) -> str:
    """Return a host as it stands before a port: an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _HintError("write it in quotes")
    if not value.isprintable():
        raise _HintError("it holds a line break or another character that cannot be printed")
    return value


def _matching(pattern: re.Pattern[str], text: str) -> str:
    if not pattern.fullmatch(text):
        raise ValueError
    return text


def _name(value: object) -> str:
    return _matching(_NAME, _text(value))


def _host_name(value: object) -> str:
    host = _text(value).lower()
    if host.endswith("."):
        raise _HintError("leave the final dot out")
    if not host.isascii():
        raise _HintError(_a_labels(host))
    if len(host) > 253 or host.rpartition(".")[2].isdigit():
        raise ValueError
    return _matching(_HOST, host)


def _a_labels(host: str) -> str:
    with contextlib.suppress(ValueError):
        return f'write it as "{_matching(_HOST, host.encode("idna").decode("ascii"))}"'
    return "write it in its ASCII form"


def _fqdn(value: object) -> str:
    host = _host_name(value)
    if "." not in host:
        raise _HintError("the domain is missing")
    return host


def ip(text: str) -> Address:
    """Return the address that ``text`` is, without a zone; raises ValueError if it is none."""
    # A zone ("fe80::1%eth0") is any text to ipaddress, and nothing that another machine knows.
    return ipaddress.ip_address(_matching(re.compile(r"[0-9A-Fa-f:.]+"), text))


def _public_address(value: object) -> Address:
    address = ip(_text(value))
    if any(address in network for network in _NOT_PUBLIC):
        raise _HintError("this one cannot be reached from the Internet")
    return address


def _host(text: str) -> str:
    """Return a host name or an IPv4 address in its usual form."""
    with contextlib.suppress(ValueError):
        return str(ip(text))
    return _host_name(text)


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Split ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``."""
    found = _HOST_PORT.fullmatch(text)
    if not found:
        raise _HintError("an IPv6 address goes in brackets" if text.count(":") > 1 else "")
    host = str(ip(found["v6"])) if found["v6"] is not None else _host(found["host"])
    if (found["v6"] is not None) != (":" in host):
        raise _HintError("only an IPv6 address goes in brackets")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise _HintError("a port is a number from 1 to 65535")
    return host, port


def _drain_target(value: object) -> HostPort:
    host, port = _host_and_port(_text(value))
    if port is None:
        raise _HintError(f'the port is missing: "{bracketed(host)}:25"')
    return HostPort(host, port)


def _ssh_target(value: object) -> SshTarget:
    user, at, rest = _text(value).rpartition("@")
    host, port = _host_and_port(rest)
    return SshTarget(_matching(_USER, user) if at else "root", host, port or 22)


def _mail_address(value: object) -> str:
    mailbox, _, domain = _text(value).rpartition("@")
    if len(mailbox) > 64:
        raise ValueError
    return f"{_matching(_MAILBOX, mailbox)}@{_fqdn(domain)}"


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        raise _HintError('a number needs its unit: "50 MiB" or "50 MB", in quotes; bytes are "B"')
    found = _SIZE.fullmatch(_text(value))
    if not found or found[2].lower() not in _UNITS:
        raise _HintError("the units are B, KB, MB, GB and KiB, MiB, GiB")
    size = round(float(found[1]) * _UNITS[found[2].lower()])
    if not 2**20 <= size <= 2**30:
        raise _HintError(f"this is {size} bytes")
    return size


def _dnsbl(value: object) -> str:
    site = _text(value)
    found = _DNSBL.fullmatch(site)
    if not found:
        raise ValueError
    return _fqdn(found["zone"]) + site[found.end("zone") :]


def _network(value: object) -> Network:
    text = _matching(re.compile(r"[0-9A-Fa-f:./]+"), _text(value))
    network = ipaddress.ip_network(text, strict=False)
    if "/" in text and ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise _HintError(f'did you mean "{network}"?')
    return network


def _not_empty(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    if not networks:
        raise RefusedError("expected at least one: with none, nobody could log in")
    return networks


def _public_key(value: object) -> str:
    """Check an OpenSSH public key as sshd(8) has it in authorized_keys, without options."""
    if "PRIVATE KEY" in str(value):
        raise _HintError("this is a private key: it stays where it is; the .pub file goes here")
    kind, blob, *_ = [*_text(value).split(" ", 2), "", ""]
    if kind not in _KEY_TYPES:
        raise _HintError(did_you_mean(kind, _KEY_TYPES))
    try:
        raw = base64.b64decode(blob, validate=True)
    except ValueError:
        raise _HintError("its base64 part is damaged") from None
    if not raw.startswith(struct.pack(">I", len(kind)) + kind.encode()) or len(raw) < len(kind) + 8:
        raise _HintError(f"its base64 part is not a key of type {kind}")
    return _text(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise _HintError("without quotes" if isinstance(value, str) else "")
    return value


def _threshold(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
        raise ValueError
    return value


def _tls_level(value: object) -> str:
    levels = ("encrypt", "may", "none")
    if value not in levels:
        raise _HintError(did_you_mean(_text(value), levels))
    return _text(value)


DomainCheck = Check('a mail domain such as "example.org"', _fqdn)

Name = Annotated[str, Check("a name of small letters, digits and hyphens, 31 at most", _name)]
Fqdn = Annotated[str, Check('a full host name such as "mx2.example.org"', _fqdn)]
DomainName = Annotated[str, DomainCheck]
PublicAddress = Annotated[Address, Check("a public IPv4 or IPv6 address", _public_address)]
Ssh = Annotated[SshTarget, Check('"user@host", "user@host:port" or "host"', _ssh_target)]
DrainTarget = Annotated[
    HostPort, Check('"host:port", "1.2.3.4:port" or "[v6 address]:port"', _drain_target)
]
TlsLevel = Annotated[
    Literal["encrypt", "may", "none"], Check('"encrypt", "may" or "none"', _tls_level)
]
Switch = Annotated[bool, Check("true or false", _switch)]
Size = Annotated[int, Check('a size from "1 MiB" to "1 GiB", with its unit', _size)]
Threshold = Annotated[int, Check("a whole number from 1 to 100", _threshold)]
Dnsbl = Annotated[
    str, Check('"domain", "domain=filter" or either with "*weight", without spaces', _dnsbl)
]
Cidrs = Annotated[
    tuple[Annotated[Network, Check('a network such as "198.51.100.0/24"', _network)], ...],
    AfterValidator(_not_empty),
]
PublicKey = Annotated[
    str, Check('one line of an OpenSSH .pub file, such as "ssh-ed25519 AAAA…"', _public_key)
]
MailAddress = Annotated[str, Check('a mail address such as "me@example.org"', _mail_address)]


class Options(BaseModel):
    """One table of the file; ``heading`` is how the reference writes its header."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    heading: ClassVar[str] = ""


def check_of(field: FieldInfo) -> Check:
    """Return an option's Check; a list's is the one of its items."""
    item = getattr(field.annotation, "__args__", (None,))[0]
    checks = [*field.metadata, *getattr(item, "__metadata__", ())]
    return next(check for check in checks if isinstance(check, Check))


def follows(field: FieldInfo) -> str:
    """Return in words what an option defaults to where that depends on others, else ""."""
    extra = field.json_schema_extra
    return str(extra["follows"]) if isinstance(extra, dict) else ""


def printable(text: str) -> str:
    """Escape what could move a terminal's cursor or end a string."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def to_toml(value: object) -> str:
    """Write a value as TOML does, on one line and printable; a table is left out ("")."""
    if isinstance(value, str):
        return '"' + printable(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(to_toml(item) if _is_plain(item) else '…' for item in value)}]"
    if isinstance(value, int) and value.bit_length() > 10_000:  # str() refuses 4,300 digits
        return "a very long number"
    return "" if isinstance(value, dict) else str(value)


def _is_plain(value: object) -> bool:
    return not isinstance(value, list | dict)

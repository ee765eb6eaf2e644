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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator

from backup_mx.config.checks import Check, HintError, RefusedError, matching, text_of
from backup_mx.config.secret import Secret, SecretCommand, SecretFile, SecretVariable
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
_DURATION = re.compile(r"([0-9]{1,9}) ?(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_LONGEST = 3650 * 86400
_PERCENT = re.compile(r"([0-9]{1,3}) ?%")
_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# 32 bytes as `wg genkey` writes them: the last character stands for four bits only.
WIREGUARD_KEY = re.compile(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
_DIRECTORY_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
_TAG = re.compile(r"tag:[a-z][a-z0-9-]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a rebuild fills in; a shell's ${HOME} stays.
_REBUILD_NAMES = ("relay", "address", "user_data")
_PLACE = re.compile(r"(?<!\$)\{([A-Za-z_-]+)\}")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_PRIVATE = [
    ipaddress.ip_network(net)
    for net in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]
_NOT_PUBLIC = [
    ipaddress.ip_network(net)
    for net in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"),
        *("::/127", "::ffff:0:0/96", "fc00::/7", "fe80::/10", "ff00::/8"),
    )
]


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


@dataclass(frozen=True)
class Recipients:
    """Which recipients of a domain are taken.

    kind is "catch-all", "callout", "table" or "fetch"; source a table's file, as the config names
    it, or the URL from which it is fetched.
    """

    kind: Literal["catch-all", "callout", "table", "fetch"]
    source: str = ""


def bracketed(host: str) -> str:
    """Return a host as it stands before a port: an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]" if ":" in host else host


def _name(value: object) -> str:
    return matching(_NAME, text_of(value))


def _host_name(value: object) -> str:
    host = text_of(value).lower()
    if host.endswith("."):
        raise HintError("leave the final dot out")
    if not host.isascii():
        raise HintError(_a_labels(host))
    if len(host) > 253 or host.rpartition(".")[2].isdigit():
        raise ValueError
    return matching(_HOST, host)


def _a_labels(host: str) -> str:
    with contextlib.suppress(ValueError):
        return f'write it as "{matching(_HOST, host.encode("idna").decode("ascii"))}"'
    return "write it in its ASCII form"


def _fqdn(value: object) -> str:
    host = _host_name(value)
    if "." not in host:
        raise HintError("the domain is missing")
    return host


def ip(text: str) -> Address:
    """Return the address that ``text`` is, without a zone; raises ValueError if it is none."""
    # A zone ("fe80::1%eth0") is any text to ipaddress, and nothing that another machine knows.
    return ipaddress.ip_address(matching(re.compile(r"[0-9A-Fa-f:.]+"), text))


def _public_address(value: object) -> Address:
    address = ip(text_of(value))
    if any(address in network for network in _NOT_PUBLIC):
        raise HintError("this one cannot be reached from the Internet")
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
        raise HintError("an IPv6 address goes in brackets" if text.count(":") > 1 else "")
    host = str(ip(found["v6"])) if found["v6"] is not None else _host(found["host"])
    if (found["v6"] is not None) != (":" in host):
        raise HintError("only an IPv6 address goes in brackets")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise HintError("a port is a number from 1 to 65535")
    return host, port


def _drain_target(value: object) -> HostPort:
    host, port = _host_and_port(text_of(value))
    if port is None:
        raise HintError(f'the port is missing: "{bracketed(host)}:25"')
    return HostPort(host, port)


def _ssh_target(value: object) -> SshTarget:
    user, at, rest = text_of(value).rpartition("@")
    host, port = _host_and_port(rest)
    return SshTarget(matching(_USER, user) if at else "root", host, port or 22)


def _mail_address(value: object) -> str:
    mailbox, _, domain = text_of(value).rpartition("@")
    if len(mailbox) > 64:
        raise ValueError
    return f"{matching(_MAILBOX, mailbox)}@{_fqdn(domain)}"


def _size(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        raise HintError('a number needs its unit: "50 MiB" or "50 MB", in quotes; bytes are "B"')
    found = _SIZE.fullmatch(text_of(value))
    if not found or found[2].lower() not in _UNITS:
        raise HintError("the units are B, KB, MB, GB and KiB, MiB, GiB")
    size = round(float(found[1]) * _UNITS[found[2].lower()])
    if not 2**20 <= size <= 2**30:
        raise HintError(f"this is {size} bytes")
    return size


def _duration(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        raise HintError('a number needs its unit: "30d", "4h", "15min" or "5s", in quotes')
    found = _DURATION.fullmatch(text_of(value))
    if not found:
        raise HintError("the units are s, min, h and d")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if not 1 <= seconds <= _LONGEST:
        raise HintError("from one second to ten years")
    return seconds


def _percent(value: object) -> int:
    found = _PERCENT.fullmatch(text_of(value))
    if not found or int(found[1]) > 100:
        raise ValueError
    return int(found[1])


def _recipients(value: object) -> Recipients:
    if value == "catch-all":
        return Recipients("catch-all")
    if value == "callout":
        return Recipients("callout")
    if not isinstance(value, dict):
        raise HintError(did_you_mean(text_of(value), ("catch-all", "callout")))
    if list(value) == ["table"]:
        return Recipients("table", text_of(value["table"]))
    if list(value) == ["fetch"]:
        return Recipients("fetch", _url(value["fetch"]))
    raise HintError(did_you_mean(next(iter(value), ""), ("table", "fetch")))


def _url(value: object) -> str:
    """Check a URL that is fetched from: its host stands in it, a name and password do not."""
    url = text_of(value)
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        _host_and_port(parts.netloc)
        if parts.scheme in ("http", "https") and not parts.fragment and " " not in url:
            return url
    raise HintError("fetch takes a URL of http or https, without a user's name in it")


def _acme_directory(value: object) -> str:
    """Check the URL of an ACME server's directory: HTTPS, which is the protocol's own demand."""
    url = text_of(value)
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        _host_and_port(parts.netloc)
        if parts.scheme == "https" and _DIRECTORY_PATH.fullmatch(url.partition(parts.netloc)[2]):
            return url
    raise HintError("a URL of https, such as https://ca.example.org/acme/acme/directory")


def _tailnet_server(value: object) -> str:
    """Check where a tailnet's server is: a URL of https with a host, maybe a port, and no more."""
    url = text_of(value).removesuffix("/")
    scheme, _, place = url.partition("://")
    if scheme != "https":
        raise HintError("a URL of https, such as https://headscale.example.org")
    _host_and_port(place)
    return url


def _tag(value: object) -> str:
    return matching(_TAG, text_of(value))


def _dnsbl(value: object) -> str:
    site = text_of(value)
    found = _DNSBL.fullmatch(site)
    if not found:
        raise ValueError
    return _fqdn(found["zone"]) + site[found.end("zone") :]


def _network(value: object) -> Network:
    text = matching(re.compile(r"[0-9A-Fa-f:./]+"), text_of(value))
    network = ipaddress.ip_network(text, strict=False)
    if "/" in text and ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise HintError(f'did you mean "{network}"?')
    return network


def _not_empty(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    if not networks:
        raise RefusedError("expected at least one: with none, nobody could log in")
    return networks


def _public_key(value: object) -> str:
    """Check an OpenSSH public key as sshd(8) has it in authorized_keys, without options."""
    if "PRIVATE KEY" in str(value):
        raise HintError("this is a private key: it stays where it is; the .pub file goes here")
    kind, blob, *_ = [*text_of(value).split(" ", 2), "", ""]
    if kind not in _KEY_TYPES:
        raise HintError(did_you_mean(kind, _KEY_TYPES))
    try:
        raw = base64.b64decode(blob, validate=True)
    except ValueError:
        raise HintError("its base64 part is damaged") from None
    if not raw.startswith(struct.pack(">I", len(kind)) + kind.encode()) or len(raw) < len(kind) + 8:
        raise HintError(f"its base64 part is not a key of type {kind}")
    return text_of(value)


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise HintError("without quotes" if isinstance(value, str) else "")
    return value


def _private_address(value: object) -> Address:
    address = ip(text_of(value))
    if not any(address in network for network in _PRIVATE):
        raise HintError("a tunnel's inner addresses are none that the Internet knows")
    return address


def _wireguard_key(value: object) -> str:
    return matching(WIREGUARD_KEY, text_of(value))


def _secret(value: object) -> Secret:
    if not isinstance(value, dict):
        raise HintError("a secret does not stand in this file")
    if len(value) != 1:
        raise ValueError
    kind, source = next(iter(value.items()))
    if kind == "file":
        return SecretFile(Path(text_of(source)))
    if kind == "env":
        return SecretVariable(matching(_VARIABLE, text_of(source)))
    if kind == "command":
        return SecretCommand(_argv(source))
    raise HintError(did_you_mean(str(kind), ("file", "env", "command")))


def _argv(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise HintError("a command is a list of the program and its arguments")
    return tuple(text_of(part) for part in value)


def _rebuild_word(value: object) -> str:
    """Check a word of rebuild_command: a slip in a {name} would go to the provider as it stands."""
    for name in _PLACE.findall(text_of(value)):
        if name not in _REBUILD_NAMES:
            known = ", ".join(f"{{{each}}}" for each in _REBUILD_NAMES)
            raise HintError(f"nothing stands for {{{name}}}, only for {known}")
    return text_of(value)


def _interface(value: object) -> str:
    return matching(_INTERFACE, text_of(value))


def one_of(*words: str) -> Check:
    """Return the Check of an option that takes one of a few words."""

    def read(value: object) -> str:
        if value not in words:
            raise HintError(did_you_mean(text_of(value), words))
        return text_of(value)

    *most, last = (f'"{word}"' for word in words)
    return Check(f"{', '.join(most)} or {last}", read)


def whole(least: int, most: int, what: str = "a whole number") -> Check:
    """Return the Check of an option that takes a whole number from ``least`` to ``most``."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return Check(f"{what} from {least} to {most}", read)


DomainCheck = Check('a mail domain such as "example.org"', _fqdn)

Name = Annotated[str, Check("a name of small letters, digits and hyphens, 31 at most", _name)]
Fqdn = Annotated[str, Check('a full host name such as "mx2.example.org"', _fqdn)]
DomainName = Annotated[str, DomainCheck]
PublicAddress = Annotated[Address, Check("a public IPv4 or IPv6 address", _public_address)]
Ssh = Annotated[SshTarget, Check('"user@host", "user@host:port" or "host"', _ssh_target)]
DrainTargetCheck = Check('"host:port", "1.2.3.4:port" or "[v6 address]:port"', _drain_target)
DrainTarget = Annotated[HostPort, DrainTargetCheck]
TlsLevel = Annotated[
    Literal["verify", "encrypt", "may", "none"], one_of("verify", "encrypt", "may", "none")
]
KitName = Annotated[
    Literal["postfix-rspamd", "docker-mailserver"], one_of("postfix-rspamd", "docker-mailserver")
]
EdgeKind = Annotated[
    Literal["pfsense", "haproxy", "nftables"], one_of("pfsense", "haproxy", "nftables")
]
Endpoint = Annotated[HostPort, Check('"host:port", the port being WireGuard\'s', _drain_target)]
Port = Annotated[int, whole(1, 65535, "a port number")]
Preference = Annotated[int, whole(1, 65535)]
Interface = Annotated[str, Check('an interface\'s name such as "eth0"', _interface)]
InnerAddress = Annotated[
    Address, Check('a private IPv4 or IPv6 address such as "10.0.20.2"', _private_address)
]
WireGuardKey = Annotated[
    str, Check("a WireGuard public key: 44 characters of base64", _wireguard_key)
]
SecretCheck = Check('{ file = "…" }, { env = "…" } or { command = ["…", "…"] }', _secret)
SecretSource = Annotated[Secret, SecretCheck]
Switch = Annotated[bool, Check("true or false", _switch)]
Size = Annotated[int, Check('a size from "1 MiB" to "1 GiB", with its unit', _size)]
Threshold = Annotated[int, whole(1, 100)]
Dnsbl = Annotated[
    str, Check('"domain", "domain=filter" or either with "*weight", without spaces', _dnsbl)
]
Duration = Annotated[int, Check('a duration such as "30d", "4h", "15min" or "5s"', _duration)]
Percent = Annotated[int, Check('a share such as "20%"', _percent)]
RecipientsPolicy = Annotated[
    Recipients,
    Check('"catch-all", "callout", { table = "FILE" } or { fetch = "URL" }', _recipients),
]
AtRetention = Annotated[Literal["hold", "keep"], one_of("hold", "keep")]
Cidr = Annotated[Network, Check('a network such as "198.51.100.0/24"', _network)]
Cidrs = Annotated[tuple[Cidr, ...], AfterValidator(_not_empty)]
PublicKeyCheck = Check('one line of an OpenSSH .pub file, such as "ssh-ed25519 AAAA…"', _public_key)
PublicKey = Annotated[str, PublicKeyCheck]
AcmeDirectory = Annotated[str, Check("the URL of an ACME directory", _acme_directory)]
PemCheck = Check("the name of a PEM file", text_of)
PemFile = Annotated[str, PemCheck]
TrustCheck = Check("the name of a PEM file to trust", text_of)
TrustFile = Annotated[str, TrustCheck]
TailnetServer = Annotated[str, Check("the URL of Tailscale or Headscale", _tailnet_server)]
TailnetTag = Annotated[str, Check('a tag such as "tag:backup-mx"', _tag)]
Word = Annotated[str, Check("a word of a command: its program, or an argument", _rebuild_word)]
MailAddress = Annotated[str, Check('a mail address such as "me@example.org"', _mail_address)]

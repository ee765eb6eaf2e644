"""The config file ``backup-mx.toml``: every option declared once, every mistake shown at once.

An option is one pydantic field: its type carries a Check (what it takes, in words and as a
function), its Field the default, the doc and an example. `backup_mx.sample` writes the example file
and the reference page from the same declarations.

    text ── tomllib ──> tables ── _fill_in, Checks ──> Config
                          └────── _conflicts: what is wrong only together
"""

from __future__ import annotations

import base64
import bisect
import contextlib
import functools
import ipaddress
import re
import struct
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from backup_mx.errors import ConfigError, Problem, did_you_mean

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Path = tuple[str | int, ...]
_Tables = Mapping[str, Any]

# ── Values: what a string in the file must look like, and what it becomes ───────────────────────
#
# The values end up in Postfix's files, in a firewall's rules and in ssh's arguments, so each
# grammar is an allow list: nothing passes because nobody thought of forbidding it.

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


class _RefusedError(ValueError):
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
            raise _RefusedError(f"expected {self.words}", hint) from None

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

        smtp(8) writes an IPv6 address as ``[ipv6:address]``; Postfix takes it without the prefix too.
        """
        return f"[{self.host}]:{self.port}"

    def __str__(self) -> str:
        """Write it as in the config file."""
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True)
class SshTarget:
    """Where ssh logs in: a user, a host (a name, or an address without brackets) and a TCP port."""

    user: str
    host: str
    port: int

    def __str__(self) -> str:
        """Write it as in the config file."""
        return f"{self.user}@{_bracketed(self.host)}:{self.port}"


def _bracketed(host: str) -> str:
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


def _ip(text: str) -> Address:
    # A zone ("fe80::1%eth0") is any text to ipaddress, and nothing that another machine knows.
    return ipaddress.ip_address(_matching(re.compile(r"[0-9A-Fa-f:.]+"), text))


def _public_address(value: object) -> Address:
    address = _ip(_text(value))
    if any(address in network for network in _NOT_PUBLIC):
        raise _HintError("this one cannot be reached from the Internet")
    return address


def _host(text: str) -> str:
    """Return a host name or an IPv4 address in its usual form."""
    with contextlib.suppress(ValueError):
        return str(_ip(text))
    return _host_name(text)


def _host_and_port(text: str) -> tuple[str, int | None]:
    """Split ``host``, ``host:port``, ``[v6]`` or ``[v6]:port``."""
    found = _HOST_PORT.fullmatch(text)
    if not found:
        raise _HintError("an IPv6 address goes in brackets" if text.count(":") > 1 else "")
    host = str(_ip(found["v6"])) if found["v6"] is not None else _host(found["host"])
    if (found["v6"] is not None) != (":" in host):
        raise _HintError("only an IPv6 address goes in brackets")
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 1 <= port <= 65535:
        raise _HintError("a port is a number from 1 to 65535")
    return host, port


def _drain_target(value: object) -> HostPort:
    host, port = _host_and_port(_text(value))
    if port is None:
        raise _HintError(f'the port is missing: "{_bracketed(host)}:25"')
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
        raise _RefusedError("expected at least one: with none, nobody could log in")
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


NameCheck = Check(
    "a name of small letters, digits and hyphens, 31 at most",
    lambda value: _matching(_NAME, _text(value)),
)
FqdnCheck = Check('a full host name such as "mx2.example.org"', _fqdn)
DomainCheck = Check('a mail domain such as "example.org"', _fqdn)

Name = Annotated[str, NameCheck]
Fqdn = Annotated[str, FqdnCheck]
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
Cidr = Annotated[Network, Check('a network such as "198.51.100.0/24"', _network)]
PublicKey = Annotated[
    str, Check('one line of an OpenSSH .pub file, such as "ssh-ed25519 AAAA…"', _public_key)
]
MailAddress = Annotated[str, Check('a mail address such as "me@example.org"', _mail_address)]


# ── Options: one declaration each ───────────────────────────────────────────────────────────────


class Options(BaseModel):
    """One table of the file; ``heading`` is how the reference writes its header."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    heading: ClassVar[str] = ""


class Named(Options):
    """A table of which there may be several, each under a name of its own."""

    _name: str = PrivateAttr(default="")

    @property
    def name(self) -> str:
        """Return the table's key, as the file has it (a domain's in small letters)."""
        return self._name


class Relay(Named):
    """A machine that takes mail while the primary is away. One table each; as many as wanted."""

    heading: ClassVar[str] = "relay.mx2"
    hostname: Fqdn = Field(
        description="The name the relay greets with and the MX record will point to.",
        examples=["mx2.example.org"],
    )
    address: PublicAddress = Field(
        description="Its public address. Have it reserved: it must survive a rebuild.",
        examples=["203.0.113.20"],
    )
    ssh: Ssh = Field(
        description="Where `backup-mx deploy` and `backup-mx queue` log in.",
        examples=["root@203.0.113.20"],
        json_schema_extra={"follows": "root@<address>"},
    )


class Primary(Named):
    """The mail server that owns the mailboxes."""

    heading: ClassVar[str] = "primary.home"
    hostname: Fqdn = Field(
        description="The name that its MX record and its certificate bear.",
        examples=["mail.example.org"],
    )
    drain_to: DrainTarget = Field(
        description="Where a relay hands the kept mail over: a host and port that reach the "
        "primary. No MX record is looked up for it.",
        examples=["mail.example.org:25"],
        json_schema_extra={"follows": "<hostname>:25"},
    )
    tls: TlsLevel = Field(
        default="encrypt",
        description='TLS on the way to the primary: "encrypt" waits until the primary offers it, '
        '"may" goes without if it does not, "none" never tries.',
    )
    smtputf8: Switch = Field(
        default=False,
        description="Whether the primary takes SMTPUTF8 (RFC 6531). A relay never offers more "
        "than every primary takes.",
    )


class Domain(Named):
    """A domain whose mail the relays keep. The header alone suffices."""

    heading: ClassVar[str] = 'domain."example.org"'
    primary: Name = Field(
        description="The [primary.NAME] that owns this domain's mailboxes.",
        examples=["home"],
        json_schema_extra={"follows": "the only primary, where there is one only"},
    )


class Queue(Options):
    """What the relays keep."""

    heading: ClassVar[str] = "queue"
    message_size_limit: Size = Field(
        default="50 MiB",
        validate_default=True,
        description="The largest message taken. Keep it a little below the primary's own limit, "
        "which sees the message with the relay's header lines added.",
    )


class Intake(Options):
    """Who is asked to come back later. Nothing here refuses mail for good."""

    heading: ClassVar[str] = "intake"
    dnsbl: tuple[Dnsbl, ...] = Field(
        default=("zen.spamhaus.org=127.0.0.[2..11]*3", "list.dnswl.org=127.0.[0..255].[1..3]*-2"),
        description="DNS lists that weigh a client's address, as in Postfix's "
        "postscreen_dnsbl_sites.",
    )
    dnsbl_threshold: Threshold = Field(
        default=3,
        description="The weight from which a client is put off (Postfix's "
        "postscreen_dnsbl_threshold).",
    )


class Access(Options):
    """Who may reach the relays' SSH."""

    heading: ClassVar[str] = "access"
    ssh_from: Annotated[tuple[Cidr, ...], AfterValidator(_not_empty)] = Field(
        default=("0.0.0.0/0", "::/0"),
        validate_default=True,
        description="Networks that may connect to SSH. An empty list would lock you out.",
        examples=[["198.51.100.0/24"]],
    )
    ssh_keys: tuple[PublicKey, ...] = Field(
        default=(),
        description="Public keys that may log in on a relay, on top of those the cloud puts there.",
        examples=[
            ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFDYWOCYXsx/YEGKrwzFq1h/QsJXCohAlanozKzQ9lRc me"]
        ],
    )


class Operator(Options):
    """The person who runs all this."""

    heading: ClassVar[str] = "operator"
    address: MailAddress = Field(
        description="Where postmaster's and root's mail on the relays goes; in one of the domains.",
        examples=["postmaster@example.org"],
        json_schema_extra={"follows": "postmaster@<first domain in the file>"},
    )


class Config(BaseModel):
    """The whole file, complete: every option has its value, every name stands for something."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    relays: Mapping[Name, Relay] = Field(alias="relay", default={})
    primaries: Mapping[Name, Primary] = Field(alias="primary", default={})
    domains: Mapping[DomainName, Domain] = Field(alias="domain", default={})
    queue: Queue = Field(default_factory=Queue)
    intake: Intake = Field(default_factory=Intake)
    access: Access = Field(default_factory=Access)
    operator: Operator

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tables: _Tables) -> _Tables:
        """Write out what follows from the rest, so that nobody later asks what silence means."""
        primaries, domains = _table(tables, "primary"), _table(tables, "domain")
        only = {"primary": next(iter(primaries))} if len(primaries) == 1 else {}
        first = {"address": f"postmaster@{next(iter(domains))}"} if domains else {}
        return {
            **tables,
            "relay": _each(tables.get("relay", {}), _default_ssh),
            "primary": _each(tables.get("primary", {}), _default_drain),
            "domain": _each(tables.get("domain", {}), lambda _: only),
            "operator": _over(tables.get("operator", {}), first),
        }

    def model_post_init(self, _: object) -> None:
        """Tell each table its name."""
        for named in (self.relays, self.primaries, self.domains):
            for name, options in named.items():
                options._name = name


def _default_ssh(relay: _Tables) -> _Tables:
    return {"ssh": f"root@{_bracketed(str(relay['address']))}"} if "address" in relay else {}


def _default_drain(primary: _Tables) -> _Tables:
    return {"drain_to": f"{primary['hostname']}:25"} if "hostname" in primary else {}


def _over(table: object, defaults: _Tables) -> object:
    """Lay what the user wrote over the defaults; what is no table is left for its Check to tell."""
    return {**defaults, **table} if isinstance(table, dict) else table


def _each(tables: object, defaults: Callable[[_Tables], _Tables]) -> object:
    if not isinstance(tables, dict):
        return tables
    return {
        name: _over(table, defaults(table)) if isinstance(table, dict) else table
        for name, table in tables.items()
    }


def _table(parent: _Tables, key: str) -> _Tables:
    """Return the table under ``key``, or an empty one where there is none."""
    found = parent.get(key)
    return found if isinstance(found, dict) else {}


SECTIONS: Mapping[str, type[Options]] = {
    "relay": Relay,
    "primary": Primary,
    "domain": Domain,
    "queue": Queue,
    "intake": Intake,
    "access": Access,
    "operator": Operator,
}


def check_of(field: FieldInfo) -> Check:
    """Return an option's Check; a list's is the one of its items."""
    item = getattr(field.annotation, "__args__", (None,))[0]
    checks = [*field.metadata, *getattr(item, "__metadata__", ())]
    return next(check for check in checks if isinstance(check, Check))


def follows(field: FieldInfo) -> str:
    """Return in words what an option defaults to where that depends on others, else ""."""
    extra = field.json_schema_extra
    return str(extra["follows"]) if isinstance(extra, dict) else ""


# ── Reading: text in, Config or every mistake out ───────────────────────────────────────────────


@dataclass(frozen=True)
class _Mistake:
    path: _Path
    expected: str
    hint: str = ""


def load(path: Path) -> Config:
    """Read and check the config file at ``path``.

    Raises ConfigError with every mistake in it, also where it cannot be read at all.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        hint = "`backup-mx init` writes one" if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(str(path), [Problem("the file", None, "", reason, hint)]) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            str(path), [Problem("the file", line, "", "expected text in UTF-8")]
        ) from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Config:
    """Check the config in ``text``; ``source`` is what messages call it.

    Raises ConfigError with every mistake in it.
    """
    tables = _toml(text, source)
    mistakes = list(_conflicts(tables))
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        mistakes += _faults(error, tables)
    if mistakes:
        line_of = _line_finder(text)
        problems = [_problem(mistake, tables, line_of) for mistake in mistakes]
        raise ConfigError(source, sorted(problems, key=lambda each: (each.line or 0, each.path)))
    return config


def _toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = Problem("TOML", None, "", "nested too deeply")
    except ValueError as error:  # TOMLDecodeError, and int()'s own about numbers without end
        what, _, where = str(error).partition(" (at ")
        line = re.match(r"line ([0-9]+)", where)
        last = text.rstrip("\n").count("\n") + 1
        what = _printable(what[:1].lower() + what[1:])
        problem = Problem("TOML", int(line[1]) if line else last, "", what)
    raise ConfigError(source, [problem])


def _faults(error: ValidationError, tables: _Tables) -> Iterator[_Mistake]:
    """Tell what pydantic found, except what merely follows from another mistake."""
    for found in error.errors(include_url=False):
        path = found["loc"]
        if path[-1] == "[key]" and found["type"] != "extra_forbidden":
            path = path[:-1]  # pydantic's way to say that the key itself is wrong
        inner = found.get("ctx", {}).get("error")
        unquoted = _unquoted_domain(path, tables)
        if unquoted and found["type"] == "extra_forbidden":
            continue
        if found["type"] == "missing":
            if not follows(_option(path)):
                yield _Mistake(path, f"missing: expected {check_of(_option(path)).words}")
        elif found["type"] == "extra_forbidden":
            yield _Mistake(path, "there is no such option", _nearest(path))
        elif not _exists(tables, path):
            continue
        elif isinstance(inner, _RefusedError):
            yield _Mistake(path, inner.expected, unquoted or inner.hint)
        else:
            shape = "a list in square brackets" if found["type"] == "tuple_type" else "a table"
            yield _Mistake(path, f"expected {shape}")


def _option(path: _Path) -> FieldInfo:
    return SECTIONS[str(path[0])].model_fields[str(path[-1])]


def _nearest(path: _Path) -> str:
    known = SECTIONS if len(path) == 1 else SECTIONS[str(path[0])].model_fields
    return did_you_mean(str(path[-1]), known)


def _unquoted_domain(path: _Path, tables: _Tables) -> str:
    """See through [domain.example.org], which TOML reads as a table org in a table example."""
    if path[:1] != ("domain",) or len(path) < 2 or "." in str(path[1]):
        return ""
    words, inner = [str(path[1])], _table(_table(tables, "domain"), str(path[1]))
    while key := next((key for key, value in inner.items() if isinstance(value, dict)), ""):
        words, inner = [*words, key], inner[key]
    return f'with quotes: [domain."{_printable(".".join(words))}"]' if len(words) > 1 else ""


def _problem(mistake: _Mistake, tables: _Tables, line_of: Callable[[_Path], int | None]) -> Problem:
    path = mistake.path
    line = next(filter(None, (line_of(path[:end]) for end in range(len(path), 0, -1))), None)
    value = to_toml(_at(tables, path)) if _exists(tables, path) else ""
    value = value if len(value) <= 60 else f"{value[:59]}…"
    return Problem(_dotted(path), line, value, mistake.expected, mistake.hint)


def _at(tables: object, path: _Path) -> object:
    """Return what stands at ``path``; raises LookupError or TypeError where nothing does."""
    return functools.reduce(lambda inner, key: inner[key], path, tables)  # type: ignore[index]


def _exists(tables: object, path: _Path) -> bool:
    try:
        _at(tables, path)
    except (LookupError, TypeError):
        return False
    return True


def _dotted(path: _Path) -> str:
    """Write a path as TOML does: ``domain."example.org".primary``, ``intake.dnsbl[0]``."""
    text = ""
    for part in path:
        bare = isinstance(part, str) and re.fullmatch(r"[A-Za-z0-9_-]+", part)
        text += f"[{part}]" if isinstance(part, int) else f".{part if bare else to_toml(part)}"
    return text.removeprefix(".")


def _printable(text: str) -> str:
    """Escape what could move a terminal's cursor or end a string."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def to_toml(value: object) -> str:
    """Write a value as TOML does, on one line and printable; a table is left out ("")."""
    if isinstance(value, str):
        return '"' + _printable(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(to_toml(item) if _is_plain(item) else '…' for item in value)}]"
    if isinstance(value, int) and value.bit_length() > 10_000:  # str() refuses 4,300 digits
        return "a very long number"
    return "" if isinstance(value, dict) else str(value)


def _is_plain(value: object) -> bool:
    return not isinstance(value, list | dict)


def _line_finder(text: str) -> Callable[[_Path], int | None]:
    """Return a function from a path to the 1-based line where it begins, None if it is absent.

    tomllib tells no lines. But what stands in a file is what the file's first so many lines parse
    to, and that only grows: the first prefix that holds a path ends where the path does.
    """
    lines = text.replace("\r\n", "\n").split("\n")

    @functools.cache
    def holds(count: int) -> object:
        """Return what the first ``count`` lines hold, None where they break off in a value."""
        head = "\n".join(lines[:count])
        for closing in ("", "\n]", "\n]}"):  # an array may be open at the line's end
            with contextlib.suppress(ValueError, RecursionError):
                return tomllib.loads(head + closing)
        return None

    def whole(count: int) -> int:
        """Return the largest number of lines up to ``count`` that parse."""
        return next(end for end in range(count, -1, -1) if holds(end) is not None)

    def line_of(path: _Path) -> int | None:
        counts = range(len(lines) + 1)
        end = bisect.bisect_left(counts, True, key=lambda count: _exists(holds(whole(count)), path))
        return whole(end - 1) + 1 if end <= len(lines) else None

    return line_of


# ── Conflicts: what is wrong only together ──────────────────────────────────────────────────────


def _conflicts(tables: _Tables) -> Iterator[_Mistake]:
    """Tell what clashes, judging by the values that are right whatever else is wrong."""
    relays, primaries = _right_values(tables, "relay"), _right_values(tables, "primary")
    for section in ("relay", "primary", "domain"):
        if tables.get(section, {}) == {}:
            yield _Mistake((section,), f"expected a table such as [{SECTIONS[section].heading}]")
    yield from _twins(relays)
    for name, primary in primaries.items():
        yield from _loops(name, primary, relays)
    yield from _astray(tables)


def _right_values(tables: _Tables, section: str) -> dict[str, dict[str, Any]]:
    """Return, of each table of a section, the options whose values their Checks take."""
    return {
        name: dict(_checked(SECTIONS[section], table))
        for name, table in _table(tables, section).items()
        if isinstance(table, dict)
    }


def _checked(model: type[Options], table: _Tables) -> Iterator[tuple[str, object]]:
    for key, field in model.model_fields.items():
        if key in table:
            with contextlib.suppress(ValueError):
                yield key, check_of(field)(table[key])


def _twins(relays: Mapping[str, Mapping[str, object]]) -> Iterator[_Mistake]:
    seen: dict[object, str] = {}
    for name, relay in relays.items():
        for key in ("hostname", "address"):
            if key in relay and seen.setdefault(relay[key], name) != name:
                yield _Mistake(
                    ("relay", name, key),
                    f"expected one of its own, but {_dotted(('relay', seen[relay[key]]))} has it",
                )


def _loops(name: str, primary: _Tables, relays: Mapping[str, _Tables]) -> Iterator[_Mistake]:
    """Tell where a relay would hand its mail to a relay."""
    path: _Path = ("primary", name)
    owners = {
        str(relay[key]): _dotted(("relay", owner))
        for owner, relay in relays.items()
        for key in ("hostname", "address")
        if key in relay
    }
    if owner := owners.get(primary.get("hostname", "")):
        yield _Mistake((*path, "hostname"), f"expected another host than {owner}'s")
    drain = primary.get("drain_to")
    if drain and (owner := owners.get(drain.host)):
        expected = f"expected the primary's host and port, but this is {owner} itself: a loop"
        yield _Mistake((*path, "drain_to"), expected)
    elif drain and drain.port == 25 and _is_loopback(drain.host):
        # Another port of the loopback may be a tunnel's end; at 25 the relay itself answers.
        expected = "expected the primary's host and port, but there the relay itself answers"
        yield _Mistake((*path, "drain_to"), expected)


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        address = _ip(host)
        return address.is_loopback or address.is_unspecified
    return host.rpartition(".")[2] == "localhost"


def _astray(tables: _Tables) -> Iterator[_Mistake]:
    """Tell where one table names another that is not there."""
    primaries, domains = _table(tables, "primary"), _table(tables, "domain")
    for key, domain in _right_values(tables, "domain").items():
        yield from _owner(("domain", key, "primary"), domain, _table(domains, key), primaries)
    names = [str(name) for name, _ in _domain_names(domains)]
    twins = [key for at, (name, key) in enumerate(_domain_names(domains)) if name in names[:at]]
    for key in twins:
        yield _Mistake(("domain", key), "expected each domain once, in whichever letters")
    operator = dict(_checked(Operator, _table(tables, "operator"))).get("address")
    home = str(operator).rpartition("@")[2]
    if operator and len(names) == len(domains) > 0 and home not in names:
        near = did_you_mean(home, names)
        yield _Mistake(("operator", "address"), "expected an address in one of the domains", near)


def _domain_names(domains: _Tables) -> Iterator[tuple[object, str]]:
    for key in domains:
        with contextlib.suppress(ValueError):
            yield DomainCheck(key), key


def _owner(path: _Path, good: _Tables, given: _Tables, primaries: _Tables) -> Iterator[_Mistake]:
    """Tell where a domain's primary is not among ``primaries``, or cannot be guessed."""
    known = ", ".join(_dotted((name,)) for name in primaries)
    if "primary" in good and primaries and good["primary"] not in primaries:
        expected = f"expected the name of a [primary.NAME]: {known}"
        yield _Mistake(path, expected, did_you_mean(good["primary"], primaries))
    if "primary" not in given and len(primaries) > 1:
        yield _Mistake(path, f"missing: expected one of the primaries: {known}")

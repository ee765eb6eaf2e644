"""The config file ``backup-mx.toml``: every option declared once.

An option is one pydantic field: its type carries a Check (what it takes, in words and as a
function), its Field the default, the doc and an example. `backup_mx.sample` writes the example file
and the reference page from the same declarations.

    text ── tomllib ──> tables ── _fill_in, Checks ──> Config
                          └────── mistakes ──────────> ConfigError
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from backup_mx.checks import Options, printable
from backup_mx.errors import ConfigError, Problem
from backup_mx.mistakes import Tables, problems_of, table
from backup_mx.values import (
    Address,
    Cidrs,
    Dnsbl,
    DomainName,
    DrainTarget,
    EdgeKind,
    Endpoint,
    Fqdn,
    InnerAddress,
    Interface,
    KitName,
    MailAddress,
    Name,
    Port,
    PublicAddress,
    PublicKey,
    SecretSource,
    Size,
    Ssh,
    Switch,
    Threshold,
    TlsLevel,
    WireGuardKey,
    bracketed,
)


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
    wireguard_address: InnerAddress | None = Field(
        default=None,
        description="The relay's own address inside the WireGuard tunnels.",
        examples=["10.0.20.2"],
    )
    wireguard_key: SecretSource | None = Field(
        default=None,
        description="Where its private WireGuard key is kept, as `wg genkey` writes it: a file, an "
        "environment variable, or a command that prints it.",
        examples=[{"file": "secrets/mx2.key"}],
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
        description='TLS on the way to the primary: "verify" also waits until its certificate '
        'bears its hostname, from a public authority, "encrypt" waits until it offers TLS, "may" '
        'goes without if it does not, "none" never tries.',
    )
    kit: KitName = Field(
        default="postfix-rspamd",
        description="What runs there, so that `backup-mx primary render` writes what lets the "
        "relays' mail through.",
    )
    smtputf8: Switch = Field(
        default=False,
        description="Whether the primary takes SMTPUTF8 (RFC 6531). A relay never offers more "
        "than every primary takes.",
    )
    eightbitmime: Switch = Field(
        default=True,
        description="Whether the primary takes 8BITMIME (RFC 6152). If one does not, no relay "
        "offers it: to rewrite mail on the way breaks its signatures.",
    )
    wireguard_endpoint: Endpoint | None = Field(
        default=None,
        description="Where the primary's side of a WireGuard tunnel is dialled. With it, drain_to "
        "is the address inside the tunnel.",
        examples=["vpn.example.org:51820"],
    )
    wireguard_public_key: WireGuardKey | None = Field(
        default=None,
        description="The public WireGuard key of the primary's side.",
        examples=["xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="],
    )


class Domain(Named):
    """A domain whose mail the relays keep. The header alone suffices."""

    heading: ClassVar[str] = 'domain."example.org"'
    primary: Name = Field(
        description="The [primary.NAME] that owns this domain's mailboxes.",
        examples=["home"],
        json_schema_extra={"follows": "the only primary, where there is one only"},
    )


class Edge(Named):
    """A router or proxy in front of the primary that lets the relays' mail in.

    Its kind is the table's name: pfsense, haproxy or nftables.
    """

    heading: ClassVar[str] = "edge.nftables"
    optional: ClassVar[bool] = True
    primary: Name = Field(
        description="The [primary.NAME] behind it.",
        examples=["home"],
        json_schema_extra={"follows": "the only primary, where there is one only"},
    )
    forward_to: DrainTarget = Field(
        description="Where it hands the relays' connections on: an inner address and port.",
        examples=["10.0.10.1:2526"],
    )
    interface: Interface = Field(
        default="wan",
        description="The side that faces the Internet, as this router names it.",
    )
    proxy_protocol: Switch = Field(
        default=True,
        description="Whether haproxy tells the primary who connected, by PROXY v2.",
    )
    check_port: Port | None = Field(
        default=None,
        description="A port where the primary answers without PROXY, for haproxy's health checks; "
        "on the usual port they would fill its log with errors.",
        examples=[10025],
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
    ssh_from: Cidrs = Field(
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
    edges: Mapping[EdgeKind, Edge] = Field(alias="edge", default={})
    queue: Queue = Field(default_factory=Queue)
    intake: Intake = Field(default_factory=Intake)
    access: Access = Field(default_factory=Access)
    operator: Operator
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tables: Tables) -> Tables:
        """Write out what follows from the rest, so that nobody later asks what silence means."""
        primaries, domains = table(tables, "primary"), table(tables, "domain")
        only = {"primary": next(iter(primaries))} if len(primaries) == 1 else {}
        first = {"address": f"postmaster@{next(iter(domains))}"} if domains else {}
        return {
            **tables,
            "relay": _each(tables.get("relay", {}), _default_ssh),
            "primary": _each(tables.get("primary", {}), _default_drain),
            "domain": _each(tables.get("domain", {}), lambda _: only),
            "edge": _each(tables.get("edge", {}), lambda _: only),
            "operator": _over(tables.get("operator", {}), first),
        }

    def model_post_init(self, _: object) -> None:
        """Tell each table its name."""
        for named in (self.relays, self.primaries, self.domains, self.edges):
            for name, options in named.items():
                options._name = name

    @property
    def folder(self) -> Path:
        """The folder of the config file, from which relative paths of secrets count."""
        return self._folder

    def seen_from(self, primary: Primary) -> tuple[Address, ...]:
        """Return the addresses from which the relays' connections reach ``primary``."""
        tunnel = primary.wireguard_endpoint is not None
        seen = (
            relay.wireguard_address if tunnel else relay.address for relay in self.relays.values()
        )
        return tuple(address for address in seen if address is not None)

    def domains_of(self, primary: Primary) -> tuple[str, ...]:
        """Return the names of the domains whose mailboxes ``primary`` owns."""
        return tuple(
            domain.name for domain in self.domains.values() if domain.primary == primary.name
        )


def _default_ssh(relay: Tables) -> Tables:
    return {"ssh": f"root@{bracketed(str(relay['address']))}"} if "address" in relay else {}


def _default_drain(primary: Tables) -> Tables:
    return {"drain_to": f"{primary['hostname']}:25"} if "hostname" in primary else {}


def _over(given: object, defaults: Tables) -> object:
    """Lay what the user wrote over the defaults; what is no table is left for its Check to tell."""
    return {**defaults, **given} if isinstance(given, dict) else given


def _each(tables: object, defaults: Callable[[Tables], Tables]) -> object:
    if not isinstance(tables, dict):
        return tables
    return {
        name: _over(given, defaults(given)) if isinstance(given, dict) else given
        for name, given in tables.items()
    }


SECTIONS: Mapping[str, type[Options]] = {
    "relay": Relay,
    "primary": Primary,
    "domain": Domain,
    "edge": Edge,
    "queue": Queue,
    "intake": Intake,
    "access": Access,
    "operator": Operator,
}


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
    config = parse(text, str(path))
    config._folder = path.parent
    return config


def parse(text: str, source: str) -> Config:
    """Check the config in ``text``; ``source`` is what messages call it.

    Raises ConfigError with every mistake in it.
    """
    tables = _toml(text, source)
    faults: list[ErrorDetails] = []
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    if problems := problems_of(text, tables, faults, SECTIONS):
        raise ConfigError(source, problems)
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
        what = printable(what[:1].lower() + what[1:])
        problem = Problem("TOML", int(line[1]) if line else last, "", what)
    raise ConfigError(source, [problem])

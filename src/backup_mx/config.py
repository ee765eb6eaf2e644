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

from backup_mx.errors import ConfigError, Problem
from backup_mx.mistakes import Tables, problems_of, table
from backup_mx.values import (
    Cidrs,
    Dnsbl,
    DomainName,
    DrainTarget,
    Fqdn,
    HostPort,
    MailAddress,
    Name,
    Options,
    PublicAddress,
    PublicKey,
    Size,
    Ssh,
    SshTarget,
    Switch,
    Threshold,
    TlsLevel,
    bracketed,
    check_of,
    follows,
    printable,
    to_toml,
)

# With what is declared in values, so that the options' users need not know of that file.
__all__ = [
    "SECTIONS",
    "Access",
    "Config",
    "Domain",
    "HostPort",
    "Intake",
    "Named",
    "Operator",
    "Options",
    "Primary",
    "Queue",
    "Relay",
    "SshTarget",
    "check_of",
    "follows",
    "load",
    "parse",
    "to_toml",
]


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
    queue: Queue = Field(default_factory=Queue)
    intake: Intake = Field(default_factory=Intake)
    access: Access = Field(default_factory=Access)
    operator: Operator

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
            "operator": _over(tables.get("operator", {}), first),
        }

    def model_post_init(self, _: object) -> None:
        """Tell each table its name."""
        for named in (self.relays, self.primaries, self.domains):
            for name, options in named.items():
                options._name = name


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
    return parse(text, str(path))


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

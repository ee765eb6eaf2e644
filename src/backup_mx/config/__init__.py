"""The config file ``backup-mx.toml``, read and checked as a whole.

Its options are declared in `backup_mx.config.options`; `backup_mx.config.sample` writes the
example file and the reference page from the same declarations.

    text ── tomllib ──> tables ── _fill_in, Checks ──> Config
                          └────── mistakes, files ───> ConfigError
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from backup_mx.config.checks import Options, escaped
from backup_mx.config.conflicts import Conflict
from backup_mx.config.files import of_files
from backup_mx.config.mistakes import Tables, problems_of, table
from backup_mx.config.options import (
    SECTIONS,
    Access,
    Domain,
    Edge,
    Intake,
    Ledger,
    Notify,
    Operator,
    Primary,
    Queue,
    Relay,
    Tailnet,
    Tls,
)
from backup_mx.config.options_cloud import Cloudflare, Oci
from backup_mx.config.options_live import Gates, Monitoring, MtaSts, Rfc2136, Roundtrip
from backup_mx.config.values import Address, DomainName, EdgeKind, Name, bracketed
from backup_mx.errors import ConfigError, Problem


class Cloud(Options):
    """Where machines are made."""

    oci: Oci | None = None


class Dns(Options):
    """Where names are published."""

    cloudflare: Cloudflare | None = None
    rfc2136: Rfc2136 | None = None


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
    tailnet: Tailnet | None = None
    tls: Tls
    ledger: Ledger = Field(default_factory=Ledger)
    notify: Notify = Field(default_factory=Notify)
    cloud: Cloud = Field(default_factory=Cloud)
    dns: Dns = Field(default_factory=Dns)
    mta_sts: MtaSts | None = None
    gates: Gates = Field(default_factory=Gates)
    roundtrip: Roundtrip | None = None
    monitoring: Monitoring = Field(default_factory=Monitoring)
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tables: Tables) -> Tables:
        """Write out what follows from the rest, so that nobody later asks what silence means."""
        primaries, domains = table(tables, "primary"), table(tables, "domain")
        only = {"primary": next(iter(primaries))} if len(primaries) == 1 else {}
        first = {"address": f"postmaster@{next(iter(domains))}"} if domains else {}
        operator = {**first, **table(tables, "operator")}
        contact = {"contact": operator["address"]} if "address" in operator else {}
        return {
            **tables,
            "relay": _default_relays(tables),
            "primary": _each(tables.get("primary", {}), _default_drain),
            "domain": _each(tables.get("domain", {}), lambda _: only),
            "edge": _each(tables.get("edge", {}), lambda _: only),
            "operator": _over(tables.get("operator", {}), first),
            "cloud": _each(tables.get("cloud", {}), lambda cloud: _default_cloud(cloud, tables)),
            "tls": _over(tables.get("tls", {}), contact),
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


def _default_relays(tables: Tables) -> object:
    """Say how each relay is reached; on Oracle's cloud it has its volume, too."""
    relays, oci = tables.get("relay", {}), table(table(tables, "cloud"), "oci")
    there = oci.get("relays", relays) if oci else ()
    at_oracle = there if isinstance(there, dict | list) else ()
    if not isinstance(relays, dict):
        return relays
    return {
        name: _over(given, _default_relay(given, at_oracle=name in at_oracle))
        for name, given in relays.items()
    }


def _default_relay(given: object, *, at_oracle: bool) -> Tables:
    # Oracle's Ubuntu lets nobody in as root.
    volume, user = ({"volume": True}, "ubuntu") if at_oracle else ({}, "root")
    if not isinstance(given, dict) or "address" not in given:
        return volume
    address = bracketed(str(given["address"]))
    return {**volume, "ssh": f"{user}@{address}", "metrics_at": f"{address}:9725"}


def _default_drain(primary: Tables) -> Tables:
    return {"drain_to": f"{primary['hostname']}:25"} if "hostname" in primary else {}


def _default_cloud(cloud: Tables, tables: Tables) -> Tables:
    whole = {"compartment": cloud["tenancy"]} if "tenancy" in cloud else {}
    return {"relays": [*table(tables, "relay")], **whole}


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


def load(path: Path, *, look: bool = False) -> Config:
    """Read and check the config file at ``path``; with ``look``, also the files that it names.

    Each verb reads only those that it needs: another relay's may be kept elsewhere. Raises
    ConfigError with every mistake in it, also where it cannot be read at all.
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
    config = _parse(
        text, str(path), lambda tables: of_files(tables, SECTIONS, path.parent) if look else ()
    )
    config._folder = path.parent
    return config


def parse(text: str, source: str) -> Config:
    """Check the config in ``text``; ``source`` is what messages call it.

    Raises ConfigError with every mistake in it.
    """
    return _parse(text, source, lambda _: ())


def _parse(text: str, source: str, outside: Callable[[Tables], Iterable[Conflict]]) -> Config:
    """Check a config and, by ``outside``, what its tables only name."""
    tables = _toml(text, source)
    faults: list[ErrorDetails] = []
    try:
        config = Config.model_validate(tables)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    if problems := problems_of(text, tables, faults, SECTIONS, outside(tables)):
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
        what = escaped(what[:1].lower() + what[1:])
        problem = Problem("TOML", int(line[1]) if line else last, "", what)
    raise ConfigError(source, [problem])

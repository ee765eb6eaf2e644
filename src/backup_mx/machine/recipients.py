"""Who exists, as Postfix is told: a relay's tables of recipients and its callouts."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx.config import Config, files
from backup_mx.config.options import Domain

_POSTMASTER = "postmaster"


def fetched(config: Config) -> list[str]:
    """Return the domains whose tables the agent fetches."""
    return _domains(config, "fetch")


def callouts(config: Config) -> list[Domain]:
    """Return the domains whose recipients the primary is asked about."""
    return [config.domains[name] for name in _domains(config, "callout")]


def known(config: Config, *, agent: bool) -> list[str]:
    """Return who exists, as the keys of one table; nothing where no domain has a table.

    ``@domain`` is everybody there: for Postfix, a table that is asked at all is asked for every
    domain. Without ``agent`` nobody fetches any. Raises MachineError where a file is no table.
    """
    kinds = {"table", "fetch"} if agent else {"table"}
    if kinds.isdisjoint(each.recipients.kind for each in config.domains.values()):
        return []
    lines = {line for domain in config.domains.values() for line in _of(config, domain, kinds)}
    return sorted(lines | {config.operator.address.lower()})


def _of(config: Config, domain: Domain, kinds: set[str]) -> Iterator[str]:
    """Yield the lines of one domain; its postmaster exists (RFC 5321 section 4.5.1)."""
    if domain.recipients.kind not in kinds:
        yield f"@{domain.name}"
        return
    yield f"{_POSTMASTER}@{domain.name}"
    if domain.recipients.kind == "table":
        yield from files.recipients(config.folder / domain.recipients.source, domain.name)


def _domains(config: Config, kind: str) -> list[str]:
    return [name for name, domain in config.domains.items() if domain.recipients.kind == kind]

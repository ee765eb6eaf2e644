"""Whether the relay runs what the config says, whole and unaltered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from backup_mx.errors import BackupMxError
from backup_mx.findings import Finding
from backup_mx.gates import relay
from backup_mx.gates.gate import Gate, Site
from backup_mx.gates.relay import Facts, Word
from backup_mx.machine import ship

_DEPLOY = "backup-mx deploy"
_NAMED = 4  # files in a finding
# How relay.pyz --diff begins the lines that name something it would change.
_CHANGES = ("+++ ", "to write: ", "to change: ", "to replace: ", "to remove: ", "to make: ")
_PACKAGES = "packages to install: "


def judge(site: Site) -> Iterator[Finding]:
    """Ask for the version, then what a deploy would change. Raises MachineError."""
    facts = relay.facts(site.host)
    yield applied(site.version, facts)
    yield running(site.version, facts, relay.settled(site))
    lines: list[str] = []
    ship.deploy(site.host, site.bundle, lines.append, diff=True)
    yield unaltered(lines)


def another(site: Site) -> Finding | None:
    """Return why what is seen of the relay is not about the config's version, None where it is."""
    try:
        has = relay.facts(site.host).version
    except BackupMxError as error:
        return Finding("version", "unknown", str(error))
    if has == site.version:
        return None
    saw = f"it runs version {has[:12] or 'none'}, the config makes {site.version[:12]}"
    return Finding("version", "unknown", saw, _DEPLOY)


def applied(wanted: str, facts: Facts) -> Finding:
    """Judge the version that was applied last, and whether Postfix runs at all."""
    if facts.version != wanted:
        has = facts.version[:12] or "none"
        saw = f"it has version {has}, the config makes {wanted[:12]}"
        return Finding("applied", "fail", saw, _DEPLOY)
    if facts.postfix != "active":
        saw = f"Postfix is {facts.postfix or 'not there'}"
        return Finding("applied", "fail", saw, "systemctl status postfix, on the relay")
    return Finding("applied", "pass", f"version {wanted[:12]}, and Postfix runs")


def running(wanted: str, facts: Facts, word: Word) -> Finding:
    """Judge whether the agent lives, and is the one that was applied."""
    last = word.snapshot
    if facts.agent != "active" or not word.alive or last is None:
        do = "journalctl -u backup-mx-agent, on the relay"
        return Finding("agent", "fail", "the agent does not run", do)
    if last.version != wanted:
        return Finding("agent", "fail", f"the agent is of version {last.version[:12]}", _DEPLOY)
    return Finding("agent", "pass", "the agent is of that version")


def unaltered(lines: Sequence[str]) -> Finding:
    """Judge what relay.pyz --diff printed."""
    changes = list(dict.fromkeys(_changes(lines)))
    if not changes:
        return Finding("files", "pass", "every file is as the config makes it")
    more = f" and {len(changes) - _NAMED} more" if len(changes) > _NAMED else ""
    saw = f"altered on the relay: {', '.join(changes[:_NAMED])}{more}"
    return Finding("files", "fail", saw, f"{_DEPLOY} --diff shows it, {_DEPLOY} mends it")


def _changes(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith(_PACKAGES):
            yield f"package {line.removeprefix(_PACKAGES)}"
        for begins in _CHANGES:
            if line.startswith(begins):
                yield line.removeprefix(begins).split(" (")[0].split(",")[0].strip()


GATE = Gate("version", "it runs what the config says, unaltered", ("A", "MX"), judge)

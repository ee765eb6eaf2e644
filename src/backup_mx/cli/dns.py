"""The verbs about what stands in DNS: dns plan, publish, withdraw, drift."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_mx.cli.findings import show_findings
from backup_mx.cli.relays import BUILT, load, relay_named
from backup_mx.cli.terminal import (
    CONFIG,
    JSON,
    RELAY,
    SSH_CONFIG,
    agree,
    progress,
    say,
    say_json,
    seconds,
)
from backup_mx.errors import DnsError

if TYPE_CHECKING:
    from backup_mx.config import Config
    from backup_mx.dns.plan import Change, Lacking
    from backup_mx.dns.providers import Providers
    from backup_mx.dns.seen import Question, World
    from backup_mx.dns.wanted import Facts, Wanted
    from backup_mx.evidence import Record as Kind
    from backup_mx.findings import Finding
    from backup_mx.machine.ship import Host
    from backup_mx.net.dns import Names


YES = click.option("--yes", is_flag=True, help="Do not ask.")
WAIT = click.option(
    "--wait",
    "patience",
    metavar="DURATION",
    default="2min",
    show_default=True,
    callback=seconds,
    help="How long every name server may take to show a change.",
)


@click.group()
def dns() -> None:
    """Publish the relays in DNS, last of all, and see that it stays so."""


@dns.command()
@CONFIG
@SSH_CONFIG
@JSON
def plan(path: Path, ssh_config: Path | None, as_json: bool) -> None:
    """Show the records wanted against what every name server has. Nothing is changed."""
    from backup_mx.dns.wanted import LEFT_ALONE

    desk = Desk(load(path), ssh_config)
    changes, findings = desk.planned()
    settled = desk.settled(changes)
    if as_json:
        told = {"changes": [_data(each) for each in changes], "findings": _findings(findings)}
        say_json({"settled": [line for _, line in settled], **told})
        return
    desk.show(changes, findings, settled)
    say(f"; {LEFT_ALONE}")


@dns.command()
@CONFIG
@SSH_CONFIG
@YES
@WAIT
@JSON
def publish(path: Path, ssh_config: Path | None, yes: bool, patience: int, as_json: bool) -> None:
    """Publish what the gates have proven, and see it at every name server.

    Names come first, mail exchangers last. What the evidence does not allow yet is not published,
    and it is said why. Zones without [dns.…] are changed by you: it says how, and waits for it.
    Fails when anything is left to publish.
    """
    desk = Desk(load(path), ssh_config)
    changes, findings = desk.planned()
    if not as_json:
        desk.show(changes, findings)
    if not yes:
        _ask(desk, changes, "Publish this?", shown=not as_json)
    outcome = _made(desk, changes, patience)
    waiting = [each for each in changes if each.waits]
    if as_json:
        told = {"changes": [_data(each) for each in changes], "findings": _findings(findings)}
        say_json({**told, "outcome": _findings(outcome)})
    elif outcome:
        show_findings(outcome)
    if waiting and not as_json:
        say(f"Not published: {_listed(waiting)}.")
    # No mail waits for the name of an address, which is not among what is published.
    looked = [each for each in findings if each.gate != "PTR"]
    sys.exit(0 if _well([*looked, *outcome]) and not waiting else 1)


@dns.command()
@RELAY
@CONFIG
@click.option(
    "--address",
    is_flag=True,
    help="Take its name away, too, once no MX record leads there: when no mail comes any more, see"
    " its queue and log.",
)
@YES
@WAIT
@JSON
def withdraw(
    relay: str | None, path: Path, address: bool, yes: bool, patience: int, as_json: bool
) -> None:
    """Take a relay's MX records away, and see them gone from every name server.

    Needs no evidence. Senders who have looked before still come, for as long as the record's TTL
    and then some: the relay goes on taking and handing over.
    """
    desk = Desk(load(path), None)
    changes, silent = desk.withdrawal(relay_named(desk.config, relay), address_too=address)
    if not as_json:
        desk.show(changes, silent)
    if not yes:
        _ask(desk, changes, "Take this away?", shown=not as_json)
    outcome = [*silent, *_made(desk, changes, patience)]
    waiting = [each for each in changes if each.waits]
    if as_json:
        say_json({"changes": [_data(each) for each in changes], "outcome": _findings(outcome)})
    elif outcome:
        show_findings(outcome)
    if waiting and not as_json:
        say(f"Not taken away: {_listed(waiting)}.")
    sys.exit(0 if _well(outcome) and not waiting else 1)


@dns.command()
@CONFIG
@SSH_CONFIG
@JSON
def drift(path: Path, ssh_config: Path | None, as_json: bool) -> None:
    """Compare every name server with the config. Fails when something is not as it should be."""
    findings = Desk(load(path), ssh_config).judged()
    if as_json:
        say_json({"findings": _findings(findings)})
    else:
        show_findings(findings)
    sys.exit(0 if _well(findings) else 1)


@dataclass(frozen=True)
class Desk:
    """All that the verbs need: the config, the world's names, who changes what, the evidence."""

    config: Config
    ssh_config: Path | None

    @cached_property
    def names(self) -> Names:
        """The DNS as this machine sees it."""
        from backup_mx.net.dns import Names

        return Names()

    @cached_property
    def providers(self) -> Providers:
        """Who changes which zone."""
        from backup_mx.dns.providers import providers

        return providers(self.config)

    @cached_property
    def facts(self) -> Facts:
        """What the records follow from, apart from the config."""
        from backup_mx.dns.facts import gather

        return gather(self.config, self.names, self._host)

    @cached_property
    def wanted(self) -> tuple[Wanted, ...]:
        """The records that are wanted."""
        from backup_mx.dns.wanted import wanted

        return wanted(self.config, self.facts)

    @cached_property
    def world(self) -> World:
        """What every name server has of them, before anything is changed."""
        from backup_mx.dns.plan import questions
        from backup_mx.dns.seen import look

        return look(self.names, questions(self.config, self.wanted))

    def settled(self, changes: Sequence[Change]) -> list[tuple[str, str]]:
        """Return the wanted records that need no change: zone and line."""
        from backup_mx.dns.plan import settled

        return list(settled(self.wanted, self.world, changes))

    def _beside(self) -> Iterator[Finding]:
        """Yield what is to be said beside the records."""
        from backup_mx.dns.facts import blind, pointers

        yield from blind(self.facts)
        yield from pointers(self.config, self.names)

    def _host(self, relay: str) -> Host:
        from backup_mx.machine.ship import SshHost

        return SshHost(self.config.relays[relay].ssh, self.ssh_config)

    @cached_property
    def _versions(self) -> dict[str, str]:
        """The version that each relay is to run."""
        from backup_mx.machine import bundle

        every = self.config.relays
        return {name: bundle.version(bundle.bundle(self.config, name)) for name in every}

    def lacking(self) -> Lacking:
        """Return what tells which records the evidence allows: all of it as it is now.

        The gates may run while a plan is made, or a question waits.
        """
        from backup_mx import evidence
        from backup_mx.cli.gate import terms_of
        from backup_mx.machine import terraform

        known, now = evidence.read(BUILT / terraform.EVIDENCE), datetime.now(UTC)

        def why(relay: str, kind: Kind) -> str:
            terms = terms_of(self.config, self._versions[relay])
            return evidence.lacking(known.get(relay), terms, kind, now)

        return why

    def planned(self) -> tuple[tuple[Change, ...], list[Finding]]:
        """Return the changes, and what is to be said beside them."""
        from backup_mx.dns.plan import plan
        from backup_mx.dns.publish import with_room

        changes = plan(self.config, self.wanted, self.world, self.lacking())
        changes, findings = with_room(self.providers, changes)
        return changes, [*findings, *self._beside()]

    def see_allowed(self, changes: Sequence[Change]) -> None:
        """Judge anew what is about to be put, by the evidence as it is now. Nobody is asked.

        What is only taken away needs none. Raises DnsError.
        """
        from backup_mx.dns.plan import plan

        meant = {each.put for each in changes if each.put and not each.waits}
        if not meant:
            return
        for each in plan(self.config, self.wanted, self.world, self.lacking()):
            if each.waits and each.put in meant:
                record = " ".join(each.question)
                raise DnsError(
                    f"{record} was allowed when you were asked, and is not now: {each.waits}"
                )

    def withdrawal(
        self, relay: str, *, address_too: bool
    ) -> tuple[tuple[Change, ...], list[Finding]]:
        """Return the changes that take a relay out of DNS, and what could not be looked at."""
        from backup_mx.dns.plan import own_names, withdrawal
        from backup_mx.dns.seen import look
        from backup_mx.findings import Finding

        meant = self.config.relays[relay]
        asked: list[Question] = [(domain, "MX") for domain in self.config.domains]
        asked += own_names(self.config, meant) if address_too else []
        world = look(self.names, asked)
        silent = [
            Finding(kind, "unknown", f"{name}: {'; '.join(seen.troubles)}")
            for (name, kind), seen in world.items()
            if seen.troubles
        ]
        return withdrawal(self.config, meant, world, address_too=address_too), silent

    def judged(self) -> list[Finding]:
        """Return what every name server has, judged."""
        from backup_mx.dns.judge import judge

        return [*judge(self.config, self.wanted, self.world), *self._beside()]

    def show(
        self,
        changes: Sequence[Change],
        findings: Sequence[Finding],
        settled: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Print zone by zone what stands and what changes, as lines of a zone file."""
        zones = [*(zone for zone, _ in settled), *(each.zone for each in changes)]
        for zone in dict.fromkeys(zones):
            say(f"; {zone or 'no zone'}, {self.providers.words(zone)}")
            for line in [f"  {line}" for where, line in settled if where == zone]:
                say(line)
            self._show([each for each in changes if each.zone == zone])
        if not changes:
            say("Nothing to change.")
        for each in findings:
            if each.verdict != "pass":
                say(f"; {each.gate}: {each.saw}. {each.do}".rstrip())

    def _show(self, changes: Sequence[Change]) -> None:
        from backup_mx.dns.publish import lines

        for change in changes:
            for line in lines([change]):
                say(line)
            if change.waits:
                say(f";   waits: {change.waits}")


def _ask(desk: Desk, changes: Sequence[Change], question: str, *, shown: bool) -> None:
    """Ask whether to make the changes, unless each of them waits; they have to be ``shown``."""
    if all(each.waits for each in changes):
        return
    if not shown:
        raise click.UsageError("--json shows nobody what they would agree to: add --yes")
    agree(question)
    desk.see_allowed(changes)  # who is asked may answer the next morning


def _made(desk: Desk, changes: Sequence[Change], patience: int) -> list[Finding]:
    """Make the changes that wait for nothing."""
    from backup_mx.dns.publish import Publisher

    return Publisher(desk.names, desk.providers, patience, progress).make(changes)


def _data(change: Change) -> dict[str, Any]:
    put = change.put
    return {
        "zone": change.zone,
        "what": change.what,
        "relay": change.relay,
        "put": put.line(change.ttl) if put else None,
        "gone": [each.line(change.ttl) for each in change.gone],
        "waits": change.waits,
    }


def _listed(changes: Sequence[Change]) -> str:
    return ", ".join(" ".join(each.question) for each in changes)


def _findings(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [asdict(each) for each in findings]


def _well(findings: Sequence[Finding]) -> bool:
    from backup_mx.findings import passed

    return passed(findings)

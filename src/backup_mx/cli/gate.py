"""The verbs that prove a relay: gate run, gate list, gate status."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_mx.cli.findings import show_finding
from backup_mx.cli.relays import BUILT, load, relay_named
from backup_mx.cli.terminal import CONFIG, JSON, SSH_CONFIG, progress, say, say_json
from backup_mx.errors import did_you_mean
from backup_mx.relay.text import printable, span

if TYPE_CHECKING:
    from backup_mx.config import Config
    from backup_mx.evidence import Evidence, Proof, Record, Terms
    from backup_mx.findings import Finding
    from backup_mx.gates.gate import Gate, Site
    from backup_mx.gates.run import Run

_WORDS = {"A": "its address", "MX": "its MX record"}
_OF = click.option("--relay", help="The relay that is meant.  [default: all]")


def _words(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str]:
    """Read an option that is a command, as a shell does; no words where it was not given."""
    try:
        return shlex.split(value or "")
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no command: {error}") from None


@click.group()
def gate() -> None:
    """Prove a relay before DNS names it, and again afterwards."""


@gate.command("run")
@click.argument("names", metavar="[GATE]...", nargs=-1)
@CONFIG
@SSH_CONFIG
@_OF
@click.option(
    "--outside",
    callback=_words,
    metavar="RELAY|COMMAND",
    help="Look at it from another relay, or from where a command runs Python: "
    '"ssh vps python3 -".  [default: [gates] outside, or this machine]',
)
@JSON
def run_gates(
    names: Sequence[str],
    path: Path,
    ssh_config: Path | None,
    relay: str | None,
    outside: Sequence[str],
    as_json: bool,
) -> None:
    """Run the gates, and keep what they find in build/evidence.json.

    Without a name, all run but those that need you (`gate list`) and those whose drill still
    counts. Fails when a gate fails, or something could not be looked at.
    """
    from backup_mx.gates.run import run

    config = load(path)
    known = _known(names)
    runs: list[Run] = []
    for name in _seen(config, relay, outside):
        done = run(site_of(config, name, ssh_config, outside), known, names)
        runs.append(done)
        if not as_json:
            _show(done)
    if as_json:
        say_json({each.relay: _data(each) for each in runs})
    sys.exit(0 if all(each.passed for each in runs) else 1)


@gate.command("list")
@JSON
def list_gates(as_json: bool) -> None:
    """Show what gates there are, and which records wait for each."""
    known = _known(())
    if as_json:
        told = {
            each.name: {
                "summary": each.summary,
                "waits": list(each.waits),
                "live": each.live,
                "lasting": each.lasting,
            }
            for each in known.values()
        }
        say_json(told)
        return
    for each in known.values():
        more = "; needs you: name it to run it" if each.live else ""
        say(f"{each.name:13}{'+'.join(each.waits) or '-':6}{each.summary}{more}")


@gate.command("status")
@CONFIG
@_OF
@JSON
def status(path: Path, relay: str | None, as_json: bool) -> None:
    """Show what the gates found last, how old that is, and what may be published.

    Asks nobody. Fails when a relay's MX record may not be published.
    """
    from backup_mx import evidence
    from backup_mx.machine.terraform import EVIDENCE

    config = load(path)
    known = {name: _whole(each) for name, each in evidence.read(BUILT / EVIDENCE).items()}
    meant = _relays(config, relay)
    lacking = {name: _lacking(config, name, known.get(name)) for name in meant}
    if as_json:
        say_json({name: _known_data(known.get(name), lacking[name]) for name in meant})
    else:
        for name in meant:
            _show_known(name, known.get(name), lacking[name])
    sys.exit(1 if any(each["MX"] for each in lacking.values()) else 0)


def site_of(
    config: Config, name: str, ssh_config: Path | None = None, outside: Sequence[str] = ()
) -> Site:
    """Return a relay with the ways to it; outside is what the user wants of `gates.views.view`."""
    from backup_mx.gates.gate import Site
    from backup_mx.gates.views import view
    from backup_mx.machine.ship import SshHost
    from backup_mx.net.dns import Names

    def reach(relay: str) -> SshHost:
        return SshHost(config.relays[relay].ssh, ssh_config)

    return Site(
        config=config,
        relay=config.relays[name],
        host=reach(name),
        outside=view(config, outside, reach),
        names=Names(),
        folder=BUILT,
        now=_now,
        tell=progress,
    )


def _now() -> datetime:
    return datetime.now(UTC)


def _relays(config: Config, name: str | None) -> list[str]:
    return [relay_named(config, name)] if name else list(config.relays)


def _seen(config: Config, relay: str | None, outside: Sequence[str]) -> list[str]:
    """Return the relays to look at, but for the one that is looked from."""
    from backup_mx.gates.views import relay_meant

    there = relay_meant(config, outside)
    seen = [name for name in _relays(config, relay) if name != there]
    if not seen:
        raise click.UsageError(f"{there} cannot look at itself from outside: choose another place")
    if there and not relay:
        progress(f"{there} is where it is looked from: its own gates are left out")
    return seen


def _known(names: Sequence[str]) -> dict[str, Gate]:
    """Return all gates, where those of ``names`` are among them."""
    from backup_mx.gates.all import GATES

    for name in names:
        if name not in GATES:
            hint = did_you_mean(name, GATES) or "`backup-mx gate list` shows them"
            raise click.UsageError(f'there is no gate "{printable(name)}": {hint}')
    return dict(GATES)


def terms_of(config: Config, version: str) -> Terms:
    """Return what evidence of a relay of that version has to be about, and to hold."""
    from backup_mx.evidence import Terms, config_hash
    from backup_mx.gates.all import REQUIRED
    from backup_mx.machine.tool import tool

    return Terms(version, config_hash(config), tool(), REQUIRED)


def _lacking(config: Config, name: str, known: Evidence | None) -> dict[Record, str]:
    """Return why each kind of record may not be published, "" where it may."""
    from backup_mx.machine import bundle

    return _by_record(known, terms_of(config, bundle.version(bundle.bundle(config, name))))


def _lacking_after(done: Run) -> dict[Record, str]:
    """Return the same of a relay that gates have just looked at."""
    from backup_mx.evidence import Terms
    from backup_mx.gates.all import REQUIRED

    kept = done.evidence
    return _by_record(kept, Terms(kept.version, kept.config, kept.tool, REQUIRED))


def _by_record(known: Evidence | None, terms: Terms) -> dict[Record, str]:
    from backup_mx.evidence import RECORDS, lacking

    now = _now()
    return {kind: lacking(known, terms, kind, now) for kind in RECORDS}


def _whole(known: Evidence) -> Evidence:
    """Return evidence of every gate that there is, also of those that are not in the file."""
    from backup_mx.gates.all import GATES
    from backup_mx.gates.run import whole

    return replace(known, proofs=whole(GATES, known.proofs))


# ── Programs are told ─────────────────────────────────────────────────────────────────────────────


def _data(done: Run) -> dict[str, Any]:
    return {
        "ran": {
            each.gate.name: [asdict(finding) for finding in each.findings] for each in done.results
        },
        "changed": [
            {"gate": each.gate, "before": each.before, "now": each.now.verdict, "saw": each.now.saw}
            for each in done.changes
        ],
        **_known_data(done.evidence, _lacking_after(done)),
    }


def _known_data(known: Evidence | None, lacking: dict[Record, str]) -> dict[str, Any]:
    from backup_mx.evidence import evidence_data

    return {**(evidence_data(known) if known else {}), "lacking": lacking}


# ── People are told ───────────────────────────────────────────────────────────────────────────────


def _show(done: Run) -> None:
    """Print what changed, what each gate found, and what that allows."""
    kept = done.evidence
    say(f"{done.relay}, version {kept.version[:12]}")
    if done.changes:
        say("Changed since the last run:")
    for change in done.changes:
        say(f"  {change.gate}: {change.before} → {change.now.verdict}: {change.now.saw}")
    for each in done.results:
        _show_findings(each.gate, each.findings, kept.proofs[each.gate.name])
    _allowed(_lacking_after(done), kept)


def _show_findings(judged: Gate, findings: Sequence[Finding], proof: Proof) -> None:
    rows = findings or (proof.finding,)
    name = judged.name
    for finding in rows:
        part = "" if finding.gate == judged.name else f"{finding.gate}: "
        show_finding(finding, f"{name:13}", f"{part}{finding.saw}")
        name = ""
    if judged.abroad and proof.seen_from:
        say(f"{'':21}(seen from {proof.seen_from})")


def _show_known(name: str, known: Evidence | None, lacking: dict[Record, str]) -> None:
    if known is None:
        say(f"{name}: no gate has been run yet")
        return
    say(f"{name}, version {known.version[:12]}, by backup-mx {known.tool}")
    for gate_name, proof in known.proofs.items():
        about = f" ({when})" if (when := ", ".join(_about(proof))) else ""
        show_finding(proof.finding, f"{gate_name:13}", f"{proof.finding.saw}{about}")
    _allowed(lacking, known)


def _about(proof: Proof) -> Iterator[str]:
    """Yield when that was seen, and from where."""
    from backup_mx.evidence import NEVER

    if proof.at == NEVER:
        return
    yield f"{span(max(0.0, (_now() - proof.at).total_seconds()))} ago"
    if proof.seen_from:
        yield f"from {proof.seen_from}"
    if stale := proof.stale(_now()):
        yield stale


def _allowed(lacking: dict[Record, str], kept: Evidence) -> None:
    """Say which records may be published, and why others may not."""
    from backup_mx.evidence import moment

    if free := [_WORDS[kind] for kind, why in lacking.items() if not why]:
        say(f"May be published until {moment(kept.until)}: {', '.join(free)}.")
    reasons: dict[str, list[str]] = {}
    for kind, why in lacking.items():
        if why:
            reasons.setdefault(why, []).append(_WORDS[kind])
    for why, kinds in reasons.items():
        say(f"Not {' and '.join(kinds)}: {why}.")

"""Gates run side by side, told in order, and kept as evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from backup_mx import evidence
from backup_mx.config import Config
from backup_mx.errors import BackupMxError, defect
from backup_mx.evidence import NEVER, Evidence, Proof
from backup_mx.findings import Finding, Verdict, passed
from backup_mx.gates import version
from backup_mx.gates.gate import Gate, Site, together
from backup_mx.gates.lock import held
from backup_mx.machine.terraform import EVIDENCE
from backup_mx.machine.tool import tool

_AT_ONCE = 5
"""Each has an SSH session of its own; sshd drops some where ten knock at once (MaxStartups)."""


@dataclass(frozen=True)
class Result:
    """What a gate found now; none where what is recorded stays."""

    gate: Gate
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Change:
    """A gate whose verdict is another than at the last run; before is "" where there was none."""

    gate: str
    before: Verdict
    now: Finding


@dataclass(frozen=True)
class Run:
    """A run of gates of one relay: what each found, what changed since, and all that is known."""

    relay: str
    results: tuple[Result, ...]
    changes: tuple[Change, ...]
    evidence: Evidence

    @property
    def passed(self) -> bool:
        """Whether every gate that ran, or whose record stood, is passed."""
        names = (each.gate.name for each in self.results)
        return passed(self.evidence.proofs[name].finding for name in names)


def chosen(
    gates: Mapping[str, Gate], names: Sequence[str], known: Evidence | None, now: datetime
) -> list[Gate]:
    """Return the gates to run: those named; else all but the live, and the lasting still fresh."""
    if names:
        return [gate for name, gate in gates.items() if name in names]
    return [gate for gate in gates.values() if not gate.live and not _stands(gate, known, now)]


def _stands(gate: Gate, known: Evidence | None, now: datetime) -> bool:
    """Whether a gate that lasts has passed without reserve, and not too long ago."""
    proof = known.proofs.get(gate.name) if known and gate.lasting else None
    return proof is not None and proof.finding.verdict == "pass" and proof.holds(now)


def run(site: Site, gates: Mapping[str, Gate], names: Sequence[str] = ()) -> Run:
    """Run gates, all of them where none is named, and keep what each found as soon as it did.

    gates are all that there are. Raises BackupMxError where the evidence cannot be read or written.
    """
    before = evidence.read(site.folder / EVIDENCE).get(site.relay.name)
    known = evidence.current(before, site.config, site.version)
    wanted = chosen(gates, names, known, site.now())
    if any(each.of_relay for each in wanted):
        why = version.another(site)
        wanted = [_about_this(gate, why) if gate.of_relay else gate for gate in wanted]
    results, proofs = dict[Gate, Result](), dict[str, Proof]()
    kept = record(site, gates, proofs)
    for each in _side_by_side(site, wanted):
        results[each.gate] = each
        if each.findings:
            proofs[each.gate.name] = proof(site, each.gate, each.findings)
            kept = record(site, gates, proofs)
    told = tuple(results[gate] for gate in wanted)
    new = {gate.name: proofs[gate.name] for gate in wanted if gate.name in proofs}
    return Run(site.relay.name, told, tuple(changes(before, new)), kept)


def _about_this(gate: Gate, why: Finding | None) -> Gate:
    """Return a gate that passes only a relay of the config's version.

    why is what speaks against that as yet. A drill, which takes long, is not even begun then, and
    asks again at its end.
    """

    def judge(site: Site) -> tuple[Finding, ...]:
        findings = () if why and gate.lasting else tuple(gate.judge(site))
        against = why or (version.another(site) if gate.live else None)
        if against and passed(findings):
            return (replace(against, gate=gate.name),)
        return findings

    return replace(gate, judge=judge)


def _side_by_side(site: Site, wanted: Sequence[Gate]) -> Iterator[Result]:
    """Run those that need nobody at once, then those that need the operator, one by one.

    Yield each result as it comes.
    """
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        asked = {pool.submit(judged, site, gate): gate for gate in wanted if not gate.live}
        for each in as_completed(asked):
            yield Result(asked[each], each.result())
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt begins no other
    for gate in wanted:
        if gate.live:
            yield Result(gate, judged(site, gate))


def judged(site: Site, gate: Gate) -> tuple[Finding, ...]:
    """Let a gate judge; what could not be looked at is unknown, for whatever reason."""

    def tell(line: str) -> None:
        site.tell(f"{gate.name}: {line}")

    try:
        findings = tuple(gate.judge(replace(site, tell=tell)))
    except BackupMxError as error:
        findings = (Finding(gate.name, "unknown", str(error)),)
    except Exception as error:
        findings = (Finding(gate.name, "unknown", defect(error)),)
    site.tell(f"{gate.name}: {together(gate.name, findings).verdict if findings else 'stands'}")
    return findings


def proof(site: Site, gate: Gate, findings: Sequence[Finding]) -> Proof:
    """Return a gate's findings as a proof of now."""
    now = site.now().replace(microsecond=0)
    fresh = site.config.gates.drills_fresh if gate.lasting else site.config.gates.fresh
    return Proof(
        finding=together(gate.name, findings),
        at=now,
        seen_from=site.outside.words if gate.abroad else "",
        waits=gate.waits,
        until=now + timedelta(seconds=fresh),
    )


def record(site: Site, gates: Mapping[str, Gate], proofs: Mapping[str, Proof]) -> Evidence:
    """Add proofs to the relay's evidence, and write it; what does not count any more is put apart.

    Raises BackupMxError.
    """
    path = site.folder / EVIDENCE
    with held(path):
        relays = evidence.read(path)
        kept = _merged(site, gates, relays.get(site.relay.name), proofs)
        evidence.write(path, {**_others(site.config, relays), site.relay.name: kept})
    return kept


def _merged(
    site: Site, gates: Mapping[str, Gate], known: Evidence | None, proofs: Mapping[str, Proof]
) -> Evidence:
    """Return what was known and proofs as evidence about every gate that there is, and no other."""
    merged = whole(gates, {**_counting(site, gates, known), **proofs})
    digest = evidence.config_hash(site.config)
    made = evidence.summed(site.version, digest, tool(), merged, site.now())
    latest = known.latest.items() if known else ()
    earlier = {name: each for name, each in latest if name in gates and name not in made.latest}
    return replace(made, earlier=earlier)


def _counting(site: Site, gates: Mapping[str, Gate], known: Evidence | None) -> Mapping[str, Proof]:
    """Return the proofs that count on: of this config and version, and by this tool.

    Another tool may have judged by less; what a drill has shown was seen all the same.
    """
    about = evidence.current(known, site.config, site.version)
    if about is None:
        return {}
    if about.tool == tool():
        return about.proofs
    return {
        name: each for name, each in about.proofs.items() if name in gates and gates[name].lasting
    }


def _others(config: Config, known: Mapping[str, Evidence]) -> dict[str, Evidence]:
    """Return what is known of relays that the config still has."""
    return {name: each for name, each in known.items() if name in config.relays}


def whole(gates: Mapping[str, Gate], proofs: Mapping[str, Proof]) -> dict[str, Proof]:
    """Return a proof of every gate that there is, also of one that has not run, and of no other."""
    return {name: proofs.get(name) or _not_run(each) for name, each in gates.items()}


def unseen(gates: Mapping[str, Gate]) -> dict[str, Proof]:
    """Return as not run whatever says nothing of a new machine: what was seen of the old one.

    What a drill has shown was seen all the same.
    """
    about = (each for each in gates.values() if each.of_relay and not each.lasting)
    return {each.name: _not_run(each) for each in about}


def _not_run(gate: Gate) -> Proof:
    do = f"backup-mx gate run {gate.name}"
    return Proof(Finding(gate.name, "unknown", "not run yet", do), NEVER, waits=gate.waits)


def changes(before: Evidence | None, proofs: Mapping[str, Proof]) -> Iterator[Change]:
    """Yield each gate that was run before and whose verdict has changed."""
    for name, new in proofs.items():
        old = before.latest.get(name) if before else None
        if old and old.finding.verdict != new.finding.verdict:
            yield Change(name, old.finding.verdict, new.finding)

"""What DNS says of a domain: its mail exchangers at every name server, and its MTA-STS policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from backup_mx.dns import judge, seen
from backup_mx.findings import Finding, worst
from backup_mx.mta_sts import compare, look, policy
from backup_mx.probe.probe import Probe, Scene, Seen, Target, domains


def exchangers(scene: Scene, target: Target) -> Seen:
    """Say whether every server of the zone has the MX records that the config wants, and only."""
    question = (target.name, "MX")
    found = seen.look(scene.names, [question])[question]
    said = summed(list(judge.exchangers(scene.config, target.name, found)))
    return Seen(replace(said, gate="mx"))


def mta_sts(scene: Scene, target: Target) -> Seen:
    """Say what senders who heed MTA-STS make of a domain."""
    ours = policy.wanted(scene.config, target.name)
    return Seen(summed(compare.compare(ours, look.ask(scene.config, scene.names, target.name))))


def summed(findings: Sequence[Finding]) -> Finding:
    """Return the worst of some findings; of several that are as bad, the words of all."""
    verdict = worst(findings)
    telling = [each for each in findings if each.verdict == verdict]
    do = "; ".join(dict.fromkeys(each.do for each in telling if each.do))
    return Finding(telling[0].gate, verdict, "; ".join(each.saw for each in telling), do)


MX = Probe("mx", "every name server has the MX records", domains, exchangers)
MTA_STS = Probe("mta-sts", "an MTA-STS policy is served, and fits", domains, mta_sts)

"""Whether the relay has been made anew around its queue, and was the same."""

from __future__ import annotations

from collections.abc import Iterator

from backup_mx import evidence
from backup_mx.evidence import NEVER, Proof
from backup_mx.findings import Finding
from backup_mx.gates.gate import Gate, Site
from backup_mx.machine.terraform import EVIDENCE


def judge(site: Site) -> Iterator[Finding]:
    """Say what `backup-mx rebuild` has not proven; nothing where it has. Raises BackupMxError."""
    if not site.relay.volume:
        saw = "it has no volume: a rebuild is refused while mail waits, which has to be exported"
        yield Finding("rebuild", "warn", saw, "docs/deploy.md, on volumes")
        return
    proof, do = _recorded(site), f"backup-mx rebuild {site.relay.name} proves it"
    if proof is None or proof.at == NEVER:
        yield Finding("rebuild", "unknown", "no rebuild has proven it yet", do)
    elif proof.finding.verdict == "unknown":
        yield proof.finding
    elif why := proof.stale(site.now()):
        yield Finding("rebuild", "unknown", why, do)


def _recorded(site: Site) -> Proof | None:
    recorded = evidence.read(site.folder / EVIDENCE).get(site.relay.name)
    known = evidence.current(recorded, site.config, site.version)
    return known.proofs.get("rebuild") if known else None


GATE = Gate(
    "rebuild", "it can be made anew with mail in its queue", ("MX",), judge,
    lasting=True, of_relay=False,
)  # fmt: skip

"""What the gates found last, for Prometheus: as they wrote it, read anew at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from backup_mx import evidence
from backup_mx.errors import BackupMxError
from backup_mx.evidence import Evidence, Proof
from backup_mx.findings import passed
from backup_mx.relay.tell import exposition as written
from backup_mx.relay.tell.exposition import GAUGE, Family

_OF_A_GATE: tuple[tuple[str, str, Callable[[Proof], float]], ...] = (
    ("ok", "1 where what a gate found last is in order; 0 also where it could not look.",
     lambda each: float(passed([each.finding]))),
    ("timestamp_seconds", "When it ran last, of whatever version and config.",
     lambda each: each.at.timestamp()),
    ("fresh_seconds", "How long what it found counts.",
     lambda each: (each.until - each.at).total_seconds()),
)  # fmt: skip


def families(path: Path) -> Iterator[Family]:
    """Yield what the evidence at ``path`` says of each gate that ever ran, nothing without any."""
    known, fine = _read(path)
    for name, doc, value in _OF_A_GATE:
        rows = tuple(
            ((gate, relay), value(proof))
            for relay, each in known.items()
            for gate, proof in each.latest.items()
        )
        yield Family(f"backup_mx_gate_{name}", GAUGE, doc, rows, ("gate", "relay"))
    yield written.one("backup_mx_gate_evidence_ok", GAUGE,
                      "0 where what the gates wrote cannot be read.", float(fine))  # fmt: skip


def _read(path: Path) -> tuple[Mapping[str, Evidence], bool]:
    try:
        return evidence.read(path), True
    except BackupMxError:
        return {}, False

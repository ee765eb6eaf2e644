"""All gates, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Mapping

from backup_mx.evidence import Record
from backup_mx.gates import (
    access,
    account,
    alarms,
    canary,
    certificate,
    drain,
    failover,
    inbound,
    intake,
    ledger,
    monitoring,
    names,
    notices,
    reboot,
    rebuild,
    refusal,
    retention,
    size,
    version,
)
from backup_mx.gates.gate import Gate

GATES: Mapping[str, Gate] = {
    gate.name: gate
    for gate in (
        size.GATE,
        account.GATE,
        version.GATE,
        access.GATE,
        inbound.GATE,
        intake.GATE,
        drain.PARITY_GATE,
        drain.GATE,
        refusal.GATE,
        retention.GATE,
        ledger.GATE,
        canary.GATE,
        certificate.GATE,
        names.GATE,
        notices.GATE,
        monitoring.GATE,
        alarms.GATE,
        rebuild.GATE,
        reboot.GATE,
        failover.GATE,
    )
}
"""Each gate by its name."""

REQUIRED: Mapping[str, tuple[Record, ...]] = {name: gate.waits for name, gate in GATES.items()}
"""Of each gate the records that are not published without it, as evidence is asked for it."""

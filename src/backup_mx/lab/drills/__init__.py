"""Drills: what can go wrong, done on purpose, with every message counted afterwards."""

from __future__ import annotations

from backup_mx.errors import LabError, did_you_mean
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.drills.flood import Flood
from backup_mx.lab.drills.outage import Outage
from backup_mx.lab.drills.reboot import EdgeReboot
from backup_mx.lab.drills.refusal import Refusal
from backup_mx.lab.drills.senders import Senders

__all__ = ["DRILLS", "Drill", "drill"]

DRILLS: dict[str, type[Drill]] = {
    each.name: each for each in (Outage, Senders, Refusal, EdgeReboot, Flood)
}


def drill(name: str) -> type[Drill]:
    """Return the drill called ``name``. Raises LabError when there is none."""
    try:
        return DRILLS[name]
    except KeyError:
        known = ", ".join(DRILLS)
        hint = did_you_mean(name, DRILLS)
        raise LabError(f'there is no drill "{name}": there is {known}. {hint}'.rstrip()) from None

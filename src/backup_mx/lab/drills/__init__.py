"""Drills: what can go wrong, done on purpose, with every message counted afterwards."""

from __future__ import annotations

from backup_mx.errors import LabError, did_you_mean
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.drills.certificate import Certificate
from backup_mx.lab.drills.first_boot import FirstBoot
from backup_mx.lab.drills.flapping import Flapping
from backup_mx.lab.drills.flood import Flood
from backup_mx.lab.drills.go_live import GoLive
from backup_mx.lab.drills.killed import AgentKilled
from backup_mx.lab.drills.maintenance import Maintenance
from backup_mx.lab.drills.migrate import Migrate
from backup_mx.lab.drills.outage import Outage
from backup_mx.lab.drills.reboot import EdgeReboot
from backup_mx.lab.drills.rebuild import RebuildDrill
from backup_mx.lab.drills.refusal import Refusal
from backup_mx.lab.drills.retention import Retention
from backup_mx.lab.drills.senders import Senders
from backup_mx.lab.drills.standby import Standby

__all__ = ["DRILLS", "Drill", "drill"]

_DRILLS: tuple[type[Drill], ...] = (
    *(Outage, Senders, Refusal, EdgeReboot, Flood),
    *(Retention, Maintenance, Standby, Flapping, AgentKilled, Certificate, RebuildDrill, Migrate),
    *(FirstBoot, GoLive),
)
DRILLS: dict[str, type[Drill]] = {each.name: each for each in _DRILLS}


def drill(name: str) -> type[Drill]:
    """Return the drill called ``name``. Raises LabError when there is none."""
    try:
        return DRILLS[name]
    except KeyError:
        known = ", ".join(DRILLS)
        hint = did_you_mean(name, DRILLS)
        raise LabError(f'there is no drill "{name}": there is {known}. {hint}'.rstrip()) from None

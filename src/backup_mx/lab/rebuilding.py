"""A lab's relay made anew: what the operator's provider does, done to a machine of the lab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backup_mx.errors import UnreachableError
from backup_mx.lab.host import Progress
from backup_mx.lab.machine import Machine
from backup_mx.lab.stations import LabHost
from backup_mx.lab.world import World
from backup_mx.machine.ship import Answer, Tell


@dataclass(frozen=True)
class LabProvider:
    """Destroys mx2's root disk and boots it from fresh user-data; its volume, if any, stays."""

    world: World
    progress: Progress

    @property
    def words(self) -> str:
        """What it does."""
        return f"the lab {self.world.name}"

    def replace(self) -> None:
        """Do it; return when the first boot is over. Raises LabError."""
        self.world.rebuild(self.progress)


@dataclass(frozen=True)
class LabRelay:
    """A lab's machine as a Host that may be off, as one on the Internet may."""

    machine: Machine

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Run ``argv`` as root on the machine. Raises UnreachableError when it is off."""
        if not self.machine.running:
            raise UnreachableError(f"{self.machine.name} is off")
        return LabHost(self.machine).run(argv, stdin=stdin, tell=tell)

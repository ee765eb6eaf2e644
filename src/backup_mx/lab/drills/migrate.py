"""The drill ``migrate``: mail is taken out of one relay, and put into another that never had it."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab.drills.agent import PROGRAM
from backup_mx.lab.drills.rebuild import RebuildDrill
from backup_mx.lab.reconcile import Sent

FOLDER = "/root/exported"
HELD = 3
"""Messages that are on hold, and have to be so in the other relay."""


@dataclass
class Migrate(RebuildDrill):
    """The drill ``migrate``.

    The relay has no volume, so the machine that is made anew shares nothing with the old one.
    """

    name = "migrate"
    summary = "mail is exported from one relay without a volume, and imported into another"
    default_messages = 100

    def look_at_the_volume(self) -> None:
        """Raise LabError when this lab's relay has one."""
        if self.relay.machine.volume.exists:
            raise LabError("this lab's relay has a volume: its mail would stay where it is")

    def in_the_outage(self, _pool: Executor, _sent: list[Sent]) -> list[str]:
        """Export, make the relay anew, import; return what is not as it was."""
        self.ask("hold", *self.some_ids())
        self.refused_without_a_volume()
        with tempfile.TemporaryDirectory() as place:
            folder = self.exported(Path(place, "exported"))
            failures = self.made_anew(self.job(self.world.made_from, folder))
        waiting, held = self.relay.waiting, self.relay.held
        self.timeline.event(f"{waiting} messages are on the new machine, {held} of them on hold")
        if (waiting, held) != (self.messages, HELD):
            failures.append(f"{waiting} messages, {held} on hold, came over")
        self.ask("release", "--held")
        return failures

    def some_ids(self) -> list[str]:
        """Return the queue IDs of a few messages."""
        return self.ask("queue", "--ids").split()[:HELD]

    def exported(self, folder: Path) -> Path:
        """Take all mail out of the relay, into a folder of the operator's."""
        self.ask("export", "--all", "-o", FOLDER)
        shutil.copytree(self.relay.machine.path(FOLDER), folder)
        self.timeline.event(f"{len(list(folder.glob('*.eml')))} messages are exported")
        return folder

    def ask(self, *verb: str) -> str:
        """Say a verb on the relay; return what it prints. Raises LabError when it fails."""
        return self.relay.machine.run([PROGRAM, *verb]).text

"""The drill ``rebuild``: mail waits on the relay, and its machine dies; only the volume is kept."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from backup_mx.config import Config
from backup_mx.errors import BackupMxError, LabError, MachineError
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.rebuilding import LabProvider, LabRelay
from backup_mx.lab.reconcile import Sent
from backup_mx.machine.look import Look
from backup_mx.machine.rebuild import Rebuild

LATE = 20
"""Messages that are sent while there is no machine."""
MARK = "/root/of-the-old-machine"


@dataclass
class RebuildDrill(Drill):
    """The drill ``rebuild``, and what ``migrate`` shares with it.

    The same verb does it that an operator uses. While the machine is away, senders go on sending.
    """

    name = "rebuild"
    summary = "mail waits on the relay, and its machine is made anew around its volume"
    default_messages = 200

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Do to the relay, in the middle of an outage, what the drill is about."""
        self.need_the_agent()
        self.look_at_the_volume()
        self.cut_the_primary()
        sent = self.submit(self.name)
        try:
            self.fill_the_relay(self.messages)
            self.timeline.event(f"{self.relay.waiting} messages wait on the relay")
            failures = self.in_the_outage(pool, sent)
            self.restore_the_primary()
            self.drain()
        except BackupMxError as error:
            self.timeline.event(f"given up: {error}")
            return sent, [str(error)]
        finally:
            self.restore_the_primary()
        return sent, failures

    def in_the_outage(self, pool: Executor, sent: list[Sent]) -> list[str]:
        """Make the relay anew; return what is not as it was, and add to ``sent`` what is sent."""
        self.refused_without_a_volume()
        late = pool.submit(self.submit, f"{self.name}-late", LATE)
        failures = self.made_anew(self.job(self.world.made_from))
        sent += late.result()
        self.fill_the_relay(self.messages + LATE)
        return failures

    def look_at_the_volume(self) -> None:
        """Raise LabError when this lab's relay has none."""
        if not self.relay.machine.volume.exists:
            raise LabError(
                f"this lab's relay has no volume: backup-mx lab down --name {self.world.name}, "
                "then up --volume, makes one that has"
            )

    def job(self, config: Config, exported: Path | None = None) -> Rebuild:
        """Return the operator's verb for this lab's relay."""
        host = LabRelay(self.relay.machine)
        return Rebuild(config, "mx2", host, self.tell, exported)

    def tell(self, step: str) -> None:
        """Put a step of the verb's on the timeline."""
        self.timeline.event(step)

    @property
    def provider(self) -> LabProvider:
        """What replaces the machine."""
        return LabProvider(self.world, _ignore)

    def refused_without_a_volume(self) -> None:
        """See that the verb refuses where mail would die. Raises LabError where it does not."""
        config = self.world.made_from
        bare = config.relays["mx2"].model_copy(update={"volume": False})
        job = self.job(config.model_copy(update={"relays": {"mx2": bare}}))
        try:
            job.planned(self.provider)
        except MachineError as error:
            self.timeline.event(f"without a volume: {str(error).splitlines()[0]}")
            return
        raise LabError("a relay without a volume would have been destroyed with mail on it")

    def made_anew(self, job: Rebuild) -> list[str]:
        """Have the relay made anew; return what is not the same afterwards."""
        self.relay.machine.path(MARK).touch()
        began = time.monotonic()
        plan = job.planned(self.provider)
        before = job.replace(plan, self.provider, _ignore)
        if self.relay.machine.path(MARK).exists():
            raise LabError("the root disk of the old machine is still there")
        self.timeline.event("the new machine has booted from its user-data", "relay back")
        findings = job.finish(before)
        self.figures["made anew and proven, s"] = round(time.monotonic() - began, 1)
        for each in findings:
            self.timeline.event(f"{each.verdict}: {each.gate}: {each.saw}")
        return [
            f"{each.gate}: {each.saw}" for each in findings if each.verdict in ("fail", "unknown")
        ]


def _ignore(_said: str | Look) -> None:
    """Tell nobody."""

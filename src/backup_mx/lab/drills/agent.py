"""The relay's agent as a drill knows it: alive, killed, dead for good, and what it says."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from backup_mx.lab.host import wait_for
from backup_mx.lab.machine import Machine
from backup_mx.relay import state
from backup_mx.relay.state import Snapshot

UNIT = "backup-mx-agent.service"
GUARD = "backup-mx-guard.timer"
UNITS = "/etc/systemd/system"
PROGRAM = "/usr/local/bin/backup-mx"
# A condition that never holds; unlike a mask it stands beside a unit in /etc, and after a boot.
DEAD = "[Unit]\nConditionPathExists=/dead\n"
HURRY = """[Timer]
OnActiveSec=
OnUnitInactiveSec=
OnActiveSec=1
OnUnitInactiveSec={}
AccuracySec=1ms
RandomizedDelaySec=0
"""
START_SECONDS = 60.0


@dataclass(frozen=True)
class Agent:
    """The agent on the relay ``machine``."""

    machine: Machine

    @property
    def installed(self) -> bool:
        """Whether there is one: a lab may have been brought up without."""
        return self.machine.path(f"{UNITS}/{UNIT}").exists()

    @property
    def process(self) -> int:
        """Its process id on the machine, 0 while it does not run."""
        shown = self.machine.run(["systemctl", "show", "-P", "MainPID", UNIT], check=False)
        return int(shown.text.strip() or 0)

    def kill(self) -> None:
        """End it as a crash does; systemd starts it again."""
        self.machine.run(["systemctl", "kill", "--signal=KILL", UNIT], check=False)

    @contextlib.contextmanager
    def dead(self) -> Iterator[None]:
        """Have it killed, and not started again, power cuts included, while the block runs."""
        with self._dropin(UNIT, DEAD):
            self.kill()
            # systemd restarts what crashed without asking for the condition again.
            self.machine.run(["systemctl", "stop", UNIT])
            yield
        self.machine.run(["systemctl", "reset-failed", UNIT], check=False)
        self.machine.run(["systemctl", "start", UNIT])

    @contextlib.contextmanager
    def guarded(self, seconds: float) -> Iterator[None]:
        """Have the guard, which is no part of the agent, come so often while the block runs."""
        with self.hurried(GUARD, seconds):
            yield

    @contextlib.contextmanager
    def hurried(self, timer: str, seconds: float) -> Iterator[None]:
        """Have a timer's unit run so often while the block runs."""
        with self._dropin(timer, HURRY.format(seconds)):
            self.machine.run(["systemctl", "restart", timer])
            yield
        self.machine.run(["systemctl", "restart", timer])

    @contextlib.contextmanager
    def _dropin(self, unit: str, text: str) -> Iterator[None]:
        file = self.machine.path(f"{UNITS}/{unit}.d/lab.conf")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        self._reload()
        try:
            yield
        finally:
            file.unlink()
            self._reload()

    def _reload(self) -> None:
        if self.machine.running:
            self.machine.run(["systemctl", "daemon-reload"])

    def ask(self, *verb: str) -> dict[str, Any]:
        """Say a verb on the relay, and return its answer. Raises LabError when it fails."""
        answer: dict[str, Any] = json.loads(self.machine.run([PROGRAM, *verb, "--json"]).text)
        return answer

    def snapshot(self) -> Snapshot | None:
        """Return what it knows, None while it has never known anything."""
        said = self.ask("status")["snapshot"]
        return state.of(said) if said else None

    def even(self, since: float, *, by_the_spool: bool) -> bool:
        """Whether its ledger adds up: looked at, or held against the spool, after that second."""
        found = self.snapshot()
        if found is None or not found.sums.even:
            return False
        return ((found.reconciled or 0.0) if by_the_spool else found.time) > since

    def adds_up(self, what: str, *, by_the_spool: bool = False) -> Snapshot:
        """Wait until its ledger adds up; return what it knows. Raises LabError if it does not.

        by_the_spool waits until it has held it against the spool, as it does when it starts.
        """
        now = time.time()
        wait_for(
            f"the ledger to add up {what}",
            lambda: self.even(now, by_the_spool=by_the_spool),
            timeout=START_SECONDS,
        )
        found = self.snapshot()
        assert found is not None  # noqa: S101  just asked
        return found

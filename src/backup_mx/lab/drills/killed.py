"""The drill ``agent-killed``: the agent dies at any moment, and its ledger adds up after each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from backup_mx.errors import LabError
from backup_mx.lab.drills.base import Drill
from backup_mx.lab.host import wait_for
from backup_mx.lab.reconcile import Sent

AT_LEAST = 3
"""How often it is killed in the intake, and again in the drain."""
EARLIEST, LATEST = 0.2, 3.0
"""The seconds from when it runs again to when it is killed again."""


@dataclass
class AgentKilled(Drill):
    """The drill ``agent-killed``: SIGKILL at random moments while mail comes in and goes out."""

    name = "agent-killed"
    summary = "the agent is killed at random moments: the ledger adds up after each"
    default_messages = 500

    def rehearse(self, pool: Executor) -> tuple[list[Sent], list[str]]:
        """Kill it all along an outage."""
        self.need_the_agent()
        before = self.agent.adds_up("before").sums
        self.cut_the_primary()
        sending = pool.submit(self.submit, self.name)
        filling = pool.submit(self.fill_the_relay, self.messages)
        failures: list[str] = []
        try:
            self.kill_while("mail comes in", lambda: not filling.done())
            filling.result()
            failures += self.compare()
            self.restore_the_primary()
            self.kill_while("mail goes out", lambda: self.relay.waiting > 0)
            self.drain()
            after = self.agent.adds_up("in the end").sums
            handed = after.delivered - before.delivered
            if after.accepted - before.accepted != handed:
                failures.append(f"{after} after {before}")
            self.figures["delivered, as the ledger says"] = handed
        except LabError as error:
            self.timeline.event(f"given up: {error}")
            failures.append(str(error))
        finally:
            self.restore_the_primary()
        return sending.result(), failures

    def kill_while(self, what: str, goes_on: Callable[[], bool]) -> None:
        """Kill it again and again while ``what`` goes on, AT_LEAST times, and see its ledger."""
        kills = 0
        while goes_on() or kills < AT_LEAST:
            moment = time.monotonic() + random.uniform(EARLIEST, LATEST)  # noqa: S311  any will do
            wait_for("the moment", lambda: time.monotonic() > moment, timeout=60)  # noqa: B023
            self.agent.kill()
            kills += 1
            self.timeline.event(f"the agent is killed while {what}", "kill")
            wait_for("the agent to run again", lambda: bool(self.agent.process), timeout=60)
            self.agent.adds_up(f"after a kill while {what}", by_the_spool=True)
        self.figures[f"kills while {what}"] = kills

    def compare(self) -> list[str]:
        """Hold the ledger's sum against the files on the relay's disk, now that nothing moves."""
        sums, files = self.agent.adds_up("with the relay full").sums, self.relay.waiting
        self.timeline.event(f"{files} messages wait on the relay; the ledger says {sums.waiting}")
        if sums.waiting + sums.held == files:
            return []
        return [f"the ledger says that {sums.waiting + sums.held} messages wait, not {files}"]

"""What the agent listens with: metrics, dashboard, standby. If one fails, everything else goes on.

The web libraries are imported only here and only when they are needed: a relay that lacks them
drains all the same.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from backup_mx.relay.decide import standby
from backup_mx.relay.ledger.query import Reader, reading
from backup_mx.relay.root import client
from backup_mx.relay.root.protocol import Result
from backup_mx.relay.settings import Settings
from backup_mx.relay.state import Snapshot
from backup_mx.relay.tasks.draining import helper_flush
from backup_mx.relay.tasks.policy import Policy
from backup_mx.relay.tasks.present import Present, noted
from backup_mx.relay.tasks.tending import NEVER
from backup_mx.relay.tasks.threads import aside

if TYPE_CHECKING:
    from backup_mx.relay.web.serving import Server

SLACK = 60.0  # seconds that a walk may take: so much older may the last one be


@dataclass
class AgentView:
    """What the dashboard shows and does (web.view.View)."""

    present: Present

    @property
    def settings(self) -> Settings:
        """What the agent was told."""
        return self.present.settings

    def snapshot(self) -> Snapshot:
        """Return the present state."""
        return self.present.shown

    def reader(self) -> AbstractContextManager[Reader]:
        """Open the ledger to read, in the caller's thread."""
        return reading(self.present.books.path)

    async def change(
        self, verb: str, ids: Sequence[str], by: str, address: str
    ) -> Sequence[Result]:
        """Hold, release, requeue or delete messages. Raises MachineError."""
        return await aside(partial(client.change, verb, ids, by=by, address=address))

    async def show(self, queue_id: str, body: bool) -> dict[str, Any]:
        """Return a message's envelope, header and, on demand, body. Raises MachineError."""
        return await aside(partial(client.show, queue_id, body=body))

    async def drain(self, by: str, address: str) -> None:  # noqa: ARG002 - the protocol's
        """Try all waiting mail now. Raises MachineError."""
        began = time.time()  # a primary that rises while the helper works was not flushed to
        await aside(helper_flush)
        self.present.draining.operator(began)


@dataclass
class Servers:
    """Everything that listens; each starts as a task that tries until it can."""

    present: Present
    _running: list[Server] = field(default_factory=list)
    _policy: Policy | None = None

    @noted
    async def metrics(self) -> float:
        """Answer Prometheus."""
        from backup_mx.relay.tell import metrics

        present = self.present
        self._running.append(await metrics.serve(lambda: present.shown, present.settings))
        return NEVER

    @noted
    async def dashboard(self) -> float:
        """Show the dashboard."""
        from backup_mx.relay.web import site

        self._running.append(await site.serve(AgentView(self.present)))
        return NEVER

    @noted
    async def standby(self) -> float:
        """Answer Postfix, whether mail is to go to the first MX."""
        self._policy = Policy(self.action)
        await self._policy.start()
        return NEVER

    def action(self, request: Mapping[str, str]) -> str:
        """Return the answer to a policy request, and let it be known that somebody asked."""
        present, now = self.present, time.time()
        present.was_asked(now)
        fresh = 2 * present.settings.canary_idle + SLACK
        found = standby.action(
            request,
            present.greeted(fresh),
            now,
            fresh=fresh,
            maintenance=bool(present.maintenance),
        )
        present.put_off += found != standby.DUNNO
        return found

    async def stop(self) -> None:
        """Close everything that listens."""
        if self._policy:
            await self._policy.stop()
        for each in self._running:
            await each.stop()

"""What the dashboard knows of the rest of the agent: one protocol, so that tests need no relay."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from backup_mx.relay.ledger.query import Reader
from backup_mx.relay.root.protocol import Result
from backup_mx.relay.settings import Settings
from backup_mx.relay.state import Snapshot


class View(Protocol):
    """What the agent shows, and what it does when asked; a BackupMxError is shown to the operator.

    by is who asks, address where from, both for the record.
    """

    @property
    def settings(self) -> Settings:
        """What the agent was told; read at every request."""

    def snapshot(self) -> Snapshot:
        """Return the present state; called on the event loop, must not block."""

    def reader(self) -> AbstractContextManager[Reader]:
        """Open the ledger to read; called in a thread of its own, where it is closed again."""

    async def change(
        self, verb: str, ids: Sequence[str], by: str, address: str
    ) -> Sequence[Result]:
        """Hold, release, requeue or delete messages; one Result for each."""

    async def show(self, queue_id: str, body: bool) -> dict[str, Any]:
        """Return a message's envelope, headers and, on demand, body, as client.show does."""

    async def drain(self, by: str, address: str) -> None:
        """Try all waiting mail now."""

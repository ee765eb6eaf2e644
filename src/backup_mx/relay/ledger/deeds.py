"""What people, and the agent, did to messages: who, when, and whether it took effect."""

from __future__ import annotations

import json
import sqlite3

from backup_mx.relay.ledger.book import Message
from backup_mx.relay.ledger.rows import UNKNOWN
from backup_mx.relay.log import events

_PATIENCE = 600.0  # seconds between what the helper announces and what postsuper does
_PULLING = ("delete", "requeue")


class Deeds:
    """Writes them, within the caller's transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def settle(self, message: Message, event: events.Changed) -> str:
        """Return who it is by that postsuper did this, and note that it was done.

        The helper announces who; what it did not announce lately is by nobody known. Before it
        deletes or requeues a message, it may hold it, and release it when that was not possible.
        """
        if message.asked:
            number, verb, by, time = json.loads(message.asked)
            lately = abs(event.time - time) <= _PATIENCE
            if not (lately and verb in _PULLING and event.verb in ("hold", "release")):
                message.asked = ""
            if verb == event.verb and lately:
                self._database.execute("UPDATE action SET done = 1 WHERE id = ?", (number,))
                return str(by)
        self.add(message, event.time, event.verb, event.id, UNKNOWN, "", done=True)
        return UNKNOWN

    def add(
        self,
        message: Message | None,
        time: float,
        verb: str,
        queue_id: str,
        by: str,
        source: str,
        *,
        done: bool,
    ) -> int:
        """Note a deed, at a time in seconds since 1970, and return its number."""
        number = message.id if message else None
        added = self._database.execute(
            "INSERT INTO action (message, time, verb, queue_id, by, source, done)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, time, verb, queue_id, by, source, int(done)),
        )
        return int(added.lastrowid or 0)

    def sweep(self, time: float, messages: int) -> None:
        """Note that so many messages were deleted by then, nobody knows which."""
        self._database.execute("INSERT INTO sweep VALUES (?, ?, NULL)", (time, messages))

"""What people, and the agent, did to messages: who, when, and whether it took effect."""

from __future__ import annotations

import json
import sqlite3

from backup_mx.relay.ledger.book import Message
from backup_mx.relay.ledger.rows import RETENTION, UNKNOWN
from backup_mx.relay.log import events

_PATIENCE = 600.0
"""Seconds at most between two who tell of one deed: the helper, who announces it, and postsuper,
who does it; the agent, who had it done, and the log.
"""
_PULLING = ("delete", "requeue")
_RETENTIONS = ("hold", RETENTION)


class Deeds:
    """Writes them, within the caller's transaction."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def settle(self, message: Message, event: events.Changed) -> str:
        """Return who asked for this change, and note that it was done.

        That is who the helper announced in the last _PATIENCE seconds, else UNKNOWN. The helper may
        hold a message before it deletes or requeues it, and release it where it could not: such a
        hold or release leaves the announcement open.
        """
        if message.asked:
            number, verb, by, time = json.loads(message.asked)
            lately = abs(event.time - time) <= _PATIENCE
            if not (lately and verb in _PULLING and event.verb in ("hold", "release")):
                message.asked = ""
            if verb == event.verb and lately:
                self._database.execute("UPDATE action SET done = 1 WHERE id = ?", (number,))
                return str(by)
        self.add(message.id, event.time, event.verb, event.id, UNKNOWN, "", done=True)
        return UNKNOWN

    def note_announced(
        self, message: Message | None, event: events.Announced, *, done: bool
    ) -> int:
        """Note what the helper announces, unless the agent told of it; return the deed's number."""
        own = (event.verb, event.by) == _RETENTIONS
        if message and own and (deed := self._retentions_hold(message.id, event.time)):
            return deed
        number = message.id if message else None
        return self.add(number, event.time, event.verb, event.id, event.by, event.source, done=done)

    def note_hold(self, queue_id: str, time: float) -> None:
        """Note that retention has put a message on hold, whatever becomes of the log's lines.

        The helper said so to the agent, at a time in seconds since 1970.
        """
        found = self._database.execute(
            "SELECT message FROM alias WHERE queue_id = ?", (queue_id,)
        ).fetchone()
        if found and not self._retentions_hold(found[0], time):
            self.add(found[0], time, "hold", queue_id, RETENTION, "", done=True)

    def _retentions_hold(self, number: int, time: float) -> int:
        """Return the number of the message's last deed if that is retention's hold.

        It has to be within _PATIENCE of that time; 0 else.
        """
        last = self._database.execute(
            "SELECT id, verb, by, time FROM action WHERE message = ? ORDER BY id DESC LIMIT 1",
            (number,),
        ).fetchone()
        same = last and last[1:3] == _RETENTIONS and abs(last[3] - time) <= _PATIENCE
        return int(last[0]) if same else 0

    def add(
        self,
        number: int | None,
        time: float,
        verb: str,
        queue_id: str,
        by: str,
        source: str,
        *,
        done: bool,
    ) -> int:
        """Note a deed, at a time in seconds since 1970, and return its number.

        number is the message's, None where the ledger knows none.
        """
        added = self._database.execute(
            "INSERT INTO action (message, time, verb, queue_id, by, source, done)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (number, time, verb, queue_id, by, source, int(done)),
        )
        return int(added.lastrowid or 0)

    def sweep(self, time: float, messages: int) -> None:
        """Note that so many messages were deleted by then, nobody knows which."""
        self._database.execute("INSERT INTO sweep VALUES (?, ?, NULL)", (time, messages))

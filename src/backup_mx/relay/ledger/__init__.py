"""The book of every message that was taken, and what became of it: Postfix's log in SQLite.

accepted = delivered + waiting + held + deleted, message by message, checkable against the spool.
writer.Ledger writes it (the agent alone), and is imported from there: a verb that only reads starts
in half the time without all that reads a log. query.Reader reads it, from any process.
"""

from backup_mx.relay.ledger.rows import (
    RETENTION,
    UNKNOWN,
    Aged,
    Due,
    Progress,
)
from backup_mx.relay.ledger.schema import COUNTERS, PATH
from backup_mx.relay.queue.spool import Entry

__all__ = ["COUNTERS", "PATH", "RETENTION", "UNKNOWN", "Aged", "Due", "Entry", "Progress"]

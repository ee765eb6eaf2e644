"""Messages that are changed together: what is known of each, what becomes of it, what is said."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from backup_mx.relay.queue import spool
from backup_mx.relay.queue.spool import Place
from backup_mx.relay.root import fit, pulls
from backup_mx.relay.root.protocol import Result

MOVING = ("incoming", "active", "deferred")
"""The queues in which a message is on its way."""
NOWHERE = "no queue"


class Postfix(pulls.Postfix, fit.Postfix, Protocol):
    """What is needed of Postfix (commands.Postfix has it)."""

    def delivered(self, ids: Iterable[str]) -> frozenset[str]:
        """Return which of the messages everybody has."""

    def pick_up(self) -> None:
        """Wake pickup(8)."""

    def lifetime(self) -> int:
        """Return Postfix's limit in seconds."""


@dataclass
class Batch:
    """The messages; those that are ours are locked until ``locks`` are closed."""

    postfix: Postfix
    locks: contextlib.ExitStack
    said: dict[str, Result] = field(default_factory=dict)
    """What became of each."""
    ours: dict[str, Place] = field(default_factory=dict)
    pulled: dict[str, Place] = field(default_factory=dict)
    """Those in the active queue which nobody delivers at the moment."""
    staying: set[str] = field(default_factory=set)
    """Those that are left on hold, pulled or not."""
    near: frozenset[str] = frozenset()
    """Those whose lifetime is nearly over: a release of them is a requeue."""
    aside: list[str] = field(default_factory=list)
    """Those to be deleted that qmgr has put aside."""
    files: dict[str, int] = field(default_factory=dict)
    """What is open of those that are ours: qmgr may still move them."""

    def keep(self, queue_id: str, place: Place, file: int) -> None:
        """Make a message ours, whose file is locked."""
        self.locks.callback(os.close, file)
        self.ours[queue_id] = place
        self.files[queue_id] = file

    def refuse(self, queue_id: str, why: str) -> None:
        """Answer that a message is not as it was asked to be, and why."""
        self.said[queue_id] = Result(queue_id, False, why)

    def end(self, queue_id: str, said: str) -> None:
        """Answer that a message is as it was asked to be."""
        self.said[queue_id] = Result(queue_id, True, said)

    def supervise(self, option: str, ids: Sequence[str]) -> None:
        """Run postsuper(1) on messages, if there are any. Raises MachineError."""
        if ids:
            self.postfix.change(option, ids)

    def judge(self, ids: Iterable[str], right: Sequence[str], said: str) -> None:
        """Answer by where each message lies now: not what a program says, but what it did.

        right are the queues in which it may lie, NOWHERE one of them.
        """
        wanted = list(ids)
        found = spool.find(wanted, self.postfix.spool)
        for each in wanted:
            queue = found[each].queue if each in found else NOWHERE
            if queue in right:
                self.end(each, said)
            else:
                self.refuse(each, f"Postfix did not do it: it lies in {queue}")

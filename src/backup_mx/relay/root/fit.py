"""Whether a message can be requeued: pickup(8) copies each, and deletes a file that is damaged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backup_mx.relay import text
from backup_mx.relay.decide.lifetime import RETENTION
from backup_mx.relay.queue import spool, whole
from backup_mx.relay.root import protocol
from backup_mx.relay.root.protocol import Who


class Postfix(Protocol):
    """What is needed of Postfix (commands.Postfix has it)."""

    @property
    def spool(self) -> Path:
        """The queue directory."""

    def minfree(self) -> int:
        """Return the bytes that are to stay free."""


@dataclass(frozen=True)
class Unfit:
    """Why a message cannot be requeued; holder: in whose name it is held if it is near its end.

    What is damaged only a person can mend. Where there is no room, retention's own release tries
    it again by itself.
    """

    why: str
    holder: Who


def unfit(postfix: Postfix, files: Mapping[str, int]) -> Iterator[tuple[str, Unfit]]:
    """Yield the ID of each message that cannot be requeued, of those whose files are open, and why.

    There has to be room for the largest: pickup takes one message after the other, and removes the
    file of each before it copies the next. Root's reserve is not for it (statvfs(3), f_bavail).
    Raises MachineError, and OSError where the file system does not tell.
    """
    if not files:
        return
    disk = spool.disk(postfix.minfree(), postfix.spool)
    room = max(0, disk.free - disk.needed)
    for each, file in files.items():
        size = os.fstat(file).st_size
        if size > room:
            needs = f"it has {text.size(size)}, and {text.size(room)} may be used"
            yield each, Unfit(f"{protocol.NO_ROOM}: {needs}", Who(RETENTION))
        elif damage := whole.damage(file):
            yield each, Unfit(f"{protocol.BROKEN}: {damage}", Who("guard"))

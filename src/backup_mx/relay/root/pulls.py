"""What is on hold only while it is changed: written down, so that no failure leaves it there.

The file lies inside the queue directory, in a folder for root alone: it is there after a power cut,
too. It names what is being pulled at this moment, never what an operator holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from backup_mx.errors import MachineError
from backup_mx.relay import files
from backup_mx.relay.queue import commands, queueid
from backup_mx.relay.queue.spool import SPOOL
from backup_mx.relay.root.protocol import Who

FOLDER = SPOOL / "pulled"
"""Made at first need, for root alone; whoever changes messages has its lock (flock(2))."""
_WHO = Who("helper")


class Postfix(Protocol):
    """What is needed of Postfix (commands.Postfix has it)."""

    @property
    def spool(self) -> Path:
        """The queue directory."""

    def change(self, option: str, ids: Iterable[str]) -> None:
        """Run postsuper on messages."""

    def note(self, lines: Sequence[str]) -> None:
        """Write lines into the mail log."""


@dataclass(frozen=True)
class Pulls:
    """The messages being pulled; for who has the lock (see alone)."""

    postfix: Postfix
    file: Path

    def begin(self, ids: Iterable[str]) -> None:
        """Write down which will be put on hold. Raises MachineError."""
        try:
            files.replace(self.file, "".join(f"{each}\n" for each in ids), 0o600)
            files.on_disk(self.file.parent)
        except OSError as error:
            raise MachineError(f"{self.file} cannot be written: {error.strerror}") from None

    def end(self, but: Collection[str] = ()) -> list[str]:
        """Release those that are on hold still, and return them. Raises MachineError.

        Those in ``but`` stay there, also when the others' release fails: for that it is written
        down anew, if the disk has room.
        """
        try:
            noted = self.file.read_text().split()
        except FileNotFoundError:
            return []
        hold = self.postfix.spool / "hold"
        wanted = [each for each in noted if queueid.valid(each) and each not in but]
        left = [each for each in wanted if (hold / each).exists()]
        if but:
            with contextlib.suppress(MachineError):  # a full disk keeps nothing on hold
                self.begin(left)
        if left:
            with contextlib.suppress(MachineError):
                self.postfix.note([f"{each}: release {_WHO}" for each in left])
            self.postfix.change(commands.RELEASE, left)
        self.file.unlink()
        return left


@contextmanager
def alone(postfix: Postfix) -> Iterator[Pulls]:
    """Be the only one who changes messages, after what one who was killed had pulled is released.

    Raises MachineError.
    """
    try:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise MachineError(f"{FOLDER} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pulls = Pulls(postfix, FOLDER / "ids")
        pulls.end()
        yield pulls
    finally:
        os.close(lock)


def recover(postfix: Postfix) -> None:
    """Release what one who was killed had pulled. Raises MachineError."""
    with alone(postfix):
        pass

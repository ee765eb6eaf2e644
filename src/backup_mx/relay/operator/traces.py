"""What the mail log tells of an import that was cut off: whether Postfix has the message.

Also when the log was rotated and compressed since. What strangers write stands in its lines, so
they are read as the ledger reads them (log/maillog.py).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.relay.log import maillog
from backup_mx.relay.log.events import Arrived, Event, Named, Queued
from backup_mx.relay.log.logfiles import LogFile, MovedError, digest, family

_TAIL = 512  # bytes by which the end of a log is known again
_TRIES = 3  # a log is rotated once a day
_HERE = ("localhost[127.0.0.1]", "localhost[::1]")
_NO_NAME = ("", "<>")
"""How cleanup(8) logs that there is no Message-ID."""
_ODD = re.compile(rb"[^ -~]")


@dataclass(frozen=True)
class Since:
    """Where a log ended, and when, in seconds since 1970.

    Its file's inode and length in bytes, and the digest of the last of them: known by these it is
    found again under any name. Without them the time of its lines has to do, to the second.
    """

    inode: int = 0
    offset: int = 0
    tail: str = ""
    time: float = 0.0

    @classmethod
    def now(cls, log: Path) -> Since:
        """Return the end of a log. Raises OSError."""
        with log.open("rb") as stream:
            status = os.fstat(stream.fileno())
            stream.seek(_before(status.st_size))
            tail = stream.read(status.st_size - stream.tell())
        return cls(status.st_ino, status.st_size, digest(tail) if tail else "", time.time())

    def lies_in(self, file: LogFile) -> bool:
        """Tell whether it was the end of this file. Raises MovedError, OSError."""
        try:
            return bool(self.tail) and self.tail == file.digest(_before(self.offset), self.offset)
        except file.damages:
            return False


def _before(offset: int) -> int:
    return max(0, offset - _TAIL)


def taken_since(log: Path, since: Since, name: str, known: Collection[str] = ()) -> str:
    """Return the ID under which Postfix took a message since the log ended there, or "".

    name is its Message-ID; without one it is not to be known again, and rather imported twice than
    lost. known are IDs that are somebody else's. Raises OSError, and MachineError when the log
    changes as fast as it is read.
    """
    if name in _NO_NAME:
        return ""
    for _ in range(_TRIES):
        with suppress(MovedError):
            return _taken(_events_since(family(log), since), _printed(name), known)
    raise MachineError(f"{log} cannot be read: it is rotated again and again")


def _printed(name: str) -> bytes:
    """Return a Message-ID in the way that any Postfix may have printed it."""
    return _ODD.sub(b"?", name.encode("utf-8", "surrogateescape"))


def _taken(events: Iterable[Event | None], name: bytes, known: Collection[str]) -> str:
    """Return what came from this machine itself, with that Message-ID, and was accepted."""
    ours: set[str] = set()
    named: set[str] = set()
    for event in events:
        match event:
            case Arrived() if event.client in _HERE and event.id not in known:
                ours.add(event.id)
            case Named() if _printed(event.message_id) == name:
                named.add(event.id)
            case Queued() if event.id in ours and event.id in named:
                return event.id
    return ""


def _events_since(files: list[LogFile], since: Since) -> Iterator[Event | None]:
    likely = sorted(range(len(files)), key=lambda each: (files[each].inode != since.inode, -each))
    found = next((each for each in likely if since.lies_in(files[each])), None)
    for index, file in enumerate(files):
        lines: Iterable[bytes] = ()
        if found is None and file.written >= since.time:
            lines = (line for line in _read(file, 0) if _is_later(line, file, since))
        elif found is not None and index >= found:
            lines = _read(file, since.offset if index == found else 0)
        for line in lines:
            yield maillog.parse(line.rstrip(b"\n"), file.written)


def _read(file: LogFile, offset: int) -> Iterator[bytes]:
    with suppress(*file.damages), file.open() as stream:
        stream.seek(offset)
        yield from stream


def _is_later(line: bytes, file: LogFile, since: Since) -> bool:
    """Tell whether a line is not from before; a second is as fine as its time is."""
    stamp = maillog.when(line, file.written)
    return stamp is not None and stamp >= int(since.time)

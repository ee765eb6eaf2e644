"""Files that one process at a time may change: a lock beside each (flock(2)), free at its end."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from backup_mx.errors import MachineError

PATIENCE = 60.0
"""Seconds to wait for who has a file; whoever is well needs some milliseconds."""
_TICK = 0.05


@contextlib.contextmanager
def held(path: Path, busy: str = "") -> Iterator[None]:
    """Have a file for oneself; busy is what to say where another has it, "" to wait for PATIENCE.

    Raises MachineError.
    """
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(lock.open("a"))
            _locked(file, 0.0 if busy else PATIENCE)
        except BlockingIOError:
            late = f"another process has had {path} for {PATIENCE:.0f} s: see what it waits for"
            raise MachineError(busy or late) from None
        except OSError as error:
            raise MachineError(f"{lock} cannot be locked: {error.strerror}") from None
        yield


def _locked(file: IO[str], seconds: float) -> None:
    """Lock a file as soon as that can be, within seconds. Raises BlockingIOError."""
    ends = time.monotonic() + seconds
    while not _free(file):
        if time.monotonic() >= ends:
            raise BlockingIOError
        time.sleep(_TICK)


def _free(file: IO[str]) -> bool:
    """Lock a file if nobody else has; tell whether that was so."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

"""Keep Postfix's log while Postfix is not running, for those of its programs that run all the same.

postsuper(1) is not root any more when it logs. Without postlogd(8) it opens the log itself, may
not, and ends at the first message.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from backup_mx.errors import MachineError
from backup_mx.relay.log.logfiles import MAILLOG

_LONGEST = 64 * 1024  # bytes of a line


@contextmanager
def kept(spool: Path, log: Path = MAILLOG) -> Iterator[None]:
    """Write to the log what is said on postlogd's socket, unless somebody does that already.

    The socket file stays: master(8) replaces it. Raises MachineError.
    """
    place = spool / "public/postlog"
    if _answered(place):
        yield
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        try:
            place.unlink(missing_ok=True)
            wire.bind(str(place))
            place.chmod(0o666)  # its folder says who may come: master does the same
            file = log.open("ab", buffering=0)
        except OSError as error:
            raise MachineError(f"the mail log cannot be kept: {error}") from None
        with file:
            thread = threading.Thread(target=_write, args=(wire, file), daemon=True)
            thread.start()
            try:
                yield
            finally:
                _say(place, b"")  # the last, after all that was said before
                thread.join()


def _answered(place: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.connect(str(place))
    except OSError:
        return False
    return True


def _say(place: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.sendto(line, str(place))


def _write(wire: socket.socket, file: BinaryIO) -> None:
    while line := wire.recv(_LONGEST):
        with contextlib.suppress(OSError):  # who speaks must not wait for a full disk
            file.write(line.rstrip(b"\n") + b"\n")

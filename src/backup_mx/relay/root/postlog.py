"""Keep Postfix's log while Postfix is not running, for those of its programs that run all the same.

postsuper(1) is not root any more when it logs. Without postlogd(8) it opens the log itself, may
not, and ends at the first message.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from backup_mx.errors import MachineError
from backup_mx.relay.log.logfiles import MAILLOG

LOCK = Path("/run/backup-mx/postlog.lock")
_LONGEST = 64 * 1024  # bytes of a line
_LAST = 0.2  # seconds without a word after which the last was said
_SECONDS = 30.0
_ASK = ("systemctl", "is-active", "postfix.service", "postfix@-.service")
_AWAY = {"inactive", "failed"}


@contextmanager
def kept(spool: Path, log: Path = MAILLOG) -> Iterator[None]:
    """Write to the log what is said on postlogd's socket, unless Postfix runs or is on its way.

    The socket file stays: master(8) replaces it. One process at a time is in here; the next one
    waits. Raises MachineError.
    """
    place = spool / "public/postlog"
    with _alone():
        if _answered(place) or not _away():
            yield
        else:
            with _kept(place, log):
                yield


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process is in here: the first to end would take the socket along."""
    try:
        lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # as /run is full: better side by side than not at all
        yield
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _kept(place: Path, log: Path) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        try:
            place.unlink(missing_ok=True)
            wire.bind(str(place))
            place.chmod(0o666)  # its folder says who may come: master does the same
            file = log.open("ab", buffering=0)
        except OSError as error:
            raise MachineError(f"the mail log cannot be kept: {error}") from None
        with file:
            over = threading.Event()
            thread = threading.Thread(target=_write, args=(wire, file, over), daemon=True)
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()


def _answered(place: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.connect(str(place))
    except OSError:
        return False
    return True


def _away() -> bool:
    """Tell whether systemd says that Postfix neither runs, nor starts or stops at this moment."""
    try:
        said = subprocess.run(_ASK, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"it cannot be told whether Postfix runs: {error}") from None
    return set(said.stdout.split()) <= _AWAY


def _write(wire: socket.socket, file: BinaryIO, over: threading.Event) -> None:
    """Write each line; end when it is over and all that was said before has been read."""
    wire.settimeout(_LAST)
    while True:
        try:
            line = wire.recv(_LONGEST)
        except TimeoutError:
            if over.is_set():
                return
            continue
        if line:
            with contextlib.suppress(OSError):  # who speaks must not wait for a full disk
                file.write(line.rstrip(b"\n") + b"\n")

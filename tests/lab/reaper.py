"""Clears away what a test process leaves of its labs, once it is gone, however it went.

python reaper.py PID PREFIX: the process, and what the names of its labs begin with. No ``finally``
and no ``atexit`` runs in a process that is killed, and SIGTERM to pytest kills it.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import cgroups, host, names, network, processes
from backup_mx.lab.world import down

MARK = "BACKUP_MX_TEST_LABS"
"""In the environment of all that a test process starts: what the names of its labs begin with."""


def main(pid: int, prefix: str) -> None:
    """Wait for a process to end; then end what it started, and its labs. Raises LabError."""
    with contextlib.suppress(ProcessLookupError):
        select.select([os.pidfd_open(pid)], [], [])
    # First who may still be at it: `backup-mx lab up` goes on without the test that ran it.
    host.wait_for("what the tests started to end", lambda: _ended(prefix), timeout=60)
    failed: list[LabError] = []
    for lab in sorted(labs(prefix)):
        try:
            down(lab)
        except LabError as error:
            failed.append(error)
    if failed:
        raise failed[0]


def labs(prefix: str) -> set[str]:
    """Return the names of the labs, or of what is left of them, that begin with ``prefix``."""
    ours = f"bmx-{prefix}"
    parts = [
        *processes.machines(ours),
        *(path.name for path in network.NAMESPACES.glob(f"{ours}*")),
        *(path.name for path in cgroups.found(ours)),
    ]
    folders = {path.name for path in names.LABS.glob(f"{prefix}*")}
    return folders | {part.removeprefix("bmx-").partition("-")[0] for part in parts}


def _ended(prefix: str) -> bool:
    left = set(_started(prefix))
    processes.kill(left)
    return not left


def _started(prefix: str) -> Iterator[int]:
    """Yield the processes that bear the mark, but for machines: those have an order to end in."""
    mark = f"{MARK}={prefix}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
            if marked and b"systemd-nspawn" not in (entry / "cmdline").read_bytes().split(b"\0"):
                yield int(entry.name)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

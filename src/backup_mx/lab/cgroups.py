"""Control groups: one per machine, in every hierarchy that systemd uses.

Two machines started from one group would share one group tree, and the ``postfix.service`` of the
one would be that of the other.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from backup_mx.errors import HostError
from backup_mx.lab import host, mounts


def hierarchies() -> list[Path]:
    """Return the mount points of cgroup v2 and of v1's hierarchy named systemd.

    Raises HostError when there is none.
    """
    found = [
        mount.point
        for mount in mounts.mounted()
        if mount.kind == "cgroup2" or (mount.kind == "cgroup" and "name=systemd" in mount.options)
    ]
    if not found:
        raise HostError("this host cannot carry a lab: no control group hierarchy is mounted")
    return found


def create(name: str) -> list[Path]:
    """Make the groups ``name`` and return them."""
    groups = [hierarchy / name for hierarchy in hierarchies()]
    for group in groups:
        group.mkdir(exist_ok=True)
    return groups


def found(prefix: str) -> list[Path]:
    """Return the top-level groups whose names begin with ``prefix``."""
    return [group for at in hierarchies() for group in at.glob(f"{prefix}*") if group.is_dir()]


def members(group: Path) -> set[int]:
    """Return the ids of the processes in a group and below it."""
    pids: set[int] = set()
    for below, _, _ in os.walk(group):
        with contextlib.suppress(OSError):
            pids.update(int(pid) for pid in Path(below, "cgroup.procs").read_text().split())
    return pids


def remove(group: Path) -> None:
    """Remove a group with all below it, as soon as its last processes, which are ending, are gone.

    Raises LabError when they do not go.
    """
    host.wait_for(f"{group} to become empty", lambda: _removed(group), timeout=10.0)


def _removed(group: Path) -> bool:
    for below, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            Path(below).rmdir()
    return not group.exists()

"""Clearing a lab away, whatever state it is in: found by its name alone."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from backup_mx.errors import LabError
from backup_mx.lab import cgroups, host, mounts, names, network, processes, volume

_NSPAWN = Path("/run/systemd/nspawn")
_UNIX_EXPORT = _NSPAWN / "unix-export"
_PROPAGATE = _NSPAWN / "propagate"


def sweep(lab: str) -> None:
    """Remove every process, mount, namespace, control group and folder of a lab.

    What is not there is fine. Raises LabError when something will not go.
    """
    _end_processes(lab)
    for namespace in network.found(lab):
        processes.kill(network.remove(namespace) - {os.getpid()})
    for place in (names.folder(lab), *_nspawn_places(lab)):
        _remove(place)
    for group in cgroups.found(names.prefix(lab)):
        processes.kill(cgroups.members(group))
        cgroups.remove(group)
    left = leftovers(lab)
    if left:
        raise LabError(f"lab {lab} could not be cleared away: {', '.join(left)}")


def leftovers(lab: str) -> list[str]:
    """Return what there is of a lab on this host, each thing in a few words."""
    return [
        *(f"process {it.supervisor}" for it in processes.machines(names.prefix(lab)).values()),
        *(f"mount {point}" for point in mounts.below(names.folder(lab))),
        *(f"namespace {name}" for name in network.found(lab)),
        *(f"control group {group}" for group in cgroups.found(names.prefix(lab))),
        *(f"folder {place}" for place in [names.folder(lab)] if place.exists()),
    ]


def _end_processes(lab: str) -> None:
    """End all machines; again, as one may just have been starting."""

    def none_left() -> bool:
        machines = processes.machines(names.prefix(lab))
        for running in machines.values():
            processes.cut(running)
        return not machines

    host.wait_for(f"the machines of lab {lab} to end", none_left, timeout=20.0)


def _nspawn_places(lab: str) -> list[Path]:
    """Return what systemd-nspawn leaves of machines that were killed."""
    return [
        place
        for parent in (_PROPAGATE, _UNIX_EXPORT)
        for place in parent.glob(f"{names.prefix(lab)}*")
    ]


def _remove(place: Path) -> None:
    for point in mounts.below(place):
        mounts.unmount(point)
    for file in place.glob("*/volume.img"):
        volume.detach(file)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(place)

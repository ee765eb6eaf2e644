"""Mounts: what is mounted, the overlay that is a machine's disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from backup_mx.errors import HostError, LabError
from backup_mx.lab import host

_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo (proc(5))."""

    point: Path
    kind: str
    options: str


def parse(line: str) -> Mount:
    """Read one line of mountinfo, whose optional fields end with a lone dash."""
    fields = line.split(" ")
    dash = fields.index("-", 6)
    point = _OCTAL.sub(lambda octal: chr(int(octal[1], 8)), fields[4])
    return Mount(Path(point), fields[dash + 1], fields[dash + 3])


def mounted() -> list[Mount]:
    """Return everything mounted in this process's mount namespace, in order."""
    return [parse(line) for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def below(folder: Path) -> list[Path]:
    """Return the mount points at and below ``folder``, the deepest first."""
    points = [mount.point for mount in mounted()]
    inside = [point for point in points if point == folder or folder in point.parents]
    return sorted(inside, key=lambda point: len(point.parts), reverse=True)


def overlay(lower: Path, upper: Path, work: Path, at: Path) -> None:
    """Mount a disk at ``at`` that shows ``lower`` and keeps every change in ``upper``.

    Raises HostError when the file system below ``upper`` cannot carry one (an overlay itself).
    """
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    try:
        host.call(["mount", "-t", "overlay", "overlay", "-o", options, str(at)])
    except LabError as error:
        raise HostError(f"no overlay can be mounted below {upper.parent}: {error}") from None


def unmount(point: Path) -> None:
    """Unmount ``point``; if somebody still looks at it, as soon as he goes."""
    try:
        host.call(["umount", str(point)])
    except LabError:
        host.call(["umount", "--lazy", str(point)])


def share(folder: Path) -> None:
    """Make ``folder`` a shared mount, if it is none yet: what ends in it ends everywhere.

    A machine that boots takes a copy of all the host's mounts along, hidden below its own root.
    Where the host's root is private, a copy would stay mounted, and its disk in use, for as long
    as that machine runs (mount_namespaces(7), SHARED SUBTREES).
    """
    if not _is_mount(folder):
        folder.mkdir(exist_ok=True)
        host.call(["mount", "--bind", str(folder), str(folder)])
        host.call(["mount", "--make-shared", str(folder)])


def unshare(folder: Path) -> None:
    """Make ``folder`` a mere folder again; one that is no mount is fine."""
    if _is_mount(folder):
        unmount(folder)


def _is_mount(folder: Path) -> bool:
    """Ask the kernel: Path.is_mount() takes a folder that is mounted on itself for none."""
    return any(mount.point == folder for mount in mounted())

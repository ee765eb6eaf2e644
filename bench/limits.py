"""A small machine made of a lab's: so much memory, such a share of a core, by control groups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from backup_mx.lab import cgroups, mounts, names
from backup_mx.lab.machine import Machine

PERIOD_MICROSECONDS = 100_000
SHARES = {"backup-mx-agent.service": 205}
"""CPUWeight of those units that have one, of 1024 for 100."""


@contextlib.contextmanager
def limited(machine: Machine, memory: int, cores: float) -> Iterator[Callable[[], None]]:
    """Let a machine that runs have so many bytes and cores while the block runs.

    Its units share the processor as systemd has them share it where it may: the services by their
    CPUWeight, and whoever logs in has as much as all of them. What is handed to the block makes the
    process that calls it such a visitor. Raises LabError where the kernel offers no such groups.
    """
    name = names.scoped(machine.lab, machine.name)
    groups = _groups(name)
    for group in groups:
        _set(group, _limits(memory, cores))
    processes = {pid for each in cgroups.found(name) for pid in cgroups.members(each)}
    for group in groups:
        for pid in processes:
            _join(_share(group, *_place(pid)), pid)

    def join() -> None:
        for group in groups:
            _join(_share(group, "user", ""), os.getpid())

    try:
        yield join
    finally:
        for group in groups:
            _leave(group)


def _limits(memory: int, cores: float) -> dict[str, str]:
    quota = str(round(cores * PERIOD_MICROSECONDS))
    return {
        "memory.use_hierarchy": "1",
        "memory.limit_in_bytes": str(memory),
        "memory.max": str(memory),
        "cpu.cfs_period_us": str(PERIOD_MICROSECONDS),
        "cpu.cfs_quota_us": quota,
        "cpu.max": f"{quota} {PERIOD_MICROSECONDS}",
    }


def _set(group: Path, values: dict[str, str]) -> None:
    group.mkdir(exist_ok=True)
    for file, value in values.items():
        if (group / file).exists():
            with contextlib.suppress(OSError):  # use_hierarchy is fixed once there are children
                (group / file).write_text(value)


def _place(pid: int) -> tuple[str, str]:
    """Return in which half of the machine a process is, and of which unit there."""
    try:
        own = Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::")[2].strip()
    except OSError:
        return "system", ""
    unit = own.partition("/system.slice/")[2].partition("/")[0]
    return ("system", unit) if unit else ("user", "")


def _share(group: Path, half: str, unit: str) -> Path:
    """Return a unit's group within the machine's, in v1; in v2 systemd has made them itself."""
    if (group / "memory.max").exists():
        return group
    inner = group / half
    _set(inner, {"cpu.shares": "1024"})
    if unit:
        inner /= unit
        _set(inner, {"cpu.shares": str(SHARES.get(unit, 1024))})
    return inner


def _groups(name: str) -> list[Path]:
    """Return the machine's groups for memory and CPU: cgroup v2's, or v1's two."""
    found = [
        mount.point / name
        for mount in mounts.mounted()
        if mount.kind == "cgroup" and {"memory", "cpu"} & set(mount.options.split(","))
    ]
    return found or [each for each in cgroups.found(name) if (each / "memory.max").exists()]


def _join(group: Path, pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        (group / "cgroup.procs").write_text(str(pid))


def _leave(group: Path) -> None:
    """Give the machine back to the host, in v1; in v2 the group is the machine's own."""
    if (group / "memory.max").exists():
        (group / "memory.max").write_text("max")
        (group / "cpu.max").write_text("max")
        return
    for inner in sorted(group.rglob("cgroup.procs"), key=lambda found: -len(found.parts)):
        for pid in cgroups.members(inner.parent):
            _join(group.parent, pid)
    cgroups.remove(group)

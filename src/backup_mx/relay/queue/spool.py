"""Postfix's queue directories: what lies where. Reads directories and inodes, never a message."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from backup_mx.relay.state import QUEUES, Disk

SPOOL = Path("/srv/backup-mx/spool")
MOUNTS = Path("/proc/self/mountinfo")
SYSFS = Path("/sys")
READ_ONLY = ("ro", "emergency_ro")


class Entry(NamedTuple):
    """A queue file: size in bytes, mtime in seconds since 1970 (of a deferred one: next try)."""

    queue: str
    id: str
    size: int
    mtime: float


@dataclass(frozen=True)
class Place:
    """Where a message lies."""

    queue: str
    path: Path


def disk(minfree: int = 0, folder: Path = SPOOL) -> Disk:
    """Return the room on the spool's file system. Raises OSError.

    Where it has a smaller share of its inodes left than of its bytes, as when small messages are
    many, that share of the bytes counts as free: a queue file needs both.
    """
    found = os.statvfs(folder)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    if found.f_files:  # 0 where there is no such limit
        free = min(free, total * found.f_favail // found.f_files)
    return Disk(free, total, minfree, _damaged(folder.stat().st_dev))


def _damaged(device: int) -> bool:
    """Whether a file system is read-only as a whole, or ext4 has found errors on it.

    As a whole: what follows the dash in proc_pid_mountinfo(5). statvfs(3) also tells what a sandbox
    forbids, and not what errors=remount-ro does since Linux 6.15, which ext4 calls emergency_ro.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = [line.split() for line in MOUNTS.read_text(errors="replace").splitlines()]
    options = {each for mount in mounts if mount[2] == number for each in mount[-1].split(",")}
    return not options.isdisjoint(READ_ONLY) or _errors(number) > 0


def _errors(number: str) -> int:
    """Return how many errors ext4 counts on a device since e2fsck(8) last mended it."""
    name = (SYSFS / "dev/block" / number).resolve().name
    try:
        return int((SYSFS / "fs/ext4" / name / "errors_count").read_text())
    except (OSError, ValueError):
        return 0  # another file system, or a container


def walk(spool: Path = SPOOL) -> Iterator[Entry]:
    """Yield every queue file once, but those that cleanup(8) still writes: they have no 250 yet.

    Messages move while we look: those queues that they move to are looked at twice.
    """
    seen: set[str] = set()
    for queue in (*QUEUES, "incoming", "active"):
        for found in _files(str(spool / queue)):
            name = found.name
            if name in seen:
                continue
            try:
                status = found.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            # Not complete(): a hundred thousand files.
            if status.st_mode & stat.S_IXUSR and stat.S_ISREG(status.st_mode):
                seen.add(name)
                yield Entry(queue, name, status.st_size, status.st_mtime)


def names(queues: Iterable[str], spool: Path = SPOOL) -> Iterator[tuple[str, str]]:
    """Yield queue and ID of every file of some queues, without a look at the files."""
    for queue in queues:
        for found in _files(str(spool / queue)):
            yield queue, found.name


def complete(status: os.stat_result) -> bool:
    """Tell whether a queue file is whole: its owner may "execute" it then (mail_queue.h)."""
    return bool(status.st_mode & stat.S_IXUSR)


def _files(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the files of a queue, whose folder may be hashed (hash_queue_names)."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if len(entry.name) == 1:
            yield from _files(entry.path)
        else:
            yield entry


def find(ids: Iterable[str], spool: Path = SPOOL) -> dict[str, Place]:
    """Return where each of the messages lies; what is nowhere is left out.

    A message only moves while somebody moves it: who was missed is looked for once more.
    """
    wanted = list(ids)
    found = _look(wanted, spool)
    return found | _look([each for each in wanted if each not in found], spool)


def _look(ids: list[str], spool: Path) -> dict[str, Place]:
    folders = [(queue, folder) for queue in QUEUES for folder in _folders(spool / queue)]
    return {
        each: Place(queue, Path(folder, each))
        for queue, folder in (folders if ids else ())
        for each in ids
        if os.path.exists(f"{folder}/{each}")  # noqa: PTH110  hot: thousands of IDs
    }


def _folders(folder: Path) -> Iterator[str]:
    yield str(folder)
    try:
        inner = [entry.path for entry in os.scandir(folder) if len(entry.name) == 1]
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in inner:
        yield from _folders(Path(path))

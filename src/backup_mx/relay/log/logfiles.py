"""The files that a rotated log consists of, oldest first, as logrotate(8) names them."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

MAILLOG = Path("/srv/backup-mx/log/maillog")
"""Where Postfix writes its log (maillog_file)."""

UNREADABLE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error)
"""What reading a file that is damaged can raise."""

_ROTATED = re.compile(r"(?:-(?P<date>\d{8}(?:-?\d+)?)|\.(?P<count>\d{1,9}))(?P<packed>\.gz)?")


class MovedError(Exception):
    """A file is not what it was when they were listed: list them again. Follower keeps it in."""


@dataclass(frozen=True)
class LogFile:
    """One of them; rank sorts them by age, packed says that it is compressed."""

    path: Path
    rank: tuple[int, str]
    packed: bool
    inode: int
    size: int
    written: float

    @property
    def damages(self) -> tuple[type[Exception], ...]:
        """What is taken for damage; that a plain file cannot be read is the caller's to know."""
        return UNREADABLE if self.packed else ()

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it for reading its text.

        Raises MovedError when its name is another file's by now, or one of UNREADABLE, here or
        while it is read.
        """
        with self._opened() as plain:
            if os.fstat(plain.fileno()).st_ino != self.inode:
                raise MovedError
            if self.packed:
                with gzip.open(plain, "rb") as stream:
                    yield cast("BinaryIO", stream)
            else:
                yield plain

    def _opened(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except FileNotFoundError:
            raise MovedError from None

    def piece(self, start: int, end: int) -> bytes:
        """Return its bytes from start to end, as many as there are."""
        with self.open() as stream:
            stream.seek(start)
            return stream.read(end - start)

    def digest(self, start: int, end: int) -> str:
        """Return the digest of its bytes from start to end, or "" where it has fewer."""
        found = self.piece(start, end)
        return digest(found) if len(found) == end - start else ""


def digest(data: bytes) -> str:
    """Return what bytes are known by again."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def family(log: Path) -> list[LogFile]:
    """Return the log and what it was rotated into, oldest first.

    One that is being compressed counts once, uncompressed; a date after the name (dateext) and a
    number that grows with age are understood. Raises OSError when the folder cannot be listed.
    """
    # readdir(3) may miss a file that is renamed meanwhile, and a name may be the next file's when
    # its turn for stat(2) comes; a file is renamed once a rotation, so two lists do not both err.
    files = _listed(log)
    while _names(again := _listed(log)) != _names(files):
        files = again
    return again


def _names(files: list[LogFile]) -> list[tuple[Path, int]]:
    return [(each.path, each.inode) for each in files]


def _listed(log: Path) -> list[LogFile]:
    found: dict[tuple[int, str], LogFile] = {}
    for path in log.parent.iterdir() if log.parent.is_dir() else ():
        rank = _rank(log.name, path.name)
        each = _look(path, *rank) if rank else None
        if each and (each.rank not in found or not each.packed):
            found[each.rank] = each
    return [found[rank] for rank in sorted(found)]


def _rank(log: str, name: str) -> tuple[tuple[int, str], bool] | None:
    if name == log:
        return (1, ""), False
    suffix = _ROTATED.fullmatch(name.removeprefix(log)) if name.startswith(log) else None
    if suffix is None:
        return None
    if suffix["date"]:
        return (0, suffix["date"]), bool(suffix["packed"])
    return (-int(suffix["count"]), ""), bool(suffix["packed"])


def _look(path: Path, rank: tuple[int, str], packed: bool) -> LogFile | None:
    try:
        status = path.stat()
    except FileNotFoundError:  # renamed since the folder was listed
        return None
    return LogFile(path, rank, packed, status.st_ino, status.st_size, status.st_mtime)

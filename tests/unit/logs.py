"""A log as postlogd and logrotate treat it, and one who reads it in small batches."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from pathlib import Path

from backup_mx.relay.log.follow import Batch, Follower, Position


class Log:
    """A log as postlogd writes it: to the file that it opened, until it is told to reload."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "maillog"
        self.now = time.time()
        self.written: list[bytes] = []
        self.days = 0
        self.handles: list[int] = []
        self.reload()

    def reload(self) -> None:
        self.handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.handles.append(self.handle)

    def close(self) -> None:
        for handle in self.handles:
            os.close(handle)

    def append(self, data: bytes) -> None:
        os.write(self.handle, data)
        self.age(0)

    def line(self, stamp: str = "Nov 22 07:00:00") -> None:
        text = b"%s mx2 postfix/x[1]: line %d" % (stamp.encode(), len(self.written))
        self.written.append(text)
        self.append(text + b"\n")

    def stamp(self) -> str:
        """Return the time as Postfix writes it."""
        return time.strftime("%b %d %H:%M:%S", time.localtime(self.now))

    def age(self, seconds: float) -> None:
        """Let time pass; the file that is written to was written to before that."""
        os.utime(self.handle, (self.now, self.now))
        self.now += seconds

    def rotate(self) -> Path:
        self.days += 1
        to = self.path.with_name(f"maillog-202601{self.days:02}")
        self.path.rename(to)
        self.path.touch()  # "create"
        return to

    def compress(self, path: Path) -> None:
        with path.open("rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
            shutil.copyfileobj(plain, packed)
        shutil.copystat(path, f"{path}.gz")
        path.unlink()

    def copytruncate(self) -> None:
        self.days += 1
        shutil.copy2(self.path, self.path.with_name(f"maillog-202601{self.days:02}"))
        os.truncate(self.path, 0)


class Reader:
    """Reads it in small batches, with a fresh Follower now and then."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.position: Position | None = None
        self.lines: list[bytes] = []
        self.gaps: list[str] = []
        self.follower = Follower(log.path, lambda: log.now)

    def restart(self) -> None:
        self.follower.close()
        self.follower = Follower(self.log.path, lambda: self.log.now)

    def read(self, limit: int = 3, batches: int = 10_000) -> None:
        for _ in range(batches):
            batch: Batch = self.follower.read(self.position, limit)
            assert len(batch.lines) <= limit
            self.position = batch.position
            self.lines += batch.lines
            self.gaps += [batch.gap] if batch.gap else []
            if not batch.behind:
                return


def lines(log: Log, count: int, stamp: str = "Nov 22 07:00:00") -> None:
    for _ in range(count):
        log.line(stamp)

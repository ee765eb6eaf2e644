"""Reads a log that grows, is renamed, compressed, cut or lost: each line exactly once.

The caller keeps the Position where it keeps what it learnt, in one transaction. A file is known by
its bytes, not by its name or inode, so that logrotate(8) may rename, copy or compress it; it is
left only when the next one has begun to fill, because postlogd(8) writes to the renamed file until
``postfix reload``. A position is never the start of a file, because an empty file has no
bytes to be known by: the end of the file before stands for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from backup_mx.relay.log import maillog
from backup_mx.relay.log.logfiles import UNREADABLE, LogFile, MovedError, digest, family

LONGEST = 16384
"""Bytes of a line that are kept: postlogd(8) writes 4 KiB at most; the rest is passed over."""

_MOST = 1 << 22  # bytes read at once
_HEAD = 512
_TAIL = 256
_LINGER = 2.0  # seconds without a write after which a renamed file is taken for finished


@dataclass(frozen=True)
class Position:
    """How far the log has been read.

    head is the digest of the file's first ``headed`` bytes, tail that of the last bytes before
    offset, none of them behind it; inode tells two files with one beginning apart; inside says
    that offset lies within a line whose beginning was given out already; stamp is the last line's
    time, and time when it was read, in seconds since 1970.
    """

    inode: int = 0
    offset: int = 0
    headed: int = 0
    head: str = ""
    tail: str = ""
    inside: bool = False
    stamp: float = 0.0
    time: float = 0.0


@dataclass(frozen=True)
class Batch:
    """Lines read at once, without their newlines, and the position behind them.

    written is when the file they stand in was last written to, in seconds since 1970; behind says
    that there may be more at once; gap tells in words what can never be read, or is empty.
    """

    lines: tuple[bytes, ...]
    position: Position | None
    written: float
    behind: bool
    gap: str = ""


class Follower:
    """Reads one log; it keeps open the archive it is in, and knows when there is nothing new."""

    def __init__(self, log: Path, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock
        self._open = ExitStack()
        self._archive: tuple[int, BinaryIO, Position] | None = None
        self._quiet: tuple[object, ...] | None = None

    def close(self) -> None:
        """Close what is open."""
        self._archive = None
        self._open.close()

    def read(self, position: Position | None, limit: int) -> Batch:
        """Read at most ``limit`` lines behind ``position`` (None: from the oldest file there is).

        Raises OSError when the log is there but cannot be read.
        """
        now = self._clock()
        state = (position, *self._state())
        if state == self._quiet:
            return Batch((), position, now, behind=False)
        self._quiet = None
        try:
            files = family(self._log)
            batch = self._look(files, position, limit, now)
        except MovedError:
            return Batch((), position, now, behind=True)
        finally:
            if not self._archive:
                self.close()
        if batch.position == position and not batch.behind and self._is_last(files, position):
            self._quiet = state
        return batch

    def _is_last(self, files: list[LogFile], position: Position | None) -> bool:
        """Tell whether nothing can come but in the log itself."""
        last = files[-1] if files else None
        return bool(last and position and (last.path, last.inode) == (self._log, position.inode))

    def _state(self) -> tuple[int, ...]:
        """Return what changes whenever the log does."""
        try:
            status = self._log.stat()
        except FileNotFoundError:
            return ()
        return (status.st_ino, status.st_size, status.st_mtime_ns)

    def _look(
        self, files: list[LogFile], position: Position | None, limit: int, now: float
    ) -> Batch:
        """Read on where the position is; at a file's end, if it will not grow, in the next one."""
        if not files:
            return Batch((), position, now, behind=False)
        index, start, gap = self._place(files, position)
        while True:
            file, over = files[index], _is_over(files, index, now)
            reached, part = self._read(file, start, limit, over, now)
            if part.offset != start.offset or not (part.ended and over):
                break
            if part.damaged:
                gap = gap or f"{file.path} is damaged: its end cannot be read"
            index, start = index + 1, _next(files[index + 1], start)
        if part.offset == start.offset:  # a gap is told with the first line behind it
            return Batch((), position, now, behind=False)
        return Batch(part.lines, reached, file.written, over or not part.ended, gap)

    def _place(self, files: list[LogFile], position: Position | None) -> tuple[int, Position, str]:
        """Return the file to read on in, where, and what cannot be read."""
        if position is None:
            return 0, _beginning(files[0], 0.0), ""
        likely = sorted(
            range(len(files)), key=lambda each: (files[each].inode != position.inode, -each)
        )
        for index in likely:
            if self._is_at(files[index], position) or _holds(files[index], position):
                return index, position, ""
        return _lost(files, position)

    def _is_at(self, file: LogFile, position: Position) -> bool:
        return self._archive is not None and (file.inode, position) == self._archive[::2]

    def _read(
        self, file: LogFile, start: Position, limit: int, over: bool, now: float
    ) -> tuple[Position, _Part]:
        """Read on in a file. Raises MovedError when it was changed or replaced meanwhile."""
        try:
            stream = self._stream(file, start)
            part = _lines(stream, start, limit, over)
            reached = _reached(file, start, part, now)
        except file.damages:
            return start, _Part((), (), start.offset, start.inside, ended=True, damaged=True)
        if not file.packed and not _stands(file, start, part):
            raise MovedError
        if file.packed and not part.damaged and stream.tell() == part.offset:
            self._archive = (file.inode, stream, reached)
        return reached, part

    def _stream(self, file: LogFile, position: Position) -> BinaryIO:
        """Return the file, opened, at that position; it is not known where it stands after."""
        if self._archive and self._is_at(file, position):
            stream, self._archive = self._archive[1], None
            return stream
        self.close()
        stream = self._open.enter_context(file.open())
        stream.seek(position.offset)
        return stream


def _holds(file: LogFile, position: Position) -> bool:
    """Tell whether the position lies in that file: what was read before it must be there."""
    start = max(0, position.offset - _TAIL)
    try:
        return (
            file.digest(0, position.headed) == position.head
            and file.digest(start, position.offset) == position.tail
        )
    except file.damages:
        return False


@dataclass(frozen=True)
class _Part:
    """Lines, the bytes passed, the offset behind them, if it is in a line, and how it ended."""

    lines: tuple[bytes, ...]
    raw: tuple[bytes, ...]
    offset: int
    inside: bool
    ended: bool
    damaged: bool = False


def _lines(stream: BinaryIO, position: Position, limit: int, over: bool) -> _Part:
    """Read lines; a last one without its newline is left for the next time, unless it is over."""
    lines: list[bytes] = []
    raw: list[bytes] = []
    offset, inside, ended, damaged = position.offset, position.inside, False, False
    most = offset + _MOST
    while len(lines) < limit and offset < most and not ended:
        try:
            piece = stream.readline(LONGEST)
        except UNREADABLE:
            piece, damaged = b"", True
        whole = piece.endswith(b"\n")
        ended = not whole and len(piece) < LONGEST
        if ended and (inside or not over or not piece):
            break
        if not inside:
            lines.append(piece.removesuffix(b"\n"))
        raw.append(piece)
        offset += len(piece)
        inside = not whole
    return _Part(tuple(lines), tuple(raw), offset, inside, ended, damaged)


def _is_over(files: list[LogFile], index: int, now: float) -> bool:
    """Tell whether a file will never grow again: a later one does, and it has been still."""
    file = files[index]
    still = not 0 <= now - file.written < _LINGER
    return any(each.size for each in files[index + 1 :]) and (file.packed or still)


def _beginning(file: LogFile, stamp: float) -> Position:
    """Return the place before a file's first line: where to read, never what the caller keeps."""
    return Position(file.inode, stamp=stamp)


def _next(file: LogFile, start: Position) -> Position:
    """Return where to go on in the next file, which may be one of which the last was a copy.

    That is so when logrotate(8) ended between the two steps of copytruncate.
    """
    return start if start.offset and _holds(file, start) else _beginning(file, start.stamp)


def _reached(file: LogFile, start: Position, part: _Part, now: float) -> Position:
    """Return the position behind what was read."""
    if part.offset == start.offset:
        return start
    headed = min(_HEAD, part.offset)
    return Position(
        inode=file.inode,
        offset=part.offset,
        headed=headed,
        head=start.head if start.headed == headed else file.digest(0, headed),
        tail=_tail(file, part),
        inside=part.inside,
        stamp=_stamp(part.lines, file.written, start.stamp),
        time=now,
    )


def _tail(file: LogFile, part: _Part) -> str:
    length = min(_TAIL, part.offset)
    known = b"".join(part.raw[-_TAIL:])
    if len(known) >= length:
        return digest(known[-length:])
    return file.digest(part.offset - length, part.offset)


def _stands(file: LogFile, start: Position, part: _Part) -> bool:
    """Tell whether what was read is there still: copytruncate may have cut the file meanwhile."""
    if start.offset:
        return _holds(file, start)
    first = b"".join(part.raw[:1])
    return file.piece(0, len(first)) == first


def _stamp(lines: tuple[bytes, ...], written: float, known: float) -> float:
    """Return the time of the last line that has one."""
    stamps = (maillog.when(line, written) for line in reversed(lines))
    return next((stamp for stamp in stamps if stamp is not None), known)


def _lost(files: list[LogFile], position: Position) -> tuple[int, Position, str]:
    """Return the file to go on in, where nothing is read twice, and what that leaves out."""
    for index, file in enumerate(files):
        if not file.packed and file.digest(0, position.headed) == position.head:
            gap = f"{file.path} has lost its end, or was changed: some lines were never read"
            return index, _after(file, position), gap
    # By the last line's time, not by when it was read: that may be days later.
    known = position.stamp or position.time
    later = (index for index, file in enumerate(files) if file.written >= known)
    index = next(later, len(files) - 1)
    file = files[index]
    gap = f"the log was cut or removed: what stood in it before {file.path} was never read"
    if file.written >= position.time:
        return index, _beginning(file, position.stamp), gap
    return index, _after(file, position), gap


def _after(file: LogFile, position: Position) -> Position:
    """Return the position behind the last line that is no newer than what has been read."""
    head = tail = b""
    offset = 0
    with suppress(*file.damages), file.open() as stream:
        while (line := stream.readline(LONGEST)).endswith(b"\n") or len(line) == LONGEST:
            stamp = maillog.when(line, file.written)
            if stamp is not None and stamp > position.stamp:
                break
            offset += len(line)
            head = (head + line)[:_HEAD] if len(head) < _HEAD else head
            tail = (tail + line)[-_TAIL:]
    return Position(file.inode, offset, len(head), digest(head), digest(tail), stamp=position.stamp)

"""Whether pickup(8) can read a queue file to its end.

qmgr(8) and smtp(8) leave a damaged file where it is, or move it to corrupt; pickup, which reads
what was requeued, deletes it: at an end without an end record, a record type that it does not
expect, a sector that cannot be read, a second name. So it is asked here, in the way in which pickup
reads (pickup.c: copy_segment; record.c: rec_get; rec_type.h), before a file is given to it.
"""

from __future__ import annotations

import os
from typing import BinaryIO

_SEGMENTS = ((b"M", b"CTcFILSDRO/WVA>K<ion"), (b"X", b"LN"), (b"E", b"DRO/PreAFIL>Kon"))
"""Of envelope, content and what was extracted from it: the type that ends it, those within it."""
_SIZE, _SENDER, _POINTER, _PADDING = b"C", b"S", b"p", b"w"
_RECIPIENTS = (b"R", b"D")  # to be delivered to, delivered to
_LONGEST = 10 * 1024 * 1024  # bytes; pickup's line_length_limit in our master.cf
_LENGTH_BYTES = 5  # more bits than an int has are none of a length
_JUMPS_BACK = 10_000
_BUFFER = 256 * 1024


class _DamagedError(Exception):
    """Says what is wrong."""


def damage(file: int) -> str:
    """Return what is wrong with an open queue file, in words; nothing if all of it can be read.

    Reads the whole of it, piece by piece; where the file stands does not matter.
    """
    try:
        if (names := os.fstat(file).st_nlink) != 1:  # safe_open() refuses it
            return f"it has {names} names (hard links)"
        with os.fdopen(file, "rb", _BUFFER, closefd=False) as stream:
            stream.seek(0)
            _Walk(stream).all()
    except _DamagedError as error:
        return str(error)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return ""


class _Walk:
    """A walk along the records of a queue file."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._jumped = self._back = 0

    def all(self) -> None:
        """Read all that pickup reads: what follows the end record is what pointers lead to."""
        if self._record()[0] != _SIZE:
            raise _DamagedError("it does not begin with its size")
        seen: set[bytes] = set()
        for end, within in _SEGMENTS:
            self._segment(end, within, seen)
            if _SENDER not in seen:
                raise _DamagedError("it has no sender")
        if seen.isdisjoint(_RECIPIENTS):
            raise _DamagedError("it has no recipient")

    def _segment(self, end: bytes, within: bytes, seen: set[bytes]) -> None:
        while True:
            kind, content = self._record()
            if kind == end:
                return
            if kind == _POINTER:
                self._jump(content)
            elif kind in within:
                seen.add(kind)
            elif kind != _PADDING:
                raise self._wrong(f"the record type {kind[0]}")

    def _record(self) -> tuple[bytes, bytes]:
        """Return the next record's type, one byte, and its content."""
        kind = self._stream.read(1)
        if not kind:
            raise _DamagedError("it ends too early")
        length = self._length()
        if length > _LONGEST:
            raise self._wrong(f"a record of {length} bytes")
        content = self._stream.read(length)
        if len(content) < length:
            raise _DamagedError("it ends within a record")
        return kind, content

    def _length(self) -> int:
        """Return a record's length: seven bits a byte, the lowest first, until one below 128."""
        length = 0
        for place in range(_LENGTH_BYTES):
            byte = self._stream.read(1)
            if not byte:
                raise _DamagedError("it ends within a record")
            length |= (byte[0] & 0x7F) << 7 * place
            if byte[0] < 0x80:
                return length
        raise self._wrong("a record without a length")

    def _jump(self, content: bytes) -> None:
        """Go where a pointer leads (rec_goto): what was edited lies behind the end record."""
        digits = content.partition(b"\0")[0].lstrip()
        if digits and not digits.isdigit():
            raise self._wrong("a pointer to nowhere")
        offset = int(digits or b"0")
        if not offset:  # room for one
            return
        self._back += offset <= self._jumped
        if self._back > _JUMPS_BACK or offset > os.fstat(self._stream.fileno()).st_size:
            raise self._wrong("a pointer to nowhere")
        self._jumped = offset
        self._stream.seek(offset)

    def _wrong(self, what: str) -> _DamagedError:
        return _DamagedError(f"it has {what} before byte {self._stream.tell()}")

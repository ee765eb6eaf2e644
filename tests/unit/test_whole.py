"""Which queue files pickup(8) could read to their end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from queues import CONTENT, ENVELOPE, QUEUE_FILE, record

from backup_mx.relay.queue import whole

END = record(b"X") + record(b"E")


@pytest.fixture
def damage(tmp_path: Path) -> Callable[[bytes], str]:
    """Return what says what is wrong with a file of some content."""

    def judge(content: bytes) -> str:
        path = tmp_path / "file"
        path.write_bytes(content)
        return damage_of(path)

    return judge


def damage_of(path: Path) -> str:
    file = os.open(path, os.O_RDONLY)
    try:
        os.lseek(file, 1, os.SEEK_SET)
        return whole.damage(file)
    finally:
        os.close(file)


EXTRACTED = record(b"r", b"a@example.net") + record(b"A", b"encoding=8bit")
GOOD = {
    "plain": QUEUE_FILE,
    "delivered to one of two": ENVELOPE + record(b"D", b"bob@example.org") + CONTENT + END,
    "headers that were extracted": ENVELOPE + CONTENT + record(b"X") + EXTRACTED + record(b"E"),
    "something behind its end": QUEUE_FILE + b"\xff\xff",
    "a record as long as a header": ENVELOPE + record(b"M") + record(b"N", b"x" * 102_400) + END,
    "no body": ENVELOPE + record(b"M") + END,
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_what_pickup_reads_is_whole(damage: Callable[[bytes], str], content: bytes) -> None:
    """Wherever the file stood before."""
    assert damage(content) == ""


def test_a_file_that_was_edited_is_whole(damage: Callable[[bytes], str]) -> None:
    """Pointers lead behind the end record, and back (rec_goto)."""
    start = len(ENVELOPE) + len(record(b"M"))
    tail = record(b"N", b"kept") + END
    back = start + 17
    behind = back + len(tail)
    begin = ENVELOPE + record(b"M") + record(b"p", b"%15d" % behind) + tail
    assert damage(begin + record(b"N", b"new") + record(b"p", b"%15d" % back)) == ""
    assert "ends too early" in damage(begin + record(b"N", b"new"))
    assert "pointer" in damage(begin + record(b"p", b"%15d" % behind))


BAD = {
    "empty": (b"", "ends too early"),
    "another beginning": (QUEUE_FILE[75:], "does not begin with its size"),
    "zeros": (bytes(4096), "does not begin with its size"),
    "zeros in the middle": (ENVELOPE + record(b"M") + bytes(512) + END, "record type 0 "),
    "a garbage type": (ENVELOPE + CONTENT + record(b"\xff", b"x") + END, "record type 255 "),
    "a type of the envelope in the body": (
        ENVELOPE + CONTENT + record(b"S", b"x") + END,
        "record type 83 ",
    ),
    "a length beyond the end": (ENVELOPE + record(b"M") + b"N\xff\x7f", "ends within a record"),
    "a length beyond pickup's": (ENVELOPE + b"N\xff\xff\xff\x7f" + CONTENT, "bytes before byte"),
    "a length that never ends": (ENVELOPE + b"R" + b"\xff" * 9 + CONTENT, "without a length"),
    "no end": (QUEUE_FILE[:-2], "ends too early"),
    "half an end": (QUEUE_FILE[:-1], "ends within a record"),
    "a pointer of letters": (ENVELOPE + record(b"p", b"here") + CONTENT + END, "pointer"),
    "a pointer beyond the end": (ENVELOPE + record(b"p", b"99999") + CONTENT + END, "pointer"),
    "no sender": (record(b"C", b"0") + record(b"R", b"a@b") + CONTENT + END, "no sender"),
    "no recipient": (record(b"C", b"0") + record(b"S", b"a@b") + CONTENT + END, "no recipient"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD)
def test_what_pickup_would_delete_is_damaged(
    damage: Callable[[bytes], str], content: bytes, said: str
) -> None:
    """The answer says what is wrong."""
    assert said in damage(content)


def test_wherever_a_file_is_cut_it_is_damaged(damage: Callable[[bytes], str]) -> None:
    """At each of its bytes."""
    assert [at for at in range(len(QUEUE_FILE)) if not damage(QUEUE_FILE[:at])] == []


def test_a_file_with_two_names_is_damaged(tmp_path: Path) -> None:
    """Postfix opens none that has hard links (safe_open)."""
    path = tmp_path / "file"
    path.write_bytes(QUEUE_FILE)
    os.link(path, tmp_path / "other")
    assert "2 names" in damage_of(path)


def test_a_file_that_cannot_be_read_is_damaged() -> None:
    """A process's own memory stands for a bad sector: its first byte is an error of read(2)."""
    assert "cannot be read: " in damage_of(Path("/proc/self/mem"))

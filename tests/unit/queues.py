"""A queue without Postfix: its folders, and what postsuper would do to the files in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backup_mx.errors import MachineError
from backup_mx.relay.queue import spool

ID, OTHER = "4jXLkx0p7MzJ0mR", "4jXLkx0p7NzJ0mS"
SIZE = b"%15d %15d %15d %15d %15d" % (8, 200, 1, 0, 8)
DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"


def an_id(made: float) -> str:
    """Return a long queue ID of a file that was made then."""
    digits, value = "", int(made)
    while value:
        digits, value = DIGITS[value % 52] + digits, value // 52
    return f"{digits}0000zJ0mR"


@dataclass
class Postsuper:
    """Moves files as postsuper does; ``before`` is called ahead of each run of it."""

    spool: Path
    steps: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _option: None
    limit: int = 8_640_000
    free: int = 0
    """The bytes that are to stay free."""
    delivered_ones: frozenset[str] = frozenset()
    """Those in whose envelope everybody is noted as done."""

    def change(self, option: str, ids: object) -> None:
        self.before(option)
        wanted = list(ids)  # type: ignore[call-overload]
        self.steps.append(f"{option} {' '.join(wanted)}")
        for each, place in spool.find(wanted, self.spool).items():
            if option == "-d":
                place.path.unlink()
            else:
                target = {"-h": "hold", "-H": "deferred", "-r": "maildrop"}[option]
                place.path.rename(self.spool / target / each)

    def note(self, lines: Sequence[str]) -> None:
        self.steps += lines

    def delivered(self, ids: Iterable[str]) -> frozenset[str]:
        return self.delivered_ones & frozenset(ids)

    def pick_up(self) -> None:
        raise MachineError("pickup sleeps")

    def minfree(self) -> int:
        return self.free

    def lifetime(self) -> int:
        return self.limit


def empty(folder: Path) -> Postsuper:
    """Return a queue with nothing in it."""
    for queue in ("maildrop", "incoming", "active", "deferred", "hold", "corrupt"):
        (folder / queue).mkdir()
    return Postsuper(folder)


def record(kind: bytes, content: bytes = b"") -> bytes:
    """Return a record of a queue file, as rec_put() writes it (record.c)."""
    length, left = b"", len(content)
    while left > 0x7F:
        length, left = length + bytes([left & 0x7F | 0x80]), left >> 7
    return kind + length + bytes([left]) + content


ENVELOPE = (
    record(b"C", SIZE)
    + record(b"T", b"1700000000 1")
    + record(b"A", b"log_client_name=localhost")
    + record(b"S", b"a@example.net")
    + record(b"o", b"rfc822;alice@example.org")
    + record(b"O", b"alice@example.org")
    + record(b"R", b"alice@example.org")
    + record(b"p", b"%15d" % 0)
)
CONTENT = record(b"M", b"%15d" % 0) + record(b"N", b"Subject: a") + record(b"p", b"%15d" % 0)
CONTENT += record(b"w", b"0") + record(b"N") + record(b"L", b"x" * 2048) + record(b"N", b"x" * 300)
QUEUE_FILE = ENVELOPE + CONTENT + record(b"X") + record(b"p", b"%15d" % 0) + record(b"E")


def put(postfix: Postsuper, queue: str, queue_id: str = ID, mode: int = 0o700) -> Path:
    path = postfix.spool / queue / queue_id
    path.write_bytes(QUEUE_FILE)
    path.chmod(mode)
    return path


def where(postfix: Postsuper, queue_id: str = ID) -> str:
    place = spool.find([queue_id], postfix.spool).get(queue_id)
    return place.queue if place else "nowhere"

"""How long the ledger takes to catch up on a log, and how much memory that needs.

    python bench/ledger.py [MESSAGES] [FOLDER]

Writes the log of so many messages (100,000) in three parts: they arrive and are deferred (six lines
each), are tried again (two), are delivered (three). A fresh ledger reads part after part, in a
process of its own; printed are seconds, processor seconds, lines a second and the peak of the
memory, and before the last part how fast 100,000 waiting messages are asked for and compared with
the spool. The ratio to reading the same file line by line depends less on the machine.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

from backup_mx.relay.ledger import Entry
from backup_mx.relay.ledger.query import reading
from backup_mx.relay.ledger.rows import Filter
from backup_mx.relay.ledger.writer import Ledger

_DEFERRED = (
    "dsn=4.4.1, status=deferred (connect to mail.example.org[192.0.2.1]:25: Connection refused)"
)
_SENT = "dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4dDqZZ0Nz9z1)"


def name(number: int) -> str:
    """Return a long queue ID."""
    alphabet = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
    digits = ""
    for _ in range(10):
        number, digit = divmod(number, 52)
        digits = alphabet[digit] + digits
    return f"4d{digits}zB"


def arrival(number: int) -> Iterator[str]:
    """Yield what the log says when a message comes."""
    queue_id = name(number)
    yield "smtpd[11]: connect from mail.example.net[192.0.2.7]"
    yield f"smtpd[11]: {queue_id}: client=mail.example.net[192.0.2.7]"
    yield f"cleanup[12]: {queue_id}: message-id=<{number}@example.net>"
    yield active(number)
    yield "smtpd[11]: disconnect from mail.example.net[192.0.2.7] ehlo=1 mail=1 rcpt=1 data=1"


def active(number: int) -> str:
    """Return what it says when a message is about to be tried."""
    sender = f"a{number % 977}@example.net"
    return f"qmgr[13]: {name(number)}: from=<{sender}>, size=4321, nrcpt=1 (queue active)"


def outcome(number: int, ended: str) -> str:
    """Return what it says when it was tried."""
    fields = "relay=mail.example.org[192.0.2.1]:25, delay=1, delays=0/0/1/0"
    return f"smtp[14]: {name(number)}: to=<u{number % 1009}@example.org>, {fields}, {ended}"


def arrivals(number: int) -> Iterator[str]:
    """Yield what it says of a message that comes and cannot be delivered."""
    yield from arrival(number)
    yield outcome(number, _DEFERRED)


def retries(number: int) -> Iterator[str]:
    """Yield what it says of one that is tried again, in vain."""
    yield active(number)
    yield outcome(number, _DEFERRED)


def deliveries(number: int) -> Iterator[str]:
    """Yield what it says of one that is delivered at last."""
    yield active(number)
    yield outcome(number, _SENT)
    yield f"qmgr[13]: {name(number)}: removed"


def write(path: Path, messages: int, part: Callable[[int], Iterator[str]]) -> int:
    """Add a part to the log; return its lines."""
    lines = 0
    with path.open("a") as log:
        for number in range(messages):
            for said in part(number):
                log.write(f"Nov 22 07:00:00 mx2 postfix/{said}\n")
                lines += 1
    return lines


def peak() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reading_alone(path: Path) -> float:
    """Return how many seconds it takes to read a line of the file, and do nothing with it."""
    begun = time.perf_counter()
    with path.open("rb") as log:
        lines = sum(1 for _ in log)
    return (time.perf_counter() - begun) / lines


def run(folder: Path, messages: int) -> None:
    """Let one ledger read part after part, and say how that went."""
    log, before = folder / "maillog", peak()
    ledger = Ledger.open(folder / "ledger.sqlite", log)
    for part in (arrivals, retries, deliveries):
        if part is deliveries:
            ask(folder, ledger)
        lines = write(log, messages, part)
        begun, burnt = time.perf_counter(), time.process_time()
        while ledger.catch_up().behind:
            pass
        took, burnt = time.perf_counter() - begun, time.process_time() - burnt
        ratio = took / lines / reading_alone(log)
        say(f"{part.__name__}: {lines} lines in {took:.1f} s ({burnt:.1f} s of a processor),")
        say(f"  {lines / took:.0f}/s, {ratio:.0f} x reading alone; memory at most {peak():.0f} MiB")
    say(f"{before:.0f} MiB of that before the first line; {ledger.sums()}")


def say(words: str) -> None:
    """Print a line at once."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def ask(folder: Path, ledger: Ledger) -> None:
    """Say how long questions take, and a comparison with the spool."""
    with reading(folder / "ledger.sqlite") as reader:
        for what, wanted in {
            "1,000 rows": Filter(limit=1000),
            "the last page": Filter(limit=100, offset=99_900),
            "a domain": Filter(domain="example.org", limit=1000),
            "a search": Filter(search="u1008@"),
            "a class": Filter(why="unreachable", limit=1000),
        }.items():
            begun = time.perf_counter()
            rows, total = len(reader.waiting(wanted)), reader.total(wanted)
            say(f"  {what}: {rows} of {total} in {time.perf_counter() - begun:.3f} s")
    begun = time.perf_counter()
    ledger.sums(), ledger.counts(), ledger.counters(), ledger.due(time.time(), time.time(), 100)
    say(f"  sums, counts, counters, due: {(time.perf_counter() - begun) * 1000:.1f} ms")
    spool = (Entry("deferred", name(number), 4321, 0.0) for number in range(100_000))
    begun = time.perf_counter()
    differ = ledger.reconcile(spool, time.time())
    took = time.perf_counter() - begun
    say(f"  reconciled with 100,000 files in {took:.1f} s: {differ} differ; {peak():.0f} MiB")


def main() -> None:
    """Run it."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="ledger-"))
    folder.mkdir(exist_ok=True)
    try:
        child = get_context("spawn").Process(target=run, args=(folder, messages))
        child.start()
        child.join()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

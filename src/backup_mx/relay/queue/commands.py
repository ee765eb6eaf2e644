"""The programs of Postfix by which a relay's queue is changed and read: the only caller of them."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backup_mx.errors import MachineError
from backup_mx.relay.queue import envelope, postfix
from backup_mx.relay.queue.spool import SPOOL

HOLD, RELEASE, REQUEUE, DELETE = "-h", "-H", "-r", "-d"
"""postsuper(1)'s options for what is done to the messages whose IDs it reads."""
TAG = "backup-mx/helper"
"""The program's name in the log, by which the ledger knows our lines."""
_SECONDS = 120.0
_LONGEST = 64 * 1024  # bytes of a line
_ENVELOPE, _HEADERS, _BODY = "-e", "-h", "-b"


@dataclass(frozen=True)
class Postfix:
    """The Postfix of this machine, whose queue is ``spool``; needs root."""

    spool: Path = SPOOL

    def change(self, option: str, ids: Iterable[str]) -> None:
        """Hold, release, requeue or delete messages (postsuper(1)), as far as they are there.

        Raises MachineError when postsuper as a whole fails.
        """
        run(("postsuper", option, "-"), "".join(f"{each}\n" for each in ids))

    def note(self, lines: Sequence[str]) -> None:
        """Write lines into the mail log (postlog(1)), in order and before anything that follows."""
        if lines:
            run(("postlog", "-t", TAG), "".join(f"{each}\n" for each in lines))

    def pick_up(self) -> None:
        """Let pickup(8) take what was requeued now, and not at its next minute (postkick(1))."""
        run(("postkick", "public", "pickup", "W"))

    def flush(self) -> None:
        """Try all mail now, but what is on hold (postqueue(1))."""
        run(postfix.FLUSH)

    def reload(self) -> None:
        """Let Postfix read its files again (postfix(1)); no delivery is cut off."""
        run(("postfix", "reload"))

    def domains(self) -> list[str]:
        """Return the domains that mail is taken for (relay_domains)."""
        return setting("relay_domains").replace(",", " ").split()

    def lifetime(self) -> int:
        """Return after how many seconds Postfix gives a message up: the shorter of its two limits.

        maximal_queue_lifetime, and bounce_queue_lifetime for mail with a null sender.
        """
        names = ("maximal_queue_lifetime", "bounce_queue_lifetime")
        try:
            return min(postfix.seconds(setting(name)) for name in names)
        except ValueError as error:
            raise MachineError(str(error)) from None

    def minfree(self) -> int:
        """Return how many bytes are to stay free beside the queue (queue_minfree)."""
        said = setting("queue_minfree")
        try:
            return int(said)
        except ValueError:
            raise MachineError(f"queue_minfree is no number of bytes: {said!r}") from None

    def envelope(self, queue_id: str) -> bytes:
        """Return a queue file's envelope as postcat(1) prints it. Raises MachineError."""
        with self.reading(_ENVELOPE, queue_id) as stream:
            return stream.read()

    def delivered(self, ids: Iterable[str]) -> frozenset[str]:
        """Return which of the messages everybody has; one that cannot be read is none of them."""
        wanted = list(ids)
        if not wanted:
            return frozenset()
        try:
            with self.reading(_ENVELOPE, *wanted, within=_SECONDS) as stream:
                return envelope.delivered(_lines(stream))
        except MachineError:
            if len(wanted) < 2:
                return frozenset()
            half = len(wanted) // 2  # postcat stops at the first that it cannot read
            return self.delivered(wanted[:half]) | self.delivered(wanted[half:])

    @contextmanager
    def headers(self, queue_id: str) -> Iterator[IO[bytes]]:
        """Give a message's header, line by line as it is stored."""
        with self.reading(_HEADERS, queue_id) as stream:
            yield stream

    @contextmanager
    def body(self, queue_id: str) -> Iterator[IO[bytes]]:
        """Give a message's body."""
        with self.reading(_BODY, queue_id) as stream:
            yield stream

    @contextmanager
    def message(self, queue_id: str) -> Iterator[IO[bytes]]:
        """Give a message, header and body."""
        with self.reading(_HEADERS + _BODY[1:], queue_id) as stream:
            yield stream

    @contextmanager
    def reading(self, what: str, *ids: str, within: float | None = None) -> Iterator[IO[bytes]]:
        """Give what postcat(1) prints of messages; its end may be left unread.

        Raises MachineError when all was read and postcat says that it was not all, or it took
        longer than ``within`` seconds.
        """
        argv = ("postcat", what, "-q", *ids)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
            assert program.stdout is not None  # noqa: S101  it was asked for
            assert program.stderr is not None  # noqa: S101
            try:
                with _killed_after(within, program):
                    yield program.stdout
                    if left := bool(program.stdout.read(1)):
                        program.kill()
            except BaseException:
                program.kill()
                raise
            said = program.stderr.read().decode(errors="replace").strip()
        if program.returncode and not left:
            raise MachineError(said or f"postcat ended with {program.returncode}")


@contextmanager
def _killed_after(seconds: float | None, program: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill a program that is not done with what is done here by then."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, program.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield each line, of one that is longer than any address its beginning."""
    begins = True
    while piece := stream.readline(_LONGEST):
        if begins:
            yield piece
        begins = piece.endswith(b"\n")


def setting(name: str) -> str:
    """Return what Postfix takes one of its parameters for (postconf(1)). Raises MachineError."""
    return run(("postconf", "-hx", name)).strip()


def run(argv: Sequence[str], given: str = "") -> str:
    """Run a program of Postfix; return what it printed. Raises MachineError when it fails."""
    return _run(argv, given).decode(errors="replace")


def _run(argv: Sequence[str], given: str = "") -> bytes:
    try:
        done = subprocess.run(
            argv, input=given.encode(), capture_output=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError:
        raise MachineError(f"{argv[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise MachineError(f"{argv[0]} did not end within {_SECONDS:.0f} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise MachineError(said or f"{argv[0]} ended with {done.returncode}")
    return done.stdout

"""A line of SMTP replies over a socket, bounded in time and size whatever the other side sends."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Self

REPLY_BYTES = 32_768  # of one reply, all its lines; a line of RFC 5321 has 512
_WORDS = 300  # characters of a reply that are worth keeping
_QUIT_SECONDS = 2.0


class Broken(Exception):  # noqa: N818 - what became of the line, not a mistake
    """The line is of no more use; the text says why, in Postfix's words where it has some."""


class Clock:
    """A time limit in seconds that starts now."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._end = self._began + seconds

    @property
    def spent(self) -> float:
        """Seconds since it started."""
        return time.monotonic() - self._began

    def left(self, most: float = float("inf")) -> float:
        """Return the seconds that are left, ``most`` at most, never less than a moment."""
        return max(0.001, min(most, self._end - time.monotonic()))

    @property
    def out(self) -> bool:
        """Whether the limit has been reached."""
        return time.monotonic() >= self._end


@dataclass(frozen=True)
class Reply:
    """A reply's code, and the text of its lines."""

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        """Return it on one line, printable, of bounded length."""
        text = " ".join(each for each in self.lines if each)
        plain = "".join(letter if letter.isprintable() else "?" for letter in text)
        return f"{self.code} {plain}"[:_WORDS].rstrip()


class Wire:
    """A connection; leaving its block closes it, whatever state it is in."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    @property
    def certificate(self) -> bytes | None:
        """The other side's certificate in DER, None before TLS."""
        return self._line.getpeercert(True) if isinstance(self._line, ssl.SSLSocket) else None

    def say(self, words: str, clock: Clock | None = None) -> None:
        """Send a command line. Raises Broken."""
        self.send(words.encode("ascii", "replace") + b"\r\n", clock or Clock(_QUIT_SECONDS))

    def send(self, octets: bytes, clock: Clock) -> None:
        """Send all of it. Raises Broken."""
        try:
            self._line.settimeout(clock.left())
            self._line.sendall(octets)
        except OSError as error:
            raise Broken(_broken(error)) from None

    def hear(self, clock: Clock) -> Reply:
        """Read one reply (RFC 5321, section 4.2.1). Raises Broken."""
        lines: list[str] = []
        size = 0
        while True:
            line = self._line_of(clock, REPLY_BYTES - size)
            size += len(line)
            code, mark = line[:3], line[3:4]
            if not (code.isdigit() and b"200" <= code <= b"599" and mark in (b" ", b"-", b"")):
                raise Broken(f"lost connection: no SMTP reply: {line[:60]!r}")
            lines.append(line[4:].decode("utf-8", "replace"))
            if mark != b"-":
                return Reply(int(code), tuple(lines))

    def secure(self, context: ssl.SSLContext, name: str | None, seconds: float) -> None:
        """Begin TLS; ``name`` is asked for and verified. Raises OSError, ValueError."""
        if self._rest:  # what was sent before the handshake would be taken for what came after
            raise OSError("plain text after the answer to STARTTLS")
        self._line.settimeout(seconds)
        self._line = context.wrap_socket(self._line, server_hostname=name)

    def _line_of(self, clock: Clock, most: int) -> bytes:
        """Return the next line without its end, of at most so many bytes. Raises Broken."""
        while b"\n" not in self._rest:
            if len(self._rest) > most:
                raise Broken("lost connection: a reply without an end")
            self._rest += self._some(clock)
        line, _, self._rest = self._rest.partition(b"\n")
        if len(line) > most:
            raise Broken("lost connection: a reply without an end")
        return line.rstrip(b"\r")

    def _some(self, clock: Clock) -> bytes:
        if clock.out:  # however much drips in
            raise Broken("conversation timed out")
        try:
            self._line.settimeout(clock.left())
            some = self._line.recv(4096)
        except OSError as error:
            raise Broken(_broken(error)) from None
        if not some:
            raise Broken("lost connection")
        return some


def _broken(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "conversation timed out"
    return f"lost connection: {error.strerror or type(error).__name__}"

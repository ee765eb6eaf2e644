"""An SMTP session that no server can keep: smtplib's own lets one speak, or be silent, for ever.

It is sent along with the programs that look at servers from elsewhere, so it needs nothing but a
Python of 3.9 or newer.
"""

from __future__ import annotations

import math
import smtplib
import socket
import ssl
import time
from typing import Any

SMTP = 25
"""Where a stranger finds a mail exchanger (RFC 5321, section 4.5.4.2)."""
EHLO = "probe.invalid"
"""What one who looks is called (RFC 2606): of a name in a domain, filters have opinions."""
_OCTETS = 64 * 1024  # of one answer; an EHLO answer has some twenty lines
_PIECE = 4 * 1024 * 1024  # bytes that have the time of an answer to go out: 35 KB/s in 120 s


class Session(smtplib.SMTP):
    """A session whose answers have an end.

    Its ``timeout``, in seconds, is for the whole of an answer, and for each piece of a message;
    it may be changed between two of them. ``ends`` is when the session is over, whatever is said
    (time.monotonic). Beyond either, or an answer's size, it hangs up.
    """

    ends = math.inf

    def secure(self, context: ssl.SSLContext, name: str) -> tuple[int, bytes]:
        """Begin TLS, asking for another ``name`` than was dialled. Raises OSError as ssl does."""
        self._host = name
        return self.starttls(context=context)

    def getreply(self) -> tuple[int, bytes]:
        """Return an answer; its code is -1 where it is no SMTP. Raises SMTPServerDisconnected."""
        try:
            answer = self._answer(self._until)
            self._bounded(self._until)  # for what is said next
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected(error.strerror or str(error)) from None
        return answer

    def send(self, s: Any) -> None:  # noqa: ANN401  as smtplib has it: text or octets
        """Send as smtplib does, which gives one timeout to all of it: here each piece has one."""
        octets = s.encode(self.command_encoding) if isinstance(s, str) else bytes(s)
        for start in range(0, len(octets), _PIECE):
            super().send(octets[start : start + _PIECE])

    @property
    def _until(self) -> float:
        return min(self.ends, time.monotonic() + self.timeout)

    def _answer(self, until: float) -> tuple[int, bytes]:
        said: list[bytes] = []
        left = _OCTETS
        while True:
            line = self._line(until, left)
            left -= len(line)
            said.append(line[4:].strip())
            code, mark = line[:3], line[3:4]
            if not code.isdigit() or mark != b"-":  # RFC 5321, section 4.2.1
                return int(code) if code.isdigit() else -1, b"\n".join(said)

    def _line(self, until: float, most: int) -> bytes:
        """Return the next line, of so many bytes at most, by ``until``. Raises OSError."""
        line = b""
        while not line.endswith(b"\n"):
            sock = self._bounded(until)
            if self.file is None:  # STARTTLS leaves none, so that nothing before it is heard after
                self.file = sock.makefile("rb")
            seen = self.file.peek()
            if not seen:
                raise ConnectionError("hung up")
            line += self.file.read(seen.find(b"\n") + 1 or len(seen))  # all of it is there
            if len(line) > most:
                raise OSError("an answer too long")
        return line

    def _bounded(self, until: float) -> socket.socket:
        """Let the connection wait until then, at most. Raises TimeoutError."""
        left = until - time.monotonic()
        if self.sock is None or left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(left)
        return self.sock


def told(fact: dict[str, Any]) -> str:
    """Return an answer, ``code`` and ``text``, or the ``error`` that came instead, in words."""
    if "error" in fact:
        return str(fact["error"])
    return f"{fact['code']} {' '.join(fact['text'].split())}"
